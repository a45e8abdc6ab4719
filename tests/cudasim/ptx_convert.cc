// cvt: conversions between all types, with rounding, .ftz and .sat.
#include <cfenv>
#include <cstring>
#include <type_traits>

#include "ptx_arith.h"
#include "ptx_lanes.h"
#include "ptx_numbers.h"

namespace cudasim {
namespace {

using ptx::Type;
__extension__ typedef __int128 i128;

template <class T>
struct Numeric {
  using type = T;
};
template <int M, int E>
struct Numeric<Float16<M, E>> {
  using type = float;
};

template <class D>
D integer_of(double v) {
  if (v != v)
    return std::is_same_v<D, u64> || std::is_same_v<D, i64> ? static_cast<D>(u64{1} << 63) : D(0);
  constexpr double kLow = static_cast<double>(std::numeric_limits<D>::min());
  constexpr double kHigh = static_cast<double>(std::numeric_limits<D>::max());
  if (v <= kLow) return std::numeric_limits<D>::min();
  if (v >= kHigh) return std::numeric_limits<D>::max();
  return static_cast<D>(v);
}

struct RoundNearest {
  template <class T>
  T operator()(T v) const {
    return std::nearbyint(v);
  }
};
struct RoundZero {
  template <class T>
  T operator()(T v) const {
    return std::trunc(v);
  }
};
struct RoundDown {
  template <class T>
  T operator()(T v) const {
    return std::floor(v);
  }
};
struct RoundUp {
  template <class T>
  T operator()(T v) const {
    return std::ceil(v);
  }
};

// What surrounds a conversion.
struct Conversion {
  Type to, from;
  std::string integer_rounding;  // rni, rzi, rmi, rpi
  std::string float_rounding;    // rn, rz, rm, rp
  bool ftz, sat;
};

// D, S: the types converted between. RD, RS: the registers they lie in.
template <class D, class S>
struct Convert {
  template <class Rounding, bool kFtz, bool kSat>
  static D to_integer(S v) {
    auto x = static_cast<typename Numeric<S>::type>(v);
    if constexpr (kFtz) x = flush(x);
    return integer_of<D>(static_cast<double>(Rounding()(x)));
  }
};

template <class D, class S, class RD, class RS, class F>
Flow convert(Warp& w, const Instruction& i, u32 mask) {
  const RS* a = w.at<RS>(i.a);
  each_lane(w.at<RD>(i.d), mask, [=](u32 l) {
    S s;
    std::memcpy(static_cast<void*>(&s), &a[l], sizeof s);
    const D d = F()(s);
    if constexpr (std::is_integral_v<D>) {
      return static_cast<RD>(d);  // sign- or zero-extended
    } else {
      RD r = 0;
      std::memcpy(&r, &d, sizeof d);
      return r;
    }
  });
  return Flow::kNext;
}

template <class D, class S, bool kSat>
struct IntegerToInteger {
  D operator()(S s) const {
    if constexpr (kSat) {
      const i128 v = s, lo = std::numeric_limits<D>::min(), hi = std::numeric_limits<D>::max();
      return static_cast<D>(v < lo ? lo : v > hi ? hi : v);
    } else {
      return static_cast<D>(s);
    }
  }
};
template <class D, class S, class Rounding, bool kFtz>
struct FloatToInteger {
  D operator()(S s) const { return Convert<D, S>::template to_integer<Rounding, kFtz, false>(s); }
};
template <class D, class S>
struct ToFloat {  // integer or wider float to float, to nearest
  D operator()(S s) const {
    if constexpr (std::is_integral_v<S>) {
      if constexpr (std::is_floating_point_v<D>) {
        return static_cast<D>(s);
      } else {
        return D(static_cast<double>(s));
      }
    } else {
      if constexpr (std::is_floating_point_v<D>) {
        return static_cast<D>(s);
      } else {
        return D(static_cast<double>(s));
      }
    }
  }
};
template <class D, class S, int kMode>
struct ToFloatRounded {
  D operator()(S s) const {
    if constexpr (std::is_floating_point_v<D> && !std::is_class_v<S>) {
      const int before = std::fegetround();
      std::fesetround(kMode);
      volatile S kept = s;
      volatile D result = static_cast<D>(kept);
      std::fesetround(before);
      return result;
    } else if constexpr (std::is_floating_point_v<D>) {
      return static_cast<D>(s);  // exact
    } else {
      const auto round = [](double v) {
        return kMode == FE_TOWARDZERO ? std::trunc(v)
               : kMode == FE_DOWNWARD ? std::floor(v)
                                      : std::ceil(v);
      };
      constexpr bool kHalf = std::is_same_v<D, Half>;
      return D::of_bits(to_16_bits < kHalf ? 10 : 7,
                        kHalf ? 5 : 8 > (static_cast<double>(s), round));
    }
  }
};
template <class D, class S, class Rounding>
struct FloatRounded {  // to an integer in float
  D operator()(S s) const {
    return ToFloat<D, typename Numeric<S>::type>()(
        Rounding()(static_cast<typename Numeric<S>::type>(s)));
  }
};
template <class D, class S, bool kFtz>
struct FloatSaturated {
  D operator()(S s) const {
    auto v = static_cast<typename Numeric<S>::type>(s);
    if constexpr (kFtz) v = flush(v);
    return ToFloat<D, decltype(v)>()(saturated(v));
  }
};
template <class D, class S>
struct FloatFlushed {
  D operator()(S s) const {
    return flush(static_cast<D>(flush(static_cast<typename Numeric<S>::type>(s))));
  }
};
template <class D, class S, class F>
Handler in_registers(u32 rd, u32 rs) {
  const auto from = [&]<class RD>(RD) -> Handler {
    if constexpr (sizeof(RD) < sizeof(D)) {
      return nullptr;
    } else {
      switch (rs) {
        case 2:
          if constexpr (sizeof(S) <= 2) return convert<D, S, RD, u16, F>;
          return nullptr;
        case 4:
          if constexpr (sizeof(S) <= 4) return convert<D, S, RD, u32, F>;
          return nullptr;
        case 8:
          return convert<D, S, RD, u64, F>;
        default:
          return nullptr;
      }
    }
  };
  switch (rd) {
    case 2:
      return from(u16{});
    case 4:
      return from(u32{});
    case 8:
      return from(u64{});
    default:
      return nullptr;
  }
}

template <class T>
inline constexpr bool kIsFloat = !std::is_integral_v<T>;

template <class D, class S>
Handler convert_handler(const Conversion& c, u32 rd, u32 rs) {
  if constexpr (!kIsFloat<D> && !kIsFloat<S>) {
    return c.sat ? in_registers<D, S, IntegerToInteger<D, S, true>>(rd, rs)
                 : in_registers<D, S, IntegerToInteger<D, S, false>>(rd, rs);
  } else if constexpr (!kIsFloat<D>) {
    const auto pick = [&]<class R>(R) {
      return c.ftz ? in_registers<D, S, FloatToInteger<D, S, R, true>>(rd, rs)
                   : in_registers<D, S, FloatToInteger<D, S, R, false>>(rd, rs);
    };
    if (c.integer_rounding == "rni") return pick(RoundNearest());
    if (c.integer_rounding == "rzi") return pick(RoundZero());
    if (c.integer_rounding == "rmi") return pick(RoundDown());
    if (c.integer_rounding == "rpi") return pick(RoundUp());
    return nullptr;
  } else {
    if constexpr (kIsFloat<S>) {
      if (c.integer_rounding == "rni")
        return in_registers<D, S, FloatRounded<D, S, RoundNearest>>(rd, rs);
      if (c.integer_rounding == "rzi")
        return in_registers<D, S, FloatRounded<D, S, RoundZero>>(rd, rs);
      if (c.integer_rounding == "rmi")
        return in_registers<D, S, FloatRounded<D, S, RoundDown>>(rd, rs);
      if (c.integer_rounding == "rpi")
        return in_registers<D, S, FloatRounded<D, S, RoundUp>>(rd, rs);
      if (c.sat)
        return c.ftz ? in_registers<D, S, FloatSaturated<D, S, true>>(rd, rs)
                     : in_registers<D, S, FloatSaturated<D, S, false>>(rd, rs);
      if constexpr (std::is_floating_point_v<D>) {
        if (c.ftz) return in_registers<D, S, FloatFlushed<D, S>>(rd, rs);
      }
    }
    if (c.float_rounding == "rz")
      return in_registers<D, S, ToFloatRounded<D, S, FE_TOWARDZERO>>(rd, rs);
    if (c.float_rounding == "rm")
      return in_registers<D, S, ToFloatRounded<D, S, FE_DOWNWARD>>(rd, rs);
    if (c.float_rounding == "rp")
      return in_registers<D, S, ToFloatRounded<D, S, FE_UPWARD>>(rd, rs);
    return in_registers<D, S, ToFloat<D, S>>(rd, rs);
  }
}

template <class F>
Handler with_any(Type t, F f) {
  switch (t) {
    case Type::kU8:
    case Type::kB8:
      return f(u8{});
    case Type::kS8:
      return f(i8{});
    case Type::kF16:
      return f(Half{});
    case Type::kBF16:
      return f(BFloat16{});
    case Type::kF32:
      return f(float{});
    case Type::kF64:
      return f(double{});
    default:
      return with_integer(t, f);
  }
}

// cvt.rn.f16x2.f32 d, hi, lo
template <class T>
Flow convert_two(Warp& w, const Instruction& i, u32 mask) {
  const float *hi = w.at<float>(i.a), *lo = w.at<float>(i.b);
  each_lane(w.at<Two<T>>(i.d), mask, [=](u32 l) { return Two<T>{T(lo[l]), T(hi[l])}; });
  return Flow::kNext;
}

}  // namespace

Arithmetic conversion(Modifiers& m, u32 d_bytes, u32 a_bytes) {
  Conversion c;
  c.to = m.type();
  c.from = m.second_type();
  c.integer_rounding = m.take_one({"rni", "rzi", "rmi", "rpi"});
  c.float_rounding = m.take_one({"rn", "rz", "rm", "rp"});
  c.ftz = m.take("ftz");
  c.sat = m.take("sat");
  if ((c.to == Type::kF16x2 || c.to == Type::kBF16x2) && c.from == Type::kF32 &&
      c.float_rounding == "rn" && !c.sat) {
    return {c.to == Type::kF16x2 ? convert_two<Half> : Handler(convert_two<BFloat16>),
            c.to,
            {c.from, c.from},
            0};
  }
  const Handler run = with_any(c.to, [&]<class D>(D) -> Handler {
    return with_any(
        c.from, [&]<class S>(S) -> Handler { return convert_handler<D, S>(c, d_bytes, a_bytes); });
  });
  return {run, c.to, {c.from}, 0};
}

}  // namespace cudasim
