// Kernels that move elements by index. Where several indices may name one place, one thread walks
// them in order, so that the last one wins, sums are made in order, and no atomics are needed.
#include <algorithm>

#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/scalar.h>
#include <tutti/cuda/index_fault.cuh>
#include <tutti/cuda/map.cuh>
#include <tutti/cuda/team.cuh>

namespace tutti::cuda {
namespace {

constexpr std::uint32_t kFromEnd = 1;  // bit of attrs.flags

/// The axis that is indexed: its size and the stride of what is read or written there.
struct Along {
  std::int64_t size = 1, stride = 0;
  Along() = default;
  Along(const Tensor& x, std::int64_t axis) {
    if (x.dim() == 0) return;
    size = x.sizes()[static_cast<std::size_t>(axis)];
    stride = x.strides()[static_cast<std::size_t>(axis)];
  }
};

/// Axes of an index tensor with N operands, given by their strides, innermost first.
template <std::size_t N>
Axes<N> index_axes(const Tensor& index, const std::array<Shape, N>& strides,
                   std::int64_t without = -1) {
  Axes<N> out;
  for (std::size_t d = index.sizes().size(); d-- > 0;) {
    if (static_cast<std::int64_t>(d) == without) continue;
    std::array<std::int64_t, N> s;
    for (std::size_t k = 0; k < N; ++k) s[k] = strides[k][d];
    out.add(index.sizes()[d], s);
  }
  out.merge();
  return out;
}

Shape zero_at(IntArrayRef strides, std::int64_t axis) {
  Shape s = strides.shape();
  if (!s.empty()) s[static_cast<std::size_t>(axis)] = 0;
  return s;
}

template <class T>
__global__ void gather(unsigned n, const __grid_constant__ Layout<3> l, Along along, IndexOp op,
                       bool from_end, IndexFault* fault, T* out, const std::int64_t* index,
                       const T* x) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  std::int32_t at[3];
  l.find(i, at);
  const std::int64_t j = checked(fault, op, index[at[1]], along.size, from_end);
  out[at[0]] = j >= 0 ? x[at[2] + j * along.stride] : T(0);
}

struct Put {
  template <class T>
  __device__ T operator()(T, T value) const {
    return value;
  }
};
struct Sum {
  template <class T>
  __device__ T operator()(T old, T value) const {
    return scalar::Add()(old, value);
  }
};

/// One thread per line along the axis: {out without the axis, index, src}. Without kSource every
/// place gets `value`.
template <class F, bool kSource, class T>
__global__ void scatter(unsigned lines, const __grid_constant__ Layout<3> l, std::int64_t length,
                        std::int64_t index_step, std::int64_t src_step, Along along, IndexOp op,
                        bool from_end, IndexFault* fault, T* out, const std::int64_t* index,
                        const T* src, T value) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= lines) return;
  std::int32_t at[3];
  l.find(i, at);
#pragma unroll 1  // each step depends on the one before
  for (std::int64_t k = 0; k < length; ++k) {
    const std::int64_t j = checked(fault, op, index[at[1] + k * index_step], along.size, from_end);
    if (j < 0) continue;
    T& to = out[at[0] + j * along.stride];
    to = F()(to, kSource ? src[at[2] + k * src_step] : value);
  }
}

