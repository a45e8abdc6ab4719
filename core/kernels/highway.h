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
// Only the targets of isa.h, besides the build's own, which cannot be left out: it is one of them
// or scalar.
#define HWY_DISABLED_TARGETS (~(HWY_AVX3 | HWY_AVX2 | HWY_SSE4 | HWY_EMU128 | HWY_SCALAR))
#endif

// clang-format off
#ifdef HWY_TARGET_INCLUDE
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#else
#include <hwy/detect_targets.h>
#endif
