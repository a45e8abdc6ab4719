// Definitions of the kernel templates of elementwise.h; for elementwise_*.cpp only.
#pragma once
#include <tutti/core/kernels/elementwise.h>
#include <tutti/core/kernels/elementwise_types.h>
#include <tutti/core/kernels/loops.h>
#include <tutti/core/kernels/vector_math.h>

namespace tutti::kernels {
namespace detail {

template <class F>
F make(const Attrs& a) {
  if constexpr (std::is_constructible_v<F, const Attrs&>)
    return F(a);
  else
    return F();
}

template <class F>
inline constexpr std::int64_t grain = scalar::is_heavy<F> ? kHeavyGrain : kCheapGrain;

/// out = F of in, on vectors where F has such a version.
template <class F, class R, class... A, class... Ins>
void map_functor(const Attrs& a, const Tensor& out, const Ins&... in) {
  const F f = make<F>(a);
  if constexpr (vector_operands < F >> 0 && (std::is_same_v<A, float> && ...))
    if (const VectorRun<F> run = vector_run<F>())
      return Loops<1 + sizeof...(A)>({&out, &in...}).each_run(grain<F>, &f, run);
  map<R, A...>(grain<F>, f, out, in...);
}

}  // namespace detail

#define TUTTI_UNARY_KERNEL(name, with, Result)                                             \
  template <class F>                                                                       \
  void name(Inputs in, Inputs out, const Attrs& a) {                                       \
    detail::with(in[0].dtype(),                                                            \
                 [&]<class T>() { detail::map_functor<F, Result, T>(a, out[0], in[0]); }); \
  }
TUTTI_UNARY_KERNEL(float_unary, with_float, T)
TUTTI_UNARY_KERNEL(unary, with_number, T)
TUTTI_UNARY_KERNEL(any_unary, with_any, T)
TUTTI_UNARY_KERNEL(bits_unary, with_bits, T)
TUTTI_UNARY_KERNEL(predicate, with_any, bool)
TUTTI_UNARY_KERNEL(float_predicate, with_float, bool)
#undef TUTTI_UNARY_KERNEL

#define TUTTI_BINARY_KERNEL(name, with, Result)                      \
  template <class F>                                                 \
  void name(Inputs in, Inputs out, const Attrs& a) {                 \
    detail::with(in[0].dtype(), [&]<class T>() {                     \
      detail::map_functor<F, Result, T, T>(a, out[0], in[0], in[1]); \
    });                                                              \
  }
TUTTI_BINARY_KERNEL(float_binary, with_float, T)
TUTTI_BINARY_KERNEL(binary, with_number, T)
TUTTI_BINARY_KERNEL(any_binary, with_any, T)
TUTTI_BINARY_KERNEL(bits_binary, with_bits, T)
TUTTI_BINARY_KERNEL(compare, with_any, bool)
#undef TUTTI_BINARY_KERNEL

template <class F>
void bool_unary(Inputs in, Inputs out, const Attrs& a) {
  map<bool, bool>(kCheapGrain, detail::make<F>(a), out[0], in[0]);
}
template <class F>
void bool_binary(Inputs in, Inputs out, const Attrs& a) {
  map<bool, bool, bool>(kCheapGrain, detail::make<F>(a), out[0], in[0], in[1]);
}

}  // namespace tutti::kernels
