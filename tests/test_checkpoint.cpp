// autograd::checkpoint: the same results as without it under every transform, the memory it saves,
// the recomputation it costs, and what it refuses.
#include <tutti/tutti.h>

#include "behaviour.h"

using namespace tutti;
using autograd::checkpoint;
using func::grad;
using func::jvp;
using func::vjp;
using func::vmap;

namespace {

Tensor vec(std::initializer_list<double> v) { return tensor(std::vector<double>(v), kFloat64); }

// Three steps that save values, with `inside(h)` around each.
template <class Wrap>
Tensor chain(const Tensor& x, const Tensor& w, Wrap wrap) {
  Tensor h = x;
  for (int k = 0; k < 3; ++k)
    h = wrap([k](const Tensor& v, const Tensor& u) { return (v * u).sin().exp() + v * (k + 1); }, h,
             w);
  return h;
}
auto plain = [](auto f, const Tensor& h, const Tensor& w) { return f(h, w); };
auto kept = [](auto f, const Tensor& h, const Tensor& w) { return checkpoint(f, h, w); };
// w is captured instead of passed.
auto captured = [](auto f, const Tensor& h, const Tensor& w) {
  return checkpoint([f, w](const Tensor& v) { return f(v, w); }, h);
};
auto nested = [](auto f, const Tensor& h, const Tensor& w) {
  return checkpoint(
      [f, w](const Tensor& v) {
        return checkpoint([f, w](const Tensor& u) { return f(u, w) * w; }, v) / w;
      },
      h);
};

template <class Wrap>
auto with(Wrap wrap) {
  return [wrap](const Tensor& x, const Tensor& w) { return chain(x, w, wrap); };
}
template <class Wrap>
auto total(Wrap wrap) {
  return [wrap](const Tensor& x, const Tensor& w) { return chain(x, w, wrap).sum(); };
}

// Every transform of `chain` that can see a difference, on fixed inputs.
template <class Wrap>
std::vector<Tensor> everything(Wrap wrap) {
  const Tensor x = vec({0.1, 0.5, -0.3, 0.2}), w = vec({0.7, -0.4, 0.2, 0.9});
  const Tensor xs = stack({x, x * 2, x - 1}), ws = stack({w, w + 1, w * 3});
  const auto f = with(wrap);
  const auto loss = total(wrap);
  std::vector<Tensor> r;
  auto add = [&](const auto& t) {
    for (const Tensor& y : tree::flatten(t)) r.push_back(y);
  };
  add(f(x, w));
  add(grad<0, 1>(loss)(x, w));
  add(func::grad_and_value(loss)(x, w));
  add(vmap(f, {0, nullopt})(xs, w));
  add(vmap(grad<0, 1>(loss))(xs, ws));
  add(vmap(grad<0, 1>(loss), {0, nullopt})(xs, w));
  add(vmap(grad<0, 1>(loss), {1, 0}, 0, VmapOptions().chunk_size(2))(xs.t(), ws));
  auto mapped = [&](const Tensor& a, const Tensor& b) { return vmap(f, {0, nullopt})(a, b).sum(); };
  add(grad<0, 1>(mapped)(xs, w));
  add(vmap(grad<0, 1>(mapped))(xs.unsqueeze(1), ws));
  auto norm = [&](const Tensor& a, const Tensor& b) {
    auto [ga, gb] = grad<0, 1>(loss)(a, b);
    return (ga * ga).sum() + (gb * gb).sum();
  };
  add(grad<0, 1>(norm)(x, w));
  add(vmap(grad<0, 1>(norm))(xs, ws));
  add(jvp(f, func::args(x, w), func::args(w, x)));
  add(jvp(grad<0, 1>(loss), func::args(x, w), func::args(w, x)));
  auto slope = [&](const Tensor& a, const Tensor& b) {
    return jvp(f, func::args(a, b), func::args(b, a)).second.sum();
  };
  add(grad<0, 1>(slope)(x, w));
  add(vmap(grad<0, 1>(slope))(xs, ws));
  add(vmap([&](const Tensor& a, const Tensor& b) {
    return jvp(f, func::args(a, b), func::args(b, a)).second;
  })(xs, ws));
  auto [out, pull] = vjp(f, x, w);
  add(out);
  add(pull(ones_like(x)));
  add(vmap([p = pull](const Tensor& g) { return p(g); })(eye(4, kFloat64)));
  // Base autograd.
  for (const bool vmapped : {false, true}) {
    Tensor a = (vmapped ? xs : x).clone().requires_grad_(), b = w.clone().requires_grad_();
    Tensor y = vmapped ? vmap(f, {0, nullopt})(a, b) : f(a, b);
    y.sum().backward();
    add(a.grad());
    add(b.grad());
  }
  Tensor a = x.clone().requires_grad_(), b = w.clone().requires_grad_();
  std::vector<Tensor> g = autograd::grad({loss(a, b)}, {a, b}, {}, true, true);
  add(autograd::grad({(g[0] * g[0]).sum() + (g[1] * g[1]).sum()}, {a, b}));
  // A transform over tensors that base autograd records.
  grad(loss)(a, b).sum().backward();
  add(a.grad());
  add(b.grad());
  return r;
}

}  // namespace

