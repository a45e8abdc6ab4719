// Indexing by values. Three primitives (gather, scatter, scatter_add) move elements along one axis;
// an index that is the same for whole rows is expanded with stride 0, which their kernels know.
// index() turns integers, slices, None and masks into views and index tensors, and several index
// tensors into one.
#include <algorithm>

#include <tutti/core/kernels/copy.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/index.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>
#include <tutti/core/ops/records.h>
#include <tutti/core/tensor_impl.h>

namespace tutti {

void check_indices(std::string_view op, std::pair<std::int64_t, std::int64_t> range,
                   std::int64_t size, bool from_end) {
  const auto [low, high] = range;
  const std::int64_t least = from_end ? -size : 0;
  check<IndexError>((low >= least && high < size) || low > high, op, "expected indices in [", least,
                    ", ", size - 1, "], got ", low < least ? low : high, "; the axis has ", size,
                    " elements");
}

namespace {

/// Bit of attrs.flags: negative values count from the end.
constexpr std::uint32_t kFromEnd = 1;

void check_range(std::string_view op, const Tensor& index, std::int64_t size,
                 bool from_end = false) {
  check_indices(op, kernels::index_range(index), size, from_end);
}

std::int64_t size_along(const Tensor& x, const Attrs& a) {
  return x.sizes()[static_cast<std::size_t>(a.dims[0])];
}

Attrs along(std::int64_t axis, IntArrayRef ints = {}, std::uint32_t flags = 0) {
  Attrs a;
  a.dims.push_back(axis);
  a.ints = ints.shape();
  a.flags = flags;
  return a;
}

/// Index sizes may not exceed x's but along the axis.
void check_fits(std::string_view op, IntArrayRef index, IntArrayRef x, std::int64_t axis) {
  bool fits = index.size() == x.size();
  for (std::size_t d = 0; fits && d < x.size(); ++d)
    fits = static_cast<std::int64_t>(d) == axis || index[d] <= x[d];
  check<ShapeError>(fits, op, "expected an index of the same rank, not larger than ", x,
                    " but along axis ", axis, ", got shape ", index,
                    "; use index_select() for a 1-d index, take_along_dim() to broadcast");
}

/// For ops that keep the sizes of their result in attrs.ints.
Batched batch_sizes(const Op& op, Inputs in, const Attrs& a, Axes axes, std::int64_t size) {
  Attrs b = a;
  b.ints.insert(b.ints.begin(), size);
  return forms::batch_leading(op, in, b, axes, size);
}

// ---- gather: in = {x, index}; dims = {axis}; flags

Tensor run_gather(const Tensor& x, const Tensor& index, const Attrs& a);
/// A defined base or its sizes; src, or attrs' number where it is undefined.
Tensor run_scatter(const Tensor& base, const Tensor& index, const Tensor& src, Attrs a,
                   Scalar value = 0);
Tensor run_scatter_add(const Tensor& base, const Tensor& index, const Tensor& src, const Attrs& a);

Attrs with_sizes(const Attrs& a, IntArrayRef sizes) {
  Attrs b = a;
  b.ints = sizes.shape();
  return b;
}

constinit const Op gather_op = forms::linear({
    .name = "gather",
    .shape =
        [](Inputs in, const Attrs& a, Metas& out) {
          check_fits("gather", in[1].sizes(), in[0].sizes(), a.dims[0]);
          out.push_back({in[1].sizes().shape(), in[0].dtype(), in[0].device()});
        },
    .cpu =
        [](Inputs in, Inputs out, const Attrs& a) {
          check_range(a.flags & kFromEnd ? "index" : "gather", in[1], size_along(in[0], a),
                      a.flags & kFromEnd);
          kernels::gather(out[0], in[0], in[1], a.dims[0]);
        },
    .cuda = TUTTI_ON_CUDA(gather),
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      return {run_scatter_add({}, c.in[1], g[0], with_sizes(c.attrs, c.in[0].sizes())), Tensor()};
    },
    .batch = forms::batch_leading,
    .saves = saves::in1,
    .half_by_float = false,
});

Tensor run_gather(const Tensor& x, const Tensor& index, const Attrs& a) {
  return run1(gather_op, {x, index}, a);
}

// ---- scatter and scatter_add: in = {base or undefined, index, src or undefined}; dims = {axis};
// ints = sizes of the base; flags; scalars[0] = what scatter writes without src

void scatter_shape(Inputs in, const Attrs& a, Metas& out) {
  const Tensor &base = in[0], &index = in[1], &src = in[2], &given = base.defined() ? base : src;
  check_fits("scatter", index.sizes(), a.ints, a.dims[0]);
  if (src.defined()) {
    check<ShapeError>(src.sizes() == index.sizes(), "scatter", "expected values of shape ",
                      index.sizes(), ", got ", src.sizes(), "; give one value per index");
    check<TypeError>(src.dtype() == given.dtype(), "scatter", "expected values of dtype ",
                     given.dtype(), ", got ", src.dtype(), "; convert with to()");
  }
  out.push_back({a.ints, given.dtype(), given.device()});
}

/// Starts the result from the base.
void begin(Inputs in, Inputs out, const Attrs& a) {
  check_range(a.flags & kFromEnd ? "index_put_" : "scatter", in[1],
              a.ints[static_cast<std::size_t>(a.dims[0])], a.flags & kFromEnd);
  if (in[0].defined())
    kernels::copy(out[0], in[0]);
  else
    kernels::fill(out[0], 0);
}

constinit const Op scatter_op = forms::complete({
    .name = "scatter",
    .shape = scatter_shape,
    .cpu =
        [](Inputs in, Inputs out, const Attrs& a) {
          begin(in, out, a);
          kernels::scatter(out[0], in[1], in[2], a.scalars[0], a.dims[0]);
        },
    .cuda = TUTTI_ON_CUDA(scatter),
    .vjp = [](const Call& c, Inputs g, Needs needs) -> Tensors {
      Tensors r(3);
      if (c.in[0].defined() && needs[0]) r[0] = run_scatter(g[0], c.in[1], {}, c.attrs);
      if (c.in[2].defined() && needs[2]) r[2] = run_gather(g[0], c.in[1], c.attrs);
      return r;
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors {
      return {run_scatter(t[0], c.in[1], t[2], c.attrs)};
    },
    .batch = batch_sizes,
    .saves = saves::in1,
    .half_by_float = false,
});

Tensor run_scatter(const Tensor& base, const Tensor& index, const Tensor& src, Attrs a,
                   Scalar value) {
  a.scalars[0] = value;
  return run1(scatter_op, {base, index, src}, a);
}

constinit const Op scatter_add_op = forms::complete({
    .name = "scatter_add",
    .shape = scatter_shape,
    .cpu =
        [](Inputs in, Inputs out, const Attrs& a) {
          begin(in, out, a);
          kernels::scatter_add(out[0], in[1], in[2], a.dims[0]);
        },
    .cuda = TUTTI_ON_CUDA(scatter_add),
    .vjp = [](const Call& c, Inputs g, Needs needs) -> Tensors {
      Tensors r(3);
      if (c.in[0].defined() && needs[0]) r[0] = g[0];
      if (needs[2]) r[2] = run_gather(g[0], c.in[1], c.attrs);
      return r;
    },
    .jvp = [](const Call& c, Inputs t) -> Tensors {
      if (!t[2].defined()) return {t[0]};
      return {run_scatter_add(t[0], c.in[1], t[2], c.attrs)};
    },
    .batch = batch_sizes,
    .saves = saves::in1,
});

Tensor run_scatter_add(const Tensor& base, const Tensor& index, const Tensor& src, const Attrs& a) {
  return run1(scatter_add_op, {base, index, src}, a);
}

// ---- ravel: in = index tensors of one shape; ints = the sizes they index; result: index into the
// merged axes

constinit const Op ravel_op = forms::complete({
    .name = "index",
    .shape = forms::shape_same,
    .cpu =
        [](Inputs in, Inputs out, const Attrs& a) {
          for (std::size_t i = 0; i < in.size(); ++i) check_range("index", in[i], a.ints[i], true);
          kernels::fill(out[0], 0);
          for (std::size_t i = 0; i < in.size(); ++i) kernels::ravel_step(out[0], in[i], a.ints[i]);
        },
    .cuda = TUTTI_ON_CUDA(ravel),
    .batch = forms::batch_pointwise,
    .differentiable = false,
});

// ---- one_hot: in = {index}; ints = {classes}

constinit const Op one_hot_op = forms::complete({
    .name = "one_hot",
    .shape =
        [](Inputs in, const Attrs& a, Metas& out) {
          Shape sizes = in[0].sizes().shape();
          sizes.push_back(a.ints[0]);
          out.push_back({std::move(sizes), kInt64, in[0].device()});
        },
    .cpu =
        [](Inputs in, Inputs out, const Attrs& a) {
          check_range("one_hot", in[0], a.ints[0]);
          kernels::one_hot(out[0], in[0]);
        },
    .cuda = TUTTI_ON_CUDA(one_hot),
    .batch = forms::batch_leading,
    .differentiable = false,
});

// ---- nonzero

std::int64_t count_nonzero(const Tensor& x) {
  if constexpr (TUTTI_CUDA)
    if (x.is_cuda()) return kernels::cuda::count_nonzero(x);
  check<DeviceError>(x.is_cpu(), "nonzero", "expected a tensor with values, got device ",
                     x.device(), "; the result's shape depends on them");
  return kernels::count_nonzero(x);
}

constinit const Op nonzero_op = forms::complete({
    .name = "nonzero",
    .shape =
        [](Inputs in, const Attrs&, Metas& out) {
          out.push_back({Shape{count_nonzero(in[0]), in[0].dim()}, kInt64, in[0].device()});
        },
    .cpu = [](Inputs in, Inputs out, const Attrs&) { kernels::nonzero(out[0], in[0]); },
    .cuda = TUTTI_ON_CUDA(nonzero),
    .differentiable = false,
    .half_by_float = false,
    .reason = "the size of the result depends on the values; use where() or masked_fill() instead",
});

// ---- flip: dims = axes

void flip_kernel(Inputs in, Inputs out, const Attrs& a) {
  const Tensor& x = in[0];
  Shape strides = x.strides().shape();
  std::int64_t offset = x.storage_offset();
  if (x.numel() == 0) return;
  for (std::int64_t axis : a.dims) {
    auto d = static_cast<std::size_t>(axis);
    offset += (x.sizes()[d] - 1) * strides[d];
    strides[d] = -strides[d];
  }
  kernels::copy(out[0], make_alias(x, x.sizes(), strides, offset));
}

constinit const Op flip_op = forms::linear({
    .name = "flip",
    .shape = forms::shape_same,
    .cpu = flip_kernel,
    .cuda = flip_kernel,
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors { return {flip(g[0], c.attrs.dims)}; },
    .batch = forms::batch_leading,
    .half_by_float = false,
});

// ---- helpers of the public functions

/// A 0-d tensor counts as one element along axis 0.
Tensor at_least_1d(const Tensor& x) { return x.dim() == 0 ? reshape(x, 1) : x; }

Tensor as_index(const Tensor& index, std::string_view op) {
  check<TypeError>(is_integral(index.dtype()), op, "expected an integer index, got ", index.dtype(),
                   "; convert with to(kInt64)");
  return index.dtype() == kInt64 ? index : to(index, kInt64);
}

/// A 1-d index along an axis, expanded to the sizes of the rows it picks.
Tensor for_rows(const Tensor& index, IntArrayRef x, std::int64_t axis) {
  Shape one(x.size(), 1), full = x.shape();
  auto d = static_cast<std::size_t>(axis);
  one[d] = full[d] = index.size(0);
  return expand(x.size() == 1 ? index : reshape(index, one), full);
}

Tensor pick_rows(const Tensor& x, std::int64_t axis, const Tensor& index, std::uint32_t flags) {
  return run_gather(x, for_rows(index, x.sizes(), axis), along(axis, {}, flags));
}

/// src cut to the index's sizes, both of at least 1 axis.
Tensor cut(const Tensor& src, const Tensor& index, std::string_view op) {
  check_fits(op, index.sizes(), src.sizes(), -1);
  Tensor s = src;
  for (std::int64_t d = 0; d < index.dim(); ++d)
    if (s.size(d) != index.size(d)) s = narrow(s, d, 0, index.size(d));
  return s;
}

Tensor scatter_like(const Tensor& self, std::int64_t axis, const Tensor& index, const Tensor& src,
                    bool adds) {
  const char* op = adds ? "scatter_add" : "scatter";
  const std::int64_t d = normalize_axis(axis, self.dim(), op);
  check<TypeError>(src.dtype() == self.dtype(), op, "expected src of dtype ", self.dtype(),
                   ", got ", src.dtype(), "; convert with to()");
  Tensor x = at_least_1d(self), i = at_least_1d(as_index(index, op));
  if (i.numel() == 0) return clone(self);
  check_fits(op, i.sizes(), x.sizes(), d);
  Tensor s = cut(at_least_1d(src), i, op);
  Attrs a = along(d, x.sizes());
  Tensor out = adds ? run_scatter_add(x, i, s, a) : run_scatter(x, i, s, a);
  return self.dim() == 0 ? reshape(out, {}) : out;
}

Tensor& write(const Tensor& self, const Tensor& value) {
  assign(self, value);
  return const_cast<Tensor&>(self);
}

// ---- index(): what a list of indices means for a tensor

bool is_mask(const TensorIndex& i) {
  return i.kind == TensorIndex::Kind::tensor &&
         (i.tensor.dtype() == kBool || i.tensor.dtype() == kUInt8);
}

/// Index tensors that are left after integers, slices and None became views, each for one axis of
/// x.
struct Picks {
  Tensor x;
  std::vector<std::pair<std::int64_t, Tensor>> picks;
};

Picks apply_views(const Tensor& self, const std::vector<TensorIndex>& indices) {
  using Kind = TensorIndex::Kind;
  std::int64_t named = 0;
  int ellipses = 0;
  for (const TensorIndex& i : indices) {
    ellipses += i.kind == Kind::ellipsis;
    if (is_mask(i))
      named += i.tensor.dim();
    else
      named += i.kind == Kind::integer || i.kind == Kind::slice || i.kind == Kind::tensor;
  }
  check<IndexError>(named <= self.dim(), "index", "expected at most ", self.dim(),
                    " indices for shape ", self.sizes(), ", got ", named,
                    "; None adds an axis, Ellipsis stands for all that are left");
  check<IndexError>(ellipses <= 1, "index", "expected at most one Ellipsis, got ", ellipses,
                    "; write Slice() for single axes");

  Picks out{self, {}};
  Tensor& x = out.x;
  std::int64_t axis = 0;
  for (const TensorIndex& i : indices) {
    switch (i.kind) {
      case Kind::integer:
        x = select(x, axis, i.integer);
        break;
      case Kind::slice:
        if (i.slice.start || i.slice.stop || i.slice.step != 1)
          x = slice(x, axis, i.slice.start, i.slice.stop, i.slice.step);
        ++axis;
        break;
      case Kind::none:
        x = unsqueeze(x, axis++);
        break;
      case Kind::ellipsis:
        axis += self.dim() - named;
        break;
      case Kind::boolean:  // a mask of no axes: one row or none
        x = unsqueeze(x, axis);
        out.picks.emplace_back(axis++,
                               zeros(i.integer ? 1 : 0, TensorOptions(kInt64).device(x.device())));
        break;
      case Kind::tensor: {
        check<ValueError>(
            i.tensor.defined(), "index",
            "expected a defined tensor as index, got an undefined one; use None to add an axis");
        if (!is_mask(i)) {
          check<IndexError>(is_integral(i.tensor.dtype()), "index",
                            "expected integer or bool index tensors, got ", i.tensor.dtype(),
                            "; convert with to(kInt64)");
          out.picks.emplace_back(axis++, as_index(i.tensor, "index"));
          break;
        }
        Tensor mask = i.tensor;
        if (mask.dim() == 0) {
          x = unsqueeze(x, axis);
          mask = reshape(mask, 1);
        }
        for (std::int64_t d = 0; d < mask.dim(); ++d)
          check<IndexError>(mask.size(d) == x.size(axis + d), "index",
                            "expected a mask that fits axes ", axis, " to ", axis + mask.dim() - 1,
                            " of shape ", x.sizes(), ", got ", mask.sizes(),
                            "; compare the tensor itself to get such a mask");
        Tensor rows = nonzero(mask);
        for (std::int64_t d = 0; d < mask.dim(); ++d)
          out.picks.emplace_back(axis++, select(rows, 1, d));
      }
    }
  }
  return out;
}

/// The index tensors of a list as one: x with the indexed axes brought together (in front, unless
/// they are neighbours) and merged into `axis`, a flat index for it, and the shape that index
/// stands for.
struct Merged {
  Tensor x;
  std::int64_t axis;
  Tensor index;
  Shape index_sizes;
  Shape order;        // axes of the viewed tensor, in x's order before merging
  Shape split_sizes;  // sizes of x before merging
};

Merged merge(const Picks& p) {
  Merged m{p.x, p.picks[0].first, {}, {}, {}, {}};
  Shape axes;
  bool neighbours = true;
  for (const auto& [axis, index] : p.picks) {
    neighbours = neighbours && axis == m.axis + static_cast<std::int64_t>(axes.size());
    axes.push_back(axis);
    m.index_sizes = axes.size() == 1 ? index.sizes().shape()
                                     : broadcast_shapes(m.index_sizes, index.sizes(), "index");
  }
  if (!neighbours) {
    m.axis = 0;
    m.order = axes;
  }
  for (std::int64_t d = 0; d < p.x.dim(); ++d)
    if (neighbours || std::find(axes.begin(), axes.end(), d) == axes.end()) m.order.push_back(d);
  if (!neighbours) m.x = permute(p.x, m.order);
  m.split_sizes = m.x.sizes().shape();
  if (axes.size() == 1) {
    m.index = reshape(p.picks[0].second, -1);
    return m;
  }
  Tensors parts;
  Attrs a;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    parts.push_back(expand(p.picks[i].second, m.index_sizes));
    a.ints.push_back(p.x.size(axes[i]));
  }
  m.index = reshape(run1(ravel_op, Inputs(parts.data(), parts.size()), a), numel_of(m.index_sizes));
  m.x = flatten(m.x, m.axis, m.axis + static_cast<std::int64_t>(axes.size()) - 1);
  return m;
}

/// sizes with the one at `axis` replaced by those of `part`.
Shape spliced(IntArrayRef sizes, std::int64_t axis, IntArrayRef part) {
  Shape out(sizes.begin(), sizes.begin() + axis);
  for (std::int64_t s : part) out.push_back(s);
  for (std::size_t d = static_cast<std::size_t>(axis) + 1; d < sizes.size(); ++d)
    out.push_back(sizes[d]);
  return out;
}

}  // namespace

