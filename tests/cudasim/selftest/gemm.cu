// Self-test: products by the cuBLAS stand-in, in all types and transpositions.
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "selftest.h"

namespace selftest {
namespace {

void blas(cublasStatus_t s, const char* what) {
  if (s == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "%s: %s\n", what, cublasGetStatusString(s));
  std::exit(2);
}
#define BLAS(call) blas((call), #call)

template <class T>
void strided(cublasHandle_t h, const char* name, cudaDataType type, cublasComputeType_t compute,
             double tolerance) {
  const int m = 5, n = 7, k = 6, count = 3;
  const auto fa = numbers(count * m * k), fb = numbers(count * k * n, 1.f, 2),
             fc = numbers(count * m * n, 1.f, 3);
  std::vector<T> a(fa.size()), b(fb.size()), c(fc.size());
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = T(fa[i]);
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = T(fb[i]);
  for (std::size_t i = 0; i < c.size(); ++i) c[i] = T(fc[i]);
  for (int t = 0; t < 4; ++t) {
    const bool ta = t & 1, tb = t & 2;
    Buffer<T> da(a), db(b), dc(c);
    const float alpha = 2.f, beta = 0.5f;
    const double alpha_d = 2.0, beta_d = 0.5;
    const bool wide = compute == CUBLAS_COMPUTE_64F;
    BLAS(cublasGemmStridedBatchedEx(
        h, ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb ? CUBLAS_OP_T : CUBLAS_OP_N, m, n, k,
        wide ? (const void*)&alpha_d : &alpha, da.get(), type, ta ? k : m, m * k, db.get(), type,
        tb ? n : k, k * n, wide ? (const void*)&beta_d : &beta, dc.get(), type, m, m * n, count,
        compute, CUBLAS_GEMM_DEFAULT));
    const auto got = dc.host();
    std::vector<double> want(c.size()), have(c.size());
    for (int g = 0; g < count; ++g)
      for (int j = 0; j < n; ++j)
        for (int i = 0; i < m; ++i) {
          double sum = 0;
          for (int q = 0; q < k; ++q) {
            const int ia = ta ? q + i * k : i + q * m, ib = tb ? j + q * n : q + j * k;
            sum += double(float(a[g * m * k + ia])) * double(float(b[g * k * n + ib]));
          }
          const int o = g * m * n + i + j * m;
          want[o] = 2 * sum + 0.5 * double(float(c[o]));
          have[o] = double(float(got[o]));
        }
    check(name, worst(have, want, 1.0) < tolerance);
  }
}

}  // namespace

void gemm() {
  cublasHandle_t h;
  BLAS(cublasCreate(&h));
  cudaStream_t s;
  MUST(cudaStreamCreate(&s));
  BLAS(cublasSetStream(h, s));
  strided<float>(h, "gemm f32", CUDA_R_32F, CUBLAS_COMPUTE_32F, 1e-6);
  strided<float>(h, "gemm tf32", CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32, 2e-3);
  strided<double>(h, "gemm f64", CUDA_R_64F, CUBLAS_COMPUTE_64F, 1e-6);
  strided<__half>(h, "gemm f16", CUDA_R_16F, CUBLAS_COMPUTE_32F, 2e-3);
  strided<__nv_bfloat16>(h, "gemm bf16", CUDA_R_16BF, CUBLAS_COMPUTE_32F, 1e-2);
  {  // an array of pointers, and a C that must not be read
    const int n = 4, count = 2;
    const auto a = numbers(n * n * count), b = numbers(n * n * count, 1.f, 2);
    Buffer<float> da(a), db(b), dc(n * n * count);
    std::vector<const float*> pa{da.get() + n * n, da.get()}, pb{db.get(), db.get()};
    std::vector<float*> pc{dc.get(), dc.get() + n * n};
    Buffer<const float*> dpa(pa), dpb(pb);
    Buffer<float*> dpc(pc);
    const float alpha = 1.f, beta = 0.f;
    BLAS(cublasGemmBatchedEx(
        h, CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, &alpha, (const void* const*)dpa.get(), CUDA_R_32F, n,
        (const void* const*)dpb.get(), CUDA_R_32F, n, &beta, (void* const*)dpc.get(), CUDA_R_32F, n,
        count, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    MUST(cudaStreamSynchronize(s));
    std::vector<double> want(n * n * count);
    for (int g = 0; g < count; ++g)
      for (int j = 0; j < n; ++j)
        for (int i = 0; i < n; ++i)
          for (int q = 0; q < n; ++q)
            want[g * n * n + i + j * n] += double(a[(1 - g) * n * n + i + q * n]) * b[q + j * n];
    check("gemm by pointers", worst(dc.host(), want, 1.0) < 1e-6);
  }
  const float one = 1.f;
  Buffer<float> x(16);
  check(
      "a leading dimension that is too small",
      cublasSgemmStridedBatched(h, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, x.get(), 3, 0, x.get(),
                                4, 0, &one, x.get(), 4, 0, 1) == CUBLAS_STATUS_INVALID_VALUE);
  MUST(cudaStreamDestroy(s));
  BLAS(cublasDestroy(h));
}

}  // namespace selftest
