// Kernels of the elementwise ops: one template per signature, over the functors of scalar.h. The
// combinations the ops use are instantiated in elementwise_*.cpp, nowhere else.
#pragma once
#include <tutti/core/kernels/scalar.h>
#include <tutti/core/op.h>

namespace tutti::kernels {

// One operand. The first word says for which dtypes: float32 and float64; all numbers (not bool);
// everything; integers and bool; bool alone. Predicates write bool. None takes halves.
template <class F>
void float_unary(Inputs in, Inputs out, const Attrs& a);
template <class F>
void unary(Inputs in, Inputs out, const Attrs& a);
template <class F>
void any_unary(Inputs in, Inputs out, const Attrs& a);
template <class F>
void bits_unary(Inputs in, Inputs out, const Attrs& a);
template <class F>
void bool_unary(Inputs in, Inputs out, const Attrs& a);
template <class F>
void predicate(Inputs in, Inputs out, const Attrs& a);
template <class F>
void float_predicate(Inputs in, Inputs out, const Attrs& a);

// Two operands of one dtype, likewise; compare writes bool.
template <class F>
void float_binary(Inputs in, Inputs out, const Attrs& a);
template <class F>
void binary(Inputs in, Inputs out, const Attrs& a);
template <class F>
void any_binary(Inputs in, Inputs out, const Attrs& a);
template <class F>
void bits_binary(Inputs in, Inputs out, const Attrs& a);
template <class F>
void bool_binary(Inputs in, Inputs out, const Attrs& a);
template <class F>
void compare(Inputs in, Inputs out, const Attrs& a);

/// out = x to the power scalars[0], with shortcuts for common exponents.
void pow_scalar(Inputs in, Inputs out, const Attrs& a);
/// out = in[0] + w * (in[1] - in[0]), w elementwise.
void lerp(Inputs in, Inputs out, const Attrs& a);
/// out = condition ? x : y, for every dtype.
void where(Inputs in, Inputs out, const Attrs& a);
/// out = mask ? scalars[0] : x, for every dtype; flag 1 inverts the mask.
void masked_fill(Inputs in, Inputs out, const Attrs& a);

}  // namespace tutti::kernels
