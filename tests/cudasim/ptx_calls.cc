// vprintf and __assertfail.
#include "ptx_calls.h"

#include <bit>
#include <cstdio>
#include <cstring>

#include "ptx_memory.h"

namespace cudasim {
namespace {

template <class T>
T argument(Warp& warp, const Call& call, u32 lane, std::size_t index) {
  T value;
  const Frame& f = warp.frame();
  std::memcpy(&value, f.out.data() + lane * f.function->out_bytes + call.arguments[index].from,
              sizeof value);
  return value;
}

std::string device_string(Warp& warp, const Instruction& i, u32 lane, u64 address) {
  std::string s;
  for (;; ++address) {
    const char c = static_cast<char>(*generic_bytes(warp, i, lane, address, 1));
    if (!c) return s;
    s += c;
  }
}

// Prints one conversion; `at` walks through the packed arguments.
std::string converted(Warp& warp, const Instruction& i, u32 lane, std::string spec, u64& at) {
  const char kind = spec.back();
  const auto take = [&](u32 size) {
    at = (at + size - 1) / size * size;
    u64 bits = 0;
    std::memcpy(&bits, generic_bytes(warp, i, lane, at, size), size);
    at += size;
    return bits;
  };
  switch (kind) {
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
    case 'c': {
      const bool wide = spec.find('l') != std::string::npos || spec.find('z') != std::string::npos;
      std::erase_if(spec, [](char c) { return c == 'l' || c == 'h' || c == 'z'; });
      const u64 bits = take(wide ? 8 : 4);
      if (kind == 'c') return text(spec.c_str(), static_cast<int>(bits));
      spec.insert(spec.size() - 1, "ll");
      if (!wide && (kind == 'd' || kind == 'i'))
        return text(spec.c_str(), static_cast<long long>(static_cast<i32>(bits)));
      return text(spec.c_str(), static_cast<long long>(bits));
    }
    case 'f':
    case 'F':
    case 'e':
    case 'E':
    case 'g':
    case 'G':
    case 'a':
    case 'A':
      return text(spec.c_str(), std::bit_cast<double>(take(8)));
    case 's':
      return text(spec.c_str(), device_string(warp, i, lane, take(8)).c_str());
    case 'p':
      return text(spec.c_str(), reinterpret_cast<void*>(take(8)));
    default:
      warp.error(i, lane, "printf conversion '" + spec + "' is not supported");
  }
}

void print(Warp& warp, const Instruction& i, const Call& call, u32 lane) {
  const std::string format = device_string(warp, i, lane, argument<u64>(warp, call, lane, 0));
  u64 at = argument<u64>(warp, call, lane, 1);
  std::string out;
  for (std::size_t k = 0; k < format.size(); ++k) {
    if (format[k] != '%') {
      out += format[k];
    } else if (k + 1 < format.size() && format[k + 1] == '%') {
      out += '%';
      ++k;
    } else {
      const std::size_t end = format.find_first_of("diuxXocfFeEgGaAsp", k + 1);
      if (end == std::string::npos) warp.error(i, lane, "printf format '" + format + "'");
      out += converted(warp, i, lane, format.substr(k, end + 1 - k), at);
      k = end;
    }
  }
  std::fputs(out.c_str(), stdout);
}

}  // namespace

bool is_builtin(const std::string& name) { return name == "vprintf" || name == "__assertfail"; }

void call_builtin(Warp& warp, const Instruction& i, const Call& call, u32 mask) {
  for (u32 lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1)) continue;
    if (call.builtin == "vprintf") {
      print(warp, i, call, lane);
      continue;
    }
    const std::string what = device_string(warp, i, lane, argument<u64>(warp, call, lane, 0));
    const std::string file = device_string(warp, i, lane, argument<u64>(warp, call, lane, 1));
    const u32 line = argument<u32>(warp, call, lane, 2);
    warp.error(i, lane, text("%s:%u: assertion `%s' failed", file.c_str(), line, what.c_str()));
  }
}

}  // namespace cudasim
