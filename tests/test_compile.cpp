// func::compile: a compiled function does what the function does, to values, arguments, captured
// tensors, optimizers and generators alike; what it cannot do it says.
#include <algorithm>
#include <atomic>
#include <thread>

#include <tutti/core/interpreter.h>
#include <tutti/core/parallel.h>
#include <tutti/tutti.h>

#include "test.h"

using namespace tutti;

namespace {

double largest_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  if (a.numel() == 0) return 0;
  const Tensor x = a.detach().to(kFloat64), y = b.detach().to(kFloat64);
  const Tensor scale = y.abs().max().clamp_min(1e-3);
  return ((x - y).abs().max() / scale).item<double>();
}

struct NetImpl : nn::Module {
  NetImpl(std::int64_t in, std::int64_t hidden, std::int64_t out)
      : l1(register_module("l1", nn::Linear(in, hidden))),
        l2(register_module("l2", nn::Linear(hidden, out))) {}
  Tensor forward(const Tensor& x) { return l2->forward(l1->forward(x).relu()); }
  nn::Linear l1, l2;
};
TUTTI_MODULE(Net);

std::vector<Net> nets(std::int64_t members, std::int64_t in, std::int64_t hidden,
                      std::int64_t out) {
  manual_seed(11);
  std::vector<Net> all;
  for (std::int64_t m = 0; m < members; ++m) all.emplace_back(in, hidden, out);
  return all;
}

auto loss_of(const Net& net) {
  return [net](const TensorDict& params, const Tensor& x, const Tensor& y) {
    return nn::functional::cross_entropy(func::functional_call(net, params, x), y);
  };
}

/// An ensemble's training step, compiled or not.
template <class Optimizer, class Options>
struct Trainer {
  Trainer(const std::vector<Net>& members, Options o)
      : net(members[0]), params(func::stack_module_state(members).params), opt(params, o) {}
  Tensor step(const TensorDict& p, const Tensor& x, const Tensor& y) {
    auto [grads, losses] = func::vmap(func::grad_and_value(loss_of(net)))(p, x, y);
    opt.step(grads);
    return losses;
  }
  Net net;
  TensorDict params;
  Optimizer opt;
};

template <class Optimizer, class Options>
void check_training(std::int64_t members, std::int64_t hidden, Options options, int steps = 5) {
  const NoGradGuard guard;
  const auto models = nets(members, 16, hidden, 5);
  Trainer<Optimizer, Options> plain(models, options), fast(models, options);
  auto compiled = func::compile(
      [&](const TensorDict& p, const Tensor& x, const Tensor& y) { return fast.step(p, x, y); });
  manual_seed(5);
  for (int i = 0; i < steps; ++i) {
    const Tensor x = randn({members, 24, 16}), y = randint(5, {members, 24});
    const Tensor expected = plain.step(plain.params, x, y);
    const Tensor losses = compiled(fast.params, x, y);
    CHECK(largest_difference(losses, expected) <= 1e-6);
  }
  for (const auto& [name, p] : plain.params) {
    const std::string& which = name;  // clang 14 captures no structured binding
    INFO(which);
    CHECK(largest_difference(fast.params.at(name), p) <= 2e-6);
  }
  const TensorDict a = plain.opt.state_dict(), b = fast.opt.state_dict();
  REQUIRE(a.keys() == b.keys());
  for (const auto& [name, t] : a) CHECK(largest_difference(b.at(name), t) <= 2e-6);
  CHECK(compiled.recordings() == 1);
}

}  // namespace

TEST_CASE("a compiled function gives what the function gives") {
  const auto f = [](const Tensor& x, const Tensor& y) {
    return std::pair((x * y).exp().sum(1), x.t().matmul(y) + 1);
  };
  const auto g = func::compile(f);
  for (int i = 0; i < 3; ++i) {
    const Tensor x = rand({4, 3}), y = rand({4, 3});
    const auto a = f(x, y), b = g(x, y);
    CHECK(largest_difference(b.first, a.first) <= 1e-6);
    CHECK(largest_difference(b.second, a.second) <= 1e-6);
  }
  CHECK(g.recordings() == 1);
  g(rand({2, 3}), rand({2, 3}));
  CHECK(g.recordings() == 2);
  g(rand({4, 3}), rand({4, 3}));
  g(rand({3, 4}).t(), rand({4, 3}));  // other strides
  CHECK(g.recordings() == 3);
  CHECK(g.text().find("matmul") != std::string::npos);
  CHECK(g.dot().find("digraph") == 0);
  CHECK(g.cuda_graphs().captures == 0);  // on the CPU there are none
}

