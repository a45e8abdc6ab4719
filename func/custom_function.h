// custom_function: a function with rules of its own for reverse mode, forward mode and vmap. The
// rules are ordinary code on tensors: they run through the interpreters, so they are batched and
// differentiated again like anything else. Where a rule is missing, forward's own ops are
// transformed.
#pragma once
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <tutti/core/op.h>
#include <tutti/core/tree.h>
#include <tutti/func/transforms.h>

namespace tutti {

namespace detail {

/// One application of a custom function, on lists of tensors. Its op's outputs are forward's
/// followed by the residuals.
struct CustomCall {
  bool has_vjp = false, has_jvp = false, has_batch = false;
  bool keep_residuals = false;  // run the forward that gives residuals
  virtual ~CustomCall() = default;
  virtual Tensors forward(const Tensors& in) = 0;
  /// Gradients of the inputs; `out` and `g` are without residuals.
  virtual Tensors vjp(const Tensors& in, const Tensors& out, const Tensors& residuals,
                      const Tensors& g) = 0;
  virtual Tensors jvp(const Tensors& in, const Tensors& out, const Tensors& t) = 0;
  virtual std::pair<Tensors, std::vector<Axis>> batch(std::int64_t size, const Tensors& in,
                                                      const std::vector<Axis>& axes) = 0;

  std::size_t outputs = 0;  // forward's; known once it has run
  // Where the residuals are: residuals that are inputs or outputs are not kept twice.
  struct Place {
    enum { input, output, extra } kind = extra;
    std::size_t at = 0;
  };
  std::vector<Place> residuals;

  /// forward's outputs and residuals as the outputs of the op.
  Tensors outputs_of_op(const Tensors& in, Tensors out, const Tensors& residual);
};
/// forward's outputs.
Tensors apply_custom(std::shared_ptr<CustomCall> call, const Tensors& in);
/// Whether some transform, or base autograd, records what is done with `in`.
bool records(const Tensors& in);

struct NoRule {};
template <class F>
inline constexpr bool is_rule = !std::is_same_v<F, NoRule>;
template <class Forward, class Backward>
struct WithResiduals {
  Forward forward;
  Backward backward;
};
template <class T>
struct IsWithResiduals : std::false_type {};
template <class F, class B>
struct IsWithResiduals<WithResiduals<F, B>> : std::true_type {};
template <class T>
inline constexpr std::size_t tuple_parts = 0;  // no tuple
template <class... T>
inline constexpr std::size_t tuple_parts<std::tuple<T...>> = sizeof...(T);

[[noreturn]] void fail_custom_leaves(const char* rule, const char* what, std::size_t expected,
                                     std::size_t got);
/// flatten(t), which must have `expected` tensors.
template <class T>
Tensors flatten_exactly(const T& t, std::size_t expected, const char* rule, const char* what) {
  Tensors r = tree::flatten(t);
  if (r.size() != expected) fail_custom_leaves(rule, what, expected, r.size());
  return r;
}

template <class F, class Vjp, class Jvp, class Batch, class... Args>
struct CustomCallOf final : CustomCall {
  using In = std::tuple<Args...>;
  using Out = std::decay_t<std::invoke_result_t<const F&, Args&...>>;
  template <class V, class = void>
  struct ResidualOf {
    using type = std::tuple<>;
  };
  template <class V>
  struct ResidualOf<V, std::enable_if_t<IsWithResiduals<V>::value>> {
    using Pair = std::decay_t<std::invoke_result_t<const decltype(V::forward)&, Args&...>>;
    static_assert(std::is_same_v<typename Pair::first_type, Out>,
                  "the forward given to vjp() must return std::pair(output, residuals), with the "
                  "output of the function's own forward");
    using type = typename Pair::second_type;
  };
  using Residual = typename ResidualOf<Vjp>::type;

  CustomCallOf(const F& f, const Vjp& v, const Jvp& j, const Batch& b, const In& a)
      : f_(f), vjp_(v), jvp_(j), batch_(b), args_(tree::without_tensors(a)) {
    has_vjp = is_rule<Vjp>;
    has_jvp = is_rule<Jvp>;
    has_batch = is_rule<Batch>;
  }

