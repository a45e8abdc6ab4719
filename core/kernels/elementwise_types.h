// Which element types a kernel takes: calls with the type of a dtype, for the CPU's kernels and the
// GPU's.
#pragma once
#include <cstdint>

#include <tutti/core/dtype.h>

namespace tutti::kernels::detail {

/// Calls f with the element type of t, if it is float or double.
template <class F>
void with_float(DType t, const F& f) {
  if (t == kFloat64)
    f.template operator()<double>();
  else
    f.template operator()<float>();
}

/// Any integer type.
template <class F>
void with_integer(DType t, const F& f) {
  switch (t) {
    case DType::UInt8:
      return f.template operator()<std::uint8_t>();
    case DType::Int8:
      return f.template operator()<std::int8_t>();
    case DType::Int16:
      return f.template operator()<std::int16_t>();
    case DType::Int32:
      return f.template operator()<std::int32_t>();
    default:
      return f.template operator()<std::int64_t>();
  }
}

/// Integers and bool; numbers (no bool); everything. None sees a half type.
template <class F>
void with_bits(DType t, const F& f) {
  if (t == kBool)
    f.template operator()<bool>();
  else
    with_integer(t, f);
}
template <class F>
void with_number(DType t, const F& f) {
  if (is_floating(t))
    with_float(t, f);
  else
    with_integer(t, f);
}
template <class F>
void with_any(DType t, const F& f) {
  if (t == kBool)
    f.template operator()<bool>();
  else
    with_number(t, f);
}

}  // namespace tutti::kernels::detail
