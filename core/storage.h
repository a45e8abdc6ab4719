// Storage: a ref-counted, 64-byte aligned block of memory with a version that every in-place write
// moves on. Blocks come from a size-class cache, so that a training loop reuses warm memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>

#include <tutti/core/device.h>
#include <tutti/core/ref.h>

namespace tutti {

/// The memory behind tensors and their views. Thread-safe to share; writing from two threads is
/// not.
class Storage final : public RefCounted {
 public:
  /// Uninitialised memory; no memory at all on Meta. DeviceError where the device is not in this
  /// build. Little memory lies behind the object itself, in one block with it.
  static Ptr<Storage> make(std::size_t bytes, Device device);
  /// Somebody else's memory; `deleter` (may be empty) is called with it at the end.
  static Ptr<Storage> wrap(void* data, std::size_t bytes, Device device,
                           std::function<void(void*)> deleter);
  /// Memory of wrap() lies elsewhere from now on. Without a deleter only.
  void repoint(void* data) { data_ = static_cast<std::byte*>(data); }
  Storage(const Storage&) = delete;
  ~Storage() override;
  using RefCounted::operator delete;  // should a constructor throw
  static void operator delete(Storage* s, std::destroying_delete_t);

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  std::uint64_t version() const { return version_.load(std::memory_order_relaxed); }
  void bump() { version_.fetch_add(1, std::memory_order_relaxed); }

 private:
  using Deleter = std::function<void(void*)>;
  enum class Memory : std::uint8_t { none, behind, block, device, foreign };
  static Ptr<Storage> make_cuda(std::size_t bytes, Device device);
  Storage(std::byte* data, std::size_t bytes, Device device, Memory memory)
      : data_(data), bytes_(bytes), device_(device), memory_(memory) {}

  std::byte* data_;
  std::size_t bytes_;
  std::atomic<std::uint64_t> version_{0};
  std::unique_ptr<Deleter> deleter_;
  Device device_;
  Memory memory_;
};
template <>
inline constexpr bool owns_none<Storage> = true;

/// Gives cached memory blocks back to the system: those all threads share, and the calling
/// thread's.
void empty_cache();

/// Memory of tensors and of what stands behind them, in bytes; not that of from_blob.
struct MemoryStats {
  std::int64_t reserved = 0;       // taken from the system: in use or cached
  std::int64_t peak_reserved = 0;  // the most of it since the start or reset_peak_memory_stats()
  std::int64_t cached = 0;         // free blocks, those in other threads' own lists not counted
};
MemoryStats memory_stats();
void reset_peak_memory_stats();

}  // namespace tutti
