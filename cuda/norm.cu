// Layer norm and batch norm with their gradients, see core/kernels/norm.h. The rows of layer norm
// have a team of threads each. The channels of batch norm, and the sums over rows for the gradients
// of weights, are worked on by blocks of lanes and slots (seats.cuh): one kernel takes the
// statistics and writes the result. Where segments are needed, their shares are put together by a
// second kernel, always in the same order, and a third one writes the result. Variances are taken
// in two passes, as on the CPU.
#include <algorithm>
#include <array>
#include <cmath>

#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/norm.h>
#include <tutti/cuda/layout.h>
#include <tutti/cuda/seats.cuh>
#include <tutti/cuda/team.cuh>

namespace tutti::cuda {
namespace {

using kernels::Norm;

struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

/// Two numbers that are added up side by side.
template <class T>
struct Two {
  T a, b;
  __device__ Two operator+(const Two& o) const { return {a + o.a, b + o.b}; }
};

template <class T>
__device__ __forceinline__ T deviation(T var, T eps) {
  return std::sqrt(var + eps);
}
/// The number of `place`, or 1 (0) where there is no such operand.
template <class T>
__device__ __forceinline__ T weight_at(const T* w, std::int64_t place) {
  return w ? w[place] : T(1);
}
template <class T>
__device__ __forceinline__ T bias_at(const T* b, std::int64_t place) {
  return b ? b[place] : T(0);
}

template <class T>
T* data(const Tensor& x) {
  return x.defined() ? static_cast<T*>(x.raw()) : nullptr;
}

/// The product of sizes from..to.
std::int64_t product(IntArrayRef sizes, std::size_t from, std::size_t to) {
  std::int64_t n = 1;
  for (std::size_t d = from; d < to; ++d) n *= sizes[d];
  return n;
}
FastDivision by(std::int64_t n) {
  return FastDivision(static_cast<std::uint32_t>(std::max<std::int64_t>(n, 1)));
}

/// N operands (all but the first may be undefined) whose groups are row-major blocks, copied unless
/// they already are; the groups themselves may lie anywhere, so that one that all share is not
/// repeated.
template <std::size_t N>
class Groups {
 public:
  Groups(const std::array<Tensor, N>& operands, std::size_t axes, const char* op) : x_(operands) {
    for (Tensor& x : x_)
      if (x.defined() && !is_block(x, axes)) x = contiguous_on_device(x);
    if (!place(axes)) {
      for (Tensor& x : x_)
        if (x.defined()) x = contiguous_on_device(x);
      place(axes);
    }
    check<NotImplementedError>(x_[0].numel() <= kMostElements, op,
                               "expected fewer than 2^31 elements, got shape ", x_[0].sizes(),
                               "; work in parts");
  }
  /// Where the groups of each operand begin.
  const Layout<N>& layout() const { return layout_; }
  template <class T>
  const T* data(std::size_t k) const {
    return cuda::data<const T>(x_[k]);
  }

 private:
  static bool is_block(const Tensor& x, std::size_t axes) {
    std::int64_t stride = 1;
    for (std::size_t d = x.sizes().size(); d-- > axes; stride *= x.sizes()[d])
      if (x.sizes()[d] != 1 && x.strides()[d] != stride) return false;
    return true;
  }
  bool place(std::size_t axes) {
    Axes<N> groups;
    for (std::size_t d = axes; d-- > 0;) {
      std::array<std::int64_t, N> strides{};
      for (std::size_t k = 0; k < N; ++k)
        if (x_[k].defined()) strides[k] = x_[k].strides()[d];
      groups.add(x_[0].sizes()[d], strides);
    }
    groups.merge();
    if (!groups.fits()) return false;
    layout_ = groups.layout();
    return true;
  }

