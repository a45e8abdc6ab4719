// Layer norm, batch norm, gelu and dropout as fused ops: values and gradients against what they are
// made of, in double precision and with every instruction set; one op forward and one backward,
// mapped or not; the same bits for any number of threads.
#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include <tutti/core/kernels/isa.h>
#include <tutti/core/parallel.h>
#include <tutti/tutti.h>

#include "listener.h"
#include "test.h"

using namespace tutti;
using func::vmap;
using std::nullopt;

namespace {

using Names = std::vector<std::string>;

/// The names of the ops that run while it exists, views and zero_grad's like left out.
class OpNames final : public tutti_test::Listener {
 public:
  Names names;

 protected:
  void heard(const Op& op, const Tensors&) override {
    if (!op.alias) names.push_back(op.name);
  }
};
template <class F>
Names names_of(const F& f) {
  OpNames listener;
  f();
  return listener.names;
}

struct Restore {
  kernels::Isa isa = kernels::isa();
  int threads = num_threads();
  ~Restore() {
    kernels::set_isa(isa);
    set_num_threads(threads);
  }
};

using Values = std::vector<Tensor>;
using Function = std::function<Tensor(const Values&)>;

/// f(in), and its gradients for the cotangent g, under base autograd.
Values with_gradients(const Function& f, const Values& in, const Tensor& g) {
  Values leaves;
  for (const Tensor& x : in) leaves.push_back(x.detach().clone().requires_grad_());
  const Tensor y = f(leaves);
  y.backward(g);
  Values r{y.detach()};
  for (const Tensor& x : leaves) r.push_back(x.grad());
  return r;
}

/// The largest difference in units in the last place of float32 at `top`.
double units_off(const Tensor& y, const Tensor& exact, double top) {
  REQUIRE(y.sizes() == exact.sizes());
  if (y.numel() == 0) return 0;
  return (y.to(kFloat64) - exact).abs().max().item<double>() / (top * 0x1p-23);
}
double largest(const Tensor& x) { return x.numel() == 0 ? 0 : x.abs().max().item<double>(); }

bool same_bits(const Values& a, const Values& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!equal(a[i], b[i])) return false;
  return a.size() == b.size();
}

// What the ops are made of.
Tensor layer_norm_by_parts(const Values& v) {
  const Tensor centred = v[0] - v[0].mean(-1, true);
  const Tensor z = centred * (centred.square().mean(-1, true) + 1e-5).rsqrt();
  return z * v[1] + v[2];
}
Tensor batch_norm_by_parts(const Values& v) {
  Shape axes{0}, across{1, v[0].size(1)};
  for (std::int64_t d = 2; d < v[0].dim(); ++d) {
    axes.push_back(d);
    across.push_back(1);
  }
  const Tensor centred = v[0] - v[0].mean(axes).reshape(across);
  const Tensor scale = (centred.square().mean(axes) + 1e-5).rsqrt() * v[1];
  return centred * scale.reshape(across) + v[2].reshape(across);
}
Tensor layer_norm_of(const Values& v) { return layer_norm(v[0], v[0].size(-1), v[1], v[2]); }
Tensor batch_norm_of(const Values& v) { return std::get<0>(batch_norm_train(v[0], v[1], v[2])); }

/// Input, weight, bias and cotangent.
Values operands(std::vector<std::int64_t> sizes, std::int64_t features) {
  manual_seed(7);
  return {randn(sizes) * 2 + 1, rand(features) + 0.5, randn(features), randn(sizes)};
}

/// The largest terms that the result and the gradients of input, weight and bias are sums of, when
/// statistics are taken over `axes` and weights are shared along `shared`.
std::vector<double> terms(const Values& v, const Shape& axes, const Shape& shared) {
  Shape across(v[0].sizes().size(), 1);  // of weight and bias
  for (std::size_t d = 0; d < across.size(); ++d)
    if (std::find(shared.begin(), shared.end(), static_cast<std::int64_t>(d)) == shared.end())
      across[d] = v[0].sizes()[d];
  const Tensor x = v[0].to(kFloat64), w = v[1].to(kFloat64).reshape(across).abs(),
               b = v[2].to(kFloat64).reshape(across).abs(), g = v[3].to(kFloat64).abs();
  const Tensor mean = x.mean(axes, true);
  const Tensor s = ((x - mean).square().mean(axes, true) + 1e-5).rsqrt();
  const Tensor size = (x.abs() + mean.abs()) * s;  // x and its mean cancel
  return {largest(size * w + b), largest(s * g * w) * largest(size),
          largest((g * size).sum(shared)), largest(g.sum(shared))};
}

