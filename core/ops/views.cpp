// Views: ops whose result shares memory with the input. Their records compute sizes, strides and an
// offset (`alias`) instead of running a kernel. attrs.dims holds axes, attrs.ints sizes and
// positions.
#include <algorithm>
#include <numeric>

#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/copy.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>
#include <tutti/core/ops/records.h>
#include <tutti/core/tensor_impl.h>

namespace tutti {
namespace {

/// Bit of attrs.flags: an error instead of a copy.
constexpr std::uint32_t kStrict = 1;

Attrs attrs_of(IntArrayRef dims, IntArrayRef ints, std::uint32_t flags = 0) {
  Attrs a;
  a.dims = dims.shape();
  a.ints = ints.shape();
  a.flags = flags;
  return a;
}

std::size_t axis_of(const Attrs& a) { return static_cast<std::size_t>(a.dims[0]); }

/// A batch rule for views that keep their result's sizes in attrs.ints.
Batched batch_sizes(const Op& op, Inputs in, const Attrs& a, Axes axes, std::int64_t size) {
  Attrs b = a;
  b.ints.insert(b.ints.begin(), size);
  return {run1(op, {forms::axis_to_front(in[0], axes[0], size)}, b), 0};
}

// ---- reshape: ints = the new sizes

bool reshape_alias(const Tensor& x, const Attrs& a, Shape& sizes, Shape& strides,
                   std::int64_t& offset) {
  sizes = a.ints;
  offset = x.storage_offset();
  if (x.is_contiguous()) {
    strides = contiguous_strides(sizes);
    return true;
  }
  bool ok = view_strides(x.sizes(), x.strides(), sizes, strides);
  check<ValueError>(ok || !(a.flags & kStrict), "view", "expected memory that can be seen as ",
                    a.ints, " without a copy, got sizes ", x.sizes(), " with strides ", x.strides(),
                    "; use reshape()");
  return ok;
}

constinit const Op reshape_op = forms::complete({
    .name = "reshape",
    .alias = reshape_alias,
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      return {reshape(g[0], c.in[0].sizes())};
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors { return {reshape(t[0], c.attrs.ints)}; },
    .batch = batch_sizes,
    .put = [](const Tensor& base, const Tensor& part, const Attrs&) -> Tensor {
      return reshape(part, base.sizes());
    },
});

Tensor reshape_to(const Tensor& x, IntArrayRef sizes, std::uint32_t flags = 0) {
  return run1(reshape_op, {x}, attrs_of({}, sizes, flags));
}

// ---- permute: dims = the input's axes in the result's order

Shape inverse(const Shape& permutation) {
  Shape p(permutation.size());
  for (std::size_t i = 0; i < p.size(); ++i)
    p[static_cast<std::size_t>(permutation[i])] = static_cast<std::int64_t>(i);
  return p;
}

bool permute_alias(const Tensor& x, const Attrs& a, Shape& sizes, Shape& strides,
                   std::int64_t& offset) {
  offset = x.storage_offset();
  for (std::int64_t d : a.dims) {
    sizes.push_back(x.sizes()[static_cast<std::size_t>(d)]);
    strides.push_back(x.strides()[static_cast<std::size_t>(d)]);
  }
  return true;
}

/// The batch axis stays where it is in memory and becomes the first axis of the result.
Batched permute_batch(const Op& op, Inputs in, const Attrs& a, Axes axes, std::int64_t) {
  Attrs b = a;
  for (std::int64_t& d : b.dims) d += d >= axes[0];
  b.dims.insert(b.dims.begin(), axes[0]);
  return {run1(op, {in[0]}, b), 0};
}

constinit const Op permute_op = forms::linear({
    .name = "permute",
    .alias = permute_alias,
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      return {permute(g[0], inverse(c.attrs.dims))};
    },
    .batch = permute_batch,
    .put = [](const Tensor&, const Tensor& part, const Attrs& a) -> Tensor {
      return permute(part, inverse(a.dims));
    },
});

// ---- expand: ints = the result's sizes, of at least the input's rank

bool expand_alias(const Tensor& x, const Attrs& a, Shape& sizes, Shape& strides,
                  std::int64_t& offset) {
  sizes = a.ints;
  strides = Shape(sizes.size(), 0);
  offset = x.storage_offset();
  std::size_t fresh = sizes.size() - x.sizes().size();
  for (std::size_t i = fresh; i < sizes.size(); ++i)
    if (x.sizes()[i - fresh] == sizes[i]) strides[i] = x.strides()[i - fresh];
  return true;
}

/// Sums what was repeated.
Tensor sum_to(const Tensor& g, IntArrayRef sizes) {
  Shape axes;
  std::size_t fresh = g.sizes().size() - sizes.size();
  for (std::size_t i = 0; i < g.sizes().size(); ++i)
    if (i < fresh || (sizes[i - fresh] == 1 && g.sizes()[i] != 1))
      axes.push_back(static_cast<std::int64_t>(i));
  if (axes.empty()) return g;
  if (axes.size() == fresh) return sum(g, axes);
  Tensor s = sum(g, axes, true);
  return fresh > 0 ? reshape(s, sizes) : s;
}

Batched expand_batch(const Op& op, Inputs in, const Attrs& a, Axes axes, std::int64_t size) {
  Tensor x = forms::axis_to_front(in[0], axes[0], size);
  Attrs b = a;
  b.ints.insert(b.ints.begin(), size);
  if (x.sizes().size() < b.ints.size()) {  // new axes come after the batch axis
    Shape sizes(b.ints.size(), 1);
    std::copy(x.sizes().begin() + 1, x.sizes().end(), sizes.end() - (x.dim() - 1));
    sizes[0] = size;
    x = reshape(x, sizes);
  }
  return {run1(op, {x}, b), 0};
}

constinit const Op expand_op = forms::linear({
    .name = "expand",
    .alias = expand_alias,
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      return {sum_to(g[0], c.in[0].sizes())};
    },
    .batch = expand_batch,
    .reason = "elements of an expanded tensor share memory; clone() it first",
});

