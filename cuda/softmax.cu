// softmax, log_softmax, cross entropy and their gradients, a team of threads per row.
#include <tutti/core/kernels/cross_entropy.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/scalar.h>
#include <tutti/cuda/index_fault.cuh>
#include <tutti/cuda/team.cuh>

namespace tutti::cuda {
namespace {

struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

/// The largest element of a row and the sum of e^(x - largest).
template <int kTeam, class T>
struct RowTotals {
  T largest, sum;
  __device__ RowTotals(const T* x, std::int64_t n, T* shared) {
    largest = -std::numeric_limits<T>::infinity();
    for (std::int64_t i = threadIdx.x; i < n; i += kTeam) largest = Largest()(largest, x[i]);
    largest = team_fold<kTeam>(largest, Largest(), shared);
    sum = T(0);
    for (std::int64_t i = threadIdx.x; i < n; i += kTeam) sum += scalar::math::exp(x[i] - largest);
    sum = team_fold<kTeam>(sum, Add(), shared);
  }
};

enum class Row { softmax, log_softmax, softmax_grad, log_softmax_grad };

/// x is the input, or the gradient; y the output of the forward pass, for gradients. Rows past the
/// last one are worked on, too, so that all threads meet at the barriers: as the last one,
/// unwritten.
template <Row kind, int kTeam, class T>
__global__ void rows_kernel(std::int64_t rows, std::int64_t n, const T* x, const T* y, T* out) {
  __shared__ T shared[kWide / kWarp];
  const std::int64_t row = team_row<kTeam>(), at = min(row, rows - 1) * n;
  x += at;
  out += at;
  if constexpr (kind == Row::softmax || kind == Row::log_softmax) {
    const RowTotals<kTeam, T> t(x, n, shared);
    if (row >= rows) return;
    const T log_sum = kind == Row::log_softmax ? scalar::math::log(t.sum) : T(0);
    for (std::int64_t i = threadIdx.x; i < n; i += kTeam)
      out[i] = kind == Row::softmax ? scalar::math::exp(x[i] - t.largest) / t.sum
                                    : x[i] - t.largest - log_sum;
  } else {
    y += at;
    T sum(0);
    for (std::int64_t i = threadIdx.x; i < n; i += kTeam)
      sum += kind == Row::softmax_grad ? x[i] * y[i] : x[i];
    sum = team_fold<kTeam>(sum, Add(), shared);
    if (row >= rows) return;
    for (std::int64_t i = threadIdx.x; i < n; i += kTeam)
      out[i] =
          kind == Row::softmax_grad ? y[i] * (x[i] - sum) : x[i] - scalar::math::exp(y[i]) * sum;
  }
}

template <Row kind>
void run_rows(Inputs in, Inputs out) {
  const Tensor& y = out[0];
  if (y.numel() == 0) return;
  const Tensor a = contiguous_on_device(in[0]);
  const Tensor b = in.size() > 1 ? contiguous_on_device(in[1]) : a;
  const std::int64_t n = y.sizes().back(), rows = y.numel() / n;
  const Work work(y.device());
  const auto run = [&]<class T>() {
    with_team(rows, n, [&]<int kTeam>(dim3 grid, dim3 block) {
      launch(rows_kernel<kind, kTeam, T>, grid, block, work, rows, n,
             static_cast<const T*>(a.raw()), static_cast<const T*>(b.raw()),
             static_cast<T*>(y.raw()));
    });
  };
  if (y.dtype() == kFloat64)
    run.template operator()<double>();
  else
    run.template operator()<float>();
}

// ---- cross entropy, see core/kernels/cross_entropy.h

template <class T>
struct Loss {
  std::int64_t rows, n, rows_per_group, ignored;
  T smoothing, each;  // each: what every class gets of it
  const std::int64_t* target;
  const T* weight;  // [groups, n], or null
  IndexFault* fault;

