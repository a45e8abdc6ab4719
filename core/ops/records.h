// Op records and internal ops that more than one file uses.
#pragma once
#include <optional>

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

/// Attrs of clamp_op, and the dtype it computes in.
Attrs clamp_attrs(std::optional<Scalar> min, std::optional<Scalar> max);
DType clamp_dtype(const Tensor& x, std::optional<Scalar> min, std::optional<Scalar> max);

}  // namespace tutti
