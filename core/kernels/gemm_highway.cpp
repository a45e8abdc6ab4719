// Matrix products with vectors, written once with Highway and compiled for each instruction set of
// isa.h.
//
// The result is cut into tiles that stay in registers: rows of a times vectors of columns of b
// (Goto, van de Geijn: "Anatomy of high-performance matrix multiplication", ACM TOMS 2008). a is
// read where it lies, one number at a time, so its strides do not matter; b is read where it lies,
// too, unless its columns are not contiguous. One call of a kernel computes many tiles, of one
// product or of many small ones. Tiles are balanced and masked at the edges, as in LIBXSMM
// (Heinecke et al.: "LIBXSMM: accelerating small matrix multiplications by runtime code
// generation", SC 2016).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <tutti/core/kernels/gemm_highway.cpp>
#include <algorithm>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>

#include <tutti/core/kernels/ahead.h>
#include <tutti/core/kernels/gemm_impl.h>
#include <tutti/core/kernels/highway.h>

#ifndef TUTTI_GEMM_ONCE
#define TUTTI_GEMM_ONCE

namespace tutti::kernels {
namespace {

using Index = std::ptrdiff_t;

// ---- The rules, in one place. Measured with g++ 12: those for many registers (AVX-512) on a
// Zen 4/5 core with 1 MB of L2, those for few (AVX2, SSE4) on a Zen 3 core with 512 KB. NEON has
// many, too, and takes their rules unmeasured. Sizes are
// in vectors, so that they are the same number of bytes for float and double.

/// Rows of k summed before the result is added to out: two vectors of so many rows of b fill half
/// of a 64 KB, or most of a 32 KB, L1 cache.
constexpr Index kDepth = 256;
/// Vectors per panel of b. Two, and enough rows to fill the registers, read least. With many
/// registers and a b in L1, see kBInL1, four do as well, and results are written in longer pieces.
constexpr Index kPanel = 2, kWidePanel = 4;
/// With many registers: up to so many vectors of columns all rows run along one panel of b, which
/// then stays in L1. With more, one tile's rows of a stay there, and run along all panels.
constexpr Index kFewVectors = 8;
/// With few registers tiles are small, and panels are read too often for that. One tile's rows run
/// along all panels only if b is no larger than this, and so stays in L1 whole, too.
constexpr Index kBInL1 = 16 << 10;
/// Vectors of columns for which b is rearranged at a time: with kDepth 0.5 MB, half of L2.
constexpr Index kGroup = 32;
/// b is rearranged panel by panel, each used at once from L1, if a (which is read once per panel)
/// is no larger than this; with few registers, where it is read from L2 anyway, than the second.
constexpr Index kSmallA = 64 << 10, kSmallAInL2 = 128 << 10;
/// Small products are computed several at a time: as many as are so many bytes, with many registers
/// the second, which is all of a Zen 5's L1.
constexpr Index kSeveralInL1 = 16 << 10, kSeveralInLargeL1 = 48 << 10;
/// Rows of b that are a multiple of so many bytes apart fall into few sets of the caches; b is then
/// rearranged, though its columns are contiguous, if it is used often enough.
constexpr Index kBadStride = 2048;
constexpr Index kBadStrideRows = 64, kBadStrideDepth = 128;
/// With few registers the limit is how much of L1 its rows occupy, see conflicts().
constexpr Index kPackBConflicts = 32 << 10;
/// Results larger than this are not in L2 and are prefetched before they are added to.
constexpr Index kLargeResult = 256 << 10;
/// On a b with contiguous columns: dot products, which need no rearranged b. For one row; for two
/// of more than so many terms; and for so few columns, which would leave most of a vector empty, of
/// so many terms.
constexpr Index kDotTwoTerms = 8, kDotColumns = 3, kDotTerms = 64;
/// Columns of up to so many bytes are prefetched while dot products with those before are computed;
/// the hardware does that for longer ones.
constexpr Index kShortColumns = 512;
/// From so many bytes on columns may be read one after the other: one stream at a time comes
/// faster.
constexpr Index kLongColumns = 1024;

/// A single row is multiplied in panels of so many vectors. If there are several, each row of b is
/// read as a stream: with many registers two at a time, see wide_row(), with few so many at a time.
constexpr Index kRowPanel = 8, kRowDepth = 32;
/// With few registers: bytes of a that are read from L2 for one panel after the other.
constexpr Index kRowsInL2 = 96 << 10;
/// A transposed a is rearranged if it is used for kPackAColumns columns, is not larger than
/// kPackALimit and occupies kPackAConflicts of L1, see conflicts(); with many registers, which read
/// it less often, kPackALargeConflicts.
constexpr Index kPackAColumns = 256, kPackAConflicts = 16 << 10, kPackALargeConflicts = 1 << 20,
                kPackALimit = 4 << 20;
/// With AVX-512: one vector of columns of b is held in registers if it has up to so many terms, and
/// passed by so many rows of a at a time; with fewer than kManyHeldRows only if none is left over.
constexpr int kHeldTerms = 16, kHeldRows = 8, kManyHeldRows = 32;
/// With AVX-512: tiles of one vector and at least so many rows, of a transposed a, add several
/// terms per step, see turned_tiles().
constexpr int kTurnedRows = 8;
/// With few registers: up to so many tiles their heights differ by one at most; of more, only the
/// last two are not as high as can be.
constexpr Index kBalancedTiles = 8;

/// How many bytes of an L1 cache (of 32 KB with eight ways) it takes to hold `count` numbers that
/// are a stride apart: addresses 4 KB apart fall into the same set.
constexpr Index conflicts(Index stride_bytes, Index count) {
  return count * std::gcd(stride_bytes, Index{4096});
}

// ---- what kernels are told

/// The same for all tiles of a call of a kernel.
struct Walk {
  Index a_row, a_column, b_row, out_row;
  Index a_step, b_step, out_step, bias_step,
      sums_step;  // from one tile of a row of tiles to the next
  Index a_next, b_next, out_next, bias_next, sums_next;  // from one row of tiles to the next
  Index depth;                                           // terms of each sum
  Index height;                                          // of a tile, if its kernel takes any
  Index tail;                                            // columns in the last vector
  Index ahead;  // from a row of b to what is prefetched with it
  bool add;     // to what out holds
  bool relu;    // of the sums
  bool prefetch_out;
  Ahead* later;  // what later work reads, prefetched unless there is an `ahead`; or null
};

/// What is prefetched with a row of b.
enum class Fetch { nothing, row, line };
template <Fetch what>
using Fetching = std::integral_constant<Fetch, what>;

/// What else a tile reads and writes besides its operands; each may be null.
template <class T>
struct Extras {
  const T* bias = nullptr;
  const T* relu_output = nullptr;  // where out's first element has its place in it
  T* row_sums = nullptr;
};

/// Computes `rows` rows of `count` tiles. A row of tiles is any of those that are evenly spaced.
template <class T>
using Kernel = void (*)(const T* a, const T* b, T* out, const Extras<T>& extras, const Walk& w,
                        Index count, Index rows);

}  // namespace
}  // namespace tutti::kernels
#endif  // TUTTI_GEMM_ONCE

#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
HWY_BEFORE_NAMESPACE();
namespace tutti::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Tag = hn::ScalableTag<T>;
template <class T>
using Vector = hn::Vec<Tag<T>>;
template <class T>
constexpr Index kLanes = HWY_LANES(T);
/// Numbers in 128 bits, the unit most shuffles work in.
template <class T>
constexpr Index kBlockLanes = 16 / sizeof(T);

/// 32 registers, else 16.
constexpr bool kManyRegisters = HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM;
/// Rows of a tile by its vectors: the registers hold the sums, a row of b and a number of a.
/// With NEON g++ loads several numbers of a ahead, and would lack the registers for more rows.
#if HWY_TARGET == HWY_AVX3
constexpr int kRows[] = {0, 16, 13, 9, 6, 1, 1, 1, 1};
#elif HWY_ARCH_ARM
constexpr int kRows[] = {0, 16, 10, 7, 1, 1, 1, 1, 1};
#else
constexpr int kRows[] = {0, 10, 6, 4, 1, 1, 1, 1, 1};
#endif
constexpr bool kWidePanels = kRows[kWidePanel] > 1;
/// Whether there are held_tiles() and turned_tiles(): for the type that networks have.
template <class T>
constexpr bool kSpecial = (HWY_TARGET == HWY_AVX3) && std::is_same_v<T, float>;
/// Blocks of columns whose dot products are computed together.
constexpr Index kDotBlocks = HWY_TARGET == HWY_AVX3 ? 1 : 2;
constexpr bool kDotStreams = HWY_TARGET == HWY_AVX3;  // long columns one after the other

