// CSV files: one pass over the text, numbers by std::from_chars (exact, and the same under every
// locale).
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <system_error>
#include <vector>

#include <tutti/core/error.h>
#include <tutti/core/ops.h>
#include <tutti/nn/data/csv.h>

namespace tutti::data {
namespace {

constexpr const char* kOp = "read_csv";

std::string_view trim(std::string_view field, char delimiter) {
  const auto blank = [&](char c) { return (c == ' ' || c == '\t') && c != delimiter; };
  while (!field.empty() && blank(field.front())) field.remove_prefix(1);
  while (!field.empty() && blank(field.back())) field.remove_suffix(1);
  return field;
}

enum class Parsed { number, not_a_number, out_of_range };

Parsed parse_number(std::string_view field, char delimiter, double& value) {
  field = trim(field, delimiter);
  if (field.size() >= 2 && field.front() == '"' && field.back() == '"')
    field = trim(field.substr(1, field.size() - 2), delimiter);
  if (field.size() > 1 && field[0] == '+' && field[1] != '-') field.remove_prefix(1);
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error == std::errc::invalid_argument || end != field.data() + field.size())
    return Parsed::not_a_number;
  return error == std::errc::result_out_of_range ? Parsed::out_of_range : Parsed::number;
}

// A field as an error shows it: short, and without bytes that would upset a terminal.
std::string shown(std::string_view field) {
  constexpr std::size_t kMost = 24;
  std::string s = "\"";
  for (char c : field.substr(0, kMost)) s += c >= ' ' && c <= '~' ? c : '?';
  return s + (field.size() > kMost ? "...\"" : "\"");
}

template <class F>
void for_each_field(std::string_view line, char delimiter, F&& f) {
  for (std::size_t start = 0;;) {
    const std::size_t end = std::min(line.find(delimiter, start), line.size());
    f(line.substr(start, end - start));
    if (end == line.size()) return;
    start = end + 1;
  }
}

class CsvParser {
 public:
  CsvParser(std::string_view text, const CsvOptions& options, std::string_view name)
      : text_(text), options_(options), name_(name) {
    if (text_.substr(0, 3) == "\xEF\xBB\xBF") text_.remove_prefix(3);
  }

  /// Fills values(), row after row.
  void run() {
    // The file's size bounds the number of fields from above; most fields take at least two bytes.
    values_.reserve(text_.size() / 2 + 1);
    std::string_view line;
    bool first = true;
    while (next_line(line)) {
      if (trim(line, options_.delimiter()).empty()) continue;
      if (line.find('\0') != std::string_view::npos)
        fail_here("found a zero byte; this is not a text file, export the table as CSV");
      const bool names = first && options_.header().value_or(!has_number(line));
      first = false;
      if (!names) row(line);
    }
    check<FileError>(rows_ > 0, kOp, name_, ":", std::max<std::int64_t>(line_, 1),
                     ": expected at least one row of numbers, got ",
                     text_.empty() ? "an empty file" : "none",
                     "; check that this is the right file and that it was copied in full");
  }

  const std::vector<double>& values() const { return values_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }

 private:
  bool next_line(std::string_view& line) {
    if (at_ >= text_.size()) return false;
    const std::size_t end = std::min(text_.find('\n', at_), text_.size());
    line = text_.substr(at_, end - at_);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    at_ = end + 1;
    ++line_;
    return true;
  }

  bool has_number(std::string_view line) const {
    bool found = false;
    double ignored = 0;
    for_each_field(line, options_.delimiter(), [&](std::string_view field) {
      found = found || parse_number(field, options_.delimiter(), ignored) != Parsed::not_a_number;
    });
    return found;
  }

  void row(std::string_view line) {
    std::int64_t column = 0;
    for_each_field(line, options_.delimiter(), [&](std::string_view field) {
      double value = 0;
      const Parsed result = parse_number(field, options_.delimiter(), value);
      if (result == Parsed::not_a_number) fail_field(column, field);
      const bool large = options_.dtype() == kFloat32 && std::isfinite(value) &&
                         std::abs(value) > std::numeric_limits<float>::max();
      if (result == Parsed::out_of_range || large)
        fail_here("field ", column + 1, " (", shown(field), ") is out of the range of ",
                  options_.dtype(),
                  large ? "; read it with dtype(kFloat64)" : "; rescale the column");
      values_.push_back(value);
      ++column;
    });
    if (rows_ == 0) columns_ = options_.columns().value_or(column);
    if (column != columns_)
      fail_here("expected ", columns_, " columns",
                options_.columns() ? "" : " as in the rows before", ", got ", column,
                at_end_without_newline() ? "; the file ends here, it looks truncated: copy it again"
                                         : "; repair or remove this line");
    if (options_.check_rows()) {
      const std::string problem = options_.check_rows()(
          std::span<const double>(values_).last(static_cast<std::size_t>(column)));
      if (!problem.empty()) fail_here(problem);
    }
    ++rows_;
  }

  void fail_field(std::int64_t column, std::string_view field) const {
    if (trim(field, options_.delimiter()).empty())
      fail_here("field ", column + 1, " is empty, expected a number",
                at_end_without_newline() ? "; the file ends here, it looks truncated: copy it again"
                                         : "; fill it in or remove the line");
    const std::size_t other = field.find_first_of(",;\t|");
    if (other != std::string_view::npos)
      fail_here("field ", column + 1, " (", shown(field),
                ") is not a number; if fields are separated by '", std::string(1, field[other]),
                "', say so with CsvOptions().delimiter()");
    fail_here(
        "field ", column + 1, " (", shown(field), ") is not a number; repair or remove this line",
        rows_ == 0 && !options_.header() ? ", or pass CsvOptions().header(true) if it holds names"
                                         : "");
  }

  bool at_end_without_newline() const { return at_ > text_.size(); }

  template <class... Args>
  [[noreturn]] void fail_here(const Args&... args) const {
    fail<FileError>(kOp, name_, ":", line_, ": ", args...);
  }

  std::string_view text_;
  CsvOptions options_;
  std::string_view name_;
  std::size_t at_ = 0;
  std::int64_t line_ = 0, rows_ = 0, columns_ = 0;
  std::vector<double> values_;
};

std::string read_text(const std::string& path) {
  const auto cannot = [&](const std::string& why) {
    fail<FileError>(kOp, "cannot read ", path, ": ", why, "; check the path");
  };
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) cannot("it is a folder");
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             std::fclose);
  if (!file) cannot(std::generic_category().message(errno));
  std::string text;
  char block[1 << 16];
  while (const std::size_t n = std::fread(block, 1, sizeof block, file.get()))
    text.append(block, n);
  if (std::ferror(file.get())) cannot(std::generic_category().message(errno));
  return text;
}

}  // namespace

Tensor parse_csv(std::string_view text, const CsvOptions& options, std::string_view name) {
  check<TypeError>(options.dtype() == kFloat32 || options.dtype() == kFloat64, kOp,
                   "expected dtype float32 or float64, got ", options.dtype(),
                   "; convert the result with to()");
  CsvParser parser(text, options, name);
  parser.run();
  Tensor out = empty({parser.rows(), parser.columns()}, options.dtype());
  const std::vector<double>& values = parser.values();
  if (options.dtype() == kFloat64)
    std::copy(values.begin(), values.end(), out.data_ptr<double>());
  else
    std::transform(values.begin(), values.end(), out.data_ptr<float>(),
                   [](double v) { return static_cast<float>(v); });
  return out;
}

Tensor read_csv(const std::string& path, const CsvOptions& options) {
  return parse_csv(read_text(path), options, path);
}

}  // namespace tutti::data
