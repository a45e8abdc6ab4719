// func::cond, while_loop and scan: values against plain C++ loops, under every transform.
#include <cmath>

#include <tutti/tutti.h>

#include "behaviour.h"

using namespace tutti;
using func::cond;
using func::grad;
using func::jvp;
using func::scan;
using func::vmap;
using func::while_loop;

namespace {

Tensor vec(std::initializer_list<double> v) { return tensor(std::vector<double>(v), kFloat64); }
Tensor scalar(double v) { return tensor(v, kFloat64); }

template <class F>
auto slope(F f) {
  return [f](const Tensor& x) { return jvp(f, func::args(x), func::args(ones_like(x))).second; };
}
template <class F>
auto sum_of(F f) {
  return [f](const Tensor& x) { return f(x).sum(); };
}

}  // namespace

// ---- cond

TEST_CASE("cond runs the chosen branch only, where the condition is one for all") {
  int on_true = 0, on_false = 0;
  auto f = [&](const Tensor& p, const Tensor& x) {
    return cond(
        p, [&](const Tensor& v) { return ++on_true, v * v; },
        [&](const Tensor& v) { return ++on_false, v * 3; }, x);
  };
  auto by_value = [&](const Tensor& x) { return f((x > 1).any(), x); };
  const Tensor x = scalar(2), yes = tensor(true), no = tensor(false);
  CHECK_VALUES(f(yes, x), 4);
  CHECK_VALUES(f(no, x), 6);
  CHECK_VALUES(cond(
                   true, [](const Tensor& v) { return v; }, [](const Tensor& v) { return -v; }, x),
               2);
  CHECK_VALUES(grad(by_value)(x), 4);
  CHECK_VALUES(grad(grad(by_value))(x), 2);
  CHECK_VALUES(slope(by_value)(x), 4);
  CHECK(on_true == 4);
  CHECK(on_false == 1);
  CHECK_VALUES(vmap(f, {nullopt, 0})(no, vec({1, 2})), 3, 6);
  CHECK_VALUES(vmap(grad<1>(f), {nullopt, 0})(yes, vec({1, 2})), 2, 4);
  CHECK(on_true == 5);
  CHECK(on_false == 2);
}

TEST_CASE("cond selects per example where the condition differs under vmap") {
  int calls = 0;
  auto f = [&](const Tensor& x) {
    return cond(
        x > 0, [&](const Tensor& v) { return ++calls, v.sqrt(); },
        [&](const Tensor& v) { return ++calls, v * v; }, x);
  };
  const Tensor x = vec({4, -3, 0, 9}), value = vec({2, 9, 0, 3}), d = vec({0.25, -6, 0, 1. / 6}),
               dd = vec({-1. / 32, 2, 2, -1. / 108});
  CHECK_SAME(vmap(f)(x), value);
  CHECK(calls == 2);
  // sqrt has no derivative at 0 and below: none of it may show.
  CHECK_CLOSE(vmap(grad(f))(x), d, 1e-15);
  CHECK_CLOSE(grad(sum_of(vmap(f)))(x), d, 1e-15);
  CHECK_CLOSE(vmap(grad(grad(f)))(x), dd, 1e-15);
  CHECK_CLOSE(grad(sum_of(vmap(grad(f))))(x), dd, 1e-15);
  CHECK_CLOSE(vmap(slope(f))(x), d, 1e-15);
  CHECK_CLOSE(slope(vmap(f))(x), d, 1e-15);
  CHECK_CLOSE(vmap(slope(grad(f)))(x), dd, 1e-15);
  CHECK_CLOSE(vmap(vmap(grad(f)))(x.reshape({2, 2})), d.reshape({2, 2}), 1e-15);
  Tensor leaf = x.clone().requires_grad_();
  vmap(f)(leaf).sum().backward();
  CHECK_CLOSE(leaf.grad(), d, 1e-15);
  // An argument that all examples share.
  auto shared = [](const Tensor& p, const Tensor& w) {
    return cond(
        p > 0, [](const Tensor& a, const Tensor& k) { return (a * k).sqrt(); },
        [](const Tensor& a, const Tensor& k) { return a * k; }, p, w);
  };
  auto of_w = [&](const Tensor& w) { return vmap(shared, {0, nullopt})(x, w).sum(); };
  CHECK_CLOSE(grad(of_w)(scalar(1)), scalar(0.5 * 2 - 3 + 0 + 0.5 * 3), 1e-15);
}

