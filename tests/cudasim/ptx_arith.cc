// Instructions that compute. Each is a small functor, run over the lanes of a warp by one of a few
// loops.
#include "ptx_arith.h"

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "ptx_lanes.h"
#include "ptx_numbers.h"

namespace cudasim {
namespace {

using ptx::Type;

// ---------------------------------------------------------------- loops

template <class D, class A, class F>
Flow unary(Warp& w, const Instruction& i, u32 mask) {
  const A* a = w.at<A>(i.a);
  each_lane(w.at<D>(i.d), mask, [=](u32 l) { return static_cast<D>(F()(a[l])); });
  return Flow::kNext;
}
template <class D, class A, class B, class F>
Flow binary(Warp& w, const Instruction& i, u32 mask) {
  const A* a = w.at<A>(i.a);
  const B* b = w.at<B>(i.b);
  each_lane(w.at<D>(i.d), mask, [=](u32 l) { return static_cast<D>(F()(a[l], b[l])); });
  return Flow::kNext;
}
template <class D, class A, class B, class C, class F>
Flow ternary(Warp& w, const Instruction& i, u32 mask) {
  const A* a = w.at<A>(i.a);
  const B* b = w.at<B>(i.b);
  const C* c = w.at<C>(i.c);
  each_lane(w.at<D>(i.d), mask, [=](u32 l) { return static_cast<D>(F()(a[l], b[l], c[l])); });
  return Flow::kNext;
}

// For operations that are the same for signed and unsigned integers.
template <class F>
Handler with_bits(Type t, F f) {
  if (t == Type::kPred || ptx::is_float(t)) return nullptr;
  switch (ptx::bytes_of(t)) {
    case 2:
      return f(u16{});
    case 4:
      return f(u32{});
    case 8:
      return f(u64{});
    default:
      return nullptr;
  }
}

template <class T>
using Unsigned = std::make_unsigned_t<T>;
template <class T>
using Wider = std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, i32, u32>,
                                 std::conditional_t<std::is_signed_v<T>, i64, u64>>;
__extension__ typedef __int128 i128;
__extension__ typedef unsigned __int128 u128;

// ---------------------------------------------------------------- integers

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(a + b);
    } else {
      return a + b;
    }
  }
};
struct Subtract {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(a - b);
    } else {
      return a - b;
    }
  }
};
struct Multiply {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(static_cast<u64>(a) * static_cast<u64>(b));
    } else {
      return a * b;
    }
  }
};
struct MultiplyHigh {
  template <class T>
  T operator()(T a, T b) const {
    using Product =
        std::conditional_t<sizeof(T) == 8, std::conditional_t<std::is_signed_v<T>, i128, u128>,
                           Wider<T>>;
    return static_cast<T>((static_cast<Product>(a) * static_cast<Product>(b)) >> (8 * sizeof(T)));
  }
};
struct MultiplyWide {
  template <class T>
  Wider<T> operator()(T a, T b) const {
    return static_cast<Wider<T>>(static_cast<Wider<T>>(a) * static_cast<Wider<T>>(b));
  }
};
template <class Product>
struct MultiplyAdd {
  template <class T, class C>
  C operator()(T a, T b, C c) const {
    return static_cast<C>(static_cast<Unsigned<C>>(Product()(a, b)) + static_cast<Unsigned<C>>(c));
  }
};
struct Minimum {
  template <class T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct Maximum {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct Negate {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(Unsigned<T>{0} - static_cast<Unsigned<T>>(a));
  }
};
struct Absolute {
  template <class T>
  T operator()(T a) const {
    return a < 0 ? Negate()(a) : a;
  }
};
struct Not {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(~a);
  }
};
struct And {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};
// Shifts by the width or more give 0, or the sign.
struct ShiftLeft {
  template <class T>
  T operator()(T a, u32 n) const {
    return n >= 8 * sizeof(T) ? T{0} : static_cast<T>(static_cast<u64>(a) << (n & 63));
  }
};
struct ShiftRight {
  template <class T>
  T operator()(T a, u32 n) const {
    constexpr u32 kBits = 8 * sizeof(T);
    if constexpr (std::is_signed_v<T>) return static_cast<T>(a >> std::min(n, kBits - 1));
    return n >= kBits ? T{0} : static_cast<T>(a >> (n & (kBits - 1)));
  }
};
struct FunnelLeft {
  u32 operator()(u32 lo, u32 hi, u32 n) const {
    return static_cast<u32>((u64{hi} << 32 | lo) << (n & 31) >> 32);
  }
};
struct FunnelLeftClamp {
  u32 operator()(u32 lo, u32 hi, u32 n) const { return n >= 32 ? lo : FunnelLeft()(lo, hi, n); }
};
struct FunnelRight {
  u32 operator()(u32 lo, u32 hi, u32 n) const {
    return static_cast<u32>((u64{hi} << 32 | lo) >> (n & 31));
  }
};
struct FunnelRightClamp {
  u32 operator()(u32 lo, u32 hi, u32 n) const { return n >= 32 ? hi : FunnelRight()(lo, hi, n); }
};
struct PopulationCount {
  template <class T>
  u32 operator()(T a) const {
    return static_cast<u32>(std::popcount(a));
  }
};
struct LeadingZeros {
  template <class T>
  u32 operator()(T a) const {
    return static_cast<u32>(std::countl_zero(a));
  }
};
struct ReverseBits {
  template <class T>
  T operator()(T a) const {
    T r = 0;
    for (u32 b = 0; b < 8 * sizeof(T); ++b)
      r = static_cast<T>(r | (a >> b & 1) << (8 * sizeof(T) - 1 - b));
    return r;
  }
};
// Position of the highest bit that differs from the sign; ~0 if there is none.
struct FindHighest {
  template <class T>
  u32 operator()(T a) const {
    const Unsigned<T> v = static_cast<Unsigned<T>>(a < 0 ? ~a : a);
    return v ? static_cast<u32>(8 * sizeof(T) - 1) - static_cast<u32>(std::countl_zero(v)) : ~0u;
  }
};
struct ExtractField {
  template <class T>
  T operator()(T a, u32 position, u32 length) const {
    constexpr u32 kBits = 8 * sizeof(T);
    position &= 255;
    length &= 255;
    if (length == 0) return 0;
    const bool sign = std::is_signed_v<T> &&
                      (static_cast<u64>(a) >> std::min(position + length - 1, kBits - 1) & 1);
    const u64 field =
        position >= kBits ? 0 : static_cast<u64>(static_cast<Unsigned<T>>(a)) >> position;
    const u64 in_field = length >= 64 ? ~u64{0} : (u64{1} << length) - 1;
    const u32 real =
        position >= kBits ? 0 : std::min(length, kBits - position);  // beyond the top: sign
    const u64 real_mask = real >= 64 ? ~u64{0} : (u64{1} << real) - 1;
    return static_cast<T>((field & in_field & real_mask) | (sign ? ~(in_field & real_mask) : 0));
  }
};
template <class T>
Flow insert_field(Warp& w, const Instruction& i, u32 mask) {
  const T *a = w.at<T>(i.a), *b = w.at<T>(i.b);
  const u32 *position = w.at<u32>(i.c), *length = w.at<u32>(i.e);
  each_lane(w.at<T>(i.d), mask, [=](u32 l) {
    const u32 p = position[l] & 255, n = length[l] & 255;
    const u64 ones = n >= 64 ? ~u64{0} : (u64{1} << n) - 1;
    const u64 field = p >= 64 ? 0 : ones << p;
    const u64 moved = p >= 64 ? 0 : static_cast<u64>(a[l]) << p;
    return static_cast<T>((static_cast<u64>(b[l]) & ~field) | (moved & field));
  });
  return Flow::kNext;
}
struct BitMask {  // bmsk.clamp
  u32 operator()(u32 position, u32 length) const {
    if (position >= 32) return 0;
    const u64 ones = length >= 32 ? ~u64{0} : (u64{1} << length) - 1;
    return static_cast<u32>(ones << position);
  }
};
struct BitMaskWrap {
  u32 operator()(u32 position, u32 length) const { return BitMask()(position & 31, length & 31); }
};
struct Permute {
  u32 operator()(u32 a, u32 b, u32 selector) const {
    const u64 both = u64{b} << 32 | a;
    u32 r = 0;
    for (u32 k = 0; k < 4; ++k) {
      const u32 pick = selector >> (4 * k) & 15;
      u32 byte = static_cast<u32>(both >> (8 * (pick & 7)) & 255);
      if (pick & 8) byte = byte & 128 ? 255 : 0;
      r |= byte << (8 * k);
    }
    return r;
  }
};
template <class T>
Flow lut3(Warp& w, const Instruction& i, u32 mask) {
  const T *a = w.at<T>(i.a), *b = w.at<T>(i.b), *c = w.at<T>(i.c);
  const u32 table = *w.at<u32>(i.e);
  each_lane(w.at<T>(i.d), mask, [=](u32 l) {
    T r = 0;
    for (u32 k = 0; k < 8; ++k) {
      if (table >> k & 1)
        r |= (k & 4 ? a[l] : ~a[l]) & (k & 2 ? b[l] : ~b[l]) & (k & 1 ? c[l] : ~c[l]);
    }
    return r;
  });
  return Flow::kNext;
}
struct AbsoluteDifferenceAdd {
  template <class T>
  T operator()(T a, T b, T c) const {
    using U = Unsigned<T>;
    const U d = static_cast<U>(a < b ? static_cast<U>(b) - static_cast<U>(a)
                                     : static_cast<U>(a) - static_cast<U>(b));
    return static_cast<T>(d + static_cast<U>(c));
  }
};

