// Where torch.func surprises its users: values dropped, promoted or leaked in silence, names that
// are lost, errors for what should work. Each case shows what tutti does instead, or that it agrees
// where PyTorch is right. Sections: stack_module_state, functional_call, vmap, random numbers,
// grad, vjp, jvp.
#include <map>
#include <numeric>
#include <set>
#include <type_traits>

#include <tutti/autograd/autograd.h>
#include <tutti/core/interpreter.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "behaviour.h"

using namespace tutti;
using func::args;
using func::functional_call;
using func::FunctionalCallOptions;
using func::grad;
using func::grad_and_value;
using func::jvp;
using func::stack_module_state;
using func::vjp;
using func::vmap;
using std::nullopt;

using Keys = std::vector<std::string>;
using Sizes = std::vector<std::int64_t>;

namespace {

Tensor scalar(double v) { return tensor(v, kFloat64); }
Tensor vector(std::initializer_list<double> v) { return tensor(std::vector<double>(v), kFloat64); }
Tensor numbers(IntArrayRef sizes) {
  return (arange(numel_of(sizes), kFloat64) * 0.25 - 1).reshape(sizes);
}
VmapOptions options(Randomness r) { return VmapOptions().randomness(r); }

// Three parameters, of which any may be another name of an earlier one.
struct TiedImpl : nn::Module {
  TiedImpl(int b_is, int c_is) {
    a = register_parameter("a", randn(2, kFloat64));
    b = b_is == 0 ? register_parameter("b", a) : register_parameter("b", randn(2, kFloat64));
    if (c_is == 0)
      c = register_parameter("c", a);
    else if (c_is == 1)
      c = register_parameter("c", b);
    else
      c = register_parameter("c", randn(2, kFloat64));
  }
  Tensor forward(const Tensor& x) { return x * a + b * 10 + c * 100; }
  nn::Parameter a, b, c;
};
using Tied = std::shared_ptr<TiedImpl>;
Tied tied(int b_is, int c_is) { return std::make_shared<TiedImpl>(b_is, c_is); }
constexpr int own = -1;

struct CounterImpl : nn::Module {
  CounterImpl() {
    w = register_parameter("w", vector({1}));
    calls = register_buffer("calls", vector({0}));
    mean = register_buffer("mean", vector({0}));
  }
  Tensor forward(const Tensor& x) {
    calls.add_(1);                // in place
    mean = mean * 0.5 + x * 0.5;  // a new tensor
    return x * w;
  }
  nn::Parameter w;
  nn::Buffer calls, mean;
};
TUTTI_MODULE(Counter);

}  // namespace

// ---- stack_module_state

TEST_CASE("stack_module_state: the model that lends its code lends none of its values") {
  manual_seed(0);
  std::vector<nn::Linear> models = {nn::Linear(3, 2), nn::Linear(3, 2)};
  auto s = stack_module_state(models);
  manual_seed(1);
  nn::Linear code(3, 2);
  Tensor x = randn({4, 3});
  Tensor y = vmap([&](const TensorDict& p) { return functional_call(code, p, x); })(s.params);
  for (int i = 0; i < 2; ++i)
    CHECK_CLOSE(y.detach()[i], models[static_cast<std::size_t>(i)](x).detach(), 1e-6);
}

TEST_CASE("stack_module_state: a member that ties other weights is an error, in either order") {
  // PyTorch drops the second weight in silence, or stops at a bare KeyError.
  std::vector<Tied> models = {tied(0, own), tied(own, own)};
  CHECK_THROWS_SAYING(stack_module_state(models), ValueError, "member 1", "\"b\"", "parameter");
  std::swap(models[0], models[1]);
  CHECK_THROWS_SAYING(stack_module_state(models), ValueError, "member 1", "\"b\"", "parameter");
  // The same keys a and b in both, but c stands for another one.
  models = {tied(own, 0), tied(own, 1)};
  CHECK_THROWS_SAYING(stack_module_state(models), ValueError, "\"c\" of member 1 is \"b\"",
                      "that of member 0 is \"a\"", "tie the same names");
  models = {tied(own, 1), tied(own, 1)};
  CHECK(stack_module_state(models).params.keys() == Keys{"a", "b"});
}

TEST_CASE("stack_module_state: options that are no tensors must agree, since one forward runs") {
  // PyTorch runs everybody with member 0's dropout, activation and structure.
  auto with = [](double p) { return nn::Sequential(nn::Linear(2, 2), nn::Dropout(p)); };
  std::vector<nn::Sequential> dropout = {with(0.1), with(0.1), with(0.5)};
  CHECK_THROWS_SAYING(stack_module_state(dropout), ValueError, "member 2", "Dropout", "p=0.5",
                      "p=0.1", "\"1\"", "same options");
  std::vector<nn::Sequential> activation = {nn::Sequential(nn::Linear(2, 2), nn::ReLU()),
                                            nn::Sequential(nn::Linear(2, 2), nn::Tanh())};
  CHECK_THROWS_SAYING(stack_module_state(activation), TypeError, "member 1", "nn::Tanh", "nn::ReLU",
                      "\"1\"", "same class");
  std::vector<nn::Sequential> longer = {
      nn::Sequential(nn::Linear(2, 2), nn::ReLU()),
      nn::Sequential(nn::Linear(2, 2), nn::ReLU(), nn::Sigmoid())};
  CHECK_THROWS_SAYING(stack_module_state(longer), ValueError, "member 1", "\"2\"", "same modules");
  std::swap(longer[0], longer[1]);
  CHECK_THROWS_SAYING(stack_module_state(longer), ValueError, "member 1", "\"2\"", "same modules");
  std::vector<nn::BatchNorm1d> eps = {nn::BatchNorm1d(2),
                                      nn::BatchNorm1d(nn::BatchNormOptions(2).eps(1e-3))};
  CHECK_THROWS_SAYING(stack_module_state(eps), ValueError, "member 1", "eps=0.001");
  // Modules that differ by name only are of one kind.
  struct Named : nn::Module {
    explicit Named(const std::string& name) : nn::Module(name) {
      register_parameter("w", zeros(1));
    }
  };
  std::vector<std::shared_ptr<Named>> named = {std::make_shared<Named>("first"),
                                               std::make_shared<Named>("second")};
  CHECK_NOTHROW(stack_module_state(named));
}

