// Grad: the interpreter of one running grad, vjp or linearize. It runs ops under its parent and
// records nodes for those that depend on the differentiated arguments. NoGradGuard switches
// recording off (grad_enabled), but not that of linearize: tangents flow through it, as in jvp.
#pragma once
#include <tutti/autograd/node.h>
#include <tutti/core/interpreter.h>

namespace tutti {

struct GradBox final : Box {
  using Box::Box;
  Edge edge;  // empty: does not depend on the differentiated arguments
};

/// Whether a box of some grad depends on the arguments, and whether it is one of them.
inline bool depends(const Box& b) {
  return static_cast<const GradBox&>(b).edge.node.get() != nullptr;
}
inline bool is_argument(const Box& b) {
  return depends(b) && !static_cast<const GradBox&>(b).edge.node->op;
}

class Grad final : public Interpreter {
 public:
  explicit Grad(Interpreter* parent, const char* transform = "grad", bool heeds_no_grad = true)
      : Interpreter(parent, transform), heeds_no_grad_(heeds_no_grad) {}
  /// The same under the scope of another grad.
  Grad(Interpreter* parent, Ptr<Scope> scope, bool heeds_no_grad)
      : Interpreter(parent, std::move(scope)), heeds_no_grad_(heeds_no_grad) {}
  Tensors run(const Op& op, Inputs in, const Attrs& a) override;
  Tensor box(Tensor inner) const override;
  Tensor copy_box(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) const override;
  Reopen reopener() const override;
  /// A differentiated argument; TypeError unless floating.
  Tensor leaf(const Tensor& x) const;
  /// The value one level down (x itself if it is not a box of this grad).
  Tensor inner(const Tensor& x, const char* op) const;
  /// Where x came from; empty if it does not depend on the arguments.
  Edge edge(const Tensor& x) const;

 protected:
  void rebind(const Tensor& dst, const Tensor& src) override;
  void assign_captured(const Tensor& dst, const Tensor& src) override;

 private:
  bool recording() const { return grad_enabled || !heeds_no_grad_; }
  const bool heeds_no_grad_;
};

}  // namespace tutti
