// Shapes: Shape owns sizes or strides, IntArrayRef refers to somebody's; axis normalising and
// broadcasting of shapes.
#pragma once
#include <array>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include <tutti/core/error.h>
#include <tutti/core/small_vec.h>

namespace tutti {

/// Sizes, strides or axes that are owned; no allocation up to six.
using Shape = SmallVec<std::int64_t, 6>;

/// A read-only view of integers (sizes, strides, axes), or one integer. Like a string_view it must
/// not outlive what it was made from; a single integer is kept by value.
class IntArrayRef {
 public:
  using value_type = std::int64_t;
  IntArrayRef() = default;
  template <std::integral T>
  requires(!std::same_as<T, bool>) IntArrayRef(T one)
      : size_(1), one_(static_cast<std::int64_t>(one)) {}
  IntArrayRef(const std::int64_t* data, std::size_t n) : data_(data), size_(n) {}
  IntArrayRef(std::initializer_list<std::int64_t> v) : data_(std::begin(v)), size_(v.size()) {}
  IntArrayRef(const std::vector<std::int64_t>& v) : data_(v.data()), size_(v.size()) {}
  IntArrayRef(const Shape& v) : data_(v.data()), size_(v.size()) {}
  IntArrayRef(std::span<const std::int64_t> v) : data_(v.data()), size_(v.size()) {}
  template <std::size_t N>
  IntArrayRef(const std::array<std::int64_t, N>& v) : data_(v.data()), size_(N) {}
  template <std::size_t N>
  IntArrayRef(const std::int64_t (&v)[N]) : data_(v), size_(N) {}

  const std::int64_t* data() const { return data_ || size_ == 0 ? data_ : &one_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const std::int64_t* begin() const { return data(); }
  const std::int64_t* end() const { return data() + size_; }
  std::int64_t operator[](std::size_t i) const { return data()[i]; }
  std::int64_t front() const { return data()[0]; }
  std::int64_t back() const { return data()[size_ - 1]; }
  std::int64_t at(std::size_t i) const;
  std::vector<std::int64_t> vec() const { return {begin(), end()}; }
  Shape shape() const { return Shape(begin(), end()); }
  friend bool operator==(const IntArrayRef& a, const IntArrayRef& b) {
    if (a.size_ != b.size_) return false;
    const std::int64_t *x = a.data(), *y = b.data();
    for (std::size_t i = 0; i < a.size_; ++i)  // short; std::equal would call memcmp
      if (x[i] != y[i]) return false;
    return true;
  }

 private:
  const std::int64_t* data_ = nullptr;
  std::size_t size_ = 0;
  std::int64_t one_ = 0;
};

using OptionalIntArrayRef = IntArrayRef;

/// Number of elements of a tensor with these sizes.
std::int64_t numel_of(IntArrayRef sizes);
/// Row-major strides, in elements, for these sizes.
Shape contiguous_strides(const Shape& sizes);
Shape contiguous_strides(IntArrayRef sizes);
/// True if `strides` visit `sizes` in row-major order without gaps (axes of size 1 do not matter).
bool is_contiguous(IntArrayRef sizes, IntArrayRef strides);
/// Where neighbours along `axis` are neighbours in memory and the other axes visit such lines in
/// row-major order: elements from one line to the next, which may leave a gap; otherwise 0.
std::int64_t line_pitch(IntArrayRef sizes, IntArrayRef strides, std::size_t axis);
/// Maps -rank..rank-1 to 0..rank-1; IndexError names `op`. A rank of 0 is treated as 1, as in
/// PyTorch.
std::int64_t normalize_axis(std::int64_t axis, std::int64_t rank, std::string_view op);
/// All axes normalised, sorted as given; IndexError on a repeat. An empty list with `all_if_empty`
/// means every axis.
Shape normalize_axes(IntArrayRef axes, std::int64_t rank, std::string_view op,
                     bool all_if_empty = false);
/// The shape two operands broadcast to (NumPy's rule); ShapeError names `op`.
Shape broadcast_shapes(IntArrayRef a, IntArrayRef b, std::string_view op);
/// Strides for viewing (sizes, strides) as `to` without a copy. False if that cannot be.
bool view_strides(IntArrayRef sizes, IntArrayRef strides, IntArrayRef to, Shape& out);
/// Replaces one -1 in `sizes` so that it has `numel` elements; ShapeError if it cannot.
Shape infer_size(IntArrayRef sizes, std::int64_t numel, std::string_view op);

}  // namespace tutti
