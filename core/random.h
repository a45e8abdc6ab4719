// Random numbers: counter-based Philox4x32-10. A word depends only on (seed, draw, member,
// element), never on order, thread count or chunking: key = seed, counter = (draw, flat member
// index over the vmap levels that ask for different draws, element). A Generator only hands out
// draw numbers.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace tutti {

/// A source of random draws: a seed and a counter of draws made. Copies share the counter.
/// Thread-safe; a thread that needs reproducible draws uses its own.
class Generator {
 public:
  explicit Generator(std::uint64_t seed = 0);
  void manual_seed(std::uint64_t seed);
  std::uint64_t seed() const;
  /// Draws made so far; set_draws continues from a saved place.
  std::uint64_t draws() const;
  void set_draws(std::uint64_t n);
  struct Draw {
    std::uint64_t seed, number;
  };
  /// The next draw. Inside a chunked vmap every chunk gets the same sequence of draws.
  Draw next();
  bool is_same(const Generator& o) const { return state_ == o.state_; }
  /// How many generators share this one's counter, itself included.
  long sharers() const { return state_.use_count(); }

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// The generator used where none is given.
Generator default_generator();
/// Seeds the default generator, as torch.manual_seed.
void manual_seed(std::uint64_t seed);
/// (seed, draws) of the default generator.
std::array<std::uint64_t, 2> get_rng_state();
void set_rng_state(const std::array<std::uint64_t, 2>& state);

/// The draws made during one chunk of a vmap, replayed by the next chunks; or, if `recording`,
/// those a compiled function will make: they get numbers of the tape's and move no generator on.
struct DrawTape {
  struct Entry {
    Generator generator;
    Generator::Draw draw;
  };
  std::vector<Entry> entries;
  std::size_t at = 0;
  bool recording = false;
};

/// Four 32-bit words of Philox4x32-10 (Salmon et al., SC 2011).
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::uint64_t key);

}  // namespace tutti
