// Members in lanes: the body of a map rewritten so that the axis of the members, the first, comes
// last in memory. A vector then holds one number of several members, so networks whose layers are
// narrower than a vector fill it all the same. Products, sums and elementwise instructions work
// in that layout; before the others, and for what leaves the body, values are brought back to rows.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <unordered_map>
#include <utility>
#include <vector>

#include <tutti/core/kernels/gemm.h>
#include <tutti/core/kernels/isa.h>
#include <tutti/core/kernels/lane_gemm.h>
#include <tutti/core/ops/records.h>
#include <tutti/func/graph.h>

namespace tutti::detail {

namespace {

/// A factor, of shape [rows, columns, members].
kernels::Interleaved matrices(const Tensor& t) {
  const Shape& strides = t.impl()->strides;
  return {t.raw(), strides[0], strides[1], strides[2] == 0};
}

}  // namespace

// in = {a [m, k, members], b [k, n, members], of which one may be the same for all, bias [n,
// members] or undefined, y [m, n, members] or undefined}; out = {the product}, and maybe its sums
// over the rows, [n, members]. attrs.flags as for linear, relu at most. Where there is a y, the
// result is 0 unless y is above 0.
constinit const Op lane_matmul_op = {
    .name = "lane_matmul",
    .cpu =
        [](Inputs in, Inputs out, const Attrs& a) {
          const Shape &a_sizes = in[0].impl()->sizes, &b_sizes = in[1].impl()->sizes;
          kernels::lane_gemm({.dtype = in[0].dtype(),
                              .count = a_sizes[2],
                              .m = a_sizes[0],
                              .n = b_sizes[1],
                              .k = a_sizes[1],
                              .a = matrices(in[0]),
                              .b = matrices(in[1]),
                              .bias = in[2].defined()
                                          ? kernels::Interleaved{in[2].raw(), 0, in[2].strides()[0]}
                                          : kernels::Interleaved{},
                              .out = out[0].raw(),
                              .relu = a.flags != 0,
                              .relu_output = in[3].defined() ? in[3].raw() : nullptr,
                              .row_sums = out.size() > 1 ? out[1].raw() : nullptr});
        },
};

namespace {

/// What lane_matmul_into does with the product.
struct After {
  const Op* op;
  Attrs attrs;
  static const After& of(const Attrs& a) { return *static_cast<const After*>(a.closure.get()); }
};

class Product final : public kernels::PieceMaker {
 public:
  Product(const Tensor& a, const Tensor& b, const Tensor& room) {
    const Shape &a_sizes = a.impl()->sizes, &b_sizes = b.impl()->sizes;
    g_.dtype = a.dtype();
    g_.count = a_sizes[2];
    g_.m = a_sizes[0], g_.n = b_sizes[1], g_.k = a_sizes[1];
    g_.a = matrices(a), g_.b = matrices(b);
    g_.out = room.raw();
  }
  void make(const kernels::PieceTaker& take) const override {
    kernels::LaneGemm g = g_;
    g.taker = &take;
    kernels::lane_gemm(g);
  }

 private:
  kernels::LaneGemm g_;
};

}  // namespace

// in = {a, b, what the op takes}, with nothing where it takes the product; out = {what it gives,
// room for a piece}.
constinit const Op lane_matmul_into_op = {
    .name = "lane_matmul>",
    .cpu =
        [](Inputs in, Inputs out, const Attrs& a) {
          const After& after = After::of(a);
          after.op->cpu_in_pieces(in.subspan(2), out.first(out.size() - 1), after.attrs,
                                  Product(in[0], in[1], out.back()));
        },
    .elementwise = true,
};

const Op& op_after_product(const Instr& i) { return *After::of(i.attrs).op; }

namespace {

std::atomic<Lanes> g_lanes{Lanes::automatic};

bool is_product(const Instr& i) {
  return i.op == &linear_op || i.op == &bmm_op || i.op == &bmm_relu_grad_op;
}

/// Sizes or strides with the first axis moved to the end, and back.
Shape first_last(const Shape& s) {
  Shape r;
  for (std::size_t d = 1; d < s.size(); ++d) r.push_back(s[d]);
  r.push_back(s[0]);
  return r;
}
Shape last_first(const Shape& s) {
  Shape r;
  r.push_back(s.back());
  for (std::size_t d = 0; d + 1 < s.size(); ++d) r.push_back(s[d]);
  return r;
}

class Rewrite {
 public:
  /// `all`: sums and elementwise instructions, too, bring their operands into lanes.
  Rewrite(Graph& g, std::int64_t members, bool all)
      : g_(g),
        n_(members),
        all_(all),
        lane_root_(g.values.size(), -1),
        in_rows_(g.values.size(), true) {}

