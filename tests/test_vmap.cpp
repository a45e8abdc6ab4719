// vmap: axes and trees, nesting, chunks, what cannot be mapped.
#include <array>
#include <map>
#include <optional>

#include <tutti/autograd/autograd.h>
#include <tutti/core/interpreter.h>
#include <tutti/func/transforms.h>

#include "behaviour.h"

using namespace tutti;
using func::vmap;
using std::nullopt;

using Sizes = std::vector<std::int64_t>;

struct Batch {
  Tensor x, y;
};
TUTTI_TREE(Batch, x, y)

namespace {

Tensor numbers(IntArrayRef sizes, DType dtype = kFloat64) {
  return (arange(numel_of(sizes), dtype) * 0.25 - 1).reshape(sizes);
}

Tensor multiply(const Tensor& a, const Tensor& b) { return a * b; }

}  // namespace

// ---- axes

TEST_CASE("vmap equals stacking the results for the examples") {
  Tensor x = numbers({3, 4}), w = numbers({4, 2});
  auto f = [&](const Tensor& v) { return v.matmul(w).tanh(); };
  std::vector<Tensor> loop;
  for (int i = 0; i < 3; ++i) loop.push_back(f(x[i]));
  CHECK_CLOSE(vmap(f)(x), stack(loop), 1e-15);
}

TEST_CASE("inside, shapes are per example and f runs once") {
  int runs = 0;
  auto f = [&](const Tensor& v) {
    ++runs;
    CHECK(v.sizes() == Sizes{4});
    CHECK(v.dim() == 1);
    CHECK(v.numel() == 4);
    CHECK(v.sum().dim() == 0);
    CHECK(v.unsqueeze(0).sizes() == Sizes{1, 4});
    return v.sum();
  };
  CHECK(vmap(f)(numbers({3, 4})).sizes() == Sizes{3});
  CHECK(runs == 1);
}

TEST_CASE("in_dims: one for all, one per argument, none") {
  Tensor x = numbers({2, 3}), y = numbers({2, 3});
  CHECK(vmap(multiply, {0, nullopt})(x, y).sizes() == Sizes{2, 2, 3});
  CHECK_SAME(vmap(multiply, {0, nullopt})(x, y), x.unsqueeze(1) * y);
  CHECK_SAME(vmap(multiply, {nullopt, 0})(x, y), x * y.unsqueeze(1));
  CHECK_SAME(vmap(multiply, 1)(x, y), (x * y).t());
  CHECK_SAME(vmap(multiply, {-1, -1})(x, y), (x * y).t());
  CHECK_SAME(vmap(multiply, {1, 0})(x, numbers({3, 2})), x.t() * numbers({3, 2}));
  CHECK_SAME(vmap(multiply)(x, y), x * y);
}

TEST_CASE("an argument that is not mapped keeps its own axes") {
  auto f = [](const Tensor& v, const Tensor& shared) {
    CHECK(v.dim() == 0);
    CHECK(shared.sizes() == Sizes{5});
    return shared * v;
  };
  CHECK(vmap(f, {0, nullopt})(numbers({3}), numbers({5})).sizes() == Sizes{3, 5});
}

TEST_CASE("ranks are aligned per example, not with the mapped axis") {
  Tensor x = numbers({3}), m = numbers({3, 2, 2});
  Tensor r = vmap([](const Tensor& s, const Tensor& t) { return s + t; })(x, m);
  CHECK_SAME(r, x.reshape({3, 1, 1}) + m);
  Tensor v = numbers({2, 3});  // per example [3]; plus a captured [2, 1]
  Tensor c = numbers({2, 1});
  CHECK_SAME(vmap([&](const Tensor& t) { return t + c; })(v), v.unsqueeze(1) + c);
}

TEST_CASE("promotion uses the rank per example") {
  Tensor d = numbers({3}), f = ones({3, 2});
  CHECK(vmap(multiply)(d, f).dtype() == kFloat32);
}

TEST_CASE("out_dims: anywhere, negative, none") {
  Tensor x = numbers({2, 3, 4});
  auto same = [](const Tensor& v) { return v; };
  CHECK(vmap(same, 0, 1)(x).sizes() == Sizes{3, 2, 4});
  CHECK(vmap(same, 0, 2)(x).sizes() == Sizes{3, 4, 2});
  CHECK(vmap(same, 0, -1)(x).sizes() == Sizes{3, 4, 2});
  CHECK(vmap(same, 0, -3)(x).sizes() == Sizes{2, 3, 4});
  CHECK_SAME(vmap(same, 1, 2)(x), x.permute({0, 2, 1}));
  CHECK_THROWS_SAYING(vmap(same, 0, 3)(x), IndexError, "out_dims", "3");
  CHECK_THROWS_SAYING(vmap(same, 0, -4)(x), IndexError, "out_dims", "-4");
  Tensor shared = numbers({5});
  auto two = [&](const Tensor& v) { return std::pair(v, shared * 2); };
  auto [a, b] = vmap(two, 0, {0, nullopt})(x);
  CHECK_SAME(b, shared * 2);
  CHECK_THROWS_SAYING(vmap(two, 0, {nullopt, 0})(x), ValueError, "nullopt", "out_dims");
}

