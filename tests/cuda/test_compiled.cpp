// func::compile with everything on the device, against the same on the CPU: one recording, the
// whole batch of members at once, and memory from the stream's allocator.
#include <tutti/autograd/autograd.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "../test.h"
#include "gpu.h"

using namespace tutti;
using namespace tutti_test;
using std::nullopt;

namespace {

constexpr std::int64_t M = 3;

double worst_difference(const Tensor& a, const Tensor& b) {
  return (a.cpu() - b.cpu()).abs().max().item<double>();
}

/// A stack of perceptrons with what they learn from, on a device.
struct Ensemble {
  explicit Ensemble(Device device) {
    manual_seed(1);
    for (std::int64_t i = 0; i < M; ++i) {
      models.push_back(nn::Sequential(nn::Linear(5, 8), nn::ReLU(), nn::Linear(8, 3)));
      models.back()->to(device);
    }
    state = func::stack_module_state(models);
    manual_seed(2);
    x = randn({7, 5}).to(device);
    y = randint(3, {7}).to(device);
  }

  /// A training step, as a function of parameters and data.
  template <class Optimizer>
  auto step(Optimizer& optimizer) const {
    const auto loss = [model = models[0]](const TensorDict& p, const Tensor& a, const Tensor& b) {
      return nn::functional::cross_entropy(func::functional_call(model, p, a), b);
    };
    const auto gradients = func::vmap(func::grad_and_value(loss), {0, nullopt, nullopt});
    return [gradients, &optimizer](const TensorDict& p, const Tensor& a, const Tensor& b) {
      auto [grads, losses] = gradients(p, a, b);
      optimizer.step(grads);
      return losses;
    };
  }

  std::vector<nn::Sequential> models;
  func::StackedState state;
  Tensor x, y;
};

template <class Optimizer, class Options>
void check_training(const Options& options) {
  const NoGradGuard guard;
  Ensemble plain(kCPU), gpu(kCUDA);
  Optimizer on_cpu(plain.state.params, options), on_gpu(gpu.state.params, options);
  const auto expected = plain.step(on_cpu);
  const auto compiled = func::compile(gpu.step(on_gpu));
  for (int i = 0; i < 4; ++i) {
    const Tensor a = expected(plain.state.params, plain.x, plain.y);
    const Tensor b = compiled(gpu.state.params, gpu.x, gpu.y);
    CHECK(b.is_cuda());
    CHECK(worst_difference(a, b) < 2e-5);
  }
  for (const auto& [name, p] : plain.state.params) {
    CAPTURE(name);
    CHECK(worst_difference(p.detach(), gpu.state.params.at(name).detach()) < 2e-5);
  }
  CHECK(compiled.recordings() == 1);
  CHECK(compiled.text().find("optimizer_step") != std::string::npos);
  CHECK(compiled.text().find("map(") == std::string::npos);  // blocks are for caches
}

}  // namespace

TEST_CASE("a compiled training step on the device") {
  check_training<optim::Adam>(optim::AdamOptions(1e-2));
  check_training<optim::SGD>(optim::SGDOptions(1e-1).momentum(0.9));
  check_training<optim::AdamW>(optim::AdamWOptions(std::vector<double>{1e-2, 1e-3, 0}));
}

TEST_CASE("compiled steps of an optimizer start together, unless one needs another's result") {
  const NoGradGuard guard;
  const auto device = TensorOptions(kFloat32).device(kCUDA);
  const auto params = [&] {
    return TensorDict{{"a", ones({3, 4}, device)}, {"b", full({5}, 2.0, device)}};
  };
  const TensorDict x = params(), y = params();
  const TensorDict grads{{"a", full({3, 4}, 0.5, device)}, {"b", full({5}, -1.0, device)}};
  optim::Adam on_x(x, optim::AdamOptions(1e-2)), on_y(y, optim::AdamOptions(1e-2));
  optim::SGD more(y, optim::SGDOptions(1e-1)), also(x, optim::SGDOptions(1e-1));
  const auto steps = [](optim::Adam& adam, optim::SGD& sgd, const TensorDict& g) {
    adam.step(g);
    adam.step(g);
    sgd.step(g);
  };
  const auto compiled = func::compile([&](const TensorDict& g) { steps(on_x, also, g); });
  for (int i = 0; i < 3; ++i) {
    compiled(grads);
    steps(on_y, more, grads);
    for (const auto& [name, p] : x) CHECK(p.cpu().equal(y.at(name).cpu()));
  }
}

