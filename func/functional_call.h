// functional_call: run a module with other tensors in the place of its parameters and buffers,
// without touching it. For the length of the call a thread-local view maps slots to the given
// tensors; every access to a slot looks there first. So it needs no restoring, is safe to call from
// many threads and inside itself, and a submodule reached by two paths is no special case.
#pragma once
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <tutti/core/interpreter.h>
#include <tutti/core/tree.h>
#include <tutti/nn/module.h>

namespace tutti {

/// Options of functional_call.
class FunctionalCallOptions {
 public:
  /// true: missing and unknown names are errors; false: both are allowed. Default: missing names
  /// use the module's own tensors, unknown names are an error.
  FunctionalCallOptions& strict(bool on) {
    strict_ = on;
    return *this;
  }
  /// Whether a value given for one name of a tied tensor stands for all its names (default true).
  FunctionalCallOptions& tie_weights(bool on) {
    tie_weights_ = on;
    return *this;
  }
  std::optional<bool> strict() const { return strict_; }
  bool tie_weights() const { return tie_weights_; }

 private:
  std::optional<bool> strict_;
  bool tie_weights_ = true;
};

namespace func {

using tutti::FunctionalCallOptions;

/// Parameters and buffers for functional_call: one dict, a list of dicts, name/tensor pairs, or
/// nothing.
class State {
 public:
  State() = default;
  State(TensorDict d) { dicts_.push_back(std::move(d)); }
  State(std::initializer_list<TensorDict> dicts) : dicts_(dicts) {}
  State(std::vector<TensorDict> dicts) : dicts_(std::move(dicts)) {}
  /// ValueError if a name occurs twice.
  State(std::initializer_list<std::pair<std::string, Tensor>> pairs)
      : State(pairs.begin(), pairs.end()) {}
  State(const std::vector<std::pair<std::string, Tensor>>& pairs)
      : State(pairs.data(), pairs.data() + pairs.size()) {}
  const std::vector<TensorDict>& dicts() const { return dicts_; }

 private:
  State(const std::pair<std::string, Tensor>* first, const std::pair<std::string, Tensor>* last);
  std::vector<TensorDict> dicts_;
};

namespace detail_ {

/// The view a functional_call makes active.
class StateView final : public SlotView {
 public:
  StateView(const nn::Module& module, const State& state, const FunctionalCallOptions& options);
  const Tensor* find(const TensorImpl* slot) const override {
    for (const auto& [s, t] : substitutes_)
      if (s == slot) return &t;
    return nullptr;
  }
  std::unique_ptr<SlotView> copy() const override { return std::make_unique<StateView>(*this); }

 private:
  std::shared_ptr<const nn::SlotTable> table_;  // keeps the slots alive
  std::vector<std::pair<const TensorImpl*, Tensor>> substitutes_;
};

template <class M>
nn::Module& module_of(M& m) {
  if constexpr (std::is_base_of_v<nn::Module, std::remove_cv_t<M>>)
    return const_cast<std::remove_cv_t<M>&>(m);
  else
    return *m;
}

template <class M, class... Args>
auto forward(M& m, Args&&... args) {
  if constexpr (requires { m.forward(std::forward<Args>(args)...); })
    return m.forward(std::forward<Args>(args)...);
  else
    return m->forward(std::forward<Args>(args)...);
}

}  // namespace detail_

/// What module.forward(args...) returns when the module's parameters and buffers are those in
/// `state`, as torch.func.functional_call. Module: a holder, a reference, a shared_ptr or a
/// pointer. An undefined tensor in `state` stands for "none" (a Linear without bias). Assignments
/// to buffers and in-place ops on them reach the tensors in `state`. KeyError for unknown (and, if
/// strict, missing) names, ValueError for a name in two dicts or two values for one tied tensor.
template <class M, class... Args>
auto functional_call(M&& module, const State& state, const FunctionalCallOptions& options,
                     Args&&... args) {
  detail_::StateView view(detail_::module_of(module), state, options);
  UseView use(view);
  auto result = detail_::forward(module, std::forward<Args>(args)...);
  // A slot handle in the result must not outlive the view.
  tree::leaves(result, [](Tensor& x) {
    if (x.handle() && x.handle()->kind == TensorImpl::Kind::slot) x = resolved(x);
  });
  return result;
}
/// The same with the default options.
template <class M, class... Args>
requires(!(sizeof...(Args) > 0 &&
           std::is_same_v<std::decay_t<std::tuple_element_t<0, std::tuple<Args..., int>>>,
                          FunctionalCallOptions>)) auto functional_call(M&& module,
                                                                        const State& state,
                                                                        Args&&... args) {
  return functional_call(module, state, FunctionalCallOptions(), std::forward<Args>(args)...);
}

}  // namespace func
}  // namespace tutti
