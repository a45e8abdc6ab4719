// Control flow on tensors: cond, while_loop and scan, as in jax.lax. Ops are recorded as they run,
// so loops are unrolled: reverse mode works through all of them (jax.lax.while_loop has none), at
// the cost of memory per step; autograd::checkpoint in the body saves that. What makes them more
// than if and for is vmap: a condition may differ per example.
#pragma once
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <tutti/core/ops.h>
#include <tutti/core/tree.h>
#include <tutti/func/transforms.h>

namespace tutti {

/// Options of scan.
class ScanOptions {
 public:
  /// From the last step to the first; the ys stay in the order of the xs.
  ScanOptions& reverse(bool on) {
    reverse_ = on;
    return *this;
  }
  /// The number of steps; needed where xs has no tensors. ValueError if negative.
  ScanOptions& length(std::int64_t n);
  bool reverse() const { return reverse_; }
  std::optional<std::int64_t> length() const { return length_; }

 private:
  bool reverse_ = false;
  std::optional<std::int64_t> length_;
};

namespace detail {

/// Whether a condition differs between examples, or else its value.
struct Condition {
  Condition(bool v) : value(v) {}
  /// TypeError unless bool, ShapeError unless one element (per example).
  Condition(const Tensor& p, const char* op);
  bool differs = false, value = false;
  Tensor tensor;  // 0-d, where it differs
};
inline Condition condition(bool p, const char*) { return p; }
inline Condition condition(const Tensor& p, const char* op) { return Condition(p, op); }

/// The examples of a loop that still run.
class LoopMask {
 public:
  /// Takes the next condition; false when no example runs any more.
  bool next(const Condition& c);
  /// Whether some examples are done and others are not.
  bool partial() const { return partial_; }
  /// What the body gets: with values of its own, and, for examples that are done, without history.
  Tensors enter(const Tensors& carry) const;
  /// `next` for the examples that run, the old value for the others.
  Tensors merge(const Tensors& next, const Tensors& old) const;

