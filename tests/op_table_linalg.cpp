// Rows of core/ops/linalg.cpp and einsum.cpp. References: elimination, Gram-Schmidt and Jacobi
// rotations in double. Factors that are unique up to signs get the signs of one of their diagonals.
#include <algorithm>
#include <numeric>

#include "op_table.h"

namespace tutti_test {

using namespace tutti;

namespace {

// ---- plain matrices

/// f on every matrix of a stack; results have the stack's leading axes.
Arrays each_matrix(const Array& a, const std::function<Arrays(const Array&)>& f) {
  if (a.rank() == 2) return f(a);
  std::vector<Arrays> parts;
  for (std::int64_t b = 0; b < a.shape[0]; ++b) parts.push_back(each_matrix(member(a, 0, b), f));
  Arrays out;
  for (std::size_t o = 0; o < parts[0].size(); ++o) {
    Arrays column;
    for (const Arrays& p : parts) column.push_back(p[o]);
    out.push_back(stack(column, 0, column[0].shape));
  }
  return out;
}

Array transposed(const Array& a) { return permuted(a, {1, 0}); }
Array identity(std::int64_t n) {
  return make({n, n}, [](const Index& i) { return i[0] == i[1] ? 1.0 : 0.0; });
}
Array symmetric_part(const Array& a) {
  return make(a.shape, [&](const Index& i) { return (a.at(i) + a.at({i[1], i[0]})) / 2; });
}

/// Gauss-Jordan elimination with row exchanges: x with a x = b, and a's determinant.
std::pair<Array, double> eliminated(Array a, Array b) {
  const std::int64_t n = a.shape[0], k = b.shape[1];
  double det = 1;
  for (std::int64_t c = 0; c < n; ++c) {
    std::int64_t best = c;
    for (std::int64_t r = c; r < n; ++r)
      if (std::abs(a.at({r, c})) > std::abs(a.at({best, c}))) best = r;
    if (best != c) {
      det = -det;
      for (std::int64_t j = 0; j < n; ++j) std::swap(a.at({c, j}), a.at({best, j}));
      for (std::int64_t j = 0; j < k; ++j) std::swap(b.at({c, j}), b.at({best, j}));
    }
    const double p = a.at({c, c});
    det *= p;
    for (std::int64_t r = 0; r < n; ++r) {
      const double factor = r == c ? 0 : a.at({r, c}) / p;
      for (std::int64_t j = 0; j < n; ++j) a.at({r, j}) -= factor * a.at({c, j});
      for (std::int64_t j = 0; j < k; ++j) b.at({r, j}) -= factor * b.at({c, j});
    }
  }
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < k; ++j) b.at({i, j}) /= a.at({i, i});
  return {b, det};
}
Array solved(const Array& a, const Array& b) { return eliminated(a, b).first; }
double determinant(const Array& a) { return eliminated(a, identity(a.shape[0])).second; }

Array cholesky_of(const Array& a) {
  Array l = make(a.shape, [](const Index&) { return 0.0; });
  for (std::int64_t i = 0; i < a.shape[0]; ++i)
    for (std::int64_t j = 0; j <= i; ++j) {
      double s = a.at({i, j});
      for (std::int64_t k = 0; k < j; ++k) s -= l.at({i, k}) * l.at({j, k});
      l.at({i, j}) = i == j ? std::sqrt(s) : s / l.at({j, j});
    }
  return l;
}

Array triangle_of(const Array& a, bool upper, bool unit) {
  return make(a.shape, [&](const Index& i) {
    if (i[0] == i[1]) return unit ? 1.0 : a.at(i);
    return (i[0] < i[1]) == upper ? a.at(i) : 0.0;
  });
}

/// Gram-Schmidt, twice over; R has a positive diagonal.
Arrays qr_of(const Array& a) {
  const std::int64_t m = a.shape[0], k = std::min(m, a.shape[1]);
  Array q = sliced(a, 1, 0, k);
  for (std::int64_t j = 0; j < k; ++j)
    for (int pass = 0; pass < 2; ++pass) {
      for (std::int64_t p = 0; p < j; ++p) {
        double s = 0;
        for (std::int64_t i = 0; i < m; ++i) s += q.at({i, p}) * q.at({i, j});
        for (std::int64_t i = 0; i < m; ++i) q.at({i, j}) -= s * q.at({i, p});
      }
      double norm = 0;
      for (std::int64_t i = 0; i < m; ++i) norm += q.at({i, j}) * q.at({i, j});
      for (std::int64_t i = 0; i < m; ++i) q.at({i, j}) /= std::sqrt(norm);
    }
  Array r = matrix_product(transposed(q), a);
  for (std::int64_t i = 0; i < k; ++i)
    for (std::int64_t j = 0; j < i; ++j) r.at({i, j}) = 0;
  return {q, r};
}

/// Cyclic Jacobi rotations: eigenvalues in the given order and vectors with a positive diagonal.
Arrays eigen_of(Array a, bool descending) {
  const std::int64_t n = a.shape[0];
  Array v = identity(n);
  const auto m = [n](Array& x, std::int64_t i, std::int64_t j) -> double& {
    return x.data[static_cast<std::size_t>(i * n + j)];
  };
  auto rotate = [](double& x, double& y, double c, double s) {
    const double old = x;
    x = c * old - s * y;
    y = s * old + c * y;
  };
  for (int sweep = 0; sweep < 30; ++sweep) {
    double off = 0;
    for (std::int64_t p = 0; p < n; ++p)
      for (std::int64_t q = p + 1; q < n; ++q) {
        off += std::abs(m(a, p, q));
        if (std::abs(m(a, p, q)) < 1e-300) continue;
        const double theta = (m(a, q, q) - m(a, p, p)) / (2 * m(a, p, q));
        const double t = (theta < 0 ? -1 : 1) / (std::abs(theta) + std::hypot(theta, 1.0));
        const double c = 1 / std::hypot(t, 1.0), s = t * c;
        for (std::int64_t k = 0; k < n; ++k) rotate(m(a, p, k), m(a, q, k), c, s);
        for (std::int64_t k = 0; k < n; ++k) rotate(m(a, k, p), m(a, k, q), c, s);
        for (std::int64_t k = 0; k < n; ++k) rotate(m(v, k, p), m(v, k, q), c, s);
      }
    if (off < 1e-200) break;
  }
  Index order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::int64_t i, std::int64_t j) {
    return (a.at({i, i}) < a.at({j, j})) != descending;
  });
  auto at = [&](std::int64_t j) { return order[static_cast<std::size_t>(j)]; };
  return {make({n},
               [&](const Index& i) {
                 return a.at({at(i[0]), at(i[0])});
               }),
          make({n, n}, [&](const Index& i) {
            return v.at({i[0], at(i[1])}) * (v.at({i[1], at(i[1])}) < 0 ? -1 : 1);
          })};
}