TEST_CASE("checkpoint changes no result, under any transform") {
  const std::vector<Tensor> expected = everything(plain);
  auto compare = [&](const std::vector<Tensor>& got, double tolerance, const char* how) {
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      CAPTURE(how);
      CAPTURE(i);
      CHECK_CLOSE(got[i].detach(), expected[i].detach(), tolerance);
    }
  };
  compare(everything(kept), 1e-14, "kept");
  compare(everything(captured), 1e-14, "captured");
  compare(everything(nested), 1e-12, "nested");
}

TEST_CASE("checkpoint around and inside of inner gradients, custom functions and loops") {
  const Tensor x = vec({0.3, 0.7}), w = vec({1.5, -2});
  auto direct = [](auto f, const Tensor& a, const Tensor& b) { return f(a, b); };
  auto keep = [](auto f, const Tensor& a, const Tensor& b) { return checkpoint(f, a, b); };
  // Two steps of gradient descent on an inner loss, as in MAML.
  auto adapt = [](auto wrap) {
    return [wrap](const Tensor& v, const Tensor& k) {
      auto outer = [wrap](const Tensor& a, const Tensor& b) {
        auto inner = [wrap, b](const Tensor& p) {
          auto f = [b](const Tensor& q, const Tensor& r) { return (q * r * b).sin(); };
          return wrap(f, p, p).sum();
        };
        Tensor p = a;
        for (int i = 0; i < 2; ++i) p = p - 0.1 * grad(inner)(p);
        return p * b;
      };
      return wrap(outer, v, k).sum();
    };
  };
  auto compare = [](const auto& a, const auto& b) {
    const Tensors s = tree::flatten(a), t = tree::flatten(b);
    REQUIRE(s.size() == t.size());
    for (std::size_t i = 0; i < s.size(); ++i) CHECK_CLOSE(s[i], t[i], 1e-13);
  };
  const auto f = adapt(keep);
  const auto g = adapt(direct);
  compare(grad<0, 1>(f)(x, w), grad<0, 1>(g)(x, w));
  compare(vmap(grad<0, 1>(f))(stack({x, w}), stack({w, x})),
          vmap(grad<0, 1>(g))(stack({x, w}), stack({w, x})));
  auto second = [&](auto h) {
    Tensor a = x.clone().requires_grad_(), b = w.clone().requires_grad_();
    auto d = autograd::grad({h(a, b)}, {a, b}, {}, true, true);
    (d[0] * d[0] + d[1]).sum().backward();
    return std::pair(a.grad(), b.grad());
  };
  compare(second(f), second(g));

  auto sine = func::custom_function([](const Tensor& v) { return v.sin(); })
                  .vjp([](const Tensor& v) { return std::pair(v.sin(), v.cos()); },
                       [](const Tensor& c, const Tensor& d) { return c * d; });
  auto custom = [&](const Tensor& v) {
    return checkpoint([sine, w](const Tensor& u) { return sine(u * w) * u; }, v).sum();
  };
  auto plain_sine = [&](const Tensor& v) { return ((v * w).sin() * v).sum(); };
  auto twice = [](auto h) {
    return grad([h](const Tensor& v) {
      Tensor d = grad(h)(v);
      return (d * d).sum();
    });
  };
  compare(twice(custom)(x), twice(plain_sine)(x));
  compare(vmap(twice(custom))(stack({x, w})), vmap(twice(plain_sine))(stack({x, w})));
  compare(jvp(grad(custom), func::args(x), func::args(w)),
          jvp(grad(plain_sine), func::args(x), func::args(w)));

  auto loop = [](const Tensor& v) {
    return func::while_loop([](const Tensor& c) { return c.abs() < 10; },
                            [](const Tensor& c) { return c * c + 1; }, v);
  };
  auto kept_loop = [&](const Tensor& v) { return checkpoint(loop, v); };
  compare(vmap(grad(kept_loop))(x), vmap(grad(loop))(x));
}

