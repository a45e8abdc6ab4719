// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011), several counters at a time, and the kernels that turn its words into uniform, normal and
// integer values.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>

#include <tutti/core/kernels/per_isa.h>
#include <tutti/core/op.h>

namespace tutti::kernels {

/// Replaces N counters by their random words, in place; words[i][n] is word i of counter n.
template <int N>
TUTTI_INLINE void philox_lanes(std::uint32_t (&words)[4][N], std::uint64_t key) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int n = 0; n < N; ++n) {
      const std::uint64_t p = std::uint64_t{0xD2511F53u} * words[0][n];
      const std::uint64_t q = std::uint64_t{0xCD9E8D57u} * words[2][n];
      words[0][n] = static_cast<std::uint32_t>(q >> 32) ^ words[1][n] ^ k0;
      words[1][n] = static_cast<std::uint32_t>(q);
      words[2][n] = static_cast<std::uint32_t>(p >> 32) ^ words[3][n] ^ k1;
      words[3][n] = static_cast<std::uint32_t>(p);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

/// Raw words: ints = sizes of one member; dims = (size, offset, total) for each vmap level that
/// draws differently; scalars = seed, draw number. int32: one word per element, int64: two.
void random_bits(Inputs in, Inputs out, const Attrs& a);
/// Uniform on [0, 1): 24 bits of an int32 word to float32, or 53 bits of an int64 one to float64.
void uniform_from_bits(Inputs in, Inputs out, const Attrs& a);
/// Standard normal by Box and Muller: one int64 to float32, or two to float64.
void normal_from_bits(Inputs in, Inputs out, const Attrs& a);
/// scalars[1] with probability scalars[0], else 0, from int32 words.
void bernoulli_from_bits(Inputs in, Inputs out, const Attrs& a);
/// What dropout keeps and drops. The attrs are those of random_bits, but ints hold the probability
/// of a zero, bit by bit; sizes are those of the input.
struct Dropout {
  double scale;         // of what is kept
  std::uint32_t below;  // words below this keep their element
  explicit Dropout(const Attrs& a) : Dropout(std::bit_cast<double>(a.ints[0])) {}
  explicit Dropout(double p)
      : scale(p < 1 ? 1 / (1 - p) : 0),
        below(static_cast<std::uint32_t>(std::min((1 - p) * 0x1p32, 0x1p32 - 1))) {}
};
/// in = {x}; out = {x scaled or times zero, whether it was kept}, by the words of random_bits for
/// int32.
void dropout(Inputs in, Inputs out, const Attrs& a);
/// in = {x, mask}; out = {x times (scalars[0] where the mask holds, else 0)}.
void masked_scale(Inputs in, Inputs out, const Attrs& a);
/// scalars[0] + floor(word * scalars[1] / 2^64) from int64 words.
void integers_from_bits(Inputs in, Inputs out, const Attrs& a);

}  // namespace tutti::kernels