TEST_CASE("results of a compiled function have memory of their own") {
  const auto f = func::compile([](const Tensor& x) { return x + 1; });
  const Tensor x = ones({3});
  const Tensor a = f(x), b = f(x);
  a.fill_(7);
  CHECK(b.to_vector<float>() == std::vector<float>{2, 2, 2});
  const auto twice = func::compile([](const Tensor& v) { return std::pair(v * 2, v * 2); });
  const auto r = twice(x);
  r.first.fill_(0);
  CHECK(r.second.to_vector<float>() == std::vector<float>{2, 2, 2});
  const auto constant = func::compile([](const Tensor& v) { return std::pair(zeros({2}), v + 1); });
  constant(x).first.fill_(3);
  CHECK(constant(x).first.to_vector<float>() == std::vector<float>{0, 0});
}

TEST_CASE("a compiled function changes its arguments in place") {
  const auto f = [](const Tensor& x, const Tensor& y) {
    x.mul_(2);
    x[0].add_(y);
    Tensor z = x.clone();
    z.add_(1);
    return z;
  };
  const auto g = func::compile(f);
  for (int i = 0; i < 2; ++i) {
    const Tensor x = rand({2, 3}), x2 = x.clone(), y = rand({3});
    const Tensor a = f(x, y), b = g(x2, y);
    CHECK(largest_difference(b, a) <= 1e-6);
    CHECK(largest_difference(x2, x) <= 1e-6);
  }
  const auto self = func::compile([](const Tensor& x) {
    x.add_(1);
    return x;
  });
  const Tensor x = zeros({2});
  const Tensor y = self(x);
  CHECK(y.is_same(x));
  CHECK(x.to_vector<float>() == std::vector<float>{1, 1});
  const auto swap = func::compile([](const Tensor& a, const Tensor& b) {
    const Tensor old = a.clone();
    a.copy_(b);
    b.copy_(old);
  });
  const Tensor a = zeros({2}), b = ones({2});
  swap(a, b);
  CHECK(a.to_vector<float>() == std::vector<float>{1, 1});
  CHECK(b.to_vector<float>() == std::vector<float>{0, 0});
  const auto view = func::compile([](const Tensor& v) {
    Tensor row = v[1];
    row.add_(1);
    return row;
  });
  const Tensor m = zeros({2, 2});
  view(m).fill_(5);
  CHECK(m.to_vector<float>() == std::vector<float>{0, 0, 5, 5});
  const auto later = func::compile([](const Tensor& v) {  // the old value is read after the write
    const Tensor before = v.exp();
    v.add_(before);
    return before * v;
  });
  const Tensor p = ones({2}), q = ones({2});
  const Tensor before = q.exp();
  q.add_(before);
  CHECK(largest_difference(later(p), before * q) <= 1e-6);
  CHECK(largest_difference(p, q) <= 1e-6);
}

TEST_CASE("a compiled function sees and changes captured tensors") {
  const Tensor count = zeros({}), scale = full({2}, 3.0);
  const auto f = func::compile([&](const Tensor& x) {
    count.add_(1);
    return x * scale;
  });
  const Tensor x = ones({2});
  CHECK(f(x).to_vector<float>() == std::vector<float>{3, 3});
  scale.fill_(4);
  CHECK(f(x).to_vector<float>() == std::vector<float>{4, 4});
  CHECK(count.item<float>() == 2);
  CHECK(f.recordings() == 1);
  nn::Linear layer(2, 2);
  const auto forward = func::compile([&](const Tensor& v) { return layer(v); });
  const NoGradGuard guard;
  const Tensor v = rand({3, 2});
  CHECK(largest_difference(forward(v), layer(v)) <= 1e-6);
  layer->weight.fill_(2);
  CHECK(largest_difference(forward(v), layer(v)) <= 1e-6);
  layer->to(kFloat64);
  CHECK(largest_difference(forward(v.to(kFloat64)), layer(v.to(kFloat64))) <= 1e-12);
}

