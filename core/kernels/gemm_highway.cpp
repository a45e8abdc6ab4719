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
#include <utility>

#include <tutti/core/kernels/gemm_impl.h>
#include <tutti/core/kernels/highway.h>

#ifndef TUTTI_GEMM_ONCE
#define TUTTI_GEMM_ONCE
#ifdef __clang__
#define TUTTI_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TUTTI_UNROLL _Pragma("GCC unroll 32")
#endif

namespace tutti::kernels {
namespace {

using Index = std::ptrdiff_t;

// ---- The rules, in one place. Measured with g++ 12 on a Zen 4/5 core with 1 MB of L2; sizes are
// in vectors, so that they are the same number of bytes for float and double.

/// Rows of k summed before the result is added to out: two vectors of so many rows of b fill half
/// of a 64 KB, or most of a 32 KB, L1 cache.
constexpr Index kDepth = 256;
/// Vectors per panel of b. Two, and enough rows to fill the registers, read least.
constexpr Index kPanel = 2;
/// Up to so many vectors of columns all rows run along one panel of b, which then stays in L1. With
/// more, one tile's rows of a stay there, and run along all panels.
constexpr Index kFewVectors = 8;
/// Vectors of columns for which b is rearranged at a time: with kDepth 0.5 MB, half of L2.
constexpr Index kGroup = 32;
/// b is rearranged panel by panel, each used at once from L1, if a (which is read once per panel)
/// is no larger than this.
constexpr Index kSmallA = 32 << 10;
/// Rows of b that are a multiple of so many bytes apart fall into few sets of the caches; b is then
/// rearranged, though its columns are contiguous, if it is used often enough.
constexpr Index kBadStride = 2048;
constexpr Index kBadStrideRows = 64, kBadStrideDepth = 128;
/// Results larger than this are not in L2 and are prefetched before they are added to.
constexpr Index kLargeResult = 256 << 10;
/// On a b with contiguous columns: dot products, which need no rearranged b. For one row; for two
/// of more than so many terms; and for so few columns, which would leave most of a vector empty, of
/// so many terms.
constexpr Index kDotTwoTerms = 8, kDotColumns = 3, kDotTerms = 64;

/// Partial sums per element of the result. A product with few rows has few elements at work at
/// once, too few to hide the four cycles of a multiply-add. This decides the order of summation, so
/// it depends on the product as a whole only.
constexpr int sums_for(Index m, Index vectors) {
  if (vectors == 1) return m == 1 ? 8 : m == 2 ? 4 : m <= 4 ? 2 : 1;
  return m == 1 ? 4 : m == 2 ? 2 : 1;
}

// ---- what kernels are told

/// The same for all tiles of a call of a kernel.
struct Walk {
  Index a_row, a_column, b_row, out_row;
  Index a_step, b_step, out_step, bias_step;  // from one tile to the next
  Index depth;                                // terms of each sum
  Index tail;                                 // columns in the last vector
  Index ahead;                                // from a row of b to what is prefetched with it
  bool add;                                   // to what out holds
  bool relu;                                  // of the sums
  bool prefetch_out;
};

/// Computes `count` tiles.
template <class T>
using Kernel = void (*)(const T* a, const T* b, T* out, const T* bias, const Walk& w, Index count);

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

#if HWY_TARGET == HWY_AVX3
/// Rows of a tile of 1, 2 and 3 vectors: 32 registers hold the sums, a row of b and a number of a.
constexpr int kRows[] = {0, 16, 13, 9};
/// Masks cost nothing, so all kernels have one.
constexpr bool kFreeMasks = true;
#else
constexpr int kRows[] = {0, 10, 6, 4};  // 16 registers
constexpr bool kFreeMasks = false;
#endif

/// The first n numbers, then zeros. Nothing else is read.
template <class T>
HWY_INLINE Vector<T> load_tail(const T* p, Index n) {
  const Tag<T> d;
#if HWY_TARGET == HWY_SSE4
  HWY_ALIGN T buffer[kLanes<T>] = {};
  for (Index i = 0; i < n; ++i) buffer[i] = p[i];
  return hn::Load(d, buffer);
#else
  return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(n)), d, p);
#endif
}

