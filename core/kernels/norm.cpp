// Layer norm and batch norm. All sums are taken in an order that depends on shapes only: along a
// row by partial sums side by side, over rows in blocks that are added in pairs.
#include <algorithm>
#include <cmath>

#include <tutti/core/kernels/copy.h>
#include <tutti/core/kernels/loops.h>
#include <tutti/core/kernels/norm.h>
#include <tutti/core/kernels/per_isa.h>
#include <tutti/core/parallel.h>
#include <tutti/core/tensor_impl.h>

namespace tutti::kernels {
namespace {

using Index = std::int64_t;

constexpr Index row_block = 32;  // rows added up one after the other
constexpr Index tile = 64;       // columns taken at a time

// ---- sums along a row

/// Adds f(i) to a and g(i) to b as long as `width` of them are left before n; i moves on.
template <int width, class T, class F, class G>
TUTTI_INLINE void add_wide(Index& i, Index n, const F& f, const G& g, T& a, T& b) {
  T p[width], q[width];
  for (int j = 0; j < width; ++j) p[j] = q[j] = T(0);
  for (; i + width <= n; i += width) {
    for (int j = 0; j < width; ++j) p[j] += f(i + j);
    for (int j = 0; j < width; ++j) q[j] += g(i + j);
  }
  for (int half = width / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) {
      p[j] += p[j + half];
      q[j] += q[j + half];
    }
  a += p[0];
  b += q[0];
}

/// The sums a of f(i) and b of g(i), i < n.
template <class T, class F, class G>
TUTTI_INLINE void two_sums(Index n, const F& f, const G& g, T& a, T& b) {
  constexpr Index block = 512;
  constexpr int width = 16;
  a = b = T(0);
  Index i = 0;
  while (n - i >= width) add_wide<width>(i, std::min(n, i + block), f, g, a, b);
  if (n - i >= 4) add_wide<4>(i, n, f, g, a, b);
  for (; i < n; ++i) {
    a += f(i);
    b += g(i);
  }
}

/// The sum of f(i), i < n.
template <class T, class F>
TUTTI_INLINE T sum_of(Index n, const F& f) {
  T a, nothing;
  two_sums<T>(
      n, f, [](Index) TUTTI_INLINE_LAMBDA { return T(0); }, a, nothing);
  return a;
}

// ---- operands

template <class T>
T* data(const Tensor& x) {
  return x.defined() ? static_cast<T*>(x.raw()) : nullptr;
}

/// A tensor whose groups are row-major blocks, copied unless they already are; the groups
/// themselves may lie anywhere, so that one that all share is not repeated.
template <class T>
class Groups {
 public:
  Groups(const Tensor& x, std::size_t axes) : x_(x) {
    if (!x.defined()) return;
    Index stride = 1;
    for (std::size_t d = x.sizes().size(); d-- > axes;) {
      if (x.sizes()[d] != 1 && x.strides()[d] != stride) {
        x_ = make_dense(x.sizes(), x.dtype());
        copy(x_, x);
        break;
      }
      stride *= x.sizes()[d];
    }
    for (std::size_t d = 0; d < axes; ++d) {
      sizes_.push_back(x_.sizes()[d]);
      strides_.push_back(x_.strides()[d]);
    }
    data_ = data<T>(x_);
  }
  /// Where a group begins; null without a tensor.
  T* operator[](Index group) const {
    T* p = data_;
    for (std::size_t d = sizes_.size(); d-- > 0;) {
      p += group % sizes_[d] * strides_[d];
      group /= sizes_[d];
    }
    return p;
  }

 private:
  Tensor x_;
  Shape sizes_, strides_;
  T* data_ = nullptr;
};

/// The product of sizes from..to.
Index product(IntArrayRef sizes, std::size_t from, std::size_t to) {
  Index n = 1;
  for (std::size_t d = from; d < to; ++d) n *= sizes[d];
  return n;
}

/// Memory for intermediate numbers, from the cache of memory.
template <class T>
class Scratch {
 public:
  explicit Scratch(Index n)
      : memory_(Storage::make(static_cast<std::size_t>(n) * sizeof(T), Device())) {}
  T* data() const { return reinterpret_cast<T*>(memory_->data()); }

