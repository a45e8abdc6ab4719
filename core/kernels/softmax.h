// softmax and log_softmax over the last axis, and their gradients.
#pragma once
#include <tutti/core/op.h>

namespace tutti::kernels {

void softmax(Inputs in, Inputs out, const Attrs& a);
void log_softmax(Inputs in, Inputs out, const Attrs& a);
/// From the gradient g and the output y: y * (g - sum(g * y)).
void softmax_grad(Inputs in, Inputs out, const Attrs& a);
/// From the gradient g and the output y: g - e^y * sum(g).
void log_softmax_grad(Inputs in, Inputs out, const Attrs& a);

}  // namespace tutti::kernels