/// Partial sums per element of the result. A product with few rows has few elements at work at
/// once, too few to hide the four cycles of a multiply-add. This decides the order of summation, so
/// it depends on the product as a whole only.
constexpr int sums_for(Index m, Index vectors) {
  if (vectors == 1) return m == 1 ? 8 : m == 2 ? 4 : m <= 4 ? 2 : 1;
  if (m == 1) return kManyRegisters ? 1 : vectors <= 3 ? 4 : vectors <= 6 ? 2 : 1;
  return m == 2 ? 2 : 1;
}

/// The first n numbers, then zeros. Nothing else is read.
template <class T, class D = Tag<T>>
HWY_INLINE hn::Vec<D> load_tail(const T* p, Index n) {
  const D d;
#if TUTTI_MASKED_LOADS
  return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(n)), d, p);
#elif HWY_ARCH_ARM
  if (n == 0) return hn::Zero(d);
  if (n == 1) return hn::InsertLane(hn::Zero(d), 0, *p);
  const auto two = hn::ZeroExtendVector(d, hn::LoadU(hn::FixedTag<T, kBlockLanes<T> / 2>(), p));
  return n == 2 ? two : hn::InsertLane(two, 2, p[2]);
#else
  HWY_ALIGN T buffer[kLanes<T>] = {};
  for (Index i = 0; i < n; ++i) buffer[i] = p[i];
  return hn::Load(d, buffer);
#endif
}

/// Stores the first n numbers. Nothing else is written.
template <class T, class D = Tag<T>>
HWY_INLINE void store_tail(hn::Vec<D> v, T* p, Index n) {
  const D d;
#if HWY_TARGET == HWY_AVX3
  hn::BlendedStore(v, hn::FirstN(d, static_cast<std::size_t>(n)), d, p);
#else  // masked stores of AVX2 are slow
  HWY_ALIGN T buffer[kLanes<T>];
  hn::Store(v, d, buffer);
  for (Index i = 0; i < n; ++i) p[i] = buffer[i];
#endif
}

/// x, 0 if x <= 0; NaN stays.
template <class D>
HWY_INLINE hn::Vec<D> relu(D d, hn::Vec<D> x) {
  return hn::IfThenZeroElse(hn::Le(x, hn::Zero(d)), x);
}

/// x, 0 unless y > 0.
template <class D>
HWY_INLINE hn::Vec<D> relu_grad(D d, hn::Vec<D> x, hn::Vec<D> y) {
  return hn::IfThenElseZero(hn::Gt(y, hn::Zero(d)), x);
}

// ---- the kernel

/// Tiles of `rows` times `vectors`, with `sums` partial sums per element. kTail: the last vector
/// has w.tail columns. kPlain: nothing but products, with no extras, and nothing to prefetch; what
/// is left to do between two tiles then fits the registers. D: of vectors.
template <class T, int rows, int vectors, int sums, bool kTail, bool kPlain = false,
          class D = Tag<T>>
HWY_NOINLINE void tiles(const T* first_a, const T* first_b, T* first_out, const Extras<T>& extras,
                        const Walk& w, Index count, Index tile_rows) {
  const D d;
  using V = hn::Vec<D>;
  constexpr Index L = hn::MaxLanes(D());
  const Index a_row = w.a_row, a_column = w.a_column, b_row = w.b_row, out_row = w.out_row;
  const Index tail = kTail ? w.tail : L;
  const auto mask = hn::FirstN(d, static_cast<std::size_t>(tail));
  static_cast<void>(mask);
  const bool plain =
      kPlain || (!extras.bias && !w.add && !w.relu && !extras.relu_output && !extras.row_sums);

  const T *a0 = first_a, *b0 = first_b;
  const T *first_bias = kPlain ? nullptr : extras.bias, *bias = first_bias;
  T *first_sums = kPlain ? nullptr : extras.row_sums, *row_sums = first_sums;
  T* out = first_out;
  const T* const outs = out;  // relu_output is walked as out is
  for (Index left = count; tile_rows > 0;) {
    if (!kPlain && w.prefetch_out)
      TUTTI_UNROLL for (int i = 0; i < rows; ++i) TUTTI_UNROLL for (int j = 0; j < vectors; ++j)
          __builtin_prefetch(out + i * out_row + j * L, 1);

    V s[sums][rows][vectors];
    TUTTI_UNROLL for (int u = 0; u < sums; ++u) TUTTI_UNROLL for (int i = 0; i < rows; ++i)
        TUTTI_UNROLL for (int j = 0; j < vectors; ++j) s[u][i][j] = hn::Zero(d);

    // One address for every four rows of a: x86 addresses them with multiples of one stride.
    constexpr int kBases = (rows + 3) / 4;
    const T* a[kBases];
    TUTTI_UNROLL for (int i = 0; i < kBases; ++i) a[i] = a0 + 4 * i * a_row;
    const T* b = b0;
    const T* row = nullptr;  // to prefetch: as many vectors as are read of b,
    Ahead::Lines lines;      // or a line
    if (!kPlain) {
      if (kManyRegisters && w.ahead)
        row = b0 + w.ahead;
      else if (TUTTI_FETCH_LATER && w.later)
        lines = w.later->take(w.depth);
    }
    const auto add_products = [&](int u, auto fetch) HWY_ATTR {
      V x[vectors];
      TUTTI_UNROLL for (int j = 0; j < vectors; ++j) {
        if (!kTail || j < vectors - 1) {
          x[j] = hn::LoadU(d, b + j * L);
        } else {
#if TUTTI_MASKED_LOADS
          x[j] = hn::MaskedLoad(mask, d, b + j * L);
#else
          x[j] = load_tail<T, D>(b + j * L, tail);
#endif
        }
        if constexpr (fetch == Fetch::row) __builtin_prefetch(row + j * L);
      }
      if constexpr (fetch == Fetch::row) row += b_row;
      if constexpr (fetch == Fetch::line) {
        // Second level: in the first one it would be in the way.
        __builtin_prefetch(lines.begin, 0, 2);
        lines.begin += lines.step;
      }
      TUTTI_UNROLL for (int i = 0; i < rows; ++i) {
        const V y = hn::Set(d, a[i / 4][(i % 4) * a_row]);
        TUTTI_UNROLL for (int j = 0; j < vectors; ++j) s[u][i][j] = hn::MulAdd(y, x[j], s[u][i][j]);
      }
      TUTTI_UNROLL for (int i = 0; i < kBases; ++i) a[i] += a_column;
      b += b_row;
    };
    const auto add_all = [&](auto fetch) HWY_ATTR {
      Index k = w.depth;
      if constexpr (sums > 1)
        for (; k >= sums; k -= sums)
          TUTTI_UNROLL for (int u = 0; u < sums; ++u) add_products(u, fetch);
      for (; k > 0; --k) add_products(0, fetch);
    };
    // Prefetching what is at hand costs as much as loading it.
    if (!kPlain && kManyRegisters && row)
      add_all(Fetching<Fetch::row>());
    else if (!kPlain && TUTTI_FETCH_LATER && lines.begin)
      add_all(Fetching<Fetch::line>());
    else
      add_all(Fetching<Fetch::nothing>());
    TUTTI_UNROLL for (int u = 1; u < sums; ++u) TUTTI_UNROLL for (int i = 0; i < rows; ++i)
        TUTTI_UNROLL for (int j = 0; j < vectors; ++j) s[0][i][j] = hn::Add(s[0][i][j], s[u][i][j]);

    const auto load = [&](const T* p, int j) HWY_ATTR {
      return kTail && j == vectors - 1 ? load_tail<T, D>(p + j * L, tail) : hn::LoadU(d, p + j * L);
    };
    if (!plain) {
      if (bias) {
        TUTTI_UNROLL for (int j = 0; j < vectors; ++j) {
          const V x = load(bias, j);
          TUTTI_UNROLL for (int i = 0; i < rows; ++i) s[0][i][j] = hn::Add(s[0][i][j], x);
        }
        bias += w.bias_step;
      }
      if (w.add)
        TUTTI_UNROLL for (int i = 0; i < rows; ++i) TUTTI_UNROLL for (int j = 0; j < vectors; ++j)
            s[0][i][j] = hn::Add(s[0][i][j], load(out + i * out_row, j));
      if (w.relu)
        TUTTI_UNROLL for (int i = 0; i < rows; ++i) TUTTI_UNROLL for (int j = 0; j < vectors; ++j)
            s[0][i][j] = relu(d, s[0][i][j]);
      if (extras.relu_output)
        TUTTI_UNROLL for (int i = 0; i < rows; ++i) TUTTI_UNROLL for (int j = 0; j < vectors; ++j)
            s[0][i][j] =
                relu_grad(d, s[0][i][j], load(extras.relu_output + (out - outs) + i * out_row, j));
      if (row_sums) {
        TUTTI_UNROLL for (int j = 0; j < vectors; ++j) {
          V sum = s[0][0][j];
          TUTTI_UNROLL for (int i = 1; i < rows; ++i) sum = hn::Add(sum, s[0][i][j]);
          sum = hn::Add(load(row_sums, j), sum);
          if (kTail && j == vectors - 1)
            store_tail<T, D>(sum, row_sums + j * L, tail);
          else
            hn::StoreU(sum, d, row_sums + j * L);
        }
        row_sums += w.sums_step;
      }
    }
    T* to = out;
    TUTTI_UNROLL for (int i = 0; i < rows; ++i) {
      TUTTI_UNROLL for (int j = 0; j < vectors; ++j) {
        if (kTail && j == vectors - 1)
          store_tail<T, D>(s[0][i][j], to + j * L, tail);
        else
          hn::StoreU(s[0][i][j], d, to + j * L);
      }
      to += out_row;
    }
    a0 += w.a_step;
    b0 += w.b_step;
    out += w.out_step;
    if (--left == 0) {
      left = count;
      --tile_rows;
      a0 = first_a += w.a_next;
      b0 = first_b += w.b_next;
      out = first_out += w.out_next;
      if (bias) bias = first_bias += w.bias_next;
      if (row_sums) row_sums = first_sums += w.sums_next;
    }
  }
}

