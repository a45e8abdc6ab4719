// members_last: the layout, and that training comes to the same with it, whichever way steps run.
#include <array>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include <tutti/core/kernels/isa.h>
#include <tutti/core/parallel.h>
#include <tutti/func/graph.h>
#include <tutti/tutti.h>

#include "test.h"

using namespace tutti;
using tutti::detail::Lanes;

namespace {

using Make = std::function<std::unique_ptr<optim::Optimizer>(const TensorDict&)>;
struct Way {
  std::string name;
  Make make;
};

template <class O, class Options>
Way way(std::string name, Options options) {
  return {std::move(name), [=](const TensorDict& p) { return std::make_unique<O>(p, options); }};
}

const std::vector<Way>& optimizers() {
  using namespace optim;
  static const std::vector<Way> all = {
      way<SGD>("sgd", SGDOptions(0.1).weight_decay(0.01)),
      way<SGD>("sgd momentum", SGDOptions(0.1).momentum(0.9).nesterov(true)),
      way<Adam>("adam", AdamOptions(1e-2).weight_decay(0.1)),
      way<Adam>("adam amsgrad", AdamOptions(1e-2).amsgrad(true)),
      way<AdamW>("adamw", AdamWOptions(1e-2).weight_decay(0.1)),
      way<RMSprop>("rmsprop", RMSpropOptions(1e-3).centered(true).momentum(0.9)),
      way<Adagrad>("adagrad", AdagradOptions(1e-2)),
  };
  return all;
}

/// A stack of perceptrons 5-hidden-7-out, and its step.
struct Training {
  Training(std::int64_t members, std::int64_t hidden, std::int64_t out, DType dtype,
           bool members_last, const Make& make) {
    manual_seed(3);
    std::vector<nn::Sequential> nets;
    for (std::int64_t i = 0; i < members; ++i) {
      nets.push_back(nn::Sequential(nn::Linear(5, hidden), nn::ReLU(), nn::Linear(hidden, 7),
                                    nn::Tanh(), nn::Linear(7, out)));
      nets.back()->to(dtype);
    }
    params = func::stack_module_state(nets).params;
    if (members_last) params = func::members_last(params);
    optimizer = make(params);
    const auto loss = [net = nets[0]](const TensorDict& p, const Tensor& x, const Tensor& y) {
      return mse_loss(func::functional_call(net, p, x), y);
    };
    const auto gradients = func::vmap(func::grad_and_value(loss), {0, std::nullopt, 0});
    step = [gradients, o = optimizer](const TensorDict& p, const Tensor& x, const Tensor& y) {
      auto [grads, losses] = gradients(p, x, y);
      o->step(grads);
      return losses;
    };
    this->out = out;
    this->members = members;
    this->dtype = dtype;
  }
  void run(int steps,
           const std::function<Tensor(const TensorDict&, const Tensor&, const Tensor&)>& f,
           std::uint64_t seed = 9) {
    const NoGradGuard guard;
    manual_seed(seed);
    for (int i = 0; i < steps; ++i)
      f(params, randn({batch, 5}).to(dtype), randn({members, batch, out}).to(dtype));
  }
  std::vector<double> values() const {
    std::vector<double> all;
    for (const auto& [name, p] : params)
      for (const double v : p.to(kFloat64).to_vector<double>()) all.push_back(v);
    for (const auto& [name, s] : optimizer->state_dict())
      for (const double v : s.to(kFloat64).to_vector<double>()) all.push_back(v);
    return all;
  }

  TensorDict params;
  std::shared_ptr<optim::Optimizer> optimizer;
  std::function<Tensor(const TensorDict&, const Tensor&, const Tensor&)> step;
  std::int64_t members, out, batch = 6;
  DType dtype;
};

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    most = std::max(most, std::abs(a[i] - b[i]) / (1 + std::abs(a[i])));
  return most;
}

/// Gives back what a test changes.
struct Restore {
  kernels::Isa isa = kernels::isa();
  int threads = num_threads();
  ~Restore() {
    kernels::set_isa(isa);
    set_num_threads(threads);
    tutti::detail::set_lanes(Lanes::automatic);
  }
};

