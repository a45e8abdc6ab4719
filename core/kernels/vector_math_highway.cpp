// The functions of functions.inc, sine and cosine on vectors of floats, and softmax and its
// relatives on rows, written once with Highway and compiled for each instruction set of isa.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <tutti/core/kernels/vector_math_highway.cpp>
#include <algorithm>
#include <cmath>
#include <cstring>

#include <tutti/core/kernels/highway.h>
#include <tutti/core/kernels/vector_math.h>

#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
HWY_BEFORE_NAMESPACE();
namespace tutti::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using Index = std::int64_t;
using Tag = hn::ScalableTag<float>;
constexpr Tag kTag;
constexpr Index kLanes = HWY_LANES(float);

// ---- what functions.inc asks for

struct Real {
  hn::Vec<Tag> v;
  Real() = default;
  HWY_INLINE Real(hn::Vec<Tag> x) : v(x) {}
  template <class N>
  requires std::is_arithmetic_v<N> HWY_INLINE explicit Real(N x)
      : v(hn::Set(kTag, static_cast<float>(x))) {}
};
struct Truth {
  hn::Mask<Tag> m;
};

HWY_INLINE Real operator+(Real a, Real b) { return hn::Add(a.v, b.v); }
HWY_INLINE Real operator-(Real a, Real b) { return hn::Sub(a.v, b.v); }
HWY_INLINE Real operator*(Real a, Real b) { return hn::Mul(a.v, b.v); }
HWY_INLINE Real operator/(Real a, Real b) { return hn::Div(a.v, b.v); }
HWY_INLINE Real operator-(Real a) { return hn::Neg(a.v); }
HWY_INLINE Truth operator<(Real a, Real b) { return {hn::Lt(a.v, b.v)}; }
HWY_INLINE Truth operator>(Real a, Real b) { return {hn::Gt(a.v, b.v)}; }
HWY_INLINE Truth operator<=(Real a, Real b) { return {hn::Le(a.v, b.v)}; }
HWY_INLINE Truth operator==(Real a, Real b) { return {hn::Eq(a.v, b.v)}; }
HWY_INLINE Real select(Truth c, Real x, Real y) { return hn::IfThenElse(c.m, x.v, y.v); }
HWY_INLINE Real abs(Real x) { return hn::Abs(x.v); }
HWY_INLINE Real copysign(Real x, Real sign) { return hn::CopySign(x.v, sign.v); }
// NaN stays. On x86 the second operand is the result where one is NaN, on ARM the one that is not.
HWY_INLINE Real at_most(Real x, float bound) {
  const Real b(bound);
  return HWY_ARCH_X86 ? Real(hn::Min(b.v, x.v)) : select(x > b, b, x);
}
HWY_INLINE Real at_least(Real x, float bound) {
  const Real b(bound);
  return HWY_ARCH_X86 ? Real(hn::Max(b.v, x.v)) : select(x < b, b, x);
}
HWY_INLINE Real mul_add(Real a, Real b, Real c) { return hn::MulAdd(a.v, b.v, c.v); }
HWY_INLINE Real nearest(Real x) { return hn::Round(x.v); }
/// The low bits of the whole number n, moved up.
template <int by>
HWY_INLINE Real shifted(Real n, float offset = 0.0f) {
  const hn::RebindToUnsigned<Tag> du;
  const auto bits = hn::BitCast(du, (n + Real(scalar::math::kShift + offset)).v);
  return hn::BitCast(kTag, hn::ShiftLeft<by>(bits));
}
HWY_INLINE Real times_power(Real x, Real n) { return x * shifted<23>(n, 127.0f); }
struct Split {
  Real fraction, exponent;
};
HWY_INLINE Split split_exponent(Real x) {
  const hn::RebindToSigned<Tag> di;
  const auto bits = hn::BitCast(di, x.v);
  const auto e = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, 0x3f3504f3)));
  return {hn::BitCast(kTag, hn::Sub(bits, hn::ShiftLeft<23>(e))), hn::ConvertTo(kTag, e)};
}

