// Forms: the shapes most op records have, so that a record is one line, and complete(), which
// rejects at compile time a record that lacks a rule without saying why.
//   elementwise<D>   one derivative formula D(x, y) gives vjp and jvp
//   linear           jvp is the op itself
//   bilinear         jvp is the sum of the op with either operand replaced by its tangent
//   batch_pointwise  same-shape operands: bring the batch axes together
//   batch_leading    the op works on trailing axes: bring the batch axis to the front and shift
//   attrs.dims
#pragma once
#include <tutti/core/op.h>

namespace tutti::forms {

/// Refuses an incomplete record: name; shape or alias; a kernel, alias or expand; vjp and jvp
/// unless not differentiable or expanded; batch unless expanded, random or a reason is declared;
/// put for views.
consteval Op complete(Op op) {
  if (!op.name) throw "an op needs a name";
  if (!op.alias && !op.shape) throw "an op needs a shape rule (or is a view)";
  if (!op.alias && !op.cpu && !op.expand) throw "an op needs a kernel or an expansion";
  if (op.differentiable && !op.expand && !op.reason && (!op.vjp || !op.jvp))
    throw "a differentiable op needs vjp and jvp, an expansion, or a declared reason";
  if (!op.batch && !op.expand && !op.random && !op.reason)
    throw "an op needs a batch rule, an expansion, or a declared reason";
  if (op.alias && !op.put && !op.reason)
    throw "a view needs put, or a reason why it is not written through";
  return op;
}

// Shape rules.
/// One result like in[0]. Checks that all inputs have the same shape and dtype (they are strict
/// primitives).
void shape_same(Inputs in, const Attrs& a, Metas& out);
/// The same, with a bool result.
void shape_predicate(Inputs in, const Attrs& a, Metas& out);
/// sizes from attrs.ints, dtype and device from attrs; no inputs.
void shape_attrs(Inputs in, const Attrs& a, Metas& out);

// Batch rules.
Batched batch_pointwise(const Op& op, Inputs in, const Attrs& a, Axes axes, std::int64_t size);
Batched batch_leading(const Op& op, Inputs in, const Attrs& a, Axes axes, std::int64_t size);
/// x with its batch axis at the front; inserted with stride 0 where x has none (axis -1). Undefined
/// stays undefined.
Tensor axis_to_front(const Tensor& x, int axis, std::int64_t size);

// Derivative rules.
Tensors linear_jvp(const Call& c, Inputs t);
Tensors bilinear_jvp(const Call& c, Inputs t);
/// a + b where an undefined one is zero.
Tensor add_grads(const Tensor& a, const Tensor& b);
Tensor multiply(const Tensor& a, const Tensor& b);

using Derivative = Tensor (*)(const Tensor& x, const Tensor& y);
template <Derivative D>
Tensors elementwise_vjp(const Call& c, Inputs g, Needs) {
  return {multiply(g[0], D(c.in[0], c.out[0]))};
}
template <Derivative D>
Tensors elementwise_jvp(const Call& c, Inputs t) {
  return {multiply(t[0], D(c.in[0], c.out[0]))};
}
/// A unary elementwise op from its kernel and its derivative in terms of input x and output y;
/// `saves` says which of the two the derivative reads.
template <Derivative D>
consteval Op elementwise(Op op) {
  op.shape = op.shape ? op.shape : shape_same;
  op.vjp = elementwise_vjp<D>;
  op.jvp = elementwise_jvp<D>;
  op.batch = batch_pointwise;
  op.elementwise = true;
  return complete(op);
}
/// An elementwise op without derivative (comparisons, rounding, bit operations).
consteval Op pointwise_constant(Op op) {
  op.shape = op.shape ? op.shape : shape_same;
  op.batch = batch_pointwise;
  op.elementwise = true;
  op.differentiable = false;
  return complete(op);
}
/// A linear op with one tensor input: give shape, kernel (or alias and put), vjp and batch.
consteval Op linear(Op op) {
  op.jvp = linear_jvp;
  return complete(op);
}
/// A bilinear op: give shape, kernel, vjp and batch.
consteval Op bilinear(Op op) {
  op.jvp = bilinear_jvp;
  return complete(op);
}

// Rare views, by index arithmetic. `shown`: where in its row-major input every element of the view
// stands; without it, found by applying the view to 0..numel-1.
Tensor put_by_index(const Tensor& shown, const Tensor& base, const Tensor& part);
Tensor put_by_index(const Op& view, const Tensor& base, const Tensor& part, const Attrs& a);
Tensors expand_by_index(const Tensor& shown, const Tensor& x);
Tensors expand_by_index(const Op& view, Inputs in, const Attrs& a);

}  // namespace tutti::forms
