// Results on the device against those on the CPU.
#include "device_checks.h"

#include <algorithm>

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

}  // namespace tutti_test