void check_against_parts(const Function& fused, const Function& parts, const Values& v,
                         const Shape& axes, const Shape& shared) {
  const auto run = [&](const Function& f, DType t) {
    return with_gradients(f, {v[0].to(t), v[1].to(t), v[2].to(t)}, v[3].to(t));
  };
  const Values exact = run(parts, kFloat64);
  const std::vector<double> top = terms(v, axes, shared);
  const Restore restore;
  for (kernels::Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    CAPTURE(kernels::name(isa));
    set_num_threads(1);
    const Values single = run(fused, kFloat32), twofold = run(fused, kFloat64);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      CAPTURE(i);
      CHECK(units_off(single[i], exact[i], top[i]) <= 8);
      CHECK(units_off(twofold[i], exact[i], top[i]) <= 1e-7);
    }
    for (int threads : {2, 3, 7}) {
      set_num_threads(threads);
      CHECK(same_bits(run(fused, kFloat32), single));
    }
  }
}
void check_layer_norm(std::int64_t rows, std::int64_t n) {
  check_against_parts(layer_norm_of, layer_norm_by_parts, operands({rows, n}, n), {1}, {0});
}
void check_batch_norm(const std::vector<std::int64_t>& sizes) {
  Shape axes{0};
  for (std::size_t d = 2; d < sizes.size(); ++d) axes.push_back(static_cast<std::int64_t>(d));
  check_against_parts(batch_norm_of, batch_norm_by_parts, operands(sizes, sizes[1]), axes, axes);
}

}  // namespace

TEST_CASE("layer norm: values and gradients of every length") {
  for (std::int64_t n : {2, 3, 4, 5, 15, 16, 17, 31, 33, 64, 100, 513, 1040})
    for (std::int64_t rows : {1, 2, 31, 32, 33, 100}) {
      if (n * rows > 40000) continue;
      CAPTURE(n);
      CAPTURE(rows);
      check_layer_norm(rows, n);
    }
  check_layer_norm(2001, 64);
}

TEST_CASE("batch norm: values and gradients of every shape") {
  const std::vector<std::vector<std::int64_t>> shapes = {
      {2, 1},    {3, 3},     {31, 15},  {32, 16},   {33, 17},   {64, 63},     {65, 64},   {70, 65},
      {2500, 3}, {100, 200}, {4, 3, 2}, {3, 5, 16}, {5, 2, 77}, {2, 3, 4, 5}, {2000, 130}};
  for (const auto& shape : shapes) {
    INFO(detail::str(IntArrayRef(shape)));
    check_batch_norm(shape);
  }
}

TEST_CASE("one op forward and one backward, whatever is mapped") {
  const Values v = operands({4, 6, 5}, 5);
  const Tensor &x = v[0], w = randn({4, 5}), b = randn({4, 5});
  const auto gradient = [](const auto& f) {
    return func::grad<0, 1, 2>([f](const Tensor& p, const Tensor& q, const Tensor& r) {
      return f(Values{p, q, r}).sum();
    });
  };
  const auto once = [](const Names& names, const char* op) {
    return std::count(names.begin(), names.end(), op) == 1;
  };
  for (const auto& [name, f] : {std::pair("layer_norm", Function(layer_norm_of)),
                                std::pair("batch_norm_train", Function(batch_norm_of))}) {
    const char* const op = name;
    const std::string back =
        op == std::string_view("layer_norm") ? "layer_norm_grad" : "batch_norm_grad";
    CAPTURE(op);
    const auto call = [f = f](const Tensor& p, const Tensor& q, const Tensor& r) {
      return f({p, q, r});
    };
    CHECK(names_of([&] { call(x[0], w[0], b[0]); }) == Names{op});
    CHECK(names_of([&] { vmap(call)(x, w, b); }) == Names{op});
    CHECK(names_of([&] { vmap(call, {nullopt, 0, 0})(x[0], w, b); }) == Names{op});
    CHECK(names_of([&] { vmap(call, {0, nullopt, nullopt})(x, w[0], b[0]); }) == Names{op});
    const std::vector<std::pair<Dims, Tensor>> inputs = {{{0, 0, 0}, x}, {{nullopt, 0, 0}, x[0]}};
    for (const auto& [dims, input] : inputs) {
      const Names all =
          names_of([&, f = f, d = dims, p = input] { vmap(gradient(f), d)(p, w, b); });
      CHECK(once(all, op));
      CHECK(once(all, back.c_str()));
      CHECK(all.size() <= 5);  // besides: the sum and its cotangent
    }
    // Members on their own give the same.
    const auto [dx, dw, db] = vmap(gradient(f), {nullopt, 0, 0})(x[0], w, b);
    for (std::int64_t m = 0; m < 4; ++m) {
      const auto [ex, ew, eb] = gradient(f)(x[0], w[m], b[m]);
      CHECK(equal(dx[m], ex));
      CHECK(equal(dw[m], ew));
      CHECK(equal(db[m], eb));
    }
  }
}

