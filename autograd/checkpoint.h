// checkpoint: trade time for memory. A checkpointed call keeps its arguments only; backward runs it
// again for the values its derivative needs.
#pragma once
#include <functional>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include <tutti/core/tree.h>

namespace tutti::autograd {

namespace detail {
/// The function on lists of tensors; it leaves its result, whose structure is wanted, in `result`
/// unless that is null.
using CheckpointFn = std::function<Tensors(const Tensors& in, void* result)>;
Tensors checkpoint(CheckpointFn f, const Tensors& args, void* result);
}  // namespace detail

/// f(args...), recomputed in the backward pass instead of keeping what it computes on the way, as
/// torch.utils.checkpoint and jax.checkpoint. f takes and returns trees and is copied. Works in
/// base autograd (with create_graph, too) and inside every transform, nested, and inside itself.
/// - Tensors that f captures, module parameters too, get their gradients.
/// - The recomputation sees the functional_call views and grad mode of the call, and repeats its
///   random draws bit for bit.
/// - f runs again after the calling function may have returned: capture tensors by value. If one
///   was changed meanwhile, or f takes another path, backward is an AutogradError.
/// - f must not change tensors in place that it did not make (a BatchNorm in training, say):
///   TransformError, since the recomputation would change them again.
/// Results are values of their own, views are copied.
template <class F, class... Args>
auto checkpoint(F f, Args&&... args) {
  using Result = std::decay_t<std::invoke_result_t<const F&, std::decay_t<Args>&...>>;
  std::tuple<std::decay_t<Args>...> given(std::forward<Args>(args)...);
  const Tensors flat = tree::flatten(given);
  // The structure alone: the arguments' values are kept in detail::checkpoint.
  auto structure = tree::map(given, [](const Tensor&) { return Tensor(); });
  auto run = [f = std::move(f), structure](const Tensors& in, void* to) {
    auto a = tree::rebuild(structure, in);
    Result r = std::apply([&](auto&... x) -> Result { return f(x...); }, a);
    Tensors out = tree::flatten(r);
    if (to) static_cast<std::optional<Result>*>(to)->emplace(std::move(r));
    return out;
  };
  std::optional<Result> result;
  Tensors out = detail::checkpoint(std::move(run), flat, &result);
  return tree::rebuild(*result, out);
}

}  // namespace tutti::autograd
