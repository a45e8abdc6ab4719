// Decoding: parsed statements to instructions with handlers and places.
#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "memory.h"
#include "ptx_arith.h"
#include "ptx_calls.h"
#include "ptx_code.h"
#include "ptx_control.h"
#include "ptx_exec.h"
#include "ptx_memory.h"

namespace cudasim {
namespace {

using ptx::Operand;
using ptx::Statement;
using ptx::Type;
using Kind = ptx::Operand::Kind;

constexpr u32 kSharedGap =
    256;  // between shared variables, so that running over one does not end in the next
constexpr u32 kRegisterAlign = 64;

u32 align_up(u32 n, u32 align) { return (n + align - 1) / align * align; }

// A symbol of a function or module.
struct Symbol {
  std::string space;
  u64 address = 0;   // of global and const; offset otherwise
  bool out = false;  // .param of a call
};

class FunctionDecoder {
 public:
  FunctionDecoder(Program& program, const ptx::Module& module, const ptx::Function& source,
                  Function& f)
      : program_(program), module_(module), source_(source), f_(f) {}

  void run() {
    place_registers();
    place_variables();
    for (const Statement& s : source_.code) {
      statement_ = &s;
      instruction(s);
    }
    // Falling off the end returns.
    Instruction end;
    end.run = control::leave;
    f_.code.push_back(end);
    f_.texts.push_back({"ret (end of the function)",
                        f_.texts.empty() ? ptx::Location{} : f_.texts.back().location});
    f_.register_bytes = align_up(f_.register_bytes, kRegisterAlign);
  }

 private:
  [[noreturn]] void unsupported(const std::string& what) {
    const ptx::Location& at = statement_->location;
    const auto file = module_.files.find(at.file);
    fail("%s is not supported: PTX line %d of %s, %s:%d: %s", what.c_str(), at.ptx_line,
         f_.name.c_str(), file == module_.files.end() ? "source line" : file->second.c_str(),
         at.line, statement_->text.c_str());
  }

  // --- places
  Place new_register(u32 bytes_per_lane) {
    const Place p = f_.register_bytes;
    f_.register_bytes +=
        align_up(std::max(bytes_per_lane * kLanes, u32{4}), bytes_per_lane ? kRegisterAlign : 4);
    return p;
  }

  void place_registers() {
    f_.carry = new_register(0);
    for (const ptx::Register& r : source_.registers)
      if (r.type == Type::kPred) registers_[&r - source_.registers.data()] = new_register(0);
    f_.register_bytes = align_up(f_.register_bytes, kRegisterAlign);
    f_.frame_base = new_register(8);
    for (const ptx::Register& r : source_.registers)
      if (r.type != Type::kPred)
        registers_[&r - source_.registers.data()] = new_register(ptx::bytes_of(r.type));
  }

  void place_variables() {
    u32 in = 0;
    for (const auto* list : {&source_.results, &source_.parameters}) {
      for (const ptx::Variable& v : *list) {
        in = align_up(in, v.align);
        symbols_[v.name] = {"param", in, false};
        if (list == &source_.parameters) f_.parameters.push_back({in, static_cast<u32>(v.size)});
        in += static_cast<u32>(v.size);
      }
    }
    f_.in_bytes = align_up(in, 16);
    for (const ptx::Variable& v : module_.variables)
      if (v.space == "shared" && !v.external) add_shared(v);
    // Device functions have shared variables of their own; every kernel makes room for all of them.
    for (const ptx::Function& other : module_.functions) {
      if (other.entry || &other == &source_) continue;
      for (const ptx::Variable& v : other.variables)
        if (v.space == "shared") add_shared(v);
    }
    for (const ptx::Variable& v : source_.variables) {
      if (v.space == "shared") {
        add_shared(v);
      } else if (v.space == "local") {
        f_.local_bytes = align_up(f_.local_bytes, v.align);
        symbols_[v.name] = {"local", f_.local_bytes, false};
        f_.local_bytes += static_cast<u32>(v.size);
      } else {  // .param of a call; names are used again in every call
        auto& s = symbols_[v.name];
        f_.out_bytes = align_up(f_.out_bytes, std::max(v.align, u32{16}));
        if (s.space.empty() || out_sizes_[v.name] < v.size) {
          s = {"param", f_.out_bytes, true};
          out_sizes_[v.name] = v.size;
          f_.out_bytes += static_cast<u32>(v.size);
        }
      }
    }
    f_.out_bytes = align_up(f_.out_bytes, 16);
    f_.shared_end = align_up(f_.shared_end, 16);
    for (const ptx::Variable& v : module_.variables)
      if (v.space == "shared" && v.external) symbols_[v.name] = {"shared", f_.shared_end, false};
  }