TEST_CASE("only the gradients that are asked for are computed") {
  const Values v = operands({6, 5}, 5);
  const auto f = [&](const Tensor& w) { return layer_norm(v[0], 5, w, v[2]).sum(); };
  const auto g = [&](const Tensor& x) { return layer_norm(x, 5, v[1], v[2]).sum(); };
  const Values exact = with_gradients(layer_norm_by_parts, {v[0], v[1], v[2]}, ones({6, 5}));
  CHECK(largest(func::grad(g)(v[0]) - exact[1]) < 1e-5);
  CHECK(largest(func::grad(f)(v[1]) - exact[2]) < 1e-5);
}

TEST_CASE("empty and single normalised axes, and values that are no numbers") {
  CHECK(layer_norm(ones({2, 0}), 0).sizes() == IntArrayRef({2, 0}));
  CHECK(layer_norm(ones({0, 3}), 3).sizes() == IntArrayRef({0, 3}));
  const Tensor bias = tensor({3.0f}), weight = tensor({2.0f});
  CHECK(equal(layer_norm(tensor({{7.0f}, {-1.0f}}), 1, weight, bias), tensor({{3.0f}, {3.0f}})));
  Values r = with_gradients([](const Values& v) { return layer_norm(v[0], 3, v[1], v[2]); },
                            {ones({0, 3}), ones({3}), ones({3})}, ones({0, 3}));
  CHECK(equal(r[2], zeros({3})));
  CHECK(equal(r[3], zeros({3})));

  Tensor x = randn({3, 20});
  const Tensor before = layer_norm(x, 20);
  x[1][4].fill_(std::nan(""));
  const Tensor after = layer_norm(x, 20);
  CHECK(equal(after[0], before[0]));
  CHECK(equal(after[2], before[2]));
  CHECK(after[1].isnan().all().item<bool>());

  const auto [y, mean, var] = batch_norm_train(ones({0, 2}));
  CHECK(y.sizes() == IntArrayRef({0, 2}));
  CHECK(mean.isnan().all().item<bool>());
  CHECK(var.isnan().all().item<bool>());
  const auto [single, m, v] = batch_norm_train(tensor({{1.0f, 2.0f}}), {}, tensor({5.0f, 6.0f}));
  CHECK(equal(single, tensor({{5.0f, 6.0f}})));
  CHECK(equal(m, tensor({1.0f, 2.0f})));
  CHECK(equal(v, zeros({2})));
}

TEST_CASE("statistics of halves are float32") {
  const Tensor x = (randn({8, 4}) * 3 + 100).to(kFloat16);
  const auto [y, mean, var] = batch_norm_train(x);
  CHECK(y.dtype() == kFloat16);
  CHECK(mean.dtype() == kFloat32);
  const Tensor exact = x.to(kFloat64).mean(0);
  CHECK((mean.to(kFloat64) - exact).abs().max().item<double>() < 1e-4);
  CHECK(layer_norm(x, 4).dtype() == kFloat16);
  CHECK(layer_norm(x, 4, ones({4})).dtype() == kFloat32);
}

TEST_CASE("gelu is one op each way") {
  const Tensor x = randn({3, 40});
  for (const char* approximate : {"none", "tanh"}) {
    const auto f = [&](const Tensor& v) { return gelu(v, approximate); };
    CHECK(names_of([&] { vmap(f)(x); }) == Names{"gelu"});
    const Names all =
        names_of([&] { vmap(func::grad([&](const Tensor& v) { return f(v).sum(); }))(x); });
    CHECK(std::count(all.begin(), all.end(), "gelu_grad") == 1);
    CHECK(all.size() <= 4);
  }
}

