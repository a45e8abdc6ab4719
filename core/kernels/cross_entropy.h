// Cross entropy of logits with class indices, and its gradient: one pass over the rows each.
#pragma once
#include <tutti/core/op.h>

namespace tutti::kernels {

/// The attrs of both kernels. Groups are what the leading axes count; a mean or sum is taken over
/// the rows of each.
struct ClassLoss {
  enum Reduction : std::uint32_t { none, mean, sum };
  std::size_t group_axes;
  Reduction reduction;
  std::int64_t ignore_index;
  double smoothing;
  explicit ClassLoss(const Attrs& a)
      : group_axes(static_cast<std::size_t>(a.dims[0])),
        reduction(static_cast<Reduction>(a.flags)),
        ignore_index(a.ints[0]),
        smoothing(a.scalars[0].to_double()) {}
};

// Classes are along the last axis. Targets that are not ignore_index are in range. An undefined
// weight [groups..., classes] is one of ones.

/// in = {logits, target, weight}; out = {loss, softmax of the logits, and for the mean the weight
/// of each group's targets}.
void cross_entropy(Inputs in, Inputs out, const Attrs& a);
/// in = {gradient of the loss, target, softmax, weight of the groups or undefined, weight}; out =
/// {gradient of the logits}.
void cross_entropy_grad(Inputs in, Inputs out, const Attrs& a);

}  // namespace tutti::kernels