TEST_CASE("an identity with other axes is a view, not a copy") {
  Tensor x = numbers({2, 3, 4});
  Tensor y = vmap([](const Tensor& v) { return v; }, 0, 2)(x);
  CHECK(y.const_data_ptr<double>() == x.const_data_ptr<double>());
  CHECK(y.strides() == Sizes{4, 1, 12});
  Tensor z = vmap([](const Tensor& v) { return v.t(); })(x);
  CHECK(z.const_data_ptr<double>() == x.const_data_ptr<double>());
}

TEST_CASE("a result that does not depend on the mapped arguments is repeated, and writable") {
  auto f = [](const Tensor&) { return ones({4}); };
  Tensor y = vmap(f)(numbers({3}));
  CHECK(y.sizes() == Sizes{3, 4});
  CHECK(vmap(f, 0, -1)(numbers({3})).sizes() == Sizes{4, 3});
  y[0].add_(1);
  CHECK_VALUES(y[1], 1, 1, 1, 1);
  CHECK(vmap([](const Tensor& v) { return v.sum(); })(numbers({1, 2})).sizes() == Sizes{1});
}

// ---- trees

TEST_CASE("trees in and out") {
  Tensor x = numbers({3, 2});
  TensorDict d = {{"a", x}, {"b", x * 2}};
  TensorDict r = vmap([](const TensorDict& t) {
    return TensorDict{{"sum", t.at("a") + t.at("b")}, {"first", t.at("a")[0]}};
  })(d);
  CHECK(r.keys() == std::vector<std::string>{"sum", "first"});
  CHECK_SAME(r.at("sum"), x * 3);
  CHECK_SAME(r.at("first"), x.select(1, 0));

  auto v = vmap([](const std::vector<Tensor>& t) {
    return std::vector{t[1], t[0]};
  })(std::vector<Tensor>{x, x + 1});
  CHECK_SAME(v[0], x + 1);

  std::map<std::string, Tensor> m = {{"k", x}};
  CHECK_SAME(vmap([](const std::map<std::string, Tensor>& t) { return t.at("k") * 2; })(m), x * 2);

  Batch batch = {x, x * 3};
  Batch out = vmap([](const Batch& b) { return Batch{b.y, b.x}; })(batch);
  CHECK_SAME(out.x, x * 3);

  auto [p, q] = vmap([](const std::tuple<Tensor, std::pair<Tensor, Tensor>>& t) {
    return std::pair(std::get<0>(t), std::get<1>(t).second);
  })(std::tuple(x, std::pair(x * 2, x * 4)));
  CHECK_SAME(q, x * 4);

  std::optional<Tensor> maybe = x;
  auto has = [](const std::optional<Tensor>& t) { return t ? *t : zeros(1); };
  CHECK_SAME(vmap(has)(maybe), x);
  std::array<Tensor, 2> both = {x, x};
  CHECK_SAME(vmap([](const std::array<Tensor, 2>& t) { return t[0] + t[1]; })(both), x * 2);
}

TEST_CASE("in_dims and out_dims mirror the trees") {
  Tensor x = numbers({3, 2}), y = numbers({2, 3});
  auto f = [](const std::pair<Tensor, Tensor>& p, const Tensor& c) {
    return std::tuple(p.first + p.second, c.sum());
  };
  auto [a, b] = vmap(f, {{0, 1}, nullopt}, {1, nullopt})(std::pair(x, y), numbers({7}));
  CHECK_SAME(a, (x + y.t()).t());
  CHECK(b.dim() == 0);
  // A prefix stands for everything below it.
  auto g = [](const TensorDict& d, const std::vector<Tensor>& v) { return d.at("a") * v[1]; };
  CHECK_SAME(vmap(g, {1, nullopt})(TensorDict{{"a", y}}, std::vector<Tensor>{x, y[0][0]}),
             y.t() * y[0][0]);
}