TEST_CASE("trees and values that are no tensors belong to the signature") {
  const auto f = func::compile([](const TensorDict& d, int n, const std::vector<Tensor>& list) {
    TensorDict out;
    for (const auto& [key, t] : d) out.insert(key + "2", t * n);
    out.insert("last", list.back() + 1);
    return out;
  });
  const auto list = [](std::vector<Tensor> v) { return v; };
  TensorDict d;
  d.insert("a", ones({2}));
  CHECK(f(d, 3, list({zeros({1})})).at("a2").to_vector<float>() == std::vector<float>{3, 3});
  CHECK(f(d, 4, list({zeros({1})})).at("a2").to_vector<float>() == std::vector<float>{4, 4});
  CHECK(f(d, 4, list({ones({1})})).at("last").item<float>() == 2);
  CHECK(f.recordings() == 2);
  f(d, 4, list({zeros({1}), zeros({1})}));
  CHECK(f.recordings() == 3);
  TensorDict e;
  e.insert("a", ones({2}));  // another dict with the same names
  f(e, 4, list({zeros({1})}));
  CHECK(f.recordings() == 3);
  e.insert("b", ones({2}));
  CHECK(f(e, 4, list({zeros({1})})).keys() == std::vector<std::string>{"a2", "b2", "last"});
}

TEST_CASE("a whole training step compiles") {
  check_training<optim::Adam>(1, 8, optim::AdamOptions(1e-2));
  check_training<optim::Adam>(6, 8, optim::AdamOptions(1e-2).amsgrad(true).weight_decay(0.1));
  check_training<optim::AdamW>(37, 40, optim::AdamWOptions(1e-2));
  check_training<optim::SGD>(5, 8, optim::SGDOptions(1e-2));
  check_training<optim::SGD>(5, 8, optim::SGDOptions(1e-2).momentum(0.9).nesterov(true));
  check_training<optim::RMSprop>(5, 8, optim::RMSpropOptions(1e-2).centered(true).momentum(0.5));
  check_training<optim::Adagrad>(5, 8, optim::AdagradOptions(1e-2).initial_accumulator_value(0.1));
}

TEST_CASE("arguments that are the optimizer's parameters, and others that are not") {
  const NoGradGuard guard;
  const auto models = nets(4, 16, 8, 5);
  Trainer<optim::Adam, optim::AdamOptions> plain(models, {1e-2}), fast(models, {1e-2});
  const auto step = func::compile(
      [&](const TensorDict& p, const Tensor& x, const Tensor& y) { return fast.step(p, x, y); });
  const TensorDict others = func::stack_module_state(nets(8, 16, 8, 5)).params;
  TensorDict other;
  for (const auto& [name, p] : others) other.insert(name, p.narrow(0, 4, 4).contiguous());
  const Tensor x = rand({4, 24, 16}), y = randint(5, {4, 24});
  const auto both = [&](bool own) {
    const Tensor expected = plain.step(own ? plain.params : other, x, y);
    CHECK(largest_difference(step(own ? fast.params : other, x, y), expected) <= 1e-6);
    for (const auto& [name, p] : plain.params)
      CHECK(largest_difference(fast.params.at(name), p) <= 2e-6);
  };
  for (const bool own : {true, false, true, false}) both(own);
  CHECK(step.recordings() == 2);
}

TEST_CASE("the optimizer works in the blocks of the members and in place") {
  const NoGradGuard guard;
  Trainer<optim::Adam, optim::AdamOptions> t(nets(37, 16, 80, 5), {1e-2});
  const auto step = func::compile(
      [&](const TensorDict& p, const Tensor& x, const Tensor& y) { return t.step(p, x, y); });
  step(t.params, rand({37, 24, 16}), randint(5, {37, 24}));
  const std::string text = step.text();
  INFO(text);
  const auto map = text.find("= map(");
  REQUIRE(map != std::string::npos);
  CHECK(text.find("= map(", map + 1) == std::string::npos);
  CHECK(text.find("blocks of 37") == std::string::npos);
  // No optimizer step stands outside of the map, and the gradients never exist as a whole.
  for (auto at = text.find("optimizer_step"); at != std::string::npos;
       at = text.find("optimizer_step", at + 1)) {
    const auto line = text.rfind('\n', at) + 1;
    CHECK(text.compare(line, 4, "    ") == 0);
  }
  CHECK(step.workspace_bytes() < 4 * 37 * (16 * 80 + 80 * 5) * 2);
}