TEST_CASE(
    "stack_module_state: buffers of integers stack, a buffer that is none in one is an error") {
  struct Buffered : nn::Module {
    explicit Buffered(bool with) {
      register_buffer("steps", tensor(3));
      register_buffer("scale", with ? ones(2) : Tensor());
    }
  };
  using Module = std::shared_ptr<Buffered>;
  std::vector<Module> none = {std::make_shared<Buffered>(false), std::make_shared<Buffered>(false)};
  auto s = stack_module_state(none);
  CHECK(s.buffers.keys() == Keys{"steps"});
  CHECK_SAME(s.buffers.at("steps"), tensor({3, 3}));
  std::vector<Module> mixed = {none[0], std::make_shared<Buffered>(true)};
  CHECK_THROWS_SAYING(stack_module_state(mixed), ValueError, "member 1", "buffer", "\"scale\"");
  std::swap(mixed[0], mixed[1]);
  CHECK_THROWS_SAYING(stack_module_state(mixed), ValueError, "member 1", "buffer", "\"scale\"");
}

TEST_CASE("stack_module_state: a tied ensemble keeps its ties when its code moves to meta") {
  // PyTorch's to("meta") makes two parameters of one.
  std::vector<Tied> models = {tied(0, own), tied(0, own)};
  auto s = stack_module_state(models);
  Tied code = tied(0, own);
  code->to(kMeta);
  CHECK(code->named_parameters().keys() == Keys{"a", "c"});
  Tensor x = vector({1, 2});
  Tensor y = vmap([&](const TensorDict& p) { return functional_call(code, p, x); })(s.params);
  CHECK(y.is_cpu());
  for (int i = 0; i < 2; ++i)
    CHECK_CLOSE(y.detach()[i], models[static_cast<std::size_t>(i)]->forward(x).detach(), 1e-15);
}

TEST_CASE("stack_module_state: a mapped dict without entries does no harm beside others") {
  std::vector<nn::Linear> models = {nn::Linear(3, 2), nn::Linear(3, 2)};
  auto s = stack_module_state(models);
  CHECK(s.buffers.empty());
  auto f = [&](const TensorDict& p, const TensorDict& b) {
    return functional_call(models[0], {p, b}, ones({1, 3}));
  };
  CHECK(vmap(f, {0, 0})(s.params, s.buffers).sizes() == Sizes{2, 1, 2});
  CHECK_THROWS_SAYING(vmap([](const TensorDict&) { return ones(1); }, {0})(s.buffers), ValueError,
                      "at least one tensor");
}

TEST_CASE("stack_module_state: the stack lives on after its models, and is not touched by them") {
  Tensor before, w;
  {
    std::vector<nn::Linear> models = {nn::Linear(3, 2), nn::Linear(3, 2)};
    auto s = stack_module_state(models);
    w = s.params.at("weight");
    before = w.detach().clone();
    NoGradGuard guard;
    models[0]->weight.zero_();
  }
  CHECK_SAME(w.detach(), before);
  CHECK(w.is_leaf());
}

TEST_CASE("stack_module_state: sum the members' losses; a mean scales every gradient by 1/M") {
  manual_seed(3);
  std::vector<nn::Linear> models = {nn::Linear(3, 1), nn::Linear(3, 1), nn::Linear(3, 1)};
  Tensor x = randn({5, 3});
  auto loss = [&](const TensorDict& p) { return functional_call(models[0], p, x).square().mean(); };
  auto summed = stack_module_state(models), averaged = stack_module_state(models);
  vmap(loss)(summed.params).sum().backward();
  vmap(loss)(averaged.params).mean().backward();
  for (std::size_t i = 0; i < 3; ++i) {
    models[i](x).square().mean().backward();
    const auto at = static_cast<std::int64_t>(i);
    CHECK_CLOSE(summed.params.at("weight").grad()[at], models[i]->weight.grad(), 1e-5);
    CHECK_CLOSE(averaged.params.at("weight").grad()[at] * 3, models[i]->weight.grad(), 1e-5);
  }
}

TEST_CASE("stack_module_state: clipping the stack couples members, clipping inside vmap does not") {
  Tensor g = tensor({{0.6f, 0.8f}, {60.f, 80.f}});
  Tensor stacked = zeros({2, 2}).requires_grad_();
  stacked.mutable_grad() = g.clone();
  nn::utils::clip_grad_norm_(std::vector<Tensor>{stacked}, 1.0);
  CHECK_CLOSE(stacked.grad().norm(2, 1), tensor({0.01f, 1.f}), 1e-3);
  Tensor each = vmap([](const Tensor& v) { return v * (1 / v.norm()).clamp_max(1); })(g);
  CHECK_CLOSE(each.norm(2, 1), tensor({1.f, 1.f}), 1e-5);
}

// ---- functional_call

TEST_CASE("functional_call: strict names the unknown first, then the missing, each in order") {
  nn::Sequential m(nn::Linear(2, 2), nn::Linear(2, 2));
  const Tensor w0 = m->parameters()[0].detach().clone(), x = ones({1, 2});
  TensorDict state = {{"z", x}, {"1.weight", ones({2, 2})}, {"extra", x}};
  try {
    functional_call(m, state, FunctionalCallOptions().strict(true), x);
    CHECK(false);
  } catch (const KeyError& e) {
    const std::string text = e.what();
    const std::size_t unknown = text.find("unknown names \"extra\", \"z\"");
    const std::size_t missing = text.find("missing names \"0.bias\", \"0.weight\", \"1.bias\"");
    CHECK(unknown != text.npos);
    CHECK(missing != text.npos);
    CHECK(unknown < missing);
  }
  CHECK_SAME(m->parameters()[0].detach(), w0);
  CHECK(thread_state().views == nullptr);
}

