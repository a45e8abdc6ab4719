// exp, expm1, log, log1p, tanh, erf, sigmoid and rounding for float without branches or calls, so
// that loops over them vectorise; within 4 ulp of the true value (2 for exp, log, tanh), with the
// standard library's results for zeros, infinities, NaN and subnormals. double goes to the standard
// library.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__CUDACC__)
#define TUTTI_HD __host__ __device__
#else
#define TUTTI_HD
#endif

namespace tutti::scalar::math {

inline constexpr float kInf = std::numeric_limits<float>::infinity();

/// 2^n for a whole number n in -126..127, given as a float; by adding 1.5 * 2^23, which leaves n in
/// the low bits.
TUTTI_HD inline float power_of_two(float n) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(n + 12582912.0f);
  return std::bit_cast<float>((bits + 127u) << 23);
}
/// x rounded to a whole number, for |x| < 2^22.
TUTTI_HD inline float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

/// x = n ln 2 + r with |r| <= ln 2 / 2, and q with e^r = 1 + q.
struct Reduced {
  float n, q;
};
TUTTI_HD inline Reduced reduce_exp(float x) {
  const float n = nearest(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {n, p * r * r + r};
}

TUTTI_HD inline float exp(float x) {
  x = x > 89.0f ? 89.0f : x;  // infinite from here on
  x = x < -104.0f ? -104.0f : x;
  const auto [n, q] = reduce_exp(x);
  const float half = nearest(n * 0.5f);  // 2^n in two steps, as it may be beyond the normal range
  return (1.0f + q) * power_of_two(half) * power_of_two(n - half);
}

TUTTI_HD inline float expm1(float x) {
  const float c = x > 88.0f ? 88.0f : x < -30.0f ? -30.0f : x;
  const auto [n, q] = reduce_exp(c);
  const float s = power_of_two(n - 1.0f);  // 2^n may be just too large
  const float y = 2.0f * (s * q + (s - 0.5f));
  return x > 88.0f ? exp(x) : x == 0.0f ? x : y;
}

/// log for normal, positive, finite x.
TUTTI_HD inline float log_normal(float x) {
  // x = m 2^e with m in [sqrt(1/2), sqrt(2)).
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x) - 0x3f3504f3u;
  const float e = static_cast<float>(static_cast<std::int32_t>(bits) >> 23);
  const float m = std::bit_cast<float>((bits & 0x007fffffu) + 0x3f3504f3u);
  const float r = m - 1.0f, z = r * r;
  float p = 7.0376836292e-2f;
  p = p * r - 1.1514610310e-1f;
  p = p * r + 1.1676998740e-1f;
  p = p * r - 1.2420140846e-1f;
  p = p * r + 1.4249322787e-1f;
  p = p * r - 1.6668057665e-1f;
  p = p * r + 2.0000714765e-1f;
  p = p * r - 2.4999993993e-1f;
  p = p * r + 3.3333331174e-1f;
  p = p * r * z - e * 2.12194440e-4f - 0.5f * z;
  return (r + p) + e * 0.693359375f;
}
TUTTI_HD inline float log(float x) {
  const bool small = x < 1.17549435e-38f;
  float y = log_normal(small ? x * 8388608.0f : x);
  y = small ? y - 15.9423847f : y;  // 23 ln 2
  y = x == kInf ? kInf : y;
  y = x == 0.0f ? -kInf : y;
  return x >= 0.0f ? y : std::numeric_limits<float>::quiet_NaN();
}
TUTTI_HD inline float log1p(float x) {
  // The rounding error of 1 + x is made good by the ratio.
  const float u = 1.0f + x, d = u - 1.0f;
  const float y = log(u) * (x / d);
  return d == 0.0f ? x : u == kInf || u == 0.0f ? log(u) : y;
}

TUTTI_HD inline float tanh(float x) {
  const float a = std::abs(x), z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const float near = p * z * a + a, far = 1.0f - 2.0f / (exp(2.0f * a) + 1.0f);
  return std::copysign(a < 0.625f ? near : far, x);  // NaN goes far
}

TUTTI_HD inline float erf(float x) {
  // Near zero an odd polynomial, else 1 - e^q(|x|).
  const float a = std::abs(x), z = x * x;
  float p = -5.96761703e-4f;
  p = p * z + 4.99119423e-3f;
  p = p * z - 2.67681349e-2f;
  p = p * z + 1.12819925e-1f;
  p = p * z - 3.76125336e-1f;
  p = p * z + 1.28379166e-1f;
  const float near = p * x + x;
  const float t = a > 4.0f ? 4.0f : a;  // 1 in float from there on
  float q = -1.72853470e-5f * t + 3.83197126e-4f;
  const float u = -3.88396438e-3f * t + 2.42546219e-2f;
  q = q * (t * t) + u;
  q = q * t - 1.06777877e-1f;
  q = q * t - 6.34846687e-1f;
  q = q * t - 1.28717512e-1f;
  q = q * t - t;
  const float far = std::copysign(1.0f - exp(q), x);
  return a < 0.927734375f ? near : far;
}

TUTTI_HD inline double exp(double x) { return std::exp(x); }
TUTTI_HD inline double expm1(double x) { return std::expm1(x); }
TUTTI_HD inline double log(double x) { return std::log(x); }
TUTTI_HD inline double log1p(double x) { return std::log1p(x); }
TUTTI_HD inline double tanh(double x) { return std::tanh(x); }
TUTTI_HD inline double erf(double x) { return std::erf(x); }

template <class T>
TUTTI_HD T sigmoid(T x) {
  return T(1) / (T(1) + exp(-x));
}

// Rounding without the instructions that not every x86-64 has: adding and subtracting 1 / epsilon
// drops the fraction.
/// Halves to even.
template <class T>
TUTTI_HD T round(T x) {
  constexpr T c = 1 / std::numeric_limits<T>::epsilon();
  const T a = std::abs(x), r = (a + c) - c;
  return std::copysign(a < c ? r : a, x);
}
template <class T>
TUTTI_HD T floor(T x) {
  const T r = round(x);
  return r > x ? r - T(1) : r;
}
template <class T>
TUTTI_HD T ceil(T x) {
  const T r = round(x);
  return std::copysign(r < x ? r + T(1) : r, x);
}
template <class T>
TUTTI_HD T trunc(T x) {
  const T a = std::abs(x), r = round(a);
  return std::copysign(r > a ? r - T(1) : r, x);
}

}  // namespace tutti::scalar::math
