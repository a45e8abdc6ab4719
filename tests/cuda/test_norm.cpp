// Layer norm, batch norm and dropout on the device against the CPU: every kind of shape, layout and
// option, gradients of what is wanted only, groups by vmap, statistics over segments, values that
// are no numbers, nothing at all; and that each is few launches.
#include <cmath>

#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "../test.h"
#include "device_checks.h"
#include "gpu.h"

using namespace tutti;
using namespace tutti_test;

namespace {

Tensor drawn(const Index& shape, double lo, double hi, DType t, Rng& rng) {
  return to_tensor(sample(real(shape, lo, hi), rng, t), t);
}

/// The first input and those of 1, 2, ... that `bits` names; the others stay undefined.
Values chosen(const Values& v, unsigned bits) {
  Values out = {v[0]};
  for (std::size_t k = 1; k < v.size(); ++k) out.push_back(bits >> (k - 1) & 1 ? v[k] : Tensor());
  return out;
}

/// f's results, and the gradients of the defined inputs `wanted`, for cotangents that differ from
/// element to element.
Fn with_gradients(const Fn& f, const std::vector<std::size_t>& wanted) {
  return [=](const Values& v) {
    Values used;
    std::vector<std::size_t> which;
    for (std::size_t k : wanted)
      if (v[k].defined()) which.push_back(k);
    const auto part = [&](const Values& x) {
      Values all = v;
      for (std::size_t k = 0; k < which.size(); ++k) all[which[k]] = x[k];
      return f(all);
    };
    std::vector<std::size_t> places;
    for (std::size_t k : which) {
      places.push_back(used.size());
      used.push_back(v[k]);
    }
    Values cotangents;
    for (const Tensor& y : part(used)) {
      const Tensor places_of_y = arange(y.numel(), TensorOptions(kFloat64)).reshape(y.sizes());
      cotangents.push_back((places_of_y * 0.7).sin().to(y.dtype()).to(y.device()));
    }
    Values out = f(v);
    for (const Tensor& g : vjp(part, used, places, cotangents).second) out.push_back(g);
    return out;
  };
}

const Fn layer_normed = [](const Values& v) {
  return list(layer_norm(v[0], v[0].size(-1), v[1], v[2]));
};
/// With its statistics.
const Fn batch_normed = [](const Values& v) {
  const auto [y, mean, var] = batch_norm_train(v[0], v[1], v[2]);
  return Values{y, mean, var};
};
const Fn batch_normed_by = [](const Values& v) {  // x, mean, variance, weight, bias
  return list(batch_norm_eval(v[0], v[1], v[2], v[3], v[4]));
};

Values layer_operands(std::int64_t rows, std::int64_t n, DType t, Rng& rng) {
  return {drawn({rows, n}, -3, 5, t, rng), drawn({n}, 0.5, 1.5, t, rng), drawn({n}, -1, 1, t, rng)};
}
/// x, weight, bias.
Values batch_operands(const Index& shape, DType t, Rng& rng) {
  return {drawn(shape, -3, 5, t, rng), drawn({shape[1]}, 0.5, 1.5, t, rng),
          drawn({shape[1]}, -1, 1, t, rng)};
}
/// x, mean, variance, weight, bias.
Values given_operands(const Index& shape, DType t, Rng& rng) {
  const Values v = batch_operands(shape, t, rng);
  return {v[0], drawn({shape[1]}, -1, 1, t, rng), drawn({shape[1]}, 0.5, 2, t, rng), v[1], v[2]};
}

Values padded(const Values& v) {
  Values out;
  for (const Tensor& t : v) out.push_back(t.defined() ? padded_on_gpu(t) : t);
  return out;
}

/// Values and gradients, with operands that are dense and that are not.
void check_both(Tally& tally, const char* kind, const Fn& f, const Values& v, DType t,
                double factor) {
  const std::string label = detail::str(v[0].sizes(), " in ", t);
  tally.check(kind, label, [&] { return compare(f, v, on_gpu(v), t, factor); });
  tally.check(kind, label + ", padded", [&] { return compare(f, v, padded(v), t, factor); });
}

// Batches of many kinds: lanes along the samples and along the length; fewer values than a block's
// lanes, and more than it takes without segments.
const std::vector<Index> kBatches = {{6, 3},     {70, 67},     {1, 5},      {2, 1},    {33, 1},
                                     {8300, 2},  {8300, 1},    {17, 40},    {4, 3, 5}, {3, 5, 16},
                                     {5, 2, 77}, {40, 2, 103}, {2, 3, 4, 5}};

}  // namespace