using scalar::kGeluCubic;
using scalar::kGeluScale;
using scalar::math::kInf;
using scalar::math::kNan;
#define TUTTI_FUNCTION HWY_INLINE
#include <tutti/core/kernels/functions.inc>
#undef TUTTI_FUNCTION

// ---- sine and cosine

/// Up to here a multiple of pi, chosen in float, is close enough to the argument of sine.
constexpr float kFar = 32768.0f;

/// y where |x| <= kFar, elsewhere f(x) one by one.
template <class F>
HWY_NOINLINE Real far_ones(Real x, Real y, F f) {
  HWY_ALIGN float from[kLanes];
  HWY_ALIGN float to[kLanes];
  hn::Store(x.v, kTag, from);
  hn::Store(y.v, kTag, to);
  for (Index i = 0; i < kLanes; ++i)
    if (std::abs(from[i]) > kFar) to[i] = f(from[i]);
  return hn::Load(kTag, to);
}

/// x - q pi for |x| <= kFar and q a multiple of 1/2, rounded once.
HWY_INLINE Real less_multiple_of_pi(Real x, Real q) {
  const hn::Repartition<double, Tag> dd;
  const hn::Half<Tag> dh;
  const auto half = [&](auto xh, auto qh) HWY_ATTR {
    const auto n = hn::PromoteTo(dd, qh);
    // 33 digits of pi, whose product with q is exact, and the next 53.
    const auto r = hn::NegMulAdd(n, hn::Set(dd, 0x1.921fb544p+1), hn::PromoteTo(dd, xh));
    return hn::DemoteTo(dh, hn::NegMulAdd(n, hn::Set(dd, 0x1.0b4611a626331p-33), r));
  };
  return hn::Combine(kTag, half(hn::UpperHalf(dh, x.v), hn::UpperHalf(dh, q.v)),
                     half(hn::LowerHalf(dh, x.v), hn::LowerHalf(dh, q.v)));
}

/// sin(r) (-1)^n for |r| <= pi / 2 and a little more.
HWY_INLINE Real signed_sine(Real r, Real n) {
  const Real z = r * r;
  Real p = Real(2.605629788e-6f);
  p = mul_add(p, z, Real(-1.980953821e-4f));
  p = mul_add(p, z, Real(8.333065547e-3f));
  p = mul_add(p, z, Real(-0.1666665971f));
  const Real y = mul_add(p * z, r, r);
  return hn::Xor(y.v, shifted<31>(n).v);
}

constexpr float kInversePi = 0.318309886f;

HWY_INLINE Real sin(Real x) {
  const Real n = nearest(x * Real(kInversePi));
  const Real s = signed_sine(less_multiple_of_pi(x, n), n);
  const Real y = select(x == Real(0.0f), x, s);
  if (HWY_LIKELY(hn::AllFalse(kTag, (abs(x) > Real(kFar)).m))) return y;
  return far_ones(x, y, [](float v) { return std::sin(v); });
}
HWY_INLINE Real cos(Real x) {
  const Real n = nearest(mul_add(x, Real(kInversePi), Real(0.5f)));
  const Real y = signed_sine(less_multiple_of_pi(x, n - Real(0.5f)), n);
  if (HWY_LIKELY(hn::AllFalse(kTag, (abs(x) > Real(kFar)).m))) return y;
  return far_ones(x, y, [](float v) { return std::cos(v); });
}

// ---- the functors of scalar.h

