// An ensemble learns to read digits: M small networks, trained at once with stack_module_state,
// vmap and grad. Reads a CSV file; prints progress, a table and a RESULT line; writes
// ensemble.safetensors and report.html.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include <CLI/CLI.hpp>

#include <tutti/tutti.h>

#include "digits.h"
#include "ensemble.h"
#include "metrics.h"
#include "progress.h"
#include "report.h"
#include "settings.h"

namespace digits {
namespace {

using tutti::Tensor;

constexpr double kTestShare = 0.2;
constexpr std::size_t kDisputed = 10;

/// Makes the folder if need be. tutti::FileError if the results could not be written there.
void check_output(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error || !std::filesystem::is_directory(folder))
    throw tutti::FileError("save", "cannot make the folder " + folder + ": " +
                                       (error ? error.message() : "it is a file") +
                                       "; choose another one with --out");
  for (const char* name : {"ensemble.safetensors", "report.html"})
    tutti::check_writable((std::filesystem::path(folder) / name).string());
}

template <class F>
double seconds_of(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

Epoch test_epoch(const Ensemble& ensemble, const Tensor& losses, const Tensor& x,
                 const Tensor& labels) {
  const Tensor p = ensemble.probabilities(x);
  const Tensor right = (p.argmax(2) == labels).to(tutti::kFloat64).mean(1);
  const Tensor together = (p.mean(0).argmax(1) == labels).to(tutti::kFloat64).mean();
  return {losses.to_vector<double>(), right.to_vector<double>(), together.item<double>()};
}

/// Trains from the same start in both ways, in turns, and takes medians. The first epoch of each
/// warms up.
Times compare_times(const Settings& s, const tutti::data::TensorDataset& train) {
  const std::vector<Mlp> members = make_members(s);
  Ensemble ensemble(members, s);
  MemberLoop loop(members, s);
  auto loader = make_loader(train, s);
  const auto vmapped = [&] { return seconds_of([&] { ensemble.train_epoch(loader); }); };
  const auto looped = [&] { return seconds_of([&] { loop.train_epoch(loader); }); };

  Times t;
  t.threads = tutti::num_threads();
  const double guess = vmapped() + looped();
  t.rounds = static_cast<int>(std::clamp(2 / guess, 3.0, 15.0));  // more rounds where one is short
  std::vector<double> together, one_thread, in_turn;
  for (int i = 0; i < t.rounds; ++i) {
    together.push_back(vmapped());
    in_turn.push_back(looped());
    if (t.threads > 1) {
      tutti::set_num_threads(1);
      one_thread.push_back(vmapped());
      tutti::set_num_threads(t.threads);
    }
  }
  t.vmapped = median(together);
  t.loop = median(in_turn);
  t.vmapped_one_thread = one_thread.empty() ? t.vmapped : median(one_thread);
  return t;
}

void print_table(const Results& r) {
  const auto row = [&](const char* name, double Quality::*field) {
    const Spread m = r.member(field);
    std::printf("%-10s %12.4f %10.4f %10.4f %12.4f\n", name, m.mean, m.min, m.max,
                r.ensemble.*field);
  };
  std::printf("\n%-10s %12s %10s %10s %12s\n", "", "mean member", "min", "max", "ensemble");
  row("accuracy", &Quality::accuracy);
  row("NLL", &Quality::nll);
  row("ECE", &Quality::ece);
  const Times& t = r.times;
  std::printf("\ntime per epoch (median of %d)\n", t.rounds);
  std::printf("  vmapped, %d thread%s %10.4f s\n", t.threads,
              t.threads == 1 ? ": " : "s:", t.vmapped);
  if (t.threads > 1)
    std::printf("  vmapped, 1 thread:  %10.4f s   %.2f x the time on %d threads\n",
                t.vmapped_one_thread, t.vmapped_one_thread / t.vmapped, t.threads);
  std::printf("  loop over members:  %10.4f s   %.2f x the vmapped time\n", t.loop,
              t.loop / t.vmapped);
}

void run(const Settings& s) {
  if (s.threads > 0) tutti::set_num_threads(s.threads);
  const Digits all = read_digits(s.data);
  const Split split = stratified_split(all, kTestShare, s.seed);
  check_output(s.out);

  const Scaling scale(split.train.pixels);
  const tutti::data::TensorDataset train(scale(split.train.pixels), split.train.labels);
  const Tensor test = scale(split.test.pixels);

  Results r;
  r.settings = s;
  r.train_rows = train.size();
  r.test = split.test;
  std::printf("%lld members, %lld digits to learn from, %lld to test with, %d threads\n",
              static_cast<long long>(s.members), static_cast<long long>(train.size()),
              static_cast<long long>(r.test.size()), tutti::num_threads());

  Ensemble ensemble(make_members(s), s);
  auto loader = make_loader(train, s);
  {
    Progress progress(s.epochs);
    for (std::int64_t epoch = 1; epoch <= s.epochs; ++epoch) {
      Tensor losses;
      const double time = seconds_of([&] { losses = ensemble.train_epoch(loader); });
      r.epochs.push_back(test_epoch(ensemble, losses, test, r.test.labels));
      progress.show(epoch, Spread(r.epochs.back().loss).mean, r.epochs.back().ensemble_accuracy,
                    static_cast<double>(s.members * train.size()) / time);
    }
  }

  const Tensor probabilities = ensemble.probabilities(test), together = probabilities.mean(0);
  for (std::int64_t m = 0; m < s.members; ++m)
    r.members.push_back(quality(probabilities[m], r.test.labels));
  r.ensemble = quality(together, r.test.labels);
  r.member_bins = reliability(probabilities.flatten(0, 1), r.test.labels.repeat(s.members));
  r.ensemble_bins = reliability(together, r.test.labels);
  r.disputed = most_disputed(probabilities, kDisputed);
  r.ensemble_votes = together.argmax(1).to_vector<std::int64_t>();
  r.times = compare_times(s, train);
  print_table(r);

  const std::filesystem::path folder(s.out);
  const std::string tensors = (folder / "ensemble.safetensors").string();
  const std::string report = (folder / "report.html").string();
  tutti::AtomicFile page(report);
  page.write(html_report(r));
  tutti::save(ensemble.parameters(), tensors,
              {{"members", std::to_string(s.members)},
               {"hidden", std::to_string(s.hidden)},
               {"epochs", std::to_string(s.epochs)},
               {"seed", std::to_string(s.seed)},
               {"input", "(pixel / 16 - " + std::to_string(scale.mean) + ") / " +
                             std::to_string(scale.std)}});
  page.commit();
  std::printf("\nwrote %s and %s\n", tensors.c_str(), report.c_str());
  std::printf(
      "RESULT ensemble_accuracy=%.4f member_accuracy=%.4f ensemble_nll=%.4f member_nll=%.4f "
      "vmapped_s=%.4f "
      "loop_s=%.4f\n",
      r.ensemble.accuracy, r.member(&Quality::accuracy).mean, r.ensemble.nll,
      r.member(&Quality::nll).mean, r.times.vmapped, r.times.loop);
}

}  // namespace
}  // namespace digits

