// The vmap interpreter.
#include <algorithm>

#include <tutti/autograd/node.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>
#include <tutti/func/vmap_interpreter.h>

namespace tutti {

Tensor Vmap::batched(Tensor inner, int axis) const {
  return Tensor(Ptr<TensorImpl>(make_ref<BatchBox>(scope, std::move(inner), axis)));
}

Tensor Vmap::copy_box(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) const {
  auto [value, axis] = split(x, "vmap");
  return batched(f(value), axis);
}

Interpreter::Reopen Vmap::reopener() const {
  return [s = scope, size = size_, r = randomness_, offset = offset_, total = total_,
          axes = axes_](Interpreter* p) {
    return std::make_unique<Vmap>(p, s, size, r, offset, total, Axes(axes.data(), axes.size()));
  };
}

std::pair<Tensor, int> Vmap::split(const Tensor& x, const char* op) const {
  check_live(x, op);
  if (!mine(x)) return {x, -1};
  const BatchBox* b = static_cast<const BatchBox*>(as_box(x));
  return {b->inner, b->axis};
}

namespace {

// A function with a derivative of its own inside vmap: one op of the parent that runs the function,
// and its derivative, under a vmap of its own. So the derivative counts for grads outside, too.
// That vmap has the scope of the one the function was called in, since the function may have saved
// values of either.
struct MappedFunction {
  const Op& op;
  Attrs attrs;
  SmallVec<int, 4> axes;  // of the inputs
  Ptr<Scope> scope;
  std::int64_t size, offset, total;
  Randomness randomness;

