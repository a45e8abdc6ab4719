// Optimizer steps. Each step is a struct with run(), which handles a piece of one chunk and is
// compiled for each instruction set (per_isa.h), with the same results.
#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include <tutti/core/kernels/optim.h>
#include <tutti/core/kernels/per_isa.h>
#include <tutti/core/parallel.h>

namespace tutti::kernels {
namespace {

constexpr std::int64_t kShare = 1 << 13;  // elements worth a thread: some microseconds

/// The first `at` of `total` parts of n elements, up to the next multiple of kLine.
std::int64_t part_of(std::int64_t n, std::int64_t at, std::int64_t total) {
  constexpr std::int64_t kLine = 16;  // no two threads write to one line of the cache
  if (at == total) return n;
  const double exact =
      static_cast<double>(n) / static_cast<double>(total) * static_cast<double>(at);
  return std::min(n, (static_cast<std::int64_t>(exact) + kLine - 1) / kLine * kLine);
}

/// Elements of a chunk: lines of `width` of them. `at` is where the first one is in parameter and
/// state, and `pitch` how far apart lines are; likewise in the gradient.
struct Lines {
  std::int64_t width, count = 1, at = 0, pitch = 0, grad_at = 0, grad_pitch = 0;
};
/// Those from begin to end where all are contiguous.
Lines contiguous(std::int64_t begin, std::int64_t end) {
  return {.width = end - begin, .at = begin, .grad_at = begin};
}

/// Runs Step on lines, one after the other.
template <class Step>
struct LineByLine {
  TUTTI_INLINE static void run(const typename Step::Chunk& c, const typename Step::Constants& k,
                               const Lines& lines) {
    // Copies: for all the compiler knows, steps change what is behind references.
    const typename Step::Constants constants = k;
    const Lines l = lines;
    typename Step::Chunk line = c;
    line.grad += l.grad_at;
    for (auto* p : Step::updated(line))
      if (*p) *p += l.at;
    const auto run_all = [&](auto of_width) TUTTI_INLINE_LAMBDA {
      for (std::int64_t i = 0; i < l.count; ++i) {
        Step::run(line, constants, of_width);
        line.grad += l.grad_pitch;
        for (auto* p : Step::updated(line))
          if (*p) *p += l.pitch;
      }
    };
    // Where a line is one vector, a loop of any length around it would take longer than the step.
    constexpr std::integral_constant<std::int64_t, 64 / sizeof(*c.grad)> kVector;
    l.width == kVector ? run_all(kVector) : run_all(l.width);
  }
};
template <class Step>
using Sweep = void (*)(const typename Step::Chunk& c, const typename Step::Constants& k,
                       const Lines& lines);

/// Runs Step on contiguous elements and fetches parameters and state some elements before their
/// turn. Where they come from memory, loads alone would wait for it; in the caches it costs more
/// than it gives.
template <class Step>
void run_fetching(Sweep<Step> sweep, const typename Step::Chunk& c,
                  const typename Step::Constants& k, std::int64_t begin, std::int64_t end) {
#ifdef __GNUC__
  constexpr std::int64_t kPiece = 256, kAhead = 2 * kPiece;
  constexpr auto kLine = static_cast<std::int64_t>(64 / sizeof(*c.param));
  typename Step::Chunk later = c;
  for (; end - begin > kPiece; begin += kPiece) {
    for (auto* p : Step::updated(later))
      for (std::int64_t i = begin; *p && i < begin + kPiece; i += kLine)
        __builtin_prefetch(*p + i + kAhead, 1);
    sweep(c, k, contiguous(begin, begin + kPiece));
  }
#endif
  sweep(c, k, contiguous(begin, end));
}

/// Runs Step on a part of a chunk whose members have rows of numbers of their own.
template <class Step>
void run_by_member(Sweep<Step> sweep, const typename Step::Chunk& c, std::int64_t begin,
                   std::int64_t end) {
  const std::int64_t each = c.numbers.each;
  for (std::int64_t m = begin / each; begin < end; ++m) {
    const std::int64_t stop = std::min((m + 1) * each, end);
    sweep(c, typename Step::Constants(c.numbers.rows[m]), contiguous(begin, stop));
    begin = stop;
  }
}

template <class Step, class Chunk>
void run_lines(Sweep<Step> sweep, const Chunk& c, const Access& access) {
  const typename Step::Constants constants(*c.numbers.rows);
  const std::int64_t grain = std::max<std::int64_t>(1, kShare / access.width);
  parallel_for(c.size / access.width, grain, [&](std::int64_t begin, std::int64_t end) {
    sweep(c, constants,
          {access.width, end - begin, begin * access.pitch, access.pitch, begin * access.grad_pitch,
           access.grad_pitch});
  });
}

/// Runs Step on each piece of the gradient as it is made.
template <class Step, class Chunk>
void run_pieces(Sweep<Step> sweep, Chunk c, const Access& access) {
  const typename Step::Constants constants(*c.numbers.rows);
  const auto take = [&](const Piece& piece) {
    c.grad = static_cast<decltype(c.grad)>(piece.data);
    sweep(c, constants,
          {piece.width, piece.end - piece.begin, piece.begin * access.pitch + piece.first,
           access.pitch, 0, piece.pitch});
  };
  access.grad->make(PieceTaker(take));
}

/// Runs Step on all chunks.
template <class Step, class Chunk>
void run_all(std::span<const Chunk> chunks, const Access& access) {
  const Sweep<Step> sweep = version<LineByLine<Step>>();
  if (access.grad) {
    run_pieces<Step>(sweep, chunks[0], access);
    return;
  }
  if (access.width > 0) {
    for (const Chunk& c : chunks) run_lines<Step>(sweep, c, access);
    return;
  }
  std::int64_t total = 0;
  for (const Chunk& c : chunks) total += c.size;
  // Each thread takes the same part of all chunks, and so the same members as in other kernels:
  // what it updates is in its core's cache.
  parallel_for(total, kShare, [&](std::int64_t first, std::int64_t last) {
    typename Step::Constants constants;
    const void* made_of = nullptr;
    for (const Chunk& c : chunks) {
      const std::int64_t begin = part_of(c.size, first, total), end = part_of(c.size, last, total);
      if (begin == end) continue;
      if (c.numbers.each > 0) {
        run_by_member<Step>(sweep, c, begin, end);
        continue;
      }
      if (c.numbers.rows != made_of) constants = typename Step::Constants(*c.numbers.rows);
      made_of = c.numbers.rows;
      if (access.far)
        run_fetching<Step>(sweep, c, constants, begin, end);
      else
        sweep(c, constants, contiguous(begin, end));
    }
  });
}

template <class T>
struct Sgd {
  using Chunk = SgdChunk<T>;
  using Constants = SgdConstants<T>;
  /// Where the pointers to what a step changes are.
  TUTTI_INLINE static auto updated(auto& c) { return std::array{&c.param, &c.momentum}; }

