// Ensembles end to end: training on the stack equals training every member alone, for every
// optimizer; normalisation, dropout, embeddings; losses with ignored targets; mixed chunk sizes.
#include <tutti/autograd/autograd.h>
#include <tutti/core/parallel.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "behaviour.h"
#include "listener.h"

using namespace tutti;
using func::functional_call;
using func::grad_and_value;
using func::stack_module_state;
using func::vmap;
using std::nullopt;

using Sizes = std::vector<std::int64_t>;

namespace {

constexpr std::size_t M = 4;

nn::Sequential mlp() { return nn::Sequential(nn::Linear(5, 8), nn::Tanh(), nn::Linear(8, 3)); }

std::vector<nn::Sequential> mlps(DType dtype, std::uint64_t seed = 1) {
  manual_seed(seed);
  std::vector<nn::Sequential> models;
  for (std::size_t i = 0; i < M; ++i) {
    models.push_back(mlp());
    models.back()->to(dtype);
  }
  return models;
}

std::int64_t index(std::size_t i) { return static_cast<std::int64_t>(i); }

// Five steps on the stack and five on each model, with shared data; the largest deviation.
template <class Optimizer, class Options>
double train_both_ways(const Options& options, DType dtype, bool shared) {
  auto models = mlps(dtype);
  const auto m = index(M);
  const Tensor x = shared ? randn({16, 5}, dtype) : randn({m, 16, 5}, dtype);
  const Tensor y = shared ? randint(3, {16}) : randint(3, {m, 16});

  func::StackedState s = stack_module_state(models);
  auto loss = [&](const TensorDict& p, const TensorDict& b, const Tensor& xi, const Tensor& yi) {
    return nn::functional::cross_entropy(functional_call(models[0], {p, b}, xi), yi);
  };
  Dims data_axis = shared ? Dims(nullopt) : Dims(0);
  auto step = vmap(grad_and_value(loss), {0, 0, data_axis, data_axis});
  std::vector<Tensor> stacked_losses;
  {
    NoGradGuard guard;
    Optimizer optimizer(s.params, options);
    for (int i = 0; i < 5; ++i) {
      auto [grads, losses] = step(s.params, s.buffers, x, y);
      stacked_losses.push_back(losses);
      optimizer.step(grads);
    }
  }

  double worst = 0;
  for (std::size_t i = 0; i < M; ++i) {
    Optimizer optimizer(models[i]->parameters(), options);
    for (std::size_t k = 0; k < 5; ++k) {
      optimizer.zero_grad();
      Tensor l = nn::functional::cross_entropy(models[i](shared ? x : x[index(i)]),
                                               shared ? y : y[index(i)]);
      worst = std::max(worst, tutti_test::deviation(stacked_losses[k][index(i)], l.detach()));
      l.backward();
      optimizer.step();
    }
    for (auto [name, value] : models[i]->named_parameters())
      worst = std::max(worst,
                       tutti_test::deviation(s.params.at(name).detach()[index(i)], value.detach()));
  }
  return worst;
}

template <class Optimizer, class Options>
void check_optimizer(const Options& options) {
  for (bool shared : {false, true}) {
    CHECK(train_both_ways<Optimizer>(options, kFloat32, shared) <= 1e-6);
    CHECK(train_both_ways<Optimizer>(options, kFloat64, shared) <= 1e-12);
  }
}

}  // namespace

TEST_CASE("five steps on the stack equal five steps on each model: Adam, AdamW") {
  check_optimizer<optim::Adam>(optim::AdamOptions(1e-2));
  check_optimizer<optim::Adam>(optim::AdamOptions(1e-2).weight_decay(0.1).amsgrad(true));
  check_optimizer<optim::AdamW>(optim::AdamWOptions(1e-2).weight_decay(0.1));
}

