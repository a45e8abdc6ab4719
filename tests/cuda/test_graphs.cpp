// Compiled functions on the device as CUDA graphs: the same bits as without, whatever moves,
// whichever stream it is, and whichever call fails; what is not captured; memory.
#include <cstdio>
#include <future>
#include <optional>

#include <tutti/autograd/autograd.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "../test.h"
#include "gpu.h"

using namespace tutti;
using namespace tutti_test;
using std::nullopt;

namespace {

const CompileOptions kPlain = CompileOptions().cuda_graphs(false);

Tensor on_device(const Tensor& x) { return x.to(kCUDA); }

/// An ensemble of perceptrons on the device, its optimizer, and its training step.
struct Training {
  explicit Training(const CompileOptions& options) {
    manual_seed(1);
    for (int i = 0; i < 3; ++i) {
      models.push_back(nn::Sequential(nn::Linear(5, 8), nn::Tanh(), nn::Linear(8, 3)));
      models.back()->to(kCUDA);
    }
    state = func::stack_module_state(models);
    adam.emplace(state.params, optim::AdamOptions(1e-2));
    const auto loss = [model = models[0]](const TensorDict& p, const Tensor& a, const Tensor& b) {
      return nn::functional::cross_entropy(func::functional_call(model, p, a), b);
    };
    const auto gradients = func::vmap(func::grad_and_value(loss), {0, nullopt, nullopt});
    step.emplace(
        [gradients, this](const TensorDict& p, const Tensor& a, const Tensor& b) {
          auto [grads, losses] = gradients(p, a, b);
          adam->step(grads);
          return losses;
        },
        options);
  }
  Tensor run(const Tensor& x, const Tensor& y) const { return (*step)(state.params, x, y); }

  using Step = std::function<Tensor(const TensorDict&, const Tensor&, const Tensor&)>;
  std::vector<nn::Sequential> models;
  func::StackedState state;
  std::optional<optim::Adam> adam;
  std::optional<func::Compiled<Step>> step;
};

/// Something with several kernels, products and scratch memory.
Tensor several(const Tensor& x, const Tensor& w) {
  const Tensor h = (x.matmul(w).tanh() * 2 + 1).exp();
  return h.softmax(1).sum(0) + h.t().matmul(x).amax(1);
}
Tensor input(std::uint64_t seed, std::int64_t rows = 6) {
  manual_seed(seed);
  return on_device(randn({rows, 4}));
}

struct Blocks {  // of memory, which must be as many afterwards
  Blocks() : before(now()) {}
  ~Blocks() { CHECK(now() == before); }
  static std::int64_t now() {
    cuda::synchronize();
    cuda::empty_cache();
    return cuda::memory_stats().blocks;
  }
  const std::int64_t before;
};

}  // namespace

TEST_CASE("graphs: a training step is launched by one, and gives the same bits") {
  const NoGradGuard guard;
  const Blocks blocks;
  Training graphs{CompileOptions()}, plain{kPlain};
  for (int i = 0; i < 6; ++i) {
    manual_seed(10 + static_cast<std::uint64_t>(i));
    const Tensor x = on_device(randn({7, 5})), y = on_device(randint(3, {7}));
    const Tensor a = graphs.run(x, y), b = plain.run(x, y);
    CHECK(a.cpu().equal(b.cpu()));
  }
  for (const auto& [name, p] : graphs.state.params) {
    CAPTURE(name);
    CHECK(p.cpu().equal(plain.state.params.at(name).cpu()));
  }
  const CudaGraphStats s = graphs.step->cuda_graphs();
  CHECK(s.graphs == 1);
  CHECK(s.launches >= 4);
  CHECK(s.instructions > 10);
  CHECK(s.bytes > 0);
  CHECK(graphs.step->text().find("CUDA graphs: 1 of ") != std::string::npos);
  CHECK(plain.step->cuda_graphs().captures == 0);
  CHECK(plain.step->text().find("CUDA graphs") == std::string::npos);
  if (!Executor::present()) return;
  // Of the launches of a step, those of the optimizer alone are its own.
  const Tensor x = on_device(randn({7, 5})), y = on_device(randint(3, {7}));
  Executor::clear_logs();
  const auto launched = Executor::graph_launches();
  graphs.run(x, y);
  CHECK(Executor::graph_launches() == launched + 1);
  CHECK(Executor::products().empty());
  const auto kernels = Executor::launches();
  CHECK(kernels.back().find("run_list") != std::string::npos);  // of all parameters
  CHECK(kernels[kernels.size() - 2].find("run_list") == std::string::npos);
  Executor::clear_logs();
  plain.run(x, y);
  CHECK(Executor::products().size() == 5);
  CHECK(Executor::launches() == kernels);
}