  std::array<Tensor, N> x_;
  Layout<N> layout_;
};

// ---- rows of layer norm

/// Groups of `rows` rows of n elements.
struct Rows {
  std::int64_t all, n;
  FastDivision rows;
  Rows(IntArrayRef sizes, std::size_t axes)
      : all(product(sizes, 0, sizes.size() - 1)),
        n(sizes.back()),
        rows(by(product(sizes, axes, sizes.size() - 1))) {}
};

/// Rows past the last one are worked on, too, so that all threads meet at the barriers: as the last
/// one, unwritten.
template <int kTeam, class T>
__global__ void normalise_rows(const Rows r, const __grid_constant__ Layout<3> groups, T eps,
                               const T* x, const T* w, const T* b, T* y, T* mean, T* rstd) {
  __shared__ T shared[kWide / kWarp];
  const std::int64_t row = team_row<kTeam>(), used = min(row, r.all - 1);
  const unsigned group = r.rows.quotient(static_cast<unsigned>(used));
  std::int32_t at[3];
  groups.find(group, at);
  x += at[0] + (used - std::int64_t{group} * r.rows.divisor) * r.n;
  T sum(0), squares(0);
  for (std::int64_t i = threadIdx.x; i < r.n; i += kTeam) sum += x[i];
  const T m = team_fold<kTeam>(sum, Add(), shared) / static_cast<T>(r.n);
  for (std::int64_t i = threadIdx.x; i < r.n; i += kTeam) squares += (x[i] - m) * (x[i] - m);
  const T s = T(1) / deviation(team_fold<kTeam>(squares, Add(), shared) / static_cast<T>(r.n), eps);
  if (row >= r.all) return;
  if (threadIdx.x == 0) {
    mean[row] = m;
    rstd[row] = s;
  }
  for (std::int64_t i = threadIdx.x; i < r.n; i += kTeam)
    y[row * r.n + i] = (x[i] - m) * s * weight_at(w, at[1] + i) + bias_at(b, at[2] + i);
}

/// dx from {g, x, mean, 1 / deviation, weight}.
template <int kTeam, class T>
__global__ void rows_gradient(const Rows r, const __grid_constant__ Layout<5> groups, const T* g,
                              const T* x, const T* mean, const T* rstd, const T* w, T* dx) {
  __shared__ T shared[kWide / kWarp];
  const std::int64_t row = team_row<kTeam>(), used = min(row, r.all - 1);
  const unsigned group = r.rows.quotient(static_cast<unsigned>(used));
  const std::int64_t in_group = used - std::int64_t{group} * r.rows.divisor;
  std::int32_t at[5];
  groups.find(group, at);
  g += at[0] + in_group * r.n;
  x += at[1] + in_group * r.n;
  const T m = mean[at[2] + in_group], s = rstd[at[3] + in_group];
  // Sums of the gradient of the normalised row, and of that times the row.
  T sum(0), products(0);
  for (std::int64_t i = threadIdx.x; i < r.n; i += kTeam) {
    const T h = g[i] * weight_at(w, at[4] + i);
    sum += h;
    products += h * ((x[i] - m) * s);
  }
  sum = team_fold<kTeam>(sum, Add(), shared) / static_cast<T>(r.n);
  products = team_fold<kTeam>(products, Add(), shared) / static_cast<T>(r.n);
  if (row >= r.all) return;
  for (std::int64_t i = threadIdx.x; i < r.n; i += kTeam)
    dx[row * r.n + i] = s * (g[i] * weight_at(w, at[4] + i) - sum - (x[i] - m) * s * products);
}

// ---- channels: a group is [samples, channels, length]; for the weights of layer norm its rows are
// samples and each element of a row is a channel

struct Batch {
  FastDivision channels, length;
  unsigned results;   // channels of all groups
  unsigned count;     // values of a channel
  unsigned columns;   // channels * length
  unsigned elements;  // of a group
  unsigned segments, per_segment;
  bool along_x;
};

struct BatchLaunch {
  Batch batch;
  dim3 grid, block;