int main(int argc, char** argv) {
  digits::Settings s;
  CLI::App app{"Trains an ensemble of small networks to read digits, all at once."};
  // The last of repeated options holds, so that scripts can give defaults.
  app.option_defaults()->always_capture_default()->multi_option_policy(
      CLI::MultiOptionPolicy::TakeLast);
  app.add_option("--members", s.members, "Networks in the ensemble")->check(CLI::PositiveNumber);
  app.add_option("--hidden", s.hidden, "Width of the hidden layer")->check(CLI::PositiveNumber);
  app.add_option("--epochs", s.epochs, "Passes over the training data")->check(CLI::PositiveNumber);
  app.add_option("--batch", s.batch, "Digits per step and member")->check(CLI::PositiveNumber);
  app.add_option("--chunk", s.chunk, "Members trained at once, to save memory; 0: all")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--lr", s.learning_rate, "Learning rate of Adam")->check(CLI::PositiveNumber);
  app.add_option("--seed", s.seed, "Seed of every random choice")->check(CLI::NonNegativeNumber);
  app.add_option("--threads", s.threads, "Threads; 0: as many as cores")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--data", s.data, "CSV file: 64 grey levels from 0 to 16 and a label per line");
  app.add_option("--out", s.out, "Folder for ensemble.safetensors and report.html");
  CLI11_PARSE(app, argc, argv);

  try {
    digits::run(s);
    return 0;
  } catch (const std::bad_alloc&) {
    std::fprintf(
        stderr,
        "ensemble_digits: not enough memory; choose fewer --members or a smaller --hidden\n");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "ensemble_digits: %s\n", e.what());
  }
  return 1;
}
