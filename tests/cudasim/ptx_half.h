// 16-bit floats as PTX has them: operations round once, to nearest even.
#pragma once
#include <bit>
#include <cmath>

#include "base.h"

namespace cudasim {

/// Rounds to a 16-bit format with the given bits of mantissa and exponent. `round` is one of
/// std::nearbyint, std::trunc ...
template <int kMantissa, int kExponent, class Round>
u16 to_16_bits(double v, Round round) {
  constexpr int kBias = (1 << (kExponent - 1)) - 1;
  constexpr u32 kInfinity = ((1u << kExponent) - 1) << kMantissa;
  const u16 sign = std::signbit(v) ? 0x8000 : 0;
  if (std::isnan(v)) return 0x7fff;
  const double magnitude = std::fabs(v);
  if (magnitude == 0) return sign;
  if (std::isinf(v)) return static_cast<u16>(sign | kInfinity);
  int e = std::max(std::ilogb(magnitude), 1 - kBias);
  const double units = std::fabs(round(std::ldexp(v, kMantissa - e)));  // of the last place
  u32 bits = static_cast<u32>(units);
  if (bits >= 1u << kMantissa) bits += static_cast<u32>(e + kBias - 1) << kMantissa;
  return static_cast<u16>(sign | (bits < kInfinity ? bits : kInfinity));
}

inline double nearest(double v) { return std::nearbyint(v); }

template <int kMantissa, int kExponent>
struct Float16 {
  u16 bits = 0;
  Float16() = default;
  explicit Float16(double v) : bits(to_16_bits<kMantissa, kExponent>(v, nearest)) {}
  explicit Float16(float v) : Float16(static_cast<double>(v)) {}
  static Float16 of_bits(u16 b) {
    Float16 h;
    h.bits = b;
    return h;
  }

  explicit operator float() const {
    if constexpr (kExponent == 8) {
      return std::bit_cast<float>(static_cast<u32>(bits) << 16);
    } else {
      constexpr int kBias = (1 << (kExponent - 1)) - 1;
      const u32 sign = static_cast<u32>(bits & 0x8000) << 16;
      const u32 e = (bits >> kMantissa) & ((1u << kExponent) - 1);
      const u32 m = bits & ((1u << kMantissa) - 1);
      if (e == (1u << kExponent) - 1)
        return std::bit_cast<float>(sign | 0x7f800000u | (m << (23 - kMantissa)));
      if (e == 0) {
        const float v = std::ldexp(static_cast<float>(m), 1 - kBias - kMantissa);
        return sign ? -v : v;
      }
      return std::bit_cast<float>(sign | ((e + 127 - kBias) << 23) | (m << (23 - kMantissa)));
    }
  }
  explicit operator double() const { return static_cast<double>(static_cast<float>(*this)); }

  friend Float16 operator+(Float16 a, Float16 b) {
    return Float16(static_cast<double>(a) + static_cast<double>(b));
  }
  friend Float16 operator-(Float16 a, Float16 b) {
    return Float16(static_cast<double>(a) - static_cast<double>(b));
  }
  friend Float16 operator*(Float16 a, Float16 b) {
    return Float16(static_cast<double>(a) * static_cast<double>(b));
  }
};
using Half = Float16<10, 5>;
using BFloat16 = Float16<7, 8>;

/// f16x2, bf16x2.
template <class T>
struct Two {
  T lo, hi;
  friend Two operator+(Two a, Two b) { return {a.lo + b.lo, a.hi + b.hi}; }
};

}  // namespace cudasim
