// Elementwise kernels of one operand.
#include <tutti/cuda/elementwise_kernels.cuh>

namespace tutti::kernels::cuda {

#include <tutti/core/kernels/elementwise_unary.inc>

void gelu(Inputs in, Inputs out, const Attrs& a) {
  if (a.flags & 1)
    float_unary<scalar::GeluTanh>(in, out, a);
  else
    float_unary<scalar::Gelu>(in, out, a);
}

}  // namespace tutti::kernels::cuda
