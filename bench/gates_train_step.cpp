// Whether training steps are as fast as they must be. One row per ratio, "name value goal ok" or
// "name value goal SHORT"; the exit code is 1 if any falls short or results differ from the Eigen
// loop's, or could not be measured because other work kept the cores busy. Values are medians over
// turns:
//   <case>/<way>/over_eigen   time as a multiple of the Eigen loop's, one core: at most the goal
//   <case>/over_prototype     the last way's time as a multiple of that of the prototype's kernels,
//                             in rows or _lanes, if they were built (CMakeLists.txt): at most the
//                             goal
//   <case>/<way>/two_cores    one core's time over that of two: at least the goal
//   members/<way>/spread      largest over smallest time per member, for 16 to 256 members of one
//                             shape, whose state fits the caches, one core: at most the goal
//   members/<way>/beyond      time per member of 1024, whose state does not fit, as a multiple of
//                             the larger of the smallest above and the time that copying as many
//                             bytes as their parameters and state are read and written takes: at
//                             most the goal
// usage: gates_train_step [PART_OF_A_NAME | --check | --steps WAY CASE N | --data FOLDER]
//   --check        compares results with the Eigen loop's, no times
//   --steps WAY CASE N  runs N steps of a case (from 0), to be counted by scripts/step_cost.sh
//   --data FOLDER  writes each case, <case>.safetensors: x, y, the parameters and the losses after
//                  20 steps
#include <cstdio>
#include <cstring>
#include <iostream>

#include <sys/resource.h>
#include <unistd.h>

#include "interleaved.h"
#include "train_step.h"
#ifdef TUTTI_BENCH_PROTOTYPE
#include "prototype_step.h"
#endif

using namespace bench;
using tutti::set_num_threads;

namespace {

constexpr double kSplitFrom = 100e-6;  // seconds of work that two cores must share well
constexpr double kSpread = 1.15;
[[maybe_unused]] constexpr double kOverPrototype = 1.15;

class Gate {
 public:
  explicit Gate(std::string only) : only_(std::move(only)) {}
  bool wants(const std::string& name) const { return name.find(only_) != std::string::npos; }
  void at_most(const std::string& name, double value, double goal) {
    row(name, value, goal, value <= goal);
  }
  void at_least(const std::string& name, double value, double goal) {
    row(name, value, goal, value >= goal);
  }
  /// Fails if there is something to say.
  void complain(const std::string& text) {
    std::cerr << text;
    ok_ = ok_ && text.empty();
  }
  bool ok() const { return ok_; }

 private:
  void row(const std::string& name, double value, double goal, bool ok) {
    std::printf("%-45s %6.3f %5.2f %s\n", name.c_str(), value, goal, ok ? "ok" : "SHORT");
    std::fflush(stdout);
    ok_ = ok_ && ok;
  }
  std::string only_;
  bool ok_ = true;
};

bool two_cores_there() { return sysconf(_SC_NPROCESSORS_ONLN) >= 2; }

void over_eigen(Gate& gate, std::size_t index) {
  const Case& c = cases()[index];
  Net net = c.net();
  std::vector<std::unique_ptr<Ensemble>> ensembles;
  std::vector<std::function<void()>> steps{[&] { eigen_step(net); }};
  std::vector<std::pair<std::string, double>> goals;
  for (const WayInfo& way : ways()) {
    const std::string name = c.name() + "/" + way.name + "/over_eigen";
    if (!gate.wants(name) || way.over_eigen[index] == 0) continue;
    goals.emplace_back(name, way.over_eigen[index]);
    ensembles.push_back(std::make_unique<Ensemble>(c.net(), way.way));
    steps.push_back([e = ensembles.back().get()] { e->step(); });
  }
#ifdef TUTTI_BENCH_PROTOTYPE
  for (bool lanes : {false, true})
    steps.push_back(prototype_step(c.members, c.batch, c.widths, lanes));
#endif
  if (goals.empty()) return;
  const auto seconds = interleaved(steps, thread_time, 15, 40e-3);
  for (std::size_t i = 0; i < goals.size(); ++i)
    gate.at_most(goals[i].first, median_ratio(seconds[i + 1], seconds[0]), goals[i].second);
#ifdef TUTTI_BENCH_PROTOTYPE
  for (std::size_t i = goals.size() + 1; i < steps.size(); ++i)
    gate.at_most(c.name() + (i + 1 == steps.size() ? "/over_prototype_lanes" : "/over_prototype"),
                 median_ratio(seconds[goals.size()], seconds[i]), kOverPrototype);
#endif
}

/// Two threads compute for `seconds` of processor time each; the time that took.
double two_spin(double seconds) {
  const double start = real_time();
  tutti::parallel_for(2, 1, [seconds](std::int64_t begin, std::int64_t end) {
    for (; begin < end; ++begin)
      for (const double from = thread_time(); thread_time() - from < seconds;) continue;
  });
  return real_time() - start;
}

/// How many cores two threads get from the machine at this moment: 2 if it does nothing else.
double free_cores() {
  set_num_threads(2);
  constexpr double kEach = 1e-3;
  two_spin(kEach);  // the second thread may have to be started first
  return 2 * kEach / two_spin(kEach);
}

/// How often the system took a core away from a thread that wanted to go on.
long preemptions() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_nivcsw;
}

