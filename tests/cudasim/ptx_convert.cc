// cvt: conversions between all types, with rounding, .ftz and .sat. The frequent ones have a loop
// of their own; the others go through arrays of 64-bit integers or doubles, which hold every value
// of the narrower types.
#include <cfenv>
#include <cstring>
#include <memory>
#include <type_traits>

#include "ptx_arith.h"
#include "ptx_lanes.h"
#include "ptx_numbers.h"

namespace cudasim {
namespace {

using ptx::Type;

// 32 values on their way. Integers of 64 bits without sign are kept as the bits of i.
struct Values {
  i64 i[kLanes];
  double f[kLanes];
};

enum class Rounding : u8 { kNone, kNearest, kZero, kDown, kUp };

// All that a conversion needs to know; belongs to the instruction for the life of the process.
struct Conversion {
  void (*load)(const u8* from, Values& v);
  void (*store)(u8* to, u32 mask, const Values& v, const Conversion& c);
  Rounding to_integer = Rounding::kNone;
  Rounding to_float = Rounding::kNone;
  bool ftz = false;
  bool sat = false;
  bool source_is_u64 = false;
};

// --- from registers of type R, which may be wider than the type S of the value
template <class S, class R>
void load_values(const u8* from, Values& v) {
  for (u32 l = 0; l < kLanes; ++l) {
    S s;
    std::memcpy(static_cast<void*>(&s), from + l * sizeof(R), sizeof s);
    if constexpr (std::is_integral_v<S>) {
      v.i[l] = static_cast<i64>(s);
    } else {
      v.f[l] = static_cast<double>(s);
    }
  }
}

double rounded(double v, Rounding mode) {
  switch (mode) {
    case Rounding::kNearest:
      return std::nearbyint(v);
    case Rounding::kZero:
      return std::trunc(v);
    case Rounding::kDown:
      return std::floor(v);
    case Rounding::kUp:
      return std::ceil(v);
    default:
      return v;
  }
}

// To the type D, with the values outside its range moved to its ends; NaN becomes 0, or the lowest
// number in 64 bits.
template <class D>
D integer_of(double v) {
  using Limits = std::numeric_limits<D>;
  if (v != v) return sizeof(D) == 8 ? static_cast<D>(u64{1} << 63) : D(0);
  if (v <= static_cast<double>(Limits::min())) return Limits::min();
  if (v >= static_cast<double>(Limits::max())) return Limits::max();
  return static_cast<D>(v);
}

template <class D>
D saturated_integer(i64 v, bool is_u64) {
  using Limits = std::numeric_limits<D>;
  if (is_u64 || v >= 0) {
    const u64 u = static_cast<u64>(v);
    return u > static_cast<u64>(Limits::max()) ? Limits::max() : static_cast<D>(u);
  }
  if constexpr (std::is_unsigned_v<D>) return 0;
  return v < static_cast<i64>(Limits::min()) ? Limits::min() : static_cast<D>(v);
}

// Rounds a double to a float format.
template <class D>
D float_of(double v, const Conversion& c) {
  if constexpr (std::is_same_v<D, double>) {
    return v;
  } else if constexpr (std::is_same_v<D, float>) {
    if (c.to_float == Rounding::kNone || c.to_float == Rounding::kNearest)
      return static_cast<float>(v);
    float near = static_cast<float>(v);  // step back if it went the wrong way
    const double n = static_cast<double>(near);
    const bool down = c.to_float == Rounding::kDown || (c.to_float == Rounding::kZero && v > 0);
    const bool up = c.to_float == Rounding::kUp || (c.to_float == Rounding::kZero && v < 0);
    if (down && n > v) near = std::nextafter(near, -std::numeric_limits<float>::infinity());
    if (up && n < v) near = std::nextafter(near, std::numeric_limits<float>::infinity());
    return near;
  } else {
    if (c.to_float == Rounding::kNone || c.to_float == Rounding::kNearest) return D(v);
    constexpr bool kHalf = std::is_same_v<D, Half>;
    return D::of_bits(to_16_bits < kHalf ? 10 : 7,
                      kHalf ? 5 : 8 > (v, [&](double x) { return rounded(x, c.to_float); }));
  }
}

template <class D, class R, class Value>
void put(u8* to, u32 mask, Value value) {
  active_lanes(mask, [&](u32 l) {
    const D d = value(l);
    R r{};
    if constexpr (std::is_integral_v<D>) {
      r = static_cast<R>(d);  // sign- or zero-extended
    } else {
      std::memcpy(&r, &d, sizeof d);
    }
    std::memcpy(to + l * sizeof(R), &r, sizeof r);
  });
}

template <class D, class R>
void store_from_integer(u8* to, u32 mask, const Values& v, const Conversion& c) {
  put<D, R>(to, mask, [&](u32 l) {
    const i64 i = v.i[l];
    if constexpr (std::is_integral_v<D>) {
      return c.sat ? saturated_integer<D>(i, c.source_is_u64) : static_cast<D>(i);
    } else if constexpr (std::is_same_v<D, float>) {
      if (c.to_float == Rounding::kNearest) {
        return c.source_is_u64 ? static_cast<float>(static_cast<u64>(i)) : static_cast<float>(i);
      }
      return float_of<D>(
          c.source_is_u64 ? static_cast<double>(static_cast<u64>(i)) : static_cast<double>(i), c);
    } else {
      return float_of<D>(
          c.source_is_u64 ? static_cast<double>(static_cast<u64>(i)) : static_cast<double>(i), c);
    }
  });
}

template <class D, class R>
void store_from_float(u8* to, u32 mask, const Values& v, const Conversion& c) {
  put<D, R>(to, mask, [&](u32 l) {
    double x = v.f[l];
    if (c.ftz && std::fabs(x) < static_cast<double>(std::numeric_limits<float>::min()))
      x = std::copysign(0.0, x);
    x = rounded(x, c.to_integer);
    if constexpr (std::is_integral_v<D>) {
      return integer_of<D>(x);
    } else {
      if (c.sat) x = saturated(x);
      D d = float_of<D>(x, c);
      if constexpr (std::is_same_v<D, float>) {
        if (c.ftz) d = flush(d);
      }
      return d;
    }
  });
}

Flow convert(Warp& w, const Instruction& i, u32 mask) {
  const Conversion& c = *static_cast<const Conversion*>(i.data);
  Values v;
  c.load(w.at<u8>(i.a), v);
  c.store(w.at<u8>(i.d), mask, v, c);
  return Flow::kNext;
}

// The frequent conversions, whose registers are as wide as the types.
template <class D, class S>
Flow convert_directly(Warp& w, const Instruction& i, u32 mask) {
  const S* a = w.at<S>(i.a);
  each_lane(w.at<D>(i.d), mask, [=](u32 l) { return static_cast<D>(a[l]); });
  return Flow::kNext;
}

// cvt.rn.f16x2.f32 d, hi, lo
template <class T>
Flow convert_two(Warp& w, const Instruction& i, u32 mask) {
  const float *hi = w.at<float>(i.a), *lo = w.at<float>(i.b);
  each_lane(w.at<Two<T>>(i.d), mask, [=](u32 l) { return Two<T>{T(lo[l]), T(hi[l])}; });
  return Flow::kNext;
}

// --- types to functions
template <class F>
bool with_any(Type t, F f) {
  switch (t) {
    case Type::kU8:
    case Type::kB8:
      return f(u8{});
    case Type::kS8:
      return f(i8{});
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
    case Type::kF16:
      return f(Half{});
    case Type::kBF16:
      return f(BFloat16{});
    case Type::kF32:
      return f(float{});
    case Type::kF64:
      return f(double{});
    default:
      return false;
  }
}
template <class F>
bool with_register(u32 bytes, F f) {
  switch (bytes) {
    case 2:
      return f(u16{});
    case 4:
      return f(u32{});
    case 8:
      return f(u64{});
    default:
      return false;
  }
}

bool is_number(Type t) { return ptx::is_float(t) || t == Type::kF16 || t == Type::kBF16; }

bool fill(Conversion& c, Type to, Type from, u32 d_bytes, u32 a_bytes) {
  const bool loads = with_any(from, [&]<class S>(S) {
    return with_register(a_bytes, [&]<class R>(R) {
      if constexpr (sizeof(R) >= sizeof(S)) {
        c.load = load_values<S, R>;
        return true;
      }
      return false;
    });
  });
  const bool from_float = is_number(from);
  const bool stores = with_any(to, [&]<class D>(D) {
    return with_register(d_bytes, [&]<class R>(R) {
      if constexpr (sizeof(R) >= sizeof(D)) {
        c.store = from_float ? store_from_float<D, R> : store_from_integer<D, R>;
        return true;
      }
      return false;
    });
  });
  return loads && stores;
}

Handler direct(Type to, Type from) {
  struct Pair {
    Type to, from;
    Handler run;
  };
  static const Pair kPairs[] = {
      {Type::kU64, Type::kU32, convert_directly<u64, u32>},
      {Type::kS64, Type::kS32, convert_directly<i64, i32>},
      {Type::kU32, Type::kU64, convert_directly<u32, u64>},
      {Type::kU32, Type::kU16, convert_directly<u32, u16>},
      {Type::kS32, Type::kS16, convert_directly<i32, i16>},
      {Type::kU16, Type::kU32, convert_directly<u16, u32>},
      {Type::kF32, Type::kS32, convert_directly<float, i32>},
      {Type::kF32, Type::kU32, convert_directly<float, u32>},
      {Type::kF64, Type::kF32, convert_directly<double, float>},
      {Type::kF32, Type::kF64, convert_directly<float, double>},
      {Type::kF64, Type::kS32, convert_directly<double, i32>},
      {Type::kF32, Type::kBF16, convert_directly<float, BFloat16>},
      {Type::kF32, Type::kF16, convert_directly<float, Half>},
  };
  for (const Pair& p : kPairs)
    if (p.to == to && p.from == from) return p.run;
  return nullptr;
}

Rounding take_rounding(Modifiers& m, const char* nearest, const char* zero, const char* down,
                       const char* up) {
  if (m.take(nearest)) return Rounding::kNearest;
  if (m.take(zero)) return Rounding::kZero;
  if (m.take(down)) return Rounding::kDown;
  return m.take(up) ? Rounding::kUp : Rounding::kNone;
}

}  // namespace

Arithmetic conversion(Modifiers& m, u32 d_bytes, u32 a_bytes) {
  const Type to = m.type(), from = m.second_type();
  auto c = std::make_unique<Conversion>();
  c->to_integer = take_rounding(m, "rni", "rzi", "rmi", "rpi");
  c->to_float = take_rounding(m, "rn", "rz", "rm", "rp");
  c->ftz = m.take("ftz");
  c->sat = m.take("sat");
  c->source_is_u64 = from == Type::kU64 || from == Type::kB64;
  const bool plain = c->to_integer == Rounding::kNone &&
                     (c->to_float == Rounding::kNone || c->to_float == Rounding::kNearest) &&
                     !c->ftz && !c->sat;
  if ((to == Type::kF16x2 || to == Type::kBF16x2) && from == Type::kF32 && plain) {
    return {to == Type::kF16x2 ? convert_two<Half> : Handler(convert_two<BFloat16>),
            to,
            {from, from},
            0,
            nullptr};
  }
  if (plain && d_bytes == ptx::bytes_of(to) && a_bytes == ptx::bytes_of(from)) {
    if (const Handler run = direct(to, from)) return {run, to, {from}, 0, nullptr};
  }
  const bool integer_needs_rounding =
      is_number(from) && !is_number(to) && c->to_integer == Rounding::kNone;
  if (integer_needs_rounding || !fill(*c, to, from, d_bytes, a_bytes)) return {};
  return {convert, to, {from}, 0, c.release()};
}

}  // namespace cudasim