  BatchLaunch(std::int64_t groups, std::int64_t samples, std::int64_t channels,
              std::int64_t length) {
    batch.channels = by(channels);
    batch.length = by(length);
    batch.results = static_cast<unsigned>(groups * channels);
    batch.count = static_cast<unsigned>(samples * length);
    batch.columns = static_cast<unsigned>(channels * length);
    batch.elements = static_cast<unsigned>(samples * channels * length);
    batch.along_x = length > 1 || channels == 1;
    const Seating seating(batch.results, batch.count, batch.along_x);
    batch.segments = seating.segments;
    batch.per_segment = seating.per_segment;
    grid = seating.grid;
    block = seating.block;
  }
  /// Of a batch [groups..., N, C] or [groups..., N, C, L].
  static BatchLaunch of(IntArrayRef sizes, std::size_t axes) {
    return {product(sizes, 0, axes), sizes[axes], sizes[axes + 1],
            product(sizes, axes + 2, sizes.size())};
  }
};

/// The channel of a thread's slot, and which of the channel's values are its lane's. Slots past the
/// last channel do the same as that, unwritten.
struct Share {
  unsigned result, group, channel, first, begin, end, step;
  __device__ Share(const Batch& b, const Seat& seat) {
    result = blockIdx.x * seat.slots + seat.slot;
    const unsigned used = min(result, b.results - 1);
    group = b.channels.quotient(used);
    channel = used - group * b.channels.divisor;
    first = channel * b.length.divisor;
    begin = blockIdx.y * b.per_segment + seat.lane;
    end = min(b.count, (blockIdx.y + 1) * b.per_segment);
    step = seat.lanes;
  }
  /// Where value i of the channel stands in its group.
  __device__ unsigned at(const Batch& b, unsigned i) const {
    const unsigned sample = b.length.quotient(i);
    return sample * b.columns + first + (i - sample * b.length.divisor);
  }
  /// The sum of term(i) over the values of the lane.
  template <class A, class F>
  __device__ A sum(const F& term) const {
    A total{};
    for (unsigned i = begin; i < end;) {
      A run{};
      for (unsigned k = 0; k < kRun && i < end; ++k, i += step) run = run + term(i);
      total = total + run;
    }
    return total;
  }
};

/// Mean, variance and the normalised x of {x, weight, bias}; with `partial`, the mean and the sum
/// of squares of each segment only.
template <class T>
__global__ void normalise_channels(const __grid_constant__ Batch b,
                                   const __grid_constant__ Layout<3> groups, T eps, const T* x,
                                   const T* w, const T* bias, T* y, T* mean, T* var,
                                   Two<T>* partial) {
  __shared__ T shared[kBlock];
  const Seat seat(b.along_x);
  const Share s(b, seat);
  std::int32_t at[3];
  groups.find(s.group, at);
  x += at[0];
  const T count = static_cast<T>(min(b.count - blockIdx.y * b.per_segment, b.per_segment));
  const T sum = s.template sum<T>([&](unsigned i) { return x[s.at(b, i)]; });
  const T m = fold_lanes(seat, sum, shared, Add()) / count;
  const T squares = s.template sum<T>([&](unsigned i) {
    const T d = x[s.at(b, i)] - m;
    return d * d;
  });
  const T all = fold_lanes(seat, squares, shared, Add());
  if (s.result >= b.results) return;
  if (partial) {
    if (seat.lane == 0) partial[blockIdx.y * b.results + s.result] = {m, all};
    return;
  }
  const T v = all / count;
  if (seat.lane == 0) {
    mean[s.result] = m;
    var[s.result] = v;
  }
  const T scale = T(1) / deviation(v, eps) * weight_at(w, at[1] + s.channel);
  const T shift = bias_at(bias, at[2] + s.channel);
  y += std::int64_t{s.group} * b.elements;
  for (unsigned i = s.begin; i < s.end; i += s.step) {
    const unsigned place = s.at(b, i);
    y[place] = (x[place] - m) * scale + shift;
  }
}

/// Mean and variance of a channel from the means and squares of its segments.
template <class T>
__global__ void fold_moments(const __grid_constant__ Batch b, const Two<T>* partial, T* mean,
                             T* var) {
  const unsigned result = blockIdx.x * blockDim.x + threadIdx.x;
  if (result >= b.results) return;
  const auto values = [&](unsigned segment) {
    return static_cast<T>(min(b.count - segment * b.per_segment, b.per_segment));
  };
  const T count = static_cast<T>(b.count);
  T sum(0), squares(0);
  for (unsigned i = 0; i < b.segments; ++i) sum += partial[i * b.results + result].a * values(i);
  const T m = sum / count;
  for (unsigned i = 0; i < b.segments; ++i) {
    const Two<T> part = partial[i * b.results + result];
    squares += part.b + (part.a - m) * (part.a - m) * values(i);
  }
  mean[result] = m;
  var[result] = squares / count;
}

/// dx, dw and db (each may be null) from {g, x, mean, spread, weight}: of the channels of batch
/// norm, with the variance as spread; or kRows: dw and db of layer norm, whose samples have a mean
/// and a spread, 1 / deviation. With `partial`, the sums of each segment only.
template <bool kRows, class T>
__global__ void weight_gradients(const __grid_constant__ Batch b,
                                 const __grid_constant__ Layout<5> groups, bool given, T eps,
                                 const T* g, const T* x, const T* mean, const T* spread, const T* w,
                                 T* dx, T* dw, T* db, Two<T>* partial) {
  __shared__ Two<T> shared[kBlock];
  const Seat seat(b.along_x);
  const Share s(b, seat);
  std::int32_t at[5];
  groups.find(s.group, at);
  g += at[0];
  x += at[1];
  mean += at[2];
  spread += at[3];
  const T m = kRows ? T(0) : mean[s.channel];
  const T rstd = kRows ? T(1) : T(1) / deviation(spread[s.channel], eps);
  const Two<T> sum = s.template sum<Two<T>>([&](unsigned i) -> Two<T> {
    const unsigned place = s.at(b, i);
    const T d = kRows ? (x[place] - mean[i]) * spread[i] : x[place] - m;
    return {g[place], g[place] * d};
  });
  Two<T> all = fold_lanes(seat, sum, shared, Add());
  all.b *= rstd;
  if (s.result >= b.results) return;
  if (seat.lane == 0) {
    if (partial) partial[blockIdx.y * b.results + s.result] = all;
    if (!partial && db) db[s.result] = all.a;
    if (!partial && dw) dw[s.result] = all.b;
  }
  if (kRows || partial || !dx) return;
  const T count = static_cast<T>(b.count), scale = rstd * weight_at(w, at[4] + s.channel);
  const T d = all.a / count, e = all.b / count * rstd;
  dx += std::int64_t{s.group} * b.elements;
  for (unsigned i = s.begin; i < s.end; i += s.step) {
    const unsigned place = s.at(b, i);
    dx[place] = given ? scale * g[place] : scale * (g[place] - d - (x[place] - m) * e);
  }
}

/// The sums of all segments: db, dw (each may be null), and both over the count, where wanted.
template <class T>
__global__ void fold_gradients(const __grid_constant__ Batch b, const Two<T>* partial, T* dw, T* db,
                               Two<T>* means) {
  const unsigned result = blockIdx.x * blockDim.x + threadIdx.x;
  if (result >= b.results) return;
  Two<T> all{};
  for (unsigned i = 0; i < b.segments; ++i) all = all + partial[i * b.results + result];
  if (db) db[result] = all.a;
  if (dw) dw[result] = all.b;
  const T count = static_cast<T>(b.count);
  if (means) means[result] = {all.a / count, all.b / count};
}

// ---- elementwise, where the numbers of each channel are known

constexpr unsigned kEach = 8;  // elements of a thread: one column of so many samples

/// A thread's share of a group's samples: every `stride`-th element from its first one on.
struct Walk {
  FastDivision threads, columns, length;  // threads per group
  unsigned all, elements, stride;         // threads; elements of a group
  Walk(std::int64_t groups, std::int64_t samples, std::int64_t channels, std::int64_t n) {
    const std::int64_t chunks = (samples + kEach - 1) / kEach;
    stride = static_cast<unsigned>(chunks * channels * n);
    threads = by(stride);
    columns = by(channels * n);
    length = by(n);
    all = static_cast<unsigned>(groups * stride);
    elements = static_cast<unsigned>(samples * channels * n);
  }
  static Walk of(IntArrayRef sizes, std::size_t axes) {
    return {product(sizes, 0, axes), sizes[axes], sizes[axes + 1],
            product(sizes, axes + 2, sizes.size())};
  }
};

struct Column {
  unsigned group, first, channel;
  __device__ Column(const Walk& w, unsigned thread) {
    group = w.threads.quotient(thread);
    first = thread - group * w.threads.divisor;
    channel = w.length.quotient(first - w.columns.quotient(first) * w.columns.divisor);
  }
};

/// y from {x, mean, variance, weight, bias}.
template <class T>
__global__ void normalise_columns(const __grid_constant__ Walk walk,
                                  const __grid_constant__ Layout<5> groups, T eps, const T* x,
                                  const T* mean, const T* var, const T* w, const T* b, T* y) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= walk.all) return;
  const Column c(walk, thread);
  std::int32_t at[5];
  groups.find(c.group, at);
  x += at[0];
  y += std::int64_t{c.group} * walk.elements;
  const T m = mean[at[1] + c.channel], shift = bias_at(b, at[4] + c.channel);
  const T scale = T(1) / deviation(var[at[2] + c.channel], eps) * weight_at(w, at[3] + c.channel);
  for (unsigned i = c.first; i < walk.elements; i += walk.stride) y[i] = (x[i] - m) * scale + shift;
}

