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

namespace {

/// Steps on the CPU and on the device, which fuses multiply-adds, from the same parameters and
/// gradients: of several blocks, short, one number per member, none.
template <class Optimizer, class Options>
void check_members(const Options& options) {
  for (const DType t : {kFloat32, kFloat64}) {
    manual_seed(3);
    const TensorDict start{{"w", randn({M, 9, 150}, t)},
                           {"b", randn({M, 7}, t)},
                           {"s", randn({M}, t)},
                           {"none", zeros({M, 0}, t)}};
    TensorDict cpu, gpu;
    for (const auto& [name, x] : start) {
      cpu.insert(name, x.clone());
      gpu.insert(name, x.to(kCUDA));
    }
    Optimizer a(cpu, options), b(gpu, options);
    for (int step = 0; step < 3; ++step) {
      TensorDict g, h;
      for (const auto& [name, x] : start) {
        g.insert(name, randn(x.sizes(), t));
        h.insert(name, g.at(name).to(kCUDA));
      }
      a.step(g);
      b.step(h);
      a.options().scale_lr(0.5);
      b.options().scale_lr(0.5);
    }
    for (const auto& [name, x] : cpu) {
      CAPTURE(name);
      if (x.numel() > 0) CHECK(worst_difference(gpu.at(name), x) < (t == kFloat32 ? 1e-5 : 1e-13));
    }
  }
}

}  // namespace

TEST_CASE("an optimizer's values for members: every step as on the CPU") {
  using Values = std::vector<double>;
  const Values lr{0.1, 0, 0.02}, decay{0, 0.1, 0.3}, factor{0.9, 0, 0.5};
  check_members<optim::SGD>(
      optim::SGDOptions(lr).momentum(factor).weight_decay(decay).dampening(factor));
  check_members<optim::Adam>(optim::AdamOptions(lr)
                                 .betas({factor, Values{0.99, 0.9, 0.5}})
                                 .weight_decay(decay)
                                 .eps(Values{1e-8, 1e-3, 1e-2}));
  check_members<optim::AdamW>(optim::AdamWOptions(lr).weight_decay(decay).amsgrad(true));
  // Every combination of options is a copy of the loop.
  check_members<optim::SGD>(optim::SGDOptions(lr).momentum(Values{0.9, 0.1, 0.5}).nesterov(true));
  check_members<optim::Adam>(optim::AdamOptions(lr).weight_decay(decay).amsgrad(true));
  check_members<optim::AdamW>(optim::AdamWOptions(lr).weight_decay(decay));
  for (const bool centered : {false, true})
    for (const Values& momentum : {Values{0, 0, 0}, factor})
      for (const Values& decays : {Values{0, 0, 0}, decay})
        check_members<optim::RMSprop>(optim::RMSpropOptions(lr)
                                          .alpha(Values{0.9, 0.5, 0.1})
                                          .momentum(momentum)
                                          .weight_decay(decays)
                                          .centered(centered)
                                          .eps(1e-2));
  check_members<optim::Adagrad>(
      optim::AdagradOptions(lr).lr_decay(decay).initial_accumulator_value(factor));
  check_members<optim::Adagrad>(optim::AdagradOptions(lr).weight_decay(decay));
}

TEST_CASE("an optimizer's values for members: groups with values of their own") {
  std::vector<Tensor> results;
  for (const Device device : {Device(kCPU), Device(kCUDA)}) {
    const Tensor a = ones({3, 2}).to(device), b = ones({2, 2}).to(device), c = ones(3).to(device);
    std::vector<optim::OptimizerParamGroup> groups;
    groups.emplace_back(std::vector<Tensor>{a});
    groups.emplace_back(std::vector<Tensor>{b},
                        std::make_unique<optim::SGDOptions>(std::vector<double>{8, 16}));
    groups.emplace_back(std::vector<Tensor>{c}, std::make_unique<optim::SGDOptions>(32));
    optim::SGD sgd(groups, optim::SGDOptions({1.0, 2.0, 4.0}));
    sgd.step(std::vector<Tensor>{ones_like(a), ones_like(b), ones_like(c)});
    results.push_back(cat({a.reshape(-1), b.reshape(-1), c}).cpu());
  }
  CHECK(equal(results[0], results[1]));
  CHECK(results[1].to_vector<float>() ==
        std::vector<float>{0, 0, -1, -1, -3, -3, -7, -7, -15, -15, -31, -31, -31});
}

TEST_CASE("an optimizer's values for members: an ensemble of perceptrons, tensors on the device") {
  const Tensor lr = tensor({1e-2, 1e-3, 3e-2});
  check_training<optim::Adam>(optim::AdamOptions(lr).weight_decay({0, 0.1, 0.01}));
  optim::SGD sgd({ones({3, 2}).to(kCUDA)}, optim::SGDOptions(lr.to(kCUDA)));
  CHECK(sgd.options().lr_values()[1] == static_cast<double>(1e-3f));
}
