// Products: the rules that choose a cuBLAS call, and the calls that layers become.
#include <tutti/autograd/autograd.h>
#include <tutti/core/interpreter.h>
#include <tutti/core/ops/records.h>
#include <tutti/cuda/gemm_rules.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "../test.h"
#include "gpu.h"

using namespace tutti;
using namespace tutti_test;
using tutti::cuda::GemmPlan;

namespace {

using Kind = GemmPlan::Kind;

/// [batch..., m, k] x [batch..., k, n] with these strides.
GemmPlan plan(Shape batch, std::int64_t m, std::int64_t n, std::int64_t k, kernels::Matrices a,
              kernels::Matrices b) {
  kernels::Gemm g;
  g.m = m;
  g.n = n;
  g.k = k;
  g.batch = batch;
  g.a = a;
  g.b = b;
  return cuda::plan_gemm(g);
}

}  // namespace

TEST_CASE("rules of products") {
  const void* none = nullptr;
  {  // one product, row-major
    const GemmPlan p = plan({}, 2, 3, 4, {none, {}, 4, 1}, {none, {}, 3, 1});
    CHECK(p.kind == Kind::plain);
    CHECK((p.m == 2 && p.n == 3 && p.k == 4));
    CHECK(p.a == cuda::GemmOperand{false, 4, 0});
    CHECK(p.b == cuda::GemmOperand{false, 3, 0});
  }
  {  // a transposed weight is no copy
    const GemmPlan p = plan({}, 2, 3, 4, {none, {}, 4, 1}, {none, {}, 1, 4});
    CHECK(p.b == cuda::GemmOperand{true, 4, 0});
    CHECK(!p.pack_b);
  }
  {  // stacked operands
    const GemmPlan p = plan({5}, 2, 3, 4, {none, {8}, 4, 1}, {none, {12}, 1, 4});
    CHECK(p.kind == Kind::strided);
    CHECK(p.batch == 5);
    CHECK((p.a.stride == 8 && p.b.stride == 12));
  }
  {  // a shared input is read again, not copied
    const GemmPlan p = plan({5}, 2, 3, 4, {none, {0}, 4, 1}, {none, {12}, 1, 4});
    CHECK(p.kind == Kind::strided);
    CHECK((p.a.stride == 0 && !p.pack_a));
  }
  {  // a shared weight folds the members into rows
    const GemmPlan p = plan({5}, 2, 3, 4, {none, {8}, 4, 1}, {none, {0}, 1, 4});
    CHECK(p.kind == Kind::plain);
    CHECK(p.m == 10);
  }
  {  // ... also where each member has one row
    const GemmPlan p = plan({5}, 1, 3, 4, {none, {9}, 4, 1}, {none, {0}, 1, 4});
    CHECK(p.kind == Kind::plain);
    CHECK((p.m == 5 && p.a.leading == 9));
  }
  {  // two batch axes that are one in memory
    const GemmPlan p = plan({2, 5}, 2, 3, 4, {none, {40, 8}, 4, 1}, {none, {60, 12}, 3, 1});
    CHECK(p.kind == Kind::strided);
    CHECK(p.batch == 10);
  }
  {  // two that are not
    const GemmPlan p = plan({2, 5}, 2, 3, 4, {none, {40, 8}, 4, 1}, {none, {0, 12}, 3, 1});
    CHECK(p.kind == Kind::pointers);
    CHECK(p.batch == 10);
  }
  {  // rows of steps, and rows that repeat, are packed
    const GemmPlan p = plan({}, 2, 3, 4, {none, {}, 8, 2}, {none, {}, 0, 1});
    CHECK((p.pack_a && p.pack_b));
    CHECK(p.kind == Kind::plain);
  }
  CHECK(plan({5}, 2, 3, 0, {none, {0}, 0, 1}, {none, {0}, 3, 1}).kind == Kind::nothing);
  CHECK(plan({}, 0, 3, 4, {none, {}, 4, 1}, {none, {}, 3, 1}).kind == Kind::nothing);
}

TEST_CASE("products of every layout") {
  manual_seed(1);
  const Tensor a = randn({3, 4, 5}), b = randn({3, 5, 6});
  const auto check_product = [](const Tensor& x, const Tensor& y, double tol = 1e-5) {
    CHECK(close(matmul(x.to(kCUDA), y.to(kCUDA)).cpu(), matmul(x, y), tol));
  };
  check_product(a, b);
  for (bool ta : {false, true})
    for (bool tb : {false, true}) {
      const Tensor x = (ta ? a.mT().contiguous() : a).to(kCUDA);
      const Tensor y = (tb ? b.mT().contiguous() : b).to(kCUDA);
      CHECK(close(matmul(ta ? x.mT() : x, tb ? y.mT() : y).cpu(), matmul(a, b), 1e-5));
    }
  const Tensor ga = a.to(kCUDA), gb = b.to(kCUDA);
  CHECK(close(matmul(ga[0].expand({3, 4, 5}), gb).cpu(), matmul(a[0].expand({3, 4, 5}), b), 1e-5));
  CHECK(close(matmul(ga, gb[1].expand({3, 5, 6})).cpu(), matmul(a, b[1].expand({3, 5, 6})), 1e-5));
  CHECK(close(matmul(ga.slice(2, 0, 5, 2), gb.slice(1, 0, 5, 2)).cpu(),
              matmul(a.slice(2, 0, 5, 2), b.slice(1, 0, 5, 2)), 1e-5));
  CHECK(close(matmul(ga.unsqueeze(0).expand({2, 3, 4, 5}),
                     gb.unsqueeze(1).expand({3, 2, 5, 6}).transpose(0, 1))
                  .cpu(),
              matmul(a.unsqueeze(0).expand({2, 3, 4, 5}), b.unsqueeze(0).expand({2, 3, 5, 6})),
              1e-5));
  check_product(a.to(kFloat64), b.to(kFloat64), 1e-12);
  check_product(a.to(kFloat16), b.to(kFloat16), 2e-2);
  check_product(a.to(kBFloat16), b.to(kBFloat16), 1e-1);
  check_product((a * 3).to(kInt32), (b * 3).to(kInt32), 0);
  check_product(zeros({2, 0}), zeros({0, 3}));
}

