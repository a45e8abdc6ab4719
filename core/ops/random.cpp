// Random tensors. One primitive makes raw words; everything else is computed from them, but for
// dropout, which takes the same words without storing them.
#include <bit>

#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/random.h>
#include <tutti/core/ops.h>
#include <tutti/core/ops/pointwise.h>

namespace tutti {
namespace {

using Source = std::optional<Generator>;

// ---- records

/// attrs.dims holds (size, offset, total) for each vmap level that draws differently, attrs.ints
/// the shape of one member.
void bits_shape(Inputs, const Attrs& a, Metas& out) {
  Meta m{{}, a.dtype, a.device};
  for (std::size_t i = 0; i < a.dims.size(); i += 3) m.sizes.push_back(a.dims[i]);
  for (const std::int64_t s : a.ints) {
    check<ShapeError>(s >= 0, "random", "expected sizes that are not negative, got ", a.ints,
                      "; -1 works in reshape() only");
    m.sizes.push_back(s);
  }
  out.push_back(std::move(m));
}
void from_bits_shape(Inputs in, const Attrs& a, Metas& out) {
  out.push_back({in[0].sizes().shape(), a.dtype, in[0].device()});
}

constinit const Op random_bits_op = forms::complete({.name = "random_bits",
                                                     .shape = bits_shape,
                                                     TUTTI_KERNEL(random_bits),
                                                     .random = true,
                                                     .differentiable = false});
constinit const Op uniform_op = forms::pointwise_constant(
    {.name = "uniform_from_bits", .shape = from_bits_shape, TUTTI_KERNEL(uniform_from_bits)});
constinit const Op normal_op = forms::pointwise_constant(
    {.name = "normal_from_bits", .shape = from_bits_shape, TUTTI_KERNEL(normal_from_bits)});
constinit const Op bernoulli_op = forms::pointwise_constant(
    {.name = "bernoulli_from_bits", .shape = from_bits_shape, TUTTI_KERNEL(bernoulli_from_bits)});
constinit const Op integers_op = forms::pointwise_constant(
    {.name = "integers_from_bits", .shape = from_bits_shape, TUTTI_KERNEL(integers_from_bits)});

// ---- dropout: in = {x}, attrs as kernels::Dropout says; out = {y, which elements were kept}

Tensor masked_scale(const Tensor& x, const Tensor& mask, const Attrs& a);
Tensor masked_scale_partial(const Call& c, const Tensor& g, std::size_t) {
  return masked_scale(g, c.in[1], c.attrs);
}
constinit const Op masked_scale_op = forms::pointwise<masked_scale_partial>(
    {.name = "masked_scale",
     .shape =
         [](Inputs in, const Attrs&, Metas& out) {
           out.push_back({in[0].sizes().shape(), in[0].dtype(), in[0].device()});
         },
     TUTTI_KERNEL(masked_scale),
     .saves = saves::in1});
Tensor masked_scale(const Tensor& x, const Tensor& mask, const Attrs& a) {
  return run1(masked_scale_op, Lent(x, mask), a);
}

/// g where the mask of a call of dropout holds, scaled.
Tensor dropped_alike(const Tensor& g, const Tensor& mask, const Attrs& a) {
  return g.defined() ? masked_scale(g, mask, numbers(kernels::Dropout(a).scale)) : g;
}

/// One mask for all examples of a vmap, for which the op has no rule.
Tensors dropout_by_parts(Inputs in, const Attrs& a) {
  const Tensor& x = in[0];
  const kernels::Dropout o(a);
  Attrs bits = a;
  bits.ints.clear();
  for (std::size_t d = a.dims.size() / 3; d < x.sizes().size(); ++d)
    bits.ints.push_back(x.sizes()[d]);
  bits.dtype = kInt32;
  bits.device = x.device();
  Attrs kept;
  kept.dtype = kBool;
  kept.scalars = {static_cast<double>(o.below) * 0x1p-32, true};
  const Tensor mask = run1(bernoulli_op, {run1(random_bits_op, {}, bits)}, kept);
  return {dropped_alike(x, mask, a), mask};
}

constinit const Op dropout_op = forms::complete({
    .name = "dropout",
    .shape =
        [](Inputs in, const Attrs&, Metas& out) {
          out.push_back({in[0].sizes().shape(), in[0].dtype(), in[0].device()});
          out.push_back({in[0].sizes().shape(), kBool, in[0].device()});
        },
    TUTTI_KERNEL(dropout),
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      return {dropped_alike(g[0], c.out[1], c.attrs)};
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors {
      return {dropped_alike(t[0], c.out[1], c.attrs), Tensor()};
    },
    .expand = dropout_by_parts,
    .saves = saves::outputs,
    .random = true,
});

// ---- building blocks

/// Attrs that say: the generator's next draw.
Attrs next_draw(Source source) {
  const Generator::Draw draw = (source ? *source : default_generator()).next();
  Attrs a;
  a.scalars = {Scalar(static_cast<std::int64_t>(draw.seed)),
               Scalar(static_cast<std::int64_t>(draw.number))};
  return a;
}

/// Random words, int32 or int64, from the generator's next draw.
Tensor random_bits(IntArrayRef sizes, DType words, Device device, Source& source) {
  Attrs a = next_draw(source);
  a.ints = sizes.shape();
  a.dtype = words;
  a.device = device;
  return run1(random_bits_op, {}, a);
}

Attrs attrs_for(DType t, Scalar first = 0, Scalar second = 0) {
  Attrs a;
  a.dtype = t;
  a.scalars = {first, second};
  return a;
}

/// The dtype words are turned into first: halves take the detour over float32.
DType working(DType t) { return t == kFloat64 ? kFloat64 : kFloat32; }

void need_floating(DType t, const char* op) {
  check<TypeError>(is_floating(t), op, "expected a floating dtype, got ", t,
                   "; draw integers with randint or random_, or convert with to(kFloat32)");
}

void need_probability(double p, const char* op) {
  check<ValueError>(p >= 0 && p <= 1, op, "expected a probability between 0 and 1, got ", p,
                    "; give the share of ones (bernoulli) or zeros (dropout)");
}

Tensor uniform(IntArrayRef sizes, DType t, Device device, Source& source) {
  const DType w = working(t);
  const Tensor bits = random_bits(sizes, w == kFloat64 ? kInt64 : kInt32, device, source);
  return run1(uniform_op, {bits}, attrs_for(w)).to(t);
}

Tensor standard_normal(IntArrayRef sizes, DType t, Device device, Source& source) {
  if (t != kFloat64)
    return run1(normal_op, {random_bits(sizes, kInt64, device, source)}, attrs_for(kFloat32)).to(t);
  Shape pairs = sizes.shape();
  pairs.insert(pairs.begin(), 2);
  const Tensor bits = random_bits(pairs, kInt64, device, source);
  return run1(normal_op, {bits.select(0, 0), bits.select(0, 1)}, attrs_for(kFloat64));
}

Tensor integers(std::int64_t low, std::int64_t high, IntArrayRef sizes, DType t, Device device,
                Source& source) {
  check<ValueError>(low < high, "randint", "expected low < high, got ", low, " and ", high,
                    "; high itself is not drawn");
  const auto range =
      static_cast<std::int64_t>(static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low));
  const Tensor bits = random_bits(sizes, kInt64, device, source);
  return run1(integers_op, {bits}, attrs_for(kInt64, low, range)).to(t);
}

/// `value` with probability p, else 0.
Tensor bernoulli_values(IntArrayRef sizes, double p, double value, DType t, Device device,
                        Source& source) {
  const DType w = is_half(t) ? kFloat32 : t;
  return run1(bernoulli_op, {random_bits(sizes, kInt32, device, source)}, attrs_for(w, p, value))
      .to(t);
}

DType dtype_or(const TensorOptions& o, DType t) { return o.has_dtype() ? o.dtype() : t; }
Device device_or(const TensorOptions& o, Device d) { return o.has_device() ? o.device() : d; }

}  // namespace

