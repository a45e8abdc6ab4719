// Tensor: a cheap handle to a TensorImpl, which is one of
//   dense  sizes, strides and offset into a Storage (no storage on the Meta device),
//   slot   a named place in a module that points to the real tensor; every access goes through
//   impl(), which follows
//          it to its substitute in the active functional_call view, else to its target,
//   box    a value inside a running transform (GradBox, JvpBox, BatchBox derive from Box); its
//   owner is a Scope.
// Sizes of a box are what the user sees: inside vmap, the shape per example.
#pragma once
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tutti/core/device.h>
#include <tutti/core/dtype.h>
#include <tutti/core/impl.h>
#include <tutti/core/options.h>
#include <tutti/core/random.h>
#include <tutti/core/shape.h>
#include <tutti/core/storage.h>

namespace tutti {

class Tensor;
class Interpreter;
struct Op;
struct Attrs;
class TensorIndex;
struct BoolArg;
using TensorIndices = std::initializer_list<TensorIndex>;

template <>
inline constexpr bool relocatable<Tensor> = true;
using Tensors = SmallVec<Tensor, 4>;
/// Read-only list of tensors, from a braced list, a vector or Tensors.
class TensorList;

namespace detail {
// Slots: see tensor_impl.h.
TensorImpl* resolve_slot(TensorImpl* slot);
Ptr<TensorImpl> copy_slot(const Ptr<TensorImpl>& p);
[[noreturn]] void fail_undefined(const char* op);
inline Ptr<TensorImpl> copy_handle(const Ptr<TensorImpl>& p) {
  return p && p->kind == TensorImpl::Kind::slot ? copy_slot(p) : p;
}
/// Number of tensors (of any kind) alive in the process; tests check that it returns to where it
/// was.
std::int64_t live_tensors();
}  // namespace detail

/// Element access of a dense CPU tensor of known rank, as LibTorch's TensorAccessor. It keeps its
/// own sizes and strides, so the handle it came from may go; the memory must stay.
template <class T, std::size_t N>
class TensorAccessor {
 public:
  TensorAccessor(T* data, const std::int64_t* sizes, const std::int64_t* strides) : data_(data) {
    for (std::size_t d = 0; d < N; ++d) sizes_[d] = sizes[d], strides_[d] = strides[d];
  }
  decltype(auto) operator[](std::int64_t i) const {
    if constexpr (N == 1)
      return (data_[i * strides_[0]]);
    else
      return TensorAccessor<T, N - 1>(data_ + i * strides_[0], sizes_ + 1, strides_ + 1);
  }
  std::int64_t size(std::int64_t d) const { return sizes_[d]; }
  T* data() const { return data_; }

