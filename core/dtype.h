// Element types: the DType tag, the two half types (storage only, computed in float32), Scalar, and
// type promotion.
#pragma once
#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include <tutti/core/error.h>

namespace tutti {

/// Element type of a tensor, in promotion order within each kind.
enum class DType : std::uint8_t {
  Bool,
  UInt8,
  Int8,
  Int16,
  Int32,
  Int64,
  Float16,
  BFloat16,
  Float32,
  Float64
};
using ScalarType = DType;
inline constexpr DType kBool = DType::Bool, kUInt8 = DType::UInt8, kInt8 = DType::Int8,
                       kInt16 = DType::Int16, kInt32 = DType::Int32, kInt64 = DType::Int64,
                       kFloat16 = DType::Float16, kBFloat16 = DType::BFloat16,
                       kFloat32 = DType::Float32, kFloat64 = DType::Float64;
inline constexpr DType kByte = kUInt8, kChar = kInt8, kShort = kInt16, kInt = kInt32,
                       kLong = kInt64, kHalf = kFloat16, kFloat = kFloat32, kDouble = kFloat64;

namespace detail {
constexpr float half_to_float(std::uint16_t bits) {
  std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  std::uint32_t exponent = (bits >> 10) & 0x1fu, fraction = bits & 0x3ffu;
  if (exponent == 0) {  // zero and subnormals: fraction * 2^-24
    float v = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(v) | sign);
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

/// Rounds to nearest even.
constexpr std::uint16_t float_to_half(float v) {
  std::uint32_t u = std::bit_cast<std::uint32_t>(v);
  std::uint32_t sign = (u >> 16) & 0x8000u;
  u &= 0x7fffffffu;
  if (u > 0x7f800000u)  // NaN stays NaN
    return static_cast<std::uint16_t>(sign | 0x7e00u | ((u >> 13) & 0x3ffu));
  if (u >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 2^16 and above
  if (u < 0x38800000u) {  // below 2^-14: adding 0.5 leaves v * 2^24, rounded, in the last bits
    float f = std::bit_cast<float>(u) + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(f) - 0x3f000000u));
  }
  // A carry out of the fraction moves on to the exponent, up to infinity, as it should.
  return static_cast<std::uint16_t>(sign | ((u - 0x38000000u + 0xfffu + ((u >> 13) & 1u)) >> 13));
}
constexpr float bfloat_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}
constexpr std::uint16_t float_to_bfloat(float v) {  // round to nearest even, NaN stays NaN
  std::uint32_t u = std::bit_cast<std::uint32_t>(v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((u >> 16) | 0x40u);
  return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
}  // namespace detail

/// IEEE binary16, for storage: converts to and from float.
struct Half {
  std::uint16_t bits = 0;
  Half() = default;
  constexpr Half(float v) : bits(detail::float_to_half(v)) {}
  constexpr operator float() const { return detail::half_to_float(bits); }
};
/// bfloat16, for storage: converts to and from float.
struct BFloat16 {
  std::uint16_t bits = 0;
  BFloat16() = default;
  constexpr BFloat16(float v) : bits(detail::float_to_bfloat(v)) {}
  constexpr operator float() const { return detail::bfloat_to_float(bits); }
};

/// The DType of a C++ element type.
template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, bool>)
    return kBool;
  else if constexpr (std::is_same_v<T, Half>)
    return kFloat16;
  else if constexpr (std::is_same_v<T, BFloat16>)
    return kBFloat16;
  else if constexpr (std::is_same_v<T, float>)
    return kFloat32;
  else if constexpr (std::is_same_v<T, double>)
    return kFloat64;
  else if constexpr (std::is_integral_v<T> && sizeof(T) == 1)
    return std::is_signed_v<T> ? kInt8 : kUInt8;
  else if constexpr (std::is_integral_v<T> && sizeof(T) == 2 && std::is_signed_v<T>)
    return kInt16;
  else if constexpr (std::is_integral_v<T> && sizeof(T) == 4 && std::is_signed_v<T>)
    return kInt32;
  else if constexpr (std::is_integral_v<T> && sizeof(T) == 8 && std::is_signed_v<T>)
    return kInt64;
  else
    static_assert(!sizeof(T), "not an element type of tutti");
}

/// True for the element types data_ptr<T>() and tensor() take.
template <class T>
concept Element = std::is_same_v<T, bool> || std::is_same_v<T, Half> ||
    std::is_same_v<T, BFloat16> || std::is_same_v<T, float> || std::is_same_v<T, double> ||
    (std::is_integral_v<T> && (std::is_signed_v<T> || sizeof(T) == 1));

