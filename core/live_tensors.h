// How many tensors are alive, counted by every thread for itself, so that making one needs no
// locked instruction. A tensor may go on another thread than it came on; only the sum of all
// threads, detail::live_tensors(), means something.
#pragma once
#include <atomic>
#include <cstdint>

#include <tutti/core/ref.h>

namespace tutti::detail {

struct LivePart {
  std::atomic<std::int64_t> count{0};  // written by its own thread only
  LivePart* next = nullptr;
  enum : std::uint8_t { unlisted, listed, over } state = unlisted;
};
extern constinit thread_local LivePart live_part TUTTI_FAST_TLS;

/// On a thread that is not in the list yet, or no more.
void count_tensor_unlisted(std::int64_t by) noexcept;

inline void count_tensor(std::int64_t by) noexcept {
  LivePart& p = live_part;
  if (p.state != LivePart::listed) [[unlikely]]
    return count_tensor_unlisted(by);
  p.count.store(p.count.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

}  // namespace tutti::detail
