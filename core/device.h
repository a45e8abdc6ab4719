// Devices: cpu, cuda (in builds with TUTTI_CUDA; see cuda.h) and meta, whose tensors have
// shapes but no storage.
#pragma once
#include <cstdint>
#include <string_view>

namespace tutti {

enum class DeviceType : std::uint8_t { cpu, cuda, meta };

/// Where a tensor lives; index is -1 for "the current one".
struct Device {
  DeviceType type = DeviceType::cpu;
  std::int8_t index = -1;
  constexpr Device() = default;
  constexpr Device(DeviceType t, int i = -1) : type(t), index(static_cast<std::int8_t>(i)) {}
  /// "cpu", "meta", "cuda", "cuda:1"; ValueError otherwise.
  explicit Device(std::string_view name);
  explicit Device(const char* name) : Device(std::string_view(name)) {}
  constexpr bool is_cpu() const { return type == DeviceType::cpu; }
  constexpr bool is_cuda() const { return type == DeviceType::cuda; }
  constexpr bool is_meta() const { return type == DeviceType::meta; }
  friend constexpr bool operator==(const Device&, const Device&) = default;
};

inline constexpr DeviceType kCPU = DeviceType::cpu, kCUDA = DeviceType::cuda,
                            kMeta = DeviceType::meta;

}  // namespace tutti
