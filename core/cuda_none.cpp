// core/cuda.h in a build without CUDA: there is no device, and asking for one says so.
#include <tutti/core/cuda.h>
#include <tutti/core/error.h>
#include <tutti/core/tensor.h>

namespace tutti::cuda {
namespace {

[[noreturn]] void none(const char* what) {
  fail<DeviceError>(what, "expected a build with CUDA; configure tutti with -DTUTTI_CUDA=ON");
}

}  // namespace

struct CUDAStream::State {};

bool is_available() noexcept { return false; }
int device_count() noexcept { return 0; }
int current_device() { none("cuda::current_device"); }
void set_device(int) { none("cuda::set_device"); }
void synchronize(int) { none("cuda::synchronize"); }
CUDAGuard::CUDAGuard(int) : saved_(0) { none("cuda::CUDAGuard"); }
CUDAGuard::CUDAGuard(Device) : saved_(0) { none("cuda::CUDAGuard"); }
CUDAGuard::~CUDAGuard() = default;
CUDAStream::CUDAStream() { none("cuda::CUDAStream"); }
int CUDAStream::device_index() const { none("cuda::CUDAStream"); }
void* CUDAStream::stream() const { none("cuda::CUDAStream"); }
void CUDAStream::synchronize() const { none("cuda::CUDAStream"); }
bool CUDAStream::query() const { none("cuda::CUDAStream"); }
CUDAStream new_stream(int) { none("cuda::new_stream"); }
CUDAStream default_stream(int) { none("cuda::default_stream"); }
CUDAStream current_stream(int) { none("cuda::current_stream"); }
void set_current_stream(const CUDAStream&) { none("cuda::set_current_stream"); }
StreamGuard::StreamGuard(const CUDAStream&) : device_(0) { none("cuda::StreamGuard"); }
StreamGuard::~StreamGuard() = default;
CUDAEvent::CUDAEvent(bool) : event_(nullptr), device_(0) { none("cuda::CUDAEvent"); }
CUDAEvent::CUDAEvent(CUDAEvent&&) noexcept = default;
CUDAEvent::~CUDAEvent() = default;
void CUDAEvent::record(const CUDAStream&) { none("cuda::CUDAEvent"); }
void CUDAEvent::block(const CUDAStream&) const { none("cuda::CUDAEvent"); }
void CUDAEvent::synchronize() const { none("cuda::CUDAEvent"); }
bool CUDAEvent::query() const { none("cuda::CUDAEvent"); }
float CUDAEvent::elapsed_time(const CUDAEvent&) const { none("cuda::CUDAEvent"); }
MemoryStats memory_stats(int) { return {}; }
void reset_peak_memory_stats(int) {}
void empty_cache() {}
void record_stream(const Tensor&, const CUDAStream&) { none("cuda::record_stream"); }
Tensor pin_memory(const Tensor&) { none("cuda::pin_memory"); }
bool is_pinned(const Tensor&) { return false; }
void copy_async(const Tensor&, const Tensor&) { none("cuda::copy_async"); }
void check_errors() {}
void set_float32_matmul_precision(const char*) { none("cuda::set_float32_matmul_precision"); }
const char* get_float32_matmul_precision() { return "highest"; }

}  // namespace tutti::cuda
