// softmax and log_softmax, row by row: largest element, sum of the exponentials, result.
#include <cmath>

#include <tutti/core/kernels/exp_rows.h>
#include <tutti/core/kernels/lines.h>
#include <tutti/core/kernels/softmax.h>

namespace tutti::kernels {
namespace {

/// Calls f(row of each operand, step of each, n) for the rows along the last axis; the last operand
/// is the output.
template <class T, std::size_t N, class F>
void each_row(const std::array<const Tensor*, N>& x, std::int64_t cost, F f) {
  const IntArrayRef sizes = x[N - 1]->sizes();
  if (x[N - 1]->numel() == 0) return;
  const std::size_t axis = sizes.size() - 1;
  std::array<IntArrayRef, N> strides;
  std::array<T*, N> base;
  std::array<std::int64_t, N> step;
  for (std::size_t k = 0; k < N; ++k) {
    strides[k] = x[k]->strides();
    base[k] = static_cast<T*>(x[k]->raw());
    step[k] = strides[k][axis];
  }
  Lines<N>(sizes, axis, strides)
      .parallel(cost, [&, n = sizes[axis]](const std::array<std::int64_t, N>& at) {
        std::array<T*, N> row;
        for (std::size_t k = 0; k < N; ++k) row[k] = base[k] + at[k];
        f(row, step, n);
      });
}

}  // namespace

void softmax(Inputs in, Inputs out, const Attrs&) {
  with_float(out[0].dtype(), [&]<class T>() {
    each_row<T, 2>({&in[0], &out[0]}, 8, [](const auto& row, const auto& step, std::int64_t n) {
      const T* const x = row[0];
      T* const y = row[1];
      const T m = shift_of(x, n, step[0]);
      exps(x, step[0], m, y, n);
      const T scale = T(1) / fold::run<fold::Sum<T>>(y, n, 1);
      for (std::int64_t i = 0; i < n; ++i) y[i] *= scale;
    });
  });
}

void log_softmax(Inputs in, Inputs out, const Attrs&) {
  with_float(out[0].dtype(), [&]<class T>() {
    each_row<T, 2>({&in[0], &out[0]}, 8, [](const auto& row, const auto& step, std::int64_t n) {
      const T* const x = row[0];
      T* const y = row[1];
      const T m = shift_of(x, n, step[0]);
      exps(x, step[0], m, y, n);
      const T log_sum = std::log(fold::run<fold::Sum<T>>(y, n, 1));
      for (std::int64_t i = 0; i < n; ++i) y[i] = x[i * step[0]] - m - log_sum;
    });
  });
}

void softmax_grad(Inputs in, Inputs out, const Attrs&) {
  with_float(out[0].dtype(), [&]<class T>() {
    each_row<T, 3>({&in[0], &in[1], &out[0]}, 2,
                   [](const auto& row, const auto& step, std::int64_t n) {
                     const T *const g = row[0], *const y = row[1];
                     T* const to = row[2];
                     for (std::int64_t i = 0; i < n; ++i) to[i] = g[i * step[0]] * y[i * step[1]];
                     const T total = fold::run<fold::Sum<T>>(to, n, 1);
                     for (std::int64_t i = 0; i < n; ++i)
                       to[i] = y[i * step[1]] * (g[i * step[0]] - total);
                   });
  });
}

void log_softmax_grad(Inputs in, Inputs out, const Attrs&) {
  with_float(out[0].dtype(), [&]<class T>() {
    each_row<T, 3>({&in[0], &in[1], &out[0]}, 8,
                   [](const auto& row, const auto& step, std::int64_t n) {
                     const T *const g = row[0], *const y = row[1];
                     T* const to = row[2];
                     const T total = fold::run<fold::Sum<T>>(g, n, step[0]);
                     exps(y, step[1], T(0), to, n);
                     for (std::int64_t i = 0; i < n; ++i) to[i] = g[i * step[0]] - to[i] * total;
                   });
  });
}

}  // namespace tutti::kernels
