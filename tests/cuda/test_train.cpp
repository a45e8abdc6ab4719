// Training ensembles with everything on the device, against the same on the CPU.
#include <filesystem>

#include <tutti/autograd/autograd.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "../test.h"
#include "gpu.h"

using namespace tutti;
using namespace tutti_test;
using func::functional_call;
using func::grad_and_value;
using func::stack_module_state;
using func::vmap;
using std::nullopt;

namespace {

constexpr std::int64_t M = 3;

std::vector<nn::Sequential> mlps(Device device) {
  manual_seed(1);
  std::vector<nn::Sequential> models;
  for (std::int64_t i = 0; i < M; ++i) {
    models.push_back(nn::Sequential(nn::Linear(5, 8), nn::ReLU(), nn::Linear(8, 3)));
    models.back()->to(device);
  }
  return models;
}

double worst_difference(const Tensor& a, const Tensor& b) {
  return (a.cpu() - b.cpu()).abs().max().item<double>();
}

struct Trained {
  TensorDict params;
  std::vector<Tensor> losses;
};

/// Three steps of `Optimizer` on the stack.
template <class Optimizer, class Options>
Trained train(Device device, const Options& options, bool shared) {
  auto models = mlps(device);
  manual_seed(2);
  const Tensor x = (shared ? randn({7, 5}) : randn({M, 7, 5})).to(device);
  const Tensor y = (shared ? randint(3, {7}) : randint(3, {M, 7})).to(device);
  func::StackedState s = stack_module_state(models);
  auto loss = [&](const TensorDict& p, const TensorDict& b, const Tensor& xi, const Tensor& yi) {
    return nn::functional::cross_entropy(functional_call(models[0], {p, b}, xi), yi);
  };
  const Dims data = shared ? Dims(nullopt) : Dims(0);
  auto step = vmap(grad_and_value(loss), {0, 0, data, data});
  Trained t;
  NoGradGuard guard;
  Optimizer optimizer(s.params, options);
  for (int i = 0; i < 3; ++i) {
    auto [grads, losses] = step(s.params, s.buffers, x, y);
    CHECK(losses.device().type == device.type);
    t.losses.push_back(losses);
    optimizer.step(grads);
  }
  t.params = s.params;
  return t;
}

template <class Optimizer, class Options>
void check_training(const Options& options) {
  for (bool shared : {false, true}) {
    const Trained cpu = train<Optimizer>(kCPU, options, shared);
    const Trained gpu = train<Optimizer>(kCUDA, options, shared);
    for (std::size_t i = 0; i < cpu.losses.size(); ++i)
      CHECK(worst_difference(gpu.losses[i], cpu.losses[i]) < 2e-5);
    for (const auto& [name, value] : cpu.params) {
      CAPTURE(name);
      CHECK(gpu.params.at(name).is_cuda());
      CHECK(worst_difference(gpu.params.at(name).detach(), value.detach()) < 2e-5);
    }
  }
}

}  // namespace

TEST_CASE("an ensemble of perceptrons trains as on the CPU: Adam") {
  check_training<optim::Adam>(optim::AdamOptions(1e-2));
}

TEST_CASE("an ensemble of perceptrons trains as on the CPU: other optimizers") {
  check_training<optim::SGD>(optim::SGDOptions(1e-1).momentum(0.9).nesterov(true));
  check_training<optim::AdamW>(optim::AdamWOptions(1e-2).amsgrad(true));
  check_training<optim::RMSprop>(optim::RMSpropOptions(1e-2).centered(true).momentum(0.5));
  check_training<optim::Adagrad>(optim::AdagradOptions(1e-1));
}
