// Members in lanes: the interleaved products and the transposes on every instruction set against
// plain loops, and compiled steps of narrow nets in that layout against the others.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <tutti/core/kernels/isa.h>
#include <tutti/core/kernels/lane_gemm.h>
#include <tutti/core/parallel.h>
#include <tutti/func/graph.h>
#include <tutti/tutti.h>

#include "test.h"

using namespace tutti;
using kernels::Interleaved;
using kernels::LaneGemm;
using tutti::detail::Lanes;

namespace {

struct Restore {
  kernels::Isa isa = kernels::isa();
  int threads = num_threads();
  ~Restore() {
    kernels::set_isa(isa);
    set_num_threads(threads);
    tutti::detail::set_lanes(Lanes::automatic);
  }
};

std::mt19937 generator(7);

template <class T>
std::vector<T> numbers(std::int64_t n) {
  std::vector<T> v(static_cast<std::size_t>(n));
  for (T& x : v) x = std::uniform_real_distribution<T>(-1, 1)(generator);
  return v;
}

/// Interleaved matrices in memory of exactly the size they need, by rows or by columns.
template <class T>
struct Operand {
  std::vector<T> values;
  Interleaved where;
  Operand(std::int64_t rows, std::int64_t columns, std::int64_t count, bool transposed)
      : values(numbers<T>(rows * columns * count)) {
    where = {values.data(), (transposed ? 1 : columns) * count, (transposed ? rows : 1) * count};
  }
  T at(std::int64_t i, std::int64_t j, std::int64_t p) const {
    return values[static_cast<std::size_t>(i * where.row + j * where.column + p)];
  }
};

/// How many results differ from sums in long double by more than rounding allows.
template <class T>
int wrong(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t count, unsigned form,
          T special = T(0)) {
  Operand<T> a(m, k, count, form & 1), b(k, n, count, form & 2), bias(1, n, count, false),
      relu_output(m, n, count, false);
  std::vector<T> row_sums(static_cast<std::size_t>(form & 32 ? n * count : 0), T(77));
  if (special != T(0)) a.values[a.values.size() / 2] = special;
  std::vector<T> out(static_cast<std::size_t>(m * n * count), T(77));
  LaneGemm g;
  g.dtype = dtype_of<T>();
  g.count = count;
  g.m = m, g.n = n, g.k = k;
  g.a = a.where, g.b = b.where;
  if (form & 4) g.bias = bias.where;
  g.out = out.data();
  g.relu = form & 8;
  if (form & 16) g.relu_output = relu_output.values.data();
  if (form & 32) g.row_sums = row_sums.data();
  kernels::lane_gemm(g);
  int differing = 0;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t p = 0; p < count; ++p) {
        long double sum = form & 4 ? bias.at(0, j, p) : T(0), size = std::abs(sum);
        for (std::int64_t l = 0; l < k; ++l) {
          const long double term = static_cast<long double>(a.at(i, l, p)) * b.at(l, j, p);
          sum += term;
          size += std::abs(term);
        }
        if (form & 8) sum = sum <= 0 ? 0 : sum;
        if (form & 16) sum = relu_output.at(i, j, p) > 0 ? sum : 0;
        const T y = out[static_cast<std::size_t>((i * n + j) * count + p)];
        const long double allowed = static_cast<long double>(std::numeric_limits<T>::epsilon()) *
                                    static_cast<long double>(k + 2) * size;
        const bool right = std::isnan(sum)
                               ? std::isnan(y)
                               : y == static_cast<T>(sum) ||
                                     std::abs(static_cast<long double>(y) - sum) <= allowed;
        differing += right ? 0 : 1;
      }
  for (std::int64_t j = 0; j < n && form & 32; ++j)
    for (std::int64_t p = 0; p < count; ++p) {
      long double sum = 0, size = 0;
      for (std::int64_t i = 0; i < m; ++i) {
        const long double x = out[static_cast<std::size_t>((i * n + j) * count + p)];
        sum += x, size += std::abs(x);
      }
      const T found = row_sums[static_cast<std::size_t>(j * count + p)];
      const long double allowed = static_cast<long double>(std::numeric_limits<T>::epsilon()) *
                                  static_cast<long double>(m) * size;
      const bool right = std::isnan(sum) ? std::isnan(found)
                         : std::isinf(sum)
                             ? found == static_cast<T>(sum)
                             : std::abs(static_cast<long double>(found) - sum) <= allowed;
      differing += right ? 0 : 1;
    }
  return differing;
}

}  // namespace