/// Tiles of one vector and `terms` terms: the rows of b are held in registers while those of a
/// pass, of which there are any number from kHeldRows on. Like a kPlain kernel. The rows of a
/// follow each other, so that all their addresses are known here: g++ would keep sums of strides in
/// memory.
template <class T, int terms, class D>
HWY_NOINLINE void held_tiles(const T* first_a, const T* first_b, T* first_out, const Extras<T>&,
                             const Walk& w, Index count, Index tile_rows) {
  const D d;
  using V = hn::Vec<D>;
  const Index out_row = w.out_row;
  for (; tile_rows > 0; --tile_rows) {
    const T *tile_a = first_a, *tile_b = first_b;
    T* tile_out = first_out;
    for (Index left = count; left > 0; --left) {
      V x[terms];
      const T* b = tile_b;
      TUTTI_UNROLL for (int k = 0; k < terms; ++k, b += w.b_row) x[k] = hn::LoadU(d, b);
      const T* a = tile_a;
      T* out = tile_out;
      for (Index rows = w.height; rows > 0;) {
        V s[kHeldRows];
        TUTTI_UNROLL for (int i = 0; i < kHeldRows; ++i) s[i] = hn::Zero(d);
        TUTTI_UNROLL for (int k = 0; k < terms; ++k)
            TUTTI_UNROLL for (int i = 0; i < kHeldRows; ++i) s[i] =
                hn::MulAdd(hn::Set(d, a[i * terms + k]), x[k], s[i]);
        T* to = out;
        TUTTI_UNROLL for (int i = 0; i < kHeldRows; ++i, to += out_row) hn::StoreU(s[i], d, to);
        rows -= kHeldRows;
        // The last rows, together with some that are computed again.
        const Index next = rows < kHeldRows ? rows : kHeldRows;
        a += next * terms, out += next * out_row;
        if (rows > 0 && rows < kHeldRows) rows = kHeldRows;
      }
      tile_a += w.a_step, tile_b += w.b_step, tile_out += w.out_step;
    }
    first_a += w.a_next, first_b += w.b_next, first_out += w.out_next;
  }
}

/// Whether held_tiles() computes so many vectors of a product, the last with so many columns, best.
template <class T>
constexpr bool holds_b(const Form& f, Index vectors, Index columns) {
  const bool whole = columns == kLanes<T> || columns == kLanes<T> / 2;
  return kSpecial<T> && vectors == 1 && whole && f.k > 1 && f.k <= kHeldTerms && f.a_column == 1 &&
         f.a_row == f.k && (f.m % kHeldRows == 0 || f.m >= kManyHeldRows);
}

template <class T, class D, int... i>
Kernel<T> held_kernel(Index terms, std::integer_sequence<int, i...>) {
  static constexpr Kernel<T> kernels[] = {&held_tiles<T, i + 2, D>...};
  return kernels[terms - 2];
}
/// Where holds_b() is ever true, and so not compiled elsewhere.
template <class T>
Kernel<T> held_kernel([[maybe_unused]] Index terms, [[maybe_unused]] Index columns) {
  constexpr auto all = std::make_integer_sequence<int, kHeldTerms - 1>();
  if constexpr (kSpecial<T>)
    return columns == kLanes<T> ? held_kernel<T, Tag<T>>(terms, all)
                                : held_kernel<T, hn::Half<Tag<T>>>(terms, all);
  else
    return nullptr;
}

/// Like a kPlain kernel of one vector, of an a whose columns are contiguous: all addresses of a
/// term are known here, and several terms are added per step. tiles() is as fast in L1, but on
/// operands in L2 an Emerald Rapids core computes only three quarters as much with it.
template <class T, int rows, class D>
HWY_NOINLINE void turned_tiles(const T* first_a, const T* first_b, T* first_out, const Extras<T>&,
                               const Walk& w, Index count, Index tile_rows) {
  constexpr int kTerms = 4;
  const D d;
  const Index a_column = w.a_column, b_row = w.b_row, out_row = w.out_row;
  for (; tile_rows > 0; --tile_rows) {
    const T *tile_a = first_a, *tile_b = first_b;
    T* tile_out = first_out;
    for (Index left = count; left > 0; --left) {
      hn::Vec<D> s[rows];
      TUTTI_UNROLL for (int i = 0; i < rows; ++i) s[i] = hn::Zero(d);
      const T *a = tile_a, *b = tile_b;
      const auto add_products = [&]() HWY_ATTR {
        const auto x = hn::LoadU(d, b);
        TUTTI_UNROLL for (int i = 0; i < rows; ++i) s[i] = hn::MulAdd(hn::Set(d, a[i]), x, s[i]);
        a += a_column;
        b += b_row;
      };
      Index k = w.depth;
      TUTTI_NO_UNROLL for (; k % kTerms > 0; --k) add_products();
      for (; k > 0; k -= kTerms) TUTTI_UNROLL for (int u = 0; u < kTerms; ++u) add_products();
      T* to = tile_out;
      TUTTI_UNROLL for (int i = 0; i < rows; ++i, to += out_row) hn::StoreU(s[i], d, to);
      tile_a += w.a_step, tile_b += w.b_step, tile_out += w.out_step;
    }
    first_a += w.a_next, first_b += w.b_next, first_out += w.out_next;
  }
}
template <class T, class D, int... i>
Kernel<T> turned_kernel(Index rows, std::integer_sequence<int, i...>) {
  static constexpr Kernel<T> kernels[] = {&turned_tiles<T, i + kTurnedRows, D>...};
  return kernels[rows - kTurnedRows];
}
/// A kernel for so many rows and columns, if there is one.
template <class T>
Kernel<T> turned_kernel([[maybe_unused]] Index rows, [[maybe_unused]] Index columns) {
  if constexpr (kSpecial<T>) {
    constexpr auto all = std::make_integer_sequence<int, kRows[1] - kTurnedRows + 1>();
    if (rows >= kTurnedRows && columns == kLanes<T>) return turned_kernel<T, Tag<T>>(rows, all);
    if (rows >= kTurnedRows && columns == kLanes<T> / 2)
      return turned_kernel<T, hn::Half<Tag<T>>>(rows, all);
  }
  return nullptr;
}

