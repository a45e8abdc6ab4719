// The checks of row_checks.h.
#include "row_checks.h"

#include <algorithm>
#include <set>

#include <tutti/func/compile.h>
#include <tutti/func/trace.h>

namespace tutti_test {

using namespace tutti;

namespace {

constexpr DType all_dtypes[] = {kBool,  kUInt8,   kInt8,     kInt16,   kInt32,
                                kInt64, kFloat16, kBFloat16, kFloat32, kFloat64};

bool is_real(const In& in) { return in.kind == In::Kind::real; }

DType dtype_of_input(const In& in, DType real_dtype) {
  return is_real(in) ? real_dtype : in.kind == In::Kind::boolean ? kBool : kInt64;
}

std::vector<std::size_t> real_inputs(const std::vector<In>& inputs) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (is_real(inputs[i])) out.push_back(i);
  return out;
}

Arrays samples(const std::vector<In>& inputs, Rng& rng, DType dtype = kFloat64) {
  Arrays out;
  for (const In& in : inputs) out.push_back(sample(in, rng, dtype));
  return out;
}

Values tensors(const std::vector<In>& inputs, const Arrays& a, DType dtype = kFloat64) {
  Values out;
  for (std::size_t i = 0; i < a.size(); ++i)
    out.push_back(to_tensor(a[i], dtype_of_input(inputs[i], dtype)));
  return out;
}

Index full_shape(const In& in) {
  Index s = in.outer;
  s.insert(s.end(), in.shape.begin(), in.shape.end());
  return s;
}

// What an output of this dtype may deviate from a reference in double.
double tolerance_of(DType t) {
  return t == kFloat64    ? 1e-12
         : t == kFloat32  ? 2e-6
         : t == kFloat16  ? 3e-3
         : t == kBFloat16 ? 2.5e-2
                          : 0;
}

DType expected_dtype(Gives g, DType d) {
  switch (g) {
    case Gives::same:
      return d;
    case Gives::boolean:
      return kBool;
    case Gives::int64:
      return kInt64;
    case Gives::float64:
      return kFloat64;
    case Gives::floating:
      return is_floating(d) ? d : kFloat32;
    case Gives::sum:
      break;
  }
  return is_floating(d) ? d : kInt64;
}

// The rounded or wrapped value an integer type holds.
void wrap(Array& a, DType t) {
  if (is_floating(t)) return;
  dispatch(t, [&]<class T>() {
    for (double& v : a.data) v = static_cast<double>(Scalar(static_cast<std::int64_t>(v)).to<T>());
  });
}

// "" if y is what `expected` says, in dtype and value.
std::string wrong(const Row& row, const Values& y, Arrays expected, DType d, double slack = 1) {
  if (y.size() != expected.size())
    return detail::str("number of outputs ", static_cast<unsigned long>(y.size()), ", expected ",
                       static_cast<unsigned long>(expected.size()));
  for (std::size_t o = 0; o < y.size(); ++o) {
    const DType t = expected_dtype(row.gives[std::min(o, row.gives.size() - 1)], d);
    if (y[o].dtype() != t)
      return detail::str("dtype ", name_of(y[o].dtype()), ", expected ", name_of(t));
    wrap(expected[o], t);
    const double tol =
        row.tolerance * slack * std::max(tolerance_of(t), is_floating(t) ? tolerance_of(d) : 0);
    const std::string problem = differs(to_array(y[o]), expected[o], tol, tol);
    if (!problem.empty()) return problem;
  }
  return {};
}

// f on these inputs in this dtype against the reference, which sees them as they were rounded.
std::string wrong_value(const Row& row, const Arrays& a, DType d, double slack = 1) {
  const Values x = tensors(row.inputs, a, d);
  const Arrays seen = to_arrays(x);
  return wrong(row, row.f(x), row.reference(seen), d, slack);
}

// Creation rows make tensors of another dtype or device meanwhile.
struct Creating {
  explicit Creating(const TensorOptions& o) : saved(creation_options()) { creation_options() = o; }
  ~Creating() { creation_options() = saved; }
  Creating(const Creating&) = delete;
  TensorOptions saved;
};

// ---- variants of a row

std::set<std::int64_t> free_sizes(const Row& row) {
  std::set<std::int64_t> out;
  if (!row.size_free) return out;
  if (row.sizes) return {row.sizes->begin(), row.sizes->end()};
  for (const In& in : row.inputs)
    for (std::int64_t s : in.shape)
      if (s > 1) out.insert(s);
  return out;
}

// The row with all axes of size `from` (0: all free sizes) made `to`.
Row resized(const Row& row, const std::set<std::int64_t>& from, std::int64_t to) {
  Row r = row;
  r.name += detail::str(" [size ", static_cast<long long>(to), " for");
  for (std::int64_t s : from) r.name += " " + std::to_string(s);
  r.name += "]";
  for (In& in : r.inputs)
    for (std::int64_t& s : in.shape)
      if (from.count(s)) s = to;
  return r;
}

// The elementwise row with other shapes, which broadcast.
Row broadcasting(const Row& row, Rng& rng) {
  static const std::vector<Index> shapes = {{2, 3}, {3},       {1, 3},    {2, 1},
                                            {},     {4, 1, 3}, {4, 2, 3}, {1}};
  Row r = row;
  r.name += " [broadcast";
  for (In& in : r.inputs) {
    in.shape = shapes[rng() % shapes.size()];
    r.name += detail::str(" ", IntArrayRef(in.shape));
  }
  r.name += "]";
  return r;
}

// ---- memory layouts

// A tensor with a's values and these strides (in elements) on memory that is otherwise -77.
Tensor with_strides(const Array& a, DType dtype, const Index& strides, std::int64_t offset,
                    std::int64_t elements) {
  Array memory{{elements},
               std::vector<double>(static_cast<std::size_t>(elements), dtype == kUInt8 ? 77 : -77)};
  each(a.shape, [&](const Index& i) {
    std::int64_t at = offset;
    for (std::size_t d = 0; d < i.size(); ++d) at += i[d] * strides[d];
    memory.data.at(static_cast<std::size_t>(at)) = a.at(i);
  });
  return as_strided(to_tensor(memory, dtype), a.shape, strides, offset);
}

enum class Layout { transposed, stepped, expanded };

// Strides of a layout; the number of elements of the memory.
std::pair<Index, std::int64_t> strides_of(const Index& shape, Layout layout) {
  Index strides(shape.size());
  std::int64_t n = 1;
  for (std::size_t k = 0; k < shape.size(); ++k) {
    const std::size_t d = layout == Layout::transposed ? k : shape.size() - 1 - k;
    const bool repeats = layout == Layout::expanded && (d + 1 == shape.size() || d == 0);
    strides[d] = repeats ? 0 : layout == Layout::stepped ? 2 * n : n;
    if (!repeats) n *= (layout == Layout::stepped ? 2 : 1) * std::max<std::int64_t>(shape[d], 1);
  }
  return {strides, n + 3};
}

// All inputs in this layout, and the same values in row-major order. Expanded ones repeat the
// elements at 0 along the first and last axis, unless that would break what they promise.
std::pair<Values, Values> laid_out(const std::vector<In>& inputs, Arrays a, DType d,
                                   Layout layout) {
  Values strided, plain;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const Index shape = a[i].shape;
    const bool repeats = !inputs[i].unique_axis && !inputs[i].is_near_identity;
    if (layout == Layout::expanded && repeats && !shape.empty())
      a[i] = make(shape, [&, x = a[i]](const Index& at) {
        Index j = at;
        j.front() = j.back() = 0;
        return x.at(j);
      });
    const auto kind = layout == Layout::expanded && !repeats ? Layout::transposed : layout;
    const auto [strides, elements] = strides_of(shape, kind);
    const DType t = dtype_of_input(inputs[i], d);
    strided.push_back(with_strides(a[i], t, strides, 2, elements));
    plain.push_back(to_tensor(a[i], t));
  }
  return {strided, plain};
}

