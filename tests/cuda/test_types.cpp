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

#include "../row_checks.h"
#include "../test.h"
#include "device_checks.h"
#include "gpu.h"

using namespace tutti;
using namespace tutti_test;

namespace {

constexpr std::int64_t kRest = 15;  // elements behind the last pack of bytes, the most there can be
constexpr std::array kTypes = {kFloat32, kFloat64, kInt64,   kInt32,    kUInt8,
                               kInt8,    kInt16,   kFloat16, kBFloat16, kBool};

/// Elements of a check with so many inputs, an odd multiple of 48: each special value of one input
/// meets each one of the others, once in every place of a pack.
std::int64_t elements_for(std::size_t inputs, DType t) {
  const auto n = static_cast<std::int64_t>(special_values(t).size());
  const std::int64_t places = is_floating(t) ? 16 / size_of(t) : 1;
  return (places * (inputs == 1 ? n : n * n) + 32 + 48) / 96 * 96 + 48;
}

/// Input number `which`: special values, then some as the row asks for.
Array values(const In& in, std::size_t which, DType t, std::int64_t n, Rng& rng) {
  In drawn = in;
  drawn.shape = in.shape.empty() ? Index{} : Index{n};
  drawn.unique_axis.reset();
  Array a = sample(drawn, rng, t);
  const std::vector<double> special = special_values(t);
  const std::size_t period = which == 0 ? 1 : special.size();
  for (std::size_t i = 0; i + 32 < a.data.size(); ++i)
    a.data[i] = special[(i / period + (which == 2 ? i : 0)) % special.size()];
  return a;
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
    out.push_back(to_tensor(values(row.inputs[i], i, t, n, rng), t));
  }
  return out;
}

std::vector<std::size_t> real_inputs(const Row& row) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < row.inputs.size(); ++i)
    if (row.inputs[i].kind == In::Kind::real) out.push_back(i);
  return out;
}

}  // namespace

