// grad, grad_and_value, vjp, jvp and their nesting: values, trees, no_grad and detach, escaped
// values, exceptions, base autograd around them.
#include <tutti/autograd/autograd.h>
#include <tutti/core/interpreter.h>
#include <tutti/func/transforms.h>

#include "behaviour.h"

using namespace tutti;
using func::args;
using func::grad;
using func::grad_and_value;
using func::has_aux;
using func::jvp;
using func::vjp;
using func::vmap;
using std::nullopt;

using Sizes = std::vector<std::int64_t>;

namespace {

const double v0 = 1.3;

Tensor scalar(double v) { return tensor(v, kFloat64); }
Tensor vector(std::initializer_list<double> v) { return tensor(std::vector<double>(v), kFloat64); }

// The derivative of f: R -> R in forward mode, as a function that can be nested.
template <class F>
auto forward_derivative(F f) {
  return [f](const Tensor& x) { return jvp(f, std::tuple(x), std::tuple(ones_like(x))).second; };
}

}  // namespace

// ---- grad

TEST_CASE("grad of elementary functions, several times over") {
  auto f = [](const Tensor& x) { return x.sin(); };
  CHECK(grad(f)(scalar(v0)).item<double>() == doctest::Approx(std::cos(v0)).epsilon(1e-14));
  CHECK(grad(grad(f))(scalar(v0)).item<double>() == doctest::Approx(-std::sin(v0)).epsilon(1e-14));
  CHECK(grad(grad(grad(f)))(scalar(v0)).item<double>() ==
        doctest::Approx(-std::cos(v0)).epsilon(1e-14));
  CHECK(grad(grad(grad(grad(f))))(scalar(v0)).item<double>() ==
        doctest::Approx(std::sin(v0)).epsilon(1e-14));
  auto cube = [](const Tensor& x) { return x * x * x; };
  CHECK_VALUES(grad(grad(grad(cube)))(scalar(2)), 6);
}

TEST_CASE("argnums choose the arguments to differentiate") {
  auto f = [](const Tensor& x, const Tensor& y, const Tensor& z) { return (x * y * z).sum(); };
  Tensor x = vector({1, 2}), y = vector({3, 4}), z = vector({5, 6});
  CHECK_SAME(grad(f)(x, y, z), y * z);
  CHECK_SAME(grad<1>(f)(x, y, z), x * z);
  auto [gz, gx] = grad<2, 0>(f)(x, y, z);
  CHECK_SAME(gz, x * y);
  CHECK_SAME(gx, y * z);
  auto [g, value] = grad_and_value<0, 1>(f)(x, y, z);
  CHECK_SAME(std::get<1>(g), x * z);
  CHECK_VALUES(value, 63);
}

TEST_CASE("grad mirrors the argument's tree") {
  TensorDict p = {{"w", vector({1, 2})}, {"b", scalar(3)}, {"unused", vector({9, 9})}};
  auto loss = [](const TensorDict& d, const Tensor& x) {
    return ((d.at("w") * x).sum() + d.at("b")).square();
  };
  TensorDict g = grad(loss)(p, vector({1, 1}));
  CHECK(g.keys() == p.keys());
  CHECK_VALUES(g.at("w"), 12, 12);
  CHECK_VALUES(g.at("b"), 12);
  CHECK_VALUES(g.at("unused"), 0, 0);
  auto nested = [](const std::pair<Tensor, std::vector<Tensor>>& t) {
    return (t.first * t.second[1]).sum();
  };
  auto [a, b] = grad(nested)(std::pair(scalar(2), std::vector<Tensor>{scalar(3), scalar(5)}));
  CHECK_VALUES(a, 5);
  CHECK_VALUES(b[0], 0);
  CHECK_VALUES(b[1], 2);
}

TEST_CASE("non-tensor arguments and leaves pass through") {
  auto f = [](const Tensor& x, int n, const std::string&) { return x.pow(n).sum(); };
  CHECK_VALUES(grad(f)(scalar(2), 3, std::string("name")), 12);
  auto g = [](const std::pair<Tensor, int>& p) { return p.first * p.second; };
  auto [d, n] = grad(g)(std::pair(scalar(2), 7));
  CHECK_VALUES(d, 7);
  CHECK(n == 7);
}

