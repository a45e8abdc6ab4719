// Shape arithmetic: sizes, strides, axes, broadcasting and viewing.
#include <algorithm>

#include <tutti/core/shape.h>

namespace tutti {

std::int64_t IntArrayRef::at(std::size_t i) const {
  check<IndexError>(i < size_, "IntArrayRef", "expected an index below ", size_, ", got ", i,
                    "; ask size() first");
  return data()[i];
}

std::int64_t numel_of(IntArrayRef sizes) {
  std::int64_t n = 1;
  for (std::int64_t s : sizes) {
    if (__builtin_mul_overflow(n, s, &n)) [[unlikely]] {
      if (std::find(sizes.begin(), sizes.end(), 0) != sizes.end()) return 0;
      fail<ShapeError>("shape", "expected fewer than 2^63 elements, got sizes ", sizes,
                       "; make it smaller");
    }
  }
  return n;
}

Shape contiguous_strides(const Shape& sizes) {
  Shape s = sizes;
  std::int64_t step = 1;
  for (std::size_t i = s.size(); i-- > 0;) {
    const std::int64_t size = s[i];
    s[i] = step;
    step *= std::max<std::int64_t>(size, 1);
  }
  return s;
}
Shape contiguous_strides(IntArrayRef sizes) { return contiguous_strides(sizes.shape()); }

std::int64_t line_pitch(IntArrayRef sizes, IntArrayRef strides, std::size_t axis) {
  if (strides[axis] != 1) return 0;
  std::int64_t pitch = 0, lines = 1;
  for (std::size_t i = sizes.size(); i-- > 0;) {
    if (i == axis || sizes[i] == 1) continue;
    if (pitch == 0) pitch = strides[i];
    if (strides[i] != pitch * lines) return 0;
    lines *= sizes[i];
  }
  if (lines == 1) return sizes[axis];
  return pitch < sizes[axis] ? 0 : pitch;
}

bool is_contiguous(IntArrayRef sizes, IntArrayRef strides) {
  std::int64_t step = 1;
  bool rows = true;
  for (std::size_t i = sizes.size(); i-- > 0;) {
    if (sizes[i] == 0) return true;
    if (sizes[i] != 1) {
      rows = rows && strides[i] == step;
      step *= sizes[i];
    }
  }
  return rows;
}

std::int64_t normalize_axis(std::int64_t axis, std::int64_t rank, std::string_view op) {
  std::int64_t n = std::max<std::int64_t>(rank, 1);
  check<IndexError>(axis >= -n && axis < n, op, "expected an axis in [", -n, ", ", n - 1, "], got ",
                    axis, "; count axes from 0, or from the end by -1");
  return axis < 0 ? axis + n : axis;
}

Shape normalize_axes(IntArrayRef axes, std::int64_t rank, std::string_view op, bool all_if_empty) {
  Shape out;
  if (axes.empty() && all_if_empty)
    for (std::int64_t i = 0; i < rank; ++i) out.push_back(i);
  for (std::int64_t axis : axes) {
    std::int64_t a = normalize_axis(axis, rank, op);
    check<IndexError>(std::find(out.begin(), out.end(), a) == out.end(), op,
                      "expected distinct axes, got ", axes, ": axis ", a,
                      " appears twice; name each once");
    out.push_back(a);
  }
  return out;
}

Shape broadcast_shapes(IntArrayRef a, IntArrayRef b, std::string_view op) {
  IntArrayRef longer = a.size() >= b.size() ? a : b, shorter = a.size() >= b.size() ? b : a;
  Shape out = longer.shape();
  std::size_t skip = longer.size() - shorter.size();
  for (std::size_t i = 0; i < shorter.size(); ++i) {
    std::int64_t &x = out[skip + i], y = shorter[i];
    if (x == 1) x = y;
    check<ShapeError>(
        x == y || y == 1, op, "expected shapes that broadcast, got ", a, " and ", b, "; make axis ",
        static_cast<long long>(skip + i) - static_cast<long long>(out.size()), " equal or 1");
  }
  return out;
}

// Walks both shapes from the back. A run of old axes that lie in memory as one axis is a block; the
// new axes must cut each block exactly.
bool view_strides(IntArrayRef sizes, IntArrayRef strides, IntArrayRef to, Shape& out) {
  if (numel_of(sizes) == 0) {
    out = sizes == to ? strides.shape() : contiguous_strides(to);
    return true;
  }
  out = Shape(to.size(), 1);
  std::size_t next = to.size();
  std::int64_t block = 1;
  std::int64_t step = 1;
  for (std::size_t i = sizes.size(); i-- > 0;) {
    if (block == 1) step = strides[i];
    block *= sizes[i];
    bool ends = i == 0 || (sizes[i - 1] != 1 && strides[i - 1] != block * step);
    if (!ends) continue;
    std::int64_t taken = 1;
    while (next > 0 && (taken < block || to[next - 1] == 1)) {
      --next;
      out[next] = taken * step;
      taken *= to[next];
    }
    if (taken != block) return false;
    block = 1;
  }
  return true;
}

Shape infer_size(IntArrayRef sizes, std::int64_t numel, std::string_view op) {
  Shape out = sizes.shape();
  std::int64_t* open = nullptr;
  for (std::int64_t& s : out) {
    check<ShapeError>(s >= -1, op, "expected sizes of at least 0 (or one -1), got ", sizes,
                      "; only -1 stands for a size to be worked out");
    if (s != -1) continue;
    check<ShapeError>(!open, op, "expected at most one -1 in the sizes, got ", sizes,
                      "; write the others out");
    open = &s;
    s = 1;
  }
  std::int64_t known = numel_of(out);
  if (open) {
    check<ShapeError>(known > 0 || numel > 0, op, "expected sizes from which -1 follows, got ",
                      sizes, " for a tensor without elements; write the size out");
    if (known > 0 && numel % known == 0) {
      *open = numel / known;
      return out;
    }
  }
  check<ShapeError>(known == numel && !open, op, "expected sizes for ", numel, " elements, got ",
                    sizes, "; their product must be that number");
  return out;
}

}  // namespace tutti