TEST_CASE("compiled functions on the device: views, constants, writes, draws") {
  const NoGradGuard guard;
  const auto f = [](const Tensor& x, const Tensor& y) {
    const Tensor z = x.matmul(y.t()).relu() + ones({4}, TensorOptions(kFloat32).device(x.device()));
    y.mul_(0.5);
    return std::tuple(z, z.t().sum(0), x.narrow(1, 1, 2));
  };
  const auto compiled = func::compile(f);
  for (const Device device : {Device(kCPU), Device(kCUDA), Device(kCPU), Device(kCUDA)}) {
    manual_seed(3);
    const Tensor x = randn({6, 5}), y = randn({4, 5});
    const Tensor dx = x.to(device), dy = y.to(device).clone(), want_y = y.clone();
    const auto got = compiled(dx, dy);
    const auto want = f(x, want_y);
    CHECK(worst_difference(std::get<0>(got), std::get<0>(want)) < 1e-5);
    CHECK(worst_difference(std::get<1>(got), std::get<1>(want)) < 1e-5);
    CHECK(worst_difference(std::get<2>(got), std::get<2>(want)) == 0);
    CHECK(worst_difference(dy, want_y) == 0);
    CHECK(std::get<0>(got).device().type == device.type);
  }
  CHECK(compiled.recordings() == 2);  // one for each device

  const auto noisy = [](const Tensor& x) { return dropout(x, 0.5) + rand_like(x); };
  const auto compiled_noisy = func::compile(noisy);
  const Tensor x = ones({64}, TensorOptions(kFloat32).device(kCUDA));
  manual_seed(4);
  const Tensor first = noisy(x), second = noisy(x);
  manual_seed(4);
  CHECK(compiled_noisy(x).cpu().equal(first.cpu()));
  CHECK(compiled_noisy(x).cpu().equal(second.cpu()));

  // What was not moved to the device is named; arguments on two devices run as they are.
  const Tensor left = ones({64});
  const auto captures = func::compile([&](const Tensor& v) { return v + left; });
  CHECK_THROWS_WITH_AS(captures(x), doctest::Contains("got one on cpu"), DeviceError);
  const auto factor = func::compile([](const Tensor& v) { return cholesky(v); });
  CHECK_THROWS_WITH_AS(factor(ones({1, 1}).to(kCUDA)),
                       doctest::Contains("not implemented on cuda:0; compute it on the CPU"),
                       NotImplementedError);
  const auto mixed = func::compile([](const Tensor& a, const Tensor& b) { return a.cpu() + b; });
  CHECK(mixed(x, left).equal(full({64}, 2.0)));
  CHECK(mixed.recordings() == 0);
}

TEST_CASE("a compiled function on several streams") {
  const NoGradGuard guard;
  const auto f = [](const Tensor& x) { return (x.exp() * x).tanh().sum(1); };
  const auto compiled = func::compile(f);
  std::vector<Tensor> in, out;
  for (int i = 0; i < 4; ++i) in.push_back(randn({8, 100}));
  {
    std::vector<cuda::CUDAStream> streams{cuda::new_stream(), cuda::new_stream()};
    for (std::size_t i = 0; i < in.size(); ++i) {
      const cuda::StreamGuard stream(streams[i % 2]);
      out.push_back(compiled(in[i].to(kCUDA)));
    }
    for (const auto& s : streams) s.synchronize();
  }
  for (std::size_t i = 0; i < in.size(); ++i) CHECK(worst_difference(out[i], f(in[i])) < 1e-5);
}