// Division by zero has no result on a GPU; here it ends the program.
template <class T, bool kRemainder>
Flow divide(Warp& w, const Instruction& i, u32 mask) {
  const T *a = w.at<T>(i.a), *b = w.at<T>(i.b);
  T* d = w.at<T>(i.d);
  active_lanes(mask, [&](u32 l) {
    const T x = a[l], y = b[l];
    if (y == 0)
      w.error(i, l, kRemainder ? "integer remainder by zero" : "integer division by zero");
    if constexpr (std::is_signed_v<T>) {
      if (y == T(-1)) {  // the smallest number has no negative
        d[l] = kRemainder ? T(0) : Negate()(x);
        return;
      }
    }
    d[l] = static_cast<T>(kRemainder ? x % y : x / y);
  });
  return Flow::kNext;
}

// --- carries
// d = a + b (+ carry), with carry out
template <class T, bool kIn, bool kOut>
Flow add_carry(Warp& w, const Instruction& i, u32 mask) {
  const T *a = w.at<T>(i.a), *b = w.at<T>(i.b);
  T* d = w.at<T>(i.d);
  u32* carry = w.at<u32>(w.frame().function->carry);
  active_lanes(mask, [&](u32 l) {
    const u128 sum = u128{a[l]} + b[l] + (kIn ? *carry >> l & 1 : 0);
    d[l] = static_cast<T>(sum);
    if (kOut) *carry = (*carry & ~(1u << l)) | static_cast<u32>(sum >> (8 * sizeof(T)) & 1) << l;
  });
  return Flow::kNext;
}
// d = a - b (- borrow), with borrow out
template <class T, bool kIn, bool kOut>
Flow subtract_borrow(Warp& w, const Instruction& i, u32 mask) {
  const T *a = w.at<T>(i.a), *b = w.at<T>(i.b);
  T* d = w.at<T>(i.d);
  u32* carry = w.at<u32>(w.frame().function->carry);
  active_lanes(mask, [&](u32 l) {
    const u128 difference = u128{a[l]} - b[l] - (kIn ? *carry >> l & 1 : 0);
    d[l] = static_cast<T>(difference);
    if (kOut)
      *carry = (*carry & ~(1u << l)) | static_cast<u32>(difference >> (8 * sizeof(T)) & 1) << l;
  });
  return Flow::kNext;
}
template <class T, class Product, bool kIn, bool kOut>
Flow multiply_add_carry(Warp& w, const Instruction& i, u32 mask) {
  const T *a = w.at<T>(i.a), *b = w.at<T>(i.b), *c = w.at<T>(i.c);
  T* d = w.at<T>(i.d);
  u32* carry = w.at<u32>(w.frame().function->carry);
  active_lanes(mask, [&](u32 l) {
    const u128 sum = u128{Product()(a[l], b[l])} + c[l] + (kIn ? *carry >> l & 1 : 0);
    d[l] = static_cast<T>(sum);
    if (kOut) *carry = (*carry & ~(1u << l)) | static_cast<u32>(sum >> (8 * sizeof(T)) & 1) << l;
  });
  return Flow::kNext;
}
template <class F>
Handler with_carries(bool in, bool out, F f) {
  if (in)
    return out ? f(std::true_type(), std::true_type()) : f(std::true_type(), std::false_type());
  return out ? f(std::false_type(), std::true_type()) : f(std::false_type(), std::false_type());
}

