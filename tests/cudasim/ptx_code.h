// Decoded PTX and the state it runs on. An instruction is decoded once, into a handler that works
// on the 32 lanes of a warp at a time and the places of its operands.
#pragma once
#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base.h"
#include "ptx_parse.h"

namespace cudasim {

inline constexpr u32 kLanes = 32;
inline constexpr u32 kAllLanes = ~0u;

class Warp;
struct Function;
struct Instruction;

/// Where the 32 values of an operand lie: an offset into the registers of the frame, or (top bit)
/// into the constants of the function. Registers of n bytes take 32 n bytes, predicates one u32
/// with a bit per lane.
using Place = u32;
inline constexpr Place kConstant = 0x80000000u;
inline constexpr Place kNowhere = 0xffffffffu;

/// What happens after an instruction.
enum class Flow : u8 {
  kNext,  ///< on to the following one
  kJump,  ///< the program counters of the lanes have changed
  kWait   ///< nothing was done: lanes named by the mask are not here yet
};

using Handler = Flow (*)(Warp& warp, const Instruction& i, u32 mask);

/// Special registers.
enum class Special : u8 {
  kTid,
  kNtid,
  kCtaid,
  kNctaid,
  kLaneId,
  kWarpId,
  kMaskEq,
  kMaskLt,
  kMaskLe,
  kMaskGt,
  kMaskGe
};

/// State spaces as the executor tells them apart.
enum class Space : u8 { kGeneric, kGlobal, kConst, kShared, kLocal, kParamIn, kParamOut };

/// A decoded instruction.
struct Instruction {
  Handler run = nullptr;
  mutable u64 executions = 0;             ///< times with at least one active lane
  mutable u64 requests = 0, sectors = 0;  ///< of global memory, if settings().stats
  Place guard = kNowhere;
  Place d = kNowhere, d2 = kNowhere;                             ///< results
  Place a = kNowhere, b = kNowhere, c = kNowhere, e = kNowhere;  ///< operands
  std::array<Place, 8> parts{};                                  ///< of vector operands
  u64 offset = 0;                                                ///< of an address
  u32 target = 0;                                                ///< of a jump
  u32 used_bytes = ~0u;
  bool guard_negated = false;
  Space space = Space::kGeneric;
  u8 count = 1;         ///< of parts
  u8 bytes = 0;         ///< of an element in memory, or of a part
  u8 d_bytes = 0;       ///< of registers, which may be wider than the element
  u8 mode = 0;          ///< what the handler likes
  bool sign = false;    ///< sign-extend what is loaded
  bool atomic = false;  ///< volatile, relaxed ... accesses
  bool address_is_32 = false;
  bool discarded = false;      ///< the result is thrown away
  const void* data = nullptr;  ///< a Call, a jump table ...
};

/// What messages and reports say about an instruction.
struct InstructionText {
  std::string text;
  ptx::Location location;
};

/// A copy between parameter spaces at a call.
struct ParameterCopy {
  u32 from, to, size;
};

/// A direct call.
struct Call {
  const Function* callee = nullptr;
  std::string builtin;  ///< vprintf, __assertfail ...: no callee then
  std::vector<ParameterCopy> arguments, results;
};

/// A variable in shared memory, for exact bounds.
struct SharedVariable {
  u32 begin, end;
  std::string name;
};

/// A decoded function.
struct Function {
  std::string name;
  bool entry = false;
  std::vector<Instruction> code;
  std::vector<InstructionText> texts;
  std::vector<u8> constants;
  u32 register_bytes = 0;
  u32 in_bytes = 0;   ///< parameters and results
  u32 out_bytes = 0;  ///< parameters of calls
  u32 local_bytes = 0;
  u32 frame_base = 0;  ///< place of the register that holds the address of local memory
  Place carry = 0;     ///< place of the carry flags
  struct SpecialRegister {
    Special which;
    u8 axis;  ///< 0, 1, 2 for x, y, z
    Place place;
  };
  std::vector<SpecialRegister> specials;
  struct Parameter {
    u32 offset, size;
  };
  std::vector<Parameter> parameters;  ///< of a kernel
  // Shared memory of a kernel. Variables are kept apart by gaps, so addresses run further than what
  // is counted.
  std::vector<SharedVariable> shared;
  u32 shared_bytes = 0;  ///< counted: what a GPU needs
  u32 shared_end = 0;    ///< static variables and gaps; dynamic memory starts here
  int max_threads = 0;
  std::map<int, std::string> const* files = nullptr;
  std::vector<std::unique_ptr<Call>> calls;
  std::vector<std::unique_ptr<std::vector<u32>>> jump_tables;

  /// "kernel f, k.cu:12, PTX line 71: add.s32 ..."
  std::string where(const Instruction& i) const;
};

/// A loaded module.
struct Program {
  std::map<std::string, std::unique_ptr<Function>> functions;
  std::map<std::string, u64> variables;  ///< device addresses
  std::map<std::string, u64> variable_sizes;
  std::map<int, std::string> files;
};

/// Decodes a parsed module; allocates and fills its variables.
std::unique_ptr<Program> decode(const ptx::Module& module);

}  // namespace cudasim
