// Hyper-parameters of members: member i of a stack moves as with an optimizer of its own that has
// the values i, to the bit, whichever way the step is made; and what values are refused.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <tutti/core/parallel.h>
#include <tutti/func/graph.h>
#include <tutti/tutti.h>

#include "test.h"

using namespace tutti;
using tutti::detail::Lanes;

namespace {

constexpr std::size_t kMembers = 5;
std::int64_t index(std::size_t i) { return static_cast<std::int64_t>(i); }

using Make = std::function<std::unique_ptr<optim::Optimizer>(const TensorDict&)>;
using Values = std::vector<double>;
using Members = std::vector<std::size_t>;

/// An optimizer for a stack, one for some of its members, and one for a single member.
struct Sweep {
  std::string name;
  Make stacked;
  std::function<std::unique_ptr<optim::Optimizer>(const TensorDict&, const Members&)> some;
  std::function<std::unique_ptr<optim::Optimizer>(const TensorDict&, std::size_t)> single;
};

/// `set(options, of)` sets options to of(values): a tensor for a stack, a number for a member.
template <class O, class Options, class Set>
Sweep sweep(std::string name, Set set) {
  const auto make = [set](const TensorDict& p, auto of) {
    Options o;
    set(o, of);
    return std::make_unique<O>(p, o);
  };
  return {std::move(name),
          [make](const TensorDict& p) {
            return make(p, [](const Values& v) { return tensor(v, kFloat64); });
          },
          [make](const TensorDict& p, const Members& members) {
            return make(p, [&](const Values& v) {
              Values some;
              for (const std::size_t m : members) some.push_back(v[m]);
              return some;
            });
          },
          [make](const TensorDict& p, std::size_t m) {
            return make(p, [m](const Values& v) { return v[m]; });
          }};
}

const Values kRates{1e-3, 0.1, 0, 3e-2, 1}, kDecays{0, 0.1, 0.3, 0, 1e-3},
    kFactors{0.9, 0, 0.5, 0.99, 0.3}, kOthers{0.999, 0.5, 0, 0.7, 0.95},
    kSmall{1e-8, 0, 1e-3, 1, 0.1};

const std::vector<Sweep>& sweeps() {
  using namespace optim;
  static const std::vector<Sweep> all = {
      sweep<SGD, SGDOptions>("sgd lr", [](auto& o, auto of) { o.lr(of(kRates)); }),
      sweep<SGD, SGDOptions>("sgd weight_decay",
                             [](auto& o, auto of) { o.lr(0.1).weight_decay(of(kDecays)); }),
      sweep<SGD, SGDOptions>("sgd momentum",
                             [](auto& o, auto of) { o.lr(0.1).momentum(of(kFactors)); }),
      sweep<SGD, SGDOptions>("sgd dampening",
                             [](auto& o, auto of) { o.momentum(0.8).dampening(of(kFactors)); }),
      sweep<SGD, SGDOptions>("sgd nesterov",
                             [](auto& o, auto of) {
                               o.momentum(of({0.9, 0.1, 0.5, 0.99, 0.3})).nesterov(true);
                             }),
      sweep<SGD, SGDOptions>("sgd all",
                             [](auto& o, auto of) {
                               o.lr(of(kRates)).momentum(of(kFactors)).dampening(of(kOthers));
                               o.weight_decay(of(kDecays));
                             }),
      sweep<Adam, AdamOptions>("adam lr", [](auto& o, auto of) { o.lr(of(kRates)); }),
      sweep<Adam, AdamOptions>("adam beta1",
                               [](auto& o, auto of) {
                                 o.betas({of(kFactors), 0.99});
                               }),
      sweep<Adam, AdamOptions>("adam beta2",
                               [](auto& o, auto of) {
                                 o.betas({0.9, of(kOthers)});
                               }),
      sweep<Adam, AdamOptions>("adam eps", [](auto& o, auto of) { o.lr(0.1).eps(of(kSmall)); }),
      sweep<Adam, AdamOptions>("adam weight_decay",
                               [](auto& o, auto of) { o.lr(0.1).weight_decay(of(kDecays)); }),
      sweep<Adam, AdamOptions>("adam all",
                               [](auto& o, auto of) {
                                 o.lr(of(kRates)).betas({of(kFactors), of(kOthers)});
                                 o.eps(of(kSmall)).weight_decay(of(kDecays)).amsgrad(true);
                               }),
      sweep<AdamW, AdamWOptions>("adamw lr", [](auto& o, auto of) { o.lr(of(kRates)); }),
      sweep<AdamW, AdamWOptions>("adamw all",
                                 [](auto& o, auto of) {
                                   o.lr(of(kRates)).betas({of(kFactors), of(kOthers)});
                                   o.eps(of(kSmall)).weight_decay(of(kDecays));
                                 }),
      sweep<RMSprop, RMSpropOptions>("rmsprop lr", [](auto& o, auto of) { o.lr(of(kRates)); }),
      sweep<RMSprop, RMSpropOptions>("rmsprop all",
                                     [](auto& o, auto of) {
                                       o.lr(of(kRates)).alpha(of(kFactors)).eps(of(kSmall));
                                       o.weight_decay(of(kDecays)).momentum(of(kFactors));
                                     }),
      sweep<RMSprop, RMSpropOptions>(
          "rmsprop centered",
          [](auto& o, auto of) {
            o.alpha(of({0.9, 0.5, 0.1, 0.99, 0.3})).momentum(of(kOthers));
            o.centered(true);
          }),
      sweep<Adagrad, AdagradOptions>("adagrad lr", [](auto& o, auto of) { o.lr(of(kRates)); }),
      sweep<Adagrad, AdagradOptions>("adagrad all",
                                     [](auto& o, auto of) {
                                       o.lr(of(kRates)).lr_decay(of(kFactors)).eps(of(kSmall));
                                       o.weight_decay(of(kDecays));
                                       o.initial_accumulator_value(of(kFactors));
                                     }),
  };
  return all;
}

/// Parameters of all members: matrices of several blocks with a remainder, short rows, one number
/// each, none.
TensorDict random_stack(DType t) {
  const std::int64_t m = index(kMembers);
  return {{"w", randn({m, 37, 61}, t)},
          {"b", randn({m, 7}, t)},
          {"s", randn({m}, t)},
          {"none", zeros({m, 0}, t)}};
}
TensorDict copy_of(const TensorDict& d) {
  TensorDict out;
  for (const auto& [name, x] : d) out.insert(name, x.detach().clone());
  return out;
}
TensorDict member(const TensorDict& d, std::size_t m) {
  TensorDict out;
  for (const auto& [name, x] : d) out.insert(name, x.detach()[index(m)].clone());
  return out;
}
void check_same(const TensorDict& a, const TensorDict& b) {
  REQUIRE(a.keys() == b.keys());
  for (const auto& [key, x] : a) {
    const std::string name = key;
    CAPTURE(name);
    CHECK(equal(x.detach(), b.at(key).detach()));
  }
}

/// Steps on a stack and on each of its members alone, with the same gradients.
struct Both {
  Both(const Sweep& s, const TensorDict& start) : params(copy_of(start)), whole(s.stacked(params)) {
    for (std::size_t m = 0; m < kMembers; ++m) {
      parts.push_back(member(start, m));
      singles.push_back(s.single(parts.back(), m));
    }
  }
  void step() {
    const TensorDict g = random_stack(params.at("w").dtype());
    whole->step(g);
    for (std::size_t m = 0; m < kMembers; ++m) singles[m]->step(member(g, m));
  }
  void check() const {
    for (std::size_t m = 0; m < kMembers; ++m) {
      CAPTURE(m);
      check_same(member(params, m), parts[m]);
    }
  }
  TensorDict params;
  std::unique_ptr<optim::Optimizer> whole;
  std::vector<TensorDict> parts;
  std::vector<std::unique_ptr<optim::Optimizer>> singles;
};

/// The rows of some members, of all that has members.
TensorDict rows_of(const TensorDict& d, const Members& members) {
  TensorDict out;
  for (const auto& [name, x] : d) {
    std::vector<Tensor> rows;
    for (const std::size_t m : members)
      if (x.dim() > 0) rows.push_back(x.detach()[index(m)]);
    out.insert(name, rows.empty() ? x : tutti::stack(rows));
  }
  return out;
}

}  // namespace

