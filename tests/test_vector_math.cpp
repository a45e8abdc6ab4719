// Functions of float32 and their composites with every instruction set this CPU has: against double
// precision within the bounds of core/kernels/vector_math.h, and independent of where an element
// stands. Softmax and cross entropy on rows of every length, and plain loops, optimizer steps and
// sums, which give the same bits with every instruction set.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <tutti/core/kernels/isa.h>
#include <tutti/core/kernels/optim.h>
#include <tutti/core/parallel.h>
#include <tutti/tutti.h>

#include "test.h"

using namespace tutti;
using kernels::Isa;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Restores the instruction set and the number of threads.
struct Restore {
  Isa isa = kernels::isa();
  int threads = num_threads();
  ~Restore() {
    kernels::set_isa(isa);
    set_num_threads(threads);
  }
};

/// Runs f with each instruction set.
template <class F>
void with_each_isa(const F& f) {
  const Restore restore;
  for (Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    CAPTURE(kernels::name(isa));
    f();
  }
}

Tensor over(std::vector<float>& v) {
  return from_blob(v.data(), {static_cast<std::int64_t>(v.size())});
}
std::vector<float> values_of(const Tensor& x) {
  const Tensor t = x.contiguous();
  const float* p = static_cast<const float*>(t.raw());
  return {p, p + t.numel()};
}
bool same_bits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) || (a != a && b != b);
}

/// The distance of two floats next to `exact`.
double ulp(double exact) {
  const double a = std::clamp<double>(std::abs(exact), std::numeric_limits<float>::min(),
                                      std::numeric_limits<float>::max());
  const std::uint64_t power = std::bit_cast<std::uint64_t>(a) & 0x7ff0000000000000;
  return std::bit_cast<double>(power) * 0x1p-23;
}

/// How far y is from `exact`, in ulps; infinite if it is of another kind.
double error(float y, double exact) {
  if (exact != exact) return y != y ? 0 : kInf;
  const float nearest = static_cast<float>(exact);
  if (std::isinf(nearest) || std::isinf(y))
    return y == nearest ? 0 : std::isinf(y) == std::isinf(nearest) ? kInf : 1e9;
  if (nearest == 0 && y == 0 && exact == 0)
    return std::signbit(y) == std::signbit(exact) ? 0 : kInf;  // a zero keeps its sign
  return y != y ? kInf : std::abs(y - exact) / ulp(exact);
}

struct Function {
  std::string name;
  Tensor (*f)(const Tensor&);
  double (*exact)(double);
  double bound;
};

double exact_sigmoid(double x) {
  return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
}

#define FUNCTION(name, exact, bound)                                                               \
  Function {                                                                                       \
#name,                                                                                         \
        [](const Tensor&                                                                           \
               x) { return tutti::name(x); },                                                      \
                                           [](double x) { return static_cast<double>(exact); },    \
                                                                                             bound \
  }
const Function functions[] = {
    FUNCTION(exp, std::exp(x), 1.5),        FUNCTION(expm1, std::expm1(x), 2.5),
    FUNCTION(log, std::log(x), 1.5),        FUNCTION(log1p, std::log1p(x), 2.5),
    FUNCTION(tanh, std::tanh(x), 2.5),      FUNCTION(sigmoid, exact_sigmoid(x), 2.5),
    FUNCTION(erf, std::erf(x), 2.5),        FUNCTION(sin, std::sin(x), 2.5),
    FUNCTION(cos, std::cos(x), 2.5),        FUNCTION(sqrt, std::sqrt(x), 0.5),
    FUNCTION(rsqrt, 1 / std::sqrt(x), 1.5), FUNCTION(reciprocal, 1 / x, 0.5),
};
#undef FUNCTION

const float special[] = {0.0f, 1.0f, kInf, kNan, 0x1p-149f, 0x1p-126f, 0x1.fffffep-127f,
                         0x1.fffffep+127f, 0x1p-24f, 0x1p-12f, 0.625f, 0.927734375f, 0.92773432f,
                         // where exp overflows, becomes subnormal, becomes zero
                         88.72283f, 88.72284f, 88.0f, 89.0f, 86.0f, 87.33654f, 87.33655f, 103.97f,
                         103.9721f, 103.98f, 104.0f, 104.5f, 1e4f, 15.0f, 16.64f, 9.01f, 10.0f,
                         // multiples of pi / 2, and beyond the reduction on vectors
                         1.5707963f, 3.1415927f, 6.2831855f, 4.712389f, 355.0f, 32768.0f,
                         32768.004f, 32767.998f, 1048575.94f, 103993.0f, 1e20f, 0.9999999f,
                         1.0000001f};

