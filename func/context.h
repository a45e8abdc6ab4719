// Looking into running transforms, and taking them along to another thread.
#pragma once
#include <memory>
#include <utility>

#include <tutti/core/tensor.h>

namespace tutti::func {

/// The value of t inside any transforms, for all members at once: a plain tensor with the mapped
/// axes in front, the outermost vmap's first (an axis along which t is the same for all members is
/// left out), then t's own. Detached and copied, so it can be printed, read, kept and written to;
/// the transforms do not see it. TransformError if t's transform has ended or runs elsewhere.
Tensor peek(const Tensor& t);

/// The transforms and functional_call views that are active where capture_context() is called.
class Context {
 public:
  /// Calls fn() under the captured transforms and views, on any thread, and returns what it
  /// returns. Tensors of the captured transforms can be used in it, and what it computes belongs
  /// to them. The thread's own transforms are set aside meanwhile, and what fn throws passes
  /// through. Each call opens the transforms anew, so several threads may run() at once, as long as
  /// they change no shared tensor in place. Join the thread before the transformed function
  /// returns: a context whose transform has ended is a TransformError. Random draws are those of
  /// the thread's order of calls; give each thread a Generator of its own.
  template <class F>
  auto run(F&& fn) const {
    Entered entered(*this);
    return std::forward<F>(fn)();
  }

 private:
  friend Context capture_context();
  struct State;
  class Entered {
   public:
    explicit Entered(const Context& c);
    ~Entered();
    Entered(const Entered&) = delete;

   private:
    struct Saved;
    std::unique_ptr<Saved> saved_;
  };
  std::shared_ptr<const State> state_;
};

/// Captures the active transforms and views, to be used on another thread:
///   auto context = func::capture_context();
///   auto y = std::async([&] { return context.run([&] { return f(x); }); }).get();
Context capture_context();

}  // namespace tutti::func
