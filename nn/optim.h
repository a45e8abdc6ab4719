// Optimizers: SGD, Adam, AdamW, RMSprop, Adagrad, with the formulas of torch.optim and the spelling
// of torch::optim.
//
//   optim::Adam opt(model->parameters(), optim::AdamOptions(1e-3));      // uses .grad()
//   opt.zero_grad(); loss.backward(); opt.step();
//
//   optim::Adam opt(stacked.params, 1e-3);   // a TensorDict: gradients are matched by name
//   opt.step(grads);                         // no .grad() needed
//
// A step is one kernel over all parameters. Stacked parameters (members as the leading axis) are
// just larger tensors; members do not influence each other. Each may have its own learning rate and
// so on; member i then trains as with an optimizer of its own that has the values i:
//
//   optim::Adam opt(stacked.params, optim::AdamOptions(rates).weight_decay({0, 1e-4, 1e-3}));
//   opt.options().scale_lr(0.5);             // of every member; rates is a tensor [3]
//
// Not thread-safe.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include <tutti/core/dict.h>
#include <tutti/core/tensor.h>
#include <tutti/nn/hyper_parameter.h>
#include <tutti/nn/options.h>

namespace tutti::kernels {
struct Access;
}

namespace tutti::optim {

/// Hyper-parameters; may be changed between steps. Those of type HyperParameter may be one number
/// or one for each member; then all parameters of the group have as many members along axis 0.
class OptimizerOptions {
 public:
  OptimizerOptions() = default;
  OptimizerOptions(const OptimizerOptions&) = default;
  OptimizerOptions& operator=(const OptimizerOptions&) = default;
  virtual ~OptimizerOptions() = default;
  virtual std::unique_ptr<OptimizerOptions> clone() const = 0;
  /// The learning rate; ValueError if each member has its own.
  virtual double get_lr() const = 0;
  virtual void set_lr(double lr) = 0;
  /// The learning rates, whether the members share one or not.
  virtual HyperParameter get_lrs() const { return get_lr(); }
  virtual void set_lrs(const HyperParameter& lrs) { set_lr(lrs.number("lr")); }
  /// Multiplies the learning rate, every member's if each has its own, as a schedule does.
  /// ValueError unless factor is at least 0.
  void scale_lr(double factor);
  /// ValueError for values out of range.
  virtual void validate() const = 0;
  /// Calls visit(name, value) for all hyper-parameters that may differ between members.
  using Visit = std::function<void(const char* name, const HyperParameter& value)>;
  virtual void each_hyper_parameter(const Visit&) const {}
};

template <class Derived>
class OptimizerCloneableOptions : public OptimizerOptions {
 public:
  std::unique_ptr<OptimizerOptions> clone() const override {
    return std::make_unique<Derived>(self());
  }
  double get_lr() const override { return self().lr(); }
  void set_lr(double lr) override { self().lr(lr); }
  HyperParameter get_lrs() const override {
    if constexpr (requires { self().lr_values(); })
      return self().lr_values();
    else
      return self().lr();
  }
  void set_lrs(const HyperParameter& lrs) override {
    if constexpr (requires { self().lr(lrs); })
      self().lr(lrs);
    else
      self().lr(lrs.number("lr"));
  }

