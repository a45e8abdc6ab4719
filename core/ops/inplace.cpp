// In-place ops: the op of the same name, assigned to self. Where the result has self's dtype,
// elementwise ones go through run_inplace, which writes straight into self's memory when no
// transform or record is in the way.
#include <tutti/core/ops/pointwise.h>
#include <tutti/core/ops/records.h>

namespace tutti {
namespace {

Tensor& handle(const Tensor& self) { return const_cast<Tensor&>(self); }

/// torch's rule for storing a result of dtype `from` in a tensor of dtype `to`.
void check_storable(DType from, DType to, const char* op) {
  const bool ok = is_floating(to) || (!is_floating(from) && (to != kBool || from == kBool));
  check<TypeError>(ok, op, "the result has dtype ", from, " and does not fit into self of dtype ",
                   to, "; use the form without underscore or cast self first");
}
void check_broadcast(const Tensor& self, const Tensor& other, const char* op) {
  if (other.sizes() == self.sizes()) return;
  check<ShapeError>(broadcast_shapes(self.sizes(), other.sizes(), op) == self.sizes().shape(), op,
                    "expected an operand that broadcasts to self's shape ", self.sizes(),
                    ", got shape ", other.sizes(), "; use the form without underscore");
}

Tensor& update(const Op& op, const Tensor& self, DType t, const Attrs& a = Attrs::none()) {
  check_storable(t, self.dtype(), op.name);
  if (t == self.dtype())
    run_inplace(op, self, {self}, a);
  else
    assign(self, run_pointwise(op, self, t, a));
  return handle(self);
}
Tensor& update(const Op& op, const Tensor& self, const Tensor& other, DType t,
               const Attrs& a = Attrs::none()) {
  check_storable(t, self.dtype(), op.name);
  check_broadcast(self, other, op.name);
  if (t == self.dtype())
    run_inplace(op, self, {self, as_operand(other, t, self.sizes())}, a);
  else
    assign(self, run_pointwise(op, self, other, t, a));
  return handle(self);
}

/// A unary op with floating results.
Tensor& update_float(const Op& op, const Tensor& self) {
  return update(op, self, is_floating(self.dtype()) ? self.dtype() : kFloat32);
}
/// Rounding leaves integers as they are.
Tensor& update_rounding(const Op& op, const Tensor& self) {
  return is_floating(self.dtype()) ? update(op, self, self.dtype()) : handle(self);
}

/// Any other result of self's shape.
Tensor& become(const Tensor& self, const Tensor& result, const char* op) {
  check_storable(result.dtype(), self.dtype(), op);
  check_broadcast(self, result, op);
  assign(self, result);
  return handle(self);
}

DType quotient_type(DType t) { return is_floating(t) ? t : kFloat32; }
bool is_one(Scalar s) { return s.to_double() == 1; }

}  // namespace

Tensor& copy_(const Tensor& self, const Tensor& src) {
  assign(self, src);
  return handle(self);
}
Tensor& zero_(const Tensor& self) { return fill_(self, 0); }
Tensor& fill_(const Tensor& self, Scalar value) {
  Attrs a = numbers(value);
  a.ints = self.sizes().shape();
  a.dtype = self.dtype();
  a.device = self.device();
  run_inplace(full_like_op, self, {self}, a);
  return handle(self);
}
Tensor& fill_(const Tensor& self, const Tensor& value) {
  check<ShapeError>(value.dim() == 0, "fill_", "expected a 0-d value, got shape ", value.sizes(),
                    "; use copy_() for larger ones");
  return copy_(self, value);
}

Tensor& add_(const Tensor& self, const Tensor& other, Scalar alpha) {
  const DType t = result_type(self, other);
  if (is_one(alpha)) return update(add_op, self, other, t);
  if (!is_floating(t)) return become(self, add(self, other, alpha), "add_");
  return update(add_scaled_op, self, other, t, numbers(alpha));
}
Tensor& add_(const Tensor& self, Scalar other, Scalar alpha) {
  if (!is_one(alpha)) return become(self, add(self, other, alpha), "add_");
  return update(add_scalar_op, self, result_type(self, other), numbers(other));
}
Tensor& sub_(const Tensor& self, const Tensor& other, Scalar alpha) {
  const DType t = result_type(self, other);
  if (!is_floating(t)) return become(self, sub(self, other, alpha), "sub_");
  if (is_one(alpha)) return update(sub_op, self, other, t);
  return update(add_scaled_op, self, other, t, numbers(-alpha.to_double()));
}
Tensor& sub_(const Tensor& self, Scalar other, Scalar alpha) {
  const DType t = result_type(self, other);
  if (!is_floating(t)) return become(self, sub(self, other, alpha), "sub_");
  return update(add_scalar_op, self, t, numbers(-other.to_double() * alpha.to_double()));
}
Tensor& mul_(const Tensor& self, const Tensor& other) {
  return update(mul_op, self, other, result_type(self, other));
}
Tensor& mul_(const Tensor& self, Scalar other) {
  return update(mul_scalar_op, self, result_type(self, other), numbers(other));
}
Tensor& div_(const Tensor& self, const Tensor& other) {
  return update(div_op, self, other, quotient_type(result_type(self, other)));
}
Tensor& div_(const Tensor& self, Scalar other) {
  return update(div_scalar_op, self, quotient_type(result_type(self, other)), numbers(other));
}
Tensor& pow_(const Tensor& self, Scalar exponent) {
  // The derivative reads pow's input, which must not be what is overwritten.
  return become(self, pow(clone(self), exponent), "pow_");
}
Tensor& lerp_(const Tensor& self, const Tensor& end, Scalar weight) {
  if (!is_floating(self.dtype())) return become(self, lerp(self, end, weight), "lerp_");
  return update(lerp_scalar_op, self, end, result_type(self, end), numbers(weight));
}
Tensor& addcmul_(const Tensor& self, const Tensor& a, const Tensor& b, Scalar value) {
  return add_(self, mul(a, b), value);
}
Tensor& addcdiv_(const Tensor& self, const Tensor& a, const Tensor& b, Scalar value) {
  return become(self, addcdiv(self, a, b, value), "addcdiv_");
}
Tensor& clamp_(const Tensor& self, std::optional<Scalar> min, std::optional<Scalar> max) {
  const Attrs a = clamp_attrs(min, max);
  return update(clamp_op, self, clamp_dtype(self, min, max), a);
}
Tensor& clamp_min_(const Tensor& self, Scalar min) { return clamp_(self, min); }
Tensor& clamp_max_(const Tensor& self, Scalar max) { return clamp_(self, std::nullopt, max); }
Tensor& masked_fill_(const Tensor& self, const Tensor& mask, Scalar value) {
  check_broadcast(self, mask, "masked_fill_");
  if (mask.dtype() != kBool) return become(self, masked_fill(self, mask, value), "masked_fill_");
  run_inplace(masked_fill_op, self, {self, as_operand(mask, kBool, self.sizes())}, numbers(value));
  return handle(self);
}

Tensor& exp_(const Tensor& self) { return update_float(exp_op, self); }
Tensor& log_(const Tensor& self) { return update_float(log_op, self); }
Tensor& sqrt_(const Tensor& self) { return update_float(sqrt_op, self); }
Tensor& rsqrt_(const Tensor& self) { return update_float(rsqrt_op, self); }
Tensor& reciprocal_(const Tensor& self) { return update_float(reciprocal_op, self); }
Tensor& sin_(const Tensor& self) { return update_float(sin_op, self); }
Tensor& cos_(const Tensor& self) { return update_float(cos_op, self); }
Tensor& tanh_(const Tensor& self) { return update_float(tanh_op, self); }
Tensor& sigmoid_(const Tensor& self) { return update_float(sigmoid_op, self); }
Tensor& floor_(const Tensor& self) { return update_rounding(floor_op, self); }
Tensor& ceil_(const Tensor& self) { return update_rounding(ceil_op, self); }
Tensor& round_(const Tensor& self) { return update_rounding(round_op, self); }
Tensor& trunc_(const Tensor& self) { return update_rounding(trunc_op, self); }
Tensor& square_(const Tensor& self) {
  if (self.dtype() == kBool) return become(self, square(self), "square_");
  return update(square_op, self, self.dtype());
}
Tensor& relu_(const Tensor& self) {
  if (self.dtype() == kBool) return become(self, relu(self), "relu_");
  return update(relu_op, self, self.dtype());
}
Tensor& abs_(const Tensor& self) {
  if (self.dtype() == kBool) return become(self, abs(self), "abs_");
  return update(abs_op, self, self.dtype());
}
Tensor& neg_(const Tensor& self) {
  if (self.dtype() == kBool) return become(self, neg(self), "neg_");
  return update(neg_op, self, self.dtype());
}

Tensor& Tensor::operator+=(const Tensor& o) const { return tutti::add_(*this, o); }
Tensor& Tensor::operator-=(const Tensor& o) const { return tutti::sub_(*this, o); }
Tensor& Tensor::operator*=(const Tensor& o) const { return tutti::mul_(*this, o); }
Tensor& Tensor::operator/=(const Tensor& o) const { return tutti::div_(*this, o); }
Tensor& Tensor::operator+=(const Scalar& o) const { return tutti::add_(*this, o); }
Tensor& Tensor::operator-=(const Scalar& o) const { return tutti::sub_(*this, o); }
Tensor& Tensor::operator*=(const Scalar& o) const { return tutti::mul_(*this, o); }
Tensor& Tensor::operator/=(const Scalar& o) const { return tutti::div_(*this, o); }

}  // namespace tutti
