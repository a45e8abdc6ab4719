// Optimizers: the bookkeeping; the arithmetic is in core/kernels/optim.cpp.
#include <algorithm>
#include <optional>
#include <set>

#include <tutti/autograd/autograd.h>
#include <tutti/core/cuda.h>
#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/copy.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/optim.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>
#include <tutti/nn/optim.h>

namespace tutti::optim {
namespace {

void check_not_negative(double v, const char* op, const char* what) {
  check<ValueError>(v >= 0, op, "expected ", what, " >= 0, got ", v, "; choose another one");
}

void check_adam(const OptimizerOptions& o, Betas betas, double eps, double weight_decay,
                const char* op) {
  check_not_negative(o.get_lr(), op, "lr");
  check_not_negative(eps, op, "eps");
  check_not_negative(weight_decay, op, "weight_decay");
  for (double b : {std::get<0>(betas), std::get<1>(betas)})
    check<ValueError>(b >= 0 && b < 1, op, "expected betas in [0, 1), got ", b,
                      "; 0.9 and 0.999 are usual");
}

std::string listed(const std::vector<std::string>& names) {
  std::string s;
  for (const std::string& n : names) s += (s.empty() ? "\"" : ", \"") + n + "\"";
  return s;
}

/// float32 or float64, whichever a parameter is updated in.
DType work_dtype(DType t) { return t == kFloat64 ? kFloat64 : kFloat32; }

template <class T>
T* data(const Tensor& t) {
  return static_cast<T*>(t.raw());
}

/// The kernels of one step: for both dtypes, on the CPU and on a GPU.
template <template <class> class Chunk>
struct StepKernels {
  void (*cpu32)(std::span<const Chunk<float>>);
  void (*cpu64)(std::span<const Chunk<double>>);
  void (*cuda32)(std::span<const Chunk<float>>);
  void (*cuda64)(std::span<const Chunk<double>>);
};
#define TUTTI_STEP(name)                                                     \
  {                                                                          \
    kernels::name<float>, kernels::name<double>, TUTTI_ON_CUDA(name<float>), \
        TUTTI_ON_CUDA(name<double>)                                          \
  }

/// Calls make<T>(update) on all updates (of one device) of dtype T, collects the chunks, and runs
/// the kernel on them, for both dtypes.
template <template <class> class Chunk, class Updates, class Make>
void launch(const Updates& updates, const StepKernels<Chunk>& kernels, Make make) {
  if (updates.empty()) return;
  const bool on_cpu = updates[0].param.is_cpu();
  SmallVec<Chunk<float>, 1> chunks32;
  SmallVec<Chunk<double>, 1> chunks64;
  for (const auto& u : updates) {
    if (u.param.dtype() == kFloat64)
      chunks64.push_back(make.template operator()<double>(u));
    else
      chunks32.push_back(make.template operator()<float>(u));
  }
  std::optional<cuda::CUDAGuard> guard;
  if (!on_cpu) guard.emplace(updates[0].param.device());
  if (!chunks32.empty())
    (on_cpu ? kernels.cpu32 : kernels.cuda32)({chunks32.data(), chunks32.size()});
  if (!chunks64.empty())
    (on_cpu ? kernels.cpu64 : kernels.cuda64)({chunks64.data(), chunks64.size()});
}

}  // namespace

// ---- options

void SGDOptions::validate() const {
  check_not_negative(lr(), "SGD", "lr");
  check_not_negative(momentum(), "SGD", "momentum");
  check_not_negative(weight_decay(), "SGD", "weight_decay");
  check<ValueError>(!nesterov() || (momentum() > 0 && dampening() == 0), "SGD",
                    "expected a momentum and no dampening for nesterov, got momentum ", momentum(),
                    " and dampening ", dampening(), "; set momentum");
}
void AdamOptions::validate() const { check_adam(*this, betas(), eps(), weight_decay(), "Adam"); }
void AdamWOptions::validate() const { check_adam(*this, betas(), eps(), weight_decay(), "AdamW"); }
void RMSpropOptions::validate() const {
  check_not_negative(lr(), "RMSprop", "lr");
  check_not_negative(alpha(), "RMSprop", "alpha");
  check_not_negative(eps(), "RMSprop", "eps");
  check_not_negative(weight_decay(), "RMSprop", "weight_decay");
  check_not_negative(momentum(), "RMSprop", "momentum");
}
void AdagradOptions::validate() const {
  check_not_negative(lr(), "Adagrad", "lr");
  check_not_negative(lr_decay(), "Adagrad", "lr_decay");
  check_not_negative(weight_decay(), "Adagrad", "weight_decay");
  check_not_negative(initial_accumulator_value(), "Adagrad", "initial_accumulator_value");
  check_not_negative(eps(), "Adagrad", "eps");
}

// ---- groups

OptimizerParamGroup::OptimizerParamGroup(std::vector<Tensor> params,
                                         std::unique_ptr<OptimizerOptions> options)
    : params_(std::move(params)), options_(std::move(options)) {}

OptimizerParamGroup::OptimizerParamGroup(const TensorDict& params,
                                         std::unique_ptr<OptimizerOptions> options)
    : params_(params.values()), names_(params.keys()), options_(std::move(options)) {}

OptimizerParamGroup::OptimizerParamGroup(const OptimizerParamGroup& o)
    : params_(o.params_), names_(o.names_), options_(o.options_ ? o.options_->clone() : nullptr) {}

OptimizerParamGroup& OptimizerParamGroup::operator=(OptimizerParamGroup o) noexcept {
  params_.swap(o.params_);
  names_.swap(o.names_);
  options_.swap(o.options_);
  return *this;
}

// ---- Optimizer

Optimizer::Optimizer(std::vector<OptimizerParamGroup> groups,
                     std::unique_ptr<OptimizerOptions> defaults)
    : defaults_(std::move(defaults)) {
  defaults_->validate();
  check<ValueError>(!groups.empty(), "optimizer",
                    "expected at least one parameter, got none; give parameters()");
  for (OptimizerParamGroup& g : groups) add_param_group(std::move(g));
}

void Optimizer::add_param_group(OptimizerParamGroup group) {
  const char* op = "optimizer";
  if (!group.has_options()) group.set_options(defaults_->clone());
  group.options().validate();
  check<ValueError>(!group.params().empty(), op,
                    "expected at least one parameter, got none; give parameters()");
  std::set<const TensorImpl*> known;
  std::set<std::string> names;
  for (const Entry& e : entries_) {
    known.insert(e.param.impl());
    names.insert(e.name);
  }
  std::vector<Entry> added;
  for (std::size_t i = 0; i < group.params().size(); ++i) {
    const Tensor param = resolved(group.params()[i]);
    const std::string name =
        group.names().empty() ? std::to_string(entries_.size() + i) : group.names()[i];
    check<ValueError>(param.defined(), op,
                      "expected defined parameters, got an undefined one for \"", name,
                      "\"; leave it out");
    check<TransformError>(!as_box(param), op, "parameter \"", name,
                          "\" belongs to a transform; make the optimizer outside of it");
    check<TypeError>(param.is_floating_point(), op, "expected floating parameters, got ",
                     param.dtype(), " for \"", name, "\"; leave it out");
    check<ValueError>(param.is_leaf(), op, "parameter \"", name,
                      "\" is not a leaf; detach() it first");
    check<ValueError>(known.insert(param.impl()).second, op, "parameter \"", name,
                      "\" is already in this optimizer; give it once");
    check<ValueError>(names.insert(name).second, op,
                      "expected different names, got two parameters named \"", name,
                      "\"; rename one");
    added.push_back({param, name, groups_.size(), {}});
  }
  named_ = named_ && !group.names().empty();
  for (Entry& e : added) entries_.push_back(std::move(e));
  groups_.push_back(std::move(group));
}

std::vector<Tensor> Optimizer::parameters() const {
  std::vector<Tensor> all;
  for (const Entry& e : entries_) all.push_back(e.param);
  return all;
}

OptimizerOptions& Optimizer::group_options(std::size_t group) {
  check<IndexError>(group < groups_.size(), "options", "expected a group below ", groups_.size(),
                    ", got ", group, "; count from 0");
  return groups_[group].options();
}

void Optimizer::check_outside(const char* op) {
  const Interpreter* now = thread_state().current;                       // null: no transform
  const bool recorded = now && !now->parent && thread_state().host_log;  // by func::compile
  check<TransformError>(!now || recorded, op, "an optimizer cannot be used inside ",
                        now ? now->scope->transform : "",
                        "; return the gradients from the transformed function and call "
                        "step(grads) outside of it");
}

Tensor Optimizer::step(const LossClosure& closure) {
  check_outside("step");
  Tensor loss;
  if (closure) {
    AutoGradMode on(true);
    loss = closure();
  }
  std::vector<Tensor> grads;
  for (const Entry& e : entries_) grads.push_back(e.param.grad());
  apply(grads, "step");
  return loss;
}

void Optimizer::step(const TensorDict& grads) {
  check_outside("step");
  if (!named_) return step(grads.values());
  std::vector<std::string> missing, unknown;
  std::vector<Tensor> in_order;
  std::set<std::string> names;
  for (const Entry& e : entries_) {
    names.insert(e.name);
    if (grads.contains(e.name))
      in_order.push_back(grads.at(e.name));
    else
      missing.push_back(e.name);
  }
  for (const auto& [name, g] : grads)
    if (!names.contains(name)) unknown.push_back(name);
  check<KeyError>(missing.empty() && unknown.empty(), "step",
                  "expected one gradient per parameter, got", missing.empty() ? "" : " none for ",
                  listed(missing), missing.empty() || unknown.empty() ? "" : ", and",
                  unknown.empty() ? "" : " unknown ", listed(unknown),
                  "; give an undefined Tensor for a parameter that should stay as it is");
  apply(in_order, "step");
}

void Optimizer::step(const std::vector<Tensor>& grads) {
  check_outside("step");
  check<ValueError>(grads.size() == entries_.size(), "step", "expected ", entries_.size(),
                    " gradients, one per parameter, got ", grads.size(),
                    "; give an undefined Tensor for a parameter that should stay as it is");
  apply(grads, "step");
}

void Optimizer::apply(const std::vector<Tensor>& grads, const char* op) {
  NoGradGuard guard;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (!grads[i].defined()) continue;
    const Entry& e = entries_[i];
    const Tensor& g = grads[i];
    check<TransformError>(!as_box(g) || thread_state().host_log, op, "the gradient of \"", e.name,
                          "\" belongs to a transform; return it from the transformed function");
    check<ShapeError>(g.sizes() == e.param.sizes(), op, "expected a gradient of shape ",
                      e.param.sizes(), " for \"", e.name, "\", got ", g.sizes(),
                      "; give the gradients in the parameters' order");
    check<TypeError>(g.dtype() == e.param.dtype(), op, "expected a gradient of dtype ",
                     e.param.dtype(), " for \"", e.name, "\", got ", g.dtype(),
                     "; convert with to()");
    check<DeviceError>(g.device() == e.param.device() && !g.is_meta(), op,
                       "expected parameter and gradient on one device for \"", e.name, "\", got ",
                       e.param.device(), " and ", g.device(), "; move one with to()");
  }
  if (thread_state().host_log) {
    for (std::size_t i = 0; i < entries_.size(); ++i)
      if (grads[i].defined()) record(i, grads[i]);
    return;
  }
  std::vector<Update> updates;
  std::vector<Entry*> stepping;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (!grads[i].defined()) continue;
    Entry& e = entries_[i];
    const DType t = work_dtype(e.param.dtype());
    Tensor param = e.param.detach().to(t).contiguous();
    Tensor grad = grads[i].detach().to(t).contiguous();
    if (grad.impl()->storage == param.impl()->storage) grad = grad.clone();
    prepare_state(e, t);
    updates.push_back({std::move(param), std::move(grad), e.state.tensors, ++e.state.step,
                       e.state.filled, &groups_[e.group].options()});
    stepping.push_back(&e);
  }
  for (std::size_t i = 0, n = 0; i < updates.size(); i += n) {  // what is on one device at once
    const auto elsewhere = [&](const Update& u) {
      return !(u.param.device() == updates[i].param.device());
    };
    const auto from = updates.begin() + static_cast<std::ptrdiff_t>(i);
    n = static_cast<std::size_t>(std::find_if(from, updates.end(), elsewhere) - from);
    update({updates.data() + i, n});
  }
  for (std::size_t i = 0; i < updates.size(); ++i) {
    Entry& e = *stepping[i];
    e.state.filled |= state_used(*updates[i].options);
    TensorImpl& target = *e.param.impl();
    if (updates[i].param.raw() != target.data())
      e.param.copy_(updates[i].param);
    else
      target.storage->bump();
  }
}

