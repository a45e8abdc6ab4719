// What the system says about its caches.
#include <algorithm>
#include <atomic>

#ifdef __linux__
#include <unistd.h>
#endif

#include <tutti/core/kernels/ahead.h>

namespace tutti::kernels {

constinit thread_local Ahead* ahead = nullptr;

namespace {
std::atomic<std::int64_t> g_last{0};
}

void set_last_cache_bytes(std::int64_t bytes) { g_last = bytes; }

std::int64_t cache_bytes(int level) {
  struct Sizes {
    std::int64_t second = 512 << 10, third = 16 << 20;
    Sizes() {
#ifdef _SC_LEVEL2_CACHE_SIZE
      if (const long n = sysconf(_SC_LEVEL2_CACHE_SIZE); n > 0) second = n;
      // Some count what the cores of the whole machine have, of which one reaches its part.
      if (const long n = sysconf(_SC_LEVEL3_CACHE_SIZE); n > 0) third = std::min(n, 32L << 20);
#endif
    }
  };
  static const Sizes sizes;
  if (level == 2) return sizes.second;
  const std::int64_t last = g_last.load(std::memory_order_relaxed);
  return last > 0 ? last : sizes.third;
}

}  // namespace tutti::kernels
