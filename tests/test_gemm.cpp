// The matrix product kernels: every implementation this CPU can run against sums in double (long
// double for float64), at every kind of size, stride and epilogue; activations against the ops of
// the same name; and the choice among the implementations.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <tutti/config.h>
#include <tutti/core/kernels/ahead.h>
#include <tutti/core/kernels/gemm.h>
#include <tutti/core/kernels/isa.h>
#include <tutti/core/kernels/matrices.h>
#include <tutti/core/parallel.h>
#include <tutti/tutti.h>

#include "test.h"

using namespace tutti;
using kernels::Activation;
using kernels::Gemm;
using kernels::Isa;

namespace {

/// Restores the instruction set and the number of threads.
struct Restore {
  Isa isa = kernels::isa();
  int threads = num_threads();
  ~Restore() {
    kernels::set_isa(isa);
    set_num_threads(threads);
  }
};

std::mt19937 generator(1);

int random_int(int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(generator);
}

enum class Layout { rows, columns, strided, shared_row, reversed };
constexpr Layout layouts[] = {Layout::rows, Layout::columns, Layout::strided, Layout::shared_row,
                              Layout::reversed};

/// Matrices in memory of exactly the size they need, so that AddressSanitizer sees any other
/// access.
template <class T>
struct Operand {
  std::vector<T> values;
  kernels::Matrices matrices;

  Operand(const Shape& batch, std::int64_t rows, std::int64_t columns, Layout layout, int shared) {
    const std::int64_t pad = random_int(0, 1) * random_int(1, 5);
    std::int64_t row = columns + pad, column = 1;
    if (layout == Layout::columns) row = 1, column = rows + pad;
    if (layout == Layout::strided) row = 2 * columns + pad, column = 2;
    if (layout == Layout::shared_row) row = 0;
    if (layout == Layout::reversed) row = -row;
    const std::int64_t first = row < 0 ? -row * (rows - 1) : 0;
    const std::int64_t extent = std::abs(row) * (rows - 1) + column * (columns - 1) + 1;
    std::int64_t size = extent;
    matrices.batch = batch;
    for (std::size_t d = batch.size(); d-- > 0;) {
      // Bits of `shared`: axes along which one matrix serves all.
      matrices.batch[d] = shared >> d & 1 ? 0 : size;
      if (matrices.batch[d]) size *= batch[d];
    }
    values.resize(static_cast<std::size_t>(rows && columns ? size : 0));
    std::uniform_real_distribution<T> value(-1, 1);
    for (T& x : values) x = value(generator);
    matrices.row = row;
    matrices.column = column;
    matrices.data = values.empty() ? nullptr : values.data() + first;
  }

  T at(std::int64_t offset, std::int64_t i, std::int64_t j) const {
    return static_cast<const T*>(matrices.data)[offset + i * matrices.row + j * matrices.column];
  }
};

/// What one product is to be.
struct Case {
  std::int64_t m, n, k;
  Shape batch = {};
  Layout a = Layout::rows, b = Layout::rows;
  int a_shared = 0, b_shared = 0;
  enum { plain, bias, strided_bias, shared_bias, accumulate } epilogue = plain;

  std::string text() const {
    return detail::str("m ", m, " n ", n, " k ", k, " batch ", IntArrayRef(batch), " layouts ",
                       static_cast<int>(a), " ", static_cast<int>(b), " shared ", a_shared, " ",
                       b_shared, " epilogue ", static_cast<int>(epilogue));
  }
};

/// Operands, start and reference of one case.
template <class T>
class Problem {
 public:
  explicit Problem(const Case& c)
      : case_(c),
        a_(c.batch, c.m, c.k, c.a, c.a_shared),
        b_(c.batch, c.k, c.n, c.b, c.b_shared),
        bias_(c.batch, 1, c.n, c.epilogue == Case::strided_bias ? Layout::strided : Layout::rows,
              c.epilogue == Case::shared_bias ? -1 : 0),
        start_(static_cast<std::size_t>(numel_of(c.batch) * c.m * c.n)) {
    std::uniform_real_distribution<T> value(-1, 1);
    for (T& x : start_) x = c.epilogue == Case::accumulate ? value(generator) : T(1e30);
    reference();
  }

