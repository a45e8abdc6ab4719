// The seam of lane_gemm.h and its portable implementation.
#include <algorithm>

#include <tutti/core/kernels/lane_gemm.h>

namespace tutti::kernels {
namespace {

/// Sums one after the other, as the vectors do; the compiler may put several matrices in a vector.
template <class T>
void multiply_portable(const LaneGemm& g) {
  const auto* a = static_cast<const T*>(g.a.data);
  const auto* b = static_cast<const T*>(g.b.data);
  const auto* bias = static_cast<const T*>(g.bias.data);
  const auto* relu_output = static_cast<const T*>(g.relu_output);
  auto *out = static_cast<T*>(g.out), *const row_sums = static_cast<T*>(g.row_sums);
  const std::int64_t a_step = g.a.shared ? 0 : 1, b_step = g.b.shared ? 0 : 1;
  if (row_sums) std::fill_n(row_sums, g.n * g.count, T(0));
  for (std::int64_t i = 0; i < g.m; ++i) {
    for (std::int64_t j = 0; j < g.n; ++j, out += g.count) {
      std::fill_n(out, g.count, T(0));
      for (std::int64_t k = 0; k < g.k; ++k) {
        const T* x = a + i * g.a.row + k * g.a.column;
        const T* y = b + k * g.b.row + j * g.b.column;
        for (std::int64_t p = 0; p < g.count; ++p) out[p] += x[p * a_step] * y[p * b_step];
      }
      if (bias)
        for (std::int64_t p = 0; p < g.count; ++p) out[p] += bias[j * g.bias.column + p];
      if (g.relu)
        for (std::int64_t p = 0; p < g.count; ++p) out[p] = out[p] <= T(0) ? T(0) : out[p];
      if (relu_output) {
        for (std::int64_t p = 0; p < g.count; ++p) out[p] = relu_output[p] > T(0) ? out[p] : T(0);
        relu_output += g.count;
      }
      if (row_sums)
        for (std::int64_t p = 0; p < g.count; ++p) row_sums[j * g.count + p] += out[p];
    }
    if (g.taker) {
      out = static_cast<T*>(g.out);
      (*g.taker)({out, i * g.n, (i + 1) * g.n, 0, g.count, g.count});
    }
  }
}

template <class T>
LaneMultiply multiply(std::int64_t count) {
#if TUTTI_HIGHWAY
  if (const Isa i = isa(); i != Isa::scalar && count >= lanes(dtype_of<T>()))
    return lane_multiply_highway<T>(i);
#endif
  static_cast<void>(count);
  return multiply_portable<T>;
}

}  // namespace

void lane_gemm(const LaneGemm& g) {
  (g.dtype == kFloat64 ? multiply<double>(g.count) : multiply<float>(g.count))(g);
}

std::int64_t piece_size(std::int64_t count, std::int64_t m, std::int64_t n) {
  return std::min(m, kPieceRows) * n * count;
}

std::int64_t lanes(DType dtype) {
  const Isa i = isa();
  const std::int64_t bytes = i == Isa::avx3 ? 64 : i == Isa::avx2 ? 32 : 16;
  return bytes / size_of(dtype);
}

}  // namespace tutti::kernels
