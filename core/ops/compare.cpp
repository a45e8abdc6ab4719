// Comparisons and logic: bool results (bits for integers), never differentiated.
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/elementwise.h>
#include <tutti/core/ops/pointwise.h>

namespace tutti {
namespace {

using forms::pointwise_constant;

/// A comparison of two tensors and of a tensor with a number, which promote to a common dtype
/// first.
#define TUTTI_COMPARISON(op, F)                                                          \
  constinit const Op op##_op = pointwise_constant(                                       \
      {.name = #op, .shape = forms::shape_predicate, TUTTI_KERNEL(compare<scalar::F>)}); \
  constinit const Op op##_scalar_op =                                                    \
      pointwise_constant({.name = #op,                                                   \
                          .shape = forms::shape_predicate,                               \
                          TUTTI_KERNEL(predicate<scalar::WithScalar<scalar::F>>)});
TUTTI_COMPARISON(eq, Eq)
TUTTI_COMPARISON(ne, Ne)
TUTTI_COMPARISON(lt, Lt)
TUTTI_COMPARISON(le, Le)
TUTTI_COMPARISON(gt, Gt)
TUTTI_COMPARISON(ge, Ge)
#undef TUTTI_COMPARISON

constinit const Op logical_and_op =
    pointwise_constant({.name = "logical_and", TUTTI_KERNEL(bool_binary<scalar::LogicalAnd>)});
constinit const Op logical_or_op =
    pointwise_constant({.name = "logical_or", TUTTI_KERNEL(bool_binary<scalar::LogicalOr>)});
constinit const Op logical_xor_op =
    pointwise_constant({.name = "logical_xor", TUTTI_KERNEL(bool_binary<scalar::LogicalXor>)});
constinit const Op bitwise_and_op =
    pointwise_constant({.name = "bitwise_and", TUTTI_KERNEL(bits_binary<scalar::BitwiseAnd>)});
constinit const Op bitwise_or_op =
    pointwise_constant({.name = "bitwise_or", TUTTI_KERNEL(bits_binary<scalar::BitwiseOr>)});
constinit const Op bitwise_xor_op =
    pointwise_constant({.name = "bitwise_xor", TUTTI_KERNEL(bits_binary<scalar::BitwiseXor>)});

Tensor run_compare(const Op& op, const Tensor& a, const Tensor& b) {
  return run_pointwise(op, a, b, result_type(a, b));
}
Tensor run_compare(const Op& op, const Tensor& a, Scalar b) {
  return run_pointwise(op, a, result_type(a, b), numbers(b));
}
Tensor run_bits(const Op& op, const Tensor& a, const Tensor& b) {
  const DType t = result_type(a, b);
  check<TypeError>(!is_floating(t), op.name, "expected integers or bools, got ", a.dtype(), " and ",
                   b.dtype(), "; use the logical_ form for truth values");
  return run_pointwise(op, a, b, t);
}

}  // namespace

Tensor eq(const Tensor& self, const Tensor& other) { return run_compare(eq_op, self, other); }
Tensor eq(const Tensor& self, Scalar other) { return run_compare(eq_scalar_op, self, other); }
Tensor ne(const Tensor& self, const Tensor& other) { return run_compare(ne_op, self, other); }
Tensor ne(const Tensor& self, Scalar other) { return run_compare(ne_scalar_op, self, other); }
Tensor lt(const Tensor& self, const Tensor& other) { return run_compare(lt_op, self, other); }
Tensor lt(const Tensor& self, Scalar other) { return run_compare(lt_scalar_op, self, other); }
Tensor le(const Tensor& self, const Tensor& other) { return run_compare(le_op, self, other); }
Tensor le(const Tensor& self, Scalar other) { return run_compare(le_scalar_op, self, other); }
Tensor gt(const Tensor& self, const Tensor& other) { return run_compare(gt_op, self, other); }
Tensor gt(const Tensor& self, Scalar other) { return run_compare(gt_scalar_op, self, other); }
Tensor ge(const Tensor& self, const Tensor& other) { return run_compare(ge_op, self, other); }
Tensor ge(const Tensor& self, Scalar other) { return run_compare(ge_scalar_op, self, other); }

Tensor logical_and(const Tensor& self, const Tensor& other) {
  return run_pointwise(logical_and_op, self, other, kBool);
}
Tensor logical_or(const Tensor& self, const Tensor& other) {
  return run_pointwise(logical_or_op, self, other, kBool);
}
Tensor logical_xor(const Tensor& self, const Tensor& other) {
  return run_pointwise(logical_xor_op, self, other, kBool);
}
Tensor bitwise_and(const Tensor& self, const Tensor& other) {
  return run_bits(bitwise_and_op, self, other);
}
Tensor bitwise_or(const Tensor& self, const Tensor& other) {
  return run_bits(bitwise_or_op, self, other);
}
Tensor bitwise_xor(const Tensor& self, const Tensor& other) {
  return run_bits(bitwise_xor_op, self, other);
}

Tensor isclose(const Tensor& self, const Tensor& other, double rtol, double atol, bool equal_nan) {
  check<ValueError>(rtol >= 0 && atol >= 0, "isclose",
                    "expected tolerances that are not negative, got rtol ", rtol, " and atol ",
                    atol, "; give 0 for an exact comparison");
  Tensor close = eq(self, other);
  if (rtol == 0 && atol == 0 && !equal_nan) return close;
  const DType t = result_type(self, other);
  // Integers differ exactly, then in double: float32 would lose their low digits.
  const DType wide = is_floating(t) ? t : kFloat64;
  const Tensor a = to(self, wide), b = to(other, wide);
  const Tensor allowed = add(mul(abs(b), rtol), atol), actual = abs(sub(a, b));
  close = logical_or(close, logical_and(isfinite(actual), le(actual, allowed)));
  if (equal_nan) close = logical_or(close, logical_and(isnan(a), isnan(b)));
  return close;
}
bool allclose(const Tensor& self, const Tensor& other, double rtol, double atol, bool equal_nan) {
  return all(isclose(self, other, rtol, atol, equal_nan)).item<bool>();
}
bool equal(const Tensor& self, const Tensor& other) {
  return self.sizes() == other.sizes() && all(eq(self, other)).item<bool>();
}

}  // namespace tutti
