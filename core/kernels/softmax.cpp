// softmax, log_softmax and their gradients, in blocks of rows.
#include <algorithm>

#include <tutti/core/kernels/copy.h>
#include <tutti/core/kernels/softmax.h>
#include <tutti/core/kernels/vector_math.h>
#include <tutti/core/parallel.h>
#include <tutti/core/tensor_impl.h>

namespace tutti::kernels {
namespace {

/// Runs the kernel on the rows of in[0] and, for a gradient, in[1].
template <class T>
void run(RowKernel<T> kernel, Inputs in, const Tensor& out) {
  if (out.numel() == 0) return;
  const std::int64_t n = out.sizes().back();
  const auto data = [](const Tensor& t) { return static_cast<T*>(t.raw()); };
  T* const to = data(out);
  const T* x = data(in[0]);
  if (!in[0].is_contiguous()) {
    copy(out, in[0]);
    x = to;
  }
  Tensor y;
  if (in.size() > 1) {
    y = in[1];
    if (!y.is_contiguous()) {
      y = make_dense(y.sizes(), y.dtype());
      copy(y, in[1]);
    }
  }
  const auto rows = [&, ys = y.defined() ? data(y) : nullptr](std::int64_t begin,
                                                              std::int64_t end) {
    const std::int64_t at = begin * n;
    kernel({x + at, ys ? ys + at : nullptr, to + at, n, end - begin, nullptr, nullptr});
  };
  parallel_for(out.numel() / n, std::max<std::int64_t>(1, kCheapGrain / (8 * n)), rows);
}

void run(RowKernel<float> RowKernels<float>::*f, RowKernel<double> RowKernels<double>::*d,
         Inputs in, Inputs out) {
  if (out[0].dtype() == kFloat64)
    run<double>(row_kernels<double>().*d, in, out[0]);
  else
    run<float>(row_kernels<float>().*f, in, out[0]);
}

}  // namespace

#define TUTTI_ROWS(name)                                               \
  void name(Inputs in, Inputs out, const Attrs&) {                     \
    run(&RowKernels<float>::name, &RowKernels<double>::name, in, out); \
  }
TUTTI_ROWS(softmax)
TUTTI_ROWS(log_softmax)
TUTTI_ROWS(softmax_grad)
TUTTI_ROWS(log_softmax_grad)

}  // namespace tutti::kernels