HWY_INLINE Real apply(const scalar::Exp&, Real x) { return exp(x); }
HWY_INLINE Real apply(const scalar::Expm1&, Real x) { return expm1(x); }
HWY_INLINE Real apply(const scalar::Log&, Real x) { return log(x); }
HWY_INLINE Real apply(const scalar::Log1p&, Real x) { return log1p(x); }
HWY_INLINE Real apply(const scalar::Sin&, Real x) { return sin(x); }
HWY_INLINE Real apply(const scalar::Cos&, Real x) { return cos(x); }
HWY_INLINE Real apply(const scalar::Tanh&, Real x) { return tanh(x); }
HWY_INLINE Real apply(const scalar::Erf&, Real x) { return erf(x); }
HWY_INLINE Real apply(const scalar::Sigmoid&, Real x) { return sigmoid(x); }
HWY_INLINE Real apply(const scalar::LogSigmoid&, Real x) { return log_sigmoid(x); }
HWY_INLINE Real apply(const scalar::Silu&, Real x) { return silu(x); }
HWY_INLINE Real apply(const scalar::SiluGrad&, Real g, Real x) { return silu_grad(g, x); }
HWY_INLINE Real apply(const scalar::Gelu&, Real x) { return gelu(x); }
HWY_INLINE Real apply(const scalar::GeluGrad&, Real g, Real x) { return gelu_grad(g, x); }
HWY_INLINE Real apply(const scalar::GeluTanh&, Real x) { return gelu_tanh(x); }
HWY_INLINE Real apply(const scalar::GeluTanhGrad&, Real g, Real x) { return gelu_tanh_grad(g, x); }
HWY_INLINE Real apply(const scalar::Softplus& f, Real x) {
  return softplus(x, Real(f.beta.as<float>()), Real(f.threshold.as<float>()));
}
HWY_INLINE Real apply(const scalar::SoftplusGrad& f, Real g, Real x) {
  return softplus_grad(g, x, Real(f.beta.as<float>()), Real(f.threshold.as<float>()));
}
HWY_INLINE Real apply(const scalar::Elu& f, Real x) { return elu(x, Real(f.alpha.as<float>())); }
HWY_INLINE Real apply(const scalar::EluGrad& f, Real g, Real x) {
  return elu_grad(g, x, Real(f.alpha.as<float>()));
}

// ---- loops

/// Copies n < kLanes numbers.
HWY_INLINE void copy_few(const float* from, float* to, Index n) {
  const auto piece = [&](Index count) HWY_ATTR {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
    from += count;
    to += count;
  };
  if (kLanes > 4 && n & 4) piece(4);
  if (n & 2) piece(2);
  if (n & 1) piece(1);
}
/// The first n < kLanes numbers, then zeros. Nothing else is read.
HWY_INLINE Real load_few(const float* p, Index n) {
#if TUTTI_MASKED_LOADS
  return hn::MaskedLoad(hn::FirstN(kTag, static_cast<std::size_t>(n)), kTag, p);
#else
  HWY_ALIGN float buffer[kLanes] = {};
  copy_few(p, buffer, n);
  return hn::Load(kTag, buffer);
#endif
}
/// Stores the first n < kLanes numbers. Nothing else is written.
HWY_INLINE void store_few(Real x, float* p, Index n) {
#if HWY_TARGET == HWY_AVX3
  hn::BlendedStore(x.v, hn::FirstN(kTag, static_cast<std::size_t>(n)), kTag, p);
#else  // masked stores of AVX2 are slow
  HWY_ALIGN float buffer[kLanes];
  hn::Store(x.v, kTag, buffer);
  copy_few(buffer, p, n);
#endif
}
HWY_INLINE Real load(const float* p) { return hn::LoadU(kTag, p); }
HWY_INLINE void store(Real x, float* p) { hn::StoreU(x.v, kTag, p); }

template <class F, class... In>
HWY_INLINE void fill(const F& f, float* out, Index n, const In*... in) {
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) store(apply(f, load(in + i)...), out + i);
  if (i < n) store_few(apply(f, load_few(in + i, n - i)...), out + i, n - i);
}

constexpr Index kPiece = 256;