  void add_shared(const ptx::Variable& v) {
    const u32 size = static_cast<u32>(v.size);
    const u32 begin = align_up(f_.shared_end, std::max(v.align, u32{16}));
    f_.shared.push_back({begin, begin + size, v.name});
    f_.shared_end = begin + size + kSharedGap;
    f_.shared_bytes = align_up(f_.shared_bytes, v.align) + size;
    symbols_[v.name] = {"shared", begin, false};
  }

  const Symbol& symbol(const std::string& name) {
    const auto it = symbols_.find(name);
    if (it != symbols_.end()) return it->second;
    const auto global = program_.variables.find(name);
    if (global == program_.variables.end()) unsupported("symbol " + name);
    return symbols_[name] = {"global", global->second, false};
  }

  Place constant(u64 value, u32 bytes) {
    const auto key = std::make_pair(value, bytes);
    const auto it = constants_.find(key);
    if (it != constants_.end()) return it->second;
    const u32 at = static_cast<u32>(f_.constants.size());
    f_.constants.resize(at + align_up(std::max(bytes * kLanes, u32{4}), kRegisterAlign));
    if (bytes == 0) {
      const u32 bits = value ? kAllLanes : 0;
      std::memcpy(&f_.constants[at], &bits, 4);
    }
    for (u32 l = 0; l < kLanes && bytes; ++l)
      std::memcpy(&f_.constants[at + l * bytes], &value, bytes);
    return constants_[key] = at | kConstant;
  }

  Place special(const std::string& name) {
    static const std::pair<const char*, Special> kNames[] = {{"%tid", Special::kTid},
                                                             {"%ntid", Special::kNtid},
                                                             {"%ctaid", Special::kCtaid},
                                                             {"%nctaid", Special::kNctaid},
                                                             {"%laneid", Special::kLaneId},
                                                             {"%warpid", Special::kWarpId},
                                                             {"%lanemask_eq", Special::kMaskEq},
                                                             {"%lanemask_lt", Special::kMaskLt},
                                                             {"%lanemask_le", Special::kMaskLe},
                                                             {"%lanemask_gt", Special::kMaskGt},
                                                             {"%lanemask_ge", Special::kMaskGe}};
    const std::size_t dot = name.find('.');
    const u8 axis = dot == std::string::npos ? u8{0} : static_cast<u8>(name.back() - 'x');
    for (const auto& [known, which] : kNames) {
      if (name.substr(0, dot) != known) continue;
      for (const Function::SpecialRegister& s : f_.specials)
        if (s.which == which && s.axis == axis) return s.place;
      const Place p = new_register(4);
      f_.specials.push_back({which, axis, p});
      return p;
    }
    unsupported("special register " + name);
  }

  u32 register_bytes(const Operand& o) {
    return ptx::bytes_of(source_.registers[static_cast<std::size_t>(o.index)].type);
  }

  // The place of a source operand of the given bytes (0: predicate).
  Place source(const Operand& o, u32 bytes) {
    switch (o.kind) {
      case Kind::kRegister:
        if (register_bytes(o) != bytes) unsupported("a register of another size");
        if (o.negated) return negated(registers_[o.index]);
        return registers_[o.index];
      case Kind::kImmediate:
        return constant(bytes == 8 || bytes == 0 ? o.value : o.value & ((u64{1} << 8 * bytes) - 1),
                        bytes);
      case Kind::kSpecial:
        if (bytes != 4) unsupported("special register in this size");
        return special(o.name);
      case Kind::kSymbol:
        return constant(symbol_value(o), bytes);
      default:
        unsupported("operand");
    }
  }

