// Elementwise kernels of two operands, and of one operand and a number.
#include <tutti/cuda/elementwise_kernels.cuh>

namespace tutti::kernels::cuda {

#include <tutti/core/kernels/elementwise_binary.inc>

namespace {

/// Powers without pow: x^3 and x^-2 as on the CPU.
struct Cube {
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return scalar::Mul()(scalar::Mul()(x, x), x);
  }
};
struct InverseSquare {
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return T(1) / (x * x);
  }
};

}  // namespace

void pow_scalar(Inputs in, Inputs out, const Attrs& a) {
  const double e = a.scalars[0].to_double();
  with_number(in[0].dtype(), [&]<class T>() {
    if (e == 3) return map<T, T>(Cube(), out[0], in[0]);
    if constexpr (std::is_floating_point_v<T>)
      if (e == -2) return map<T, T>(InverseSquare(), out[0], in[0]);
    map<T, T>(scalar::WithScalar<scalar::Pow>(a), out[0], in[0]);
  });
}

void gelu_grad(Inputs in, Inputs out, const Attrs& a) {
  if (a.flags & 1)
    float_binary<scalar::GeluTanhGrad>(in, out, a);
  else
    float_binary<scalar::GeluGrad>(in, out, a);
}

void lerp(Inputs in, Inputs out, const Attrs&) {
  with_float(in[0].dtype(),
             [&]<class T>() { map<T, T, T, T>(scalar::Lerp(), out[0], in[0], in[1], in[2]); });
}

}  // namespace tutti::kernels::cuda