TEST_CASE("grad_and_value gives the gradient first; aux comes along") {
  auto f = [](const Tensor& x) { return (x * x).sum(); };
  auto [g, value] = grad_and_value(f)(vector({1, 2}));
  CHECK_VALUES(g, 2, 4);
  CHECK_VALUES(value, 5);
  auto with_aux = [](const Tensor& x) {
    return std::pair((x * x).sum(), TensorDict{{"exp", x.exp()}});
  };
  auto [g2, aux] = grad(with_aux, has_aux)(vector({0, 0}));
  CHECK_VALUES(g2, 0, 0);
  CHECK_VALUES(aux.at("exp"), 1, 1);
  auto [g3, both] = grad_and_value(with_aux, has_aux)(vector({1, 0}));
  CHECK_VALUES(g3, 2, 0);
  CHECK_VALUES(both.first, 1);
  CHECK_CLOSE(both.second.at("exp"), vector({1, 0}).exp(), 1e-15);
  auto counts = [](const Tensor& x) { return std::pair(x.sum(), std::pair(x.argmax(), 17)); };
  auto [g4, info] = grad(counts, has_aux)(vector({1, 5}));  // integers and others are fine as aux
  CHECK_VALUES(info.first, 1);
  CHECK(info.second == 17);
}

TEST_CASE("aux is not differentiated at this level, but at outer ones") {
  auto inner = [](const Tensor& x) { return std::pair(x * x, x * x * x); };
  CHECK_VALUES(grad([&](const Tensor& x) { return grad(inner, has_aux)(x).second; })(scalar(2)),
               12);
}

TEST_CASE("what grad refuses") {
  auto id = [](const Tensor& x) { return x; };
  CHECK_THROWS_SAYING(grad(id)(vector({1, 2})), ValueError, "0-d", "[2]", "sum()");
  CHECK_THROWS_SAYING(grad(id)(vector({1})), ValueError, "[1]");
  CHECK_THROWS_SAYING(grad([](const Tensor&) { return Tensor(); })(scalar(1)), ValueError,
                      "undefined");
  CHECK_THROWS_SAYING(grad(id)(tensor(3)), TypeError, "int64", "floating");
  CHECK_THROWS_SAYING(grad([](const Tensor& x) { return x.argmax(); })(vector({1, 2})), TypeError,
                      "floating", "int64");
  CHECK_THROWS_SAYING(grad(id)(Tensor()), ValueError, "undefined");
}

TEST_CASE("results that do not depend on the argument have zero gradients") {
  Tensor c = scalar(4);
  CHECK_VALUES(grad([&](const Tensor&) { return c * 1; })(vector({1, 2})), 0, 0);
  CHECK_VALUES(grad([&](const Tensor&) { return c; })(vector({1, 2})), 0, 0);
  auto [y, pull] = vjp([&](const Tensor&) { return c * 1; }, vector({1, 2}));
  CHECK_VALUES(std::get<0>(pull(scalar(1))), 0, 0);
  CHECK_VALUES(
      jvp([&](const Tensor&) { return c; }, std::tuple(scalar(1)), std::tuple(scalar(1))).second,
      0);
  auto half = [](const Tensor& x) { return (x > 0).to(kFloat64).sum(); };
  CHECK_VALUES(grad(half)(vector({1, -2})), 0, 0);
}

TEST_CASE("item and reading pass through grad and jvp") {
  auto f = [](const Tensor& x) { return x.item<double>() > 0 ? x * x : -x; };
  CHECK_VALUES(grad(f)(scalar(3)), 6);
  CHECK_VALUES(grad(f)(scalar(-3)), -1);
  CHECK_VALUES(forward_derivative(f)(scalar(3)), 6);
  CHECK_VALUES(grad(grad(f))(scalar(3)), 2);
  auto p = [](const Tensor& x) {
    CHECK(x.const_data_ptr<double>()[0] == 3);
    CHECK(x.to_vector<double>()[0] == 3);
    CHECK_THROWS_SAYING(x.data_ptr<double>(), TransformError, "grad");
    return x * 1;
  };
  grad(p)(scalar(3));
}

TEST_CASE("inside grad, arguments report what they are") {
  Tensor c = scalar(2);
  grad([&](const Tensor& x) {
    CHECK(x.requires_grad());
    CHECK(x.is_leaf());
    Tensor y = x * 2;
    CHECK(y.requires_grad());
    CHECK_FALSE(y.is_leaf());
    CHECK_FALSE((c * 3).requires_grad());
    CHECK_FALSE(x.detach().requires_grad());
    CHECK(is_grad_enabled());
    return y;
  })(scalar(1));
  vmap([](const Tensor& x) {
    CHECK_FALSE(x.requires_grad());
    return x;
  })(vector({1}));
}

// ---- vjp

TEST_CASE("vjp: value and pullback, callable many times, trees both ways") {
  auto f = [](const Tensor& a, const TensorDict& d) { return std::pair(a * d.at("w"), a.sum()); };
  Tensor a = vector({1, 2});
  TensorDict d = {{"w", vector({3, 4})}};
  auto [out, pull] = vjp(f, a, d);
  CHECK_VALUES(out.first, 3, 8);
  CHECK_VALUES(out.second, 3);
  auto [ga, gd] = pull(std::pair(vector({1, 10}), scalar(100)));
  CHECK_VALUES(ga, 103, 140);
  CHECK_VALUES(gd.at("w"), 1, 20);
  auto [gb, ge] = pull(std::pair(vector({0, 0}), scalar(1)));
  CHECK_VALUES(gb, 1, 1);
  CHECK_VALUES(ge.at("w"), 0, 0);
  CHECK_THROWS_SAYING(pull(std::pair(vector({1}), scalar(1))), ShapeError, "cotangent", "[2]",
                      "[1]");
  CHECK_THROWS_SAYING(pull(std::pair(ones(2), scalar(1))), TypeError, "float64", "float32");
  CHECK_THROWS_SAYING(pull(vector({1, 1})), ValueError, "cotangent", "2", "1");
}

