// Self-test: device functions that are really called, recursion, function pointers kept out,
// printf, assert.
#include <cassert>
#include <cstdio>

#include "selftest.h"

namespace selftest {
namespace {

struct Pair {
  float sum;
  int count;
  double square;
};

__device__ __noinline__ Pair add(Pair a, Pair b) {
  return {a.sum + b.sum, a.count + b.count, a.square + b.square};
}
__device__ __noinline__ float half_of(float v) { return v * 0.5f; }
__device__ __noinline__ int fibonacci(int n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}
__device__ __noinline__ void fill(float* to, int n, float v) {
  for (int i = 0; i < n; ++i) to[i] = v + float(i);
}
__device__ __noinline__ float total(const float* from, int n) {
  float sum = 0.f;
  for (int i = 0; i < n; ++i) sum += from[i];
  return sum;
}
__device__ __noinline__ bool odd(int v) { return v & 1; }

__global__ void call(const float* x, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  assert(n > 0);
  if (i >= n) return;
  Pair p{x[i], 1, (double)x[i] * x[i]};
  for (int k = 1; k < 4; ++k) p = add(p, Pair{x[(i + k) % n], 1, 0.5});
  float local[8];
  fill(local, 1 + i % 8, half_of(x[i]));  // goes through generic addresses of local memory
  out[3 * i] = p.sum / (float)p.count + (float)p.square;
  out[3 * i + 1] = (float)fibonacci(i % 9);  // lanes recurse to different depths
  out[3 * i + 2] = total(local, 1 + i % 8) + (odd(i) ? 100.f : 0.f);
}

__global__ void shared_through_generic(float* out) {
  __shared__ float cells[64];
  fill(cells + threadIdx.x, 1, (float)threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = total(cells + (threadIdx.x & ~3), 4);
}

__global__ void say(int n) {
  if (threadIdx.x < n)
    printf("thread %d of %s: %5.2f %lld %c%%\n", threadIdx.x, "two", 1.5 * threadIdx.x, 1ll << 40,
           'x');
}

}  // namespace

void calls() {
  const int n = 70;
  const auto x = numbers(n);
  Buffer<float> dx(x), out(3 * n);
  call<<<1, 96>>>(dx.get(), out.get(), n);
  std::vector<double> want(3 * n);
  const int fib[] = {0, 1, 1, 2, 3, 5, 8, 13, 21};
  for (int i = 0; i < n; ++i) {
    double sum = 0;
    for (int k = 0; k < 4; ++k) sum += x[(i + k) % n];
    want[3 * i] = sum / 4 + (double)x[i] * x[i] + 1.5;
    want[3 * i + 1] = fib[i % 9];
    const int m = 1 + i % 8;
    want[3 * i + 2] = m * 0.5 * x[i] + m * (m - 1) / 2 + (i & 1 ? 100 : 0);
  }
  check("calls and recursion", worst(out.host(), want, 1.0) < 1e-6);
  Buffer<float> cells(64);
  shared_through_generic<<<1, 64>>>(cells.get());
  const auto got = cells.host();
  int wrong = 0;
  for (int i = 0; i < 64; ++i) wrong += got[i] != float((i & ~3) * 4 + 6);
  check("shared memory through generic addresses", wrong == 0);
  say<<<1, 32>>>(2);
  check("printf", cudaDeviceSynchronize() == cudaSuccess);
}

}  // namespace selftest
