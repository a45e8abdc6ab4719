// The transforms on lists of tensors.
#include <algorithm>

#include <tutti/autograd/grad_interpreter.h>
#include <tutti/autograd/jvp_interpreter.h>
#include <tutti/autograd/pushforward.h>
#include <tutti/core/op_forms.h>
#include <tutti/func/chunks.h>
#include <tutti/func/trace.h>
#include <tutti/func/transforms.h>
#include <tutti/func/vmap_interpreter.h>
#include <tutti/nn/module.h>

namespace tutti {

VmapOptions& VmapOptions::chunk_size(std::optional<std::int64_t> n) {
  check<ValueError>(!n || *n > 0, "vmap", "expected a positive chunk_size, got ", n.value_or(0),
                    "; use nullopt for one call");
  chunk_size_ = n;
  return *this;
}

namespace detail {

void fail_non_tensor(const char* what, const std::type_info& type) {
  fail<ValueError>("vmap", what, " gives an axis for a value of type ", nn::detail::type_name(type),
                   ", which is not a tensor; use nullopt there");
}

namespace {

Box& box_of(const Tensor& x) { return *static_cast<Box*>(x.impl()); }

// Whether a write to one may show in the other; values of outer transforms are looked through.
bool share_memory(const Tensor& a, const Tensor& b) {
  if (a.is_same(b)) return true;
  Tensor x = a, y = b;
  while (const Box* box = as_box(x)) x = Tensor(box->inner);
  while (const Box* box = as_box(y)) y = Tensor(box->inner);
  return x.impl()->storage && may_overlap(*x.impl(), *y.impl());
}

// Arguments changed in place inside a transform: their new values, written to the caller's tensors
// at the very end.
class CopyBack {
 public:
  CopyBack(const Tensors& args, const char* op) : args_(args), op_(op) {}
  void note(std::size_t i, Tensor value, const Tensor& to) {
    writes_.push_back({i, std::move(value), to});
  }
  void run() const {
    for (const Write& w : writes_)
      for (std::size_t j = 0; j < args_.size(); ++j)
        check<TransformError>(
            j == w.argument || !args_[j].defined() || !share_memory(args_[w.argument], args_[j]),
            op_, "argument ", w.argument, " was changed in place, but argument ", j,
            " shares its memory; clone one of them");
    for (const Write& w : writes_) tutti::assign(w.to, w.value);
  }

 private:
  struct Write {
    std::size_t argument;
    Tensor value, to;
  };
  const Tensors& args_;
  const char* op_;
  std::vector<Write> writes_;
};

// The same draws for every chunk of a vmap.
class ReplayDraws {
 public:
  explicit ReplayDraws(bool on) : on_(on), saved_(thread_state().tape) {
    if (on_ && !saved_) thread_state().tape = &tape_;
  }
  ~ReplayDraws() { thread_state().tape = saved_; }
  ReplayDraws(const ReplayDraws&) = delete;
  void mark() {
    if (on_) start_ = thread_state().tape->at;
  }
  void rewind() {
    if (on_) thread_state().tape->at = start_;
  }

