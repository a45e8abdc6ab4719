// Transforms of transforms: depth 2 for the rows of the op table, and the laws that any nesting
// must keep.
#include <cstdio>

#include "row_checks.h"
#include "test.h"

using namespace tutti;
using namespace tutti_test;

TEST_CASE("depth 2 of a sample of rows") {
  Rng rng(run_seed());
  const auto rows = selected_rows();
  Tally tally;
  std::size_t used = 0;
  for (const Row& row : rows) {
    const bool sampled = rows.size() > 20;
    if (sampled && rng() % 3 != 0) continue;
    for (int which = 0; which < transforms; ++which)
      if (!sampled || rng() % 5 < 2) check_nested(row, which, tally, 4);
    ++used;
  }
  tally.print("depth 2, sampled", used);
  CHECK(tally.failed() == 0);
}

// Run by the slow suite: --test-case="depth 2 of all rows" --no-skip
TEST_CASE("depth 2 of all rows" * doctest::skip()) {
  const auto rows = selected_rows();
  Tally tally;
  for (const Row& row : rows)
    for (int which = 0; which < transforms; ++which) check_nested(row, which, tally, 81);
  tally.print("depth 2", rows.size());
  CHECK(tally.failed() == 0);
}

// Run by the slow suite, too.
TEST_CASE("three transforms drawn for every row" * doctest::skip()) {
  const auto rows = selected_rows();
  Tally tally;
  for (const Row& row : rows) {
    Rng rng = rng_for(row.name + " chain" + std::to_string(run_seed()));
    for (int chain = 0; chain < 3; ++chain) check_chain(row, rng, tally);
  }
  tally.print("depth 3, sampled", rows.size());
  CHECK(tally.failed() == 0);
}

namespace {

using Function = std::function<Tensor(const Tensor&)>;

// d f at a 0-d x, by reverse or forward mode.
Function derivative(bool reverse, Function f) {
  return [=](const Tensor& x) {
    if (reverse) return func::grad(f)(x);
    return func::jvp(f, std::tuple(x), std::tuple(ones_like(x))).second;
  };
}

Tensor number(double x) { return scalar_tensor(x, kFloat64); }

}  // namespace

TEST_CASE("no perturbation confusion in any pair of modes") {
  for (bool outer : {false, true})
    for (bool inner : {false, true}) {
      CAPTURE(outer);
      CAPTURE(inner);
      // d/dx [x * d/dy (x + y)] = 1, not 2.
      const Function f = [&](const Tensor& x) {
        return x * derivative(inner, [&](const Tensor& y) { return x + y; })(number(1));
      };
      CHECK(derivative(outer, f)(number(1)).item<double>() == 1);
      // d/dx [x * d/dy x] = 0: what does not depend on y has no derivative.
      const Function g = [&](const Tensor& x) {
        return x * derivative(inner, [&](const Tensor&) { return x * 1; })(number(1));
      };
      CHECK(derivative(outer, g)(number(1)).item<double>() == 0);
      // d/dx [d/dy (x * y * y)] at (3, 2) = 4, with x inside and y the variable.
      const Function h = [&](const Tensor& x) {
        return derivative(inner, [&](const Tensor& y) { return x * y * y; })(number(2));
      };
      CHECK(derivative(outer, h)(number(3)).item<double>() == 4);
    }
}

TEST_CASE("third derivatives in all eight mixes of modes, mapped and not") {
  const Function f = [](const Tensor& x) { return x.sin() * x * x; };
  const double x = 0.7;
  const double third = -(x * x - 6) * std::cos(x) - 6 * x * std::sin(x);
  for (int modes = 0; modes < 8; ++modes) {
    const Function d = derivative(modes & 1, derivative(modes & 2, derivative(modes & 4, f)));
    CHECK(d(number(x)).item<double>() == doctest::Approx(third).epsilon(1e-12));
    const Tensor many = func::vmap(d)(full({3}, x, kFloat64));
    for (double y : many.to_vector<double>()) CHECK(y == doctest::Approx(third).epsilon(1e-12));
  }
}

TEST_CASE("Jacobians and Hessians do not depend on how they are composed") {
  auto f = [](const Tensor& x) { return (x.sin() * x * x.exp()).sum() * x.prod(); };
  Rng rng = rng_for("jacobians");
  const Tensor x = to_tensor(sample(positive({3}), rng), kFloat64);
  const Tensor basis = eye(3, kFloat64);
  auto forward = [&](auto g) {
    return [=](const Tensor& at) {
      return func::vmap(
          [=](const Tensor& t) { return func::jvp(g, std::tuple(at), std::tuple(t)).second; }, 0,
          -1)(basis);
    };
  };
  auto reverse = [&](auto g) {
    return [=](const Tensor& at) {
      auto pull = func::vjp(g, at).second;
      return func::vmap([=](const Tensor& c) { return std::get<0>(pull(c)); })(basis);
    };
  };
  const Tensor h1 = forward(func::grad(f))(x), h2 = reverse(func::grad(f))(x);
  CHECK(close(h1, h2, 1e-12));
  CHECK(close(h1, h1.mT(), 1e-12));
  auto along = [&](const Tensor& v) {  // jvp of grad
    return func::jvp(func::grad(f), std::tuple(x), std::tuple(v)).second;
  };
  CHECK(close(func::vmap(along)(basis), h1, 1e-12));
  const Tensor batch = tutti::stack({x, x * 2});
  const Tensor both = func::vmap(forward(func::grad(f)))(batch);
  CHECK(close(both[0], h1, 1e-12));
  CHECK(close(both[1], reverse(func::grad(f))(x * 2), 1e-12));
}
