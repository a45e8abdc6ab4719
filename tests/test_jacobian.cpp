// jacrev, jacfwd, hessian and linearize: shapes, values, trees, options, nestings, cost.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>

#include <tutti/tutti.h>

#include "behaviour.h"
#include "check.h"
#include "listener.h"

using namespace tutti;
using namespace tutti_test;
using func::has_aux;
using func::hessian;
using func::jacfwd;
using func::jacrev;

namespace user {
struct Outputs {
  Tensor a, b;
  int count = 0;
};
TUTTI_TREE(Outputs, a, b, count)

template <class T>
struct Both {
  T mean, scale;
  std::string note;
};
template <class T, class F>
void tutti_children(Both<T>& t, F&& f) {
  f(t.mean), f(t.scale), f(t.note);
}
template <class T, class F>
void tutti_children(const Both<T>& t, F&& f) {
  f(t.mean), f(t.scale), f(t.note);
}
}  // namespace user

namespace {

Tensor vector(std::vector<double> v) { return tensor(v, kFloat64); }
Tensor number(double v) { return scalar_tensor(v, kFloat64); }
Tensor filled(IntArrayRef sizes) {
  std::int64_t n = 1;
  for (std::int64_t s : sizes) n *= s;
  return (arange(n, kFloat64) * 0.37).sin().reshape(sizes);
}
Index sizes(const Tensor& x) { return shape_of(x); }

}  // namespace

TEST_CASE("shapes are those of the output, then those of the input") {
  auto check = [](IntArrayRef in, IntArrayRef out, const Index& expected) {
    const Tensor x = filled(in);
    auto f = [&](const Tensor& t) { return (t.sum() * filled(out)).sin(); };
    CHECK(sizes(jacrev(f)(x)) == expected);
    CHECK(sizes(jacfwd(f)(x)) == expected);
    CHECK_CLOSE(jacrev(f)(x), jacfwd(f)(x), 1e-12);
  };
  check({2, 4}, {3, 1}, {3, 1, 2, 4});
  check({1}, {1}, {1, 1});
  check({}, {}, {});
  check({}, {3}, {3});
  check({3}, {}, {3});
  check({2, 1, 2}, {}, {2, 1, 2});
  check({0}, {3}, {3, 0});
  check({3}, {0, 2}, {0, 2, 3});
  check({0}, {0}, {0, 0});
}

TEST_CASE("values against the analytic Jacobian and central differences") {
  const Tensor a = filled({3, 4}), x = filled({4});
  auto f = [&](const Tensor& t) { return a.matmul(t).tanh(); };
  const Tensor y = a.matmul(x);
  const Tensor expected = (1 - y.tanh().square()).unsqueeze(1) * a;
  CHECK_CLOSE(jacrev(f)(x), expected, 1e-14);
  CHECK_CLOSE(jacfwd(f)(x), expected, 1e-14);
  const Fn list = [&](const Values& v) { return Values{f(v[0])}; };
  for (std::int64_t j = 0; j < 4; ++j) {
    const Tensor unit = eye(4, kFloat64)[j];
    const Arrays d = central_difference(list, {x}, {0}, {unit});
    CHECK(differs({to_array(jacrev(f)(x).select(1, j))}, d, 1e-7, 1e-7).empty());
  }
  auto g = [](const Tensor& t) { return t.sort(0, true); };  // one floating and one integer output
  auto values = [&](const Tensor& t) { return std::get<0>(g(t)) * 2; };
  CHECK_VALUES(jacrev(values)(vector({1, 3})), 0, 2, 2, 0);
  CHECK_VALUES(jacfwd(values)(vector({1, 3})), 0, 2, 2, 0);
  const Tensor single = tensor({1.0, 2.0}, kFloat32);
  CHECK(jacrev([](const Tensor& t) { return t * t; })(single).dtype() == kFloat32);
  CHECK(jacfwd([](const Tensor& t) { return t.to(kFloat64); })(single).dtype() == kFloat64);
}

TEST_CASE("outputs that do not depend on the argument have zero blocks") {
  const Tensor c = vector({4, 5});
  auto constant = [&](const Tensor&) { return c; };
  CHECK_VALUES(jacrev(constant)(vector({1, 2})), 0, 0, 0, 0);
  CHECK_VALUES(jacfwd(constant)(vector({1, 2})), 0, 0, 0, 0);
  auto two = [&](const Tensor& x, const Tensor& y) { return std::pair(x * x, y * 2); };
  auto [a, b] = jacrev<0, 1>(two)(vector({3}), vector({5}));
  CHECK_VALUES(std::get<0>(a), 6);
  CHECK_VALUES(std::get<1>(a), 0);
  CHECK_VALUES(std::get<0>(b), 0);
  CHECK_VALUES(std::get<1>(b), 2);
  auto linear = [](const Tensor& x) { return x.sum(); };
  CHECK_VALUES(hessian(linear)(vector({1, 2})), 0, 0, 0, 0);
  CHECK_VALUES(hessian([&](const Tensor&) { return c.sum(); })(vector({1})), 0);
}

