// read_csv: a table of numbers from a text file.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <tutti/core/dtype.h>
#include <tutti/core/tensor.h>

namespace tutti::data {

/// How a CSV file is written, and what to make of it.
class CsvOptions {
 public:
  /// What stands between two fields; ',' by default.
  CsvOptions delimiter(char c) const {
    CsvOptions o = *this;
    o.delimiter_ = c;
    return o;
  }
  /// Whether the first line holds names. Without this it is taken for names if none of its fields
  /// is a number.
  CsvOptions header(bool yes) const {
    CsvOptions o = *this;
    o.header_ = yes;
    return o;
  }
  /// kFloat32 (the default) or kFloat64.
  CsvOptions dtype(DType t) const {
    CsvOptions o = *this;
    o.dtype_ = t;
    return o;
  }
  /// The number of columns every row must have; without this all must have as many as the first.
  CsvOptions columns(std::int64_t n) const {
    CsvOptions o = *this;
    o.columns_ = n;
    return o;
  }
  /// Called with every row; what it returns, unless empty, becomes a FileError with file and line
  /// in front.
  using RowCheck = std::function<std::string(std::span<const double>)>;
  CsvOptions check_rows(RowCheck f) const {
    CsvOptions o = *this;
    o.check_rows_ = std::move(f);
    return o;
  }
  char delimiter() const { return delimiter_; }
  std::optional<bool> header() const { return header_; }
  DType dtype() const { return dtype_; }
  std::optional<std::int64_t> columns() const { return columns_; }
  const RowCheck& check_rows() const { return check_rows_; }

 private:
  char delimiter_ = ',';
  std::optional<bool> header_;
  DType dtype_ = kFloat32;
  std::optional<std::int64_t> columns_;
  RowCheck check_rows_;
};

/// The numbers of a CSV file as a tensor [rows, columns], like numpy.loadtxt. A number may stand in
/// double quotes and between blanks; "nan" and "inf" are numbers. Empty lines, a byte order mark
/// and the line ends of Windows are fine. FileError, naming file, line and cure, if the file cannot
/// be read, holds no rows, has rows of different lengths, or a field is no number or too large for
/// the dtype; TypeError for another dtype.
Tensor read_csv(const std::string& path, const CsvOptions& options = {});

/// The same for text that is in memory; errors call it `name`.
Tensor parse_csv(std::string_view text, const CsvOptions& options = {},
                 std::string_view name = "text");

}  // namespace tutti::data
