// Running sums and products and stable sorting along one axis (attrs.dims[0]).
#pragma once
#include <tutti/core/op.h>

namespace tutti::kernels {

/// out[i] = in[0] + ... + in[i]; float32 adds in double.
void cumsum(Inputs in, Inputs out, const Attrs& a);
void cumprod(Inputs in, Inputs out, const Attrs& a);
/// out[i] = in[0][i] * out[i - 1] + in[1][i], starting from 0.
void recurrence(Inputs in, Inputs out, const Attrs& a);
/// Sorted values and their int64 indices; flag 1: descending. NaN counts as the largest, equal
/// values keep their order.
void sort(Inputs in, Inputs out, const Attrs& a);

}  // namespace tutti::kernels
