// Layer norm and batch norm: fused ops whose statistics are results, and their gradients, which are
// ops themselves. The first axes of all operands count groups, so that mapping adds one.
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/norm.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>
#include <tutti/core/ops/records.h>

namespace tutti {
namespace {

using kernels::Norm;

/// Statistics are never stored as halves.
DType stats_dtype(DType t) { return is_half(t) ? kFloat32 : t; }

Attrs norm_attrs(double eps) {
  Attrs a;
  a.dims.push_back(0);
  a.scalars[0] = eps;
  return a;
}

Meta like(const Tensor& x) { return {x.sizes().shape(), x.dtype(), x.device()}; }

/// The sum over all axes from `from` on but `kept`.
Tensor sum_but(const Tensor& x, std::int64_t from, std::int64_t kept) {
  Shape axes;
  for (std::int64_t d = from; d < x.dim(); ++d)
    if (d != kept) axes.push_back(d);
  return axes.empty() ? x : sum(x, axes);
}

/// The gradients of a shape rule: like x, weight and bias, as far as they are wanted.
void gradient_shapes(Inputs in, Metas& out, const Norm& o, Shape weight) {
  if (o.flags & Norm::wants_x) out.push_back(like(in[1]));
  for (const std::uint32_t f : {Norm::wants_weight, Norm::wants_bias})
    if (o.flags & f) out.push_back({weight, in[1].dtype(), in[1].device()});
}

/// The same of an expansion, from functions that compute them.
template <class X, class W, class B>
Tensors wanted(const Norm& o, DType t, const X& x, const W& weight, const B& bias) {
  Tensors r;
  if (o.flags & Norm::wants_x) r.push_back(x().to(t));
  if (o.flags & Norm::wants_weight) r.push_back(weight().to(t));
  if (o.flags & Norm::wants_bias) r.push_back(bias().to(t));
  return r;
}

/// The gradients of x, weight and bias that `flags` asks for; the others stay undefined.
Tensors gradients(const Op& op, Inputs in, const Attrs& a, std::uint32_t flags) {
  Tensors r(3);
  if ((flags & ~Norm::given) == 0) return r;
  Attrs b = a;
  b.flags = flags;
  Tensors g = run(op, in, b);
  std::size_t k = 0;
  for (std::size_t i = 0; i < 3; ++i)
    if (flags >> i & 1) r[i] = g[k++];
  return r;
}

std::uint32_t wants(bool x, bool weight, bool bias) {
  return (x ? Norm::wants_x : 0u) | (weight ? Norm::wants_weight : 0u) |
         (bias ? Norm::wants_bias : 0u);
}

// ---- layer norm: in = {x [groups..., rows..., n], weight [groups..., n] or undefined, bias
// likewise}, attrs as Norm says; out = {y, mean of each row, 1 / its deviation}

/// A value per group and element, to broadcast against x.
Tensor per_row(Tensor weight, const Tensor& x) {
  while (weight.dim() < x.dim()) weight = weight.unsqueeze(-2);
  return weight;
}

Tensor normalised(const Tensor& x, const Tensor& mean, const Tensor& rstd) {
  return (x - mean.unsqueeze(-1)) * rstd.unsqueeze(-1);
}

Tensors layer_norm_grad_by_parts(Inputs in, const Attrs& a) {
  const Tensor &g = in[0], &x = in[1], &rstd = in[3], &weight = in[4];
  const Norm o(a);
  const auto groups = static_cast<std::int64_t>(o.group_axes), last = x.dim() - 1;
  const Tensor z = normalised(x, in[2], rstd);
  const Tensor h = weight.defined() ? g * per_row(weight, x) : g;
  return wanted(
      o, x.dtype(),
      [&] { return (h - h.mean(-1, true) - z * (h * z).mean(-1, true)) * rstd.unsqueeze(-1); },
      [&] { return sum_but(g * z, groups, last); }, [&] { return sum_but(g, groups, last); });
}

// in = {gradient of y, x, mean, 1 / deviation, weight or undefined}
constinit const Op layer_norm_grad_op = forms::complete({
    .name = "layer_norm_grad",
    .shape =
        [](Inputs in, const Attrs& a, Metas& out) {
          const Norm o(a);
          Shape weight = in[1].sizes().shape();
          weight[o.group_axes] = weight.back();
          weight.resize(o.group_axes + 1);
          gradient_shapes(in, out, o, std::move(weight));
        },
    TUTTI_KERNEL(layer_norm_grad),
    .batch = forms::batch_leading,
    .expand = layer_norm_grad_by_parts,
});

Tensors layer_norm_vjp(const Call& c, Inputs g, Needs needs) {
  const Tensor &x = c.in[0], &weight = c.in[1], &mean = c.out[1], &rstd = c.out[2];
  Tensors r(3);
  if (g[0].defined())
    r = gradients(layer_norm_grad_op, Lent(g[0], x, mean, rstd, weight), c.attrs,
                  wants(needs[0], needs[1] && weight.defined(), needs[2] && c.in[2].defined()));
  if (!needs[0]) return r;
  const double n = static_cast<double>(x.size(-1));
  if (g[1].defined())
    r[0] = forms::add_grads(r[0], (g[1].unsqueeze(-1) / n).expand(x.sizes()).to(x.dtype()));
  if (g[2].defined()) {
    const Tensor d = (g[2] * rstd.square() / -n).unsqueeze(-1);
    r[0] = forms::add_grads(r[0], (normalised(x, mean, rstd) * d).to(x.dtype()));
  }
  return r;
}

// The matrix of derivatives of a normalised row is symmetric, so that its tangent follows from the
// rule for gradients.
Tensors layer_norm_jvp(const Call& c, Inputs t) {
  const Tensor &x = c.in[0], &weight = c.in[1], &mean = c.out[1], &rstd = c.out[2];
  Tensors r(3);
  if (t[0].defined()) {
    const Tensor d = gradients(layer_norm_grad_op, Lent(t[0], x, mean, rstd, Tensor()), c.attrs,
                               Norm::wants_x)[0];
    r[0] = weight.defined() ? d * per_row(weight, x) : d;
    r[1] = t[0].to(mean.dtype()).mean(-1);
    r[2] = (t[0] * normalised(x, mean, rstd)).mean(-1) * rstd.square().neg();
  }
  if (t[1].defined())
    r[0] = forms::add_grads(r[0], (normalised(x, mean, rstd) * per_row(t[1], x)).to(x.dtype()));
  if (t[2].defined()) r[0] = forms::add_grads(r[0], per_row(t[2], x).expand(x.sizes()));
  return r;
}

constinit const Op layer_norm_op = forms::complete({
    .name = "layer_norm",
    .shape =
        [](Inputs in, const Attrs&, Metas& out) {
          out.push_back(like(in[0]));
          Shape rows = in[0].sizes().shape();
          rows.pop_back();
          for (int i = 0; i < 2; ++i)
            out.push_back({rows, stats_dtype(in[0].dtype()), in[0].device()});
        },
    TUTTI_KERNEL(layer_norm),
    .vjp = layer_norm_vjp,
    .jvp = layer_norm_jvp,
    .batch = forms::batch_leading,
    .saves = saves::in0 | saves::in1 | saves::outputs,
});

// ---- batch norm: x is [groups..., N, C] or [groups..., N, C, L], everything else [groups..., C]

/// A value per channel, to broadcast against x.
Tensor per_channel(Tensor v, const Tensor& x, std::int64_t groups) {
  v = v.unsqueeze(groups);
  return v.dim() < x.dim() ? v.unsqueeze(-1) : v;
}

/// One call of the op, in smaller ops.
struct Channels {
  Channels(const Tensor& x_, const Tensor& mean, const Tensor& var, const Attrs& a)
      : o(a), groups(static_cast<std::int64_t>(o.group_axes)), x(x_) {
    count = static_cast<double>(x.size(groups)) *
            (x.dim() - groups > 2 ? static_cast<double>(x.size(-1)) : 1);
    rstd = (var + o.eps).rsqrt();
    centred = x - spread(mean);
  }
  Tensor spread(const Tensor& v) const { return per_channel(v, x, groups); }
  Tensor sum(const Tensor& v) const { return sum_but(v, groups, groups + 1); }
  Tensor normalised() const { return centred * spread(rstd); }

