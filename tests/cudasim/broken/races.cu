// Accesses that nothing orders.
#include "broken.h"

namespace {

__global__ void no_barrier(const float* x, float* out) {
  __shared__ float cells[128];
  cells[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = cells[127 - threadIdx.x];
}
__global__ void read_then_write(const float* x, float* out) {
  __shared__ float cells[128];
  cells[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  const float v = cells[(threadIdx.x + 32) % 128];
  cells[threadIdx.x] = 2 * v;  // others may not have read yet
  __syncthreads();
  out[threadIdx.x] = cells[threadIdx.x];
}
__global__ void no_syncwarp(const int* x, int* out) {
  __shared__ int cells[32];
  cells[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = cells[threadIdx.x ^ 1];
}
__global__ void blocks_share(float* out) {
  out[threadIdx.x + 64 * (blockIdx.x / 2)] = static_cast<float>(blockIdx.x);
}
__global__ void block_reads_other(float* x, float* out) {
  x[blockIdx.x * 32 + threadIdx.x] = 1.f;
  out[blockIdx.x * 32 + threadIdx.x] = x[(blockIdx.x * 32 + threadIdx.x + 32) % 64];
}
__global__ void plain_add(const int* index, float* out) { out[index[threadIdx.x]] += 1.f; }
__global__ void atomic_and_plain(float* out) {
  atomicAdd(out, 1.f);
  if (threadIdx.x == 40) *out = 0.f;
}
__global__ void bytes(unsigned char* out) {
  out[threadIdx.x / 2] = static_cast<unsigned char>(threadIdx.x);
}

const std::vector<float> kOnes(256, 1.f);

const std::vector<Broken> kAll = {
    {"shared", [] { no_barrier<<<1, 128>>>(device(kOnes), device<float>(128)); }},
    {"shared_read_then_write",
     [] { read_then_write<<<1, 128>>>(device(kOnes), device<float>(128)); }},
    {"within_warp",
     [] { no_syncwarp<<<1, 32>>>(device(std::vector<int>(32, 1)), device<int>(32)); }},
    {"blocks_write", [] { blocks_share<<<4, 64>>>(device<float>(128)); }},
    {"block_reads_other", [] { block_reads_other<<<2, 32>>>(device(kOnes), device<float>(64)); }},
    {"plain_add", [] { plain_add<<<1, 64>>>(device(std::vector<int>(64, 3)), device(kOnes)); }},
    {"atomic_and_plain", [] { atomic_and_plain<<<1, 64>>>(device(kOnes)); }},
    {"bytes", [] { bytes<<<1, 64>>>(device<unsigned char>(64)); }},
};

}  // namespace

int main(int argc, char** argv) { return run_named(argc, argv, kAll); }
