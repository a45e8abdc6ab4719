// Losses, as functions and as modules; names, argument orders, defaults and formulas as PyTorch.
// They are composed of public ops, so every transform works on them; nothing depends on values.
#pragma once
#include <cstdint>
#include <string_view>

#include <tutti/core/ops.h>
#include <tutti/nn/module.h>
#include <tutti/nn/options.h>

namespace tutti {
namespace nn {

/// What becomes of the losses of the elements.
class Reduction {
 public:
  enum Value { none, mean, sum, batch_mean };
  constexpr Reduction(Value v) : value_(v) {}
  /// "none", "mean", "sum" or (KLDivLoss) "batchmean"; ValueError otherwise.
  Reduction(std::string_view name);
  Reduction(const char* name) : Reduction(std::string_view(name)) {}
  constexpr operator Value() const { return value_; }

 private:
  Value value_;
};

}  // namespace nn

inline constexpr nn::Reduction kNone = nn::Reduction::none, kMean = nn::Reduction::mean,
                               kSum = nn::Reduction::sum, kBatchMean = nn::Reduction::batch_mean;

namespace nn {

/// Options of MSELoss.
struct MSELossOptions {
  MSELossOptions(Reduction reduction = kMean) : reduction_(reduction) {}
  TUTTI_ARG(Reduction, reduction);
};
using L1LossOptions = MSELossOptions;

/// Options of SmoothL1Loss: quadratic below beta.
struct SmoothL1LossOptions {
  SmoothL1LossOptions(Reduction reduction = kMean) : reduction_(reduction) {}
  TUTTI_ARG(Reduction, reduction);
  TUTTI_ARG(double, beta) = 1;
};

/// Options of HuberLoss: quadratic below delta.
struct HuberLossOptions {
  HuberLossOptions(Reduction reduction = kMean) : reduction_(reduction) {}
  TUTTI_ARG(Reduction, reduction);
  TUTTI_ARG(double, delta) = 1;
};

/// Options of CrossEntropyLoss: weight [C] per class, a target value that does not count, and how
/// much of every target is spread over all classes.
struct CrossEntropyLossOptions {
  TUTTI_ARG(Tensor, weight);
  TUTTI_ARG(std::int64_t, ignore_index) = -100;
  TUTTI_ARG(Reduction, reduction) = kMean;
  TUTTI_ARG(double, label_smoothing) = 0;
};

/// Options of NLLLoss.
struct NLLLossOptions {
  TUTTI_ARG(Tensor, weight);
  TUTTI_ARG(std::int64_t, ignore_index) = -100;
  TUTTI_ARG(Reduction, reduction) = kMean;
};

/// Options of BCELoss: weight rescales each element (broadcast).
struct BCELossOptions {
  TUTTI_ARG(Tensor, weight);
  TUTTI_ARG(Reduction, reduction) = kMean;
};

/// Options of BCEWithLogitsLoss: pos_weight multiplies the positive part (broadcast).
struct BCEWithLogitsLossOptions {
  TUTTI_ARG(Tensor, weight);
  TUTTI_ARG(Reduction, reduction) = kMean;
  TUTTI_ARG(Tensor, pos_weight);
};

/// Options of KLDivLoss: log_target says that the target holds log-probabilities.
struct KLDivLossOptions {
  KLDivLossOptions(Reduction reduction = kMean) : reduction_(reduction) {}
  TUTTI_ARG(Reduction, reduction);
  TUTTI_ARG(bool, log_target) = false;
};

namespace functional {

using MSELossFuncOptions = MSELossOptions;
using L1LossFuncOptions = L1LossOptions;
using SmoothL1LossFuncOptions = SmoothL1LossOptions;
using HuberLossFuncOptions = HuberLossOptions;
using CrossEntropyFuncOptions = CrossEntropyLossOptions;
using NLLLossFuncOptions = NLLLossOptions;
using BinaryCrossEntropyFuncOptions = BCELossOptions;
using BinaryCrossEntropyWithLogitsFuncOptions = BCEWithLogitsLossOptions;
using KLDivFuncOptions = KLDivLossOptions;

using tutti::mse_loss;
/// (input - target)^2; shapes broadcast.
Tensor mse_loss(const Tensor& input, const Tensor& target, const MSELossFuncOptions& options);
/// |input - target|.
Tensor l1_loss(const Tensor& input, const Tensor& target, const L1LossFuncOptions& options = {});
/// d^2 / (2 beta) where |d| < beta, else |d| - beta / 2.
Tensor smooth_l1_loss(const Tensor& input, const Tensor& target,
                      const SmoothL1LossFuncOptions& options = {});
/// d^2 / 2 where |d| < delta, else delta (|d| - delta / 2).
Tensor huber_loss(const Tensor& input, const Tensor& target,
                  const HuberLossFuncOptions& options = {});
/// Cross entropy of logits [N, C, d...] or [C] with class indices [N, d...] or [] (integers), or
/// with class probabilities of the logits' shape. The mean is weighted as PyTorch's. IndexError for
/// a class outside of 0..C-1 that is not ignore_index, where values can be read.
Tensor cross_entropy(const Tensor& input, const Tensor& target,
                     const CrossEntropyFuncOptions& options = {});
/// The same for log-probabilities and class indices.
Tensor nll_loss(const Tensor& input, const Tensor& target, const NLLLossFuncOptions& options = {});
/// Of probabilities; logarithms are limited to -100. ShapeError unless the shapes are equal.
Tensor binary_cross_entropy(const Tensor& input, const Tensor& target,
                            const BinaryCrossEntropyFuncOptions& options = {});
/// Of logits.
Tensor binary_cross_entropy_with_logits(
    const Tensor& input, const Tensor& target,
    const BinaryCrossEntropyWithLogitsFuncOptions& options = {});
/// target (log(target) - input) for log-probabilities `input`.
Tensor kl_div(const Tensor& input, const Tensor& target, const KLDivFuncOptions& options = {});

}  // namespace functional

/// TUTTI_LOSS: a module XImpl around functional::f, and its handle.
#define TUTTI_LOSS(Name, f)                                     \
  class Name##Impl : public Cloneable<Name##Impl> {             \
   public:                                                      \
    explicit Name##Impl(const Name##Options& options_ = {});    \
    Tensor forward(const Tensor& input, const Tensor& target) { \
      return functional::f(input, target, options);             \
    }                                                           \
    void pretty_print(std::ostream& out) const override;        \
    Name##Options options;                                      \
  };                                                            \
  TUTTI_MODULE(Name)
/// The same for losses with a class weight, which is a buffer "weight".
#define TUTTI_WEIGHTED_LOSS(Name, f)                                              \
  class Name##Impl : public Cloneable<Name##Impl> {                               \
   public:                                                                        \
    explicit Name##Impl(const Name##Options& options_ = {});                      \
    Tensor forward(const Tensor& input, const Tensor& target) {                   \
      return functional::f(input, target, Name##Options(options).weight(weight)); \
    }                                                                             \
    void pretty_print(std::ostream& out) const override;                          \
    Name##Options options;                                                        \
    Buffer weight;                                                                \
  };                                                                              \
  TUTTI_MODULE(Name)

TUTTI_LOSS(MSELoss, mse_loss);
TUTTI_LOSS(L1Loss, l1_loss);
TUTTI_LOSS(SmoothL1Loss, smooth_l1_loss);
TUTTI_LOSS(HuberLoss, huber_loss);
TUTTI_LOSS(KLDivLoss, kl_div);
TUTTI_WEIGHTED_LOSS(CrossEntropyLoss, cross_entropy);
TUTTI_WEIGHTED_LOSS(NLLLoss, nll_loss);
TUTTI_WEIGHTED_LOSS(BCELoss, binary_cross_entropy);

/// Binary cross entropy of logits; weight and pos_weight are buffers.
class BCEWithLogitsLossImpl : public Cloneable<BCEWithLogitsLossImpl> {
 public:
  explicit BCEWithLogitsLossImpl(const BCEWithLogitsLossOptions& options_ = {});
  Tensor forward(const Tensor& input, const Tensor& target);
  void pretty_print(std::ostream& out) const override;
  BCEWithLogitsLossOptions options;
  Buffer weight, pos_weight;
};
TUTTI_MODULE(BCEWithLogitsLoss);

#undef TUTTI_LOSS
#undef TUTTI_WEIGHTED_LOSS

}  // namespace nn
}  // namespace tutti
