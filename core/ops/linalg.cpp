// Linear algebra: factorisations, solvers, determinants, over any number of leading axes.
//
// Derivatives after M. Giles, "Collected matrix derivative results for forward and reverse mode"
// (2008); I. Murray, "Differentiation of the Cholesky decomposition" (2016); S. Walter and
// L. Lehmann, "Algorithmic differentiation of linear algebra functions" (2010) for QR; J. Townsend,
// "Differentiating the singular value decomposition" (2016). Functions of a symmetric matrix read
// one triangle, and count for their derivatives as functions of (A + A^T) / 2, as in PyTorch.
#include <algorithm>
#include <limits>
#include <vector>

#include <tutti/core/kernels/linalg.h>
#include <tutti/core/kernels/matrices.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>

namespace tutti {
namespace {

constexpr std::uint32_t upper_flag = 1, unit_flag = 2;  // triangular solves

// ---- checks

void check_matrix(const char* op, const Tensor& x) {
  check<TypeError>(x.dtype() == kFloat32 || x.dtype() == kFloat64, op,
                   "expected float32 or float64, got ", x.dtype(), ", convert with to(kFloat32)");
  check<ShapeError>(x.dim() >= 2, op, "expected matrices [..., m, n], got shape ", x.sizes());
}

void check_square(const char* op, const Tensor& x) {
  check_matrix(op, x);
  check<ShapeError>(x.size(-1) == x.size(-2), op,
                    "expected square matrices [..., n, n], got shape ", x.sizes());
}

void check_system(const char* op, const Tensor& a, const Tensor& b) {
  check_square(op, a);
  check<TypeError>(a.dtype() == b.dtype(), op, "expected operands of one dtype, got ", a.dtype(),
                   " and ", b.dtype(), ", convert one with to()");
}

// ---- kernels and their failures

// attrs.ints[0], if there: how many of the first axes are vmap's.
std::int64_t mapped_axes(const Attrs& a) { return a.ints.empty() ? 0 : a.ints[0]; }

Attrs one_more_mapped(const Attrs& a) {
  Attrs b = a;
  if (b.ints.empty()) b.ints.push_back(0);
  ++b.ints[0];
  return b;
}

Batched batch_matrices(const Op& op, Inputs in, const Attrs& a, Axes axes, std::int64_t size) {
  return forms::batch_leading(op, in, one_more_mapped(a), axes, size);
}

// One shared matrix and a right-hand side per example: the examples are further columns.
Batched batch_solve(const Op& op, Inputs in, const Attrs& a, Axes axes, std::int64_t size) {
  if (axes[0] >= 0) return batch_matrices(op, in, a, axes, size);
  const Tensor b = movedim(in[1], axes[1], -1);  // [lead..., n, k, size]
  const Tensor wide =
      reshape(b, joined({b.sizes().data(), b.sizes().size() - 3}, b.size(-3), b.size(-2) * size));
  const Tensor x = run1(op, {in[0], wide}, a);
  return {reshape(x, b.sizes()), static_cast<int>(b.dim()) - 1};
}

// " of example 2 of vmap, batch element [1, 0]"; empty where there is only one matrix.
std::string place(std::int64_t index, IntArrayRef lead, std::int64_t mapped) {
  Shape at(lead.size());
  for (std::size_t d = lead.size(); d-- > 0;) {
    at[d] = index % lead[d];
    index /= lead[d];
  }
  const auto split = at.begin() + mapped;
  const Shape examples(at.begin(), split), elements(split, at.end());
  std::string s;
  if (examples.size() == 1) s = detail::str(" of example ", examples[0], " of vmap");
  if (examples.size() > 1)
    s = detail::str(" of example ", IntArrayRef(examples), " of the nested vmaps");
  if (!elements.empty())
    s += detail::str(s.empty() ? " at" : ",", " batch element ", IntArrayRef(elements));
  return s;
}

// Runs a kernel; afterwards calls failed(status, place) for the first matrix it failed on.
template <class Kernel, class Failed>
void run_kernel(Inputs in, Inputs out, const Attrs& attrs, const Kernel& kernel,
                const Failed& failed) {
  const Tensor& a = in[0];
  const std::int64_t count = numel_of(leading(a));
  std::vector<std::int64_t> status(static_cast<std::size_t>(count), 0);
  kernels::Factor f{.dtype = a.dtype(),
                    .m = a.size(-2),
                    .n = a.size(-1),
                    .batch = leading(a).shape(),
                    .a = matrices(a),
                    .b = {},
                    .status = status.data()};
  if (in.size() > 1) {
    f.b = matrices(in[1]);
    f.k = in[1].size(-1);
  }
  bool empty = true;
  for (std::size_t i = 0; i < out.size(); ++i) {
    f.out[i] = out[i].raw();
    empty = empty && out[i].numel() == 0;
  }
  if (empty) return;
  kernel(f);
  for (std::int64_t i = 0; i < count; ++i)
    if (status[static_cast<std::size_t>(i)] != 0)
      failed(status[static_cast<std::size_t>(i)], place(i, leading(a), mapped_axes(attrs)));
}

void cannot_fail(std::int64_t, const std::string&) {}

auto singular(const char* op) {
  return [op](std::int64_t pivot, const std::string& at) {
    fail<ValueError>(op, "expected an invertible matrix, got a singular one", at, " (pivot ", pivot,
                     " is 0); look for rows that depend on each other, or add a small multiple of "
                     "eye(n)");
  };
}

auto not_converged(const char* op) {
  return [op](std::int64_t, const std::string& at) {
    fail<ValueError>(op, "expected a matrix of finite values, got one", at,
                     " for which the iteration does not converge; look for NaN and infinities with "
                     "isfinite()");
  };
}

// ---- shape rules: the public functions have checked

void add_result(Inputs in, Metas& out, Shape sizes) {
  out.push_back({std::move(sizes), in[0].dtype(), in[0].device()});
}
void first_shape(Inputs in, const Attrs&, Metas& out) {
  add_result(in, out, in[0].sizes().shape());
}
void second_shape(Inputs in, const Attrs&, Metas& out) {
  add_result(in, out, in[1].sizes().shape());
}
void number_shape(Inputs in, const Attrs&, Metas& out) {
  add_result(in, out, leading(in[0]).shape());
}

// ---- small things the derivatives are made of

Tensor symmetric(const Tensor& x) { return (x + mT(x)) * 0.5; }
Tensor identity_like(const Tensor& x) { return eye(x.size(-1), x.options()); }
Tensor diagonal_matrix(const Tensor& d) { return unsqueeze(d, -1) * identity_like(d); }
Tensor as_row(const Tensor& d) { return unsqueeze(d, -2); }
Tensor as_column(const Tensor& d) { return unsqueeze(d, -1); }
Tensor diagonal_of(const Tensor& x) { return diagonal(x, 0, -2, -1); }

/// 1 / (d_j - d_i), 0 on the diagonal. Infinite where two values are equal: what depends on single
/// vectors of such a pair has no derivative.
Tensor inverse_gaps(const Tensor& d) {
  const Tensor one = identity_like(d);
  return rsub(one, 1) / (as_row(d) - as_column(d) + one);
}

Tensor triangular(const Tensor& a, const Tensor& b, bool upper) {
  return linalg_solve_triangular(a, b, upper);
}
/// b a^-1.
Tensor right_triangular(const Tensor& a, const Tensor& b, bool upper) {
  return linalg_solve_triangular(a, b, upper, false);
}

// ---- cholesky

void cholesky_cpu(Inputs in, Inputs out, const Attrs& a) {
  run_kernel(in, out, a, kernels::cholesky, [](std::int64_t order, const std::string& at) {
    fail<ValueError>("cholesky", "expected a positive definite matrix, got one", at,
                     " whose leading minor of order ", order,
                     " is not positive; check that it is symmetric, or add a small multiple of "
                     "eye(n)");
  });
}

/// The lower triangle with the diagonal halved.
Tensor half_lower(const Tensor& x) { return (tril(x) + tril(x, -1)) * 0.5; }

constinit const Op cholesky_op = forms::complete({
    .name = "cholesky",
    .shape = first_shape,
    .cpu = cholesky_cpu,
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      const Tensor& l = c.out[0];
      const Tensor inner = half_lower(matmul(mT(l), g[0]));
      return {symmetric(right_triangular(l, triangular(mT(l), inner, true), false))};
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors {
      const Tensor& l = c.out[0];
      const Tensor inner = right_triangular(mT(l), triangular(l, symmetric(t[0]), false), true);
      return {matmul(l, half_lower(inner))};
    },
    .batch = batch_matrices,
    .saves = saves::outputs,
});

// ---- solve: a [lead..., n, n], b [lead..., n, k]

constinit const Op solve_op = forms::complete({
    .name = "solve",
    .shape = second_shape,
    .cpu = [](Inputs in, Inputs out,
              const Attrs& a) { run_kernel(in, out, a, kernels::solve, singular("solve")); },
    .vjp = [](const Call& c, Inputs g, Needs needs) -> Tensors {
      const Tensor gb = run1(c.op, {mT(c.in[0]), g[0]}, c.attrs);
      return {needs[0] ? neg(matmul(gb, mT(c.out[0]))) : Tensor(), gb};
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors {
      Tensor b = t[1];
      if (t[0].defined()) b = forms::add_grads(b, neg(matmul(t[0], c.out[0])));
      return {run1(c.op, {c.in[0], b}, c.attrs)};
    },
    .batch = batch_solve,
    .saves = saves::in0 | saves::outputs,
});

// ---- triangular solve: the same, of the triangle the flags name

Tensor triangle(const Tensor& x, std::uint32_t flags) {
  const std::int64_t skip = flags & unit_flag ? 1 : 0;
  return flags & upper_flag ? triu(x, skip) : tril(x, -skip);
}

constinit const Op triangular_solve_op = forms::complete({
    .name = "triangular_solve",
    .shape = second_shape,
    .cpu =
        [](Inputs in, Inputs out, const Attrs& a) {
          run_kernel(
              in, out, a,
              [&](const kernels::Factor& f) {
                kernels::triangular_solve(f, a.flags & upper_flag, a.flags & unit_flag);
              },
              cannot_fail);
        },
    .vjp = [](const Call& c, Inputs g, Needs needs) -> Tensors {
      Attrs transposed = c.attrs;
      transposed.flags ^= upper_flag;
      const Tensor gb = run1(c.op, {mT(c.in[0]), g[0]}, transposed);
      return {needs[0] ? neg(triangle(matmul(gb, mT(c.out[0])), c.attrs.flags)) : Tensor(), gb};
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors {
      Tensor b = t[1];
      if (t[0].defined())
        b = forms::add_grads(b, neg(matmul(triangle(t[0], c.attrs.flags), c.out[0])));
      return {run1(c.op, {c.in[0], b}, c.attrs)};
    },
    .batch = batch_solve,
    .saves = saves::in0 | saves::outputs,
});

// ---- inverse

constinit const Op inverse_op = forms::complete({
    .name = "inverse",
    .shape = first_shape,
    .cpu = [](Inputs in, Inputs out,
              const Attrs& a) { run_kernel(in, out, a, kernels::inverse, singular("inverse")); },
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      const Tensor x = mT(c.out[0]);
      return {neg(matmul(matmul(x, g[0]), x))};
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors {
      return {neg(matmul(matmul(c.out[0], t[0]), c.out[0]))};
    },
    .batch = batch_matrices,
    .saves = saves::outputs,
});

// ---- det and its derivative, the matrix of cofactors

/// For each element the product of all others along the last axis; no division.
Tensor products_of_others(const Tensor& x) {
  const std::int64_t n = x.size(-1);
  const Tensor one = ones_like(narrow(x, -1, 0, 1));
  const Tensor before = cumprod(cat({one, narrow(x, -1, 0, n - 1)}, -1), -1);
  const Tensor after = cumprod(cat({one, narrow(flip(x, -1), -1, 0, n - 1)}, -1), -1);
  return before * flip(after, -1);
}

/// The derivative of the cofactors c of a along e. It is the second derivative of the determinant,
/// hence its own transpose. An invertible a has c = det(a) a^-T. For a singular one, with
/// a = U S V^T, the cofactors of S + E are linear in E with products of all but two singular values
/// as coefficients.
Tensor cofactors_along(const Tensor& a, const Tensor& c, const Tensor& e) {
  const std::int64_t n = a.size(-1);
  if (a.numel() == 0 || n == 1) return zeros_like(e);
  const Tensor one = identity_like(a), ramp = diagonal_matrix(arange(1, n + 1, a.options()));
  const double epsilon = a.dtype() == kFloat64 ? std::numeric_limits<double>::epsilon()
                                               : std::numeric_limits<float>::epsilon();
  const Tensor size = amax(abs(a), {-2, -1}, true) * amax(abs(c), {-2, -1}, true);
  const Tensor is_singular =
      abs(as_column(as_column(det(a)))) <= size * (10 * static_cast<double>(n) * epsilon);
  // Each formula sees harmless values where the other one holds.
  const Tensor x = inverse(where(is_singular, one, a));
  const Tensor along = as_column(as_column(sum(mT(x) * e, {-2, -1})));
  const Tensor regular = c * along - matmul(mT(matmul(e, x)), c);

  const auto [u, s, v] = svd(where(is_singular, a, ramp));
  const Tensor without = where(one > 0, ones_like(one), as_row(s));  // row i: s with s_i = 1
  const Tensor pairs = products_of_others(without) * rsub(one, 1);
  const Tensor inner = matmul(matmul(mT(u), e), v);
  const Tensor d = diagonal_matrix(squeeze(matmul(pairs, as_column(diagonal_of(inner))), -1)) -
                   pairs * mT(inner);
  const Tensor sign = as_column(as_column(detach(det(u) * det(v))));
  return where(is_singular, sign * matmul(matmul(u, d), mT(v)), regular);
}

constinit const Op cofactors_op = forms::complete({
    .name = "det (cofactors)",
    .shape = first_shape,
    .cpu = [](Inputs in, Inputs out,
              const Attrs& a) { run_kernel(in, out, a, kernels::cofactors, cannot_fail); },
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      return {cofactors_along(c.in[0], c.out[0], g[0])};
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors {
      return {cofactors_along(c.in[0], c.out[0], t[0])};
    },
    .batch = batch_matrices,
    .saves = saves::in0 | saves::outputs,
});

constinit const Op det_op = forms::complete({
    .name = "det",
    .shape = number_shape,
    .cpu = [](Inputs in, Inputs out,
              const Attrs& a) { run_kernel(in, out, a, kernels::determinant, cannot_fail); },
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      return {as_column(as_column(g[0])) * run1(cofactors_op, {c.in[0]}, c.attrs)};
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors {
      return {sum(run1(cofactors_op, {c.in[0]}, c.attrs) * t[0], {-2, -1})};
    },
    .batch = batch_matrices,
    .saves = saves::in0,
});

constinit const Op slogdet_op = forms::complete({
    .name = "slogdet",
    .shape =
        [](Inputs in, const Attrs& a, Metas& out) {
          number_shape(in, a, out);
          number_shape(in, a, out);
        },
    .cpu = [](Inputs in, Inputs out,
              const Attrs& a) { run_kernel(in, out, a, kernels::log_determinant, cannot_fail); },
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      if (!g[1].defined()) return {Tensor()};
      return {as_column(as_column(g[1])) * mT(run1(inverse_op, {c.in[0]}, c.attrs))};
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors {
      return {Tensor(), sum(mT(run1(inverse_op, {c.in[0]}, c.attrs)) * t[0], {-2, -1})};
    },
    .batch = batch_matrices,
    .saves = saves::in0,
});

// ---- qr, m >= n

Tensors qr_vjp(const Call& c, Inputs g, Needs) {
  const Tensor &q = c.out[0], &r = c.out[1];
  Tensor m, inner = g[0];
  if (g[1].defined()) m = matmul(r, mT(g[1]));
  if (g[0].defined()) m = forms::add_grads(m, neg(matmul(mT(g[0]), q)));
  m = tril(m) + mT(tril(m, -1));
  inner = forms::add_grads(inner, matmul(q, m));
  return {right_triangular(mT(r), inner, false)};
}

Tensors qr_jvp(const Call& c, Inputs t) {
  const Tensor &q = c.out[0], &r = c.out[1];
  const Tensor x = right_triangular(r, t[0], true), w = matmul(mT(q), x);
  const Tensor lower = tril(w, -1), triangle = w - lower + mT(lower);
  return {x - matmul(q, triangle), matmul(triangle, r)};
}

constinit const Op qr_op = forms::complete({
    .name = "qr",
    .shape =
        [](Inputs in, const Attrs&, Metas& out) {
          const std::int64_t n = in[0].size(-1);
          add_result(in, out, joined(leading(in[0]), in[0].size(-2), n));
          add_result(in, out, joined(leading(in[0]), n, n));
        },
    .cpu = [](Inputs in, Inputs out,
              const Attrs& a) { run_kernel(in, out, a, kernels::qr, cannot_fail); },
    .vjp = qr_vjp,
    .jvp = qr_jvp,
    .batch = batch_matrices,
    .saves = saves::outputs,
});

// ---- eigh

Tensors eigh_vjp(const Call& c, Inputs g, Needs) {
  const Tensor &w = c.out[0], &v = c.out[1];
  Tensor inner;
  if (g[0].defined()) inner = diagonal_matrix(g[0]);
  if (g[1].defined()) inner = forms::add_grads(inner, inverse_gaps(w) * matmul(mT(v), g[1]));
  return {symmetric(matmul(matmul(v, inner), mT(v)))};
}

Tensors eigh_jvp(const Call& c, Inputs t) {
  const Tensor &w = c.out[0], &v = c.out[1];
  const Tensor inner = matmul(matmul(mT(v), symmetric(t[0])), v);
  return {diagonal_of(inner), matmul(v, inverse_gaps(w) * inner)};
}

constinit const Op eigh_op = forms::complete({
    .name = "eigh",
    .shape =
        [](Inputs in, const Attrs& a, Metas& out) {
          add_result(in, out, Shape(in[0].sizes().begin(), in[0].sizes().end() - 1));
          first_shape(in, a, out);
        },
    .cpu = [](Inputs in, Inputs out,
              const Attrs& a) { run_kernel(in, out, a, kernels::eigh, not_converged("eigh")); },
    .vjp = eigh_vjp,
    .jvp = eigh_jvp,
    .batch = batch_matrices,
    .saves = saves::outputs,
});

// ---- svd

/// What is left of x outside the space that q's columns span.
Tensor outside(const Tensor& q, const Tensor& x) { return x - matmul(q, matmul(mT(q), x)); }
Tensor skew(const Tensor& x) { return x - mT(x); }

Tensors svd_vjp(const Call& c, Inputs g, Needs) {
  const Tensor &u = c.out[0], &s = c.out[1], &v = c.out[2];
  Tensor inner;
  if (g[1].defined()) inner = diagonal_matrix(g[1]);
  if (g[0].defined())
    inner =
        forms::add_grads(inner, inverse_gaps(square(s)) * skew(matmul(mT(u), g[0])) * as_row(s));
  if (g[2].defined())
    inner =
        forms::add_grads(inner, as_column(s) * inverse_gaps(square(s)) * skew(matmul(mT(v), g[2])));
  Tensor ga = matmul(matmul(u, inner), mT(v));
  if (g[0].defined() && u.size(-2) > u.size(-1))
    ga = ga + matmul(outside(u, g[0]) / as_row(s), mT(v));
  if (g[2].defined() && v.size(-2) > v.size(-1))
    ga = ga + matmul(u, mT(outside(v, g[2]) / as_row(s)));
  return {ga};
}

Tensors svd_jvp(const Call& c, Inputs t) {
  const Tensor &u = c.out[0], &s = c.out[1], &v = c.out[2];
  const Tensor av = matmul(t[0], v), inner = matmul(mT(u), av), gaps = inverse_gaps(square(s));
  const Tensor p = inner * as_row(s), q = as_column(s) * inner;
  Tensor du = matmul(u, gaps * (p + mT(p))), dv = matmul(v, gaps * (q + mT(q)));
  if (u.size(-2) > u.size(-1)) du = du + outside(u, av) / as_row(s);
  if (v.size(-2) > v.size(-1)) dv = dv + outside(v, matmul(mT(t[0]), u)) / as_row(s);
  return {du, diagonal_of(inner), dv};
}

constinit const Op svd_op = forms::complete({
    .name = "svd",
    .shape =
        [](Inputs in, const Attrs&, Metas& out) {
          const std::int64_t m = in[0].size(-2), n = in[0].size(-1), r = std::min(m, n);
          Shape values = leading(in[0]).shape();
          values.push_back(r);
          add_result(in, out, joined(leading(in[0]), m, r));
          add_result(in, out, values);
          add_result(in, out, joined(leading(in[0]), n, r));
        },
    .cpu = [](Inputs in, Inputs out,
              const Attrs& a) { run_kernel(in, out, a, kernels::svd, not_converged("svd")); },
    .vjp = svd_vjp,
    .jvp = svd_jvp,
    .batch = batch_matrices,
    .saves = saves::outputs,
});

/// Both operands with the same leading axes.
std::pair<Tensor, Tensor> with_common_lead(const char* op, const Tensor& a, const Tensor& b) {
  const Shape lead = broadcast_shapes(leading(a), leading(b), op);
  return {expand(a, joined(lead, a.size(-2), a.size(-1))),
          expand(b, joined(lead, b.size(-2), b.size(-1)))};
}

}  // namespace

// ---- the public functions

Tensor cholesky(const Tensor& self, bool upper) {
  check_square("cholesky", self);
  return upper ? mT(run1(cholesky_op, {mT(self)})) : run1(cholesky_op, {self});
}

Tensor solve(const Tensor& self, const Tensor& other) {
  check_system("solve", self, other);
  const IntArrayRef sizes = self.sizes();
  const bool is_vector =
      other.dim() == 1 || (other.dim() + 1 == self.dim() &&
                           other.sizes() == IntArrayRef(sizes.data(), sizes.size() - 1));
  const Tensor b = is_vector ? as_column(other) : other;
  check<ShapeError>(b.dim() >= 2 && b.size(-2) == self.size(-1), "solve",
                    "expected a right-hand side [..., ", self.size(-1), ", k] or [..., ",
                    self.size(-1), "] for matrices of shape ", self.sizes(), ", got shape ",
                    other.sizes());
  const auto [a, rhs] = with_common_lead("solve", self, b);
  const Tensor x = run1(solve_op, {a, rhs});
  return is_vector ? squeeze(x, -1) : x;
}

static Tensor solve_triangular(const char* op, const Tensor& a, const Tensor& b, bool upper,
                               bool unit) {
  check_system(op, a, b);
  check<ShapeError>(b.dim() >= 2 && b.size(-2) == a.size(-1), op,
                    "expected a right-hand side [..., ", a.size(-1), ", k] for matrices of shape ",
                    a.sizes(), ", got shape ", b.sizes());
  Attrs attrs;
  attrs.flags = (upper ? upper_flag : 0) | (unit ? unit_flag : 0);
  const auto [matrix, rhs] = with_common_lead(op, a, b);
  return run1(triangular_solve_op, {matrix, rhs}, attrs);
}

std::tuple<Tensor, Tensor> triangular_solve(const Tensor& self, const Tensor& A, bool upper,
                                            bool transpose, bool unitriangular) {
  check_square("triangular_solve", A);
  const Tensor a = transpose ? mT(A) : A;
  return {solve_triangular("triangular_solve", a, self, upper != transpose, unitriangular),
          clone(A)};
}

Tensor linalg_solve_triangular(const Tensor& self, const Tensor& B, bool upper, bool left,
                               bool unitriangular) {
  const char* op = "linalg_solve_triangular";
  if (left) return solve_triangular(op, self, B, upper, unitriangular);
  check_square(op, self);
  check<ShapeError>(B.dim() >= 2 && B.size(-1) == self.size(-1), op,
                    "expected a left-hand side [..., k, ", self.size(-1),
                    "] for matrices of shape ", self.sizes(), ", got shape ", B.sizes());
  return mT(solve_triangular(op, mT(self), mT(B), !upper, unitriangular));
}

Tensor inverse(const Tensor& self) {
  check_square("inverse", self);
  return run1(inverse_op, {self});
}

Tensor det(const Tensor& self) {
  check_square("det", self);
  return run1(det_op, {self});
}

std::tuple<Tensor, Tensor> slogdet(const Tensor& self) {
  check_square("slogdet", self);
  Tensors r = run(slogdet_op, Inputs(&self, 1));
  return {r[0], r[1]};
}

std::tuple<Tensor, Tensor> qr(const Tensor& self) {
  check_matrix("qr", self);
  const std::int64_t m = self.size(-2), n = self.size(-1);
  if (m >= n) {
    Tensors r = run(qr_op, Inputs(&self, 1));
    return {r[0], r[1]};
  }
  // The first m columns give Q, which turns the others into the rest of R.
  const auto [q, r] = qr(narrow(self, -1, 0, m));
  return {q, cat({r, matmul(mT(q), narrow(self, -1, m, n - m))}, -1)};
}

std::tuple<Tensor, Tensor> eigh(const Tensor& self, std::string_view UPLO) {
  check_square("eigh", self);
  check<ValueError>(UPLO == "L" || UPLO == "U", "eigh",
                    "expected UPLO \"L\" (read the lower triangle) or \"U\", got \"", UPLO, "\"");
  const Tensor a = UPLO == "U" ? mT(self) : self;
  Tensors r = run(eigh_op, Inputs(&a, 1));
  return {r[0], r[1]};
}

std::tuple<Tensor, Tensor, Tensor> svd(const Tensor& self) {
  check_matrix("svd", self);
  Tensors r = run(svd_op, Inputs(&self, 1));
  return {r[0], r[1], r[2]};
}

std::tuple<Tensor, Tensor, Tensor> linalg::svd(const Tensor& A) {
  const auto [u, s, v] = tutti::svd(A);
  return {u, s, mT(v)};
}

}  // namespace tutti