/// Without src (where F takes that) every place gets `value`.
template <class F, class T>
void scatter_as(const Tensor& out, const Tensor& index, const Tensor& src, T value,
                std::int64_t axis, IndexOp op, bool from_end) {
  // Sums always have a source: no kernel is made for the other case.
  constexpr bool kSum = std::is_same_v<F, Sum>;
  if (index.numel() == 0) return;
  const Work work(out.device());
  const auto d = static_cast<std::size_t>(axis);
  const bool scalar_index = index.dim() == 0;
  const Shape none(index.sizes().size(), 0);
  const Shape src_strides = src.defined() ? src.strides().shape() : none;
  const Axes<3> axes = index_axes<3>(
      index, {zero_at(out.strides(), axis), index.strides().shape(), src_strides}, axis);
  const std::int64_t length = scalar_index ? 1 : index.sizes()[d];
  axes.each_piece([&](const Axes<3>& piece) {
    const unsigned lines = static_cast<unsigned>(piece.elements()), block = block_for(lines);
    auto* const kernel = src.defined() ? scatter<F, true, T> : scatter<F, kSum, T>;
    launch(kernel, blocks_for(lines, block), block, work, lines, piece.layout(), length,
           scalar_index ? 0 : index.strides()[d], scalar_index ? 0 : src_strides[d],
           Along(out, axis), op, from_end, index_fault(work),
           static_cast<T*>(out.raw()) + piece.begin[0],
           static_cast<const std::int64_t*>(index.raw()) + piece.begin[1],
           src.defined() ? static_cast<const T*>(src.raw()) + piece.begin[2] : nullptr, value);
  });
}

/// Starts the result from the base.
void begin(Inputs in, Inputs out) {
  if (in[0].defined())
    copy_on_device(out[0], in[0]);
  else
    kernels::cuda::fill(out[0], 0);
}

/// sum * size + index, for one index tensor after the other.
struct RavelStep {
  std::int64_t size;
  IndexFault* fault;
  __device__ std::int64_t operator()(std::int64_t sum, std::int64_t i) const {
    return sum * size + max(checked(fault, IndexOp::index, i, size, true), std::int64_t{0});
  }
};

__global__ void one_hot(std::int64_t total, std::int64_t classes, IndexFault* fault,
                        const std::int64_t* index, std::int64_t* out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= total) return;
  const std::int64_t row = i / classes, c = i - row * classes, t = index[row];
  if (c == 0) checked(fault, IndexOp::one_hot, t, classes, false);
  out[i] = t == c;
}

// ---- nonzero: each block takes a chunk; counts of chunks say where its rows begin

constexpr unsigned kChunk = 1024;
constexpr int kMostRank = 16;

/// The elements of x in row-major order, as bits.
template <class B>
struct Elements {
  unsigned n;
  B mask;  // the bits of which one must be set: all but the sign
  const B* x;
  Layout<1> layout;
  __device__ bool is_set(unsigned i) const {
    std::int32_t at[1];
    if (i >= n) return false;
    layout.find(i, at);
    return (x[at[0]] & mask) != 0;
  }
};

struct AddCounts {
  __device__ unsigned operator()(unsigned a, unsigned b) const { return a + b; }
};

template <class B>
__global__ void count_chunks(const __grid_constant__ Elements<B> e, std::int64_t* counts) {
  __shared__ unsigned shared[kWide / kWarp];
  unsigned count = 0;
  for (unsigned k = threadIdx.x; k < kChunk; k += kWide) count += e.is_set(blockIdx.x * kChunk + k);
  count = team_fold<kWide>(count, AddCounts(), shared);
  if (threadIdx.x == 0) counts[blockIdx.x] = count;
}

struct Sizes {
  int rank;
  FastDivision of[kMostRank];
};

/// A row of indices for each element that is set; `upto`: how many there are, with those of a
/// chunk.
template <class B>
__global__ void write_places(const __grid_constant__ Elements<B> e,
                             const __grid_constant__ Sizes sizes, const std::int64_t* upto,
                             std::int64_t* out) {
  __shared__ unsigned shared[kWide / kWarp];
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  std::int64_t row = blockIdx.x > 0 ? upto[blockIdx.x - 1] : 0;
  for (unsigned k = threadIdx.x; k < kChunk; k += kWide) {
    unsigned i = blockIdx.x * kChunk + k;
    const bool set = e.is_set(i);
    const unsigned sets = __ballot_sync(0xffffffffu, set);
    __syncthreads();  // an earlier round has been read
    if (lane == 0) shared[warp] = static_cast<unsigned>(__popc(sets));
    __syncthreads();
    std::int64_t to = row + __popc(sets & ((1u << lane) - 1));
    for (unsigned w = 0; w < kWide / kWarp; ++w) {
      if (w < warp) to += shared[w];
      row += shared[w];
    }
    if (!set) continue;
    for (int d = sizes.rank; d-- > 0;) {
      const unsigned rest = sizes.of[d].quotient(i);
      out[to * sizes.rank + d] = i - rest * sizes.of[d].divisor;
      i = rest;
    }
  }
}

