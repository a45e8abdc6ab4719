// Layers as functions, composed of public ops so that every transform works on them.
#include <tutti/nn/functional.h>

namespace tutti::nn::functional {

// ---- activations

Tensor relu(const Tensor& input, const ReLUFuncOptions& options) {
  return options.inplace() ? tutti::relu_(input) : tutti::relu(input);
}

Tensor leaky_relu(const Tensor& input, const LeakyReLUFuncOptions& options) {
  const Tensor y = tutti::leaky_relu(input, options.negative_slope());
  return options.inplace() ? tutti::copy_(input, y) : y;
}

Tensor elu(const Tensor& input, const ELUFuncOptions& options) {
  const Tensor y = tutti::elu(input, options.alpha());
  return options.inplace() ? tutti::copy_(input, y) : y;
}

Tensor gelu(const Tensor& input, const GELUFuncOptions& options) {
  return tutti::gelu(input, options.approximate());
}

Tensor softplus(const Tensor& input, const SoftplusFuncOptions& options) {
  return tutti::softplus(input, options.beta(), options.threshold());
}

Tensor softmax(const Tensor& input, const SoftmaxFuncOptions& options) {
  return tutti::softmax(input, options.dim());
}

Tensor log_softmax(const Tensor& input, const LogSoftmaxFuncOptions& options) {
  return tutti::log_softmax(input, options.dim());
}

Tensor dropout(const Tensor& input, const DropoutFuncOptions& options) {
  const Tensor y = tutti::dropout(input, options.p(), options.training());
  return options.inplace() && !y.is_same(input) ? tutti::copy_(input, y) : y;
}

Tensor dropout(const Tensor& input, double p, bool training) {
  return tutti::dropout(input, p, training);
}

// ---- embedding

Tensor embedding(const Tensor& input, const Tensor& weight, const EmbeddingFuncOptions& options) {
  Naming naming("embedding");
  check<ShapeError>(weight.dim() == 2, "embedding", "expected a weight of shape [n, d], got ",
                    weight.sizes(), "; give one row per index value");
  check<TypeError>(is_integral(input.dtype()), "embedding", "expected integer indices, got ",
                   input.dtype(), "; convert them with to(kInt64)");
  const Tensor index = input.to(kInt64);
  Shape sizes = input.sizes().shape();
  sizes.push_back(weight.size(1));
  Tensor rows = weight.index_select(0, index.reshape({-1})).reshape(sizes);
  if (options.padding_idx()) {
    const std::int64_t n = weight.size(0), given = *options.padding_idx();
    check<IndexError>(given >= -n && given < n, "embedding", "expected padding_idx within ", n,
                      " rows, got ", given, "; count from 0, or from the end by -1");
    const std::int64_t padding = given < 0 ? given + n : given;
    rows = where((index == padding).unsqueeze(-1), rows.detach(), rows);
  }
  return rows;
}

// ---- normalisation

Tensor layer_norm(const Tensor& input, const LayerNormFuncOptions& options) {
  return tutti::layer_norm(input, options.normalized_shape(), options.weight(), options.bias(),
                           options.eps());
}

Tensor detail::batch_norm(const Tensor& input, const Tensor& running_mean,
                          const Tensor& running_var, const Tensor& weight, const Tensor& bias,
                          bool training, double momentum, const Tensor& factor, double eps) {
  if (!training) {
    check<ValueError>(running_mean.defined() && running_var.defined(), "batch_norm",
                      "expected running_mean and running_var when not training, got none; pass "
                      "both, or set training");
    return batch_norm_eval(input, running_mean, running_var, weight, bias, eps);
  }
  const std::int64_t channels = input.dim() < 2 ? 0 : input.size(1);
  for (const Tensor* t : {&running_mean, &running_var})
    check<ShapeError>(!t->defined() || input.dim() < 2 || t->sizes() == IntArrayRef(channels),
                      "batch_norm", "expected statistics, weight and bias of shape [", channels,
                      "], the input's axis 1, got ", t->defined() ? t->sizes() : IntArrayRef(),
                      "; give one number per channel");
  const std::int64_t n = channels == 0 ? 0 : input.numel() / channels;
  check<ValueError>(n != 1, "batch_norm",
                    "expected more than 1 value per channel when training, got shape ",
                    input.sizes(), "; use a larger batch, or eval()");
  const auto [y, mean, var] = batch_norm_train(input, weight, bias, eps);
  const auto update = [&](const Tensor& running, const Tensor& now) {
    if (!running.defined()) return;
    if (factor.defined())
      running.copy_(running * (1 - factor) + now * factor);
    else
      running.copy_(running * (1 - momentum) + now * momentum);
  };
  update(running_mean, mean.detach());
  update(running_var, var.detach() * (static_cast<double>(n) / static_cast<double>(n - 1)));
  return y;
}

Tensor batch_norm(const Tensor& input, const Tensor& running_mean, const Tensor& running_var,
                  const BatchNormFuncOptions& options) {
  check<ValueError>(options.momentum().has_value(), "batch_norm",
                    "expected a momentum, got none; the average over all batches needs the module");
  return detail::batch_norm(input, running_mean, running_var, options.weight(), options.bias(),
                            options.training(), *options.momentum(), Tensor(), options.eps());
}

Tensor normalize(const Tensor& input, const NormalizeFuncOptions& options) {
  return input / input.norm(options.p(), options.dim(), true).clamp_min(options.eps());
}

}  // namespace tutti::nn::functional
