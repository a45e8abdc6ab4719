// main() of every doctest program. Besides doctest's own verdict it fails a run that selects no
// test case (a misspelt filter must not pass) and a test case that leaves tensors alive.
#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdint>
#include <cstdio>

#include <tutti/core/tensor.h>

#include "test.h"

namespace {

unsigned cases_run = 0;
unsigned cases_leaking = 0;

class Watcher : public doctest::IReporter {
 public:
  explicit Watcher(const doctest::ContextOptions&) {}

  void test_case_start(const doctest::TestCaseData& data) override {
    name_ = data.m_name;
    live_ = tutti::detail::live_tensors();
  }
  void test_case_end(const doctest::CurrentTestCaseStats&) override {
    const std::int64_t left = tutti::detail::live_tensors() - live_;
    if (left == 0) return;
    ++cases_leaking;
    std::fprintf(stderr, "test case \"%s\" left %lld more tensors alive\n", name_,
                 static_cast<long long>(left));
  }
  void test_run_end(const doctest::TestRunStats& stats) override {
    cases_run = stats.numTestCasesPassingFilters;
  }

  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}

 private:
  const char* name_ = "";
  std::int64_t live_ = 0;
};

}  // namespace

REGISTER_LISTENER("watcher", 1, Watcher);

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  const int result = context.run();
  if (context.shouldExit()) return result;  // a query such as --list-test-cases
  if (cases_run == 0) std::fputs("no test case was selected\n", stderr);
  return result != 0 || cases_run == 0 || cases_leaking != 0 ? 1 : 0;
}