template <class T, int vectors, bool kTail, bool kPlain = false, class D = Tag<T>, int... i>
Kernel<T> by_rows(Index rows, std::integer_sequence<int, i...>) {
  static constexpr Kernel<T> kernels[] = {&tiles<T, i + 1, vectors, 1, kTail, kPlain, D>...};
  return kernels[rows - 1];
}

template <class T, int vectors, bool kTail>
Kernel<T> find_kernel(Index rows, int sums, bool plain) {
  constexpr int one = vectors == 1 ? 8 : 4, two = vectors == 1 ? 4 : 2;
  constexpr auto all = std::make_integer_sequence<int, kRows[vectors]>();
  if constexpr (!kTail)
    if (sums == 1 && plain) return by_rows<T, vectors, false, true>(rows, all);
  if (sums == 1) return by_rows<T, vectors, kTail>(rows, all);
  if (rows == 1) return sums == one ? &tiles<T, 1, vectors, one, kTail> : &tiles<T, 1, 1, 4, kTail>;
  if (rows == 2) return sums == two ? &tiles<T, 2, vectors, two, kTail> : &tiles<T, 2, 1, 2, kTail>;
  return rows == 3 ? &tiles<T, 3, 1, 2, kTail> : &tiles<T, 4, 1, 2, kTail>;
}

/// Of a single row, by its vectors - 4.
template <class T, bool kTail>
constexpr Kernel<T> kRowKernels[] = {
    &tiles<T, 1, 4, sums_for(1, 4), kTail>, &tiles<T, 1, 5, sums_for(1, 5), kTail>,
    &tiles<T, 1, 6, sums_for(1, 6), kTail>, &tiles<T, 1, 7, sums_for(1, 7), kTail>,
    &tiles<T, 1, 8, sums_for(1, 8), kTail>};

/// See sums_for(); with kTail where the last vector has fewer columns than lanes; with kPlain,
/// where there is such a kernel, if `plain`.
template <class T>
Kernel<T> find_kernel(Index rows, Index vectors, int sums, Index columns, bool plain) {
  const bool tail = columns != kLanes<T>;
#if HWY_TARGET == HWY_AVX3
  // Half a vector lies in fewer cache lines.
  using Half = hn::Half<Tag<T>>;
  if (vectors == 1 && sums == 1 && 2 * columns <= kLanes<T>) {
    constexpr auto all = std::make_integer_sequence<int, kRows[1]>();
    return 2 * columns == kLanes<T> ? by_rows<T, 1, false, false, Half>(rows, all)
                                    : by_rows<T, 1, true, false, Half>(rows, all);
  }
#endif
  if constexpr (kWidePanels)
    if (vectors == kWidePanel && rows > 1)
      return find_kernel<T, kWidePanel, false>(rows, sums, plain);
  if (vectors > 3)
    return tail ? kRowKernels<T, true>[vectors - 4] : kRowKernels<T, false>[vectors - 4];
  if (tail)
    return vectors == 1   ? find_kernel<T, 1, true>(rows, sums, plain)
           : vectors == 2 ? find_kernel<T, 2, true>(rows, sums, plain)
                          : find_kernel<T, 3, true>(rows, sums, plain);
  return vectors == 1   ? find_kernel<T, 1, false>(rows, sums, plain)
         : vectors == 2 ? find_kernel<T, 2, false>(rows, sums, plain)
                        : find_kernel<T, 3, false>(rows, sums, plain);
}

// ---- rearranging b

#include <tutti/core/kernels/transpose_blocks.inc>

#if HWY_TARGET == HWY_AVX3
/// Eight numbers of each of sixteen columns, to eight rows. Loads of 256 bits are half as many as
/// those of blocks, which load_blocks() needs, for one more shuffle per row.
HWY_INLINE void turn_sixteen_columns(const float* from, Index column, float* to, Index width) {
  constexpr Index B = kBlockLanes<float>;
  // Columns i and i + 4, as a masked broadcast: a load and a blend.
  const auto two_columns = [&](Index i) HWY_ATTR {
    const __m512 low = _mm512_castps256_ps512(_mm256_loadu_ps(from + i * column));
    const __m256d high = _mm256_castps_pd(_mm256_loadu_ps(from + (i + B) * column));
    return Vector<float>{
        _mm512_castpd_ps(_mm512_mask_broadcast_f64x4(_mm512_castps_pd(low), 0xf0, high))};
  };
  Vector<float> x[B], y[B];
  TUTTI_UNROLL for (Index i = 0; i < B; ++i) x[i] = two_columns(i);
  TUTTI_UNROLL for (Index i = 0; i < B; ++i) y[i] = two_columns(i + 2 * B);
  transpose_blocks<float>(x);
  transpose_blocks<float>(y);
  const Tag<float> d;
  TUTTI_UNROLL for (Index i = 0; i < B; ++i) {  // the even blocks are row i, the odd ones row i + 4
    hn::StoreU(Vector<float>{_mm512_shuffle_f32x4(x[i].raw, y[i].raw, 0x88)}, d, to + i * width);
    hn::StoreU(Vector<float>{_mm512_shuffle_f32x4(x[i].raw, y[i].raw, 0xdd)}, d,
               to + (i + B) * width);
  }
}
#endif

/// Columns of b that are contiguous, to rows: to[k * width + j] = from[j * column + k] for j < n, 0
/// for n <= j < width, a multiple of the vector.
template <class T>
HWY_NOINLINE void pack_transposed(const T* from, Index column, Index n, Index width, Index depth,
                                  T* to) {
  const Tag<T> d;
  constexpr Index L = kLanes<T>, B = kBlockLanes<T>;
  for (Index j = 0; j < width; j += L, from += L * column, to += L) {
    const T* p = from;
    T* q = to;
    const Index left = std::min(L, n - j);
    Index k = 0;
    const auto pack = [&](const auto& blocks) HWY_ATTR {
      for (; k + B <= depth; k += B, p += B, q += B * width) {
        Vector<T> v[B];
        TUTTI_UNROLL for (Index i = 0; i < B; ++i) v[i] =
            load_blocks(d, p + i * column, B * column, blocks(i));
        transpose_blocks<T>(v);
        TUTTI_UNROLL for (Index i = 0; i < B; ++i) hn::StoreU(v[i], d, q + i * width);
      }
    };
#if HWY_TARGET == HWY_AVX3
    if constexpr (std::is_same_v<T, float>)
      for (; left == L && k + 2 * B <= depth; k += 2 * B, p += 2 * B, q += 2 * B * width)
        turn_sixteen_columns(p, column, q, width);
#endif
    if (left == L)
      pack([](Index) HWY_ATTR { return L; });
    else
      pack([&](Index i) HWY_ATTR { return left > i ? (left - i + B - 1) / B : 0; });
    for (; k < depth; ++k, ++p, q += width)
      for (Index i = 0; i < L; ++i) q[i] = i < left ? p[i * column] : T(0);
  }
}

/// Rows of b, to rows next to each other.
template <class T>
HWY_NOINLINE void pack_rows(const T* from, Index row, Index n, Index width, Index depth, T* to) {
  const Tag<T> d;
  constexpr Index L = kLanes<T>;
  for (Index k = 0; k < depth; ++k, from += row, to += width)
    for (Index j = 0; j < width; j += L)
      hn::StoreU(
          n - j >= L ? hn::LoadU(d, from + j) : load_tail(from + j, std::max(n - j, Index{0})), d,
          to + j);
}

/// Contiguous columns of a, to columns next to each other: to[k * n + i] = from[k * column + i].
template <class T>
HWY_NOINLINE void pack_columns(const T* from, Index column, Index n, Index depth, T* to) {
  constexpr Index B = kBlockLanes<T>;
  const hn::FixedTag<T, B> block;
  if (n < B || n > 4 * B) {
    for (Index k = 0; k < depth; ++k, from += column, to += n) std::copy_n(from, n, to);
    return;
  }
  for (Index k = 0; k < depth; ++k, from += column, to += n) {
    for (Index i = 0; i + B < n; i += B) hn::StoreU(hn::LoadU(block, from + i), block, to + i);
    hn::StoreU(hn::LoadU(block, from + n - B), block, to + n - B);
  }
}

/// b of any strides, to rows next to each other.
template <class T>
HWY_NOINLINE void pack_any(const T* from, Index row, Index column, Index n, Index width,
                           Index depth, T* to) {
  for (Index k = 0; k < depth; ++k, from += row, to += width)
    for (Index j = 0; j < width; ++j) to[j] = j < n ? from[j * column] : T(0);
}

// ---- dot products

