// Memory and stack: nothing is kept alive longer than needed, no cycles, and chains of 300,000 ops
// are differentiated and freed without deep recursion. (The runner checks after every test case
// that no tensor is left.)
#include <tutti/autograd/autograd.h>
#include <tutti/func/transforms.h>

#include "behaviour.h"

using namespace tutti;

namespace {

// A sanitizer makes each op some ten times slower.
constexpr int chain_length = tutti_test::sanitized ? 60'000 : 300'000;

std::int64_t alive() { return tutti::detail::live_tensors(); }

Tensor chain(Tensor x) {
  for (int i = 0; i < chain_length / 3; ++i) x = (x * 2 + 1) * 0.5;  // x + 0.5
  return x;
}

}  // namespace

TEST_CASE("a long chain: base autograd, on a small stack") {
  tutti_test::run_on_small_stack([] {
    Tensor x = tensor(1.0, kFloat64).requires_grad_();
    Tensor y = chain(x);
    CHECK(y.item<double>() == 1 + 0.5 * (chain_length / 3));
    y.backward();
    CHECK_VALUES(x.grad(), 1);
  });
}

TEST_CASE("a long chain that is dropped without backward") {
  tutti_test::run_on_small_stack([] {
    Tensor x = tensor(1.0, kFloat64).requires_grad_();
    Tensor y = chain(x);
    y.reset();
    CHECK_FALSE(x.grad().defined());
  });
}

TEST_CASE("a long chain of ops that save their values, retained and then dropped") {
  tutti_test::run_on_small_stack([] {
    Tensor x = tensor(0.5, kFloat64).requires_grad_();
    Tensor one = tensor(1.0, kFloat64).requires_grad_();
    Tensor y = x;
    for (int i = 0; i < chain_length; ++i) y = y * one;
    y.backward({}, true);
    CHECK_VALUES(x.grad(), 1);
    CHECK_VALUES(one.grad(), 0.5 * chain_length);
  });
}

TEST_CASE("a long chain inside grad, vjp and jvp") {
  tutti_test::run_on_small_stack([] {
    Tensor x = tensor(1.0, kFloat64);
    CHECK_VALUES(func::grad(chain)(x), 1);
    {
      auto [y, pull] = func::vjp(chain, x);
      CHECK_VALUES(std::get<0>(pull(ones({}, kFloat64))), 1);
    }
    auto [z, dz] = func::jvp(chain, std::tuple(x), std::tuple(tensor(2.0, kFloat64)));
    CHECK_VALUES(dz, 2);
  });
}

TEST_CASE("a long chain inside vmap(grad)") {
  tutti_test::run_on_small_stack([] {
    auto f = [](Tensor x) {
      for (int i = 0; i < chain_length / 10; ++i) x = x * 1.0 + 0.0;
      return x * x;
    };
    CHECK_VALUES(func::vmap(func::grad(f))(tensor({1.0, 2.0}, kFloat64)), 2, 4);
  });
}

TEST_CASE("a long chain of in-place ops, with and without a transform") {
  tutti_test::run_on_small_stack([] {
    auto f = [](const Tensor& x) {
      Tensor y = x * 1;
      for (int i = 0; i < chain_length / 2; ++i) y.mul_(1.0).add_(0.0);
      return y;
    };
    Tensor x = tensor(3.0, kFloat64).requires_grad_();
    f(x).backward();
    CHECK_VALUES(x.grad(), 1);
    CHECK_VALUES(func::grad(f)(tensor(3.0, kFloat64)), 1);
  });
}

TEST_CASE("a long chain of views: read, differentiated, written through, freed") {
  tutti_test::run_on_small_stack([] {
    auto deep = [](Tensor v, int n) {
      for (int i = 0; i < n; ++i) v = v.unsqueeze(0).squeeze(0);
      return v;
    };
    const int n = chain_length / 2, m = chain_length / 20;
    Tensor x = ones({2, 2}, kFloat64).requires_grad_();
    (deep(x, n) * 3).sum().backward();
    CHECK_VALUES(x.grad(), 3, 3, 3, 3);

    // The base changes after the views were made.
    auto f = [&](const Tensor& t) {
      Tensor base = t * 1;
      Tensor v = deep(base, m);
      base.mul_(t);
      return (v * 2).sum();
    };
    Tensor y = full({2}, 3.0, kFloat64).requires_grad_();
    f(y).backward();
    CHECK_VALUES(y.grad(), 12, 12);
    CHECK_VALUES(func::grad(f)(full({2}, 3.0, kFloat64)), 12, 12);

    // Written through the deepest view.
    auto g = [&](const Tensor& t) {
      Tensor base = t * 1;
      deep(base, m).mul_(t);
      return base.sum();
    };
    Tensor z = full({2}, 3.0, kFloat64).requires_grad_();
    g(z).backward();
    CHECK_VALUES(z.grad(), 6, 6);
    CHECK_VALUES(func::grad(g)(full({2}, 3.0, kFloat64)), 6, 6);
  });
}

