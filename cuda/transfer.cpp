// Copies between the CPU and devices. Values for a device go through pinned staging buffers, so
// that the caller need not wait and may change them at once; values from a device are waited for.
#include <algorithm>
#include <bit>
#include <cstring>
#include <list>
#include <mutex>
#include <set>
#include <vector>

#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/copy.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/cuda/runtime.h>

namespace tutti::cuda {
namespace {

constexpr std::size_t kLargestStaged = std::size_t{4} << 20,
                      kStagedTogether = std::size_t{32} << 20;

/// Pinned buffers whose copies may still be under way.
class Staging {
 public:
  void send(void* to, const void* from, std::size_t bytes, const Work& work) {
    std::lock_guard lock(mutex_);
    Buffer& b = buffer(bytes, work);
    std::memcpy(b.data, from, bytes);
    must(cudaMemcpyAsync(to, b.data, bytes, cudaMemcpyHostToDevice, work.stream()), "to");
    const cudaError_t e = cudaEventRecord(b.done, work.stream());
    if (e != cudaSuccess) cudaStreamSynchronize(work.stream());  // the buffer is free after that
    must(e, "to");
    b.sent = true;
  }
  void clear() {
    std::lock_guard lock(mutex_);
    for (Buffer& b : buffers_) destroy(b);
    buffers_.clear();
    total_ = 0;
  }

 private:
  struct Buffer {
    void* data = nullptr;
    std::size_t bytes = 0;
    cudaEvent_t done = nullptr;
    int device = 0;
    bool sent = false;
  };

  Buffer& buffer(std::size_t bytes, const Work& work) {
    for (Buffer& b : buffers_)
      if (b.bytes >= bytes && b.device == work.device() &&
          (!b.sent || cudaEventQuery(b.done) == cudaSuccess))
        return b;
    cudaGetLastError();  // cudaErrorNotReady is none
    const std::size_t size = std::bit_ceil(std::max<std::size_t>(bytes, 4096));
    while (!buffers_.empty() && total_ + size > kStagedTogether) {
      total_ -= buffers_.front().bytes;
      destroy(buffers_.front());
      buffers_.pop_front();
    }
    Buffer b;
    b.bytes = size;
    b.device = work.device();
    must(cudaHostAlloc(&b.data, size, cudaHostAllocDefault), "to");
    const cudaError_t e = cudaEventCreateWithFlags(&b.done, cudaEventDisableTiming);
    if (e != cudaSuccess) cudaFreeHost(b.data);
    must(e, "to");
    buffers_.push_back(b);
    total_ += size;
    return buffers_.back();
  }
  static void destroy(Buffer& b) noexcept {
    if (b.sent) cudaEventSynchronize(b.done);
    cudaEventDestroy(b.done);
    cudaFreeHost(b.data);
  }

  std::mutex mutex_;
  std::list<Buffer> buffers_;
  std::size_t total_ = 0;
};
Staging& staging() {  // never destroyed
  static Staging& s = *new Staging;
  return s;
}

/// Tensors that copies under way read or write.
class Pending {
 public:
  void add(const Tensor& dst, const Tensor& src, const Work& work) {
    Copy c{nullptr, make_plain(dst), make_plain(src)};
    must(cudaEventCreateWithFlags(&c.done, cudaEventDisableTiming), "copy_async");
    const cudaError_t e = cudaEventRecord(c.done, work.stream());
    if (e != cudaSuccess) {
      cudaStreamSynchronize(work.stream());
      cudaEventDestroy(c.done);
      must(e, "copy_async");
    }
    std::lock_guard lock(mutex_);
    drop_done(false);
    copies_.push_back(std::move(c));
  }
  void drop() {
    std::lock_guard lock(mutex_);
    drop_done(false);
  }
  void clear() {
    std::lock_guard lock(mutex_);
    drop_done(true);
  }

 private:
  struct Copy {
    cudaEvent_t done;
    Tensor dst, src;
  };
  void drop_done(bool wait) {
    for (auto c = copies_.begin(); c != copies_.end();) {
      if (wait) cudaEventSynchronize(c->done);
      if (!wait && cudaEventQuery(c->done) != cudaSuccess) {
        cudaGetLastError();
        ++c;
        continue;
      }
      cudaEventDestroy(c->done);
      c = copies_.erase(c);
    }
  }
  std::mutex mutex_;
  std::list<Copy> copies_;
};
Pending& pending() {
  static Pending& p = *new Pending;
  return p;
}

/// The pinned blocks that tensors live in.
struct Pinned {
  std::mutex mutex;
  std::set<const void*> blocks;
};
Pinned& pinned() {
  static Pinned& p = *new Pinned;
  return p;
}

std::size_t bytes_of(const Tensor& x) {
  return static_cast<std::size_t>(x.numel() * x.element_size());
}

Device device_of(const Tensor& x) { return x.device(); }

void to_device(const Tensor& dst, const Tensor& src) {
  Tensor from = src;
  if (!from.is_contiguous()) {
    from = make_dense(src.sizes(), src.dtype());
    kernels::copy(from, src);
  }
  const bool direct = dst.is_contiguous() && dst.dtype() == src.dtype();
  const Tensor to = direct ? dst : make_dense(src.sizes(), src.dtype(), device_of(dst));
  {
    const Work work(device_of(dst));
    upload(to.raw(), from.raw(), bytes_of(from), work);
  }
  if (!direct) copy_on_device(dst, to);
}

void from_device(const Tensor& dst, const Tensor& src) {
  Tensor from = src;
  if (!src.is_contiguous() || src.dtype() != dst.dtype()) {
    from = make_dense(src.sizes(), dst.dtype(), device_of(src));
    copy_on_device(from, src);
  }
  const Tensor to = dst.is_contiguous() ? dst : make_dense(dst.sizes(), dst.dtype());
  {
    const Work work(device_of(src));
    download(to.raw(), from.raw(), bytes_of(from), work);
  }
  if (!dst.is_contiguous()) kernels::copy(dst, to);
}

}  // namespace

void upload(void* to, const void* from, std::size_t bytes, const Work& work) {
  if (bytes == 0) return;
  if (Onlooker* const o = onlooker()) o->exchanges_values();
  if (bytes <= kLargestStaged) return staging().send(to, from, bytes, work);
  must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, work.stream()), "to");
  must(cudaStreamSynchronize(work.stream()), "to");
}