// Turns in which other work used one of the cores say nothing and are left out.
void two_cores(Gate& gate, const Case& c, const WayInfo& way) {
  const std::string name = c.name() + "/" + way.name + "/two_cores";
  if (!gate.wants(name)) return;
  constexpr std::size_t kEnough = 41;
  constexpr double kFree = 1.9, kPatience = 20;
  Ensemble ensemble(c.net(), way.way);
  const auto step_on = [&](int threads) {
    return [&ensemble, threads] {
      set_num_threads(threads);
      ensemble.step();
    };
  };
  const Timed one(step_on(1), real_time, 1e-3), two(step_on(2), real_time, 1e-3);
  std::vector<double> alone, together;
  for (const double start = real_time();
       alone.size() < kEnough && real_time() - start < kPatience;) {
    const long before = preemptions();
    if (free_cores() >= kFree) {
      const double t1 = one(), t2 = two();
      if (free_cores() >= kFree && preemptions() == before) {
        alone.push_back(t1);
        together.push_back(t2);
        continue;
      }
    }
    usleep(10000);
  }
  set_num_threads(1);
  if (alone.size() < kEnough)
    gate.complain(name + ": two cores were not free long enough to measure\n");
  else if (median(alone) >= kSplitFrom)
    gate.at_least(name, median_ratio(alone, together), c.two_cores);
}

/// Bytes read and written per second, memory that no cache holds copied by one core.
double copy_bandwidth() {
  std::vector<char> from(64 << 20, 1), to(from.size());
  const auto seconds =
      interleaved({[&] { std::memcpy(to.data(), from.data(), from.size()); }}, thread_time);
  return 2 * static_cast<double>(from.size()) / median(seconds[0]);
}

void members(Gate& gate, const WayInfo& way) {
  const std::string prefix = std::string("members/") + way.name;
  if (!gate.wants(prefix + "/spread") && !gate.wants(prefix + "/beyond")) return;
  std::vector<std::unique_ptr<Ensemble>> ensembles;
  std::vector<std::function<void()>> steps;
  std::vector<double> per_member;
  Case c = cases()[1];
  const int members[] = {16, 64, 256, 1024};  // the last one's state is beyond the caches
  for (int m : members) {
    c.members = m;
    ensembles.push_back(std::make_unique<Ensemble>(c.net(), way.way));
    steps.push_back([e = ensembles.back().get()] { e->step(); });
  }
  // Long samples: the state of the largest comes back into the last cache only over some steps.
  const auto seconds = interleaved(steps, thread_time, 15, 40e-3);
  for (std::size_t i = 0; i < seconds.size(); ++i) {
    per_member.push_back(median(seconds[i]) / members[i]);
    std::printf("# %s/%d: %.2f us each\n", prefix.c_str(), members[i], per_member.back() * 1e6);
  }
  const double beyond = per_member.back();
  per_member.pop_back();
  const auto [least, most] = std::minmax_element(per_member.begin(), per_member.end());
  gate.at_most(prefix + "/spread", *most / *least, kSpread);

  double numbers = 0;
  for (const auto& [name, p] : ensembles.back()->parameters())
    numbers += static_cast<double>(p.numel());
  constexpr double kStates = 3, kReadAndWritten = 2;  // a parameter and Adam's two
  const double bytes = numbers / c.members * sizeof(float) * kStates * kReadAndWritten;
  const double moved = bytes / copy_bandwidth();
  std::printf("# %s: %.2f us to move %.0f bytes each\n", prefix.c_str(), moved * 1e6, bytes);
  gate.at_most(prefix + "/beyond", beyond / std::max(*least, moved), kSpread);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  flush_denormals();
  set_num_threads(1);
  if (args.size() == 2 && args[0] == "--data") {
    for (const Case& c : cases()) write_case(c, args[1]);
    return 0;
  }
  if (args.size() == 4 && args[0] == "--steps") {
    for (const WayInfo& way : ways()) {
      if (way.name != args[1]) continue;
      Ensemble ensemble(cases().at(std::stoul(args[2])).net(), way.way);
      for (int i = std::stoi(args[3]); i > 0; --i) ensemble.step();
    }
    return 0;
  }
  const std::string arg = args.empty() ? "" : args[0];
  const bool check = arg == "--check";
  if (args.size() > 1 || (arg.starts_with("-") && !check)) {
    std::cerr << "usage: gates_train_step [PART_OF_A_NAME | --check | --steps WAY CASE N | --data "
                 "FOLDER]\n";
    return 2;
  }
  Gate gate(arg);
  for (const Case& c : cases())
    for (const WayInfo& way : ways()) gate.complain(disagreement(c, way.way));
  if (check) return gate.ok() ? 0 : 1;
  for (std::size_t i = 0; i < cases().size(); ++i) over_eigen(gate, i);
  for (const WayInfo& way : ways()) {
    for (std::size_t i = 0; i < cases().size() && two_cores_there(); ++i)
      if (way.over_eigen[i] > 0) two_cores(gate, cases()[i], way);
    if (way.over_eigen[1] > 0) members(gate, way);
  }
  return gate.ok() ? 0 : 1;
}
