// Results on the device against those on the CPU.
#include "device_checks.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gpu.h"

using namespace tutti;

namespace tutti_test {
namespace {

struct Creating {
  explicit Creating(const TensorOptions& o) : saved(creation_options()) { creation_options() = o; }
  ~Creating() { creation_options() = saved; }
  Creating(const Creating&) = delete;
  TensorOptions saved;
};

Values run(const Fn& f, const Values& inputs, const TensorOptions& options) {
  Creating guard{options};
  manual_seed(3);
  return f(inputs);
}

const std::vector<double>& special_floats() {
  constexpr double inf = std::numeric_limits<double>::infinity();
  static const std::vector<double> v = {
      0,     -0.0,   1,     -1,    0.5,  -0.5,   2,     -2,     3,       -3,   inf,  -inf, NAN,
      1e-40, 5e-310, 1e-30, -1e-5, 0.3,  -0.999, 1.001, 4.7,    -20,     19,   88.9, -90,  -104,
      710,   -750,   127.5, 1.3e5, -3e8, 1e30,   1e300, -1e300, 8388609, 0.25, 0.75};
  return v;
}

}  // namespace

DType dtype_of_input(const In& in, DType real) {
  return in.kind == In::Kind::real ? real : in.kind == In::Kind::boolean ? kBool : kInt64;
}

double tolerance_of(DType t) {
  return t == kFloat64    ? 1e-11
         : t == kFloat32  ? 1e-5
         : t == kFloat16  ? 4e-3
         : t == kBFloat16 ? 3e-2
                          : 0;
}

std::string compare(const Fn& f, const Values& cpu, const Values& gpu, DType d, double factor) {
  const Values expected = run(f, cpu, TensorOptions(d));
  const Values y = run(f, gpu, TensorOptions(d).device(kCUDA));
  if (y.size() != expected.size()) return "another number of results";
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (!expected[i].defined()) continue;
    if (y[i].dtype() != expected[i].dtype())
      return detail::str("dtype ", y[i].dtype(), ", expected ", expected[i].dtype());
    const double tol = factor * std::max(tolerance_of(y[i].dtype()), tolerance_of(d));
    const std::string problem = differs(to_array(y[i]), to_array(expected[i]), tol, tol);
    if (!problem.empty()) return problem;
  }
  return {};
}

std::string same_or_refused(const Fn& f, const Values& cpu, const Values& gpu, DType d,
                            double factor) {
  std::string refusal;
  try {
    f(cpu);
  } catch (const Error& e) {
    refusal = e.what();
  }
  if (refusal.empty()) return compare(f, cpu, gpu, d, factor);
  try {
    f(gpu);
  } catch (const Error& e) {
    return e.what() == refusal ? "" : detail::str("another error: ", e.what());
  }
  return "was expected to be refused: " + refusal;
}

std::vector<double> special_values(DType t) {
  if (is_floating(t)) return special_floats();
  if (t == kBool) return {0, 1};
  std::vector<double> out;
  dispatch(t, [&]<class T>() {
    if constexpr (std::is_integral_v<T>) {
      using L = std::numeric_limits<T>;
      const double lowest = static_cast<double>(L::lowest());
      const double highest = static_cast<double>(L::max() - (sizeof(T) == 8 ? L::max() / 2 : 0));
      for (double v : {0., 1., -1., 2., -2., 3., -3., 7., -7., 31., 64., 100., lowest, highest})
        out.push_back(std::clamp(v, lowest, highest));
    }
  });
  return out;
}

Tensor padded_on_gpu(const Tensor& t) {
  Shape wide = t.sizes().shape();
  for (std::int64_t& s : wide) ++s;
  const auto inner = [&](Tensor base) {
    for (std::int64_t d = 0; d < t.dim(); ++d) base = base.narrow(d, 1, t.size(d));
    return base;
  };
  const Tensor base = zeros(wide, t.dtype());
  inner(base).copy_(t);
  return inner(base.to(kCUDA));
}
Values padded_on_gpu(const Values& v) {
  Values out;
  for (const Tensor& t : v) out.push_back(padded_on_gpu(t));
  return out;
}

Tensor six_axes(const Tensor& t) { return t.reshape({3, 2, 2, 2, 2, -1}); }
Values six_axes(const Values& v) {
  Values out;
  for (const Tensor& t : v) out.push_back(t.dim() == 0 ? t : six_axes(t));
  return out;
}

}  // namespace tutti_test