/// The sums of v's blocks, as one block.
template <class D>
HWY_INLINE auto add_blocks([[maybe_unused]] D d, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) * sizeof(hn::TFromD<D>) == 16) {
    return v;
  } else {
    const hn::Half<D> half;
    return add_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

/// Vectors whose sums are the dot products of a with a contiguous column of b, but for a tail.
template <class T>
HWY_INLINE Vector<T> dot_long_column(const T* a, const T* p, Index whole) {
  const Tag<T> d;
  constexpr Index L = kLanes<T>, kSums = 4;
  Vector<T> s[kSums];
  TUTTI_UNROLL for (Index u = 0; u < kSums; ++u) s[u] = hn::Zero(d);
  Index i = 0;
  for (; i + kSums * L <= whole; i += kSums * L)
    TUTTI_UNROLL for (Index u = 0; u < kSums; ++u) s[u] =
        hn::MulAdd(hn::LoadU(d, a + i + u * L), hn::LoadU(d, p + i + u * L), s[u]);
  for (; i < whole; i += L) s[0] = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, p + i), s[0]);
  return hn::Add(hn::Add(s[0], s[1]), hn::Add(s[2], s[3]));
}

/// Dot products of a with up to blocks * kBlockLanes contiguous columns of b. kLong: long ones.
template <class T, Index blocks, bool kLong>
HWY_INLINE void dot_columns(const Form& f, const T* a, Vector<T> a_tail, const T* b, Index columns,
                            T* out, const T* bias) {
  const Tag<T> d;
  constexpr Index L = kLanes<T>, B = kBlockLanes<T>;
  const hn::FixedTag<T, B> block;
  const Index k = f.k, b_column = f.b_column, tail = k % L, whole = k - tail;
  const T* p[blocks * B];  // the last ones again where there are no more
  TUTTI_UNROLL for (Index c = 0; c < blocks * B; ++c) p[c] =
      b + std::min(c, columns - 1) * b_column;
  Vector<T> s[blocks * B];
  if constexpr (kLong) {
    for (Index c = 0; c < blocks * B; ++c) s[c] = dot_long_column(a, p[c], whole);
  } else {
    TUTTI_UNROLL for (Index c = 0; c < blocks * B; ++c) s[c] = hn::Zero(d);
    const auto add_products = [&](Index i) HWY_ATTR {
      const Vector<T> x = hn::LoadU(d, a + i);
      TUTTI_UNROLL for (Index c = 0; c < blocks * B; ++c) s[c] =
          hn::MulAdd(x, hn::LoadU(d, p[c] + i), s[c]);
    };
    Index i = 0;
    if (!kManyRegisters && k * static_cast<Index>(sizeof(T)) <= kShortColumns)
      for (; i + 2 * L <= whole; i += 2 * L) {  // two vectors: a line of the cache
        add_products(i);
        TUTTI_UNROLL for (Index c = 0; c < blocks * B; ++c)
            __builtin_prefetch(p[c] + i + blocks * B * b_column);
        add_products(i + L);
      }
    for (; i < whole; i += L) add_products(i);
  }
  if (tail)
    TUTTI_UNROLL for (Index c = 0; c < blocks * B; ++c) s[c] =
        hn::MulAdd(a_tail, load_tail(p[c] + whole, tail), s[c]);
  TUTTI_UNROLL for (Index u = 0; u < blocks; ++u, columns -= B, out += B, bias += bias ? B : 0) {
    transpose_blocks<T>(s + u * B);
    Vector<T> sum = s[u * B];
    TUTTI_UNROLL for (Index c = 1; c < B; ++c) sum = hn::Add(sum, s[u * B + c]);
    auto result = add_blocks(d, sum);
    if (columns >= B) {
      if (bias) result = hn::Add(result, hn::LoadU(block, bias));
      if (f.accumulate) result = hn::Add(result, hn::LoadU(block, out));
      if (f.relu) result = relu(block, result);
      hn::StoreU(result, block, out);
      continue;
    }
    HWY_ALIGN T values[B];
    hn::Store(result, block, values);
    for (Index c = 0; c < columns; ++c) {
      T x = values[c];
      if (bias) x += bias[c];
      if (f.accumulate) x += out[c];
      out[c] = f.relu && x <= T(0) ? T(0) : x;
    }
  }
}

/// One row of a result: dot products of a with the contiguous columns of b.
template <class T, bool kLong>
HWY_NOINLINE void dot_row(const Form& f, const T* a, const T* b, T* out, const T* bias) {
  constexpr Index L = kLanes<T>, B = kBlockLanes<T>;
  const Index tail = f.k % L;
  const Vector<T> a_tail = tail ? load_tail(a + f.k - tail, tail) : hn::Zero(Tag<T>());
  constexpr Index kBlocks = kLong ? 1 : kDotBlocks;
  Index j = 0;
  for (; f.n - j >= kBlocks * B; j += kBlocks * B)
    dot_columns<T, kBlocks, kLong>(f, a, a_tail, b + j * f.b_column, kBlocks * B, out + j,
                                   bias ? bias + j : nullptr);
  for (; j < f.n; j += B)
    dot_columns<T, 1, kLong>(f, a, a_tail, b + j * f.b_column, std::min(B, f.n - j), out + j,
                             bias ? bias + j : nullptr);
}

/// Products of few rows on contiguous columns of b.
template <class T>
void dots(const Form& f, const Strip<T>& s) {
  for (Index i = 0; i < s.count; ++i)
    for (Index row = 0; row < f.m; ++row) {
      const T* a = s.a + i * s.a_step + row * f.a_row;
      if (f.a_column != 1) {
        T* copy = static_cast<T*>(workspace(static_cast<std::size_t>(f.k) * sizeof(T)));
        for (Index k = 0; k < f.k; ++k) copy[k] = a[k * f.a_column];
        a = copy;
      }
      const bool is_long = kDotStreams && f.k * static_cast<Index>(sizeof(T)) >= kLongColumns;
      const auto run = is_long ? dot_row<T, kDotStreams> : dot_row<T, false>;
      run(f, a, s.b + i * s.b_step, s.out + i * s.out_step + row * f.out_row,
          s.bias ? s.bias + i * s.bias_step : nullptr);
    }
}

// ---- products of one term

/// y * x, finished as the form says; load(p) loads what belongs to x from the bias or from out.
template <class T, bool plain, class Load>
HWY_INLINE Vector<T> scaled(const Form& f, Vector<T> y, Vector<T> x, const T* bias, const T* out,
                            const Load& load) {
  const Tag<T> d;
  x = hn::MulAdd(y, x, hn::Zero(d));
  if constexpr (!plain) {
    if (bias) x = hn::Add(x, load(bias));
    if (f.accumulate) x = hn::Add(x, load(out));
    if (f.relu) x = relu(d, x);
  }
  return x;
}

/// Products with `vectors` whole vectors of columns, which stay in registers.
template <class T, bool plain, int vectors>
HWY_NOINLINE void outer_narrow(const Form& form, const Strip<T>& strip) {
  // Copies: for all the compiler knows, stores change what references are to.
  const Form f = form;
  const Strip<T> s = strip;
  const Tag<T> d;
  constexpr Index L = kLanes<T>;
  for (Index i = 0; i < s.count; ++i) {
    const T *a = s.a + i * s.a_step, *const b = s.b + i * s.b_step;
    const T* const bias = s.bias ? s.bias + i * s.bias_step : nullptr;
    T* out = s.out + i * s.out_step;
    Vector<T> x[vectors];
    TUTTI_UNROLL for (int j = 0; j < vectors; ++j) x[j] = hn::LoadU(d, b + j * L);
    for (Index row = 0; row < f.m; ++row, a += f.a_row, out += f.out_row) {
      const Vector<T> y = hn::Set(d, *a);
      TUTTI_UNROLL for (int j = 0; j < vectors; ++j) {
        const auto load = [&](const T* p) HWY_ATTR { return hn::LoadU(d, p + j * L); };
        hn::StoreU(scaled<T, plain>(f, y, x[j], bias, out, load), d, out + j * L);
      }
    }
  }
}

