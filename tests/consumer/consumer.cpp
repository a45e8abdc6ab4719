// What an application does: include everything, stack two models, run them together.
#include <cstdio>

#include <tutti/config.h>
#include <tutti/tutti.h>

int main() {
  using namespace tutti;
  std::vector<nn::Linear> models;
  for (int i = 0; i < 2; ++i) models.emplace_back(3, 4);
  const auto stacked = func::stack_module_state(models);
  const Tensor x = ones({5, 3});
  const auto forward = [&](const TensorDict& params, const Tensor& input) {
    return func::functional_call(models[0], params, input);
  };
  const Tensor together = func::vmap(forward, {0, nullopt})(stacked.params, x);
  const Tensor apart = stack({models[0]->forward(x), models[1]->forward(x)});
  if (!allclose(together, apart)) {
    std::puts("vmap and the loop differ");
    return 1;
  }
  std::puts("tutti " TUTTI_VERSION " works");
}
