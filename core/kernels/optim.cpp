// Optimizer steps. Every function below `blocks` handles one block of one chunk. They are compiled
// twice, for AVX2 and for any processor; without fused multiply-add, so the results are the same.
#include <algorithm>
#include <cmath>
#include <vector>

#include <tutti/core/kernels/optim.h>
#include <tutti/core/parallel.h>

// A GCC and Clang extension: code for a processor that the rest of the program does not require.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define TUTTI_AVX2 __attribute__((target("avx2")))
#define TUTTI_INLINE inline __attribute__((always_inline))
#else
#define TUTTI_INLINE inline
#endif

namespace tutti::kernels {
namespace {

constexpr std::int64_t kBlock = 2048;  // elements; a microsecond or two

/// Calls f(chunk, begin, end) on all blocks of all chunks, several at once.
template <class Chunk, class F>
void blocks(std::span<const Chunk> chunks, F f) {
  std::vector<std::int64_t> ends;  // number of blocks up to and including each chunk
  ends.reserve(chunks.size());
  std::int64_t n = 0;
  for (const Chunk& c : chunks) ends.push_back(n += (c.size + kBlock - 1) / kBlock);
  parallel_for(n, 4, [&](std::int64_t first, std::int64_t last) {
    std::size_t i =
        static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), first) - ends.begin());
    for (std::int64_t b = first; b < last; ++b) {
      while (b >= ends[i]) ++i;
      const std::int64_t begin = (b - (i == 0 ? 0 : ends[i - 1])) * kBlock;
      f(chunks[i], begin, std::min(begin + kBlock, chunks[i].size));
    }
  });
}

template <class T>
T at(double v) {
  return static_cast<T>(v);
}

template <class T>
TUTTI_INLINE void sgd_block(const SgdChunk<T>& c, std::int64_t begin, std::int64_t end) {
  const SgdArgs& a = *c.args;
  T* __restrict param = c.param;
  const T* __restrict grad = c.grad;
  const T lr = at<T>(-a.lr), decay = at<T>(a.weight_decay);
  const bool decays = a.weight_decay != 0;
  if (!c.momentum) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T g = decays ? grad[i] + decay * param[i] : grad[i];
      param[i] += lr * g;
    }
    return;
  }
  T* __restrict buffer = c.momentum;
  const T momentum = at<T>(a.momentum), fresh = at<T>(1 - a.dampening);
  const bool first = c.first, nesterov = a.nesterov;
  for (std::int64_t i = begin; i < end; ++i) {
    const T g = decays ? grad[i] + decay * param[i] : grad[i];
    const T m = first ? g : buffer[i] * momentum + fresh * g;
    buffer[i] = m;
    param[i] += lr * (nesterov ? g + momentum * m : m);
  }
}

template <class T, bool kMax>
TUTTI_INLINE void adam_kind(const AdamChunk<T>& c, std::int64_t begin, std::int64_t end) {
  const AdamArgs& a = *c.args;
  T* __restrict param = c.param;
  const T* __restrict grad = c.grad;
  T* __restrict mean = c.exp_avg;
  T* __restrict square = c.exp_avg_sq;
  T* __restrict largest = c.max_exp_avg_sq;
  const double step = static_cast<double>(c.step);
  const T step_size = at<T>(-a.lr / (1 - std::pow(a.beta1, step)));
  const T correction = at<T>(std::sqrt(1 - std::pow(a.beta2, step)));
  const T fresh1 = at<T>(1 - a.beta1), beta2 = at<T>(a.beta2), fresh2 = at<T>(1 - a.beta2);
  const T eps = at<T>(a.eps), decay = at<T>(a.weight_decay),
          keep = at<T>(1 - a.lr * a.weight_decay);
  const bool shrinks = a.decoupled && a.weight_decay != 0;
  const bool decays = !a.decoupled && a.weight_decay != 0;
  for (std::int64_t i = begin; i < end; ++i) {
    const T p = shrinks ? param[i] * keep : param[i];
    const T g = decays ? grad[i] + decay * p : grad[i];
    const T m = mean[i] + fresh1 * (g - mean[i]);
    T v = square[i] * beta2 + fresh2 * g * g;
    mean[i] = m;
    square[i] = v;
    if constexpr (kMax) v = largest[i] = largest[i] > v ? largest[i] : v;
    param[i] = p + step_size * m / (std::sqrt(v) / correction + eps);
  }
}

