// The training steps that the benchmarks measure: an ensemble of multilayer perceptrons, forward,
// loss, backward and Adam, on one batch that all members share. Parameters and data come from the
// baseline's Net, so that every engine starts from the same numbers.
#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <tutti/tutti.h>

#include "baselines/mlp.h"

namespace bench {

struct Case {
  int members, batch;
  std::vector<int> widths;
  double two_cores;  // how many times as fast two cores must be
  // Between tutti's parameters and the Eigen loop's after kCheckedSteps: the largest difference,
  // and the largest root mean square over those of one kind.
  double weight_max, weight_rms;

  std::string name() const;  // M32_16-64-64-4_B32
  Net net() const { return Net(members, batch, widths); }
};
const std::vector<Case>& cases();

/// How tutti runs the step; members_last: compiled, with parameters laid out like that.
enum class Way { eager, compiled, members_last };
struct WayInfo {
  Way way;
  const char* name;
  double over_eigen[5];  // for each case, the largest time as a multiple of the Eigen loop's; 0:
                         // not a way for it
};
std::span<const WayInfo> ways();

/// The ensemble in tutti, parameters and data on a device.
class Ensemble {
 public:
  Ensemble(const Net& start, Way way, tutti::Device device = tutti::kCPU);
  Ensemble(const Ensemble&) = delete;
  /// One training step; the losses before it, one per member.
  tutti::Tensor step();
  const tutti::TensorDict& parameters() const { return params_; }
  const tutti::Tensor& x() const { return x_; }
  const tutti::Tensor& y() const { return y_; }

 private:
  tutti::nn::Sequential model_;
  tutti::TensorDict params_;
  tutti::optim::Adam opt_;
  tutti::Tensor x_, y_;
  std::function<tutti::Tensor(const tutti::TensorDict&, const tutti::Tensor&, const tutti::Tensor&)>
      step_;
};

/// One step of the Eigen loop; the sum of the losses of all members and samples.
double eigen_step(Net& net);

/// Trains both for kCheckedSteps from the same start, tutti on `device`. Empty if losses and
/// weights agree, else what does not.
inline constexpr int kCheckedSteps = 20;
std::string disagreement(const Case& c, Way way, tutti::Device device = tutti::kCPU);

/// Writes a case to FOLDER/<name>.safetensors, for engines that are no part of the program: x, y,
/// the parameters, and the losses of step kCheckedSteps.
void write_case(const Case& c, const std::string& folder);

/// Denormal numbers count as zero from here on, in this thread and in the work it hands out.
void flush_denormals();

}  // namespace bench