TEST_CASE("graphs: arguments that move are copied, and what is captured is captured anew") {
  const NoGradGuard guard;
  const auto f = func::compile(several);
  const auto plain = func::compile(several, kPlain);
  const Tensor w = on_device(randn({4, 4}));
  std::vector<Tensor> kept;  // so that every argument is somewhere else
  std::int64_t captures = -1;
  for (std::uint64_t i = 0; i < 8; ++i) {
    kept.push_back(input(i));
    CHECK(f(kept.back(), w).cpu().equal(plain(kept.back(), w).cpu()));
    if (i == 1) captures = f.cuda_graphs().captures;
  }
  CHECK(captures == 1);  // where the second run found x to have moved, and w not
  CHECK(f.cuda_graphs().captures == 1);
  CHECK(f.cuda_graphs().launches == 7);
  CHECK(f.cuda_graphs().copies == 2);  // x, and the result
  // w moves as well.
  for (std::uint64_t i = 0; i < 3; ++i) {
    kept.push_back(on_device(randn({4, 4})));
    CHECK(f(kept[0], kept.back()).cpu().equal(plain(kept[0], kept.back()).cpu()));
  }
  CHECK(f.cuda_graphs().captures == 2);
  CHECK(f.cuda_graphs().copies == 3);
  CHECK(f.cuda_graphs().launches == 10);
  CHECK(f.recordings() == 1);
}

TEST_CASE("graphs: results stay what they are") {
  const NoGradGuard guard;
  const auto f = func::compile([](const Tensor& x, const Tensor& w) {
    const Tensor h = several(x, w), g = h.exp();
    return std::tuple(h, g.reshape({2, 2}).t(), (g + h).sin());
  });
  const Tensor w = on_device(randn({4, 4}));
  std::vector<std::tuple<Tensor, Tensor, Tensor>> got;
  std::vector<Tensor> want;
  for (std::uint64_t i = 0; i < 5; ++i) {
    got.push_back(f(input(i), w));
    want.push_back(several(input(i), w));
  }
  CHECK(f.cuda_graphs().launches == 4);
  for (std::size_t i = 0; i < got.size(); ++i) {
    const auto& [h, g, s] = got[i];
    CHECK((h - want[i]).abs().max().item<float>() < 1e-4);
    CHECK((g.t().reshape({4}) - want[i].exp()).abs().max().item<float>() < 1e-3);
    CHECK((s - (want[i].exp() + want[i]).sin()).abs().max().item<float>() < 1e-2);
  }
}

TEST_CASE("graphs: writes to arguments and captured tensors") {
  const NoGradGuard guard;
  const auto make = [](const Tensor& total, const CompileOptions& options) {
    return func::compile(
        [total](const Tensor& x, const Tensor& y) {
          const Tensor z = several(x, y);
          y.mul_(0.5);            // in place
          x.copy_(x.roll(1, 0));  // a new value, copied there at the end
          total.add_(z.exp().sum(0));
          return z;
        },
        options);
  };
  const Tensor total_a = on_device(zeros({})), total_b = on_device(zeros({}));
  const auto f = make(total_a, {}), plain = make(total_b, kPlain);
  const Tensor xa = input(1), ya = on_device(randn({4, 4})), xb = xa.clone(), yb = ya.clone();
  for (int i = 0; i < 5; ++i) {
    CHECK(f(xa, ya).cpu().equal(plain(xb, yb).cpu()));
    CHECK(xa.cpu().equal(xb.cpu()));
    CHECK(ya.cpu().equal(yb.cpu()));
    CHECK(total_a.cpu().equal(total_b.cpu()));
  }
  CHECK(f.cuda_graphs().launches >= 4);
  // Memory that is written cannot be replaced by a copy: after some moves, graphs are given up.
  std::vector<Tensor> kept;
  for (int i = 0; i < 8; ++i) {
    kept.push_back(ya.clone());
    kept.push_back(yb.clone());
    CHECK(f(xa, kept[kept.size() - 2]).cpu().equal(plain(xb, kept.back()).cpu()));
    CHECK(kept[kept.size() - 2].cpu().equal(kept.back().cpu()));
  }
  CHECK(f.cuda_graphs().graphs == 0);
  CHECK(f.cuda_graphs().bytes == 0);
  CHECK(f.cuda_graphs().captures >= 3);
}

