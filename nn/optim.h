// Optimizers: SGD, Adam, AdamW, RMSprop, Adagrad, with the formulas of torch.optim and the spelling
// of torch::optim.
//
//   optim::Adam opt(model->parameters(), optim::AdamOptions(1e-3));      // uses .grad()
//   opt.zero_grad(); loss.backward(); opt.step();
//
//   optim::Adam opt(stacked.params, 1e-3);                               // a TensorDict: matched
//   by name opt.step(grads);                                                     // no .grad()
//   needed
//
// A step is one kernel over all parameters. Stacked parameters (members as the leading axis) are
// just larger tensors; members do not influence each other. Not thread-safe.
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
#include <tutti/nn/options.h>

namespace tutti::optim {

/// Hyper-parameters; may be changed between steps.
class OptimizerOptions {
 public:
  OptimizerOptions() = default;
  OptimizerOptions(const OptimizerOptions&) = default;
  OptimizerOptions& operator=(const OptimizerOptions&) = default;
  virtual ~OptimizerOptions() = default;
  virtual std::unique_ptr<OptimizerOptions> clone() const = 0;
  virtual double get_lr() const = 0;
  virtual void set_lr(double lr) = 0;
  /// ValueError for values out of range.
  virtual void validate() const = 0;
};

template <class Derived>
class OptimizerCloneableOptions : public OptimizerOptions {
 public:
  std::unique_ptr<OptimizerOptions> clone() const override {
    return std::make_unique<Derived>(static_cast<const Derived&>(*this));
  }
  double get_lr() const override { return static_cast<const Derived&>(*this).lr(); }
  void set_lr(double lr) override { static_cast<Derived&>(*this).lr(lr); }
};

/// Options of SGD. dampening slows the gradient's way into the momentum.
struct SGDOptions : OptimizerCloneableOptions<SGDOptions> {
  SGDOptions(double lr = 1e-3) : lr_(lr) {}
  void validate() const override;
  TUTTI_ARG(double, lr);
  TUTTI_ARG(double, momentum) = 0;
  TUTTI_ARG(double, dampening) = 0;
  TUTTI_ARG(double, weight_decay) = 0;
  TUTTI_ARG(bool, nesterov) = false;
};

using Betas = std::tuple<double, double>;

/// Options of Adam; weight_decay is added to the gradient.
struct AdamOptions : OptimizerCloneableOptions<AdamOptions> {
  AdamOptions(double lr = 1e-3) : lr_(lr) {}
  void validate() const override;
  TUTTI_ARG(double, lr);
  TUTTI_ARG(Betas, betas) = Betas(0.9, 0.999);
  TUTTI_ARG(double, eps) = 1e-8;
  TUTTI_ARG(double, weight_decay) = 0;
  TUTTI_ARG(bool, amsgrad) = false;
};

/// Options of AdamW; weight_decay shrinks the parameter itself.
struct AdamWOptions : OptimizerCloneableOptions<AdamWOptions> {
  AdamWOptions(double lr = 1e-3) : lr_(lr) {}
  void validate() const override;
  TUTTI_ARG(double, lr);
  TUTTI_ARG(Betas, betas) = Betas(0.9, 0.999);
  TUTTI_ARG(double, eps) = 1e-8;
  TUTTI_ARG(double, weight_decay) = 1e-2;
  TUTTI_ARG(bool, amsgrad) = false;
};

/// Options of RMSprop; centered divides by the standard deviation instead of the root mean square.
struct RMSpropOptions : OptimizerCloneableOptions<RMSpropOptions> {
  RMSpropOptions(double lr = 1e-2) : lr_(lr) {}
  void validate() const override;
  TUTTI_ARG(double, lr);
  TUTTI_ARG(double, alpha) = 0.99;
  TUTTI_ARG(double, eps) = 1e-8;
  TUTTI_ARG(double, weight_decay) = 0;
  TUTTI_ARG(double, momentum) = 0;
  TUTTI_ARG(bool, centered) = false;
};

/// Options of Adagrad.
struct AdagradOptions : OptimizerCloneableOptions<AdagradOptions> {
  AdagradOptions(double lr = 1e-2) : lr_(lr) {}
  void validate() const override;
  TUTTI_ARG(double, lr);
  TUTTI_ARG(double, lr_decay) = 0;
  TUTTI_ARG(double, weight_decay) = 0;
  TUTTI_ARG(double, initial_accumulator_value) = 0;
  TUTTI_ARG(double, eps) = 1e-10;
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
  /// with gradients enabled, and its loss returned. TransformError inside a transform.
  Tensor step(const LossClosure& closure = {});
  /// One step from given gradients. A dict is matched by name (by position if the optimizer was
  /// made from plain lists): KeyError lists names that are missing or unknown. An undefined
  /// gradient leaves its parameter alone. ShapeError, TypeError or DeviceError name the parameter
  /// that a gradient does not fit; then nothing is changed.
  void step(const TensorDict& grads);
  void step(const std::vector<Tensor>& grads);

  /// Drops the parameters' gradients, or fills them with zeros.
  void zero_grad(bool set_to_none = true);

  /// ValueError for parameters that are no leaves or are there already.
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
  /// One parameter's step. All tensors are contiguous and of one dtype, float32 or float64.
  struct Update {
    Tensor param, grad;
    std::span<const Tensor> state;  // in the order of state_names(); those that are used
    std::int64_t step;              // this step's number, from 1
    std::uint32_t filled;           // bit i: a step has been made with state[i]
    const OptimizerOptions* options;
  };

  Optimizer(std::vector<OptimizerParamGroup> groups, std::unique_ptr<OptimizerOptions> defaults);
  /// Updates parameters and state, in place.
  virtual void update(std::span<const Update> updates) const = 0;
  virtual std::vector<std::string> state_names() const = 0;
  /// Bit i: a step with these options uses state tensor i.
  virtual std::uint32_t state_used(const OptimizerOptions& options) const = 0;
  /// What new state is filled with.
  virtual double initial_state(const OptimizerOptions&) const { return 0; }
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
  struct RecordedStep;
  /// Ends with the optimizer, and does not move with it: whether `this` may still be used.
  struct Presence {
    Presence() = default;
    Presence(Presence&&) : Presence() {}
    std::shared_ptr<char> token = std::make_shared<char>();
  };
  void apply(const std::vector<Tensor>& grads, const char* op);
  void record(std::size_t entry, const Tensor& grad);
  /// Makes the state that a step of the entry uses; returns its bits.
  std::uint32_t prepare_state(Entry& e, DType t);
  static void check_outside(const char* op);

  std::vector<OptimizerParamGroup> groups_;
  std::unique_ptr<OptimizerOptions> defaults_;
  std::vector<Entry> entries_;
  bool named_ = true;  // all groups have names
  Presence presence_;
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
  std::uint32_t state_used(const OptimizerOptions& options) const override;
  std::vector<std::string> state_names() const override { return {"momentum_buffer"}; }
};

/// Kingma and Ba, "Adam: A Method for Stochastic Optimization", as torch.optim.Adam.
class Adam final : public OptimizerOf<AdamOptions> {
 public:
  using OptimizerOf::OptimizerOf;

 private:
  void update(std::span<const Update> updates) const override;
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
  std::uint32_t state_used(const OptimizerOptions& options) const override;
  double initial_state(const OptimizerOptions& options) const override;
  std::vector<std::string> state_names() const override { return {"sum"}; }
};

}  // namespace tutti::optim