TEST_CASE("five steps on the stack equal five steps on each model: SGD") {
  check_optimizer<optim::SGD>(optim::SGDOptions(0.1));
  check_optimizer<optim::SGD>(optim::SGDOptions(0.1).momentum(0.9));
  check_optimizer<optim::SGD>(optim::SGDOptions(0.1).momentum(0.9).nesterov(true));
  check_optimizer<optim::SGD>(
      optim::SGDOptions(0.1).momentum(0.9).weight_decay(0.01).dampening(0.1));
}

TEST_CASE("the sum of the members' losses through backward() trains the same way") {
  auto models = mlps(kFloat64);
  auto s = stack_module_state(models);
  Tensor x = randn({16, 5}, kFloat64), y = randint(3, {16});
  auto loss = [&](const TensorDict& p) {
    return nn::functional::cross_entropy(functional_call(models[0], p, x), y);
  };
  auto [grads, losses] = vmap(grad_and_value(loss))(s.params);
  vmap(loss)(s.params).sum().backward();
  for (auto [name, value] : s.params) CHECK_CLOSE(value.grad(), grads.at(name).detach(), 1e-13);
}

TEST_CASE("the step's idiom builds no base graph under NoGradGuard") {
  auto models = mlps(kFloat32);
  auto s = stack_module_state(models);
  Tensor x = randn({4, 5});
  auto loss = [&](const TensorDict& p, const Tensor& v) {
    return functional_call(models[0], p, v).square().mean();
  };
  NoGradGuard guard;
  auto [grads, losses] = vmap(grad_and_value(loss), {0, nullopt})(s.params, x);
  CHECK_FALSE(losses.requires_grad());
  for (auto [name, value] : grads) {
    CHECK_FALSE(value.requires_grad());
    CHECK(value.sizes() == s.params.at(name).sizes());
  }
}

TEST_CASE("chunked members give the same losses and gradients") {
  auto models = mlps(kFloat64);
  auto s = stack_module_state(models);
  Tensor x = randn({6, 5}, kFloat64);
  auto loss = [&](const TensorDict& p) {
    return functional_call(models[0], p, x).dropout(0.2, true).square().mean();
  };
  auto run = [&](std::optional<std::int64_t> chunk) {
    manual_seed(99);
    auto options = VmapOptions().randomness(Randomness::different).chunk_size(chunk);
    return vmap(grad_and_value(loss), 0, 0, options)(s.params);
  };
  NoGradGuard guard;
  auto [grads, losses] = run(nullopt);
  for (std::int64_t chunk : {1, 2, 3, 4}) {
    auto [g, l] = run(chunk);
    CHECK_CLOSE(l, losses, 1e-13);
    for (auto [name, value] : grads) CHECK_CLOSE(g.at(name), value, 1e-13);
  }
}

// ---- batch norm

TEST_CASE("BatchNorm: stacked running statistics are updated in one vmapped call") {
  manual_seed(8);
  std::vector<nn::Sequential> models;
  for (std::size_t i = 0; i < M; ++i)
    models.push_back(
        nn::Sequential(nn::Linear(3, 4), nn::BatchNorm1d(4), nn::ReLU(), nn::Linear(4, 2)));
  auto s = stack_module_state(models);
  CHECK(s.buffers.keys() ==
        std::vector<std::string>{"1.running_mean", "1.running_var", "1.num_batches_tracked"});
  Tensor x = randn({index(M), 10, 3}), y = randint(2, {index(M), 10});
  auto loss = [&](const TensorDict& p, const TensorDict& b, const Tensor& xi, const Tensor& yi) {
    return nn::functional::cross_entropy(functional_call(models[0], {p, b}, xi), yi);
  };
  TensorDict grads;
  for (int step = 0; step < 2; ++step) {
    NoGradGuard guard;
    grads = vmap(grad_and_value(loss))(s.params, s.buffers, x, y).first;
  }
  CHECK_VALUES(s.buffers.at("1.num_batches_tracked"), 2, 2, 2, 2);
  for (std::size_t i = 0; i < M; ++i) {
    const auto at = index(i);
    for (int step = 0; step < 2; ++step) {
      models[i]->zero_grad();
      nn::functional::cross_entropy(models[i](x[at]), y[at]).backward();
    }
    for (auto [name, value] : models[i]->named_buffers())
      CHECK_CLOSE(s.buffers.at(name)[at], value, 1e-5);
    for (auto [name, value] : models[i]->named_parameters())
      CHECK_CLOSE(grads.at(name)[at], value.grad(), 1e-4);
  }
  // Evaluation uses them and changes nothing.
  for (auto& m : models) m->eval();
  const Tensor mean = s.buffers.at("1.running_mean").clone();
  Tensor out = vmap([&](const TensorDict& p, const TensorDict& b, const Tensor& xi) {
    return functional_call(models[0], {p, b}, xi);
  })(s.params, s.buffers, x);
  CHECK_SAME(s.buffers.at("1.running_mean"), mean);
  for (std::size_t i = 0; i < M; ++i)
    CHECK_CLOSE(out.detach()[index(i)], models[i](x[index(i)]).detach(), 1e-4);
}

