// The products of a layer of M members (../gemm_layers.h) on the device: as one strided-batched
// product, and as a loop of single ones.
#pragma once
#include <string>
#include <vector>

#include "../gemm_layers.h"

namespace bench {

class DeviceLayer {
 public:
  DeviceLayer(const Sizes& s, Form form);

  /// All members in one call of cuBLAS.
  tutti::Tensor batched() const { return tutti::bmm(a_, b_); }
  /// One call for each member; the last one's result. The views of the members are made before.
  tutti::Tensor looped() const;
  double flops() const { return 2.0 * static_cast<double>(s_.members * s_.b * s_.k * s_.n); }
  /// Empty if both give what the CPU computes, else what does not.
  std::string disagreement() const;

 private:
  Sizes s_;
  tutti::Tensor a_, b_;
  std::vector<tutti::Tensor> each_a_, each_b_;
};

}  // namespace bench