TEST_CASE("dropout: one op each way, and the words of bernoulli") {
  const auto options = [](func::Randomness r) { return func::VmapOptions().randomness(r); };
  const auto different = options(func::Randomness::different);
  const auto same = options(func::Randomness::same);
  const Tensor x = randn({5, 3, 43});
  const auto f = [](const Tensor& v) { return dropout(v, 0.3); };
  const auto by_parts = [](const Tensor& v) { return v * (bernoulli(v, 0.7) * (1 / 0.7)); };
  const auto one = [](const auto& g, const Tensor& v) {
    manual_seed(31);
    return g(v);
  };
  const auto check_equal = [&](const auto& a, const auto& b, const Tensor& v) {
    const Tensor p = one(a, v), q = one(b, v);
    CHECK((p - q).abs().max().item<double>() < 1e-6);
    CHECK(equal(p == 0, q == 0));
  };
  check_equal(f, by_parts, x);
  check_equal(f, by_parts, x.transpose(0, 2));
  for (const auto& o : {different, same}) {
    check_equal(vmap(f, 0, 0, o), vmap(by_parts, 0, 0, o), x);
    check_equal(vmap(f, -1, -1, o), vmap(by_parts, -1, -1, o), x);
    for (const auto& inner : {different, same})
      check_equal(vmap(vmap(f, 1, 0, inner), 0, 1, o), vmap(vmap(by_parts, 1, 0, inner), 0, 1, o),
                  x);
  }
  // A mask per example where only another argument is mapped.
  const auto shared = [&](const auto& g) {
    return vmap([&](const Tensor& v) { return g(x[0]) + v; }, 0, 0, different);
  };
  check_equal(shared(f), shared(by_parts), zeros({4}));

  CHECK(names_of([&] { f(x); }) == Names{"dropout"});
  CHECK(names_of([&] { vmap(f, 0, 0, different)(x); }) == Names{"dropout"});
  const auto loss = [&](const Tensor& v) { return f(v).sum(); };
  const Names all = names_of([&] { vmap(func::grad(loss), 0, 0, different)(x); });
  CHECK(std::count(all.begin(), all.end(), "dropout") == 1);
  CHECK(std::count(all.begin(), all.end(), "masked_scale") == 1);
  CHECK(all.size() <= 4);

  const Tensor all_kept = dropout(ones({1000}), 1e-17), nearly = dropout(ones({1000}), 1e-12);
  CHECK(equal(all_kept, ones({1000})));
  CHECK(equal(nearly, ones({1000})));
  CHECK(dropout(ones({3}).to(kBFloat16), 0.5).dtype() == kBFloat16);
}

TEST_CASE("the running statistics of a compiled batch norm, and its words, are eager ones") {
  const NoGradGuard guard;
  std::vector<nn::Sequential> models;
  manual_seed(3);
  for (int m = 0; m < 5; ++m)
    models.emplace_back(nn::Linear(6, 8), nn::BatchNorm1d(8), nn::GELU(), nn::LayerNorm(8),
                        nn::Dropout(0.2), nn::Linear(8, 2));
  const auto options = func::VmapOptions().randomness(func::Randomness::different);
  const auto loss = [&](const TensorDict& p, const TensorDict& b, const Tensor& x) {
    return func::functional_call(models[0], {p, b}, x).square().mean();
  };
  const auto step = [&](const TensorDict& p, const TensorDict& b, const Tensor& x) {
    auto [grads, values] = vmap(func::grad_and_value(loss), {0, 0, nullopt}, 0, options)(p, b, x);
    return std::pair(grads, values);
  };
  const Tensor x = randn({16, 6});
  const auto train = [&](const auto& f) {
    manual_seed(9);
    auto stacked = func::stack_module_state(models);
    Values r;
    for (int i = 0; i < 3; ++i) {
      auto [grads, values] = f(stacked.params, stacked.buffers, x);
      r.push_back(values);
      for (const auto& [name, g] : grads) r.push_back(g);
    }
    for (const auto& [name, b] : stacked.buffers) r.push_back(b.to(kFloat32));
    return r;
  };
  const Values eager = train(step), compiled = train(func::compile(step));
  REQUIRE(eager.size() == compiled.size());
  for (std::size_t i = 0; i < eager.size(); ++i) {
    CAPTURE(i);
    CHECK(units_off(compiled[i], eager[i].to(kFloat64), largest(eager[i]) + 1e-3) <= 8);
  }
}