// ---------------------------------------------------------------- floats

struct FusedMultiplyAdd {
  template <class T>
  T operator()(T a, T b, T c) const {
    if constexpr (std::is_floating_point_v<T>) {
      return std::fma(a, b, c);
    } else {  // the product of two halves is exact
      return T(std::fma(static_cast<double>(a), static_cast<double>(b), static_cast<double>(c)));
    }
  }
};
struct DivideFloat {
  template <class T>
  T operator()(T a, T b) const {
    return a / b;
  }
};
struct MinimumNumber {  // a NaN loses
  template <class T>
  T operator()(T a, T b) const {
    if (a != a) return b;
    if (a == b) return std::signbit(a) ? a : b;
    return b < a ? b : a;
  }
};
struct MaximumNumber {
  template <class T>
  T operator()(T a, T b) const {
    if (a != a) return b;
    if (a == b) return std::signbit(a) ? b : a;
    return a < b ? b : a;
  }
};
struct MinimumOrNan {
  template <class T>
  T operator()(T a, T b) const {
    return a != a ? a : b != b ? b : MinimumNumber()(a, b);
  }
};
struct MaximumOrNan {
  template <class T>
  T operator()(T a, T b) const {
    return a != a ? a : b != b ? b : MaximumNumber()(a, b);
  }
};
struct NegateFloat {
  template <class T>
  T operator()(T a) const {
    return -a;
  }
};
struct AbsoluteFloat {
  template <class T>
  T operator()(T a) const {
    return std::fabs(a);
  }
};
struct Reciprocal {
  template <class T>
  T operator()(T a) const {
    return T(1) / a;
  }
};
struct SquareRoot {
  template <class T>
  T operator()(T a) const {
    return std::sqrt(a);
  }
};
struct ReciprocalSquareRoot {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(1.0 / std::sqrt(static_cast<double>(a)));
  }
};
struct Exp2 {
  float operator()(float a) const { return static_cast<float>(std::exp2(static_cast<double>(a))); }
};
struct Log2 {
  float operator()(float a) const { return static_cast<float>(std::log2(static_cast<double>(a))); }
};
struct Sine {
  float operator()(float a) const { return static_cast<float>(std::sin(static_cast<double>(a))); }
};
struct Cosine {
  float operator()(float a) const { return static_cast<float>(std::cos(static_cast<double>(a))); }
};
struct HyperbolicTangent {
  float operator()(float a) const { return static_cast<float>(std::tanh(static_cast<double>(a))); }
};
struct CopySign {
  template <class T>
  T operator()(T a, T b) const {
    return std::copysign(b, a);
  }  // the sign of a, the value of b
};
// For halves: compute in float and round, which is exact for what is used here.
template <class F>
struct InFloat {
  template <class T>
  T operator()(T a) const {
    return T(F()(static_cast<float>(a)));
  }
  template <class T>
  T operator()(T a, T b) const {
    return T(F()(static_cast<float>(a), static_cast<float>(b)));
  }
};
template <class F>
struct BothHalves {
  template <class T, class... Rest>
  Two<T> operator()(Two<T> a, Rest... r) const {
    return {F()(a.lo, r.lo...), F()(a.hi, r.hi...)};
  }
};
struct NegateBits16 {
  template <class T>
  T operator()(T a) const {
    return T::of_bits(static_cast<u16>(a.bits ^ 0x8000));
  }
};
struct AbsoluteBits16 {
  template <class T>
  T operator()(T a) const {
    return T::of_bits(static_cast<u16>(a.bits & 0x7fff));
  }
};

// .ftz and .sat around a function.
template <class F, bool kFtz, bool kSat>
struct Modified {
  template <class T, class... Rest>
  T operator()(T a, Rest... rest) const {
    T r;
    if constexpr (kFtz) {
      r = flush(F()(flush(a), flush(rest)...));
    } else {
      r = F()(a, rest...);
    }
    if constexpr (kSat) r = saturated(r);
    return r;
  }
};
template <class F, class Make>
Handler with_ftz_sat(bool ftz, bool sat, Make make) {
  if (ftz) return sat ? make(Modified<F, true, true>()) : make(Modified<F, true, false>());
  return sat ? make(Modified<F, false, true>()) : make(F());
}

