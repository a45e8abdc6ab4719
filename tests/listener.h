// An interpreter that tests put right above the root to see the ops that run.
#pragma once
#include <functional>
#include <memory>
#include <stdexcept>

#include <tutti/core/interpreter.h>
#include <tutti/core/op.h>

namespace tutti_test {

/// Sees every op that reaches the root while it exists. Values pass through as they are, so it
/// stands below all transforms of the enclosed code.
class Listener : public tutti::Interpreter {
 public:
  Listener() : Interpreter(nullptr, "listener"), under_(this) {}
  tutti::Tensors run(const tutti::Op& op, tutti::Inputs in, const tutti::Attrs& a) final {
    tutti::Under under(parent);
    tutti::Tensors out = tutti::run(op, in, a);
    heard(op, out);
    return out;
  }
  tutti::Tensor box(tutti::Tensor inner) const final { return inner; }
  tutti::Tensor copy_box(const tutti::Tensor& x,
                         const std::function<tutti::Tensor(const tutti::Tensor&)>&) const final {
    return x;
  }
  Reopen reopener() const final {
    return [](Interpreter*) -> std::unique_ptr<Interpreter> {
      throw std::logic_error("a listener is not carried elsewhere");
    };
  }

 protected:
  virtual void heard(const tutti::Op& op, const tutti::Tensors& out) = 0;
  void rebind(const tutti::Tensor& dst, const tutti::Tensor& src) final {
    assign_captured(dst, src);
  }
  void assign_captured(const tutti::Tensor& dst, const tutti::Tensor& src) final {
    tutti::Under under(parent);
    tutti::assign(dst, src);
  }

 private:
  tutti::Under under_;
};

}  // namespace tutti_test
