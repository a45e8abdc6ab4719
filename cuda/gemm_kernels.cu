// What follows a product of floats, and products of integers.
#include <type_traits>

#include <tutti/core/kernels/scalar.h>
#include <tutti/cuda/gemm_kernels.h>
#include <tutti/cuda/launch.cuh>
#include <tutti/cuda/layout.h>

namespace tutti::cuda {
namespace {

using kernels::Activation;

template <class T>
using Computed = std::conditional_t<sizeof(T) == 2, float, T>;

template <class T>
__device__ __forceinline__ T activated(T x, Activation f) {
  if constexpr (std::is_floating_point_v<T>) {
    switch (f) {
      case Activation::none:
        break;
      case Activation::relu:
        return scalar::Relu()(x);
      case Activation::tanh:
        return scalar::Tanh()(x);
      case Activation::gelu:
        return scalar::Gelu()(x);
      case Activation::gelu_tanh:
        return scalar::GeluTanh()(x);
    }
    return x;
  } else {
    return f == Activation::relu ? scalar::Relu()(x) : x;
  }
}

/// Members by layout: {bias}. One thread per element of the result.
template <class T>
__global__ void finish(std::int64_t total, std::int64_t n, FastDivision columns, std::uint32_t m,
                       const __grid_constant__ Layout<1> members, const T* bias,
                       std::int64_t bias_step, Activation f, const T* relu_output, bool from_zero,
                       T* out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= total) return;
  using C = Computed<T>;
  const std::int64_t row = n == columns.divisor && i <= kMostElements
                               ? columns.quotient(static_cast<std::uint32_t>(i))
                               : i / n;
  C x = from_zero ? C(0) : static_cast<C>(out[i]);
  if (bias) {
    std::int32_t at[1];
    members.find(static_cast<std::uint32_t>(row / m), at);
    x = x + static_cast<C>(bias[at[0] + (i - row * n) * bias_step]);
  }
  x = activated(x, f);
  if constexpr (sizeof(T) >= 4 && std::is_floating_point_v<T>)
    if (relu_output) x = scalar::ReluGrad()(x, relu_output[i]);
  out[i] = static_cast<T>(x);
}

constexpr unsigned kColumns = 32, kRowsAtOnce = 8;  // of a block

/// The derivative of relu and the sums over the rows: a block for 32 columns of a member. Each of
/// its threads adds up every eighth row, and the first of a column these sums, always in one order.
template <class T>
__global__ void finish_and_sum(std::int64_t m, std::int64_t n, unsigned tiles, const T* relu_output,
                               bool from_zero, T* out, T* sums) {
  __shared__ T shared[kRowsAtOnce][kColumns];
  const unsigned member = blockIdx.x / tiles;
  const std::int64_t column = std::int64_t{blockIdx.x - member * tiles} * kColumns + threadIdx.x;
  T sum(0);
  if (column < n)
#pragma unroll 1
    for (std::int64_t row = threadIdx.y; row < m; row += kRowsAtOnce) {
      const std::int64_t at = (member * m + row) * n + column;
      const T x = scalar::ReluGrad()(from_zero ? T(0) : out[at], relu_output[at]);
      out[at] = x;
      sum += x;
    }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= n) return;
  for (unsigned i = 1; i < kRowsAtOnce; ++i) sum += shared[i][threadIdx.x];
  sums[member * n + column] = sum;
}

template <class T>
void finish_and_sum_as(const kernels::Gemm& g, bool from_zero, const Work& work) {
  const unsigned tiles = blocks_for(g.n, kColumns);
  const std::int64_t blocks = numel_of(g.batch) * tiles;
  check<NotImplementedError>(blocks <= kMostElements, "matmul", "expected fewer than 2^31 blocks");
  launch(finish_and_sum<T>, static_cast<unsigned>(blocks), dim3(kColumns, kRowsAtOnce), work, g.m,
         g.n, tiles, static_cast<const T*>(g.relu_output), from_zero, static_cast<T*>(g.out),
         static_cast<T*>(g.row_sums));
}

template <class T>
void finish_as(const kernels::Gemm& g, bool from_zero, const Work& work) {
  const std::int64_t total = numel_of(g.batch) * g.m * g.n;
  if (total == 0) return;
  Axes<1> members;
  if (g.bias.data) {
    for (std::size_t d = g.batch.size(); d-- > 0;) members.add(g.batch[d], {g.bias.batch[d]});
    members.merge();
    check<NotImplementedError>(members.fits(), "linear", "expected at most ", kMostAxes,
                               " batch axes and 2^31 elements of bias; make it contiguous");
  }
  const unsigned block = block_for(total);
  launch(finish<T>, blocks_for(total, block), block, work, total, g.n,
         FastDivision(static_cast<std::uint32_t>(std::min(g.n, kMostElements))),
         static_cast<std::uint32_t>(g.m), members.layout(), static_cast<const T*>(g.bias.data),
         g.bias.column, g.activation, static_cast<const T*>(g.relu_output), from_zero,
         static_cast<T*>(g.out));
}

/// One thread per element; integers wrap around.
template <class T>
__global__ void integers(std::int64_t total, std::int64_t m, std::int64_t n, std::int64_t k,
                         const __grid_constant__ Layout<2> members, const T* a, std::int64_t a_row,
                         std::int64_t a_column, const T* b, std::int64_t b_row,
                         std::int64_t b_column, T* out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= total) return;
  const std::int64_t row = i / n, column = i - row * n, member = row / m;
  std::int32_t at[2];
  members.find(static_cast<std::uint32_t>(member), at);
  const T* x = a + at[0] + (row - member * m) * a_row;
  const T* y = b + at[1] + column * b_column;
  T sum(0);
  for (std::int64_t j = 0; j < k; ++j)
    sum = scalar::Add()(sum, scalar::Mul()(x[j * a_column], y[j * b_row]));
  out[i] = sum;
}

template <class T>
void integers_as(const kernels::Gemm& g, const Work& work) {
  const std::int64_t total = numel_of(g.batch) * g.m * g.n;
  if (total == 0) return;
  Axes<2> members;
  for (std::size_t d = g.batch.size(); d-- > 0;)
    members.add(g.batch[d], {g.a.batch[d], g.b.batch[d]});
  members.merge();
  check<NotImplementedError>(members.fits(), "matmul", "expected at most ", kMostAxes,
                             " batch axes of integer matrices; make them contiguous");
  const unsigned block = block_for(total);
  launch(integers<T>, blocks_for(total, block), block, work, total, g.m, g.n, g.k, members.layout(),
         static_cast<const T*>(g.a.data), g.a.row, g.a.column, static_cast<const T*>(g.b.data),
         g.b.row, g.b.column, static_cast<T*>(g.out));
}

}  // namespace

void finish_product(const kernels::Gemm& g, bool from_zero, const Work& work) {
  dispatch(g.dtype, [&]<class T>() {
    if constexpr (sizeof(T) >= 4 && std::is_floating_point_v<T>)
      if (g.row_sums) return finish_and_sum_as<T>(g, from_zero, work);
    if constexpr (!std::is_same_v<T, bool>) finish_as<T>(g, from_zero, work);
  });
}

void integer_product(const kernels::Gemm& g, const Work& work) {
  dispatch(g.dtype, [&]<class T>() {
    if constexpr (scalar::is_integer<T>) integers_as<T>(g, work);
  });
}

}  // namespace tutti::cuda
