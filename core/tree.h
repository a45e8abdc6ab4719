// Trees: nested containers whose leaves are tensors (or other values, which transforms leave
// alone). A tree is a Tensor, or a vector, array, pair, tuple, map<string, T>, Dict, optional, or a
// struct declared with TUTTI_TREE, of trees. Everything is built on one function, children(tree,
// f), which calls f on each direct part in order. Dims mirrors a tree with an axis, nullopt or a
// list per part; one value stands for everything below it.
#pragma once
#include <array>
#include <concepts>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <tutti/core/dict.h>
#include <tutti/core/tensor.h>

namespace tutti {

/// Makes a struct a tree: TUTTI_TREE(Batch, x, y) after its definition, in its namespace.
#define TUTTI_TREE(Type, ...)                               \
  template <class TuttiF>                                   \
  void tutti_children(Type& t, TuttiF&& f) {                \
    ::tutti::detail::each_of(f, TUTTI_FIELDS(__VA_ARGS__)); \
  }                                                         \
  template <class TuttiF>                                   \
  void tutti_children(const Type& t, TuttiF&& f) {          \
    ::tutti::detail::each_of(f, TUTTI_FIELDS(__VA_ARGS__)); \
  }
#define TUTTI_FIELD_1(a) t.a
#define TUTTI_FIELD_2(a, ...) t.a, TUTTI_FIELD_1(__VA_ARGS__)
#define TUTTI_FIELD_3(a, ...) t.a, TUTTI_FIELD_2(__VA_ARGS__)
#define TUTTI_FIELD_4(a, ...) t.a, TUTTI_FIELD_3(__VA_ARGS__)
#define TUTTI_FIELD_5(a, ...) t.a, TUTTI_FIELD_4(__VA_ARGS__)
#define TUTTI_FIELD_6(a, ...) t.a, TUTTI_FIELD_5(__VA_ARGS__)
#define TUTTI_FIELD_7(a, ...) t.a, TUTTI_FIELD_6(__VA_ARGS__)
#define TUTTI_FIELD_8(a, ...) t.a, TUTTI_FIELD_7(__VA_ARGS__)
#define TUTTI_PICK(_1, _2, _3, _4, _5, _6, _7, _8, name, ...) name
#define TUTTI_FIELDS(...)                                                             \
  TUTTI_PICK(__VA_ARGS__, TUTTI_FIELD_8, TUTTI_FIELD_7, TUTTI_FIELD_6, TUTTI_FIELD_5, \
             TUTTI_FIELD_4, TUTTI_FIELD_3, TUTTI_FIELD_2, TUTTI_FIELD_1, unused)      \
  (__VA_ARGS__)

namespace tree {

template <class T>
inline constexpr bool is_tensor = std::is_base_of_v<Tensor, std::remove_cvref_t<T>>;

template <class T>
struct Container : std::false_type {};
template <class T, class A>
struct Container<std::vector<T, A>> : std::true_type {};
template <class T, std::size_t N>
struct Container<std::array<T, N>> : std::true_type {};
template <class T>
struct Container<Dict<T>> : std::true_type {};
template <class T>
struct Container<std::map<std::string, T>> : std::true_type {};
template <class T>
struct Container<std::optional<T>> : std::true_type {};
template <class A, class B>
struct Container<std::pair<A, B>> : std::true_type {};
template <class... T>
struct Container<std::tuple<T...>> : std::true_type {};

struct Ignore {  // clang 14 takes a lambda in a concept amiss
  template <class T>
  void operator()(T&) const {}
};
template <class T>
concept UserTree = requires(std::remove_cvref_t<T>& t) {
  tutti_children(t, Ignore{});
};
template <class T>
concept HasChildren = Container<std::remove_cvref_t<T>>::value || UserTree<T>;

/// Calls f on each direct part of a tree that is not a leaf.
template <class T, class F>
void children(T& t, F&& f) {
  using U = std::remove_const_t<T>;
  if constexpr (UserTree<U>) {
    tutti_children(t, f);
  } else if constexpr (
      requires { std::tuple_size<U>::value; } && !requires { t.data(); }) {
    std::apply([&](auto&... part) { (f(part), ...); }, t);
  } else if constexpr (requires { t.has_value(); }) {
    if (t) f(*t);
  } else if constexpr (requires { t.key_table(); }) {
    for (auto& v : t.values()) f(v);
  } else if constexpr (requires { typename U::mapped_type; }) {
    for (auto& item : t) f(item.second);
  } else {
    for (auto&& v : t) {
      if constexpr (std::is_lvalue_reference_v<decltype(v)>) f(v);  // vector<bool> has no parts
    }
  }
}

/// Calls f(Tensor&) on every tensor leaf, in order.
template <class T, class F>
void leaves(T& t, F&& f) {
  if constexpr (is_tensor<T>)
    f(t);
  else if constexpr (HasChildren<T>)
    children(t, [&](auto& c) { leaves(c, f); });
}

/// All tensor leaves, in order.
template <class T>
Tensors flatten(const T& t) {
  Tensors r;
  leaves(t, [&](const Tensor& x) { r.push_back(x); });
  return r;
}
template <class T>
std::size_t count(const T& t) {
  std::size_t n = 0;
  leaves(t, [&](const Tensor&) { ++n; });
  return n;
}

/// A copy of `t` with its tensor leaves replaced by values[at...]; `at` moves on.
template <class T>
T rebuild(const T& t, const Tensors& values, std::size_t& at) {
  T r = t;
  leaves(r, [&](Tensor& x) { x = values[at++]; });
  return r;
}
template <class T>
T rebuild(const T& t, const Tensors& values) {
  std::size_t at = 0;
  return rebuild(t, values, at);
}
/// A copy of `t` with f(leaf) for every tensor leaf.
template <class T, class F>
T map(const T& t, F&& f) {
  T r = t;
  leaves(r, [&](Tensor& x) { x = f(static_cast<const Tensor&>(x)); });
  return r;
}
/// The structure of a tree: all but its tensors, which it does not keep alive.
template <class T>
T without_tensors(const T& t) {
  return map(t, [](const Tensor&) { return Tensor(); });
}
/// Whether a tree of this type may hold tensors.
template <class T>
constexpr bool may_hold_tensors() {
  return is_tensor<T> || HasChildren<T>;
}

template <class T>
concept Named = !UserTree<T> && (
                                    requires(const T& t) { t.key_table(); } ||
                                    requires { typename T::mapped_type; });

/// Appends the tensor leaves of `t` in the order of those of `like`: parts with names (of a Dict or
/// map) are matched by name, others by position. ValueError where the structures differ.
template <class L, class T>
void flatten_like(const L& like, const T& t, const char* op, const char* what, Tensors& out) {
  if constexpr (Named<L> && Named<T>) {
    for (const auto& [key, part] : t)
      check<ValueError>(like.contains(key), op, "expected ", what, " with the same names, got \"",
                        key, "\" as well; leave it out");
    for (const auto& [key, part] : like) {
      check<ValueError>(t.contains(key), op, "expected ", what,
                        " with the same names, got none for \"", key, "\"; give it one");
      flatten_like(part, t.at(key), op, what, out);
    }
  } else if constexpr (!is_tensor<L> && !is_tensor<T> && HasChildren<L> && HasChildren<T>) {
    std::size_t n = 0, m = 0, i = 0;
    children(like, [&](const auto&) { ++n; });
    children(t, [&](const auto&) { ++m; });
    check<ValueError>(n == m, op, "expected ", what, " of the same structure: a list of ", n,
                      " parts, got ", m, "; give one per part");
    children(like, [&](const auto& part) {
      std::size_t j = 0;
      children(t, [&](const auto& given) {
        if (j++ == i) flatten_like(part, given, op, what, out);
      });
      ++i;
    });
  } else {
    leaves(t, [&](const Tensor& x) { out.push_back(x); });
  }
}

// A tree of type T with something else in the place of each tensor: a tree with leaves of type
// Leaf. Leaves that are no tensors stay. A struct can take other leaves only if it is a template
// over them.
template <class T, class Leaf>
struct Replaced {
  static_assert(!UserTree<T>,
                "this struct holds Tensors by name and cannot hold other values in their place; "
                "make it a template over its leaf type, or use a tuple or a Dict");
  using type = std::conditional_t<is_tensor<T>, Leaf, T>;
};
template <class T, class Leaf>
using ReplaceTensors = typename Replaced<std::remove_cvref_t<T>, Leaf>::type;

template <class T, class Leaf>
requires(UserTree<T>&& std::same_as<Leaf, Tensor>) struct Replaced<T, Leaf> {
  using type = T;
};
template <template <class...> class S, class... T, class Leaf>
requires(UserTree<S<T...>> && !std::same_as<Leaf, Tensor>) struct Replaced<S<T...>, Leaf> {
  using type = S<ReplaceTensors<T, Leaf>...>;
};
template <class T, class A, class Leaf>
struct Replaced<std::vector<T, A>, Leaf> {
  using type = std::vector<ReplaceTensors<T, Leaf>>;
};
template <class T, std::size_t N, class Leaf>
struct Replaced<std::array<T, N>, Leaf> {
  using type = std::array<ReplaceTensors<T, Leaf>, N>;
};
template <class T, class Leaf>
struct Replaced<Dict<T>, Leaf> {
  using type = Dict<ReplaceTensors<T, Leaf>>;
};
template <class T, class Leaf>
struct Replaced<std::map<std::string, T>, Leaf> {
  using type = std::map<std::string, ReplaceTensors<T, Leaf>>;
};
template <class T, class Leaf>
struct Replaced<std::optional<T>, Leaf> {
  using type = std::optional<ReplaceTensors<T, Leaf>>;
};
template <class A, class B, class Leaf>
struct Replaced<std::pair<A, B>, Leaf> {
  using type = std::pair<ReplaceTensors<A, Leaf>, ReplaceTensors<B, Leaf>>;
};
template <class... T, class Leaf>
struct Replaced<std::tuple<T...>, Leaf> {
  using type = std::tuple<ReplaceTensors<T, Leaf>...>;
};

/// `t` with make(tensor), of type Leaf, in the place of each tensor, in order.
template <class Leaf, class T, class F>
ReplaceTensors<T, Leaf> replace(const T& t, F&& make) {
  using R = ReplaceTensors<T, Leaf>;
  if constexpr (is_tensor<T>) {
    return make(static_cast<const Tensor&>(t));
  } else if constexpr (std::same_as<R, T> && !HasChildren<T>) {
    return t;
  } else if constexpr (UserTree<T> && std::same_as<R, T>) {
    return map(t, make);
  } else if constexpr (UserTree<T>) {
    R r{};
    std::size_t from = 0, placed = 0;  // part i of t goes to part i of the result
    tutti_children(t, [&](const auto& part) {
      std::size_t to = 0;
      tutti_children(r, [&](auto& place) {
        if constexpr (std::same_as<ReplaceTensors<decltype(part), Leaf>,
                                   std::remove_cvref_t<decltype(place)>>)
          if (to == from) place = replace<Leaf>(part, make), ++placed;
        ++to;
      });
      ++from;
    });
    check<TypeError>(placed == from, "tree",
                     "a struct template has a Tensor that is not of its leaf type, so it cannot "
                     "hold another value in its place; make all tensors of the leaf type");
    return r;
  } else if constexpr (
      requires { std::tuple_size<T>::value; } && !requires { t.data(); }) {
    return std::apply([&](const auto&... part) { return R{replace<Leaf>(part, make)...}; }, t);
  } else if constexpr (requires { t.has_value(); }) {
    return t ? R(replace<Leaf>(*t, make)) : R();
  } else if constexpr (requires { t.key_table(); }) {
    return R::with_keys_of(t, replace<Leaf>(t.values(), make));
  } else if constexpr (requires { typename T::mapped_type; }) {
    R r;
    for (const auto& [key, value] : t) r.emplace(key, replace<Leaf>(value, make));
    return r;
  } else if constexpr (requires { std::tuple_size<T>::value; }) {
    return std::apply([&](const auto&... part) { return R{replace<Leaf>(part, make)...}; }, t);
  } else {
    R r;
    for (const auto& part : t) r.push_back(replace<Leaf>(part, make));
    return r;
  }
}

}  // namespace tree

namespace detail {
template <class F, class... Parts>
void each_of(F&& f, Parts&... parts) {
  (f(parts), ...);
}
}  // namespace detail

/// Which axis of each tensor in a tree is mapped: an axis, nullopt (not mapped), or a braced list
/// with one Dims per part.
class Dims {
 public:
  template <std::integral T>
  requires(!std::same_as<T, bool>) Dims(T axis) : axis_(static_cast<std::int64_t>(axis)) {}
  Dims(bool) = delete;
  Dims(std::nullopt_t) {}
  Dims(std::optional<std::int64_t> axis) : axis_(axis) {}
  Dims(std::initializer_list<Dims> parts) : parts_(parts), list_(true) {}
  Dims(std::vector<Dims> parts) : parts_(std::move(parts)), list_(true) {}

