// Memory that the work after this will read. Where it comes from beyond the caches, kernels that
// compute more than they load fetch it along with their own operands, a line at a time, so that
// waiting and computing overlap. A hint: nothing depends on it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include <tutti/core/ref.h>

namespace tutti::kernels {

class Ahead {
 public:
  struct Range {
    const std::byte* begin;
    std::int64_t bytes;  // more than 0
  };
  static constexpr std::int64_t kLine = 64;

  /// `ranges` outlive it. `met`: what the work with this Ahead reads was fetched by the work
  /// before.
  Ahead(std::span<const Range> ranges, bool met) : left_(ranges), met_(met) {}
  bool met() const { return met_; }
  bool all_taken() const { return left_.empty(); }
  /// Where the next `bytes` to fetch begin, of a range that may end before; null if none is left.
  const std::byte* take(std::int64_t bytes) {
    if (left_.empty()) return nullptr;
    const std::byte* p = left_.front().begin + at_;
    at_ += bytes;
    if (at_ >= left_.front().bytes) {
      left_ = left_.subspan(1);
      at_ = 0;
    }
    return p;
  }

 private:
  std::span<const Range> left_;  // the first is being fetched
  std::int64_t at_ = 0;          // bytes of it that were taken
  bool met_;
};

/// What this thread's kernels fetch; null: nothing.
extern constinit thread_local Ahead* ahead TUTTI_FAST_TLS;

/// While it lives, this thread's kernels fetch what `a` says, and nothing afterwards.
class FetchAhead {
 public:
  explicit FetchAhead(Ahead& a) { ahead = &a; }
  ~FetchAhead() { ahead = nullptr; }
  FetchAhead(const FetchAhead&) = delete;
};

/// Bytes of the cache of that level, 2 or 3, of a usual size where the system does not say; a third
/// level is shared with other cores.
std::int64_t cache_bytes(int level);
/// For tests: another size of the third level; 0: its own again.
void set_last_cache_bytes(std::int64_t bytes);

}  // namespace tutti::kernels
