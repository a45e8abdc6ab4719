// Running sums and products, and the recurrence that is their derivative, along an axis. A line has
// a team of threads: up to a warp for a short one, so that a block takes many lines, and a block
// for a long one. The team goes along in tiles, of which each thread folds a few elements and then
// learns what the threads before it have. Few and very long lines are cut into segments; a first
// launch folds these, a second one starts each with what is before it. Always the same order, no
// atomics.
#include <array>
#include <bit>
#include <cmath>
#include <type_traits>

#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/elementwise_types.h>
#include <tutti/cuda/launch.cuh>
#include <tutti/cuda/lines.h>
#include <tutti/cuda/team.cuh>

namespace tutti::cuda {
namespace {

constexpr unsigned kItems = 4;  // elements a thread has of a tile
constexpr std::int64_t kTile = std::int64_t{kBlock} * kItems;
constexpr std::int64_t kSegmentTiles = 4;  // of a segment, at least
constexpr std::int64_t kMostSegments = 64, kEnoughBlocks = 64;
constexpr std::int64_t kEnoughThreads = 1 << 15;

// ---- what is folded. A fold has a State, its neutral one, start(), and join(a, b) of what is
// before and what follows.

/// m * 2^(512 e), |m| between 2^-256 and 2^256 (but for 0, infinity and NaN): products over parts
/// of a line, which may be far out of range where the running product is not.
struct Scaled {
  double m;
  std::int64_t e;

  template <class T>
  static __device__ Scaled of(T x) {
    const Scaled s{static_cast<double>(x), 0};
    if constexpr (std::is_same_v<T, float>)
      return s;
    else
      return s.in_range().in_range();
  }
  __device__ Scaled in_range() const {
    const double size = std::fabs(m);
    const bool large = size > 0x1p256, small = size < 0x1p-256;
    return {m * (large ? 0x1p-512 : small ? 0x1p512 : 1.0), e + large - small};
  }
  __device__ Scaled operator*(const Scaled& o) const { return Scaled{m * o.m, e + o.e}.in_range(); }
  __device__ double value() const {
    const double step = e > 0 ? 0x1p512 : 0x1p-512;
    double v = m;
    // More than three steps change nothing: it is infinite or 0.
    for (std::int64_t k = min(e > 0 ? e : -e, std::int64_t{3}); k > 0; --k) v *= step;
    return v;
  }
};

/// Floating values are added up in double; integers wrap around.
template <class T>
struct Sum {
  using State = std::conditional_t<std::is_floating_point_v<T>, double, std::uint64_t>;
  static __device__ State start() { return State(0); }
  static __device__ State of(T x) { return static_cast<State>(x); }
  static __device__ State join(State a, State b) { return a + b; }
  static __device__ T value(State s) { return static_cast<T>(s); }
};
template <class T>
struct Product {
  static constexpr bool kReal = std::is_floating_point_v<T>;
  using State = std::conditional_t<kReal, Scaled, std::uint64_t>;
  static __device__ State start() { return of(T(1)); }
  static __device__ State of(T x) {
    if constexpr (kReal)
      return Scaled::of(x);
    else
      return static_cast<State>(x);
  }
  static __device__ State join(State a, State b) { return a * b; }
  static __device__ T value(State s) {
    if constexpr (kReal)
      return static_cast<T>(s.value());
    else
      return static_cast<T>(s);
  }
};

/// out[i] = the fold of x[0], ..., x[i].
template <class Fold, class T>
struct Running {
  static constexpr std::size_t kOperands = 2;
  using State = typename Fold::State;
  const T* x;
  T* out;
  std::int64_t step, out_step;

  static __device__ State start() { return Fold::start(); }
  static __device__ State join(State a, State b) { return Fold::join(a, b); }
  __device__ void go_to(const std::int32_t (&at)[2]) {
    x += at[0];
    out += at[1];
  }
  __device__ State item(std::int64_t i) const { return Fold::of(x[i * step]); }
  __device__ void put(std::int64_t i, State s) const { out[i * out_step] = Fold::value(s); }
};

/// out[i] = p[i] * out[i - 1] + q[i], from 0: the fold of the functions s -> p[i] s + q[i].
template <class T>
struct Recurrence {
  static constexpr std::size_t kOperands = 3;
  struct State {
    Scaled factor;
    double summand;
  };
  const T *p, *q;
  T* out;
  std::int64_t p_step, q_step, out_step;

