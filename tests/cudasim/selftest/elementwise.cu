// Self-test: elementwise kernels, vector loads, narrow types, constants and device variables.
#include <cstdint>
#include <cstring>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "selftest.h"

namespace selftest {
namespace {

struct Strides {
  int rank;
  int size[4];
  long long a[4], b[4];
};

__global__ void add_broadcast(const float* a, const float* b, float* out, Strides s, long long n) {
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n;
       i += (long long)gridDim.x * blockDim.x) {
    long long rest = i, ia = 0, ib = 0;
    for (int d = s.rank - 1; d >= 0; --d) {
      const long long q = rest / s.size[d], c = rest - q * s.size[d];
      rest = q;
      ia += c * s.a[d];
      ib += c * s.b[d];
    }
    out[i] = a[ia] + b[ib];
  }
}

__global__ void multiply4(const float4* a, const float4* b, float4* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float4 x = a[i], y = b[i];
  out[i] = make_float4(x.x * y.x, x.y * y.y, x.z * y.z, x.w * y.w);
}

template <class T>
__global__ void axpy(const T* x, T* y, float a, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = static_cast<T>(a * static_cast<float>(x[i]) + static_cast<float>(y[i]));
}

__global__ void half2_fma(const __half2* x, const __half2* y, __half2* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = __hfma2(x[i], y[i], __hmul2(x[i], x[i]));
}

__global__ void bf16_arithmetic(const __nv_bfloat16* x, const __nv_bfloat16* y, __nv_bfloat16* out,
                                int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = __hadd(__hmul(x[i], y[i]), x[i]);
}

__global__ void less(const float* a, const float* b, std::uint8_t* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = a[i] < b[i];
}

// Conversions between all widths, and integer arithmetic with its corner cases.
__global__ void integers(const std::int64_t* in, std::int64_t* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const std::int64_t v = in[i], w = in[(i + 1) % n] | 1;
  std::int64_t* o = out + 24 * (std::int64_t)i;
  o[0] = (std::int8_t)v;
  o[1] = (std::uint8_t)v;
  o[2] = (std::int16_t)v;
  o[3] = (std::uint16_t)v;
  o[4] = (std::int32_t)v;
  o[5] = (std::uint32_t)v;
  o[6] = v / w;
  o[7] = v % w;
  o[8] = (std::int64_t)((std::uint64_t)v / (std::uint64_t)w);
  o[9] = (std::int32_t)v / ((std::int32_t)w | 1);
  o[10] = (std::uint32_t)v % ((std::uint32_t)w | 1u);
  o[11] = (std::int64_t)((std::uint64_t)v >> (w & 63));
  o[12] = v >> (w & 63);
  o[13] = (std::int64_t)((std::uint64_t)v << (w & 63));
  o[14] = __popcll(v) + __clzll(v) + __ffsll(v) + __popc((unsigned)v) + __clz((int)v);
  o[15] = (std::int64_t)__brevll(v);
  o[16] = __mul64hi(v, w);
  o[17] = (std::int64_t)__umul64hi((std::uint64_t)v, (std::uint64_t)w);
  o[18] = __mulhi((int)v, (int)w);
  o[19] = min((int)v, (int)w) + max((unsigned)v, (unsigned)w);
  o[20] = (std::int64_t)__funnelshift_l((unsigned)v, (unsigned)w, (unsigned)v & 31);
  o[21] = __byte_perm((unsigned)v, (unsigned)w, 0x3715);
  o[22] = (std::int64_t)(float)v + (std::int64_t)(double)v;
  o[23] = abs((int)(v >> 3)) - llabs(v >> 3);
}

__constant__ float table[4] = {1.f, 2.f, 3.f, 4.f};
__device__ int counter = 40;
__device__ float written_by_host[3];

__global__ void use_variables(float* out) {
  out[threadIdx.x] = table[threadIdx.x & 3] * written_by_host[threadIdx.x % 3];
  atomicAdd(&counter, 1);
}

__global__ void dimensions(int* out) {
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * (blockDim.x * blockDim.y * blockDim.z) + thread] = block * 1000 + thread;
}

