// Optimizers against PyTorch's trajectories (golden/optim.safetensors), and their bookkeeping.
#include <cmath>
#include <memory>

#include <tutti/tutti.h>

#include "test.h"

using namespace tutti;

namespace {

const TensorDict& golden() {
  static const TensorDict d = load(TUTTI_GOLDEN_DIR "/optim.safetensors");
  return d;
}
// Now, so that no test is taken to have left these tensors alive.
[[maybe_unused]] const bool loaded = !golden().empty();

double worst(const Tensor& a, const Tensor& b) {
  return (a.to(kFloat64) - b.to(kFloat64)).abs().max().item<double>();
}

TensorDict start(DType t) {
  TensorDict d;
  for (const char* k : {"w", "b"}) {
    d.insert(k, golden().at(std::string("start.") + k).to(t).clone());
    d.at(k).requires_grad_();
  }
  return d;
}

TensorDict gradient(int step, DType t) {
  TensorDict d;
  for (const char* k : {"w", "b"})
    d.insert(k, golden().at("grad." + std::to_string(step) + "." + k).to(t));
  return d;
}

using Make = std::function<std::unique_ptr<optim::Optimizer>(const TensorDict&)>;

template <class O, class Options>
Make make(Options options) {
  return [options](const TensorDict& p) { return std::make_unique<O>(p, options); };
}

const std::vector<std::pair<std::string, Make>>& configurations() {
  using namespace optim;
  static const std::vector<std::pair<std::string, Make>> all = {
      {"sgd", make<SGD>(SGDOptions(0.1))},
      {"sgd_decay", make<SGD>(SGDOptions(0.1).weight_decay(0.3))},
      {"sgd_momentum", make<SGD>(SGDOptions(0.1).momentum(0.9))},
      {"sgd_dampening", make<SGD>(SGDOptions(0.1).momentum(0.9).dampening(0.4).weight_decay(0.1))},
      {"sgd_nesterov", make<SGD>(SGDOptions(0.1).momentum(0.9).nesterov(true).weight_decay(0.1))},
      {"adam", make<Adam>(AdamOptions())},
      {"adam_decay", make<Adam>(AdamOptions(0.05).betas({0.8, 0.95}).eps(1e-6).weight_decay(0.2))},
      {"adam_amsgrad", make<Adam>(AdamOptions(0.05).betas({0.5, 0.6}).amsgrad(true))},
      {"adamw", make<AdamW>(AdamWOptions())},
      {"adamw_decay",
       make<AdamW>(AdamWOptions(0.05).betas({0.8, 0.95}).weight_decay(0.3).amsgrad(true))},
      {"rmsprop", make<RMSprop>(RMSpropOptions())},
      {"rmsprop_centered",
       make<RMSprop>(
           RMSpropOptions(0.02).alpha(0.9).weight_decay(0.1).momentum(0.8).centered(true))},
      {"adagrad", make<Adagrad>(AdagradOptions())},
      {"adagrad_decay",
       make<Adagrad>(
           AdagradOptions(0.1).lr_decay(0.2).weight_decay(0.1).initial_accumulator_value(0.5))},
  };
  return all;
}

}  // namespace

TEST_CASE("five steps equal PyTorch's, from step(grads) and from .grad()") {
  for (DType t : {kFloat32, kFloat64}) {
    for (const auto& config : configurations()) {
      const std::string& name = config.first;
      const Make& make_one = config.second;
      TensorDict by_name = start(t), by_grad = start(t);
      auto named = make_one(by_name), plain = make_one(by_grad);
      for (int step = 0; step < 5; ++step) {
        const TensorDict g = gradient(step, t);
        named->step(g);
        plain->zero_grad();
        (by_grad.at("w") * g.at("w")).sum().backward();
        (by_grad.at("b") * g.at("b")).sum().backward();
        plain->step();
        for (const char* k : {"w", "b"}) {
          const Tensor want =
              golden().at(name + "." + name_of(t) + "." + std::to_string(step) + "." + k);
          CAPTURE(name);
          CAPTURE(step);
          CHECK(worst(by_name.at(k), want) <= (t == kFloat32 ? 1e-6 : 1e-12));
          CHECK(equal(by_name.at(k), by_grad.at(k)));
        }
      }
    }
  }
}

