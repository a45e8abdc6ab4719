// TensorOptions: dtype, device and requires_grad for the functions that make tensors. A dtype or a
// device converts to it.
#pragma once

#include <optional>

#include <tutti/core/device.h>
#include <tutti/core/dtype.h>

namespace tutti {

using std::nullopt;

class Tensor;

class TensorOptions {
 public:
  TensorOptions() = default;
  TensorOptions(DType t) : dtype_(t), has_dtype_(true) {}
  TensorOptions(Device d) : device_(d), has_device_(true) {}
  TensorOptions(DeviceType d) : TensorOptions(Device(d)) {}

  TensorOptions dtype(DType t) const {
    TensorOptions o = *this;
    o.dtype_ = t;
    o.has_dtype_ = true;
    return o;
  }
  TensorOptions device(Device d) const {
    TensorOptions o = *this;
    o.device_ = d;
    o.has_device_ = true;
    return o;
  }
  TensorOptions device(DeviceType d) const { return device(Device(d)); }
  /// Defined in autograd/, so that a program without gradients links core alone.
  TensorOptions requires_grad(bool on = true) const;

  DType dtype() const { return has_dtype_ ? dtype_ : kFloat32; }
  bool has_dtype() const { return has_dtype_; }
  Device device() const { return has_device_ ? device_ : Device(); }
  bool has_device() const { return has_device_; }
  bool requires_grad_set() const { return mark_ != nullptr; }
  /// Applies requires_grad to a new tensor.
  Tensor finish(Tensor t) const;

 private:
  DType dtype_ = kFloat32;
  bool has_dtype_ = false;
  Device device_;
  bool has_device_ = false;
  void (*mark_)(Tensor&) = nullptr;
};

}  // namespace tutti
