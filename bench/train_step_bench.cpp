// One training step of an ensemble of MLPs: vmapped over the members against the same engine's loop
// over members. The ratio of the two in one run is what counts; run with --benchmark_repetitions=5
// and compare medians.
#include <benchmark/benchmark.h>

#include <tutti/tutti.h>

using namespace tutti;

namespace {

struct NetImpl : nn::Module {
  NetImpl(std::int64_t in, std::int64_t hidden, std::int64_t out)
      : l1(in, hidden), l2(hidden, out) {
    register_module("l1", l1);
    register_module("l2", l2);
  }
  Tensor forward(Tensor x) { return l2(relu(l1(x))); }
  nn::Linear l1, l2;
};
TUTTI_MODULE(Net);

struct Problem {
  Problem(std::int64_t members, std::int64_t batch) {
    manual_seed(1);
    for (std::int64_t m = 0; m < members; ++m) models.emplace_back(64, 64, 10);
    x = rand({members, batch, 64});
    y = randint(10, {members, batch});
  }
  auto loss() {
    return [net = models[0]](TensorDict& params, Tensor& in, Tensor& target) {
      return nn::functional::cross_entropy(func::functional_call(net, params, in), target);
    };
  }
  std::vector<Net> models;
  Tensor x, y;
};

void vmapped(benchmark::State& state) {
  Problem p(state.range(0), state.range(1));
  set_num_threads(static_cast<int>(state.range(2)));
  auto stacked = func::stack_module_state(p.models);
  optim::Adam opt(stacked.params, optim::AdamOptions(1e-3));
  auto step = func::vmap(func::grad_and_value(p.loss()));
  NoGradGuard guard;
  for (auto _ : state) {
    auto [grads, losses] = step(stacked.params, p.x, p.y);
    opt.step(grads);
    benchmark::DoNotOptimize(losses.raw());
  }
}

void looped(benchmark::State& state) {
  Problem p(state.range(0), state.range(1));
  set_num_threads(static_cast<int>(state.range(2)));
  auto step = func::grad_and_value(p.loss());
  std::vector<TensorDict> params;
  std::vector<optim::Adam> opts;
  std::vector<Tensor> xs = p.x.contiguous().unbind(), ys = p.y.contiguous().unbind();
  for (Net& m : p.models) {
    params.push_back(m->named_parameters());
    opts.emplace_back(params.back(), optim::AdamOptions(1e-3));
  }
  NoGradGuard guard;
  for (auto _ : state)
    for (std::size_t m = 0; m < params.size(); ++m) {
      auto [grads, value] = step(params[m], xs[m], ys[m]);
      opts[m].step(grads);
      benchmark::DoNotOptimize(value.raw());
    }
}

void cases(benchmark::internal::Benchmark* b) {
  b->ArgNames({"members", "batch", "threads"})->Unit(benchmark::kMicrosecond)->UseRealTime();
  for (std::int64_t threads : {1, 2})
    for (std::int64_t members : {1, 8, 32, 128}) b->Args({members, 32, threads});
}
BENCHMARK(vmapped)->Apply(cases);
BENCHMARK(looped)->Apply(cases);

}  // namespace
