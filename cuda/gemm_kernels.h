// The kernels around cuBLAS's products (gemm_kernels.cu).
#pragma once
#include <tutti/core/kernels/gemm.h>
#include <tutti/cuda/runtime.h>

namespace tutti::cuda {

/// out = activation(out + bias), over the result of `g`, as one kernel; `from_zero`: nothing has
/// been written to out yet, and it counts as 0.
void finish_product(const kernels::Gemm& g, bool from_zero, const Work& work);
/// The whole product, of integers, which cuBLAS does not multiply.
void integer_product(const kernels::Gemm& g, const Work& work);

}  // namespace tutti::cuda
