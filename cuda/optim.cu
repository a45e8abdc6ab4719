// Optimizer steps over lists of tensors: one launch for many parameters. The arithmetic and its
// order are those of core/kernels/optim.cpp; the constants come from the CPU, one set for all
// members of a parameter as an argument of the kernel, those of members in memory of the device.
#include <algorithm>
#include <cmath>
#include <list>
#include <vector>

#include <tutti/core/kernels/cuda.h>
#include <tutti/cuda/launch.cuh>

namespace tutti::cuda {
namespace {

constexpr std::int64_t kPerBlock = 4 * kBlock;  // elements
constexpr int kMostChunks = 24;                 // of one launch: kernel arguments end at 4 KiB

/// A parameter with the constants of its step.
template <class Rule>
struct Part {
  typename Rule::Chunk chunk;
  typename Rule::Constants shared;
  const typename Rule::Constants* members;  // on the device; null: shared by all
};
template <class Rule>
struct List {
  int count = 0;
  unsigned ends[kMostChunks];  // blocks up to and including the chunk
  Part<Rule> parts[kMostChunks];
};

template <class Rule>
__global__ void run_list(const __grid_constant__ List<Rule> list) {
  int c = 0;
  while (blockIdx.x >= list.ends[c]) ++c;
  const std::int64_t begin = std::int64_t{blockIdx.x - (c == 0 ? 0 : list.ends[c - 1])} * kPerBlock;
  const Part<Rule>& part = list.parts[c];
  const std::int64_t end = min(begin + kPerBlock, part.chunk.size);
  if (part.members) {
    const std::int64_t each = part.chunk.numbers.each;
#pragma unroll 1  // stores of one element may be loads of the next, so nothing is won
    for (std::int64_t i = begin + threadIdx.x; i < end; i += blockDim.x)
      Rule::run(part.chunk, part.members[i / each], i);
  } else {
#pragma unroll 1
    for (std::int64_t i = begin + threadIdx.x; i < end; i += blockDim.x)
      Rule::run(part.chunk, part.shared, i);
  }
}

/// Constants of members on the device: parameters with the same rows of numbers share them.
template <class Rule>
class MemberConstants {
 public:
  explicit MemberConstants(const Work& work) : work_(work) {}
  const typename Rule::Constants* of(const typename Rule::Chunk& c) {
    if (c.numbers.each == 0) return nullptr;
    for (const Known& k : known_)
      if (k.rows == c.numbers.rows) return k.memory.template as<typename Rule::Constants>();
    std::vector<typename Rule::Constants> constants;
    for (std::int64_t m = 0; m < c.size / c.numbers.each; ++m)
      constants.emplace_back(c.numbers.rows[m]);
    known_.emplace_back(c.numbers.rows, constants, work_);
    return known_.back().memory.template as<typename Rule::Constants>();
  }

 private:
  struct Known {
    Known(const void* r, const std::vector<typename Rule::Constants>& c, const Work& work)
        : rows(r), memory(c.data(), c.size() * sizeof c[0], work) {}
    const void* rows;
    Scratch memory;
  };
  const Work& work_;
  std::list<Known> known_;
};

template <class Rule>
void run_all(std::span<const typename Rule::Chunk> chunks) {
  const Work work{Device(kCUDA)};
  MemberConstants<Rule> members(work);
  for (std::size_t first = 0; first < chunks.size(); first += kMostChunks) {
    List<Rule> list;
    unsigned blocks = 0;
    std::int64_t largest = 0;
    for (const auto& c :
         chunks.subspan(first, std::min<std::size_t>(kMostChunks, chunks.size() - first))) {
      if (c.size == 0) continue;
      blocks += blocks_for(c.size, kPerBlock);
      largest = std::max(largest, c.size);
      list.parts[list.count] = {c, typename Rule::Constants(*c.numbers.rows), members.of(c)};
      list.ends[list.count++] = blocks;
    }
    if (blocks > 0) launch(run_list<Rule>, blocks, block_for(largest), work, list);
  }
}

template <class T>
struct Sgd {
  using Chunk = kernels::SgdChunk<T>;
  using Constants = kernels::SgdConstants<T>;
  static __device__ void run(const Chunk& c, const Constants& k, std::int64_t i) {
    T& param = c.param[i];
    const T g = k.decays ? c.grad[i] + k.decay * param : c.grad[i];
    if (!k.remembers) {
      param += k.lr * g;
      return;
    }
    const T m = c.first ? g : c.momentum[i] * k.momentum + k.fresh * g;
    c.momentum[i] = m;
    param += k.lr * (c.nesterov ? g + k.momentum * m : m);
  }
};

template <class T>
struct Adam {
  using Chunk = kernels::AdamChunk<T>;
  using Constants = kernels::AdamConstants<T>;
  static __device__ void run(const Chunk& c, const Constants& k, std::int64_t i) {
    const T p = k.shrinks ? c.param[i] * k.keep : c.param[i];
    const T g = k.decays ? c.grad[i] + k.decay * p : c.grad[i];
    const T m = c.exp_avg[i] + k.fresh1 * (g - c.exp_avg[i]);
    T v = c.exp_avg_sq[i] * k.beta2 + k.fresh2 * g * g;
    c.exp_avg[i] = m;
    c.exp_avg_sq[i] = v;
    if (T* const largest = c.max_exp_avg_sq) v = largest[i] = largest[i] > v ? largest[i] : v;
    c.param[i] = p + k.step_size * m / (std::sqrt(v) * k.root_scale + k.eps);
  }
};

template <class T>
struct Rmsprop {
  using Chunk = kernels::RmspropChunk<T>;
  using Constants = kernels::RmspropConstants<T>;
  static __device__ void run(const Chunk& c, const Constants& k, std::int64_t i) {
    const T g = k.decays ? c.grad[i] + k.decay * c.param[i] : c.grad[i];
    const T v = c.square_avg[i] = c.square_avg[i] * k.alpha + k.fresh * g * g;
    T spread = v;
    if (T* const average = c.grad_avg) {
      const T mean = average[i] = average[i] + k.fresh * (g - average[i]);
      spread = v - mean * mean;
    }
    const T root = std::sqrt(spread) + k.eps;
    if (k.remembers)
      c.param[i] += k.lr * (c.momentum[i] = c.momentum[i] * k.momentum + g / root);
    else
      c.param[i] += k.lr * g / root;
  }
};

template <class T>
struct Adagrad {
  using Chunk = kernels::AdagradChunk<T>;
  using Constants = kernels::AdagradConstants<T>;
  static __device__ void run(const Chunk& c, const Constants& k, std::int64_t i) {
    const T g = k.decays ? c.grad[i] + k.decay * c.param[i] : c.grad[i];
    const T sum = c.sum[i] = c.sum[i] + g * g;
    c.param[i] += k.lr * g / (std::sqrt(sum) + k.eps);
  }
};

}  // namespace
}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

#define TUTTI_STEP(name, Step, Chunk)                                        \
  template <class T>                                                         \
  void name(std::span<const Chunk<T>> chunks) {                              \
    if (!chunks.empty()) tutti::cuda::run_all<tutti::cuda::Step<T>>(chunks); \
  }                                                                          \
  template void name(std::span<const Chunk<float>>);                         \
  template void name(std::span<const Chunk<double>>);
TUTTI_STEP(sgd, Sgd, SgdChunk)
TUTTI_STEP(adam, Adam, AdamChunk)
TUTTI_STEP(rmsprop, Rmsprop, RmspropChunk)
TUTTI_STEP(adagrad, Adagrad, AdagradChunk)
#undef TUTTI_STEP

}  // namespace tutti::kernels::cuda