// ---- new tensors

Tensor rand(IntArrayRef sizes, const TensorOptions& options, Source generator) {
  need_floating(options.dtype(), "rand");
  return options.finish(uniform(sizes, options.dtype(), options.device(), generator));
}

Tensor randn(IntArrayRef sizes, const TensorOptions& options, Source generator) {
  need_floating(options.dtype(), "randn");
  return options.finish(standard_normal(sizes, options.dtype(), options.device(), generator));
}

Tensor randint(std::int64_t high, IntArrayRef sizes, const TensorOptions& options,
               Source generator) {
  return randint(0, high, sizes, options, std::move(generator));
}

Tensor randint(std::int64_t low, std::int64_t high, IntArrayRef sizes, const TensorOptions& options,
               Source generator) {
  return options.finish(
      integers(low, high, sizes, dtype_or(options, kInt64), options.device(), generator));
}

Tensor randperm(std::int64_t n, const TensorOptions& options, Source generator) {
  check<ValueError>(n >= 0, "randperm", "expected n >= 0, got ", n,
                    "; give the number of elements");
  const Tensor order = random_bits(n, kInt64, options.device(), generator).argsort();
  return options.finish(order.to(dtype_or(options, kInt64)));
}

Tensor normal(const Tensor& mean, const Tensor& std, Source generator) {
  const DType t = promote_types(mean.dtype(), std.dtype());
  need_floating(t, "normal");
  const Shape sizes = broadcast_shapes(mean.sizes(), std.sizes(), "normal");
  return standard_normal(sizes, t, mean.device(), generator).mul(std).add(mean);
}

