// A team of threads that works on one row: a warp, or a block of 256.
#pragma once
#include <tutti/cuda/launch.cuh>

namespace tutti::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kWide = 256;

/// f over the values of all threads of the team, in each of them; the same order every time. All
/// threads of the block call it. `shared` has kWide / kWarp places, used by blocks only.
template <int kTeam, class T, class F>
__device__ __forceinline__ T team_fold(T v, const F& f, T* shared) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) v = f(v, __shfl_xor_sync(0xffffffffu, v, step));
  if constexpr (kTeam > kWarp) {
    __syncthreads();  // an earlier fold has been read
    if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = v;
    __syncthreads();
    v = shared[0];
    for (int i = 1; i < kTeam / kWarp; ++i) v = f(v, shared[i]);
  }
  return v;
}

/// Rows of a block: one per team.
template <int kTeam>
inline constexpr unsigned kRows = kTeam == kWarp ? 4 : 1;

template <int kTeam>
__device__ __forceinline__ std::int64_t team_row() {
  return std::int64_t{blockIdx.x} * kRows<kTeam> + threadIdx.y;
}

/// Rows from which on a whole block works on each.
inline constexpr std::int64_t kLongRow = 1024;

/// Calls f.operator()<kTeam>(grid, block) for `rows` rows of n elements.
template <class F>
void with_team(std::int64_t rows, std::int64_t n, const F& f) {
  if (n > kLongRow)
    f.template operator()<kWide>(dim3(blocks_for(rows, 1)), dim3(kWide));
  else
    f.template operator()<kWarp>(dim3(blocks_for(rows, kRows<kWarp>)), dim3(kWarp, kRows<kWarp>));
}

}  // namespace tutti::cuda
