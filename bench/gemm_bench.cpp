// Batched matrix products of linear layers, in the three forms training needs (gemm_layers.h),
// with the instruction set in use (TUTTI_ISA). Counters: GFLOP/s, percent of the multiply-add peak
// measured here, and how many times as fast as Eigen built for the baseline (`scalar`). Processor
// time of one thread, so that other load disturbs little. On one core, medians:
//   taskset -c 1 gemm_bench --benchmark_repetitions=5 --benchmark_report_aggregates_only
// The names with threads in them are real time, and their third counter is the gain by threads.
#include <algorithm>
#include <chrono>
#include <ctime>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <tutti/core/parallel.h>

#include "gemm_layers.h"
#include "peak.h"

using namespace tutti;
using bench::Form;
using bench::Sizes;
using kernels::Isa;

namespace {

double processor_time() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }
double real_time() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds of one call: the median of nine samples.
template <class F>
double seconds(double (*clock)(), const F& f) {
  f();
  std::vector<double> samples;
  for (int i = 0; i < 9; ++i) {
    const double start = clock();
    double time = 0;
    int calls = 0;
    for (; time < 2e-3; time = clock() - start)
      for (int j = 0; j <= calls / 4; ++j, ++calls) f();
    samples.push_back(time / calls);
  }
  std::nth_element(samples.begin(), samples.begin() + 4, samples.end());
  return samples[4];
}

/// FLOP/s in float32 of one core with the instruction set in use; float64 has half.
double peak() {
  const bench::Peak peak;
  double best = 1;
  for (int i = 0; i < 5; ++i)
    best = std::min(best, seconds(processor_time, [&] { benchmark::DoNotOptimize(peak.run()); }));
  return peak.flops / best;
}

template <class T>
void layer(benchmark::State& state, Sizes sizes, Form form, int threads) {
  static const double flops_per_second = peak();
  const bench::Layer<T> l(sizes, form);
  const Isa isa = kernels::isa();
  const auto run = [&] {
    l.run();
    benchmark::ClobberMemory();
  };
  set_num_threads(1);
  if (threads == 1) kernels::set_isa(Isa::scalar);
  const double other = seconds(threads == 1 ? processor_time : real_time, run);
  kernels::set_isa(isa);
  set_num_threads(threads);
  for (auto _ : state) run();
  set_num_threads(1);
  const auto rate = [](double x) {
    return benchmark::Counter(x, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["GFLOP/s"] = rate(l.flops() * 1e-9);
  state.counters["%peak"] = rate(l.flops() / flops_per_second * 100 * (sizeof(T) / 4) / threads);
  state.counters[threads == 1 ? "xEigen" : "xThreads"] = rate(other);
}

template <class T>
void add(const std::string& type, const Sizes& s, int threads) {
  for (Form form : bench::kForms) {
    std::string name = type + "/" + s.name(form);
    if (threads > 1) name.append("/threads:").append(std::to_string(threads));
    auto* b = benchmark::RegisterBenchmark(name.c_str(), layer<T>, s, form, threads)
                  ->Unit(benchmark::kMicrosecond);
    if (threads > 1) b->UseRealTime();
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  const Sizes shapes[] = {{64, 64, 64, 64},   {64, 32, 16, 16},     {256, 64, 32, 32},
                          {1024, 32, 8, 16},  {128, 1, 16, 16},     {16, 256, 256, 256},
                          {10, 64, 784, 128}, {10, 64, 128, 10},    {1, 64, 784, 128},
                          {1, 32, 64, 64},    {1, 1024, 1024, 1024}};
  for (const Sizes& s : shapes) add<float>("float32", s, 1);
  for (const Sizes& s : {shapes[0], shapes[1], shapes[6], shapes[10]}) add<double>("float64", s, 1);
  for (const Sizes& s : {shapes[0], shapes[2], shapes[6], shapes[8], shapes[10]})
    add<float>("float32", s, 2);
  benchmark::AddCustomContext("instruction set", std::string(kernels::name(kernels::isa())));
  benchmark::AddCustomContext("peak GFLOP/s of one core", std::to_string(peak() * 1e-9));
  benchmark::RunSpecifiedBenchmarks();
}
