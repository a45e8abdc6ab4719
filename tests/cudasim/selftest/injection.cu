// Self-test: failures at every call in turn, and the logs, through the control interface.
#include <string>

#include <cublas_v2.h>
#include <dlfcn.h>

#include "../control.h"
#include "selftest.h"

namespace selftest {
namespace {

template <class F>
F* control(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_DEFAULT, name));
}
#define CONTROL(f) control<decltype(f)>(#f)

__global__ void twice(const float* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = 2 * x[i];
}

// A little of everything; false as soon as a call fails. Frees what it has, whatever happens.
bool step(std::vector<float>& out) {
  const int n = 16;
  bool ok = true;
  float *x = nullptr, *y = nullptr;
  cudaStream_t s = nullptr;
  cublasHandle_t h = nullptr;
  const auto call = [&](cudaError_t e) { ok = ok && e == cudaSuccess; };
  call(cudaStreamCreate(&s));
  if (ok) call(cudaMalloc(&x, n * sizeof(float)));
  if (ok) call(cudaMallocAsync(&y, n * sizeof(float), s));
  if (ok)
    ok =
        cublasCreate(&h) == CUBLAS_STATUS_SUCCESS && cublasSetStream(h, s) == CUBLAS_STATUS_SUCCESS;
  const std::vector<float> in(n, 3.f);
  if (ok) call(cudaMemcpyAsync(x, in.data(), n * sizeof(float), cudaMemcpyHostToDevice, s));
  if (ok) call(cudaMemsetAsync(y, 0, n * sizeof(float), s));
  if (ok) {
    twice<<<1, 32, 0, s>>>(x, y, n);
    call(cudaGetLastError());
  }
  const float one = 1.f, zero = 0.f;
  if (ok)
    ok = cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, x, 4, y, 4, &zero, x, 4) ==
         CUBLAS_STATUS_SUCCESS;
  if (ok) call(cudaMemcpyAsync(out.data(), y, n * sizeof(float), cudaMemcpyDeviceToHost, s));
  if (s) cudaStreamSynchronize(s);
  if (h) cublasDestroy(h);
  cudaFree(x);
  cudaFree(y);
  if (s) cudaStreamDestroy(s);
  cudaGetLastError();
  return ok;
}

}  // namespace

void injection() {
  const auto fail_at = CONTROL(cudasim_fail_at);
  const auto calls = CONTROL(cudasim_calls);
  const auto failed = CONTROL(cudasim_failed);
  const auto live = CONTROL(cudasim_live_bytes);
  if (!fail_at) return;  // a real GPU
  std::vector<float> out(16);
  const unsigned long long before = calls("any"), bytes = live();
  check("a step without failure", step(out) && out[3] == 6.f);
  const unsigned long long n = calls("any") - before;
  check("calls that may fail", n == 9);
  for (unsigned long long k = 1; k <= n; ++k) {
    fail_at(k, "any");
    check("a failure is reported", !step(out) && failed());
    check("nothing leaks", live() == bytes);
    check("the next step works", step(out) && out[15] == 6.f);
  }
  const char* const kinds[] = {"malloc", "launch", "copy", "other"};
  const unsigned long long counts[] = {2, 2, 3, 2};
  for (int k = 0; k < 4; ++k) {
    const unsigned long long was = calls(kinds[k]);
    fail_at(counts[k], kinds[k]);
    check("the last call of a kind fails", !step(out) && failed());
    fail_at(counts[k] + 1, kinds[k]);
    check("no later call", step(out) && !failed());
    fail_at(0, "any");
    check("count of a kind", calls(kinds[k]) == was + 2 * counts[k]);
  }
}

void logs() {
  const auto blas_log = CONTROL(cudasim_cublas_log);
  const auto clear_blas = CONTROL(cudasim_clear_cublas_log);
  const auto launch_log = CONTROL(cudasim_launch_log);
  const auto clear_launches = CONTROL(cudasim_clear_launch_log);
  if (!blas_log) return;
  clear_blas();
  clear_launches();
  std::vector<float> out(16);
  step(out);
  check("the log of cuBLAS calls",
        std::string(blas_log()) ==
            "gemm op=NN m=4 n=4 k=4 count=1 a=f32 lda=4 stride=0 b=f32 ldb=4 stride=0 c=f32 ldc=4 "
            "stride=0 compute=f32 alpha=1 beta=0 tf32=0 pointers=0\n");
  const std::string launches = launch_log();
  check("the log of launches",
        launches.find("twice") != std::string::npos && launches.find('\n') == launches.size() - 1);
}

}  // namespace selftest
