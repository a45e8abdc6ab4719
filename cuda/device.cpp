// Devices, streams, events, and errors that kernels report.
#include <array>
#include <atomic>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/index.h>
#include <tutti/core/ops/records.h>
#include <tutti/cuda/runtime.h>

namespace tutti::cuda {

void must(cudaError_t e, std::string_view op) {
  if (e == cudaSuccess) [[likely]]
    return;
  cudaGetLastError();  // the next call starts afresh
  fail<DeviceError>(op, "expected CUDA to succeed, got ", cudaGetErrorName(e), " (",
                    cudaGetErrorString(e),
                    "); if the device is lost, only a new process can use it again");
}

// ---- devices

namespace {

struct Devices {
  int count = 0;
  cudaError_t error = cudaSuccess;
  Devices() {
    error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess) return;
    count = 0;
    cudaGetLastError();
  }
};
const Devices& devices() {
  static const Devices d;
  return d;
}

void need_device(int index, std::string_view op) {
  const Devices& d = devices();
  if (index >= 0 && index < d.count) [[likely]]
    return;
  check<DeviceError>(d.count > 0, op, "expected a CUDA device, found none (",
                     cudaGetErrorName(d.error), ": ", cudaGetErrorString(d.error),
                     "); stay on the CPU, or install a driver");
  fail<DeviceError>(op, "expected a device below cuda:", d.count, ", got cuda:", index,
                    "; this machine has ", d.count);
}

int index_or_current(int index) { return index < 0 ? current_device() : index; }

}  // namespace

bool is_available() noexcept { return devices().count > 0; }
int device_count() noexcept { return devices().count; }

int current_device() {
  need_device(0, "cuda::current_device");
  int d = 0;
  must(cudaGetDevice(&d), "cuda::current_device");
  return d;
}

void set_device(int index) {
  need_device(index, "cuda::set_device");
  must(cudaSetDevice(index), "cuda::set_device");
}

void synchronize(int device) {
  const Work work(Device(kCUDA, device));
  {
    std::lock_guard lock(capture_mutex());
    must(cudaDeviceSynchronize(), "cuda::synchronize");
  }
  drop_done_transfers();
  report_index_fault(work);
}

CUDAGuard::CUDAGuard(int index) : saved_(current_device()) { set_device(index); }
CUDAGuard::CUDAGuard(Device device) : CUDAGuard(index_or_current(device.index)) {}
CUDAGuard::~CUDAGuard() { cudaSetDevice(saved_); }

// ---- streams

struct CUDAStream::State {
  int device = 0;
  cudaStream_t stream = nullptr;
  ~State() {
    int now = 0;
    if (!stream || cudaGetDevice(&now) != cudaSuccess) return;  // the driver may be gone by now
    cudaSetDevice(device);
    cudaStreamSynchronize(stream);
    forget_products(device, stream);
    forget_memory(device, stream);
    cudaStreamDestroy(stream);
    cudaSetDevice(now);
  }
};

struct StreamAccess {
  static CUDAStream make(int device, cudaStream_t s) {
    CUDAStream out{CUDAStream::Empty{}};
    out.state_ = std::make_shared<CUDAStream::State>();
    out.state_->device = device;
    out.state_->stream = s;
    return out;
  }
  static cudaStream_t of(const CUDAStream& s) { return s.state_->stream; }
};

namespace {

constexpr std::size_t kMostDevices = 128;

/// The streams of this thread; empty: the default one.
std::array<std::optional<CUDAStream>, kMostDevices>& thread_streams() {
  thread_local std::array<std::optional<CUDAStream>, kMostDevices> streams;
  return streams;
}
cudaStream_t thread_stream(int device) {
  const auto& s = thread_streams()[static_cast<std::size_t>(device)];
  return s ? StreamAccess::of(*s) : nullptr;
}

}  // namespace

