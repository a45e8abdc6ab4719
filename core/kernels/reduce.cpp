// Reductions. Two ways through memory: `rows`, when the reduced axes are the inner ones (each
// result folds runs of elements), and `columns`, when a kept axis is the inner one (rows of results
// take up rows of elements). Long reductions are cut into segments. Where segments and blocks lie
// depends on the shape only, never on the threads. All of that is the same for every element type
// and fold, which are functions behind a Kind: one copy of the code.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
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
constexpr std::int64_t kLargest = 8;       // bytes of an accumulator

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// A reduction of elements of one type, as loops over plain memory: walking, cutting and adding up
/// in pairs, which is most of the code, is the same for all. Results are its accumulators, or
/// numbers of their size that mean the same (int64 for an unsigned sum).
struct Kind {
  std::int64_t element, value;  // bytes of an element and of an accumulator
  bool rounds;
  void (*fold)(const void* x, std::int64_t n, std::int64_t step, void* result);
  /// Adds `rows` rows of n elements, `row` apart, to n accumulators.
  void (*add_rows)(void* acc, const void* x, std::int64_t n, std::int64_t step, std::int64_t rows,
                   std::int64_t row);
  void (*start)(void* acc, std::int64_t n);
  void (*merge)(const void* a, void* b, std::int64_t n);  // a comes first; into b
};

template <class P, class T>
struct FoldRun {
  TUTTI_INLINE static void run(const void* x, std::int64_t n, std::int64_t step, void* result) {
    *static_cast<typename P::Acc*>(result) = fold::run<P>(static_cast<const T*>(x), n, step);
  }
};
template <class P, class T>
struct AddRows {
  using Acc = typename P::Acc;
  TUTTI_INLINE static void run(void* acc, const void* x, std::int64_t n, std::int64_t step,
                               std::int64_t rows, std::int64_t row) {
    add(static_cast<Acc*>(acc), static_cast<const T*>(x), n, step, rows, row);
  }
  TUTTI_INLINE static void add(Acc* __restrict acc, const T* __restrict x, std::int64_t n,
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

template <class P, class T>
Kind kind() {
  using Acc = typename P::Acc;
  static_assert(sizeof(Acc) <= kLargest);
  return {.element = sizeof(T),
          .value = sizeof(Acc),
          .rounds = P::rounds,
          .fold = version_for<FoldRun<P, T>, T>(),
          .add_rows = version_for<AddRows<P, T>, T>(),
          .start = [](void* acc,
                      std::int64_t n) { std::fill_n(static_cast<Acc*>(acc), n, P::start()); },
          .merge =
              [](const void* a, void* b, std::int64_t n) {
                const Acc* const from = static_cast<const Acc*>(a);
                Acc* const to = static_cast<Acc*>(b);
                for (std::int64_t i = 0; i < n; ++i) to[i] = P::merge(from[i], to[i]);
              }};
}

/// Room for `n` accumulators of any kind.
template <std::int64_t n>
struct Values {
  alignas(kLargest) std::byte bytes[static_cast<std::size_t>(n * kLargest)];
};

/// Adds up partial results, of n accumulators each, in pairs, pairs of pairs and so on, so that
/// rounding errors grow with the logarithm only.
template <std::int64_t most>
class Cascade {
 public:
  Cascade(const Kind& kind, std::int64_t n) : kind_(kind), n_(n) {}
  /// Takes v; what it is afterwards means nothing.
  void push(Values<most>& v) {
    std::size_t level = 0;
    for (std::uint64_t c = count_++; c & 1; c >>= 1)
      kind_.merge(levels_[level++].bytes, v.bytes, n_);
    if constexpr (most == 1) {
      levels_[level] = v;
    } else {
      if (level == levels_.size()) levels_.emplace_back();
      std::memcpy(levels_[level].bytes, v.bytes, static_cast<std::size_t>(n_ * kind_.value));
    }
  }
  void total(void* sums) const {
    kind_.start(sums, n_);
    std::size_t level = 0;
    for (std::uint64_t c = count_; c; c >>= 1, ++level)
      if (c & 1) kind_.merge(levels_[level].bytes, sums, n_);
  }

 private:
  const Kind& kind_;
  std::int64_t n_;
  std::conditional_t<most == 1, std::array<Values<most>, 64>, SmallVec<Values<most>, 8>> levels_;
  std::uint64_t count_ = 0;
};

void rows(const Kind& kind, const std::byte* x, std::byte* out, const Plan& p) {
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
      std::byte* const to = out + begin * kind.value;
      kind.start(to, end - begin);
      kind.add_rows(to, x + begin * step * kind.element, end - begin, step, 1, 0);
    });
    return;
  }
  const bool cut = results < 64 && units * unit > 2 * segment;
  const std::int64_t units_per_segment = cut ? std::max<std::int64_t>(1, segment / unit) : units;
  const std::int64_t segments = ceil_div(units, units_per_segment);

  const auto fold = [&](const std::byte* from, std::int64_t first, std::int64_t last,
                        void* result) {
    if (units == 1) {
      kind.fold(from, run.size, run.in, result);
      return;
    }
    Cascade<1> cascade(kind, 1);
    Walk w(outer, first / per_run);
    std::int64_t b = first % per_run;
    for (std::int64_t u = first; u < last; ++u) {
      const std::int64_t start = b * block;
      Values<1> part;
      kind.fold(from + (w.in + start * run.in) * kind.element, std::min(block, run.size - start),
                run.in, part.bytes);
      cascade.push(part);
      if (++b == per_run) {
        b = 0;
        w.next();
      }
    }
    cascade.total(result);
  };

  if (segments == 1) {
    const std::int64_t grain = std::max<std::int64_t>(1, task_work / (units * unit));
    parallel_for(results, grain, [&](std::int64_t begin, std::int64_t end) {
      Walk w(p.kept, begin);
      for (std::int64_t i = begin; i < end; ++i, w.next())
        fold(x + w.in * kind.element, 0, units, out + w.out * kind.value);
    });
    return;
  }
  std::vector<Values<1>> partial(static_cast<std::size_t>(results * segments));
  parallel_for(results * segments, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % segments * units_per_segment;
      fold(x + Walk(p.kept, i / segments).in * kind.element, first,
           std::min(units, first + units_per_segment), partial[static_cast<std::size_t>(i)].bytes);
    }
  });
  Walk w(p.kept, 0);
  for (std::int64_t r = 0; r < results; ++r, w.next()) {
    Cascade<1> cascade(kind, 1);
    for (std::int64_t s = 0; s < segments; ++s)
      cascade.push(partial[static_cast<std::size_t>(r * segments + s)]);
    cascade.total(out + w.out * kind.value);
  }
}

