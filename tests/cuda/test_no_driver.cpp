// A CUDA build where no device is to be seen: it computes on the CPU, and asking for CUDA says why
// that cannot be.
#include <tutti/core/cuda.h>
#include <tutti/core/ops.h>
#include <tutti/nn/nn.h>

#include "../test.h"

using namespace tutti;

TEST_CASE("without a device CUDA is not available, and the CPU is") {
  CHECK(!cuda::is_available());
  CHECK(cuda::device_count() == 0);
  CHECK((ones({3}) * 2).sum().item<float>() == 6);
}

TEST_CASE("asking for CUDA is an error that says what is missing") {
  const Tensor x = ones({3});
  CHECK_THROWS_SAYING(x.to(kCUDA), DeviceError, "[to]", "CUDA device", "none");
  CHECK_THROWS_SAYING(x.cuda(), DeviceError, "CUDA device", "driver");
  CHECK_THROWS_SAYING(zeros({2}, TensorOptions(kCUDA)), DeviceError, "CUDA device");
  nn::Linear layer(2, 3);
  CHECK_THROWS_SAYING(layer->to(kCUDA), DeviceError, "CUDA device");
  CHECK_THROWS_SAYING(cuda::synchronize(), DeviceError, "CUDA device");
  CHECK(layer->weight.is_cpu());
}