TEST_CASE("cond on trees, and what it refuses") {
  const Tensor x = vec({1, -2});
  auto f = [](const Tensor& v) {
    using R = std::pair<TensorDict, Tensor>;
    return cond(
        v > 0,
        [](const Tensor& u) {
          return R({{"a", u}, {"b", u * 2}}, tensor(1));
        },
        [](const Tensor& u) {
          return R({{"a", -u}, {"b", u * 3}}, tensor(2));
        },
        v);
  };
  auto [dict, n] = vmap(f)(x);
  CHECK_VALUES(dict.at("a"), 1, 2);
  CHECK_VALUES(dict.at("b"), 2, -6);
  CHECK_VALUES(n, 1, 2);
  auto keys = [](const Tensor& v) {
    return cond(
        v > 0,
        [](const Tensor& u) {
          return TensorDict{{"a", u}};
        },
        [](const Tensor& u) {
          return TensorDict{{"b", u}};
        },
        v);
  };
  CHECK_THROWS_SAYING(vmap(keys)(x), ValueError, "cond", "same structure", "(b: *)", "(a: *)");
  auto shapes = [](const Tensor& v) {
    return cond(
        v > 0, [](const Tensor& u) { return u.expand({2}); }, [](const Tensor& u) { return u; }, v);
  };
  CHECK_THROWS_SAYING(vmap(shapes)(x), ShapeError, "cond", "equal shapes", "[2]", "[]");
  auto dtypes = [](const Tensor& v) {
    return cond(
        v > 0, [](const Tensor& u) { return u.to(kFloat32); }, [](const Tensor& u) { return u; },
        v);
  };
  CHECK_THROWS_SAYING(vmap(dtypes)(x), TypeError, "cond", "float32", "float64");
  auto values = [](const Tensor& v) {
    return cond(
        v > 0, [](const Tensor& u) { return std::pair(u, 1); },
        [](const Tensor& u) { return std::pair(u, 2); }, v);
  };
  CHECK_THROWS_SAYING(vmap(values, 0, {0, nullopt})(x), ValueError, "cond", "tensors only");
  auto writes = [](const Tensor& v) {
    return cond(
        v > 0, [](const Tensor& u) { return u.mul_(2), u; }, [](const Tensor& u) { return u; },
        v * 1);
  };
  CHECK_THROWS_SAYING(vmap(writes)(x), TransformError, "cond", "a branch", "in place", "clone");
  auto g = [](const Tensor& p) {
    return cond(
        p, [](const Tensor& u) { return u; }, [](const Tensor& u) { return u; }, p);
  };
  CHECK_THROWS_SAYING(g(scalar(1)), TypeError, "cond", "bool", "float64");
  CHECK_THROWS_SAYING(g(tensor({true, false})), ShapeError, "cond", "one element", "[2]", "any()");
  CHECK_THROWS_SAYING(g(Tensor()), ValueError, "cond", "undefined");
}

// ---- while_loop

namespace {
// Collatz steps: integers, so that results are exact; the carry is (n, steps).
using Pair = std::pair<Tensor, Tensor>;
int body_calls = 0;
auto collatz(const Tensor& n) {
  return while_loop([](const Pair& c) { return c.first != 1; },
                    [](const Pair& c) {
                      ++body_calls;
                      return Pair(where(c.first % 2 == 0, c.first.div(2, "floor"), c.first * 3 + 1),
                                  c.second + 1);
                    },
                    Pair(n, zeros_like(n)));
}
// sqrt by Newton's method until it is close.
Tensor newton(const Tensor& a) {
  return while_loop(
             [&](const Pair& c) { return (c.first * c.first - c.second).abs() > 1e-10; },
             [](const Pair& c) { return Pair((c.first + c.second / c.first) / 2, c.second); },
             Pair(a * 0.5 + 0.5, a))
      .first;
}
}  // namespace

TEST_CASE("while_loop stops when every example is done, and leaves the finished alone") {
  std::vector<double> numbers = {1, 6, 7, 27, 2}, steps;
  for (double n : numbers) {
    double k = 0;
    while (n != 1) n = std::fmod(n, 2) == 0 ? n / 2 : 3 * n + 1, ++k;
    steps.push_back(k);
  }
  const Tensor n = tensor({1, 6, 7, 27, 2});
  body_calls = 0;
  CHECK_SAME(vmap(collatz)(n).second, tensor(steps).to(kInt64));
  CHECK(body_calls == 111);  // those of 27
  body_calls = 0;
  CHECK(collatz(tensor(6)).second.item<int>() == 8);
  CHECK(body_calls == 8);
  body_calls = 0;
  CHECK_SAME(vmap(vmap(collatz))(tensor({{1, 6}, {7, 2}})).second, tensor({{0, 8}, {16, 1}}));
  CHECK(body_calls == 16);
  body_calls = 0;
  CHECK_SAME(vmap(collatz, 0, 0, VmapOptions().chunk_size(2))(n).second, vmap(collatz)(n).second);
  CHECK(body_calls == 8 + 111 + 1 + 111);
  body_calls = 0;
  CHECK(vmap(collatz)(zeros({0}, kInt64)).second.numel() == 0);
  CHECK(body_calls == 0);
}

