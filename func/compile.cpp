// Recording a function, checking that a recording fits, and running it.
#include <algorithm>
#include <sstream>

#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/copy.h>
#include <tutti/core/ops.h>
#include <tutti/core/parallel.h>
#include <tutti/func/compile.h>
#include <tutti/func/frame.h>
#include <tutti/func/trace.h>

namespace tutti::detail {

bool may_compile() {
  const ThreadState& s = thread_state();
  return !s.current && !s.views && !s.watch;
}

namespace {

/// What a recording may rely on of a tensor.
struct Layout {
  explicit Layout(const Tensor& x) : defined(x.defined()) {
    if (!defined) return;
    const TensorImpl& i = *x.impl();
    dtype = i.dtype;
    device = i.device;
    sizes = i.sizes;
    strides = i.strides;
  }
  bool fits(const Tensor& x) const {
    const TensorImpl* i = x.impl();
    if (!i) return !defined;
    return defined && i->kind == TensorImpl::Kind::dense && i->dtype == dtype &&
           i->device == device && i->sizes == sizes && i->strides == strides;
  }
  bool defined;
  DType dtype = kFloat32;
  Device device;
  Shape sizes, strides;
};

/// Where a result comes from.
struct Output {
  enum Kind { none, fresh, argument, captured } kind = none;
  std::size_t index = 0;  // of the argument or captured tensor, or of the fresh memory
  int value = 0;
  bool whole = true;  // that tensor itself, not a view of it
};

class Log final : public HostLog {
 public:
  void guard(std::function<bool()> holds) override { guards.push_back(std::move(holds)); }
  void each_run(std::function<void()> before, std::function<void()> after) override {
    befores.push_back(std::move(before));
    afters.push_back(std::move(after));
  }
  std::vector<std::function<bool()>> guards;
  std::vector<std::function<void()>> befores, afters;
};

/// The thread's state while a function is recorded.
class Recorder {
 public:
  Recorder(Log& log, DrawTape& tape) : state_(thread_state()), tape_(state_.tape) {
    state_.host_log = &log;
    state_.tape = &tape;
  }
  ~Recorder() {
    state_.host_log = nullptr;
    state_.tape = tape_;
  }
  Recorder(const Recorder&) = delete;

 private:
  ThreadState& state_;
  DrawTape* tape_;
};

}  // namespace

struct Program::State {
  struct Draw {
    Generator generator;
    bool fixed;  // a generator of the function's own, which starts anew with every call
    Generator::Draw draw;
  };
  struct Change {  // of an input
    Source source;
    int input, value;
    bool in_place;
  };

  Graph graph;
  std::vector<Layout> arguments;
  std::vector<Tensor> captured;
  std::vector<Layout> captured_layouts;
  std::vector<std::pair<std::size_t, Tensor>> identities;  // arguments that f also captured
  std::vector<Change> changes;
  std::vector<Output> outputs;
  std::vector<int> fresh;  // roots of results in memory of their own
  std::vector<Draw> draws;
  std::vector<Generator::Draw> drawn;
  Log log;
  std::unique_ptr<Frame> frame;
  bool grad_mode = false;

  // Of the last call: arguments that did not change since need no second look at what they share.
  struct Seen {
    const TensorImpl* impl;
    const Storage* storage;
    std::int64_t offset;
    friend bool operator==(const Seen&, const Seen&) = default;
  };
  std::vector<Seen> seen;

  const Tensor& source(const Source& s, const std::vector<Tensor>& args) const {
    return s.kind == Source::argument ? args[static_cast<std::size_t>(s.index)]
                                      : captured[static_cast<std::size_t>(s.index)];
  }
  bool same_as_last_time(const std::vector<Tensor>& args);
  bool identities_hold(const std::vector<Tensor>& args) const;
  void check_overlaps(const std::vector<Tensor>& args) const;
  void check_untracked(const std::vector<Tensor>& args) const;
  void plan_outputs();
};

Program::Program(Program&&) noexcept = default;
Program::~Program() = default;

Program::Program(ListFn f, const Tensors& args, const CompileOptions& options)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.grad_mode = thread_state().grad_mode;
  DrawTape tape;
  tape.recording = true;
  {
    Recorder recorder(s.log, tape);
    const auto first =
        std::find_if(args.begin(), args.end(), [](const Tensor& x) { return x.defined(); });
    Trace trace(first == args.end() ? Device() : first->device());
    Tensors boxes;
    for (std::size_t i = 0; i < args.size(); ++i) {
      s.arguments.emplace_back(args[i]);
      boxes.push_back(args[i].defined() ? trace.argument(resolved(args[i]), static_cast<int>(i))
                                        : Tensor());
    }
    Under under(&trace);
    s.graph = trace.finish(f(boxes));
    for (const std::size_t i : trace.met_again()) s.identities.emplace_back(i, resolved(args[i]));
  }
  // Draws, in the order of their numbers.
  s.draws.reserve(tape.entries.size());
  std::sort(tape.entries.begin(), tape.entries.end(),
            [](const auto& a, const auto& b) { return a.draw.number < b.draw.number; });
  for (const DrawTape::Entry& e : tape.entries) {
    const long ours =
        std::count_if(tape.entries.begin(), tape.entries.end(),
                      [&](const DrawTape::Entry& o) { return o.generator.is_same(e.generator); });
    long before = 0;
    for (const State::Draw& d : s.draws) before += d.generator.is_same(e.generator);
    const bool fixed = e.generator.sharers() == ours + before;
    s.draws.push_back(
        {e.generator,
         fixed,
         {e.generator.seed(), e.generator.draws() + static_cast<std::uint64_t>(before)}});
  }
  s.drawn.resize(s.draws.size());

