// Instructions that steer: jumps, calls, barriers, and exchange between the lanes of a warp.
#pragma once
#include "ptx_exec.h"

namespace cudasim::control {

Flow branch(Warp& w, const Instruction& i, u32 mask);
Flow branch_indexed(Warp& w, const Instruction& i, u32 mask);  ///< brx.idx: a, data: targets
Flow call(Warp& w, const Instruction& i, u32 mask);
Flow leave(Warp& w, const Instruction& i, u32 mask);
Flow exit(Warp& w, const Instruction& i, u32 mask);
Flow trap(Warp& w, const Instruction& i, u32 mask);
Flow nothing(Warp& w, const Instruction& i, u32 mask);  ///< fences, hints
Flow block_barrier(Warp& w, const Instruction& i,
                   u32 mask);  ///< bar.sync; a: predicate of bar.red, mode: p, a or o
Flow warp_barrier(Warp& w, const Instruction& i, u32 mask);  ///< bar.warp.sync; a: mask

/// shfl.sync d|d2, a, b (lane), c (clamp and segments), e (mask); mode: u, d, b or i
Flow shuffle(Warp& w, const Instruction& i, u32 mask);
/// vote.sync d, a (predicate), e (mask); mode: b(allot), a(ll), n (any), u(ni)
Flow vote(Warp& w, const Instruction& i, u32 mask);
/// match.any.sync.b32/b64 d, a, e (mask)
Flow match_any_32(Warp& w, const Instruction& i, u32 mask);
Flow match_any_64(Warp& w, const Instruction& i, u32 mask);
/// match.all.sync d|d2, a, e (mask)
Flow match_all_32(Warp& w, const Instruction& i, u32 mask);
Flow match_all_64(Warp& w, const Instruction& i, u32 mask);
/// activemask.b32 d
Flow active_mask(Warp& w, const Instruction& i, u32 mask);
/// redux.sync d, a, e (mask): "add", "min", "max", "and", "or", "xor"; nullptr if not supported
Handler reduce_handler(const std::string& op, ptx::Type type);

}  // namespace cudasim::control
