// stack_module_state and unstack_module_state: PyTorch's examples, the results' properties, every
// error with member and key.
#include <tutti/autograd/autograd.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "behaviour.h"

using namespace tutti;
using func::functional_call;
using func::stack_module_state;
using func::unstack_module_state;
using func::vmap;
using std::nullopt;

using Sizes = std::vector<std::int64_t>;
using Keys = std::vector<std::string>;

namespace {

struct FooImpl : nn::Module {
  FooImpl(int in, int out) {
    int hidden = 4;
    l1 = register_module("l1", nn::Linear(in, hidden));
    l2 = register_module("l2", nn::Linear(hidden, out));
  }
  Tensor forward(const Tensor& x) { return l2(l1(x)); }
  nn::Linear l1{nullptr}, l2{nullptr};
};
TUTTI_MODULE(Foo);

// LibTorch style: plain Tensor members, a buffer, a nested module without a holder.
struct PlainImpl : nn::Module {
  explicit PlainImpl(std::int64_t width = 3) {
    w = register_parameter("w", randn({width, 2}));
    scale = register_buffer("scale", ones(2));
    steps = register_buffer("steps", zeros({}, kInt64));
    norm = register_module("norm", std::make_shared<nn::LayerNormImpl>(nn::LayerNormOptions({2})));
  }
  Tensor forward(const Tensor& x) { return norm->forward(x.matmul(w)) * scale; }
  Tensor w, scale, steps;
  std::shared_ptr<nn::LayerNormImpl> norm;
};
TUTTI_MODULE(Plain);

template <class M, class... Args>
std::vector<M> make(int n, const Args&... args) {
  std::vector<M> models;
  for (int i = 0; i < n; ++i) models.push_back(M(args...));
  return models;
}

std::vector<nn::Linear> linears(int n) { return make<nn::Linear>(n, 3, 3); }

}  // namespace

// ---- the two examples of PyTorch's stack_module_state page, line for line

TEST_CASE("PyTorch's example: five models at once") {
  manual_seed(0);
  const int num_models = 5;
  const std::int64_t batch_size = 64;
  const int in_features = 3, out_features = 3;
  std::vector<nn::Linear> models;
  for (int i = 0; i < num_models; ++i) models.emplace_back(in_features, out_features);
  Tensor data = randn({batch_size, 3});

  auto wrapper = [&](const TensorDict& params, const TensorDict& buffers, const Tensor& x) {
    return functional_call(models[0], {params, buffers}, x);
  };

  auto [params, buffers] = stack_module_state(models);
  Tensor output = vmap(wrapper, {0, 0, nullopt})(params, buffers, data);

  CHECK(output.sizes() == Sizes{num_models, batch_size, out_features});
  for (int i = 0; i < num_models; ++i)
    CHECK_CLOSE(output[i], models[static_cast<std::size_t>(i)](data), 1e-6);
}

TEST_CASE("PyTorch's example: nested modules' names") {
  const int num_models = 3;
  std::vector<Foo> models;
  for (int i = 0; i < num_models; ++i) models.emplace_back(3, 3);
  auto [params, buffers] = stack_module_state(models);
  CHECK(params.keys() == Keys{"l1.weight", "l1.bias", "l2.weight", "l2.bias"});
  CHECK(buffers.empty());
  CHECK(params.at("l1.weight").sizes() == Sizes{3, 4, 3});
  CHECK(params.at("l2.bias").sizes() == Sizes{3, 3});
}

// ---- the results

TEST_CASE("the results are leaves that require grad and have nothing to do with the models") {
  auto models = linears(3);
  auto [params, buffers] = stack_module_state(models);
  for (auto [name, value] : params) {
    CHECK(value.requires_grad());
    CHECK(value.is_leaf());
    CHECK_FALSE(value.grad().defined());
    CHECK_FALSE(value.is_view());
    for (int i = 0; i < 3; ++i)
      CHECK_SAME(value.detach()[i],
                 models[static_cast<std::size_t>(i)]->named_parameters().at(name).detach());
  }
  const Tensor w0 = models[0]->weight.detach().clone();
  {
    NoGradGuard guard;
    params.at("weight").add_(1);
  }
  CHECK_SAME(models[0]->weight.detach(), w0);
  const Tensor stacked = params.at("weight").detach().clone();
  {
    NoGradGuard guard;
    models[1]->weight.zero_();
  }
  CHECK_SAME(params.at("weight").detach(), stacked);
  params.at("weight").sum().backward();
  CHECK(params.at("weight").grad().defined());
  CHECK_FALSE(models[0]->weight.grad().defined());
}