/// dx from {g, x, mean, variance, weight} and what fold_gradients leaves for each channel; without
/// that, of statistics that were given.
template <class T>
__global__ void columns_gradient(const __grid_constant__ Walk walk,
                                 const __grid_constant__ Layout<5> groups, unsigned channels, T eps,
                                 const T* g, const T* x, const T* mean, const T* var, const T* w,
                                 const Two<T>* means, T* dx) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= walk.all) return;
  const Column c(walk, thread);
  std::int32_t at[5];
  groups.find(c.group, at);
  g += at[0];
  dx += std::int64_t{c.group} * walk.elements;
  const T rstd = T(1) / deviation(var[at[3] + c.channel], eps);
  const T scale = rstd * weight_at(w, at[4] + c.channel);
  if (!means) {
    for (unsigned i = c.first; i < walk.elements; i += walk.stride) dx[i] = scale * g[i];
    return;
  }
  x += at[1];
  const T m = mean[at[2] + c.channel];
  const Two<T> of = means[c.group * channels + c.channel];
  const T d = of.a, e = of.b * rstd;
  for (unsigned i = c.first; i < walk.elements; i += walk.stride)
    dx[i] = scale * (g[i] - d - (x[i] - m) * e);
}

// ---- the ops

/// Launches for `threads` threads, if there are any.
template <class... P, class... A>
void launch_flat(void (*kernel)(P...), unsigned threads, const Work& work, const A&... args) {
  if (threads == 0) return;
  const unsigned block = block_for(threads);
  launch(kernel, blocks_for(threads, block), block, work, args...);
}

