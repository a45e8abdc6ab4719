// How a kernel reports an index that is out of range. It goes on without it: nothing outside of a
// tensor is read or written, and the CPU throws when it next waits for the device.
#pragma once
#include <tutti/cuda/runtime.h>

namespace tutti::cuda {

__device__ __forceinline__ void report(IndexFault* fault, IndexOp op, std::int64_t index,
                                       std::int64_t size, bool from_end) {
  if (atomicCAS(&fault->found, 0u, 1u) != 0u) return;  // the first one counts
  fault->op = static_cast<int>(op);
  fault->index = index;
  fault->size = size;
  fault->from_end = from_end;
}

/// The index, counted from the front; a bad one is reported and becomes -1.
__device__ __forceinline__ std::int64_t checked(IndexFault* fault, IndexOp op, std::int64_t index,
                                                std::int64_t size, bool from_end) {
  const std::int64_t i = from_end && index < 0 ? index + size : index;
  if (i >= 0 && i < size) return i;
  report(fault, op, index, size, from_end);
  return -1;
}

}  // namespace tutti::cuda
