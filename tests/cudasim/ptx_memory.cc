// Loads, stores and atomics: addresses to bytes, with checks of bounds, alignment and races.
#include "ptx_memory.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "ptx_half.h"

namespace cudasim {
namespace {

// What an instruction does to memory.
struct Request {
  u32 size;
  bool write;
  bool atomic;
};

const char* verb(const Request& r) {
  return r.atomic && r.write ? "atomic" : r.write ? "write" : "read";
}

[[noreturn]] void out_of_bounds(Warp& w, const Instruction& i, u32 lane, const char* space,
                                const Request& r, const std::string& where) {
  w.error(i, lane,
          text("%s %s of %u bytes out of bounds: %s", space, verb(r), r.size, where.c_str()));
}

void check_race(Warp& w, const Instruction& i, u32 lane, const Request& r, ShadowMemory& shadow,
                u64 offset, bool shared, u64 address) {
  const Access access{w.index() * kLanes + lane, r.write, r.atomic};
  if (!shadow.check(offset, r.size, i.used_bytes, access, w.block().clock, w.phase, shared)) {
    w.block().race(w, i, lane, shared ? "shared" : "global", address, shadow, r.write);
  }
}

u8* global_bytes(Warp& w, const Instruction& i, u32 lane, u64 address, const Request& r) {
  DeviceMemory& memory = device_memory();
  Allocation* a = memory.find(address);
  if (!a || address + r.size > a->end)
    out_of_bounds(w, i, lane, "global", r, memory.describe(a ? a->end : address));
  if (settings().races) {
    a->shadow.reserve(a->end - a->begin);
    check_race(w, i, lane, r, a->shadow, address - a->begin, false, address);
  }
  return memory.bytes(address);
}

bool within_one_variable(const Block& block, u64 address, u32 size) {
  const Function& k = *block.launch.kernel;
  if (address >= k.shared_end) return address + size <= block.shared.size();
  for (const SharedVariable& v : k.shared)
    if (address >= v.begin && address + size <= v.end) return true;
  return false;
}

u8* shared_bytes(Warp& w, const Instruction& i, u32 lane, u64 address, const Request& r) {
  Block& block = w.block();
  if (!within_one_variable(block, address, r.size)) {
    std::string where = text("%#llx", (unsigned long long)address);
    for (const SharedVariable& v : block.launch.kernel->shared)
      if (address >= v.begin)
        where = text("%lld bytes into %s of %u bytes", (long long)(address - v.begin),
                     v.name.c_str(), v.end - v.begin);
    out_of_bounds(w, i, lane, "shared", r, where);
  }
  if (settings().races) check_race(w, i, lane, r, block.shared_shadow, address, true, address);
  return block.shared.data() + address;
}

u8* local_bytes(Warp& w, const Instruction& i, u32 lane, u64 address, const Request& r) {
  const Frame& f = w.frame();
  const u64 end = f.local_base + f.function->local_bytes;
  if (address + r.size > end) {
    out_of_bounds(w, i, lane, "local", r,
                  text("byte %llu of %llu", (unsigned long long)address, (unsigned long long)end));
  }
  return w.local(lane, end) + address;
}

u8* parameter_bytes(Warp& w, const Instruction& i, u32 lane, u64 address, const Request& r,
                    bool out) {
  Frame& f = w.frame();
  const u32 end = out ? f.function->out_bytes : f.function->in_bytes;
  if (address + r.size > end)
    out_of_bounds(w, i, lane, "parameter", r,
                  text("byte %llu of %u", (unsigned long long)address, end));
  return out ? f.out.data() + std::size_t{lane} * f.function->out_bytes + address
             : f.in + std::size_t{lane} * f.in_stride + address;
}

u8* bytes_of(Warp& w, const Instruction& i, u32 lane, Space space, u64 address, const Request& r) {
  if (address & (r.size - 1)) {
    w.error(
        i, lane,
        text("misaligned %s of %u bytes at %#llx", verb(r), r.size, (unsigned long long)address));
  }
  switch (space) {
    case Space::kGeneric:
      if (address & kSharedWindow) return shared_bytes(w, i, lane, address & ~kSharedWindow, r);
      if (address & kLocalWindow) return local_bytes(w, i, lane, address & ~kLocalWindow, r);
      if (address & kParamWindow)
        return parameter_bytes(w, i, lane, address & ~kParamWindow, r, false);
      return global_bytes(w, i, lane, address, r);
    case Space::kGlobal:
    case Space::kConst:
      return global_bytes(w, i, lane, address, r);
    case Space::kShared:
      return shared_bytes(w, i, lane, address, r);
    case Space::kLocal:
      return local_bytes(w, i, lane, address, r);
    case Space::kParamIn:
      return parameter_bytes(w, i, lane, address, r, false);
    case Space::kParamOut:
      return parameter_bytes(w, i, lane, address, r, true);
  }
  fail("space without bytes");
}

struct Addresses {
  u64 of[kLanes];
};

Addresses addresses(Warp& w, const Instruction& i, Place base) {
  Addresses x;
  if (base == kNowhere) {
    std::fill_n(x.of, kLanes, i.offset);
  } else if (i.address_is_32) {
    const u32* v = w.at<u32>(base);
    for (u32 l = 0; l < kLanes; ++l) x.of[l] = v[l] + static_cast<u32>(i.offset);
  } else {
    const u64* v = w.at<u64>(base);
    for (u32 l = 0; l < kLanes; ++l) x.of[l] = v[l] + i.offset;
  }
  return x;
}

template <class F>
void for_lanes(u32 mask, F f) {
  for (; mask; mask &= mask - 1) f(static_cast<u32>(std::countr_zero(mask)));
}

// Counts the 32-byte sectors a request to global memory touches.
void count_sectors(const Instruction& i, u32 mask, const Addresses& x, u32 size) {
  u64 sectors[2 * kLanes];
  std::size_t n = 0;
  for_lanes(mask, [&](u32 l) {
    sectors[n++] = x.of[l] / 32;
    sectors[n++] = (x.of[l] + size - 1) / 32;
  });
  std::sort(sectors, sectors + n);
  ++i.requests;
  i.sectors += static_cast<u64>(std::unique(sectors, sectors + n) - sectors);
}

// M: in memory, R: in the register.
template <class M, class R>
Flow load(Warp& w, const Instruction& i, u32 mask) {
  const Addresses x = addresses(w, i, i.a);
  const Request r{static_cast<u32>(sizeof(M)) * i.count, false, i.atomic};
  if (settings().stats && i.space == Space::kGlobal) count_sectors(i, mask, x, r.size);
  R* to[4] = {};
  for (u32 k = 0; k < i.count; ++k) to[k] = i.parts[k] == kNowhere ? nullptr : w.at<R>(i.parts[k]);
  for_lanes(mask, [&](u32 l) {
    const u8* p = bytes_of(w, i, l, i.space, x.of[l], r);
    for (u32 k = 0; k < i.count; ++k) {
      M m;
      std::memcpy(&m, p + k * sizeof(M), sizeof m);
      if (to[k]) to[k][l] = static_cast<R>(m);
    }
  });
  return Flow::kNext;
}

template <class M, class R>
Flow store(Warp& w, const Instruction& i, u32 mask) {
  const Addresses x = addresses(w, i, i.a);
  const Request r{static_cast<u32>(sizeof(M)) * i.count, true, i.atomic};
  if (i.space == Space::kConst)
    w.error(i, static_cast<u32>(std::countr_zero(mask)), "write to constant memory");
  if (settings().stats && i.space == Space::kGlobal) count_sectors(i, mask, x, r.size);
  const R* from[4] = {};
  for (u32 k = 0; k < i.count; ++k) from[k] = w.at<R>(i.parts[k]);
  for_lanes(mask, [&](u32 l) {
    u8* p = bytes_of(w, i, l, i.space, x.of[l], r);
    for (u32 k = 0; k < i.count; ++k) {
      const M m = static_cast<M>(from[k][l]);
      std::memcpy(p + k * sizeof(M), &m, sizeof m);
    }
  });
  return Flow::kNext;
}

// --- atomics: lanes take their turn in order
struct AtomicAdd {
  template <class T>
  T operator()(T old, T v, T) const {
    if constexpr (std::is_integral_v<T> && sizeof(T) >= 4) {
      return static_cast<T>(static_cast<std::make_unsigned_t<T>>(old) +
                            static_cast<std::make_unsigned_t<T>>(v));
    } else {
      return old + v;
    }
  }
};
struct AtomicMin {
  template <class T>
  T operator()(T old, T v, T) const {
    return std::min(old, v);
  }
};
struct AtomicMax {
  template <class T>
  T operator()(T old, T v, T) const {
    return std::max(old, v);
  }
};
struct AtomicAnd {
  template <class T>
  T operator()(T old, T v, T) const {
    return old & v;
  }
};
struct AtomicOr {
  template <class T>
  T operator()(T old, T v, T) const {
    return old | v;
  }
};
struct AtomicXor {
  template <class T>
  T operator()(T old, T v, T) const {
    return old ^ v;
  }
};
struct AtomicExchange {
  template <class T>
  T operator()(T, T v, T) const {
    return v;
  }
};
struct AtomicCompareAndSwap {
  template <class T>
  T operator()(T old, T expected, T v) const {
    return old == expected ? v : old;
  }
};
struct AtomicIncrement {
  u32 operator()(u32 old, u32 v, u32) const { return old >= v ? 0 : old + 1; }
};
struct AtomicDecrement {
  u32 operator()(u32 old, u32 v, u32) const { return old == 0 || old > v ? v : old - 1; }
};

template <class T, class F>
Flow atomic(Warp& w, const Instruction& i, u32 mask) {
  const Addresses x = addresses(w, i, i.a);
  const Request r{sizeof(T), true, true};
  const T* b = w.at<T>(i.b);
  const T* c = i.c == kNowhere ? b : w.at<T>(i.c);
  T* d = i.d == kNowhere ? nullptr : w.at<T>(i.d);
  for_lanes(mask, [&](u32 l) {
    u8* p = bytes_of(w, i, l, i.space, x.of[l], r);
    T old;
    std::memcpy(static_cast<void*>(&old), p, sizeof old);
    const T now = F()(old, b[l], c[l]);
    std::memcpy(p, &now, sizeof now);
    if (d) d[l] = old;
  });
  return Flow::kNext;
}

template <class F>
Handler bitwise(ptx::Type t) {
  switch (ptx::bytes_of(t)) {
    case 4:
      return atomic<u32, F>;
    case 8:
      return atomic<u64, F>;
    default:
      return nullptr;
  }
}

template <class F>
Handler ordered(ptx::Type t) {
  switch (t) {
    case ptx::Type::kU32:
      return atomic<u32, F>;
    case ptx::Type::kS32:
      return atomic<i32, F>;
    case ptx::Type::kU64:
      return atomic<u64, F>;
    case ptx::Type::kS64:
      return atomic<i64, F>;
    default:
      return nullptr;
  }
}

template <class M>
Handler load_to(u32 register_bytes) {
  switch (register_bytes) {
    case 2:
      if constexpr (sizeof(M) <= 2) return load<M, u16>;
      return nullptr;
    case 4:
      if constexpr (sizeof(M) <= 4) return load<M, u32>;
      return nullptr;
    case 8:
      return load<M, u64>;
    default:
      return nullptr;
  }
}

template <class M>
Handler store_from(u32 register_bytes) {
  switch (register_bytes) {
    case 2:
      if constexpr (sizeof(M) <= 2) return store<M, u16>;
      return nullptr;
    case 4:
      if constexpr (sizeof(M) <= 4) return store<M, u32>;
      return nullptr;
    case 8:
      return store<M, u64>;
    default:
      return nullptr;
  }
}

}  // namespace

u8* generic_bytes(Warp& warp, const Instruction& i, u32 lane, u64 address, u32 size) {
  return bytes_of(warp, i, lane, Space::kGeneric, address, {size, false, true});
}

Handler load_handler(u32 bytes, u32 register_bytes, bool sign) {
  switch (bytes) {
    case 1:
      return sign ? load_to<i8>(register_bytes) : load_to<u8>(register_bytes);
    case 2:
      return sign ? load_to<i16>(register_bytes) : load_to<u16>(register_bytes);
    case 4:
      return sign ? load_to<i32>(register_bytes) : load_to<u32>(register_bytes);
    case 8:
      return load_to<u64>(register_bytes);
    default:
      return nullptr;
  }
}

Handler store_handler(u32 bytes, u32 register_bytes) {
  switch (bytes) {
    case 1:
      return store_from<u8>(register_bytes);
    case 2:
      return store_from<u16>(register_bytes);
    case 4:
      return store_from<u32>(register_bytes);
    case 8:
      return store_from<u64>(register_bytes);
    default:
      return nullptr;
  }
}

Handler atomic_handler(const std::string& op, ptx::Type t) {
  using ptx::Type;
  if (op == "add") {
    switch (t) {
      case Type::kF32:
        return atomic<float, AtomicAdd>;
      case Type::kF64:
        return atomic<double, AtomicAdd>;
      case Type::kF16:
        return atomic<Half, AtomicAdd>;
      case Type::kBF16:
        return atomic<BFloat16, AtomicAdd>;
      case Type::kF16x2:
        return atomic<Two<Half>, AtomicAdd>;
      case Type::kBF16x2:
        return atomic<Two<BFloat16>, AtomicAdd>;
      default:
        return ordered<AtomicAdd>(t);
    }
  }
  if (op == "min") return ordered<AtomicMin>(t);
  if (op == "max") return ordered<AtomicMax>(t);
  if (op == "and") return bitwise<AtomicAnd>(t);
  if (op == "or") return bitwise<AtomicOr>(t);
  if (op == "xor") return bitwise<AtomicXor>(t);
  if (op == "exch") return bitwise<AtomicExchange>(t);
  if (op == "cas")
    return ptx::bytes_of(t) == 2 ? atomic<u16, AtomicCompareAndSwap>
                                 : bitwise<AtomicCompareAndSwap>(t);
  if (op == "inc") return t == Type::kU32 ? atomic<u32, AtomicIncrement> : nullptr;
  if (op == "dec") return t == Type::kU32 ? atomic<u32, AtomicDecrement> : nullptr;
  return nullptr;
}

}  // namespace cudasim