// ---- slice: dims = {axis}, ints = {start, length, step}

bool slice_alias(const Tensor& x, const Attrs& a, Shape& sizes, Shape& strides,
                 std::int64_t& offset) {
  std::size_t d = axis_of(a);
  sizes = x.sizes().shape();
  strides = x.strides().shape();
  offset = x.storage_offset() + (a.ints[1] > 0 ? a.ints[0] * strides[d] : 0);
  sizes[d] = a.ints[1];
  strides[d] *= a.ints[2];
  return true;
}

constinit const Op slice_op = forms::linear({
    .name = "slice",
    .alias = slice_alias,
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      const Shape& i = c.attrs.ints;
      return {slice_scatter({}, g[0], c.attrs.dims[0], i[0], i[2], c.in[0].size(c.attrs.dims[0]))};
    },
    .batch = forms::batch_leading,
    .put = [](const Tensor& base, const Tensor& part, const Attrs& a) -> Tensor {
      return slice_scatter(base, part, a.dims[0], a.ints[0], a.ints[2], base.size(a.dims[0]));
    },
});

Tensor run_slice(const Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t length,
                 std::int64_t step) {
  return run1(slice_op, {x}, attrs_of(axis, {start, length, step}));
}

// ---- select: dims = {axis}, ints = {index}

bool select_alias(const Tensor& x, const Attrs& a, Shape& sizes, Shape& strides,
                  std::int64_t& offset) {
  std::size_t d = axis_of(a);
  sizes = x.sizes().shape();
  strides = x.strides().shape();
  offset = x.storage_offset() + a.ints[0] * strides[d];
  sizes.erase(sizes.begin() + d);
  strides.erase(strides.begin() + d);
  return true;
}

constinit const Op select_op = forms::linear({
    .name = "select",
    .alias = select_alias,
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      std::int64_t d = c.attrs.dims[0];
      return {slice_scatter({}, unsqueeze(g[0], d), d, c.attrs.ints[0], 1, c.in[0].size(d))};
    },
    .batch = forms::batch_leading,
    .put = [](const Tensor& base, const Tensor& part, const Attrs& a) -> Tensor {
      std::int64_t d = a.dims[0];
      return slice_scatter(base, unsqueeze(part, d), d, a.ints[0], 1, base.size(d));
    },
});

