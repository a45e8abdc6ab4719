// Reductions, scans, sorting, softmax.
#include <cmath>

#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/reduce.h>
#include <tutti/core/kernels/scan_sort.h>
#include <tutti/core/kernels/softmax.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>
#include <tutti/core/ops/records.h>

namespace tutti {
namespace {

constexpr std::uint32_t keep = 1;        // reductions: reduced axes stay, with size 1
constexpr std::uint32_t descending = 1;  // sort

// ---- helpers

std::int64_t last_axis(const Tensor& x) { return x.dim() - 1; }

Attrs attrs_for(Shape dims, std::uint32_t flags = 0) {
  Attrs a;
  a.dims = std::move(dims);
  a.flags = flags;
  return a;
}

std::uint32_t keep_flag(bool keepdim) { return keepdim ? keep : 0; }

Shape every_axis(const Tensor& x) { return normalize_axes({}, x.dim(), "reduce", true); }

/// A value per result, shaped to broadcast against what was reduced.
Tensor restore(Tensor y, const Attrs& a) {
  if (a.flags & keep) return y;
  for (const std::int64_t d : a.dims) y = y.unsqueeze(d);
  return y;
}
Tensor restore(const Tensor& y, const Attrs& a, const Tensor& like) {
  return restore(y, a).expand(like.sizes());
}

DType sum_dtype(DType t) { return is_floating(t) ? t : kInt64; }

void need_floating(const Tensor& x, const char* op) {
  check<TypeError>(is_floating(x.dtype()), op, "expected a floating dtype, got ", x.dtype(),
                   "; convert with to(kFloat32)");
}

/// x, with an axis of size 1 if it has none.
Tensor at_least_1d(const Tensor& x) { return x.dim() == 0 ? x.unsqueeze(0) : x; }

/// Removes the axis at_least_1d() added.
Tensor like_rank(const Tensor& y, const Tensor& x) { return x.dim() == 0 ? y.squeeze(0) : y; }

void set_reduced(Inputs in, const Attrs& a, DType t, Metas& out) {
  Meta m{{}, t, in[0].device()};
  const IntArrayRef sizes = in[0].sizes();
  std::size_t next = 0;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    const bool gone = next < a.dims.size() && a.dims[next] == static_cast<std::int64_t>(d);
    if (gone) ++next;
    if (!gone || (a.flags & keep)) m.sizes.push_back(gone ? 1 : sizes[d]);
  }
  out.push_back(std::move(m));
}

/// Reduced axes must hold something to choose from.
void check_not_empty(Inputs in, const Attrs& a, const char* op) {
  for (const std::int64_t d : a.dims)
    check<IndexError>(in[0].size(d) > 0, op, "expected at least one element along axis ", d,
                      ", got shape ", in[0].sizes(), "; give axes that are not empty");
}

// ---- shape rules

void sum_shape(Inputs in, const Attrs& a, Metas& out) {
  set_reduced(in, a, sum_dtype(in[0].dtype()), out);
}
void bool_shape(Inputs in, const Attrs& a, Metas& out) { set_reduced(in, a, kBool, out); }
void extreme_shape(Inputs in, const Attrs& a, Metas& out) {
  check_not_empty(in, a, "amax/amin");
  set_reduced(in, a, in[0].dtype(), out);
}
void arg_shape(Inputs in, const Attrs& a, Metas& out) {
  check_not_empty(in, a, "argmax/argmin");
  set_reduced(in, a, kInt64, out);
}
void same_as_first(Inputs in, const Attrs&, Metas& out) {
  out.push_back({in[0].sizes().shape(), in[0].dtype(), in[0].device()});
}
void sort_shape(Inputs in, const Attrs& a, Metas& out) {
  same_as_first(in, a, out);
  out.push_back({in[0].sizes().shape(), kInt64, in[0].device()});
}
void softmax_shape(Inputs in, const Attrs& a, Metas& out) {
  need_floating(in[0], "softmax");
  forms::shape_same(in, a, out);
}

// ---- sum

Tensors sum_vjp(const Call& c, Inputs g, Needs) { return {restore(g[0], c.attrs, c.in[0])}; }
constinit const Op sum_op = forms::linear({.name = "sum",
                                           .shape = sum_shape,
                                           TUTTI_KERNEL(sum),
                                           .vjp = sum_vjp,
                                           .batch = forms::batch_leading});

Tensor sum_over(const Tensor& x, Shape dims, bool keepdim) {
  if (dims.empty() && is_floating(x.dtype())) return x.clone();
  return run1(sum_op, {x}, attrs_for(std::move(dims), keep_flag(keepdim)));
}

// ---- amax, amin

/// 1 / ties at the extremes y of x, 0 elsewhere.
Tensor share_of(const Tensor& x, const Tensor& y, const Attrs& a) {
  const Tensor hit = x.eq(restore(y, a, x)).to(x.dtype());
  return hit.div(sum_over(hit, a.dims, true).expand(x.sizes()));
}
Tensors extreme_vjp(const Call& c, Inputs g, Needs) {
  return {restore(g[0], c.attrs, c.in[0]).mul(share_of(c.in[0], c.out[0], c.attrs))};
}
Tensors extreme_jvp(const Call& c, Inputs t) {
  return {run1(sum_op, {t[0].mul(share_of(c.in[0], c.out[0], c.attrs))}, c.attrs)};
}
constinit const Op amax_op = forms::complete({.name = "amax",
                                              .shape = extreme_shape,
                                              TUTTI_KERNEL(amax),
                                              .vjp = extreme_vjp,
                                              .jvp = extreme_jvp,
                                              .batch = forms::batch_leading,
                                              .saves = saves::in0 | saves::outputs});
constinit const Op amin_op = forms::complete({.name = "amin",
                                              .shape = extreme_shape,
                                              TUTTI_KERNEL(amin),
                                              .vjp = extreme_vjp,
                                              .jvp = extreme_jvp,
                                              .batch = forms::batch_leading,
                                              .saves = saves::in0 | saves::outputs});

// ---- reductions without derivative

constinit const Op argmax_op = forms::complete({.name = "argmax",
                                                .shape = arg_shape,
                                                TUTTI_KERNEL(argmax),
                                                .batch = forms::batch_leading,
                                                .differentiable = false});
constinit const Op argmin_op = forms::complete({.name = "argmin",
                                                .shape = arg_shape,
                                                TUTTI_KERNEL(argmin),
                                                .batch = forms::batch_leading,
                                                .differentiable = false});
constinit const Op any_op = forms::complete({.name = "any",
                                             .shape = bool_shape,
                                             TUTTI_KERNEL(any),
                                             .batch = forms::batch_leading,
                                             .differentiable = false});
constinit const Op all_op = forms::complete({.name = "all",
                                             .shape = bool_shape,
                                             TUTTI_KERNEL(all),
                                             .batch = forms::batch_leading,
                                             .differentiable = false});

// ---- scans

Tensor reversed_cumsum(const Tensor& x, std::int64_t axis) {
  return x.flip(axis).cumsum(axis).flip(axis);
}
Tensors cumsum_vjp(const Call& c, Inputs g, Needs) {
  return {reversed_cumsum(g[0], c.attrs.dims[0])};
}
constinit const Op cumsum_op = forms::linear({.name = "cumsum",
                                              .shape = same_as_first,
                                              TUTTI_KERNEL(cumsum),
                                              .vjp = cumsum_vjp,
                                              .batch = forms::batch_leading});

/// x moved one place along the axis, `first` coming in at the front and the last element falling
/// off.
Tensor shifted(const Tensor& x, std::int64_t axis, double first) {
  const std::int64_t n = x.size(axis);
  if (n == 0) return x;
  return cat({x.narrow(axis, 0, 1).full_like(first), x.narrow(axis, 0, n - 1)}, axis);
}

/// y[i] = p[i] * y[i - 1] + q[i] from y[-1] = 0: what running products have as derivative, and its
/// own derivative.
Tensor recur(const Tensor& p, const Tensor& q, std::int64_t axis);
/// The same from the far end: y[i] = p[i + 1] * y[i + 1] + q[i].
Tensor recur_back(const Tensor& p, const Tensor& q, std::int64_t axis) {
  return recur(shifted(p.flip(axis), axis, 0), q.flip(axis), axis).flip(axis);
}
Tensors recur_vjp(const Call& c, Inputs g, Needs needs) {
  const std::int64_t axis = c.attrs.dims[0];
  const Tensor dq = recur_back(c.in[0], g[0], axis);
  return {needs[0] ? dq.mul(shifted(c.out[0], axis, 0)) : Tensor(), dq};
}
Tensors recur_jvp(const Call& c, Inputs t) {
  const std::int64_t axis = c.attrs.dims[0];
  const Tensor by_p = t[0].defined() ? t[0].mul(shifted(c.out[0], axis, 0)) : Tensor();
  return {recur(c.in[0], forms::add_grads(by_p, t[1]), axis)};
}
constinit const Op recurrence_op = forms::complete({.name = "recurrence",
                                                    .shape = forms::shape_same,
                                                    TUTTI_KERNEL(recurrence),
                                                    .vjp = recur_vjp,
                                                    .jvp = recur_jvp,
                                                    .batch = forms::batch_leading,
                                                    .saves = saves::in0 | saves::outputs});
Tensor recur(const Tensor& p, const Tensor& q, std::int64_t axis) {
  return run1(recurrence_op, {p, q}, attrs_for({axis}));
}

Tensors cumprod_vjp(const Call& c, Inputs g, Needs) {
  const std::int64_t axis = c.attrs.dims[0];
  return {recur_back(c.in[0], g[0], axis).mul(shifted(c.out[0], axis, 1))};
}
Tensors cumprod_jvp(const Call& c, Inputs t) {
  const std::int64_t axis = c.attrs.dims[0];
  return {recur(c.in[0], t[0].mul(shifted(c.out[0], axis, 1)), axis)};
}
constinit const Op cumprod_op = forms::complete({.name = "cumprod",
                                                 .shape = same_as_first,
                                                 TUTTI_KERNEL(cumprod),
                                                 .vjp = cumprod_vjp,
                                                 .jvp = cumprod_jvp,
                                                 .batch = forms::batch_leading,
                                                 .saves = saves::in0 | saves::outputs});

// ---- prod

/// For each element the product of all others along the axis; no division, so zeros do no harm.
Tensor others(const Tensor& x, std::int64_t axis) {
  const Tensor before = shifted(x, axis, 1).cumprod(axis);
  return before.mul(shifted(x.flip(axis), axis, 1).cumprod(axis).flip(axis));
}
Tensors prod_vjp(const Call& c, Inputs g, Needs) {
  return {restore(g[0], c.attrs, c.in[0]).mul(others(c.in[0], c.attrs.dims[0]))};
}
Tensors prod_jvp(const Call& c, Inputs t) {
  return {run1(sum_op, {t[0].mul(others(c.in[0], c.attrs.dims[0]))}, c.attrs)};
}
constinit const Op prod_op = forms::complete({.name = "prod",
                                              .shape = sum_shape,
                                              TUTTI_KERNEL(prod),
                                              .vjp = prod_vjp,
                                              .jvp = prod_jvp,
                                              .batch = forms::batch_leading,
                                              .saves = saves::in0});

// ---- sort

Tensors sort_vjp(const Call& c, Inputs g, Needs) {
  if (!g[0].defined()) return {Tensor()};
  return {g[0].zeros_like().scatter(c.attrs.dims[0], c.out[1], g[0])};
}
Tensors sort_jvp(const Call& c, Inputs t) {
  return {t[0].gather(c.attrs.dims[0], c.out[1]), Tensor()};
}
constinit const Op sort_op = forms::complete({.name = "sort",
                                              .shape = sort_shape,
                                              TUTTI_KERNEL(sort),
                                              .vjp = sort_vjp,
                                              .jvp = sort_jvp,
                                              .batch = forms::batch_leading,
                                              .saves = saves::outputs});

// ---- softmax over the last axis

Tensor softmax_vjp_by_parts(const Tensor& g, const Tensor& y) {
  return y.mul(g.sub(sum_over(g.mul(y), {last_axis(y)}, true)));
}
Tensor log_softmax_vjp_by_parts(const Tensor& g, const Tensor& y) {
  return g.sub(y.exp().mul(sum_over(g, {last_axis(y)}, true)));
}
constinit const Op softmax_grad_op =
    forms::complete({.name = "softmax_grad",
                     .shape = forms::shape_same,
                     TUTTI_KERNEL(softmax_grad),
                     .batch = forms::batch_leading,
                     .expand = [](Inputs in, const Attrs&) -> Tensors {
                       return {softmax_vjp_by_parts(in[0], in[1])};
                     }});
constinit const Op log_softmax_grad_op =
    forms::complete({.name = "log_softmax_grad",
                     .shape = forms::shape_same,
                     TUTTI_KERNEL(log_softmax_grad),
                     .batch = forms::batch_leading,
                     .expand = [](Inputs in, const Attrs&) -> Tensors {
                       return {log_softmax_vjp_by_parts(in[0], in[1])};
                     }});

Tensors softmax_vjp(const Call& c, Inputs g, Needs) { return {softmax_grad(g[0], c.out[0])}; }
// The matrix of derivatives is symmetric, so the tangent follows from the rule for gradients.
Tensors softmax_jvp(const Call& c, Inputs t) { return {softmax_grad(t[0], c.out[0])}; }
constinit const Op softmax_op = forms::complete({.name = "softmax",
                                                 .shape = softmax_shape,
                                                 TUTTI_KERNEL(softmax),
                                                 .vjp = softmax_vjp,
                                                 .jvp = softmax_jvp,
                                                 .batch = forms::batch_leading,
                                                 .saves = saves::outputs});

Tensors log_softmax_vjp(const Call& c, Inputs g, Needs) {
  return {run1(log_softmax_grad_op, {g[0], c.out[0]})};
}
Tensors log_softmax_jvp(const Call& c, Inputs t) {
  const Tensor& y = c.out[0];
  return {t[0].sub(sum_over(t[0].mul(y.exp()), {last_axis(y)}, true))};
}
constinit const Op log_softmax_op = forms::complete({.name = "log_softmax",
                                                     .shape = softmax_shape,
                                                     TUTTI_KERNEL(log_softmax),
                                                     .vjp = log_softmax_vjp,
                                                     .jvp = log_softmax_jvp,
                                                     .batch = forms::batch_leading,
                                                     .saves = saves::outputs});

Tensor along_last(const Op& op, const Tensor& self, std::int64_t axis, std::optional<DType> dtype) {
  const Tensor x = at_least_1d(dtype ? self.to(*dtype) : self);
  const std::int64_t d = normalize_axis(axis, x.dim(), op.name);
  if (d == last_axis(x)) return like_rank(run1(op, {x}), self);
  return run1(op, {x.transpose(d, -1)}).transpose(d, -1);
}

/// (values, indices) along one axis, or of all elements, of an argmax or argmin.
Tensor arg_extreme(const Op& op, const Tensor& self, std::optional<std::int64_t> axis,
                   bool keepdim) {
  if (!axis) {
    const Tensor i = run1(op, {self.reshape(-1)}, attrs_for({0}));
    return keepdim ? i.reshape(Shape(static_cast<std::size_t>(self.dim()), 1)) : i;
  }
  const Tensor x = at_least_1d(self);
  return like_rank(run1(op, {x},
                        attrs_for({normalize_axis(*axis, x.dim(), op.name)},
                                  keep_flag(keepdim || self.dim() == 0))),
                   self);
}

std::tuple<Tensor, Tensor> extreme_along(const Op& op, const Tensor& self, std::int64_t axis,
                                         bool keepdim) {
  const std::int64_t d = normalize_axis(axis, self.dim(), op.name);
  const Tensor x = at_least_1d(self);
  const Tensor indices = run1(op, {x}, attrs_for({d}, keep));
  const Tensor values = x.gather(d, indices);
  if (keepdim && self.dim() > 0) return {values, indices};
  return {values.squeeze(d), indices.squeeze(d)};
}

Tensor truth(const Op& op, const Tensor& self, Shape dims, bool keepdim) {
  return run1(op, {self}, attrs_for(std::move(dims), keep_flag(keepdim)));
}

/// sqrt whose derivative at 0 is taken as 0.
Tensor sqrt_flat_at_zero(const Tensor& x) {
  const Tensor zero = x.eq(0);
  return x.masked_fill(zero, 1).sqrt().masked_fill(zero, 0);
}

Shape reduced_axes(const Tensor& self, IntArrayRef axes, const char* op) {
  Shape dims = normalize_axes(axes, self.dim(), op, true);
  std::sort(dims.begin(), dims.end());
  if (self.dim() == 0) dims.clear();
  return dims;
}

std::int64_t count_along(const Tensor& x, const Shape& dims) {
  std::int64_t n = 1;
  for (const std::int64_t d : dims) n *= x.size(d);
  return n;
}

Tensor norm_over(const Tensor& x, Scalar p, const Shape& dims, bool keepdim) {
  const double power = p.to_double();
  if (power == 2) return sqrt_flat_at_zero(sum_over(x.square(), dims, keepdim));
  if (power == 1) return sum_over(x.abs(), dims, keepdim);
  if (power == 0) return sum_over(x.ne(0).to(x.dtype()), dims, keepdim);
  if (std::isinf(power)) {
    const Tensor size = x.abs();
    if (dims.empty()) return size;
    return run1(power > 0 ? amax_op : amin_op, {size}, attrs_for(dims, keep_flag(keepdim)));
  }
  const Tensor total = sum_over(x.abs().pow(power), dims, keepdim);
  const Tensor zero = total.eq(0);
  return total.masked_fill(zero, 1).pow(1 / power).masked_fill(zero, power > 0 ? 0 : INFINITY);
}

}  // namespace

