// Several threads: one module with different parameters, transforms side by side, graphs that cross
// threads, shared leaves, and values of a transform on the wrong thread.
#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <tutti/autograd/autograd.h>
#include <tutti/core/interpreter.h>
#include <tutti/core/parallel.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "behaviour.h"

using namespace tutti;
using func::functional_call;
using func::grad;
using func::vmap;
using std::nullopt;

namespace {

constexpr int threads = 8;
// ThreadSanitizer slows everything down some ten times.
constexpr int calls = tutti_test::sanitized ? 100 : 1000;

/// Runs f(0), ..., f(n - 1) on n threads that start together; exceptions count as wrong results.
template <class F>
int wrong_on_threads(int n, F f) {
  std::barrier start(n);
  std::atomic<int> wrong{0};
  std::vector<std::thread> pool;
  for (int i = 0; i < n; ++i)
    pool.emplace_back([&, i] {
      start.arrive_and_wait();
      try {
        wrong += f(i);
      } catch (const std::exception& e) {
        MESSAGE("thread " << i << ": " << e.what());
        wrong += 1000;
      }
    });
  for (std::thread& t : pool) t.join();
  return wrong;
}

TensorDict filled(const nn::Module& m, double value) {
  TensorDict d;
  for (auto [name, t] : m.named_parameters()) d.insert(name, full_like(t.detach(), value));
  return d;
}

}  // namespace

TEST_CASE("functional_call on one module from many threads, each with its own parameters") {
  nn::Sequential net(nn::Linear(4, 8), nn::ReLU(), nn::Linear(8, 2));
  const Tensor x = ones({3, 4});
  const Tensor own = net(x).detach();
  const int wrong = wrong_on_threads(threads, [&](int t) {
    int bad = 0;
    for (int i = 0; i < calls; ++i) {
      const double v = 0.25 * (1 + (t * 7 + i) % 13);
      Tensor y = functional_call(net, filled(*net, v), x);
      // hidden: 4v + v = 5v; out: 8 * 5v * v + v
      const double expected = 40 * v * v + v;
      for (double got : y.to_vector<double>()) bad += got != expected;
      if (i % 50 == 0) bad += !tutti_test::same(net(x).detach(), own);
    }
    return bad;
  });
  CHECK(wrong == 0);
  CHECK_SAME(net(x).detach(), own);
}

TEST_CASE("vmap(grad(...)) from many threads, with one module and captured data") {
  nn::Linear net(3, 2);
  net->to(kFloat64);
  const Tensor x = arange(12, kFloat64).reshape({4, 3});
  auto loss = [&](const TensorDict& p, const Tensor& v) {
    return functional_call(net, p, v).square().sum();
  };
  const int wrong = wrong_on_threads(threads, [&](int t) {
    int bad = 0;
    for (int i = 0; i < calls; ++i) {
      const double v = 1 + (t * 5 + i) % 11;
      TensorDict p = {{"weight", full({2, 3}, v, kFloat64)}, {"bias", full({2}, v, kFloat64)}};
      TensorDict g = vmap(grad(loss), {nullopt, 0})(p, x);
      for (std::int64_t row = 0; row < 4; ++row) {
        // y = v (sum of row + 1); d/dw = 2 y x, d/db = 2 y
        const double y = v * (static_cast<double>(9 * row + 3) + 1);
        bad += g.at("bias")[row][1].item<double>() != 2 * y;
        bad += g.at("weight")[row][0][2].item<double>() != 2 * y * static_cast<double>(3 * row + 2);
      }
    }
    return bad;
  });
  CHECK(wrong == 0);
}

TEST_CASE("different transforms at once, with exceptions among them") {
  const int wrong = wrong_on_threads(threads, [&](int t) {
    int bad = 0;
    const Tensor x = full({3}, 1.0 + t, kFloat64);
    auto cube = [](const Tensor& v) { return (v * v * v).sum(); };
    for (int i = 0; i < calls / 4; ++i) {
      switch ((t + i) % 4) {
        case 0:
          bad += grad(cube)(x)[0].item<double>() != 3 * (1.0 + t) * (1 + t);
          break;
        case 1:
          bad += func::jvp(cube, std::tuple(x), std::tuple(ones_like(x))).second.item<double>() !=
                 9 * (1.0 + t) * (1 + t);
          break;
        case 2:
          bad += vmap(grad([](const Tensor& v) { return v * v; }))(x)[2].item<double>() !=
                 2.0 * (1 + t);
          break;
        default:
          try {
            grad([](const Tensor& v) { return v.reshape({7, 7}); })(x);
            ++bad;
          } catch (const Error&) {
          }
      }
      bad += thread_state().current != nullptr;
    }
    return bad;
  });
  CHECK(wrong == 0);
}

