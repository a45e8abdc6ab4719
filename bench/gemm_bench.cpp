// Batched matrix products of linear layers, in the three forms training needs, for M members, B
// rows, K inputs and N outputs:
//   fwd  y [B, N] = x [B, K] w [N, K]^T      dX [B, K] = dy [B, N] w      dW [N, K] = dy^T x
// with the instruction set in use (TUTTI_ISA). Counters: GFLOP/s, percent of the multiply-add peak
// measured here, and how many times as fast as Eigen built for the baseline (`scalar`). Processor
// time of one thread, so that other load disturbs little. On one core, medians:
//   taskset -c 1 gemm_bench --benchmark_repetitions=5 --benchmark_report_aggregates_only
// The names with threads in them are real time, and their third counter is the gain by threads.
#include <algorithm>
#include <chrono>
#include <ctime>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <tutti/core/kernels/gemm.h>
#include <tutti/core/kernels/isa.h>
#include <tutti/core/parallel.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

using namespace tutti;
using kernels::Isa;

namespace {

double processor_time() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }
double real_time() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds of one call: the median of nine samples.
template <class F>
double seconds(double (*clock)(), const F& f) {
  f();
  std::vector<double> samples;
  for (int i = 0; i < 9; ++i) {
    const double start = clock();
    double time = 0;
    int calls = 0;
    for (; time < 2e-3; time = clock() - start)
      for (int j = 0; j <= calls / 4; ++j, ++calls) f();
    samples.push_back(time / calls);
  }
  std::nth_element(samples.begin(), samples.begin() + 4, samples.end());
  return samples[4];
}

// ---- the peak: multiply-adds in twelve independent sums, enough to hide their latency

constexpr int kSums = 12, kRounds = 20000;

#ifdef __x86_64__
__attribute__((target("avx512f"))) float multiply_add_avx3() {
  const __m512 x = _mm512_set1_ps(0.5f);
  __m512 s[kSums];
  for (__m512& v : s) v = x;
  for (int i = 0; i < kRounds; ++i)
    for (int j = 0; j < kSums; ++j) s[j] = _mm512_fmadd_ps(s[j], x, x);
  for (int j = 1; j < kSums; ++j) s[0] = _mm512_add_ps(s[0], s[j]);
  return _mm512_cvtss_f32(s[0]);
}
__attribute__((target("avx2,fma"))) float multiply_add_avx2() {
  const __m256 x = _mm256_set1_ps(0.5f);
  __m256 s[kSums];
  for (__m256& v : s) v = x;
  for (int i = 0; i < kRounds; ++i)
    for (int j = 0; j < kSums; ++j) s[j] = _mm256_fmadd_ps(s[j], x, x);
  for (int j = 1; j < kSums; ++j) s[0] = _mm256_add_ps(s[0], s[j]);
  return _mm256_cvtss_f32(s[0]);
}
#endif
float multiply_add() {  // four lanes
  float s[kSums][4];
  for (auto& v : s) std::fill_n(v, 4, 0.5f);
  for (int i = 0; i < kRounds; ++i)
    for (auto& v : s)
      for (float& x : v) x = x * 0.5f + 0.5f;
  for (auto& v : s) s[0][0] += v[0] + v[1] + v[2] + v[3];
  return s[0][0];
}

/// FLOP/s in float32 of one core with the instruction set in use; float64 has half.
double peak() {
  float (*f)() = multiply_add;
  int lanes = 4;
#ifdef __x86_64__
  if (kernels::isa() == Isa::avx2) f = multiply_add_avx2, lanes = 8;
  if (kernels::isa() == Isa::avx3) f = multiply_add_avx3, lanes = 16;
#endif
  double best = 1;
  for (int i = 0; i < 5; ++i)
    best = std::min(best, seconds(processor_time, [&] { benchmark::DoNotOptimize(f()); }));
  return 2.0 * kSums * kRounds * lanes / best;
}

// ---- the products

enum Form { fwd, dX, dW };

struct Sizes {
  std::int64_t members, b, k, n;
};