// ---- diagonal: dims = {a, b}, ints = {offset}

bool diagonal_alias(const Tensor& x, const Attrs& a, Shape& sizes, Shape& strides,
                    std::int64_t& offset) {
  auto i = static_cast<std::size_t>(a.dims[0]), j = static_cast<std::size_t>(a.dims[1]);
  std::int64_t shift = a.ints[0], rows = x.sizes()[i], columns = x.sizes()[j];
  std::int64_t down = std::max<std::int64_t>(-shift, 0), right = std::max<std::int64_t>(shift, 0);
  std::int64_t length = std::max<std::int64_t>(std::min(rows - down, columns - right), 0);
  offset = x.storage_offset();
  if (length > 0) offset += down * x.strides()[i] + right * x.strides()[j];
  for (std::size_t d = 0; d < x.sizes().size(); ++d) {
    if (d == i || d == j) continue;
    sizes.push_back(x.sizes()[d]);
    strides.push_back(x.strides()[d]);
  }
  sizes.push_back(length);
  strides.push_back(x.strides()[i] + x.strides()[j]);
  return true;
}

extern constinit const Op diagonal_op;
constinit const Op diagonal_op = forms::complete({
    .name = "diagonal",
    .alias = diagonal_alias,
    .batch = forms::batch_leading,
    .put = [](const Tensor& base, const Tensor& part, const Attrs& a) -> Tensor {
      return forms::put_by_index(diagonal_op, base, part, a);
    },
    .expand = [](Inputs in, const Attrs& a) { return forms::expand_by_index(diagonal_op, in, a); },
});

// ---- as_strided: ints = {offset from the input's, sizes..., strides..., strides of the input...}.
// The last let interpreters that have no memory find which elements of the input are shown.

/// attrs.ints of an as_strided, by name.
struct Strided {
  std::int64_t offset;
  IntArrayRef sizes, strides, from;

  Strided(const Attrs& a, std::size_t input_rank)
      : offset(a.ints[0]),
        sizes(a.ints.data() + 1, rank(a, input_rank)),
        strides(sizes.end(), sizes.size()),
        from(strides.end(), input_rank) {}

 private:
  static std::size_t rank(const Attrs& a, std::size_t input_rank) {
    return (a.ints.size() - 1 - input_rank) / 2;
  }
};

bool as_strided_alias(const Tensor& x, const Attrs& a, Shape& sizes, Shape& strides,
                      std::int64_t& offset) {
  const Strided s(a, x.sizes().size());
  offset = x.storage_offset() + s.offset;
  sizes = s.sizes.shape();
  strides = s.strides.shape();
  for (std::size_t i = 0; i < s.from.size(); ++i)
    check<TransformError>(x.numel() == 0 || x.sizes()[i] == 1 || x.strides()[i] == s.from[i],
                          "as_strided", "the tensor that this shows had strides ", s.from,
                          " and now, changed inside a transform, has ", x.strides(),
                          "; call contiguous() on it before as_strided");
  if (x.is_meta() || numel_of(sizes) == 0) return true;
  std::int64_t last = offset;
  for (std::size_t i = 0; i < sizes.size(); ++i) last += (sizes[i] - 1) * strides[i];
  if (!x.impl()->storage) {  // memory still unknown: no more than what x itself shows
    std::int64_t end = x.storage_offset();
    for (std::size_t i = 0; i < x.sizes().size(); ++i) end += (x.sizes()[i] - 1) * x.strides()[i];
    check<TransformError>(offset >= x.storage_offset() && last <= end, "as_strided",
                          "inside compile it can only show elements of its input; sizes ", sizes,
                          " with strides ", strides, " reach beyond the input of sizes ", x.sizes(),
                          " with strides ", x.strides());
    return true;
  }
  auto held = static_cast<std::int64_t>(x.impl()->storage->bytes()) / x.element_size();
  check<ShapeError>(offset >= 0 && last < held, "as_strided", "expected a view within ", held,
                    " elements of memory, got sizes ", sizes, ", strides ", strides, ", offset ",
                    offset, "; make one of them smaller");
  return true;
}