// ---- sum, mean, prod

Tensor sum(const Tensor& self, std::optional<DType> dtype) {
  return tutti::sum(self, IntArrayRef(), false, dtype);
}

Tensor sum(const Tensor& self, IntArrayRef axes, bool keepdim, std::optional<DType> dtype) {
  Shape dims = reduced_axes(self, axes, "sum");
  if (!dtype) return sum_over(self, std::move(dims), keepdim);
  return sum_over(self.to(*dtype), std::move(dims), keepdim).to(*dtype);
}

Tensor mean(const Tensor& self, std::optional<DType> dtype) {
  return mean(self, IntArrayRef(), false, dtype);
}

Tensor mean(const Tensor& self, IntArrayRef axes, bool keepdim, std::optional<DType> dtype) {
  const Tensor x = dtype ? self.to(*dtype) : self;
  need_floating(x, "mean");
  if (is_half(x.dtype())) return mean(x.to(kFloat32), axes, keepdim).to(x.dtype());
  Shape dims = reduced_axes(x, axes, "mean");
  const std::int64_t n = count_along(x, dims);
  return sum_over(x, std::move(dims), keepdim).div(n);
}

Tensor prod(const Tensor& self) { return prod(self.reshape(-1), 0); }

Tensor prod(const Tensor& self, std::int64_t axis, bool keepdim) {
  const Tensor x = at_least_1d(self);
  const std::int64_t d = normalize_axis(axis, x.dim(), "prod");
  return like_rank(run1(prod_op, {x}, attrs_for({d}, keep_flag(keepdim || self.dim() == 0))), self);
}

