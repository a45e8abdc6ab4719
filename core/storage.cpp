// Storage and the cache its memory comes from.
//
// Sizes are rounded up to classes, multiples of 64 bytes to 1 KiB and four per octave above; a
// freed block waits in a list of its class.
// Each thread has small lists of its own, which need no lock; what does not fit goes to lists all
// threads share, and what does not fit there to the system. Under AddressSanitizer nothing is kept,
// so that it sees every block come and go.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <mutex>
#include <new>

#include <tutti/core/error.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/storage.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define TUTTI_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TUTTI_ASAN 1
#endif
#endif

namespace tutti {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kMostKeptLocal = std::size_t{8} << 20;  // by one thread
constexpr std::size_t kLargestLocal = std::size_t{1} << 20;
constexpr std::size_t kSmall = 1024;  // the largest of the sizes that are multiples of 64
constexpr std::size_t kSmallClasses = kSmall / kAlignment;
constexpr std::size_t kClasses = kSmallClasses + 4 * 37;
#ifdef TUTTI_ASAN
constexpr bool kCaching = false;
#else
constexpr bool kCaching = true;
#endif
/// The most memory that lies behind its Storage; none where ASan should see its bounds.
constexpr std::size_t kBehind = kCaching ? kSmall - sizeof(Storage) : 0;
static_assert(sizeof(Storage) == kAlignment);

struct SizeClass {
  std::size_t index, bytes;
};

// 64, 128, 192, ... 1024, then 1280, 1536, 1792, 2048, then 2560, and so on.
SizeClass size_class(std::size_t bytes) {
  if (bytes <= kSmall) [[likely]] {
    const std::size_t i = (bytes - (bytes > 0)) / kAlignment;
    return {i, (i + 1) * kAlignment};
  }
  const std::size_t octave = std::bit_width(bytes - 1) - 1, step = std::size_t{1} << (octave - 2);
  const std::size_t quarter = (bytes - 1 - (std::size_t{1} << octave)) / step;
  return {kSmallClasses + (octave - 10) * 4 + quarter,
          (std::size_t{1} << octave) + (quarter + 1) * step};
}

std::size_t bytes_of_class(std::size_t index) {
  if (index < kSmallClasses) return (index + 1) * kAlignment;
  const std::size_t octave = 10 + (index - kSmallClasses) / 4,
                    quarter = (index - kSmallClasses) % 4;
  return (std::size_t{1} << octave) + ((quarter + 1) << (octave - 2));
}

// What all threads together keep, and what each does.
constinit std::atomic<std::size_t> g_kept{std::size_t{256} << 20}, g_kept_local{kMostKeptLocal};

// What we have of the system's memory, and the most we had.
std::atomic<std::int64_t> g_reserved{0}, g_peak{0};

// Large blocks ask for huge pages, as NumPy's do: a step that passes over many megabytes else waits
// for the translation of addresses.
constexpr std::size_t kHugePage = std::size_t{2} << 20;
std::align_val_t alignment_of(std::size_t bytes) {
  return std::align_val_t(bytes < kHugePage ? kAlignment : kHugePage);
}

void* system_block(std::size_t bytes) {
  void* p = ::operator new(bytes, alignment_of(bytes), std::nothrow);
  if (!p) return p;
#ifdef MADV_HUGEPAGE
  if (bytes >= kHugePage) madvise(p, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);  // or does not
#endif
  const auto n = static_cast<std::int64_t>(bytes);
  const std::int64_t now = g_reserved.fetch_add(n, std::memory_order_relaxed) + n;
  std::int64_t peak = g_peak.load(std::memory_order_relaxed);
  while (peak < now && !g_peak.compare_exchange_weak(peak, now, std::memory_order_relaxed))
    continue;
  return p;
}
void to_system(void* p, std::size_t bytes) {
  ::operator delete(p, alignment_of(bytes));
  g_reserved.fetch_sub(static_cast<std::int64_t>(bytes), std::memory_order_relaxed);
}

/// Free blocks by size class, linked through their first word.
class FreeLists {
 public:
  void* take(SizeClass c) {
    Link* p = lists_[c.index];
    if (!p) return nullptr;
    lists_[c.index] = p->next;
    bytes_ -= c.bytes;
    return p;
  }
  bool keep(void* p, SizeClass c, std::size_t limit) {
    if (bytes_ + c.bytes > limit) return false;
    lists_[c.index] = ::new (p) Link{lists_[c.index]};
    bytes_ += c.bytes;
    return true;
  }
  void clear() {
    for (std::size_t i = 0; i < kClasses; ++i)
      while (Link* p = lists_[i]) {
        lists_[i] = p->next;
        to_system(p, bytes_of_class(i));
      }
    bytes_ = 0;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  struct Link {
    Link* next;
  };
  std::array<Link*, kClasses> lists_{};
  std::size_t bytes_ = 0;
};

struct SharedLists {
  std::mutex mutex;
  FreeLists lists;
};
SharedLists& shared_lists() {  // never destroyed: storages may outlive static objects
  static SharedLists& s = *new SharedLists;
  return s;
}

/// This thread's own lists; null before it frees its first block, and after its end.
constinit thread_local FreeLists* local_lists TUTTI_FAST_TLS = nullptr;
constinit thread_local bool local_over = false;

struct LocalLists {
  FreeLists lists;
  LocalLists() { local_lists = &lists; }
  ~LocalLists() {
    local_lists = nullptr;
    local_over = true;
    lists.clear();
  }
};

FreeLists* make_local_lists() {
  if (!local_over) {
    thread_local LocalLists made;
    (void)made;
  }
  return local_lists;
}

[[gnu::noinline]] std::byte* allocate_shared(std::size_t bytes) {
  check<ValueError>(bytes <= std::size_t{1} << 46, "empty",
                    "expected at most 64 TiB of memory, got ", bytes, " bytes; make it smaller");
  SizeClass c = size_class(bytes);
  void* p = nullptr;
  if (kCaching) {
    SharedLists& s = shared_lists();
    std::lock_guard lock(s.mutex);
    p = s.lists.take(c);
  } else {
    c.bytes = std::max<std::size_t>(bytes, 1);
  }
  if (!p) p = system_block(c.bytes);
  if (!p) {
    empty_cache();
    p = system_block(c.bytes);
  }
  if (!p) throw std::bad_alloc();
  return static_cast<std::byte*>(p);
}

[[gnu::noinline]] void release_shared(void* p, std::size_t bytes) noexcept {
  SizeClass c = size_class(bytes);
  if (kCaching) {
    SharedLists& s = shared_lists();
    std::lock_guard lock(s.mutex);
    if (s.lists.keep(p, c, g_kept.load(std::memory_order_relaxed))) return;
  } else {
    c.bytes = std::max<std::size_t>(bytes, 1);
  }
  to_system(p, c.bytes);
}

[[gnu::noinline]] std::byte* allocate_local(std::size_t bytes) {
  if (kCaching && bytes <= kLargestLocal)
    if (FreeLists* mine = local_lists)
      if (void* p = mine->take(size_class(bytes))) return static_cast<std::byte*>(p);
  return allocate_shared(bytes);
}

[[gnu::noinline]] void release_local(void* p, std::size_t bytes) noexcept {
  if (kCaching && bytes <= kLargestLocal) {
    FreeLists* mine = local_lists ? local_lists : make_local_lists();
    if (mine && mine->keep(p, size_class(bytes), g_kept_local.load(std::memory_order_relaxed)))
      return;
  }
  release_shared(p, bytes);
}

// Every op makes and drops a few small blocks: the straight way for these.
std::byte* allocate(std::size_t bytes) {
  FreeLists* mine = local_lists;
  if (kCaching && bytes <= kSmall && mine) [[likely]]
    if (void* p = mine->take(size_class(bytes))) [[likely]]
      return static_cast<std::byte*>(p);
  return allocate_local(bytes);
}

void release(void* p, std::size_t bytes) noexcept {
  FreeLists* mine = local_lists;
  if (kCaching && bytes <= kSmall && mine) [[likely]]
    if (mine->keep(p, size_class(bytes), g_kept_local.load(std::memory_order_relaxed))) [[likely]]
      return;
  release_local(p, bytes);
}

}  // namespace

void* RefCounted::operator new(std::size_t bytes) { return allocate(bytes); }
void RefCounted::operator delete(void* p, std::size_t bytes) noexcept { release(p, bytes); }

Ptr<Storage> Storage::make_cuda([[maybe_unused]] std::size_t bytes, Device device) {
  if constexpr (TUTTI_CUDA) {
    Ptr<Storage> s = Ptr<Storage>::adopt(new Storage(nullptr, bytes, device, Memory::none));
    s->data_ = kernels::cuda::allocate(bytes, device);
    s->memory_ = Memory::device;
    return s;
  }
  fail<DeviceError>("empty", "expected cpu or meta, got ", device,
                    "; this build has no CUDA support");
}

Ptr<Storage> Storage::make(std::size_t bytes, Device device) {
  if (device.is_cuda()) [[unlikely]]
    return make_cuda(bytes, device);
  if (!device.is_cpu())
    return Ptr<Storage>::adopt(new Storage(nullptr, bytes, device, Memory::none));
  if (bytes <= kBehind) {
    std::byte* block = allocate(sizeof(Storage) + bytes);
    return Ptr<Storage>::adopt(::new (block)
                                   Storage(block + sizeof(Storage), bytes, device, Memory::behind));
  }
  Ptr<Storage> s = Ptr<Storage>::adopt(new Storage(nullptr, bytes, device, Memory::none));
  s->data_ = allocate(bytes);
  s->memory_ = Memory::block;
  return s;
}

Ptr<Storage> Storage::wrap(void* data, std::size_t bytes, Device device, Deleter deleter) {
  Ptr<Storage> s = Ptr<Storage>::adopt(
      new Storage(static_cast<std::byte*>(data), bytes, device, Memory::foreign));
  if (deleter) s->deleter_ = std::make_unique<Deleter>(std::move(deleter));
  return s;
}

Storage::~Storage() {
  if (memory_ == Memory::block) release(data_, bytes_);
  if constexpr (TUTTI_CUDA)
    if (memory_ == Memory::device) kernels::cuda::release(data_, device_);
  if (deleter_) (*deleter_)(data_);
}

void Storage::operator delete(Storage* s, std::destroying_delete_t) {
  const std::size_t bytes = sizeof(Storage) + (s->memory_ == Memory::behind ? s->bytes_ : 0);
  s->~Storage();
  release(s, bytes);
}

MemoryStats memory_stats() {
  MemoryStats m;
  m.reserved = g_reserved.load(std::memory_order_relaxed);
  m.peak_reserved = g_peak.load(std::memory_order_relaxed);
  SharedLists& s = shared_lists();
  std::lock_guard lock(s.mutex);
  m.cached = static_cast<std::int64_t>(s.lists.bytes() + (local_lists ? local_lists->bytes() : 0));
  return m;
}

void reset_peak_memory_stats() {
  g_peak.store(g_reserved.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

void empty_cache() {
  if (local_lists) local_lists->clear();
  SharedLists& s = shared_lists();
  std::lock_guard lock(s.mutex);
  s.lists.clear();
}

void set_cache_limit(std::size_t bytes) {
  g_kept.store(bytes, std::memory_order_relaxed);
  g_kept_local.store(std::min(bytes, kMostKeptLocal), std::memory_order_relaxed);
  if (local_lists && local_lists->bytes() > std::min(bytes, kMostKeptLocal)) local_lists->clear();
  SharedLists& s = shared_lists();
  std::lock_guard lock(s.mutex);
  if (s.lists.bytes() > bytes) s.lists.clear();
}

std::size_t cache_limit() { return g_kept.load(std::memory_order_relaxed); }

}  // namespace tutti
