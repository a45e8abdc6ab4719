// Batched matrix products: brings a Gemm into its simplest form and cuts it into shares for
// threads. gemm_highway.cpp computes the shares of floating-point products, gemm_portable.cpp those
// of integers and, where there is no Highway, all.
//
// Work is cut into tasks by sizes only, never by the number of threads, and each task is computed
// by one thread, so results are bitwise the same for any number of threads.
#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

#include <tutti/core/kernels/ahead.h>
#include <tutti/core/kernels/gemm.h>
#include <tutti/core/kernels/gemm_impl.h>
#include <tutti/core/kernels/per_isa.h>
#include <tutti/core/kernels/reduce.h>
#include <tutti/core/kernels/vector_math.h>
#include <tutti/core/parallel.h>
#include <tutti/core/storage.h>

namespace tutti::kernels {
namespace {

// ---- The rules of cutting, in one place.

/// Multiplications that are worth a thread: 1 us at 130 billion a second, what a core does with
/// AVX-512. Handing over less costs more than it saves.
constexpr std::int64_t kTaskWork = 1 << 17;
/// As how many multiplications a product counts: those of empty lanes are as many as others, and
/// what comes before and after the sums is worth another term, and the call some rows.
constexpr std::int64_t work_of(std::int64_t m, std::int64_t n, std::int64_t k) {
  constexpr std::int64_t lanes = 16, call = 1 << 12;
  return m * ((n + lanes - 1) / lanes * lanes) * (k + 1) + call;
}
/// A batch of at least this many products is not cut further.
constexpr std::int64_t kEnoughTasks = 16;
/// Smallest block of rows or columns a product is cut into: several tiles of any instruction set;
/// and that of a single row.
constexpr std::int64_t kBlock = 64, kRowBlock = 128;
/// Bytes of results an activation is applied to at a time, if they are several products: they are
/// still in L2 then, most in L1.
constexpr std::int64_t kHotResults = 64 << 10;

/// How each product is cut: into `count` blocks of `size` rows or columns; the last one takes the
/// rest, too.
struct Blocks {
  std::int64_t count = 1, size = 0, total = 0;
  bool columns = false;

