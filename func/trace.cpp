// Recording.
#include <algorithm>
#include <atomic>
#include <cmath>

#include <tutti/autograd/node.h>
#include <tutti/core/kernels/ahead.h>
#include <tutti/core/ops.h>
#include <tutti/core/ops/records.h>
#include <tutti/func/frame.h>
#include <tutti/func/trace.h>

namespace tutti::detail {

namespace {

// Thrown where a vmapped function does something that its blocks cannot do one by one.
struct NotInBlocks {};

const TraceBox& trace_box(const Tensor& x) { return *static_cast<const TraceBox*>(as_box(x)); }

}  // namespace

Trace* tracing() {
  Interpreter* now = thread_state().current;
  return now ? dynamic_cast<Trace*>(now) : nullptr;
}

Tensor Trace::wrap(int value, bool is_view) const {
  const GraphValue& v = graph_.at(value);
  Tensor inner = stand_in({v.sizes, v.dtype, graph_.device});
  TensorImpl& i = *inner.impl();
  i.strides = v.strides;
  i.offset = v.offset;
  i.is_view = is_view;
  return Tensor(make_ref<TraceBox>(scope, std::move(inner), value));
}

Tensor Trace::new_input(const Tensor& like, Source source) {
  check<DeviceError>(like.device() == graph_.device, "compile", "expected tensors on ",
                     graph_.device, ", where the arguments are, got one on ", like.device(),
                     "; move it there first with to()");
  inputs_.push_back(wrap(graph_.add_input(std::move(source), like)));
  return inputs_.back();
}

Tensor Trace::argument(const Tensor& x, int i) {
  Source s;
  s.index = i;
  const Tensor box = new_input(x, std::move(s));
  known_.try_emplace(x.impl(), Known{x, box, i});  // the first, if there are several
  return box;
}

Tensor Trace::input(const Tensor& x, Source source) {
  auto found = known_.find(x.impl());
  if (found == known_.end()) {
    const Tensor box = new_input(x, std::move(source));
    found = known_.emplace(x.impl(), Known{x, box, -1}).first;
  }
  if (found->second.argument >= 0)
    met_again_.push_back(static_cast<std::size_t>(found->second.argument));
  return found->second.box;
}

Tensor Trace::box(Tensor inner) const {
  return const_cast<Trace*>(this)->own_or_input(inner, "compile");
}

// x, which is undefined or a value of this or an outer level, as a value of this one.
Tensor Trace::own_or_input(const Tensor& x, const char* op) {
  if (!x.defined() || own(x, op)) return x;
  Source s;
  if (outer_) {
    s.kind = Source::outer;
    s.index = outer_->value_of(x);
  } else {
    s.kind = Source::captured;
    s.tensor = resolved(x);
    check<TransformError>(!as_box(s.tensor), op,
                          "this tensor belongs to a transform that is not active here (another "
                          "thread, or code that runs outside of it)");
  }
  return input(resolved(x), std::move(s));
}

int Trace::value_of(const Tensor& x) { return trace_box(own_or_input(x, "compile")).value; }

Tensor Trace::copy_box(const Tensor& x, const std::function<Tensor(const Tensor&)>&) const {
  return wrap(trace_box(x).value);  // values are never written
}

Interpreter::Reopen Trace::reopener() const {
  fail<TransformError>("compile",
                       "what runs parts of the function again later, or on another thread, cannot "
                       "be recorded; leave checkpoint and capture_context out of it");
}

Tensors Trace::run(const Op& op, Inputs in, const Attrs& a) {
  bool any = false;
  for (const Tensor& x : in) any |= own(x, op.name) != nullptr;
  const bool random_here = op.random && per_member_;
  if (outer_ && !any && !random_here) return run_below(op, in, a);  // the same for every block
  Tensors boxes;
  for (const Tensor& x : in) boxes.push_back(own_or_input(x, op.name));
  in = Inputs(boxes.data(), boxes.size());

  const Kernel kernel = kernel_on(op, graph_.device);
  check<NotImplementedError>(kernel || op.alias || op.expand, op.name, "not implemented on ",
                             graph_.device, "; compute it on the CPU");
  if ((!kernel && !op.alias) || op.fused_by_compile) return op.expand(in, a);
  const bool by_values = op.reason && !op.batch && !op.alias && !in.empty();
  check<TransformError>(!by_values, op.name, "cannot run inside compile: ", op.reason);
  Tensors out;
  if (kernel) {
    Metas metas;
    op.shape(in, a, metas);
    Instr i;
    i.op = &op;
    i.attrs = a;
    for (const Tensor& x : in) i.in.push_back(x.defined() ? trace_box(x).value : -1);
    if (op.random) {
      i.draw = static_cast<int>(a.scalars[1].to<std::int64_t>());
      i.per_member = random_here;
    }
    for (Meta& m : metas) {
      check<DeviceError>(m.device == graph_.device, op.name, "expected ", graph_.device,
                         ", where compile's arguments are, got ", m.device,
                         "; make the tensor there");
      i.out.push_back(graph_.add_value(std::move(m.sizes), m.dtype));
    }
    graph_.instrs.push_back(std::move(i));
    for (const int v : graph_.instrs.back().out) out.push_back(wrap(v));
    return out;
  }
  Shape sizes, strides;
  std::int64_t offset = 0;
  const bool is_view = op.alias(in[0], a, sizes, strides, offset);
  Tensor base = in[0];
  if (!is_view) {
    base = clone(base);
    sizes.clear();
    strides.clear();
    op.alias(base, a, sizes, strides, offset);
  }
  out.push_back(
      wrap(graph_.add_view(trace_box(base).value, std::move(sizes), std::move(strides), offset),
           is_view));
  if (is_view) note_view(op, in, a, out[0]);
  return out;
}

void Trace::assign(const Tensor& dst, const Tensor& src) {
  if (outer_ && !mine(dst)) throw NotInBlocks();
  const Tensor d = own_or_input(dst, "assign");
  if (mine(src))  // no second handle: assign() tells a fresh result by its count
    Interpreter::assign(d, src);
  else
    Interpreter::assign(d, own_or_input(src, "assign"));
}

void Trace::rebind(const Tensor& dst, const Tensor& src) {
  TraceBox& d = *static_cast<TraceBox*>(dst.impl());
  d.value = trace_box(src).value;
  d.set_inner(as_box(src)->inner);
}

void Trace::assign_captured(const Tensor&, const Tensor&) {
  fail<TransformError>("assign", "inside compile, this view cannot be written");
}

// ---- maps

struct Trace::Body {
  Graph graph;
  Examples results;  // of the outer level where unbatched, else undefined: the graph's outputs
  std::size_t mapped = 0;  // how many are
};

namespace {

std::atomic<std::int64_t> g_block_members{0};

/// Bytes of a core's own cache that a block of members may fill.
std::int64_t block_budget() {
  return std::clamp<std::int64_t>(kernels::cache_bytes(2), 256 << 10, 2 << 20) * 5 / 8;
}

/// About as many of `total` members, filling whole vectors. An odd number of those: elements lie
/// that far apart, and powers of two fall into few sets of the caches. A block of a single vector
/// feels the calls of kernels, so two become three if that leaves blocks for several cores.
std::int64_t whole_vectors(std::int64_t members, std::int64_t lanes, std::int64_t total) {
  const std::int64_t vectors = (members + lanes - 1) / lanes;
  if (vectors * lanes >= total) return total;
  if (vectors % 2 == 1) return vectors * lanes;
  return (vectors == 2 && total >= 4 * 3 * lanes ? 3 : vectors - 1) * lanes;
}

/// Members per block, from a body recorded for `tried` members: as many as fit a core's cache, more
/// if the calls of kernels would count otherwise, fewer if that gives work to several cores.
std::int64_t block_size(const Graph& body, std::int64_t tried, std::int64_t total,
                        std::int64_t lanes) {
  if (const std::int64_t n = g_block_members) return std::min(n, total);
  constexpr double kCall = 150, kFlopsPerNs = 40, kElementsPerNs = 2;  // on one core, roughly
  constexpr double kNoticed = 60;  // work of a block over its calls, from which those hardly count
  constexpr double kShared = 10;   // the same, from which another core is worth it
  constexpr double kBlocks = 8;
  double bytes = static_cast<double>(Frame(body, {}, {}).arena_bytes()), work = 0;
  for (std::size_t i = 0; i < body.inputs.size(); ++i)
    if (body.sources[i].axis >= 0) bytes += static_cast<double>(body.at(body.inputs[i]).bytes());
  // A result is most often a gradient, which meets two states of an optimizer.
  for (const int v : body.outputs) bytes += 3 * static_cast<double>(body.at(v).bytes());
  for (const Instr& i : body.instrs) {
    work += flops(body, i) / kFlopsPerNs;
    for (const int v : i.out) work += static_cast<double>(body.at(v).numel()) / kElementsPerNs;
  }
  const double n = static_cast<double>(tried), size = static_cast<double>(total);
  const double calls = kCall * static_cast<double>(body.instrs.size());
  bytes = std::max(bytes / n, 1.0);
  work = std::max(work / n, 1.0);
  const double fitting = std::floor(static_cast<double>(block_budget()) / bytes);
  const double block = std::max({fitting, std::ceil(kNoticed * calls / work), 1.0});
  const double shared = std::min({kBlocks, size, std::floor(size * work / (kShared * calls))});
  const double blocks = std::max({std::ceil(size / block), shared, 1.0});
  const auto members = static_cast<std::int64_t>(std::ceil(size / blocks));
  return lanes == 0 ? members : whole_vectors(members, lanes, total);
}

}  // namespace

void set_block_members(std::int64_t n) { g_block_members = n; }

Trace::Body Trace::trace_body(const Tensors& args, const std::vector<int>& axes, std::int64_t size,
                              bool per_member, const RunExamples& run) {
  Trace body(*this, per_member);
  Tensors values;
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (!args[i].defined() || axes[i] < 0) {
      values.push_back(args[i]);
      continue;
    }
    // A slice of the members. Each argument is an input of its own, also where two are one tensor.
    Source s;
    s.kind = Source::outer;
    s.index = value_of(args[i]);
    s.axis = axes[i];
    const Tensor whole = wrap(s.index);
    const int v = body.graph_.add_input(std::move(s), whole);
    body.graph_.at(v).sizes[static_cast<std::size_t>(axes[i])] = size;
    values.push_back(body.wrap(v));
    body.inputs_.push_back(values.back());
  }
  Body b;
  Under under(&body);
  b.results = run(body, values, size);
  const auto take = [&](Tensor& value, int axis) {
    if (!value.defined()) return;
    if (axis < 0) {
      if (body.mine(value)) throw NotInBlocks();
      return;
    }
    if (axis > 0) value = movedim(value, axis, 0);
    b.graph.outputs.push_back(body.value_of(value));
    value = Tensor();
    ++b.mapped;
  };
  std::vector<int> outputs;
  for (std::size_t k = 0; k < b.results.out.size(); ++k) take(b.results.out[k], b.results.axes[k]);
  for (Examples::Write& w : b.results.writes) take(w.value, w.axis);
  outputs = std::move(b.graph.outputs);
  b.graph = std::move(body.graph_);
  b.graph.outputs = std::move(outputs);
  simplify(b.graph);
  return b;
}