  const Case& what() const { return case_; }

  std::vector<T> run(Activation activation = Activation::none) const {
    Gemm g;
    g.activation = activation;
    return run(g);
  }

  /// `g` says what else is wanted.
  std::vector<T> run(Gemm g) const {
    std::vector<T> out = start_;
    constexpr std::ptrdiff_t after = 8 * 40;  // numbers more than the rows of a tile
    out.resize(start_.size() + std::size_t{after}, T(7));
    g.dtype = dtype_of<T>();
    g.m = case_.m, g.n = case_.n, g.k = case_.k;
    g.batch = case_.batch;
    g.a = a_.matrices;
    g.b = b_.matrices;
    if (has_bias()) g.bias = bias_.matrices;
    g.out = out.data();
    g.accumulate = case_.epilogue == Case::accumulate;
    kernels::gemm(g);
    if (std::count(out.end() - after, out.end(), T(7)) != after)
      FAIL_CHECK(kernels::name(kernels::isa()) << ": written past the end, " << case_.text());
    out.resize(start_.size());
    return out;
  }

  /// The largest error, in units of what rounding can do. Where `relu_output` has something and it
  /// is not above 0, the result must be 0.
  double error(const std::vector<T>& out, const std::vector<T>& relu_output = {}) const {
    double worst = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const bool passes = relu_output.empty() || relu_output[i] > T(0);
      const double e =
          std::abs(static_cast<double>(out[i] - (passes ? exact_[i] : Exact(0)))) / bound_[i];
      worst = e <= worst ? worst : e;  // a NaN stays
    }
    return worst;
  }

 private:
  using Exact = std::conditional_t<sizeof(T) == 4, double, long double>;

  bool has_bias() const {
    return case_.epilogue != Case::plain && case_.epilogue != Case::accumulate;
  }

  void reference() {
    std::size_t at = 0;
    for (std::int64_t p = 0; p < numel_of(case_.batch); ++p) {
      std::int64_t rest = p, a = 0, b = 0, bias = 0;
      for (std::size_t d = case_.batch.size(); d-- > 0; rest /= case_.batch[d]) {
        const std::int64_t i = rest % case_.batch[d];
        a += i * a_.matrices.batch[d];
        b += i * b_.matrices.batch[d];
        bias += i * bias_.matrices.batch[d];
      }
      const std::size_t n = static_cast<std::size_t>(case_.n);
      std::vector<T> b_rows;  // without gaps
      for (std::int64_t k = 0; k < case_.k; ++k)
        for (std::int64_t j = 0; j < case_.n; ++j) b_rows.push_back(b_.at(b, k, j));
      for (std::int64_t i = 0; i < case_.m; ++i, at += n) {
        std::vector<Exact> sum(n);
        std::vector<double> size(n);
        for (std::size_t j = 0; j < n; ++j) {
          if (has_bias()) sum[j] += bias_.at(bias, 0, static_cast<std::int64_t>(j));
          if (case_.epilogue == Case::accumulate) sum[j] += start_[at + j];
          size[j] = static_cast<double>(std::abs(sum[j]));
        }
        for (std::int64_t k = 0; k < case_.k; ++k)
          add(a_.at(a, i, k), b_rows.data() + static_cast<std::size_t>(k) * n, n, sum.data(),
              size.data());
        for (std::size_t j = 0; j < n; ++j) {
          exact_.push_back(sum[j]);
          // Errors of about as many roundings as there are terms add up like a random walk.
          const double unit = std::numeric_limits<T>::epsilon() / 2;
          bound_.push_back((size[j] + 1e-3) * unit *
                           (2 + 2 * std::sqrt(static_cast<double>(case_.k))));
        }
      }
    }
  }

  /// One term of n sums. Half of this program's time, which sanitizers would make much more.
  __attribute__((no_sanitize("address", "undefined", "thread"))) static void add(T a, const T* b,
                                                                                 std::size_t n,
                                                                                 Exact* sum,
                                                                                 double* size) {
    for (std::size_t j = 0; j < n; ++j) {
      sum[j] += static_cast<Exact>(a) * b[j];
      size[j] += std::abs(static_cast<double>(a) * static_cast<double>(b[j]));
    }
  }

