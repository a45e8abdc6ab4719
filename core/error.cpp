// Building error messages and ids.
#include <charconv>

#include <tutti/core/device.h>
#include <tutti/core/dtype.h>
#include <tutti/core/error.h>
#include <tutti/core/interpreter.h>
#include <tutti/core/shape.h>

namespace tutti {
namespace {

std::string bracketed(std::string_view op, std::string_view message) {
  std::string s;
  if (!op.empty()) s.append("[").append(op).append("] ");
  return s.append(message);
}

std::string_view named(std::string_view op) {
  const char* name = thread_state().naming;
  return name ? name : op;
}

// Whether a message speaks of shapes.
bool about_shapes(std::string_view s, std::string_view family) {
  const auto has = [s](std::string_view word) { return s.find(word) != s.npos; };
  return family == "shape" || family == "index" ||
         ((family == "value" || family == "type") && (has("shape ") || has("sizes ")));
}

// Inside vmap such a message says that they are those of one example, and which axes are mapped.
std::string with_mapped_axes(std::string s, std::string_view family) {
  if (!thread_state().current || !about_shapes(s, family)) return s;
  std::string axes;
  for (const Interpreter* i = thread_state().current; i; i = i->parent)
    if (const std::string hidden = i->hidden_axis(); !hidden.empty())
      axes = hidden + (axes.empty() ? "" : ", ") + axes;
  if (!axes.empty())
    s += "; inside vmap, shapes are per example (mapped and not shown: " + axes + ")";
  return s;
}

template <class T>
void append_number(std::string& s, T v) {
  char buffer[32];
  s.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, v).ptr);
}

}  // namespace

Error::Error(const char* family, std::string_view op, std::string_view message)
    : std::runtime_error(with_mapped_axes(bracketed(named(op), message), family)),
      id_(std::string(family).append(".").append(named(op))) {}

Naming::Naming(const char* op) : saved_(thread_state().naming) {
  if (!saved_) thread_state().naming = op;
}
Naming::~Naming() { thread_state().naming = saved_; }

namespace detail {

void append(std::string& s, std::string_view v) { s.append(v); }
void append(std::string& s, const char* v) { s.append(v); }
void append(std::string& s, bool v) { s.append(v ? "true" : "false"); }
void append(std::string& s, long long v) { append_number(s, v); }
void append(std::string& s, unsigned long long v) { append_number(s, v); }
void append(std::string& s, double v) { append_number(s, v); }

void append(std::string& s, const IntArrayRef& v) {
  s.push_back('[');
  for (std::size_t i = 0; i < v.size(); ++i) {
    if (i > 0) s.append(", ");
    append_number(s, v[i]);
  }
  s.push_back(']');
}

void append(std::string& s, DType v) { s.append(name_of(v)); }

void append(std::string& s, const Device& v) {
  s.append(v.is_cpu() ? "cpu" : v.is_cuda() ? "cuda" : "meta");
  if (v.index >= 0) {
    s.push_back(':');
    append_number(s, static_cast<int>(v.index));
  }
}

}  // namespace detail
}  // namespace tutti