TEST_CASE("every member moves as with an optimizer of its own, for every option") {
  for (const DType t : {kFloat32, kFloat64}) {
    for (const Sweep& s : sweeps()) {
      CAPTURE(s.name);
      manual_seed(3);
      Both both(s, random_stack(t));
      for (int i = 0; i < 6; ++i) both.step();
      both.check();
    }
  }
}

TEST_CASE("the same from .grad(), for strided and for half parameters") {
  for (const Sweep& s : sweeps()) {
    CAPTURE(s.name);
    manual_seed(4);
    const std::int64_t m = index(kMembers);
    const Tensor base = randn({6, 4, m}), half = randn({m, 9}).to(kFloat16);
    TensorDict start{{"strided", base.permute({2, 0, 1})}, {"half", half}};
    TensorDict params{{"strided", base.clone().permute({2, 0, 1}).requires_grad_()},
                      {"half", half.clone().requires_grad_()}};
    const auto whole = s.stacked(params);
    std::vector<TensorDict> parts;
    std::vector<std::unique_ptr<optim::Optimizer>> singles;
    for (std::size_t i = 0; i < kMembers; ++i) {
      parts.push_back(member(start, i));
      singles.push_back(s.single(parts[i], i));
    }
    for (int step = 0; step < 5; ++step) {
      const TensorDict g{{"strided", randn({m, 6, 4})}, {"half", randn({m, 9}).to(kFloat16)}};
      whole->zero_grad();
      for (const auto& [name, p] : params) (p * g.at(name)).sum().backward();
      whole->step();
      for (std::size_t i = 0; i < kMembers; ++i) singles[i]->step(member(g, i));
    }
    for (std::size_t i = 0; i < kMembers; ++i) check_same(member(params, i), parts[i]);
  }
}

