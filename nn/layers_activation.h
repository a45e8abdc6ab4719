// Activations as layers: ReLU, LeakyReLU, ELU, GELU, SiLU, Sigmoid, Tanh, Softplus, Softmax,
// LogSoftmax, and Functional for any function of a tensor. Shapes stay as they are.
#pragma once
#include <functional>

#include <tutti/nn/functional.h>
#include <tutti/nn/module.h>

namespace tutti::nn {

/// max(x, 0).
class ReLUImpl : public Cloneable<ReLUImpl> {
 public:
  explicit ReLUImpl(const ReLUOptions& options_ = {}) : options(options_) {}
  Tensor forward(const Tensor& input) { return functional::relu(input, options); }
  void pretty_print(std::ostream& out) const override;
  ReLUOptions options;
};
TUTTI_MODULE(ReLU);

/// x where positive, else negative_slope * x.
class LeakyReLUImpl : public Cloneable<LeakyReLUImpl> {
 public:
  explicit LeakyReLUImpl(const LeakyReLUOptions& options_ = {}) : options(options_) {}
  Tensor forward(const Tensor& input) { return functional::leaky_relu(input, options); }
  void pretty_print(std::ostream& out) const override;
  LeakyReLUOptions options;
};
TUTTI_MODULE(LeakyReLU);

/// x where positive, else alpha * (e^x - 1).
class ELUImpl : public Cloneable<ELUImpl> {
 public:
  explicit ELUImpl(const ELUOptions& options_ = {}) : options(options_) {}
  Tensor forward(const Tensor& input) { return functional::elu(input, options); }
  void pretty_print(std::ostream& out) const override;
  ELUOptions options;
};
TUTTI_MODULE(ELU);

/// x * Phi(x).
class GELUImpl : public Cloneable<GELUImpl> {
 public:
  explicit GELUImpl(const GELUOptions& options_ = {}) : options(options_) {}
  Tensor forward(const Tensor& input) { return functional::gelu(input, options); }
  void pretty_print(std::ostream& out) const override;
  GELUOptions options;
};
TUTTI_MODULE(GELU);

/// x * sigmoid(x).
class SiLUImpl : public Cloneable<SiLUImpl> {
 public:
  Tensor forward(const Tensor& input) { return tutti::silu(input); }
  void pretty_print(std::ostream& out) const override;
};
TUTTI_MODULE(SiLU);

/// 1 / (1 + e^-x).
class SigmoidImpl : public Cloneable<SigmoidImpl> {
 public:
  Tensor forward(const Tensor& input) { return tutti::sigmoid(input); }
  void pretty_print(std::ostream& out) const override;
};
TUTTI_MODULE(Sigmoid);

/// Hyperbolic tangent.
class TanhImpl : public Cloneable<TanhImpl> {
 public:
  Tensor forward(const Tensor& input) { return tutti::tanh(input); }
  void pretty_print(std::ostream& out) const override;
};
TUTTI_MODULE(Tanh);

/// log(1 + e^(beta x)) / beta.
class SoftplusImpl : public Cloneable<SoftplusImpl> {
 public:
  explicit SoftplusImpl(const SoftplusOptions& options_ = {}) : options(options_) {}
  Tensor forward(const Tensor& input) { return functional::softplus(input, options); }
  void pretty_print(std::ostream& out) const override;
  SoftplusOptions options;
};
TUTTI_MODULE(Softplus);

/// e^x / sum(e^x) along an axis.
class SoftmaxImpl : public Cloneable<SoftmaxImpl> {
 public:
  explicit SoftmaxImpl(std::int64_t dim) : options(dim) {}
  explicit SoftmaxImpl(const SoftmaxOptions& options_) : options(options_) {}
  Tensor forward(const Tensor& input) { return functional::softmax(input, options); }
  void pretty_print(std::ostream& out) const override;
  SoftmaxOptions options;
};
TUTTI_MODULE(Softmax);

/// x - log(sum(e^x)) along an axis.
class LogSoftmaxImpl : public Cloneable<LogSoftmaxImpl> {
 public:
  explicit LogSoftmaxImpl(std::int64_t dim) : options(dim) {}
  explicit LogSoftmaxImpl(const LogSoftmaxOptions& options_) : options(options_) {}
  Tensor forward(const Tensor& input) { return functional::log_softmax(input, options); }
  void pretty_print(std::ostream& out) const override;
  LogSoftmaxOptions options;
};
TUTTI_MODULE(LogSoftmax);

/// Any function from a tensor to a tensor as a layer, so that it can stand in a Sequential.
class FunctionalImpl : public Cloneable<FunctionalImpl> {
 public:
  using Function = std::function<Tensor(Tensor)>;
  explicit FunctionalImpl(Function function) : function_(std::move(function)) {}
  Tensor forward(const Tensor& input) { return function_(input); }
  void pretty_print(std::ostream& out) const override;

 private:
  Function function_;
};
TUTTI_MODULE(Functional);

}  // namespace tutti::nn
