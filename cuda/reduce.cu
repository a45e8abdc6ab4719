// Reductions, by blocks of lanes and slots, see seats.cuh. Lanes fold their elements, then a tree
// in shared memory folds the lanes. The results of segments are folded in order by a second kernel.
// No atomics: the same bits every time.
#include <limits>
#include <optional>
#include <type_traits>

#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/lines.h>
#include <tutti/core/kernels/reduce.h>
#include <tutti/cuda/layout.h>
#include <tutti/cuda/seats.cuh>

namespace tutti::cuda {
namespace {

/// A fold of reduce.h.
template <class P, class T>
struct Plain {
  using Acc = typename P::Acc;
  TUTTI_HD static Acc start() { return P::start(); }
  TUTTI_HD static Acc add(Acc a, T x, unsigned) { return P::add(a, x); }
  TUTTI_HD static Acc merge(Acc a, Acc b) { return P::merge(a, b); }
  template <class Out>
  TUTTI_HD static Out finish(Acc a) {
    return static_cast<Out>(a);
  }
};

/// The place of the first extreme; NaN wins.
template <bool kLargest, class T>
struct Place {
  struct Acc {
    T value;
    unsigned at;
  };
  static constexpr unsigned kNone = 0xffffffffu;
  TUTTI_HD static Acc start() { return {T(0), kNone}; }
  TUTTI_HD static Acc add(Acc a, T x, unsigned i) { return merge(a, Acc{x, i}); }
  TUTTI_HD static Acc merge(Acc a, Acc b) {
    if (a.at == kNone || b.at == kNone) return a.at == kNone ? b : a;
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return a_nan ? a : b;
    const bool tie = a_nan || a.value == b.value;
    if (tie) return a.at < b.at ? a : b;
    return (kLargest ? a.value > b.value : a.value < b.value) ? a : b;
  }
  template <class Out>
  TUTTI_HD static Out finish(Acc a) {
    return static_cast<Out>(a.at);
  }
};

struct Shape2 {
  Layout<2> kept;     // {result, input}
  Layout<1> reduced;  // {input}
  unsigned results, length;
  unsigned segments, per_segment;
  bool lanes_along_x;
};

template <class F>
struct Merge {
  __device__ auto operator()(typename F::Acc a, typename F::Acc b) const { return F::merge(a, b); }
};

template <class F, class T, class Out>
__global__ void reduce(const __grid_constant__ Shape2 s, const T* in, Out* out,
                       typename F::Acc* partial) {
  using Acc = typename F::Acc;
  __shared__ alignas(16) unsigned char memory[kBlock * sizeof(Acc)];
  Acc* const shared = reinterpret_cast<Acc*>(memory);
  const Seat seat(s.lanes_along_x);
  const unsigned result = blockIdx.x * seat.slots + seat.slot;
  std::int32_t at[2] = {0, 0};
  Acc total = F::start();
  if (result < s.results) {
    s.kept.find(result, at);
    const unsigned begin = blockIdx.y * s.per_segment;
    const unsigned end = min(s.length, begin + s.per_segment);
    for (unsigned i = begin + seat.lane; i < end;) {
      Acc run = F::start();
      for (unsigned k = 0; k < kRun && i < end; ++k, i += seat.lanes) {
        std::int32_t from[1];
        s.reduced.find(i, from);
        run = F::add(run, in[at[1] + from[0]], i);
      }
      total = F::merge(total, run);
    }
  }
  total = fold_lanes(seat, total, shared, Merge<F>());
  if (seat.lane != 0 || result >= s.results) return;
  if (partial)
    partial[blockIdx.y * s.results + result] = total;
  else
    out[at[0]] = F::template finish<Out>(total);
}

/// Folds the segments of each result.
template <class F, class Out>
__global__ void reduce_segments(const __grid_constant__ Layout<2> kept, unsigned results,
                                unsigned segments, const typename F::Acc* partial, Out* out) {
  const unsigned result = blockIdx.x * blockDim.x + threadIdx.x;
  if (result >= results) return;
  typename F::Acc total = F::start();
  for (unsigned i = 0; i < segments; ++i) total = F::merge(total, partial[i * results + result]);
  std::int32_t at[2];
  kept.find(result, at);
  out[at[0]] = F::template finish<Out>(total);
}

struct Launch {
  Shape2 shape;
  dim3 grid, block;
};

/// How the axes of x are walked along; nothing if there are too many that cannot be merged.
std::optional<Launch> plan(const Tensor& x, const Tensor& out, const Shape& dims, const char* op) {
  const IntArrayRef sizes = x.sizes(), strides = x.strides();
  Axes<2> kept;
  Axes<1> reduced;
  Shape result_sizes;
  for (std::size_t d = 0; d < sizes.size(); ++d)
    if (std::find(dims.begin(), dims.end(), static_cast<std::int64_t>(d)) == dims.end())
      result_sizes.push_back(sizes[d]);
  const Shape to = contiguous_strides(result_sizes);
  std::size_t next = to.size();
  for (std::size_t d = sizes.size(); d-- > 0;) {
    if (std::find(dims.begin(), dims.end(), static_cast<std::int64_t>(d)) == dims.end())
      kept.add(sizes[d], {to[--next], strides[d]});
    else
      reduced.add(sizes[d], {strides[d]});
  }
  kept.merge();
  reduced.merge();
  if (!kept.fits() || !reduced.fits()) {
    check<NotImplementedError>(!x.is_contiguous(), op,
                               "expected an input below 2^31 elements, got ", x.sizes(),
                               "; reduce it in parts");
    return std::nullopt;
  }
  Launch l;
  Shape2& s = l.shape;
  s.kept = kept.layout();
  s.reduced = reduced.layout();
  s.results = static_cast<unsigned>(out.numel());
  s.length = static_cast<unsigned>(reduced.elements());
  const std::int64_t across = kept.axes.empty() ? kMostElements : kept.axes[0].strides[1];
  const std::int64_t along = reduced.axes.empty() ? kMostElements : reduced.axes[0].strides[0];
  s.lanes_along_x = along <= across;
  const Seating seating(s.results, s.length, s.lanes_along_x);
  s.segments = seating.segments;
  s.per_segment = seating.per_segment;
  l.grid = seating.grid;
  l.block = seating.block;
  return l;
}

template <class F, class T, class Out>
void run(const Tensor& x, const Tensor& out, const Shape& dims, const char* op) {
  if (out.numel() == 0) return;
  if (x.numel() == 0) return kernels::cuda::fill(out, Scalar(F::template finish<Out>(F::start())));
  const std::optional<Launch> planned = plan(x, out, dims, op);
  if (!planned) return run<F, T, Out>(contiguous_on_device(x), out, dims, op);
  const Launch& l = *planned;
  const Shape2& s = l.shape;
  const Work work(out.device());
  const T* const from = static_cast<const T*>(x.raw());
  Out* const to = static_cast<Out*>(out.raw());
  using Acc = typename F::Acc;
  if (s.segments == 1) {
    launch(reduce<F, T, Out>, l.grid, l.block, work, s, from, to, static_cast<Acc*>(nullptr));
    return;
  }
  const Scratch partial(std::size_t{s.segments} * s.results * sizeof(Acc), work);
  launch(reduce<F, T, Out>, l.grid, l.block, work, s, from, to, partial.as<Acc>());
  const unsigned block = block_for(s.results);
  launch(reduce_segments<F, Out>, blocks_for(s.results, block), block, work, s.kept, s.results,
         s.segments, partial.as<Acc>(), to);
}

template <class T>
using SumOf = std::conditional_t<std::is_floating_point_v<T>, T, std::int64_t>;

}  // namespace
}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

