// In-place ops inside transforms: views, copy-back to arguments, captured tensors, promoted locals,
// and the errors.
#include <tutti/autograd/autograd.h>
#include <tutti/func/transforms.h>

#include "behaviour.h"

using namespace tutti;
using func::grad;
using func::jvp;
using func::vjp;
using func::vmap;
using std::nullopt;

using Sizes = std::vector<std::int64_t>;

namespace {

Tensor scalar(double v) { return tensor(v, kFloat64); }
Tensor vector(std::initializer_list<double> v) { return tensor(std::vector<double>(v), kFloat64); }

// f's gradient by grad, by base autograd, by jvp (sum of directional derivatives) and by vmap(grad)
// with one example: all must agree.
template <class F>
void check_gradient(F f, const Tensor& x, std::initializer_list<double> expected) {
  const std::vector<double> want(expected);
  CHECK(tutti_test::has_values(grad(f)(x), want));
  CHECK(tutti_test::has_values(vmap(grad(f))(x.unsqueeze(0)), want));
  Tensor leaf = x.clone().requires_grad_();
  f(leaf).backward();
  CHECK(tutti_test::has_values(leaf.grad(), want));
  Tensor by_jvp = vmap([&](const Tensor& e) {
    return jvp(f, std::tuple(x), std::tuple(e.reshape(x.sizes()))).second;
  })(eye(x.numel(), kFloat64));
  CHECK(tutti_test::has_values(by_jvp, want));
}

}  // namespace

// ---- local values

TEST_CASE("in-place ops on local values") {
  check_gradient(
      [](const Tensor& x) {
        Tensor y = x * 2;
        y.mul_(x).add_(x);  // 2x^2 + x
        y += x;
        y *= 3.0;
        return y.sum();  // 6x^2 + 6x
      },
      vector({1, 2}), {18, 30});
}

TEST_CASE("every handle on a local value sees the write") {
  check_gradient(
      [](const Tensor& x) {
        Tensor y = x * 1, same = y;
        y.mul_(x);
        return same.sum();
      },
      vector({1, 3}), {2, 6});
}

TEST_CASE("copy_ takes the value, not the tensor") {
  check_gradient(
      [](const Tensor& x) {
        Tensor a = x * 1, b = zeros_like(x);
        b.copy_(a);
        a.mul_(100);  // must not show in b
        return (b * b).sum();
      },
      vector({1, 2}), {2, 4});
  check_gradient(
      [](const Tensor& x) {
        Tensor a = zeros_like(x);
        a.copy_(x);
        a.mul_(a);
        return a.sum() + x.sum();  // x itself unchanged
      },
      vector({1, 2}), {3, 5});
}

TEST_CASE("a plain local takes over derivatives (promoted)") {
  check_gradient(
      [](const Tensor& x) {
        Tensor buffer = zeros({2, 2}, kFloat64);
        buffer[0].copy_(x);
        buffer[1].copy_(x * x);
        return (buffer * buffer).sum();  // x^2 + x^4
      },
      vector({1, 2}), {6, 36});
}

TEST_CASE("overwriting forgets") {
  check_gradient(
      [](const Tensor& x) {
        Tensor y = x * 5;
        y.zero_();
        y.add_(x);
        Tensor z = x * 7;
        z.fill_(1);
        return (y * z).sum();
      },
      vector({1, 2}), {1, 1});
}

// ---- views

TEST_CASE("writes through views, and views of views") {
  check_gradient(
      [](const Tensor& x) {
        Tensor base = x.reshape({2, 2}) * 1;
        base.t()[0].mul_(10);                          // first column
        base.narrow(0, 1, 1).select(1, 1).mul_(x[0]);  // element (1, 1)
        return base.sum();                             // 10 x0 + x1 + 10 x2 + x3 x0
      },
      vector({2, 3, 4, 5}), {15, 1, 10, 2});
}

TEST_CASE("a view sees what is written to its base and to other views") {
  check_gradient(
      [](const Tensor& x) {
        Tensor base = x * 1;
        Tensor head = base.narrow(0, 0, 2), tail = base.narrow(0, 1, 2);
        base.mul_(2);
        head.mul_(x.narrow(0, 0, 2));           // element 1 is in both
        return (tail * vector({1, 10})).sum();  // 2 x1^2 + 20 x2
      },
      vector({1, 3, 5}), {0, 12, 20});
}

