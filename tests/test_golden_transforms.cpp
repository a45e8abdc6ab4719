// Compositions of transforms against functorch's numbers (golden/transforms.safetensors, made by
// golden/make_transforms.py, which has the same cases under the same names).
#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include <tutti/tutti.h>

#include "test.h"

using namespace tutti;
using namespace tutti::func;
namespace F = tutti::nn::functional;
using std::nullopt;

namespace {

const TensorDict& golden() {
  static const TensorDict d = load(TUTTI_GOLDEN_DIR "/transforms.safetensors");
  return d;
}
[[maybe_unused]] const bool loaded = !golden().empty();

/// The inputs of one case, in one precision.
struct Case {
  std::string name;
  DType dtype;

  Tensor operator()(const std::string& key) const {
    const Tensor& t = golden().at(name + ".in." + key);
    return is_floating(t.dtype()) ? t.to(dtype) : t;
  }
  bool has(const std::string& key) const { return golden().contains(name + ".in." + key); }
  TensorDict pick(const std::vector<std::string>& keys, const std::string& prefix = "") const {
    TensorDict d;
    for (const std::string& k : keys) d.insert(k, (*this)(prefix + k));
    return d;
  }
  /// Weights and biases w0, b0, w1, ... of a multilayer perceptron.
  TensorDict mlp(const std::string& prefix = "") const {
    std::vector<std::string> keys;
    for (int i = 0; has("w" + std::to_string(i)); ++i)
      for (const char* kind : {"w", "b"}) keys.push_back(kind + std::to_string(i));
    return pick(keys, prefix);
  }
};

std::set<std::string>& cases_seen() {
  static std::set<std::string> names;
  return names;
}

/// Compares what `compute` makes of a case with what is stored, in both precisions.
void check_case(const std::string& name, const std::function<TensorDict(const Case&)>& compute) {
  cases_seen().insert(name);
  for (DType dtype : {kFloat64, kFloat32}) {
    CAPTURE(name);
    CAPTURE(dtype == kFloat64);
    const TensorDict got = compute(Case{name, dtype});
    // What is zero but for rounding has no scale of its own; 5 % of the case's largest value
    // counts.
    double largest = 0;
    for (const auto& [key, value] : got)
      largest = std::max(largest, value.detach().to(kFloat64).abs().max().item<double>());
    std::size_t compared = 0;
    for (const auto& [key, stored] : golden()) {
      if (key.rfind(name + ".out.", 0) != 0) continue;
      ++compared;
      const std::string short_key = key.substr(name.size() + 5);
      CAPTURE(short_key);
      REQUIRE(got.contains(short_key));
      const Tensor& value = got.at(short_key);
      CHECK(value.dtype() == (is_floating(stored.dtype()) ? dtype : stored.dtype()));
      REQUIRE(value.sizes() == stored.sizes());
      const Tensor expected = stored.to(kFloat64);
      const double scale = std::max(0.05 * largest, expected.abs().max().item<double>());
      const double off = (value.detach().to(kFloat64) - expected).abs().max().item<double>();
      CHECK(std::isfinite(off));
      CHECK(off <= (dtype == kFloat64 ? 1e-10 : 1e-5) * scale);
    }
    CHECK(compared == got.size());
    CHECK(compared > 0);
  }
}

Tensor mlp(const TensorDict& p, Tensor x) {
  const int layers = static_cast<int>(p.size()) / 2;
  for (int i = 0; i < layers; ++i) {
    x = F::linear(x, p.at("w" + std::to_string(i)), p.at("b" + std::to_string(i)));
    if (i + 1 < layers) x = x.tanh();
  }
  return x;
}

Tensor mlp_loss(const TensorDict& p, const Tensor& x, const Tensor& y) {
  return F::cross_entropy(mlp(p, x), y);
}

TensorDict with(TensorDict d, const TensorDict& more, const std::string& prefix = "") {
  for (const auto& [key, value] : more) d.insert(prefix + key, value);
  return d;
}
TensorDict step(const TensorDict& p, const TensorDict& g, const Tensor& rate) {
  TensorDict q;
  for (const auto& [key, value] : p) q.insert(key, value - rate * g.at(key));
  return q;
}

}  // namespace

