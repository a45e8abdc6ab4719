// Sampling, the helpers references are written with, and the table itself.
#include "op_table.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace tutti_test {

using namespace tutti;

// ---- inputs

In real(Index shape, double lo, double hi) {
  In in;
  in.shape = std::move(shape);
  in.lo = lo;
  in.hi = hi;
  return in;
}
In positive(Index shape) { return real(std::move(shape), 0.4, 2.4); }
In distinct(Index shape) {
  In in = real(std::move(shape));
  in.is_distinct = true;
  return in;
}
In fraction(Index shape, double lo, double hi) {
  In in = real(std::move(shape), -3, 3);
  in.frac_lo = lo;
  in.frac_hi = hi;
  return in;
}
In near_identity(Index shape) {
  In in = real(std::move(shape));
  in.is_near_identity = true;
  return in;
}
In indices(Index shape, std::int64_t classes) {
  In in = real(std::move(shape));
  in.kind = In::Kind::index;
  in.classes = classes;
  return in;
}
In unique_indices(Index shape, std::int64_t classes, std::int64_t axis) {
  In in = indices(std::move(shape), classes);
  in.unique_axis = axis;
  return in;
}
In mask(Index shape) {
  In in = real(std::move(shape));
  in.kind = In::Kind::boolean;
  return in;
}

namespace {

// 0..n-1 in random order.
std::vector<std::int64_t> shuffled(std::int64_t n, Rng& rng) {
  std::vector<std::int64_t> p(static_cast<std::size_t>(n));
  std::iota(p.begin(), p.end(), 0);
  for (std::size_t i = p.size(); i > 1; --i) std::swap(p[i - 1], p[rng() % i]);
  return p;
}

double sample_integer(const In& in, Rng& rng, DType dtype) {
  std::int64_t lo = in.lo == -1.5 ? -4 : static_cast<std::int64_t>(std::ceil(in.lo));
  std::int64_t hi = in.hi == 1.5 ? 5 : static_cast<std::int64_t>(std::floor(in.hi));
  if (dtype == kUInt8 || dtype == kBool) lo = std::max<std::int64_t>(lo, 0);
  if (dtype == kBool) hi = 1;
  return static_cast<double>(integer(rng, std::min(lo, hi), hi));
}

double sample_real(const In& in, Rng& rng) {
  while (true) {
    double v = uniform(rng, in.lo, in.hi);
    if (in.frac_hi > 0) v = std::floor(v) + uniform(rng, in.frac_lo, in.frac_hi);
    if (std::none_of(in.avoid.begin(), in.avoid.end(),
                     [&](double p) { return std::abs(v - p) < 0.05; }))
      return v;
  }
}

Array sample_one(const In& in, Rng& rng, DType dtype) {
  if (in.kind == In::Kind::boolean)
    return make(in.shape, [&](const Index&) { return static_cast<double>(rng() & 1); });
  if (in.kind == In::Kind::index && in.unique_axis) {
    const auto axis = static_cast<std::size_t>(*in.unique_axis);
    Array a = make(in.shape, [](const Index&) { return 0.0; });
    Index lines = in.shape;
    if (count(in.shape) > 0) lines[axis] = 1;
    each(lines, [&](const Index& i) {
      const auto order = shuffled(in.classes, rng);
      Index j = i;
      for (j[axis] = 0; j[axis] < in.shape[axis]; ++j[axis])
        a.at(j) = static_cast<double>(order[static_cast<std::size_t>(j[axis])]);
    });
    return a;
  }
  if (in.kind == In::Kind::index)
    return make(in.shape,
                [&](const Index&) { return static_cast<double>(integer(rng, 0, in.classes - 1)); });
  if (in.is_distinct && dtype != kBool) {
    const std::int64_t n = count(in.shape);
    const auto order = shuffled(n, rng);
    std::size_t at = 0;
    const double shift = dtype == kUInt8 ? 0 : static_cast<double>(n / 2);
    return make(in.shape, [&](const Index&) {
      const auto k = static_cast<double>(order[at++]);
      if (!is_floating(dtype)) return k - shift;
      return in.lo + (in.hi - in.lo) * (k + uniform(rng, 0.3, 0.7)) / static_cast<double>(n);
    });
  }
  if (in.is_near_identity) {
    const std::size_t row = in.shape.size() - 2, column = row + 1;
    const auto size = static_cast<double>(std::max(in.shape[row], in.shape[column]));
    return make(in.shape, [&](const Index& i) {
      return (i[row] == i[column] ? 1 : 0) + sample_real(in, rng) / (3 * std::sqrt(size));
    });
  }
  return make(in.shape, [&](const Index&) {
    return is_floating(dtype) ? sample_real(in, rng) : sample_integer(in, rng, dtype);
  });
}

}  // namespace