TEST_CASE("graphs: random draws lie between them and differ from call to call") {
  const NoGradGuard guard;
  const auto f = [](const Tensor& x, const Tensor& w) {
    const Tensor h = dropout(x.matmul(w).tanh() * 3, 0.5);
    return (h.matmul(w).exp() + 1).log().sum(0) + rand_like(x).sin().exp().sum(0);
  };
  const auto graphs = func::compile(f), plain = func::compile(f, kPlain);
  const Tensor x = input(1), w = on_device(randn({4, 4}));
  std::vector<Tensor> a, b;
  manual_seed(4);
  for (int i = 0; i < 5; ++i) a.push_back(graphs(x, w).cpu());
  manual_seed(4);
  for (int i = 0; i < 5; ++i) b.push_back(plain(x, w).cpu());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].equal(b[i]));
    if (i > 0) CHECK(!a[i].equal(a[i - 1]));
  }
  CHECK(graphs.cuda_graphs().graphs > 1);
  CHECK(graphs.cuda_graphs().launches == 4 * graphs.cuda_graphs().graphs);
}

TEST_CASE("graphs: steps that take values from the CPU are not captured") {
  const NoGradGuard guard;
  Training t{CompileOptions()};  // its optimizer has constants of members
  optim::Adam adam(t.state.params, optim::AdamOptions(std::vector<double>{1e-2, 1e-3, 0}));
  // cuBLAS takes the addresses of these members from memory, where the CPU has put them.
  const auto f = func::compile([](const Tensor& x) {
    const Tensor two = x.narrow(0, 0, 2).narrow(1, 0, 2);
    return (two.matmul(two) + two.exp()).tanh().sum(-1).exp();
  });
  const Tensor x = on_device(randn({3, 3, 4, 4}));
  const auto plain = func::compile(
      [](const Tensor& v) {
        const Tensor two = v.narrow(0, 0, 2).narrow(1, 0, 2);
        return (two.matmul(two) + two.exp()).tanh().sum(-1).exp();
      },
      kPlain);
  for (int i = 0; i < 4; ++i) CHECK(f(x).cpu().equal(plain(x).cpu()));
  CHECK(f.cuda_graphs().graphs == 1);
  if (Executor::present()) {
    Executor::clear_logs();
    f(x);
    CHECK(Executor::products().size() == 1);  // by itself
  }
}

TEST_CASE("graphs: memory that kernels need for a moment") {
  const NoGradGuard guard;
  const auto f = [](const Tensor& x, const Tensor& half) {
    const Tensor every = x.slice(1, 0, nullopt, 2);  // a product packs it
    const Tensor product = every.t().matmul(every).sum();
    const Tensor total = (x * x).sum() + product;  // in segments
    const Tensor sorted = std::get<0>(x.sort(0)).narrow(0, 0, 3).amax();
    const Tensor wide =
        half.exp().tanh().matmul(half.t()).to(kFloat32).sum();  // in float32 between
    return total + sorted + wide + x.cumsum(0).amax() * 1e-3;
  };
  const auto graphs = func::compile(f), plain = func::compile(f, kPlain);
  manual_seed(1);
  const Tensor x = on_device(randn({3000, 8})), half = on_device(randn({5, 7}).to(kFloat16));
  for (int i = 0; i < 4; ++i) CHECK(graphs(x, half).cpu().equal(plain(x, half).cpu()));
  CHECK(graphs.cuda_graphs().launches == 3);
  CHECK(graphs.cuda_graphs().captures == 1);
}

TEST_CASE("graphs: bad indices are reported") {
  const NoGradGuard guard;
  const auto f = func::compile([](const Tensor& x, const Tensor& i) {
    return x.index_select(0, i).exp().tanh().sum(0).exp();
  });
  const Tensor x = input(1), good = on_device(tensor(std::vector<std::int64_t>{0, 5})),
               bad = on_device(tensor(std::vector<std::int64_t>{0, 6}));
  for (int i = 0; i < 3; ++i) CHECK(f(x, good).cpu().isfinite().all().item<bool>());
  CHECK(f.cuda_graphs().launches == 2);
  cuda::empty_cache();  // where kernels report to must stay
  for (int i = 0; i < 3; ++i) {
    CHECK_THROWS_AS(f(x, bad).cpu(), IndexError);
    CHECK(f(x, good).cpu().isfinite().all().item<bool>());
    cuda::empty_cache();
  }
  CHECK(f.cuda_graphs().graphs == 1);
}

