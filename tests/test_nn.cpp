// Modules (registering, naming, state, copies), and layers and losses against PyTorch's numbers
// (golden/nn.safetensors).
#include <cmath>
#include <functional>
#include <sstream>

#include <tutti/tutti.h>

#include "listener.h"
#include "test.h"

using namespace tutti;
namespace F = tutti::nn::functional;

namespace {

using Names = std::vector<std::string>;

// ---- modules

struct BlockImpl : nn::Module {
  BlockImpl() {
    fc = register_module("fc", nn::Linear(3, 3));
    scale = register_parameter("scale", ones({3}));
    seen = register_buffer("seen", zeros({}, kInt64));
  }
  Tensor forward(const Tensor& x) {
    seen = seen + 1;
    return fc(x) * scale;
  }
  nn::Linear fc{nullptr};
  nn::Parameter scale;
  nn::Buffer seen;
};
TUTTI_MODULE(Block);

struct NetImpl : nn::Module {
  NetImpl() {
    w = register_parameter("w", full({2}, 2.0));
    block = register_module("block", Block());
    list = register_module("list", nn::Sequential(nn::Linear(3, 2), nn::ReLU(), nn::Dropout(0.5)));
    offset = register_buffer("offset", zeros({2}));
  }
  Tensor forward(const Tensor& x) { return list(block(x)) * w + offset; }
  Tensor w;  // a plain Tensor, as LibTorch's modules have
  Block block{nullptr};
  nn::Sequential list{nullptr};
  Tensor offset;
};
TUTTI_MODULE(Net);

struct NoCopyImpl : nn::Module {
  NoCopyImpl() = default;
  NoCopyImpl(const NoCopyImpl&) = delete;
};
TUTTI_MODULE(NoCopy);

struct RawPointerImpl : nn::Module {
  RawPointerImpl() { fc = register_module("fc", std::make_shared<nn::LinearImpl>(2, 2)); }
  std::shared_ptr<nn::LinearImpl> fc;
};
TUTTI_MODULE(RawPointer);

struct TwiceLinearImpl : nn::LinearImpl {
  using nn::LinearImpl::LinearImpl;
  Tensor forward(const Tensor& x) { return nn::LinearImpl::forward(x) * 2; }
};
struct LeakingReLUImpl : nn::ReLUImpl {
  using nn::ReLUImpl::ReLUImpl;
  Tensor forward(const Tensor& x) { return nn::ReLUImpl::forward(x) + x * 0.5; }
};
struct NeedsArgumentImpl : nn::Module {
  explicit NeedsArgumentImpl(int n) : size(n) {}
  int forward(int by = 1) const { return size * by; }
  int size;
};
TUTTI_MODULE(NeedsArgument);

}  // namespace

TEST_CASE("names come in order, own before children's") {
  Net net;
  CHECK(net->named_parameters().keys() == Names{"w", "block.scale", "block.fc.weight",
                                                "block.fc.bias", "list.0.weight", "list.0.bias"});
  CHECK(net->named_parameters(false).keys() == Names{"w"});
  CHECK(net->named_buffers().keys() == Names{"offset", "block.seen"});
  CHECK(net->parameters().size() == 6);
  CHECK(net->state_dict().keys() == Names{"w", "offset", "block.scale", "block.seen",
                                          "block.fc.weight", "block.fc.bias", "list.0.weight",
                                          "list.0.bias"});
  CHECK(net->named_modules().keys() ==
        Names{"", "block", "block.fc", "list", "list.0", "list.1", "list.2"});
  CHECK(net->named_modules("net", false).keys().front() == "net.block");
  CHECK(net->named_children().keys() == Names{"block", "list"});
  CHECK(net->modules().size() == 7);
  CHECK(net->children()[0] == net->block.ptr());
  CHECK(net->modules()[0] == net.ptr());
  for (const Tensor& p : net->parameters()) {
    CHECK(p.requires_grad());
    CHECK(p.is_leaf());
  }
  Names visited;
  net->apply([&](nn::Module& m) { visited.push_back(m.name()); });
  CHECK(visited == Names{"Net", "Block", "nn::Linear", "nn::Sequential", "nn::Linear", "nn::ReLU",
                         "nn::Dropout"});
  std::string last;
  net->apply([&](const std::string& name, nn::Module&) { last = name; }, "root");
  CHECK(last == "root.list.2");
}

TEST_CASE("members are handles on the registered tensors") {
  Net net;
  NoGradGuard guard;
  net->w.fill_(5);
  CHECK(net->named_parameters().at("w")[0].item<double>() == 5);
  net->named_parameters().at("w").fill_(6);
  CHECK(net->w[1].item<double>() == 6);
  CHECK(net->w.is_same(net->parameters()[0]));
  net->block->seen = scalar_tensor(7, kInt64);  // a bound Buffer: written to the module
  CHECK(net->named_buffers().at("block.seen").item<int>() == 7);
  CHECK(net->state_dict().at("block.seen").item<int>() == 7);
}

TEST_CASE("names and handles that do not fit are refused") {
  nn::Module m;
  m.register_parameter("a", ones({1}));
  CHECK_THROWS_SAYING(m.register_parameter("a", ones({1})), ValueError, "\"a\"", "already");
  CHECK_THROWS_SAYING(m.register_buffer("a", ones({1})), ValueError, "\"a\"", "already");
  CHECK_THROWS_SAYING(m.register_buffer("", ones({1})), ValueError, "empty");
  CHECK_THROWS_SAYING(m.register_module("x.y", nn::ReLU()), ValueError, "dot");
  CHECK_THROWS_SAYING(m.register_module("x", nn::ReLU(nullptr)), ValueError, "empty handle");
  CHECK_THROWS_SAYING(m.register_parameter("b", ones({1}, kInt64)), TypeError, "int64");
  CHECK_THROWS_SAYING(m.register_parameter("b", ones({1}, TensorOptions().requires_grad()) * 2),
                      ValueError, "leaf");
  m.register_parameter("none", Tensor());
  CHECK(m.named_parameters().keys() == Names{"a"});
  CHECK(m.register_parameter("frozen", ones({1}), false).requires_grad() == false);
}

