// Rows for the elementwise ops of one tensor (core/ops/unary.cpp).
#include "op_table.h"

namespace tutti_test {

using namespace tutti;

namespace {
double logistic(double x) { return 1 / (1 + std::exp(-x)); }
double sign_of(double x) { return std::isnan(x) ? x : x > 0 ? 1 : x < 0 ? -1 : 0; }
// As tutti and PyTorch clamp: NaN stays.
double limit(double x, double lo, double hi) {
  return std::isnan(x) ? x : std::min(std::max(x, lo), hi);
}
}  // namespace

void unary_rows(Table& t) {
  const std::vector<In> any{real({2, 3})}, above{positive({2, 3})}, unit{real({2, 3}, -0.9, 0.9)};
  const std::vector<In> off_zero{real({2, 3}).away({0})};
  const std::vector<Gives> floats{Gives::floating}, truth{Gives::boolean};

  t.row("exp", any, FN(exp(v[0])))
      .large({{{20003}}})
      .ref(MAP(std::exp(x)))
      .inplace("exp_", FN(exp_(v[0])))
      .result(floats)
      .all_types()
      .specials();
  t.row("expm1", any, FN(expm1(v[0]))).ref(MAP(std::expm1(x))).result(floats).ints().specials();
  t.row("log", above, FN(log(v[0])))
      .ref(MAP(std::log(x)))
      .inplace("log_", FN(log_(v[0])))
      .result(floats)
      .ints()
      .specials();
  t.row("log1p", above, FN(log1p(v[0]))).ref(MAP(std::log1p(x))).result(floats).ints().specials();
  t.row("log2", above, FN(log2(v[0]))).ref(MAP(std::log2(x))).result(floats).ints().specials();
  t.row("log10", above, FN(log10(v[0]))).ref(MAP(std::log10(x))).result(floats).ints().specials();
  t.row("sqrt", above, FN(sqrt(v[0])))
      .ref(MAP(std::sqrt(x)))
      .inplace("sqrt_", FN(sqrt_(v[0])))
      .result(floats)
      .ints()
      .specials();
  t.row("rsqrt", above, FN(rsqrt(v[0])))
      .ref(MAP(1 / std::sqrt(x)))
      .inplace("rsqrt_", FN(rsqrt_(v[0])))
      .result(floats)
      .ints();
  t.row("square", any, FN(square(v[0])))
      .ref(MAP(x * x))
      .inplace("square_", FN(square_(v[0])))
      .ints()
      .specials();
  t.row("reciprocal", above, FN(reciprocal(v[0])))
      .ref(MAP(1 / x))
      .inplace("reciprocal_", FN(reciprocal_(v[0])))
      .result(floats)
      .ints()
      .specials();

  t.row("sin", any, FN(sin(v[0])))
      .ref(MAP(std::sin(x)))
      .inplace("sin_", FN(sin_(v[0])))
      .result(floats)
      .all_types()
      .specials();
  t.row("cos", any, FN(cos(v[0])))
      .ref(MAP(std::cos(x)))
      .inplace("cos_", FN(cos_(v[0])))
      .result(floats)
      .all_types()
      .specials();
  t.row("tan", unit, FN(tan(v[0]))).ref(MAP(std::tan(x))).result(floats).ints();
  t.row("asin", unit, FN(asin(v[0]))).ref(MAP(std::asin(x))).result(floats).ints().specials();
  t.row("acos", unit, FN(acos(v[0]))).ref(MAP(std::acos(x))).result(floats).ints().specials();
  t.row("atan", any, FN(atan(v[0]))).ref(MAP(std::atan(x))).result(floats).ints().specials();
  t.row("sinh", any, FN(sinh(v[0]))).ref(MAP(std::sinh(x))).result(floats).ints().specials();
  t.row("cosh", any, FN(cosh(v[0]))).ref(MAP(std::cosh(x))).result(floats).ints().specials();
  t.row("tanh", any, FN(tanh(v[0])))
      .large({{{20003}}})
      .ref(MAP(std::tanh(x)))
      .inplace("tanh_", FN(tanh_(v[0])))
      .result(floats)
      .ints()
      .specials();
  t.row("sigmoid", any, FN(sigmoid(v[0])))
      .ref(MAP(logistic(x)))
      .inplace("sigmoid_", FN(sigmoid_(v[0])))
      .result(floats)
      .ints()
      .specials();
  t.row("erf", any, FN(erf(v[0]))).ref(MAP(std::erf(x))).result(floats).ints().specials();
  t.row("logsigmoid", any, FN(logsigmoid(v[0]))).ref(MAP(-std::log1p(std::exp(-x))));
  t.row("logsigmoid far from 0", {real({2, 3}, 300, 900)}, FN(logsigmoid(-v[0]))).ref(MAP(-x));

  t.row("abs", off_zero, FN(abs(v[0])))
      .ref(MAP(std::abs(x)))
      .inplace("abs_", FN(abs_(v[0])))
      .ints()
      .specials();
  t.row("neg", any, FN(neg(v[0]))).ref(MAP(-x)).inplace("neg_", FN(neg_(v[0]))).ints().specials();
  t.row("neg operator", any, FN(-v[0])).ref(MAP(-x));
  t.row("sign", off_zero, FN(sign(v[0]))).ref(MAP(sign_of(x))).ints();
  const std::vector<In> between{fraction({2, 3}, 0.1, 0.4)};
  t.row("floor", between, FN(floor(v[0])))
      .ref(MAP(std::floor(x)))
      .inplace("floor_", FN(floor_(v[0])))
      .ints()
      .specials();
  t.row("ceil", between, FN(ceil(v[0])))
      .ref(MAP(std::ceil(x)))
      .inplace("ceil_", FN(ceil_(v[0])))
      .ints()
      .specials();
  t.row("round", between, FN(round(v[0])))
      .ref(MAP(std::nearbyint(x)))
      .inplace("round_", FN(round_(v[0])))
      .ints()
      .specials();
  t.row("round half to even", {fraction({2, 3}, 0.1, 0.4)}, FN(round(floor(v[0]) + 0.5)))
      .ref(MAP(std::nearbyint(std::floor(x) + 0.5)));
  t.row("trunc", between, FN(trunc(v[0])))
      .ref(MAP(std::trunc(x)))
      .inplace("trunc_", FN(trunc_(v[0])))
      .ints()
      .specials();

  t.row("relu", off_zero, FN(relu(v[0])))
      .large({{{20003}}})
      .ref(MAP(x > 0 || std::isnan(x) ? x : 0))
      .inplace("relu_", FN(relu_(v[0])))
      .ints()
      .specials();
  t.row("gelu", any, FN(gelu(v[0]))).ref(MAP(x * 0.5 * std::erfc(-x / std::sqrt(2.0))));
  t.row("gelu tanh", any, FN(gelu(v[0], "tanh")))
      .ref(MAP(0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)))));
  t.row("silu", any, FN(silu(v[0]))).ref(MAP(x * logistic(x)));
  t.row("softplus", any, FN(softplus(v[0]))).ref(MAP(std::log1p(std::exp(x))));
  t.row("softplus beta and threshold", {real({2, 3}).away({0.5})}, FN(softplus(v[0], 2, 1)))
      .ref(MAP(2 * x > 1 ? x : std::log1p(std::exp(2 * x)) / 2));
  t.row("leaky_relu", off_zero, FN(leaky_relu(v[0], 0.2))).ref(MAP(x > 0 ? x : 0.2 * x));
  t.row("elu", off_zero, FN(elu(v[0], 1.3))).ref(MAP(x > 0 ? x : 1.3 * std::expm1(x)));

  t.row("isnan", any, FN(isnan(v[0]))).ref(MAP(std::isnan(x))).result(truth).all_types().specials();
  t.row("isinf", any, FN(isinf(v[0]))).ref(MAP(std::isinf(x))).result(truth).all_types().specials();
  t.row("isfinite", any, FN(isfinite(v[0])))
      .ref(MAP(std::isfinite(x)))
      .result(truth)
      .all_types()
      .specials();
  t.row("logical_not", any, FN(logical_not(v[0])))
      .ref(MAP(x == 0))
      .result(truth)
      .all_types()
      .specials();
  t.row("logical_not operator", {mask({2, 3})}, FN(!v[0])).ref(MAP(x == 0)).result(truth);
  t.row("bitwise_not bool", {mask({2, 3})}, FN(bitwise_not(v[0]))).ref(MAP(x == 0)).result(truth);
  t.row("bitwise_not integers", {indices({2, 3}, 9)}, FN(bitwise_not(v[0])))
      .ref(MAP(-x - 1))
      .result({Gives::int64});

  const std::vector<In> off_limits{real({2, 3}).away({-0.5, 0.7, 0, 1})};
  t.row("clamp", off_limits, FN(clamp(v[0], -0.5, 0.7)))
      .ref(MAP(limit(x, -0.5, 0.7)))
      .inplace("clamp_", FN(clamp_(v[0], -0.5, 0.7)))
      .specials();
  t.row("clamp integers", off_limits, FN(clamp(v[0], 0, 1))).ref(MAP(limit(x, 0, 1))).ints();
  t.row("clamp one side", off_limits, FN(clamp(v[0], std::nullopt, 0.7)))
      .ref(MAP(limit(x, -INFINITY, 0.7)))
      .inplace("clamp_", FN(clamp_(v[0], std::nullopt, 0.7)));
  t.row("clamp tensors", {fraction({2, 3}, 0.4, 0.6), real({3}, -0.2, 0.2), real({2, 1}, 0.8, 1.2)},
        FN(clamp(v[0], v[1], v[2])))
      .ref(MAP(limit(x, y, z)))
      .broadcasts();
  t.row("clamp_min", off_limits, FN(clamp_min(v[0], -0.5)))
      .ref(MAP(limit(x, -0.5, INFINITY)))
      .inplace("clamp_min_", FN(clamp_min_(v[0], -0.5)))
      .specials();
  t.row("clamp_max", off_limits, FN(clamp_max(v[0], 0.7)))
      .ref(MAP(limit(x, -INFINITY, 0.7)))
      .inplace("clamp_max_", FN(clamp_max_(v[0], 0.7)))
      .specials();
}

}  // namespace tutti_test