namespace {

/// Nested transforms over what they share: a module, captured data and the pool.
std::vector<std::function<Tensor()>> nested_problems() {
  auto net = std::make_shared<nn::Sequential>(nn::Linear(3, 4), nn::Tanh(), nn::Linear(4, 1));
  (*net)->to(kFloat64);
  const Tensor x = arange(12, kFloat64).reshape({4, 3}) / 7;
  auto loss = [net](const Tensor& v) { return (*net)->forward(v).square().sum(); };
  auto smooth = [](const Tensor& v) { return (v.sin() * v * v.exp()).sum() * v.prod(); };
  auto of_parameters = [net](const TensorDict& p, const Tensor& v) {
    return functional_call(**net, p, v).square().sum();
  };
  TensorDict p;
  for (auto [name, t] : (*net)->named_parameters()) p.insert(name, t.detach());
  return {
      [=] { return vmap(func::hessian(loss))(x); },
      [=] { return func::jacfwd(func::jacrev(smooth))(x[1]); },
      [=] { return func::jacrev(func::jacfwd(smooth))(x[2]); },
      [=] {
        return func::jvp(grad([=](const Tensor& v) { return vmap(loss)(v).prod(); }), std::tuple(x),
                         std::tuple(x.cos()))
            .second;
      },
      [=] {
        return vmap(grad(of_parameters), {nullopt, 0})(p, x).at("0.weight");
      },
      [=] {
        return grad([=](const Tensor& v) {
          return vmap([](const Tensor& row) {
                   return func::while_loop([](const Tensor& y) { return y.sum() < 9; },
                                           [](const Tensor& y) { return y * 1.5 + 0.1; }, row);
                 })(v)
              .sum();
        })(x);
      },
      [=] {
        return vmap(grad([=](const Tensor& v) { return autograd::checkpoint(smooth, v); }))(x);
      },
      [=] {
        Tensor leaf = x.clone().requires_grad_();
        vmap(func::jacrev([](const Tensor& v) { return v.cumsum(0).tanh(); }))(leaf)
            .sum()
            .backward();
        return leaf.grad();
      },
  };
}

}  // namespace

// Run for a minute by the slow suite.
TEST_CASE("four threads in nested transforms") {
  const char* wanted = std::getenv("TUTTI_SECONDS");
  const double seconds = wanted ? std::atof(wanted) : 0.3;
  const auto problems = nested_problems();
  std::vector<Tensor> expected;
  for (const auto& f : problems) expected.push_back(f());
  std::atomic<long> done{0};
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  const int wrong = wrong_on_threads(4, [&](int t) {
    int bad = 0;
    for (std::size_t i = static_cast<std::size_t>(t); std::chrono::steady_clock::now() < end;
         i += static_cast<std::size_t>(2 * t + 1)) {
      const std::size_t k = i % problems.size();
      bad += !tutti_test::same(problems[k](), expected[k]);
      bad += thread_state().current != nullptr;
      ++done;
    }
    return bad;
  });
  CHECK(wrong == 0);
  if (wanted)
    std::printf("%ld results of four threads in %g s, %d wrong\n", done.load(), seconds, wrong);
}

TEST_CASE("the first calls of many threads meet nothing half-made") {
  for (int round = 0; round < 20; ++round) {
    nn::Sequential net(nn::Linear(2, 2), nn::Linear(2, 1));
    const int wrong = wrong_on_threads(threads, [&](int t) {
      Tensor y = functional_call(net, filled(*net, t), ones({1, 2}));
      return y.item<double>() != 2 * (3.0 * t) * t + t;
    });
    CHECK(wrong == 0);
  }
}

TEST_CASE("a graph built on one thread, extended on a second, differentiated on a third") {
  Tensor x = tensor(std::vector<double>{1, 2}, kFloat64).requires_grad_();
  Tensor y, z;
  std::thread([&] { y = (x * x).exp(); }).join();
  std::thread([&] { z = (y * x.sin()).sum() + y.sum(); }).join();
  std::thread([&] { z.backward(); }).join();
  Tensor v = x.detach(), e = (v * v).exp();
  CHECK_CLOSE(x.grad(), 2 * v * e * (v.sin() + 1) + e * v.cos(), 1e-13);
  std::thread([w = std::move(z)]() mutable { w.reset(); }).join();  // and freed on a fourth
}

TEST_CASE("a pullback works on another thread, and on several at once") {
  Tensor x = tensor(std::vector<double>{1, 2}, kFloat64);
  auto [y, pull] = func::vjp([](const Tensor& t) { return t * t * t; }, x);
  auto shared = pull;
  const int wrong = wrong_on_threads(threads, [&](int t) {
    int bad = 0;
    for (int i = 0; i < calls / 10; ++i) {
      Tensor g = std::get<0>(shared(full({2}, 1.0 + t, kFloat64)));
      bad += g[1].item<double>() != 12.0 * (1 + t);
    }
    return bad;
  });
  CHECK(wrong == 0);
}