  simplify(s.graph);
  adopt_layouts(s.graph);
  join_maps(s.graph);
  block_chains(s.graph);
  simplify(s.graph);
  put_members_in_lanes(s.graph);
  finish_bodies(s.graph);
  for (Source& source : s.graph.sources) {
    if (source.kind != Source::captured) continue;
    source.index = static_cast<int>(s.captured.size());
    s.captured.push_back(std::move(source.tensor));
    s.captured_layouts.emplace_back(s.captured.back());
  }
  const std::vector<Graph::Write> in_place = writes_in_place(s.graph);
  for (const Graph::Write& w : s.graph.writes) {
    const auto at = std::find(s.graph.inputs.begin(), s.graph.inputs.end(), w.input);
    const bool direct = std::any_of(in_place.begin(), in_place.end(),
                                    [&](const Graph::Write& p) { return p.input == w.input; });
    s.changes.push_back({s.graph.sources[static_cast<std::size_t>(at - s.graph.inputs.begin())],
                         w.input, w.value, direct});
  }
  s.plan_outputs();
  s.frame = std::make_unique<Frame>(s.graph, in_place, s.fresh);
  if (options.cuda_graphs()) s.frame->use_graphs();
}

void Program::State::plan_outputs() {
  for (const int v : graph.outputs) {
    Output o;
    o.value = v;
    if (v >= 0) {
      int root = graph.root(v);
      o.whole = root == v;
      // The new value of an input is that input from then on.
      for (const Change& c : changes)
        if (c.value == root) root = c.input;
      const auto input = std::find(graph.inputs.begin(), graph.inputs.end(), root);
      if (input != graph.inputs.end()) {
        const Source& s = graph.sources[static_cast<std::size_t>(input - graph.inputs.begin())];
        o.kind = s.kind == Source::argument ? Output::argument : Output::captured;
        o.index = static_cast<std::size_t>(s.index);
      } else {
        o.kind = Output::fresh;
        o.index =
            static_cast<std::size_t>(std::find(fresh.begin(), fresh.end(), root) - fresh.begin());
        if (o.index == fresh.size()) fresh.push_back(root);
      }
    }
    outputs.push_back(o);
  }
}

bool Program::State::same_as_last_time(const std::vector<Tensor>& args) {
  const bool first = seen.size() != args.size();
  if (first) seen.assign(args.size(), {nullptr, nullptr, 0});
  bool same = !first;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const TensorImpl* x = args[i].impl();
    const Seen now{x, x ? x->storage.get() : nullptr, x ? x->offset : 0};
    same = same && now == seen[i];
    seen[i] = now;
  }
  return same;
}

bool Program::State::identities_hold(const std::vector<Tensor>& args) const {
  // They did in the last call.
  if (std::equal(args.begin(), args.end(), seen.begin(), seen.end(),
                 [](const Tensor& x, const Seen& s) { return x.impl() == s.impl; }))
    return true;
  for (const auto& [i, x] : identities)
    if (!args[i].is_same(x)) return false;
  for (const Tensor& x : args)
    for (const Tensor& c : captured)
      if (x.defined() && x.is_same(c)) return false;
  return true;
}

