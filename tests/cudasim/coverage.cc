// Coverage: counts per instruction, merged with those of earlier processes.
#include "coverage.h"

#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "registration.h"

namespace cudasim {
namespace {

struct Line {
  u64 executions = 0;
  std::string rest;
};
using Lines = std::map<std::pair<std::string, u32>, Line>;  // by kernel and index

void read_lines(const std::string& file, Lines& lines) {
  std::ifstream in(file);
  for (std::string s; std::getline(in, s);) {
    std::istringstream fields(s);
    std::string executions, kernel, index, rest;
    std::getline(fields, executions, '\t');
    std::getline(fields, kernel, '\t');
    std::getline(fields, index, '\t');
    std::getline(fields, rest);
    if (rest.empty()) continue;
    Line& l = lines[{kernel, static_cast<u32>(std::stoul(index))}];
    l.executions += std::stoull(executions);
    l.rest = rest;
  }
}

void add_function(const Function& f, Lines& lines) {
  for (u32 k = 0; k + 1 < f.code.size();
       ++k) {  // the last is the return that falling off the end means
    const InstructionText& t = f.texts[k];
    const auto file = f.files->find(t.location.file);
    Line& l = lines[{f.name, k}];
    l.executions += f.code[k].executions;
    l.rest = text("%s:%d\t%d\t%s", file == f.files->end() ? "?" : file->second.c_str(),
                  t.location.line, t.location.ptx_line, t.text.c_str());
  }
}

}  // namespace

void write_coverage(const std::string& file) {
  const std::string lock_name = file + ".lock";
  const int lock = open(lock_name.c_str(), O_CREAT | O_RDWR, 0666);
  if (lock < 0 || flock(lock, LOCK_EX) != 0) fail("cannot lock %s", lock_name.c_str());
  Lines lines;
  read_lines(file, lines);
  for (const Program* p : all_programs())
    for (const auto& [name, f] : p->functions) add_function(*f, lines);
  std::ofstream out(file);
  for (const auto& [key, l] : lines)
    out << l.executions << '\t' << key.first << '\t' << key.second << '\t' << l.rest << '\n';
  out.close();
  if (!out) fail("cannot write %s", file.c_str());
  close(lock);
}

}  // namespace cudasim
