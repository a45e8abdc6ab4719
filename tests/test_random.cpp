// Random draws: seeds, generators, randomness modes of vmap, chunks, dropout and its derivative.
#include <set>

#include <tutti/autograd/autograd.h>
#include <tutti/func/transforms.h>

#include "behaviour.h"

using namespace tutti;
using func::grad;
using func::vmap;
using std::nullopt;

namespace {

VmapOptions options(Randomness r) { return VmapOptions().randomness(r); }
VmapOptions different(std::int64_t chunk) {
  return VmapOptions().randomness(Randomness::different).chunk_size(chunk);
}

// Whether all rows differ from each other.
bool rows_differ(const Tensor& t) {
  std::set<std::vector<double>> rows;
  for (std::int64_t i = 0; i < t.size(0); ++i) rows.insert(t[i].to_vector<double>());
  return rows.size() == static_cast<std::size_t>(t.size(0));
}
bool rows_equal(const Tensor& t) {
  for (std::int64_t i = 1; i < t.size(0); ++i)
    if (!tutti_test::same(t[i], t[0])) return false;
  return true;
}

}  // namespace

TEST_CASE("the same seed gives the same numbers") {
  manual_seed(42);
  Tensor a = randn({5}), b = rand({3, 2}), c = randint(10, {4}), d = randperm(6);
  manual_seed(42);
  CHECK_SAME(randn({5}), a);
  CHECK_SAME(rand({3, 2}), b);
  CHECK_SAME(randint(10, {4}), c);
  CHECK_SAME(randperm(6), d);
  CHECK_FALSE(tutti_test::same(randn({5}), a));
  auto state = get_rng_state();
  Tensor next = randn(3);
  set_rng_state(state);
  CHECK_SAME(randn(3), next);
}

TEST_CASE("explicit generators are independent of the default one") {
  Generator g(7), h(7);
  manual_seed(1);
  Tensor a = randn(4, {}, g);
  Tensor between = randn(4);
  CHECK_SAME(randn(4, {}, h), a);
  manual_seed(1);
  CHECK_SAME(randn(4), between);
  Generator copy = g;  // copies share the counter
  Tensor b = randn(4, {}, copy);
  CHECK_FALSE(tutti_test::same(a, b));
  CHECK_SAME(randn(4, {}, h), b);
  g.manual_seed(7);
  CHECK_SAME(randn(4, {}, g), a);
  CHECK(g.draws() == 1);
}

TEST_CASE("distributions have the promised ranges and moments") {
  manual_seed(0);
  Tensor u = rand({100000}, kFloat64);
  CHECK(u.min().item<double>() >= 0);
  CHECK(u.max().item<double>() < 1);
  CHECK(u.mean().item<double>() == doctest::Approx(0.5).epsilon(0.01));
  CHECK(u.var().item<double>() == doctest::Approx(1.0 / 12).epsilon(0.02));
  Tensor n = randn({100000});
  CHECK(std::abs(n.mean().item<double>()) < 0.015);
  CHECK(n.std().item<double>() == doctest::Approx(1).epsilon(0.01));
  Tensor i = randint(-2, 3, {10000});
  CHECK(i.min().item<int>() == -2);
  CHECK(i.max().item<int>() == 2);
  auto [sorted, at] = randperm(100).sort();
  CHECK_SAME(sorted, arange(100));
  CHECK(bernoulli(full({10000}, 0.3)).mean().item<double>() == doctest::Approx(0.3).epsilon(0.06));
  Tensor m = multinomial(tensor({0.f, 3.f, 1.f}), 8000, true);
  CHECK((m == 0).sum().item<int>() == 0);
  CHECK((m == 1).sum().item<int>() == doctest::Approx(6000).epsilon(0.03));
  Tensor w = multinomial(tensor({0.1f, 0.f, 0.5f, 0.4f}), 3);
  CHECK_VALUES(std::get<0>(w.sort()), 0, 2, 3);
}

// ---- randomness modes

TEST_CASE("random ops inside vmap ask for a mode, even without mapped inputs") {
  Tensor x = ones({3, 2});
  auto check = [&](auto f) {
    CHECK_THROWS_SAYING(vmap(f)(x), TransformError, "random", "vmap", "Randomness::different");
    CHECK_NOTHROW(vmap(f, 0, 0, options(Randomness::same))(x));
    CHECK_NOTHROW(vmap(f, 0, 0, options(Randomness::different))(x));
  };
  check([](const Tensor&) { return randn(2); });
  check([](const Tensor&) { return rand(2); });
  check([](const Tensor&) { return randint(5, {2}); });
  check([](const Tensor&) { return randperm(4); });
  check([](const Tensor& v) { return rand_like(v); });
  check([](const Tensor& v) { return v.dropout(0.5, true); });
  check([](const Tensor& v) { return bernoulli(v * 0.5); });
  check([](const Tensor& v) { return normal(v, v); });
  check([](const Tensor& v) { return multinomial(v, 1); });
  check([](const Tensor& v) { return v.clone().uniform_(); });
  check([](const Tensor& v) { return v.clone().normal_(); });
  CHECK_NOTHROW(vmap([](const Tensor& v) { return v.dropout(0.5, false); })(x));
}