// ---- the public functions

Tensor index(const Tensor& self, const std::vector<TensorIndex>& indices) {
  Picks p = apply_views(self, indices);
  if (p.picks.empty()) return p.x.is_same(self) ? view(self, self.sizes()) : p.x;
  Merged m = merge(p);
  Tensor rows = pick_rows(m.x, m.axis, m.index, kFromEnd);
  if (m.index_sizes.size() == 1) return rows;
  return reshape(rows, spliced(rows.sizes(), m.axis, m.index_sizes));
}

Tensor index(const Tensor& self, TensorIndices indices) {
  return index(self, std::vector<TensorIndex>(indices));
}

Tensor& index_put_(const Tensor& self, TensorIndices indices, const Tensor& value,
                   bool accumulate) {
  Picks p = apply_views(self, indices);
  Tensor v = value.dtype() == self.dtype() ? value : to(value, self.dtype());
  if (p.picks.empty()) {
    write(p.x, accumulate ? add(p.x, v) : v);
    return const_cast<Tensor&>(self);
  }
  Merged m = merge(p);
  Tensor i = for_rows(m.index, m.x.sizes(), m.axis);
  v = reshape(expand(v, spliced(m.x.sizes(), m.axis, m.index_sizes)), i.sizes());
  Attrs a = along(m.axis, m.x.sizes(), kFromEnd);
  Tensor all = accumulate ? run_scatter_add(m.x, i, v, a) : run_scatter(m.x, i, v, a);
  all = reshape(all, m.split_sizes);
  Shape back(m.order.size());
  for (std::size_t d = 0; d < back.size(); ++d)
    back[static_cast<std::size_t>(m.order[d])] = static_cast<std::int64_t>(d);
  write(p.x, permute(all, back));
  return const_cast<Tensor&>(self);
}