std::optional<Examples> Trace::map(const Tensors& args, const std::vector<int>& axes,
                                   std::int64_t total, std::int64_t most, bool per_member,
                                   const RunExamples& run) {
  DrawTape& tape = *thread_state().tape;
  const std::size_t first_draw = tape.at;
  // A GPU works on all members at once.
  if (outer_ || total == 0 || !graph_.device.is_cpu()) return std::nullopt;
  auto node = std::make_shared<MapNode>();
  node->size = total;
  std::vector<Body> bodies;
  try {
    const auto record = [&](std::int64_t size) {
      tape.at = first_draw;
      return trace_body(args, axes, size, per_member, run);
    };
    const std::int64_t tried = std::min<std::int64_t>({total, most, 2});
    bodies.push_back(record(tried));
    node->lanes = lanes_for(bodies[0].graph, std::min(total, most));
    node->block = std::min(block_size(bodies[0].graph, tried, total, node->lanes), most);
    if (node->block != tried) bodies[0] = record(node->block);
    if (node->rest() != 0) bodies.push_back(record(node->rest()));
    if (bodies.size() == 2 && bodies[0].mapped != bodies[1].mapped) throw NotInBlocks();
  } catch (const NotInBlocks&) {
    tape.at = first_draw;
    return std::nullopt;
  }
  Instr instr;
  for (const Body& b : bodies)
    for (const Source& s : b.graph.sources)
      if (std::find(instr.in.begin(), instr.in.end(), s.index) == instr.in.end())
        instr.in.push_back(s.index);
  Examples all = std::move(bodies[0].results);
  std::size_t k = 0;
  const auto place = [&](Tensor& value, int& axis) {
    if (axis < 0) return;
    const GraphValue& part = bodies[0].graph.at(bodies[0].graph.outputs[k++]);
    Shape sizes = part.sizes;
    sizes[0] = total;
    const int v = graph_.add_value(std::move(sizes), part.dtype);
    instr.out.push_back(v);
    value = wrap(v);
    axis = 0;
  };
  for (std::size_t i = 0; i < all.out.size(); ++i) place(all.out[i], all.axes[i]);
  for (Examples::Write& w : all.writes) place(w.value, w.axis);
  for (Body& b : bodies) node->bodies.push_back(std::move(b.graph));
  instr.map = std::move(node);
  graph_.instrs.push_back(std::move(instr));
  return all;
}

Graph Trace::finish(const Tensors& outputs) {
  for (const Tensor& y : outputs) {
    if (y.defined()) refresh(y);
    graph_.outputs.push_back(y.defined() ? value_of(y) : -1);
  }
  for (std::size_t i = 0; i < graph_.inputs.size(); ++i)
    if (const int now = trace_box(inputs_[i]).value; now != graph_.inputs[i])
      graph_.writes.push_back({graph_.inputs[i], now});
  return std::move(graph_);
}

}  // namespace tutti::detail