TEST_CASE("functional_call: a typo, a missing submodule, a plain member are errors by default") {
  // PyTorch sets an unknown leaf name as an attribute, in silence.
  struct PlainImpl : nn::Module {
    PlainImpl() { inner = register_module("inner", nn::Linear(2, 2)); }
    Tensor forward(const Tensor& x) { return inner(x) * factor; }
    nn::Linear inner{nullptr};
    Tensor factor = ones(1);  // not registered
  };
  PlainImpl m;
  const Tensor x = ones({1, 2}), before = m.forward(x).detach();
  auto call = [&](const char* name) { return functional_call(m, {{name, ones({2, 2})}}, x); };
  CHECK_THROWS_SAYING(call("inner.wieght"), KeyError, "\"inner.wieght\"",
                      "did you mean \"inner.weight\"");
  CHECK_THROWS_SAYING(call("outer.weight"), KeyError, "\"outer.weight\"");
  CHECK_THROWS_SAYING(call("factor"), KeyError, "\"factor\"");
  CHECK_THROWS_SAYING(call("inner"), KeyError, "\"inner\"");
  CHECK_SAME(m.forward(x).detach(), before);
  // What is no tensor is refused by the compiler.
  static_assert(!std::is_constructible_v<std::pair<std::string, Tensor>, std::string, const char*>);
}

TEST_CASE("functional_call: three tied names, of which two are given") {
  Tied m = tied(0, 0);
  const Tensor x = vector({1, 1}), v = vector({2, 3});
  CHECK_VALUES(functional_call(m, {{"a", v}, {"c", v}}, x), 222, 333);
  CHECK_VALUES(functional_call(m, {{"b", v}, {"c", v}}, x), 222, 333);
  CHECK_THROWS_SAYING(functional_call(m, {{"a", v}, {"c", vector({0, 0})}}, x), ValueError, "\"a\"",
                      "\"c\"", "tied");
  CHECK_VALUES(functional_call(m, {{"a", v}, {"c", vector({0, 0})}},
                               FunctionalCallOptions().tie_weights(false), x) -
                   m->b.detach() * 10,
               2, 3);
}

TEST_CASE("functional_call: what forward assigns to a buffer reaches the caller's tensor") {
  // PyTorch loses it with two dicts, and under vmap.
  Counter m;
  const Tensor x = vector({4});
  TensorDict all = {{"w", vector({1})}, {"calls", vector({0})}, {"mean", vector({2})}};
  functional_call(m, all, x);
  CHECK_VALUES(all.at("mean"), 3);
  CHECK_VALUES(all.at("calls"), 1);
  TensorDict params = {{"w", vector({1})}},
             buffers = {{"calls", vector({0})}, {"mean", vector({2})}};
  functional_call(m, {params, buffers}, x);
  CHECK_VALUES(buffers.at("mean"), 3);
  for (std::optional<std::int64_t> chunk : {std::optional<std::int64_t>(), {2}}) {
    std::vector<Counter> models = {Counter(), Counter(), Counter()};
    auto s = stack_module_state(models);
    vmap(
        [&](const TensorDict& p, const TensorDict& b, const Tensor& v) {
          return functional_call(m, {p, b}, v);
        },
        0, 0, VmapOptions().chunk_size(chunk))(s.params, s.buffers, numbers({3, 1}));
    CHECK_SAME(s.buffers.at("mean"), numbers({3, 1}) * 0.5);
    CHECK_VALUES(s.buffers.at("calls"), 1, 1, 1);
  }
  CHECK_VALUES(m->mean, 0);
  CHECK_VALUES(m->calls, 0);
}

TEST_CASE("functional_call: BatchNorm updates the statistics given, or its own if none are") {
  nn::BatchNorm1d m(2);
  Tensor x = tensor({{0.f, 2.f}, {2.f, 4.f}});
  TensorDict state = m->state_dict();
  for (auto [name, value] : state) value = value.clone();
  functional_call(m, state, x);
  CHECK_CLOSE(state.at("running_mean"), tensor({0.1f, 0.3f}), 1e-6);
  CHECK_VALUES(m->running_mean, 0, 0);
  functional_call(m, TensorDict{}, x);
  CHECK_CLOSE(m->running_mean, tensor({0.1f, 0.3f}), 1e-6);
}

TEST_CASE("functional_call: a shared submodule keeps its tensors, also inside vjp of jvp") {
  // PyTorch leaves the caller's tensor, or a dead wrapper, in the module.
  struct TwoPathsImpl : nn::Module {
    TwoPathsImpl() {
      nn::Linear shared(1, 1);
      shared->to(kFloat64);
      left = register_module("left", shared);
      right = register_module("right", shared);
    }
    Tensor forward(const Tensor& x) { return left(x) * right(x); }
    nn::Linear left{nullptr}, right{nullptr};
  };
  TwoPathsImpl m;
  const Tensor w = m.left->weight.detach().clone(), x = ones({1, 1}, kFloat64);
  auto f = [&](const Tensor& v) {
    return functional_call(m, {{"left.weight", v}, {"left.bias", zeros(1, kFloat64)}}, x).sum();
  };
  auto along = [&](const Tensor& v) {
    return jvp(f, std::tuple(v), std::tuple(ones_like(v))).second;  // 2 v
  };
  auto [y, pull] = vjp(along, full({1, 1}, 3.0, kFloat64));
  CHECK_VALUES(y, 6);
  CHECK_VALUES(std::get<0>(pull(scalar(1))), 2);
  CHECK_SAME(m.left->weight.detach(), w);
  CHECK(m.left->weight.is_leaf());
  CHECK_CLOSE(m.forward(x).detach(), (w + m.left->bias.detach()).square(), 1e-14);
}

TEST_CASE("functional_call: given weights that are detached give an output without history") {
  nn::Linear m(2, 1);
  const Tensor x = ones({1, 2});
  TensorDict live = m->named_parameters(), detached;
  for (auto [name, value] : live) detached.insert(name, value.detach());
  CHECK(functional_call(m, live, x).requires_grad());
  CHECK_FALSE(functional_call(m, detached, x).requires_grad());
  functional_call(m, live, x).sum().backward();  // the module's own tensors, so its own gradients
  CHECK(m->weight.grad().defined());
}

// ---- vmap

TEST_CASE("vmap: a float result is an error that names the type") {
  Tensor x = numbers({3});
  CHECK_THROWS_SAYING(vmap([](const Tensor&) { return 1.5; })(x), ValueError, "out_dims", "double",
                      "not a tensor", "nullopt");
  CHECK_THROWS_SAYING(vmap([](const Tensor& v) { return std::pair(v, 3); })(x), ValueError,
                      "out_dims", "type int", "not a tensor");
  CHECK(vmap([](const Tensor& v) { return std::pair(v, 3); }, 0, {0, nullopt})(x).second == 3);
  CHECK(vmap([](const Tensor&) { return 1.5; }, 0, nullopt)(x) == 1.5);
}

