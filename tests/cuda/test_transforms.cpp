// Transforms in each other on the device, and an ensemble with an embedding.
#include <tutti/autograd/autograd.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "../test.h"
#include "gpu.h"

using namespace tutti;
using namespace tutti_test;
using std::nullopt;

namespace {

/// "" if f gives the same on both devices.
void check_same(const Fn& f, const Values& cpu, double tol = 1e-4) {
  const Values expected = f(cpu), y = f(on_gpu(cpu));
  REQUIRE(y.size() == expected.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    CHECK(y[i].is_cuda());
    CHECK(differs(to_array(y[i]), to_array(expected[i]), tol, tol) == "");
  }
}

Tensor energy(const Tensor& w, const Tensor& x) { return (x.matmul(w).tanh().square()).sum(); }

}  // namespace

TEST_CASE("vmap of grad, grad of vmap, jvp of grad, hessian") {
  manual_seed(4);
  const Tensor w = randn({4, 3}), ws = randn({5, 4, 3}), x = randn({6, 4}), xs = randn({5, 6, 4});
  check_same(
      [](const Values& v) {
        return Values{func::vmap(func::grad(energy), {0, 0})(v[0], v[1])};
      },
      {ws, xs});
  check_same(
      [](const Values& v) {
        return Values{func::vmap(func::grad(energy), {0, nullopt})(v[0], v[1])};
      },
      {ws, x});
  check_same(
      [](const Values& v) {
        const auto total = [](const Tensor& a, const Tensor& b) {
          return func::vmap(energy, {0, 0})(a, b).sum();
        };
        return Values{func::grad(total)(v[0], v[1])};
      },
      {ws, xs});
  check_same(
      [](const Values& v) {
        const auto g = [&](const Tensor& a) { return func::grad(energy)(a, v[1]); };
        auto [out, tangent] = func::jvp(g, std::tuple(v[0]), std::tuple(v[0] * 0.5));
        return Values{out, tangent};
      },
      {w, x});
  check_same(
      [](const Values& v) {
        const auto f = [&](const Tensor& a) { return energy(a, v[1]); };
        return Values{func::hessian(f)(v[0])};
      },
      {randn({4, 2}), x});
  check_same(
      [](const Values& v) {
        const auto f = [&](const Tensor& a) { return a.matmul(v[1].t()).exp(); };
        return Values{func::jacrev(f)(v[0]), func::jacfwd(f)(v[0])};
      },
      {randn({2, 4}), x});
}

TEST_CASE("backward of the base engine") {
  manual_seed(6);
  check_same(
      [](const Values& v) {
        const Tensor w = v[0].detach().clone().requires_grad_();
        energy(w, v[1]).backward();
        return Values{w.grad()};
      },
      {randn({4, 3}), randn({6, 4})});
}

TEST_CASE("random draws inside vmap are the CPU's") {
  const auto f = [](const Tensor& x) { return x + rand({3}, x.options()); };
  for (Randomness r : {Randomness::different, Randomness::same})
    check_same(
        [&](const Values& v) {
          manual_seed(9);
          return Values{func::vmap(f, 0, 0, VmapOptions().randomness(r))(v[0])};
        },
        {randn({4, 3})}, 1e-6);
}

TEST_CASE("an ensemble with an embedding, layer norm and dropout trains as on the CPU") {
  struct NetImpl : nn::Module {
    nn::Embedding table{7, 4};
    nn::LayerNorm norm{nn::LayerNormOptions({4})};
    nn::Dropout drop{0.25};
    nn::Linear out{4, 2};
    NetImpl() {
      register_module("table", table);
      register_module("norm", norm);
      register_module("drop", drop);
      register_module("out", out);
    }
    Tensor forward(const Tensor& i) { return out(drop(norm(table(i)).mean(-2))); }
  };
  const auto train = [](const Values& v) {
    const Device device = v[0].device();
    manual_seed(1);
    std::vector<std::shared_ptr<NetImpl>> models;
    for (int i = 0; i < 3; ++i) {
      models.push_back(std::make_shared<NetImpl>());
      models.back()->to(device);
    }
    func::StackedState s = func::stack_module_state(models);
    const auto loss = [&](const TensorDict& p, const TensorDict& b, const Tensor& x,
                          const Tensor& y) {
      return nn::functional::cross_entropy(func::functional_call(models[0], {p, b}, x), y);
    };
    auto step = func::vmap(func::grad_and_value(loss), {0, 0, nullopt, nullopt}, 0,
                           VmapOptions().randomness(Randomness::different));
    NoGradGuard guard;
    optim::Adam adam(s.params, optim::AdamOptions(1e-2));
    Values out;
    for (int i = 0; i < 2; ++i) {
      auto [grads, losses] = step(s.params, s.buffers, v[0], v[1]);
      adam.step(grads);
      out.push_back(losses);
    }
    for (const auto& [name, p] : s.params) out.push_back(p.detach());
    return out;
  };
  manual_seed(3);
  check_same(train, {randint(7, {5, 3}), randint(2, {5})});
}
