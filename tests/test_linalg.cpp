// Linear algebra and einsum beyond the op table: what goes wrong and what the error says, singular
// matrices, which triangle is read, equal eigenvalues, threads, sizes 0.
#include <cmath>
#include <functional>
#include <limits>

#include <tutti/core/parallel.h>
#include <tutti/func/func.h>

#include "check.h"
#include "message.h"
#include "test.h"

using namespace tutti;
using func::grad;
using func::vmap;
using tutti_test::close;
using tutti_test::message;
using Function = std::function<Tensor(const Tensor&)>;

namespace {

#define CHECK_MESSAGE_IS(expression, ...) \
  CHECK(message([&] { static_cast<void>(expression); }) == std::string(__VA_ARGS__))

Tensor normals(IntArrayRef sizes, DType t = kFloat64) { return randn(sizes, t, Generator(11)); }
Tensor matrix(std::initializer_list<detail::NestedValues> values) {
  return tensor(values, kFloat64);
}
double nan_value() { return std::numeric_limits<double>::quiet_NaN(); }

}  // namespace

TEST_CASE("what a matrix must be") {
  const Tensor wide = ones({2, 3});
  CHECK_MESSAGE_IS(
      inverse(wide),
      "shape.inverse: [inverse] expected square matrices [..., n, n], got shape [2, 3]");
  CHECK_MESSAGE_IS(det(ones(3)), "shape.det: [det] expected matrices [..., m, n], got shape [3]");
  CHECK_MESSAGE_IS(svd(ones({2, 2}, kFloat16)),
                   "type.svd: [svd] expected float32 or float64, got float16, convert with "
                   "to(kFloat32)");
  CHECK_MESSAGE_IS(cholesky(ones({2, 2}, kInt64)),
                   "type.cholesky: [cholesky] expected float32 or float64, got int64, convert with "
                   "to(kFloat32)");
  CHECK_MESSAGE_IS(solve(eye(2), ones(2, kFloat64)),
                   "type.solve: [solve] expected operands of one dtype, got float32 and float64, "
                   "convert one with to()");
  CHECK_MESSAGE_IS(solve(eye(2), ones(3)),
                   "shape.solve: [solve] expected a right-hand side [..., 2, k] or [..., 2] for "
                   "matrices of shape [2, 2], got shape [3]");
  CHECK_MESSAGE_IS(eigh(eye(2), "X"),
                   "value.eigh: [eigh] expected UPLO \"L\" (read the lower triangle) or \"U\", got "
                   "\"X\"");
  CHECK_MESSAGE_IS(linalg_solve_triangular(eye(2), ones({2, 3}), true, false),
                   "shape.linalg_solve_triangular: [linalg_solve_triangular] expected a left-hand "
                   "side [..., k, 2] for matrices of shape [2, 2], got shape [2, 3]");
  // Shapes are those of one example.
  CHECK_MESSAGE_IS(
      vmap([](const Tensor& x) { return inverse(x); })(ones({5, 2, 3})),
      "shape.inverse: [inverse] expected square matrices [..., n, n], got shape [2, 3]"
      "; inside vmap, shapes are per example (mapped and not shown: axis 0 of size 5)");
}