// ---- per-sample gradients

TEST_CASE("per-sample gradients of an MLP") {
  check_case("per_sample_mlp", [](const Case& in) {
    return vmap(grad(mlp_loss), {nullopt, 0, 0})(in.mlp(), in("x"), in("y"));
  });
}

TEST_CASE("per-sample gradients of an embedding model") {
  check_case("per_sample_embedding", [](const Case& in) {
    auto loss = [](const TensorDict& p, const Tensor& words, const Tensor& y) {
      const Tensor h = F::embedding(words, p.at("table")).mean(0);
      return F::cross_entropy(F::linear(h, p.at("w0"), p.at("b0")), y);
    };
    return vmap(grad(loss), {nullopt, 0, 0})(in.pick({"table", "w0", "b0"}), in("words"), in("y"));
  });
}

TEST_CASE("per-sample gradients of cross entropy with ignored and with smoothed labels") {
  check_case("per_sample_ignored", [](const Case& in) {
    auto loss = [](const TensorDict& p, const Tensor& x, const Tensor& y) {
      return F::cross_entropy(mlp(p, x), y,
                              F::CrossEntropyFuncOptions().ignore_index(-100).reduction(kSum));
    };
    return vmap(grad(loss), {nullopt, 0, 0})(in.mlp(), in("x"), in("y"));
  });
  check_case("per_sample_smoothed", [](const Case& in) {
    auto loss = [](const TensorDict& p, const Tensor& x, const Tensor& y) {
      return F::cross_entropy(mlp(p, x), y, F::CrossEntropyFuncOptions().label_smoothing(0.2));
    };
    return vmap(grad(loss), {nullopt, 0, 0})(in.mlp(), in("x"), in("y"));
  });
}

TEST_CASE("per-sample gradients of attention") {
  check_case("per_sample_attention", [](const Case& in) {
    auto loss = [](const TensorDict& w, const Tensor& x) {
      const Tensor q = x.matmul(w.at("wq")), k = x.matmul(w.at("wk")), v = x.matmul(w.at("wv"));
      return (q.matmul(k.mT()) / std::sqrt(3.0)).softmax(-1).matmul(v).square().sum();
    };
    return vmap(grad(loss), {nullopt, 0})(in.pick({"wq", "wk", "wv"}), in("x"));
  });
}

// ---- gradients through training

TEST_CASE("MAML: the gradient through an inner step, four tasks at once") {
  check_case("maml", [](const Case& in) {
    const Tensor rate = scalar_tensor(0.1, in.dtype);
    auto task = [&](const TensorDict& p, const Tensor& xs, const Tensor& ys, const Tensor& xq,
                    const Tensor& yq) {
      const TensorDict g =
          grad([&](const TensorDict& q) { return (mlp(q, xs) - ys).square().mean(); })(p);
      return (mlp(step(p, g, rate), xq) - yq).square().mean();
    };
    auto loss = [&](const TensorDict& p) {
      return vmap(task, {nullopt, 0, 0, 0, 0})(p, in("xs"), in("ys"), in("xq"), in("yq")).mean();
    };
    auto [g, l] = grad_and_value(loss)(in.mlp());
    return with(g, {{"loss", l}});
  });
}

TEST_CASE("the gradient with respect to the learning rate, both modes") {
  check_case("learning_rate", [](const Case& in) {
    const TensorDict start = in.mlp();
    const Tensor x = in("x"), y = in("y");
    auto trained = [&](const Tensor& rate) {
      TensorDict q = start;
      for (int i = 0; i < 3; ++i)
        q = step(q, grad([&](const TensorDict& p) { return (mlp(p, x) - y).square().mean(); })(q),
                 rate);
      return (mlp(q, x) - y).square().mean();
    };
    const Tensor rate = in("lr");
    return TensorDict{{"g", grad(trained)(rate)},
                      {"t", jvp(trained, args(rate), args(ones_like(rate))).second}};
  });
}

TEST_CASE("the gradient through an integrator") {
  check_case("euler", [](const Case& in) {
    auto loss = [](const Tensor& w, Tensor h) {
      for (int i = 0; i < 5; ++i) h = h + 0.1 * w.matmul(h).tanh();
      return h.square().sum();
    };
    return TensorDict{{"g", vmap(grad(loss), {nullopt, 0})(in("w"), in("h"))}};
  });
}

