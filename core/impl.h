// TensorImpl: what a Tensor handle points to. tensor.h explains the three kinds; tensor_impl.h has
// the rest.
#pragma once
#include <memory>

#include <tutti/core/device.h>
#include <tutti/core/dtype.h>
#include <tutti/core/shape.h>
#include <tutti/core/storage.h>

namespace tutti {

struct AutogradMeta;
struct ViewInfo;

struct TensorImpl : RefCounted {
  enum class Kind : std::uint8_t { dense, slot, box };
  explicit TensorImpl(Kind k);
  /// Dense and contiguous, still without memory.
  TensorImpl(DType dtype, Device device, const Shape& sizes, std::int64_t numel);
  /// With the shape, dtype and device of another one.
  TensorImpl(Kind k, const TensorImpl& like);
  /// A second handle on the same storage, without autograd record or view info.
  TensorImpl(const TensorImpl& o);
  ~TensorImpl() override;

  Kind kind;
  DType dtype = kFloat32;
  Device device;
  bool is_view = false;
  Shape sizes, strides;
  std::int64_t offset = 0;  // in elements
  std::int64_t numel = 0;
  Ptr<Storage> storage;                // dense, not on Meta
  std::unique_ptr<AutogradMeta> grad;  // dense: base autograd
  std::unique_ptr<ViewInfo> view;      // dense (base autograd) and boxes
  std::uint64_t writes = 0;  // in-place writes to this box, or re-recordings of this dense tensor

  std::byte* data() const { return storage->data() + offset * size_of(dtype); }
  void set_sizes(IntArrayRef s) {
    sizes = s.shape();
    numel = numel_of(s);
  }
};

}  // namespace tutti
