// Running sums and products, a thread per line; sorting, a thread per element, which counts what
// stands before it: stable, and the same for lines of any length.
#include <type_traits>

#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/elementwise_types.h>
#include <tutti/core/kernels/lines.h>
#include <tutti/cuda/launch.cuh>
#include <tutti/cuda/layout.h>

namespace tutti::cuda {
namespace {

/// Running values are kept in double; integers wrap around.
template <class T>
using Wide = std::conditional_t<std::is_floating_point_v<T>, double, std::uint64_t>;

struct Sum {
  template <class T>
  static __device__ T start() {
    return T(0);
  }
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Product {
  template <class T>
  static __device__ T start() {
    return T(1);
  }
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a * b;
  }
};

/// The lines of equally shaped tensors along an axis.
template <std::size_t N>
struct Lines {
  Axes<N> lines;
  std::int64_t length, steps[N];

  Lines(const std::array<const Tensor*, N>& x, std::int64_t axis, const char* op)
      : length(x[0]->sizes()[static_cast<std::size_t>(axis)]) {
    const IntArrayRef sizes = x[0]->sizes();
    for (std::size_t d = sizes.size(); d-- > 0;) {
      std::array<std::int64_t, N> s;
      for (std::size_t k = 0; k < N; ++k) s[k] = x[k]->strides()[d];
      if (static_cast<std::int64_t>(d) == axis)
        std::copy(s.begin(), s.end(), steps);
      else
        lines.add(sizes[d], s);
    }
    lines.merge();
    check<NotImplementedError>(lines.fits(), op, "expected fewer than 2^31 elements, got shape ",
                               sizes, "; work in parts");
  }
};

template <class F, class T>
__global__ void scan(unsigned lines, const __grid_constant__ Layout<2> l, std::int64_t n,
                     std::int64_t step, std::int64_t to_step, const T* x, T* out) {
  const unsigned line = blockIdx.x * blockDim.x + threadIdx.x;
  if (line >= lines) return;
  std::int32_t at[2];
  l.find(line, at);
  Wide<T> state = F::template start<Wide<T>>();
  for (std::int64_t i = 0; i < n; ++i) {
    state = F()(state, static_cast<Wide<T>>(x[at[0] + i * step]));
    out[at[1] + i * to_step] = static_cast<T>(state);
  }
}

template <class T>
__global__ void recur(unsigned lines, const __grid_constant__ Layout<3> l, std::int64_t n,
                      std::int64_t p_step, std::int64_t q_step, std::int64_t to_step, const T* p,
                      const T* q, T* out) {
  const unsigned line = blockIdx.x * blockDim.x + threadIdx.x;
  if (line >= lines) return;
  std::int32_t at[3];
  l.find(line, at);
  Wide<T> state(0);
  for (std::int64_t i = 0; i < n; ++i) {
    const Wide<T> summand = static_cast<Wide<T>>(q[at[1] + i * q_step]);
    state = i == 0 ? summand : static_cast<Wide<T>>(p[at[0] + i * p_step]) * state + summand;
    out[at[2] + i * to_step] = static_cast<T>(state);
  }
}

/// Order of sort(): NaN is the largest.
template <class T>
__device__ bool less(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return a < b || (b != b && a == a);
  else
    return a < b;
}

template <class T>
__global__ void rank_sort(std::int64_t total, std::int64_t n, bool descending,
                          const __grid_constant__ Layout<3> l, std::int64_t step,
                          std::int64_t value_step, std::int64_t index_step, const T* x, T* values,
                          std::int64_t* indices) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= total) return;
  const std::int64_t line = i / n, mine = i - line * n;
  std::int32_t at[3];
  l.find(static_cast<std::uint32_t>(line), at);
  const T v = x[at[0] + mine * step];
  std::int64_t before = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    const T w = x[at[0] + j * step];
    const bool first = descending ? less(v, w) : less(w, v);
    const bool later = descending ? less(w, v) : less(v, w);
    before += first || (!later && j < mine);
  }
  values[at[1] + before * value_step] = v;
  indices[at[2] + before * index_step] = mine;
}

/// The types running values come in: cumsum and cumprod turn bool and smaller integers into int64.
template <class F>
void with_running(DType t, const F& f) {
  if (t == kInt64)
    f.template operator()<std::int64_t>();
  else
    kernels::detail::with_float(t, f);
}

template <class F>
void run_scan(Inputs in, Inputs out, const Attrs& a, const char* op) {
  if (in[0].numel() == 0) return;
  const Lines<2> lines({&in[0], &out[0]}, a.dims[0], op);
  const unsigned n = static_cast<unsigned>(lines.lines.elements()), block = block_for(n);
  const Work work(out[0].device());
  with_running(in[0].dtype(), [&]<class T>() {
    launch(scan<F, T>, blocks_for(n, block), block, work, n, lines.lines.layout(), lines.length,
           lines.steps[0], lines.steps[1], static_cast<const T*>(in[0].raw()),
           static_cast<T*>(out[0].raw()));
  });
}

}  // namespace
}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

void cumsum(Inputs in, Inputs out, const Attrs& a) {
  tutti::cuda::run_scan<tutti::cuda::Sum>(in, out, a, "cumsum");
}
void cumprod(Inputs in, Inputs out, const Attrs& a) {
  tutti::cuda::run_scan<tutti::cuda::Product>(in, out, a, "cumprod");
}

void recurrence(Inputs in, Inputs out, const Attrs& a) {
  if (out[0].numel() == 0) return;
  const tutti::cuda::Lines<3> lines({&in[0], &in[1], &out[0]}, a.dims[0], "cumprod");
  const unsigned n = static_cast<unsigned>(lines.lines.elements()),
                 block = tutti::cuda::block_for(n);
  const tutti::cuda::Work work(out[0].device());
  detail::with_float(out[0].dtype(), [&]<class T>() {  // a derivative
    tutti::cuda::launch(tutti::cuda::recur<T>, tutti::cuda::blocks_for(n, block), block, work, n,
                        lines.lines.layout(), lines.length, lines.steps[0], lines.steps[1],
                        lines.steps[2], static_cast<const T*>(in[0].raw()),
                        static_cast<const T*>(in[1].raw()), static_cast<T*>(out[0].raw()));
  });
}

void sort(Inputs in, Inputs out, const Attrs& a) {
  if (in[0].numel() == 0) return;
  const tutti::cuda::Lines<3> lines({&in[0], &out[0], &out[1]}, a.dims[0], "sort");
  const std::int64_t total = in[0].numel();
  const unsigned block = tutti::cuda::block_for(total);
  const tutti::cuda::Work work(out[0].device());
  dispatch_full(in[0].dtype(), [&]<class T>() {
    tutti::cuda::launch(tutti::cuda::rank_sort<T>, tutti::cuda::blocks_for(total, block), block,
                        work, total, lines.length, (a.flags & 1) != 0, lines.lines.layout(),
                        lines.steps[0], lines.steps[1], lines.steps[2],
                        static_cast<const T*>(in[0].raw()), static_cast<T*>(out[0].raw()),
                        static_cast<std::int64_t*>(out[1].raw()));
  });
}

}  // namespace tutti::kernels::cuda