TEST_CASE("different: every example draws its own; same: one draw for all") {
  Tensor x = zeros({4, 8});
  auto draw = [](const Tensor& v) { return v + randn(8); };
  CHECK(rows_differ(vmap(draw, 0, 0, options(Randomness::different))(x)));
  CHECK(rows_equal(vmap(draw, 0, 0, options(Randomness::same))(x)));
  auto factory = [](const Tensor&) { return rand(8); };
  CHECK(rows_differ(vmap(factory, 0, 0, options(Randomness::different))(x)));
  CHECK(rows_equal(vmap(factory, 0, 0, options(Randomness::same))(x)));
  CHECK(rows_equal(
      vmap([](const Tensor& v) { return randn_like(v); }, 0, 0, options(Randomness::same))(x)));
  CHECK(rows_differ(vmap([](const Tensor& v) { return randperm(20) + v.sum(); }, 0, 0,
                         options(Randomness::different))(x)));
  CHECK(rows_differ(vmap([](const Tensor& v) { return v.clone().normal_(); }, 0, 0,
                         options(Randomness::different))(x)));
  Tensor masks = vmap([](const Tensor& v) { return (v + 1).dropout(0.5, true); }, 0, 0,
                      options(Randomness::different))(zeros({6, 64}));
  CHECK(rows_differ(masks));
  CHECK((masks == 0).to(kFloat32).mean().item<double>() == doctest::Approx(0.5).epsilon(0.2));
}

TEST_CASE("same draws what the function alone would draw") {
  manual_seed(5);
  Tensor alone = randn(3);
  manual_seed(5);
  Tensor mapped =
      vmap([](const Tensor& v) { return v + randn(3); }, 0, 0, options(Randomness::same))(zeros(4));
  CHECK_SAME(mapped[2], alone);
}

TEST_CASE("a fresh value drawn inside is written under vmap like others") {
  Tensor x = arange(4, kFloat32);
  manual_seed(9);
  Tensor r = vmap([](const Tensor& v) { return randn(3).mul_(0).add_(v); }, 0, 0,
                  options(Randomness::different))(x);
  CHECK_VALUES(r.select(1, 2), 0, 1, 2, 3);
}

TEST_CASE("the innermost vmap's mode governs its draws") {
  Tensor x = zeros({3, 2});
  auto nested = [&](Randomness outer_mode, Randomness inner_mode) {
    return vmap(
        [&](const Tensor& a) {
          return vmap([](const Tensor& b) { return b + randn(4); }, 0, 0, options(inner_mode))(a);
        },
        0, 0, options(outer_mode))(x);
  };
  Tensor dd = nested(Randomness::different, Randomness::different);
  CHECK(rows_differ(dd.reshape({6, 4})));
  Tensor ds = nested(Randomness::different, Randomness::same);
  for (int i = 0; i < 3; ++i) CHECK(rows_equal(ds[i]));
  CHECK(rows_differ(ds.select(1, 0)));
  Tensor sd = nested(Randomness::same, Randomness::different);
  CHECK(rows_equal(sd.reshape({3, 8})));
  CHECK(rows_differ(sd[0]));
  CHECK(rows_equal(nested(Randomness::same, Randomness::same).reshape({6, 4})));
  CHECK_THROWS_SAYING(nested(Randomness::different, Randomness::error), TransformError, "random");
  // A draw outside of the inner one follows the outer mode.
  CHECK_THROWS_SAYING(vmap([&](const Tensor& a) { return a + randn(2); })(x), TransformError,
                      "random");
}

TEST_CASE("a draw passes through grad and jvp, and is constant for them") {
  manual_seed(3);
  Tensor r = randn(3);
  manual_seed(3);
  Tensor g = grad([](const Tensor& x) { return (x * randn(3)).sum(); })(ones(3));
  CHECK_SAME(g, r);
}

// ---- chunks