TEST_CASE("a stack of members moves as each member alone") {
  // Large enough for several blocks and threads, with a remainder.
  manual_seed(3);
  const std::int64_t members = 5;
  Tensor w = randn({members, 37, 61}).requires_grad_(), b = randn({members, 7}).requires_grad_();
  for (const auto& config : configurations()) {
    const std::string& name = config.first;
    const Make& make_one = config.second;
    CAPTURE(name);
    TensorDict stacked{{"w", w.detach().clone()}, {"b", b.detach().clone()}};
    auto whole = make_one(stacked);
    std::vector<TensorDict> single;
    std::vector<std::unique_ptr<optim::Optimizer>> opts;
    for (std::int64_t m = 0; m < members; ++m) {
      single.push_back({{"w", w[m].detach().clone()}, {"b", b[m].detach().clone()}});
      opts.push_back(make_one(single.back()));
    }
    for (int step = 0; step < 5; ++step) {
      TensorDict g{{"w", randn({members, 37, 61})}, {"b", randn({members, 7})}};
      whole->step(g);
      for (std::int64_t m = 0; m < members; ++m)
        opts[static_cast<std::size_t>(m)]->step(
            TensorDict{{"w", g.at("w")[m]}, {"b", g.at("b")[m]}});
    }
    for (std::int64_t m = 0; m < members; ++m)
      for (const char* k : {"w", "b"})
        CHECK(equal(stacked.at(k)[m], single[static_cast<std::size_t>(m)].at(k)));
  }
}

TEST_CASE("the result does not depend on the number of threads") {
  const int before = num_threads();
  std::vector<Tensor> results;
  for (int n : {1, 2, 5}) {
    set_num_threads(n);
    manual_seed(1);
    Tensor w = randn({100000});
    optim::Adam opt({w}, 0.1);
    for (int step = 0; step < 3; ++step) opt.step(std::vector<Tensor>{randn({100000})});
    results.push_back(w);
  }
  set_num_threads(before);
  CHECK(equal(results[0], results[1]));
  CHECK(equal(results[0], results[2]));
}

TEST_CASE("hyper-parameters change between steps and per group") {
  Tensor a = ones({3}), b = ones({3});
  std::vector<optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<Tensor>{a});
  groups.emplace_back(std::vector<Tensor>{b}, std::make_unique<optim::SGDOptions>(0.5));
  optim::SGD opt(groups, optim::SGDOptions(1.0));
  const std::vector<Tensor> g{ones({3}), ones({3})};
  opt.step(g);
  CHECK(a[0].item<double>() == doctest::Approx(0));
  CHECK(b[0].item<double>() == doctest::Approx(0.5));
  opt.options().lr(2.0);
  opt.param_groups()[1].options().set_lr(0.25);
  CHECK(opt.options(1).lr() == 0.25);
  opt.step(g);
  CHECK(a[0].item<double>() == doctest::Approx(-2));
  CHECK(b[0].item<double>() == doctest::Approx(0.25));
  CHECK_THROWS_SAYING(opt.options(2), IndexError, "group");
}

TEST_CASE("state goes through a dict and back") {
  for (const auto& config : configurations()) {
    const std::string& name = config.first;
    const Make& make_one = config.second;
    CAPTURE(name);
    TensorDict a = start(kFloat64), b = start(kFloat64);
    auto opt = make_one(a);
    for (int step = 0; step < 2; ++step) opt->step(gradient(step, kFloat64));
    for (const char* k : {"w", "b"}) {
      NoGradGuard guard;
      b.at(k).copy_(a.at(k));
    }
    auto resumed = make_one(b);
    resumed->load_state_dict(opt->state_dict());
    for (int step = 2; step < 5; ++step) {
      opt->step(gradient(step, kFloat64));
      resumed->step(gradient(step, kFloat64));
    }
    for (const char* k : {"w", "b"}) CHECK(equal(a.at(k), b.at(k)));
  }
  TensorDict p = start(kFloat32);
  optim::Adam opt(p, 1e-3);
  CHECK(opt.state_dict().empty());
  opt.step(gradient(0, kFloat32));
  CHECK(opt.state_dict().keys() == std::vector<std::string>{"w.step", "w.exp_avg", "w.exp_avg_sq",
                                                            "b.step", "b.exp_avg", "b.exp_avg_sq"});
  optim::Adam by_index(p.values(), 1e-3);
  by_index.step(gradient(0, kFloat32).values());
  CHECK(by_index.state_dict().contains("1.exp_avg_sq"));
  CHECK_THROWS_SAYING(opt.load_state_dict({{"v.exp_avg", zeros({2, 3})}}), KeyError, "v.exp_avg");
  CHECK_THROWS_SAYING(opt.load_state_dict({{"w.exp_avg", zeros({2, 3})}}), KeyError, "w.step");
  CHECK_THROWS_SAYING(opt.load_state_dict({{"w.exp_avg", zeros({3})}}), ShapeError, "w.exp_avg",
                      "[2, 3]", "[3]");
}

