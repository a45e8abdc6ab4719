// How a block of threads shares the work on results side by side: a grid of lanes, which share the
// elements of one result, and slots, one for each result; the fast direction of memory decides
// which of the two runs along x. Work on few and long results is cut into segments.
#pragma once
#include <algorithm>

#include <tutti/cuda/launch.cuh>

namespace tutti::cuda {

inline constexpr unsigned kRun = 16;         // elements added up before they join the total
inline constexpr unsigned kShortest = 2048;  // elements of a segment, at least
inline constexpr unsigned kMostSegments = 64;
inline constexpr unsigned kEnoughBlocks = 64;  // with so many there is no need to cut

/// Where a thread stands in its block.
struct Seat {
  unsigned lane, lanes, slot, slots, step;  // step: from one lane to the next in shared memory
  __device__ explicit Seat(bool along_x) {
    lane = along_x ? threadIdx.x : threadIdx.y;
    lanes = along_x ? blockDim.x : blockDim.y;
    slot = along_x ? threadIdx.y : threadIdx.x;
    slots = along_x ? blockDim.y : blockDim.x;
    step = along_x ? 1 : blockDim.x;
  }
};

/// What the lanes of the caller's slot have, folded by a tree, for each of them; the same order
/// every time. All threads of the block call it. `shared` has kBlock places; lanes are a power of
/// two.
template <class A, class F>
__device__ A fold_lanes(const Seat& seat, A value, A* shared, const F& fold) {
  const unsigned mine = threadIdx.y * blockDim.x + threadIdx.x;
  __syncthreads();  // an earlier fold has been read
  shared[mine] = value;
  for (unsigned half = seat.lanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (seat.lane < half) shared[mine] = fold(shared[mine], shared[mine + half * seat.step]);
  }
  __syncthreads();
  return shared[mine - seat.lane * seat.step];
}

/// The block, the blocks and the segments for `results` of `length` elements each.
struct Seating {
  unsigned segments = 1, per_segment;
  dim3 grid, block;

  Seating(unsigned results, unsigned length, bool lanes_along_x) {
    const unsigned lanes = power_from(length, lanes_along_x ? kBlock : 16);
    const unsigned slots = power_from(results, kBlock / lanes);
    block = lanes_along_x ? dim3(lanes, slots) : dim3(slots, lanes);
    const unsigned blocks = blocks_for(results, slots);
    if (blocks < kEnoughBlocks && length >= 2 * kShortest)
      segments = std::min(kMostSegments, length / kShortest);
    per_segment = (length + segments - 1) / segments;
    grid = dim3(blocks, segments);
  }

 private:
  /// The first power of two that is not below n, `most` at most.
  static unsigned power_from(unsigned n, unsigned most) {
    unsigned p = 1;
    while (p < most && p < n) p *= 2;
    return p;
  }
};

}  // namespace tutti::cuda
