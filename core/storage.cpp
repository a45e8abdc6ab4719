// Storage and the cache its memory comes from.
//
// Sizes are rounded up to classes, four per octave; a freed block waits in a list of its class.
// Each thread has small lists of its own, which need no lock; what does not fit goes to lists all
// threads share, and what does not fit there to the system. Under AddressSanitizer nothing is kept,
// so that it sees every block come and go.
#include <algorithm>
#include <array>
#include <bit>
#include <mutex>
#include <new>

#include <tutti/core/error.h>
#include <tutti/core/storage.h>

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
constexpr std::size_t kKept = std::size_t{256} << 20;     // by all threads together
constexpr std::size_t kKeptLocal = std::size_t{8} << 20;  // by one thread
constexpr std::size_t kLargestLocal = std::size_t{1} << 20;
constexpr std::size_t kClasses = 4 * 40;
#ifdef TUTTI_ASAN
constexpr bool kCaching = false;
#else
constexpr bool kCaching = true;
#endif

struct SizeClass {
  std::size_t index, bytes;
};

// 64, 128, 192, 256, then 320, 384, 448, 512, then 640, 768, 896, 1024, and so on.
SizeClass size_class(std::size_t bytes) {
  if (bytes <= 256) {
    std::size_t i = bytes == 0 ? 0 : (bytes - 1) / 64;
    return {i, (i + 1) * 64};
  }
  std::size_t octave = std::bit_width(bytes - 1) - 1, step = std::size_t{1} << (octave - 2);
  std::size_t quarter = (bytes - 1 - (std::size_t{1} << octave)) / step;
  return {(octave - 7) * 4 + quarter, (std::size_t{1} << octave) + (quarter + 1) * step};
}

void* system_block(std::size_t bytes) {
  return ::operator new(bytes, std::align_val_t(kAlignment), std::nothrow);
}
void to_system(void* p) { ::operator delete(p, std::align_val_t(kAlignment)); }

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
    for (Link*& list : lists_)
      while (Link* p = list) {
        list = p->next;
        to_system(p);
      }
    bytes_ = 0;
  }

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

/// A plain pointer can be read at any time in a thread's life, also after its lists are gone.
thread_local FreeLists* local_lists = nullptr;
thread_local bool local_over = false;

struct LocalLists {
  FreeLists lists;
  LocalLists() { local_lists = &lists; }
  ~LocalLists() {
    local_lists = nullptr;
    local_over = true;
    lists.clear();
  }
};

FreeLists* my_lists() {
  if (!local_lists && !local_over) {
    thread_local LocalLists made;
    (void)made;
  }
  return local_lists;
}

std::byte* allocate(std::size_t bytes) {
  check<ValueError>(bytes <= std::size_t{1} << 46, "empty",
                    "expected at most 64 TiB of memory, got ", bytes, " bytes; make it smaller");
  SizeClass c = size_class(bytes);
  void* p = nullptr;
  if (kCaching) {
    if (c.bytes <= kLargestLocal)
      if (FreeLists* mine = my_lists()) p = mine->take(c);
    if (!p) {
      SharedLists& s = shared_lists();
      std::lock_guard lock(s.mutex);
      p = s.lists.take(c);
    }
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

void release(void* p, std::size_t bytes) {
  if (kCaching) {
    SizeClass c = size_class(bytes);
    if (c.bytes <= kLargestLocal)
      if (FreeLists* mine = my_lists(); mine && mine->keep(p, c, kKeptLocal)) return;
    SharedLists& s = shared_lists();
    std::lock_guard lock(s.mutex);
    if (s.lists.keep(p, c, kKept)) return;
  }
  to_system(p);
}

}  // namespace

void* RefCounted::operator new(std::size_t bytes) { return allocate(bytes); }
void RefCounted::operator delete(void* p, std::size_t bytes) noexcept { release(p, bytes); }

Storage::Storage(std::size_t bytes, Device device) : bytes_(bytes), device_(device) {
  check<DeviceError>(!device.is_cuda(), "empty", "expected cpu or meta, got ", device,
                     "; this build has no CUDA support");
  if (device.is_cpu()) data_ = allocate(bytes);
}

Storage::Storage(void* data, std::size_t bytes, Device device, std::function<void(void*)> deleter)
    : data_(static_cast<std::byte*>(data)),
      bytes_(bytes),
      device_(device),
      deleter_(std::move(deleter)),
      ours_(false) {}

Storage::~Storage() {
  if (ours_) {
    if (data_) release(data_, bytes_);
  } else if (deleter_) {
    deleter_(data_);
  }
}

void empty_cache() {
  if (local_lists) local_lists->clear();
  SharedLists& s = shared_lists();
  std::lock_guard lock(s.mutex);
  s.lists.clear();
}

}  // namespace tutti