TEST_CASE("graphs: runs on several streams wait for each other") {
  const NoGradGuard guard;
  const auto f = func::compile(several);
  const Tensor w = on_device(randn({4, 4}));
  std::vector<Tensor> in, out;
  for (std::uint64_t i = 0; i < 8; ++i) in.push_back(input(i, 300));
  cuda::synchronize();
  {
    std::vector<cuda::CUDAStream> streams{cuda::new_stream(), cuda::new_stream()};
    for (std::size_t i = 0; i < in.size(); ++i) {
      const cuda::StreamGuard stream(streams[i % 2]);
      out.push_back(f(in[i], w));
    }
    for (const auto& s : streams) s.synchronize();
  }  // the streams end, the function goes on
  CHECK(f.cuda_graphs().launches == 7);
  for (std::size_t i = 0; i < in.size(); ++i)
    CHECK((out[i] - several(in[i], w)).abs().max().item<float>() < 1e-3);
  CHECK((f(in[0], w) - several(in[0], w)).abs().max().item<float>() < 1e-3);
}

TEST_CASE("graphs: two functions, two threads") {
  const NoGradGuard guard;
  const Blocks blocks;
  const auto work = [](std::uint64_t seed) {
    const NoGradGuard no_grad;
    const cuda::CUDAStream stream = cuda::new_stream();
    const cuda::StreamGuard on(stream);
    const auto f = func::compile(several);
    const auto g = func::compile(
        [](const Tensor& x, const Tensor& w) { return several(x, w).tanh() * several(x * 2, w); });
    const Tensor x = on_device(linspace(0.1, static_cast<double>(seed), 24).reshape({6, 4}));
    const Tensor w = on_device(linspace(-1, 1, 16).reshape({4, 4}));
    const Tensor want = several(x, w), more = want.tanh() * several(x * 2, w);
    bool right = true;
    for (int i = 0; i < 5; ++i) {
      right &= (f(x, w) - want).abs().max().item<float>() < 1e-3;
      right &= ((g(x, w) - more) / more).abs().max().item<float>() < 1e-3;
      cuda::synchronize();  // allowed beside a capture of the other thread
    }
    return right && f.cuda_graphs().launches == 4 && g.cuda_graphs().launches == 4;
  };
  auto a = std::async(std::launch::async, work, 1), b = std::async(std::launch::async, work, 2);
  CHECK(a.get());
  CHECK(b.get());
}

TEST_CASE("graphs: memory is counted, survives empty_cache, and ends with the function") {
  const NoGradGuard guard;
  const Tensor x = input(1), w = on_device(randn({4, 4}));
  const Tensor want = several(x, w).cpu();
  const Blocks blocks;
  {
    const auto f = func::compile(several);
    f(x, w);
    f(x, w);
    const CudaGraphStats s = f.cuda_graphs();
    CHECK(s.graphs == 1);
    CHECK(s.bytes >= f.workspace_bytes());
    CHECK(Blocks::now() > blocks.before);  // the cache is given back, graphs are not
    const Tensor other = full({100000}, 7.0, TensorOptions(kFloat32).device(kCUDA));
    for (int i = 0; i < 3; ++i) CHECK((f(x, w).cpu() - want).abs().max().item<float>() < 1e-3);
    CHECK(other.min().item<float>() == 7);
    CHECK(f.cuda_graphs().captures == 1);
  }
}

TEST_CASE("graphs: memory that another stream has freed is waited for") {
  const NoGradGuard guard;
  const Blocks blocks;
  const Tensor x = input(1), w = on_device(randn({4, 4}));
  const Tensor want = several(x, w).cpu();
  const auto f = func::compile(several);
  f(x, w);
  cuda::synchronize();
  cuda::empty_cache();
  const cuda::CUDAStream other = cuda::new_stream();
  Tensor sum;
  {
    // As large as what cuBLAS gets to work with. It is free for others once this stream has read
    // it.
    const cuda::StreamGuard on(other);
    const Tensor large = full({2 << 20}, 2.0, TensorOptions(kFloat32).device(kCUDA));
    other.synchronize();
    sum = large.narrow(0, 0, 1000) * 3;
  }
  CHECK((f(x, w).cpu() - want).abs().max().item<float>() < 1e-3);  // captures
  CHECK(f.cuda_graphs().launches == 1);
  other.synchronize();
  CHECK(sum.cpu().equal(full({1000}, 6.0)));
}