  Norm o;
  std::int64_t groups;
  double count;  // values per channel
  Tensor x, rstd, centred;
};

Tensors batch_norm_grad_by_parts(Inputs in, const Attrs& a) {
  const Tensor &g = in[0], &weight = in[4];
  const Channels c(in[1], in[2], in[3], a);
  const Tensor z = c.normalised();
  const auto of_x = [&] {
    const Tensor scale = c.spread(weight.defined() ? c.rstd * weight : c.rstd);
    if (c.o.flags & Norm::given) return g * scale;
    const Tensor d = c.spread(c.sum(g) / c.count), e = c.spread(c.sum(g * z) / c.count);
    return (g - d - z * e) * scale;
  };
  return wanted(
      c.o, c.x.dtype(), of_x, [&] { return c.sum(g * z); }, [&] { return c.sum(g); });
}

// in = {gradient of y, x, mean, variance, weight or undefined}
constinit const Op batch_norm_grad_op = forms::complete({
    .name = "batch_norm_grad",
    .shape = [](Inputs in, const Attrs& a,
                Metas& out) { gradient_shapes(in, out, Norm(a), in[2].sizes().shape()); },
    TUTTI_KERNEL(batch_norm_grad),
    .batch = forms::batch_leading,
    .expand = batch_norm_grad_by_parts,
});

Tensors batch_norm_train_vjp(const Call& c, Inputs g, Needs needs) {
  const Tensor &x = c.in[0], &weight = c.in[1], &mean = c.out[1], &var = c.out[2];
  Tensors r(3);
  if (g[0].defined())
    r = gradients(batch_norm_grad_op, Lent(g[0], x, mean, var, weight), c.attrs,
                  wants(needs[0], needs[1] && weight.defined(), needs[2] && c.in[2].defined()));
  if (!needs[0] || (!g[1].defined() && !g[2].defined())) return r;
  const Channels p(x, mean, var, c.attrs);
  if (g[1].defined())
    r[0] = forms::add_grads(r[0], p.spread(g[1] / p.count).expand(x.sizes()).to(x.dtype()));
  if (g[2].defined())
    r[0] = forms::add_grads(r[0], (p.centred * p.spread(g[2] * (2 / p.count))).to(x.dtype()));
  return r;
}

Tensors batch_norm_train_jvp(const Call& c, Inputs t) {
  const Tensor &x = c.in[0], &weight = c.in[1], &mean = c.out[1], &var = c.out[2];
  const Channels p(x, mean, var, c.attrs);
  Tensors r(3);
  if (t[0].defined()) {
    const Tensor d = gradients(batch_norm_grad_op, Lent(t[0], x, mean, var, Tensor()), c.attrs,
                               Norm::wants_x)[0];
    r[0] = weight.defined() ? d * p.spread(weight) : d;
    r[1] = (p.sum(t[0].to(mean.dtype())) / p.count);
    r[2] = (p.sum(t[0] * p.centred) * (2 / p.count));
  }
  if (t[1].defined())
    r[0] = forms::add_grads(r[0], (p.normalised() * p.spread(t[1])).to(x.dtype()));
  if (t[2].defined()) r[0] = forms::add_grads(r[0], p.spread(t[2]).expand(x.sizes()));
  return r;
}

// in = {x, weight or undefined, bias likewise}; out = {y, mean, biased variance}
constinit const Op batch_norm_train_op = forms::complete({
    .name = "batch_norm_train",
    .shape =
        [](Inputs in, const Attrs& a, Metas& out) {
          out.push_back(like(in[0]));
          const std::size_t groups = Norm(a).group_axes;
          Shape channels = in[0].sizes().shape();
          channels[groups] = channels[groups + 1];
          channels.resize(groups + 1);
          for (int i = 0; i < 2; ++i)
            out.push_back({channels, stats_dtype(in[0].dtype()), in[0].device()});
        },
    TUTTI_KERNEL(batch_norm_train),
    .vjp = batch_norm_train_vjp,
    .jvp = batch_norm_train_jvp,
    .batch = forms::batch_leading,
    .saves = saves::in0 | saves::in1 | saves::outputs,
});

/// What the result changes by with each channel's mean and variance, over its (x - mean) /
/// deviation and weight.
Tensor slope_of_mean(const Channels& p) { return p.rstd.neg(); }
Tensor slope_of_var(const Channels& p) { return p.rstd.square() * -0.5; }

Tensors batch_norm_eval_vjp(const Call& c, Inputs g, Needs needs) {
  const Tensor &x = c.in[0], &mean = c.in[1], &var = c.in[2], &weight = c.in[3];
  const bool has_weight = weight.defined(), has_bias = c.in[4].defined();
  const Tensors d = gradients(
      batch_norm_grad_op, Lent(g[0], x, mean, var, weight), c.attrs,
      wants(needs[0], needs[2] || (needs[3] && has_weight), needs[1] || (needs[4] && has_bias)) |
          Norm::given);
  Tensors r(5);
  r[0] = d[0];
  if (needs[3] && has_weight) r[3] = d[1];
  if (needs[4] && has_bias) r[4] = d[2];
  if (!needs[1] && !needs[2]) return r;
  const Channels p(x, mean, var, c.attrs);
  const auto weighted = [&](const Tensor& v) { return has_weight ? v * weight : v; };
  if (needs[1]) r[1] = weighted(d[2] * slope_of_mean(p)).to(mean.dtype());
  if (needs[2]) r[2] = weighted(d[1] * slope_of_var(p)).to(var.dtype());
  return r;
}

Tensors batch_norm_eval_jvp(const Call& c, Inputs t) {
  const Tensor &x = c.in[0], &mean = c.in[1], &var = c.in[2], &weight = c.in[3];
  const Channels p(x, mean, var, c.attrs);
  const auto weighted = [&](const Tensor& v) { return weight.defined() ? v * weight : v; };
  Tensor r;
  if (t[0].defined())
    r = gradients(batch_norm_grad_op, Lent(t[0], x, mean, var, weight), c.attrs,
                  Norm::wants_x | Norm::given)[0];
  if (t[1].defined())
    r = forms::add_grads(r, p.spread(weighted(t[1] * slope_of_mean(p))).expand(x.sizes()));
  if (t[2].defined())
    r = forms::add_grads(r, p.normalised() * p.spread(weighted(t[2] * slope_of_var(p))));
  if (t[3].defined()) r = forms::add_grads(r, p.normalised() * p.spread(t[3]));
  if (t[4].defined()) r = forms::add_grads(r, p.spread(t[4]).expand(x.sizes()));
  return {r.defined() ? r.to(x.dtype()) : r};
}

// in = {x, mean, variance, weight or undefined, bias likewise}; out = {y}
constinit const Op batch_norm_eval_op = forms::complete({
    .name = "batch_norm_eval",
    .shape = [](Inputs in, const Attrs&, Metas& out) { out.push_back(like(in[0])); },
    TUTTI_KERNEL(batch_norm_eval),
    .vjp = batch_norm_eval_vjp,
    .jvp = batch_norm_eval_jvp,
    .batch = forms::batch_leading,
    .saves = saves::in0 | saves::in1 | saves::in2 | saves::in3,
});

// ---- helpers of the public functions

void need_floating(const Tensor& x, const char* op) {
  check<TypeError>(x.is_floating_point(), op, "expected a floating input, got ", x.dtype(),
                   "; convert with to(kFloat32)");
}

/// The dtype of the result: of all that are defined.
DType common_dtype(std::initializer_list<const Tensor*> tensors) {
  DType t = (*tensors.begin())->dtype();
  for (const Tensor* x : tensors)
    if (x->defined()) t = promote_types(t, x->dtype());
  return t;
}

Tensor cast(const Tensor& x, DType t) { return x.defined() ? x.to(t) : x; }

/// The input of batch norm as the ops take it: at most one axis after the channels.
Tensor as_batch(const Tensor& self, std::initializer_list<const Tensor*> others, DType t) {
  const char* op = "batch_norm";
  check<ValueError>(self.dim() >= 2, op, "expected an input [N, C, ...], got shape ", self.sizes(),
                    "; keep the batch axis, as the statistics are over it");
  need_floating(self, op);
  const std::int64_t channels = self.size(1);
  for (const Tensor* x : others)
    check<ShapeError>(!x->defined() || x->sizes() == IntArrayRef(channels), op,
                      "expected statistics, weight and bias of shape [", channels,
                      "], the input's axis 1, got ", x->defined() ? x->sizes() : IntArrayRef(),
                      "; give one number per channel");
  const Tensor x = self.to(t);
  if (x.dim() <= 3) return x;
  std::int64_t length = 1;
  for (std::int64_t d = 2; d < x.dim(); ++d) length *= x.size(d);
  return x.reshape({x.size(0), channels, length});
}

Tensor shaped_like(const Tensor& y, const Tensor& self) {
  return y.dim() == self.dim() ? y : y.reshape(self.sizes());
}

}  // namespace

Tensor layer_norm(const Tensor& self, IntArrayRef normalized_shape, const Tensor& weight,
                  const Tensor& bias, double eps) {
  const char* op = "layer_norm";
  const std::size_t rank = self.sizes().size(), n = normalized_shape.size();
  check<ShapeError>(
      n > 0 && n <= rank &&
          std::equal(normalized_shape.begin(), normalized_shape.end(), self.sizes().end() - n),
      op, "expected an input whose shape ends in ", normalized_shape, ", got ", self.sizes(),
      "; give the trailing sizes");
  for (const Tensor* x : {&weight, &bias})
    check<ShapeError>(!x->defined() || x->sizes() == normalized_shape, op,
                      "expected weight and bias of shape ", normalized_shape, ", got ",
                      x->defined() ? x->sizes() : IntArrayRef(), "; give one number per element");
  need_floating(self, op);
  const DType t = common_dtype({&self, &weight, &bias});
  Tensor x = self.to(t), w = cast(weight, t), b = cast(bias, t);
  if (n > 1) {
    Shape sizes;
    std::int64_t length = 1;
    for (std::size_t d = 0; d + n < rank; ++d) sizes.push_back(self.sizes()[d]);
    for (const std::int64_t s : normalized_shape) length *= s;
    sizes.push_back(length);
    x = x.reshape(sizes);
    if (w.defined()) w = w.reshape(length);
    if (b.defined()) b = b.reshape(length);
  }
  return shaped_like(run(layer_norm_op, Lent(x, w, b), norm_attrs(eps))[0], self);
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_train(const Tensor& self, const Tensor& weight,
                                                    const Tensor& bias, double eps) {
  const DType t = common_dtype({&self, &weight, &bias});
  const Tensor x = as_batch(self, {&weight, &bias}, t), w = cast(weight, t), b = cast(bias, t);
  const Tensors r = run(batch_norm_train_op, Lent(x, w, b), norm_attrs(eps));
  return {shaped_like(r[0], self), r[1], r[2]};
}

Tensor batch_norm_eval(const Tensor& self, const Tensor& mean, const Tensor& var,
                       const Tensor& weight, const Tensor& bias, double eps) {
  const DType t = common_dtype({&self, &mean, &var, &weight, &bias});
  const Tensor x = as_batch(self, {&mean, &var, &weight, &bias}, t), m = cast(mean, t),
               v = cast(var, t), w = cast(weight, t), b = cast(bias, t);
  return shaped_like(run(batch_norm_eval_op, Lent(x, m, v, w, b), norm_attrs(eps))[0], self);
}

}  // namespace tutti
