// functional_call: substitution without touching the module; names, tying, strictness, nesting,
// buffers, exceptions.
#include <functional>

#include <tutti/autograd/autograd.h>
#include <tutti/core/interpreter.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "behaviour.h"

using namespace tutti;
using func::functional_call;
using func::FunctionalCallOptions;
using func::grad;
using func::vmap;
using std::nullopt;

namespace {

Tensor vector(std::initializer_list<double> v) { return tensor(std::vector<double>(v), kFloat64); }

// Plain Tensor members, as LibTorch modules have them.
struct ScaleImpl : nn::Module {
  ScaleImpl() {
    weight = register_parameter("weight", vector({1, 1}));
    offset = register_buffer("offset", vector({0, 0}));
  }
  Tensor forward(const Tensor& x) { return x * weight + offset; }
  Tensor weight, offset;
};
TUTTI_MODULE(Scale);

struct CounterImpl : nn::Module {
  CounterImpl() {
    w = register_parameter("w", vector({1}));
    calls = register_buffer("calls", vector({0}));
    mean = register_buffer("mean", vector({0}));
  }
  Tensor forward(const Tensor& x) {
    calls.add_(1);                // in place
    mean = mean * 0.5 + x * 0.5;  // assigned
    return x * w;
  }
  nn::Parameter w;
  nn::Buffer calls, mean;
};
TUTTI_MODULE(Counter);

struct TiedImpl : nn::Module {
  TiedImpl() {
    a = register_parameter("a", vector({2}));
    b = register_parameter("b", a);
    c = register_parameter("c", vector({5}));
  }
  Tensor forward(const Tensor& x) { return x * a + b * 10 + c * 100; }
  nn::Parameter a, b, c;
};
TUTTI_MODULE(Tied);

struct TwoPathsImpl : nn::Module {
  TwoPathsImpl() {
    auto shared = Scale();
    left = register_module("left", shared);
    right = register_module("right", shared);
  }
  Tensor forward(const Tensor& x) { return left(x) + right(x) * 10; }
  Scale left{nullptr}, right{nullptr};
};
TUTTI_MODULE(TwoPaths);

}  // namespace

TEST_CASE("the call uses the given tensors and leaves the module alone") {
  Scale m;
  TensorDict state = {{"weight", vector({2, 3})}, {"offset", vector({10, 20})}};
  CHECK_VALUES(functional_call(m, state, vector({1, 1})), 12, 23);
  CHECK_VALUES(m(vector({1, 1})), 1, 1);
  CHECK_VALUES(m->weight, 1, 1);
  CHECK_VALUES(m->parameters()[0], 1, 1);
}

TEST_CASE("the module may be a holder, a reference, a shared_ptr or a pointer") {
  Scale m;
  const TensorDict state = {{"weight", vector({2, 3})}};
  const Tensor x = vector({1, 1});
  CHECK_VALUES(functional_call(m, state, x), 2, 3);
  CHECK_VALUES(functional_call(*m, state, x), 2, 3);
  CHECK_VALUES(functional_call(m.ptr(), state, x), 2, 3);
  CHECK_VALUES(functional_call(m.get(), state, x), 2, 3);
  const Scale& constant = m;
  CHECK_VALUES(functional_call(constant, state, x), 2, 3);
  CHECK_VALUES(functional_call(Scale(), state, x), 2, 3);
}

TEST_CASE("state may be one dict, several, pairs, or nothing") {
  Scale m;
  const Tensor x = vector({1, 1});
  TensorDict params = {{"weight", vector({2, 3})}}, buffers = {{"offset", vector({10, 20})}};
  CHECK_VALUES(functional_call(m, {params, buffers}, x), 12, 23);
  CHECK_VALUES(functional_call(m, std::vector<TensorDict>{params, buffers, TensorDict{}}, x), 12,
               23);
  std::vector<std::pair<std::string, Tensor>> pairs = {{"weight", vector({4, 5})}};
  CHECK_VALUES(functional_call(m, pairs, x), 4, 5);
  CHECK_VALUES(functional_call(m, {}, x), 1, 1);
  CHECK_VALUES(functional_call(m, TensorDict{}, x), 1, 1);
  CHECK_VALUES(functional_call(m, m->state_dict(), x), 1, 1);
  CHECK_THROWS_SAYING(functional_call(m, {params, params}, x), ValueError, "weight", "two");
  CHECK_THROWS_SAYING(functional_call(m, {params, buffers, params}, x), ValueError, "weight");
  pairs.emplace_back("weight", vector({1, 1}));
  CHECK_THROWS_SAYING(functional_call(m, pairs, x), ValueError, "weight", "twice");
}

