// What nvcc's start-up code has registered: modules, kernels, variables.
#pragma once
#include <string>
#include <vector>

#include "ptx_code.h"

namespace cudasim {

/// The kernel behind a host function; ends the process if there is none.
const Function& kernel_of(const void* host);

/// Largest dynamic shared memory a kernel may be launched with.
u32& dynamic_shared_limit(const Function& kernel);

/// Device address and size of a variable by its host shadow; false if it was not registered.
bool variable_of(const void* host, u64& address, u64& size);

/// Compute capability the PTX was made for, e.g. 90.
int target_architecture();

/// All modules, loaded.
std::vector<const Program*> all_programs();

}  // namespace cudasim