TEST_CASE("template arguments choose the arguments") {
  auto f = [](const Tensor& x, const Tensor& y, double k) { return x * y * y * k; };
  const Tensor x = number(2), y = number(3);
  CHECK_VALUES(jacrev(f)(x, y, 10), 90);
  CHECK_VALUES(jacrev<1>(f)(x, y, 10), 120);
  CHECK_VALUES(jacfwd<1>(f)(x, y, 10), 120);
  const std::tuple<Tensor, Tensor> both = jacfwd<1, 0>(f)(x, y, 10);
  CHECK_VALUES(std::get<0>(both), 120);
  CHECK_VALUES(std::get<1>(both), 90);
  const std::tuple<Tensor> alone(jacrev<0>(f)(x, y, 10));
  CHECK_VALUES(std::get<0>(alone), 90);
  CHECK_VALUES(hessian<1>(f)(x, y, 10), 40);
  const std::tuple<std::tuple<Tensor, Tensor>, std::tuple<Tensor, Tensor>> h =
      hessian<0, 1>(f)(x, y, 10);
  CHECK_VALUES(std::get<0>(std::get<0>(h)), 0);
  CHECK_VALUES(std::get<1>(std::get<0>(h)), 60);
  CHECK_VALUES(std::get<0>(std::get<1>(h)), 60);
  CHECK_VALUES(std::get<1>(std::get<1>(h)), 40);
  // An integer argument, and a tensor that is undefined, may stand where nothing is differentiated.
  auto pick = [](const Tensor& t, const Tensor& i, const Tensor& none) {
    return none.defined() ? t : t.index_select(0, i);
  };
  CHECK_VALUES(jacrev(pick)(vector({5, 6}), tensor(std::vector<std::int64_t>{1}), Tensor()), 0, 1);
  CHECK_VALUES(jacfwd(pick)(vector({5, 6}), tensor(std::vector<std::int64_t>{1}), Tensor()), 0, 1);
}

namespace {
// The same checks by both modes.
template <class F>
void both_modes(F check) {
  check([](auto f) { return jacrev(f); });
  check([](auto f) { return jacfwd(f); });
  check([](auto f) { return jacrev(f, JacOptions().chunk_size(2)); });
  check([](auto f) { return jacfwd(f, JacOptions().chunk_size(2)); });
}
}  // namespace

TEST_CASE("each tensor of the output is replaced by the argument's tree") {
  const TensorDict p = {{"w", filled({2, 3})}, {"b", vector({1, 2})}};
  const Tensor x = filled({3});
  both_modes([&](auto jac) {
    // tensor -> dict, dict -> tensor, dict -> dict
    const TensorDict j =
        jac([&](const TensorDict& d) { return d.at("w").matmul(x) + d.at("b"); })(p);
    CHECK(j.keys() == p.keys());
    CHECK(sizes(j.at("w")) == Index{2, 2, 3});
    CHECK_VALUES(j.at("b"), 1, 0, 0, 1);
    CHECK_CLOSE(j.at("w")[0][0], x, 1e-15);
    CHECK_VALUES(j.at("w")[0][1], 0, 0, 0);
    const TensorDict k = jac([](const Tensor& t) { return TensorDict{{"twice", t * 2}}; })(x);
    CHECK_CLOSE(k.at("twice"), 2 * eye(3, kFloat64), 1e-15);
    const Dict<TensorDict> m = jac([](const TensorDict& d) {
      return TensorDict{{"sum", d.at("w").sum(1) * d.at("b")}, {"one", d.at("b")[0] * 3}};
    })(p);
    CHECK(m.keys() == std::vector<std::string>{"sum", "one"});
    CHECK(m.at("sum").keys() == p.keys());
    CHECK(sizes(m.at("sum").at("w")) == Index{2, 2, 3});
    CHECK_VALUES(m.at("sum").at("w").sum(2), 3, 0, 0, 6);
    CHECK_VALUES(m.at("one").at("b"), 3, 0);
    CHECK(sizes(m.at("one").at("w")) == Index{2, 3});

    // pair, tuple, vector, array, map, optional, and what is no tensor
    const Tensor u = vector({2, 3});
    const std::pair<Tensor, std::vector<Tensor>> pv = jac([](const Tensor& t) {
      return std::pair(t.sum(), std::vector<Tensor>{t, t * t});
    })(u);
    CHECK_VALUES(pv.first, 1, 1);
    CHECK_VALUES(pv.second[1], 4, 0, 0, 6);
    using In = std::pair<Tensor, std::map<std::string, Tensor>>;
    const In in{u, {{"k", vector({5})}}};
    const std::tuple<In, int, std::array<In, 2>, std::optional<In>, std::optional<In>> big =
        jac([](const In& i) {
          const Tensor s = i.first * i.second.at("k");
          return std::tuple(s, 7, std::array<Tensor, 2>{s[0], s[1]}, std::optional<Tensor>(s * 2),
                            std::optional<Tensor>());
        })(in);
    CHECK_VALUES(std::get<0>(big).first, 5, 0, 0, 5);
    CHECK_VALUES(std::get<0>(big).second.at("k"), 2, 3);
    CHECK(std::get<1>(big) == 7);
    CHECK_VALUES(std::get<2>(big)[1].first, 0, 5);
    CHECK_VALUES(std::get<2>(big)[1].second.at("k"), 3);
    CHECK_VALUES(std::get<3>(big)->first, 10, 0, 0, 10);
    CHECK_FALSE(std::get<4>(big).has_value());
    const std::map<std::string, std::vector<Tensor>> named = jac([](const std::vector<Tensor>& v) {
      return std::map<std::string, Tensor>{{"product", v[0] * v[1]}};
    })(std::vector<Tensor>{u, u});
    CHECK_VALUES(named.at("product")[0], 2, 0, 0, 3);
    CHECK(named.at("product").size() == 2);
    CHECK_THROWS_SAYING(jac([](const Tensor&) { return TensorDict(); })(u), ValueError,
                        "returns tensors");

    // structs: with a tensor argument any, with a tree those that are templates over their leaf
    const user::Outputs s = jac([](const Tensor& t) {
      return user::Outputs{t.sum(), t * t, 5};
    })(u);
    CHECK_VALUES(s.a, 1, 1);
    CHECK_VALUES(s.b, 4, 0, 0, 6);
    CHECK(s.count == 5);
    const user::Outputs back = jac([](const user::Outputs& o) {
      return o.a * o.b.sum() * o.count;
    })(user::Outputs{number(2), u, 3});
    CHECK_VALUES(back.a, 15);
    CHECK_VALUES(back.b, 6, 6);
    CHECK(back.count == 3);
    const user::Both<TensorDict> t = jac([](const TensorDict& d) {
      return user::Both<Tensor>{d.at("b").mean(), d.at("b") * 2, "text"};
    })(p);
    CHECK_VALUES(t.mean.at("b"), 0.5, 0.5);
    CHECK_VALUES(t.scale.at("b"), 2, 0, 0, 2);
    CHECK(sizes(t.scale.at("w")) == Index{2, 2, 3});
    CHECK(t.note == "text");
  });
  CHECK(tree::replace<int>(std::vector<bool>{true, false}, [](const Tensor&) {
          return 0;
        }).size() == 2);
}

