// Kernels of comparison, logic on bools and bits, and selection.
#include <bit>

#include <tutti/core/kernels/elementwise_impl.h>

namespace tutti::kernels {

#define TUTTI_INSTANTIATE(kernel, ...) \
  template void kernel<scalar::__VA_ARGS__>(Inputs, Inputs, const Attrs&);

#include <tutti/core/kernels/elementwise_compare.inc>

namespace {

/// The unsigned integer of the size of an element.
template <std::size_t size>
using Bits = std::conditional_t<
    size == 1, std::uint8_t,
    std::conditional_t<size == 2, std::uint16_t,
                       std::conditional_t<size == 4, std::uint32_t, std::uint64_t>>>;

}  // namespace

void where(Inputs in, Inputs out, const Attrs&) {
  const auto select = [&]<class T>() {
    map<T, scalar::Mask, T, T>(kCheapGrain, scalar::Where(), out[0], in[0], in[1], in[2]);
  };
  switch (out[0].element_size()) {
    case 1:
      return select.operator()<std::uint8_t>();
    case 2:
      return select.operator()<std::uint16_t>();
    case 4:
      return select.operator()<std::uint32_t>();
    default:
      return select.operator()<std::uint64_t>();
  }
}

void masked_fill(Inputs in, Inputs out, const Attrs& a) {
  dispatch(out[0].dtype(), [&]<class T>() {
    using B = Bits<sizeof(T)>;
    const scalar::FillBits<B> f{std::bit_cast<B>(a.scalars[0].to<T>()), (a.flags & 1) != 0};
    map<B, B, scalar::Mask>(kCheapGrain, f, out[0], in[0], in[1]);
  });
}

}  // namespace tutti::kernels
