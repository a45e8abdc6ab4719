// Running sums and products, and sorting: one line after the other.
#include <algorithm>
#include <vector>

#include <tutti/core/kernels/lines.h>
#include <tutti/core/kernels/scan_sort.h>

namespace tutti::kernels {
namespace {

template <class T>
using Wide =
    std::conditional_t<std::is_floating_point_v<T>, double, std::uint64_t>;  // integers wrap around

/// out[i] = f(out[i - 1], x[i]) in the wide type.
template <class F>
void scan(Inputs in, Inputs out, const Attrs& a, int start, F f) {
  const std::size_t axis = static_cast<std::size_t>(a.dims[0]);
  const Tensor &x = in[0], &y = out[0];
  if (x.numel() == 0) return;
  const std::int64_t n = x.sizes()[axis], step = x.strides()[axis], to_step = y.strides()[axis];
  dispatch_full(x.dtype(), [&]<class T>() {
    const T* const from = static_cast<const T*>(x.raw());
    T* const to = static_cast<T*>(y.raw());
    Lines<2>(x.sizes(), axis, {x.strides(), y.strides()}).parallel(2, [=](const auto& at) {
      auto state = static_cast<Wide<T>>(start);
      for (std::int64_t i = 0; i < n; ++i) {
        state = f(state, static_cast<Wide<T>>(from[at[0] + i * step]));
        to[at[1] + i * to_step] = static_cast<T>(state);
      }
    });
  });
}

/// Order of sort(): NaN is the largest.
template <class T>
bool less(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return a < b || (b != b && a == a);
  else
    return a < b;
}

}  // namespace

void cumsum(Inputs in, Inputs out, const Attrs& a) {
  scan(in, out, a, 0, [](auto s, auto x) { return s + x; });
}

void cumprod(Inputs in, Inputs out, const Attrs& a) {
  scan(in, out, a, 1, [](auto s, auto x) { return s * x; });
}

void recurrence(Inputs in, Inputs out, const Attrs& a) {
  const std::size_t axis = static_cast<std::size_t>(a.dims[0]);
  const Tensor &p = in[0], &q = in[1], &y = out[0];
  if (y.numel() == 0) return;
  const std::int64_t n = y.sizes()[axis];
  const std::int64_t p_step = p.strides()[axis], q_step = q.strides()[axis],
                     step = y.strides()[axis];
  dispatch_full(y.dtype(), [&]<class T>() {
    const T *const ps = static_cast<const T*>(p.raw()), *const qs = static_cast<const T*>(q.raw());
    T* const to = static_cast<T*>(y.raw());
    Lines<3>(y.sizes(), axis, {p.strides(), q.strides(), y.strides()})
        .parallel(3, [=](const auto& at) {
          Wide<T> state{};
          for (std::int64_t i = 0; i < n; ++i) {
            const auto factor = static_cast<Wide<T>>(ps[at[0] + i * p_step]);
            const auto summand = static_cast<Wide<T>>(qs[at[1] + i * q_step]);
            state = i == 0 ? summand : factor * state + summand;
            to[at[2] + i * step] = static_cast<T>(state);
          }
        });
  });
}

void sort(Inputs in, Inputs out, const Attrs& a) {
  const std::size_t axis = static_cast<std::size_t>(a.dims[0]);
  const Tensor &x = in[0], &values = out[0], &indices = out[1];
  if (x.numel() == 0) return;
  const bool descending = a.flags & 1;
  const std::int64_t n = x.sizes()[axis], step = x.strides()[axis];
  const std::int64_t value_step = values.strides()[axis], index_step = indices.strides()[axis];
  dispatch_full(x.dtype(), [&]<class T>() {
    const T* const from = static_cast<const T*>(x.raw());
    T* const to = static_cast<T*>(values.raw());
    std::int64_t* const at_index = static_cast<std::int64_t*>(indices.raw());
    const Lines<3> lines(x.sizes(), axis, {x.strides(), values.strides(), indices.strides()});
    lines.parallel(64, [=](const auto& at) {
      struct Item {
        T value;
        std::int64_t index;
      };
      thread_local std::vector<Item> items;
      items.resize(static_cast<std::size_t>(n));
      for (std::int64_t i = 0; i < n; ++i)
        items[static_cast<std::size_t>(i)] = {from[at[0] + i * step], i};
      // Ties are broken by index, which makes any sort a stable one.
      std::sort(items.begin(), items.end(), [descending](const Item& l, const Item& r) {
        if (descending ? less(r.value, l.value) : less(l.value, r.value)) return true;
        if (descending ? less(l.value, r.value) : less(r.value, l.value)) return false;
        return l.index < r.index;
      });
      for (std::int64_t i = 0; i < n; ++i) {
        to[at[1] + i * value_step] = items[static_cast<std::size_t>(i)].value;
        at_index[at[2] + i * index_step] = items[static_cast<std::size_t>(i)].index;
      }
    });
  });
}

}  // namespace tutti::kernels
