// What the system says about its caches.
#include <algorithm>

#ifdef __linux__
#include <unistd.h>
#endif

#include <tutti/core/kernels/ahead.h>

namespace tutti::kernels {

constinit thread_local Ahead* ahead = nullptr;

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
  return level == 2 ? sizes.second : sizes.third;
}

}  // namespace tutti::kernels