  static const MappedFunction& of(const Attrs& a) {
    return *static_cast<const MappedFunction*>(a.closure.get());
  }
};

// Calls rule(box) under a vmap for `f`; results come back with the batch axis in front.
template <class Rule>
Tensors run_mapped(const MappedFunction& f, Rule rule) {
  Vmap v(thread_state().current, f.scope, f.size, f.randomness, f.offset, f.total,
         Axes(f.axes.data(), f.axes.size()));
  Tensors out;
  {
    Under under(&v);
    out = rule([&](const Tensor& x, int axis) { return x.defined() ? v.batched(x, axis) : x; });
    for (const Tensor& y : out) v.refresh(y);
  }
  for (Tensor& y : out) {
    if (!y.defined()) continue;
    auto [value, axis] = v.split(y, f.op.name);
    y = forms::axis_to_front(value, axis, f.size);
    if (axis < 0) y = clone(y);
  }
  return out;
}

Tensors mapped_forward(Inputs in, const Attrs& a) {
  const MappedFunction& f = MappedFunction::of(a);
  return run_mapped(f, [&](auto box) {
    Tensors boxes;
    for (std::size_t i = 0; i < in.size(); ++i) boxes.push_back(box(in[i], f.axes[i]));
    return f.op.expand(Inputs(boxes.data(), boxes.size()), f.attrs);
  });
}

Tensors mapped_vjp(const Call& c, Inputs g, Needs needs) {
  const MappedFunction& f = MappedFunction::of(c.attrs);
  Tensors r = run_mapped(f, [&](auto box) {
    Tensors in, out, cotangents;
    for (std::size_t i = 0; i < c.in.size(); ++i) in.push_back(box(c.in[i], f.axes[i]));
    for (const Tensor& y : c.out) out.push_back(box(y, 0));
    for (const Tensor& x : g) cotangents.push_back(box(x, 0));
    return f.op.vjp(
        Call{f.op, Inputs(in.data(), in.size()), Inputs(out.data(), out.size()), f.attrs},
        Inputs(cotangents.data(), cotangents.size()), needs);
  });
  for (std::size_t i = 0; i < r.size(); ++i)
    if (r[i].defined()) r[i] = f.axes[i] < 0 ? sum(r[i], 0) : movedim(r[i], 0, f.axes[i]);
  return r;
}

Tensors mapped_jvp(const Call& c, Inputs t) {
  const MappedFunction& f = MappedFunction::of(c.attrs);
  return run_mapped(f, [&](auto box) {
    Tensors in, out, tangents;
    for (std::size_t i = 0; i < c.in.size(); ++i) in.push_back(box(c.in[i], f.axes[i]));
    for (const Tensor& y : c.out) out.push_back(box(y, 0));
    for (std::size_t i = 0; i < t.size(); ++i) tangents.push_back(box(t[i], f.axes[i]));
    return f.op.jvp(
        Call{f.op, Inputs(in.data(), in.size()), Inputs(out.data(), out.size()), f.attrs},
        Inputs(tangents.data(), tangents.size()));
  });
}

consteval Op mapped_op(decltype(Op::jvp) jvp) {
  return forms::complete({
      .name = "vmap of a custom function",
      .shape = [](Inputs, const Attrs&, Metas&) {},
      .vjp = mapped_vjp,
      .jvp = jvp,
      .expand = mapped_forward,
      .saves = saves::inputs | saves::outputs,
  });
}
constinit const Op mapped_reverse_op = mapped_op(transpose_vjp);
constinit const Op mapped_both_ways_op = mapped_op(mapped_jvp);

// Throws what the op has against the shapes of one example.
void check_shapes(const Op& op, Inputs in, const Attrs& a) {
  Metas metas;
  Shape sizes, strides;
  std::int64_t offset = 0;
  if (op.shape)
    op.shape(in, a, metas);
  else if (op.alias)
    op.alias(in[0], a, sizes, strides, offset);
}

}  // namespace

Tensors Vmap::run(const Op& op, Inputs in, const Attrs& a) {
  Lent v;
  SmallVec<int, 4> axes;
  bool any = false;
  for (const Tensor& x : in) {
    const BatchBox* b = static_cast<const BatchBox*>(own(x, op.name));
    v.push_back(b ? b->inner : x);
    axes.push_back(b ? b->axis : -1);
    any = any || axes.back() >= 0;
  }
  const Inputs values = v;
  const Share share(v, a);
  Batched out;
  const bool one_for_all = op.random && any && randomness_ == Randomness::same;
  if (op.random && !one_for_all) {
    Under under(parent);
    out.values = run_random(op, values, Axes(axes.data(), axes.size()), a);
    out.axes.resize(out.values.size(), randomness_ == Randomness::different ? 0 : -1);
  } else if (!any) {
    out.values = run_below(op, values, a);
    out.axes.resize(out.values.size(), -1);
  } else if (op.batch) {
    try {
      Under under(parent);
      out = op.batch(op, values, a, Axes(axes.data(), axes.size()), size_);
    } catch (const Error&) {
      check_shapes(op, in, a);
      throw;
    }
  } else if (a.closure && op.vjp && op.expand) {
    Attrs b;
    b.closure = std::make_shared<MappedFunction>(
        MappedFunction{op, a, axes, scope, size_, offset_, total_, randomness_});
    Under under(parent);
    out.values = tutti::run(op.jvp ? mapped_both_ways_op : mapped_reverse_op, values, b);
    out.axes.resize(out.values.size(), 0);
  } else {
    check<TransformError>(op.expand != nullptr, op.name, "cannot run inside vmap: ",
                          op.reason ? op.reason : "it has no batch rule");
    Tensors r = op.expand(in, a);
    if (op.alias) link_view(op, in, a, r[0]);
    return r;
  }
  for (std::size_t k = 0; k < out.values.size(); ++k)
    if (out.values[k].defined()) out.values[k] = batched(std::move(out.values[k]), out.axes[k]);
  if (op.alias) note_view(op, in, a, out.values[0]);
  return std::move(out.values);
}

std::string Vmap::hidden_axis() const {
  SmallVec<int, 4> seen;
  std::string s = "axis ";
  for (const int axis : axes_) {
    if (axis < 0 || std::find(seen.begin(), seen.end(), axis) != seen.end()) continue;
    s += (seen.empty() ? "" : " or ") + std::to_string(axis);
    seen.push_back(axis);
  }
  return s + " of size " + std::to_string(total_);
}

Tensors Vmap::run_random(const Op& op, Inputs in, Axes axes, const Attrs& a) {
  check<TransformError>(
      randomness_ != Randomness::error, op.name,
      "random op inside vmap; choose VmapOptions().randomness(Randomness::different) (a draw per "
      "example) or Randomness::same (one draw for all); for jacfwd and hessian it is JacOptions()");
  if (randomness_ == Randomness::same) return tutti::run(op, in, a);
  Attrs b = a;
  Shape levels{size_, offset_, total_};
  levels.reserve(3 + a.dims.size());
  for (std::int64_t d : a.dims) levels.push_back(d);
  b.dims = levels;
  Tensors v;
  for (std::size_t i = 0; i < in.size(); ++i)
    v.push_back(forms::axis_to_front(in[i], axes[i], size_));
  return tutti::run(op, Inputs(v.data(), v.size()), b);
}

void Vmap::rebind(const Tensor& dst, const Tensor& src) {
  BatchBox* d = static_cast<BatchBox*>(dst.impl());
  auto [value, axis] = split(src, "assign");
  check<TransformError>(
      !d->unmapped || axis < 0, "assign",
      "inside vmap, in-place change of an argument that is not mapped (in_dims nullopt) by a value "
      "that differs per example; map the argument, or clone it first");
  d->axis = axis;
  d->set_inner(value, axis);
  if (axis >= 0) d->offset = src.storage_offset();
}

void Vmap::assign_captured(const Tensor& dst, const Tensor& src) {
  auto [d, d_axis] = split(dst, "assign");
  auto [s, s_axis] = split(src, "assign");
  check<TransformError>(
      s_axis < 0, "assign",
      "inside vmap, in-place change of a captured tensor by a value that differs per example; pass "
      "the tensor in as a mapped argument, or return the value");
  Under under(parent);
  tutti::assign(d, s);
}

}  // namespace tutti