TEST_CASE("a matrix that cannot be factored is named") {
  const std::string cure =
      " is 0); look for rows that depend on each other, or add a small multiple of eye(n)";
  const Tensor good = matrix({{2, 1}, {1, 3}}), bad = matrix({{1, 2}, {2, 4}});
  CHECK_MESSAGE_IS(inverse(bad),
                   "value.inverse: [inverse] expected an invertible matrix, got a singular one "
                   "(pivot 2" +
                       cure);
  const Tensor three = stack({good, good, bad}), six = stack({stack({good, good, good}), three});
  CHECK_MESSAGE_IS(
      solve(six, ones({2, 3, 2, 1}, kFloat64)),
      "value.solve: [solve] expected an invertible matrix, got a singular one at batch "
      "element [1, 2] (pivot 2" +
          cure);
  auto inv = [](const Tensor& x) { return inverse(x); };
  CHECK_MESSAGE_IS(vmap(inv)(three),
                   "value.inverse: [inverse] expected an invertible matrix, got a singular one of "
                   "example 2 of vmap (pivot 2" +
                       cure);
  CHECK_MESSAGE_IS(vmap(inv, 1)(six),
                   "value.inverse: [inverse] expected an invertible matrix, got a singular one of "
                   "example 2 of vmap, batch element [1] (pivot 2" +
                       cure);
  CHECK_MESSAGE_IS(vmap(vmap(inv))(six),
                   "value.inverse: [inverse] expected an invertible matrix, got a singular one of "
                   "example [1, 2] of the nested vmaps (pivot 2" +
                       cure);
  CHECK_MESSAGE_IS(vmap([](const Tensor& x) {
                     return grad([](const Tensor& y) { return inverse(y).sum(); })(x);
                   })(three),
                   "value.inverse: [inverse] expected an invertible matrix, got a singular one of "
                   "example 2 of vmap (pivot 2" +
                       cure);
  CHECK_MESSAGE_IS(
      vmap([](const Tensor& x) { return cholesky(x); })(stack({good, good - 3 * eye(2, kFloat64)})),
      "value.cholesky: [cholesky] expected a positive definite matrix, got one of example 1 of "
      "vmap whose leading minor of order 1 is not positive; check that it is symmetric, or add a "
      "small multiple of eye(n)");
  CHECK_MESSAGE_IS(cholesky(matrix({{1, 2, 0}, {2, 1, 0}, {0, 0, 1}})),
                   "value.cholesky: [cholesky] expected a positive definite matrix, got one whose "
                   "leading minor of order 2 is not positive; check that it is symmetric, or add a "
                   "small multiple of eye(n)");
  CHECK_MESSAGE_IS(svd(full({2, 2}, nan_value(), kFloat64)),
                   "value.svd: [svd] expected a matrix of finite values, got one for which the "
                   "iteration does not converge; look for NaN and infinities with isfinite()");
  CHECK_THROWS_AS(eigh(full({2, 2}, nan_value(), kFloat64)), ValueError);
}

TEST_CASE("symmetric ops read one triangle, triangular solves their own") {
  const Tensor a = normals({4, 4}), spd = a.matmul(a.mT()) + 4 * eye(4, kFloat64);
  const Tensor nans = full({4, 4}, nan_value(), kFloat64);
  const Tensor lower = spd.tril() + nans.triu(1).masked_fill(ones({4, 4}).tril().to(kBool), 0);
  REQUIRE(std::isnan(lower[0][3].item<double>()));
  const Tensor l = cholesky(spd);
  CHECK(close(l.matmul(l.mT()), spd, 1e-12));
  CHECK(close(cholesky(lower), l, 1e-13));
  CHECK(close(cholesky(lower.mT(), true), l.mT(), 1e-13));
  CHECK(close(std::get<0>(eigh(lower)), std::get<0>(eigh(spd)), 1e-12));
  CHECK(close(std::get<0>(eigh(lower.mT(), "U")), std::get<0>(eigh(spd)), 1e-12));
  const Tensor b = normals({4, 2});
  const Tensor x = linalg::solve_triangular(lower, b, false);
  CHECK(close(spd.tril().matmul(x), b, 1e-12));
  // The other triangle has no derivative.
  const Tensor g = grad(
      [&](const Tensor& t) { return linalg_solve_triangular(t, b, false).square().sum(); })(spd);
  CHECK(close(g.triu(1), zeros({4, 4}, kFloat64), 0));
  CHECK(g.tril().abs().amin({0, 1}).item<double>() == 0);  // of the upper part
  CHECK(g.diagonal().abs().amin({0}).item<double>() > 0);
}

TEST_CASE("gradients of symmetric ops are symmetric") {
  const Tensor a = normals({3, 3}), spd = a.matmul(a.mT()) + eye(3, kFloat64);
  for (const Tensor& g :
       {grad([](const Tensor& x) {
          return (cholesky(x) * tensor({1.0, 2.0, 5.0}).to(kFloat64)).sum();
        })(spd),
        grad([](const Tensor& x) { return std::get<1>(eigh(x)).pow(3).sum(); })(spd)})
    CHECK(close(g, g.mT(), 1e-12));
}

