// Initialisers.
#include <cmath>
#include <numbers>

#include <tutti/autograd/autograd.h>
#include <tutti/core/ops.h>
#include <tutti/nn/init.h>

namespace tutti::nn::init {
namespace {

struct Fans {
  double in, out;
};

Fans fans_of(const Tensor& t, const char* op) {
  check<ShapeError>(t.dim() >= 2, op, "expected a tensor with at least 2 axes, got shape ",
                    t.sizes(), "; initialise biases with zeros_() or uniform_()");
  double each = 1;
  for (std::int64_t d = 2; d < t.dim(); ++d) each *= static_cast<double>(t.size(d));
  return {each * static_cast<double>(t.size(1)), each * static_cast<double>(t.size(0))};
}

double kaiming_std(const Tensor& t, double a, FanModeType mode, NonlinearityType f,
                   const char* op) {
  const Fans fans = fans_of(t, op);
  return calculate_gain(f, a) / std::sqrt(mode == FanModeType::fan_in ? fans.in : fans.out);
}

double normal_cdf(double x) { return (1 + std::erf(x / std::numbers::sqrt2)) / 2; }

}  // namespace

FanModeType::FanModeType(std::string_view name) : value_(name == "fan_out" ? fan_out : fan_in) {
  check<ValueError>(name == "fan_in" || name == "fan_out", "init",
                    "expected \"fan_in\" or \"fan_out\", got \"", name, "\"; write one of them");
}

NonlinearityType::NonlinearityType(std::string_view name) : value_(linear) {
  if (name == "sigmoid")
    value_ = sigmoid;
  else if (name == "tanh")
    value_ = tanh;
  else if (name == "relu")
    value_ = relu;
  else if (name == "leaky_relu")
    value_ = leaky_relu;
  else if (name == "selu")
    value_ = selu;
  else
    check<ValueError>(name == "linear" || name == "conv1d" || name == "conv2d" || name == "conv3d",
                      "calculate_gain", "expected a layer or an activation, got \"", name,
                      "\"; multiply by a gain of your own");
}

double calculate_gain(NonlinearityType nonlinearity, double param) {
  switch (nonlinearity) {
    case NonlinearityType::tanh:
      return 5.0 / 3;
    case NonlinearityType::relu:
      return std::numbers::sqrt2;
    case NonlinearityType::leaky_relu:
      return std::sqrt(2 / (1 + param * param));
    case NonlinearityType::selu:
      return 0.75;
    case NonlinearityType::linear:
    case NonlinearityType::sigmoid:
      break;
  }
  return 1;
}

Tensor uniform_(Tensor tensor, double low, double high) {
  NoGradGuard guard;
  return tensor.uniform_(low, high);
}

Tensor normal_(Tensor tensor, double mean, double std) {
  NoGradGuard guard;
  return tensor.normal_(mean, std);
}

Tensor trunc_normal_(Tensor tensor, double mean, double std, double low, double high) {
  check<ValueError>(std > 0 && low < high, "trunc_normal_",
                    "expected std > 0 and low < high, got std ", std, ", low ", low, ", high ",
                    high, "; give the deviation and the interval");
  NoGradGuard guard;
  const double from = normal_cdf((low - mean) / std), to = normal_cdf((high - mean) / std);
  // Bisection on the distribution function: no draw is rejected, so every element costs one word.
  const Tensor u = tutti::rand(tensor.sizes(), kFloat64) * (to - from) + from;
  Tensor a = full_like(u, (low - mean) / std), b = full_like(u, (high - mean) / std);
  for (int i = 0; i < 60; ++i) {
    const Tensor middle = (a + b) * 0.5;
    const Tensor below = ((middle * std::numbers::sqrt2 / 2).erf() + 1) * 0.5 < u;
    a = where(below, middle, a);
    b = where(below, b, middle);
  }
  return tensor.copy_((a + b) * (0.5 * std) + mean);
}

Tensor constant_(Tensor tensor, Scalar value) {
  NoGradGuard guard;
  return tensor.fill_(value);
}

Tensor ones_(Tensor tensor) { return constant_(std::move(tensor), 1); }
Tensor zeros_(Tensor tensor) { return constant_(std::move(tensor), 0); }

Tensor eye_(Tensor matrix) {
  check<ShapeError>(matrix.dim() == 2, "eye_", "expected a matrix, got shape ", matrix.sizes(),
                    "; reshape it first");
  NoGradGuard guard;
  return matrix.copy_(eye(matrix.size(0), matrix.size(1), matrix.options()));
}

Tensor xavier_uniform_(Tensor tensor, double gain) {
  const Fans fans = fans_of(tensor, "xavier_uniform_");
  const double bound = gain * std::sqrt(6 / (fans.in + fans.out));
  return init::uniform_(std::move(tensor), -bound, bound);
}

Tensor xavier_normal_(Tensor tensor, double gain) {
  const Fans fans = fans_of(tensor, "xavier_normal_");
  return init::normal_(std::move(tensor), 0, gain * std::sqrt(2 / (fans.in + fans.out)));
}

Tensor kaiming_uniform_(Tensor tensor, double a, FanModeType mode, NonlinearityType nonlinearity) {
  const double bound =
      std::sqrt(3.0) * kaiming_std(tensor, a, mode, nonlinearity, "kaiming_uniform_");
  return init::uniform_(std::move(tensor), -bound, bound);
}

Tensor kaiming_normal_(Tensor tensor, double a, FanModeType mode, NonlinearityType nonlinearity) {
  const double std = kaiming_std(tensor, a, mode, nonlinearity, "kaiming_normal_");
  return init::normal_(std::move(tensor), 0, std);
}

}  // namespace tutti::nn::init
