// The transforms: vmap, grad, grad_and_value, vjp, jvp. The templates here only take trees apart
// and put them together again; the work is done on lists of tensors in transforms.cpp. Functions
// are called with lvalues of the decayed argument types, whose tensors are values of the transform.
// All of it nests in any order, on one thread.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include <tutti/autograd/grad_mode.h>
#include <tutti/core/ops.h>
#include <tutti/core/tree.h>
#include <tutti/func/randomness.h>

namespace tutti {

/// Options of vmap.
class VmapOptions {
 public:
  /// What random ops do; the default is to raise.
  VmapOptions& randomness(Randomness r) {
    randomness_ = r;
    return *this;
  }
  /// Examples to run at once; less memory, same draws, values equal up to rounding. ValueError
  /// unless positive.
  VmapOptions& chunk_size(std::optional<std::int64_t> n);
  Randomness randomness() const { return randomness_; }
  std::optional<std::int64_t> chunk_size() const { return chunk_size_; }

 private:
  Randomness randomness_ = Randomness::error;
  std::optional<std::int64_t> chunk_size_;
};

namespace detail {

/// A type-erased function on lists of tensors.
class ListFn {
 public:
  template <class F>
  ListFn(F& f)
      : f_(&f), call_([](void* p, const Tensors& in) { return (*static_cast<F*>(p))(in); }) {}
  Tensors operator()(const Tensors& in) const { return call_(f_, in); }

 private:
  void* f_;
  Tensors (*call_)(void*, const Tensors&);
};

using Axis = std::optional<std::int64_t>;

/// Output axes are known only once the function has returned, so the function reports them here.
struct VmapOutputs {
  std::vector<Axis> axes;
  std::size_t first_from = ~std::size_t{0};  // of outputs from here on, the first example's alone
  bool counts = false;  // f counts its examples: it must see them in order, and once
};
Tensors vmap(ListFn f, const Tensors& args, const std::vector<Axis>& in_axes,
             const VmapOutputs& out, const VmapOptions& options);
[[noreturn]] void fail_non_tensor(const char* what, const std::type_info& type);

/// A recorded function: what vjp keeps.
class Pullback {
 public:
  struct State;
  /// Gradients of the differentiated arguments, zeros where there is none.
  Tensors operator()(const Tensors& cotangents) const;
  std::shared_ptr<State> state;
};
/// Runs f with args[i] differentiated where wanted[i]. The last `aux` outputs are not
/// differentiated.
std::pair<Tensors, Pullback> vjp(ListFn f, const Tensors& args, const std::vector<bool>& wanted,
                                 std::size_t aux_from, const char* op);
/// The same for a caller that needs the pullback only for a moment: hands outputs and pullback to
/// `use` before arguments that f changed in place are written back, since the derivative may need
/// them as they were. Returns the outputs. f may set `aux_from`, which is read after it returned.
Tensors with_pullback(ListFn f, const Tensors& args, const std::vector<bool>& wanted,
                      const std::size_t& aux_from, const char* op,
                      const std::function<void(const Tensors&, const Pullback&)>& use);
/// The same with the gradients of the first output: (gradients, outputs). The others are aux.
std::pair<Tensors, Tensors> grad_and_value(ListFn f, const Tensors& args,
                                           const std::vector<bool>& wanted, const char* op);
void check_scalar(const Tensor& y, const char* op);
/// Outputs and their tangents (zeros where there is none). Outputs from `aux_from` on, which f may
/// set, have no tangents.
std::pair<Tensors, Tensors> jvp(ListFn f, const Tensors& primals, const Tensors& tangents,
                                const char* op = "jvp",
                                const std::size_t& aux_from = ~std::size_t{0});

/// A recorded function: what linearize keeps.
class Linearized {
 public:
  struct State;
  /// Tangents of the outputs, zeros where there is none.
  Tensors operator()(const Tensors& tangents) const;
  std::shared_ptr<State> state;
};
std::pair<Tensors, Linearized> linearize(ListFn f, const Tensors& primals);

template <class F, class... Args>
using ResultOf = std::decay_t<std::invoke_result_t<const F&, std::decay_t<Args>&...>>;

/// Calls f on copies of `args` whose tensors come from `values`.
template <class F, class... Args>
auto call_with(const F& f, const std::tuple<Args...>& args, const Tensors& values) {
  std::tuple<Args...> boxed = tree::rebuild(args, values);
  return std::apply([&](auto&... a) { return f(a...); }, boxed);
}

/// f as a function of the list of tensors in its arguments. Keeps what f returned last, which is
/// the structure that lists of results are put back into.
template <class F, class... Args>
class FlatFn {
 public:
  FlatFn(const F& f, const std::tuple<Args...>& args) : f_(f), args_(args) {}
  Tensors operator()(const Tensors& values) {
    result_.emplace(call_with(f_, args_, values));
    return tree::flatten(*result_);
  }
  const ResultOf<F, Args...>& result() const { return *result_; }
  ResultOf<F, Args...> rebuild(const Tensors& list) const { return tree::rebuild(*result_, list); }