CUDAStream::CUDAStream() : CUDAStream(default_stream()) {}
int CUDAStream::device_index() const { return state_->device; }
void* CUDAStream::stream() const { return state_->stream; }
void CUDAStream::synchronize() const {
  const CUDAGuard guard(state_->device);
  must(cudaStreamSynchronize(state_->stream), "cuda::CUDAStream");
}
bool CUDAStream::query() const {
  const CUDAGuard guard(state_->device);
  const cudaError_t e = cudaStreamQuery(state_->stream);
  if (e == cudaErrorNotReady) return false;
  must(e, "cuda::CUDAStream");
  return true;
}

CUDAStream new_stream(int device) {
  const CUDAGuard guard(index_or_current(device));
  cudaStream_t s = nullptr;
  must(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "cuda::new_stream");
  return StreamAccess::make(current_device(), s);
}

CUDAStream default_stream(int device) {
  static std::mutex mutex;
  static std::array<std::optional<CUDAStream>, kMostDevices> made;
  const int d = index_or_current(device);
  need_device(d, "cuda::default_stream");
  std::lock_guard lock(mutex);
  auto& s = made[static_cast<std::size_t>(d)];
  if (!s) s = StreamAccess::make(d, nullptr);
  return *s;
}

CUDAStream current_stream(int device) {
  const int d = index_or_current(device);
  need_device(d, "cuda::current_stream");
  const auto& s = thread_streams()[static_cast<std::size_t>(d)];
  return s ? *s : default_stream(d);
}

void set_current_stream(const CUDAStream& stream) {
  thread_streams()[static_cast<std::size_t>(stream.device_index())] = stream;
}

StreamGuard::StreamGuard(const CUDAStream& stream)
    : device_(current_device()), saved_(current_stream(stream.device_index())) {
  set_device(stream.device_index());
  set_current_stream(stream);
}
StreamGuard::~StreamGuard() {
  set_current_stream(saved_);
  cudaSetDevice(device_);
}

// ---- work

Work::Work(Device device) : device_(device.index), saved_(-1), stream_(nullptr) {
  const int now = current_device();
  if (device_ < 0) device_ = now;
  if (device_ != now) {
    need_device(device_, "cuda");
    must(cudaSetDevice(device_), "cuda");
    saved_ = now;
  }
  stream_ = thread_stream(device_);
}
Work::~Work() {
  if (saved_ >= 0) cudaSetDevice(saved_);
}

// ---- events

CUDAEvent::CUDAEvent(bool timing) : event_(nullptr), device_(current_device()) {
  cudaEvent_t e = nullptr;
  must(cudaEventCreateWithFlags(&e, timing ? cudaEventDefault : cudaEventDisableTiming),
       "cuda::CUDAEvent");
  event_ = e;
}
CUDAEvent::CUDAEvent(CUDAEvent&& o) noexcept
    : event_(std::exchange(o.event_, nullptr)), device_(o.device_) {}
CUDAEvent::~CUDAEvent() {
  if (event_) cudaEventDestroy(static_cast<cudaEvent_t>(event_));
}
void CUDAEvent::record(const CUDAStream& stream) {
  check<DeviceError>(stream.device_index() == device_, "cuda::CUDAEvent",
                     "expected a stream of the event's device cuda:", device_,
                     ", got cuda:", stream.device_index(), "; make the event under a CUDAGuard");
  const CUDAGuard guard(device_);
  must(cudaEventRecord(static_cast<cudaEvent_t>(event_), StreamAccess::of(stream)),
       "cuda::CUDAEvent");
}
void CUDAEvent::block(const CUDAStream& stream) const {
  const CUDAGuard guard(stream.device_index());
  must(cudaStreamWaitEvent(StreamAccess::of(stream), static_cast<cudaEvent_t>(event_), 0),
       "cuda::CUDAEvent");
}
void CUDAEvent::synchronize() const {
  must(cudaEventSynchronize(static_cast<cudaEvent_t>(event_)), "cuda::CUDAEvent");
}
bool CUDAEvent::query() const {
  const cudaError_t e = cudaEventQuery(static_cast<cudaEvent_t>(event_));
  if (e == cudaErrorNotReady) return false;
  must(e, "cuda::CUDAEvent");
  return true;
}
float CUDAEvent::elapsed_time(const CUDAEvent& end) const {
  float ms = 0;
  must(cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(event_),
                            static_cast<cudaEvent_t>(end.event_)),
       "cuda::CUDAEvent");
  return ms;
}

