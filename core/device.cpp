// Reading a device from its name.
#include <charconv>

#include <tutti/core/device.h>
#include <tutti/core/error.h>

namespace tutti {

Device::Device(std::string_view name) {
  if (name == "cpu") return;
  if (name == "meta") {
    type = DeviceType::meta;
    return;
  }
  constexpr std::string_view cuda = "cuda";
  bool ok = name.substr(0, cuda.size()) == cuda;
  if (ok && name.size() > cuda.size()) {
    const char* end = name.data() + name.size();
    int i = -1;
    auto [stop, error] = std::from_chars(name.data() + cuda.size() + 1, end, i);
    ok = name[cuda.size()] == ':' && error == std::errc() && stop == end && i >= 0 && i < 128;
    index = static_cast<std::int8_t>(i);
  }
  check<ValueError>(ok, "Device", "expected \"cpu\", \"meta\", \"cuda\" or \"cuda:N\", got \"",
                    name, "\"; write one of them");
  type = DeviceType::cuda;
}

}  // namespace tutti
