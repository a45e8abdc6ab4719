// Optimizer steps. Each step is a struct: what it computes once per chunk, and run(), which handles
// one block of one chunk and is compiled for each instruction set (per_isa.h), with the same
// results.
#include <algorithm>
#include <cmath>

#include <tutti/core/kernels/optim.h>
#include <tutti/core/kernels/per_isa.h>
#include <tutti/core/parallel.h>
#include <tutti/core/small_vec.h>

namespace tutti::kernels {
namespace {

constexpr std::int64_t kBlock = 2048;  // elements; a microsecond or two

/// Runs Step on all blocks of all chunks, several at once.
template <class Step, class Chunk>
void run_all(std::span<const Chunk> chunks) {
  struct Work {
    Step step;
    std::int64_t end;  // number of blocks up to and including this chunk
  };
  SmallVec<Work, 1> work;
  work.reserve(chunks.size());
  std::int64_t n = 0;
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    n += (chunks[i].size + kBlock - 1) / kBlock;
    const bool again = i > 0 && Step::same(chunks[i], chunks[i - 1]);
    work.push_back({again ? work[i - 1].step : Step(chunks[i]), n});
  }
  const auto run = version<Step>();
  parallel_for(n, 4, [&](std::int64_t first, std::int64_t last) {
    const Work* w = std::upper_bound(work.begin(), work.end(), first,
                                     [](std::int64_t b, const Work& x) { return b < x.end; });
    for (std::int64_t b = first; b < last; ++b) {
      while (b >= w->end) ++w;
      const std::int64_t begin = (b - (w == work.begin() ? 0 : w[-1].end)) * kBlock;
      const Chunk& c = chunks[static_cast<std::size_t>(w - work.begin())];
      run(c, w->step, begin, std::min(begin + kBlock, c.size));
    }
  });
}

template <class T>
T at(double v) {
  return static_cast<T>(v);
}

template <class T>
struct Sgd {
  using Chunk = SgdChunk<T>;
  T lr, decay, momentum, fresh;
  bool decays, nesterov;
  explicit Sgd(const Chunk& c)
      : lr(at<T>(-c.args->lr)),
        decay(at<T>(c.args->weight_decay)),
        momentum(at<T>(c.args->momentum)),
        fresh(at<T>(1 - c.args->dampening)),
        decays(c.args->weight_decay != 0),
        nesterov(c.args->nesterov) {}
  static bool same(const Chunk& a, const Chunk& b) { return a.args == b.args; }

  TUTTI_INLINE static void run(const Chunk& c, const Sgd& k, std::int64_t begin, std::int64_t end) {
    T* __restrict param = c.param;
    const T* __restrict grad = c.grad;
    const auto [lr, decay, momentum, fresh, decays, nesterov] = k;
    if (!c.momentum) {
      for (std::int64_t i = begin; i < end; ++i) {
        const T g = decays ? grad[i] + decay * param[i] : grad[i];
        param[i] += lr * g;
      }
      return;
    }
    T* __restrict buffer = c.momentum;
    const bool first = c.first;
    for (std::int64_t i = begin; i < end; ++i) {
      const T g = decays ? grad[i] + decay * param[i] : grad[i];
      const T m = first ? g : buffer[i] * momentum + fresh * g;
      buffer[i] = m;
      param[i] += lr * (nesterov ? g + momentum * m : m);
    }
  }
};

template <class T>
struct Adam {
  using Chunk = AdamChunk<T>;
  T step_size, root_scale, fresh1, beta2, fresh2, eps, decay, keep;
  bool shrinks, decays;
  explicit Adam(const Chunk& c) {
    const AdamArgs& a = *c.args;
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
  static bool same(const Chunk& a, const Chunk& b) { return a.args == b.args && a.step == b.step; }

  template <bool kMax>
  TUTTI_INLINE static void kind(const Chunk& c, const Adam& k, std::int64_t begin,
                                std::int64_t end) {
    T* __restrict param = c.param;
    const T* __restrict grad = c.grad;
    T* __restrict mean = c.exp_avg;
    T* __restrict square = c.exp_avg_sq;
    T* __restrict largest = c.max_exp_avg_sq;
    const auto [step_size, root_scale, fresh1, beta2, fresh2, eps, decay, keep, shrinks, decays] =
        k;
    for (std::int64_t i = begin; i < end; ++i) {
      const T p = shrinks ? param[i] * keep : param[i];
      const T g = decays ? grad[i] + decay * p : grad[i];
      const T m = mean[i] + fresh1 * (g - mean[i]);
      T v = square[i] * beta2 + fresh2 * g * g;
      mean[i] = m;
      square[i] = v;
      if constexpr (kMax) v = largest[i] = largest[i] > v ? largest[i] : v;
      param[i] = p + step_size * m / (std::sqrt(v) * root_scale + eps);
    }
  }
  TUTTI_INLINE static void run(const Chunk& c, const Adam& k, std::int64_t begin,
                               std::int64_t end) {
    if (c.max_exp_avg_sq)
      kind<true>(c, k, begin, end);
    else
      kind<false>(c, k, begin, end);
  }
};

template <class T>
struct Rmsprop {
  using Chunk = RmspropChunk<T>;
  T lr, alpha, fresh, eps, decay, momentum;
  bool decays;
  explicit Rmsprop(const Chunk& c)
      : lr(at<T>(-c.args->lr)),
        alpha(at<T>(c.args->alpha)),
        fresh(at<T>(1 - c.args->alpha)),
        eps(at<T>(c.args->eps)),
        decay(at<T>(c.args->weight_decay)),
        momentum(at<T>(c.args->momentum)),
        decays(c.args->weight_decay != 0) {}
  static bool same(const Chunk& a, const Chunk& b) { return a.args == b.args; }