template <class T>
class Layer {
 public:
  Layer(const Sizes& s, Form form) : s_(s), form_(form) {
    const auto values = [&](std::int64_t rows, std::int64_t columns) {
      std::vector<T> v(static_cast<std::size_t>(s.members * rows * columns));
      for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<T>(i * 7919 % 201) / 100 - 1;
      return v;
    };
    x_ = values(s.b, s.k);
    w_ = values(s.n, s.k);
    y_ = values(s.b, s.n);
  }

  void run() {
    const auto [members, b, k, n] = s_;
    kernels::Gemm g;
    g.dtype = dtype_of<T>();
    g.batch = {members};
    const kernels::Matrices x{x_.data(), {b * k}, k, 1}, w{w_.data(), {n * k}, k, 1},
        wt{w_.data(), {n * k}, 1, k}, y{y_.data(), {b * n}, n, 1}, yt{y_.data(), {b * n}, 1, n};
    if (form_ == fwd) g.m = b, g.n = n, g.k = k, g.a = x, g.b = wt, g.out = y_.data();
    if (form_ == dX) g.m = b, g.n = k, g.k = n, g.a = y, g.b = w, g.out = x_.data();
    if (form_ == dW) g.m = n, g.n = k, g.k = b, g.a = yt, g.b = x, g.out = w_.data();
    kernels::gemm(g);
    benchmark::ClobberMemory();
  }

  double flops() const { return 2.0 * static_cast<double>(s_.members * s_.b * s_.k * s_.n); }

 private:
  Sizes s_;
  Form form_;
  std::vector<T> x_, w_, y_;
};

template <class T>
void layer(benchmark::State& state, Sizes sizes, Form form, int threads) {
  static const double flops_per_second = peak();
  Layer<T> l(sizes, form);
  const Isa isa = kernels::isa();
  const auto run = [&] { l.run(); };
  set_num_threads(1);
  if (threads == 1) kernels::set_isa(Isa::scalar);
  const double other = seconds(threads == 1 ? processor_time : real_time, run);
  kernels::set_isa(isa);
  set_num_threads(threads);
  for (auto _ : state) l.run();
  set_num_threads(1);
  const auto rate = [](double x) {
    return benchmark::Counter(x, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["GFLOP/s"] = rate(l.flops() * 1e-9);
  state.counters["%peak"] = rate(l.flops() / flops_per_second * 100 * (sizeof(T) / 4) / threads);
  state.counters[threads == 1 ? "xEigen" : "xThreads"] = rate(other);
}

template <class T>
void add(const std::string& type, const Sizes& s, int threads) {
  const char* names[] = {"fwd", "dX", "dW"};
  for (Form form : {fwd, dX, dW}) {
    std::string name = type;
    for (std::int64_t x : {s.members, s.b, s.k, s.n}) name.append("/").append(std::to_string(x));
    name.append("/").append(names[form]);
    if (threads > 1) name.append("/threads:").append(std::to_string(threads));
    auto* b = benchmark::RegisterBenchmark(name.c_str(), layer<T>, s, form, threads)
                  ->Unit(benchmark::kMicrosecond);
    if (threads > 1) b->UseRealTime();
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  const Sizes shapes[] = {{64, 64, 64, 64},   {64, 32, 16, 16},     {256, 64, 32, 32},
                          {1024, 32, 8, 16},  {128, 1, 16, 16},     {16, 256, 256, 256},
                          {10, 64, 784, 128}, {10, 64, 128, 10},    {1, 64, 784, 128},
                          {1, 32, 64, 64},    {1, 1024, 1024, 1024}};
  for (const Sizes& s : shapes) add<float>("float32", s, 1);
  for (const Sizes& s : {shapes[0], shapes[1], shapes[6], shapes[10]}) add<double>("float64", s, 1);
  for (const Sizes& s : {shapes[0], shapes[2], shapes[6], shapes[8], shapes[10]})
    add<float>("float32", s, 2);
  benchmark::AddCustomContext("instruction set", std::string(kernels::name(kernels::isa())));
  benchmark::AddCustomContext("peak GFLOP/s of one core", std::to_string(peak() * 1e-9));
  benchmark::RunSpecifiedBenchmarks();
}
