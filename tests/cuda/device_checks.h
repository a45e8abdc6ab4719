// What the checks of the op table on the device share: element types, tolerances, and the
// comparison of a function's results on the device with those on the CPU.
#pragma once
#include "../op_table.h"

namespace tutti_test {

/// The element type input `in` gets in a check of type `real`: only real inputs follow it.
DType dtype_of_input(const In& in, DType real);

/// What the device may differ from the CPU by, relative and absolute: both compute float32 and
/// float64 in the same way, but the device fuses multiply-adds and adds up in another order.
double tolerance_of(DType t);

/// "" if f gives on the device (arguments `gpu`) what it gives on the CPU (arguments `cpu`): equal
/// types and shapes, values within tolerance_of the less exact of d and the result's type, times
/// `factor`. What f creates has type d; random numbers start from one seed.
std::string compare(const Fn& f, const Values& cpu, const Values& gpu, DType d, double factor);

}  // namespace tutti_test
