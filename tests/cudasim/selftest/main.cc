// Self-test of the executor: runs all groups, or those named on the command line.
#include <cstring>

#include "selftest.h"

namespace {
struct Group {
  const char* name;
  void (*run)();
};
constexpr Group kGroups[] = {
    {"elementwise", selftest::elementwise},
    {"block", selftest::block},
    {"math", selftest::math},
    {"cub", selftest::cub_primitives},
    {"calls", selftest::calls},
    {"streams", selftest::streams},
    {"gemm", selftest::gemm},
    {"injection", selftest::injection},
    {"logs", selftest::logs},
};
}  // namespace

int main(int argc, char** argv) {
  for (const Group& g : kGroups) {
    bool wanted = argc == 1;
    for (int k = 1; k < argc; ++k) wanted |= std::strcmp(argv[k], g.name) == 0;
    if (wanted) g.run();
  }
  MUST(cudaDeviceSynchronize());
  std::printf("%d passed, %d failed\n", selftest::tally().passed, selftest::tally().failed);
  return selftest::tally().failed != 0;
}