// ---- groups of checks

void check_values(const Row& row, Tally& tally) {
  Rng rng = rng_for(row.name);
  const bool creates = row.inputs.empty();
  tally.check("value", row.name,
              [&] { return wrong_value(row, samples(row.inputs, rng), kFloat64); });

  if (!row.skipped("dtype") && (creates || !real_inputs(row.inputs).empty())) {
    for (DType d : all_dtypes) {
      if (d == kFloat64 || (d == kBool && !row.with_bool)) continue;
      if (is_integral(d) && !row.with_integers) continue;
      tally.check("dtype", row.name + " in " + name_of(d), [&]() -> std::string {
        Creating guard(d);
        if (is_half(d) && row.refuses_half) {
          try {
            row.f(tensors(row.inputs, samples(row.inputs, rng, d), d));
          } catch (const TypeError&) {
            return {};
          }
          return "was expected to be refused";
        }
        return wrong_value(row, samples(row.inputs, rng, d), d);
      });
    }
  }

  const auto sizes = free_sizes(row);
  std::vector<std::pair<std::set<std::int64_t>, std::int64_t>> changes;
  for (std::int64_t s : sizes)
    for (std::int64_t to : {0, 1, 37, 131}) changes.push_back({{s}, to});
  if (sizes.size() > 1)
    for (std::int64_t to : {0, 1, 9}) changes.push_back({sizes, to});
  for (const auto& [from, to] : changes) {
    const Row r = resized(row, from, to);
    for (DType d : {kFloat64, kFloat32}) {
      if (d != kFloat64 && (row.skipped("dtype") || real_inputs(row.inputs).empty())) continue;
      tally.check("size", r.name + " in " + name_of(d), [&, to = to] {
        const Arrays a = samples(r.inputs, rng, d);
        if (to == 0 && row.needs_elements) {  // either is right, a wrong shape is not
          try {
            r.f(tensors(r.inputs, a, d));
          } catch (const Error&) {
            return std::string();
          }
        }
        return wrong_value(r, a, d, to > 1 ? 20 : 1);
      });
    }
  }

  for (const auto& shapes : row.large_shapes) {
    Row r = row;
    r.name += " [large]";
    for (std::size_t i = 0; i < shapes.size(); ++i) r.inputs[i].shape = shapes[i];
    for (DType d : {kFloat64, kFloat32}) {
      if (d != kFloat64 && real_inputs(row.inputs).empty()) continue;
      tally.check("large", r.name + " in " + name_of(d),
                  [&] { return wrong_value(r, samples(r.inputs, rng, d), d, 100); });
    }
    std::int64_t elements = 0;
    for (const Index& shape : shapes) elements += count(shape);
    if (elements < 20000) check_vmap(subject_of(r), tally, 2, {3});
  }

  if (row.elementwise && row.inputs.size() > 1)
    for (int k = 0; k < 6; ++k) {
      const Row r = broadcasting(row, rng);
      tally.check("broadcast", r.name,
                  [&] { return wrong_value(r, samples(r.inputs, rng), kFloat64); });
    }

  if (row.accepts_specials) {
    static const std::vector<double> specials = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 1, -2.5};
    const auto n = static_cast<std::int64_t>(specials.size());
    for (DType d : {kFloat64, kFloat32})
      tally.check("specials", row.name, [&] {
        Row r = row;
        Arrays a;
        std::size_t period = 1;
        for (In& in : r.inputs) {  // all combinations
          in.shape = {r.inputs.size() == 1 ? n : n * n};
          if (!is_real(in)) {
            a.push_back(sample(in, rng));
            continue;
          }
          a.push_back(make(in.shape, [&](const Index& i) {
            return specials[static_cast<std::size_t>(i[0]) / period % specials.size()];
          }));
          period *= specials.size();
        }
        return wrong_value(r, a, d);
      });
  }
}

