// Random words by Philox, the same as the CPU's, and what is made of them.
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/lines.h>
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

/// One thread per counter, which gives four words.
__global__ void random_words(std::int64_t counters, std::int64_t per_member,
                             std::int64_t words_per_member, std::uint64_t seed, std::uint64_t draw,
                             const __grid_constant__ Levels levels, std::uint32_t* out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= counters) return;
  const std::int64_t member = i / per_member, block = i - member * per_member;
  const uint4 w =
      philox(make_uint4(static_cast<std::uint32_t>(block), levels.flat(member),
                        static_cast<std::uint32_t>(draw), static_cast<std::uint32_t>(draw >> 32)),
             seed);
  const std::int64_t left = words_per_member - block * 4;
  std::uint32_t* const to = out + member * words_per_member + block * 4;
  to[0] = w.x;
  if (left > 1) to[1] = w.y;
  if (left > 2) to[2] = w.z;
  if (left > 3) to[3] = w.w;
}

}  // namespace
}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

using tutti::cuda::map;
using tutti::cuda::map_flat;

void random_bits(Inputs, Inputs out, const Attrs& a) {
  if (out[0].numel() == 0) return;
  const std::int64_t per_block = a.dtype == kInt64 ? 2 : 4, elements = numel_of(a.ints);
  const std::int64_t members = out[0].numel() / elements;
  const std::int64_t blocks = (elements + per_block - 1) / per_block;
  tutti::cuda::Levels levels;
  levels.count = static_cast<int>(a.dims.size() / 3);
  check<NotImplementedError>(levels.count <= tutti::cuda::kMostLevels, "random",
                             "expected at most ", tutti::cuda::kMostLevels,
                             " nested vmaps that draw differently, got ", levels.count,
                             "; draw on the CPU");
  for (std::size_t l = 0; l * 3 < a.dims.size(); ++l) {
    levels.size[l] = a.dims[l * 3];
    levels.offset[l] = a.dims[l * 3 + 1];
    levels.total[l] = a.dims[l * 3 + 2];
  }
  const tutti::cuda::Work work(out[0].device());
  const std::int64_t n = members * blocks;
  const unsigned block = tutti::cuda::block_for(n);
  tutti::cuda::launch(tutti::cuda::random_words, tutti::cuda::blocks_for(n, block), block, work, n,
                      blocks, elements * 4 / per_block,
                      static_cast<std::uint64_t>(a.scalars[0].to_int()),
                      static_cast<std::uint64_t>(a.scalars[1].to_int()), levels,
                      static_cast<std::uint32_t*>(out[0].raw()));
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