  static __device__ State start() { return {Scaled::of(T(1)), 0}; }
  static __device__ State join(const State& a, const State& b) {
    return {a.factor * b.factor, (b.factor * Scaled::of(a.summand)).value() + b.summand};
  }
  __device__ void go_to(const std::int32_t (&at)[3]) {
    p += at[0];
    q += at[1];
    out += at[2];
  }
  __device__ State item(std::int64_t i) const {
    // The first factor is not used, whatever it is.
    return {Scaled::of(i == 0 ? T(0) : p[i * p_step]), static_cast<double>(q[i * q_step])};
  }
  __device__ void put(std::int64_t i, const State& s) const {
    out[i * out_step] = static_cast<T>(s.summand);
  }
};

// ---- the kernel

/// s of the lane `down` before this one, or of lane `from`, among `width` lanes.
template <class S>
struct Words {
  std::uint32_t at[sizeof(S) / 4];
};
template <class S>
__device__ S lane_before(const S& s, unsigned down, int width) {
  Words<S> w = std::bit_cast<Words<S>>(s);
  for (std::uint32_t& v : w.at) v = __shfl_up_sync(0xffffffffu, v, down, width);
  return std::bit_cast<S>(w);
}
template <class S>
__device__ S lane(const S& s, int from, int width) {
  Words<S> w = std::bit_cast<Words<S>>(s);
  for (std::uint32_t& v : w.at) v = __shfl_sync(0xffffffffu, v, from, width);
  return std::bit_cast<S>(w);
}

/// The fold of what the threads before this one in its team have, and of what all of them have. All
/// threads of the block call it. A team is `width` lanes of a warp, or with kBlockwide the block,
/// whose `shared` has a place for each warp.
template <bool kBlockwide, class F, class S = typename F::State>
__device__ void team_scan(const S& own, int width, S* shared, S& before, S& all) {
  const int place = static_cast<int>(threadIdx.x) % width;
  S upto = own;
  for (int down = 1; down < width; down *= 2) {
    const S other = lane_before(upto, static_cast<unsigned>(down), width);
    if (place >= down) upto = F::join(other, upto);
  }
  before = lane_before(upto, 1, width);
  if (place == 0) before = F::start();
  all = lane(upto, width - 1, width);
  if constexpr (kBlockwide) {
    const unsigned warp = threadIdx.x / kWarp;
    __syncthreads();  // an earlier tile has been read
    if (place == 0) shared[warp] = all;
    __syncthreads();
    S earlier = F::start();
    all = earlier;
    for (unsigned w = 0; w < kBlock / kWarp; ++w) {
      if (w == warp) earlier = all;
      all = F::join(all, shared[w]);
    }
    before = F::join(earlier, before);
  }
}

struct ScanShape {
  unsigned lines;
  int width;  // lanes of a line, unless it has a block
  std::int64_t length, per_segment;
};

/// Scans segment blockIdx.y of each line, after the `totals` of those before it; or, totals_only,
/// computes these. Lines past the last one are worked on, too: as the last one, unwritten.
template <bool kBlockwide, class F>
__global__ void scan(const __grid_constant__ ScanShape s,
                     const __grid_constant__ Layout<F::kOperands> layout, F f,
                     typename F::State* totals, bool totals_only) {
  using State = typename F::State;
  __shared__ alignas(16) unsigned char memory[kBlock / kWarp * sizeof(State)];
  const unsigned team = kBlockwide ? kBlock : static_cast<unsigned>(s.width);
  const unsigned line = blockIdx.x * (blockDim.x / team) + threadIdx.x / team;
  const unsigned place = threadIdx.x % team;
  const bool there = line < s.lines;
  std::int32_t at[F::kOperands];
  layout.find(there ? line : s.lines - 1, at);
  f.go_to(at);
  const std::int64_t begin = blockIdx.y * s.per_segment, end = min(s.length, begin + s.per_segment);
  State carry = F::start();
  if (kBlockwide && !totals_only)
    for (unsigned k = 0; k < blockIdx.y; ++k) carry = F::join(carry, totals[k * s.lines + line]);
  for (std::int64_t tile = begin; tile < end; tile += team * kItems) {
    const std::int64_t first = tile + place * kItems;
    State items[kItems], own = F::start(), before, all;
#pragma unroll
    for (unsigned k = 0; k < kItems; ++k) {
      items[k] = first + k < end ? f.item(first + k) : F::start();
      own = F::join(own, items[k]);
    }
    team_scan<kBlockwide, F>(own, kBlockwide ? kWarp : s.width, reinterpret_cast<State*>(memory),
                             before, all);
    State upto = F::join(carry, before);
#pragma unroll
    for (unsigned k = 0; k < kItems; ++k) {
      upto = F::join(upto, items[k]);
      if (there && !totals_only && first + k < end) f.put(first + k, upto);
    }
    carry = F::join(carry, all);
  }
  if (kBlockwide && totals_only && threadIdx.x == 0) totals[blockIdx.y * s.lines + line] = carry;
}

/// Threads for a line: enough for a tile, but where neighbouring lines are neighbours in memory no
/// more than are needed to keep a device busy, since then threads side by side had better take
/// these.
template <std::size_t N>
int width_of(const Lines<N>& l, std::int64_t lines) {
  const std::int64_t wanted = (l.length + kItems - 1) / kItems;
  const bool across = l.steps[0] != 1 && !l.lines.axes.empty() && l.lines.axes[0].strides[0] == 1;
  int width = 1;
  while (width < static_cast<int>(kBlock) && width < wanted &&
         !(across && lines * width >= kEnoughThreads))
    width *= 2;
  return width;
}

template <class F>
void run_scan(const F& f, const Lines<F::kOperands>& l, Device device) {
  const Work work(device);
  ScanShape s;
  s.lines = static_cast<unsigned>(l.lines.elements());
  s.width = width_of(l, s.lines);
  s.length = s.per_segment = l.length;
  const auto layout = l.lines.layout();
  using State = typename F::State;
  State* const none = nullptr;
  if (s.width < static_cast<int>(kBlock)) {
    s.width = std::min(s.width, kWarp);
    const std::int64_t threads = std::int64_t{s.lines} * s.width;
    const unsigned block = block_for(threads);
    launch(scan<false, F>, blocks_for(threads, block), block, work, s, layout, f, none, false);
    return;
  }
  const std::int64_t tiles = (l.length + kTile - 1) / kTile;
  std::int64_t segments = 1;
  if (s.lines < kEnoughBlocks && tiles >= 2 * kSegmentTiles)
    segments = std::min(kMostSegments, tiles / kSegmentTiles);
  s.per_segment = (tiles + segments - 1) / segments * kTile;
  segments = (l.length + s.per_segment - 1) / s.per_segment;
  const dim3 grid(s.lines, static_cast<unsigned>(segments));
  if (segments == 1) {
    launch(scan<true, F>, grid, kBlock, work, s, layout, f, none, false);
    return;
  }
  const Scratch totals(static_cast<std::size_t>(segments) * s.lines * sizeof(State), work);
  launch(scan<true, F>, grid, kBlock, work, s, layout, f, totals.as<State>(), true);
  launch(scan<true, F>, grid, kBlock, work, s, layout, f, totals.as<State>(), false);
}

/// The types running values come in: cumsum and cumprod turn bool and smaller integers into int64.
template <class F>
void with_running(DType t, const F& f) {
  if (t == kInt64)
    f.template operator()<std::int64_t>();
  else
    kernels::detail::with_float(t, f);
}

template <template <class> class Fold>
void run_running(Inputs in, Inputs out, const Attrs& a, const char* op) {
  if (in[0].numel() == 0) return;
  const Lines<2> lines({&in[0], &out[0]}, a.dims[0], op);
  with_running(in[0].dtype(), [&]<class T>() {
    run_scan(Running<Fold<T>, T>{static_cast<const T*>(in[0].raw()), static_cast<T*>(out[0].raw()),
                                 lines.steps[0], lines.steps[1]},
             lines, out[0].device());
  });
}

}  // namespace
}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

void cumsum(Inputs in, Inputs out, const Attrs& a) {
  tutti::cuda::run_running<tutti::cuda::Sum>(in, out, a, "cumsum");
}
void cumprod(Inputs in, Inputs out, const Attrs& a) {
  tutti::cuda::run_running<tutti::cuda::Product>(in, out, a, "cumprod");
}

void recurrence(Inputs in, Inputs out, const Attrs& a) {
  if (out[0].numel() == 0) return;
  const tutti::cuda::Lines<3> lines({&in[0], &in[1], &out[0]}, a.dims[0], "cumprod");
  detail::with_float(out[0].dtype(), [&]<class T>() {  // a derivative
    tutti::cuda::run_scan(tutti::cuda::Recurrence<T>{static_cast<const T*>(in[0].raw()),
                                                     static_cast<const T*>(in[1].raw()),
                                                     static_cast<T*>(out[0].raw()), lines.steps[0],
                                                     lines.steps[1], lines.steps[2]},
                          lines, out[0].device());
  });
}

}  // namespace tutti::kernels::cuda
