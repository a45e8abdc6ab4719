// Base autograd: backward(), autograd::grad, hooks, in-place ops and views with history, custom
// functions, higher derivatives.
#include <tutti/autograd/autograd.h>

#include "behaviour.h"

using namespace tutti;

namespace {
Tensor leaf(std::initializer_list<double> values) {
  return tensor(std::vector<double>(values), kFloat64).requires_grad_();
}
}  // namespace

// ---- backward

TEST_CASE("backward accumulates into leaves") {
  Tensor x = leaf({1, 2, 3});
  CHECK(x.is_leaf());
  CHECK_FALSE(x.grad().defined());
  (x * x).sum().backward();
  CHECK_VALUES(x.grad(), 2, 4, 6);
  (3 * x).sum().backward();
  CHECK_VALUES(x.grad(), 5, 7, 9);
  x.mutable_grad() = Tensor();
  CHECK_FALSE(x.grad().defined());
  x.sum().backward();
  CHECK_VALUES(x.grad(), 1, 1, 1);
  CHECK_FALSE(x.grad().requires_grad());
}

TEST_CASE("a gradient handed to somebody is not changed by later passes") {
  Tensor x = leaf({1, 2});
  Tensor g = ones(2, kFloat64);
  x.backward(g);
  x.backward(g);
  CHECK_VALUES(g, 1, 1);
  CHECK_VALUES(x.grad(), 2, 2);
  Tensor seen = x.grad();
  x.backward(g);
  CHECK_VALUES(seen, 2, 2);
  CHECK_VALUES(x.grad(), 3, 3);
}

TEST_CASE("two leaves that get the same gradient do not share it") {
  Tensor a = leaf({1, 2}), b = leaf({3, 4});
  (a + b).sum().backward();
  a.mutable_grad().mul_(5);
  CHECK_VALUES(b.grad(), 1, 1);
}

TEST_CASE("a value used twice, in a diamond, and broadcast") {
  Tensor x = leaf({3});
  Tensor a = x * 2, b = x + 1;
  (a * b + a).sum().backward();  // 2x(x + 1) + 2x
  CHECK_VALUES(x.grad(), 16);

  Tensor row = leaf({1, 2, 3});
  Tensor column = tensor({{1.0}, {2.0}}, kFloat64).requires_grad_();
  (row * column).sum().backward();
  CHECK_VALUES(row.grad(), 3, 3, 3);
  CHECK(column.grad().sizes() == std::vector<std::int64_t>{2, 1});
  CHECK_VALUES(column.grad(), 6, 6);

  Tensor one = tensor({{2.0}}, kFloat64).requires_grad_();
  (one * ones({3, 4}, kFloat64)).sum().backward();
  CHECK(one.grad().sizes() == std::vector<std::int64_t>{1, 1});
  CHECK_VALUES(one.grad(), 12);
}

TEST_CASE("backward of a leaf, and of several outputs at once") {
  Tensor x = tensor(2.0, kFloat64).requires_grad_();
  x.backward();
  CHECK_VALUES(x.grad(), 1);
  Tensor a = x * 3, b = x * x;
  autograd::backward({a, b}, {tensor(1.0, kFloat64), tensor(10.0, kFloat64)});
  CHECK_VALUES(x.grad(), 1 + 3 + 40);
}

TEST_CASE("backward asks for a gradient unless there is one element") {
  Tensor x = leaf({1, 2});
  Tensor y = x * x;
  CHECK_THROWS_SAYING(y.backward(), AutogradError, "[2]");
  CHECK_THROWS_SAYING(y.backward(ones(3, kFloat64)), ShapeError, "[2]", "[3]");
  y.backward(tensor({1.0, 10.0}, kFloat64));
  CHECK_VALUES(x.grad(), 2, 40);
  Tensor z = tensor({1.0}, kFloat64);
  CHECK_THROWS_SAYING(z.backward(), AutogradError, "does not require grad");
}

TEST_CASE("a graph is freed by its first use unless retained") {
  Tensor x = leaf({2});
  Tensor y = x.exp().sum();
  y.backward({}, true);
  y.backward();
  CHECK_CLOSE(x.grad(), 2 * x.detach().exp(), 1e-12);
  CHECK_THROWS_SAYING(y.backward(), AutogradError, "already used", "retain_graph");
}

