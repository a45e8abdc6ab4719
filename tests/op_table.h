// The op table: one row (or several, where its forms differ) per public op, with sample inputs, a
// reference in plain C++, and what is special about it. row_checks.h runs every check on every row.
//
// To add an op: add a row to the op_table_*.cpp file named like the file in core/ops/ that defines
// it. test_op_index fails until that is done.
#pragma once
#include "check.h"

namespace tutti_test {

/// How to sample one input, per example.
struct In {
  enum class Kind { real, index, boolean } kind = Kind::real;
  Index shape;
  double lo = -1.5, hi = 1.5;       // real: range; integers are drawn between these, too
  double frac_lo = 0, frac_hi = 0;  // real, if set: only fractions between these
  bool is_distinct = false;         // real: no two elements closer than 1 / (2 n) of the range
  bool is_near_identity = false;    // real: matrices I + small, invertible at every size
  std::vector<double> avoid;        // real: stays 0.05 away from these
  std::int64_t classes = 0;         // index: 0..classes-1
  std::optional<std::int64_t> unique_axis;  // index: no repeats along this axis
  Index outer;                              // leading axes of independent examples

  /// Keeps away from kinks.
  In& away(std::vector<double> points) {
    avoid = std::move(points);
    return *this;
  }
};
In real(Index shape, double lo = -1.5, double hi = 1.5);
In positive(Index shape);
/// No ties.
In distinct(Index shape);
/// Whole part at random, fraction between lo and hi: away from integers, and from other fractions.
In fraction(Index shape, double lo, double hi);
/// Matrices [..., m, n] close to the identity: well conditioned, and their symmetric parts positive
/// definite.
In near_identity(Index shape);
In indices(Index shape, std::int64_t classes);
In unique_indices(Index shape, std::int64_t classes, std::int64_t axis);
In mask(Index shape);

Array sample(const In& in, Rng& rng, DType dtype = tutti::kFloat64);
/// `size` examples stacked along `axis`.
Array sample_batch(const In& in, std::size_t axis, std::int64_t size, Rng& rng);

using Reference = std::function<Arrays(const Arrays&)>;

/// Dtype of a result, where the real inputs have dtype d.
enum class Gives {
  same,  // d
  boolean,
  int64,
  float64,
  floating,  // d, or float32 for integers
  sum        // d, or int64 for integers and bool
};

struct Row {
  std::string name;
  std::vector<std::string> ops;  // names in core/ops.h this row stands for
  std::vector<In> inputs;
  Fn f;
  Reference reference;

  std::vector<Gives> gives{Gives::same};  // the last stands for all further outputs
  bool with_integers = false, with_bool = false;
  double tolerance = 1;  // factor on all tolerances
  bool size_free = true;
  std::optional<std::vector<std::int64_t>> sizes;  // may be renamed in all inputs; unset: all
  bool needs_elements = false;                     // size 0 may be refused
  std::vector<std::vector<Index>> large_shapes;    // of all inputs: where kernels change method
  bool elementwise = false;                        // broadcasts
  bool promotes = false;
  bool accepts_specials = false;  // nan, inf, 0
  bool refuses_half = false;      // half types are a TypeError
  bool is_random = false;
  enum class Memory { own, view, either } memory = Memory::own;  // of the first output
  const char* dynamic = nullptr;                                 // why Vmap and Meta refuse it
  Fn in_place;                                                   // changes inputs[0]
  std::vector<std::pair<std::string, std::string>> skips;        // check, reason