int count(const std::string& text, const std::string& what) {
  int n = 0;
  for (std::size_t at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("members last: the layout") {
  for (const DType dtype : {kFloat32, kFloat64, kBFloat16})
    for (const std::int64_t members : {1, 3, 16, 32, 100}) {
      const Tensor x = randn({members, 4, 3}).to(dtype).requires_grad_();
      const Tensor y = func::members_last(x);
      CHECK(y.sizes() == x.sizes());
      CHECK(y.dtype() == dtype);
      CHECK(y.is_leaf());
      CHECK(y.requires_grad());
      CHECK(!y.is_same(x));
      CHECK((y == x).all().item<bool>());
      const std::int64_t pitch = y.stride(2), line = 64 / size_of(dtype);
      CHECK(y.stride(0) == 1);
      CHECK(y.stride(1) == 3 * pitch);
      CHECK(pitch >= members);
      CHECK(pitch % (2 * line) == line);  // an odd number of cache lines
      y.detach().zero_();
      CHECK(!(x == 0).all().item<bool>());
    }
  const Tensor plain = func::members_last(arange(6).reshape({6}));
  CHECK(plain.is_contiguous());
  CHECK(!func::members_last(zeros({3, 2})).requires_grad());
  CHECK(func::members_last(zeros({0, 2})).sizes() == IntArrayRef({0, 2}));
  CHECK(func::members_last(zeros({4, 0, 2})).sizes() == IntArrayRef({4, 0, 2}));
  CHECK(func::members_last(zeros({4, 1})).stride(1) == 1);  // one number each: as it was
  const TensorDict both = func::members_last(TensorDict{{"b", ones({2, 2})}, {"a", ones({2})}});
  CHECK(both.keys() == std::vector<std::string>{"b", "a"});
}

TEST_CASE("members last: what is refused") {
  CHECK_THROWS_SAYING(func::members_last(Tensor()), ValueError, "members_last", "undefined");
  CHECK_THROWS_SAYING(func::members_last(zeros({})), ShapeError, "members_last", "axis of members",
                      "stack");
  CHECK_THROWS_SAYING(
      func::vmap([](const Tensor& x) { return func::members_last(x); })(zeros({2, 3, 3})),
      TransformError, "members_last", "transform");
  CHECK_THROWS_SAYING(func::members_last(zeros({2, 2}, TensorOptions().device(kMeta))), DeviceError,
                      "members_last", "CPU");
}

TEST_CASE("members last: training comes to the same, eager and compiled") {
  const Restore restore;
  for (const Way& w : optimizers())
    for (const DType dtype : {kFloat32, kFloat64})
      for (const auto& sizes : std::vector<std::array<std::int64_t, 2>>{
               {1, 6}, {5, 6}, {16, 6}, {16, 1}, {37, 6}, {37, 1}, {130, 6}, {130, 1}}) {
        const std::int64_t members = sizes[0], batch = sizes[1];
        CAPTURE(w.name);
        CAPTURE(members);
        CAPTURE(batch);
        Training expected(members, 6, 1, dtype, false, w.make);
        expected.batch = batch;
        expected.run(4, expected.step);
        const double bound = dtype == kFloat64 ? 1e-11 : 2e-3;
        Training eager(members, 6, 1, dtype, true, w.make);
        eager.batch = batch;
        eager.run(4, eager.step);
        CHECK(largest_difference(eager.values(), expected.values()) < bound);
        for (const Lanes lanes : {Lanes::automatic, Lanes::never, Lanes::always}) {
          tutti::detail::set_lanes(lanes);
          Training compiled(members, 6, 1, dtype, true, w.make);
          compiled.batch = batch;
          const auto step = func::compile(compiled.step);
          compiled.run(4, step);
          CHECK(largest_difference(compiled.values(), expected.values()) < bound);
          CHECK(compiled.params.at("0.weight").stride(0) == 1);
          tutti::detail::set_lanes(Lanes::automatic);
        }
      }
}

TEST_CASE("members last: parameters and state are not copied") {
  const Restore restore;
  for (const kernels::Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    CAPTURE(std::string(kernels::name(isa)));
    Training t(70, 6, 2, kFloat32, true, optimizers()[2].make);
    const auto step = func::compile(t.step);
    t.run(2, step);
    const std::string text = step.text();
    const bool lanes = isa >= kernels::Isa::avx2;
    CHECK((text.find("lane_matmul") != text.npos) == lanes);
    if (!lanes) continue;
    CAPTURE(text);
    CHECK(count(text, "optimizer_step(") == 6);
    CHECK(count(text, "lane_matmul>optimizer_step(") == 3);  // gradients of weights stay in L1
    CHECK(count(text, "clone(") == 1);                       // the targets, which lie in rows
  }
}

TEST_CASE("members last: gradients that are needed besides the step") {
  const Restore restore;
  tutti::detail::set_lanes(Lanes::always);
  const NoGradGuard guard;
  for (const bool compiled : {false, true}) {
    const auto loss = [net = nn::Linear(5, 3)](const TensorDict& p, const Tensor& x) {
      return func::functional_call(net, p, x).square().sum();
    };
    TensorDict params =
        func::members_last(TensorDict{{"weight", randn({40, 3, 5})}, {"bias", randn({40, 3})}});
    const TensorDict before{{"weight", params.at("weight").clone()},
                            {"bias", params.at("bias").clone()}};
    optim::SGD sgd(params, optim::SGDOptions(0.5));
    const auto f = [&](const TensorDict& p, const Tensor& x) {
      const TensorDict grads = func::vmap(func::grad(loss), {0, std::nullopt})(p, x);
      sgd.step(grads);
      return std::tuple(grads.at("weight"), p.at("weight") * 2);
    };
    const Tensor x = randn({4, 5});
    Tensor grad, twice;
    if (compiled)
      std::tie(grad, twice) = func::compile(f)(params, x);
    else
      std::tie(grad, twice) = f(params, x);
    const Tensor exact = func::vmap(func::grad(loss), {0, std::nullopt})(before, x).at("weight");
    CHECK((grad - exact).abs().max().item<double>() < 1e-4);
    const Tensor after = before.at("weight") - exact * 0.5;
    CHECK((params.at("weight") - after).abs().max().item<double>() < 1e-4);
    CHECK((twice - after * 2).abs().max().item<double>() < 1e-4);
  }
}

TEST_CASE("members last: the same bits for any number of threads") {
  const Restore restore;
  std::vector<std::vector<double>> results;
  for (const int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    Training t(300, 6, 2, kFloat32, true, optimizers()[3].make);
    const auto step = func::compile(t.step);
    t.run(3, step);
    results.push_back(t.values());
  }
  for (const auto& r : results) CHECK(r == results[0]);
}

TEST_CASE("members last: wide layers, and values of members' own") {
  const Restore restore;
  const auto rates = [](const TensorDict& p) {
    std::vector<double> lr;
    for (std::int64_t m = 0; m < p.at("0.weight").size(0); ++m)
      lr.push_back(1e-3 * static_cast<double>(m % 5));
    return std::make_unique<optim::Adam>(p, optim::AdamOptions(lr));
  };
  for (const Make& make : {Make(rates), optimizers()[2].make})
    for (const std::int64_t hidden : {6, 70}) {
      CAPTURE(hidden);
      Training expected(20, hidden, 3, kFloat64, false, make);
      expected.run(4, expected.step);
      Training eager(20, hidden, 3, kFloat64, true, make),
          compiled(20, hidden, 3, kFloat64, true, make);
      eager.run(4, eager.step);
      compiled.run(4, func::compile(compiled.step));
      CHECK(largest_difference(eager.values(), expected.values()) < 1e-11);
      CHECK(largest_difference(compiled.values(), expected.values()) < 1e-11);
    }
}

TEST_CASE("members last: an optimizer goes on from a file, in either layout") {
  const Restore restore;
  const std::string path =
      (std::filesystem::temp_directory_path() / "tutti_members_last.safetensors").string();
  for (const bool from : {false, true})
    for (const bool to : {false, true})
      for (const bool compiled : {false, true}) {
        CAPTURE(from);
        CAPTURE(to);
        CAPTURE(compiled);
        const Make& make = optimizers()[3].make;
        Training one(20, 6, 2, kFloat64, from, make), other(20, 6, 2, kFloat64, to, make);
        const auto runs = [&](Training& t) {
          return compiled ? std::function<Tensor(const TensorDict&, const Tensor&, const Tensor&)>(
                                func::compile(t.step))
                          : t.step;
        };
        one.run(2, runs(one));
        TensorDict file = one.optimizer->state_dict();
        for (const auto& [name, p] : one.params) file.insert("param." + name, p.detach());
        save(file, path);
        const TensorDict back = load(path);
        TensorDict state;
        {
          const NoGradGuard guard;
          for (const auto& [name, x] : back)
            if (name.starts_with("param."))
              other.params.at(name.substr(6)).copy_(x);
            else
              state.insert(name, x);
        }
        const auto step = runs(other);
        other.run(1, step, 77);  // its own state, which the file replaces
        {
          const NoGradGuard guard;
          for (const auto& [name, p] : other.params) p.copy_(back.at("param." + name));
        }
        other.optimizer->load_state_dict(state);
        CHECK(largest_difference(other.values(), one.values()) < 1e-15);
        one.run(2, runs(one), 5);
        other.run(2, step, 5);
        CHECK(largest_difference(other.values(), one.values()) < 1e-11);
      }
  std::filesystem::remove(path);
}

TEST_CASE("members last: parameters written and read again within a compiled function") {
  const NoGradGuard guard;
  for (const bool members_last : {false, true}) {
    CAPTURE(members_last);
    const Tensor start = randn({18, 4, 3}, kFloat64), x = randn({18, 3, 2}, kFloat64);
    const auto laid_out = [&] { return members_last ? func::members_last(start) : start.clone(); };
    const auto f = [](const Tensor& w, const Tensor& v) {
      const Tensor before = w.transpose(1, 2).clone();
      w.sub_(w.matmul(v).sum(-1, true) * 0.1);
      const Tensor row = w.select(1, 2);  // a view of the new value
      w.mul_(2);
      return std::make_tuple(before, row * 1, w.matmul(v));
    };
    const Tensor a = laid_out(), b = laid_out();
    const auto expected = f(a, x);
    const auto got = func::compile(f)(b, x);
    CHECK((a - b).abs().max().item<double>() < 1e-12);
    CHECK((std::get<0>(got) - std::get<0>(expected)).abs().max().item<double>() < 1e-12);
    CHECK((std::get<1>(got) - std::get<1>(expected)).abs().max().item<double>() < 1e-12);
    CHECK((std::get<2>(got) - std::get<2>(expected)).abs().max().item<double>() < 1e-12);
  }
}

TEST_CASE("members last: a step that also uses what it has updated") {
  const NoGradGuard guard;
  for (const Lanes lanes : {Lanes::automatic, Lanes::never, Lanes::always}) {
    const Restore restore;
    tutti::detail::set_lanes(lanes);
    std::vector<std::vector<double>> results;
    for (const bool members_last : {false, true}) {
      Training t(33, 6, 1, kFloat64, members_last, optimizers()[2].make);
      const auto both = [step = t.step](const TensorDict& p, const Tensor& x, const Tensor& y) {
        const Tensor losses = step(p, x, y);
        const Tensor sums = p.at("0.weight").transpose(1, 2).sum(1);  // a view of the new value
        step(p, x, y);
        return losses + sums.sum(1);
      };
      manual_seed(4);
      const Tensor x = randn({6, 5}, kFloat64), y = randn({33, 6, 1}, kFloat64);
      const auto compiled = func::compile(both);
      std::vector<double> seen;
      for (int i = 0; i < 3; ++i)
        for (const double v : compiled(t.params, x, y).to_vector<double>()) seen.push_back(v);
      for (const double v : t.values()) seen.push_back(v);
      results.push_back(seen);
    }
    CHECK(largest_difference(results[1], results[0]) < 1e-11);
  }
}

TEST_CASE("members last: members go back into their modules") {
  std::vector<nn::Linear> models{nn::Linear(3, 2), nn::Linear(3, 2)};
  auto [params, buffers] = func::stack_module_state(models);
  params = func::members_last(params);
  {
    const NoGradGuard guard;
    params.at("weight").mul_(2);
  }
  const Tensor expected = models[1]->weight.detach() * 2;
  func::unstack_module_state(params, buffers, models);
  CHECK((models[1]->weight == expected).all().item<bool>());
}
