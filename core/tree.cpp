// Dims as text, for error messages.
#include <tutti/core/tree.h>

namespace tutti {

std::string Dims::to_string() const {
  if (!list_) return axis_ ? std::to_string(*axis_) : "nullopt";
  std::string s = "{";
  for (const Dims& d : parts_) s += (s.size() > 1 ? ", " : "") + d.to_string();
  return s + "}";
}

}  // namespace tutti
