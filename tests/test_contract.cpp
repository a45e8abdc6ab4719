// The public API as documented: a program written the way users write, so that a change that breaks
// their code breaks this build. Values are checked where that is cheap; the other tests check them
// in depth.
#include <map>
#include <sstream>

#include <tutti/tutti.h>

#include "test.h"

using namespace tutti;

namespace {

struct FooImpl : nn::Module {
  FooImpl() {
    l1 = register_module("l1", nn::Linear(3, 4));
    l2 = register_module("l2", nn::Linear(nn::LinearOptions(4, 2).bias(true)));
    scale = register_parameter("scale", ones({2}));
    count = register_buffer("count", zeros({}));
  }
  Tensor forward(const Tensor& x) {
    count = count + 1;
    return l2->forward(relu(l1(x))) * scale;
  }
  nn::Linear l1{nullptr}, l2{nullptr};
  nn::Parameter scale;
  nn::Buffer count;
};
TUTTI_MODULE(Foo);

struct Pair {
  Tensor a;
  std::vector<Tensor> rest;
  int tag = 0;
};
TUTTI_TREE(Pair, a, rest, tag)

namespace torch = tutti;

}  // namespace

TEST_CASE("tensors: making and asking") {
  Tensor x = tensor({{1.f, 2.f}, {3.f, 4.f}});
  CHECK(x.sizes() == std::vector<std::int64_t>{2, 2});
  CHECK(x.strides() == std::vector<std::int64_t>{2, 1});
  CHECK(x.dim() == 2);
  CHECK(x.numel() == 4);
  CHECK(x.size(-1) == 2);
  CHECK(x.scalar_type() == kFloat32);
  CHECK(x.dtype() == kFloat);
  CHECK(tensor(2.0).dtype() == kFloat32);
  CHECK(tensor({1, 2}).dtype() == kInt64);
  CHECK(tensor(std::vector<double>{1, 2}).dtype() == kFloat32);
  CHECK(tensor({1.0, 2.0}, kFloat64).dtype() == kDouble);
  CHECK(x.device() == kCPU);
  CHECK(x[1][0].item<float>() == 3);
  CHECK(x.sum().item<double>() == 10);
  CHECK(x.sum().item().toDouble() == 10);
  CHECK(x.sum().item().toInt() == 10);
  CHECK(x.data_ptr<float>()[3] == 4);
  CHECK(x.const_data_ptr<float>()[3] == 4);
  CHECK(x.accessor<float, 2>()[0][1] == 2);
  CHECK(x.to_vector<int>() == std::vector<int>{1, 2, 3, 4});
  CHECK(x.storage_offset() == 0);
  CHECK(x.element_size() == 4);
  CHECK(x.is_contiguous());
  auto options = TensorOptions().dtype(kFloat32).device(kCPU).requires_grad(true);
  CHECK(zeros({2, 3}, options).requires_grad());
  CHECK(zeros(3, kInt64).dtype() == kInt64);
  CHECK(zeros({3}, kMeta).device() == Device("meta"));
  CHECK(Device("cuda:0") == Device(kCUDA, 0));
  CHECK(full({2}, 7).to(kFloat32).allclose(torch::ones(2) * 7));
  CHECK(arange(0, 6, 2).equal(tensor({0, 2, 4})));
  CHECK(eye(2).equal(tensor({{1.f, 0.f}, {0.f, 1.f}})));
  float blob[4] = {1, 2, 3, 4};
  CHECK(from_blob(blob, {2, 2}).equal(x));
  CHECK(from_blob(blob, {2, 2}, {1, 2}, kFloat32).equal(x.t()));
  CHECK(zeros_like(x).equal(x.new_zeros({2, 2})));
  CHECK(linspace(0, 1, 3)[1].item<float>() == 0.5f);
  CHECK(from_blob(blob, 4).view({2, 2}).is_same(x) == false);
  std::ostringstream out;
  out << x;
  CHECK(!out.str().empty());
  Half h(1.5f);
  CHECK(tensor(std::vector<Half>{h}, kHalf).item<float>() == 1.5f);
}

