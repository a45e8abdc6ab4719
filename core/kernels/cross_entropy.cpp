// Cross entropy with class indices. The forward pass shifts a block of rows, takes the exponentials
// of the block in one loop, since rows may be short, and finishes the rows. Sums over rows are made
// afterwards from one number per row, in an order that depends on the number of rows only.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include <tutti/core/kernels/cross_entropy.h>
#include <tutti/core/kernels/exp_rows.h>
#include <tutti/core/kernels/lines.h>

namespace tutti::kernels {
namespace {

constexpr std::int64_t most_rows = 64;       // of a block
constexpr std::int64_t block_length = 1024;  // elements of a block, unless one row has more

/// Strides along `rank` axes of x, which has the leading ones only.
Shape repeated(const Tensor& x, std::size_t rank) {
  Shape s = x.defined() ? x.strides().shape() : Shape();
  s.resize(rank, 0);
  return s;
}

/// The same for a weight [groups..., classes].
Shape repeated_weight(const Tensor& weight, std::size_t rank) {
  if (!weight.defined()) return Shape(rank, 0);
  Shape s = weight.strides().shape();
  const std::int64_t last = s.back();
  s.back() = 0;
  s.resize(rank, 0);
  s.back() = last;
  return s;
}

template <class T>
T* data(const Tensor& x) {
  return x.defined() ? static_cast<T*>(x.raw()) : nullptr;
}

/// The sum of the elements, in blocks that are added in pairs.
template <class T>
T sum_in_pairs(const T* x, std::int64_t n) {
  constexpr std::int64_t block = 512;
  if (n <= block) return fold::run<fold::Sum<T>>(x, n, 1);
  const std::int64_t half = (n / 2 + block - 1) / block * block;
  return sum_in_pairs(x, half) + sum_in_pairs(x + half, n - half);
}

/// x[i] = e^x[i].
template <class T>
void exps(T* x, std::int64_t n) {
  const scalar::Exp exp;
  for (std::int64_t i = 0; i < n; ++i) x[i] = exp(x[i]);
}

/// What is known of a row before its exponentials are.
template <class T>
struct Row {
  bool counts;
  T weight;      // of its target
  T shifted;     // logit of the target - m
  T spread;      // sum of w (m - logit) over all classes
  T all_weight;  // sum of w
};

template <class T>
void forward(Inputs in, Inputs out, const ClassLoss& o) {
  const Tensor &logits = in[0], &p = out[1];
  const std::size_t rank = logits.sizes().size(), last = rank - 1;
  const std::int64_t n = logits.sizes()[last];
  const Shape target_strides = repeated(in[1], rank), w_strides = repeated_weight(in[2], rank);
  const Lines<3> lines(logits.sizes(), last, {logits.strides(), target_strides, w_strides});
  const T* const x = data<T>(logits);
  const auto* const target = data<std::int64_t>(in[1]);
  const T* const w = data<T>(in[2]);
  T* const y = data<T>(p);
  const std::int64_t step = logits.strides()[last], w_step = w_strides[last];
  const T smoothing = static_cast<T>(o.smoothing), each = smoothing / static_cast<T>(n);

  const std::int64_t rows = in[1].numel();
  const bool reduces = o.reduction != ClassLoss::none, mean = o.reduction == ClassLoss::mean;
  const auto scratch = std::make_unique_for_overwrite<T[]>(
      static_cast<std::size_t>(reduces ? (mean ? 2 * rows : rows) : 0));
  T* const losses = reduces ? scratch.get() : data<T>(out[0]);
  T* const weights = mean ? losses + rows : nullptr;

  const auto look = [&](const std::array<std::int64_t, 3>& at, T* to) {
    Row<T> row{};
    const T* const from = x + at[0];
    const T m = shift_of(from, n, step);
    const std::int64_t t = target[at[1]];
    row.counts = t != o.ignore_index;
    if (row.counts) {
      const T* const v = w ? w + at[2] : nullptr;
      row.weight = v ? v[t * w_step] : T(1);
      row.shifted = from[t * step] - m;
      if (o.smoothing > 0) {
        row.all_weight = v ? fold::run<fold::Sum<T>>(v, n, w_step) : static_cast<T>(n);
        for (std::int64_t i = 0; i < n; ++i)
          to[i] = (m - from[i * step]) * (v ? v[i * w_step] : T(1));
        row.spread = fold::run<fold::Sum<T>>(to, n, 1);
      }
    }
    if (step == 1)
      for (std::int64_t i = 0; i < n; ++i) to[i] = from[i] - m;
    else
      for (std::int64_t i = 0; i < n; ++i) to[i] = from[i * step] - m;
    return row;
  };
  const auto finish = [&](const Row<T>& row, T* to) {
    const T total = fold::run<fold::Sum<T>>(to, n, 1), scale = T(1) / total;
    for (std::int64_t i = 0; i < n; ++i) to[i] *= scale;
    if (!row.counts) return T(0);
    const T log_total = std::log(total);
    const T hard = (log_total - row.shifted) * row.weight;
    if (o.smoothing == 0) return hard;
    return (1 - smoothing) * hard + each * (row.all_weight * log_total + row.spread);
  };

  const std::int64_t block =
      std::clamp<std::int64_t>(block_length / std::max<std::int64_t>(n, 1), 1, most_rows);
  const std::int64_t grain = kCheapGrain / std::max<std::int64_t>(1, 8 * n);
  const auto work = [&](std::int64_t begin, std::int64_t end) {
    std::array<Row<T>, most_rows> info;
    for (std::int64_t r = begin; r < end; r += block) {
      const std::int64_t stop = std::min(end, r + block);
      T* to = y + r * n;
      std::size_t k = 0;
      lines.walk(r, stop, [&](const std::array<std::int64_t, 3>& at) {
        info[k] = look(at, to + static_cast<std::int64_t>(k) * n);
        ++k;
      });
      exps(to, (stop - r) * n);
      for (k = 0; k < static_cast<std::size_t>(stop - r); ++k, to += n) {
        const std::size_t i = static_cast<std::size_t>(r) + k;
        losses[i] = finish(info[k], to);
        if (weights) weights[i] = info[k].counts ? info[k].weight : T(0);
      }
    }
  };
  parallel_for(lines.count(), std::max<std::int64_t>(1, grain), work);

  const std::int64_t groups = reduces ? out[0].numel() : 0;
  if (groups == 0) return;
  const std::int64_t each_rows = rows / groups;
  T* const loss = data<T>(out[0]);
  T* const total = mean ? data<T>(out[2]) : nullptr;
  const auto add_up = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t g = begin; g < end; ++g) {
      loss[g] = sum_in_pairs(losses + g * each_rows, each_rows);
      if (!mean) continue;
      total[g] = sum_in_pairs(weights + g * each_rows, each_rows);
      loss[g] /= total[g];
    }
  };
  parallel_for(groups, kCheapGrain / (2 * each_rows + 1) + 1, add_up);
}

