// CUDA devices: which there are, streams and events, and their memory. In a build without CUDA
// there are none, and what needs one is a DeviceError.
#pragma once
#include <cstdint>
#include <memory>

#include <tutti/core/device.h>

namespace tutti {

class Tensor;

namespace cuda {

/// Whether this build has CUDA and a device is there to use.
bool is_available() noexcept;
/// The number of devices; 0 without a driver.
int device_count() noexcept;
/// The calling thread's device, which kCUDA without an index means.
int current_device();
void set_device(int index);
/// Waits for all work of a device (-1: the current one), and reports errors its kernels found.
void synchronize(int device = -1);

/// The calling thread's device while it lives.
class CUDAGuard {
 public:
  explicit CUDAGuard(int index);
  explicit CUDAGuard(Device device);
  ~CUDAGuard();
  CUDAGuard(const CUDAGuard&) = delete;

 private:
  [[maybe_unused]] int saved_;
};

/// A queue of work on one device. Copies are the same queue.
class CUDAStream {
 public:
  /// The default stream of the current device.
  CUDAStream();
  int device_index() const;
  /// The cudaStream_t; null for the default stream.
  void* stream() const;
  /// Waits until its work is done.
  void synchronize() const;
  /// Whether its work is done.
  bool query() const;
  friend bool operator==(const CUDAStream& a, const CUDAStream& b) { return a.state_ == b.state_; }

 private:
  struct State;
  struct Empty {};
  friend struct StreamAccess;
  explicit CUDAStream(Empty) {}
  std::shared_ptr<State> state_;
};

/// A new stream, which does not wait for others.
CUDAStream new_stream(int device = -1);
CUDAStream default_stream(int device = -1);
/// The stream the calling thread's ops on a device go to.
CUDAStream current_stream(int device = -1);
void set_current_stream(const CUDAStream& stream);

/// The calling thread's stream, and its device, while it lives.
class StreamGuard {
 public:
  explicit StreamGuard(const CUDAStream& stream);
  ~StreamGuard();
  StreamGuard(const StreamGuard&) = delete;

 private:
  [[maybe_unused]] int device_;
  CUDAStream saved_;
};

/// A point in a stream's work that others can wait for.
class CUDAEvent {
 public:
  /// With `timing`, elapsed_time() can be asked.
  explicit CUDAEvent(bool timing = false);
  CUDAEvent(CUDAEvent&&) noexcept;
  ~CUDAEvent();
  CUDAEvent(const CUDAEvent&) = delete;
  /// Marks the end of what the stream has been given so far.
  void record(const CUDAStream& stream);
  void record() { record(current_stream()); }
  /// Work given to `stream` from now on waits for it.
  void block(const CUDAStream& stream) const;
  void synchronize() const;
  bool query() const;
  /// Milliseconds from this event to `end`.
  float elapsed_time(const CUDAEvent& end) const;

 private:
  [[maybe_unused]] void* event_;
  [[maybe_unused]] int device_;
};

/// What the caching allocator of a device holds, in bytes and blocks.
struct MemoryStats {
  std::int64_t allocated = 0;       // by living tensors
  std::int64_t peak_allocated = 0;  // the most of it
  std::int64_t reserved = 0;        // taken from the driver: allocated or cached
  std::int64_t peak_reserved = 0;
  std::int64_t cached = 0;        // free blocks
  std::int64_t blocks = 0;        // living
  std::int64_t driver_calls = 0;  // cudaMalloc and cudaFree so far
};
MemoryStats memory_stats(int device = -1);
void reset_peak_memory_stats(int device = -1);
/// Gives all free blocks back to the driver.
void empty_cache();
/// Says that `stream`, not the one x was made on, uses x: its memory is not reused before that is
/// done.
void record_stream(const Tensor& x, const CUDAStream& stream);

/// x, on the CPU, in memory that a device can read and write by itself: copies from and to it need
/// not wait.
Tensor pin_memory(const Tensor& x);
bool is_pinned(const Tensor& x);
/// dst.copy_(src) between a pinned tensor and one on a device, queued on the current stream; both
/// stay alive until it is done. Values are there after a synchronize.
void copy_async(const Tensor& dst, const Tensor& src);

/// Errors that kernels found (an index out of range) are reported at the next point where the CPU
/// waits for the device; this is such a point.
void check_errors();

/// How float32 products are computed: "highest" (float32 throughout, the default), "high" or
/// "medium" (operands rounded to TF32 where the device has it).
void set_float32_matmul_precision(const char* precision);
const char* get_float32_matmul_precision();

}  // namespace cuda
}  // namespace tutti
