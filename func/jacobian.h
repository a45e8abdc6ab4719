// Derivatives in full: jacrev, jacfwd and hessian; and linearize, the derivative as a function. The
// templates only take trees apart and build the trees of the results, in which every tensor of the
// output is replaced by the argument's tree; the work is done on lists of tensors in jacobian.cpp.
#pragma once
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <tutti/core/tree.h>
#include <tutti/func/randomness.h>
#include <tutti/func/transforms.h>

namespace tutti {

/// Options of jacrev, jacfwd and hessian.
class JacOptions {
 public:
  /// Rows (jacrev) or columns (jacfwd) of the Jacobian to compute at once; less memory, same draws,
  /// values equal up to rounding. ValueError unless positive.
  JacOptions& chunk_size(std::optional<std::int64_t> n);
  /// What random ops do under the vmap over rows or columns; the default is to raise. That is, all
  /// random ops of the function for jacfwd and hessian; jacrev runs the function outside of it.
  JacOptions& randomness(Randomness r) {
    randomness_ = r;
    return *this;
  }
  std::optional<std::int64_t> chunk_size() const { return chunk_size_; }
  Randomness randomness() const { return randomness_; }

 private:
  std::optional<std::int64_t> chunk_size_;
  Randomness randomness_ = Randomness::error;
};

namespace detail {

/// What jacrev and jacfwd find.
struct Jacobian {
  Tensors blocks;  // for every output the derivative by every wanted argument, output by output
  Tensors out;     // f's outputs, of which those from `aux_from` on are valid: the aux ones
};
/// The Jacobian of f by args[i] where wanted[i]; outputs from `aux_from` on, which f may set, are
/// not differentiated.
Jacobian jacrev(ListFn f, const Tensors& args, const std::vector<bool>& wanted,
                const std::size_t& aux_from, const JacOptions& options);
Jacobian jacfwd(ListFn f, const Tensors& args, const std::vector<bool>& wanted,
                const std::size_t& aux_from, const JacOptions& options);

}  // namespace detail

namespace func {

using tutti::JacOptions;

namespace detail_ {

template <bool Aux, class A, class F, class... Args>
auto jacobian(A argnums, bool forward, const F& f, const JacOptions& options,
              const std::tuple<Args...>& args) {
  detail::FlatFn flat(f, args);
  std::size_t aux_from = ~std::size_t{0};
  auto run = [&](const Tensors& values) {
    Tensors list = flat(values);
    if constexpr (Aux) {
      static_assert(
          requires { flat.result().second; },
          "with has_aux the function must return std::pair(out, aux)");
      aux_from = tree::count(flat.result().first);
    }
    return list;
  };
  const std::vector<bool> by = wanted(argnums, args);
  auto* work = forward ? &detail::jacfwd : &detail::jacrev;
  const detail::Jacobian jac =
      work(detail::ListFn(run), tree::flatten(args), by, aux_from, options);
  std::size_t arguments = 0, at = 0;
  for (bool b : by) arguments += b;
  auto next = [&](const Tensor&) {
    auto r = gradients(argnums, args, jac.blocks, at);
    at += arguments;
    return r;
  };
  using Leaf = decltype(gradients(argnums, args, jac.blocks));
  if constexpr (Aux) {
    auto tree = tree::replace<Leaf>(flat.result().first, next);
    return std::pair(std::move(tree), tree::rebuild(flat.result().second, jac.out, aux_from));
  } else {
    return tree::replace<Leaf>(flat.result(), next);
  }
}

template <std::size_t... N>
using ArgnumsOr0 = std::conditional_t<sizeof...(N) == 0, Argnums<0>, Argnums<N...>>;

}  // namespace detail_

/// A function that gives the Jacobian of f by reverse mode, as torch.func.jacrev: f runs once, its
/// pullback once for all rows (or chunks of them). Right for fewer outputs than inputs. Each tensor
/// of f's output, of shape `out`, is replaced by the argument's tree with tensors of shape
/// [out..., in...]: one tensor for one tensor, Dict<TensorDict> for dict to dict. Template
/// arguments choose the arguments as in grad; several give a std::tuple. What does not depend on
/// the argument is zero. TypeError for outputs and arguments that are not floating.
template <std::size_t... N, class F>
auto jacrev(F f, JacOptions options = {}) {
  return [f = std::move(f), options](auto&&... a) {
    return detail_::jacobian<false>(detail_::ArgnumsOr0<N...>{}, false, f, options,
                                    func::args(std::forward<decltype(a)>(a)...));
  };
}
/// The same where f returns std::pair(out, aux): std::pair(Jacobian of out, aux).
template <std::size_t... N, class F>
auto jacrev(F f, HasAux, JacOptions options = {}) {
  return [f = std::move(f), options](auto&&... a) {
    return detail_::jacobian<true>(detail_::ArgnumsOr0<N...>{}, false, f, options,
                                   func::args(std::forward<decltype(a)>(a)...));
  };
}

/// The same by forward mode, as torch.func.jacfwd: f runs once for all columns (or once per chunk
/// of them) under vmap. Right for more outputs than inputs. A random f needs a randomness option.
template <std::size_t... N, class F>
auto jacfwd(F f, JacOptions options = {}) {
  return [f = std::move(f), options](auto&&... a) {
    return detail_::jacobian<false>(detail_::ArgnumsOr0<N...>{}, true, f, options,
                                    func::args(std::forward<decltype(a)>(a)...));
  };
}
/// The same where f returns std::pair(out, aux): std::pair(Jacobian of out, aux). Where aux differs
/// between columns, as random values may, it is that of the first.
template <std::size_t... N, class F>
auto jacfwd(F f, HasAux, JacOptions options = {}) {
  return [f = std::move(f), options](auto&&... a) {
    return detail_::jacobian<true>(detail_::ArgnumsOr0<N...>{}, true, f, options,
                                   func::args(std::forward<decltype(a)>(a)...));
  };
}

/// A function that gives the second derivatives of f, as torch.func.hessian: jacfwd(jacrev(f)), of
/// shape [out..., in..., in...]. For a dict argument and one output, result.at(a).at(b).
template <std::size_t... N, class F>
auto hessian(F f, JacOptions options = {}) {
  return jacfwd<N...>(jacrev<N...>(std::move(f), options), options);
}

/// What linearize returns beside the value: maps tangents, one tree per primal, to the tangent of
/// the output. May be called many times, also under further transforms.
template <class Out, class... Primals>
class JvpFn {
 public:
  JvpFn(detail::Linearized linear, Out out) : linear_(std::move(linear)), out_(std::move(out)) {}
  template <class... T>
  Out operator()(const T&... tangents) const {
    static_assert(sizeof...(T) == sizeof...(Primals), "one tangent per primal");
    return tree::rebuild(out_, linear_(tree::flatten(std::tie(tangents...))));
  }

 private:
  detail::Linearized linear_;
  Out out_;  // its structure, and leaves that are no tensors
};

/// f's value and its derivative at `primals` as a function, as torch.func.linearize:
/// std::pair(output, jvp_fn), where jvp_fn(tangents...) is what jvp(f) would give as tangent. f
/// runs once, here; jvp_fn runs only the linear part again, so f's side effects and random draws
/// are not repeated. An undefined tangent is zero.
template <class F, class... Primals>
auto linearize(F f, Primals&&... primals) {
  auto args = func::args(std::forward<Primals>(primals)...);
  detail::FlatFn run(f, args);
  auto [out, linear] = detail::linearize(detail::ListFn(run), tree::flatten(args));
  auto value = run.rebuild(out);
  return std::pair(value, JvpFn<decltype(value), std::decay_t<Primals>...>(
                              linear, tree::map(value, [](const Tensor&) { return Tensor(); })));
}

}  // namespace func
}  // namespace tutti
