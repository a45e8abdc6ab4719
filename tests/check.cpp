// The oracles of check.h.
#include "check.h"

#include <cstdio>
#include <cstdlib>

#include "test.h"

namespace tutti_test {

using namespace tutti;

// ---- arrays

std::int64_t count(const Index& shape) {
  std::int64_t n = 1;
  for (std::int64_t s : shape) n *= s;
  return n;
}

std::int64_t Array::size(std::int64_t axis) const {
  return shape.at(static_cast<std::size_t>(axis < 0 ? axis + rank() : axis));
}

namespace {
std::size_t offset_of(const Index& shape, std::span<const std::int64_t> i) {
  std::int64_t at = 0;
  for (std::size_t d = 0; d < shape.size(); ++d)
    at = at * shape[d] + (i[d] < 0 ? i[d] + shape[d] : i[d]);
  return static_cast<std::size_t>(at);
}
}  // namespace

double Array::at(std::span<const std::int64_t> i) const { return data.at(offset_of(shape, i)); }
double& Array::at(std::span<const std::int64_t> i) { return data.at(offset_of(shape, i)); }

void each(const Index& shape, const std::function<void(const Index&)>& f) {
  Index i(shape.size(), 0);
  for (std::int64_t n = count(shape); n > 0; --n) {
    f(i);
    for (std::size_t d = shape.size(); d-- > 0;) {
      if (++i[d] < shape[d]) break;
      i[d] = 0;
    }
  }
}

Array make(const Index& shape, const std::function<double(const Index&)>& f) {
  Array a{shape, {}};
  a.data.reserve(static_cast<std::size_t>(count(shape)));
  each(shape, [&](const Index& i) { a.data.push_back(f(i)); });
  return a;
}

Index broadcast(const Index& a, const Index& b) {
  Index out = a.size() < b.size() ? b : a;
  const Index& shorter = a.size() < b.size() ? a : b;
  for (std::size_t k = 1; k <= shorter.size(); ++k) {
    std::int64_t& s = out[out.size() - k];
    if (s == 1) s = shorter[shorter.size() - k];
  }
  return out;
}

double at_broadcast(const Array& a, const Index& i) {
  Index j(a.shape.size());
  for (std::size_t k = 1; k <= j.size(); ++k)
    j[j.size() - k] = a.shape[j.size() - k] == 1 ? 0 : i[i.size() - k];
  return a.at(j);
}

Array stack(const Arrays& parts, std::size_t axis, const Index& part_shape) {
  Index shape = part_shape;
  shape.insert(shape.begin() + static_cast<std::ptrdiff_t>(axis),
               static_cast<std::int64_t>(parts.size()));
  return make(shape, [&](const Index& i) {
    Index j = i;
    j.erase(j.begin() + static_cast<std::ptrdiff_t>(axis));
    return parts[static_cast<std::size_t>(i[axis])].at(j);
  });
}

Array member(const Array& a, std::size_t axis, std::int64_t b) {
  Index shape = a.shape;
  shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(axis));
  return make(shape, [&](const Index& i) {
    Index j = i;
    j.insert(j.begin() + static_cast<std::ptrdiff_t>(axis), b);
    return a.at(j);
  });
}

Array to_array(const Tensor& t) { return {shape_of(t), t.to_vector<double>()}; }

Arrays to_arrays(const Values& v) {
  Arrays out;
  for (const Tensor& t : v) out.push_back(to_array(t));
  return out;
}

Tensor to_tensor(const Array& a, DType dtype) {
  Tensor t = empty(a.shape, dtype);
  dispatch(dtype, [&]<class T>() {
    T* p = t.data_ptr<T>();
    for (std::size_t i = 0; i < a.data.size(); ++i) p[i] = Scalar(a.data[i]).to<T>();
  });
  return t;
}

// ---- comparison

std::string differs(const Array& a, const Array& b, double rtol, double atol) {
  if (a.shape != b.shape)
    return detail::str("shape ", IntArrayRef(a.shape), ", expected ", IntArrayRef(b.shape));
  for (std::size_t i = 0; i < a.data.size(); ++i) {
    const double x = a.data[i], y = b.data[i];
    const bool same = x == y || (std::isnan(x) && std::isnan(y)) ||
                      (std::isfinite(x) && std::abs(x - y) <= atol + rtol * std::abs(y));
    if (!same)
      return detail::str("element ", static_cast<unsigned long>(i), " of ", IntArrayRef(a.shape),
                         ": ", x, ", expected ", y);
  }
  return {};
}