Tensor& index_put_(const Tensor& self, TensorIndices indices, Scalar value) {
  if (indices.size() == 1 &&
      is_mask(*indices.begin())) {  // needs no positions, so it works inside vmap
    Tensor mask = indices.begin()->tensor;
    check<IndexError>(mask.dim() <= self.dim() &&
                          mask.sizes() == IntArrayRef(self.sizes().data(), mask.sizes().size()),
                      "index_put_", "expected a mask that fits the first axes of shape ",
                      self.sizes(), ", got ", mask.sizes(),
                      "; compare the tensor itself to get such a mask");
    while (mask.dim() < self.dim()) mask = unsqueeze(mask, -1);
    return write(self, masked_fill(self, mask.dtype() == kBool ? mask : to(mask, kBool), value));
  }
  return index_put_(self, indices,
                    scalar_tensor(value, TensorOptions(self.dtype()).device(self.device())));
}

Tensor gather(const Tensor& self, std::int64_t axis, const Tensor& index) {
  const std::int64_t d = normalize_axis(axis, self.dim(), "gather");
  Tensor x = at_least_1d(self), i = at_least_1d(as_index(index, "gather"));
  check_fits("gather", i.sizes(), x.sizes(), d);
  Tensor out = run_gather(x, i, along(d));
  return index.dim() == 0 ? reshape(out, {}) : out;
}

