// Golden error texts: each names the op, what was expected, what came, and what to do; and the
// exceptions' types and stable ids.
#include <functional>

#include <tutti/autograd/autograd.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "behaviour.h"

using namespace tutti;
using func::grad;
using func::vmap;
using std::nullopt;

namespace {

/// The text of the Error that f throws, after "id: ".
std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.id() + ": " + e.what();
  } catch (const std::exception& e) {
    return std::string("not an Error: ") + e.what();
  }
  return "nothing was thrown";
}

}  // namespace

#define CHECK_MESSAGE_IS(expression, ...) \
  CHECK(message([&] { static_cast<void>(expression); }) == std::string(__VA_ARGS__))

TEST_CASE("shapes") {
  Tensor a = ones({2, 3}), b = ones({4, 5});
  CHECK_MESSAGE_IS(
      a + b,
      "shape.add: [add] expected shapes that broadcast, got [2, 3] and [4, 5], make axis -2 "
      "equal or 1");
  CHECK_MESSAGE_IS(a.matmul(b),
                   "shape.matmul: [matmul] expected the last axis of [2, 3] (3) to equal the "
                   "second-to-last axis of [4, 5] (4)");
  CHECK_MESSAGE_IS(a.view({4, 2}), "shape.view: [view] expected sizes for 6 elements, got [4, 2]");
  CHECK_MESSAGE_IS(
      a.t().view(6),
      "value.view: [view] expected memory that can be seen as [6] without a copy, got sizes "
      "[3, 2] with strides [1, 3], use reshape()");
  CHECK_MESSAGE_IS(
      a.expand({2, 4}),
      "shape.expand: [expand] expected sizes that shape [2, 3] broadcasts to, got [2, 4]");
  CHECK_MESSAGE_IS(cat({a, b}),
                   "shape.cat: [cat] expected shapes equal but for axis 0, got [2, 3] and [4, 5]");
  CHECK_MESSAGE_IS(stack({a, b}),
                   "shape.stack: [stack] expected equal shapes, got [2, 3] and [4, 5]");
  CHECK_MESSAGE_IS(
      a.copy_(b),
      "shape.assign: [assign] expected shapes that broadcast, got [4, 5] and [2, 3], make "
      "axis -2 equal or 1");
  CHECK_MESSAGE_IS(
      linear(a, b),
      "shape.linear: [linear] expected input with last axis 5 (weight is [4, 5]), got [2, 3]");
}

TEST_CASE("axes and indices") {
  Tensor a = ones({2, 3});
  CHECK_MESSAGE_IS(a.sum(2), "index.sum: [sum] expected an axis in [-2, 1], got 2");
  CHECK_MESSAGE_IS(a.sum({0, 0}),
                   "index.sum: [sum] expected distinct axes, got [0, 0]: axis 0 appears twice");
  CHECK_MESSAGE_IS(a.size(2), "index.size: [size] expected an axis in [-2, 1], got 2");
  CHECK_MESSAGE_IS(
      a.select(0, 2),
      "index.select: [select] expected an index in [-2, 1] for axis 0 of shape [2, 3], got 2");
  CHECK_MESSAGE_IS(a.transpose(0, 5),
                   "index.transpose: [transpose] expected an axis in [-2, 1], got 5");
  CHECK_MESSAGE_IS(a.index_select(0, tensor({5})),
                   "index.gather: [gather] expected indices in [0, 1], got 5");
  CHECK_MESSAGE_IS(a.narrow(1, 2, 2),
                   "index.narrow: [narrow] expected start + length of at most 3, got 2 + 2");
  CHECK_MESSAGE_IS(
      tensor(1.f)[0],
      "index.select: [select] expected a tensor with axes to index, got a 0-d tensor; use "
      "item()");
}

