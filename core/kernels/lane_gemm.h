// Products of many small matrices of one shape that lie interleaved: the same element of all of
// them is one run of numbers, and a vector holds that element of several matrices, one per lane.
// Nothing is left empty at the edges of small matrices, no transpose moves anything, and nothing is
// rearranged.
#pragma once
#include <cstdint>

#include <tutti/core/dtype.h>
#include <tutti/core/kernels/isa.h>
#include <tutti/core/kernels/pieces.h>

namespace tutti::kernels {

/// Matrices of which element (i, j) of the p-th lies at data[i * row + j * column + p]; `shared`:
/// one matrix for all p, at data[i * row + j * column].
struct Interleaved {
  const void* data = nullptr;
  std::int64_t row = 0, column = 0;
  bool shared = false;
};

/// out = a x b for `count` matrices a [m, k] and b [k, n], float32 or float64. `out` is without
/// gaps: element (i, j) of the p-th lies at (i * n + j) * count + p.
struct LaneGemm {
  DType dtype = kFloat32;
  std::int64_t count = 0, m = 0, n = 0, k = 0;
  Interleaved a, b;  // at most one is shared
  Interleaved bias;  // a row for each matrix, or none: `row` does not count
  void* out = nullptr;
  bool relu = false;                  // of the sums
  const void* relu_output = nullptr;  // laid out as out: the derivative of relu where it gave these
  void* row_sums = nullptr;  // the finished results' sums over their m rows: [n, count]; m > 0
  // Takes the results as they are made, line i * n + j being those of element (i, j). `out` then
  // has room for piece_size() elements only, and there are neither bias, relu nor sums.
  const PieceTaker* taker = nullptr;
};

/// What one matrix's result is does not depend on the others, nor on their number from lanes() on.
void lane_gemm(const LaneGemm& g);

constexpr std::int64_t kPieceRows = 6;  // at most, of a piece
/// Elements of the largest piece.
std::int64_t piece_size(std::int64_t count, std::int64_t m, std::int64_t n);

/// Matrices that one vector holds.
std::int64_t lanes(DType dtype);

/// The implementation with vectors; count is at least their number of lanes. Null where the
/// instruction set has none.
using LaneMultiply = void (*)(const LaneGemm& g);
template <class T>
LaneMultiply lane_multiply_highway(Isa isa);

}  // namespace tutti::kernels
