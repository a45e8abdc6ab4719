// Which cuBLAS call a product of stacks of matrices becomes: one small function from shapes and
// strides to a plan, without a GPU, so that tests read the rules back.
//
// cuBLAS counts columns first. A row-major result C [m, n] is, to it, C^T [n, m] = B^T A^T, so that
// our b is its first operand and our a its second.
#pragma once
#include <cstdint>

#include <tutti/core/kernels/gemm.h>

namespace tutti::cuda {

/// One of cuBLAS's operands: a matrix in columns `leading` apart, taken transposed or not, and the
/// distance to the next one (0: one matrix serves all).
struct GemmOperand {
  bool transposed = false;
  std::int64_t leading = 1;
  std::int64_t stride = 0;
  friend bool operator==(const GemmOperand&, const GemmOperand&) = default;
};

struct GemmPlan {
  enum class Kind {
    nothing,  // no element, or none to add up
    plain,    // one product: cublasGemmEx
    strided,  // equal distances: cublasGemmStridedBatchedEx
    pointers  // any distances: cublasGemmBatchedEx
  };
  Kind kind = Kind::nothing;
  bool pack_a = false, pack_b = false;  // copy the operand row-major first: no matrix of cuBLAS's
  std::int64_t m = 0, n = 0, k = 0;     // of one product, after folding
  std::int64_t batch = 1;
  GemmOperand a, b;
  Shape batch_sizes;           // pointers: the axes that are left, outermost first,
  Shape a_strides, b_strides;  // and the strides along them
};

/// The rules, the first that holds:
///   1. an empty result, or k = 0                                    -> nothing
///   2. an operand with no axis of stride 1, or with rows closer than
///      they are long                                                -> pack it, then go on
///   3. batch axes that memory allows to merge are merged; none left  -> plain
///   4. one b for all, and the rows of a evenly spaced over all
///      members (a folded input)                                     -> plain, m times the members
///   5. one axis left                                                -> strided
///   6. else                                                         -> pointers
GemmPlan plan_gemm(const kernels::Gemm& g);

}  // namespace tutti::cuda