TEST_CASE("a view taken before, read after, through several kinds of views") {
  check_gradient(
      [](const Tensor& x) {
        Tensor base = x.reshape({2, 3}) * 1;
        Tensor a = base.t(), b = a.unsqueeze(0), c = b.flatten(), d = base.diagonal(),
               e = base.slice(1, 0, 3, 2), f = base.expand({2, 2, 3}), g = base.unfold(1, 2, 1);
        base.mul_(3);
        return c.sum() * 0 + a[2][1] + d[1] * 10 + e[0][1] * 100 + f[1][0][0] * 1000 +
               g[1][0][0] * 10000;
      },
      vector({1, 1, 1, 1, 1, 1}), {3000, 0, 300, 30000, 30, 3});
}

TEST_CASE("reshape that copies is not a view") {
  check_gradient(
      [](const Tensor& x) {
        Tensor base = x.reshape({2, 2}) * 1;
        Tensor copy = base.t().reshape(4);
        copy.mul_(100);
        return base.sum();
      },
      vector({1, 2, 3, 4}), {1, 1, 1, 1});
}

TEST_CASE("index_put_ and masked writes") {
  check_gradient(
      [](const Tensor& x) {
        Tensor y = x * 1;
        y.index_put_({tensor({0, 2})}, x.narrow(0, 0, 2) * 10);
        y.masked_fill_(tensor({false, true, false}), 0);
        return y.sum();  // 10 x0 + 10 x1
      },
      vector({1, 2, 3}), {10, 10, 0});
}

TEST_CASE("indexed assignment through index() and operator[]") {
  check_gradient(
      [](const Tensor& x) {
        Tensor y = zeros({2, 2}, kFloat64);
        y.index({0, Slice()}).copy_(x);
        y[1] += x * x;
        return y.sum();
      },
      vector({1, 2}), {3, 5});
}

TEST_CASE("under no_grad an in-place op changes the value and leaves the history") {
  auto f = [](const Tensor& x) {
    Tensor y = x * 2;
    {
      NoGradGuard guard;
      y.mul_(3);
    }
    return (y * x).sum();  // y is 6 x, its derivative 2
  };
  Tensor x = vector({1, 2}), leaf = x.clone().requires_grad_();
  CHECK_VALUES(grad(f)(x), 8, 16);
  f(leaf).backward();
  CHECK_VALUES(leaf.grad(), 8, 16);
  auto fresh = [](const Tensor& v) {
    Tensor c = zeros_like(v);
    {
      NoGradGuard guard;
      c.copy_(v);
    }
    return (c * v).sum();
  };
  CHECK_VALUES(grad(fresh)(x), 1, 2);
}

TEST_CASE("a view that is first read again under no_grad keeps its history") {
  auto f = [](const Tensor& x) {
    Tensor base = x * 1, view = base.narrow(0, 0, 1);
    base.mul_(x);
    {
      NoGradGuard guard;
      Tensor looked_at = view + 1;
    }
    return view.sum();
  };
  check_gradient(f, vector({3, 5}), {6, 0});
  auto asked = [](const Tensor& x) {
    Tensor base = x * 1, view = base.narrow(0, 0, 1);
    base.mul_(x);
    NoGradGuard guard;
    CHECK(view.requires_grad());
    return base.sum();
  };
  asked(vector({3, 5}).requires_grad_());
}

TEST_CASE("second order through in-place ops") {
  auto f = [](const Tensor& x) {
    Tensor y = x * 1;
    Tensor v = y.narrow(0, 0, 1);
    v.mul_(x.narrow(0, 0, 1)).mul_(x.narrow(0, 0, 1));
    return y.sum();  // x0^3 + x1
  };
  auto second = [&](const Tensor& x) { return grad(f)(x).sum(); };
  CHECK_VALUES(grad(second)(vector({2, 7})), 12, 0);
  Tensor h = vmap([&](const Tensor& e) {
    return jvp(grad(f), std::tuple(vector({2, 7})), std::tuple(e)).second;
  })(eye(2, kFloat64));
  CHECK_VALUES(h, 12, 0, 0, 0);
}