  bool is_list() const { return list_; }
  const std::vector<Dims>& parts() const { return parts_; }
  std::optional<std::int64_t> axis() const { return axis_; }
  std::string to_string() const;

 private:
  std::optional<std::int64_t> axis_;
  std::vector<Dims> parts_;
  bool list_ = false;
};

namespace tree {

/// Spreads `dims` over t's leaves: f(leaf, axis) for every leaf, tensor or not. ValueError where
/// the structures differ.
template <class T, class F>
void leaves_with_dims(T& t, const Dims& dims, const char* op, const char* what, F&& f) {
  if constexpr (!is_tensor<T> && HasChildren<T>) {
    std::size_t n = 0, i = 0;
    children(t, [&](auto&) { ++n; });
    if (dims.is_list() && dims.parts().size() != n)
      fail<ValueError>(op, what, " does not match the structure of the values: expected a list of ",
                       n, " entries, got ", dims.to_string(), "; give one per part");
    children(t, [&](auto& c) {
      leaves_with_dims(c, dims.is_list() ? dims.parts()[i++] : dims, op, what, f);
    });
  } else {
    if (dims.is_list())
      fail<ValueError>(op, what, " does not match the structure of the values: got the list ",
                       dims.to_string(), " for a single leaf; give an axis or nullopt");
    f(t, dims.axis());
  }
}

}  // namespace tree

}  // namespace tutti
