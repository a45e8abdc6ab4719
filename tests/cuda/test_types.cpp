// Kernels in every element type: the elementwise rows of the op table on dense memory, with whole
// packs and a rest, and on tensors none of whose axes can be merged; reductions, running values,
// sorting, indexing, copies and draws likewise. The values are those where functions go other ways:
// signed zeros, denormals, infinities, NaN, limits of types, arguments far out.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "../test.h"
#include "device_checks.h"
#include "gpu.h"

using namespace tutti;
using namespace tutti_test;

namespace {

constexpr std::array kTypes = {kFloat32, kFloat64, kInt64,   kInt32,    kUInt8,
                               kInt8,    kInt16,   kFloat16, kBFloat16, kBool};

// ---- values

const std::vector<double>& special_floats() {
  constexpr double inf = std::numeric_limits<double>::infinity();
  static const std::vector<double> v = {
      0,   -0.0,  1,      -1,    0.5,   -0.5,  2,      -2,    3,     -3,     inf,     -inf,
      NAN, 1e-40, 5e-310, 1e-30, -1e-5, 0.3,   -0.999, 1.001, 4.7,   -20,    19,      88.9,
      -90, -104,  710,    -750,  127.5, 1.3e5, -3e8,   1e30,  1e300, -1e300, 8388609, 0.25};
  return v;
}

/// Numbers of type t, those at its limits included.
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

/// Input number `which` of a check: each special value of it meets each one of the other inputs,
/// then follow values as the row asks for.
Array values(const In& in, std::size_t which, std::size_t inputs, DType t, std::int64_t n,
             Rng& rng) {
  In drawn = in;
  drawn.shape = {n};
  drawn.unique_axis.reset();
  Array a = sample(drawn, rng, t);
  const std::vector<double> special = special_values(t);
  const std::size_t period = which == 0 ? 1 : special.size();
  const std::size_t combinations = inputs == 1 ? special.size() : special.size() * special.size();
  for (std::size_t i = 0; i < std::min(combinations, a.data.size()); ++i)
    a.data[i] = special[(i / period + (which == 2 ? i : 0)) % special.size()];
  return a;
}

// ---- layouts

/// The same values on the device in a tensor none of whose axes can be merged, and that starts at
/// an odd place.
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

/// Six axes, the most that kernels take apart.
Tensor six_axes(const Tensor& t) { return t.reshape({2, 2, 2, 2, 2, -1}); }
Values six_axes(const Values& v) {
  Values out;
  for (const Tensor& t : v) out.push_back(six_axes(t));
  return out;
}

/// "" if f refuses both, or gives the same for both.
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

// ---- elementwise rows

std::vector<Row> elementwise_rows() {
  Table t;
  unary_rows(t);
  binary_rows(t);
  std::set<std::string> names;
  for (const Row& row : t.rows) names.insert(row.name);
  std::vector<Row> out;
  for (const Row& row : selected_rows())
    if (names.count(row.name) && !row.dynamic) out.push_back(row);
  return out;
}

/// Integers take the place of indices, too: bitwise operations exist for all of them.
DType type_of(const In& in, DType d) {
  return in.kind == In::Kind::index && is_integral(d) ? d : dtype_of_input(in, d);
}

Values inputs_of(const Row& row, DType d, std::int64_t n, Rng& rng) {
  Values out;
  for (std::size_t i = 0; i < row.inputs.size(); ++i) {
    const DType t = type_of(row.inputs[i], d);
    out.push_back(to_tensor(values(row.inputs[i], i, row.inputs.size(), t, n, rng), t));
  }
  return out;
}

}  // namespace

TEST_CASE("elementwise ops in every type") {
  REQUIRE(cuda::is_available());
  Tally tally;
  const std::vector<Row> rows = elementwise_rows();
  for (const Row& row : rows) {
    Rng rng = rng_for(row.name + " types");
    const std::int64_t n = row.inputs.size() == 1 ? 96 : 32 * 42;
    for (DType d : kTypes) {
      const std::string label = detail::str(row.name, " in ", d);
      const Values dense = inputs_of(row, d, n + 3, rng), even = inputs_of(row, d, n, rng);
      tally.check("dense", label,
                  [&] { return same_or_refused(row.f, dense, on_gpu(dense), d, row.tolerance); });
      if (is_half(d)) continue;  // computed in float32
      const Values six = six_axes(even);
      tally.check("strided", label, [&] {
        return same_or_refused(row.f, six, padded_on_gpu(six), d, row.tolerance);
      });
    }
  }
  tally.print("elementwise rows in every type", rows.size());
  CHECK(tally.failed() == 0);
}