TEST_CASE("aux is handed through") {
  auto f = [](const Tensor& x) {
    return std::pair(TensorDict{{"square", x * x}},
                     std::tuple(x.sum(), std::string("note"), x.argmax(), Tensor()));
  };
  auto check = [](const auto& r) {
    const auto& [jac, aux] = r;
    CHECK_VALUES(jac.at("square"), 2, 0, 0, 0, 6, 0, 0, 0, 4);
    CHECK_VALUES(std::get<0>(aux), 6);
    CHECK(std::get<1>(aux) == "note");
    CHECK(std::get<2>(aux).template item<std::int64_t>() == 1);
    CHECK_FALSE(std::get<3>(aux).defined());
  };
  for (const JacOptions& o :
       {JacOptions(), JacOptions().chunk_size(1), JacOptions().chunk_size(2)}) {
    check(jacrev(f, has_aux, o)(vector({1, 3, 2})));
    check(jacfwd(f, has_aux, o)(vector({1, 3, 2})));
  }
  // A Hessian with aux: the gradient's aux goes on.
  auto loss = [](const Tensor& x) { return std::pair((x * x * x).sum(), x + 1); };
  auto [h, aux] = jacfwd(jacrev(loss, has_aux), has_aux)(vector({1, 2}));
  CHECK_VALUES(h, 6, 0, 0, 12);
  CHECK_VALUES(aux, 2, 3);
  // Aux is differentiated by outer transforms.
  auto outer = [&](const Tensor& x) { return jacfwd(loss, has_aux)(x).second.sum() * 3; };
  CHECK_VALUES(func::grad(outer)(vector({1, 2})), 3, 3);
}

TEST_CASE("what they refuse") {
  auto id = [](const Tensor& x) { return x; };
  auto index = [](const Tensor& x) { return x.argmax(); };
  auto none = [](const Tensor&) { return Tensor(); };
  const Tensor whole = tensor(std::vector<std::int64_t>{1, 2});
  CHECK_THROWS_SAYING(jacrev(id)(whole), TypeError, "[jacrev]", "floating", "int64");
  CHECK_THROWS_SAYING(jacfwd(id)(whole), TypeError, "[jacfwd]", "floating", "int64");
  CHECK_THROWS_SAYING(hessian(id)(whole), TypeError, "floating", "int64");
  CHECK_THROWS_SAYING(jacrev(index)(vector({1, 2})), TypeError, "[jacrev]", "floating", "int64");
  CHECK_THROWS_SAYING(jacfwd(index)(vector({1, 2})), TypeError, "[jacfwd]", "floating", "int64");
  CHECK_THROWS_SAYING(jacrev(none)(vector({1})), ValueError, "[jacrev]", "undefined");
  CHECK_THROWS_SAYING(jacfwd(none)(vector({1})), ValueError, "[jacfwd]", "undefined");
  CHECK_THROWS_SAYING(jacrev(id)(Tensor()), ValueError, "[jacrev]", "undefined");
  CHECK_THROWS_SAYING(jacfwd(id)(Tensor()), ValueError, "[jacfwd]", "undefined");
  for (std::int64_t n : {0, -2})
    CHECK_THROWS_SAYING(JacOptions().chunk_size(n), ValueError, "chunk_size", "positive",
                        std::to_string(n));
  auto write = [](Tensor& x) { return x.mul_(2); };
  CHECK_THROWS_SAYING(jacrev(write)(vector({1, 2})), TransformError, "clone");
  CHECK_THROWS_SAYING(jacfwd(write)(vector({1, 2})), TransformError, "clone");
}