  Case case_;
  Operand<T> a_, b_, bias_;
  std::vector<T> start_;
  std::vector<Exact> exact_;
  std::vector<double> bound_;
};

/// Checks a case on every instruction set, for float32 and float64.
void check(const Case& c) {
  const auto check_type = [&]<class T>(T) {
    const Problem<T> p(c);
    for (Isa isa : kernels::supported_isas()) {
      kernels::set_isa(isa);
      const double e = p.error(p.run());
      if (!(e <= 1))
        FAIL_CHECK(kernels::name(isa) << " " << sizeof(T) * 8 << ": " << c.text() << ": " << e);
    }
  };
  check_type(float());
  check_type(double());
}

constexpr Activation activations[] = {Activation::relu, Activation::tanh, Activation::gelu,
                                      Activation::gelu_tanh};

/// What the op makes of a result.
template <class T>
std::vector<T> activated(const std::vector<T>& values, Activation activation) {
  const Tensor x = tensor(values, dtype_of<T>());
  const Tensor y = activation == Activation::relu   ? relu(x)
                   : activation == Activation::tanh ? tanh(x)
                   : activation == Activation::gelu ? gelu(x)
                                                    : gelu(x, "tanh");
  return {y.data_ptr<T>(), y.data_ptr<T>() + y.numel()};
}

/// Checks that a product with an activation has the bits of the product and then the op.
template <class T>
void check_activation(const Case& c, Activation activation) {
  const Problem<T> p(c);
  for (Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    if (p.run(activation) != activated(p.run(), activation))
      FAIL_CHECK(kernels::name(isa) << " " << sizeof(T) * 8 << ": activation "
                                    << static_cast<int>(activation) << ", " << c.text());
  }
}

/// Numbers of which every third or so is 0, as relu gives them.
template <class T>
std::vector<T> relu_outputs(std::size_t n) {
  std::vector<T> v(n);
  for (T& x : v) x = static_cast<T>(std::max(0, random_int(-5, 10)));
  return v;
}

/// Checks a product that takes along the derivative of relu, the sums over its rows, or both.
template <class T>
void check_backward(const Problem<T>& p, bool relu_grad, bool sums) {
  const Case& c = p.what();
  const std::int64_t products = numel_of(c.batch);
  const std::vector<T> y = relu_grad
                               ? relu_outputs<T>(static_cast<std::size_t>(products * c.m * c.n))
                               : std::vector<T>();
  std::vector<T> row_sums(static_cast<std::size_t>(sums ? products * c.n : 0));
  Gemm g;
  if (relu_grad) g.relu_output = y.data();
  if (sums) g.row_sums = row_sums.data();
  for (Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    std::fill(row_sums.begin(), row_sums.end(), T(1e30));
    const std::vector<T> out = p.run(g);
    double worst = p.error(out, y);
    for (std::int64_t i = 0; i < products * c.n && sums; ++i) {
      double sum = 0, size = 1e-30;
      for (std::int64_t row = 0; row < c.m; ++row) {
        const double x = static_cast<double>(
            out[static_cast<std::size_t>((i / c.n * c.m + row) * c.n + i % c.n)]);
        sum += x, size += std::abs(x);
      }
      const double e = std::abs(static_cast<double>(row_sums[static_cast<std::size_t>(i)]) - sum) /
                       (size * static_cast<double>(c.m) * std::numeric_limits<T>::epsilon());
      worst = e <= worst ? worst : e;
    }
    if (!(worst <= 1))
      FAIL_CHECK(kernels::name(isa) << " " << sizeof(T) * 8 << ": relu_grad " << relu_grad
                                    << ", sums " << sums << ", " << c.text() << ": " << worst);
  }
}

template <class X>
X any(std::initializer_list<X> choices) {
  return choices.begin()[random_int(0, static_cast<int>(choices.size()) - 1)];
}

/// The rest of a case at random.
Case some_case(std::int64_t m, std::int64_t n, std::int64_t k) {
  Case c{m, n, k};
  c.batch = any<Shape>({{}, {3}, {2, 3}, {1}, {5}});
  c.a = layouts[random_int(0, 4)];
  c.b = layouts[random_int(0, 4)];
  c.a_shared = random_int(0, 3);
  c.b_shared = random_int(0, 3);
  c.epilogue =
      any({Case::plain, Case::bias, Case::strided_bias, Case::shared_bias, Case::accumulate});
  return c;
}

}  // namespace

