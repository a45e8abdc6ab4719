// func::custom_function: every rule under every transform, their nestings, and base autograd.
#include <tutti/tutti.h>

#include "behaviour.h"

using namespace tutti;
using func::custom_function;
using func::grad;
using func::jvp;
using func::vjp;
using func::vmap;

namespace {

Tensor vec(std::initializer_list<double> v) { return tensor(std::vector<double>(v), kFloat64); }
Tensor scalar(double v) { return tensor(v, kFloat64); }

// x^2 y with derivatives that are wrong on purpose: whoever gives 3xy g for x used the rule.
auto product() {
  return [](const Tensor& x, const Tensor& y) { return x * x * y; };
}
auto product_vjp() {
  return [](const std::tuple<Tensor, Tensor>& args, const Tensor&, const Tensor& g) {
    auto [x, y] = args;
    return std::tuple(3 * x * y * g, x * x * g);
  };
}
auto product_jvp() {
  return [](const std::tuple<Tensor, Tensor>& args, const Tensor&,
            const std::tuple<Tensor, Tensor>& t) {
    auto [x, y] = args;
    return 3 * x * y * std::get<0>(t) + x * x * std::get<1>(t);
  };
}

// d/dx along 1, by jvp.
template <class F>
auto slope(F f) {
  return [f](const Tensor& x) { return jvp(f, func::args(x), func::args(ones_like(x))).second; };
}

}  // namespace

TEST_CASE("a custom function without rules is its forward") {
  auto f = custom_function(product());
  CHECK_VALUES(f(scalar(2), scalar(5)), 20);
  CHECK_VALUES(grad(f)(scalar(2), scalar(5)), 20);
  CHECK_VALUES(vmap(f, {0, nullopt})(vec({1, 2}), scalar(5)), 5, 20);
}

TEST_CASE("the vjp rule counts in every reverse mode") {
  auto f = custom_function(product()).vjp(product_vjp());
  const Tensor y = scalar(5), xs = vec({1, 2, 3});
  auto of_x = [&](const Tensor& x) { return f(x, y); };
  auto total = [&](const Tensor& x) { return vmap(of_x)(x).sum(); };
  CHECK_VALUES(of_x(scalar(2)), 20);
  CHECK_VALUES(grad(of_x)(scalar(2)), 30);
  CHECK_VALUES(grad<1>(f)(scalar(2), y), 4);
  CHECK_VALUES(grad(grad(of_x))(scalar(2)), 15);  // of the rule: 3 y
  CHECK_VALUES(vmap(grad(of_x))(xs), 15, 30, 45);
  CHECK_VALUES(grad(total)(xs), 15, 30, 45);
  CHECK_VALUES(vmap(grad(grad(of_x)))(xs), 15, 15, 15);
  CHECK_VALUES(vmap(grad(total))(xs.reshape({3, 1})), 15, 30, 45);
  CHECK_VALUES(grad([&](const Tensor& x) { return grad(total)(x).sum(); })(xs), 15, 15, 15);
  CHECK_VALUES(grad<1>([&](const Tensor& x, const Tensor& k) {
                 return vmap(f, {0, nullopt})(x, k).sum();
               })(xs, y),
               14);
  auto [out, pull] = vjp(of_x, xs);
  CHECK_VALUES(out, 5, 20, 45);
  CHECK_VALUES(vmap([&, p = pull](const Tensor& g) { return std::get<0>(p(g)); })(eye(3, kFloat64)),
               15, 0, 0, 0, 30, 0, 0, 0, 45);
  // Forward over reverse runs jvp through the rule's ops.
  CHECK_VALUES(slope(grad(of_x))(scalar(2)), 15);
}

TEST_CASE("the vjp rule counts in base autograd, with create_graph too") {
  auto f = custom_function(product()).vjp(product_vjp());
  Tensor x = scalar(2).requires_grad_(), y = scalar(5).requires_grad_();
  Tensor z = f(x, y);
  z.backward({}, true);
  CHECK_VALUES(x.grad(), 30);
  CHECK_VALUES(y.grad(), 4);
  Tensor dx = autograd::grad({z}, {x}, {}, true, true)[0];
  CHECK_VALUES(dx, 30);
  auto second = autograd::grad({dx}, {x, y});
  CHECK_VALUES(second[0], 15);
  CHECK_VALUES(second[1], 6);
  Tensor xs = vec({1, 2}).requires_grad_();
  vmap(f, {0, nullopt})(xs, scalar(5)).sum().backward();
  CHECK_VALUES(xs.grad(), 15, 30);
}

TEST_CASE("forward mode needs a jvp rule where there is a vjp rule") {
  auto f = custom_function(product()).vjp(product_vjp());
  auto of_x = [&](const Tensor& x) { return f(x, scalar(5)); };
  CHECK_THROWS_SAYING(slope(of_x)(scalar(2)), NotImplementedError, "custom_function", "jvp rule",
                      "missing", ".jvp(rule)");
  CHECK_THROWS_SAYING(slope(vmap(of_x))(vec({1, 2})), NotImplementedError, "jvp rule");
  CHECK_THROWS_SAYING(vmap(slope(of_x))(vec({1, 2})), NotImplementedError, "jvp rule");
  auto both = custom_function(product()).vjp(product_vjp()).jvp(product_jvp());
  auto of_x2 = [&](const Tensor& x) { return both(x, scalar(5)); };
  CHECK_VALUES(slope(of_x2)(scalar(2)), 30);
  CHECK_VALUES(grad(of_x2)(scalar(2)), 30);
}