// ---- Jacobians and kernels

TEST_CASE("the neural tangent kernel, by Jacobians and by products") {
  const auto by_jacobians = [](const Case& in) {
    const TensorDict p = in.mlp();
    auto jacobians = [&](const Tensor& x) {
      return jacrev([&](const TensorDict& q) { return mlp(q, x); })(p);
    };
    const TensorDict j1 = vmap(jacobians)(in("x1")), j2 = vmap(jacobians)(in("x2"));
    Tensor kernel = zeros({3, 2, 2, 2}, in.dtype);
    for (const auto& [key, a] : j1) {
      const Tensor rows = a.flatten(2), columns = j2.at(key).flatten(2);  // [n, out, p]
      kernel = kernel + rows.reshape({6, -1})
                            .matmul(columns.reshape({4, -1}).t())
                            .reshape({3, 2, 2, 2})
                            .transpose(1, 2);
    }
    return TensorDict{{"kernel", kernel}};
  };
  const auto by_products = [](const Case& in) {
    const TensorDict p = in.mlp();
    auto entry = [&](const Tensor& x1, const Tensor& x2) {
      auto pull = vjp([&](const TensorDict& q) { return mlp(q, x2); }, p).second;
      auto push = [&](const Tensor& cotangent) {
        return jvp([&](const TensorDict& q) { return mlp(q, x1); }, args(p), pull(cotangent))
            .second;
      };
      return vmap(push, 0, 1)(eye(2, in.dtype));
    };
    return TensorDict{
        {"kernel", vmap(vmap(entry, {nullopt, 0}), {0, nullopt})(in("x1"), in("x2"))}};
  };
  check_case("ntk", by_jacobians);
  check_case("ntk", by_products);
}

TEST_CASE("Jacobians of a model, of distances, of cumulative ops, of several results") {
  check_case("jacfwd_input", [](const Case& in) {
    const TensorDict p = in.mlp();
    return TensorDict{{"j", jacfwd([&](const Tensor& x) { return mlp(p, x); })(in("x"))}};
  });
  check_case("jacrev_params", [](const Case& in) {
    const Tensor x = in("x");
    return jacrev([&](const TensorDict& p) { return mlp(p, x); })(in.mlp());
  });
  check_case("jacobian_distances", [](const Case& in) {
    const Tensor c = in("c");
    auto distances = [&](const Tensor& x) { return (x.unsqueeze(1) - c).square().sum(-1).sqrt(); };
    const Tensor j = jacrev(distances)(in("x"));
    CHECK(allclose(j, jacfwd(distances)(in("x"))));
    return TensorDict{{"j", j}};
  });
  check_case("jacobian_cumulative", [](const Case& in) {
    const Tensor x = in("x");
    return TensorDict{
        {"cumsum", vmap(jacrev([](const Tensor& r) { return r.cumsum(0); }))(x)},
        {"cumprod", vmap(jacrev([](const Tensor& r) { return r.cumprod(0); }))(x)},
        {"sort", vmap(jacfwd([](const Tensor& r) { return std::get<0>(r.sort(0)); }))(x)},
        {"logsumexp", vmap(jacrev([](const Tensor& r) { return r.logsumexp(0); }))(x)}};
  });
  check_case("jacobian_several", [](const Case& in) {
    auto f = [](const Tensor& x) { return std::tuple(x.sum(0), x.t().matmul(x), x.prod()); };
    auto [a, b, c] = jacrev(f)(in("x"));
    return TensorDict{{"a", a}, {"b", b}, {"c", c}};
  });
}

TEST_CASE("the gradient of a Jacobian's norm") {
  check_case("contractive", [](const Case& in) {
    const Tensor at = in("x");
    auto norm = [&](const Tensor& w) {
      return jacrev([&](const Tensor& x) { return w.matmul(x).sigmoid(); })(at).square().sum();
    };
    return TensorDict{{"g", grad(norm)(in("w"))}};
  });
}