void Program::State::check_overlaps(const std::vector<Tensor>& args) const {
  for (const Change& c : changes) {
    const Tensor& to = source(c.source, args);
    const auto check_one = [&](const Tensor& x, const char* what, std::size_t i) {
      check<TransformError>(!x.defined() || !may_overlap(*to.impl(), *x.impl()), "compile",
                            c.source.kind == Source::argument ? "argument " : "captured tensor ",
                            c.source.index, " is changed in place, but ", what, " ", i,
                            " shares its memory; clone one of them");
    };
    for (std::size_t i = 0; i < args.size(); ++i)
      if (c.source.kind != Source::argument || c.source.index != static_cast<int>(i))
        check_one(args[i], "argument", i);
    for (std::size_t i = 0; i < captured.size(); ++i)
      if (c.source.kind != Source::captured || c.source.index != static_cast<int>(i))
        check_one(captured[i], "captured tensor", i);
  }
}

void Program::State::check_untracked(const std::vector<Tensor>& args) const {
  const auto check_one = [](const Tensor& x) {
    check<AutogradError>(
        !x.defined() || !x.impl()->grad, "compile",
        "expected tensors without history, or grad mode off, got a tensor that requires grad: a "
        "compiled function keeps nothing for backward(); put a NoGradGuard around the call and "
        "differentiate inside the function, for example with grad_and_value");
  };
  for (const Tensor& x : args) check_one(x);
  for (const Tensor& x : captured) check_one(x);
}

bool Program::accepts(const std::vector<Tensor>& args) {
  State& s = *state_;
  if (s.grad_mode != thread_state().grad_mode || args.size() != s.arguments.size()) return false;
  for (std::size_t i = 0; i < args.size(); ++i)
    if (!s.arguments[i].fits(args[i])) return false;
  for (std::size_t i = 0; i < s.captured.size(); ++i)
    if (!s.captured_layouts[i].fits(s.captured[i])) return false;
  for (const auto& holds : s.log.guards)
    if (!holds()) return false;
  return s.identities_hold(args);
}

Tensors Program::run(const std::vector<Tensor>& args) {
  State& s = *state_;
  if (s.grad_mode) s.check_untracked(args);
  if (!s.same_as_last_time(args)) {
    s.seen.clear();  // should the check throw
    s.check_overlaps(args);
    s.same_as_last_time(args);
  }
  for (std::size_t i = 0; i < s.draws.size(); ++i)
    s.drawn[i] = s.draws[i].fixed ? s.draws[i].draw : s.draws[i].generator.next();
  Frame& frame = *s.frame;
  for (std::size_t k = 0; k < s.graph.inputs.size(); ++k) {
    const TensorImpl& x = *s.source(s.graph.sources[k], args).impl();
    frame.point(s.graph.inputs[k], x.storage ? x.data() : nullptr);  // null: only a shape
  }
  Tensors fresh;
  for (const int root : s.fresh) {
    const GraphValue& v = s.graph.at(root);
    fresh.push_back(make_dense(v.sizes, v.dtype, s.graph.device));
    frame.point(root, fresh.back().raw());
  }
  for (const auto& f : s.log.befores) f();
  {
    FlushToZero flush;
    struct Done {  // also if a kernel throws
      Frame& frame;
      ~Done() { frame.done(); }
    } done{frame};
    frame.run(s.drawn);
    for (const State::Change& c : s.changes)
      if (!c.in_place) kernels::copy(s.source(c.source, args), frame.tensor(c.value));
  }
  for (const State::Change& c : s.changes) s.source(c.source, args).impl()->storage->bump();
  for (const auto& f : s.log.afters) f();
  Tensors out;
  for (const Output& o : s.outputs) {
    if (o.kind == Output::none) {
      out.emplace_back();
      continue;
    }
    const Tensor& base = o.kind == Output::fresh      ? fresh[o.index]
                         : o.kind == Output::argument ? args[o.index]
                                                      : s.captured[o.index];
    if (o.whole) {
      out.push_back(base);
      continue;
    }
    const GraphValue& v = s.graph.at(o.value);
    out.push_back(make_alias(base, v.sizes, v.strides, base.impl()->offset + v.offset));
    out.back().impl()->is_view = true;
  }
  return out;
}

std::string Program::text() const {
  std::ostringstream out;
  out << to_text(state_->graph);
  if (const CudaGraphStats g = cuda_graphs(); g.graphs > 0)
    out << "CUDA graphs: " << g.graphs << " of " << g.instructions << " instructions, "
        << g.captures << " captured, " << g.launches << " launched, " << g.copies
        << " copies with each call\n";
  return out.str();
}
CudaGraphStats Program::cuda_graphs() const { return state_->frame->graphs(); }
std::string Program::dot() const { return to_dot(state_->graph); }
std::int64_t Program::workspace_bytes() const { return state_->frame->arena_bytes(); }

}  // namespace tutti::detail