TEST_CASE("BatchNorm in chunks updates every member's statistics once") {
  manual_seed(9);
  std::vector<nn::BatchNorm1d> models;
  for (int i = 0; i < 5; ++i) models.emplace_back(2);
  Tensor x = randn({5, 6, 2});
  auto run = [&](std::optional<std::int64_t> chunk) {
    auto s = stack_module_state(models);
    vmap(
        [&](const TensorDict& p, const TensorDict& b, const Tensor& v) {
          return functional_call(models[0], {p, b}, v);
        },
        0, 0, VmapOptions().chunk_size(chunk))(s.params, s.buffers, x);
    return s.buffers;
  };
  TensorDict whole = run(nullopt);
  CHECK_VALUES(whole.at("num_batches_tracked"), 1, 1, 1, 1, 1);
  for (std::int64_t chunk : {1, 2, 3})
    for (auto [name, value] : run(chunk)) CHECK_CLOSE(value, whole.at(name), 1e-6);
}

TEST_CASE(
    "BatchNorm without running statistics: gradients per sample; with shared ones: an error") {
  manual_seed(12);
  nn::Sequential net(nn::Linear(3, 4),
                     nn::BatchNorm1d(nn::BatchNormOptions(4).track_running_stats(false)));
  Tensor x = randn({5, 6, 3});  // five samples, each a batch of its own
  TensorDict p = net->state_dict();
  auto loss = [&](const TensorDict& q, const Tensor& v) {
    return (functional_call(net, q, v) * v.select(1, 0).unsqueeze(1)).sum();
  };
  TensorDict g = vmap(func::grad(loss), {nullopt, 0})(p, x);
  for (std::int64_t i = 0; i < 5; ++i) {
    TensorDict one = func::grad(loss)(p, x[i]);
    for (auto [name, value] : one) CHECK_CLOSE(g.at(name)[i], value, 1e-4);
  }
  // Training statistics that are not mapped cannot take values per sample.
  nn::BatchNorm1d norm(3);
  TensorDict state = norm->state_dict();
  auto forward = [&](const TensorDict& q, const Tensor& v) { return functional_call(norm, q, v); };
  CHECK_THROWS_SAYING(vmap(forward, {nullopt, 0})(state, x), TransformError, "not mapped");
  CHECK_VALUES(state.at("num_batches_tracked"), 0);
  norm->eval();
  Tensor y = vmap(forward, {nullopt, 0})(state, x);
  CHECK_CLOSE(y, norm(x.reshape({30, 3})).reshape({5, 6, 3}).detach(), 1e-6);
}

TEST_CASE("gradients are clipped per member, not over the ensemble") {
  Tensor g = tensor({{3.f, 4.f}, {300.f, 400.f}, {0.3f, 0.4f}});
  auto clip = [](const TensorDict& d) {
    Tensor norm = zeros({});
    for (auto [name, value] : d) norm = norm + value.square().sum();
    Tensor factor = (1 / norm.sqrt()).clamp_max(1);
    return tree::map(d, [&](const Tensor& t) { return t * factor; });
  };
  TensorDict clipped = vmap(clip)(TensorDict{{"w", g}});
  CHECK_CLOSE(clipped.at("w").norm(2, 1), tensor({1.f, 1.f, 0.5f}), 1e-6);
}