TEST_CASE("Adam and AdamW of members against the formula, written down plainly") {
  const Values lr{0.1, 0.01, 0.3}, b1{0.9, 0.5, 0.8}, b2{0.999, 0.9, 0.99}, eps{1e-8, 1e-2, 1e-4},
      decay{0, 0.1, 0.2};
  for (const bool decoupled : {false, true}) {
    CAPTURE(decoupled);
    const Values start{1, -2, 0.5};
    TensorDict p{{"p", tensor(start, kFloat64)}};
    std::unique_ptr<optim::Optimizer> opt;
    const auto with = [&](auto o) {
      return o.lr(lr)
          .betas({tensor(b1, kFloat64), b2})
          .eps(tensor(eps, kFloat64))
          .weight_decay(decay);
    };
    if (decoupled)
      opt = std::make_unique<optim::AdamW>(p, with(optim::AdamWOptions()));
    else
      opt = std::make_unique<optim::Adam>(p, with(optim::AdamOptions()));
    Values x = start, mean(3, 0), square(3, 0);
    for (int t = 1; t <= 7; ++t) {
      Values g;
      for (std::size_t i = 0; i < 3; ++i) g.push_back(std::sin(t + 3.0 * static_cast<double>(i)));
      opt->step(TensorDict{{"p", tensor(g, kFloat64)}});
      for (std::size_t i = 0; i < 3; ++i) {
        if (decoupled) x[i] -= lr[i] * decay[i] * x[i];
        const double d = decoupled ? g[i] : g[i] + decay[i] * x[i];
        mean[i] = b1[i] * mean[i] + (1 - b1[i]) * d;
        square[i] = b2[i] * square[i] + (1 - b2[i]) * d * d;
        const double m = mean[i] / (1 - std::pow(b1[i], t)),
                     v = square[i] / (1 - std::pow(b2[i], t));
        x[i] -= lr[i] * m / (std::sqrt(v) + eps[i]);
        CHECK(p.at("p")[index(i)].item<double>() == doctest::Approx(x[i]).epsilon(1e-12));
      }
    }
  }
}

TEST_CASE("the result does not depend on the number of threads") {
  const int before = num_threads();
  for (const Sweep& s : sweeps()) {
    CAPTURE(s.name);
    std::vector<TensorDict> results;
    for (const int n : {1, 2, 3, 7}) {
      set_num_threads(n);
      manual_seed(1);
      TensorDict p{{"w", randn({5, 4001})}};
      const auto opt = s.stacked(p);
      for (int step = 0; step < 3; ++step) opt->step(TensorDict{{"w", randn({5, 4001})}});
      results.push_back(p);
    }
    for (const TensorDict& r : results) check_same(r, results[0]);
  }
  set_num_threads(before);
}