void check_layouts(const Row& row, Tally& tally) {
  if (row.inputs.empty() || row.skipped("layout")) return;
  Rng rng = rng_for(row.name + " layout");
  const auto sizes = free_sizes(row);
  std::vector<Row> rows{row};
  if (!sizes.empty()) rows.push_back(resized(row, {*sizes.rbegin()}, 19));
  for (const Row& r : rows)
    for (Layout layout : {Layout::transposed, Layout::stepped, Layout::expanded})
      for (DType d : {kFloat64, kFloat32})
        tally.check("layout", r.name, [&] {
          const auto [strided, plain] = laid_out(r.inputs, samples(r.inputs, rng, d), d, layout);
          const double tol = tolerance_of(d) * row.tolerance * 10;
          return differs(to_arrays(r.f(strided)), to_arrays(r.f(plain)), tol, tol);
        });
}

// torch.promote_types, written out.
DType promoted(DType a, DType b) {
  if (a == b) return a;
  auto rank = [](DType t) { return t == kBool ? 0 : is_floating(t) ? 2 : 1; };
  if (rank(a) != rank(b)) return rank(a) > rank(b) ? a : b;
  if (rank(a) == 2) return is_half(a) && is_half(b) ? kFloat32 : size_of(a) > size_of(b) ? a : b;
  const DType wide = size_of(a) > size_of(b) ? a : b, other = wide == a ? b : a;
  return size_of(wide) == size_of(other) ? kInt16 : wide;
}

// torch.result_type where `zero` is the dtype of a 0-d operand and `dim` of one with axes.
DType promoted_with_0d(DType dim, DType zero) {
  if (is_floating(dim)) return dim;
  return dim == kBool || is_floating(zero) ? promoted(dim, zero) : dim;
}

void check_promotion(const Row& row, Tally& tally) {
  if (!row.promotes) return;
  Rng rng = rng_for(row.name + " promotion");
  for (DType d : all_dtypes)
    for (DType e : all_dtypes) {
      if (!row.with_bool && d == kBool && e == kBool) continue;
      const std::string label = row.name + " of " + name_of(d) + " and " + name_of(e);
      tally.check("promotion", label, [&] {
        const Values x{to_tensor(sample(row.inputs[0], rng, d), d),
                       to_tensor(sample(row.inputs[1], rng, e), e)};
        const DType p = promoted(d, e);
        Arrays seen = to_arrays(x);
        for (std::size_t i = 0; i < seen.size(); ++i)  // operands are cast first
          seen[i] = to_array(to_tensor(
              seen[i], row.gives[0] == Gives::floating ? expected_dtype(Gives::floating, p) : p));
        return wrong(row, row.f(x), row.reference(seen), p);
      });
      if (!row.with_bool && d == kBool && e == kBool) continue;
      // A 0-d operand counts for less, also where it is 0-d only per example.
      tally.check("promotion", label + ", which is 0-d", [&]() -> std::string {
        In zero = row.inputs[1];
        zero.shape = {};
        const Values x{to_tensor(sample(row.inputs[0], rng, d), d),
                       to_tensor(sample(zero, rng, e), e)};
        const Values batched{tutti::stack({x[0], x[0]}), tutti::stack({x[1], x[1]})};
        const DType t = expected_dtype(row.gives[0], promoted_with_0d(d, e));
        for (const Tensor& y :
             {row.f(x)[0], row.f({x[1], x[0]})[0], vmap(row.f, {0, 0}, batched)[0],
              vmap(row.f, {std::nullopt, 0}, {x[0], batched[1]})[0]})
          if (y.dtype() != t) return detail::str("dtype ", y.dtype(), ", expected ", t);
        return {};
      });
    }
}

// Mapping in other dtypes, and the dtype and value of gradients in float32.
void check_other_dtypes(const Row& row, Tally& tally) {
  if (row.dynamic || row.skipped("dtype") || real_inputs(row.inputs).empty()) return;
  Rng rng = rng_for(row.name + " other dtypes");
  const Subject s = subject_of(row);
  for (DType d : {kFloat32, kBFloat16, kInt64, kUInt8, kBool}) {
    if ((d == kBool && !row.with_bool) || (is_integral(d) && !row.with_integers)) continue;
    if (is_half(d) && row.refuses_half) continue;
    tally.check("vmap", row.name + " in " + name_of(d), [&]() -> std::string {
      Arrays members[2];
      Values x;
      for (const In& in : s.inputs) {
        const Array a = sample(in, rng, d), b = sample(in, rng, d);
        members[0].push_back(a);
        members[1].push_back(b);
        x.push_back(to_tensor(stack({a, b}, 0, a.shape), dtype_of_input(in, d)));
      }
      const Values y = vmap(s.f, std::vector<Axis>(x.size(), 0), x, 0, s.options);
      for (int b = 0; b < 2; ++b) {
        const Values one = s.f(tensors(s.inputs, members[b], d));
        for (std::size_t o = 0; o < one.size(); ++o) {
          if (y[o].dtype() != one[o].dtype())
            return detail::str("dtype ", y[o].dtype(), ", expected ", one[o].dtype());
          const double tol = tolerance_of(d) * s.tolerance;
          const std::string problem =
              differs(member(to_array(y[o]), 0, b), to_array(one[o]), tol, tol);
          if (!problem.empty()) return problem;
        }
      }
      return {};
    });
  }
  if (row.is_random || !s.differences || !differentiable(s)) return;
  tally.check("vjp", row.name + " in float32", [&]() -> std::string {
    const Arrays a = to_arrays(tensors(s.inputs, samples(s.inputs, rng, kFloat32), kFloat32));
    auto gradients = [&](DType d) {
      const Values x = tensors(s.inputs, a, d);
      Values c;
      for (const Tensor& y : floating(s.f(x))) c.push_back(ones_like(y));
      return vjp(s.f, x, real_inputs(s.inputs), c).second;
    };
    const Values g = gradients(kFloat32), exact = gradients(kFloat64);
    for (const Tensor& t : g)
      if (t.dtype() != kFloat32) return detail::str("the gradient has dtype ", t.dtype());
    return differs(to_arrays(g), to_arrays(exact), 1e-4 * s.tolerance, 1e-4 * s.tolerance);
  });
}

