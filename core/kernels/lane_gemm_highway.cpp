// lane_gemm.h with vectors, written once with Highway and compiled for each instruction set of
// isa.h. A tile of the result stays in registers, as in gemm_highway.cpp; here its elements are
// vectors.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <tutti/core/kernels/lane_gemm_highway.cpp>
#include <algorithm>
#include <utility>

#include <tutti/core/kernels/ahead.h>
#include <tutti/core/kernels/highway.h>
#include <tutti/core/kernels/lane_gemm.h>

#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
HWY_BEFORE_NAMESPACE();
namespace tutti::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using Index = std::ptrdiff_t;

template <class T>
using Tag = hn::ScalableTag<T>;
template <class T>
using Vector = hn::Vec<Tag<T>>;

// The largest tile: its sums, one row of b and one element of a fill the registers.
#if HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM
constexpr int kRows = 6, kColumns = 4;
#else
constexpr int kRows = 4, kColumns = 3;
#endif
/// The rows of tiles run along all of b while that stays in L1, else the columns along all of a.
constexpr Index kInL1 = 24 << 10;

/// Bytes of a piece of the result that stays in L1 with what it is taken for.
constexpr Index kPiece = 12 << 10;
static_assert(kRows <= kPieceRows);

/// Whether such a tile fetches a line of what later work reads with each of its terms. Smaller ones
/// have no time for it.
constexpr bool fetches(int rows, int columns) {
  return TUTTI_FETCH_LATER && rows * columns >= kRows * kColumns / 2;
}

/// What else a tile reads and writes besides its operands; each may be null.
template <class T>
struct Extras {
  const T* bias = nullptr;
  const T* relu_output = nullptr;
  T* row_sums = nullptr;
  bool add_sums = false;   // to what row_sums holds
  Ahead* later = nullptr;  // what later work reads
};

/// Which operand has one element for all lanes.
enum class Shared { none, a, b };
constexpr int kShared = 3;

/// Sums of one vector of matrices.
template <class T, int rows, int columns, Shared shared>
HWY_INLINE void one_tile(const LaneGemm& g, const T* a, const T* b, T* out,
                         const Extras<T>& extras) {
  const Tag<T> d;
  // Copies: for all the compiler knows, stores of vectors change g.
  const Index a_row = g.a.row, a_column = g.a.column, b_row = g.b.row, b_column = g.b.column;
  const Index out_column = g.count, out_row = g.n * out_column, bias_column = g.bias.column;
  Vector<T> s[rows][columns];
  TUTTI_UNROLL for (int i = 0; i < rows; ++i) TUTTI_UNROLL for (int j = 0; j < columns; ++j)
      s[i][j] = hn::Zero(d);
  const auto add_products = [&] HWY_ATTR {
    Vector<T> y[columns];
    TUTTI_UNROLL for (int j = 0; j < columns; ++j) y[j] =
        shared == Shared::b ? hn::Set(d, b[j * b_column]) : hn::LoadU(d, b + j * b_column);
    TUTTI_UNROLL for (int i = 0; i < rows; ++i) {
      const Vector<T> x =
          shared == Shared::a ? hn::Set(d, a[i * a_row]) : hn::LoadU(d, a + i * a_row);
      TUTTI_UNROLL for (int j = 0; j < columns; ++j) s[i][j] = hn::MulAdd(x, y[j], s[i][j]);
    }
    a += a_column;
    b += b_row;
  };
  Index k = g.k;
  if constexpr (fetches(rows, columns))
    if (extras.later)
      for (Ahead::Lines lines = extras.later->take(k); lines.begin && k > 0; --k) {
        __builtin_prefetch(lines.begin, 0, 2);
        lines.begin += lines.step;
        add_products();
      }
  for (; k > 0; --k) add_products();
  if (extras.bias) TUTTI_UNROLL for (int j = 0; j < columns; ++j) {
      const Vector<T> y = hn::LoadU(d, extras.bias + j * bias_column);
      TUTTI_UNROLL for (int i = 0; i < rows; ++i) s[i][j] = hn::Add(s[i][j], y);
    }
  if (g.relu)
    TUTTI_UNROLL for (int i = 0; i < rows; ++i) TUTTI_UNROLL for (int j = 0; j < columns; ++j)
        s[i][j] = hn::IfThenZeroElse(hn::Le(s[i][j], hn::Zero(d)), s[i][j]);
  if (const T* y = extras.relu_output)
    TUTTI_UNROLL for (int i = 0; i < rows; ++i, y += out_row)
        TUTTI_UNROLL for (int j = 0; j < columns; ++j) s[i][j] =
            hn::IfThenElseZero(hn::Gt(hn::LoadU(d, y + j * out_column), hn::Zero(d)), s[i][j]);
  if (extras.row_sums) TUTTI_UNROLL for (int j = 0; j < columns; ++j) {
      T* const to = extras.row_sums + j * out_column;
      Vector<T> sum = s[0][j];
      TUTTI_UNROLL for (int i = 1; i < rows; ++i) sum = hn::Add(sum, s[i][j]);
      hn::StoreU(extras.add_sums ? hn::Add(hn::LoadU(d, to), sum) : sum, d, to);
    }
  TUTTI_UNROLL for (int i = 0; i < rows; ++i, out += out_row)
      TUTTI_UNROLL for (int j = 0; j < columns; ++j) hn::StoreU(s[i][j], d, out + j * out_column);
}