/// Checks f with all instruction sets on what is in x. Returns the largest error.
double check(const Function& f, std::vector<float>& x) {
  std::vector<double> exact(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) exact[i] = f.exact(x[i]);
  double worst = 0;
  with_each_isa([&] {
    const std::vector<float> y = values_of(f.f(over(x)));
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double e = error(y[i], exact[i]);
      worst = std::max(worst, e);
      if (!(e <= f.bound)) {
        CAPTURE(x[i]);
        CAPTURE(y[i]);
        CAPTURE(exact[i]);
        FAIL_CHECK(f.name << " is off by " << e << " ulp");
        return;
      }
    }
  });
  return worst;
}

/// Floats spread over all exponents, and the special ones.
std::vector<float> sample() {
  std::vector<float> x;
  for (float s : special) {
    x.push_back(s);
    x.push_back(-s);
  }
  for (std::uint64_t bits = 0; bits < 0x100000000; bits += 13007)
    x.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  for (float at = -110; at < 110; at += 0.00173f) x.push_back(at);
  return x;
}

/// Checks a function on all floats, or on one in so many as TUTTI_FLOATS says.
void check_all_floats(const char* name) {
  for (const Function& f : functions) {
    if (f.name != name) continue;
    const char* wanted = std::getenv("TUTTI_FLOATS");
    const std::uint64_t step = wanted ? std::strtoull(wanted, nullptr, 10) : 1;
    REQUIRE(step > 0);
    constexpr std::size_t piece = 1 << 16;
    std::uint64_t count = 0;
    double worst = 0;
    for (std::uint64_t bits = 0; bits < 0x100000000;) {
      std::vector<float> x;
      for (; x.size() < piece && bits < 0x100000000; bits += step)
        x.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
      count += x.size();
      worst = std::max(worst, check(f, x));
    }
    MESSAGE(f.name << " is within " << worst << " ulp on " << count << " floats");
  }
}

struct Composite {
  std::string name;
  Tensor (*f)(const Tensor&);
};
#define COMPOSITE(name, ...)                                    \
  Composite {                                                   \
    name, [](const Tensor& x) -> Tensor { return __VA_ARGS__; } \
  }
const Composite composites[] = {
    COMPOSITE("gelu", gelu(x)),     COMPOSITE("gelu by tanh", gelu(x, "tanh")),
    COMPOSITE("silu", silu(x)),     COMPOSITE("softplus", softplus(x, 1.5, 10)),
    COMPOSITE("elu", elu(x, 1.25)), COMPOSITE("logsigmoid", logsigmoid(x)),
};
#undef COMPOSITE

/// f's derivative, as the backward pass computes it.
Tensor slope(const Composite& f, const Tensor& x) {
  return func::grad([&](const Tensor& t) { return f.f(t).sum(); })(x);
}

/// All functions and composites, and the composites' derivatives.
std::vector<std::pair<std::string, std::function<Tensor(const Tensor&)>>> everything() {
  std::vector<std::pair<std::string, std::function<Tensor(const Tensor&)>>> all;
  for (const Function& f : functions) all.emplace_back(f.name, f.f);
  for (const Composite& f : composites) {
    all.emplace_back(f.name, f.f);
    all.emplace_back(std::string("derivative of ") + f.name,
                     [&f](const Tensor& x) { return slope(f, x); });
  }
  return all;
}

std::vector<float> some_values(std::size_t n, double low = -6, double high = 6) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i)
    v[i] = static_cast<float>(low + (high - low) * static_cast<double>(i * 7919 % 1009) / 1008);
  return v;
}

void check_same(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (same_bits(a[i], b[i])) continue;
    CAPTURE(i);
    CHECK(a[i] == b[i]);
    return;
  }
}