TEST_CASE("dtypes, values and devices") {
  Tensor a = ones({2, 3});
  CHECK_MESSAGE_IS(
      a.data_ptr<double>(),
      "type.data_ptr: [data_ptr] expected the tensor's dtype float32, got float64; convert "
      "with to()");
  CHECK_MESSAGE_IS(
      a.item<float>(),
      "value.item: [item] expected a tensor with exactly one element, got shape [2, 3]; "
      "index it or reduce it first");
  CHECK_MESSAGE_IS(
      arange(3).mean(),
      "type.mean: [mean] expected a floating dtype, got int64; convert with to(kFloat32)");
  CHECK_MESSAGE_IS(
      arange(3).requires_grad_(),
      "type.requires_grad_: [requires_grad_] only floating tensors can require grad, got "
      "int64");
  CHECK_MESSAGE_IS(
      a + zeros({2, 3}, kMeta),
      "device.add: [add] expected all tensors on one device, got cpu and meta; move one with "
      "to()");
  CHECK_MESSAGE_IS(
      zeros(1, kMeta).item<float>(),
      "device.item: [item] expected a tensor with data, got one on the meta device, which "
      "has a shape only; make it on the CPU");
  CHECK_MESSAGE_IS(
      Tensor().sizes(),
      "value.sizes: [sizes] expected a defined tensor, got an undefined one; assign it a "
      "value first");
  CHECK_MESSAGE_IS(
      zeros(2, kCUDA),
      "device.empty: [empty] expected cpu or meta, got cuda, this build has no CUDA support");
  CHECK_MESSAGE_IS(
      a.expand({5, 2, 3}).add_(1),
      "value.assign: [assign] the destination is an expanded tensor whose elements share "
      "memory; clone() it first");
}

TEST_CASE("dicts") {
  TensorDict d = {{"weight", ones(1)}, {"bias", ones(1)}};
  CHECK_MESSAGE_IS(d.at("wieght"), "key.Dict: [Dict] no key \"wieght\"; did you mean \"weight\"?");
  CHECK_MESSAGE_IS(d.at("something else"), "key.Dict: [Dict] no key \"something else\"");
}

TEST_CASE("autograd") {
  Tensor x = ones(2).requires_grad_();
  CHECK_MESSAGE_IS(
      (x * 2).backward(),
      "autograd.backward: [backward] a gradient must be given unless the output has one "
      "element; its shape is [2]");
  CHECK_MESSAGE_IS(
      ones(1).backward(),
      "autograd.backward: [backward] this tensor does not require grad and has no history");
  CHECK_MESSAGE_IS(
      x.add_(1),
      "autograd.assign: [assign] in-place change of a leaf that requires grad; wrap it in a "
      "NoGradGuard, or clone the leaf first");
  CHECK_MESSAGE_IS(
      x[0].add_(1),
      "autograd.assign: [assign] in-place change of a leaf that requires grad (through a "
      "view); wrap it in a NoGradGuard, or clone the leaf first");
  Tensor y = x.exp().sum();
  y.backward();
  CHECK_MESSAGE_IS(
      y.backward(),
      "autograd.backward: [backward] the graph was already used and freed; pass retain_graph "
      "= true to the first backward");
  Tensor e = x.exp(), z = e.sum();
  e.add_(1);
  CHECK_MESSAGE_IS(
      z.backward(),
      "autograd.backward: [backward] a value that exp needs for its derivative was changed "
      "in place (version 1, expected 0); clone it before the in-place op");
  CHECK_MESSAGE_IS(autograd::grad({x.sum()}, {x, ones(1).requires_grad_()}),
                   "autograd.autograd::grad: [autograd::grad] input 1 was not used to compute the "
                   "outputs; pass allow_unused = true to get an undefined gradient");
}