TEST_CASE("vjp takes floating outputs and primals only") {
  CHECK_THROWS_SAYING(vjp([](const Tensor& x) { return x.argmax(); }, vector({1, 2})), TypeError,
                      "int64");
  CHECK_THROWS_SAYING(vjp([](const Tensor& x) { return x * 1.0; }, tensor({1, 2})), TypeError,
                      "int64");
}

TEST_CASE("a pullback made outside can be mapped: rows of the Jacobian") {
  Tensor x = vector({1, 2, 3});
  auto [y, pull] = vjp([](const Tensor& t) { return t * t; }, x);
  auto pull_copy = pull;
  Tensor jacobian =
      vmap([&](const Tensor& g) { return std::get<0>(pull_copy(g)); })(eye(3, kFloat64));
  CHECK_SAME(jacobian, eye(3, kFloat64) * (2 * x));
  // ... and differentiated: sum of the pullback of g is linear in g.
  CHECK_VALUES(
      grad([&](const Tensor& g) { return std::get<0>(pull_copy(g)).sum(); })(ones(3, kFloat64)), 2,
      4, 6);
}

TEST_CASE("a pullback made inside an outer grad is differentiated by it") {
  auto f = [](const Tensor& x) {
    auto [y, pull] = vjp([](const Tensor& t) { return t * t * t; }, x);
    return std::get<0>(pull(ones({}, kFloat64)));  // 3 x^2
  };
  CHECK_VALUES(grad(f)(scalar(2)), 12);
}

// ---- jvp

TEST_CASE("jvp: values and tangents, several arguments, trees") {
  auto f = [](const Tensor& x, const Tensor& y) { return std::pair(x * y, x.sin()); };
  auto [out, tangent] = jvp(f, std::tuple(scalar(2), scalar(3)), std::tuple(scalar(1), scalar(10)));
  CHECK_VALUES(out.first, 6);
  CHECK_VALUES(tangent.first, 23);
  CHECK(tangent.second.item<double>() == doctest::Approx(std::cos(2.0)));
  auto pairs = [](const std::pair<Tensor, Tensor>& p) { return p.first * p.second; };
  auto [o, t] =
      jvp(pairs, args(std::pair(scalar(2), scalar(3))), args(std::pair(scalar(1), scalar(0))));
  CHECK_VALUES(t, 3);
  auto third = forward_derivative(
      forward_derivative(forward_derivative([](const Tensor& x) { return x * x * x; })));
  CHECK_VALUES(third(scalar(2)), 6);
}

TEST_CASE("jvp's misuse") {
  auto f = [](const Tensor& x) { return x * 2; };
  CHECK_THROWS_SAYING(jvp(f, std::tuple(vector({1, 2})), std::tuple(vector({1}))), ShapeError,
                      "tangent", "[2]", "[1]");
  CHECK_THROWS_SAYING(jvp(f, std::tuple(vector({1})), std::tuple(ones(1))), TypeError, "tangent",
                      "float64", "float32");
  CHECK_THROWS_SAYING(jvp(f, std::tuple(tensor({1})), std::tuple(tensor({1}))), TypeError,
                      "floating");
  auto g = [](const std::vector<Tensor>& v) { return v[0]; };
  CHECK_THROWS_SAYING(
      jvp(g, args(std::vector<Tensor>{scalar(1), scalar(2)}), args(std::vector<Tensor>{scalar(1)})),
      ValueError, "tangents", "2", "1");
}

TEST_CASE("an undefined tangent is zero") {
  auto f = [](const Tensor& x, const Tensor& y) { return x * y; };
  auto [o, t] = jvp(f, std::tuple(scalar(2), scalar(3)), std::tuple(Tensor(), scalar(1)));
  CHECK_VALUES(t, 2);
}

TEST_CASE("an argument that is used and then updated does not disturb the gradient") {
  auto loss = [](const Tensor& x, const Tensor& s) {
    Tensor y = (x * s).sum();
    s.add_(x);  // written back only after the gradient was computed
    return y;
  };
  Tensor state = vector({3, 4});
  CHECK_VALUES(grad(loss)(vector({1, 2}), state), 3, 4);
  CHECK_VALUES(state, 4, 6);
  Tensor stacked = vector({1, 2, 3, 4}).reshape({2, 2});
  CHECK_VALUES(vmap(grad(loss), {nullopt, 0})(vector({1, 2}), stacked), 1, 2, 3, 4);
  CHECK_VALUES(stacked, 2, 4, 4, 6);
}

