// What works along axes, in every element type: reductions, running values, sorting, softmax,
// losses, indexing, products of integers. On dense memory along either kind of axis, short and cut
// into segments, and on tensors none of whose axes can be merged.
#include <cmath>

#include <tutti/core/indexing.h>
#include <tutti/core/kernels/gemm.h>
#include <tutti/core/ops/records.h>
#include <tutti/nn/optim.h>

#include "../test.h"
#include "device_checks.h"
#include "gpu.h"

using namespace tutti;
using namespace tutti_test;

namespace {

struct Case {
  const char* name;
  Fn f;
};

/// Values between lo and hi, rounded for integers.
Tensor drawn(const Index& shape, double lo, double hi, DType t, Rng& rng) {
  return to_tensor(sample(real(shape, lo, hi), rng, t), t);
}
Tensor drawn_specials(const Index& shape, DType t, Rng& rng) {
  const std::vector<double> v = special_values(t);
  return to_tensor(make(shape, [&](const Index&) { return v[rng() % v.size()]; }), t);
}

/// Rising or falling along axis 3, so that one segment has the extreme; `nan`: at this place of it.
Tensor ramp(const Index& shape, bool rises, std::optional<std::int64_t> nan, DType t) {
  const std::int64_t n = shape[3];
  return to_tensor(make(shape,
                        [&](const Index& i) {
                          const double at = static_cast<double>(i[3] * 100 / n);
                          return nan == i[3] ? NAN : rises ? at : 100 - at;
                        }),
                   t);
}

const Index kSevenAxes = {2, 2, 2, 5, 2, 2, 3};  // lines along axis 3 between six others

void check_both(Tally& tally, const Case& c, const Tensor& x, DType t, double factor, bool padded) {
  tally.check(c.name, detail::str(x.sizes(), " in ", t), [&] {
    return same_or_refused(c.f, {x}, padded ? padded_on_gpu(Values{x}) : on_gpu({x}), t, factor);
  });
}

}  // namespace

