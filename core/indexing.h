// Indexing: x.index({...}) with integers, Slice, None, Ellipsis, and tensors, as in LibTorch's
// torch::indexing.
#pragma once
#include <concepts>
#include <initializer_list>
#include <optional>

#include <tutti/core/tensor.h>

namespace tutti {

struct NoneType {};
struct EllipsisType {};
inline constexpr NoneType None{};
inline constexpr EllipsisType Ellipsis{};

/// a:b:step along one axis; None for an end means "from the start" or "to the end".
struct Slice {
  std::optional<std::int64_t> start, stop;
  std::int64_t step = 1;
  struct Bound {
    std::optional<std::int64_t> v;
    Bound(NoneType) {}
    Bound(std::nullopt_t) {}
    template <std::integral T>
    Bound(T i) : v(static_cast<std::int64_t>(i)) {}
  };
  Slice() = default;
  Slice(Bound a, Bound b = None, std::int64_t s = 1) : start(a.v), stop(b.v), step(s) {}
};

/// One entry of an index.
class TensorIndex {
 public:
  enum class Kind { integer, slice, none, ellipsis, boolean, tensor };
  template <std::integral T>
  TensorIndex(T i) {
    if constexpr (std::same_as<T, bool>)
      kind = Kind::boolean, integer = i;
    else
      kind = Kind::integer, integer = static_cast<std::int64_t>(i);
  }
  TensorIndex(Slice s) : kind(Kind::slice), slice(s) {}
  TensorIndex(NoneType) : kind(Kind::none) {}
  TensorIndex(EllipsisType) : kind(Kind::ellipsis) {}
  TensorIndex(const Tensor& t) : kind(Kind::tensor), tensor(t) {}

  Kind kind;
  std::int64_t integer = 0;
  Slice slice;
  Tensor tensor;
};

using TensorIndices = std::initializer_list<TensorIndex>;

namespace indexing {
using tutti::Ellipsis;
using tutti::None;
using tutti::Slice;
using tutti::TensorIndex;
}  // namespace indexing

}  // namespace tutti