TEST_CASE("arguments are told apart by position, not by identity") {
  Tensor a = vector({2, 3});
  auto f = [](const Tensor& x, const Tensor& y) { return (x * y * y).sum(); };
  auto [gx, gy] = grad<0, 1>(f)(a, a);
  CHECK_VALUES(gx, 4, 9);
  CHECK_VALUES(gy, 8, 18);
  CHECK_VALUES(jvp(f, std::tuple(a, a), std::tuple(ones_like(a), Tensor())).second, 13);
}

TEST_CASE("a pullback that left the vmap it was made in is refused") {
  using Pull = std::function<Tensor(const Tensor&)>;
  Pull kept;
  vmap([&](const Tensor& x) {
    auto [y, pull] = vjp([](const Tensor& t) { return t.exp(); }, x);
    kept = [p = pull](const Tensor& g) { return std::get<0>(p(g)); };
    return kept(ones_like(y));
  })(vector({1, 2}));
  CHECK_THROWS_SAYING(kept(scalar(1)), TransformError, "escaped", "vmap");
}

TEST_CASE("results carry shapes on the meta device") {
  auto loss = [](const Tensor& w, const Tensor& x) { return x.matmul(w).tanh().square().sum(); };
  Tensor w = zeros({5, 3, 2}, kMeta), x = zeros({4, 3}, kMeta);
  Tensor g = vmap(grad(loss), {0, nullopt})(w, x);
  CHECK(g.is_meta());
  CHECK(g.sizes() == Sizes{5, 3, 2});
}

// ---- nesting and perturbations

TEST_CASE("d/dx [x * d/dy (x + y)] = 1 in all four pairs of modes") {
  auto reverse = [](auto f) { return grad(f); };
  auto forward = [](auto f) { return forward_derivative(f); };
  auto check = [](auto outer, auto inner) {
    auto f = [&](const Tensor& x) {
      auto g = [&](const Tensor& y) { return x + y; };
      return x * inner(g)(scalar(3));
    };
    CHECK_VALUES(outer(f)(scalar(5)), 1);
  };
  check(reverse, reverse);
  check(reverse, forward);
  check(forward, reverse);
  check(forward, forward);
}

TEST_CASE("perturbations of equal levels are not confused") {
  // d/dx [ x * d/dy (x * y) at y = x ] = d/dx x^2
  auto check = [](auto outer, auto inner) {
    auto f = [&](const Tensor& x) { return x * inner([&](const Tensor& y) { return x * y; })(x); };
    CHECK_VALUES(outer(f)(scalar(5)), 10);
    // inner's argument is an outer value: d/dx [d/dy (y^3) at y = x^2] = d/dx 3x^4
    auto g = [&](const Tensor& x) {
      return inner([](const Tensor& y) { return y * y * y; })(x * x);
    };
    CHECK_VALUES(outer(g)(scalar(2)), 96);
  };
  auto reverse = [](auto f) { return grad(f); };
  auto forward = [](auto f) { return forward_derivative(f); };
  check(reverse, reverse);
  check(reverse, forward);
  check(forward, reverse);
  check(forward, forward);
}

TEST_CASE("sibling transforms inside one outer transform") {
  auto f = [](const Tensor& x) {
    Tensor a = grad([&](const Tensor& y) { return x * y * y; })(x);      // 2 x^2
    Tensor b = grad([&](const Tensor& y) { return a * y; })(scalar(1));  // 2 x^2
    return a * b;                                                        // 4 x^4
  };
  CHECK_VALUES(grad(f)(scalar(2)), 128);
}

TEST_CASE("mixed nestings with vmap") {
  Tensor x = vector({0.5, 1, 2});
  auto f = [](const Tensor& t) { return t.sin() * t * t; };
  auto d = [](const Tensor& t) { return t.cos() * t * t + 2 * t * t.sin(); };
  CHECK_CLOSE(vmap(grad(f))(x), d(x), 1e-14);
  CHECK_CLOSE(vmap(forward_derivative(f))(x), d(x), 1e-14);
  CHECK_CLOSE(grad([&](const Tensor& t) { return vmap(f)(t).sum(); })(x), d(x), 1e-14);
  auto second = [](const Tensor& t) { return -t.sin() * t * t + 4 * t * t.cos() + 2 * t.sin(); };
  CHECK_CLOSE(vmap(grad(grad(f)))(x), second(x), 1e-13);
  CHECK_CLOSE(vmap(forward_derivative(grad(f)))(x), second(x), 1e-13);
  CHECK_CLOSE(vmap(grad(forward_derivative(f)))(x), second(x), 1e-13);
  CHECK_CLOSE(grad([&](const Tensor& t) { return vmap(grad(f))(t).sum(); })(x), second(x), 1e-13);
  CHECK_CLOSE(jvp(vmap(grad(f)), std::tuple(x), std::tuple(ones(3, kFloat64))).second, second(x),
              1e-13);
  // Hessian by vmap over jvp of grad.
  auto g = [](const Tensor& t) { return (t * t * t).sum() + t.prod(); };
  Tensor hessian = vmap([&](const Tensor& e) {
    return jvp(grad(g), std::tuple(x), std::tuple(e)).second;
  })(eye(3, kFloat64));
  CHECK_CLOSE(hessian, vector({3, 2, 1, 2, 6, 0.5, 1, 0.5, 12}).reshape({3, 3}), 1e-13);
}