TEST_CASE("the jvp rule counts in every forward mode, and is transposed for reverse mode") {
  auto f = custom_function(product()).jvp(product_jvp());
  const Tensor y = scalar(5), xs = vec({1, 2, 3});
  auto of_x = [&](const Tensor& x) { return f(x, y); };
  CHECK_VALUES(slope(of_x)(scalar(2)), 30);
  CHECK_VALUES(slope(slope(of_x))(scalar(2)), 15);
  CHECK_VALUES(vmap(slope(of_x))(xs), 15, 30, 45);
  CHECK_VALUES(slope(vmap(of_x))(xs), 15, 30, 45);
  CHECK_VALUES(jvp(f, func::args(scalar(2), y), func::args(scalar(1), scalar(1))).second, 34);
  CHECK_VALUES(grad(of_x)(scalar(2)), 30);
  CHECK_VALUES(grad<1>(f)(scalar(2), y), 4);
  CHECK_VALUES(grad(grad(of_x))(scalar(2)), 15);
  CHECK_VALUES(vmap(grad(of_x))(xs), 15, 30, 45);
  CHECK_VALUES(grad([&](const Tensor& x) { return vmap(of_x)(x).sum(); })(xs), 15, 30, 45);
  CHECK_VALUES(grad(slope(of_x))(scalar(2)), 15);
  CHECK_VALUES(slope(grad(of_x))(scalar(2)), 15);
  Tensor leaf = scalar(2).requires_grad_();
  of_x(leaf).backward();
  CHECK_VALUES(leaf.grad(), 30);
}

TEST_CASE("residuals reach the backward rule and have derivatives of their own") {
  // sin with the derivative cos, kept as a residual; the input is one as well and costs nothing.
  int calls = 0, plain = 0;
  auto forward = [&](const Tensor& x) {
    ++calls;
    return std::pair(x.sin(), std::pair(x.cos(), x));
  };
  auto backward = [](const std::pair<Tensor, Tensor>& r, const Tensor& g) {
    return 2 * r.first * g + 0 * r.second;
  };
  auto f = custom_function([&](const Tensor& x) {
             ++plain;
             return x.sin();
           }).vjp(forward, backward);
  const Tensor x = scalar(0.3);
  CHECK_SAME(f(x), x.sin());
  CHECK(plain == 1);
  CHECK(calls == 0);
  CHECK_CLOSE(grad(f)(x), 2 * x.cos(), 1e-14);
  CHECK(calls == 1);
  CHECK(plain == 1);
  CHECK_CLOSE(grad(grad(f))(x), -2 * x.sin(), 1e-14);
  CHECK_CLOSE(grad(grad(grad(f)))(x), -2 * x.cos(), 1e-14);
  const Tensor xs = vec({0.1, 0.2});
  CHECK_CLOSE(vmap(grad(f))(xs), 2 * xs.cos(), 1e-14);
  CHECK_CLOSE(vmap(grad(grad(f)))(xs), -2 * xs.sin(), 1e-14);
  CHECK_CLOSE(grad([&](const Tensor& v) { return vmap(f)(v).sum(); })(xs), 2 * xs.cos(), 1e-14);
  CHECK_CLOSE(slope(grad(f))(x), -2 * x.sin(), 1e-14);
  Tensor leaf = x.clone().requires_grad_();
  Tensor d = autograd::grad({f(leaf)}, {leaf}, {}, true, true)[0];
  CHECK_CLOSE(d.detach(), 2 * x.cos(), 1e-14);
  CHECK_CLOSE(autograd::grad({d}, {leaf})[0], -2 * x.sin(), 1e-14);
}

TEST_CASE("the vmap rule stands for the function inside vmap") {
  std::vector<std::int64_t> sizes;
  auto rule = [&](std::int64_t size, const std::vector<std::optional<std::int64_t>>& in_dims,
                  const std::tuple<Tensor, Tensor>& args) {
    sizes.push_back(size);
    auto [x, y] = args;
    CHECK(in_dims.size() == 2);
    CHECK(in_dims[0] == 1);
    CHECK(!in_dims[1]);
    return std::pair(x * x * y + 100, Dims(1));  // the 100 shows that it ran
  };
  auto f = custom_function(product()).vmap(rule);
  const Tensor x = vec({1, 2, 3, 4, 5, 6}).reshape({2, 3}), y = scalar(1);
  CHECK_VALUES(vmap(f, {1, nullopt}, 1)(x, y), 101, 104, 109, 116, 125, 136);
  CHECK(sizes == std::vector<std::int64_t>{3});
  // Unbatched there, the rule is not asked.
  CHECK_VALUES(vmap([&](const Tensor& r) { return r + f(y, y); })(vec({1, 2})), 2, 3);
  CHECK(sizes.size() == 1);
  // grad outside differentiates the rule's ops.
  auto total = [&](const Tensor& v) { return vmap(f, {1, nullopt})(v, y).sum(); };
  CHECK_SAME(grad(total)(x), 2 * x);
  CHECK(sizes.size() == 2);
  // Inside, the vjp rule counts, and its ops are mapped.
  auto g = custom_function(product()).vjp(product_vjp()).vmap(rule);
  auto per_example = grad([&](const Tensor& v, const Tensor& k) { return g(v, k).sum(); });
  CHECK_SAME(vmap(per_example, {1, nullopt}, 1)(x, y), 3 * x);
}