TEST_CASE("products of every small size") {
  const Restore restore;
  for (int m = 1; m <= 40; ++m)
    for (int n = 1; n <= 40; ++n) check(some_case(m, n, random_int(1, 40)));
  for (int k = 1; k <= 40; ++k)
    for (int i = 0; i < 10; ++i) check(some_case(random_int(1, 40), random_int(1, 40), k));
}

TEST_CASE("products around the sizes where the rules change") {
  const Restore restore;
  const int edges[] = {1,  2,  3,  7,  8,  9,  16,  17,  31,  32, 33,
                       47, 48, 49, 63, 64, 65, 127, 128, 129, 145};
  for (int m : {1, 2, 3, 5, 13, 65})
    for (int n : edges)
      for (int k : {1, 4, 31, 257}) {
        Case c{m, n, k, {2}};
        c.a = any({Layout::rows, Layout::columns});
        c.b = any({Layout::rows, Layout::columns});
        c.epilogue = any({Case::plain, Case::bias, Case::accumulate});
        check(c);
      }
}

TEST_CASE("nothing but products, of few terms: wide panels, and a b that registers hold") {
  const Restore restore;
  for (int k = 2; k <= 17; ++k)
    for (int n : {8, 16, 24, 64, 80, 128})
      for (int m : {7, 8, 9, 16, random_int(25, 31), 32, random_int(33, 39), 40}) {
        Case c{m, n, k, any<Shape>({{}, {3}, {2, 3}})};
        c.b = any({Layout::rows, Layout::rows, Layout::columns});
        c.a_shared = random_int(0, 1);
        c.b_shared = random_int(0, 1);
        check(c);
        c.epilogue = any({Case::bias, Case::accumulate});
        if (k % 4 == 0) check_activation<float>(c, Activation::relu);
      }
}

TEST_CASE("large products of odd sizes") {
  const Restore restore;
  for (Layout a : {Layout::rows, Layout::columns})
    for (Layout b : {Layout::rows, Layout::columns, Layout::strided}) {
      check({41, 531, 259, {}, a, b, 0, 0, Case::bias});
      check({67, 1100, 20, {2}, a, b, 1, 0, Case::accumulate});
      check({150, 33, 517, {}, a, b, 0, 0, Case::plain});
    }
  // Rows of b a power of two apart.
  check({70, 512, 300, {}, Layout::rows, Layout::rows, 0, 0, Case::bias});
  check({70, 1024, 130, {}, Layout::columns, Layout::rows, 0, 0, Case::accumulate});
}

TEST_CASE("products of a transposed a whose rows are a power of two apart") {
  const Restore restore;
  for (int i = 0; i < 3; ++i) {  // with different gaps between the rows, and none
    check({256, 257, 70, {}, Layout::columns, Layout::rows, 0, 0, Case::bias});
    check({128, 300, 300, {}, Layout::columns, Layout::columns, 0, 0, Case::accumulate});
    check({320, 600, 120, {}, Layout::columns, Layout::columns, 0, 0, Case::plain});
    check({192, 512, 70, {2}, Layout::columns, Layout::rows, 1, 0, Case::bias});
    check({1024, 256, 16, {}, Layout::columns, Layout::rows, 0, 0, Case::plain});  // b stays in L1
    // What it takes with many registers: sums of 256 terms.
    check({1024, 260, 256, {}, Layout::columns, Layout::rows, 0, 0, Case::bias});
    check({1024, 264, 511, {}, Layout::columns, Layout::columns, 0, 0, Case::accumulate});
  }
}

TEST_CASE("products without terms: the bias, zeros, or what is there") {
  const Restore restore;
  for (int m : {1, 3, 70})
    for (int n : {1, 5, 16, 200})
      for (auto epilogue : {Case::plain, Case::bias, Case::strided_bias, Case::accumulate}) {
        Case c{m, n, 0, {3}};
        c.epilogue = epilogue;
        for (const Layout b : {Layout::rows, Layout::columns, Layout::strided}) {
          c.b = b;
          check(c);
        }
      }
}