  Blocks(const Gemm& g, std::int64_t products) {
    // The longer side is cut. Of equal ones the columns: each thread then rearranges its own
    // columns of b.
    columns = g.n >= g.m || g.row_sums;  // sums over rows are one thread's
    total = columns ? g.n : g.m;
    const std::int64_t other = columns ? g.m : g.n, block = g.m == 1 ? kRowBlock : kBlock;
    size = total;
    if (products >= kEnoughTasks || total < 2 * block) return;
    const std::int64_t enough = total * products / kEnoughTasks;
    const std::int64_t worth = kTaskWork / std::max<std::int64_t>(other * g.k, 1);
    size = (std::max({enough, worth, block}) + block - 1) / block * block;
    count = std::max<std::int64_t>(total / size, 1);
  }
  /// Where block i begins; the end for i = count.
  std::int64_t edge(std::int64_t i) const { return i == count ? total : i * size; }
};

/// Merges neighbouring batch axes that are one axis in memory, and drops those of size 1.
void merge_batch(Gemm& g) {
  const auto one = [](const Shape& s) { return s.size() == 1; };
  if (one(g.batch) && g.batch[0] > 1 && one(g.a.batch) && one(g.b.batch) && one(g.bias.batch))
    return;  // as most are: nothing to merge or drop
  Shape sizes;
  Shape strides[3];
  Matrices* operands[3] = {&g.a, &g.b, &g.bias};
  for (std::size_t i = 0; i < g.batch.size(); ++i) {
    if (g.batch[i] == 1) continue;
    bool follows = !sizes.empty();
    for (int k = 0; follows && k < 3; ++k)
      follows =
          operands[k]->batch.empty() || strides[k].back() == operands[k]->batch[i] * g.batch[i];
    if (follows)
      sizes.back() *= g.batch[i];
    else
      sizes.push_back(g.batch[i]);
    for (int k = 0; k < 3; ++k) {
      std::int64_t s = operands[k]->batch.empty() ? 0 : operands[k]->batch[i];
      if (follows)
        strides[k].back() = s;
      else
        strides[k].push_back(s);
    }
  }
  for (int k = 0; k < 3; ++k) operands[k]->batch = strides[k];
  g.batch = sizes;
}

/// Whether b and the bias do not move along the innermost batch axis and a's rows continue across
/// it: a shared right operand under stacked rows.
bool has_shared(const Gemm& g) {
  if (g.batch.empty() || g.b.batch.back() != 0 || g.bias.batch.back() != 0 || g.row_sums)
    return false;
  return g.m == 1 || g.a.batch.back() == g.m * g.a.row;
}
/// Makes that one tall product.
void fold_shared(Gemm& g) {
  if (!has_shared(g)) return;
  if (g.m == 1) g.a.row = g.a.batch.back();
  g.m *= g.batch.back();
  g.batch.pop_back();
  g.a.batch.pop_back();
  g.b.batch.pop_back();
  g.bias.batch.pop_back();
}

/// A column as the result is computed as a row: it lies in memory the same, and the long axis is
/// the one for vectors.
void turn_column(Gemm& g) {
  if (g.n != 1 || g.m == 1 || g.row_sums) return;
  std::swap(g.m, g.n);
  std::swap(g.a, g.b);
  std::swap(g.a.row, g.a.column);
  std::swap(g.b.row, g.b.column);
  g.bias.column = 0;
}

// ---- shares

/// What follows the sums where the implementation does not do it: relu_grad and row_sums.
template <class T>
void finish(const Form& f, const Strip<T>& s) {
  for (std::int64_t i = 0; i < s.count; ++i)
    for (std::int64_t row = 0; row < f.m; ++row) {
      const std::int64_t at = i * s.out_step + row * f.out_row;
      for (std::int64_t j = 0; f.relu_grad && j < f.n; ++j)
        s.out[at + j] = s.relu_output[at + j] > T(0) ? s.out[at + j] : T(0);
      T* const sums = s.row_sums ? s.row_sums + i * s.sums_step : nullptr;
      for (std::int64_t j = 0; sums && j < f.n; ++j) sums[j] += s.out[at + j];
    }
}

/// Fills out with the bias, or with zeros.
template <class T>
void fill(const Form& f, const Strip<T>& s, std::int64_t bias_column) {
  for (std::int64_t i = 0; i < s.count; ++i) {
    const T* bias = s.bias ? s.bias + i * s.bias_step : nullptr;
    for (std::int64_t row = 0; row < f.m; ++row) {
      T* out = s.out + i * s.out_step + row * f.out_row;
      if (bias)
        for (std::int64_t j = 0; j < f.n; ++j) out[j] = bias[j * bias_column];
      else
        std::fill_n(out, f.n, T(0));
    }
  }
}

/// x[i] = f(x[i]).
template <class T>
using RowFunction = void (*)(T* x, std::int64_t n);
template <class F, class T>
void apply(T* x, std::int64_t n) {
  const F f;
  if constexpr (std::is_same_v<T, float> && vector_operands<F> == 1)
    if (const VectorRun<F> run = vector_run<F>()) {
      auto* const p = reinterpret_cast<std::byte*>(x);
      return run(&f, {p, p}, {sizeof(T), sizeof(T)}, n);
    }
  for (std::int64_t i = 0; i < n; ++i) x[i] = f(x[i]);
}
template <class T>
RowFunction<T> row_function(Activation a) {
  if (a == Activation::relu) return apply<scalar::Relu, T>;
  if constexpr (std::is_floating_point_v<T>) {
    if (a == Activation::tanh) return apply<scalar::Tanh, T>;
    if (a == Activation::gelu) return apply<scalar::Gelu, T>;
    if (a == Activation::gelu_tanh) return apply<scalar::GeluTanh, T>;
  }
  return nullptr;
}

/// Calls f with the results of a strip, in runs as long as they are contiguous.
template <class T, class F>
void each_run(const Form& f, const Strip<T>& s, const F& function) {
  const bool rows = f.out_row == f.n || f.m == 1, products = rows && s.out_step == f.m * f.n;
  const std::int64_t outer = products ? 1 : s.count, inner = rows ? 1 : f.m;
  for (std::int64_t i = 0; i < outer; ++i)
    for (std::int64_t row = 0; row < inner; ++row)
      function(s.out + i * s.out_step + row * f.out_row,
               f.n * (rows ? f.m : 1) * (products ? s.count : 1));
}

/// Computes tasks of a Gemm: products, or blocks of products.
template <class T>
class Share {
 public:
  Share(const Gemm& g, const Blocks& blocks, Multiply<T> multiply)
      : g_(g), blocks_(blocks), portable_(multiply == multiply_portable<T>), multiply_(multiply) {
    fill_ = !g.accumulate && (portable_ || (g.bias.data && g.bias.column != 1));
    const bool relu = !portable_ && g.activation == Activation::relu;
    activate_ = relu ? nullptr : row_function<T>(g.activation);
    form_ = {.m = g.m,
             .n = g.n,
             .k = g.k,
             .a_row = g.a.row,
             .a_column = g.a.column,
             .b_row = g.b.row,
             .b_column = g.b.column,
             .out_row = g.n,
             .accumulate = g.accumulate || fill_,
             .relu = relu,
             .relu_grad = g.relu_output != nullptr};
  }

