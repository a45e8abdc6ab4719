// The kernels a program has launched.
#pragma once
#include <string>

#include "base.h"

namespace cudasim {

struct LaunchLog {
  u64 count = 0;
  std::string text;  ///< one name a line
};
LaunchLog& launch_log();

}  // namespace cudasim