  Tensors forward(const Tensors& in) override {
    In a = tree::rebuild(args_, in);
    if constexpr (IsWithResiduals<Vjp>::value) {
      if (keep_residuals) {
        auto r = std::apply([&](auto&... x) { return vjp_.forward(x...); }, a);
        out_.emplace(tree::without_tensors(r.first));
        residual_.emplace(tree::without_tensors(r.second));
        return outputs_of_op(in, tree::flatten(r.first), tree::flatten(r.second));
      }
    }
    Out r = std::apply([&](auto&... x) { return f_(x...); }, a);
    out_.emplace(tree::without_tensors(r));
    return outputs_of_op(in, tree::flatten(r), {});
  }

  Tensors vjp(const Tensors& in, const Tensors& out, const Tensors& residual,
              const Tensors& g) override {
    if constexpr (!is_rule<Vjp>) {
      return {};
    } else {
      auto gradients = [&] {
        Out cotangent = tree::rebuild(*out_, g);
        if constexpr (IsWithResiduals<Vjp>::value)
          return vjp_.backward(tree::rebuild(*residual_, residual), cotangent);
        else
          return vjp_(tree::rebuild(args_, in), tree::rebuild(*out_, out), cotangent);
      }();
      using G = std::decay_t<decltype(gradients)>;
      if constexpr (tuple_parts<G> == sizeof...(Args)) {
        return each_gradient(gradients, std::index_sequence_for<Args...>());
      } else {
        static_assert(sizeof...(Args) == 1,
                      "the vjp rule must return a std::tuple with one gradient per argument");
        return flatten_exactly(gradients, in.size(), "vjp", "gradients of the arguments");
      }
    }
  }

  Tensors jvp(const Tensors& in, const Tensors& out, const Tensors& t) override {
    if constexpr (is_rule<Jvp>) {
      auto tangent =
          jvp_(tree::rebuild(args_, in), tree::rebuild(*out_, out), tree::rebuild(args_, t));
      return flatten_exactly(tangent, out.size(), "jvp", "tangents of the outputs");
    } else {
      return {};
    }
  }

  std::pair<Tensors, std::vector<Axis>> batch(std::int64_t size, const Tensors& in,
                                              const std::vector<Axis>& axes) override {
    if constexpr (is_rule<Batch>) {
      auto [r, dims] = batch_(size, axes, tree::rebuild(args_, in));
      static_assert(std::is_same_v<std::decay_t<decltype(r)>, Out>,
                    "the vmap rule must return std::pair(output, out_dims), with forward's output");
      out_.emplace(tree::without_tensors(r));
      std::pair<Tensors, std::vector<Axis>> result;
      tree::leaves_with_dims(r, dims, "custom_function", "out_dims of the vmap rule",
                             [&](auto& leaf, Axis axis) {
                               if constexpr (tree::is_tensor<decltype(leaf)>) {
                                 result.first.push_back(leaf);
                                 result.second.push_back(axis);
                               }
                             });
      return result;
    } else {
      return {};
    }
  }

  const Out& structure() const { return *out_; }

 private:
  template <class G, std::size_t... I>
  Tensors each_gradient(const G& gradients, std::index_sequence<I...>) {
    Tensors r;
    auto take = [&](const auto& g, const auto& arg) {
      for (const Tensor& x :
           flatten_exactly(g, tree::count(arg), "vjp", "gradients of an argument"))
        r.push_back(x);
    };
    (take(std::get<I>(gradients), std::get<I>(args_)), ...);
    return r;
  }

  const F f_;
  const Vjp vjp_;
  const Jvp jvp_;
  const Batch batch_;
  const In args_;
  std::optional<Out> out_;  // structures only
  std::optional<Residual> residual_;
};

}  // namespace detail

namespace func {

/// What custom_function() returns: callable like forward; vjp(), jvp() and vmap() give a copy that
/// has that rule. Rules are const callables.
template <class F, class Vjp = tutti::detail::NoRule, class Jvp = tutti::detail::NoRule,
          class Batch = tutti::detail::NoRule>
class CustomFunction {
 public:
  explicit CustomFunction(F f, Vjp v = {}, Jvp j = {}, Batch b = {})
      : f_(std::move(f)), vjp_(std::move(v)), jvp_(std::move(j)), batch_(std::move(b)) {}