TEST_CASE("gradients go by their names, in whatever order they come, every time") {
  TensorDict p{{"u", zeros({2}).requires_grad_()}, {"v", zeros({2}).requires_grad_()}};
  optim::SGD opt(p, 1.0);
  const TensorDict in_order = TensorDict::with_keys_of(p, {full({2}, 1.0), full({2}, 10.0)});
  const TensorDict turned{{"v", full({2}, 10.0)}, {"u", full({2}, 1.0)}};
  for (const TensorDict* g : {&in_order, &in_order, &turned, &in_order, &turned}) opt.step(*g);
  CHECK(equal(p.at("u"), full({2}, -5.0)));
  CHECK(equal(p.at("v"), full({2}, -50.0)));
  CHECK_THROWS_SAYING(opt.step(TensorDict{{"u", full({2}, 1.0)}, {"w", full({2}, 1.0)}}), KeyError,
                      "unknown \"w\"");
  TensorDict resized = in_order;
  resized.values().pop_back();
  CHECK_THROWS_SAYING(opt.step(resized), ValueError, "expected 2 values");
  Tensor more = zeros({2}).requires_grad_();
  opt.add_param_group(optim::OptimizerParamGroup(TensorDict{{"w", more}}));
  CHECK_THROWS_SAYING(opt.step(in_order), KeyError, "none for \"w\"");
  CHECK_THROWS_SAYING(opt.step(TensorDict()), KeyError, "none for");
}

TEST_CASE("a gradient that is a part of another parameter is what that was before the step") {
  Tensor p = ones({4}).requires_grad_(), q = zeros({2}).requires_grad_();
  optim::SGD opt({p, q}, 1.0);
  opt.step(std::vector<Tensor>{full({4}, 10.0), p.detach().narrow(0, 2, 2)});
  CHECK(equal(p.detach(), full({4}, -9.0)));
  CHECK(equal(q.detach(), full({2}, -1.0)));
}

TEST_CASE("gradients that do not fit are refused by name, and nothing changes") {
  TensorDict p = start(kFloat32);
  optim::SGD opt(p, 0.1);
  const Tensor before = p.at("w").detach().clone();
  const TensorDict g = gradient(0, kFloat32);
  CHECK_THROWS_SAYING(opt.step(TensorDict{{"w", g.at("w")}}), KeyError, "none for \"b\"");
  CHECK_THROWS_SAYING(opt.step(TensorDict{{"w", g.at("w")}, {"b", g.at("b")}, {"c", g.at("b")}}),
                      KeyError, "unknown \"c\"");
  CHECK_THROWS_SAYING(opt.step(TensorDict{{"w", g.at("w")}, {"b", g.at("w")}}), ShapeError, "\"b\"",
                      "[3]", "[2, 3]");
  CHECK_THROWS_SAYING(opt.step(TensorDict{{"w", g.at("w")}, {"b", g.at("b").to(kFloat64)}}),
                      TypeError, "\"b\"", "float32", "float64");
  CHECK_THROWS_SAYING(opt.step(std::vector<Tensor>{g.at("w")}), ValueError, "2", "1");
  CHECK(equal(p.at("w"), before));
  opt.step(TensorDict{{"w", Tensor()}, {"b", g.at("b")}});  // undefined: left alone
  CHECK(equal(p.at("w"), before));
  CHECK_FALSE(equal(p.at("b"), golden().at("start.b").to(kFloat32)));
  opt.step();  // no gradients at all
  CHECK(equal(p.at("w"), before));
}

TEST_CASE("what cannot be optimized is refused") {
  Tensor w = ones({2}).requires_grad_();
  CHECK_THROWS_SAYING(optim::SGD(std::vector<Tensor>{}, 0.1), ValueError, "at least one");
  CHECK_THROWS_SAYING(optim::SGD({w, w}, 0.1), ValueError, "already");
  CHECK_THROWS_SAYING(optim::SGD({w * 2}, 0.1), ValueError, "leaf");
  CHECK_THROWS_SAYING(optim::SGD({ones({2}, kInt64)}, 0.1), TypeError, "int64");
  CHECK_THROWS_SAYING(optim::SGD({Tensor()}, 0.1), ValueError, "undefined");
  CHECK_THROWS_SAYING(optim::SGD({w}, -1), ValueError, "lr", "-1");
  CHECK_THROWS_SAYING(optim::SGD({w}, optim::SGDOptions(1).nesterov(true)), ValueError, "momentum");
  CHECK_THROWS_SAYING(optim::Adam({w}, optim::AdamOptions().betas({1.0, 0.9})), ValueError,
                      "betas");
  optim::SGD opt({w}, 0.1);
  auto inside = [&](const Tensor& x) {
    opt.step();
    return (x * x).sum();
  };
  CHECK_THROWS_SAYING(func::grad(inside)(ones({2})), TransformError, "grad", "step(grads)");
}