Tensor scatter(const Tensor& self, std::int64_t axis, const Tensor& index, const Tensor& src) {
  return scatter_like(self, axis, index, src, false);
}

Tensor scatter(const Tensor& self, std::int64_t axis, const Tensor& index, Scalar value) {
  const std::int64_t d = normalize_axis(axis, self.dim(), "scatter");
  Tensor x = at_least_1d(self), i = at_least_1d(as_index(index, "scatter"));
  if (i.numel() == 0) return clone(self);
  check_fits("scatter", i.sizes(), x.sizes(), d);
  Tensor out = run_scatter(x, i, {}, along(d, x.sizes()), value);
  return self.dim() == 0 ? reshape(out, {}) : out;
}

Tensor scatter_add(const Tensor& self, std::int64_t axis, const Tensor& index, const Tensor& src) {
  return scatter_like(self, axis, index, src, true);
}

Tensor index_select(const Tensor& self, std::int64_t axis, const Tensor& index) {
  Naming naming("index_select");
  const std::int64_t d = normalize_axis(axis, self.dim(), "index_select");
  check<ShapeError>(index.dim() <= 1, "index_select", "expected a 1-d index, got shape ",
                    index.sizes(), "; flatten() it, or use index() for more axes");
  Tensor i = at_least_1d(as_index(index, "index_select"));
  Tensor out = pick_rows(at_least_1d(self), d, i, 0);
  return self.dim() == 0 ? reshape(out, {}) : out;
}

