// The race detector: see ptx_race.h.
#include "ptx_race.h"

#include <sys/mman.h>

namespace cudasim {
namespace {

// Bits of a record besides the thread (10 bits).
constexpr u16 kThread = 0x3ff;
constexpr u16 kAtomic = 0x400;  // of a write
constexpr u16 kSplit =
    0x800;  // of the first write record of a word: its bytes have cells of their own
constexpr u16 kLanes =
    0x1000;  // of reads: other lanes of the same warp, too, since the last __syncwarp()
constexpr u16 kWarps = 0x2000;   // of reads: other warps, too, in the same interval
constexpr u16 kBlocks = 0x4000;  // of reads: other blocks, too, in the same launch

u16 with(u16 bits, u16 flag) { return static_cast<u16>(bits | flag); }

}  // namespace

ShadowMemory::~ShadowMemory() {
  if (cells_) munmap(cells_, size_ * sizeof(Cell));
}

void ShadowMemory::grow(u64 n) {
  n = (n + 3) / 4 * 4;
  if (cells_) munmap(cells_, size_ * sizeof(Cell));
  void* p = mmap(nullptr, n * sizeof(Cell), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) fail("no memory for the race detector");
  cells_ = static_cast<Cell*>(p);
  size_ = n;
}

bool ShadowMemory::report(const Record& r, bool write) {
  other_ = {r.interval, static_cast<u32>(r.bits & kThread), write};
  return true;
}

// Is the recorded access `r` unordered with the present one, and by another thread?
bool ShadowMemory::conflicts(const Record& r, bool write, const Access& access,
                             const RaceClock& clock, u16 phase, bool shared) {
  const u32 oldest = shared ? clock.block_first : clock.launch_first;
  if (r.interval < oldest) return false;
  if (!write && !shared && (r.bits & kBlocks)) return report(r, write);
  if (r.interval < clock.block_first) return report(r, write);  // another block
  if (r.interval != clock.interval) return false;               // ordered by a barrier
  if (!write && (r.bits & kWarps)) return report(r, write);
  const u32 thread = r.bits & kThread;
  if (thread / 32 != access.thread / 32) return report(r, write);
  if (r.phase != phase) return false;  // ordered by __syncwarp()
  return thread != access.thread || (!write && (r.bits & kLanes)) ? report(r, write) : false;
}

bool ShadowMemory::check_cell(Cell& cell, const Access& access, const RaceClock& clock, u16 phase,
                              bool shared) {
  const u16 split = cell.write.bits & kSplit;
  const bool both_atomic = access.atomic && (cell.write.bits & kAtomic);
  bool race = !both_atomic && conflicts(cell.write, true, access, clock, phase, shared);
  const u16 thread = static_cast<u16>(access.thread);
  if (access.write) {
    race = race || conflicts(cell.read, false, access, clock, phase, shared);
    const u16 bits = with(split, with(thread, access.atomic ? kAtomic : u16{0}));
    cell.write = {clock.interval, phase, bits};
    return !race;
  }
  if (access.atomic) return !race;  // a relaxed or volatile load leaves no trace
  Record& r = cell.read;
  u16 flags = 0;
  if (r.interval >= clock.launch_first && !shared) {
    flags = r.bits & kBlocks;
    if (r.interval < clock.block_first) flags = with(flags, kBlocks);
  }
  if (r.interval == clock.interval) {
    flags = with(flags, r.bits & kWarps);
    if ((r.bits & kThread) / 32 != thread / 32) {
      flags = with(flags, kWarps);
    } else if (r.phase == phase && ((r.bits & kThread) != thread || (r.bits & kLanes))) {
      flags = with(flags, kLanes);
    }
  }
  r = {clock.interval, phase, with(thread, flags)};
  return !race;
}

bool ShadowMemory::check(u64 offset, u32 size, u32 bytes, const Access& access,
                         const RaceClock& clock, u32 warp_phase, bool shared) {
  const u16 phase = static_cast<u16>(warp_phase);
  bytes &= size >= 32 ? ~0u : (1u << size) - 1;
  bool fine = true;
  for (u32 at = 0; at < size;) {
    Cell* word = cells_ + ((offset + at) & ~u64{3});
    const bool whole = ((offset + at) & 3) == 0 && (bytes >> at & 15) == 15;
    if (whole && !(word->write.bits & kSplit)) {
      fine &= check_cell(*word, access, clock, phase, shared);
      at += 4;
      continue;
    }
    if (!(word->write.bits & kSplit)) {
      word->write.bits = with(word->write.bits, kSplit);
      for (int b = 1; b < 4; ++b) word[b] = word[0];
    }
    if (bytes >> at & 1) fine &= check_cell(cells_[offset + at], access, clock, phase, shared);
    ++at;
  }
  return fine;
}

}  // namespace cudasim