TEST_CASE("layer norm of rows of every length, with the gradients that are wanted") {
  Tally tally;
  for (DType t : {kFloat32, kFloat64})
    for (std::int64_t rows : {1, 3, 5})
      for (std::int64_t n : {1, 2, 33, 200, 1024, 1025, 2500})
        for (unsigned affine : {0u, 1u, 2u, 3u}) {
          if (affine != 3 && n != 33 && n != 200 && n != 2500) continue;
          Rng rng = rng_for("layer norm");
          const Values v = chosen(layer_operands(rows, n, t, rng), affine);
          check_both(tally, "all", with_gradients(layer_normed, {0, 1, 2}), v, t, 20);
          if (affine != 3 || n > 200) continue;
          for (std::size_t one : {0u, 1u, 2u})
            check_both(tally, "one", with_gradients(layer_normed, {one}), v, t, 20);
        }
  for (DType t : {kFloat32, kFloat64, kFloat16, kBFloat16}) {  // many rows: weights by segments
    Rng rng = rng_for("many rows");
    check_both(tally, "many rows", with_gradients(layer_normed, {0, 1, 2}),
               layer_operands(4500, 3, t, rng), t, is_half(t) ? 200 : 100);
  }
  tally.print("layer norm", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("batch norm of every kind of batch, training and evaluating") {
  Tally tally;
  for (DType t : {kFloat32, kFloat64, kFloat16, kBFloat16})
    for (const Index& shape : kBatches)
      for (unsigned affine : {0u, 1u, 2u, 3u}) {
        if (affine != 3 && shape.size() != 2) continue;
        if (is_half(t) && (affine != 3 || count(shape) > 2000)) continue;
        Rng rng = rng_for("batch norm");
        const Values v = chosen(batch_operands(shape, t, rng), affine);
        const double factor = 100;
        check_both(tally, "train", with_gradients(batch_normed, {0, 1, 2}), v, t, factor);
        const Values given = chosen(given_operands(shape, t, rng), affine << 2 | 3);
        check_both(tally, "evaluate", with_gradients(batch_normed_by, {0, 1, 2, 3, 4}), given, t,
                   factor);
        if (affine != 3 || is_half(t) || (count(shape) > 5000 && shape[1] != 2)) continue;
        for (std::size_t one : {0u, 1u, 2u}) {
          check_both(tally, "train, one", with_gradients(batch_normed, {one}), v, t, factor);
          check_both(tally, "evaluate, one", with_gradients(batch_normed_by, {one}), given, t,
                     factor);
        }
      }
  tally.print("batch norm", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("variances of values far from zero keep their digits, over segments, too") {
  for (const Index& shape : {Index{9001, 3}, Index{100, 3}, Index{40, 2, 200}}) {
    CAPTURE(shape);
    Rng rng = rng_for("far");
    const Tensor x = drawn(shape, -1, 1, kFloat32, rng) + 1000;
    const Shape axes = shape.size() == 2 ? Shape{0} : Shape{0, 2};
    const Tensor exact = x.to(kFloat64).var(axes, 0);
    const Tensor var = std::get<2>(batch_norm_train(x.to(kCUDA))).cpu();
    CHECK((var.to(kFloat64) / exact - 1).abs().max().item<double>() < 1e-5);
    const Tensor rows = x.transpose(0, -1).contiguous().reshape({-1, shape[0]});
    const Tensor y = layer_norm(rows.to(kCUDA), shape[0], {}, {}, 0).cpu();
    CHECK((y.to(kFloat64).square().mean(-1) - 1).abs().max().item<double>() < 1e-4);
  }
}

TEST_CASE("values that are no numbers stay in their row and in their channel") {
  Tally tally;
  for (double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY)})
    for (std::int64_t n : {40, 1100, 4500}) {
      Rng rng = rng_for("no numbers");
      Values rows = layer_operands(3, n, kFloat32, rng);
      rows[0].select(0, 1).select(0, 7).fill_(bad);
      check_both(tally, "layer norm", with_gradients(layer_normed, {0, 1, 2}), rows, kFloat32, 20);
      Values batch = batch_operands({n, 3}, kFloat32, rng);
      batch[0].select(0, 7).select(0, 1).fill_(bad);
      check_both(tally, "batch norm", with_gradients(batch_normed, {0, 1, 2}), batch, kFloat32,
                 100);
    }
  tally.print("no numbers", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("no rows, no elements, no channels, no samples") {
  Tally tally;
  Rng rng = rng_for("nothing");
  for (DType t : {kFloat32, kFloat64}) {
    for (const Index& shape : {Index{0, 3}, Index{3, 0}, Index{0, 0}, Index{0, 2000}}) {
      const Values v = layer_operands(shape[0], shape[1], t, rng);
      check_both(tally, "layer norm", with_gradients(layer_normed, {0, 1, 2}), v, t, 1);
    }
    for (const Index& shape : {Index{0, 3}, Index{3, 0}, Index{0, 3, 4}, Index{4, 3, 0}}) {
      check_both(tally, "train", with_gradients(batch_normed, {0, 1, 2}),
                 batch_operands(shape, t, rng), t, 1);
      check_both(tally, "evaluate", with_gradients(batch_normed_by, {0, 1, 2, 3, 4}),
                 given_operands(shape, t, rng), t, 1);
    }
  }
  tally.print("nothing", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("members are normalised on their own, what they share is not repeated") {
  Tally tally;
  for (DType t : {kFloat32, kFloat64}) {
    Rng rng = rng_for("members");
    const auto several = [&](Index members, const Index& shape) {
      members.insert(members.end(), shape.begin(), shape.end());
      return drawn(members, 0.5, 1.5, t, rng);
    };
    struct Kind {
      const char* name;
      Fn f;
      Values shared, own, grid;  // operands of one member, of five, and and of two by three by two
    };
    std::vector<Kind> kinds;
    const auto add = [&](const char* name, const Fn& f, const std::vector<Index>& shapes) {
      Kind k{name, f, {}, {}, {}};
      for (const Index& s : shapes) {
        k.shared.push_back(several({}, s));
        k.own.push_back(several({5}, s));
        k.grid.push_back(several({2, 3, 2}, s));
      }
      kinds.push_back(k);
    };
    add("layer norm", with_gradients(layer_normed, {0, 1, 2}), {{3, 40}, {40}, {40}});
    add("layer norm of long rows", with_gradients(layer_normed, {0, 1, 2}),
        {{2, 1100}, {1100}, {1100}});
    add("batch norm", with_gradients(batch_normed, {0, 1, 2}), {{70, 3}, {3}, {3}});
    add("batch norm of images", with_gradients(batch_normed, {0, 1, 2}), {{4, 3, 6}, {3}, {3}});
    add("batch norm of many", with_gradients(batch_normed, {0, 1, 2}), {{4200, 2}, {2}, {2}});
    add("given statistics", with_gradients(batch_normed_by, {0, 1, 2, 3, 4}),
        {{20, 3}, {3}, {3}, {3}, {3}});
    add("given statistics of many", with_gradients(batch_normed_by, {0, 1, 2, 3, 4}),
        {{4200, 2}, {2}, {2}, {2}, {2}});
    for (const Kind& k : kinds) {
      // Groups along three axes that cannot be merged.
      const std::vector<Axis> all(k.own.size(), 0);
      Fn nested = k.f;
      for (int level = 0; level < 3; ++level)
        nested = [=](const Values& x) { return vmap(nested, all, x, 0, {}); };
      tally.check("padded", detail::str(k.name, " in ", t),
                  [&] { return compare(nested, k.grid, padded(k.grid), t, 200); });
      for (unsigned mapped = 1; mapped < 1u << k.own.size(); ++mapped) {
        std::vector<Axis> axes;
        Values v;
        for (std::size_t i = 0; i < k.own.size(); ++i) {
          const bool own = mapped >> i & 1;
          axes.push_back(own ? Axis(0) : Axis());
          v.push_back(own ? k.own[i] : k.shared[i]);
        }
        const Fn f = [&](const Values& x) { return vmap(k.f, axes, x, 0, {}); };
        tally.check(k.name, detail::str(t, ", ", mapped),
                    [&] { return compare(f, v, on_gpu(v), t, 200); });
      }
    }
    // More axes of groups than a layout has, none of which can be merged.
    Fn f = with_gradients(layer_normed, {0, 1, 2}), g = with_gradients(batch_normed, {0, 1, 2});
    Values x = {drawn({2, 1, 2, 2, 2, 2, 2, 3, 4}, -1, 1, t, rng),
                drawn({2, 1, 2, 2, 2, 2, 2, 4}, -1, 1, t, rng),
                drawn({2, 1, 2, 2, 2, 2, 2, 4}, -1, 1, t, rng)};
    for (int level = 0; level < 7; ++level) {
      const std::vector<Axis> all(3, 0);
      f = [=](const Values& v) { return vmap(f, all, v, 0, {}); };
      g = [=](const Values& v) { return vmap(g, all, v, 0, {}); };
    }
    for (const Fn& h : {f, g})
      tally.check("nested", detail::str(t), [&] { return compare(h, x, padded(x), t, 200); });
  }
  tally.print("members", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("running statistics on the device are the CPU's, and evaluation uses them") {
  for (std::int64_t n : {12, 4200}) {
    CAPTURE(n);
    Rng rng = rng_for("running statistics");
    const Tensor x = drawn({n, 3}, -3, 5, kFloat32, rng), z = drawn({n, 3}, 0, 2, kFloat32, rng);
    const auto states = [&](Device device) {
      nn::BatchNorm1d layer(3);
      layer->to(device);
      const Tensor a = layer(x.to(device)), b = layer(z.to(device));
      layer->eval();
      const Tensor c = layer(x.to(device));
      Values out = {a.detach(), b.detach(), c.detach()};
      for (const auto& [name, buffer] : layer->named_buffers()) out.push_back(buffer);
      return out;
    };
    CHECK(differs(to_arrays(states(kCUDA)), to_arrays(states(kCPU)), 1e-4, 1e-4) == "");
  }
}

TEST_CASE("each norm is one launch, and so is its gradient for the input") {
  if (!Executor::present()) return;
  Rng rng = rng_for("launches");
  const auto launches = [](const auto& f) {
    Executor::clear_logs();
    f();
    return Executor::launches().size();
  };
  const Values rows = on_gpu(layer_operands(40, 30, kFloat32, rng));
  const Values batch = on_gpu(batch_operands({40, 30}, kFloat32, rng));
  const Values given = on_gpu(given_operands({40, 30}, kFloat32, rng));
  CHECK(launches([&] { layer_normed(rows); }) == 1);
  CHECK(launches([&] { batch_normed(batch); }) == 1);
  CHECK(launches([&] { batch_normed_by(given); }) == 1);
  CHECK(launches([&] { dropout(rows[0], 0.5); }) == 1);
  const auto backward = [&](const Fn& f, const Values& v, const std::vector<std::size_t>& wanted) {
    Values leaves = v;
    for (std::size_t k : wanted) leaves[k] = v[k].detach().requires_grad_();
    const Tensor y = f(leaves)[0], g = ones_like(v[0]);
    return launches([&] { y.backward(g); });
  };
  CHECK(backward(layer_normed, rows, {0}) == 1);
  CHECK(backward(layer_normed, rows, {0, 1, 2}) == 2);  // and the sums over rows
  CHECK(backward(batch_normed, batch, {0, 1, 2}) == 1);
  CHECK(backward(batch_normed_by, given, {0}) == 1);
  CHECK(backward(batch_normed_by, given, {0, 3, 4}) == 1);
  CHECK(backward(FN(list(dropout(v[0], 0.5))), rows, {0}) == 1);
}

TEST_CASE("dropout on the device keeps what it keeps on the CPU") {
  Tally tally;
  VmapOptions differently, alike;
  differently.randomness(Randomness::different);
  alike.randomness(Randomness::same);
  for (DType t : {kFloat32, kFloat64, kFloat16, kBFloat16})
    for (double p : {0.3, 1.0, 1e-12})
      for (std::int64_t n : {1, 2, 3, 4, 5, 6, 7, 43, 1023, 2000}) {
        if (p != 0.3 && n != 43) continue;
        Rng rng = rng_for("dropout");
        Tensor x = drawn({3, n}, -3, 5, t, rng);
        if (n > 4) {  // 0 times infinity is no number, there as here
          x.select(0, 0).fill_(INFINITY);
          x.select(0, 1).select(0, 3).fill_(NAN);
        }
        const Values v = {x, drawn({3, n}, -1, 1, t, rng)};
        const Fn f = [=](const Values& a) { return list(dropout(a[0], p)); };
        const Fn gradient = [=](const Values& a) { return vjp(f, {a[0]}, {0}, {a[1]}).second; };
        const Fn tangent = [=](const Values& a) { return jvp(f, {a[0]}, {0}, {a[1]}).second; };
        for (const Fn& g : {f, gradient, tangent}) check_both(tally, "dropout", g, v, t, 1);
        for (const VmapOptions& o : {differently, alike}) {
          // Members with a number of elements that is no multiple of four.
          const Fn members = [=](const Values& a) { return vmap(f, {Axis(0)}, {a[0]}, 0, o); };
          check_both(tally, "members", members, {x}, t, 1);
        }
      }
  const Values none = {zeros({0, 3})};
  tally.check("nothing", "", [&] {
    return compare(FN(list(dropout(v[0], 0.5))), none, on_gpu(none), kFloat32, 1);
  });
  tally.print("dropout", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("compiled functions on the device record norms and dropout as one op each") {
  const NoGradGuard guard;
  const auto f = [](const Tensor& x, const Tensor& w, const Tensor& b) {
    const Tensor rows = layer_norm(x, 5, w, b);
    const auto [y, mean, var] = batch_norm_train(rows, w, b);
    return std::tuple(dropout(y, 0.3), mean, var, batch_norm_eval(x, mean, var).cumsum(0));
  };
  const auto compiled = func::compile(f);
  const auto run = [](const auto& g, const Values& v) {
    const auto [y, mean, var, sums] = g(v[0], v[1], v[2]);
    return Values{y, mean, var, sums};
  };
  Rng rng = rng_for("compiled");
  const Values v = batch_operands({6, 5}, kFloat32, rng), gpu = on_gpu(v);
  manual_seed(5);
  const Values first = run(f, v), second = run(f, v);
  manual_seed(5);
  for (const Values& expected : {first, second})
    CHECK(differs(to_arrays(run(compiled, gpu)), to_arrays(expected), 1e-5, 1e-5) == "");
  CHECK(compiled.recordings() == 1);
  for (const char* op : {"layer_norm(", "batch_norm_train(", "batch_norm_eval(", "dropout("})
    CHECK_MESSAGE(compiled.text().find(op) != std::string::npos, op << " in " << compiled.text());
  const auto places = func::compile([](const Tensor& x) { return x.nonzero(); });
  CHECK_THROWS_SAYING(places(gpu[0]), TransformError, "nonzero", "size of the result");
}