TEST_CASE("vmap") {
  Tensor a = ones({2, 3});
  auto mul = [](const Tensor& x, const Tensor& y) { return x * y; };
  auto id = [](const Tensor& x) { return x; };
  CHECK_MESSAGE_IS(vmap(mul, {0, 1})(a, a),
                   "value.vmap: [vmap] the mapped axes must have one size, got sizes 2, 3");
  CHECK_MESSAGE_IS(
      vmap(mul, {0, 2})(a, a),
      "value.vmap: [vmap] in_dims gives axis 2 for an argument of shape [2, 3], which has 2 "
      "axes");
  CHECK_MESSAGE_IS(
      vmap(mul, {0, 0, 0})(a, a),
      "value.vmap: [vmap] in_dims does not match the structure of the values: expected a "
      "list of 2 entries, got {0, 0, 0}");
  CHECK_MESSAGE_IS(
      vmap(mul, nullopt)(a, a),
      "value.vmap: [vmap] expected at least one tensor to map over; in_dims leaves all of "
      "them unmapped");
  CHECK_MESSAGE_IS(
      vmap(id, 0, 2)(a),
      "index.vmap: [vmap] out_dims gives axis 2 for an output of shape [3] per example, "
      "which has 2 axes with the mapped one");
  CHECK_MESSAGE_IS(
      vmap(id, 0, nullopt)(a),
      "value.vmap: [vmap] an output that differs per example cannot have nullopt in out_dims");
  CHECK_MESSAGE_IS(VmapOptions().chunk_size(0),
                   "value.vmap: [vmap] chunk_size must be positive, got 0");
  CHECK_MESSAGE_IS(
      vmap([](const Tensor& x) { return x * x.sum().item<double>(); })(a),
      "transform.item: [item] expected a tensor with values of its own, got one inside vmap, "
      "which stands for all examples at once; use where() instead of a branch on a value, or "
      "return it from the mapped function and read it there");
  CHECK_MESSAGE_IS(vmap([](const Tensor& x) { return x + randn(3); })(a),
                   "transform.random_bits: [random_bits] random op inside vmap; choose "
                   "VmapOptions().randomness(Randomness::different) (a draw per example) or "
                   "Randomness::same (one draw for all)");
  CHECK_MESSAGE_IS(
      vmap([](const Tensor& x) { return nonzero(x); })(a),
      "transform.nonzero: [nonzero] cannot run inside vmap: the size of the result depends "
      "on the values; use where() or masked_fill() instead");
  // Shapes inside vmap are per example, and the text says so.
  CHECK_MESSAGE_IS(
      vmap([](const Tensor& x) { return x + ones(4); })(a),
      "shape.add: [add] expected shapes that broadcast, got [3] and [4], make axis -1 equal "
      "or 1; inside vmap, shapes are per example (mapped and not shown: axis 0 of size 2)");
  CHECK_MESSAGE_IS(
      vmap([](const Tensor& x) { return x.sum(1); })(a),
      "index.sum: [sum] expected an axis in [-1, 0], got 1; inside vmap, shapes are per "
      "example (mapped and not shown: axis 0 of size 2)");
  Tensor kept = ones(3);
  CHECK_MESSAGE_IS(
      vmap([&](const Tensor& x) { return kept.add_(x); })(a),
      "transform.assign: [assign] inside vmap, in-place change of a captured tensor by a "
      "value that differs per example; pass the tensor in as a mapped argument, or return "
      "the value");
  CHECK_MESSAGE_IS(
      vmap([](const Tensor& s, const Tensor& x) { return s.add_(x); }, {nullopt, 0})(ones(3), a),
      "transform.assign: [assign] inside vmap, in-place change of an argument that is not "
      "mapped (in_dims nullopt) by a value that differs per example; map the argument, or "
      "clone it first");
  CHECK_MESSAGE_IS(
      vmap([](const Tensor& x, const Tensor& y) { return x.add_(y); })(a, a),
      "transform.vmap: [vmap] argument 0 was changed in place, but argument 1 shares its "
      "memory; clone one of them");
}