/// Stores the first n numbers. Nothing else is written.
template <class T>
HWY_INLINE void store_tail(Vector<T> v, T* p, Index n) {
  const Tag<T> d;
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

// ---- the kernel

/// Tiles of `rows` times `vectors`, with `sums` partial sums per element. kTail: the last vector
/// has w.tail columns.
template <class T, int rows, int vectors, int sums, bool kTail>
HWY_NOINLINE void tiles(const T* a0, const T* b0, T* out, const T* bias, const Walk& w,
                        Index count) {
  const Tag<T> d;
  constexpr Index L = kLanes<T>;
  const Index a_row = w.a_row, a_column = w.a_column, b_row = w.b_row, out_row = w.out_row;
  const Index tail = kTail ? w.tail : L, ahead = w.ahead;
  const auto mask = hn::FirstN(d, static_cast<std::size_t>(tail));
  static_cast<void>(mask);

  for (; count > 0; --count) {
    if (w.prefetch_out)
      TUTTI_UNROLL for (int i = 0; i < rows; ++i) TUTTI_UNROLL for (int j = 0; j < vectors; ++j)
          __builtin_prefetch(out + i * out_row + j * L, 1);

    Vector<T> s[sums][rows][vectors];
    TUTTI_UNROLL for (int u = 0; u < sums; ++u) TUTTI_UNROLL for (int i = 0; i < rows; ++i)
        TUTTI_UNROLL for (int j = 0; j < vectors; ++j) s[u][i][j] = hn::Zero(d);

    // One address for every four rows of a: x86 addresses them with multiples of one stride.
    constexpr int kBases = (rows + 3) / 4;
    const T* a[kBases];
    TUTTI_UNROLL for (int i = 0; i < kBases; ++i) a[i] = a0 + 4 * i * a_row;
    const T* b = b0;
    const auto add_products = [&](int u) HWY_ATTR {
      Vector<T> x[vectors];
      TUTTI_UNROLL for (int j = 0; j < vectors; ++j) {
        if (!kTail || j < vectors - 1) {
          x[j] = hn::LoadU(d, b + j * L);
        } else {
#if HWY_TARGET == HWY_SSE4
          x[j] = load_tail(b + j * L, tail);
#else
          x[j] = hn::MaskedLoad(mask, d, b + j * L);
#endif
        }
        __builtin_prefetch(b + ahead + j * L);
      }
      TUTTI_UNROLL for (int i = 0; i < rows; ++i) {
        const Vector<T> y = hn::Set(d, a[i / 4][(i % 4) * a_row]);
        TUTTI_UNROLL for (int j = 0; j < vectors; ++j) s[u][i][j] = hn::MulAdd(y, x[j], s[u][i][j]);
      }
      TUTTI_UNROLL for (int i = 0; i < kBases; ++i) a[i] += a_column;
      b += b_row;
    };
    Index k = w.depth;
    if constexpr (sums > 1)
      for (; k >= sums; k -= sums) TUTTI_UNROLL for (int u = 0; u < sums; ++u) add_products(u);
    for (; k > 0; --k) add_products(0);
    TUTTI_UNROLL for (int u = 1; u < sums; ++u) TUTTI_UNROLL for (int i = 0; i < rows; ++i)
        TUTTI_UNROLL for (int j = 0; j < vectors; ++j) s[0][i][j] = hn::Add(s[0][i][j], s[u][i][j]);

    const auto load = [&](const T* p, int j) HWY_ATTR {
      return kTail && j == vectors - 1 ? load_tail(p + j * L, tail) : hn::LoadU(d, p + j * L);
    };
    if (bias) {
      TUTTI_UNROLL for (int j = 0; j < vectors; ++j) {
        const Vector<T> x = load(bias, j);
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
    TUTTI_UNROLL for (int i = 0; i < rows; ++i) TUTTI_UNROLL for (int j = 0; j < vectors; ++j) {
      T* p = out + i * out_row + j * L;
      if (kTail && j == vectors - 1)
        store_tail(s[0][i][j], p, tail);
      else
        hn::StoreU(s[0][i][j], d, p);
    }
    a0 += w.a_step;
    b0 += w.b_step;
    out += w.out_step;
  }
}

template <class T, int vectors, bool kTail, int... i>
Kernel<T> by_rows(Index rows, std::integer_sequence<int, i...>) {
  static constexpr Kernel<T> kernels[] = {&tiles<T, i + 1, vectors, 1, kTail>...};
  return kernels[rows - 1];
}

template <class T, int vectors, bool kTail>
Kernel<T> find_kernel(Index rows, int sums) {
  constexpr int one = vectors == 1 ? 8 : 4, two = vectors == 1 ? 4 : 2;
  if (sums == 1)
    return by_rows<T, vectors, kTail>(rows, std::make_integer_sequence<int, kRows[vectors]>());
  if (rows == 1) return sums == one ? &tiles<T, 1, vectors, one, kTail> : &tiles<T, 1, 1, 4, kTail>;
  if (rows == 2) return sums == two ? &tiles<T, 2, vectors, two, kTail> : &tiles<T, 2, 1, 2, kTail>;
  return rows == 3 ? &tiles<T, 3, 1, 2, kTail> : &tiles<T, 4, 1, 2, kTail>;
}

/// See sums_for(); with kTail where needed.
template <class T>
Kernel<T> find_kernel(Index rows, Index vectors, int sums, bool tail) {
  if (kFreeMasks || tail)
    return vectors == 1   ? find_kernel<T, 1, true>(rows, sums)
           : vectors == 2 ? find_kernel<T, 2, true>(rows, sums)
                          : find_kernel<T, 3, true>(rows, sums);
  constexpr bool never = kFreeMasks;
  return vectors == 1   ? find_kernel<T, 1, never>(rows, sums)
         : vectors == 2 ? find_kernel<T, 2, never>(rows, sums)
                        : find_kernel<T, 3, never>(rows, sums);
}

// ---- rearranging b

/// Transposes the square of kBlockLanes numbers in each 128-bit block of as many vectors.
HWY_INLINE void transpose_blocks(Vector<float>* v) {
  const Tag<float> d;
  const hn::RepartitionToWide<hn::RebindToUnsigned<Tag<float>>> pairs;
  const auto x = hn::BitCast(pairs, hn::InterleaveLower(d, v[0], v[1]));
  const auto y = hn::BitCast(pairs, hn::InterleaveUpper(d, v[0], v[1]));
  const auto z = hn::BitCast(pairs, hn::InterleaveLower(d, v[2], v[3]));
  const auto w = hn::BitCast(pairs, hn::InterleaveUpper(d, v[2], v[3]));
  v[0] = hn::BitCast(d, hn::InterleaveLower(pairs, x, z));
  v[1] = hn::BitCast(d, hn::InterleaveUpper(pairs, x, z));
  v[2] = hn::BitCast(d, hn::InterleaveLower(pairs, y, w));
  v[3] = hn::BitCast(d, hn::InterleaveUpper(pairs, y, w));
}
HWY_INLINE void transpose_blocks(Vector<double>* v) {
  const Tag<double> d;
  const Vector<double> x = v[0];
  v[0] = hn::InterleaveLower(d, x, v[1]);
  v[1] = hn::InterleaveUpper(d, x, v[1]);
}

/// Block i of the result: 128 bits at p + i * stride, zero from `blocks` on.
template <class T, class D>
HWY_INLINE hn::Vec<D> load_blocks(D d, const T* p, Index stride, Index blocks) {
  if constexpr (hn::MaxLanes(D()) == kBlockLanes<T>) {
    return blocks > 0 ? hn::LoadU(d, p) : hn::Zero(d);
  } else {
    const hn::Half<D> half;
    constexpr Index n = static_cast<Index>(hn::MaxLanes(D())) / kBlockLanes<T> / 2;
    const auto low = load_blocks(half, p, stride, blocks);
    if (blocks <= n) return hn::ZeroExtendVector(d, low);
    return hn::Combine(d, load_blocks(half, p + n * stride, stride, blocks - n), low);
  }
}

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
        transpose_blocks(v);
        TUTTI_UNROLL for (Index i = 0; i < B; ++i) hn::StoreU(v[i], d, q + i * width);
      }
    };
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
HWY_INLINE auto add_blocks(D d, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) * sizeof(hn::TFromD<D>) == 16) {
    return v;
  } else {
    const hn::Half<D> half;
    return add_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

/// One row of a result: dot products of a with the contiguous columns of b, several at a time.
template <class T>
HWY_NOINLINE void dot_row(const T* a, const T* b, Index b_column, Index n, Index k, T* out,
                          const T* bias, bool add, bool positive) {
  const Tag<T> d;
  constexpr Index L = kLanes<T>, B = kBlockLanes<T>;
  const hn::FixedTag<T, B> block;
  const Index tail = k % L, whole = k - tail;
  const Vector<T> a_tail = tail ? load_tail(a + whole, tail) : hn::Zero(d);
  const auto finish = [&](auto sums, Index j, Index count) HWY_ATTR {
    HWY_ALIGN T s[B];
    hn::Store(sums, block, s);
    for (Index i = 0; i < count; ++i) {
      T x = s[i];
      if (bias) x += bias[j + i];
      if (add) x += out[j + i];
      out[j + i] = positive && x <= T(0) ? T(0) : x;
    }
  };
  for (Index j = 0; j < n; j += B, b += B * b_column) {
    const Index columns = std::min(B, n - j);
    const T* p[B];  // the last ones again where there are no more
    TUTTI_UNROLL for (Index i = 0; i < B; ++i) p[i] = b + std::min(i, columns - 1) * b_column;
    Vector<T> s[B];
    TUTTI_UNROLL for (Index i = 0; i < B; ++i) s[i] = hn::Zero(d);
    for (Index i = 0; i < whole; i += L) {
      const Vector<T> x = hn::LoadU(d, a + i);
      TUTTI_UNROLL for (Index c = 0; c < B; ++c) s[c] = hn::MulAdd(x, hn::LoadU(d, p[c] + i), s[c]);
    }
    if (tail)
      TUTTI_UNROLL for (Index c = 0; c < B; ++c) s[c] =
          hn::MulAdd(a_tail, load_tail(p[c] + whole, tail), s[c]);
    transpose_blocks(s);
    Vector<T> sum = s[0];
    TUTTI_UNROLL for (Index c = 1; c < B; ++c) sum = hn::Add(sum, s[c]);
    auto result = add_blocks(d, sum);
    if (columns == B) {
      if (bias) result = hn::Add(result, hn::LoadU(block, bias + j));
      if (add) result = hn::Add(result, hn::LoadU(block, out + j));
      if (positive) result = relu(block, result);
      hn::StoreU(result, block, out + j);
    } else {
      finish(result, j, columns);
    }
  }
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
      dot_row(a, s.b + i * s.b_step, f.b_column, f.n, f.k, s.out + i * s.out_step + row * f.out_row,
              s.bias ? s.bias + i * s.bias_step : nullptr, f.accumulate, f.relu);
    }
}