TEST_CASE("a kernel's Gram matrix and its derivatives by nested vmap") {
  check_case("kernel", [](const Case& in) {
    auto k = [](const Tensor& a, const Tensor& b) { return (-(a - b).square().sum()).exp(); };
    auto gram = [&](auto f) { return vmap(vmap(f, {nullopt, 0}), {0, nullopt})(in("x"), in("y")); };
    return TensorDict{{"k", gram(k)}, {"dk", gram(grad(k))}, {"ddk", gram(jacfwd(grad<1>(k)))}};
  });
}

TEST_CASE("influence: products of all pairs of per-sample gradients") {
  check_case("influence", [](const Case& in) {
    const TensorDict p = in.mlp();
    auto of = [&](const Tensor& x) {
      return grad([&](const TensorDict& q) { return mlp(q, x).squeeze(); })(p);
    };
    auto product = [&](const Tensor& x, const Tensor& z) {
      const TensorDict g = of(x), h = of(z);
      Tensor sum = zeros({}, in.dtype);
      for (const auto& [key, value] : g) sum = sum + (value * h.at(key)).sum();
      return sum;
    };
    return TensorDict{{"k", vmap(vmap(product, {nullopt, 0}), {0, nullopt})(in("a"), in("b"))}};
  });
}

// ---- second order

TEST_CASE("Hessians: of a softmax regression, of an argument, both mixes of modes, of members") {
  check_case("hessian_softmax", [](const Case& in) {
    const Tensor x = in("x"), y = in("y");
    auto loss = [&](const Tensor& w) { return F::cross_entropy(x.matmul(w.t()), y); };
    return TensorDict{{"h", hessian(loss)(in("w"))}};
  });
  check_case("hessian_second", [](const Case& in) {
    auto f = [](const Tensor& a, const Tensor& b) {
      return (a.sin() * b.exp()).sum() + (a * b).prod();
    };
    return TensorDict{{"h", hessian<1>(f)(in("a"), in("b"))}};
  });
  const auto energy = [](const TensorDict& p) {
    return [&p](const Tensor& x) { return mlp(p, x).sum(); };
  };
  check_case("reverse_over_forward", [&](const Case& in) {
    const TensorDict p = in.mlp();
    return TensorDict{{"h", jacrev(jacfwd(energy(p)))(in("x"))}};
  });
  check_case("forward_over_reverse", [&](const Case& in) {
    const TensorDict p = in.mlp();
    return TensorDict{{"h", jacfwd(jacrev(energy(p)))(in("x"))}};
  });
  check_case("hessian_vector", [&](const Case& in) {
    const TensorDict p = in.mlp();
    const Tensor x = in("x"), v = in("v");
    return TensorDict{{"hv", jvp(grad(energy(p)), args(x), args(v)).second},
                      {"vh", std::get<0>(vjp(grad(energy(p)), x).second(v))}};
  });
  check_case("member_hessians", [](const Case& in) {
    const Tensor x = in("x");
    auto loss = [&](const Tensor& w) { return (-x.matmul(w)).exp().log1p().mean(); };
    return TensorDict{{"h", vmap(hessian(loss))(in("w"))}};
  });
}

TEST_CASE("a Laplacian by vmap of a Hessian's trace") {
  check_case("laplacian", [](const Case& in) {
    const TensorDict p = in.mlp();
    auto u = [&](const Tensor& x) { return mlp(p, x).squeeze(); };
    return TensorDict{{"l", vmap([&](const Tensor& x) { return hessian(u)(x).trace(); })(in("x"))}};
  });
}

TEST_CASE("first, second and third derivatives") {
  check_case("derivatives", [](const Case& in) {
    auto f = [](const Tensor& x) { return x.sin() * x.exp() / (1 + x * x); };
    const Tensor x = in("x");
    return TensorDict{{"d1", grad(f)(x)}, {"d2", grad(grad(f))(x)}, {"d3", grad(grad(grad(f)))(x)}};
  });
}

