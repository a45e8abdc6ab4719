// Strided loops over tensors of one shape. Axes of size 1 are dropped, the others are ordered by
// stride and merged where memory allows, and the innermost one is handed out in runs (pointers,
// byte strides, length). Big work is shared by threads. Included by kernels only.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>

#include <tutti/core/kernels/per_isa.h>
#include <tutti/core/kernels/scalar.h>
#include <tutti/core/tensor.h>

namespace tutti::kernels {

/// Elements a thread should get at least, for functions of one or two instructions and for those of
/// many.
inline constexpr std::int64_t kCheapGrain = 16384, kHeavyGrain = 2048;

/// The elements of N equally shaped tensors, visited together; tensor 0 (the output) decides the
/// order.
template <std::size_t N>
class Loops {
 public:
  using Pointers = std::array<std::byte*, N>;
  using Strides = std::array<std::int64_t, N>;  // in bytes
  struct Axis {
    std::int64_t size;
    Strides strides;
  };
  using AxisList = SmallVec<Axis, 6>;

  explicit Loops(const std::array<const Tensor*, N>& tensors);

  std::int64_t total() const { return total_; }
  const Pointers& base() const { return base_; }
  /// Innermost first; empty only if there is no element.
  const AxisList& axes() const { return axes_; }

  /// What each_run calls, with the f it was given.
  using Run = void (*)(const void* f, const Pointers& p, const Strides& s, std::int64_t n);

  /// Calls f(pointers, strides, n) for runs along the innermost axis that cover all elements; from
  /// several threads if there are more than `grain`.
  template <class F>
  void each_run(std::int64_t grain, const F& f) const {
    each_run(grain, &f, [](const void* g, const Pointers& p, const Strides& s, std::int64_t n) {
      (*static_cast<const F*>(g))(p, s, n);
    });
  }
  /// The same with a function that takes f as a pointer.
  void each_run(std::int64_t grain, const void* f, Run run) const;

 private:
  void insert(const Axis& axis);
  void merge();
  void visit(std::int64_t begin, std::int64_t end, const void* f, Run run) const;

  std::int64_t total_;
  Pointers base_{};
  AxisList axes_;
};
extern template class Loops<1>;
extern template class Loops<2>;
extern template class Loops<3>;
extern template class Loops<4>;

namespace detail {

/// An operand of a run: consecutive elements, one repeated element, or elements a stride apart.
template <class T>
struct Unit {
  const T* p;
  TUTTI_INLINE T operator[](std::int64_t i) const { return p[i]; }
};
template <class T>
struct Repeated {
  T v;
  TUTTI_INLINE T operator[](std::int64_t) const { return v; }
};
template <class T>
struct Strided {
  const std::byte* p;
  std::int64_t stride;
  TUTTI_INLINE T operator[](std::int64_t i) const {
    return *reinterpret_cast<const T*>(p + i * stride);
  }
};

template <class R, class F, class... Operands>
TUTTI_INLINE void fill_run(R* out, std::int64_t n, const F& f, Operands... in) {
  TUTTI_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) out[i] = f(in[i]...);
}

template <class R, class... A, class F, std::size_t... I>
TUTTI_INLINE void map_run(const F& f, const std::array<std::byte*, 1 + sizeof...(A)>& p,
                          const std::array<std::int64_t, 1 + sizeof...(A)>& s, std::int64_t n,
                          std::index_sequence<I...>) {
  constexpr std::array<std::int64_t, sizeof...(A)> item{std::int64_t{sizeof(A)}...};
  R* out = reinterpret_cast<R*>(p[0]);
  if (s[0] == std::int64_t{sizeof(R)}) {
    if (((s[I + 1] == item[I]) && ...))
      return fill_run(out, n, f, Unit<A>{reinterpret_cast<const A*>(p[I + 1])}...);
    if constexpr (sizeof...(A) == 2) {
      using A0 = std::tuple_element_t<0, std::tuple<A...>>;
      using A1 = std::tuple_element_t<1, std::tuple<A...>>;
      const A0* a = reinterpret_cast<const A0*>(p[1]);
      const A1* b = reinterpret_cast<const A1*>(p[2]);
      if (s[1] == 0 && s[2] == item[1]) return fill_run(out, n, f, Repeated<A0>{*a}, Unit<A1>{b});
      if (s[1] == item[0] && s[2] == 0) return fill_run(out, n, f, Unit<A0>{a}, Repeated<A1>{*b});
    }
  }
  for (std::int64_t i = 0; i < n; ++i)
    *reinterpret_cast<R*>(p[0] + i * s[0]) = f(Strided<A>{p[I + 1], s[I + 1]}[i]...);
}

/// map_run as each_run calls it.
template <class F, class R, class... A>
struct MapRun {
  using L = Loops<1 + sizeof...(A)>;
  TUTTI_INLINE static void run(const void* f, const typename L::Pointers& p,
                               const typename L::Strides& s, std::int64_t n) {
    map_run<R, A...>(*static_cast<const F*>(f), p, s, n, std::index_sequence_for<A...>());
  }
};

/// Whether loops over T gain from wider vectors enough to be compiled for each instruction set:
/// floating point, the bits of elements of that size, and masks.
template <class T>
inline constexpr bool is_wide =
    std::is_floating_point_v<T> || std::is_same_v<T, std::uint32_t> ||
    std::is_same_v<T, std::uint64_t> || std::is_same_v<T, bool> || std::is_same_v<T, scalar::Mask>;

/// The function that each_run calls with an F.
template <class F, class R, class... A>
typename Loops<1 + sizeof...(A)>::Run map_run_of() {
  using Body = MapRun<F, R, A...>;
  if constexpr (!scalar::is_heavy<F> && is_wide<R> && (is_wide<A> && ...))
    return version<Body>();
  else
    return Body::run;
}

}  // namespace detail

/// out[i] = f(in[i]...) for every element; R and A are the element types of the tensors.
template <class R, class... A, class F, class... Ins>
void map(std::int64_t grain, const F& f, const Tensor& out, const Ins&... in) {
  static_assert(sizeof...(A) == sizeof...(Ins));
  Loops<1 + sizeof...(A)>({&out, &in...}).each_run(grain, &f, detail::map_run_of<F, R, A...>());
}

}  // namespace tutti::kernels
