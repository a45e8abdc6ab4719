// What is done to a graph between recording and running.
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <unordered_map>

#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/gemm.h>
#include <tutti/core/ops.h>
#include <tutti/core/ops/records.h>
#include <tutti/func/graph.h>

namespace tutti::detail {

// ---- graphs

std::int64_t GraphValue::span() const {
  if (numel() == 0) return 0;
  std::int64_t n = 1;
  for (std::size_t d = 0; d < sizes.size(); ++d) n += (sizes[d] - 1) * strides[d];
  return n * size_of(dtype);
}

int Graph::add_value(Shape sizes, DType dtype) {
  GraphValue v;
  v.strides = contiguous_strides(sizes);
  v.sizes = std::move(sizes);
  v.dtype = dtype;
  v.root = static_cast<int>(values.size());
  values.push_back(std::move(v));
  return values.back().root;
}

int Graph::add_view(int base, Shape sizes, Shape strides, std::int64_t offset) {
  const GraphValue& b = at(base);
  if (b.sizes == sizes && b.strides == strides && b.offset == offset) return base;
  GraphValue v;
  v.sizes = std::move(sizes);
  v.strides = std::move(strides);
  v.dtype = b.dtype;
  v.offset = offset;
  v.root = b.root;
  values.push_back(std::move(v));
  return static_cast<int>(values.size()) - 1;
}

int Graph::add_input(Source source, const Tensor& like) {
  const int v = add_value(like.sizes().shape(), like.dtype());
  at(v).strides = like.strides().shape();
  inputs.push_back(v);
  sources.push_back(std::move(source));
  return v;
}

std::vector<int> count_uses(const Graph& g) {
  std::vector<int> uses(g.values.size());
  const auto use = [&](int v) {
    if (v >= 0) ++uses[static_cast<std::size_t>(g.root(v))];
  };
  for (const Instr& i : g.instrs)
    for (const int v : i.in) use(v);
  for (const int v : g.outputs) use(v);
  for (const Graph::Write& w : g.writes) use(w.value);
  return uses;
}

bool reduces(const Instr& i) { return i.op == &sum_op || i.op == &amax_op || i.op == &amin_op; }

double flops(const Graph& g, const Instr& i) {
  double n = 0;
  if (i.map) {
    for (std::size_t b = 0; b < i.map->bodies.size(); ++b)
      for (const Instr& j : i.map->bodies[b].instrs)
        n += flops(i.map->bodies[b], j) *
             static_cast<double>(b == 0 ? i.map->size / i.map->block : 1);
    return n;
  }
  for (const int v : i.out) n += static_cast<double>(g.at(v).numel());
  const auto product = [&](std::int64_t terms) {
    return 2 * static_cast<double>(terms * g.at(i.out[0]).numel());
  };
  if (i.op == &bmm_op || i.op == &linear_op || i.op == &bmm_relu_grad_op)
    return product(g.at(i.in[0]).sizes.back());
  if (i.op == &lane_matmul_op) return product(g.at(i.in[0]).sizes[1]);
  if (i.op == &lane_matmul_into_op) return product(g.at(i.in[0]).sizes[1]) + n;
  return n;
}

namespace {

using Uses = std::vector<bool>;

/// Roots that leave the graph.
std::set<int> leaving(const Graph& g) {
  std::set<int> roots;
  for (const int v : g.outputs) roots.insert(g.root(v));
  for (const Graph::Write& w : g.writes) roots.insert(g.root(w.value));
  return roots;
}

// ---- merging

class Merge {
 public:
  explicit Merge(Graph& g) : g_(g), now_(g.values.size()), leaving_(leaving(g)) {
    for (std::size_t v = 0; v < now_.size(); ++v) now_[v] = static_cast<int>(v);
  }

  void run() {
    for (std::size_t i = 0; i < g_.inputs.size(); ++i) merge_input(i);
    std::vector<Instr> kept;
    for (Instr& i : g_.instrs) {
      for (int& v : i.in) v = find(v);
      if (i.map)
        for (Graph& body : i.map->bodies) {
          for (Source& s : body.sources) s.index = find(s.index);
          Merge(body).run();
        }
      else if (merged(i))
        continue;
      kept.push_back(std::move(i));
    }
    g_.instrs = std::move(kept);
    for (int& v : g_.outputs) v = find(v);
    for (Graph::Write& w : g_.writes) w.value = find(w.value);
    for (std::size_t v = 0; v < g_.values.size(); ++v)
      if (g_.values[v].root != static_cast<int>(v)) g_.values[v].root = find(g_.values[v].root);
  }