 private:
  Derived& self() { return static_cast<Derived&>(*this); }
  const Derived& self() const { return static_cast<const Derived&>(*this); }
};

/// Options of SGD. dampening slows the gradient's way into the momentum. Where only some members
/// have momentum, the buffer is zeros for a member that gets it later.
struct SGDOptions : OptimizerCloneableOptions<SGDOptions> {
  SGDOptions(double lr = 1e-3) : lr_(lr) {}
  SGDOptions(const Tensor& lr) : lr_(lr, "lr") {}
  SGDOptions(const std::vector<double>& lr) : lr_(lr, "lr") {}
  void validate() const override;
  void each_hyper_parameter(const Visit& visit) const override;
  TUTTI_HYPER_PARAMETER(lr);
  TUTTI_HYPER_PARAMETER(momentum) = 0;
  TUTTI_HYPER_PARAMETER(dampening) = 0;
  TUTTI_HYPER_PARAMETER(weight_decay) = 0;
  TUTTI_ARG(bool, nesterov) = false;
};

using Betas = std::tuple<double, double>;

/// The betas of Adam's options: numbers, or one for each member, for either.
template <class Derived>
class BetasOption {
 public:
  Derived& betas(const Betas& numbers) {
    numbers_ = numbers;
    each_ = {0, 0};
    return static_cast<Derived&>(*this);
  }
  /// betas({beta1, beta2}), of which either is a tensor [M], a vector or a number. A template, so
  /// that two numbers mean the other one.
  template <class = void>
  Derived& betas(const std::tuple<HyperParameter, HyperParameter>& values) {
    const auto& [beta1, beta2] = values;
    numbers_ = {beta1.per_member() ? 0 : beta1[0], beta2.per_member() ? 0 : beta2[0]};
    each_ = {beta1, beta2};
    return static_cast<Derived&>(*this);
  }
  /// The numbers, to read or change; ValueError if each member has its own.
  const Betas& betas() const { return check_shared(), numbers_; }
  Betas& betas() { return check_shared(), numbers_; }
  /// Either: std::get<0>(betas_values())[member].
  std::tuple<HyperParameter, HyperParameter> betas_values() const {
    const auto& [beta1, beta2] = each_;
    return {beta1.per_member() ? beta1 : std::get<0>(numbers_),
            beta2.per_member() ? beta2 : std::get<1>(numbers_)};
  }

 private:
  void check_shared() const {
    std::get<0>(each_).number("betas");
    std::get<1>(each_).number("betas");
  }
  Betas numbers_{0.9, 0.999};  // of those that the members share
  std::tuple<HyperParameter, HyperParameter> each_{0, 0};
};

/// Options of Adam; weight_decay is added to the gradient.
struct AdamOptions : OptimizerCloneableOptions<AdamOptions>, BetasOption<AdamOptions> {
  AdamOptions(double lr = 1e-3) : lr_(lr) {}
  AdamOptions(const Tensor& lr) : lr_(lr, "lr") {}
  AdamOptions(const std::vector<double>& lr) : lr_(lr, "lr") {}
  void validate() const override;
  void each_hyper_parameter(const Visit& visit) const override;
  TUTTI_HYPER_PARAMETER(lr);
  TUTTI_HYPER_PARAMETER(eps) = 1e-8;
  TUTTI_HYPER_PARAMETER(weight_decay) = 0;
  TUTTI_ARG(bool, amsgrad) = false;
};

/// Options of AdamW; weight_decay shrinks the parameter itself.
struct AdamWOptions : OptimizerCloneableOptions<AdamWOptions>, BetasOption<AdamWOptions> {
  AdamWOptions(double lr = 1e-3) : lr_(lr) {}
  AdamWOptions(const Tensor& lr) : lr_(lr, "lr") {}
  AdamWOptions(const std::vector<double>& lr) : lr_(lr, "lr") {}
  void validate() const override;
  void each_hyper_parameter(const Visit& visit) const override;
  TUTTI_HYPER_PARAMETER(lr);
  TUTTI_HYPER_PARAMETER(eps) = 1e-8;
  TUTTI_HYPER_PARAMETER(weight_decay) = 1e-2;
  TUTTI_ARG(bool, amsgrad) = false;
};

/// Options of RMSprop; centered divides by the standard deviation instead of the root mean square.
struct RMSpropOptions : OptimizerCloneableOptions<RMSpropOptions> {
  RMSpropOptions(double lr = 1e-2) : lr_(lr) {}
  RMSpropOptions(const Tensor& lr) : lr_(lr, "lr") {}
  RMSpropOptions(const std::vector<double>& lr) : lr_(lr, "lr") {}
  void validate() const override;
  void each_hyper_parameter(const Visit& visit) const override;
  TUTTI_HYPER_PARAMETER(lr);
  TUTTI_HYPER_PARAMETER(alpha) = 0.99;
  TUTTI_HYPER_PARAMETER(eps) = 1e-8;
  TUTTI_HYPER_PARAMETER(weight_decay) = 0;
  TUTTI_HYPER_PARAMETER(momentum) = 0;
  TUTTI_ARG(bool, centered) = false;
};

/// Options of Adagrad.
struct AdagradOptions : OptimizerCloneableOptions<AdagradOptions> {
  AdagradOptions(double lr = 1e-2) : lr_(lr) {}
  AdagradOptions(const Tensor& lr) : lr_(lr, "lr") {}
  AdagradOptions(const std::vector<double>& lr) : lr_(lr, "lr") {}
  void validate() const override;
  void each_hyper_parameter(const Visit& visit) const override;
  TUTTI_HYPER_PARAMETER(lr);
  TUTTI_HYPER_PARAMETER(lr_decay) = 0;
  TUTTI_HYPER_PARAMETER(weight_decay) = 0;
  TUTTI_HYPER_PARAMETER(initial_accumulator_value) = 0;
  TUTTI_HYPER_PARAMETER(eps) = 1e-10;
};

/// Parameters that share options; without options of its own a group takes the optimizer's.
class OptimizerParamGroup {
 public:
  OptimizerParamGroup(std::vector<Tensor> params, std::unique_ptr<OptimizerOptions> options = {});
  OptimizerParamGroup(const TensorDict& params, std::unique_ptr<OptimizerOptions> options = {});
  OptimizerParamGroup(const OptimizerParamGroup& o);
  OptimizerParamGroup(OptimizerParamGroup&&) noexcept = default;
  OptimizerParamGroup& operator=(OptimizerParamGroup o) noexcept;