/// Products of any number of columns.
template <class T, bool plain>
HWY_NOINLINE void outer_wide(const Form& form, const Strip<T>& strip) {
  const Form f = form;  // copies, as in outer_narrow()
  const Strip<T> s = strip;
  const Tag<T> d;
  constexpr Index L = kLanes<T>;
  const Index tail = f.n % L, whole = f.n - tail;
  for (Index r = 0; r < s.count * f.m; ++r) {
    const Index i = r / f.m, row = r % f.m;
    const T* const b = s.b + i * s.b_step;
    const T* const bias = s.bias ? s.bias + i * s.bias_step : nullptr;
    T* const out = s.out + i * s.out_step + row * f.out_row;
    const Vector<T> y = hn::Set(d, s.a[i * s.a_step + row * f.a_row]);
    const auto at = [&](Index j) HWY_ATTR {
      const auto load = [&](const T* p) HWY_ATTR { return hn::LoadU(d, p + j); };
      return scaled<T, plain>(f, y, load(b), bias, out, load);
    };
    if (f.n < L) {
      const auto load = [&](const T* p) HWY_ATTR { return load_tail(p, f.n); };
      store_tail(scaled<T, plain>(f, y, load(b), bias, out, load), out, f.n);
      continue;
    }
    // A last vector that overlaps the one before is computed first, from what out holds now.
    const Vector<T> last = tail ? at(f.n - L) : hn::Zero(d);
    Index j = 0;
    for (; j + 4 * L <= whole; j += 4 * L) {
      const Vector<T> x[] = {at(j), at(j + L), at(j + 2 * L), at(j + 3 * L)};
      TUTTI_UNROLL for (int i = 0; i < 4; ++i) hn::StoreU(x[i], d, out + j + i * L);
    }
    for (; j < whole; j += L) hn::StoreU(at(j), d, out + j);
    if (tail) hn::StoreU(last, d, out + f.n - L);
  }
}

template <class T, bool plain, int... i>
void outer_products(const Form& f, const Strip<T>& s, std::integer_sequence<int, i...>) {
  static constexpr void (*narrow[])(const Form&,
                                    const Strip<T>&) = {&outer_narrow<T, plain, i + 1>...};
  const Index vectors = f.n % kLanes<T> == 0 ? f.n / kLanes<T> : 0;
  if (vectors > 0 && vectors <= static_cast<Index>(sizeof...(i)))
    narrow[vectors - 1](f, s);
  else
    outer_wide<T, plain>(f, s);
}

/// Products of one term, with rows of b that are contiguous: as fast as out can be written.
template <class T>
void outer_products(const Form& f, const Strip<T>& s) {
  constexpr std::make_integer_sequence<int, 8> narrow;
  if (s.bias || f.accumulate || f.relu)
    outer_products<T, false>(f, s, narrow);
  else
    outer_products<T, true>(f, s, narrow);
}

// ---- one wide row

/// sums[j] += the sum over r of x[r] * b[r * b_row + j], or = if it is the first.
template <class T, int rows, bool first>
HWY_NOINLINE void add_rows(const T* x, Index x_step, const T* b, Index b_row, Index n, T* sums) {
  const Tag<T> d;
  constexpr Index L = kLanes<T>;
  Vector<T> y[rows];
  TUTTI_UNROLL for (int r = 0; r < rows; ++r) y[r] = hn::Set(d, x[r * x_step]);
  const auto add = [&](Index j, const auto& load) HWY_ATTR {
    Vector<T> s = first ? hn::Zero(d) : hn::LoadU(d, sums + j);
    TUTTI_UNROLL for (int r = 0; r < rows; ++r) s = hn::MulAdd(y[r], load(b + r * b_row + j), s);
    hn::StoreU(s, d, sums + j);
  };
  Index j = 0;
  for (; j + L <= n; j += L) add(j, [&](const T* p) HWY_ATTR { return hn::LoadU(d, p); });
  if (j < n) add(j, [&](const T* p) HWY_ATTR { return load_tail(p, n - j); });
}

/// A row on a b with contiguous rows, each of which is read as a stream. Sums are those of a tile.
template <class T>
void wide_row(const Form& f, const Strip<T>& s) {
  constexpr int kStreams = 2;
  const Tag<T> d;
  constexpr Index L = kLanes<T>;
  T* const sums = static_cast<T*>(workspace(static_cast<std::size_t>(f.n + L) * sizeof(T)));
  for (Index i = 0; i < s.count; ++i) {
    const T *const a = s.a + i * s.a_step, *const b = s.b + i * s.b_step;
    const auto add = [&]<int rows>(Index k) {
      const T *const x = a + k * f.a_column, *const y = b + k * f.b_row;
      k == 0 ? add_rows<T, rows, true>(x, f.a_column, y, f.b_row, f.n, sums)
             : add_rows<T, rows, false>(x, f.a_column, y, f.b_row, f.n, sums);
    };
    Index k = 0;
    for (; k + kStreams <= f.k; k += kStreams) add.template operator()<kStreams>(k);
    for (; k < f.k; ++k) add.template operator()<1>(k);
    const T* const bias = s.bias ? s.bias + i * s.bias_step : nullptr;
    T* const out = s.out + i * s.out_step;
    for (Index j = 0; j < f.n; j += L) {
      const Index n = std::min(L, f.n - j);
      const auto load = [&](const T* p)
                            HWY_ATTR { return n == L ? hn::LoadU(d, p + j) : load_tail(p + j, n); };
      Vector<T> x = hn::LoadU(d, sums + j);
      if (bias) x = hn::Add(x, load(bias));
      if (f.accumulate) x = hn::Add(x, load(out));
      if (f.relu) x = relu(d, x);
      n == L ? hn::StoreU(x, d, out + j) : store_tail(x, out + j, n);
    }
  }
}

// ---- what follows the sums

/// relu_grad and row_sums of results that are in memory: of kernels that do not do it themselves.
template <class T>
HWY_NOINLINE void finish(const Form& form, const Strip<T>& strip) {
  if (!form.relu_grad && !strip.row_sums) return;
  const Form f = form;  // copies, as in outer_narrow()
  const Strip<T> s = strip;
  const Tag<T> d;
  constexpr Index L = kLanes<T>;
  for (Index i = 0; i < s.count; ++i)
    for (Index j = 0; j < f.n; j += L) {
      const Index n = std::min(L, f.n - j);
      const auto load = [&](const T* p)
                            HWY_ATTR { return n == L ? hn::LoadU(d, p) : load_tail(p, n); };
      const auto store = [&](Vector<T> x, T* p)
                             HWY_ATTR { n == L ? hn::StoreU(x, d, p) : store_tail(x, p, n); };
      Vector<T> sum = hn::Zero(d);
      for (Index row = 0; row < f.m; ++row) {
        const Index at = i * s.out_step + row * f.out_row + j;
        Vector<T> x = load(s.out + at);
        if (f.relu_grad) store(x = relu_grad(d, x, load(s.relu_output + at)), s.out + at);
        sum = hn::Add(sum, x);
      }
      if (T* const sums = s.row_sums ? s.row_sums + i * s.sums_step + j : nullptr)
        store(hn::Add(load(sums), sum), sums);
    }
}

// ---- one product, or many of one form