TEST_CASE("a long graph whose halves come from two threads is freed iteratively") {
  Tensor x = tensor(1.0, kFloat64).requires_grad_(), y = x;
  const int n = tutti_test::sanitized ? 5'000 : 50'000;
  for (int part = 0; part < 2; ++part)
    tutti_test::run_on_small_stack([&] {
      for (int i = 0; i < n; ++i) y = y * 1.0;
    });
  tutti_test::run_on_small_stack([&] {
    y.backward();
    y.reset();
  });
  CHECK_VALUES(x.grad(), 1);
}

TEST_CASE("threads that share a leaf add to its gradient without losing any") {
  Tensor w = tensor(std::vector<double>{1, 2}, kFloat64).requires_grad_();
  const int n = calls / 10;
  const int wrong = wrong_on_threads(threads, [&](int t) {
    for (int i = 0; i < n; ++i) (w * static_cast<double>(t + 1)).sum().backward();
    return 0;
  });
  CHECK(wrong == 0);
  CHECK_VALUES(w.grad(), 36.0 * n, 36.0 * n);
}

TEST_CASE("threads read one tensor and its views at once, with grad mode on") {
  Tensor base = arange(12, kFloat64).reshape({3, 4}).requires_grad_();
  Tensor derived = base * 2, view = derived.t()[1];
  derived.add_(1);  // the view's record is brought up to date by whoever reads first
  const int wrong = wrong_on_threads(threads, [&](int) {
    int bad = 0;
    for (int i = 0; i < calls / 10; ++i) {
      bad += (base * 2).sum().item<double>() != 132;
      bad += view.sum().item<double>() != 33;
      bad += !view.requires_grad();
    }
    return bad;
  });
  CHECK(wrong == 0);
  CHECK_VALUES(view.detach(), 3, 11, 19);
}

TEST_CASE("grad mode and no_grad belong to their thread") {
  Tensor x = ones(1).requires_grad_();
  NoGradGuard guard;
  std::thread([&] { CHECK((x * 2).requires_grad()); }).join();
  CHECK_FALSE((x * 2).requires_grad());
}

TEST_CASE("a value of a running transform is refused on another thread") {
  auto f = [](const Tensor& x) {
    Tensor y = x * 2;
    std::thread([&] {
      CHECK_THROWS_SAYING(x + 1, TransformError, "another thread");
      CHECK_THROWS_SAYING(y.mul_(2), TransformError, "another thread");
      // A transform there, as deep as the one the value belongs to, is another one all the same.
      auto inside = [&](const Tensor& t) { return (t * y).sum(); };
      CHECK_THROWS_SAYING(grad(inside)(ones({1})), TransformError, "another thread");
      CHECK_THROWS_SAYING(vmap(inside)(ones({2, 1})), TransformError, "another thread");
    }).join();
    return (y * y).sum();
  };
  CHECK_VALUES(grad(f)(tensor({1.f})), 8);
  CHECK_VALUES(vmap(f)(tensor({1.f, 2.f})), 4, 16);
}

TEST_CASE("without a captured context, a slot on another thread is the module's own") {
  struct Peek : nn::Module {
    Peek() { w = register_parameter("w", ones(1)); }
    Tensor forward() {
      Tensor seen;
      std::thread([&] { seen = w.detach() * 1; }).join();
      return cat({w.detach(), seen});
    }
    Tensor w;
  };
  Peek m;
  CHECK_VALUES(functional_call(m, {{"w", full({1}, 5.f)}}), 5, 1);
}

TEST_CASE("threads with generators of their own are reproducible") {
  auto draw = [](int t) {
    Generator g(static_cast<std::uint64_t>(t));
    Tensor sum = zeros(3);
    for (int i = 0; i < 50; ++i) sum = sum + randn(3, {}, g);
    return sum;
  };
  std::vector<Tensor> expected;
  for (int t = 0; t < threads; ++t) expected.push_back(draw(t));
  const int wrong = wrong_on_threads(threads, [&](int t) {
    return !tutti_test::same(draw(t), expected[static_cast<std::size_t>(t)]);
  });
  CHECK(wrong == 0);
}

TEST_CASE("the default generator gives every draw once") {
  manual_seed(0);
  const int n = 100;
  std::vector<std::vector<std::int64_t>> drawn(threads);
  const int wrong = wrong_on_threads(threads, [&](int t) {
    for (int i = 0; i < n; ++i)
      drawn[static_cast<std::size_t>(t)].push_back(
          randint(0, std::int64_t{1} << 60, {1}).item<std::int64_t>());
    return 0;
  });
  CHECK(wrong == 0);
  std::vector<std::int64_t> all;
  for (const auto& d : drawn) all.insert(all.end(), d.begin(), d.end());
  std::sort(all.begin(), all.end());
  CHECK(std::adjacent_find(all.begin(), all.end()) == all.end());
  CHECK(get_rng_state()[1] == static_cast<std::uint64_t>(threads * n));
}

