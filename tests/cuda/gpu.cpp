// Finds the executor's control functions, and gives the device's memory back when a program ends.
#include "gpu.h"

#include <dlfcn.h>

#include "../test.h"

namespace tutti_test {
namespace {

template <class F>
F* find(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_DEFAULT, name));
}

std::vector<std::string> lines(const char* text) {
  std::vector<std::string> out;
  if (!text) return out;
  std::string line;
  for (; *text; ++text) {
    if (*text != '\n') {
      line += *text;
      continue;
    }
    out.push_back(line);
    line.clear();
  }
  if (!line.empty()) out.push_back(line);
  return out;
}

}  // namespace

bool Executor::present() { return find<unsigned long long()>("cudasim_launches") != nullptr; }

std::vector<std::string> Executor::products() {
  const auto f = find<const char*()>("cudasim_cublas_log");
  return lines(f ? f() : nullptr);
}
std::vector<std::string> Executor::launches() {
  const auto f = find<const char*()>("cudasim_launch_log");
  return lines(f ? f() : nullptr);
}
void Executor::clear_logs() {
  if (const auto f = find<void()>("cudasim_clear_cublas_log")) f();
  if (const auto f = find<void()>("cudasim_clear_launch_log")) f();
}
unsigned long long Executor::graph_launches() {
  const auto f = find<unsigned long long()>("cudasim_graph_launches");
  return f ? f() : 0;
}
void Executor::fail_at(unsigned long long n, const char* kind) {
  if (const auto f = find<void(unsigned long long, const char*)>("cudasim_fail_at")) f(n, kind);
}
bool Executor::failed() {
  const auto f = find<int()>("cudasim_failed");
  return f && f() != 0;
}
unsigned long long Executor::races() {
  const auto f = find<unsigned long long()>("cudasim_races");
  return f ? f() : 0;
}
unsigned long long Executor::live_bytes() {
  const auto f = find<unsigned long long()>("cudasim_live_bytes");
  return f ? f() : 0;
}

std::string field(const std::string& line, const std::string& key) {
  const std::size_t at = line.find(" " + key + "=");
  if (at == std::string::npos) return {};
  const std::size_t begin = at + key.size() + 2, end = line.find(' ', begin);
  return line.substr(begin, end == std::string::npos ? end : end - begin);
}

}  // namespace tutti_test

namespace {

/// What is cached is no leak, so that what is left after this is one.
class Cleaner : public doctest::IReporter {
 public:
  explicit Cleaner(const doctest::ContextOptions&) {}
  void test_run_end(const doctest::TestRunStats&) override {
    if (!tutti::cuda::is_available()) return;
    tutti::cuda::synchronize();
    tutti::cuda::empty_cache();
  }
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_case_start(const doctest::TestCaseData&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};

}  // namespace

REGISTER_LISTENER("cleaner", 1, Cleaner);
