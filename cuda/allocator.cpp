// The caching allocator. A free block waits in a list of the stream that used it, where it may be
// used again at once: the stream's own order keeps old and new work apart. Another stream takes it
// only after an event. Sizes are rounded up to classes: multiples of 512 bytes to 4 KiB, four per
// octave above.
//
// With TUTTI_CUDA_CACHE=0 in the environment nothing is kept and nothing is rounded, so that checks
// of memory see every block come and go.
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/cuda/runtime.h>

namespace tutti::cuda {
namespace {

constexpr std::size_t kUnit = 512, kSmall = 4096;

std::size_t class_bytes(std::size_t bytes) {
  if (bytes <= kSmall) return std::max<std::size_t>((bytes + kUnit - 1) / kUnit, 1) * kUnit;
  const std::size_t step = std::bit_floor(bytes - 1) / 4;
  return (bytes + step - 1) / step * step;
}

bool caching() {
  static const bool on = [] {
    const char* v = std::getenv("TUTTI_CUDA_CACHE");
    return !v || std::string_view(v) != "0";
  }();
  return on;
}

/// All memory of one device.
class Pool {
 public:
  std::byte* allocate(std::size_t bytes, const Work& work) {
    const std::size_t size = caching() ? class_bytes(bytes) : std::max<std::size_t>(bytes, 1);
    Onlooker* const watched_by = onlooker();
    if (watched_by) [[unlikely]]
      if (void* p = watched_by->take(size)) return static_cast<std::byte*>(p);
    std::lock_guard lock(mutex_);
    void* p = take(size, work.stream());
    if (!p) p = from_driver(size, work.stream());
    if (!p) {
      clear();
      p = from_driver(size, work.stream());
    }
    check<OutOfMemoryError>(
        p != nullptr, "empty", "expected memory for ", bytes, " bytes on cuda:", work.device(),
        ", got none: ", stats_.allocated, " bytes are in use, ", stats_.cached,
        " are cached; drop tensors, or take smaller batches (vmap's chunk_size)");
    if (watched_by) [[unlikely]]
      watched_by->allocated(p, size);
    live_[p] = {size, work.stream(), {}};
    ++stats_.blocks;
    stats_.allocated += signed_size(size);
    stats_.peak_allocated = std::max(stats_.peak_allocated, stats_.allocated);
    return static_cast<std::byte*>(p);
  }

  void release(std::byte* p) noexcept {
    if (Onlooker* const o = onlooker(); o && o->give(p)) return;
    std::lock_guard lock(mutex_);
    const auto at = live_.find(p);
    if (at == live_.end()) return;
    const Block block = std::move(at->second);
    live_.erase(at);
    --stats_.blocks;
    stats_.allocated -= signed_size(block.size);
    for (const cudaStream_t user : block.users) wait_for(user, block.stream);
    if (!caching()) {
      to_driver(p, block.size, block.stream);
      return;
    }
    free_[block.stream][block.size].push_back(p);
    stats_.cached += signed_size(block.size);
  }

  void used_by(std::byte* p, cudaStream_t stream) {
    std::lock_guard lock(mutex_);
    const auto at = live_.find(p);
    if (at == live_.end() || at->second.stream == stream) return;
    std::vector<cudaStream_t>& users = at->second.users;
    if (std::find(users.begin(), users.end(), stream) == users.end()) users.push_back(stream);
  }

  /// `stream` is done and goes away: its blocks are the default stream's from now on.
  void forget(cudaStream_t stream) {
    std::lock_guard lock(mutex_);
    for (auto& [p, block] : live_) {
      if (block.stream == stream) block.stream = nullptr;
      std::erase(block.users, stream);
    }
    const auto at = free_.find(stream);
    if (at == free_.end()) return;
    Sizes& to = free_[nullptr];
    for (auto& [size, blocks] : at->second)
      to[size].insert(to[size].end(), blocks.begin(), blocks.end());
    free_.erase(stream);
  }

  void empty() {
    std::lock_guard lock(mutex_);
    clear();
  }
  MemoryStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peaks() {
    std::lock_guard lock(mutex_);
    stats_.peak_allocated = stats_.allocated;
    stats_.peak_reserved = stats_.reserved;
  }

 private:
  struct Block {
    std::size_t size = 0;
    cudaStream_t stream = nullptr;
    std::vector<cudaStream_t> users;  // other streams that use it
  };
  using Sizes = std::map<std::size_t, std::vector<void*>>;

  static std::int64_t signed_size(std::size_t n) { return static_cast<std::int64_t>(n); }

