// Generators: they hand out draw numbers; kernels/random.cpp turns (seed, draw) into words.
#include <algorithm>

#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/random.h>
#include <tutti/core/random.h>

namespace tutti {

struct Generator::State {
  explicit State(std::uint64_t s) : seed(s) {}
  std::atomic<std::uint64_t> seed;
  std::atomic<std::uint64_t> draws{0};
};

Generator::Generator(std::uint64_t seed) : state_(std::make_shared<State>(seed)) {}

void Generator::manual_seed(std::uint64_t seed) {
  state_->seed = seed;
  state_->draws = 0;
}

std::uint64_t Generator::seed() const { return state_->seed; }
std::uint64_t Generator::draws() const { return state_->draws; }
void Generator::set_draws(std::uint64_t n) { state_->draws = n; }

Generator::Draw Generator::next() {
  DrawTape* tape = thread_state().tape;
  if (tape && tape->at < tape->entries.size() && is_same(tape->entries[tape->at].generator))
    return tape->entries[tape->at++].draw;
  const bool recording = tape && tape->recording;
  const Draw draw{state_->seed, recording ? tape->entries.size() : state_->draws.fetch_add(1)};
  if (tape) {
    const auto here = tape->entries.begin() + static_cast<std::ptrdiff_t>(tape->at++);
    tape->entries.insert(here, {*this, draw});
  }
  return draw;
}

Generator default_generator() {
  static const Generator generator;
  return generator;
}

void manual_seed(std::uint64_t seed) { default_generator().manual_seed(seed); }

std::array<std::uint64_t, 2> get_rng_state() {
  const Generator g = default_generator();
  return {g.seed(), g.draws()};
}

void set_rng_state(const std::array<std::uint64_t, 2>& state) {
  Generator g = default_generator();
  g.manual_seed(state[0]);
  g.set_draws(state[1]);
}

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::uint64_t key) {
  std::uint32_t words[4][1] = {{counter[0]}, {counter[1]}, {counter[2]}, {counter[3]}};
  kernels::philox_lanes<1>(words, key);
  return {words[0][0], words[1][0], words[2][0], words[3][0]};
}

}  // namespace tutti