Array sample(const In& in, Rng& rng, DType dtype) {
  if (in.outer.empty()) return sample_one(in, rng, dtype);
  In part = in;
  part.outer.erase(part.outer.begin());
  Index shape = part.outer;
  shape.insert(shape.end(), in.shape.begin(), in.shape.end());
  Arrays parts;
  for (std::int64_t i = 0; i < in.outer[0]; ++i) parts.push_back(sample(part, rng, dtype));
  return stack(parts, 0, shape);
}

Array sample_batch(const In& in, std::size_t axis, std::int64_t size, Rng& rng) {
  Index shape = in.outer;
  shape.insert(shape.end(), in.shape.begin(), in.shape.end());
  Arrays parts;
  for (std::int64_t i = 0; i < size; ++i) parts.push_back(sample(in, rng));
  return stack(parts, axis, shape);
}

// ---- references

Reference elementwise(std::function<double(double, double, double)> f) {
  return [f = std::move(f)](const Arrays& a) -> Arrays {
    Index shape;
    for (const Array& x : a) shape = broadcast(shape, x.shape);
    auto element = [&](std::size_t k, const Index& i) {
      return k < a.size() ? at_broadcast(a[k], i) : 0;
    };
    return {make(shape,
                 [&](const Index& i) { return f(element(0, i), element(1, i), element(2, i)); })};
  };
}

Array reduced(const Array& a, Index axes, bool keepdim,
              const std::function<double(const Lines&)>& f) {
  std::vector<bool> gone(a.shape.size(), axes.empty());
  for (std::int64_t axis : axes)
    gone[static_cast<std::size_t>(axis < 0 ? axis + a.rank() : axis)] = true;
  Index inner, outer, result;
  for (std::size_t d = 0; d < gone.size(); ++d) {
    inner.push_back(gone[d] ? a.shape[d] : 1);
    outer.push_back(gone[d] ? 1 : a.shape[d]);
    if (!gone[d] || keepdim) result.push_back(outer[d]);
  }
  Array out = make(outer, [&](const Index& o) {
    Lines line;
    each(inner, [&](const Index& i) {
      Index at(i.size());
      for (std::size_t d = 0; d < at.size(); ++d) at[d] = o[d] + i[d];
      line.push_back(a.at(at));
    });
    return f(line);
  });
  out.shape = result;
  return out;
}

Array along(const Array& a, std::int64_t axis, const std::function<Lines(const Lines&)>& f) {
  if (a.shape.empty()) return {{}, f(a.data)};
  const auto d = static_cast<std::size_t>(axis < 0 ? axis + a.rank() : axis);
  Index outer = a.shape, shape = a.shape;
  outer[d] = 1;
  shape[d] = static_cast<std::int64_t>(f(Lines(static_cast<std::size_t>(a.shape[d]), 1.0)).size());
  Array out = make(shape, [](const Index&) { return 0.0; });
  each(outer, [&](const Index& o) {
    Index i = o;
    Lines line;
    for (i[d] = 0; i[d] < a.shape[d]; ++i[d]) line.push_back(a.at(i));
    const Lines result = f(line);
    for (i[d] = 0; i[d] < shape[d]; ++i[d]) out.at(i) = result[static_cast<std::size_t>(i[d])];
  });
  return out;
}