// ---- other layers

TEST_CASE(
    "dropout in an ensemble: a mode must be chosen, masks differ per member, eval needs none") {
  std::vector<nn::Sequential> models;
  for (std::size_t i = 0; i < M; ++i)
    models.push_back(nn::Sequential(nn::Linear(3, 64), nn::Dropout(0.5)));
  auto s = stack_module_state(models);
  auto f = [&](const TensorDict& p) { return functional_call(models[0], p, ones({1, 3})); };
  CHECK_THROWS_SAYING(vmap(f)(s.params), TransformError, "random", "vmap");
  auto with = [&](Randomness r) {
    return (vmap(f, 0, 0, VmapOptions().randomness(r))(s.params).detach() == 0).to(kFloat32);
  };
  Tensor different = with(Randomness::different), same = with(Randomness::same);
  CHECK_FALSE(tutti_test::same(different[0], different[1]));
  CHECK_SAME(same[0], same[1]);
  for (auto& m : models) m->eval();
  CHECK_NOTHROW(vmap(f)(s.params));
}

TEST_CASE("embedding, layer norm and GELU per member equal the loop") {
  manual_seed(10);
  struct TextImpl : nn::Module {
    TextImpl() {
      embedding = register_module("embedding", nn::Embedding(7, 4));
      norm = register_module("norm", nn::LayerNorm(4));
      out = register_module("out", nn::Linear(4, 2));
    }
    Tensor forward(const Tensor& ids) { return out(gelu(norm(embedding(ids).mean(1)))); }
    nn::Embedding embedding{nullptr};
    nn::LayerNorm norm{nullptr};
    nn::Linear out{nullptr};
  };
  std::vector<std::shared_ptr<TextImpl>> models;
  for (std::size_t i = 0; i < M; ++i) models.push_back(std::make_shared<TextImpl>());
  auto s = stack_module_state(models);
  Tensor ids = randint(7, {index(M), 3, 5}), y = randint(2, {index(M), 3});
  auto loss = [&](const TensorDict& p, const Tensor& i, const Tensor& t) {
    return nn::functional::cross_entropy(functional_call(models[0], p, i), t);
  };
  auto [grads, losses] = vmap(grad_and_value(loss))(s.params, ids, y);
  auto [shared_grads, shared_losses] =
      vmap(grad_and_value(loss), {0, nullopt, nullopt})(s.params, ids[0], y[0]);
  for (std::size_t i = 0; i < M; ++i) {
    const auto at = index(i);
    nn::functional::cross_entropy(models[i]->forward(ids[at]), y[at]).backward();
    for (auto [name, value] : models[i]->named_parameters())
      CHECK_CLOSE(grads.at(name).detach()[at], value.grad(), 1e-5);
    CHECK_CLOSE(shared_losses.detach()[at],
                nn::functional::cross_entropy(models[i]->forward(ids[0]), y[0]).detach(), 1e-5);
  }
}

TEST_CASE("ignored targets count neither in the loss nor in its mean, per member") {
  manual_seed(11);
  Tensor logits = randn({3, 4, 5}, kFloat64);
  Tensor y = tensor({{0, 1, 2, 3}, {-100, 1, -100, 3}, {4, -100, -100, -100}});
  auto loss = [](const Tensor& z, const Tensor& t) { return nn::functional::cross_entropy(z, t); };
  auto [g, l] = vmap(grad_and_value(loss))(logits, y);
  for (int i = 0; i < 3; ++i) {
    Tensor kept = nonzero(y[i] != -100).flatten();
    Tensor z = logits[i].index_select(0, kept).clone().requires_grad_();
    Tensor one = nn::functional::cross_entropy(z, y[i].index_select(0, kept));
    CHECK_CLOSE(l[i], one.detach(), 1e-13);
    one.backward();
    CHECK_CLOSE(g[i].index_select(0, kept), z.grad(), 1e-13);
    Tensor ignored = g[i].square().sum(1).masked_select(y[i] == -100);
    CHECK(ignored.sum().item<double>() == 0);
  }
}