TEST_CASE("tied parameters are listed once and stay tied") {
  struct Tied : nn::Module {
    Tied() {
      in = register_module("in", nn::Embedding(4, 3));
      weight = register_parameter("out_weight", in->weight);
    }
    nn::Embedding in{nullptr};
    nn::Parameter weight;
  };
  auto m = std::make_shared<Tied>();
  CHECK(m->named_parameters().keys() == Names{"out_weight"});
  CHECK(m->state_dict().keys() == Names{"out_weight", "in.weight"});
  CHECK(m->weight.is_same(m->in->weight));
  m->to(kFloat64);
  CHECK(m->in->weight.dtype() == kFloat64);
  CHECK(m->weight.is_same(m->in->weight));

  nn::Module a, b;
  nn::Parameter p = a.register_parameter("p", ones({2}));
  nn::Parameter q = b.register_parameter("q", zeros({2}));
  q = p;  // two bound handles: ties
  CHECK(b.parameters()[0].is_same(a.parameters()[0]));
  q = nn::Parameter(full({2}, 3.0));
  CHECK(b.parameters()[0][0].item<double>() == 3);
  CHECK(a.parameters()[0][0].item<double>() == 1);
  CHECK(b.parameters()[0].requires_grad());

  nn::Linear in(3, 4), out(3, 4);
  out->weight = in->weight;
  CHECK(out->parameters()[0].is_same(in->parameters()[0]));
  out->bias = ones({4});  // becomes the parameter
  CHECK(equal(out->named_parameters().at("bias"), ones({4})));
  CHECK(out->bias.requires_grad());
  out->bias = Tensor();
  CHECK(out->named_parameters().keys() == Names{"weight"});
  CHECK(out(ones({1, 3})).sizes() == IntArrayRef({1, 4}));
  CHECK_THROWS_SAYING(out->weight = out->weight * 2, ValueError, "leaf", "detach()");
  auto replace = [&](const Tensor& x) {
    in->weight = ones({3, 4});
    return x.sum();
  };
  CHECK_THROWS_SAYING(func::grad(replace)(ones({2})), TransformError, "copy_");

  nn::Linear shared(2, 2);
  nn::Sequential twice(shared, shared);
  CHECK(twice->named_parameters().keys() == Names{"0.weight", "0.bias"});
  CHECK(twice->named_modules().keys() == Names{"", "0"});
  CHECK(twice->state_dict().size() == 4);
}

TEST_CASE("slots lists every path and notices registrations below") {
  Net net;
  const auto before = net->slots();
  CHECK(before == net->slots());
  CHECK(before->entries.size() == 8);
  CHECK(before->entries[before->names.find("block.seen")].is_buffer);
  net->block->fc->register_parameter("extra", ones({1}));
  const auto after = net->slots();
  CHECK(before != after);
  CHECK(after->names.find("block.fc.extra") >= 0);
}

TEST_CASE("train and eval reach all modules") {
  Net net;
  CHECK(net->is_training());
  net->eval();
  for (const auto& m : net->modules()) CHECK_FALSE(m->is_training());
  net->train();
  CHECK(net->list[2]->is_training());
}

TEST_CASE("state dicts load in place, strictly or not") {
  Net a, b;
  const Tensor held = b->parameters()[0];
  b->load_state_dict(a->state_dict());
  for (const auto& [name, t] : a->state_dict()) CHECK(equal(t, b->state_dict().at(name)));
  CHECK(held.is_same(b->w));
  const TensorDict aliases = a->state_dict();
  CHECK_FALSE(aliases.at("w").requires_grad());
  aliases.at("w").fill_(9);
  CHECK(a->w[0].item<double>() == 9);

  TensorDict wrong = a->state_dict();
  wrong.erase("block.scale");
  wrong.insert("block.scala", ones({3}));
  CHECK_THROWS_SAYING(b->load_state_dict(wrong), KeyError, "none for \"block.scale\"",
                      "unexpected \"block.scala\"");
  const auto keys = b->load_state_dict(wrong, false);
  CHECK(keys.missing_keys == Names{"block.scale"});
  CHECK(keys.unexpected_keys == Names{"block.scala"});
  CHECK(b->w[0].item<double>() == 9);

  wrong = a->state_dict();
  wrong.at("w") = ones({2}) * 4;
  wrong.at("offset") = ones({5});
  CHECK_THROWS_SAYING(b->load_state_dict(wrong), ShapeError, "\"offset\"", "[2]", "[5]");
  CHECK(b->w[0].item<double>() == 9);
}