// ---- inside vmap

TEST_CASE("vmap: local values, views and promotion of plain locals") {
  Tensor x = arange(6, kFloat64).reshape({3, 2});
  auto f = [](const Tensor& v) {
    Tensor out = zeros({2, 2}, kFloat64);  // the same for all examples until the first write
    out[0].copy_(v);
    out.t()[1].add_(v.sum());
    return out;
  };
  Tensor y = vmap(f)(x);
  for (int i = 0; i < 3; ++i) CHECK_SAME(y[i], f(x[i]));
  auto fresh = [](const Tensor& v) {
    Tensor total = zeros({}, kFloat64);
    for (int i = 0; i < 2; ++i) total += v[i];
    return total;
  };
  CHECK_SAME(vmap(fresh)(x), x.sum(1));
  // new_zeros and zeros_like of a mapped tensor too.
  auto like = [](const Tensor& v) { return v.new_zeros({2}).copy_(v) + zeros_like(v).add_(v); };
  CHECK_SAME(vmap(like)(x), 2 * x);
  CHECK_SAME(vmap([](const Tensor& v) { return v.new_empty({2}).copy_(v); })(x), x);
  auto g = [](const Tensor& v) { return v.new_zeros({2}).copy_(v).sum(); };
  CHECK_SAME(vmap(grad(g))(x), ones({3, 2}, kFloat64));
}

TEST_CASE("vmap: another mapped axis than the first") {
  Tensor x = arange(6, kFloat64).reshape({2, 3}), y = ones({3, 2}, kFloat64);
  auto f = [](const Tensor& a, const Tensor& b) {
    Tensor t = b * 1;
    t.add_(a);
    t[0].mul_(a[1]);
    return t;
  };
  Tensor r = vmap(f, {1, 0})(x, y);
  for (int i = 0; i < 3; ++i) CHECK_SAME(r[i], f(x.select(1, i), y[i]));
}

TEST_CASE("vmap in vmap writes to a value of the outer level") {
  Tensor x = arange(3, kFloat64), y = arange(2, kFloat64);
  auto f = [&](const Tensor& a) {
    return vmap([&](const Tensor& b) {
      Tensor t = zeros({}, kFloat64);
      t.add_(a);
      t.add_(b);
      t.mul_(a);
      return t;
    })(y);
  };
  CHECK_SAME(vmap(f)(x), (x.unsqueeze(1) + y) * x.unsqueeze(1));
}

// ---- copy-back to arguments

TEST_CASE("arguments that f changes are changed for the caller, once, at exit") {
  Tensor a = vector({1, 2, 3}), before = a.clone();
  bool seen = false;
  auto f = [&](const Tensor& v) {
    v.mul_(10);
    seen = tutti_test::same(a, before);  // not yet
    return v.sum();
  };
  CHECK_VALUES(vmap(f)(a), 10, 20, 30);
  CHECK(seen);
  CHECK_VALUES(a, 10, 20, 30);

  // A differentiated function that updates an argument that is not differentiated.
  Tensor state = vector({1, 1});
  auto g = [](const Tensor& x, const Tensor& s) {
    s.mul_(0.5).add_(x * x);
    return (x * s).sum();
  };
  CHECK_VALUES(grad(g)(vector({1, 2}), state), 3.5, 12.5);
  CHECK_VALUES(state, 1.5, 4.5);
  auto [out, tangent] =
      jvp(g, std::tuple(vector({1, 2}), state), std::tuple(vector({1, 1}), Tensor()));
  CHECK_VALUES(state, 1.75, 6.25);
}