TEST_CASE("integer and bool results carry no history") {
  Tensor x = leaf({1, 3, 2});
  CHECK_FALSE((x > 1).requires_grad());
  CHECK_FALSE(x.argmax().requires_grad());
  CHECK_FALSE(x.to(kInt64).requires_grad());
  auto [values, indices] = x.sort();
  CHECK(values.requires_grad());
  CHECK_FALSE(indices.requires_grad());
  (values * tensor({1.0, 10.0, 100.0}, kFloat64)).sum().backward();
  CHECK_VALUES(x.grad(), 1, 100, 10);
}

TEST_CASE("several outputs of one op") {
  Tensor x = tensor({{1.0, 5.0}, {4.0, 2.0}}, kFloat64).requires_grad_();
  auto [values, indices] = x.max(1);
  (values * tensor({1.0, 2.0}, kFloat64)).sum().backward();
  CHECK_VALUES(x.grad(), 0, 1, 2, 0);
  x.mutable_grad() = Tensor();
  std::vector<Tensor> rows = x.unbind(0);
  (rows[0] * 3).sum().backward();
  CHECK_VALUES(x.grad(), 3, 3, 0, 0);
}

TEST_CASE("the gradient has the leaf's dtype") {
  Tensor x = ones(2).requires_grad_();
  Tensor y = ones(2, kFloat64);
  (x.to(kFloat64) * y * 2).sum().backward();
  CHECK(x.grad().dtype() == kFloat32);
  CHECK_VALUES(x.grad(), 2, 2);
  Tensor mixed = ones(2).requires_grad_();
  (mixed * y).sum().backward();
  CHECK(mixed.grad().dtype() == kFloat32);
}

// ---- autograd::grad

TEST_CASE("autograd::grad returns gradients and accumulates nothing") {
  Tensor x = leaf({1, 2}), w = leaf({3, 4});
  Tensor y = (x * x * w).sum();
  std::vector<Tensor> g = autograd::grad({y}, {w, x});
  CHECK_VALUES(g[0], 1, 4);
  CHECK_VALUES(g[1], 6, 16);
  CHECK_FALSE(x.grad().defined());
  CHECK_FALSE(w.grad().defined());
}

TEST_CASE("autograd::grad towards intermediate values, and with given gradients") {
  Tensor x = leaf({2});
  Tensor a = x * 3, b = a * a;
  CHECK_VALUES(autograd::grad({b}, {a}, {ones(1, kFloat64)}, true)[0], 12);
  CHECK_VALUES(autograd::grad({b}, {a, x}, {full({1}, 2.0, kFloat64)})[1], 72);
}

TEST_CASE("autograd::grad and inputs that were not used") {
  Tensor x = leaf({1}), unused = leaf({1});
  Tensor y = (x * 2).sum();
  CHECK_THROWS_SAYING(autograd::grad({y}, {x, unused}, {}, true), AutogradError, "input 1",
                      "allow_unused");
  std::vector<Tensor> g = autograd::grad({y}, {x, unused}, {}, true, false, true);
  CHECK_VALUES(g[0], 2);
  CHECK_FALSE(g[1].defined());
  CHECK_THROWS_SAYING(autograd::grad({y}, {tensor(1.0, kFloat64)}), AutogradError,
                      "does not require grad");
}

TEST_CASE("higher derivatives through create_graph") {
  Tensor x = tensor(1.3, kFloat64).requires_grad_();
  Tensor y = x.sin() * x.pow(3);
  Tensor g1 = autograd::grad({y}, {x}, {}, std::nullopt, true)[0];
  Tensor g2 = autograd::grad({g1}, {x}, {}, std::nullopt, true)[0];
  Tensor g3 = autograd::grad({g2}, {x})[0];
  const double v = 1.3, s = std::sin(v), c = std::cos(v);
  CHECK(g1.item<double>() == doctest::Approx(v * v * v * c + 3 * v * v * s).epsilon(1e-12));
  CHECK(g2.item<double>() ==
        doctest::Approx(-v * v * v * s + 6 * v * v * c + 6 * v * s).epsilon(1e-12));
  CHECK(g3.item<double>() ==
        doctest::Approx(-v * v * v * c - 9 * v * v * s + 18 * v * c + 6 * s).epsilon(1e-12));
}

