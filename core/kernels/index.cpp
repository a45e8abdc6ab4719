// Kernels that move elements by index. All walk the index tensor line by line along its last axis,
// in row-major order.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include <tutti/core/kernels/copy.h>
#include <tutti/core/kernels/index.h>
#include <tutti/core/kernels/loops.h>
#include <tutti/core/parallel.h>

namespace tutti::kernels {
namespace {

/// Rows along the last axis of N operands that share sizes; strides in elements.
template <std::size_t N>
struct Rows {
  using Offsets = std::array<std::int64_t, N>;
  Shape sizes;
  std::array<Shape, N> strides;

  explicit Rows(IntArrayRef s) : sizes(s.shape()) {
    if (sizes.empty()) sizes.push_back(1);
  }
  void operand(std::size_t k, IntArrayRef s) {
    strides[k] = s.shape();
    if (strides[k].empty()) strides[k].push_back(0);
  }
  std::int64_t length() const { return sizes.back(); }
  std::int64_t step(std::size_t k) const { return strides[k].back(); }
  /// Number of lines below one index of the first `axes` axes.
  std::int64_t below(std::size_t axes) const {
    std::int64_t n = 1;
    for (std::size_t d = axes; d + 1 < sizes.size(); ++d) n *= sizes[d];
    return n;
  }

