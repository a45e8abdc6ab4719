// Tensor's members that do not need autograd (shape, data access, indexing), and the making of
// dense tensors.
#include <cstring>
#include <functional>

#include <tutti/config.h>
#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/copy.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/live_tensors.h>
#include <tutti/core/ops.h>
#include <tutti/core/tensor.h>
#include <tutti/core/tensor_impl.h>

namespace tutti {
namespace {

TensorImpl& need(const Tensor& x, const char* op) {
  TensorImpl* p = x.impl();
  if (!p) detail::fail_undefined(op);
  return *p;
}

/// Grad and jvp boxes, and those of vmap that do not differ per example, stand for exactly one
/// value, which may be read; others stand for many values or for none yet.
bool one_value(const Box& b) {
  const std::string_view t = b.scope->transform;
  return t == "grad" || t == "jvp" || (t == "vmap" && b.sizes.size() == b.inner.sizes().size());
}

/// The interpreter that owns x reads x's base again if that has been written to.
void bring_up_to_date(const Tensor& x) {
  for (Interpreter* i = &current(); i; i = i->parent) {
    if (!i->mine(x)) continue;
    Under u(i);
    i->refresh(x);
    return;
  }
}

/// The dense tensor whose memory holds x's value.
Tensor readable(const Tensor& x, const char* op) {
  need(x, op);
  const ThreadState& s = thread_state();
  check<TransformError>(!(s.host_log && s.current), op,
                        "values may not be read inside compile, which would keep them as they are "
                        "now; use where() instead of a branch on a value, or return it from the "
                        "function and read it there");
  Tensor v = x;
  while (const Box* b = as_box(v)) {
    Interpreter::check_live(v, op);
    bring_up_to_date(v);
    if (!one_value(*b)) {
      const std::string_view t = b->scope->transform;
      if (t == "vmap") {
        fail<TransformError>(op,
                             "expected a tensor with values of its own, got one inside vmap, which "
                             "stands for all examples at "
                             "once; use where() instead of a branch on a value, or return it from "
                             "the mapped function and read "
                             "it there");
      }
      fail<TransformError>(
          op, "expected a tensor whose values are known, got one inside ", t,
          ", where values may not be read; return it from the function and read it there");
    }
    v = Tensor(b->inner);
  }
  check<DeviceError>(
      !v.is_meta(), op,
      "expected a tensor with data, got one on the meta device, which has a shape only; "
      "make it on the CPU");
  return v;
}

template <class To, class From>
To convert(From v) {
  if constexpr (std::is_same_v<To, From>)
    return v;
  else if constexpr (std::is_same_v<To, bool>)
    return v != From(0);
  else if constexpr (std::is_same_v<To, Half> || std::is_same_v<To, BFloat16>)
    return To(static_cast<float>(v));
  else if constexpr (std::is_same_v<From, Half> || std::is_same_v<From, BFloat16>)
    return static_cast<To>(static_cast<float>(v));
  else
    return static_cast<To>(v);
}

/// Writes the elements of x in row-major order.
template <class To, class From>
void copy_elements(const Tensor& x, To* out) {
  const IntArrayRef sizes = x.sizes(), strides = x.strides();
  const From* in = static_cast<const From*>(x.raw());
  const std::size_t rank = sizes.size();
  const std::int64_t row = rank ? sizes[rank - 1] : 1, step = rank ? strides[rank - 1] : 1;
  Shape at(rank);
  for (std::int64_t left = x.numel(); left > 0; left -= row) {
    for (std::int64_t i = 0; i < row; ++i) *out++ = convert<To>(in[i * step]);
    for (std::size_t d = rank; d-- > 1;) {
      in += strides[d - 1];
      if (++at[d - 1] < sizes[d - 1]) break;
      in -= strides[d - 1] * sizes[d - 1];
      at[d - 1] = 0;
    }
  }
}

void hash_in(std::size_t& h, std::size_t v) { h ^= v + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2); }

bool is_slot(const TensorImpl* p) { return p && p->kind == TensorImpl::Kind::slot; }

/// What a slot stands for; the value in a view may be a slot of an outer view.
TensorImpl* resolve(TensorImpl* slot, const SlotView* views) {
  for (const SlotView* v = views; v; v = v->outer) {
    if (const Tensor* substitute = v->find(slot)) {
      TensorImpl* p = substitute->handle().get();
      return is_slot(p) ? resolve(p, v->outer) : p;
    }
  }
  TensorImpl* p = static_cast<Slot*>(slot)->target.handle().get();
  return is_slot(p) ? resolve(p, views) : p;
}

}  // namespace

// ---- slots

namespace detail {

void fail_undefined(const char* op) {
  fail<ValueError>(op, "expected a defined tensor, got an undefined one; assign it a value first");
}

TensorImpl* resolve_slot(TensorImpl* slot) { return resolve(slot, thread_state().views); }

Ptr<TensorImpl> copy_slot(const Ptr<TensorImpl>& p) {
  for (const SlotView* v = thread_state().views; v; v = v->outer)
    if (const Tensor* substitute = v->find(p.get())) return substitute->handle();
  return p;
}

}  // namespace detail