TEST_CASE("copy-back: other axes, views of arguments, trees, chunks, casts") {
  Tensor a = zeros({2, 3}, kFloat64);
  vmap(
      [](const Tensor& v) {
        v[1].add_(v.numel());
        return v;
      },
      1)(a);
  CHECK_VALUES(a, 0, 0, 0, 2, 2, 2);
  TensorDict d = {{"mean", zeros(3, kFloat64)}, {"count", zeros(3, kInt64)}, {"w", ones(3)}};
  auto f = [](const TensorDict& t, const Tensor& x) {
    t.at("mean").lerp_(x.mean(), 0.5);
    t.at("count").add_(1);
    return t.at("w") * x.sum();
  };
  Tensor x = arange(6, kFloat64).reshape({3, 2});
  vmap(f)(d, x);
  CHECK_VALUES(d.at("mean"), 0.25, 1.25, 2.25);
  CHECK_VALUES(d.at("count"), 1, 1, 1);
  vmap(f, 0, 0, VmapOptions().chunk_size(2))(d, x);
  CHECK_VALUES(d.at("mean"), 0.375, 1.875, 3.375);
  CHECK_VALUES(d.at("count"), 2, 2, 2);
  CHECK_VALUES(d.at("w"), 1, 1, 1);
  Tensor whole = zeros({4, 3}, kFloat64), part = whole.narrow(0, 1, 2);
  vmap([](const Tensor& v) { return v.add_(1); })(part);
  CHECK_VALUES(whole.sum(1), 0, 3, 3, 0);
}

TEST_CASE("copy-back through several levels") {
  Tensor state = zeros({3, 2}, kFloat64), x = arange(6, kFloat64).reshape({3, 2});
  auto loss = [](const Tensor& w, const Tensor& s) {
    s.add_(w * 2);
    return (w * w).sum() + s.sum() * 0;
  };
  vmap(grad(loss))(x, state);
  CHECK_SAME(state, 2 * x);
  // The value that is written depends on the outer grad's argument: the caller's local keeps it.
  auto outer_f = [&](const Tensor& w) {
    Tensor s = zeros(2, kFloat64);
    vmap([](const Tensor& a, const Tensor& b) { return b.add_(a * a); })(w, s);
    return s.sum();
  };
  CHECK_VALUES(grad(outer_f)(vector({1, 3})), 2, 6);
}

TEST_CASE("a value that is returned and written back is not shared") {
  Tensor a = vector({1, 2});
  Tensor r = vmap([](const Tensor& v) { return v.add_(1); })(a);
  CHECK_VALUES(r, 2, 3);
  r.zero_();
  CHECK_VALUES(a, 2, 3);
}

TEST_CASE("on a throw nothing is written") {
  Tensor a = vector({1, 2}), b = vector({3, 4});
  auto f = [](const Tensor& v, const Tensor& w) -> Tensor {
    v.mul_(10);
    w.mul_(10);
    throw std::runtime_error("after the writes");
  };
  CHECK_THROWS_AS(vmap(f)(a, b), std::runtime_error);
  CHECK_VALUES(a, 1, 2);
  CHECK_VALUES(b, 3, 4);
  // In the second of two chunks.
  int run = 0;
  auto g = [&](const Tensor& v) {
    v.mul_(10);
    if (run++ == 1) throw std::runtime_error("second chunk");
    return v * 1;
  };
  CHECK_THROWS_AS(vmap(g, 0, 0, VmapOptions().chunk_size(1))(a), std::runtime_error);
  CHECK_VALUES(a, 1, 2);
  // An error in the results comes before any write.
  CHECK_THROWS_AS(vmap([](const Tensor& v) { return v.mul_(10); }, 0, 5)(a), IndexError);
  CHECK_VALUES(a, 1, 2);
  CHECK_THROWS_AS(grad<1>([](const Tensor& s, const Tensor& x) {
                    s.mul_(10);
                    return x * 1;
                  })(a, vector({1, 2})),
                  ValueError);
  CHECK_VALUES(a, 1, 2);
}

TEST_CASE("overlapping arguments of which one is written are an error") {
  Tensor a = vector({1, 2, 3});
  auto f = [](const Tensor& v, const Tensor& w) { return v.add_(w); };
  CHECK_THROWS_SAYING(vmap(f)(a, a), TransformError, "argument 0", "argument 1", "clone");
  CHECK_THROWS_SAYING(vmap(f)(a.narrow(0, 0, 2), a.narrow(0, 1, 2)), TransformError, "shares");
  CHECK_VALUES(a, 1, 2, 3);
  CHECK_NOTHROW(vmap([](const Tensor& v, const Tensor& w) { return v + w; })(a, a));
  CHECK_NOTHROW(vmap(f)(a, a.clone()));
}