TEST_CASE("jvp of vmap of grad") {
  check_case("jvp_vmap_grad", [](const Case& in) {
    const Tensor x = in("x"), y = in("y");
    auto loss = [](const TensorDict& p, const Tensor& a, const Tensor& b) {
      return (mlp(p, a) - b).square().sum();
    };
    auto [g, t] = jvp(
        [&](const TensorDict& p) {
          return vmap(grad(loss), {nullopt, 0, 0})(p, x, y);
        },
        args(in.mlp()), args(in.mlp("t_")));
    return with(g, t, "t_");
  });
}

TEST_CASE("products with the Fisher and the Gauss-Newton matrix") {
  for (const bool fisher : {true, false})
    check_case(fisher ? "fisher_vector" : "gauss_newton", [&](const Case& in) {
      const TensorDict p = in.mlp();
      const Tensor x = in("x");
      auto logits = [&](const TensorDict& q) { return mlp(q, x); };
      auto [z, dz] = jvp(logits, args(p), args(in.mlp("t_")));
      const Tensor s = z.softmax(-1);
      const Tensor cotangent = fisher ? s * dz - s * (s * dz).sum(-1, true) : 2 * dz;
      return std::get<0>(vjp(logits, p).second(cotangent));
    });
}

TEST_CASE("the gradient of a penalty on input gradients") {
  check_case("gradient_penalty", [](const Case& in) {
    const Tensor x = in("x");
    auto penalty = [&](const TensorDict& p) {
      const Tensor slopes = vmap(grad([&](const Tensor& v) { return mlp(p, v).squeeze(); }))(x);
      return ((slopes.square().sum(1) + 1e-3).sqrt() - 1).square().mean();
    };
    return grad(penalty)(in.mlp());
  });
}

TEST_CASE("a differential equation's residual") {
  check_case("physics", [](const Case& in) {
    const Tensor x = in("x");
    auto u = [](const TensorDict& p, const Tensor& v) { return mlp(p, v.unsqueeze(0)).squeeze(); };
    auto u_xx = vmap(grad<1>(grad<1>(u)), {nullopt, 0});
    auto residual = [&](const TensorDict& p) { return (u_xx(p, x) + x.sin()).square().mean(); };
    return with(grad(residual)(in.mlp()), {{"u_xx", u_xx(in.mlp(), x)}});
  });
}

// ---- ensembles

TEST_CASE("an ensemble's gradients, and three Adam steps on its stacked parameters") {
  check_case("ensemble", [](const Case& in) {
    auto [g, l] = vmap(grad_and_value(mlp_loss), {0, nullopt, nullopt})(in.mlp(), in("x"), in("y"));
    return with(g, {{"loss", l}});
  });
  check_case("ensemble_adam", [](const Case& in) {
    TensorDict p;
    for (const auto& [key, value] : in.mlp()) p.insert(key, value.clone().requires_grad_());
    NoGradGuard guard;
    optim::Adam adam(p, optim::AdamOptions(0.01));
    std::vector<Tensor> losses;
    for (int i = 0; i < 3; ++i) {
      auto [g, l] = vmap(grad_and_value(mlp_loss), {0, nullopt, nullopt})(p, in("x"), in("y"));
      adam.step(g);
      losses.push_back(l);
    }
    return with(p, {{"losses", stack(losses)}});
  });
}

namespace {

// The ensemble `make` gives, with the case's parameters and buffers: outputs, gradients of the mean
// square error, buffers after the pass.
TensorDict ensemble_pass(const Case& in, const std::function<nn::Sequential()>& make, bool train) {
  nn::Sequential model = make();
  model->to(in.dtype);
  model->train(train);
  TensorDict params, buffers;
  for (const auto& [key, value] : model->named_parameters()) params.insert(key, in(key));
  for (const auto& [key, value] : model->named_buffers()) buffers.insert(key, in(key).clone());
  auto loss = [&](const TensorDict& p, const TensorDict& b, const Tensor& x, const Tensor& y) {
    const Tensor z = functional_call(model, {p, b}, x);
    return std::pair((z - y).square().mean(), z);
  };
  auto result = vmap(grad_and_value(loss, has_aux))(params, buffers, in("x"), in("y"));
  TensorDict all = with({}, result.first, "g.");
  all = with(all, {{"loss", result.second.first}, {"z", result.second.second}});
  return with(all, buffers, "b.");
}

}  // namespace

