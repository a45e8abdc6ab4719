// peek and capture_context.
#include <vector>

#include <tutti/autograd/grad_mode.h>
#include <tutti/core/ops.h>
#include <tutti/func/context.h>
#include <tutti/func/trace.h>
#include <tutti/func/vmap_interpreter.h>

namespace tutti::func {

namespace {

// x's values with `mapped` axes in front. `i` is the interpreter x may be a value of; null: Eval.
Tensor values(Interpreter* i, const Tensor& x, int& mapped) {
  if (!i) {
    const Box* b = as_box(x);
    check<TransformError>(!b, "peek", "expected a tensor of a transform that is active here, got ",
                          "one of a ", b ? b->scope->transform : "", " that is not");
    return x;
  }
  check<TransformError>(!dynamic_cast<const detail::Trace*>(i), "peek",
                        "values are not known inside compile, which only records; return the "
                        "tensor and look at it outside, or select with where()");
  if (!i->mine(x)) return values(i->parent, x, mapped);
  i->refresh(x);
  Tensor v = values(i->parent, as_box(x)->inner, mapped);
  const Vmap* m = dynamic_cast<const Vmap*>(i);
  if (!m) return v;
  const int axis = m->split(x, "peek").second;
  if (axis < 0) return v;
  v = movedim(v, axis + mapped, mapped);
  ++mapped;
  return v;
}

}  // namespace

Tensor peek(const Tensor& t) {
  check<ValueError>(t.defined(), "peek", "expected a defined tensor, got an undefined one");
  Interpreter::check_live(t, "peek");
  int mapped = 0;
  Interpreter* here = thread_state().current;
  Under root(nullptr);
  NoGradGuard guard;
  return clone(values(here, resolved(t), mapped));
}

struct Context::State {
  std::vector<std::pair<Ptr<Scope>, Interpreter::Reopen>> chain;  // outermost first
  std::vector<std::unique_ptr<SlotView>> views;                   // the same
  bool grad_mode = true;
  std::uint64_t region = 0;
};

struct Context::Entered::Saved {
  ThreadState state;
  std::vector<std::unique_ptr<Interpreter>> chain;
};

Context::Entered::Entered(const Context& c) : saved_(std::make_unique<Saved>()) {
  check<ValueError>(c.state_ != nullptr, "capture_context",
                    "expected a context made by capture_context(), got an empty one");
  const State& captured = *c.state_;
  Interpreter* top = nullptr;
  for (const auto& [scope, reopen] : captured.chain) {
    check<TransformError>(scope->alive.load() > 0, "capture_context", "expected to run while the ",
                          scope->transform,
                          " it was captured in is running, but that has ended; join the thread "
                          "before the transformed function returns");
    saved_->chain.push_back(reopen(top));
    top = saved_->chain.back().get();
  }
  ThreadState& s = thread_state();
  saved_->state = s;
  s.current = top;
  s.views = captured.views.empty() ? nullptr : captured.views.back().get();
  s.tape = nullptr;
  s.watch = nullptr;
  s.host_log = nullptr;
  s.region = captured.region;
  s.grad_mode = captured.grad_mode;
}

Context::Entered::~Entered() {
  ThreadState& s = thread_state();
  s.current = saved_->state.current;
  s.views = saved_->state.views;
  s.tape = saved_->state.tape;
  s.watch = saved_->state.watch;
  s.host_log = saved_->state.host_log;
  s.region = saved_->state.region;
  s.grad_mode = saved_->state.grad_mode;
}

Context capture_context() {
  const ThreadState& s = thread_state();
  auto state = std::make_shared<Context::State>();
  for (const Interpreter* i = s.current; i; i = i->parent)
    state->chain.emplace(state->chain.begin(), i->scope, i->reopener());
  for (const SlotView* v = s.views; v; v = v->outer)
    state->views.insert(state->views.begin(), v->copy());
  for (std::size_t k = 1; k < state->views.size(); ++k)
    state->views[k]->outer = state->views[k - 1].get();
  if (!state->views.empty()) state->views[0]->outer = nullptr;
  state->grad_mode = s.grad_mode;
  state->region = s.region;
  Context c;
  c.state_ = std::move(state);
  return c;
}

}  // namespace tutti::func
