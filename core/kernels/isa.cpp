// Finds out what the CPU can do, and reads TUTTI_ISA.
#include <atomic>
#include <cstdlib>
#include <string>

#include <tutti/core/error.h>
#include <tutti/core/kernels/isa.h>

#if TUTTI_HIGHWAY
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <tutti/core/kernels/highway.h>
#endif

namespace tutti::kernels {
namespace {

constexpr std::string_view kNames[] = {"scalar", "neon", "sse4", "avx2", "avx3"};

std::vector<Isa> find_supported() {
  std::vector<Isa> found = {Isa::scalar};
#ifdef TUTTI_NEON
  found.push_back(Isa::neon);
#elif TUTTI_HIGHWAY
  // What the compiler may use in a function for the target, and whether the system saves the
  // registers (__builtin_cpu_supports looks at both; not every compiler's knows f16c).
  __builtin_cpu_init();
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  __get_cpuid(1, &eax, &ebx, &ecx, &edx);
  const bool f16c = ecx & (1u << 29);
  const bool sse4 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul") &&
                    __builtin_cpu_supports("aes");
  const bool avx2 = sse4 && f16c && __builtin_cpu_supports("avx2") &&
                    __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2");
  const bool avx3 = avx2 && __builtin_cpu_supports("avx512f") &&
                    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#if HWY_TARGETS & HWY_SSE4
  if (sse4) found.push_back(Isa::sse4);
#endif
#if HWY_TARGETS & HWY_AVX2
  if (avx2) found.push_back(Isa::avx2);
#endif
#if HWY_TARGETS & HWY_AVX3
  if (avx3) found.push_back(Isa::avx3);
#endif
  static_cast<void>(sse4 || avx2 || avx3);
#endif
  return found;
}

std::string choices() {
  std::string s;
  for (Isa i : supported_isas()) s.append(s.empty() ? "" : ", ").append(name(i));
  return s;
}

Isa first_choice() {
  const char* wanted = std::getenv("TUTTI_ISA");
  return wanted && *wanted ? isa_named(wanted) : supported_isas().back();
}

std::atomic<int> in_use{-1};

}  // namespace

std::string_view name(Isa isa) { return kNames[static_cast<int>(isa)]; }

const std::vector<Isa>& supported_isas() {
  static const std::vector<Isa> found = find_supported();
  return found;
}

Isa isa_named(std::string_view wanted) {
  for (Isa i : supported_isas())
    if (name(i) == wanted) return i;
  fail<ValueError>("TUTTI_ISA", "expected one of ", choices(), ", got ", wanted,
                   "; unset the variable to use the best");
}

Isa isa() {
  int i = in_use.load(std::memory_order_relaxed);
  if (i < 0) in_use = i = static_cast<int>(first_choice());
  return static_cast<Isa>(i);
}

void set_isa(Isa isa) {
  for (Isa i : supported_isas())
    if (i == isa) {
      in_use = static_cast<int>(isa);
      return;
    }
  fail<ValueError>("set_isa", "expected one of ", choices(), ", got ", name(isa),
                   "; this CPU or build has no other");
}

}  // namespace tutti::kernels