TEST_CASE("products take relu's derivative and the bias's gradient along") {
  const NoGradGuard guard;
  const auto loss = [](const Tensor& w, const Tensor& b, const Tensor& x) {
    Tensor h = x;
    for (int layer = 0; layer < 3; ++layer) h = linear(h, w, b).relu();
    return h.square().sum();
  };
  const Tensor w = randn({20, 20}, kFloat64), b = randn({20}, kFloat64);
  const auto gradient = func::grad<0, 1>(loss);
  const auto compiled = func::compile(gradient);
  for (const std::int64_t rows : {1, 30, 5000}) {  // one after the other, not that many are summed
    const Tensor x = randn({rows, 20}, kFloat64);
    const auto [gw, gb] = compiled(w, b, x);
    const auto [ew, eb] = gradient(w, b, x);
    CHECK((gw - ew).abs().max().item<double>() <= 1e-12 * ew.abs().max().item<double>());
    CHECK((gb - eb).abs().max().item<double>() <= 1e-12 * eb.abs().max().item<double>());
    const std::string text = compiled.text();
    const bool sums = rows > 1 && rows <= 4096;  // of one row there is nothing to sum
    const std::string fused = sums ? "= matmul+relu_grad+sum(" : "= matmul+relu_grad(";
    CHECK(text.find(fused) != std::string::npos);
  }
}

TEST_CASE("numbers take the place of tensors full of them, with the same bits") {
  const NoGradGuard guard;
  for (const DType dtype : {kFloat32, kFloat64, kFloat16, kInt64}) {
    CAPTURE(dtype);
    const Tensor x = randn({4, 3}).mul(100).to(dtype);
    using F = Tensor (*)(const Tensor&);
    const F folds[] = {
        [](const Tensor& t) { return t * t.full_like(3).div(7); },
        [](const Tensor& t) { return t.full_like(3).mul(0.1).add(1) * t; },
        [](const Tensor& t) { return t.full_like(2) + t; },
        [](const Tensor& t) { return t / t.full_like(7); },
        [](const Tensor& t) { return t * 2 * (t.full_like(5) * t.full_like(3)); },
        [](const Tensor& t) { return t.square() * t.full_like(1); },
        [](const Tensor& t) { return t + t.full_like(9).t().t(); },
    };
    for (const F f : folds) {
      const auto compiled = func::compile(f);
      CHECK(equal(compiled(x), f(x)));
      if (dtype == kFloat32 || dtype == kFloat64)
        CHECK(compiled.text().find("full_like(") == std::string::npos);
    }
    const F others[] = {
        // where the order counts, and where what is full leaves
        [](const Tensor& t) { return t.full_like(3).div(t.square() + 1); },
        [](const Tensor& t) { return t.full_like(3).sub(t); },
        [](const Tensor& t) { return t.full_like(3).div(7).add(t.full_like(1)); },
        [](const Tensor& t) { return t.full_like(3).matmul(t.t()); },
    };
    for (const F f : others)
      if (dtype != kInt64 || f != others[3]) CHECK(equal(func::compile(f)(x), f(x)));
  }
}