// ---- results that depend on nothing they should not

TEST_CASE("training is bitwise the same from run to run and for any number of threads") {
  auto run = [] {
    auto models = mlps(kFloat32, 5);
    auto s = stack_module_state(models);
    Tensor x = randn({index(M), 32, 5}), y = randint(3, {index(M), 32});
    auto loss = [&](const TensorDict& p, const Tensor& xi, const Tensor& yi) {
      return nn::functional::cross_entropy(functional_call(models[0], p, xi), yi);
    };
    NoGradGuard guard;
    optim::Adam optimizer(s.params, 1e-2);
    for (int i = 0; i < 3; ++i) optimizer.step(vmap(grad_and_value(loss))(s.params, x, y).first);
    return s.params;
  };
  const int before = num_threads();
  TensorDict first = run(), second = run();
  for (auto [name, value] : first) CHECK_SAME(second.at(name).detach(), value.detach());
  for (int threads : {1, 2, 3}) {
    set_num_threads(threads);
    TensorDict r = run();
    for (auto [name, value] : first) CHECK_SAME(r.at(name).detach(), value.detach());
  }
  set_num_threads(before);
}

TEST_CASE("gradients of linear layers and ReLU, of few and many members, equal each member's") {
  const int threads = num_threads();
  const auto check_gradients = [&](std::size_t members, std::int64_t rows, bool shared_input,
                                   bool ends_with_relu, DType dtype, double most) {
    manual_seed(3);
    std::vector<nn::Sequential> models;
    for (std::size_t i = 0; i < members; ++i) {
      nn::Sequential m(nn::Linear(9, 17), nn::ReLU(), nn::Linear(17, 33), nn::ReLU(),
                       nn::Linear(nn::LinearOptions(33, 3).bias(false)));
      if (ends_with_relu) m->push_back(nn::ReLU());
      m->to(dtype);
      models.push_back(m);
    }
    func::StackedState s = stack_module_state(models);
    const Tensor x =
        shared_input ? randn({rows, 9}, dtype) : randn({index(members), rows, 9}, dtype);
    const auto loss = [&](const TensorDict& p, const Tensor& xi) {
      const Tensor y = functional_call(models[0], p, xi);
      return ends_with_relu ? y.sum() : y.square().sum();  // the gradient of a sum is expanded
    };
    const auto both = vmap(func::grad<0, 1>(loss), {0, shared_input ? Dims(nullopt) : Dims(0)});
    NoGradGuard guard;
    set_num_threads(1);
    const auto [of_params, of_x] = both(s.params, x);
    set_num_threads(3);
    const auto [of_params3, of_x3] = both(s.params, x);
    CHECK_SAME(of_x, of_x3);
    for (const auto& [name, g] : of_params) CHECK_SAME(g, of_params3.at(name));
    double worst = 0;
    for (std::size_t i = 0; i < members; ++i) {
      AutoGradMode on(true);
      const Tensor xi = (shared_input ? x : x[index(i)]).detach().clone().requires_grad_();
      Tensor h = xi;  // layer by layer, without Sequential
      for (std::size_t k = 0; k < models[i]->size(); k += 2) {
        auto& layer = models[i]->at<nn::Linear>(k);
        h = linear(h, layer.weight, layer.bias);
        if (k + 1 < models[i]->size()) h = relu(h);
      }
      models[i]->zero_grad();
      (ends_with_relu ? h.sum() : h.square().sum()).backward();
      worst = std::max(worst, tutti_test::deviation(of_x[index(i)], xi.grad()));
      for (const auto& [name, p] : models[i]->named_parameters())
        worst = std::max(worst, tutti_test::deviation(of_params.at(name)[index(i)], p.grad()));
    }
    CHECK_MESSAGE(worst <= most, members << " members, " << rows << " rows, shared input "
                                         << shared_input << ", relu at the end " << ends_with_relu
                                         << ": " << worst);
  };
  for (std::size_t members : {3, 20, 40})
    for (std::int64_t rows : {1, 7, 300})
      for (bool shared_input : {false, true})
        for (bool ends_with_relu : {false, true}) {
          check_gradients(members, rows, shared_input, ends_with_relu, kFloat64, 1e-12);
          check_gradients(members, rows, shared_input, ends_with_relu, kFloat32, 3e-5);
        }
  set_num_threads(threads);
}