TEST_CASE("clone copies everything once, and shares nothing") {
  Net net;
  net->block->fc->eval();
  net->w.requires_grad_(false);
  auto copy = std::dynamic_pointer_cast<NetImpl>(net->clone());
  REQUIRE(copy);
  CHECK(copy->named_parameters().keys() == net->named_parameters().keys());
  CHECK(copy->block.ptr() != net->block.ptr());
  CHECK(copy->block.ptr() == copy->children()[0]);
  CHECK_FALSE(copy->block->fc->is_training());
  CHECK_FALSE(copy->w.requires_grad());
  CHECK(copy->block->scale.requires_grad());
  copy->eval();
  net->eval();
  const Tensor x = randn({4, 3});
  CHECK(equal(copy->forward(x), net->forward(x)));
  CHECK(copy->block->seen.item<int>() == 1);  // each counts for itself
  CHECK(net->block->seen.item<int>() == 1);
  {
    NoGradGuard guard;
    for (const Tensor& p : copy->parameters()) p.add_(1);
    copy->block->seen = scalar_tensor(40, kInt64);
  }
  CHECK(net->w[0].item<double>() == 2);
  CHECK(net->block->seen.item<int>() == 1);
  CHECK(copy->block->seen.item<int>() == 40);
  for (const auto& [name, p] : copy->named_parameters())
    CHECK_FALSE(p.is_same(net->named_parameters().at(name)));

  nn::Linear shared(2, 2);
  nn::Sequential twice(shared, nn::ReLU(), shared);
  auto other = std::dynamic_pointer_cast<nn::SequentialImpl>(twice->clone());
  CHECK(other->ptr(0) == other->ptr(2));
  CHECK(other->ptr(0) != twice[0]);
  CHECK(equal(other->forward(ones({1, 2})), twice(ones({1, 2}))));

  CHECK_THROWS_SAYING(nn::Module().clone(), NotImplementedError, "Cloneable");
  CHECK_THROWS_SAYING(NoCopy()->clone(), NotImplementedError, "NoCopy", "Cloneable");
  CHECK_THROWS_SAYING(RawPointer()->clone(), NotImplementedError, "\"fc\"", "shared_ptr");
  CHECK(twice->clone() != nullptr);  // a refusal leaves nothing behind
}

TEST_CASE("to() changes the tensors in place") {
  Net net;
  const Tensor held = net->parameters()[0];
  (net->w * 2).sum().backward();
  net->to(kFloat64);
  CHECK(held.dtype() == kFloat64);
  CHECK(held.is_same(net->w));
  CHECK(held.grad().dtype() == kFloat64);
  CHECK(net->block->seen.dtype() == kInt64);
  CHECK(net->offset.dtype() == kFloat64);
  net->zero_grad();
  (net->w * 3).sum().backward();
  CHECK(held.grad()[0].item<double>() == 3);
  CHECK(net->forward(ones({1, 3}, kFloat64)).dtype() == kFloat64);
  CHECK_THROWS_SAYING(net->to(kInt64), TypeError, "floating", "int64");
  auto inside = [&](const Tensor& x) {
    net->to(kFloat32);
    return x.sum();
  };
  CHECK_THROWS_SAYING(func::grad(inside)(ones({2})), TransformError, "transform");
  net->to(kMeta);
  CHECK(net->w.is_meta());
}

TEST_CASE("zero_grad and requires_grad_") {
  nn::Linear fc(2, 2);
  fc(ones({1, 2})).sum().backward();
  CHECK(fc->weight.grad().defined());
  fc->zero_grad(false);
  CHECK(fc->weight.grad().sum().item<double>() == 0);
  fc->zero_grad();
  CHECK_FALSE(fc->weight.grad().defined());
  fc->requires_grad_(false);
  CHECK_FALSE(fc->bias.requires_grad());
  fc->requires_grad_();
  CHECK(fc->bias.requires_grad());
}

TEST_CASE("handles") {
  CHECK(nn::ReLU(nullptr).is_empty());
  nn::Linear none{nullptr};
  CHECK_FALSE(none);
  CHECK_THROWS_SAYING(none->weight, ValueError, "empty handle");
  CHECK_THROWS_SAYING(none(ones({1})), ValueError, "empty handle");
  nn::Linear a(2, 3), b = a;
  CHECK(a.ptr() == b.ptr());
  CHECK(NeedsArgument(4)() == 4);
  CHECK(NeedsArgument(4)(3) == 12);
  nn::Module& base = *a;
  CHECK(base.as<nn::Linear>() == a.get());
  CHECK(base.as<nn::LinearImpl>() == a.get());
  CHECK(base.as<nn::ReLU>() == nullptr);
}

TEST_CASE("Sequential runs Linear and ReLU, but not what is derived from them, as one op") {
  const Tensor x = randn({5, 2});
  const auto linear = std::make_shared<nn::LinearImpl>(2, 3);
  const auto twice = std::make_shared<TwiceLinearImpl>(2, 3);
  const auto leaking = std::make_shared<LeakingReLUImpl>();
  const auto in_place = std::make_shared<nn::ReLUImpl>(nn::ReLUOptions().inplace(true));
  const Tensor y = linear->forward(x), y2 = twice->forward(x);
  CHECK(equal(nn::Sequential(linear, nn::ReLU())(x), relu(y)));
  CHECK(equal(nn::Sequential(linear, in_place, nn::ReLU())(x), relu(y)));
  CHECK(equal(nn::Sequential(linear, leaking)(x), relu(y) + y * 0.5));
  CHECK(equal(nn::Sequential(twice, nn::ReLU())(x), relu(y2)));
  CHECK(equal(nn::Sequential(twice, leaking)(x), relu(y2) + y2 * 0.5));
  CHECK(equal(nn::Sequential(nn::ReLU(), linear)(x), linear->forward(relu(x))));
  nn::Sequential one(linear, nn::ReLU()), two(linear, leaking);
  NoGradGuard guard;
  CHECK(tutti_test::ops_of([&] { one(x); }) == 1);
  CHECK(tutti_test::ops_of([&] { two(x); }) > 1);
}