TEST_CASE("determinants of singular matrices have a gradient and a Hessian") {
  auto d = [](const Tensor& x) { return det(x); };
  const Tensor rank2 = matrix({{1, 2, 3}, {4, 5, 6}, {7, 8, 9}});
  CHECK(std::abs(det(rank2).item<double>()) < 1e-13);
  CHECK(close(grad(d)(rank2), matrix({{-3, 6, -3}, {6, -12, 6}, {-3, 6, -3}}), 1e-12));
  const Tensor rank1 = matrix({{1, 2, 3}, {2, 4, 6}, {3, 6, 9}});
  CHECK(close(grad(d)(rank1), zeros({3, 3}, kFloat64), 1e-12));
  CHECK(close(grad(d)(zeros({1, 1}, kFloat64)), ones({1, 1}, kFloat64), 0));
  // The second derivative along e, f is the coefficient that a determinant's expansion has; here by
  // differences of cofactors, which are polynomials of degree 2.
  const Tensor e = normals({3, 3});
  for (const Tensor& a : {rank2, rank1, zeros({3, 3}, kFloat64), rank2 + eye(3, kFloat64)}) {
    const auto along = [&](const Tensor& x) {
      return func::jvp(grad(d), std::tuple(x), std::tuple(e)).second;
    };
    auto cofactors = [](const Tensor& x) {  // cross products of rows
      auto cross = [](const Tensor& p, const Tensor& q) {
        return p.roll(-1, 0) * q.roll(-2, 0) - p.roll(-2, 0) * q.roll(-1, 0);
      };
      return stack({cross(x[1], x[2]), cross(x[2], x[0]), cross(x[0], x[1])});
    };
    const Tensor expected = (cofactors(a + e) - cofactors(a - e)) * 0.5;
    CHECK(close(along(a), expected, 1e-10));
    CHECK(close(grad([&](const Tensor& x) { return (grad(d)(x) * e).sum(); })(a), expected, 1e-10));
    CHECK(close(vmap(along)(stack({a, a}))[1], expected, 1e-10));
  }
  // Third derivatives at the identity, whose singular values are equal: 6 det(t) along t, t, t.
  const Function f = [&](const Tensor& s) { return det(eye(3, kFloat64) + s * e); };
  auto next = [](const Function& h) {
    return Function([h](const Tensor& s) { return grad(h)(s); });
  };
  CHECK(next(next(next(f)))(scalar_tensor(0, kFloat64)).item<double>() ==
        doctest::Approx(6 * det(e).item<double>()).epsilon(1e-10));
}

TEST_CASE("slogdet of large and singular matrices") {
  const Tensor big = eye(400, kFloat64) * 1e3;
  CHECK(std::isinf(det(big).item<double>()));
  CHECK(std::get<1>(slogdet(big)).item<double>() == doctest::Approx(400 * std::log(1e3)));
  const auto [sign, log] = slogdet(ones({2, 2}));
  CHECK(sign.item<double>() == 0);
  CHECK(log.item<double>() == -std::numeric_limits<double>::infinity());
  // The sign is constant.
  auto only_sign = [](const Tensor& x) { return std::get<0>(slogdet(x)); };
  CHECK(equal(grad(only_sign)(eye(2)), zeros({2, 2})));
}

TEST_CASE("equal eigenvalues: values can be differentiated, single vectors cannot") {
  auto values = [](const Tensor& x) { return std::get<0>(eigh(x)).sum(); };
  CHECK(close(grad(values)(eye(3, kFloat64)), eye(3, kFloat64), 1e-14));
  const Tensor g =
      grad([](const Tensor& x) { return std::get<1>(eigh(x)).pow(3).sum(); })(eye(2, kFloat64));
  CHECK_FALSE(std::isfinite(g.sum().item<double>()));
  auto singular = [](const Tensor& x) { return std::get<1>(svd(x)).sum(); };
  CHECK(close(grad(singular)(eye(3, kFloat64)), eye(3, kFloat64), 1e-14));
}

TEST_CASE("sizes 0") {
  const Tensor none = zeros({0, 0}), batch = zeros({0, 3, 3});
  CHECK(det(none).item<double>() == 1);
  CHECK(std::get<0>(slogdet(none)).item<double>() == 1);
  CHECK(std::get<1>(slogdet(none)).item<double>() == 0);
  CHECK(det(zeros({2, 0, 0})).sizes() == IntArrayRef({2}));
  CHECK(close(det(zeros({2, 0, 0})), ones(2)));
  CHECK(solve(none, zeros({0, 4})).sizes() == IntArrayRef({0, 4}));
  CHECK(solve(eye(3), zeros({3, 0})).sizes() == IntArrayRef({3, 0}));
  CHECK(inverse(batch).sizes() == IntArrayRef({0, 3, 3}));
  const auto [q, r] = qr(zeros({3, 0}));
  CHECK(q.sizes() == IntArrayRef({3, 0}));
  CHECK(r.sizes() == IntArrayRef({0, 0}));
  const auto [u, s, v] = svd(zeros({2, 0, 3}));
  CHECK(u.sizes() == IntArrayRef({2, 0, 0}));
  CHECK(s.sizes() == IntArrayRef({2, 0}));
  CHECK(v.sizes() == IntArrayRef({2, 3, 0}));
}