TEST_CASE("the results go straight into an optimizer") {
  auto models = linears(2);
  auto [params, buffers] = stack_module_state(models);
  const Tensor before = params.at("bias").detach().clone();
  optim::SGD by_dict(params, 0.1);
  (params.at("bias") * 2).sum().backward();
  by_dict.step();
  CHECK_CLOSE(params.at("bias").detach(), before - 0.2, 1e-6);
  optim::SGD by_list(params.values(), optim::SGDOptions(0.1));
  by_list.step();
  CHECK_CLOSE(params.at("bias").detach(), before - 0.4, 1e-6);
}

TEST_CASE("stacking under no_grad and from models with gradients gives the same leaves") {
  auto models = linears(2);
  models[0](ones({1, 3})).sum().backward();
  NoGradGuard guard;
  auto [params, buffers] = stack_module_state(models);
  CHECK(params.at("weight").requires_grad());
  CHECK(params.at("weight").is_leaf());
  CHECK_FALSE(params.at("weight").grad().defined());
}

TEST_CASE("models may be holders, shared_ptrs or pointers; the same one twice is fine") {
  auto models = linears(2);
  std::vector<std::shared_ptr<nn::LinearImpl>> shared = {models[0].ptr(), models[1].ptr()};
  std::vector<nn::LinearImpl*> pointers = {models[0].get(), models[1].get()};
  std::vector<nn::Module*> modules = {models[0].get(), models[1].get()};
  const Tensor expected = stack({models[0]->weight.detach(), models[1]->weight.detach()});
  CHECK_SAME(stack_module_state(models).params.at("weight").detach(), expected);
  CHECK_SAME(stack_module_state(shared).params.at("weight").detach(), expected);
  CHECK_SAME(stack_module_state(pointers).params.at("weight").detach(), expected);
  CHECK_SAME(stack_module_state(modules).params.at("weight").detach(), expected);
  CHECK(stack_module_state(make<Foo>(2, 3, 3)).params.size() == 4);  // an rvalue
  std::vector<nn::Linear> twice = {models[0], models[0]};
  CHECK_SAME(stack_module_state(twice).params.at("bias").detach()[0],
             stack_module_state(twice).params.at("bias").detach()[1]);
  CHECK(stack_module_state(linears(1)).params.at("weight").sizes() == Sizes{1, 3, 3});
}

TEST_CASE("LibTorch-style modules with plain Tensor members") {
  manual_seed(4);
  auto models = make<Plain>(3);
  auto [params, buffers] = stack_module_state(models);
  CHECK(params.keys() == Keys{"w", "norm.weight", "norm.bias"});
  CHECK(buffers.keys() == Keys{"scale", "steps"});
  CHECK(buffers.at("steps").dtype() == kInt64);
  CHECK(buffers.at("steps").sizes() == Sizes{3});
  CHECK_FALSE(buffers.at("scale").requires_grad());
  Tensor x = randn({5, 3});
  Tensor y = vmap(
      [&](const TensorDict& p, const TensorDict& b, const Tensor& v) {
        return functional_call(models[0], {p, b}, v);
      },
      {0, 0, nullopt})(params, buffers, x);
  for (std::size_t i = 0; i < 3; ++i)
    CHECK_CLOSE(y.detach()[static_cast<std::int64_t>(i)], models[i](x).detach(), 1e-5);
}

TEST_CASE("frozen parameters stay frozen, per name") {
  auto models = make<Foo>(2, 3, 3);
  for (Foo& m : models) m->l1->requires_grad_(false);
  auto [params, buffers] = stack_module_state(models);
  CHECK_FALSE(params.at("l1.weight").requires_grad());
  CHECK(params.at("l2.weight").requires_grad());
}

TEST_CASE("tied weights are stacked once and serve both places") {
  struct TiedImpl : nn::Module {
    TiedImpl() {
      a = register_parameter("a", randn(2));
      b = register_parameter("b", a);
    }
    Tensor forward(const Tensor& x) { return x * a + b * 10; }
    nn::Parameter a, b;
  };
  std::vector<std::shared_ptr<TiedImpl>> models = {std::make_shared<TiedImpl>(),
                                                   std::make_shared<TiedImpl>()};
  auto [params, buffers] = stack_module_state(models);
  CHECK(params.keys() == Keys{"a"});
  Tensor y =
      vmap([&](const TensorDict& p) { return functional_call(models[0], p, ones(2)); })(params);
  CHECK_CLOSE(y.detach()[1], models[1]->forward(ones(2)).detach(), 1e-6);
}

// ---- the page's warning is errors