TEST_CASE("reductions in every type") {
  Tally tally;
  const std::vector<Case> sums = {{"sum", FN(sum(v[0], 3))}, {"sum", FN(sum(v[0]))}};
  const std::vector<Case> products = {{"prod", FN(prod(v[0], 3))}, {"prod", FN(prod(v[0]))}};
  const std::vector<Case> choices = {{"amax", FN(amax(v[0], 3))},     {"amax", FN(amax(v[0]))},
                                     {"amin", FN(amin(v[0], 3))},     {"amin", FN(amin(v[0]))},
                                     {"any", FN(any(v[0], 3))},       {"any", FN(any(v[0]))},
                                     {"all", FN(all(v[0], 3))},       {"all", FN(all(v[0]))},
                                     {"argmax", FN(argmax(v[0], 3))}, {"argmax", FN(argmax(v[0]))},
                                     {"argmin", FN(argmin(v[0], 3))}, {"argmin", FN(argmin(v[0]))}};
  // Lanes along x and along y; a segment per result, and several.
  const std::vector<Index> shapes = {
      kSevenAxes,     {1, 2, 2, 3, 2, 2, 3}, {2, 2, 2, 4100, 2, 2, 2}, {1, 1, 1, 300, 7},
      {1, 1, 7, 300}, {1, 1, 1, 5000, 3},    {1, 1, 1, 1, 4},          {1, 1, 3, 5000}};
  for (DType t : kFullTypes)
    for (const Index& shape : shapes) {
      Rng rng = rng_for("reductions");
      const bool padded = shape.size() == 7;
      const double terms = 20;  // of tolerance: long sums
      for (const Case& c : sums)
        check_both(tally, c, drawn(shape, -2, 2, t, rng), t, terms, padded);
      const bool real = is_floating(t);
      const Tensor near_one = drawn(shape, real ? 0.99 : 1, real ? 1.01 : 2, t, rng);
      for (const Case& c : products) check_both(tally, c, near_one, t, 10 * terms, padded);
      for (const Case& c : choices) {
        check_both(tally, c, drawn_specials(shape, t, rng), t, 1, padded);
        check_both(tally, c, drawn(shape, 0, 1, t, rng), t, 1, padded);  // ties
        if (shape[3] < 4000 || padded) continue;
        for (bool rises : {false, true}) {
          check_both(tally, c, ramp(shape, rises, std::nullopt, t), t, 1, padded);
          if (!real) continue;
          check_both(tally, c, ramp(shape, rises, 7, t), t, 1, padded);
          check_both(tally, c, ramp(shape, rises, shape[3] - 7, t), t, 1, padded);
        }
      }
    }
  tally.print("reductions", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("running values and sorting in every type") {
  Tally tally;
  const Case cumsums{"cumsum", FN(cumsum(v[0], 3))}, cumprods{"cumprod", FN(cumprod(v[0], 3))};
  const std::vector<Case> sorts = {{"sort", FN(sort(v[0], 3))},
                                   {"sort down", FN(sort(v[0], 3, true))},
                                   {"argsort", FN(argsort(v[0], 3))},
                                   {"topk", FN(topk(v[0], 4, 3))},
                                   {"median", FN(median(v[0], 3))}};
  const std::vector<Index> shapes = {kSevenAxes,        {1, 2, 2, 1030, 1, 2, 1}, {1, 1, 4, 33},
                                     {1, 1, 2, 300, 3}, {1, 1, 2, 1100, 3},       {1, 1, 2, 5000}};
  for (DType t : kFullTypes)
    for (const Index& shape : shapes) {
      Rng rng = rng_for("lines");
      const bool padded = shape.size() == 7;
      check_both(tally, cumsums, drawn(shape, -2, 2, t, rng), t, 20, padded);
      check_both(tally, cumprods, drawn(shape, -1.1, 1.1, t, rng), t, 20, padded);
      for (const Case& c : sorts) {
        check_both(tally, c, drawn_specials(shape, t, rng), t, 1, padded);  // with ties and NaN
        check_both(tally, c, drawn(shape, -100, 100, t, rng), t, 1, padded);
      }
    }
  for (DType t : {kFloat32, kFloat64})
    for (std::int64_t length : {1, 2, 3, 5, 8, 700}) {
      Rng rng = rng_for("running products");
      const Index shape =
          length < 9 ? Index{2, 2, 2, length, 2, 2, 3} : Index{1, 2, 2, length, 1, 2, 1};
      const Values x = {drawn(shape, -2, 2, t, rng), drawn(shape, -2, 2, t, rng)};
      const Fn tangent = [](const Values& v) {
        return jvp(FN(cumprod(v[0], 3)), {v[0]}, {0}, {v[1]}).second;
      };
      const Fn gradient = [](const Values& v) {
        return vjp(FN(cumprod(v[0], 3)), {v[0]}, {0}, {v[1]}).second;
      };
      for (const Fn& f : {tangent, gradient})
        tally.check("recurrence", detail::str(t),
                    [&] { return compare(f, x, padded_on_gpu(x), t, 10); });
      for (const Fn& f : {tangent, gradient})
        tally.check("recurrence", detail::str(t), [&] { return compare(f, x, on_gpu(x), t, 10); });
    }
  tally.print("lines", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("running values of lines of every length, along every axis") {
  Tally tally;
  const std::vector<Case> cases = {{"cumsum", FN(cumsum(v[0], 0))},
                                   {"cumsum", FN(cumsum(v[0], 1))},
                                   {"cumprod", FN(cumprod(v[0], 0))},
                                   {"cumprod", FN(cumprod(v[0], 1))}};
  // A thread, part of a warp, a warp, a block and several blocks for a line; and so many lines side
  // by side that each has one thread.
  for (DType t : {kFloat32, kFloat64, kInt64})
    for (std::int64_t n : {1, 3, 4, 5, 8, 9, 33, 128, 129, 512, 513, 1025, 4097, 9000, 70001})
      for (std::int64_t lines : {1, 3, 70, 33000}) {
        if (n * lines > (lines == 1 ? 100000 : 30000) && !(lines == 33000 && n == 5)) continue;
        Rng rng = rng_for("running");
        const bool real = is_floating(t);
        const Tensor near_one = drawn({lines, n}, real ? 0.99 : 1, real ? 1.01 : 2, t, rng);
        const Tensor x = drawn({lines, n}, -2, 2, t, rng);
        for (const Case& c : cases) {
          const Tensor& values = std::string_view(c.name) == "cumprod" ? near_one : x;
          check_both(tally, c, values, t, 100, false);
          if (n * lines < 10000) check_both(tally, c, values, t, 100, true);
        }
      }
  tally.print("running values", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("running products do not overflow on the way, and values that are no numbers spread") {
  Tally tally;
  const auto line = [](std::int64_t n, const auto& f, DType t) {
    return to_tensor(make({2, n}, [&](const Index& i) { return f(i[1]); }), t);
  };
  const auto check = [&](const char* name, const Fn& f, const Tensor& x) {
    tally.check(name, detail::str(x.sizes(), " in ", x.dtype()),
                [&] { return compare(f, {x}, on_gpu({x}), x.dtype(), 100); });
  };
  const Fn sums = FN(cumsum(v[0], 1)), products = FN(cumprod(v[0], 1));
  for (DType t : {kFloat32, kFloat64})
    for (std::int64_t n : {20, 500, 3000, 20000}) {
      // The product of all but the first is far out of range: 0 stays 0.
      check("zero first", products,
            line(
                n, [](auto i) { return static_cast<double>(i); }, t));
      check("tiny first", products,
            line(
                n, [](auto i) { return i == 0 ? 1e-300 : 1.5; }, t));
      check("huge first", products,
            line(
                n, [](auto i) { return i == 0 ? 1e300 : 0.7; }, t));
      check("huge and tiny", products,
            line(
                n, [](auto i) { return i % 2 ? 1e-37 : 1e37; }, t));
      for (double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY), -0.0, 5e-324}) {
        const auto one_bad = [&](auto i) { return i == 7 ? bad : i % 3 ? 1.25 : -0.64; };
        check("one bad", products, line(n, one_bad, t));
        check("one bad", sums, line(n, one_bad, t));
      }
      check("both infinities", sums,
            line(
                n, [](auto i) { return i == 9    ? INFINITY
                                       : i == 15 ? -INFINITY
                                                 : 0.5; }, t));
      // Gradients that end before the product overflows are finite.
      const Tensor x = line(
          n, [](auto i) { return i % 2 ? 10.0 : -10.0; }, t);
      const Tensor g = line(
          n, [](auto i) { return i < 12 ? 1.0 : 0.0; }, t);
      const Fn gradient = [](const Values& v) {
        return vjp(FN(cumprod(v[0], 1).narrow(1, 0, 15)), {v[0]}, {0}, {v[1].narrow(1, 0, 15)})
            .second;
      };
      const Values both = {x, g};
      tally.check("gradient", detail::str(n, " in ", t),
                  [&] { return compare(gradient, both, on_gpu(both), t, 100); });
      const Fn tangent = [](const Values& v) {
        return jvp(FN(cumprod(v[0], 1)), {v[0]}, {0}, {v[1]}).second;
      };
      const Tensor near = line(
          n, [](auto i) { return 1 + 0.001 * static_cast<double>(i % 7); }, t);
      const Values moved = {near * 0.999, g};
      tally.check("tangent", detail::str(n, " in ", t),
                  [&] { return compare(tangent, moved, on_gpu(moved), t, 1000); });
      tally.check("tangent", detail::str(n, " in ", t, ", across"), [&] {
        const Values across = {moved[0].t().contiguous().t(), moved[1].t().contiguous().t()};
        return compare(tangent, across, on_gpu(across), t, 1000);
      });
    }
  tally.print("running products", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("long lines are cut into segments, short ones share a block") {
  if (!Executor::present()) return;
  const auto launches = [](const Tensor& x, std::int64_t axis) {
    Executor::clear_logs();
    cumsum(x, axis);
    return Executor::launches().size();
  };
  const TensorOptions o = TensorOptions(kFloat32).device(kCUDA);
  CHECK(launches(ones({70000}, o), 0) == 2);
  CHECK(launches(ones({100, 700}, o), 1) == 1);
  CHECK(launches(ones({100, 700}, o), 0) == 1);
}

TEST_CASE("places that are not zero, in every type") {
  Tally tally;
  const std::vector<Index> shapes = {{1},    {33},      {1024},      {1025},
                                     {5000}, {3, 1100}, {40, 2, 31}, kSevenAxes};
  const std::vector<DType> types = {kFloat32, kFloat64, kInt64, kInt32,   kUInt8,
                                    kInt8,    kInt16,   kBool,  kFloat16, kBFloat16};
  const Case places{"nonzero", FN(list(nonzero(v[0])))};
  for (DType t : types)
    for (const Index& shape : shapes) {
      Rng rng = rng_for("places");
      // Many, few, all, none; -0.0 counts as zero, NaN does not.
      for (const Tensor& x : {drawn_specials(shape, t, rng), drawn(shape, 0, 1.4, t, rng),
                              ones(shape, t), zeros(shape, t)}) {
        check_both(tally, places, x, t, 0, false);
        if (shape.size() > 1) check_both(tally, places, x, t, 0, true);
      }
      const Tensor mask = drawn(shape, 0, 1.4, kBool, rng);
      const Values v = {drawn(shape, -9, 9, t, rng), mask};
      for (const Fn& f : {Fn(FN(masked_select(v[0], v[1]))), Fn(FN(v[0].index({v[1]})))}) {
        tally.check("masked", detail::str(v[0].sizes(), " in ", t),
                    [&] { return compare(f, v, on_gpu(v), t, 0); });
        tally.check("masked", detail::str(v[0].sizes(), " in ", t, ", padded"),
                    [&] { return compare(f, v, padded_on_gpu(v), t, 0); });
      }
    }
  for (const Index& shape : {Index{0}, Index{3, 0}, Index{}}) {
    check_both(tally, places, ones(shape, kFloat32), kFloat32, 0, false);
    check_both(tally, places, zeros(shape, kFloat32), kFloat32, 0, false);
  }
  // Eight axes that cannot be merged: by way of a copy.
  Rng rng = rng_for("places");
  check_both(tally, places, drawn({2, 2, 3, 2, 2, 2, 2, 3}, 0, 1.4, kInt32, rng), kInt32, 0, true);
  tally.print("places", 0);
  CHECK(tally.failed() == 0);
  const Tensor deep = ones(Shape(17, 1), TensorOptions(kFloat32).device(kCUDA));
  CHECK_THROWS_SAYING(nonzero(deep), NotImplementedError, "nonzero", "at most 16 axes", "cpu()");
}

TEST_CASE("softmax of short and long rows") {
  Tally tally;
  for (DType t : {kFloat32, kFloat64})
    for (std::int64_t rows : {1, 3, 5})
      for (std::int64_t n : {1, 33, 200, 1024, 1025, 2500}) {
        Rng rng = rng_for("softmax");
        const double far = rows == 3 ? 900 : 30;  // e^-1800 takes the way for denormals
        Tensor x = drawn({rows, n}, -far, far, t, rng);
        if (rows == 5 && n > 1) {
          x.select(0, 1).select(0, 0).fill_(-INFINITY);
          x.select(0, 2).select(0, 1).fill_(NAN);
        }
        const Values v = {x, drawn({rows, n}, -1, 1, t, rng)};
        for (bool logarithm : {false, true}) {
          const Fn f = [=](const Values& a) {
            return list(logarithm ? log_softmax(a[0], -1) : softmax(a[0], -1));
          };
          const Fn gradient = [=](const Values& a) { return vjp(f, {a[0]}, {0}, {a[1]}).second; };
          const std::string label = detail::str(x.sizes(), " in ", t);
          tally.check("value", label, [&] { return compare(f, v, on_gpu(v), t, 10); });
          tally.check("vjp", label, [&] { return compare(gradient, v, on_gpu(v), t, 10); });
        }
      }
  tally.print("softmax", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("cross entropy with every option") {
  Tally tally;
  for (DType t : {kFloat32, kFloat64})
    for (std::int64_t classes : {3, 300, 2500})
      for (bool weighted : {false, true})
        for (double smoothing : {0.0, 0.2})
          for (std::int64_t reduction : {0, 1, 2}) {
            Rng rng = rng_for("cross entropy");
            const Tensor target = to_tensor(sample(indices({5}, classes), rng, kInt64), kInt64);
            const double far = smoothing > 0 ? 900 : 5;
            Values v = {drawn({5, classes}, -far, far, t, rng), target,
                        drawn(reduction == 0 ? Index{5} : Index{}, -1, 1, t, rng)};
            if (weighted) v.push_back(drawn({classes}, 0.5, 2, t, rng));
            const std::int64_t ignored = target.select(0, 2).item<std::int64_t>();
            const auto loss = [=](const Values& a, const Tensor& x) {
              return cross_entropy_loss(x, a[1], weighted ? a[3] : Tensor(), reduction, ignored,
                                        smoothing);
            };
            const Fn f = [=](const Values& a) { return list(loss(a, a[0])); };
            const Fn gradient = [=](const Values& a) {
              return vjp([&](const Values& x) { return list(loss(a, x[0])); }, {a[0]}, {0}, {a[2]})
                  .second;
            };
            const std::string label = detail::str(classes, " classes in ", t);
            tally.check("value", label, [&] { return compare(f, v, on_gpu(v), t, 20); });
            tally.check("vjp", label, [&] { return compare(gradient, v, on_gpu(v), t, 20); });
          }
  for (DType t : {kFloat32, kFloat64})
    for (std::int64_t reduction : {1, 2}) {  // groups that a block adds up in several rounds
      Rng rng = rng_for("many rows");
      const Tensor target = to_tensor(sample(indices({2100}, 3), rng, kInt64), kInt64);
      const Values v = {drawn({2100, 3}, -5, 5, t, rng), target};
      const Fn f = FN(cross_entropy_loss(v[0], v[1], {}, reduction));
      tally.check("many rows", detail::str(t), [&] { return compare(f, v, on_gpu(v), t, 100); });
    }
  tally.print("cross entropy", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("a bad class is reported by both passes of cross entropy") {
  for (DType t : {kFloat32, kFloat64})
    for (std::int64_t classes : {5, 1100}) {
      Rng rng = rng_for("bad classes");
      const Tensor x = drawn({3, classes}, -1, 1, t, rng);
      const Tensor good = tensor({1, -100, 4}, kInt64), bad = tensor({1, 5000, 4}, kInt64);
      const auto loss = [](const Tensor& a, const Tensor& c) {
        return cross_entropy_loss(a, c, {}, 2);
      };
      const Tensor y = loss(x.to(kCUDA), bad.to(kCUDA));
      CHECK_THROWS_SAYING(cuda::synchronize(), IndexError, "cross_entropy", "5000");
      CHECK(close(y.cpu(), loss(x, good), 1e-5));
      // With two bad classes the first one counts.
      const Tensor worse = tensor({1, 5000, 6000}, kInt64).to(kCUDA);
      Tensor leaf = x.to(kCUDA).requires_grad_();
      loss(leaf, worse).backward();
      CHECK_THROWS_SAYING(cuda::synchronize(), IndexError, "cross_entropy");
      CHECK(leaf.grad().select(0, 1).abs().max().item<double>() == 0);
    }
}

TEST_CASE("indexing in every type") {
  Tally tally;
  const Index shape = {2, 2, 2, 5, 2, 2, 3}, picks = {2, 2, 2, 7, 2, 2, 3};
  for (DType t : kFullTypes) {
    Rng rng = rng_for("indexing");
    const Tensor index = to_tensor(sample(indices(picks, 5), rng, kInt64), kInt64);
    const Values v = {drawn(shape, -9, 9, t, rng), index, drawn(picks, -9, 9, t, rng)};
    const std::vector<Case> cases = {
        {"gather", FN(gather(v[0], 3, v[1]))},
        {"scatter", FN(scatter(v[0], 3, v[1], v[2]))},
        {"scatter number", FN(scatter(v[0], 3, v[1], 1))},
        {"scatter_add", FN(scatter_add(v[0], 3, v[1], v[2]))},
        {"take_along_dim", FN(take_along_dim(v[0], v[1], 3))},
        {"index_select", FN(index_select(v[0], 5, v[1].reshape(-1).narrow(0, 0, 4) % 2))}};
    for (const Case& c : cases)
      tally.check(c.name, detail::str(t),
                  [&] { return same_or_refused(c.f, v, padded_on_gpu(v), t, 10); });
  }
  tally.print("indexing", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("bad indices in every type are reported once, and nothing is written for them") {
  for (DType t : kFullTypes) {
    CAPTURE(t);
    Rng rng = rng_for("bad indices");
    const Tensor x = drawn({2, 5}, 0, 9, t, rng), src = drawn({2, 6}, 0, 9, t, rng);
    const Tensor good = tensor({0, 3, 1, 4, 4, 2}, kInt64).expand({2, 6});
    Tensor bad = good.clone();
    bad.select(1, 2).fill_(-7);
    bad.select(1, 4).fill_(12);
    const Tensor kept = tensor({0, 1, 3, 5}, kInt64);
    const auto check = [&](const char* op, const auto& f) {
      CAPTURE(op);
      const Tensor y = f(x.to(kCUDA), bad.to(kCUDA), src.to(kCUDA));
      CHECK_THROWS_SAYING(cuda::synchronize(), IndexError, op);
      cuda::synchronize();
      CHECK(equal(y.cpu(), f(x, good.index_select(1, kept), src.index_select(1, kept))));
    };
    using T = Tensor;
    // Rows put by index: the same kernels, with indices that may count from the end.
    for (bool adds : {false, true}) {
      const auto put = [&](const T& a, const T& i, const T& v) {
        const T y = a.t().clone();
        index_put_(y, {TensorIndex(i)}, v, adds);
        return y;
      };
      const Tensor rows = src.t().contiguous(),
                   wrong = bad.select(0, 0) - 5;  // -5..-1, and two bad
      const Tensor y = put(x.to(kCUDA), wrong.to(kCUDA), rows.to(kCUDA));
      CHECK_THROWS_SAYING(cuda::synchronize(), IndexError, "index_put_");
      const Tensor right = (good.select(0, 0) - 5).index_select(0, kept);
      CHECK(equal(y.cpu(), put(x, right, rows.index_select(0, kept))));
    }
    check("scatter", [](const T& a, const T& i, const T& s) { return scatter(a, 1, i, s); });
    check("scatter", [](const T& a, const T& i, const T&) { return scatter(a, 1, i, 1); });
    check("scatter", [](const T& a, const T& i, const T& s) { return scatter_add(a, 1, i, s); });
    check("gather", [&](const T& a, const T& i, const T&) {
      return gather(a, 1, i).index_select(1, i.size(1) == 4 ? arange(4) : kept.to(i.device()));
    });
  }
}

TEST_CASE("products of integers, and what follows a product, in every type") {
  Tally tally;
  for (DType t : {kFloat32, kFloat64, kInt64, kInt32, kUInt8, kInt8, kInt16, kFloat16, kBFloat16}) {
    Rng rng = rng_for("products");
    const Index lead = {2, 2, 2, 2, 2, 2};
    const double far = is_floating(t) ? 12 : 3;  // functions have other ways far from 0
    const auto stack = [&](std::int64_t m, std::int64_t n) {
      Index s = lead;
      s.push_back(m);
      if (n > 0) s.push_back(n);
      return drawn(s, -far, far, t, rng);
    };
    const Values v = {stack(3, 4), stack(5, 4), stack(5, 0)};
    const Values empty = {v[0].narrow(-1, 0, 0), v[1].narrow(-1, 0, 0), v[2]};
    tally.check("matmul", detail::str(t),
                [&] { return compare(FN(matmul(v[0], v[1].mT())), v, padded_on_gpu(v), t, 10); });
    for (std::uint32_t activation = 0; activation < 5; ++activation) {
      if (!is_floating(t) && activation > 1) continue;  // of integers relu only
      const Fn f = [=](const Values& x) {
        Attrs a;
        a.flags = activation;
        return list(run1(linear_op, {x[0], x[1], x[2]}, a));
      };
      const Fn unbiased = [=](const Values& x) {
        Attrs a;
        a.flags = activation;
        return list(run1(linear_op, {x[0], x[1], Tensor()}, a));
      };
      const std::string label = detail::str(t, ", activation ", activation);
      tally.check("linear", label, [&] { return compare(f, v, padded_on_gpu(v), t, 10); });
      tally.check("linear", label, [&] { return compare(unbiased, v, on_gpu(v), t, 10); });
      tally.check("linear of nothing", label,
                  [&] { return compare(f, empty, on_gpu(empty), t, 10); });
    }
  }
  tally.print("products", 0);
  CHECK(tally.failed() == 0);
}

namespace {

/// Three steps over 30 parameters, more than one launch takes, some longer than a block's share.
template <class Optimizer, class Options>
Values stepped(Device device, DType t, const Options& options) {
  Rng rng = rng_for("optimizers");
  TensorDict params;
  for (int i = 0; i < 30; ++i)
    params[detail::str("p", i)] = drawn({i % 7 == 0 ? 2100 : 1 + i}, -1, 1, t, rng).to(device);
  NoGradGuard guard;
  Optimizer optimizer(params, options);
  for (int step = 0; step < 3; ++step) {
    TensorDict grads;
    for (const auto& [name, p] : params)
      grads[name] = drawn(p.sizes().vec(), -1, 1, t, rng).to(device);
    optimizer.step(grads);
  }
  Values out;
  for (const auto& [name, p] : params) out.push_back(p);
  return out;
}

template <class Optimizer, class Options>
void check_steps(const Options& options) {
  for (DType t : {kFloat32, kFloat64}) {
    CAPTURE(t);
    const double tol = t == kFloat64 ? 1e-11 : 1e-5;
    CHECK(differs(to_arrays(stepped<Optimizer>(kCUDA, t, options)),
                  to_arrays(stepped<Optimizer>(kCPU, t, options)), tol, tol) == "");
  }
}

}  // namespace

TEST_CASE("steps of optimizers with every option") {
  using namespace optim;
  check_steps<SGD>(SGDOptions(0.1));
  check_steps<SGD>(SGDOptions(0.1).momentum(0.9).weight_decay(0.1).dampening(0.2));
  check_steps<SGD>(SGDOptions(0.1).weight_decay(0.1));
  check_steps<SGD>(SGDOptions(0.1).momentum(0.9).nesterov(true));
  check_steps<Adam>(AdamOptions(0.1));
  check_steps<Adam>(AdamOptions(0.1).weight_decay(0.1).amsgrad(true));
  check_steps<AdamW>(AdamWOptions(0.1).weight_decay(0.1));
  check_steps<RMSprop>(RMSpropOptions(0.1).weight_decay(0.1));
  check_steps<RMSprop>(RMSpropOptions(0.1).centered(true).momentum(0.5));
  check_steps<RMSprop>(RMSpropOptions(0.1).centered(true).weight_decay(0.1));
  check_steps<RMSprop>(RMSpropOptions(0.1).centered(true).momentum(0.5).weight_decay(0.1));
  check_steps<RMSprop>(RMSpropOptions(0.1).momentum(0.5).weight_decay(0.1));
  check_steps<RMSprop>(RMSpropOptions(0.1));
  check_steps<Adam>(AdamOptions(0.1).amsgrad(true));
  check_steps<Adam>(AdamOptions(0.1).weight_decay(0.1));
  check_steps<AdamW>(AdamWOptions(0.1).weight_decay(0.1).amsgrad(true));
  check_steps<SGD>(SGDOptions(0.1).momentum(0.9).nesterov(true).weight_decay(0.1));
  check_steps<SGD>(SGDOptions(0.1).momentum(0.9));
  check_steps<Adagrad>(AdagradOptions(0.1));
  check_steps<Adagrad>(AdagradOptions(0.1).lr_decay(0.1).weight_decay(0.1));
}