// Rounding other than to nearest: rare, so one loop for all modes. mode: the FE_ constant's index,
// and flags.
constexpr int kRoundings[] = {FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
constexpr u8 kFlushFlag = 4, kSaturateFlag = 8;

template <int kOperands, class T, class F>
Flow rounded(Warp& w, const Instruction& i, u32 mask) {
  const T* a = w.at<T>(i.a);
  const T* b = kOperands > 1 ? w.at<T>(i.b) : a;
  const T* c = kOperands > 2 ? w.at<T>(i.c) : a;
  T* d = w.at<T>(i.d);
  const bool ftz = i.mode & kFlushFlag, sat = i.mode & kSaturateFlag;
  const auto in = [=](T v) { return ftz ? static_cast<T>(flush(v)) : v; };
  const int before = std::fegetround();
  std::fesetround(kRoundings[i.mode & 3]);
  active_lanes(mask, [&](u32 l) {
    volatile T x = in(a[l]), y = in(b[l]), z = in(c[l]);  // not computed before the mode is set
    volatile T result;
    if constexpr (kOperands == 1) {
      result = F()(static_cast<T>(x));
    } else if constexpr (kOperands == 2) {
      result = F()(static_cast<T>(x), static_cast<T>(y));
    } else {
      result = F()(static_cast<T>(x), static_cast<T>(y), static_cast<T>(z));
    }
    T r = in(result);
    if (sat) r = saturated(r);
    d[l] = r;
  });
  std::fesetround(before);
  return Flow::kNext;
}

// The mode for rounded(): "rz", "rm" or "rp".
u8 rounding_mode(const std::string& rounding, bool ftz, bool sat) {
  const int index = rounding == "rz" ? 0 : rounding == "rm" ? 1 : 2;
  return static_cast<u8>(index | (ftz ? kFlushFlag : 0) | (sat ? kSaturateFlag : 0));
}

// Approximate results may be a little off on a GPU.
template <class F>
struct Approximate {
  static float moved(float v) {
    static Random random(settings().seed);
    const i32 ulps = static_cast<i32>(random.next() % 5) - 2;
    const bool power_of_two =
        (std::bit_cast<u32>(v) & 0x7fffff) == 0;  // exact, and relied on by exp(double)
    if (!std::isfinite(v) || power_of_two) return v;
    return std::bit_cast<float>(std::bit_cast<i32>(v) + ulps);
  }
  template <class T, class... Rest>
  T operator()(T a, Rest... rest) const {
    T r = F()(a, rest...);
    if constexpr (std::is_same_v<T, float>) {
      if (settings().perturb) r = moved(r);
    }
    return r;
  }
};
// rcp.approx.ftz.f64 and rsqrt.approx.ftz.f64 look at the upper half only and give an upper half.
template <class F>
struct UpperHalf {
  double operator()(double a) const {
    constexpr u64 kUpper = 0xffffffff00000000u;
    const double r = F()(std::bit_cast<double>(std::bit_cast<u64>(a) & kUpper));
    return std::bit_cast<double>(std::bit_cast<u64>(r) & kUpper);
  }
};

template <int kOperands, class T, class F>
Handler same_types(F) {
  if constexpr (kOperands == 1) {
    return unary<T, T, F>;
  } else if constexpr (kOperands == 2) {
    return binary<T, T, T, F>;
  } else {
    return ternary<T, T, T, T, F>;
  }
}

// An operation on 16-bit floats.
template <int kOperands, class F>
Handler half_operation(Type t) {
  switch (t) {
    case Type::kF16:
      return same_types<kOperands, Half>(F());
    case Type::kBF16:
      return same_types<kOperands, BFloat16>(F());
    case Type::kF16x2:
      return same_types<kOperands, Two<Half>>(BothHalves<F>());
    case Type::kBF16x2:
      return same_types<kOperands, Two<BFloat16>>(BothHalves<F>());
    default:
      return nullptr;
  }
}

// Operations that exist for 16-bit floats, too.
template <class F>
inline constexpr bool kOnHalves =
    std::is_same_v<F, Add> || std::is_same_v<F, Subtract> || std::is_same_v<F, Multiply> ||
    std::is_same_v<F, FusedMultiplyAdd>;

// An arithmetic operation on any float type, with .rn/.rz/.rm/.rp, .ftz and .sat.
template <int kOperands, class F>
Arithmetic float_operation(Modifiers& m) {
  const Type t = m.type();
  const std::string rounding = m.take_one({"rn", "rz", "rm", "rp"});
  const bool ftz = m.take("ftz"), sat = m.take("sat");
  Arithmetic r{nullptr, t, std::vector<Type>(kOperands, t), 0, nullptr};
  if (ptx::is_float(t) && !rounding.empty() && rounding != "rn") {
    r.run = t == Type::kF32 ? rounded<kOperands, float, F> : Handler(rounded<kOperands, double, F>);
    r.mode = rounding_mode(rounding, ftz, sat);
  } else if (t == Type::kF32) {
    r.run = with_ftz_sat<F>(ftz, sat, [](auto f) { return same_types<kOperands, float>(f); });
  } else if (t == Type::kF64) {
    r.run = same_types<kOperands, double>(F());
  } else if (!ftz && !sat) {
    if constexpr (kOnHalves<F>) r.run = half_operation<kOperands, F>(t);
  }
  return r;
}

bool is_float16(Type t) {
  return t == Type::kF16 || t == Type::kBF16 || t == Type::kF16x2 || t == Type::kBF16x2;
}

// Functions with an exact form (.rn ...) and an approximate one.
template <class F>
Arithmetic approximate(Modifiers& m) {
  constexpr bool kHasExactForm = std::is_same_v<F, Reciprocal> || std::is_same_v<F, SquareRoot>;
  constexpr bool kHasHalfForm = std::is_same_v<F, Exp2> || std::is_same_v<F, HyperbolicTangent>;
  constexpr bool kHasDoubleForm =
      std::is_same_v<F, Reciprocal> || std::is_same_v<F, ReciprocalSquareRoot>;
  const Type t = m.type();
  Arithmetic r{nullptr, t, {t}, 0, nullptr};
  if (!m.take("approx")) {
    if constexpr (kHasExactForm) return float_operation<1, F>(m);
    return r;
  }
  const bool ftz = m.take("ftz");
  if (t == Type::kF32) {
    r.run = ftz ? unary<float, float, Modified<Approximate<F>, true, false>>
                : Handler(unary<float, float, Approximate<F>>);
  } else if (t == Type::kF64) {
    if constexpr (kHasDoubleForm) r.run = unary<double, double, UpperHalf<F>>;
  } else {
    if constexpr (kHasHalfForm) r.run = half_operation<1, InFloat<F>>(t);
  }
  return r;
}

Arithmetic division(Modifiers& m) {
  const Type t = m.type();
  if (t == Type::kF32 && (m.take("approx") || m.take("full"))) {
    using F = Approximate<DivideFloat>;
    const bool ftz = m.take("ftz");
    return {with_ftz_sat<F>(ftz, false, [](auto f) { return same_types<2, float>(f); }),
            t,
            {t, t},
            0,
            nullptr};
  }
  if (ptx::is_float(t)) return float_operation<2, DivideFloat>(m);
  return {with_integer(t, []<class T>(T) -> Handler { return divide<T, false>; }),
          t,
          {t, t},
          0,
          nullptr};
}

// ---------------------------------------------------------------- comparisons

enum class Relation : u8 { kEq, kNe, kLt, kLe, kGt, kGe, kNum, kNan };

// kUnordered: true if an operand is NaN.
template <Relation kRelation, bool kUnordered>
struct Compare {
  static constexpr bool kOnlyFloats =
      kUnordered || kRelation == Relation::kNum || kRelation == Relation::kNan;
  template <class T>
  bool operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>) {
      const bool nan = a != a || b != b;
      if constexpr (kRelation == Relation::kNum) return !nan;
      if constexpr (kRelation == Relation::kNan) return nan;
      if constexpr (kUnordered) {
        return nan || ordered(a, b);
      } else {
        return !nan && ordered(a, b);
      }
    } else {
      return ordered(a, b);
    }
  }
  template <class T>
  static bool ordered(T a, T b) {
    switch (kRelation) {
      case Relation::kEq:
        return a == b;
      case Relation::kNe:
        return a != b;
      case Relation::kLt:
        return a < b;
      case Relation::kLe:
        return a <= b;
      case Relation::kGt:
        return a > b;
      case Relation::kGe:
        return a >= b;
      default:
        return false;
    }
  }
};