  // !p: a temporary, computed just before.
  Place negated(Place p) {
    Instruction i;
    const Place t = new_predicate();
    std::vector<std::string> opcode{"not", "pred"};
    Modifiers m(opcode);
    i.run = arithmetic(m).run;
    i.a = p;
    i.d = t;
    emit(i);
    return t;
  }
  Place new_predicate() {
    const Place p = new_register(0);
    f_.register_bytes = align_up(f_.register_bytes, kRegisterAlign);
    return p;
  }

  // Addresses of local variables depend on the call depth and are handled by mov.
  u64 symbol_value(const Operand& o) {
    const Symbol& s = symbol(o.name);
    if (s.space == "local" || s.out) unsupported("address of " + o.name);
    return s.address + o.value;
  }

  Place result(const Operand& o, u32 bytes) {
    if (o.kind == Kind::kDiscard) return discard(bytes);
    if (o.kind != Kind::kRegister) unsupported("result operand");
    if (register_bytes(o) != bytes) unsupported("a register of another size");
    return registers_[o.index];
  }
  Place discard(u32 bytes) { return bytes ? new_register(bytes) : new_predicate(); }

  void emit(Instruction i) {
    f_.code.push_back(i);
    f_.texts.push_back({statement_->text, statement_->location});
  }

  u32 label(const std::string& name) {
    const auto it = source_.labels.find(name);
    if (it == source_.labels.end()) unsupported("label " + name);
    return it->second;
  }

  // --- instructions
  void instruction(const Statement& s);
  bool memory(const Statement& s, Modifiers& m, Instruction& i);
  bool warp_level(const Statement& s, Modifiers& m, Instruction& i);
  bool steering(const Statement& s, Modifiers& m, Instruction& i);
  void address(const Operand& o, Instruction& i);
  void vector_parts(const Operand& o, u32 bytes, Instruction& i, bool load);
  void call(const Statement& s, Instruction& i);
  void move_address(const Statement& s, Instruction& i);
  void arithmetic_operands(const Statement& s, const Arithmetic& a, Instruction& i);

 public:
  /// Jump targets are indices of statements until all instructions are known.
  void resolve_targets(const std::vector<u32>& first) {
    for (Instruction& i : f_.code)
      if (i.run == control::branch) i.target = first[i.target];
    for (auto& table : f_.jump_tables)
      for (u32& t : *table) t = first[t];
  }
  std::vector<u32> first_;  // instruction of each statement