/// Checks that float32 results are within `ulps` of float64's, relative to the larger of both and
/// `least`.
void check_close(const Tensor& y, const Tensor& exact, double ulps, double least) {
  const std::vector<float> a = values_of(y);
  const Tensor e = exact.contiguous();
  const double* const b = static_cast<const double*>(e.raw());
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (b[i] != b[i] ? a[i] != a[i] : std::isinf(b[i]) && a[i] == static_cast<float>(b[i]))
      continue;
    const double off = std::abs(a[i] - b[i]) / ulp(std::max(std::abs(b[i]), least));
    if (off <= ulps) continue;
    CAPTURE(i);
    CAPTURE(a[i]);
    CAPTURE(b[i]);
    CAPTURE(off);
    CHECK(off <= ulps);
    return;
  }
}

}  // namespace

TEST_CASE("elementary functions keep their bounds") {
  std::vector<float> x = sample();
  for (const Function& f : functions) {
    CAPTURE(f.name);
    check(f, x);
  }
}

// Minutes each, so that they are tests of their own; run by the slow suite.
#define ALL_FLOATS(name) \
  TEST_CASE(("all floats: " name) * doctest::skip(true)) { check_all_floats(name); }
ALL_FLOATS("exp")
ALL_FLOATS("expm1")
ALL_FLOATS("log")
ALL_FLOATS("log1p")
ALL_FLOATS("tanh")
ALL_FLOATS("sigmoid")
ALL_FLOATS("erf")
ALL_FLOATS("sin")
ALL_FLOATS("cos")

TEST_CASE("functions made of them, and their derivatives") {
  std::vector<float> x;
  for (float at = -40; at < 40; at += 0.0137f) x.push_back(at);
  for (float s : {0.0f, 0x1p-149f, 1e-30f, kInf, kNan})
    for (float v : {s, -s}) x.push_back(v);
  const Tensor t = over(x), exact = t.to(kFloat64);
  for (const Composite& f : composites) {
    CAPTURE(f.name);
    const Tensor y = f.f(exact), dy = slope(f, exact);
    with_each_isa([&] {
      // A term of gelu cancels to x times a rounding error of 1.
      check_close(f.f(t), y, 4, f.name.starts_with("gelu") ? 1 : 0x1p-3);
      check_close(slope(f, t), dy, 10, 1);
    });
  }
}

TEST_CASE("an element's result depends on the element alone") {
  const std::vector<float> x = some_values(300);
  for (const auto& [name, f] : everything()) {
    const std::string& which = name;  // clang 14 captures no structured binding
    CAPTURE(which);
    with_each_isa([&, &f = f] {
      std::vector<float> expected;
      for (float v : x) {
        std::vector<float> one{v};
        expected.push_back(values_of(f(over(one)))[0]);
      }
      const auto part = [&](std::size_t from, std::size_t n) {
        return std::vector(expected.begin() + static_cast<std::ptrdiff_t>(from),
                           expected.begin() + static_cast<std::ptrdiff_t>(from + n));
      };
      for (std::size_t n = 1; n <= 40; ++n) {
        CAPTURE(n);
        const std::size_t from = n * 5 % 17;
        // Memory of exactly this size, so that AddressSanitizer sees any other access.
        std::vector<float> few(x.begin() + static_cast<std::ptrdiff_t>(from),
                               x.begin() + static_cast<std::ptrdiff_t>(from + n));
        check_same(values_of(f(over(few))), part(from, n));
      }
      std::vector<float> all = x;
      check_same(values_of(f(over(all))), expected);
      // The same numbers 3 apart, and as a transposed matrix.
      std::vector<float> apart(3 * x.size(), 100.0f);
      for (std::size_t i = 0; i < x.size(); ++i) apart[3 * i] = x[i];
      check_same(values_of(f(over(apart).slice(0, std::nullopt, std::nullopt, 3))), expected);
      check_same(values_of(f(over(all).reshape({20, 15}).t()).t()), expected);
    });
  }
}

TEST_CASE("in place and into strided memory") {
  with_each_isa([] {
    std::vector<float> x = some_values(101);
    const std::vector<float> expected = values_of(over(x).sigmoid());
    std::vector<float> apart(202, 5.0f);
    for (std::size_t i = 0; i < x.size(); ++i) apart[2 * i] = x[i];
    over(apart).slice(0, std::nullopt, std::nullopt, 2).sigmoid_();
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(apart[2 * i] == expected[i]);
      CHECK(apart[2 * i + 1] == 5.0f);
    }
    over(x).sigmoid_();
    check_same(x, expected);
  });
}