/// Calls f(place in memory) for every element of a tensor, in row-major order.
template <class F>
void each_place(IntArrayRef sizes, IntArrayRef strides, std::int64_t offset, F f) {
  const std::int64_t n = numel_of(sizes.shape());
  Shape index(sizes.size(), 0);
  for (std::int64_t i = 0, at = offset; i < n; ++i) {
    f(at);
    for (std::size_t d = sizes.size(); d-- > 0;) {
      at += strides[d];
      if (++index[d] < sizes[d]) break;
      at -= strides[d] * sizes[d];
      index[d] = 0;
    }
  }
}

/// Where the elements that an as_strided shows stand in its input, row-major.
Tensor shown_by_strides(const Tensor& x, const Attrs& a) {
  const Strided s(a, x.sizes().size());
  std::int64_t last = 0;
  for (std::size_t i = 0; i < s.from.size(); ++i)
    last += std::max<std::int64_t>(0, x.sizes()[i] - 1) * s.from[i];
  std::vector<std::int64_t> held(static_cast<std::size_t>(last + 1), -1), shown;
  std::int64_t count = 0;
  each_place(x.sizes(), s.from, 0, [&](std::int64_t at) {
    std::int64_t& h = held[static_cast<std::size_t>(at)];
    if (h < 0)
      h = count;  // elements of an expanded input share their place: the first stands for all
    ++count;
  });
  each_place(s.sizes, s.strides, s.offset, [&](std::int64_t at) {
    const bool known = at >= 0 && at <= last && held[static_cast<std::size_t>(at)] >= 0;
    check<TransformError>(known, "as_strided",
                          "inside a transform or with a derivative it can only show elements of "
                          "its input; sizes ",
                          s.sizes, " with strides ", s.strides, " reach beyond the input of sizes ",
                          x.sizes(), " with strides ", s.from);
    shown.push_back(held[static_cast<std::size_t>(at)]);
  });
  Under root(nullptr);
  return reshape(tensor(shown, kInt64), s.sizes);
}

constinit const Op as_strided_op = forms::complete({
    .name = "as_strided",
    .alias = as_strided_alias,
    .put = [](const Tensor& base, const Tensor& part, const Attrs& a) -> Tensor {
      return forms::put_by_index(shown_by_strides(base, a), base, part);
    },
    .expand =
        [](Inputs in, const Attrs& a) {
          return forms::expand_by_index(shown_by_strides(in[0], a), in[0]);
        },
});

// ---- unfold: dims = {axis}, ints = {size, step}

bool unfold_alias(const Tensor& x, const Attrs& a, Shape& sizes, Shape& strides,
                  std::int64_t& offset) {
  std::size_t d = axis_of(a);
  offset = x.storage_offset();
  sizes = x.sizes().shape();
  strides = x.strides().shape();
  std::int64_t along = d < strides.size() ? strides[d] : 1;
  if (d < sizes.size()) {
    sizes[d] = (sizes[d] - a.ints[0]) / a.ints[1] + 1;
    strides[d] *= a.ints[1];
  }
  sizes.push_back(a.ints[0]);
  strides.push_back(along);
  return true;
}

extern constinit const Op unfold_op;
constinit const Op unfold_op = forms::complete({
    .name = "unfold",
    .alias = unfold_alias,
    .batch = forms::batch_leading,
    .put = [](const Tensor& base, const Tensor& part, const Attrs& a) -> Tensor {
      return forms::put_by_index(unfold_op, base, part, a);
    },
    .expand = [](Inputs in, const Attrs& a) { return forms::expand_by_index(unfold_op, in, a); },
});

// ---- slice_scatter: in = {base, part}, either may be undefined (zero); dims = {axis},
// ints = {start, length, step, size of the base along the axis}