  /// Calls f(offsets) for the lines begin..end.
  template <class F>
  void visit(std::int64_t begin, std::int64_t end, const F& f) const {
    const std::size_t outer = sizes.size() - 1;
    Shape at(outer, 0);
    Offsets offsets{};
    std::int64_t rest = begin;
    for (std::size_t d = outer; d-- > 0;) {
      at[d] = rest % sizes[d];
      rest /= sizes[d];
      for (std::size_t k = 0; k < N; ++k) offsets[k] += at[d] * strides[k][d];
    }
    for (std::int64_t line = begin; line < end; ++line) {
      f(offsets);
      for (std::size_t d = outer; d-- > 0;) {
        for (std::size_t k = 0; k < N; ++k) offsets[k] += strides[k][d];
        if (++at[d] < sizes[d]) break;
        for (std::size_t k = 0; k < N; ++k) offsets[k] -= sizes[d] * strides[k][d];
        at[d] = 0;
      }
    }
  }
};

Shape without(IntArrayRef strides, std::int64_t axis) {
  Shape s = strides.shape();
  if (!s.empty()) s[static_cast<std::size_t>(axis)] = 0;
  return s;
}

/// Size and stride along the axis that is indexed; a 0-d tensor counts as one element.
struct Along {
  std::int64_t size = 1, stride = 0;
  Along(const Tensor& x, std::int64_t axis) {
    if (x.dim() == 0) return;
    size = x.sizes()[static_cast<std::size_t>(axis)];
    stride = x.strides()[static_cast<std::size_t>(axis)];
  }
  std::int64_t offset(std::int64_t i) const { return (i < 0 ? i + size : i) * stride; }
};

/// Calls f with an unsigned integer of x's element size, for kernels that only move elements.
template <class F>
void by_size(const Tensor& x, const F& f) {
  switch (x.element_size()) {
    case 1:
      return f.template operator()<std::uint8_t>();
    case 2:
      return f.template operator()<std::uint16_t>();
    case 4:
      return f.template operator()<std::uint32_t>();
    default:
      return f.template operator()<std::uint64_t>();
  }
}

/// Calls line(out, src, index) for each line of the index tensor. Indices along the axes before
/// `axis` select disjoint parts of out, which is where the work is divided, so that the order of
/// writes to one element is fixed.
template <class T, class F>
void scatter_lines(const Tensor& out, const Tensor& index, const Tensor& src, std::int64_t axis,
                   const F& line) {
  Rows<3> lines(index.sizes());
  lines.operand(0, without(out.strides(), axis));
  lines.operand(1, index.strides());
  lines.operand(2, src.defined() ? src.strides() : IntArrayRef(Shape(index.sizes().size(), 0)));
  const std::int64_t parts =
      lines.below(0) / std::max<std::int64_t>(lines.below(static_cast<std::size_t>(axis)), 1);
  const std::int64_t each = lines.below(static_cast<std::size_t>(axis));
  const Along along(out, axis);
  T* o = static_cast<T*>(out.raw());
  const auto* ix = static_cast<const std::int64_t*>(index.raw());
  const T* s = src.defined() ? static_cast<const T*>(src.raw()) : nullptr;
  parallel_for(parts, kCheapGrain / (each * lines.length() + 1) + 1,
               [&](std::int64_t begin, std::int64_t end) {
                 lines.visit(begin * each, end * each, [&](const Rows<3>::Offsets& at) {
                   line(lines, along, o + at[0], ix + at[1], s + at[2]);
                 });
               });
}

}  // namespace

std::pair<std::int64_t, std::int64_t> index_range(const Tensor& x,
                                                  std::optional<std::int64_t> ignored) {
  if (x.numel() == 0) return {0, -1};
  Shape sizes = x.sizes().shape();  // what is repeated need not be looked at again
  for (std::size_t d = 0; d < sizes.size(); ++d)
    if (x.strides()[d] == 0) sizes[d] = 1;
  Rows<1> lines(sizes);
  lines.operand(0, x.strides());
  const auto* ix = static_cast<const std::int64_t*>(x.raw());
  using Limits = std::numeric_limits<std::int64_t>;
  std::int64_t low = Limits::max(), high = Limits::min();
  lines.visit(0, lines.below(0), [&](const Rows<1>::Offsets& at) {
    const std::int64_t* p = ix + at[0];
    const std::int64_t n = lines.length(), step = lines.step(0);
    if (ignored) {
      for (std::int64_t j = 0; j < n; ++j) {
        const std::int64_t i = p[j * step];
        low = std::min(low, i == *ignored ? Limits::max() : i);
        high = std::max(high, i == *ignored ? Limits::min() : i);
      }
    } else {
      for (std::int64_t j = 0; j < n; ++j) {
        low = std::min(low, p[j * step]);
        high = std::max(high, p[j * step]);
      }
    }
  });
  if (low > high) return {0, -1};
  return {low, high};
}

void gather(const Tensor& out, const Tensor& x, const Tensor& index, std::int64_t axis) {
  if (out.numel() == 0) return;
  Rows<3> lines(index.sizes());
  lines.operand(0, out.strides());
  lines.operand(1, index.strides());
  lines.operand(2, without(x.strides(), axis));
  const Along along(x, axis);
  by_size(x, [&]<class T>() {
    T* o = static_cast<T*>(out.raw());
    const auto* ix = static_cast<const std::int64_t*>(index.raw());
    const T* s = static_cast<const T*>(x.raw());
    const std::int64_t n = lines.length(), index_step = lines.step(1), step = lines.step(2);
    parallel_for(lines.below(0), kCheapGrain / n + 1, [&](std::int64_t begin, std::int64_t end) {
      lines.visit(begin, end, [&](const Rows<3>::Offsets& at) {
        T* to = o + at[0];
        const std::int64_t* i = ix + at[1];
        const T* from = s + at[2];
        if (index_step != 0 || n == 1) {
          for (std::int64_t j = 0; j < n; ++j)
            to[j] = from[j * step + along.offset(i[j * index_step])];
          return;
        }
        from += along.offset(*i);
        if (step == 1)
          std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
        else
          for (std::int64_t j = 0; j < n; ++j) to[j] = from[j * step];
      });
    });
  });
}

void scatter(const Tensor& out, const Tensor& index, const Tensor& src, Scalar value,
             std::int64_t axis) {
  if (index.numel() == 0) return;
  if (!src.defined()) {
    dispatch(out.dtype(), [&]<class T>() {
      const T v = value.to<T>();
      scatter_lines<T>(
          out, index, src, axis,
          [v](const Rows<3>& l, const Along& along, T* to, const std::int64_t* i, const T*) {
            for (std::int64_t j = 0, n = l.length(); j < n; ++j)
              to[j * l.step(0) + along.offset(i[j * l.step(1)])] = v;
          });
    });
    return;
  }
  by_size(out, [&]<class T>() {
    scatter_lines<T>(
        out, index, src, axis,
        [](const Rows<3>& l, const Along& along, T* to, const std::int64_t* i, const T* from) {
          const std::int64_t n = l.length();
          if (l.step(1) == 0 && l.step(0) == 1 && l.step(2) == 1) {
            std::memcpy(to + along.offset(*i), from, static_cast<std::size_t>(n) * sizeof(T));
            return;
          }
          for (std::int64_t j = 0; j < n; ++j)
            to[j * l.step(0) + along.offset(i[j * l.step(1)])] = from[j * l.step(2)];
        });
  });
}

void scatter_add(const Tensor& out, const Tensor& index, const Tensor& src, std::int64_t axis) {
  if (index.numel() == 0) return;
  auto add = []<class T>(T a, T b) {
    if constexpr (std::is_same_v<T, bool>)
      return a || b;
    else if constexpr (std::is_integral_v<T>)  // wraps around
      return static_cast<T>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
    else
      return T(a + b);
  };
  dispatch(out.dtype(), [&]<class T>() {
    scatter_lines<T>(
        out, index, src, axis,
        [add](const Rows<3>& l, const Along& along, T* to, const std::int64_t* i, const T* from) {
          const std::int64_t n = l.length();
          if (l.step(1) == 0 && l.step(0) == 1 && l.step(2) == 1) {
            T* __restrict t = to + along.offset(*i);
            const T* __restrict f = from;
            for (std::int64_t j = 0; j < n; ++j) t[j] = add(t[j], f[j]);
            return;
          }
          for (std::int64_t j = 0; j < n; ++j) {
            T& t = to[j * l.step(0) + along.offset(i[j * l.step(1)])];
            t = add(t, from[j * l.step(2)]);
          }
        });
  });
}

void ravel_step(const Tensor& out, const Tensor& index, std::int64_t size) {
  using I = std::int64_t;
  map<I, I, I>(
      kCheapGrain, [size](I sum, I i) { return sum * size + (i < 0 ? i + size : i); }, out, out,
      index);
}

void one_hot(const Tensor& out, const Tensor& index) {
  fill(out, 0);
  Rows<1> lines(index.sizes());
  lines.operand(0, index.strides());
  const auto* ix = static_cast<const std::int64_t*>(index.raw());
  auto* row = static_cast<std::int64_t*>(out.raw());
  const std::int64_t classes = out.sizes().back();
  if (index.numel() == 0) return;
  lines.visit(0, lines.below(0), [&](const Rows<1>::Offsets& at) {
    for (std::int64_t j = 0; j < lines.length(); ++j, row += classes)
      row[ix[at[0] + j * lines.step(0)]] = 1;
  });
}

namespace {

/// Calls f(line, j) for each nonzero element: line-th line, j-th place in it.
template <class F>
void each_nonzero(const Tensor& x, const F& f) {
  if (x.numel() == 0) return;
  Rows<1> lines(x.sizes());
  lines.operand(0, x.strides());
  dispatch(x.dtype(), [&]<class T>() {
    const T* p = static_cast<const T*>(x.raw());
    std::int64_t line = 0;
    lines.visit(0, lines.below(0), [&](const Rows<1>::Offsets& at) {
      for (std::int64_t j = 0; j < lines.length(); ++j)
        if (p[at[0] + j * lines.step(0)] != T(0)) f(line, j);
      ++line;
    });
  });
}

}  // namespace

std::int64_t count_nonzero(const Tensor& x) {
  std::int64_t n = 0;
  each_nonzero(x, [&n](std::int64_t, std::int64_t) { ++n; });
  return n;
}

void nonzero(const Tensor& out, const Tensor& x) {
  const IntArrayRef sizes = x.sizes();
  const std::size_t rank = sizes.size();
  auto* row = static_cast<std::int64_t*>(out.raw());
  if (rank == 0) return;
  each_nonzero(x, [&](std::int64_t line, std::int64_t j) {
    for (std::size_t d = rank - 1; d-- > 0;) {
      row[d] = line % sizes[d];
      line /= sizes[d];
    }
    row[rank - 1] = j;
    row += rank;
  });
}

}  // namespace tutti::kernels
