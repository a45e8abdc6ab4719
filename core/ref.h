// Reference counting for tensors, storages and graph nodes. The last owner hands an object to
// destroy(), which frees chains of any length with a loop instead of recursion.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace tutti {

struct RefCounted {
  RefCounted() = default;
  RefCounted(const RefCounted&) noexcept {}
  RefCounted& operator=(const RefCounted&) noexcept { return *this; }
  virtual ~RefCounted() = default;

  // Every op makes and drops a few; their memory comes from the cache of storage.cpp.
  static void* operator new(std::size_t bytes);
  static void operator delete(void* p, std::size_t bytes) noexcept;

  mutable std::atomic<std::int32_t> refs{0};
  RefCounted* next_to_destroy = nullptr;
};

namespace detail {
/// Deletes `p` and whatever becomes free by that, iteratively.
void destroy(RefCounted* p) noexcept;
}  // namespace detail

/// Owning pointer to a RefCounted. Copies may be made and dropped on any thread.
template <class T>
class Ptr {
 public:
  Ptr() = default;
  Ptr(std::nullptr_t) {}
  explicit Ptr(T* p) : p_(p) { retain(); }
  Ptr(const Ptr& o) : p_(o.p_) { retain(); }
  Ptr(Ptr&& o) noexcept : p_(std::exchange(o.p_, nullptr)) {}
  template <class U>
  requires(std::is_convertible_v<U*, T*>) Ptr(const Ptr<U>& o) : p_(o.get()) { retain(); }
  Ptr& operator=(Ptr o) noexcept {
    std::swap(p_, o.p_);
    return *this;
  }
  ~Ptr() {
    if (p_ && p_->refs.fetch_sub(1, std::memory_order_acq_rel) == 1) detail::destroy(p_);
  }
  T* get() const { return p_; }
  T* operator->() const { return p_; }
  T& operator*() const { return *p_; }
  explicit operator bool() const { return p_ != nullptr; }
  friend bool operator==(const Ptr& a, const Ptr& b) { return a.p_ == b.p_; }

 private:
  void retain() const {
    if (p_) p_->refs.fetch_add(1, std::memory_order_relaxed);
  }
  T* p_ = nullptr;
};

template <class T, class... Args>
Ptr<T> make_ref(Args&&... args) {
  return Ptr<T>(new T(std::forward<Args>(args)...));
}

}  // namespace tutti
