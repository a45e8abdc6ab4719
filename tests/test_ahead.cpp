// Fetching what later work reads: the list of it, and that nothing depends on it.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include <tutti/core/kernels/ahead.h>
#include <tutti/core/kernels/isa.h>
#include <tutti/core/kernels/lane_gemm.h>
#include <tutti/core/op_forms.h>
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

TEST_CASE("lines to fetch are taken one after the other") {
  std::array<std::byte, 1000> a{}, b{};
  const std::vector<Ahead::Lines> list{Ahead::lines(a.data(), 100), {b.data(), 3, 192}};
  Ahead ahead(list, true);
  CHECK(ahead.met());
  const auto take = [&](std::int64_t count) {
    const Ahead::Lines l = ahead.take(count);
    return std::tuple(l.begin, l.count, l.step);
  };
  using Taken = std::tuple<const std::byte*, std::int64_t, std::int64_t>;
  CHECK(take(1) == Taken(a.data(), 1, 64));
  CHECK(take(5) == Taken(a.data() + 64, 5, 64));  // more than there is
  CHECK(take(2) == Taken(b.data(), 2, 192));
  CHECK_FALSE(ahead.all_taken());
  CHECK(take(1) == Taken(b.data() + 2 * 192, 1, 192));
  CHECK(ahead.all_taken());
  for (int i = 0; i < 2; ++i) CHECK(ahead.take(1).begin == nullptr);
  Ahead nothing({}, false);
  CHECK_FALSE(nothing.met());
  CHECK(nothing.take(1).begin == nullptr);
}

TEST_CASE("the sizes of caches are plausible") {
  CHECK(kernels::cache_bytes(2) >= 64 << 10);
  CHECK(kernels::cache_bytes(3) >= 1 << 20);
  CHECK(kernels::cache_bytes(3) <= 32 << 20);
}

namespace {

/// What kernels take from a list without end while f runs.
template <class F>
std::int64_t lines_taken(const F& f) {
  const std::vector<std::byte> later(1 << 20);
  const std::vector<Ahead::Lines> list{Ahead::lines(later.data(), 1 << 20)};
  Ahead ahead(list, false);
  kernels::ahead = &ahead;
  f();
  kernels::ahead = nullptr;
  return (ahead.take(1).begin - later.data()) / Ahead::kLine;
}

bool products_fetch(kernels::Isa isa) {
  using kernels::Isa;
  return isa == Isa::avx2 || isa == Isa::avx3 || isa == Isa::neon;
}

}  // namespace

TEST_CASE("products take from the list as they go, with the same results") {
  const Restore restore;
  const Tensor a = randn({3, 40, 30}), b = randn({3, 30, 50});
  for (const kernels::Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    CAPTURE(std::string(kernels::name(isa)));
    const Tensor expected = a.matmul(b);
    Tensor product;
    CHECK((lines_taken([&] { product = a.matmul(b); }) > 0) == products_fetch(isa));
    CHECK((product == expected).all().item<bool>());
  }
}

TEST_CASE("products of members in lanes take a line with each term of their tiles") {
  const Restore restore;
  constexpr std::int64_t kCount = 48, kM = 12, kN = 12, kK = 7;
  const std::vector<float> a = randn({kM, kK, kCount}).to_vector<float>(),
                           b = randn({kK, kN, kCount}).to_vector<float>();
  for (const kernels::Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    CAPTURE(std::string(kernels::name(isa)));
    std::vector<float> out(kM * kN * kCount);
    kernels::LaneGemm g;
    g.count = kCount;
    g.m = kM, g.n = kN, g.k = kK;
    g.a = {a.data(), kK * kCount, kCount};
    g.b = {b.data(), kN * kCount, kCount};
    g.out = out.data();
    kernels::lane_gemm(g);
    const std::vector<float> expected = out;
    // Tiles of 6 x 4 elements with AVX-512 and NEON, else 4 x 3, and a vector of members.
    const std::int64_t tiles = isa == kernels::Isa::avx2 ? 3 * 4 : 2 * 3;
    const std::int64_t terms =
        products_fetch(isa) ? tiles * kK * kCount / kernels::lanes(kFloat32) : 0;
    std::fill(out.begin(), out.end(), 0.f);
    CHECK(lines_taken([&] { kernels::lane_gemm(g); }) == terms);
    CHECK(out == expected);

    std::vector<float> room(static_cast<std::size_t>(kernels::piece_size(kCount, kM, kN)));
    std::fill(out.begin(), out.end(), 0.f);
    const auto put = [&](const kernels::Piece& p) {
      for (std::int64_t l = p.begin; l < p.end; ++l)
        std::copy_n(static_cast<const float*>(p.data) + (l - p.begin) * p.pitch, p.width,
                    out.begin() + l * kCount + p.first);
    };
    const kernels::PieceTaker taker(put);
    g.out = room.data();
    g.taker = &taker;
    CHECK(lines_taken([&] { kernels::lane_gemm(g); }) == terms);
    CHECK(out == expected);
  }
}

