// The kernels around cuBLAS's products (gemm_kernels.cu).
#pragma once
#include <tutti/core/kernels/gemm.h>
#include <tutti/cuda/runtime.h>

namespace tutti::cuda {

/// What follows the products of `g` (bias, activation, relu_output, row_sums), as one kernel over
/// the result; `from_zero`: nothing has been written to out yet, and it counts as 0.
void finish_product(const kernels::Gemm& g, bool from_zero, const Work& work);
/// The whole product, of integers, which cuBLAS does not multiply.
void integer_product(const kernels::Gemm& g, const Work& work);

}  // namespace tutti::cuda
