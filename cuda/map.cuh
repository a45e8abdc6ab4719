// The elementwise kernels: out[i] = f(in[i]...). Tensors whose elements follow each other go in
// packs of 16 bytes; all others by their layout.
#pragma once
#include <bit>
#include <cstdint>
#include <tuple>
#include <utility>

#include <tutti/core/kernels/scalar.h>
#include <tutti/core/op.h>
#include <tutti/cuda/launch.cuh>
#include <tutti/cuda/layout.h>

namespace tutti::cuda {

/// V elements that are read and written at once.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T at[V];
};

/// What a pack of so many bytes is moved as, by one instruction.
template <std::size_t bytes>
using Words = std::conditional_t<
    bytes == 16, uint4,
    std::conditional_t<
        bytes == 8, uint2,
        std::conditional_t<bytes == 4, std::uint32_t,
                           std::conditional_t<bytes == 2, std::uint16_t, std::uint8_t>>>>;

/// Elements per pack: as many as make 16 bytes of the largest type. One where a functor is heavy
/// and works on integers: it divides or multiplies for longer than loads take, and 16 copies of it
/// would be large.
template <class F, class... T>
inline constexpr int kPack = scalar::is_heavy<F> && (std::is_integral_v<T> || ...)
                                 ? 1
                                 : static_cast<int>(16 / std::max({sizeof(T)...}));

/// V elements from p on; where only `rest` < V are there, the first one stands for the others, so
/// that no functor sees what is not in the tensor.
template <int V, class T>
__device__ __forceinline__ Pack<T, V> load_pack(const T* p, bool whole, unsigned rest) {
  using W = Words<sizeof(T) * V>;
  if (whole) return std::bit_cast<Pack<T, V>>(*reinterpret_cast<const W*>(p));
  Pack<T, V> x;
#pragma unroll
  for (unsigned j = 0; j < V; ++j) x.at[j] = p[j < rest ? j : 0];
  return x;
}
template <int V, class T>
__device__ __forceinline__ void store_pack(T* p, const Pack<T, V>& x, bool whole, unsigned rest) {
  using W = Words<sizeof(T) * V>;
  if (whole) {
    *reinterpret_cast<W*>(p) = std::bit_cast<W>(x);
    return;
  }
#pragma unroll
  for (unsigned j = 0; j < V; ++j)
    if (j < rest) p[j] = x.at[j];
}

template <int V, class F, class R, class... A>
__device__ __forceinline__ Pack<R, V> map_pack(const F& f, const Pack<A, V>&... in) {
  Pack<R, V> y;
#pragma unroll
  for (int j = 0; j < V; ++j) y.at[j] = f(in.at[j]...);
  return y;
}

template <int V, class F, class R, class... A>
__global__ void map_dense(unsigned n, F f, R* out, const A*... in) {
  const unsigned first = (blockIdx.x * blockDim.x + threadIdx.x) * V;
  if (first >= n) return;
  const unsigned rest = n - first;
  const bool whole = V == 1 || rest >= V;
  store_pack<V>(out + first, map_pack<V, F, R, A...>(f, load_pack<V>(in + first, whole, rest)...),
                whole, rest);
}

template <class F, class R, class... A, std::size_t... I>
__device__ __forceinline__ void map_one(unsigned i, const F& f, const Layout<1 + sizeof...(A)>& l,
                                        std::index_sequence<I...>, R* out, const A*... in) {
  std::int32_t at[1 + sizeof...(A)];
  l.find(i, at);
  out[at[0]] = f(in[at[I + 1]]...);
}

template <class F, class R, class... A>
__global__ void map_strided(unsigned n, F f, const __grid_constant__ Layout<1 + sizeof...(A)> l,
                            R* out, const A*... in) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  map_one(i, f, l, std::index_sequence_for<A...>(), out, in...);
}

namespace detail {

/// Whether packs of V elements may start at p.
template <int V, class T>
bool aligned(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p) % (sizeof(T) * V) == 0;
}

template <int V, class F, class R, class... A>
void launch_dense(const Work& work, unsigned n, const F& f, R* out, const A*... in) {
  const std::int64_t packs = (std::int64_t{n} + V - 1) / V;
  const unsigned block = block_for(packs);
  launch(map_dense<V, F, R, A...>, blocks_for(packs, block), block, work, n, f, out, in...);
}

template <class F, class R, class... A, std::size_t... I>
void map_piece(const Work& work, const F& f, const Axes<1 + sizeof...(A)>& axes, R* to,
               std::index_sequence<I...>, const A*... from) {
  constexpr int V = kPack<F, R, A...>;
  const unsigned n = static_cast<unsigned>(axes.elements());
  R* const out = to + axes.begin[0];
  const std::tuple<const A*...> in{(from + axes.begin[I + 1])...};
  if (axes.dense() && aligned<V>(out) && (aligned<V>(std::get<I>(in)) && ...)) {
    launch_dense<V, F, R, A...>(work, n, f, out, std::get<I>(in)...);
  } else {
    const unsigned block = block_for(n);
    launch(map_strided<F, R, A...>, blocks_for(n, block), block, work, n, f, axes.layout(), out,
           std::get<I>(in)...);
  }
}

}  // namespace detail

/// out = f(in...), elementwise; R and A are the types elements are taken for. Equal sizes.
template <class R, class... A, class F, class... Ins>
void map(const F& f, const Tensor& out, const Ins&... in) {
  static_assert(sizeof...(A) == sizeof...(Ins));
  if (out.numel() == 0) return;
  const Work work(out.device());
  axes_of<1 + sizeof...(A)>({&out, &in...}).each_piece([&](const auto& axes) {
    detail::map_piece<F, R, A...>(work, f, axes, static_cast<R*>(out.raw()),
                                  std::index_sequence_for<A...>(),
                                  static_cast<const A*>(in.raw())...);
  });
}

/// The same for a fresh result and operands that are as good as always fresh, too: in packs only.
template <class R, class... A, class F, class... Ins>
void map_flat(const F& f, const Tensor& out, const Ins&... in) {
  static_assert(sizeof...(A) == sizeof...(Ins));
  constexpr std::int64_t kMost = std::int64_t{1} << 30;  // elements of a launch
  const Work work(out.device());
  const auto run = [&](const auto&... x) {
    for (std::int64_t i = 0; i < out.numel(); i += kMost)
      detail::launch_dense<kPack<F, R, A...>, F, R, A...>(
          work, static_cast<unsigned>(std::min(kMost, out.numel() - i)), f,
          static_cast<R*>(out.raw()) + i, static_cast<const A*>(x.raw()) + i...);
  };
  run(packs_on_device(in)...);
}

/// A functor from the op's attributes.
template <class F>
F make_functor(const Attrs& a) {
  if constexpr (std::is_constructible_v<F, const Attrs&>)
    return F(a);
  else
    return F();
}

/// The unsigned integer of the size of an element, for kernels that only move elements.
template <std::size_t size>
using Bits = std::conditional_t<
    size == 1, std::uint8_t,
    std::conditional_t<size == 2, std::uint16_t,
                       std::conditional_t<size == 4, std::uint32_t, std::uint64_t>>>;
template <class F>
void by_size(const Tensor& x, const F& f) {
  switch (x.element_size()) {
    case 1:
      return f.template operator()<std::uint8_t>();
    case 2:
      return f.template operator()<std::uint16_t>();
    case 4:
      return f.template operator()<std::uint32_t>();
    default:
      return f.template operator()<std::uint64_t>();
  }
}

}  // namespace tutti::cuda
