// Base autograd, for tensors outside of any transform: requires_grad_(), backward() and
// autograd::grad, and functions with a derivative of their own. The Tensor members are declared in
// core/tensor.h.
#pragma once
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <tutti/autograd/checkpoint.h>
#include <tutti/autograd/grad_mode.h>
#include <tutti/core/op.h>
#include <tutti/core/ops.h>
#include <tutti/core/tree.h>

namespace tutti::autograd {

/// Gradients of sum(outputs * grad_outputs) with respect to `inputs`, as torch.autograd.grad.
/// Nothing is accumulated. An input that was not used: AutogradError, or an undefined gradient with
/// allow_unused.
std::vector<Tensor> grad(TensorList outputs, TensorList inputs, TensorList grad_outputs = {},
                         std::optional<bool> retain_graph = std::nullopt, bool create_graph = false,
                         bool allow_unused = false);
/// Accumulates the gradients of `outputs` into the leaves' grad(), as torch.autograd.backward.
void backward(TensorList outputs, TensorList grad_outputs = {},
              std::optional<bool> retain_graph = std::nullopt, bool create_graph = false);

/// What forward() hands to backward() in an autograd::Function.
class AutogradContext {
 public:
  /// Tensors backward needs. Inputs and outputs of the function are kept without a cycle, and can
  /// be differentiated again; any other tensor is a constant for higher derivatives.
  void save_for_backward(std::vector<Tensor> tensors) { saved_ = std::move(tensors); }
  /// The tensors given to save_for_backward. AutogradError if one was changed in place since.
  std::vector<Tensor> get_saved_variables() const;
  /// Anything else, by name.
  Dict<Scalar> saved_data;

 private:
  friend struct FunctionCall;
  std::vector<Tensor> saved_;
  struct Place {
    enum { input, output, other } kind = other;
    std::size_t at = 0;
  };
  std::vector<Place> places_;
  std::vector<std::uint64_t> versions_;
  const Call* call_ = nullptr;  // while backward runs
};

/// One application of a function with its own derivative; made by Function<T>::apply.
struct FunctionCall {
  virtual ~FunctionCall() = default;
  virtual std::vector<Tensor> forward(AutogradContext& ctx, Inputs in) = 0;
  virtual std::vector<Tensor> backward(AutogradContext& ctx, std::vector<Tensor> grads) = 0;
  AutogradContext context;

  Tensors run_forward(Inputs in);
  Tensors run_backward(const Call& c, Inputs g);
};
/// Runs a function call through the current interpreter.
Tensors apply(std::shared_ptr<FunctionCall> call, Inputs in);

/// A function with a derivative of its own, in LibTorch's form:
///   struct Mine : autograd::Function<Mine> {
///     static Tensor forward(AutogradContext* ctx, Tensor x, double k);
///     static std::vector<Tensor> backward(AutogradContext* ctx, std::vector<Tensor> grads);
///   };
///   Tensor y = Mine::apply(x, 2.0);
/// backward returns one gradient per forward argument (undefined for those that are not tensors).
/// It is the derivative in forward mode, too, which transposes it.
template <class T>
struct Function {
  template <class... Args>
  static auto apply(Args&&... args) {
    using Result = decltype(T::forward(std::declval<AutogradContext*>(), args...));
    using Stored = std::tuple<std::decay_t<Args>...>;
    struct Impl final : FunctionCall {
      explicit Impl(Stored a) : args(std::move(a)) {}
      std::vector<Tensor> forward(AutogradContext& ctx, Inputs in) override {
        Stored a = args;
        std::size_t at = 0;
        auto put = [&](auto& v) {
          if constexpr (tree::is_tensor<decltype(v)>) v = in[at++];
        };
        std::apply([&](auto&... v) { (put(v), ...); }, a);
        Result r = std::apply([&](auto&... v) { return T::forward(&ctx, v...); }, a);
        if constexpr (tree::is_tensor<Result>)
          return {r};
        else
          return std::vector<Tensor>(r.begin(), r.end());
      }
      std::vector<Tensor> backward(AutogradContext& ctx, std::vector<Tensor> grads) override {
        std::vector<Tensor> all = T::backward(&ctx, std::move(grads)), kept;
        check<ValueError>(all.size() == std::tuple_size_v<Stored>, "autograd::Function",
                          "backward must return one gradient per argument of forward: expected ",
                          std::tuple_size_v<Stored>, ", got ", all.size());
        std::size_t i = 0;
        auto pick = [&](const auto& v) {
          if (tree::is_tensor<decltype(v)>) kept.push_back(all[i]);
          ++i;
        };
        std::apply([&](const auto&... v) { (pick(v), ...); }, args);
        return kept;
      }
      Stored args;
    };
    Stored stored(args...);
    Tensors in;
    auto take = [&](auto& v) {
      if constexpr (tree::is_tensor<decltype(v)>) {
        in.push_back(v);
        v = {};  // the call must not keep its inputs alive, they may lead back to it
      }
    };
    std::apply([&](auto&... v) { (take(v), ...); }, stored);
    Tensors out =
        autograd::apply(std::make_shared<Impl>(std::move(stored)), Inputs(in.data(), in.size()));
    if constexpr (tree::is_tensor<Result>)
      return out[0];
    else
      return std::vector<Tensor>(out.begin(), out.end());
  }
};

/// Compares backward() with central differences in random directions, for float64 inputs; throws
/// AutogradError with the worst deviation if they differ by more than atol + rtol * |value|. As
/// torch.autograd.gradcheck.
bool gradcheck(const std::function<Tensor(const std::vector<Tensor>&)>& f,
               std::vector<Tensor> inputs, double eps = 1e-6, double atol = 1e-5,
               double rtol = 1e-3);
/// The same for the gradient of f.
bool gradgradcheck(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                   std::vector<Tensor> inputs, double eps = 1e-6, double atol = 1e-5,
                   double rtol = 1e-3);

}  // namespace tutti::autograd
