// func::peek and func::capture_context: looking into running transforms, and taking them to other
// threads.
#include <future>
#include <sstream>
#include <thread>

#include <tutti/tutti.h>

#include "behaviour.h"

using namespace tutti;
using func::capture_context;
using func::grad;
using func::jvp;
using func::peek;
using func::vmap;

namespace {
Tensor vec(std::initializer_list<double> v) { return tensor(std::vector<double>(v), kFloat64); }
}  // namespace

// ---- peek

TEST_CASE("peek shows all members, with the mapped axes in front") {
  const Tensor x = arange(24, kFloat64).reshape({2, 3, 4});
  const Tensor rows = x.movedim(2, 1);
  int seen = 0;
  auto looks = [&](const Tensor& expected) {
    return [&seen, expected](const Tensor& v) {
      Tensor p = peek(v);
      CHECK_SAME(p, expected);
      CHECK(!p.is_view());
      CHECK(!p.requires_grad());
      ++seen;
      return v.sum();
    };
  };
  looks(x)(x);
  looks(x)(x.clone().requires_grad_());
  grad(looks(x))(x);
  jvp(looks(x), func::args(x), func::args(x));
  vmap(looks(x))(x);
  vmap(looks(x.movedim(2, 0)), 2)(x);
  vmap(vmap(looks(x)))(x);
  vmap(vmap(looks(x.permute({1, 2, 0})), 1), 1)(x);  // axis 1 outside, then what was axis 2
  vmap(grad(looks(x)))(x);
  grad([&](const Tensor& v) { return vmap(vmap(looks(x), 1), 1)(v.permute({2, 0, 1})).sum(); })(x);
  vmap(grad([&](const Tensor& v) { return vmap(looks(rows), 1)(v).sum(); }))(x);
  CHECK(seen == 11);
}

TEST_CASE("peek of what is the same for all, of views, and of written boxes") {
  const Tensor x = vec({1, 2, 3}), k = vec({5, 6});
  vmap(
      [&](const Tensor& v, const Tensor& w) {
        CHECK_VALUES(peek(w), 5, 6);
        CHECK_VALUES(peek(k), 5, 6);
        Tensor h = w * v, part = h[1];
        CHECK_VALUES(peek(part), 6, 12, 18);
        h.mul_(2);
        CHECK_VALUES(peek(part), 12, 24, 36);
        std::ostringstream out;
        out << peek(h);
        CHECK(out.str().find("36") != std::string::npos);
        return v;
      },
      {0, nullopt})(x, k);
  grad([&](const Tensor& v) {
    peek(v).mul_(100);  // a copy
    Tensor before = peek(v);
    CHECK_VALUES(before, 1, 2, 3);
    CHECK(is_grad_enabled());
    return (v * v).sum();
  })(x);
  CHECK_VALUES(x, 1, 2, 3);
  CHECK_THROWS_SAYING(peek(Tensor()), ValueError, "peek", "undefined");
  Tensor escaped;
  grad([&](const Tensor& v) { return escaped = v * 2, v.sum(); })(x);
  CHECK_THROWS_SAYING(peek(escaped), TransformError, "peek", "finished grad");
  vmap([&](const Tensor& v) {
    std::thread([&] {
      CHECK_THROWS_SAYING(peek(v), TransformError, "peek", "not", "vmap");
    }).join();
    return v;
  })(x);
}

// ---- capture_context

TEST_CASE("captured transforms continue on another thread") {
  const Tensor x = vec({0.5, 1, 2}), w = vec({3, 4, 5});
  auto elsewhere = [](const Tensor& v, const Tensor& u) {
    auto context = capture_context();
    Tensor y;
    std::thread([&] { y = context.run([&] { return (v * u).sin(); }); }).join();
    return y * v;
  };
  auto here = [](const Tensor& v, const Tensor& u) { return (v * u).sin() * v; };
  auto compare = [](const auto& a, const auto& b) {
    const Tensors s = tree::flatten(a), t = tree::flatten(b);
    REQUIRE(s.size() == t.size());
    for (std::size_t i = 0; i < s.size(); ++i) CHECK_SAME(s[i].detach(), t[i].detach());
  };
  auto sum = [](auto f) { return [f](const Tensor& v, const Tensor& u) { return f(v, u).sum(); }; };
  compare(elsewhere(x, w), here(x, w));
  compare(vmap(elsewhere)(x, w), vmap(here)(x, w));
  compare(grad<0, 1>(sum(elsewhere))(x, w), grad<0, 1>(sum(here))(x, w));
  compare(vmap(grad<0, 1>(elsewhere))(x, w), vmap(grad<0, 1>(here))(x, w));
  compare(grad(sum(vmap(grad(elsewhere))))(x, w), grad(sum(vmap(grad(here))))(x, w));
  compare(jvp(elsewhere, func::args(x, w), func::args(w, x)),
          jvp(here, func::args(x, w), func::args(w, x)));
  Tensor leaf = x.clone().requires_grad_(), leaf_ = x.clone().requires_grad_();
  elsewhere(leaf, w).sum().backward();
  here(leaf_, w).sum().backward();
  compare(leaf.grad(), leaf_.grad());
}

