// Linear, Identity, Flatten, Embedding, Dropout.
#include <cmath>
#include <ostream>

#include <tutti/nn/init.h>
#include <tutti/nn/layers.h>

namespace tutti::nn {
namespace {
const char* yes_no(bool v) { return v ? "true" : "false"; }
}  // namespace

LinearImpl::LinearImpl(const LinearOptions& options_) : options(options_) {
  const std::int64_t in = options.in_features(), out = options.out_features();
  check<ValueError>(in >= 0 && out >= 0, "Linear", "expected sizes that are not negative, got ", in,
                    " and ", out, "; give in_features, out_features");
  weight = register_parameter("weight", empty({out, in}));
  bias = register_parameter("bias", options.bias() ? empty(out) : Tensor());
  reset_parameters();
}

void LinearImpl::reset_parameters() {
  if (weight.numel() == 0) {
    if (bias.defined()) init::zeros_(bias);
    return;
  }
  init::kaiming_uniform_(weight, std::sqrt(5.0));
  if (bias.defined()) {
    const double bound = 1 / std::sqrt(static_cast<double>(weight.size(1)));
    init::uniform_(bias, -bound, bound);
  }
}

void LinearImpl::pretty_print(std::ostream& out) const {
  out << "nn::Linear(in_features=" << options.in_features()
      << ", out_features=" << options.out_features() << ", bias=" << yes_no(options.bias()) << ")";
}

void IdentityImpl::pretty_print(std::ostream& out) const { out << "nn::Identity()"; }

void FlattenImpl::pretty_print(std::ostream& out) const {
  out << "nn::Flatten(start_dim=" << options.start_dim() << ", end_dim=" << options.end_dim()
      << ")";
}

EmbeddingImpl::EmbeddingImpl(const EmbeddingOptions& options_) : options(options_) {
  const std::int64_t n = options.num_embeddings();
  if (auto& padding = options.padding_idx()) {
    check<ValueError>(*padding >= -n && *padding < n, "Embedding",
                      "expected padding_idx within num_embeddings = ", n, ", got ", *padding,
                      "; count from 0, or from the end by -1");
    if (*padding < 0) *padding += n;
  }
  weight = register_parameter("weight", empty({n, options.embedding_dim()}));
  reset_parameters();
}

void EmbeddingImpl::reset_parameters() {
  init::normal_(weight);
  if (options.padding_idx()) init::zeros_(weight.select(0, *options.padding_idx()));
}

Tensor EmbeddingImpl::forward(const Tensor& input) {
  return functional::embedding(
      input, weight, functional::EmbeddingFuncOptions().padding_idx(options.padding_idx()));
}

void EmbeddingImpl::pretty_print(std::ostream& out) const {
  out << "nn::Embedding(num_embeddings=" << options.num_embeddings()
      << ", embedding_dim=" << options.embedding_dim();
  if (options.padding_idx()) out << ", padding_idx=" << *options.padding_idx();
  out << ")";
}

DropoutImpl::DropoutImpl(const DropoutOptions& options_) : options(options_) {
  check<ValueError>(options.p() >= 0 && options.p() <= 1, "Dropout",
                    "expected a probability between 0 and 1, got ", options.p(),
                    "; give the share of zeros");
}

Tensor DropoutImpl::forward(const Tensor& input) {
  return functional::dropout(input, functional::DropoutFuncOptions()
                                        .p(options.p())
                                        .training(is_training())
                                        .inplace(options.inplace()));
}

void DropoutImpl::pretty_print(std::ostream& out) const {
  out << "nn::Dropout(p=" << options.p() << ", inplace=" << yes_no(options.inplace()) << ")";
}

}  // namespace tutti::nn