TEST_CASE("softmax of rows of every length") {
  for (const std::int64_t n :
       {1,  2,  3,  4,  5,  7,  8,  9,  10, 12, 13,  15,  16,  17,  20,  24,
        25, 31, 32, 33, 40, 48, 63, 64, 65, 70, 100, 127, 129, 200, 515, 1000}) {
    CAPTURE(n);
    const std::int64_t rows = 5;
    std::vector<float> v = some_values(static_cast<std::size_t>(rows * n), -3, 3);
    std::vector<float> w = some_values(static_cast<std::size_t>(rows * n), -1, 2);
    const std::size_t last = static_cast<std::size_t>((rows - 1) * n);
    if (n > 2) v[static_cast<std::size_t>(n)] = -kInf;  // in row 1
    if (n > 4) v[last + static_cast<std::size_t>(n) - 1] = kNan;
    const Tensor x = over(v).reshape({rows, n}), g = over(w).reshape({rows, n});
    const Tensor spread = x.t().contiguous().t(), exact = x.to(kFloat64), exact_g = g.to(kFloat64);
    const auto pulled = [](const Tensor& at, const Tensor& by, bool log) {
      const auto [y, pull] =
          func::vjp([&](const Tensor& t) { return log ? t.log_softmax(-1) : t.softmax(-1); }, at);
      return std::get<0>(pull(by));
    };
    with_each_isa([&] {
      check_close(x.softmax(-1), exact.softmax(-1), 8, 0x1p-100);
      check_close(x.log_softmax(-1), exact.log_softmax(-1), 8, 16);
      for (const bool log : {false, true}) {
        const Tensor expected = pulled(exact, exact_g, log);
        check_close(pulled(x, g, log), expected, 8, log ? 16 : 1);
        check_same(values_of(pulled(spread, g, log)), values_of(pulled(x, g, log)));
        check_same(values_of(pulled(x, g.t().contiguous().t(), log)), values_of(pulled(x, g, log)));
      }
      check_same(values_of(spread.softmax(-1)), values_of(x.softmax(-1)));
      check_same(values_of(spread.log_softmax(-1)), values_of(x.log_softmax(-1)));
      // A row's result does not depend on the others, nor on what lies behind it.
      std::vector<float> row(v.begin() + n, v.begin() + 2 * n);
      check_same(values_of(over(row).softmax(-1)), values_of(x.softmax(-1)[1]));
      check_same(values_of(over(row).log_softmax(-1)), values_of(x.log_softmax(-1)[1]));
    });
  }
}

TEST_CASE("rows of infinities") {
  with_each_isa([] {
    for (const std::int64_t n : {1, 3, 8, 10, 40, 100}) {
      CAPTURE(n);
      const Tensor low = full({2, n}, -kInf), high = low.clone();
      high.select(1, n - 1).fill_(kInf);
      CHECK(low.softmax(-1).isnan().all().item<bool>());
      CHECK(high.softmax(-1).isnan().any(-1).all().item<bool>());
      CHECK(high.log_softmax(-1).isnan().any(-1).all().item<bool>());
    }
  });
}

TEST_CASE("cross entropy of rows of every length") {
  for (const std::int64_t n : {1, 2, 3, 7, 8, 9, 10, 16, 17, 33, 64, 100, 1000})
    for (const double smoothing : {0.0, 0.1})
      for (const bool weighted : {false, true}) {
        CAPTURE(n);
        CAPTURE(smoothing);
        CAPTURE(weighted);
        const std::int64_t rows = 70;
        std::vector<float> v = some_values(static_cast<std::size_t>(rows * n), -10, 10);
        std::vector<float> w = some_values(static_cast<std::size_t>(n), 0.5, 2);
        const Tensor x = over(v).reshape({rows, n}), target = arange(rows).remainder(n);
        target.select(0, 3).fill_(-100);
        const Tensor weight = weighted ? over(w) : Tensor();
        const auto loss = [&](const Tensor& t, const Tensor& by) {
          nn::functional::CrossEntropyFuncOptions o;
          o.label_smoothing(smoothing);
          if (by.defined()) o.weight(by);
          return nn::functional::cross_entropy(t, target, o);
        };
        const auto both = [&](const Tensor& t, const Tensor& by) {
          return func::grad_and_value([&](const Tensor& s) { return loss(s, by); })(t);
        };
        const auto [exact_g, exact] =
            both(x.to(kFloat64), weighted ? weight.to(kFloat64) : Tensor());
        with_each_isa([&, &exact_g = exact_g, &exact = exact] {
          const auto [g, l] = both(x, weight);
          check_close(l, exact, 8, 1);
          check_close(g, exact_g, 8, 1.0 / static_cast<double>(rows));
          const auto [spread_g, spread_l] = both(x.t().contiguous().t(), weight);
          check_same(values_of(spread_g), values_of(g));
          check_same(values_of(spread_l), values_of(l));
        });
      }
}

