// Random words by Philox, the same as the CPU's, and what is made of them.
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/lines.h>
#include <tutti/core/kernels/random.h>
#include <tutti/core/kernels/random_scalar.h>
#include <tutti/cuda/map.cuh>

namespace tutti::cuda {
namespace {

constexpr int kMostLevels = 8;

/// The vmap levels that draw differently.
struct Levels {
  int count = 0;
  std::int64_t size[kMostLevels], offset[kMostLevels], total[kMostLevels];

  /// Index of a member among all examples, chunk offsets included.
  __device__ std::uint32_t flat(std::int64_t member) const {
    std::int64_t flat = 0, scale = 1;
    for (int l = count; l-- > 0;) {
      flat += (offset[l] + member % size[l]) * scale;
      scale *= total[l];
      member /= size[l];
    }
    return static_cast<std::uint32_t>(flat);
  }
};

/// Philox4x32-10, as philox_lanes of core/kernels/random.h for one counter.
__device__ uint4 philox(uint4 c, std::uint64_t key) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p = std::uint64_t{0xD2511F53u} * c.x, q = std::uint64_t{0xCD9E8D57u} * c.z;
    c = make_uint4(static_cast<std::uint32_t>(q >> 32) ^ c.y ^ k0, static_cast<std::uint32_t>(q),
                   static_cast<std::uint32_t>(p >> 32) ^ c.w ^ k1, static_cast<std::uint32_t>(p));
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

/// The counters of a draw, those of one member after those of the other; each gives four words.
struct Draw {
  std::int64_t counters, per_member, words_per_member;
  std::uint64_t seed, number;
  Levels levels;

  /// For attrs as kernels::random_bits takes them.
  Draw(const Attrs& a, std::int64_t members, std::int64_t words)
      : per_member((words + 3) / 4),
        words_per_member(words),
        seed(static_cast<std::uint64_t>(a.scalars[0].to_int())),
        number(static_cast<std::uint64_t>(a.scalars[1].to_int())) {
    counters = members * per_member;
    levels.count = static_cast<int>(a.dims.size() / 3);
    check<NotImplementedError>(levels.count <= kMostLevels, "random", "expected at most ",
                               kMostLevels, " nested vmaps that draw differently, got ",
                               levels.count, "; draw on the CPU");
    for (std::size_t l = 0; l * 3 < a.dims.size(); ++l) {
      levels.size[l] = a.dims[l * 3];
      levels.offset[l] = a.dims[l * 3 + 1];
      levels.total[l] = a.dims[l * 3 + 2];
    }
  }
};

/// The words of a counter: as many as are `left` of its member are used, from `place` on.
struct Counter {
  std::int64_t place, left;
  uint4 words;
  __device__ Counter(const Draw& d, std::int64_t i) {
    const std::int64_t member = i / d.per_member, block = i - member * d.per_member;
    place = member * d.words_per_member + block * 4;
    left = d.words_per_member - block * 4;
    words = philox(make_uint4(static_cast<std::uint32_t>(block), d.levels.flat(member),
                              static_cast<std::uint32_t>(d.number),
                              static_cast<std::uint32_t>(d.number >> 32)),
                   d.seed);
  }
};

/// Which elements are kept, and y = x * (kept ? scale : 0). A thread per counter; with `packs`,
/// whole counters go in packs of 16 bytes.
template <class T>
__global__ void drop(const __grid_constant__ Draw draw, std::uint32_t below, T scale, bool packs,
                     const T* x, T* y, bool* mask) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= draw.counters) return;
  constexpr unsigned V = 16 / sizeof(T);
  const Counter c(draw, i);
  const unsigned left = static_cast<unsigned>(min(c.left, std::int64_t{4}));
  const bool whole = packs && left == 4 && c.place % 4 == 0;
  const Pack<bool, 4> kept{
      {c.words.x < below, c.words.y < below, c.words.z < below, c.words.w < below}};
  store_pack<4>(mask + c.place, kept, whole, left);
#pragma unroll
  for (unsigned k = 0; k < 4; k += V) {
    if (k >= left) break;
    Pack<T, V> v = load_pack<V>(x + c.place + k, whole, left - k);
#pragma unroll
    for (unsigned j = 0; j < V; ++j) v.at[j] *= kept.at[k + j] ? scale : T(0);
    store_pack<V>(y + c.place + k, v, whole, left - k);
  }
}