// ---- bad indices

namespace {

struct FaultSlot {
  std::mutex mutex;
  IndexFault* slot = nullptr;
  bool armed = false;  // a kernel that may write has been launched since the last look
  int users = 0;       // graphs
};
FaultSlot& fault_slot(int device) {  // never destroyed
  static auto& slots = *new std::array<FaultSlot, kMostDevices>;
  return slots[static_cast<std::size_t>(device)];
}

const char* name_of(IndexOp op) {
  switch (op) {
    case IndexOp::gather:
      return "gather";
    case IndexOp::index:
      return "index";
    case IndexOp::scatter:
    case IndexOp::scatter_add:
      return "scatter";
    case IndexOp::index_put:
      return "index_put_";
    case IndexOp::one_hot:
      return "one_hot";
    case IndexOp::cross_entropy:
      break;
  }
  return "cross_entropy_loss";
}

}  // namespace

void keep_faults(int device, int change) {
  FaultSlot& f = fault_slot(device);
  std::lock_guard lock(f.mutex);
  f.users += change;
}

IndexFault* index_fault(const Work& work) {
  if (Onlooker* const o = onlooker()) o->may_find_fault();
  FaultSlot& f = fault_slot(work.device());
  std::lock_guard lock(f.mutex);
  if (!f.slot) {
    void* p = nullptr;
    must(cudaMalloc(&p, sizeof(IndexFault)), "cuda");
    cudaError_t e = cudaMemsetAsync(p, 0, sizeof(IndexFault), work.stream());
    if (e == cudaSuccess) e = cudaStreamSynchronize(work.stream());
    if (e != cudaSuccess) cudaFree(p);
    must(e, "cuda");
    f.slot = static_cast<IndexFault*>(p);
  }
  f.armed = true;
  return f.slot;
}

void report_index_fault(const Work& work) {
  FaultSlot& f = fault_slot(work.device());
  IndexFault found{};
  {
    std::lock_guard lock(f.mutex);
    if (!f.armed) return;
    must(cudaMemcpyAsync(&found, f.slot, sizeof found, cudaMemcpyDeviceToHost, work.stream()),
         "cuda");
    must(cudaStreamSynchronize(work.stream()), "cuda");
    f.armed = false;
    if (!found.found) return;
    must(cudaMemsetAsync(f.slot, 0, sizeof found, work.stream()), "cuda");
    must(cudaStreamSynchronize(work.stream()), "cuda");
  }
  struct Unnamed {  // it is another op's error than the one that runs now
    const char* const saved = std::exchange(thread_state().naming, nullptr);
    ~Unnamed() { thread_state().naming = saved; }
  } unnamed;
  check_indices(name_of(static_cast<IndexOp>(found.op)), {found.index, found.index}, found.size,
                found.from_end != 0);
}

void release_faults() {
  for (int d = 0; d < device_count(); ++d) {
    FaultSlot& f = fault_slot(d);
    std::lock_guard lock(f.mutex);
    if (!f.slot || f.armed || f.users > 0) continue;
    const CUDAGuard guard(d);
    cudaFree(std::exchange(f.slot, nullptr));
  }
}

void check_errors() {
  for (int d = 0; d < device_count(); ++d) {
    const CUDAGuard guard(d);
    report_index_fault(Work(Device(kCUDA, d)));
  }
}

}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

Device resolve(Device device) {
  const int index = device.index >= 0             ? device.index
                    : tutti::cuda::is_available() ? tutti::cuda::current_device()
                                                  : 0;
  tutti::cuda::need_device(index, "empty");
  return Device(kCUDA, index);
}

}  // namespace tutti::kernels::cuda