TEST_CASE("containers") {
  nn::Sequential s({{"in", nn::Linear(2, 3)}, {"act", nn::Tanh()}});
  s->push_back("out", nn::Linear(nn::LinearOptions(3, 1).bias(false)));
  s->push_back(nn::Functional([](Tensor x) { return x * 2; }));
  CHECK(s->named_parameters().keys() == Names{"in.weight", "in.bias", "out.weight"});
  const Tensor x = randn({5, 2});
  const Tensor want = s->at<nn::Linear>(2).forward(s->at<nn::LinearImpl>(0).forward(x).tanh()) * 2;
  CHECK(equal(s(x), want));
  CHECK(s->size() == 4);
  CHECK_THROWS_SAYING(s->at<nn::ReLU>(0), TypeError, "nn::Linear");
  CHECK_THROWS_SAYING(s[4], IndexError, "below 4");
  CHECK_THROWS_SAYING(nn::Sequential()(x), ValueError, "push_back");
  nn::Sequential odd(nn::MSELoss{});
  CHECK_THROWS_SAYING(odd(x), NotImplementedError, "MSELoss");

  nn::ModuleList list(nn::Linear(2, 2), nn::ReLU());
  list->push_back(Block());
  CHECK(list->size() == 3);
  CHECK(list->named_parameters().keys().back() == "2.fc.bias");
  int n = 0;
  for (const auto& m : *list) n += m->as<nn::ReLU>() ? 1 : 0;
  CHECK(n == 1);

  nn::ModuleDict dict({{"a", nn::Linear(2, 2)}, {"b", nn::ReLU()}});
  CHECK(dict->keys() == Names{"a", "b"});
  CHECK(dict->at<nn::Linear>("a").weight.size(0) == 2);
  dict->insert("a", nn::Linear(2, 5));
  CHECK(dict->at<nn::Linear>("a").weight.size(0) == 5);
  CHECK(dict->pop("b")->name() == "nn::ReLU");
  CHECK(dict->size() == 1);
  CHECK_THROWS_SAYING(dict["b"], KeyError, "\"b\"");
}

TEST_CASE("modules print like PyTorch's") {
  std::ostringstream out;
  out << nn::Sequential({{"fc", nn::Linear(2, 3)}, {"inner", nn::Sequential(nn::ReLU())}});
  CHECK(out.str() ==
        "nn::Sequential(\n"
        "  (fc): nn::Linear(in_features=2, out_features=3, bias=true)\n"
        "  (inner): nn::Sequential(\n"
        "    (0): nn::ReLU()\n"
        "  )\n"
        ")");
}

// ---- buffers inside functional_call

TEST_CASE("assigning a buffer inside functional_call reaches the given tensor") {
  Block block;
  TensorDict state = block->named_parameters();
  state.insert("seen", scalar_tensor(10, kInt64));
  const Tensor given = state.at("seen");
  func::functional_call(block, state, ones({1, 3}));
  func::functional_call(block, state, ones({1, 3}));
  CHECK(given.item<int>() == 12);
  CHECK(block->seen.item<int>() == 0);
  block(ones({1, 3}));
  CHECK(block->seen.item<int>() == 1);
  CHECK(given.item<int>() == 12);

  struct KeepImpl : nn::Module {
    KeepImpl() { last = register_buffer("last", zeros({2})); }
    Tensor forward(const Tensor& x) {
      last = x;
      return x * 2;
    }
    nn::Buffer last;
  };
  auto keep = std::make_shared<KeepImpl>();
  auto mapped = func::vmap([&](const Tensor& x) { return keep->forward(x); });
  CHECK_THROWS_SAYING(mapped(ones({3, 2})), TransformError, "functional_call", "buffer");
  TensorDict buffers{{"last", zeros({3, 2})}};
  const Tensor x = randn({3, 2});
  func::vmap([&](const TensorDict& b, const Tensor& v) {
    return func::functional_call(keep, b, v);
  })(buffers, x);
  CHECK(equal(buffers.at("last"), x));
}

// ---- layers

namespace {

const TensorDict& golden() {
  static const TensorDict d = load(TUTTI_GOLDEN_DIR "/nn.safetensors");
  return d;
}
// Now, so that no test is taken to have left these tensors alive.
[[maybe_unused]] const bool loaded = !golden().empty();

Tensor leaf(const std::string& name) { return golden().at(name).clone().requires_grad_(); }

std::string differs(const Tensor& a, const Tensor& b) {
  if (!(a.sizes() == b.sizes())) return "shapes differ";
  if (a.numel() == 0) return "";
  if (!equal(a.isnan(), b.isnan())) return "NaN at different places";
  const Tensor scale = b.abs().clamp_min(1);
  const double d = where(a.isnan(), 0, (a - b).abs() / scale).max().item<double>();
  return d <= 1e-12 ? "" : "differs by " + std::to_string(d);
}

/// Compares y with the stored result, and the gradients of sum(y * cos(0, 1, ...)) with the stored
/// ones.
void check_golden(const std::string& name, const Tensor& y,
                  const std::vector<std::pair<std::string, Tensor>>& leaves) {
  CAPTURE(name);
  CHECK(differs(y.detach(), golden().at(name + ".out")) == "");
  const Tensor seed = arange(y.numel()).to(kFloat64).cos().reshape(y.sizes());
  std::vector<Tensor> inputs;
  for (const auto& l : leaves) inputs.push_back(l.second);
  const auto grads = autograd::grad({(y * seed).sum()}, inputs);
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    CAPTURE(leaves[i].first);
    CHECK(differs(grads[i], golden().at(name + ".grad." + leaves[i].first)) == "");
  }
}

void set(const Tensor& parameter, const Tensor& value) {
  NoGradGuard guard;
  parameter.copy_(value);
}

}  // namespace