TEST_CASE("NaN and infinity reach the elements they belong to, and no others") {
  const Restore restore;
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const auto run = [&]<class T>(T) {
    for (Isa isa : kernels::supported_isas())
      for (int n : {1, 2, 5, 16, 19, 40})
        for (int m : {1, 2, 3, 17})
          for (bool turned : {false, true})
            for (T special : {static_cast<T>(inf), static_cast<T>(-inf), static_cast<T>(nan)}) {
              const int k = 5, row = random_int(0, m - 1), column = random_int(0, n - 1);
              const auto sized = [](int i, int j) { return static_cast<std::size_t>(i * j); };
              std::vector<T> a(sized(m, k), T(1)), b(sized(k, n), T(1)), out(sized(m, n), T(7));
              Gemm g;
              g.dtype = dtype_of<T>();
              g.m = m, g.n = n, g.k = k;
              g.a = {a.data(), {}, k, 1};
              g.b = {b.data(), {}, turned ? 1 : n, turned ? k : 1};
              g.out = out.data();
              kernels::set_isa(isa);
              a[sized(row, k) + 2] = special;
              kernels::gemm(g);
              for (int i = 0; i < m; ++i)
                for (int j = 0; j < n; ++j) {
                  const T x = out[sized(i, n) + static_cast<std::size_t>(j)];
                  const T expected = i == row ? special : T(k);
                  CHECK((std::isnan(expected) ? std::isnan(x) : x == expected));
                }
              a[sized(row, k) + 2] = T(1);
              b[turned ? sized(column, k) + 3 : sized(3, n) + static_cast<std::size_t>(column)] =
                  special;
              kernels::gemm(g);
              for (int i = 0; i < m; ++i)
                for (int j = 0; j < n; ++j) {
                  const T x = out[sized(i, n) + static_cast<std::size_t>(j)];
                  const T expected = j == column ? special : T(k);
                  CHECK((std::isnan(expected) ? std::isnan(x) : x == expected));
                }
            }
  };
  run(float());
  run(double());
}

TEST_CASE("activations of every small size, with and without a bias") {
  const Restore restore;
  for (int m = 1; m <= 20; ++m)
    for (int n = 1; n <= 34; ++n) {
      Case c = some_case(m, n, random_int(0, 40));
      for (auto epilogue : {Case::plain, Case::bias, Case::strided_bias, Case::accumulate}) {
        c.epilogue = epilogue;
        check_activation<float>(c, Activation::relu);
        check_activation<double>(c, Activation::relu);
      }
      check_activation<float>(c, activations[random_int(1, 3)]);
    }
  for (Activation a : activations) check_activation<double>(some_case(5, 19, 7), a);
}

TEST_CASE("activations of products that are cut: along the terms, for threads, into hot pieces") {
  const Restore restore;
  for (int threads : {1, 3})
    for (Activation a : activations)
      for (const Case& c : {
               Case{41, 131, 600, {}, Layout::rows, Layout::columns, 0, 0, Case::bias},
               Case{30, 40, 257, {3}, Layout::columns, Layout::rows, 0, 0, Case::accumulate},
               Case{300, 70, 40, {}, Layout::rows, Layout::rows, 0, 0, Case::plain},
               Case{90, 300, 64, {}, Layout::rows, Layout::columns, 0, 0, Case::bias},
               Case{1, 900, 300, {2}, Layout::rows, Layout::columns, 0, 0, Case::accumulate},
               Case{40, 50, 4, {5, 40}, Layout::rows, Layout::rows, 0, 2, Case::bias},
               Case{700, 40, 4, {20}, Layout::rows, Layout::rows, 0, 0, Case::bias},
           }) {
        set_num_threads(threads);
        check_activation<float>(c, a);
      }
}