 private:
  bool on_;
  DrawTape* saved_;
  DrawTape tape_;
  std::size_t start_ = 0;
};

struct Mapped {
  std::int64_t size = -1;
  std::vector<int> axes;  // -1: not mapped
};

Mapped mapped_axes(const Tensors& args, const std::vector<Axis>& in_axes) {
  Mapped m;
  std::string sizes;
  bool differ = false;
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (!in_axes[i]) {
      m.axes.push_back(-1);
      continue;
    }
    const Tensor& x = args[i];
    check<ValueError>(x.defined(), "vmap",
                      "in_dims gives an axis for an undefined tensor; use nullopt there");
    Interpreter::check_live(x, "vmap");
    const std::int64_t axis = *in_axes[i], rank = x.dim();
    check<ValueError>(axis >= -rank && axis < rank, "vmap", "in_dims gives axis ", axis,
                      " for an argument of shape ", x.sizes(), ", which has ", rank,
                      " axes; count from 0, or from the end by -1");
    m.axes.push_back(static_cast<int>(axis < 0 ? axis + rank : axis));
    const std::int64_t n = x.size(axis);
    differ = differ || (m.size >= 0 && n != m.size);
    m.size = m.size < 0 ? n : m.size;
    sizes += (sizes.empty() ? "" : ", ") + std::to_string(n);
  }
  check<ValueError>(
      m.size >= 0, "vmap",
      "expected at least one tensor to map over, got none; in_dims leaves all of them unmapped");
  check<ValueError>(!differ, "vmap", "expected mapped axes of one size, got sizes ", sizes,
                    "; check in_dims, or use nullopt for what is shared");
  return m;
}

// Runs f on `size` examples from `begin` on, under a vmap above `below`.
Examples run_examples(ListFn f, const Tensors& args, const Mapped& mapped, Interpreter* below,
                      const VmapOptions& options, std::int64_t begin, std::int64_t size) {
  Vmap v(below, size, options.randomness(), begin, mapped.size, mapped.axes);
  Tensors boxes;
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (!args[i].defined()) {
      boxes.push_back({});
      continue;
    }
    boxes.push_back(v.batched(args[i], mapped.axes[i]));
    box_of(boxes[i]).argument = true;
    box_of(boxes[i]).unmapped = mapped.axes[i] < 0;
  }
  Examples e;
  Under under(&v);
  e.out = f(boxes);
  for (Tensor& y : e.out) {
    v.refresh(y);
    auto [value, axis] = v.split(y, "vmap");
    y = value;
    e.axes.push_back(axis);
  }
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    v.refresh(boxes[i]);
    if (!boxes[i].defined() || box_of(boxes[i]).writes == 0) continue;
    auto [value, axis] = v.split(boxes[i], "vmap");
    e.writes.push_back({i, value, axis});
  }
  return e;
}

// A value that left the function, whose batch axis is `axis` (-1: none), with the mapped axis where
// out_dims wants it; or, if `first`, the first example's alone.
Tensor unmap(const Tensor& value, int axis, const Axis& out_axis, std::int64_t size,
             bool first = false) {
  check<ValueError>(value.defined() || !out_axis, "vmap",
                    "the function returned an undefined tensor; give it nullopt in out_dims");
  if (!value.defined()) return value;
  if (first) return axis < 0 ? value : select(value, axis, 0);
  if (!out_axis) {
    check<ValueError>(axis < 0, "vmap",
                      "expected an axis in out_dims for an output that differs per example, got "
                      "nullopt; give it an axis");
    return value;
  }
  Shape example = value.sizes().shape();
  if (axis >= 0) example.erase(example.begin() + axis);
  const std::int64_t rank = static_cast<std::int64_t>(example.size()) + 1;
  check<IndexError>(*out_axis >= -rank && *out_axis < rank, "vmap", "out_dims gives axis ",
                    *out_axis, " for an output of shape ", example, " per example, which has ",
                    rank, " axes with the mapped one; count from 0, or from the end by -1");
  const int to = static_cast<int>(*out_axis < 0 ? *out_axis + rank : *out_axis);
  if (axis >= 0) return axis == to ? value : movedim(value, axis, to);
  Tensor copies = clone(
      forms::axis_to_front(value, -1, size));  // not a stride-0 view, which could not be written
  return to == 0 ? copies : movedim(copies, 0, to);
}

}  // namespace

