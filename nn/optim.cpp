// Optimizers: the bookkeeping; the arithmetic is in core/kernels/optim.cpp.
#include <algorithm>
#include <bit>
#include <list>
#include <optional>
#include <set>
#include <typeinfo>

#include <tutti/autograd/autograd.h>
#include <tutti/core/cuda.h>
#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/ahead.h>
#include <tutti/core/kernels/copy.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/optim.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>
#include <tutti/core/tensor_impl.h>
#include <tutti/nn/optim.h>

namespace tutti::optim {
namespace {

/// Options of type O; std::bad_cast if they are others. dynamic_cast alone costs 150 instructions.
template <class O>
const O& options_as(const OptimizerOptions& options) {
  return typeid(options) == typeid(O) ? static_cast<const O&>(options)
                                      : dynamic_cast<const O&>(options);
}

bool not_negative(double v) { return v >= 0; }
bool positive(double v) { return v > 0; }
bool is_zero(double v) { return v == 0; }
bool below_one(double v) { return v >= 0 && v < 1; }

/// The first value that is not in range, or a value if all are.
template <class InRange>
double first_outside(const HyperParameter& value, InRange in_range) {
  const std::vector<double> all = value.values();
  const auto found = std::find_if_not(all.begin(), all.end(), in_range);
  return found == all.end() ? all[0] : *found;
}

/// ValueError unless all values are in range; `expected` and `advice` are parts of its text.
template <class InRange>
void check_range(const HyperParameter& value, InRange in_range, const char* op,
                 std::initializer_list<const char*> expected, const char* advice) {
  if (value.all(in_range)) [[likely]]
    return;
  std::string text;
  for (const char* part : expected) text += part;
  std::size_t m = 0;
  while (in_range(value[m])) ++m;
  check<ValueError>(value.per_member(), op, text, value[m], advice);
  fail<ValueError>(op, text, value[m], " for member ", m, advice);
}

void check_not_negative(const HyperParameter& value, const char* op, const char* what) {
  check_range(value, not_negative, op, {"expected ", what, " >= 0, got "}, "; choose another one");
}

template <class O>
void check_adam(const O& o, const char* op) {
  check_not_negative(o.lr_values(), op, "lr");
  check_not_negative(o.eps_values(), op, "eps");
  check_not_negative(o.weight_decay_values(), op, "weight_decay");
  const auto [beta1, beta2] = o.betas_values();
  for (const HyperParameter* b : {&beta1, &beta2})
    check_range(*b, below_one, op, {"expected betas in [0, 1), got "}, "; 0.9 and 0.999 are usual");
}

/// Whether a step with this momentum needs a buffer.
bool any_momentum(const HyperParameter& momentum) { return !momentum.all(is_zero); }

/// For how many members there are values; 0 if they share all.
std::size_t members_of(const OptimizerOptions& options) {
  std::size_t n = 0;
  options.each_hyper_parameter(
      [&](const char*, const HyperParameter& v) { n = std::max(n, v.members()); });
  return n;
}

/// Whether there are values for that many members, or shared ones only where it is 0.
bool has_members(const OptimizerOptions& options, std::size_t members) {
  struct {
    std::size_t wanted;
    bool found, other;
  } seen{members, members == 0, false};
  options.each_hyper_parameter([&](const char*, const HyperParameter& v) {  // too small to allocate
    seen.found = seen.found || v.members() == seen.wanted;
    seen.other = seen.other || (v.per_member() && v.members() != seen.wanted);
  });
  return seen.found && !seen.other;
}

/// A tensor of `sizes`, filled with the value, each member's part with its own.
Tensor filled_with(const HyperParameter& value, IntArrayRef sizes, DType dtype, Device device) {
  if (!value.per_member()) return full(sizes, value[0], TensorOptions(dtype).device(device));
  Shape column(sizes.size(), 1);
  column[0] = static_cast<std::int64_t>(value.members());
  return value.tensor().to(dtype).to(device).reshape(column).expand(sizes).contiguous();
}

/// x laid out as `like`, if so asked, or contiguous.
Tensor laid_out(const Tensor& x, const Tensor& like, bool as_like) {
  if (!as_like) return x.contiguous();
  if (x.strides() == like.strides()) return x;
  Tensor y = make_strided(like.sizes(), like.strides(), x.dtype(), x.device());
  kernels::copy(y, x);
  return y;
}

/// Of an update that is not contiguous: parameter and state are laid out alike, and the gradient is
/// brought to a layout that fits theirs.
kernels::Access lines_of(const Tensor& param, Tensor& grad) {
  const auto pitch = [](const Tensor& x, std::size_t axis) {
    return line_pitch(x.sizes(), x.strides(), axis);
  };
  std::size_t axis = static_cast<std::size_t>(param.dim()) - 1;
  std::int64_t step = pitch(param, axis);
  if (step == 0) step = pitch(param, axis = 0);
  std::int64_t grad_step = pitch(grad, axis);
  if (grad_step == 0) {
    grad = laid_out(grad, param, true);
    grad_step = step;
  }
  return {.width = param.sizes()[axis], .pitch = step, .grad_pitch = grad_step};
}
/// The same where the gradient is made in lines along the last axis.
kernels::Access lines_of(const Tensor& param, const kernels::PieceMaker& grad) {
  const std::size_t axis = static_cast<std::size_t>(param.dim()) - 1;
  return {.width = param.sizes()[axis],
          .pitch = line_pitch(param.sizes(), param.strides(), axis),
          .grad = &grad};
}

std::string listed(const std::vector<std::string>& names) {
  std::string s;
  for (const std::string& n : names) s += (s.empty() ? "\"" : ", \"") + n + "\"";
  return s;
}

/// float32 or float64, whichever a parameter is updated in.
DType work_dtype(DType t) { return t == kFloat64 ? kFloat64 : kFloat32; }

/// Null for a gradient that is made in pieces.
template <class T>
T* data(const Tensor& t) {
  return t.defined() ? static_cast<T*>(t.raw()) : nullptr;
}

/// The kernels of one step: for both dtypes, on the CPU and on a GPU.
template <template <class> class Chunk>
struct StepKernels {
  void (*cpu32)(std::span<const Chunk<float>>, const kernels::Access&);
  void (*cpu64)(std::span<const Chunk<double>>, const kernels::Access&);
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
  const kernels::Access access = updates[0].access ? *updates[0].access : kernels::Access();
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
  const auto run = [&](const auto& chunks, auto cpu, auto cuda) {
    if (chunks.empty()) return;
    const std::span all(chunks.data(), chunks.size());
    on_cpu ? cpu(all, access) : cuda(all);
  };
  run(chunks32, kernels.cpu32, kernels.cuda32);
  run(chunks64, kernels.cpu64, kernels.cuda64);
}

}  // namespace

// ---- options

void OptimizerOptions::scale_lr(double factor) {
  check<ValueError>(factor >= 0, "scale_lr", "expected a factor >= 0, got ", factor,
                    "; choose another one");
  set_lrs(get_lrs() * factor);
}

void SGDOptions::validate() const {
  check_not_negative(lr_values(), "SGD", "lr");
  check_not_negative(momentum_values(), "SGD", "momentum");
  check_not_negative(weight_decay_values(), "SGD", "weight_decay");
  const bool fits = momentum_values().all(positive) && dampening_values().all(is_zero);
  if (nesterov() && !fits)
    fail<ValueError>("SGD", "expected a momentum and no dampening for nesterov, got momentum ",
                     first_outside(momentum_values(), positive), " and dampening ",
                     first_outside(dampening_values(), is_zero), "; set momentum");
}
void SGDOptions::each_hyper_parameter(const Visit& visit) const {
  visit("lr", lr_values());
  visit("momentum", momentum_values());
  visit("dampening", dampening_values());
  visit("weight_decay", weight_decay_values());
}

namespace {

template <class O>
void visit_adam(const O& o, const OptimizerOptions::Visit& visit) {
  visit("lr", o.lr_values());
  const auto [beta1, beta2] = o.betas_values();
  visit("betas", beta1);
  visit("betas", beta2);
  visit("eps", o.eps_values());
  visit("weight_decay", o.weight_decay_values());
}

}  // namespace

void AdamOptions::validate() const { check_adam(*this, "Adam"); }
void AdamOptions::each_hyper_parameter(const Visit& visit) const { visit_adam(*this, visit); }
void AdamWOptions::validate() const { check_adam(*this, "AdamW"); }
void AdamWOptions::each_hyper_parameter(const Visit& visit) const { visit_adam(*this, visit); }

void RMSpropOptions::validate() const {
  each_hyper_parameter([](const char* name, const HyperParameter& value) {
    check_not_negative(value, "RMSprop", name);
  });
}
void RMSpropOptions::each_hyper_parameter(const Visit& visit) const {
  visit("lr", lr_values());
  visit("alpha", alpha_values());
  visit("eps", eps_values());
  visit("weight_decay", weight_decay_values());
  visit("momentum", momentum_values());
}

void AdagradOptions::validate() const {
  each_hyper_parameter([](const char* name, const HyperParameter& value) {
    check_not_negative(value, "Adagrad", name);
  });
}
void AdagradOptions::each_hyper_parameter(const Visit& visit) const {
  visit("lr", lr_values());
  visit("lr_decay", lr_decay_values());
  visit("weight_decay", weight_decay_values());
  visit("initial_accumulator_value", initial_accumulator_value_values());
  visit("eps", eps_values());
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
    check_members(group.options(), param, name, op);
    added.push_back({param, name, groups_.size(), {}});
  }
  named_ = named_ && !group.names().empty();
  for (Entry& e : added) entries_.push_back(std::move(e));
  ordered_keys_.reset();
  groups_.push_back(std::move(group));
}