/// n <= kPiece numbers `stride` bytes apart, brought together.
const float* gathered(const std::byte* p, Index stride, Index n, float* buffer) {
  if (stride == Index{sizeof(float)}) return reinterpret_cast<const float*>(p);
  for (Index i = 0; i < n; ++i) buffer[i] = *reinterpret_cast<const float*>(p + i * stride);
  return buffer;
}

template <class F>
void run_unary(const void* f, const Loops<2>::Pointers& p, const Loops<2>::Strides& s, Index n) {
  const F& g = *static_cast<const F*>(f);
  constexpr Index item = sizeof(float);
  if (s[0] == item && s[1] == item)
    return fill(g, reinterpret_cast<float*>(p[0]), n, reinterpret_cast<const float*>(p[1]));
  float x[kPiece], y[kPiece];
  for (Index begin = 0; begin < n; begin += kPiece) {
    const Index count = std::min(kPiece, n - begin);
    fill(g, y, count, gathered(p[1] + begin * s[1], s[1], count, x));
    for (Index i = 0; i < count; ++i) *reinterpret_cast<float*>(p[0] + (begin + i) * s[0]) = y[i];
  }
}

template <class F>
void run_binary(const void* f, const Loops<3>::Pointers& p, const Loops<3>::Strides& s, Index n) {
  const F& g = *static_cast<const F*>(f);
  constexpr Index item = sizeof(float);
  if (s[0] == item && s[1] == item && s[2] == item)
    return fill(g, reinterpret_cast<float*>(p[0]), n, reinterpret_cast<const float*>(p[1]),
                reinterpret_cast<const float*>(p[2]));
  float a[kPiece], b[kPiece], y[kPiece];
  for (Index begin = 0; begin < n; begin += kPiece) {
    const Index count = std::min(kPiece, n - begin);
    fill(g, y, count, gathered(p[1] + begin * s[1], s[1], count, a),
         gathered(p[2] + begin * s[2], s[2], count, b));
    for (Index i = 0; i < count; ++i) *reinterpret_cast<float*>(p[0] + (begin + i) * s[0]) = y[i];
  }
}

template <class F>
constexpr VectorRun<F> run_of() {
  if constexpr (vector_operands<F> == 1)
    return run_unary<F>;
  else
    return run_binary<F>;
}

// ---- rows

HWY_INLINE Real sum_of_lanes(Real x) { return hn::SumOfLanes(kTag, x.v); }
HWY_INLINE Real max_of_lanes(Real x) { return hn::MaxOfLanes(kTag, x.v); }
HWY_INLINE float first_lane(Real x) { return hn::GetLane(x.v); }

/// How rows of n numbers are taken as vectors: whole ones from the start, and the last one from the
/// end, so that it may begin with `again` numbers of the one before. A row shorter than a vector is
/// one whose other lanes are filled up.
struct Cut {
  Index n, vectors, last;  // where the last one begins
  hn::Mask<Tag> fresh;     // lanes of the last one that no other has
  bool few;
  HWY_INLINE explicit Cut(Index count)
      : n(count),
        vectors((count + kLanes - 1) / kLanes),
        last(std::max<Index>(0, count - kLanes)),
        few(count < kLanes) {
    const auto lane = hn::Iota(kTag, 0.0f);
    const Index again = vectors * kLanes - count;
    fresh = few ? hn::Lt(lane, hn::Set(kTag, static_cast<float>(count)))
                : hn::Ge(lane, hn::Set(kTag, static_cast<float>(again)));
  }
  HWY_INLINE Real load_last(const float* row, Real filler) const {
    return few ? select(Truth{fresh}, load_few(row, n), filler) : load(row + last);
  }
  HWY_INLINE void store_last(Real x, float* row) const {
    if (few)
      store_few(x, row, n);
    else
      store(x, row + last);
  }
  HWY_INLINE Real only_fresh(Real x) const { return hn::IfThenElseZero(fresh, x.v); }
};

