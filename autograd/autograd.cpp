// Base autograd: records on dense tensors, the Tensor members that deal with gradients, backward()
// and grad().
#include <algorithm>

#include <tutti/autograd/autograd.h>
#include <tutti/autograd/grad_interpreter.h>
#include <tutti/autograd/node.h>

namespace tutti {

void Record::record(const Op& op, Inputs in, Inputs out, const Attrs& attrs) const {
  check<NotImplementedError>(op.vjp != nullptr, op.name,
                             "has no derivative: ", op.reason ? op.reason : "");
  if (std::none_of(out.begin(), out.end(), [](const Tensor& y) { return is_floating(y.dtype()); }))
    return;
  Ptr<Node> n = make_node(op, attrs, in, out, true, "backward");
  for (const Tensor& x : in) {
    if (const Record* r = record_of(x))
      n->add_edge(r->edge);
    else
      n->add_edge();
  }
  for (std::size_t k = 0; k < out.size(); ++k)
    if (is_floating(out[k].dtype()))
      out[k].impl()->grad = std::make_unique<Record>(n, static_cast<std::uint32_t>(k));
}

// ---- grad mode

namespace {
Interpreter* innermost_grad() {
  for (Interpreter* i = thread_state().current; i; i = i->parent)
    if (std::string_view(i->scope->transform) == "grad") return i;
  return nullptr;
}
}  // namespace

bool is_grad_enabled() {
  Interpreter* g = innermost_grad();
  return g ? g->grad_enabled : thread_state().grad_mode;
}

AutoGradMode::AutoGradMode(bool enabled) : base_(thread_state().grad_mode) {
  thread_state().grad_mode = enabled;
  for (Interpreter* i = thread_state().current; i; i = i->parent) {
    saved_.emplace_back(i, i->grad_enabled);
    i->grad_enabled = enabled;
  }
}
AutoGradMode::~AutoGradMode() {
  thread_state().grad_mode = base_;
  for (auto& [i, on] : saved_) i->grad_enabled = on;
}

// ---- Tensor members

namespace {
bool is_grad_box(const Box& b) { return std::string_view(b.scope->transform) == "grad"; }
TensorImpl& dense_for(const Tensor& x, const char* op, const char* instead) {
  check<ValueError>(x.defined(), op,
                    "expected a defined tensor, got an undefined one; assign it a value first");
  if (const Box* b = as_box(x)) {
    Interpreter::check_live(x, op);
    fail<TransformError>(op, "cannot be used inside ", b->scope->transform, "; ", instead);
  }
  eval_refresh(x);
  return *x.impl();
}
const Record* need_record(const Tensor& x, const char* op) {
  TensorImpl& i = dense_for(x, op, "use func::grad_and_value or func::vjp");
  check<AutogradError>(i.grad != nullptr, op,
                       "expected a tensor with history, got one that does not require grad; call "
                       "requires_grad_() on the leaves");
  return static_cast<const Record*>(i.grad.get());
}
Node::Extras& extras(Node& n) {
  if (!n.extras) n.extras = std::make_unique<Node::Extras>();
  return *n.extras;
}
Tensor& grad_cell(const Tensor& x) {
  static thread_local Tensor none;
  none.reset();
  const Record* r = x.defined() ? record_of(x) : nullptr;
  if (!r) return none;
  if (r->leaf()) return r->edge.node->grad;
  if (r->edge.node->extras)
    for (auto& [k, g] : r->edge.node->extras->retained)
      if (k == r->edge.output) return g;
  return none;
}
}  // namespace

bool Tensor::requires_grad() const {
  check<ValueError>(defined(), "requires_grad",
                    "expected a defined tensor, got an undefined one; assign it a value first");
  if (const Box* b = as_box(*this)) return is_grad_box(*b) && depends(*b);
  eval_refresh(*this);
  return impl()->grad != nullptr;
}

Tensor& Tensor::requires_grad_(bool on) const {
  TensorImpl& i = dense_for(*this, "requires_grad_",
                            "differentiate with func::grad instead, or call it outside");
  Tensor& self = const_cast<Tensor&>(*this);
  if (on == (i.grad != nullptr)) return self;
  if (on) {
    check<TypeError>(is_floating(i.dtype), "requires_grad_",
                     "expected a floating tensor, since only those have gradients, got ", i.dtype,
                     "; convert with to(kFloat32)");
    i.grad = std::make_unique<Record>(make_ref<Node>(), 0);
  } else {
    check<AutogradError>(i.grad->leaf(), "requires_grad_",
                         "expected a leaf, got a result with history; use detach()");
    i.grad = nullptr;
  }
  record_changed(self);
  return self;
}

bool Tensor::is_leaf() const {
  check<ValueError>(defined(), "is_leaf",
                    "expected a defined tensor, got an undefined one; assign it a value first");
  if (const Box* b = as_box(*this)) return !is_grad_box(*b) || !depends(*b) || is_argument(*b);
  eval_refresh(*this);
  return !impl()->grad || impl()->grad->leaf();
}

const Tensor& Tensor::grad() const { return grad_cell(*this); }
Tensor& Tensor::mutable_grad() const {
  check<AutogradError>(
      defined() && record_of(*this), "mutable_grad",
      "expected a tensor that requires grad, got one that does not; call requires_grad_()");
  if (!is_leaf()) retain_grad();
  return grad_cell(*this);
}

void Tensor::retain_grad() const {
  const Record* r = need_record(*this, "retain_grad");
  if (r->leaf()) return;
  auto& kept = extras(*r->edge.node).retained;
  for (auto& [k, g] : kept)
    if (k == r->edge.output) return;
  kept.emplace_back(r->edge.output, Tensor());
}

std::size_t Tensor::register_hook(std::function<Tensor(const Tensor&)> hook) const {
  const Record* r = need_record(*this, "register_hook");
  auto& hooks = extras(*r->edge.node).hooks;
  hooks.emplace_back(r->edge.output, std::move(hook));
  return hooks.size() - 1;
}

void Tensor::remove_hook(std::size_t hook) const {
  const Record* r = need_record(*this, "remove_hook");
  auto& hooks = extras(*r->edge.node).hooks;
  check<IndexError>(hook < hooks.size() && hooks[hook].first == r->edge.output, "remove_hook",
                    "expected what register_hook() of this tensor returned, got ", hook,
                    "; keep it to remove the hook");
  hooks[hook].second = nullptr;
}

Tensor& Tensor::detach_() const {
  TensorImpl& i = dense_for(*this, "detach_", "use detach()");
  i.grad = nullptr;
  i.view = nullptr;
  record_changed(*this);
  return const_cast<Tensor&>(*this);
}

void Tensor::backward(const Tensor& gradient, std::optional<bool> retain_graph,
                      bool create_graph) const {
  autograd::backward({*this},
                     gradient.defined() ? std::vector<Tensor>{gradient} : std::vector<Tensor>(),
                     retain_graph, create_graph);
}

TensorOptions TensorOptions::requires_grad(bool on) const {
  TensorOptions o = *this;
  o.mark_ = on ? +[](Tensor& t) { t.requires_grad_(); } : nullptr;
  return o;
}

// ---- backward and grad

namespace autograd {
namespace {

std::vector<Tensor> run(TensorList outputs, TensorList grad_outputs, std::optional<bool> retain,
                        bool create_graph, const std::vector<Edge>* wanted, const char* op) {
  check<TransformError>(
      !thread_state().current, op,
      "cannot be called inside a transform; use func::grad_and_value or func::vjp");
  check<ValueError>(grad_outputs.empty() || grad_outputs.size() == outputs.size(), op, "expected ",
                    outputs.size(), " gradients of the outputs, got ", grad_outputs.size(),
                    "; give one per output, undefined for ones");
  std::vector<Edge> roots;
  std::vector<Tensor> seeds;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const Tensor& y = outputs[i];
    roots.push_back(need_record(y, op)->edge);
    Tensor g = grad_outputs.empty() ? Tensor() : grad_outputs[i];
    if (!g.defined()) {
      check<AutogradError>(y.numel() == 1, op, "expected an output with one element, got shape ",
                           y.sizes(), "; reduce it, or give a gradient of that shape");
      g = ones_like(y);
    }
    check<ShapeError>(g.sizes() == y.sizes(), op, "expected a gradient of shape ", y.sizes(),
                      ", got ", g.sizes(), "; give one like the output");
    check<DeviceError>(g.device() == y.device(), op, "expected a gradient on ", y.device(),
                       ", got one on ", g.device(), "; convert it with to()");
    seeds.push_back(resolved(g.dtype() == y.dtype() ? g : g.to(y.dtype())));
  }
  AutoGradMode mode(create_graph);
  BackwardOptions o;
  o.accumulate = !wanted;
  o.keep = retain.value_or(create_graph);
  o.base = true;
  o.wanted = wanted;
  return tutti::backward(roots, seeds, o);
}

}  // namespace

void backward(TensorList outputs, TensorList grad_outputs, std::optional<bool> retain_graph,
              bool create_graph) {
  run(outputs, grad_outputs, retain_graph, create_graph, nullptr, "backward");
}

std::vector<Tensor> grad(TensorList outputs, TensorList inputs, TensorList grad_outputs,
                         std::optional<bool> retain_graph, bool create_graph, bool allow_unused) {
  std::vector<Edge> wanted;
  for (const Tensor& x : inputs) wanted.push_back(need_record(x, "autograd::grad")->edge);
  std::vector<Tensor> r =
      run(outputs, grad_outputs, retain_graph, create_graph, &wanted, "autograd::grad");
  for (std::size_t i = 0; i < r.size(); ++i)
    check<AutogradError>(allow_unused || r[i].defined(), "autograd::grad",
                         "expected inputs that the outputs depend on, got input ", i,
                         ", which was not used; pass allow_unused = true to get an "
                         "undefined gradient");
  return r;
}

}  // namespace autograd
}  // namespace tutti