std::int64_t reference(std::int64_t v, std::int64_t w, int k) {
  using u64 = std::uint64_t;
  using u32 = std::uint32_t;
  using i32 = std::int32_t;
  switch (k) {
    case 0:
      return (std::int8_t)v;
    case 1:
      return (std::uint8_t)v;
    case 2:
      return (std::int16_t)v;
    case 3:
      return (std::uint16_t)v;
    case 4:
      return (i32)v;
    case 5:
      return (u32)v;
    case 6:
      return v / w;
    case 7:
      return v % w;
    case 8:
      return (std::int64_t)((u64)v / (u64)w);
    case 9:
      return (i32)v / ((i32)w | 1);
    case 10:
      return (u32)v % ((u32)w | 1u);
    case 11:
      return (std::int64_t)((u64)v >> (w & 63));
    case 12:
      return v >> (w & 63);
    case 13:
      return (std::int64_t)((u64)v << (w & 63));
    case 14: {
      const int clz64 = v ? __builtin_clzll((u64)v) : 64,
                clz32 = (u32)v ? __builtin_clz((u32)v) : 32;
      return __builtin_popcountll((u64)v) + clz64 + __builtin_ffsll(v) +
             __builtin_popcount((u32)v) + clz32;
    }
    case 15: {
      u64 r = 0;
      for (int b = 0; b < 64; ++b) r |= ((u64)v >> b & 1) << (63 - b);
      return (std::int64_t)r;
    }
    case 16:
      return (std::int64_t)((__int128)v * w >> 64);
    case 17:
      return (std::int64_t)((unsigned __int128)(u64)v * (u64)w >> 64);
    case 18:
      return (i32)((std::int64_t)(i32)v * (i32)w >> 32);
    case 19: {
      const i32 lo = (i32)v < (i32)w ? (i32)v : (i32)w;
      const u32 hi = (u32)v > (u32)w ? (u32)v : (u32)w;
      return (std::int64_t)((u32)lo + hi);
    }
    case 20: {
      const u64 both = (u64)(u32)w << 32 | (u32)v;
      return (std::int64_t)(both << ((u32)v & 31) >> 32 & 0xffffffffu);
    }
    case 21: {
      const u64 both = (u64)(u32)w << 32 | (u32)v;
      const int pick[4] = {5, 1, 7, 3};
      u32 r = 0;
      for (int b = 0; b < 4; ++b) r |= (u32)(both >> (8 * pick[b]) & 255) << (8 * b);
      return r;
    }
    case 22:
      return (std::int64_t)(float)v + (std::int64_t)(double)v;
    default: {
      const i32 t = (i32)(v >> 3);
      return (t < 0 ? -t : t) - ((v >> 3) < 0 ? -(v >> 3) : (v >> 3));
    }
  }
}

template <class T>
void test_axpy(const char* name) {
  const int n = 777;
  const auto fx = numbers(n, 2.f, 3), fy = numbers(n, 2.f, 4);
  std::vector<T> x(n), y(n);
  for (int i = 0; i < n; ++i) x[i] = static_cast<T>(fx[i]), y[i] = static_cast<T>(fy[i]);
  Buffer<T> dx(x), dy(y);
  axpy<T><<<(n + 127) / 128, 128>>>(dx.get(), dy.get(), 1.5f, n);
  const auto got = dy.host();
  int wrong = 0;
  for (int i = 0; i < n; ++i) {
    const float want = std::fma(1.5f, static_cast<float>(x[i]), static_cast<float>(y[i]));
    const T rounded = static_cast<T>(want);
    wrong += static_cast<float>(got[i]) != static_cast<float>(rounded);
  }
  check(name, wrong == 0);
}

}  // namespace