void slice_scatter_shape(Inputs in, const Attrs& a, Metas& out) {
  const Tensor &base = in[0], &part = in[1], &given = base.defined() ? base : part;
  std::size_t d = axis_of(a);
  Shape sizes = given.sizes().shape();
  sizes[d] = a.ints[3];
  if (base.defined() && part.defined()) {
    Shape expected = sizes;
    expected[d] = a.ints[1];
    check<ShapeError>(base.sizes() == IntArrayRef(sizes) && part.sizes() == IntArrayRef(expected),
                      "slice_scatter", "expected a part of shape ", expected, ", got ",
                      part.sizes(), "; reshape it");
    check<TypeError>(base.dtype() == part.dtype(), "slice_scatter", "expected dtype ", base.dtype(),
                     ", got ", part.dtype(), "; convert with to()");
  }
  out.push_back({std::move(sizes), given.dtype(), given.device()});
}

void slice_scatter_kernel(Inputs in, Inputs out, const Attrs& a) {
  if (in[0].defined())
    kernels::copy(out[0], in[0]);
  else
    kernels::fill(out[0], 0);
  Shape sizes, strides;
  std::int64_t offset = 0;
  slice_alias(out[0], a, sizes, strides, offset);
  Tensor place = make_alias(out[0], sizes, strides, offset);
  if (in[1].defined())
    kernels::copy(place, in[1]);
  else
    kernels::fill(place, 0);
}

Tensor run_slice_scatter(const Tensor& base, const Tensor& part, const Attrs& a) {
  return run1(slice_scatter_op, {base, part}, a);
}

}  // namespace

