// The metrics of examples/ensemble_digits, against numbers worked out by hand.
#include <cmath>
#include <vector>

#include <tutti/tutti.h>

#include "../examples/ensemble_digits/metrics.h"
#include "test.h"

using namespace tutti;

TEST_CASE("metrics: accuracy, likelihood, calibration of four predictions") {
  const Tensor p = tensor({{0.9, 0.1, 0.0}, {0.2, 0.7, 0.1}, {0.4, 0.5, 0.1}, {0.0, 0.05, 0.95}});
  const Tensor y = tensor({0, 1, 0, 2});
  const digits::Quality q = digits::quality(p, y);
  CHECK(q.accuracy == doctest::Approx(0.75));
  CHECK(q.nll ==
        doctest::Approx(-(std::log(0.9) + std::log(0.7) + std::log(0.4) + std::log(0.95)) / 4));
  // Bins of 1/15: 0.9 lies in (13/15, 14/15], 0.95 above it, 0.7 in (10/15, 11/15], 0.5 in (7/15,
  // 8/15].
  CHECK(q.ece == doctest::Approx((0.1 + 0.05 + 0.3 + 0.5) / 4).epsilon(1e-5));

  const auto bins = digits::reliability(p, y);
  REQUIRE(bins.size() == 15);
  CHECK(bins[7].count == 1);
  CHECK(bins[7].confidence == doctest::Approx(0.5));
  CHECK(bins[7].accuracy == 0);
  CHECK(bins[13].count == 1);
  CHECK(bins[14].count == 1);
  CHECK(bins[14].accuracy == 1);

  // Two predictions in one bin: the bin's means count, not single differences.
  const auto both = digits::reliability(tensor({{0.62, 0.38}, {0.66, 0.34}}), tensor({0, 1}));
  CHECK(both[9].count == 2);
  CHECK(both[9].confidence == doctest::Approx(0.64));
  CHECK(both[9].accuracy == 0.5);

  CHECK(std::isfinite(digits::quality(tensor({{1.0, 0.0}}), tensor({1})).nll));
}

TEST_CASE("metrics: the most disputed come first, the doubtful before the certain among equals") {
  // Three members, four pictures, two classes; votes 3:0, 2:1, 3:0, 1:2.
  const Tensor p = tensor({{{0.9, 0.1}, {0.9, 0.1}, {0.6, 0.4}, {0.8, 0.2}},
                           {{0.9, 0.1}, {0.9, 0.1}, {0.6, 0.4}, {0.4, 0.6}},
                           {{0.9, 0.1}, {0.1, 0.9}, {0.6, 0.4}, {0.4, 0.6}}});
  const auto v = digits::most_disputed(p, 3);
  REQUIRE(v.size() == 3);
  CHECK(v[0].row == 3);  // mean 0.533, nearer to a half than row 1's 0.633
  CHECK(v[1].row == 1);
  CHECK(v[2].row == 2);
  CHECK(v[0].count == std::vector<std::int64_t>{1, 2});
  CHECK(v[0].entropy == doctest::Approx(-(std::log(1.0 / 3) + 2 * std::log(2.0 / 3)) / 3));
  CHECK(v[2].entropy == 0);
  CHECK(digits::most_disputed(p, 9).size() == 4);
}
