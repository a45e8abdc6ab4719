// The one way kernels are started.
#pragma once
#include <cuda_runtime.h>

#include <tutti/cuda/runtime.h>

namespace tutti::cuda {

inline constexpr unsigned kBlock = 256;

/// Threads of a block for n elements: no more than there is work for.
inline unsigned block_for(std::int64_t n) {
  return n >= kBlock ? kBlock : static_cast<unsigned>((n + 31) / 32 * 32);
}
inline unsigned blocks_for(std::int64_t n, std::int64_t per_block) {
  return static_cast<unsigned>((n + per_block - 1) / per_block);
}

/// kernel<<<grid, block, shared, work.stream()>>>(args...); DeviceError if CUDA refuses it.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, const Work& work, const A&... args) {
  cudaLaunchConfig_t c{};
  c.gridDim = grid;
  c.blockDim = block;
  c.stream = work.stream();
  must(cudaLaunchKernelEx(&c, kernel, static_cast<P>(args)...), "kernel launch");
}

}  // namespace tutti::cuda
