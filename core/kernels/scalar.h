// Scalar functors: what each elementwise op does to one element. Plain host/device code, templated
// on the element type; the loops around them are in loops.h (CPU). Integer arithmetic wraps around,
// as torch's does, without undefined behaviour. Functors with parameters are made from the op's
// Attrs.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <tutti/core/dtype.h>
#include <tutti/core/kernels/math.h>
#include <tutti/core/op.h>

namespace tutti::scalar {

/// A Scalar in a form device code can read.
struct Number {
  double d = 0;
  std::int64_t i = 0;
  Number() = default;
  Number(const Scalar& s) : d(s.to_double()), i(s.to_int()) {}
  template <class T>
  TUTTI_HD T as() const {
    if constexpr (std::is_same_v<T, bool>)
      return d != 0;
    else if constexpr (std::is_integral_v<T>)
      return static_cast<T>(i);
    else if constexpr (std::is_same_v<T, double>)
      return d;
    else
      return T(static_cast<float>(d));
  }
};

/// The unsigned type in which T's arithmetic wraps (at least as wide as unsigned, so that nothing
/// is promoted to int).
template <class T>
using Wide = std::common_type_t<std::make_unsigned_t<T>, unsigned>;

template <class T>
inline constexpr bool is_integer = std::is_integral_v<T> && !std::is_same_v<T, bool>;

template <class T>
TUTTI_HD constexpr T negate(T x) {
  if constexpr (is_integer<T>)
    return static_cast<T>(Wide<T>{0} - static_cast<Wide<T>>(x));
  else
    return -x;
}

/// True for functors that cost many instructions or call functions; they declare `heavy`.
template <class F>
inline constexpr bool is_heavy = requires {
  F::heavy;
};

/// Conversion between any two element types. A float outside int64's range becomes its smallest
/// value.
template <class To>
struct Cast {
  template <class From>
  TUTTI_HD To operator()(From x) const {
    constexpr bool half_from = std::is_same_v<From, Half> || std::is_same_v<From, BFloat16>;
    if constexpr (std::is_same_v<To, From>)
      return x;
    else if constexpr (half_from)
      return Cast<To>()(static_cast<float>(x));
    else if constexpr (std::is_same_v<To, bool>)
      return x != From(0);
    else if constexpr (std::is_same_v<To, Half> || std::is_same_v<To, BFloat16>)
      return To(static_cast<float>(x));
    else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
      constexpr From limit = static_cast<From>(9223372036854775808.0);  // 2^63
      if (!(x >= -limit && x < limit))
        return static_cast<To>(std::numeric_limits<std::int64_t>::min());
      return static_cast<To>(static_cast<std::int64_t>(x));
    } else {
      return static_cast<To>(x);
    }
  }
};

// ---- functions of one number, floating
#define TUTTI_UNARY(Name, expression)   \
  struct Name {                         \
    static constexpr bool heavy = true; \
    template <class T>                  \
    TUTTI_HD T operator()(T x) const {  \
      return expression;                \
    }                                   \
  }
TUTTI_UNARY(Exp, math::exp(x));
TUTTI_UNARY(Expm1, math::expm1(x));
TUTTI_UNARY(Log, math::log(x));
TUTTI_UNARY(Log1p, math::log1p(x));
TUTTI_UNARY(Log2, std::log2(x));
TUTTI_UNARY(Log10, std::log10(x));
TUTTI_UNARY(Sin, std::sin(x));
TUTTI_UNARY(Cos, std::cos(x));
TUTTI_UNARY(Tan, std::tan(x));
TUTTI_UNARY(Asin, std::asin(x));
TUTTI_UNARY(Acos, std::acos(x));
TUTTI_UNARY(Atan, std::atan(x));
TUTTI_UNARY(Sinh, std::sinh(x));
TUTTI_UNARY(Cosh, std::cosh(x));
TUTTI_UNARY(Tanh, math::tanh(x));
TUTTI_UNARY(Erf, math::erf(x));
TUTTI_UNARY(Sigmoid, math::sigmoid(x));
TUTTI_UNARY(LogSigmoid, math::log_sigmoid(x));
TUTTI_UNARY(Silu, math::silu(x));
TUTTI_UNARY(Gelu, math::gelu(x));
TUTTI_UNARY(GeluTanh, math::gelu_tanh(x));
#undef TUTTI_UNARY

struct Reciprocal {
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return T(1) / x;
  }
};
struct Sqrt {
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return std::sqrt(x);
  }
};
struct Rsqrt {
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return T(1) / std::sqrt(x);
  }
};

