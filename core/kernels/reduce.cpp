// Reductions. Two ways through memory: `rows`, when the reduced axes are the inner ones (each
// result folds runs of elements), and `columns`, when a kept axis is the inner one (rows of results
// take up rows of elements). Long reductions are cut into segments. Where segments and blocks lie
// depends on the shape only, never on the threads.
#include <algorithm>
#include <array>
#include <vector>

#include <tutti/core/kernels/lines.h>
#include <tutti/core/kernels/per_isa.h>
#include <tutti/core/kernels/reduce.h>
#include <tutti/core/parallel.h>

namespace tutti::kernels {
namespace {

struct Axis {
  std::int64_t size, in, out;  // strides in the operands
};
using AxisList = SmallVec<Axis, 6>;

/// A walk over some axes, outermost first, that starts at any position.
class Walk {
 public:
  Walk(const AxisList& axes, std::int64_t start) : axes_(axes), index_(axes.size()) {
    for (std::size_t d = axes.size(); d-- > 0;) {
      index_[d] = start % axes[d].size;
      start /= axes[d].size;
      in += index_[d] * axes[d].in;
      out += index_[d] * axes[d].out;
    }
  }
  void next() {
    for (std::size_t d = axes_.size(); d-- > 0;) {
      const Axis& a = axes_[d];
      const bool carry = ++index_[d] == a.size;
      const std::int64_t by = carry ? 1 - a.size : 1;
      in += by * a.in;
      out += by * a.out;
      if (!carry) return;
      index_[d] = 0;
    }
  }
  std::int64_t in = 0, out = 0;

 private:
  const AxisList& axes_;
  Shape index_;
};

std::int64_t count_of(const AxisList& axes) {
  std::int64_t n = 1;
  for (const Axis& a : axes) n *= a.size;
  return n;
}

void push_merged(AxisList& axes, Axis a) {
  if (a.size == 1) return;
  if (!axes.empty() && axes.back().in == a.in * a.size && axes.back().out == a.out * a.size)
    axes.back() = {axes.back().size * a.size, a.in, a.out};
  else
    axes.push_back(a);
}

/// A stride as a cost: a broadcast axis is the worst to walk innermost.
std::int64_t cost(std::int64_t stride) {
  return stride == 0 ? std::numeric_limits<std::int64_t>::max() : std::abs(stride);
}

bool costlier(const Axis& a, const Axis& b) { return cost(a.in) > cost(b.in); }

/// The axes of one reduction, coalesced; outermost first.
struct Plan {
  AxisList kept, reduced;
  Axis column{1, 0, 0};  // by_columns: the kept axis taken innermost, no longer in `kept`
  bool by_columns = false;

  Plan(const Tensor& x, const Shape& dims) {
    const IntArrayRef sizes = x.sizes(), strides = x.strides();
    AxisList all;
    std::int64_t out = 1;
    for (std::size_t d = sizes.size(); d-- > 0;) {
      const bool gone =
          std::find(dims.begin(), dims.end(), static_cast<std::int64_t>(d)) != dims.end();
      all.insert(all.begin(), {sizes[d], strides[d], gone ? 0 : out});
      if (!gone) out *= sizes[d];
    }
    AxisList inner;  // the reduced axes, in the order that suits memory
    for (std::size_t d = 0; d < all.size(); ++d) {
      const bool gone =
          std::find(dims.begin(), dims.end(), static_cast<std::int64_t>(d)) != dims.end();
      if (!gone)
        push_merged(kept, all[d]);
      else
        inner.insert(std::upper_bound(inner.begin(), inner.end(), all[d], costlier), all[d]);
    }
    for (const Axis& a : inner) push_merged(reduced, a);

    const auto best = std::max_element(kept.begin(), kept.end(), costlier);
    if (best != kept.end() && !reduced.empty() && cost(best->in) < cost(reduced.back().in)) {
      by_columns = true;
      column = *best;
      kept.erase(best);
    }
  }
};

constexpr std::int64_t block = 512;        // elements one run of accumulators folds
constexpr std::int64_t segment = 32768;    // elements of a long reduction that one task folds
constexpr std::int64_t tile = 128;         // columns
constexpr std::int64_t row_block = 32;     // rows added up one after the other
constexpr std::int64_t task_work = 16384;  // elements worth a thread

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Adds up partial results in pairs, pairs of pairs and so on, so that rounding errors grow with
/// the logarithm only.
template <class P>
class Cascade {
 public:
  void push(typename P::Acc v) {
    std::size_t level = 0;
    for (std::uint64_t c = count_++; c & 1; c >>= 1) v = P::merge(levels_[level++], v);
    levels_[level] = v;
  }
  typename P::Acc total() const {
    typename P::Acc v = P::start();
    std::size_t level = 0;
    for (std::uint64_t c = count_; c; c >>= 1, ++level)
      if (c & 1) v = P::merge(levels_[level], v);
    return v;
  }

