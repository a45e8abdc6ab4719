// Matrix products. Two primitives, bmm and linear (bmm with a transposed weight and a bias), over
// any number of leading axes; the public functions bring their arguments into that form without
// copies. Two more are made of these: linear with relu, and all gradients of a layer at once.
#include <algorithm>
#include <bit>

#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/gemm.h>
#include <tutti/core/kernels/matrices.h>
#include <tutti/core/kernels/reduce.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>
#include <tutti/core/ops/records.h>
#include <tutti/core/tensor_impl.h>

namespace tutti {
namespace {

void check_product(std::string_view op, const Tensor& a, const Tensor& b) {
  check<TypeError>(a.dtype() == b.dtype(), op, "expected operands of one dtype, got ", a.dtype(),
                   " and ", b.dtype(), "; convert one with to()");
  check<TypeError>(a.dtype() != kBool, op, "expected numbers, got bool; convert with to()");
}

// ---- bmm: [lead..., m, k] x [lead..., k, n]

void bmm_shape(Inputs in, const Attrs&, Metas& out) {
  const Tensor &a = in[0], &b = in[1];
  check_product("matmul", a, b);
  check<ShapeError>(
      a.dim() >= 2 && a.dim() == b.dim() && leading(a) == leading(b) && a.size(-1) == b.size(-2),
      "matmul", "expected shapes [..., m, k] and [..., k, n], got ", a.sizes(), " and ", b.sizes(),
      "; transpose or reshape one");
  out.push_back({joined(leading(a), a.size(-2), b.size(-1)), a.dtype(), a.device()});
}

kernels::Gemm product_of(const Tensor& a, const Tensor& b, const Tensor& out) {
  kernels::Gemm g;
  g.dtype = a.dtype();
  g.m = a.size(-2);
  g.n = b.size(-1);
  g.k = a.size(-1);
  g.batch = leading(a).shape();
  g.a = matrices(a);
  g.b = matrices(b);
  g.out = out.raw();
  return g;
}

void bmm_cpu(Inputs in, Inputs out, const Attrs&) {
  kernels::gemm(product_of(in[0], in[1], out[0]));
}

void bmm_relu_grad_cpu(Inputs in, Inputs out, const Attrs&) {
  kernels::Gemm g = product_of(in[0], in[1], out[0]);
  g.relu_output = in[2].raw();
  if (out.size() > 1) g.row_sums = out[1].raw();
  kernels::gemm(g);
}

}  // namespace

constinit const Op bmm_op = forms::bilinear({
    .name = "matmul",
    .shape = bmm_shape,
    .cpu = bmm_cpu,
    .cuda = TUTTI_ON_CUDA(bmm),
    .vjp = [](const Call& c, Inputs g, Needs needs) -> Tensors {
      Tensors r(2);
      if (needs[0]) r[0] = run1(c.op, {g[0], mT(c.in[1])});
      if (needs[1]) r[1] = run1(c.op, {mT(c.in[0]), g[0]});
      return r;
    },
    .batch = forms::batch_leading,
    .saves = saves::in0 | saves::in1,
    .cuda_takes_half = true,
});

constinit const Op bmm_relu_grad_op = {
    .name = "matmul+relu_grad", .cpu = bmm_relu_grad_cpu, .cuda = TUTTI_ON_CUDA(bmm_relu_grad)};

namespace {

Tensor product(const Tensor& a, const Tensor& b) { return run1(bmm_op, {a, b}); }

// ---- linear: x [lead..., n, k], w [lead..., o, k], bias [lead..., o] or undefined. In a compiled
// function attrs.flags may be the kernels::Activation of the op that followed.

void linear_shape(Inputs in, const Attrs&, Metas& out) {
  const Tensor &x = in[0], &w = in[1], &bias = in[2];
  check_product("linear", x, w);
  check<ShapeError>(x.dim() == w.dim() && leading(x) == leading(w) && x.size(-1) == w.size(-1),
                    "linear", "expected shapes [..., n, k] and [..., o, k], got ", x.sizes(),
                    " and ", w.sizes(), "; reshape one");
  if (bias.defined()) {
    check_product("linear", x, bias);
    Shape expected = leading(w).shape();
    expected.push_back(w.size(-2));
    check<ShapeError>(bias.sizes() == IntArrayRef(expected), "linear", "expected bias of shape ",
                      expected, " (weight is ", w.sizes(), "), got ", bias.sizes(),
                      "; give one number per output");
  }
  out.push_back({joined(leading(x), x.size(-2), w.size(-2)), x.dtype(), x.device()});
}

void linear_cpu(Inputs in, Inputs out, const Attrs& a) {
  const Tensor &x = in[0], &w = in[1], &bias = in[2];
  kernels::Matrices b;
  if (bias.defined()) {
    const IntArrayRef strides = bias.strides();
    b = {bias.raw(), Shape(strides.begin(), strides.end() - 1), 0, strides.back()};
  }
  kernels::gemm({.dtype = x.dtype(),
                 .m = x.size(-2),
                 .n = w.size(-2),
                 .k = x.size(-1),
                 .batch = leading(x).shape(),
                 .a = matrices(x),
                 .b = matrices(w, true),
                 .bias = b,
                 .out = out[0].raw(),
                 .activation = static_cast<kernels::Activation>(a.flags)});
}

// ---- linear_grad: in = {gradient of the result, x, w, the result if relu was applied to it, else
// undefined}, out = {gradients of x, w, bias}, of which attrs.flags says which are wanted. As in
// PyTorch's linear_backward.

constexpr std::uint32_t kOfX = 1, kOfWeight = 2, kOfBias = 4;

Tensors linear_grad_by_parts(Inputs in, const Attrs& a) {
  const Tensor &x = in[1], &w = in[2], &y = in[3];
  const Tensor g = y.defined() ? run1(relu_grad_op, {in[0], y}) : in[0];
  Tensors r;
  if (a.flags & kOfX) r.push_back(product(g, w));
  if (a.flags & kOfWeight) r.push_back(product(mT(g), x));
  if (a.flags & kOfBias) r.push_back(sum(g, -2));
  return r;
}

void linear_grad_shape(Inputs in, const Attrs& a, Metas& out) {
  const Tensor &g = in[0], &x = in[1], &w = in[2];
  const auto add = [&](Shape sizes) { out.push_back({std::move(sizes), g.dtype(), g.device()}); };
  if (a.flags & kOfX) add(x.sizes().shape());
  if (a.flags & kOfWeight) add(w.sizes().shape());
  if (a.flags & kOfBias) {
    Shape sizes = leading(g).shape();
    sizes.push_back(g.size(-1));
    add(std::move(sizes));
  }
}

void linear_grad_cpu(Inputs in, Inputs out, const Attrs& a) {
  const Tensor &g = in[0], &x = in[1], &w = in[2], &y = in[3];
  const std::int64_t rows = g.size(-2), outputs = g.size(-1), inputs = x.size(-1);
  // With gaps, or very long sums, relu's derivative and the sums are passes of their own.
  const bool dense = g.is_contiguous() && (!y.defined() || y.is_contiguous()) &&
                     (!(a.flags & kOfBias) || rows <= kernels::kFewRows);
  Tensor masked = g;
  if (!dense && y.defined()) {
    masked = make_dense(g.sizes(), g.dtype(), g.device());
    relu_grad_op.cpu(Lent(g, y), Inputs(&masked, 1), Attrs::none());
  }
  const kernels::LayerGradient layer{
      .data = g.raw(),
      .rows = rows,
      .columns = outputs,
      .relu_output = y.defined() ? y.raw() : nullptr,
      .row_sums = a.flags & kOfBias ? out.back().raw() : nullptr,
  };
  const auto gradient = [&](bool transposed) {
    kernels::Matrices m = matrices(masked, transposed);
    if (dense) m.data = &layer;
    return m;
  };
  SmallVec<kernels::Gemm, 2> list;
  const auto add = [&](std::int64_t m, std::int64_t n, std::int64_t k, kernels::Matrices left,
                       kernels::Matrices right) {
    kernels::Gemm& p = list.emplace_back();
    p.dtype = g.dtype();
    p.m = m;
    p.n = n;
    p.k = k;
    p.batch = leading(g).shape();
    p.a = std::move(left);
    p.b = std::move(right);
    p.out = out[list.size() - 1].raw();
  };
  if (a.flags & kOfX) add(rows, inputs, outputs, gradient(false), matrices(w));
  if (a.flags & kOfWeight) add(outputs, inputs, rows, gradient(true), matrices(x));
  kernels::gemm({list.data(), list.size()}, dense ? &layer : nullptr);
  if (!dense && a.flags & kOfBias) {
    Attrs axis;
    axis.dims.push_back(g.dim() - 2);
    kernels::sum(Inputs(&masked, 1), out.last(1), axis);
  }
}

constinit const Op linear_grad_op = forms::complete({
    .name = "linear_grad",
    .shape = linear_grad_shape,
    .cpu = linear_grad_cpu,
    .batch = forms::batch_leading,
    .expand = linear_grad_by_parts,
    .fused_by_compile = true,
});

/// Of linear, and with relu's `y` of linear_relu.
Tensors linear_gradients(const Call& c, const Tensor& g, const Tensor& y, Needs needs) {
  Attrs a;
  a.flags = (needs[0] ? kOfX : 0) | (needs[1] ? kOfWeight : 0) |
            (needs[2] && c.in[2].defined() ? kOfBias : 0);
  const Lent in(g, c.in[0], c.in[1], y);
  const bool one = std::has_single_bit(a.flags);
  Tensors all = one ? linear_grad_by_parts(in, a) : run(linear_grad_op, in, a);
  Tensors r(3);
  for (std::size_t i = 0, k = 0; i < 3; ++i)
    if (a.flags >> i & 1) r[i] = std::move(all[k++]);
  return r;
}

Tensors linear_jvp(const Call& c, Inputs t) {
  const Tensor &x = c.in[0], &w = c.in[1];
  Tensor bias = t[2], out;  // the first product takes the bias along
  if (t[0].defined()) out = run1(linear_op, {t[0], w, std::exchange(bias, {})});
  if (t[1].defined())
    out = forms::add_grads(out, run1(linear_op, {x, t[1], std::exchange(bias, {})}));
  if (bias.defined()) out = expand(unsqueeze(bias, -2), c.out[0].sizes());
  return {out};
}

}  // namespace

constinit const Op linear_op = forms::complete({
    .name = "linear",
    .shape = linear_shape,
    .cpu = linear_cpu,
    .cuda = TUTTI_ON_CUDA(linear),
    .vjp = [](const Call& c, Inputs g, Needs needs) -> Tensors {
      return linear_gradients(c, g[0], Tensor(), needs);
    },
    .jvp = linear_jvp,
    .batch = forms::batch_leading,
    .saves = saves::in0 | saves::in1,
    .cuda_takes_half = true,
});

// relu(linear(...)): what is between them is never in memory.
constinit const Op linear_relu_op = forms::complete({
    .name = "linear_relu",
    .shape = linear_shape,
    .cpu =
        [](Inputs in, Inputs out, const Attrs&) {
          Attrs a;
          a.flags = static_cast<std::uint32_t>(kernels::Activation::relu);
          linear_cpu(in, out, a);
        },
    .vjp = [](const Call& c, Inputs g, Needs needs) -> Tensors {
      return linear_gradients(c, g[0], c.out[0], needs);
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors {
      return {run1(relu_grad_op, {linear_jvp(c, t)[0], c.out[0]})};
    },
    .batch = forms::batch_leading,
    .expand = [](Inputs in, const Attrs&) -> Tensors { return {relu(run1(linear_op, in))}; },
    .saves = saves::in0 | saves::in1 | saves::outputs,
    .fused_by_compile = true,
});

// ---- the public functions

Tensor matmul(const Tensor& self, const Tensor& other) {
  check<ShapeError>(self.dim() >= 1 && other.dim() >= 1, "matmul",
                    "expected operands of at least 1 axis, got shapes ", self.sizes(), " and ",
                    other.sizes(), "; use mul() for numbers");
  const std::int64_t inner = other.size(other.dim() == 1 ? 0 : -2);
  check<ShapeError>(self.size(-1) == inner, "matmul", "expected the last axis of ", self.sizes(),
                    " (", self.size(-1), ") to equal the ",
                    other.dim() == 1 ? "only" : "second-to-last", " axis of ", other.sizes(), " (",
                    inner, "); transpose or reshape one");
  // A vector counts as a row on the left and as a column on the right; that axis is dropped again.
  if (self.dim() == 1) return squeeze(matmul(unsqueeze(self, 0), other), other.dim() == 1 ? 0 : -2);
  if (other.dim() == 1) return squeeze(matmul(self, unsqueeze(other, 1)), -1);
  if (self.dim() == 2 && other.dim() == 2) return product(self, other);
  if (other.dim() == 2) {  // one matrix for all rows
    Shape sizes = self.sizes().shape();
    sizes.back() = other.size(1);
    std::int64_t rows = numel_of({self.sizes().data(), sizes.size() - 1});
    return reshape(product(reshape(self, {rows, self.size(-1)}), other), sizes);
  }
  if (leading(self) == leading(other)) return product(self, other);
  Shape lead = broadcast_shapes(leading(self), leading(other), "matmul");
  return product(expand(self, joined(lead, self.size(-2), self.size(-1))),
                 expand(other, joined(lead, inner, other.size(-1))));
}

Tensor mm(const Tensor& self, const Tensor& other) {
  check<ShapeError>(self.dim() == 2 && other.dim() == 2 && self.size(1) == other.size(0), "mm",
                    "expected shapes [n, k] and [k, m], got ", self.sizes(), " and ", other.sizes(),
                    "; transpose one, or use matmul() for other ranks");
  return product(self, other);
}

Tensor bmm(const Tensor& self, const Tensor& other) {
  check<ShapeError>(self.dim() == 3 && other.dim() == 3 && self.size(0) == other.size(0) &&
                        self.size(2) == other.size(1),
                    "bmm", "expected shapes [b, n, k] and [b, k, m], got ", self.sizes(), " and ",
                    other.sizes(), "; transpose one, or use matmul() to broadcast");
  return product(self, other);
}

Tensor mv(const Tensor& self, const Tensor& other) {
  check<ShapeError>(self.dim() == 2 && other.dim() == 1 && self.size(1) == other.size(0), "mv",
                    "expected shapes [n, k] and [k], got ", self.sizes(), " and ", other.sizes(),
                    "; transpose the matrix, or use matmul() for other ranks");
  return matmul(self, other);
}

Tensor dot(const Tensor& self, const Tensor& other) {
  check<ShapeError>(self.dim() == 1 && other.dim() == 1 && self.size(0) == other.size(0), "dot",
                    "expected two vectors of one length, got shapes ", self.sizes(), " and ",
                    other.sizes(), "; flatten() or narrow() one");
  return squeeze(product(unsqueeze(self, 0), unsqueeze(other, 1)));
}

Tensor outer(const Tensor& self, const Tensor& other) {
  check<ShapeError>(self.dim() == 1 && other.dim() == 1, "outer",
                    "expected two vectors, got shapes ", self.sizes(), " and ", other.sizes(),
                    "; flatten() them first");
  return mul(unsqueeze(self, 1), other);
}

/// beta * self + alpha * ab. With beta 0 the values of self do not matter, not even NaN.
static Tensor add_product(const Tensor& self, Tensor ab, Scalar beta, Scalar alpha,
                          const char* op) {
  check<ShapeError>(IntArrayRef(broadcast_shapes(self.sizes(), ab.sizes(), op)) == ab.sizes(), op,
                    "expected a first operand that broadcasts to ", ab.sizes(), ", got ",
                    self.sizes(), "; reshape or sum() it");
  if (alpha.to_double() != 1) ab = mul(ab, alpha);
  if (beta.to_double() == 0) return ab;
  return add(ab, self, beta);
}

Tensor addmm(const Tensor& self, const Tensor& a, const Tensor& b, Scalar beta, Scalar alpha) {
  return add_product(self, mm(a, b), beta, alpha, "addmm");
}

Tensor baddbmm(const Tensor& self, const Tensor& a, const Tensor& b, Scalar beta, Scalar alpha) {
  return add_product(self, bmm(a, b), beta, alpha, "baddbmm");
}

/// linear_op or linear_relu_op on the rows of self; undefined for a weight that is a vector.
static Tensor rows_through(const Op& op, const Tensor& self, const Tensor& weight,
                           const Tensor& bias) {
  check<ValueError>(self.defined() && weight.defined(), "linear",
                    "expected a defined input and weight, got an undefined one; assign it first");
  check<ShapeError>(weight.dim() == 2 || weight.dim() == 1, "linear",
                    "expected weight [out, in] or [in], got ", weight.sizes(),
                    "; reshape it, or map over its members with vmap");
  check<ShapeError>(self.dim() >= 1 && self.size(-1) == weight.size(-1), "linear",
                    "expected input with last axis ", weight.size(-1), " (weight is ",
                    weight.sizes(), "), got ", self.sizes(),
                    "; reshape the input, or make the layer that wide");
  if (weight.dim() == 1) return {};
  if (self.dim() == 2) return run1(op, {self, weight, bias});
  Shape sizes = self.sizes().shape();
  sizes.back() = weight.size(0);
  std::int64_t rows = numel_of({self.sizes().data(), sizes.size() - 1});
  return reshape(run1(op, {reshape(self, {rows, self.size(-1)}), weight, bias}), sizes);
}

Tensor linear(const Tensor& self, const Tensor& weight, const Tensor& bias) {
  if (Tensor y = rows_through(linear_op, self, weight, bias); y.defined()) return y;
  Tensor y = matmul(self, weight);
  if (!bias.defined()) return y;
  check_product("linear", y, bias);
  check<ShapeError>(broadcast_shapes(y.sizes(), bias.sizes(), "linear") == y.sizes().shape(),
                    "linear", "expected a bias that broadcasts to the result, ", y.sizes(),
                    " (weight is ", weight.sizes(), "), got ", bias.sizes(), "; give one number");
  return add(y, bias);
}

Tensor linear_relu(const Tensor& input, const Tensor& weight, const Tensor& bias) {
  Tensor y = rows_through(linear_relu_op, input, weight, bias);
  return y.defined() ? y : relu(linear(input, weight, bias));
}

Tensor trace(const Tensor& self) {
  check<ShapeError>(self.dim() == 2, "trace", "expected a matrix, got shape ", self.sizes(),
                    "; use diagonal().sum(-1) for stacks of matrices");
  return sum(diagonal(self));
}

}  // namespace tutti