 private:
  Ptr<Storage> memory_;
};

Index grain_for(Index elements) {
  return std::max<Index>(1, kCheapGrain / (4 * std::max<Index>(elements, 1)));
}

// ---- layer norm

template <class T>
struct NormaliseRows {
  TUTTI_INLINE static void run(const T* __restrict x, const T* __restrict w, const T* __restrict b,
                               T* __restrict y, T* __restrict mean, T* __restrict rstd, Index n,
                               Index rows, T eps) {
    const T count = static_cast<T>(n);
    for (Index r = 0; r < rows; ++r, x += n, y += n) {
      const T m = sum_of<T>(n, [=](Index i) TUTTI_INLINE_LAMBDA { return x[i]; }) / count;
      const T v = sum_of<T>(n,
                            [=](Index i) TUTTI_INLINE_LAMBDA {
                              const T d = x[i] - m;
                              return d * d;
                            }) /
                  count;
      const T s = T(1) / std::sqrt(v + eps);
      mean[r] = m;
      rstd[r] = s;
      if (w && b)
        for (Index i = 0; i < n; ++i) y[i] = (x[i] - m) * s * w[i] + b[i];
      else if (w)
        for (Index i = 0; i < n; ++i) y[i] = (x[i] - m) * s * w[i];
      else if (b)
        for (Index i = 0; i < n; ++i) y[i] = (x[i] - m) * s + b[i];
      else
        for (Index i = 0; i < n; ++i) y[i] = (x[i] - m) * s;
    }
  }
};

/// dx, and what the rows add to dw and db; each may be null.
template <class T>
struct NormaliseRowsGrad {
  TUTTI_INLINE static void run(const T* __restrict g, const T* __restrict x, const T* __restrict w,
                               const T* __restrict mean, const T* __restrict rstd, T* __restrict dx,
                               T* __restrict dw, T* __restrict db, Index n, Index rows) {
    if (dw) std::fill(dw, dw + n, T(0));
    if (db) std::fill(db, db + n, T(0));
    for (Index r = 0; r < rows; ++r, g += n, x += n) {
      const T m = mean[r], s = rstd[r];
      if (dx) {
        if (w)
          row<true>(g, x, w, m, s, dx, n);
        else
          row<false>(g, x, nullptr, m, s, dx, n);
        dx += n;
      }
      if (dw)
        for (Index i = 0; i < n; ++i) dw[i] += g[i] * ((x[i] - m) * s);
      if (db)
        for (Index i = 0; i < n; ++i) db[i] += g[i];
    }
  }