TEST_CASE("vmap: a number is passed with in_dims nullopt, and is an error with an axis") {
  auto scale = [](const Tensor& v, double k) { return v * k; };
  Tensor x = numbers({3});
  CHECK_SAME(vmap(scale, {0, nullopt})(x, 2.0), x * 2);
  CHECK_THROWS_SAYING(vmap(scale, {0, 0})(x, 2.0), ValueError, "in_dims", "double", "nullopt");
}

TEST_CASE("vmap: different sizes are the same error in arguments, tuples and dicts") {
  Tensor two = numbers({2}), three = numbers({3});
  auto pair = [](const std::pair<Tensor, Tensor>& p) { return p.first + p.second; };
  auto dict = [](const TensorDict& d) { return d.at("a") + d.at("b"); };
  auto map = [](const std::map<std::string, Tensor>& d) { return d.at("a") + d.at("b"); };
  auto both = [](const Tensor& a, const Tensor& b) { return a + b; };
  CHECK_THROWS_SAYING(vmap(both)(two, three), ValueError, "one size", "2, 3");
  CHECK_THROWS_SAYING(vmap(pair)(std::pair(two, three)), ValueError, "one size", "2, 3");
  CHECK_THROWS_SAYING(vmap(dict)(TensorDict{{"a", two}, {"b", three}}), ValueError, "one size",
                      "2, 3");
  CHECK_THROWS_SAYING(vmap(map)(std::map<std::string, Tensor>{{"a", two}, {"b", three}}),
                      ValueError, "one size", "2, 3");
}

TEST_CASE("vmap: what is no axis is refused by the compiler; lists mirror lists") {
  // PyTorch takes True for axis 1 and stops somewhere else.
  static_assert(!std::is_constructible_v<Dims, bool>);
  static_assert(!std::is_constructible_v<Dims, double>);
  static_assert(!std::is_constructible_v<Dims, const char*>);
  auto f = [](const std::vector<Tensor>& v) { return v[0] * v[1]; };
  Tensor x = numbers({2, 3}), y = numbers({3, 2});
  CHECK_SAME(vmap(f, {{0, 1}})(std::vector<Tensor>{x, y}), x * y.t());
  CHECK_SAME(vmap(f, {{-2, -1}})(std::vector<Tensor>{x, y}), x * y.t());
  CHECK_THROWS_SAYING(vmap(f, {{3, 0}})(std::vector<Tensor>{x, y}), ValueError, "axis 3", "[2, 3]");
  CHECK_THROWS_SAYING(vmap(f, {{0, -3}})(std::vector<Tensor>{x, y}), ValueError, "axis -3",
                      "[3, 2]");
  CHECK_THROWS_SAYING(vmap(f, {{0, 0, 0}})(std::vector<Tensor>{x, y}), ValueError, "structure");
}

TEST_CASE("vmap: a condition on a mapped tensor does not compile, its value is refused") {
  // Data-dependent control flow is an error of two kinds in PyTorch, too.
  static_assert(!std::is_constructible_v<bool, Tensor>);
  static_assert(!std::is_convertible_v<Tensor, double>);
  auto item = [](const Tensor& v) { return v.item<bool>() ? v : -v; };
  CHECK_THROWS_SAYING(vmap(item)(numbers({3})), TransformError, "[item]", "inside vmap", "where()");
}

TEST_CASE("vmap: tensors of 64 axes, and 70 nested levels") {
  Sizes sizes(64, 1);
  sizes[0] = 2;
  sizes[63] = 3;
  Tensor y = vmap([](const Tensor& v) { return v * 2; }, 0, 2)(numbers({2, 3}).reshape(sizes));
  CHECK(y.size(2) == 2);
  CHECK(y.size(63) == 3);
  CHECK_SAME(y.reshape({2, 3}), numbers({2, 3}) * 2);
  std::function<Tensor(const Tensor&, int)> nest = [&](const Tensor& t, int levels) -> Tensor {
    if (levels == 0) return t + 1;
    return vmap([&](const Tensor& v) { return nest(v, levels - 1); })(t.unsqueeze(0)).squeeze(0);
  };
  CHECK_SAME(nest(vector({1, 2}), 70), vector({2, 3}));
}

TEST_CASE("vmap: a list of one out_dims for one tensor, and lists that do not fit") {
  Tensor x = numbers({2, 3});
  auto id = [](const Tensor& v) { return v; };
  auto two = [](const Tensor& v) { return std::pair(v, v * 2); };
  CHECK_SAME(vmap(id, 0, 1)(x), x.t());
  CHECK_THROWS_SAYING(vmap(id, 0, Dims(std::vector<Dims>{0, 0}))(x), ValueError, "out_dims",
                      "structure");
  CHECK_THROWS_SAYING(vmap(two, 0, Dims(std::vector<Dims>{0}))(x), ValueError, "out_dims",
                      "structure", "2");
  CHECK_THROWS_SAYING(vmap(two, 0, {0, 0, 0})(x), ValueError, "out_dims", "structure", "2");
}

TEST_CASE("vmap: three levels, each with axes of its own") {
  Tensor x = numbers({2, 3, 5}), y = numbers({5, 2, 3});
  auto mul = [](const Tensor& a, const Tensor& b) { return a * b; };
  Tensor r = vmap(vmap(vmap(mul), {1, 0}), {1, 2})(x, y);
  CHECK_SAME(r, x.permute({1, 2, 0}) * y.permute({2, 0, 1}));
}

TEST_CASE("vmap: zero examples give empty results for every op, in every place") {
  Tensor none = zeros({0, 3}, kFloat64), c = numbers({4});
  auto g = [](const Tensor& a, const Tensor& b) {
    return outer(a, b).cumsum(0).softmax(1).matmul(ones({4, 2}, kFloat64)).flip(0).sum(0);
  };
  CHECK(vmap(g, {0, nullopt})(none, c).sizes() == Sizes{0, 2});
  CHECK(vmap(g, {nullopt, 0})(numbers({3}), zeros({0, 4}, kFloat64)).sizes() == Sizes{0, 2});
  auto nested = vmap([&](const Tensor& a) { return vmap(g, {0, nullopt})(a, c); });
  CHECK(nested(zeros({0, 2, 3}, kFloat64)).sizes() == Sizes{0, 2, 2});
  CHECK(nested(zeros({2, 0, 3}, kFloat64)).sizes() == Sizes{2, 0, 2});
  CHECK(vmap(grad([](const Tensor& a) { return a.norm(); }))(none).sizes() == Sizes{0, 3});
}