TEST_CASE("Linear, Embedding, LayerNorm equal PyTorch's") {
  Tensor x = leaf("linear.x");
  nn::Linear fc(3, 2);
  fc->to(kFloat64);
  set(fc->weight, golden().at("linear.w"));
  set(fc->bias, golden().at("linear.b"));
  check_golden("linear", fc(x), {{"x", x}, {"w", fc->weight}, {"b", fc->bias}});
  nn::Linear plain(nn::LinearOptions(3, 2).bias(false));
  CHECK(plain->named_parameters().keys() == Names{"weight"});
  CHECK_FALSE(plain->bias.defined());
  CHECK(plain(ones({4, 3})).sizes() == IntArrayRef({4, 2}));

  nn::Embedding e(nn::EmbeddingOptions(5, 2).padding_idx(2));
  CHECK(e->weight[2].abs().sum().item<double>() == 0);
  e->to(kFloat64);
  set(e->weight, golden().at("embedding.w"));
  const Tensor index = golden().at("embedding.index");
  check_golden("embedding", e(index), {{"w", e->weight}});
  e->options.padding_idx(-3);  // counts from the end
  check_golden("embedding", e(index.to(kInt32)), {{"w", e->weight}});
  CHECK_THROWS_AS(e(tensor({5})), IndexError);
  CHECK_THROWS_SAYING(e(ones({1})), TypeError, "integer");
  CHECK_THROWS_SAYING(nn::Embedding(nn::EmbeddingOptions(5, 2).padding_idx(5)), ValueError, "5");

  x = leaf("layer_norm.x");
  nn::LayerNorm ln(std::vector<std::int64_t>{3, 4});
  ln->to(kFloat64);
  set(ln->weight, golden().at("layer_norm.w"));
  set(ln->bias, golden().at("layer_norm.b"));
  check_golden("layer_norm", ln(x), {{"x", x}, {"w", ln->weight}, {"b", ln->bias}});
  CHECK_THROWS_SAYING(ln(ones({4, 3})), ShapeError, "[3, 4]", "[4, 3]");
  CHECK(nn::LayerNorm(4)->weight.sizes() == IntArrayRef(4));
  CHECK(nn::LayerNorm(nn::LayerNormOptions({4}).elementwise_affine(false))->parameters().empty());
}

TEST_CASE("activations equal PyTorch's") {
  const std::vector<std::pair<std::string, nn::AnyModule>> all = {
      {"relu", nn::ReLU()},
      {"tanh", nn::Tanh()},
      {"sigmoid", nn::Sigmoid()},
      {"silu", nn::SiLU()},
      {"gelu", nn::GELU()},
      {"gelu_tanh", nn::GELU(nn::GELUOptions().approximate("tanh"))},
      {"elu", nn::ELU(nn::ELUOptions().alpha(0.7))},
      {"leaky_relu", nn::LeakyReLU(nn::LeakyReLUOptions().negative_slope(0.2))},
      {"softplus", nn::Softplus(nn::SoftplusOptions().beta(2).threshold(1.5))},
      {"softmax", nn::Softmax(0)},
      {"log_softmax", nn::LogSoftmax(0)},
  };
  for (const auto& [name, layer] : all) {
    const Tensor x = leaf("activation.x");
    check_golden("activation." + name, layer.forward(x), {{"x", x}});
  }
  const Tensor x = tensor({-1.0, 2.0});
  CHECK(equal(nn::ReLU(nn::ReLUOptions().inplace(true))(x), tensor({0.0, 2.0})));
  CHECK(equal(x, tensor({0.0, 2.0})));
  CHECK(F::relu(x).sizes() == x.sizes());
  CHECK(equal(F::softmax(x, 0), F::softmax(x, F::SoftmaxFuncOptions(0))));
}

TEST_CASE("Flatten, Identity, Dropout") {
  CHECK(nn::Flatten()(ones({2, 3, 4})).sizes() == IntArrayRef({2, 12}));
  CHECK(nn::Flatten(nn::FlattenOptions().start_dim(0).end_dim(1))(ones({2, 3, 4})).sizes() ==
        IntArrayRef({6, 4}));
  const Tensor x = ones({10000});
  CHECK(nn::Identity()(x).is_same(x));
  nn::Dropout drop(0.25);
  const Tensor y = drop(x);
  CHECK(((y == 0) | ((y - 4.0 / 3).abs() < 1e-6)).all().item<bool>());
  CHECK(std::abs((y == 0).to(kFloat64).mean().item<double>() - 0.25) < 0.03);
  drop->eval();
  CHECK(equal(drop(x), x));
  CHECK_THROWS_SAYING(nn::Dropout(1.5), ValueError, "1.5");
}

TEST_CASE("BatchNorm1d equals PyTorch's in three training steps and in eval") {
  const std::vector<std::pair<std::string, std::optional<double>>> all = {
      {"bn", 0.1}, {"bn3", 0.3}, {"bn_average", std::nullopt}};
  for (const auto& [name, momentum] : all) {
    nn::BatchNorm1d bn(nn::BatchNormOptions(3).momentum(momentum));
    bn->to(kFloat64);
    set(bn->weight, tensor({0.5, 1.0, -2.0}));
    set(bn->bias, tensor({1.0, 2.0, 3.0}, kFloat64) / 10);
    Tensor x;
    for (int step = 0; step < 3; ++step) {
      const std::string at = name + "." + std::to_string(step);
      x = leaf(at + ".x");
      check_golden(at, bn(x), {{"x", x}, {"w", bn->weight}, {"b", bn->bias}});
      CHECK(differs(bn->running_mean, golden().at(at + ".running_mean")) == "");
      CHECK(differs(bn->running_var, golden().at(at + ".running_var")) == "");
      CHECK(bn->num_batches_tracked.item<int>() == step + 1);
      CHECK_FALSE(bn->running_mean.requires_grad());
    }
    bn->eval();
    check_golden(name + ".eval", bn(x), {{"x", x}, {"w", bn->weight}, {"b", bn->bias}});
    CHECK(bn->num_batches_tracked.item<int>() == 3);
  }
  nn::BatchNorm1d bn(3);
  CHECK(bn->state_dict().keys() ==
        Names{"weight", "bias", "running_mean", "running_var", "num_batches_tracked"});
  CHECK_THROWS_SAYING(bn(ones({1, 3})), ValueError, "more than 1 value");
  CHECK_THROWS_SAYING(bn(ones({3})), ValueError, "[3]");
  CHECK_THROWS_SAYING(bn(ones({4, 2})), ShapeError, "[2]");
  nn::BatchNorm1d untracked(nn::BatchNormOptions(3).track_running_stats(false).affine(false));
  CHECK(untracked->state_dict().empty());
  untracked->eval();  // still the batch's statistics
  CHECK(untracked(randn({50, 3})).mean(0).abs().max().item<double>() < 1e-5);
}