/// The largest number of a row, from the largest of its vectors, or 0 where that is -infinity: then
/// every term is 0 (or NaN) as it should be. NaN may be missed; its term will be NaN.
HWY_INLINE Real shift_from(Real largest) {
  const Real m = max_of_lanes(largest);
  return select(m == Real(-kInf), Real(0.0f), m);
}

/// Shift and total of rows of `vectors` vectors, which stay in registers, and their softmax if
/// `stores`.
template <int vectors, bool stores>
HWY_INLINE void short_rows(const RowArgs<float>& a) {
  const Cut cut(a.n);
  constexpr int last = vectors - 1;
  const float* x = a.x;
  [[maybe_unused]] float* to = a.to;  // null unless it stores
  for (Index r = 0; r < a.rows; ++r, x += a.n) {
    Real v[vectors];
    for (int j = 0; j < last; ++j) v[j] = load(x + j * kLanes);
    Real m = v[last] = cut.load_last(x, Real(-kInf));
    for (int j = 0; j < last; ++j) m = hn::Max(m.v, v[j].v);
    m = shift_from(m);
    for (int j = 0; j < vectors; ++j) v[j] = exp_below(v[j] - m);
    Real total = cut.only_fresh(v[last]);
    for (int j = 0; j < last; ++j) total = total + v[j];
    total = sum_of_lanes(total);
    if constexpr (stores) {
      const Real scale = Real(1.0f) / total;
      for (int j = 0; j < last; ++j) store(v[j] * scale, to + j * kLanes);
      cut.store_last(v[last] * scale, to);
      to += a.n;
    }
    if (a.shift) a.shift[r] = first_lane(m);
    if (a.total) a.total[r] = first_lane(total);
  }
}

/// f(place) on all vectors of a row but the last, four at a time with a number for which of the
/// four.
template <class F>
HWY_INLINE void by_fours(Index last, const F& f) {
  Index i = 0;
  for (; i + 4 * kLanes <= last; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) f(i + j * kLanes, j);
  for (int j = 0; i < last; i += kLanes, ++j) f(i, j);
}

template <bool stores>
HWY_INLINE void long_rows(const RowArgs<float>& a) {
  const Cut cut(a.n);
  const Index body = (cut.vectors - 1) * kLanes;
  const float* x = a.x;
  [[maybe_unused]] float* to = a.to;  // null unless it stores
  for (Index r = 0; r < a.rows; ++r, x += a.n) {
    const Real end = load(x + cut.last);  // before `to` is written, which may be x
    Real s[4] = {end, end, end, end};
    by_fours(body, [&](Index i, int j) HWY_ATTR { s[j] = hn::Max(s[j].v, load(x + i).v); });
    const Real m = shift_from(hn::Max(hn::Max(s[0].v, s[1].v), hn::Max(s[2].v, s[3].v)));
    for (Real& v : s) v = Real(0.0f);
    const Real end_e = exp_below(end - m);
    by_fours(body, [&](Index i, int j) HWY_ATTR {
      const Real e = exp_below(load(x + i) - m);
      if constexpr (stores) store(e, to + i);
      s[j] = s[j] + e;
    });
    const Real total = sum_of_lanes(((s[0] + s[1]) + (s[2] + s[3])) + cut.only_fresh(end_e));
    if constexpr (stores) {
      const Real scale = Real(1.0f) / total;
      by_fours(body, [&](Index i, int) HWY_ATTR { store(load(to + i) * scale, to + i); });
      store(end_e * scale, to + cut.last);
      to += a.n;
    }
    if (a.shift) a.shift[r] = first_lane(m);
    if (a.total) a.total[r] = first_lane(total);
  }
}

template <bool stores>
void exp_rows(const RowArgs<float>& a) {
  switch ((a.n + kLanes - 1) / kLanes) {
    case 1:
      return short_rows<1, stores>(a);
    case 2:
      return short_rows<2, stores>(a);
    case 3:
      return short_rows<3, stores>(a);
    case 4:
      return short_rows<4, stores>(a);
    default:
      return long_rows<stores>(a);
  }
}

