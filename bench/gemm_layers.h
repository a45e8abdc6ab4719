// What the benchmarks of matrix products share: the products of a layer of M members, in the three
// forms training needs, for B rows, K inputs and N outputs:
//   fwd  y [B, N] = x [B, K] w [N, K]^T      dX [B, K] = dy [B, N] w      dW [N, K] = dy^T x
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>

#include <tutti/core/kernels/gemm.h>
#include <tutti/tutti.h>

namespace bench {

// ---- the products

enum class Form { fwd, dX, dW };
inline constexpr Form kForms[] = {Form::fwd, Form::dX, Form::dW};

struct Sizes {
  std::int64_t members, b, k, n;

  /// Numbers of one member.
  std::int64_t numbers() const { return b * k + n * k + b * n; }
  /// "members/b/k/n/form".
  std::string name(Form form) const {
    const char* forms[] = {"fwd", "dX", "dW"};
    std::string s;
    for (std::int64_t x : {members, b, k, n}) s.append(std::to_string(x)).append("/");
    return s + forms[static_cast<int>(form)];
  }
};

/// Numbers that begin where a tensor's would: at a line of the cache.
template <class T>
class Numbers {
 public:
  explicit Numbers(std::int64_t n) : tensor_(tutti::zeros({n}, tutti::dtype_of<T>())), n_(n) {}
  T* data() const { return static_cast<T*>(tensor_.raw()); }
  T* begin() const { return data(); }
  T* end() const { return data() + n_; }

 private:
  tutti::Tensor tensor_;
  std::int64_t n_;
};

template <class T>
class Layer {
 public:
  Layer(const Sizes& s, Form form)
      : s_(s), x_(values(s.b * s.k)), w_(values(s.n * s.k)), y_(values(s.b * s.n)) {
    const auto [members, b, k, n] = s;
    const tutti::kernels::Matrices x{x_.data(), {b * k}, k, 1}, w{w_.data(), {n * k}, k, 1},
        wt{w_.data(), {n * k}, 1, k}, y{y_.data(), {b * n}, n, 1}, yt{y_.data(), {b * n}, 1, n};
    g_.dtype = tutti::dtype_of<T>();
    g_.batch = {members};
    if (form == Form::fwd) g_.m = b, g_.n = n, g_.k = k, g_.a = x, g_.b = wt, g_.out = y_.data();
    if (form == Form::dX) g_.m = b, g_.n = k, g_.k = n, g_.a = y, g_.b = w, g_.out = x_.data();
    if (form == Form::dW) g_.m = n, g_.n = k, g_.k = b, g_.a = yt, g_.b = x, g_.out = w_.data();
  }

  /// The product; its operands and its result lie in this object.
  const tutti::kernels::Gemm& gemm() const { return g_; }
  void run() const { tutti::kernels::gemm(g_); }
  double flops() const { return 2.0 * static_cast<double>(s_.members * s_.b * s_.k * s_.n); }

 private:
  Numbers<T> values(std::int64_t each) const {
    const Numbers<T> v(s_.members * each);
    std::int64_t i = 0;
    for (T& x : v) x = static_cast<T>(i++ * 7919 % 201) / 100 - 1;
    return v;
  }

  Sizes s_;
  Numbers<T> x_, w_, y_;
  tutti::kernels::Gemm g_;
};

}  // namespace bench
