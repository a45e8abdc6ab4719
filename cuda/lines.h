// The lines of tensors along an axis, for kernels that work on a line each.
#pragma once
#include <algorithm>
#include <array>

#include <tutti/core/error.h>
#include <tutti/cuda/layout.h>

namespace tutti::cuda {

/// The lines of equally shaped tensors along an axis.
template <std::size_t N>
struct Lines {
  Axes<N> lines;
  std::int64_t length, steps[N];

  Lines(const std::array<const Tensor*, N>& x, std::int64_t axis, const char* op)
      : length(x[0]->sizes()[static_cast<std::size_t>(axis)]) {
    const IntArrayRef sizes = x[0]->sizes();
    for (std::size_t d = sizes.size(); d-- > 0;) {
      std::array<std::int64_t, N> s;
      for (std::size_t k = 0; k < N; ++k) s[k] = x[k]->strides()[d];
      if (static_cast<std::int64_t>(d) == axis)
        std::copy(s.begin(), s.end(), steps);
      else
        lines.add(sizes[d], s);
    }
    lines.merge();
    check<NotImplementedError>(lines.fits(), op, "expected fewer than 2^31 elements, got shape ",
                               sizes, "; work in parts");
  }
};

}  // namespace tutti::cuda
