// Cross entropy with class indices. Both passes take a block of rows at a time: first the work on
// whole rows (vector_math.h), then what each row needs of its target. Sums over rows are made
// afterwards from one number per row, in an order that depends on the number of rows only.
#include <algorithm>
#include <array>
#include <memory>

#include <tutti/core/kernels/cross_entropy.h>
#include <tutti/core/kernels/lines.h>
#include <tutti/core/kernels/reduce.h>
#include <tutti/core/kernels/vector_math.h>

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

/// Rows taken at a time.
std::int64_t block_rows(std::int64_t n) {
  return std::clamp<std::int64_t>(block_length / std::max<std::int64_t>(n, 1), 1, most_rows);
}

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
  const std::int64_t kept = reduces ? (mean ? 2 * rows : rows) : 0;
  const Ptr<Storage> scratch =  // from the cache of memory
      Storage::make(static_cast<std::size_t>(kept) * sizeof(T), Device());
  T* const losses = reduces ? reinterpret_cast<T*>(scratch->data()) : data<T>(out[0]);
  T* const weights = mean ? losses + rows : nullptr;

  const RowKernels<T>& kernels = row_kernels<T>();
  const bool contiguous = logits.is_contiguous();
  // The loss of a row at `from` whose softmax shifted it by m and divided it by e^log_total.
  const auto loss_of = [&](const T* from, std::int64_t t, const T* v, T m, T log_total) {
    const T hard = (log_total - (from[t * step] - m)) * (v ? v[t * w_step] : T(1));
    if (o.smoothing == 0) return hard;
    const T weight = v ? fold::run<fold::Sum<T>>(v, n, w_step) : static_cast<T>(n);
    const T spread = fold::sum_of<T>(
        n, [=](std::int64_t i) { return (m - from[i * step]) * (v ? v[i * w_step] : T(1)); });
    return (1 - smoothing) * hard + each * (weight * log_total + spread);
  };

  const std::int64_t block = block_rows(n);
  const std::int64_t grain = kCheapGrain / std::max<std::int64_t>(1, 8 * n);
  const auto work = [&](std::int64_t begin, std::int64_t end) {
    std::array<T, most_rows> shift, total;
    for (std::int64_t r = begin; r < end; r += block) {
      const std::int64_t stop = std::min(end, r + block);
      const T* from = x + r * n;
      T* const to = y + r * n;
      if (!contiguous) {
        T* row = to;
        lines.walk(r, stop, [&](const std::array<std::int64_t, 3>& at) {
          for (std::int64_t i = 0; i < n; ++i) row[i] = x[at[0] + i * step];
          row += n;
        });
        from = to;
      }
      if (n > 0) {
        kernels.softmax({from, nullptr, to, n, stop - r, shift.data(), total.data()});
      } else {
        shift.fill(T(0));
        total.fill(T(0));
      }
      kernels.log(total.data(), total.data(), stop - r);
      std::size_t k = 0;
      T* loss = losses + r;
      lines.walk(r, stop, [&](const std::array<std::int64_t, 3>& at) {
        const std::int64_t t = target[at[1]];
        const bool counts = t != o.ignore_index;
        const T* const v = w ? w + at[2] : nullptr;
        *loss = counts ? loss_of(x + at[0], t, v, shift[k], total[k]) : T(0);
        if (weights) weights[loss - losses] = counts ? (v ? v[t * w_step] : T(1)) : T(0);
        ++loss;
        ++k;
      });
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

  const RowKernels<T>& kernels = row_kernels<T>();
  const bool plain = o.smoothing == 0 && p.is_contiguous();
  const auto scale_of = [&](const std::array<std::int64_t, 6>& at) {
    return total ? g[at[0]] / total[at[3]] : g[at[0]];
  };
  // Softmax minus the target's one, weighted.
  const auto plain_rows = [&](std::int64_t begin, std::int64_t end) {
    std::array<T, most_rows> by;
    std::array<std::int64_t, most_rows> targets;
    const std::int64_t block = block_rows(n);
    for (std::int64_t r = begin; r < end; r += block) {
      const std::int64_t stop = std::min(end, r + block);
      std::size_t count = 0;
      lines.walk(r, stop, [&](const std::array<std::int64_t, 6>& at) {
        const std::int64_t t = targets[count] = target[at[1]];
        by[count++] =
            t == o.ignore_index ? T(0) : scale_of(at) * (w ? w[at[4] + t * w_step] : T(1));
      });
      const T* from = y + r * n;
      T* to = result + r * n;
      kernels.scale(from, by.data(), to, n, stop - r);
      for (std::size_t k = 0; k < count; ++k, from += n, to += n) {
        if (const std::int64_t t = targets[k]; t != o.ignore_index)
          to[t] = by[k] * (from[t] - T(1));
        else
          std::fill(to, to + n, T(0));
      }
    }
  };
  const auto any_row = [&](const std::array<std::int64_t, 6>& at) {
    const std::int64_t t = target[at[1]];
    const T* const from = y + at[2];
    T* const to = result + at[5];
    if (t == o.ignore_index) {
      std::fill(to, to + n, T(0));
      return;
    }
    const T* const v = w ? w + at[4] : nullptr;
    const T scale = scale_of(at), weight = v ? v[t * w_step] : T(1);
    const T hard = (1 - smoothing) * weight;
    const T all = hard + each * (v ? fold::run<fold::Sum<T>>(v, n, w_step) : static_cast<T>(n));
    for (std::int64_t i = 0; i < n; ++i)
      to[i] = scale * (all * from[i * step] - each * (v ? v[i * w_step] : T(1)));
    to[t] = scale * (all * from[t * step] - each * weight - hard);
  };
  if (n == 0) return;
  constexpr std::int64_t kRow = 4;  // elements that take as long as what a row takes besides
  if (plain)
    parallel_for(lines.count(), std::max<std::int64_t>(1, kCheapGrain / (4 * (n + kRow))),
                 plain_rows);
  else
    lines.parallel(2, any_row);
}

}  // namespace

void cross_entropy(Inputs in, Inputs out, const Attrs& a) {
  if (out[1].dtype() == kFloat64)
    forward<double>(in, out, ClassLoss(a));
  else
    forward<float>(in, out, ClassLoss(a));
}

void cross_entropy_grad(Inputs in, Inputs out, const Attrs& a) {
  if (out[0].dtype() == kFloat64)
    backward<double>(in, out, ClassLoss(a));
  else
    backward<float>(in, out, ClassLoss(a));
}

}  // namespace tutti::kernels
