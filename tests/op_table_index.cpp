// Rows for indexing, gathering and scattering (core/ops/index.cpp).
#include "op_table.h"

namespace tutti_test {

using namespace tutti;

namespace {

std::int64_t whole(double x) { return static_cast<std::int64_t>(x); }

// Where gather along `axis` reads for output place i.
Index gathered_from(const Array& index, std::size_t axis, const Index& i) {
  Index j = i;
  j[axis] = whole(index.at(i));
  return j;
}

Array gather_reference(const Array& x, std::size_t axis, const Array& index) {
  return make(index.shape, [&](const Index& i) { return x.at(gathered_from(index, axis, i)); });
}

// x with f(old, new) at the places gather reads.
Array scatter_reference(Array x, std::size_t axis, const Array& index,
                        const std::function<double(const Index&)>& src, bool add) {
  each(index.shape, [&](const Index& i) {
    double& place = x.at(gathered_from(index, axis, i));
    place = add ? place + src(i) : src(i);
  });
  return x;
}

// Whole slices along `axis`: x.at(.., index[k], ..) += alpha * src.at(.., k, ..).
Array index_add_reference(Array x, std::size_t axis, const Array& index, const Array& src,
                          double alpha) {
  each(src.shape, [&](const Index& i) {
    Index j = i;
    j[axis] = whole(index.at({i[axis]}));
    x.at(j) += alpha * src.at(i);
  });
  return x;
}

Array index_select_reference(const Array& x, std::size_t axis, const Array& index) {
  Index shape = x.shape;
  shape[axis] = index.shape[0];
  return make(shape, [&](const Index& i) {
    Index j = i;
    j[axis] = whole(index.at({i[axis]}));
    return x.at(j);
  });
}

// Elements of x where mask (over the leading axes) is true, in order.
Array masked_reference(const Array& x, const Array& m) {
  Index rest(x.shape.begin() + static_cast<std::ptrdiff_t>(m.shape.size()), x.shape.end());
  Array out;
  std::int64_t rows = 0;
  each(m.shape, [&](const Index& i) {
    if (m.at(i) == 0) return;
    ++rows;
    each(rest, [&](const Index& r) {
      Index j = i;
      j.insert(j.end(), r.begin(), r.end());
      out.data.push_back(x.at(j));
    });
  });
  out.shape = rest;
  out.shape.insert(out.shape.begin(), rows);
  return out;
}

Array put_reference(Array x, const std::function<bool(const Index&)>& there,
                    const std::function<double(const Index&)>& value) {
  each(x.shape, [&](const Index& i) {
    if (there(i)) x.at(i) = value(i);
  });
  return x;
}

}  // namespace

void index_rows(Table& t) {
  const char* by_value = "the size of the result depends on the values";

  // Plain indices are views.
  t.row("index integer", {real({3, 4})}, FN(index(v[0], {1})))
      .ref(REF(selected(a[0], 0, 1)))
      .flex({4})
      .view();
  t.row("index slices", {real({3, 4})}, FN(index(v[0], {Slice(1, None), Slice(None, None, 2)})))
      .ref(REF(sliced(sliced(a[0], 0, 1, 2), 1, 0, 2, 2)))
      .fixed()
      .all_types()
      .view();
  t.row("index none and ellipsis", {real({3, 4})}, FN(index(v[0], {Ellipsis, None, -1})))
      .ref(REF(reshaped(selected(a[0], 1, 3), {a[0].shape[0], 1})))
      .flex({3})
      .view();
  t.row("index from the end", {real({2, 3, 4})}, FN(index(v[0], {-1, Ellipsis, Slice(-2, None)})))
      .ref(REF(sliced(selected(a[0], 0, -1), 1, 2, 2)))
      .flex({3})
      .view();

  // Tensors copy.
  t.row("index tensor", {real({3, 2}), indices({4}, 3)}, FN(index(v[0], {v[1]})))
      .ref(REF(index_select_reference(a[0], 0, a[1])))
      .flex({2})
      .all_types();
  t.row("index second axis", {real({2, 3}), indices({4}, 3)}, FN(index(v[0], {Slice(), v[1]})))
      .ref(REF(index_select_reference(a[0], 1, a[1])))
      .flex({2});
  t.row("index matrix", {real({3, 2}), indices({2, 2}, 3)}, FN(index(v[0], {v[1]})))
      .ref(REF(make({2, 2, 2},
                    [&](const Index& i) {
                      return a[0].at({whole(a[1].at({i[0], i[1]})), i[2]});
                    })))
      .fixed();
  t.row("index pairs", {real({3, 4}), indices({5}, 3), indices({5}, 4)},
        FN(index(v[0], {v[1], v[2]})))
      .ref(REF(make({a[1].shape[0]},
                    [&](const Index& i) {
                      return a[0].at({whole(a[1].at(i)), whole(a[2].at(i))});
                    })))
      .fixed();
  t.row("index pairs that broadcast", {real({3, 4}), indices({2, 1}, 3), indices({3}, 4)},
        FN(index(v[0], {v[1], v[2]})))
      .ref(REF(make({2, 3},
                    [&](const Index& i) {
                      return a[0].at({whole(a[1].at({i[0], 0})), whole(a[2].at({i[1]}))});
                    })))
      .fixed();
  t.row("index apart", {real({3, 2, 4}), indices({5}, 3), indices({5}, 4)},
        FN(index(v[0], {v[1], Slice(), v[2]})))
      .ref(REF(make({5, 2},
                    [&](const Index& i) {
                      return a[0].at({whole(a[1].at({i[0]})), i[1], whole(a[2].at({i[0]}))});
                    })))
      .fixed();
  t.row("index mixed", {real({2, 3, 4}), indices({2}, 4)}, FN(index(v[0], {Slice(), 1, v[1]})))
      .ref(REF(index_select_reference(selected(a[0], 1, 1), 1, a[1])))
      .fixed();
  t.row("index negative tensor", {real({3, 2}), indices({4}, 3)}, FN(index(v[0], {v[1] - 3})))
      .ref(REF(index_select_reference(a[0], 0, a[1])))
      .flex({2});
  t.row("index operator tensor", {real({3, 2}), indices({4}, 3)}, FN(v[0][v[1]]))
      .ref(REF(index_select_reference(a[0], 0, a[1])))
      .flex({2});
  t.row("index mask", {real({2, 3}), mask({2, 3})}, FN(index(v[0], {v[1]})))
      .ref(REF(masked_reference(a[0], a[1])))
      .refused(by_value);
  t.row("index mask of rows", {real({2, 3}), mask({2})}, FN(index(v[0], {v[1]})))
      .ref(REF(masked_reference(a[0], a[1])))
      .refused(by_value);

  // Writing through an index; every place at most once where the last write wins.
  t.row("index_put_ tensor", {real({4, 2}), unique_indices({3}, 4, 0), real({3, 2})}, BLOCK({
          Tensor x = v[0].clone();
          index_put_(x, {v[1]}, v[2]);
          return x;
        }))
      .ref(REF(scatter_reference(
          a[0], 0, make(a[2].shape, [&](const Index& i) { return a[1].at({i[0]}); }),
          [&](const Index& i) { return a[2].at(i); }, false)))
      .flex({2});
  t.row("index_put_ accumulate", {real({3, 2}), indices({4}, 3), real({4, 2})}, BLOCK({
          Tensor x = v[0].clone();
          index_put_(x, {v[1]}, v[2], true);
          return x;
        }))
      .ref(REF(index_add_reference(a[0], 0, a[1], a[2], 1)))
      .flex({2});
  t.row("index_put_ number", {real({4, 2}), indices({3}, 4)}, BLOCK({
          Tensor x = v[0].clone();
          index_put_(x, {v[1]}, 7);
          return x;
        }))
      .ref(REF(put_reference(
          a[0],
          [&](const Index& i) {
            for (double k : a[1].data)
              if (whole(k) == i[0]) return true;
            return false;
          },
          [](const Index&) { return 7.0; })))
      .flex({2})
      .ints();
  t.row("index_put_ slice", {real({4, 3}), real({3})}, BLOCK({
          Tensor x = v[0].clone();
          index_put_(x, {Slice(1, 3)}, v[1]);
          return x;
        }))
      .ref(REF(put_reference(
          a[0], [](const Index& i) { return i[0] == 1 || i[0] == 2; },
          [&](const Index& i) { return a[1].at({i[1]}); })))
      .flex({3});
  t.row("index_put_ mask and number", {real({2, 3}), mask({2, 3})}, BLOCK({
          Tensor x = v[0].clone();
          index_put_(x, {v[1]}, 7);
          return x;
        }))
      .ref(REF(put_reference(
          a[0], [&](const Index& i) { return a[1].at(i) != 0; },
          [](const Index&) { return 7.0; })));

  t.row("gather", {real({3, 2}), indices({4, 2}, 3)}, FN(gather(v[0], 0, v[1])))
      .ref(REF(gather_reference(a[0], 0, a[1])))
      .flex({2})
      .all_types();
  t.row("gather last axis", {real({2, 3}), indices({2, 2}, 3)}, FN(gather(v[0], -1, v[1])))
      .ref(REF(gather_reference(a[0], 1, a[1])))
      .fixed();
  t.row("gather fewer", {real({3, 4}), indices({2, 2}, 3)}, FN(gather(v[0], 0, v[1])))
      .ref(REF(gather_reference(a[0], 0, a[1])))
      .fixed();
  t.row("scatter", {real({4, 2}), unique_indices({3, 2}, 4, 0), real({3, 2})},
        FN(scatter(v[0], 0, v[1], v[2])))
      .ref(REF(scatter_reference(
          a[0], 0, a[1], [&](const Index& i) { return a[2].at(i); }, false)))
      .flex({2})
      .all_types()
      .inplace("scatter_", FN(scatter_(v[0], 0, v[1], v[2])));
  t.row("scatter fewer", {real({2, 4}), unique_indices({2, 2}, 4, 1), real({2, 3})},
        FN(scatter(v[0], -1, v[1], v[2])))
      .ref(REF(scatter_reference(
          a[0], 1, a[1], [&](const Index& i) { return a[2].at(i); }, false)))
      .fixed();
  t.row("scatter number", {real({4, 2}), indices({3, 2}, 4)}, FN(scatter(v[0], 0, v[1], 7)))
      .ref(REF(scatter_reference(
          a[0], 0, a[1], [](const Index&) { return 7.0; }, false)))
      .flex({2})
      .ints()
      .inplace("scatter_", FN(scatter_(v[0], 0, v[1], 7)));
  t.row("scatter_add", {real({3, 2}), indices({4, 2}, 3), real({4, 2})},
        FN(scatter_add(v[0], 0, v[1], v[2])))
      .ref(REF(scatter_reference(
          a[0], 0, a[1], [&](const Index& i) { return a[2].at(i); }, true)))
      .flex({2})
      .ints()
      .inplace("scatter_add_", FN(scatter_add_(v[0], 0, v[1], v[2])));
  t.row("scatter_add last axis", {real({2, 3}), indices({2, 4}, 3), real({2, 4})},
        FN(scatter_add(v[0], -1, v[1], v[2])))
      .ref(REF(scatter_reference(
          a[0], 1, a[1], [&](const Index& i) { return a[2].at(i); }, true)))
      .flex({2});
  t.row("index_select", {real({3, 2}), indices({4}, 3)}, FN(index_select(v[0], 0, v[1])))
      .ref(REF(index_select_reference(a[0], 0, a[1])))
      .flex({2})
      .all_types();
  t.row("index_select last axis", {real({2, 3}), indices({4}, 3)}, FN(index_select(v[0], -1, v[1])))
      .ref(REF(index_select_reference(a[0], 1, a[1])))
      .flex({2});
  t.row("index_add", {real({3, 2}), indices({4}, 3), real({4, 2})},
        FN(index_add(v[0], 0, v[1], v[2])))
      .ref(REF(index_add_reference(a[0], 0, a[1], a[2], 1)))
      .flex({2})
      .ints()
      .inplace("index_add_", FN(index_add_(v[0], 0, v[1], v[2])));
  t.row("index_add alpha", {real({2, 3}), indices({4}, 3), real({2, 4})},
        FN(index_add(v[0], -1, v[1], v[2], 2)))
      .ref(REF(index_add_reference(a[0], 1, a[1], a[2], 2)))
      .flex({2})
      .inplace("index_add_", FN(index_add_(v[0], -1, v[1], v[2], 2)));
  t.row("take_along_dim", {real({3, 2}), indices({4, 2}, 3)}, FN(take_along_dim(v[0], v[1], 0)))
      .ref(REF(gather_reference(a[0], 0, a[1])))
      .flex({2})
      .all_types();
  t.row("take_along_dim broadcast", {real({2, 3}), indices({1, 4}, 3)},
        FN(take_along_dim(v[0], v[1], -1)))
      .ref(REF(make({a[0].shape[0], 4},
                    [&](const Index& i) {
                      return a[0].at({i[0], whole(a[1].at({0, i[1]}))});
                    })))
      .flex({2});
  auto hot = [](const Array& x, std::int64_t classes) {
    Index shape = x.shape;
    shape.push_back(classes);
    return make(shape, [&](const Index& i) {
      return x.at(Index(i.begin(), i.end() - 1)) == static_cast<double>(i.back()) ? 1.0 : 0.0;
    });
  };
  t.row("one_hot", {indices({2, 3}, 4)}, FN(one_hot(v[0], 4)))
      .ref(REF(hot(a[0], 4)))
      .result({Gives::int64});
  t.row("one_hot unknown classes", {indices({2, 3}, 4)}, FN(one_hot(v[0])))
      .ref(REF(hot(a[0], whole(largest(a[0].data)) + 1)))
      .nonempty()
      .result({Gives::int64})
      .refused(by_value);
  t.row("masked_select", {real({2, 3}), mask({2, 3})}, FN(masked_select(v[0], v[1])))
      .ref(REF(masked_reference(a[0], a[1])))
      .all_types()
      .refused(by_value);
  t.row("nonzero", {mask({2, 3})}, FN(nonzero(v[0])))
      .ref([](const Arrays& a) {
        Array out{{0, a[0].rank()}, {}};
        each(a[0].shape, [&](const Index& i) {
          if (a[0].at(i) == 0) return;
          ++out.shape[0];
          for (std::int64_t k : i) out.data.push_back(static_cast<double>(k));
        });
        return Arrays{out};
      })
      .result({Gives::int64})
      .refused(by_value);
  auto mirrored = [](const Array& x, const Index& axes) {
    return make(x.shape, [&](const Index& i) {
      Index j = i;
      for (std::int64_t axis : axes) {
        const auto d = static_cast<std::size_t>(axis);
        j[d] = x.shape[d] - 1 - j[d];
      }
      return x.at(j);
    });
  };
  t.row("flip", {real({2, 3})}, FN(flip(v[0], 1)))
      .large({{{100, 97}}})
      .ref(REF(mirrored(a[0], {1})))
      .all_types();
  t.row("flip axes", {real({2, 3, 2})}, FN(flip(v[0], {0, -1}))).ref(REF(mirrored(a[0], {0, 2})));
  auto rolled = [](const Array& x, std::int64_t by, std::size_t axis) {
    const std::int64_t n = x.shape[axis];
    return make(x.shape, [&](const Index& i) {
      Index j = i;
      j[axis] = ((j[axis] - by) % n + n) % n;
      return x.at(j);
    });
  };
  t.row("roll", {real({2, 4})}, FN(roll(v[0], 1, 1))).ref(REF(rolled(a[0], 1, 1))).all_types();
  t.row("roll backwards", {real({4, 2})}, FN(roll(v[0], -9, -2))).ref(REF(rolled(a[0], -9, 0)));
  t.row("roll axes", {real({3, 4})}, FN(roll(v[0], {1, 2}, {0, 1})))
      .ref(REF(rolled(rolled(a[0], 1, 0), 2, 1)));
  t.row("roll flat", {real({2, 3})}, FN(roll(v[0], 2)))
      .ref(REF(reshaped(rolled(reshaped(a[0], {count(a[0].shape)}), 2, 0), a[0].shape)));
  auto triangle = [](const Array& x, std::int64_t k, bool lower) {
    const std::size_t r = x.shape.size();
    return make(x.shape, [&](const Index& i) {
      const std::int64_t d = i[r - 1] - i[r - 2];
      return (lower ? d <= k : d >= k) ? x.at(i) : 0;
    });
  };
  t.row("tril", {real({3, 3})}, FN(tril(v[0]))).ref(REF(triangle(a[0], 0, true))).all_types();
  t.row("tril batch below", {real({2, 3, 4})}, FN(tril(v[0], -1)))
      .ref(REF(triangle(a[0], -1, true)));
  t.row("triu", {real({3, 3})}, FN(triu(v[0]))).ref(REF(triangle(a[0], 0, false))).all_types();
  t.row("triu batch above", {real({2, 4, 3})}, FN(triu(v[0], 1)))
      .ref(REF(triangle(a[0], 1, false)));
}

}  // namespace tutti_test