TEST_CASE("what changes nothing is not computed") {
  const NoGradGuard guard;
  const Tensor x = randn({5, 1, 3});
  const auto calls = [&](auto f) {
    const auto compiled = func::compile(f);
    const Tensor y = compiled(x);
    CHECK(equal(y, f(x)));
    const std::string text = compiled.text();
    CHECK(y.data_ptr<float>() != x.data_ptr<float>());
    return std::count(text.begin(), text.end(), '(');
  };
  const auto at_least = calls([](const Tensor& t) { return t.exp().squeeze(1).sin(); });
  CHECK(calls([](const Tensor& t) { return t.exp().sum(IntArrayRef{1}).sin(); }) == at_least);
  CHECK(calls([](const Tensor& t) { return t.exp().amax(IntArrayRef{1}).div(1).sin(); }) ==
        at_least);
  CHECK(calls([](const Tensor& t) { return t.exp().mean(IntArrayRef{1}).mul(1).sin(); }) ==
        at_least);
  calls([](const Tensor& t) { return t.exp().permute({2, 1, 0}).sum(IntArrayRef{1}).sin(); });
  calls([](const Tensor& t) { return t.exp().permute({2, 1, 0}).mul(1).sum(IntArrayRef{0}); });
  // Results are tensors of their own, also where they are what something else is.
  const auto f = func::compile([](const Tensor& t) {
    const Tensor y = t.exp(), z = y.sum(IntArrayRef{1});
    y.add_(1);
    return std::tuple(y, z, t.mul(1), t.sum(IntArrayRef{1}));
  });
  const auto [y, z, same, sum] = f(x);
  CHECK(equal(y, x.exp() + 1));
  CHECK(equal(z, x.exp().squeeze(1)));
  CHECK(equal(same, x));
  CHECK(equal(sum, x.squeeze(1)));
  for (const Tensor& t : {same, sum}) t.zero_();
  CHECK(x.abs().sum().item<double>() > 0);
  const auto in_place = func::compile([](const Tensor& t) {
    const Tensor sum = t.sum(IntArrayRef{1});
    t.mul_(2);
    return sum + 0.5;
  });
  const Tensor mine = x.clone();
  CHECK(equal(in_place(mine), x.squeeze(1) + 0.5));
  CHECK(equal(mine, x * 2));
}

TEST_CASE("chains of elementwise ops on large operands run in blocks of rows") {
  const NoGradGuard guard;
  const int threads = num_threads();
  const auto chain = [](const Tensor& x, const Tensor& row, const Tensor& column, const Tensor& t) {
    const Tensor a = (x * row + column).tanh();
    const Tensor b = where(a.gt(t.t()), a, a.square() - 1);
    const Tensor total = (b * t.t()).sum(1);  // of each row
    return std::tuple(b, total.abs().sqrt() + 1, b.amax(1), b.sum(0), a.gt(0).to(kInt64) * 3);
  };
  // 1,001 rows of 1.2 KB: 54 in a block, and some are left over.
  const Tensor x = randn({1001, 300}), row = randn({300}), column = randn({1001, 1}),
               t = randn({300, 1001});
  const auto compiled = func::compile(chain);
  const auto expected = chain(x, row, column, t);
  for (const int n : {1, 2, 3, 7}) {
    set_num_threads(n);
    const auto got = compiled(x, row, column, t);
    // What lies between two instructions takes a block for each thread, not all of it.
    CHECK(compiled.workspace_bytes() < n * std::int64_t{1001} * 300 * 4 / 3);
    CHECK(std::get<0>(got).equal(std::get<0>(expected)));
    CHECK(std::get<1>(got).equal(std::get<1>(expected)));
    CHECK(std::get<2>(got).equal(std::get<2>(expected)));
    CHECK(allclose(std::get<3>(got), std::get<3>(expected)));
    CHECK(std::get<4>(got).equal(std::get<4>(expected)));
  }
  set_num_threads(threads);
  const std::string text = compiled.text();
  CHECK(text.find("= map(") != std::string::npos);
  CHECK(text.find(" of 1001 rows in 19 blocks of 54") != std::string::npos);

  // Operands that change: after the last that reads them, in place.
  const auto update = [](const Tensor& p, const Tensor& v, const Tensor& g) {
    v.mul_(0.9).add_(g);
    p.sub_(v * 0.1);
    return (p * p).sum(1);
  };
  const auto compiled_update = func::compile(update);
  const Tensor p = x.clone(), v = zeros_like(x), q = x.clone(), w = zeros_like(x);
  for (int i = 0; i < 3; ++i) {
    const Tensor a = update(p, v, x), b = compiled_update(q, w, x);
    CHECK(a.equal(b));
  }
  CHECK(p.equal(q));
  CHECK(v.equal(w));
  CHECK(compiled_update.text().find("rows in") != std::string::npos);

  // One op alone, and small operands, stay as they are.
  const auto single = func::compile([](const Tensor& y) { return y.exp(); });
  CHECK(single(x).equal(x.exp()));
  CHECK(single.text().find("map(") == std::string::npos);
  const Tensor small = randn({10, 300});
  const auto two = func::compile([](const Tensor& y) { return y.exp().square(); });
  CHECK(two(small).equal(small.exp().square()));
  CHECK(two.text().find("map(") == std::string::npos);
}

