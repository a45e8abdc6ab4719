// Losses of class scores. Cross entropy with class indices is one fused op, whose second output,
// the softmax, is all that its gradient, another op, needs of the logits.
#include <tutti/core/kernels/cross_entropy.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/index.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>
#include <tutti/core/ops/records.h>

namespace tutti {
namespace {

using kernels::ClassLoss;

// ---- cross entropy over the last axis: in = {logits [groups..., rows..., C], target [groups...,
// rows...] (int64), weight [groups..., C] or undefined}, attrs as ClassLoss says; out = {loss,
// softmax, the weight of each group's targets (mean only)}

void check_classes(const Tensor& target, std::int64_t classes, const ClassLoss& o) {
  check_indices("cross_entropy_loss", kernels::index_range(target, o.ignore_index), classes);
}

/// The totals are never stored as halves: they count.
DType total_dtype(DType t) { return is_half(t) ? kFloat32 : t; }

void cross_entropy_shape(Inputs in, const Attrs& a, Metas& out) {
  const ClassLoss o(a);
  const Tensor &logits = in[0], &target = in[1];
  Shape groups = target.sizes().shape();
  groups.resize(o.group_axes);
  out.push_back({o.reduction == ClassLoss::none ? target.sizes().shape() : groups, logits.dtype(),
                 logits.device()});
  out.push_back({logits.sizes().shape(), logits.dtype(), logits.device()});
  if (o.reduction == ClassLoss::mean)
    out.push_back({groups, total_dtype(logits.dtype()), logits.device()});
}

/// The sum over the axes from..to.
Tensor sum_axes(const Tensor& x, std::int64_t from, std::int64_t to) {
  Shape axes;
  for (std::int64_t d = from; d < to; ++d) axes.push_back(d);
  return axes.empty() ? x : sum(x, axes);
}

/// One call of the op, in smaller ops.
struct Parts {
  Parts(const Tensor& target_, std::int64_t classes, DType t, const Attrs& a)
      : o(a), target(target_), dtype(t), groups(a.dims[0]), rows(target_.dim() - groups) {
    ignored = target.eq(o.ignore_index);
    hit = target.unsqueeze(-1).eq(arange(classes, TensorOptions(kInt64).device(target.device())));
    share = o.smoothing / static_cast<double>(classes);
  }
  /// A value per group, to broadcast against one per row.
  Tensor per_row(Tensor x) const {
    for (std::int64_t i = 0; i < rows; ++i) x = x.unsqueeze(-1);
    return x;
  }
  /// The weight of each class, to broadcast against the logits.
  Tensor per_element(Tensor weight) const {
    for (std::int64_t i = 0; i < rows; ++i) weight = weight.unsqueeze(-2);
    return weight;
  }
  /// What a row's loss counts for, from the gradient of the result; 0 where ignored.
  Tensor scale(const Tensor& g, const Tensor& total) const {
    if (o.reduction == ClassLoss::none) return g.masked_fill(ignored, 0);
    const Tensor each = per_row(total.defined() ? g.div(total) : g);
    return each.expand(target.sizes()).masked_fill(ignored, 0);
  }
  /// The target as probabilities.
  Tensor probabilities() const {
    const Tensor hard = hit.to(dtype);
    return o.smoothing > 0 ? hard * (1 - o.smoothing) + share : hard;
  }
  Tensor unless_ignored(const Tensor& x) const { return x.masked_fill(ignored.unsqueeze(-1), 0); }
  /// What each element adds to its row's loss per weight of its class.
  Tensor losses(const Tensor& logits) const {
    const Tensor log_p = logits.log_softmax(-1);
    Tensor x = log_p.masked_fill(hit.logical_not(), 0);
    if (o.smoothing > 0) x = x * (1 - o.smoothing) + log_p * share;
    return -unless_ignored(x);
  }
  /// What it adds to the weight of its group.
  Tensor counts() const { return unless_ignored(hit).to(dtype); }
  /// The result's sum of values per row.
  Tensor reduced(const Tensor& x) const {
    return o.reduction == ClassLoss::none ? x : sum_axes(x, groups, groups + rows);
  }

