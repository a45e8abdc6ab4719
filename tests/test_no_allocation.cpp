// A compiled training step in its steady state asks the system for no memory: every malloc and
// operator new of the process is counted. Not under sanitizers, which have a malloc of their own.
#include <atomic>
#include <barrier>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <vector>

#include <tutti/core/parallel.h>
#include <tutti/tutti.h>

#include "test.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TUTTI_OTHER_MALLOC
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define TUTTI_OTHER_MALLOC
#endif

#ifndef TUTTI_OTHER_MALLOC

static std::atomic<bool> counting{false};
static std::atomic<long> calls{0};

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

static void count() {
  if (counting.load(std::memory_order_relaxed)) calls.fetch_add(1, std::memory_order_relaxed);
}
void* malloc(std::size_t n) {
  count();
  return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
  count();
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
  count();
  return __libc_realloc(p, n);
}
void* memalign(std::size_t align, std::size_t n) {
  count();
  return __libc_memalign(align, n);
}
void* aligned_alloc(std::size_t align, std::size_t n) {
  count();
  return __libc_memalign(align, n);
}
int posix_memalign(void** p, std::size_t align, std::size_t n) {
  count();
  *p = __libc_memalign(align, n);
  return *p ? 0 : 12;
}
}

using namespace tutti;

namespace {

struct NetImpl : nn::Module {
  NetImpl()
      : l1(register_module("l1", nn::Linear(16, 32))),
        l2(register_module("l2", nn::Linear(32, 4))) {}
  Tensor forward(const Tensor& x) { return l2->forward(dropout(l1->forward(x).relu(), 0.1, true)); }
  nn::Linear l1, l2;
};
TUTTI_MODULE(Net);

}  // namespace

namespace {

/// An ensemble with its compiled training step; each member may have a learning rate of its own.
struct Ensemble {
  explicit Ensemble(bool own_rates) {
    if (!own_rates) return;
    std::vector<double> rates;
    for (int m = 0; m < 40; ++m) rates.push_back(1e-3 / (1 + m));
    opt.options().lr(rates).betas({0.9, rates}).weight_decay(rates);
  }
  std::vector<Net> members = std::vector<Net>(40);
  TensorDict params = func::stack_module_state(members).params;
  optim::Adam opt{params, 1e-3};
  Tensor x = rand({100, 16}), y = randint(4, {100});
  using Step = Tensor(const TensorDict&, const Tensor&, const Tensor&);
  std::function<Step> plain = [this](const TensorDict& p, const Tensor& in, const Tensor& out) {
    const auto loss = [this](const TensorDict& q, const Tensor& a, const Tensor& b) {
      return nn::functional::cross_entropy(func::functional_call(members[0], q, a), b);
    };
    auto [grads, losses] =
        func::vmap(func::grad_and_value(loss), {0, std::nullopt, std::nullopt}, 0,
                   VmapOptions().randomness(Randomness::different))(p, in, out);
    opt.step(grads);
    return losses;
  };
  decltype(func::compile(plain)) compiled = func::compile(plain);
  void step() {
    const NoGradGuard guard;
    compiled(params, x, y);
  }
};

}  // namespace

TEST_CASE("a compiled training step allocates nothing in its steady state") {
  const int before = num_threads();
  for (const int kind : {0, 1, 2, 3}) {
    const int threads = 1 + kind % 2;
    const bool own_rates = kind / 2 == 1;
    set_num_threads(threads);
    std::vector<std::unique_ptr<Ensemble>> ensembles;
    for (int i = 0; i < threads; ++i) ensembles.push_back(std::make_unique<Ensemble>(own_rates));
    // A thread allocates what kernels work in when it first runs them. Where the machine is busy, a
    // thread of the pool may find its first work done by others for long; so each does some here.
    std::barrier all(threads);
    parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t end) {
      all.arrive_and_wait();
      for (; begin < end; ++begin) ensembles[static_cast<std::size_t>(begin)]->step();
    });
    Ensemble& e = *ensembles[0];
    for (int i = 0; i < 10; ++i) e.step();
    calls = 0;
    counting = true;
    for (int i = 10; i < 1000; ++i) e.step();
    counting = false;
    CHECK(calls.load() == 0);
    CHECK(e.compiled.text().find("blocks of 40") == std::string::npos);
  }
  set_num_threads(before);
}

TEST_CASE("the counter counts") {
  calls = 0;
  counting = true;
  void* volatile p = std::malloc(1);
  counting = false;
  std::free(p);
  CHECK(calls.load() == 1);
}

#endif