TEST_CASE(
    "vmap: in-place on a mapped argument reaches the caller; on an unmapped one never mixes") {
  Tensor x = numbers({3, 2}), before = x.clone();
  Tensor r = vmap([](const Tensor& v) { return v.mul_(2); })(x);
  CHECK_SAME(x, before * 2);
  CHECK_SAME(r, x);
  // self is the same for all examples, the operand is not: in every order of two levels.
  Tensor shared = zeros(2, kFloat64), y = numbers({3, 2}), z = numbers({4, 2});
  auto add = [](const Tensor& s, const Tensor& v) { return s.add_(v); };
  CHECK_THROWS_SAYING(vmap(add, {nullopt, 0})(shared, y), TransformError, "in-place", "map");
  CHECK_THROWS_SAYING(vmap([&](const Tensor& s) {
                        return vmap(add, {nullopt, 0})(s, z);
                      })(numbers({3, 2})),
                      TransformError, "in-place", "not mapped");
  CHECK_SAME(vmap([](const Tensor& v) {  // a fresh tensor takes it, and its rows with it
               Tensor fresh = zeros({4, 2}, kFloat64);
               vmap([&](const Tensor& s) { return s.add_(v); })(fresh);
               return fresh;
             })(y),
             y.unsqueeze(1).expand({3, 4, 2}));
  CHECK_VALUES(shared, 0, 0);
}

TEST_CASE("vmap: chunks with a result that is not mapped, and with none to run") {
  // PyTorch cannot join the former and has no chunk for the latter.
  Tensor x = numbers({5, 2}), c = numbers({3});
  auto f = [&](const Tensor& v) { return std::pair(v.sum(), c * 2); };
  auto [a, b] = vmap(f, 0, {0, nullopt}, VmapOptions().chunk_size(2))(x);
  CHECK_SAME(a, x.sum(1));
  CHECK_SAME(b, c * 2);
  CHECK(vmap(f, 0, {0, nullopt}, VmapOptions().chunk_size(2))(zeros({0, 2}, kFloat64))
            .first.sizes() == Sizes{0});
}

TEST_CASE(
    "vmap: a value that leaked into the next vmap of one size is an error, not a mapped value") {
  Tensor leaked;
  auto leak = [&](const Tensor& v) {
    leaked = v * 2;
    return v;
  };
  auto use = [&](const Tensor& v) { return v + leaked; };
  Tensor x = numbers({3});
  vmap(leak)(x);
  CHECK_THROWS_SAYING(vmap(use)(x), TransformError, "escaped", "vmap", "return it");
  // Between two inner ones of one outer vmap.
  auto siblings = [&](const Tensor& v) {
    vmap(leak)(v);
    return vmap(use)(v);
  };
  CHECK_THROWS_SAYING(vmap(siblings)(numbers({2, 3})), TransformError, "escaped");
  // From the outer level to the inner one it is no leak.
  auto outer_value = [&](const Tensor& v) {
    Tensor t = v * 2;
    return vmap([&](const Tensor& w) { return w + t.sum(); })(v);
  };
  CHECK_SAME(vmap(outer_value)(numbers({2, 3})),
             numbers({2, 3}) + numbers({2, 3}).sum(1, true) * 2);
}

TEST_CASE("vmap: a result that is the same for all may be written, at every level and place") {
  // PyTorch gives a view with stride 0, and once gave a wrong shape for out_dims = -1.
  auto same = [](const Tensor&) { return ones(2, kFloat64); };
  auto f = [&](const Tensor& v) { return vmap(same, 0, -1)(v); };
  Tensor y = vmap(f, 0, -1)(numbers({3, 4}));
  CHECK(y.sizes() == Sizes{2, 4, 3});
  y.select(2, 0).select(1, 0).zero_();
  CHECK(y.sum().item<double>() == 24 - 2);
}

TEST_CASE("vmap: indexing by a mapped 0-d index is an op, not a read") {
  Tensor x = numbers({4, 2}), i = tensor({3, 0, 1});
  CHECK_SAME(vmap([&](const Tensor& k) { return x.index({k}); })(i), x.index({i}));
  CHECK_SAME(vmap([](const Tensor& v, const Tensor& k) { return v.index({k}); })(x.t().contiguous(),
                                                                                 tensor({2, 1})),
             stack({x[2][0], x[1][1]}));
}

TEST_CASE("vmap: a mask that is not mapped selects; a mapped one is refused with advice") {
  Tensor x = numbers({3, 4}), mask = tensor({true, false, true, true});
  Tensor picked = vmap([&](const Tensor& v) { return masked_select(v, mask); })(x);
  CHECK_SAME(picked, x.index_select(1, tensor({0, 2, 3})));
  CHECK_SAME(vmap([&](const Tensor& v) { return v.index({mask}); })(x), picked);
  CHECK_THROWS_SAYING(vmap([](const Tensor& v) { return masked_select(v, v > 0); })(x),
                      TransformError, "inside vmap", "where()");
  CHECK_THROWS_SAYING(vmap([](const Tensor& v) { return equal(v, v) ? v : -v; })(x), TransformError,
                      "vmap");
  CHECK_NOTHROW(vmap([&](const Tensor& v) { return equal(mask, mask) ? v : -v; })(x));
}

TEST_CASE("vmap: values that are the same for all examples can be read") {
  Tensor x = numbers({3, 2}), c = tensor({2, 3});
  auto f = [&](const Tensor& v, const Tensor& n) {
    const int times = c.max().item<int>() + n.item<int>();  // captured, and not mapped
    CHECK(c.sum().to_vector<int>() == std::vector<int>{5});
    Tensor t = zeros(1, kFloat64), part = t[0];
    CHECK(t.item<double>() == 0);
    CHECK((t + c.sum()).item<double>() == 5);
    t.add_(v[0]);  // from here on t differs per example, and so does its view
    CHECK_THROWS_SAYING(t.item<double>(), TransformError, "inside vmap");
    CHECK_THROWS_SAYING(part.item<double>(), TransformError, "inside vmap");
    return v * times;
  };
  CHECK_SAME(vmap(f, {0, nullopt})(x, tensor(1)), x * 4);
}