TEST_CASE("chunks give what one piece gives, and the function runs as often as promised") {
  const Tensor w = filled({5, 6});
  int runs = 0;
  auto f = [&](const TensorDict& p) {
    ++runs;
    const Tensor h = w.matmul(p.at("x")).tanh() * p.at("s");
    return std::pair(h, (h * h).sum());
  };
  auto loss = [&](const TensorDict& p) { return f(p).second.exp(); };
  const TensorDict p = {{"x", filled({6})}, {"s", filled({5})}};
  const auto rev = jacrev(f)(p);
  CHECK(runs == 1);
  const auto fwd = jacfwd(f)(p);
  CHECK(runs == 2);
  const auto hess = hessian(loss)(p);
  CHECK(runs == 3);
  auto same_pair = [](const auto& a, const auto& b) {
    for (const char* key : {"x", "s"}) {
      CHECK_CLOSE(a.first.at(key), b.first.at(key), 1e-13);
      CHECK_CLOSE(a.second.at(key), b.second.at(key), 1e-13);
    }
  };
  same_pair(rev, fwd);
  CHECK_CLOSE(hess.at("x").at("s"), hess.at("s").at("x").mT(), 1e-13);
  for (std::int64_t n : {1, 2, 3, 4, 7, 10, 1000}) {
    CAPTURE(n);
    const JacOptions options = JacOptions().chunk_size(n);
    runs = 0;
    same_pair(jacrev(f, options)(p), rev);
    CHECK(runs == 1);
    same_pair(jacfwd(f, options)(p), rev);
    CHECK(runs == 1 + (n >= 11 ? 1 : (11 + n - 1) / n));
    const auto h = hessian(loss, options)(p);
    for (const char* a : {"x", "s"})
      for (const char* b : {"x", "s"}) CHECK_CLOSE(h.at(a).at(b), hess.at(a).at(b), 1e-13);
  }
  // Neither grows with the number of rows or columns.
  auto g = [](const Tensor& x) { return (x * x).sin(); };
  for (bool forward : {false, true}) {
    auto count = [&](std::int64_t n) {
      return ops_of([&] { forward ? jacfwd(g)(filled({n})) : jacrev(g)(filled({n})); });
    };
    CHECK(count(2) == count(40));
  }
}

TEST_CASE("a chunk makes only its own unit vectors and rows") {
  const std::int64_t n = 64, chunk = 4;
  auto f = [](const Tensor& x) { return x * x; };
  for (bool forward : {false, true}) {
    auto largest = [&](const JacOptions& o) {
      CountOps count;
      forward ? jacfwd(f, o)(filled({n})) : jacrev(f, o)(filled({n}));
      return count.largest;
    };
    CHECK(largest(JacOptions()) == n * n);
    CHECK(largest(JacOptions().chunk_size(chunk)) == n * chunk);
  }
  // Two outputs: while rows of one are computed, the other's branch is not pulled back.
  auto two = [&](const Tensor& x) { return std::pair(x.sin(), x.cos().cos().cos().cos()); };
  auto elements = [&](const JacOptions& o) {
    CountOps count;
    jacrev(two, o)(filled({n}));
    return count.elements;
  };
  CHECK(elements(JacOptions().chunk_size(n)) < elements(JacOptions().chunk_size(n + 1)));
}

// ---- random functions

TEST_CASE("jacfwd of a random function needs a randomness option; jacrev runs it outside of vmap") {
  auto f = [](const Tensor& x) { return x * rand_like(x); };
  const Tensor x = filled({5});
  CHECK_THROWS_SAYING(jacfwd(f)(x), TransformError, "random", "JacOptions");
  CHECK_THROWS_SAYING(hessian(f)(x), TransformError, "random", "JacOptions");
  manual_seed(3);
  const Tensor factor = rand_like(x);
  manual_seed(3);
  CHECK_CLOSE(jacrev(f)(x), factor.unsqueeze(1) * eye(5, kFloat64), 1e-15);
  manual_seed(3);
  CHECK_CLOSE(jacfwd(f, JacOptions().randomness(Randomness::same))(x),
              factor.unsqueeze(1) * eye(5, kFloat64), 1e-15);
}

TEST_CASE("draws are the same for every chunk size") {
  // The draws come out as they are: each is the only factor of its entry.
  auto f = [](const Tensor& x) {
    return std::pair(x.sum() * rand({2}, kFloat64),
                     (x.narrow(0, 0, 3) * rand({3}, kFloat64)).sum());
  };
  const Tensor x = filled({5});
  for (Randomness r : {Randomness::same, Randomness::different})
    for (bool forward : {false, true}) {
      auto run = [&](std::optional<std::int64_t> chunk) {
        manual_seed(11);
        const JacOptions o = JacOptions().randomness(r).chunk_size(chunk);
        // Where a random number follows, the generator must stand in the same place.
        auto p = forward ? jacfwd(f, o)(x) : jacrev(f, o)(x);
        return std::tuple(p.first, p.second, rand({2}));
      };
      const auto whole = run(std::nullopt);
      const Tensor& draws = std::get<0>(whole);  // [2, 5]
      if (forward && r == Randomness::different)
        CHECK_FALSE(same(draws.select(1, 0), draws.select(1, 1)));
      else
        CHECK_SAME(draws.select(1, 0), draws.select(1, 1));
      for (std::int64_t n : {1, 2, 3, 4, 7}) {
        const auto pieces = run(n);
        CHECK_SAME(std::get<0>(pieces), draws);
        CHECK_SAME(std::get<1>(pieces), std::get<1>(whole));
        CHECK_SAME(std::get<2>(pieces), std::get<2>(whole));
      }
    }
  // Aux that differs between columns is that of the first, for every chunk size.
  auto with_aux = [](const Tensor& t) { return std::pair(t * 2, rand({2}, kFloat64)); };
  auto aux = [&](std::optional<std::int64_t> chunk) {
    manual_seed(5);
    return jacfwd(with_aux, has_aux,
                  JacOptions().randomness(Randomness::different).chunk_size(chunk))(x)
        .second;
  };
  CHECK(sizes(aux(std::nullopt)) == Index{2});
  CHECK_SAME(aux(2), aux(std::nullopt));
}

// ---- nestings