TEST_CASE("tensors: scalars on either side, views, indexing") {
  Tensor x = tensor({{1.f, 2.f}, {3.f, 4.f}});
  CHECK((x + 1 - 1).equal(x));
  CHECK((2 * x / 2).equal(x));
  CHECK((1 - x).equal(-(x - 1)));
  CHECK(((x > 2) == (2 < x)).all().item<bool>());
  CHECK((x == 3).sum().item<int>() == 1);
  CHECK((1 / x)[0][1].item<float>() == 0.5f);
  CHECK(x.sum(1).equal(tensor({3.f, 7.f})));
  CHECK(x.mean({0, 1}).item<float>() == 2.5f);
  CHECK(x.slice(0, 0, 2, 2).equal(x.index({Slice(0, 1)})));
  CHECK(x.index({Ellipsis, 0}).equal(tensor({1.f, 3.f})));
  CHECK(x.index({None, 1}).sizes() == std::vector<std::int64_t>{1, 2});
  CHECK(x.index({x > 2}).equal(tensor({3.f, 4.f})));
  CHECK(x.index({tensor({1, 0})})[0].equal(x[1]));
  CHECK(x.transpose(0, 1).t().equal(x));
  CHECK(x.permute({1, 0}).equal(x.mT()));
  CHECK(x.unsqueeze(0).expand({3, -1, -1}).sizes() == std::vector<std::int64_t>{3, 2, 2});
  auto [values, indices] = x.max(1);
  CHECK(values.equal(tensor({2.f, 4.f})));
  CHECK(indices.equal(tensor({1, 1})));
  CHECK(x.argmax().item<int>() == 3);
  CHECK(cat({x, x}, 1).equal(hstack({x, x})));
  CHECK(stack({x, x})[1].equal(x));
  CHECK(where(x > 2, x, 0).sum().item<float>() == 7);
  CHECK(matmul(x, eye(2)).equal(x));
  CHECK(x.clone().add_(1).mul_(2).equal((x + 1) * 2));
  Tensor y = x.clone();
  y.index_put_({0}, 9);
  y[1].zero_();
  CHECK(y.equal(tensor({{9.f, 9.f}, {0.f, 0.f}})));
  y += x;
  CHECK(y[1].equal(x[1]));
  CHECK(x.type_as(y).dtype() == y.dtype());
  CHECK(as_strided(x, {2}, {3}).equal(tensor({1.f, 4.f})));
  CHECK(x.slice(0, 1).as_strided({1}, {1}).item<float>() == 3);
}

TEST_CASE("dicts and trees") {
  Tensor t = ones(2);
  TensorDict d{{"w", t}};
  d["b"] = zeros(2);
  d.insert("c", t);
  CHECK(d.keys() == std::vector<std::string>{"w", "b", "c"});
  CHECK(d.size() == 3);
  CHECK(d.contains("w"));
  CHECK(d.at("w").is_same(t));
  CHECK(d.values().size() == 3);
  CHECK(d.items()[0].first == "w");
  std::string names;
  for (auto& [name, value] : d) {
    names += name;
    value = value + 1;
  }
  for (const auto& [name, value] : d) names += name;
  for (auto [name, value] : d) names += name;
  CHECK(names == "wbcwbcwbc");
  CHECK(d.at("w")[0].item<float>() == 2);
  Pair p{ones(2), {zeros(2), ones(1)}, 3};
  auto doubled = func::vmap([](const Pair& q) { return q.a * 2; }, {{0, nullopt, nullopt}})(p);
  CHECK(doubled.equal(tensor({2.f, 2.f})));
}

TEST_CASE("autograd") {
  Tensor x = tensor({1.f, 2.f}).requires_grad_();
  (x * x).sum().backward();
  CHECK(x.grad().equal(tensor({2.f, 4.f})));
  CHECK(x.is_leaf());
  auto g = autograd::grad({(x * 3).sum()}, {x});
  CHECK(g[0].equal(tensor({3.f, 3.f})));
  {
    NoGradGuard guard;
    CHECK_FALSE(is_grad_enabled());
    CHECK_FALSE((x * 2).requires_grad());
    AutoGradMode on(true);
    CHECK((x * 2).requires_grad());
  }
  CHECK_FALSE(x.detach().requires_grad());
  CHECK(autograd::gradcheck([](const std::vector<Tensor>& v) { return v[0].sin().sum(); },
                            {rand({3}, kFloat64)}));
}