TEST_CASE("missing and unknown names: default, strict, not strict") {
  Scale m;
  const Tensor x = vector({1, 1});
  const TensorDict part = {{"weight", vector({2, 3})}};
  const TensorDict typo = {{"wieght", vector({2, 3})}};
  const TensorDict both = {{"weight", vector({2, 3})}, {"offset", vector({0, 0})}};
  const TensorDict extra = {{"weight", vector({2, 3})}, {"offset", vector({0, 0})}, {"zz", x}};
  CHECK_VALUES(functional_call(m, part, x), 2, 3);
  CHECK_THROWS_SAYING(functional_call(m, typo, x), KeyError, "\"wieght\"",
                      "did you mean \"weight\"", "Scale");
  CHECK_THROWS_SAYING(functional_call(m, extra, x), KeyError, "\"zz\"");

  const auto strict = FunctionalCallOptions().strict(true);
  CHECK_VALUES(functional_call(m, both, strict, x), 2, 3);
  CHECK_THROWS_SAYING(functional_call(m, part, strict, x), KeyError, "missing", "\"offset\"");
  CHECK_THROWS_SAYING(functional_call(m, extra, strict, x), KeyError, "\"zz\"");
  CHECK_THROWS_SAYING(functional_call(m, typo, strict, x), KeyError, "unknown", "\"wieght\"",
                      "missing", "\"offset\", \"weight\"");

  const auto lax = FunctionalCallOptions().strict(false);
  CHECK_VALUES(functional_call(m, extra, lax, x), 2, 3);
  CHECK_VALUES(functional_call(m, typo, lax, x), 1, 1);
  CHECK_THROWS_SAYING(functional_call(nn::Sequential(nn::Linear(2, 2)), {{"1.weight", x}}, x),
                      KeyError, "1.weight", "0.weight");
}

TEST_CASE("an undefined tensor means none") {
  nn::Linear m(2, 1);
  Tensor x = ones({1, 2}), w = tensor({{2.f, 3.f}});
  CHECK_VALUES(functional_call(m, {{"weight", w}, {"bias", Tensor()}}, x), 5);
  CHECK(m->bias.defined());
  nn::Linear none(nn::LinearOptions(2, 1).bias(false));
  CHECK_VALUES(functional_call(none, {{"weight", w}}, x), 5);
  CHECK_VALUES(functional_call(none, {{"weight", w}}, FunctionalCallOptions().strict(true), x), 5);
}

TEST_CASE("gradients go to the given tensors, not to the module") {
  nn::Linear m(3, 2);
  TensorDict state = {{"weight", ones({2, 3}).requires_grad_()},
                      {"bias", zeros(2).requires_grad_()}};
  functional_call(m, state, ones({4, 3})).sum().backward();
  CHECK_VALUES(state.at("weight").grad(), 4, 4, 4, 4, 4, 4);
  CHECK_VALUES(state.at("bias").grad(), 4, 4);
  CHECK_FALSE(m->weight.grad().defined());
  CHECK_FALSE(functional_call(m, m->state_dict(), ones({4, 3})).requires_grad());
  CHECK(functional_call(m, m->named_parameters(), ones({4, 3})).requires_grad());
}

TEST_CASE("inside forward, parameters() and buffers() are the given ones") {
  struct Probe : nn::Module {
    Probe() {
      w = register_parameter("w", ones(1));
      b = register_buffer("b", zeros(1));
    }
    Tensor forward() {
      CHECK(parameters()[0].is_same(expected));
      CHECK(named_parameters().at("w").is_same(expected));
      CHECK(w.is_same(expected));
      CHECK(buffers()[0].is_same(b));
      CHECK(state_dict().at("w").item<float>() == 7);
      Tensor copy = w;  // a copy made during the call is the substitute itself
      return copy;
    }
    Tensor w, b, expected;
  };
  auto m = std::make_shared<Probe>();
  m->expected = full({1}, 7.f);
  Tensor r = functional_call(m, {{"w", m->expected}});
  CHECK(r.is_same(m->expected));
  m->expected.reset();
}

