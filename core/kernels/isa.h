// The instruction set that kernels with several versions use: the best this CPU has, or the one
// named by the environment variable TUTTI_ISA.
#pragma once
#include <string_view>
#include <vector>

namespace tutti::kernels {

/// Instruction sets kernels are compiled for, the least first. `scalar` is portable code for the
/// target of the whole build, which any kernel has; neon is that of every 64-bit ARM; avx3 is
/// AVX-512 (F, BW, CD, DQ, VL).
enum class Isa { scalar, neon, sse4, avx2, avx3 };

/// "scalar", "neon", "sse4", "avx2", "avx3".
std::string_view name(Isa isa);

/// Those that are both compiled in and supported by this CPU, the least first.
const std::vector<Isa>& supported_isas();

/// The supported one of that name, as TUTTI_ISA gives it. ValueError if there is none.
Isa isa_named(std::string_view name);

/// The one in use. ValueError if TUTTI_ISA names one that is not supported.
Isa isa();

/// Use this one from now on; for tests and measurements, while no kernel runs. ValueError if it is
/// not supported.
void set_isa(Isa isa);

}  // namespace tutti::kernels