TEST_CASE("ensembles with LayerNorm, and with BatchNorm in training and evaluation") {
  check_case("ensemble_layer_norm", [](const Case& in) {
    auto make = [] {
      return nn::Sequential(nn::Linear(4, 6), nn::LayerNorm(nn::LayerNormOptions({6})), nn::GELU(),
                            nn::Linear(6, 2));
    };
    return ensemble_pass(in, make, true);
  });
  for (const bool train : {true, false})
    check_case(train ? "ensemble_batch_norm" : "ensemble_batch_norm_eval", [&](const Case& in) {
      auto make = [] {
        return nn::Sequential(nn::Linear(4, 6), nn::BatchNorm1d(6), nn::Tanh(), nn::Linear(6, 2));
      };
      return ensemble_pass(in, make, train);
    });
}

TEST_CASE("an ensemble whose members share one dropout mask") {
  check_case("ensemble_masked", [](const Case& in) {
    const Tensor mask = in("mask");
    auto loss = [&](const TensorDict& p, const Tensor& x, const Tensor& y) {
      const Tensor h = F::linear(x, p.at("w0"), p.at("b0")).tanh() * mask;
      return (F::linear(h, p.at("w1"), p.at("b1")) - y).square().mean();
    };
    auto [g, l] = vmap(grad_and_value(loss), {0, nullopt, nullopt})(in.mlp(), in("x"), in("y"));
    return with(g, {{"loss", l}});
  });
}

// ---- axes, nesting, in-place, several arguments and results

TEST_CASE("mapped axes that are not the first, and nested maps") {
  check_case("axes", [](const Case& in) {
    auto product = [](const Tensor& a, const Tensor& b) { return a.matmul(b.t()); };
    return TensorDict{{"c", vmap(product, {2, 0}, 1)(in("a"), in("b"))},
                      {"d", vmap([](const Tensor& a) { return a.sum(0); }, 1, -1)(in("a"))}};
  });
  check_case("outer_by_vmap", [](const Case& in) {
    auto f = [](const Tensor& a, const Tensor& b) { return a * b.exp(); };
    return TensorDict{{"c", vmap(vmap(f, {nullopt, 0}), {0, nullopt})(in("a"), in("b"))}};
  });
}

TEST_CASE("in-place ops on views under vmap of grad") {
  check_case("in_place", [](const Case& in) {
    auto f = [](const Tensor& x) {
      Tensor y = x.clone();
      y[0].mul_(2);
      y.slice(0, 1).add_(y[0] * x[2]);
      return y.sin().sum();
    };
    return TensorDict{{"g", vmap(grad(f))(in("x"))}};
  });
}

TEST_CASE("several cotangents, several tangents, gathers and scatters") {
  check_case("two_cotangents", [](const Case& in) {
    auto f = [](const Tensor& x) { return std::pair(x.sin().sum(0), x.matmul(x.t())); };
    auto pull = vjp(f, in("x")).second;
    return TensorDict{{"g", std::get<0>(pull(std::pair(in("c1"), in("c2"))))}};
  });
  check_case("two_tangents", [](const Case& in) {
    auto f = [](const Tensor& x, const Tensor& y) {
      return std::pair(x * y, (x / (y.square() + 1)).cumsum(0));
    };
    auto [z, t] = jvp(f, args(in("x"), in("y")), args(in("tx"), in("ty")));
    return TensorDict{{"z0", z.first}, {"z1", z.second}, {"t0", t.first}, {"t1", t.second}};
  });
  check_case("gather_scatter", [](const Case& in) {
    auto f = [&](const Tensor& x, const Tensor& i) {
      const Tensor sums = zeros(4, in.dtype).scatter_add(0, i % 4, x.slice(0, 0, 4));
      return (x.gather(0, i).square() + sums).sum();
    };
    return TensorDict{{"g", vmap(grad(f))(in("x"), in("index"))}};
  });
}

TEST_CASE("every stored case was compared") {
  std::set<std::string> stored;
  for (const auto& [key, value] : golden()) stored.insert(key.substr(0, key.find('.')));
  CHECK(stored.size() >= 40);
  if (cases_seen().size() > 20) CHECK(stored == cases_seen());  // less: a filtered run
}