using tutti::cuda::Place;
using tutti::cuda::Plain;
using tutti::cuda::SumOf;

#define TUTTI_REDUCTION(name, Fold, Out)                                               \
  void name(Inputs in, Inputs out, const Attrs& a) {                                   \
    dispatch_full(in[0].dtype(), [&]<class T>() {                                      \
      tutti::cuda::run<Plain<fold::Fold<T>, T>, T, Out>(in[0], out[0], a.dims, #name); \
    });                                                                                \
  }
TUTTI_REDUCTION(sum, Sum, SumOf<T>)
TUTTI_REDUCTION(prod, Prod, SumOf<T>)
TUTTI_REDUCTION(amax, Max, T)
TUTTI_REDUCTION(amin, Min, T)
TUTTI_REDUCTION(any, Any, bool)
TUTTI_REDUCTION(all, All, bool)
#undef TUTTI_REDUCTION

void argmax(Inputs in, Inputs out, const Attrs& a) {
  dispatch_full(in[0].dtype(), [&]<class T>() {
    tutti::cuda::run<Place<true, T>, T, std::int64_t>(in[0], out[0], a.dims, "argmax");
  });
}
void argmin(Inputs in, Inputs out, const Attrs& a) {
  dispatch_full(in[0].dtype(), [&]<class T>() {
    tutti::cuda::run<Place<false, T>, T, std::int64_t>(in[0], out[0], a.dims, "argmin");
  });
}

}  // namespace tutti::kernels::cuda
