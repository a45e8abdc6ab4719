// Which PTX instructions have been executed.
#pragma once
#include <string>

namespace cudasim {

/// Adds this process's counts to the file (made if it is not there). One line per instruction:
/// executions, kernel, index, source line, PTX line, text; separated by tabs.
void write_coverage(const std::string& file);

}  // namespace cudasim