#define TUTTI_GRADIENT(Name, expression)    \
  struct Name {                             \
    static constexpr bool heavy = true;     \
    template <class T>                      \
    TUTTI_HD T operator()(T g, T x) const { \
      return expression;                    \
    }                                       \
  }
TUTTI_GRADIENT(SiluGrad, math::silu_grad(g, x));
TUTTI_GRADIENT(GeluGrad, math::gelu_grad(g, x));
TUTTI_GRADIENT(GeluTanhGrad, math::gelu_tanh_grad(g, x));
#undef TUTTI_GRADIENT

/// scalars: beta, threshold.
struct Softplus {
  static constexpr bool heavy = true;
  Number beta, threshold;
  explicit Softplus(const Attrs& a) : beta(a.scalars[0]), threshold(a.scalars[1]) {}
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return math::softplus(x, beta.as<T>(), threshold.as<T>());
  }
};
struct SoftplusGrad {
  static constexpr bool heavy = true;
  Number beta, threshold;
  explicit SoftplusGrad(const Attrs& a) : beta(a.scalars[0]), threshold(a.scalars[1]) {}
  template <class T>
  TUTTI_HD T operator()(T g, T x) const {
    return math::softplus_grad(g, x, beta.as<T>(), threshold.as<T>());
  }
};
/// scalars: alpha.
struct Elu {
  static constexpr bool heavy = true;
  Number alpha;
  explicit Elu(const Attrs& a) : alpha(a.scalars[0]) {}
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return math::elu(x, alpha.as<T>());
  }
};
struct EluGrad {
  static constexpr bool heavy = true;
  Number alpha;
  explicit EluGrad(const Attrs& a) : alpha(a.scalars[0]) {}
  template <class T>
  TUTTI_HD T operator()(T g, T x) const {
    return math::elu_grad(g, x, alpha.as<T>());
  }
};
/// scalars: slope.
struct LeakyRelu {
  Number slope;
  explicit LeakyRelu(const Attrs& a) : slope(a.scalars[0]) {}
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return x > T(0) ? x : x * slope.as<T>();
  }
};
struct LeakyReluGrad {
  Number slope;
  explicit LeakyReluGrad(const Attrs& a) : slope(a.scalars[0]) {}
  template <class T>
  TUTTI_HD T operator()(T g, T x) const {
    return x > T(0) ? g : g * slope.as<T>();
  }
};
/// Gradients in terms of the output y.
struct ReluGrad {
  template <class T>
  TUTTI_HD T operator()(T g, T y) const {
    return y > T(0) ? g : T(0);
  }
};
struct SigmoidGrad {
  template <class T>
  TUTTI_HD T operator()(T g, T y) const {
    return g * (y * (T(1) - y));
  }
};
struct TanhGrad {
  template <class T>
  TUTTI_HD T operator()(T g, T y) const {
    return g * (T(1) - y * y);
  }
};

// ---- functions of one number, integer or floating
struct Neg {
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return negate(x);
  }
};
struct Abs {
  template <class T>
  TUTTI_HD T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>)
      return std::abs(x);
    else
      return x < T(0) ? negate(x) : x;
  }
};
struct Sign {
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return static_cast<T>((T(0) < x) - (x < T(0)));
  }
};
struct Relu {
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return x <= T(0) ? T(0) : x;  // NaN stays
  }
};
#define TUTTI_ROUNDING(Name, function)     \
  struct Name {                            \
    template <class T>                     \
    TUTTI_HD T operator()(T x) const {     \
      if constexpr (std::is_integral_v<T>) \
        return x;                          \
      else                                 \
        return function(x);                \
    }                                      \
  }
TUTTI_ROUNDING(Floor, math::floor);
TUTTI_ROUNDING(Ceil, math::ceil);
TUTTI_ROUNDING(Round, math::round);
TUTTI_ROUNDING(Trunc, math::trunc);
#undef TUTTI_ROUNDING