TEST_CASE("values that are not tensors pass where in_dims has nullopt") {
  Tensor x = numbers({3});
  auto scale = [](const Tensor& v, double k, const std::string& how) {
    return how == "up" ? v * k : v / k;
  };
  CHECK_SAME(vmap(scale, {0, nullopt, nullopt})(x, 4.0, std::string("up")), x * 4);
  CHECK_THROWS_SAYING(vmap(scale)(x, 4.0, std::string("up")), ValueError, "not a tensor",
                      "in_dims");
  auto count = [](const Tensor& v) { return std::pair(v, 3); };
  CHECK(vmap(count, 0, {0, nullopt})(x).second == 3);
  CHECK_THROWS_SAYING(vmap(count)(x), ValueError, "not a tensor", "out_dims");
}

// ---- misuse

TEST_CASE("in_dims that do not fit") {
  Tensor x = numbers({2, 3});
  CHECK_THROWS_SAYING(vmap(multiply, {0, 0, 0})(x, x), ValueError, "in_dims", "structure", "2");
  CHECK_THROWS_SAYING(vmap(multiply, {{0, 0}, 0})(x, x), ValueError, "in_dims", "structure");
  CHECK_THROWS_SAYING(vmap(multiply, {nullopt, nullopt})(x, x), ValueError, "at least one");
  CHECK_THROWS_SAYING(vmap(multiply, nullopt)(x, x), ValueError, "at least one");
  CHECK_THROWS_SAYING(vmap(multiply, {2, 0})(x, x), ValueError, "axis 2", "[2, 3]");
  CHECK_THROWS_SAYING(vmap(multiply, {-3, 0})(x, x), ValueError, "axis -3");
  CHECK_THROWS_SAYING(vmap(multiply)(x, tensor(1.0)), ValueError, "axis 0", "[]");
  CHECK_THROWS_SAYING(vmap(multiply, {0, 1})(x, x), ValueError, "sizes 2, 3");
  CHECK_THROWS_SAYING(vmap([](const TensorDict& d) { return d.at("a"); })(
                          TensorDict{{"a", x}, {"b", numbers({3})}}),
                      ValueError, "sizes 2, 3");
  CHECK_THROWS_SAYING(vmap([](const TensorDict&) { return ones(1); })(TensorDict{}), ValueError,
                      "at least one");
  CHECK_THROWS_SAYING(vmap(multiply)(x, Tensor()), ValueError, "undefined");
}

TEST_CASE("out_dims that do not fit") {
  Tensor x = numbers({2, 3});
  auto two = [](const Tensor& v) { return std::pair(v, v); };
  CHECK_THROWS_SAYING(vmap(two, 0, {0, 0, 0})(x), ValueError, "out_dims", "structure");
  CHECK_THROWS_SAYING(vmap([](const Tensor& v) { return v; }, 0, {0, 0})(x), ValueError, "out_dims",
                      "structure");
  CHECK_THROWS_SAYING(vmap([](const Tensor&) { return Tensor(); })(x), ValueError, "undefined");
}

TEST_CASE("what needs values of one example is refused with advice") {
  Tensor x = numbers({3, 2});
  auto item = [](const Tensor& v) { return v * v.sum().item<double>(); };
  CHECK_THROWS_SAYING(vmap(item)(x), TransformError, "vmap", "where()");
  auto pointer = [](const Tensor& v) {
    v.data_ptr<double>();
    return v;
  };
  CHECK_THROWS_SAYING(vmap(pointer)(x), TransformError, "vmap");
  auto vector = [](const Tensor& v) { return tensor(v.to_vector<double>(), kFloat64); };
  CHECK_THROWS_SAYING(vmap(vector)(x), TransformError, "vmap");
  CHECK_THROWS_SAYING(vmap([](const Tensor& v) { return nonzero(v); })(x), TransformError,
                      "nonzero", "vmap");
  CHECK_THROWS_SAYING(vmap([](const Tensor& v) { return masked_select(v, v > 0); })(x),
                      TransformError, "vmap");
  CHECK_THROWS_SAYING(vmap([](const Tensor& v) { return v.index({v > 0}); })(x), TransformError,
                      "vmap");
  CHECK_THROWS_SAYING(vmap([](const Tensor& v) { return one_hot(v); })(x.to(kInt64)),
                      TransformError, "vmap");
  CHECK_NOTHROW(vmap([](const Tensor& v) { return one_hot(v, 3); })(tensor({{0, 1}, {2, 2}})));
  CHECK_THROWS_SAYING(vmap([](const Tensor& v) { return allclose(v, v) ? v : v; })(x),
                      TransformError, "vmap");
}