// ---- one product, or many of one form

/// The calls of kernels that make up a product.
template <class T>
class Plan {
 public:
  explicit Plan(const Form& f) : f_(f) {
    constexpr Index L = kLanes<T>;
    vectors_ = (f.n + L - 1) / L;
    const Index last_columns = f.n - (vectors_ - 1) * L;
    const Index k_blocks = std::max<Index>(1, (f.k + kDepth - 1) / kDepth);
    depth_ = std::max<Index>(1, (f.k + k_blocks - 1) / k_blocks);
    one_depth_ = k_blocks == 1;
    sums_ = sums_for(f.m, vectors_);
    rows_first_ = vectors_ <= kFewVectors;
    const bool bad_stride = f.b_row * static_cast<Index>(sizeof(T)) % kBadStride == 0 &&
                            f.k >= kBadStrideDepth && f.m > kBadStrideRows;
    packed_ = f.b_column != 1 || bad_stride;

    // Columns: panels of kPanel whole vectors, then a last one with what is left. If that were one
    // vector of many, it takes another panel along.
    const bool whole = last_columns == L;
    panels_ = vectors_ / kPanel;
    if (!whole && vectors_ % kPanel == 0) --panels_;
    last_vectors_ = vectors_ - panels_ * kPanel;
    if (rows_first_ && last_vectors_ == 1 && panels_ > 0 && sums_for(f.m, 3) == sums_) {
      --panels_;
      last_vectors_ += kPanel;
    }
    const bool one_by_one = rows_first_ && f.m * depth_ * static_cast<Index>(sizeof(T)) <= kSmallA;
    group_ = !packed_ ? panels_ : one_by_one ? 1 : kGroup / kPanel;
    // The last panel is in the last group, also if that is one too many.
    groups_ = group_ == 0 ? 1 : std::max<Index>(1, (panels_ + group_ - 1) / group_);
    last_group_ = panels_ - (groups_ - 1) * group_;
    if (one_by_one && packed_ && last_vectors_ && panels_) ++groups_, last_group_ = 0;

    if (groups_ > 1) add_calls(full_, group_, 0, L);
    add_calls(last_, last_group_, last_vectors_, last_columns);
    if (packed_)
      buffer_ = static_cast<T*>(workspace(
          static_cast<std::size_t>(
              depth_ * L * std::max(group_ * kPanel, last_group_ * kPanel + last_vectors_)) *
          sizeof(T)));
  }