// ---- functions of two numbers
struct Add {
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    if constexpr (std::is_same_v<T, bool>)
      return a || b;
    else if constexpr (is_integer<T>)
      return static_cast<T>(static_cast<Wide<T>>(a) + static_cast<Wide<T>>(b));
    else
      return a + b;
  }
};
struct Sub {
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    if constexpr (is_integer<T>)
      return static_cast<T>(static_cast<Wide<T>>(a) - static_cast<Wide<T>>(b));
    else
      return a - b;
  }
};
struct Mul {
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    if constexpr (std::is_same_v<T, bool>)
      return a && b;
    else if constexpr (is_integer<T>)
      return static_cast<T>(static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b));
    else
      return a * b;
  }
};
struct Square {
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return Mul()(x, x);
  }
};
struct Div {
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    return a / b;
  }
};
/// Integer division by zero gives 0 (torch raises; a kernel cannot).
struct DivTrunc {
  static constexpr bool heavy = true;
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>)
      return std::trunc(a / b);
    else {
      if (b == T(0)) return T(0);
      if constexpr (std::is_signed_v<T>)
        if (b == T(-1)) return negate(a);
      return static_cast<T>(a / b);
    }
  }
};
struct DivFloor {
  static constexpr bool heavy = true;
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>) {
      if (b == T(0)) return a / b;
      const T mod = std::fmod(a, b);
      T q = (a - mod) / b;
      if (mod != T(0) && (b < T(0)) != (mod < T(0))) q -= T(1);
      if (q == T(0)) return std::copysign(T(0), a / b);
      const T f = std::floor(q);
      return q - f > T(0.5) ? f + T(1) : f;
    } else {
      const T q = DivTrunc()(a, b);
      if (b == T(0) || (a < T(0)) == (b < T(0))) return q;
      return Mul()(q, b) == a ? q : static_cast<T>(q - 1);
    }
  }
};
struct Fmod {
  static constexpr bool heavy = true;
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>)
      return std::fmod(a, b);
    else {
      if (b == T(0)) return T(0);
      if constexpr (std::is_signed_v<T>)
        if (b == T(-1)) return T(0);
      return static_cast<T>(a % b);
    }
  }
};
struct Remainder {
  static constexpr bool heavy = true;
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    const T mod = Fmod()(a, b);
    return mod != T(0) && (b < T(0)) != (mod < T(0)) ? static_cast<T>(mod + b) : mod;
  }
};
struct Pow {
  static constexpr bool heavy = true;
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>)
      return std::pow(a, b);
    else {
      if (b < T(0)) {  // 1 / a^-b, truncated
        if (a == T(1)) return T(1);
        if constexpr (std::is_signed_v<T>)
          if (a == T(-1)) return b % 2 == 0 ? T(1) : T(-1);
        return T(0);
      }
      T result = 1;
      for (; b != T(0); b = static_cast<T>(b / 2)) {
        if (b % 2 != 0) result = Mul()(result, a);
        a = Mul()(a, a);
      }
      return result;
    }
  }
};
struct Atan2 {
  static constexpr bool heavy = true;
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    return std::atan2(a, b);
  }
};
struct Maximum {
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    return a != a || a > b ? a : b;  // NaN wins
  }
};
struct Minimum {
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    return a != a || a < b ? a : b;
  }
};
/// scalars: weight.
struct LerpScalar {
  Number weight;
  explicit LerpScalar(const Attrs& a) : weight(a.scalars[0]) {}
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    const T w = weight.as<T>();
    return w < T(0.5) && w > T(-0.5) ? a + w * (b - a) : b - (b - a) * (T(1) - w);
  }
};
struct Lerp {
  template <class T>
  TUTTI_HD T operator()(T a, T b, T w) const {
    return w < T(0.5) && w > T(-0.5) ? a + w * (b - a) : b - (b - a) * (T(1) - w);
  }
};
/// a + alpha * b; scalars: alpha.
struct AddScaled {
  Number alpha;
  explicit AddScaled(const Attrs& a) : alpha(a.scalars[0]) {}
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    return Add()(a, Mul()(alpha.as<T>(), b));
  }
};
/// f(x, number), with the number in scalars[0].
template <class F>
struct WithScalar {
  Number b;
  explicit WithScalar(const Attrs& a) : b(a.scalars[0]) {}
  template <class T>
  TUTTI_HD auto operator()(T x) const {
    return F()(x, b.as<T>());
  }
};
/// f(number, x).
template <class F>
struct ScalarFirst {
  Number a;
  explicit ScalarFirst(const Attrs& attrs) : a(attrs.scalars[0]) {}
  template <class T>
  TUTTI_HD auto operator()(T x) const {
    return F()(a.as<T>(), x);
  }
};

template <class F>
inline constexpr bool is_heavy<WithScalar<F>> = is_heavy<F>;
template <class F>
inline constexpr bool is_heavy<ScalarFirst<F>> = is_heavy<F>;

