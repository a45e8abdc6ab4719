// LayerNorm and BatchNorm1d.
#include <ostream>

#include <tutti/nn/init.h>
#include <tutti/nn/layers_norm.h>

namespace tutti::nn {

LayerNormImpl::LayerNormImpl(const LayerNormOptions& options_) : options(options_) {
  const IntArrayRef shape = options.normalized_shape();
  const bool affine = options.elementwise_affine();
  weight = register_parameter("weight", affine ? empty(shape) : Tensor());
  bias = register_parameter("bias", affine && options.bias() ? empty(shape) : Tensor());
  reset_parameters();
}

void LayerNormImpl::reset_parameters() {
  if (weight.defined()) init::ones_(weight);
  if (bias.defined()) init::zeros_(bias);
}

Tensor LayerNormImpl::forward(const Tensor& input) {
  return functional::layer_norm(input, functional::LayerNormFuncOptions(options.normalized_shape())
                                           .weight(weight)
                                           .bias(bias)
                                           .eps(options.eps()));
}

void LayerNormImpl::pretty_print(std::ostream& out) const {
  out << "nn::LayerNorm([";
  for (std::size_t i = 0; i < options.normalized_shape().size(); ++i)
    out << (i > 0 ? ", " : "") << options.normalized_shape()[i];
  out << "], eps=" << options.eps()
      << ", elementwise_affine=" << (options.elementwise_affine() ? "true" : "false") << ")";
}

BatchNorm1dImpl::BatchNorm1dImpl(const BatchNormOptions& options_) : options(options_) {
  const std::int64_t n = options.num_features();
  weight = register_parameter("weight", options.affine() ? empty(n) : Tensor());
  bias = register_parameter("bias", options.affine() ? empty(n) : Tensor());
  if (options.track_running_stats()) {
    running_mean = register_buffer("running_mean", zeros(n));
    running_var = register_buffer("running_var", ones(n));
    num_batches_tracked = register_buffer("num_batches_tracked", zeros({}, kInt64));
  }
  reset_parameters();
}

void BatchNorm1dImpl::reset_running_stats() {
  if (!options.track_running_stats()) return;
  init::zeros_(running_mean);
  init::ones_(running_var);
  num_batches_tracked.zero_();
}

void BatchNorm1dImpl::reset_parameters() {
  reset_running_stats();
  if (weight.defined()) init::ones_(weight);
  if (bias.defined()) init::zeros_(bias);
}

Tensor BatchNorm1dImpl::forward(const Tensor& input) {
  check<ValueError>(input.dim() == 2 || input.dim() == 3, "BatchNorm1d",
                    "expected an input [N, C] or [N, C, L], got shape ", input.sizes(),
                    "; keep the batch axis, as the statistics are over it");
  const bool tracking = running_mean.defined();
  Tensor factor;  // of the new statistics: 1 / batches so far, unless there is a momentum
  if (is_training() && tracking) {
    num_batches_tracked.add_(1);
    if (!options.momentum()) factor = num_batches_tracked.to(running_mean.dtype()).reciprocal();
  }
  return functional::detail::batch_norm(input, running_mean, running_var, weight, bias,
                                        is_training() || !tracking, options.momentum().value_or(0),
                                        factor, options.eps());
}

void BatchNorm1dImpl::pretty_print(std::ostream& out) const {
  out << "nn::BatchNorm1d(" << options.num_features() << ", eps=" << options.eps() << ", momentum=";
  if (options.momentum())
    out << *options.momentum();
  else
    out << "none";
  out << ", affine=" << (options.affine() ? "true" : "false")
      << ", track_running_stats=" << (options.track_running_stats() ? "true" : "false") << ")";
}

}  // namespace tutti::nn
