// What the user can choose.
#pragma once
#include <cstdint>
#include <string>

namespace digits {

struct Settings {
  std::int64_t members = 32;
  std::int64_t hidden = 64;
  std::int64_t epochs = 40;
  std::int64_t batch = 32;
  std::int64_t chunk = 0;  // members at once; 0: all
  double learning_rate = 1e-3;
  std::uint64_t seed = 0;
  int threads = 0;  // 0: the engine's default
  std::string data = "examples/data/digits.csv";
  std::string out = "out";
};

}  // namespace digits
