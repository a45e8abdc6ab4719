// PTX text to statements: a scanner and a recursive-descent parser.
#include "ptx_parse.h"

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

namespace cudasim::ptx {
namespace {

struct TypeName {
  const char* name;
  Type type;
  u32 bytes;
};
constexpr TypeName kTypes[] = {
    {"b8", Type::kB8, 1},         {"b16", Type::kB16, 2},   {"b32", Type::kB32, 4},
    {"b64", Type::kB64, 8},       {"u8", Type::kU8, 1},     {"u16", Type::kU16, 2},
    {"u32", Type::kU32, 4},       {"u64", Type::kU64, 8},   {"s8", Type::kS8, 1},
    {"s16", Type::kS16, 2},       {"s32", Type::kS32, 4},   {"s64", Type::kS64, 8},
    {"f16", Type::kF16, 2},       {"bf16", Type::kBF16, 2}, {"f16x2", Type::kF16x2, 4},
    {"bf16x2", Type::kBF16x2, 4}, {"f32", Type::kF32, 4},   {"f64", Type::kF64, 8},
    {"pred", Type::kPred, 0}};

bool word_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || std::strchr("._$%", c);
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Module run() {
    find_files();
    while (skip_space(), !at_end()) top_level();
    return std::move(module_);
  }

 private:
  // --- scanner
  bool at_end() const { return at_ >= text_.size(); }
  char peek() const { return at_end() ? '\0' : text_[at_]; }

  [[noreturn]] void error(const char* what) {
    const std::string near(text_.substr(at_, 40));
    fail("PTX line %d: %s near '%s'", line_, what, near.c_str());
  }

  void skip_space() {
    while (!at_end()) {
      const char c = text_[at_];
      if (c == '\n') ++line_;
      if (std::isspace(static_cast<unsigned char>(c))) {
        ++at_;
      } else if (text_.compare(at_, 2, "//") == 0) {
        skip_line();
      } else if (text_.compare(at_, 2, "/*") == 0) {
        const std::size_t end = text_.find("*/", at_);
        if (end == std::string_view::npos) error("comment without end");
        for (; at_ < end + 2; ++at_) line_ += text_[at_] == '\n';
      } else {
        return;
      }
    }
  }

  void skip_line() {
    while (!at_end() && text_[at_] != '\n') ++at_;
  }

  bool accept(char c) {
    skip_space();
    if (peek() != c || at_end()) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!accept(c)) error(text("'%c' expected", c).c_str());
  }

