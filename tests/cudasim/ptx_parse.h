// PTX text to statements. Knows the grammar, not the instructions.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base.h"

namespace cudasim::ptx {

/// Fundamental types; kNone where an instruction has none.
enum class Type : u8 {
  kB8,
  kB16,
  kB32,
  kB64,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kBF16,
  kF16x2,
  kBF16x2,
  kF32,
  kF64,
  kPred,
  kNone
};

/// The type a word like "u32" names, or kNone.
Type type_named(std::string_view word);

/// Bytes of a type; a predicate has 0.
u32 bytes_of(Type type);

bool is_signed(Type type);
bool is_float(Type type);  ///< f32 and f64

/// A register of a function. Scopes redeclare names, so instructions hold indices.
struct Register {
  std::string name;
  Type type;
};

/// An operand as written.
struct Operand {
  enum class Kind : u8 {
    kRegister,   ///< index: into Function::registers
    kImmediate,  ///< value: bits
    kSpecial,    ///< name: %tid.x ...
    kSymbol,     ///< name: variable, label or function; value: offset
    kVector,     ///< parts
    kAddress,    ///< [base + value]; parts[0] is the base (register or symbol), if any
    kDiscard,    ///< _
    kList        ///< ( parts ), of calls
  };
  Kind kind = Kind::kImmediate;
  bool negated = false;  ///< !p
  int index = -1;
  int second = -1;  ///< q of p|q
  u64 value = 0;
  std::string name;
  std::vector<Operand> parts;
};

/// Where an instruction comes from.
struct Location {
  int ptx_line = 0;
  int file = 0;  ///< of .loc, the nearest that names a .cu or .cuh file
  int line = 0;
};

/// One instruction.
struct Statement {
  int guard = -1;  ///< register of @p
  bool guard_negated = false;
  std::vector<std::string> opcode;  ///< split at the dots
  std::vector<Operand> operands;
  u32 used_bytes = ~0u;  ///< .pragma "used_bytes_mask": which bytes of a load matter
  Location location;
  std::string text;
};

/// A variable of any state space, with its initial value.
struct Variable {
  std::string name;
  std::string space;  ///< global, const, shared, local, param
  u64 size = 0;
  u32 align = 1;
  bool external = false;  ///< .extern, e.g. dynamic shared memory
  std::vector<u8> initial;
  struct Fixup {
    u64 at;
    std::string symbol;
    u64 offset;
    bool generic;
  };
  std::vector<Fixup> fixups;
};

/// A kernel or device function.
struct Function {
  std::string name;
  bool entry = false;
  bool defined = false;
  std::vector<Variable> parameters;
  std::vector<Variable> results;
  std::vector<Variable> variables;  ///< .shared, .local and .param of the body
  std::vector<Register> registers;
  std::vector<Statement> code;
  std::map<std::string, u32> labels;                            ///< to indices into code
  std::map<std::string, std::vector<std::string>> jump_tables;  ///< .branchtargets
  int max_threads = 0;                                          ///< .maxntid, 0: not given
};

/// One PTX module.
struct Module {
  std::string target;
  std::map<int, std::string> files;
  std::vector<Variable> variables;
  std::vector<Function> functions;
};

/// Parses a module. Anything unknown ends the process with its line.
Module parse(std::string_view text);

}  // namespace cudasim::ptx