TEST_CASE("checkpoint keeps arguments only, and runs the function once more per backward") {
  int calls = 0;
  auto step = [&calls](const Tensor& v) {
    ++calls;
    Tensor h = v;
    for (int k = 0; k < 10; ++k) h = h.sin() * h;
    return h;
  };
  auto growth = [&](auto run, const Tensor& x) {  // tensors kept between forward and backward
    const std::int64_t before = tutti::detail::live_tensors();
    Tensor y = run(x);
    return std::pair(tutti::detail::live_tensors() - before, y);
  };
  auto four_plain = [&](Tensor h) {
    for (int k = 0; k < 4; ++k) h = step(h);
    return h;
  };
  auto four_kept = [&](Tensor h) {
    for (int k = 0; k < 4; ++k) h = checkpoint(step, h);
    return h;
  };
  Tensor x = vec({0.5, 0.7}).requires_grad_();
  auto [many, y] = growth(four_plain, x);
  auto [few, z] = growth(four_kept, x);
  CHECK(many > 80);
  CHECK(few < 12);
  CHECK(calls == 8);
  z.sum().backward();
  CHECK(calls == 12);
  Tensor dx = x.grad();
  x.mutable_grad() = Tensor();
  y.sum().backward();
  CHECK_SAME(x.grad(), dx);

  // Inside grad, seen from inside, where the results are boxes.
  calls = 0;
  std::int64_t inside = 0;
  auto loss = [&](const Tensor& v) {
    auto [n, r] = growth(four_kept, v);
    inside = n;
    return r.sum();
  };
  CHECK_SAME(grad(loss)(x.detach()), dx);
  CHECK(inside < 24);
  CHECK(calls == 8);
  calls = 0;
  CHECK_SAME(vmap(grad(loss))(x.detach().reshape({2, 1})).reshape(2), dx);
  CHECK(inside < 36);
  CHECK(calls == 8);

  // Nothing to differentiate: nothing kept, nothing run again.
  calls = 0;
  NoGradGuard guard;
  CHECK(growth(four_kept, x).first == 1);
  CHECK(calls == 4);
}

TEST_CASE(
    "a module's parameters get gradients through a checkpoint, with and without substitutes") {
  manual_seed(1);
  nn::Sequential block(nn::Linear(3, 5), nn::Tanh(), nn::Linear(5, 3));
  const Tensor x = randn({2, 3});
  auto run = [&](const Tensor& v) {
    return checkpoint([&](const Tensor& u) { return block->forward(u); }, v);
  };
  block->forward(x).sum().backward();
  std::vector<Tensor> expected;
  for (Tensor& p : block->parameters()) {
    expected.push_back(p.grad().clone());
    p.mutable_grad() = Tensor();
  }
  run(x).sum().backward();
  std::size_t i = 0;
  for (const Tensor& p : block->parameters()) CHECK_SAME(p.grad(), expected[i++]);

  // The view of functional_call is long gone when the function runs again.
  struct NetImpl : nn::Module {
    NetImpl() : l(3, 3) { register_module("l", l); }
    Tensor forward(const Tensor& v) {
      return checkpoint([this](const Tensor& u) { return l(u).tanh(); }, v) * 2;
    }
    Tensor direct(const Tensor& v) { return l(v).tanh() * 2; }
    nn::Linear l;
  };
  auto net = std::make_shared<NetImpl>();
  TensorDict state;
  for (const auto& [name, p] : net->named_parameters()) state.insert(name, p.detach() * 3);
  auto loss = [&](const TensorDict& s, const Tensor& v) {
    Tensor y = func::functional_call(net, s, v);
    return (y * y).sum();
  };
  auto direct = [&](const TensorDict& s, const Tensor& v) {
    Tensor y = (v.matmul(s.at("l.weight").t()) + s.at("l.bias")).tanh() * 2;
    return (y * y).sum();
  };
  auto compare = [](const TensorDict& a, const TensorDict& b) {
    for (const auto& [name, t] : a) CHECK_CLOSE(t, b.at(name), 1e-5);
  };
  compare(grad(loss)(state, x), grad(direct)(state, x));
  TensorDict stacked;
  for (const auto& [name, t] : state) stacked.insert(name, stack({t, t * 2}));
  compare(vmap(grad(loss), {0, nullopt})(stacked, x), vmap(grad(direct), {0, nullopt})(stacked, x));
  Tensor w = state.at("l.weight").clone().requires_grad_();
  Tensor b = state.at("l.bias");
  loss({{"l.weight", w}, {"l.bias", b}}, x).backward();
  CHECK_CLOSE(w.grad(), grad(direct)(state, x).at("l.weight"), 1e-5);
  for (const Tensor& p : net->parameters()) CHECK(!p.grad().defined());
}

