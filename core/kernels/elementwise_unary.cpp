// Kernels of one operand.
#include <tutti/core/kernels/elementwise_impl.h>

namespace tutti::kernels {

#define TUTTI_INSTANTIATE(kernel, F) template void kernel<scalar::F>(Inputs, Inputs, const Attrs&);

TUTTI_INSTANTIATE(float_unary, Exp)
TUTTI_INSTANTIATE(float_unary, Expm1)
TUTTI_INSTANTIATE(float_unary, Log)
TUTTI_INSTANTIATE(float_unary, Log1p)
TUTTI_INSTANTIATE(float_unary, Log2)
TUTTI_INSTANTIATE(float_unary, Log10)
TUTTI_INSTANTIATE(float_unary, Sqrt)
TUTTI_INSTANTIATE(float_unary, Rsqrt)
TUTTI_INSTANTIATE(float_unary, Reciprocal)
TUTTI_INSTANTIATE(float_unary, Sin)
TUTTI_INSTANTIATE(float_unary, Cos)
TUTTI_INSTANTIATE(float_unary, Tan)
TUTTI_INSTANTIATE(float_unary, Asin)
TUTTI_INSTANTIATE(float_unary, Acos)
TUTTI_INSTANTIATE(float_unary, Atan)
TUTTI_INSTANTIATE(float_unary, Sinh)
TUTTI_INSTANTIATE(float_unary, Cosh)
TUTTI_INSTANTIATE(float_unary, Tanh)
TUTTI_INSTANTIATE(float_unary, Sigmoid)
TUTTI_INSTANTIATE(float_unary, Erf)
TUTTI_INSTANTIATE(float_unary, LogSigmoid)
TUTTI_INSTANTIATE(float_unary, Gelu)
TUTTI_INSTANTIATE(float_unary, GeluTanh)
TUTTI_INSTANTIATE(float_unary, Silu)
TUTTI_INSTANTIATE(float_unary, Softplus)
TUTTI_INSTANTIATE(float_unary, Elu)
TUTTI_INSTANTIATE(float_unary, LeakyRelu)

TUTTI_INSTANTIATE(unary, Square)
TUTTI_INSTANTIATE(unary, Abs)
TUTTI_INSTANTIATE(unary, Neg)
TUTTI_INSTANTIATE(unary, Sign)
TUTTI_INSTANTIATE(unary, Relu)
TUTTI_INSTANTIATE(unary, Clamp)
TUTTI_INSTANTIATE(float_unary, Floor)
TUTTI_INSTANTIATE(float_unary, Ceil)
TUTTI_INSTANTIATE(float_unary, Round)
TUTTI_INSTANTIATE(float_unary, Trunc)

TUTTI_INSTANTIATE(float_predicate, IsNan)
TUTTI_INSTANTIATE(float_predicate, IsInf)
TUTTI_INSTANTIATE(float_predicate, IsFinite)
TUTTI_INSTANTIATE(bool_unary, LogicalNot)
TUTTI_INSTANTIATE(bits_unary, BitwiseNot)

}  // namespace tutti::kernels
