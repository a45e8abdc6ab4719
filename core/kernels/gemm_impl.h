// Between the seam (gemm.cpp), which cuts a Gemm into shares for threads, and the implementations
// that compute a share.
#pragma once
#include <cstddef>
#include <cstdint>

#include <tutti/core/kernels/isa.h>

namespace tutti::kernels {

/// What all products of a share have in common: out = a x b, or out += a x b, with a [m, k] and
/// b [k, n] of any strides and contiguous rows of out; then relu, if wanted.
struct Form {
  std::int64_t m, n, k;
  std::int64_t a_row, a_column, b_row, b_column, out_row;
  bool accumulate, relu;
  bool relu_grad =
      false;  // a result is 0 unless what lies at its place in Strip::relu_output is above 0
};

/// `count` products, evenly spaced in memory. `bias` may be null; it is one contiguous row, added
/// to each row of out. `row_sums` may be null; the finished rows of out are added to it. Nothing is
/// set beforehand: many are made for each call.
template <class T>
struct Strip {
  const T *a, *b, *bias;
  T* out;
  std::int64_t count, a_step, b_step, bias_step, out_step;
  const T* relu_output;  // with the steps of out; may be null
  T* row_sums;
  std::int64_t sums_step;
};

/// Computes n strips, all with a bias or none, and likewise relu_output and row_sums.
template <class T>
using Multiply = void (*)(const Form&, const Strip<T>* strips, std::size_t n);

/// For every type of number. Only accumulates: without a bias, relu, relu_grad or row_sums.
template <class T>
void multiply_portable(const Form& form, const Strip<T>* strips, std::size_t n);

/// Vectors of the instruction set, which must be supported and not scalar; T is float or double.
/// What it stores for an element depends on the element's row of a, its column of b, and on whether
/// m < 8 and n < 64 (of a single row: 128), but not on where else the product was cut.
template <class T>
Multiply<T> multiply_highway(Isa isa);

/// Memory of the calling thread, aligned for vectors, until the next call: one piece for what an
/// implementation rearranges (0), and one for what gemm.cpp makes (1).
void* workspace(std::size_t bytes, std::size_t which = 0);

}  // namespace tutti::kernels
