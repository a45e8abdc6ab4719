// autograd::Function: an op whose meaning is the user's forward and whose vjp is the user's
// backward.
#include <tutti/autograd/autograd.h>
#include <tutti/autograd/node.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/tensor_impl.h>

namespace tutti::autograd {

namespace {

FunctionCall& call_of(const Attrs& a) {
  return *static_cast<FunctionCall*>(const_cast<void*>(a.closure.get()));
}

constinit const Op function_op = forms::complete({
    .name = "autograd::Function",
    .shape = [](Inputs, const Attrs&, Metas&) {},
    .vjp = [](const Call& c, Inputs g, Needs) { return call_of(c.attrs).run_backward(c, g); },
    .jvp = transpose_vjp,
    .expand = [](Inputs in, const Attrs& a) { return call_of(a).run_forward(in); },
    .saves = saves::inputs | saves::outputs,
});

}  // namespace

std::vector<Tensor> AutogradContext::get_saved_variables() const {
  std::vector<Tensor> r;
  for (std::size_t i = 0; i < saved_.size(); ++i) {
    const Place& p = places_[i];
    if (call_ && p.kind == Place::input)
      r.push_back(call_->in[p.at]);
    else if (call_ && p.kind == Place::output)
      r.push_back(call_->out[p.at]);
    else {
      check<AutogradError>(!saved_[i].defined() || version_of(saved_[i]) == versions_[i],
                           "autograd::Function",
                           "a tensor given to save_for_backward was changed in place");
      r.push_back(saved_[i]);
    }
  }
  return r;
}

Tensors FunctionCall::run_forward(Inputs in) {
  std::vector<Tensor> out = forward(context, in);
  context.places_.clear();
  context.versions_.clear();
  for (Tensor& s : context.saved_) {
    AutogradContext::Place p;
    for (std::size_t i = 0; i < in.size(); ++i)
      if (s.defined() && s.is_same(in[i])) p = {AutogradContext::Place::input, i};
    for (std::size_t i = 0; i < out.size(); ++i)
      if (s.defined() && s.is_same(out[i])) p = {AutogradContext::Place::output, i};
    context.versions_.push_back(s.defined() ? version_of(s) : 0);
    context.places_.push_back(p);
    // The node keeps inputs and outputs; another handle on an output here would be a cycle.
    if (p.kind != AutogradContext::Place::other) s = {};
  }
  // An input handed on unchanged is a new value with its own history.
  for (Tensor& y : out)
    for (const Tensor& x : in)
      if (y.is_same(x)) y = x.clone();
  return Tensors(out.begin(), out.end());
}

Tensors FunctionCall::run_backward(const Call& c, Inputs g) {
  std::vector<Tensor> grads(g.begin(), g.end());
  for (std::size_t k = 0; k < grads.size(); ++k)
    if (!grads[k].defined()) grads[k] = zeros_like(c.out[k]);
  AutogradContext ctx = context;  // backward may run on several threads
  ctx.call_ = &c;
  std::vector<Tensor> r = backward(ctx, std::move(grads));
  return Tensors(r.begin(), r.end());
}

Tensors apply(std::shared_ptr<FunctionCall> call, Inputs in) {
  Attrs a;
  a.closure = std::move(call);
  return tutti::run(function_op, in, a);
}

}  // namespace tutti::autograd
