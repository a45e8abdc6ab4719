// Optimizer steps. Each step is a struct with run(), which handles a piece of one chunk and is
// compiled for each instruction set (per_isa.h), with the same results.
#include <algorithm>
#include <array>
#include <cmath>

#include <tutti/core/kernels/optim.h>
#include <tutti/core/kernels/per_isa.h>
#include <tutti/core/parallel.h>
#include <tutti/core/small_vec.h>

namespace tutti::kernels {
namespace {

constexpr std::int64_t kBlock = 2048;  // elements; a microsecond or two

/// Runs Step piece by piece and fetches parameters and state some pieces before their turn. Where
/// they come from memory, loads alone would wait for it; in the caches it costs more than it gives.
template <class Step>
struct Fetching {
  TUTTI_INLINE static void run(const typename Step::Chunk& c, const typename Step::Constants& k,
                               std::int64_t begin, std::int64_t end) {
#ifdef __GNUC__
    constexpr std::int64_t kPiece = 256, kAhead = 2 * kPiece;
    constexpr auto kLine = static_cast<std::int64_t>(64 / sizeof(*c.param));
    for (; end - begin > kPiece; begin += kPiece) {
      for (auto* p : Step::updated(c))
        for (std::int64_t i = begin; *p && i < begin + kPiece; i += kLine)
          __builtin_prefetch(*p + i + kAhead, 1);
      Step::run(c, k, begin, begin + kPiece);
    }
#endif
    Step::run(c, k, begin, end);
  }
};

/// Runs Step on a block of a chunk whose members have rows of numbers of their own.
template <class Step>
struct MemberByMember {
  TUTTI_INLINE static void run(const typename Step::Chunk& c, std::int64_t begin,
                               std::int64_t end) {
    const std::int64_t each = c.numbers.each;
    for (std::int64_t m = begin / each; begin < end; ++m) {
      const std::int64_t stop = std::min((m + 1) * each, end);
      Step::run(c, typename Step::Constants(c.numbers.rows[m]), begin, stop);
      begin = stop;
    }
  }
};

/// Runs Step on lines, one after the other.
template <class Step>
struct LineByLine {
  TUTTI_INLINE static void run(const typename Step::Chunk& c, const typename Step::Constants& k,
                               const Access& access, std::int64_t begin, std::int64_t end) {
    // Copies: for all the compiler knows, steps change what is behind references.
    const typename Step::Constants constants = k;
    const std::int64_t width = access.width, pitch = access.pitch, grad_pitch = access.grad_pitch;
    typename Step::Chunk line = c;
    line.grad += begin * grad_pitch;
    for (auto* p : Step::updated(line))
      if (*p) *p += begin * pitch;
    for (; begin < end; ++begin) {
      Step::run(line, constants, 0, width);
      line.grad += grad_pitch;
      for (auto* p : Step::updated(line))
        if (*p) *p += pitch;
    }
  }
};

template <class Step, class Chunk>
void run_lines(const Chunk& c, const Access& access) {
  const typename Step::Constants constants(*c.numbers.rows);
  const auto by_line = version<LineByLine<Step>>();
  const std::int64_t grain = std::max<std::int64_t>(1, 4 * kBlock / access.width);
  parallel_for(c.size / access.width, grain, [&](std::int64_t begin, std::int64_t end) {
    by_line(c, constants, access, begin, end);
  });
}

/// Runs Step on each piece of the gradient as it is made.
template <class Step, class Chunk>
void run_pieces(const Chunk& c, const Access& access) {
  const typename Step::Constants constants(*c.numbers.rows);
  const auto by_line = version<LineByLine<Step>>();
  const auto take = [&](const Piece& piece) {
    Chunk part = c;
    part.grad = static_cast<decltype(part.grad)>(piece.data);
    for (auto* p : Step::updated(part))
      if (*p) *p += piece.begin * access.pitch + piece.first;
    by_line(part, constants,
            {.width = piece.width, .pitch = access.pitch, .grad_pitch = piece.pitch}, 0,
            piece.end - piece.begin);
  };
  access.grad->make(PieceTaker(take));
}

/// Runs Step on all blocks of all chunks, several at once.
template <class Step, class Chunk>
void run_all(std::span<const Chunk> chunks, const Access& access) {
  if (access.grad) {
    run_pieces<Step>(chunks[0], access);
    return;
  }
  if (access.width > 0) {
    for (const Chunk& c : chunks) run_lines<Step>(c, access);
    return;
  }
  struct Work {
    typename Step::Constants constants;
    std::int64_t end;  // number of blocks up to and including this chunk
  };
  SmallVec<Work, 1> work;
  work.reserve(chunks.size());
  std::int64_t n = 0;
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    n += (chunks[i].size + kBlock - 1) / kBlock;
    const auto* rows = chunks[i].numbers.rows;
    const bool again = i > 0 && rows == chunks[i - 1].numbers.rows;
    work.push_back({again ? work[i - 1].constants : typename Step::Constants(*rows), n});
  }
  const auto shared = access.far ? version<Fetching<Step>>() : version<Step>();
  const auto by_member = version<MemberByMember<Step>>();
  parallel_for(n, 4, [&](std::int64_t first, std::int64_t last) {
    const Work* w = std::upper_bound(work.begin(), work.end(), first,
                                     [](std::int64_t b, const Work& x) { return b < x.end; });
    for (std::int64_t b = first; b < last; ++b) {
      while (b >= w->end) ++w;
      const std::int64_t begin = (b - (w == work.begin() ? 0 : w[-1].end)) * kBlock;
      const Chunk& c = chunks[static_cast<std::size_t>(w - work.begin())];
      const std::int64_t end = std::min(begin + kBlock, c.size);
      c.numbers.each == 0 ? shared(c, w->constants, begin, end) : by_member(c, begin, end);
    }
  });
}

template <class T>
struct Sgd {
  using Chunk = SgdChunk<T>;
  using Constants = SgdConstants<T>;
  /// Where the pointers to what a step changes are.
  TUTTI_INLINE static auto updated(auto& c) { return std::array{&c.param, &c.momentum}; }