// ---- var, std

Tensor var(const Tensor& self, IntArrayRef axes, bool unbiased, bool keepdim) {
  need_floating(self, "var");
  if (is_half(self.dtype()))
    return var(self.to(kFloat32), axes, unbiased, keepdim).to(self.dtype());
  const Shape dims = reduced_axes(self, axes, "var");
  const Tensor centred = self.sub(mean(self, dims, true));
  const std::int64_t n = count_along(self, dims) - (unbiased ? 1 : 0);
  return sum_over(centred.square(), dims, keepdim).div(std::max<std::int64_t>(n, 0));
}
Tensor var(const Tensor& self) { return var(self, IntArrayRef()); }
Tensor var(const Tensor& self, BoolArg unbiased) {
  return var(self, IntArrayRef(), unbiased.value);
}
Tensor std(const Tensor& self, IntArrayRef axes, bool unbiased, bool keepdim) {
  return sqrt_flat_at_zero(var(self, axes, unbiased, keepdim));
}
Tensor std(const Tensor& self) { return tutti::std(self, IntArrayRef()); }
Tensor std(const Tensor& self, BoolArg unbiased) {
  return tutti::std(self, IntArrayRef(), unbiased.value);
}

// ---- extremes

Tensor amax(const Tensor& self, IntArrayRef axes, bool keepdim) {
  if (self.dim() == 0) return self.clone();
  return run1(amax_op, {self}, attrs_for(reduced_axes(self, axes, "amax"), keep_flag(keepdim)));
}
Tensor amin(const Tensor& self, IntArrayRef axes, bool keepdim) {
  if (self.dim() == 0) return self.clone();
  return run1(amin_op, {self}, attrs_for(reduced_axes(self, axes, "amin"), keep_flag(keepdim)));
}
Tensor max(const Tensor& self) { return amax(self); }
Tensor min(const Tensor& self) { return amin(self); }
Tensor max(const Tensor& self, const Tensor& other) { return maximum(self, other); }
Tensor min(const Tensor& self, const Tensor& other) { return minimum(self, other); }
std::tuple<Tensor, Tensor> max(const Tensor& self, std::int64_t axis, bool keepdim) {
  return extreme_along(argmax_op, self, axis, keepdim);
}
std::tuple<Tensor, Tensor> min(const Tensor& self, std::int64_t axis, bool keepdim) {
  return extreme_along(argmin_op, self, axis, keepdim);
}
Tensor argmax(const Tensor& self, std::optional<std::int64_t> axis, bool keepdim) {
  return arg_extreme(argmax_op, self, axis, keepdim);
}
Tensor argmin(const Tensor& self, std::optional<std::int64_t> axis, bool keepdim) {
  return arg_extreme(argmin_op, self, axis, keepdim);
}