TEST_CASE("a gradient penalty trains through the gradient") {
  Tensor x = leaf({1, 2}), w = leaf({0.5, -1});
  Tensor y = (w * x * x).sum();
  Tensor g = autograd::grad({y}, {x}, {}, std::nullopt, true)[0];  // 2 w x
  CHECK(g.requires_grad());
  (g * g).sum().backward();
  CHECK_VALUES(w.grad(), 4, -32);  // 8 w x^2
  CHECK_VALUES(x.grad(), 2, 16);   // 8 w^2 x
}

TEST_CASE("a gradient made with create_graph may be changed, and its graph stays") {
  Tensor x = leaf({1});
  const std::size_t hook = x.register_hook([](const Tensor& g) { return g.exp(); });
  (x * x).sum().backward({}, std::nullopt, true);  // exp(2 x), which its derivative reads again
  x.remove_hook(hook);
  {
    NoGradGuard guard;
    x.mutable_grad().mul_(5);
  }
  CHECK_CLOSE(autograd::grad({x.grad()}, {x}, {ones(1, kFloat64)})[0],
              full({1}, 2 * std::exp(2.0), kFloat64), 1e-12);
  x.mutable_grad() = Tensor();  // whose graph holds x
}

TEST_CASE("retained gradients are their own") {
  Tensor x = leaf({1, 1}), a = x * 2, b = x * 3, seed = ones({2}, kFloat64);
  a.retain_grad();
  b.retain_grad();
  (a + b).backward(seed, true);
  a.mutable_grad().mul_(5);
  CHECK_VALUES(b.grad(), 1, 1);
  CHECK_VALUES(seed, 1, 1);
  Tensor c = x * 2;
  c.retain_grad();
  c.sum().backward();
  c.mutable_grad().mul_(5);  // not one number that stands for all
  CHECK_VALUES(c.grad(), 5, 5);
}

TEST_CASE("with create_graph, too, each leaf's gradient is its own") {
  Tensor x = leaf({1}), y = leaf({1}), seed = ones({1}, kFloat64);
  (x + y).backward(seed, std::nullopt, true);
  {
    NoGradGuard guard;
    x.mutable_grad().mul_(5);
  }
  CHECK_VALUES(y.grad(), 1);
  CHECK_VALUES(seed, 1);
}

TEST_CASE("backward with create_graph leaves a gradient that can be differentiated") {
  Tensor x = leaf({3});
  (x * x * x).sum().backward({}, std::nullopt, true);
  Tensor g = x.grad();
  CHECK(g.requires_grad());
  x.mutable_grad() = Tensor();  // breaks the cycle between the leaf and its gradient
  g.sum().backward();
  CHECK_VALUES(x.grad(), 18);
  x.mutable_grad() = Tensor();
}

// ---- hooks and retained gradients

TEST_CASE("hooks see gradients and may replace them") {
  Tensor x = leaf({1, 2});
  Tensor y = x * 2;
  std::vector<double> seen;
  y.register_hook([&](const Tensor& g) {
    seen = g.to_vector<double>();
    return g * 10;
  });
  x.register_hook([&](const Tensor& g) {
    CHECK_VALUES(g, 60, 60);
    return Tensor();  // leaves it as it is
  });
  (y * 3).sum().backward();
  CHECK(seen == std::vector<double>{3, 3});
  CHECK_VALUES(x.grad(), 60, 60);
  CHECK_THROWS_SAYING(tensor(1.0).register_hook([](const Tensor& g) { return g; }), AutogradError,
                      "does not require grad");
}

TEST_CASE("a hook is called once with the whole gradient, hooks in order") {
  Tensor x = leaf({1});
  Tensor y = x * 1;
  int calls = 0;
  y.register_hook([&](const Tensor& g) {
    ++calls;
    return g + 1;
  });
  y.register_hook([&](const Tensor& g) { return g * 2; });
  (y * 2 + y * 3).sum().backward();
  CHECK(calls == 1);
  CHECK_VALUES(x.grad(), 12);
}

TEST_CASE("a hook may register another one, for the next time") {
  Tensor x = leaf({1});
  Tensor y = x * 1;
  int registered = 0;
  y.register_hook([&](const Tensor& g) {
    for (int i = 0; i < 10; ++i) y.register_hook([](const Tensor& h) { return h * 2; });
    ++registered;
    return g + 1;
  });
  y.sum().backward({}, true);
  CHECK_VALUES(x.grad(), 2);
  x.mutable_grad() = Tensor();
  y.sum().backward();
  CHECK_VALUES(x.grad(), 2048);
  CHECK(registered == 2);
}