TEST_CASE("groups: values of members, a number, and other members") {
  const Tensor a = ones({3, 2}), b = ones({3, 2}), c = ones({2, 2});
  std::vector<optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<Tensor>{a});
  groups.emplace_back(std::vector<Tensor>{b}, std::make_unique<optim::SGDOptions>(0.5));
  groups.emplace_back(std::vector<Tensor>{c}, std::make_unique<optim::SGDOptions>(Values{1, 2}));
  optim::SGD opt(groups, optim::SGDOptions(tensor({1.0, 0.0, 0.25})));
  const std::vector<Tensor> g{ones({3, 2}), ones({3, 2}), ones({2, 2})};
  opt.step(g);
  CHECK(a.to_vector<double>() == Values{0, 0, 1, 1, 0.75, 0.75});
  CHECK(b.to_vector<double>() == Values(6, 0.5));
  CHECK(c.to_vector<double>() == Values{0, 0, -1, -1});
  for (optim::OptimizerParamGroup& group : opt.param_groups()) group.options().scale_lr(2);
  CHECK(opt.options(0).lr_values().values() == Values{2, 0, 0.5});
  CHECK(opt.options(1).lr() == 1);
  opt.step(g);
  CHECK(a.to_vector<double>() == Values{-2, -2, 1, 1, 0.25, 0.25});
  CHECK(b.to_vector<double>() == Values(6, -0.5));
  CHECK(c.to_vector<double>() == Values{-2, -2, -5, -5});
}

TEST_CASE("values are read, set, scaled and replaced between steps") {
  const Tensor w = zeros({3, 1});
  optim::SGD opt({w}, 1.0);
  const std::vector<Tensor> g{-ones({3, 1})};
  auto& o = opt.options();
  CHECK(o.lr() == 1);
  CHECK_FALSE(o.lr_values().per_member());
  CHECK(o.lr_values().values() == Values{1});
  opt.step(g);
  o.lr({1, 2, 3});
  CHECK(o.lr_values().per_member());
  CHECK(o.lr_values()[2] == 3);
  CHECK(o.get_lrs().tensor().to_vector<double>() == Values{1, 2, 3});
  CHECK(o.lr_values().tensor().dtype() == kFloat64);
  opt.step(g);
  CHECK(w.to_vector<double>() == Values{2, 3, 4});
  o.lr_values() *= 0.5;
  opt.step(g);
  CHECK(w.to_vector<double>() == Values{2.5, 4, 5.5});
  const optim::HyperParameter base = o.lr_values();
  o.set_lrs(base * 4);  // what a schedule that knows the first rates does
  CHECK(base.values() == Values{0.5, 1, 1.5});
  opt.step(g);
  CHECK(w.to_vector<double>() == Values{4.5, 8, 11.5});
  Tensor rates = ones({3});
  o.lr(rates);
  rates.fill_(100);  // values were copied
  opt.step(g);
  CHECK(w.to_vector<double>() == Values{5.5, 9, 12.5});
  o.set_lr(2);  // one number again
  CHECK(o.get_lr() == 2);
  o.lr() *= 0.5;
  opt.step(g);
  CHECK(w.to_vector<double>() == Values{6.5, 10, 13.5});
  auto copy = o.clone();
  copy->set_lrs(base);
  CHECK(copy->get_lrs().values() == base.values());
  CHECK(o.lr() == 1);

  optim::AdamOptions adam(rates);
  adam.betas({Values{0.5, 0.6}, 0.9});
  CHECK(std::get<0>(adam.betas_values())[1] == 0.6);
  CHECK(std::get<1>(adam.betas_values())[1] == 0.9);
  CHECK_THROWS_SAYING(adam.betas(), ValueError, "betas", "betas_values");
  adam.betas({0.8, 0.95});
  const auto [beta1, beta2] = adam.betas();
  CHECK(beta1 == 0.8);
  CHECK(beta2 == 0.95);
  std::get<1>(adam.betas()) = 0.5;
  CHECK(std::get<1>(adam.betas_values())[7] == 0.5);
}

TEST_CASE("a member whose momentum is switched off and on again") {
  const TensorDict start{{"p", randn({2, 3})}};
  TensorDict stacked = copy_of(start);
  optim::SGD whole(stacked, optim::SGDOptions(0.1).momentum({0.9, 0.8}));
  std::vector<TensorDict> parts{member(start, 0), member(start, 1)};
  optim::SGD first(parts[0], optim::SGDOptions(0.1).momentum(0.9)),
      second(parts[1], optim::SGDOptions(0.1).momentum(0.8));
  for (const double momentum : {0.8, 0.0, 0.0, 0.5, 0.5}) {
    whole.options().momentum({0.9, momentum});
    second.options().momentum(momentum);
    const TensorDict g{{"p", randn({2, 3})}};
    whole.step(g);
    first.step(member(g, 0));
    second.step(member(g, 1));
  }
  for (std::size_t m = 0; m < 2; ++m) check_same(member(stacked, m), parts[m]);
}

