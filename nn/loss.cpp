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
  fail<ValueError>(
      op, "expected another reduction, got \"batchmean\", which is for kl_div only; use \"mean\"");
}

void check_same_shape(const Tensor& input, const Tensor& target, const char* op) {
  check<ShapeError>(input.sizes() == target.sizes(), op,
                    "expected input and target of one shape, got ", input.sizes(), " and ",
                    target.sizes(), "; reshape or expand() one");
}

// ---- classes

/// Where the classes are: [N, C, d...] or [C].
std::int64_t class_axis(const Tensor& input, const char* op) {
  check<ShapeError>(
      input.dim() >= 1, op,
      "expected an input [C] or [N, C, ...], got a 0-d tensor; keep the axis of the classes");
  return input.dim() == 1 ? 0 : 1;
}

Shape without(IntArrayRef sizes, std::int64_t axis) {
  Shape s = sizes.shape();
  s.erase(s.begin() + axis);
  return s;
}

/// [C] as [1, C, 1...], to multiply values with axes like the input.
Tensor along_classes(const Tensor& weight, const Tensor& input, std::int64_t axis) {
  Shape s(static_cast<std::size_t>(input.dim()), 1);
  s[static_cast<std::size_t>(axis)] = input.size(axis);
  return weight.reshape(s);
}

void check_weight(const Tensor& weight, const Tensor& input, std::int64_t axis, const char* op) {
  check<ShapeError>(!weight.defined() || weight.sizes() == IntArrayRef(input.size(axis)), op,
                    "expected a weight per class [", input.size(axis), "], got ",
                    weight.defined() ? weight.sizes() : IntArrayRef(),
                    "; give one number per class");
}

/// Class indices, prepared for gathering: ignored ones read class 0 and are masked afterwards, so
/// that nothing depends on values.
struct Classes {
  Classes(const Tensor& input, const Tensor& target, std::int64_t axis, std::int64_t ignore_index,
          const char* op) {
    check<TypeError>(is_integral(target.dtype()), op,
                     "expected class indices (integers) or probabilities of the input's shape ",
                     input.sizes(), ", got ", target.dtype(), " of shape ", target.sizes(),
                     "; convert with to(kInt64)");
    check<ShapeError>(target.sizes() == without(input.sizes(), axis), op,
                      "expected class indices of shape ", without(input.sizes(), axis),
                      " for an input of shape ", input.sizes(), ", got ", target.sizes(),
                      "; put the classes on axis 1 of the input, or squeeze() the target");
    const Tensor wide = target.to(kInt64);
    ignored = wide == ignore_index;
    safe = wide.masked_fill(ignored, 0).unsqueeze(axis);
  }
  /// values[..., class, ...] for each target.
  Tensor pick(const Tensor& values, std::int64_t axis) const {
    return values.gather(axis, safe).squeeze(axis);
  }
  Tensor ignored, safe;
};

/// The weight of every target, 0 where ignored.
Tensor target_weights(const Classes& classes, const Tensor& weight, const Tensor& like,
                      std::int64_t axis) {
  if (!weight.defined()) return (!classes.ignored).to(like.dtype());
  const Tensor spread = along_classes(weight, like, axis).expand(like.sizes());
  return classes.pick(spread, axis).masked_fill(classes.ignored, 0);
}

/// nll_loss of prepared targets; `weights` are theirs.
Tensor nll(const Tensor& log_p, const Classes& classes, const Tensor& weight, const Tensor& weights,
           std::int64_t axis, Reduction reduction, const char* op) {
  Tensor loss = -classes.pick(log_p, axis);
  if (weight.defined()) loss = loss * weights;
  loss = loss.masked_fill(classes.ignored, 0);
  return reduction == Reduction::mean ? loss.sum() / weights.sum() : reduced(loss, reduction, op);
}

}  // namespace

Tensor cross_entropy(const Tensor& input, const Tensor& target,
                     const CrossEntropyFuncOptions& options) {
  Naming naming("cross_entropy");
  const char* op = "cross_entropy";
  const std::int64_t axis = class_axis(input, op);
  const double smoothing = options.label_smoothing();
  const Tensor& weight = options.weight();
  check<ValueError>(smoothing >= 0 && smoothing <= 1, op,
                    "expected a label_smoothing between 0 and 1, got ", smoothing, "; 0 is none");
  check<TypeError>(input.is_floating_point(), op, "expected floating logits, got ", input.dtype(),
                   "; convert with to(kFloat32)");
  check_weight(weight, input, axis, op);
  const Tensor log_p = input.log_softmax(axis);
  const double classes_count = static_cast<double>(input.size(axis));

  if (target.is_floating_point()) {
    check_same_shape(input, target, op);
    Tensor p = smoothing > 0 ? target * (1 - smoothing) + smoothing / classes_count : target;
    if (weight.defined()) p = p * along_classes(weight, input, axis);
    const Tensor loss = -(log_p * p).sum(axis);
    return reduced(loss, options.reduction(), op);
  }

  const Classes classes(input, target, axis, options.ignore_index(), op);
  const Tensor weights = target_weights(classes, weight, input, axis);
  const Tensor hard = nll(log_p, classes, weight, weights, axis, options.reduction(), op);
  if (smoothing == 0) return hard;
  Tensor spread = weight.defined() ? log_p * along_classes(weight, input, axis) : log_p;
  spread = (-spread.sum(axis)).masked_fill(classes.ignored, 0);
  const Tensor soft = options.reduction() == Reduction::mean
                          ? spread.sum() / weights.sum()
                          : reduced(spread, options.reduction(), op);
  return hard * (1 - smoothing) + soft * (smoothing / classes_count);
}

Tensor nll_loss(const Tensor& input, const Tensor& target, const NLLLossFuncOptions& options) {
  Naming naming("nll_loss");
  const char* op = "nll_loss";
  const std::int64_t axis = class_axis(input, op);
  check_weight(options.weight(), input, axis, op);
  const Classes classes(input, target, axis, options.ignore_index(), op);
  const Tensor weights = target_weights(classes, options.weight(), input, axis);
  return nll(input, classes, options.weight(), weights, axis, options.reduction(), op);
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