  ClassLoss o;
  Tensor target, ignored, hit;
  DType dtype;
  std::int64_t groups, rows;  // axes
  double share;               // of the smoothing that each class gets
};

Tensors grad_by_parts(Inputs in, const Attrs& a) {
  const Tensor &g = in[0], &p = in[2], &total = in[3], &weight = in[4];
  const Parts parts(in[1], p.size(-1), p.dtype(), a);
  Tensor q = parts.probabilities();
  if (weight.defined()) q = q * parts.per_element(weight);
  const Tensor d = (p * q.sum(-1, true) - q) * parts.scale(g, total).unsqueeze(-1);
  return {parts.unless_ignored(d).to(p.dtype())};
}

// in = {gradient of the loss, target, softmax, weight of the groups or undefined, weight or
// undefined}
constinit const Op cross_entropy_grad_op = forms::complete({
    .name = "cross_entropy_grad",
    .shape =
        [](Inputs in, const Attrs&, Metas& out) {
          out.push_back({in[2].sizes().shape(), in[2].dtype(), in[2].device()});
        },
    .cpu =
        [](Inputs in, Inputs out, const Attrs& a) {
          check_classes(in[1], in[2].size(-1), ClassLoss(a));
          kernels::cross_entropy_grad(in, out, a);
        },
    .cuda = TUTTI_ON_CUDA(cross_entropy_grad),
    .batch = forms::batch_leading,
    .expand = grad_by_parts,
});

/// The weight of the groups, for a mean.
Tensor total_of(const Call& c) { return c.out.size() > 2 ? c.out[2] : Tensor(); }

Tensor gradient(const Call& c, const Tensor& g, const Tensor& total) {
  return run1(cross_entropy_grad_op, {g, c.in[1], c.out[1], total, c.in[2]}, c.attrs);
}

Parts parts_of(const Call& c) {
  return Parts(c.in[1], c.in[0].size(-1), c.out[1].dtype(), c.attrs);
}

/// The gradient of the weight.
Tensor weight_gradient(const Call& c, Inputs g) {
  const Parts parts = parts_of(c);
  const Tensor total = total_of(c);
  Tensor d, of_total = total.defined() ? g[2] : Tensor();
  if (g[0].defined()) {
    d = parts.losses(c.in[0]) * parts.scale(g[0], total).unsqueeze(-1);
    if (total.defined()) of_total = forms::add_grads(of_total, -(g[0] * c.out[0] / total));
  }
  if (of_total.defined())
    d = forms::add_grads(d, parts.counts() * parts.per_row(of_total).unsqueeze(-1));
  return d.defined() ? sum_axes(d, parts.groups, parts.groups + parts.rows).to(c.in[2].dtype()) : d;
}

Tensors cross_entropy_vjp(const Call& c, Inputs g, Needs needs) {
  Tensors r(3);
  if (needs[0]) {
    if (g[0].defined()) r[0] = gradient(c, g[0], total_of(c));
    if (g[1].defined()) r[0] = forms::add_grads(r[0], softmax_grad(g[1], c.out[1]));
  }
  if (needs[2] && c.in[2].defined()) r[2] = weight_gradient(c, g);
  return r;
}

// The loss of each group is a function of its own logits, so that its derivative in a direction
// follows from the gradient.
Tensors cross_entropy_jvp(const Call& c, Inputs t) {
  const Tensor &loss = c.out[0], total = total_of(c);
  Tensors r(c.out.size());
  Tensor of_sum;  // what the mean divides
  if (t[0].defined()) {
    const Tensor d = t[0] * gradient(c, ones_like(loss), Tensor());
    of_sum = sum_axes(d, loss.dim(), d.dim());
    r[1] = softmax_grad(t[0], c.out[1]);
  }
  if (t[2].defined()) {
    const Parts parts = parts_of(c);
    const Tensor w = parts.per_element(t[2]);
    of_sum = forms::add_grads(of_sum, parts.reduced((parts.losses(c.in[0]) * w).sum(-1)));
    if (total.defined()) {
      r[2] = parts.reduced((parts.counts() * w).sum(-1)).to(total.dtype());
      of_sum = of_sum - loss * r[2];
    }
  }
  if (of_sum.defined()) r[0] = total.defined() ? (of_sum / total).to(loss.dtype()) : of_sum;
  return r;
}

/// A weight is differentiated by means of the logits, which need not be kept without one.
consteval Op cross_entropy(std::uint32_t saved_inputs) {
  return forms::complete({
      .name = "cross_entropy",
      .shape = cross_entropy_shape,
      .cpu =
          [](Inputs in, Inputs out, const Attrs& a) {
            check_classes(in[1], in[0].size(-1), ClassLoss(a));
            kernels::cross_entropy(in, out, a);
          },
      .cuda = TUTTI_ON_CUDA(cross_entropy),
      .vjp = cross_entropy_vjp,
      .jvp = cross_entropy_jvp,
      .batch = forms::batch_leading,
      .saves = saved_inputs | saves::outputs,
  });
}
constinit const Op cross_entropy_op = cross_entropy(saves::in1);
constinit const Op weighted_cross_entropy_op = cross_entropy(saves::in0 | saves::in1 | saves::in2);

// ---- helpers of the public functions

/// Where the classes are: [N, C, d...] or [C].
std::int64_t class_axis(const Tensor& input, const char* op) {
  check<ShapeError>(
      input.dim() >= 1, op,
      "expected an input [C] or [N, C, ...], got a 0-d tensor; keep the axis of the classes");
  return input.dim() == 1 ? 0 : 1;
}

Shape without(IntArrayRef sizes, std::int64_t axis) {
  Shape s = sizes.shape();
  s.erase(s.begin() + axis);
  return s;
}

/// [C] as [1, C, 1...], to multiply values with axes like the input.
Tensor along_classes(const Tensor& weight, const Tensor& input, std::int64_t axis) {
  Shape s(static_cast<std::size_t>(input.dim()), 1);
  s[static_cast<std::size_t>(axis)] = input.size(axis);
  return weight.reshape(s);
}

void check_reduction(std::int64_t reduction, const char* op) {
  check<ValueError>(reduction >= 0 && reduction <= 2, op,
                    "expected the reduction 0 (none), 1 (mean) or 2 (sum), got ", reduction,
                    "; give one of them");
}

void check_weight(const Tensor& weight, const Tensor& input, std::int64_t axis, const char* op) {
  check<ShapeError>(!weight.defined() || weight.sizes() == IntArrayRef(input.size(axis)), op,
                    "expected a weight per class [", input.size(axis), "], got ",
                    weight.defined() ? weight.sizes() : IntArrayRef(),
                    "; give one number per class");
}

void check_target(const Tensor& target, const Tensor& input, std::int64_t axis, const char* op) {
  check<TypeError>(is_integral(target.dtype()), op,
                   "expected class indices (integers) or probabilities of the input's shape ",
                   input.sizes(), ", got ", target.dtype(), " of shape ", target.sizes(),
                   "; convert with to(kInt64)");
  check<ShapeError>(target.sizes() == without(input.sizes(), axis), op,
                    "expected class indices of shape ", without(input.sizes(), axis),
                    " for an input of shape ", input.sizes(), ", got ", target.sizes(),
                    "; put the classes on axis 1 of the input, or squeeze() the target");
}

Tensor reduced(const Tensor& loss, std::int64_t reduction) {
  return reduction == ClassLoss::none   ? loss
         : reduction == ClassLoss::mean ? loss.mean()
                                        : loss.sum();
}

}  // namespace

Tensor cross_entropy_loss(const Tensor& self, const Tensor& target, const Tensor& weight,
                          std::int64_t reduction, std::int64_t ignore_index,
                          double label_smoothing) {
  Naming naming("cross_entropy_loss");
  const char* op = "cross_entropy_loss";
  const std::int64_t axis = class_axis(self, op);
  check<ValueError>(label_smoothing >= 0 && label_smoothing <= 1, op,
                    "expected a label_smoothing between 0 and 1, got ", label_smoothing,
                    "; 0 is none");
  check<TypeError>(self.is_floating_point(), op, "expected floating logits, got ", self.dtype(),
                   "; convert with to(kFloat32)");
  check_weight(weight, self, axis, op);
  check_reduction(reduction, op);

  if (target.is_floating_point()) {
    check<ShapeError>(self.sizes() == target.sizes(), op,
                      "expected input and target of one shape, got ", self.sizes(), " and ",
                      target.sizes(), "; reshape or expand() one");
    const double share = label_smoothing / static_cast<double>(self.size(axis));
    Tensor p = label_smoothing > 0 ? target * (1 - label_smoothing) + share : target;
    if (weight.defined()) p = p * along_classes(weight, self, axis);
    return reduced(-(self.log_softmax(axis) * p).sum(axis), reduction);
  }

  check_target(target, self, axis, op);
  const DType t = weight.defined() ? promote_types(self.dtype(), weight.dtype()) : self.dtype();
  Tensor logits = self.to(t);
  if (axis != self.dim() - 1) logits = logits.movedim(axis, -1);
  Attrs a;
  a.dims.push_back(0);
  a.flags = static_cast<std::uint32_t>(reduction);
  a.ints.push_back(ignore_index);
  a.scalars[0] = label_smoothing;
  const Tensor classes = target.to(kInt64);
  if (!weight.defined()) return run(cross_entropy_op, Lent(logits, classes, weight), a)[0];
  const Tensor w = weight.to(t);
  return run(weighted_cross_entropy_op, Lent(logits, classes, w), a)[0];
}

Tensor nll_loss(const Tensor& self, const Tensor& target, const Tensor& weight,
                std::int64_t reduction, std::int64_t ignore_index) {
  Naming naming("nll_loss");
  const char* op = "nll_loss";
  const std::int64_t axis = class_axis(self, op);
  check_weight(weight, self, axis, op);
  check_reduction(reduction, op);
  check_target(target, self, axis, op);
  // Ignored targets read class 0 and are masked afterwards, so that nothing depends on values.
  const Tensor wide = target.to(kInt64), ignored = wide.eq(ignore_index);
  const Tensor classes = wide.masked_fill(ignored, 0).unsqueeze(axis);
  const auto pick = [&](const Tensor& x) { return x.gather(axis, classes).squeeze(axis); };
  Tensor loss = -pick(self);
  Tensor weights;
  if (weight.defined()) {
    weights = pick(along_classes(weight, self, axis).expand(self.sizes())).masked_fill(ignored, 0);
    loss = loss * weights;
  } else if (reduction == ClassLoss::mean) {
    weights = ignored.logical_not().to(self.dtype());
  }
  loss = loss.masked_fill(ignored, 0);
  return reduction == ClassLoss::mean ? loss.sum() / weights.sum() : reduced(loss, reduction);
}

}  // namespace tutti
