// Training steps of ensembles: the Eigen loop over members, tutti in each of its ways, and (if it
// was built, see CMakeLists.txt) the prototype of tutti's kernels. `scaling` is the step of one
// shape for more and more members, `peak` what multiply-adds one core can do. On one core:
//   taskset -c 1 train_step_bench --benchmark_filter=threads:1 --benchmark_repetitions=5
// Ratios of two rows are better taken from gates_train_step, where both sides take turns.
#include <map>
#include <string>

#include <benchmark/benchmark.h>

#include "peak.h"
#include "train_step.h"
#ifdef TUTTI_BENCH_PROTOTYPE
#include "prototype_step.h"
#endif

using namespace bench;

namespace {

void counters(benchmark::State& state, const Case& c) {
  using benchmark::Counter;
  const Net net = c.net();
  state.counters["GFLOP/s"] = Counter(net.Flops() * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["s/member"] =
      Counter(c.members, Counter::kIsIterationInvariantRate | Counter::kInvert);
}

void peak(benchmark::State& state) {
  const Peak peak;
  for (auto _ : state) benchmark::DoNotOptimize(peak.run());
  state.counters["GFLOP/s"] =
      benchmark::Counter(peak.flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void eigen(benchmark::State& state, const Case& c) {
  Net net = c.net();
  for (auto _ : state) benchmark::DoNotOptimize(eigen_step(net));
  counters(state, c);
}

void in_tutti(benchmark::State& state, const Case& c, Way way, int threads) {
  tutti::set_num_threads(threads);
  static std::map<std::pair<std::string, Way>, std::string>
      checked;  // this function is called several times
  const auto [found, first_time] = checked.try_emplace(std::pair(c.name(), way));
  if (first_time) found->second = disagreement(c, way);
  if (!found->second.empty()) return state.SkipWithError(found->second.c_str());
  Ensemble ensemble(c.net(), way);
  for (auto _ : state) benchmark::DoNotOptimize(ensemble.step().raw());
  counters(state, c);
}

#ifdef TUTTI_BENCH_PROTOTYPE
void prototype(benchmark::State& state, const Case& c, bool lanes) {
  const auto step = prototype_step(c.members, c.batch, c.widths, lanes);
  for (auto _ : state) step();
  counters(state, c);
}
#endif

template <class... Args>
void add(const std::string& name, Args... args) {
  benchmark::RegisterBenchmark(name.c_str(), args...)->Unit(benchmark::kMicrosecond)->UseRealTime();
}

void add_tutti(const Case& c, const std::string& group) {
  for (const WayInfo& way : ways())
    for (int threads : {1, 2})
      add(group + c.name() + "/" + way.name + "/threads:" + std::to_string(threads), in_tutti, c,
          way.way, threads);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  flush_denormals();
  add("peak", peak);
  for (const Case& c : cases()) {
    add(c.name() + "/eigen/threads:1", eigen, c);
    add_tutti(c, "");
#ifdef TUTTI_BENCH_PROTOTYPE
    add(c.name() + "/prototype/threads:1", prototype, c, false);
    add(c.name() + "/prototype_lanes/threads:1", prototype, c, true);
#endif
  }
  Case c = cases()[1];
  for (c.members = 1; c.members <= 512; c.members *= 4) {
    add("scaling/" + c.name() + "/eigen/threads:1", eigen, c);
    add_tutti(c, "scaling/");
  }
  benchmark::RunSpecifiedBenchmarks();
}