Axes<1> row_major(const Tensor& x) {
  Axes<1> axes;
  for (std::size_t d = x.sizes().size(); d-- > 0;) axes.add(x.sizes()[d], {x.strides()[d]});
  axes.merge();
  return axes;
}
/// x, or a copy if its axes are too many.
Tensor walkable(const Tensor& x) {
  check<NotImplementedError>(x.numel() <= kMostElements, "nonzero",
                             "expected fewer than 2^31 elements, got shape ", x.sizes(),
                             "; work in parts");
  return row_major(x).fits() ? x : contiguous_on_device(x);
}
template <class B>
Elements<B> elements_of(const Tensor& x) {
  Elements<B> e;
  e.n = static_cast<unsigned>(x.numel());
  e.x = static_cast<const B*>(x.raw());
  const B sign = static_cast<B>(B(1) << (8 * sizeof(B) - 1));
  e.mask = static_cast<B>(is_floating(x.dtype()) ? ~sign : ~B(0));
  e.layout = row_major(x).layout();
  return e;
}

/// How many elements of a walkable x are not zero up to the end of each chunk.
Tensor counts_of(const Tensor& x) {
  const Work work(x.device());
  const unsigned chunks = blocks_for(x.numel(), kChunk);
  const Tensor counts = make_dense({chunks}, kInt64, x.device());
  const Tensor upto = make_dense({chunks}, kInt64, x.device());
  by_size(x, [&]<class B>() {
    launch(count_chunks<B>, chunks, kWide, work, elements_of<B>(x),
           static_cast<std::int64_t*>(counts.raw()));
  });
  Attrs a;
  a.dims.push_back(0);
  kernels::cuda::cumsum(Inputs(&counts, 1), Inputs(&upto, 1), a);
  return upto;
}

}  // namespace
}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

using tutti::cuda::Along;
using tutti::cuda::IndexOp;
using tutti::cuda::Work;

void gather(Inputs in, Inputs out, const Attrs& a) {
  const Tensor &x = in[0], &index = in[1], &y = out[0];
  if (y.numel() == 0) return;
  const Work work(y.device());
  const bool from_end = a.flags & tutti::cuda::kFromEnd;
  const auto axes = tutti::cuda::index_axes<3>(
      index,
      {y.strides().shape(), index.strides().shape(), tutti::cuda::zero_at(x.strides(), a.dims[0])});
  tutti::cuda::by_size(x, [&]<class T>() {
    axes.each_piece([&](const tutti::cuda::Axes<3>& piece) {
      const unsigned n = static_cast<unsigned>(piece.elements()), block = tutti::cuda::block_for(n);
      tutti::cuda::launch(tutti::cuda::gather<T>, tutti::cuda::blocks_for(n, block), block, work, n,
                          piece.layout(), Along(x, a.dims[0]),
                          from_end ? IndexOp::index : IndexOp::gather, from_end,
                          tutti::cuda::index_fault(work), static_cast<T*>(y.raw()) + piece.begin[0],
                          static_cast<const std::int64_t*>(index.raw()) + piece.begin[1],
                          static_cast<const T*>(x.raw()) + piece.begin[2]);
    });
  });
}