void Optimizer::check_members(const OptimizerOptions& options, const Tensor& param,
                              const std::string& name, const char* op) {
  options.each_hyper_parameter([&](const char* what, const HyperParameter& value) {
    if (!value.per_member()) return;
    check<ShapeError>(param.dim() > 0, op, "expected a number for ", what, ", as \"", name,
                      "\" has no axis of members, got values for ", value.members(),
                      " members; stack the parameters of the members");
    check<ShapeError>(value.members() == static_cast<std::size_t>(param.size(0)), op, "expected ",
                      what, " for ", param.size(0), " members, as many as \"", name, "\" of shape ",
                      param.sizes(), " has along axis 0, got values for ", value.members(),
                      "; give one for each, or a number for all");
  });
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
  if (ordered_keys_ && grads.key_table() == ordered_keys_) return apply(grads.values(), "step");
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
  const auto name_of = [](const Entry& e) -> const std::string& { return e.name; };
  if (std::ranges::equal(entries_, grads.key_table()->names(), {}, name_of))
    ordered_keys_ = grads.key_table();
  apply(in_order, "step");
}

void Optimizer::step(const std::vector<Tensor>& grads) {
  check_outside("step");
  check<ValueError>(grads.size() == entries_.size(), "step", "expected ", entries_.size(),
                    " gradients, one per parameter, got ", grads.size(),
                    "; give an undefined Tensor for a parameter that should stay as it is");
  apply(grads, "step");
}