/// The bounds of clamp; flag 1: scalars[0] is a lower bound, flag 2: scalars[1] is an upper bound.
struct Bounds {
  Number lo, hi;
  bool has_lo, has_hi;
  explicit Bounds(const Attrs& a)
      : lo(a.scalars[0]), hi(a.scalars[1]), has_lo(a.flags & 1), has_hi(a.flags & 2) {}
  template <class T>
  TUTTI_HD T low() const {
    using L = std::numeric_limits<T>;
    if constexpr (std::is_floating_point_v<T>)
      return has_lo ? lo.as<T>() : -L::infinity();
    else
      return has_lo ? saturated<T>(lo.i) : L::lowest();
  }
  template <class T>
  TUTTI_HD T high() const {
    using L = std::numeric_limits<T>;
    if constexpr (std::is_floating_point_v<T>)
      return has_hi ? hi.as<T>() : L::infinity();
    else
      return has_hi ? saturated<T>(hi.i) : L::max();
  }

 private:
  template <class T>
  TUTTI_HD static T saturated(std::int64_t v) {
    using L = std::numeric_limits<T>;
    return v < L::lowest() ? L::lowest() : v > L::max() ? L::max() : static_cast<T>(v);
  }
};
struct Clamp : Bounds {
  using Bounds::Bounds;
  template <class T>
  TUTTI_HD T operator()(T x) const {
    const T l = low<T>(), h = high<T>(), y = x < l ? l : x;  // NaN stays
    return y > h ? h : y;
  }
};
struct ClampGrad : Bounds {
  using Bounds::Bounds;
  template <class T>
  TUTTI_HD T operator()(T g, T x) const {
    return x >= low<T>() && x <= high<T>() ? g : T(0);
  }
};

// ---- predicates
#define TUTTI_COMPARE(Name, op)                \
  struct Name {                                \
    template <class T>                         \
    TUTTI_HD bool operator()(T a, T b) const { \
      return a op b;                           \
    }                                          \
  }
TUTTI_COMPARE(Eq, ==);
TUTTI_COMPARE(Ne, !=);
TUTTI_COMPARE(Lt, <);
TUTTI_COMPARE(Le, <=);
TUTTI_COMPARE(Gt, >);
TUTTI_COMPARE(Ge, >=);
#undef TUTTI_COMPARE

struct IsNan {
  template <class T>
  TUTTI_HD bool operator()(T x) const {
    return x != x;
  }
};
struct IsInf {
  template <class T>
  TUTTI_HD bool operator()(T x) const {
    return std::abs(x) == std::numeric_limits<T>::infinity();
  }
};
struct IsFinite {
  template <class T>
  TUTTI_HD bool operator()(T x) const {
    return std::abs(x) <= std::numeric_limits<T>::max();
  }
};

// ---- logic on bools, and on the bits of integers and bools
struct LogicalNot {
  TUTTI_HD bool operator()(bool x) const { return !x; }
};
struct LogicalAnd {
  TUTTI_HD bool operator()(bool a, bool b) const { return a && b; }
};
struct LogicalOr {
  TUTTI_HD bool operator()(bool a, bool b) const { return a || b; }
};
struct LogicalXor {
  TUTTI_HD bool operator()(bool a, bool b) const { return a != b; }
};
struct BitwiseNot {
  template <class T>
  TUTTI_HD T operator()(T x) const {
    if constexpr (std::is_same_v<T, bool>)
      return !x;
    else
      return static_cast<T>(~x);
  }
};
struct BitwiseAnd {
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct BitwiseOr {
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct BitwiseXor {
  template <class T>
  TUTTI_HD T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};

// ---- selection, on the bits of the elements: a branch would be mispredicted
/// A bool as the byte 0 or 1 that it is: compilers make no vectors of bool.
enum class Mask : std::uint8_t {};

/// For unsigned integers, whatever they stand for.
struct Where {
  template <class T>
  TUTTI_HD T operator()(Mask c, T x, T y) const {
    const T mask = static_cast<T>(T(0) - static_cast<T>(c));
    return static_cast<T>((x & mask) | (y & ~mask));
  }
};
/// The bits of `value` where the mask is 1 (or 0, if inverted), else x.
template <class T>
struct FillBits {
  T value;
  bool inverted;
  TUTTI_HD T operator()(T x, Mask mask) const {
    return Where()(static_cast<Mask>(static_cast<std::uint8_t>(mask) ^ inverted), value, x);
  }
};

}  // namespace tutti::scalar
