// Basics shared by all parts of the executor: fixed-width names, fatal errors, settings.
#pragma once
#include <cstdint>
#include <string>

namespace cudasim {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;

/// Exit status of a program that was stopped because it did something no GPU program may do.
inline constexpr int kFatalStatus = 77;
/// Exit status of a program that ended by itself, but with races, leaks or work never waited for.
inline constexpr int kReportStatus = 78;

/// Prints "cudasim: error: ..." and ends the process with kFatalStatus. printf-style.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char* format, ...);

/// Formats like printf.
[[gnu::format(printf, 1, 2)]] std::string text(const char* format, ...);

/// When queued work runs: as late as allowed, at once, or at random moments.
enum class StreamMode { kLazy, kEager, kRandom };

/// The order in which the warps of a block get their turn.
enum class WarpOrder { kForward, kReverse, kRandom };

/// Settings, read from the environment (see README.md).
struct Settings {
  StreamMode streams = StreamMode::kLazy;
  WarpOrder warps = WarpOrder::kForward;
  u64 seed = 1;
  bool races = true;
  bool leaks = true;
  bool perturb = false;  ///< move results of .approx instructions by up to 2 ulp
  bool stats = false;
  std::string coverage_file;
};
const Settings& settings();

/// A small generator (splitmix64) for everything that is drawn.
class Random {
 public:
  explicit Random(u64 seed) : state_(seed) {}
  u64 next() {
    state_ += 0x9e3779b97f4a7c15u;
    u64 z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  u64 state_;
};

}  // namespace cudasim