// The numbers of a step of one group: a row that its members share, or one for each.
struct Optimizer::Numbers {
  std::size_t group, members;  // members: 0 if they share the row
  std::int64_t step;
  Tensor rows;

  /// `o`'s, for another group, number of members or step than before.
  void renew(const Optimizer& o, std::size_t g, std::size_t m, std::int64_t s) {
    if (!rows.defined() || m != members)
      rows = empty({std::max<std::int64_t>(static_cast<std::int64_t>(m), 1),
                    static_cast<std::int64_t>(o.numbers_size())},
                   kFloat64);
    group = g;
    members = m;
    step = s;
    o.numbers(o.groups_[group].options(), step,
              {data<double>(rows), static_cast<std::size_t>(rows.numel())});
  }
};

void Optimizer::apply(const std::vector<Tensor>& grads, const char* op) {
  NoGradGuard guard;
  std::size_t group = groups_.size();  // of the entry before
  SmallVec<std::size_t, 4> members(groups_.size());
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
    const OptimizerOptions& options = groups_[e.group].options();
    if (e.group != group) {
      group = e.group;
      members[group] = members_of(options);
      if (members[group] > 0) options.validate();
    }
    if (members[group] > 0) check_members(options, e.param, e.name, op);
  }
  if (thread_state().host_log) {
    for (std::size_t i = 0; i < entries_.size(); ++i)
      if (grads[i].defined()) record(i, grads[i]);
    return;
  }
  std::vector<Update> updates;
  kernels::Access contiguous;
  contiguous.far = far();
  std::list<kernels::Access> lines;
  std::vector<Entry*> stepping;
  updates.reserve(entries_.size());
  stepping.reserve(entries_.size());
  std::size_t numbers = 0;  // how many of numbers_ belong to this step
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (!grads[i].defined()) continue;
    Entry& e = entries_[i];
    const DType t = work_dtype(e.param.dtype());
    const bool in_lines = works_in_lines(e, t);
    Tensor param = laid_out(e.param.to(t), e.param, in_lines);
    Tensor grad = laid_out(grads[i].to(t), e.param, in_lines);
    // What is a part of a parameter is taken before any parameter changes.
    const auto holds_grad = [&](const Entry& other) {
      return other.param.impl()->storage == grad.impl()->storage;
    };
    if (holds_grad(e) || (grad.is_view() && std::ranges::any_of(entries_, holds_grad)))
      grad = laid_out(grad.clone(), e.param, in_lines);
    prepare_state(e, t, in_lines);
    ++e.state.step;
    std::size_t k = 0;
    while (k < numbers && !(numbers_[k]->group == e.group && numbers_[k]->step == e.state.step))
      ++k;
    if (k == numbers) {
      if (k == numbers_.size()) numbers_.push_back(std::make_shared<Numbers>());
      numbers_[k]->renew(*this, e.group, members[e.group], e.state.step);
      ++numbers;
    }
    updates.push_back({std::move(param), std::move(grad), e.state.tensors, e.state.filled,
                       &groups_[e.group].options(), &numbers_[k]->rows, &contiguous});
    if (in_lines) {
      lines.push_back(lines_of(updates.back().param, updates.back().grad));
      updates.back().access = &lines.back();
    }
    stepping.push_back(&e);
  }
  for (std::size_t i = 0, n = 0; i < updates.size(); i += n) {  // what is on one device at once
    const auto apart = [&](const Update& u) {
      return u.access != updates[i].access || !(u.param.device() == updates[i].param.device());
    };
    const auto from = updates.begin() + static_cast<std::ptrdiff_t>(i);
    n = static_cast<std::size_t>(std::find_if(from + 1, updates.end(), apart) - from);
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

bool Optimizer::far() const {
  std::int64_t bytes = 0;
  for (const Entry& e : entries_)
    bytes += e.param.numel() * size_of(e.param.dtype()) *
             (1 + std::popcount(state_used(groups_[e.group].options())));
  return bytes > kernels::cache_bytes(3) / 4;  // others use it, too
}

bool Optimizer::works_in_lines(const Entry& e, DType t) const {
  return e.param.is_cpu() && e.param.dtype() == t && is_members_last(*e.param.impl()) &&
         members_of(groups_[e.group].options()) == 0;
}

std::uint32_t Optimizer::prepare_state(Entry& e, DType t, bool in_lines) {
  const OptimizerOptions& options = groups_[e.group].options();
  const std::uint32_t used = state_used(options);
  std::vector<Tensor>& all = e.state.tensors;
  for (std::size_t i = 0; i < 32; ++i) {
    if (!(used >> i & 1)) continue;
    if (all.size() <= i) all.resize(i + 1);
    if (!all[i].defined())
      all[i] = filled_with(initial_state(options), e.param.sizes(), t, e.param.device());
    else if (all[i].dtype() != t)
      all[i] = all[i].to(t);
    if (in_lines || !all[i].is_contiguous()) all[i] = laid_out(all[i], e.param, in_lines);
  }
  return used;
}

// Numbers inside func::compile, for parameters of one group that have made as many steps: those of
// the step that comes `ahead` steps after what `entry`, one of them, has made.
struct Optimizer::SharedNumbers {
  std::size_t entry;
  std::int64_t ahead;
  Numbers numbers;
};

// What the steps that are recorded into one program share.
struct Optimizer::Recording {
  const HostLog* log;
  std::vector<std::int64_t> steps;  // recorded so far, by entry
  std::vector<std::shared_ptr<SharedNumbers>> numbers;
};

// A step inside func::compile: one op per parameter, in = {param, grad, numbers, state...}, out =
// {param, state...} without the state that is not used. The numbers are an input, [M, ...], where
// each member has its own and steps run in blocks of members, on the CPU; else they are undefined.
// What differs from call to call is filled in before each run.
struct Optimizer::RecordedStep {
  Optimizer* optimizer;
  std::size_t entry;
  std::shared_ptr<Recording> recording;
  std::shared_ptr<SharedNumbers> shared;
  std::uint32_t filled = 0;
  const OptimizerOptions* options = nullptr;
  bool far = false;

  static constexpr std::size_t kState = 3;  // where it begins
  static void shape(Inputs in, const Attrs&, Metas& out) {
    out.push_back({in[0].sizes().shape(), in[0].dtype(), in[0].device()});
    for (const Tensor& x : in.subspan(kState))
      if (x.defined()) out.push_back({x.sizes().shape(), x.dtype(), x.device()});
  }
  static const RecordedStep& of(const Attrs& a) {
    return *static_cast<const RecordedStep*>(a.closure.get());
  }
  /// The update of one parameter; `state` and `access` hold what it refers to. `made` makes the
  /// gradient if it is not there.
  static Update prepared(const Launch& l, Tensors& state, kernels::Access& access,
                         const kernels::PieceMaker* made = nullptr) {
    const RecordedStep& s = of(*l.attrs);
    std::size_t k = 0;
    const auto place = [&](const Tensor& x) {  // out[k] starts from what x is
      if (l.out[k].raw() != x.raw()) kernels::copy(l.out[k], x);
      return l.out[k++];
    };
    Tensor param = place(l.in[0]);
    for (const Tensor& x : l.in.subspan(kState)) state.push_back(x.defined() ? place(x) : Tensor());
    Tensor grad = l.in[1];
    if (made)
      access = lines_of(param, *made);
    else if (!param.is_contiguous())
      access = lines_of(param, grad);
    access.far = s.far && !(kernels::ahead && kernels::ahead->met());
    const Tensor& numbers = l.in[2].defined() ? l.in[2] : s.shared->numbers.rows;
    return {std::move(param), std::move(grad), {state.data(), state.size()}, s.filled, s.options,
            &numbers,         &access};
  }
  static void run(Inputs in, Inputs out, const Attrs& a) {
    const Launch one{in, out, &a};
    Tensors state;
    kernels::Access access;
    const Update u = prepared(one, state, access);
    of(a).optimizer->update({&u, 1});
  }
  static void run_in_pieces(Inputs in, Inputs out, const Attrs& a,
                            const kernels::PieceMaker& made) {
    const Launch one{in, out, &a};
    Tensors state;
    kernels::Access access;
    const Update u = prepared(one, state, access, &made);
    of(a).optimizer->update({&u, 1});
  }
  /// What belongs to one optimizer is one list for its kernels.
  static void run_together(std::span<const Launch> list) {
    std::vector<Tensors> states(list.size());
    std::vector<kernels::Access> access(list.size());
    for (std::size_t i = 0; i < list.size();) {
      const Optimizer* const optimizer = of(*list[i].attrs).optimizer;
      std::vector<Update> updates;
      for (; i < list.size() && of(*list[i].attrs).optimizer == optimizer; ++i)
        updates.push_back(prepared(list[i], states[i], access[i]));
      optimizer->update(updates);
    }
  }
  static const Op op;
};
constinit const Op Optimizer::RecordedStep::op = forms::complete({.name = "optimizer_step",
                                                                  .shape = shape,
                                                                  .cpu = run,
                                                                  .cpu_in_pieces = run_in_pieces,
                                                                  .cuda = run,
                                                                  .cuda_together = run_together,
                                                                  .batch = forms::batch_pointwise,
                                                                  .elementwise = true,
                                                                  .any_layout = true,
                                                                  .by_rows = 1 << 2,
                                                                  .differentiable = false,
                                                                  .half_by_float = false});

std::shared_ptr<Optimizer::SharedNumbers> Optimizer::recorded_numbers(Recording& r,
                                                                      std::size_t entry) {
  const Entry& e = entries_[entry];
  const std::int64_t ahead = r.steps[entry]++;
  for (const auto& s : r.numbers)
    if (s->numbers.group == e.group && s->ahead == ahead &&
        entries_[s->entry].state.step == e.state.step)
      return s;
  const std::size_t members = members_of(groups_[e.group].options());
  auto s = std::make_shared<SharedNumbers>(SharedNumbers{entry, ahead, {}});
  s->numbers.renew(*this, e.group, members, e.state.step + 1 + ahead);
  r.numbers.push_back(s);
  HostLog& log = *thread_state().host_log;
  log.guard([this, here = std::weak_ptr(presence_.token), s] {
    return !here.expired() && has_members(groups_[s->numbers.group].options(), s->numbers.members);
  });
  log.each_run(
      [this, s] {
        if (s->numbers.members > 0) groups_[s->numbers.group].options().validate();
        const std::int64_t next = entries_[s->entry].state.step + 1 + s->ahead;
        s->numbers.renew(*this, s->numbers.group, s->numbers.members, next);
      },
      [] {});
  return s;
}

void Optimizer::record(std::size_t entry, const Tensor& gradient) {
  Entry& e = entries_[entry];
  HostLog& log = *thread_state().host_log;
  const DType t = work_dtype(e.param.dtype());
  auto recording = recording_.lock();
  if (!recording || recording->log != &log) {
    recording = std::make_shared<Recording>();
    recording->log = &log;
    recording_ = recording;
  }
  recording->steps.resize(entries_.size());
  auto step = std::make_shared<RecordedStep>();
  std::uint32_t used = 0;
  const bool in_lines = works_in_lines(e, t);
  {
    Under root(nullptr);  // state and numbers are real
    used = prepare_state(e, t, in_lines);
    step->shared = recorded_numbers(*recording, entry);
  }
  step->optimizer = this;
  step->entry = entry;
  step->far = far();
  step->recording = recording;
  Attrs a;
  a.closure = step;
  const Tensor param = e.param.detach().to(t);
  Tensors in{in_lines ? param : param.contiguous(), gradient.detach().to(t).contiguous(),
             step->shared->numbers.members > 0 && e.param.device().is_cpu()
                 ? step->shared->numbers.rows
                 : Tensor()};
  for (std::size_t i = 0; i < e.state.tensors.size(); ++i)
    in.push_back(used >> i & 1 ? e.state.tensors[i] : Tensor());
  const Tensors out = tutti::run(RecordedStep::op, Inputs(in.data(), in.size()), a);
  std::size_t k = 0;
  assign(e.param, out[k++]);
  for (std::size_t i = 0; i < e.state.tensors.size(); ++i)
    if (used >> i & 1) assign(e.state.tensors[i], out[k++]);
  log.guard([this, here = std::weak_ptr(presence_.token), entry, used, state = e.state.tensors,
             s = step->shared] {
    if (here.expired() || entry >= entries_.size()) return false;
    const Entry& now = entries_[entry];
    if (state_used(groups_[now.group].options()) != used ||
        now.state.step != entries_[s->entry].state.step || now.state.tensors.size() < state.size())
      return false;
    for (std::size_t i = 0; i < state.size(); ++i)
      if ((used >> i & 1) && !now.state.tensors[i].is_same(state[i])) return false;
    return true;
  });
  log.each_run(
      [this, step, used] {
        const Entry& now = entries_[step->entry];
        step->filled = now.state.filled | (step->shared->ahead > 0 ? used : 0);
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

namespace {

/// How many doubles a row of N is.
template <class N>
constexpr std::size_t kDoubles = sizeof(N) / sizeof(double);

/// Makes rows of N from what make(member) gives.
template <class N, class Make>
void fill_rows(std::span<double> rows, Make make) {
  for (std::size_t m = 0; m < rows.size() / kDoubles<N>; ++m)
    ::new (rows.data() + m * kDoubles<N>) N(make(m));
}

template <class N, class Update>
kernels::Rows<N> rows_of(const Update& u) {
  const std::int64_t n = u.numbers->size(0);
  return {static_cast<const N*>(u.numbers->raw()), n > 1 ? u.param.numel() / n : 0};
}

}  // namespace

void SGD::update(std::span<const Update> updates) const {
  launch<kernels::SgdChunk>(updates, TUTTI_STEP(sgd), [&]<class T>(const Update& u) {
    const auto& o = options_as<SGDOptions>(*u.options);
    return kernels::SgdChunk<T>{data<T>(u.param),
                                data<T>(u.grad),
                                state_used(o) ? data<T>(u.state[0]) : nullptr,
                                u.param.numel(),
                                !(u.filled & 1),
                                o.nesterov(),
                                rows_of<kernels::SgdNumbers>(u)};
  });
}
std::size_t SGD::numbers_size() const { return kDoubles<kernels::SgdNumbers>; }
void SGD::numbers(const OptimizerOptions& options, std::int64_t, std::span<double> rows) const {
  const auto& o = options_as<SGDOptions>(options);
  fill_rows<kernels::SgdNumbers>(rows, [&](std::size_t m) {
    return kernels::SgdNumbers{o.lr_values()[m], o.momentum_values()[m], o.dampening_values()[m],
                               o.weight_decay_values()[m]};
  });
}
std::uint32_t SGD::state_used(const OptimizerOptions& options) const {
  return any_momentum(options_as<SGDOptions>(options).momentum_values()) ? 1 : 0;
}

namespace {

// Adam and AdamW: O is AdamOptions or AdamWOptions.
template <class O, class Updates>
void adam_update(const Updates& updates) {
  launch<kernels::AdamChunk>(updates, TUTTI_STEP(adam), [&]<class T>(const auto& u) {
    const auto& o = options_as<O>(*u.options);
    return kernels::AdamChunk<T>{data<T>(u.param),
                                 data<T>(u.grad),
                                 data<T>(u.state[0]),
                                 data<T>(u.state[1]),
                                 o.amsgrad() ? data<T>(u.state[2]) : nullptr,
                                 u.param.numel(),
                                 rows_of<kernels::AdamNumbers>(u)};
  });
}

template <class O>
void adam_numbers(const OptimizerOptions& options, std::int64_t step, bool decoupled,
                  std::span<double> rows) {
  const auto& o = options_as<O>(options);
  const std::tuple<HyperParameter, HyperParameter> betas = o.betas_values();
  kernels::AdamStep at(step, decoupled);
  fill_rows<kernels::AdamNumbers>(rows, [&](std::size_t m) {
    return at(o.lr_values()[m], std::get<0>(betas)[m], std::get<1>(betas)[m], o.eps_values()[m],
              o.weight_decay_values()[m]);
  });
}

template <class O>
std::uint32_t adam_state(const OptimizerOptions& options) {
  return options_as<O>(options).amsgrad() ? 7 : 3;
}

}  // namespace

void Adam::update(std::span<const Update> updates) const { adam_update<AdamOptions>(updates); }
std::size_t Adam::numbers_size() const { return kDoubles<kernels::AdamNumbers>; }
void Adam::numbers(const OptimizerOptions& options, std::int64_t step,
                   std::span<double> rows) const {
  adam_numbers<AdamOptions>(options, step, false, rows);
}
std::uint32_t Adam::state_used(const OptimizerOptions& options) const {
  return adam_state<AdamOptions>(options);
}

void AdamW::update(std::span<const Update> updates) const { adam_update<AdamWOptions>(updates); }
std::size_t AdamW::numbers_size() const { return kDoubles<kernels::AdamNumbers>; }
void AdamW::numbers(const OptimizerOptions& options, std::int64_t step,
                    std::span<double> rows) const {
  adam_numbers<AdamWOptions>(options, step, true, rows);
}
std::uint32_t AdamW::state_used(const OptimizerOptions& options) const {
  return adam_state<AdamWOptions>(options);
}

void RMSprop::update(std::span<const Update> updates) const {
  launch<kernels::RmspropChunk>(updates, TUTTI_STEP(rmsprop), [&]<class T>(const Update& u) {
    const std::uint32_t used = state_used(*u.options);
    return kernels::RmspropChunk<T>{data<T>(u.param),
                                    data<T>(u.grad),
                                    data<T>(u.state[0]),
                                    used & 2 ? data<T>(u.state[1]) : nullptr,
                                    used & 4 ? data<T>(u.state[2]) : nullptr,
                                    u.param.numel(),
                                    rows_of<kernels::RmspropNumbers>(u)};
  });
}
std::size_t RMSprop::numbers_size() const { return kDoubles<kernels::RmspropNumbers>; }
void RMSprop::numbers(const OptimizerOptions& options, std::int64_t, std::span<double> rows) const {
  const auto& o = options_as<RMSpropOptions>(options);
  fill_rows<kernels::RmspropNumbers>(rows, [&](std::size_t m) {
    return kernels::RmspropNumbers{o.lr_values()[m], o.alpha_values()[m], o.eps_values()[m],
                                   o.weight_decay_values()[m], o.momentum_values()[m]};
  });
}
std::uint32_t RMSprop::state_used(const OptimizerOptions& options) const {
  const auto& o = options_as<RMSpropOptions>(options);
  return 1u | (o.centered() ? 2u : 0u) | (any_momentum(o.momentum_values()) ? 4u : 0u);
}

void Adagrad::update(std::span<const Update> updates) const {
  launch<kernels::AdagradChunk>(updates, TUTTI_STEP(adagrad), [&]<class T>(const Update& u) {
    return kernels::AdagradChunk<T>{data<T>(u.param), data<T>(u.grad), data<T>(u.state[0]),
                                    u.param.numel(), rows_of<kernels::AdagradNumbers>(u)};
  });
}
std::size_t Adagrad::numbers_size() const { return kDoubles<kernels::AdagradNumbers>; }
void Adagrad::numbers(const OptimizerOptions& options, std::int64_t step,
                      std::span<double> rows) const {
  const auto& o = options_as<AdagradOptions>(options);
  fill_rows<kernels::AdagradNumbers>(rows, [&](std::size_t m) {
    const double decay = 1 + static_cast<double>(step - 1) * o.lr_decay_values()[m];
    return kernels::AdagradNumbers{o.lr_values()[m] / decay, o.eps_values()[m],
                                   o.weight_decay_values()[m]};
  });
}
std::uint32_t Adagrad::state_used(const OptimizerOptions&) const { return 1; }
HyperParameter Adagrad::initial_state(const OptimizerOptions& options) const {
  return options_as<AdagradOptions>(options).initial_accumulator_value_values();
}

#undef TUTTI_STEP

}  // namespace tutti::optim