void check_meta(const Row& row, Tally& tally) {
  if (row.skipped("meta")) return;
  Rng rng = rng_for(row.name + " meta");
  const Arrays a = samples(row.inputs, rng);
  const Values x = tensors(row.inputs, a);
  Values meta;
  for (const Tensor& t : x)
    meta.push_back(empty(t.sizes(), TensorOptions(t.dtype()).device(kMeta)));
  tally.check("meta", row.name, [&]() -> std::string {
    Values y;
    try {
      Creating guard(TensorOptions(kFloat64).device(kMeta));
      y = row.f(meta);
    } catch (const Error& e) {
      return row.dynamic ? "" : std::string("threw ") + e.what();
    }
    if (row.dynamic) return "was expected to be refused";
    const Values real_y = row.f(x);
    for (std::size_t o = 0; o < y.size(); ++o) {
      if (!y[o].is_meta() && !(row.inputs.empty() && y[o].dtype() == kInt64))
        return "is not on Meta";
      if (shape_of(y[o]) != shape_of(real_y[o]))
        return detail::str("shape ", y[o].sizes(), ", expected ", real_y[o].sizes());
      if (y[o].dtype() != real_y[o].dtype())
        return detail::str("dtype ", y[o].dtype(), ", expected ", real_y[o].dtype());
    }
    return {};
  });
}

// Does output 0 see a later change of its inputs? A view does, nothing else may, also where the
// inputs went through a transform.
void check_memory(const Row& row, Tally& tally) {
  const auto reals = real_inputs(row.inputs);
  if (reals.empty() || row.memory == Row::Memory::either) return;
  Rng rng = rng_for(row.name + " memory");
  auto inputs = [&] { return tensors(row.inputs, samples(row.inputs, rng)); };
  auto change = [](const Tensor& x) { x.mul_(-3).add_(11); };
  if (row.memory == Row::Memory::view) {
    if (reals[0] != 0) return;
    tally.check("memory", row.name, [&] {
      const Values x = inputs();
      const Tensor y = row.f(x)[0];
      change(x[0]);
      return differs(to_array(y), row.reference(to_arrays(x))[0], 0, 0);
    });
    return;
  }
  const Subject s = subject_of(row);
  auto unchanged = [&](const char* where, const std::function<Values(const Values&)>& f) {
    tally.check("memory", row.name + where, [&] {
      const Values x = inputs();
      const Values y = f(x);
      const Arrays before = to_arrays(y);
      for (std::size_t i : reals) change(x[i]);
      return differs(to_arrays(y), before, 0, 0);
    });
  };
  unchanged("", s.f);
  if (differentiable(s))
    unchanged(" in jvp", [&](const Values& x) {
      Values t;
      for (std::size_t i : reals) t.push_back(ones_like(x[i]));
      return jvp(s.f, x, reals, t).first;
    });
  if (row.dynamic) return;
  unchanged(" in vmap", [&](const Values& x) {
    Values batch;
    for (const Tensor& t : x) batch.push_back(t.unsqueeze(0));  // shares memory with t
    return vmap(s.f, std::vector<Axis>(x.size(), 0), batch, 0, s.options);
  });
}

// For views: the values of writing through the view, and of the view after a write to its base.
void check_view_writes(const Row& row, Tally& tally) {
  if (row.memory != Row::Memory::view) return;
  Rng rng = rng_for(row.name + " view");
  const auto subjects = writing_subjects(row);
  const Subject &through = subjects[0], &old = subjects[1];
  auto mapped = [](Array a) {
    for (double& x : a.data) x = x * x + 1;
    return a;
  };
  const Arrays a = samples(row.inputs, rng);
  tally.check("view", through.label, [&] {
    Arrays places = a;  // which elements the view shows
    for (std::size_t i = 0; i < places[0].data.size(); ++i)
      places[0].data[i] = static_cast<double>(i);
    const Array shown = row.reference(places)[0];
    Arrays expected{a[0], mapped(row.reference(a)[0])};
    for (double i : shown.data) {
      double& x = expected[0].data.at(static_cast<std::size_t>(i));
      x = x * x + 1;
    }
    return differs(to_arrays(through.f(tensors(row.inputs, a))), expected, 1e-12, 1e-12);
  });
  tally.check("view", old.label, [&] {
    Arrays b = a;
    b[0] = mapped(b[0]);
    return differs(to_arrays(old.f(tensors(row.inputs, a))), {row.reference(b)[0]}, 1e-12, 1e-12);
  });
}

void check_in_place(const Row& row, Tally& tally) {
  if (!row.in_place) return;
  Rng rng = rng_for(row.name + " in place");
  const std::string label = row.name + " [in place]";
  tally.check("in-place", label, [&]() -> std::string {
    Values x = tensors(row.inputs, samples(row.inputs, rng));
    const Array expected = to_array(row.f(x)[0]);
    const Values y = row.in_place(x);
    if (!y[0].is_same(x[0])) return "it does not return its argument";
    return differs(to_array(x[0]), expected, 1e-12, 1e-12);
  });
  for (Layout layout : {Layout::transposed, Layout::stepped})
    tally.check("in-place", label + " on a strided tensor", [&]() -> std::string {
      auto [strided, plain] = laid_out(row.inputs, samples(row.inputs, rng), kFloat64, layout);
      const Array expected = to_array(row.f(plain)[0]);
      // The memory between the elements must stay as it is.
      const auto [strides, elements] = strides_of(shape_of(strided[0]), layout);
      const Tensor memory = as_strided(strided[0], elements, 1, 0);
      row.in_place(strided);
      const std::string problem = differs(to_array(strided[0]), expected, 1e-12, 1e-12);
      if (!problem.empty()) return problem;
      const Array all = to_array(
          with_strides(expected, kFloat64, strides, 2, elements).as_strided(elements, 1, 0));
      return differs(to_array(memory), all, 1e-12, 1e-12);
    });
  if (row.inputs.size() > 1 && row.elementwise)
    tally.check("in-place", label + " keeps its dtype", [&]() -> std::string {
      const Arrays a = samples(row.inputs, rng);
      Values x = tensors(row.inputs, a);
      x[0] = to_tensor(a[0], kFloat32);
      const Array expected = to_array(row.f(x)[0]);
      row.in_place(x);
      if (x[0].dtype() != kFloat32) return "the dtype changed";
      return differs(to_array(x[0]), expected, 2e-6, 2e-6);
    });
}

