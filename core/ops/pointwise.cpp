// Promotion and broadcasting for the elementwise ops.
#include <tutti/core/ops/pointwise.h>

namespace tutti {
namespace {

int kind(DType t) { return is_floating(t) ? 2 : t == kBool ? 0 : 1; }

/// The strong operand decides unless the weak one is of a higher kind.
DType promote_weak(DType strong, DType weak) {
  return kind(weak) > kind(strong) ? promote_types(strong, weak) : strong;
}

}  // namespace

DType result_type(const Tensor& a, const Tensor& b) {
  const DType x = a.dtype(), y = b.dtype();
  if (x == y) return x;
  if ((a.dim() == 0) == (b.dim() == 0)) return promote_types(x, y);
  return a.dim() == 0 ? promote_weak(y, x) : promote_weak(x, y);
}

DType result_type(const Tensor& a, Scalar b) { return promote_weak(a.dtype(), b.dtype()); }

Tensor as_operand(const Tensor& x, DType t, IntArrayRef sizes) {
  const Tensor y = x.dtype() == t ? x : to(x, t);
  return y.sizes() == sizes ? y : expand(y, sizes);
}

Tensor as_floating(const Tensor& x) { return is_floating(x.dtype()) ? x : to(x, kFloat32); }

Tensor run_pointwise(const Op& op, const Tensor& a, const Tensor& b, DType t, const Attrs& attrs) {
  const bool same_sizes = a.sizes() == b.sizes();
  if (same_sizes && a.dtype() == t && b.dtype() == t) return run1(op, Lent(a, b), attrs);
  const Shape sizes =
      same_sizes ? a.sizes().shape() : broadcast_shapes(a.sizes(), b.sizes(), op.name);
  return run1(op, {as_operand(a, t, sizes), as_operand(b, t, sizes)}, attrs);
}

Tensor run_pointwise(const Op& op, const Tensor& a, DType t, const Attrs& attrs) {
  if (a.dtype() == t) return run1(op, Inputs(&a, 1), attrs);
  return run1(op, {to(a, t)}, attrs);
}

Attrs numbers(Scalar a, Scalar b, std::uint32_t flags) {
  Attrs attrs;
  attrs.scalars = {a, b};
  attrs.flags = flags;
  return attrs;
}

}  // namespace tutti
