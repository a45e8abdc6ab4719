// TensorOptions: dtype, device and requires_grad for the functions that make tensors. A dtype or a
// device converts to it.
#pragma once
#include <optional>

#include <tutti/core/device.h>
#include <tutti/core/dtype.h>

namespace tutti {

class Tensor;

class TensorOptions {
 public:
  TensorOptions() = default;
  TensorOptions(DType t) : dtype_(t) {}
  TensorOptions(Device d) : device_(d) {}
  TensorOptions(DeviceType d) : device_(Device(d)) {}

  TensorOptions dtype(DType t) const {
    TensorOptions o = *this;
    o.dtype_ = t;
    return o;
  }
  TensorOptions device(Device d) const {
    TensorOptions o = *this;
    o.device_ = d;
    return o;
  }
  TensorOptions device(DeviceType d) const { return device(Device(d)); }
  /// Defined in autograd/, so that a program without gradients links core alone.
  TensorOptions requires_grad(bool on = true) const;

  DType dtype() const { return dtype_.value_or(kFloat32); }
  bool has_dtype() const { return dtype_.has_value(); }
  Device device() const { return device_.value_or(Device()); }
  bool has_device() const { return device_.has_value(); }
  bool requires_grad_set() const { return mark_ != nullptr; }
  /// Applies requires_grad to a new tensor.
  Tensor finish(Tensor t) const;

 private:
  std::optional<DType> dtype_;
  std::optional<Device> device_;
  void (*mark_)(Tensor&) = nullptr;
};

}  // namespace tutti