 private:
  std::array<typename P::Acc, 64> levels_;
  std::uint64_t count_ = 0;
};

/// fold::run, and `rows` rows added to accumulators, for the instruction set in use.
template <class P, class T>
struct FoldRun {
  TUTTI_INLINE static void run(const T* x, std::int64_t n, std::int64_t step,
                               typename P::Acc* result) {
    *result = fold::run<P>(x, n, step);
  }
};
template <class P, class T>
struct AddRows {
  using Acc = typename P::Acc;
  TUTTI_INLINE static void run(Acc* __restrict acc, const T* __restrict x, std::int64_t n,
                               std::int64_t step, std::int64_t rows, std::int64_t row) {
    if (step != 1) {
      for (; rows > 0; --rows, x += row)
        for (std::int64_t i = 0; i < n; ++i) acc[i] = P::add(acc[i], x[i * step]);
      return;
    }
    for (; rows >= 4; rows -= 4, x += 4 * row) {  // one after the other, but acc is read once
      const T *x1 = x + row, *x2 = x1 + row, *x3 = x2 + row;
      for (std::int64_t i = 0; i < n; ++i)
        acc[i] = P::add(P::add(P::add(P::add(acc[i], x[i]), x1[i]), x2[i]), x3[i]);
    }
    for (; rows > 0; --rows, x += row)
      for (std::int64_t i = 0; i < n; ++i) acc[i] = P::add(acc[i], x[i]);
  }
};
/// Only floating point is worth several versions.
template <class Body, class T>
auto version_for() {
  if constexpr (std::is_floating_point_v<T>)
    return version<Body>();
  else
    return &Body::run;
}

template <class P, class T, class Out>
void rows(const T* x, Out* out, const Plan& p) {
  using Acc = typename P::Acc;
  AxisList outer = p.reduced;
  Axis run{1, 1, 0};
  if (!outer.empty()) {
    run = outer.back();
    outer.pop_back();
  }
  const std::int64_t per_run = ceil_div(run.size, block);
  const std::int64_t units = count_of(outer) * per_run, unit = ceil_div(run.size, per_run);
  const std::int64_t results = count_of(p.kept);
  if (p.reduced.empty() && p.kept.size() <= 1) {  // nothing to fold
    const std::int64_t step = p.kept.empty() ? 1 : p.kept[0].in;
    parallel_for(results, task_work, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        out[i] = static_cast<Out>(P::add(P::start(), x[i * step]));
    });
    return;
  }
  const bool cut = results < 64 && units * unit > 2 * segment;
  const std::int64_t units_per_segment = cut ? std::max<std::int64_t>(1, segment / unit) : units;
  const std::int64_t segments = ceil_div(units, units_per_segment);

  const auto fold_run = version_for<FoldRun<P, T>, T>();
  const auto fold = [&](const T* from, std::int64_t first, std::int64_t last) {
    Acc part;
    if (units == 1) {
      fold_run(from, run.size, run.in, &part);
      return part;
    }
    Cascade<P> cascade;
    Walk w(outer, first / per_run);
    std::int64_t b = first % per_run;
    for (std::int64_t u = first; u < last; ++u) {
      const std::int64_t start = b * block;
      fold_run(from + w.in + start * run.in, std::min(block, run.size - start), run.in, &part);
      cascade.push(part);
      if (++b == per_run) {
        b = 0;
        w.next();
      }
    }
    return cascade.total();
  };

  if (segments == 1) {
    const std::int64_t grain = std::max<std::int64_t>(1, task_work / (units * unit));
    parallel_for(results, grain, [&](std::int64_t begin, std::int64_t end) {
      Walk w(p.kept, begin);
      for (std::int64_t i = begin; i < end; ++i, w.next())
        out[w.out] = static_cast<Out>(fold(x + w.in, 0, units));
    });
    return;
  }
  std::vector<std::array<Acc, 1>> partial(static_cast<std::size_t>(results * segments));
  parallel_for(results * segments, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % segments * units_per_segment;
      partial[static_cast<std::size_t>(i)][0] = fold(x + Walk(p.kept, i / segments).in, first,
                                                     std::min(units, first + units_per_segment));
    }
  });
  Walk w(p.kept, 0);
  for (std::int64_t r = 0; r < results; ++r, w.next()) {
    Cascade<P> cascade;
    for (std::int64_t s = 0; s < segments; ++s)
      cascade.push(partial[static_cast<std::size_t>(r * segments + s)][0]);
    out[w.out] = static_cast<Out>(cascade.total());
  }
}