constexpr bool is_floating(DType t) { return t >= DType::Float16; }
constexpr bool is_half(DType t) { return t == DType::Float16 || t == DType::BFloat16; }
constexpr bool is_integral(DType t, bool with_bool = false) {
  return t < DType::Float16 && (with_bool || t != DType::Bool);
}
/// Bytes per element.
constexpr std::int64_t size_of(DType t) {
  switch (t) {
    case DType::Bool:
    case DType::UInt8:
    case DType::Int8:
      return 1;
    case DType::Int16:
    case DType::Float16:
    case DType::BFloat16:
      return 2;
    case DType::Int32:
    case DType::Float32:
      return 4;
    case DType::Int64:
    case DType::Float64:
      return 8;
  }
  return 0;
}
/// "float32", "int64", ...
const char* name_of(DType t);
/// The dtype two dtypes of the same category rank promote to, as torch.promote_types.
DType promote_types(DType a, DType b);

/// A number with its kind (bool, integer or floating), as in LibTorch.
class Scalar {
 public:
  enum class Kind : std::uint8_t { boolean, integer, floating };
  constexpr Scalar() : Scalar(0) {}
  template <class T>
  requires(std::is_arithmetic_v<T>) constexpr Scalar(T v) {
    if constexpr (std::is_same_v<T, bool>)
      kind_ = Kind::boolean, i_ = v, d_ = v;
    else if constexpr (std::is_integral_v<T>)
      kind_ = Kind::integer, i_ = static_cast<std::int64_t>(v), d_ = static_cast<double>(v);
    else {
      kind_ = Kind::floating, d_ = static_cast<double>(v);
      i_ = d_ > -9.2e18 && d_ < 9.2e18 ? static_cast<std::int64_t>(d_) : 0;
    }
  }
  Scalar(Half v) : Scalar(static_cast<float>(v)) {}
  Scalar(BFloat16 v) : Scalar(static_cast<float>(v)) {}
  constexpr Kind kind() const { return kind_; }
  constexpr bool is_floating() const { return kind_ == Kind::floating; }
  constexpr bool is_boolean() const { return kind_ == Kind::boolean; }
  constexpr double to_double() const { return d_; }
  constexpr std::int64_t to_int() const { return i_; }
  template <class T>
  T to() const {
    if constexpr (std::is_same_v<T, bool>)
      return d_ != 0;
    else if constexpr (std::is_integral_v<T>)
      return static_cast<T>(i_);
    else if constexpr (std::is_same_v<T, double>)
      return d_;
    else
      return T(static_cast<float>(d_));
  }
  // LibTorch's spellings.
  constexpr double toDouble() const { return d_; }
  constexpr float toFloat() const { return static_cast<float>(d_); }
  constexpr std::int64_t toLong() const { return i_; }
  constexpr int toInt() const { return static_cast<int>(i_); }
  constexpr bool toBool() const { return d_ != 0; }
  /// The dtype a tensor made from this scalar has: float32, int64 or bool.
  constexpr DType dtype() const {
    return kind_ == Kind::boolean ? kBool : kind_ == Kind::integer ? kInt64 : kFloat32;
  }
  friend constexpr bool same(const Scalar& a, const Scalar& b) {  // NaN is the same as NaN
    return a.kind_ == b.kind_ && a.i_ == b.i_ &&
           std::bit_cast<std::uint64_t>(a.d_) == std::bit_cast<std::uint64_t>(b.d_);
  }

 private:
  std::int64_t i_ = 0;
  double d_ = 0;
  Kind kind_ = Kind::integer;
};

/// Calls f.template operator()<T>() with the element type of `t`.
template <class F>
decltype(auto) dispatch(DType t, F&& f) {
  switch (t) {
    case DType::Bool:
      return f.template operator()<bool>();
    case DType::UInt8:
      return f.template operator()<std::uint8_t>();
    case DType::Int8:
      return f.template operator()<std::int8_t>();
    case DType::Int16:
      return f.template operator()<std::int16_t>();
    case DType::Int32:
      return f.template operator()<std::int32_t>();
    case DType::Int64:
      return f.template operator()<std::int64_t>();
    case DType::Float16:
      return f.template operator()<Half>();
    case DType::BFloat16:
      return f.template operator()<BFloat16>();
    case DType::Float32:
      return f.template operator()<float>();
    case DType::Float64:
      break;
  }
  return f.template operator()<double>();
}

}  // namespace tutti