constinit const Op slice_scatter_op = forms::complete({
    .name = "slice_scatter",
    .shape = slice_scatter_shape,
    .cpu = slice_scatter_kernel,
    .cuda = slice_scatter_kernel,
    .vjp = [](const Call& c, Inputs g, Needs needs) -> Tensors {
      const Attrs& a = c.attrs;
      Tensors r(2);
      if (c.in[0].defined() && needs[0]) r[0] = run_slice_scatter(g[0], {}, a);
      if (c.in[1].defined() && needs[1])
        r[1] = run_slice(g[0], a.dims[0], a.ints[0], a.ints[1], a.ints[2]);
      return r;
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors {
      return {run_slice_scatter(t[0], t[1], c.attrs)};
    },
    .batch = forms::batch_leading,
    .half_by_float = false,
});

Tensor slice_scatter(const Tensor& base, const Tensor& part, std::int64_t axis, std::int64_t start,
                     std::int64_t step, std::int64_t size) {
  return run_slice_scatter(base, part, attrs_of(axis, {start, part.size(axis), step, size}));
}

// ---- the public functions

Tensor view(const Tensor& self, IntArrayRef sizes) {
  return reshape_to(self, infer_size(sizes, self.numel(), "view"), kStrict);
}

Tensor reshape(const Tensor& self, IntArrayRef sizes) {
  return reshape_to(self, infer_size(sizes, self.numel(), "reshape"));
}

Tensor flatten(const Tensor& self, std::int64_t start, std::int64_t end) {
  std::int64_t first = normalize_axis(start, self.dim(), "flatten");
  std::int64_t last = normalize_axis(end, self.dim(), "flatten");
  check<ShapeError>(first <= last, "flatten", "expected start <= end, got axes ", start, " and ",
                    end, "; swap them");
  if (self.dim() == 0) return reshape_to(self, 1);
  if (first == last) return self;
  Shape sizes;
  std::int64_t merged = 1;
  for (std::int64_t d = 0; d < self.dim(); ++d) {
    if (d < first || d > last) {
      sizes.push_back(self.size(d));
      continue;
    }
    merged *= self.size(d);
    if (d == last) sizes.push_back(merged);
  }
  return reshape_to(self, sizes);
}

Tensor unflatten(const Tensor& self, std::int64_t axis, IntArrayRef sizes) {
  std::int64_t d = normalize_axis(axis, self.dim(), "unflatten");
  check<ShapeError>(self.dim() > 0, "unflatten",
                    "expected a tensor of at least 1 axis, got a 0-d one; unsqueeze() it first");
  check<ShapeError>(!sizes.empty(), "unflatten",
                    "expected at least one size, got []; give the sizes of the new axes");
  Shape parts = infer_size(sizes, self.size(d), "unflatten"), all;
  for (std::int64_t i = 0; i < self.dim(); ++i) {
    if (i != d)
      all.push_back(self.size(i));
    else
      for (std::int64_t s : parts) all.push_back(s);
  }
  return reshape_to(self, all);
}

Tensor squeeze(const Tensor& self) {
  Shape sizes;
  for (std::int64_t s : self.sizes())
    if (s != 1) sizes.push_back(s);
  return reshape_to(self, sizes);
}

Tensor squeeze(const Tensor& self, IntArrayRef axes) {
  Shape drop = normalize_axes(axes, self.dim(), "squeeze"), sizes;
  for (std::int64_t d = 0; d < self.dim(); ++d)
    if (self.size(d) != 1 || std::find(drop.begin(), drop.end(), d) == drop.end())
      sizes.push_back(self.size(d));
  return reshape_to(self, sizes);
}

Tensor unsqueeze(const Tensor& self, std::int64_t axis) {
  Shape sizes = self.sizes().shape();
  sizes.insert(sizes.begin() + normalize_axis(axis, self.dim() + 1, "unsqueeze"), 1);
  return reshape_to(self, sizes);
}

Tensor permute(const Tensor& self, IntArrayRef axes) {
  check<ShapeError>(static_cast<std::int64_t>(axes.size()) == self.dim(), "permute", "expected ",
                    self.dim(), " axes for shape ", self.sizes(), ", got ", axes,
                    "; name each axis once");
  return run1(permute_op, {self}, attrs_of(normalize_axes(axes, self.dim(), "permute"), {}));
}

Tensor transpose(const Tensor& self, std::int64_t a, std::int64_t b) {
  std::int64_t i = normalize_axis(a, self.dim(), "transpose");
  std::int64_t j = normalize_axis(b, self.dim(), "transpose");
  Shape axes(self.sizes().size());
  std::iota(axes.begin(), axes.end(), 0);
  if (self.dim() > 0)
    std::swap(axes[static_cast<std::size_t>(i)], axes[static_cast<std::size_t>(j)]);
  return run1(permute_op, {self}, attrs_of(axes, {}));
}

Tensor t(const Tensor& self) {
  check<ShapeError>(self.dim() <= 2, "t", "expected at most 2 axes, got shape ", self.sizes(),
                    "; use transpose() or mT()");
  return self.dim() < 2 ? self : transpose(self, 0, 1);
}

Tensor mT(const Tensor& self) {
  check<ShapeError>(self.dim() >= 2, "mT", "expected at least 2 axes, got shape ", self.sizes(),
                    "; unsqueeze() it first");
  return transpose(self, -2, -1);
}

Tensor movedim(const Tensor& self, IntArrayRef from, IntArrayRef to) {
  check<ShapeError>(from.size() == to.size(), "movedim",
                    "expected as many new places as axes, got ", from, " and ", to,
                    "; give one for each");
  Shape source = normalize_axes(from, self.dim(), "movedim");
  Shape target = normalize_axes(to, self.dim(), "movedim");
  if (self.dim() == 0) return self;
  Shape axes(self.sizes().size(), -1);
  for (std::size_t i = 0; i < source.size(); ++i)
    axes[static_cast<std::size_t>(target[i])] = source[i];
  std::int64_t next = 0;
  for (std::int64_t& axis : axes) {
    if (axis >= 0) continue;
    while (std::find(source.begin(), source.end(), next) != source.end()) ++next;
    axis = next++;
  }
  return run1(permute_op, {self}, attrs_of(axes, {}));
}

Tensor expand(const Tensor& self, IntArrayRef sizes) {
  check<ShapeError>(sizes.size() >= self.sizes().size(), "expand", "expected at least ", self.dim(),
                    " sizes for shape ", self.sizes(), ", got ", sizes, "; -1 keeps a size");
  Shape full = sizes.shape();
  const std::size_t fresh = sizes.size() - self.sizes().size();
  bool repeats = false;
  for (std::size_t i = 0; i < full.size(); ++i) {
    std::int64_t old = i < fresh ? 1 : self.sizes()[i - fresh];
    if (full[i] == -1 && i >= fresh) full[i] = old;
    check<ShapeError>(full[i] == old || (old == 1 && full[i] >= 0), "expand",
                      "expected sizes that shape ", self.sizes(), " broadcasts to, got ", sizes,
                      "; only axes of size 1 can grow, repeat() copies others");
    repeats = repeats || full[i] != old;
  }
  if (!repeats) return fresh == 0 ? self : reshape_to(self, full);
  return run1(expand_op, {self}, attrs_of({}, full));
}

Tensor expand_as(const Tensor& self, const Tensor& other) { return expand(self, other.sizes()); }

Tensor broadcast_to(const Tensor& self, IntArrayRef sizes) { return expand(self, sizes); }

Tensor narrow(const Tensor& self, std::int64_t axis, std::int64_t start, std::int64_t length) {
  check<ShapeError>(self.dim() > 0, "narrow",
                    "expected a tensor of at least 1 axis, got a 0-d one; unsqueeze() it first");
  std::int64_t d = normalize_axis(axis, self.dim(), "narrow"), n = self.size(d);
  check<ValueError>(length >= 0, "narrow", "expected a length of at least 0, got ", length,
                    "; give start and length, not start and end");
  check<IndexError>(start >= -n && start <= n, "narrow", "expected a start in [", -n, ", ", n,
                    "] for axis ", d, " of shape ", self.sizes(), ", got ", start,
                    "; start within the axis");
  if (start < 0) start += n;
  check<IndexError>(start + length <= n, "narrow", "expected start + length of at most ", n,
                    " for axis ", d, " of shape ", self.sizes(), ", got ", start, " + ", length,
                    "; slice() clips instead");
  return run_slice(self, d, start, length, 1);
}

Tensor slice(const Tensor& self, std::int64_t axis, std::optional<std::int64_t> start,
             std::optional<std::int64_t> end, std::int64_t step) {
  check<ShapeError>(self.dim() > 0, "slice",
                    "expected a tensor of at least 1 axis, got a 0-d one; unsqueeze() it first");
  check<ValueError>(step > 0, "slice", "expected a positive step, got ", step,
                    "; use flip() to go backwards");
  std::int64_t d = normalize_axis(axis, self.dim(), "slice"), n = self.size(d);
  auto clip = [n](std::int64_t i) { return std::clamp<std::int64_t>(i < 0 ? i + n : i, 0, n); };
  std::int64_t first = clip(start.value_or(0)), last = clip(end.value_or(n));
  std::int64_t span = std::max<std::int64_t>(last - first, 0);
  return run_slice(self, d, first, span / step + (span % step != 0), step);
}

Tensor select(const Tensor& self, std::int64_t axis, std::int64_t index) {
  check<IndexError>(self.dim() > 0, "select",
                    "expected a tensor of at least 1 axis, got a 0-d one; use item()");
  std::int64_t d = normalize_axis(axis, self.dim(), "select"), n = self.size(d);
  check<IndexError>(index >= -n && index < n, "select", "expected an index in [", -n, ", ", n - 1,
                    "] for axis ", d, " of shape ", self.sizes(), ", got ", index,
                    "; count from 0, or from the end by -1");
  return run1(select_op, {self}, attrs_of(d, index < 0 ? index + n : index));
}

std::vector<Tensor> unbind(const Tensor& self, std::int64_t axis) {
  check<ShapeError>(self.dim() > 0, "unbind",
                    "expected a tensor of at least 1 axis, got a 0-d one; unsqueeze() it first");
  std::int64_t d = normalize_axis(axis, self.dim(), "unbind");
  std::vector<Tensor> out;
  for (std::int64_t i = 0; i < self.size(d); ++i) out.push_back(select(self, d, i));
  return out;
}

std::vector<Tensor> split(const Tensor& self, std::int64_t size, std::int64_t axis) {
  check<ShapeError>(self.dim() > 0, "split",
                    "expected a tensor of at least 1 axis, got a 0-d one; unsqueeze() it first");
  std::int64_t d = normalize_axis(axis, self.dim(), "split"), n = self.size(d);
  check<ValueError>(size > 0 || (size == 0 && n == 0), "split",
                    "expected a positive piece size, got ", size,
                    "; use chunk() to give the number of pieces");
  std::vector<Tensor> out;
  for (std::int64_t at = 0; at < n; at += size)
    out.push_back(run_slice(self, d, at, std::min(size, n - at), 1));
  if (n == 0) out.push_back(run_slice(self, d, 0, 0, 1));
  return out;
}

std::vector<Tensor> split(const Tensor& self, const std::vector<std::int64_t>& sizes,
                          std::int64_t axis) {
  check<ShapeError>(self.dim() > 0, "split",
                    "expected a tensor of at least 1 axis, got a 0-d one; unsqueeze() it first");
  std::int64_t d = normalize_axis(axis, self.dim(), "split"), at = 0;
  for (std::int64_t s : sizes)
    check<ValueError>(s >= 0, "split", "expected piece sizes of at least 0, got ", sizes,
                      "; work the last one out from the axis");
  check<ShapeError>(std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}) == self.size(d),
                    "split", "expected piece sizes that add up to ", self.size(d), ", got ", sizes,
                    "; narrow() takes one part only");
  std::vector<Tensor> out;
  for (std::int64_t s : sizes) {
    out.push_back(run_slice(self, d, at, s, 1));
    at += s;
  }
  return out;
}