TEST_CASE("per-sample gradients equal the loop") {
  manual_seed(1);
  TensorDict p = {{"w", randn({4, 3}, kFloat64)}, {"b", randn(4, kFloat64)}};
  Tensor x = randn({6, 3}, kFloat64), y = randint(4, {6});
  auto loss = [](const TensorDict& d, const Tensor& xi, const Tensor& yi) {
    Tensor log_p = linear(xi, d.at("w"), d.at("b")).log_softmax(-1);
    return -log_p.gather(0, yi.unsqueeze(0)).sum();
  };
  TensorDict g = vmap(grad(loss), {nullopt, 0, 0})(p, x, y);
  CHECK(g.at("w").sizes() == Sizes{6, 4, 3});
  for (int i = 0; i < 6; ++i) {
    TensorDict one = grad(loss)(p, x[i], y[i]);
    CHECK_CLOSE(g.at("w")[i], one.at("w"), 1e-13);
    CHECK_CLOSE(g.at("b")[i], one.at("b"), 1e-13);
  }
}

TEST_CASE("an inner training step is differentiated (four tasks)") {
  manual_seed(2);
  Tensor w = randn(3, kFloat64), xs = randn({4, 5, 3}, kFloat64), ys = randn({4, 5}, kFloat64);
  auto loss = [](const Tensor& p, const Tensor& x, const Tensor& y) {
    return (x.matmul(p) - y).square().mean();
  };
  auto adapted = [&](const Tensor& p, const Tensor& x, const Tensor& y) {
    return loss(p - 0.1 * grad(loss)(p, x, y), x, y);
  };
  auto meta = [&](const Tensor& p) { return vmap(adapted, {nullopt, 0, 0})(p, xs, ys).sum(); };
  Tensor g = grad(meta)(w);
  Tensor leaf = w.clone().requires_grad_();
  Tensor total = zeros({}, kFloat64);
  for (int i = 0; i < 4; ++i) {
    Tensor inner = autograd::grad({loss(leaf, xs[i], ys[i])}, {leaf}, {}, std::nullopt, true)[0];
    total = total + loss(leaf - 0.1 * inner, xs[i], ys[i]);
  }
  total.backward();
  CHECK_CLOSE(g, leaf.grad(), 1e-12);
  // Base autograd outside of the transforms gives the same.
  Tensor leaf2 = w.clone().requires_grad_();
  meta(leaf2).backward();
  CHECK_CLOSE(leaf2.grad(), leaf.grad(), 1e-12);
}

// ---- no_grad and detach

TEST_CASE("no_grad inside is honoured, no_grad outside is not") {
  auto f = [](const Tensor& x) {
    Tensor constant;
    {
      NoGradGuard guard;
      constant = x * x;
    }
    return x * x - constant;
  };
  CHECK_VALUES(grad(f)(scalar(3)), 6);
  CHECK_VALUES(grad(grad(f))(scalar(3)), 2);  // the guard cuts both levels
  auto square = [](const Tensor& x) { return x * x; };
  NoGradGuard guard;
  CHECK_VALUES(grad(square)(scalar(3)), 6);
  CHECK_VALUES(grad(grad(square))(scalar(3)), 2);
  Tensor leaf = scalar(3).requires_grad_();
  CHECK_FALSE(grad(square)(leaf).requires_grad());
}

TEST_CASE("a grad opened inside no_grad inside a grad starts enabled") {
  auto f = [](const Tensor& x) {
    Tensor slope;
    {
      NoGradGuard guard;
      slope = grad([](const Tensor& y) { return y * y * y; })(x);  // 3 x^2, a constant for x
    }
    return slope * x;
  };
  CHECK_VALUES(grad(f)(scalar(2)), 12);
}

TEST_CASE("without no_grad a transform's result carries base history") {
  Tensor leaf = scalar(3).requires_grad_();
  Tensor g = grad([](const Tensor& x) { return x * x * x; })(leaf);
  CHECK(g.requires_grad());
  g.backward();
  CHECK_VALUES(leaf.grad(), 18);
  Tensor captured = scalar(2).requires_grad_();
  Tensor h = grad([&](const Tensor& x) { return captured * x * x; })(scalar(5));
  h.backward();
  CHECK_VALUES(captured.grad(), 10);
}

