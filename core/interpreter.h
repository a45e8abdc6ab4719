// Interpreters: a thread-local chain, Eval at the root and one per active transform above it. An op
// goes to the current interpreter; its rule runs with the parent as current. Nothing else decides
// who sees an op.
//
// In-place. There is one mutating primitive, assign. Inside a transform no memory is written: the
// box is rebound to the new value. A view box remembers (base, view op) and re-reads its base when
// that has moved on; writing to a view assigns put(base, part) to the base. Only Eval touches
// memory.
//
// Lifetime: interpreters are stack objects of the function that runs the transform and belong to
// one thread.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <tutti/config.h>
#include <tutti/core/tensor_impl.h>

namespace tutti {

class Interpreter {
 public:
  Interpreter(Interpreter* parent, const char* transform);
  /// Runs under another one's scope: values of either are values of both.
  Interpreter(Interpreter* parent, Ptr<Scope> scope);
  Interpreter(const Interpreter&) = delete;
  virtual ~Interpreter() { --scope->alive; }

  virtual Tensors run(const Op& op, Inputs in, const Attrs& a) = 0;
  /// The result of elementwise `op` becomes dst's value. Eval writes straight into its memory where
  /// it can.
  virtual void run_inplace(const Op& op, const Tensor& dst, Inputs in, const Attrs& a);
  /// Writes src (any shape and dtype that fits) into dst.
  virtual void assign(const Tensor& dst, const Tensor& src);
  /// Brings a view up to date with its base.
  virtual void refresh(const Tensor& x);

  /// True if x is a box of this very transform call.
  bool mine(const Tensor& x) const {
    const Box* b = as_box(x);
    return b && b->scope == scope;
  }
  /// An input of an op as a box of mine, brought up to date; null if it is none, which then belongs
  /// to a transform that still runs.
  const Box* own(const Tensor& x, const char* op) {
    const TensorImpl* p = x.handle().get();
    if (!p || p->kind != TensorImpl::Kind::box) return nullptr;
    const Box* b = static_cast<const Box*>(p);
    if (b->scope != scope) {
      check_live(x, op);
      return nullptr;
    }
    if (b->view) refresh(x);
    return b;
  }
  /// Throws if x is a box of a transform that has ended.
  static void check_live(const Tensor& x, const char* op);

  Interpreter* const parent;
  const Ptr<Scope> scope;
  bool grad_enabled = true;  // read by Grad only; no_grad clears it on the chain of that moment

  /// The axis that users do not see here ("axis 0 of size 2"); empty: they see all. For error
  /// texts.
  virtual std::string hidden_axis() const { return {}; }

  /// A new box of this transform around `inner` (a value of the parent).
  virtual Tensor box(Tensor inner) const = 0;
  /// A box like x, one of mine, that is no view and that no write to x reaches; its parts, values
  /// of the parent, are what `f` makes of x's.
  virtual Tensor copy_box(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) const = 0;
  /// Makes the same transform under another parent, also after this one has ended: values of either
  /// are values of both.
  using Reopen = std::function<std::unique_ptr<Interpreter>(Interpreter* parent)>;
  virtual Reopen reopener() const = 0;

 protected:
  /// dst, a box of mine, takes over src's value and what hangs on it.
  virtual void rebind(const Tensor& dst, const Tensor& src) = 0;
  /// dst came from outside this transform. The default passes untracked values on to the parent.
  virtual void assign_captured(const Tensor& dst, const Tensor& src) = 0;
  /// Runs `op` under the parent.
  Tensors run_below(const Op& op, Inputs in, const Attrs& a);
  /// A share in the values of the parent that run() lends to an op. Nobody drops them and nobody
  /// rebinds their boxes meanwhile, unless the op calls code of the user's; only then it holds
  /// them.
  class Share {
   public:
    Share(const Lent& values, const Attrs& a) {
      if (a.closure) [[unlikely]]
        held_.emplace(Inputs(values).begin(), Inputs(values).end());
    }

   private:
    std::optional<Tensors> held_;
  };
  /// Marks `out` as the view `op` of in[0], if its inner value is one.
  void note_view(const Op& op, Inputs in, const Attrs& a, const Tensor& out);
  /// Makes `out` a view of in[0] in any case; for views that were run by their expansion.
  void link_view(const Op& op, Inputs in, const Attrs& a, const Tensor& out);

 private:
  friend class Eval;
  struct Root {};
  explicit Interpreter(Root);