TEST_CASE("state is saved, loaded, and taken along by the members that are kept") {
  for (const Sweep& s : sweeps()) {
    CAPTURE(s.name);
    manual_seed(8);
    Both both(s, random_stack(kFloat32));
    for (int i = 0; i < 3; ++i) both.step();
    const auto file =
        (std::filesystem::temp_directory_path() /
         ("member_options_" + std::to_string(std::random_device()()) + ".safetensors"))
            .string();
    save(both.whole->state_dict(), file);
    both.whole = s.stacked(both.params);
    both.whole->load_state_dict(load(file));
    std::filesystem::remove(file);
    for (int i = 0; i < 2; ++i) both.step();
    both.check();
    // The members go on in two stacks, without number 1.
    for (const Members& members : {Members{0, 3}, Members{4, 2}}) {
      TensorDict some = rows_of(both.params, members);
      const auto opt = s.some(some, members);
      opt->load_state_dict(rows_of(both.whole->state_dict(), members));
      for (int i = 0; i < 3; ++i) {
        const TensorDict g = random_stack(kFloat32);
        opt->step(rows_of(g, members));
        for (const std::size_t m : members) both.singles[m]->step(member(g, m));
      }
      for (std::size_t k = 0; k < 2; ++k) check_same(member(some, k), both.parts[members[k]]);
    }
  }
}

TEST_CASE("values that do not fit are refused by name") {
  const Tensor w = ones({3, 2}), v = ones({4}), scalar = ones({});
  const auto opt = [&](auto options) {
    return optim::Adam(TensorDict{{"w", w}, {"v", v}}, options);
  };
  using optim::AdamOptions;
  CHECK_THROWS_SAYING(opt(AdamOptions(ones({3}))), ShapeError, "lr", "\"v\"", "[4]", "4", "3");
  CHECK_THROWS_SAYING(opt(AdamOptions().eps(ones({4}))), ShapeError, "eps", "\"w\"", "[3, 2]", "3",
                      "4");
  CHECK_THROWS_SAYING(opt(AdamOptions().betas({0.5, zeros({2})})), ShapeError, "betas", "\"w\"",
                      "3", "2");
  CHECK_THROWS_SAYING(optim::SGD({scalar}, optim::SGDOptions(Values{1})), ShapeError, "lr", "\"0\"",
                      "no axis of members");
  CHECK_THROWS_SAYING(AdamOptions(ones({3, 1})), ShapeError, "lr", "[3, 1]");
  CHECK_THROWS_SAYING(AdamOptions(ones({})), ShapeError, "lr", "[]", "number");
  CHECK_THROWS_SAYING(AdamOptions(Values{}), ShapeError, "lr");
  CHECK_THROWS_SAYING(AdamOptions().weight_decay(ones({3}, kInt64)), TypeError, "weight_decay",
                      "int64");
  CHECK_THROWS_SAYING(AdamOptions().weight_decay(Tensor()), ValueError, "weight_decay",
                      "undefined");
  CHECK_THROWS_SAYING(AdamOptions().eps({1, std::numeric_limits<double>::quiet_NaN()}), ValueError,
                      "eps", "nan", "member 1");
  const auto three = [&](auto options) { return optim::Adam({w}, options); };
  CHECK_THROWS_SAYING(three(AdamOptions(Values{1, 0, -2})), ValueError, "lr", "-2", "member 2");
  CHECK_THROWS_SAYING(three(AdamOptions().betas({Values{0, 0.5, 1}, 0.5})), ValueError, "betas",
                      "1", "member 2");
  CHECK_THROWS_SAYING(three(AdamOptions().weight_decay({0, -1, 0})), ValueError, "weight_decay",
                      "-1", "member 1");
  CHECK_THROWS_SAYING(optim::SGD({w}, optim::SGDOptions().momentum({0.5, 0, 0.5}).nesterov(true)),
                      ValueError, "nesterov", "momentum 0");
  CHECK_THROWS_SAYING(optim::RMSprop({w}, optim::RMSpropOptions().alpha({0, -1, 0})), ValueError,
                      "alpha", "member 1");
  CHECK_THROWS_SAYING(optim::Adagrad({w}, optim::AdagradOptions().lr_decay({0, -1, 0})), ValueError,
                      "lr_decay", "member 1");

  // A number is not there to read; what changes between steps is looked at by the next one.
  optim::SGD sgd({w}, optim::SGDOptions(Values{1, 2, 3}));
  CHECK_THROWS_SAYING(sgd.options().lr(), ValueError, "lr", "3", "lr_values()");
  CHECK_THROWS_SAYING(sgd.options().get_lr(), ValueError, "lr_values()");
  CHECK_THROWS_SAYING(sgd.options().lr_values()[3], IndexError, "3");
  CHECK_THROWS_SAYING(sgd.options().scale_lr(-1), ValueError, "factor", "-1");
  const std::vector<Tensor> g{ones({3, 2})};
  sgd.options().momentum({0.5, 0.5});
  CHECK_THROWS_SAYING(sgd.step(g), ShapeError, "momentum", "\"0\"", "3", "2");
  sgd.options().momentum(0).weight_decay({0, 0, -1});
  CHECK_THROWS_SAYING(sgd.step(g), ValueError, "weight_decay", "-1", "member 2");
  CHECK(w.to_vector<double>() == Values(6, 1));
  CHECK(sgd.state_dict().empty());
  sgd.options().weight_decay(0);
  sgd.step(g);
  CHECK(w.to_vector<double>() == Values{0, 0, -1, -1, -2, -2});
  optim::SGD other({ones({2})}, 1.0);
  CHECK_THROWS_SAYING(other.add_param_group(optim::OptimizerParamGroup(
                          {w}, std::make_unique<optim::SGDOptions>(Values{1, 2}))),
                      ShapeError, "lr", "\"1\"", "3", "2");
  CHECK(other.size() == 1);
}