  /// Reverse mode: rule(args, out, g) gives a std::tuple with the gradient of each argument (or
  /// just the gradient, if there is one argument). args is the tuple of arguments, out what forward
  /// returned, g the cotangent, shaped like out. Undefined gradients are zero.
  template <class R>
  auto vjp(R rule) const {
    return CustomFunction<F, R, Jvp, Batch>(f_, std::move(rule), jvp_, batch_);
  }
  /// Reverse mode with residuals, as jax.custom_vjp's fwd and bwd: forward(args...) gives
  /// std::pair(output, residuals) and runs instead of the function where gradients are recorded;
  /// backward(residuals, g) gives the gradients.
  template <class Forward, class Backward>
  auto vjp(Forward forward, Backward backward) const {
    using R = tutti::detail::WithResiduals<Forward, Backward>;
    return CustomFunction<F, R, Jvp, Batch>(f_, R{std::move(forward), std::move(backward)}, jvp_,
                                            batch_);
  }
  /// Forward mode: rule(args, out, tangents) gives the tangent of the output, shaped like out.
  /// tangents is a tuple like args; those of integer tensors are undefined. It must be linear in
  /// the tangents: without a vjp rule, reverse mode transposes it.
  template <class R>
  auto jvp(R rule) const {
    return CustomFunction<F, Vjp, R, Batch>(f_, vjp_, std::move(rule), batch_);
  }
  /// vmap: rule(size, in_dims, args) gives std::pair(output, out_dims) for `size` examples at
  /// once. in_dims says per tensor of args which axis is mapped (nullopt: none); out_dims, an axis,
  /// nullopt or a list (see Dims), the same of the output.
  template <class R>
  auto vmap(R rule) const {
    return CustomFunction<F, Vjp, Jvp, R>(f_, vjp_, jvp_, std::move(rule));
  }

  template <class... A>
  auto operator()(A&&... a) const {
    if constexpr (!tutti::detail::is_rule<Vjp> && !tutti::detail::is_rule<Jvp> &&
                  !tutti::detail::is_rule<Batch>) {
      auto args = func::args(std::forward<A>(a)...);
      return std::apply([&](auto&... x) { return f_(x...); }, args);
    } else {
      using Call = tutti::detail::CustomCallOf<F, Vjp, Jvp, Batch, std::decay_t<A>...>;
      auto args = func::args(std::forward<A>(a)...);
      Tensors flat = tree::flatten(args);
      auto call = std::make_shared<Call>(f_, vjp_, jvp_, batch_, args);
      if constexpr (tutti::detail::IsWithResiduals<Vjp>::value)
        call->keep_residuals = tutti::detail::records(flat);
      Tensors out = tutti::detail::apply_custom(call, flat);
      return tree::rebuild(call->structure(), out);
    }
  }

 private:
  F f_;
  Vjp vjp_;
  Jvp jvp_;
  Batch batch_;
};

/// A function with derivatives or batching of its own, as torch.autograd.Function with
/// setup_context, jax.custom_vjp, jax.custom_jvp and jax.custom_batching.custom_vmap:
///   auto f = func::custom_function(forward).vjp(rule).jvp(rule).vmap(rule);
/// forward takes and returns trees. A transform uses its rule where there is one:
/// - reverse mode: the vjp rule; else the jvp rule, transposed; else forward's ops;
/// - forward mode: the jvp rule; a function with a vjp rule only has none: NotImplementedError
///   (but forward mode of its gradient, as in hessian, runs through the vjp rule's ops);
/// - vmap: the vmap rule, whose ops then stand for the function in the transforms outside; else
///   forward and the other rules under vmap, so that they count for derivatives outside, too. Where
///   a forward with residuals runs, the vmap rule, which gives none, is not used.
/// Values that a function with a vjp or jvp rule captures are constants for it: capturing one that
/// a running grad or jvp made is a TransformError, pass it as an argument. Arguments must not be
/// changed in place.
template <class F>
CustomFunction<F> custom_function(F forward) {
  return CustomFunction<F>(std::move(forward));
}

}  // namespace func
}  // namespace tutti