/// The calls of kernels that make up a product.
template <class T>
class Plan {
 public:
  Plan(const Form& f, bool extras) : f_(f), extras_(extras) {
    constexpr Index L = kLanes<T>;
    vectors_ = (f.n + L - 1) / L;
    const Index last_columns = f.n - (vectors_ - 1) * L;
    const bool row = f.m == 1;
    const Index most = !row ? kDepth : kManyRegisters || vectors_ <= kRowPanel ? f.k : kRowDepth;
    const Index k_blocks = std::max<Index>(1, (f.k + most - 1) / std::max<Index>(most, 1));
    depth_ = std::max<Index>(1, (f.k + k_blocks - 1) / k_blocks);
    one_depth_ = k_blocks == 1;
    sums_ = sums_for(f.m, vectors_);
    const Index size = sizeof(T), used = (f.m * f.k + f.k * f.n + f.m * f.n) * size;
    const bool b_in_l1 = one_depth_ && f.k * f.n * size <= kBInL1;
    const bool wide = kWidePanels && b_in_l1 && f.n % (kWidePanel * L) == 0;
    panel_ = row ? kRowPanel : wide ? kWidePanel : kPanel;
    const bool panels = vectors_ >= 2 * kPanel;
    const bool across = kManyRegisters ? row || vectors_ > kFewVectors ||
                                             (panels && used > kSeveralInLargeL1 / 2 &&
                                              (b_in_l1 || f.m <= kRows[kPanel]))
                                       : row || (panels && b_in_l1 && used > kSeveralInL1 / 2);
    rows_first_ = !across;
    ahead_ = !b_in_l1;
    const bool bad_stride = kManyRegisters
                                ? f.b_row * size % kBadStride == 0 && f.k >= kBadStrideDepth
                                : conflicts(f.b_row * size, depth_) >= kPackBConflicts;
    packed_ = f.b_column != 1 || (bad_stride && f.m > kBadStrideRows);
    const bool pack_a = f.a_row == 1 && f.a_column != 1 && f.m > 1 && f.n >= kPackAColumns &&
                        f.m * depth_ * size <= kPackALimit &&
                        conflicts(f.a_column * size, depth_) >=
                            (kManyRegisters ? kPackALargeConflicts : kPackAConflicts);

    // Columns: panels of whole vectors, then a last one with what is left. If that were one vector
    // of many, it takes another panel along.
    const bool whole = last_columns == L;
    panels_ = vectors_ / panel_;
    if (!whole && vectors_ % panel_ == 0) --panels_;
    last_vectors_ = vectors_ - panels_ * panel_;
    if (rows_first_ && !pack_a && last_vectors_ == 1 && panels_ > 0 && sums_for(f.m, 3) == sums_) {
      --panels_;
      last_vectors_ += panel_;
    }
    const Index small_a = kManyRegisters ? kSmallA : kSmallAInL2;
    const bool singly = rows_first_ && f.m * depth_ * size <= small_a;
    group_ = !packed_ ? panels_ : singly || row ? 1 : kGroup / panel_;
    // The last panel is in the last group, also if that is one too many.
    groups_ = group_ == 0 ? 1 : std::max<Index>(1, (panels_ + group_ - 1) / group_);
    last_group_ = panels_ - (groups_ - 1) * group_;
    if (singly && packed_ && last_vectors_ && panels_) ++groups_, last_group_ = 0;

    if (groups_ > 1) add_calls(full_, group_, 0, L, pack_a);
    add_calls(last_, last_group_, last_vectors_, last_columns, pack_a);
    const Index in_l1 = kManyRegisters ? kSeveralInLargeL1 : kSeveralInL1;
    b_size_ =
        packed_ ? depth_ * L * std::max(group_ * panel_, last_group_ * panel_ + last_vectors_) : 0;
    const Index a_size = pack_a ? f.m * depth_ : 0;
    const bool one_pass = !pack_a && one_depth_ && groups_ == 1;
    const bool once = !rows_first_ || panels_ <= kFewVectors / kPanel;  // each call of a kernel
    in_place_ = one_pass && once && !packed_;
    if (one_pass && (rows_first_ ? once : f.m == 1 && !packed_))
      several_ = !packed_ && last_.size == 1 ? std::numeric_limits<Index>::max()
                                             : std::max<Index>(1, in_l1 / used);
    if (a_size + b_size_ > 0) {
      const Index numbers = a_size + b_size_ * several_;
      buffer_ = static_cast<T*>(workspace(static_cast<std::size_t>(numbers) * sizeof(T)));
      if (pack_a) packed_a_ = buffer_ + b_size_;
    }
  }

  void run(const Strip<T>& s) {
    if (several_ > 1) {
      for (Index i = 0; i < s.count; i += several_) products(s, i, std::min(several_, s.count - i));
      return;
    }
    if (in_place_) return one_by_one(s);
    for (Index i = 0; i < s.count; ++i)
      product(s.a + i * s.a_step, s.b + i * s.b_step, s.out + i * s.out_step, extras(s, i));
  }

 private:
  /// Those of product i of a strip.
  static Extras<T> extras(const Strip<T>& s, Index i) {
    return {s.bias ? s.bias + i * s.bias_step : nullptr,
            s.relu_output ? s.relu_output + i * s.out_step : nullptr,
            s.row_sums ? s.row_sums + i * s.sums_step : nullptr};
  }
  /// From a column and an element of out on.
  static Extras<T> moved(Extras<T> x, Index column, Index out) {
    if (x.bias) x.bias += column;
    if (x.relu_output) x.relu_output += out;
    if (x.row_sums) x.row_sums += column;
    return x;
  }

  struct Call {
    Kernel<T> kernel;
    Index row, a, b, out, column;     // where it begins
    Index height, tiles;              // of tiles, and how many on top of each other
    Index count;                      // of tiles the kernel takes in a row
    Index times, b_again, out_again;  // of rows of tiles, or panels for columns of tiles
    Walk walk;
  };
  /// Calls for a group of panels.
  struct Group {
    Call calls[3 * (kFewVectors / kPanel + 2)];
    int size = 0;
  };

  /// `panels` panels and then, unless it is 0, one of `vectors` with `tail` columns in its last.
  void add_calls(Group& g, Index panels, Index vectors, Index tail, bool pack_a) {
    constexpr Index L = kLanes<T>;
    const Index width = panel_ * L, panel_step = packed_ ? width * depth_ : width;
    if (rows_first_ && panels <= kFewVectors / kPanel)
      for (Index i = 0; i < panels; ++i)
        add_rows(g, 1, panel_, L, i * width, i * panel_step, panel_step, pack_a);
    else if (panels > 0)
      add_rows(g, panels, panel_, L, 0, 0, panel_step, pack_a);
    if (vectors > 0) add_rows(g, 1, vectors, tail, panels * width, panels * panel_step, 0, pack_a);
  }

  /// Calls for all rows of some panels, in tiles of two heights or three.
  void add_rows(Group& g, Index panels, Index vectors, Index tail, Index column, Index b,
                Index panel_step, bool pack_a) {
    constexpr Index L = kLanes<T>;
    const bool fetch_row = !rows_first_ && ahead_ && !packed_;
    const bool prefetch_out =
        depth_ >= 32 && f_.m * f_.n * static_cast<Index>(sizeof(T)) > kLargeResult;
    Ahead* const later = TUTTI_FETCH_LATER && kernels::ahead && !kernels::ahead->all_taken()
                             ? kernels::ahead
                             : nullptr;
    const bool plain = !extras_ && one_depth_ && !f_.accumulate && !f_.relu && !prefetch_out &&
                       !(kManyRegisters && fetch_row) && !later;
    const bool held = plain && holds_b<T>(f_, vectors, tail);
    const bool turned = plain && vectors == 1 && sums_ == 1 && f_.a_row == 1;
    const Index highest = held ? f_.m : kRows[pack_a ? panel_ : vectors];
    const Index tiles = (f_.m + highest - 1) / highest;
    const Index full = kManyRegisters || tiles <= kBalancedTiles ? 0 : tiles - 2;
    const Index rows = f_.m - full * highest;
    const Index low = rows / (tiles - full), higher = rows % (tiles - full);
    Index row = 0;
    for (const auto& [height, count] : {std::pair(highest, full), std::pair(low + 1, higher),
                                        std::pair(low, tiles - full - higher)}) {
      if (count == 0) continue;
      Call& c = g.calls[g.size++];
      c.kernel = held     ? held_kernel<T>(f_.k, tail)
                 : turned ? turned_kernel<T>(height, tail)
                          : nullptr;
      if (!c.kernel)
        c.kernel =
            find_kernel<T>(height, vectors, f_.m == 1 ? sums_for(1, vectors) : sums_, tail, plain);
      c.row = row;
      c.a = pack_a ? row * depth_ : row * f_.a_row;
      c.b = b;
      c.out = row * f_.out_row + column;
      c.column = column;
      c.height = height;
      c.tiles = count;
      Walk& w = c.walk = {};
      w.a_row = pack_a ? 1 : f_.a_row;
      w.a_column = pack_a ? height : f_.a_column;
      w.b_row = packed_ ? vectors * L : f_.b_row;
      w.out_row = f_.out_row;
      w.depth = std::min<Index>(depth_, f_.k);
      w.height = height;
      w.tail = tail;
      w.add = f_.accumulate;
      w.relu = f_.relu;
      w.later = later;
      w.prefetch_out = prefetch_out;
      const Index a_step = pack_a ? height * depth_ : height * f_.a_row;
      if (rows_first_) {
        c.count = count;
        c.times = panels;
        c.b_again = panel_step;
        c.out_again = vectors * L;
        w.a_step = a_step;
        w.out_step = height * f_.out_row;
      } else {
        c.count = panels;
        c.times = count;
        w.a_next = a_step;
        w.out_next = height * f_.out_row;
        w.b_step = panel_step;
        w.out_step = w.bias_step = w.sums_step = vectors * L;
        if (fetch_row) w.ahead = vectors * L;
      }
      row += height * count;
    }
  }