TEST_CASE("a hook keeps its state, may return nothing, and can be removed") {
  Tensor x = leaf({1}), y = x * 1;
  const std::size_t counting = x.register_hook([calls = 0](const Tensor& g) mutable {
    ++calls;
    return g * calls;
  });
  int seen = 0;
  const std::size_t looking = x.register_hook([&](const Tensor& g) { seen += g.item<int>(); });
  for (int i = 0; i < 3; ++i) y.sum().backward({}, true);
  CHECK_VALUES(x.grad(), 6);
  CHECK(seen == 6);
  x.remove_hook(counting);
  y.sum().backward({}, true);
  CHECK_VALUES(x.grad(), 7);
  CHECK(seen == 7);
  x.remove_hook(looking);
  y.sum().backward({}, true);
  CHECK_VALUES(x.grad(), 8);
  CHECK(seen == 7);
  CHECK_THROWS_SAYING(x.remove_hook(2), IndexError, "got 2");
  CHECK_THROWS_SAYING(y.remove_hook(0), IndexError, "got 0");
}

TEST_CASE("a hook must return a gradient like its argument") {
  Tensor x = leaf({1, 2, 3}), w = ones({2, 3}, kFloat64).requires_grad_();
  const auto with = [&](const Tensor& wrong) {
    Tensor y = linear(x, w);
    y.register_hook([&](const Tensor&) { return wrong; });
    y.sum().backward();
  };
  CHECK_THROWS_SAYING(with(ones({100000}, kFloat64)), ShapeError,
                      "a hook returned a gradient of shape [100000], expected [2]");
  CHECK_THROWS_SAYING(with(ones({2}, kFloat32)), TypeError,
                      "a hook returned a gradient of dtype float32, expected float64");
  CHECK_THROWS_SAYING(with(empty({2}, TensorOptions(kFloat64).device(kMeta))), DeviceError,
                      "a hook returned a gradient on meta, expected cpu");
}

TEST_CASE("gradients given to backward have the dtype of the output") {
  for (const DType given : {kFloat32, kFloat64, kInt64, kBFloat16}) {
    Tensor x = ones({3, 50}).requires_grad_(), w = ones({4, 50}).requires_grad_();
    linear(x, w).backward(full({3, 4}, 2, given));
    CHECK(x.grad().dtype() == kFloat32);
    CHECK(allclose(x.grad(), full({3, 50}, 8)));
    CHECK(allclose(w.grad(), full({4, 50}, 6)));
  }
  Tensor x = leaf({1, 2});
  CHECK_THROWS_SAYING((x * 1).backward(empty({2}, TensorOptions(kFloat64).device(kMeta))),
                      DeviceError, "expected a gradient on cpu, got one on meta");
}

TEST_CASE("retain_grad keeps the gradient of an intermediate value") {
  Tensor x = leaf({1, 2});
  Tensor y = x * 2, z = y * y;
  y.retain_grad();
  y.retain_grad();  // twice is fine
  z.sum().backward();
  CHECK_VALUES(y.grad(), 4, 8);
  CHECK_FALSE(z.grad().defined());
  CHECK_FALSE(y.is_leaf());
}

// ---- modes and detaching

TEST_CASE("no_grad, grad mode and their nesting") {
  Tensor x = leaf({1});
  CHECK(is_grad_enabled());
  {
    NoGradGuard guard;
    CHECK_FALSE(is_grad_enabled());
    CHECK_FALSE((x * 2).requires_grad());
    {
      AutoGradMode on(true);
      CHECK(is_grad_enabled());
      CHECK((x * 2).requires_grad());
    }
    CHECK_FALSE(is_grad_enabled());
    CHECK(ones(1).requires_grad_().requires_grad());  // leaves can be made anywhere
  }
  CHECK(is_grad_enabled());
  try {
    NoGradGuard guard;
    throw 1;
  } catch (int) {
  }
  CHECK(is_grad_enabled());
}

TEST_CASE("detach shares the value without the history") {
  Tensor x = leaf({1, 2});
  Tensor d = x.detach();
  CHECK_FALSE(d.requires_grad());
  CHECK(d.is_leaf());
  CHECK(d.data_ptr<double>() == x.data_ptr<double>());
  (x * x.detach()).sum().backward();
  CHECK_VALUES(x.grad(), 1, 2);
  Tensor y = x * 2;
  y.detach_();
  CHECK_FALSE(y.requires_grad());
  CHECK(y.is_leaf());
}