using Tile = Values<tile>;  // of columns

/// Folds rows first..last, `row` apart, of n columns at `from`, which are `column` apart.
void even_rows(const Kind& kind, const std::byte* from, std::int64_t n, std::int64_t column,
               std::int64_t row, std::int64_t first, std::int64_t last, void* sums) {
  const std::int64_t group = kind.rounds ? row_block : last - first;
  const auto add = [&](std::int64_t r, void* acc) {
    kind.start(acc, n);
    kind.add_rows(acc, from + r * row * kind.element, n, column, std::min(group, last - r), row);
  };
  if (last - first <= group) {
    add(first, sums);
    return;
  }
  Cascade<tile> cascade(kind, n);
  Tile acc;
  for (std::int64_t r = first; r < last; r += group) {
    add(r, acc.bytes);
    cascade.push(acc);
  }
  cascade.total(sums);
}

/// Puts n numbers of `size` bytes `step` apart.
void store(std::byte* to, std::int64_t step, const std::byte* from, std::int64_t n,
           std::int64_t size) {
  if (step == 1) {
    std::memcpy(to, from, static_cast<std::size_t>(n * size));
    return;
  }
  for (; n > 0; --n, to += step * size, from += size)
    std::memcpy(to, from, static_cast<std::size_t>(size));
}