/// A tile of `count` matrices, at least as many as a vector holds.
template <class T, int rows, int columns, Shared shared>
HWY_NOINLINE void tile(const LaneGemm& g, const T* a, const T* b, T* out, const Extras<T>& extras,
                       Index count) {
  constexpr Index kLanes = HWY_LANES(T);
  for (Index p = 0;; p = std::min(p + kLanes, count - kLanes)) {  // the last may overlap
    one_tile<T, rows, columns, shared>(
        g, shared == Shared::a ? a : a + p, shared == Shared::b ? b : b + p, out + p,
        {extras.bias ? extras.bias + p : nullptr,
         extras.relu_output ? extras.relu_output + p : nullptr,
         extras.row_sums ? extras.row_sums + p : nullptr, extras.add_sums, extras.later});
    if (p + kLanes >= count) return;
  }
}

template <class T>
using Tile = void (*)(const LaneGemm& g, const T* a, const T* b, T* out, const Extras<T>& extras,
                      Index count);

template <class T, int... at>
Tile<T> tile_of(Index rows, Index columns, Shared shared, std::integer_sequence<int, at...>) {
  static constexpr Tile<T> tiles[] = {&tile<T, at / kColumns % kRows + 1, at % kColumns + 1,
                                            static_cast<Shared>(at / (kRows * kColumns))>...};
  return tiles[(static_cast<Index>(shared) * kRows + rows - 1) * kColumns + columns - 1];
}

/// n cut into as few parts of at most `most` as possible, all nearly as large.
struct Parts {
  Index count, size, larger;  // the first `larger` parts are one larger than `size`
  Parts(Index n, Index most)
      : count((n + most - 1) / most), size(n / count), larger(n - size * count) {}
  Index size_of(Index part) const { return size + (part < larger); }
};

/// The tiles of the smaller and the larger parts.
template <class T>
struct Tiles {
  Parts rows, columns;
  Tile<T> tiles[2][2];
  explicit Tiles(const LaneGemm& g) : rows(g.m, kRows), columns(g.n, kColumns) {
    const Shared shared = g.a.shared ? Shared::a : g.b.shared ? Shared::b : Shared::none;
    for (const int i : {0, 1})
      for (const int j : {0, 1})
        tiles[i][j] =
            tile_of<T>(rows.size + (i && rows.larger), columns.size + (j && columns.larger), shared,
                       std::make_integer_sequence<int, kShared * kRows * kColumns>());
  }
  Tile<T> at(Index r, Index c) const { return tiles[r < rows.larger][c < columns.larger]; }
};

/// Rows from `from` to `to` of products with one term: nothing is read again, and tiles would be
/// mostly calls.
template <class T, Shared shared>
void outer_product(const LaneGemm& g, Index from, Index to, T* out) {
  constexpr Index kLanes = HWY_LANES(T);
  const Tag<T> d;
  const Index n = g.n, count = g.count, b_column = g.b.column;
  for (; from < to; ++from) {
    const T* const a = static_cast<const T*>(g.a.data) + from * g.a.row;
    const T* b = static_cast<const T*>(g.b.data);
    for (Index j = 0; j < n; ++j, out += count, b += b_column) {
      const auto one = [&](Index p) HWY_ATTR {
        const auto x = shared == Shared::a ? hn::Set(d, *a) : hn::LoadU(d, a + p);
        const auto y = shared == Shared::b ? hn::Set(d, *b) : hn::LoadU(d, b + p);
        hn::StoreU(hn::MulAdd(x, y, hn::Zero(d)), d, out + p);  // as sums begin
      };
      Index p = 0;
      for (; p + 2 * kLanes <= count; p += 2 * kLanes) {
        one(p);
        one(p + kLanes);
      }
      for (; p + kLanes <= count; p += kLanes) one(p);
      if (p < count) one(count - kLanes);
    }
  }
}