  bool has_options() const noexcept { return options_ != nullptr; }
  OptimizerOptions& options() { return *options_; }
  const OptimizerOptions& options() const { return *options_; }
  void set_options(std::unique_ptr<OptimizerOptions> options) { options_ = std::move(options); }
  const std::vector<Tensor>& params() const noexcept { return params_; }
  /// Names of the parameters; empty if the group was made from a plain list.
  const std::vector<std::string>& names() const noexcept { return names_; }

 private:
  std::vector<Tensor> params_;
  std::vector<std::string> names_;
  std::unique_ptr<OptimizerOptions> options_;
};

/// Base of the optimizers. Parameters are leaves; a module's may be converted with to() later on.
class Optimizer {
 public:
  using LossClosure = std::function<Tensor()>;

  Optimizer(const Optimizer&) = delete;
  Optimizer(Optimizer&&) = default;
  virtual ~Optimizer() = default;

  /// One step from the parameters' grad(); those without are left alone. A closure is called first,
  /// with gradients enabled, and its loss returned. TransformError inside a transform. ShapeError
  /// if hyper-parameters of members do not fit a parameter, ValueError if they are out of range;
  /// then nothing is changed.
  Tensor step(const LossClosure& closure = {});
  /// One step from given gradients. A dict is matched by name (by position if the optimizer was
  /// made from plain lists): KeyError lists names that are missing or unknown. An undefined
  /// gradient leaves its parameter alone. ShapeError, TypeError or DeviceError name the parameter
  /// that a gradient does not fit; then nothing is changed.
  void step(const TensorDict& grads);
  void step(const std::vector<Tensor>& grads);

  /// Drops the parameters' gradients, or fills them with zeros.
  void zero_grad(bool set_to_none = true);

  /// ValueError for parameters that are no leaves or are there already, ShapeError for
  /// hyper-parameters of more or fewer members than a parameter has along axis 0.
  void add_param_group(OptimizerParamGroup group);
  std::vector<OptimizerParamGroup>& param_groups() noexcept { return groups_; }
  const std::vector<OptimizerParamGroup>& param_groups() const noexcept { return groups_; }
  /// All parameters, in order.
  std::vector<Tensor> parameters() const;
  /// The number of parameters.
  std::size_t size() const noexcept { return entries_.size(); }