 private:
  /// Input i may be an earlier one again.
  void merge_input(std::size_t i) {
    const Source& s = g_.sources[i];
    if (s.kind != Source::outer) return;
    for (std::size_t k = 0; k < i; ++k)
      if (g_.sources[k].index == s.index && g_.sources[k].axis == s.axis) {
        now_[static_cast<std::size_t>(g_.inputs[i])] = g_.inputs[k];
        return;
      }
  }

  /// The value that stands for v.
  int find(int v) {
    if (v < 0) return v;
    int& now = now_[static_cast<std::size_t>(v)];
    if (now != v) return now = find(now);
    GraphValue& x = g_.at(v);
    if (x.root == v) return v;
    const int root = find(x.root);
    x.root = root;
    auto& views = views_[root];
    for (const int w : views) {
      const GraphValue& y = g_.at(w);
      if (w != v && y.offset == x.offset && y.sizes == x.sizes && y.strides == x.strides)
        return now_[static_cast<std::size_t>(v)] = w;
    }
    if (std::find(views.begin(), views.end(), v) == views.end()) views.push_back(v);
    return v;
  }

  bool merged(const Instr& i) {
    if (i.draw >= 0 || i.attrs.closure || i.out.empty()) return false;
    for (const int v : i.out)
      if (leaving_.count(v)) return false;
    // A copy of what never changes; inputs may be written in place at the end.
    if (i.op == &clone_op && !is_input(g_.root(i.in[0])) && g_.at(i.in[0]).root == i.in[0]) {
      now_[static_cast<std::size_t>(i.out[0])] = i.in[0];
      return true;
    }
    const std::size_t h = i.attrs.hash() ^ std::hash<const void*>()(i.op) ^
                          (i.in.empty() ? 0 : static_cast<std::size_t>(i.in[0]) * 0x9e3779b9u);
    auto [first, last] = seen_.equal_range(h);
    for (auto it = first; it != last; ++it) {
      const Instr& j = it->second;
      if (j.op != i.op || !(j.attrs == i.attrs) || j.in.size() != i.in.size() ||
          !std::equal(i.in.begin(), i.in.end(), j.in.begin()))
        continue;
      for (std::size_t k = 0; k < i.out.size(); ++k)
        now_[static_cast<std::size_t>(i.out[k])] = j.out[k];
      return true;
    }
    seen_.emplace(h, i);
    return false;
  }

  bool is_input(int v) const {
    return std::find(g_.inputs.begin(), g_.inputs.end(), v) != g_.inputs.end();
  }

  Graph& g_;
  std::vector<int> now_;
  std::set<int> leaving_;
  std::unordered_map<int, std::vector<int>> views_;  // by root
  std::unordered_multimap<std::size_t, Instr> seen_;
};

// ---- dead code

void remove_unused(Graph& g) {
  Uses used(g.values.size());
  const auto use = [&](int v) {
    if (v >= 0)
      used[static_cast<std::size_t>(v)] = used[static_cast<std::size_t>(g.root(v))] = true;
  };
  for (const int v : g.outputs) use(v);
  for (const Graph::Write& w : g.writes) use(w.value), use(w.input);
  std::vector<Instr> kept;
  for (std::size_t n = g.instrs.size(); n-- > 0;) {
    Instr& i = g.instrs[n];
    const auto needed = [&](int v) { return used[static_cast<std::size_t>(v)]; };
    if (std::none_of(i.out.begin(), i.out.end(), needed)) continue;
    if (i.map) {
      SmallVec<int, 2> out;
      std::vector<std::size_t> places;
      for (std::size_t k = 0; k < i.out.size(); ++k)
        if (needed(i.out[k])) {
          out.push_back(i.out[k]);
          places.push_back(k);
        }
      i.in.clear();
      for (Graph& body : i.map->bodies) {
        std::vector<int> outputs;
        for (const std::size_t k : places) outputs.push_back(body.outputs[k]);
        body.outputs = std::move(outputs);
        remove_unused(body);
        for (const Source& s : body.sources)
          if (std::find(i.in.begin(), i.in.end(), s.index) == i.in.end()) i.in.push_back(s.index);
      }
      i.out = std::move(out);
    }
    for (const int v : i.in) use(v);
    kept.push_back(std::move(i));
  }
  std::reverse(kept.begin(), kept.end());
  g.instrs = std::move(kept);
  std::vector<int> inputs;
  std::vector<Source> sources;
  for (std::size_t k = 0; k < g.inputs.size(); ++k) {
    if (!used[static_cast<std::size_t>(g.inputs[k])]) continue;
    inputs.push_back(g.inputs[k]);
    sources.push_back(std::move(g.sources[k]));
  }
  g.inputs = std::move(inputs);
  g.sources = std::move(sources);
}

/// Small constants are computed now.
void fold_constants(Graph& g) {
  constexpr std::int64_t kLargest = 1 << 16;
  const std::set<int> out = leaving(g);
  std::vector<Instr> kept;
  for (Instr& i : g.instrs) {
    const bool constant = !i.map && i.in.empty() && i.draw < 0 && i.out.size() == 1 &&
                          g.at(i.out[0]).bytes() <= kLargest && !out.count(i.out[0]);
    if (!constant) {
      kept.push_back(std::move(i));
      continue;
    }
    Under root(nullptr);
    Source s;
    s.kind = Source::captured;
    s.tensor = run1(*i.op, {}, i.attrs);
    g.inputs.push_back(i.out[0]);
    g.sources.push_back(std::move(s));
  }
  g.instrs = std::move(kept);
}

// ---- numbers

/// Values that are full of one number are not needed where it can be an attribute, and instructions
/// that leave everything as it is are not needed at all: for a mean over one row, there are such.
class FoldNumbers {
 public:
  explicit FoldNumbers(Graph& g) : g_(g), number_(g.values.size()) {}