TEST_CASE("forward over reverse, reverse over forward, and twice the same agree") {
  auto f = [](const Tensor& x) { return std::pair((x.sin() * x.roll(1, 0)).cumsum(0), x.prod()); };
  const Tensor x = filled({4}) + 1.3;
  const auto expected = jacfwd(jacrev(f))(x);
  CHECK(sizes(expected.first) == Index{4, 4, 4});
  CHECK(sizes(expected.second) == Index{4, 4});
  CHECK_CLOSE(expected.first, expected.first.transpose(1, 2), 1e-12);
  auto check = [&](const auto& h) {
    CHECK_CLOSE(h.first, expected.first, 1e-12);
    CHECK_CLOSE(h.second, expected.second, 1e-12);
  };
  check(jacrev(jacfwd(f))(x));
  check(jacrev(jacrev(f))(x));
  check(jacfwd(jacfwd(f))(x));
  check(hessian(f)(x));
  check(hessian(f, JacOptions().chunk_size(3))(x));
  check(jacrev(jacfwd(f, JacOptions().chunk_size(3)), JacOptions().chunk_size(2))(x));
  const Fn gradient = [&](const Values& v) { return Values{jacrev(f)(v[0]).second}; };
  const Tensor unit = eye(4, kFloat64)[2];
  CHECK(differs({to_array(expected.second.select(1, 2))},
                central_difference(gradient, {x}, {0}, {unit}), 1e-7, 1e-7)
            .empty());
  auto third = [&](const Tensor& t) { return jacfwd(hessian(f))(t).second; };
  CHECK_CLOSE(third(x), third(x).transpose(0, 2), 1e-12);
}

namespace {
// Softmax regression: x [n, d], y [n] classes, w [c, d].
Tensor softmax_loss(const Tensor& w, const Tensor& x, const Tensor& y) {
  return nn::functional::cross_entropy(x.matmul(w.mT()), y);
}
// Its Hessian [c, d, c, d]: the mean over examples of (diag(p) - p p^T) (x) (x x^T).
Tensor softmax_hessian(const Tensor& w, const Tensor& x) {
  const Tensor p = x.matmul(w.mT()).softmax(1);
  const std::int64_t n = x.size(0), c = w.size(0), d = w.size(1);
  Tensor h = zeros({c, d, c, d}, kFloat64);
  for (std::int64_t i = 0; i < n; ++i) {
    const Tensor s = p[i].unsqueeze(1) * eye(c, kFloat64) - outer(p[i], p[i]);
    h = h + s.reshape({c, 1, c, 1}) * outer(x[i], x[i]).reshape({1, d, 1, d});
  }
  return h / static_cast<double>(n);
}
}  // namespace

TEST_CASE("Hessian of softmax regression, alone and per member") {
  const std::int64_t members = 3, n = 6, c = 3, d = 4;
  const Tensor w = filled({members, c, d}), x = filled({n, d}) * 2;
  const Tensor y = tensor(std::vector<std::int64_t>{0, 2, 1, 1, 0, 2});
  const Tensor one = hessian(softmax_loss)(w[1], x, y);
  CHECK_CLOSE(one, softmax_hessian(w[1], x), 1e-13);
  const Tensor all = func::vmap(hessian(softmax_loss), {0, nullopt, nullopt})(w, x, y);
  for (std::int64_t m = 0; m < members; ++m) CHECK_CLOSE(all[m], softmax_hessian(w[m], x), 1e-13);
  const Tensor chunked = func::vmap(hessian(softmax_loss, JacOptions().chunk_size(5)),
                                    {0, nullopt, nullopt}, 0, VmapOptions().chunk_size(2))(w, x, y);
  CHECK_CLOSE(chunked, all, 1e-13);
}

TEST_CASE("Jacobians under vmap, of vmap, under grad") {
  const Tensor a = filled({3, 4}), xs = filled({5, 4});
  auto f = [&](const Tensor& x) { return a.matmul(x).exp(); };
  const Tensor loop = stack(
      {jacrev(f)(xs[0]), jacrev(f)(xs[1]), jacrev(f)(xs[2]), jacrev(f)(xs[3]), jacrev(f)(xs[4])});
  both_modes([&](auto jac) {
    CHECK_CLOSE(func::vmap(jac(f))(xs), loop, 1e-13);
    CHECK_CLOSE(func::vmap(jac(f), 1, -1)(xs.mT()), loop.movedim(0, -1), 1e-13);
    CHECK_CLOSE(func::vmap(func::vmap(jac(f)))(xs.unsqueeze(0))[0], loop, 1e-13);
    // of vmap: the blocks between different examples are zero
    const Tensor full = jac(func::vmap(f))(xs);
    CHECK(sizes(full) == Index{5, 3, 5, 4});
    for (std::int64_t i = 0; i < 5; ++i)
      for (std::int64_t j = 0; j < 5; ++j)
        CHECK_CLOSE(full[i].select(1, j), i == j ? loop[i] : zeros({3, 4}, kFloat64), 1e-13);
    // under grad: d/dx sum(J^2), with J = diag(y) A
    auto penalty = [&](const Tensor& x) { return jac(f)(x).square().sum(); };
    const Tensor y = f(xs[0]);
    CHECK_CLOSE(func::grad(penalty)(xs[0]), (2 * y.square() * a.square().sum(1)).matmul(a), 1e-12);
    // of grad: the Hessian
    auto sum = [&](const Tensor& x) { return f(x).sum(); };
    CHECK_CLOSE(jac(func::grad(sum))(xs[0]), a.mT().matmul(y.unsqueeze(1) * a), 1e-12);
  });
  // An argument that is not mapped, and one of another transform, are constants.
  auto g = [](const Tensor& x, const Tensor& k) { return x * k; };
  CHECK(sizes(func::vmap(jacrev<1>(g), {nullopt, 0})(xs[0], xs)) == Index{5, 4, 4});
  CHECK(sizes(func::vmap(jacfwd<0>(g), {nullopt, 0})(xs[0], xs)) == Index{5, 4, 4});
}