 private:
  const F& f_;
  const std::tuple<Args...>& args_;
  std::optional<ResultOf<F, Args...>> result_;
};

}  // namespace detail

namespace func {

using tutti::Dims;
using tutti::Randomness;
using tutti::TensorDict;
using tutti::VmapOptions;

/// Builds an argument tuple; std::tuple would merge with a single pair.
template <class... T>
std::tuple<std::decay_t<T>...> args(T&&... v) {
  return std::tuple<std::decay_t<T>...>(std::forward<T>(v)...);
}

/// Tag: the function returns std::pair(value, aux), and aux is handed through undifferentiated.
struct HasAux {};
inline constexpr HasAux has_aux{};

/// Maps f over an axis of its arguments, as torch.func.vmap: the result is that of calling f on
/// every example and stacking, but f runs once. in_dims says per argument (or per tensor of a tree)
/// which axis is mapped, nullopt for none; out_dims where the mapped axis goes. Arguments that f
/// changes in place are written back to the caller's tensors. ValueError for axes that do not fit
/// the arguments, TransformError for what cannot be mapped.
template <class F>
auto vmap(F f, Dims in_dims = 0, Dims out_dims = 0, VmapOptions options = {}) {
  return [f = std::move(f), in_dims = std::move(in_dims), out_dims = std::move(out_dims),
          options](auto&&... call_args) {
    using Result = detail::ResultOf<F, decltype(call_args)...>;
    auto args = func::args(std::forward<decltype(call_args)>(call_args)...);
    Tensors flat;
    std::vector<detail::Axis> in_axes;
    tree::leaves_with_dims(args, in_dims, "vmap", "in_dims", [&](auto& leaf, detail::Axis axis) {
      if constexpr (tree::is_tensor<decltype(leaf)>) {
        flat.push_back(leaf);
        in_axes.push_back(axis);
      } else if (axis) {
        detail::fail_non_tensor("in_dims", typeid(leaf));
      }
    });
    std::optional<Result> result;
    detail::VmapOutputs outputs;
    auto run = [&](const Tensors& values) {
      result.emplace(detail::call_with(f, args, values));
      outputs.axes.clear();
      Tensors out;
      tree::leaves_with_dims(*result, out_dims, "vmap", "out_dims",
                             [&](auto& leaf, detail::Axis axis) {
                               if constexpr (tree::is_tensor<decltype(leaf)>) {
                                 out.push_back(leaf);
                                 outputs.axes.push_back(axis);
                               } else if (axis) {
                                 detail::fail_non_tensor("out_dims", typeid(leaf));
                               }
                             });
      return out;
    };
    Tensors out = detail::vmap(detail::ListFn(run), flat, in_axes, outputs, options);
    return tree::rebuild(*result, out);
  };
}

namespace detail_ {

template <std::size_t... N>
struct Argnums {};

// The flags of the tensors in argument I: differentiated or not.
template <std::size_t... N, class... Args>
std::vector<bool> wanted(Argnums<N...>, const std::tuple<Args...>& args) {
  static_assert(((N < sizeof...(Args)) && ...),
                "an argument number exceeds the number of arguments");
  static_assert((tree::may_hold_tensors<std::tuple_element_t<N, std::tuple<Args...>>>() && ...),
                "an argument to differentiate holds no tensor");
  std::vector<bool> flags;
  std::size_t i = 0;
  auto one = [&](const auto& a) {
    bool on = ((i == N) || ...);
    flags.insert(flags.end(), tree::count(a), on);
    ++i;
  };
  std::apply([&](const auto&... a) { (one(a), ...); }, args);
  return flags;
}

// Gradients, which come in argument order from `at` on, as the trees of the arguments N...
template <std::size_t... N, class... Args>
auto gradients(Argnums<N...>, const std::tuple<Args...>& args, const Tensors& grads,
               std::size_t at = 0) {
  // Where each argument's gradients begin.
  std::vector<std::size_t> begin;
  std::size_t i = 0;
  auto one = [&](const auto& a) {
    begin.push_back(at);
    const bool wanted = ((i == N) || ...);
    if (wanted) at += tree::count(a);
    ++i;
  };
  std::apply([&](const auto&... a) { (one(a), ...); }, args);
  auto take = [&](const auto& a, std::size_t from) { return tree::rebuild(a, grads, from); };
  if constexpr (sizeof...(N) == 1)
    return (take(std::get<N>(args), begin[N]), ...);
  else
    return std::make_tuple(take(std::get<N>(args), begin[N])...);
}

template <bool Aux, class A, class F, class... Args>
auto grad_and_value(A argnums, const char* op, const F& f, const std::tuple<Args...>& args) {
  using Result = detail::ResultOf<F, Args...>;
  detail::FlatFn flat(f, args);
  auto run = [&](const Tensors& values) {
    Tensors list = flat(values);
    const Result& result = flat.result();
    if constexpr (Aux) {
      static_assert(tree::is_tensor<decltype(result.first)>,
                    "the first of the pair must be a tensor");
      detail::check_scalar(result.first, op);
    } else {
      static_assert(tree::is_tensor<Result>,
                    "the function must return one tensor (or use has_aux)");
      detail::check_scalar(result, op);
    }
    return list;
  };
  auto [grads, out] =
      detail::grad_and_value(detail::ListFn(run), tree::flatten(args), wanted(argnums, args), op);
  return std::pair(gradients(argnums, args, grads), flat.rebuild(out));
}

}  // namespace detail_

/// A function that gives the gradient of f (which returns a 0-d tensor) and f's value, as
/// torch.func.grad_and_value: std::pair(gradient, value). Template arguments choose the arguments
/// to differentiate (the first by default); one gives that argument's tree, several a std::tuple.
/// Leaves that f does not use get zeros; non-tensor leaves pass through.
template <std::size_t... N, class F>
auto grad_and_value(F f) {
  using A = std::conditional_t<sizeof...(N) == 0, detail_::Argnums<0>, detail_::Argnums<N...>>;
  return [f = std::move(f)](auto&&... a) {
    return detail_::grad_and_value<false>(A{}, "grad_and_value", f,
                                          func::args(std::forward<decltype(a)>(a)...));
  };
}
/// The same where f returns std::pair(value, aux): std::pair(gradient, std::pair(value, aux)).
template <std::size_t... N, class F>
auto grad_and_value(F f, HasAux) {
  using A = std::conditional_t<sizeof...(N) == 0, detail_::Argnums<0>, detail_::Argnums<N...>>;
  return [f = std::move(f)](auto&&... a) {
    return detail_::grad_and_value<true>(A{}, "grad_and_value", f,
                                         func::args(std::forward<decltype(a)>(a)...));
  };
}
/// A function that gives the gradient of f, as torch.func.grad; see grad_and_value.
template <std::size_t... N, class F>
auto grad(F f) {
  using A = std::conditional_t<sizeof...(N) == 0, detail_::Argnums<0>, detail_::Argnums<N...>>;
  return [f = std::move(f)](auto&&... a) {
    return detail_::grad_and_value<false>(A{}, "grad", f,
                                          func::args(std::forward<decltype(a)>(a)...))
        .first;
  };
}
/// The same where f returns std::pair(value, aux): std::pair(gradient, aux).
template <std::size_t... N, class F>
auto grad(F f, HasAux) {
  using A = std::conditional_t<sizeof...(N) == 0, detail_::Argnums<0>, detail_::Argnums<N...>>;
  return [f = std::move(f)](auto&&... a) {
    auto [g, out] =
        detail_::grad_and_value<true>(A{}, "grad", f, func::args(std::forward<decltype(a)>(a)...));
    return std::pair(std::move(g), std::move(out.second));
  };
}

/// What vjp returns beside the value: maps a cotangent, shaped like the output, to the gradients of
/// the primals. May be called many times, also under further transforms.
template <class Out, class... Primals>
class VjpFn {
 public:
  VjpFn(detail::Pullback pull, Out out, std::tuple<Primals...> primals)
      : pull_(std::move(pull)), out_(std::move(out)), primals_(std::move(primals)) {}
  template <class C>
  std::tuple<Primals...> operator()(const C& cotangent) const {
    Tensors flat;
    tree::flatten_like(out_, cotangent, "vjp", "cotangents", flat);
    return tree::rebuild(primals_, pull_(flat));
  }

