// Reductions over any set of axes (attrs.dims) into contiguous outputs, and the vectorisable loop
// over one run of elements that softmax and argmax share with them.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <tutti/core/kernels/math.h>
#include <tutti/core/kernels/per_isa.h>
#include <tutti/core/op.h>

namespace tutti::kernels {

/// Sum; integers and bool into int64. float32 is summed in blocks of partial sums that are added in
/// pairs.
void sum(Inputs in, Inputs out, const Attrs& a);
/// The sums over the rows of each of `count` matrices without gaps, [rows, columns]: those of
/// sum(), to the bit, for up to kFewRows. On the calling thread.
template <class T>
void sum_rows(const T* x, std::int64_t count, std::int64_t rows, std::int64_t columns, T* out);
inline constexpr std::int64_t kFewRows = 512;
/// Product; integers and bool into int64.
void prod(Inputs in, Inputs out, const Attrs& a);
/// Extremes; NaN wins.
void amax(Inputs in, Inputs out, const Attrs& a);
void amin(Inputs in, Inputs out, const Attrs& a);
/// Truth of some or all elements, into bool.
void any(Inputs in, Inputs out, const Attrs& a);
void all(Inputs in, Inputs out, const Attrs& a);
/// int64 index of the first extreme along the axis dims[0]; NaN wins.
void argmax(Inputs in, Inputs out, const Attrs& a);
void argmin(Inputs in, Inputs out, const Attrs& a);

/// What a fold needs to know: the accumulator, its start, how an element joins and how two
/// accumulators do.
namespace fold {

/// Integers add up without a sign, so that they wrap around.
template <class T>
struct Sum {
  using Acc = std::conditional_t<std::is_floating_point_v<T>, T, std::uint64_t>;
  static constexpr bool rounds = std::is_floating_point_v<T>;
  static constexpr Acc start() { return 0; }
  TUTTI_HD static Acc add(Acc a, T x) { return a + static_cast<Acc>(x); }
  TUTTI_HD static Acc merge(Acc a, Acc b) { return a + b; }
};
template <class T>
struct Prod {
  using Acc = typename Sum<T>::Acc;
  static constexpr bool rounds = false;
  static constexpr Acc start() { return 1; }
  TUTTI_HD static Acc add(Acc a, T x) { return a * static_cast<Acc>(x); }
  TUTTI_HD static Acc merge(Acc a, Acc b) { return a * b; }
};
template <class T>
struct Max {
  using Acc = T;
  static constexpr bool rounds = false;
  static constexpr T start() {
    if constexpr (std::is_floating_point_v<T>)
      return -std::numeric_limits<T>::infinity();
    else
      return std::numeric_limits<T>::lowest();
  }
  TUTTI_HD static T add(T a, T x) {
    if constexpr (std::is_floating_point_v<T>)
      return x > a || x != x ? x : a;
    else
      return x > a ? x : a;
  }
  TUTTI_HD static T merge(T a, T b) { return add(a, b); }
};
template <class T>
struct Min {
  using Acc = T;
  static constexpr bool rounds = false;
  static constexpr T start() {
    if constexpr (std::is_floating_point_v<T>)
      return std::numeric_limits<T>::infinity();
    else
      return std::numeric_limits<T>::max();
  }
  TUTTI_HD static T add(T a, T x) {
    if constexpr (std::is_floating_point_v<T>)
      return x < a || x != x ? x : a;
    else
      return x < a ? x : a;
  }
  TUTTI_HD static T merge(T a, T b) { return add(a, b); }
};
template <class T>
struct Any {
  using Acc = bool;
  static constexpr bool rounds = false;
  static constexpr bool start() { return false; }
  TUTTI_HD static bool add(bool a, T x) { return a | (x != T(0)); }
  TUTTI_HD static bool merge(bool a, bool b) { return a | b; }
};
template <class T>
struct All {
  using Acc = bool;
  static constexpr bool rounds = false;
  static constexpr bool start() { return true; }
  TUTTI_HD static bool add(bool a, T x) { return a & (x != T(0)); }
  TUTTI_HD static bool merge(bool a, bool b) { return a & b; }
};

/// Folds the elements from x[i] on with `width` accumulators side by side, as long as there are so
/// many; i moves on.
template <class P, int width, class T>
TUTTI_INLINE typename P::Acc run_wide(const T* x, std::int64_t& i, std::int64_t n) {
  typename P::Acc acc[width];
  for (int j = 0; j < width; ++j) acc[j] = P::start();
  for (; i + width <= n; i += width)
    for (int j = 0; j < width; ++j) acc[j] = P::add(acc[j], x[i + j]);
  for (int half = width / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) acc[j] = P::merge(acc[j], acc[j + half]);
  return acc[0];
}

/// Folds n elements `step` apart.
template <class P, class T>
TUTTI_INLINE typename P::Acc run(const T* x, std::int64_t n, std::int64_t step) {
  constexpr int width =
      P::rounds ? 16 : 64;  // the wider one keeps compilers from unrolling comparisons
  typename P::Acc total = P::start();
  std::int64_t i = 0;
  if (step == 1) {
    if (n >= width) total = run_wide<P, width>(x, i, n);
    if (n - i >= 4) total = P::merge(total, run_wide<P, 4>(x, i, n));
  }
  for (; i < n; ++i) total = P::add(total, x[i * step]);
  return total;
}

/// The sum of f(i) for i < n, in pieces that fit on the stack.
template <class T, class F>
T sum_of(std::int64_t n, const F& f) {
  constexpr std::int64_t most = 512;
  T piece[most], total = 0;
  for (std::int64_t begin = 0; begin < n; begin += most) {
    const std::int64_t count = n - begin < most ? n - begin : most;
    for (std::int64_t i = 0; i < count; ++i) piece[i] = f(begin + i);
    total += run<Sum<T>>(piece, count, 1);
  }
  return total;
}

}  // namespace fold
}  // namespace tutti::kernels