TEST_CASE("no perturbation confusion") {
  both_modes([](auto outer) {
    both_modes([&](auto inner) {
      auto f = [&](const Tensor& x) {
        return x * inner([&](const Tensor& y) { return (x + y).reshape({1}); })(x * 0 + 1).sum();
      };
      CHECK_VALUES(outer(f)(number(2)), 1);
    });
  });
}

TEST_CASE("base autograd flows through a Jacobian") {
  both_modes([](auto jac) {
    const Tensor x = vector({1, 2}).requires_grad_(), k = vector({3, 4}).requires_grad_();
    auto f = [&](const Tensor& t) { return t * t * t * k; };
    const Tensor j = jac(f)(x);
    CHECK_VALUES(j, 9, 0, 0, 48);
    j.sum().backward();
    CHECK_VALUES(x.grad(), 18, 48);
    CHECK_VALUES(k.grad(), 3, 12);
    NoGradGuard guard;
    CHECK_FALSE(jac(f)(x).requires_grad());
    CHECK_VALUES(jac(f)(x), 9, 0, 0, 48);
  });
}

TEST_CASE("in-place inside the function, and on its other arguments") {
  both_modes([](auto jac) {
    auto inside = [](const Tensor& x) {
      Tensor y = x.clone();
      y[0].mul_(3);
      y.narrow(0, 1, 2).copy_(x.narrow(0, 0, 2) * x[2]);
      return y;
    };
    CHECK_VALUES(jac(inside)(vector({2, 3, 5})), 3, 0, 0, 5, 0, 2, 0, 5, 3);
    auto copy = [](const Tensor& x, Tensor& y) { return y.copy_(x); };
    Tensor y = vector({0, 0, 0});
    CHECK_VALUES(jac(copy)(vector({1, 2, 3}), y), 1, 0, 0, 0, 1, 0, 0, 0, 1);
  });
  // A write that does not depend on the row happens once, whatever the chunk size.
  auto f = [](const Tensor& x, Tensor& count) {
    const Tensor r = x * count;
    count.add_(1);
    return r;
  };
  for (std::int64_t n : {1, 2, 100}) {
    Tensor count = vector({1, 1, 1});
    CHECK_VALUES(jacfwd(f, JacOptions().chunk_size(n))(vector({1, 2, 3}), count), 1, 0, 0, 0, 1, 0,
                 0, 0, 1);
    CHECK_VALUES(count, 2, 2, 2);
    CHECK_VALUES(jacrev(f, JacOptions().chunk_size(n))(vector({1, 2, 3}), count), 2, 0, 0, 0, 2, 0,
                 0, 0, 2);
    CHECK_VALUES(count, 3, 3, 3);
  }
}

TEST_CASE("the Jacobian of a module by its parameters") {
  manual_seed(1);
  nn::Linear l(3, 2);
  TensorDict params;
  for (const auto& [name, p] : l->named_parameters()) params.insert(name, p.detach());
  const Tensor x = randn({3});
  auto f = [&](const TensorDict& p) { return func::functional_call(l, p, x); };
  both_modes([&](auto jac) {
    const TensorDict j = jac(f)(params);
    CHECK_VALUES(j.at("bias"), 1, 0, 0, 1);
    CHECK_CLOSE(j.at("weight")[0][0], x, 1e-6);
    CHECK_CLOSE(j.at("weight")[1][1], x, 1e-6);
    CHECK(sizes(j.at("weight")) == Index{2, 2, 3});
  });
}

TEST_CASE("a chunk size of one needs no vmap") {
  struct Reads : autograd::Function<Reads> {
    static Tensor forward(autograd::AutogradContext*, Tensor x) { return x * 2; }
    static std::vector<Tensor> backward(autograd::AutogradContext*, std::vector<Tensor> g) {
      return {g[0].sum().item<double>() > 0 ? g[0] * 2 : g[0] * 0};
    }
  };
  auto f = [](const Tensor& x) { return Reads::apply(x); };
  CHECK_THROWS_AS(jacrev(f)(vector({1, 2})), TransformError);
  CHECK_VALUES(jacrev(f, JacOptions().chunk_size(1))(vector({1, 2})), 2, 0, 0, 2);
}

TEST_CASE("results carry shapes on the meta device") {
  const Tensor x = empty({2, 3}, TensorOptions(kFloat32).device(kMeta));
  both_modes([&](auto jac) {
    const Tensor j = jac([](const Tensor& t) { return t.sum(0) * 2; })(x);
    CHECK(j.is_meta());
    CHECK(sizes(j) == Index{3, 2, 3});
  });
}

// ---- linearize

