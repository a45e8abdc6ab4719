// Device memory: two ranges of addresses, one for pointers and one for bytes.
#include "memory.h"

#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

namespace cudasim {
namespace {

constexpr u64 kPage = 4096;
constexpr u64 kLead =
    256;  // an allocation starts this far into its first page: aligned to 256 and no better
constexpr u64 kRange = u64{1} << 38;

u64 reserve(int protection) {
  void* p = mmap(nullptr, kRange, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) fail("cannot reserve %llu bytes of addresses", (unsigned long long)kRange);
  return reinterpret_cast<u64>(p);
}

u64 pages(u64 n) { return (n + kLead + kLead + kPage - 1) / kPage * kPage; }

}  // namespace

DeviceMemory::DeviceMemory() : size_(kRange), capacity_(std::size_t{1} << 34) {
  base_ = reserve(PROT_NONE);
  delta_ = reserve(PROT_READ | PROT_WRITE) - base_;
  next_ = base_;
  if (const char* e = std::getenv("CUDASIM_MEMORY")) capacity_ = std::strtoull(e, nullptr, 10);
}

u64 DeviceMemory::allocate(std::size_t n, std::string variable) {
  const bool is_variable = !variable.empty();
  if (!is_variable && n > capacity_ - live_bytes_) return 0;
  if (next_ + pages(n) > base_ + size_)
    fail("all %llu bytes of device addresses are used up", (unsigned long long)size_);
  auto a = std::make_unique<Allocation>();
  a->begin = next_ + kLead;
  a->end = a->begin + n;
  a->serial = ++serial_;
  a->variable = std::move(variable);
  next_ += pages(n);
  std::memset(bytes(a->begin), 0xff, n);
  if (!is_variable) {
    ++live_count_;
    live_bytes_ += n;
    if (live_bytes_ > peak_bytes_) peak_bytes_ = live_bytes_;
  }
  const u64 begin = a->begin;
  live_[begin] = std::move(a);
  return begin;
}

bool DeviceMemory::release(u64 address) {
  const auto it = live_.find(address);
  if (it == live_.end() || !it->second->variable.empty()) return false;
  const u64 n = it->second->end - it->second->begin;
  madvise(bytes(address - kLead), pages(n), MADV_DONTNEED);
  live_bytes_ -= n;
  --live_count_;
  last_ = nullptr;
  live_.erase(it);
  return true;
}

Allocation* DeviceMemory::find(u64 address) {
  if (last_ && address >= last_->begin && address < last_->end) return last_;
  auto it = live_.upper_bound(address);
  if (it == live_.begin()) return nullptr;
  --it;
  if (address >= it->second->end) return nullptr;
  return last_ = it->second.get();
}

std::string DeviceMemory::describe(u64 address) const {
  if (!in_range(address)) return text("%#llx is no device address", (unsigned long long)address);
  auto it = live_.upper_bound(address);
  if (it == live_.begin())
    return text("%#llx lies before all allocations", (unsigned long long)address);
  --it;
  const Allocation& a = *it->second;
  const char* name = a.variable.empty() ? "allocation" : a.variable.c_str();
  const auto n = (unsigned long long)(a.end - a.begin);
  if (address < a.end) {
    return text("%#llx is byte %llu of %s #%llu of %llu bytes", (unsigned long long)address,
                (unsigned long long)(address - a.begin), name, (unsigned long long)a.serial, n);
  }
  return text("%#llx lies %llu bytes after the end of %s #%llu of %llu bytes",
              (unsigned long long)address, (unsigned long long)(address - a.end), name,
              (unsigned long long)a.serial, n);
}

DeviceMemory& device_memory() {
  static DeviceMemory* memory = new DeviceMemory;
  return *memory;
}

}  // namespace cudasim