TEST_CASE("vmap: in-place into a fresh tensor, whoever made it") {
  // PyTorch's most asked question: zeros() is not mapped, so writing to it is an error there.
  auto f = [](const Tensor& v) {
    Tensor a = zeros(2, kFloat64), b = empty(2, kFloat64), c = zeros_like(v), d = v.new_zeros(2);
    for (const Tensor& t : {a, b, c, d}) t.copy_(v);
    Tensor e = a + b + c + d;
    Tensor rows = zeros({2, 2}, kFloat64);
    for (int i = 0; i < 2; ++i) rows[i] += v;
    return e + rows.sum(0);
  };
  Tensor x = numbers({3, 2});
  CHECK_SAME(vmap(f)(x), x * 6);
  CHECK_SAME(vmap(grad([&](const Tensor& v) { return f(v).sum(); }))(x),
             full({3, 2}, 6.0, kFloat64));
}

TEST_CASE("vmap: promotion counts the axes of one example") {
  Tensor d = numbers({3}), f = ones({3, 2});
  CHECK(vmap([](const Tensor& a, const Tensor& b) { return a * b; })(d, f).dtype() == kFloat32);
  CHECK((d.unsqueeze(1) * f).dtype() == kFloat64);
}

// ---- random numbers

TEST_CASE("randomness: same with parameters that differ uses the same numbers for all") {
  // PyTorch refuses bernoulli, normal and multinomial with mapped parameters here.
  Tensor p = vector({0.2, 0.5, 0.9}).unsqueeze(1).expand({3, 2000}).clone();
  manual_seed(7);
  Tensor heads =
      vmap([](const Tensor& q) { return bernoulli(q); }, 0, 0, options(Randomness::same))(p);
  CHECK((heads[0] <= heads[1]).all().item<bool>());  // one uniform number decides for all members
  CHECK((heads[1] <= heads[2]).all().item<bool>());
  for (int i = 0; i < 3; ++i)
    CHECK(heads[i].mean().item<double>() == doctest::Approx(p[i][0].item<double>()).epsilon(0.12));
  Tensor mean = vector({0, 10, 20}).unsqueeze(1).expand({3, 4}).clone();
  Tensor z = vmap([](const Tensor& m) { return normal(m, ones_like(m)); }, 0, 0,
                  options(Randomness::same))(mean);
  CHECK_CLOSE(z - mean, (z - mean)[0].expand({3, 4}), 1e-12);
  Tensor weights = tensor({{1.f, 0.f, 0.f}, {0.f, 0.f, 1.f}});
  Tensor drawn = vmap([](const Tensor& w) { return multinomial(w, 5, true); }, 0, 0,
                      options(Randomness::same))(weights);
  CHECK_SAME(drawn, tensor({{0, 0, 0, 0, 0}, {2, 2, 2, 2, 2}}));
}

TEST_CASE("randomness: in-place draws into mapped, fresh and captured tensors") {
  Tensor x = zeros({3, 8});
  auto mapped = [](const Tensor& v) { return v.clone().normal_(); };
  auto fresh = [](const Tensor& v) { return zeros(8).normal_() + v; };
  for (auto f : {std::function<Tensor(const Tensor&)>(mapped),
                 std::function<Tensor(const Tensor&)>(fresh)}) {
    Tensor same = vmap(f, 0, 0, options(Randomness::same))(x);
    CHECK_SAME(same[0], same[2]);
    Tensor different = vmap(f, 0, 0, options(Randomness::different))(x);
    CHECK_FALSE(tutti_test::same(different[0], different[1]));
    CHECK_THROWS_SAYING(vmap(f)(x), TransformError, "random", "Randomness::different");
  }
  Tensor captured = zeros(8);
  auto write = [&](const Tensor& v) { return captured.normal_() + v; };
  CHECK_THROWS_SAYING(vmap(write, 0, 0, options(Randomness::different))(x), TransformError,
                      "captured", "differs per example");
  CHECK_SAME(captured, zeros(8));
  vmap(write, 0, 0, options(Randomness::same))(x);
  CHECK_FALSE(tutti_test::same(captured, zeros(8)));
}

TEST_CASE("randomness: the mode ends with its vmap, and holds for grads inside it") {
  Tensor x = ones({3, 4});
  auto outer = [&](const Tensor& v) {
    Tensor inside =
        vmap([](const Tensor& r) { return r * randn(4); }, 0, 0, options(Randomness::different))(v);
    return (inside.sum() * randn({})).sum();  // drawn by the grad outside, no mode needed
  };
  CHECK_NOTHROW(grad(outer)(x));
  auto noisy = [](const Tensor& v) { return (v * randn(4)).sum(); };
  Tensor g = vmap(grad(noisy), 0, 0, options(Randomness::different))(x);
  CHECK_FALSE(tutti_test::same(g[0], g[1]));
  Tensor s = vmap(grad(noisy), 0, 0, options(Randomness::same))(x);
  CHECK_SAME(s[0], s[1]);
  CHECK_THROWS_SAYING(vmap(grad(noisy))(x), TransformError, "random", "vmap");
}

TEST_CASE("randomness: dropout masks per member, shared masks, and none in evaluation") {
  nn::Dropout drop(0.5);
  Tensor x = ones({4, 1000});
  auto f = [&](const Tensor& v) { return drop(v); };
  Tensor different = vmap(f, 0, 0, options(Randomness::different))(x);
  Tensor same = vmap(f, 0, 0, options(Randomness::same))(x);
  for (int i = 1; i < 4; ++i) {
    CHECK_FALSE(tutti_test::same(different[i], different[0]));
    CHECK_SAME(same[i], same[0]);
  }
  for (int i = 0; i < 4; ++i)
    CHECK((different[i] == 0).sum().item<double>() == doctest::Approx(500).epsilon(0.15));
  CHECK_THROWS_SAYING(vmap(f)(x), TransformError, "random");
  drop->eval();
  CHECK_SAME(vmap(f)(x), x);
}