void download(void* to, const void* from, std::size_t bytes, const Work& work) {
  if (bytes == 0) return;
  if (Onlooker* const o = onlooker()) o->exchanges_values();
  must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, work.stream()), "to");
  must(cudaStreamSynchronize(work.stream()), "to");
  report_index_fault(work);
}

namespace {
Tensor dense_copy(const Tensor& x) {
  const Tensor y = make_dense(x.sizes().shape(), x.dtype(), x.device());
  copy_on_device(y, x);
  return y;
}
}  // namespace

Tensor contiguous_on_device(const Tensor& x) { return x.is_contiguous() ? x : dense_copy(x); }

Tensor packs_on_device(const Tensor& x) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(x.raw()) % 16 == 0;
  return x.is_contiguous() && aligned ? x : dense_copy(x);
}

void drop_done_transfers() { pending().drop(); }

void release_transfers() {
  pending().clear();
  staging().clear();
}

Tensor pin_memory(const Tensor& x) {
  const Tensor v = resolved(x);
  check<DeviceError>(!as_box(v) && v.is_cpu(), "cuda::pin_memory",
                     "expected a tensor on the CPU, got one on ", v.device(),
                     "; only memory of the CPU is pinned");
  void* p = nullptr;
  current_device();  // an error, if there is none
  must(cudaHostAlloc(&p, std::max<std::size_t>(bytes_of(v), 1), cudaHostAllocDefault),
       "cuda::pin_memory");
  {
    std::lock_guard lock(pinned().mutex);
    pinned().blocks.insert(p);
  }
  auto impl = make_ref<TensorImpl>(v.dtype(), Device(), v.sizes().shape(), v.numel());
  impl->storage = Storage::wrap(p, bytes_of(v), Device(), [](void* block) {
    {
      std::lock_guard lock(pinned().mutex);
      pinned().blocks.erase(block);
    }
    cudaFreeHost(block);
  });
  const Tensor y(std::move(impl));
  kernels::copy(y, v);
  return y;
}

bool is_pinned(const Tensor& x) {
  const Tensor v = resolved(x);
  if (!v.defined() || as_box(v) || !v.is_cpu() || !v.impl()->storage) return false;
  std::lock_guard lock(pinned().mutex);
  return pinned().blocks.contains(v.impl()->storage->data());
}

void copy_async(const Tensor& dst, const Tensor& src) {
  const char* op = "cuda::copy_async";
  const Tensor d = resolved(dst), s = resolved(src);
  check<TransformError>(!as_box(d) && !as_box(s), op,
                        "expected tensors outside transforms; use copy_() inside");
  check<DeviceError>((d.is_cuda() && is_pinned(s)) || (s.is_cuda() && is_pinned(d)), op,
                     "expected one tensor on a GPU and one in pinned memory, got ", d.device(),
                     " and ", s.device(), "; use pin_memory(), or copy_()");
  check<ShapeError>(d.sizes() == s.sizes(), op, "expected equal shapes, got ", d.sizes(), " and ",
                    s.sizes(), "; expand one first");
  check<TypeError>(d.dtype() == s.dtype(), op, "expected one dtype, got ", d.dtype(), " and ",
                   s.dtype(), "; convert with to()");
  check<ValueError>(d.is_contiguous() && s.is_contiguous(), op,
                    "expected contiguous tensors; use copy_() for others");
  const Work work((d.is_cuda() ? d : s).device());
  must(
      cudaMemcpyAsync(d.raw(), s.raw(), bytes_of(d),
                      d.is_cuda() ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost, work.stream()),
      op);
  pending().add(d, s, work);
  d.impl()->storage->bump();
}

}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

void copy(const Tensor& dst, const Tensor& src) {
  if (dst.numel() == 0) return;
  if (src.is_cpu()) return tutti::cuda::to_device(dst, src);
  if (dst.is_cpu()) return tutti::cuda::from_device(dst, src);
  if (dst.device() == src.device()) return tutti::cuda::copy_on_device(dst, src);
  const Tensor between = make_dense(src.sizes(), src.dtype());
  tutti::cuda::from_device(between, src);
  tutti::cuda::to_device(dst, between);
}

}  // namespace tutti::kernels::cuda