  void run() {
    std::vector<Instr> instrs = std::move(g_.instrs);
    g_.instrs.clear();
    for (Instr& i : instrs)
      if (!product(i) && !sum(i) && !elementwise(i)) keep(std::move(i));
    for (const int v : g_.outputs) need_rows(v);
  }

 private:
  /// Whether axis 0 of v counts members, as far as the rewriting needs to know.
  bool stacked(int v) const { return !g_.at(v).sizes.empty() && g_.at(v).sizes[0] == n_; }
  bool wants_lanes(int v) const {
    return all_ || lane_root_[static_cast<std::size_t>(g_.root(v))] >= 0;
  }

  // ---- values in one layout and the other

  /// Grows with the values.
  int add_value(Shape sizes, DType dtype) {
    const int v = g_.add_value(std::move(sizes), dtype);
    lane_root_.push_back(-1);
    in_rows_.push_back(true);
    return v;
  }
  int add_view(int base, Shape sizes, Shape strides, std::int64_t offset) {
    const int v = g_.add_view(base, std::move(sizes), std::move(strides), offset);
    lane_root_.resize(g_.values.size(), -1);
    in_rows_.resize(g_.values.size(), true);
    return v;
  }
  void copy(int from, int to) {
    Instr i;
    i.op = &clone_op;
    i.in.push_back(from);
    i.out.push_back(to);
    g_.instrs.push_back(std::move(i));
  }

  /// v with its first axis last, next to each other in memory.
  int in_lanes(int v) {
    if (v < 0) return v;
    if (const auto known = lanes_.find(v); known != lanes_.end()) return known->second;
    int result = view_in_lanes(v);
    if (result < 0) {
      need_rows(v);
      const GraphValue x = g_.at(v);
      const int from = add_view(x.root, first_last(x.sizes), first_last(x.strides), x.offset);
      result = add_value(first_last(x.sizes), x.dtype);
      copy(from, result);
    }
    lanes_.emplace(v, result);
    return result;
  }

  /// Whether members lie next to each other in v itself.
  bool members_last(int v) const {
    const GraphValue& x = g_.at(v);
    return !x.sizes.empty() && x.strides[0] == 1 && !is_contiguous(x.sizes, x.strides);
  }

  /// The same as a view of the root in lanes, or of the root itself; -1 if there is none.
  int view_in_lanes(int v) {
    const GraphValue x = g_.at(v), root = g_.at(x.root);
    if (members_last(v) && in_rows_[static_cast<std::size_t>(x.root)])
      return add_view(x.root, first_last(x.sizes), first_last(x.strides), x.offset);
    if (root.sizes.empty() || root.sizes[0] != n_ || !is_contiguous(root.sizes, root.strides))
      return -1;
    const std::int64_t each = root.numel() / n_;  // elements of a member
    int base = lane_root_[static_cast<std::size_t>(x.root)];
    if (base < 0 && each == 1) base = x.root;  // one number each: there is no difference
    if (base < 0 || x.strides[0] != each) return -1;
    std::int64_t last = x.offset;
    for (std::size_t d = 1; d < x.sizes.size(); ++d) {
      if (x.sizes[d] == 0 || x.strides[d] < 0) return -1;
      last += (x.sizes[d] - 1) * x.strides[d];
    }
    if (last >= each) return -1;
    Shape strides;
    for (std::size_t d = 1; d < x.strides.size(); ++d) strides.push_back(x.strides[d] * n_);
    strides.push_back(1);
    return add_view(base, first_last(x.sizes), std::move(strides), x.offset * n_);
  }

  /// Makes v's root in rows, if it is not there yet.
  void need_rows(int v) {
    if (v < 0) return;
    const int root = g_.root(v);
    if (in_rows_[static_cast<std::size_t>(root)]) return;
    in_rows_[static_cast<std::size_t>(root)] = true;
    const int lanes = lane_root_[static_cast<std::size_t>(root)];
    const Shape sizes = g_.at(lanes).sizes, strides = g_.at(lanes).strides;
    copy(add_view(lanes, last_first(sizes), last_first(strides), 0), root);
  }