TEST_CASE("while_loop gives each example the bits and derivatives of a loop of its own") {
  const Tensor a = vec({2, 900, 0.01, 1});
  std::vector<Tensor> single, slopes, seconds;
  for (const Tensor& v : a.unbind()) {
    single.push_back(newton(v));
    slopes.push_back(grad(newton)(v));
    seconds.push_back(grad(grad(newton))(v));
  }
  const Tensor values = stack(single), d = stack(slopes), dd = stack(seconds);
  CHECK_CLOSE(values, a.sqrt(), 1e-9);
  CHECK_CLOSE(d, 0.5 / a.sqrt(), 1e-4);
  CHECK_SAME(vmap(newton)(a), values);
  CHECK_SAME(vmap(grad(newton))(a), d);
  CHECK_SAME(grad(sum_of(vmap(newton)))(a), d);
  CHECK_CLOSE(vmap(grad(grad(newton)))(a), dd, 1e-12);
  CHECK_CLOSE(vmap(slope(newton))(a), d, 1e-12);
  CHECK_CLOSE(slope(vmap(newton))(a), d, 1e-12);
  CHECK_CLOSE(slope(newton)(a[0]), d[0], 1e-12);
  Tensor leaf = a.clone().requires_grad_();
  vmap(newton)(leaf).sum().backward();
  CHECK_SAME(leaf.grad(), d);
}

TEST_CASE("steps after an example is done leave no NaN in its gradient") {
  // x -> sqrt(x) - 1 while positive: a further step has no derivative, or no value.
  auto f = [](const Tensor& x) {
    return while_loop([](const Tensor& v) { return v > 0; },
                      [](const Tensor& v) { return v.sqrt() - 1; }, x);
  };
  const Tensor x = vec({1, 4, 30, -1});
  std::vector<Tensor> values, slopes;
  for (const Tensor& v : x.unbind()) values.push_back(f(v)), slopes.push_back(grad(f)(v));
  CHECK_SAME(vmap(f)(x), stack(values));
  CHECK_SAME(vmap(grad(f))(x), stack(slopes));
  CHECK_CLOSE(vmap(slope(f))(x), stack(slopes), 1e-14);
}

TEST_CASE("while_loop says what is wrong with its functions") {
  const Tensor x = vec({1, 2});
  auto positive = [](const Tensor& v) { return (v > 0).all(); };
  CHECK_THROWS_SAYING(while_loop(
                          positive, [](const Tensor& v) { return v.sum(); }, x),
                      ShapeError, "while_loop", "keep its shapes", "[]", "[2]");
  CHECK_THROWS_SAYING(while_loop(
                          positive, [](const Tensor& v) { return v.to(kFloat32); }, x),
                      TypeError, "while_loop", "keep its dtypes", "float32");
  CHECK_THROWS_SAYING(
      while_loop([](const Tensor& v) { return v > 0; }, [](const Tensor& v) { return v; }, x),
      ShapeError, "while_loop", "one element", "[2]");
  CHECK_THROWS_SAYING(while_loop(
                          positive, [](const Tensor& v) { return v.sub_(1), v; }, x),
                      TransformError, "while_loop", "the body", "in place");
  CHECK_VALUES(x, 1, 2);
  using List = std::vector<Tensor>;
  CHECK_THROWS_SAYING(
      while_loop([](const List&) { return true; }, [](const List&) { return List(); }, List{x}),
      ValueError, "while_loop", "structure", "()", "(*)");
}

// ---- scan