/// U, S, V by the eigenvectors of a^T a; U's diagonal is positive.
Arrays svd_of(const Array& a) {
  const std::int64_t m = a.shape[0], n = a.shape[1];
  if (m < n) {
    const Arrays t = svd_of(transposed(a));
    Array u = t[2], v = t[0];
    for (std::int64_t j = 0; j < m; ++j) {
      const double sign = u.at({j, j}) < 0 ? -1 : 1;
      for (std::int64_t i = 0; i < m; ++i) u.at({i, j}) *= sign;
      for (std::int64_t i = 0; i < n; ++i) v.at({i, j}) *= sign;
    }
    return {u, t[1], v};
  }
  const Arrays e = eigen_of(matrix_product(transposed(a), a), true);
  const Array s = make({n}, [&](const Index& i) { return std::sqrt(e[0].at(i)); });
  Array v = e[1], u = matrix_product(a, v);
  for (std::int64_t j = 0; j < n; ++j) {
    const double sign = u.at({j, j}) < 0 ? -1 : 1;
    for (std::int64_t i = 0; i < m; ++i) u.at({i, j}) *= sign / s.at({j});
    for (std::int64_t i = 0; i < n; ++i) v.at({i, j}) *= sign;
  }
  return {u, s, v};
}

// ---- the functions under test

