// What stands behind a Tensor handle. For core's kernels and the interpreters; users see tensor.h
// only.
#pragma once
#include <memory>

#include <tutti/core/op.h>
#include <tutti/core/tensor.h>

namespace tutti {

// TensorImpl itself is in impl.h, since handles need it.

/// One per running transform; boxes point to it. When the transform has ended, `alive` is zero and
/// touching its boxes is an error that names it.
struct Scope final : RefCounted {
  explicit Scope(const char* name) : transform(name) {}
  std::atomic<int> alive{0};  // interpreters that run under this scope
  const char* transform;
};
template <>
inline constexpr bool owns_none<Scope> = true;

/// How a view came about: re-running `op` on `base` gives it again.
struct ViewInfo {
  static void* operator new(std::size_t bytes) { return RefCounted::operator new(bytes); }
  static void operator delete(void* p, std::size_t bytes) noexcept {
    RefCounted::operator delete(p, bytes);
  }
  Tensor base;
  const Op* op;
  Attrs attrs;
  std::uint64_t seen;     // base's `writes` when this view was last brought up to date
  std::uint64_t checked;  // the interpreter's count of rebinds when that was last looked at
};

/// Base autograd's record on a dense tensor. Core only ever asks it to record an op; autograd/
/// derives from it.
struct AutogradMeta {
  virtual ~AutogradMeta() = default;
  /// An input of `op` carries this record and grad mode is on: hang records on the outputs.
  virtual void record(const Op& op, Inputs in, Inputs out, const Attrs& attrs) const = 0;
  virtual bool leaf() const = 0;
  /// Makes `dst` (dense) take over src's history; called after an in-place write.
  virtual void move_to(const Tensor& dst) const = 0;
};

/// A value inside a transform.
struct Box : TensorImpl {
  Box(const Ptr<Scope>& scope, Tensor&& inner);
  /// `hidden`: the axis of `inner` the user does not see, or -1.
  Box(const Ptr<Scope>& scope, Tensor&& inner, int hidden);
  void set_inner(Tensor value, int hidden = -1);
  Ptr<Scope> scope;         // whose it is: identity decides, never depth or kind
  Tensor inner;             // the value one level down
  bool captured = false;    // a view of a tensor that came from outside
  bool frozen = false;      // the differentiated argument: must not be written
  bool argument = false;    // an argument: writes are copied back at exit
  bool remembered = false;  // captured by a checkpointed function: must not be written
  bool unmapped = false;    // vmap: an argument with in_dim nullopt, must stay unbatched

 private:
  /// Takes over shape, dtype and device of the inner value. What is left without the hidden axis
  /// counts as memory of its own, starting at 0.
  void describe(int hidden);
};

/// A named place in a module.
struct Slot final : TensorImpl {
  Slot() : TensorImpl(Kind::slot) {}
  Tensor target;
};

/// A new dense tensor, uninitialised.
Tensor make_dense(IntArrayRef sizes, DType dtype, Device device = {});
/// The same with these strides, none negative.
Tensor make_strided(IntArrayRef sizes, IntArrayRef strides, DType dtype, Device device = {});
/// Whether dense x has neighbours along axis 0 next to each other, in lines that follow each other
/// in row-major order, and is not contiguous.
bool is_members_last(const TensorImpl& x);
/// A new dense tensor of x's shape, dtype and device, uninitialised.
Tensor make_like(const TensorImpl& x);
/// A dense tensor on x's storage.
Tensor make_alias(const Tensor& x, IntArrayRef sizes, IntArrayRef strides, std::int64_t offset);
/// Dense x, or a copy of its values where they are on a device.
Tensor on_cpu(const Tensor& x);
/// The same dense tensor without record and view info.
Tensor make_plain(const Tensor& x);
inline const Box* as_box(const Tensor& x) {
  TensorImpl* p = x.impl();
  return p && p->kind == TensorImpl::Kind::box ? static_cast<const Box*>(p) : nullptr;
}
/// Counts in-place writes to the value x refers to; saved values compare it.
std::uint64_t version_of(const Tensor& x);

}  // namespace tutti