TEST_CASE("base autograd's calls are refused inside") {
  Tensor x = numbers({3, 2});
  auto f = [](auto act) {
    return [act](const Tensor& v) {
      act(v);
      return v;
    };
  };
  CHECK_THROWS_SAYING(vmap(f([](const Tensor& v) { v.requires_grad_(); }))(x), TransformError,
                      "requires_grad_", "vmap");
  CHECK_THROWS_SAYING(vmap(f([](const Tensor& v) { v.sum().backward(); }))(x), TransformError,
                      "backward", "func::grad");
  CHECK_THROWS_SAYING(vmap(f([](const Tensor& v) { v.retain_grad(); }))(x), TransformError,
                      "retain_grad");
  CHECK_THROWS_SAYING(vmap(f([](const Tensor& v) { autograd::grad({v}, {v}); }))(x), TransformError,
                      "grad");
  CHECK_FALSE(tutti::thread_state().current);
}

// ---- gathering, indexing, dtypes

TEST_CASE("indexing by mapped and shared indices") {
  Tensor x = numbers({3, 4}), rows = tensor({2, 0, 3});
  Tensor picked = vmap([](const Tensor& v, const Tensor& i) { return v.index({i}); })(x, rows);
  CHECK_SAME(picked, stack({x[0][2], x[1][0], x[2][3]}));
  Tensor table = numbers({4, 2});
  Tensor looked_up =
      vmap([&](const Tensor& i) { return table.index({i}); })(tensor({{0, 3}, {1, 1}}));
  CHECK_SAME(looked_up, table.index({tensor({{0, 3}, {1, 1}})}));
  Tensor g = vmap([](const Tensor& v, const Tensor& i) { return gather(v, 0, i); })(
      x, tensor({{0, 1}, {2, 2}, {3, 0}}));
  CHECK_VALUES(g[2], x[2][3].item<double>(), x[2][0].item<double>());
  Tensor mask = vmap([](const Tensor& v) { return where(v > 0, v, 0.0); })(x);
  CHECK_SAME(mask, x.relu());
}

// ---- nesting

TEST_CASE("nested vmaps, each with its own axes") {
  Tensor x = numbers({2, 3, 4}), y = numbers({4, 3, 2});
  auto inner = [](const Tensor& a, const Tensor& b) { return a * b; };
  // Outer maps axis 0 of x and 2 of y; inner axis 0 and 1: leaves vectors of size 4.
  Tensor r = vmap(
      [&](const Tensor& a, const Tensor& b) {
        CHECK(a.sizes() == Sizes{3, 4});
        CHECK(b.sizes() == Sizes{4, 3});
        return vmap(inner, {0, 1})(a, b);
      },
      {0, 2})(x, y);
  CHECK_SAME(r, x * y.permute({2, 1, 0}));
  // Outer product of two vectors by nesting.
  Tensor u = numbers({3}), w = numbers({5});
  Tensor outer_product =
      vmap([&](const Tensor& a) { return vmap([&](const Tensor& b) { return a * b; })(w); })(u);
  CHECK_SAME(outer_product, outer(u, w));
  // Three levels.
  Tensor three = vmap(
      [](const Tensor& a) {
        return vmap(
            [](const Tensor& b) { return vmap([](const Tensor& c) { return c * 2; }, 0, 0)(b); }, 1,
            1)(a);
      },
      2, 2)(x);
  CHECK_SAME(three, x * 2);
}

TEST_CASE("the inner level's axis is independent of the outer one's (B = other B)") {
  Tensor x = numbers({3, 3});  // equal sizes: a wrong axis would go unnoticed by shapes
  Tensor r =
      vmap([&](const Tensor& a) { return vmap([&](const Tensor& b) { return a - b; })(x); })(x);
  CHECK_SAME(r, x.unsqueeze(1) - x);
}

TEST_CASE("one tensor given twice, mapped over different axes") {
  Tensor x = numbers({3, 3});
  CHECK_SAME(vmap(multiply, {0, 1})(x, x), x * x.t());
}

TEST_CASE("a captured tensor that is returned as it is") {
  Tensor c = numbers({2});
  CHECK_SAME(vmap([&](const Tensor&) { return c; })(numbers({3})), stack({c, c, c}));
  CHECK(vmap([&](const Tensor&) { return c; }, 0, nullopt)(numbers({3})).is_same(c));
  auto [a, b] = vmap([](const Tensor& v) { return std::pair(v, v); })(numbers({3}));
  a.zero_();
  CHECK_SAME(vmap([](const Tensor& v) { return v; })(c), c);
}