  Interpreter* const below_;   // the parent, or Eval
  std::uint64_t rebinds_ = 0;  // in-place writes so far: while it stands still, no view is stale
};

/// src with dst's shape and dtype (broadcast, cast); ShapeError if it does not fit.
Tensor fit(const Tensor& src, const Tensor& dst);
/// The same value behind a handle that is not a slot.
inline Tensor resolved(const Tensor& x) { return Tensor(Ptr<TensorImpl>(x.impl())); }
/// The root: runs kernels, and records for base autograd when grad mode is on and an input carries
/// a record.
class Eval final : public Interpreter {
 public:
  Eval() : Interpreter(Root()) {}
  Tensors run(const Op& op, Inputs in, const Attrs& a) override;
  void run_inplace(const Op& op, const Tensor& dst, Inputs in, const Attrs& a) override;
  void assign(const Tensor& dst, const Tensor& src) override;
  void refresh(const Tensor& x) override;
  Tensor box(Tensor inner) const override { return inner; }
  Tensor copy_box(const Tensor& x, const std::function<Tensor(const Tensor&)>&) const override {
    return x;
  }
  Reopen reopener() const override { return {}; }

 protected:
  void rebind(const Tensor& dst, const Tensor& src) override;
  void assign_captured(const Tensor& dst, const Tensor& src) override;
};

/// A functional_call in progress: slots and what stands in for them. Views nest; the newest is
/// asked first.
struct SlotView {
  virtual ~SlotView() = default;
  /// The substitute (which may be an undefined tensor) or null if the slot is not in this view.
  virtual const Tensor* find(const TensorImpl* slot) const = 0;
  /// A view with the same substitutes that may live longer.
  virtual std::unique_ptr<SlotView> copy() const = 0;
  SlotView* outer = nullptr;
};

/// Sees what the code of a checkpointed function uses, changes and makes.
struct Watch {
  virtual ~Watch() = default;
  virtual void uses(Inputs in) = 0;
  virtual void writes(const Tensor& dst) = 0;
  /// A storage or a box.
  virtual void made(const void* p) = 0;
};

/// What code does on the host while func::compile records its ops.
struct HostLog {
  virtual ~HostLog() = default;
  /// The recording stands for the code only while `holds` says so.
  virtual void guard(std::function<bool()> holds) = 0;
  /// For every run of the recording: `before` its ops, and `after` them if none threw.
  virtual void each_run(std::function<void()> before, std::function<void()> after) = 0;
};

struct DrawTape;

/// What tutti keeps per thread.
struct ThreadState {
  Interpreter* current = nullptr;  // null: Eval
  SlotView* views = nullptr;
  DrawTape* tape = nullptr;  // random draws of the running chunked vmap or checkpoint
  Watch* watch = nullptr;
  HostLog* host_log = nullptr;
  std::uint64_t region = 0;  // nodes recorded now are marked with it; see autograd/checkpoint.cpp
  bool grad_mode = true;     // base autograd
  bool draining = false;     // destroy() is running
  const char* naming = nullptr;  // what errors name, if not the op that found them
  RefCounted* to_destroy = nullptr;
};
namespace detail {
extern constinit thread_local ThreadState state TUTTI_FAST_TLS;
}
inline ThreadState& thread_state() { return detail::state; }

using Kernel = void (*)(Inputs in, Inputs out, const Attrs& a);
/// The kernel of `op` for values on a device; null if it has none.
Kernel kernel_on(const Op& op, Device device);
/// Runs the kernel of `op`, which must have one, on outputs made for it; half types are computed in
/// float32 where the op wants that. half: any_half(in, out).
void run_kernel(const Op& op, Inputs in, Inputs out, const Attrs& a, bool half);
/// Whether one of the tensors is of a half type.
bool any_half(Inputs in, Inputs out);

/// The interpreter ops go to now.
Interpreter& current();
/// Brings the record of a dense view up to date with its base (see Eval).
void eval_refresh(const Tensor& x);
/// Says that the record of dense x is another one now, so that x's views take it over.
void record_changed(const Tensor& x);
/// Whether two dense tensors may share elements; true for some that interleave without touching.
bool may_overlap(const TensorImpl& a, const TensorImpl& b);

/// Runs the enclosed code under another interpreter; the only way to change it. Restores on a
/// throw.
class Under {
 public:
  explicit Under(Interpreter* i) : state_(thread_state()), saved_(state_.current) {
    state_.current = i;
  }
  ~Under() { state_.current = saved_; }
  Under(const Under&) = delete;

 private:
  ThreadState& state_;
  Interpreter* saved_;
};

/// Makes a functional_call view active for the enclosed code. Restores on a throw.
class UseView {
 public:
  explicit UseView(SlotView& v) : state_(thread_state()) {
    v.outer = state_.views;
    state_.views = &v;
  }
  ~UseView() { state_.views = state_.views->outer; }
  UseView(const UseView&) = delete;

 private:
  ThreadState& state_;
};

}  // namespace tutti