std::string differs(const Arrays& a, const Arrays& b, double rtol, double atol) {
  if (a.size() != b.size())
    return detail::str("number of tensors ", static_cast<unsigned long>(a.size()), ", expected ",
                       static_cast<unsigned long>(b.size()));
  for (std::size_t i = 0; i < a.size(); ++i) {
    const std::string problem = differs(a[i], b[i], rtol, atol);
    if (!problem.empty())
      return detail::str("output ", static_cast<unsigned long>(i), ": ", problem.c_str());
  }
  return {};
}

// ---- oracles

Arrays central_difference(const Fn& f, const Values& xs, const std::vector<std::size_t>& wrt,
                          const Values& ts) {
  const double h = 1e-5;
  auto at = [&](double step) {
    Values moved = xs;
    for (std::size_t k = 0; k < wrt.size(); ++k) {
      Array x = to_array(xs[wrt[k]]);
      const Array t = to_array(ts[k]);
      for (std::size_t i = 0; i < x.data.size(); ++i) x.data[i] += step * t.data[i];
      moved[wrt[k]] = to_tensor(x, xs[wrt[k]].dtype());
    }
    return to_arrays(floating(f(moved)));
  };
  Arrays up = at(h);
  const Arrays down = at(-h);
  for (std::size_t o = 0; o < up.size(); ++o)
    for (std::size_t i = 0; i < up[o].data.size(); ++i)
      up[o].data[i] = (up[o].data[i] - down[o].data[i]) / (2 * h);
  return up;
}

double inner(const Arrays& a, const Arrays& b) {
  double sum = 0;
  for (std::size_t o = 0; o < a.size(); ++o)
    for (std::size_t i = 0; i < a[o].data.size(); ++i) sum += a[o].data.at(i) * b[o].data.at(i);
  return sum;
}

Arrays loop(const Fn& f, const std::vector<Axis>& axes, const Values& xs) {
  std::int64_t n = 0;
  std::vector<Axis> at = axes;
  for (std::size_t i = 0; i < xs.size(); ++i) {
    if (!at[i]) continue;
    if (*at[i] < 0) *at[i] += xs[i].dim();
    n = xs[i].size(*at[i]);
  }
  std::vector<Arrays> outputs;  // [output][member]
  for (std::int64_t b = 0; b < n; ++b) {
    Values v;
    for (std::size_t i = 0; i < xs.size(); ++i)
      v.push_back(at[i] ? to_tensor(member(to_array(xs[i]), static_cast<std::size_t>(*at[i]), b),
                                    xs[i].dtype())
                        : xs[i].clone());
    const Arrays y = to_arrays(f(v));
    outputs.resize(y.size());
    for (std::size_t o = 0; o < y.size(); ++o) outputs[o].push_back(y[o]);
  }
  Arrays out;
  for (const Arrays& members : outputs) out.push_back(stack(members, 0, members[0].shape));
  return out;
}

// ---- transforms

Values floating(const Values& v) {
  Values out;
  for (const Tensor& t : v)
    if (t.is_floating_point()) out.push_back(t);
  return out;
}

namespace {
Values pick(const Values& xs, const std::vector<std::size_t>& which) {
  Values out;
  for (std::size_t i : which) out.push_back(xs[i]);
  return out;
}
// f of the inputs `wrt` alone; the others are captured.
auto in_terms_of(const Fn& f, const Values& xs, const std::vector<std::size_t>& wrt) {
  return [&](const Values& some) {
    Values all = xs;
    for (std::size_t k = 0; k < wrt.size(); ++k) all[wrt[k]] = some[k];
    return floating(f(all));
  };
}
}  // namespace

std::pair<Values, Values> jvp(const Fn& f, const Values& xs, const std::vector<std::size_t>& wrt,
                              const Values& ts) {
  return func::jvp(in_terms_of(f, xs, wrt), std::tuple<Values>(pick(xs, wrt)),
                   std::tuple<Values>(ts));
}

Values linearized(const Fn& f, const Values& xs, const std::vector<std::size_t>& wrt,
                  const Values& ts) {
  return func::linearize(in_terms_of(f, xs, wrt), pick(xs, wrt)).second(ts);
}

