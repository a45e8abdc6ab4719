// The race detector. Every word of memory has a cell that remembers the last write and the last
// reads of the current launch; accesses narrower than a word split the cell into one per byte.
#pragma once
#include <cstddef>
#include <string>

#include "base.h"

namespace cudasim {

/// What the detector must know about an access besides its address.
struct Access {
  u32 thread = 0;  ///< within the block
  bool write = false;
  bool atomic = false;  ///< atomics do not race with each other
};

/// Points in time. Intervals between barriers are counted through all blocks and launches.
struct RaceClock {
  u32 launch_first = 1;  ///< first interval of this launch
  u32 block_first = 1;   ///< first interval of this block
  u32 interval = 1;      ///< the current one
};

/// The memory of the detector for one range of bytes.
class ShadowMemory {
 public:
  ShadowMemory() = default;
  ShadowMemory(const ShadowMemory&) = delete;
  ShadowMemory& operator=(const ShadowMemory&) = delete;
  ~ShadowMemory();

  /// One access to the bytes in `bytes` (a bit each) of the range that starts at `offset`. Accesses
  /// of several words must be aligned. Returns false and sets other() if it races with an earlier
  /// one. `warp_phase` counts the
  /// __syncwarp()s of the thread's warp; `shared` says that other blocks have memory of their own.
  bool check(u64 offset, u32 size, u32 bytes, const Access& access, const RaceClock& clock,
             u32 warp_phase, bool shared);

  /// Makes room for a range of n bytes. Does nothing if there is room already.
  void reserve(u64 n) {
    if (n > size_) grow(n);
  }

  /// The earlier access of the last race: its interval and thread.
  struct Other {
    u32 interval = 0;
    u32 thread = 0;
    bool write = false;
  };
  const Other& other() const { return other_; }

 private:
  struct Record {  // one access, 16 bytes a pair
    u32 interval = 0;
    u16 phase = 0;
    u16 bits = 0;  // thread, and flags
  };
  struct Cell {
    Record write, read;
  };
  void grow(u64 n);
  bool check_cell(Cell& cell, const Access& access, const RaceClock& clock, u16 phase, bool shared);
  bool conflicts(const Record& r, bool write, const Access& access, const RaceClock& clock,
                 u16 phase, bool shared);
  bool report(const Record& r, bool write);

  Cell* cells_ = nullptr;  // one a byte; the first of a word stands for the word until it is split
  u64 size_ = 0;
  Other other_;
};

}  // namespace cudasim