// What vmap's modes say about draws. The function is made to ignore nothing but a batched dummy.
void check_random(const Row& row, Tally& tally) {
  if (!row.is_random) return;
  Rng rng = rng_for(row.name + " random");
  const Values x = tensors(row.inputs, samples(row.inputs, rng));
  const Fn f = [&](const Values&) { return row.f(x); };
  auto seeded = [&](std::uint64_t seed, const Fn& g, const Values& v) {
    manual_seed(seed);
    return to_arrays(g(v));
  };
  auto mapped = [&](const Fn& g, Randomness r, std::optional<std::int64_t> chunk = std::nullopt) {
    return Fn([=](const Values& v) {
      return vmap(g, {Axis(0)}, v, 0, VmapOptions().randomness(r).chunk_size(chunk));
    });
  };
  auto dummy = [](const Index& shape) { return Values{zeros(shape, kFloat64)}; };
  const Arrays once = seeded(5, f, {});
  auto same_data = [](const Array& a, const Array& b) { return a.data == b.data; };

  tally.check("random", row.name + " [seed]", [&]() -> std::string {
    if (!differs(seeded(5, f, {}), once, 0, 0).empty()) return "the same seed gave other values";
    if (same_data(to_arrays(f({}))[0], once[0])) return "the next draw repeats the first";
    if (same_data(seeded(6, f, {})[0], once[0])) return "another seed gave the same values";
    const DType t = f({})[0].dtype(), expected = expected_dtype(row.gives[0], kFloat64);
    if (t != expected) return detail::str("dtype ", t, ", expected ", expected);
    return {};
  });
  tally.check("random", row.name + " [error]", [&]() -> std::string {
    try {
      mapped(f, Randomness::error)(dummy({3}));
    } catch (const TransformError& e) {
      return std::string(e.what()).find("random") != std::string::npos ? "" : e.what();
    }
    return "was not refused";
  });
  tally.check("random", row.name + " [same]", [&]() -> std::string {
    const Arrays y = seeded(5, mapped(f, Randomness::same), dummy({3}));
    for (int b = 0; b < 3; ++b)
      if (!same_data(member(y[0], 0, b), once[0])) return "a member differs from the plain draw";
    return {};
  });
  tally.check("random", row.name + " [different]", [&]() -> std::string {
    const Arrays y = seeded(5, mapped(f, Randomness::different), dummy({5}));
    for (int b = 0; b < 5; ++b)
      for (int c = 0; c < b; ++c)
        if (same_data(member(y[0], 0, b), member(y[0], 0, c))) return "two members are the same";
    const Arrays next = to_arrays(mapped(f, Randomness::different)(dummy({5})));
    if (same_data(next[0], y[0])) return "the next draws repeat the first";
    for (std::int64_t chunk : {1, 2, 5, 9})
      if (!differs(seeded(5, mapped(f, Randomness::different, chunk), dummy({5})), y, 0, 0).empty())
        return detail::str("chunk_size ", static_cast<long long>(chunk), " changes the draws");
    return {};
  });
  tally.check("random", row.name + " [nested]", [&]() -> std::string {
    using R = Randomness;
    auto nested = [&](R outer, R inner) {
      return seeded(5, mapped(mapped(f, inner), outer), dummy({2, 3}))[0];
    };
    const Array dd = nested(R::different, R::different), ds = nested(R::different, R::same),
                sd = nested(R::same, R::different);
    auto at = [](const Array& a, int i, int j) { return member(member(a, 0, i), 0, j); };
    for (int i = 0; i < 6; ++i)
      for (int j = 0; j < i; ++j)
        if (same_data(at(dd, i / 3, i % 3), at(dd, j / 3, j % 3)))
          return "different/different repeats";
    if (!same_data(at(ds, 0, 0), at(ds, 0, 1)) || same_data(at(ds, 0, 0), at(ds, 1, 0)))
      return "different outside, same inside";
    if (same_data(at(sd, 0, 0), at(sd, 0, 1)) || !same_data(at(sd, 0, 2), at(sd, 1, 2)))
      return "same outside, different inside";
    return {};
  });
  if (!x.empty() && !row.skipped("vmap"))
    tally.check("random", row.name + " [batched inputs]", [&]() -> std::string {
      Values b;
      for (const Tensor& t : x)
        b.push_back(t.unsqueeze(0).expand([&] {
          Index s = shape_of(t);
          s.insert(s.begin(), 3);
          return s;
        }()));
      manual_seed(5);
      const Array y = to_array(vmap(row.f, std::vector<Axis>(x.size(), 0), b, 0,
                                    VmapOptions().randomness(Randomness::different))[0]);
      if (same_data(member(y, 0, 0), member(y, 0, 1))) return "two members are the same";
      return {};
    });
}

std::string axes_text(const std::vector<Axis>& axes) {
  std::string s = " [in_dims";
  for (const Axis& a : axes) s += a ? " " + std::to_string(*a) : " -";
  return s + "]";
}

