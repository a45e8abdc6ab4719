// What a compiled function tells of its CUDA graphs.
#pragma once
#include <cstdint>

namespace tutti {

/// The CUDA graphs of a compiled function. All zero on the CPU, where graphs are turned off, and
/// where there is nothing to be won; see docs/cuda.md.
struct CudaGraphStats {
  std::int64_t graphs = 0;        // there are now
  std::int64_t instructions = 0;  // in them, of those that text() shows
  std::int64_t captures = 0;      // of graphs so far; anew where memory has moved
  std::int64_t launches = 0;      // of graphs so far
  std::int64_t copies = 0;        // of arguments and results with each call
  std::int64_t bytes = 0;         // of memory kept between calls

  CudaGraphStats& operator+=(const CudaGraphStats& o) {
    graphs += o.graphs;
    instructions += o.instructions;
    captures += o.captures;
    launches += o.launches;
    copies += o.copies;
    bytes += o.bytes;
    return *this;
  }
};

}  // namespace tutti