 private:
  detail::Pullback pull_;
  Out out_;
  std::tuple<Primals...> primals_;
};

/// f's value and its pullback, as torch.func.vjp: std::pair(output, vjp_fn); vjp_fn(cotangent)
/// gives a tuple with one gradient tree per primal.
template <class F, class... Primals>
auto vjp(F f, Primals&&... primals) {
  auto args = func::args(std::forward<Primals>(primals)...);
  detail::FlatFn run(f, args);
  Tensors flat = tree::flatten(args);
  auto [out, pull] = detail::vjp(detail::ListFn(run), flat, std::vector<bool>(flat.size(), true),
                                 ~std::size_t{0}, "vjp");
  auto value = run.rebuild(out);
  return std::pair(value, VjpFn<decltype(value), std::decay_t<Primals>...>(pull, value, args));
}

/// f's value and its derivative along `tangents`, as torch.func.jvp: std::pair(output, tangent).
/// Both tuples (see args()) must have the same structure, shapes and dtypes.
template <class F, class... P, class... T>
auto jvp(F f, const std::tuple<P...>& primals, const std::tuple<T...>& tangents) {
  static_assert(sizeof...(P) == sizeof...(T), "one tangent per primal");
  detail::FlatFn run(f, primals);
  Tensors flat;
  tree::flatten_like(primals, tangents, "jvp", "tangents", flat);
  auto [out, tangent] = detail::jvp(detail::ListFn(run), tree::flatten(primals), flat);
  return std::pair(run.rebuild(out), run.rebuild(tangent));
}

}  // namespace func
}  // namespace tutti