TEST_CASE("a stacked layer is one product forward and two backward; nothing shared is copied") {
  if (!Executor::present()) return;  // counts what cuBLAS was asked for
  const Tensor w = randn({3, 4, 5}).to(kCUDA), bias = randn({3, 4}).to(kCUDA);
  for (bool shared : {false, true}) {
    const Tensor x = (shared ? randn({7, 5}) : randn({3, 7, 5})).to(kCUDA);
    const Dims data = shared ? Dims(std::nullopt) : Dims(0);
    cuda::synchronize();
    Executor::clear_logs();
    func::vmap(
        [](const Tensor& wi, const Tensor& bi, const Tensor& xi) { return linear(xi, wi, bi); },
        {0, 0, data})(w, bias, x);
    auto products = Executor::products();
    REQUIRE(products.size() == 1);
    CHECK(field(products[0], "count") == "3");
    CHECK(products[0].find("stride=0") ==
          (shared ? products[0].find("stride=0") : std::string::npos));
    CHECK(Executor::launches().size() == 1);  // the bias

    Executor::clear_logs();
    const auto loss = [](const Tensor& wi, const Tensor& xi, const Tensor& bi) {
      return linear(xi, wi, bi).square().sum();
    };
    func::vmap(func::grad<0, 1>(loss), {0, data, 0})(w, x, bias);
    products = Executor::products();
    REQUIRE(products.size() == 3);
    for (const std::string& launch : Executor::launches())
      CHECK(launch.find("Same") == std::string::npos);  // the copy kernel
  }
}

TEST_CASE("products with relu's derivative and the sums of rows, as one kernel more") {
  manual_seed(3);
  const auto check_one = [](const Shape& batch, std::int64_t m, std::int64_t n, std::int64_t k,
                            DType t) {
    const auto shaped = [&](std::int64_t rows, std::int64_t columns) {
      Shape s = batch;
      s.push_back(rows);
      s.push_back(columns);
      return s;
    };
    const auto values = [&](const Shape& s) { return randn(s, kFloat64).to(t); };
    const Tensor a = values(shaped(m, k)), b = values(shaped(k, n)), y = values(shaped(m, n));
    const Tensor want = run1(relu_grad_op, {matmul(a, b), y});
    const double tolerance = t == kFloat64 ? 1e-12 : 1e-5;
    const Tensors in{a.to(kCUDA), b.to(kCUDA), y.to(kCUDA)};
    for (const bool sums : {false, true}) {
      Tensors out{empty(shaped(m, n), in[0].options())};
      Shape columns = batch;
      columns.push_back(n);
      if (sums) out.push_back(empty(columns, in[0].options()));
      Executor::clear_logs();
      run_kernel(bmm_relu_grad_op, Inputs(in.data(), in.size()), Inputs(out.data(), out.size()),
                 Attrs::none(), false);
      if (Executor::present()) {
        CHECK(Executor::products().size() == (k > 0 ? 1 : 0));
        CHECK(Executor::launches().size() == 1);
      }
      CHECK(close(out[0].cpu(), want, tolerance));
      if (sums) CHECK(close(out[1].cpu(), want.sum(-2), 10 * tolerance));
    }
  };
  for (const DType t : {kFloat32, kFloat64}) {
    check_one({3}, 7, 5, 4, t);
    check_one({}, 1, 33, 6, t);
    check_one({2, 2}, 100, 70, 3, t);
    check_one({4}, 9, 1, 2, t);
    check_one({2}, 3, 4, 0, t);
  }
}

TEST_CASE("a compiled layer's backward pass is two products with one kernel between layers") {
  if (!Executor::present()) return;  // counts
  const NoGradGuard guard;
  const auto loss = [](const Tensor& w, const Tensor& b, const Tensor& x) {
    return linear(linear(x, w, b).relu(), w, b).square().sum();
  };
  const auto f = func::vmap(func::grad<0, 1>(loss), {0, 0, std::nullopt});
  const auto compiled = func::compile(f, CompileOptions().cuda_graphs(false));
  const Tensor w = randn({3, 8, 8}).to(kCUDA), b = randn({3, 8}).to(kCUDA);
  const Tensor x = randn({6, 8}).to(kCUDA);
  const auto [want_w, want_b] = f(w, b, x);
  compiled(w, b, x);
  Executor::clear_logs();
  const auto [got_w, got_b] = compiled(w, b, x);
  CHECK(close(got_w.cpu(), want_w.cpu(), 1e-4));
  CHECK(close(got_b.cpu(), want_b.cpu(), 1e-4));
  CHECK(compiled.text().find("= matmul+relu_grad+sum(") != std::string::npos);
  CHECK(Executor::products().size() == 5);  // two forward, three backward: x has no gradient
  std::size_t fused = 0, alone = 0;
  for (const std::string& launch : Executor::launches()) {
    fused += launch.find("finish_and_sum") != std::string::npos;
    alone += launch.find("ReluGrad") != std::string::npos;
  }
  CHECK(fused == 1);
  CHECK(alone == 0);
}
