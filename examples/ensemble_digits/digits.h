// The data: handwritten digits from a CSV file, split into a part to learn from and a part to test
// with.
#pragma once
#include <cstdint>
#include <string>

#include <tutti/tutti.h>

namespace digits {

inline constexpr std::int64_t kSide = 8, kPixels = kSide * kSide, kClasses = 10;
inline constexpr double kWhite = 16;  // the largest grey level

struct Digits {
  tutti::Tensor pixels;  // [N, 64] float32, 0 .. 16
  tutti::Tensor labels;  // [N] int64, 0 .. 9
  std::int64_t size() const { return labels.size(0); }
};

/// Reads lines of 64 grey levels and a label. tutti::FileError, naming the line, where the file
/// holds anything else.
Digits read_digits(const std::string& path);

struct Split {
  Digits train, test;
};
/// Takes the given share of each class for the test, chosen by `seed`. tutti::ValueError if a part
/// stays empty.
Split stratified_split(const Digits& all, double test_share, std::uint64_t seed);

/// Grey levels to numbers with mean 0 and standard deviation 1, as they are over the training part.
struct Scaling {
  explicit Scaling(const tutti::Tensor& pixels);
  tutti::Tensor operator()(const tutti::Tensor& pixels) const {
    return (pixels / kWhite - mean) / std;
  }
  double mean, std;
};

}  // namespace digits