// ---- any, all

Tensor any(const Tensor& self) { return truth(any_op, self, every_axis(self), false); }
Tensor any(const Tensor& self, std::int64_t axis, bool keepdim) {
  return truth(any_op, self, reduced_axes(self, axis, "any"), keepdim);
}
Tensor all(const Tensor& self) { return truth(all_op, self, every_axis(self), false); }
Tensor all(const Tensor& self, std::int64_t axis, bool keepdim) {
  return truth(all_op, self, reduced_axes(self, axis, "all"), keepdim);
}

// ---- norm, logsumexp

Tensor norm(const Tensor& self, Scalar p) { return norm(self, p, IntArrayRef()); }
Tensor norm(const Tensor& self, Scalar p, IntArrayRef axes, bool keepdim) {
  need_floating(self, "norm");
  if (is_half(self.dtype())) return norm(self.to(kFloat32), p, axes, keepdim).to(self.dtype());
  return norm_over(self, p, reduced_axes(self, axes, "norm"), keepdim);
}

Tensor logsumexp(const Tensor& self, IntArrayRef axes, bool keepdim) {
  if (is_half(self.dtype())) return logsumexp(self.to(kFloat32), axes, keepdim).to(self.dtype());
  const Tensor x = is_floating(self.dtype()) ? self : self.to(kFloat32);
  const Shape dims = reduced_axes(x, axes, "logsumexp");
  if (count_along(x, dims) == 0) return sum_over(x.exp(), dims, keepdim).log();
  // Any shift gives the same result, so none of its derivative is wanted.
  const Tensor top = amax(x.detach(), dims, true);
  const Tensor shift = top.masked_fill(top.isinf(), 0);
  const Tensor total = sum_over(x.sub(shift).exp(), dims, true).log().add(shift);
  return keepdim || dims.empty() ? total : total.squeeze(dims);
}