std::vector<Tensor> chunk(const Tensor& self, std::int64_t n, std::int64_t axis) {
  check<ShapeError>(self.dim() > 0, "chunk",
                    "expected a tensor of at least 1 axis, got a 0-d one; unsqueeze() it first");
  check<ValueError>(n > 0, "chunk", "expected a positive number of pieces, got ", n,
                    "; use split() to give their size");
  std::int64_t d = normalize_axis(axis, self.dim(), "chunk"), size = self.size(d);
  if (size == 0)  // n empty pieces
    return split(self, std::vector<std::int64_t>(static_cast<std::size_t>(n), 0), d);
  return split(self, (size + n - 1) / n, d);
}

Tensor diagonal(const Tensor& self, std::int64_t offset, std::int64_t a, std::int64_t b) {
  std::int64_t i = normalize_axis(a, self.dim(), "diagonal");
  std::int64_t j = normalize_axis(b, self.dim(), "diagonal");
  check<ShapeError>(self.dim() >= 2 && i != j, "diagonal", "expected two different axes, got ", a,
                    " and ", b, " for shape ", self.sizes(), "; name two axes of the tensor");
  return run1(diagonal_op, {self}, attrs_of({i, j}, offset));
}

Tensor as_strided(const Tensor& self, IntArrayRef sizes, IntArrayRef strides,
                  std::optional<std::int64_t> offset) {
  bool ok = sizes.size() == strides.size() && offset.value_or(0) >= 0;
  for (std::int64_t s : sizes) ok = ok && s >= 0;
  for (std::int64_t s : strides) ok = ok && s >= 0;
  check<ShapeError>(ok, "as_strided",
                    "expected as many strides as sizes and no negative number, got sizes ", sizes,
                    ", strides ", strides, ", offset ", offset.value_or(0),
                    "; give a stride per size, use flip() to go backwards");
  Shape ints{offset ? *offset - self.storage_offset() : 0};
  for (const IntArrayRef& part : {sizes, strides, IntArrayRef(self.strides())})
    for (std::int64_t i : part) ints.push_back(i);
  return run1(as_strided_op, {self}, attrs_of({}, ints));
}

Tensor unfold(const Tensor& self, std::int64_t axis, std::int64_t size, std::int64_t step) {
  std::int64_t d = normalize_axis(axis, self.dim(), "unfold");
  std::int64_t n = self.dim() == 0 ? 1 : self.size(d);
  check<ValueError>(size >= 0 && size <= n, "unfold", "expected a window of at most ", n,
                    " along axis ", d, " of shape ", self.sizes(), ", got ", size,
                    "; take a smaller one, or pad the axis");
  check<ValueError>(step > 0, "unfold", "expected a positive step, got ", step,
                    "; use flip() to go backwards");
  return run1(unfold_op, {self}, attrs_of(d, {size, step}));
}

}  // namespace tutti
