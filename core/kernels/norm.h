// Layer norm and batch norm, forward and backward: one call each.
#pragma once
#include <tutti/core/op.h>

namespace tutti::kernels {

/// The attrs of all kernels here. The first axes of every operand count groups, which are
/// normalised on their own: the members of an ensemble.
struct Norm {
  /// Which gradients there are in out, in this order, and what statistics the batch was normalised
  /// with: given ones, or its own.
  enum Flags : std::uint32_t { wants_x = 1, wants_weight = 2, wants_bias = 4, given = 8 };
  std::size_t group_axes;
  std::uint32_t flags;
  double eps;
  explicit Norm(const Attrs& a)
      : group_axes(static_cast<std::size_t>(a.dims[0])),
        flags(a.flags),
        eps(a.scalars[0].to_double()) {}
};

// Layer norm: x is [groups..., rows..., n], its rows are normalised; mean and 1 / deviation are
// [groups..., rows...], weight and bias [groups..., n] or undefined.

/// in = {x, weight, bias}; out = {y, mean, 1 / deviation}.
void layer_norm(Inputs in, Inputs out, const Attrs& a);
/// in = {gradient of y, x, mean, 1 / deviation, weight}; out = the gradients wanted.
void layer_norm_grad(Inputs in, Inputs out, const Attrs& a);

// Batch norm: x is [groups..., N, C] or [groups..., N, C, L], its channels are normalised; mean,
// variance, weight and bias (which may be undefined) are [groups..., C].

/// in = {x, weight, bias}; out = {y, mean, biased variance}.
void batch_norm_train(Inputs in, Inputs out, const Attrs& a);
/// in = {x, mean, variance, weight, bias}; out = {y}.
void batch_norm_eval(Inputs in, Inputs out, const Attrs& a);
/// in = {gradient of y, x, mean, variance, weight}; out = the gradients wanted.
void batch_norm_grad(Inputs in, Inputs out, const Attrs& a);

}  // namespace tutti::kernels