// All choices of (not mapped, first, last) per input but "none at all"; a sample where they are
// more than `limit`, which always has "all first".
std::vector<std::vector<int>> axis_choices(std::size_t inputs, std::size_t limit, Rng& rng) {
  std::vector<std::vector<int>> out{std::vector<int>(inputs, 1)};
  std::size_t total = 1;
  for (std::size_t i = 0; i < inputs && total < 100000; ++i) total *= 3;
  auto choice = [&](std::size_t code) {
    std::vector<int> c(inputs);
    for (int& x : c) {
      x = static_cast<int>(code % 3);
      code /= 3;
    }
    return c;
  };
  if (total - 1 <= limit) {
    for (std::size_t code = 1; code < total; ++code)
      if (choice(code) != out[0]) out.push_back(choice(code));
  } else {
    while (out.size() < limit) out.push_back(choice(1 + rng() % (total - 1)));
  }
  return out;
}

}  // namespace

// ---- subjects

Subject subject_of(const Row& row) {
  Subject s;
  s.label = row.name;
  s.inputs = row.inputs;
  s.f = row.f;
  s.tolerance = row.tolerance;
  s.differences = !row.skipped("difference");
  s.base = !row.skipped("backward");
  if (row.is_random) {
    s.f = [f = row.f](const Values& v) {
      manual_seed(7);
      return f(v);
    };
    s.options.randomness(Randomness::same);
  }
  if (row.inputs.empty()) {
    s.inputs = {real({2})};
    s.f = [f = s.f](const Values&) { return f({}); };
  }
  return s;
}

std::vector<Subject> writing_subjects(const Row& row) {
  std::vector<Subject> out;
  if (row.memory == Row::Memory::view) {
    Subject through = subject_of(row), old = through;
    through.label += " [written through]";
    through.f = [f = row.f](const Values& v) {
      Values x = v;
      x[0] = v[0] * 1;
      const Tensor w = f(x)[0];
      w.mul_(w).add_(1);
      return Values{x[0], w};
    };
    old.label += " [base written]";
    old.f = [f = row.f](const Values& v) {
      Values x = v;
      x[0] = v[0] * 1;
      const Tensor w = f(x)[0];
      x[0].mul_(x[0]).add_(1);
      return Values{w};
    };
    out = {through, old};
  }
  if (row.in_place) {
    Subject s = subject_of(row);
    s.label += " [in place]";
    s.oracle = row.f;
    s.f = [g = row.in_place](const Values& v) {
      Values x = v;
      x[0] = v[0].clone();
      g(x);
      return Values{x[0]};
    };
    out.push_back(s);
  }
  return out;
}

bool differentiable(const Subject& s) {
  Rng rng = rng_for(s.label);
  return !real_inputs(s.inputs).empty() &&
         !floating(s.f(tensors(s.inputs, samples(s.inputs, rng)))).empty();
}

void check_derivatives(const Subject& s, Tally& tally) {
  Rng rng = rng_for(s.label + " derivatives");
  const auto wrt = real_inputs(s.inputs);
  if (wrt.empty()) return;
  const Values x = tensors(s.inputs, samples(s.inputs, rng));
  Values t;
  for (std::size_t i : wrt) t.push_back(to_tensor(sample(real(shape_of(x[i])), rng), kFloat64));
  Values y;
  tally.check("forward", s.label, [&] {
    y = floating(s.f(x));
    return differs(to_arrays(y), to_arrays(floating(s.meaning()(x))), 1e-12 * s.tolerance,
                   1e-12 * s.tolerance);
  });
  if (y.empty()) return;
  Values c;
  for (const Tensor& o : y) c.push_back(to_tensor(sample(real(shape_of(o)), rng), o.dtype()));
  const double exact = 1e-10 * s.tolerance;

  Arrays tangent;
  tally.check("jvp", s.label, [&] {
    const auto [value, dy] = jvp(s.f, x, wrt, t);
    tangent = to_arrays(dy);
    std::string problem = differs(to_arrays(value), to_arrays(y), exact, exact);
    if (problem.empty() && s.differences) {
      double scale = 1;
      for (const Array& o : to_arrays(y))
        for (double v : o.data) scale = std::max(scale, std::isfinite(v) ? std::abs(v) : 0);
      problem = differs(tangent, central_difference(s.meaning(), x, wrt, t), 2e-6,
                        2e-6 * scale * s.tolerance);
    }
    return problem;
  });
  tally.check("linearize", s.label, [&] {
    return differs(to_arrays(linearized(s.f, x, wrt, t)), tangent, exact, exact);
  });
  Arrays gradients;
  tally.check("vjp", s.label, [&]() -> std::string {
    const auto [value, g] = vjp(s.f, x, wrt, c);
    gradients = to_arrays(g);
    const std::string problem = differs(to_arrays(value), to_arrays(y), exact, exact);
    if (!problem.empty() || tangent.empty()) return problem;
    for (std::size_t k = 0; k < wrt.size(); ++k)
      if (gradients[k].shape != shape_of(x[wrt[k]]))
        return "a gradient has another shape than its input";
    const double forward = inner(to_arrays(c), tangent), backward = inner(gradients, to_arrays(t));
    const double tol =
        (y[0].dtype() == kFloat32 ? 1e-5 : 1e-8) * (1 + std::abs(forward)) * s.tolerance;
    // The derivative of a NaN, such as the mean of nothing, is not compared.
    if (!std::isnan(forward) && !(std::abs(forward - backward) <= tol))
      return detail::str("<c, J t> is ", forward, " by jvp and ", backward, " by vjp");
    return {};
  });
  if (gradients.empty() || !s.base) return;
  tally.check("backward", s.label, [&] {
    return differs(to_arrays(base_gradients(s.f, x, wrt, c)), gradients, exact, exact);
  });
}

