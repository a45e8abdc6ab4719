// Values computed from their position: arange and linspace.
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/scalar.h>
#include <tutti/cuda/map.cuh>

namespace tutti::kernels::cuda {
namespace {

struct Integers {
  std::int64_t start, step;
  TUTTI_HD std::int64_t operator()(std::int64_t i) const { return start + step * i; }
};
struct Numbers {
  double start, step;
  TUTTI_HD double operator()(std::int64_t i) const { return start + step * static_cast<double>(i); }
};
/// Both halves are counted from their own end.
struct Between {
  double start, end, step;
  std::int64_t n;
  TUTTI_HD double operator()(std::int64_t i) const {
    return i < (n + 1) / 2 ? start + step * static_cast<double>(i)
                           : end - step * static_cast<double>(n - 1 - i);
  }
};

template <class T, class F>
__global__ void by_position(std::int64_t n, F f, T* out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) out[i] = scalar::Cast<T>()(f(i));
}

template <class F>
void fill_by_position(const Tensor& out, const F& f) {
  if (out.numel() == 0) return;
  const tutti::cuda::Work work(out.device());
  const std::int64_t n = out.numel();
  const unsigned block = tutti::cuda::block_for(n);
  dispatch(out.dtype(), [&]<class T>() {
    tutti::cuda::launch(by_position<T, F>, tutti::cuda::blocks_for(n, block), block, work, n, f,
                        static_cast<T*>(out.raw()));
  });
}

}  // namespace

void arange(Inputs, Inputs out, const Attrs& a) {
  const Scalar start = a.scalars[0], step = a.scalars[1];
  if (start.is_floating() || step.is_floating())
    fill_by_position(out[0], Numbers{start.to_double(), step.to_double()});
  else
    fill_by_position(out[0], Integers{start.to_int(), step.to_int()});
}

void linspace(Inputs, Inputs out, const Attrs& a) {
  const double start = a.scalars[0].to_double(), end = a.scalars[1].to_double();
  const std::int64_t n = out[0].numel();
  fill_by_position(out[0],
                   Between{start, end, n > 1 ? (end - start) / static_cast<double>(n - 1) : 0, n});
}

}  // namespace tutti::kernels::cuda
