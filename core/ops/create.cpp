// Making tensors: constants and ranges (ops without inputs, so that interpreters see them), tensors
// like another one, copies and casts, and tensors on C++ values or foreign memory.
#include <algorithm>
#include <cmath>
#include <memory>

#include <tutti/config.h>
#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/copy.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/scalar.h>
#include <tutti/core/ops/pointwise.h>
#include <tutti/core/ops/records.h>

namespace tutti {
namespace {

constexpr const char* kNoInput = "it has no tensor input";

/// out[i] = f(i) for the elements of a contiguous tensor, computed as the type of f's result and
/// cast.
template <class F>
void fill_by_position(const Tensor& out, const F& f) {
  dispatch(out.dtype(), [&]<class T>() {
    T* p = static_cast<T*>(out.raw());
    for (std::int64_t i = 0, n = out.numel(); i < n; ++i) p[i] = scalar::Cast<T>()(f(i));
  });
}

// Kernels that are the same on every device, as kernels::copy and kernels::fill are.
void no_kernel(Inputs, Inputs, const Attrs&) {}
void full_kernel(Inputs, Inputs out, const Attrs& a) { kernels::fill(out[0], a.scalars[0]); }
void copy_kernel(Inputs in, Inputs out, const Attrs&) { kernels::copy(out[0], in[0]); }
void eye_kernel(Inputs, Inputs out, const Attrs& a) {
  kernels::fill(out[0], 0);
  const std::int64_t n = std::min(a.ints[0], a.ints[1]);
  kernels::fill(make_alias(out[0], n, a.ints[1] + 1, out[0].storage_offset()), 1);
}

// ---- records: sizes in attrs.ints, dtype and device of the result

constinit const Op empty_op = forms::complete({
    .name = "empty",
    .shape = forms::shape_attrs,
    .cpu = no_kernel,
    .cuda = no_kernel,
    .differentiable = false,
    .half_by_float = false,
    .reason = kNoInput,
});

constinit const Op full_op = forms::complete({
    .name = "full",
    .shape = forms::shape_attrs,
    .cpu = full_kernel,
    .cuda = full_kernel,
    .differentiable = false,
    .half_by_float = false,
    .reason = kNoInput,
});

/// scalars: start, step.
constinit const Op arange_op = forms::complete({
    .name = "arange",
    .shape = forms::shape_attrs,
    .cpu =
        [](Inputs, Inputs out, const Attrs& a) {
          const Scalar start = a.scalars[0], step = a.scalars[1];
          if (start.is_floating() || step.is_floating())
            fill_by_position(out[0], [s = start.to_double(), d = step.to_double()](std::int64_t i) {
              return s + d * static_cast<double>(i);
            });
          else
            fill_by_position(out[0], [s = start.to_int(), d = step.to_int()](std::int64_t i) {
              return s + d * i;
            });
        },
    .cuda = TUTTI_ON_CUDA(arange),
    .differentiable = false,
    .half_by_float = false,
    .reason = kNoInput,
});

/// scalars: start, end. Both halves are counted from their own end, so that the last value is
/// exact.
constinit const Op linspace_op = forms::complete({
    .name = "linspace",
    .shape = forms::shape_attrs,
    .cpu =
        [](Inputs, Inputs out, const Attrs& a) {
          const double start = a.scalars[0].to_double(), end = a.scalars[1].to_double();
          const std::int64_t n = out[0].numel();
          const double step = n > 1 ? (end - start) / static_cast<double>(n - 1) : 0;
          fill_by_position(out[0], [=](std::int64_t i) {
            return i < (n + 1) / 2 ? start + step * static_cast<double>(i)
                                   : end - step * static_cast<double>(n - 1 - i);
          });
        },
    .cuda = TUTTI_ON_CUDA(linspace),
    .differentiable = false,
    .half_by_float = false,
    .reason = kNoInput,
});

constinit const Op eye_op = forms::complete({
    .name = "eye",
    .shape = forms::shape_attrs,
    .cpu = eye_kernel,
    .cuda = eye_kernel,
    .differentiable = false,
    .half_by_float = false,
    .reason = kNoInput,
});

/// A result of its own sizes that is batched if the input is.
Batched batch_like(const Op& op, Inputs in, const Attrs& a, Axes, std::int64_t size) {
  Attrs b = a;
  b.ints.insert(b.ints.begin(), size);
  return {run1(op, in, b), 0};
}

constinit const Op empty_like_op = forms::complete({
    .name = "empty_like",
    .shape = forms::shape_attrs,
    .cpu = no_kernel,
    .cuda = no_kernel,
    .batch = batch_like,
    .differentiable = false,
    .half_by_float = false,
});

// ---- copies

}  // namespace

constinit const Op clone_op = forms::linear({
    .name = "clone",
    .shape = forms::shape_same,
    .cpu = copy_kernel,
    .cuda = copy_kernel,
    .vjp = [](const Call&, Inputs g, Needs) -> Tensors { return {g[0]}; },
    // The batch axis goes to the front, so that every example is contiguous.
    .batch = [](const Op& op, Inputs in, const Attrs& a, Axes axes, std::int64_t size) -> Batched {
      return {run1(op, {forms::axis_to_front(in[0], axes[0], size)}, a), 0};
    },
    .elementwise = true,
    .half_by_float = false,
});

namespace {

/// attrs.dtype is the new dtype.
constinit const Op to_op = forms::linear({
    .name = "to",
    .shape =
        [](Inputs in, const Attrs& a, Metas& out) {
          out.push_back({in[0].sizes().shape(), a.dtype, in[0].device()});
        },
    .cpu = copy_kernel,
    .cuda = copy_kernel,
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors { return {to(g[0], c.in[0].dtype())}; },
    .batch = forms::batch_pointwise,
    .elementwise = true,
    .half_by_float = false,
});

/// attrs.device is where it goes, attrs.ints = {type, index} of where it comes from.
[[maybe_unused]] constinit const Op to_device_op = forms::linear({
    .name = "to",
    .shape =
        [](Inputs in, const Attrs& a, Metas& out) {
          out.push_back({in[0].sizes().shape(), in[0].dtype(), a.device});
        },
    .cpu = copy_kernel,
    .cuda = copy_kernel,
    .vjp = [](const Call& c, Inputs g, Needs) -> Tensors {
      const Shape& from = c.attrs.ints;
      return {to(g[0], Device(static_cast<DeviceType>(from[0]), static_cast<int>(from[1])))};
    },
    .batch = forms::batch_pointwise,
    .half_by_float = false,
});

constinit const Op detach_op = forms::complete({
    .name = "detach",
    .alias =
        [](const Tensor& x, const Attrs&, Shape& sizes, Shape& strides, std::int64_t& offset) {
          sizes = x.sizes().shape();
          strides = x.strides().shape();
          offset = x.storage_offset();
          return true;
        },
    .batch = forms::batch_pointwise,
    .differentiable = false,
    .reason = "a detached tensor has no history to write through",
});

// ---- helpers of the public functions

void check_sizes(IntArrayRef sizes, const char* op) {
  for (std::int64_t s : sizes)
    check<ShapeError>(s >= 0, op, "expected sizes that are not negative, got ", sizes,
                      "; -1 works in reshape() only");
}

Attrs attrs_of(IntArrayRef sizes, DType t, Device device, Scalar a = {}, Scalar b = {}) {
  Attrs attrs;
  attrs.ints = sizes.shape();
  attrs.dtype = t;
  attrs.device = device;
  attrs.scalars = {a, b};
  return attrs;
}

Tensor make(const Op& op, const Attrs& a, const TensorOptions& options) {
  check_sizes(a.ints, op.name);
  return options.finish(run1(op, Inputs(), a));
}

Tensor make_like(const Op& op, const Tensor& self, IntArrayRef sizes, Scalar value,
                 const TensorOptions& options) {
  check_sizes(sizes, op.name);
  const DType t = options.has_dtype() ? options.dtype() : self.dtype();
  const Device d = options.has_device() ? options.device() : self.device();
  return options.finish(run1(op, Inputs(&self, 1), attrs_of(sizes, t, d, value)));
}

/// The dtype of a range: given, or float32 if an end is floating, else int64.
DType range_dtype(const TensorOptions& options, bool floating) {
  return options.has_dtype() ? options.dtype() : floating ? kFloat32 : kInt64;
}

}  // namespace

constinit const Op full_like_op = forms::complete({
    .name = "full_like",
    .shape = forms::shape_attrs,
    .cpu = full_kernel,
    .cuda = full_kernel,
    .batch = batch_like,
    .elementwise = true,
    .differentiable = false,
    .half_by_float = false,
});

Tensor TensorOptions::finish(Tensor t) const {
  if (mark_) mark_(t);
  return t;
}

// ---- factories

Tensor empty(IntArrayRef sizes, const TensorOptions& options) {
  return make(empty_op, attrs_of(sizes, options.dtype(), options.device()), options);
}
Tensor zeros(IntArrayRef sizes, const TensorOptions& options) {
  Naming naming("zeros");
  return make(full_op, attrs_of(sizes, options.dtype(), options.device(), 0), options);
}
Tensor ones(IntArrayRef sizes, const TensorOptions& options) {
  Naming naming("ones");
  return make(full_op, attrs_of(sizes, options.dtype(), options.device(), 1), options);
}
Tensor full(IntArrayRef sizes, Scalar value, const TensorOptions& options) {
  const DType t = options.has_dtype() ? options.dtype() : value.dtype();
  return make(full_op, attrs_of(sizes, t, options.device(), value), options);
}
Tensor scalar_tensor(Scalar value, const TensorOptions& options) {
  return make(full_op, attrs_of({}, options.dtype(), options.device(), value), options);
}

Tensor arange(Scalar end, const TensorOptions& options) { return arange(0, end, 1, options); }
Tensor arange(Scalar start, Scalar end, const TensorOptions& options) {
  return arange(start, end, 1, options);
}
Tensor arange(Scalar start, Scalar end, Scalar step, const TensorOptions& options) {
  const bool floating = start.is_floating() || end.is_floating() || step.is_floating();
  const double a = start.to_double(), b = end.to_double(), s = step.to_double();
  check<ValueError>(s != 0, "arange",
                    "expected a step other than 0, got 0; use full() to repeat one value");
  check<ValueError>(std::isfinite(a) && std::isfinite(b) && std::isfinite(s), "arange",
                    "expected finite numbers, got ", a, ", ", b, " and step ", s,
                    "; check how they were computed");
  check<ValueError>((s > 0) == (b > a) || a == b, "arange",
                    "expected a step towards the end, got start ", a, ", end ", b, " and step ", s,
                    "; change the step's sign, or flip() the result");
  check<ValueError>((b - a) / s < 0x1p62, "arange",
                    "expected a number of elements that fits into memory, got ", (b - a) / s,
                    "; take a larger step");
  std::int64_t n = 0;
  if (floating) {
    n = static_cast<std::int64_t>(std::ceil((b - a) / s));
  } else {
    const std::int64_t d = end.to_int() - start.to_int(), e = step.to_int();
    n = d / e + (d % e != 0);
  }
  return make(arange_op, attrs_of(n, range_dtype(options, floating), options.device(), start, step),
              options);
}
Tensor linspace(Scalar start, Scalar end, std::int64_t steps, const TensorOptions& options) {
  check<ValueError>(steps >= 0, "linspace", "expected a number of steps that is not negative, got ",
                    steps, "; use flip() to go backwards");
  return make(linspace_op, attrs_of(steps, options.dtype(), options.device(), start, end), options);
}
Tensor eye(std::int64_t n, const TensorOptions& options) { return eye(n, n, options); }
Tensor eye(std::int64_t n, std::int64_t m, const TensorOptions& options) {
  return make(eye_op, attrs_of({n, m}, options.dtype(), options.device()), options);
}

std::vector<Tensor> meshgrid(TensorList tensors) {
  const std::size_t n = tensors.size();
  Shape sizes;
  for (const Tensor& x : tensors) {
    check<ShapeError>(x.dim() <= 1, "meshgrid", "expected vectors or 0-d tensors, got shape ",
                      x.sizes(), "; flatten() it");
    sizes.push_back(x.numel());
  }
  std::vector<Tensor> grids;
  for (std::size_t i = 0; i < n; ++i) {
    Shape one(n, 1);
    one[i] = sizes[i];
    grids.push_back(expand(reshape(tensors[i], one), sizes));
  }
  return grids;
}

// ---- like another tensor

Tensor new_empty(const Tensor& self, IntArrayRef sizes, const TensorOptions& options) {
  return make_like(empty_like_op, self, sizes, 0, options);
}
Tensor new_full(const Tensor& self, IntArrayRef sizes, Scalar value, const TensorOptions& options) {
  return make_like(full_like_op, self, sizes, value, options);
}
Tensor new_zeros(const Tensor& self, IntArrayRef sizes, const TensorOptions& options) {
  return new_full(self, sizes, 0, options);
}
Tensor new_ones(const Tensor& self, IntArrayRef sizes, const TensorOptions& options) {
  return new_full(self, sizes, 1, options);
}
Tensor empty_like(const Tensor& self, const TensorOptions& options) {
  return new_empty(self, self.sizes(), options);
}
Tensor zeros_like(const Tensor& self, const TensorOptions& options) {
  return new_full(self, self.sizes(), 0, options);
}
Tensor ones_like(const Tensor& self, const TensorOptions& options) {
  return new_full(self, self.sizes(), 1, options);
}
Tensor full_like(const Tensor& self, Scalar value, const TensorOptions& options) {
  return new_full(self, self.sizes(), value, options);
}

// ---- copies and casts

Tensor clone(const Tensor& self) { return run1(clone_op, Inputs(&self, 1)); }
Tensor contiguous(const Tensor& self) { return self.is_contiguous() ? self : clone(self); }

Tensor to(const Tensor& self, DType dtype) {
  if (self.dtype() == dtype) return self;
  Attrs a;
  a.dtype = dtype;
  return run1(to_op, Inputs(&self, 1), a);
}
Tensor to(const Tensor& self, Device device) {
  const Device from = self.device();
  if (device.type == from.type && (device.index < 0 || device == from)) return self;
  check<DeviceError>(TUTTI_CUDA || !device.is_cuda(), "to", "expected cpu or meta, got ", device,
                     "; this build of tutti has no CUDA");
  check<DeviceError>(!from.is_meta(), "to",
                     "expected a tensor with values, got one on the meta device to move to ",
                     device, "; make one there with empty_like()");
  if constexpr (TUTTI_CUDA) {
    if (!device.is_meta()) {
      Naming naming("to");
      Attrs a;
      a.device = device.is_cuda() ? kernels::cuda::resolve(device) : device;
      a.ints = {static_cast<std::int64_t>(from.type), from.index};
      return run1(to_device_op, Inputs(&self, 1), a);
    }
  }
  return empty_like(self, device);
}
Tensor to(const Tensor& self, DeviceType device) { return to(self, Device(device)); }
Tensor to(const Tensor& self, const TensorOptions& options) {
  const Tensor x = options.has_dtype() ? to(self, options.dtype()) : self;
  return options.has_device() ? to(x, options.device()) : x;
}
Tensor type_as(const Tensor& self, const Tensor& other) {
  return to(to(self, other.dtype()), other.device());
}
Tensor cpu(const Tensor& self) { return to(self, kCPU); }
Tensor Tensor::cuda() const { return tutti::to(*this, kCUDA); }
Tensor detach(const Tensor& self) { return run1(detach_op, Inputs(&self, 1)); }

// ---- C++ values and foreign memory

Tensor from_blob(void* data, IntArrayRef sizes, IntArrayRef strides,
                 std::function<void(void*)> deleter, const TensorOptions& options) {
  Device device = options.device();
  check<DeviceError>(device.is_cpu() || (TUTTI_CUDA && device.is_cuda()), "from_blob",
                     "expected memory of the cpu, got device ", device,
                     "; wrap it there and call to()");
  if constexpr (TUTTI_CUDA)
    if (device.is_cuda()) device = kernels::cuda::resolve(device);
  check<ShapeError>(sizes.size() == strides.size(), "from_blob",
                    "expected a stride per size, got sizes ", sizes, " and strides ", strides,
                    "; leave the strides out for row-major memory");
  check_sizes(sizes, "from_blob");
  std::int64_t last = 0;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    check<ValueError>(strides[d] >= 0, "from_blob", "expected strides that are not negative, got ",
                      strides, "; use flip() on the result");
    last += std::max<std::int64_t>(sizes[d] - 1, 0) * strides[d];
  }
  auto impl = make_ref<TensorImpl>(TensorImpl::Kind::dense);
  impl->dtype = options.dtype();
  impl->device = device;
  impl->set_sizes(sizes);
  impl->strides = strides.shape();
  check<ValueError>(data || impl->numel == 0, "from_blob",
                    "expected an address, got null; give the memory, or use empty()");
  const std::int64_t bytes = impl->numel == 0 ? 0 : (last + 1) * size_of(impl->dtype);
  impl->storage = Storage::wrap(data, static_cast<std::size_t>(bytes), device, std::move(deleter));
  return options.finish(Tensor(std::move(impl)));
}
Tensor from_blob(void* data, IntArrayRef sizes, std::function<void(void*)> deleter,
                 const TensorOptions& options) {
  return from_blob(data, sizes, contiguous_strides(sizes), std::move(deleter), options);
}
Tensor from_blob(void* data, IntArrayRef sizes, const TensorOptions& options) {
  return from_blob(data, sizes, contiguous_strides(sizes), {}, options);
}
Tensor from_blob(void* data, IntArrayRef sizes, IntArrayRef strides, const TensorOptions& options) {
  return from_blob(data, sizes, strides, {}, options);
}

