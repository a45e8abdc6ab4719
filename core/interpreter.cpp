// The interpreter chain's common part (in-place writes and views), Eval, and the per-thread state.
#include <mutex>

#include <tutti/config.h>
#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/copy.h>
#include <tutti/core/op_forms.h>
#include <tutti/core/ops.h>

namespace tutti {

namespace detail {
constinit thread_local ThreadState state TUTTI_FAST_TLS;

void destroy(RefCounted* p) noexcept {
  ThreadState& s = state;
  if (s.draining) {  // somebody below us on the stack takes it from here
    p->next_to_destroy = s.to_destroy;
    s.to_destroy = p;
    return;
  }
  s.draining = true;
  delete p;
  while (RefCounted* q = s.to_destroy) {
    s.to_destroy = q->next_to_destroy;
    delete q;
  }
  s.draining = false;
}
}  // namespace detail

static Eval& eval() {
  static Eval e;
  return e;
}

Interpreter& current() {
  Interpreter* i = thread_state().current;
  return i ? *i : eval();
}

void eval_refresh(const Tensor& x) { eval().refresh(x); }

// ---- the way in

[[gnu::noinline]] static Tensors run_resolved(const Op& op, Inputs in, const Attrs& a) {
  Tensors r;
  for (const Tensor& y : in) r.push_back(resolved(y));
  return current().run(op, Inputs(r.data(), r.size()), a);
}
Tensors run(const Op& op, Inputs in, const Attrs& a) {
  const ThreadState& s = thread_state();
  if (s.watch) [[unlikely]]
    s.watch->uses(in);
  for (const Tensor& x : in)
    if (x.handle() && x.handle()->kind == TensorImpl::Kind::slot) [[unlikely]]
      return run_resolved(op, in, a);
  return s.current ? s.current->run(op, in, a) : eval().run(op, in, a);
}
Tensor run1(const Op& op, std::initializer_list<Tensor> in, const Attrs& a) {
  return std::move(run(op, Inputs(in.begin(), in.size()), a)[0]);
}
Tensor run1(const Op& op, Inputs in, const Attrs& a) { return std::move(run(op, in, a)[0]); }
void run_inplace(const Op& op, const Tensor& dst, std::initializer_list<Tensor> in,
                 const Attrs& a) {
  Tensors r;
  for (const Tensor& y : in) r.push_back(resolved(y));
  if (Watch* w = thread_state().watch) [[unlikely]] {
    w->uses(Inputs(r.data(), r.size()));
    w->writes(dst);
  }
  current().run_inplace(op, resolved(dst), Inputs(r.data(), r.size()), a);
}
void assign(const Tensor& dst, const Tensor& src) {
  check<ValueError>(dst.defined() && src.defined(), "assign",
                    "expected defined tensors, got an undefined one; assign it a value first");
  // No second handle on src: assign() tells a fresh result by its count.
  auto is_slot = [](const Tensor& x) { return x.handle()->kind == TensorImpl::Kind::slot; };
  if (is_slot(dst)) return assign(resolved(dst), src);
  if (is_slot(src)) return assign(dst, resolved(src));
  if (Watch* w = thread_state().watch) [[unlikely]] {
    w->uses(Inputs(&src, 1));
    w->writes(dst);
  }
  current().assign(dst, src);
}

// ---- what all interpreters share

// A view may be read by several threads at once.
static std::uint64_t last_check(ViewInfo& v) {
  return std::atomic_ref(v.checked).load(std::memory_order_acquire);
}
static void checked_now(ViewInfo& v, std::uint64_t rebinds) {
  std::atomic_ref(v.checked).store(rebinds, std::memory_order_release);
}

// A view is brought up to date with its history, also where no_grad holds.
namespace {
class Recording {
 public:
  explicit Recording(bool& on) : on_(on), saved_(on) { on_ = true; }
  ~Recording() { on_ = saved_; }
  Recording(const Recording&) = delete;

