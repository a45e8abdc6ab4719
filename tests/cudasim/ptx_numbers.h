// What arithmetic and conversions share: flushing, saturation, types to templates.
#pragma once
#include <cmath>
#include <limits>

#include "ptx_code.h"
#include "ptx_half.h"

namespace cudasim {

/// .ftz: subnormal floats become zero.
inline float flush(float v) {
  return std::fabs(v) < std::numeric_limits<float>::min() ? std::copysign(0.0f, v) : v;
}
inline double flush(double v) { return v; }

/// .sat: into [0, 1], and NaN to 0.
template <class T>
T saturated(T v) {
  return v >= T(1) ? T(1) : v > T(0) ? v : T(0);
}

/// f(T{}) for the integer type T that `t` names; nullptr for other types.
template <class F>
Handler with_integer(ptx::Type t, F f) {
  using ptx::Type;
  switch (t) {
    case Type::kU16:
    case Type::kB16:
      return f(u16{});
    case Type::kS16:
      return f(i16{});
    case Type::kU32:
    case Type::kB32:
      return f(u32{});
    case Type::kS32:
      return f(i32{});
    case Type::kU64:
    case Type::kB64:
      return f(u64{});
    case Type::kS64:
      return f(i64{});
    default:
      return nullptr;
  }
}

}  // namespace cudasim
