// Printing: like Python's torch.Tensor, four digits, long tensors shortened; a box shows its
// wrapper and shape.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <ostream>
#include <sstream>

#include <tutti/core/interpreter.h>
#include <tutti/core/tensor_impl.h>

namespace tutti {
namespace {

constexpr std::int64_t edge = 3;           // elements shown at either end of a shortened axis
constexpr std::int64_t shorten_at = 1000;  // elements beyond which a tensor is shortened
constexpr std::int64_t line_width = 80;

/// Prints one dense tensor: first finds the format all its elements share, then writes them.
class Printer {
 public:
  explicit Printer(const TensorImpl& x) : x_(x), shorten_(x.numel > shorten_at) {
    visit(0, 0, [&](std::int64_t at) { look(at); });
    scientific_ = high_ > 0 && (high_ / low_ > 1000 || high_ > 1e8 || (!whole_ && low_ < 1e-4));
    visit(0, 0, [&](std::int64_t at) {
      if (sets_width(at)) width_ = std::max(width_, text(at).size());
    });
  }

  void write(std::ostream& out, std::size_t axis, std::int64_t at, std::size_t indent) const {
    if (axis == x_.sizes.size()) {
      out << padded(at);
      return;
    }
    const bool vector = axis + 1 == x_.sizes.size();
    const std::int64_t room = line_width - static_cast<std::int64_t>(indent);
    const std::int64_t per_line =
        vector ? std::max<std::int64_t>(1, room / static_cast<std::int64_t>(width_ + 2)) : 1;
    const std::string rows(vector ? 1 : x_.sizes.size() - axis - 1, '\n');
    std::int64_t shown = 0;
    out << '[';
    for (std::int64_t i = 0; i < x_.sizes[axis]; ++i, ++shown) {
      if (shown > 0) {
        out << ',';
        if (shown % per_line == 0)
          out << rows << std::string(indent + 1, ' ');
        else
          out << ' ';
      }
      if (skips(axis, i)) {
        out << (vector ? " ..." : "...");
        i = x_.sizes[axis] - edge - 1;
      } else {
        write(out, axis + 1, at + i * x_.strides[axis], indent + 1);
      }
    }
    out << ']';
  }

 private:
  bool skips(std::size_t axis, std::int64_t i) const {
    return shorten_ && i == edge && x_.sizes[axis] > 2 * edge;
  }
  template <class F>
  void visit(std::size_t axis, std::int64_t at, const F& f) const {
    if (axis == x_.sizes.size()) return f(at);
    for (std::int64_t i = 0; i < x_.sizes[axis]; ++i) {
      if (skips(axis, i)) i = x_.sizes[axis] - edge;
      visit(axis + 1, at + i * x_.strides[axis], f);
    }
  }
  Scalar value(std::int64_t at) const {
    return dispatch(x_.dtype,
                    [&]<class T>() { return Scalar(reinterpret_cast<const T*>(x_.data())[at]); });
  }
  /// Zeros, infinities and NaN do not widen the columns, as in PyTorch.
  bool sets_width(std::int64_t at) const {
    const double v = value(at).to_double();
    return !is_floating(x_.dtype) || (std::isfinite(v) && v != 0);
  }
  void look(std::int64_t at) {
    const double v = std::abs(value(at).to_double());
    if (!is_floating(x_.dtype) || !std::isfinite(v) || v == 0) return;
    low_ = std::min(low_, v);
    high_ = std::max(high_, v);
    whole_ = whole_ && v == std::floor(v);
  }
  std::string text(std::int64_t at) const {
    const Scalar s = value(at);
    if (x_.dtype == kBool) return s.to_int() != 0 ? "True" : "False";
    if (!is_floating(x_.dtype)) return std::to_string(s.to_int());
    const double v = s.to_double();
    if (std::isnan(v)) return "nan";
    if (std::isinf(v)) return v > 0 ? "inf" : "-inf";
    char buffer[400];
    std::snprintf(buffer, sizeof buffer, scientific_ ? "%.4e" : whole_ ? "%.0f." : "%.4f", v);
    return buffer;
  }
  std::string padded(std::int64_t at) const {
    const std::string s = text(at);
    const std::size_t width = x_.sizes.empty() ? 0 : width_;
    return std::string(width - std::min(width, s.size()), ' ') + s;
  }

  const TensorImpl& x_;
  const bool shorten_;
  double low_ = INFINITY, high_ = 0;
  bool whole_ = true, scientific_ = false;
  std::size_t width_ = 1;
};

void write_sizes(std::ostream& out, IntArrayRef sizes, char open, char close) {
  out << open;
  for (std::size_t i = 0; i < sizes.size(); ++i) out << (i ? ", " : "") << sizes[i];
  out << close;
}

/// The axis of `inner` that is missing in what the user of the box sees; the rank if none is.
std::size_t hidden_axis(const TensorImpl& inner, const TensorImpl& box) {
  const auto without = [](Shape s, std::size_t axis) {
    s.erase(s.begin() + axis);
    return s;
  };
  const std::size_t rank = inner.sizes.size();
  std::size_t axis = box.sizes.size() < rank ? 0 : rank;
  while (axis < rank &&
         !(without(inner.sizes, axis) == box.sizes && without(inner.strides, axis) == box.strides))
    ++axis;
  return axis;
}

/// "Batched(axis 0, size 5, shape [3])", "Grad(shape [3])", ...
void write_box(std::ostream& out, const Tensor& x, const Box& b) {
  std::string name(b.scope->transform);
  name[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(name[0])));
  out << (name == "Vmap" ? "Batched" : name) << '(';
  if (b.inner.defined()) {
    const TensorImpl& inner = *b.inner.impl();
    const std::size_t axis = hidden_axis(inner, b);
    if (axis < inner.sizes.size()) out << "axis " << axis << ", size " << inner.sizes[axis] << ", ";
  }
  out << "shape ";
  write_sizes(out, x.sizes(), '[', ']');
  out << (b.scope->alive > 0 ? ")" : ", finished)");
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Tensor& x) {
  if (!x.defined()) return out << "tensor(undefined)";
  if (const Box* b = as_box(x)) {
    write_box(out, x, *b);
    return out;
  }
  const TensorImpl& p = *x.impl();
  out << "tensor(";
  if (p.device.is_meta())
    out << "...";
  else if (p.numel == 0)
    out << "[]";
  else
    Printer(*on_cpu(resolved(x)).handle()).write(out, 0, 0, 7);
  if (!p.device.is_cpu()) out << ", device='" << detail::str(p.device) << '\'';
  if (p.device.is_meta() || (p.numel == 0 && p.sizes.size() != 1)) {
    out << ", size=";
    write_sizes(out, p.sizes, '(', ')');
  }
  const bool plain =
      p.dtype == kFloat32 || ((p.dtype == kInt64 || p.dtype == kBool) && p.numel > 0);
  if (!plain) out << ", dtype=" << name_of(p.dtype);
  if (p.grad) out << ", requires_grad=True";
  return out << ')';
}

std::string Tensor::to_string() const {
  std::ostringstream out;
  out << *this;
  return out.str();
}

}  // namespace tutti