  /// What `stream` does from now on waits for what `other` has been given.
  static bool wait_for(cudaStream_t other, cudaStream_t stream) noexcept {
    cudaEvent_t e = nullptr;
    bool ok = cudaEventCreateWithFlags(&e, cudaEventDisableTiming) == cudaSuccess;
    ok = ok && cudaEventRecord(e, other) == cudaSuccess;
    ok = ok && cudaStreamWaitEvent(stream, e, 0) == cudaSuccess;
    if (!ok) ok = cudaStreamSynchronize(other) == cudaSuccess;  // slower, as safe
    if (e) cudaEventDestroy(e);
    return ok;
  }

  void* pop(Sizes& sizes, std::size_t size) {
    const auto at = sizes.find(size);
    if (at == sizes.end() || at->second.empty()) return nullptr;
    void* p = at->second.back();
    at->second.pop_back();
    stats_.cached -= signed_size(size);
    return p;
  }
  void* take(std::size_t size, cudaStream_t stream) {
    if (void* p = pop(free_[stream], size)) return p;
    for (auto& [other, sizes] : free_) {
      if (other == stream) continue;
      void* p = pop(sizes, size);
      if (!p) continue;
      if (wait_for(other, stream)) return p;
      sizes[size].push_back(p);
      stats_.cached += signed_size(size);
    }
    return nullptr;
  }

  void* from_driver(std::size_t size, cudaStream_t stream) {
    void* p = nullptr;
    ++stats_.driver_calls;
    const cudaError_t e = caching() ? cudaMalloc(&p, size) : cudaMallocAsync(&p, size, stream);
    if (e != cudaSuccess) {
      cudaGetLastError();
      if (e == cudaErrorMemoryAllocation) return nullptr;
      must(e, "empty");
    }
    stats_.reserved += signed_size(size);
    stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.reserved);
    return p;
  }
  void to_driver(void* p, std::size_t size, cudaStream_t stream) noexcept {
    ++stats_.driver_calls;
    stats_.reserved -= signed_size(size);
    if ((caching() ? cudaFree(p) : cudaFreeAsync(p, stream)) != cudaSuccess) cudaGetLastError();
  }
  /// cudaFree waits for the work that uses the block.
  void clear() {
    for (auto& [stream, sizes] : free_)
      for (auto& [size, blocks] : sizes)
        for (void* p : blocks) {
          to_driver(p, size, stream);
          stats_.cached -= signed_size(size);
        }
    free_.clear();
  }

  std::mutex mutex_;
  std::unordered_map<void*, Block> live_;
  std::map<cudaStream_t, Sizes> free_;
  MemoryStats stats_;
};

Pool& pool(int device) {  // never destroyed: tensors may outlive static objects
  static std::mutex mutex;
  static auto& pools = *new std::map<int, Pool>;
  std::lock_guard lock(mutex);
  return pools[device];
}

}  // namespace

MemoryStats memory_stats(int device) {
  return pool(device < 0 ? current_device() : device).stats();
}
void reset_peak_memory_stats(int device) {
  pool(device < 0 ? current_device() : device).reset_peaks();
}

void empty_cache() {
  release_products();
  release_transfers();
  release_faults();
  for (int d = 0; d < device_count(); ++d) {
    const CUDAGuard guard(d);
    pool(d).empty();
  }
}

void forget_memory(int device, cudaStream_t stream) noexcept { pool(device).forget(stream); }

void record_stream(const Tensor& x, const CUDAStream& stream) {
  const Tensor v = resolved(x);
  check<DeviceError>(v.is_cuda() && !as_box(v), "cuda::record_stream",
                     "expected a tensor with memory on a GPU, got one on ", v.device(),
                     "; other memory needs no record");
  pool(v.device().index)
      .used_by(v.impl()->storage->data(), static_cast<cudaStream_t>(stream.stream()));
}

Scratch::Scratch(std::size_t bytes, const Work& work)
    : data_(nullptr), device_(kCUDA, work.device()) {
  data_ = pool(work.device()).allocate(bytes, work);
}
Scratch::~Scratch() { pool(device_.index).release(data_); }

}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

std::byte* allocate(std::size_t bytes, Device device) {
  const tutti::cuda::Work work(device);
  return tutti::cuda::pool(work.device()).allocate(bytes, work);
}

void release(std::byte* p, Device device) noexcept {
  if (p) tutti::cuda::pool(device.index).release(p);
}

}  // namespace tutti::kernels::cuda