namespace {
// Carry c <- sin(c w + x), y = (c, c * x).
auto rnn = [](const Tensor& w) {
  return [w](const Tensor& c, const Tensor& x) {
    Tensor next = (c * w + x).sin();
    return std::pair(next, std::pair(next, c * x));
  };
};
auto by_hand = [](const Tensor& w, Tensor c, const Tensor& xs, bool reverse) {
  const std::int64_t n = xs.size(0);
  std::vector<Tensor> a(static_cast<std::size_t>(n)), b = a;
  for (std::int64_t k = 0; k < n; ++k) {
    const std::int64_t i = reverse ? n - 1 - k : k;
    b[static_cast<std::size_t>(i)] = c * xs[i];
    c = (c * w + xs[i]).sin();
    a[static_cast<std::size_t>(i)] = c;
  }
  return std::pair(c, std::pair(stack(a), stack(b)));
};
Tensor weigh(const std::pair<Tensor, std::pair<Tensor, Tensor>>& r) {
  return r.first.sum() + (r.second.first * r.second.first).sum() + 2 * r.second.second.sum();
}
}  // namespace

TEST_CASE("scan is the loop written by hand, forwards and in reverse, in every transform") {
  const Tensor w = scalar(0.7), c = scalar(0.2), xs = vec({0.1, -0.4, 0.9, 0.3});
  for (const bool reverse : {false, true}) {
    auto f = [=](const Tensor& u, const Tensor& v, const Tensor& x) {
      return weigh(scan(rnn(u), v, x, ScanOptions().reverse(reverse)));
    };
    auto g = [=](const Tensor& u, const Tensor& v, const Tensor& x) {
      return weigh(by_hand(u, v, x, reverse));
    };
    auto [last, y] = scan(rnn(w), c, xs, ScanOptions().reverse(reverse));
    auto [last_, y_] = by_hand(w, c, xs, reverse);
    CHECK_SAME(last, last_);
    CHECK_SAME(y.first, y_.first);
    CHECK_SAME(y.second, y_.second);
    auto compare = [](const auto& a, const auto& b) {
      const Tensors s = tree::flatten(a), t = tree::flatten(b);
      REQUIRE(s.size() == t.size());
      for (std::size_t i = 0; i < s.size(); ++i) CHECK_CLOSE(s[i], t[i], 1e-13);
    };
    compare(grad<0, 1, 2>(f)(w, c, xs), grad<0, 1, 2>(g)(w, c, xs));
    const Tensor ws = vec({0.7, 1.1}), cs = vec({0.2, -0.5}), both = stack({xs, xs * 2});
    // The carry becomes batched by w or by xs.
    compare(vmap(grad<0, 1, 2>(f), {0, nullopt, nullopt})(ws, c, xs),
            vmap(grad<0, 1, 2>(g), {0, nullopt, nullopt})(ws, c, xs));
    compare(vmap(grad<0, 1, 2>(f), {nullopt, nullopt, 0})(w, c, both),
            vmap(grad<0, 1, 2>(g), {nullopt, nullopt, 0})(w, c, both));
    compare(vmap(f, {0, 0, 1})(ws, cs, both.t()), vmap(g, {0, 0, 1})(ws, cs, both.t()));
    compare(jvp(f, func::args(w, c, xs), func::args(c, w, xs)),
            jvp(g, func::args(w, c, xs), func::args(c, w, xs)));
    auto norm = [](auto h) {
      return [h](const Tensor& u, const Tensor& v, const Tensor& x) {
        auto [a, b, d] = grad<0, 1, 2>(h)(u, v, x);
        return a * a + b * b + (d * d).sum();
      };
    };
    compare(grad<0, 1, 2>(norm(f))(w, c, xs), grad<0, 1, 2>(norm(g))(w, c, xs));
    Tensor leaf = xs.clone().requires_grad_(), leaf_ = xs.clone().requires_grad_();
    f(w, c, leaf).backward();
    g(w, c, leaf_).backward();
    CHECK_CLOSE(leaf.grad(), leaf_.grad(), 1e-14);
  }
}

TEST_CASE("scan with a checkpoint per step keeps the carries only") {
  auto loss = [](bool kept, std::int64_t& alive) {
    return [kept, &alive](const Tensor& w, const Tensor& xs) {
      const std::int64_t before = detail::live_tensors();
      auto step = [w](const Tensor& c, const Tensor& x) {
        Tensor h = c;
        for (int k = 0; k < 8; ++k) h = (h * w + x).sin();
        return std::pair(h, std::tuple<>());
      };
      auto saved = [step](const Tensor& c, const Tensor& x) {
        return autograd::checkpoint(step, c, x);
      };
      Tensor last = kept ? scan(saved, w * 0, xs).first : scan(step, w * 0, xs).first;
      alive = detail::live_tensors() - before;
      return last.sum();
    };
  };
  const Tensor w = vec({0.3, 0.8}), xs = linspace(0, 1, 20, kFloat64);
  std::int64_t all = 0, few = 0;
  auto [dw, dx] = grad<0, 1>(loss(false, all))(w, xs);
  auto [ew, ex] = grad<0, 1>(loss(true, few))(w, xs);
  CHECK_CLOSE(ew, dw, 1e-14);
  CHECK_CLOSE(ex, dx, 1e-14);
  CHECK(all > 3 * few);
}

