// What is said at the end of the process: leaks, work nobody waited for, races, coverage.
#include <cstdio>
#include <cstdlib>

#include <unistd.h>

#include "coverage.h"
#include "memory.h"
#include "ptx_exec.h"
#include "registration.h"
#include "streams.h"

namespace cudasim {
namespace {

bool report_leaks() {
  const DeviceMemory& memory = device_memory();
  bool bad = false;
  if (const std::size_t n = pending_operations()) {
    std::fprintf(stderr, "cudasim: %zu operations were never waited for\n", n);
    bad = true;
  }
  if (memory.live_count()) {
    std::fprintf(stderr, "cudasim: leak: %zu device allocations, %zu bytes\n", memory.live_count(),
                 memory.live_bytes());
    int shown = 0;
    memory.for_each([&](const Allocation& a) {
      if (++shown <= 5)
        std::fprintf(stderr, "  allocation #%llu, %llu bytes\n", (unsigned long long)a.serial,
                     (unsigned long long)(a.end - a.begin));
    });
    bad = true;
  }
  const LiveObjects live = live_objects();
  if (live.streams + live.events + live.graphs) {
    std::fprintf(stderr, "cudasim: leak: %zu streams, %zu events, %zu graphs\n", live.streams,
                 live.events, live.graphs);
    bad = true;
  }
  return bad;
}

// Sectors per request of every access to global memory; the lowest possible number is what full
// warps would need.
void report_requests() {
  for (const Program* p : all_programs()) {
    for (const auto& [name, f] : p->functions) {
      for (const Instruction& i : f->code) {
        if (!i.requests) continue;
        const double least = i.bytes * i.count;
        std::fprintf(stderr, "cudasim: %.2f sectors per request (a full warp: %.0f or more): %s\n",
                     static_cast<double>(i.sectors) / static_cast<double>(i.requests), least,
                     f->where(i).c_str());
      }
    }
  }
}

void at_exit() {
  bool bad = settings().leaks && report_leaks();
  if (race_count()) {
    std::fprintf(stderr, "cudasim: %llu races\n", (unsigned long long)race_count());
    bad = true;
  }
  if (!settings().coverage_file.empty()) write_coverage(settings().coverage_file);
  if (settings().stats) {
    report_requests();
    std::fprintf(stderr, "cudasim: %llu warp instructions, at most %zu bytes of device memory\n",
                 (unsigned long long)instruction_count(), device_memory().peak_bytes());
  }
  if (!bad) return;
  std::fflush(nullptr);
  _exit(kReportStatus);
}

// The first object of the library to be made, so at_exit runs after the destructors of the program.
const bool registered = std::atexit(at_exit) == 0;

}  // namespace
}  // namespace cudasim
