// WriteGuard: finds in-place writes that code must not make, while it runs.
#pragma once
#include <unordered_set>

#include <tutti/core/interpreter.h>

namespace tutti {

/// Refuses, at the level it was made on, in-place writes to tensors that were not made since; or,
/// if `only` is given, to these and what shares their memory.
class WriteGuard : public Watch {
 public:
  WriteGuard(const char* op, const char* whose, const char* instead, const Tensors* only = nullptr);
  ~WriteGuard() override { thread_state().watch = outer_; }
  WriteGuard(const WriteGuard&) = delete;
  void uses(Inputs in) override;
  void writes(const Tensor& dst) override;
  void made(const void* p) override;
  bool has_made(const Tensor& x) const { return made_.count(key(*x.impl())) > 0; }

 protected:
  /// Called for every op at the guarded level.
  virtual void note(Inputs) {}

 private:
  static const void* key(const TensorImpl& x);
  const char *op_, *whose_, *instead_;
  Interpreter* const level_;
  Watch* const outer_;
  const bool all_;
  std::unordered_set<const void*> made_, guarded_;
};

}  // namespace tutti