TEST_CASE("plain loops and sums give the same bits with every instruction set") {
  const auto results = [] {
    std::vector<std::vector<float>> all;
    for (std::size_t n : {1u, 3u, 8u, 9u, 31u, 64u, 100u, 1000u}) {
      std::vector<float> a = some_values(n), b = some_values(n, -1, 2);
      a[n / 2] = kNan;
      b[n / 3] = -0.0f;
      const Tensor x = over(a), y = over(b);
      for (const Tensor& r : {x + y,
                              x - y,
                              x * y,
                              x / y,
                              x + 0.1,
                              0.1 - x,
                              x.relu(),
                              x.gt(0.5).to(kFloat32),
                              x.le(y).to(kFloat32),
                              where(x.gt(y), x, y),
                              x * x.gt(0).to(kFloat32),
                              x.abs().sqrt(),
                              x.abs().rsqrt(),
                              x.square(),
                              x.maximum(y),
                              x.clamp(-1, 1),
                              x.masked_fill(y.gt(0), 7),
                              x.expand({3, x.size(0)}) * y,
                              x.unsqueeze(1) + y.unsqueeze(0),
                              x.sum(),
                              y.sum(),
                              (x.unsqueeze(1) + y.unsqueeze(0)).sum(IntArrayRef{0}),
                              (x.unsqueeze(1) + y.unsqueeze(0)).sum(IntArrayRef{1}),
                              y.amax(),
                              x.floor(),
                              lerp(x, y, 0.3)})
        all.push_back(values_of(r));
    }
    return all;
  };
  const Restore restore;
  kernels::set_isa(Isa::scalar);
  const auto expected = results();
  with_each_isa([&] {
    const auto r = results();
    for (std::size_t i = 0; i < r.size(); ++i) {
      CAPTURE(i);
      check_same(r[i], expected[i]);
    }
  });
}

TEST_CASE("optimizer steps give the same bits with every instruction set, however they are cut") {
  constexpr std::size_t n = 5000;  // more than one block
  // A cut of n: one chunk, whose quarters are members with rows of their own.
  const auto results = [&](std::size_t cut) {
    std::vector<std::vector<float>> all;
    for (const bool amsgrad : {false, true}) {
      std::vector<float> p = some_values(n), g = some_values(n, -2, 1), m(n), v(n), most(n);
      for (std::int64_t step = 1; step <= 3; ++step) {
        std::vector<kernels::AdamNumbers> rows;
        for (int quarter = 0; quarter < 4; ++quarter)
          rows.push_back(kernels::AdamStep(quarter % 2 == 0 ? step : step + 4, quarter > 1)(
              1e-2, quarter < 2 ? 0.9 : 0.8, 0.99, 1e-8, 0.1));
        std::vector<kernels::AdamChunk<float>> chunks;
        for (std::size_t i = 0; i < n; i += cut)
          chunks.push_back({&p[i],
                            &g[i],
                            &m[i],
                            &v[i],
                            amsgrad ? &most[i] : nullptr,
                            static_cast<std::int64_t>(std::min(cut, n - i)),
                            {&rows[4 * i / n], cut == n ? std::int64_t{n} / 4 : 0}});
        kernels::adam<float>(chunks);
      }
      for (const auto& r : {p, m, v, most}) all.push_back(r);
    }
    return all;
  };
  const Restore restore;
  kernels::set_isa(Isa::scalar);
  const auto expected = results(n / 4);
  with_each_isa([&] {
    for (std::size_t cut : {n, n / 4, n / 8, std::size_t{25}, std::size_t{1}}) {
      CAPTURE(cut);
      const auto r = results(cut);
      for (std::size_t i = 0; i < r.size(); ++i) check_same(r[i], expected[i]);
    }
  });
}
