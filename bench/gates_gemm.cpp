// The speed we hold batched products to, in the instruction set in use (TUTTI_ISA): one line per
// ratio, "name value goal ok|SHORT", and exit status 1 if any falls short.
//   members/b/k/n/form/peak     part of the multiply-add peak of one core
//   members/b/k/n/form/LIBRARY  the library's time over ours (see gemm_rivals.h)
//   members/b/k/n/form/threads  time of one thread over that of two
// The members computed at a time are as many as fit half of L2. What is compared takes turns of a
// tenth of a millisecond, some thousand times, and a value is the ratio of the times that an eighth
// of the turns did not exceed: load of other programs only adds. One core: processor time.
// usage: gates_gemm [--all] [part of a name]...    --all: lines without a goal, too
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include <unistd.h>

#include <tutti/core/parallel.h>

#include "gemm_layers.h"
#include "gemm_rivals.h"
#include "peak.h"

using bench::Form;
using bench::Sizes;

namespace {

/// Bytes of the second level cache.
std::int64_t l2() {
  const long size = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return size > 0 ? size : 512 << 10;
}

// ---- goals

/// No library is to be much faster at anything.
constexpr double kLibrary = 0.95;
/// With one row we are to be clearly faster than Eigen, if w is in L2.
constexpr double kEigenOneRow = 1.1;
constexpr double kThreads = 1.8;

/// Of the peak; 0: none.
double peak_goal(const Sizes& s, Form form) {
  const std::int64_t least = std::min({s.b, s.k, s.n});
  if (least >= 1024) return 0.83;
  if (least >= 64) return form == Form::fwd ? 0.86 : 0.90;
  // Tiles of 16 registers are a quarter as large, and each costs some 25 cycles besides its sums;
  // turning w costs 6 % here.
  if (least >= 32)
    return form == Form::fwd && tutti::kernels::isa() != tutti::kernels::Isa::avx3 ? 0.78 : 0.86;
  if (least >= 16 && s.b >= 32) return form == Form::fwd ? 0.60 : 0.75;
  return 0;
}

double library_goal(const Sizes& s, Form form, const std::string& library) {
  const bool one_row = s.b == 1 && form == Form::fwd && 4 * s.numbers() <= l2() / 2;
  return library == "eigen" && one_row ? kEigenOneRow : kLibrary;
}

constexpr Sizes kShapes[] = {{64, 64, 64, 64},     {64, 32, 16, 16},   {256, 64, 32, 32},
                             {1024, 32, 8, 16},    {128, 1, 16, 16},   {128, 1, 64, 64},
                             {16, 1, 784, 128},    {64, 32, 64, 1},    {16, 256, 256, 256},
                             {64, 64, 784, 128},   {8, 512, 512, 512}, {10, 64, 128, 10},
                             {1, 1024, 1024, 1024}};
constexpr Sizes kThreadShapes[] = {{64, 64, 64, 64},
                                   {256, 64, 32, 32},
                                   {16, 256, 256, 256},
                                   {10, 64, 784, 128},
                                   {1, 1024, 1024, 1024}};

// ---- measuring

double seconds(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Seconds of one call of each function, which take turns: the time that an eighth of the turns did
/// not exceed.
std::vector<double> measure(clockid_t clock, const std::vector<std::function<void()>>& functions) {
  constexpr double turn = 1e-4, whole = 1.5;
  constexpr int turns = 4;  // after one that brings the function's memory into the caches
  std::vector<int> calls;
  for (const auto& f : functions) {
    f();
    int n = 1;
    double time = 0;
    for (;; n *= 2) {
      const double start = seconds(clock);
      for (int i = 0; i < n; ++i) f();
      time = seconds(clock) - start;
      if (time >= turn / 2) break;
    }
    calls.push_back(std::max(1, static_cast<int>(n * turn / time)));
  }
  std::vector<std::vector<double>> times(functions.size());
  const double begin = seconds(clock);
  while (seconds(clock) - begin < whole || times[0].size() < 8)
    for (std::size_t i = 0; i < functions.size(); ++i) {
      functions[i]();
      for (int t = 0; t < turns; ++t) {
        const double start = seconds(clock);
        for (int c = 0; c < calls[i]; ++c) functions[i]();
        times[i].push_back((seconds(clock) - start) / calls[i]);
      }
    }
  std::vector<double> result;
  for (auto& t : times) {
    const auto eighth = t.begin() + static_cast<std::ptrdiff_t>(t.size() / 8);
    std::nth_element(t.begin(), eighth, t.end());
    result.push_back(*eighth);
  }
  return result;
}

// ---- the report

bool print_all = false, fell_short = false;
std::vector<std::string> wanted;

bool is_wanted(const std::string& name) {
  return wanted.empty() || std::any_of(wanted.begin(), wanted.end(), [&](const std::string& w) {
           return name.find(w) != std::string::npos;
         });
}

void line(const std::string& name, double value, double goal) {
  if (goal == 0) {
    if (print_all) std::printf("%-40s %6.2f    -  -\n", name.c_str(), value);
    return;
  }
  const bool ok = value >= goal;
  fell_short |= !ok;
  std::printf("%-40s %6.2f %4.2f %s\n", name.c_str(), value, goal, ok ? "ok" : "SHORT");
  std::fflush(stdout);
}

void one_core(const Sizes& full, Form form) {
  Sizes s = full;
  s.members = std::clamp<std::int64_t>(l2() / 2 / (4 * s.numbers()), 1, full.members);
  const bench::Layer<float> layer(s, form);
  const tutti::kernels::Gemm& g = layer.gemm();
  const std::int64_t size = s.members * g.m * g.n;
  const bench::Numbers<float> out(size);
  const float* ours = static_cast<const float*>(g.out);

  static const bench::Peak peak;
  std::vector<std::function<void()>> functions = {[&] { layer.run(); }, [] { peak.run(); }};
  std::vector<std::string> names;
  layer.run();
  for (const bench::Rival& rival : bench::rivals()) {
    auto run = rival.prepare(g, out.data());
    if (!run) continue;
    std::fill(out.begin(), out.end(), NAN);
    run();
    for (std::int64_t i = 0; i < size; ++i)
      if (!(std::abs(out.data()[i] - ours[i]) <= 1e-4f * static_cast<float>(g.k))) {
        std::fprintf(stderr, "%s: %s: result %ld is %g, not %g\n", full.name(form).c_str(),
                     rival.name.c_str(), static_cast<long>(i), static_cast<double>(out.data()[i]),
                     static_cast<double>(ours[i]));
        fell_short = true;
        break;
      }
    functions.push_back(std::move(run));
    names.push_back(rival.name);
  }
  const auto times = measure(CLOCK_THREAD_CPUTIME_ID, functions);
  const std::string name = full.name(form) + "/";
  line(name + "peak", layer.flops() / times[0] / (peak.flops / times[1]), peak_goal(full, form));
  for (std::size_t i = 0; i < names.size(); ++i)
    line(name + names[i], times[i + 2] / times[0], library_goal(full, form, names[i]));
}

void two_threads(const Sizes& s, Form form) {
  const bench::Layer<float> layer(s, form);
  const auto run_on = [&](int threads) {
    return [&layer, threads] {
      if (tutti::num_threads() != threads) tutti::set_num_threads(threads);
      layer.run();
    };
  };
  const auto times = measure(CLOCK_MONOTONIC, {run_on(1), run_on(2)});
  tutti::set_num_threads(1);
  line(s.name(form) + "/threads", times[0] / times[1], kThreads);
}

}  // namespace

int main(int argc, char** argv) {
  const bool two = tutti::num_threads() > 1;
  tutti::set_num_threads(1);
  for (int i = 1; i < argc; ++i)
    if (std::strcmp(argv[i], "--all") == 0)
      print_all = true;
    else
      wanted.emplace_back(argv[i]);
  for (const Sizes& s : kShapes)
    for (Form form : bench::kForms)
      if (is_wanted(s.name(form))) one_core(s, form);
  for (const Sizes& s : kThreadShapes)
    for (Form form : bench::kForms)
      if (two && is_wanted(s.name(form) + "/threads")) two_threads(s, form);
  return fell_short;
}
