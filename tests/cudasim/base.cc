// Fatal errors and settings.
#include "base.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include <unistd.h>

namespace cudasim {
namespace {

std::string format_list(const char* format, std::va_list list) {
  std::va_list again;
  va_copy(again, list);
  const int n = std::vsnprintf(nullptr, 0, format, list);
  std::string result(n > 0 ? static_cast<std::size_t>(n) : 0, '\0');
  std::vsnprintf(result.data(), result.size() + 1, format, again);
  va_end(again);
  return result;
}

bool flag(const char* name, bool value) {
  const char* e = std::getenv(name);
  return e ? std::string(e) != "0" : value;
}

Settings read_settings() {
  Settings s;
  if (const char* e = std::getenv("CUDASIM_STREAMS")) {
    const std::string mode = e;
    if (mode == "lazy") {
      s.streams = StreamMode::kLazy;
    } else if (mode == "eager") {
      s.streams = StreamMode::kEager;
    } else if (mode == "random") {
      s.streams = StreamMode::kRandom;
    } else {
      fail("CUDASIM_STREAMS=%s: must be lazy, eager or random", e);
    }
  }
  if (const char* e = std::getenv("CUDASIM_WARPS")) {
    const std::string order = e;
    if (order == "forward") {
      s.warps = WarpOrder::kForward;
    } else if (order == "reverse") {
      s.warps = WarpOrder::kReverse;
    } else if (order == "random") {
      s.warps = WarpOrder::kRandom;
    } else {
      fail("CUDASIM_WARPS=%s: must be forward, reverse or random", e);
    }
  }
  if (const char* e = std::getenv("CUDASIM_SEED")) s.seed = std::strtoull(e, nullptr, 10);
  if (const char* e = std::getenv("CUDASIM_COVERAGE")) s.coverage_file = e;
  s.races = flag("CUDASIM_RACES", s.races);
  s.leaks = flag("CUDASIM_LEAKS", s.leaks);
  s.perturb = flag("CUDASIM_PERTURB", s.perturb);
  s.stats = flag("CUDASIM_STATS", s.stats);
  return s;
}

}  // namespace

void fail(const char* format, ...) {
  std::va_list list;
  va_start(list, format);
  const std::string message = format_list(format, list);
  va_end(list);
  std::fflush(stdout);
  std::fprintf(stderr, "cudasim: error: %s\n", message.c_str());
  std::fflush(stderr);
  _exit(kFatalStatus);
}

std::string text(const char* format, ...) {
  std::va_list list;
  va_start(list, format);
  std::string result = format_list(format, list);
  va_end(list);
  return result;
}

const Settings& settings() {
  static const Settings* s = new Settings(read_settings());
  return *s;
}

}  // namespace cudasim
