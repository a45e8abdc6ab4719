// Exceptions from anywhere: a nested program is stopped at random points, 10,000 times by the
// user's function or an op that fails in it and as often by an allocation that fails. Nothing may
// be left behind, and the next call must give the right values.
#include <cstdlib>
#include <new>
#include <random>

#include <tutti/autograd/autograd.h>
#include <tutti/core/interpreter.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "behaviour.h"

using namespace tutti;
using func::functional_call;
using func::grad;
using func::grad_and_value;
using func::jvp;
using func::vmap;
using std::nullopt;

namespace {

// Allocations of this thread until one fails; negative: none does.
thread_local std::int64_t allocations_left = -1;

struct Stop {};

// Steps of the user's function until it throws, or runs an op that does; negative: it does not.
std::int64_t steps_left = -1;
bool by_op = false;
void step() {
  if (steps_left < 0 || steps_left-- > 0) return;
  if (by_op) ones({2, 2}).gather(0, full({1, 2}, 9, kInt64));
  throw Stop();
}

// x^2, whose forward and backward are steps too.
struct Square : autograd::Function<Square> {
  static Tensor forward(autograd::AutogradContext* ctx, Tensor x) {
    step();
    ctx->save_for_backward({x});
    return x * x;
  }
  static std::vector<Tensor> backward(autograd::AutogradContext* ctx, std::vector<Tensor> g) {
    step();
    return {2 * g[0] * ctx->get_saved_variables()[0]};
  }
};

struct NetImpl : nn::Module {
  NetImpl() {
    hidden = register_module("hidden", nn::Linear(3, 4));
    out = register_module("out", nn::Linear(4, 1));
    calls = register_buffer("calls", zeros({}));
    mean = register_buffer("mean", zeros(4));
  }
  Tensor forward(const Tensor& x) {
    step();
    calls.add_(1);
    Tensor h = hidden(x).tanh();
    step();
    mean = mean * 0.5 + h.detach().mean(0) * 0.5;
    return out(Square::apply(h));
  }
  nn::Linear hidden{nullptr}, out{nullptr};
  nn::Buffer calls, mean;
};
TUTTI_MODULE(Net);

// Everything at once: functional_call, grad in vmap in jvp, chunks, in-place ops, views, random
// draws, a pullback, base autograd.
struct Program {
  Net net;
  func::StackedState state;
  Tensor x;

  Program() {
    manual_seed(1);
    std::vector<Net> members = {net, Net(), Net()};
    state = func::stack_module_state(members);
    x = randn({5, 3});
  }

  Tensor loss(const TensorDict& p, const TensorDict& b, const Tensor& v) const {
    Tensor y = functional_call(net, {p, b}, v);
    Tensor total = zeros({});
    Tensor rows = zeros({5, 1});
    rows.narrow(0, 1, 3).add_(y.narrow(0, 0, 3));
    step();
    total += rows.sum();
    return mse_loss(y, -rows) + total;
  }

  Tensor run() const {
    TensorDict buffers;
    for (const auto& [name, value] : state.buffers) buffers.insert(name, value.clone());
    auto one = [this](const TensorDict& p, const TensorDict& b, const Tensor& v) {
      return loss(p, b, v);
    };
    auto gradients = [&](const TensorDict& p, const TensorDict& b, const Tensor& v) {
      step();
      TensorDict g = grad(one)(p, b, v);
      step();
      return g.at("hidden.weight").sum() + g.at("out.bias").sum();
    };
    auto along = [&](const TensorDict& p) {
      return vmap(gradients, {0, 0, nullopt}, 0, VmapOptions().chunk_size(2))(p, buffers, x);
    };
    TensorDict p;
    for (const auto& [name, value] : state.params) p.insert(name, value.detach());
    auto [value, tangent] = jvp(along, func::args(p), func::args(p));
    step();

    manual_seed(2);
    Tensor noisy = vmap(
        [](const Tensor& w) {
          step();
          return Square::apply((w * rand(4)).dropout(0.3, true)).sum();
        },
        0, 0, VmapOptions().randomness(Randomness::different))(p.at("hidden.bias"));

    auto [y, pull] = func::vjp([](const Tensor& v) { return Square::apply(v.exp()); }, x[0]);
    Tensor rows = vmap([&pull = pull](const Tensor& c) { return std::get<0>(pull(c)); })(eye(3));
    step();

    Tensor leaf = x.clone().requires_grad_();
    Tensor part = leaf * 2;
    part[0].mul_(part[1]);
    Square::apply(part).sum().backward();
    return cat({value, tangent, noisy, rows.flatten(), leaf.grad().flatten(),
                buffers.at("mean").flatten(), buffers.at("calls")});
  }
};

// Stops the program at a point and looks for what is left. Gives the result if it was not stopped,
// as happens where an earlier run has filled a cache.
Tensor stop_once(const Program& program, std::int64_t& counter, std::int64_t at) {
  const std::int64_t before = tutti::detail::live_tensors();
  Tensor result;
  by_op = at % 2 == 0;
  counter = at;
  try {
    result = program.run();
  } catch (const Stop&) {
    CHECK_FALSE(by_op);
  } catch (const IndexError&) {
    CHECK(by_op);
  } catch (const std::bad_alloc&) {
  }
  counter = -1;
  const ThreadState& s = thread_state();
  const bool clean = !s.current && !s.views && !s.tape && !s.naming && !s.draining && s.grad_mode;
  CHECK_MESSAGE(clean, "stopped at " << at);
  CHECK_MESSAGE(tutti::detail::live_tensors() == before + result.defined(), "stopped at " << at);
  return result;
}

// Stops the program `times` times at random, and now and then checks what it gives undisturbed.
void stop_often(std::int64_t& counter, int times) {
  const Program program;
  const Tensor expected = program.run();
  CHECK_SAME(program.run(), expected);
  constexpr std::int64_t many = std::int64_t{1} << 40;
  counter = many;
  program.run();
  const std::int64_t points = many - counter;
  counter = -1;
  REQUIRE(points > 10);
  std::mt19937 random(7);
  std::uniform_int_distribution<std::int64_t> any(0, points - 1);
  int stopped = 0;
  for (int i = 0; i < times; ++i) {
    if (const Tensor r = stop_once(program, counter, any(random)); r.defined())
      CHECK_SAME(r, expected);
    else
      ++stopped;
    if (i % 50 == 0) CHECK_SAME(program.run(), expected);
  }
  CHECK(stopped >= times - times / 100);
  MESSAGE("stopped " << stopped << " times at " << points << " points");
  CHECK_SAME(program.run(), expected);
  CHECK_VALUES(program.net->calls, 0);
}

constexpr int times = tutti_test::sanitized ? 1000 : 10'000;

}  // namespace

// What the engine and the standard library allocate goes through here. Not inlined, or the compiler
// sees free() meet operator new.
[[gnu::noinline]] void* operator new(std::size_t n) {
  if (allocations_left >= 0 && allocations_left-- == 0) throw std::bad_alloc();
  if (void* p = std::malloc(n == 0 ? 1 : n)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

TEST_CASE("the user's function throws at any step") { stop_often(steps_left, times); }

TEST_CASE("any allocation fails") { stop_often(allocations_left, times); }
