// Copy kernels: contiguous blocks, tiled transposes, strided runs, and conversion between element
// types.
#include <algorithm>
#include <cstring>

#include <tutti/core/kernels/copy.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/loops.h>
#include <tutti/core/kernels/scalar.h>
#include <tutti/core/parallel.h>

namespace tutti::kernels {
namespace {

constexpr std::int64_t kTile = 16;

void copy_block(std::byte* dst, const std::byte* src, std::int64_t bytes) {
  parallel_for(bytes, 4 * kCheapGrain, [=](std::int64_t begin, std::int64_t end) {
    std::memcpy(dst + begin, src + begin, static_cast<std::size_t>(end - begin));
  });
}

/// Copies by square tiles if dst is consecutive along one axis and src along another, so that both
/// are read and written a cache line at a time. False if the layout is not of that kind.
template <class T>
bool copy_transposed(const Loops<2>& loops) {
  constexpr std::int64_t item = sizeof(T);
  const auto& axes = loops.axes();
  if (axes.size() < 2 || axes[0].strides[0] != item || axes[0].strides[1] == 0) return false;
  std::size_t j = 1;
  while (j < axes.size() && axes[j].strides[1] != item) ++j;
  if (j == axes.size() || axes[0].size < 4 || axes[j].size < 4) return false;

  const auto row = axes[0], column = axes[j];  // along dst's and along src's memory
  SmallVec<Loops<2>::Axis, 6> outer;
  std::int64_t count = 1;
  for (std::size_t d = 1; d < axes.size(); ++d)
    if (d != j) {
      outer.push_back(axes[d]);
      count *= axes[d].size;
    }
  const std::int64_t bands = (column.size + kTile - 1) / kTile;
  const std::int64_t grain = std::max<std::int64_t>(1, kCheapGrain / (kTile * row.size));
  parallel_for(count * bands, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t band = begin; band < end; ++band) {
      auto [dst, src] = loops.base();
      std::int64_t rest = band / bands;
      for (const auto& axis : outer) {
        const std::int64_t at = rest % axis.size;
        rest /= axis.size;
        dst += at * axis.strides[0];
        src += at * axis.strides[1];
      }
      const std::int64_t c0 = band % bands * kTile, c1 = std::min(c0 + kTile, column.size);
      for (std::int64_t r0 = 0; r0 < row.size; r0 += kTile) {
        const std::int64_t r1 = std::min(r0 + kTile, row.size);
        for (std::int64_t c = c0; c < c1; ++c) {
          T* d = reinterpret_cast<T*>(dst + c * column.strides[0]);
          const std::byte* s = src + c * item;
          for (std::int64_t r = r0; r < r1; ++r)
            d[r] = *reinterpret_cast<const T*>(s + r * row.strides[1]);
        }
      }
    }
  });
  return true;
}

template <class T>
void copy_same(const Tensor& dst, const Tensor& src) {
  const Loops<2> loops({&dst, &src});
  if (copy_transposed<T>(loops)) return;
  loops.each_run(kCheapGrain, [](const auto& p, const auto& s, std::int64_t n) {
    constexpr std::int64_t item = sizeof(T);
    if (s[0] == item && s[1] == item) {
      std::memcpy(p[0], p[1], static_cast<std::size_t>(n * item));
    } else if (s[0] == item && s[1] == 0) {
      std::fill_n(reinterpret_cast<T*>(p[0]), n, *reinterpret_cast<const T*>(p[1]));
    } else {
      for (std::int64_t i = 0; i < n; ++i)
        *reinterpret_cast<T*>(p[0] + i * s[0]) = *reinterpret_cast<const T*>(p[1] + i * s[1]);
    }
  });
}

}  // namespace

void copy(const Tensor& dst, const Tensor& src) {
  if (dst.numel() == 0) return;
  if constexpr (TUTTI_CUDA)
    if (!dst.is_cpu() || !src.is_cpu()) return cuda::copy(dst, src);
  if (dst.dtype() != src.dtype()) {
    dispatch(dst.dtype(), [&]<class To>() {
      dispatch(src.dtype(),
               [&]<class From>() { map<To, From>(kCheapGrain, scalar::Cast<To>(), dst, src); });
    });
    return;
  }
  if (dst.raw() == src.raw() && dst.strides() == src.strides()) return;
  if (dst.is_contiguous() && src.is_contiguous())
    return copy_block(static_cast<std::byte*>(dst.raw()), static_cast<const std::byte*>(src.raw()),
                      dst.numel() * dst.element_size());
  switch (dst.element_size()) {
    case 1:
      return copy_same<std::uint8_t>(dst, src);
    case 2:
      return copy_same<std::uint16_t>(dst, src);
    case 4:
      return copy_same<std::uint32_t>(dst, src);
    default:
      return copy_same<std::uint64_t>(dst, src);
  }
}

void fill(const Tensor& dst, Scalar value) {
  if (dst.numel() == 0) return;
  if constexpr (TUTTI_CUDA)
    if (!dst.is_cpu()) return cuda::fill(dst, value);
  dispatch(dst.dtype(), [&]<class T>() {
    const T v = value.to<T>();
    Loops<1>({&dst}).each_run(kCheapGrain, [v](const auto& p, const auto& s, std::int64_t n) {
      if (s[0] == std::int64_t{sizeof(T)}) {
        std::fill_n(reinterpret_cast<T*>(p[0]), n, v);
      } else {
        for (std::int64_t i = 0; i < n; ++i) *reinterpret_cast<T*>(p[0] + i * s[0]) = v;
      }
    });
  });
}

}  // namespace tutti::kernels
