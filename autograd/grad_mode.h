// Switching gradient recording off and on for a block of code, as torch.no_grad.
#pragma once
#include <utility>
#include <vector>

namespace tutti {

class Interpreter;

/// True if ops record gradients here: for the innermost grad transform, or, outside of one, for
/// base autograd.
bool is_grad_enabled();

/// Sets recording for base autograd and every grad transform running at that moment; a grad opened
/// inside starts enabled. Restores on destruction. Use as a local variable, on one thread.
class AutoGradMode {
 public:
  explicit AutoGradMode(bool enabled);
  ~AutoGradMode();
  AutoGradMode(const AutoGradMode&) = delete;

 private:
  bool base_;
  std::vector<std::pair<Interpreter*, bool>> saved_;
};

/// No recording in this block.
class NoGradGuard : public AutoGradMode {
 public:
  NoGradGuard() : AutoGradMode(false) {}
};

}  // namespace tutti