  /// What an instruction made in rows comes out in lanes.
  int out_in_lanes(int v) {
    if (g_.at(v).numel() == n_) {  // one number each: there is no difference
      const Shape sizes = first_last(g_.at(v).sizes);
      const int same = add_view(v, sizes, contiguous_strides(sizes), 0);
      lane_root_[static_cast<std::size_t>(v)] = same;
      return same;
    }
    const int lanes = add_value(first_last(g_.at(v).sizes), g_.at(v).dtype);
    lane_root_[static_cast<std::size_t>(v)] = lanes;
    in_rows_[static_cast<std::size_t>(v)] = false;
    return lanes;
  }

  // ---- instructions

  void keep(Instr i) {
    for (const int v : i.in) need_rows(v);
    g_.instrs.push_back(std::move(i));
  }

  /// A factor of a product: in lanes, or as it lies where it is the same for all members.
  int factor(int v, bool may_be_shared) {
    const GraphValue x = g_.at(v);
    if (!may_be_shared || x.strides[0] != 0) return in_lanes(v);
    need_rows(v);
    return add_view(x.root, first_last(x.sizes), first_last(x.strides), x.offset);
  }

  int transposed(int v) {
    const GraphValue x = g_.at(v);
    return add_view(v, {x.sizes[1], x.sizes[0], x.sizes[2]},
                    {x.strides[1], x.strides[0], x.strides[2]}, x.offset);
  }

  bool product(const Instr& i) {
    if (!is_product(i)) return false;
    const GraphValue& y = g_.at(i.out[0]);
    const bool fits = y.sizes.size() == 3 && stacked(i.out[0]) && y.numel() > 0 &&
                      (y.dtype == kFloat32 || y.dtype == kFloat64) && g_.at(i.in[0]).sizes[2] > 0;
    if (!fits) return false;
    const bool linear = i.op == &linear_op;
    Instr j;
    j.op = &lane_matmul_op;
    const auto activation = static_cast<kernels::Activation>(i.attrs.flags);
    const bool tanh = linear && activation == kernels::Activation::tanh;
    j.attrs.flags = linear && !tanh ? i.attrs.flags : 0;
    j.in.push_back(factor(i.in[0], true));
    const int b = factor(i.in[1], g_.at(i.in[0]).strides[0] != 0);
    j.in.push_back(linear ? transposed(b) : b);
    j.in.push_back(linear ? in_lanes(i.in[2]) : -1);
    j.in.push_back(i.op == &bmm_relu_grad_op ? in_lanes(i.in[2]) : -1);
    const int out = out_in_lanes(i.out[0]);
    if (tanh) {
      const int sums = add_value(g_.at(out).sizes, g_.at(out).dtype);
      j.out.push_back(sums);
      Instr t;
      t.op = &tanh_op;
      t.in.push_back(sums);
      t.out.push_back(out);
      g_.instrs.push_back(std::move(j));
      g_.instrs.push_back(std::move(t));
    } else {
      j.out.push_back(out);
      if (i.out.size() > 1) j.out.push_back(out_in_lanes(i.out[1]));
      g_.instrs.push_back(std::move(j));
    }
    return true;
  }

  bool sum(const Instr& i) {
    if (!reduces(i) || !wants_lanes(i.in[0]) || !stacked(i.in[0]) || i.attrs.dims.empty() ||
        i.attrs.dims[0] == 0)
      return false;
    Instr j;
    j.op = i.op;
    j.attrs = i.attrs;
    for (std::int64_t& d : j.attrs.dims) --d;
    j.in.push_back(in_lanes(i.in[0]));
    j.out.push_back(out_in_lanes(i.out[0]));
    g_.instrs.push_back(std::move(j));
    return true;
  }

