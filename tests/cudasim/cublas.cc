// Stand-in for the part of cuBLAS that is used: matrix products in column-major order, with the
// documented argument checks. The order of summation is one of many legal ones, not cuBLAS's.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <cublas_v2.h>

#include "control.h"
#include "inject.h"
#include "memory.h"
#include "ptx_half.h"
#include "streams.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
  cudasim::u64 workspace = 0;  // the caller's memory; 0: none
  std::size_t workspace_bytes = 0;
  cublasPointerMode_t pointers = CUBLAS_POINTER_MODE_HOST;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
  cublasAtomicsMode_t atomics = CUBLAS_ATOMICS_NOT_ALLOWED;
};

namespace cudasim {
namespace {

std::string& call_log() {
  static std::string* log = new std::string;
  return *log;
}
std::size_t live_handles = 0;

// A matrix, or a batch of them.
struct Operand {
  const void* data = nullptr;  // device address, or device array of addresses if `pointers`
  cudaDataType type = CUDA_R_32F;
  int ld = 1;
  long long stride = 0;
};

struct Product {
  cublasOperation_t op_a = CUBLAS_OP_N, op_b = CUBLAS_OP_N;
  int m = 0, n = 0, k = 0, count = 1;
  Operand a, b, c;
  double alpha = 1, beta = 0;
  bool pointers = false;
  bool tf32 = false;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
};

u64 bytes_of(cudaDataType t) { return t == CUDA_R_64F ? 8 : t == CUDA_R_32F ? 4 : 2; }

const char* name_of(cudaDataType t) {
  switch (t) {
    case CUDA_R_32F:
      return "f32";
    case CUDA_R_64F:
      return "f64";
    case CUDA_R_16F:
      return "f16";
    case CUDA_R_16BF:
      return "bf16";
    default:
      return nullptr;
  }
}
const char* name_of(cublasComputeType_t t) {
  switch (t) {
    case CUBLAS_COMPUTE_32F:
      return "f32";
    case CUBLAS_COMPUTE_32F_PEDANTIC:
      return "f32_pedantic";
    case CUBLAS_COMPUTE_32F_FAST_TF32:
      return "tf32";
    case CUBLAS_COMPUTE_64F:
      return "f64";
    case CUBLAS_COMPUTE_64F_PEDANTIC:
      return "f64_pedantic";
    default:
      return nullptr;
  }
}

template <class T, class Stored>
void read_column(const u8* from, int n, u64 step, T* to) {
  for (int i = 0; i < n; ++i, from += step) {
    Stored v;
    std::memcpy(static_cast<void*>(&v), from, sizeof v);
    to[i] = static_cast<T>(v);
  }
}
template <class T>
void read(const u8* from, cudaDataType type, int n, u64 step, T* to) {
  switch (type) {
    case CUDA_R_32F:
      return read_column<T, float>(from, n, step, to);
    case CUDA_R_64F:
      return read_column<T, double>(from, n, step, to);
    case CUDA_R_16F:
      return read_column<T, Half>(from, n, step, to);
    default:
      return read_column<T, BFloat16>(from, n, step, to);
  }
}
template <class T>
void write(u8* to, cudaDataType type, int n, const T* from) {
  const u64 bytes = bytes_of(type);
  for (int i = 0; i < n; ++i) {
    u8* p = to + static_cast<u64>(i) * bytes;
    const auto put = [p](auto v) { std::memcpy(p, &v, sizeof v); };
    switch (type) {
      case CUDA_R_32F:
        put(static_cast<float>(from[i]));
        break;
      case CUDA_R_64F:
        put(static_cast<double>(from[i]));
        break;
      case CUDA_R_16F:
        put(Half(from[i]));
        break;
      default:
        put(BFloat16(from[i]));
        break;
    }
  }
}

float rounded_to_tf32(float v) {
  u32 bits;
  std::memcpy(&bits, &v, 4);
  if ((bits & 0x7f800000u) == 0x7f800000u) return v;
  bits += 0xfff + (bits >> 13 & 1);
  bits &= ~0x1fffu;
  std::memcpy(&v, &bits, 4);
  return v;
}

// The bytes of one matrix with `rows` and `columns` as stored; checks that it lies in one
// allocation.
u8* matrix(u64 address, const Operand& o, int rows, int columns, const char* name) {
  if (rows == 0 || columns == 0) return nullptr;
  const u64 bytes = bytes_of(o.type);
  if (address % bytes) fail("cublas: %s is misaligned", name);
  const u64 size =
      (static_cast<u64>(o.ld) * static_cast<u64>(columns - 1) + static_cast<u64>(rows)) * bytes;
  const Allocation* a = device_memory().find(address);
  if (!a || address + size > a->end) {
    fail("cublas: %s needs %llu bytes: %s", name, (unsigned long long)size,
         device_memory().describe(address).c_str());
  }
  return device_memory().bytes(address);
}

u64 address_of(const Operand& o, bool pointers, int index) {
  if (!pointers) {
    return reinterpret_cast<u64>(o.data) + static_cast<u64>(o.stride * index) * bytes_of(o.type);
  }
  const u64 where = reinterpret_cast<u64>(o.data) + static_cast<u64>(index) * 8;
  const Allocation* a = device_memory().find(where);
  if (!a || where + 8 > a->end)
    fail("cublas: array of pointers: %s", device_memory().describe(where).c_str());
  u64 address;
  std::memcpy(&address, device_memory().bytes(where), 8);
  return address;
}

// One product, accumulated in T.
template <class T>
void multiply(const Product& p, int index) {
  const bool ta = p.op_a != CUBLAS_OP_N, tb = p.op_b != CUBLAS_OP_N;
  const std::size_t m = static_cast<std::size_t>(p.m), k = static_cast<std::size_t>(p.k);
  const u8* a =
      matrix(address_of(p.a, p.pointers, index), p.a, ta ? p.k : p.m, ta ? p.m : p.k, "A");
  const u8* b =
      matrix(address_of(p.b, p.pointers, index), p.b, tb ? p.n : p.k, tb ? p.k : p.n, "B");
  u8* c = matrix(address_of(p.c, p.pointers, index), p.c, p.m, p.n, "C");
  const u64 a_bytes = bytes_of(p.a.type), b_bytes = bytes_of(p.b.type),
            c_bytes = bytes_of(p.c.type);
  const u64 lda = static_cast<u64>(p.a.ld) * a_bytes, ldb = static_cast<u64>(p.b.ld) * b_bytes;
  std::vector<T> op_a(m * k), column_b(k), sum(m), old(m);
  for (std::size_t q = 0; q < k; ++q) {
    read(ta ? a + q * a_bytes : a + q * lda, p.a.type, p.m, ta ? lda : a_bytes,
         op_a.data() + q * m);
  }
  if constexpr (std::is_same_v<T, float>) {
    if (p.tf32) std::transform(op_a.begin(), op_a.end(), op_a.begin(), rounded_to_tf32);
  }
  for (int j = 0; j < p.n; ++j) {
    const u64 row = static_cast<u64>(j);
    if (k)
      read(tb ? b + row * b_bytes : b + row * ldb, p.b.type, p.k, tb ? ldb : b_bytes,
           column_b.data());
    std::fill(sum.begin(), sum.end(), T(0));
    for (std::size_t q = 0; q < k; ++q) {
      T factor = column_b[q];
      if constexpr (std::is_same_v<T, float>) {
        if (p.tf32) factor = rounded_to_tf32(factor);
      }
      const T* col = op_a.data() + q * m;
      for (std::size_t i = 0; i < m; ++i) sum[i] += col[i] * factor;
    }
    u8* out = c + row * static_cast<u64>(p.c.ld) * c_bytes;
    const T alpha = static_cast<T>(p.alpha), beta = static_cast<T>(p.beta);
    if (beta != T(0)) read(out, p.c.type, p.m, c_bytes, old.data());
    for (std::size_t i = 0; i < m; ++i)
      sum[i] = beta != T(0) ? alpha * sum[i] + beta * old[i] : alpha * sum[i];
    write(out, p.c.type, p.m, sum.data());
  }
}

void run(const Product& p) {
  if (p.pointers) {  // no two results may overlap
    std::vector<u64> starts;
    const u64 span =
        (static_cast<u64>(p.c.ld) * static_cast<u64>(p.n - 1) + static_cast<u64>(p.m)) *
        bytes_of(p.c.type);
    for (int i = 0; i < p.count; ++i) starts.push_back(address_of(p.c, true, i));
    std::sort(starts.begin(), starts.end());
    for (std::size_t i = 1; i < starts.size(); ++i)
      if (starts[i] < starts[i - 1] + span) fail("cublas: results of a batch overlap");
  }
  for (int i = 0; i < p.count; ++i) {
    if (p.a.type == CUDA_R_64F) {
      multiply<double>(p, i);
    } else {
      multiply<float>(p, i);
    }
  }
}

char letter(cublasOperation_t op) {
  return op == CUBLAS_OP_N ? 'N' : op == CUBLAS_OP_T ? 'T' : 'C';
}

void log(const Product& p) {
  call_log() += text(
      "gemm op=%c%c m=%d n=%d k=%d count=%d a=%s lda=%d stride=%lld b=%s ldb=%d stride=%lld c=%s "
      "ldc=%d stride=%lld "
      "compute=%s alpha=%g beta=%g tf32=%d pointers=%d\n",
      letter(p.op_a), letter(p.op_b), p.m, p.n, p.k, p.count, name_of(p.a.type), p.a.ld, p.a.stride,
      name_of(p.b.type), p.b.ld, p.b.stride, name_of(p.c.type), p.c.ld, p.c.stride,
      name_of(p.compute), p.alpha, p.beta, p.tf32, p.pointers);
}

double scalar(const cublasContext& h, const void* p, cublasComputeType_t compute) {
  const bool wide = compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_64F_PEDANTIC;
  if (h.pointers == CUBLAS_POINTER_MODE_DEVICE)
    fail("cublas: scalars in device memory are not supported");
  if (device_memory().in_range(reinterpret_cast<u64>(p)))
    fail("cublas: alpha or beta is a device pointer, and the mode says host");
  if (wide) return *static_cast<const double*>(p);
  return static_cast<double>(*static_cast<const float*>(p));
}

bool types_fit(const Product& p) {
  if (!name_of(p.a.type) || !name_of(p.c.type) || p.a.type != p.b.type || !name_of(p.compute))
    return false;
  const bool wide = p.compute == CUBLAS_COMPUTE_64F || p.compute == CUBLAS_COMPUTE_64F_PEDANTIC;
  if (wide) return p.a.type == CUDA_R_64F && p.c.type == CUDA_R_64F;
  if (p.compute == CUBLAS_COMPUTE_32F_FAST_TF32)
    return p.a.type == CUDA_R_32F && p.c.type == CUDA_R_32F;
  if (p.a.type == CUDA_R_64F || p.c.type == CUDA_R_64F) return false;
  return p.c.type == p.a.type || p.c.type == CUDA_R_32F;
}

/// Every product writes into its workspace, so that memory which serves somebody else by now is
/// noticed.
void use_workspace(u64 at, std::size_t bytes) {
  if (at == 0) return;
  if (!device_memory().find(at)) fail("cublas: the workspace of a product was freed before it ran");
  std::memset(device_memory().bytes(at), 0xff, std::min<std::size_t>(bytes, 4096));
}

cublasStatus_t product(cublasHandle_t h, Product p, const void* alpha, const void* beta) {
  CUDASIM_API;
  if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
  const bool ta = p.op_a != CUBLAS_OP_N, tb = p.op_b != CUBLAS_OP_N;
  const bool sizes = p.m >= 0 && p.n >= 0 && p.k >= 0 && p.count >= 0 &&
                     p.a.ld >= std::max(1, ta ? p.k : p.m) &&
                     p.b.ld >= std::max(1, tb ? p.n : p.k) && p.c.ld >= std::max(1, p.m);
  if (!sizes || !alpha || !beta) return CUBLAS_STATUS_INVALID_VALUE;
  if (!types_fit(p)) return CUBLAS_STATUS_NOT_SUPPORTED;
  const long long span = static_cast<long long>(p.c.ld) * (p.n - 1) + p.m;
  if (!p.pointers && p.count > 1 && p.m && p.n && std::llabs(p.c.stride) < span) {
    fail("cublas: results of a batch overlap: stride %lld, a result spans %lld", p.c.stride, span);
  }
  if (injected(CallKind::kLaunch)) return CUBLAS_STATUS_EXECUTION_FAILED;
  p.alpha = scalar(*h, alpha, p.compute);
  p.beta = scalar(*h, beta, p.compute);
  p.tf32 = p.compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
           (h->math == CUBLAS_TF32_TENSOR_OP_MATH && p.a.type == CUDA_R_32F &&
            p.compute == CUBLAS_COMPUTE_32F);
  log(p);
  if (p.m == 0 || p.n == 0 || p.count == 0) return CUBLAS_STATUS_SUCCESS;
  const auto multiply = [p, workspace = h->workspace, bytes = h->workspace_bytes] {
    use_workspace(workspace, bytes);
    run(p);
  };
  return enqueue(h->stream, "gemm", multiply) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                             : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace
}  // namespace cudasim

using namespace cudasim;

extern "C" {

const char* cudasim_cublas_log(void) {
  CUDASIM_API;
  static std::string text;
  text = call_log();
  return text.c_str();
}
void cudasim_clear_cublas_log(void) {
  CUDASIM_API;
  call_log().clear();
}

cublasStatus_t cublasCreate_v2(cublasHandle_t* h) {
  CUDASIM_API;
  if (forbidden_while_recording() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (injected(CallKind::kOther)) return CUBLAS_STATUS_ALLOC_FAILED;
  *h = new cublasContext;
  ++live_handles;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t h) {
  CUDASIM_API;
  if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete h;
  --live_handles;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* version) {
  *version = CUBLAS_VERSION;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s) {
  h->stream = s;
  h->workspace = 0;  // as documented
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetStream_v2(cublasHandle_t h, cudaStream_t* s) {
  *s = h->stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t m) {
  h->math = m;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetMathMode(cublasHandle_t h, cublasMath_t* m) {
  *m = h->math;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetAtomicsMode(cublasHandle_t h, cublasAtomicsMode_t m) {
  h->atomics = m;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetAtomicsMode(cublasHandle_t h, cublasAtomicsMode_t* m) {
  *m = h->atomics;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t m) {
  h->pointers = m;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t* m) {
  *m = h->pointers;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t h, void* p, std::size_t n) {
  CUDASIM_API;
  if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!n) return CUBLAS_STATUS_SUCCESS;
  const Allocation* a = device_memory().find(reinterpret_cast<u64>(p));
  if (!a || reinterpret_cast<u64>(p) + n > a->end)
    fail("cublas: the workspace is no device memory of %zu bytes", n);
  if (reinterpret_cast<u64>(p) % 256) return CUBLAS_STATUS_INVALID_VALUE;
  h->workspace = reinterpret_cast<u64>(p);
  h->workspace_bytes = n;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t op_a,
                                          cublasOperation_t op_b, int m, int n, int k,
                                          const void* alpha, const void* a, cudaDataType a_type,
                                          int lda, long long stride_a, const void* b,
                                          cudaDataType b_type, int ldb, long long stride_b,
                                          const void* beta, void* c, cudaDataType c_type, int ldc,
                                          long long stride_c, int count,
                                          cublasComputeType_t compute, cublasGemmAlgo_t) {
  Product p{op_a,
            op_b,
            m,
            n,
            k,
            count,
            {a, a_type, lda, stride_a},
            {b, b_type, ldb, stride_b},
            {c, c_type, ldc, stride_c}};
  p.compute = compute;
  return product(h, p, alpha, beta);
}
cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t op_a, cublasOperation_t op_b, int m,
                            int n, int k, const void* alpha, const void* a, cudaDataType a_type,
                            int lda, const void* b, cudaDataType b_type, int ldb, const void* beta,
                            void* c, cudaDataType c_type, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t algorithm) {
  return cublasGemmStridedBatchedEx(h, op_a, op_b, m, n, k, alpha, a, a_type, lda, 0, b, b_type,
                                    ldb, 0, beta, c, c_type, ldc, 0, 1, compute, algorithm);
}
cublasStatus_t cublasGemmBatchedEx(cublasHandle_t h, cublasOperation_t op_a, cublasOperation_t op_b,
                                   int m, int n, int k, const void* alpha, const void* const a[],
                                   cudaDataType a_type, int lda, const void* const b[],
                                   cudaDataType b_type, int ldb, const void* beta, void* const c[],
                                   cudaDataType c_type, int ldc, int count,
                                   cublasComputeType_t compute, cublasGemmAlgo_t) {
  Product p{
      op_a, op_b, m, n, k, count, {a, a_type, lda, 0}, {b, b_type, ldb, 0}, {c, c_type, ldc, 0}};
  p.compute = compute;
  p.pointers = true;
  return product(h, p, alpha, beta);
}
cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t h, cublasOperation_t op_a,
                                         cublasOperation_t op_b, int m, int n, int k,
                                         const float* alpha, const float* a, int lda,
                                         long long stride_a, const float* b, int ldb,
                                         long long stride_b, const float* beta, float* c, int ldc,
                                         long long stride_c, int count) {
  return cublasGemmStridedBatchedEx(h, op_a, op_b, m, n, k, alpha, a, CUDA_R_32F, lda, stride_a, b,
                                    CUDA_R_32F, ldb, stride_b, beta, c, CUDA_R_32F, ldc, stride_c,
                                    count, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
}
cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t h, cublasOperation_t op_a,
                                         cublasOperation_t op_b, int m, int n, int k,
                                         const double* alpha, const double* a, int lda,
                                         long long stride_a, const double* b, int ldb,
                                         long long stride_b, const double* beta, double* c, int ldc,
                                         long long stride_c, int count) {
  return cublasGemmStridedBatchedEx(h, op_a, op_b, m, n, k, alpha, a, CUDA_R_64F, lda, stride_a, b,
                                    CUDA_R_64F, ldb, stride_b, beta, c, CUDA_R_64F, ldc, stride_c,
                                    count, CUBLAS_COMPUTE_64F, CUBLAS_GEMM_DEFAULT);
}
cublasStatus_t cublasSgemm_v2(cublasHandle_t h, cublasOperation_t op_a, cublasOperation_t op_b,
                              int m, int n, int k, const float* alpha, const float* a, int lda,
                              const float* b, int ldb, const float* beta, float* c, int ldc) {
  return cublasSgemmStridedBatched(h, op_a, op_b, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c,
                                   ldc, 0, 1);
}
cublasStatus_t cublasDgemm_v2(cublasHandle_t h, cublasOperation_t op_a, cublasOperation_t op_b,
                              int m, int n, int k, const double* alpha, const double* a, int lda,
                              const double* b, int ldb, const double* beta, double* c, int ldc) {
  return cublasDgemmStridedBatched(h, op_a, op_b, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c,
                                   ldc, 0, 1);
}

const char* cublasGetStatusName(cublasStatus_t s) {
  switch (s) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "CUBLAS_STATUS_UNKNOWN";
  }
}
const char* cublasGetStatusString(cublasStatus_t s) { return cublasGetStatusName(s); }
}