  /// Products next to each other, by each call in turn.
  void products(const Strip<T>& s, Index i, Index count) {
    const T* first_b = s.b + i * s.b_step;
    Index b_step = s.b_step;
    if (packed_) {
      if (b_step || first_b != packed_from_)
        for (Index n = 0; n < (b_step ? count : 1); ++n)
          pack(first_b + n * b_step, 0, f_.k, buffer_ + n * b_size_);
      packed_from_ = b_step ? nullptr : first_b;
      first_b = buffer_;
      if (b_step) b_step = b_size_;
    }
    for (Call* c = last_.calls; c != last_.calls + last_.size; ++c) {
      Walk& w = c->walk;
      const T *a = s.a + i * s.a_step + c->a, *b = first_b + c->b;
      T* out = s.out + i * s.out_step + c->out;
      const Extras<T> x = moved(extras(s, i), c->column, c->out);
      if (c->count == 1) {  // one tile of each product
        w.a_step = s.a_step, w.b_step = b_step, w.out_step = s.out_step;
        w.bias_step = s.bias_step, w.sums_step = s.sums_step;
        c->kernel(a, b, out, x, w, count, 1);
      } else {
        w.a_next = s.a_step, w.b_next = b_step, w.out_next = s.out_step;
        w.bias_next = s.bias_step, w.sums_next = s.sums_step;
        c->kernel(a, b, out, x, w, c->count, count);
      }
    }
  }

  /// Products one after the other, whose operands are read where they lie in one pass.
  void one_by_one(const Strip<T>& s) {
    const T *a = s.a, *b = s.b;
    T* out = s.out;
    const Extras<T> none;
    for (Index i = 0; i < s.count; ++i, a += s.a_step, b += s.b_step, out += s.out_step)
      for (const Call *c = last_.calls, *end = c + last_.size; c != end; ++c)
        c->kernel(a + c->a, b + c->b, out + c->out,
                  extras_ ? moved(extras(s, i), c->column, c->out) : none, c->walk, c->count,
                  c->times);
  }

  void product(const T* a, const T* b, T* out, const Extras<T>& whole) {
    const Index width = panel_ * kLanes<T>;
    for (Index k = 0; k == 0 || k < f_.k; k += depth_) {
      const Index depth = std::min(depth_, f_.k - k);
      const T* a_from = a + k * f_.a_column;
      if (packed_a_) a_from = pack_a(a_from, depth);
      for (Index g = 0; g < groups_; ++g) {
        Group& group = g + 1 < groups_ ? full_ : last_;
        const Index column = g * group_ * width;
        const T* from = b + k * f_.b_row + column * f_.b_column;
        if (packed_ && !(one_depth_ && groups_ == 1 && from == packed_from_))  // a shared b
          pack(packed_from_ = from, g, depth, buffer_);
        if (packed_) from = buffer_;
        for (Call* c = group.calls; c != group.calls + group.size; ++c) {
          if (!one_depth_) {
            c->walk.depth = depth;
            c->walk.add = f_.accumulate || k > 0;
            c->walk.relu = f_.relu && k + depth == f_.k;
          }
          Extras<T> x = moved(whole, column, column);
          if (k > 0) x.bias = nullptr;  // with the first terms, the others with the last
          if (k + depth < f_.k) x.relu_output = x.row_sums = nullptr;
          run(*c, a_from, from, out + column, x);
        }
      }
    }
  }

  void run(const Call& c, const T* a, const T* b, T* out, Extras<T> x) {
    a += c.a, b += c.b, out += c.out;
    x = moved(x, c.column, c.out);
    if (!rows_first_ || c.times == 1) return c.kernel(a, b, out, x, c.walk, c.count, c.times);
    // As many rows as stay in L2 run along all panels.
    const Index block =
        std::max<Index>(1, kRowsInL2 / (c.height * c.walk.depth * static_cast<Index>(sizeof(T))));
    for (Index t = 0; t < c.count; t += block)
      for (Index i = 0; i < c.times; ++i) {
        const Index column = i * c.out_again, at = t * c.walk.out_step + column;
        c.kernel(a + t * c.walk.a_step, b + i * c.b_again, out + at, moved(x, column, at), c.walk,
                 std::min(block, c.count - t), 1);
      }
  }

  /// The columns of a turned a, tile by tile: each [depth, height].
  const T* pack_a(const T* from, Index depth) {
    // All groups have the same tiles; the last has panels or a last panel.
    const Group& group = groups_ > 1 ? full_ : last_;
    Index end = 0;
    for (const Call* c = group.calls; end < f_.m; end = c->row + c->height * c->tiles, ++c)
      for (Index t = 0; t < c->tiles; ++t)
        pack_columns(from + c->row + t * c->height, f_.a_column, c->height, depth,
                     packed_a_ + (c->row + t * c->height) * depth_);
    return packed_a_;
  }

  /// A group of panels of b, each [depth, width].
  void pack(const T* from, Index g, Index depth, T* buffer) {
    constexpr Index L = kLanes<T>;
    const Index width = panel_ * L, panels = g + 1 < groups_ ? group_ : last_group_;
    const auto pack_panel = [&](Index i, Index n, Index w) {
      const T* p = from + i * width * f_.b_column;
      T* to = buffer + i * width * depth_;
      if (f_.b_row == 1)
        pack_transposed(p, f_.b_column, n, w, depth, to);
      else if (f_.b_column == 1)
        pack_rows(p, f_.b_row, n, w, depth, to);
      else
        pack_any(p, f_.b_row, f_.b_column, n, w, depth, to);
    };
    for (Index i = 0; i < panels; ++i) pack_panel(i, width, width);
    if (g + 1 == groups_ && last_vectors_)
      pack_panel(panels, f_.n - panels_ * width, last_vectors_ * L);
  }

  const Form& f_;
  const bool extras_;                              // of any kind
  Index vectors_, panel_, panels_, last_vectors_;  // columns: vectors, those of a panel, panels
  Index group_, groups_, last_group_;  // panels in a group, groups, panels in the last one
  Index depth_;                        // terms per pass
  Index b_size_;                       // numbers of a rearranged group
  int sums_;
  Index several_ = 1;  // products that are computed together
  bool one_depth_, rows_first_, packed_, in_place_;
  bool ahead_;  // rows of b that are not in L1 are prefetched
  Group full_, last_;
  T* buffer_ = nullptr;    // of b
  T* packed_a_ = nullptr;  // unless a is read where it lies
  const T* packed_from_ = nullptr;
};

template <class T>
void multiply(const Form& f, const Strip<T>* strips, std::size_t n) {
  const bool few = f.m == 1 || (f.m == 2 && f.k > kDotTwoTerms) ||
                   (f.n <= kDotColumns && f.k >= kDotTerms && f.a_column == 1);
  if (few && f.b_row == 1 && (f.b_column != 1 || f.n == 1)) {
    for (std::size_t i = 0; i < n; ++i) dots(f, strips[i]), finish(f, strips[i]);
    return;
  }
  if (kManyRegisters && f.m == 1 && f.n > kRowPanel * kLanes<T> && f.b_column == 1 && f.k > 1) {
    for (std::size_t i = 0; i < n; ++i) wide_row(f, strips[i]), finish(f, strips[i]);
    return;
  }
  if (f.k == 1 && f.b_column == 1 && (!kManyRegisters || f.n >= kLanes<T>)) {
    for (std::size_t i = 0; i < n; ++i) outer_products(f, strips[i]), finish(f, strips[i]);
    return;
  }
  const Strip<T>& s = strips[0];
  Plan<T> plan(f, s.bias || s.relu_output || s.row_sums);
  for (std::size_t i = 0; i < n; ++i) plan.run(strips[i]);
}

}  // namespace

}  // namespace HWY_NAMESPACE
}  // namespace tutti::kernels
HWY_AFTER_NAMESPACE();
#endif  // not scalar

#if HWY_ONCE
namespace tutti::kernels {

template <class T>
Multiply<T> multiply_highway(Isa isa) {
  TUTTI_RETURN_FOR(isa, multiply<T>)
}

template Multiply<float> multiply_highway<float>(Isa);
template Multiply<double> multiply_highway<double>(Isa);

}  // namespace tutti::kernels
#endif  // HWY_ONCE
