// Errors: one exception family, thrown through check() and fail(). A message reads "[op] what was
// expected, what came, what to do"; id() is stable across releases and made of the exception's
// family and the op ("shape.matmul").
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace tutti {

/// Base of everything tutti throws.
class Error : public std::runtime_error {
 public:
  Error(const char* family, std::string_view op, std::string_view message);
  /// Stable identifier, "family.op".
  const std::string& id() const noexcept { return id_; }

 private:
  std::string id_;
};

#define TUTTI_ERROR_TYPE(Name, family)                                                  \
  struct Name : Error {                                                                 \
    Name(std::string_view op, std::string_view message) : Error(family, op, message) {} \
  }
TUTTI_ERROR_TYPE(ValueError, "value");          ///< An argument has the wrong value.
TUTTI_ERROR_TYPE(TypeError, "type");            ///< An argument has the wrong dtype or C++ type.
TUTTI_ERROR_TYPE(IndexError, "index");          ///< An axis or index is out of range.
TUTTI_ERROR_TYPE(ShapeError, "shape");          ///< Shapes do not fit each other or the op.
TUTTI_ERROR_TYPE(DeviceError, "device");        ///< Devices differ or are not available.
TUTTI_ERROR_TYPE(OutOfMemoryError, "memory");   ///< A device has no memory left.
TUTTI_ERROR_TYPE(KeyError, "key");              ///< A name is missing or unknown.
TUTTI_ERROR_TYPE(TransformError, "transform");  ///< Not possible inside (or after) a transform.
TUTTI_ERROR_TYPE(AutogradError, "autograd");    ///< Misuse of gradients.
TUTTI_ERROR_TYPE(FileError, "file");  ///< A file is missing, malformed or cannot be written.
TUTTI_ERROR_TYPE(NotImplementedError, "notimplemented");  ///< Declared as not supported.
#undef TUTTI_ERROR_TYPE

class IntArrayRef;
enum class DType : std::uint8_t;
struct Device;
class Scalar;

namespace detail {
void append(std::string& s, std::string_view v);
void append(std::string& s, const char* v);
void append(std::string& s, bool v);
void append(std::string& s, long long v);
void append(std::string& s, unsigned long long v);
void append(std::string& s, double v);
void append(std::string& s, const IntArrayRef& v);
void append(std::string& s, DType v);
void append(std::string& s, const Device& v);
inline void append(std::string& s, int v) { append(s, static_cast<long long>(v)); }
inline void append(std::string& s, long v) { append(s, static_cast<long long>(v)); }
inline void append(std::string& s, unsigned v) { append(s, static_cast<unsigned long long>(v)); }
inline void append(std::string& s, unsigned long v) {
  append(s, static_cast<unsigned long long>(v));
}

/// Concatenates values into a message.
template <class... Args>
std::string str(const Args&... args) {
  std::string s;
  (append(s, args), ...);
  return s;
}
}  // namespace detail

/// While it lives, errors on this thread name `op`, not the smaller ops it is made of. The
/// outermost one counts.
class Naming {
 public:
  explicit Naming(const char* op);
  ~Naming();
  Naming(const Naming&) = delete;

 private:
  const char* saved_;
};

/// Throws E with the message made of `args`.
template <class E, class... Args>
[[noreturn]] void fail(std::string_view op, const Args&... args) {
  throw E(op, detail::str(args...));
}

/// Throws E unless `ok`; the message is built only then.
template <class E, class... Args>
void check(bool ok, std::string_view op, const Args&... args) {
  if (!ok) [[unlikely]]
    fail<E>(op, args...);
}

}  // namespace tutti