TEST_CASE("BatchNorm1d members train together as they do alone") {
  for (std::optional<double> momentum : {std::optional<double>(0.1), std::optional<double>()}) {
    manual_seed(5);
    std::vector<nn::BatchNorm1d> models;
    for (int m = 0; m < 3; ++m) {
      models.emplace_back(nn::BatchNormOptions(4).momentum(momentum));
      models.back()->to(kFloat64);
    }
    auto stacked = func::stack_module_state(models);
    auto loss = [&](const TensorDict& p, const TensorDict& b, const Tensor& x) {
      return func::functional_call(models[0], {p, b}, x).pow(3).sum();
    };
    auto step = func::vmap(func::grad_and_value(loss));
    for (int i = 0; i < 3; ++i) {
      const Tensor x = randn({3, 8, 4}, kFloat64);
      auto [grads, values] = step(stacked.params, stacked.buffers, x);
      for (std::size_t m = 0; m < models.size(); ++m) {
        const std::int64_t k = static_cast<std::int64_t>(m);
        models[m]->zero_grad();
        const Tensor alone = models[m](x[k]).pow(3).sum();
        alone.backward();
        CHECK(differs(values[k], alone.detach()) == "");
        CHECK(differs(grads.at("weight")[k], models[m]->weight.grad()) == "");
        for (const char* b : {"running_mean", "running_var", "num_batches_tracked"})
          CHECK(differs(stacked.buffers.at(b)[k].to(kFloat64),
                        models[m]->named_buffers().at(b).to(kFloat64)) == "");
      }
    }
  }
}

// ---- losses

namespace {

template <class Loss>
void check_losses(const std::string& name, const Tensor& x, Loss loss) {
  for (const char* r : {"none", "mean", "sum"})
    check_golden(name + "." + r, loss(nn::Reduction(r)), {{"x", x}});
}

}  // namespace

TEST_CASE("losses of numbers and probabilities equal PyTorch's") {
  Tensor x = leaf("pair.x"), t = golden().at("pair.t");
  check_losses("mse", x, [&](nn::Reduction r) {
    return nn::MSELoss(nn::MSELossOptions().reduction(r))(x, t);
  });
  check_losses("l1", x, [&](nn::Reduction r) { return nn::L1Loss(nn::L1LossOptions(r))(x, t); });
  check_losses("smooth_l1", x, [&](nn::Reduction r) {
    return nn::SmoothL1Loss(nn::SmoothL1LossOptions(r).beta(0.7))(x, t);
  });
  check_losses("huber", x, [&](nn::Reduction r) {
    return nn::HuberLoss(nn::HuberLossOptions(r).delta(0.7))(x, t);
  });
  CHECK(equal(F::smooth_l1_loss(x, t, F::SmoothL1LossFuncOptions().beta(0)), F::l1_loss(x, t)));

  x = leaf("bce.x"), t = golden().at("bce.t");
  const Tensor w = golden().at("bce.w"), pos = golden().at("bce.pos");
  check_losses("bce_logits", x, [&](nn::Reduction r) {
    return nn::BCEWithLogitsLoss(
        nn::BCEWithLogitsLossOptions().weight(w).pos_weight(pos).reduction(r))(x, t);
  });
  const Tensor q = leaf("bce.q");
  check_losses("bce", q, [&](nn::Reduction r) {
    return nn::BCELoss(nn::BCELossOptions().weight(w).reduction(r))(q, t);
  });
  CHECK(F::binary_cross_entropy(zeros({2}), ones({2})).item<double>() == 100);
  CHECK_THROWS_SAYING(F::binary_cross_entropy(q, ones({2})), ShapeError, "[3, 4]", "[2]");

  x = leaf("kl.x"), t = golden().at("kl.t");
  const Tensor s = golden().at("kl.s");
  check_losses("kl", x, [&](nn::Reduction r) { return nn::KLDivLoss(r)(x, t); });
  check_losses("kl_log", x, [&](nn::Reduction r) {
    return nn::KLDivLoss(nn::KLDivLossOptions(r).log_target(true))(x, s);
  });
  CHECK(differs(F::kl_div(x, t, kBatchMean).detach(), golden().at("kl.batchmean")) == "");
  CHECK_THROWS_SAYING(F::l1_loss(x, t, kBatchMean), ValueError, "batchmean");
  CHECK_THROWS_SAYING(nn::Reduction("average"), ValueError, "average");
}

TEST_CASE("cross entropy equals PyTorch's in all its forms") {
  const Tensor weight = golden().at("class.weight");
  for (const char* shape : {"nc", "nchw", "c"}) {
    const std::string at = std::string("ce.") + shape;
    for (const char* kind : {"t", "some", "p"}) {
      const Tensor target = golden().at(at + "." + kind);
      for (bool weighted : {false, true}) {
        for (const char* smoothing : {"0.0", "0.2"}) {
          const Tensor x = leaf(at + ".x");
          check_losses(at + "." + kind + (weighted ? ".weighted." : ".plain.") + smoothing, x,
                       [&](nn::Reduction r) {
                         nn::CrossEntropyLossOptions o;
                         o.reduction(r).label_smoothing(std::stod(smoothing));
                         if (weighted) o.weight(weight);
                         return nn::CrossEntropyLoss(o)(x, target);
                       });
        }
      }
    }
  }
  const Tensor x = leaf("nll.x"), t = golden().at("nll.t");
  check_losses("nll", x, [&](nn::Reduction r) {
    return nn::NLLLoss(nn::NLLLossOptions().weight(weight).ignore_index(2).reduction(r))(x, t);
  });
  const nn::CrossEntropyLoss with_weight(nn::CrossEntropyLossOptions().weight(weight));
  CHECK(with_weight->named_buffers().keys() == Names{"weight"});
}