TEST_CASE("relu of a product keeps NaN and infinity") {
  const Restore restore;
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  for (Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    for (int m : {1, 2, 3, 8, 17})
      for (int n : {1, 3, 4, 8, 16, 19, 40})
        for (bool turned : {false, true})
          for (float special : {inf, -inf, nan}) {
            const int k = 3, row = random_int(0, m - 1);
            std::vector<float> a(static_cast<std::size_t>(m * k), -1), out;
            std::vector<float> b(static_cast<std::size_t>(k * n), 1);
            a[static_cast<std::size_t>(row * k + 1)] = special;
            out.resize(static_cast<std::size_t>(m * n), 7);
            kernels::gemm({.dtype = kFloat32,
                           .m = m,
                           .n = n,
                           .k = k,
                           .a = {a.data(), {}, k, 1},
                           .b = {b.data(), {}, turned ? 1 : n, turned ? k : 1},
                           .out = out.data(),
                           .activation = Activation::relu});
            for (int i = 0; i < m * n; ++i) {
              const float x = out[static_cast<std::size_t>(i)];
              const float expected = i / n != row || special == -inf ? 0 : special;
              CHECK((std::isnan(expected) ? std::isnan(x) : x == expected));
            }
          }
  }
}

TEST_CASE("relu of a product of integers") {
  const std::int32_t a[] = {1, -2, 3, 4}, b[] = {1, 2, -3, 1};
  std::int32_t out[4] = {};
  kernels::gemm({.dtype = kInt32,
                 .m = 2,
                 .n = 2,
                 .k = 2,
                 .a = {a, {}, 2, 1},
                 .b = {b, {}, 2, 1},
                 .out = out,
                 .activation = Activation::relu});
  CHECK(out[0] == 7);
  CHECK(out[1] == 0);
  CHECK(out[2] == 0);
  CHECK(out[3] == 10);
}

TEST_CASE("the derivative of relu and sums over the rows go along with a product") {
  const Restore restore;
  const auto check_all = [](const Case& c) {
    const Problem<float> f(c);
    const Problem<double> d(c);
    for (int form = 1; form < 4; ++form) {
      check_backward(f, form & 1, form & 2);
      check_backward(d, form & 1, form & 2);
    }
  };
  for (int m = 1; m <= 40; ++m)
    for (int n = 1; n <= 40; n += random_int(1, 4)) check_all(some_case(m, n, random_int(1, 40)));
  // Cut along the terms, for threads, with columns and rows that are rearranged.
  for (Layout a : {Layout::rows, Layout::columns})
    for (Layout b : {Layout::rows, Layout::columns, Layout::strided}) {
      check_all({41, 531, 259, {}, a, b, 0, 0, Case::bias});
      check_all({300, 40, 70, {3}, a, b, 0, 0, Case::plain});
      check_all({150, 333, 517, {}, a, b, 0, 0, Case::accumulate});
    }
  for (int m : {1, 2, 5})
    for (int n : {1, 3, 16, 70, 300})
      for (int k : {0, 1, 64, 300}) check_all({m, n, k, {2}});
}