 private:
  T* data_;
  std::int64_t sizes_[N];
  std::int64_t strides_[N];
};

/// A multi-dimensional array of one element type; a handle, so copies share the value. Const-ness
/// is that of the handle, as in LibTorch. Distinct tensors may be used from distinct threads;
/// writing one while another thread uses it is a data race.
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Ptr<TensorImpl>&& p) : p_(std::move(p)) {}
  explicit Tensor(const Ptr<TensorImpl>& p) : p_(p) {}
  Tensor(const Tensor& o) : p_(detail::copy_handle(o.p_)) {}
  Tensor(Tensor&&) noexcept = default;
  Tensor& operator=(const Tensor& o) {
    p_ = detail::copy_handle(o.p_);
    return *this;
  }
  Tensor& operator=(Tensor&&) noexcept = default;
  ~Tensor() = default;

  /// The value behind the handle: a slot is followed to what it stands for now. Null if undefined.
  TensorImpl* impl() const {
    return p_ && p_->kind == TensorImpl::Kind::slot ? detail::resolve_slot(p_.get()) : p_.get();
  }
  /// The handle itself, which may be a slot.
  const Ptr<TensorImpl>& handle() const { return p_; }

  bool defined() const { return impl() != nullptr; }
  explicit operator bool() const = delete;
  /// True if both handles refer to the same value.
  bool is_same(const Tensor& o) const { return impl() == o.impl(); }
  void reset() { p_ = nullptr; }

  // Shape and kind. All throw ValueError on an undefined tensor.
  std::int64_t dim() const { return static_cast<std::int64_t>(known("dim").sizes.size()); }
  std::int64_t size(std::int64_t axis) const;
  IntArrayRef sizes() const { return known("sizes").sizes; }
  IntArrayRef strides() const { return known("strides").strides; }
  std::int64_t stride(std::int64_t axis) const;
  std::int64_t numel() const { return known("numel").numel; }
  DType dtype() const { return known("dtype").dtype; }
  DType scalar_type() const { return dtype(); }
  Device device() const { return known("device").device; }
  std::int64_t element_size() const { return size_of(dtype()); }
  std::int64_t storage_offset() const;
  bool is_contiguous() const;
  bool is_floating_point() const { return is_floating(dtype()); }
  bool is_cpu() const { return device().is_cpu(); }
  bool is_cuda() const { return device().is_cuda(); }
  bool is_meta() const { return device().is_meta(); }
  bool is_view() const;
  TensorOptions options() const;
  std::string to_string() const;

  // Data. Grad and Jvp boxes are looked through for reading; Batch boxes refuse with advice.
  /// The only element, as a Scalar. ValueError unless numel() == 1.
  Scalar item() const;
  template <Element T>
  T item() const {
    return item().to<T>();
  }
  /// Pointer to the first element for writing; TypeError unless T is the exact dtype,
  /// TransformError for any box.
  template <Element T>
  T* data_ptr() const {
    return static_cast<T*>(mutable_data(dtype_of<T>()));
  }
  /// Pointer for reading only; passes through grad and jvp boxes.
  template <Element T>
  const T* const_data_ptr() const {
    return static_cast<const T*>(const_data(dtype_of<T>()));
  }
  template <Element T, std::size_t N>
  TensorAccessor<T, N> accessor() const {
    check_rank(static_cast<std::int64_t>(N));
    return {data_ptr<T>(), sizes().data(), strides().data()};
  }
  /// All elements in row-major order, converted to T.
  template <Element T>
  std::vector<T> to_vector() const {
    std::vector<T> out(static_cast<std::size_t>(numel()));
    if constexpr (std::is_same_v<T, bool>) {
      std::unique_ptr<bool[]> tmp(new bool[out.size()]);
      copy_to(tmp.get(), kBool);
      std::copy(tmp.get(), tmp.get() + out.size(), out.begin());
    } else {
      copy_to(out.data(), dtype_of<T>());
    }
    return out;
  }
  /// to(kCUDA). No free function: its name is that of the namespace of core/cuda.h.
  Tensor cuda() const;
  /// Untyped data address without any check; for kernels.
  void* raw() const;

  // Autograd (defined in autograd/).
  bool requires_grad() const;
  /// Makes a leaf whose gradient backward() accumulates, as torch.Tensor.requires_grad_. TypeError
  /// unless floating.
  Tensor& requires_grad_(bool on = true) const;
  Tensor& set_requires_grad(bool on) const { return requires_grad_(on); }
  bool is_leaf() const;
  /// The accumulated gradient; undefined if there is none.
  const Tensor& grad() const;
  Tensor& mutable_grad() const;
  /// Accumulates d(this)/d(leaf) into every leaf's grad(), as torch.Tensor.backward. `gradient` has
  /// this tensor's shape and device, and is converted to its dtype.
  void backward(const Tensor& gradient = {}, std::optional<bool> retain_graph = std::nullopt,
                bool create_graph = false) const;
  void retain_grad() const;
  /// Calls `hook` with the gradient of this tensor when it is computed; a defined result, which
  /// must have its shape, dtype and device, replaces it.
  std::size_t register_hook(std::function<Tensor(const Tensor&)> hook) const;
  /// The same with a hook that only looks.
  template <class F>
  requires std::is_void_v<std::invoke_result_t<F&, const Tensor&>> std::size_t register_hook(F hook)
  const {
    return register_hook([hook = std::move(hook)](const Tensor& g) mutable {
      hook(g);
      return Tensor();
    });
  }
  /// Undoes the register_hook() that returned `hook`, as torch::Tensor::remove_hook. IndexError if
  /// none of this tensor's did.
  void remove_hook(std::size_t hook) const;
  /// Cuts this tensor itself from its history.
  Tensor& detach_() const;

  // Indexing; see indexing.h.
  Tensor operator[](std::int64_t i) const;
  Tensor operator[](const Tensor& i) const;

  Tensor& operator+=(const Tensor& o) const;
  Tensor& operator-=(const Tensor& o) const;
  Tensor& operator*=(const Tensor& o) const;
  Tensor& operator/=(const Tensor& o) const;
  Tensor& operator+=(const Scalar& o) const;
  Tensor& operator-=(const Scalar& o) const;
  Tensor& operator*=(const Scalar& o) const;
  Tensor& operator/=(const Scalar& o) const;

  // Every public op as a member; written by scripts/gen_members.py from ops.h.
#include <tutti/core/tensor_members.inc>

 protected:
  Ptr<TensorImpl> p_;

 private:
  void* mutable_data(DType t) const;
  const void* const_data(DType t) const;
  /// impl() of a defined tensor; the accessors above are in every op's path, so they are inline.
  const TensorImpl& known(const char* op) const {
    const TensorImpl* p = impl();
    if (!p) [[unlikely]]
      detail::fail_undefined(op);
    return *p;
  }
  void copy_to(void* out, DType t) const;
  void check_rank(std::int64_t n) const;
};

class TensorList {
 public:
  TensorList() = default;
  TensorList(const Tensor* p, std::size_t n) : p_(p), n_(n) {}
  TensorList(std::initializer_list<Tensor> v) : p_(std::begin(v)), n_(v.size()) {}
  TensorList(const std::vector<Tensor>& v) : p_(v.data()), n_(v.size()) {}
  TensorList(const Tensors& v) : p_(v.data()), n_(v.size()) {}
  std::size_t size() const { return n_; }
  bool empty() const { return n_ == 0; }
  const Tensor* begin() const { return p_; }
  const Tensor* end() const { return p_ + n_; }
  const Tensor* data() const { return p_; }
  const Tensor& operator[](std::size_t i) const { return p_[i]; }
  const Tensor& front() const { return p_[0]; }

 private:
  const Tensor* p_ = nullptr;
  std::size_t n_ = 0;
};

/// Prints like PyTorch; a box shows its wrapper and shape.
std::ostream& operator<<(std::ostream& out, const Tensor& t);

}  // namespace tutti
