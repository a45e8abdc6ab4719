// Functions of float32 on vectors, where the instruction set in use has them. An element's result
// depends on the element alone: not on its place in a tensor, on strides or on threads. It may
// differ between instruction sets, within these bounds, in units in the last place:
//
//   function                  vectors   scalar (math.h)
//   exp                       1.5       1.5
//   expm1, log1p              2.5       2.5
//   log                       1.5       1.5
//   tanh, sigmoid, erf        2.5       2.5
//   sin, cos                  2.5       the standard library's
//   sqrt, 1 / x               0.5       0.5
//   1 / sqrt                  1.5       1.5
//
// They hold for every float; zeros, infinities, NaN and subnormal arguments and results are as in
// the standard library. Functions made of these are within a few units of the largest term in
// them. float64 is the standard library's everywhere.
#pragma once
#include <tutti/core/kernels/isa.h>
#include <tutti/core/kernels/loops.h>
#include <tutti/core/kernels/scalar.h>

namespace tutti::kernels {

/// Calls X(F) for the functors of scalar.h that have a version on vectors, by number of operands.
// clang-format off
#define TUTTI_VECTOR_UNARY(X)                                                \
  X(Exp) X(Expm1) X(Log) X(Log1p) X(Sin) X(Cos) X(Tanh) X(Sigmoid) X(Erf)    \
  X(LogSigmoid) X(Gelu) X(GeluTanh) X(Silu) X(Softplus) X(Elu)
#define TUTTI_VECTOR_BINARY(X)                                               \
  X(GeluGrad) X(GeluTanhGrad) X(SiluGrad) X(SoftplusGrad) X(EluGrad)
// clang-format on

/// Operands of the functor F, if it has a version on vectors, else 0.
template <class F>
inline constexpr std::size_t vector_operands = 0;
#define TUTTI_OPERANDS(F) \
  template <>             \
  inline constexpr std::size_t vector_operands<scalar::F> = 1;
TUTTI_VECTOR_UNARY(TUTTI_OPERANDS)
#undef TUTTI_OPERANDS
#define TUTTI_OPERANDS(F) \
  template <>             \
  inline constexpr std::size_t vector_operands<scalar::F> = 2;
TUTTI_VECTOR_BINARY(TUTTI_OPERANDS)
#undef TUTTI_OPERANDS

/// What Loops::each_run calls with a pointer to an F.
template <class F>
using VectorRun = typename Loops<1 + vector_operands<F>>::Run;

/// F of floats with the instruction set in use; null if that is scalar.
template <class F>
VectorRun<F> vector_run();

/// `rows` rows of n > 0 numbers, one after the other.
template <class T>
struct RowArgs {
  const T* x;  // may be `to`
  const T* y;  // gradients only: the result of the op
  T* to;
  std::int64_t n, rows;
  T* shift;  // softmax only, may be null: what was subtracted from each row,
  T* total;  // and the sum of its exponentials
};
template <class T>
using RowKernel = void (*)(const RowArgs<T>&);

/// Kernels on rows, x being the input or, for the gradients, the gradient of the result.
template <class T>
struct RowKernels {
  RowKernel<T> softmax, log_softmax, softmax_grad, log_softmax_grad;
  /// Rows of x, each times its number in `by`.
  void (*scale)(const T* x, const T* by, T* to, std::int64_t n, std::int64_t rows);
  /// to[i] = log x[i], i < n.
  void (*log)(const T* x, T* to, std::int64_t n);
};
/// Those of the instruction set in use.
template <class T>
const RowKernels<T>& row_kernels();

/// With vectors of `isa`, which is supported and not scalar.
template <class F>
VectorRun<F> vector_run_highway(Isa isa);
const RowKernels<float>* row_kernels_highway(Isa isa);

}  // namespace tutti::kernels
