// Progress of the training: one line that is rewritten on a terminal, plain lines elsewhere.
#pragma once
#include <cstdint>

namespace digits {

class Progress {
 public:
  explicit Progress(std::int64_t epochs);
  Progress(const Progress&) = delete;
  /// Ends the line, also when training ends by an exception.
  ~Progress();
  /// After an epoch: mean loss of the members, accuracy of the ensemble, and models x samples per
  /// second.
  void show(std::int64_t epoch, double loss, double accuracy, double rate);

 private:
  std::int64_t epochs_;
  bool terminal_;
  bool open_line_ = false;
};

}  // namespace digits