 private:
  template <bool weighted>
  TUTTI_INLINE static void row(const T* __restrict g, const T* __restrict x, const T* __restrict w,
                               T m, T s, T* __restrict dx, Index n) {
    // The gradient of the normalised row.
    const auto h = [=](Index i) TUTTI_INLINE_LAMBDA { return weighted ? g[i] * w[i] : g[i]; };
    T a, b;
    two_sums<T>(
        n, h, [=](Index i) TUTTI_INLINE_LAMBDA { return h(i) * ((x[i] - m) * s); }, a, b);
    a /= static_cast<T>(n);
    b /= static_cast<T>(n);
    for (Index i = 0; i < n; ++i) {
      const T d = weighted ? g[i] * w[i] : g[i];
      dx[i] = s * (d - a - (x[i] - m) * s * b);
    }
  }
};

template <class T>
void layer_norm_of(Inputs in, Inputs out, const Norm& o) {
  const Tensor& y = out[0];
  const std::size_t last = y.sizes().size() - 1;
  const Index n = y.sizes()[last], rows = product(y.sizes(), o.group_axes, last);
  const Groups<T> x(in[0], o.group_axes), w(in[1], o.group_axes), b(in[2], o.group_axes);
  T *const to = data<T>(y), *const mean = data<T>(out[1]), *const rstd = data<T>(out[2]);
  const auto run = version<NormaliseRows<T>>();
  parallel_for(out[1].numel(), grain_for(n), [&](Index begin, Index end) {
    while (begin < end) {
      const Index g = begin / rows, r = begin % rows, count = std::min(rows - r, end - begin);
      run(x[g] + r * n, w[g], b[g], to + begin * n, mean + begin, rstd + begin, n, count,
          static_cast<T>(o.eps));
      begin += count;
    }
  });
}

/// Adds up `count` rows of n numbers in pairs; the sum is then in the first.
template <class T>
void add_in_pairs(T* x, Index n, Index count) {
  for (Index step = 1; step < count; step *= 2)
    for (Index k = 0; k + step < count; k += 2 * step)
      for (Index i = 0; i < n; ++i) x[k * n + i] += x[(k + step) * n + i];
}

template <class T>
void layer_norm_grad_of(Inputs in, Inputs out, const Norm& o) {
  const std::size_t axes = o.group_axes, last = in[1].sizes().size() - 1;
  const IntArrayRef sizes = in[1].sizes();
  const Index n = sizes[last], rows = product(sizes, axes, last), groups = product(sizes, 0, axes);
  const Groups<T> g(in[0], axes), x(in[1], axes), mean(in[2], axes), rstd(in[3], axes),
      w(in[4], axes);
  std::size_t k = 0;
  T* const dx = o.flags & Norm::wants_x ? data<T>(out[k++]) : nullptr;
  T* const dw = o.flags & Norm::wants_weight ? data<T>(out[k++]) : nullptr;
  T* const db = o.flags & Norm::wants_bias ? data<T>(out[k++]) : nullptr;

  // One block of rows gives its sums at once, several leave theirs to be added up.
  const Index blocks = std::max<Index>(1, (rows + row_block - 1) / row_block);
  const Index kept = blocks > 1 ? groups * blocks * n : 0;
  const Scratch<T> scratch(kept * ((dw != nullptr) + (db != nullptr)));
  T* const dw_parts = kept && dw ? scratch.data() : dw;
  T* const db_parts = kept && db ? scratch.data() + (dw ? kept : 0) : db;
  const auto run = version<NormaliseRowsGrad<T>>();
  parallel_for(groups * blocks, grain_for(2 * n * std::min(rows, row_block)),
               [&](Index begin, Index end) {
                 for (Index i = begin; i < end; ++i) {
                   const Index q = i / blocks, r = i % blocks * row_block;
                   run(g[q] + r * n, x[q] + r * n, w[q], mean[q] + r, rstd[q] + r,
                       dx ? dx + (q * rows + r) * n : nullptr, dw ? dw_parts + i * n : nullptr,
                       db ? db_parts + i * n : nullptr, n, std::min(row_block, rows - r));
                 }
               });
  if (!kept) return;
  parallel_for(groups, grain_for(blocks * n), [&](Index begin, Index end) {
    const auto add_up = [&](T* parts, T* to) {
      if (!to) return;
      add_in_pairs(parts, n, blocks);
      std::copy(parts, parts + n, to);
    };
    for (Index q = begin; q < end; ++q) {
      add_up(dw_parts + q * blocks * n, dw ? dw + q * n : nullptr);
      add_up(db_parts + q * blocks * n, db ? db + q * n : nullptr);
    }
  });
}

// ---- batch norm: a group is N rows of C * L columns, each of which belongs to a channel

/// Sums over rows, in blocks that are added in pairs, of term(row, column).
template <class T, class F>
TUTTI_INLINE void column_sums(Index rows, Index columns, const F& term, T* __restrict to) {
  constexpr Index width = 16;
  T levels[40][tile];  // the sum of 2^level blocks
  std::uint64_t count = 0;
  for (Index r = 0; r < rows; r += row_block) {
    const Index stop = std::min(rows, r + row_block);
    T block[tile];
    Index c = 0;
    for (; c + width <= columns; c += width) {
      T acc[width];
      for (Index j = 0; j < width; ++j) acc[j] = T(0);
      for (Index k = r; k < stop; ++k)
        for (Index j = 0; j < width; ++j) acc[j] += term(k, c + j);
      for (Index j = 0; j < width; ++j) block[c + j] = acc[j];
    }
    for (Index j = c; j < columns; ++j) block[j] = T(0);
    for (Index k = r; k < stop; ++k)
      for (Index j = c; j < columns; ++j) block[j] += term(k, j);
    std::size_t level = 0;
    for (std::uint64_t bits = count++; bits & 1; bits >>= 1, ++level)
      for (Index j = 0; j < columns; ++j) block[j] = levels[level][j] + block[j];
    for (Index j = 0; j < columns; ++j) levels[level][j] = block[j];
  }
  for (Index j = 0; j < columns; ++j) to[j] = T(0);
  for (std::size_t level = 0; count; count >>= 1, ++level)
    if (count & 1)
      for (Index j = 0; j < columns; ++j) to[j] = levels[level][j] + to[j];
}

/// What is added up: x; (x - m)^2; g (x - m).
enum class Term { value, square, product };
template <class T, Term what>
struct ColumnSums {
  TUTTI_INLINE static void run(const T* __restrict x, const T* __restrict m, const T* __restrict g,
                               T* __restrict to, Index rows, Index row, Index columns) {
    const auto term = [=](Index r, Index c) TUTTI_INLINE_LAMBDA {
      const Index i = r * row + c;
      if constexpr (what == Term::value)
        return x[i];
      else if constexpr (what == Term::square)
        return (x[i] - m[c]) * (x[i] - m[c]);
      else
        return g[i] * (x[i] - m[c]);
    };
    column_sums<T>(rows, columns, term, to);
  }
};

/// y = (x - m) a + b; b may be null.
template <class T>
struct NormaliseColumns {
  TUTTI_INLINE static void run(const T* __restrict x, const T* __restrict m, const T* __restrict a,
                               const T* __restrict b, T* __restrict y, Index rows, Index row,
                               Index columns) {
    for (Index r = 0; r < rows; ++r, x += row, y += row)
      if (b)
        for (Index c = 0; c < columns; ++c) y[c] = (x[c] - m[c]) * a[c] + b[c];
      else
        for (Index c = 0; c < columns; ++c) y[c] = (x[c] - m[c]) * a[c];
  }
};

/// dx = a (g - d - (x - m) e), or a g without d and e.
template <class T>
struct NormaliseColumnsGrad {
  TUTTI_INLINE static void run(const T* __restrict g, const T* __restrict x, const T* __restrict m,
                               const T* __restrict a, const T* __restrict d, const T* __restrict e,
                               T* __restrict dx, Index rows, Index row, Index columns) {
    for (Index r = 0; r < rows; ++r, g += row, x += row, dx += row)
      if (d)
        for (Index c = 0; c < columns; ++c) dx[c] = a[c] * (g[c] - d[c] - (x[c] - m[c]) * e[c]);
      else
        for (Index c = 0; c < columns; ++c) dx[c] = a[c] * g[c];
  }
};

/// The sizes of a batch, and the walks over it.
struct Batch {
  Index groups, samples, channels, length, columns;
  Index each;   // values per channel
  Index space;  // for a number per channel or per column, whichever are more
  Batch(IntArrayRef sizes, std::size_t axes)
      : groups(product(sizes, 0, axes)),
        samples(sizes[axes]),
        channels(sizes[axes + 1]),
        length(product(sizes, axes + 2, sizes.size())),
        columns(channels * length),
        each(samples * length),
        space(std::max(columns, channels)) {}

