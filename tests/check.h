// Oracles for the op table: plain arrays of doubles with index arithmetic, comparison, central
// differences, vmap as a literal loop, and a tally of checks. Nothing here computes with the engine
// but the function under test.
#pragma once
#include <cmath>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include <tutti/autograd/autograd.h>
#include <tutti/core/ops.h>
#include <tutti/func/jacobian.h>
#include <tutti/func/transforms.h>

namespace tutti_test {

using tutti::DType;
using tutti::Tensor;
using Index = std::vector<std::int64_t>;
using Values = std::vector<Tensor>;
/// A function under test, from a list of tensors to a list of tensors.
using Fn = std::function<Values(const Values&)>;

/// A dense row-major array: what references compute with.
struct Array {
  Index shape;
  std::vector<double> data;

  std::int64_t rank() const { return static_cast<std::int64_t>(shape.size()); }
  std::int64_t size(std::int64_t axis) const;
  /// The element at a full index; negative entries count from the end.
  double at(std::span<const std::int64_t> i) const;
  double& at(std::span<const std::int64_t> i);
  double at(std::initializer_list<std::int64_t> i) const { return at(std::span(i)); }
  double& at(std::initializer_list<std::int64_t> i) { return at(std::span(i)); }
};
using Arrays = std::vector<Array>;

std::int64_t count(const Index& shape);
/// An array filled by f(index).
Array make(const Index& shape, const std::function<double(const Index&)>& f);
/// Calls f for every index of a shape, in row-major order.
void each(const Index& shape, const std::function<void(const Index&)>& f);
Index broadcast(const Index& a, const Index& b);
/// Element i of an array broadcast to a larger shape.
double at_broadcast(const Array& a, const Index& i);
/// Arrays of one shape, joined along a new axis.
Array stack(const Arrays& parts, std::size_t axis, const Index& part_shape);
/// Member b along an axis, which disappears.
Array member(const Array& a, std::size_t axis, std::int64_t b);

Array to_array(const Tensor& t);
Arrays to_arrays(const Values& v);
Tensor to_tensor(const Array& a, DType dtype);
inline Index shape_of(const Tensor& t) { return t.sizes().vec(); }

/// "" if shapes are equal and |a - b| <= atol + rtol |b| everywhere (NaN equals NaN), else what
/// differs.
std::string differs(const Array& a, const Array& b, double rtol, double atol);
std::string differs(const Arrays& a, const Arrays& b, double rtol, double atol);
inline bool close(const Tensor& a, const Tensor& b, double tol = 1e-6) {
  return a.dtype() == b.dtype() && differs(to_array(a), to_array(b), tol, tol).empty();
}

/// (f(xs + h ts) - f(xs - h ts)) / 2h for the float64 inputs `wrt`; one tangent each.
Arrays central_difference(const Fn& f, const Values& xs, const std::vector<std::size_t>& wrt,
                          const Values& ts);
double inner(const Arrays& a, const Arrays& b);

using Axis = std::optional<std::int64_t>;
/// What vmap over `axes` must give: f on every member, stacked at the front.
Arrays loop(const Fn& f, const std::vector<Axis>& axes, const Values& xs);

// The transforms on lists of tensors. Derivatives are with respect to the inputs `wrt`, and of the
// floating outputs only.
Values floating(const Values& v);
std::pair<Values, Values> jvp(const Fn& f, const Values& xs, const std::vector<std::size_t>& wrt,
                              const Values& ts);
/// The tangents by linearize.
Values linearized(const Fn& f, const Values& xs, const std::vector<std::size_t>& wrt,
                  const Values& ts);
/// The tangents by the whole Jacobian, from jacfwd or jacrev.
Values jacobian_times(bool forward, const Fn& f, const Values& xs,
                      const std::vector<std::size_t>& wrt, const Values& ts,
                      const tutti::JacOptions& options);
/// Outputs, and the gradients of sum(outputs * cotangents).
std::pair<Values, Values> vjp(const Fn& f, const Values& xs, const std::vector<std::size_t>& wrt,
                              const Values& cotangents);
Values vmap(const Fn& f, const std::vector<Axis>& axes, const Values& xs, tutti::Dims out_dims = 0,
            const tutti::VmapOptions& options = {});
/// The gradients backward() leaves in the leaves; zeros where there are none.
Values base_gradients(const Fn& f, const Values& xs, const std::vector<std::size_t>& wrt,
                      const Values& cotangents);

using Rng = std::mt19937_64;
/// Seed of this run: TUTTI_SEED, or 1.
std::uint64_t run_seed();
/// A generator for one row, the same wherever the row stands in the table.
Rng rng_for(const std::string& name);
double uniform(Rng& rng, double lo, double hi);
std::int64_t integer(Rng& rng, std::int64_t lo, std::int64_t hi);  // both included

/// Counts checks by kind; a failed one is reported to doctest with its label, its kind and the
/// seed.
class Tally {
 public:
  /// `body` returns "" or what is wrong; throwing is wrong too.
  void check(const std::string& kind, const std::string& label,
             const std::function<std::string()>& body);
  void count(const std::string& kind, const std::string& label, const std::string& problem);
  void print(const char* title, std::size_t rows) const;
  std::int64_t failed() const { return failed_; }
  std::int64_t checks() const;

 private:
  std::map<std::string, std::int64_t> counts_;
  std::int64_t failed_ = 0;
};

}  // namespace tutti_test