namespace detail {

Tensor from_values(const void* data, DType t, IntArrayRef sizes, const TensorOptions& options) {
  const DType natural = t == kFloat64 ? kFloat32 : t == kInt32 ? kInt64 : t;
  const DType want = options.has_dtype() ? options.dtype() : natural;
  const Tensor source = from_blob(const_cast<void*>(data), sizes, t);
  Tensor x = make_dense(sizes, want);
  kernels::copy(x, source);
  // Inside a transform a value of its own, which in-place ops may write.
  if (thread_state().current) x = clone(x);
  if (options.has_device()) x = to(x, options.device());
  return options.finish(x);
}

NestedValues::NestedValues(std::initializer_list<NestedValues> v) {
  sizes.push_back(static_cast<std::int64_t>(v.size()));
  dtype = v.size() == 0 ? kFloat32 : v.begin()->dtype;
  for (const NestedValues& part : v) {
    const IntArrayRef first = v.begin()->sizes;
    check<ShapeError>(first == part.sizes, "tensor", "expected rows of equal shape, got ", first,
                      " and ", IntArrayRef(part.sizes), "; fill up the shorter ones");
    dtype = promote_types(dtype, part.dtype);
    flat.insert(flat.end(), part.flat.begin(), part.flat.end());
  }
  if (v.size() > 0)
    for (std::int64_t n : v.begin()->sizes) sizes.push_back(n);
}

}  // namespace detail

Tensor tensor(detail::NestedValues values, const TensorOptions& options) {
  const DType t = options.has_dtype() ? options.dtype() : values.dtype;
  return dispatch(t, [&]<class T>() {
    const std::size_t n = values.flat.size();
    const std::unique_ptr<T[]> flat(new T[n]);
    for (std::size_t i = 0; i < n; ++i) flat[i] = values.flat[i].to<T>();
    return detail::from_values(flat.get(), t, values.sizes, options.dtype(t));
  });
}
Tensor tensor(std::initializer_list<detail::NestedValues> values, const TensorOptions& options) {
  return tensor(detail::NestedValues(values), options);
}

}  // namespace tutti