 private:
  bool& on_;
  bool saved_;
};
}  // namespace

Interpreter::Interpreter(Interpreter* p, const char* transform)
    : Interpreter(p, make_ref<Scope>(transform)) {}
Interpreter::Interpreter(Interpreter* p, Ptr<Scope> s)
    : parent(p), scope(std::move(s)), below_(p ? p : &eval()) {
  // A number of its own: to a reopened transform every view is one it has not looked at.
  static std::atomic<std::uint64_t> opened{0};
  rebinds_ = (opened.fetch_add(1, std::memory_order_relaxed) + 1) << 32;
  ++scope->alive;
}

Interpreter::Interpreter(Root) : parent(nullptr), scope(make_ref<Scope>("eval")), below_(nullptr) {
  ++scope->alive;
}

void Interpreter::check_live(const Tensor& x, const char* op) {
  const Box* b = as_box(x);
  if (b && b->scope->alive.load(std::memory_order_relaxed) == 0) [[unlikely]]
    fail<TransformError>(op, "this tensor escaped from a finished ", b->scope->transform,
                         "; return it from the transformed function instead of keeping it");
}

Tensor fit(const Tensor& src, const Tensor& dst) {
  Tensor s = src;
  if (!(s.sizes() == dst.sizes())) {
    Shape to;
    bool ok = s.dim() <= dst.dim();
    if (ok) ok = IntArrayRef(broadcast_shapes(s.sizes(), dst.sizes(), "assign")) == dst.sizes();
    check<ShapeError>(ok, "assign", "expected a value that broadcasts to shape ", dst.sizes(),
                      ", got shape ", s.sizes(), "; reshape or sum() it");
    s = expand(s, dst.sizes());
  }
  return s.dtype() == dst.dtype() ? s : to(s, dst.dtype());
}

static void box_made(Box& b) {
  if (b.inner.handle()->kind == TensorImpl::Kind::slot) [[unlikely]]
    b.inner = resolved(b.inner);
  if (Watch* w = thread_state().watch) [[unlikely]]
    w->made(&b);
}

Box::Box(const Ptr<Scope>& s, Tensor&& value)
    : TensorImpl(Kind::box, *value.impl()), scope(s), inner(std::move(value)) {
  box_made(*this);
}
Box::Box(const Ptr<Scope>& s, Tensor&& value, int hidden)
    : TensorImpl(Kind::box), scope(s), inner(std::move(value)) {
  describe(hidden);
}

void Box::set_inner(Tensor value, int hidden) {
  inner = std::move(value);
  describe(hidden);
}

void Box::describe(int hidden) {
  box_made(*this);
  const TensorImpl& i = *inner.handle();
  dtype = i.dtype;
  device = i.device;
  if (hidden < 0) {
    sizes = i.sizes;
    strides = i.strides;
    offset = i.offset;
    numel = i.numel;
    return;
  }
  sizes.clear();
  strides.clear();
  offset = 0;
  numel = 1;
  for (std::size_t d = 0; d < i.sizes.size(); ++d) {
    if (d == static_cast<std::size_t>(hidden)) continue;
    sizes.push_back(i.sizes[d]);
    strides.push_back(i.strides[d]);
    numel *= i.sizes[d];
  }
}

Tensors Interpreter::run_below(const Op& op, Inputs in, const Attrs& a) {
  Under under(parent);
  if (thread_state().watch) [[unlikely]]
    return tutti::run(op, in, a);
  return below_->run(op, in, a);
}

// The inputs, with copies of those whose value the derivative reads and the write would change.
template <class Changes>
static Tensors keep_saved(const Op& op, Inputs in, Changes changes) {
  Tensors kept(in.begin(), in.end());
  for (std::size_t i = 0; i < kept.size(); ++i)
    if ((op.saves >> i & 1) && kept[i].defined() && changes(kept[i])) kept[i] = clone(kept[i]);
  return kept;
}

void Interpreter::run_inplace(const Op& op, const Tensor& dst, Inputs in, const Attrs& a) {
  Tensors kept;
  if (const Box* b = as_box(dst); b && b->argument) {  // copied back to the caller's memory
    kept = keep_saved(op, in, [&](const Tensor& x) { return x.is_same(dst); });
    in = Inputs(kept.data(), kept.size());
  }
  Tensors r = run(op, in, a);
  assign(dst, r[0]);
}

void Interpreter::assign(const Tensor& dst, const Tensor& src) {
  check_live(dst, "assign");
  check_live(src, "assign");
  const Box* d = as_box(dst);
  if (!mine(dst) || d->captured) return assign_captured(dst, src);
  refresh(src);
  Tensor value = fit(src, dst);
  // Up to the tensor that is no view, which takes the new value.
  Tensor root = dst;
  while (const ViewInfo* v = root.impl()->view.get()) {
    check<TransformError>(v->op->put != nullptr, "assign", "inside ", scope->transform, ", ",
                          v->op->name, " gave a view that cannot be written: ", v->op->reason);
    Tensor base = v->base;
    refresh(base);
    value = v->op->put(base, value, v->attrs);
    root = base;
  }
  check<TransformError>(
      !as_box(root)->frozen, "assign", "inside ", scope->transform,
      ", in-place change of an argument that is being differentiated; clone it first");
  check<TransformError>(!as_box(root)->remembered, "assign", "inside ", scope->transform,
                        ", in-place change of a tensor that a checkpointed function captured and "
                        "needs again for its recomputation; clone it first");
  // A value that others can reach may be written later on; a fresh result is taken as it is.
  bool fresh = mine(value) && !value.is_view() &&
               value.handle()->refs.load(std::memory_order_relaxed) == (value.is_same(src) ? 2 : 1);
  if (!fresh) value = clone(value);
  rebind(root, value);
  ++root.impl()->writes;
  ++rebinds_;
  if (!root.is_same(dst)) refresh(dst);
}

void Interpreter::refresh(const Tensor& x) {
  if (!x.defined() || !mine(x)) return;
  TensorImpl* impl = x.impl();
  if (!impl->view || last_check(*impl->view) == rebinds_) return;
  SmallVec<TensorImpl*, 8> chain;  // x and the views it rests on
  for (TensorImpl* i = impl; i->view && last_check(*i->view) != rebinds_; i = i->view->base.impl())
    chain.push_back(i);
  Recording recording(grad_enabled);
  for (std::size_t k = chain.size(); k-- > 0;) {
    ViewInfo& v = *chain[k]->view;
    checked_now(v, rebinds_);
    std::uint64_t now = v.base.impl()->writes;
    if (v.seen == now) continue;
    v.seen = now;
    Tensor again = run(*v.op, Inputs(&v.base, 1), v.attrs)[0];
    rebind(Tensor(Ptr<TensorImpl>(chain[k])), again);
    ++chain[k]->writes;
  }
}

void Interpreter::link_view(const Op& op, Inputs in, const Attrs& a, const Tensor& out) {
  Box* o = static_cast<Box*>(out.impl());
  o->is_view = true;
  if (!mine(in[0])) {
    o->captured = true;
    return;
  }
  const Box* base = as_box(in[0]);
  o->captured = base->captured;
  o->view = std::make_unique<ViewInfo>(ViewInfo{in[0], &op, a, base->writes, rebinds_});
}

void Interpreter::note_view(const Op& op, Inputs in, const Attrs& a, const Tensor& out) {
  if (!op.alias || !as_box(out)->inner.impl()->is_view) return;
  link_view(op, in, a, out);
  if (!mine(in[0])) return;
  const Box* base = as_box(in[0]);
  static_cast<Box*>(out.impl())->offset =
      base->offset + as_box(out)->inner.storage_offset() - base->inner.storage_offset();
}

// ---- Eval

// Compares address ranges.
bool may_overlap(const TensorImpl& a, const TensorImpl& b) {
  if (a.storage != b.storage || a.numel == 0 || b.numel == 0) return false;
  auto range = [](const TensorImpl& x) {
    std::int64_t lo = x.offset, hi = x.offset;
    for (std::size_t i = 0; i < x.sizes.size(); ++i) {
      std::int64_t d = (x.sizes[i] - 1) * x.strides[i];
      (d < 0 ? lo : hi) += d;
    }
    std::int64_t s = size_of(x.dtype);
    return std::pair(lo * s, (hi + 1) * s);
  };
  auto [a0, a1] = range(a);
  auto [b0, b1] = range(b);
  return a0 < b1 && b0 < a1;
}

namespace {

// Counts changes of dense tensors' records, in all threads.
std::atomic<std::uint64_t> g_rebinds{0};
// Threads that read one view may all find it stale; one makes its record anew. Recursive because
// that runs an op on the view's base.
std::recursive_mutex g_refreshing;

void refuse_box(const Tensor& x, const char* op) {
  const Box* b = as_box(x);
  if (!b) return;
  Interpreter::check_live(x, op);
  fail<TransformError>(op, "this tensor belongs to a ", b->scope->transform,
                       " that is not active here (another thread, code that runs outside of it, or "
                       "a custom function, "
                       "which must get it as an argument)");
}

bool same_view(const TensorImpl& a, const TensorImpl& b) {
  return a.storage == b.storage && a.offset == b.offset && a.dtype == b.dtype &&
         a.sizes == b.sizes && a.strides == b.strides;
}
bool overlaps_itself(const TensorImpl& x) {
  for (std::size_t i = 0; i < x.sizes.size(); ++i)
    if (x.sizes[i] > 1 && x.strides[i] == 0) return true;
  return false;
}

// Writes src, of dst's shape, into dst's memory.
void write_memory(const Tensor& dst, const Tensor& src) {
  TensorImpl &d = *dst.impl(), &s = *src.impl();
  check<ValueError>(
      !overlaps_itself(d), "assign",
      "expected a destination whose elements have memory of their own, got an expanded tensor; "
      "clone() it first");
  if (d.device.is_meta()) return;
  check<DeviceError>(
      !s.device.is_meta(), "assign",
      "expected a tensor with values, got one on the meta device; make it on the CPU");
  if (same_view(d, s)) return;
  if (may_overlap(d, s)) {
    Tensor copy = make_dense(s.sizes, s.dtype, s.device);
    kernels::copy(copy, src);
    kernels::copy(dst, copy);
  } else {
    kernels::copy(dst, src);
  }
  d.storage->bump();
}

bool takes_half(const Op& op, Device device) {
  return !op.half_by_float || (device.is_cuda() && op.cuda_takes_half);
}

[[noreturn, gnu::noinline]] void fail_without_kernel(const Op& op, Device device) {
  fail<NotImplementedError>(op.name, "not implemented on ", device,
                            "; compute it on the CPU: move its tensors with cpu(), and the result "
                            "back with to()");
}

// `kernel` with half operands computed in float32.
[[gnu::noinline]] void run_in_float(Kernel kernel, Inputs in, Inputs out, const Attrs& a) {
  Tensors wide_in, wide_out;
  auto widen = [](const Tensor& x) { return make_dense(x.sizes(), kFloat32, x.device()); };
  for (const Tensor& x : in) {
    if (!x.defined() || !is_half(x.dtype())) {
      wide_in.push_back(x);
      continue;
    }
    wide_in.push_back(widen(x));
    kernels::copy(wide_in.back(), x);
  }
  for (const Tensor& x : out) wide_out.push_back(is_half(x.dtype()) ? widen(x) : x);
  Attrs b = a;
  if (is_half(b.dtype)) b.dtype = kFloat32;
  kernel(Inputs(wide_in.data(), wide_in.size()), Inputs(wide_out.data(), wide_out.size()), b);
  for (std::size_t i = 0; i < out.size(); ++i)
    if (is_half(out[i].dtype())) kernels::copy(out[i], wide_out[i]);
}

// What Eval looks at in an op's inputs.
struct Inspected {
  bool tracked = false;  // one carries a record
  bool alike = true;     // all are defined and have one shape and dtype
  bool half = false;     // one has a half type
  Device device;         // of the values; where there are none, of the result
};
Inspected inspect(Interpreter& eval, const Op& op, Inputs in, const Attrs& a, bool grad_mode) {
  Inspected seen;
  const TensorImpl* first = nullptr;
  for (const Tensor& x : in) {
    const TensorImpl* i = x.handle().get();
    if (!i) {
      seen.alike = false;
      continue;
    }
    if (i->kind != TensorImpl::Kind::dense) [[unlikely]]
      refuse_box(x, op.name);
    if (i->view && grad_mode) eval.refresh(x);
    seen.tracked |= i->grad != nullptr;
    seen.half |= is_half(i->dtype);
    if (!first) {
      first = i;
    } else if (i != first) {
      if (!(first->device == i->device)) [[unlikely]]
        fail<DeviceError>(op.name, "expected all tensors on one device, got ", first->device,
                          " and ", i->device, "; move one with to()");
      seen.alike = seen.alike && i->dtype == first->dtype && i->sizes == first->sizes;
    }
  }
  seen.alike = seen.alike && first;
  seen.device = first ? first->device : a.device;
  return seen;
}

[[gnu::noinline]] void make_outputs(const Op& op, Inputs in, const Attrs& a, Tensors& out) {
  Metas metas;
  op.shape(in, a, metas);
  for (const Meta& m : metas) out.push_back(make_dense(m.sizes, m.dtype, m.device));
}

// The result of `op` in new memory.
Tensors compute(const Op& op, Inputs in, const Attrs& a, const Inspected& seen) {
  Tensors out;
  bool half = seen.half;
  if (seen.alike && op.shape == forms::shape_same) [[likely]] {  // no need to ask the shape rule
    out.push_back(make_like(*in[0].handle()));
  } else {
    make_outputs(op, in, a, out);
    for (const Tensor& y : out) half |= is_half(y.handle()->dtype);
  }
  if (!out.empty() && out[0].handle()->device.is_meta()) return out;
  run_kernel(op, in, Inputs(out.data(), out.size()), a, half);
  return out;
}

// A view of in[0], or of a copy where memory does not allow one.
Tensors view(const Op& op, Inputs in, const Attrs& a, bool grad_mode) {
  Tensor x = in[0];
  Shape sizes, strides;
  std::int64_t offset = 0;
  const bool is_view = op.alias(x, a, sizes, strides, offset);
  if (!is_view) {
    Tensor copy = make_dense(x.sizes(), x.dtype(), x.device());
    if (!x.is_meta()) kernels::copy(copy, x);
    x = copy;
    op.alias(x, a, sizes, strides, offset);
  }
  Tensors out;
  out.push_back(make_alias(x, sizes, strides, offset));
  TensorImpl* o = out[0].impl();
  o->is_view = is_view;
  if (is_view && grad_mode && op.differentiable && is_floating(o->dtype))
    o->view = std::make_unique<ViewInfo>(
        ViewInfo{in[0], &op, a, in[0].impl()->writes, g_rebinds.load(std::memory_order_relaxed)});
  return out;
}

// Hangs records on the outputs of `op`.
void record(const Op& op, Inputs in, const Attrs& a, Tensors& out) {
  if (op.alias && !op.vjp) {
    // The value is a view, its history is that of the expansion.
    Tensor e = op.expand(in, a)[0];
    if (e.impl()->grad) e.impl()->grad->move_to(out[0]);
    return;
  }
  for (const Tensor& x : in) {
    if (!x.defined() || !x.impl()->grad) continue;
    x.impl()->grad->record(op, in, Inputs(out.data(), out.size()), a);
    return;
  }
}

}  // namespace

// Not in the header, so that what others compile is the same with CUDA and without.
Kernel kernel_on(const Op& op, Device device) {
  if constexpr (TUTTI_CUDA)
    if (device.is_cuda()) [[unlikely]]
      return op.cuda;
  return op.cpu;
}

void run_kernel(const Op& op, Inputs in, Inputs out, const Attrs& a, bool half) {
  const Device device = out.empty() ? Device() : out[0].handle()->device;  // the first says where
  const Kernel kernel = kernel_on(op, device);
  if (!kernel) [[unlikely]]
    fail_without_kernel(op, device);
  if (half && !takes_half(op, device)) [[unlikely]]
    run_in_float(kernel, in, out, a);
  else
    kernel(in, out, a);
}

bool any_half(Inputs in, Inputs out) {
  const auto half = [](const Tensor& x) { return x.handle() && is_half(x.handle()->dtype); };
  return std::any_of(in.begin(), in.end(), half) || std::any_of(out.begin(), out.end(), half);
}

Tensors Eval::run(const Op& op, Inputs in, const Attrs& a) {
  const bool grad_mode = thread_state().grad_mode;
  const Inspected seen = inspect(*this, op, in, a, grad_mode);
  const bool recording = seen.tracked && grad_mode && op.differentiable;
  if (kernel_on(op, seen.device) && !(recording && !op.vjp)) [[likely]] {
    Tensors out = compute(op, in, a, seen);
    if (recording) record(op, in, a, out);
    return out;
  }
  Tensors out;
  if (op.alias) {
    out = view(op, in, a, grad_mode);
  } else if (op.expand) {
    // Made of smaller ops, which record themselves unless the op has a vjp of its own.
    if (!recording || !op.vjp) return op.expand(in, a);
    thread_state().grad_mode = false;
    struct Restore {
      ~Restore() { thread_state().grad_mode = true; }
    } restore;
    out = op.expand(in, a);
  } else {
    out = compute(op, in, a, seen);
  }
  if (recording) record(op, in, a, out);
  return out;
}

void Eval::run_inplace(const Op& op, const Tensor& dst, Inputs in, const Attrs& a) {
  refuse_box(dst, op.name);
  const bool grad_mode = thread_state().grad_mode;
  const bool tracked = inspect(*this, op, in, a, grad_mode).tracked;
  TensorImpl& d = *dst.impl();
  const Kernel kernel = kernel_on(op, d.device);
  bool direct = op.elementwise && kernel && !is_half(d.dtype) && !d.device.is_meta() &&
                !overlaps_itself(d) && !(grad_mode && (tracked || d.grad || d.view));
  if (direct) {
    Metas metas;
    op.shape(in, a, metas);
    direct = metas[0].sizes == d.sizes && metas[0].dtype == d.dtype;
  }
  for (const Tensor& x : in)
    direct = direct && x.defined() && !is_half(x.dtype()) &&
             (same_view(d, *x.impl()) || !may_overlap(d, *x.impl()));
  if (!direct) {
    if (!tracked) return Interpreter::run_inplace(op, dst, in, a);
    Tensors kept =
        keep_saved(op, in, [&](const Tensor& x) { return x.impl()->storage == d.storage; });
    return Interpreter::run_inplace(op, dst, Inputs(kept.data(), kept.size()), a);
  }
  kernel(in, Inputs(&dst, 1), a);
  d.storage->bump();
}

void Eval::assign(const Tensor& dst, const Tensor& src) {
  refuse_box(dst, "assign");
  refuse_box(src, "assign");
  TensorImpl& d = *dst.impl();
  if (!thread_state().grad_mode || !is_floating(d.dtype))
    return write_memory(dst, d.sizes == src.impl()->sizes ? src : fit(src, dst));
  refresh(dst);
  refresh(src);
  bool tracked = src.impl()->grad != nullptr;
  for (const TensorImpl* i = &d;; i = i->view->base.impl()) {
    check<AutogradError>(
        !i->grad || !i->grad->leaf(), "assign", "in-place change of a leaf that requires grad",
        i == &d ? "" : " (through a view)", "; wrap it in a NoGradGuard, or clone the leaf first");
    tracked |= i->grad != nullptr;
    if (!i->view) break;
  }
  if (!tracked) return write_memory(dst, d.sizes == src.impl()->sizes ? src : fit(src, dst));
  Tensor value = fit(src, dst), root = dst;
  while (const ViewInfo* v = root.impl()->view.get()) {
    check<ValueError>(v->op->put != nullptr, "assign", v->op->name,
                      " gave a view that cannot be written: ", v->op->reason);
    Tensor base = v->base;
    value = v->op->put(base, value, v->attrs);
    root = base;
  }
  rebind(root, value);
  if (!root.is_same(dst)) refresh(dst);
}

void Eval::rebind(const Tensor& dst, const Tensor& src) {
  // A leaf's record must not move: the destination is a copy of the leaf, not the leaf.
  Tensor value = src.impl()->grad && src.impl()->grad->leaf() ? clone(src) : src;
  write_memory(dst, value);
  if (value.impl()->grad)
    value.impl()->grad->move_to(dst);
  else
    dst.impl()->grad = nullptr;
  record_changed(dst);
}

void Eval::assign_captured(const Tensor& dst, const Tensor& src) { assign(dst, src); }

void record_changed(const Tensor& x) {
  ++x.impl()->writes;
  g_rebinds.fetch_add(1, std::memory_order_relaxed);
}

// The memory of a dense view is always current; after its base was re-recorded its record is made
// anew.
void Eval::refresh(const Tensor& x) {
  if (!x.defined() || !x.impl()->view) return;
  std::uint64_t rebinds = g_rebinds.load(std::memory_order_relaxed);
  if (last_check(*x.impl()->view) == rebinds) return;
  std::lock_guard lock(g_refreshing);
  SmallVec<TensorImpl*, 8> chain;
  for (TensorImpl* i = x.impl(); i->view && last_check(*i->view) != rebinds;
       i = i->view->base.impl())
    chain.push_back(i);
  Recording recording(thread_state().grad_mode);
  for (std::size_t k = chain.size(); k-- > 0;) {
    ViewInfo& v = *chain[k]->view;
    if (std::uint64_t now = v.base.impl()->writes; v.seen != now) {
      v.seen = now;
      Tensor again = run(*v.op, Inputs(&v.base, 1), v.attrs)[0];
      if (again.impl()->grad)
        again.impl()->grad->move_to(Tensor(Ptr<TensorImpl>(chain[k])));
      else
        chain[k]->grad = nullptr;
      ++chain[k]->writes;
    }
    checked_now(v, rebinds);  // last: from here on other threads use the record without the lock
  }
}

}  // namespace tutti