  void run(const Strip<T>& s) {
    if (!packed_ && one_depth_ && groups_ == 1 && last_.size == 1 && last_.calls[0].count == 1 &&
        last_.calls[0].times == 1) {  // one tile each: the kernel goes from product to product
      Call c = last_.calls[0];
      c.walk.a_step = s.a_step;
      c.walk.b_step = s.b_step;
      c.walk.out_step = s.out_step;
      c.walk.bias_step = s.bias_step;
      c.kernel(s.a, s.b, s.out, s.bias, c.walk, s.count);
      return;
    }
    for (Index i = 0; i < s.count; ++i)
      product(s.a + i * s.a_step, s.b + i * s.b_step, s.bias ? s.bias + i * s.bias_step : nullptr,
              s.out + i * s.out_step);
  }

 private:
  struct Call {
    Kernel<T> kernel;
    Index a, b, out, column;  // where it begins
    Index count;              // tiles
    Index times, a_again, out_again;
    Walk walk;
  };
  /// Calls for a group of panels.
  struct Group {
    Call calls[2 * (kFewVectors / kPanel + 2)];
    int size = 0;
  };

  /// `panels` panels and then, unless it is 0, one of `vectors` with `tail` columns in its last.
  void add_calls(Group& g, Index panels, Index vectors, Index tail) {
    constexpr Index L = kLanes<T>, width = kPanel * L;
    const Index panel_step = packed_ ? width * depth_ : width;
    if (rows_first_)
      for (Index i = 0; i < panels; ++i)
        add_rows(g, 1, kPanel, L, i * width, i * panel_step, panel_step);
    else if (panels > 0)
      add_rows(g, panels, kPanel, L, 0, 0, panel_step);
    if (vectors > 0) add_rows(g, 1, vectors, tail, panels * width, panels * panel_step, 0);
  }

