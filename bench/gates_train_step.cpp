// Whether training steps are as fast as they must be. One row per ratio, "name value goal ok" or
// "name value goal SHORT"; the exit code is 1 if any falls short or results differ from the Eigen
// loop's. Values are medians over turns:
//   <case>/<way>/over_eigen   time as a multiple of the Eigen loop's, one core: at most the goal
//   <case>/<way>/two_cores    one core's time over that of two: at least the goal
//   members/<way>/spread      largest over smallest time per member, for 16 to 256 members of one
//                             shape, one core: at most the goal
// usage: gates_train_step [--check] [PART_OF_A_NAME]  or  gates_train_step --data FOLDER
//   --check        compares results only
//   --data FOLDER  writes each case, <case>.safetensors: x, y, the parameters and the losses after
//                  20 steps
#include <cstdio>
#include <iostream>

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
  /// Says what does not agree, if anything.
  void agreement(const std::string& text) {
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
  if (!gate.wants(c.name())) return;
  Net net = c.net();
  std::vector<std::unique_ptr<Ensemble>> ensembles;
  std::vector<std::function<void()>> steps{[&] { eigen_step(net); }};
  for (const WayInfo& way : ways()) {
    ensembles.push_back(std::make_unique<Ensemble>(c.net(), way.way));
    steps.push_back([e = ensembles.back().get()] { e->step(); });
  }
#ifdef TUTTI_BENCH_PROTOTYPE
  for (bool lanes : {false, true})
    steps.push_back(prototype_step(c.members, c.batch, c.widths, lanes));
#endif
  const auto seconds = interleaved(steps, thread_time);
#ifdef TUTTI_BENCH_PROTOTYPE
  for (std::size_t i = ways().size() + 1; i < steps.size(); ++i)
    std::printf("# %s/prototype%s/over_eigen %.3f\n", c.name().c_str(),
                i + 1 == steps.size() ? "_lanes" : "", median_ratio(seconds[i], seconds[0]));
#endif
  for (std::size_t w = 0; w < ways().size(); ++w)
    gate.at_most(c.name() + "/" + ways()[w].name + "/over_eigen",
                 median_ratio(seconds[w + 1], seconds[0]), ways()[w].over_eigen[index]);
}

void two_cores(Gate& gate, const Case& c, const WayInfo& way) {
  const std::string name = c.name() + "/" + way.name + "/two_cores";
  if (!gate.wants(name)) return;
  Ensemble ensemble(c.net(), way.way);
  const auto step_on = [&](int threads) {
    return [&ensemble, threads] {
      set_num_threads(threads);
      ensemble.step();
    };
  };
  const auto seconds = interleaved({step_on(1), step_on(2)}, real_time);
  set_num_threads(1);
  if (median(seconds[0]) < kSplitFrom) return;
  gate.at_least(name, median_ratio(seconds[0], seconds[1]), c.two_cores);
}

void members_spread(Gate& gate, const WayInfo& way) {
  const std::string name = std::string("members/") + way.name + "/spread";
  if (!gate.wants(name)) return;
  std::vector<std::unique_ptr<Ensemble>> ensembles;
  std::vector<std::function<void()>> steps;
  std::vector<double> per_member;
  Case c = cases()[1];
  const int members[] = {16, 64, 256};
  for (int m : members) {
    c.members = m;
    ensembles.push_back(std::make_unique<Ensemble>(c.net(), way.way));
    steps.push_back([e = ensembles.back().get()] { e->step(); });
  }
  const auto seconds = interleaved(steps, thread_time);
  for (std::size_t i = 0; i < seconds.size(); ++i)
    per_member.push_back(median(seconds[i]) / members[i]);
  const auto [least, most] = std::minmax_element(per_member.begin(), per_member.end());
  gate.at_most(name, *most / *least, 1.25);
}

void write_case(const Case& c, const std::string& folder) {
  Ensemble ensemble(c.net(), Way::eager);
  tutti::TensorDict out{{"x", ensemble.x()}, {"y", ensemble.y()}};
  for (const auto& [name, p] : ensemble.parameters()) out.insert(name, p.detach().clone());
  tutti::Tensor losses;
  for (int i = 0; i < kCheckedSteps; ++i) losses = ensemble.step();
  out.insert("losses", losses);
  tutti::save(out, folder + "/" + c.name() + ".safetensors");
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
  const std::size_t check = !args.empty() && args[0] == "--check";
  const std::string only = args.size() > check ? args[check] : "";
  if (args.size() > check + 1 || only.starts_with("-")) {
    std::cerr << "usage: gates_train_step [--check] [PART_OF_A_NAME] | --data FOLDER\n";
    return 2;
  }
  Gate gate(only);
  for (const Case& c : cases())
    for (const WayInfo& way : ways())
      if (gate.wants(c.name() + "/" + way.name)) gate.agreement(disagreement(c, way.way));
  if (check) return gate.ok() ? 0 : 1;
  for (std::size_t i = 0; i < cases().size(); ++i) over_eigen(gate, i);
  for (const WayInfo& way : ways()) {
    if (two_cores_there())
      for (const Case& c : cases()) two_cores(gate, c, way);
    members_spread(gate, way);
  }
  return gate.ok() ? 0 : 1;
}
