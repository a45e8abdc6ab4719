// Instructions that compute: opcode words to handlers.
#pragma once
#include <array>
#include <string>
#include <vector>

#include "ptx_code.h"

namespace cudasim {

/// The words of an opcode after the first. Every word must be taken by the one who decodes it.
class Modifiers {
 public:
  explicit Modifiers(const std::vector<std::string>& opcode);

  /// True if the word is there; it counts as understood then.
  bool take(std::string_view word);
  /// The first of the words that is there, or "".
  std::string take_one(std::initializer_list<const char*> words);
  /// The types in the order they are written, kNone where there is none.
  ptx::Type type() const { return types_[0]; }
  ptx::Type second_type() const { return types_[1]; }
  /// A word nobody has taken, or "".
  std::string left_over() const;
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  std::vector<std::string> words_;
  std::array<ptx::Type, 4> types_;
};

/// How to run an instruction that turns up to three operands into one result.
struct Arithmetic {
  Handler run = nullptr;
  ptx::Type result = ptx::Type::kNone;
  std::vector<ptx::Type> operands;
  u8 mode = 0;
  const void* data = nullptr;  ///< for the instruction; lives as long as the process
};

/// The handler for an arithmetic instruction; run is nullptr if it is none, or not supported.
Arithmetic arithmetic(Modifiers& m);

/// The handler for cvt between registers of the given bytes.
Arithmetic conversion(Modifiers& m, u32 d_bytes, u32 a_bytes);

/// mov between a register and a vector of registers with half or a quarter of its bytes.
Handler pack_handler(u32 whole_bytes, u32 part_bytes);
Handler unpack_handler(u32 whole_bytes, u32 part_bytes);

}  // namespace cudasim