void check_vmap(const Subject& s, Tally& tally, std::size_t limit,
                const std::vector<std::int64_t>& sizes) {
  Rng rng = rng_for(s.label + " vmap");
  const double tol = 1e-10 * s.tolerance;
  bool first = true;
  for (const auto& choice : axis_choices(s.inputs.size(), limit, rng)) {
    for (std::int64_t size : sizes) {
      Values x;
      std::vector<Axis> axes;
      for (std::size_t i = 0; i < choice.size(); ++i) {
        const In& in = s.inputs[i];
        const auto rank = full_shape(in).size();
        const std::size_t axis = choice[i] == 2 ? rank : 0;
        const Array a = choice[i] == 0 ? sample(in, rng) : sample_batch(in, axis, size, rng);
        x.push_back(to_tensor(a, dtype_of_input(in, kFloat64)));
        if (choice[i] == 0)
          axes.push_back(std::nullopt);
        else  // the last axis is counted from either end
          axes.push_back(choice[i] == 2 && rng() % 2 ? -1 : static_cast<std::int64_t>(axis));
      }
      const std::string label = s.label + axes_text(axes) + " B " + std::to_string(size);
      Arrays expected;
      tally.check("vmap", label, [&]() -> std::string {
        const Values y = vmap(s.f, axes, x, 0, s.options);
        if (size > 0) {
          expected = loop(s.meaning(), axes, x);
          return differs(to_arrays(y), expected, tol, tol);
        }
        const Values one = s.meaning()(tensors(s.inputs, samples(s.inputs, rng)));
        for (std::size_t o = 0; o < one.size(); ++o) {
          Index shape = shape_of(one[o]);
          shape.insert(shape.begin(), 0);
          if (shape_of(y[o]) != shape || y[o].dtype() != one[o].dtype())
            return detail::str("gives ", y[o].sizes(), " ", y[o].dtype(), ", expected ",
                               IntArrayRef(shape), " ", one[o].dtype());
        }
        return {};
      });
      if (!first || size < 2 || expected.empty()) continue;
      first = false;
      tally.check("vmap", label + " out_dims -1", [&] {
        const Values y = vmap(s.f, axes, x, -1, s.options);
        for (Array& a : expected) {
          Index order;
          for (std::int64_t d = 1; d < a.rank(); ++d) order.push_back(d);
          order.push_back(0);
          a = permuted(a, order);
        }
        return differs(to_arrays(y), expected, tol, tol);
      });
      tally.check("vmap", label + " chunk_size 2", [&] {
        VmapOptions options = s.options;
        const Values y = vmap(s.f, axes, x, -1, options.chunk_size(2));
        return differs(to_arrays(y), expected, tol, tol);
      });
    }
  }
}

void check_compiled(const Subject& s, Tally& tally, DType d) {
  Rng rng = rng_for(s.label + " compiled");
  const double tol = d == kFloat64 ? 1e-10 * s.tolerance : tolerance_of(d) * s.tolerance;
  tally.check("compiled", s.label + " in " + name_of(d), [&]() -> std::string {
    const auto g = func::compile([&](const Values& x) { return s.f(x); });
    for (int k = 0; k < 2; ++k) {  // the second run finds the recording
      const Arrays a = samples(s.inputs, rng, d);
      const Values x = tensors(s.inputs, a, d), copies = tensors(s.inputs, a, d);
      const Values expected = s.f(x), y = g(copies);
      for (std::size_t o = 0; o < y.size(); ++o)
        if (y[o].dtype() != expected[o].dtype())
          return detail::str("gives ", y[o].dtype(), ", expected ", expected[o].dtype());
      std::string problem = differs(to_arrays(y), to_arrays(expected), tol, tol);
      if (problem.empty()) problem = differs(to_arrays(copies), to_arrays(x), tol, tol);
      if (!problem.empty()) return (k == 0 ? "" : "at the second call: ") + problem;
    }
    return g.recordings() == 1 ? "" : "was recorded again for the same signature";
  });
}

Subject jvp_of(const Subject& s) {
  Subject out = s;
  out.label += " > jvp";
  out.oracle = {};
  out.differences = s.differences;
  const auto wrt = real_inputs(s.inputs);
  for (std::size_t i : wrt) out.inputs.push_back(real(full_shape(s.inputs[i])));
  out.f = [f = s.f, wrt, n = s.inputs.size()](const Values& v) {
    const auto split = v.begin() + static_cast<std::ptrdiff_t>(n);
    return jvp(f, Values(v.begin(), split), wrt, Values(split, v.end())).second;
  };
  return out;
}

Subject vjp_of(const Subject& s) {
  Subject out = s;
  out.label += " > vjp";
  out.oracle = {};
  Rng rng = rng_for(s.label);
  for (const Tensor& y : floating(s.f(tensors(s.inputs, samples(s.inputs, rng)))))
    out.inputs.push_back(real(shape_of(y)));
  out.f = [f = s.f, wrt = real_inputs(s.inputs), n = s.inputs.size()](const Values& v) {
    const auto split = v.begin() + static_cast<std::ptrdiff_t>(n);
    return vjp(f, Values(v.begin(), split), wrt, Values(split, v.end())).second;
  };
  return out;
}

Subject vmap_of(const Subject& s, bool last) {
  Subject out = s;
  out.label += last ? " > vmap last" : " > vmap";
  out.oracle = {};
  for (In& in : out.inputs) in.outer.insert(in.outer.begin(), 2);
  out.f = [f = s.f, last, options = s.options](const Values& v) {
    Values x = v;
    if (last)
      for (Tensor& t : x) t = t.movedim(0, -1);
    return vmap(f, std::vector<Axis>(v.size(), last ? -1 : 0), x, 0, options);
  };
  return out;
}

Subject jacobian_of(const Subject& s, bool forward) {
  Subject out = jvp_of(s);
  out.oracle = out.f;
  if (!s.differences) out.tolerance *= 1e5;  // unit vectors may round otherwise in float32
  out.label = s.label + (forward ? " > jacfwd" : " > jacrev");
  out.f = [f = s.f, forward, wrt = real_inputs(s.inputs), n = s.inputs.size(),
           options = JacOptions().randomness(s.options.randomness())](const Values& v) {
    const auto split = v.begin() + static_cast<std::ptrdiff_t>(n);
    return jacobian_times(forward, f, Values(v.begin(), split), wrt, Values(split, v.end()),
                          options);
  };
  return out;
}

