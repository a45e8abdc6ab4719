// What the files of cuda/ share on the host: error checks, the device and stream work goes to, and
// memory that lives as long as the work queued with it.
#pragma once
#include <mutex>
#include <string_view>

#include <cuda_runtime_api.h>

#include <tutti/core/cuda.h>
#include <tutti/core/error.h>
#include <tutti/core/tensor_impl.h>

namespace tutti::cuda {

/// DeviceError with CUDA's own words unless `e` is success.
void must(cudaError_t e, std::string_view op);

/// Makes a device current while it lives, and knows the stream of the calling thread there.
class Work {
 public:
  explicit Work(Device device);
  ~Work();
  Work(const Work&) = delete;
  cudaStream_t stream() const { return stream_; }
  int device() const { return device_; }

 private:
  int device_, saved_;
  cudaStream_t stream_;
};

/// Values on the CPU for a kernel, or back: `upload` may return before the copy is done, but `from`
/// may be changed; `download` returns when the values are there.
void upload(void* to, const void* from, std::size_t bytes, const Work& work);
void download(void* to, const void* from, std::size_t bytes, const Work& work);

/// dst = src, cast, both on work's device (copy.cu).
void copy_on_device(const Tensor& dst, const Tensor& src);

/// A contiguous x on its device: itself or a copy.
Tensor contiguous_on_device(const Tensor& x);
/// x itself if it is contiguous and starts where 16 bytes may be read at once, else a copy that is.
Tensor packs_on_device(const Tensor& x);

/// Memory on work's device until the work queued so far is done.
class Scratch {
 public:
  Scratch(std::size_t bytes, const Work& work);
  /// Filled with values of the CPU.
  Scratch(const void* from, std::size_t bytes, const Work& work) : Scratch(bytes, work) {
    upload(data_, from, bytes, work);
  }
  ~Scratch();
  Scratch(const Scratch&) = delete;
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_;
  Device device_;
};

// ---- graphs, see graphs.cpp

/// Sees what the calling thread's kernels do on the host besides launching.
class Onlooker {
 public:
  virtual ~Onlooker() = default;
  /// Memory for a kernel; null: from the allocator.
  virtual void* take(std::size_t size) = 0;
  /// The allocator has given some.
  virtual void allocated(void* p, std::size_t size) = 0;
  /// Memory is no longer needed; true: it was taken from here.
  virtual bool give(void* p) = 0;
  /// Values go from the CPU to the device or back, or the CPU waits for it.
  virtual void exchanges_values() = 0;
  /// cuBLAS is about to be called.
  virtual void multiplies() = 0;
  /// A kernel that reports bad indices is about to be launched.
  virtual void may_find_fault() = 0;
};
/// The calling thread's; null: nobody looks on.
Onlooker*& onlooker();

/// Held while a thread captures. The device as a whole must not be waited for meanwhile, by no
/// thread: CUDA refuses that and drops the capture.
std::mutex& capture_mutex();

/// How float32 products are computed, as a number: graphs keep it.
int product_precision();
/// Makes what products on `stream`, which is about to be captured, need, in memory of work's
/// stream. It is there until the stream is forgotten, empty_cache() or not. Of it, kWorkspace bytes
/// are cuBLAS's.
inline constexpr std::size_t kWorkspace = std::size_t{8} << 20;
void prepare_products(const Work& work, cudaStream_t stream);

// ---- errors that kernels find

/// The ops whose kernels check the values of an index.
enum class IndexOp : int { gather, index, scatter, index_put, scatter_add, one_hot, cross_entropy };

/// What the first kernel that met a bad index wrote.
struct IndexFault {
  unsigned found;
  int op;
  long long index, size;
  int from_end;  // negative values count from the end
  int unused;
};
/// Where the kernels of a device write it. The caller is about to launch one that may.
IndexFault* index_fault(const Work& work);
/// One user more (1) or less (-1) of that place besides the kernels launched so far.
void keep_faults(int device, int change);
/// Throws the IndexError, if there is one on this device. Waits for the stream.
void report_index_fault(const Work& work);

/// A stream ends, its work done: nothing may remember it. Products first, they hold memory.
void forget_products(int device, cudaStream_t stream) noexcept;
void forget_memory(int device, cudaStream_t stream) noexcept;
/// Copies that are done let go of their tensors.
void drop_done_transfers();

/// Called by empty_cache(): what the other files keep on devices.
void release_products();
void release_faults();
void release_transfers();

}  // namespace tutti::cuda