Array permuted(const Array& a, const Index& axes) {
  Index shape;
  for (std::int64_t axis : axes) shape.push_back(a.size(axis));
  return make(shape, [&](const Index& i) {
    Index j(i.size());
    for (std::size_t d = 0; d < i.size(); ++d)
      j[static_cast<std::size_t>(axes[d] < 0 ? axes[d] + a.rank() : axes[d])] = i[d];
    return a.at(j);
  });
}

Array reshaped(const Array& a, Index shape) { return {std::move(shape), a.data}; }

Array sliced(const Array& a, std::int64_t axis, std::int64_t start, std::int64_t length,
             std::int64_t step) {
  return along(a, axis, [=](const Lines& v) {
    Lines out;
    for (std::int64_t k = 0; k < length; ++k)
      out.push_back(v[static_cast<std::size_t>(start + k * step)]);
    return out;
  });
}

Array selected(const Array& a, std::int64_t axis, std::int64_t i) {
  const auto n = a.size(axis);
  Array out = sliced(a, axis, i < 0 ? i + n : i, 1);
  out.shape.erase(out.shape.begin() +
                  static_cast<std::ptrdiff_t>(axis < 0 ? axis + a.rank() : axis));
  return out;
}

Array matrix_product(const Array& a, const Array& b) {
  const std::size_t ra = a.shape.size(), rb = b.shape.size();
  Index shape = broadcast(Index(a.shape.begin(), a.shape.end() - 2),
                          Index(b.shape.begin(), b.shape.end() - 2));
  shape.push_back(a.shape[ra - 2]);
  shape.push_back(b.shape[rb - 1]);
  return make(shape, [&](const Index& i) {
    Index ia(i.end() - static_cast<std::ptrdiff_t>(ra), i.end());
    Index ib(i.end() - static_cast<std::ptrdiff_t>(rb), i.end());
    for (std::size_t d = 0; d + 2 < ra; ++d) ia[d] = a.shape[d] == 1 ? 0 : ia[d];
    for (std::size_t d = 0; d + 2 < rb; ++d) ib[d] = b.shape[d] == 1 ? 0 : ib[d];
    double sum = 0;
    for (std::int64_t k = 0; k < a.shape[ra - 1]; ++k) {
      ia[ra - 1] = ib[rb - 2] = k;
      sum += a.at(ia) * b.at(ib);
    }
    return sum;
  });
}

// ---- the table

TensorOptions& creation_options() {
  static TensorOptions options = kFloat64;
  return options;
}

Row& Table::row(std::string name, std::vector<In> inputs, Fn f) {
  Row r;
  r.ops.push_back(name.substr(0, name.find(' ')));
  r.name = std::move(name);
  r.inputs = std::move(inputs);
  r.f = std::move(f);
  rows.push_back(std::move(r));
  return rows.back();
}

const std::vector<Row>& table() {
  static const std::vector<Row> rows = [] {
    Table t;
    create_rows(t);
    random_rows(t);
    view_rows(t);
    index_rows(t);
    unary_rows(t);
    binary_rows(t);
    reduce_rows(t);
    class_loss_rows(t);
    norm_rows(t);
    matmul_rows(t);
    linalg_rows(t);
    composite_rows(t);
    return std::move(t.rows);
  }();
  return rows;
}

std::vector<Row> selected_rows() {
  const char* wanted = std::getenv("TUTTI_ROW");
  if (!wanted) return table();
  std::vector<Row> out;
  for (const Row& r : table())
    if (r.name == wanted || std::find(r.ops.begin(), r.ops.end(), wanted) != r.ops.end())
      out.push_back(r);
  return out;
}

}  // namespace tutti_test