TEST_CASE("parts of one buffer that do not overlap are separate arguments") {
  Tensor flat = arange(6, kFloat64), a = flat.narrow(0, 0, 3), b = flat.narrow(0, 3, 3);
  vmap([](const Tensor& v, const Tensor& w) { return v.add_(w); })(a, b);
  CHECK_VALUES(flat, 3, 5, 7, 3, 4, 5);
}

TEST_CASE("overlap is noticed inside another transform too") {
  auto f = [](const Tensor& x) {
    Tensor y = x * 1;
    vmap([](const Tensor& v, const Tensor& w) { return v.add_(w); })(y.narrow(0, 0, 2),
                                                                     y.narrow(0, 1, 2));
    return y.sum();
  };
  CHECK_THROWS_SAYING(grad(f)(vector({1, 2, 3})), TransformError, "shares", "clone");
  auto g = [](const Tensor& x) {
    Tensor y = x * 1;
    vmap([](const Tensor& v, const Tensor& w) { return v.mul_(w); })(y.narrow(0, 0, 2),
                                                                     y.narrow(0, 2, 2));
    return y.sum();
  };
  CHECK_VALUES(grad(g)(vector({1, 2, 3, 4})), 3, 4, 2, 3);
}

TEST_CASE("an argument that is not mapped takes values that are the same for all examples only") {
  Tensor shared = zeros(2, kFloat64), x = arange(6, kFloat64).reshape({3, 2});
  auto f = [](const Tensor& s, const Tensor& v) {
    s.add_(1);
    return v + s;
  };
  vmap(f, {nullopt, 0})(shared, x);
  CHECK_VALUES(shared, 1, 1);  // once, not once per example
  auto g = [](const Tensor& s, const Tensor& v) { return s.add_(v); };
  CHECK_THROWS_SAYING(vmap(g, {nullopt, 0})(shared, x), TransformError, "not mapped", "vmap");
  CHECK_VALUES(shared, 1, 1);
}

// ---- captured tensors

TEST_CASE("a captured tensor takes untracked values, refuses others") {
  Tensor counter = zeros(2, kFloat64);
  auto f = [&](const Tensor& x) {
    counter.add_(1);
    return (x * x).sum();
  };
  grad(f)(vector({1, 2}));
  CHECK_VALUES(counter, 1, 1);
  vmap(f)(ones({3, 2}, kFloat64));
  CHECK_VALUES(counter, 2, 2);
  vmap(grad(f))(ones({3, 2}, kFloat64));
  CHECK_VALUES(counter, 3, 3);
  auto by_x = [&](const Tensor& x) {
    counter.add_(x);
    return (x * x).sum();
  };
  CHECK_THROWS_SAYING(grad(by_x)(vector({1, 2})), TransformError, "captured", "grad", "argument");
  CHECK_THROWS_SAYING(vmap(by_x)(ones({3, 2}, kFloat64)), TransformError, "captured", "vmap");
  CHECK_THROWS_SAYING(jvp(by_x, std::tuple(vector({1, 2})), std::tuple(vector({1, 1}))),
                      TransformError, "captured", "jvp");
  CHECK_THROWS_SAYING(vmap(grad(by_x))(ones({3, 2}, kFloat64)), TransformError, "captured");
  CHECK_VALUES(counter, 3, 3);
  // Through a view of the captured tensor.
  CHECK_THROWS_SAYING(grad([&](const Tensor& x) {
                        counter[0].copy_(x[0]);
                        return x.sum();
                      })(vector({1, 2})),
                      TransformError, "captured");
  CHECK_VALUES(counter, 3, 3);
  // The detached value is untracked in grad.
  grad([&](const Tensor& x) {
    counter.copy_(x.detach() * 2);
    return x.sum();
  })(vector({1, 2}));
  CHECK_VALUES(counter, 2, 4);
}