  /// Calls for all rows of some panels, in tiles whose heights differ by one at most.
  void add_rows(Group& g, Index panels, Index vectors, Index tail, Index column, Index b,
                Index panel_step) {
    constexpr Index L = kLanes<T>;
    const Index tiles = (f_.m + kRows[vectors] - 1) / kRows[vectors];
    const Index low = f_.m / tiles, higher = f_.m % tiles;
    Index row = 0;
    for (const auto& [height, count] :
         {std::pair(low + 1, higher), std::pair(low, tiles - higher)}) {
      if (count == 0) continue;
      Call& c = g.calls[g.size++];
      c.kernel = find_kernel<T>(height, vectors, sums_, tail != L);
      c.a = row * f_.a_row;
      c.b = b;
      c.out = row * f_.out_row + column;
      c.column = column;
      c.walk = {f_.a_row,
                f_.a_column,
                packed_ ? vectors * L : f_.b_row,
                f_.out_row,
                0,
                0,
                0,
                0,
                std::min<Index>(depth_, f_.k),
                tail,
                0,
                f_.accumulate,
                f_.relu,
                depth_ >= 32 && f_.m * f_.n * static_cast<Index>(sizeof(T)) > kLargeResult};
      if (rows_first_) {
        c.count = count;
        c.times = 1;
        c.walk.a_step = height * f_.a_row;
        c.walk.out_step = height * f_.out_row;
      } else {
        c.count = panels;
        c.times = count;
        c.a_again = height * f_.a_row;
        c.out_again = height * f_.out_row;
        c.walk.b_step = panel_step;
        c.walk.out_step = c.walk.bias_step = vectors * L;
        if (!packed_) c.walk.ahead = vectors * L;
      }
      row += height * count;
    }
  }