template <class T>
void layer_norm_of(Inputs in, Inputs out, const Norm& o) {
  if (out[1].numel() == 0) return;
  const Groups<3> v({in[0], in[1], in[2]}, o.group_axes, "layer_norm");
  const Rows rows(in[0].sizes(), o.group_axes);
  const Work work(out[0].device());
  with_team(rows.all, rows.n, [&]<int kTeam>(dim3 grid, dim3 block) {
    launch(normalise_rows<kTeam, T>, grid, block, work, rows, v.layout(), static_cast<T>(o.eps),
           v.template data<T>(0), v.template data<T>(1), v.template data<T>(2), data<T>(out[0]),
           data<T>(out[1]), data<T>(out[2]));
  });
}

/// The gradients that are wanted.
template <class T>
struct Wanted {
  T *x = nullptr, *weight = nullptr, *bias = nullptr;
  Wanted(Inputs out, std::uint32_t flags) {
    std::size_t k = 0;
    if (flags & Norm::wants_x) x = data<T>(out[k++]);
    if (flags & Norm::wants_weight) weight = data<T>(out[k++]);
    if (flags & Norm::wants_bias) bias = data<T>(out[k++]);
  }
};

/// Sums of segments that come and go with a call.
template <class T>
struct Partial {
  Scratch memory;
  Two<T>* sums;
  Partial(const Batch& b, const Work& work)
      : memory(b.segments > 1 ? std::size_t{b.segments} * b.results * sizeof(Two<T>) : 0, work),
        sums(b.segments > 1 ? memory.template as<Two<T>>() : nullptr) {}
};

template <class T>
void layer_norm_grad_of(Inputs in, Inputs out, const Norm& o) {
  const IntArrayRef sizes = in[1].sizes();
  if (product(sizes, 0, o.group_axes) == 0) return;
  const Wanted<T> to(out, o.flags);
  const Groups<5> v({in[0], in[1], in[2], in[3], in[4]}, o.group_axes, "layer_norm");
  const T *const g = v.template data<T>(0), *const x = v.template data<T>(1),
                 *const mean = v.template data<T>(2), *const rstd = v.template data<T>(3),
                 *const w = v.template data<T>(4);
  const Rows rows(sizes, o.group_axes);
  const Work work(out[0].device());
  if (to.x && in[1].numel() > 0)
    with_team(rows.all, rows.n, [&]<int kTeam>(dim3 grid, dim3 block) {
      launch(rows_gradient<kTeam, T>, grid, block, work, rows, v.layout(), g, x, mean, rstd, w,
             to.x);
    });
  if (!to.weight && !to.bias) return;
  const BatchLaunch l(product(sizes, 0, o.group_axes),
                      product(sizes, o.group_axes, sizes.size() - 1), rows.n, 1);
  if (l.batch.results == 0) return;
  const Partial<T> partial(l.batch, work);
  launch(weight_gradients<true, T>, l.grid, l.block, work, l.batch, v.layout(), false, T(0), g, x,
         mean, rstd, w, static_cast<T*>(nullptr), to.weight, to.bias, partial.sums);
  if (partial.sums)
    launch_flat(fold_gradients<T>, l.batch.results, work, l.batch, partial.sums, to.weight, to.bias,
                static_cast<Two<T>*>(nullptr));
}