void columns(const Kind& kind, const std::byte* x, std::byte* out, const Plan& p) {
  const std::int64_t length = count_of(p.reduced);
  const std::int64_t tiles = ceil_div(p.column.size, tile), stripes = count_of(p.kept) * tiles;
  const std::int64_t width = std::min(tile, p.column.size);
  const bool cut = stripes < 16 && length > 2048;
  const std::int64_t rows_per_segment = cut ? std::max<std::int64_t>(512, segment / width) : length;
  const std::int64_t segments = ceil_div(length, rows_per_segment);

  // Rows first..last of the columns that start at `from`.
  const auto fold = [&](const std::byte* from, std::int64_t n, std::int64_t first,
                        std::int64_t last, Tile& sums) {
    if (p.reduced.size() == 1) {
      even_rows(kind, from, n, p.column.in, p.reduced[0].in, first, last, sums.bytes);
      return;
    }
    const std::int64_t group = kind.rounds ? row_block : last - first;
    Cascade<tile> cascade(kind, n);
    Walk w(p.reduced, first);
    for (std::int64_t r = first; r < last;) {
      kind.start(sums.bytes, n);
      const std::int64_t stop = std::min(last, r + group);
      for (; r < stop; ++r, w.next())
        kind.add_rows(sums.bytes, from + w.in * kind.element, n, p.column.in, 1, 0);
      if (last - first <= group) return;
      cascade.push(sums);
    }
    cascade.total(sums.bytes);
  };
  // Calls f(first element, its place in out, columns) for stripe i.
  const auto stripe = [&](std::int64_t i, const auto& f) {
    const Walk w(p.kept, i / tiles);
    const std::int64_t c = i % tiles * tile;
    f(x + (w.in + c * p.column.in) * kind.element, out + (w.out + c * p.column.out) * kind.value,
      std::min(tile, p.column.size - c));
  };

  if (segments == 1) {
    const std::int64_t grain = std::max<std::int64_t>(1, task_work / (length * width));
    parallel_for(stripes, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        stripe(i, [&](const std::byte* from, std::byte* to, std::int64_t n) {
          Tile sums;
          fold(from, n, 0, length, sums);
          store(to, p.column.out, sums.bytes, n, kind.value);
        });
    });
    return;
  }
  std::vector<Tile> partial(static_cast<std::size_t>(stripes * segments));
  parallel_for(stripes * segments, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % segments * rows_per_segment;
      stripe(i / segments, [&](const std::byte* from, std::byte*, std::int64_t n) {
        fold(from, n, first, std::min(length, first + rows_per_segment),
             partial[static_cast<std::size_t>(i)]);
      });
    }
  });
  for (std::int64_t i = 0; i < stripes; ++i)
    stripe(i, [&](const std::byte*, std::byte* to, std::int64_t n) {
      Cascade<tile> cascade(kind, n);
      for (std::int64_t s = 0; s < segments; ++s)
        cascade.push(partial[static_cast<std::size_t>(i * segments + s)]);
      Tile sums;
      cascade.total(sums.bytes);
      store(to, p.column.out, sums.bytes, n, kind.value);
    });
}

/// By the fold P of the operand's elements.
template <template <class> class P>
void reduce(Inputs in, Inputs out, const Attrs& a) {
  const Tensor& x = in[0];
  Kind kind;
  dispatch_full(x.dtype(), [&]<class T>() { kind = kernels::kind<P<T>, T>(); });
  if (x.numel() == 0) {
    kind.start(out[0].raw(), out[0].numel());
    return;
  }
  const Plan plan(x, a.dims);
  (plan.by_columns ? columns : rows)(kind, static_cast<const std::byte*>(x.raw()),
                                     static_cast<std::byte*>(out[0].raw()), plan);
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
  const Kind sum = kind<fold::Sum<T>, T>();
  for (; count > 0; --count, x += rows * columns) {
    if (columns == 1) sum.fold(x, rows, 1, out);
    for (std::int64_t c = 0; c < columns && columns > 1;) {
      const std::int64_t n = rows <= row_block ? columns : std::min(tile, columns - c);
      even_rows(sum, reinterpret_cast<const std::byte*>(x + c), n, 1, columns, 0, rows, out + c);
      c += n;
    }
    out += columns;
  }
}
template void sum_rows(const float*, std::int64_t, std::int64_t, std::int64_t, float*);
template void sum_rows(const double*, std::int64_t, std::int64_t, std::int64_t, double*);

void sum(Inputs in, Inputs out, const Attrs& a) { reduce<fold::Sum>(in, out, a); }
void prod(Inputs in, Inputs out, const Attrs& a) { reduce<fold::Prod>(in, out, a); }
void amax(Inputs in, Inputs out, const Attrs& a) { reduce<fold::Max>(in, out, a); }
void amin(Inputs in, Inputs out, const Attrs& a) { reduce<fold::Min>(in, out, a); }
void any(Inputs in, Inputs out, const Attrs& a) { reduce<fold::Any>(in, out, a); }
void all(Inputs in, Inputs out, const Attrs& a) { reduce<fold::All>(in, out, a); }
void argmax(Inputs in, Inputs out, const Attrs& a) { arg_extreme<fold::Max>(in[0], out[0], a); }
void argmin(Inputs in, Inputs out, const Attrs& a) { arg_extreme<fold::Min>(in[0], out[0], a); }

}  // namespace tutti::kernels
