// AtomicFile: a file that appears under its name only when it is complete.
#pragma once
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

namespace tutti {

/// Writes to a temporary neighbour of `path` and renames it in commit(), so that nobody ever sees
/// half a file and an old one survives a failure. Without commit() the destructor removes what was
/// written. One thread at a time.
class AtomicFile {
 public:
  /// FileError, naming the path and the reason, where the file could not be created.
  explicit AtomicFile(std::string path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  /// Appends bytes; FileError if the disk refuses.
  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Puts the file in its place. FileError if something could not be written.
  void commit();

 private:
  [[noreturn]] void fail_writing(int error);

  std::string path_, temporary_;
  std::FILE* file_ = nullptr;
};

/// FileError, naming the reason, unless a file could be created at `path` (or replaced, if it is
/// there). Leaves nothing behind; for finding out before long work.
void check_writable(const std::string& path);

}  // namespace tutti