template <class T>
TUTTI_INLINE void adam_block(const AdamChunk<T>& c, std::int64_t begin, std::int64_t end) {
  if (c.max_exp_avg_sq) {
    adam_kind<T, true>(c, begin, end);
  } else {
    adam_kind<T, false>(c, begin, end);
  }
}

template <class T>
TUTTI_INLINE void rmsprop_block(const RmspropChunk<T>& c, std::int64_t begin, std::int64_t end) {
  const RmspropArgs& a = *c.args;
  const T lr = at<T>(-a.lr), alpha = at<T>(a.alpha), fresh = at<T>(1 - a.alpha);
  const T eps = at<T>(a.eps), decay = at<T>(a.weight_decay), momentum = at<T>(a.momentum);
  const bool decays = a.weight_decay != 0;
  for (std::int64_t i = begin; i < end; ++i) {
    const T g = decays ? c.grad[i] + decay * c.param[i] : c.grad[i];
    const T v = c.square_avg[i] = c.square_avg[i] * alpha + fresh * g * g;
    T spread = v;
    if (c.grad_avg) {
      const T mean = c.grad_avg[i] = c.grad_avg[i] + fresh * (g - c.grad_avg[i]);
      spread = v - mean * mean;
    }
    const T root = std::sqrt(spread) + eps;
    if (c.momentum)
      c.param[i] += lr * (c.momentum[i] = c.momentum[i] * momentum + g / root);
    else
      c.param[i] += lr * g / root;
  }
}

template <class T>
TUTTI_INLINE void adagrad_block(const AdagradChunk<T>& c, std::int64_t begin, std::int64_t end) {
  const AdagradArgs& a = *c.args;
  const T lr = at<T>(-a.lr / (1 + static_cast<double>(c.step - 1) * a.lr_decay));
  const T eps = at<T>(a.eps), decay = at<T>(a.weight_decay);
  const bool decays = a.weight_decay != 0;
  for (std::int64_t i = begin; i < end; ++i) {
    const T g = decays ? c.grad[i] + decay * c.param[i] : c.grad[i];
    const T sum = c.sum[i] = c.sum[i] + g * g;
    c.param[i] += lr * g / (std::sqrt(sum) + eps);
  }
}

/// Makes `name` run name_block on all blocks.
#ifdef TUTTI_AVX2
#define TUTTI_STEP(name, Chunk)                                                          \
  template <class T>                                                                     \
  TUTTI_AVX2 void name##_avx2(const Chunk<T>& c, std::int64_t begin, std::int64_t end) { \
    name##_block(c, begin, end);                                                         \
  }                                                                                      \
  template <class T>                                                                     \
  void name##_any(const Chunk<T>& c, std::int64_t begin, std::int64_t end) {             \
    name##_block(c, begin, end);                                                         \
  }                                                                                      \
  template <class T>                                                                     \
  void name##_all(std::span<const Chunk<T>> chunks) {                                    \
    blocks(chunks, __builtin_cpu_supports("avx2") ? name##_avx2<T> : name##_any<T>);     \
  }
#else
#define TUTTI_STEP(name, Chunk)                       \
  template <class T>                                  \
  void name##_all(std::span<const Chunk<T>> chunks) { \
    blocks(chunks, name##_block<T>);                  \
  }
#endif
TUTTI_STEP(sgd, SgdChunk)
TUTTI_STEP(adam, AdamChunk)
TUTTI_STEP(rmsprop, RmspropChunk)
TUTTI_STEP(adagrad, AdagradChunk)
#undef TUTTI_STEP

}  // namespace

template <class T>
void sgd(std::span<const SgdChunk<T>> chunks) {
  sgd_all(chunks);
}

template <class T>
void adam(std::span<const AdamChunk<T>> chunks) {
  adam_all(chunks);
}

template <class T>
void rmsprop(std::span<const RmspropChunk<T>> chunks) {
  rmsprop_all(chunks);
}

template <class T>
void adagrad(std::span<const AdagradChunk<T>> chunks) {
  adagrad_all(chunks);
}

template void sgd(std::span<const SgdChunk<float>>);
template void sgd(std::span<const SgdChunk<double>>);
template void adam(std::span<const AdamChunk<float>>);
template void adam(std::span<const AdamChunk<double>>);
template void rmsprop(std::span<const RmspropChunk<float>>);
template void rmsprop(std::span<const RmspropChunk<double>>);
template void adagrad(std::span<const AdagradChunk<float>>);
template void adagrad(std::span<const AdagradChunk<double>>);

}  // namespace tutti::kernels