  void run(std::int64_t begin, std::int64_t end) {
    if (blocks_.count == 1) {
      while (begin < end) begin += take_products(begin, end);
      flush();
      return;
    }
    while (begin < end) {
      const std::int64_t product = begin / blocks_.count, first = begin % blocks_.count;
      // Neighbouring blocks are one, unless that changes what is computed.
      const std::int64_t last =
          portable_ || g_.row_sums ? first + 1 : std::min(blocks_.count, first + end - begin);
      take_blocks(product, blocks_.edge(first), blocks_.edge(last));
      begin += last - first;
    }
  }

 private:
  /// The strip of one product.
  Strip<T> at(std::int64_t product) const {
    std::int64_t a = 0, b = 0, bias = 0, rest = product;
    for (std::size_t d = g_.batch.size(); d-- > 0;) {
      const std::int64_t i = rest % g_.batch[d];
      rest /= g_.batch[d];
      a += i * g_.a.batch[d];
      b += i * g_.b.batch[d];
      bias += i * g_.bias.batch[d];
    }
    const std::int64_t results = g_.m * g_.n, first = product * results;
    return {.a = static_cast<const T*>(g_.a.data) + a,
            .b = static_cast<const T*>(g_.b.data) + b,
            .bias = g_.bias.data ? static_cast<const T*>(g_.bias.data) + bias : nullptr,
            .out = static_cast<T*>(g_.out) + first,
            .count = 1,
            .a_step = 0,
            .b_step = 0,
            .bias_step = 0,
            .out_step = results,
            .relu_output = g_.relu_output ? static_cast<const T*>(g_.relu_output) + first : nullptr,
            .row_sums = g_.row_sums ? static_cast<T*>(g_.row_sums) + product * g_.n : nullptr,
            .sums_step = g_.n};
  }

  /// Products along the innermost batch axis are evenly spaced: one strip.
  std::int64_t take_products(std::int64_t begin, std::int64_t end) {
    Strip<T>& s = strips_[count_++] = at(begin);
    if (!g_.batch.empty()) {
      s.count = std::min(end - begin, g_.batch.back() - begin % g_.batch.back());
      s.a_step = g_.a.batch.back();
      s.b_step = g_.b.batch.back();
      s.bias_step = g_.bias.batch.back();
    }
    constexpr std::int64_t hot = kHotResults / static_cast<std::int64_t>(sizeof(T));
    if (activate_) s.count = std::clamp<std::int64_t>(hot / (g_.m * g_.n), 1, s.count);
    const std::int64_t taken = s.count;
    if (count_ == kStrips || activate_) flush();
    return taken;
  }

  void take_blocks(std::int64_t product, std::int64_t from, std::int64_t to) {
    Strip<T>& s = strips_[count_++] = at(product);
    if (blocks_.columns) {
      s.b += from * g_.b.column;
      if (s.bias) s.bias += from * g_.bias.column;
      s.out += from;
      if (s.relu_output) s.relu_output += from;
      if (s.row_sums) s.row_sums += from;
      form_.n = to - from;
    } else {
      s.a += from * g_.a.row;
      s.out += from * g_.n;
      if (s.relu_output) s.relu_output += from * g_.n;
      form_.m = to - from;
    }
    flush();
  }

