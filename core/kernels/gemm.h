// Batched matrix products. The one seam behind which the implementation can be exchanged.
#pragma once
#include <cstdint>
#include <span>

#include <tutti/core/dtype.h>
#include <tutti/core/shape.h>

namespace tutti::kernels {

/// A stack of matrices in memory; strides in elements, any of them, 0 included.
struct Matrices {
  const void* data = nullptr;
  Shape batch;  // one stride per batch axis; 0 where one matrix serves all
  std::int64_t row = 0, column = 0;
};

/// A function of each element of a result; the bits are those of the op of that name (gelu_tanh:
/// gelu's approximation). Of integers relu only.
enum class Activation : std::uint8_t { none, relu, tanh, gelu, gelu_tanh };

/// out = activation(a x b, plus bias): [m, n] = [m, k] x [k, n] + [n], for every index of `batch`.
/// The result is dense and row-major. Results are bitwise the same for any number of threads.
struct Gemm {
  DType dtype = kFloat32;  // float32, float64 or an integer type
  std::int64_t m = 0, n = 0, k = 0;
  Shape batch = {};  // sizes of the batch axes
  Matrices a, b;
  Matrices bias = {};  // data may be null; `row` is not used
  void* out = nullptr;
  bool accumulate = false;  // a x b is added to what out holds instead; without bias
  Activation activation = Activation::none;  // of the finished sums
  /// Laid out as out: the derivative of relu where it gave these values. Of floating-point products
  /// without an activation.
  const void* relu_output = nullptr;
  /// The finished results' sums over their m rows, of which there must be one: [n] for each
  /// product, without gaps. Of floating-point products.
  void* row_sums = nullptr;
};

void gemm(const Gemm& g);

/// A stack of matrices without gaps that several products read: the gradient of a layer's result.
struct LayerGradient {
  const void* data;
  std::int64_t rows, columns;
  const void* relu_output = nullptr;  // it counts as 0 where this, laid out alike, is not above 0
  void* row_sums = nullptr;  // of floating-point numbers: its sums over up to kFewRows rows
};
/// All of them, of one dtype and with equal batches. Of many members, some are computed in all
/// products before the next: what these share is still in the cache then, and threads start once.
/// Operands whose data is `gradient` itself begin where it does, its zeros included. `list` has at
/// least one product.
void gemm(std::span<const Gemm> list, const LayerGradient* gradient = nullptr);

}  // namespace tutti::kernels
