// What the checks of the op table on the device share: element types, tolerances, and the
// comparison of a function's results on the device with those on the CPU.
#pragma once
#include <array>

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

/// The same, and what the CPU refuses must be refused in the same words.
std::string same_or_refused(const Fn& f, const Values& cpu, const Values& gpu, DType d,
                            double factor);

/// The types kernels are made for; halves are computed in float32.
inline constexpr std::array kFullTypes = {tutti::kFloat32, tutti::kFloat64, tutti::kInt64,
                                          tutti::kInt32,   tutti::kUInt8,   tutti::kInt8,
                                          tutti::kInt16,   tutti::kBool};

/// Numbers of type t where functions go other ways: signed zeros, denormals, infinities, NaN, the
/// limits of the type, arguments far out.
std::vector<double> special_values(DType t);

/// The same values on the device in a tensor none of whose axes can be merged, and that starts at
/// an odd place.
Tensor padded_on_gpu(const Tensor& t);
Values padded_on_gpu(const Values& v);
/// With six axes, the most that kernels take apart; a multiple of 48 elements.
Tensor six_axes(const Tensor& t);
Values six_axes(const Values& v);

}  // namespace tutti_test