Tensors vmap(ListFn f, const Tensors& args, const std::vector<Axis>& in_axes,
             const VmapOutputs& outputs, const VmapOptions& options) {
  Tensors flat;
  for (const Tensor& x : args) flat.push_back(resolved(x));
  const Mapped mapped = mapped_axes(flat, in_axes);
  const std::int64_t total = mapped.size;
  CopyBack back(flat, "vmap");
  const auto finish = [&](Examples& e, const Tensors& parts, std::int64_t size) {
    for (std::size_t k = 0; k < e.out.size(); ++k)
      e.out[k] = unmap(e.out[k], e.axes[k], outputs.axes[k], size, k >= outputs.first_from);
    for (const Examples::Write& w : e.writes) {
      const int to = mapped.axes[w.argument];
      back.note(w.argument, unmap(w.value, w.axis, to < 0 ? Axis() : Axis(to), size),
                parts[w.argument]);
    }
  };
  if (Trace* trace = outputs.counts ? nullptr : tracing()) {
    const auto run = [&](Interpreter& below, const Tensors& parts, std::int64_t size) {
      return run_examples(f, parts, mapped, &below, options, 0, size);
    };
    if (std::optional<Examples> all =
            trace->map(flat, mapped.axes, total, options.chunk_size().value_or(total),
                       options.randomness() == Randomness::different, run)) {
      finish(*all, flat, total);
      back.run();
      return std::move(all->out);
    }
  }
  const std::int64_t step = std::min(options.chunk_size().value_or(total), total);
  const bool chunked = step < total;
  Chunks chunks(total);
  ReplayDraws draws(chunked);
  draws.mark();
  std::int64_t begin = 0;
  do {  // once for zero examples
    const std::int64_t size = std::min(step, total - begin);
    draws.rewind();
    Tensors parts = flat;
    for (std::size_t i = 0; i < flat.size() && chunked; ++i)
      if (flat[i].defined() && mapped.axes[i] >= 0)
        parts[i] = narrow(flat[i], mapped.axes[i], begin, size);
    Examples e = run_examples(f, parts, mapped, thread_state().current, options, begin, size);
    finish(e, parts, size);
    chunks.add(std::move(e.out), outputs.axes, size);
    begin += size;
  } while (begin < total);
  back.run();
  return chunks.join();
}

struct Pullback::State {
  std::vector<Edge> roots, leaves;
  Tensors outputs, primals;  // the differentiated ones, without values
};

namespace {
// What is kept of a value that must not stay alive.
Tensor shape_of(const Tensor& x) {
  return x.defined() ? stand_in({x.sizes().shape(), x.dtype(), x.device()}) : x;
}
}  // namespace

Tensors Pullback::operator()(const Tensors& cotangents) const {
  const State& s = *state;
  check<ValueError>(cotangents.size() == s.outputs.size(), "vjp", "expected ", s.outputs.size(),
                    " cotangent tensors, as many as the function has outputs, got ",
                    cotangents.size(), "; give one per output");
  std::vector<Tensor> seeds;
  for (std::size_t i = 0; i < cotangents.size(); ++i) {
    const Tensor& g = cotangents[i];
    if (g.defined()) {
      check<ShapeError>(g.sizes() == s.outputs[i].sizes(), "vjp", "the cotangent of output ", i,
                        " must have shape ", s.outputs[i].sizes(), ", got ", g.sizes(),
                        "; make it like the output");
      check<TypeError>(g.dtype() == s.outputs[i].dtype(), "vjp", "the cotangent of output ", i,
                       " must have dtype ", s.outputs[i].dtype(), ", got ", g.dtype(),
                       "; convert with to()");
    }
    seeds.push_back(g.defined() ? resolved(g) : g);
  }
  BackwardOptions o;
  o.wanted = &s.leaves;
  std::vector<Tensor> grads = backward(s.roots, seeds, o);
  Tensors r;
  for (std::size_t i = 0; i < grads.size(); ++i)
    r.push_back(grads[i].defined() ? grads[i] : zeros_like(s.primals[i]));
  return r;
}

void check_scalar(const Tensor& y, const char* op) {
  check<ValueError>(y.defined() && y.dim() == 0, op, "the function must return a 0-d tensor, got ",
                    y.defined() ? str("shape ", y.sizes()) : std::string("an undefined one"),
                    "; reduce it, for example with sum() or mean()");
  check<TypeError>(is_floating(y.dtype()), op, "the function must return a floating tensor, got ",
                   y.dtype(), "; return others as aux");
}