TEST_CASE("elementwise ops in every type") {
  REQUIRE(cuda::is_available());
  Tally tally;
  const std::vector<Row> rows = elementwise_rows();
  for (const Row& row : rows) {
    Rng rng = rng_for(row.name + " types");
    for (DType d : kTypes) {
      const std::string label = detail::str(row.name, " in ", d);
      const std::int64_t n = elements_for(row.inputs.size(), d);
      const Values dense = inputs_of(row, d, n + kRest, rng), even = inputs_of(row, d, n, rng);
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

TEST_CASE("gradients of elementwise ops in both types") {
  Tally tally;
  for (const Row& row : elementwise_rows()) {
    const Subject subject = subject_of(row);
    if (!differentiable(subject)) continue;
    Rng rng = rng_for(row.name + " gradients");
    for (DType d : {kFloat32, kFloat64}) {
      const std::string label = detail::str(row.name, " in ", d);
      const std::int64_t n = elements_for(row.inputs.size(), d);
      // The last argument is the gradient of the result.
      const Fn f = [&](const Values& v) {
        const Values inputs(v.begin(), v.end() - 1);
        return vjp(row.f, inputs, real_inputs(row), {v.back()}).second;
      };
      const auto with_cotangent = [&](std::int64_t elements) {
        Values v = inputs_of(row, d, elements, rng);
        v.push_back(to_tensor(sample(real({elements}), rng, d), d));
        return v;
      };
      const Values dense = with_cotangent(n + kRest), six = six_axes(with_cotangent(n));
      tally.check("dense", label,
                  [&] { return compare(f, dense, on_gpu(dense), d, row.tolerance); });
      for (std::int64_t rest = 1; rest < 16 / size_of(d); ++rest) {
        const Values few = with_cotangent(rest);
        tally.check("rest", label, [&] { return compare(f, few, on_gpu(few), d, row.tolerance); });
      }
      tally.check("strided", label,
                  [&] { return compare(f, six, padded_on_gpu(six), d, row.tolerance); });
    }
  }
  tally.print("gradients of elementwise rows", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("elementwise ops on every rest of a pack, and on every second element") {
  Tally tally;
  for (const Row& row : elementwise_rows()) {
    Rng rng = rng_for(row.name + " rests");
    for (DType t : kTypes) {
      if (is_half(t)) continue;
      const std::int64_t most = 16 / size_of(t);  // elements of a pack
      const Values all = inputs_of(row, t, 98, rng), gpu = on_gpu(all);
      const auto part = [](const Values& v, std::int64_t n, std::int64_t step) {
        Values out;
        for (const Tensor& x : v) out.push_back(x.dim() == 0 ? x : x.slice(0, 0, n, step));
        return out;
      };
      const auto check = [&](std::int64_t n, std::int64_t step) {
        return same_or_refused(row.f, part(all, n, step), part(gpu, n, step), t, row.tolerance);
      };
      const std::string label = detail::str(row.name, " in ", t);
      tally.check("rests", label, [&] {
        std::string problem;
        for (std::int64_t n = 1; n < most && problem.empty(); ++n) problem = check(n, 1);
        return problem;
      });
      tally.check("stepped", label, [&] { return check(98, 2); });
    }
  }
  tally.print("rests of packs", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("operations with a number in every type") {
  struct Operation {
    const char* name;
    Tensor (*f)(const Tensor&, Scalar);
  };
  const std::array operations = {
      Operation{"add", [](const Tensor& x, Scalar s) { return add(x, s); }},
      Operation{"rsub", [](const Tensor& x, Scalar s) { return rsub(x, s); }},
      Operation{"mul", [](const Tensor& x, Scalar s) { return mul(x, s); }},
      Operation{"div", [](const Tensor& x, Scalar s) { return div(x, s); }},
      Operation{"div trunc", [](const Tensor& x, Scalar s) { return div(x, s, "trunc"); }},
      Operation{"div floor", [](const Tensor& x, Scalar s) { return div(x, s, "floor"); }},
      Operation{"fmod", [](const Tensor& x, Scalar s) { return fmod(x, s); }},
      Operation{"remainder", [](const Tensor& x, Scalar s) { return remainder(x, s); }},
      Operation{"pow", [](const Tensor& x, Scalar s) { return pow(x, s); }},
      Operation{"pow of number", [](const Tensor& x, Scalar s) { return pow(s, x); }},
      Operation{"eq", [](const Tensor& x, Scalar s) { return eq(x, s); }},
      Operation{"lt", [](const Tensor& x, Scalar s) { return lt(x, s); }},
      Operation{"clamp", [](const Tensor& x, Scalar s) { return clamp_min(x, s); }},
      Operation{"lerp", [](const Tensor& x, Scalar s) { return lerp(x, x.flip(0), s); }},
      Operation{"elu", [](const Tensor& x, Scalar s) { return elu(x, s.to_double()); }},
      Operation{"softplus",
                [](const Tensor& x, Scalar s) { return softplus(x, s.to_double(), 3); }}};
  Tally tally;
  for (const Operation& op : operations)
    for (DType t : kTypes) {
      if (is_half(t)) continue;
      Rng rng = rng_for("numbers");
      const std::int64_t n = elements_for(1, t);
      const Tensor x = to_tensor(values(real({n}), 0, t, n, rng), t);
      std::vector<Scalar> numbers = {0, 1, -1, 2, -3, 5, true};
      if (is_floating(t))
        for (double v : {-2.0, 3.0, 0.7, -0.4, 1e30, -1e-40, double{INFINITY}, double{NAN}})
          numbers.push_back(v);
      for (Scalar s : numbers) {
        const Fn f = [&](const Values& v) { return list(op.f(v[0], s)); };
        const Values dense = {x}, six = six_axes(dense);
        tally.check(op.name, detail::str(s.to_double(), " in ", t), [&] {
          const std::string problem = same_or_refused(f, dense, on_gpu(dense), t, 4);
          return problem.empty() ? same_or_refused(f, six, padded_on_gpu(six), t, 4) : problem;
        });
      }
    }
  tally.print("operations with a number", 0);
  CHECK(tally.failed() == 0);
}

// ---- conversions and creation

TEST_CASE("conversions between all types") {
  Tally tally;
  for (DType from : kTypes)
    for (DType to : kTypes) {
      const std::string label = detail::str(from, " to ", to);
      const std::vector<double> special = special_values(from);
      const Tensor x =
          to_tensor(make({144},
                         [&](const Index& i) {
                           return special[static_cast<std::size_t>(i[0]) % special.size()];
                         }),
                    from);
      const Fn f = FN(v[0].to(to));
      tally.check("dense", label, [&] { return compare(f, {x}, on_gpu({x}), from, 1); });
      const Values six = six_axes(Values{x});
      tally.check("strided", label, [&] { return compare(f, six, padded_on_gpu(six), from, 1); });
    }
  tally.print("conversions", 0);
  CHECK(tally.failed() == 0);
}

TEST_CASE("copies and fills of all sizes of elements") {
  for (DType t : {kUInt8, kInt16, kFloat32, kFloat64}) {
    CAPTURE(t);
    const Tensor x = arange(144, kFloat32).to(t), six = six_axes(x);
    for (const Tensor& g : {padded_on_gpu(six), six.to(kCUDA).transpose(0, 5)}) {
      CHECK(equal(g.clone().cpu(), g.cpu()));
      const Tensor to = padded_on_gpu(g.cpu() + 1);
      to.copy_(g);
      CHECK(equal(to.cpu(), g.cpu()));
    }
    for (std::int64_t n = 1; n < 16 / size_of(t); ++n) {  // every rest of a pack, as [1, n]^T
      const Tensor few = x.narrow(0, 0, 2 * n).reshape({2, n}).to(kCUDA).t();
      const Tensor b = zeros({2, n}, TensorOptions(t).device(kCUDA)).t();
      b.copy_(few);
      CHECK(equal(b.cpu(), few.cpu()));
    }
    // Dense, but not in the order of the axes: one launch of packs.
    const Tensor a = x.narrow(0, 0, 143).reshape({11, 13}).to(kCUDA).t();
    const Tensor b = zeros({11, 13}, TensorOptions(t).device(kCUDA)).t();
    b.copy_(a);
    CHECK(equal(b.cpu(), a.cpu()));
    const Tensor filled = padded_on_gpu(six);
    filled.fill_(3);
    CHECK(equal(filled.cpu(), full_like(six, 3)));
    CHECK(equal(full({111}, 3, TensorOptions(t).device(kCUDA)).cpu(), full({111}, 3, t)));
  }
}

TEST_CASE("arange and linspace in every type") {
  for (DType t : kTypes) {
    CAPTURE(t);
    const auto same = [&](const Fn& f) { CHECK(compare(f, {}, {}, t, 1) == ""); };
    same([](const Values&) { return list(arange(3, 90, 2, creation_options())); });
    same([](const Values&) { return list(arange(0.5, 40.0, 0.75, creation_options())); });
    same([](const Values&) { return list(linspace(-3, 50, 41, creation_options())); });
  }
}

TEST_CASE("draws in every type, and in nested vmaps") {
  for (DType t : kTypes) {
    CAPTURE(t);
    const auto same = [&](const Fn& f) { CHECK(compare(f, {}, {}, t, 1) == ""); };
    if (t != kBool)
      same([](const Values&) { return list(randint(-5, 9, {111}, creation_options())); });
    same([](const Values&) { return list(bernoulli(zeros({111}, creation_options()), 0.3)); });
    if (!is_floating(t)) continue;
    same([](const Values&) { return list(rand({111}, creation_options())); });
    same([](const Values&) { return list(randn({111}, creation_options())); });
    const Values x = {to_tensor(make({2, 1, 2, 1, 1, 3, 4}, [](const Index&) { return 1.0; }), t)};
    VmapOptions differently;
    differently.randomness(Randomness::different);
    Fn f = FN(Values{randn_like(v[0]), dropout(v[0], 0.5)});
    for (int level = 0; level < 6; ++level)
      f = [=](const Values& v) { return vmap(f, {0}, v, 0, differently); };
    CHECK(compare(f, x, on_gpu(x), t, 1) == "");
  }
}