TEST_CASE("detach cuts every level") {
  auto f = [](const Tensor& a) {
    return grad([](const Tensor& b) { return (b.detach() * b * b).sum(); })(a);
  };
  CHECK_VALUES(grad(f)(scalar(2)), 4);
  CHECK_VALUES(grad([](const Tensor& x) { return x.detach() * x; })(scalar(3)), 3);
  CHECK_VALUES(forward_derivative([](const Tensor& x) { return x.detach() * x; })(scalar(3)), 3);
  Tensor leaf = scalar(3).requires_grad_();
  Tensor y = vmap([](const Tensor& x) { return x.detach() * x; })(leaf.unsqueeze(0)).sum();
  y.backward();
  CHECK_VALUES(leaf.grad(), 3);
  // Through jvp inside grad as well.
  auto g = [](const Tensor& a) {
    return forward_derivative([](const Tensor& b) { return b.detach() * b * b; })(a);
  };
  CHECK_VALUES(grad(g)(scalar(2)), 4);
}

// ---- escaped values and scopes that have ended

TEST_CASE("a value that escaped from a finished transform is an error that names it") {
  Tensor from_grad, from_vmap, from_jvp;
  grad([&](const Tensor& x) {
    from_grad = x * 2;
    return x * x;
  })(scalar(1));
  vmap([&](const Tensor& x) {
    from_vmap = x * 2;
    return x;
  })(vector({1, 2}));
  forward_derivative([&](const Tensor& x) {
    from_jvp = x * 2;
    return x;
  })(scalar(1));
  CHECK_THROWS_SAYING(from_grad + 1, TransformError, "escaped", "grad", "return it");
  CHECK_THROWS_SAYING(from_vmap + 1, TransformError, "escaped", "vmap");
  CHECK_THROWS_SAYING(from_jvp + 1, TransformError, "escaped", "jvp");
  CHECK_THROWS_SAYING(from_grad.item<double>(), TransformError, "escaped", "grad");
  CHECK_THROWS_SAYING(from_vmap.to_vector<double>(), TransformError, "escaped", "vmap");
  CHECK_THROWS_SAYING(from_grad.add_(1), TransformError, "escaped");
  CHECK_THROWS_SAYING(scalar(1).copy_(from_grad), TransformError, "escaped");
  CHECK_THROWS_SAYING(grad([](const Tensor& x) { return x; })(from_grad), TransformError,
                      "escaped");
  // Inside another transform of the same kind, size and depth.
  CHECK_THROWS_SAYING(vmap([&](const Tensor& x) { return x + from_vmap; })(vector({1, 2})),
                      TransformError, "escaped", "vmap");
  CHECK_THROWS_SAYING(grad([&](const Tensor& x) { return x * from_grad; })(scalar(1)),
                      TransformError, "escaped", "grad");
  CHECK_THROWS_SAYING(vmap([](const Tensor& x) { return x; })(from_vmap), TransformError,
                      "escaped");
  CHECK(from_grad.to_string().find("finished") != std::string::npos);
}

TEST_CASE("a value of an inner transform that reaches the outer one is refused too") {
  Tensor kept;
  auto f = [&](const Tensor& x) {
    grad([&](const Tensor& y) {
      kept = y * x;
      return y * y;
    })(x);
    return x * kept;
  };
  CHECK_THROWS_SAYING(grad(f)(scalar(1)), TransformError, "escaped");
  CHECK_THROWS_SAYING(vmap(f)(vector({1, 2})), TransformError, "escaped");
}

TEST_CASE("exceptions in the middle leave the chain clean") {
  struct Boom {};
  auto boom = [](const Tensor& x) -> Tensor {
    Tensor y = x.exp();
    if (y.defined()) throw Boom();
    return y;
  };
  CHECK_THROWS_AS(grad(boom)(scalar(1)), Boom);
  CHECK_THROWS_AS(vmap(grad(boom))(vector({1, 2})), Boom);
  CHECK_THROWS_AS(
      grad([&](const Tensor& x) { return vmap(boom)(x.unsqueeze(0)).sum(); })(scalar(1)), Boom);
  CHECK(tutti::thread_state().current == nullptr);
  // An error from an op under the parent.
  CHECK_THROWS_AS(vmap(grad([](const Tensor& x) { return x.matmul(x).sum(); }))(ones({2, 3, 4})),
                  ShapeError);
  CHECK(tutti::thread_state().current == nullptr);
  CHECK_VALUES(grad([](const Tensor& x) { return x * x; })(scalar(3)), 6);
  // One that is caught inside: the transform goes on.
  auto survives = [&](const Tensor& x) {
    try {
      grad(boom)(x);
    } catch (const Boom&) {
    }
    try {
      x.reshape({3, 3});
    } catch (const Error&) {
    }
    return x * x;
  };
  CHECK_VALUES(grad(survives)(scalar(3)), 6);
  CHECK_VALUES(vmap(survives)(vector({3, 4})), 9, 16);
}

