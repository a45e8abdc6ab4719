// Loops over the lanes of a warp.
#pragma once
#include <bit>

#include "ptx_exec.h"

// Result and operands of a loop are the same array or apart.
#ifdef __clang__
#define CUDASIM_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define CUDASIM_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace cudasim {

/// d[l] = f(l) for the lanes in mask. f must be harmless for the other lanes, for which it may run,
/// too.
template <class D, class F>
inline void each_lane(D* d, u32 mask, F f) {
  if (mask == kAllLanes) {
    CUDASIM_INDEPENDENT
    for (u32 l = 0; l < kLanes; ++l) d[l] = f(l);
    return;
  }
  if (std::popcount(mask) <= 4) {
    for (; mask; mask &= mask - 1) {
      const u32 l = static_cast<u32>(std::countr_zero(mask));
      d[l] = f(l);
    }
    return;
  }
  D result[kLanes];
  CUDASIM_INDEPENDENT
  for (u32 l = 0; l < kLanes; ++l) result[l] = f(l);
  for (u32 l = 0; l < kLanes; ++l) d[l] = mask >> l & 1 ? result[l] : d[l];
}

/// f(l) for the lanes in mask.
template <class F>
inline void active_lanes(u32 mask, F f) {
  for (; mask; mask &= mask - 1) f(static_cast<u32>(std::countr_zero(mask)));
}

/// A bit per lane.
template <class F>
inline u32 lane_bits(F f) {
  u32 bits = 0;
  for (u32 l = 0; l < kLanes; ++l) bits |= static_cast<u32>(f(l)) << l;
  return bits;
}

/// Writes the lanes in mask of a predicate.
inline void set_predicate(Warp& w, Place d, u32 bits, u32 mask) {
  if (d == kNowhere) return;
  u32* p = w.at<u32>(d);
  *p = (*p & ~mask) | (bits & mask);
}

}  // namespace cudasim