TEST_CASE("the recomputation repeats random draws, and disturbs none") {
  auto noisy = [](const Tensor& v) {
    return v * randn_like(v) * dropout(v, 0.5, true) + rand({2}, v.options());
  };
  const Tensor x = vec({1, 2});
  auto both = [&](auto f) {
    manual_seed(3);
    Tensor leaf = x.clone().requires_grad_();
    Tensor y = f(leaf);
    Tensor after = rand({1});
    y.sum().backward();
    return std::tuple(y.detach(), leaf.grad(), after, rand({1}));
  };
  auto [y0, g0, a0, b0] = both(noisy);
  auto [y1, g1, a1, b1] = both([&](const Tensor& v) { return checkpoint(noisy, v); });
  CHECK_SAME(y1, y0);
  CHECK_SAME(g1, g0);
  CHECK_SAME(a1, a0);
  CHECK_SAME(b1, b0);
  auto mapped = [&](auto f, VmapOptions o) {
    manual_seed(3);
    auto loss = [&](const Tensor& v) { return f(f(v)).sum(); };
    return vmap(grad(loss), 0, 0, o.randomness(Randomness::different))(stack({x, x, x, x + 1}));
  };
  auto recomputed = [&](const Tensor& v) { return checkpoint(noisy, v); };
  const Tensor expected = mapped(noisy, VmapOptions());
  CHECK_SAME(mapped(recomputed, VmapOptions()), expected);
  CHECK_SAME(mapped(recomputed, VmapOptions().chunk_size(3)), expected);
}

TEST_CASE("checkpoint takes and returns trees, views, captured tensors and constants") {
  const Tensor x = vec({1, 2, 3, 4}), c = vec({5, 6, 7, 8});
  auto loss = [&](const Tensor& v, const Tensor& k) {
    auto r = checkpoint(
        [k](const TensorDict& d, int n) {
          Tensor h = d.at("x").sin();
          return std::tuple(h.reshape({2, 2}).t(), k, d.at("x"), tensor({1., 2.}), h.gt(0), n * h);
        },
        TensorDict{{"x", v}}, 3);
    CHECK(!std::get<0>(r).is_view());
    return std::get<0>(r).reshape(4).sum() + (std::get<1>(r) * std::get<2>(r)).sum() +
           std::get<3>(r).sum() + std::get<4>(r).sum() + std::get<5>(r).sum();
  };
  auto [dx, dk] = grad<0, 1>(loss)(x, c);
  CHECK_CLOSE(dx, 4 * x.cos() + c, 1e-14);
  CHECK_SAME(dk, x);
  Tensor a = x.clone().requires_grad_(), b = c.clone().requires_grad_();
  loss(a, b).backward();
  CHECK_CLOSE(a.grad(), 4 * x.cos() + c, 1e-14);
  CHECK_SAME(b.grad(), x);
  // No gradient reaches it: no error, either.
  CHECK_VALUES(grad([](const Tensor& v) {
                 return checkpoint([](const Tensor& u) { return u.detach() * 2; }, v).sum() +
                        v.sum();
               })(x),
               1, 1, 1, 1);
}

TEST_CASE("a result may be written to, and arguments may change later inside a transform") {
  auto f = [](const Tensor& v) {
    Tensor h = v * 1;
    Tensor y = checkpoint([](const Tensor& u) { return u.sin(); }, h);
    h.mul_(0);  // the recomputation still has the old value
    y.add_(h).mul_(2);
    return y.sum();
  };
  const Tensor x = vec({0.5, 1});
  CHECK_CLOSE(grad(f)(x), 2 * x.cos(), 1e-14);
  CHECK_CLOSE(vmap(grad(f))(x.reshape({2, 1})).reshape(2), 2 * x.cos(), 1e-14);
}

