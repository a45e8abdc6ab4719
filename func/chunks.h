// Chunks: results that come in pieces along an axis, put together.
#pragma once
#include <optional>
#include <vector>

#include <tutti/core/ops.h>

namespace tutti::detail {

class Chunks {
 public:
  /// The axes have `total` elements altogether.
  explicit Chunks(std::int64_t total) : total_(total) {}
  /// The next `size` elements along axes[k] of result k; where there is no axis, the first chunk's
  /// value is the result.
  void add(Tensors piece, const std::vector<std::optional<std::int64_t>>& axes, std::int64_t size);
  Tensors join();

 private:
  std::int64_t total_, done_ = 0;
  std::vector<std::optional<std::int64_t>> axes_;
  Tensors results_;                          // whole, or undefined where pieces are collected
  std::vector<std::vector<Tensor>> pieces_;  // per result
};

}  // namespace tutti::detail