TEST_CASE("a returned slot handle is resolved before the view ends") {
  struct Return : nn::Module {
    Return() { w = register_parameter("w", vector({1})); }
    const Tensor& forward() { return w; }
    std::pair<Tensor, std::vector<Tensor>> forward(int) { return {w, {w, w * 2}}; }
    Tensor w;
  };
  auto m = std::make_shared<Return>();
  Tensor given = vector({5});
  Tensor r = functional_call(m, {{"w", given}});
  CHECK(r.is_same(given));
  CHECK_VALUES(r, 5);
  auto [a, list] = functional_call(m, {{"w", given}}, 1);
  CHECK_VALUES(a, 5);
  CHECK_VALUES(list[0], 5);
  CHECK_VALUES(list[1], 10);
  Tensor own = functional_call(m, {});
  CHECK_VALUES(own, 1);
}

// ---- buffers

TEST_CASE("in-place changes and assignments of buffers reach the given tensors only") {
  Counter m;
  TensorDict state = {{"calls", vector({5})}, {"mean", vector({1})}};
  Tensor calls = state.at("calls"), mean = state.at("mean");
  functional_call(m, state, vector({3}));
  CHECK_VALUES(calls, 6);
  CHECK_VALUES(mean, 2);
  CHECK_VALUES(m->calls, 0);
  CHECK_VALUES(m->mean, 0);
  functional_call(m, {{"w", vector({2})}}, vector({3}));  // buffers not given: the module's own
  CHECK_VALUES(m->calls, 1);
  CHECK_VALUES(m->mean, 1.5);
  CHECK_VALUES(calls, 6);
}

TEST_CASE("buffers under vmap and grad: per member, written back once") {
  Counter m;
  TensorDict params = {{"w", vector({1, 2, 3}).reshape({3, 1})}},
             buffers = {{"calls", zeros({3, 1}, kFloat64)}, {"mean", zeros({3, 1}, kFloat64)}};
  auto loss = [&](const TensorDict& p, const TensorDict& b, const Tensor& x) {
    return functional_call(m, {p, b}, x).sum();
  };
  Tensor x = vector({2, 4, 6}).reshape({3, 1});
  TensorDict g = vmap(grad(loss))(params, buffers, x);
  CHECK_VALUES(g.at("w"), 2, 4, 6);
  CHECK_VALUES(buffers.at("calls"), 1, 1, 1);
  CHECK_VALUES(buffers.at("mean"), 1, 2, 3);
  CHECK_VALUES(m->calls, 0);
  // Not passed: the module's own buffers are captured and may not take values per member.
  auto own = [&](const TensorDict& p, const Tensor& v) { return functional_call(m, p, v).sum(); };
  CHECK_THROWS_SAYING(vmap(own)(params, x), TransformError, "buffer");
}

TEST_CASE("a module's own buffer does not take values made inside a transform") {
  Counter m;
  auto f = [&](const Tensor& x) { return m(x).sum(); };
  CHECK_THROWS_SAYING(grad(f)(vector({1})), TransformError, "functional_call");
  CHECK_VALUES(m->mean, 0);
}

// ---- tying and sharing

