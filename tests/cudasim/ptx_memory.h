// Loads, stores and atomics.
#pragma once
#include "ptx_exec.h"

namespace cudasim {

/// The bytes behind a generic address, for built-in functions; bounds are checked.
u8* generic_bytes(Warp& warp, const Instruction& i, u32 lane, u64 address, u32 size);

/// Handlers by the bytes of the element in memory and of the register.
Handler load_handler(u32 bytes, u32 register_bytes, bool sign);
Handler store_handler(u32 bytes, u32 register_bytes);

/// Handler of atom and red: "add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec".
/// nullptr if there is none.
Handler atomic_handler(const std::string& op, ptx::Type type);

}  // namespace cudasim