TEST_CASE("a transform inside itself (re-entrant functions)") {
  std::function<Tensor(const Tensor&, int)> power = [&](const Tensor& x, int n) -> Tensor {
    // n-th derivative of x^3, recursively.
    if (n == 0) return x * x * x;
    return grad([&](const Tensor& y) { return power(y, n - 1); })(x);
  };
  CHECK_VALUES(power(scalar(2), 0), 8);
  CHECK_VALUES(power(scalar(2), 1), 12);
  CHECK_VALUES(power(scalar(2), 2), 12);
  CHECK_VALUES(power(scalar(2), 3), 6);
  CHECK_VALUES(power(scalar(2), 4), 0);
}

// ---- custom functions under transforms

namespace {
struct TimesThree : autograd::Function<TimesThree> {
  static Tensor forward(autograd::AutogradContext* ctx, Tensor x) {
    ctx->save_for_backward({x});
    return x * x;
  }
  static std::vector<Tensor> backward(autograd::AutogradContext* ctx, std::vector<Tensor> g) {
    return {3 * g[0] * ctx->get_saved_variables()[0]};  // on purpose not the true derivative
  }
};
}  // namespace

namespace {
struct MaskedRelu : autograd::Function<MaskedRelu> {
  static Tensor forward(autograd::AutogradContext* ctx, Tensor x, Tensor slope) {
    Tensor mask = x > 0;
    ctx->save_for_backward({mask, slope, x});
    return where(mask, x, x * slope);
  }
  static std::vector<Tensor> backward(autograd::AutogradContext* ctx, std::vector<Tensor> g) {
    auto saved = ctx->get_saved_variables();  // the mask is neither input nor output
    return {where(saved[0], g[0], g[0] * saved[1]),
            where(saved[0], zeros_like(g[0]), g[0] * saved[2])};
  }
};
}  // namespace

TEST_CASE("autograd::Function that saves a value of its own, in every nesting") {
  auto f = [](const Tensor& x, const Tensor& s) { return MaskedRelu::apply(x, s); };
  Tensor x = vector({2, -3, 4, -5}), slope = scalar(0.5);
  Tensor dx = vector({1, 0.5, 1, 0.5});
  auto total = [&](const Tensor& v, const Tensor& s) { return f(v, s).sum(); };
  CHECK_SAME(grad(total)(x, slope), dx);
  CHECK_SAME(vmap(grad(f), {0, nullopt})(x, slope), dx);
  CHECK_SAME(vmap(grad<1>(f), {0, nullopt})(x, slope), vector({0, -3, 0, -5}));
  auto mapped = [&](const Tensor& v, const Tensor& s) { return vmap(f, {0, nullopt})(v, s).sum(); };
  CHECK_SAME(grad(mapped)(x, slope), dx);
  CHECK_VALUES(grad<1>(mapped)(x, slope), -8);
  Tensor leaf = x.clone().requires_grad_(), s = slope.clone().requires_grad_();
  mapped(leaf, s).backward();
  CHECK_SAME(leaf.grad(), dx);
  CHECK_VALUES(s.grad(), -8);
  auto twice = [&](const Tensor& v, const Tensor& k) {
    return vmap([&](const Tensor& row) { return vmap(f, {0, nullopt})(row, k); })(v).sum();
  };
  CHECK_SAME(grad(twice)(x.reshape({2, 2}), slope), dx.reshape({2, 2}));
  CHECK_SAME(vmap([&](const Tensor& row) { return grad(mapped)(row, slope); })(x.reshape({2, 2})),
             dx.reshape({2, 2}));
  auto [y, pull] = vjp([&](const Tensor& v) { return vmap(f, {0, nullopt})(v, slope); }, x);
  CHECK_SAME(std::get<0>(pull(2 * ones_like(y))), 2 * dx);
}

TEST_CASE("forward mode does not pass over the backward of an autograd::Function") {
  auto f = [](const Tensor& x) { return TimesThree::apply(x); };
  auto slope = [](auto g) {
    return [g](const Tensor& x) { return jvp(g, func::args(x), func::args(ones_like(x))).second; };
  };
  CHECK_SAME(slope(f)(scalar(2)), grad(f)(scalar(2)));
  CHECK_SAME(vmap(slope(f))(vector({2, 3})), vmap(grad(f))(vector({2, 3})));
  CHECK_SAME(slope(vmap(f))(vector({2, 3})), vmap(grad(f))(vector({2, 3})));
  CHECK_VALUES(slope(grad(f))(scalar(2)), 3);
  CHECK_VALUES(slope([&](const Tensor& x) { return x * f(scalar(2)); })(scalar(5)), 4);
}