  /// The state of every parameter that has been updated, as "name.exp_avg", "name.step" and so on
  /// ("0.exp_avg" if made from plain lists). Tensors are aliases. Hyper-parameters are not
  /// included.
  TensorDict state_dict() const;
  /// Replaces the state by copies. KeyError for names that do not fit, ShapeError for shapes.
  void load_state_dict(const TensorDict& state);

 protected:
  /// One parameter's step. All tensors are of one dtype, float32 or float64, and contiguous or
  /// in lines, as `access` says.
  struct Update {
    Tensor param, grad;
    std::span<const Tensor> state;  // in the order of state_names(); those that are used
    std::uint32_t filled;           // bit i: a step has been made with state[i]
    const OptimizerOptions* options;
    const Tensor* numbers;  // [1 or M, ...]: what numbers() gave, for all or for each of M members
    const kernels::Access* access = nullptr;  // null: contiguous and near
  };

  Optimizer(std::vector<OptimizerParamGroup> groups, std::unique_ptr<OptimizerOptions> defaults);
  /// Updates parameters and state, in place. If any is in lines, it is the only one.
  virtual void update(std::span<const Update> updates) const = 0;
  /// How many numbers a step takes.
  virtual std::size_t numbers_size() const = 0;
  /// The numbers of step number `step`, from 1, a row for each member that `rows` has room for.
  virtual void numbers(const OptimizerOptions& options, std::int64_t step,
                       std::span<double> rows) const = 0;
  virtual std::vector<std::string> state_names() const = 0;
  /// Bit i: a step with these options uses state tensor i.
  virtual std::uint32_t state_used(const OptimizerOptions& options) const = 0;
  /// What new state is filled with.
  virtual HyperParameter initial_state(const OptimizerOptions&) const { return 0; }
  OptimizerOptions& group_options(std::size_t group);

 private:
  /// What is remembered of one parameter: steps made, and tensors in the order of state_names().
  struct State {
    std::int64_t step = 0;
    std::vector<Tensor> tensors;  // undefined until used
    std::uint32_t filled = 0;     // bit i: a step has been made with tensors[i]
  };
  struct Entry {
    Tensor param;
    std::string name;
    std::size_t group;
    State state;
  };
  struct Numbers;
  struct SharedNumbers;
  struct Recording;
  struct RecordedStep;
  /// Ends with the optimizer, and does not move with it: whether `this` may still be used.
  struct Presence {
    Presence() = default;
    Presence(Presence&&) : Presence() {}
    std::shared_ptr<char> token = std::make_shared<char>();
  };
  void apply(const std::vector<Tensor>& grads, const char* op);
  void record(std::size_t entry, const Tensor& grad);
  std::shared_ptr<SharedNumbers> recorded_numbers(Recording& r, std::size_t entry);
  /// Makes the state that a step of the entry uses; returns its bits.
  std::uint32_t prepare_state(Entry& e, DType t, bool in_lines);
  /// Whether a step in dtype t works on the parameter where it lies, members last.
  bool works_in_lines(const Entry& e, DType t) const;
  /// Whether parameters and state are too large to wait in a cache for their next step.
  bool far() const;
  static void check_outside(const char* op);
  /// That hyper-parameters of members are as many as the parameter's members.
  static void check_members(const OptimizerOptions& options, const Tensor& param,
                            const std::string& name, const char* op);