  void flush() {
    for (std::size_t i = 0; fill_ && i < count_; ++i) {
      fill(form_, strips_[i], g_.bias.column);
      strips_[i].bias = nullptr;
    }
    if (count_) multiply_(form_, strips_, count_);
    for (std::size_t i = 0; activate_ && i < count_; ++i) each_run(form_, strips_[i], activate_);
    if constexpr (std::is_floating_point_v<T>)
      for (std::size_t i = 0; portable_ && i < count_; ++i) finish(form_, strips_[i]);
    count_ = 0;
  }

  static constexpr std::size_t kStrips = 32;

  const Gemm& g_;
  const Blocks& blocks_;
  const bool portable_;
  bool fill_;  // the bias or zeros go into out first, then products are added
  Multiply<T> multiply_;
  RowFunction<T> activate_;  // null if there is none or multiply_ does it
  Form form_;
  Strip<T> strips_[kStrips];
  std::size_t count_ = 0;
};

template <class T>
Multiply<T> implementation() {
#if TUTTI_HIGHWAY
  if constexpr (std::is_floating_point_v<T>)
    if (isa() != Isa::scalar) return multiply_highway<T>(isa());
#endif
  return multiply_portable<T>;
}

template <class T>
void run(const Gemm& g) {
  const std::int64_t products = numel_of(g.batch);
  const Blocks blocks(g, products);
  const Multiply<T> multiply = implementation<T>();
  const std::int64_t work = work_of(g.m, g.n, g.k) / blocks.count;
  if (g.row_sums) std::fill_n(static_cast<T*>(g.row_sums), products * g.n, T(0));
  parallel_for(
      products * blocks.count, kTaskWork / work + 1,
      [&](std::int64_t begin, std::int64_t end) { Share<T>(g, blocks, multiply).run(begin, end); });
}

bool is_empty(const Gemm& g) { return g.m == 0 || g.n == 0 || numel_of(g.batch) == 0; }

/// As few batch axes and strides as there can be, of what is not empty.
void simplify(Gemm& g) {
  // Strides that are never taken may as well be the contiguous ones.
  if (g.k == 1) g.a.column = 1, g.b.row = g.n;
  if (g.m == 1) g.a.row = g.k;
  if (g.n == 1) g.b.column = 1, g.bias.column = 1;
  if (g.k == 0)  // empty operands, which may have no memory: stay where they begin
    for (Matrices* x : {&g.a, &g.b}) {
      x->row = x->column = 0;
      std::fill(x->batch.begin(), x->batch.end(), std::int64_t{0});
    }
  merge_batch(g);
}

template <class F>
void dispatch_products(DType dtype, const F& f) {
  dispatch(dtype, [&]<class T>() {
    if constexpr (!std::is_same_v<T, bool> && !std::is_same_v<T, Half> &&
                  !std::is_same_v<T, BFloat16>)
      f.template operator()<T>();
  });
}

/// to[i] = gradient[i] where relu gave something.
template <class T>
struct MaskByRelu {
  TUTTI_INLINE static void run(const T* gradient, const T* output, T* to, std::int64_t n) {
    const scalar::ReluGrad f;
    TUTTI_INDEPENDENT for (std::int64_t i = 0; i < n; ++i) to[i] = f(gradient[i], output[i]);
  }
};

/// Where matrices begin..end of a gradient are, with the zeros of relu: `memory` holds them if
/// there are any. Their sums are made, too.
template <class T>
const T* prepare(const LayerGradient& g, std::int64_t begin, std::int64_t end, T* memory) {
  const std::int64_t numbers = g.rows * g.columns, first = begin * numbers;
  const T* x = static_cast<const T*>(g.data) + first;
  if (g.relu_output) {
    version<MaskByRelu<T>>()(x, static_cast<const T*>(g.relu_output) + first, memory,
                             (end - begin) * numbers);
    x = memory;
  }
  if constexpr (std::is_floating_point_v<T>)
    if (g.row_sums)
      sum_rows(x, end - begin, g.rows, g.columns, static_cast<T*>(g.row_sums) + begin * g.columns);
  return x;
}

/// Whether an operand is the gradient, wherever that will be.
bool is_gradient(const Matrices& x, const LayerGradient* g) { return g && x.data == g; }

/// Products begin..end of the one batch axis, those of the gradient at `prepared`.
template <class T>
Gemm part_of(const Gemm& g, std::int64_t begin, std::int64_t end, const LayerGradient* gradient,
             const T* prepared) {
  Gemm part = g;
  part.batch[0] = end - begin;
  part.out = static_cast<T*>(g.out) + begin * g.m * g.n;
  for (Matrices* x : {&part.a, &part.b})
    x->data =
        is_gradient(*x, gradient) ? prepared : static_cast<const T*>(x->data) + begin * x->batch[0];
  if (g.bias.data) part.bias.data = static_cast<const T*>(g.bias.data) + begin * g.bias.batch[0];
  return part;
}

/// Whether products may be computed together with others, some members at a time: each along one
/// batch axis of the same length, long enough to be cut.
bool can_go_together(const Gemm& g, const Gemm& other) {
  return g.batch.size() == 1 && g.batch[0] >= kEnoughTasks && g.batch[0] == other.batch[0] &&
         !has_shared(g) && !g.row_sums && !g.relu_output;
}

/// Numbers of one member that products read and write, a gradient they share once.
std::int64_t numbers_of(std::span<const Gemm> list, const LayerGradient* gradient) {
  std::int64_t n = gradient ? gradient->rows * gradient->columns : 0;
  for (const Gemm& g : list) {
    n += g.m * g.n;
    if (!is_gradient(g.a, gradient)) n += g.m * g.k;
    if (!is_gradient(g.b, gradient)) n += g.k * g.n;
  }
  return gradient && gradient->relu_output ? n + gradient->rows * gradient->columns : n;
}

/// Whether that has left the caches before products of one batch axis begin. Not where something
/// is being fetched already, as in a compiled step.
bool is_far(std::span<const Gemm> list, const LayerGradient* gradient) {
  const std::int64_t bytes = numbers_of(list, gradient) * list[0].batch[0] * size_of(list[0].dtype);
  return !ahead && bytes > cache_bytes(3) / 4;
}

/// Memory that products begin..end read and write.
using Ranges = SmallVec<Ahead::Lines, 8>;
Ranges ranges_of(std::span<const Gemm> list, const LayerGradient* gradient, std::int64_t begin,
                 std::int64_t end) {
  Ranges all;
  const std::int64_t size = size_of(list[0].dtype);
  const auto add = [&](const void* data, std::int64_t step) {  // a shared operand is at hand
    if (step > 0)
      all.push_back(Ahead::lines(static_cast<const std::byte*>(data) + begin * step * size,
                                 (end - begin) * step * size));
  };
  if (gradient) add(gradient->data, gradient->rows * gradient->columns);
  if (gradient && gradient->relu_output)
    add(gradient->relu_output, gradient->rows * gradient->columns);
  for (const Gemm& g : list) {
    for (const Matrices* x : {&g.a, &g.b})
      if (!is_gradient(*x, gradient)) add(x->data, x->batch[0]);
    add(g.out, g.m * g.n);
  }
  return all;
}

/// Runs products of one batch axis, which is long enough to be cut, some members at a time.
template <class T>
void run_together(std::span<const Gemm> list, const LayerGradient* gradient) {
  const bool far = is_far(list, gradient), masked = gradient && gradient->relu_output;
  const std::int64_t products = list[0].batch[0];
  const Blocks whole(list[0], products);
  const Multiply<T> multiply = implementation<T>();
  const std::int64_t made = masked ? gradient->rows * gradient->columns : 0;  // for each member
  std::int64_t work = 0;
  for (const Gemm& g : list) work += work_of(g.m, g.n, g.k);
  const auto size = static_cast<std::int64_t>(sizeof(T));
  // What is fetched for the next block, and what else is written, needs room, too.
  const std::int64_t room = cache_bytes(2) / (far ? 4 : 1);
  const std::int64_t most =
      std::max<std::int64_t>(1, room / ((numbers_of(list, gradient) + made) * size));
  parallel_for(products, kTaskWork / work + 1, [&](std::int64_t begin, std::int64_t end) {
    // Blocks of about equal size.
    const std::int64_t blocks = (end - begin + most - 1) / most, first = begin;
    const auto edge = [&](std::int64_t i) { return first + (end - first) * i / blocks; };
    const std::int64_t bytes = ((end - begin) / blocks + 1) * made * size;
    T* const memory =
        masked ? static_cast<T*>(workspace(static_cast<std::size_t>(bytes), 1)) : nullptr;
    for (std::int64_t i = 0; i < blocks; ++i) {
      const std::int64_t stop = edge(i + 1);
      Ranges next;
      if (far && i + 1 < blocks) next = ranges_of(list, gradient, stop, edge(i + 2));
      Ahead later({next.data(), next.size()}, false);
      std::optional<FetchAhead> fetching;
      if (!next.empty()) fetching.emplace(later);
      const T* const prepared = gradient ? prepare(*gradient, begin, stop, memory) : nullptr;
      for (const Gemm& g : list) {
        const Gemm part = part_of(g, begin, stop, gradient, prepared);
        Share<T>(part, whole, multiply).run(0, stop - begin);
      }
      begin = stop;
    }
  });
}

/// Runs products one after the other, of `products` members; leaves them in another form.
template <class T>
void run_apart(std::span<Gemm> list, const LayerGradient* gradient, std::int64_t products) {
  Ptr<Storage> memory;
  const T* prepared = nullptr;
  if (gradient) {
    const std::int64_t numbers = gradient->rows * gradient->columns;
    T* made = nullptr;
    prepared = static_cast<const T*>(gradient->data);
    if (gradient->relu_output) {
      const auto bytes = static_cast<std::size_t>(products * numbers) * sizeof(T);
      memory = Storage::make(bytes, Device());
      prepared = made = reinterpret_cast<T*>(memory->data());
    }
    constexpr std::int64_t kNumbers = 1 << 14;  // worth a thread
    parallel_for(products, kNumbers / std::max<std::int64_t>(numbers, 1) + 1,
                 [&](std::int64_t begin, std::int64_t end) {
                   prepare(*gradient, begin, end, made ? made + begin * numbers : nullptr);
                 });
  }
  for (Gemm& g : list) {
    for (Matrices* x : {&g.a, &g.b})
      if (is_gradient(*x, gradient)) x->data = prepared;
    fold_shared(g);
    turn_column(g);
    run<T>(g);
  }
}

}  // namespace

void gemm(const Gemm& given) {
  if (is_empty(given)) return;
  Gemm g = given;
  simplify(g);
  const std::span<Gemm> one(&g, 1);
  const bool in_blocks = can_go_together(g, g) && is_far(one, nullptr);
  if (in_blocks) turn_column(g);
  dispatch_products(g.dtype, [&]<class T>() {
    in_blocks ? run_together<T>(one, nullptr) : run_apart<T>(one, nullptr, 0);
  });
}

void gemm(std::span<const Gemm> given, const LayerGradient* gradient) {
  SmallVec<Gemm, 3> list;
  for (const Gemm& g : given)
    if (!is_empty(g)) simplify(list.emplace_back(g));
  bool together = gradient ? !list.empty() : list.size() > 1;
  for (const Gemm& g : list) together = together && can_go_together(g, list[0]);
  if (together)
    for (Gemm& g : list) turn_column(g);
  const std::span<Gemm> all(list.data(), list.size());
  dispatch_products(given[0].dtype, [&]<class T>() {
    together ? run_together<T>(all, gradient)
             : run_apart<T>(all, gradient, numel_of(given[0].batch));
  });
}

void* workspace(std::size_t bytes, std::size_t which) {
  struct Free {
    void operator()(void* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  struct Memory {
    std::unique_ptr<void, Free> memory;
    std::size_t size = 0;
  };
  thread_local std::array<Memory, 2> all;
  auto& [memory, size] = all[which];
  if (size < bytes) {
    memory.reset();
    size = 0;
    memory.reset(::operator new (bytes, std::align_val_t{64}));
    size = bytes;
  }
  return memory.get();
}

}  // namespace tutti::kernels