  Index elements() const { return samples * columns; }
  /// f(group), several at once; a single one is left to share out its columns.
  template <class F>
  void each_group(const F& f) const {
    parallel_for(groups, groups == 1 ? 1 : grain_for(2 * elements()), [&](Index begin, Index end) {
      for (Index q = begin; q < end; ++q) f(q);
    });
  }
  /// f(first column, columns) for each tile of a group.
  template <class F>
  void each_tile(const F& f) const {
    parallel_for((columns + tile - 1) / tile, grain_for(samples * tile),
                 [&](Index begin, Index end) {
                   for (Index c = begin * tile; c < std::min(columns, end * tile); c += tile)
                     f(c, std::min(tile, columns - c));
                 });
  }
  /// Sums over columns, in `sums`, to sums over channels.
  template <class T>
  void to_channels(const T* sums, T* to) const {
    for (Index c = 0; c < channels; ++c, sums += length)
      to[c] = length == 1 ? sums[0] : sum_of<T>(length, [=](Index i) { return sums[i]; });
  }
  /// A number per channel as one per column; `space` holds them where they are not the same.
  template <class T>
  const T* to_columns(const T* x, T* space) const {
    if (length == 1 || !x) return x;
    for (Index c = 0; c < channels; ++c) std::fill_n(space + c * length, length, x[c]);
    return space;
  }
};

/// y from mean and variance of the channels; space for 4 numbers per column.
template <class T>
void normalise_group(const Batch& batch, const T* x, const T* mean, const T* var, const T* w,
                     const T* b, T* y, T eps, T* space) {
  const Index n = batch.columns, each = batch.space;
  T* const scale = space;
  for (Index c = 0; c < batch.channels; ++c)
    scale[c] = T(1) / std::sqrt(var[c] + eps) * (w ? w[c] : T(1));
  const T *const m = batch.to_columns(mean, space + each),
                 *const a = batch.to_columns(scale, space + 2 * each),
                 *const shift = batch.to_columns(b, space + 3 * each);
  const auto run = version<NormaliseColumns<T>>();
  batch.each_tile([&](Index c, Index count) {
    run(x + c, m + c, a + c, shift ? shift + c : nullptr, y + c, batch.samples, n, count);
  });
}

template <class T>
void train(Inputs in, Inputs out, const Norm& o) {
  const std::size_t axes = o.group_axes;
  const Batch batch(in[0].sizes(), axes);
  const Groups<T> x(in[0], axes), w(in[1], axes), b(in[2], axes);
  const Scratch<T> scratch(batch.groups * batch.space * 4);
  const auto sum = version<ColumnSums<T, Term::value>>();
  const auto squares = version<ColumnSums<T, Term::square>>();
  const T count = static_cast<T>(batch.each);
  batch.each_group([&](Index q) {
    const Index n = batch.columns;
    T *const space = scratch.data() + q * batch.space * 4, *const sums = space + batch.space;
    T *const mean = data<T>(out[1]) + q * batch.channels, *const var =
                                                              data<T>(out[2]) + q * batch.channels;
    batch.each_tile([&](Index c, Index columns) {
      sum(x[q] + c, nullptr, nullptr, sums + c, batch.samples, n, columns);
    });
    batch.to_channels(sums, mean);
    for (Index c = 0; c < batch.channels; ++c) mean[c] /= count;
    const T* const m = batch.to_columns(mean, space);
    batch.each_tile([&](Index c, Index columns) {
      squares(x[q] + c, m + c, nullptr, sums + c, batch.samples, n, columns);
    });
    batch.to_channels(sums, var);
    for (Index c = 0; c < batch.channels; ++c) var[c] /= count;
    normalise_group(batch, x[q], mean, var, w[q], b[q], data<T>(out[0]) + q * batch.elements(),
                    static_cast<T>(o.eps), space);
  });
}

template <class T>
void eval(Inputs in, Inputs out, const Norm& o) {
  const std::size_t axes = o.group_axes;
  const Batch batch(in[0].sizes(), axes);
  const Groups<T> x(in[0], axes), mean(in[1], axes), var(in[2], axes), w(in[3], axes),
      b(in[4], axes);
  const Scratch<T> scratch(batch.groups * batch.space * 4);
  batch.each_group([&](Index q) {
    normalise_group(batch, x[q], mean[q], var[q], w[q], b[q],
                    data<T>(out[0]) + q * batch.elements(), static_cast<T>(o.eps),
                    scratch.data() + q * batch.space * 4);
  });
}

template <class T>
void grad(Inputs in, Inputs out, const Norm& o) {
  const std::size_t axes = o.group_axes;
  const Batch batch(in[1].sizes(), axes);
  const Groups<T> gs(in[0], axes), xs(in[1], axes), means(in[2], axes), vars(in[3], axes),
      ws(in[4], axes);
  std::size_t k = 0;
  T* const dx = o.flags & Norm::wants_x ? data<T>(out[k++]) : nullptr;
  T* const dw = o.flags & Norm::wants_weight ? data<T>(out[k++]) : nullptr;
  T* const db = o.flags & Norm::wants_bias ? data<T>(out[k++]) : nullptr;
  const bool own = !(o.flags & Norm::given);
  const Index n = batch.columns, each = batch.space, channels = batch.channels, parts = 9;
  const Scratch<T> scratch(batch.groups * each * parts);
  const auto sum = version<ColumnSums<T, Term::value>>();
  const auto products = version<ColumnSums<T, Term::product>>();
  const auto spread = version<NormaliseColumnsGrad<T>>();
  const T count = static_cast<T>(batch.each);
  batch.each_group([&](Index q) {
    T* const space = scratch.data() + q * each * parts;
    T *const sums = space, *const of_weight = space + each, *const of_bias = space + 2 * each,
             *const scale = space + 3 * each, *const slope = space + 4 * each;
    const T *const g = gs[q], *const x = xs[q], *const var = vars[q], *const w = ws[q];
    const T* const m = batch.to_columns(means[q], space + 5 * each);
    const auto rstd = [&](Index c) { return T(1) / std::sqrt(var[c] + static_cast<T>(o.eps)); };
    const bool centres = dx && own;
    if (db || centres) {
      batch.each_tile([&](Index c, Index columns) {
        sum(g + c, nullptr, nullptr, sums + c, batch.samples, n, columns);
      });
      batch.to_channels(sums, of_bias);
      if (db) std::copy_n(of_bias, channels, db + q * channels);
    }
    if (dw || centres) {
      batch.each_tile([&](Index c, Index columns) {
        products(x + c, m + c, g + c, sums + c, batch.samples, n, columns);
      });
      batch.to_channels(sums, of_weight);
      for (Index c = 0; c < channels; ++c) of_weight[c] *= rstd(c);
      if (dw) std::copy_n(of_weight, channels, dw + q * channels);
    }
    if (!dx) return;
    for (Index c = 0; c < channels; ++c) scale[c] = rstd(c) * (w ? w[c] : T(1));
    for (Index c = 0; c < channels && centres; ++c) {
      slope[c] = of_weight[c] / count * rstd(c);
      of_bias[c] /= count;
    }
    const T* const a = batch.to_columns(scale, space + 6 * each);
    const T* const d = centres ? batch.to_columns(of_bias, space + 7 * each) : nullptr;
    const T* const e = centres ? batch.to_columns(slope, space + 8 * each) : nullptr;
    batch.each_tile([&](Index c, Index columns) {
      spread(g + c, x + c, m + c, a + c, d ? d + c : nullptr, e ? e + c : nullptr,
             dx + q * batch.elements() + c, batch.samples, n, columns);
    });
  });
}

}  // namespace

#define TUTTI_NORM(name, f)                          \
  void name(Inputs in, Inputs out, const Attrs& a) { \
    if (in[0].dtype() == kFloat64)                   \
      f<double>(in, out, Norm(a));                   \
    else                                             \
      f<float>(in, out, Norm(a));                    \
  }
TUTTI_NORM(layer_norm, layer_norm_of)
TUTTI_NORM(layer_norm_grad, layer_norm_grad_of)
TUTTI_NORM(batch_norm_train, train)
TUTTI_NORM(batch_norm_eval, eval)
TUTTI_NORM(batch_norm_grad, grad)

}  // namespace tutti::kernels