TEST_CASE("randomness: chunks draw what one call draws, each member its own") {
  // PyTorch draws other numbers for every chunk_size.
  auto run = [](std::optional<std::int64_t> chunk) {
    manual_seed(5);
    return vmap([](const Tensor& v) { return v + rand(3); }, 0, 0,
                options(Randomness::different).chunk_size(chunk))(zeros(6));
  };
  Tensor whole = run(nullopt);
  std::set<std::vector<double>> rows;
  for (int i = 0; i < 6; ++i) rows.insert(whole[i].to_vector<double>());
  CHECK(rows.size() == 6);
  for (std::int64_t chunk : {1, 2, 4}) CHECK_SAME(run(chunk), whole);
}

// ---- grad

TEST_CASE("grad: an integer result is an error, as it is in vjp") {
  // PyTorch's grad gives zeros.
  auto index = [](const Tensor& x) { return x.argmax(); };
  CHECK_THROWS_SAYING(grad(index)(vector({1, 2})), TypeError, "floating", "int64");
  CHECK_THROWS_SAYING(vjp(index, vector({1, 2})), TypeError, "floating", "int64");
  CHECK_THROWS_SAYING(grad([](const Tensor& x) { return x * 2; })(tensor(1)), TypeError, "int64");
}

TEST_CASE("grad: in-place on views of a clone, and on the base, equal ordinary autograd") {
  auto view_first = [](const Tensor& x) {
    Tensor y = x.clone(), part = y[0];
    part.mul_(x[1]);
    return (y * y).sum();
  };
  auto base_after_view = [](const Tensor& x) {
    Tensor y = x.clone(), part = y.select(1, 0);
    y.mul_(x);
    return (part * part).sum();
  };
  auto chain = [](const Tensor& x) {
    Tensor y = x * 1, row = y[1], cell = row[0];
    cell.copy_(x[0][1]);
    row.add_(x[0]);
    y.t()[1].exp_();
    return (y * cell).sum();
  };
  const Tensor x = numbers({2, 2}) + 0.1;
  auto check = [&](auto f) {
    Tensor leaf = x.clone().requires_grad_();
    f(leaf).backward();
    CHECK_CLOSE(grad(f)(x), leaf.grad(), 1e-14);
    CHECK_CLOSE(vmap(grad(f))(stack({x, x * 2}))[0], leaf.grad(), 1e-14);
  };
  check(view_first);
  check(base_after_view);
  check(chain);
}

TEST_CASE("grad: ordinary autograd's calls inside a transform are errors that name the call") {
  using Act = std::function<void(const Tensor&)>;
  const std::vector<std::pair<std::string, Act>> calls = {
      {"requires_grad_", [](const Tensor& v) { (v * 1).requires_grad_(); }},
      {"retain_grad", [](const Tensor& v) { (v * 1).retain_grad(); }},
      {"backward", [](const Tensor& v) { v.sum().backward(); }},
      {"autograd::grad", [](const Tensor& v) { autograd::grad({v.sum()}, {v}); }},
  };
  Tensor x = numbers({2, 3});
  for (const auto& call : calls) {
    const std::string word = "[" + call.first + "]";
    CAPTURE(word);
    auto f = [&](const Tensor& v) {
      call.second(v);
      return v.sum();
    };
    auto g = [&](const Tensor& v) { return grad(f)(v).sum(); };
    CHECK_THROWS_SAYING(vmap(f)(x), TransformError, word, "inside", "func::");
    CHECK_THROWS_SAYING(grad(f)(x), TransformError, word, "inside", "func::");
    CHECK_THROWS_SAYING(vmap(grad(f))(x), TransformError, word, "inside");
    CHECK_THROWS_SAYING(grad(g)(x), TransformError, word, "inside");
    CHECK_THROWS_SAYING(jvp(f, std::tuple(x), std::tuple(x)), TransformError, word, "inside");
    CHECK(thread_state().current == nullptr);
  }
}

TEST_CASE("grad: per-sample gradients of an embedding with a small net equal the loop") {
  manual_seed(4);
  struct TextImpl : nn::Module {
    TextImpl() {
      words = register_module("words", nn::Embedding(11, 6));
      hidden = register_module("hidden", nn::Linear(6, 5));
      out = register_module("out", nn::Linear(5, 3));
    }
    Tensor forward(const Tensor& ids) { return out(hidden(words(ids).mean(0)).relu()); }
    nn::Embedding words{nullptr};
    nn::Linear hidden{nullptr}, out{nullptr};
  };
  TextImpl net;
  net.to(kFloat64);
  TensorDict p = net.state_dict();
  Tensor ids = randint(11, {5, 7}), y = randint(3, {5});
  auto loss = [&](const TensorDict& q, const Tensor& i, const Tensor& t) {
    return nn::functional::cross_entropy(functional_call(net, q, i), t);
  };
  TensorDict g = vmap(grad(loss), {nullopt, 0, 0})(p, ids, y);
  for (std::int64_t k = 0; k < 5; ++k) {
    net.zero_grad();
    nn::functional::cross_entropy(net.forward(ids[k]), y[k]).backward();
    for (auto [name, value] : net.named_parameters())
      CHECK_CLOSE(g.at(name)[k], value.grad(), 1e-12);
  }
}

TEST_CASE("grad: BatchNorm in evaluation, whatever of weights, statistics and data is mapped") {
  manual_seed(6);
  nn::BatchNorm1d norm(3);
  norm->eval();
  auto with = [&](std::int64_t m) {
    TensorDict p = {{"weight", rand({m, 3})}, {"bias", rand({m, 3})}};
    TensorDict b = {{"running_mean", rand({m, 3})}, {"running_var", rand({m, 3}) + 0.5}};
    return std::tuple(p, b, randn({m, 4, 3}));
  };
  auto [params, buffers, data] = with(2);
  auto at = [](const TensorDict& d, std::int64_t i) {
    return tree::map(d, [i](const Tensor& t) { return t[i]; });
  };
  auto f = [&](const TensorDict& p, const TensorDict& b, const Tensor& x) {
    return functional_call(norm, {p, b}, x).square().mean();
  };
  for (int which = 1; which < 8; ++which) {
    const bool by_p = which & 1, by_b = which & 2, by_x = which & 4;
    const TensorDict p = by_p ? params : at(params, 0), b = by_b ? buffers : at(buffers, 0);
    const Tensor x = by_x ? data : data[0];
    auto axis = [](bool mapped) { return mapped ? Dims(0) : Dims(nullopt); };
    TensorDict g = vmap(grad(f), {axis(by_p), axis(by_b), axis(by_x)})(p, b, x);
    for (std::int64_t i = 0; i < 2; ++i) {
      TensorDict one = grad(f)(by_p ? at(p, i) : p, by_b ? at(b, i) : b, by_x ? x[i] : x);
      for (auto [name, value] : one) CHECK_CLOSE(g.at(name)[i], value, 1e-5);
    }
  }
}

