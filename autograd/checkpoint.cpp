// checkpoint. The call runs like any other code. Afterwards the nodes it recorded, at every level
// that records (grad transforms and base autograd), are replaced by one node per level that keeps
// the arguments. Its edges are those that led out of the call: to arguments and to what the
// function captured. Its vjp reopens the transforms that were running, runs the function again, and
// pulls the gradients back as far as these edges.
#include <algorithm>
#include <unordered_set>

#include <tutti/autograd/autograd.h>
#include <tutti/autograd/checkpoint.h>
#include <tutti/autograd/grad_interpreter.h>
#include <tutti/core/watch.h>

namespace tutti::autograd {
namespace {

constexpr const char* kOp = "checkpoint";

bool is_grad(const Interpreter& i) { return std::string_view(i.scope->transform) == "grad"; }

// Restores what a checkpointed call changes in the thread's state.
class RestoreState {
 public:
  RestoreState() : state_(thread_state()), saved_(state_) {}
  ~RestoreState() {
    state_.views = saved_.views;
    state_.tape = saved_.tape;
    state_.watch = saved_.watch;
    state_.region = saved_.region;
    state_.grad_mode = saved_.grad_mode;
  }
  RestoreState(const RestoreState&) = delete;

 private:
  ThreadState& state_;
  const ThreadState saved_;
};

// Regions are numbered in the order they begin: a node belongs to all that were running, which are
// those with a number up to its own.
std::uint64_t new_region() {
  static std::atomic<std::uint64_t> regions{0};
  return regions.fetch_add(1, std::memory_order_relaxed) + 1;
}

// Calls edge(level, edge) for x and every value below it, down to level `last` (null: Eval), and
// gives a copy of x with the edges it returns; where it returns what it was given, at all levels,
// the copy is still one. `i` is the interpreter x is a value of; null: Eval.
using OnEdge = std::function<Edge(const Interpreter* level, const Edge&)>;
Tensor with_edges(Interpreter* i, const Interpreter* last, const Tensor& x, const OnEdge& on_edge) {
  if (!i) {
    eval_refresh(x);
    Tensor y = make_plain(x);
    const Record* r = record_of(x);
    if (Edge e = on_edge(nullptr, r ? r->edge : Edge{}); e.node)
      y.impl()->grad = std::make_unique<Record>(e.node, e.output);
    return y;
  }
  if (!i->mine(x)) return i == last ? x : with_edges(i->parent, last, x, on_edge);
  i->refresh(x);
  Edge e;
  if (is_grad(*i)) e = on_edge(i, static_cast<const GradBox*>(as_box(x))->edge);
  Tensor y = i->copy_box(x, [&](const Tensor& part) {
    return i == last ? part : with_edges(i->parent, last, part, on_edge);
  });
  if (is_grad(*i)) static_cast<GradBox*>(y.impl())->edge = e;
  return y;
}

// A handle on x's present value that later writes to a box do not reach.
Tensor private_copy(Interpreter* i, const Tensor& x) {
  if (!x.defined()) return x;
  return with_edges(i, nullptr, x, [](const Interpreter*, const Edge& e) { return e; });
}

// What the function used that it did not make.
class Uses final : public WriteGuard {
 public:
  explicit Uses(const Tensors& args)
      : WriteGuard(kOp, "the function",
                   "the recomputation would change it again: return the new value, or keep such "
                   "updates (a BatchNorm in training) out of the checkpoint") {
    for (const Tensor& x : args) seen_.insert(x.impl());  // they are kept in any case
  }
  std::vector<std::pair<Tensor, std::uint64_t>> found;  // and their versions

 protected:
  void note(Inputs in) override {
    for (const Tensor& x : in) {
      if (!x.defined() || has_made(x) || !seen_.insert(x.impl()).second) continue;
      found.emplace_back(resolved(x), version_of(x));
      TensorImpl* root = x.impl();
      while (root->view) root = root->view->base.impl();
      if (root->kind == TensorImpl::Kind::box) static_cast<Box*>(root)->remembered = true;
    }
  }

