// The jvp interpreter.
#include <tutti/autograd/grad_interpreter.h>
#include <tutti/autograd/jvp_interpreter.h>

namespace tutti {

Tensor Jvp::box(Tensor inner) const { return dual(std::move(inner), {}); }

Tensor Jvp::copy_box(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) const {
  const Tensor t = tangent(x);
  const Tensor value = f(as_box(x)->inner);
  return dual(value, t.defined() ? f(t) : t);
}

Interpreter::Reopen Jvp::reopener() const {
  return [s = scope](Interpreter* p) { return std::make_unique<Jvp>(p, s); };
}

Tensor Jvp::dual(Tensor primal, Tensor tangent) const {
  auto b = make_ref<JvpBox>(scope, std::move(primal));
  b->tangent = std::move(tangent);
  return Tensor(Ptr<TensorImpl>(std::move(b)));
}

Tensor Jvp::inner(const Tensor& x, const char* op) const {
  check_live(x, op);
  return mine(x) ? as_box(x)->inner : x;
}

Tensor Jvp::tangent(const Tensor& x) const {
  return mine(x) ? static_cast<const JvpBox*>(as_box(x))->tangent : Tensor();
}

Tensors Jvp::run(const Op& op, Inputs in, const Attrs& a) {
  static const Tensor zero;
  Lent v, t;
  bool any = false;
  for (const Tensor& x : in) {
    const JvpBox* b = static_cast<const JvpBox*>(own(x, op.name));
    v.push_back(b ? b->inner : x);
    t.push_back(b ? b->tangent : zero);
    any = any || (b && b->tangent.defined());
  }
  const Share share(v, a), share_t(t, a);
  any = any && op.differentiable;
  if (any && !op.jvp) {
    check<NotImplementedError>(op.expand != nullptr, op.name,
                               "has no forward derivative: ", op.reason ? op.reason : "");
    Tensors r = op.expand(in, a);
    if (op.alias) link_view(op, in, a, r[0]);
    return r;
  }
  Tensors out = run_below(op, v, a), dt;
  if (any) {
    Under under(parent);
    dt = op.jvp(Call{op, v, Inputs(out.data(), out.size()), a}, t);
  }
  for (std::size_t k = 0; k < out.size(); ++k) {
    const bool has = k < dt.size() && dt[k].defined() && is_floating(out[k].dtype());
    if (has)
      check<ShapeError>(dt[k].sizes() == out[k].sizes(), op.name, "the tangent has shape ",
                        dt[k].sizes(), ", expected ", out[k].sizes());
    out[k] = dual(std::move(out[k]), has ? std::move(dt[k]) : Tensor());
  }
  if (op.alias) note_view(op, in, a, out[0]);
  return out;
}

void Jvp::rebind(const Tensor& dst, const Tensor& src) {
  JvpBox* d = static_cast<JvpBox*>(dst.impl());
  d->set_inner(inner(src, "assign"));
  d->tangent = tangent(src);
}

void Jvp::assign_captured(const Tensor& dst, const Tensor& src) {
  check<TransformError>(
      !tangent(src).defined(), "assign",
      "inside jvp, in-place change of a captured tensor by a value that has a tangent; pass the "
      "tensor in as an argument, or return the value");
  Tensor d = inner(dst, "assign"), s = inner(src, "assign");
  Under under(parent);
  tutti::assign(d, s);
}

void check_forward_mode(Inputs in, const char* op, const char* instead) {
  const Interpreter* i = thread_state().current;
  if (!i) return;
  Tensors values(in.begin(), in.end());
  for (bool reverse = false; i && !reverse; i = i->parent) {
    const std::string_view transform = i->scope->transform;
    for (Tensor& x : values) {
      if (!x.defined() || !i->mine(x)) continue;
      const Box* b = as_box(x);
      reverse = reverse || (transform == "grad" && i->grad_enabled && depends(*b));
      check<NotImplementedError>(
          transform != "jvp" || !static_cast<const JvpBox*>(b)->tangent.defined(), op,
          "forward mode (jvp) needs the function's jvp rule, which is missing: it has a derivative "
          "for reverse mode only; ",
          instead);
      x = Tensor(b->inner);
    }
  }
}

}  // namespace tutti