/// Cascade of n columns, at most a tile of them.
template <class P>
class TileCascade {
 public:
  using Acc = typename P::Acc;
  using Tile = std::array<Acc, static_cast<std::size_t>(tile)>;
  explicit TileCascade(std::int64_t n) : n_(n) {}
  /// Takes v; what it is afterwards means nothing.
  void push(Tile& v) {
    std::size_t level = 0;
    for (std::uint64_t c = count_++; c & 1; c >>= 1) merge(levels_[level++], v);
    if (level == levels_.size()) levels_.emplace_back();
    std::copy_n(v.begin(), n_, levels_[level].begin());
  }
  Tile total() const {
    Tile v;
    std::fill_n(v.begin(), n_, P::start());
    std::size_t level = 0;
    for (std::uint64_t c = count_; c; c >>= 1, ++level)
      if (c & 1) merge(levels_[level], v);
    return v;
  }

 private:
  void merge(const Tile& a, Tile& b) const {
    for (std::size_t i = 0; i < static_cast<std::size_t>(n_); ++i) b[i] = P::merge(a[i], b[i]);
  }
  std::int64_t n_;
  SmallVec<Tile, 8> levels_;
  std::uint64_t count_ = 0;
};

/// Folds rows first..last, `row` apart, of n columns at `from`, which are `column` apart. add_rows:
/// a version of AddRows.
template <class P, class T, class Add>
typename TileCascade<P>::Tile even_rows(Add add_rows, const T* from, std::int64_t n,
                                        std::int64_t column, std::int64_t row, std::int64_t first,
                                        std::int64_t last) {
  const std::int64_t group = P::rounds ? row_block : last - first;
  TileCascade<P> cascade(n);
  typename TileCascade<P>::Tile acc;
  for (std::int64_t r = first; r < last; r += group) {
    std::fill_n(acc.begin(), n, P::start());
    add_rows(acc.data(), from + r * row, n, column, std::min(group, last - r), row);
    if (last - first <= group) return acc;
    cascade.push(acc);
  }
  return cascade.total();
}

template <class P, class T, class Out>
void columns(const T* x, Out* out, const Plan& p) {
  using Tile = typename TileCascade<P>::Tile;
  const std::int64_t length = count_of(p.reduced);
  const std::int64_t tiles = ceil_div(p.column.size, tile), stripes = count_of(p.kept) * tiles;
  const std::int64_t width = std::min(tile, p.column.size);
  const bool cut = stripes < 16 && length > 2048;
  const std::int64_t rows_per_segment = cut ? std::max<std::int64_t>(512, segment / width) : length;
  const std::int64_t segments = ceil_div(length, rows_per_segment);

  const auto add_rows = version_for<AddRows<P, T>, T>();
  // Rows first..last of the columns that start at `from`.
  const auto fold = [&](const T* from, std::int64_t n, std::int64_t first, std::int64_t last) {
    if (p.reduced.size() == 1)
      return even_rows<P>(add_rows, from, n, p.column.in, p.reduced[0].in, first, last);
    const std::int64_t group = P::rounds ? row_block : last - first;
    TileCascade<P> cascade(n);
    Walk w(p.reduced, first);
    Tile acc;
    for (std::int64_t r = first; r < last;) {
      std::fill_n(acc.begin(), n, P::start());
      const std::int64_t stop = std::min(last, r + group);
      for (; r < stop; ++r, w.next()) add_rows(acc.data(), from + w.in, n, p.column.in, 1, 0);
      if (last - first <= group) return acc;
      cascade.push(acc);
    }
    return cascade.total();
  };
  // Calls f(first element, its place in out, columns) for stripe i.
  const auto stripe = [&](std::int64_t i, const auto& f) {
    const Walk w(p.kept, i / tiles);
    const std::int64_t c = i % tiles * tile;
    f(x + w.in + c * p.column.in, out + w.out + c * p.column.out,
      std::min(tile, p.column.size - c));
  };
  const auto store = [&](Out* to, const Tile& v, std::int64_t n) {
    for (std::int64_t c = 0; c < n; ++c)
      to[c * p.column.out] = static_cast<Out>(v[static_cast<std::size_t>(c)]);
  };

  if (segments == 1) {
    const std::int64_t grain = std::max<std::int64_t>(1, task_work / (length * width));
    parallel_for(stripes, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        stripe(i, [&](const T* from, Out* to, std::int64_t n) {
          store(to, fold(from, n, 0, length), n);
        });
    });
    return;
  }
  std::vector<Tile> partial(static_cast<std::size_t>(stripes * segments));
  parallel_for(stripes * segments, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % segments * rows_per_segment;
      stripe(i / segments, [&](const T* from, Out*, std::int64_t n) {
        partial[static_cast<std::size_t>(i)] =
            fold(from, n, first, std::min(length, first + rows_per_segment));
      });
    }
  });
  for (std::int64_t i = 0; i < stripes; ++i) {
    TileCascade<P> cascade(std::min(tile, p.column.size - i % tiles * tile));
    for (std::int64_t s = 0; s < segments; ++s)
      cascade.push(partial[static_cast<std::size_t>(i * segments + s)]);
    stripe(i, [&](const T*, Out* to, std::int64_t n) { store(to, cascade.total(), n); });
  }
}