TEST_CASE("many levels and many axes") {
  Tensor x = arange(512, kFloat64).reshape({2, 2, 2, 2, 2, 2, 2, 2, 2});
  std::function<Tensor(const Tensor&)> deep = [&](const Tensor& t) -> Tensor {
    if (t.dim() == 0) return t * t;
    return vmap(deep, -1, -1)(t);
  };
  CHECK_SAME(deep(x), x * x);
  CHECK_SAME(vmap(
                 [](const Tensor& t) {
                   return t.permute({7, 6, 5, 4, 3, 2, 1, 0}).sum(3);
                 },
                 4)(x),
             x.permute({4, 8, 7, 6, 5, 3, 2, 1, 0}).sum(4));
}

// ---- sizes

TEST_CASE("zero examples and one example") {
  int runs = 0;
  auto f = [&](const Tensor& v) {
    ++runs;
    return v.matmul(ones({4, 2}, kFloat64)).sum();
  };
  CHECK(vmap(f)(zeros({0, 3, 4}, kFloat64)).sizes() == Sizes{0});
  CHECK(runs == 1);
  CHECK(vmap(f)(ones({1, 3, 4}, kFloat64)).sizes() == Sizes{1});
  CHECK(vmap([](const Tensor& v) { return v; }, 0, 1)(zeros({0, 3})).sizes() == Sizes{3, 0});
}

TEST_CASE("chunks give the unchunked result") {
  Tensor x = numbers({7, 3}), w = numbers({3, 2});
  int runs = 0;
  auto f = [&](const Tensor& v, const Tensor& m) {
    ++runs;
    return std::pair(v.matmul(m).sin(), v.sum());
  };
  auto [a, b] = vmap(f, {0, nullopt}, {1, 0})(x, w);
  for (std::int64_t n : {1, 2, 3, 7, 100}) {
    runs = 0;
    auto [c, d] = vmap(f, {0, nullopt}, {1, 0}, VmapOptions().chunk_size(n))(x, w);
    CHECK(runs == (7 + n - 1) / n);
    CHECK_CLOSE(c, a, 1e-14);
    CHECK_CLOSE(d, b, 1e-14);
  }
  CHECK(vmap(f, {0, nullopt}, {1, 0}, VmapOptions().chunk_size(2))(zeros({0, 3}, kFloat64), w)
            .second.sizes() == Sizes{0});
  CHECK_THROWS_SAYING(VmapOptions().chunk_size(0), ValueError, "chunk_size", "0");
  CHECK_THROWS_SAYING(VmapOptions().chunk_size(-2), ValueError, "positive");
}

TEST_CASE("a mapped function is a value: copied, stored, called many times") {
  auto g = vmap([](const Tensor& v) { return v * 2; });
  auto h = g;
  const auto& k = h;
  CHECK_SAME(k(numbers({3})), g(numbers({3})));
  std::function<Tensor(Tensor)> stored = g;
  CHECK_SAME(stored(numbers({2})), numbers({2}) * 2);
  CHECK(g(ones(1)).sizes() == Sizes{1});
}

TEST_CASE("gradients flow through vmap to base leaves, mapped and captured") {
  Tensor x = numbers({3, 2}).requires_grad_(), w = numbers({2}).requires_grad_();
  Tensor y = vmap([&](const Tensor& v) { return (v * w).sum().square(); })(x);
  y.sum().backward();
  Tensor gx = x.grad(), gw = w.grad();
  x.mutable_grad() = Tensor();
  w.mutable_grad() = Tensor();
  (x * w).sum(1).square().sum().backward();
  CHECK_CLOSE(gx, x.grad(), 1e-14);
  CHECK_CLOSE(gw, w.grad(), 1e-14);
}

TEST_CASE("gradients flow through chunks") {
  Tensor x = numbers({5, 2}).requires_grad_(), w = numbers({2}).requires_grad_();
  vmap([&](const Tensor& v) { return (v * w).sum().square(); }, 0, 0,
       VmapOptions().chunk_size(2))(x)
      .sum()
      .backward();
  Tensor gx = x.grad(), gw = w.grad();
  x.mutable_grad() = Tensor();
  w.mutable_grad() = Tensor();
  (x * w).sum(1).square().sum().backward();
  CHECK_CLOSE(gx, x.grad(), 1e-14);
  CHECK_CLOSE(gw, w.grad(), 1e-14);
}

TEST_CASE("the dictionary of a mapped argument may be shared by nullopt") {
  TensorDict d = {{"w", numbers({2})}};
  Tensor r = vmap([](const TensorDict& t, const Tensor& v) { return t.at("w") * v; }, {nullopt, 0})(
      d, numbers({3}));
  CHECK(r.sizes() == Sizes{3, 2});
}