// ---- scans

Tensor cumsum(const Tensor& self, std::int64_t axis) {
  const Tensor x = at_least_1d(self.to(sum_dtype(self.dtype())));
  return like_rank(run1(cumsum_op, {x}, attrs_for({normalize_axis(axis, x.dim(), "cumsum")})),
                   self);
}
Tensor cumprod(const Tensor& self, std::int64_t axis) {
  const Tensor x = at_least_1d(self.to(sum_dtype(self.dtype())));
  return like_rank(run1(cumprod_op, {x}, attrs_for({normalize_axis(axis, x.dim(), "cumprod")})),
                   self);
}

// ---- sorting

std::tuple<Tensor, Tensor> sort(const Tensor& self, std::int64_t axis, bool descending_order) {
  const Tensor x = at_least_1d(self);
  const std::int64_t d = normalize_axis(axis, x.dim(), "sort");
  Tensors r = run(sort_op, Inputs(&x, 1), attrs_for({d}, descending_order ? descending : 0));
  return {like_rank(r[0], self), like_rank(r[1], self)};
}

Tensor argsort(const Tensor& self, std::int64_t axis, bool descending_order) {
  return std::get<1>(sort(self, axis, descending_order));
}

std::tuple<Tensor, Tensor> topk(const Tensor& self, std::int64_t k, std::int64_t axis,
                                bool largest) {
  const Tensor x = at_least_1d(self);
  const std::int64_t d = normalize_axis(axis, x.dim(), "topk");
  check<IndexError>(k >= 0 && k <= x.size(d), "topk", "expected k between 0 and the ", x.size(d),
                    " elements along axis ", d, ", got ", k, "; take all with sort()");
  const auto [values, indices] = sort(x, d, largest);
  const Tensor v = values.narrow(d, 0, k), i = indices.narrow(d, 0, k);
  if (self.dim() == 0 && k == 1) return {v.squeeze(0), i.squeeze(0)};
  return {v, i};
}