/// in = {x, mean, variance, weight, bias}.
template <class T>
void eval(const std::array<Tensor, 5>& in, const Tensor& y, const Norm& o) {
  if (y.numel() == 0) return;
  const Walk walk = Walk::of(y.sizes(), o.group_axes);
  const Groups<5> v(in, o.group_axes, "batch_norm");
  launch_flat(normalise_columns<T>, walk.all, Work(y.device()), walk, v.layout(),
              static_cast<T>(o.eps), v.template data<T>(0), v.template data<T>(1),
              v.template data<T>(2), v.template data<T>(3), v.template data<T>(4), data<T>(y));
}

template <class T>
void train(Inputs in, Inputs out, const Norm& o) {
  const BatchLaunch l = BatchLaunch::of(in[0].sizes(), o.group_axes);
  if (l.batch.results == 0) return;
  const Groups<3> v({in[0], in[1], in[2]}, o.group_axes, "batch_norm");
  const Work work(out[0].device());
  const Partial<T> partial(l.batch, work);
  launch(normalise_channels<T>, l.grid, l.block, work, l.batch, v.layout(), static_cast<T>(o.eps),
         v.template data<T>(0), v.template data<T>(1), v.template data<T>(2), data<T>(out[0]),
         data<T>(out[1]), data<T>(out[2]), partial.sums);
  if (!partial.sums) return;
  launch_flat(fold_moments<T>, l.batch.results, work, l.batch, partial.sums, data<T>(out[1]),
              data<T>(out[2]));
  eval<T>({in[0], out[1], out[2], in[1], in[2]}, out[0], o);
}

template <class T>
void batch_norm_grad_of(Inputs in, Inputs out, const Norm& o) {
  const BatchLaunch l = BatchLaunch::of(in[1].sizes(), o.group_axes);
  if (l.batch.results == 0) return;
  const Groups<5> v({in[0], in[1], in[2], in[3], in[4]}, o.group_axes, "batch_norm");
  const T *const g = v.template data<T>(0), *const x = v.template data<T>(1),
                 *const mean = v.template data<T>(2), *const var = v.template data<T>(3),
                 *const w = v.template data<T>(4);
  const bool given = o.flags & Norm::given;
  const Wanted<T> to(out, o.flags);
  const T eps = static_cast<T>(o.eps);
  const Work work(out[0].device());
  const Partial<T> partial(l.batch, work);
  const bool sums = to.weight || to.bias || !given;
  if (sums)
    launch(weight_gradients<false, T>, l.grid, l.block, work, l.batch, v.layout(), given, eps, g, x,
           mean, var, w, to.x, to.weight, to.bias, partial.sums);
  if (sums && !partial.sums) return;
  const bool means = to.x && !given;
  const Scratch memory(means ? l.batch.results * sizeof(Two<T>) : 0, work);
  Two<T>* const of = means ? memory.as<Two<T>>() : nullptr;
  if (sums)
    launch_flat(fold_gradients<T>, l.batch.results, work, l.batch, partial.sums, to.weight, to.bias,
                of);
  if (!to.x) return;
  const Walk walk = Walk::of(in[1].sizes(), o.group_axes);
  launch_flat(columns_gradient<T>, walk.all, work, walk, v.layout(), l.batch.channels.divisor, eps,
              g, x, mean, var, w, of, to.x);
}

}  // namespace
}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

#define TUTTI_NORM(name, f)                          \
  void name(Inputs in, Inputs out, const Attrs& a) { \
    if (in[0].dtype() == kFloat64)                   \
      tutti::cuda::f<double>(in, out, Norm(a));      \
    else                                             \
      tutti::cuda::f<float>(in, out, Norm(a));       \
  }
TUTTI_NORM(layer_norm, layer_norm_of)
TUTTI_NORM(layer_norm_grad, layer_norm_grad_of)
TUTTI_NORM(batch_norm_train, train)
TUTTI_NORM(batch_norm_grad, batch_norm_grad_of)
#undef TUTTI_NORM

void batch_norm_eval(Inputs in, Inputs out, const Attrs& a) {
  const std::array<Tensor, 5> v = {in[0], in[1], in[2], in[3], in[4]};
  if (in[0].dtype() == kFloat64)
    tutti::cuda::eval<double>(v, out[0], Norm(a));
  else
    tutti::cuda::eval<float>(v, out[0], Norm(a));
}

}  // namespace tutti::kernels::cuda