Tensor symmetric(const Tensor& x) { return (x + x.mT()) * 0.5; }
/// x with first, first + step, ... added to its diagonal, so that values differ.
Tensor spread(const Tensor& x, double step) {
  const std::int64_t k = std::min(x.size(-1), x.size(-2));
  Tensor ramp = arange(k, x.options()) * std::abs(step);
  if (step < 0) ramp = ramp.flip(0);
  return x + eye(x.size(-2), k, x.options())
                 .matmul(ramp.unsqueeze(1) * eye(k, x.size(-1), x.options()));
}
Array spread(const Array& a, double step) {
  const std::int64_t k = std::min(a.shape[0], a.shape[1]);
  return make(a.shape, [&](const Index& i) {
    const std::int64_t place = step < 0 ? k - 1 - i[0] : i[0];
    return a.at(i) + (i[0] == i[1] ? static_cast<double>(place) * std::abs(step) : 0);
  });
}
/// The signs of x's diagonal, as a row.
Tensor signs(const Tensor& x) {
  const Tensor d = x.detach().diagonal(0, -2, -1);
  return where(d < 0, full_like(d, -1), ones_like(d)).unsqueeze(-2);
}
Values signed_qr(const Tensor& x) {
  const auto [q, r] = qr(x);
  const Tensor s = signs(r);
  return {q * s, r * s.mT()};
}
Values signed_eigh(const Tensor& x, std::string_view uplo) {
  const auto [w, v] = eigh(x, uplo);
  return {w, v * signs(v)};
}
Values signed_svd(const Tensor& x) {
  const auto [u, s, v] = svd(x);
  return {u * signs(u), s, v * signs(u)};
}

}  // namespace

