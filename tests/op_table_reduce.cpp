// Rows for reductions, scans, sorting and softmax (core/ops/reduce.cpp), and for products of
// matrices (core/ops/matmul.cpp).
#include <algorithm>
#include <numeric>

#include "op_table.h"

namespace tutti_test {

using namespace tutti;

namespace {

double mean_of(const Lines& v) { return total(v) / static_cast<double>(v.size()); }
double product(const Lines& v) {
  double p = 1;
  for (double x : v) p *= x;
  return p;
}
// Sum of squared deviations over n - correction.
double variance(const Lines& v, int correction) {
  if (v.empty()) return NAN;
  const double m = mean_of(v);
  double s = 0;
  for (double x : v) s += (x - m) * (x - m);
  return s / static_cast<double>(static_cast<int>(v.size()) - correction);
}
double norm_of(const Lines& v, double p) {
  if (p == INFINITY) {
    double m = 0;
    for (double x : v) m = std::max(m, std::abs(x));
    return m;
  }
  double s = 0;
  for (double x : v) s += p == 0 ? (x != 0) : std::pow(std::abs(x), p);
  return p == 0 ? s : std::pow(s, 1 / p);
}
double log_sum_exp(const Lines& v) {
  const double m = largest(v);
  double s = 0;
  for (double x : v) s += std::exp(x - m);
  return m + std::log(s);
}
// Positions in stable sorted order, NaN last.
std::vector<std::size_t> order_of(const Lines& v, bool descending) {
  std::vector<std::size_t> p(v.size());
  std::iota(p.begin(), p.end(), std::size_t{0});
  auto less = [](double x, double y) { return std::isnan(y) ? !std::isnan(x) : x < y; };
  std::stable_sort(p.begin(), p.end(), [&](std::size_t i, std::size_t j) {
    return descending ? less(v[j], v[i]) : less(v[i], v[j]);
  });
  return p;
}
double first_place(const Lines& v, double (*extreme)(const Lines&)) {
  const double m = extreme(v);
  for (std::size_t i = 0; i < v.size(); ++i)
    if (v[i] == m || (std::isnan(m) && std::isnan(v[i]))) return static_cast<double>(i);
  return 0;
}
Array positive(Array a) {
  for (double& x : a.data) x = x > 0 || std::isnan(x) ? x : 0;
  return a;
}
double first_largest(const Lines& v) { return first_place(v, largest); }
double first_smallest(const Lines& v) { return first_place(v, smallest); }
double median_of(const Lines& v) {
  return v.empty() ? NAN : v[order_of(v, false)[(v.size() - 1) / 2]];
}
double median_place(const Lines& v) {
  return v.empty() ? 0 : static_cast<double>(order_of(v, false)[(v.size() - 1) / 2]);
}
double any_of(const Lines& v) {
  return std::any_of(v.begin(), v.end(), [](double x) { return x != 0; });
}
double all_of(const Lines& v) {
  return std::all_of(v.begin(), v.end(), [](double x) { return x != 0; });
}

// The first k of the sorted line, as values or as places.
std::function<Lines(const Lines&)> in_order(bool descending, bool places,
                                            std::size_t k = SIZE_MAX) {
  return [=](const Lines& v) {
    Lines out;
    for (std::size_t i : order_of(v, descending))
      if (out.size() < k) out.push_back(places ? static_cast<double>(i) : v[i]);
    return out;
  };
}

Lines running(const Lines& v, bool multiply) {
  Lines out;
  double s = multiply ? 1 : 0;
  for (double x : v) out.push_back(s = multiply ? s * x : s + x);
  return out;
}

std::function<Lines(const Lines&)> softmax_line(bool logarithm) {
  return [=](const Lines& v) {
    const double z = log_sum_exp(v);
    Lines out;
    for (double x : v) out.push_back(logarithm ? x - z : std::exp(x - z));
    return out;
  };
}

}  // namespace

void reduce_rows(Table& t) {
  const std::vector<In> m{real({2, 3})}, cube{real({2, 3, 4})}, above{positive({2, 3})};
  const std::vector<In> no_ties{distinct({2, 3})}, cube_no_ties{distinct({2, 3, 4})};
  const std::vector<Gives> sums{Gives::sum}, truth{Gives::boolean}, places{Gives::int64};
  const std::vector<Gives> with_places{Gives::same, Gives::int64};

  t.row("sum", m, FN(sum(v[0])))
      .large({{{70001}}, {{1, 70001}}})
      .ref(REF(reduced(a[0], {}, false, total)))
      .result(sums)
      .all_types();
  t.row("sum axis", cube, FN(sum(v[0], 1)))
      .large({{{1, 70001, 2}}, {{2, 70001, 1}}, {{30, 100, 7}}})
      .ref(REF(reduced(a[0], {1}, false, total)))
      .result(sums)
      .all_types();
  t.row("sum axes keepdim", cube, FN(sum(v[0], {0, -1}, true)))
      .large({{{90, 3, 101}}, {{3, 2, 12001}}})
      .ref(REF(reduced(a[0], {0, 2}, true, total)))
      .result(sums)
      .ints();
  t.row("sum first axis", cube, FN(sum(v[0], 0)))
      .large({{{17001, 2, 2}}, {{70, 20, 30}}, {{70001, 1, 1}}})
      .ref(REF(reduced(a[0], {0}, false, total)))
      .result(sums);
  t.row("sum 0-d", {real({})}, FN(sum(v[0], 0))).ref(REF(a[0]));
  t.row("sum dtype", {mask({2, 3})}, FN(sum(v[0], 1, false, kFloat64)))
      .ref(REF(reduced(a[0], {1}, false, total)));
  t.row("mean", m, FN(mean(v[0]))).large({{{70001}}}).ref(REF(reduced(a[0], {}, false, mean_of)));
  t.row("mean axis keepdim", cube, FN(mean(v[0], {-1}, true)))
      .ref(REF(reduced(a[0], {2}, true, mean_of)));
  t.row("mean axes", cube, FN(mean(v[0], {0, 1}))).ref(REF(reduced(a[0], {0, 1}, false, mean_of)));
  t.row("mean dtype", {indices({2, 3}, 9)}, FN(mean(v[0], kFloat64)))
      .ref(REF(reduced(a[0], {}, false, mean_of)));
  t.row("prod", m, FN(prod(v[0]))).ref(REF(reduced(a[0], {}, false, product))).loose(4);
  t.row("prod axis", cube, FN(prod(v[0], -2, true)))
      .ref(REF(reduced(a[0], {1}, true, product)))
      .loose(4);
  t.row("prod integers", {real({2, 3}, -2, 2)}, FN(prod(v[0], 1)))
      .ref(REF(reduced(a[0], {1}, false, product)))
      .result(sums)
      .ints()
      .flex({2})
      .loose(4);
  t.row("prod with a zero", {real({2, 3})}, FN(prod(v[0] * arange(3, v[0].options()), 1)))
      .ref(REF(reduced(a[0], {1}, false, [](const Lines&) { return 0.0; })))
      .flex({2});
  auto varied = [](int correction) {
    return [=](const Lines& v) { return variance(v, correction); };
  };
  auto deviation = [](int correction) {
    return [=](const Lines& v) { return std::sqrt(variance(v, correction)); };
  };
  t.row("var", m, FN(var(v[0])))
      .large({{{20003}}})
      .ref(REF(reduced(a[0], {}, false, varied(1))))
      .loose(4);
  t.row("var biased", m, FN(var(v[0], false)))
      .ref(REF(reduced(a[0], {}, false, varied(0))))
      .loose(4);
  t.row("var axis", cube, FN(var(v[0], 1))).ref(REF(reduced(a[0], {1}, false, varied(1)))).loose(4);
  t.row("var axes biased keepdim", cube, FN(var(v[0], {0, -1}, false, true)))
      .ref(REF(reduced(a[0], {0, 2}, true, varied(0))))
      .loose(4);
  t.row("std", m, FN(tutti::std(v[0])))
      .ref(REF(reduced(a[0], {}, false, deviation(1))))
      .loose(4)
      .flex({2});
  t.row("std biased", m, FN(tutti::std(v[0], false)))
      .ref(REF(reduced(a[0], {}, false, deviation(0))))
      .flex({2})
      .loose(4);
  t.row("std axis keepdim", cube, FN(tutti::std(v[0], -1, true, true)))
      .ref(REF(reduced(a[0], {2}, true, deviation(1))))
      .flex({2, 3})
      .loose(4);

  t.row("max", no_ties, FN(max(v[0])))
      .large({{{70001}}})
      .ref(REF(reduced(a[0], {}, false, largest)))
      .all_types()
      .nonempty();
  t.row("max axis", cube_no_ties, FN(max(v[0], 1)))
      .large({{{2, 70001, 1}}, {{20, 100, 3}}})
      .ref(
          REF(Arrays{reduced(a[0], {1}, false, largest), reduced(a[0], {1}, false, first_largest)}))
      .result(with_places)
      .ints()
      .nonempty();
  t.row("max axis keepdim", cube_no_ties, FN(max(v[0], -1, true)))
      .ref(REF(Arrays{reduced(a[0], {2}, true, largest), reduced(a[0], {2}, true, first_largest)}))
      .result(with_places)
      .nonempty();
  t.row("max of two", {fraction({2, 3}, 0.1, 0.4), fraction({2, 3}, 0.6, 0.9)}, FN(max(v[0], v[1])))
      .ref(MAP(x > y ? x : y))
      .ints()
      .broadcasts();
  t.row("min", no_ties, FN(min(v[0])))
      .ref(REF(reduced(a[0], {}, false, smallest)))
      .all_types()
      .nonempty();
  t.row("min axis", cube_no_ties, FN(min(v[0], 0)))
      .large({{{70001, 1, 2}}})
      .ref(REF(
          Arrays{reduced(a[0], {0}, false, smallest), reduced(a[0], {0}, false, first_smallest)}))
      .result(with_places)
      .ints()
      .nonempty();
  t.row("min of two", {fraction({2, 3}, 0.1, 0.4), fraction({2, 3}, 0.6, 0.9)}, FN(min(v[0], v[1])))
      .ref(MAP(x < y ? x : y))
      .ints()
      .broadcasts();
  t.row("amax", no_ties, FN(amax(v[0])))
      .ref(REF(reduced(a[0], {}, false, largest)))
      .ints()
      .nonempty();
  t.row("amax axes keepdim", cube_no_ties, FN(amax(v[0], {0, -1}, true)))
      .ref(REF(reduced(a[0], {0, 2}, true, largest)))
      .ints()
      .nonempty();
  t.row("amin", no_ties, FN(amin(v[0])))
      .ref(REF(reduced(a[0], {}, false, smallest)))
      .ints()
      .nonempty();
  t.row("amin axis", cube_no_ties, FN(amin(v[0], 1)))
      .ref(REF(reduced(a[0], {1}, false, smallest)))
      .ints()
      .nonempty();
  t.row("argmax", no_ties, FN(argmax(v[0])))
      .large({{{70001}}})
      .ref(REF(reduced(a[0], {}, false, first_largest)))
      .result(places)
      .ints()
      .nonempty();
  t.row("argmax axis", cube_no_ties, FN(argmax(v[0], -2, true)))
      .ref(REF(reduced(a[0], {1}, true, first_largest)))
      .result(places)
      .nonempty();
  t.row("argmax ties", {fraction({2, 5}, 0.1, 0.4)}, FN(argmax(floor(v[0]), 1)))
      .ref(REF(reduced(a[0], {1}, false,
                       [](const Lines& v) {
                         Lines f;
                         for (double x : v) f.push_back(std::floor(x));
                         return first_largest(f);
                       })))
      .result(places)
      .nonempty();
  t.row("argmin", no_ties, FN(argmin(v[0])))
      .ref(REF(reduced(a[0], {}, false, first_smallest)))
      .result(places)
      .ints()
      .nonempty();
  t.row("argmin axis", cube_no_ties, FN(argmin(v[0], 0)))
      .ref(REF(reduced(a[0], {0}, false, first_smallest)))
      .result(places)
      .nonempty();
  t.row("any", {mask({2, 3})}, FN(any(v[0])))
      .large({{{70001}}})
      .ref(REF(reduced(a[0], {}, false, any_of)))
      .result(truth);
  t.row("any of numbers", m, FN(any(trunc(v[0]))))
      .ref(REF(reduced(a[0], {}, false,
                       [](const Lines& v) {
                         return std::any_of(v.begin(), v.end(),
                                            [](double x) { return std::trunc(x) != 0; });
                       })))
      .result(truth)
      .ints();
  t.row("any axis", {mask({2, 3})}, FN(any(v[0], -1, true)))
      .ref(REF(reduced(a[0], {1}, true, any_of)))
      .result(truth);
  t.row("all", {mask({2, 3})}, FN(all(v[0])))
      .ref(REF(reduced(a[0], {}, false, all_of)))
      .result(truth);
  t.row("all axis", {mask({2, 3})}, FN(all(v[0], 0)))
      .ref(REF(reduced(a[0], {0}, false, all_of)))
      .result(truth);
  t.row("all of numbers", m, FN(all(v[0], 1)))
      .ref(REF(reduced(a[0], {1}, false, all_of)))
      .result(truth)
      .all_types();
  auto p_norm = [](double p) { return [=](const Lines& v) { return norm_of(v, p); }; };
  const std::vector<In> off_zero{real({2, 3}).away({0})};
  t.row("norm", off_zero, FN(norm(v[0])))
      .large({{{70001}}})
      .ref(REF(reduced(a[0], {}, false, p_norm(2))))
      .nonempty();
  t.row("norm 1", off_zero, FN(norm(v[0], 1))).ref(REF(reduced(a[0], {}, false, p_norm(1))));
  t.row("norm 3 axis", off_zero, FN(norm(v[0], 3, 1)))
      .ref(REF(reduced(a[0], {1}, false, p_norm(3))))
      .flex({2});
  t.row("norm 2 axes keepdim", {real({2, 3, 2}).away({0})}, FN(norm(v[0], 2, {0, -1}, true)))
      .ref(REF(reduced(a[0], {0, 2}, true, p_norm(2))))
      .flex({3});
  t.row("norm infinite", no_ties, FN(norm(v[0], INFINITY)))
      .ref(REF(reduced(a[0], {}, false, p_norm(INFINITY))))
      .nonempty();
  t.row("norm 0", off_zero, FN(norm(v[0], 0, 1))).ref(REF(reduced(a[0], {1}, false, p_norm(0))));
  t.row("logsumexp", cube, FN(logsumexp(v[0], 1)))
      .large({{{3, 3001, 2}}})
      .ref(REF(reduced(a[0], {1}, false, log_sum_exp)))
      .nonempty();
  t.row("logsumexp axes keepdim", cube, FN(logsumexp(v[0], {0, -1}, true)))
      .ref(REF(reduced(a[0], {0, 2}, true, log_sum_exp)))
      .nonempty();
  t.row("logsumexp large", {real({2, 3}, -1000, 1000)}, FN(logsumexp(v[0], -1)))
      .ref(REF(reduced(a[0], {1}, false, log_sum_exp)))
      .flex({2});

  t.row("cumsum", cube, FN(cumsum(v[0], 1)))
      .large({{{2, 2001, 3}}})
      .ref(REF(along(a[0], 1, [](const Lines& v) { return running(v, false); })))
      .result(sums)
      .ints()
      .loose(4);
  t.row("cumsum last", m, FN(cumsum(v[0], -1)))
      .ref(REF(along(a[0], 1, [](const Lines& v) { return running(v, false); })))
      .loose(4);
  t.row("cumprod", cube, FN(cumprod(v[0], 1)))
      .ref(REF(along(a[0], 1, [](const Lines& v) { return running(v, true); })))
      .loose(8);
  t.row("cumprod first", m, FN(cumprod(v[0], 0)))
      .ref(REF(along(a[0], 0, [](const Lines& v) { return running(v, true); })))
      .result(sums)
      .ints()
      .flex({3})
      .loose(4);
  t.row("sort", cube_no_ties, FN(tutti::sort(v[0])))
      .large({{{3, 2, 3001}}})
      .ref(REF(
          Arrays{along(a[0], 2, in_order(false, false)), along(a[0], 2, in_order(false, true))}))
      .result(with_places)
      .ints();
  t.row("sort descending", cube_no_ties, FN(tutti::sort(v[0], 1, true)))
      .ref(REF(Arrays{along(a[0], 1, in_order(true, false)), along(a[0], 1, in_order(true, true))}))
      .result(with_places);
  t.row("sort is stable", {fraction({2, 5}, 0.1, 0.4)},
        FN(std::get<1>(tutti::sort(floor(v[0]), -1))))
      .ref(REF(along(a[0], 1,
                     [](const Lines& v) {
                       Lines f;
                       for (double x : v) f.push_back(std::floor(x));
                       return in_order(false, true)(f);
                     })))
      .result(places);
  t.row("argsort", no_ties, FN(argsort(v[0], 0)))
      .ref(REF(along(a[0], 0, in_order(false, true))))
      .result(places)
      .ints();
  t.row("topk", {distinct({2, 5})}, FN(topk(v[0], 2)))
      .ref(REF(Arrays{along(a[0], 1, in_order(true, false, 2)),
                      along(a[0], 1, in_order(true, true, 2))}))
      .result(with_places)
      .flex({2});
  t.row("topk smallest", {distinct({5, 2})}, FN(topk(v[0], 3, 0, false)))
      .ref(REF(Arrays{along(a[0], 0, in_order(false, false, 3)),
                      along(a[0], 0, in_order(false, true, 3))}))
      .result(with_places)
      .ints()
      .flex({});
  t.row("median", no_ties, FN(median(v[0])))
      .ref(REF(reduced(a[0], {}, false, median_of)))
      .ints()
      .nonempty();
  t.row("median axis", {distinct({2, 4})}, FN(median(v[0], 1, true)))
      .ref(REF(Arrays{reduced(a[0], {1}, true, median_of), reduced(a[0], {1}, true, median_place)}))
      .result(with_places)
      .nonempty();
  t.row("softmax", cube, FN(softmax(v[0], 1)))
      .large({{{3, 2001, 2}}})
      .ref(REF(along(a[0], 1, softmax_line(false))));
  t.row("softmax last", m, FN(softmax(v[0], -1))).ref(REF(along(a[0], 1, softmax_line(false))));
  t.row("softmax 0-d", {real({})}, FN(softmax(v[0], 0))).ref(MAP(1));
  t.row("softmax dtype", {indices({2, 3}, 5)}, FN(softmax(v[0], 0, kFloat64)))
      .ref(REF(along(a[0], 0, softmax_line(false))));
  t.row("log_softmax", cube, FN(log_softmax(v[0], -1)))
      .large({{{7, 3, 1003}}})
      .ref(REF(along(a[0], 2, softmax_line(true))));
  t.row("log_softmax first", m, FN(log_softmax(v[0], 0)))
      .ref(REF(along(a[0], 0, softmax_line(true))));
  t.row("log_softmax large", {real({2, 3}, -1000, 1000)}, FN(log_softmax(v[0], 1)))
      .ref(REF(along(a[0], 1, softmax_line(true))))
      .flex({2});
  t.row("mse_loss", {real({2, 3}), real({2, 3})}, FN(mse_loss(v[0], v[1])))
      .large({{{70001}, {70001}}})
      .ref(REF(reduced(make(a[0].shape,
                            [&](const Index& i) {
                              const double d = a[0].at(i) - a[1].at(i);
                              return d * d;
                            }),
                       {}, false, mean_of)));
}

void matmul_rows(Table& t) {
  auto column = [](const Array& x) { return reshaped(x, {x.shape[0], 1}); };
  auto line = [](const Array& x) { return reshaped(x, {1, x.shape[0]}); };
  auto transposed = [](const Array& x) { return permuted(x, {1, 0}); };
  auto combined = [](double beta, const Array& c, double alpha, const Array& ab) {
    return make(ab.shape,
                [&](const Index& i) { return beta * at_broadcast(c, i) + alpha * ab.at(i); });
  };

  t.row("matmul", {real({2, 3}), real({3, 4})}, FN(matmul(v[0], v[1])))
      .large({{{130, 71}, {71, 90}}, {{3, 1500}, {1500, 70}}, {{200, 3}, {3, 200}}})
      .ref(REF(matrix_product(a[0], a[1])))
      .ints()
      .loose(8);
  t.row("matmul vectors", {real({3}), real({3})}, FN(matmul(v[0], v[1])))
      .large({{{20003}, {20003}}})
      .ref(REF(reshaped(matrix_product(line(a[0]), column(a[1])), {})))
      .loose(8);
  t.row("matmul matrix vector", {real({2, 3}), real({3})}, FN(matmul(v[0], v[1])))
      .large({{{101, 97}, {97}}})
      .ref(REF(reshaped(matrix_product(a[0], column(a[1])), {a[0].shape[0]})))
      .loose(8);
  t.row("matmul vector matrix", {real({3}), real({3, 2})}, FN(matmul(v[0], v[1])))
      .ref(REF(reshaped(matrix_product(line(a[0]), a[1]), {a[1].shape[1]})))
      .loose(8);
  t.row("matmul stacks", {real({5, 2, 3}), real({5, 3, 4})}, FN(matmul(v[0], v[1])))
      .large({{{40, 33, 17}, {40, 17, 29}}, {{3, 64, 64}, {3, 64, 64}}})
      .ref(REF(matrix_product(a[0], a[1])))
      .loose(8);
  t.row("matmul stack and matrix", {real({5, 2, 3}), real({3, 4})}, FN(matmul(v[0], v[1])))
      .large({{{12, 33, 17}, {17, 29}}})
      .ref(REF(matrix_product(a[0], a[1])))
      .loose(8);
  t.row("matmul matrix and stack", {real({2, 3}), real({5, 3, 4})}, FN(matmul(v[0], v[1])))
      .large({{{33, 17}, {12, 17, 29}}})
      .ref(REF(matrix_product(a[0], a[1])))
      .loose(8);
  t.row("matmul stack and vector", {real({5, 2, 3}), real({3})}, FN(matmul(v[0], v[1])))
      .ref(REF(reshaped(matrix_product(a[0], column(a[1])), {a[0].shape[0], a[0].shape[1]})))
      .loose(8);
  t.row("matmul vector and stack", {real({3}), real({5, 3, 2})}, FN(matmul(v[0], v[1])))
      .ref(REF(reshaped(matrix_product(line(a[0]), a[1]), {a[1].shape[0], a[1].shape[2]})))
      .loose(8);
  t.row("matmul broadcast stacks", {real({2, 1, 2, 3}), real({3, 3, 2})}, FN(matmul(v[0], v[1])))
      .ref(REF(matrix_product(a[0], a[1])))
      .fixed()
      .loose(8);
  t.row("matmul transposed", {real({3, 2}), real({4, 3})}, FN(matmul(v[0].mT(), v[1].mT())))
      .large({{{71, 130}, {90, 71}}})
      .ref(REF(matrix_product(transposed(a[0]), transposed(a[1]))))
      .loose(8);
  t.row("matmul with itself", {real({3, 3})}, FN(matmul(v[0], v[0])))
      .ref(REF(matrix_product(a[0], a[0])))
      .loose(8);
  t.row("mm", {real({2, 3}), real({3, 4})}, FN(mm(v[0], v[1])))
      .ref(REF(matrix_product(a[0], a[1])))
      .ints()
      .loose(8);
  t.row("bmm", {real({5, 2, 3}), real({5, 3, 4})}, FN(bmm(v[0], v[1])))
      .ref(REF(matrix_product(a[0], a[1])))
      .ints()
      .loose(8);
  t.row("bmm expanded", {real({2, 3}), real({5, 3, 4})},
        FN(bmm(v[0].unsqueeze(0).expand({v[1].size(0), -1, -1}), v[1])))
      .large({{{33, 17}, {12, 17, 29}}})
      .ref(REF(matrix_product(a[0], a[1])))
      .loose(8);
  t.row("mv", {real({2, 3}), real({3})}, FN(mv(v[0], v[1])))
      .ref(REF(reshaped(matrix_product(a[0], column(a[1])), {a[0].shape[0]})))
      .loose(8);
  t.row("dot", {real({3}), real({3})}, FN(dot(v[0], v[1])))
      .ref(REF(reshaped(matrix_product(line(a[0]), column(a[1])), {})))
      .loose(8);
  t.row("outer", {real({2}), real({3})}, FN(outer(v[0], v[1])))
      .ref(REF(matrix_product(column(a[0]), line(a[1]))))
      .ints();
  t.row("addmm", {real({2, 4}), real({2, 3}), real({3, 4})}, FN(addmm(v[0], v[1], v[2])))
      .large({{{130, 90}, {130, 71}, {71, 90}}})
      .ref(REF(combined(1, a[0], 1, matrix_product(a[1], a[2]))))
      .loose(8);
  t.row("addmm broadcast and factors", {real({4}), real({2, 3}), real({3, 4})},
        FN(addmm(v[0], v[1], v[2], 0.5, 2)))
      .ref(REF(combined(0.5, a[0], 2, matrix_product(a[1], a[2]))))
      .loose(8);
  t.row("baddbmm", {real({5, 2, 4}), real({5, 2, 3}), real({5, 3, 4})},
        FN(baddbmm(v[0], v[1], v[2], 0.5, 2)))
      .ref(REF(combined(0.5, a[0], 2, matrix_product(a[1], a[2]))))
      .loose(8);
  t.row("linear", {real({2, 3}), real({4, 3}), real({4})}, FN(linear(v[0], v[1], v[2])))
      .large({{{130, 71}, {90, 71}, {90}}, {{64, 64}, {64, 64}, {64}}})
      .ref(REF(combined(1, a[2], 1, matrix_product(a[0], transposed(a[1])))))
      .loose(8);
  t.row("linear no bias", {real({2, 3}), real({4, 3})}, FN(linear(v[0], v[1])))
      .ref(REF(matrix_product(a[0], transposed(a[1]))))
      .loose(8);
  t.row("linear vector", {real({3}), real({4, 3}), real({4})}, FN(linear(v[0], v[1], v[2])))
      .ref(REF(
          reshaped(combined(1, a[2], 1, matrix_product(line(a[0]), transposed(a[1]))), a[2].shape)))
      .loose(8);
  t.row("linear stack", {real({2, 5, 3}), real({4, 3}), real({4})}, FN(linear(v[0], v[1], v[2])))
      .large({{{5, 30, 71}, {90, 71}, {90}}})
      .ref(REF(combined(1, a[2], 1, matrix_product(a[0], transposed(a[1])))))
      .loose(8);
  t.row("linear_relu", {real({2, 3}), real({4, 3}), real({4})}, FN(linear_relu(v[0], v[1], v[2])))
      .large({{{130, 71}, {90, 71}, {90}}, {{64, 64}, {64, 64}, {64}}})
      .ref(REF(positive(combined(1, a[2], 1, matrix_product(a[0], transposed(a[1]))))))
      .loose(8);
  t.row("linear_relu no bias", {real({2, 3}), real({4, 3})}, FN(linear_relu(v[0], v[1])))
      .ref(REF(positive(matrix_product(a[0], transposed(a[1])))))
      .loose(8);
  t.row("linear_relu vector", {real({3}), real({4, 3}), real({4})},
        FN(linear_relu(v[0], v[1], v[2])))
      .ref(REF(positive(reshaped(combined(1, a[2], 1, matrix_product(line(a[0]), transposed(a[1]))),
                                 a[2].shape))))
      .loose(8);
  t.row("linear_relu stack", {real({2, 5, 3}), real({4, 3}), real({4})},
        FN(linear_relu(v[0], v[1], v[2])))
      .large({{{5, 30, 71}, {90, 71}, {90}}})
      .ref(REF(positive(combined(1, a[2], 1, matrix_product(a[0], transposed(a[1]))))))
      .loose(8);
  t.row("trace", {real({3, 4})}, FN(trace(v[0])))
      .ref(REF(Array{{}, {[&] {
                       double s = 0;
                       for (std::int64_t i = 0; i < std::min(a[0].shape[0], a[0].shape[1]); ++i)
                         s += a[0].at({i, i});
                       return s;
                     }()}}))
      .result({Gives::sum})
      .ints();
}

}  // namespace tutti_test