TEST_CASE("scan on trees, of no steps, and without xs") {
  auto f = [](const TensorDict& c, const std::pair<Tensor, Tensor>& x) {
    Tensor s = c.at("s") + x.first;
    return std::pair(TensorDict{{"s", s}, {"n", c.at("n") + 1}},
                     std::vector<Tensor>{s * x.second, c.at("n")});
  };
  const TensorDict init{{"s", zeros(2)}, {"n", tensor(0)}};
  auto [c, y] = scan(f, init, std::pair(ones({3, 2}), tensor({1.f, 2.f, 3.f})));
  CHECK_VALUES(c.at("s"), 3, 3);
  CHECK_VALUES(c.at("n"), 3);
  CHECK_VALUES(y[0], 1, 1, 4, 4, 9, 9);
  CHECK_VALUES(y[1], 0, 1, 2);
  CHECK(y[1].dtype() == kInt64);
  auto [c0, y0] = scan(f, init, std::pair(ones({0, 2}), ones(0)));
  CHECK_VALUES(c0.at("s"), 0, 0);
  CHECK(y0[0].sizes() == IntArrayRef({0, 2}));
  CHECK(y0[1].sizes() == IntArrayRef({0}));
  CHECK(y0[1].dtype() == kInt64);
  auto mapped =
      vmap([&](const Tensor& x) { return scan(f, init, std::pair(x, ones(0))).second[0]; });
  CHECK(mapped(ones({5, 0, 2})).sizes() == IntArrayRef({5, 0, 2}));
  auto doubles = [](const Tensor& v, const std::tuple<>&) { return std::pair(v * 2, v); };
  auto [last, powers] = scan(doubles, scalar(1), std::tuple<>(), ScanOptions().length(4));
  CHECK_VALUES(last, 16);
  CHECK_VALUES(powers, 1, 2, 4, 8);
}

TEST_CASE("scan says what does not fit") {
  auto f = [](const Tensor& c, const Tensor& x) { return std::pair(c + x, c); };
  const Tensor c = scalar(0), xs = vec({1, 2, 3});
  CHECK_THROWS_SAYING(scan(f, c, scalar(1)), ShapeError, "scan", "0-d");
  CHECK_THROWS_SAYING(scan(f, c, xs, ScanOptions().length(2)), ShapeError, "scan", "length 2",
                      "[3]");
  CHECK_THROWS_SAYING(ScanOptions().length(-1), ValueError, "scan", "-1");
  auto pairs = [](const Tensor& v, const std::pair<Tensor, Tensor>& x) {
    return std::pair(v + x.first * x.second, v);
  };
  CHECK_THROWS_SAYING(scan(pairs, c, std::pair(xs, ones(2))), ShapeError, "scan", "length 3",
                      "[2]");
  auto none = [](const Tensor& v, const std::tuple<>&) { return std::pair(v, v); };
  CHECK_THROWS_SAYING(scan(none, c, std::tuple<>()), ValueError, "scan", "ScanOptions().length");
  auto grows = [](const Tensor& v, const Tensor& x) { return std::pair(stack({v, x}), v); };
  CHECK_THROWS_SAYING(scan(grows, c, xs), ShapeError, "scan", "keep its shapes", "[2]", "[]");
  auto narrows = [](const Tensor& v, const Tensor&) { return std::pair(v.to(kFloat32), v); };
  CHECK_THROWS_SAYING(scan(narrows, c, xs), TypeError, "scan", "keep its dtypes", "float32");
  int i = 0;
  auto ragged = [&](const Tensor& v, const Tensor&) { return std::pair(v, ones(++i)); };
  CHECK_THROWS_SAYING(scan(ragged, c, xs), ShapeError, "scan", "same shape", "[2]", "[1]");
  auto writes = [](const Tensor& v, const Tensor& x) { return v.add_(x), std::pair(v, v); };
  CHECK_THROWS_SAYING(scan(writes, c, xs), TransformError, "scan", "in place", "clone");
  CHECK_VALUES(c, 0);
}