TEST_CASE("a step counts as an in-place write") {
  Tensor w = ones({2}).requires_grad_();
  optim::SGD opt({w}, 0.1);
  const Tensor y = (w * w).sum();
  opt.step(std::vector<Tensor>{ones({2})});
  CHECK_THROWS_AS(y.backward(), AutogradError);
}

TEST_CASE("closures, zero_grad, strided and half parameters, a converted module") {
  Tensor w = full({2}, 3.0).requires_grad_();
  optim::SGD opt({w}, 0.1);
  NoGradGuard guard;
  const Tensor loss = opt.step([&] {
    opt.zero_grad();
    const Tensor l = (w * w).sum();
    l.backward();
    return l;
  });
  CHECK(loss.item<double>() == 18);
  CHECK(w[0].item<double>() == doctest::Approx(2.4));
  opt.zero_grad(false);
  CHECK(w.grad().sum().item<double>() == 0);
  opt.zero_grad();
  CHECK_FALSE(w.grad().defined());

  const Tensor base = zeros({3, 2});
  optim::SGD strided({base.t()}, 1.0);
  const Tensor g = arange(6).to(kFloat32).reshape({2, 3});
  strided.step(std::vector<Tensor>{g});
  CHECK(equal(base, -g.t()));
  optim::SGD plain({base}, 1.0);
  plain.step(std::vector<Tensor>{-g.t()});  // a gradient that is not contiguous
  CHECK(base.abs().sum().item<double>() == 0);

  Tensor h = ones({4}, kFloat16);
  optim::Adam half({h}, 0.5);
  half.step(std::vector<Tensor>{ones({4}, kFloat16)});
  CHECK(h.dtype() == kFloat16);
  CHECK(h[0].item<double>() == doctest::Approx(0.5).epsilon(1e-3));

  nn::Linear fc(2, 1);
  optim::Adam adam(fc->named_parameters(), 0.1);
  adam.step(TensorDict{{"weight", ones({1, 2})}, {"bias", ones({1})}});
  fc->to(kFloat64);
  const double before = fc->weight[0][0].item<double>();
  adam.step(TensorDict{{"weight", ones({1, 2}, kFloat64)}, {"bias", ones({1}, kFloat64)}});
  CHECK(fc->weight[0][0].item<double>() == doctest::Approx(before - 0.1));
}

TEST_CASE("clip_grad_norm_ and clip_grad_value_") {
  Tensor a = zeros({2}).requires_grad_(), b = zeros({1}).requires_grad_();
  auto fill = [&] {
    for (const Tensor& t : {a, b}) t.mutable_grad() = Tensor();
    (a * tensor({3.0, 0.0})).sum().backward();
    (b * -4.0).sum().backward();
  };
  fill();
  CHECK(nn::utils::clip_grad_norm_({a, b}, 1) == doctest::Approx(5));
  CHECK(a.grad()[0].item<double>() == doctest::Approx(0.6).epsilon(1e-5));
  CHECK(b.grad()[0].item<double>() == doctest::Approx(-0.8).epsilon(1e-5));
  fill();
  CHECK(nn::utils::clip_grad_norm_({a, b}, 10) == doctest::Approx(5));
  CHECK(b.grad()[0].item<double>() == -4);
  CHECK(nn::utils::clip_grad_norm_({a, b}, 2, INFINITY) == doctest::Approx(4));
  fill();
  nn::utils::clip_grad_value_({a, b}, 2.5);
  CHECK(a.grad()[0].item<double>() == 2.5);
  CHECK(b.grad()[0].item<double>() == -2.5);
  const Tensor v = nn::utils::parameters_to_vector({a, b});
  CHECK(v.sizes() == IntArrayRef(3));
  nn::utils::vector_to_parameters(tensor({1.0, 2.0, 3.0}), {a, b});
  CHECK(a[1].item<double>() == 2);
  CHECK(b[0].item<double>() == 3);
  CHECK_THROWS_SAYING(nn::utils::vector_to_parameters(ones({2}), {a, b}), ShapeError, "3");
}
