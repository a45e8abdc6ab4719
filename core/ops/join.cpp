// Joining tensors: cat is the primitive, the others reshape around it.
#include <algorithm>
#include <cstring>

#include <tutti/core/kernels/copy.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>
#include <tutti/core/tensor_impl.h>

namespace tutti {
namespace {

// ---- cat: dims = {axis}

void cat_shape(Inputs in, const Attrs& a, Metas& out) {
  const Tensor& first = in[0];
  auto axis = static_cast<std::size_t>(a.dims[0]);
  Shape sizes = first.sizes().shape();
  sizes[axis] = 0;
  for (const Tensor& x : in) {
    bool fits = x.sizes().size() == sizes.size();
    for (std::size_t d = 0; fits && d < sizes.size(); ++d)
      fits = d == axis || x.sizes()[d] == sizes[d];
    check<ShapeError>(fits, "cat", "expected shapes equal but for axis ", axis, ", got ",
                      first.sizes(), " and ", x.sizes(),
                      "; reshape one, or join along another axis");
    check<TypeError>(x.dtype() == first.dtype(), "cat", "expected one dtype, got ", first.dtype(),
                     " and ", x.dtype(), "; convert with to()");
    sizes[axis] += x.sizes()[axis];
  }
  out.push_back({std::move(sizes), first.dtype(), first.device()});
}

void cat_kernel(Inputs in, Inputs out, const Attrs& a) {
  const Tensor& y = out[0];
  auto axis = static_cast<std::size_t>(a.dims[0]);
  const std::int64_t step = y.strides()[axis];
  std::int64_t at = 0;
  for (const Tensor& x : in) {
    kernels::copy(make_alias(y, x.sizes(), y.strides(), y.storage_offset() + at * step), x);
    at += x.sizes()[axis];
  }
}

Tensors cat_vjp(const Call& c, Inputs g, Needs needs) {
  Tensors r(c.in.size());
  std::int64_t axis = c.attrs.dims[0], at = 0;
  for (std::size_t i = 0; i < c.in.size(); ++i) {
    std::int64_t n = c.in[i].size(axis);
    if (needs[i]) r[i] = narrow(g[0], axis, at, n);
    at += n;
  }
  return r;
}

Tensors cat_jvp(const Call& c, Inputs t) {
  Tensor any;
  for (const Tensor& x : t)
    if (x.defined()) any = x;
  if (!any.defined()) return {Tensor()};
  Tensors parts;
  for (std::size_t i = 0; i < t.size(); ++i)
    parts.push_back(t[i].defined() ? t[i] : new_zeros(any, c.in[i].sizes()));
  return run(c.op, Inputs(parts.data(), parts.size()), c.attrs);
}

constinit const Op cat_op = forms::complete({
    .name = "cat",
    .shape = cat_shape,
    .cpu = cat_kernel,
    .cuda = cat_kernel,
    .vjp = cat_vjp,
    .jvp = cat_jvp,
    .batch = forms::batch_leading,
    .half_by_float = false,
});

Tensor at_least(const Tensor& x, std::int64_t rank) {
  Tensor y = x;
  while (y.dim() < rank) y = unsqueeze(y, 0);
  return y;
}

}  // namespace

Tensor cat(TensorList tensors, std::int64_t axis) {
  check<ValueError>(!tensors.empty(), "cat",
                    "expected at least one tensor, got an empty list; check what fills it");
  DType dtype = tensors.front().dtype();
  Tensors parts;
  for (const Tensor& x : tensors) {
    check<ShapeError>(x.dim() > 0, "cat",
                      "expected tensors of at least 1 axis, got a 0-d one; use stack()");
    dtype = promote_types(dtype, x.dtype());
    if (x.dim() != 1 || x.size(0) != 0) parts.push_back(x);
  }
  if (parts.empty()) parts.push_back(tensors.front());
  Attrs a;
  a.dims.push_back(normalize_axis(axis, parts[0].dim(), "cat"));
  for (Tensor& x : parts)
    if (x.dtype() != dtype) x = to(x, dtype);
  return run1(cat_op, Inputs(parts.data(), parts.size()), a);
}

Tensor stack(TensorList tensors, std::int64_t axis) {
  check<ValueError>(!tensors.empty(), "stack",
                    "expected at least one tensor, got an empty list; check what fills it");
  const Tensor& first = tensors.front();
  std::int64_t d = normalize_axis(axis, first.dim() + 1, "stack");
  Tensors parts;
  for (const Tensor& x : tensors) {
    check<ShapeError>(x.sizes() == first.sizes(), "stack", "expected equal shapes, got ",
                      first.sizes(), " and ", x.sizes(),
                      "; expand() one, or use cat() for other sizes along one axis");
    parts.push_back(unsqueeze(x, d));
  }
  return cat(parts, d);
}

Tensor hstack(TensorList tensors) {
  check<ValueError>(!tensors.empty(), "hstack",
                    "expected at least one tensor, got an empty list; check what fills it");
  Tensors parts;
  for (const Tensor& x : tensors) parts.push_back(at_least(x, 1));
  return cat(parts, parts[0].dim() == 1 ? 0 : 1);
}

Tensor vstack(TensorList tensors) {
  check<ValueError>(!tensors.empty(), "vstack",
                    "expected at least one tensor, got an empty list; check what fills it");
  Tensors parts;
  for (const Tensor& x : tensors) parts.push_back(at_least(x, 2));
  return cat(parts, 0);
}

Tensor repeat(const Tensor& self, IntArrayRef repeats) {
  check<ShapeError>(repeats.size() >= self.sizes().size(), "repeat", "expected at least ",
                    self.dim(), " repeats for shape ", self.sizes(), ", got ", repeats,
                    "; give 1 for axes that stay");
  // Each axis becomes (copies, size); the copies are made by expand.
  Shape spread, wide, sizes;
  const std::size_t fresh = repeats.size() - self.sizes().size();
  for (std::size_t i = 0; i < repeats.size(); ++i) {
    check<ValueError>(repeats[i] >= 0, "repeat", "expected repeats of at least 0, got ", repeats,
                      "; give 1 for axes that stay");
    const std::int64_t n = i < fresh ? 1 : self.sizes()[i - fresh];
    spread.push_back(1);
    spread.push_back(n);
    wide.push_back(repeats[i]);
    wide.push_back(n);
    sizes.push_back(repeats[i] * n);
  }
  Tensor out = reshape(expand(reshape(self, spread), wide), sizes);
  return out.is_view() ? clone(out) : out;
}

Tensor tile(const Tensor& self, IntArrayRef repeats) {
  Shape all = repeats.shape();
  while (all.size() < self.sizes().size()) all.insert(all.begin(), 1);
  return repeat(self, all);
}

}  // namespace tutti
