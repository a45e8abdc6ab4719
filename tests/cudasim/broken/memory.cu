// Wrong addresses.
#include "broken.h"

namespace {

__global__ void one_more(const float* x, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i <= n) out[i] = x[i < n ? i : 0];
}
__global__ void read_shifted(const float* x, float* out, int by) {
  out[threadIdx.x] = x[static_cast<int>(threadIdx.x) + by];
}
__global__ void beyond_shared(const float* x, float* out) {
  __shared__ float cells[32], others[32];
  cells[threadIdx.x + 1] = x[threadIdx.x];
  others[threadIdx.x] = 0.f;
  __syncthreads();
  out[threadIdx.x] = cells[threadIdx.x] + others[31 - threadIdx.x];
}
__global__ void beyond_dynamic_shared(float* out) {
  extern __shared__ float cells[];
  cells[threadIdx.x] = 1.f;
  __syncthreads();
  out[threadIdx.x] = cells[threadIdx.x + 1];
}
__global__ void beyond_local(int* out, int n) {
  int cells[8];
  for (int k = 0; k < n; ++k) cells[k] = k;
  out[threadIdx.x] = cells[threadIdx.x % 8];
}
__global__ void four_at_once(const float* x, float* out) {
  *reinterpret_cast<float4*>(out + 4 * threadIdx.x) =
      *reinterpret_cast<const float4*>(x + 1 + 4 * threadIdx.x);
}
__global__ void fill(float* x, int n) {
  if (threadIdx.x < n) x[threadIdx.x] = 1.f;
}
__global__ void half_written(float* out) {
  __shared__ float cells[64];
  if (threadIdx.x < 32) cells[threadIdx.x] = 1.f;
  __syncthreads();
  out[threadIdx.x] = cells[threadIdx.x];
}
__global__ void divide(int* out, int by) { out[threadIdx.x] = static_cast<int>(threadIdx.x) / by; }

float total(const float* p, int n) {
  std::vector<float> v(n);
  MUST(cudaMemcpy(v.data(), p, n * sizeof(float), cudaMemcpyDeviceToHost));
  float sum = 0;
  for (float x : v) sum += x;
  return sum;
}

const std::vector<float> kOnes(256, 1.f);

const std::vector<Broken> kAll = {
    {"global_one_more", [] { one_more<<<2, 128>>>(device(kOnes), device<float>(200), 200); }},
    {"global_before", [] { read_shifted<<<1, 32>>>(device(kOnes), device<float>(32), -1); }},
    {"global_far", [] { read_shifted<<<1, 32>>>(device(kOnes), device<float>(32), 1 << 20); }},
    {"shared", [] { beyond_shared<<<1, 32>>>(device(kOnes), device<float>(32)); }},
    {"dynamic_shared",
     [] { beyond_dynamic_shared<<<1, 32, 32 * sizeof(float)>>>(device<float>(32)); }},
    {"local", [] { beyond_local<<<1, 32>>>(device<int>(32), 9); }},
    {"misaligned", [] { four_at_once<<<1, 8>>>(device(kOnes), device<float>(64)); }},
    {"after_free",
     [] {
       float* x = device(kOnes);
       MUST(cudaFree(x));
       fill<<<1, 32>>>(x, 32);
     }},
    {"after_free_async",
     [] {
       float* x = device(kOnes);
       MUST(cudaFreeAsync(x, nullptr));
       fill<<<1, 32>>>(x, 32);
     }},
    {"freed_twice",
     [] {
       float* x = device(kOnes);
       MUST(cudaFree(x));
       MUST(cudaFree(x));
     }},
    {"host_pointer",
     [] {
       std::vector<float> x(32);
       fill<<<1, 32>>>(x.data(), 32);
     }},
    {"null_pointer", [] { fill<<<1, 32>>>(nullptr, 32); }},
    {"host_access", [] { expect(device(kOnes)[0], 1.f); }},
    {"unwritten_shared",
     [] {
       float* out = device<float>(64);
       half_written<<<1, 64>>>(out);
       expect(total(out, 64), 64.f);
     }},
    {"unwritten_global",
     [] {
       float* out = device<float>(64);
       fill<<<1, 64>>>(out, 63);
       expect(total(out, 64), 64.f);
     }},
    {"division_by_zero", [] { divide<<<1, 32>>>(device<int>(32), 0); }},
    {"copy_too_long",
     [] {
       std::vector<float> x(300);
       MUST(cudaMemcpy(device(kOnes), x.data(), 300 * sizeof(float), cudaMemcpyHostToDevice));
     }},
    {"copy_host_as_device",
     [] {
       std::vector<float> x(64);
       MUST(cudaMemcpy(device(kOnes), x.data(), 64 * sizeof(float), cudaMemcpyDeviceToDevice));
     }},
    {"memset_too_long", [] { MUST(cudaMemset(device(kOnes), 0, 256 * sizeof(float) + 1)); }},
};

}  // namespace

int main(int argc, char** argv) { return run_named(argc, argv, kAll); }