// ---- TensorImpl

TensorImpl::TensorImpl(Kind k) : kind(k) { detail::count_tensor(1); }

TensorImpl::TensorImpl(DType t, Device d, const Shape& s, std::int64_t n)
    : kind(Kind::dense), dtype(t), device(d), sizes(s), strides(contiguous_strides(s)), numel(n) {
  detail::count_tensor(1);
}

TensorImpl::TensorImpl(Kind k, const TensorImpl& o)
    : kind(k),
      dtype(o.dtype),
      device(o.device),
      sizes(o.sizes),
      strides(o.strides),
      offset(o.offset),
      numel(o.numel) {
  detail::count_tensor(1);
}

TensorImpl::TensorImpl(const TensorImpl& o)
    : RefCounted(o),
      kind(o.kind),
      dtype(o.dtype),
      device(o.device),
      is_view(o.is_view),
      sizes(o.sizes),
      strides(o.strides),
      offset(o.offset),
      numel(o.numel),
      storage(o.storage) {
  detail::count_tensor(1);
}

TensorImpl::~TensorImpl() { detail::count_tensor(-1); }

static Tensor with_memory(Ptr<TensorImpl> p) {
  TensorImpl& t = *p;
  if constexpr (TUTTI_CUDA)
    if (t.device.is_cuda()) t.device = kernels::cuda::resolve(t.device);
  if (!t.device.is_meta())
    t.storage = Storage::make(static_cast<std::size_t>(t.numel * size_of(t.dtype)), t.device);
  if (Watch* w = thread_state().watch) [[unlikely]]
    w->made(t.storage.get());
  return Tensor(std::move(p));
}

Tensor make_dense(IntArrayRef sizes, DType dtype, Device device) {
  std::int64_t bytes = size_of(dtype);
  bool fits = true;
  for (const std::int64_t s : sizes) {
    check<ShapeError>(s >= 0, "empty", "expected sizes that are not negative, got ", sizes,
                      "; -1 works in reshape() only");
    fits = fits && !__builtin_mul_overflow(bytes, s == 0 ? 1 : s, &bytes);
  }
  auto p = make_ref<TensorImpl>(dtype, device, sizes.shape(), numel_of(sizes));
  check<ValueError>(fits || p->numel == 0, "empty",
                    "expected a tensor that fits into memory, got shape ", sizes,
                    "; make it smaller");
  return with_memory(std::move(p));
}

Tensor make_strided(IntArrayRef sizes, IntArrayRef strides, DType dtype, Device device) {
  std::int64_t span = numel_of(sizes) == 0 ? 0 : 1;
  for (std::size_t d = 0; d < sizes.size() && span > 0; ++d) span += (sizes[d] - 1) * strides[d];
  Tensor x = make_dense({span}, dtype, device);
  x.impl()->set_sizes(sizes);
  x.impl()->strides = strides.shape();
  return x;
}

bool is_members_last(const TensorImpl& x) {
  return !x.sizes.empty() && line_pitch(x.sizes, x.strides, 0) > 0 &&
         !is_contiguous(x.sizes, x.strides);
}

Tensor make_like(const TensorImpl& x) {
  return with_memory(make_ref<TensorImpl>(x.dtype, x.device, x.sizes, x.numel));
}

Tensor on_cpu(const Tensor& x) {
  if (x.is_cpu()) return x;
  const Tensor y = make_dense(x.sizes(), x.dtype());
  kernels::copy(y, x);
  return y;
}

Tensor make_alias(const Tensor& x, IntArrayRef sizes, IntArrayRef strides, std::int64_t offset) {
  const TensorImpl& from = need(x, "alias");
  auto p = make_ref<TensorImpl>(TensorImpl::Kind::dense);
  p->dtype = from.dtype;
  p->device = from.device;
  p->is_view = true;
  p->set_sizes(sizes);
  p->strides = strides.shape();
  p->offset = offset;
  p->storage = from.storage;
  return Tensor(std::move(p));
}

Tensor make_plain(const Tensor& x) { return Tensor(make_ref<TensorImpl>(need(x, "alias"))); }

std::uint64_t version_of(const Tensor& x) {
  const TensorImpl* p = x.impl();
  if (!p) return 0;
  if (p->kind != TensorImpl::Kind::box) return p->storage ? p->storage->version() : 0;
  // A view changes with its base; any other box when it is rebound or when the value below it is
  // written to.
  while (p->view) p = p->view->base.impl();
  return (p->writes << 32) + version_of(static_cast<const Box*>(p)->inner);
}

// ---- Attrs

bool operator==(const Attrs& a, const Attrs& b) {
  return a.dims == b.dims && a.ints == b.ints && same(a.scalars[0], b.scalars[0]) &&
         same(a.scalars[1], b.scalars[1]) && a.dtype == b.dtype && a.device == b.device &&
         a.flags == b.flags && a.closure == b.closure;
}