  TUTTI_INLINE static void run(const Chunk& c, const Constants& k, std::int64_t begin,
                               std::int64_t end) {
    T* __restrict param = c.param;
    const T* __restrict grad = c.grad;
    const auto [lr, decay, momentum, fresh, decays, remembers] = k;
    if (!remembers) {
      TUTTI_INDEPENDENT for (std::int64_t i = begin; i < end; ++i) {
        const T g = decays ? grad[i] + decay * param[i] : grad[i];
        param[i] += lr * g;
      }
      return;
    }
    T* __restrict buffer = c.momentum;
    const bool first = c.first, nesterov = c.nesterov;
    TUTTI_INDEPENDENT for (std::int64_t i = begin; i < end; ++i) {
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
  TUTTI_INLINE static void kind(const Chunk& c, const Constants& k, std::int64_t begin,
                                std::int64_t end) {
    T* __restrict param = c.param;
    const T* __restrict grad = c.grad;
    T* __restrict mean = c.exp_avg;
    T* __restrict square = c.exp_avg_sq;
    T* __restrict largest = c.max_exp_avg_sq;
    const auto [step_size, root_scale, fresh1, beta2, fresh2, eps, decay, keep, shrinks, decays] =
        k;
    TUTTI_INDEPENDENT for (std::int64_t i = begin; i < end; ++i) {
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
  TUTTI_INLINE static void run(const Chunk& c, const Constants& k, std::int64_t begin,
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
  using Constants = RmspropConstants<T>;
  TUTTI_INLINE static auto updated(auto& c) {
    return std::array{&c.param, &c.square_avg, &c.grad_avg, &c.momentum};
  }

  template <bool kCentered, bool kMomentum>
  TUTTI_INLINE static void kind(const Chunk& c, const Constants& k, std::int64_t begin,
                                std::int64_t end) {
    T* __restrict param = c.param;
    const T* __restrict grad = c.grad;
    T* __restrict square_avg = c.square_avg;
    T* __restrict grad_avg = c.grad_avg;
    T* __restrict buffer = c.momentum;
    const auto [lr, alpha, fresh, eps, decay, momentum, decays, remembers] = k;
    TUTTI_INDEPENDENT for (std::int64_t i = begin; i < end; ++i) {
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
  TUTTI_INLINE static void run(const Chunk& c, const Constants& k, std::int64_t begin,
                               std::int64_t end) {
    if (c.grad_avg)
      k.remembers ? kind<true, true>(c, k, begin, end) : kind<true, false>(c, k, begin, end);
    else
      k.remembers ? kind<false, true>(c, k, begin, end) : kind<false, false>(c, k, begin, end);
  }
};

template <class T>
struct Adagrad {
  using Chunk = AdagradChunk<T>;
  using Constants = AdagradConstants<T>;
  TUTTI_INLINE static auto updated(auto& c) { return std::array{&c.param, &c.sum}; }

  TUTTI_INLINE static void run(const Chunk& c, const Constants& k, std::int64_t begin,
                               std::int64_t end) {
    T* __restrict param = c.param;
    const T* __restrict grad = c.grad;
    T* __restrict sums = c.sum;
    const auto [lr, eps, decay, decays] = k;
    TUTTI_INDEPENDENT for (std::int64_t i = begin; i < end; ++i) {
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