TEST_CASE("cross entropy refuses what makes no sense") {
  const Tensor x = randn({3, 4});
  CHECK_THROWS_AS(F::cross_entropy(x, tensor({0, 1, 4})), IndexError);
  CHECK_THROWS_AS(F::cross_entropy(x, tensor({0, 1, -1})), IndexError);
  CHECK_THROWS_SAYING(F::cross_entropy(x, tensor({0, 1})), ShapeError, "[3]", "[3, 4]", "[2]");
  CHECK_THROWS_SAYING(F::cross_entropy(x, ones({3})), ShapeError, "[3, 4]", "[3]");
  CHECK_THROWS_SAYING(
      F::cross_entropy(x, tensor({0, 1, 2}), F::CrossEntropyFuncOptions().weight(ones({3}))),
      ShapeError, "[4]", "[3]");
  CHECK_THROWS_SAYING(
      F::cross_entropy(x, tensor({0, 1, 2}), F::CrossEntropyFuncOptions().label_smoothing(2)),
      ValueError, "label_smoothing");
  const Tensor none = F::cross_entropy(x, tensor({-100, -100, -100}));
  CHECK(std::isnan(none.item<double>()));
}

TEST_CASE("cross entropy names a class out of range, mapped and in chunks, too") {
  const Tensor x = randn({4, 3, 5}), y = tensor({{0, 1, 2}, {0, 4, -100}, {1, 5, 2}, {3, 3, 3}});
  auto loss = [](const Tensor& a, const Tensor& t) { return F::cross_entropy(a, t); };
  const char* text = "[cross_entropy] expected indices in [0, 4], got 5; the axis has 5 elements";
  CHECK_THROWS_SAYING(loss(x[2], y[2]), IndexError, text);
  CHECK_THROWS_SAYING(func::vmap(loss)(x, y), IndexError, text);
  CHECK_THROWS_SAYING(func::vmap(func::grad(loss))(x, y), IndexError, text);
  CHECK_THROWS_SAYING(func::vmap(loss, 0, 0, func::VmapOptions().chunk_size(1))(x, y), IndexError,
                      text);
  CHECK_THROWS_SAYING(loss(x[0], tensor({0, -7, 2})), IndexError, "got -7");
  // The loss keeps the targets; if they are overwritten behind its back, nothing is read or written
  // out of range.
  const Tensor logits = randn({3, 5}).requires_grad_(), target = tensor({0, 1, 2});
  const Tensor l = loss(logits, target);
  target.data_ptr<std::int64_t>()[1] = 1000000;
  CHECK_THROWS_AS(l.backward(), IndexError);
}

TEST_CASE("cross entropy has the derivatives of its parts, of every order") {
  using Loss = std::function<Tensor(const Tensor&, const Tensor&, const Tensor&)>;
  manual_seed(3);
  const Tensor x = randn({3, 4, 5}, kFloat64),
               y = tensor({{0, 3, -100, 4}, {1, 1, 2, 0}, {-100, 2, 4, 3}});
  const Tensor w = rand({5}, kFloat64) + 0.2, v = randn({4, 5}, kFloat64);
  for (bool weighted : {false, true})
    for (double smoothing : {0.0, 0.25})
      for (nn::Reduction r : {kMean, kSum}) {
        auto fused = [&](const Tensor& a, const Tensor& t, const Tensor& c) {
          nn::CrossEntropyLossOptions o;
          o.reduction(r).label_smoothing(smoothing);
          if (weighted) o.weight(c);
          return F::cross_entropy(a, t, o);
        };
        auto parts = [&](const Tensor& a, const Tensor& t, const Tensor& c) {
          const Tensor log_p = a.log_softmax(1), kept = (t != -100).to(kFloat64);
          const Tensor k = weighted ? c : ones_like(c);
          const Tensor hard = one_hot(t.masked_fill(t == -100, 0), 5).to(kFloat64);
          const Tensor q = hard * (1 - smoothing) + smoothing / 5;
          const Tensor sum = -((log_p * q * k).sum(1) * kept).sum();
          return r == kMean ? sum / ((hard * k).sum(1) * kept).sum() : sum;
        };
        auto check_all = [&](const std::function<Tensor(const Loss&)>& measure) {
          const Tensor a = measure(fused), b = measure(parts);
          CHECK(a.sizes() == b.sizes());
          CHECK(differs(a, b) == "");
        };
        auto at = [&](const Loss& f) { return [=](const Tensor& a) { return f(a, y[0], w); }; };
        auto of_weight = [&](const Loss& f) {
          return [=](const Tensor& c) { return f(x[0], y[0], c); };
        };
        check_all([&](const Loss& f) { return f(x[0], y[0], w); });
        check_all([&](const Loss& f) { return func::grad(at(f))(x[0]); });
        check_all([&](const Loss& f) { return func::hessian(at(f))(x[0]); });
        check_all([&](const Loss& f) {
          return func::jvp(func::grad(at(f)), func::args(x[0]), func::args(v)).second;
        });
        check_all([&](const Loss& f) {
          return func::grad(
              [&](const Tensor& a) { return (func::grad(at(f))(a) * v).square().sum(); })(x[0]);
        });
        check_all([&](const Loss& f) {
          return func::vmap([&](const Tensor& a, const Tensor& t) {
            return func::hessian([&](const Tensor& b) { return f(b, t, w); })(a);
          })(x, y);
        });
        check_all(
            [&](const Loss& f) { return func::jacrev(func::jacrev(func::jacrev(at(f))))(x[0]); });
        if (!weighted) continue;
        check_all([&](const Loss& f) { return func::grad(of_weight(f))(w); });
        check_all([&](const Loss& f) { return func::jacfwd(of_weight(f))(w); });
        check_all([&](const Loss& f) { return func::hessian(of_weight(f))(w); });
        check_all([&](const Loss& f) {
          return func::jacfwd([&](const Tensor& c) {
            return func::grad([&](const Tensor& a) { return f(a, y[0], c); })(x[0]);
          })(w);
        });
        check_all([&](const Loss& f) {
          return func::jacrev([&](const Tensor& a) {
            return func::grad([&](const Tensor& c) { return f(a, y[0], c); })(w);
          })(x[0]);
        });
      }
}

