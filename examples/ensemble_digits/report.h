// The report: one HTML page with everything in it, to be opened in any browser.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "digits.h"
#include "metrics.h"
#include "settings.h"

namespace digits {

/// What one epoch of training showed.
struct Epoch {
  std::vector<double> loss;      // training loss of every member
  std::vector<double> accuracy;  // test accuracy of every member
  double ensemble_accuracy = 0;
};

/// Seconds per epoch, medians over some rounds.
struct Times {
  double vmapped = 0, vmapped_one_thread = 0, loop = 0;
  int threads = 1, rounds = 0;
};

/// Mean and extremes of one number over the members.
struct Spread {
  explicit Spread(const std::vector<double>& values);
  double mean, min, max;
};

struct Results {
  Settings settings;
  std::int64_t train_rows = 0;
  Digits test;
  std::vector<Epoch> epochs;
  std::vector<Quality> members;
  Quality ensemble;
  std::vector<Bin> member_bins, ensemble_bins;
  std::vector<Votes> disputed;
  std::vector<std::int64_t> ensemble_votes;  // the ensemble's answer for every test row
  Times times;

  /// One field of every member's quality.
  Spread member(double Quality::*field) const;
};

/// The page. It is well-formed XML too, loads nothing, runs no script, and follows the reader's
/// light or dark mode.
std::string html_report(const Results& r);

}  // namespace digits