TEST_CASE("products of a list and a gradient are what each is alone, bit for bit") {
  const Restore restore;
  const auto check_list = [&]<class T>(T, const Shape& batch, std::int64_t rows, std::int64_t in,
                                       std::int64_t out, int shared, bool relu, bool sums) {
    const std::int64_t products = numel_of(batch);
    const Operand<T> x(batch, rows, in, Layout::rows, shared),
        w(batch, out, in, Layout::rows, shared >> 2);
    // Without gaps, as the gradient of a mask must be.
    const std::vector<T> gradient =
                             relu_outputs<T>(static_cast<std::size_t>(products * rows * out)),
                         y = relu_outputs<T>(gradient.size());
    std::vector<T> masked = gradient;
    for (std::size_t i = 0; i < y.size(); ++i) masked[i] = relu && y[i] <= 0 ? T(0) : gradient[i];
    kernels::Matrices rows_of{masked.data(), contiguous_strides(joined(batch, rows, out)), out, 1};
    rows_of.batch.resize(batch.size());
    kernels::Matrices columns_of = rows_of;
    std::swap(columns_of.row, columns_of.column);
    Gemm g0, g1;
    g0.dtype = g1.dtype = dtype_of<T>();
    g0.batch = g1.batch = batch;
    g0.m = rows, g0.n = in, g0.k = out, g0.a = rows_of, g0.b = w.matrices;
    g1.m = out, g1.n = in, g1.k = rows, g1.a = columns_of, g1.b = x.matrices;
    std::vector<Gemm> list = {g0, g1};
    std::vector<T> row_sums(static_cast<std::size_t>(products * out));
    kernels::LayerGradient layer{gradient.data(), rows, out};
    layer.relu_output = relu ? y.data() : nullptr;
    layer.row_sums = sums ? row_sums.data() : nullptr;
    for (Isa isa : kernels::supported_isas())
      for (int threads : {1, 3}) {
        kernels::set_isa(isa);
        set_num_threads(threads);
        std::vector<std::vector<T>> expected;
        for (Gemm& p : list) {
          p.out = expected.emplace_back(static_cast<std::size_t>(products * p.m * p.n)).data();
          kernels::gemm(p);
        }
        const Tensor of_rows =
            tensor(masked, dtype_of<T>()).reshape({products, rows, out}).sum(1).contiguous();
        const std::vector<T> want(of_rows.data_ptr<T>(), of_rows.data_ptr<T>() + of_rows.numel());
        for (bool far : {false, true}) {  // as if no cache held them
          kernels::set_last_cache_bytes(far ? 1 : 0);
          std::vector<std::vector<T>> alone, together;
          for (const auto& e : expected)
            for (auto* results : {&alone, &together}) results->emplace_back(e.size(), T(1e30));
          std::vector<Gemm> given = list;
          for (std::size_t i = 0; i < list.size(); ++i) {
            given[i].out = alone[i].data();
            kernels::gemm(given[i]);
            given[i].out = together[i].data();
            for (kernels::Matrices* m : {&given[i].a, &given[i].b})
              if (m->data == masked.data()) m->data = &layer;
          }
          std::fill(row_sums.begin(), row_sums.end(), T(1e30));
          kernels::gemm(given, &layer);
          REQUIRE(kernels::ahead == nullptr);  // what it fetched ends with it
          CHECK_MESSAGE((alone == expected && together == expected && (!sums || row_sums == want)),
                        kernels::name(isa)
                            << " " << sizeof(T) * 8 << ", " << threads << " threads, " << products
                            << " products in " << batch.size() << " axes, " << rows << " " << in
                            << " " << out << ", shared " << shared << ", relu " << relu << ", sums "
                            << sums << ", far " << far);
        }
        kernels::set_last_cache_bytes(0);
      }
  };
  for (bool relu : {false, true}) {
    for (const Shape& batch : {Shape{}, Shape{1}, Shape{15}, Shape{16}, Shape{37}, Shape{5, 7}})
      for (int shared : {0, 3, 12})
        for (const auto& [rows, in, out] : {std::array{1, 16, 16},
                                            {7, 5, 3},
                                            {32, 16, 64},
                                            {33, 40, 17},
                                            {300, 9, 1},
                                            {0, 4, 5}}) {
          check_list(float(), batch, rows, in, out, shared, relu, shared != 12);
          check_list(double(), batch, rows, in, out, shared, relu, shared != 3);
        }
    check_list(float(), {35}, 64, 150, 130, 0, relu, true);  // several blocks for each thread
  }
}

