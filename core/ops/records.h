// Op records and internal ops that more than one file uses.
#pragma once
#include <optional>
#include <string_view>
#include <utility>

#include <tutti/core/op.h>

namespace tutti {

/// in = {base, part}: the base with the part written into a slice; an undefined one counts as
/// zeros. attrs.dims = {axis}, attrs.ints = {start, length, step, size of the base along the axis}.
extern const Op slice_scatter_op;
Tensor slice_scatter(const Tensor& base, const Tensor& part, std::int64_t axis, std::int64_t start,
                     std::int64_t step, std::int64_t size);

// Elementwise records with an in-place form.
extern const Op exp_op, log_op, sqrt_op, rsqrt_op, square_op, reciprocal_op, sin_op, cos_op,
    tanh_op, sigmoid_op, relu_op, abs_op, neg_op, floor_op, ceil_op, round_op, trunc_op;
extern const Op add_op, add_scaled_op, sub_op, mul_op,
    div_op;  // (x, y); add_scaled: x + scalars[0] * y
extern const Op add_scalar_op, mul_scalar_op, div_scalar_op;  // (x), scalars[0]
extern const Op lerp_scalar_op;                               // (x, end), scalars[0] = weight
extern const Op masked_fill_op;  // (x, mask), scalars[0]; flag 1 inverts the mask
extern const Op clamp_op;        // (x), see clamp_attrs
/// in = {like}: sizes in attrs.ints, dtype, device, scalars[0]; only like's being batched matters.
extern const Op full_like_op;
extern const Op clone_op;
/// in = {a, b}: the public matmul's primitive, [lead..., m, k] x [lead..., k, n].
extern const Op bmm_op;
/// In compiled functions only: in = {a, b, y}, where y, without gaps, is what relu gave; out = {the
/// product, 0 where y is}, and maybe its sums over the rows, [lead..., n]. Flag 1: with the sums.
extern const Op bmm_relu_grad_op;
/// in = {x, w, bias or undefined}; attrs.flags: a kernels::Activation to go with it.
extern const Op linear_op;
extern const Op relu_grad_op;  // in = {gradient, y}
/// attrs.dims: the axes; flag 1 keeps them with size 1.
extern const Op sum_op, amax_op, amin_op;

/// From the gradient g and the output y of softmax over the last axis: y * (g - sum(g * y)).
Tensor softmax_grad(const Tensor& g, const Tensor& y);

/// Kernels do not throw, so the values of an index are looked at before: IndexError unless the
/// smallest and largest (see kernels::index_range) are in 0..size - 1, or from -size on.
void check_indices(std::string_view op, std::pair<std::int64_t, std::int64_t> range,
                   std::int64_t size, bool from_end = false);

/// Attrs of clamp_op, and the dtype it computes in.
Attrs clamp_attrs(std::optional<Scalar> min, std::optional<Scalar> max);
DType clamp_dtype(const Tensor& x, std::optional<Scalar> min, std::optional<Scalar> max);

}  // namespace tutti
