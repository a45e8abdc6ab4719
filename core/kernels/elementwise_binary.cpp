// Arithmetic kernels of two operands, and of one operand and a number.
#include <tutti/core/kernels/elementwise_impl.h>

namespace tutti::kernels {

#define TUTTI_INSTANTIATE(kernel, ...) \
  template void kernel<scalar::__VA_ARGS__>(Inputs, Inputs, const Attrs&);

#include <tutti/core/kernels/elementwise_binary.inc>

void pow_scalar(Inputs in, Inputs out, const Attrs& a) {
  const double e = a.scalars[0].to_double();
  detail::with_number(in[0].dtype(), [&]<class T>() {
    const auto apply = [&](auto f) { map<T, T>(kCheapGrain, f, out[0], in[0]); };
    if (e == 3) return apply([](T x) { return scalar::Mul()(scalar::Mul()(x, x), x); });
    if constexpr (std::is_floating_point_v<T>)
      if (e == -2) return apply([](T x) { return T(1) / (x * x); });
    map<T, T>(kHeavyGrain, scalar::WithScalar<scalar::Pow>(a), out[0], in[0]);
  });
}

void lerp(Inputs in, Inputs out, const Attrs&) {
  detail::with_float(in[0].dtype(), [&]<class T>() {
    map<T, T, T, T>(kCheapGrain, scalar::Lerp(), out[0], in[0], in[1], in[2]);
  });
}

}  // namespace tutti::kernels
