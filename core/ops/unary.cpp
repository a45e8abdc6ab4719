// Elementwise functions of one tensor. Each record has its kernel and its derivative, in terms of
// the input x and the output y; activations whose derivative is on the hot path have a kernel for
// it, which is itself an op.
#include <cmath>
#include <numbers>

#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/elementwise.h>
#include <tutti/core/ops/pointwise.h>
#include <tutti/core/ops/records.h>

namespace tutti {
namespace {

using forms::elementwise;
using forms::gradient;
using forms::pointwise;
using forms::pointwise_constant;

/// A record made by elementwise, from a formula in x and y.
#define TUTTI_DERIVATIVE(formula)                                                                \
  elementwise<[]([[maybe_unused]] const Tensor& x, [[maybe_unused]] const Tensor& y) -> Tensor { \
    return formula;                                                                              \
  }>
/// A record made by pointwise, from a formula for g times the derivative.
#define TUTTI_PARTIAL(formula)                                                           \
  pointwise<[]([[maybe_unused]] const Call& c, const Tensor& g, std::size_t) -> Tensor { \
    return formula;                                                                      \
  }>

Tensor run_float(const Op& op, const Tensor& x, const Attrs& a = Attrs::none()) {
  if (is_floating(x.dtype())) return run1(op, Inputs(&x, 1), a);
  return run1(op, {as_floating(x)}, a);
}

Tensor zero_second(const Tensor&, const Attrs&) { return {}; }

// ---- exponentials and logarithms

constinit const Op expm1_op = TUTTI_DERIVATIVE(add(y, 1))(
    {.name = "expm1", TUTTI_KERNEL(float_unary<scalar::Expm1>), .saves = saves::outputs});
constinit const Op log1p_op = TUTTI_PARTIAL(div(g, add(c.in[0], 1)))(
    {.name = "log1p", TUTTI_KERNEL(float_unary<scalar::Log1p>), .saves = saves::in0});
constinit const Op log2_op = TUTTI_PARTIAL(div(g, mul(c.in[0], std::numbers::ln2)))(
    {.name = "log2", TUTTI_KERNEL(float_unary<scalar::Log2>), .saves = saves::in0});
constinit const Op log10_op = TUTTI_PARTIAL(div(g, mul(c.in[0], std::numbers::ln10)))(
    {.name = "log10", TUTTI_KERNEL(float_unary<scalar::Log10>), .saves = saves::in0});

// ---- trigonometric and hyperbolic functions

constinit const Op tan_op = TUTTI_DERIVATIVE(add(square(y), 1))(
    {.name = "tan", TUTTI_KERNEL(float_unary<scalar::Tan>), .saves = saves::outputs});
constinit const Op asin_op = TUTTI_DERIVATIVE(rsqrt(rsub(square(x), 1)))(
    {.name = "asin", TUTTI_KERNEL(float_unary<scalar::Asin>), .saves = saves::in0});
constinit const Op acos_op = TUTTI_DERIVATIVE(neg(rsqrt(rsub(square(x), 1))))(
    {.name = "acos", TUTTI_KERNEL(float_unary<scalar::Acos>), .saves = saves::in0});
constinit const Op atan_op = TUTTI_PARTIAL(div(g, add(square(c.in[0]), 1)))(
    {.name = "atan", TUTTI_KERNEL(float_unary<scalar::Atan>), .saves = saves::in0});
constinit const Op sinh_op = TUTTI_DERIVATIVE(cosh(x))(
    {.name = "sinh", TUTTI_KERNEL(float_unary<scalar::Sinh>), .saves = saves::in0});
constinit const Op cosh_op = TUTTI_DERIVATIVE(sinh(x))(
    {.name = "cosh", TUTTI_KERNEL(float_unary<scalar::Cosh>), .saves = saves::in0});
constinit const Op erf_op =
    TUTTI_DERIVATIVE(mul(exp(neg(square(x))), 2 * std::numbers::inv_sqrtpi))(
        {.name = "erf", TUTTI_KERNEL(float_unary<scalar::Erf>), .saves = saves::in0});

// ---- gradients with kernels of their own: (g, y) or (g, x)

constinit const Op sigmoid_grad_op =
    gradient<[](const Tensor& y, const Attrs&) -> Tensor { return rsub(mul(y, 2), 1); }>(
        {.name = "sigmoid_grad", TUTTI_KERNEL(float_binary<scalar::SigmoidGrad>)});

constinit const Op tanh_grad_op =
    gradient<[](const Tensor& y, const Attrs&) -> Tensor { return mul(y, -2); }>(
        {.name = "tanh_grad", TUTTI_KERNEL(float_binary<scalar::TanhGrad>)});

constinit const Op relu_grad_op =
    gradient<zero_second>({.name = "relu_grad", TUTTI_KERNEL(float_binary<scalar::ReluGrad>)});

constinit const Op leaky_relu_grad_op = gradient<zero_second>(
    {.name = "leaky_relu_grad", TUTTI_KERNEL(float_binary<scalar::LeakyReluGrad>)});

constinit const Op clamp_grad_op =
    gradient<zero_second>({.name = "clamp_grad", TUTTI_KERNEL(float_binary<scalar::ClampGrad>)});

constinit const Op elu_grad_op = gradient<[](const Tensor& x, const Attrs& a) -> Tensor {
  return masked_fill(mul(exp(clamp_max(x, 0)), a.scalars[0]), gt(x, 0), 0);
}>({.name = "elu_grad", TUTTI_KERNEL(float_binary<scalar::EluGrad>)});

constinit const Op softplus_grad_op = gradient<[](const Tensor& x, const Attrs& a) -> Tensor {
  const Tensor z = mul(x, a.scalars[0]), s = sigmoid(z);
  return masked_fill(mul(mul(s, rsub(s, 1)), a.scalars[0]), gt(z, a.scalars[1]), 0);
}>({.name = "softplus_grad", TUTTI_KERNEL(float_binary<scalar::SoftplusGrad>)});

constinit const Op silu_grad_op = gradient<[](const Tensor& x, const Attrs&) -> Tensor {
  const Tensor s = sigmoid(x);  // s' * (2 + x * (1 - 2 s))
  return mul(mul(s, rsub(s, 1)), add(mul(x, rsub(mul(s, 2), 1)), 2));
}>({.name = "silu_grad", TUTTI_KERNEL(float_binary<scalar::SiluGrad>)});

Tensor gelu_second(const Tensor& x, const Attrs& a) {
  const Tensor x2 = square(x);
  if (!(a.flags & 1)) {
    const double density = 1 / std::sqrt(2 * std::numbers::pi);
    return mul(mul(exp(mul(x2, -0.5)), density), rsub(x2, 2));
  }
  // y = x (1 + tanh u) / 2 with u = k (x + c x^3); t = tanh u, s = 1 - t^2
  constexpr double k = scalar::kGeluScale, c = scalar::kGeluCubic;
  const Tensor u = mul(mul(x, add(mul(x2, c), 1)), k), du = mul(add(mul(x2, 3 * c), 1), k);
  const Tensor t = tanh(u), s = rsub(square(t), 1);
  const Tensor bend = sub(mul(x, 6 * k * c), mul(mul(t, square(du)), 2));  // u'' - 2 t u'^2
  return mul(s, add(du, mul(mul(x, 0.5), bend)));
}
/// Flag 1: the approximation by tanh.
void gelu_kernel(Inputs in, Inputs out, const Attrs& a) {
  if (a.flags & 1)
    kernels::float_unary<scalar::GeluTanh>(in, out, a);
  else
    kernels::float_unary<scalar::Gelu>(in, out, a);
}
void gelu_grad_kernel(Inputs in, Inputs out, const Attrs& a) {
  if (a.flags & 1)
    kernels::float_binary<scalar::GeluTanhGrad>(in, out, a);
  else
    kernels::float_binary<scalar::GeluGrad>(in, out, a);
}
constinit const Op gelu_grad_op = gradient<gelu_second>(
    {.name = "gelu_grad", .cpu = gelu_grad_kernel, .cuda = TUTTI_ON_CUDA(gelu_grad)});

// ---- activations

constinit const Op logsigmoid_op = TUTTI_PARTIAL(mul(g, sigmoid(neg(c.in[0]))))(
    {.name = "logsigmoid", TUTTI_KERNEL(float_unary<scalar::LogSigmoid>), .saves = saves::in0});
constinit const Op gelu_op = TUTTI_PARTIAL(run1(gelu_grad_op, {g, c.in[0]}, c.attrs))(
    {.name = "gelu", .cpu = gelu_kernel, .cuda = TUTTI_ON_CUDA(gelu), .saves = saves::in0});
constinit const Op silu_op = TUTTI_PARTIAL(run1(silu_grad_op, {g, c.in[0]}))(
    {.name = "silu", TUTTI_KERNEL(float_unary<scalar::Silu>), .saves = saves::in0});
constinit const Op softplus_op = TUTTI_PARTIAL(run1(softplus_grad_op, {g, c.in[0]}, c.attrs))(
    {.name = "softplus", TUTTI_KERNEL(float_unary<scalar::Softplus>), .saves = saves::in0});
constinit const Op leaky_relu_op = TUTTI_PARTIAL(run1(leaky_relu_grad_op, {g, c.in[0]}, c.attrs))(
    {.name = "leaky_relu", TUTTI_KERNEL(float_unary<scalar::LeakyRelu>), .saves = saves::in0});
constinit const Op elu_op = TUTTI_PARTIAL(run1(elu_grad_op, {g, c.in[0]}, c.attrs))(
    {.name = "elu", TUTTI_KERNEL(float_unary<scalar::Elu>), .saves = saves::in0});

// ---- sign, predicates, bits

constinit const Op sign_op =
    pointwise_constant({.name = "sign", TUTTI_KERNEL(unary<scalar::Sign>)});
constinit const Op isnan_op = pointwise_constant({.name = "isnan",
                                                  .shape = forms::shape_predicate,
                                                  TUTTI_KERNEL(float_predicate<scalar::IsNan>)});
constinit const Op isinf_op = pointwise_constant({.name = "isinf",
                                                  .shape = forms::shape_predicate,
                                                  TUTTI_KERNEL(float_predicate<scalar::IsInf>)});
constinit const Op isfinite_op =
    pointwise_constant({.name = "isfinite",
                        .shape = forms::shape_predicate,
                        TUTTI_KERNEL(float_predicate<scalar::IsFinite>)});
constinit const Op logical_not_op =
    pointwise_constant({.name = "logical_not", TUTTI_KERNEL(bool_unary<scalar::LogicalNot>)});
constinit const Op bitwise_not_op =
    pointwise_constant({.name = "bitwise_not", TUTTI_KERNEL(bits_unary<scalar::BitwiseNot>)});

void refuse_bool(const Tensor& x, const char* op) {
  check<TypeError>(x.dtype() != kBool, op, "expected numbers, got bool; cast with to() first");
}

/// Rounding leaves integers as they are.
Tensor run_rounding(const Op& op, const Tensor& x) {
  return is_floating(x.dtype()) ? run1(op, Inputs(&x, 1)) : clone(x);
}

}  // namespace

// ---- records that in-place forms use too

constinit const Op exp_op = TUTTI_DERIVATIVE(y)(
    {.name = "exp", TUTTI_KERNEL(float_unary<scalar::Exp>), .saves = saves::outputs});
constinit const Op log_op = TUTTI_PARTIAL(div(g, c.in[0]))(
    {.name = "log", TUTTI_KERNEL(float_unary<scalar::Log>), .saves = saves::in0});
constinit const Op sqrt_op = TUTTI_PARTIAL(div(g, mul(c.out[0], 2)))(
    {.name = "sqrt", TUTTI_KERNEL(float_unary<scalar::Sqrt>), .saves = saves::outputs});
constinit const Op rsqrt_op = TUTTI_DERIVATIVE(mul(mul(square(y), y), -0.5))(
    {.name = "rsqrt", TUTTI_KERNEL(float_unary<scalar::Rsqrt>), .saves = saves::outputs});
constinit const Op square_op = TUTTI_DERIVATIVE(mul(x, 2))(
    {.name = "square", TUTTI_KERNEL(unary<scalar::Square>), .saves = saves::in0});
constinit const Op reciprocal_op = TUTTI_DERIVATIVE(neg(square(y)))(
    {.name = "reciprocal", TUTTI_KERNEL(float_unary<scalar::Reciprocal>), .saves = saves::outputs});
constinit const Op sin_op = TUTTI_DERIVATIVE(cos(x))(
    {.name = "sin", TUTTI_KERNEL(float_unary<scalar::Sin>), .saves = saves::in0});
constinit const Op cos_op = TUTTI_DERIVATIVE(neg(sin(x)))(
    {.name = "cos", TUTTI_KERNEL(float_unary<scalar::Cos>), .saves = saves::in0});
constinit const Op tanh_op = TUTTI_PARTIAL(run1(tanh_grad_op, {g, c.out[0]}))(
    {.name = "tanh", TUTTI_KERNEL(float_unary<scalar::Tanh>), .saves = saves::outputs});
constinit const Op sigmoid_op = TUTTI_PARTIAL(run1(sigmoid_grad_op, {g, c.out[0]}))(
    {.name = "sigmoid", TUTTI_KERNEL(float_unary<scalar::Sigmoid>), .saves = saves::outputs});
constinit const Op relu_op = TUTTI_PARTIAL(run1(relu_grad_op, {g, c.out[0]}))(
    {.name = "relu", TUTTI_KERNEL(unary<scalar::Relu>), .saves = saves::outputs});
constinit const Op abs_op = TUTTI_DERIVATIVE(sign(x))(
    {.name = "abs", TUTTI_KERNEL(unary<scalar::Abs>), .saves = saves::in0});
constinit const Op neg_op =
    TUTTI_PARTIAL(neg(g))({.name = "neg", TUTTI_KERNEL(unary<scalar::Neg>)});
constinit const Op floor_op =
    pointwise_constant({.name = "floor", TUTTI_KERNEL(float_unary<scalar::Floor>)});
constinit const Op ceil_op =
    pointwise_constant({.name = "ceil", TUTTI_KERNEL(float_unary<scalar::Ceil>)});
constinit const Op round_op =
    pointwise_constant({.name = "round", TUTTI_KERNEL(float_unary<scalar::Round>)});
constinit const Op trunc_op =
    pointwise_constant({.name = "trunc", TUTTI_KERNEL(float_unary<scalar::Trunc>)});
/// Bounds as scalar::Bounds reads them.
constinit const Op clamp_op = TUTTI_PARTIAL(run1(clamp_grad_op, {g, c.in[0]}, c.attrs))(
    {.name = "clamp", TUTTI_KERNEL(unary<scalar::Clamp>), .saves = saves::in0});

Attrs clamp_attrs(std::optional<Scalar> min, std::optional<Scalar> max) {
  check<ValueError>(min || max, "clamp",
                    "expected a lower or an upper bound, got neither; give one");
  return numbers(min.value_or(0), max.value_or(0), (min ? 1u : 0u) | (max ? 2u : 0u));
}

DType clamp_dtype(const Tensor& x, std::optional<Scalar> min, std::optional<Scalar> max) {
  refuse_bool(x, "clamp");
  DType t = x.dtype();
  if (min) t = promote_types(t, result_type(x, *min));
  if (max) t = promote_types(t, result_type(x, *max));
  return t;
}

// ---- public functions

Tensor exp(const Tensor& self) { return run_float(exp_op, self); }
Tensor expm1(const Tensor& self) { return run_float(expm1_op, self); }
Tensor log(const Tensor& self) { return run_float(log_op, self); }
Tensor log1p(const Tensor& self) { return run_float(log1p_op, self); }
Tensor log2(const Tensor& self) { return run_float(log2_op, self); }
Tensor log10(const Tensor& self) { return run_float(log10_op, self); }
Tensor sqrt(const Tensor& self) { return run_float(sqrt_op, self); }
Tensor rsqrt(const Tensor& self) { return run_float(rsqrt_op, self); }
Tensor reciprocal(const Tensor& self) { return run_float(reciprocal_op, self); }
Tensor sin(const Tensor& self) { return run_float(sin_op, self); }
Tensor cos(const Tensor& self) { return run_float(cos_op, self); }
Tensor tan(const Tensor& self) { return run_float(tan_op, self); }
Tensor asin(const Tensor& self) { return run_float(asin_op, self); }
Tensor acos(const Tensor& self) { return run_float(acos_op, self); }
Tensor atan(const Tensor& self) { return run_float(atan_op, self); }
Tensor sinh(const Tensor& self) { return run_float(sinh_op, self); }
Tensor cosh(const Tensor& self) { return run_float(cosh_op, self); }
Tensor tanh(const Tensor& self) { return run_float(tanh_op, self); }
Tensor sigmoid(const Tensor& self) { return run_float(sigmoid_op, self); }
Tensor erf(const Tensor& self) { return run_float(erf_op, self); }
Tensor logsigmoid(const Tensor& self) { return run_float(logsigmoid_op, self); }
Tensor silu(const Tensor& self) { return run_float(silu_op, self); }

Tensor square(const Tensor& self) {
  return self.dtype() == kBool ? run1(square_op, {to(self, kInt64)})
                               : run1(square_op, Inputs(&self, 1));
}
Tensor abs(const Tensor& self) {
  refuse_bool(self, "abs");
  return run1(abs_op, Inputs(&self, 1));
}
Tensor neg(const Tensor& self) {
  refuse_bool(self, "neg");
  return run1(neg_op, Inputs(&self, 1));
}
Tensor sign(const Tensor& self) {
  return self.dtype() == kBool ? clone(self) : run1(sign_op, Inputs(&self, 1));
}
Tensor relu(const Tensor& self) {
  refuse_bool(self, "relu");
  return run1(relu_op, Inputs(&self, 1));
}
Tensor floor(const Tensor& self) { return run_rounding(floor_op, self); }
Tensor ceil(const Tensor& self) { return run_rounding(ceil_op, self); }
Tensor round(const Tensor& self) { return run_rounding(round_op, self); }
Tensor trunc(const Tensor& self) { return run_rounding(trunc_op, self); }

Tensor gelu(const Tensor& self, std::string_view approximate) {
  check<ValueError>(approximate == "none" || approximate == "tanh", "gelu",
                    "expected approximate to be \"none\" or \"tanh\", got \"", approximate,
                    "\"; leave it out for the exact form");
  return run_float(gelu_op, self, numbers(0, 0, approximate == "tanh"));
}
Tensor softplus(const Tensor& self, double beta, double threshold) {
  return run_float(softplus_op, self, numbers(beta, threshold));
}
Tensor leaky_relu(const Tensor& self, double slope) {
  return run_float(leaky_relu_op, self, numbers(slope));
}
Tensor elu(const Tensor& self, double alpha) { return run_float(elu_op, self, numbers(alpha)); }

Tensor isnan(const Tensor& self) {
  return is_floating(self.dtype()) ? run1(isnan_op, Inputs(&self, 1)) : zeros_like(self, kBool);
}
Tensor isinf(const Tensor& self) {
  return is_floating(self.dtype()) ? run1(isinf_op, Inputs(&self, 1)) : zeros_like(self, kBool);
}
Tensor isfinite(const Tensor& self) {
  return is_floating(self.dtype()) ? run1(isfinite_op, Inputs(&self, 1)) : ones_like(self, kBool);
}
Tensor logical_not(const Tensor& self) { return run_pointwise(logical_not_op, self, kBool); }
Tensor bitwise_not(const Tensor& self) {
  check<TypeError>(!is_floating(self.dtype()), "bitwise_not", "expected integers or bool, got ",
                   self.dtype(), "; use logical_not for truth values");
  return run1(bitwise_not_op, Inputs(&self, 1));
}

Tensor clamp(const Tensor& self, std::optional<Scalar> min, std::optional<Scalar> max) {
  const Attrs a = clamp_attrs(min, max);
  return run_pointwise(clamp_op, self, clamp_dtype(self, min, max), a);
}
Tensor clamp(const Tensor& self, const Tensor& min, const Tensor& max) {
  check<ValueError>(min.defined() || max.defined(), "clamp",
                    "expected a lower or an upper bound, got neither; give one");
  // At a bound the gradient stays with self; NaN wins on either side.
  Tensor x = self;
  if (min.defined()) x = where(logical_or(ge(x, min), isnan(x)), x, min);
  if (max.defined()) x = where(logical_or(le(x, max), isnan(x)), x, max);
  return x;
}
Tensor clamp_min(const Tensor& self, Scalar min) { return clamp(self, min, std::nullopt); }
Tensor clamp_max(const Tensor& self, Scalar max) { return clamp(self, std::nullopt, max); }

#undef TUTTI_DERIVATIVE
#undef TUTTI_PARTIAL

}  // namespace tutti