namespace {

Tensors resolved_all(const Tensors& args) {
  Tensors flat;
  for (const Tensor& x : args) flat.push_back(x.defined() ? resolved(x) : x);
  return flat;
}

struct Recorded {
  Tensors out;
  std::vector<Edge> roots, leaves;  // of outputs before the aux ones, and of the wanted arguments
};

// Runs f on `flat` and records it under g; what f changed in place is noted in `back`.
Recorded record(Grad& g, ListFn f, const Tensors& flat, const std::vector<bool>& wanted,
                const std::size_t& aux_from, const char* op, CopyBack& back) {
  for (const Tensor& x : flat) Interpreter::check_live(x, op);
  Recorded r;
  Tensors boxes;
  for (std::size_t i = 0; i < flat.size(); ++i) {
    if (!flat[i].defined()) {
      check<ValueError>(
          !wanted[i], op,
          "expected defined arguments to differentiate, got an undefined tensor; pass a value");
      boxes.push_back({});
      continue;
    }
    boxes.push_back(wanted[i] ? g.leaf(flat[i]) : g.box(flat[i]));
    box_of(boxes[i]).argument = true;
    box_of(boxes[i]).frozen = wanted[i];
    if (wanted[i]) r.leaves.push_back(g.edge(boxes[i]));
  }
  Tensors& out = r.out;
  {
    Under under(&g);
    out = f(boxes);
    for (const Tensor& y : out) g.refresh(y);
    for (const Tensor& b : boxes) g.refresh(b);
  }
  check<ValueError>(!out.empty(), op,
                    "expected a function that returns tensors, got none; return what is to be "
                    "differentiated");
  for (std::size_t k = 0; k < out.size(); ++k) {
    check<ValueError>(out[k].defined() || k >= aux_from, op,
                      "expected a function that returns defined tensors, got an undefined one; "
                      "leave it out");
    if (!out[k].defined()) continue;
    if (k < aux_from) r.roots.push_back(g.edge(out[k]));
    out[k] = resolved(g.inner(out[k], op));
  }
  for (std::size_t i = 0; i < boxes.size(); ++i)
    if (boxes[i].defined() && box_of(boxes[i]).writes > 0)
      back.note(i, g.inner(boxes[i], op), flat[i]);
  return r;
}

std::pair<Tensors, Pullback> record_pullback(ListFn f, const Tensors& flat,
                                             const std::vector<bool>& wanted,
                                             const std::size_t& aux_from, const char* op,
                                             CopyBack& back) {
  Grad g(thread_state().current);
  Recorded r = record(g, f, flat, wanted, aux_from, op, back);
  Pullback pull;
  pull.state = std::make_shared<Pullback::State>();
  for (std::size_t k = 0; k < r.out.size() && k < aux_from; ++k) {
    check<TypeError>(is_floating(r.out[k].dtype()), op,
                     "the function must return floating tensors, got ", r.out[k].dtype(),
                     "; return others as aux");
    pull.state->outputs.push_back(shape_of(r.out[k]));
  }
  for (std::size_t i = 0; i < flat.size(); ++i)
    if (wanted[i]) pull.state->primals.push_back(shape_of(flat[i]));
  pull.state->roots = std::move(r.roots);
  pull.state->leaves = std::move(r.leaves);
  return {std::move(r.out), std::move(pull)};
}

}  // namespace

std::pair<Tensors, Pullback> vjp(ListFn f, const Tensors& args, const std::vector<bool>& wanted,
                                 std::size_t aux_from, const char* op) {
  const Tensors flat = resolved_all(args);
  CopyBack back(flat, op);
  auto result = record_pullback(f, flat, wanted, aux_from, op, back);
  back.run();
  return result;
}

Tensors with_pullback(ListFn f, const Tensors& args, const std::vector<bool>& wanted,
                      const std::size_t& aux_from, const char* op,
                      const std::function<void(const Tensors&, const Pullback&)>& use) {
  const Tensors flat = resolved_all(args);
  CopyBack back(flat, op);
  auto [out, pull] = record_pullback(f, flat, wanted, aux_from, op, back);
  use(out, pull);
  back.run();
  return std::move(out);
}

std::pair<Tensors, Tensors> grad_and_value(ListFn f, const Tensors& args,
                                           const std::vector<bool>& wanted, const char* op) {
  Tensors grads;
  Tensors out = with_pullback(f, args, wanted, 1, op, [&](const Tensors& y, const Pullback& pull) {
    grads = pull({ones_like(y[0])});
  });
  return {std::move(grads), std::move(out)};
}

namespace {
// Tangents must fit the primals; undefined ones are zero.
void check_tangents(const Tensors& primals, const Tensors& tangents, const char* op) {
  check<ValueError>(primals.size() == tangents.size(), op, "expected as many tangents as primals, ",
                    primals.size(), ", got ", tangents.size(), "; give one per primal");
  check<ValueError>(!primals.empty(), op,
                    "expected primals with at least one tensor, got none; pass what is to be "
                    "differentiated");
  for (std::size_t i = 0; i < primals.size(); ++i) {
    const Tensor &x = primals[i], &t = tangents[i];
    if (!t.defined()) continue;
    check<ShapeError>(x.defined() && t.sizes() == x.sizes(), op, "the tangent of argument tensor ",
                      i, " must have the shape of its primal",
                      x.defined() ? str(" ", x.sizes()) : std::string(), ", got ", t.sizes(),
                      "; make it like the primal");
    check<TypeError>(t.dtype() == x.dtype() && is_floating(x.dtype()), op,
                     "the tangent of argument tensor ", i,
                     " must have the (floating) dtype of its primal, ", x.dtype(), ", got ",
                     t.dtype(), "; convert with to()");
    Interpreter::check_live(t, op);
  }
}
}  // namespace

