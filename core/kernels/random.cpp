// Random words and what is made of them. Words depend on seed, draw, member and element only.
#include <algorithm>

#include <tutti/core/kernels/copy.h>
#include <tutti/core/kernels/lines.h>
#include <tutti/core/kernels/loops.h>
#include <tutti/core/kernels/random.h>
#include <tutti/core/kernels/random_scalar.h>
#include <tutti/core/tensor_impl.h>

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

/// The random words of `lanes` counters, one counter after the other.
struct Words {
  TUTTI_INLINE static void run(std::uint32_t (*words)[lanes], std::uint32_t* to,
                               std::uint64_t seed) {
    std::uint32_t w[4][lanes];
    for (int i = 0; i < 4; ++i)
      for (int n = 0; n < lanes; ++n) w[i][n] = words[i][n];
    philox_lanes(w, seed);
    for (int n = 0; n < lanes; ++n)
      for (int i = 0; i < 4; ++i) to[4 * n + i] = w[i][n];
  }
};

/// Calls f(place, words, count) for all words of all members, several at once; `per_member` words
/// each, which go to places member * per_member + 0, 1...
template <class F>
void each_word(std::int64_t members, std::int64_t per_member, const Attrs& a, const F& f) {
  const std::int64_t blocks = (per_member + 3) / 4;
  const std::uint64_t seed = static_cast<std::uint64_t>(a.scalars[0].to_int());
  const std::uint64_t draw = static_cast<std::uint64_t>(a.scalars[1].to_int());
  const auto make_words = version<Words>();
  parallel_for(members * blocks, block_grain, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t member = begin / blocks, block = begin % blocks;
    std::uint32_t number = flat_member(member, a.dims);
    for (std::int64_t done = begin; done < end; done += lanes) {
      const int used = static_cast<int>(std::min<std::int64_t>(lanes, end - done));
      std::uint32_t counters[4][lanes] = {}, words[4 * lanes];
      std::int64_t place[lanes], count[lanes], all = 0;
      for (int n = 0; n < used; ++n) {
        counters[0][n] = static_cast<std::uint32_t>(block);
        counters[1][n] = number;
        counters[2][n] = static_cast<std::uint32_t>(draw);
        counters[3][n] = static_cast<std::uint32_t>(draw >> 32);
        place[n] = member * per_member + block * 4;
        count[n] = std::min<std::int64_t>(4, per_member - block * 4);
        all += count[n];
        if (++block == blocks) {
          block = 0;
          number = flat_member(++member, a.dims);
        }
      }
      make_words(counters, words, seed);
      if (all == 4 * lanes)  // without a gap
        f(place[0], words, all);
      else
        for (int n = 0; n < used; ++n) f(place[n], words + 4 * n, count[n]);
    }
  });
}

/// Which elements are kept, and y = x * (kept ? scale : 0).
template <class T>
struct DropRun {
  TUTTI_INLINE static void run(const T* __restrict x, const std::uint32_t* __restrict words,
                               T* __restrict y, bool* __restrict mask, std::int64_t n,
                               std::uint32_t below, T scale) {
    for (std::int64_t i = 0; i < n; ++i) {
      const bool kept = words[i] < below;
      y[i] = x[i] * (kept ? scale : T(0));
      mask[i] = kept;
    }
  }
};

template <class T>
void drop(const Tensor& x, Inputs out, const Attrs& a) {
  Tensor dense = x;
  if (!x.is_contiguous()) {
    dense = make_dense(x.sizes(), x.dtype());
    copy(dense, x);
  }
  const T* const from = static_cast<const T*>(dense.raw());
  T* const to = static_cast<T*>(out[0].raw());
  bool* const mask = static_cast<bool*>(out[1].raw());
  std::int64_t members = 1;
  for (std::size_t d = 0; d < a.dims.size() / 3; ++d) members *= x.sizes()[d];
  const Dropout o(a);
  const auto run = version<DropRun<T>>();
  each_word(members, x.numel() / members, a,
            [&](std::int64_t at, const std::uint32_t* words, std::int64_t n) {
              run(from + at, words, to + at, mask + at, n, o.below, static_cast<T>(o.scale));
            });
}

}  // namespace

void random_bits(Inputs, Inputs out, const Attrs& a) {
  if (out[0].numel() == 0) return;
  const std::int64_t elements = numel_of(a.ints), words = a.dtype == kInt64 ? 2 : 1;
  std::uint32_t* const to = static_cast<std::uint32_t*>(out[0].raw());
  each_word(out[0].numel() / elements, elements * words, a,
            [to](std::int64_t at, const std::uint32_t* from, std::int64_t n) {
              std::copy_n(from, n, to + at);
            });
}

void dropout(Inputs in, Inputs out, const Attrs& a) {
  if (in[0].numel() == 0) return;
  if (in[0].dtype() == kFloat64)
    drop<double>(in[0], out, a);
  else
    drop<float>(in[0], out, a);
}

void masked_scale(Inputs in, Inputs out, const Attrs& a) {
  const auto scaled = [&]<class T>() {
    const T scale = a.scalars[0].to<T>();
    map<T, T, bool>(
        kCheapGrain, [=](T x, bool kept) { return x * (kept ? scale : T(0)); }, out[0], in[0],
        in[1]);
  };
  if (out[0].dtype() == kFloat64)
    scaled.operator()<double>();
  else
    scaled.operator()<float>();
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