 private:
  Program& program_;
  const ptx::Module& module_;
  const ptx::Function& source_;
  Function& f_;
  const Statement* statement_ = nullptr;
  std::unordered_map<std::ptrdiff_t, Place> registers_;
  std::unordered_map<std::string, Symbol> symbols_;
  std::unordered_map<std::string, u64> out_sizes_;
  std::map<std::pair<u64, u32>, Place> constants_;
};

void FunctionDecoder::instruction(const Statement& s) {
  first_.push_back(static_cast<u32>(f_.code.size()));
  Instruction i;
  if (s.guard >= 0) {
    i.guard = registers_[s.guard];
    i.guard_negated = s.guard_negated;
  }
  i.used_bytes = s.used_bytes;
  Modifiers m(s.opcode);
  if (!memory(s, m, i) && !warp_level(s, m, i) && !steering(s, m, i)) {
    const std::string& op = s.opcode[0];
    if (op == "mov" && s.operands.size() == 2 && s.operands[1].kind == Kind::kVector) {
      i.count = static_cast<u8>(s.operands[1].parts.size());
      const u32 bytes = ptx::bytes_of(m.type()), part = bytes / i.count;
      for (u32 k = 0; k < i.count; ++k) i.parts[k] = source(s.operands[1].parts[k], part);
      i.d = result(s.operands[0], bytes);
      i.run = pack_handler(bytes, part);
    } else if (op == "mov" && s.operands.size() == 2 && s.operands[0].kind == Kind::kVector) {
      i.count = static_cast<u8>(s.operands[0].parts.size());
      const u32 bytes = ptx::bytes_of(m.type()), part = bytes / i.count;
      for (u32 k = 0; k < i.count; ++k) i.parts[k] = result(s.operands[0].parts[k], part);
      i.a = source(s.operands[1], bytes);
      i.run = unpack_handler(bytes, part);
    } else if (op == "mov" && s.operands.size() == 2 && s.operands[1].kind == Kind::kSymbol) {
      move_address(s, i);
    } else if (op == "cvt") {
      const auto bytes = [&](const Operand& o, Type t) {
        return o.kind == Kind::kRegister ? register_bytes(o) : ptx::bytes_of(t);
      };
      const u32 d = bytes(s.operands.at(0), m.type()), a = bytes(s.operands.at(1), m.second_type());
      const Arithmetic c = conversion(m, d, a);
      i.run = c.run;
      i.data = c.data;
      i.d = result(s.operands[0], d);
      i.a = source(s.operands[1], a);
      if (s.operands.size() > 2) i.b = source(s.operands[2], 4);
    } else {
      const Arithmetic a = arithmetic(m);
      if (!a.run) unsupported("instruction");
      arithmetic_operands(s, a, i);
    }
  }
  if (!i.run) unsupported("instruction");
  if (const std::string word = m.left_over(); !word.empty()) unsupported("modifier ." + word);
  emit(i);
}

void FunctionDecoder::arithmetic_operands(const Statement& s, const Arithmetic& a, Instruction& i) {
  if (s.operands.size() != a.operands.size() + 1) unsupported("number of operands");
  i.run = a.run;
  i.mode = a.mode;
  Place* const places[] = {&i.a, &i.b, &i.c, &i.e};
  for (std::size_t k = 0; k < a.operands.size(); ++k)
    *places[k] = source(s.operands[k + 1], ptx::bytes_of(a.operands[k]));
  const Operand& d = s.operands[0];
  i.d = result(d, ptx::bytes_of(a.result));
  if (d.second >= 0) i.d2 = registers_[d.second];
}

// mov d, variable
void FunctionDecoder::move_address(const Statement& s, Instruction& i) {
  const Operand& o = s.operands[1];
  const Symbol& v = symbol(o.name);
  const u32 bytes = register_bytes(s.operands[0]);
  i.d = result(s.operands[0], bytes);
  std::vector<std::string> opcode{"add", bytes == 8 ? "u64" : "u32"};
  Modifiers m(opcode);
  i.run = arithmetic(m).run;
  if (v.space == "local") {
    if (bytes != 8) unsupported("address in a register of this size");
    i.a = f_.frame_base;
    i.b = constant(v.address + o.value, bytes);
  } else {
    i.a = constant(symbol_value(o), bytes);
    i.b = constant(0, bytes);
  }
}

// [register + offset] or [symbol + offset]
void FunctionDecoder::address(const Operand& o, Instruction& i) {
  if (o.kind != Kind::kAddress) unsupported("address");
  i.offset = o.value;
  if (o.parts.empty()) return;
  const Operand& base = o.parts[0];
  if (base.kind == Kind::kRegister) {
    const u32 bytes = register_bytes(base);
    i.address_is_32 = bytes == 4;
    i.a = source(base, bytes);
    return;
  }
  if (base.kind != Kind::kSymbol) unsupported("address");
  const Symbol& s = symbol(base.name);
  i.offset += s.address;
  if (s.space == "local") i.a = f_.frame_base;
  if (s.space == "param") i.space = s.out ? Space::kParamOut : Space::kParamIn;
}

void FunctionDecoder::vector_parts(const Operand& o, u32 bytes, Instruction& i, bool load) {
  const bool vector = o.kind == Kind::kVector;
  if (vector != (i.count > 1)) unsupported("operand");
  if (vector && o.parts.size() != i.count) unsupported("number of vector elements");
  u32 in_register = 0;
  for (u32 k = 0; k < i.count; ++k) {
    const Operand& part = vector ? o.parts[k] : o;
    if (part.kind == Kind::kDiscard) {
      i.parts[k] = kNowhere;
      continue;
    }
    const u32 b = part.kind == Kind::kRegister ? register_bytes(part) : std::max(bytes, u32{2});
    if (in_register && b != in_register) unsupported("vector of registers of several sizes");
    in_register = b;
    i.parts[k] = load ? result(part, b) : source(part, b);
  }
  i.d_bytes = static_cast<u8>(in_register ? in_register : bytes);
}

bool FunctionDecoder::memory(const Statement& s, Modifiers& m, Instruction& i) {
  const std::string& op = s.opcode[0];
  if (op == "cvta") {
    const bool to = m.take("to");
    const std::string space = m.take_one({"global", "shared", "local", "param", "const"});
    const u64 window = space == "shared"  ? kSharedWindow
                       : space == "local" ? kLocalWindow
                       : space == "param" ? kParamWindow
                                          : 0;
    if (s.operands.size() == 2 && s.operands[1].kind == Kind::kSymbol) {
      move_address(s, i);
      if (window && !to) {
        if (i.a == f_.frame_base) unsupported("cvta of a local variable");
        i.b = constant(window, 8);
      }
      return true;
    }
    std::vector<std::string> opcode{window == 0 ? "or" : to ? "and" : "or", "b64"};
    Modifiers bits(opcode);
    i.run = arithmetic(bits).run;
    i.a = source(s.operands.at(1), 8);
    i.b = constant(window == 0 ? 0 : to ? ~window : window, 8);
    i.d = result(s.operands.at(0), 8);
    return true;
  }
  const bool is_load = op == "ld" || op == "ldu", is_store = op == "st",
             is_atomic = op == "atom" || op == "red";
  if (!is_load && !is_store && !is_atomic) return false;
  const std::string space = m.take_one({"global", "shared", "local", "param", "const"});
  i.space = space == "global"   ? Space::kGlobal
            : space == "shared" ? Space::kShared
            : space == "local"  ? Space::kLocal
            : space == "param"  ? Space::kParamIn
            : space == "const"  ? Space::kConst
                                : Space::kGeneric;
  m.take("func");  // ld.param.func: the parameters of a device function
  // Hints, and orders stronger than what the executor does anyhow.
  const bool is_volatile = m.take("volatile");
  const std::string order = m.take_one({"relaxed", "acquire", "release", "acq_rel", "weak"});
  m.take_one({"cta", "gpu", "sys"});
  m.take_one({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
  i.atomic = is_volatile || (!order.empty() && order != "weak");
  m.take("nc");
  m.take("noftz");
  const Type t = m.type();
  const u32 bytes = ptx::bytes_of(t);
  i.bytes = static_cast<u8>(bytes);
  const std::string vector = m.take_one({"v2", "v4"});
  i.count = vector == "v2" ? 2 : vector == "v4" ? 4 : 1;
  if (is_atomic) {
    const std::size_t at = op == "atom" ? 1 : 0;
    i.run = atomic_handler(
        m.take_one({"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"}), t);
    address(s.operands.at(at), i);
    i.b = source(s.operands.at(at + 1), bytes);
    if (s.operands.size() > at + 2) i.c = source(s.operands[at + 2], bytes);
    if (at) i.d = result(s.operands[0], bytes);
    return true;
  }
  const Operand& value = s.operands.at(is_load ? 0 : 1);
  address(s.operands.at(is_load ? 1 : 0), i);
  vector_parts(value, bytes, i, is_load);
  i.run =
      is_load ? load_handler(bytes, i.d_bytes, ptx::is_signed(t)) : store_handler(bytes, i.d_bytes);
  return true;
}

bool FunctionDecoder::warp_level(const Statement& s, Modifiers& m, Instruction& i) {
  const std::string& op = s.opcode[0];
  if (op == "shfl") {
    if (!m.take("sync")) unsupported("shfl without .sync");
    const std::string mode = m.take_one({"up", "down", "bfly", "idx"});
    i.mode = static_cast<u8>(mode[0]);
    i.d = result(s.operands.at(0), 4);
    if (s.operands[0].second >= 0) i.d2 = registers_[s.operands[0].second];
    i.a = source(s.operands.at(1), 4);
    i.b = source(s.operands.at(2), 4);
    i.c = source(s.operands.at(3), 4);
    i.e = source(s.operands.at(4), 4);
    i.run = control::shuffle;
    return true;
  }
  if (op == "vote") {
    if (!m.take("sync")) unsupported("vote without .sync");
    const std::string mode = m.take_one({"ballot", "all", "any", "uni"});
    i.mode = static_cast<u8>(mode == "any" ? 'n' : mode[0]);
    i.d = result(s.operands.at(0), mode == "ballot" ? 4 : 0);
    i.a = source(s.operands.at(1), 0);
    i.e = source(s.operands.at(2), 4);
    i.run = control::vote;
    return true;
  }
  if (op == "match") {
    if (!m.take("sync")) unsupported("match without .sync");
    const bool all = m.take("all");
    if (!all) m.take("any");
    const u32 bytes = ptx::bytes_of(m.type());
    i.d = result(s.operands.at(0), 4);
    if (s.operands[0].second >= 0) i.d2 = registers_[s.operands[0].second];
    i.a = source(s.operands.at(1), bytes);
    i.e = source(s.operands.at(2), 4);
    i.run = bytes == 4 ? (all ? control::match_all_32 : control::match_any_32)
                       : (all ? control::match_all_64 : control::match_any_64);
    return true;
  }
  if (op == "redux") {
    m.take("sync");
    i.run =
        control::reduce_handler(m.take_one({"add", "min", "max", "and", "or", "xor"}), m.type());
    i.d = result(s.operands.at(0), 4);
    i.a = source(s.operands.at(1), 4);
    i.e = source(s.operands.at(2), 4);
    return true;
  }
  if (op == "activemask") {
    i.d = result(s.operands.at(0), 4);
    i.run = control::active_mask;
    return true;
  }
  return false;
}

bool FunctionDecoder::steering(const Statement& s, Modifiers& m, Instruction& i) {
  const std::string& op = s.opcode[0];
  if (op == "bra") {
    m.take("uni");
    i.target = label(s.operands.at(0).name);
    i.run = control::branch;
  } else if (op == "brx") {
    m.take("idx");
    m.take("uni");
    i.a = source(s.operands.at(0), 4);
    const auto it = source_.jump_tables.find(s.operands.at(1).name);
    if (it == source_.jump_tables.end()) unsupported("jump table");
    auto table = std::make_unique<std::vector<u32>>();
    for (const std::string& name : it->second) table->push_back(label(name));
    i.data = table.get();
    f_.jump_tables.push_back(std::move(table));
    i.run = control::branch_indexed;
  } else if (op == "call") {
    m.take("uni");
    call(s, i);
  } else if (op == "ret") {
    m.take("uni");
    i.run = control::leave;
  } else if (op == "exit") {
    i.run = control::exit;
  } else if (op == "trap") {
    i.run = control::trap;
  } else if (op == "bar" || op == "barrier") {
    if (m.take("warp")) {
      m.take("sync");
      i.a = source(s.operands.at(0), 4);
      i.run = control::warp_barrier;
      return true;
    }
    m.take("cta");
    m.take("aligned");
    const bool red = m.take("red");
    if (!red && !m.take("sync")) return true;  // arrive: no handler
    std::size_t at = 0;
    if (red) {
      const std::string mode = m.take_one({"popc", "and", "or"});
      i.mode = static_cast<u8>(mode[0]);
      i.d = result(s.operands.at(at++), mode == "popc" ? 4 : 0);
      i.a = source(s.operands.back(), 0);
    }
    const Operand& id = s.operands.at(at);
    if (id.kind != Kind::kImmediate || id.value != 0) unsupported("a barrier other than 0");
    if (s.operands.size() != at + (red ? 2 : 1)) unsupported("a barrier for a part of the block");
    i.run = control::block_barrier;
  } else if (op == "membar" || op == "fence") {
    m.take_one({"acq_rel", "sc", "acquire", "release"});
    m.take_one({"cta", "gl", "gpu", "sys"});
    i.run = control::nothing;
  } else if (op == "nanosleep" || op == "prefetch" || op == "prefetchu") {
    m.take_one({"global", "local"});
    m.take_one({"L1", "L2"});
    i.run = control::nothing;
  } else {
    return false;
  }
  return true;
}

// call (result), function, (arguments)
void FunctionDecoder::call(const Statement& s, Instruction& i) {
  auto c = std::make_unique<Call>();
  const Operand *name = nullptr, *arguments = nullptr, *results = nullptr;
  for (const Operand& o : s.operands) {
    if (o.kind == Kind::kList) {
      (name ? arguments : results) = &o;
    } else if (!name) {
      name = &o;
    } else {
      unsupported("indirect call");
    }
  }
  if (!name || name->kind != Kind::kSymbol) unsupported("indirect call");
  const ptx::Function* callee = nullptr;
  for (const ptx::Function& f : module_.functions)
    if (f.name == name->name) callee = &f;
  if (!callee) unsupported("call of " + name->name);
  if (callee->defined) {
    c->callee = program_.functions.at(callee->name).get();
  } else if (is_builtin(callee->name)) {
    c->builtin = callee->name;
  } else {
    unsupported("call of " + name->name);
  }
  // The layout of the callee's parameters, as place_variables() makes it there.
  u32 in = 0;
  const auto copies = [&](const std::vector<ptx::Variable>& variables, const Operand* list,
                          std::vector<ParameterCopy>& out, bool back) {
    for (std::size_t k = 0; k < variables.size(); ++k) {
      in = align_up(in, variables[k].align);
      if (!list || k >= list->parts.size() || list->parts[k].kind != Kind::kSymbol)
        unsupported("argument");
      const u32 here = static_cast<u32>(symbol(list->parts[k].name).address),
                size = static_cast<u32>(variables[k].size);
      out.push_back(back ? ParameterCopy{in, here, size} : ParameterCopy{here, in, size});
      in += size;
    }
  };
  copies(callee->results, results, c->results, true);
  copies(callee->parameters, arguments, c->arguments, false);
  i.data = c.get();
  i.run = control::call;
  f_.calls.push_back(std::move(c));
}

void load_variables(Program& program, const ptx::Module& module) {
  DeviceMemory& memory = device_memory();
  for (const ptx::Variable& v : module.variables) {
    if (v.space == "shared" || program.variables.count(v.name)) continue;
    if (v.external) fail("external variable %s is not supported", v.name.c_str());
    const u64 address = memory.allocate(std::max<u64>(v.size, 1), v.name);
    // Device variables without initial value start as zeros.
    std::memset(memory.bytes(address), 0, v.size);
    if (!v.initial.empty()) std::memcpy(memory.bytes(address), v.initial.data(), v.initial.size());
    program.variables[v.name] = address;
    program.variable_sizes[v.name] = v.size;
  }
  for (const ptx::Variable& v : module.variables) {
    for (const auto& fix : v.fixups) {
      const auto it = program.variables.find(fix.symbol);
      if (it == program.variables.end())
        fail("initial value of %s: symbol %s is not supported", v.name.c_str(), fix.symbol.c_str());
      const u64 value = it->second + fix.offset;
      std::memcpy(memory.bytes(program.variables[v.name]) + fix.at, &value, 8);
    }
  }
}

}  // namespace

std::unique_ptr<Program> decode(const ptx::Module& module) {
  auto program = std::make_unique<Program>();
  program->files = module.files;
  load_variables(*program, module);
  for (const ptx::Function& source : module.functions) {
    if (!source.defined) continue;
    auto f = std::make_unique<Function>();
    f->name = source.name;
    f->entry = source.entry;
    f->max_threads = source.max_threads;
    f->files = &program->files;
    program->functions[source.name] = std::move(f);
  }
  for (const ptx::Function& source : module.functions) {
    if (!source.defined) continue;
    FunctionDecoder decoder(*program, module, source, *program->functions[source.name]);
    decoder.run();
    decoder.first_.push_back(static_cast<u32>(program->functions[source.name]->code.size() - 1));
    decoder.resolve_targets(decoder.first_);
  }
  return program;
}

}  // namespace cudasim
