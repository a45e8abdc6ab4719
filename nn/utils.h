// Helpers for training loops, as torch::nn::utils: gradient clipping, and parameters as one vector.
#pragma once
#include <vector>

#include <tutti/core/dict.h>
#include <tutti/core/tensor.h>

namespace tutti::nn::utils {

/// Scales the gradients of `parameters` in place so that their p-norm, taken over all of them
/// together, is at most max_norm; returns the norm before. norm_type may be infinite. ValueError
/// for a norm that is not finite if error_if_nonfinite.
double clip_grad_norm_(const std::vector<Tensor>& parameters, double max_norm, double norm_type = 2,
                       bool error_if_nonfinite = false);
double clip_grad_norm_(const Tensor& parameter, double max_norm, double norm_type = 2,
                       bool error_if_nonfinite = false);
/// Limits every element of the gradients to [-clip_value, clip_value], in place.
void clip_grad_value_(const std::vector<Tensor>& parameters, double clip_value);
void clip_grad_value_(const Tensor& parameter, double clip_value);

/// All elements of the parameters, one after the other.
Tensor parameters_to_vector(const std::vector<Tensor>& parameters);
/// Copies the pieces of `vec` into the parameters. ShapeError unless it has exactly their elements.
void vector_to_parameters(const Tensor& vec, const std::vector<Tensor>& parameters);

}  // namespace tutti::nn::utils
