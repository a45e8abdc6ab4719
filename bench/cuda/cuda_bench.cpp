// On the GPU: strided-batched products against a loop of single ones, and the training steps of
// ../train_step.h, eager and compiled. Times are the device's, between two events around a number
// of calls, so they hold what the CPU needs to queue them where that takes longer. Results are
// compared with the CPU's before anything is timed. Numbers for a report, as JSON:
//   cuda_bench --benchmark_repetitions=5 --benchmark_out=FILE
// --once runs everything once, for the results alone, and --small takes sizes that are right for
// tests/cudasim, where times mean nothing. --data=FOLDER writes the cases of the training steps for
// peers.py and ends.
#include <algorithm>
#include <iostream>
#include <map>
#include <string>
#include <string_view>

#include <benchmark/benchmark.h>

#include <tutti/core/cuda.h>

#include "../train_step.h"
#include "products.h"

using namespace bench;
using tutti::cuda::CUDAEvent;

namespace {

constexpr double kSample = 5e-3;  // seconds

struct Options {
  bool once = false, small = false;
  std::string data;
};
Options g_options;
bool g_failed = false;  // results that are not the CPU's

/// Seconds `calls` calls take on the device.
template <class F>
double seconds(const F& f, int calls) {
  CUDAEvent begin(true), end(true);
  begin.record();
  for (int i = 0; i < calls; ++i) f();
  end.record();
  end.synchronize();
  return begin.elapsed_time(end) * 1e-3;
}

/// Times f; its result is not looked at.
template <class F>
void measure(benchmark::State& state, const F& f) {
  int calls = 1;
  if (!g_options.once) {
    seconds(f, 3);  // memory, handles and recordings are made
    calls = std::clamp(static_cast<int>(kSample / std::max(seconds(f, 3) / 3, 1e-7)), 1, 1000);
  }
  while (state.KeepRunningBatch(calls)) state.SetIterationTime(seconds(f, calls));
}

void refuse(benchmark::State& state, const std::string& text) {
  g_failed = true;
  state.SkipWithError(text.c_str());
}

void product(benchmark::State& state, const Sizes& sizes, Form form, bool batched) {
  const tutti::NoGradGuard no_grad;
  const DeviceLayer layer(sizes, form);
  const std::string text = layer.disagreement();
  if (!text.empty()) return refuse(state, text);
  if (batched)
    measure(state, [&] { layer.batched(); });
  else
    measure(state, [&] { layer.looped(); });
  state.counters["GFLOP/s"] =
      benchmark::Counter(layer.flops() * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void train_step(benchmark::State& state, const Case& c, Way way) {
  static std::map<std::pair<std::string, Way>, std::string> checked;  // this is called repeatedly
  const auto [found, first_time] = checked.try_emplace(std::pair(c.name(), way));
  if (first_time) found->second = disagreement(c, way, tutti::kCUDA);
  if (!found->second.empty()) return refuse(state, found->second);
  Ensemble ensemble(c.net(), way, tutti::kCUDA);
  measure(state, [&] { ensemble.step(); });
  state.counters["GFLOP/s"] =
      benchmark::Counter(c.net().Flops() * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

template <class... Args>
void add(const std::string& name, Args... args) {
  auto* b = benchmark::RegisterBenchmark(name.c_str(), args...)
                ->Unit(benchmark::kMicrosecond)
                ->UseManualTime();
  if (g_options.once) b->Iterations(1);
}

std::vector<Sizes> product_sizes() {
  if (g_options.small) return {{3, 4, 8, 5}, {2, 1, 3, 2}};
  return {{64, 64, 64, 64},   {64, 32, 16, 16},    {256, 64, 32, 32},    {1024, 32, 8, 16},
          {128, 1, 16, 16},   {16, 256, 256, 256}, {10, 64, 784, 128},   {10, 64, 128, 10},
          {64, 64, 784, 128}, {8, 512, 512, 512},  {8, 1024, 1024, 1024}};
}

std::vector<Case> step_cases() {
  if (!g_options.small) return cases();
  return {{3, 4, {8, 8, 8, 4}, 0, 3e-3, 2e-5}, {5, 1, {4, 8, 8, 1}, 0, 3e-3, 2e-5}};
}

/// Takes our own options out of the arguments.
Options take_options(int& argc, char** argv) {
  constexpr std::string_view kData = "--data=";
  Options options;
  const auto ours = [&](std::string_view a) {
    if (a == "--once") return options.once = true;
    if (a == "--small") return options.small = true;
    if (!a.starts_with(kData)) return false;
    options.data = a.substr(kData.size());
    return true;
  };
  argc = static_cast<int>(std::remove_if(argv + 1, argv + argc, ours) - argv);
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  g_options = take_options(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  flush_denormals();  // on the CPU
  if (!g_options.data.empty()) {
    for (const Case& c : step_cases()) write_case(c, g_options.data);
    return 0;
  }
  if (!tutti::cuda::is_available()) {
    std::cerr << "cuda_bench: no CUDA device is there; nothing was measured\n";
    return 2;
  }
  for (const Sizes& s : product_sizes())
    for (Form form : kForms)
      for (const bool batched : {true, false})
        add("float32/" + s.name(form) + (batched ? "/batched" : "/looped"), product, s, form,
            batched);
  for (const Case& c : step_cases())
    for (const WayInfo& way : ways())
      if (way.way != Way::members_last)  // a layout for the CPU
        add(c.name() + "/" + way.name, train_step, c, way.way);
  benchmark::RunSpecifiedBenchmarks();
  tutti::cuda::synchronize();
  tutti::cuda::empty_cache();
  return g_failed ? 1 : 0;
}