TEST_CASE("no models") {
  CHECK_THROWS_SAYING(stack_module_state(std::vector<nn::Linear>()), ValueError,
                      "stack_module_state", "at least one");
  CHECK_THROWS_SAYING(
      stack_module_state(std::vector<nn::Linear>{nn::Linear(3, 3), nn::Linear(nullptr)}),
      ValueError, "empty");
  std::vector<nn::Module*> null = {nullptr};
  CHECK_THROWS_SAYING(stack_module_state(null), ValueError, "member 0");
}

TEST_CASE("mixed train and eval, at the top and in a submodule") {
  auto models = linears(3);
  models[2]->eval();
  CHECK_THROWS_SAYING(stack_module_state(models), ValueError, "member 2", "eval", "train");
  auto foos = make<Foo>(2, 3, 3);
  foos[1]->l2->eval();
  CHECK_THROWS_SAYING(stack_module_state(foos), ValueError, "member 1", "\"l2\"", "eval");
  for (Foo& f : foos) f->eval();
  CHECK_NOTHROW(stack_module_state(foos));
  auto sequences = make<nn::Sequential>(2, nn::Linear(2, 2), nn::Dropout(0.1));
  CHECK_NOTHROW(stack_module_state(sequences));
  std::vector<nn::Sequential> dropout = {nn::Sequential(nn::Linear(2, 2), nn::Dropout(0.1)),
                                         nn::Sequential(nn::Linear(2, 2), nn::Dropout(0.1))};
  dropout[1]->children()[1]->eval();
  CHECK_THROWS_SAYING(stack_module_state(dropout), ValueError, "member 1", "\"1\"");
}

TEST_CASE("different classes") {
  nn::Linear a(3, 3);
  Foo b(3, 3);
  std::vector<nn::Module*> models = {a.get(), b.get()};
  CHECK_THROWS_SAYING(stack_module_state(models), TypeError, "member 1", "Foo", "Linear", "class");
  struct Special : nn::LinearImpl {
    using nn::LinearImpl::LinearImpl;
  };
  Special derived(3, 3);
  models = {a.get(), &derived};
  CHECK_THROWS_SAYING(stack_module_state(models), TypeError, "member 1", "class");
}

TEST_CASE("different keys") {
  std::vector<nn::Linear> models = {nn::Linear(3, 3),
                                    nn::Linear(nn::LinearOptions(3, 3).bias(false))};
  CHECK_THROWS_SAYING(stack_module_state(models), ValueError, "member 1", "\"bias\"", "parameter");
  std::swap(models[0], models[1]);
  CHECK_THROWS_SAYING(stack_module_state(models), ValueError, "member 1", "\"bias\"");
  std::vector<nn::BatchNorm1d> norms = {
      nn::BatchNorm1d(3), nn::BatchNorm1d(nn::BatchNormOptions(3).track_running_stats(false))};
  CHECK_THROWS_SAYING(stack_module_state(norms), ValueError, "member 1", "buffer",
                      "\"running_mean\"");
  std::vector<nn::Sequential> depth = {nn::Sequential(nn::Linear(2, 2)),
                                       nn::Sequential(nn::Linear(2, 2), nn::Linear(2, 2))};
  CHECK_THROWS_SAYING(stack_module_state(depth), ValueError, "member 1", "\"1.weight\"");
}

TEST_CASE("different shapes, dtypes, devices, requires_grad") {
  std::vector<nn::Linear> models = {nn::Linear(3, 3), nn::Linear(3, 3), nn::Linear(3, 4)};
  CHECK_THROWS_SAYING(stack_module_state(models), ShapeError, "member 2", "\"weight\"", "[4, 3]",
                      "[3, 3]");
  models = linears(3);
  models[1]->to(kFloat64);
  CHECK_THROWS_SAYING(stack_module_state(models), TypeError, "member 1", "\"weight\"", "float64",
                      "float32");
  models = linears(3);
  models[2]->to(kMeta);
  CHECK_THROWS_SAYING(stack_module_state(models), DeviceError, "member 2", "\"weight\"", "meta",
                      "cpu");
  models = linears(3);
  models[0]->bias.requires_grad_(false);
  CHECK_THROWS_SAYING(stack_module_state(models), ValueError, "member 1", "\"bias\"", "requires");
  auto plain = make<Plain>(2);
  plain[1]->steps = zeros({}, kInt32);  // a plain member: rebinding it does not touch the buffer
  CHECK_NOTHROW(stack_module_state(plain));
  struct Buffered : nn::Module {
    explicit Buffered(DType t) { register_buffer("b", zeros(2, t)); }
  };
  std::vector<std::shared_ptr<Buffered>> buffered = {std::make_shared<Buffered>(kInt64),
                                                     std::make_shared<Buffered>(kInt32)};
  CHECK_THROWS_SAYING(stack_module_state(buffered), TypeError, "member 1", "\"b\"", "int32");
}