  __device__ const T* weights_of(std::int64_t row) const {
    return weight ? weight + row / rows_per_group * n : nullptr;
  }
  /// The row's class; a bad one is reported and counts as ignored.
  __device__ std::int64_t class_of(std::int64_t row) const {
    const std::int64_t t = target[row];
    if (t == ignored) return -1;
    if (t >= 0 && t < n) return t;
    report(fault, IndexOp::cross_entropy, t, n, false);
    return -1;
  }
};

template <int kTeam, class T>
__global__ void loss_rows(const Loss<T> l, const T* logits, T* p, T* losses, T* weights) {
  __shared__ T shared[kWide / kWarp];
  const std::int64_t row = team_row<kTeam>(), used = min(row, l.rows - 1);
  const T* const x = logits + used * l.n;
  const T* const v = l.weights_of(used);
  const RowTotals<kTeam, T> t(x, l.n, shared);
  const T log_sum = scalar::math::log(t.sum);
  T weight_sum = static_cast<T>(l.n), spread(0);
  if (l.smoothing != T(0)) {
    T w(0);
    for (std::int64_t i = threadIdx.x; i < l.n; i += kTeam) {
      const T each = v ? v[i] : T(1);
      w += each;
      spread += (t.largest - x[i]) * each;
    }
    spread = team_fold<kTeam>(spread, Add(), shared);
    w = team_fold<kTeam>(w, Add(), shared);
    if (v) weight_sum = w;
  }
  if (row >= l.rows) return;
  for (std::int64_t i = threadIdx.x; i < l.n; i += kTeam)
    p[row * l.n + i] = scalar::math::exp(x[i] - t.largest) / t.sum;
  if (threadIdx.x != 0) return;
  const std::int64_t c = l.class_of(row);
  T loss(0), weight(0);
  if (c >= 0) {
    weight = v ? v[c] : T(1);
    loss = (log_sum - (x[c] - t.largest)) * weight;
    if (l.smoothing != T(0))
      loss = (T(1) - l.smoothing) * loss + l.each * (weight_sum * log_sum + spread);
  }
  losses[row] = loss;
  if (weights) weights[row] = weight;
}

/// Sums of a group's rows; with `total`, the mean.
template <class T>
__global__ void loss_groups(std::int64_t rows, const T* losses, const T* weights, T* loss,
                            T* total) {
  __shared__ T shared[kWide / kWarp];
  const std::int64_t begin = blockIdx.x * rows;
  T sum(0), weight(0);
  for (std::int64_t i = threadIdx.x; i < rows; i += kWide) {
    sum += losses[begin + i];
    if (weights) weight += weights[begin + i];
  }
  sum = team_fold<kWide>(sum, Add(), shared);
  weight = team_fold<kWide>(weight, Add(), shared);
  if (threadIdx.x != 0) return;
  loss[blockIdx.x] = weights ? sum / weight : sum;
  if (weights) total[blockIdx.x] = weight;
}

/// g and total: one number per group, or (per_row) g one per row.
template <int kTeam, class T>
__global__ void loss_gradient(const Loss<T> l, bool per_row, const T* g, const T* p, const T* total,
                              T* out) {
  __shared__ T shared[kWide / kWarp];
  const std::int64_t row = team_row<kTeam>(), used = min(row, l.rows - 1);
  const T* const v = l.weights_of(used);
  T weight_sum = static_cast<T>(l.n);
  if (l.smoothing != T(0) && v) {
    weight_sum = T(0);
    for (std::int64_t i = threadIdx.x; i < l.n; i += kTeam) weight_sum += v[i];
    weight_sum = team_fold<kTeam>(weight_sum, Add(), shared);
  }
  if (row >= l.rows) return;
  const std::int64_t c = l.class_of(row), group = row / l.rows_per_group;
  T scale(0), hard(0);
  if (c >= 0) {
    scale = g[per_row ? row : group];
    if (total) scale /= total[group];
    hard = (T(1) - l.smoothing) * (v ? v[c] : T(1));
  }
  const T all = hard + l.each * weight_sum;
  for (std::int64_t i = threadIdx.x; i < l.n; i += kTeam) {
    const std::int64_t at = row * l.n + i;
    T d = all * p[at] - l.each * (v ? v[i] : T(1));
    if (i == c) d -= hard;
    out[at] = c >= 0 ? scale * d : T(0);
  }
}

template <class T>
const T* data(const Tensor& x) {
  return x.defined() ? static_cast<const T*>(x.raw()) : nullptr;
}
Tensor dense(const Tensor& x) { return x.defined() ? contiguous_on_device(x) : x; }

/// The arguments both passes share. `target` and `weight` are dense.
template <class T>
Loss<T> loss_of(const Tensor& target, const Tensor& weight, std::int64_t classes,
                const kernels::ClassLoss& o, const Work& work) {
  Loss<T> l;
  l.rows = target.numel();
  l.n = classes;
  l.rows_per_group =
      numel_of({target.sizes().data() + o.group_axes, target.sizes().size() - o.group_axes});
  l.ignored = o.ignore_index;
  l.smoothing = static_cast<T>(o.smoothing);
  l.each = l.smoothing / static_cast<T>(classes);
  l.target = data<std::int64_t>(target);
  l.weight = data<T>(weight);
  l.fault = index_fault(work);
  return l;
}

template <class T>
void loss_forward(Inputs in, Inputs out, const kernels::ClassLoss& o) {
  using kernels::ClassLoss;
  const Tensor logits = dense(in[0]), target = dense(in[1]), weight = dense(in[2]);
  const Work work(out[0].device());
  const Loss<T> l = loss_of<T>(target, weight, logits.size(-1), o, work);
  const bool reduces = o.reduction != ClassLoss::none, mean = o.reduction == ClassLoss::mean;
  const std::int64_t kept = reduces ? (mean ? 2 : 1) * l.rows : 0;
  const Scratch scratch(static_cast<std::size_t>(kept) * sizeof(T), work);
  T* const losses = reduces ? scratch.as<T>() : static_cast<T*>(out[0].raw());
  T* const weights = mean ? losses + l.rows : nullptr;
  if (l.rows > 0)
    with_team(l.rows, l.n, [&]<int kTeam>(dim3 grid, dim3 block) {
      launch(loss_rows<kTeam, T>, grid, block, work, l, data<T>(logits),
             static_cast<T*>(out[1].raw()), losses, weights);
    });
  const std::int64_t groups = reduces ? out[0].numel() : 0;
  if (groups == 0) return;
  launch(loss_groups<T>, static_cast<unsigned>(groups), kWide, work, l.rows_per_group,
         static_cast<const T*>(losses), static_cast<const T*>(weights),
         static_cast<T*>(out[0].raw()), mean ? static_cast<T*>(out[2].raw()) : nullptr);
}

template <class T>
void loss_backward(Inputs in, Inputs out, const kernels::ClassLoss& o) {
  const Tensor g = dense(in[0]), target = dense(in[1]), p = dense(in[2]), total = dense(in[3]),
               weight = dense(in[4]);
  if (p.numel() == 0) return;
  const Work work(out[0].device());
  const Loss<T> l = loss_of<T>(target, weight, p.size(-1), o, work);
  with_team(l.rows, l.n, [&]<int kTeam>(dim3 grid, dim3 block) {
    launch(loss_gradient<kTeam, T>, grid, block, work, l, o.reduction == kernels::ClassLoss::none,
           data<T>(g), data<T>(p), data<T>(total), static_cast<T*>(out[0].raw()));
  });
}

}  // namespace
}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