template <class T>
void outer_products_in_pieces(const LaneGemm& g) {
  const auto rows_of = g.a.shared   ? outer_product<T, Shared::a>
                       : g.b.shared ? outer_product<T, Shared::b>
                                    : outer_product<T, Shared::none>;
  const Index row_bytes = g.n * g.count * Index{sizeof(T)};
  const Index rows = std::clamp(kPiece / row_bytes, Index{1}, Index{kPieceRows});
  T* const out = static_cast<T*>(g.out);
  for (Index i = 0; i < g.m;) {
    const Index next = std::min(i + rows, g.m);
    rows_of(g, i, next, out);
    (*g.taker)({out, i * g.n, next * g.n, 0, g.count, g.count});
    i = next;
  }
}

template <class T>
void multiply_in_pieces(LaneGemm g) {
  if (g.k == 1) {
    outer_products_in_pieces<T>(g);
    return;
  }
  constexpr Index kLanes = HWY_LANES(T);
  const Index total = g.count;
  const Tiles<T> tiles(g);
  g.count = kLanes;  // a vector of matrices at a time: so far apart are results in a piece
  T* const out = static_cast<T*>(g.out);
  for (Index done = 0; done < total;) {
    const Index p = std::min(done, total - kLanes), known = done - p;  // the last may overlap
    const T* a = static_cast<const T*>(g.a.data) + (g.a.shared ? 0 : p);
    const T* b = static_cast<const T*>(g.b.data) + (g.b.shared ? 0 : p);
    for (Index r = 0, i = 0; r < tiles.rows.count; ++r) {
      for (Index c = 0, j = 0; c < tiles.columns.count; j += tiles.columns.size_of(c++))
        tiles.at(r, c)(g, a + i * g.a.row, b + j * g.b.column, out + j * kLanes, {.later = ahead},
                       kLanes);
      const Index next = i + tiles.rows.size_of(r);
      (*g.taker)({out + known, i * g.n, next * g.n, done, kLanes - known, kLanes});
      i = next;
    }
    done = p + kLanes;
  }
}

template <class T>
void multiply(const LaneGemm& g) {
  if (g.taker) {
    multiply_in_pieces<T>(g);
    return;
  }
  constexpr Index kLanes = HWY_LANES(T);
  const Tiles<T> tiles(g);
  const Parts &rows = tiles.rows, &columns = tiles.columns;
  const bool rows_outside =
      g.a.shared || g.n * g.k * kLanes * Index{sizeof(T)} <= kInL1 || g.n <= g.m;
  // Where nothing is read again, a tile runs along all matrices, which lie next to each other; but
  // sums must not be added to twice where vectors overlap.
  const bool along = rows.count == 1 || (g.k == 1 && !g.row_sums);
  const Index count = along ? g.count : kLanes;
  for (Index p = 0;; p = std::min(p + kLanes, g.count - kLanes)) {  // the last may overlap
    const T* a = static_cast<const T*>(g.a.data) + (g.a.shared ? 0 : p);
    const T* b = static_cast<const T*>(g.b.data) + (g.b.shared ? 0 : p);
    const T* bias = g.bias.data ? static_cast<const T*>(g.bias.data) + p : nullptr;
    const T* relu_output = g.relu_output ? static_cast<const T*>(g.relu_output) + p : nullptr;
    T* row_sums = g.row_sums ? static_cast<T*>(g.row_sums) + p : nullptr;
    T* out = static_cast<T*>(g.out) + p;
    const auto run = [&](Index r, Index i, Index c, Index j) {
      const Index at = (i * g.n + j) * g.count;
      tiles.at(r, c)(
          g, a + i * g.a.row, b + j * g.b.column, out + at,
          {bias ? bias + j * g.bias.column : nullptr, relu_output ? relu_output + at : nullptr,
           row_sums ? row_sums + j * g.count : nullptr, r > 0, ahead},
          count);
    };
    if (rows_outside) {
      for (Index r = 0, i = 0; r < rows.count; i += rows.size_of(r++))
        for (Index c = 0, j = 0; c < columns.count; j += columns.size_of(c++)) run(r, i, c, j);
    } else {
      for (Index c = 0, j = 0; c < columns.count; j += columns.size_of(c++))
        for (Index r = 0, i = 0; r < rows.count; i += rows.size_of(r++)) run(r, i, c, j);
    }
    if (p + count >= g.count) return;
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
LaneMultiply lane_multiply_highway(Isa isa) {
  TUTTI_RETURN_FOR(isa, multiply<T>)
}

template LaneMultiply lane_multiply_highway<float>(Isa);
template LaneMultiply lane_multiply_highway<double>(Isa);

}  // namespace tutti::kernels
#endif  // HWY_ONCE