TEST_CASE("transforms") {
  auto f = [](Tensor x) { return (x * x).sum(); };
  Tensor x = tensor({1.f, 2.f});
  CHECK(func::grad(f)(x).equal(2 * x));
  auto [g, value] = func::grad_and_value(f)(x);
  CHECK(g.equal(2 * x));
  CHECK(value.item<float>() == 5);
  auto two = [](Tensor a, Tensor b) { return (a * b).sum(); };
  CHECK(func::grad<1>(two)(x, 3 * x).equal(x));
  auto [ga, gb] = func::grad<0, 1>(two)(x, 3 * x);
  CHECK(ga.equal(3 * x));
  CHECK(gb.equal(x));
  auto with_aux = [](Tensor a) { return std::pair((a * a).sum(), a + 1); };
  auto [g2, aux] = func::grad(with_aux, func::has_aux)(x);
  CHECK(aux.equal(x + 1));
  auto [g3, both] = func::grad_and_value(with_aux, func::has_aux)(x);
  CHECK(both.second.equal(x + 1));
  auto [out, pull] = func::vjp([](Tensor a) { return a.sin(); }, x);
  CHECK(std::get<0>(pull(ones_like(out))).allclose(x.cos()));
  auto [o, t] = func::jvp([](Tensor a, Tensor b) { return a * b; }, std::tuple(x, x),
                          func::args(ones(2), zeros(2)));
  CHECK(t.equal(x));
  CHECK(func::vmap(f)(eye(2)).equal(ones(2)));
  CHECK(func::vmap(two, {0, nullopt})(eye(2), x).equal(x));
  auto moved =
      func::vmap([](Tensor a) { return a; }, 1, -1, VmapOptions().chunk_size(1))(ones({2, 3, 4}));
  CHECK(moved.sizes() == std::vector<std::int64_t>{2, 4, 3});
  auto noisy = func::vmap([](Tensor a) { return a + randn({}); }, 0, 0,
                          func::VmapOptions().randomness(func::Randomness::different))(zeros(3));
  CHECK(noisy[0].item<float>() != noisy[1].item<float>());
  auto dict_grad = func::grad([](TensorDict d) { return (d["a"] * d["b"]).sum(); })(
      TensorDict{{"a", x}, {"b", x}});
  CHECK(dict_grad["a"].equal(x));
}

TEST_CASE("modules, functional_call, stacking, optimizers") {
  Foo net;
  CHECK(net->named_parameters().keys() ==
        std::vector<std::string>{"scale", "l1.weight", "l1.bias", "l2.weight", "l2.bias"});
  Tensor x = randn({5, 3});
  CHECK(net(x).sizes() == std::vector<std::int64_t>{5, 2});
  CHECK(net->count.item<float>() == 1);
  TensorDict state = net->state_dict();
  CHECK(func::functional_call(net, state, x).sizes() == std::vector<std::int64_t>{5, 2});
  func::functional_call(*net, {{"scale", zeros(2)}}, x);
  func::functional_call(net.ptr(), {}, x);
  auto strict = FunctionalCallOptions().strict(true).tie_weights(false);
  func::functional_call(net.get(), {TensorDict{{"count", zeros({})}}, net->named_parameters()},
                        strict, x);

  std::vector<Foo> models(3);
  auto [params, buffers] = func::stack_module_state(models);
  CHECK(params.at("l1.weight").sizes() == std::vector<std::int64_t>{3, 4, 3});
  auto stacked =
      func::stack_module_state(std::vector<std::shared_ptr<FooImpl>>{net.ptr(), net.ptr()});
  auto loss = [&](TensorDict& p, TensorDict& b, const Tensor& in) {
    return func::functional_call(net, {p, b}, in).square().mean();
  };
  optim::Adam opt(stacked.params, optim::AdamOptions(1e-3));
  {
    NoGradGuard guard;
    auto [grads, losses] =
        func::vmap(func::grad_and_value(loss), {0, 0, nullopt})(stacked.params, stacked.buffers, x);
    opt.step(grads);
    CHECK(losses.sizes() == std::vector<std::int64_t>{2});
    CHECK(stacked.buffers.at("count")[1].item<float>() > 0);
  }
  func::unstack_module_state(params, buffers, models);
  nn::Sequential seq(nn::Linear(3, 4), nn::ReLU(), nn::Linear(4, 1));
  CHECK(seq->forward(x).size(1) == 1);
  optim::SGD sgd(seq->parameters(), optim::SGDOptions(0.1).momentum(0.9));
  sgd.zero_grad();
  nn::functional::mse_loss(seq->forward(x), zeros({5, 1})).backward();
  sgd.step();
  nn::init::xavier_uniform_(net->l1->weight);
  net->to(kFloat64);
  CHECK(net->l1->weight.dtype() == kFloat64);
  net->eval();
  CHECK_FALSE(net->l1->is_training());
  set_num_threads(num_threads());
  manual_seed(3);
  Tensor a = rand({2});
  manual_seed(3);
  CHECK(a.equal(rand({2})));
}
