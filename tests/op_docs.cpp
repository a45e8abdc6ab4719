// Writes docs/ops.md: every public op with its doc line, from core/ops.h, and what its records
// have: derivatives, batch rules, dtypes. The records behind an op are those its rows in the op
// table run. usage: op_docs <core/ops.h>                print the page
//        op_docs <core/ops.h> <docs/ops.md>  exit code 1 unless that is what is there
#define DOCTEST_CONFIG_IMPLEMENT  // the op table reports to doctest
#include <algorithm>
#include <fstream>
#include <iostream>
#include <regex>
#include <sstream>

#include <doctest/doctest.h>

#include "listener.h"
#include "op_table.h"

using namespace tutti;
using namespace tutti_test;

namespace {

/// The records that were run.
class Records final : public tutti_test::Listener {
 public:
  std::vector<const Op*> seen;

 protected:
  void heard(const Op& op, const Tensors&) override {
    if (std::find(seen.begin(), seen.end(), &op) == seen.end()) seen.push_back(&op);
  }
};

struct Entry {
  std::string name, doc;
  std::vector<const Op*> records;
  bool integers = false, boolean = false, real = false, mapped = false;
  const char* refused = nullptr;

  bool random() const {
    return std::any_of(records.begin(), records.end(), [](const Op* op) { return op->random; });
  }
};
struct Section {
  std::string title;
  std::vector<Entry> entries;
};

/// Sections, names and doc lines of the index. In-place forms without a line of their own refer to
/// the op.
std::vector<Section> read_index(const char* path) {
  std::ifstream file(path);
  static const std::regex section(R"(^// ---- (.*))");
  static const std::regex declaration(R"(^(Tensor&?|bool|std::[^()]*>) (\w+)\(.*)");
  std::vector<Section> sections;
  std::string doc;
  bool inside_detail = false, goes_on = false, fresh = false;
  for (std::string line; std::getline(file, line);) {
    std::smatch found;
    if (line == "namespace detail {") inside_detail = true;
    if (line == "}  // namespace detail") inside_detail = false;
    if (std::regex_match(line, found, section)) sections.push_back({found[1], {}});
    if (line.rfind("/// ", 0) == 0) {
      doc = goes_on ? doc + " " + line.substr(4) : line.substr(4);
      goes_on = fresh = true;
      continue;
    }
    goes_on = false;
    if (inside_detail || sections.empty() || !std::regex_match(line, found, declaration)) continue;
    auto& entries = sections.back().entries;
    const std::string name = found[2];
    if (std::none_of(entries.begin(), entries.end(), [&](auto& e) { return e.name == name; })) {
      const bool refers = found[1] == "Tensor&" && !fresh;
      const std::string op = name.substr(0, name.size() - 1);
      entries.push_back({name, refers ? "`" + op + "`, assigned to self." : doc, {}});
    }
    fresh = false;
  }
  return sections;
}

/// Runs the rows that stand for an op and keeps what they say about it. Rows may run other ops
/// beside it, to prepare inputs; so a record counts only if every second row runs it.
void fill(Entry& e) {
  std::vector<std::pair<const Op*, int>> heard;
  int ran = 0;
  for (const Row& row : table()) {
    if (std::find(row.ops.begin(), row.ops.end(), e.name) == row.ops.end()) continue;
    Rng rng(1);
    Values v;
    for (const In& in : row.inputs) {
      const DType t = in.kind == In::Kind::index     ? kInt64
                      : in.kind == In::Kind::boolean ? kBool
                                                     : kFloat64;
      e.real = e.real || in.kind == In::Kind::real;
      v.push_back(to_tensor(sample(in, rng), t));
    }
    e.integers = e.integers || row.with_integers;
    e.boolean = e.boolean || row.with_bool;
    if (row.dynamic)
      e.refused = row.dynamic;
    else
      e.mapped = true;
    const bool writes = e.name.back() == '_' && row.in_place && row.ops.front() != e.name;
    Records records;
    (writes ? row.in_place : row.f)(v);
    ran += !records.seen.empty();
    for (const Op* op : records.seen) {
      const auto same = [&](const auto& h) { return std::string_view(h.first->name) == op->name; };
      const auto at = std::find_if(heard.begin(), heard.end(), same);
      if (at == heard.end())
        heard.emplace_back(op, 1);
      else
        ++at->second;
    }
  }
  for (const auto& [op, rows] : heard)
    if (2 * rows >= ran) e.records.push_back(op);
}

// "rule" where every record has one of its own, "composed" where one is run as smaller ops.
template <class Has>
std::string kind(const Entry& e, Has has) {
  bool any = false, composed = false;
  for (const Op* op : e.records) {
    if (!op->differentiable || (!e.real && e.random())) continue;
    any = true;
    composed = composed || !has(*op);
  }
  return !any ? "none" : composed ? "composed" : "rule";
}

std::string mapped(const Entry& e) {
  if (e.refused && !e.mapped) return "refused: " + std::string(e.refused);
  const bool composed = std::any_of(e.records.begin(), e.records.end(),
                                    [](const Op* op) { return !op->random && !op->batch; });
  const std::string how = e.random() ? "by randomness mode" : composed ? "composed" : "rule";
  return e.refused ? how + "; refused where " + e.refused : how;
}

std::string dtypes(const Entry& e) {
  if (!e.real) return "";
  return e.boolean ? "all" : e.integers ? "floating, integers" : "floating";
}

std::string escaped(std::string s) {
  for (std::size_t at = 0; (at = s.find('|', at)) != std::string::npos; at += 2) s.insert(at, "\\");
  return s;
}

void write_page(std::ostream& out, std::vector<Section>& sections) {
  std::size_t n = 0;
  for (const Section& s : sections) n += s.entries.size();
  out << "# Ops\n\n"
         "Every public op: a free function in `core/ops.h` and, where the first argument is a "
         "tensor, a member.\nThis page is made by `tests/op_docs.cpp` from that header, the op "
         "records and the op table (`op_docs core/ops.h > docs/ops.md`); a test keeps it current. "
      << n
      << " ops.\n\n"
         "*Reverse*, *forward*: `rule`: the records behind the op have a `vjp`, a `jvp` of their "
         "own; `composed`: by the rules of\nsmaller ops; `none`: a constant to differentiation. "
         "*vmap*: `rule`: a batch rule; `composed`; or why it is refused.\n*dtypes*: what the "
         "tests run with real-valued arguments; floating means float64, float32, float16, "
         "bfloat16.\n*Records*: what it runs.\n";
  for (Section& s : sections) {
    out << "\n## " << s.title
        << "\n\n| op | what it does | reverse | forward | vmap | dtypes | records |\n"
           "|---|---|---|---|---|---|---|\n";
    for (Entry& e : s.entries) {
      fill(e);
      std::string records;
      for (const Op* op : e.records)
        records += (records.empty() ? "" : ", ") + std::string(op->name);
      const bool none = e.records.empty();
      out << "| `" << e.name << "` | " << escaped(e.doc) << " | "
          << (none ? "" : kind(e, [](const Op& op) { return op.vjp != nullptr; })) << " | "
          << (none ? "" : kind(e, [](const Op& op) { return op.jvp != nullptr; })) << " | "
          << (none ? "" : mapped(e)) << " | " << dtypes(e) << " | " << records << " |\n";
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::cerr << "usage: op_docs <core/ops.h> [<docs/ops.md>]\n";
    return 2;
  }
  auto sections = read_index(argv[1]);
  sections.erase(std::remove_if(sections.begin(), sections.end(),
                                [](const Section& s) { return s.entries.empty(); }),
                 sections.end());
  std::ostringstream page;
  write_page(page, sections);
  if (argc == 2) {
    std::cout << page.str();
    return 0;
  }
  std::ifstream file(argv[2]);
  std::stringstream there;
  there << file.rdbuf();
  if (there.str() == page.str()) return 0;
  std::cerr << argv[2] << " is not what the records and the index say; make it anew with\n  "
            << argv[0] << " core/ops.h > docs/ops.md\n";
  return 1;
}