TEST_CASE("results are bitwise the same for any number of threads, near and far") {
  const Restore restore;
  const auto run = [&]<class T>(T) {
    for (const Case& c : {
             Case{300, 200, 300, {}, Layout::rows, Layout::columns, 0, 0, Case::bias},
             Case{200, 300, 270, {}, Layout::columns, Layout::rows, 0, 0, Case::accumulate},
             Case{1, 3000, 400, {}, Layout::rows, Layout::rows, 0, 0, Case::bias},
             Case{3000, 1, 400, {}, Layout::rows, Layout::rows, 0, 0, Case::strided_bias},
             Case{2, 2000, 300, {}, Layout::rows, Layout::columns, 0, 0, Case::plain},
             Case{4, 1000, 300, {3}, Layout::rows, Layout::rows, 0, 0, Case::plain},
             Case{1000, 3, 500, {}, Layout::rows, Layout::columns, 0, 0, Case::bias},
             Case{193, 131, 300, {5}, Layout::columns, Layout::strided, 1, 0, Case::plain},
             Case{33, 17, 50, {7, 23}, Layout::rows, Layout::columns, 2, 1, Case::bias},
             Case{1, 16, 16, {1000}, Layout::rows, Layout::rows, 0, 0, Case::accumulate},
             Case{1, 300, 700, {}, Layout::rows, Layout::rows, 0, 0, Case::bias},
             Case{1, 300, 700, {}, Layout::rows, Layout::strided, 0, 0, Case::plain},
             Case{1, 2000, 300, {}, Layout::rows, Layout::strided, 0, 0, Case::plain},
             Case{20, 33, 40, {37}, Layout::rows, Layout::columns, 0, 0, Case::bias},
             Case{20, 33, 40, {37}, Layout::columns, Layout::rows, 1, 0, Case::strided_bias},
             Case{20, 16, 9, {37}, Layout::rows, Layout::columns, 0, 0, Case::shared_bias},
             Case{33, 1, 40, {37}, Layout::rows, Layout::rows, 0, 0, Case::accumulate},
         }) {
      const Problem<T> p(c);
      std::vector<T> row_sums(static_cast<std::size_t>(numel_of(c.batch) * c.n));
      const auto with_sums = [&] {
        Gemm g;
        g.row_sums = row_sums.data();
        std::vector<T> all = p.run(g);
        all.insert(all.end(), row_sums.begin(), row_sums.end());
        return all;
      };
      for (Isa isa : kernels::supported_isas()) {
        kernels::set_isa(isa);
        set_num_threads(1);
        const std::vector<T> one = p.run(), one_with_sums = with_sums();
        CHECK_MESSAGE(p.error(one) <= 1, kernels::name(isa) << ": " << c.text());
        for (int threads : {2, 3, 7}) {
          set_num_threads(threads);
          bool same = p.run() == one && with_sums() == one_with_sums;
          kernels::set_last_cache_bytes(1);  // as if no cache held the operands
          same = same && p.run() == one;
          kernels::set_last_cache_bytes(0);
          CHECK_MESSAGE(same, kernels::name(isa) << ", " << threads << " threads: " << c.text());
        }
      }
    }
  };
  run(float());
  run(double());
}

TEST_CASE("all sizes in all layouts" * doctest::skip()) {
  const Restore restore;
  const int sizes[] = {1, 2, 3, 4, 5, 8, 12, 13, 14, 16, 17, 20, 26, 31, 32, 33, 40};
  for (int m : sizes)
    for (int n : sizes)
      for (int k : {1, 2, 3, 4, 7, 16, 17, 33})
        for (Layout a : layouts)
          for (Layout b : layouts) {
            Case c = some_case(m, n, k);
            c.a = a;
            c.b = b;
            check(c);
          }
  for (int i = 0; i < 200; ++i)
    check(some_case(random_int(1, 300), random_int(1, 700), random_int(1, 900)));
}

TEST_CASE("the instruction set is one this CPU has") {
  const Restore restore;
  const auto& all = kernels::supported_isas();
  CHECK(all.front() == Isa::scalar);
  CHECK(std::is_sorted(all.begin(), all.end()));
  if (!std::getenv("TUTTI_ISA")) CHECK(kernels::isa() == all.back());
  for (Isa isa : all) {
    kernels::set_isa(isa);
    CHECK(kernels::isa() == isa);
  }
#if TUTTI_HIGHWAY && defined(__aarch64__)
  CHECK(all == std::vector{Isa::scalar, Isa::neon});
#elif TUTTI_HIGHWAY && defined(__x86_64__)
  const auto has = [&](Isa isa) { return std::count(all.begin(), all.end(), isa) == 1; };
#ifndef __SSE4_2__  // or it may be the target of the whole build, which cannot be left out
  const std::pair<Isa, bool> compiled[] = {
      {Isa::sse4, TUTTI_ISA_SSE4}, {Isa::avx2, TUTTI_ISA_AVX2}, {Isa::avx3, TUTTI_ISA_AVX3}};
  for (const auto& [isa, wanted] : compiled) {
    if (!wanted) CHECK_FALSE(has(isa));
    if (wanted && __builtin_cpu_supports("avx512vl")) CHECK(has(isa));
  }
#endif
#endif
  CHECK(kernels::name(Isa::neon) == "neon");
  CHECK(kernels::name(Isa::avx2) == "avx2");
  CHECK_THROWS_SAYING(kernels::isa_named("avx5"), ValueError, "TUTTI_ISA", "expected one of scalar",
                      "got avx5");
}