TEST_CASE("a compiled step needs no more memory than its blocks") {
  const NoGradGuard guard;
  Trainer<optim::Adam, optim::AdamOptions> t(nets(64, 16, 64, 5), {1e-2});
  const auto step = func::compile(
      [&](const TensorDict& p, const Tensor& x, const Tensor& y) { return t.step(p, x, y); });
  const Tensor x = rand({64, 24, 16}), y = randint(5, {64, 24});
  step(t.params, x, y);
  empty_cache();
  reset_peak_memory_stats();
  const std::int64_t before = memory_stats().reserved;
  for (int i = 0; i < 3; ++i) step(t.params, x, y);
  CHECK(memory_stats().peak_reserved - before < 64 << 10);  // the losses, and kernels' own
  // All temporaries together are less than one activation of all members.
  CHECK(step.workspace_bytes() < 64 * 24 * 64 * 4 * num_threads());
}

TEST_CASE("hyper-parameters may change between compiled steps") {
  const NoGradGuard guard;
  const auto models = nets(3, 16, 8, 5);
  Trainer<optim::SGD, optim::SGDOptions> plain(models, {0.1}), fast(models, {0.1});
  const auto step = func::compile(
      [&](const TensorDict& p, const Tensor& x, const Tensor& y) { return fast.step(p, x, y); });
  const Tensor x = rand({3, 24, 16}), y = randint(5, {3, 24});
  const auto both = [&] {
    plain.step(plain.params, x, y);
    step(fast.params, x, y);
    for (const auto& [name, p] : plain.params)
      CHECK(largest_difference(fast.params.at(name), p) <= 2e-6);
  };
  both();
  plain.opt.options().lr(0.5);
  fast.opt.options().lr(0.5);
  both();
  CHECK(step.recordings() == 1);
  plain.opt.options().momentum(0.9);
  fast.opt.options().momentum(0.9);
  both();
  both();
  CHECK(step.recordings() == 2);
  fast.opt.load_state_dict(plain.opt.state_dict());
  both();
}

TEST_CASE("an optimizer may be replaced between compiled steps") {
  const NoGradGuard guard;
  const Tensor p = ones({3}), q = ones({3});
  auto opt = std::make_unique<optim::SGD>(std::vector<Tensor>{p}, 0.5);
  const auto step = func::compile([&](const Tensor& g) { opt->step(std::vector<Tensor>{g}); });
  step(ones({3}));
  CHECK(p.to_vector<float>() == std::vector<float>{0.5, 0.5, 0.5});
  auto next = std::make_unique<optim::SGD>(std::vector<Tensor>{q}, 0.25);
  opt = std::move(next);
  step(ones({3}));
  CHECK(p.to_vector<float>() == std::vector<float>{0.5, 0.5, 0.5});
  CHECK(q.to_vector<float>() == std::vector<float>{0.75, 0.75, 0.75});
}

TEST_CASE("the mode of a module that no shared pointer holds belongs to the signature") {
  const NoGradGuard guard;
  nn::DropoutImpl drop(1.0);
  const auto f = func::compile([&](const Tensor& x) { return drop.forward(x); });
  CHECK(f(ones({2})).to_vector<float>() == std::vector<float>{0, 0});
  drop.eval();
  CHECK(f(ones({2})).to_vector<float>() == std::vector<float>{1, 1});
}

TEST_CASE("results do not depend on the number of threads") {
  const NoGradGuard guard;
  const int before = num_threads();
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    Trainer<optim::Adam, optim::AdamOptions> t(nets(37, 16, 40, 5), {1e-2});
    const auto step = func::compile(
        [&](const TensorDict& p, const Tensor& x, const Tensor& y) { return t.step(p, x, y); });
    manual_seed(3);
    for (int i = 0; i < 3; ++i) step(t.params, randn({37, 24, 16}), randint(5, {37, 24}));
    results.push_back(t.params.at("l1.weight").to_vector<float>());
  }
  set_num_threads(before);
  for (const auto& r : results) CHECK(r == results[0]);
}

