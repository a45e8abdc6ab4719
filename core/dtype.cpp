// Names of element types and their promotion.
#include <algorithm>

#include <tutti/core/dtype.h>

namespace tutti {

const char* name_of(DType t) {
  switch (t) {
    case DType::Bool:
      return "bool";
    case DType::UInt8:
      return "uint8";
    case DType::Int8:
      return "int8";
    case DType::Int16:
      return "int16";
    case DType::Int32:
      return "int32";
    case DType::Int64:
      return "int64";
    case DType::Float16:
      return "float16";
    case DType::BFloat16:
      return "bfloat16";
    case DType::Float32:
      return "float32";
    case DType::Float64:
      return "float64";
  }
  return "unknown";
}

DType promote_types(DType a, DType b) {
  auto [low, high] = std::minmax(a, b);
  // The enum is in promotion order but for two pairs that have no common member of their own kind.
  if (low == kUInt8 && high == kInt8) return kInt16;
  if (low == kFloat16 && high == kBFloat16) return kFloat32;
  return high;
}

}  // namespace tutti