template <class T>
struct Widened {  // what a comparison of T compares
  static T of(T v) { return v; }
};
template <int M, int E>
struct Widened<Float16<M, E>> {
  static float of(Float16<M, E> v) { return static_cast<float>(v); }
};

// p|q = a <rel> b, combined with predicate c by .and, .or, .xor
template <class T, class F, bool kFtz>
Flow set_predicates(Warp& w, const Instruction& i, u32 mask) {
  const T *a = w.at<T>(i.a), *b = w.at<T>(i.b);
  u32 bits;
  if constexpr (kFtz) {
    bits = lane_bits([=](u32 l) { return F()(flush(a[l]), flush(b[l])); });
  } else {
    bits = lane_bits([=](u32 l) { return F()(Widened<T>::of(a[l]), Widened<T>::of(b[l])); });
  }
  u32 opposite = ~bits;
  if (i.mode) {
    const u32 c = w.predicate(i.c);
    bits = i.mode == 'a' ? bits & c : i.mode == 'o' ? bits | c : bits ^ c;
    opposite = i.mode == 'a' ? opposite & c : i.mode == 'o' ? opposite | c : opposite ^ c;
  }
  set_predicate(w, i.d, bits, mask);
  set_predicate(w, i.d2, opposite, mask);
  return Flow::kNext;
}

template <class Make>
Handler with_relation(const std::string& relation, Make make) {
  using R = Relation;
  if (relation == "eq") return make(Compare<R::kEq, false>());
  if (relation == "ne") return make(Compare<R::kNe, false>());
  if (relation == "lt" || relation == "lo") return make(Compare<R::kLt, false>());
  if (relation == "le" || relation == "ls") return make(Compare<R::kLe, false>());
  if (relation == "gt" || relation == "hi") return make(Compare<R::kGt, false>());
  if (relation == "ge" || relation == "hs") return make(Compare<R::kGe, false>());
  if (relation == "equ") return make(Compare<R::kEq, true>());
  if (relation == "neu") return make(Compare<R::kNe, true>());
  if (relation == "ltu") return make(Compare<R::kLt, true>());
  if (relation == "leu") return make(Compare<R::kLe, true>());
  if (relation == "gtu") return make(Compare<R::kGt, true>());
  if (relation == "geu") return make(Compare<R::kGe, true>());
  if (relation == "num") return make(Compare<R::kNum, false>());
  if (relation == "nan") return make(Compare<R::kNan, false>());
  return nullptr;
}

std::string take_relation(Modifiers& m) {
  return m.take_one({"eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu",
                     "ltu", "leu", "gtu", "geu", "num", "nan"});
}

template <class F>
Handler with_compared(Type t, F f) {
  switch (t) {
    case Type::kF32:
      return f(float{});
    case Type::kF64:
      return f(double{});
    case Type::kF16:
      return f(Half{});
    case Type::kBF16:
      return f(BFloat16{});
    default:
      return with_integer(t, f);
  }
}

Arithmetic setp(Modifiers& m) {
  Arithmetic r;
  const Type t = m.type();
  const std::string relation = take_relation(m);
  const std::string combine = m.take_one({"and", "or", "xor"});
  const bool ftz = m.take("ftz");
  r.result = Type::kPred;
  r.operands = {t, t};
  if (!combine.empty()) {
    r.operands.push_back(Type::kPred);
    r.mode = static_cast<u8>(combine[0]);
  }
  r.run = with_relation(relation, [&]<class C>(C) -> Handler {
    return with_compared(t, [&]<class T>(T) -> Handler {
      if constexpr (std::is_same_v<T, float>) {
        if (ftz) return set_predicates<T, C, true>;
      }
      if constexpr (std::is_integral_v<T> && C::kOnlyFloats) return nullptr;
      return set_predicates<T, C, false>;
    });
  });
  return r;
}