std::size_t Attrs::hash() const {
  std::size_t h = dims.size();
  for (const std::int64_t d : dims) hash_in(h, static_cast<std::size_t>(d));
  hash_in(h, ints.size());
  for (const std::int64_t i : ints) hash_in(h, static_cast<std::size_t>(i));
  for (const Scalar& s : scalars) {
    hash_in(h, static_cast<std::size_t>(s.kind()));
    hash_in(h, static_cast<std::size_t>(s.to_int()));
    hash_in(h, static_cast<std::size_t>(std::bit_cast<std::uint64_t>(s.to_double())));
  }
  hash_in(h, static_cast<std::size_t>(dtype));
  hash_in(h, static_cast<std::size_t>(device.type));
  hash_in(h, static_cast<std::size_t>(device.index));
  hash_in(h, flags);
  hash_in(h, std::hash<const void*>()(closure.get()));
  return h;
}

// ---- Tensor: shape and kind

std::int64_t Tensor::storage_offset() const { return need(*this, "storage_offset").offset; }
bool Tensor::is_view() const { return need(*this, "is_view").is_view; }

std::int64_t Tensor::size(std::int64_t axis) const {
  const Shape& s = need(*this, "size").sizes;
  const std::int64_t rank = static_cast<std::int64_t>(s.size());
  if (axis >= 0 && axis < rank) [[likely]]
    return s[static_cast<std::size_t>(axis)];
  check<IndexError>(rank > 0, "size",
                    "expected a tensor with axes, got a 0-d tensor; it has no sizes");
  return s[static_cast<std::size_t>(normalize_axis(axis, rank, "size"))];
}

std::int64_t Tensor::stride(std::int64_t axis) const {
  const IntArrayRef s = strides();
  const std::int64_t rank = static_cast<std::int64_t>(s.size());
  check<IndexError>(rank > 0, "stride",
                    "expected a tensor with axes, got a 0-d tensor; it has no sizes");
  return s[static_cast<std::size_t>(normalize_axis(axis, rank, "stride"))];
}

bool Tensor::is_contiguous() const {
  const TensorImpl& p = need(*this, "is_contiguous");
  return tutti::is_contiguous(p.sizes, p.strides);
}

TensorOptions Tensor::options() const { return TensorOptions(dtype()).device(device()); }

// ---- Tensor: data

void* Tensor::raw() const { return impl()->data(); }

Scalar Tensor::item() const {
  need(*this, "item");
  check<ValueError>(numel() == 1, "item", "expected a tensor with exactly one element, got shape ",
                    sizes(), "; index it or reduce it first");
  const Tensor v = on_cpu(readable(*this, "item"));
  return dispatch(v.dtype(), [&]<class T>() { return Scalar(*static_cast<const T*>(v.raw())); });
}

void* Tensor::mutable_data(DType t) const {
  need(*this, "data_ptr");
  if (const Box* b = as_box(*this)) {
    Interpreter::check_live(*this, "data_ptr");
    fail<TransformError>(
        "data_ptr", "expected a tensor outside transforms, got one inside ", b->scope->transform,
        ", whose memory may not be written; use in-place ops such as copy_(), or const_data_ptr() "
        "for reading");
  }
  const Tensor v = readable(*this, "data_ptr");
  check<TypeError>(t == v.dtype(), "data_ptr", "expected the tensor's dtype ", v.dtype(), ", got ",
                   t, "; convert with to()");
  return v.raw();
}

const void* Tensor::const_data(DType t) const {
  const Tensor v = readable(*this, "const_data_ptr");
  check<TypeError>(t == v.dtype(), "const_data_ptr", "expected the tensor's dtype ", v.dtype(),
                   ", got ", t, "; convert with to()");
  return v.raw();
}

void Tensor::copy_to(void* out, DType t) const {
  const Tensor v = on_cpu(readable(*this, "to_vector"));
  if (v.numel() == 0) return;
  if (v.dtype() == t && v.is_contiguous()) {
    std::memcpy(out, v.raw(), static_cast<std::size_t>(v.numel() * size_of(t)));
    return;
  }
  dispatch(t, [&]<class To>() {
    dispatch(v.dtype(), [&]<class From>() { copy_elements<To, From>(v, static_cast<To*>(out)); });
  });
}

void Tensor::check_rank(std::int64_t n) const {
  check<ShapeError>(dim() == n, "accessor", "expected a tensor with ", n, " axes, got shape ",
                    sizes(), "; name the rank in accessor<T, N>()");
}

// ---- Tensor: indexing

Tensor Tensor::operator[](std::int64_t i) const {
  check<IndexError>(dim() > 0, "select",
                    "expected a tensor with axes to index, got a 0-d tensor; use item()");
  return tutti::select(*this, 0, i);
}

Tensor Tensor::operator[](const Tensor& i) const { return tutti::index(*this, {TensorIndex(i)}); }

}  // namespace tutti