  void run() {
    std::vector<Instr> kept;
    for (Instr& i : g_.instrs) {
      if (i.map)
        for (Graph& body : i.map->bodies) FoldNumbers(body).run();
      const bool one_float = !i.map && i.draw < 0 && !i.attrs.closure && i.out.size() == 1 &&
                             !is_half(g_.at(i.out[0]).dtype) && is_floating(g_.at(i.out[0]).dtype);
      if (one_float) {
        take_number(i);
        number_[static_cast<std::size_t>(i.out[0])] = number_of(i);
        if (changes_nothing(i) && becomes_view(i.out[0], i.in[0])) continue;
      }
      kept.push_back(std::move(i));
    }
    g_.instrs = std::move(kept);
  }

 private:
  const std::optional<Scalar>& known(int v) const {
    static const std::optional<Scalar> none;
    return v < 0 ? none : number_[static_cast<std::size_t>(g_.root(v))];
  }

  /// Has i take a number instead of an operand full of it.
  void take_number(Instr& i) const {
    if (i.in.size() != 2) return;
    const bool swaps = i.op == &mul_op || i.op == &add_op;
    const Op* const with_number = i.op == &mul_op   ? &mul_scalar_op
                                  : i.op == &add_op ? &add_scalar_op
                                  : i.op == &div_op ? &div_scalar_op
                                                    : nullptr;
    if (!with_number) return;
    std::optional<Scalar> number = known(i.in[1]);
    if (!number && swaps) {
      number = known(i.in[0]);
      if (number) std::swap(i.in[0], i.in[1]);
    }
    if (!number) return;
    i.op = with_number;
    i.in.pop_back();
    i.attrs.scalars = {*number};
  }

  /// The number that the result is full of, computed by the instruction's own kernel.
  std::optional<Scalar> number_of(const Instr& i) const {
    const GraphValue& y = g_.at(i.out[0]);
    const bool from_number = i.op == &full_like_op || i.op == &mul_scalar_op ||
                             i.op == &div_scalar_op || i.op == &add_scalar_op;
    if (!from_number || (i.op != &full_like_op && !known(i.in[0]))) return {};
    Under root(nullptr);
    if (i.op == &full_like_op) return full({1}, i.attrs.scalars[0], y.dtype).item();
    return run1(*i.op, {full({1}, *known(i.in[0]), y.dtype)}, i.attrs).item();
  }

  bool changes_nothing(const Instr& i) const {
    if (i.in.size() != 1 || i.in[0] < 0) return false;
    const GraphValue &x = g_.at(i.in[0]), &y = g_.at(i.out[0]);
    if (x.dtype != y.dtype) return false;
    if (i.op == &mul_scalar_op || i.op == &div_scalar_op)
      return i.attrs.scalars[0].to_double() == 1;
    return reduces(i) && x.numel() == y.numel();
  }

