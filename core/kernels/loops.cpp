// The order in which strided loops visit elements; see loops.h.
#include <algorithm>

#include <tutti/core/kernels/loops.h>
#include <tutti/core/parallel.h>
#include <tutti/core/tensor_impl.h>

namespace tutti::kernels {

template <std::size_t N>
Loops<N>::Loops(const std::array<const Tensor*, N>& tensors) : total_(tensors[0]->impl()->numel) {
  if (total_ == 0) return;
  const TensorImpl& first = *tensors[0]->impl();
  Strides item;
  if (total_ == 1) {  // nothing to order
    for (std::size_t k = 0; k < N; ++k) {
      base_[k] = tensors[k]->impl()->data();
      item[k] = size_of(tensors[k]->impl()->dtype);
    }
    axes_.push_back({1, item});
    return;
  }
  std::array<const std::int64_t*, N> strides;
  bool contiguous = is_contiguous(first.sizes, first.strides);
  for (std::size_t k = 0; k < N; ++k) {
    const TensorImpl& t = *tensors[k]->impl();
    base_[k] = t.data();
    item[k] = size_of(t.dtype);
    strides[k] = t.strides.data();
    contiguous =
        contiguous && (k == 0 || t.strides == first.strides || is_contiguous(t.sizes, t.strides));
  }
  if (contiguous) {
    axes_.push_back({total_, item});
    return;
  }
  for (std::size_t d = first.sizes.size(); d-- > 0;) {
    if (first.sizes[d] == 1) continue;
    Axis axis{first.sizes[d], {}};
    for (std::size_t k = 0; k < N; ++k) axis.strides[k] = strides[k][d] * item[k];
    insert(axis);
  }
  if (axes_.empty()) axes_.push_back({1, item});
  merge();
}

/// Keeps axes_ sorted, smallest strides first.
template <std::size_t N>
void Loops<N>::insert(const Axis& axis) {
  std::size_t at = axes_.size();
  while (at > 0 && axis.strides < axes_[at - 1].strides) --at;
  axes_.insert(axes_.begin() + at, axis);
}

/// Joins axes that every tensor walks without a jump between them.
template <std::size_t N>
void Loops<N>::merge() {
  std::size_t last = 0;
  for (std::size_t i = 1; i < axes_.size(); ++i) {
    Axis& inner = axes_[last];
    bool follows = true;
    for (std::size_t k = 0; k < N; ++k)
      follows = follows && axes_[i].strides[k] == inner.strides[k] * inner.size;
    if (follows)
      inner.size *= axes_[i].size;
    else
      axes_[++last] = axes_[i];
  }
  while (axes_.size() > last + 1) axes_.pop_back();
}

template <std::size_t N>
void Loops<N>::each_run(std::int64_t grain, const void* f, Run run) const {
  if (total_ <= grain) return visit(0, total_, f, run);
  parallel_for(total_, grain,
               [&](std::int64_t begin, std::int64_t end) { visit(begin, end, f, run); });
}

/// Elements begin..end in loop order.
template <std::size_t N>
void Loops<N>::visit(std::int64_t begin, std::int64_t end, const void* f, Run run) const {
  if (begin >= end) return;
  const Axis& inner = axes_[0];
  Pointers p = base_;
  const auto advance = [&p](const Strides& strides, std::int64_t steps) {
    for (std::size_t k = 0; k < N; ++k) p[k] += steps * strides[k];
  };
  if (axes_.size() == 1) {
    advance(inner.strides, begin);
    return run(f, p, inner.strides, end - begin);
  }
  // Where `begin` is, the only divisions; from there on an odometer.
  Shape at(axes_.size(), 0);
  std::int64_t row = begin / inner.size, column = begin % inner.size;
  for (std::size_t d = 1; d < axes_.size(); ++d) {
    at[d] = row % axes_[d].size;
    row /= axes_[d].size;
    advance(axes_[d].strides, at[d]);
  }
  advance(inner.strides, column);
  for (;;) {
    const std::int64_t n = std::min(inner.size - column, end - begin);
    run(f, p, inner.strides, n);
    if ((begin += n) >= end) return;
    advance(inner.strides, -column);
    column = 0;
    for (std::size_t d = 1; d < axes_.size(); ++d) {
      if (++at[d] < axes_[d].size) {
        advance(axes_[d].strides, 1);
        break;
      }
      advance(axes_[d].strides, 1 - axes_[d].size);
      at[d] = 0;
    }
  }
}

template class Loops<1>;
template class Loops<2>;
template class Loops<3>;
template class Loops<4>;

}  // namespace tutti::kernels