TEST_CASE("requires_grad_ on what cannot") {
  CHECK_THROWS_SAYING(tensor({1, 2}).requires_grad_(), TypeError, "floating", "int64");
  Tensor x = leaf({1}), y = x * 2;
  CHECK_THROWS_SAYING(y.requires_grad_(false), AutogradError, "detach");
  x.requires_grad_(false);
  CHECK_FALSE(x.requires_grad());
  CHECK_FALSE((x * 2).requires_grad());
}

TEST_CASE("a view of a leaf made before requires_grad_ follows it") {
  Tensor x = ones(3, kFloat64);
  Tensor v = x.narrow(0, 1, 2);
  x.requires_grad_();
  (v * 5).sum().backward();
  CHECK_VALUES(x.grad(), 0, 5, 5);
  x.requires_grad_(false);
  CHECK_FALSE(v.requires_grad());
}

// ---- in-place ops and views

TEST_CASE("a leaf that requires grad is not changed in place, unless grad mode is off") {
  Tensor x = leaf({1, 2});
  CHECK_THROWS_SAYING(x.add_(1), AutogradError, "leaf", "NoGradGuard");
  CHECK_THROWS_SAYING(x[0].add_(1), AutogradError, "leaf", "view");
  CHECK_VALUES(x, 1, 2);
  {
    NoGradGuard guard;
    x.add_(1);
    x[0].mul_(10);
  }
  CHECK_VALUES(x, 20, 3);
  CHECK(x.requires_grad());
  CHECK(x.is_leaf());
  (x * x).sum().backward();
  CHECK_VALUES(x.grad(), 40, 6);
}

TEST_CASE("in-place ops on intermediate values are differentiated") {
  Tensor x = leaf({1, 2});
  Tensor y = x * 2;
  y.mul_(3).add_(x);
  CHECK_FALSE(y.is_leaf());
  y.sum().backward();
  CHECK_VALUES(x.grad(), 7, 7);

  Tensor z = zeros(2, kFloat64);  // a plain tensor takes over history
  z.copy_(x * x.detach());
  CHECK(z.requires_grad());
  z.sum().backward();
  CHECK_VALUES(x.grad(), 8, 9);

  Tensor c = zeros(2, kFloat64);
  c.copy_(x);  // from a leaf: a copy of it, not the leaf
  CHECK_FALSE(c.is_leaf());
  c.mul_(4).sum().backward();
  CHECK_VALUES(x.grad(), 12, 13);
  CHECK_VALUES(x, 1, 2);
}

TEST_CASE("overwriting history forgets it") {
  Tensor x = leaf({1, 2});
  Tensor y = x * 2;
  y.copy_(tensor({5.0, 6.0}, kFloat64));
  CHECK_VALUES(y, 5, 6);
  Tensor s = (y * x).sum();
  s.backward();
  CHECK_VALUES(x.grad(), 5, 6);
}

TEST_CASE("writing into a view changes the base's history") {
  Tensor x = leaf({1, 2});
  Tensor base = zeros({2, 2}, kFloat64);
  base[1].copy_(x * 3);
  CHECK(base.requires_grad());
  base[0].add_(x.sum());
  CHECK_VALUES(base, 3, 3, 3, 6);
  (base * tensor({{1.0, 2.0}, {10.0, 20.0}}, kFloat64)).sum().backward();
  CHECK_VALUES(x.grad(), 33, 63);
}

TEST_CASE("a view follows later writes to its base, and the base writes through views of views") {
  Tensor x = leaf({2});
  Tensor base = ones({2, 3}, kFloat64);
  Tensor v = base.t(), w = v.narrow(0, 1, 2), deep = w[1];
  base.mul_(x);
  CHECK(w.requires_grad());
  deep.mul_(x);  // the last column: x^2
  CHECK_VALUES(base, 2, 2, 4, 2, 2, 4);
  CHECK_VALUES(v, 2, 2, 2, 2, 4, 4);
  w.sum().backward();  // 2x + 2x^2
  CHECK_VALUES(x.grad(), 10);
}