TEST_CASE("grad: a write to an argument that is not differentiated is part of the function") {
  auto f = [](const Tensor& x, const Tensor& y) {
    y.copy_(x);
    return (y * y).sum();
  };
  Tensor y = zeros(2, kFloat64);
  CHECK_VALUES(grad(f)(vector({1, 3}), y), 2, 6);
  CHECK_VALUES(y, 1, 3);
}

TEST_CASE("grad: an outer no_grad is ignored by grad and honoured for what it returns") {
  Tensor leaf = scalar(3).requires_grad_();
  auto square = [](const Tensor& x) { return x * x; };
  NoGradGuard guard;
  CHECK_VALUES(grad(square)(leaf), 6);
  CHECK_FALSE(grad(square)(leaf).requires_grad());
  auto [out, tangent] = jvp(square, std::tuple(leaf), std::tuple(scalar(1)));
  CHECK_VALUES(tangent, 6);
  CHECK_FALSE(tangent.requires_grad());
  auto [y, pull] = vjp(square, leaf);
  CHECK_VALUES(std::get<0>(pull(scalar(1))), 6);
}

TEST_CASE("grad: a value kept from a finished grad is an error, not a stale number") {
  // PyTorch lets it live on as a plain value that still says requires_grad.
  Tensor kept;
  grad([&](const Tensor& x) {
    kept = x * x;
    return kept;
  })(scalar(3));
  CHECK_THROWS_SAYING(kept + 1, TransformError, "escaped from a finished grad", "return it");
  CHECK_THROWS_SAYING(kept.item<double>(), TransformError, "escaped from a finished grad");
}

// ---- vjp and jvp

TEST_CASE("vjp: cotangents are matched by name, and must have the output's structure") {
  auto f = [](const Tensor& x) { return TensorDict{{"double", x * 2}, {"square", x * x}}; };
  auto made = vjp(f, vector({1, 3}));
  auto pull = [&](auto c) { return std::get<0>(made.second(c)); };
  Tensor one = ones(2, kFloat64), none = zeros(2, kFloat64);
  CHECK_VALUES(pull(TensorDict{{"double", one}, {"square", none}}), 2, 2);
  CHECK_VALUES(pull(TensorDict{{"square", none}, {"double", one}}), 2, 2);  // another order
  CHECK_VALUES(pull(std::map<std::string, Tensor>{{"square", one}, {"double", none}}), 2, 6);
  CHECK_THROWS_SAYING(pull(TensorDict{{"double", one}, {"cube", one}}), ValueError, "cotangents",
                      "\"cube\"");
  CHECK_THROWS_SAYING(pull(TensorDict{{"double", one}}), ValueError, "cotangents", "\"square\"");
  CHECK_THROWS_SAYING(pull(one), ValueError, "2 cotangent", "got 1");
  CHECK_THROWS_SAYING(pull(TensorDict{{"double", one}, {"square", ones(3, kFloat64)}}), ShapeError,
                      "[2]", "[3]");
  auto lists = vjp(
      [](const Tensor& x) {
        return std::pair(std::vector<Tensor>{x, x * 2}, x * 3);
      },
      vector({1}));
  auto g = lists.second(std::pair(std::vector<Tensor>{vector({1}), vector({1})}, vector({1})));
  CHECK_VALUES(std::get<0>(g), 6);
  CHECK_THROWS_SAYING(lists.second(std::pair(std::vector<Tensor>{vector({1})}, vector({1}))),
                      ValueError, "structure", "2", "1");
}

TEST_CASE("vjp: a function that returns nothing, or an undefined tensor, is an error") {
  CHECK_THROWS_SAYING(vjp([](const Tensor&) { return std::vector<Tensor>(); }, scalar(1)),
                      ValueError, "returns tensors", "none");
  CHECK_THROWS_SAYING(vjp([](const Tensor&) { return Tensor(); }, scalar(1)), ValueError,
                      "undefined");
}

TEST_CASE("vjp: the pullback may be called many times, mapped, and differentiated") {
  auto made = vjp([](const Tensor& x) { return x.sin(); }, vector({0, 1}));
  auto pull = [&](const Tensor& c) { return std::get<0>(made.second(c)); };
  Tensor first = pull(ones(2, kFloat64));
  CHECK_SAME(pull(ones(2, kFloat64)), first);
  CHECK_SAME(vmap(pull)(eye(2, kFloat64)), eye(2, kFloat64) * first);
  CHECK_SAME(vmap(pull)(numbers({3, 2})), numbers({3, 2}) * first);
}

TEST_CASE("jvp: tangents are matched by name, and must have the primals' structure") {
  auto f = [](const TensorDict& d) { return d.at("a") * d.at("b"); };
  TensorDict x = {{"a", scalar(2)}, {"b", scalar(5)}};
  auto along = [&](const TensorDict& t) { return jvp(f, args(x), args(t)).second; };
  CHECK_VALUES(along({{"a", scalar(1)}, {"b", scalar(0)}}), 5);
  CHECK_VALUES(along({{"b", scalar(0)}, {"a", scalar(1)}}), 5);  // another order
  CHECK_THROWS_SAYING(along({{"a", scalar(1)}}), ValueError, "tangents", "\"b\"");
  CHECK_THROWS_SAYING(along({{"a", scalar(1)}, {"b", scalar(1)}, {"c", scalar(1)}}), ValueError,
                      "tangents", "\"c\"");
  auto id = [](const Tensor& v) { return v * 1; };
  CHECK_THROWS_SAYING(jvp(id, args(ones(2)), args(ones(2, kFloat64))), TypeError, "float32",
                      "float64");  // PyTorch gives a float64 tangent to a float32 value
  CHECK_THROWS_SAYING(jvp([](int n) { return ones(n); }, args(2), args(2)), ValueError,
                      "at least one tensor");
  CHECK_THROWS_SAYING(jvp([](const Tensor&) { return 3; }, args(ones(2)), args(ones(2))),
                      ValueError, "returns tensors");
}