TEST_CASE("larger stacks: identities, and the same bits for any number of threads") {
  for (DType t : {kFloat64, kFloat32}) {
    CAPTURE(name_of(t));
    const double tol = t == kFloat64 ? 1e-11 : 2e-3;
    const std::int64_t n = 70;
    const Tensor a = normals({9, n, n}, t), tall = normals({9, n, 40}, t);
    const Tensor spd = a.matmul(a.mT()) / static_cast<double>(n) + eye(n, t),
                 b = normals({9, n, 3}, t);
    auto all = [&] {
      std::vector<Tensor> out{cholesky(spd), solve(a, b), inverse(spd), det(spd / 2),
                              linalg_solve_triangular(spd, b, true)};
      const auto [sign, log] = slogdet(a);
      const auto [q, r] = qr(tall);
      const auto [w, v] = eigh(spd);
      const auto [u, s, x] = svd(tall);
      for (const Tensor& y : {sign, log, q, r, w, v, u, s, x}) out.push_back(y);
      return out;
    };
    const int threads = num_threads();
    set_num_threads(1);
    const auto one = all();
    set_num_threads(5);
    const auto five = all();
    set_num_threads(threads);
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(equal(one[i], five[i]));
    CHECK(close(one[0].matmul(one[0].mT()), spd, tol));
    CHECK(close(a.matmul(one[1]), b, tol));
    CHECK(close(spd.matmul(one[2]), eye(n, t).expand({9, n, n}), tol));
    CHECK(close(one[7].matmul(one[8]), tall, tol));
    CHECK(close(one[7].mT().matmul(one[7]), eye(40, t).expand({9, 40, 40}), tol));
    CHECK(close((one[10] * one[9].unsqueeze(-2)).matmul(one[10].mT()), spd, tol));
    CHECK(close((one[11] * one[12].unsqueeze(-2)).matmul(one[13].mT()), tall, tol));
  }
}

TEST_CASE("one matrix, many right-hand sides under vmap") {
  const Tensor a = normals({4, 4}), b = normals({4, 6, 2}), c = normals({3, 4, 5});
  auto f = [&](const Tensor& rhs) { return solve(a, rhs); };
  const Tensor x = vmap(f, 1)(b);
  for (int k = 0; k < 6; ++k) CHECK(close(x[k], solve(a, b.select(1, k)), 1e-12));
  const Tensor y = vmap(vmap(f, 1), 0)(c);
  CHECK(close(y, solve(a, c).mT(), 1e-12));
}

TEST_CASE("torch.linalg's names") {
  const Tensor a = normals({3, 3}), spd = a.matmul(a.mT()) + eye(3, kFloat64);
  CHECK(equal(linalg::cholesky(spd), cholesky(spd)));
  CHECK(equal(linalg::inv(a), a.inverse()));
  CHECK(equal(linalg::solve(a, spd), a.solve(spd)));
  CHECK(equal(linalg::det(a), a.det()));
  const auto [u, s, vh] = linalg::svd(normals({4, 2}));
  CHECK(close((u * s).matmul(vh), normals({4, 2}), 1e-12));
  const auto [w, v] = linalg::eigh(spd);
  CHECK(close(spd.matmul(v), v * w, 1e-12));
  const auto [q, r] = linalg::qr(a);
  CHECK(close(q.matmul(r), a, 1e-12));
  CHECK(equal(std::get<1>(linalg::slogdet(a)), std::get<1>(a.slogdet())));
}

