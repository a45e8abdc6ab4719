// SmallVec<T, N>: a vector that keeps up to N elements inside itself, so that shapes and short
// tensor lists cost no allocation. The subset of std::vector's interface that tutti needs; not
// thread-safe, like std::vector.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace tutti {

/// Types whose objects may be moved to other memory by copying their bytes and forgetting the old
/// place.
template <class T>
inline constexpr bool relocatable = std::is_trivially_copyable_v<T>;

template <class T, std::size_t N>
class SmallVec {
 public:
  using value_type = T;
  using iterator = T*;
  using const_iterator = const T*;

  SmallVec() noexcept = default;
  explicit SmallVec(std::size_t n, const T& v = T()) {
    reserve(n);
    for (; size_ < n; ++size_) ::new (data_ + size_) T(v);
  }
  SmallVec(std::initializer_list<T> v) : SmallVec(v.begin(), v.end()) {}
  template <class It>
  requires(!std::is_integral_v<It>) SmallVec(It first, It last) {
    append(first, static_cast<std::size_t>(last - first));
  }
  SmallVec(const SmallVec& o) { copy(o); }
  SmallVec(SmallVec&& o) noexcept { steal(std::move(o)); }
  SmallVec& operator=(const SmallVec& o) {
    if (this == &o) return *this;
    if constexpr (std::is_trivially_copyable_v<T>) {
      size_ = 0;
      copy(o);
    } else {
      SmallVec copy(o);
      *this = std::move(copy);
    }
    return *this;
  }
  SmallVec& operator=(SmallVec&& o) noexcept {
    if (this != &o) {
      release();
      steal(std::move(o));
    }
    return *this;
  }
  ~SmallVec() { release(); }

  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  T* begin() noexcept { return data_; }
  T* end() noexcept { return data_ + size_; }
  const T* begin() const noexcept { return data_; }
  const T* end() const noexcept { return data_ + size_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }
  T& front() { return data_[0]; }
  const T& front() const { return data_[0]; }
  T& back() { return data_[size_ - 1]; }
  const T& back() const { return data_[size_ - 1]; }

  void reserve(std::size_t n) {
    if (n > capacity_) grow(n);
  }
  template <class... Args>
  T& emplace_back(Args&&... args) {
    if (size_ == capacity_) [[unlikely]]
      return emplace_grown(T(std::forward<Args>(args)...));
    return *::new (data_ + size_++) T(std::forward<Args>(args)...);
  }
  void push_back(const T& v) { emplace_back(v); }
  void push_back(T&& v) { emplace_back(std::move(v)); }
  void pop_back() { data_[--size_].~T(); }
  void clear() noexcept {
    std::destroy(begin(), end());
    size_ = 0;
  }
  void resize(std::size_t n, const T& v = T()) {
    while (size_ > n) pop_back();
    reserve(n);
    while (size_ < n) push_back(v);
  }
  iterator insert(const_iterator at, T v) {
    std::size_t i = static_cast<std::size_t>(at - data_);
    push_back(std::move(v));
    std::rotate(begin() + i, end() - 1, end());
    return begin() + i;
  }
  iterator erase(const_iterator at) {
    std::size_t i = static_cast<std::size_t>(at - data_);
    std::move(begin() + i + 1, end(), begin() + i);
    pop_back();
    return begin() + i;
  }
  friend bool operator==(const SmallVec& a, const SmallVec& b) {
    if (a.size_ != b.size_) return false;
    for (std::size_t i = 0; i < a.size_; ++i)  // short; std::equal would call memcmp
      if (!(a.data_[i] == b.data_[i])) return false;
    return true;
  }

 private:
  /// Of an empty vector.
  template <class It>
  void append(It first, std::size_t n) {
    reserve(n);
    for (; size_ < n; ++size_, ++first) ::new (data_ + size_) T(*first);
  }
  /// Of an empty vector. The whole buffer at once, whatever is in use of it: a few moves.
  void copy(const SmallVec& o) {
    if constexpr (std::is_trivially_copyable_v<T> && sizeof(buffer_) <= 64) {
      if (o.in_place()) [[likely]] {
        std::memcpy(data_, o.buffer_, sizeof(buffer_));
        size_ = o.size_;
        return;
      }
    }
    append(o.data_, o.size_);
  }
  /// `v` is no element of this vector.
  [[gnu::noinline]] T& emplace_grown(T&& v) {
    grow(std::max<std::size_t>(capacity_, N) * 2);
    return *::new (data_ + size_++) T(std::move(v));
  }
  bool in_place() const noexcept { return capacity_ == N; }
  T* inline_data() noexcept { return reinterpret_cast<T*>(buffer_); }
  void grow(std::size_t n) {
    T* d = std::allocator<T>().allocate(n);
    std::uninitialized_move(begin(), end(), d);
    const std::uint32_t size = size_;
    release();
    data_ = d;
    size_ = size;
    capacity_ = static_cast<std::uint32_t>(n);
  }
  void release() noexcept {
    std::destroy(begin(), end());
    if (!in_place()) std::allocator<T>().deallocate(data_, capacity_);
    data_ = inline_data();
    size_ = 0;
    capacity_ = N;
  }
  /// Of an empty vector without memory of its own.
  void steal(SmallVec&& o) noexcept {
    size_ = std::exchange(o.size_, 0);
    if (!o.in_place()) {
      data_ = std::exchange(o.data_, o.inline_data());
      capacity_ = std::exchange(o.capacity_, N);
    } else if constexpr (relocatable<T> && sizeof(buffer_) <= 64) {
      std::memcpy(buffer_, o.buffer_, sizeof(buffer_));
    } else {
      std::uninitialized_move(o.data_, o.data_ + size_, data_);
      std::destroy(o.data_, o.data_ + size_);
    }
  }

  T* data_ = inline_data();
  std::uint32_t size_ = 0;
  std::uint32_t capacity_ = N;
  alignas(T) unsigned char buffer_[N * sizeof(T)];
};

}  // namespace tutti
