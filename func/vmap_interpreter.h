// Vmap: the interpreter of one running vmap. A value is a tensor of the parent with a hidden batch
// axis, or has none and is the same for every example. Batch rules turn an op on hidden-axis values
// into ops of the parent; ops without a batched input pass straight down. Only Vmap knows the
// randomness modes.
#pragma once
#include <tutti/core/interpreter.h>
#include <tutti/core/op.h>
#include <tutti/func/randomness.h>

namespace tutti {

struct BatchBox final : Box {
  BatchBox(const Ptr<Scope>& scope, Tensor&& inner, int a)
      : Box(scope, std::move(inner), a), axis(a) {}
  int axis;  // of inner; -1: not batched
};

class Vmap final : public Interpreter {
 public:
  /// `size` examples, which are offset..offset+size of `total` where vmap runs in chunks. `axes`
  /// are those of its arguments (-1: not mapped), for error texts.
  Vmap(Interpreter* parent, std::int64_t size, Randomness randomness, std::int64_t offset,
       std::int64_t total, Axes axes)
      : Interpreter(parent, "vmap"),
        size_(size),
        offset_(offset),
        total_(total),
        axes_(axes.begin(), axes.end()),
        randomness_(randomness) {}
  /// The same under the scope of another vmap.
  Vmap(Interpreter* parent, Ptr<Scope> scope, std::int64_t size, Randomness randomness,
       std::int64_t offset, std::int64_t total, Axes axes)
      : Interpreter(parent, std::move(scope)),
        size_(size),
        offset_(offset),
        total_(total),
        axes_(axes.begin(), axes.end()),
        randomness_(randomness) {}
  Tensors run(const Op& op, Inputs in, const Attrs& a) override;
  std::string hidden_axis() const override;
  Tensor box(Tensor inner) const override { return batched(std::move(inner), -1); }
  Tensor copy_box(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) const override;
  Reopen reopener() const override;
  /// A value whose batch axis is `axis` (-1: none).
  Tensor batched(Tensor inner, int axis) const;
  /// The value one level down, and where its batch axis is.
  std::pair<Tensor, int> split(const Tensor& x, const char* op) const;

 protected:
  void rebind(const Tensor& dst, const Tensor& src) override;
  void assign_captured(const Tensor& dst, const Tensor& src) override;

 private:
  Tensors run_random(const Op& op, Inputs in, Axes axes, const Attrs& a);
  std::int64_t size_, offset_, total_;
  SmallVec<int, 4> axes_;
  Randomness randomness_;
};

}  // namespace tutti
