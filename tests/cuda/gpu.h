// What the CUDA tests share: moving values, and calls of the executor, where the program runs on
// it.
#pragma once
#include <string>
#include <vector>

#include <tutti/core/cuda.h>
#include <tutti/core/ops.h>

#include "../check.h"

namespace tutti_test {

inline Values to_device(const Values& v, tutti::Device d) {
  Values out;
  for (const Tensor& t : v) out.push_back(t.defined() ? tutti::to(t, d) : t);
  return out;
}
inline Values on_gpu(const Values& v) { return to_device(v, tutti::kCUDA); }

/// tests/cudasim's control functions, found at run time: on a real GPU they are not there.
class Executor {
 public:
  static bool present();
  /// cuBLAS calls since the last clear, one a line, as cudasim/control.h says.
  static std::vector<std::string> products();
  /// Kernels launched since the last clear, by their mangled names.
  static std::vector<std::string> launches();
  static void clear_logs();
  static unsigned long long graph_launches();
  /// The nth call from now on of a kind (malloc, launch, copy, other, any) fails, once.
  static void fail_at(unsigned long long n, const char* kind);
  static bool failed();
  static unsigned long long races();
  static unsigned long long live_bytes();
};

/// The number after "key=" in a log line, as text.
std::string field(const std::string& line, const std::string& key);

}  // namespace tutti_test