void elementwise() {
  {
    const int rows = 37, cols = 41;
    const auto a = numbers(rows * cols), b = numbers(cols, 1.f, 2);
    Buffer<float> da(a), db(b), out(rows * cols);
    const Strides s{2, {rows, cols}, {cols, 1}, {0, 1}};
    add_broadcast<<<4, 96>>>(da.get(), db.get(), out.get(), s, rows * cols);
    std::vector<float> want(rows * cols);
    for (int i = 0; i < rows * cols; ++i) want[i] = a[i] + b[i % cols];
    check("add_broadcast", out.host() == want);
  }
  {
    const int n = 1000;
    const auto a = numbers(n), b = numbers(n, 1.f, 5);
    Buffer<float> da(a), db(b), out(n);
    multiply4<<<3, 128>>>(reinterpret_cast<const float4*>(da.get()),
                          reinterpret_cast<const float4*>(db.get()),
                          reinterpret_cast<float4*>(out.get()), n / 4);
    std::vector<float> want(n);
    for (int i = 0; i < n; ++i) want[i] = a[i] * b[i];
    check("multiply4", out.host() == want);
  }
  test_axpy<float>("axpy float");
  test_axpy<__half>("axpy half");
  test_axpy<__nv_bfloat16>("axpy bfloat16");
  {
    const int n = 200;
    const auto a = numbers(2 * n, 2.f, 6), b = numbers(2 * n, 2.f, 7);
    std::vector<__half2> x(n), y(n);
    for (int i = 0; i < n; ++i) {
      x[i] = __floats2half2_rn(a[2 * i], a[2 * i + 1]);
      y[i] = __floats2half2_rn(b[2 * i], b[2 * i + 1]);
    }
    Buffer<__half2> dx(x), dy(y), out(n);
    half2_fma<<<2, 128>>>(dx.get(), dy.get(), out.get(), n);
    const auto got = out.host();
    int wrong = 0;
    for (int i = 0; i < n; ++i) {
      const auto one = [](float p, float q) {
        const float square = __half2float(__float2half_rn(p * p));
        return __half2float(__double2half((double)p * q + square));
      };
      wrong += __low2float(got[i]) != one(__low2float(x[i]), __low2float(y[i]));
      wrong += __high2float(got[i]) != one(__high2float(x[i]), __high2float(y[i]));
    }
    check("half2_fma", wrong == 0);
  }
  {
    const int n = 300;
    const auto a = numbers(n, 2.f, 8), b = numbers(n, 2.f, 9);
    std::vector<__nv_bfloat16> x(n), y(n);
    for (int i = 0; i < n; ++i) x[i] = __float2bfloat16(a[i]), y[i] = __float2bfloat16(b[i]);
    Buffer<__nv_bfloat16> dx(x), dy(y), out(n);
    bf16_arithmetic<<<3, 128>>>(dx.get(), dy.get(), out.get(), n);
    const auto got = out.host();
    int wrong = 0;
    for (int i = 0; i < n; ++i) {
      const float xf = __bfloat162float(x[i]);
      const float product = __bfloat162float(__float2bfloat16(xf * __bfloat162float(y[i])));
      const float want = __bfloat162float(__float2bfloat16(product + xf));
      wrong += __bfloat162float(got[i]) != want;
    }
    check("bf16_arithmetic", wrong == 0);
  }
  {
    const int n = 333;
    const auto a = numbers(n, 1.f, 10), b = numbers(n, 1.f, 11);
    Buffer<float> da(a), db(b);
    Buffer<std::uint8_t> out(n);
    less<<<3, 128>>>(da.get(), db.get(), out.get(), n);
    const auto got = out.host();
    int wrong = 0;
    for (int i = 0; i < n; ++i) wrong += got[i] != (a[i] < b[i]);
    check("less", wrong == 0);
  }
  {
    std::vector<std::int64_t> in = {0,
                                    1,
                                    -1,
                                    127,
                                    -128,
                                    255,
                                    65535,
                                    -65536,
                                    2147483647,
                                    4294967295ll,
                                    -2147483648ll,
                                    1ll << 40,
                                    -(1ll << 40),
                                    0x123456789abcdefll};
    for (int k = 0; k < 50; ++k)
      in.push_back((std::int64_t)(in.back() * 6364136223846793005ull + 1442695040888963407ull) >>
                   (k % 7));
    const int n = (int)in.size();
    Buffer<std::int64_t> din(in), out((std::size_t)n * 24);
    integers<<<1, 64>>>(din.get(), out.get(), n);
    const auto got = out.host();
    for (int k = 0; k < 24; ++k) {
      int wrong = 0;
      for (int i = 0; i < n; ++i) {
        const std::int64_t w = in[(i + 1) % n] | 1;
        if (k == 23 && (std::int32_t)(in[i] >> 3) == INT32_MIN) continue;
        wrong += got[(std::size_t)i * 24 + k] != reference(in[i], w, k);
      }
      char name[32];
      std::snprintf(name, sizeof name, "integers %d", k);
      check(name, wrong == 0);
    }
  }
  {
    const float values[3] = {2.f, 3.f, 5.f};
    MUST(cudaMemcpyToSymbol(written_by_host, values, sizeof values));
    Buffer<float> out(12);
    use_variables<<<1, 12>>>(out.get());
    const auto got = out.host();
    int wrong = 0, count = 0;
    for (int i = 0; i < 12; ++i) wrong += got[i] != float(i % 4 + 1) * values[i % 3];
    MUST(cudaMemcpyFromSymbol(&count, counter, sizeof count));
    check("constant and device variables", wrong == 0 && count == 52);
  }
  {
    const dim3 grid(3, 2, 2), threads(5, 4, 3);
    Buffer<int> out(12 * 60);
    dimensions<<<grid, threads>>>(out.get());
    const auto got = out.host();
    int wrong = 0;
    for (int i = 0; i < 12 * 60; ++i) wrong += got[i] != i / 60 * 1000 + i % 60;
    check("dimensions", wrong == 0);
  }
}

}  // namespace selftest
