// A failure at every call of a training step in turn: no memory, a launch that is refused, a copy
// that fails. Each gives an error of ours, leaks nothing, and the next step works.
#include <cstdio>

#include <tutti/autograd/autograd.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "../test.h"
#include "gpu.h"

using namespace tutti;
using namespace tutti_test;

TEST_CASE("a train step survives a failure of any of its calls") {
  if (!Executor::present()) return;  // makes calls fail
  manual_seed(1);
  std::vector<nn::Linear> models;
  for (int i = 0; i < 2; ++i) {
    models.push_back(nn::Linear(3, 2));
    models.back()->to(kCUDA);
  }
  func::StackedState s = func::stack_module_state(models);
  const Tensor x = randn({2, 4, 3}), y = randint(2, {2, 4});
  const auto loss = [&](const TensorDict& p, const TensorDict& b, const Tensor& xi,
                        const Tensor& yi) {
    return nn::functional::cross_entropy(func::functional_call(models[0], {p, b}, xi), yi);
  };
  auto gradients = func::vmap(func::grad_and_value(loss), {0, 0, 0, 0});
  NoGradGuard guard;
  optim::Adam adam(s.params, optim::AdamOptions(1e-2));
  const auto step = [&] {
    auto [grads, losses] = gradients(s.params, s.buffers, x.to(kCUDA), y.to(kCUDA));
    adam.step(grads);
    return losses.cpu();
  };
  step();
  for (const char* kind : {"malloc", "launch", "copy", "other"}) {
    CAPTURE(std::string(kind));
    unsigned long long n = 1, errors = 0;
    for (bool reached = true; reached && n < 500; ++n) {
      cuda::synchronize();
      cuda::empty_cache();
      const auto before = cuda::memory_stats().blocks;
      Executor::fail_at(n, kind);
      try {
        step();
      } catch (const Error& e) {
        ++errors;
        CHECK(std::string(e.what()).size() > 10);
      }
      reached = Executor::failed();
      Executor::fail_at(0, kind);
      cuda::synchronize();
      cuda::empty_cache();  // with the workspaces of cuBLAS
      CHECK(cuda::memory_stats().blocks == before);
      const Tensor l = step();
      CHECK(l.isfinite().all().item<bool>());
    }
    CHECK(n < 500);
    std::printf("failures of %s: %llu calls of a step, %llu errors\n", kind, n - 2, errors);
  }
}
