// The ops behind custom_function: records whose meaning is the user's forward and rules.
#include <tutti/autograd/jvp_interpreter.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>
#include <tutti/func/custom_function.h>

namespace tutti::detail {

void fail_custom_leaves(const char* rule, const char* what, std::size_t expected, std::size_t got) {
  fail<ValueError>("custom_function", "the ", rule, " rule must return ", expected, " ", what,
                   " (tensors, undefined for zero), got ", got);
}

namespace {

CustomCall& call_of(const Attrs& a) {
  return *static_cast<CustomCall*>(const_cast<void*>(a.closure.get()));
}
Tensors list(Inputs in) { return Tensors(in.begin(), in.end()); }

Tensors forward(Inputs in, const Attrs& a) { return call_of(a).forward(list(in)); }

// What the rule calls its output: the op's outputs without the residuals.
Tensors outputs(const CustomCall& call, Inputs out) {
  return Tensors(out.begin(), out.begin() + call.outputs);
}
Tensors residuals(const CustomCall& call, Inputs in, Inputs out) {
  Tensors r;
  for (const CustomCall::Place& p : call.residuals)
    r.push_back(p.kind == CustomCall::Place::input ? in[p.at] : out[p.at]);
  return r;
}

Tensors checked_jvp(CustomCall& call, const Tensors& in, const Tensors& out, const Tensors& t) {
  Tensors r = call.jvp(in, out, t);
  for (std::size_t k = 0; k < r.size(); ++k)
    check<ShapeError>(!r[k].defined() || r[k].sizes() == out[k].sizes(), "custom_function",
                      "the jvp rule must return a tangent of shape ", out[k].sizes(),
                      " for output ", k, ", got ", r[k].defined() ? r[k].sizes() : out[k].sizes());
  return r;
}

// Reverse mode from the jvp rule, which is linear in the tangents.
Tensors transposed_jvp(CustomCall& call, const Tensors& in, const Tensors& out, const Tensors& g,
                       Needs needs) {
  Tensors tangents, cotangents;
  std::vector<bool> wanted;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const bool floating = in[i].defined() && is_floating(in[i].dtype());
    tangents.push_back(floating ? zeros_like(in[i]) : Tensor());
    wanted.push_back(floating && needs[i]);
  }
  std::vector<std::size_t> which;
  auto rule = [&](const Tensors& t) {
    Tensors r;
    Tensors all = checked_jvp(call, in, out, t);
    which.clear();
    for (std::size_t k = 0; k < all.size(); ++k)
      if (all[k].defined() && is_floating(all[k].dtype())) {
        r.push_back(all[k]);
        which.push_back(k);
      }
    return r;
  };
  auto pull = vjp(ListFn(rule), tangents, wanted, ~std::size_t{0}, "custom_function").second;
  for (std::size_t k : which) cotangents.push_back(g[k]);
  Tensors found = pull(cotangents), r;
  std::size_t at = 0;
  for (std::size_t i = 0; i < in.size(); ++i) r.push_back(wanted[i] ? found[at++] : Tensor());
  return r;
}

Tensors custom_vjp(const Call& c, Inputs g, Needs needs) {
  CustomCall& call = call_of(c.attrs);
  const Tensors in = list(c.in), out = outputs(call, c.out);
  Tensors cotangents;
  bool from_residuals = false;
  for (std::size_t k = 0; k < g.size(); ++k) {
    if (k < call.outputs)
      cotangents.push_back(g[k].defined() || !is_floating(c.out[k].dtype()) ? g[k]
                                                                            : zeros_like(c.out[k]));
    else
      from_residuals = from_residuals || g[k].defined();
  }
  Tensors r = call.has_vjp ? call.vjp(in, out, residuals(call, c.in, c.out), cotangents)
                           : transposed_jvp(call, in, out, cotangents, needs);
  if (!from_residuals) return r;
  // A higher derivative: the residuals, which the rule was given, are differentiated as what they
  // are, results of forward's ops.
  std::vector<bool> wanted;
  for (std::size_t i = 0; i < in.size(); ++i)
    wanted.push_back(in[i].defined() && is_floating(in[i].dtype()) && needs[i]);
  Tensors seeds;
  for (std::size_t k = call.outputs; k < g.size(); ++k)
    if (is_floating(c.out[k].dtype())) seeds.push_back(g[k]);
  auto extra = [&](const Tensors& x) {
    Tensors all = call.forward(x), kept;
    for (std::size_t k = call.outputs; k < all.size(); ++k)
      if (is_floating(all[k].dtype())) kept.push_back(all[k]);
    return kept;
  };
  Tensors more = vjp(ListFn(extra), in, wanted, ~std::size_t{0}, "custom_function").second(seeds);
  std::size_t at = 0;
  for (std::size_t i = 0; i < in.size(); ++i)
    if (wanted[i]) r[i] = forms::add_grads(r[i], more[at++]);
  return r;
}

// Tangents of the op's outputs from number `first` on, by the ops of forward.
Tensors jvp_of_forward(CustomCall& call, Inputs in, Inputs t, std::size_t first) {
  auto f = [&](const Tensors& x) {
    Tensors all = call.forward(x);
    return Tensors(all.begin() + first, all.end());
  };
  Tensors r;
  for (const Tensor& x : jvp(ListFn(f), list(in), list(t)).second)
    r.push_back(is_floating(x.dtype()) ? x : Tensor());
  return r;
}

Tensors custom_jvp(const Call& c, Inputs t) {
  CustomCall& call = call_of(c.attrs);
  // Only where a reverse mode has used the vjp rule, see check_forward_mode.
  if (!call.has_jvp) return jvp_of_forward(call, c.in, t, 0);
  Tensors tangents;
  for (std::size_t i = 0; i < t.size(); ++i)
    tangents.push_back(t[i].defined() || !c.in[i].defined() || !is_floating(c.in[i].dtype())
                           ? t[i]
                           : zeros_like(c.in[i]));
  Tensors r = checked_jvp(call, list(c.in), outputs(call, c.out), tangents);
  if (c.out.size() > call.outputs)
    for (Tensor& x : jvp_of_forward(call, c.in, t, call.outputs)) r.push_back(x);
  return r;
}

Batched custom_batch(const Op&, Inputs in, const Attrs& a, Axes axes, std::int64_t size) {
  std::vector<Axis> in_axes;
  for (int axis : axes) in_axes.push_back(axis < 0 ? Axis() : Axis(axis));
  CustomCall& call = call_of(a);
  auto [out, out_axes] = call.batch(size, list(in), in_axes);
  Batched r;
  for (std::size_t k = 0; k < out.size(); ++k) {
    int axis = -1;
    if (out_axes[k]) {
      check<ValueError>(out[k].defined(), "custom_function",
                        "the vmap rule returned an undefined tensor");
      const std::int64_t rank = out[k].dim();
      check<IndexError>(*out_axes[k] >= -rank && *out_axes[k] < rank, "custom_function",
                        "the vmap rule gives axis ", *out_axes[k], " for output ", k, " of shape ",
                        out[k].sizes());
      axis = static_cast<int>(*out_axes[k] < 0 ? *out_axes[k] + rank : *out_axes[k]);
      check<ShapeError>(out[k].size(axis) == size, "custom_function", "axis ", axis, " of output ",
                        k, " of the vmap rule must have size ", size, ", the number of examples; ",
                        "its shape is ", out[k].sizes());
    }
    r.values.push_back(out[k]);
    r.axes.push_back(axis);
  }
  call.outputs = out.size();
  return r;
}

void no_shape(Inputs, const Attrs&, Metas&) {}

constinit const Op differentiable_op = forms::complete({
    .name = "custom_function",
    .shape = no_shape,
    .vjp = custom_vjp,
    .jvp = custom_jvp,
    .expand = forward,
    .saves = saves::inputs | saves::outputs,
});
constinit const Op batched_op = forms::complete({
    .name = "custom_function",
    .shape = no_shape,
    .batch = custom_batch,
    .expand = forward,
});
constinit const Op differentiable_batched_op = forms::complete({
    .name = "custom_function",
    .shape = no_shape,
    .vjp = custom_vjp,
    .jvp = custom_jvp,
    .batch = custom_batch,
    .expand = forward,
    .saves = saves::inputs | saves::outputs,
});

}  // namespace