  TUTTI_INLINE static void run(const Chunk& c, const Constants& k, std::int64_t n) {
    T* __restrict param = c.param;
    const T* __restrict grad = c.grad;
    const auto [lr, decay, momentum, fresh, decays, remembers] = k;
    if (!remembers) {
      TUTTI_INDEPENDENT for (std::int64_t i = 0; i < n; ++i) {
        const T g = decays ? grad[i] + decay * param[i] : grad[i];
        param[i] += lr * g;
      }
      return;
    }
    T* __restrict buffer = c.momentum;
    const bool first = c.first, nesterov = c.nesterov;
    TUTTI_INDEPENDENT for (std::int64_t i = 0; i < n; ++i) {
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
  using Constants = AdamConstants<T>;
  TUTTI_INLINE static auto updated(auto& c) {
    return std::array{&c.param, &c.exp_avg, &c.exp_avg_sq, &c.max_exp_avg_sq};
  }

  template <bool kMax>
  TUTTI_INLINE static void kind(const Chunk& c, const Constants& k, std::int64_t n) {
    T* __restrict param = c.param;
    const T* __restrict grad = c.grad;
    T* __restrict mean = c.exp_avg;
    T* __restrict square = c.exp_avg_sq;
    T* __restrict largest = c.max_exp_avg_sq;
    const auto [step_size, root_scale, fresh1, beta2, fresh2, eps, decay, keep, shrinks, decays] =
        k;
    TUTTI_INDEPENDENT for (std::int64_t i = 0; i < n; ++i) {
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
  TUTTI_INLINE static void run(const Chunk& c, const Constants& k, std::int64_t n) {
    if (c.max_exp_avg_sq)
      kind<true>(c, k, n);
    else
      kind<false>(c, k, n);
  }
};

template <class T>
struct Rmsprop {
  using Chunk = RmspropChunk<T>;
  using Constants = RmspropConstants<T>;
  TUTTI_INLINE static auto updated(auto& c) {
    return std::array{&c.param, &c.square_avg, &c.grad_avg, &c.momentum};
  }

  template <bool kCentered, bool kMomentum>
  TUTTI_INLINE static void kind(const Chunk& c, const Constants& k, std::int64_t n) {
    T* __restrict param = c.param;
    const T* __restrict grad = c.grad;
    T* __restrict square_avg = c.square_avg;
    T* __restrict grad_avg = c.grad_avg;
    T* __restrict buffer = c.momentum;
    const auto [lr, alpha, fresh, eps, decay, momentum, decays, remembers] = k;
    TUTTI_INDEPENDENT for (std::int64_t i = 0; i < n; ++i) {
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
  TUTTI_INLINE static void run(const Chunk& c, const Constants& k, std::int64_t n) {
    if (c.grad_avg)
      k.remembers ? kind<true, true>(c, k, n) : kind<true, false>(c, k, n);
    else
      k.remembers ? kind<false, true>(c, k, n) : kind<false, false>(c, k, n);
  }
};

template <class T>
struct Adagrad {
  using Chunk = AdagradChunk<T>;
  using Constants = AdagradConstants<T>;
  TUTTI_INLINE static auto updated(auto& c) { return std::array{&c.param, &c.sum}; }

  TUTTI_INLINE static void run(const Chunk& c, const Constants& k, std::int64_t n) {
    T* __restrict param = c.param;
    const T* __restrict grad = c.grad;
    T* __restrict sums = c.sum;
    const auto [lr, eps, decay, decays] = k;
    TUTTI_INDEPENDENT for (std::int64_t i = 0; i < n; ++i) {
      const T g = decays ? grad[i] + decay * param[i] : grad[i];
      const T sum = sums[i] = sums[i] + g * g;
      param[i] += lr * g / (std::sqrt(sum) + eps);
    }
  }
};

}  // namespace

double AdamStep::correction(Correction& known, double beta) const {
  if (beta != known.beta) known = {beta, 1 - std::pow(beta, step_)};
  return known.value;
}

AdamNumbers AdamStep::operator()(double lr, double beta1, double beta2, double eps,
                                 double weight_decay) {
  return {.step_size = lr / correction(first_, beta1),
          .root_scale = 1 / std::sqrt(correction(second_, beta2)),
          .beta1 = beta1,
          .beta2 = beta2,
          .eps = eps,
          .weight_decay = decoupled_ ? 0 : weight_decay,
          .keep = decoupled_ && weight_decay != 0 ? 1 - lr * weight_decay : 1};
}

template <class T>
void sgd(std::span<const SgdChunk<T>> chunks, const Access& access) {
  run_all<Sgd<T>>(chunks, access);
}

template <class T>
void adam(std::span<const AdamChunk<T>> chunks, const Access& access) {
  run_all<Adam<T>>(chunks, access);
}

template <class T>
void rmsprop(std::span<const RmspropChunk<T>> chunks, const Access& access) {
  run_all<Rmsprop<T>>(chunks, access);
}

template <class T>
void adagrad(std::span<const AdagradChunk<T>> chunks, const Access& access) {
  run_all<Adagrad<T>>(chunks, access);
}

template void sgd(std::span<const SgdChunk<float>>, const Access&);
template void sgd(std::span<const SgdChunk<double>>, const Access&);
template void adam(std::span<const AdamChunk<float>>, const Access&);
template void adam(std::span<const AdamChunk<double>>, const Access&);
template void rmsprop(std::span<const RmspropChunk<float>>, const Access&);
template void rmsprop(std::span<const RmspropChunk<double>>, const Access&);
template void adagrad(std::span<const AdagradChunk<float>>, const Access&);
template void adagrad(std::span<const AdagradChunk<double>>, const Access&);

}  // namespace tutti::kernels