TEST_CASE("graphs: the precision of products is the one of the moment") {
  const NoGradGuard guard;
  const auto f = func::compile(several);
  const Tensor x = input(1), w = on_device(randn({4, 4}));
  f(x, w);
  f(x, w);
  cuda::set_float32_matmul_precision("high");
  Executor::clear_logs();
  f(x, w);
  cuda::set_float32_matmul_precision("highest");
  if (Executor::present()) {
    CHECK(Executor::products().size() == 2);
    for (const std::string& p : Executor::products()) CHECK(field(p, "tf32") == "1");
  }
  f(x, w);
  CHECK(f.cuda_graphs().captures == 3);
}

TEST_CASE("graphs: a graph must replace more launches than it adds copies") {
  const NoGradGuard guard;
  const auto f =
      func::compile([](const Tensor& x) { return std::tuple(x.exp(), x.sin(), x.cos()); });
  const Tensor x = input(1);
  for (int i = 0; i < 3; ++i) CHECK(std::get<1>(f(x)).cpu().equal(x.sin().cpu()));
  CHECK(f.cuda_graphs().captures == 0);
}

TEST_CASE("graphs: a failure of any call is an error of ours or none, and the next run is right") {
  if (!Executor::present()) return;  // makes calls fail
  const NoGradGuard guard;
  const Tensor w = on_device(randn({4, 4}));
  const Tensor table = on_device(randn({6, 4}));
  const auto make = [&] {
    return func::compile([&](const Tensor& x, const Tensor& i) {
      const Tensor y = several(x, w) + table.index_select(0, i).exp().sum(0);
      return (y + rand_like(y)).exp().log().tanh();
    });
  };
  const Tensor i = on_device(tensor(std::vector<std::int64_t>{0, 5}));
  const Tensor x1 = input(1), x2 = input(2);
  const auto want = [&](const Tensor& x) {
    manual_seed(3);
    return make()(x, i).cpu();
  };
  const Tensor first = want(x1), second = want(x2);
  for (const char* kind : {"malloc", "launch", "copy", "other"}) {
    CAPTURE(std::string(kind));
    // What fails is in the run that captures, and in one that only launches.
    for (const int warm : {1, 2}) {
      unsigned long long n = 1, errors = 0;
      for (bool reached = true; reached && n < 500; ++n) {
        const Blocks blocks;
        const auto f = make();
        const auto run = [&](const Tensor& x, const Tensor& expected) {
          manual_seed(3);
          const Tensor got = f(x, i).cpu();  // may throw
          CHECK(got.equal(expected));
        };
        for (int k = 0; k < warm; ++k) run(k % 2 ? x2 : x1, k % 2 ? second : first);
        cuda::synchronize();
        cuda::empty_cache();
        Executor::fail_at(n, kind);
        try {
          run(x2, second);
        } catch (const Error& e) {
          ++errors;
          CHECK(std::string(e.what()).size() > 10);
        }
        reached = Executor::failed();
        Executor::fail_at(0, kind);
        for (int k = 0; k < 2; ++k) run(k % 2 ? x2 : x1, k % 2 ? second : first);
        CHECK(f.cuda_graphs().graphs == 2);
      }
      CHECK(n < 500);
      std::printf("failures of %s in run %d: %llu calls, %llu errors\n", kind, warm + 1, n - 2,
                  errors);
    }
  }
}

TEST_CASE("graphs: what CUDA keeps refusing is done without") {
  if (!Executor::present()) return;
  const NoGradGuard guard;
  const Blocks blocks;
  const Tensor x = input(1), w = on_device(randn({4, 4}));
  const Tensor want = several(x, w).cpu();
  const auto f = func::compile(several);
  for (int i = 0; i < 8; ++i) {
    if (i > 0)
      Executor::fail_at(1, "launch");  // the first one of a run: the capture's, or the graph's
    if (i > 4) Executor::fail_at(0, "launch");
    try {
      const Tensor got = f(x, w).cpu();
      CHECK((got - want).abs().max().item<float>() < 1e-3);
    } catch (const DeviceError&) {
    }
  }
  Executor::fail_at(0, "launch");
  CHECK(f.cuda_graphs().graphs == 0);
}