  bool elementwise(const Instr& i) {
    if (i.map || !i.op->elementwise || i.draw >= 0 || i.in.empty()) return false;
    const Shape& sizes = g_.at(i.out[0]).sizes;
    const auto either_way = [&](int v) { return members_last(v) || g_.at(v).numel() == n_; };
    const bool in_place = i.op->any_layout && std::all_of(i.out.begin(), i.out.end(), either_way);
    if (i.attrs.closure && !in_place) return false;
    const auto alike = [&](int v) { return v < 0 || g_.at(v).sizes == sizes; };
    const auto lanes = [&](int v) { return v >= 0 && wants_lanes(v); };
    if (!stacked(i.out[0]) || std::none_of(i.in.begin(), i.in.end(), lanes) ||
        !std::all_of(i.in.begin(), i.in.end(), alike) ||
        !std::all_of(i.out.begin(), i.out.end(), alike))
      return false;
    Instr j;
    j.op = i.op;
    j.attrs = i.attrs;
    for (const int v : i.in) j.in.push_back(in_lanes(v));
    for (const int v : i.out) j.out.push_back(in_place ? in_lanes(v) : out_in_lanes(v));
    g_.instrs.push_back(std::move(j));
    return true;
  }

  Graph& g_;
  const std::int64_t n_;
  const bool all_;
  std::vector<int> lane_root_;  // of a root: the value that is the same in lanes; -1: none
  std::vector<bool> in_rows_;   // of a root: whether an instruction or an input has made it
  std::unordered_map<int, int> lanes_;
};

}  // namespace

void set_lanes(Lanes lanes) { g_lanes = lanes; }

std::int64_t lanes_for(const Graph& body, std::int64_t total) {
  const Lanes choice = g_lanes;
  const kernels::Isa isa = kernels::isa();
  // With the four lanes of SSE4, without multiply-adds, it never paid; NEON is not measured.
  if (choice == Lanes::never || (choice == Lanes::automatic && isa < kernels::Isa::avx2)) return 0;
  // Cycles of a member, roughly, if parameters do not lie in lanes already: with rows, with lanes,
  // and for moving an element between the two. Measured on Zen 5, where AVX2 has the fewer
  // registers and so the smaller tiles.
  const double kTerm = isa == kernels::Isa::avx3 ? 1.1 : 1.25;
  constexpr double kMove = 0.35, kElement = 2, kRow = 4, kCall = 15;
  constexpr double kNear = 24 << 10, kFar = 1.35;  // a second operand that stays in L1, or does not
  double rows = 0, lanes = 0;
  std::int64_t width = 0;
  std::vector<bool> multiplied(body.values.size(), false);  // roots
  for (const Instr& i : body.instrs) {
    if (!is_product(i)) continue;
    const GraphValue &x = body.at(i.in[0]), &y = body.at(i.out[0]);
    if (y.sizes.size() != 3 || (y.dtype != kFloat32 && y.dtype != kFloat64)) return 0;
    width = kernels::lanes(y.dtype);
    const auto m = static_cast<double>(y.sizes[1]), n = static_cast<double>(y.sizes[2]),
               k = static_cast<double>(x.sizes[2]), w = static_cast<double>(width);
    rows += kCall + m * (n == 1 ? std::ceil(k / w) + kRow : std::ceil(n / w) * (k + kRow));
    const bool near = k * n * w * static_cast<double>(size_of(y.dtype)) <= kNear;
    lanes += m * n * (kTerm * (near ? 1 : kFar) * k + kElement) / w;
    for (const int v : i.in)
      if (v >= 0) multiplied[static_cast<std::size_t>(body.root(v))] = true;
  }
  const auto move = [&](int v) {
    const GraphValue& x = body.at(v);
    lanes += kMove * static_cast<double>(x.numel()) / static_cast<double>(x.sizes[0]);
  };
  for (std::size_t i = 0; i < body.inputs.size(); ++i)
    if (multiplied[static_cast<std::size_t>(body.inputs[i])] && body.sources[i].axis == 0)
      move(body.inputs[i]);
  for (const int v : body.outputs) move(v);
  if (choice == Lanes::always) return std::max<std::int64_t>(width, 1);
  for (std::size_t i = 0; i < body.inputs.size(); ++i) {
    const GraphValue& x = body.at(body.inputs[i]);
    if (multiplied[static_cast<std::size_t>(body.inputs[i])] && body.sources[i].axis == 0 &&
        x.strides[0] == 1 && !is_contiguous(x.sizes, x.strides))
      return total >= width ? width : 0;
  }
  return width > 0 && total >= width && lanes < rows ? width : 0;
}

namespace {

/// Copies of what all members share are the same in every block: they are made before the map.
void hoist_shared_copies(Graph& g, Instr& map, Graph& body, std::vector<Instr>& before) {
  std::vector<Instr> kept;
  for (Instr& i : body.instrs) {
    const auto input = i.op != &clone_op
                           ? body.inputs.end()
                           : std::find(body.inputs.begin(), body.inputs.end(), body.root(i.in[0]));
    const auto at = static_cast<std::size_t>(input - body.inputs.begin());
    if (input == body.inputs.end() || body.sources[at].axis >= 0) {
      kept.push_back(std::move(i));
      continue;
    }
    const GraphValue from = body.at(i.in[0]);
    const int whole = body.sources[at].index;
    Instr copy;
    copy.op = &clone_op;
    copy.in.push_back(
        g.add_view(g.root(whole), from.sizes, from.strides, g.at(whole).offset + from.offset));
    copy.out.push_back(g.add_value(from.sizes, from.dtype));
    Source source;
    source.kind = Source::outer;
    source.index = copy.out[0];
    body.inputs.push_back(i.out[0]);
    body.sources.push_back(std::move(source));
    map.in.push_back(copy.out[0]);
    before.push_back(std::move(copy));
  }
  body.instrs = std::move(kept);
}

/// Has products that only one instruction takes, and that as it can do in pieces, made for it as it
/// runs: they need no memory, and are taken from the nearest cache.
void make_products_in_pieces(Graph& g) {
  const std::vector<int> uses = count_uses(g);
  const auto taken_once = [&](const Instr& product, const Instr& taker) {
    const int y = product.out[0];
    if (product.op != &lane_matmul_op || product.out.size() > 1 || product.attrs.flags != 0 ||
        product.in[2] >= 0 || product.in[3] >= 0 || uses[static_cast<std::size_t>(y)] != 1 ||
        taker.in[1] < 0 || g.root(taker.in[1]) != y)
      return false;
    const GraphValue &made = g.at(y), &taken = g.at(taker.in[1]);
    return taken.offset == made.offset && taken.sizes == made.sizes &&
           taken.strides == made.strides;
  };
  const auto takes_rows = [](const Instr& i) {
    for (std::size_t k = 0; k < i.in.size(); ++k)
      if (i.in[k] >= 0 && i.op->by_rows >> k & 1) return true;
    return false;
  };
  for (std::size_t at = 0; at < g.instrs.size(); ++at) {
    Instr& i = g.instrs[at];
    if (i.map || !i.op->cpu_in_pieces || i.in.size() < 2) continue;
    const auto in_lines = [&](int v) {
      return line_pitch(g.at(v).sizes, g.at(v).strides, g.at(v).sizes.size() - 1) > 0;
    };
    std::size_t from = 0;
    while (from < at && !taken_once(g.instrs[from], i)) ++from;
    if (from == at || !std::all_of(i.out.begin(), i.out.end(), in_lines) || takes_rows(i)) continue;
    Instr& product = g.instrs[from];
    const auto first = g.instrs.begin() + static_cast<std::ptrdiff_t>(from);
    const GraphValue y = g.at(product.out[0]);
    Instr both;
    both.op = &lane_matmul_into_op;
    both.attrs.closure = std::make_shared<After>(After{i.op, i.attrs});
    both.in = {product.in[0], product.in[1]};
    for (const int v : i.in) both.in.push_back(g.root(v) == g.root(product.out[0]) ? -1 : v);
    both.out = i.out;
    both.out.push_back(
        g.add_value({kernels::piece_size(y.sizes[2], y.sizes[0], y.sizes[1])}, y.dtype));
    i = std::move(both);
    g.instrs.erase(first);
    --at;
  }
}

}  // namespace

void put_members_in_lanes(Graph& g) {
  std::vector<Instr> instrs;
  for (Instr& i : g.instrs) {
    const bool all = g_lanes == Lanes::always;
    for (std::size_t b = 0; i.map && i.map->lanes > 0 && b < i.map->bodies.size(); ++b) {
      if (!all && i.map->members(b) < i.map->lanes) continue;
      Rewrite(i.map->bodies[b], i.map->members(b), all).run();
      make_products_in_pieces(i.map->bodies[b]);
      hoist_shared_copies(g, i, i.map->bodies[b], instrs);
    }
    instrs.push_back(std::move(i));
  }
  g.instrs = std::move(instrs);
}

}  // namespace tutti::detail