template <class T>
Flow select(Warp& w, const Instruction& i, u32 mask) {
  const T *a = w.at<T>(i.a), *b = w.at<T>(i.b);
  const u32 p = w.predicate(i.c);
  each_lane(w.at<T>(i.d), mask, [=](u32 l) { return p >> l & 1 ? a[l] : b[l]; });
  return Flow::kNext;
}
template <class T, class C>
Flow select_by_sign(Warp& w, const Instruction& i, u32 mask) {
  const T *a = w.at<T>(i.a), *b = w.at<T>(i.b);
  const C* c = w.at<C>(i.c);
  each_lane(w.at<T>(i.d), mask, [=](u32 l) { return c[l] >= C(0) ? a[l] : b[l]; });
  return Flow::kNext;
}

// ---------------------------------------------------------------- predicates and moves

template <class F>
Flow predicate_binary(Warp& w, const Instruction& i, u32 mask) {
  set_predicate(w, i.d, F()(w.predicate(i.a), w.predicate(i.b)), mask);
  return Flow::kNext;
}
Flow predicate_not(Warp& w, const Instruction& i, u32 mask) {
  set_predicate(w, i.d, ~w.predicate(i.a), mask);
  return Flow::kNext;
}
Flow predicate_move(Warp& w, const Instruction& i, u32 mask) {
  set_predicate(w, i.d, w.predicate(i.a), mask);
  return Flow::kNext;
}
struct Same {
  template <class T>
  T operator()(T a) const {
    return a;
  }
};

template <class Part, class Whole>
Flow pack(Warp& w, const Instruction& i, u32 mask) {
  const Part* from[4] = {};
  for (u32 k = 0; k < i.count; ++k) from[k] = w.at<Part>(i.parts[k]);
  const u32 n = i.count;
  each_lane(w.at<Whole>(i.d), mask, [&](u32 l) {
    u64 v = 0;
    for (u32 k = 0; k < n; ++k) v |= static_cast<u64>(from[k][l]) << (8 * sizeof(Part) * k);
    return static_cast<Whole>(v);
  });
  return Flow::kNext;
}
template <class Part, class Whole>
Flow unpack(Warp& w, const Instruction& i, u32 mask) {
  const Whole* a = w.at<Whole>(i.a);
  Whole kept[kLanes];
  std::memcpy(kept, a, sizeof kept);
  for (u32 k = 0; k < i.count; ++k) {
    if (i.parts[k] == kNowhere) continue;
    each_lane(w.at<Part>(i.parts[k]), mask, [&](u32 l) {
      return static_cast<Part>(static_cast<u64>(kept[l]) >> (8 * sizeof(Part) * k));
    });
  }
  return Flow::kNext;
}

struct TestFinite {
  template <class T>
  bool operator()(T v) const {
    return std::isfinite(v);
  }
};
struct TestInfinite {
  template <class T>
  bool operator()(T v) const {
    return std::isinf(v);
  }
};
struct TestNumber {
  template <class T>
  bool operator()(T v) const {
    return !std::isnan(v);
  }
};
struct TestNan {
  template <class T>
  bool operator()(T v) const {
    return std::isnan(v);
  }
};
struct TestNormal {
  template <class T>
  bool operator()(T v) const {
    return std::isnormal(v) || v == 0;
  }
};
struct TestSubnormal {
  template <class T>
  bool operator()(T v) const {
    return std::fpclassify(v) == FP_SUBNORMAL;
  }
};
template <class T, class F>
Flow test_property(Warp& w, const Instruction& i, u32 mask) {
  const T* a = w.at<T>(i.a);
  set_predicate(w, i.d, lane_bits([=](u32 l) { return F()(a[l]); }), mask);
  return Flow::kNext;
}

