// How a kernel finds the elements of N equally shaped tensors from their number: axes merged where
// memory allows, offsets in 32 bits, division by multiplication. What does not fit is cut into
// pieces, a launch each.
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <utility>

#include <tutti/core/tensor.h>

namespace tutti::cuda {

/// Division of 0 .. 2^31 - 1 by a number known before (Granlund and Montgomery, "Division by
/// invariant integers using multiplication", PLDI 1994).
struct FastDivision {
  std::uint32_t divisor = 1, magic = 1, shift = 0;
  FastDivision() = default;
  explicit FastDivision(std::uint32_t d) : divisor(d) {
    while (shift < 31 && (std::uint32_t{1} << shift) < d) ++shift;
    const std::uint64_t power = std::uint64_t{1} << shift;
    magic = static_cast<std::uint32_t>((power - d) * (std::uint64_t{1} << 32) / d + 1);
  }
  __device__ __forceinline__ std::uint32_t quotient(std::uint32_t n) const {
    const std::uint64_t high = (static_cast<std::uint64_t>(n) * magic) >> 32;
    return static_cast<std::uint32_t>((high + n) >> shift);
  }
};

inline constexpr int kMostAxes = 6;
inline constexpr std::int64_t kMostElements = std::numeric_limits<std::int32_t>::max();

/// Axes, innermost first, and the strides of N tensors in elements.
template <std::size_t N>
struct Layout {
  int axes = 0;
  FastDivision sizes[kMostAxes];
  std::int32_t strides[kMostAxes][N] = {};

  /// Where element `i` of each tensor stands. A loop, not unrolled: most layouts have one or two
  /// axes, and kernels stay small.
  __device__ __forceinline__ void find(std::uint32_t i, std::int32_t (&at)[N]) const {
    for (std::size_t k = 0; k < N; ++k) at[k] = 0;
    int d = 0;
    const int last = axes - 1;
#pragma unroll 1
    while (d < last) {
      const std::uint32_t q = sizes[d].quotient(i);
      const std::int32_t r = static_cast<std::int32_t>(i - q * sizes[d].divisor);
      for (std::size_t k = 0; k < N; ++k) at[k] += r * strides[d][k];
      i = q;
      ++d;
    }
    for (std::size_t k = 0; k < N; ++k) at[k] += static_cast<std::int32_t>(i) * strides[d][k];
  }
};

/// The axes of N tensors on the host, still of any size.
template <std::size_t N>
struct Axes {
  struct Axis {
    std::int64_t size;
    std::array<std::int64_t, N> strides;
  };
  SmallVec<Axis, 8> axes;  // innermost first
  std::array<std::int64_t, N> begin{};

  void add(std::int64_t size, const std::array<std::int64_t, N>& strides) {
    if (size != 1) axes.push_back({size, strides});
  }
  /// Orders axes by the strides of tensor 0, the smallest first.
  void order() {
    std::stable_sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) {
      return std::abs(a.strides[0]) < std::abs(b.strides[0]);
    });
  }
  void merge() {
    std::size_t kept = 0;
    for (std::size_t d = 1; d < axes.size(); ++d) {
      bool fits = true;
      for (std::size_t k = 0; k < N; ++k)
        fits = fits && axes[d].strides[k] == axes[kept].size * axes[kept].strides[k];
      if (fits)
        axes[kept].size *= axes[d].size;
      else
        axes[++kept] = axes[d];
    }
    if (!axes.empty()) axes.resize(kept + 1);
  }
  std::int64_t elements() const {
    std::int64_t n = 1;
    for (const Axis& a : axes) n *= a.size;
    return n;
  }
  bool fits() const {
    if (axes.size() > kMostAxes || elements() > kMostElements) return false;
    for (std::size_t k = 0; k < N; ++k) {
      std::int64_t reach = 0;
      for (const Axis& a : axes) reach += (a.size - 1) * std::abs(a.strides[k]);
      if (reach > kMostElements) return false;
    }
    return true;
  }
  Layout<N> layout() const {
    Layout<N> l;
    l.axes = static_cast<int>(axes.size());
    for (std::size_t d = 0; d < axes.size(); ++d) {
      l.sizes[d] = FastDivision(static_cast<std::uint32_t>(axes[d].size));
      for (std::size_t k = 0; k < N; ++k)
        l.strides[d][k] = static_cast<std::int32_t>(axes[d].strides[k]);
    }
    return l;
  }
  /// Whether all elements follow each other in every tensor.
  bool dense() const {
    if (axes.empty()) return true;
    if (axes.size() > 1) return false;
    for (std::size_t k = 0; k < N; ++k)
      if (axes[0].strides[k] != 1) return false;
    return true;
  }

  /// Calls f(axes) for pieces that fit: halves of the largest axis, or single steps of the
  /// outermost where there are too many.
  template <class F>
  void each_piece(const F& f) const {
    if (elements() == 0) return;
    if (fits()) return f(*this);
    if (axes.size() > kMostAxes) {
      Axes inner = *this;
      const Axis outer = inner.axes[inner.axes.size() - 1];
      inner.axes.resize(inner.axes.size() - 1);
      for (std::int64_t i = 0; i < outer.size; ++i) {
        inner.each_piece(f);
        for (std::size_t k = 0; k < N; ++k) inner.begin[k] += outer.strides[k];
      }
      return;
    }
    std::size_t widest = 0;
    for (std::size_t d = 1; d < axes.size(); ++d)
      if (axes[d].size > axes[widest].size) widest = d;
    Axes half = *this;
    half.axes[widest].size = axes[widest].size / 2;
    half.each_piece(f);
    for (std::size_t k = 0; k < N; ++k)
      half.begin[k] += half.axes[widest].size * axes[widest].strides[k];
    half.axes[widest].size = axes[widest].size - half.axes[widest].size;
    half.each_piece(f);
  }
};

/// The axes of equally shaped tensors, ordered and merged.
template <std::size_t N>
Axes<N> axes_of(const std::array<const Tensor*, N>& tensors) {
  Axes<N> out;
  const IntArrayRef sizes = tensors[0]->sizes();
  std::array<IntArrayRef, N> strides;
  for (std::size_t k = 0; k < N; ++k) strides[k] = tensors[k]->strides();
  for (std::size_t d = sizes.size(); d-- > 0;) {
    std::array<std::int64_t, N> s;
    for (std::size_t k = 0; k < N; ++k) s[k] = strides[k][d];
    out.add(sizes[d], s);
  }
  out.order();
  out.merge();
  return out;
}

}  // namespace tutti::cuda
