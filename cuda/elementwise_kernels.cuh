// The kernel templates of core/kernels/cuda.h: which element types each signature takes. Included
// by the files that instantiate them.
#pragma once
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/elementwise_types.h>
#include <tutti/core/kernels/scalar.h>
#include <tutti/cuda/map.cuh>

namespace tutti::kernels::cuda {

using kernels::detail::with_any;
using kernels::detail::with_bits;
using kernels::detail::with_float;
using kernels::detail::with_number;
using tutti::cuda::make_functor;
using tutti::cuda::map;

#define TUTTI_UNARY_KERNEL(name, with, Result)                                                  \
  template <class F>                                                                            \
  void name(Inputs in, Inputs out, const Attrs& a) {                                            \
    with(in[0].dtype(), [&]<class T>() { map<Result, T>(make_functor<F>(a), out[0], in[0]); }); \
  }
TUTTI_UNARY_KERNEL(float_unary, with_float, T)
TUTTI_UNARY_KERNEL(unary, with_number, T)
TUTTI_UNARY_KERNEL(any_unary, with_any, T)
TUTTI_UNARY_KERNEL(bits_unary, with_bits, T)
TUTTI_UNARY_KERNEL(predicate, with_any, bool)
TUTTI_UNARY_KERNEL(float_predicate, with_float, bool)
#undef TUTTI_UNARY_KERNEL

#define TUTTI_BINARY_KERNEL(name, with, Result)                                            \
  template <class F>                                                                       \
  void name(Inputs in, Inputs out, const Attrs& a) {                                       \
    with(in[0].dtype(),                                                                    \
         [&]<class T>() { map<Result, T, T>(make_functor<F>(a), out[0], in[0], in[1]); }); \
  }
TUTTI_BINARY_KERNEL(float_binary, with_float, T)
TUTTI_BINARY_KERNEL(binary, with_number, T)
TUTTI_BINARY_KERNEL(any_binary, with_any, T)
TUTTI_BINARY_KERNEL(bits_binary, with_bits, T)
TUTTI_BINARY_KERNEL(compare, with_any, bool)
#undef TUTTI_BINARY_KERNEL

template <class F>
void bool_unary(Inputs in, Inputs out, const Attrs& a) {
  map<bool, bool>(make_functor<F>(a), out[0], in[0]);
}
template <class F>
void bool_binary(Inputs in, Inputs out, const Attrs& a) {
  map<bool, bool, bool>(make_functor<F>(a), out[0], in[0], in[1]);
}

#define TUTTI_INSTANTIATE(kernel, ...) \
  template void kernel<scalar::__VA_ARGS__>(Inputs, Inputs, const Attrs&);

}  // namespace tutti::kernels::cuda
