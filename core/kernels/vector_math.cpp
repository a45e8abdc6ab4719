// Chooses between vectors and portable code, and is the portable code for rows.
#include <cmath>

#include <tutti/core/kernels/reduce.h>
#include <tutti/core/kernels/vector_math.h>

namespace tutti::kernels {

template <class F>
VectorRun<F> vector_run() {
#if TUTTI_HIGHWAY
  if (const Isa i = isa(); i != Isa::scalar) return vector_run_highway<F>(i);
#endif
  return nullptr;
}
#define TUTTI_INSTANTIATE(F) template VectorRun<scalar::F> vector_run<scalar::F>();
TUTTI_VECTOR_UNARY(TUTTI_INSTANTIATE)
TUTTI_VECTOR_BINARY(TUTTI_INSTANTIATE)
#undef TUTTI_INSTANTIATE

namespace {

/// The largest element, or 0 where that is -infinity: then every term is 0 (or NaN) as it should
/// be.
template <class T>
T shift_of(const T* x, std::int64_t n) {
  const T m = fold::run<fold::Max<T>>(x, n, 1);
  return m == -std::numeric_limits<T>::infinity() ? T(0) : m;
}

template <class T>
void softmax(const RowArgs<T>& a) {
  const std::int64_t n = a.n;
  const T* x = a.x;
  T* to = a.to;
  for (std::int64_t r = 0; r < a.rows; ++r, x += n, to += n) {
    const T m = shift_of(x, n);
    for (std::int64_t i = 0; i < n; ++i) to[i] = scalar::math::exp(x[i] - m);
    const T total = fold::run<fold::Sum<T>>(to, n, 1), scale = T(1) / total;
    for (std::int64_t i = 0; i < n; ++i) to[i] *= scale;
    if (a.shift) a.shift[r] = m;
    if (a.total) a.total[r] = total;
  }
}

template <class T>
void log_softmax(const RowArgs<T>& a) {
  const std::int64_t n = a.n;
  const T* x = a.x;
  T* to = a.to;
  for (std::int64_t r = 0; r < a.rows; ++r, x += n, to += n) {
    const T m = shift_of(x, n);
    const T total = fold::sum_of<T>(n, [=](std::int64_t i) { return scalar::math::exp(x[i] - m); });
    const T log_total = scalar::math::log(total);
    for (std::int64_t i = 0; i < n; ++i) to[i] = x[i] - m - log_total;
  }
}

template <class T>
void softmax_grad(const RowArgs<T>& a) {
  const std::int64_t n = a.n;
  const T *g = a.x, *y = a.y;
  T* to = a.to;
  for (std::int64_t r = 0; r < a.rows; ++r, g += n, y += n, to += n) {
    const T total = fold::sum_of<T>(n, [=](std::int64_t i) { return g[i] * y[i]; });
    for (std::int64_t i = 0; i < n; ++i) to[i] = y[i] * (g[i] - total);
  }
}

template <class T>
void log_softmax_grad(const RowArgs<T>& a) {
  const std::int64_t n = a.n;
  const T *g = a.x, *y = a.y;
  T* to = a.to;
  for (std::int64_t r = 0; r < a.rows; ++r, g += n, y += n, to += n) {
    const T total = fold::run<fold::Sum<T>>(g, n, 1);
    for (std::int64_t i = 0; i < n; ++i) to[i] = g[i] - scalar::math::exp(y[i]) * total;
  }
}

template <class T>
void log(const T* x, T* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = scalar::math::log(x[i]);
}

template <class T>
void scale(const T* x, const T* by, T* to, std::int64_t n, std::int64_t rows) {
  for (std::int64_t r = 0; r < rows; ++r, x += n, to += n)
    for (std::int64_t i = 0; i < n; ++i) to[i] = by[r] * x[i];
}

template <class T>
constexpr RowKernels<T> portable{softmax<T>,          log_softmax<T>, softmax_grad<T>,
                                 log_softmax_grad<T>, scale<T>,       log<T>};

}  // namespace

template <>
const RowKernels<float>& row_kernels() {
#if TUTTI_HIGHWAY
  if (const Isa i = isa(); i != Isa::scalar) return *row_kernels_highway(i);
#endif
  return portable<float>;
}
template <>
const RowKernels<double>& row_kernels() {
  return portable<double>;
}

}  // namespace tutti::kernels