TEST_CASE("compiled draws are those of the function") {
  const auto f = [](const Tensor& x) {
    Generator own(9);
    return x + rand({3}) + rand({3}, {}, own) + rand({3}, {}, own);
  };
  const auto g = func::compile(f);
  const Tensor x = zeros({3});
  std::vector<std::vector<float>> a, b;
  manual_seed(1);
  for (int i = 0; i < 3; ++i) a.push_back(f(x).to_vector<float>());
  const auto state = get_rng_state();
  manual_seed(1);
  for (int i = 0; i < 3; ++i) b.push_back(g(x).to_vector<float>());
  CHECK(a == b);
  CHECK(get_rng_state() == state);
  for (const Randomness mode : {Randomness::different, Randomness::same}) {
    const auto noisy = [&](const Tensor& v) {
      return func::vmap(
          [](const Tensor& one) {
            return dropout(one, 0.5, true) + rand({40, 40});
          },
          0, 0, VmapOptions().randomness(mode))(v);
    };
    const auto compiled = func::compile(noisy);
    const Tensor v = ones({37, 40, 40});
    manual_seed(2);
    const Tensor p = noisy(v), p2 = noisy(v);
    manual_seed(2);
    const Tensor q = compiled(v), q2 = compiled(v);
    CHECK(largest_difference(q, p) == 0);
    CHECK(largest_difference(q2, p2) == 0);
    CHECK(compiled.text().find("blocks of 37") == std::string::npos);
  }
}

TEST_CASE("buffers of stacked modules are updated in blocks") {
  struct NormNetImpl : nn::Module {
    NormNetImpl()
        : l(register_module("l", nn::Linear(32, 32))),
          n(register_module("n", nn::BatchNorm1d(32))) {}
    Tensor forward(const Tensor& x) { return n->forward(l->forward(x)); }
    nn::Linear l;
    nn::BatchNorm1d n;
  };
  const NoGradGuard guard;
  manual_seed(4);
  std::vector<std::shared_ptr<NormNetImpl>> models;
  for (int m = 0; m < 21; ++m) models.push_back(std::make_shared<NormNetImpl>());
  auto a = func::stack_module_state(models), b = func::stack_module_state(models);
  const auto net = models[0];
  const auto run = [net](const TensorDict& params, const TensorDict& buffers, const Tensor& x) {
    return func::vmap(
        [net](const TensorDict& p, const TensorDict& s, const Tensor& v) {
          return func::functional_call(*net, {p, s}, v);
        },
        {0, 0, std::nullopt})(params, buffers, x);
  };
  const auto compiled = func::compile(run);
  const Tensor x = randn({64, 32});
  const auto compare = [&] {
    const Tensor expected = run(a.params, a.buffers, x);
    CHECK(largest_difference(compiled(b.params, b.buffers, x), expected) <= 1e-5);
    for (const auto& [name, t] : a.buffers)
      CHECK(largest_difference(b.buffers.at(name), t) <= 1e-6);
  };
  compare();
  compare();
  CHECK(compiled.recordings() == 1);
  net->eval();
  compare();
  CHECK(compiled.recordings() == 2);
  net->train();
  compare();
  CHECK(compiled.recordings() == 2);
}

TEST_CASE("transforms inside and outside of compile") {
  const auto f = [](const Tensor& x) { return (x.sin() * x).sum(); };
  const auto g = func::compile(func::grad(f));
  const Tensor x = rand({5});
  CHECK(largest_difference(g(x), func::grad(f)(x)) <= 1e-6);
  const auto h = func::compile(func::hessian(f));
  CHECK(largest_difference(h(x), func::hessian(f)(x)) <= 1e-6);
  const auto each = func::compile(func::vmap(func::vmap(func::grad(f))));
  const Tensor y = rand({7, 3, 5});
  CHECK(largest_difference(each(y), func::vmap(func::vmap(func::grad(f)))(y)) <= 1e-6);
  // Under a transform it is the function itself.
  const auto c = func::compile(f);
  CHECK(largest_difference(func::grad(c)(x), func::grad(f)(x)) <= 1e-6);
  CHECK(largest_difference(func::vmap(c)(y[0]), func::vmap(f)(y[0])) <= 1e-6);
  CHECK(c.recordings() == 0);
  const auto outer = func::compile([&](const Tensor& v) { return c(v) * 2; });
  CHECK(largest_difference(outer(x), f(x) * 2) <= 1e-6);
  // Axes other than 0, and outputs that do not depend on the example.
  const auto axes = [](const Tensor& v, const Tensor& w) {
    return func::vmap([](const Tensor& p, const Tensor& q) { return std::pair(p * q, q.exp()); },
                      {1, std::nullopt}, {1, std::nullopt})(v, w);
  };
  const auto ca = func::compile(axes);
  const Tensor v = rand({4, 9}), w = rand({4});
  CHECK(largest_difference(ca(v, w).first, axes(v, w).first) <= 1e-6);
  CHECK(largest_difference(ca(v, w).second, axes(v, w).second) <= 1e-6);
}