TEST_CASE("einsum: what is wrong, where, and what to do") {
  const Tensor a = ones({2, 3}), b = ones({4, 5});
  const std::string rules = "\"; write letters, commas, \"...\" and at most one \"->\"";
  CHECK_MESSAGE_IS(
      einsum("ij,j1->i", {a, b}),
      "value.einsum: [einsum] unexpected character '1' at position 4 of \"ij,j1->i" + rules);
  CHECK_MESSAGE_IS(
      einsum("i..j", {a}),
      "value.einsum: [einsum] unexpected character '.' at position 1 of \"i..j" + rules);
  CHECK_MESSAGE_IS(
      einsum("...i...", {a}),
      "value.einsum: [einsum] second \"...\" in one term at position 4 of \"...i..." + rules);
  CHECK_MESSAGE_IS(einsum("ij->i->j", {a}),
                   "value.einsum: [einsum] second \"->\" at position 5 of \"ij->i->j" + rules);
  CHECK_MESSAGE_IS(einsum("ij->i,j", {a}),
                   "value.einsum: [einsum] ',' in the output at position 5 of \"ij->i,j" + rules);
  CHECK_MESSAGE_IS(
      einsum("ij->ii", {a}),
      "value.einsum: [einsum] letter 'i' appears twice in the output at position 5 of \"ij->ii" +
          rules);
  CHECK_MESSAGE_IS(
      einsum("ij,jk", {a}),
      "value.einsum: [einsum] expected as many operands as \"ij,jk\" has terms (2), got "
      "1; separate terms by ','");
  CHECK_MESSAGE_IS(einsum("ijk", {a}),
                   "value.einsum: [einsum] expected 3 axes in operand 0 (term 0 of \"ijk\"), got "
                   "shape [2, 3]; name every axis, or use \"...\" for those without a letter");
  CHECK_MESSAGE_IS(einsum("ij,jk->ik", {a, b}),
                   "value.einsum: [einsum] expected size 3 for 'j' as in an earlier operand of "
                   "\"ij,jk->ik\", got 4: operand 1 has shape [4, 5]");
  CHECK_MESSAGE_IS(einsum("ii", {a}),
                   "value.einsum: [einsum] expected equal sizes of 'i', which operand 0 repeats in "
                   "\"ii\", got shape [2, 3]");
  CHECK_MESSAGE_IS(einsum("ij->ik", {a}),
                   "value.einsum: [einsum] letter 'k' of the output of \"ij->ik\" names no axis of "
                   "an operand; remove it, or use it in a term");
  CHECK_MESSAGE_IS(einsum("...i,...i", {ones({2, 5}), ones({3, 5})}),
                   "value.einsum: [einsum] expected size 2 for \"...\" as in an earlier operand of "
                   "\"...i,...i\", got 3: operand 1 has shape [3, 5]");
  CHECK_MESSAGE_IS(einsum("i", {}),
                   "value.einsum: [einsum] expected at least one operand, got none");
  CHECK_MESSAGE_IS(einsum("i,i", {ones(2), ones(2, kFloat64)}),
                   "type.einsum: [einsum] expected operands of one dtype, got float32 and float64, "
                   "convert one with to()");
}

TEST_CASE("einsum: forms that are easily forgotten") {
  const Tensor a = normals({3, 4}), s = scalar_tensor(2, kFloat64);
  CHECK(equal(einsum("", {s}), s));
  CHECK(equal(einsum(",->", {s, s}), s * s));
  CHECK(equal(einsum("ij,", {a, s}), a * 2));
  CHECK(equal(einsum(" i j -> j i ", {a}), a.t()));
  CHECK(equal(einsum("aB", {a}), a.t()));  // capitals come first
  CHECK(equal(einsum("...", {a}), a));
  CHECK(equal(einsum("...->...", {a}), a));
  CHECK(close(einsum("ii->i", {a.narrow(1, 0, 3)}), a.diagonal(), 0));
  CHECK(close(einsum("ij...->...", {normals({3, 4, 2})}), normals({3, 4, 2}).sum({0, 1}), 1e-13));
  // An axis of size 1 broadcasts, also where it is summed.
  CHECK(close(einsum("ij,jk->ik", {ones({2, 1}, kFloat64), a}), a.sum(0).expand({2, 4}), 1e-13));
  CHECK(einsum("ij,jk->ik", {zeros({2, 0}), zeros({0, 3})}).sum().item<double>() == 0);
  // A chain is contracted in a cheap order: from the left this one needs 10^10 numbers.
  const std::int64_t n = 100000;
  const Tensor x = ones(n);
  CHECK(einsum("i,j,j->i", {x, x, x}).sizes() == IntArrayRef({n}));
}