TEST_CASE("large ops from several threads share the pool and agree") {
  manual_seed(1);
  const Tensor a = randn({8, 96, 96}), b = randn({8, 96, 96});
  const Tensor product = a.matmul(b), total = (a * b).sum();
  const int wrong = wrong_on_threads(4, [&](int) {
    int bad = 0;
    for (int i = 0; i < 10; ++i)
      bad += !tutti_test::same(a.matmul(b), product) + !tutti_test::same((a * b).sum(), total);
    return bad;
  });
  CHECK(wrong == 0);
}

TEST_CASE("results do not depend on the number of threads") {
  // Sizes that make every kernel share its work out: long rows, long columns, many results, few.
  manual_seed(2);
  const Tensor line = randn({150'001}), table = randn({3, 41'003}), tall = randn({9'001, 24});
  const Tensor wide = randn({700, 300}), batch = randn({6, 90, 70});
  const Tensor at = randint(5'000, {150'001});
  auto all = [&] {
    manual_seed(3);
    std::vector<Tensor> r;
    for (const Tensor& x : {line, table, tall, wide}) {
      for (const Tensor& y : {x.sum(), x.mean(0), x.sum(-1), x.prod(-1), x.var(0), x.logsumexp(-1)})
        r.push_back(y);
      r.push_back(x.softmax(-1));
      r.push_back(x.cumsum(0));
      r.push_back((x * 1.1).exp().tanh());
    }
    r.push_back(tall.t().sum(0));
    r.push_back(wide.matmul(wide.t()));
    r.push_back(batch.matmul(batch.transpose(1, 2)));
    r.push_back(zeros(5'000).index_add(0, at, line));
    r.push_back(randn({70'001}));
    r.push_back(line.dropout(0.5, true));
    r.push_back(grad([&](const Tensor& x) { return (x.matmul(wide.t()).tanh() * x.sum()).sum(); })(
        wide.slice(0, 0, 300)));
    return r;
  };
  const int before = num_threads();
  set_num_threads(1);
  const std::vector<Tensor> expected = all();
  for (int n : {2, 3, 5}) {
    set_num_threads(n);
    const std::vector<Tensor> got = all();
    for (std::size_t i = 0; i < got.size(); ++i) {
      CAPTURE(n);
      CAPTURE(i);
      CHECK(tutti_test::same(got[i], expected[i]));
    }
  }
  set_num_threads(before);
}

namespace {

/// Threads of an application: some parts on a new thread each, the others here, the last first.
struct OwnThreads : Executor {
  std::atomic<int> loops{0}, parts_run{0};
  void run(std::int64_t parts, void (*part)(void*, std::int64_t), void* context) override {
    ++loops;
    std::vector<std::thread> started;
    for (std::int64_t i = parts; i-- > 0;) {
      ++parts_run;
      if (i % 2 == 1)
        started.emplace_back([=] { part(context, i); });
      else
        part(context, i);
    }
    for (std::thread& t : started) t.join();
  }
};

}  // namespace

TEST_CASE("loops run on the application's executor, with the same results") {
  struct Restore {
    int threads = num_threads();
    ~Restore() {
      set_executor(nullptr);
      set_num_threads(threads);
    }
  } restore;
  manual_seed(4);
  const Tensor x = randn({64, 32, 32}), w = randn({64, 32, 32});
  const auto compute = [&] { return x.matmul(w).exp().sum(2).softmax(1).to_vector<float>(); };
  set_num_threads(3);
  const std::vector<float> expected = compute();
  const auto executor = std::make_shared<OwnThreads>();
  set_executor(executor);
  CHECK(compute() == expected);
  CHECK(executor->loops > 0);
  CHECK(executor->parts_run > executor->loops);
  CHECK(executor->parts_run <= 3 * executor->loops);
  CHECK(wrong_on_threads(4, [&](int) { return compute() == expected ? 0 : 1; }) == 0);

  std::atomic<int> inside{0};  // loops within a part stay on its thread
  const int before = executor->loops;
  parallel_for(2, 1, [&](std::int64_t begin, std::int64_t end) {
    for (; begin < end; ++begin)
      parallel_for(100, 1, [&](std::int64_t from, std::int64_t to) {
        inside += static_cast<int>(to - from);
      });
  });
  CHECK(inside == 200);
  CHECK(executor->loops == before + 1);

  set_executor(nullptr);
  const int after = executor->loops;
  CHECK(compute() == expected);
  CHECK(executor->loops == after);
  CHECK(executor.use_count() == 1);
}