/// One thread per counter.
__global__ void random_words(const __grid_constant__ Draw draw, std::uint32_t* out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= draw.counters) return;
  const Counter c(draw, i);
  const uint4 w = c.words;
  const std::int64_t left = c.left;
  std::uint32_t* const to = out + c.place;
  to[0] = w.x;
  if (left > 1) to[1] = w.y;
  if (left > 2) to[2] = w.z;
  if (left > 3) to[3] = w.w;
}

/// in = {x}; out = {y, mask}.
template <class T>
void run_dropout(const Tensor& input, Inputs out, const Attrs& a) {
  std::int64_t members = 1;
  for (std::size_t d = 0; d < a.dims.size() / 3; ++d) members *= input.sizes()[d];
  const Draw draw(a, members, input.numel() / members);
  const kernels::Dropout o(a);
  const Tensor x = packs_on_device(input);
  T* const y = static_cast<T*>(out[0].raw());
  bool* const mask = static_cast<bool*>(out[1].raw());
  const bool packs = detail::aligned<16 / sizeof(T)>(y) && detail::aligned<4>(mask);
  const Work work(input.device());
  const unsigned block = block_for(draw.counters);
  launch(drop<T>, blocks_for(draw.counters, block), block, work, draw, o.below,
         static_cast<T>(o.scale), packs, static_cast<const T*>(x.raw()), y, mask);
}

/// x * (kept ? scale : 0).
template <class T>
struct Masked {
  T scale;
  __device__ T operator()(T x, bool kept) const { return x * (kept ? scale : T(0)); }
};

}  // namespace
}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

using tutti::cuda::map;
using tutti::cuda::map_flat;

void random_bits(Inputs, Inputs out, const Attrs& a) {
  if (out[0].numel() == 0) return;
  const std::int64_t elements = numel_of(a.ints);
  const tutti::cuda::Draw draw(a, out[0].numel() / elements,
                               elements * (a.dtype == kInt64 ? 2 : 1));
  const tutti::cuda::Work work(out[0].device());
  const unsigned block = tutti::cuda::block_for(draw.counters);
  tutti::cuda::launch(tutti::cuda::random_words, tutti::cuda::blocks_for(draw.counters, block),
                      block, work, draw, static_cast<std::uint32_t*>(out[0].raw()));
}

void dropout(Inputs in, Inputs out, const Attrs& a) {
  if (in[0].numel() == 0) return;
  if (in[0].dtype() == kFloat64)
    tutti::cuda::run_dropout<double>(in[0], out, a);
  else
    tutti::cuda::run_dropout<float>(in[0], out, a);
}

void masked_scale(Inputs in, Inputs out, const Attrs& a) {
  const auto scaled = [&]<class T>() {
    map<T, T, bool>(tutti::cuda::Masked<T>{a.scalars[0].to<T>()}, out[0], in[0], in[1]);
  };
  if (out[0].dtype() == kFloat64)
    scaled.operator()<double>();
  else
    scaled.operator()<float>();
}

void uniform_from_bits(Inputs in, Inputs out, const Attrs&) {
  if (out[0].dtype() == kFloat64)
    map_flat<double, std::uint64_t>(scalar::Uniform53(), out[0], in[0]);
  else
    map_flat<float, std::uint32_t>(scalar::Uniform24(), out[0], in[0]);
}

void normal_from_bits(Inputs in, Inputs out, const Attrs&) {
  if (out[0].dtype() == kFloat64)
    map<double, std::uint64_t, std::uint64_t>(scalar::Normal64(), out[0], in[0], in[1]);
  else
    map_flat<float, std::uint64_t>(scalar::Normal32(), out[0], in[0]);
}

void bernoulli_from_bits(Inputs in, Inputs out, const Attrs& a) {
  dispatch_full(out[0].dtype(), [&]<class T>() {
    map_flat<T, std::uint32_t>(scalar::Bernoulli<T>(a), out[0], in[0]);
  });
}

void integers_from_bits(Inputs in, Inputs out, const Attrs& a) {
  map_flat<std::uint64_t, std::uint64_t>(scalar::IntegersBelow(a), out[0], in[0]);
}

}  // namespace tutti::kernels::cuda