// ---- rows

void check_row(const Row& row, Tally& tally) {
  if (row.reference) {
    check_values(row, tally);
    check_layouts(row, tally);
    check_promotion(row, tally);
    check_memory(row, tally);
    check_view_writes(row, tally);
  }
  check_meta(row, tally);
  check_random(row, tally);
  check_in_place(row, tally);

  for (const Subject& w : writing_subjects(row)) {
    check_derivatives(w, tally);
    check_vmap(w, tally, 30, {1, 3});
    check_compiled(w, tally);
  }
  const Subject s = subject_of(row);
  check_derivatives(s, tally);
  check_other_dtypes(row, tally);
  if (differentiable(s) && !row.dynamic) {
    for (const Subject& second : {vjp_of(s), jacobian_of(s, false), jacobian_of(s, true)})
      check_derivatives(second, tally);
  }
  if (row.dynamic) {
    tally.check("refused", row.name, [&]() -> std::string {
      Rng rng = rng_for(row.name);
      Values x;
      for (const In& in : row.inputs)
        x.push_back(to_tensor(sample_batch(in, 0, 3, rng), dtype_of_input(in, kFloat64)));
      try {
        vmap(row.f, std::vector<Axis>(x.size(), 0), x);
      } catch (const TransformError&) {
        return {};
      }
      return "vmap was expected to refuse it";
    });
    tally.check("refused", row.name + " [compile]", [&]() -> std::string {
      Rng rng = rng_for(row.name);
      try {
        func::compile([&](const Values& x) { return row.f(x); })(
            tensors(row.inputs, samples(row.inputs, rng)));
      } catch (const TransformError&) {
        return {};
      }
      return "compile was expected to refuse it";
    });
    return;
  }
  if (!row.is_random) {  // their functions set the seed, which is not recorded
    for (const DType d : {kFloat64, kFloat32, kBFloat16, kInt64}) {
      const bool plain = d == kFloat64 || !(row.skipped("dtype") || row.inputs.empty());
      if (plain && !(is_half(d) && row.refuses_half) && !(is_integral(d) && !row.with_integers))
        check_compiled(s, tally, d);
    }
    check_compiled(vmap_of(s), tally);
    tutti::detail::set_block_members(2);  // blocks and a rest
    check_compiled(vmap_of(s, true), tally);
    tutti::detail::set_lanes(tutti::detail::Lanes::always);
    check_compiled(vmap_of(s, true), tally);
    if (differentiable(s)) check_compiled(vmap_of(vjp_of(s)), tally);
    tutti::detail::set_lanes(tutti::detail::Lanes::automatic);
    if (differentiable(s)) {
      check_compiled(jvp_of(s), tally);
      check_compiled(vjp_of(s), tally);
      check_compiled(vmap_of(vjp_of(s)), tally);
      check_compiled(vjp_of(vmap_of(s)), tally);
    }
    tutti::detail::set_block_members(0);
  }
  check_vmap(s, tally, 30, {0, 1, 3});
  check_vmap(s, tally, 1, {40});
  check_vmap(vmap_of(s, true), tally, 4, {3});
  check_vmap(vmap_of(s), tally, 2, {0, 3});

  // The sizes 0 and 1, and broadcasting, also under transforms.
  const auto sizes = free_sizes(row);
  std::vector<Row> variants;
  for (std::int64_t size : sizes)
    for (std::int64_t to : {0, 1})
      if (to > 0 || !row.needs_elements) variants.push_back(resized(row, {size}, to));
  Rng rng = rng_for(row.name + " variants");
  if (row.elementwise && row.inputs.size() > 1)
    for (int k = 0; k < 3; ++k) variants.push_back(broadcasting(row, rng));
  for (const Row& r : variants) {
    const Subject v = subject_of(r);
    check_derivatives(v, tally);
    check_vmap(v, tally, 3, {2});
  }
}

namespace {
constexpr int over_vmap = 2;  // among the transforms
Subject transformed(const Subject& s, int which, bool last) {
  return which == 0           ? jvp_of(s)
         : which == 1         ? vjp_of(s)
         : which == over_vmap ? vmap_of(s, last)
                              : jacobian_of(s, which == 4);
}
}  // namespace

void check_nested(const Row& row, int which, Tally& tally, std::size_t limit) {
  if (row.dynamic) return;
  auto subjects = writing_subjects(row);
  subjects.push_back(subject_of(row));
  for (const Subject& s : subjects) check_nested(s, which, tally, limit);
}

void check_nested(const Subject& s, int which, Tally& tally, std::size_t limit) {
  if (which != over_vmap && !differentiable(s)) return;
  const Subject inner = transformed(s, which, rng_for(s.label)() % 2);
  check_derivatives(inner, tally);
  check_vmap(inner, tally, limit, {3});
  // The transforms of the inner one are differentiated and mapped in turn.
  for (int outer = 0; outer < transforms; ++outer) {
    if (outer != over_vmap && !differentiable(inner)) continue;
    const Subject both = transformed(inner, outer, false);
    check_derivatives(both, tally);
    check_vmap(both, tally, std::min<std::size_t>(limit, 4), {3});
  }
}

void check_chain(const Row& row, Rng& rng, Tally& tally) {
  if (row.dynamic) return;
  Subject s = subject_of(row);
  for (int depth = 0; depth < 3; ++depth) {
    const int which = differentiable(s) ? static_cast<int>(rng() % transforms) : over_vmap;
    s = transformed(s, which, rng() % 2);
  }
  check_derivatives(s, tally);
  check_vmap(s, tally, 2, {2});
}

}  // namespace tutti_test