namespace {

std::vector<std::vector<const std::byte*>> lists_seen;  // by runs of probe_op

/// Zeros; writes down what there is to fetch, and takes it.
constinit const Op probe_op = forms::pointwise_constant({
    .name = "probe",
    .cpu =
        [](Inputs, Inputs out, const Attrs&) {
          std::memset(out[0].raw(), 0, static_cast<std::size_t>(out[0].numel()) * sizeof(float));
          if (!kernels::ahead) return;
          auto& seen = lists_seen.emplace_back();
          while (!kernels::ahead->all_taken()) seen.push_back(kernels::ahead->take(1).begin);
        },
});

}  // namespace

TEST_CASE("blocks fetch what the next one reads, members last or not") {
  const Restore restore;
  constexpr std::int64_t kMembers = 160, kBlock = 32, kBlocks = kMembers / kBlock;
  const Tensor p = func::members_last({{"p", randn({kMembers, 3, 5})}}).at("p").detach(),
               q = randn({kMembers, 16}), shared = randn({3, 5});
  const std::int64_t pitch = p.strides()[2];
  REQUIRE(p.strides()[0] == 1);
  const auto f =
      func::vmap([](const Tensor& x, const Tensor& y,
                    const Tensor& z) { return run1(probe_op, {x}).sum() + y.sum() + z.sum(); },
                 {0, 0, std::nullopt});
  set_num_threads(1);
  tutti::detail::set_block_members(kBlock);
  lists_seen.clear();
  func::compile(f)(p, q, shared);
  CHECK(lists_seen.empty());  // all of it is at hand
  kernels::set_last_cache_bytes(1024);
  func::compile(f)(p, q, shared);
  REQUIRE(lists_seen.size() == kBlocks - 2);
  for (std::size_t block = 0; block < lists_seen.size(); ++block) {
    std::vector<const std::byte*> expected;
    const auto first = static_cast<std::int64_t>(block + 1) * kBlock;
    const auto add = [&](const float* begin, std::int64_t numbers) {
      for (std::int64_t i = 0; i < numbers; i += 16)
        expected.push_back(reinterpret_cast<const std::byte*>(begin + i));
    };
    for (std::int64_t i = 0; i < 15; ++i)
      add(p.const_data_ptr<float>() + i * pitch + first, kBlock);
    add(q.const_data_ptr<float>() + first * 16, kBlock * 16);
    std::sort(expected.begin(), expected.end());
    std::sort(lists_seen[block].begin(), lists_seen[block].end());
    CHECK(lists_seen[block] == expected);
  }
}

TEST_CASE("steps that fetch ahead give the same bits") {
  const Restore restore;
  const auto compiled = [](auto f) { return func::compile(std::move(f)); };
  const auto eager = [](auto f) { return f; };
  using tutti::detail::Lanes;
  for (const kernels::Isa isa : kernels::supported_isas()) {
    kernels::set_isa(isa);
    CAPTURE(std::string(kernels::name(isa)));
    kernels::set_last_cache_bytes(0);
    const std::vector<float> expected_eager = train(eager);
    for (const auto& [lanes, block] : {std::pair(Lanes::never, 1),
                                       {Lanes::never, 4},
                                       {Lanes::never, 5},
                                       {Lanes::never, 30},
                                       {Lanes::always, 5},
                                       {Lanes::always, 16}}) {
      tutti::detail::set_lanes(lanes);
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