TEST_CASE("meta models stack into meta tensors") {
  auto models = linears(2);
  for (auto& m : models) m->to(kMeta);
  auto [params, buffers] = stack_module_state(models);
  CHECK(params.at("weight").is_meta());
  CHECK(params.at("weight").sizes() == Sizes{2, 3, 3});
  // The code of a model without storage serves the others' values.
  auto real = linears(2);
  auto state = stack_module_state(real);
  Tensor y = vmap([&](const TensorDict& p) {
    return functional_call(models[0], p, ones({1, 3}));
  })(state.params);
  CHECK_CLOSE(y.detach()[1], real[1](ones({1, 3})).detach(), 1e-6);
}

// ---- the way back

TEST_CASE("unstack writes every member back, in place") {
  manual_seed(6);
  std::vector<nn::Sequential> models;
  for (int i = 0; i < 3; ++i) models.emplace_back(nn::Linear(2, 2), nn::BatchNorm1d(2));
  auto [params, buffers] = stack_module_state(models);
  const Tensor handle = models[1]->named_parameters().at("0.weight");
  {
    NoGradGuard guard;
    params.at("0.weight").add_(tensor({1.f, 2.f, 3.f}).reshape({3, 1, 1}));
    buffers.at("1.running_mean").copy_(arange(6, kFloat32).reshape({3, 2}));
    buffers.at("1.num_batches_tracked").copy_(tensor({7, 8, 9}));
  }
  unstack_module_state(params, buffers, models);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto at = static_cast<std::int64_t>(i);
    CHECK_SAME(models[i]->named_parameters().at("0.weight").detach(),
               params.at("0.weight").detach()[at]);
    CHECK_SAME(models[i]->named_buffers().at("1.running_mean"), buffers.at("1.running_mean")[at]);
    CHECK(models[i]->named_buffers().at("1.num_batches_tracked").item<int>() ==
          7 + static_cast<int>(i));
  }
  CHECK(handle.is_same(models[1]->named_parameters().at("0.weight")));  // the same tensor object
  CHECK(handle.requires_grad());
  CHECK(handle.is_leaf());
  auto again = stack_module_state(models);
  CHECK_SAME(again.params.at("0.weight").detach(), params.at("0.weight").detach());
}

TEST_CASE("unstack checks before it writes") {
  auto models = linears(2);
  auto [params, buffers] = stack_module_state(models);
  const Tensor before = models[0]->weight.detach().clone();
  {
    NoGradGuard guard;
    params.at("weight").zero_();
  }
  TensorDict wrong = params;
  wrong.insert("extra", ones(2));
  CHECK_THROWS_SAYING(unstack_module_state(wrong, buffers, models), KeyError, "member 0",
                      "\"extra\"");
  wrong = params;
  wrong.erase("bias");
  CHECK_THROWS_SAYING(unstack_module_state(wrong, buffers, models), KeyError, "member 0",
                      "\"bias\"");
  wrong = params;
  wrong.insert("bias", zeros({3, 3}));
  CHECK_THROWS_SAYING(unstack_module_state(wrong, buffers, models), ShapeError, "\"bias\"",
                      "[3, 3]", "[2, 3]");
  wrong = params;
  wrong.insert("bias", zeros({2, 3}, kFloat64));
  CHECK_THROWS_SAYING(unstack_module_state(wrong, buffers, models), TypeError, "\"bias\"",
                      "float64");
  CHECK_THROWS_SAYING(unstack_module_state(params, {{"b", ones(2)}}, models), KeyError, "\"b\"");
  auto three = linears(3);
  CHECK_THROWS_SAYING(unstack_module_state(params, buffers, three), ShapeError, "3 members");
  CHECK_THROWS_SAYING(unstack_module_state(params, buffers, std::vector<nn::Linear>()), ValueError,
                      "at least one");
  CHECK_SAME(models[0]->weight.detach(), before);
}

TEST_CASE("a stack of one model has memory of its own") {
  std::vector<nn::Linear> models{nn::Linear(2, 2)};
  auto state = func::stack_module_state(models);
  const Tensor before = models[0]->weight.detach().clone();
  {
    NoGradGuard guard;
    state.params.at("weight").fill_(7);
  }
  CHECK(equal(models[0]->weight.detach(), before));
}
