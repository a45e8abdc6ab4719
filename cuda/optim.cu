// Optimizer steps over lists of tensors: one launch for many parameters. The arithmetic and its
// order are those of core/kernels/optim.cpp.
#include <algorithm>
#include <cmath>

#include <tutti/core/kernels/cuda.h>
#include <tutti/cuda/launch.cuh>

namespace tutti::cuda {
namespace {

constexpr std::int64_t kPerBlock = 4 * kBlock;  // elements
constexpr int kMostChunks = 24;                 // of one launch: kernel arguments end at 4 KiB

/// One parameter, and the numbers of its step.
template <class Step>
struct List {
  int count = 0;
  unsigned ends[kMostChunks];  // blocks up to and including the chunk
  Step steps[kMostChunks];
};

template <class Step>
__global__ void run_list(const __grid_constant__ List<Step> list) {
  int c = 0;
  while (blockIdx.x >= list.ends[c]) ++c;
  const std::int64_t begin = std::int64_t{blockIdx.x - (c == 0 ? 0 : list.ends[c - 1])} * kPerBlock;
  const Step& step = list.steps[c];
  const std::int64_t end = min(begin + kPerBlock, step.size);
#pragma unroll 1  // stores of one element may be loads of the next, so nothing is won
  for (std::int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) step.run(i);
}

template <class Step, class Chunk>
void run_all(std::span<const Chunk> chunks) {
  const Work work{Device(kCUDA)};
  for (std::size_t first = 0; first < chunks.size(); first += kMostChunks) {
    List<Step> list;
    unsigned blocks = 0;
    std::int64_t largest = 0;
    for (const Chunk& c :
         chunks.subspan(first, std::min<std::size_t>(kMostChunks, chunks.size() - first))) {
      if (c.size == 0) continue;
      blocks += blocks_for(c.size, kPerBlock);
      largest = std::max(largest, c.size);
      list.steps[list.count] = Step(c);
      list.ends[list.count++] = blocks;
    }
    if (blocks > 0) launch(run_list<Step>, blocks, block_for(largest), work, list);
  }
}

template <class T>
T at(double v) {
  return static_cast<T>(v);
}

template <class T>
struct Sgd {
  T* param;
  const T* grad;
  T* buffer;
  std::int64_t size;
  T lr, decay, momentum, fresh;
  bool decays, nesterov, first;
  Sgd() = default;
  explicit Sgd(const kernels::SgdChunk<T>& c)
      : param(c.param),
        grad(c.grad),
        buffer(c.momentum),
        size(c.size),
        lr(at<T>(-c.args->lr)),
        decay(at<T>(c.args->weight_decay)),
        momentum(at<T>(c.args->momentum)),
        fresh(at<T>(1 - c.args->dampening)),
        decays(c.args->weight_decay != 0),
        nesterov(c.args->nesterov),
        first(c.first) {}
  __device__ void run(std::int64_t i) const {
    const T g = decays ? grad[i] + decay * param[i] : grad[i];
    if (!buffer) {
      param[i] += lr * g;
      return;
    }
    const T m = first ? g : buffer[i] * momentum + fresh * g;
    buffer[i] = m;
    param[i] += lr * (nesterov ? g + momentum * m : m);
  }
};

template <class T>
struct Adam {
  T* param;
  const T* grad;
  T *mean, *square, *largest;
  std::int64_t size;
  T step_size, root_scale, fresh1, beta2, fresh2, eps, decay, keep;
  bool shrinks, decays;
  Adam() = default;
  explicit Adam(const kernels::AdamChunk<T>& c)
      : param(c.param),
        grad(c.grad),
        mean(c.exp_avg),
        square(c.exp_avg_sq),
        largest(c.max_exp_avg_sq),
        size(c.size) {
    const kernels::AdamArgs& a = *c.args;
    const double step = static_cast<double>(c.step);
    step_size = at<T>(-a.lr / (1 - std::pow(a.beta1, step)));
    root_scale = at<T>(1 / std::sqrt(1 - std::pow(a.beta2, step)));
    fresh1 = at<T>(1 - a.beta1);
    beta2 = at<T>(a.beta2);
    fresh2 = at<T>(1 - a.beta2);
    eps = at<T>(a.eps);
    decay = at<T>(a.weight_decay);
    keep = at<T>(1 - a.lr * a.weight_decay);
    shrinks = a.decoupled && a.weight_decay != 0;
    decays = !a.decoupled && a.weight_decay != 0;
  }
  __device__ void run(std::int64_t i) const {
    const T p = shrinks ? param[i] * keep : param[i];
    const T g = decays ? grad[i] + decay * p : grad[i];
    const T m = mean[i] + fresh1 * (g - mean[i]);
    T v = square[i] * beta2 + fresh2 * g * g;
    mean[i] = m;
    square[i] = v;
    if (largest) v = largest[i] = largest[i] > v ? largest[i] : v;
    param[i] = p + step_size * m / (std::sqrt(v) * root_scale + eps);
  }
};

template <class T>
struct Rmsprop {
  T* param;
  const T* grad;
  T *square_avg, *grad_avg, *buffer;
  std::int64_t size;
  T lr, alpha, fresh, eps, decay, momentum;
  bool decays;
  Rmsprop() = default;
  explicit Rmsprop(const kernels::RmspropChunk<T>& c)
      : param(c.param),
        grad(c.grad),
        square_avg(c.square_avg),
        grad_avg(c.grad_avg),
        buffer(c.momentum),
        size(c.size),
        lr(at<T>(-c.args->lr)),
        alpha(at<T>(c.args->alpha)),
        fresh(at<T>(1 - c.args->alpha)),
        eps(at<T>(c.args->eps)),
        decay(at<T>(c.args->weight_decay)),
        momentum(at<T>(c.args->momentum)),
        decays(c.args->weight_decay != 0) {}
  __device__ void run(std::int64_t i) const {
    const T g = decays ? grad[i] + decay * param[i] : grad[i];
    const T v = square_avg[i] = square_avg[i] * alpha + fresh * g * g;
    T spread = v;
    if (grad_avg) {
      const T mean = grad_avg[i] = grad_avg[i] + fresh * (g - grad_avg[i]);
      spread = v - mean * mean;
    }
    const T root = std::sqrt(spread) + eps;
    if (buffer)
      param[i] += lr * (buffer[i] = buffer[i] * momentum + g / root);
    else
      param[i] += lr * g / root;
  }
};

template <class T>
struct Adagrad {
  T* param;
  const T* grad;
  T* sums;
  std::int64_t size;
  T lr, eps, decay;
  bool decays;
  Adagrad() = default;
  explicit Adagrad(const kernels::AdagradChunk<T>& c)
      : param(c.param),
        grad(c.grad),
        sums(c.sum),
        size(c.size),
        lr(at<T>(-c.args->lr / (1 + static_cast<double>(c.step - 1) * c.args->lr_decay))),
        eps(at<T>(c.args->eps)),
        decay(at<T>(c.args->weight_decay)),
        decays(c.args->weight_decay != 0) {}
  __device__ void run(std::int64_t i) const {
    const T g = decays ? grad[i] + decay * param[i] : grad[i];
    const T sum = sums[i] = sums[i] + g * g;
    param[i] += lr * g / (std::sqrt(sum) + eps);
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