TEST_CASE("trees in, trees out, and values that are no tensors") {
  using Out = std::pair<TensorDict, Tensor>;
  auto f = custom_function([](const TensorDict& d, double k) {
             return Out({{"a", d.at("a") * k}, {"b", d.at("b") * d.at("a")}}, d.at("n") + 1);
           }).vjp([](const std::tuple<TensorDict, double>& args, const Out& out, const Out& g) {
    const TensorDict& d = std::get<0>(args);
    CHECK(out.second.dtype() == kInt64);
    CHECK(!g.second.defined());
    const Tensor &ga = g.first.at("a"), &gb = g.first.at("b");
    return std::tuple(
        TensorDict{{"a", 10 * ga + gb * d.at("b")}, {"b", gb * d.at("a")}, {"n", Tensor()}},
        std::get<1>(args));
  });
  auto loss = [&](const Tensor& a, const Tensor& b) {
    Out r = f(TensorDict{{"a", a}, {"b", b}, {"n", tensor(1)}}, 3.0);
    return (r.first.at("a") + 2 * r.first.at("b")).sum();
  };
  const Tensor a = vec({1, 2}), b = vec({5, 7});
  auto [da, db] = grad<0, 1>(loss)(a, b);
  CHECK_VALUES(da, 20, 24);
  CHECK_VALUES(db, 2, 4);
  CHECK_SAME(vmap(grad(loss))(a, b), da);
  // An output nobody used has a zero cotangent, not an undefined one.
  CHECK_VALUES(
      grad([&](const Tensor& v) {
        return f(TensorDict{{"a", v}, {"b", b}, {"n", tensor(1)}}, 3.0).first.at("a").sum();
      })(a),
      10, 10);
}

TEST_CASE("an argument handed on unchanged gets the rule's derivative") {
  auto f = custom_function([](const Tensor& x) {
             return x;
           }).vjp([](const std::tuple<Tensor>&, const Tensor&, const Tensor& g) {
    return std::tuple(-g);
  });
  CHECK_VALUES(grad(f)(scalar(2)), -1);
  CHECK_VALUES(vmap(grad(f))(vec({2, 3})), -1, -1);
}

TEST_CASE("custom_function says what is wrong with a rule") {
  const Tensor x = scalar(2);
  auto forward = [](const Tensor& v) { return v * 2; };
  auto few = custom_function(forward).vjp(
      [](const std::tuple<Tensor>&, const Tensor&, const Tensor&) { return TensorDict(); });
  CHECK_THROWS_SAYING(grad(few)(x), ValueError, "custom_function", "vjp rule", "return 1", "got 0");
  auto shape = custom_function(forward).vjp(
      [](const std::tuple<Tensor>&, const Tensor&, const Tensor& g) { return g.expand({3}); });
  CHECK_THROWS_SAYING(grad(shape)(x), ShapeError, "custom_function", "gradient of input 0", "[3]");
  auto tangent = custom_function(forward).jvp(
      [](const std::tuple<Tensor>&, const Tensor&, const std::tuple<Tensor>& t) {
        return std::get<0>(t).expand({3});
      });
  CHECK_THROWS_SAYING(slope(tangent)(x), ShapeError, "jvp rule", "output 0", "[3]");
  CHECK_THROWS_SAYING(grad(tangent)(x), ShapeError, "jvp rule", "[3]");
  auto axis = custom_function(forward).vmap(
      [](std::int64_t, const std::vector<std::optional<std::int64_t>>&,
         const std::tuple<Tensor>& a) { return std::pair(std::get<0>(a), Dims(1)); });
  CHECK_THROWS_SAYING(vmap(axis)(vec({1, 2})), IndexError, "vmap rule", "axis 1", "[2]");
  auto size = custom_function(forward).vmap(
      [](std::int64_t, const std::vector<std::optional<std::int64_t>>&, const std::tuple<Tensor>&) {
        return std::pair(ones(3), Dims(0));
      });
  CHECK_THROWS_SAYING(vmap(size)(vec({1, 2})), ShapeError, "vmap rule", "size 2", "[3]");
  auto captures = [&](const Tensor& v) {
    auto f = custom_function([&](const Tensor& w) {
               return w * v;
             }).vjp([](const std::tuple<Tensor>&, const Tensor&, const Tensor& g) {
      return std::tuple(g);
    });
    return f(v);
  };
  CHECK_THROWS_SAYING(grad(captures)(x), TransformError, "custom function", "argument");
}