TEST_CASE("chunk_size does not change draws, bit for bit") {
  const std::int64_t members = 7;
  Tensor x = arange(members, kFloat32);
  auto f = [](const Tensor& v) {
    Tensor a = randn({5}), b = rand({2, 3}, kFloat64), c = randint(1000, {4}), d = randperm(9);
    Tensor e = ones(11).dropout(0.3, true), h = rand_like(zeros(3)), u = multinomial(ones(6), 4);
    return std::tuple(a, b, c, d, e, h, u, v);
  };
  for (Randomness mode : {Randomness::different, Randomness::same}) {
    manual_seed(11);
    auto whole = vmap(f, 0, 0, options(mode))(x);
    const auto state = get_rng_state();
    for (std::int64_t chunk : {1, 2, 3, 7, 50}) {
      manual_seed(11);
      auto chunked = vmap(f, 0, 0, options(mode).chunk_size(chunk))(x);
      CHECK_SAME(std::get<0>(chunked), std::get<0>(whole));
      CHECK_SAME(std::get<1>(chunked), std::get<1>(whole));
      CHECK_SAME(std::get<2>(chunked), std::get<2>(whole));
      CHECK_SAME(std::get<3>(chunked), std::get<3>(whole));
      CHECK_SAME(std::get<4>(chunked), std::get<4>(whole));
      CHECK_SAME(std::get<5>(chunked), std::get<5>(whole));
      CHECK_SAME(std::get<6>(chunked), std::get<6>(whole));
      CHECK(get_rng_state() == state);
    }
    if (mode == Randomness::different) CHECK(rows_differ(std::get<0>(whole)));
  }
}

TEST_CASE("chunks inside chunks: nested vmaps with every pair of chunk sizes") {
  Tensor x = zeros({3, 7});
  auto run = [&](std::int64_t outer_chunk, std::int64_t inner_chunk) {
    manual_seed(13);
    Tensor before, r;
    r = vmap(
        [&](const Tensor& a) {
          Tensor own = randn(2);
          Tensor inner = vmap(
              [](const Tensor& b) {
                Tensor first = randn(3);
                return b + cat({first, rand(2)});
              },
              0, 0, different(inner_chunk))(a);
          return inner.sum(1) + own.sum() + randn({});
        },
        0, 0, different(outer_chunk))(x);
    return cat({r.flatten(), randn(2)});  // what comes after is the same too
  };
  Tensor whole = run(3, 7);
  for (std::int64_t outer_chunk : {1, 2, 3})
    for (std::int64_t inner_chunk : {1, 2, 3, 7})
      CHECK_CLOSE(run(outer_chunk, inner_chunk), whole, 1e-6);
}

TEST_CASE("chunked draws from an explicit generator, and from two in turn") {
  Tensor x = zeros(5);
  auto run = [&](std::int64_t chunk) {
    Generator g(3), h(4);
    Tensor r = vmap(
        [&](const Tensor& v) {
          Tensor a = rand(2, {}, g), b = rand(2, {}, h), c = rand(2, {}, g);
          return v + cat({a, b, c});
        },
        0, 0, different(chunk))(x);
    CHECK(g.draws() == 2);
    CHECK(h.draws() == 1);
    return r;
  };
  Tensor whole = run(5);
  for (std::int64_t chunk : {1, 2, 3}) CHECK_SAME(run(chunk), whole);
}

TEST_CASE("a member draws the same numbers whatever the number of members") {
  auto run = [](std::int64_t members) {
    manual_seed(21);
    return vmap([](const Tensor& v) { return v + randn(4); }, 0, 0,
                options(Randomness::different))(zeros(members));
  };
  CHECK_SAME(run(3), run(10).narrow(0, 0, 3));
}

TEST_CASE("draws after an exception in a chunked vmap go on normally") {
  auto f = [](const Tensor& v) -> Tensor {
    Tensor r = v + randn(2);
    if (r.defined()) throw std::runtime_error("boom");
    return r;
  };
  CHECK_THROWS_AS(vmap(f, 0, 0, different(1))(zeros(3)), std::runtime_error);
  Tensor a = randn(3), b = randn(3);
  CHECK_FALSE(tutti_test::same(a, b));
}

// ---- dropout

TEST_CASE("dropout's derivative uses the mask of the forward pass") {
  manual_seed(17);
  Tensor x = ones(1000).requires_grad_();
  Tensor y = x.dropout(0.4, true);
  y.sum().backward();
  CHECK_SAME(x.grad(), y.detach());
  CHECK((y == 0).sum().item<int>() == doctest::Approx(400).epsilon(0.15));
  CHECK(y.max().item<double>() == doctest::Approx(1 / 0.6).epsilon(1e-6));

  auto f = [](const Tensor& v) {
    Tensor d = v.dropout(0.4, true);
    return std::pair(d.sum(), d);
  };
  auto [g, d] = grad(f, func::has_aux)(ones(1000));
  CHECK_SAME(g, d);
  auto [gs, ds] =
      vmap(grad(f, func::has_aux), 0, 0, options(Randomness::different))(ones({5, 200}));
  CHECK_SAME(gs, ds);
  CHECK(rows_differ(gs));
  CHECK(dropout(x, 0.5, false).is_same(x));
  CHECK_VALUES(dropout(ones(3), 1.0, true), 0, 0, 0);
  CHECK_THROWS_SAYING(dropout(x, 1.5), ValueError, "probability", "1.5");
}