std::uint32_t Optimizer::prepare_state(Entry& e, DType t) {
  const OptimizerOptions& options = groups_[e.group].options();
  const std::uint32_t used = state_used(options);
  std::vector<Tensor>& all = e.state.tensors;
  for (std::size_t i = 0; i < 32; ++i) {
    if (!(used >> i & 1)) continue;
    if (all.size() <= i) all.resize(i + 1);
    if (!all[i].defined())
      all[i] =
          full(e.param.sizes(), initial_state(options), TensorOptions(t).device(e.param.device()));
    else if (all[i].dtype() != t)
      all[i] = all[i].to(t);
  }
  return used;
}

// A step inside func::compile: one op per parameter, in = {param, grad, state...}, out = {param,
// state...} without the state that is not used. What differs from call to call is filled in before
// each run.
struct Optimizer::RecordedStep {
  Optimizer* optimizer;
  std::size_t entry;
  std::int64_t step = 0;
  std::uint32_t filled = 0;
  const OptimizerOptions* options = nullptr;

  static void shape(Inputs in, const Attrs&, Metas& out) {
    for (std::size_t i = 0; i < in.size(); ++i)
      if (i != 1 && in[i].defined())
        out.push_back({in[i].sizes().shape(), in[i].dtype(), in[i].device()});
  }
  static void run(Inputs in, Inputs out, const Attrs& a) {
    const auto& s = *static_cast<const RecordedStep*>(a.closure.get());
    Tensors state;
    std::size_t k = 0;
    const auto place = [&](const Tensor& x) {  // out[k] starts from what x is
      if (out[k].raw() != x.raw()) kernels::copy(out[k], x);
      return out[k++];
    };
    Tensor param = place(in[0]);
    for (const Tensor& x : in.subspan(2)) state.push_back(x.defined() ? place(x) : Tensor());
    const Update u{std::move(param), in[1],    {state.data(), state.size()},
                   s.step,           s.filled, s.options};
    s.optimizer->update({&u, 1});
  }
  static const Op op;
};
constinit const Op Optimizer::RecordedStep::op = forms::complete({.name = "optimizer_step",
                                                                  .shape = shape,
                                                                  .cpu = run,
                                                                  .cuda = run,
                                                                  .batch = forms::batch_pointwise,
                                                                  .elementwise = true,
                                                                  .differentiable = false,
                                                                  .half_by_float = false});