Values jacobian_times(bool forward, const Fn& f, const Values& xs,
                      const std::vector<std::size_t>& wrt, const Values& ts,
                      const JacOptions& options) {
  auto g = [h = in_terms_of(f, xs, wrt)](const Values& v) {
    Values y = h(v);
    return std::pair(y, y);
  };
  const auto [jac, y] = forward ? func::jacfwd(g, func::has_aux, options)(pick(xs, wrt))
                                : func::jacrev(g, func::has_aux, options)(pick(xs, wrt));
  Values out;
  for (std::size_t k = 0; k < y.size(); ++k) {
    Tensor sum = zeros_like(y[k]);
    for (std::size_t j = 0; j < ts.size(); ++j) {
      Tensor part = jac[k][j] * ts[j];
      if (ts[j].dim() > 0) part = part.flatten(y[k].dim()).sum(-1);
      sum = sum + part.to(y[k].dtype());
    }
    out.push_back(sum);
  }
  return out;
}

std::pair<Values, Values> vjp(const Fn& f, const Values& xs, const std::vector<std::size_t>& wrt,
                              const Values& cotangents) {
  auto [y, pull] = func::vjp(in_terms_of(f, xs, wrt), pick(xs, wrt));
  return {y, std::get<0>(pull(cotangents))};
}

Values vmap(const Fn& f, const std::vector<Axis>& axes, const Values& xs, Dims out_dims,
            const VmapOptions& options) {
  std::vector<Dims> per_tensor;
  for (const Axis& a : axes) per_tensor.emplace_back(a);
  const std::vector<Dims> per_argument(1, Dims(per_tensor));
  return func::vmap(f, Dims(per_argument), std::move(out_dims), options)(xs);
}

Values base_gradients(const Fn& f, const Values& xs, const std::vector<std::size_t>& wrt,
                      const Values& cotangents) {
  Values leaves = xs;
  for (std::size_t i : wrt) leaves[i] = xs[i].clone().requires_grad_();
  const Values y = floating(f(leaves));
  Values outputs, seeds;
  for (std::size_t o = 0; o < y.size(); ++o) {
    if (!y[o].requires_grad()) continue;
    outputs.push_back(y[o]);
    seeds.push_back(cotangents[o]);
  }
  if (!outputs.empty()) autograd::backward(outputs, seeds);
  Values grads;
  for (std::size_t i : wrt)
    grads.push_back(leaves[i].grad().defined() ? leaves[i].grad() : zeros_like(xs[i]));
  return grads;
}

// ---- random inputs

std::uint64_t run_seed() {
  const char* s = std::getenv("TUTTI_SEED");
  return s ? std::strtoull(s, nullptr, 10) : 1;
}

Rng rng_for(const std::string& name) {
  std::uint64_t h = 1469598103934665603u ^ run_seed();  // FNV-1a
  for (char c : name) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return Rng(h);
}

double uniform(Rng& rng, double lo, double hi) {
  return lo + (hi - lo) * (static_cast<double>(rng() >> 11) * 0x1p-53);
}

std::int64_t integer(Rng& rng, std::int64_t lo, std::int64_t hi) {
  return lo + static_cast<std::int64_t>(rng() % static_cast<std::uint64_t>(hi - lo + 1));
}

// ---- tally

void Tally::count(const std::string& kind, const std::string& label, const std::string& problem) {
  ++counts_[kind];
  if (problem.empty()) return;
  ++failed_;
  FAIL_CHECK("row \"" << label << "\", check " << kind << ", seed " << run_seed() << ": "
                      << problem);
}

void Tally::check(const std::string& kind, const std::string& label,
                  const std::function<std::string()>& body) {
  std::string problem;
  try {
    problem = body();
  } catch (const std::exception& e) {
    problem = std::string("threw ") + e.what();
  }
  count(kind, label, problem);
}

std::int64_t Tally::checks() const {
  std::int64_t n = 0;
  for (const auto& entry : counts_) n += entry.second;
  return n;
}

namespace {
std::string grouped(std::int64_t n) {
  std::string s = std::to_string(n);
  for (std::size_t at = s.size(); at > 3; at -= 3) s.insert(at - 3, ",");
  return s;
}
}  // namespace

void Tally::print(const char* title, std::size_t rows) const {
  for (const auto& [kind, n] : counts_)
    std::printf("  %-12s %10s\n", kind.c_str(), grouped(n).c_str());
  std::printf("%s: %zu rows, %s checks, %s failed\n", title, rows, grouped(checks()).c_str(),
              grouped(failed_).c_str());
}

}  // namespace tutti_test
