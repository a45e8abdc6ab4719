// Kernels of comparison, logic on bools and bits, and selection.
#include <bit>

#include <tutti/cuda/elementwise_kernels.cuh>

namespace tutti::kernels::cuda {

#include <tutti/core/kernels/elementwise_compare.inc>

void where(Inputs in, Inputs out, const Attrs&) {
  tutti::cuda::by_size(out[0], [&]<class T>() {
    map<T, scalar::Mask, T, T>(scalar::Where(), out[0], in[0], in[1], in[2]);
  });
}

void masked_fill(Inputs in, Inputs out, const Attrs& a) {
  dispatch(out[0].dtype(), [&]<class T>() {
    using B = tutti::cuda::Bits<sizeof(T)>;
    const scalar::FillBits<B> f{std::bit_cast<B>(a.scalars[0].to<T>()), (a.flags & 1) != 0};
    map<B, B, scalar::Mask>(f, out[0], in[0], in[1]);
  });
}

}  // namespace tutti::kernels::cuda