TEST_CASE("a saved value that was changed is an error that names the op") {
  Tensor x = leaf({1, 2});
  Tensor y = x.exp();
  Tensor z = y.sum();
  y.add_(1);
  CHECK_THROWS_SAYING(z.backward(), AutogradError, "exp", "changed in place");

  Tensor w = ones(2, kFloat64);
  Tensor p = (x * w).sum();
  w.add_(1);
  CHECK_THROWS_SAYING(p.backward(), AutogradError, "mul", "changed in place");

  Tensor base = ones({2, 2}, kFloat64);
  Tensor q = (x * base[0]).sum();
  base[1].zero_();  // another row of the same storage counts too, as in PyTorch
  CHECK_THROWS_SAYING(q.backward(), AutogradError, "mul");

  Tensor s = (x + w).sum();  // addition saves no values
  w.add_(1);
  CHECK_NOTHROW(s.backward());
}

TEST_CASE("a saved leaf changed under no_grad is noticed as well") {
  Tensor x = leaf({1, 2});
  Tensor y = (x * x).sum();
  {
    NoGradGuard guard;
    x.add_(1);
  }
  CHECK_THROWS_SAYING(y.backward(), AutogradError, "mul");
}

// ---- custom functions

namespace {

struct Cube : autograd::Function<Cube> {
  static Tensor forward(autograd::AutogradContext* ctx, Tensor x, double scale) {
    ctx->save_for_backward({x});
    ctx->saved_data["scale"] = scale;
    return x * x * x * scale;
  }
  static std::vector<Tensor> backward(autograd::AutogradContext* ctx, std::vector<Tensor> g) {
    Tensor x = ctx->get_saved_variables()[0];
    return {g[0] * 3 * x * x * ctx->saved_data["scale"].to<double>(), Tensor()};
  }
};

struct OtherDType : autograd::Function<OtherDType> {
  static Tensor forward(autograd::AutogradContext*, const Tensor& x) { return x * 0.5; }
  static std::vector<Tensor> backward(autograd::AutogradContext*, const std::vector<Tensor>& g) {
    return {(g[0] * 0.5).to(kFloat64)};
  }
};

struct OtherDevice : autograd::Function<OtherDevice> {
  static Tensor forward(autograd::AutogradContext*, const Tensor& x) { return x * 0.5; }
  static std::vector<Tensor> backward(autograd::AutogradContext*, const std::vector<Tensor>& g) {
    return {empty(g[0].sizes(), TensorOptions(g[0].dtype()).device(kMeta))};
  }
};

struct Exp : autograd::Function<Exp> {
  static Tensor forward(autograd::AutogradContext* ctx, Tensor x) {
    Tensor y = x.exp();
    ctx->save_for_backward({y});
    return y;
  }
  static std::vector<Tensor> backward(autograd::AutogradContext* ctx, std::vector<Tensor> g) {
    return {g[0] * ctx->get_saved_variables()[0]};
  }
};

struct SumAndDifference : autograd::Function<SumAndDifference> {
  static std::vector<Tensor> forward(autograd::AutogradContext*, Tensor a, Tensor b) {
    return {a + b, a - b};
  }
  static std::vector<Tensor> backward(autograd::AutogradContext*, std::vector<Tensor> g) {
    return {g[0] + g[1], g[0] - g[1]};
  }
};

struct StraightThrough : autograd::Function<StraightThrough> {
  static Tensor forward(autograd::AutogradContext*, Tensor x) { return x.round(); }
  static std::vector<Tensor> backward(autograd::AutogradContext*, std::vector<Tensor> g) {
    return {g[0]};
  }
};

struct WrongCount : autograd::Function<WrongCount> {
  static Tensor forward(autograd::AutogradContext*, Tensor x, double) { return x * 2; }
  static std::vector<Tensor> backward(autograd::AutogradContext*, std::vector<Tensor> g) {
    return {g[0]};
  }
};

struct WrongDerivative : autograd::Function<WrongDerivative> {
  static Tensor forward(autograd::AutogradContext*, Tensor x) { return x * x; }
  static std::vector<Tensor> backward(autograd::AutogradContext*, std::vector<Tensor> g) {
    return {g[0] * 3};
  }
};

struct Pass : autograd::Function<Pass> {
  static Tensor forward(autograd::AutogradContext*, Tensor x) { return x; }
  static std::vector<Tensor> backward(autograd::AutogradContext*, std::vector<Tensor> g) {
    return {g[0] * 7};
  }
};

}  // namespace