TEST_CASE("a value for one name of a tied parameter stands for all") {
  Tied m;
  CHECK(m->named_parameters().keys() == std::vector<std::string>{"a", "c"});
  const Tensor x = vector({1});
  CHECK_VALUES(m(x), 522);
  CHECK_VALUES(functional_call(m, {{"a", vector({3})}}, x), 533);
  CHECK_VALUES(functional_call(m, {{"b", vector({3})}}, x), 533);
  const auto untied = FunctionalCallOptions().tie_weights(false);
  CHECK_VALUES(functional_call(m, {{"a", vector({3})}}, untied, x), 523);
  CHECK_VALUES(functional_call(m, {{"b", vector({3})}}, untied, x), 532);
  const Tensor same = vector({4});
  CHECK_VALUES(functional_call(m, {{"a", same}, {"b", same}}, x), 544);
  CHECK_THROWS_SAYING(functional_call(m, {{"a", vector({3})}, {"b", vector({4})}}, x), ValueError,
                      "\"a\"", "\"b\"", "tied", "tie_weights(false)");
  CHECK_VALUES(functional_call(m, {{"a", vector({3})}, {"b", vector({4})}}, untied, x), 543);
  const auto strict = FunctionalCallOptions().strict(true);
  CHECK_VALUES(functional_call(m, {{"a", vector({3})}, {"c", vector({0})}}, strict, x), 33);
  CHECK_THROWS_SAYING(functional_call(m, {{"a", vector({3})}, {"c", vector({0})}},
                                      FunctionalCallOptions().strict(true).tie_weights(false), x),
                      KeyError, "missing", "\"b\"");
}

TEST_CASE("gradients of tied weights add up on the one value given") {
  Tied m;
  auto loss = [&](const TensorDict& p) { return functional_call(m, p, vector({1})).sum(); };
  TensorDict g = grad(loss)(TensorDict{{"a", vector({3})}, {"c", vector({0})}});
  CHECK_VALUES(g.at("a"), 11);
}

TEST_CASE("a submodule reached by two paths is substituted by either, and intact afterwards") {
  TwoPaths m;
  CHECK(m->named_parameters().keys() == std::vector<std::string>{"left.weight"});
  const Tensor x = vector({1, 1}), w = vector({2, 3});
  CHECK_VALUES(functional_call(m, {{"left.weight", w}}, x), 22, 33);
  CHECK_VALUES(functional_call(m, {{"right.weight", w}}, x), 22, 33);
  CHECK_VALUES(functional_call(m, {{"left.weight", w}, {"right.weight", w}}, x), 22, 33);
  CHECK_THROWS_SAYING(functional_call(m, {{"left.weight", w}, {"right.weight", vector({0, 0})}}, x),
                      ValueError, "left.weight", "right.weight");
  CHECK_VALUES(m(x), 11, 11);
  CHECK_VALUES(m->left->weight, 1, 1);
}

// ---- nesting, exceptions, transforms

TEST_CASE("calls nest: the innermost substitute wins, the outer comes back") {
  struct OuterImpl : nn::Module {
    OuterImpl() { inner = register_module("inner", Scale()); }
    Tensor forward(const Tensor& x, const TensorDict& s) {
      Tensor before = inner(x);
      Tensor within = functional_call(inner, s, x);
      Tensor after = inner(x);
      return stack({before, within, after});
    }
    Scale inner{nullptr};
  };
  OuterImpl m;
  const Tensor x = vector({1, 1});
  Tensor r = functional_call(m, {{"inner.weight", vector({2, 3})}}, x,
                             TensorDict{{"weight", vector({20, 30})}});
  CHECK_VALUES(r, 2, 3, 20, 30, 2, 3);
  // What an inner call does not name is what the outer call gave.
  r = functional_call(m, {{"inner.weight", vector({2, 3})}}, x,
                      TensorDict{{"offset", vector({100, 100})}});
  CHECK_VALUES(r[1], 102, 103);
  // Values taken from the module during the call are the substitutes.
  struct RecursiveImpl : nn::Module {
    RecursiveImpl() { w = register_parameter("w", vector({1})); }
    Tensor forward(int n) {
      if (n == 0) return w * 1;
      return functional_call(*this, {{"w", w * 2}}, n - 1) + w;
    }
    Tensor w;
  };
  RecursiveImpl deep;
  CHECK_VALUES(functional_call(deep, {{"w", vector({3})}}, 2), 12 + 6 + 3);
  CHECK_VALUES(deep.forward(3), 8 + 4 + 2 + 1);
  CHECK_VALUES(deep.w, 1);
}

TEST_CASE("the given tensor may be the slot of the same or another module") {
  Scale m, other;
  other->weight.requires_grad_(false);
  other->weight.mul_(7);
  CHECK_VALUES(functional_call(m, {{"weight", other->weight}}, vector({1, 1})), 7, 7);
  CHECK_VALUES(functional_call(m, {{"weight", m->weight}}, vector({1, 1})), 1, 1);
}

