// Elementwise functions of two or three tensors, or of a tensor and a number (which stays in the
// attributes). The records take operands of one shape and dtype; the public functions broadcast and
// promote.
#include <cmath>

#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/elementwise.h>
#include <tutti/core/ops/pointwise.h>
#include <tutti/core/ops/records.h>

namespace tutti {
namespace {

using forms::pointwise;
using forms::pointwise_constant;

/// A record made by pointwise, from a formula for g times the derivative by input i.
#define TUTTI_PARTIAL(formula)                                  \
  pointwise<[]([[maybe_unused]] const Call& c, const Tensor& g, \
               [[maybe_unused]] std::size_t i) -> Tensor { return formula; }>

// ---- arithmetic with a number first

constinit const Op rsub_scalar_op =
    TUTTI_PARTIAL(neg(g))({.name = "rsub", TUTTI_KERNEL(unary<scalar::ScalarFirst<scalar::Sub>>)});

// ---- division that rounds, remainders

constinit const Op div_trunc_op =
    pointwise_constant({.name = "div", TUTTI_KERNEL(binary<scalar::DivTrunc>)});
constinit const Op div_floor_op =
    pointwise_constant({.name = "floor_divide", TUTTI_KERNEL(binary<scalar::DivFloor>)});
constinit const Op div_trunc_scalar_op =
    pointwise_constant({.name = "div", TUTTI_KERNEL(unary<scalar::WithScalar<scalar::DivTrunc>>)});
constinit const Op div_floor_scalar_op = pointwise_constant(
    {.name = "floor_divide", TUTTI_KERNEL(unary<scalar::WithScalar<scalar::DivFloor>>)});

constinit const Op fmod_op =
    TUTTI_PARTIAL(i == 0 ? g : neg(mul(g, div(c.in[0], c.in[1], "trunc"))))(
        {.name = "fmod", TUTTI_KERNEL(binary<scalar::Fmod>), .saves = saves::in0 | saves::in1});
constinit const Op remainder_op =
    TUTTI_PARTIAL(i == 0 ? g : neg(mul(g, div(c.in[0], c.in[1], "floor"))))(
        {.name = "remainder",
         TUTTI_KERNEL(binary<scalar::Remainder>),
         .saves = saves::in0 | saves::in1});
constinit const Op fmod_scalar_op =
    TUTTI_PARTIAL(g)({.name = "fmod", TUTTI_KERNEL(unary<scalar::WithScalar<scalar::Fmod>>)});
constinit const Op remainder_scalar_op = TUTTI_PARTIAL(g)(
    {.name = "remainder", TUTTI_KERNEL(unary<scalar::WithScalar<scalar::Remainder>>)});

// ---- powers

/// d/da a^b = b a^(b-1), which is 0 for b = 0 whatever a is.
Tensor pow_by_base(const Tensor& g, const Tensor& a, const Tensor& b) {
  const Tensor e = masked_fill(sub(b, 1), eq(b, 0), 0);
  return mul(g, mul(b, pow(a, e)));
}
/// d/db a^b = a^b log a, which is 0 for a = 0 and b >= 0.
Tensor pow_by_exponent(const Tensor& g, const Tensor& a, const Tensor& b, const Tensor& y) {
  const Tensor flat = logical_and(eq(a, 0), ge(b, 0));
  return mul(g, mul(y, log(masked_fill(a, flat, 1))));
}
constinit const Op pow_op = TUTTI_PARTIAL(i == 0 ? pow_by_base(g, c.in[0], c.in[1])
                                                 : pow_by_exponent(g, c.in[0], c.in[1], c.out[0]))(
    {.name = "pow",
     TUTTI_KERNEL(binary<scalar::Pow>),
     .saves = saves::in0 | saves::in1 | saves::outputs});

Tensor pow_scalar_partial(const Call& c, const Tensor& g, std::size_t) {
  const Scalar e = c.attrs.scalars[0];
  if (e.to_double() == 0) return {};
  return mul(g, mul(pow(c.in[0], e.to_double() - 1), e));
}
constinit const Op pow_scalar_op =
    pointwise<pow_scalar_partial>({.name = "pow", TUTTI_KERNEL(pow_scalar), .saves = saves::in0});

Tensor scalar_pow_partial(const Call& c, const Tensor& g, std::size_t) {
  const double base = c.attrs.scalars[0].to_double();
  if (base != 0) return mul(g, mul(c.out[0], std::log(base)));
  return masked_fill(mul(g, mul(c.out[0], std::log(base))), ge(c.in[0], 0), 0);
}
constinit const Op scalar_pow_op =
    pointwise<scalar_pow_partial>({.name = "pow",
                                   TUTTI_KERNEL(unary<scalar::ScalarFirst<scalar::Pow>>),
                                   .saves = saves::in0 | saves::outputs});

// ---- angles, extremes, interpolation, selection

constinit const Op atan2_op = TUTTI_PARTIAL(
    div(mul(g, i == 0 ? c.in[1] : neg(c.in[0])), add(square(c.in[0]), square(c.in[1]))))(
    {.name = "atan2", TUTTI_KERNEL(float_binary<scalar::Atan2>), .saves = saves::in0 | saves::in1});

/// All of g where x wins, half where x equals y, nothing where it loses.
Tensor share(const Tensor& g, const Tensor& x, const Tensor& y, const Tensor& loses) {
  return masked_fill(where(eq(x, y), mul(g, 0.5), g), loses, 0);
}
constinit const Op maximum_op = TUTTI_PARTIAL(share(
    g, c.in[i], c.in[1 - i], lt(c.in[i], c.in[1 - i])))({.name = "maximum",
                                                         TUTTI_KERNEL(any_binary<scalar::Maximum>),
                                                         .saves = saves::in0 | saves::in1});
constinit const Op minimum_op = TUTTI_PARTIAL(share(
    g, c.in[i], c.in[1 - i], gt(c.in[i], c.in[1 - i])))({.name = "minimum",
                                                         TUTTI_KERNEL(any_binary<scalar::Minimum>),
                                                         .saves = saves::in0 | saves::in1});

Tensor lerp_partial(const Call& c, const Tensor& g, std::size_t i) {
  if (i == 0) return mul(g, rsub(c.in[2], 1));
  return mul(g, i == 1 ? c.in[2] : sub(c.in[1], c.in[0]));
}
constinit const Op lerp_op =
    pointwise<lerp_partial>({.name = "lerp", TUTTI_KERNEL(lerp), .saves = saves::inputs});

void shape_where(Inputs in, const Attrs& a, Metas& out) {
  forms::shape_same(in.subspan(1), a, out);
  check<TypeError>(in[0].dtype() == kBool, "where", "expected a bool condition, got ",
                   in[0].dtype());
  check<ShapeError>(in[0].sizes() == in[1].sizes(), "where", "expected equal shapes, got ",
                    in[0].sizes(), " and ", in[1].sizes());
}
constinit const Op where_op =
    TUTTI_PARTIAL(i == 1 ? where(c.in[0], g, 0) : where(c.in[0], 0, g))({.name = "where",
                                                                         .shape = shape_where,
                                                                         TUTTI_KERNEL(where),
                                                                         .saves = saves::in0,
                                                                         .half_by_float = false});

void shape_masked_fill(Inputs in, const Attrs& a, Metas& out) {
  forms::shape_same(in.first(1), a, out);
  check<TypeError>(in[1].dtype() == kBool, "masked_fill", "expected a bool mask, got ",
                   in[1].dtype());
  check<ShapeError>(in[1].sizes() == in[0].sizes(), "masked_fill", "expected equal shapes, got ",
                    in[0].sizes(), " and ", in[1].sizes());
}

// ---- helpers of the public functions

/// The dtype of self + alpha * other and the like; torch's rules about alpha.
void check_alpha(DType t, Scalar alpha, const char* op) {
  check<TypeError>(is_floating(t) || !alpha.is_floating(), op,
                   "expected an integer alpha for a result of dtype ", t,
                   ", got a floating one; cast the operands with to(kFloat32)");
}
void check_no_bool(DType a, DType b, const char* op) {
  check<TypeError>(
      a != kBool || b != kBool, op,
      "expected at least one operand that is not bool, got two bools; use logical_xor for bools");
}
bool is_one(Scalar s) { return s.to_double() == 1; }

Scalar product(Scalar a, Scalar b) {
  if (a.is_floating() || b.is_floating()) return a.to_double() * b.to_double();
  return scalar::Mul()(a.to_int(), b.to_int());
}
Scalar negative(Scalar a) {
  if (a.is_floating()) return -a.to_double();
  return scalar::negate(a.to_int());
}

/// The dtype of true division.
DType quotient_type(DType t) { return is_floating(t) ? t : kFloat32; }

Tensor as_condition(const Tensor& c, const char* op) {
  check<TypeError>(c.dtype() == kBool || c.dtype() == kUInt8, op, "expected a bool mask, got ",
                   c.dtype(), "; compare with something, or convert with to(kBool)");
  return c.dtype() == kBool ? c : to(c, kBool);
}

void check_divisor(const Tensor& x, Scalar divisor, const char* op) {
  check<ValueError>(
      divisor.to_double() != 0 || is_floating(result_type(x, divisor)), op,
      "expected a divisor other than 0 for integers, got 0; divide floating tensors to get inf");
}

}  // namespace

// ---- records that in-place forms use too

constinit const Op add_op =
    TUTTI_PARTIAL(g)({.name = "add", TUTTI_KERNEL(any_binary<scalar::Add>)});
constinit const Op add_scaled_op = TUTTI_PARTIAL(i == 0 ? g : mul(g, c.attrs.scalars[0]))(
    {.name = "add", TUTTI_KERNEL(binary<scalar::AddScaled>)});
constinit const Op sub_op =
    TUTTI_PARTIAL(i == 0 ? g : neg(g))({.name = "sub", TUTTI_KERNEL(binary<scalar::Sub>)});
constinit const Op mul_op = TUTTI_PARTIAL(mul(g, c.in[1 - i]))(
    {.name = "mul", TUTTI_KERNEL(any_binary<scalar::Mul>), .saves = saves::in0 | saves::in1});
constinit const Op div_op = TUTTI_PARTIAL(i == 0 ? div(g, c.in[1])
                                                 : neg(div(mul(g, c.out[0]), c.in[1])))(
    {.name = "div", TUTTI_KERNEL(float_binary<scalar::Div>), .saves = saves::in1 | saves::outputs});
constinit const Op add_scalar_op =
    TUTTI_PARTIAL(g)({.name = "add", TUTTI_KERNEL(any_unary<scalar::WithScalar<scalar::Add>>)});
constinit const Op mul_scalar_op = TUTTI_PARTIAL(run1(c.op, {g}, c.attrs))(
    {.name = "mul", TUTTI_KERNEL(any_unary<scalar::WithScalar<scalar::Mul>>)});
constinit const Op div_scalar_op = TUTTI_PARTIAL(run1(c.op, {g}, c.attrs))(
    {.name = "div", TUTTI_KERNEL(float_unary<scalar::WithScalar<scalar::Div>>)});
constinit const Op lerp_scalar_op = TUTTI_PARTIAL(
    mul(g, i == 0 ? 1 - c.attrs.scalars[0].to_double() : c.attrs.scalars[0].to_double()))(
    {.name = "lerp", TUTTI_KERNEL(float_binary<scalar::LerpScalar>)});
constinit const Op masked_fill_op = TUTTI_PARTIAL(
    run1(c.op, {g, c.in[1]}, numbers(0, 0, c.attrs.flags)))({.name = "masked_fill",
                                                             .shape = shape_masked_fill,
                                                             TUTTI_KERNEL(masked_fill),
                                                             .saves = saves::in1,
                                                             .half_by_float = false});

// ---- public functions

Tensor add(const Tensor& self, const Tensor& other, Scalar alpha) {
  const DType t = result_type(self, other);
  if (is_one(alpha)) return run_pointwise(add_op, self, other, t);
  check_alpha(t, alpha, "add");
  if (t == kBool) return run_pointwise(add_op, self, mul(other, alpha), t);
  return run_pointwise(add_scaled_op, self, other, t, numbers(alpha));
}
Tensor add(const Tensor& self, Scalar other, Scalar alpha) {
  const DType t = result_type(self, other);
  check_alpha(t, alpha, "add");
  return run_pointwise(add_scalar_op, self, t,
                       numbers(is_one(alpha) ? other : product(other, alpha)));
}
Tensor sub(const Tensor& self, const Tensor& other, Scalar alpha) {
  check_no_bool(self.dtype(), other.dtype(), "sub");
  const DType t = result_type(self, other);
  if (is_one(alpha)) return run_pointwise(sub_op, self, other, t);
  check_alpha(t, alpha, "sub");
  return run_pointwise(add_scaled_op, self, other, t, numbers(negative(alpha)));
}
Tensor sub(const Tensor& self, Scalar other, Scalar alpha) {
  check_no_bool(self.dtype(), other.dtype(), "sub");
  const DType t = result_type(self, other);
  check_alpha(t, alpha, "sub");
  return run_pointwise(add_scalar_op, self, t, numbers(negative(product(other, alpha))));
}
Tensor rsub(const Tensor& self, Scalar other) {
  check_no_bool(self.dtype(), other.dtype(), "rsub");
  return run_pointwise(rsub_scalar_op, self, result_type(self, other), numbers(other));
}
Tensor mul(const Tensor& self, const Tensor& other) {
  return run_pointwise(mul_op, self, other, result_type(self, other));
}
Tensor mul(const Tensor& self, Scalar other) {
  return run_pointwise(mul_scalar_op, self, result_type(self, other), numbers(other));
}
Tensor div(const Tensor& self, const Tensor& other) {
  return run_pointwise(div_op, self, other, quotient_type(result_type(self, other)));
}
Tensor div(const Tensor& self, Scalar other) {
  return run_pointwise(div_scalar_op, self, quotient_type(result_type(self, other)),
                       numbers(other));
}

namespace {
/// True for "floor", false for "trunc".
bool rounds_down(std::string_view rounding) {
  check<ValueError>(rounding == "trunc" || rounding == "floor", "div",
                    "expected rounding to be \"trunc\" or \"floor\", got \"", rounding,
                    "\"; leave it out for true division");
  return rounding == "floor";
}
Tensor run_rounded(const Op& op, const Tensor& a, const Tensor& b) {
  check_no_bool(a.dtype(), b.dtype(), op.name);
  return run_pointwise(op, a, b, result_type(a, b));
}
Tensor run_rounded(const Op& op, const Tensor& a, Scalar b) {
  check_no_bool(a.dtype(), b.dtype(), op.name);
  check_divisor(a, b, op.name);
  return run_pointwise(op, a, result_type(a, b), numbers(b));
}
}  // namespace

Tensor div(const Tensor& self, const Tensor& other, std::string_view rounding) {
  return run_rounded(rounds_down(rounding) ? div_floor_op : div_trunc_op, self, other);
}
Tensor div(const Tensor& self, Scalar other, std::string_view rounding) {
  return run_rounded(rounds_down(rounding) ? div_floor_scalar_op : div_trunc_scalar_op, self,
                     other);
}
Tensor floor_divide(const Tensor& self, const Tensor& other) {
  return run_rounded(div_floor_op, self, other);
}
Tensor floor_divide(const Tensor& self, Scalar other) {
  return run_rounded(div_floor_scalar_op, self, other);
}
Tensor fmod(const Tensor& self, const Tensor& other) { return run_rounded(fmod_op, self, other); }
Tensor fmod(const Tensor& self, Scalar other) { return run_rounded(fmod_scalar_op, self, other); }
Tensor remainder(const Tensor& self, const Tensor& other) {
  return run_rounded(remainder_op, self, other);
}
Tensor remainder(const Tensor& self, Scalar other) {
  return run_rounded(remainder_scalar_op, self, other);
}

Tensor pow(const Tensor& self, const Tensor& exponent) {
  check_no_bool(self.dtype(), exponent.dtype(), "pow");
  return run_pointwise(pow_op, self, exponent, result_type(self, exponent));
}
Tensor pow(const Tensor& self, Scalar exponent) {
  const DType t = result_type(self, exponent);
  const double e = exponent.to_double();
  check<TypeError>(t != kBool, "pow", "expected numbers, got bool; cast with to() first");
  check<ValueError>(is_floating(t) || e >= 0, "pow",
                    "expected an exponent of at least 0 for integers, got ", e,
                    "; cast with to(kFloat32) first");
  const Tensor x = self.dtype() == t ? self : to(self, t);
  if (e == 2) return square(x);
  if (is_floating(t)) {
    if (e == 0.5) return sqrt(x);
    if (e == -0.5) return rsqrt(x);
    if (e == -1) return reciprocal(x);
  }
  return run1(pow_scalar_op, {x}, numbers(exponent));
}
Tensor pow(Scalar base, const Tensor& exponent) {
  const DType t = result_type(exponent, base);
  check<TypeError>(t != kBool, "pow", "expected numbers, got bool; cast with to() first");
  return run_pointwise(scalar_pow_op, exponent, t, numbers(base));
}

Tensor atan2(const Tensor& self, const Tensor& other) {
  return run_pointwise(atan2_op, self, other, quotient_type(result_type(self, other)));
}
Tensor minimum(const Tensor& self, const Tensor& other) {
  return run_pointwise(minimum_op, self, other, result_type(self, other));
}
Tensor maximum(const Tensor& self, const Tensor& other) {
  return run_pointwise(maximum_op, self, other, result_type(self, other));
}

namespace {
DType lerp_type(const Tensor& self, const Tensor& end) {
  const DType t = result_type(self, end);
  check<TypeError>(is_floating(t), "lerp", "expected floating tensors, got ", self.dtype(), " and ",
                   end.dtype(), "; convert with to(kFloat32)");
  return t;
}
}  // namespace

Tensor lerp(const Tensor& self, const Tensor& end, Scalar weight) {
  return run_pointwise(lerp_scalar_op, self, end, lerp_type(self, end), numbers(weight));
}
Tensor lerp(const Tensor& self, const Tensor& end, const Tensor& weight) {
  const DType t = lerp_type(self, end);
  const Shape sizes =
      broadcast_shapes(broadcast_shapes(self.sizes(), end.sizes(), "lerp"), weight.sizes(), "lerp");
  return run1(lerp_op, {as_operand(self, t, sizes), as_operand(end, t, sizes),
                        as_operand(weight, t, sizes)});
}
Tensor addcmul(const Tensor& self, const Tensor& a, const Tensor& b, Scalar value) {
  return add(self, mul(a, b), value);
}
Tensor addcdiv(const Tensor& self, const Tensor& a, const Tensor& b, Scalar value) {
  check<TypeError>(is_floating(result_type(a, b)), "addcdiv", "expected a floating quotient, got ",
                   a.dtype(), " and ", b.dtype(), "; divide with a rounding mode instead");
  return add(self, div(a, b), value);
}

Tensor where(const Tensor& condition, const Tensor& x, const Tensor& y) {
  const Tensor c = as_condition(condition, "where");
  const DType t = result_type(x, y);
  if (x.dtype() == t && y.dtype() == t && x.sizes() == y.sizes() && c.sizes() == x.sizes())
    return run1(where_op, {c, x, y});
  const Shape sizes =
      broadcast_shapes(broadcast_shapes(x.sizes(), y.sizes(), "where"), c.sizes(), "where");
  return run1(where_op,
              {as_operand(c, kBool, sizes), as_operand(x, t, sizes), as_operand(y, t, sizes)});
}

namespace {
/// x where the mask is false (or true, if inverted), else value.
Tensor fill_where(const Tensor& mask, const Tensor& x, Scalar value, DType t, bool inverted) {
  const Attrs a = numbers(value, 0, inverted);
  if (mask.sizes() == x.sizes() && x.dtype() == t) return run1(masked_fill_op, {x, mask}, a);
  const Shape sizes = broadcast_shapes(x.sizes(), mask.sizes(), "masked_fill");
  return run1(masked_fill_op, {as_operand(x, t, sizes), as_operand(mask, kBool, sizes)}, a);
}
}  // namespace

Tensor where(const Tensor& condition, const Tensor& x, Scalar y) {
  return fill_where(as_condition(condition, "where"), x, y, result_type(x, y), true);
}
Tensor where(const Tensor& condition, Scalar x, const Tensor& y) {
  return fill_where(as_condition(condition, "where"), y, x, result_type(y, x), false);
}
Tensor where(const Tensor& condition, Scalar x, Scalar y) {
  const DType t = promote_types(x.dtype(), y.dtype());
  return fill_where(as_condition(condition, "where"), full_like(condition, y, t), x, t, false);
}
Tensor masked_fill(const Tensor& self, const Tensor& mask, Scalar value) {
  return fill_where(as_condition(mask, "masked_fill"), self, value, self.dtype(), false);
}
Tensor masked_fill(const Tensor& self, const Tensor& mask, const Tensor& value) {
  check<ShapeError>(value.dim() == 0, "masked_fill", "expected a 0-d value, got shape ",
                    value.sizes(), "; use where() for larger ones");
  return where(mask, to(value, self.dtype()), self);
}

#undef TUTTI_PARTIAL

}  // namespace tutti
