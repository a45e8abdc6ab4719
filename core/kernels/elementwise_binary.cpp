// Arithmetic kernels of two operands, and of one operand and a number.
#include <tutti/core/kernels/elementwise_impl.h>

namespace tutti::kernels {

#define TUTTI_INSTANTIATE(kernel, ...) \
  template void kernel<scalar::__VA_ARGS__>(Inputs, Inputs, const Attrs&);

TUTTI_INSTANTIATE(any_binary, Add)
TUTTI_INSTANTIATE(binary, AddScaled)
TUTTI_INSTANTIATE(binary, Sub)
TUTTI_INSTANTIATE(any_binary, Mul)
TUTTI_INSTANTIATE(float_binary, Div)
TUTTI_INSTANTIATE(binary, DivTrunc)
TUTTI_INSTANTIATE(binary, DivFloor)
TUTTI_INSTANTIATE(binary, Fmod)
TUTTI_INSTANTIATE(binary, Remainder)
TUTTI_INSTANTIATE(binary, Pow)
TUTTI_INSTANTIATE(float_binary, Atan2)
TUTTI_INSTANTIATE(any_binary, Maximum)
TUTTI_INSTANTIATE(any_binary, Minimum)
TUTTI_INSTANTIATE(float_binary, LerpScalar)

TUTTI_INSTANTIATE(any_unary, WithScalar<scalar::Add>)
TUTTI_INSTANTIATE(any_unary, WithScalar<scalar::Mul>)
TUTTI_INSTANTIATE(float_unary, WithScalar<scalar::Div>)
TUTTI_INSTANTIATE(unary, WithScalar<scalar::DivTrunc>)
TUTTI_INSTANTIATE(unary, WithScalar<scalar::DivFloor>)
TUTTI_INSTANTIATE(unary, WithScalar<scalar::Fmod>)
TUTTI_INSTANTIATE(unary, WithScalar<scalar::Remainder>)
TUTTI_INSTANTIATE(unary, ScalarFirst<scalar::Sub>)
TUTTI_INSTANTIATE(unary, ScalarFirst<scalar::Pow>)

// Gradients: (g, x or y).
TUTTI_INSTANTIATE(float_binary, ReluGrad)
TUTTI_INSTANTIATE(float_binary, SigmoidGrad)
TUTTI_INSTANTIATE(float_binary, TanhGrad)
TUTTI_INSTANTIATE(float_binary, GeluGrad)
TUTTI_INSTANTIATE(float_binary, GeluTanhGrad)
TUTTI_INSTANTIATE(float_binary, SiluGrad)
TUTTI_INSTANTIATE(float_binary, SoftplusGrad)
TUTTI_INSTANTIATE(float_binary, EluGrad)
TUTTI_INSTANTIATE(float_binary, LeakyReluGrad)
TUTTI_INSTANTIATE(float_binary, ClampGrad)

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
