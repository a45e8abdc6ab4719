// Rows for views and joins (core/ops/views.cpp, core/ops/join.cpp).
#include <algorithm>

#include "op_table.h"

namespace tutti_test {

using namespace tutti;

namespace {

Array concatenated(const Arrays& parts, std::size_t axis) {
  Index shape = parts[0].shape;
  shape[axis] = 0;
  for (const Array& p : parts) shape[axis] += p.shape[axis];
  return make(shape, [&](const Index& i) {
    Index j = i;
    std::size_t k = 0;
    while (j[axis] >= parts[k].shape[axis]) j[axis] -= parts[k++].shape[axis];
    return parts[k].at(j);
  });
}

Array repeated(const Array& a, const Index& times) {
  Index shape = times;
  const std::size_t more = times.size() - a.shape.size();
  for (std::size_t d = 0; d < a.shape.size(); ++d) shape[more + d] *= a.shape[d];
  return make(shape, [&](const Index& i) {
    Index j(a.shape.size());
    for (std::size_t d = 0; d < j.size(); ++d) j[d] = i[more + d] % a.shape[d];
    return a.at(j);
  });
}

Array expanded(const Array& a, const Index& shape) {
  return make(shape, [&](const Index& i) { return at_broadcast(a, i); });
}

}  // namespace

void view_rows(Table& t) {
  const std::vector<In> m{real({2, 3})}, cube{real({2, 3, 4})};

  const char* contiguous = "it refuses memory it cannot see that way without a copy";
  t.row("view", m, FN(view(v[0], {3, 2})))
      .ref(REF(reshaped(a[0], {3, 2})))
      .fixed()
      .all_types()
      .view()
      .skip("layout", contiguous);
  t.row("view inferred", cube, FN(view(v[0], {-1, 4})))
      .ref(REF(reshaped(a[0], {6, 4})))
      .fixed()
      .view()
      .skip("layout", contiguous);
  t.row("reshape", m, FN(reshape(v[0], {3, -1})))
      .ref(REF(reshaped(a[0], {3, 2})))
      .fixed()
      .all_types()
      .view();
  t.row("reshape that copies", m, FN(reshape(transpose(v[0], 0, 1), {6})))
      .ref(REF(reshaped(permuted(a[0], {1, 0}), {6})))
      .fixed();
  t.row("reshape to 0-d", {real({1, 1})}, FN(reshape(v[0], {})))
      .ref(REF(reshaped(a[0], {})))
      .fixed()
      .view();
  t.row("flatten", cube, FN(flatten(v[0]))).ref(REF(reshaped(a[0], {count(a[0].shape)}))).view();
  t.row("flatten axes", cube, FN(flatten(v[0], 1, -1)))
      .ref(REF(reshaped(a[0], {a[0].shape[0], a[0].shape[1] * a[0].shape[2]})))
      .view();
  t.row("unflatten", {real({6, 2})}, FN(unflatten(v[0], 0, {2, -1})))
      .ref(REF(reshaped(a[0], {2, 3, a[0].shape[1]})))
      .flex({})
      .view();
  t.row("squeeze", {real({1, 3, 1})}, FN(squeeze(v[0])))
      .ref(REF(reshaped(a[0], {3})))
      .fixed()
      .view();
  t.row("squeeze axes", {real({1, 3, 1})}, FN(squeeze(v[0], {0, 1, -1})))
      .ref(REF(reshaped(a[0], {3})))
      .fixed()
      .view();
  t.row("squeeze one axis", {real({1, 3, 1})}, FN(squeeze(v[0], -1)))
      .ref(REF(reshaped(a[0], {1, a[0].shape[1]})))
      .flex({3})
      .view();
  t.row("unsqueeze", m, FN(unsqueeze(v[0], 1)))
      .ref(REF(reshaped(a[0], {a[0].shape[0], 1, a[0].shape[1]})))
      .view();
  t.row("unsqueeze last", m, FN(unsqueeze(v[0], -1)))
      .ref(REF(reshaped(a[0], {a[0].shape[0], a[0].shape[1], 1})))
      .view();
  t.row("transpose", cube, FN(transpose(v[0], 0, 2)))
      .large({{{31, 20, 27}}})
      .ref(REF(permuted(a[0], {2, 1, 0})))
      .all_types()
      .view();
  t.row("transpose negative", cube, FN(transpose(v[0], -1, -2)))
      .ref(REF(permuted(a[0], {0, 2, 1})))
      .view();
  t.row("t", m, FN(tutti::t(v[0]))).ref(REF(permuted(a[0], {1, 0}))).view();
  t.row("t of a vector", {real({3})}, FN(tutti::t(v[0]))).ref(REF(a[0])).shares();
  t.row("mT", cube, FN(mT(v[0]))).ref(REF(permuted(a[0], {0, 2, 1}))).view();
  t.row("permute", cube, FN(permute(v[0], {2, 0, 1})))
      .ref(REF(permuted(a[0], {2, 0, 1})))
      .all_types()
      .view();
  t.row("permute negative", cube, FN(permute(v[0], {-2, -1, 0})))
      .ref(REF(permuted(a[0], {1, 2, 0})))
      .view();
  t.row("movedim", cube, FN(movedim(v[0], 0, -1))).ref(REF(permuted(a[0], {1, 2, 0}))).view();
  t.row("movedim several", cube, FN(movedim(v[0], {2, 0}, {0, 1})))
      .ref(REF(permuted(a[0], {2, 0, 1})))
      .view();
  t.row("expand", {real({2, 1})}, FN(expand(v[0], {4, 2, 3})))
      .ref(REF(expanded(a[0], {4, 2, 3})))
      .flex({})
      .all_types()
      .shares();
  t.row("expand keeping a size", {real({2, 1})}, FN(expand(v[0], {-1, 3})))
      .ref(REF(expanded(a[0], {a[0].shape[0], 3})))
      .flex({2})
      .shares();
  t.row("expand 0-d", {real({})}, FN(expand(v[0], {2, 3})))
      .ref(REF(expanded(a[0], {2, 3})))
      .shares();
  t.row("expand to nothing", {real({2, 1})}, FN(expand(v[0], {2, 0})))
      .ref(REF(expanded(a[0], {2, 0})))
      .flex({})
      .shares();
  t.row("expand_as", {real({2, 1}), real({2, 3})}, FN(expand_as(v[0], v[1])))
      .ref(REF(expanded(a[0], a[1].shape)))
      .flex({3})
      .shares();
  t.row("broadcast_to", {real({3})}, FN(broadcast_to(v[0], {2, 3})))
      .ref(REF(expanded(a[0], {2, 3})))
      .flex({})
      .shares();
  t.row("narrow", {real({2, 5})}, FN(narrow(v[0], 1, 1, 3)))
      .ref(REF(sliced(a[0], 1, 1, 3)))
      .flex({2})
      .all_types()
      .view();
  t.row("narrow from the end", {real({2, 5})}, FN(narrow(v[0], -1, -2, 2)))
      .ref(REF(sliced(a[0], 1, 3, 2)))
      .flex({2})
      .view();
  t.row("slice", {real({2, 5})}, FN(slice(v[0], 1, 1, 5, 2)))
      .ref(REF(sliced(a[0], 1, 1, 2, 2)))
      .flex({2})
      .all_types()
      .view();
  t.row("slice open", {real({5, 2})}, FN(slice(v[0], 0, std::nullopt, -1)))
      .ref(REF(sliced(a[0], 0, 0, 4)))
      .flex({2})
      .view();
  t.row("slice clipped", {real({5, 2})}, FN(slice(v[0], -2, 2, 100)))
      .ref(REF(sliced(a[0], 0, 2, 3)))
      .flex({2})
      .view();
  t.row("slice empty", {real({5, 2})}, FN(slice(v[0], 0, 3, 2)))
      .ref(REF(sliced(a[0], 0, 3, 0)))
      .flex({2})
      .shares();
  t.row("select", cube, FN(select(v[0], 1, 2)))
      .ref(REF(selected(a[0], 1, 2)))
      .flex({2, 4})
      .all_types()
      .view();
  t.row("select from the end", cube, FN(select(v[0], -1, -1)))
      .ref(REF(selected(a[0], 2, -1)))
      .flex({2, 3})
      .view();
  t.row("select operator", {real({3, 2})}, FN(v[0][1]))
      .ref(REF(selected(a[0], 0, 1)))
      .flex({2})
      .view();
  t.row("unbind", {real({3, 2})}, FN(unbind(v[0])))
      .ref(REF(Arrays{selected(a[0], 0, 0), selected(a[0], 0, 1), selected(a[0], 0, 2)}))
      .flex({2})
      .all_types()
      .view();
  t.row("unbind last", m, FN(unbind(v[0], -1)))
      .ref(REF(Arrays{selected(a[0], 1, 0), selected(a[0], 1, 1), selected(a[0], 1, 2)}))
      .flex({2})
      .view();
  t.row("split", {real({5, 2})}, FN(split(v[0], 2)))
      .ref(REF(Arrays{sliced(a[0], 0, 0, 2), sliced(a[0], 0, 2, 2), sliced(a[0], 0, 4, 1)}))
      .flex({})
      .all_types()
      .view();
  t.row("split sizes", {real({2, 5})}, FN(split(v[0], std::vector<std::int64_t>{1, 4}, -1)))
      .ref(REF(Arrays{sliced(a[0], 1, 0, 1), sliced(a[0], 1, 1, 4)}))
      .flex({2})
      .view();
  t.row("chunk", {real({5, 2})}, FN(chunk(v[0], 2)))
      .ref(REF(Arrays{sliced(a[0], 0, 0, 3), sliced(a[0], 0, 3, 2)}))
      .flex({2})
      .all_types()
      .view();
  t.row("chunk fewer than asked", {real({2, 5})}, FN(chunk(v[0], 4, 1)))
      .ref(REF(Arrays{sliced(a[0], 1, 0, 2), sliced(a[0], 1, 2, 2), sliced(a[0], 1, 4, 1)}))
      .flex({})
      .view();
  t.row("diagonal", {real({3, 4})}, FN(diagonal(v[0])))
      .ref(REF(make({std::min(a[0].shape[0], a[0].shape[1])},
                    [&](const Index& i) {
                      return a[0].at({i[0], i[0]});
                    })))
      .all_types()
      .view();
  t.row("diagonal offset and axes", {real({3, 2, 4})}, FN(diagonal(v[0], 1, -3, -1)))
      .ref(REF(make({2, 3},
                    [&](const Index& i) {
                      return a[0].at({i[1], i[0], i[1] + 1});
                    })))
      .fixed()
      .view();
  t.row("diagonal below", {real({3, 4})}, FN(diagonal(v[0], -1)))
      .ref(REF(make({2},
                    [&](const Index& i) {
                      return a[0].at({i[0] + 1, i[0]});
                    })))
      .fixed()
      .view();
  t.row("as_strided", {real({6})}, BLOCK({
          const std::int64_t step = v[0].strides()[0];
          return as_strided(v[0], {2, 2}, {3 * step, step}, v[0].storage_offset() + step);
        }))
      .ref(REF(make({2, 2}, [&](const Index& i) { return a[0].at({1 + 3 * i[0] + i[1]}); })))
      .fixed()
      .all_types()
      .view();
  t.row("as_strided overlapping", {real({5})},
        FN(as_strided(v[0], {3, 3}, {v[0].strides()[0], v[0].strides()[0]})))
      .ref(REF(make({3, 3}, [&](const Index& i) { return a[0].at({i[0] + i[1]}); })))
      .fixed()
      .shares();
  t.row("unfold", {real({2, 5})}, FN(unfold(v[0], 1, 3, 2)))
      .ref(REF(make({a[0].shape[0], 2, 3},
                    [&](const Index& i) {
                      return a[0].at({i[0], 2 * i[1] + i[2]});
                    })))
      .flex({2})
      .all_types()
      .shares();
  t.row("unfold apart", {real({5, 2})}, FN(unfold(v[0], -2, 2, 3)))
      .ref(REF(make({2, a[0].shape[1], 2},
                    [&](const Index& i) {
                      return a[0].at({3 * i[0] + i[2], i[1]});
                    })))
      .flex({2})
      .view();

  t.row("cat", {real({2, 3}), real({1, 3})}, FN(cat({v[0], v[1]})))
      .large({{{40, 100}, {101, 100}}})
      .ref(REF(concatenated(a, 0)))
      .flex({2, 3})
      .all_types();
  t.row("cat last axis", {real({2, 3}), real({2, 1}), real({2, 2})},
        FN(cat({v[0], v[1], v[2]}, -1)))
      .ref(REF(concatenated(a, 1)))
      .flex({3});
  t.row("cat one", m, FN(cat({v[0]}, 1))).ref(REF(a[0]));
  t.row("cat twice the same", m, FN(cat({v[0], v[0]}, 1))).ref(REF(concatenated({a[0], a[0]}, 1)));
  t.row("cat skips empty vectors", {real({2, 3})}, FN(cat({zeros(0, v[0].options()), v[0]}, 1)))
      .ref(REF(a[0]));
  t.row("stack", {real({2, 3}), real({2, 3})}, FN(tutti::stack({v[0], v[1]})))
      .ref(REF(tutti_test::stack(a, 0, a[0].shape)))
      .all_types();
  t.row("stack last axis", {real({2, 3}), real({2, 3})}, FN(tutti::stack({v[0], v[1]}, -1)))
      .ref(REF(tutti_test::stack(a, 2, a[0].shape)));
  t.row("hstack", {real({2, 3}), real({2, 1})}, FN(hstack({v[0], v[1]})))
      .ref(REF(concatenated(a, 1)))
      .flex({2, 3});
  t.row("hstack vectors", {real({3}), real({2})}, FN(hstack({v[0], v[1]})))
      .ref(REF(concatenated(a, 0)));
  t.row("vstack", {real({2, 3}), real({1, 3})}, FN(vstack({v[0], v[1]})))
      .ref(REF(concatenated(a, 0)))
      .flex({2, 3});
  t.row("vstack vectors", {real({3}), real({3})}, FN(vstack({v[0], v[1]})))
      .ref(REF(tutti_test::stack(a, 0, a[0].shape)));
  t.row("repeat", m, FN(repeat(v[0], {2, 1, 2}))).ref(REF(repeated(a[0], {2, 1, 2}))).all_types();
  t.row("repeat nothing", m, FN(repeat(v[0], {0, 2}))).ref(REF(repeated(a[0], {0, 2})));
  t.row("tile", m, FN(tile(v[0], {3}))).ref(REF(repeated(a[0], {1, 3}))).all_types();
}

}  // namespace tutti_test
