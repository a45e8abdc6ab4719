// Highway as our kernels use it; includes its headers. A kernel file defines HWY_TARGET_INCLUDE as
// itself first, and is then compiled for each instruction set of isa.h; others get the list of
// targets only. isa.h decides which version runs, so nothing links to libhwy. No `#pragma once`:
// each target includes this again.
//
// Highway is compiled under a name of our own, so that an application's Highway, of another version
// or built with other flags, shares no symbol with it.
#ifndef TUTTI_HIGHWAY_SETTINGS
#define TUTTI_HIGHWAY_SETTINGS
#define hwy hwy_tutti
// Its assertions would need libhwy.
#define HWY_IS_DEBUG_BUILD 0
// Only the targets of isa.h that were asked for, besides the build's own, which cannot be left out:
// it is one of them or scalar.
#ifdef __aarch64__
// NEON is the build's own. Later versions of Highway tell it from NEON with AES.
#define HWY_COMPILE_ONLY_STATIC
#define HWY_DISABLED_TARGETS (~(HWY_NEON | HWY_NEON_WITHOUT_AES | HWY_EMU128 | HWY_SCALAR))
#else
#define HWY_DISABLED_TARGETS                                                             \
  (~(HWY_AVX3 * TUTTI_ISA_AVX3 | HWY_AVX2 * TUTTI_ISA_AVX2 | HWY_SSE4 * TUTTI_ISA_SSE4 | \
     HWY_EMU128 | HWY_SCALAR))
#endif
#include <hwy/detect_targets.h>

#include <tutti/config.h>
#ifndef HWY_NEON_WITHOUT_AES
#define HWY_NEON_WITHOUT_AES 0
#endif
#endif

// clang-format off
#ifdef HWY_TARGET_INCLUDE
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#endif
// clang-format on

#ifndef TUTTI_HIGHWAY_MACROS
#define TUTTI_HIGHWAY_MACROS

/// Whether a load by mask leaves alone what it masks out. With others it reads the whole vector.
#define TUTTI_MASKED_LOADS (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3)

/// Whether products fetch what later work reads (ahead.h); older processors are left with shorter
/// code.
#define TUTTI_FETCH_LATER (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM)

/// Before a loop over a constant number of registers; before one that is not worth longer code.
#ifdef __clang__
#define TUTTI_UNROLL _Pragma("clang loop unroll(full)")
#define TUTTI_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define TUTTI_UNROLL _Pragma("GCC unroll 32")
#define TUTTI_NO_UNROLL _Pragma("GCC unroll 1")
#endif

/// The end of a function: returns `value` as the namespace of the instruction set `isa` has it, or
/// null if it is not compiled for that. A template argument cannot name a namespace.
#define TUTTI_RETURN_FOR(isa, value) \
  switch (isa) {                     \
    TUTTI_CASE_AVX3(value)           \
    TUTTI_CASE_AVX2(value)           \
    TUTTI_CASE_SSE4(value)           \
    TUTTI_CASE_NEON(value)           \
    default:                         \
      return nullptr;                \
  }
#if HWY_TARGETS & HWY_AVX3
#define TUTTI_CASE_AVX3(value) \
  case Isa::avx3:              \
    return N_AVX3::value;
#else
#define TUTTI_CASE_AVX3(value)
#endif
#if HWY_TARGETS & HWY_AVX2
#define TUTTI_CASE_AVX2(value) \
  case Isa::avx2:              \
    return N_AVX2::value;
#else
#define TUTTI_CASE_AVX2(value)
#endif
#if HWY_TARGETS & HWY_SSE4
#define TUTTI_CASE_SSE4(value) \
  case Isa::sse4:              \
    return N_SSE4::value;
#else
#define TUTTI_CASE_SSE4(value)
#endif
#if HWY_TARGETS & HWY_NEON
#define TUTTI_NEON N_NEON
#elif HWY_TARGETS & HWY_NEON_WITHOUT_AES
#define TUTTI_NEON N_NEON_WITHOUT_AES
#endif
#ifdef TUTTI_NEON
#define TUTTI_CASE_NEON(value) \
  case Isa::neon:              \
    return TUTTI_NEON::value;
#else
#define TUTTI_CASE_NEON(value)
#endif

#endif  // TUTTI_HIGHWAY_MACROS
