// The kernels a program has launched.
#pragma once
#include <string>

#include "base.h"

namespace cudasim {

struct LaunchLog {
  u64 count = 0;     ///< kernels of graphs that were launched included
  u64 graphs = 0;    ///< launches of graphs
  std::string text;  ///< one name a line
};
LaunchLog& launch_log();

}  // namespace cudasim