std::tuple<Tensor, Tensor> median(const Tensor& self, std::int64_t axis, bool keepdim) {
  const Tensor x = at_least_1d(self);
  const std::int64_t d = normalize_axis(axis, x.dim(), "median"), n = x.size(d);
  check<IndexError>(n > 0, "median", "expected at least one element along axis ", d, ", got shape ",
                    self.sizes(), "; give an axis that is not empty");
  const auto [values, indices] = sort(x, d);
  Tensor i = indices.narrow(d, (n - 1) / 2, 1);
  if (is_floating(x.dtype())) {  // a NaN, which is sorted last, is the median of its line
    i = where(values.narrow(d, n - 1, 1).isnan(), indices.narrow(d, n - 1, 1), i);
  }
  const Tensor v = x.gather(d, i);
  if (keepdim && self.dim() > 0) return {v, i};
  return {v.squeeze(d), i.squeeze(d)};
}

Tensor median(const Tensor& self) {
  if (self.numel() == 0 && is_floating(self.dtype())) return full({}, NAN, self.options());
  return std::get<0>(median(self.reshape(-1), 0));
}

// ---- softmax, mse_loss

Tensor softmax_grad(const Tensor& g, const Tensor& y) { return run1(softmax_grad_op, {g, y}); }

Tensor softmax(const Tensor& self, std::int64_t axis, std::optional<DType> dtype) {
  return along_last(softmax_op, self, axis, dtype);
}
Tensor log_softmax(const Tensor& self, std::int64_t axis, std::optional<DType> dtype) {
  return along_last(log_softmax_op, self, axis, dtype);
}

Tensor mse_loss(const Tensor& self, const Tensor& target) {
  Naming naming("mse_loss");
  return self.sub(target).square().mean();
}

}  // namespace tutti
