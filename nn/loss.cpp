// Losses.
#include <ostream>

#include <tutti/nn/loss.h>

namespace tutti::nn {

Reduction::Reduction(std::string_view name) : value_(none) {
  if (name == "mean")
    value_ = mean;
  else if (name == "sum")
    value_ = sum;
  else if (name == "batchmean")
    value_ = batch_mean;
  else
    check<ValueError>(name == "none", "Reduction",
                      "expected \"none\", \"mean\", \"sum\" or \"batchmean\", got \"", name,
                      "\"; write one of them");
}

namespace functional {
namespace {

[[noreturn]] void fail_batch_mean(const char* op) {
  fail<ValueError>(
      op, "expected another reduction, got \"batchmean\", which is for kl_div only; use \"mean\"");
}

Tensor reduced(const Tensor& loss, Reduction reduction, const char* op) {
  switch (reduction) {
    case Reduction::none:
      return loss;
    case Reduction::mean:
      return loss.mean();
    case Reduction::sum:
      return loss.sum();
    case Reduction::batch_mean:
      break;
  }
  fail_batch_mean(op);
}

void check_same_shape(const Tensor& input, const Tensor& target, const char* op) {
  check<ShapeError>(input.sizes() == target.sizes(), op,
                    "expected input and target of one shape, got ", input.sizes(), " and ",
                    target.sizes(), "; reshape or expand() one");
}

// ---- classes

/// What the ops of core call it.
std::int64_t plain(Reduction reduction, const char* op) {
  if (reduction == Reduction::batch_mean) fail_batch_mean(op);
  return reduction;
}

}  // namespace

Tensor cross_entropy(const Tensor& input, const Tensor& target,
                     const CrossEntropyFuncOptions& options) {
  Naming naming("cross_entropy");
  return cross_entropy_loss(input, target, options.weight(),
                            plain(options.reduction(), "cross_entropy"), options.ignore_index(),
                            options.label_smoothing());
}

Tensor nll_loss(const Tensor& input, const Tensor& target, const NLLLossFuncOptions& options) {
  Naming naming("nll_loss");
  return tutti::nll_loss(input, target, options.weight(), plain(options.reduction(), "nll_loss"),
                         options.ignore_index());
}

// ---- numbers

Tensor mse_loss(const Tensor& input, const Tensor& target, const MSELossFuncOptions& options) {
  Naming naming("mse_loss");
  if (options.reduction() == Reduction::mean) return tutti::mse_loss(input, target);
  return reduced((input - target).square(), options.reduction(), "mse_loss");
}

Tensor l1_loss(const Tensor& input, const Tensor& target, const L1LossFuncOptions& options) {
  Naming naming("l1_loss");
  return reduced((input - target).abs(), options.reduction(), "l1_loss");
}

Tensor smooth_l1_loss(const Tensor& input, const Tensor& target,
                      const SmoothL1LossFuncOptions& options) {
  Naming naming("smooth_l1_loss");
  const double beta = options.beta();
  check<ValueError>(beta >= 0, "smooth_l1_loss", "expected beta >= 0, got ", beta,
                    "; 0 is the L1 loss");
  const Tensor d = (input - target).abs();
  if (beta == 0) return reduced(d, options.reduction(), "smooth_l1_loss");
  return reduced(where(d < beta, d.square() * (0.5 / beta), d - 0.5 * beta), options.reduction(),
                 "smooth_l1_loss");
}

Tensor huber_loss(const Tensor& input, const Tensor& target, const HuberLossFuncOptions& options) {
  Naming naming("huber_loss");
  const double delta = options.delta();
  check<ValueError>(delta > 0, "huber_loss", "expected delta > 0, got ", delta,
                    "; use l1_loss() for 0");
  const Tensor d = (input - target).abs();
  return reduced(where(d < delta, d.square() * 0.5, (d - 0.5 * delta) * delta), options.reduction(),
                 "huber_loss");
}

// ---- probabilities

namespace {

/// max(log(p), -100), with derivative 0 at p = 0.
Tensor limited_log(const Tensor& p) {
  const Tensor positive = p > 0;
  return where(positive, where(positive, p, 1).log().clamp_min(-100), -100);
}

}  // namespace

Tensor binary_cross_entropy(const Tensor& input, const Tensor& target,
                            const BinaryCrossEntropyFuncOptions& options) {
  Naming naming("binary_cross_entropy");
  check_same_shape(input, target, "binary_cross_entropy");
  Tensor loss = -(target * limited_log(input) + (1 - target) * limited_log(1 - input));
  if (options.weight().defined()) loss = loss * options.weight();
  return reduced(loss, options.reduction(), "binary_cross_entropy");
}

Tensor binary_cross_entropy_with_logits(const Tensor& input, const Tensor& target,
                                        const BinaryCrossEntropyWithLogitsFuncOptions& options) {
  Naming naming("binary_cross_entropy_with_logits");
  check_same_shape(input, target, "binary_cross_entropy_with_logits");
  Tensor log_p = input.logsigmoid();
  if (options.pos_weight().defined()) log_p = log_p * (target * (options.pos_weight() - 1) + 1);
  Tensor loss = (1 - target) * input - log_p;
  if (options.weight().defined()) loss = loss * options.weight();
  return reduced(loss, options.reduction(), "binary_cross_entropy_with_logits");
}

Tensor kl_div(const Tensor& input, const Tensor& target, const KLDivFuncOptions& options) {
  Naming naming("kl_div");
  Tensor loss;
  if (options.log_target()) {
    loss = target.exp() * (target - input);
  } else {
    const Tensor positive = target > 0;
    loss = where(positive, target * where(positive, target, 1).log(), 0) - target * input;
  }
  if (options.reduction() != Reduction::batch_mean)
    return reduced(loss, options.reduction(), "kl_div");
  check<ShapeError>(
      input.dim() > 0, "kl_div",
      "expected an input with a batch axis for \"batchmean\", got a 0-d tensor; use \"mean\"");
  return loss.sum() / static_cast<double>(input.size(0));
}

}  // namespace functional

// ---- modules

#define TUTTI_LOSS(Name)                                                       \
  Name##Impl::Name##Impl(const Name##Options& options_) : options(options_) {} \
  void Name##Impl::pretty_print(std::ostream& out) const { out << "nn::" #Name "()"; }
#define TUTTI_WEIGHTED_LOSS(Name)                                             \
  Name##Impl::Name##Impl(const Name##Options& options_) : options(options_) { \
    weight = register_buffer("weight", options.weight());                     \
    options.weight(Tensor());                                                 \
  }                                                                           \
  void Name##Impl::pretty_print(std::ostream& out) const { out << "nn::" #Name "()"; }

TUTTI_LOSS(MSELoss)
TUTTI_LOSS(L1Loss)
TUTTI_LOSS(SmoothL1Loss)
TUTTI_LOSS(HuberLoss)
TUTTI_LOSS(KLDivLoss)
TUTTI_WEIGHTED_LOSS(CrossEntropyLoss)
TUTTI_WEIGHTED_LOSS(NLLLoss)
TUTTI_WEIGHTED_LOSS(BCELoss)

BCEWithLogitsLossImpl::BCEWithLogitsLossImpl(const BCEWithLogitsLossOptions& options_)
    : options(options_) {
  weight = register_buffer("weight", options.weight());
  pos_weight = register_buffer("pos_weight", options.pos_weight());
  options.weight(Tensor()).pos_weight(Tensor());
}

Tensor BCEWithLogitsLossImpl::forward(const Tensor& input, const Tensor& target) {
  return functional::binary_cross_entropy_with_logits(
      input, target, BCEWithLogitsLossOptions(options).weight(weight).pos_weight(pos_weight));
}

void BCEWithLogitsLossImpl::pretty_print(std::ostream& out) const {
  out << "nn::BCEWithLogitsLoss()";
}

}  // namespace tutti::nn