// ---- ensembles

namespace {

nn::Sequential net(DType dtype, bool narrow) {
  const std::int64_t hidden = narrow ? 8 : 40;
  nn::Sequential n(nn::Linear(6, hidden), nn::Tanh(), nn::Linear(hidden, 3));
  n->to(dtype);
  return n;
}

/// A stack of nets with its step, and the nets.
struct Ensemble {
  Ensemble(std::size_t members, DType dtype, bool narrow, const Make& make,
           std::int64_t chunk = 0) {
    manual_seed(12);
    for (std::size_t m = 0; m < members; ++m) nets.push_back(net(dtype, narrow));
    params = func::stack_module_state(nets).params;
    opt = make(params);
    const auto loss = [model = nets[0]](const TensorDict& p, const Tensor& x, const Tensor& y) {
      return nn::functional::cross_entropy(func::functional_call(model, p, x), y);
    };
    VmapOptions options;
    if (chunk > 0) options.chunk_size(chunk);
    step = [this, gradients = func::vmap(func::grad_and_value(loss), {0, 0, 0}, 0, options)](
               const TensorDict& p, const Tensor& x, const Tensor& y) {
      auto [grads, losses] = gradients(p, x, y);
      opt->step(grads);
      return losses;
    };
  }
  Ensemble(const Ensemble&) = delete;
  std::vector<nn::Sequential> nets;
  TensorDict params;
  std::unique_ptr<optim::Optimizer> opt;
  std::function<Tensor(const TensorDict&, const Tensor&, const Tensor&)> step;
};

struct Batch {
  Tensor x, y;
};
std::vector<Batch> batches(std::size_t members, DType dtype, int n) {
  manual_seed(6);
  std::vector<Batch> all;
  for (int i = 0; i < n; ++i)
    all.push_back({randn({index(members), 12, 6}, dtype), randint(3, {index(members), 12})});
  return all;
}

/// The values of `n` members: kRates and so on, again and again, small enough for a stable step.
Values rates(std::size_t n) {
  Values v;
  for (std::size_t m = 0; m < n; ++m) v.push_back(0.05 / static_cast<double>(1 + m % 7));
  return v;
}
Values decays(std::size_t n) {
  Values v;
  for (std::size_t m = 0; m < n; ++m) v.push_back(m % 3 == 0 ? 0 : 0.1 / static_cast<double>(m));
  return v;
}
Values betas(std::size_t n) {
  Values v;
  for (std::size_t m = 0; m < n; ++m) v.push_back(0.9 - 0.1 * static_cast<double>(m % 5));
  return v;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  return (a.detach().to(kFloat64) - b.detach().to(kFloat64)).abs().max().item<double>();
}

/// An optimizer with different values per member: `of(values)` is what its options are set to.
template <class Of>
std::unique_ptr<optim::Optimizer> make_one(const std::string& kind, const TensorDict& p,
                                           std::size_t n, Of of) {
  if (kind == "sgd")
    return std::make_unique<optim::SGD>(
        p, optim::SGDOptions().lr(of(rates(n))).momentum(of(betas(n))).weight_decay(of(decays(n))));
  if (kind == "adam")
    return std::make_unique<optim::Adam>(p, optim::AdamOptions()
                                                .lr(of(rates(n)))
                                                .betas({of(betas(n)), 0.99})
                                                .weight_decay(of(decays(n))));
  if (kind == "adamw")
    return std::make_unique<optim::AdamW>(
        p, optim::AdamWOptions().lr(of(rates(n))).weight_decay(of(decays(n))).amsgrad(true));
  if (kind == "rmsprop")
    return std::make_unique<optim::RMSprop>(
        p, optim::RMSpropOptions().lr(of(rates(n))).alpha(of(betas(n))).eps(1e-3));
  return std::make_unique<optim::Adagrad>(
      p, optim::AdagradOptions().lr(of(rates(n))).lr_decay(of(decays(n))).eps(1e-3));
}
Make stacked(const std::string& kind, std::size_t n) {
  return [=](const TensorDict& p) {
    return make_one(kind, p, n, [](const Values& v) { return tensor(v, kFloat64); });
  };
}
const std::vector<std::string> kKinds{"sgd", "adam", "adamw", "rmsprop", "adagrad"};

struct Restore {
  int threads = num_threads();
  ~Restore() {
    set_num_threads(threads);
    tutti::detail::set_lanes(Lanes::automatic);
  }
};

}  // namespace