Tensor index_add(const Tensor& self, std::int64_t axis, const Tensor& index, const Tensor& src,
                 Scalar alpha) {
  const std::int64_t d = normalize_axis(axis, self.dim(), "index_add");
  check<ShapeError>(index.dim() <= 1, "index_add", "expected a 1-d index, got shape ",
                    index.sizes(), "; flatten() it, or use index() for more axes");
  check<TypeError>(src.dtype() == self.dtype(), "index_add", "expected src of dtype ", self.dtype(),
                   ", got ", src.dtype(), "; convert with to()");
  Tensor x = at_least_1d(self), s = at_least_1d(src), i = at_least_1d(as_index(index, "index_add"));
  Shape expected = x.sizes().shape();
  expected[static_cast<std::size_t>(d)] = i.size(0);
  check<ShapeError>(s.sizes() == IntArrayRef(expected), "index_add", "expected src of shape ",
                    expected, ", got ", src.sizes(), "; give one slice per index");
  if (alpha.is_floating() ? alpha.to_double() != 1 : alpha.to_int() != 1) s = mul(s, alpha);
  Tensor out = run_scatter_add(x, for_rows(i, x.sizes(), d), s, along(d, x.sizes()));
  return self.dim() == 0 ? reshape(out, {}) : out;
}