TEST_CASE("a node keeps only what its derivative reads") {
  Tensor x = ones(4).requires_grad_();
  const std::int64_t before = alive();
  Tensor y = ((x * 2) + 1).sum();  // scaling, shifting and summing read no values
  CHECK(alive() == before + 1);
  Tensor z = (x * 2).exp().sum();  // exp keeps its result
  CHECK(alive() == before + 3);
}

TEST_CASE("backward lets go of saved values, the result keeps only itself") {
  Tensor x = ones(4).requires_grad_();
  const std::int64_t before = alive();
  Tensor y = (x * x).exp().sin().sum();
  CHECK(alive() > before + 1);
  y.backward();
  CHECK(alive() == before + 2);  // y and x's gradient
}

TEST_CASE("a graph does not keep the handles of its inputs alive") {
  Tensor y;
  const std::int64_t before = alive();
  {
    Tensor x = ones(4).requires_grad_();
    y = (x + 1).sum();
  }
  CHECK(alive() == before + 1);
  y.reset();
  CHECK(alive() == before);
}

TEST_CASE("transforms leave nothing behind") {
  Tensor x = ones({3, 4});
  auto f = [](const Tensor& t) { return (t.exp() * t).sum(); };
  const std::int64_t before = alive();
  func::grad(f)(x);
  func::vmap(func::grad(f))(x);
  func::grad([&](const Tensor& t) { return func::vmap(func::grad(f))(t).sum(); })(x);
  func::jvp(f, std::tuple(x), std::tuple(x));
  CHECK(alive() == before);
}

TEST_CASE("a pullback outlives its transform and then goes") {
  const std::int64_t before = alive();
  {
    Tensor x = ones(3);
    auto [y, pull] = func::vjp([](const Tensor& t) { return t.exp(); }, x);
    CHECK(alive() > before + 2);
    CHECK_CLOSE(std::get<0>(pull(ones(3))), x.exp(), 1e-6);
  }
  CHECK(alive() == before);
}

TEST_CASE("a box that escapes keeps its value, not its graph, and goes with its handle") {
  const std::int64_t before = alive();
  Tensor escaped;
  func::grad([&](const Tensor& t) {
    escaped = t * 2;
    return (t * t).sum();
  })(ones(3));
  CHECK(alive() > before);
  escaped.reset();
  CHECK(alive() == before);
}

TEST_CASE("exceptions leave nothing behind") {
  Tensor x = ones({3, 4});
  const std::int64_t before = alive();
  auto boom = [](const Tensor& t) -> Tensor {
    Tensor y = t.exp().sum();
    if (y.defined()) throw std::runtime_error("boom");
    return y;
  };
  CHECK_THROWS_AS(func::grad(boom)(x), std::runtime_error);
  CHECK_THROWS_AS(func::vmap(func::grad(boom))(x), std::runtime_error);
  CHECK_THROWS_AS(func::vmap(boom)(x), std::runtime_error);
  CHECK_THROWS_AS(func::jvp(boom, std::tuple(x), std::tuple(x)), std::runtime_error);
  CHECK(alive() == before);
  // A failing backward.
  Tensor w = ones(2).requires_grad_();
  Tensor y = w * 2;
  y.register_hook([](const Tensor&) -> Tensor { throw std::runtime_error("hook"); });
  CHECK_THROWS_AS(y.sum().backward(), std::runtime_error);
  CHECK(is_grad_enabled());
}

TEST_CASE("views and detached values keep the memory, not the graph") {
  Tensor d, v;
  const std::int64_t before = alive();
  {
    Tensor x = ones(4).requires_grad_();
    d = (x.exp() * 2).detach();
  }
  CHECK(alive() == before + 1);
  {
    NoGradGuard guard;
    Tensor x = arange(6, kFloat32);
    v = x.narrow(0, 2, 2);
  }
  CHECK(alive() == before + 2);
  CHECK_VALUES(v, 2, 3);
}