void linalg_rows(Table& t) {
  const In square = near_identity({3, 3}), stack = near_identity({2, 3, 3});
  const In many = near_identity({4, 2, 3, 3});
  auto one = [](auto f) { return [f](const Array& a) { return Arrays{f(a)}; }; };

  // ---- factorisations
  t.row("cholesky", {square}, FN(cholesky(symmetric(v[0]))))
      .ref(REF(cholesky_of(symmetric_part(a[0]))))
      .no_half()
      .loose(20);
  t.row("cholesky of a stack", {many}, FN(cholesky(symmetric(v[0]))))
      .ref(REF(
          each_matrix(a[0], one([](const Array& x) { return cholesky_of(symmetric_part(x)); }))))
      .fixed()
      .no_half()
      .loose(20);
  t.row("cholesky upper", {square}, FN(cholesky(symmetric(v[0]), true)))
      .ref(REF(transposed(cholesky_of(symmetric_part(a[0])))))
      .no_half()
      .loose(20);
  t.row("solve", {square, real({3, 4})}, FN(solve(v[0], v[1])))
      .ref(REF(solved(a[0], a[1])))
      .no_half()
      .loose(20);
  t.row("solve vector", {square, real({3})}, FN(solve(v[0], v[1])))
      .ref(REF(reshaped(solved(a[0], reshaped(a[1], {a[1].shape[0], 1})), a[1].shape)))
      .no_half()
      .loose(20);
  t.row("solve vectors", {stack, real({2, 3})}, FN(solve(v[0], v[1])))
      .ref(REF([&] {
        Arrays out;
        for (std::int64_t b = 0; b < 2; ++b)
          out.push_back(
              reshaped(solved(member(a[0], 0, b), reshaped(member(a[1], 0, b), {3, 1})), {3}));
        return tutti_test::stack(out, 0, {3});
      }()))
      .fixed()
      .no_half()
      .loose(20);
  t.row("solve broadcast", {stack, real({4, 1, 3, 2})}, FN(solve(v[0], v[1])))
      .ref(REF([&] {
        Arrays out;
        for (std::int64_t b = 0; b < 4; ++b) {
          Arrays inner;
          for (std::int64_t c = 0; c < 2; ++c)
            inner.push_back(solved(member(a[0], 0, c), member(member(a[1], 0, b), 0, 0)));
          out.push_back(tutti_test::stack(inner, 0, {3, 2}));
        }
        return tutti_test::stack(out, 0, {2, 3, 2});
      }()))
      .fixed()
      .no_half()
      .loose(20);

  // ---- triangular systems
  t.row("triangular_solve", {real({3, 4}), square}, FN(triangular_solve(v[0], v[1])))
      .ref(REF(Arrays{solved(triangle_of(a[1], true, false), a[0]), a[1]}))
      .no_half()
      .loose(20);
  t.row("triangular_solve transposed", {real({3, 4}), square},
        FN(std::get<0>(triangular_solve(v[0], v[1], false, true))))
      .ref(REF(solved(transposed(triangle_of(a[1], false, false)), a[0])))
      .no_half()
      .loose(20);
  t.row("triangular_solve unit", {real({3, 4}), square},
        FN(std::get<0>(triangular_solve(v[0], v[1], false, false, true))))
      .ref(REF(solved(triangle_of(a[1], false, true), a[0])))
      .no_half()
      .loose(20);
  t.row("linalg_solve_triangular", {square, real({3, 4})},
        FN(linalg_solve_triangular(v[0], v[1], false)))
      .ref(REF(solved(triangle_of(a[0], false, false), a[1])))
      .no_half()
      .loose(20);
  t.row("linalg_solve_triangular from the right", {square, real({4, 3})},
        FN(linalg_solve_triangular(v[0], v[1], true, false, true)))
      .ref(REF(transposed(solved(transposed(triangle_of(a[0], true, true)), transposed(a[1])))))
      .no_half()
      .loose(20);

  // ---- inverse, determinants
  t.row("inverse", {square}, FN(inverse(v[0])))
      .ref(REF(solved(a[0], identity(a[0].shape[0]))))
      .no_half()
      .loose(20);
  t.row("inverse of a stack", {many}, FN(inverse(v[0])))
      .ref(REF(each_matrix(a[0], one([](const Array& x) { return solved(x, identity(3)); }))))
      .fixed()
      .no_half()
      .loose(20);
  t.row("det", {square}, FN(det(v[0])))
      .ref(REF(Array{{}, {determinant(a[0])}}))
      .no_half()
      .loose(20);
  t.row("det of a stack", {many}, FN(det(v[0])))
      .ref(REF(each_matrix(a[0], one([](const Array& x) {
                             return Array{{}, {determinant(x)}};
                           }))))
      .fixed()
      .no_half()
      .loose(20);
  // Rank 2: the last row is the sum of the others.
  t.row("det of singular matrices", {real({2, 3})}, FN(det(cat({v[0], v[0].sum(0, true)}))))
      .ref(REF(Array{{}, {0}}))
      .fixed()
      .no_half()
      .loose(20);
  t.row("slogdet", {square}, FN(slogdet(neg(v[0]))))
      .ref(REF([&] {
        const double d = determinant(a[0]) * (a[0].shape[0] % 2 ? -1 : 1);
        return Arrays{Array{{}, {d < 0 ? -1.0 : 1.0}}, Array{{}, {std::log(std::abs(d))}}};
      }()))
      .no_half()
      .loose(20);

  // ---- factors up to signs
  t.row("qr", {near_identity({4, 3})}, FN(signed_qr(v[0])))
      .ref(REF(qr_of(a[0])))
      .no_half()
      .loose(20);
  t.row("qr wide", {near_identity({2, 2, 4})}, FN(signed_qr(v[0])))
      .ref(REF(each_matrix(a[0], qr_of)))
      .fixed()
      .no_half()
      .loose(20);
  t.row("eigh", {square}, FN(signed_eigh(spread(symmetric(v[0]), 1), "L")))
      .ref(REF(eigen_of(spread(symmetric_part(a[0]), 1), false)))
      .no_half()
      .loose(60);
  t.row("eigh upper", {stack}, FN(signed_eigh(spread(symmetric(v[0]), 1), "U")))
      .ref(REF(each_matrix(
          a[0], [](const Array& x) { return eigen_of(spread(symmetric_part(x), 1), false); })))
      .fixed()
      .no_half()
      .loose(60);
  t.row("svd", {near_identity({4, 3})}, FN(signed_svd(spread(v[0], -1))))
      .ref(REF(svd_of(spread(a[0], -1))))
      .no_half()
      .loose(100);
  t.row("svd wide", {near_identity({2, 2, 3})}, FN(signed_svd(spread(v[0], -1))))
      .ref(REF(each_matrix(a[0], [](const Array& x) { return svd_of(spread(x, -1)); })))
      .fixed()
      .no_half()
      .loose(100);
  // Only what does not depend on single vectors, of a lower triangle alone.
  t.row("eigh of one triangle", {square},
        FN(std::get<0>(eigh(spread(v[0].tril() + v[0].tril(-1).mT(), 1)))))
      .ref(REF(eigen_of(spread(make(a[0].shape,
                                    [&](const Index& i) {
                                      return a[0].at({std::max(i[0], i[1]), std::min(i[0], i[1])});
                                    }),
                               1),
                        false)[0]))
      .no_half()
      .loose(60);

  // ---- einsum
  const In x = real({2, 3}), y = real({3, 4});
  t.row("einsum product", {x, y}, FN(einsum("ij,jk->ik", {v[0], v[1]})))
      .ref(REF(matrix_product(a[0], a[1])))
      .ints()
      .loose(8);
  t.row("einsum implicit", {x, y}, FN(einsum("kj, ji", {v[0], v[1]})))
      .ref(REF(transposed(matrix_product(a[0], a[1]))))
      .loose(8);
  t.row("einsum of stacks", {real({5, 2, 3}), real({5, 4, 3})},
        FN(einsum("bij,bkj->ibk", {v[0], v[1]})))
      .ref(REF(permuted(matrix_product(a[0], permuted(a[1], {0, 2, 1})), {1, 0, 2})))
      .loose(8);
  t.row("einsum inner product", {x, x}, FN(einsum("ij,ij->", {v[0], v[1]})))
      .ref(REF(Array{{}, {inner({a[0]}, {a[1]})}}))
      .loose(8);
  t.row("einsum outer product", {real({2}), real({3})}, FN(einsum("i,j->ji", {v[0], v[1]})))
      .ref(REF(make({a[1].shape[0], a[0].shape[0]},
                    [&](const Index& i) { return a[0].at({i[1]}) * a[1].at({i[0]}); })));
  t.row("einsum transpose and sum", {real({2, 3, 4})}, FN(einsum("ijk->kj", {v[0]})))
      .ref(REF(transposed(reduced(a[0], {0}, false, total))))
      .shares()
      .ints()
      .result({Gives::same})
      .loose(4);
  t.row("einsum diagonal", {real({3, 2, 3})}, FN(einsum("iji->ij", {v[0]})))
      .ref(REF(make({a[0].shape[0], a[0].shape[1]},
                    [&](const Index& i) {
                      return a[0].at({i[0], i[1], i[0]});
                    })))
      .shares();
  t.row("einsum trace", {real({3, 3}), real({3})}, FN(einsum("ii,i", {v[0], v[1]})))
      .ref(REF(Array{{}, {[&] {
                       double s = 0;
                       for (std::int64_t i = 0; i < a[0].shape[0]; ++i)
                         s += a[0].at({i, i}) * a[1].at({i});
                       return s;
                     }()}}))
      .loose(8);
  t.row("einsum ellipsis", {real({4, 1, 2, 3}), real({5, 3, 2})},
        FN(einsum("...ij,...jk->...ki", {v[0], v[1]})))
      .ref(REF(permuted(matrix_product(a[0], a[1]), {0, 1, 3, 2})))
      .fixed()
      .loose(8);
  t.row("einsum ellipsis dropped", {real({4, 2, 3})}, FN(einsum("...j->j", {v[0]})))
      .ref(REF(reduced(a[0], {0, 1}, false, total)))
      .loose(4);
  t.row("einsum broadcasts letters", {real({2, 1}), y}, FN(einsum("ij,jk->ijk", {v[0], v[1]})))
      .ref(REF(make({2, 3, 4},
                    [&](const Index& i) {
                      return a[0].at({i[0], 0}) * a[1].at({i[1], i[2]});
                    })))
      .fixed();
  t.row("einsum three operands", {x, y, real({4, 2})},
        FN(einsum("ij,jk,kl->il", {v[0], v[1], v[2]})))
      .ref(REF(matrix_product(matrix_product(a[0], a[1]), a[2])))
      .fixed()
      .loose(8);
  t.row("einsum bilinear", {real({5, 2}), real({4, 2, 3}), real({5, 3})},
        FN(einsum("Bi,oij,Bj->Bo", {v[0], v[1], v[2]})))
      .ref(REF(make({5, 4},
                    [&](const Index& o) {
                      double s = 0;
                      for (std::int64_t i = 0; i < 2; ++i)
                        for (std::int64_t j = 0; j < 3; ++j)
                          s += a[0].at({o[0], i}) * a[1].at({o[1], i, j}) * a[2].at({o[0], j});
                      return s;
                    })))
      .fixed()
      .loose(8);
  t.row("einsum merged groups", {real({2, 3, 4}), real({4, 2, 5})},
        FN(einsum("abc,cad->bd", {v[0], v[1]})))
      .ref(REF(make({a[0].shape[1], a[1].shape[2]},
                    [&](const Index& o) {
                      double s = 0;
                      for (std::int64_t i = 0; i < a[0].shape[0]; ++i)
                        for (std::int64_t j = 0; j < a[0].shape[2]; ++j)
                          s += a[0].at({i, o[0], j}) * a[1].at({j, i, o[1]});
                      return s;
                    })))
      .loose(8);
}

}  // namespace tutti_test
