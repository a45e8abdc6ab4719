// The layers as plain functions, and the options they share with the modules. Names, argument
// orders and defaults as torch::nn::functional. Losses are in loss.h.
//
// `F::relu(x)` and the like are the ops of core/ops.h; the overloads here take LibTorch's options.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <tutti/core/ops.h>
#include <tutti/nn/options.h>

namespace tutti::nn {

/// Options of Linear: sizes of the last axis of input and output.
struct LinearOptions {
  LinearOptions(std::int64_t in_features, std::int64_t out_features)
      : in_features_(in_features), out_features_(out_features) {}
  TUTTI_ARG(std::int64_t, in_features);
  TUTTI_ARG(std::int64_t, out_features);
  TUTTI_ARG(bool, bias) = true;
};

/// Options of Flatten: the axes to merge, both included.
struct FlattenOptions {
  TUTTI_ARG(std::int64_t, start_dim) = 1;
  TUTTI_ARG(std::int64_t, end_dim) = -1;
};

/// Options of Embedding. The row padding_idx starts as zeros and gets no gradient.
struct EmbeddingOptions {
  EmbeddingOptions(std::int64_t num_embeddings, std::int64_t embedding_dim)
      : num_embeddings_(num_embeddings), embedding_dim_(embedding_dim) {}
  TUTTI_ARG(std::int64_t, num_embeddings);
  TUTTI_ARG(std::int64_t, embedding_dim);
  TUTTI_ARG(std::optional<std::int64_t>, padding_idx);
};

/// Options of ReLU.
struct ReLUOptions {
  ReLUOptions(bool inplace = false) : inplace_(inplace) {}
  TUTTI_ARG(bool, inplace);
};
/// Options of LeakyReLU.
struct LeakyReLUOptions {
  TUTTI_ARG(double, negative_slope) = 0.01;
  TUTTI_ARG(bool, inplace) = false;
};
/// Options of ELU.
struct ELUOptions {
  TUTTI_ARG(double, alpha) = 1;
  TUTTI_ARG(bool, inplace) = false;
};
/// Options of GELU: approximate is "none" or "tanh".
struct GELUOptions {
  TUTTI_ARG(std::string, approximate) = "none";
};
/// Options of Softplus: log(1 + e^(beta x)) / beta, linear where beta x > threshold.
struct SoftplusOptions {
  TUTTI_ARG(double, beta) = 1;
  TUTTI_ARG(double, threshold) = 20;
};
/// Options of Softmax: the axis along which the result sums to 1.
struct SoftmaxOptions {
  SoftmaxOptions(std::int64_t dim) : dim_(dim) {}
  TUTTI_ARG(std::int64_t, dim);
};
using LogSoftmaxOptions = SoftmaxOptions;

/// Options of Dropout: the probability of a zero.
struct DropoutOptions {
  DropoutOptions(double p = 0.5) : p_(p) {}
  TUTTI_ARG(double, p);
  TUTTI_ARG(bool, inplace) = false;
};

/// Options of LayerNorm: the trailing sizes to normalise over.
struct LayerNormOptions {
  LayerNormOptions(std::vector<std::int64_t> normalized_shape)
      : normalized_shape_(std::move(normalized_shape)) {}
  TUTTI_ARG(std::vector<std::int64_t>, normalized_shape);
  TUTTI_ARG(double, eps) = 1e-5;
  TUTTI_ARG(bool, elementwise_affine) = true;
  TUTTI_ARG(bool, bias) = true;
};

/// Options of BatchNorm: momentum is the weight of the new value; nullopt averages all batches.
struct BatchNormOptions {
  BatchNormOptions(std::int64_t num_features) : num_features_(num_features) {}
  TUTTI_ARG(std::int64_t, num_features);
  TUTTI_ARG(double, eps) = 1e-5;
  TUTTI_ARG(std::optional<double>, momentum) = 0.1;
  TUTTI_ARG(bool, affine) = true;
  TUTTI_ARG(bool, track_running_stats) = true;
};
using BatchNorm1dOptions = BatchNormOptions;

namespace functional {

using tutti::elu;
using tutti::gelu;
using tutti::leaky_relu;
using tutti::linear;
using tutti::log_softmax;
using tutti::logsigmoid;
using tutti::one_hot;
using tutti::relu;
using tutti::sigmoid;
using tutti::silu;
using tutti::softmax;
using tutti::softplus;
using tutti::tanh;

using ReLUFuncOptions = ReLUOptions;
using LeakyReLUFuncOptions = LeakyReLUOptions;
using ELUFuncOptions = ELUOptions;
using GELUFuncOptions = GELUOptions;
using SoftplusFuncOptions = SoftplusOptions;
using SoftmaxFuncOptions = SoftmaxOptions;
using LogSoftmaxFuncOptions = LogSoftmaxOptions;

/// Activations with options; shapes as the input.
Tensor relu(const Tensor& input, const ReLUFuncOptions& options);
Tensor leaky_relu(const Tensor& input, const LeakyReLUFuncOptions& options);
Tensor elu(const Tensor& input, const ELUFuncOptions& options);
Tensor gelu(const Tensor& input, const GELUFuncOptions& options);
Tensor softplus(const Tensor& input, const SoftplusFuncOptions& options);
Tensor softmax(const Tensor& input, const SoftmaxFuncOptions& options);
Tensor log_softmax(const Tensor& input, const LogSoftmaxFuncOptions& options);

/// Options of functional::dropout.
struct DropoutFuncOptions {
  TUTTI_ARG(double, p) = 0.5;
  TUTTI_ARG(bool, training) = true;
  TUTTI_ARG(bool, inplace) = false;
};
/// Zeroes elements with probability p and scales the rest by 1 / (1 - p).
Tensor dropout(const Tensor& input, const DropoutFuncOptions& options = {});
Tensor dropout(const Tensor& input, double p, bool training = true);

/// Options of functional::embedding.
struct EmbeddingFuncOptions {
  TUTTI_ARG(std::optional<std::int64_t>, padding_idx);
};
/// Rows of weight [n, d] by integer input of any shape: [..., d]. Rows picked by padding_idx get no
/// gradient. IndexError for an index outside of weight.
Tensor embedding(const Tensor& input, const Tensor& weight,
                 const EmbeddingFuncOptions& options = {});

/// Options of functional::layer_norm; weight and bias have the shape normalized_shape.
struct LayerNormFuncOptions {
  LayerNormFuncOptions(std::vector<std::int64_t> normalized_shape)
      : normalized_shape_(std::move(normalized_shape)) {}
  TUTTI_ARG(std::vector<std::int64_t>, normalized_shape);
  TUTTI_ARG(Tensor, weight);
  TUTTI_ARG(Tensor, bias);
  TUTTI_ARG(double, eps) = 1e-5;
};
/// Zero mean and unit variance over the trailing axes, then weight and bias. ShapeError if the
/// input does not end in normalized_shape.
Tensor layer_norm(const Tensor& input, const LayerNormFuncOptions& options);

/// Options of functional::batch_norm; weight and bias are [C].
struct BatchNormFuncOptions {
  TUTTI_ARG(Tensor, weight);
  TUTTI_ARG(Tensor, bias);
  TUTTI_ARG(bool, training) = false;
  TUTTI_ARG(std::optional<double>, momentum) = 0.1;
  TUTTI_ARG(double, eps) = 1e-5;
};
/// Normalises each channel of [N, C, ...]: in training by the batch's statistics, which then update
/// the running ones (if defined) in place; else by the running ones. ValueError when training with
/// one value per channel.
Tensor batch_norm(const Tensor& input, const Tensor& running_mean, const Tensor& running_var,
                  const BatchNormFuncOptions& options = {});

namespace detail {
/// batch_norm with the weight of the new statistics as a number or, if defined, a 0-d tensor.
Tensor batch_norm(const Tensor& input, const Tensor& running_mean, const Tensor& running_var,
                  const Tensor& weight, const Tensor& bias, bool training, double momentum,
                  const Tensor& factor, double eps);
}  // namespace detail

/// Options of functional::normalize.
struct NormalizeFuncOptions {
  TUTTI_ARG(double, p) = 2;
  TUTTI_ARG(std::int64_t, dim) = 1;
  TUTTI_ARG(double, eps) = 1e-12;
};
/// input / max(p-norm along dim, eps).
Tensor normalize(const Tensor& input, const NormalizeFuncOptions& options = {});

}  // namespace functional
}  // namespace tutti::nn
