// Stacks of matrices [lead..., m, n]: what the product and the linear algebra ops share.
#pragma once
#include <utility>

#include <tutti/core/kernels/gemm.h>
#include <tutti/core/tensor.h>

namespace tutti {

/// Everything but the last two axes.
inline IntArrayRef leading(const Tensor& x) { return {x.sizes().data(), x.sizes().size() - 2}; }

inline Shape joined(IntArrayRef lead, std::int64_t rows, std::int64_t columns) {
  Shape s = lead.shape();
  s.push_back(rows);
  s.push_back(columns);
  return s;
}

/// A stack of matrices for the kernels; `transposed` swaps the last two axes.
inline kernels::Matrices matrices(const Tensor& x, bool transposed = false) {
  const IntArrayRef strides = x.strides();
  const std::size_t lead = strides.size() - 2;
  std::int64_t row = strides[lead], column = strides[lead + 1];
  if (transposed) std::swap(row, column);
  return {x.raw(), Shape(strides.begin(), strides.begin() + lead), row, column};
}

}  // namespace tutti