TEST_CASE("autograd::Function keeps its derivative inside grad, vmap and their nestings") {
  auto f = [](const Tensor& x) { return TimesThree::apply(x); };
  CHECK_VALUES(grad(f)(scalar(2)), 6);
  CHECK_VALUES(grad(grad(f))(scalar(2)), 3);
  CHECK_VALUES(vmap(f)(vector({2, 3})), 4, 9);
  CHECK_VALUES(vmap(grad(f))(vector({2, 3})), 6, 9);
  CHECK_VALUES(grad([&](const Tensor& x) { return vmap(f)(x).sum(); })(vector({2, 3})), 6, 9);
  Tensor leaf = vector({2, 3}).requires_grad_();
  vmap(f)(leaf).sum().backward();
  CHECK_VALUES(leaf.grad(), 6, 9);
}

TEST_CASE("an op that fails leaves the transform in charge, for code that catches the error") {
  const Tensor beyond = tensor({9});
  auto f = [&](const Tensor& x) {
    CHECK_THROWS_AS(x.gather(0, beyond), IndexError);  // found by the kernel, below all transforms
    return (x * x).sum();
  };
  const Tensor x = vector({1, 2, 3});
  CHECK_VALUES(grad(f)(x), 2, 4, 6);
  CHECK_VALUES(jvp(f, std::tuple(x), std::tuple(ones_like(x))).second, 12);
  CHECK_VALUES(vmap(f)(stack({x, x * 2})), 14, 56);
  CHECK_VALUES(vmap(grad(f))(stack({x, x * 2})), 2, 4, 6, 4, 8, 12);
}

// ---- views of memory under transforms

TEST_CASE("as_strided of a view means the same values in every interpreter") {
  // The input is a transposed part of memory; an explicit offset counts from the memory's start.
  const Tensor memory = arange(12, kFloat64), weight = arange(1, 5, kFloat64).reshape({2, 2});
  auto part = [](const Tensor& m) { return m.slice(0, 3).reshape({3, 3}).t().slice(0, 1); };
  auto f = [&](const Tensor& x) { return x.as_strided({2, 2}, {3, 1}, 7) * weight; };
  const Tensor x = part(memory),
               value = tensor({7., 8., 10., 11.}, kFloat64).reshape({2, 2}) * weight;
  const Tensor slope = tensor({0., 1., 3., 0., 2., 4.}, kFloat64).reshape({2, 3});
  CHECK_SAME(f(x), value);

  Tensor leaf = memory.clone().requires_grad_();
  Tensor y = f(part(leaf));
  CHECK_SAME(y.detach(), value);
  y.sum().backward();
  CHECK_VALUES(leaf.grad(), 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 3, 4);

  auto [g, v] = func::grad_and_value([&](const Tensor& t) { return f(t).sum(); })(x);
  CHECK_SAME(v, value.sum());
  CHECK_SAME(g, slope);
  auto [out, tangent] = func::jvp(f, std::tuple(x), std::tuple(x * 2));
  CHECK_SAME(out, value);
  CHECK_SAME(tangent, value * 2);

  const Tensor batch = stack({memory, memory + 100});
  auto both = [&](const Tensor& m) { return part(m).as_strided({2, 2}, {3, 1}, 7) * weight; };
  const Tensor each = stack({value, value + 100 * weight});
  CHECK_SAME(func::vmap(both)(batch), each);  // an example's memory is its own: it starts at 0
  CHECK_SAME(func::vmap(both, 0, 0, VmapOptions().chunk_size(1))(batch), each);

  // Writing through it, under a transform, reaches the same elements.
  auto write = [&](const Tensor& m) {
    Tensor copy = m * 1;
    part(copy).as_strided({2, 2}, {3, 1}, 7).mul_(0);
    return (copy * memory).sum();
  };
  CHECK_VALUES(func::grad(write)(memory), 0, 1, 2, 3, 4, 5, 6, 0, 0, 9, 0, 0);
}

TEST_CASE("a transform refuses an as_strided of memory that its input does not show") {
  const Tensor x = arange(6, kFloat64).slice(0, 2);
  auto before = [](const Tensor& t) { return t.as_strided({2}, {1}, 1).sum(); };
  CHECK(before(x).item<double>() == 3);
  CHECK_THROWS_SAYING(func::grad(before)(x), TransformError, "reach beyond the input");
  Tensor leaf = x.clone().reshape({2, 2}).requires_grad_();
  auto gap = [](const Tensor& t) { return t.select(1, 0).as_strided({2}, {1}).sum(); };
  CHECK_THROWS_SAYING(gap(leaf), TransformError, "reach beyond the input");
  NoGradGuard guard;
  CHECK(gap(leaf).item<double>() == 5);
}
