// Copying and filling strided memory, with conversion between any two element types.
#pragma once
#include <tutti/core/tensor.h>

namespace tutti::kernels {

/// dst[i] = src[i], converted as torch does (float to integer truncates, anything nonzero is true).
/// Equal sizes, any strides, any pair of dtypes, any devices with memory; no partial overlap.
void copy(const Tensor& dst, const Tensor& src);
/// Every element of dst becomes `value`.
void fill(const Tensor& dst, Scalar value);

}  // namespace tutti::kernels
