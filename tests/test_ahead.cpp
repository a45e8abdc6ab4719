// Fetching what later work reads: the list of it, and that nothing depends on it.
#include <array>
#include <cstddef>
#include <vector>

#include <tutti/core/kernels/ahead.h>
#include <tutti/core/kernels/isa.h>
#include <tutti/core/parallel.h>
#include <tutti/func/graph.h>
#include <tutti/func/trace.h>
#include <tutti/tutti.h>

#include "test.h"

using namespace tutti;
using kernels::Ahead;

namespace {

/// Gives back what a test changes.
struct Restore {
  kernels::Isa isa = kernels::isa();
  int threads = num_threads();
  ~Restore() {
    kernels::set_last_cache_bytes(0);
    kernels::set_isa(isa);
    set_num_threads(threads);
    tutti::detail::set_block_members(0);
    tutti::detail::set_lanes(tutti::detail::Lanes::automatic);
  }
};

void append(std::vector<float>& all, const Tensor& x) {
  for (const float v : x.to_vector<float>()) all.push_back(v);
}

/// Parameters and losses after some steps of 23 members of 9-40-24-3.
template <class Step>
std::vector<float> train(const Step& way) {
  const NoGradGuard guard;
  manual_seed(5);
  std::vector<nn::Sequential> nets;
  for (int i = 0; i < 23; ++i)
    nets.push_back(nn::Sequential(nn::Linear(9, 40), nn::ReLU(), nn::Linear(40, 24), nn::ReLU(),
                                  nn::Linear(24, 3)));
  const TensorDict params = func::stack_module_state(nets).params;
  optim::AdamW optimizer(params, optim::AdamWOptions(1e-2));
  const auto loss = [&](const TensorDict& p, const Tensor& x, const Tensor& y) {
    return nn::functional::cross_entropy(func::functional_call(nets[0], p, x), y);
  };
  const auto gradients = func::vmap(func::grad_and_value(loss), {0, 0, 0});
  const auto step = way([&](const TensorDict& p, const Tensor& x, const Tensor& y) {
    auto [grads, losses] = gradients(p, x, y);
    optimizer.step(grads);
    return losses;
  });
  std::vector<float> all;
  for (int i = 0; i < 3; ++i) {
    const Tensor losses = step(params, randn({23, 17, 9}), randint(3, {23, 17}));
    append(all, losses);
  }
  for (const auto& [name, p] : params) append(all, p.detach());
  return all;
}

}  // namespace

TEST_CASE("ranges to fetch are taken one after the other") {
  std::array<std::byte, 100> a{}, b{};
  const std::vector<Ahead::Range> ranges{{a.data(), 100}, {b.data(), 64}};
  Ahead ahead(ranges, true);
  CHECK(ahead.met());
  CHECK(ahead.take(64) == a.data());
  CHECK(ahead.take(64) == a.data() + 64);  // some more than there is
  CHECK(ahead.take(32) == b.data());
  CHECK_FALSE(ahead.all_taken());
  CHECK(ahead.take(32) == b.data() + 32);
  CHECK(ahead.all_taken());
  CHECK(ahead.take(32) == nullptr);
  CHECK(ahead.take(32) == nullptr);
  Ahead nothing({}, false);
  CHECK_FALSE(nothing.met());
  CHECK(nothing.take(1) == nullptr);
}

TEST_CASE("the sizes of caches are plausible") {
  CHECK(kernels::cache_bytes(2) >= 64 << 10);
  CHECK(kernels::cache_bytes(3) >= 1 << 20);
  CHECK(kernels::cache_bytes(3) <= 32 << 20);
}

TEST_CASE("products take from the list as they go, with the same results") {
  const Restore restore;
  const Tensor a = randn({3, 40, 30}), b = randn({3, 30, 50});
  for (const kernels::Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    CAPTURE(std::string(kernels::name(isa)));
    const Tensor expected = a.matmul(b);
    const std::vector<std::byte> later(1 << 20);
    const std::vector<Ahead::Range> ranges{{later.data(), 1 << 20}};
    Ahead ahead(ranges, false);
    kernels::ahead = &ahead;
    const Tensor product = a.matmul(b);
    kernels::ahead = nullptr;
    CHECK((product == expected).all().item<bool>());
    using kernels::Isa;
    const bool takes = isa == Isa::avx2 || isa == Isa::avx3 || isa == Isa::neon;
    CHECK((ahead.take(64) != later.data()) == takes);
  }
}

TEST_CASE("steps that fetch ahead give the same bits") {
  const Restore restore;
  const auto compiled = [](auto f) { return func::compile(std::move(f)); };
  const auto eager = [](auto f) { return f; };
  tutti::detail::set_lanes(tutti::detail::Lanes::never);
  for (const kernels::Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    CAPTURE(std::string(kernels::name(isa)));
    kernels::set_last_cache_bytes(0);
    const std::vector<float> expected_eager = train(eager);
    for (const std::int64_t block : {1, 4, 5, 30}) {
      tutti::detail::set_block_members(block);
      kernels::set_last_cache_bytes(0);
      const std::vector<float> expected = train(compiled);
      kernels::set_last_cache_bytes(1024);
      for (const int threads : {1, 2, 3}) {
        set_num_threads(threads);
        CHECK(train(compiled) == expected);
        CHECK(kernels::ahead == nullptr);
      }
    }
    CHECK(train(eager) == expected_eager);
  }
}