  void product(const T* a, const T* b, const T* bias, T* out) {
    constexpr Index width = kPanel * kLanes<T>;
    for (Index k = 0; k == 0 || k < f_.k; k += depth_) {
      const Index depth = std::min(depth_, f_.k - k);
      for (Index g = 0; g < groups_; ++g) {
        Group& group = g + 1 < groups_ ? full_ : last_;
        const Index column = g * group_ * width;
        const T* from = b + k * f_.b_row + column * f_.b_column;
        if (packed_) from = pack(from, g, depth);
        for (Call* c = group.calls; c != group.calls + group.size; ++c) {
          if (!one_depth_) {
            c->walk.depth = depth;
            c->walk.add = f_.accumulate || k > 0;
            c->walk.relu = f_.relu && k + depth == f_.k;
          }
          const T* const this_bias = bias && k == 0 ? bias + column + c->column : nullptr;
          for (Index i = 0; i < c->times; ++i)
            c->kernel(a + k * f_.a_column + c->a + i * c->a_again, from + c->b,
                      out + column + c->out + i * c->out_again, this_bias, c->walk, c->count);
        }
      }
    }
  }

  /// A group of panels of b, each [depth, width].
  const T* pack(const T* from, Index g, Index depth) {
    if (one_depth_ && groups_ == 1 && from == packed_from_) return buffer_;  // a shared b
    packed_from_ = from;
    constexpr Index L = kLanes<T>, width = kPanel * L;
    const Index panels = g + 1 < groups_ ? group_ : last_group_;
    const auto pack_panel = [&](Index i, Index n, Index w) {
      const T* p = from + i * width * f_.b_column;
      T* to = buffer_ + i * width * depth_;
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
    return buffer_;
  }

  const Form& f_;
  Index vectors_, panels_, last_vectors_;  // columns
  Index group_, groups_, last_group_;      // panels in a group, groups, panels in the last one
  Index depth_;                            // terms per pass
  int sums_;
  bool one_depth_, rows_first_, packed_;
  Group full_, last_;
  T* buffer_ = nullptr;
  const T* packed_from_ = nullptr;
};

template <class T>
void multiply(const Form& f, const Strip<T>* strips, std::size_t n) {
  const bool few = f.m == 1 || (f.m == 2 && f.k > kDotTwoTerms) ||
                   (f.n <= kDotColumns && f.k >= kDotTerms && f.a_column == 1);
  if (few && f.b_row == 1 && (f.b_column != 1 || f.n == 1)) {
    for (std::size_t i = 0; i < n; ++i) dots(f, strips[i]);
    return;
  }
  Plan<T> plan(f);
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
  switch (isa) {
#if HWY_TARGETS & HWY_AVX3
    case Isa::avx3:
      return N_AVX3::multiply<T>;
#endif
#if HWY_TARGETS & HWY_AVX2
    case Isa::avx2:
      return N_AVX2::multiply<T>;
#endif
#if HWY_TARGETS & HWY_SSE4
    case Isa::sse4:
      return N_SSE4::multiply<T>;
#endif
    default:
      return nullptr;
  }
}

template Multiply<float> multiply_highway<float>(Isa);
template Multiply<double> multiply_highway<double>(Isa);

}  // namespace tutti::kernels
#endif  // HWY_ONCE
