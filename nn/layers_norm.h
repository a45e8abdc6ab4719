// Normalising layers: LayerNorm and BatchNorm1d.
#pragma once
#include <tutti/nn/functional.h>
#include <tutti/nn/module.h>

namespace tutti::nn {

/// Zero mean and unit variance over the trailing axes, then weight (ones) and bias (zeros).
class LayerNormImpl : public Cloneable<LayerNormImpl> {
 public:
  explicit LayerNormImpl(std::int64_t size)
      : LayerNormImpl(LayerNormOptions(std::vector<std::int64_t>{size})) {}
  explicit LayerNormImpl(const LayerNormOptions& options);
  void reset_parameters();
  Tensor forward(const Tensor& input);
  void pretty_print(std::ostream& out) const override;

  LayerNormOptions options;
  Parameter weight, bias;
};
TUTTI_MODULE(LayerNorm);

/// Normalises each channel of [N, C] or [N, C, L] by the batch's mean and biased variance when
/// training, by the running ones (mean, unbiased variance) otherwise. num_batches_tracked counts
/// training batches. Inside a transform, pass the buffers through functional_call; they are
/// updated there.
class BatchNorm1dImpl : public Cloneable<BatchNorm1dImpl> {
 public:
  explicit BatchNorm1dImpl(const BatchNormOptions& options);
  void reset_running_stats();
  void reset_parameters();
  Tensor forward(const Tensor& input);
  void pretty_print(std::ostream& out) const override;

  BatchNormOptions options;
  Parameter weight, bias;
  Buffer running_mean, running_var, num_batches_tracked;
};
TUTTI_MODULE(BatchNorm1d);

}  // namespace tutti::nn