void scatter(Inputs in, Inputs out, const Attrs& a) {
  tutti::cuda::begin(in, out);
  const bool from_end = a.flags & tutti::cuda::kFromEnd;
  const IndexOp op = from_end ? IndexOp::index_put : IndexOp::scatter;
  dispatch(out[0].dtype(), [&]<class T>() {
    using B = tutti::cuda::Bits<sizeof(T)>;
    tutti::cuda::scatter_as<tutti::cuda::Put, B>(
        out[0], in[1], in[2], std::bit_cast<B>(a.scalars[0].to<T>()), a.dims[0], op, from_end);
  });
}

void scatter_add(Inputs in, Inputs out, const Attrs& a) {
  tutti::cuda::begin(in, out);
  const bool from_end = a.flags & tutti::cuda::kFromEnd;
  const IndexOp op = from_end ? IndexOp::index_put : IndexOp::scatter_add;
  dispatch(out[0].dtype(), [&]<class T>() {
    if constexpr (sizeof(T) != 2 || std::is_integral_v<T>)  // halves come as float32
      tutti::cuda::scatter_as<tutti::cuda::Sum, T>(out[0], in[1], in[2], T(0), a.dims[0], op,
                                                   from_end);
  });
}

void ravel(Inputs in, Inputs out, const Attrs& a) {
  fill(out[0], 0);
  if (out[0].numel() == 0) return;
  const Work work(out[0].device());
  using I = std::int64_t;
  for (std::size_t i = 0; i < in.size(); ++i)
    tutti::cuda::map<I, I, I>(tutti::cuda::RavelStep{a.ints[i], tutti::cuda::index_fault(work)},
                              out[0], out[0], in[i]);
}

std::int64_t count_nonzero(const Tensor& x) {
  if (x.numel() == 0) return 0;
  const Tensor upto = tutti::cuda::counts_of(tutti::cuda::walkable(x));
  std::int64_t count = 0;
  tutti::cuda::download(&count, static_cast<const std::int64_t*>(upto.raw()) + upto.numel() - 1,
                        sizeof(count), Work(x.device()));
  return count;
}

void nonzero(Inputs in, Inputs out, const Attrs&) {
  if (out[0].numel() == 0) return;
  const Tensor x = tutti::cuda::walkable(in[0]);
  check<NotImplementedError>(x.dim() <= tutti::cuda::kMostRank, "nonzero", "expected at most ",
                             tutti::cuda::kMostRank, " axes, got shape ", x.sizes(),
                             "; reshape it, or use cpu()");
  const Tensor upto = tutti::cuda::counts_of(x);
  tutti::cuda::Sizes sizes;
  sizes.rank = static_cast<int>(x.dim());
  for (std::size_t d = 0; d < x.sizes().size(); ++d)
    sizes.of[d] = tutti::cuda::FastDivision(static_cast<std::uint32_t>(x.sizes()[d]));
  const Work work(x.device());
  tutti::cuda::by_size(x, [&]<class B>() {
    tutti::cuda::launch(tutti::cuda::write_places<B>, static_cast<unsigned>(upto.numel()),
                        tutti::cuda::kWide, work, tutti::cuda::elements_of<B>(x), sizes,
                        static_cast<const std::int64_t*>(upto.raw()),
                        static_cast<std::int64_t*>(out[0].raw()));
  });
}

void one_hot(Inputs in, Inputs out, const Attrs&) {
  if (out[0].numel() == 0) return;
  const Tensor index = tutti::cuda::contiguous_on_device(in[0]);
  const Work work(out[0].device());
  const std::int64_t total = out[0].numel();
  const unsigned block = tutti::cuda::block_for(total);
  tutti::cuda::launch(tutti::cuda::one_hot, tutti::cuda::blocks_for(total, block), block, work,
                      total, out[0].sizes().back(), tutti::cuda::index_fault(work),
                      static_cast<const std::int64_t*>(index.raw()),
                      static_cast<std::int64_t*>(out[0].raw()));
}

}  // namespace tutti::kernels::cuda
