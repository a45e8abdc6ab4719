// Runs every check on every row of the op table. TUTTI_ROW=name runs one row (or all rows of one
// op), TUTTI_SEED=n draws other inputs.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "row_checks.h"
#include "test.h"

using namespace tutti;
using namespace tutti_test;

TEST_CASE("every op") {
  const auto rows = selected_rows();
  REQUIRE(!rows.empty());
  Tally tally;
  std::size_t opting_out = 0;
  for (const Row& row : rows) {
    CHECK_MESSAGE((row.reference || row.is_random), "row \"" << row.name << "\" has no reference");
    check_row(row, tally);
    opting_out += !row.skips.empty();
    for (const auto& [check, reason] : row.skips)
      std::printf("  row \"%s\" opts out of %s: %s\n", row.name.c_str(), check.c_str(),
                  reason.c_str());
  }
  tally.print("op table", rows.size());
  CHECK(tally.failed() == 0);
  CHECK(opting_out * 20 <= table().size());
}

namespace {

// What a million draws should look like.
struct Moments {
  double mean = 0, variance = 0, lowest = INFINITY, highest = -INFINITY;
  explicit Moments(const Tensor& t) {
    const Array a = to_array(t);
    const auto n = static_cast<double>(a.data.size());
    for (double x : a.data) {
      mean += x / n;
      lowest = std::min(lowest, x);
      highest = std::max(highest, x);
    }
    for (double x : a.data) variance += (x - mean) * (x - mean) / n;
  }
};

}  // namespace

TEST_CASE("random numbers have the distributions they say") {
  manual_seed(run_seed());
  const std::int64_t n = 40000;  // standard error of a mean: 0.005 standard deviations
  for (DType d : {kFloat32, kFloat64}) {
    auto check = [&](const char* what, const Tensor& t, double mean, double variance, double lowest,
                     double highest) {
      CAPTURE(what);
      CHECK(t.dtype() == d);
      const Moments m(t);
      CHECK(std::abs(m.mean - mean) < 0.025 * std::sqrt(variance));
      CHECK(std::abs(m.variance - variance) < 0.05 * variance);
      CHECK(m.lowest >= lowest);
      CHECK(m.highest <= highest);
    };
    const double below_one = std::nextafter(1.0F, 0.0F);
    const Tensor zero = zeros(n, d);
    check("rand", rand(n, d), 0.5, 1.0 / 12, 0, d == kFloat32 ? below_one : 1);
    check("rand_like", rand_like(zero), 0.5, 1.0 / 12, 0, 1);
    check("uniform_", zero.clone().uniform_(2, 5), 3.5, 9.0 / 12, 2, 5);
    check("randn", randn(n, d), 0, 1, -6, 6);
    check("randn_like", randn_like(zero), 0, 1, -6, 6);
    check("normal", normal(3, 2, n, d), 3, 4, -9, 15);
    check("normal of tensors", normal(zero + 3, zero + 2), 3, 4, -9, 15);
    check("normal_", zero.clone().normal_(3, 2), 3, 4, -9, 15);
    check("bernoulli", bernoulli(zero + 0.3), 0.3, 0.21, 0, 1);
    check("bernoulli number", bernoulli(zero, 0.3), 0.3, 0.21, 0, 1);
    check("bernoulli_", zero.clone().bernoulli_(0.3), 0.3, 0.21, 0, 1);
    check("dropout", dropout(zero + 3, 0.25), 3, 3, 0, 4 + 1e-6);
    // Whole numbers a..b: the mean is (a + b) / 2, the variance ((b - a + 1)^2 - 1) / 12.
    check("randint", randint(-2, 5, n, d), 1, 4, -2, 4);
    check("randint_like", randint_like(zero, -2, 5), 1, 4, -2, 4);
    check("random_", zero.clone().random_(-2, 5), 1, 4, -2, 4);
    check("multinomial", multinomial(tensor({1.0, 0.0, 3.0}).to(d), n, true).to(d), 1.5, 0.75, 0,
          2);
  }
  // A quarter of the standard normal lies above 0.6745, and its fourth moment is 3.
  const Tensor z = randn(n, kFloat64);
  CHECK((z > 0.6745).to(kFloat64).mean().item<double>() == doctest::Approx(0.25).epsilon(0.05));
  CHECK(z.pow(4).mean().item<double>() == doctest::Approx(3).epsilon(0.1));
  // Each dropped element is 0 and each kept one is scaled.
  const Tensor dropped = dropout(ones(n, kFloat64), 0.2);
  CHECK(((dropped == 0) || (dropped == 1.25)).all().item<bool>());
  // Permutations, and draws without replacement, do not repeat.
  CHECK(equal(std::get<0>(tutti::sort(randperm(1000))), arange(1000)));
  const Tensor chosen = multinomial(ones({50, 7}), 7);
  CHECK(equal(std::get<0>(tutti::sort(chosen)), arange(7).expand({50, 7})));
  // Every place of a permutation is equally likely.
  Array places{{5}, std::vector<double>(5, 0.0)};
  for (int i = 0; i < 4000; ++i)
    places.data[static_cast<std::size_t>(randperm(5)[2].item<int>())] += 1;
  for (double k : places.data) CHECK(std::abs(k - 800) < 130);
}