void Optimizer::record(std::size_t entry, const Tensor& gradient) {
  Entry& e = entries_[entry];
  const DType t = work_dtype(e.param.dtype());
  std::uint32_t used = 0;
  {
    Under root(nullptr);  // the state is real
    used = prepare_state(e, t);
  }
  auto step = std::make_shared<RecordedStep>();
  step->optimizer = this;
  step->entry = entry;
  Attrs a;
  a.closure = step;
  Tensors in{e.param.detach().to(t).contiguous(), gradient.detach().to(t).contiguous()};
  for (std::size_t i = 0; i < e.state.tensors.size(); ++i)
    in.push_back(used >> i & 1 ? e.state.tensors[i] : Tensor());
  const Tensors out = tutti::run(RecordedStep::op, Inputs(in.data(), in.size()), a);
  std::size_t k = 0;
  assign(e.param, out[k++]);
  for (std::size_t i = 0; i < e.state.tensors.size(); ++i)
    if (used >> i & 1) assign(e.state.tensors[i], out[k++]);
  HostLog& log = *thread_state().host_log;
  log.guard([this, here = std::weak_ptr(presence_.token), entry, used, state = e.state.tensors] {
    if (here.expired() || entry >= entries_.size()) return false;
    const Entry& now = entries_[entry];
    if (state_used(groups_[now.group].options()) != used || now.state.tensors.size() < state.size())
      return false;
    for (std::size_t i = 0; i < state.size(); ++i)
      if ((used >> i & 1) && !now.state.tensors[i].is_same(state[i])) return false;
    return true;
  });
  log.each_run(
      [this, step] {
        const Entry& now = entries_[step->entry];
        step->step = now.state.step + 1;
        step->filled = now.state.filled;
        step->options = &groups_[now.group].options();
      },
      [this, step, used] {
        State& s = entries_[step->entry].state;
        ++s.step;
        s.filled |= used;
      });
}

