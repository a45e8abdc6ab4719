// AtomicFile: temporary names, reasons of failures.
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include <tutti/core/error.h>
#include <tutti/nn/atomic_file.h>

namespace tutti {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

// The name must be free; "x" in fopen's mode makes sure of that, also between processes.
std::FILE* open_temporary(const std::string& path, std::string& name) {
  static std::atomic<unsigned> counter{0};
  for (int attempt = 0; attempt < 100; ++attempt) {
    name = detail::str(path, ".", counter.fetch_add(1), ".part");
    std::FILE* file = std::fopen(name.c_str(), "wbx");
    if (file || errno != EEXIST) return file;
  }
  return nullptr;
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  std::error_code ignored;
  check<FileError>(!path_.empty(), "save",
                   "expected the name of a file, got an empty path; give one");
  check<FileError>(!std::filesystem::is_directory(path_, ignored), "save", "cannot write ", path_,
                   ": it is a folder; give the name of a file");
  file_ = open_temporary(path_, temporary_);
  if (!file_)
    fail<FileError>("save", "cannot write ", path_, ": ", reason(errno),
                    "; check that the folder exists and that you may write there");
}

AtomicFile::~AtomicFile() {
  if (!file_) return;
  std::fclose(file_);
  std::remove(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  if (bytes > 0 && std::fwrite(data, 1, bytes, file_) != bytes) fail_writing(errno);
}

void AtomicFile::commit() {
  check<FileError>(file_ != nullptr, "save", path_, " is already complete");
  if (std::fflush(file_) != 0) fail_writing(errno);
  const int closed = std::fclose(std::exchange(file_, nullptr));
  std::error_code error;
  if (closed == 0) std::filesystem::rename(temporary_, path_, error);
  if (closed != 0 || error) {
    const std::string why = error ? error.message() : reason(errno);
    std::remove(temporary_.c_str());
    fail<FileError>("save", "cannot write ", path_, ": ", why);
  }
}

void AtomicFile::fail_writing(int error) {
  fail<FileError>("save", "cannot write ", path_, ": ", reason(error),
                  "; is there room on the disk?");
}

void check_writable(const std::string& path) { AtomicFile probe(path); }

}  // namespace tutti
