// What the kernels of softmax and cross entropy share: the shift of a row and its exponentials.
#pragma once
#include <tutti/core/kernels/reduce.h>
#include <tutti/core/kernels/scalar.h>

namespace tutti::kernels {

/// Calls f.operator()<T>() with double or, for float32 and what is widened to it, float.
template <class F>
void with_float(DType t, F&& f) {
  if (t == kFloat64)
    f.template operator()<double>();
  else
    f.template operator()<float>();
}

/// The largest element, or 0 where that is infinite: then every term is 0 (or NaN) as it should be.
template <class T>
T shift_of(const T* x, std::int64_t n, std::int64_t step) {
  const T m = fold::run<fold::Max<T>>(x, n, step);
  return m == -std::numeric_limits<T>::infinity() ? T(0) : m;
}

/// y[i] = e^(x[i] - m).
template <class T>
void exps(const T* __restrict x, std::int64_t step, T m, T* __restrict y, std::int64_t n) {
  const scalar::Exp exp;
  if (step == 1)
    for (std::int64_t i = 0; i < n; ++i) y[i] = exp(x[i] - m);
  else
    for (std::int64_t i = 0; i < n; ++i) y[i] = exp(x[i * step] - m);
}

}  // namespace tutti::kernels
