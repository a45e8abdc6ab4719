// Matrix products in portable code: Eigen for the larger ones, plain loops for the small ones, for
// vectors and for integers. It is what other implementations are measured against.
//
// Eigen is compiled under a name of our own, so that an application's Eigen, built with other
// flags, shares no symbol with it.
#include <algorithm>
#include <type_traits>
#include <vector>

#include <tutti/core/kernels/gemm_impl.h>

#define EIGEN_DONT_PARALLELIZE
#define EIGEN_MPL2_ONLY
#define Eigen Eigen_tutti
#include <Eigen/Core>

namespace tutti::kernels {
namespace {

/// Plain loops win for products that are tiny or sum few terms (g++ -O3, SSE2). A single number
/// never goes to Eigen, whose reductions depend on the alignment of memory.
bool use_eigen(std::int64_t m, std::int64_t n, std::int64_t k) {
  return k > 4 && m + n + k >= 20 && m * n > 1;
}

/// One operand matrix.
template <class T>
struct View {
  const T* data;
  std::int64_t row, column;
  const T& operator()(std::int64_t i, std::int64_t j) const { return data[i * row + j * column]; }
};

// ---- plain loops

/// s + a * b; integers wrap around.
template <class T>
T add_product(T s, T a, T b) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<std::uint64_t>(s) +
                          static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b));
  else
    return s + a * b;
}

/// sum over k of a[k * sa] * b[k * sb], in eight partial sums.
template <class T>
T dot(const T* a, std::int64_t sa, const T* b, std::int64_t sb, std::int64_t n) {
  T sums[8] = {};
  std::int64_t i = 0;
  if (sa == 1 && sb == 1) {
    for (; i + 8 <= n; i += 8)
      for (std::int64_t j = 0; j < 8; ++j) sums[j] = add_product(sums[j], a[i + j], b[i + j]);
  } else {
    for (; i + 8 <= n; i += 8)
      for (std::int64_t j = 0; j < 8; ++j)
        sums[j] = add_product(sums[j], a[(i + j) * sa], b[(i + j) * sb]);
  }
  for (std::int64_t j = 0; i < n; ++i, ++j) sums[j] = add_product(sums[j], a[i * sa], b[i * sb]);
  for (std::int64_t half = 4; half > 0; half /= 2)
    for (std::int64_t j = 0; j < half; ++j) sums[j] = add_product(sums[j], sums[j + half], T(1));
  return sums[0];
}

/// out[0..n) += v * x[0..n).
template <class T>
void add_scaled(T* __restrict out, T v, const T* __restrict x, std::int64_t n) {
  for (std::int64_t j = 0; j < n; ++j) out[j] = add_product(out[j], v, x[j]);
}

/// out += a x b, for any strides.
template <class T>
void plain_product(const Form& f, View<T> a, View<T> b, T* out) {
  const std::int64_t m = f.m, n = f.n, k = f.k;
  if (n <= 2 || (m <= 2 && b.row == 1)) {  // few columns, or few rows on a transposed b
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        T s = dot(&a(i, 0), a.column, &b(0, j), b.row, k);
        T& o = out[i * f.out_row + j];
        o = add_product(o, s, T(1));
      }
    return;
  }
  if (b.column == 1) {
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t p = 0; p < k; ++p) add_scaled(out + i * f.out_row, a(i, p), &b(p, 0), n);
    return;
  }
  constexpr std::int64_t kRows = 16, kColumns = 64;
  T rows[kRows * kColumns];  // a piece of b, made row-major
  for (std::int64_t j = 0; j < n; j += kColumns) {
    const std::int64_t width = std::min(kColumns, n - j);
    for (std::int64_t p = 0; p < k; p += kRows) {
      const std::int64_t depth = std::min(kRows, k - p);
      for (std::int64_t c = 0; c < width; ++c)
        for (std::int64_t r = 0; r < depth; ++r) rows[r * width + c] = b(p + r, j + c);
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t r = 0; r < depth; ++r)
          add_scaled(out + i * f.out_row + j, a(i, p + r), rows + r * width, width);
    }
  }
}

// ---- Eigen

template <class T, int Order>
using Map = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Order>, 0,
                       Eigen::OuterStride<>>;

/// Calls f with an Eigen map of the matrix, which is copied first if neither its rows nor its
/// columns are contiguous.
template <class T, class F>
void with_map(View<T> x, std::int64_t rows, std::int64_t columns, const F& f) {
  if (x.column == 1 && x.row >= columns)
    return f(Map<T, Eigen::RowMajor>(x.data, rows, columns, Eigen::OuterStride<>(x.row)));
  if (x.row == 1 && x.column >= rows)
    return f(Map<T, Eigen::ColMajor>(x.data, rows, columns, Eigen::OuterStride<>(x.column)));
  std::vector<T> copy(static_cast<std::size_t>(rows * columns));
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      copy[static_cast<std::size_t>(i * columns + j)] = x(i, j);
  f(Map<T, Eigen::RowMajor>(copy.data(), rows, columns, Eigen::OuterStride<>(columns)));
}

template <class T>
void eigen_product(const Form& f, View<T> a, View<T> b, T* out) {
  with_map(a, f.m, f.k, [&](const auto& am) {
    with_map(b, f.k, f.n, [&](const auto& bm) {
      Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>, 0,
                 Eigen::OuterStride<>>
          c(out, f.m, f.n, Eigen::OuterStride<>(f.out_row));
      c.noalias() += am * bm;
    });
  });
}

}  // namespace

template <class T>
void multiply_portable(const Form& f, const Strip<T>* strips, std::size_t n) {
  if (f.k == 0) return;
  for (const Strip<T>* s = strips; s != strips + n; ++s)
    for (std::int64_t i = 0; i < s->count; ++i) {
      const View<T> a{s->a + i * s->a_step, f.a_row, f.a_column};
      const View<T> b{s->b + i * s->b_step, f.b_row, f.b_column};
      T* out = s->out + i * s->out_step;
      if constexpr (std::is_floating_point_v<T>)
        if (use_eigen(f.m, f.n, f.k)) {
          eigen_product<T>(f, a, b, out);
          continue;
        }
      plain_product<T>(f, a, b, out);
    }
}

#define TUTTI_PORTABLE(T) \
  template void multiply_portable<T>(const Form&, const Strip<T>*, std::size_t);
TUTTI_PORTABLE(float)
TUTTI_PORTABLE(double)
TUTTI_PORTABLE(std::uint8_t)
TUTTI_PORTABLE(std::int8_t)
TUTTI_PORTABLE(std::int16_t)
TUTTI_PORTABLE(std::int32_t)
TUTTI_PORTABLE(std::int64_t)
#undef TUTTI_PORTABLE

}  // namespace tutti::kernels