  template <bool kCentered, bool kMomentum>
  TUTTI_INLINE static void kind(const Chunk& c, const Rmsprop& k, std::int64_t begin,
                                std::int64_t end) {
    T* __restrict param = c.param;
    const T* __restrict grad = c.grad;
    T* __restrict square_avg = c.square_avg;
    T* __restrict grad_avg = c.grad_avg;
    T* __restrict buffer = c.momentum;
    const auto [lr, alpha, fresh, eps, decay, momentum, decays] = k;
    for (std::int64_t i = begin; i < end; ++i) {
      const T g = decays ? grad[i] + decay * param[i] : grad[i];
      const T v = square_avg[i] = square_avg[i] * alpha + fresh * g * g;
      T spread = v;
      if constexpr (kCentered) {
        const T mean = grad_avg[i] = grad_avg[i] + fresh * (g - grad_avg[i]);
        spread = v - mean * mean;
      }
      const T root = std::sqrt(spread) + eps;
      if constexpr (kMomentum)
        param[i] += lr * (buffer[i] = buffer[i] * momentum + g / root);
      else
        param[i] += lr * g / root;
    }
  }
  TUTTI_INLINE static void run(const Chunk& c, const Rmsprop& k, std::int64_t begin,
                               std::int64_t end) {
    if (c.grad_avg)
      c.momentum ? kind<true, true>(c, k, begin, end) : kind<true, false>(c, k, begin, end);
    else
      c.momentum ? kind<false, true>(c, k, begin, end) : kind<false, false>(c, k, begin, end);
  }
};

template <class T>
struct Adagrad {
  using Chunk = AdagradChunk<T>;
  T lr, eps, decay;
  bool decays;
  explicit Adagrad(const Chunk& c)
      : lr(at<T>(-c.args->lr / (1 + static_cast<double>(c.step - 1) * c.args->lr_decay))),
        eps(at<T>(c.args->eps)),
        decay(at<T>(c.args->weight_decay)),
        decays(c.args->weight_decay != 0) {}
  static bool same(const Chunk& a, const Chunk& b) { return a.args == b.args && a.step == b.step; }

  TUTTI_INLINE static void run(const Chunk& c, const Adagrad& k, std::int64_t begin,
                               std::int64_t end) {
    T* __restrict param = c.param;
    const T* __restrict grad = c.grad;
    T* __restrict sums = c.sum;
    const auto [lr, eps, decay, decays] = k;
    for (std::int64_t i = begin; i < end; ++i) {
      const T g = decays ? grad[i] + decay * param[i] : grad[i];
      const T sum = sums[i] = sums[i] + g * g;
      param[i] += lr * g / (std::sqrt(sum) + eps);
    }
  }
};

}  // namespace

template <class T>
void sgd(std::span<const SgdChunk<T>> chunks) {
  run_all<Sgd<T>>(chunks);
}

template <class T>
void adam(std::span<const AdamChunk<T>> chunks) {
  run_all<Adam<T>>(chunks);
}

template <class T>
void rmsprop(std::span<const RmspropChunk<T>> chunks) {
  run_all<Rmsprop<T>>(chunks);
}

template <class T>
void adagrad(std::span<const AdagradChunk<T>> chunks) {
  run_all<Adagrad<T>>(chunks);
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