TEST_CASE("no_grad inside a checkpoint holds in the recomputation") {
  auto f = [](const Tensor& v) {
    return checkpoint(
               [](const Tensor& u) {
                 Tensor c;
                 {
                   NoGradGuard guard;
                   c = u * u;
                 }
                 return u * c;
               },
               v)
        .sum();
  };
  const Tensor x = vec({2, 3});
  CHECK_VALUES(grad(f)(x), 4, 9);
  Tensor leaf = x.clone().requires_grad_();
  f(leaf).backward();
  CHECK_VALUES(leaf.grad(), 4, 9);
}

TEST_CASE("checkpoint refuses what would be silently wrong") {
  const Tensor x = vec({1, 2});
  Tensor counter = vec({0, 0});
  auto counts = [&](const Tensor& v) {
    return checkpoint(
               [&](const Tensor& u) {
                 counter.add_(1);
                 return u.sin();
               },
               v)
        .sum();
  };
  CHECK_THROWS_SAYING(grad(counts)(x), TransformError, "checkpoint", "did not make", "[2]",
                      "return the new value");
  CHECK_THROWS_SAYING(counts(x.clone().requires_grad_()), TransformError, "did not make");
  auto writes = [&](const Tensor& v) {
    return checkpoint(
               [](const Tensor& u) {
                 u[0].mul_(2);
                 return u.sin();
               },
               v)
        .sum();
  };
  CHECK_THROWS_SAYING(grad([&](const Tensor& v) { return writes(v * 1); })(x), TransformError,
                      "did not make");

  // Base autograd: memory changed between the two runs.
  Tensor leaf = x.clone().requires_grad_(), k = vec({3, 3});
  auto scaled = [&](const Tensor& v) {
    return checkpoint([k](const Tensor& u) { return (u * k).sin() + k; }, v);
  };
  Tensor y = scaled(leaf);
  k.add_(1);
  CHECK_THROWS_SAYING(y.sum().backward(), AutogradError, "checkpoint", "changed in place", "[2]");
  y = scaled(leaf);
  {
    NoGradGuard guard;
    leaf.mul_(2);
  }
  CHECK_THROWS_SAYING(y.sum().backward(), AutogradError, "changed in place");

  // Boxes: refused at once.
  auto later = [](const Tensor& v) {
    Tensor h = v * 2;
    Tensor r = checkpoint([h](const Tensor& u) { return u * h; }, v);
    h.add_(r);
    return h.sum();
  };
  CHECK_THROWS_SAYING(grad(later)(x), TransformError, "checkpointed", "captured", "clone");

  auto view_later = [](const Tensor& v) {
    Tensor h = v * 2, part = h[0];
    Tensor r = checkpoint([part](const Tensor& u) { return u * part; }, v);
    h.add_(r);
    return h.sum();
  };
  CHECK_THROWS_SAYING(grad(view_later)(x), TransformError, "checkpointed", "captured", "clone");

  int calls = 0;
  auto fickle = [&](const Tensor& v) {
    return checkpoint([&](const Tensor& u) { return ++calls == 1 ? u.sin() : u.sin().sum(); }, v)
        .sum();
  };
  CHECK_THROWS_SAYING(grad(fickle)(x), AutogradError, "checkpoint", "the same shapes");
  calls = 0;
  Tensor other = x.clone().requires_grad_();
  auto switches = [&](const Tensor& v) {
    return checkpoint([&](const Tensor& u) { return ++calls == 1 ? u.sin() : u.sin() * other; }, v)
        .sum();
  };
  CHECK_THROWS_SAYING(switches(x.clone().requires_grad_()).backward(), AutogradError,
                      "the same tensors");
  auto nothing = [](const Tensor& v) {
    return checkpoint([](const Tensor&) { return Tensor(); }, v);
  };
  CHECK_THROWS_SAYING(nothing(leaf), ValueError, "checkpoint", "undefined");

  // A throw leaves no trace.
  auto throws = [](const Tensor& v) -> Tensor {
    return checkpoint([](const Tensor&) -> Tensor { throw std::runtime_error("mine"); }, v);
  };
  CHECK_THROWS_SAYING(grad([&](const Tensor& v) { return throws(v).sum(); })(x), std::runtime_error,
                      "mine");
  counter.add_(1);
  CHECK_VALUES(counter, 1, 1);
}

TEST_CASE("a second backward needs retain_graph") {
  Tensor x = vec({1, 2}).requires_grad_();
  Tensor y = checkpoint([](const Tensor& v) { return v.sin(); }, x).sum();
  y.backward({}, true);
  y.backward();
  CHECK_CLOSE(x.grad(), 2 * x.detach().cos(), 1e-14);
  CHECK_THROWS_SAYING(y.backward(), AutogradError, "retain_graph");
}
