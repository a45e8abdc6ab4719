// Failure injection, and the control interface of libcudart.
#include "inject.h"

#include <cstdlib>
#include <string>

#include "control.h"
#include "launch_log.h"
#include "memory.h"
#include "ptx_exec.h"
#include "streams.h"

namespace cudasim {
namespace {

constexpr int kKinds = 4;
constexpr int kAny = kKinds;

struct Injection {
  u64 calls[kKinds + 1] = {};
  u64 left = 0;  // calls until the one that fails, 0: none
  int kind = kAny;
  bool happened = false;

  Injection() {
    if (const char* n = std::getenv("CUDASIM_FAIL_AT")) left = std::strtoull(n, nullptr, 10);
    if (const char* k = std::getenv("CUDASIM_FAIL_KIND")) kind = kind_named(k);
  }

  static int kind_named(const std::string& name) {
    static const char* const kNames[] = {"malloc", "launch", "copy", "other", "any"};
    for (int k = 0; k <= kAny; ++k)
      if (name == kNames[k]) return k;
    fail("'%s' is no kind of call: malloc, launch, copy, other, any", name.c_str());
  }
};

Injection& injection() {
  static Injection* i = new Injection;
  return *i;
}

}  // namespace

bool injected(CallKind kind) {
  Injection& i = injection();
  const int k = static_cast<int>(kind);
  ++i.calls[k];
  ++i.calls[kAny];
  if (i.left == 0 || (i.kind != kAny && i.kind != k)) return false;
  if (--i.left > 0) return false;
  i.happened = true;
  return true;
}

}  // namespace cudasim

using namespace cudasim;

extern "C" {

void cudasim_fail_at(unsigned long long n, const char* kind) {
  CUDASIM_API;
  Injection& i = injection();
  i.left = n;
  i.kind = Injection::kind_named(kind);
  i.happened = false;
}
unsigned long long cudasim_calls(const char* kind) {
  CUDASIM_API;
  return injection().calls[Injection::kind_named(kind)];
}
int cudasim_failed(void) {
  CUDASIM_API;
  return injection().happened;
}
unsigned long long cudasim_live_bytes(void) {
  CUDASIM_API;
  return device_memory().live_bytes();
}
unsigned long long cudasim_live_allocations(void) {
  CUDASIM_API;
  return device_memory().live_count();
}
unsigned long long cudasim_peak_bytes(void) {
  CUDASIM_API;
  return device_memory().peak_bytes();
}
unsigned long long cudasim_races(void) {
  CUDASIM_API;
  return race_count();
}
unsigned long long cudasim_launches(void) {
  CUDASIM_API;
  return launch_log().count;
}
unsigned long long cudasim_graph_launches(void) {
  CUDASIM_API;
  return launch_log().graphs;
}
const char* cudasim_launch_log(void) {
  CUDASIM_API;
  static std::string text;
  text = launch_log().text;
  return text.c_str();
}
void cudasim_clear_launch_log(void) {
  CUDASIM_API;
  launch_log().text.clear();
}
}