std::pair<Tensors, Tensors> jvp(ListFn f, const Tensors& primals, const Tensors& tangents,
                                const char* op, const std::size_t& aux_from) {
  check_tangents(primals, tangents, op);
  Jvp j(thread_state().current);
  Tensors flat, boxes;
  for (std::size_t i = 0; i < primals.size(); ++i) {
    const Tensor &x = primals[i], &t = tangents[i];
    flat.push_back(x.defined() ? resolved(x) : x);
    Interpreter::check_live(x, op);
    boxes.push_back(x.defined() ? j.dual(flat[i], t.defined() ? resolved(t) : t) : Tensor());
    if (!x.defined()) continue;
    box_of(boxes[i]).argument = true;
    box_of(boxes[i]).frozen = t.defined();
  }
  Tensors out, dt;
  CopyBack back(flat, op);
  {
    Under under(&j);
    out = f(boxes);
    for (const Tensor& y : out) j.refresh(y);
    for (const Tensor& b : boxes) j.refresh(b);
  }
  check<ValueError>(!out.empty(), op,
                    "expected a function that returns tensors, got none; return what is to be "
                    "differentiated");
  for (std::size_t k = 0; k < out.size(); ++k) {
    Tensor& y = out[k];
    check<ValueError>(y.defined() || k >= aux_from, op,
                      "expected a function that returns defined tensors, got an undefined one; "
                      "leave it out");
    if (!y.defined()) continue;
    Tensor t = j.tangent(y);
    y = resolved(j.inner(y, op));
    if (k < aux_from) dt.push_back(t.defined() ? t : zeros_like(y));
  }
  for (std::size_t i = 0; i < boxes.size(); ++i)
    if (boxes[i].defined() && box_of(boxes[i]).writes > 0)
      back.note(i, j.inner(boxes[i], op), flat[i]);
  back.run();
  return {std::move(out), std::move(dt)};
}

struct Linearized::State {
  Pushforward push;
  Tensors primals, outputs;    // without values
  std::vector<bool> floating;  // which primals have tangents
};

std::pair<Tensors, Linearized> linearize(ListFn f, const Tensors& primals) {
  const char* const op = "linearize";
  const Tensors flat = resolved_all(primals);
  CopyBack back(flat, op);
  std::vector<bool> floating;
  Tensors shapes;
  for (const Tensor& x : flat) {
    floating.push_back(x.defined() && is_floating(x.dtype()));
    shapes.push_back(shape_of(x));
  }
  Grad g(thread_state().current, op, false);
  Recorded r = record(g, f, flat, floating, ~std::size_t{0}, op, back);
  back.run();
  Tensors outputs;
  for (const Tensor& y : r.out) outputs.push_back(shape_of(y));
  Linearized fn;
  fn.state = std::make_shared<Linearized::State>(
      Linearized::State{Pushforward(std::move(r.roots), std::move(r.leaves)), std::move(shapes),
                        std::move(outputs), std::move(floating)});
  return {std::move(r.out), std::move(fn)};
}

Tensors Linearized::operator()(const Tensors& tangents) const {
  check_tangents(state->primals, tangents, "linearize");
  std::vector<Tensor> seeds;
  for (std::size_t i = 0; i < tangents.size(); ++i)
    if (state->floating[i])
      seeds.push_back(tangents[i].defined() ? resolved(tangents[i]) : Tensor());
  const std::vector<Tensor> pushed = state->push(seeds);
  Tensors r;
  for (std::size_t k = 0; k < pushed.size(); ++k)
    r.push_back(pushed[k].defined() ? pushed[k] : zeros_like(state->outputs[k]));
  return r;
}

}  // namespace detail
}  // namespace tutti
