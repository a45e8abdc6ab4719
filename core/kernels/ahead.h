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
  static constexpr std::int64_t kLine = 64;
  /// `count` lines, more than 0, each `step` bytes after the one before.
  struct Lines {
    const std::byte* begin = nullptr;
    std::int64_t count = 0, step = kLine;
  };
  /// Those of a piece of memory.
  static Lines lines(const std::byte* begin, std::int64_t bytes) {
    return {begin, (bytes + kLine - 1) / kLine};
  }

  /// `list` outlives it. `met`: what the work with this Ahead reads was fetched by the work before.
  Ahead(std::span<const Lines> list, bool met) : left_(list), met_(met) {}
  bool met() const { return met_; }
  bool all_taken() const { return left_.empty(); }
  /// The next `count` lines to fetch, of which the last ones may lie beyond what is to be fetched;
  /// none if nothing is left.
  Lines take(std::int64_t count) {
    if (left_.empty()) return {};
    const Lines& l = left_.front();
    const Lines taken{l.begin + at_ * l.step, count, l.step};
    at_ += count;
    if (at_ >= l.count) {
      left_ = left_.subspan(1);
      at_ = 0;
    }
    return taken;
  }

 private:
  std::span<const Lines> left_;  // the first is being fetched
  std::int64_t at_ = 0;          // lines of it that were taken
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