TEST_CASE_TEMPLATE("interleaved products equal sums", T, float, double) {
  const Restore restore;
  int products = 0;
  for (const kernels::Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    INFO(std::string(kernels::name(isa)));
    const std::int64_t lanes = kernels::lanes(dtype_of<T>());
    const auto check = [&](std::int64_t m, std::int64_t n, std::int64_t k, unsigned form) {
      for (const std::int64_t count :
           {std::int64_t{1}, lanes - 1, lanes, lanes + 1, 3 * lanes, 4 * lanes, 9 * lanes - 1}) {
        if (count < 1) continue;
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        CAPTURE(count);
        CAPTURE(form);
        CHECK(wrong<T>(m, n, k, count, form) == 0);
        ++products;
      }
    };
    for (std::int64_t m = 1; m <= 13; ++m)
      for (std::int64_t n = 1; n <= 9; ++n)
        check(m, n, 1 + (m * n) % 7, static_cast<unsigned>(m * 9 + n) % 64);
    for (unsigned form = 0; form < 64; ++form) check(7, 5, 6, form);
    check(33, 40, 17, 0);
    check(3, 100, 40, 3);
    for (const T special :
         {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()})
      for (const unsigned form : {0u, 8u, 24u, 56u})
        CHECK(wrong<T>(5, 4, 3, 2 * lanes, form, special) == 0);
  }
  MESSAGE(products << " products");
}

TEST_CASE_TEMPLATE("products in pieces are the products, each element once", T, float, double) {
  const Restore restore;
  for (const kernels::Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    CAPTURE(std::string(kernels::name(isa)));
    const std::int64_t lanes = kernels::lanes(dtype_of<T>());
    for (const std::int64_t count : {std::int64_t{1}, lanes, lanes + 1, 3 * lanes - 1, 40 * lanes})
      for (std::int64_t m : {1, 2, 5, 6, 7, 13})
        for (const std::int64_t n : {1, 3, 4, 9})
          for (const std::int64_t k : {1, 2, 5})
            for (const int shared : {0, 1, 2}) {
              CAPTURE(count);
              CAPTURE(m);
              CAPTURE(n);
              CAPTURE(k);
              CAPTURE(shared);
              Operand<T> a(m, k, shared == 1 ? 1 : count, true),
                  b(k, n, shared == 2 ? 1 : count, false);
              a.where.shared = shared == 1;
              b.where.shared = shared == 2;
              const auto size = static_cast<std::size_t>(m * n * count);
              std::vector<T> expected(size), found(size);
              LaneGemm g;
              g.dtype = dtype_of<T>();
              g.count = count;
              g.m = m, g.n = n, g.k = k;
              g.a = a.where, g.b = b.where;
              g.out = expected.data();
              kernels::lane_gemm(g);
              std::vector<int> times(size);
              const auto take = [&](const kernels::Piece& p) {
                for (std::int64_t l = p.begin; l < p.end; ++l)
                  for (std::int64_t q = 0; q < p.width; ++q) {
                    const auto at = static_cast<std::size_t>(l * count + p.first + q);
                    found.at(at) = static_cast<const T*>(p.data)[(l - p.begin) * p.pitch + q];
                    ++times.at(at);
                  }
              };
              const kernels::PieceTaker taker(take);
              std::vector<T> room(static_cast<std::size_t>(kernels::piece_size(count, m, n)));
              g.out = room.data();
              g.taker = &taker;
              kernels::lane_gemm(g);
              CHECK(times == std::vector<int>(size, 1));
              CHECK(found == expected);
            }
  }
}

TEST_CASE("a matrix's product does not depend on the others") {
  const Restore restore;
  for (const kernels::Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    const std::int64_t lanes = kernels::lanes(kFloat32), count = 3 * lanes - 1;
    const Operand<float> a(5, 6, count, false), b(6, 7, count, true);
    const auto product = [&](std::int64_t first, std::int64_t size) {
      // The same matrices, from the first one on, moved together.
      Operand<float> x(5, 6, size, false), y(6, 7, size, true);
      for (std::int64_t i = 0; i < 30; ++i)
        std::copy_n(a.values.begin() + i * count + first, size, x.values.begin() + i * size);
      for (std::int64_t i = 0; i < 42; ++i)
        std::copy_n(b.values.begin() + i * count + first, size, y.values.begin() + i * size);
      std::vector<float> out(static_cast<std::size_t>(35 * size));
      LaneGemm g;
      g.count = size;
      g.m = 5, g.n = 7, g.k = 6;
      g.a = x.where, g.b = y.where, g.out = out.data();
      kernels::lane_gemm(g);
      return out;
    };
    const std::vector<float> all = product(0, count);
    int differing = 0;
    for (std::int64_t first = 0; first + lanes <= count; ++first) {
      const std::vector<float> part = product(first, lanes);
      for (std::int64_t i = 0; i < 35; ++i)
        differing += !std::equal(part.begin() + i * lanes, part.begin() + (i + 1) * lanes,
                                 all.begin() + i * count + first);
    }
    CHECK(differing == 0);
  }
}