TEST_CASE("a local of an outer level is captured by an inner one") {
  auto f = [](const Tensor& x) {
    Tensor log = zeros(2, kFloat64);
    grad([&](const Tensor& y) {
      log.add_(x);  // tracked by the outer grad, untracked by the inner one
      return (y * y).sum();
    })(x);
    return log.sum();
  };
  CHECK_VALUES(grad(f)(vector({1, 2})), 1, 1);
  auto g = [](const Tensor& x) {
    Tensor log = zeros(2, kFloat64);
    grad([&](const Tensor& y) {
      log.add_(y);
      return (y * y).sum();
    })(x);
    return log.sum();
  };
  CHECK_THROWS_SAYING(grad(g)(vector({1, 2})), TransformError, "captured");
}

TEST_CASE("a view of a captured tensor sees captured writes") {
  Tensor c = zeros(3, kFloat64);
  grad([&](const Tensor& x) {
    Tensor v = c.narrow(0, 1, 2);
    c.add_(1);
    CHECK_VALUES(v, 1, 1);
    v.add_(1);
    return x * 1;
  })(scalar(1));
  CHECK_VALUES(c, 1, 2, 2);
}

TEST_CASE("the differentiated argument must not be written") {
  auto f = [](const Tensor& x) { return x.mul_(2).sum(); };
  Tensor a = vector({1, 2});
  CHECK_THROWS_SAYING(grad(f)(a), TransformError, "grad", "differentiated", "clone");
  CHECK_THROWS_SAYING(grad([](const Tensor& x) { return x[0].zero_(); })(a), TransformError,
                      "clone");
  CHECK_THROWS_SAYING(jvp(f, std::tuple(a), std::tuple(a.clone())), TransformError, "jvp", "clone");
  CHECK_THROWS_SAYING(vjp(f, a), TransformError, "clone");
  CHECK_THROWS_SAYING(vmap(grad(f))(a.unsqueeze(0)), TransformError, "clone");
  CHECK_VALUES(a, 1, 2);
  CHECK_VALUES(grad([](const Tensor& x) { return x.clone().mul_(2).sum(); })(a), 2, 2);
}

TEST_CASE("a captured leaf that requires grad is protected inside transforms as well") {
  Tensor leaf = vector({1, 2}).requires_grad_();
  CHECK_THROWS_SAYING(grad([&](const Tensor& x) {
                        leaf.add_(1);
                        return x * 1;
                      })(scalar(1)),
                      AutogradError, "leaf");
  CHECK_VALUES(leaf, 1, 2);
}

// ---- saved values

TEST_CASE("a value that grad saved and that was written afterwards is an error") {
  Tensor c = vector({3, 4});
  auto f = [&](const Tensor& x) {
    Tensor y = (x * c).sum();
    c.add_(1);  // the derivative of mul needs c as it was
    return y;
  };
  CHECK_THROWS_SAYING(grad(f)(vector({1, 2})), AutogradError, "grad", "mul", "changed in place");
  // A local one may be written: boxes are rebound, the saved value stays.
  auto g = [](const Tensor& x) {
    Tensor k = full({2}, 3.0, kFloat64);
    Tensor y = (x * k).sum();
    k.add_(100);
    return y;
  };
  CHECK_VALUES(grad(g)(vector({1, 2})), 3, 3);
  // Between vjp and the pullback.
  Tensor w = vector({3, 4});
  auto [y, pull] = vjp([&](const Tensor& x) { return (x * w).sum(); }, vector({1, 2}));
  w.add_(1);
  CHECK_THROWS_SAYING(pull(scalar(1)), AutogradError, "mul", "clone");
}

TEST_CASE("shape errors in assignments") {
  auto f = [](const Tensor& x) {
    Tensor y = zeros(2, kFloat64);
    y.copy_(x);
    return y.sum();
  };
  CHECK_THROWS_SAYING(grad(f)(vector({1, 2, 3})), ShapeError, "[2]", "[3]");
  CHECK_THROWS_SAYING(vmap(f)(ones({4, 3}, kFloat64)), ShapeError, "[2]", "[3]");
}

TEST_CASE("writing to an expanded local inside a transform") {
  auto f = [](const Tensor& x) {
    Tensor y = x.expand({3});
    y.add_(1);
    return y.sum();
  };
  CHECK_THROWS_AS(grad(f)(vector({1})), Error);
}
