// Interpreters that tests put right above the root to see, or count, the ops that run.
#pragma once
#include <functional>
#include <memory>
#include <stdexcept>
#include <string_view>

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

/// Counts the ops that reach the root, and the elements they compute, while it exists.
class CountOps final : public tutti_test::Listener {
 public:
  std::int64_t ops = 0, elements = 0;
  std::int64_t largest = 0;  // elements in one result, other than of joining chunks

 protected:
  void heard(const tutti::Op& op, const tutti::Tensors& out) override {
    ++ops;
    for (const tutti::Tensor& y : out)
      if (!op.alias) {
        elements += y.numel();
        if (std::string_view(op.name) != "cat") largest = std::max(largest, y.numel());
      }
  }
};

/// The ops that f runs.
template <class F>
std::int64_t ops_of(F f) {
  CountOps count;
  f();
  return count.ops;
}

}  // namespace tutti_test