void softmax(Inputs in, Inputs out, const Attrs&) {
  tutti::cuda::run_rows<tutti::cuda::Row::softmax>(in, out);
}
void log_softmax(Inputs in, Inputs out, const Attrs&) {
  tutti::cuda::run_rows<tutti::cuda::Row::log_softmax>(in, out);
}
void softmax_grad(Inputs in, Inputs out, const Attrs&) {
  tutti::cuda::run_rows<tutti::cuda::Row::softmax_grad>(in, out);
}
void log_softmax_grad(Inputs in, Inputs out, const Attrs&) {
  tutti::cuda::run_rows<tutti::cuda::Row::log_softmax_grad>(in, out);
}

void cross_entropy(Inputs in, Inputs out, const Attrs& a) {
  if (out[1].dtype() == kFloat64)
    tutti::cuda::loss_forward<double>(in, out, ClassLoss(a));
  else
    tutti::cuda::loss_forward<float>(in, out, ClassLoss(a));
}
void cross_entropy_grad(Inputs in, Inputs out, const Attrs& a) {
  if (out[0].dtype() == kFloat64)
    tutti::cuda::loss_backward<double>(in, out, ClassLoss(a));
  else
    tutti::cuda::loss_backward<float>(in, out, ClassLoss(a));
}

}  // namespace tutti::kernels::cuda
