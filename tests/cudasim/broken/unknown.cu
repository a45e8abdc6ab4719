// An instruction the executor does not know.
#include "broken.h"

namespace {

__global__ void dot(const unsigned* a, int* out) {
  int d;
  asm volatile("dp4a.u32.s32 %0, %1, %1, %2;" : "=r"(d) : "r"(a[threadIdx.x]), "r"(0));
  out[threadIdx.x] = d;
}

const std::vector<Broken> kAll = {
    {"instruction", [] { dot<<<1, 32>>>(device<unsigned>(32), device<int>(32)); }},
};

}  // namespace

int main(int argc, char** argv) { return run_named(argc, argv, kAll); }
