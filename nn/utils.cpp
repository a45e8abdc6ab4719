// Gradient clipping, and parameters as one vector.
#include <algorithm>
#include <cmath>

#include <tutti/autograd/autograd.h>
#include <tutti/core/ops.h>
#include <tutti/nn/utils.h>

namespace tutti::nn::utils {
namespace {

std::vector<Tensor> gradients(const std::vector<Tensor>& parameters) {
  std::vector<Tensor> grads;
  for (const Tensor& p : parameters)
    if (p.grad().defined()) grads.push_back(p.grad().detach());
  return grads;
}

}  // namespace

double clip_grad_norm_(const std::vector<Tensor>& parameters, double max_norm, double norm_type,
                       bool error_if_nonfinite) {
  NoGradGuard guard;
  const std::vector<Tensor> grads = gradients(parameters);
  if (grads.empty()) return 0;
  std::vector<Tensor> norms;
  for (const Tensor& g : grads) norms.push_back(g.norm(norm_type).to(kFloat64));
  const double total = stack(norms).norm(norm_type).item<double>();
  check<ValueError>(!error_if_nonfinite || std::isfinite(total), "clip_grad_norm_",
                    "expected gradients of finite norm, got ", total,
                    "; lower the learning rate, or look for NaN");
  const double scale = max_norm / (total + 1e-6);
  if (!(scale >= 1)) {  // also for NaN, as PyTorch
    for (const Tensor& g : grads) g.mul_(scale);
  }
  return total;
}

double clip_grad_norm_(const Tensor& parameter, double max_norm, double norm_type,
                       bool error_if_nonfinite) {
  return clip_grad_norm_(std::vector<Tensor>{parameter}, max_norm, norm_type, error_if_nonfinite);
}

void clip_grad_value_(const std::vector<Tensor>& parameters, double clip_value) {
  NoGradGuard guard;
  for (const Tensor& g : gradients(parameters)) g.clamp_(-clip_value, clip_value);
}

void clip_grad_value_(const Tensor& parameter, double clip_value) {
  clip_grad_value_(std::vector<Tensor>{parameter}, clip_value);
}

Tensor parameters_to_vector(const std::vector<Tensor>& parameters) {
  check<ValueError>(!parameters.empty(), "parameters_to_vector",
                    "expected at least one parameter, got none; give parameters()");
  std::vector<Tensor> flat;
  for (const Tensor& p : parameters) flat.push_back(p.reshape({-1}));
  return cat(flat);
}

void vector_to_parameters(const Tensor& vec, const std::vector<Tensor>& parameters) {
  std::int64_t total = 0;
  for (const Tensor& p : parameters) total += p.numel();
  check<ShapeError>(vec.dim() == 1 && vec.numel() == total, "vector_to_parameters",
                    "expected a vector of ", total, " elements, got shape ", vec.sizes(),
                    "; make it with parameters_to_vector()");
  NoGradGuard guard;
  std::int64_t at = 0;
  for (const Tensor& p : parameters) {
    p.copy_(vec.narrow(0, at, p.numel()).reshape(p.sizes()));
    at += p.numel();
  }
}

}  // namespace tutti::nn::utils