void Optimizer::zero_grad(bool set_to_none) {
  NoGradGuard guard;
  for (const Entry& e : entries_) {
    if (!e.param.grad().defined()) continue;
    if (set_to_none)
      e.param.mutable_grad() = Tensor();
    else
      e.param.mutable_grad() = e.param.grad().detach().zero_();
  }
}

TensorDict Optimizer::state_dict() const {
  TensorDict out;
  const std::vector<std::string> names = state_names();
  for (const Entry& e : entries_) {
    if (e.state.step == 0) continue;
    out.insert(e.name + ".step", scalar_tensor(e.state.step, kInt64));
    for (std::size_t i = 0; i < e.state.tensors.size(); ++i)
      if (e.state.tensors[i].defined())
        out.insert(e.name + "." + names[i], e.state.tensors[i].detach());
  }
  return out;
}

void Optimizer::load_state_dict(const TensorDict& state) {
  const char* op = "load_state_dict";
  check_outside(op);
  NoGradGuard guard;
  const std::vector<std::string> names = state_names();
  std::vector<State> states(entries_.size());
  std::set<std::string> used;
  for (std::size_t n = 0; n < entries_.size(); ++n) {
    const Entry& e = entries_[n];
    State& s = states[n];
    const auto take = [&](const std::string& what) {
      const std::string key = e.name + "." + what;
      if (!state.contains(key)) return Tensor();
      used.insert(key);
      return state.at(key);
    };
    for (std::size_t i = 0; i < names.size(); ++i) {
      const Tensor t = take(names[i]);
      if (!t.defined()) continue;
      check<ShapeError>(t.sizes() == e.param.sizes(), op, "expected shape ", e.param.sizes(),
                        " for \"", e.name, ".", names[i], "\", got ", t.sizes(),
                        "; load the state of an optimizer of the same parameters");
      s.tensors.resize(i + 1);
      s.tensors[i] = t.detach().to(e.param.device()).to(work_dtype(e.param.dtype())).clone();
      s.filled |= std::uint32_t{1} << i;
    }
    if (const Tensor step = take("step"); step.defined())
      s.step = step.item<std::int64_t>();
    else
      check<KeyError>(s.tensors.empty(), op, "\"", e.name,
                      ".step\" is missing; load what state_dict() gave");
  }
  std::vector<std::string> unknown;
  for (const auto& [key, t] : state)
    if (!used.contains(key)) unknown.push_back(key);
  check<KeyError>(unknown.empty(), op, "expected the names that state_dict() gives, got ",
                  listed(unknown), "; make the optimizer of the same parameters");
  for (std::size_t n = 0; n < entries_.size(); ++n) entries_[n].state = std::move(states[n]);
}

