// Functions of one float or double without branches or calls, so that loops over them vectorise.
// For float the elementary ones are those of functions.inc, within the bounds of vector_math.h;
// sin and cos, and all of double, are the standard library's.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <tutti/core/kernels/per_isa.h>

/// A function for host and device that becomes part of the loop around it.
#if defined(__CUDACC__)
#define TUTTI_HD __host__ __device__ inline
#else
#define TUTTI_HD TUTTI_INLINE
#endif

namespace tutti::scalar {

inline constexpr double kGeluScale = 0.79788456080286535588;  // sqrt(2 / pi)
inline constexpr double kGeluCubic = 0.044715;

namespace math {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// ---- what functions.inc asks for

using Real = float;
#define TUTTI_FUNCTION TUTTI_HD

template <class T>
TUTTI_HD T abs(T x) {
  return std::abs(x);
}
TUTTI_HD float copysign(float x, float sign) { return std::copysign(x, sign); }
template <class T>
TUTTI_HD T select(bool c, T x, T y) {
  return c ? x : y;
}
/// The smaller and the larger one; NaN if x is.
TUTTI_HD float at_most(float x, float bound) { return x > bound ? bound : x; }
TUTTI_HD float at_least(float x, float bound) { return x < bound ? bound : x; }
/// a * b + c
TUTTI_HD float mul_add(float a, float b, float c) { return a * b + c; }
/// Where 1.5 * 2^23 is added, the fraction is lost and the whole number stands in the low bits.
inline constexpr float kShift = 12582912.0f;
/// x rounded to a whole number, for |x| < 2^22.
TUTTI_HD float nearest(float x) { return (x + kShift) - kShift; }
/// x 2^n for whole numbers n in -126..127; 0 for -127.
TUTTI_HD float times_power(float x, float n) {
  return x * std::bit_cast<float>(std::bit_cast<std::uint32_t>(n + (kShift + 127.0f)) << 23);
}
/// x = fraction * 2^exponent with the fraction in [sqrt(1/2), sqrt(2)), for positive, normal x.
struct Split {
  float fraction, exponent;
};
TUTTI_HD Split split_exponent(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x) - 0x3f3504f3u;
  return {std::bit_cast<float>((bits & 0x007fffffu) + 0x3f3504f3u),
          static_cast<float>(static_cast<std::int32_t>(bits) >> 23)};
}

TUTTI_HD double exp(double x) { return std::exp(x); }
TUTTI_HD double exp_below(double x) { return std::exp(x); }
TUTTI_HD double expm1(double x) { return std::expm1(x); }
TUTTI_HD double log(double x) { return std::log(x); }
TUTTI_HD double log1p(double x) { return std::log1p(x); }
TUTTI_HD double tanh(double x) { return std::tanh(x); }
TUTTI_HD double erf(double x) { return std::erf(x); }

#include <tutti/core/kernels/functions.inc>
#undef TUTTI_FUNCTION

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

}  // namespace math
}  // namespace tutti::scalar
