// Copies on a device: moves of equal element types, and casts between any two.
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/scalar.h>
#include <tutti/cuda/map.cuh>

namespace tutti::cuda {
namespace {

struct Same {
  template <class T>
  TUTTI_HD T operator()(T x) const {
    return x;
  }
};
template <class T>
struct Constant {
  T value;
  TUTTI_HD T operator()() const { return value; }
};

/// One kernel per result type; the source's type is the same for all threads.
template <class To>
__global__ void cast(unsigned n, DType type, const __grid_constant__ Layout<2> l, To* out,
                     const void* in) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  std::int32_t at[2];
  l.find(i, at);
  const auto convert = [&]<class From>(const From* from) {
    if constexpr (!std::is_same_v<To, From>)  // equal types are copied, not cast
      out[at[0]] = scalar::Cast<To>()(from[at[1]]);
  };
  switch (type) {
    case DType::Bool:
      return convert(static_cast<const bool*>(in));
    case DType::UInt8:
      return convert(static_cast<const std::uint8_t*>(in));
    case DType::Int8:
      return convert(static_cast<const std::int8_t*>(in));
    case DType::Int16:
      return convert(static_cast<const std::int16_t*>(in));
    case DType::Int32:
      return convert(static_cast<const std::int32_t*>(in));
    case DType::Int64:
      return convert(static_cast<const std::int64_t*>(in));
    case DType::Float16:
      return convert(static_cast<const Half*>(in));
    case DType::BFloat16:
      return convert(static_cast<const BFloat16*>(in));
    case DType::Float32:
      return convert(static_cast<const float*>(in));
    case DType::Float64:
      return convert(static_cast<const double*>(in));
  }
}

void cast_on_device(const Tensor& dst, const Tensor& src) {
  const Work work(dst.device());
  axes_of<2>({&dst, &src}).each_piece([&](const Axes<2>& axes) {
    const unsigned n = static_cast<unsigned>(axes.elements()), block = block_for(n);
    const std::byte* const from = static_cast<const std::byte*>(src.raw()) +
                                  axes.begin[1] * static_cast<std::int64_t>(src.element_size());
    dispatch(dst.dtype(), [&]<class To>() {
      launch(cast<To>, blocks_for(n, block), block, work, n, src.dtype(), axes.layout(),
             static_cast<To*>(dst.raw()) + axes.begin[0], static_cast<const void*>(from));
    });
  });
}

}  // namespace

void copy_on_device(const Tensor& dst, const Tensor& src) {
  if (dst.numel() == 0) return;
  if (dst.dtype() != src.dtype()) return cast_on_device(dst, src);
  if (dst.raw() == src.raw() && dst.strides() == src.strides()) return;
  if (dst.is_contiguous() && src.is_contiguous()) {
    const Work work(dst.device());
    must(cudaMemcpyAsync(dst.raw(), src.raw(),
                         static_cast<std::size_t>(dst.numel() * dst.element_size()),
                         cudaMemcpyDeviceToDevice, work.stream()),
         "copy");
    return;
  }
  by_size(dst, [&]<class T>() { map<T, T>(Same(), dst, src); });
}

}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

void fill(const Tensor& dst, Scalar value) {
  dispatch(dst.dtype(), [&]<class T>() {
    using B = tutti::cuda::Bits<sizeof(T)>;
    tutti::cuda::map<B>(tutti::cuda::Constant<B>{std::bit_cast<B>(value.to<T>())}, dst);
  });
}

}  // namespace tutti::kernels::cuda