// ---- the optimizers

void SGD::update(std::span<const Update> updates) const {
  SmallVec<kernels::SgdArgs, 1> args;
  args.reserve(updates.size());  // chunks point into it
  launch<kernels::SgdChunk>(updates, TUTTI_STEP(sgd), [&]<class T>(const Update& u) {
    const auto& o = dynamic_cast<const SGDOptions&>(*u.options);
    args.push_back({o.lr(), o.momentum(), o.dampening(), o.weight_decay(), o.nesterov()});
    T* buffer = o.momentum() != 0 ? data<T>(u.state[0]) : nullptr;
    return kernels::SgdChunk<T>{data<T>(u.param), data<T>(u.grad), buffer,
                                u.param.numel(),  !(u.filled & 1), &args.back()};
  });
}
std::uint32_t SGD::state_used(const OptimizerOptions& options) const {
  return dynamic_cast<const SGDOptions&>(options).momentum() != 0 ? 1 : 0;
}

namespace {

/// Adam and AdamW: O is AdamOptions or AdamWOptions.
template <class O, class Updates>
void adam_update(const Updates& updates, bool decoupled) {
  SmallVec<kernels::AdamArgs, 1> args;
  args.reserve(updates.size());
  launch<kernels::AdamChunk>(updates, TUTTI_STEP(adam), [&]<class T>(const auto& u) {
    const auto& o = dynamic_cast<const O&>(*u.options);
    const auto [beta1, beta2] = o.betas();
    args.push_back({o.lr(), beta1, beta2, o.eps(), o.weight_decay(), decoupled});
    T* largest = o.amsgrad() ? data<T>(u.state[2]) : nullptr;
    return kernels::AdamChunk<T>{
        data<T>(u.param), data<T>(u.grad), data<T>(u.state[0]), data<T>(u.state[1]), largest,
        u.param.numel(),  u.step,          &args.back()};
  });
}

template <class O>
std::uint32_t adam_state(const OptimizerOptions& options) {
  return dynamic_cast<const O&>(options).amsgrad() ? 7 : 3;
}

}  // namespace