 private:
  std::unordered_set<const TensorImpl*> seen_;
};

// All that is needed to run the function again.
struct CheckpointCall {
  detail::CheckpointFn f;
  Tensors args;
  std::vector<Interpreter::Reopen> chain;  // outermost first
  std::vector<std::unique_ptr<SlotView>> views;
  std::vector<DrawTape::Entry> draws;
  std::vector<std::pair<Tensor, std::uint64_t>> used;  // arguments and captures, with versions

  Tensors run(const Tensors& in, void* result) const {
    Tensors out = f(in, result);
    for (Tensor& y : out) {
      check<ValueError>(y.defined(), kOp, "the function returned an undefined tensor");
      y = y.is_view() ? clone(y) : resolved(y);
    }
    return out;
  }
};

// One level's part of a call: what its node keeps.
struct Segment {
  std::shared_ptr<const CheckpointCall> call;
  std::size_t level = 0;  // position in call->chain + 1; 0: base autograd
  std::vector<Edge> ends;
};

struct Boundary {
  std::vector<Edge> edges;
  std::vector<Meta> metas;
};

// The edges that lead out of the nodes of a region.
Boundary boundary(const std::vector<Edge>& roots, std::uint64_t region) {
  Boundary b;
  std::vector<const Node*> nodes;
  std::unordered_set<const Node*> seen;
  auto add = [&](const Edge& e) {
    if (seen.insert(e.node.get()).second) nodes.push_back(e.node.get());
  };
  auto known = [&](const Edge& e) {
    return std::any_of(b.edges.begin(), b.edges.end(),
                       [&](const Edge& k) { return k.node == e.node && k.output == e.output; });
  };
  for (const Edge& e : roots) add(e);  // all of the region
  for (std::size_t i = 0; i < nodes.size(); ++i)
    for (std::size_t k = 0; k < nodes[i]->edges.size(); ++k) {
      const Edge& e = nodes[i]->edges[k];
      if (!e.node) continue;
      if (e.node->region >= region) {
        add(e);
      } else if (!known(e)) {
        b.edges.push_back(e);
        b.metas.push_back(nodes[i]->in()[k].meta);
      }
    }
  return b;
}

Tensors recompute_vjp(const Call& c, Inputs g, Needs) {
  const Segment& s = *static_cast<const Segment*>(c.attrs.closure.get());
  const CheckpointCall& call = *s.call;
  for (const auto& [x, version] : call.used)
    check<AutogradError>(version_of(x) == version, kOp, "a tensor of shape ", x.sizes(),
                         " that the function needs for its recomputation was changed in place "
                         "since; clone it before the in-place op");
  const std::uint64_t region = new_region();
  std::vector<Edge> roots;
  std::vector<std::unique_ptr<Interpreter>> chain;
  ThreadState& state = thread_state();
  Interpreter* top = state.current;
  const Interpreter* level = nullptr;
  for (std::size_t k = s.level ? s.level - 1 : 0; k < call.chain.size(); ++k) {
    chain.push_back(call.chain[k](top));
    top = chain.back().get();
    if (s.level && !level) level = top;
  }
  {
    RestoreState restore;
    DrawTape tape{call.draws, 0};
    state.tape = &tape;
    state.views = call.views.empty() ? nullptr : call.views.back().get();
    state.region = region;
    if (!s.level) state.grad_mode = true;
    Under under(top);
    for (const Tensor& y : call.run(call.args, nullptr))
      with_edges(top, level, y, [&](const Interpreter* i, const Edge& e) {
        if (i == level && e.node && e.node->region >= region) roots.push_back(e);
        return e;
      });
  }
  const Boundary b = boundary(roots, region);
  auto same_edge = [](const Edge& a, const Edge& d) {
    return a.node == d.node && a.output == d.output;
  };
  bool same = roots.size() == c.out.size() && b.edges.size() == s.ends.size() &&
              std::equal(b.edges.begin(), b.edges.end(), s.ends.begin(), same_edge);
  for (std::size_t k = 0; same && k < roots.size(); ++k) {
    const Meta& m = roots[k].node->out()[roots[k].output].meta;
    same = IntArrayRef(m.sizes) == c.out[k].sizes() && m.dtype == c.out[k].dtype();
  }
  check<AutogradError>(
      same, kOp,
      "expected the recomputation to use the same tensors and to return the same shapes as the "
      "call, but it did not; the function must not depend on what changes between the two");
  BackwardOptions o;
  o.base = !s.level;
  o.wanted = &b.edges;
  o.stop = true;
  std::vector<Tensor> grads = backward(roots, std::vector<Tensor>(g.begin(), g.end()), o);
  return Tensors(grads.begin(), grads.end());
}

constinit const Op checkpoint_op{.name = "checkpoint", .vjp = recompute_vjp};

}  // namespace

Tensors detail::checkpoint(CheckpointFn f, const Tensors& given, void* result) {
  ThreadState& state = thread_state();
  Interpreter* const top = state.current;
  std::vector<Interpreter*> chain;
  for (Interpreter* i = top; i; i = i->parent) chain.insert(chain.begin(), i);
  bool recording = state.grad_mode;
  for (const Interpreter* i : chain) recording = recording || (is_grad(*i) && i->grad_enabled);

  auto call = std::make_shared<CheckpointCall>();
  call->f = std::move(f);
  Tensors args;
  for (const Tensor& x : given) args.push_back(x.defined() ? resolved(x) : x);
  if (!recording) return call->run(args, result);

  for (const Tensor& x : args) {
    Interpreter::check_live(x, kOp);
    call->args.push_back(private_copy(top, x));
    if (x.defined()) call->used.emplace_back(call->args.back(), version_of(call->args.back()));
  }
  for (Interpreter* i : chain) call->chain.push_back(i->reopener());
  for (const SlotView* v = state.views; v; v = v->outer)
    call->views.insert(call->views.begin(), v->copy());
  for (std::size_t k = 0; k < call->views.size(); ++k)
    call->views[k]->outer = k ? call->views[k - 1].get() : nullptr;

  const std::uint64_t region = new_region();
  std::optional<Uses> uses;
  Tensors out;
  {
    RestoreState restore;
    DrawTape own;
    if (!state.tape) state.tape = &own;
    const auto start = static_cast<std::ptrdiff_t>(state.tape->at);
    uses.emplace(args);
    state.region = region;
    out = call->run(args, result);
    const std::vector<DrawTape::Entry>& all = state.tape->entries;
    call->draws.assign(all.begin() + start,
                       all.begin() + static_cast<std::ptrdiff_t>(state.tape->at));
  }
  for (auto& f : uses->found) call->used.push_back(std::move(f));

  // Per level: the edges of the results, and the node that takes their place.
  std::vector<std::vector<Edge>> roots(chain.size() + 1);
  auto level_of = [&](const Interpreter* i) {
    return static_cast<std::size_t>(i ? std::find(chain.begin(), chain.end(), i) - chain.begin() + 1
                                      : 0);
  };
  auto of_region = [&](const Edge& e) { return e.node && e.node->region >= region; };
  for (const Tensor& y : out)
    if (uses->has_made(y))
      with_edges(top, nullptr, y, [&](const Interpreter* i, const Edge& e) {
        if (of_region(e)) roots[level_of(i)].push_back(e);
        return e;
      });
  std::vector<Ptr<Node>> nodes(roots.size());
  for (std::size_t level = 0; level < roots.size(); ++level) {
    if (roots[level].empty()) continue;
    const Boundary b = boundary(roots[level], region);
    Attrs attrs;
    attrs.closure = std::make_shared<Segment>(Segment{call, level, b.edges});
    Ptr<Node> n = make_ref<Node>(&checkpoint_op, level ? "grad" : "backward", attrs);
    n->region = state.region;
    for (std::size_t k = 0; k < b.edges.size(); ++k) {
      n->add_edge(b.edges[k]);
      n->saved.emplace_back(b.metas[k]);
    }
    for (const Edge& e : roots[level]) n->saved.emplace_back(e.node->out()[e.output].meta);
    nodes[level] = std::move(n);
  }
  std::vector<std::uint32_t> next(roots.size());
  for (Tensor& y : out)
    if (uses->has_made(y))
      y = with_edges(top, nullptr, y, [&](const Interpreter* i, const Edge& e) {
        const std::size_t level = level_of(i);
        return of_region(e) ? Edge{nodes[level], next[level]++} : e;
      });
  return out;
}

}  // namespace tutti::autograd
