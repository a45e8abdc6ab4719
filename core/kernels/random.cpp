// Random words and what is made of them. Words depend on seed, draw, member and element only.
#include <algorithm>

#include <tutti/core/kernels/lines.h>
#include <tutti/core/kernels/loops.h>
#include <tutti/core/kernels/random.h>
#include <tutti/core/kernels/random_scalar.h>

namespace tutti::kernels {
namespace {

constexpr int lanes = 8;                    // counters at a time
constexpr std::int64_t block_grain = 4096;  // counters worth a thread

/// Index of a member among all examples of the vmap levels that draw differently, chunk offsets
/// included.
std::uint32_t flat_member(std::int64_t m, const Shape& levels) {
  std::int64_t flat = 0, scale = 1;
  for (std::size_t l = levels.size(); l >= 3; l -= 3) {
    const std::int64_t size = levels[l - 3], offset = levels[l - 2], total = levels[l - 1];
    flat += (offset + m % size) * scale;
    scale *= total;
    m /= size;
  }
  return static_cast<std::uint32_t>(flat);
}

}  // namespace

void random_bits(Inputs, Inputs out, const Attrs& a) {
  const std::int64_t per_block = a.dtype == kInt64 ? 2 : 4;
  const std::int64_t elements = numel_of(a.ints);
  if (out[0].numel() == 0) return;
  const std::int64_t members = out[0].numel() / elements;
  const std::int64_t blocks = (elements + per_block - 1) / per_block;
  const std::uint64_t seed = static_cast<std::uint64_t>(a.scalars[0].to_int());
  const std::uint64_t draw = static_cast<std::uint64_t>(a.scalars[1].to_int());
  const std::int64_t words_per_member = elements * 4 / per_block;
  std::uint32_t* const to = static_cast<std::uint32_t*>(out[0].raw());

  parallel_for(members * blocks, block_grain, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t member = begin / blocks, block = begin % blocks;
    std::uint32_t number = flat_member(member, a.dims);
    for (std::int64_t done = begin; done < end; done += lanes) {
      const int used = static_cast<int>(std::min<std::int64_t>(lanes, end - done));
      std::uint32_t words[4][lanes] = {};
      std::int64_t place[lanes], count[lanes];
      for (int n = 0; n < used; ++n) {
        words[0][n] = static_cast<std::uint32_t>(block);
        words[1][n] = number;
        words[2][n] = static_cast<std::uint32_t>(draw);
        words[3][n] = static_cast<std::uint32_t>(draw >> 32);
        place[n] = member * words_per_member + block * 4;
        count[n] = std::min<std::int64_t>(4, words_per_member - block * 4);
        if (++block == blocks) {
          block = 0;
          number = flat_member(++member, a.dims);
        }
      }
      philox_lanes(words, seed);
      for (int n = 0; n < used; ++n)
        for (std::int64_t w = 0; w < count[n]; ++w) to[place[n] + w] = words[w][n];
    }
  });
}

void uniform_from_bits(Inputs in, Inputs out, const Attrs&) {
  if (out[0].dtype() == kFloat64) {
    map<double, std::uint64_t>(kCheapGrain, scalar::Uniform53(), out[0], in[0]);
  } else {
    map<float, std::uint32_t>(kCheapGrain, scalar::Uniform24(), out[0], in[0]);
  }
}

void normal_from_bits(Inputs in, Inputs out, const Attrs&) {
  if (out[0].dtype() == kFloat64)
    map<double, std::uint64_t, std::uint64_t>(kHeavyGrain, scalar::Normal64(), out[0], in[0],
                                              in[1]);
  else
    map<float, std::uint64_t>(kHeavyGrain, scalar::Normal32(), out[0], in[0]);
}

void bernoulli_from_bits(Inputs in, Inputs out, const Attrs& a) {
  dispatch_full(out[0].dtype(), [&]<class T>() {
    map<T, std::uint32_t>(kCheapGrain, scalar::Bernoulli<T>(a), out[0], in[0]);
  });
}

void integers_from_bits(Inputs in, Inputs out, const Attrs& a) {
  map<std::uint64_t, std::uint64_t>(kCheapGrain, scalar::IntegersBelow(a), out[0], in[0]);
}

}  // namespace tutti::kernels