TEST_CASE("an ensemble trains as each model with an optimizer and values of its own") {
  const std::size_t n = 6;
  for (const std::string& kind : kKinds)
    for (const DType dtype : {kFloat32, kFloat64}) {
      CAPTURE(kind);
      const auto data = batches(n, dtype, 6);
      Ensemble e(n, dtype, true, stacked(kind, n));
      {
        const NoGradGuard guard;
        for (const Batch& b : data) e.step(e.params, b.x, b.y);
      }
      for (std::size_t m = 0; m < n; ++m) {
        const auto own =
            make_one(kind, e.nets[m]->named_parameters(), n, [m](const Values& v) { return v[m]; });
        for (const Batch& b : data) {
          own->zero_grad();
          nn::functional::cross_entropy(e.nets[m]->forward(b.x[index(m)]), b.y[index(m)])
              .backward();
          own->step();
        }
        for (const auto& [name, p] : e.nets[m]->named_parameters())
          CHECK(largest_difference(e.params.at(name).detach()[index(m)], p) <=
                (dtype == kFloat32 ? 1e-6 : 1e-12));
      }
    }
}

TEST_CASE("a compiled step reads its members' values, in rows, in lanes and in chunks") {
  const Restore restore;
  const NoGradGuard guard;
  for (const std::string& kind : kKinds)
    for (const std::size_t n : {1, 6, 37})
      for (const auto& [lanes, narrow] :
           {std::pair(Lanes::never, false), std::pair(Lanes::always, true)})
        for (const std::int64_t chunk : {0, 4}) {
          tutti::detail::set_lanes(lanes);
          CAPTURE(kind);
          CAPTURE(n);
          CAPTURE(chunk);
          const DType dtype = kFloat64;
          const auto data = batches(n, dtype, 6);
          Ensemble plain(n, dtype, narrow, stacked(kind, n)),
              fast(n, dtype, narrow, stacked(kind, n), chunk);
          const auto step = func::compile(fast.step);
          for (std::size_t i = 0; i < data.size(); ++i) {
            if (i == 3)
              for (Ensemble* e : {&plain, &fast}) {  // other values, no other recording
                auto& o = e->opt->param_groups()[0].options();
                Values v = o.get_lrs().values();
                std::reverse(v.begin(), v.end());
                o.set_lrs(v);
                o.scale_lr(0.5);
              }
            const Tensor expected = plain.step(plain.params, data[i].x, data[i].y);
            const Tensor losses = step(fast.params, data[i].x, data[i].y);
            CHECK(largest_difference(losses, expected) <= 1e-12);
          }
          for (const auto& [name, p] : plain.params)
            CHECK(largest_difference(fast.params.at(name), p) <= 1e-12);
          CHECK(step.recordings() == 1);
          // Every step stands in the blocks of the map.
          const std::string text = step.text();
          INFO(text);
          CHECK(text.find("= optimizer_step(") != std::string::npos);
          for (auto at = text.find("= optimizer_step("); at != std::string::npos;
               at = text.find("= optimizer_step(", at + 1)) {
            const auto line = text.rfind('\n', at) + 1;
            CHECK(text.compare(line, 4, "    ") == 0);
          }
          CHECK((text.find("lane_matmul") != std::string::npos) == (lanes == Lanes::always));
        }
}