TEST_CASE(
    "without the context a box is refused on another thread; with it the view is there, too") {
  nn::Linear net(2, 1);
  const Tensor x = ones({2});
  auto f = [&](const TensorDict& state) {
    struct Call : nn::Module {
      explicit Call(nn::Linear l) : linear(register_module("linear", l)) {}
      Tensor forward(const Tensor& v) {
        Tensor y;
        auto context = capture_context();
        std::thread([&] { y = context.run([&] { return linear(v); }); }).join();
        return y;
      }
      nn::Linear linear;
    } call(net);
    return func::functional_call(call, state, x).sum();
  };
  const TensorDict state{{"linear.weight", tensor({{3.f, 4.f}})}, {"linear.bias", ones(1)}};
  CHECK_VALUES(f(state), 8);
  TensorDict g = grad(f)(state);
  CHECK_VALUES(g.at("linear.weight"), 1, 1);
  vmap([&](const Tensor& v) {
    std::thread([&] { CHECK_THROWS_SAYING(v.sin(), TransformError, "another thread"); }).join();
    return v;
  })(x);
}

TEST_CASE("exceptions come back, and the origin's transforms go on unharmed") {
  const Tensor x = vec({1, 2, 3});
  auto f = [](const Tensor& v) {
    auto context = capture_context();
    auto fails = [&] { return context.run([&]() -> Tensor { return matmul(v, ones({7})); }); };
    CHECK_THROWS_SAYING(std::async(std::launch::async, fails).get(), Error, "matmul");
    // On the thread itself the context nests like anything else.
    CHECK_THROWS_AS(fails(), Error);
    Tensor y = context.run([&] { return v * 2; });
    NoGradGuard guard;
    context.run([&] { CHECK(is_grad_enabled()); });
    CHECK(!is_grad_enabled());
    return y;
  };
  CHECK_VALUES(grad([&](const Tensor& v) { return (f(v) * v).sum(); })(x), 4, 8, 12);
  CHECK(thread_state().current == nullptr);
  func::Context late;
  CHECK_THROWS_SAYING(late.run([] {}), ValueError, "capture_context", "empty");
  grad([&](const Tensor& v) { return late = capture_context(), v.sum(); })(x);
  CHECK_THROWS_SAYING(late.run([] {}), TransformError, "capture_context", "grad", "ended", "join");
  CHECK(thread_state().current == nullptr);
  CHECK_NOTHROW(capture_context().run([] {}));
  // Base autograd's mode is part of it.
  Tensor leaf = x.clone().requires_grad_();
  std::optional<func::Context> quiet;
  {
    NoGradGuard guard;
    quiet = capture_context();
  }
  std::thread([&] { quiet->run([&] { CHECK(!(leaf * 2).requires_grad()); }); }).join();
  CHECK((leaf * 2).requires_grad());
}

TEST_CASE("several threads share one context, and a checkpoint") {
  const Tensor x = linspace(0, 1, 64, kFloat64).reshape({8, 8});
  auto part = [](const Tensor& v) {
    Tensor h = v;
    for (int k = 0; k < 10; ++k) h = (h * v).sin() + v;
    return h.sum();
  };
  auto parallel = [&](const Tensor& v) {
    auto context = capture_context();
    std::vector<Tensor> sums(4);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < sums.size(); ++i)
      threads.emplace_back(
          [&, i] { sums[i] = context.run([&] { return part(v * static_cast<double>(i + 1)); }); });
    for (std::thread& t : threads) t.join();
    return stack(sums).sum();
  };
  auto serial = [&](const Tensor& v) {
    std::vector<Tensor> sums;
    for (int i = 1; i <= 4; ++i) sums.push_back(part(v * static_cast<double>(i)));
    return stack(sums).sum();
  };
  CHECK_SAME(vmap(grad(parallel))(x), vmap(grad(serial))(x));
  CHECK_SAME(grad([&](const Tensor& v) { return vmap(parallel)(v).sum(); })(x),
             vmap(grad(serial))(x));
  auto kept = [&](const Tensor& v) { return autograd::checkpoint(parallel, v); };
  CHECK_SAME(vmap(grad(kept))(x), vmap(grad(serial))(x));
}
