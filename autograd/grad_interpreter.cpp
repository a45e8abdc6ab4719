// The grad interpreter.
#include <algorithm>

#include <tutti/autograd/grad_interpreter.h>
#include <tutti/core/ops.h>

namespace tutti {

Tensor Grad::box(Tensor inner) const {
  return Tensor(Ptr<TensorImpl>(make_ref<GradBox>(scope, std::move(inner))));
}

Tensor Grad::copy_box(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) const {
  Tensor y = box(f(as_box(x)->inner));
  static_cast<GradBox*>(y.impl())->edge = edge(x);
  return y;
}

Interpreter::Reopen Grad::reopener() const {
  return [s = scope, on = grad_enabled, heeds = heeds_no_grad_](Interpreter* p) {
    auto g = std::make_unique<Grad>(p, s, heeds);
    g->grad_enabled = on;
    return g;
  };
}

Tensor Grad::leaf(const Tensor& x) const {
  check<TypeError>(is_floating(x.dtype()), scope->transform,
                   "only floating tensors can be differentiated, got ", x.dtype(),
                   "; cast it, or choose other arguments to differentiate");
  Tensor b = box(resolved(x));
  static_cast<GradBox*>(b.impl())->edge = {make_ref<Node>(), 0};
  return b;
}

Tensor Grad::inner(const Tensor& x, const char* op) const {
  check_live(x, op);
  return mine(x) ? as_box(x)->inner : x;
}

Edge Grad::edge(const Tensor& x) const {
  return mine(x) ? static_cast<const GradBox*>(as_box(x))->edge : Edge{};
}

Tensors Grad::run(const Op& op, Inputs in, const Attrs& a) {
  Lent v;
  SmallVec<const Edge*, 4> edges;
  bool tracked = false;
  for (const Tensor& x : in) {
    const GradBox* b = static_cast<const GradBox*>(own(x, op.name));
    const bool recorded = b && b->edge.node;
    v.push_back(b ? b->inner : x);
    edges.push_back(recorded ? &b->edge : nullptr);
    tracked |= recorded;
  }
  const Share share(v, a);
  tracked = tracked && recording() && op.differentiable;
  if (tracked && !op.vjp) {
    check<NotImplementedError>(op.expand != nullptr, op.name,
                               "has no derivative: ", op.reason ? op.reason : "");
    Tensors r = op.expand(in, a);
    if (op.alias) link_view(op, in, a, r[0]);
    return r;
  }
  Tensors out = run_below(op, v, a);
  const auto floating = [](const Tensor& y) { return is_floating(y.handle()->dtype); };
  bool records = false;
  for (const Tensor& y : out) records |= tracked && floating(y);
  Ptr<Node> n = records
                    ? make_node(op, a, v, Inputs(out.data(), out.size()), false, scope->transform)
                    : Ptr<Node>();
  if (records)
    for (const Edge* e : edges) e ? n->add_edge(*e) : n->add_edge();
  for (std::uint32_t k = 0; k < out.size(); ++k) {
    const bool recorded = records && floating(out[k]);
    auto b = make_ref<GradBox>(scope, std::move(out[k]));
    if (recorded) b->edge = {k + 1 == out.size() ? std::move(n) : n, k};
    out[k] = Tensor(std::move(b));
  }
  if (op.alias) note_view(op, in, a, out[0]);
  return out;
}

void Grad::rebind(const Tensor& dst, const Tensor& src) {
  GradBox* d = static_cast<GradBox*>(dst.impl());
  d->set_inner(inner(src, "assign"));
  if (recording()) d->edge = edge(src);  // under no_grad the value changes and the history stays
}

void Grad::assign_captured(const Tensor& dst, const Tensor& src) {
  check<TransformError>(
      !(edge(src).node && recording()), "assign", "inside ", scope->transform,
      ", in-place change of a captured tensor by a value that depends on the differentiated "
      "arguments; pass the tensor in as an argument, or return the value");
  Tensor d = inner(dst, "assign"), s = inner(src, "assign");
  Under under(parent);
  tutti::assign(d, s);
}

Tensors transpose_vjp(const Call& c, Inputs tangents) {
  Grad g(thread_state().current, "linearize", false);
  Tensors cotangents, gradients;
  std::vector<Edge> ends, roots;
  for (const Tensor& y : c.out) {
    const bool floating = y.defined() && is_floating(y.dtype());
    cotangents.push_back(floating ? g.leaf(zeros_like(y)) : Tensor());
    ends.push_back(floating ? g.edge(cotangents.back()) : Edge{});
  }
  Needs needs{0};
  for (std::size_t i = 0; i < tangents.size() && i < 64; ++i)
    if (tangents[i].defined()) needs.bits |= std::uint64_t{1} << i;
  {
    Under under(&g);
    gradients = c.op.vjp(c, Inputs(cotangents.data(), cotangents.size()), needs);
    for (const Tensor& x : gradients) g.refresh(x);
  }
  std::vector<Tensor> seeds;
  for (std::size_t i = 0; i < gradients.size() && i < tangents.size(); ++i) {
    if (!tangents[i].defined() || !gradients[i].defined()) continue;
    check<ShapeError>(gradients[i].sizes() == tangents[i].sizes(), c.op.name,
                      "the gradient of input ", i, " has shape ", gradients[i].sizes(),
                      ", expected ", tangents[i].sizes());
    roots.push_back(g.edge(gradients[i]));
    seeds.push_back(tangents[i]);
  }
  BackwardOptions o;
  o.wanted = &ends;
  const std::vector<Tensor> r = backward(roots, seeds, o);
  return Tensors(r.begin(), r.end());
}

}  // namespace tutti