  Row& ref(Reference r) {
    reference = std::move(r);
    return *this;
  }
  Row& also(std::initializer_list<const char*> names) {
    ops.insert(ops.end(), names.begin(), names.end());
    return *this;
  }
  Row& result(std::vector<Gives> g) {
    gives = std::move(g);
    return *this;
  }
  /// Runs on integer dtypes, too.
  Row& ints() {
    with_integers = true;
    return *this;
  }
  Row& all_types() {
    with_integers = with_bool = true;
    return *this;
  }
  Row& loose(double factor) {
    tolerance = factor;
    return *this;
  }
  /// f works for these shapes only.
  Row& fixed() {
    size_free = false;
    return *this;
  }
  /// Only these sizes may be replaced by others.
  Row& flex(std::vector<std::int64_t> s) {
    sizes = std::move(s);
    return *this;
  }
  /// Runs with these shapes, too: one list for all inputs each time.
  Row& large(std::vector<std::vector<Index>> shapes) {
    large_shapes = std::move(shapes);
    return *this;
  }
  Row& nonempty() {
    needs_elements = true;
    return *this;
  }
  Row& broadcasts() {
    elementwise = true;
    return *this;
  }
  /// The result dtype is promote_types of all inputs (or bool).
  Row& promoting() {
    promotes = true;
    return broadcasts();
  }
  Row& specials() {
    accepts_specials = true;
    return *this;
  }
  Row& no_half() {
    refuses_half = true;
    return *this;
  }
  Row& random() {
    is_random = true;
    return *this;
  }
  /// Output 0 is a view of input 0 that can be written through.
  Row& view() {
    memory = Memory::view;
    return *this;
  }
  /// Output 0 may share memory with input 0.
  Row& shares() {
    memory = Memory::either;
    return *this;
  }
  Row& refused(const char* reason) {
    dynamic = reason;
    return *this;
  }
  Row& inplace(const char* op, Fn g) {
    ops.push_back(op);
    in_place = std::move(g);
    return *this;
  }
  Row& skip(std::string check, std::string reason) {
    skips.emplace_back(std::move(check), std::move(reason));
    return *this;
  }
  bool skipped(std::string_view check) const {
    for (const auto& s : skips)
      if (s.first == check) return true;
    return false;
  }
};

/// All rows, in the order of core/ops.h; composite rows last.
const std::vector<Row>& table();
/// The rows to run: all, or those whose name or op is in TUTTI_ROW.
std::vector<Row> selected_rows();

class Table {
 public:
  /// The op is the first word of the name.
  Row& row(std::string name, std::vector<In> inputs, Fn f);
  std::vector<Row> rows;
};
void create_rows(Table& t);
void random_rows(Table& t);
void view_rows(Table& t);
void index_rows(Table& t);
void unary_rows(Table& t);
void binary_rows(Table& t);
void reduce_rows(Table& t);
void class_loss_rows(Table& t);
void norm_rows(Table& t);
void matmul_rows(Table& t);
void linalg_rows(Table& t);
void composite_rows(Table& t);

/// What creation rows pass on: the checks set dtype and device.
tutti::TensorOptions& creation_options();

// ---- writing rows

inline Values list(const Tensor& t) { return {t}; }
inline Values list(const Values& v) { return v; }
inline Values list(const std::tuple<Tensor, Tensor>& t) { return {std::get<0>(t), std::get<1>(t)}; }
inline Values list(const std::tuple<Tensor, Tensor, Tensor>& t) {
  return {std::get<0>(t), std::get<1>(t), std::get<2>(t)};
}
inline Values list(const std::pair<Tensor, Tensor>& t) { return {t.first, t.second}; }
inline Arrays list(const Array& a) { return {a}; }
inline Arrays list(const Arrays& a) { return a; }

/// A function of the inputs v.
#define FN(...) ([=](const Values& v [[maybe_unused]]) { return list(__VA_ARGS__); })
/// The same as a block.
#define BLOCK(...) ([=](const Values& v [[maybe_unused]]) { return list([&] __VA_ARGS__()); })
/// A reference from the input arrays a.
#define REF(...) ([=](const Arrays& a [[maybe_unused]]) { return list(__VA_ARGS__); })
/// An elementwise reference in terms of the elements x, y, z of up to three inputs, broadcast.
#define MAP(...)                                                         \
  (elementwise([=](double x [[maybe_unused]], double y [[maybe_unused]], \
                   double z [[maybe_unused]]) { return static_cast<double>(__VA_ARGS__); }))

Reference elementwise(std::function<double(double, double, double)> f);
/// Reduces axes (none: all) of the first input by f, which sees the elements in row-major order.
using Lines = std::vector<double>;
Array reduced(const Array& a, Index axes, bool keepdim,
              const std::function<double(const Lines&)>& f);
/// Replaces each line along an axis by f(line), which may have another length.
Array along(const Array& a, std::int64_t axis, const std::function<Lines(const Lines&)>& f);
Array permuted(const Array& a, const Index& axes);
Array reshaped(const Array& a, Index shape);
/// a[..., start + k * step, ...] along an axis.
Array sliced(const Array& a, std::int64_t axis, std::int64_t start, std::int64_t length,
             std::int64_t step = 1);
Array selected(const Array& a, std::int64_t axis, std::int64_t i);
/// Product of stacks of matrices, broadcasting the stacks.
Array matrix_product(const Array& a, const Array& b);

inline double total(const Lines& v) {
  double s = 0;
  for (double x : v) s += x;
  return s;
}
inline double largest(const Lines& v) {
  double m = -INFINITY;
  for (double x : v) m = std::isnan(x) || x > m ? x : m;
  return m;
}
inline double smallest(const Lines& v) {
  double m = INFINITY;
  for (double x : v) m = std::isnan(x) || x < m ? x : m;
  return m;
}

}  // namespace tutti_test
