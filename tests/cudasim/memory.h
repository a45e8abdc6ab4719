// Device memory. A device pointer points into a range of addresses that the host cannot touch (a
// host access ends in SIGSEGV); its bytes lie at the same offset of a second range. Addresses are
// never used twice, so every use after free is noticed.
#pragma once
#include <cstddef>
#include <map>
#include <memory>
#include <string>

#include "base.h"
#include "ptx_race.h"

namespace cudasim {

/// A live allocation, or a variable of a module.
struct Allocation {
  u64 begin = 0;
  u64 end = 0;
  u64 serial = 0;        ///< counts allocations, for messages
  std::string variable;  ///< name, if it is a variable of a module
  ShadowMemory shadow;   ///< who touched what, for the race detector
};

/// All device memory of the process.
class DeviceMemory {
 public:
  DeviceMemory();

  /// Reserves n > 0 bytes, 256-byte aligned and no better, filled with 0xff (NaN as floats). 0 if
  /// there is no room.
  u64 allocate(std::size_t n, std::string variable = {});

  /// Ends an allocation that starts exactly at `address`; false if there is none.
  bool release(u64 address);

  /// The allocation that holds the byte at `address`, or nullptr.
  Allocation* find(u64 address);

  /// The bytes behind a device address. Valid for the rest of its allocation.
  u8* bytes(u64 address) const { return reinterpret_cast<u8*>(address + delta_); }

  /// True if the address belongs to the range of device pointers, live or not.
  bool in_range(u64 address) const { return address >= base_ && address < base_ + size_; }

  std::size_t live_bytes() const { return live_bytes_; }
  std::size_t live_count() const { return live_count_; }
  std::size_t peak_bytes() const { return peak_bytes_; }
  std::size_t capacity() const { return capacity_; }

  /// Describes where an address lies relative to the nearest allocations, for error messages.
  std::string describe(u64 address) const;

  /// Calls f for every live allocation that is no variable.
  template <class F>
  void for_each(F f) const {
    for (const auto& [begin, a] : live_)
      if (a->variable.empty()) f(*a);
  }

 private:
  u64 base_ = 0;
  u64 size_ = 0;
  u64 delta_ = 0;
  u64 next_ = 0;  // first address not used yet
  u64 serial_ = 0;
  std::size_t capacity_;
  std::size_t live_bytes_ = 0;
  std::size_t live_count_ = 0;
  std::size_t peak_bytes_ = 0;
  std::map<u64, std::unique_ptr<Allocation>> live_;
  Allocation* last_ = nullptr;  // where find() found something
};

DeviceMemory& device_memory();

}  // namespace cudasim
