// Initialisers, as torch::nn::init. Each writes its argument in place without recording gradients
// and returns it. "fan_in" of a weight [out, in, ...] is in times the sizes that follow, "fan_out"
// the same with out.
#pragma once
#include <cstdint>
#include <string_view>
#include <utility>

#include <tutti/core/tensor.h>

namespace tutti {
namespace nn::init {

/// Which of the two fans keeps its variance.
class FanModeType {
 public:
  enum Value { fan_in, fan_out };
  constexpr FanModeType(Value v) : value_(v) {}
  /// "fan_in" or "fan_out"; ValueError otherwise.
  FanModeType(std::string_view name);
  FanModeType(const char* name) : FanModeType(std::string_view(name)) {}
  constexpr operator Value() const { return value_; }

 private:
  Value value_;
};

/// What follows the weight; decides the gain.
class NonlinearityType {
 public:
  enum Value { linear, sigmoid, tanh, relu, leaky_relu, selu };
  constexpr NonlinearityType(Value v) : value_(v) {}
  /// "linear", "conv1d", "conv2d", "conv3d", "sigmoid", "tanh", "relu", "leaky_relu" or "selu".
  NonlinearityType(std::string_view name);
  NonlinearityType(const char* name) : NonlinearityType(std::string_view(name)) {}
  constexpr operator Value() const { return value_; }

 private:
  Value value_;
};

}  // namespace nn::init

inline constexpr auto kFanIn = nn::init::FanModeType::fan_in,
                      kFanOut = nn::init::FanModeType::fan_out;
inline constexpr auto kLinear = nn::init::NonlinearityType::linear,
                      kSigmoid = nn::init::NonlinearityType::sigmoid,
                      kTanh = nn::init::NonlinearityType::tanh,
                      kReLU = nn::init::NonlinearityType::relu,
                      kLeakyReLU = nn::init::NonlinearityType::leaky_relu,
                      kSELU = nn::init::NonlinearityType::selu;

namespace nn::init {

/// The recommended factor for a nonlinearity; param is leaky_relu's slope.
double calculate_gain(NonlinearityType nonlinearity, double param = 0.01);

/// Uniform on [low, high).
Tensor uniform_(Tensor tensor, double low = 0, double high = 1);
Tensor normal_(Tensor tensor, double mean = 0, double std = 1);
/// Normal, values outside [low, high] drawn anew (by inverting the distribution's cut piece).
Tensor trunc_normal_(Tensor tensor, double mean = 0, double std = 1, double low = -2,
                     double high = 2);
Tensor constant_(Tensor tensor, Scalar value);
Tensor ones_(Tensor tensor);
Tensor zeros_(Tensor tensor);
/// Identity; ShapeError unless 2-d.
Tensor eye_(Tensor matrix);
/// Variance 2 / (fan_in + fan_out), times gain squared. ShapeError below 2-d.
Tensor xavier_uniform_(Tensor tensor, double gain = 1);
Tensor xavier_normal_(Tensor tensor, double gain = 1);
/// Variance gain(nonlinearity, a)^2 / fan. ShapeError below 2-d.
Tensor kaiming_uniform_(Tensor tensor, double a = 0, FanModeType mode = kFanIn,
                        NonlinearityType nonlinearity = kLeakyReLU);
Tensor kaiming_normal_(Tensor tensor, double a = 0, FanModeType mode = kFanIn,
                       NonlinearityType nonlinearity = kLeakyReLU);

}  // namespace nn::init
}  // namespace tutti