TEST_CASE("grad, vjp, jvp") {
  Tensor a = ones({2, 3});
  CHECK_MESSAGE_IS(
      grad([](const Tensor& x) { return x; })(a),
      "value.grad: [grad] the function must return a 0-d tensor, got shape [2, 3]; reduce "
      "it, for example with sum() or mean()");
  CHECK_MESSAGE_IS(
      grad([](const Tensor& x) { return x.sum(); })(arange(2)),
      "type.grad: [grad] only floating tensors can be differentiated, got int64; cast it, or "
      "choose other arguments to differentiate");
  CHECK_MESSAGE_IS(
      grad([](const Tensor& x) { return x.mul_(2).sum(); })(a),
      "transform.assign: [assign] inside grad, in-place change of an argument that is being "
      "differentiated; clone it first");
  CHECK_MESSAGE_IS(
      grad([&](const Tensor& x) { return a.add_(x).sum(); })(ones(3)),
      "transform.assign: [assign] inside grad, in-place change of a captured tensor by a "
      "value that depends on the differentiated arguments; pass the tensor in as an "
      "argument, or return the value");
  CHECK_MESSAGE_IS(
      grad([](const Tensor& x) {
        x.sum().backward();
        return x.sum();
      })(a),
      "transform.backward: [backward] cannot be called inside a transform; use func::grad or "
      "func::vjp");
  CHECK_MESSAGE_IS(
      grad([](const Tensor& x) { return x.requires_grad_().sum(); })(a),
      "transform.requires_grad_: [requires_grad_] cannot be used inside grad; differentiate "
      "with func::grad instead, or call it outside");
  Tensor escaped;
  grad([&](const Tensor& x) {
    escaped = x * 2;
    return x.sum();
  })(a);
  CHECK_MESSAGE_IS(
      escaped + 1,
      "transform.add: [add] this tensor escaped from a finished grad; return it from the "
      "transformed function instead of keeping it");
  auto recorded = func::vjp([](const Tensor& x) { return x * 2; }, a);
  CHECK_MESSAGE_IS(recorded.second(ones(3)),
                   "shape.vjp: [vjp] the cotangent of output 0 must have shape [2, 3], got [3]");
  CHECK_MESSAGE_IS(
      func::jvp([](const Tensor& x) { return x; }, std::tuple(a), std::tuple(ones(2))),
      "shape.jvp: [jvp] the tangent of argument tensor 0 must have the shape of its primal "
      "[2, 3], got [2]");
}

TEST_CASE("functional_call and stack_module_state") {
  nn::Linear m(3, 2);
  const Tensor x = ones({1, 3});
  CHECK_MESSAGE_IS(func::functional_call(m, {{"wieght", ones({2, 3})}}, x),
                   "key.functional_call: [functional_call] unknown names \"wieght\" for module "
                   "nn::Linear; did you mean \"weight\"?");
  CHECK_MESSAGE_IS(
      func::functional_call(m, {{"bias", ones(2)}}, FunctionalCallOptions().strict(true), x),
      "key.functional_call: [functional_call] missing names \"weight\"");
  TensorDict d = {{"bias", ones(2)}};
  CHECK_MESSAGE_IS(
      func::functional_call(m, {d, d}, x),
      "value.functional_call: [functional_call] the name \"bias\" is in two of the dicts");
  CHECK_MESSAGE_IS(
      func::stack_module_state(std::vector<nn::Linear>()),
      "value.stack_module_state: [stack_module_state] expected at least one model, got an "
      "empty list");
  std::vector<nn::Linear> two = {nn::Linear(3, 2), nn::Linear(3, 4)};
  CHECK_MESSAGE_IS(
      func::stack_module_state(two),
      "shape.stack_module_state: [stack_module_state] \"weight\" of member 1 has shape [4, "
      "3], member 0 has [2, 3]");
  two[1] = nn::Linear(3, 2);
  two[1]->eval();
  CHECK_MESSAGE_IS(
      func::stack_module_state(two),
      "value.stack_module_state: [stack_module_state] member 1 is in eval mode, member 0 in "
      "train mode; call train() or eval() on all of them");
  two[1]->train();
  two[1]->bias.requires_grad_(false);
  CHECK_MESSAGE_IS(
      func::stack_module_state(two),
      "value.stack_module_state: [stack_module_state] \"bias\" of member 1 does not require "
      "grad, unlike member 0; use the same requires_grad in every member");
}

TEST_CASE("every error is a tutti::Error and a std::runtime_error") {
  try {
    ones({2, 3}) + ones(4);
    CHECK(false);
  } catch (const std::runtime_error& e) {
    CHECK(dynamic_cast<const Error*>(&e) != nullptr);
    CHECK(dynamic_cast<const ShapeError*>(&e) != nullptr);
  }
}
