// Lines: the walk of kernels that work along one axis. It visits every position of the other axes
// and gives the offset of the line that starts there in each operand.
#pragma once
#include <algorithm>
#include <array>

#include <tutti/core/kernels/loops.h>
#include <tutti/core/parallel.h>
#include <tutti/core/tensor.h>

namespace tutti::kernels {

template <std::size_t N>
class Lines {
 public:
  /// Lines along `axis` of operands with these sizes and strides (all of the same rank).
  Lines(IntArrayRef sizes, std::size_t axis, const std::array<IntArrayRef, N>& strides) {
    length_ = sizes[axis];
    for (std::size_t d = 0; d < sizes.size(); ++d) {
      if (d == axis || sizes[d] == 1) continue;
      sizes_.push_back(sizes[d]);
      for (std::size_t k = 0; k < N; ++k) strides_[k].push_back(strides[k][d]);
      count_ *= sizes[d];
    }
  }

  /// Calls f(offsets) for each line, several lines at once if they are long. f must not throw.
  template <class F>
  void parallel(std::int64_t cost_per_element, F&& f) const {
    const std::int64_t cost = std::max<std::int64_t>(1, length_ * cost_per_element);
    parallel_for(count_, std::max<std::int64_t>(1, kCheapGrain / cost),
                 [&](std::int64_t begin, std::int64_t end) { walk(begin, end, f); });
  }
  std::int64_t count() const { return count_; }
  /// Calls f(offsets) for the lines begin..end, one after the other.
  template <class F>
  void walk(std::int64_t begin, std::int64_t end, F&& f) const {
    std::array<std::int64_t, N> at{};
    Shape index(sizes_.size());
    std::int64_t rest = begin;
    for (std::size_t d = sizes_.size(); d-- > 0;) {
      index[d] = rest % sizes_[d];
      rest /= sizes_[d];
      for (std::size_t k = 0; k < N; ++k) at[k] += index[d] * strides_[k][d];
    }
    for (std::int64_t i = begin; i < end; ++i) {
      f(at);
      for (std::size_t d = sizes_.size(); d-- > 0;) {
        const bool carry = ++index[d] == sizes_[d];
        for (std::size_t k = 0; k < N; ++k) at[k] += (carry ? 1 - sizes_[d] : 1) * strides_[k][d];
        if (!carry) break;
        index[d] = 0;
      }
    }
  }

 private:
  Shape sizes_;
  std::array<Shape, N> strides_;
  std::int64_t count_ = 1, length_ = 1;
};

/// Calls f.operator()<T>() with the element type; for kernels that never see halves.
template <class F>
void dispatch_full(DType t, F&& f) {
  dispatch(t, [&]<class T>() {
    if constexpr (!std::is_same_v<T, Half> && !std::is_same_v<T, BFloat16>)
      f.template operator()<T>();
  });
}

}  // namespace tutti::kernels
