// What is made of random words, one at a time: functors like those of scalar.h, for the CPU and the
// GPU.
#pragma once
#include <cmath>
#include <numbers>

#include <tutti/core/kernels/scalar.h>

namespace tutti::scalar {

/// Uniform on [0, 1) with as many bits as the type holds.
struct Uniform24 {
  TUTTI_HD float operator()(std::uint32_t w) const { return static_cast<float>(w >> 8) * 0x1p-24f; }
};
struct Uniform53 {
  TUTTI_HD double operator()(std::uint64_t w) const {
    return static_cast<double>(w >> 11) * 0x1p-53;
  }
};

/// Box and Muller's cosine branch, u1 in (0, 1].
template <class T>
TUTTI_HD T box_muller(T u1, T u2) {
  return std::sqrt(T(-2) * std::log(u1)) * std::cos(T(2) * std::numbers::pi_v<T> * u2);
}
struct Normal64 {
  static constexpr bool heavy = true;
  TUTTI_HD double operator()(std::uint64_t v, std::uint64_t w) const {
    return box_muller(Uniform53()(v) + 0x1p-53, Uniform53()(w));
  }
};
struct Normal32 {
  static constexpr bool heavy = true;
  TUTTI_HD float operator()(std::uint64_t w) const {
    const float u1 = (static_cast<float>(static_cast<std::uint32_t>(w)) + 0.5f) * 0x1p-32f;
    return box_muller(u1, Uniform24()(static_cast<std::uint32_t>(w >> 32)));
  }
};

/// scalars: probability, value.
template <class T>
struct Bernoulli {
  std::uint64_t below;
  T value;
  explicit Bernoulli(const Attrs& a)
      : below(static_cast<std::uint64_t>(a.scalars[0].to_double() * 0x1p32)),
        value(a.scalars[1].to<T>()) {}
  TUTTI_HD T operator()(std::uint32_t w) const { return w < below ? value : T(0); }
};

/// The upper 64 bits of a * b.
TUTTI_HD std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b) {
  const std::uint64_t al = a & 0xffffffffu, ah = a >> 32, bl = b & 0xffffffffu, bh = b >> 32;
  const std::uint64_t mid = ah * bl + (al * bl >> 32);
  const std::uint64_t mid2 = al * bh + (mid & 0xffffffffu);
  return ah * bh + (mid >> 32) + (mid2 >> 32);
}
/// scalars: lowest, how many.
struct IntegersBelow {
  std::uint64_t low, range;
  explicit IntegersBelow(const Attrs& a)
      : low(static_cast<std::uint64_t>(a.scalars[0].to_int())),
        range(static_cast<std::uint64_t>(a.scalars[1].to_int())) {}
  TUTTI_HD std::uint64_t operator()(std::uint64_t w) const { return low + multiply_high(w, range); }
};

}  // namespace tutti::scalar
