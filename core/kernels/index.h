// Kernels that move elements by index: gather, scatter, one-hot rows, nonzero.
#pragma once
#include <optional>
#include <utility>

#include <tutti/core/tensor.h>

namespace tutti::kernels {

/// The smallest and largest of the index values in x (int64), those that are `ignored` left out;
/// {0, -1} if there are none.
std::pair<std::int64_t, std::int64_t> index_range(const Tensor& x,
                                                  std::optional<std::int64_t> ignored = {});

// In all of these `index` is int64, its values (after adding the axis size to negative ones) are in
// range, and it may have any strides: 0 along an axis means that all elements along it are moved
// alike.

/// out[..., j, ...] = x[..., index[..., j, ...], ...] along `axis`; out has the sizes of index.
void gather(const Tensor& out, const Tensor& x, const Tensor& index, std::int64_t axis);
/// out[..., index[..., j, ...], ...] = src[..., j, ...]; the last one wins. An undefined src counts
/// as `value`.
void scatter(const Tensor& out, const Tensor& index, const Tensor& src, Scalar value,
             std::int64_t axis);
/// The same with +=.
void scatter_add(const Tensor& out, const Tensor& index, const Tensor& src, std::int64_t axis);

/// out = out * size + index, with size added to negative values of index.
void ravel_step(const Tensor& out, const Tensor& index, std::int64_t size);
/// out[..., c] = (index[...] == c), for dense int64 out.
void one_hot(const Tensor& out, const Tensor& index);
/// Number of elements that are not zero, and their positions, row by row, in a dense int64 [n,
/// rank].
std::int64_t count_nonzero(const Tensor& x);
void nonzero(const Tensor& out, const Tensor& x);

}  // namespace tutti::kernels