TEST_CASE("a throw in forward leaves no view behind") {
  struct ThrowsImpl : nn::Module {
    ThrowsImpl() { w = register_parameter("w", vector({1})); }
    Tensor forward(bool boom) {
      if (boom) throw std::runtime_error("boom");
      return w * 1;
    }
    Tensor w;
  };
  ThrowsImpl m;
  CHECK_THROWS_AS(functional_call(m, {{"w", vector({9})}}, true), std::runtime_error);
  CHECK(thread_state().views == nullptr);
  CHECK_VALUES(m.forward(false), 1);
  CHECK_VALUES(m.w, 1);
  CHECK_THROWS_AS(functional_call(m, {{"x", vector({9})}}, false), KeyError);
  CHECK(thread_state().views == nullptr);
  auto f = [&](const Tensor& w) { return functional_call(m, {{"w", w}}, true).sum(); };
  CHECK_THROWS_AS(vmap(grad(f))(vector({1, 2}).reshape({2, 1})), std::runtime_error);
  CHECK(thread_state().views == nullptr);
  CHECK(thread_state().current == nullptr);
  // A wrong shape is forward's own error, and nothing has changed.
  nn::Linear l(3, 2);
  CHECK_THROWS_AS(functional_call(l, {{"weight", ones({2, 5})}}, ones({1, 3})), ShapeError);
  CHECK(l->weight.sizes() == std::vector<std::int64_t>{2, 3});
}

TEST_CASE("higher derivatives through functional_call") {
  nn::Sequential net(nn::Linear(2, 3), nn::Tanh(), nn::Linear(3, 1));
  net->to(kFloat64);
  TensorDict p;
  for (auto [name, value] : net->named_parameters()) p.insert(name, value.detach());
  Tensor x = vector({0.3, -0.7});
  // The gradient with respect to the input, differentiated with respect to the parameters.
  auto slope = [&](const TensorDict& q) {
    auto f = [&](const Tensor& v) { return functional_call(net, q, v).sum(); };
    return grad(f)(x).square().sum();
  };
  TensorDict g = grad(slope)(p);
  for (const auto& [key, given] : p) {
    const std::string& name = key;  // a lambda cannot capture structured bindings
    const Tensor& value = given;
    const double h = 1e-6;
    for (std::int64_t i = 0; i < value.numel(); ++i) {
      auto at = [&](double d) {
        TensorDict q = p;
        Tensor moved = value.clone();
        moved.data_ptr<double>()[i] += d;
        q.insert(name, moved);
        return slope(q).item<double>();
      };
      CHECK(g.at(name).flatten()[i].item<double>() ==
            doctest::Approx((at(h) - at(-h)) / (2 * h)).epsilon(1e-5).scale(1e-3));
    }
  }
}

TEST_CASE("registering or replacing after a call is noticed") {
  nn::Sequential net(nn::Linear(2, 2));
  CHECK_NOTHROW(functional_call(net, {{"0.weight", ones({2, 2})}}, ones({1, 2})));
  net->push_back(nn::Linear(2, 1));
  CHECK_NOTHROW(functional_call(net, {{"1.weight", ones({1, 2})}}, ones({1, 2})));
  CHECK(functional_call(net, {{"1.bias", zeros(1)}}, ones({1, 2})).size(1) == 1);
}

TEST_CASE("an outer substitute is seen in a call nested in it") {
  nn::Linear layer(2, 2);
  const TensorDict weight{{"weight", zeros({2, 2})}}, bias{{"bias", full(2, 5.0)}};
  auto inner = [&](const Tensor& x) { return func::functional_call(layer, bias, x); };
  struct OuterImpl : nn::Module {
    OuterImpl(nn::Linear l, std::function<Tensor(const Tensor&)> f) : call(std::move(f)) {
      register_module("l", std::move(l));
    }
    Tensor forward(const Tensor& x) { return call(x); }
    std::function<Tensor(const Tensor&)> call;
  };
  OuterImpl outer(layer, inner);
  const Tensor y =
      func::functional_call(outer, TensorDict{{"l.weight", weight.at("weight")}}, ones({1, 2}));
  CHECK(equal(y.detach(), full({1, 2}, 5.0)));
}