TEST_CASE("what cannot be compiled says so") {
  const Tensor x = ones({2});
  const auto item = func::compile([](const Tensor& v) { return v * v[0].item<float>(); });
  CHECK_THROWS_WITH_AS(item(x), doctest::Contains("compile"), TransformError);
  const Tensor threshold = ones({});
  const auto captured = func::compile([&](const Tensor& v) { return v * threshold.item<float>(); });
  CHECK_THROWS_WITH_AS(captured(x), doctest::Contains("where()"), TransformError);
  const auto peeks = func::compile([](const Tensor& v) { return func::peek(v); });
  CHECK_THROWS_WITH_AS(peeks(x), doctest::Contains("peek"), TransformError);
  const auto branches = func::compile([](const Tensor& v) {
    return func::cond(
        v.sum() > 0, [](const Tensor& t) { return t; }, [](const Tensor& t) { return -t; }, v);
  });
  CHECK_THROWS_WITH_AS(branches(x), doctest::Contains("where()"), TransformError);
  const auto mapped = func::compile([](const Tensor& v) {
    return func::vmap([](const Tensor& one) {
      return func::cond(
          one > 0, [](const Tensor& t) { return t; }, [](const Tensor& t) { return -t; }, one);
    })(v);
  });
  CHECK(mapped(-x).to_vector<float>() == std::vector<float>{1, 1});  // both branches, selected
  const auto again = func::compile(func::grad([](const Tensor& v) {
    return autograd::checkpoint([](const Tensor& t) { return t.sin().sum(); }, v);
  }));
  CHECK_THROWS_WITH_AS(again(x), doctest::Contains("leave checkpoint"), TransformError);
  const auto base = func::compile([](const Tensor& v) { v.sum().backward(); });
  CHECK_THROWS_WITH_AS(base(x), doctest::Contains("grad_and_value"), TransformError);
  const auto dynamic = func::compile([](const Tensor& v) { return v.nonzero(); });
  CHECK_THROWS_WITH_AS(dynamic(x), doctest::Contains("size of the result"), TransformError);
  const auto tracked = func::compile([](const Tensor& v) { return v * 2; });
  const Tensor leaf = ones({2}).requires_grad_();
  CHECK_THROWS_WITH_AS(tracked(leaf), doctest::Contains("NoGradGuard"), AutogradError);
  const auto write = func::compile([](const Tensor& a, const Tensor& b) { a.add_(b); });
  CHECK_THROWS_WITH_AS(write(x, x), doctest::Contains("shares its memory"), TransformError);
  CHECK(x.to_vector<float>() == std::vector<float>{1, 1});
  const Tensor big = ones({4});
  CHECK_THROWS_WITH_AS(write(big.narrow(0, 0, 2), big.narrow(0, 1, 2)),
                       doctest::Contains("shares its memory"), TransformError);
  // Kernels may throw, also in blocks; the next call is not affected.
  const auto pick = func::compile([](const Tensor& t, const Tensor& i) {
    return func::vmap([](const Tensor& a, const Tensor& b) { return a.index_select(0, b); })(t, i);
  });
  const Tensor table = rand({64, 50, 8}), good = zeros({64, 40}, kInt64);
  Tensor bad = good.clone();
  bad[60][3].fill_(50);
  pick(table, good);
  CHECK_THROWS_AS(pick(table, bad), IndexError);
  CHECK(largest_difference(pick(table, good)[7][3], table[7][0]) == 0);
  CHECK(thread_state().current == nullptr);
  CHECK(thread_state().host_log == nullptr);
  CHECK(thread_state().tape == nullptr);
}

TEST_CASE("calls of a compiled function from several threads") {
  const auto f = func::compile([](const Tensor& x) { return x * 2 + 1; });
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const Tensor y = f(full({8}, t));
        if (y.to_vector<float>() != std::vector<float>(8, 2.0f * static_cast<float>(t) + 1))
          ++wrong;
      }
    });
  for (auto& t : threads) t.join();
  CHECK(wrong == 0);
}