TEST_CASE("a custom function uses its own derivative") {
  Tensor x = leaf({1, 2});
  Cube::apply(x, 2.0).sum().backward();
  CHECK_VALUES(x.grad(), 6, 24);
  Tensor r = leaf({0.4, 1.6});
  StraightThrough::apply(r).sum().backward();
  CHECK_VALUES(r.grad(), 1, 1);
  Tensor p = leaf({5});
  Tensor y = Pass::apply(p);  // hands its input on: a new value with its own history
  y.sum().backward();
  CHECK_VALUES(p.grad(), 7);
  CHECK_FALSE(Cube::apply(ones(1), 1.0).requires_grad());
}

TEST_CASE("a custom function with two inputs and two outputs, one of them unused") {
  Tensor a = leaf({1}), b = leaf({2});
  std::vector<Tensor> y = SumAndDifference::apply(a, b);
  (y[1] * 5).sum().backward();
  CHECK_VALUES(a.grad(), 5);
  CHECK_VALUES(b.grad(), -5);
}

TEST_CASE("custom functions are differentiable again") {
  Tensor x = leaf({2});
  Tensor g = autograd::grad({Cube::apply(x, 1.0)}, {x}, {ones(1, kFloat64)}, true, true)[0];
  CHECK_VALUES(autograd::grad({g}, {x}, {ones(1, kFloat64)})[0], 12);
  Tensor e = autograd::grad({Exp::apply(x)}, {x}, {ones(1, kFloat64)}, true, true)[0];
  CHECK_CLOSE(autograd::grad({e}, {x}, {ones(1, kFloat64)})[0], x.detach().exp(), 1e-12);
}

TEST_CASE("what a custom backward gives is brought to the dtype of its input") {
  Tensor x = ones({5, 3}).requires_grad_(), w = ones({4, 3}).requires_grad_();
  OtherDType::apply(linear(x, w)).sum().backward();
  CHECK(x.grad().dtype() == kFloat32);
  CHECK(allclose(x.grad(), full({5, 3}, 2)));
  CHECK(allclose(w.grad(), full({4, 3}, 2.5)));
}

TEST_CASE("custom functions: misuse") {
  Tensor x = leaf({1});
  CHECK_THROWS_SAYING(OtherDevice::apply(x * 1).sum().backward(), DeviceError, "is on meta",
                      "expected cpu");
  CHECK_THROWS_SAYING(WrongCount::apply(x, 1.0).sum().backward(), ValueError, "expected 2",
                      "got 1");
  Tensor w = ones(1, kFloat64);
  Tensor y = Cube::apply(x * w, 1.0);
  Tensor inner = x * 2;
  Tensor z = Exp::apply(inner);
  z.add_(1);  // the saved output
  CHECK_THROWS_SAYING(z.sum().backward(), AutogradError, "changed in place");
  CHECK_NOTHROW(y.sum().backward());
}

// ---- checks of derivatives

TEST_CASE("gradcheck and gradgradcheck accept right derivatives and refuse wrong ones") {
  auto f = [](const std::vector<Tensor>& v) { return (v[0].matmul(v[1]).tanh() * v[2]).sum(); };
  manual_seed(3);
  std::vector<Tensor> in = {randn({2, 3}, kFloat64), randn({3, 2}, kFloat64), randn(2, kFloat64)};
  CHECK(autograd::gradcheck(f, in));
  CHECK(autograd::gradgradcheck(f, in));
  auto cube = [](const std::vector<Tensor>& v) { return Cube::apply(v[0], 0.5); };
  CHECK(autograd::gradcheck(cube, {in[2]}));
  CHECK(autograd::gradgradcheck(cube, {in[2]}));
  auto wrong = [](const std::vector<Tensor>& v) { return WrongDerivative::apply(v[0]); };
  CHECK_THROWS_SAYING(autograd::gradcheck(wrong, {in[2]}), AutogradError, "differences");
  CHECK_THROWS_SAYING(autograd::gradcheck(f, {ones({2, 3}), in[1], in[2]}), TypeError, "float32");
}

TEST_CASE("a training loop by hand finds the minimum") {
  manual_seed(0);
  Tensor x = randn({64, 3}, kFloat64), target = x.matmul(tensor({1.0, -2.0, 0.5}, kFloat64));
  Tensor w = zeros(3, kFloat64).requires_grad_();
  for (int step = 0; step < 200; ++step) {
    Tensor loss = (x.matmul(w) - target).square().mean();
    loss.backward();
    NoGradGuard guard;
    w.sub_(w.grad() * 0.2);
    w.mutable_grad().zero_();
  }
  CHECK_VALUES(w, 1, -2, 0.5);
}