/// What sums and products of T are stored as.
template <class T>
using SumOf = std::conditional_t<std::is_floating_point_v<T>, T, std::int64_t>;

template <template <class> class P, class Out, class T>
void reduce(const Tensor& x, const Tensor& out, const Attrs& a) {
  Out* const to = static_cast<Out*>(out.raw());
  if (x.numel() == 0) {
    std::fill(to, to + out.numel(), static_cast<Out>(P<T>::start()));
    return;
  }
  const Plan plan(x, a.dims);
  const T* const from = static_cast<const T*>(x.raw());
  if (plan.by_columns)
    columns<P<T>>(from, to, plan);
  else
    rows<P<T>>(from, to, plan);
}

template <template <class> class P>
void arg_extreme(const Tensor& x, const Tensor& out, const Attrs& a) {
  const std::size_t axis = static_cast<std::size_t>(a.dims[0]);
  const std::int64_t n = x.sizes()[axis], step = x.strides()[axis];
  Shape kept = x.sizes().shape();
  kept[axis] = 1;
  const Shape to_strides = contiguous_strides(kept);
  std::int64_t* const to = static_cast<std::int64_t*>(out.raw());
  dispatch_full(x.dtype(), [&]<class T>() {
    const T* const from = static_cast<const T*>(x.raw());
    Lines<2>(x.sizes(), axis, {x.strides(), to_strides}).parallel(2, [&](const auto& at) {
      const T* const line = from + at[0];
      const T best = fold::run<P<T>>(line, n, step);
      std::int64_t i = 0;
      while (line[i * step] != best && (best == best || line[i * step] == line[i * step])) ++i;
      to[at[1]] = i;
    });
  });
}

}  // namespace

template <class T>
void sum_rows(const T* x, std::int64_t count, std::int64_t rows, std::int64_t columns, T* out) {
  using P = fold::Sum<T>;
  const auto fold_run = version_for<FoldRun<P, T>, T>();
  const auto add_rows = version_for<AddRows<P, T>, T>();
  for (; count > 0; --count, x += rows * columns)
    if (columns == 1) {
      fold_run(x, rows, 1, out++);
    } else if (rows <= row_block) {
      std::fill_n(out, columns, T(0));
      add_rows(out, x, columns, 1, rows, columns);
      out += columns;
    } else {
      for (std::int64_t c = 0; c < columns; c += tile) {
        const std::int64_t n = std::min(tile, columns - c);
        const auto sums = even_rows<P>(add_rows, x + c, n, 1, columns, 0, rows);
        out = std::copy_n(sums.begin(), n, out);
      }
    }
}
template void sum_rows(const float*, std::int64_t, std::int64_t, std::int64_t, float*);
template void sum_rows(const double*, std::int64_t, std::int64_t, std::int64_t, double*);

void sum(Inputs in, Inputs out, const Attrs& a) {
  dispatch_full(in[0].dtype(),
                [&]<class T>() { reduce<fold::Sum, SumOf<T>, T>(in[0], out[0], a); });
}
void prod(Inputs in, Inputs out, const Attrs& a) {
  dispatch_full(in[0].dtype(),
                [&]<class T>() { reduce<fold::Prod, SumOf<T>, T>(in[0], out[0], a); });
}
void amax(Inputs in, Inputs out, const Attrs& a) {
  dispatch_full(in[0].dtype(), [&]<class T>() { reduce<fold::Max, T, T>(in[0], out[0], a); });
}
void amin(Inputs in, Inputs out, const Attrs& a) {
  dispatch_full(in[0].dtype(), [&]<class T>() { reduce<fold::Min, T, T>(in[0], out[0], a); });
}
void any(Inputs in, Inputs out, const Attrs& a) {
  dispatch_full(in[0].dtype(), [&]<class T>() { reduce<fold::Any, bool, T>(in[0], out[0], a); });
}
void all(Inputs in, Inputs out, const Attrs& a) {
  dispatch_full(in[0].dtype(), [&]<class T>() { reduce<fold::All, bool, T>(in[0], out[0], a); });
}
void argmax(Inputs in, Inputs out, const Attrs& a) { arg_extreme<fold::Max>(in[0], out[0], a); }
void argmin(Inputs in, Inputs out, const Attrs& a) { arg_extreme<fold::Min>(in[0], out[0], a); }

}  // namespace tutti::kernels
