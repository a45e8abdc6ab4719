// What the elementwise op files share: dtypes of mixed operands, bringing operands to one shape and
// dtype, and the form of elementwise records with several inputs or with parameters.
#pragma once
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>

namespace tutti {

/// The dtype an op on both promotes to, as torch.result_type: a 0-d tensor and a number matter only
/// if they are of a higher kind (bool < integer < floating). Ranks are logical: inside vmap, per
/// example.
DType result_type(const Tensor& a, const Tensor& b);
DType result_type(const Tensor& a, Scalar b);

/// x with dtype t, expanded to sizes; x itself where nothing changes.
Tensor as_operand(const Tensor& x, DType t, IntArrayRef sizes);
/// x itself if floating, else as float32.
Tensor as_floating(const Tensor& x);
/// op(a, b) after broadcasting and casting both to t.
Tensor run_pointwise(const Op& op, const Tensor& a, const Tensor& b, DType t,
                     const Attrs& attrs = Attrs::none());
/// op(a) after casting to t.
Tensor run_pointwise(const Op& op, const Tensor& a, DType t, const Attrs& attrs = Attrs::none());

/// Attrs that hold only numbers (and flags).
Attrs numbers(Scalar a, Scalar b = {}, std::uint32_t flags = 0);

namespace forms {

/// g times the derivative of the output by input i, both elementwise; undefined if that is zero. As
/// the Jacobian of an elementwise op is diagonal, the one formula serves gradients and tangents.
using Partial = Tensor (*)(const Call& c, const Tensor& g, std::size_t i);

template <Partial P>
Tensors pointwise_vjp(const Call& c, Inputs g, Needs needs) {
  Tensors r;
  for (std::size_t i = 0; i < c.in.size(); ++i) {
    const bool wanted = g[0].defined() && needs[i] && is_floating(c.in[i].dtype());
    r.push_back(wanted ? P(c, g[0], i) : Tensor());
  }
  return r;
}
template <Partial P>
Tensors pointwise_jvp(const Call& c, Inputs t) {
  Tensor sum;
  for (std::size_t i = 0; i < c.in.size(); ++i)
    if (t[i].defined()) sum = add_grads(sum, P(c, t[i], i));
  return {sum};
}
/// An elementwise op of any number of inputs from its kernel and its partial derivatives.
template <Partial P>
consteval Op pointwise(Op op) {
  op.shape = op.shape ? op.shape : shape_same;
  op.vjp = pointwise_vjp<P>;
  op.jvp = pointwise_jvp<P>;
  op.batch = batch_pointwise;
  op.elementwise = true;
  return complete(op);
}

/// A kernel (g, x) -> g * f'(x): linear in g; Second(x) is f''(x), undefined if zero.
template <Tensor (*Second)(const Tensor& x, const Attrs& a)>
Tensor gradient_partial(const Call& c, const Tensor& g, std::size_t i) {
  if (i == 0) return run1(c.op, {g, c.in[1]}, c.attrs);
  const Tensor second = Second(c.in[1], c.attrs);
  return second.defined() ? mul(mul(g, c.in[0]), second) : Tensor();
}
template <Tensor (*Second)(const Tensor& x, const Attrs& a)>
consteval Op gradient(Op op) {
  op.saves = saves::in0 | saves::in1;
  return pointwise<gradient_partial<Second>>(op);
}

}  // namespace forms
}  // namespace tutti
