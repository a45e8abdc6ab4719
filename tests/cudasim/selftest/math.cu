// Self-test: the math library as nvcc inlines it, in float and double, against the host's.
#include <cstdint>

#include "selftest.h"

namespace selftest {
namespace {

constexpr int kFunctions = 26;

template <class T>
__host__ __device__ T function(int k, T v) {
  const T positive = fabs(v) + T(0.1), inside = v / (T(1) + fabs(v));
  switch (k) {
    case 0:
      return exp(v);
    case 1:
      return log(positive);
    case 2:
      return tanh(v);
    case 3:
      return erf(v);
    case 4:
      return sqrt(positive);
    case 5:
      return pow(positive, T(1.7));
    case 6:
      return sin(v);
    case 7:
      return cos(v);
    case 8:
      return sin(v * T(1e5));  // the long way of reducing the argument
    case 9:
      return floor(v) + ceil(v) * T(0.5) + rint(v) + trunc(v);
    case 10:
      return fmod(v, T(0.3));
    case 11:
      return log1p(positive);
    case 12:
      return expm1(v);
    case 13:
      return v > T(0) ? v : T(0.01) * v;
    case 14:
      return T(1) / (T(1) + exp(-v));
    case 15:
      return atan2(v, positive);
    case 16:
      return tan(v);
    case 17:
      return asin(inside);
    case 18:
      return acos(inside);
    case 19:
      return atan(v);
    case 20:
      return sinh(v);
    case 21:
      return cosh(v);
    case 22:
      return lgamma(positive);
    case 23:
      return log2(positive) + log10(positive) + exp2(v);
    case 24:
      return cbrt(v) + hypot(v, T(0.5));
    default:
      return copysign(positive, -v) + fmin(v, T(0.25)) + fmax(v, T(-0.25)) + fma(v, v, v);
  }
}

template <class T>
__global__ void apply(const T* x, T* out, int n, int k) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = function(k, x[i]);
}

__global__ void rsqrt_and_powers(const float* x, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n)
    out[i] = rsqrtf(fabsf(x[i]) + 0.5f) + __expf(x[i]) + __logf(fabsf(x[i]) + 1.f) +
             __fdividef(x[i], 3.f);
}

__device__ std::uint32_t philox(std::uint32_t counter, std::uint64_t seed) {
  std::uint32_t c0 = counter, c1 = 0, c2 = 0, c3 = 0;
  std::uint32_t k0 = (std::uint32_t)seed, k1 = (std::uint32_t)(seed >> 32);
  for (int r = 0; r < 10; ++r) {
    const std::uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    c0 = (std::uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c2 = (std::uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (std::uint32_t)p1;
    c3 = (std::uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c0;
}
__global__ void uniform(std::uint32_t* bits, float* out, int n, std::uint64_t seed) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  bits[i] = philox((std::uint32_t)i, seed);
  out[i] = (float)(bits[i] >> 8) * (1.f / 16777216.f);
}

template <class T>
void test_functions(const char* type, double tolerance) {
  const int n = 400;
  std::vector<T> x(n);
  for (int i = 0; i < n; ++i) x[i] = T(i - 200) * T(0.0231);
  Buffer<T> dx(x), out(n);
  for (int k = 0; k < kFunctions; ++k) {
    apply<T><<<(n + 127) / 128, 128>>>(dx.get(), out.get(), n, k);
    std::vector<double> want(n);
    // The argument is formed in T; the function itself is then taken in double.
    for (int i = 0; i < n; ++i) {
      want[i] = k == 8    ? std::sin((double)(x[i] * T(1e5)))
                : k == 10 ? std::fmod((double)x[i], (double)T(0.3))
                          : function<double>(k, (double)x[i]);
    }
    char name[48];
    std::snprintf(name, sizeof name, "math %s %d", type, k);
    const double error = worst(out.host(), want, 1e-2);
    check(name, error <= tolerance);
    if (error > tolerance) std::printf("  error %g\n", error);
  }
}

}  // namespace

void math() {
  test_functions<float>("float", 1e-5);
  test_functions<double>("double", 5e-14);
  {
    const int n = 100;
    const auto x = numbers(n, 3.f);
    Buffer<float> dx(x), out(n);
    rsqrt_and_powers<<<1, 128>>>(dx.get(), out.get(), n);
    std::vector<double> want(n);
    for (int i = 0; i < n; ++i)
      want[i] = 1 / std::sqrt(std::fabs((double)x[i]) + 0.5) + std::exp((double)x[i]) +
                std::log(std::fabs((double)x[i]) + 1) + (double)x[i] / 3;
    check("approximate functions", worst(out.host(), want, 1e-2) < 1e-5);
  }
  {
    // Known answer: Philox4x32-10 of counter 0 and key 0 starts with 0x6627e8d5.
    const int n = 100;
    Buffer<std::uint32_t> bits(n);
    Buffer<float> out(n);
    uniform<<<1, 128>>>(bits.get(), out.get(), n, 0);
    const auto got = bits.host();
    const auto u = out.host();
    int wrong = got[0] != 0x6627e8d5u;
    for (int i = 0; i < n; ++i)
      wrong += u[i] < 0 || u[i] >= 1 || u[i] != (float)(got[i] >> 8) / 16777216.f;
    check("philox", wrong == 0);
  }
}

}  // namespace selftest