 private:
  Tensor active_;  // once the condition has differed
  bool partial_ = false;
};

/// Calls f under a guard against in-place writes: to anything f did not make, or to `only`.
Tensors call_guarded(ListFn f, const Tensors& args, const char* op, const char* whose, bool all);
/// Arguments for the branch of a batched cond that examples with `chosen` take.
Tensors enter_branch(const Tensor& chosen, const Tensors& args);
/// Per example, a where p and b elsewhere; ShapeError or TypeError where they do not match.
Tensors select_each(const Tensor& p, const Tensors& a, const Tensors& b, const char* op,
                    const char* what);
/// Checks that a loop's carry keeps shapes and dtypes.
void check_carry(const Tensors& next, const Tensors& old, const char* op);
void check_structure(const std::string& a, const std::string& b, const char* op,
                     const char* expected);
[[noreturn]] void fail_no_tensor(const char* op, const char* what);

/// Length of a scan: that of all xs.
std::int64_t scan_length(const Tensors& xs, const ScanOptions& options);
/// xs at one step; zeros if there are no steps.
Tensors scan_inputs(const Tensors& xs, std::int64_t step, bool empty);
/// Puts the outputs of all steps together.
Tensors scan_outputs(const std::vector<Tensors>& ys);
/// No steps: outputs shaped like these.
Tensors scan_no_outputs(const Tensors& y);

/// A text that is equal for equally built trees, for error messages too.
template <class T>
void write_structure(const T& t, std::string& s) {
  if constexpr (tree::is_tensor<T>) {
    s += t.defined() ? "*" : "none";
  } else if constexpr (tree::HasChildren<T>) {
    std::vector<std::string> names;
    if constexpr (requires { t.key_table(); })
      for (const std::string& k : t.key_table()->names()) names.push_back(k);
    else if constexpr (requires { typename T::mapped_type; })
      for (const auto& item : t) names.push_back(item.first);
    s += '(';
    std::size_t i = 0;
    tree::children(t, [&](const auto& c) {
      if (i) s += ", ";
      if (i < names.size()) s += names[i] + ": ";
      ++i;
      write_structure(c, s);
    });
    s += ')';
  } else {
    s += '.';
  }
}
template <class T>
std::string structure_of(const T& t) {
  std::string s;
  write_structure(t, s);
  return s;
}
/// Fails if a tree has leaves that are no tensors.
template <class T>
void check_only_tensors(T& t, const char* op, const char* what) {
  tree::leaves_with_dims(t, Dims(std::nullopt), op, what, [&](auto& leaf, Axis) {
    if constexpr (!tree::is_tensor<decltype(leaf)>) fail_no_tensor(op, what);
  });
}

}  // namespace detail

namespace func {

using tutti::ScanOptions;

/// true_fn(args...) or false_fn(args...), by pred (bool, or a bool tensor of one element), as
/// jax.lax.cond. Both must return the same type. If pred is the same for all examples, only the
/// chosen one runs, and it may do anything. If it differs under vmap, both run for all examples,
/// and the results are selected: then they must be trees of tensors of the same structure, shapes
/// and dtypes (ValueError, ShapeError, TypeError), and must not change tensors in place that they
/// did not make (TransformError). What the branch not taken does to an example has no effect on
/// its gradients with respect to args: infinities and NaN there are masked (in JAX they are not).
/// That does not hold for tensors which a branch captures; pass them in args.
template <class P, class T, class F, class... Args>
auto cond(const P& pred, T true_fn, F false_fn, Args&&... args) {
  using Result = tutti::detail::ResultOf<T, Args...>;
  static_assert(std::is_same_v<Result, tutti::detail::ResultOf<F, Args...>>,
                "both branches must return the same type");
  auto given = func::args(std::forward<Args>(args)...);
  const tutti::detail::Condition c = tutti::detail::condition(pred, "cond");
  if (!c.differs)
    return c.value ? std::apply([&](auto&... a) -> Result { return true_fn(a...); }, given)
                   : std::apply([&](auto&... a) -> Result { return false_fn(a...); }, given);
  const Tensors flat = tree::flatten(given);
  auto branch = [&](const auto& f, const Tensor& chosen, std::optional<Result>& result) {
    auto run = [&](const Tensors& in) {
      result.emplace(tutti::detail::call_with(f, given, in));
      tutti::detail::check_only_tensors(*result, "cond", "what a branch returns");
      return tree::flatten(*result);
    };
    return tutti::detail::call_guarded(tutti::detail::ListFn(run),
                                       tutti::detail::enter_branch(chosen, flat), "cond",
                                       "a branch", true);
  };
  std::optional<Result> on_true, on_false;
  Tensors a = branch(true_fn, c.tensor, on_true),
          b = branch(false_fn, logical_not(c.tensor), on_false);
  tutti::detail::check_structure(tutti::detail::structure_of(*on_false),
                                 tutti::detail::structure_of(*on_true), "cond",
                                 "both branches to return the same structure");
  return tree::rebuild(*on_true,
                       tutti::detail::select_each(c.tensor, a, b, "cond",
                                                  "both branches to return equal shapes and "
                                                  "dtypes"));
}

/// carry = body_fn(carry) while cond_fn(carry) holds, from `init`, as jax.lax.while_loop. carry is
/// a tree; the body must keep its structure, shapes and dtypes (ValueError, ShapeError, TypeError)
/// and change nothing in place that it did not make (TransformError). Under vmap, where the
/// condition may differ per example, the loop runs until all examples are done; those that are done
/// keep their values, which are those of a loop of their own, and get no gradient from later steps.
/// Forward and reverse mode work, also inside vmap; reverse mode records every step.
template <class C, class B, class T>
auto while_loop(C cond_fn, B body_fn, T init) {
  using Carry = std::decay_t<T>;
  static_assert(std::is_same_v<tutti::detail::ResultOf<B, Carry>, Carry>,
                "the body must return what it is given");
  Carry carry = std::move(init);
  Tensors now = tree::flatten(carry);
  tutti::detail::LoopMask mask;
  while (mask.next(tutti::detail::condition(cond_fn(carry), "while_loop"))) {
    std::optional<Carry> result;
    auto run = [&](const Tensors& in) {
      Carry given = tree::rebuild(carry, in);
      result.emplace(body_fn(given));
      return tree::flatten(*result);
    };
    if (mask.partial())
      tutti::detail::check_only_tensors(carry, "while_loop",
                                        "the carry of a loop whose length differs per example");
    Tensors next = tutti::detail::call_guarded(tutti::detail::ListFn(run), mask.enter(now),
                                               "while_loop", "the body", true);
    tutti::detail::check_structure(tutti::detail::structure_of(*result),
                                   tutti::detail::structure_of(carry), "while_loop",
                                   "the body to return the structure it is given");
    tutti::detail::check_carry(next, now, "while_loop");
    now = mask.merge(next, now);
    carry = tree::rebuild(*result, now);
  }
  return carry;
}

/// Loops over the first axis of xs, as jax.lax.scan: (carry, y) = f(carry, x) from `init`, where f
/// returns std::pair; the result is std::pair(last carry, ys stacked along a new first axis).
/// carry, xs and y are trees; f must keep the carry's structure, shapes and dtypes (ValueError,
/// ShapeError, TypeError) and must not change carry or x in place (TransformError). Works under
/// every transform; carry may become batched on the way. With no steps f is called once, on zeros
/// and without recording, for the shapes of the ys.
template <class F, class C, class X>
auto scan(F f, C init, X xs, const ScanOptions& options = {}) {
  using Result = tutti::detail::ResultOf<F, C, X>;
  using Carry = std::decay_t<C>;
  using Y = typename Result::second_type;
  static_assert(std::is_same_v<typename Result::first_type, Carry>,
                "the function must return std::pair(carry, y), with the carry it is given");
  const Tensors flat = tree::flatten(xs);
  const std::int64_t n = tutti::detail::scan_length(flat, options);
  Carry carry = std::move(init);
  Tensors now = tree::flatten(carry);
  const std::size_t carried = now.size();
  std::vector<Tensors> ys(static_cast<std::size_t>(n));
  std::optional<Y> y_structure;
  auto step = [&](std::int64_t i) {
    std::optional<Result> result;
    Tensors in = now;
    for (const Tensor& x : tutti::detail::scan_inputs(flat, i, n == 0)) in.push_back(x);
    auto run = [&](const Tensors& values) {
      std::size_t at = 0;
      Carry given = tree::rebuild(carry, values, at);
      X x = tree::rebuild(xs, values, at);
      result.emplace(f(given, x));
      return tree::flatten(*result);
    };
    Tensors out =
        tutti::detail::call_guarded(tutti::detail::ListFn(run), in, "scan", "the function", false);
    tutti::detail::check_structure(tutti::detail::structure_of(result->first),
                                   tutti::detail::structure_of(carry), "scan",
                                   "the function to return the structure of the carry");
    tutti::detail::check_only_tensors(result->second, "scan", "y");
    if (y_structure)
      tutti::detail::check_structure(tutti::detail::structure_of(result->second),
                                     tutti::detail::structure_of(*y_structure), "scan",
                                     "every step to return a y of the same structure");
    Tensors next(out.begin(), out.begin() + carried), y(out.begin() + carried, out.end());
    tutti::detail::check_carry(next, now, "scan");
    y_structure.emplace(std::move(result->second));
    if (n == 0) return y;
    now = std::move(next);
    carry = std::move(result->first);
    ys[static_cast<std::size_t>(i)] = std::move(y);
    return Tensors();
  };
  if (n == 0) {
    NoGradGuard guard;
    Tensors none = tutti::detail::scan_no_outputs(step(0));
    return std::pair<Carry, Y>(std::move(carry), tree::rebuild(*y_structure, none));
  }
  for (std::int64_t i = 0; i < n; ++i) step(options.reverse() ? n - 1 - i : i);
  return std::pair<Carry, Y>(std::move(carry),
                             tree::rebuild(*y_structure, tutti::detail::scan_outputs(ys)));
}

}  // namespace func
}  // namespace tutti