Tensors CustomCall::outputs_of_op(const Tensors& in, Tensors out, const Tensors& residual) {
  // An input handed on unchanged is a new value with its own history.
  for (std::size_t k = 0; k < out.size(); ++k) {
    check<ValueError>(out[k].defined(), "custom_function",
                      "forward returned an undefined tensor as output ", k);
    for (const Tensor& x : in)
      if (out[k].is_same(x)) out[k] = clone(out[k]);
  }
  outputs = out.size();
  residuals.clear();
  for (const Tensor& x : residual) {
    check<ValueError>(x.defined(), "custom_function", "forward returned an undefined residual");
    Place p{Place::extra, out.size()};
    for (std::size_t i = 0; i < in.size(); ++i)
      if (in[i].defined() && x.is_same(in[i])) p = {Place::input, i};
    for (std::size_t k = 0; k < out.size() && p.kind == Place::extra; ++k)
      if (x.is_same(out[k])) p = {Place::output, k};
    if (p.kind == Place::extra) out.push_back(x);
    residuals.push_back(p);
  }
  return out;
}

bool records(const Tensors& in) {
  const ThreadState& s = thread_state();
  for (const Interpreter* i = s.current; i; i = i->parent)
    if (i->grad_enabled && std::string_view(i->scope->transform) == "grad") return true;
  if (!s.grad_mode) return false;
  for (Tensor x : in) {
    while (const Box* b = as_box(x)) x = Tensor(b->inner);
    if (x.defined() && x.requires_grad()) return true;
  }
  return false;
}

Tensors apply_custom(std::shared_ptr<CustomCall> call, const Tensors& in) {
  const bool differentiable = call->has_vjp || call->has_jvp;
  const Op& op = !differentiable                            ? batched_op
                 : call->has_batch && !call->keep_residuals ? differentiable_batched_op
                                                            : differentiable_op;
  const CustomCall& c = *call;
  if (c.has_vjp && !c.has_jvp)
    check_forward_mode(Inputs(in.data(), in.size()), "custom_function",
                       "add one with .jvp(rule), or differentiate in reverse mode");
  Attrs a;
  a.closure = std::move(call);
  Tensors out = run(op, Inputs(in.data(), in.size()), a);
  return Tensors(out.begin(), out.begin() + c.outputs);
}

}  // namespace tutti::detail
