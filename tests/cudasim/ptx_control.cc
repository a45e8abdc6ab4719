// Jumps, calls, barriers, shuffles and votes.
#include "ptx_control.h"

#include <algorithm>

#include "ptx_lanes.h"

namespace cudasim::control {
namespace {

// Checks the mask of a .sync instruction for the lanes that are here. False if lanes are missing
// that will come.
bool all_here(Warp& w, const Instruction& i, u32 mask, Place masks) {
  const u32* m = w.at<u32>(masks);
  bool complete = true;
  active_lanes(mask, [&](u32 l) {
    if (!(m[l] >> l & 1)) w.error(i, l, text("the thread is not in its own mask %#x", m[l]));
    if (m[l] & w.exited())
      w.error(i, l,
              text("the mask %#x names threads that have exited or do not exist (%#x)", m[l],
                   m[l] & w.exited()));
    if (m[l] & ~mask) complete = false;
  });
  if (!complete) return false;
  active_lanes(mask, [&](u32 l) {
    active_lanes(m[l], [&](u32 other) {
      if (m[other] != m[l])
        w.error(i, l, text("masks differ: %#x here, %#x in lane %u", m[l], m[other], other));
    });
  });
  return true;
}

template <class T>
Flow match_any(Warp& w, const Instruction& i, u32 mask) {
  if (!all_here(w, i, mask, i.e)) return Flow::kWait;
  const T* a = w.at<T>(i.a);
  const u32* masks = w.at<u32>(i.e);
  u32 result[kLanes];
  active_lanes(
      mask, [&](u32 l) { result[l] = lane_bits([&](u32 o) { return a[o] == a[l]; }) & masks[l]; });
  active_lanes(mask, [&](u32 l) { w.at<u32>(i.d)[l] = result[l]; });
  return Flow::kNext;
}

template <class T>
Flow match_all(Warp& w, const Instruction& i, u32 mask) {
  if (!all_here(w, i, mask, i.e)) return Flow::kWait;
  const T* a = w.at<T>(i.a);
  const u32* masks = w.at<u32>(i.e);
  u32 result[kLanes], same = 0;
  active_lanes(mask, [&](u32 l) {
    const u32 equal = lane_bits([&](u32 o) { return a[o] == a[l]; }) & masks[l];
    result[l] = equal == masks[l] ? masks[l] : 0;
    same |= static_cast<u32>(equal == masks[l]) << l;
  });
  active_lanes(mask, [&](u32 l) { w.at<u32>(i.d)[l] = result[l]; });
  set_predicate(w, i.d2, same, mask);
  return Flow::kNext;
}

template <class T, class F>
Flow reduce(Warp& w, const Instruction& i, u32 mask) {
  if (!all_here(w, i, mask, i.e)) return Flow::kWait;
  const T* a = w.at<T>(i.a);
  const u32* masks = w.at<u32>(i.e);
  T result[kLanes];
  active_lanes(mask, [&](u32 l) {
    u32 others = masks[l];
    T r = a[std::countr_zero(others)];
    for (others &= others - 1; others; others &= others - 1)
      r = F()(r, a[std::countr_zero(others)]);
    result[l] = r;
  });
  active_lanes(mask, [&](u32 l) { w.at<T>(i.d)[l] = result[l]; });
  return Flow::kNext;
}

struct Sum {
  u32 operator()(u32 a, u32 b) const { return a + b; }
};
struct Least {
  template <class T>
  T operator()(T a, T b) const {
    return std::min(a, b);
  }
};
struct Most {
  template <class T>
  T operator()(T a, T b) const {
    return std::max(a, b);
  }
};
struct AllBits {
  u32 operator()(u32 a, u32 b) const { return a & b; }
};
struct AnyBits {
  u32 operator()(u32 a, u32 b) const { return a | b; }
};
struct OddBits {
  u32 operator()(u32 a, u32 b) const { return a ^ b; }
};

}  // namespace

Flow branch(Warp& w, const Instruction& i, u32 mask) {
  return w.jump(mask, i.target, w.pc_of(i) + 1);
}

Flow branch_indexed(Warp& w, const Instruction& i, u32 mask) {
  const auto& targets = *static_cast<const std::vector<u32>*>(i.data);
  const u32* index = w.at<u32>(i.a);
  // All lanes go to the next instruction, then those with an index each their way.
  w.jump(0, 0, w.pc_of(i) + 1);
  active_lanes(mask, [&](u32 l) {
    if (index[l] >= targets.size())
      w.error(i, l, text("index %u of %zu targets", index[l], targets.size()));
    w.set_pc(l, targets[index[l]]);
  });
  return Flow::kJump;
}

Flow call(Warp& w, const Instruction& i, u32 mask) { return w.call(i, mask); }
Flow leave(Warp& w, const Instruction&, u32 mask) { return w.leave(mask); }
Flow exit(Warp& w, const Instruction&, u32 mask) { return w.exit(mask); }
Flow nothing(Warp&, const Instruction&, u32) { return Flow::kNext; }

Flow trap(Warp& w, const Instruction& i, u32 mask) {
  w.error(i, static_cast<u32>(std::countr_zero(mask)), "trap");
}

Flow block_barrier(Warp& w, const Instruction& i, u32 mask) {
  if (i.a != kNowhere) {
    const u32 p = w.predicate(i.a);
    w.barrier_yes |= p & mask;
  }
  return w.arrive(i, mask);
}

Flow warp_barrier(Warp& w, const Instruction& i, u32 mask) {
  if (!all_here(w, i, mask, i.a)) return Flow::kWait;
  ++w.phase;
  return Flow::kNext;
}

Flow shuffle(Warp& w, const Instruction& i, u32 mask) {
  if (!all_here(w, i, mask, i.e)) return Flow::kWait;
  const u32 *a = w.at<u32>(i.a), *b = w.at<u32>(i.b), *c = w.at<u32>(i.c), *masks = w.at<u32>(i.e);
  u32 from[kLanes];
  std::copy_n(a, kLanes, from);
  u32 in_range = 0;
  u32 result[kLanes] = {};
  active_lanes(mask, [&](u32 l) {
    const u32 by = b[l] & 31, clamp = c[l] & 31, segment = c[l] >> 8 & 31;
    const u32 first = l & segment, last = first | (clamp & ~segment);
    u32 source = l;
    bool ok = false;
    switch (i.mode) {
      case 'u':  // the clamp is a lower bound here
        source = l - by;
        ok = static_cast<i32>(source) >= static_cast<i32>(last);
        break;
      case 'd':
        source = l + by;
        ok = source <= last;
        break;
      case 'b':
        source = l ^ by;
        ok = source <= last;
        break;
      default:
        source = first | (by & ~segment);
        ok = source <= last;
        break;
    }
    if (!ok) source = l;
    if (!(masks[l] >> source & 1))
      w.error(i, l, text("shuffle from lane %u, which is not in the mask %#x", source, masks[l]));
    result[l] = from[source];
    in_range |= static_cast<u32>(ok) << l;
  });
  each_lane(w.at<u32>(i.d), mask, [&](u32 l) { return result[l]; });
  set_predicate(w, i.d2, in_range, mask);
  return Flow::kNext;
}

Flow vote(Warp& w, const Instruction& i, u32 mask) {
  if (!all_here(w, i, mask, i.e)) return Flow::kWait;
  const u32 p = w.predicate(i.a);
  const u32* masks = w.at<u32>(i.e);
  u32 bits = 0;
  active_lanes(mask, [&](u32 l) {
    const u32 yes = p & masks[l];
    if (i.mode == 'b') {
      w.at<u32>(i.d)[l] = yes;
      return;
    }
    const bool r = i.mode == 'a'   ? yes == masks[l]
                   : i.mode == 'n' ? yes != 0
                                   : yes == 0 || yes == masks[l];
    bits |= static_cast<u32>(r) << l;
  });
  if (i.mode != 'b') set_predicate(w, i.d, bits, mask);
  return Flow::kNext;
}

Flow match_any_32(Warp& w, const Instruction& i, u32 mask) { return match_any<u32>(w, i, mask); }
Flow match_any_64(Warp& w, const Instruction& i, u32 mask) { return match_any<u64>(w, i, mask); }
Flow match_all_32(Warp& w, const Instruction& i, u32 mask) { return match_all<u32>(w, i, mask); }
Flow match_all_64(Warp& w, const Instruction& i, u32 mask) { return match_all<u64>(w, i, mask); }

Flow active_mask(Warp& w, const Instruction& i, u32 mask) {
  each_lane(w.at<u32>(i.d), mask, [=](u32) { return mask; });
  return Flow::kNext;
}

Handler reduce_handler(const std::string& op, ptx::Type t) {
  const bool is_signed = t == ptx::Type::kS32;
  if (ptx::bytes_of(t) != 4) return nullptr;
  if (op == "add") return reduce<u32, Sum>;
  if (op == "min") return is_signed ? reduce<i32, Least> : Handler(reduce<u32, Least>);
  if (op == "max") return is_signed ? reduce<i32, Most> : Handler(reduce<u32, Most>);
  if (op == "and") return reduce<u32, AllBits>;
  if (op == "or") return reduce<u32, AnyBits>;
  if (op == "xor") return reduce<u32, OddBits>;
  return nullptr;
}

}  // namespace cudasim::control