TEST_CASE("linearize: value and derivative, many tangents, trees") {
  auto f = [](const TensorDict& p, const Tensor& x) {
    const Tensor h = p.at("w").matmul(x).tanh();
    return std::pair(h * p.at("b"), TensorDict{{"sum", h.sum()}, {"constant", x * 0 + 1}});
  };
  const TensorDict p = {{"w", filled({2, 3})}, {"b", vector({1, 2})}};
  const Tensor x = filled({3});
  auto [out, jvp_fn] = func::linearize(f, p, x);
  CHECK_SAME(out.first, f(p, x).first);
  for (double k : {1.0, -2.0, 0.5}) {
    const TensorDict dp = {{"w", filled({2, 3}).cos() * k}, {"b", vector({k, 3})}};
    const Tensor dx = filled({3}).cos() * k;
    const auto expected = func::jvp(f, func::args(p, x), func::args(dp, dx)).second;
    const auto got = jvp_fn(dp, dx);
    CHECK_CLOSE(got.first, expected.first, 1e-14);
    CHECK_CLOSE(got.second.at("sum"), expected.second.at("sum"), 1e-14);
    CHECK_VALUES(got.second.at("constant"), 0, 0, 0);
  }
  // An undefined tangent is zero; what does not depend on the argument has the tangent zero.
  CHECK_CLOSE(jvp_fn(TensorDict{{"w", Tensor()}, {"b", vector({1, 1})}}, Tensor()).first,
              p.at("w").matmul(x).tanh(), 1e-14);
  auto [one, d] = func::linearize([](const Tensor& t) { return std::tuple(t, 3, ones_like(t)); },
                                  vector({1, 2}));
  CHECK(std::get<1>(d(vector({5, 6}))) == 3);
  CHECK_VALUES(std::get<0>(d(vector({5, 6}))), 5, 6);
  CHECK_VALUES(std::get<2>(d(vector({5, 6}))), 0, 0);
  CHECK_VALUES(std::get<0>(one), 1, 2);
}

TEST_CASE("linearize refuses what jvp refuses") {
  auto f = [](const Tensor& x, const Tensor& i) { return std::pair(x * 2, i + 1); };
  const Tensor i = tensor(std::vector<std::int64_t>{1});
  auto [out, d] = func::linearize(f, vector({1, 2}), i);
  CHECK_THROWS_SAYING(d(vector({1}), Tensor()), ShapeError, "[linearize]", "[2]", "[1]");
  CHECK_THROWS_SAYING(d(tensor({1.0, 2.0}, kFloat32), Tensor()), TypeError, "float64", "float32");
  CHECK_THROWS_SAYING(d(vector({1, 2}), i), TypeError, "int64", "floating");
  const auto t = d(vector({1, 2}), Tensor());
  CHECK_VALUES(t.first, 2, 4);
  CHECK(t.second.dtype() == kInt64);
  CHECK_VALUES(t.second, 0);
  CHECK_THROWS_SAYING(func::linearize([](const Tensor&) { return Tensor(); }, vector({1})),
                      ValueError, "[linearize]", "undefined");
  CHECK_THROWS_SAYING(func::linearize([](Tensor& x) { return x.mul_(2); }, vector({1})),
                      TransformError, "linearize", "clone");
  Tensor c = vector({1});
  CHECK_THROWS_SAYING(func::linearize([&](const Tensor& x) { return c.copy_(x); }, vector({2})),
                      TransformError, "linearize", "captured");
}

TEST_CASE("linearize runs the function once: effects and draws are not repeated") {
  int runs = 0;
  auto f = [&](const Tensor& x) {
    ++runs;
    return x * x * rand_like(x);
  };
  manual_seed(9);
  const Tensor x = vector({2, 3});
  auto [out, d] = func::linearize(f, x);
  const auto state = get_rng_state();
  const Tensor first = d(vector({1, 1}));
  CHECK_SAME(d(vector({1, 1})), first);
  CHECK_CLOSE(first, 2 * out / x, 1e-15);
  CHECK(runs == 1);
  CHECK(get_rng_state() == state);
  // Only the linear part runs again.
  auto deep = [](Tensor t) {
    for (int i = 0; i < 10; ++i) t = t.sin().exp().tanh();
    return t;
  };
  auto g = func::linearize(deep, x).second;
  const std::int64_t linear = ops_of([&] { g(vector({1, 1})); });
  const std::int64_t whole = ops_of([&] {
    func::jvp(deep, std::tuple(x), std::tuple(vector({1, 1})));
  });
  CHECK(whole - linear >= 30);
  CHECK(ops_of([&] { g(vector({1, 1})); }) == linear);
}

TEST_CASE("linearize's function under transforms") {
  const Tensor a = filled({3, 4}), x = filled({4});
  auto f = [&](const Tensor& t) { return a.matmul(t.sin()).exp(); };
  auto d = func::linearize(f, x).second;
  const Tensor jac = jacrev(f)(x);
  CHECK_CLOSE(func::vmap([&](const Tensor& t) { return d(t); }, 0, -1)(eye(4, kFloat64)), jac,
              1e-13);
  CHECK_CLOSE(jacrev([&](const Tensor& t) { return d(t); })(x), jac, 1e-13);  // it is linear
  CHECK_CLOSE(
      std::get<0>(func::vjp([&](const Tensor& t) { return d(t); }, x).second(vector({1, 2, 3}))),
      vector({1, 2, 3}).matmul(jac), 1e-13);
  // Made inside other transforms, the derivative is differentiated and mapped as any value.
  auto along = [&](const Tensor& t) { return func::linearize(f, t).second(x * 0 + 1).sum(); };
  auto by_jvp = [&](const Tensor& t) {
    return func::jvp(f, std::tuple(t), std::tuple(x * 0 + 1)).second.sum();
  };
  CHECK_CLOSE(func::grad(along)(x), func::grad(by_jvp)(x), 1e-13);
  CHECK_CLOSE(jacfwd(func::grad(along))(x), jacfwd(func::grad(by_jvp))(x), 1e-12);
  CHECK_CLOSE(
      func::grad([&](const Tensor& t) { return func::linearize(along, t).second(x * 0 + 1); })(x),
      jacrev(func::grad(by_jvp))(x).sum(0), 1e-12);
  const Tensor xs = filled({5, 4});
  CHECK_CLOSE(func::vmap(along)(xs), func::vmap(by_jvp)(xs), 1e-13);
  CHECK_CLOSE(func::vmap([&](const Tensor& t) {
                auto inner = func::linearize(f, t).second;
                return func::vmap([&](const Tensor& u) { return inner(u); }, 0,
                                  -1)(eye(4, kFloat64));
              })(xs),
              func::vmap(jacrev(f))(xs), 1e-13);
  // Under base autograd.
  const Tensor leaf = x.clone().requires_grad_();
  along(leaf).backward();
  CHECK_CLOSE(leaf.grad(), func::grad(by_jvp)(x), 1e-13);
  // Out of the vmap it was made in it is refused.
  std::optional<std::decay_t<decltype(d)>> kept;
  func::vmap([&](const Tensor& t) {
    kept.emplace(func::linearize(f, t).second);
    return t;
  })(xs);
  CHECK_THROWS_SAYING((*kept)(x), TransformError, "vmap", "escaped");
}

