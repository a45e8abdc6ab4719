// Trace: the interpreter that records what a function does. It stands right above Eval; its values
// have shapes and no memory. An outermost vmap inside it is recorded once per block size, by a
// second Trace below the Vmap, whose graph becomes the body of one instruction.
#pragma once
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include <tutti/core/interpreter.h>
#include <tutti/func/graph.h>

namespace tutti::detail {

struct TraceBox final : Box {
  TraceBox(const Ptr<Scope>& s, Tensor&& inner, int v) : Box(s, std::move(inner)), value(v) {}
  int value;
};

/// Results of a vmapped function for some examples, as values of the interpreter below the vmap,
/// with their batch axis (-1: none).
struct Examples {
  struct Write {
    std::size_t argument;
    Tensor value;
    int axis;
  };
  Tensors out;
  SmallVec<int, 4> axes;
  std::vector<Write> writes;  // arguments that were changed in place
};

class Trace final : public Interpreter {
 public:
  /// Outermost, of a function whose tensors are on one device.
  explicit Trace(Device device) : Interpreter(nullptr, "compile") { graph_.device = device; }
  /// The body of a map: `outer` records what surrounds it. `per_member`: random ops draw for each
  /// example.
  Trace(Trace& outer, bool per_member)
      : Interpreter(&outer, "compile"), outer_(&outer), per_member_(per_member) {}

  Tensors run(const Op& op, Inputs in, const Attrs& a) override;
  void assign(const Tensor& dst, const Tensor& src) override;
  Tensor box(Tensor inner) const override;
  Tensor copy_box(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) const override;
  Reopen reopener() const override;

  /// Argument i of the function.
  Tensor argument(const Tensor& x, int i);
  /// The arguments that the function also knows as captured tensors.
  const std::vector<std::size_t>& met_again() const { return met_again_; }
  /// The number of x's value; x is made an input if it comes from outside.
  int value_of(const Tensor& x);

  /// Records `run(below, args, size)`, a vmap of `total` examples over the axes given, as one
  /// instruction, of at most `most` members at once. Results and writes have their batch axis at 0.
  /// Nothing if it cannot be run in blocks.
  using RunExamples =
      std::function<Examples(Interpreter& below, const Tensors& args, std::int64_t size)>;
  std::optional<Examples> map(const Tensors& args, const std::vector<int>& axes, std::int64_t total,
                              std::int64_t most, bool per_member, const RunExamples& run);

  /// The graph so far, with the writes to its inputs.
  Graph finish(const Tensors& outputs);

 protected:
  void rebind(const Tensor& dst, const Tensor& src) override;
  void assign_captured(const Tensor& dst, const Tensor& src) override;

 private:
  struct Body;
  /// A tensor from outside as an input, the same one every time.
  Tensor input(const Tensor& x, Source source);
  Tensor new_input(const Tensor& like, Source source);
  Tensor own_or_input(const Tensor& x, const char* op);
  Tensor wrap(int value, bool is_view = false) const;
  Body trace_body(const Tensors& args, const std::vector<int>& axes, std::int64_t size,
                  bool per_member, const RunExamples& run);

  struct Known {
    Tensor from, box;
    int argument;  // its number, or -1
  };
  Graph graph_;
  std::vector<Tensor> inputs_;                          // boxes of the graph's inputs
  std::unordered_map<const TensorImpl*, Known> known_;  // those, by the tensor from outside
  std::vector<std::size_t> met_again_;
  Trace* outer_ = nullptr;
  bool per_member_ = false;
};

/// Members per block of maps recorded from now on, for tests; 0: what suits the cache.
void set_block_members(std::int64_t n);

/// The Trace that ops go to now, or null.
Trace* tracing();

}  // namespace tutti::detail
