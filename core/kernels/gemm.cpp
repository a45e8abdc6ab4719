// Batched matrix products: Eigen for the larger ones, plain loops for the small ones and for
// vectors.
//
// Work is cut into tasks by sizes only, never by the number of threads, and each task is computed
// by one thread. Eigen is compiled under a name of our own, so that an application's Eigen, built
// with other flags, shares no symbol with it.
#include <algorithm>
#include <cstring>
#include <vector>

#include <tutti/core/kernels/gemm.h>
#include <tutti/core/parallel.h>

#define EIGEN_DONT_PARALLELIZE
#define EIGEN_MPL2_ONLY
#define Eigen Eigen_tutti
#include <Eigen/Core>

namespace tutti::kernels {
namespace {

// ---- The rules, in one place; sizes measured with g++ -O3 on SSE2.

/// Plain loops win for products that are tiny or sum few terms. A single number never goes to
/// Eigen, whose reductions depend on the alignment of memory.
bool use_eigen(std::int64_t m, std::int64_t n, std::int64_t k) {
  return k > 4 && m + n + k >= 20 && m * n > 1;
}
/// Multiplications that are worth a thread.
constexpr std::int64_t kTaskWork = 1 << 18;
/// A batch of at least this many products is not cut further.
constexpr std::int64_t kEnoughTasks = 16;
/// Smallest block of rows a product is cut into.
constexpr std::int64_t kRowBlock = 64;

/// One operand matrix.
template <class T>
struct View {
  const T* data;
  std::int64_t row, column;
  const T& operator()(std::int64_t i, std::int64_t j) const { return data[i * row + j * column]; }
};

/// Rows per task: all, or a block if the batch alone gives too few tasks.
std::int64_t row_block(const Gemm& g, std::int64_t count) {
  if (count >= kEnoughTasks || g.m < 2 * kRowBlock) return std::max<std::int64_t>(g.m, 1);
  std::int64_t wanted = (g.m * count + kEnoughTasks - 1) / kEnoughTasks;
  std::int64_t worth = kTaskWork * 4 / std::max<std::int64_t>(g.n * g.k, 1) + 1;
  std::int64_t rows = std::max({wanted, worth, kRowBlock});
  return std::min((rows + kRowBlock - 1) / kRowBlock * kRowBlock, g.m);
}

/// Merges neighbouring batch axes that are one axis in memory, and drops those of size 1.
void merge_batch(Gemm& g) {
  Shape sizes;
  Shape strides[3];
  Matrices* operands[3] = {&g.a, &g.b, &g.bias};
  for (std::size_t i = 0; i < g.batch.size(); ++i) {
    if (g.batch[i] == 1) continue;
    bool follows = !sizes.empty();
    for (int k = 0; follows && k < 3; ++k)
      follows =
          operands[k]->batch.empty() || strides[k].back() == operands[k]->batch[i] * g.batch[i];
    if (follows)
      sizes.back() *= g.batch[i];
    else
      sizes.push_back(g.batch[i]);
    for (int k = 0; k < 3; ++k) {
      std::int64_t s = operands[k]->batch.empty() ? 0 : operands[k]->batch[i];
      if (follows)
        strides[k].back() = s;
      else
        strides[k].push_back(s);
    }
  }
  for (int k = 0; k < 3; ++k) operands[k]->batch = strides[k];
  g.batch = sizes;
}

/// A shared right operand under stacked rows is one tall product. The innermost batch axis is
/// folded if b and the bias do not move along it and a's rows continue across it.
void fold_shared(Gemm& g) {
  if (g.batch.empty() || g.b.batch.back() != 0 || g.bias.batch.back() != 0) return;
  if (g.m == 1) g.a.row = g.a.batch.back();
  if (g.a.batch.back() != g.m * g.a.row) return;
  g.m *= g.batch.back();
  g.batch.pop_back();
  g.a.batch.pop_back();
  g.b.batch.pop_back();
  g.bias.batch.pop_back();
}

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
void plain_product(std::int64_t m, std::int64_t n, std::int64_t k, View<T> a, View<T> b, T* out) {
  if (n <= 2 || (m <= 2 && b.row == 1)) {  // few columns, or few rows on a transposed b
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        T s = dot(&a(i, 0), a.column, &b(0, j), b.row, k);
        out[i * n + j] = add_product(out[i * n + j], s, T(1));
      }
    return;
  }
  if (b.column == 1) {
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t p = 0; p < k; ++p) add_scaled(out + i * n, a(i, p), &b(p, 0), n);
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
          add_scaled(out + i * n + j, a(i, p + r), rows + r * width, width);
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
void eigen_product(std::int64_t m, std::int64_t n, std::int64_t k, View<T> a, View<T> b, T* out) {
  with_map(a, m, k, [&](const auto& am) {
    with_map(b, k, n, [&](const auto& bm) {
      Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> c(out, m, n);
      c.noalias() += am * bm;
    });
  });
}

// ---- one task

/// Rows of one product: out = bias (or 0, or what is there), then out += a x b.
template <class T>
void product(const Gemm& g, std::int64_t m, View<T> a, View<T> b, const T* bias, T* out) {
  if (!g.accumulate) {
    if (!bias) std::fill_n(out, m * g.n, T(0));
    for (std::int64_t i = 0; bias && i < m; ++i)
      for (std::int64_t j = 0; j < g.n; ++j) out[i * g.n + j] = bias[j * g.bias.column];
  }
  if (g.k == 0) return;
  if constexpr (std::is_floating_point_v<T>)
    if (use_eigen(m, g.n, g.k)) return eigen_product<T>(m, g.n, g.k, a, b, out);
  plain_product<T>(m, g.n, g.k, a, b, out);
}

template <class T>
void run(const Gemm& g) {
  const std::int64_t count = numel_of(g.batch), rows = row_block(g, count);
  const std::int64_t blocks = (g.m + rows - 1) / rows;
  const std::int64_t work = std::max<std::int64_t>(rows * g.n * (g.k + 1), 1);
  auto matrix = [](const Matrices& x, std::int64_t offset) {
    return View<T>{static_cast<const T*>(x.data) + offset, x.row, x.column};
  };
  parallel_for(count * blocks, kTaskWork / work + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      std::int64_t rest = task / blocks, first = task % blocks * rows;
      std::int64_t at_a = first * g.a.row, at_b = 0, at_bias = 0;
      for (std::size_t d = g.batch.size(); d-- > 0;) {
        const std::int64_t i = rest % g.batch[d];
        rest /= g.batch[d];
        at_a += i * g.a.batch[d];
        at_b += i * g.b.batch[d];
        at_bias += i * g.bias.batch[d];
      }
      const T* bias = g.bias.data ? static_cast<const T*>(g.bias.data) + at_bias : nullptr;
      T* out = static_cast<T*>(g.out) + (task / blocks * g.m + first) * g.n;
      product<T>(g, std::min(rows, g.m - first), matrix(g.a, at_a), matrix(g.b, at_b), bias, out);
    }
  });
}

}  // namespace

void gemm(const Gemm& given) {
  if (given.m == 0 || given.n == 0 || numel_of(given.batch) == 0) return;
  Gemm g = given;
  // Strides that are never taken may as well be the contiguous ones.
  if (g.k == 1) g.a.column = 1, g.b.row = g.n;
  if (g.m == 1) g.a.row = g.k;
  if (g.n == 1) g.b.column = 1;
  merge_batch(g);
  fold_shared(g);
  dispatch(g.dtype, [&]<class T>() {
    if constexpr (!std::is_same_v<T, bool> && !std::is_same_v<T, Half> &&
                  !std::is_same_v<T, BFloat16>)
      run<T>(g);
  });
}

}  // namespace tutti::kernels