template <class T>
void backward(Inputs in, Inputs out, const ClassLoss& o) {
  const Tensor& p = in[2];
  const std::size_t rank = p.sizes().size(), last = rank - 1;
  const std::int64_t n = p.sizes()[last];
  const Shape g_strides = repeated(in[0], rank), target_strides = repeated(in[1], rank),
              total_strides = repeated(in[3], rank), w_strides = repeated_weight(in[4], rank);
  const Lines<6> lines(
      p.sizes(), last,
      {g_strides, target_strides, p.strides(), total_strides, w_strides, out[0].strides()});
  const T *const g = data<T>(in[0]), *const y = data<T>(p), *const total = data<T>(in[3]),
                 *const w = data<T>(in[4]);
  const auto* const target = data<std::int64_t>(in[1]);
  T* const result = data<T>(out[0]);
  const std::int64_t step = p.strides()[last], w_step = w_strides[last];
  const T smoothing = static_cast<T>(o.smoothing), each = smoothing / static_cast<T>(n);

  lines.parallel(2, [&](const std::array<std::int64_t, 6>& at) {
    const std::int64_t t = target[at[1]];
    const T* const from = y + at[2];
    T* const to = result + at[5];
    if (t == o.ignore_index) {
      std::fill(to, to + n, T(0));
      return;
    }
    const T* const v = w ? w + at[4] : nullptr;
    const T scale = total ? g[at[0]] / total[at[3]] : g[at[0]];
    const T weight = v ? v[t * w_step] : T(1);
    if (o.smoothing == 0) {
      const T by = scale * weight;
      if (step == 1)
        for (std::int64_t i = 0; i < n; ++i) to[i] = by * from[i];
      else
        for (std::int64_t i = 0; i < n; ++i) to[i] = by * from[i * step];
      to[t] = by * (from[t * step] - T(1));
      return;
    }
    const T hard = (1 - smoothing) * weight;
    const T all = hard + each * (v ? fold::run<fold::Sum<T>>(v, n, w_step) : static_cast<T>(n));
    for (std::int64_t i = 0; i < n; ++i)
      to[i] = scale * (all * from[i * step] - each * (v ? v[i * w_step] : T(1)));
    to[t] = scale * (all * from[t * step] - each * weight - hard);
  });
}

}  // namespace

void cross_entropy(Inputs in, Inputs out, const Attrs& a) {
  with_float(out[1].dtype(), [&]<class T>() { forward<T>(in, out, ClassLoss(a)); });
}

void cross_entropy_grad(Inputs in, Inputs out, const Attrs& a) {
  with_float(out[0].dtype(), [&]<class T>() { backward<T>(in, out, ClassLoss(a)); });
}

}  // namespace tutti::kernels