  std::vector<OptimizerParamGroup> groups_;
  std::unique_ptr<OptimizerOptions> defaults_;
  std::vector<Entry> entries_;
  bool named_ = true;                             // all groups have names
  std::shared_ptr<const KeyTable> ordered_keys_;  // those of gradients that came in our order
  Presence presence_;
  std::weak_ptr<Recording> recording_;             // the last one
  std::vector<std::shared_ptr<Numbers>> numbers_;  // of the last step, to be used again
};

/// An optimizer with options of type O; what the classes below share.
template <class O>
class OptimizerOf : public Optimizer {
 public:
  explicit OptimizerOf(std::vector<OptimizerParamGroup> groups, O defaults = {})
      : Optimizer(std::move(groups), std::make_unique<O>(defaults)) {}
  explicit OptimizerOf(std::vector<Tensor> params, O defaults = {})
      : OptimizerOf(one(OptimizerParamGroup(std::move(params))), defaults) {}
  explicit OptimizerOf(const TensorDict& params, O defaults = {})
      : OptimizerOf(one(OptimizerParamGroup(params)), defaults) {}

  /// The hyper-parameters of a group, to read or change.
  O& options(std::size_t group = 0) { return dynamic_cast<O&>(group_options(group)); }

 private:
  static std::vector<OptimizerParamGroup> one(OptimizerParamGroup g) {
    std::vector<OptimizerParamGroup> v;
    v.push_back(std::move(g));
    return v;
  }
};

/// Stochastic gradient descent with momentum, as torch.optim.SGD.
class SGD final : public OptimizerOf<SGDOptions> {
 public:
  using OptimizerOf::OptimizerOf;

 private:
  void update(std::span<const Update> updates) const override;
  std::size_t numbers_size() const override;
  void numbers(const OptimizerOptions& options, std::int64_t step,
               std::span<double> rows) const override;
  std::uint32_t state_used(const OptimizerOptions& options) const override;
  std::vector<std::string> state_names() const override { return {"momentum_buffer"}; }
};

/// Kingma and Ba, "Adam: A Method for Stochastic Optimization", as torch.optim.Adam.
class Adam final : public OptimizerOf<AdamOptions> {
 public:
  using OptimizerOf::OptimizerOf;

 private:
  void update(std::span<const Update> updates) const override;
  std::size_t numbers_size() const override;
  void numbers(const OptimizerOptions& options, std::int64_t step,
               std::span<double> rows) const override;
  std::uint32_t state_used(const OptimizerOptions& options) const override;
  std::vector<std::string> state_names() const override {
    return {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
  }
};

/// Loshchilov and Hutter, "Decoupled Weight Decay Regularization", as torch.optim.AdamW.
class AdamW final : public OptimizerOf<AdamWOptions> {
 public:
  using OptimizerOf::OptimizerOf;

 private:
  void update(std::span<const Update> updates) const override;
  std::size_t numbers_size() const override;
  void numbers(const OptimizerOptions& options, std::int64_t step,
               std::span<double> rows) const override;
  std::uint32_t state_used(const OptimizerOptions& options) const override;
  std::vector<std::string> state_names() const override {
    return {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
  }
};

/// As torch.optim.RMSprop.
class RMSprop final : public OptimizerOf<RMSpropOptions> {
 public:
  using OptimizerOf::OptimizerOf;

 private:
  void update(std::span<const Update> updates) const override;
  std::size_t numbers_size() const override;
  void numbers(const OptimizerOptions& options, std::int64_t step,
               std::span<double> rows) const override;
  std::uint32_t state_used(const OptimizerOptions& options) const override;
  std::vector<std::string> state_names() const override {
    return {"square_avg", "grad_avg", "momentum_buffer"};
  }
};

/// As torch.optim.Adagrad.
class Adagrad final : public OptimizerOf<AdagradOptions> {
 public:
  using OptimizerOf::OptimizerOf;

 private:
  void update(std::span<const Update> updates) const override;
  std::size_t numbers_size() const override;
  void numbers(const OptimizerOptions& options, std::int64_t step,
               std::span<double> rows) const override;
  std::uint32_t state_used(const OptimizerOptions& options) const override;
  HyperParameter initial_state(const OptimizerOptions& options) const override;
  std::vector<std::string> state_names() const override { return {"sum"}; }
};

}  // namespace tutti::optim
