// Elementwise functions, softmax, cross entropy, sums and Adam, with the instruction set in use
// (TUTTI_ISA), on float32 that stays in L1 (Adam: in L2). Counters: ns per element (Adam: per
// parameter), and how many times as fast as Eigen with all this machine's instructions, as a loop
// over the standard library's function, and as our own code for the baseline. Layer norm, batch
// norm, gelu and dropout run forward and backward through the engine, for an ensemble under vmap,
// and are compared with the same in smaller ops ("xparts"); so are compiled chains of elementwise
// ops. Processor time of one thread. On one core, medians:
//   taskset -c 1 ops_bench --benchmark_repetitions=5 --benchmark_report_aggregates_only
#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <tutti/core/kernels/cross_entropy.h>
#include <tutti/core/kernels/elementwise.h>
#include <tutti/core/kernels/isa.h>
#include <tutti/core/kernels/optim.h>
#include <tutti/core/kernels/reduce.h>
#include <tutti/core/kernels/softmax.h>
#include <tutti/core/parallel.h>
#include <tutti/tutti.h>

#include "ops_bench_eigen.h"

using namespace tutti;
using kernels::Isa;

namespace {

constexpr std::int64_t kSize = 2048;

double now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// Seconds of one call: the median of nine samples.
double seconds(const std::function<void()>& f) {
  f();
  std::vector<double> samples;
  for (int i = 0; i < 9; ++i) {
    const double start = now();
    double time = 0;
    int calls = 0;
    for (; time < 2e-3; time = now() - start)
      for (int j = 0; j <= calls / 4; ++j, ++calls) f();
    samples.push_back(time / calls);
  }
  std::nth_element(samples.begin(), samples.begin() + 4, samples.end());
  return samples[4];
}

struct Case {
  std::string name;
  double elements;
  std::function<void()> ours, eigen, libm;  // the last two may be empty
  std::function<void()> parts = {};         // the same in smaller ops; may be empty
};

/// How many times as long `other` takes: the median of samples that take turns.
double times_of(const std::function<void()>& other, const std::function<void()>& ours) {
  std::vector<double> ratios;
  for (int i = 0; i < 5; ++i) ratios.push_back(seconds(other) / seconds(ours));
  std::nth_element(ratios.begin(), ratios.begin() + 2, ratios.end());
  return ratios[2];
}

void run(benchmark::State& state, const Case& c) {
  const auto time = [](const std::function<void()>& f) { return f ? seconds(f) : 0; };
  const Isa isa = kernels::isa();
  const double eigen = time(c.eigen), libm = time(c.libm);
  kernels::set_isa(Isa::scalar);
  const double scalar = time(c.ours);
  kernels::set_isa(isa);
  const double parts = c.parts ? times_of(c.parts, c.ours) : 0;
  for (auto _ : state) {
    c.ours();
    benchmark::ClobberMemory();
  }
  using benchmark::Counter;
  state.counters["ns/element"] =
      Counter(c.elements * 1e-9, Counter::kIsIterationInvariantRate | Counter::kInvert);
  const auto ratio = [&](const char* name, double other) {
    if (other > 0) state.counters[name] = Counter(other, Counter::kIsIterationInvariantRate);
  };
  ratio("xEigen", eigen);
  ratio("xlibm", libm);
  ratio("xscalar", scalar);
  if (parts > 0) state.counters["xparts"] = parts;
}

using Kernel = void (*)(Inputs, Inputs, const Attrs&);

Tensor values(std::vector<std::int64_t> sizes, double low, double high) {
  manual_seed(1);
  return rand(sizes) * (high - low) + low;
}

float* data(const Tensor& t) { return static_cast<float*>(t.raw()); }

/// f of x in low..high, and of a second operand likewise.
Case function(const std::string& name, Kernel f, bool two, double low, double high,
              float (*libm)(float), Attrs a = {}, DType to = kFloat32) {
  const Tensor x = values({kSize}, low, high), z = values({kSize}, 0.5, 1), y = empty({kSize}, to);
  const auto out = std::make_shared<std::vector<float>>(kSize);
  const std::vector<Tensor> in = two ? std::vector{x, z} : std::vector{x}, outs{y};
  Case c{name, kSize, [=] { f(in, outs, a); }, {}, {}};
  if (const auto g = eigen_loops::loop(name))
    c.eigen = [=] { g(data(x), data(z), out->data(), kSize); };
  if (libm)
    c.libm = [=] {
      std::transform(data(x), data(x) + kSize, out->data(), libm);
      benchmark::ClobberMemory();
    };
  return c;
}

// ---- what fused ops are made of

Tensor layer_norm_by_parts(const Tensor& x, const Tensor& w, const Tensor& b) {
  const Tensor centred = x - x.mean(-1, true);
  return centred * (centred.square().mean(-1, true) + 1e-5).rsqrt() * w + b;
}
Tensor batch_norm_by_parts(const Tensor& x, const Tensor& w, const Tensor& b) {
  const Tensor centred = x - x.mean(0);
  return centred * ((centred.square().mean(0) + 1e-5).rsqrt() * w) + b;
}
Tensor batch_norm_eval_by_parts(const Tensor& x, const Tensor& w, const Tensor& b) {
  const Tensor scale = (w.square() + 1e-5).rsqrt() * w;
  return x * scale + (b - b * scale);
}
Tensor gelu_by_parts(const Tensor& x, const Tensor&, const Tensor&) {
  return x * ((x * 0.70710678).erf() + 1) * 0.5;
}
Tensor dropout_by_parts(const Tensor& x, const Tensor&, const Tensor&) {
  return x * (bernoulli(x.detach(), 0.9) * (1 / 0.9));
}

/// f of x [members, rows, n], with a weight and a bias [members, n] each, and its pullback.
std::function<void()> both_passes(Tensor (*f)(const Tensor&, const Tensor&, const Tensor&),
                                  const Tensor& x) {
  const Tensor w = values({x.size(0), x.size(2)}, 0.5, 1.5),
               b = values({x.size(0), x.size(2)}, -1, 1), g = values(x.sizes().vec(), -1, 1);
  const auto step = func::vmap(
      [f](const Tensor& p, const Tensor& q, const Tensor& r, const Tensor& c) {
        const auto pulled = func::vjp(f, p, q, r);
        return pulled.second(c);
      },
      0, 0, func::VmapOptions().randomness(func::Randomness::different));
  return [=] { benchmark::DoNotOptimize(step(x, w, b, g)); };
}

/// Compiled, in blocks of rows; the parts are the same ops one after the other.
void chain_cases(std::vector<Case>& all) {
  const auto chain = [](const Tensor& x, const Tensor& y) {
    const Tensor h = (x * 0.5 + y).relu() * x - y;
    return (h.square() + x).sum(1);
  };
  for (const std::int64_t rows : {100, 1000, 10000}) {
    const Tensor x = values({rows, 1000}, -2, 2), y = values({rows, 1000}, -2, 2);
    const auto compiled = func::compile(chain);
    all.push_back({"chain/" + std::to_string(rows) + "x1000",
                   static_cast<double>(x.numel()),
                   [=] { benchmark::DoNotOptimize(compiled(x, y)); },
                   {},
                   {},
                   [=] { benchmark::DoNotOptimize(chain(x, y)); }});
  }
}

void fused_cases(std::vector<Case>& all) {
  using F = Tensor (*)(const Tensor&, const Tensor&, const Tensor&);
  const F layer = [](const Tensor& x, const Tensor& w, const Tensor& b) {
    return layer_norm(x, x.size(-1), w, b);
  };
  const F train = [](const Tensor& x, const Tensor& w, const Tensor& b) {
    return std::get<0>(batch_norm_train(x, w, b));
  };
  const F eval = [](const Tensor& x, const Tensor& w, const Tensor& b) {
    return batch_norm_eval(x, b, w.square(), w, b);
  };
  const F exact = [](const Tensor& x, const Tensor&, const Tensor&) { return gelu(x); };
  const F drop = [](const Tensor& x, const Tensor&, const Tensor&) { return dropout(x, 0.1); };
  for (const std::vector<std::int64_t>& sizes :
       {std::vector<std::int64_t>{16, 1, 16}, {16, 32, 16}, {16, 32, 64}, {16, 64, 256}}) {
    const Tensor x = values(sizes, -2, 2);
    const std::string size = "/" + std::to_string(sizes[0]) + "x" + std::to_string(sizes[1]) + "x" +
                             std::to_string(sizes[2]);
    const auto add = [&](const char* name, F fused, F parts) {
      all.push_back({name + size,
                     static_cast<double>(x.numel()),
                     both_passes(fused, x),
                     {},
                     {},
                     both_passes(parts, x)});
    };
    add("layer_norm", layer, layer_norm_by_parts);
    if (sizes[1] > 1) add("batch_norm_train", train, batch_norm_by_parts);
    add("batch_norm_eval", eval, batch_norm_eval_by_parts);
    add("gelu_both_passes", exact, gelu_by_parts);
    add("dropout", drop, dropout_by_parts);
  }
}

std::vector<Case> cases() {
  using namespace kernels;
  namespace s = scalar;
  std::vector<Case> all;
  const auto unary = [&](const char* name, Kernel f, double low, double high,
                         float (*libm)(float)) {
    all.push_back(function(name, f, false, low, high, libm));
  };
  unary("exp", float_unary<s::Exp>, -80, 80, [](float x) { return std::exp(x); });
  unary("expm1", float_unary<s::Expm1>, -10, 10, [](float x) { return std::expm1(x); });
  unary("log", float_unary<s::Log>, 1e-6, 1e4, [](float x) { return std::log(x); });
  unary("log1p", float_unary<s::Log1p>, -0.9, 10, [](float x) { return std::log1p(x); });
  unary("tanh", float_unary<s::Tanh>, -8, 8, [](float x) { return std::tanh(x); });
  unary("sigmoid", float_unary<s::Sigmoid>, -20, 20,
        [](float x) { return 1 / (1 + std::exp(-x)); });
  unary("erf", float_unary<s::Erf>, -4, 4, [](float x) { return std::erf(x); });
  unary("sin", float_unary<s::Sin>, -100, 100, [](float x) { return std::sin(x); });
  unary("cos", float_unary<s::Cos>, -100, 100, [](float x) { return std::cos(x); });
  unary("gelu", float_unary<s::Gelu>, -5, 6,
        [](float x) { return 0.5f * x * (1 + std::erf(x * 0.70710678f)); });
  unary("sqrt", float_unary<s::Sqrt>, 0, 100, [](float x) { return std::sqrt(x); });
  unary("rsqrt", float_unary<s::Rsqrt>, 0, 100, [](float x) { return 1 / std::sqrt(x); });
  unary("relu", kernels::unary<s::Relu>, -1, 1, nullptr);
  Attrs half;
  half.scalars = {Scalar(0.5), Scalar()};
  all.push_back(function("gt", predicate<s::WithScalar<s::Gt>>, false, 0, 1, nullptr, half, kBool));
  all.push_back(function("gelu_grad", float_binary<s::GeluGrad>, true, -5, 6, nullptr));
  all.push_back(function("add", any_binary<s::Add>, true, -1, 1, nullptr));
  all.push_back(function("mul", any_binary<s::Mul>, true, -1, 1, nullptr));
  all.push_back(function("div", float_binary<s::Div>, true, -1, 1, nullptr));
  {
    const Tensor x = values({kSize}, 0, 1), z = values({kSize}, 0.4, 0.6), mask = x.gt(z),
                 y = empty({kSize});
    const auto out = std::make_shared<std::vector<float>>(kSize);
    const std::vector<Tensor> in{mask, x, z}, outs{y};
    const auto g = eigen_loops::loop("where");
    all.push_back({"where",
                   kSize,
                   [=] { kernels::where(in, outs, {}); },
                   [=] { g(data(x), data(z), out->data(), kSize); },
                   {}});
  }
  for (const std::int64_t columns : {10, 64, 1000}) {
    const std::int64_t rows = kSize / columns;
    const Tensor x = values({rows, columns}, -5, 5), y = empty({rows, columns});
    const double n = static_cast<double>(rows * columns);
    const std::vector<Tensor> in{x}, outs{y};
    const auto scratch = std::make_shared<std::vector<float>>(kSize);
    const std::string size = std::to_string(rows).append("x").append(std::to_string(columns));
    all.push_back({"softmax/" + size,
                   n,
                   [=] { kernels::softmax(in, outs, {}); },
                   [=] { eigen_loops::softmax(data(x), scratch->data(), rows, columns); },
                   {}});
    all.push_back({"log_softmax/" + size, n, [=] { kernels::log_softmax(in, outs, {}); }, {}, {}});
    const Tensor target = randint(0, columns, {rows});
    Attrs a;
    a.dims = {0};
    a.flags = ClassLoss::mean;
    a.ints = {-100, 0};
    a.scalars = {Scalar(0.0), Scalar()};
    const Tensor loss = empty({}), p = empty({rows, columns}), total = empty({}), g = ones({});
    const std::vector<Tensor> forward_in{x, target, Tensor()}, forward_out{loss, p, total},
        backward_in{g, target, p, total, Tensor()};
    all.push_back({"cross_entropy/" + size,
                   n,
                   [=] {
                     kernels::cross_entropy(forward_in, forward_out, a);
                     kernels::cross_entropy_grad(backward_in, outs, a);
                   },
                   [=] {
                     benchmark::DoNotOptimize(eigen_loops::cross_entropy(
                         data(x), static_cast<const std::int64_t*>(target.raw()), scratch->data(),
                         rows, columns));
                   },
                   {}});
    Attrs first, last;
    first.dims = {0};
    last.dims = {1};
    const std::vector<Tensor> by_column{empty({columns})}, by_row{empty({rows})};
    all.push_back({"sum_columns/" + size,
                   n,
                   [=] { kernels::sum(in, by_column, first); },
                   [=] { eigen_loops::sum_columns(data(x), scratch->data(), rows, columns); },
                   {}});
    all.push_back({"sum_rows/" + size,
                   n,
                   [=] { kernels::sum(in, by_row, last); },
                   [=] { eigen_loops::sum_rows(data(x), scratch->data(), rows, columns); },
                   {}});
  }
  {
    constexpr std::int64_t n = 16384;  // 256 KB
    const auto make = [](double low, double high) { return values({n}, low, high); };
    const Tensor p = make(-1, 1), g = make(-1, 1), m = make(-1, 1), v = make(0, 1);
    const auto numbers = std::make_shared<kernels::AdamNumbers>(
        kernels::AdamStep(10, false)(1e-3, 0.9, 0.999, 1e-8, 0));
    const std::vector<AdamChunk<float>> chunks{
        {data(p), data(g), data(m), data(v), nullptr, n, {numbers.get()}}};
    all.push_back({"adam",
                   n,
                   [=] {
                     static_cast<void>(numbers);
                     kernels::adam<float>(chunks);
                   },
                   [=] { eigen_loops::adam(data(p), data(g), data(m), data(v), n); },
                   {}});
  }
  fused_cases(all);
  chain_cases(all);
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  set_num_threads(1);
  const std::vector<Case> all = cases();
  for (const Case& c : all)
    benchmark::RegisterBenchmark(c.name.c_str(), [&c](benchmark::State& s) { run(s, c); });
  benchmark::AddCustomContext("instruction set", std::string(kernels::name(kernels::isa())));
  benchmark::RunSpecifiedBenchmarks();
}