TEST_CASE("an input that is its own cotangent is not masked with it") {
  manual_seed(4);
  const Tensor x = randn({20, 5, 8}, kFloat64), w = randn({20, 8, 8}, kFloat64);
  const auto gradient = [](bool itself) {
    return vmap([itself](const Tensor& xi, const Tensor& wi) {
      const auto f = [](const Tensor& u, const Tensor& v) { return linear_relu(u, v); };
      const auto [y, pullback] = func::vjp(f, xi, wi);
      return std::get<1>(pullback(itself ? xi : xi.clone()));
    });
  };
  NoGradGuard guard;
  CHECK_SAME(gradient(true)(x, w), gradient(false)(x, w));
}

TEST_CASE("the losses and gradients of an ensemble of small MLPs take few ops") {
  std::vector<nn::Sequential> models;
  for (std::size_t i = 0; i < M; ++i)
    models.push_back(nn::Sequential(nn::Linear(5, 8), nn::ReLU(), nn::Linear(8, 3)));
  auto s = stack_module_state(models);
  const Tensor x = randn({index(M), 16, 5}), y = randint(3, {index(M), 16});
  auto loss = [&](const TensorDict& p, const Tensor& xi, const Tensor& yi) {
    return nn::functional::cross_entropy(functional_call(models[0], p, xi), yi);
  };
  NoGradGuard guard;
  CHECK(tutti_test::ops_of([&] { vmap(grad_and_value(loss))(s.params, x, y); }) <= 8);
}

TEST_CASE("the deployed ensemble: mean probabilities and votes") {
  auto models = mlps(kFloat64);
  auto s = stack_module_state(models);
  Tensor x = randn({9, 5}, kFloat64);
  NoGradGuard guard;
  auto probability = [&](const TensorDict& p, const Tensor& v) {
    return functional_call(models[0], p, v).softmax(-1);
  };
  Tensor p = vmap(probability, {0, nullopt})(s.params, x);
  CHECK(p.sizes() == Sizes{index(M), 9, 3});
  CHECK_CLOSE(p.sum(-1), ones({index(M), 9}, kFloat64), 1e-14);
  Tensor mean = p.mean(0), vote = mean.argmax(-1);
  Tensor by_hand = zeros({9, 3}, kFloat64);
  for (auto& m : models) by_hand.add_(m(x).softmax(-1) / static_cast<double>(M));
  CHECK_CLOSE(mean, by_hand, 1e-14);
  CHECK_SAME(vote, by_hand.argmax(-1));
}

TEST_CASE("PyTorch's ensembling recipe: data per member and shared data") {
  auto models = mlps(kFloat32);
  auto s = stack_module_state(models);
  Tensor minibatches = randn({index(M), 7, 5});
  auto fmodel = [&](const TensorDict& p, const TensorDict& b, const Tensor& x) {
    return functional_call(models[0], {p, b}, x);
  };
  Tensor own = vmap(fmodel)(s.params, s.buffers, minibatches);
  Tensor all = vmap(fmodel, {0, 0, nullopt})(s.params, s.buffers, minibatches[0]);
  for (std::size_t i = 0; i < M; ++i) {
    CHECK_CLOSE(own.detach()[index(i)], models[i](minibatches[index(i)]).detach(), 1e-6);
    CHECK_CLOSE(all.detach()[index(i)], models[i](minibatches[0]).detach(), 1e-6);
  }
}
