// The op index and the op table list the same ops: every function declared in core/ops.h has a row.
#include <algorithm>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "op_table.h"
#include "test.h"

namespace {

// Names of the functions declared in the index, without what lies in namespace detail.
std::set<std::string> declared_ops() {
  std::ifstream file(TUTTI_OPS_H);
  std::set<std::string> names;
  bool inside_detail = false;
  static const std::regex declaration(R"(^(?:Tensor&?|bool|std::[^()]*>) (\w+)\(.*)");
  for (std::string line; std::getline(file, line);) {
    if (line == "namespace detail {") inside_detail = true;
    if (line == "}  // namespace detail") inside_detail = false;
    std::smatch found;
    if (!inside_detail && std::regex_match(line, found, declaration)) names.insert(found[1]);
  }
  return names;
}

}  // namespace

TEST_CASE("every op of the index has a row") {
  const std::set<std::string> declared = declared_ops();
  REQUIRE_MESSAGE(declared.size() > 200, "cannot read the op index " TUTTI_OPS_H);
  std::set<std::string> listed;
  for (const auto& row : tutti_test::table()) listed.insert(row.ops.begin(), row.ops.end());
  for (const std::string& name : declared)
    CHECK_MESSAGE(listed.count(name) == 1, name << " has no row in the op table");
  for (const std::string& name : listed)
    CHECK_MESSAGE((name == "composite" || declared.count(name) == 1),
                  name << " has a row but is not in the op index");
}

TEST_CASE("names of rows are unique") {
  std::set<std::string> names;
  for (const auto& row : tutti_test::table())
    CHECK_MESSAGE(names.insert(row.name).second, row.name << " names two rows");
}
