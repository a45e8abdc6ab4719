// The rules the forms share.
#include <tutti/core/interpreter.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>

namespace tutti::forms {

void shape_same(Inputs in, const Attrs&, Metas& out) {
  const Tensor& x = in[0];
  for (const Tensor& y : in.subspan(1)) {
    check<ShapeError>(y.sizes() == x.sizes(), "elementwise", "expected equal shapes, got ",
                      x.sizes(), " and ", y.sizes(), "; expand() one");
    check<TypeError>(y.dtype() == x.dtype(), "elementwise", "expected equal dtypes, got ",
                     x.dtype(), " and ", y.dtype(), "; convert with to()");
  }
  out.push_back({x.sizes().shape(), x.dtype(), x.device()});
}

void shape_predicate(Inputs in, const Attrs& a, Metas& out) {
  shape_same(in, a, out);
  out[0].dtype = kBool;
}

void shape_attrs(Inputs, const Attrs& a, Metas& out) { out.push_back({a.ints, a.dtype, a.device}); }

Tensor axis_to_front(const Tensor& x, int axis, std::int64_t size) {
  if (!x.defined() || axis == 0) return x;
  if (axis > 0) return movedim(x, axis, 0);
  Shape sizes = x.sizes().shape();
  sizes.insert(sizes.begin(), size);
  return expand(x, sizes);
}

namespace {
Batched run_batched(const Op& op, Inputs in, const Attrs& a, int axis) {
  Batched r;
  r.values = run(op, in, a);
  r.axes.resize(r.values.size(), axis);
  return r;
}
Tensors all_to_front(Inputs in, Axes axes, std::int64_t size) {
  Tensors v;
  for (std::size_t i = 0; i < in.size(); ++i) v.push_back(axis_to_front(in[i], axes[i], size));
  return v;
}
}  // namespace

Batched batch_pointwise(const Op& op, Inputs in, const Attrs& a, Axes axes, std::int64_t size) {
  bool aligned = true;
  for (int axis : axes) aligned = aligned && axis == axes[0];
  if (aligned) return run_batched(op, in, a, axes[0]);
  Tensors v = all_to_front(in, axes, size);
  return run_batched(op, Inputs(v.data(), v.size()), a, 0);
}

Batched batch_leading(const Op& op, Inputs in, const Attrs& a, Axes axes, std::int64_t size) {
  Attrs b = a;
  for (std::int64_t& d : b.dims) ++d;
  Tensors v = all_to_front(in, axes, size);
  return run_batched(op, Inputs(v.data(), v.size()), b, 0);
}

Tensors linear_jvp(const Call& c, Inputs t) {
  // Inputs without tangent (indices, say) are passed on as they are.
  Tensors in;
  for (std::size_t i = 0; i < c.in.size(); ++i)
    in.push_back(t[i].defined() || !c.in[i].defined() || !is_floating(c.in[i].dtype())
                     ? (t[i].defined() ? t[i] : c.in[i])
                     : zeros_like(c.in[i]));
  return run(c.op, Inputs(in.data(), in.size()), c.attrs);
}

Tensors bilinear_jvp(const Call& c, Inputs t) {
  Tensor a, b;
  if (t[0].defined()) a = run1(c.op, {t[0], c.in[1]}, c.attrs);
  if (t[1].defined()) b = run1(c.op, {c.in[0], t[1]}, c.attrs);
  return {add_grads(a, b)};
}

Tensor add_grads(const Tensor& a, const Tensor& b) {
  return !a.defined() ? b : !b.defined() ? a : add(a, b);
}
Tensor multiply(const Tensor& a, const Tensor& b) { return mul(a, b); }

namespace {
// Flat indices, into the row-major base, of the elements the view shows. Constants: made below all
// transforms.
Tensor shown_elements(const Op& view, const Tensor& base, const Attrs& a) {
  Under root(nullptr);
  return run1(view, {reshape(arange(base.numel()), base.sizes())}, a);
}
/// The indices where x is, one after the other.
Tensor beside(const Tensor& shown, const Tensor& x) {
  return reshape(x.is_cuda() ? to(shown, x.device()) : shown, -1);
}
}  // namespace

Tensors expand_by_index(const Tensor& shown, const Tensor& x) {
  return {reshape(index_select(reshape(x, -1), 0, beside(shown, x)), shown.sizes())};
}

Tensors expand_by_index(const Op& view, Inputs in, const Attrs& a) {
  return expand_by_index(shown_elements(view, in[0], a), in[0]);
}

Tensor put_by_index(const Tensor& shown, const Tensor& base, const Tensor& part) {
  return reshape(scatter(reshape(base, -1), 0, beside(shown, base), reshape(part, -1)),
                 base.sizes());
}

Tensor put_by_index(const Op& view, const Tensor& base, const Tensor& part, const Attrs& a) {
  return put_by_index(shown_elements(view, base, a), base, part);
}

}  // namespace tutti::forms
