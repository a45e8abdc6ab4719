// Jvp: the interpreter of one running jvp. Every value carries its tangent (undefined: a known
// zero); the op and then its jvp rule run under the parent.
#pragma once
#include <tutti/core/interpreter.h>

namespace tutti {

struct JvpBox final : Box {
  using Box::Box;
  Tensor tangent;
};

class Jvp final : public Interpreter {
 public:
  explicit Jvp(Interpreter* parent) : Interpreter(parent, "jvp") {}
  /// The same under the scope of another jvp.
  Jvp(Interpreter* parent, Ptr<Scope> scope) : Interpreter(parent, std::move(scope)) {}
  Tensors run(const Op& op, Inputs in, const Attrs& a) override;
  Tensor box(Tensor inner) const override;
  Tensor copy_box(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) const override;
  Reopen reopener() const override;
  Tensor dual(Tensor primal, Tensor tangent) const;
  /// The value one level down (x itself if it is not a box of this jvp).
  Tensor inner(const Tensor& x, const char* op) const;
  /// Undefined where it is zero.
  Tensor tangent(const Tensor& x) const;

 protected:
  void rebind(const Tensor& dst, const Tensor& src) override;
  void assign_captured(const Tensor& dst, const Tensor& src) override;
};

/// For a function with a derivative of its own for reverse mode only: NotImplementedError if a jvp
/// would have to differentiate it. Where a grad inside of the jvp uses that derivative, the jvp
/// differentiates its ops and those of the forward, and all is well.
void check_forward_mode(Inputs in, const char* op, const char* instead);

}  // namespace tutti
