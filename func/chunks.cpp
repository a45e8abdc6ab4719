// Results in pieces. Outside of transforms a piece is written into the result at once and freed;
// inside them, and under base autograd, pieces are kept and joined by an op, which has a history.
#include <tutti/core/interpreter.h>
#include <tutti/func/chunks.h>

namespace tutti::detail {

namespace {
bool plain(const Tensor& x) {
  if (thread_state().current || as_box(x)) return false;
  eval_refresh(x);
  return !x.impl()->grad;
}
}  // namespace

void Chunks::add(Tensors piece, const std::vector<std::optional<std::int64_t>>& axes,
                 std::int64_t size) {
  const bool first = results_.empty() && pieces_.empty();
  if (first) {
    axes_ = axes;
    pieces_.resize(piece.size());
    if (size == total_) {
      results_ = std::move(piece);
      return;
    }
    results_.resize(piece.size());
  }
  for (std::size_t k = 0; k < piece.size(); ++k) {
    if (!axes_[k]) {
      if (first) results_[k] = piece[k];
      continue;
    }
    const Tensor& x = piece[k];
    const std::int64_t axis = normalize_axis(*axes_[k], x.dim(), "vmap");
    if (first && plain(x)) {
      Shape sizes = x.sizes().shape();
      sizes[static_cast<std::size_t>(axis)] = total_;
      results_[k] = make_dense(sizes, x.dtype(), x.device());
    }
    if (!results_[k].defined()) {
      pieces_[k].push_back(x);
      continue;
    }
    Tensor place = narrow(results_[k], axis, done_, size);
    check<ShapeError>(place.sizes() == x.sizes() && place.dtype() == x.dtype(), "vmap",
                      "a chunk's output ", k, " has shape ", x.sizes(), " and dtype ", x.dtype(),
                      ", but that of the first chunk leads to shape ", place.sizes(), " and dtype ",
                      place.dtype(), "; the function must return the same for every chunk");
    assign(place, x);
  }
  done_ += size;
}

Tensors Chunks::join() {
  for (std::size_t k = 0; k < results_.size(); ++k)
    if (!pieces_[k].empty()) results_[k] = cat(pieces_[k], *axes_[k]);
  pieces_.clear();
  return std::move(results_);
}

}  // namespace tutti::detail
