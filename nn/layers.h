// Layers: Linear, Identity, Flatten, Embedding, Dropout. Each is a class XImpl, a handle X and
// options XOptions with LibTorch's member names and defaults. All layers' headers are included
// here.
#pragma once
#include <tutti/nn/functional.h>
#include <tutti/nn/module.h>

namespace tutti::nn {

/// y = x weight^T + bias for x [..., in_features]. Weight [out, in] and bias [out] start uniform in
/// +-1/sqrt(in_features).
class LinearImpl : public Cloneable<LinearImpl> {
 public:
  LinearImpl(std::int64_t in_features, std::int64_t out_features)
      : LinearImpl(LinearOptions(in_features, out_features)) {}
  explicit LinearImpl(const LinearOptions& options);
  /// New random values for weight and bias.
  void reset_parameters();
  Tensor forward(const Tensor& input) { return tutti::linear(input, weight, bias); }
  void pretty_print(std::ostream& out) const override;

  LinearOptions options;
  Parameter weight, bias;
};
TUTTI_MODULE(Linear);

/// Returns its input.
class IdentityImpl : public Cloneable<IdentityImpl> {
 public:
  Tensor forward(const Tensor& input) { return input; }
  void pretty_print(std::ostream& out) const override;
};
TUTTI_MODULE(Identity);

/// Merges axes start_dim..end_dim, by default all but the first.
class FlattenImpl : public Cloneable<FlattenImpl> {
 public:
  explicit FlattenImpl(const FlattenOptions& options_ = {}) : options(options_) {}
  Tensor forward(const Tensor& input) {
    return input.flatten(options.start_dim(), options.end_dim());
  }
  void pretty_print(std::ostream& out) const override;

  FlattenOptions options;
};
TUTTI_MODULE(Flatten);

/// Rows of weight [num_embeddings, embedding_dim] by integer input of any shape. Starts normal.
class EmbeddingImpl : public Cloneable<EmbeddingImpl> {
 public:
  EmbeddingImpl(std::int64_t num_embeddings, std::int64_t embedding_dim)
      : EmbeddingImpl(EmbeddingOptions(num_embeddings, embedding_dim)) {}
  explicit EmbeddingImpl(const EmbeddingOptions& options);
  void reset_parameters();
  Tensor forward(const Tensor& input);
  void pretty_print(std::ostream& out) const override;

  EmbeddingOptions options;
  Parameter weight;
};
TUTTI_MODULE(Embedding);

/// Zeroes elements with probability p and scales the rest by 1 / (1 - p) when training.
class DropoutImpl : public Cloneable<DropoutImpl> {
 public:
  explicit DropoutImpl(const DropoutOptions& options = {});
  Tensor forward(const Tensor& input);
  void pretty_print(std::ostream& out) const override;

  DropoutOptions options;
};
TUTTI_MODULE(Dropout);

}  // namespace tutti::nn

#include <tutti/nn/layers_activation.h>
#include <tutti/nn/layers_container.h>
#include <tutti/nn/layers_norm.h>