TEST_CASE("compiled steps with members' values give the same bits for any number of threads") {
  const Restore restore;
  const NoGradGuard guard;
  for (const bool narrow : {false, true}) {
    std::vector<TensorDict> results;
    for (const int threads : {1, 2, 3, 7}) {
      set_num_threads(threads);
      Ensemble e(70, kFloat32, narrow, stacked("adam", 70));
      const auto step = func::compile(e.step);
      for (const Batch& b : batches(70, kFloat32, 3)) step(e.params, b.x, b.y);
      results.push_back(copy_of(e.params));
    }
    for (const TensorDict& r : results) check_same(r, results[0]);
  }
}

TEST_CASE("from a number to values and back is another recording; what does not fit is an error") {
  const NoGradGuard guard;
  const std::size_t n = 6;
  const Make start = [](const TensorDict& p) { return std::make_unique<optim::SGD>(p, 0.1); };
  Ensemble plain(n, kFloat64, true, start), fast(n, kFloat64, true, start);
  const auto step = func::compile(fast.step);
  const auto data = batches(n, kFloat64, 1);
  const auto options = [](const Ensemble& e) -> optim::SGDOptions& {
    return dynamic_cast<optim::SGD&>(*e.opt).options();
  };
  const auto both = [&](auto set) {
    for (Ensemble* e : {&plain, &fast}) set(options(*e));
    plain.step(plain.params, data[0].x, data[0].y);
    step(fast.params, data[0].x, data[0].y);
    for (const auto& [name, p] : plain.params)
      CHECK(largest_difference(fast.params.at(name), p) <= 1e-12);
  };
  both([](optim::SGDOptions&) {});
  both([&](optim::SGDOptions& o) { o.lr(rates(n)); });
  both([&](optim::SGDOptions& o) { o.weight_decay(decays(n)); });
  CHECK(step.recordings() == 2);
  both([](optim::SGDOptions& o) { o.lr(0.2).weight_decay(0); });
  CHECK(step.recordings() == 2);
  const Tensor before = fast.params.values()[0].detach().clone();
  options(fast).lr({1, 2});
  CHECK_THROWS_SAYING(step(fast.params, data[0].x, data[0].y), ShapeError, "lr", "6", "2");
  options(fast).lr(Values(n, 1.0));
  options(fast).weight_decay(Values(n, -1.0));
  CHECK_THROWS_SAYING(step(fast.params, data[0].x, data[0].y), ValueError, "weight_decay", "-1");
  CHECK(equal(fast.params.values()[0].detach(), before));
  both([&](optim::SGDOptions& o) { o.lr(rates(n)).weight_decay(decays(n)); });
  both([&](optim::SGDOptions& o) { o.lr(0.1).weight_decay(0); });
}

TEST_CASE("a compiled function may step twice, and some parameters more often than others") {
  const NoGradGuard guard;
  const auto make = [](const std::vector<Tensor>& p) {
    return optim::Adam(p, optim::AdamOptions(Values{0.1, 0.2}).betas({0.5, Values{0.9, 0.8}}));
  };
  const std::vector<Tensor> a{ones({2, 3}, kFloat64), ones({2}, kFloat64)},
      b{a[0].clone(), a[1].clone()};
  optim::Adam plain = make(a), fast = make(b);
  const auto twice = [](optim::Adam& o, const Tensor& g) {
    o.step(std::vector<Tensor>{g, g.sum(1)});
    o.step(std::vector<Tensor>{g * g, Tensor()});
  };
  const auto compiled = func::compile([&](const Tensor& g) { twice(fast, g); });
  for (int i = 0; i < 4; ++i) {
    const Tensor g = randn({2, 3}, kFloat64);
    twice(plain, g);
    compiled(g);
    for (std::size_t k = 0; k < 2; ++k) CHECK(largest_difference(b[k], a[k]) <= 1e-14);
  }
  CHECK(compiled.recordings() == 2);  // from the second call on their step numbers differ
}
