// Reference counting for tensors, storages and graph nodes. The last owner hands an object to
// destroy(), which frees chains of any length with a loop instead of recursion.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <tutti/core/small_vec.h>

/// For the few small thread-local variables every op reads: found without a call also in
/// position-independent code.
#if defined(__ELF__)
#define TUTTI_FAST_TLS __attribute__((tls_model("initial-exec")))
#else
#define TUTTI_FAST_TLS
#endif

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

/// Types whose destructor drops no other RefCounted, so that deleting one cannot recurse.
template <class T>
inline constexpr bool owns_none = false;

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
  template <class U>
  requires(std::is_convertible_v<U*, T*>) Ptr(Ptr<U>&& o)
  noexcept : p_(o.release()) {}
  Ptr& operator=(Ptr o) noexcept {
    std::swap(p_, o.p_);
    return *this;
  }
  ~Ptr() {
    T* const p = p_;
    if (!p || !drop(*p)) return;
    if constexpr (owns_none<T>)
      delete p;
    else
      detail::destroy(p);
  }
  /// For an object nobody else knows yet.
  static Ptr adopt(T* fresh) {
    Ptr p;
    p.p_ = fresh;
    fresh->refs.store(1, std::memory_order_relaxed);
    return p;
  }
  T* get() const { return p_; }
  /// Gives up its share without dropping it.
  T* release() { return std::exchange(p_, nullptr); }
  T* operator->() const { return p_; }
  T& operator*() const { return *p_; }
  explicit operator bool() const { return p_ != nullptr; }
  friend bool operator==(const Ptr& a, const Ptr& b) { return a.p_ == b.p_; }

 private:
  /// Drops our share; true if it was the last one. Nobody can add to a count of one, so that needs
  /// no locked instruction.
  static bool drop(const T& x) {
    return x.refs.load(std::memory_order_acquire) == 1 ||
           x.refs.fetch_sub(1, std::memory_order_acq_rel) == 1;
  }
  void retain() const {
    if (p_) p_->refs.fetch_add(1, std::memory_order_relaxed);
  }
  T* p_ = nullptr;
};

template <class T>
inline constexpr bool relocatable<Ptr<T>> = true;

template <class T, class... Args>
Ptr<T> make_ref(Args&&... args) {
  return Ptr<T>::adopt(new T(std::forward<Args>(args)...));
}

}  // namespace tutti