TEST_CASE("rows that cross entropy ignores give nothing, whatever stands in them") {
  Tensor x = randn({3, 4}, kFloat64);
  x[1].fill_(NAN);
  const Tensor y = tensor({1, 9, 2});
  const auto o = F::CrossEntropyFuncOptions().ignore_index(9).label_smoothing(0.1);
  auto loss = [&](const Tensor& a) { return F::cross_entropy(a, y, o); };
  auto [g, l] = func::grad_and_value(loss)(x);
  CHECK(std::isfinite(l.item<double>()));
  CHECK(differs(g[1], zeros({4}, kFloat64)) == "");
  const Tensor all = tensor({9, 9, 9});
  auto none = [&](const Tensor& a) { return F::cross_entropy(a, all, o); };
  auto [g0, l0] = func::grad_and_value(none)(x);
  CHECK(std::isnan(l0.item<double>()));
  CHECK(differs(g0, zeros({3, 4}, kFloat64)) == "");
  CHECK(std::isnan(F::cross_entropy(zeros({0, 4}), zeros({0}, kInt64)).item<double>()));
}

TEST_CASE("cross entropy of halves adds up and counts in float32") {
  const std::int64_t n = 70000;  // more than float16 holds
  for (DType t : {kFloat16, kBFloat16}) {
    const Tensor x = zeros({n, 2}, t).requires_grad_(), y = zeros({n}, kInt64);
    const Tensor l = F::cross_entropy(x, y, F::CrossEntropyFuncOptions().weight(ones({2}, t)));
    CHECK(l.dtype() == t);
    CHECK(std::abs(l.item<double>() - std::log(2.0)) < 3e-3);
    (l * 1024).backward();
    CHECK(x.grad().dtype() == t);
    CHECK(std::abs(x.grad()[0][1].item<double>() * static_cast<double>(n) / 512 - 1) < 1e-2);
  }
}

TEST_CASE("cross entropy inside vmap ignores per example") {
  manual_seed(2);
  const Tensor x = randn({5, 6, 4}, kFloat64), t = randint(4, {5, 6});
  t.index_put_({Slice(), 0}, -1);
  t.index_put_({2, Slice(0, 5)}, -1);
  const auto options = F::CrossEntropyFuncOptions().ignore_index(-1).label_smoothing(0.1);
  auto loss = [&](const Tensor& logits, const Tensor& target) {
    return F::cross_entropy(logits, target, options);
  };
  auto [grads, values] = func::vmap(func::grad_and_value(loss))(x, t);
  for (std::int64_t i = 0; i < 5; ++i) {
    const Tensor alone = x[i].clone().requires_grad_();
    const Tensor value = loss(alone, t[i]);
    value.backward();
    CHECK(differs(values[i], value.detach()) == "");
    CHECK(differs(grads[i], alone.grad()) == "");
  }
}

// ---- init

TEST_CASE("initialisers have the stated range and moments, and leave no history") {
  manual_seed(11);
  Tensor w = empty({400, 100}).requires_grad_();
  const auto mean = [&] { return w.mean().item<double>(); };
  const auto std = [&] { return w.std().item<double>(); };
  const auto largest = [&] { return w.abs().max().item<double>(); };
  namespace init = nn::init;

  init::uniform_(w, 2, 3);
  CHECK(w.min().item<double>() >= 2);
  CHECK(w.max().item<double>() < 3);
  CHECK(mean() == doctest::Approx(2.5).epsilon(0.01));
  init::normal_(w, 1, 2);
  CHECK(mean() == doctest::Approx(1).epsilon(0.05));
  CHECK(std() == doctest::Approx(2).epsilon(0.02));
  init::trunc_normal_(w, 0, 1, -1, 2);
  CHECK(w.min().item<double>() >= -1);
  CHECK(w.max().item<double>() <= 2);
  CHECK(w.max().item<double>() > 1.9);
  CHECK(mean() == doctest::Approx(0.2296).epsilon(0.05));
  init::xavier_uniform_(w, 2);
  CHECK(largest() <= 2 * std::sqrt(6.0 / 500));
  CHECK(std() == doctest::Approx(2 * std::sqrt(2.0 / 500)).epsilon(0.02));
  init::xavier_normal_(w);
  CHECK(std() == doctest::Approx(std::sqrt(2.0 / 500)).epsilon(0.02));
  init::kaiming_uniform_(w, std::sqrt(5.0));
  CHECK(largest() <= 0.1);
  CHECK(std() == doctest::Approx(0.1 / std::sqrt(3.0)).epsilon(0.02));
  init::kaiming_normal_(w, 0, "fan_out", "relu");
  CHECK(std() == doctest::Approx(std::sqrt(2.0 / 400)).epsilon(0.02));
  init::constant_(w, 3);
  CHECK(mean() == 3);
  init::eye_(w);
  CHECK(w.sum().item<double>() == 100);
  CHECK(w[7][7].item<double>() == 1);
  CHECK(w.is_leaf());
  CHECK(w.requires_grad());
  CHECK(init::calculate_gain(kTanh) == doctest::Approx(5.0 / 3));
  CHECK(init::calculate_gain("leaky_relu", 0.2) == doctest::Approx(std::sqrt(2 / 1.04)));
  CHECK_THROWS_SAYING(init::calculate_gain("relu6"), ValueError, "relu6");
  CHECK_THROWS_SAYING(init::xavier_uniform_(empty({3})), ShapeError, "[3]");

  nn::Linear fc(16, 1000);
  CHECK(fc->weight.abs().max().item<double>() <= 0.25);
  CHECK(fc->bias.abs().max().item<double>() <= 0.25);
  CHECK(fc->bias.abs().max().item<double>() > 0.24);
}