void Adam::update(std::span<const Update> updates) const {
  adam_update<AdamOptions>(updates, false);
}
std::uint32_t Adam::state_used(const OptimizerOptions& options) const {
  return adam_state<AdamOptions>(options);
}

void AdamW::update(std::span<const Update> updates) const {
  adam_update<AdamWOptions>(updates, true);
}
std::uint32_t AdamW::state_used(const OptimizerOptions& options) const {
  return adam_state<AdamWOptions>(options);
}

void RMSprop::update(std::span<const Update> updates) const {
  SmallVec<kernels::RmspropArgs, 1> args;
  args.reserve(updates.size());
  launch<kernels::RmspropChunk>(updates, TUTTI_STEP(rmsprop), [&]<class T>(const Update& u) {
    const auto& o = dynamic_cast<const RMSpropOptions&>(*u.options);
    args.push_back({o.lr(), o.alpha(), o.eps(), o.weight_decay(), o.momentum()});
    return kernels::RmspropChunk<T>{data<T>(u.param),
                                    data<T>(u.grad),
                                    data<T>(u.state[0]),
                                    o.centered() ? data<T>(u.state[1]) : nullptr,
                                    o.momentum() > 0 ? data<T>(u.state[2]) : nullptr,
                                    u.param.numel(),
                                    &args.back()};
  });
}
std::uint32_t RMSprop::state_used(const OptimizerOptions& options) const {
  const auto& o = dynamic_cast<const RMSpropOptions&>(options);
  return 1u | (o.centered() ? 2u : 0u) | (o.momentum() > 0 ? 4u : 0u);
}

void Adagrad::update(std::span<const Update> updates) const {
  SmallVec<kernels::AdagradArgs, 1> args;
  args.reserve(updates.size());
  launch<kernels::AdagradChunk>(updates, TUTTI_STEP(adagrad), [&]<class T>(const Update& u) {
    const auto& o = dynamic_cast<const AdagradOptions&>(*u.options);
    args.push_back({o.lr(), o.lr_decay(), o.eps(), o.weight_decay()});
    return kernels::AdagradChunk<T>{data<T>(u.param), data<T>(u.grad), data<T>(u.state[0]),
                                    u.param.numel(),  u.step,          &args.back()};
  });
}
std::uint32_t Adagrad::state_used(const OptimizerOptions&) const { return 1; }
double Adagrad::initial_state(const OptimizerOptions& options) const {
  return dynamic_cast<const AdagradOptions&>(options).initial_accumulator_value();
}

#undef TUTTI_STEP

}  // namespace tutti::optim
