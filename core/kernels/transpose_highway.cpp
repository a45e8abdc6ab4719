// transpose.h with vectors, written once with Highway and compiled for each instruction set of
// isa.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <tutti/core/kernels/transpose_highway.cpp>
#include <algorithm>

#include <tutti/core/kernels/highway.h>
#include <tutti/core/kernels/transpose.h>

#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
HWY_BEFORE_NAMESPACE();
namespace tutti::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using Index = std::int64_t;
template <class T>
using Tag = hn::ScalableTag<T>;
template <class T>
using Vector = hn::Vec<Tag<T>>;
template <class T>
constexpr Index kBlockLanes = 16 / sizeof(T);

#include <tutti/core/kernels/transpose_blocks.inc>

// A vector of a row of `to` holds as many rows of `from`. What is left at the edges is covered by a
// step back: some elements are moved twice.
template <class T>
void transpose(T* to, Index to_row, const T* from, Index from_row, Index rows, Index columns) {
  const Tag<T> d;
  constexpr Index L = HWY_LANES(T), B = kBlockLanes<T>;
  if (rows < L || columns < B) {
    for (Index j = 0; j < columns; ++j)
      for (Index i = 0; i < rows; ++i) to[j * to_row + i] = from[i * from_row + j];
    return;
  }
  for (Index i = 0; i < rows; i += L) {
    i = std::min(i, rows - L);
    for (Index j = 0; j < columns; j += B) {
      j = std::min(j, columns - B);
      const T* p = from + i * from_row + j;
      T* q = to + j * to_row + i;
      Vector<T> v[B];
      TUTTI_UNROLL for (Index b = 0; b < B; ++b) v[b] =
          load_blocks(d, p + b * from_row, B * from_row, L);
      transpose_blocks<T>(v);
      TUTTI_UNROLL for (Index b = 0; b < B; ++b) hn::StoreU(v[b], d, q + b * to_row);
    }
  }
}

}  // namespace

}  // namespace HWY_NAMESPACE
}  // namespace tutti::kernels
HWY_AFTER_NAMESPACE();
#endif  // not scalar

#if HWY_ONCE
namespace tutti::kernels {

template <class T>
Transpose<T> transpose_highway(Isa isa) {
  TUTTI_RETURN_FOR(isa, transpose<T>)
}

template Transpose<std::uint32_t> transpose_highway<std::uint32_t>(Isa);
template Transpose<std::uint64_t> transpose_highway<std::uint64_t>(Isa);

}  // namespace tutti::kernels
#endif  // HWY_ONCE