Tensor normal(double mean, double std, IntArrayRef sizes, const TensorOptions& options,
              Source generator) {
  need_floating(options.dtype(), "normal");
  check<ValueError>(std >= 0, "normal", "expected std >= 0, got ", std,
                    "; give the deviation, not the variance or its logarithm");
  const Tensor z = standard_normal(sizes, options.dtype(), options.device(), generator);
  return options.finish(z.mul(std).add(mean));
}

// ---- like an existing tensor

Tensor rand_like(const Tensor& self, const TensorOptions& options) {
  const DType t = dtype_or(options, self.dtype());
  need_floating(t, "rand_like");
  Source source;
  return options.finish(uniform(self.sizes(), t, device_or(options, self.device()), source));
}

Tensor randn_like(const Tensor& self, const TensorOptions& options) {
  const DType t = dtype_or(options, self.dtype());
  need_floating(t, "randn_like");
  Source source;
  return options.finish(
      standard_normal(self.sizes(), t, device_or(options, self.device()), source));
}

Tensor randint_like(const Tensor& self, std::int64_t low, std::int64_t high,
                    const TensorOptions& options) {
  Source source;
  const DType t = dtype_or(options, self.dtype());
  return options.finish(
      integers(low, high, self.sizes(), t, device_or(options, self.device()), source));
}

// ---- choices

Tensor bernoulli(const Tensor& self, Source generator) {
  need_floating(self.dtype(), "bernoulli");
  const Tensor u = uniform(self.sizes(), working(self.dtype()), self.device(), generator);
  return u.lt(self.to(u.dtype())).to(self.dtype());
}

Tensor bernoulli(const Tensor& self, double p, Source generator) {
  need_probability(p, "bernoulli");
  return bernoulli_values(self.sizes(), p, 1, self.dtype(), self.device(), generator);
}

Tensor multinomial(const Tensor& self, std::int64_t n, bool replacement, Source generator) {
  need_floating(self.dtype(), "multinomial");
  check<ShapeError>(
      self.dim() >= 1, "multinomial",
      "expected probabilities [..., k], got a 0-d tensor; use bernoulli() for one probability");
  const std::int64_t k = self.size(-1);
  check<ValueError>(n > 0 && k > 0, "multinomial",
                    "expected at least one draw from at least one class, got ", n, " draws from ",
                    k, " classes; give positive numbers");
  check<ValueError>(replacement || n <= k, "multinomial",
                    "expected at most as many draws as classes, got ", n, " draws from ", k,
                    " classes; draw with replacement or less");
  const Tensor p = self.detach().to(working(self.dtype()));
  if (!replacement) {
    // A race: class i finishes at an exponential time of rate p[i]; the first n to finish are
    // drawn.
    const Tensor time = uniform(p.sizes(), p.dtype(), p.device(), generator).neg().log1p().neg();
    const Tensor speed = p.div(time.clamp_min(1e-30));
    return n == 1 ? speed.argmax(-1, true) : std::get<1>(speed.topk(n, -1));
  }
  const Tensor sums = p.cumsum(-1);
  const Tensor limits = sums.div(sums.narrow(-1, k - 1, 1));
  Shape sizes = p.sizes().shape();
  sizes.back() = n;
  const Tensor u = uniform(sizes, p.dtype(), p.device(), generator);
  return u.unsqueeze(-1).ge(limits.unsqueeze(-2)).sum(-1).clamp_max(k - 1);
}

Tensor dropout(const Tensor& self, double p, bool train) {
  need_probability(p, "dropout");
  if (!train || p == 0) return self;
  need_floating(self.dtype(), "dropout");
  Attrs a = next_draw(std::nullopt);
  a.ints.push_back(std::bit_cast<std::int64_t>(p));
  return run(dropout_op, Lent(self), a)[0];
}

// ---- in place

Tensor& uniform_(const Tensor& self, double from, double to, Source generator) {
  need_floating(self.dtype(), "uniform_");
  check<ValueError>(from <= to, "uniform_", "expected from <= to, got ", from, " and ", to,
                    "; swap them");
  const Tensor u = uniform(self.sizes(), self.dtype(), self.device(), generator);
  return copy_(self, u.mul(to - from).add(from));
}

Tensor& normal_(const Tensor& self, double mean, double std, Source generator) {
  need_floating(self.dtype(), "normal_");
  check<ValueError>(std >= 0, "normal_", "expected std >= 0, got ", std,
                    "; give the deviation, not the variance or its logarithm");
  const Tensor z = standard_normal(self.sizes(), self.dtype(), self.device(), generator);
  return copy_(self, z.mul(std).add(mean));
}

Tensor& bernoulli_(const Tensor& self, double p, Source generator) {
  need_probability(p, "bernoulli_");
  return copy_(self, bernoulli_values(self.sizes(), p, 1, self.dtype(), self.device(), generator));
}

Tensor& random_(const Tensor& self, std::int64_t low, std::int64_t high, Source generator) {
  return copy_(self, integers(low, high, self.sizes(), self.dtype(), self.device(), generator));
}

}  // namespace tutti
