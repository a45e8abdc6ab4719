// Barriers and warp instructions that not all threads reach.
#include <cassert>

#include "broken.h"

namespace {

__global__ void in_a_branch(float* out, int n) {
  if (threadIdx.x < n) {
    out[threadIdx.x] = 1.f;
    __syncthreads();
    out[threadIdx.x] += 1.f;
  }
}
__global__ void two_barriers(float* out) {
  if (threadIdx.x < 32) {
    out[threadIdx.x] = 1.f;
    __syncthreads();
  } else {
    out[threadIdx.x] = 2.f;
    out[threadIdx.x] *= 3.f;
    __syncthreads();
    out[threadIdx.x] += 1.f;
  }
}
__global__ void early_return(float* out, int n) {
  if (threadIdx.x >= n) return;
  out[threadIdx.x] = 1.f;
  __syncthreads();
  out[threadIdx.x] += out[0];
}
__global__ void not_in_mask(int* out) {
  out[threadIdx.x] = __shfl_xor_sync(0xffffu, static_cast<int>(threadIdx.x), 1);
}
__global__ void exited_in_mask(int* out) {
  if (threadIdx.x >= 20) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1);
}
__global__ void never_come(int* out) {
  int v = static_cast<int>(threadIdx.x);
  if (v < 16) {
    v = __shfl_xor_sync(0xffffffffu, v, 1);
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = v;
}
__global__ void outside_source(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, static_cast<int>(threadIdx.x), 20);
}
__global__ void asserts(int* out, int n) {
  assert(threadIdx.x < n);
  out[threadIdx.x] = 1;
}
__global__ void traps(int n) {
  if (threadIdx.x == n) __trap();
}

const std::vector<Broken> kAll = {
    {"branch", [] { in_a_branch<<<1, 64>>>(device<float>(64), 40); }},
    {"two_barriers", [] { two_barriers<<<1, 64>>>(device<float>(64)); }},
    {"early_return", [] { early_return<<<1, 64>>>(device<float>(64), 50); }},
    {"not_in_mask", [] { not_in_mask<<<1, 32>>>(device<int>(32)); }},
    {"exited_in_mask", [] { exited_in_mask<<<1, 32>>>(device<int>(32)); }},
    {"never_come", [] { never_come<<<1, 32>>>(device<int>(32)); }},
    {"outside_source", [] { outside_source<<<1, 32>>>(device<int>(32)); }},
    {"assert", [] { asserts<<<1, 32>>>(device<int>(32), 30); }},
    {"trap", [] { traps<<<1, 32>>>(7); }},
};

}  // namespace

int main(int argc, char** argv) { return run_named(argc, argv, kAll); }