Tensor take_along_dim(const Tensor& self, const Tensor& index, std::int64_t axis) {
  check<ShapeError>(self.dim() == index.dim(), "take_along_dim",
                    "expected an index of the same rank as shape ", self.sizes(), ", got ",
                    index.sizes(), "; unsqueeze() it");
  const std::int64_t d = normalize_axis(axis, self.dim(), "take_along_dim");
  if (self.dim() == 0) return gather(self, 0, index);
  auto i = static_cast<std::size_t>(d);
  Shape x = self.sizes().shape(), sizes = index.sizes().shape();
  const std::int64_t along_x = std::exchange(x[i], 1), along_index = std::exchange(sizes[i], 1);
  x = sizes = broadcast_shapes(x, sizes, "take_along_dim");
  x[i] = along_x;
  sizes[i] = along_index;
  return gather(expand(self, x), d, expand(index, sizes));
}

Tensor one_hot(const Tensor& self, std::int64_t classes) {
  Tensor i = as_index(self, "one_hot");
  if (classes == -1) {
    check<ValueError>(i.numel() > 0, "one_hot",
                      "expected the number of classes for an empty tensor, got none; give it");
    try {
      classes = max(i).item<std::int64_t>() + 1;
    } catch (const TransformError&) {
      fail<TransformError>(
          "one_hot",
          "expected the number of classes, or indices whose largest value is known "
          "here, got indices inside vmap or linearize that stand for many values; "
          "give the number of classes");
    }
  }
  check<ValueError>(classes > 0, "one_hot", "expected a positive number of classes, got ", classes,
                    "; leave it out to take the largest value + 1");
  Attrs a;
  a.ints.push_back(classes);
  return run1(one_hot_op, {i}, a);
}