TEST_CASE("transposed copies move every element, of any size") {
  const Restore restore;
  for (const kernels::Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    INFO(std::string(kernels::name(isa)));
    int differing = 0;
    for (const DType dtype : {kUInt8, kFloat16, kFloat32, kFloat64})
      for (std::int64_t rows = 1; rows <= 40; ++rows)
        for (const std::int64_t columns : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64}) {
          const Tensor x =
              arange(rows * (columns + 3)).remainder(251).to(dtype).view({rows, columns + 3});
          const Tensor part = x.narrow(1, 1, columns);
          const Tensor y = part.t().contiguous();
          const auto expected = part.to(kFloat64).contiguous().to_vector<double>();
          const auto moved = y.to(kFloat64).to_vector<double>();
          for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j)
              differing += expected[static_cast<std::size_t>(i * columns + j)] !=
                           moved[static_cast<std::size_t>(j * rows + i)];
        }
    CHECK(differing == 0);
  }
}

namespace {

/// A training step of M nets with three layers, compiled.
struct Step {
  Step(std::int64_t members, std::int64_t in, std::int64_t hidden, std::int64_t out, bool tanh,
       DType dtype = kFloat32) {
    manual_seed(5);
    std::vector<nn::Sequential> nets;
    for (std::int64_t m = 0; m < members; ++m) {
      nn::Sequential net;
      net->push_back(nn::Linear(in, hidden));
      tanh ? net->push_back(nn::Tanh()) : net->push_back(nn::ReLU());
      net->push_back(nn::Linear(hidden, hidden));
      net->push_back(nn::ReLU());
      net->push_back(nn::Linear(hidden, out));
      net->to(dtype);
      nets.push_back(net);
    }
    params = func::stack_module_state(nets).params;
    auto optimizer = std::make_shared<optim::Adam>(params, optim::AdamOptions(1e-2));
    const auto loss = [net = nets[0]](const TensorDict& p, const Tensor& x, const Tensor& y) {
      const Tensor z = func::functional_call(net, p, x);
      return is_floating(y.dtype()) ? mse_loss(z, y) : nn::functional::cross_entropy(z, y);
    };
    const auto gradients = func::vmap(func::grad_and_value(loss), {0, std::nullopt, 0});
    run = [=](const TensorDict& p, const Tensor& x, const Tensor& y) {
      auto [grads, losses] = gradients(p, x, y);
      optimizer->step(grads);
      return losses;
    };
  }
  TensorDict params;
  std::function<Tensor(const TensorDict&, const Tensor&, const Tensor&)> run;
};

struct Trained {
  std::vector<double> weights;
  std::string text;
};

Trained train(Lanes lanes, std::int64_t members, std::int64_t hidden, std::int64_t out, bool tanh,
              DType dtype = kFloat32) {
  const NoGradGuard guard;
  tutti::detail::set_lanes(lanes);
  Step s(members, 6, hidden, out, tanh, dtype);
  const auto step = func::compile(s.run);
  manual_seed(9);
  Trained t;
  for (int i = 0; i < 3; ++i) {
    const Tensor x = randn({12, 6}).to(dtype);
    const Tensor y = out > 1 ? randint(out, {members, 12}) : randn({members, 12, 1}).to(dtype);
    step(s.params, x, y);
  }
  for (const auto& [name, p] : s.params)
    for (const double v : p.to(kFloat64).to_vector<double>()) t.weights.push_back(v);
  t.text = step.text();
  tutti::detail::set_lanes(Lanes::automatic);
  return t;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

bool in_lanes(const Trained& t) { return t.text.find("lane_matmul") != std::string::npos; }

}  // namespace

TEST_CASE("a training step is the same with members in lanes") {
  const Restore restore;
  for (const std::int64_t members : {3, 16, 21, 70})
    for (const std::int64_t out : {1, 4})
      for (const bool tanh : {false, true}) {
        CAPTURE(members);
        CAPTURE(out);
        CAPTURE(tanh);
        const Trained rows = train(Lanes::never, members, 8, out, tanh, kFloat64),
                      lanes = train(Lanes::always, members, 8, out, tanh, kFloat64);
        CHECK(!in_lanes(rows));
        CHECK(in_lanes(lanes));
        CHECK(largest_difference(lanes.weights, rows.weights) < 1e-12);
      }
}

TEST_CASE("narrow nets lie in lanes and others do not") {
  const Restore restore;
  for (const kernels::Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    INFO(std::string(kernels::name(isa)));
    const Trained narrow = train(Lanes::automatic, 70, 8, 1, false);
    CHECK(in_lanes(narrow) == (isa >= kernels::Isa::avx2));
    CHECK(!in_lanes(train(Lanes::automatic, 3, 8, 1, false)));
    CHECK(!in_lanes(train(Lanes::automatic, 70, 64, 1, false)));
    if (isa >= kernels::Isa::avx2) {
      CHECK(narrow.text.find("lane_matmul+relu(") != std::string::npos);
      CHECK(narrow.text.find("lane_matmul+relu_grad+sum(") != std::string::npos);
    }
  }
}

TEST_CASE("members in lanes give the same bits for any number of threads") {
  const Restore restore;
  std::vector<std::vector<double>> results;
  for (const int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    results.push_back(train(Lanes::always, 150, 8, 4, false).weights);
  }
  for (const auto& r : results) CHECK(r == results[0]);
}

TEST_CASE("views of values in lanes") {
  const Restore restore;
  const NoGradGuard guard;
  // Slices, transposes, expansions and axes of the size of the block, of what a product made.
  const auto f = [](const Tensor& w, const Tensor& x) {
    const Tensor y = x.matmul(w.t());                       // [5, 4]
    const Tensor part = y.narrow(0, 1, 3).narrow(1, 0, 2);  // [3, 2]
    const Tensor column = y.select(1, 2).unsqueeze(1).expand({5, 4});
    const Tensor all = (y * column).t() + y.narrow(1, 0, 1).t();
    return std::make_tuple(part.t().matmul(part) + 1, all.sum(0), all.flip(0).cumsum(1),
                           y.reshape({2, 10}).amax(0), y.sum());
  };
  const Tensor w = randn({2, 4, 3}, kFloat64).expand({2, 4, 3}), x = randn({2, 5, 3}, kFloat64);
  const Tensor many_w = randn({5, 4, 3}, kFloat64), many_x = randn({5, 3, 5}, kFloat64);
  for (const Lanes lanes : {Lanes::never, Lanes::always}) {
    tutti::detail::set_lanes(lanes);
    const auto same = [&](const auto& mapped, const auto&... args) {
      const auto expected = mapped(args...);
      const auto got = func::compile(mapped)(args...);
      const auto close = [](const Tensor& a, const Tensor& b) {
        CHECK(a.sizes() == b.sizes());
        CHECK((a - b).abs().max().template item<double>() < 1e-12);
      };
      close(std::get<0>(got), std::get<0>(expected));
      close(std::get<1>(got), std::get<1>(expected));
      close(std::get<2>(got), std::get<2>(expected));
      close(std::get<3>(got), std::get<3>(expected));
      close(std::get<4>(got), std::get<4>(expected));
    };
    same(func::vmap(f), w, x);
    same(func::vmap(f, {0, 2}), many_w, many_x);  // members are not first, and as many as rows
  }
}

TEST_CASE("a gradient that is needed besides the derivative of relu") {
  const Restore restore;
  const NoGradGuard guard;
  const auto residual = [](const Tensor& w, const Tensor& x) {
    const Tensor h = x.matmul(w).relu();
    return (h.matmul(w).relu() + h).matmul(w).square().sum();
  };
  const auto gradient = func::vmap(func::grad(residual), {0, std::nullopt});
  const Tensor w = randn({9, 6, 6}, kFloat64), x = randn({5, 6}, kFloat64);
  for (const Lanes lanes : {Lanes::never, Lanes::always}) {
    tutti::detail::set_lanes(lanes);
    const auto compiled = func::compile(gradient);
    const Tensor got = compiled(w, x), expected = gradient(w, x);
    CHECK((got - expected).abs().max().item<double>() <
          1e-10 * expected.abs().max().item<double>());
  }
}