Handler testp(Modifiers& m) {
  const auto make = [&]<class F>(F) -> Handler {
    if (m.type() == Type::kF32) return test_property<float, F>;
    if (m.type() == Type::kF64) return test_property<double, F>;
    return nullptr;
  };
  const std::string what =
      m.take_one({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
  if (what == "finite") return make(TestFinite());
  if (what == "infinite") return make(TestInfinite());
  if (what == "number") return make(TestNumber());
  if (what == "notanumber") return make(TestNan());
  if (what == "normal") return make(TestNormal());
  if (what == "subnormal") return make(TestSubnormal());
  return nullptr;
}

Arithmetic of(Handler run, Type result, std::vector<Type> operands) {
  return {run, result, std::move(operands), 0, nullptr};
}

// mul, mad and their kin on integers.
Arithmetic multiply(Modifiers& m, bool add) {
  const Type t = m.type();
  const std::string part = m.take_one({"lo", "hi", "wide"});
  const bool in = m.name() == "madc", out = m.take("cc");
  Type d = t;
  if (part == "wide") {
    switch (t) {
      case Type::kU16:
        d = Type::kU32;
        break;
      case Type::kS16:
        d = Type::kS32;
        break;
      case Type::kU32:
        d = Type::kU64;
        break;
      case Type::kS32:
        d = Type::kS64;
        break;
      default:
        return {};
    }
  }
  Arithmetic r{nullptr, d, {t, t}, 0, nullptr};
  if (add) r.operands.push_back(d);
  if (in || out) {
    r.run = with_integer(t, [&]<class T>(T) -> Handler {
      if constexpr (sizeof(T) >= 4 && std::is_unsigned_v<T>) {
        return with_carries(in, out, [&]<class I, class O>(I, O) -> Handler {
          if (part == "lo") return multiply_add_carry<T, Multiply, I::value, O::value>;
          if (part == "hi") return multiply_add_carry<T, MultiplyHigh, I::value, O::value>;
          return nullptr;
        });
      }
      return nullptr;
    });
    return r;
  }
  r.run = with_integer(t, [&]<class T>(T) -> Handler {
    if (part == "lo")
      return add ? ternary<T, T, T, T, MultiplyAdd<Multiply>> : Handler(binary<T, T, T, Multiply>);
    if (part == "hi")
      return add ? ternary<T, T, T, T, MultiplyAdd<MultiplyHigh>>
                 : Handler(binary<T, T, T, MultiplyHigh>);
    if constexpr (sizeof(T) <= 4) {
      using W = Wider<T>;
      if (part == "wide")
        return add ? ternary<W, T, T, W, MultiplyAdd<MultiplyWide>>
                   : Handler(binary<W, T, T, MultiplyWide>);
    }
    return nullptr;
  });
  return r;
}

template <class F>
Arithmetic bitwise(Modifiers& m) {
  const Type t = m.type();
  if (t == Type::kPred) return of(predicate_binary<F>, t, {t, t});
  return of(with_bits(t, []<class T>(T) -> Handler { return binary<T, T, T, F>; }), t, {t, t});
}

template <class Integer, class Number, class OrNan>
Arithmetic extreme(Modifiers& m) {
  const Type t = m.type();
  if (!ptx::is_float(t) && !is_float16(t)) {
    return of(with_integer(t, []<class T>(T) -> Handler { return binary<T, T, T, Integer>; }), t,
              {t, t});
  }
  const bool nan = m.take("NaN");
  const bool ftz = m.take("ftz");
  const std::vector<Type> two{t, t};
  if (t == Type::kF64) return of(binary<double, double, double, Number>, t, two);
  if (t == Type::kF32) {
    const auto make = [](auto f) { return same_types<2, float>(f); };
    return of(nan ? with_ftz_sat<OrNan>(ftz, false, make) : with_ftz_sat<Number>(ftz, false, make),
              t, two);
  }
  return of(nan ? half_operation<2, InFloat<OrNan>>(t) : half_operation<2, InFloat<Number>>(t), t,
            two);
}

// add, sub
template <class F, bool kSubtract>
Arithmetic sum(Modifiers& m) {
  const Type t = m.type();
  const std::vector<Type> two{t, t};
  if (ptx::is_float(t) || is_float16(t)) return float_operation<2, F>(m);
  const bool in = m.name() == "addc" || m.name() == "subc", out = m.take("cc");
  if (in || out) {
    return of(with_bits(t,
                        [&]<class T>(T) -> Handler {
                          if constexpr (sizeof(T) >= 4) {
                            return with_carries(in, out, [&]<class I, class O>(I, O) -> Handler {
                              return kSubtract ? subtract_borrow<T, I::value, O::value>
                                               : add_carry<T, I::value, O::value>;
                            });
                          }
                          return nullptr;
                        }),
              t, two);
  }
  return of(with_bits(t, []<class T>(T) -> Handler { return binary<T, T, T, F>; }), t, two);
}

Arithmetic negate_or_absolute(Modifiers& m, bool absolute) {
  const Type t = m.type();
  const bool ftz = m.take("ftz");
  if (is_float16(t))
    return of(absolute ? half_operation<1, AbsoluteBits16>(t) : half_operation<1, NegateBits16>(t),
              t, {t});
  if (t == Type::kF64)
    return of(absolute ? unary<double, double, AbsoluteFloat>
                       : Handler(unary<double, double, NegateFloat>),
              t, {t});
  if (t == Type::kF32) {
    const auto make = [](auto f) { return same_types<1, float>(f); };
    return of(absolute ? with_ftz_sat<AbsoluteFloat>(ftz, false, make)
                       : with_ftz_sat<NegateFloat>(ftz, false, make),
              t, {t});
  }
  return of(with_integer(t,
                         [&]<class T>(T) -> Handler {
                           if constexpr (std::is_signed_v<T>)
                             return absolute ? unary<T, T, Absolute> : Handler(unary<T, T, Negate>);
                           return nullptr;
                         }),
            t, {t});
}

Arithmetic funnel_shift(Modifiers& m) {
  const bool left = m.take("l");
  if (!left) m.take("r");
  const bool clamp = m.take("clamp");
  if (!clamp) m.take("wrap");
  const Handler run = left ? (clamp ? Handler(ternary<u32, u32, u32, u32, FunnelLeftClamp>)
                                    : Handler(ternary<u32, u32, u32, u32, FunnelLeft>))
                           : (clamp ? Handler(ternary<u32, u32, u32, u32, FunnelRightClamp>)
                                    : Handler(ternary<u32, u32, u32, u32, FunnelRight>));
  return of(run, Type::kB32, {Type::kB32, Type::kB32, Type::kU32});
}

Arithmetic select_handler(Modifiers& m) {
  const Type t = m.type();
  Handler run = nullptr;
  switch (ptx::bytes_of(t)) {
    case 2:
      run = select<u16>;
      break;
    case 4:
      run = select<u32>;
      break;
    case 8:
      run = select<u64>;
      break;
    default:
      break;
  }
  return of(run, t, {t, t, Type::kPred});
}

Arithmetic select_by_sign_handler(Modifiers& m) {
  const Type t = m.type(), c = m.second_type();
  m.take("ftz");
  Handler run = nullptr;
  const u32 n = ptx::bytes_of(t);
  if (c == Type::kS32)
    run = n == 4 ? select_by_sign<u32, i32> : n == 8 ? Handler(select_by_sign<u64, i32>) : nullptr;
  if (c == Type::kF32)
    run = n == 4   ? select_by_sign<u32, float>
          : n == 8 ? Handler(select_by_sign<u64, float>)
                   : nullptr;
  return of(run, t, {t, t, c});
}

}  // namespace

Modifiers::Modifiers(const std::vector<std::string>& opcode) : name_(opcode[0]) {
  types_.fill(Type::kNone);
  std::size_t known = 0;
  for (std::size_t k = 1; k < opcode.size(); ++k) {
    const Type t = ptx::type_named(opcode[k]);
    if (t == Type::kNone) {
      words_.push_back(opcode[k]);
    } else if (known < types_.size()) {
      types_[known++] = t;
    }
  }
}

bool Modifiers::take(std::string_view word) {
  const auto it = std::find(words_.begin(), words_.end(), word);
  if (it == words_.end()) return false;
  words_.erase(it);
  return true;
}

std::string Modifiers::take_one(std::initializer_list<const char*> words) {
  for (const char* w : words)
    if (take(w)) return w;
  return "";
}

std::string Modifiers::left_over() const { return words_.empty() ? "" : words_.front(); }

Handler pack_handler(u32 whole_bytes, u32 part_bytes) {
  if (whole_bytes == 4 && part_bytes == 2) return pack<u16, u32>;
  if (whole_bytes == 8 && part_bytes == 4) return pack<u32, u64>;
  if (whole_bytes == 8 && part_bytes == 2) return pack<u16, u64>;
  return nullptr;
}

Handler unpack_handler(u32 whole_bytes, u32 part_bytes) {
  if (whole_bytes == 4 && part_bytes == 2) return unpack<u16, u32>;
  if (whole_bytes == 8 && part_bytes == 4) return unpack<u32, u64>;
  if (whole_bytes == 8 && part_bytes == 2) return unpack<u16, u64>;
  return nullptr;
}

Arithmetic arithmetic(Modifiers& m) {
  const std::string& op = m.name();
  const Type t = m.type();
  const Type u32_type = Type::kU32;
  if (op == "add" || op == "addc") return sum<Add, false>(m);
  if (op == "sub" || op == "subc") return sum<Subtract, true>(m);
  if (op == "mul" || op == "mad" || op == "madc") {
    if (!ptx::is_float(t) && !is_float16(t)) return multiply(m, op != "mul");
    if (op == "mul") return float_operation<2, Multiply>(m);
    return float_operation<3, FusedMultiplyAdd>(m);
  }
  if (op == "fma") return float_operation<3, FusedMultiplyAdd>(m);
  if (op == "div") return division(m);
  if (op == "rem")
    return of(with_integer(t, []<class T>(T) -> Handler { return divide<T, true>; }), t, {t, t});
  if (op == "min") return extreme<Minimum, MinimumNumber, MinimumOrNan>(m);
  if (op == "max") return extreme<Maximum, MaximumNumber, MaximumOrNan>(m);
  if (op == "neg") return negate_or_absolute(m, false);
  if (op == "abs") return negate_or_absolute(m, true);
  if (op == "and") return bitwise<And>(m);
  if (op == "or") return bitwise<Or>(m);
  if (op == "xor") return bitwise<Xor>(m);
  if (op == "not") {
    if (t == Type::kPred) return of(predicate_not, t, {t});
    return of(with_bits(t, []<class T>(T) -> Handler { return unary<T, T, Not>; }), t, {t});
  }
  if (op == "shl")
    return of(with_bits(t, []<class T>(T) -> Handler { return binary<T, T, u32, ShiftLeft>; }), t,
              {t, u32_type});
  if (op == "shr")
    return of(with_integer(t, []<class T>(T) -> Handler { return binary<T, T, u32, ShiftRight>; }),
              t, {t, u32_type});
  if (op == "shf") return funnel_shift(m);
  if (op == "popc")
    return of(with_bits(t, []<class T>(T) -> Handler { return unary<u32, T, PopulationCount>; }),
              u32_type, {t});
  if (op == "clz")
    return of(with_bits(t, []<class T>(T) -> Handler { return unary<u32, T, LeadingZeros>; }),
              u32_type, {t});
  if (op == "brev")
    return of(with_bits(t, []<class T>(T) -> Handler { return unary<T, T, ReverseBits>; }), t, {t});
  if (op == "bfind")
    return of(with_integer(t, []<class T>(T) -> Handler { return unary<u32, T, FindHighest>; }),
              u32_type, {t});
  if (op == "bfe") {
    return of(with_integer(
                  t, []<class T>(T) -> Handler { return ternary<T, T, u32, u32, ExtractField>; }),
              t, {t, u32_type, u32_type});
  }
  if (op == "bfi") {
    return of(t == Type::kB32   ? insert_field<u32>
              : t == Type::kB64 ? Handler(insert_field<u64>)
                                : nullptr,
              t, {t, t, u32_type, u32_type});
  }
  if (op == "bmsk") {
    const bool wrap = m.take("wrap");
    if (!wrap) m.take("clamp");
    return of(wrap ? binary<u32, u32, u32, BitMaskWrap> : Handler(binary<u32, u32, u32, BitMask>),
              t, {u32_type, u32_type});
  }
  if (op == "prmt") return of(ternary<u32, u32, u32, u32, Permute>, t, {t, t, t});
  if (op == "lop3") return of(t == Type::kB32 ? lut3<u32> : nullptr, t, {t, t, t, u32_type});
  if (op == "sad") {
    return of(
        with_integer(
            t, []<class T>(T) -> Handler { return ternary<T, T, T, T, AbsoluteDifferenceAdd>; }),
        t, {t, t, t});
  }
  if (op == "setp") return setp(m);
  if (op == "selp") return select_handler(m);
  if (op == "slct") return select_by_sign_handler(m);
  if (op == "mov") {
    if (t == Type::kPred) return of(predicate_move, t, {t});
    return of(ptx::bytes_of(t) == 2   ? unary<u16, u16, Same>
              : ptx::bytes_of(t) == 4 ? Handler(unary<u32, u32, Same>)
              : ptx::bytes_of(t) == 8 ? Handler(unary<u64, u64, Same>)
                                      : nullptr,
              t, {t});
  }
  if (op == "rcp") return approximate<Reciprocal>(m);
  if (op == "sqrt") return approximate<SquareRoot>(m);
  if (op == "rsqrt") return approximate<ReciprocalSquareRoot>(m);
  if (op == "ex2") return approximate<Exp2>(m);
  if (op == "lg2") return approximate<Log2>(m);
  if (op == "sin") return approximate<Sine>(m);
  if (op == "cos") return approximate<Cosine>(m);
  if (op == "tanh") return approximate<HyperbolicTangent>(m);
  if (op == "copysign") {
    return of(t == Type::kF32   ? binary<float, float, float, CopySign>
              : t == Type::kF64 ? Handler(binary<double, double, double, CopySign>)
                                : nullptr,
              t, {t, t});
  }
  if (op == "testp") return of(testp(m), Type::kPred, {t});
  return {};
}

}  // namespace cudasim