Tensor masked_select(const Tensor& self, const Tensor& mask) {
  Naming naming("masked_select");
  check<TypeError>(mask.dtype() == kBool, "masked_select", "expected a bool mask, got ",
                   mask.dtype(), "; compare with something, or convert with to(kBool)");
  Shape sizes = broadcast_shapes(self.sizes(), mask.sizes(), "masked_select");
  Tensor rows = nonzero(reshape(expand(mask, sizes), -1));
  return pick_rows(reshape(expand(self, sizes), numel_of(sizes)), 0, select(rows, 1, 0), 0);
}

Tensor nonzero(const Tensor& self) { return run1(nonzero_op, {self}); }

Tensor flip(const Tensor& self, IntArrayRef axes) {
  Shape d = normalize_axes(axes, self.dim(), "flip");
  if (d.empty() || self.dim() == 0) return clone(self);
  Attrs a;
  a.dims = d;
  return run1(flip_op, {self}, a);
}

Tensor roll(const Tensor& self, IntArrayRef shifts, IntArrayRef axes) {
  if (axes.empty()) {
    check<ShapeError>(shifts.size() == 1, "roll", "expected one shift without axes, got ", shifts,
                      "; give an axis for each");
    return reshape(roll(reshape(self, self.numel()), shifts, 0), self.sizes());
  }
  check<ShapeError>(shifts.size() == axes.size(), "roll", "expected as many shifts as axes, got ",
                    shifts, " and ", axes, "; give one for each");
  Tensor x = self;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const std::int64_t d = normalize_axis(axes[i], self.dim(), "roll"),
                       n = x.dim() > 0 ? x.size(d) : 0;
    const std::int64_t by = n > 0 ? ((shifts[i] % n) + n) % n : 0;
    if (by != 0) x = cat({narrow(x, d, n - by, by), narrow(x, d, 0, n - by)}, d);
  }
  return x.is_same(self) ? clone(self) : x;
}

/// Elements whose column - row is at most (or at least) `diagonal`; the others become 0.
static Tensor triangle(const Tensor& x, std::int64_t diagonal, bool lower, const char* op) {
  check<ShapeError>(x.dim() >= 2, op, "expected at least 2 axes, got shape ", x.sizes(),
                    "; unsqueeze() it first");
  Tensor rows = unsqueeze(arange(x.size(-2), TensorOptions(x.device())), 1);
  Tensor columns = sub(arange(x.size(-1), TensorOptions(x.device())), diagonal);
  return masked_fill(x, lower ? gt(columns, rows) : lt(columns, rows), 0);
}

Tensor tril(const Tensor& self, std::int64_t diagonal) {
  return triangle(self, diagonal, true, "tril");
}

Tensor triu(const Tensor& self, std::int64_t diagonal) {
  return triangle(self, diagonal, false, "triu");
}

Tensor& scatter_(const Tensor& self, std::int64_t axis, const Tensor& index, const Tensor& src) {
  return write(self, scatter(self, axis, index, src));
}

Tensor& scatter_(const Tensor& self, std::int64_t axis, const Tensor& index, Scalar value) {
  return write(self, scatter(self, axis, index, value));
}

Tensor& scatter_add_(const Tensor& self, std::int64_t axis, const Tensor& index,
                     const Tensor& src) {
  return write(self, scatter_add(self, axis, index, src));
}

Tensor& index_add_(const Tensor& self, std::int64_t axis, const Tensor& index, const Tensor& src,
                   Scalar alpha) {
  return write(self, index_add(self, axis, index, src, alpha));
}

}  // namespace tutti
