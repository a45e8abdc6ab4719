// Functions that PTX may call although no module defines them: vprintf, __assertfail.
#pragma once
#include "ptx_exec.h"

namespace cudasim {

/// True if call_builtin knows the function.
bool is_builtin(const std::string& name);

/// Runs a built-in function for the lanes in mask.
void call_builtin(Warp& warp, const Instruction& i, const Call& call, u32 mask);

}  // namespace cudasim
