// Kernels of one operand.
#include <tutti/core/kernels/elementwise_impl.h>

namespace tutti::kernels {

#define TUTTI_INSTANTIATE(kernel, F) template void kernel<scalar::F>(Inputs, Inputs, const Attrs&);

#include <tutti/core/kernels/elementwise_unary.inc>

}  // namespace tutti::kernels
