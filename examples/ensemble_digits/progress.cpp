// Progress of the training.
#include "progress.h"

#include <cstdio>
#include <string>

#include <unistd.h>

namespace digits {

Progress::Progress(std::int64_t epochs) : epochs_(epochs), terminal_(isatty(STDOUT_FILENO) == 1) {}

Progress::~Progress() {
  if (open_line_) std::puts("");
}

void Progress::show(std::int64_t epoch, double loss, double accuracy, double rate) {
  constexpr std::int64_t kWidth = 24;
  char text[128];
  std::snprintf(
      text, sizeof text, "epoch %lld/%lld  loss %.4f  accuracy %.4f  %.2f M models x samples / s",
      static_cast<long long>(epoch), static_cast<long long>(epochs_), loss, accuracy, rate / 1e6);
  if (terminal_) {
    const auto done = static_cast<std::size_t>(kWidth * epoch / epochs_);
    const std::string bar = std::string(done, '#') + std::string(kWidth - done, '.');
    std::printf("\r\x1b[K[%s] %s", bar.c_str(), text);
    open_line_ = true;
  } else {
    std::puts(text);
  }
  std::fflush(stdout);
}

}  // namespace digits