  std::string word() {
    skip_space();
    const std::size_t begin = at_;
    while (!at_end() && word_character(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  std::string quoted() {
    expect('"');
    const std::size_t begin = at_;
    while (!at_end() && text_[at_] != '"') ++at_;
    std::string s(text_.substr(begin, at_ - begin));
    expect('"');
    return s;
  }

  // 12, 0x1f, 0f3f800000 (float bits), 0d3ff0000000000000 (double bits)
  static u64 number(const std::string& w) {
    if (w.size() > 2 && w[0] == '0' && std::strchr("fFdD", w[1]))
      return std::strtoull(w.c_str() + 2, nullptr, 16);
    return std::strtoull(w.c_str(), nullptr, 0);
  }

  i64 integer() {
    const bool negative = accept('-');
    const std::string w = word();
    if (w.empty() || !std::isdigit(static_cast<unsigned char>(w[0]))) error("number expected");
    const i64 v = static_cast<i64>(number(w));
    return negative ? -v : v;
  }

  // .file 1 "name" stands at the end of the module, but lines refer to it before.
  void find_files() {
    static constexpr std::string_view kDirective = "\n\t.file\t";
    const std::size_t begin = at_;
    for (std::size_t f = text_.find(kDirective); f != std::string_view::npos;
         f = text_.find(kDirective, f + 1)) {
      at_ = f + kDirective.size();
      const int number = static_cast<int>(integer());
      module_.files[number] = quoted();
    }
    at_ = begin;
    line_ = 1;
  }

  // --- top level
  void top_level() {
    bool external = false;
    std::string w = word();
    while (w == ".visible" || w == ".weak" || w == ".extern" || w == ".common") {
      external |= w == ".extern";
      w = word();
    }
    if (w == ".version" || w == ".address_size") {
      skip_line();
    } else if (w == ".target") {
      module_.target = word();
      skip_line();
    } else if (w == ".file") {
      const int number = static_cast<int>(integer());
      module_.files[number] = quoted();
      skip_line();
    } else if (w == ".section") {
      skip_section();
    } else if (w == ".pragma") {
      quoted();
      expect(';');
    } else if (w == ".global" || w == ".const" || w == ".shared") {
      Variable v = variable(w.substr(1));
      v.external = external;
      if (accept('=')) initializer(v);
      expect(';');
      module_.variables.push_back(std::move(v));
    } else if (w == ".entry" || w == ".func") {
      function(w == ".entry");
    } else {
      fail("PTX line %d: '%s' is not supported at module level", line_, w.c_str());
    }
  }

  void skip_section() {
    while (!at_end() && peek() != '{') ++at_;
    while (!at_end() && peek() != '}') line_ += text_[at_++] == '\n';
    expect('}');
  }

  // .align 4 .b8 name[24]
  Variable variable(std::string space) {
    Variable v;
    v.space = std::move(space);
    Type type = Type::kNone;
    u64 vector = 1;
    std::string w = word();
    for (; !w.empty() && w[0] == '.'; w = word()) {
      if (w == ".align") {
        v.align = static_cast<u32>(integer());
      } else if (w == ".ptr" || w == ".global" || w == ".shared" || w == ".const" ||
                 w == ".local") {
        continue;  // attributes of kernel parameters
      } else if (w == ".v2" || w == ".v4") {
        vector = w == ".v2" ? 2 : 4;
      } else {
        type = type_named(w.substr(1));
        if (type == Type::kNone)
          fail("PTX line %d: type '%s' of a variable is not supported", line_, w.c_str());
      }
    }
    if (type == Type::kNone) error("variable without type");
    element_ = bytes_of(type);
    v.name = w;
    u64 count = vector;
    while (accept('[')) {
      if (accept(']')) {
        count = 0;
        continue;
      }
      count *= static_cast<u64>(integer());
      expect(']');
    }
    v.size = count * element_;
    v.align = std::max(v.align, static_cast<u32>(vector * element_));
    return v;
  }

  void initializer(Variable& v) {
    v.initial.assign(v.size, 0);
    u64 at = 0;
    if (!accept('{')) {
      initial_value(v, at);
      return;
    }
    do {
      initial_value(v, at);
      at += element_;
    } while (accept(','));
    expect('}');
  }

  void initial_value(Variable& v, u64 at) {
    if (at + element_ > v.size) error("initializer is too long");
    const bool negative = accept('-');
    std::string w = word();
    if (w.empty()) error("initial value expected");
    if (std::isdigit(static_cast<unsigned char>(w[0]))) {
      u64 value = number(w);
      if (negative) value = u64{0} - value;
      std::memcpy(v.initial.data() + at, &value, element_);
      return;
    }
    if (element_ != 8) error("address in an initializer of another size");
    const bool generic = w == "generic";
    if (generic) {
      expect('(');
      w = word();
      expect(')');
    }
    const u64 offset = accept('+') ? static_cast<u64>(integer()) : 0;
    v.fixups.push_back({at, w, offset, generic});
  }

  // --- functions
  void function(bool entry) {
    Function f;
    f.entry = entry;
    if (!entry && accept('(')) f.results = parameters();
    f.name = word();
    if (accept('(')) f.parameters = parameters();
    attributes(f);
    if (!accept(';')) {
      expect('{');
      f.defined = true;
      function_ = &f;
      body();
      function_ = nullptr;
    }
    for (Function& known : module_.functions) {
      if (known.name != f.name) continue;
      if (f.defined) known = std::move(f);
      return;
    }
    module_.functions.push_back(std::move(f));
  }

  std::vector<Variable> parameters() {
    std::vector<Variable> list;
    if (accept(')')) return list;
    do {
      if (word() != ".param") error(".param expected");
      list.push_back(variable("param"));
    } while (accept(','));
    expect(')');
    return list;
  }

  void attributes(Function& f) {
    for (;;) {
      skip_space();
      if (peek() != '.') return;
      const std::string w = word();
      if (w == ".maxntid" || w == ".reqntid") {
        int n = static_cast<int>(integer());
        while (accept(',')) n *= static_cast<int>(integer());
        f.max_threads = n;
      } else if (w == ".minnctapersm" || w == ".maxnreg") {
        integer();
      } else if (w == ".noreturn") {
        continue;
      } else {
        fail("PTX line %d: attribute '%s' is not supported", line_, w.c_str());
      }
    }
  }

  void body() {
    scopes_.assign(1, {});
    used_bytes_ = ~0u;
    location_ = {};
    while (!scopes_.empty()) {
      skip_space();
      if (at_end()) error("function without end");
      if (accept('{')) {
        scopes_.emplace_back();
      } else if (accept('}')) {
        scopes_.pop_back();
      } else {
        line_of_body();
      }
    }
  }

  void line_of_body() {
    Statement s;
    if (accept('@')) {
      s.guard_negated = accept('!');
      s.guard = register_named(word());
      if (s.guard < 0) error("unknown guard predicate");
    }
    skip_space();
    s.location = location_;
    s.location.ptx_line = line_;
    const std::size_t begin = at_;
    const std::string w = word();
    if (w.empty()) error("instruction expected");
    if (w[0] == '.') {
      directive(w);
    } else if (accept(':')) {
      label(w);
    } else {
      instruction(std::move(s), w, begin);
    }
  }

  void label(const std::string& name) {
    skip_space();
    if (text_.compare(at_, 14, ".branchtargets") == 0) {
      word();
      auto& targets = function_->jump_tables[name];
      do targets.push_back(word());
      while (accept(','));
      expect(';');
      return;
    }
    function_->labels[name] = static_cast<u32>(function_->code.size());
  }

  void directive(const std::string& w) {
    if (w == ".reg") {
      registers();
    } else if (w == ".shared" || w == ".local" || w == ".param") {
      do function_->variables.push_back(variable(w.substr(1)));
      while (accept(','));
      expect(';');
    } else if (w == ".loc") {
      loc();
    } else if (w == ".pragma") {
      const std::string what = quoted();
      static const std::string kUsed = "used_bytes_mask ";
      if (what.compare(0, kUsed.size(), kUsed) == 0) {
        used_bytes_ = static_cast<u32>(std::strtoul(what.c_str() + kUsed.size(), nullptr, 0));
      }
      expect(';');
    } else {
      fail("PTX line %d: directive '%s' is not supported in a function", line_, w.c_str());
    }
  }

  // .loc 1 53 3 [, function_name ..., inlined_at ...]
  void loc() {
    const int file = static_cast<int>(integer());
    const int line = static_cast<int>(integer());
    skip_line();
    // Line 0 means "no line"; headers of the toolkit are less helpful than the kernel that uses
    // them.
    if (line == 0) return;
    const std::string& name = module_.files[file];
    const bool user = name.empty() || name.ends_with(".cu") || name.ends_with(".cuh");
    if (user || location_.line == 0) location_ = {0, file, line};
  }

  void registers() {
    const Type type = type_named(word().substr(1));
    if (type == Type::kNone) error("registers of this type are not supported");
    do {
      const std::string name = word();
      if (!accept('<')) {
        declare(name, type);
        continue;
      }
      const i64 count = integer();
      expect('>');
      for (i64 i = 0; i < count; ++i) declare(name + std::to_string(i), type);
    } while (accept(','));
    expect(';');
  }

  void declare(const std::string& name, Type type) {
    scopes_.back()[name] = static_cast<int>(function_->registers.size());
    function_->registers.push_back({name, type});
  }

  int register_named(const std::string& name) const {
    for (std::size_t i = scopes_.size(); i-- > 0;) {
      const auto it = scopes_[i].find(name);
      if (it != scopes_[i].end()) return it->second;
    }
    return -1;
  }

  void instruction(Statement s, const std::string& opcode, std::size_t begin) {
    for (std::size_t from = 0; from <= opcode.size();) {
      std::size_t dot = opcode.find('.', from);
      if (dot == std::string::npos) dot = opcode.size();
      s.opcode.push_back(opcode.substr(from, dot - from));
      from = dot + 1;
      if (s.opcode.back().empty() &&
          dot + 1 < opcode.size()) {  // "::" does not get here; ".." is an error
        error("cannot read the opcode");
      }
    }
    skip_space();
    if (peek() != ';') {
      do s.operands.push_back(operand());
      while (accept(','));
    }
    s.text = std::string(text_.substr(begin, at_ - begin));
    for (char& c : s.text)
      if (std::isspace(static_cast<unsigned char>(c))) c = ' ';
    if (!accept(';'))
      fail("PTX line %d: cannot read the operands of '%s'", s.location.ptx_line, opcode.c_str());
    s.used_bytes = used_bytes_;
    used_bytes_ = ~0u;
    function_->code.push_back(std::move(s));
  }

  Operand operand() {
    if (accept('{')) return list(Operand::Kind::kVector, '}');
    if (accept('(')) return list(Operand::Kind::kList, ')');
    if (!accept('[')) return atom();
    Operand o;
    o.kind = Operand::Kind::kAddress;
    Operand base = atom();
    if (base.kind == Operand::Kind::kImmediate) {
      o.value = base.value;
    } else {
      o.value = base.value;  // of symbol+offset
      base.value = 0;
      o.parts.push_back(std::move(base));
    }
    if (accept('+')) o.value += static_cast<u64>(integer());
    expect(']');
    return o;
  }

  Operand list(Operand::Kind kind, char end) {
    Operand o;
    o.kind = kind;
    if (accept(end)) return o;
    do o.parts.push_back(atom());
    while (accept(','));
    expect(end);
    return o;
  }

  Operand atom() {
    Operand o;
    const bool minus = accept('-');
    o.negated = accept('!');
    const std::string w = word();
    if (w.empty()) error("operand expected");
    if (w == "_") {
      o.kind = Operand::Kind::kDiscard;
    } else if (const int index = register_named(w); index >= 0) {
      o.kind = Operand::Kind::kRegister;
      o.index = index;
      if (accept('|')) o.second = register_named(word());
    } else if (w[0] == '%') {
      o.kind = Operand::Kind::kSpecial;
      o.name = w;
    } else if (std::isdigit(static_cast<unsigned char>(w[0]))) {
      o.value = minus ? u64{0} - number(w) : number(w);
    } else {
      o.kind = Operand::Kind::kSymbol;
      o.name = w;
      if (accept('+')) o.value = static_cast<u64>(integer());
    }
    return o;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int line_ = 1;
  Module module_;
  Function* function_ = nullptr;
  std::vector<std::unordered_map<std::string, int>> scopes_;
  Location location_;
  u32 used_bytes_ = ~0u;
  u64 element_ = 1;  // bytes of an element of the variable being read
};

}  // namespace

Type type_named(std::string_view word) {
  for (const TypeName& t : kTypes)
    if (word == t.name) return t.type;
  return Type::kNone;
}

u32 bytes_of(Type type) {
  for (const TypeName& t : kTypes)
    if (type == t.type) return t.bytes;
  return 0;
}

bool is_signed(Type type) {
  return type == Type::kS8 || type == Type::kS16 || type == Type::kS32 || type == Type::kS64;
}

bool is_float(Type type) { return type == Type::kF32 || type == Type::kF64; }

Module parse(std::string_view text) { return Parser(text).run(); }

}  // namespace cudasim::ptx