TEST_CASE("linearize: in-place, no_grad, detach, values changed later") {
  auto inside = [](const Tensor& x) {
    Tensor y = x.clone();
    Tensor view = y[0];
    y.mul_(y);
    view.add_(x[1]);
    return y * view;
  };
  const Tensor x = vector({2, 3}), t = vector({1, -2});
  CHECK_CLOSE(func::linearize(inside, x).second(t),
              func::jvp(inside, std::tuple(x), std::tuple(t)).second, 1e-15);
  // As jvp, tangents pass through no_grad and stop at detach.
  auto quiet = [](const Tensor& v) {
    NoGradGuard guard;
    return v * v + v.detach() * 5;
  };
  CHECK_VALUES(func::linearize(quiet, x).second(t), 4, -12);
  CHECK_VALUES(func::jvp(quiet, std::tuple(x), std::tuple(t)).second, 4, -12);
  // A value the derivative needs was changed meanwhile.
  const Tensor k = vector({1, 2});
  auto d = func::linearize([&](const Tensor& v) { return v * k; }, x).second;
  CHECK_VALUES(d(t), 1, -4);
  k.add_(1);
  CHECK_THROWS_SAYING(d(t), AutogradError, "changed in place", "linearize");
}

TEST_CASE("forward mode takes the derivative that an autograd::Function says it has") {
  struct Cube : autograd::Function<Cube> {
    static Tensor forward(autograd::AutogradContext* ctx, Tensor x, Tensor y) {
      ctx->save_for_backward({x, y});
      return x * x * x * y;
    }
    static std::vector<Tensor> backward(autograd::AutogradContext* ctx, std::vector<Tensor> g) {
      const auto v = ctx->get_saved_variables();
      return {g[0] * v[0] * v[0] * v[1] * 30, g[0] * v[0] * v[0] * v[0]};  // 10 times the first
    }
  };
  auto f = [](const Tensor& x) { return Cube::apply(x, x.sin()) * x; };
  const Tensor x = vector({2, 3}), t = vector({1, -2});
  const Tensor expected =
      ((30 * x.pow(2) * x.sin() + x.pow(3) * x.cos()) * x + x.pow(3) * x.sin()) * t;
  auto along = [&](const Tensor& v) { return func::linearize(f, v).second(t); };
  auto by_jvp = [&](const Tensor& v) { return func::jvp(f, std::tuple(v), std::tuple(t)).second; };
  auto d = func::linearize(f, x).second;
  CHECK_CLOSE(d(t), expected, 1e-13);
  CHECK_CLOSE(func::vmap([&](const Tensor& u) { return d(u); })(stack({t, t * 2}))[1], expected * 2,
              1e-13);
  const Tensor xs = stack({x * 2, x});
  CHECK_CLOSE(func::vmap(along)(xs)[1], expected, 1e-13);
  // jvp, and both kinds of Jacobian, say the same.
  CHECK_CLOSE(by_jvp(x), expected, 1e-13);
  CHECK_CLOSE(func::vmap(by_jvp)(xs)[1], expected, 1e-13);
  both_modes([&](auto jac) {
    CHECK_CLOSE(jac(f)(x).mv(t), expected, 1e-13);
    CHECK_CLOSE(func::vmap(jac(f))(xs)[1].mv(t), expected, 1e-13);
    CHECK_CLOSE(jac(func::vmap(f))(xs)[1].select(1, 1).mv(t), expected, 1e-13);
    CHECK_CLOSE(jac(by_jvp)(x), jacrev(along)(x), 1e-12);
  });
}

// ---- cost

TEST_CASE("a Hessian-vector product costs a few gradients, whatever the size") {
  auto cost = [](std::int64_t n, bool hvp) {
    const Tensor x = filled({n});
    auto f = [](const Tensor& v) {
      Tensor h = v;
      for (int i = 0; i < 5; ++i) h = h.sin() * h;
      return h.sum();
    };
    CountOps count;
    if (hvp)
      func::jvp(func::grad(f), std::tuple(x), std::tuple(x));
    else
      func::grad(f)(x);
    return std::pair(count.ops, count.elements);
  };
  CHECK(cost(4, true).first == cost(1000, true).first);
  CHECK(cost(1000, true).first < 5 * cost(1000, false).first);
  CHECK(cost(1000, true).second < 5 * cost(1000, false).second);
}