void log_all(const float* x, float* to, Index n) { fill(scalar::Log(), to, n, x); }

void log_rows(const RowArgs<float>& a) {
  constexpr Index most = 64;
  float shift[most], total[most];
  const Cut cut(a.n);
  const Index body = (cut.vectors - 1) * kLanes;
  for (Index begin = 0; begin < a.rows; begin += most) {
    const Index rows = std::min(most, a.rows - begin);
    const float* x = a.x + begin * a.n;
    float* to = a.to + begin * a.n;
    exp_rows<false>({x, nullptr, nullptr, a.n, rows, shift, total});
    log_all(total, total, rows);
    for (Index r = 0; r < rows; ++r, x += a.n, to += a.n) {
      const Real m = Real(shift[r]), log_total = Real(total[r]);
      const Real end = cut.load_last(x, Real(0.0f));
      by_fours(body, [&](Index i, int) HWY_ATTR { store(load(x + i) - m - log_total, to + i); });
      cut.store_last(end - m - log_total, to);
    }
  }
}

/// y (g - sum of g y), or g - e^y (sum of g).
template <bool takes_log>
void rows_grad(const RowArgs<float>& a) {
  const Cut cut(a.n);
  const Index body = (cut.vectors - 1) * kLanes;
  const float *g = a.x, *y = a.y;
  float* to = a.to;
  for (Index r = 0; r < a.rows; ++r, g += a.n, y += a.n, to += a.n) {
    const Real end_g = cut.load_last(g, Real(0.0f)), end_y = cut.load_last(y, Real(0.0f));
    Real s[4];
    for (Real& v : s) v = Real(0.0f);
    by_fours(body, [&](Index i, int j) HWY_ATTR {
      s[j] = takes_log ? s[j] + load(g + i) : mul_add(load(g + i), load(y + i), s[j]);
    });
    const Real end = cut.only_fresh(takes_log ? end_g : end_g * end_y);
    const Real total = sum_of_lanes(((s[0] + s[1]) + (s[2] + s[3])) + end);
    const auto result = [&](Real gi, Real yi) HWY_ATTR {
      return takes_log ? gi - exp(yi) * total : yi * (gi - total);
    };
    by_fours(body, [&](Index i, int) HWY_ATTR { store(result(load(g + i), load(y + i)), to + i); });
    cut.store_last(result(end_g, end_y), to);
  }
}

void scale(const float* x, const float* by, float* to, Index n, Index rows) {
  const Cut cut(n);
  const Index body = (cut.vectors - 1) * kLanes;
  for (Index r = 0; r < rows; ++r, x += n, to += n) {
    const Real s = Real(by[r]), end = cut.load_last(x, Real(0.0f));
    by_fours(body, [&](Index i, int) HWY_ATTR { store(s * load(x + i), to + i); });
    cut.store_last(s * end, to);
  }
}

constexpr RowKernels<float> kRows{exp_rows<true>,  log_rows, rows_grad<false>,
                                  rows_grad<true>, scale,    log_all};
const RowKernels<float>* row_kernels() { return &kRows; }

}  // namespace

}  // namespace HWY_NAMESPACE
}  // namespace tutti::kernels
HWY_AFTER_NAMESPACE();
#endif  // not scalar

#if HWY_ONCE
namespace tutti::kernels {

template <class F>
VectorRun<F> vector_run_highway(Isa isa) {
  TUTTI_RETURN_FOR(isa, run_of<F>())
}
const RowKernels<float>* row_kernels_highway(Isa isa){TUTTI_RETURN_FOR(isa, row_kernels())}

#define TUTTI_INSTANTIATE(F) template VectorRun<scalar::F> vector_run_highway<scalar::F>(Isa);
TUTTI_VECTOR_UNARY(TUTTI_INSTANTIATE) TUTTI_VECTOR_BINARY(TUTTI_INSTANTIATE)

}  // namespace tutti::kernels
#endif  // HWY_ONCE