  /// Has y lie where x does, if it may: inputs may be written in place at the end.
  bool becomes_view(int y, int x) {
    const GraphValue from = g_.at(x);
    const GraphValue& to = g_.at(y);
    const bool input = std::find(g_.inputs.begin(), g_.inputs.end(), from.root) != g_.inputs.end();
    if (input || to.root != y || !is_contiguous(from.sizes, from.strides) ||
        !is_contiguous(to.sizes, to.strides))
      return false;
    for (GraphValue& v : g_.values)
      if (v.root == y) {
        v.root = from.root;
        v.offset += from.offset;
      }
    return true;
  }

  Graph& g_;
  std::vector<std::optional<Scalar>> number_;  // by root
};

// ---- activations

/// A linear layer takes the activation along that alone uses its result.
void fuse_activations(Graph& g) {
  const std::vector<int> uses = count_uses(g);
  std::vector<Instr> kept;
  for (Instr& i : g.instrs) {
    const auto kind = i.op == &relu_op   ? kernels::Activation::relu
                      : i.op == &tanh_op ? kernels::Activation::tanh
                                         : kernels::Activation::none;
    const int v = i.in.empty() ? -1 : i.in[0];
    const auto linear = std::find_if(kept.begin(), kept.end(), [&](const Instr& j) {
      return j.op == &linear_op && j.out[0] == v && j.attrs.flags == 0;
    });
    const bool fuses = kind != kernels::Activation::none && linear != kept.end() &&
                       uses[static_cast<std::size_t>(v)] == 1 && !is_half(g.at(v).dtype);
    if (!fuses) {
      kept.push_back(std::move(i));
      continue;
    }
    linear->attrs.flags = static_cast<std::uint32_t>(kind);
    linear->out[0] = i.out[0];
  }
  g.instrs = std::move(kept);
}

/// A product takes the derivative of relu along that alone uses its result, and what sums that over
/// the rows: in a backward pass, the next layer's gradient of the bias.
void fuse_relu_grads(Graph& g) {
  if (!kernel_on(bmm_relu_grad_op, g.device)) return;
  constexpr std::int64_t kMostSummed = 4096;  // rows that are well summed one after the other
  const std::vector<int> uses = count_uses(g);
  const auto whole = [&](int v) {
    const GraphValue& x = g.at(v);
    return x.root == v && is_contiguous(x.sizes, x.strides);
  };
  for (std::size_t p = 0; p < g.instrs.size(); ++p) {
    Instr& grad = g.instrs[p];
    if (grad.op != &relu_grad_op) continue;
    const int v = grad.in[0], y = grad.in[1], result = grad.out[0];
    const GraphValue& x = g.at(result);
    const auto product = std::find_if(g.instrs.begin(), g.instrs.end(), [&](const Instr& j) {
      return j.op == &bmm_op && j.out[0] == v;
    });
    if (product == g.instrs.end() || uses[static_cast<std::size_t>(v)] != 1 || !whole(y) ||
        g.at(y).sizes != x.sizes || x.numel() == 0 || (x.dtype != kFloat32 && x.dtype != kFloat64))
      continue;
    grad.op = &bmm_relu_grad_op;
    grad.in = product->in;
    grad.in.push_back(y);
    *product = {};  // removed below
    const auto rows = static_cast<std::int64_t>(x.sizes.size()) - 2;
    const auto sum = std::find_if(g.instrs.begin(), g.instrs.end(), [&](const Instr& j) {
      return j.op == &sum_op && j.in[0] == result && j.attrs.dims == Shape{rows} &&
             g.at(j.out[0]).dtype == x.dtype;
    });
    if (sum == g.instrs.end() || x.sizes[static_cast<std::size_t>(rows)] > kMostSummed) continue;
    grad.attrs.flags = 1;
    grad.out.push_back(sum->out[0]);
    *sum = {};
  }
  std::erase_if(g.instrs, [](const Instr& i) { return !i.op && !i.map; });
}

}  // namespace

void simplify(Graph& g) {
  remove_unused(g);
  Merge(g).run();
  const bool outermost = std::all_of(g.sources.begin(), g.sources.end(),
                                     [](const Source& s) { return s.kind != Source::outer; });
  if (outermost) fold_constants(g);
  FoldNumbers(g).run();
  remove_unused(g);
  fuse_activations(g);
  fuse_relu_grads(g);
}

// ---- layouts

void adopt_layouts(Graph& g) {
  std::set<int> viewed;  // roots of which there are views in use
  const auto see = [&](int v) {
    if (v >= 0 && g.root(v) != v) viewed.insert(g.root(v));
  };
  for (const Instr& i : g.instrs) {
    for (const int v : i.in) see(v);
    if (i.map)
      for (const Graph& body : i.map->bodies)
        for (const Source& s : body.sources) see(s.index);
  }
  for (const int v : g.outputs) see(v);
  for (const Graph::Write& w : g.writes) {
    const GraphValue& x = g.at(w.input);
    GraphValue& y = g.at(w.value);
    const bool takes = std::any_of(g.instrs.begin(), g.instrs.end(), [&](const Instr& i) {
      return !i.map && i.op->any_layout &&
             std::find(i.in.begin(), i.in.end(), w.input) != i.in.end() &&
             std::find(i.out.begin(), i.out.end(), w.value) != i.out.end();
    });
    if (takes && y.root == w.value && !viewed.count(y.root) && x.sizes == y.sizes &&
        x.dtype == y.dtype)
      y.strides = x.strides;
  }
}

// ---- joining

namespace {

/// A value of a body, `members` of those of v, of the graph around.
int add_part(const Graph& g, int v, Graph& body, std::int64_t members) {
  Shape sizes = g.at(v).sizes;
  sizes[0] = members;
  const int part = body.add_value(std::move(sizes), g.at(v).dtype);
  if (!is_contiguous(g.at(v).sizes, g.at(v).strides)) body.at(part).strides = g.at(v).strides;
  return part;
}

/// Adds `joined` to the end of a body for `members` members of the map `m`.
void add_to_body(const Graph& g, const Instr& m, const Instr& joined, Graph& body,
                 std::int64_t members) {
  Instr i;
  i.op = joined.op;
  i.attrs = joined.attrs;
  for (const int v : joined.in) {
    if (v < 0) {
      i.in.push_back(-1);
      continue;
    }
    int here = -1;
    for (std::size_t k = 0; k < m.out.size() && here < 0; ++k)
      if (m.out[k] == v) here = body.outputs[k];
    for (std::size_t k = 0; k < body.inputs.size() && here < 0; ++k)
      if (body.sources[k].index == v && body.sources[k].axis == 0) here = body.inputs[k];
    if (here < 0) {
      Source s;
      s.kind = Source::outer;
      s.index = v;
      s.axis = 0;
      here = body.add_value(g.at(v).sizes, g.at(v).dtype);
      body.at(here).strides = g.at(v).strides;
      body.at(here).sizes[0] = members;
      body.inputs.push_back(here);
      body.sources.push_back(std::move(s));
    }
    const GraphValue& x = body.at(here);
    if (is_contiguous(g.at(v).sizes, g.at(v).strides) && !is_contiguous(x.sizes, x.strides)) {
      Instr copy;  // as the instruction was recorded
      copy.op = &clone_op;
      copy.in.push_back(here);
      here = body.add_value(x.sizes, x.dtype);
      copy.out.push_back(here);
      body.instrs.push_back(std::move(copy));
    }
    i.in.push_back(here);
  }
  for (const int v : joined.out) {
    i.out.push_back(add_part(g, v, body, members));
    body.outputs.push_back(i.out.back());
  }
  body.instrs.push_back(std::move(i));
}

/// Whether what an instruction computes of each index of its first axis, of `size`, depends on
/// nothing else: elementwise ones on operands of one shape or with a row for each index, and sums
/// and the like over other axes.
bool works_on_slices(const Graph& g, const Instr& i, std::int64_t size) {
  if (i.map || i.draw >= 0 || i.in.empty()) return false;
  const Shape& shape = g.at(i.in[0] >= 0 ? i.in[0] : i.out[0]).sizes;
  if (shape.empty() || shape[0] != size) return false;
  if (reduces(i))
    return !i.attrs.dims.empty() && std::all_of(i.attrs.dims.begin(), i.attrs.dims.end(),
                                                [](std::int64_t d) { return d > 0; });
  const auto alike = [&](int v) { return v < 0 || g.at(v).sizes == shape; };
  const auto rows = [&](int v) {
    return v < 0 || (!g.at(v).sizes.empty() && g.at(v).sizes[0] == size);
  };
  for (std::size_t k = 0; k < i.in.size(); ++k)
    if (!(k < 32 && i.op->by_rows >> k & 1 ? rows(i.in[k]) : alike(i.in[k]))) return false;
  return i.op->elementwise && std::all_of(i.out.begin(), i.out.end(), alike);
}

/// Joins the instructions after map p that work on its results, slice by slice, to its blocks.
void join_map(Graph& g, std::size_t p) {
  std::vector<std::size_t> made(g.values.size(), 0);  // 1 + the instruction that makes a root
  for (std::size_t q = 0; q < g.instrs.size(); ++q)
    for (const int v : g.instrs[q].out) made[static_cast<std::size_t>(v)] = q + 1;
  const std::int64_t size = g.instrs[p].map->size;
  std::vector<Instr> kept;
  for (std::size_t q = 0; q < g.instrs.size(); ++q) {
    Instr& j = g.instrs[q];
    Instr& m = q > p ? kept[p] : j;
    bool join = q > p && works_on_slices(g, j, size);
    bool meets = false;  // works on a result of the map
    for (const int v : j.in) {
      if (!join || v < 0) continue;
      const bool result = std::find(m.out.begin(), m.out.end(), v) != m.out.end();
      meets |= result;
      const std::size_t by = made[static_cast<std::size_t>(g.root(v))];
      join = result || by == 0 || by - 1 < p;
    }
    if (!join || !meets) {
      kept.push_back(std::move(j));
      continue;
    }
    for (std::size_t b = 0; b < m.map->bodies.size(); ++b)
      add_to_body(g, m, j, m.map->bodies[b], m.map->members(b));
    for (const int v : j.out) m.out.push_back(v);
    for (const int v : j.in)
      if (v >= 0 && std::find(m.out.begin(), m.out.end(), v) == m.out.end() &&
          std::find(m.in.begin(), m.in.end(), v) == m.in.end())
        m.in.push_back(v);
  }
  g.instrs = std::move(kept);
}

/// A map over the first axis of an instruction, to which others may be joined; null if that is no
/// gain: where operands are small, or one slice of them is large.
std::shared_ptr<MapNode> blocks_of(const Graph& g, const Instr& i) {
  // Bytes of a result that does not stay near by itself, and of one that does, with several others.
  constexpr std::int64_t kFrom = 256 << 10, kBlock = 64 << 10;
  if (i.op == nullptr || !i.op->elementwise || i.out.empty()) return nullptr;
  const GraphValue& y = g.at(i.out[0]);
  if (y.sizes.empty() || y.bytes() < kFrom || !works_on_slices(g, i, y.sizes[0])) return nullptr;
  const std::int64_t size = y.sizes[0], block = kBlock * size / y.bytes();
  if (block == 0) return nullptr;
  auto node = std::make_shared<MapNode>();
  node->size = size;
  node->block = block;
  node->over_rows = true;
  node->bodies.resize(node->rest() ? 2 : 1);
  return node;
}

}  // namespace

void join_maps(Graph& g) {
  for (std::size_t p = 0; p < g.instrs.size(); ++p)
    if (g.instrs[p].map) join_map(g, p);
}

void block_chains(Graph& g) {
  if (!g.device.is_cpu()) return;  // blocks are for caches
  for (std::size_t p = 0; p < g.instrs.size(); ++p) {
    auto node = blocks_of(g, g.instrs[p]);
    if (!node) continue;
    const Instr first = g.instrs[p];
    Instr m;
    m.map = node;
    for (std::size_t b = 0; b < node->bodies.size(); ++b)
      add_to_body(g, m, first, node->bodies[b], node->members(b));
    m.out = first.out;
    for (const int v : first.in)
      if (v >= 0 && std::find(m.in.begin(), m.in.end(), v) == m.in.end()) m.in.push_back(v);
    const auto alone = node->bodies[0].instrs.size();
    g.instrs[p] = std::move(m);
    join_map(g, p);
    if (node->bodies[0].instrs.size() == alone) g.instrs[p] = first;  // a chain of one
  }
}

void finish_bodies(Graph& g) {
  for (Instr& m : g.instrs) {
    if (!m.map) continue;
    for (Graph& body : m.map->bodies) {
      std::set<int> taken(body.inputs.begin(), body.inputs.end());
      for (std::size_t k = 0; k < body.outputs.size(); ++k) {
        int& v = body.outputs[k];
        const GraphValue x = body.at(v);
        if (x.root == v && taken.insert(v).second) continue;
        Instr copy;
        copy.op = &clone_op;
        copy.in.push_back(v);
        v = body.add_value(x.sizes, x.dtype);
        copy.out.push_back(v);
        body.instrs.push_back(std::move(copy));
        taken.insert(v);
      }
    }
  }
}

// ---- in-place writes

namespace {

bool reads(const Graph& g, const Instr& i, int root) {
  return std::any_of(i.in.begin(), i.in.end(), [&](int v) { return v >= 0 && g.root(v) == root; });
}

/// Whether instruction p may write `value`, which it makes, into the memory of input `root`.
bool may_write(const Graph& g, std::size_t p, int root, int value) {
  for (std::size_t q = p + 1; q < g.instrs.size(); ++q)
    if (reads(g, g.instrs[q], root)) return false;
  const Instr& i = g.instrs[p];
  if (!i.map) {
    const auto met =
        std::count_if(i.in.begin(), i.in.end(), [&](int v) { return v >= 0 && g.root(v) == root; });
    if (met == 0) return true;
    const GraphValue& y =
        g.at(*std::find_if(i.out.begin(), i.out.end(), [&](int v) { return g.root(v) == value; }));
    const auto apart = [&](int v) {  // elements are read elsewhere than they are written
      if (v < 0 || g.root(v) != root) return false;
      const GraphValue& x = g.at(v);
      return !(x.sizes == y.sizes && x.strides == y.strides && x.offset == y.offset);
    };
    return i.op->elementwise && std::none_of(i.in.begin(), i.in.end(), apart) &&
           (met == 1 || !i.attrs.closure);
  }
  const std::size_t k =
      static_cast<std::size_t>(std::find(i.out.begin(), i.out.end(), value) - i.out.begin());
  for (const Graph& body : i.map->bodies) {
    const int made = body.outputs[k];
    std::size_t maker = 0;
    const auto makes = [&](const Instr& j) {
      return std::any_of(j.out.begin(), j.out.end(), [&](int v) { return body.root(v) == made; });
    };
    while (!makes(body.instrs[maker])) ++maker;
    for (std::size_t n = 0; n < body.inputs.size(); ++n) {
      if (g.root(body.sources[n].index) != root) continue;
      // Other blocks must not see the write.
      if (body.sources[n].index != root || body.sources[n].axis != 0) return false;
      if (!may_write(body, maker, body.inputs[n], made)) return false;
    }
  }
  return true;
}

}  // namespace

std::vector<Graph::Write> writes_in_place(const Graph& g) {
  std::vector<Graph::Write> found;
  for (const Graph::Write& w : g.writes) {
    const GraphValue &x = g.at(w.input), &y = g.at(w.value);
    if (y.root != w.value || x.dtype != y.dtype || !(x.sizes == y.sizes) ||
        !(x.strides == y.strides))
      continue;
    const bool twice = std::any_of(found.begin(), found.end(),
                                   [&](const Graph::Write& f) { return f.value == w.value; });
    for (std::size_t p = 0; p < g.instrs.size() && !twice; ++p) {
      const Instr& i = g.instrs[p];
      if (std::find(i.out.begin(), i.out.end(), w.value) == i.out.end()) continue;
      if (may_write(g, p, w.input, w.value)) found.push_back(w);
    }
  }
  return found;
}

// ---- text

namespace {

std::string size_text(double bytes) {
  std::ostringstream s;
  s.precision(3);
  if (bytes < 1024)
    s << bytes << " B";
  else if (bytes < 1024 * 1024)
    s << bytes / 1024 << " KiB";
  else
    s << bytes / 1024 / 1024 << " MiB";
  return s.str();
}

std::string work_text(double n) {
  std::ostringstream s;
  s.precision(3);
  n < 1e3 ? s << n << " flop" : n < 1e6 ? s << n / 1e3 << " kflop" : s << n / 1e6 << " Mflop";
  return s.str();
}

std::string op_text(const Instr& i) {
  if (i.map) return "map";
  std::string name = i.op->name;
  if (i.op == &lane_matmul_into_op) name += op_after_product(i).name;
  if (i.op == &lane_matmul_op && i.in[3] >= 0) name += "+relu_grad";
  if (i.op == &bmm_relu_grad_op || i.op == &lane_matmul_op)
    if (i.out.size() > 1) name += "+sum";
  if ((i.op == &linear_op || i.op == &lane_matmul_op) && i.attrs.flags != 0)
    name += static_cast<kernels::Activation>(i.attrs.flags) == kernels::Activation::relu ? "+relu"
                                                                                         : "+tanh";
  return name;
}

std::string type_text(const GraphValue& v) { return str(v.dtype, " ", v.sizes); }

std::string operand(const Graph& g, int v) {
  if (v < 0) return "none";
  const std::string name = str("%", v);
  if (g.root(v) == v) return name;
  return str("%", g.root(v), g.at(v).sizes);  // a view
}

std::string source_text(const Source& s) {
  switch (s.kind) {
    case Source::argument:
      return str("argument ", s.index);
    case Source::captured:
      return "captured";
    case Source::outer:
      break;
  }
  return str(s.axis < 0 ? "all of %" : "its members of %", s.index);
}

void print(const Graph& g, const std::string& indent, std::ostream& out) {
  for (std::size_t k = 0; k < g.inputs.size(); ++k)
    out << indent << "%" << g.inputs[k] << " = " << source_text(g.sources[k]) << "  "
        << type_text(g.at(g.inputs[k])) << "\n";
  for (const Instr& i : g.instrs) {
    out << indent;
    double bytes = 0;
    for (std::size_t k = 0; k < i.out.size(); ++k) {
      out << (k ? ", %" : "%") << i.out[k];
      bytes += static_cast<double>(g.at(i.out[k]).bytes());
    }
    out << " = " << op_text(i) << "(";
    for (std::size_t k = 0; k < i.in.size(); ++k) out << (k ? ", " : "") << operand(g, i.in[k]);
    out << ")";
    if (i.map)
      out << " of " << i.map->size << (i.map->over_rows ? " rows in " : " members in ")
          << i.map->blocks() << " blocks of " << i.map->block;
    else
      for (const int v : i.out) out << "  " << type_text(g.at(v));
    out << "  " << size_text(bytes) << "  " << work_text(flops(g, i)) << "\n";
    if (i.map) print(i.map->bodies[0], indent + "    ", out);
  }
  for (const Graph::Write& w : g.writes)
    out << indent << "%" << w.input << " := " << operand(g, w.value) << "\n";
  out << indent << "return";
  for (const int v : g.outputs) out << " " << operand(g, v);
  out << "\n";
}

void draw(const Graph& g, const std::string& prefix, std::ostream& out) {
  const auto node = [&](int v) { return str("\"", prefix, g.root(v), "\""); };
  for (std::size_t k = 0; k < g.inputs.size(); ++k)
    out << "  " << node(g.inputs[k]) << " [shape=box,label=\"" << source_text(g.sources[k]) << "\\n"
        << type_text(g.at(g.inputs[k])) << "\"];\n";
  int clusters = 0;
  for (const Instr& i : g.instrs) {
    if (i.map) {
      const std::string inside = str(prefix, "m", clusters++, "_");
      const Graph& body = i.map->bodies[0];
      out << "  subgraph \"cluster_" << inside << "\" {\n  label=\"" << i.map->size
          << (i.map->over_rows ? " rows" : " members") << " in blocks of " << i.map->block
          << "\";\n";
      draw(body, inside, out);
      out << "  }\n";
      for (std::size_t k = 0; k < body.inputs.size(); ++k)
        out << "  " << node(body.sources[k].index) << " -> \"" << inside
            << body.root(body.inputs[k]) << "\";\n";
      for (std::size_t k = 0; k < i.out.size(); ++k)
        out << "  " << node(i.out[k]) << " [label=\"" << type_text(g.at(i.out[k])) << "\"];\n  \""
            << inside << body.root(body.outputs[k]) << "\" -> " << node(i.out[k]) << ";\n";
      continue;
    }
    for (const int v : i.out) {
      out << "  " << node(v) << " [label=\"" << op_text(i) << "\\n"
          << type_text(g.at(v)) << "\\n"
          << size_text(static_cast<double>(g.at(v).bytes())) << ", " << work_text(flops(g, i))
          << "\"];\n";
      for (const int x : i.in)
        if (x >= 0) out << "  " << node(x) << " -> " << node(v) << ";\n";
    }
  }
}

}  // namespace

std::string to_text(const Graph& g) {
  std::ostringstream out;
  print(g, "", out);
  return out.str();
}

std::string to_dot(const Graph& g) {
  std::ostringstream out;
  out << "digraph program {\n";
  draw(g, "", out);
  out << "}\n";
  return out.str();
}

}  // namespace tutti::detail
