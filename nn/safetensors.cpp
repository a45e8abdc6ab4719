// The safetensors format: the length of the header (8 bytes, little-endian), the header (JSON: for
// each name dtype, shape and data_offsets, and "__metadata__"), then the data, back to back in
// row-major order.
#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <numeric>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <tutti/core/error.h>
#include <tutti/core/ops.h>
#include <tutti/nn/atomic_file.h>
#include <tutti/nn/safetensors.h>

namespace tutti {
namespace {

using nlohmann::json;
static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr const char* kMetadata = "__metadata__";
constexpr std::uint64_t kLargestHeader = 100'000'000;  // the limit other readers have

struct DTypeName {
  DType dtype;
  const char* name;
};
constexpr std::array<DTypeName, 10> kDTypes = {{{kFloat64, "F64"},
                                                {kFloat32, "F32"},
                                                {kFloat16, "F16"},
                                                {kBFloat16, "BF16"},
                                                {kInt64, "I64"},
                                                {kInt32, "I32"},
                                                {kInt16, "I16"},
                                                {kInt8, "I8"},
                                                {kUInt8, "U8"},
                                                {kBool, "BOOL"}}};

const char* format_name(DType t) {
  return std::find_if(kDTypes.begin(), kDTypes.end(), [&](const auto& d) { return d.dtype == t; })
      ->name;
}

std::size_t byte_size(const Tensor& t) {
  return static_cast<std::size_t>(t.numel() * t.element_size());
}

const void* bytes_of(const Tensor& t) {
  return dispatch(t.dtype(), [&]<class T>() -> const void* { return t.const_data_ptr<T>(); });
}

// ---- writing

Tensor writable(const std::string& name, const Tensor& t) {
  check<ValueError>(t.defined() && !t.is_meta(), "save", "\"", name,
                    "\" has no data to save: it is ", t.defined() ? "a Meta tensor" : "undefined",
                    "; leave it out");
  return t.detach().cpu().contiguous();
}

std::string quoted(const std::string& text) {
  try {
    return json(text).dump();
  } catch (const json::exception&) {
    fail<ValueError>("save",
                     "expected names and notes in UTF-8, got other bytes; rename the entry");
  }
}

// Positions 0 .. n - 1 ordered by `less`, equal ones as they were.
template <class Less>
std::vector<std::size_t> sorted_positions(std::size_t n, Less less) {
  std::vector<std::size_t> at(n);
  std::iota(at.begin(), at.end(), std::size_t{0});
  std::stable_sort(at.begin(), at.end(), less);
  return at;
}

// ---- reading

/// One tensor as the header describes it.
struct Entry {
  std::string name;
  DType dtype = kFloat32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;
};

class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path), file_(nullptr, std::fclose) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) bad("it is a folder, expected a file");
    file_.reset(std::fopen(path.c_str(), "rb"));
    if (!file_) bad(std::generic_category().message(errno), "; check the path");
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (error) bad(error.message());

    std::uint64_t length = 0;
    if (size < sizeof length) bad("it has ", size, " bytes, too few for a safetensors file");
    read(&length, sizeof length);
    if (length > kLargestHeader || length > size - sizeof length)
      bad("its header should have ", length, " bytes, but ", size - sizeof length,
          " follow; it is cut off, or no safetensors file");
    data_bytes_ = size - sizeof length - length;
    std::string text(static_cast<std::size_t>(length), '\0');
    read(text.data(), text.size());
    parse(text);
    check_layout();
  }

  const Metadata& metadata() const { return metadata_; }

  TensorDict tensors() {
    std::vector<Tensor> values(entries_.size());
    for (std::size_t i : by_place_) {
      const Entry& e = entries_[i];
      values[i] = empty(e.shape, e.dtype);
      dispatch(e.dtype, [&]<class T>() { read_into(values[i].data_ptr<T>(), e); });
    }
    TensorDict dict;
    for (std::size_t i = 0; i < values.size(); ++i) dict.insert(entries_[i].name, values[i]);
    return dict;
  }

 private:
  template <class... Args>
  [[noreturn]] void bad(const Args&... args) const {
    fail<FileError>("load", "cannot read ", path_, ": ", args...);
  }

  void read(void* to, std::size_t bytes) {
    if (bytes > 0 && std::fread(to, 1, bytes, file_.get()) != bytes)
      bad(std::ferror(file_.get()) ? std::generic_category().message(errno) : "it ends too early");
  }

  template <class T>
  void read_into(T* to, const Entry& e) {
    const std::size_t bytes = static_cast<std::size_t>(e.end - e.begin);
    if constexpr (std::is_same_v<T, bool>) {  // a bool in memory must be 0 or 1
      std::vector<unsigned char> raw(bytes);
      read(raw.data(), bytes);
      std::transform(raw.begin(), raw.end(), to, [](unsigned char b) { return b != 0; });
    } else {
      read(to, bytes);
    }
  }

  void parse(const std::string& text) {
    // json keeps keys sorted and lets the last of equal ones win: the callback notes order and
    // refuses duplicates.
    std::vector<std::string> order;
    std::vector<std::set<std::string>> open;
    const auto note = [&](int, json::parse_event_t event, json& value) {
      if (event == json::parse_event_t::object_start) open.emplace_back();
      if (event == json::parse_event_t::object_end) open.pop_back();
      if (event == json::parse_event_t::key) {
        const std::string& key = value.get_ref<const std::string&>();
        if (!open.back().insert(key).second) bad("its header has \"", key, "\" twice");
        if (open.size() == 1) order.push_back(key);
      }
      return true;
    };
    json header;
    try {
      header = json::parse(text, note);
    } catch (const json::exception& e) {
      bad("its header is not valid JSON (", e.what(), ")");
    }
    if (!header.is_object()) bad("its header is not a JSON object");
    for (const std::string& name : order) {
      if (name == kMetadata)
        read_metadata(header[name]);
      else
        entries_.push_back(read_entry(name, header[name]));
    }
  }

  void read_metadata(const json& notes) {
    if (!notes.is_object()) bad("its ", kMetadata, " is not a JSON object");
    for (const auto& [key, value] : notes.items()) {
      if (!value.is_string()) bad("its ", kMetadata, " entry \"", key, "\" is not a string");
      metadata_.emplace(key, value.get<std::string>());
    }
  }

  Entry read_entry(const std::string& name, const json& j) const {
    const auto field = [&](const char* key) -> const json& {
      const auto it = j.find(key);
      if (it == j.end()) bad("tensor \"", name, "\" has no ", key);
      return *it;
    };
    if (!j.is_object()) bad("tensor \"", name, "\" is not described by a JSON object");
    Entry e{name, read_dtype(name, field("dtype")), {}, 0, 0};

    const json& shape = field("shape");
    if (!shape.is_array()) bad("tensor \"", name, "\": shape is not a list");
    constexpr std::uint64_t kMost = std::uint64_t{1} << 62;
    std::uint64_t bytes = static_cast<std::uint64_t>(size_of(e.dtype));
    bool none = false;
    for (const json& s : shape) {
      if (!s.is_number_unsigned() || s.get<std::uint64_t>() > kMost)
        bad("tensor \"", name, "\": shape is not a list of sizes");
      const std::uint64_t n = s.get<std::uint64_t>();
      none = none || n == 0;
      if (n > 0 && bytes > kMost / n) bad("tensor \"", name, "\": its shape is too large");
      bytes *= std::max<std::uint64_t>(n, 1);
      e.shape.push_back(static_cast<std::int64_t>(n));
    }

    const json& offsets = field("data_offsets");
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
        !offsets[1].is_number_unsigned())
      bad("tensor \"", name, "\": data_offsets is not a pair of byte positions");
    e.begin = offsets[0].get<std::uint64_t>();
    e.end = offsets[1].get<std::uint64_t>();
    if (e.begin > e.end || e.end > data_bytes_)
      bad("tensor \"", name, "\" should lie at bytes ", e.begin, " to ", e.end, " of ", data_bytes_,
          " bytes of data; the file is cut off or damaged");
    if (e.end - e.begin != (none ? 0 : bytes))
      bad("tensor \"", name, "\" has ", e.end - e.begin, " bytes, but its dtype and shape ",
          IntArrayRef(e.shape), " need ", none ? 0 : bytes);
    return e;
  }

  DType read_dtype(const std::string& name, const json& j) const {
    if (!j.is_string()) bad("tensor \"", name, "\": dtype is not a string");
    const std::string& text = j.get_ref<const std::string&>();
    for (const DTypeName& d : kDTypes)
      if (text == d.name) return d.dtype;
    bad("tensor \"", name, "\" has dtype \"", text,
        "\", which is none of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL; convert it before saving");
  }

  // The tensors must fill the data without overlap or gap.
  void check_layout() {
    by_place_ = sorted_positions(entries_.size(), [&](std::size_t a, std::size_t b) {
      const Entry &x = entries_[a], &y = entries_[b];
      return std::pair(x.begin, x.end) < std::pair(y.begin, y.end);
    });
    std::uint64_t at = 0;
    for (std::size_t i : by_place_) {
      const Entry& e = entries_[i];
      if (e.begin != at)
        bad("tensor \"", e.name, "\" ", e.begin < at ? "overlaps another one" : "follows a gap",
            " at byte ", std::min(at, e.begin), " of the data");
      at = e.end;
    }
    if (at != data_bytes_)
      bad(data_bytes_ - at, " bytes follow the last tensor; the file is damaged");
  }

  std::string path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  std::uint64_t data_bytes_ = 0;
  std::vector<Entry> entries_;         // in the order of the header
  std::vector<std::size_t> by_place_;  // positions in entries_, in the order of the data
  Metadata metadata_;
};

}  // namespace

void save(const TensorDict& tensors, const std::string& path, const Metadata& metadata) {
  std::vector<Tensor> values;
  for (const auto& [name, t] : tensors) {
    check<ValueError>(name != kMetadata, "save", "\"", kMetadata,
                      "\" cannot name a tensor; rename it");
    values.push_back(writable(name, t));
  }
  // Data by falling element size, so that every tensor is aligned; the header in the order of the
  // dict.
  const std::vector<std::size_t> by_size =
      sorted_positions(values.size(), [&](std::size_t a, std::size_t b) {
        return values[a].element_size() > values[b].element_size();
      });
  std::vector<std::size_t> begin(values.size());
  std::size_t end = 0;
  for (std::size_t i : by_size) {
    begin[i] = end;
    end += byte_size(values[i]);
  }

  const auto add_member = [](std::string& object, const std::string& key,
                             const std::string& value) {
    object.append(object.empty() ? "{" : ",").append(quoted(key)).append(":").append(value);
  };
  std::string header;
  if (!metadata.empty()) {
    std::string notes;
    for (const auto& [key, value] : metadata) add_member(notes, key, quoted(value));
    add_member(header, kMetadata, notes + "}");
  }
  const std::vector<std::string> names = tensors.keys();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const IntArrayRef sizes = values[i].sizes();
    add_member(
        header, names[i],
        detail::str("{\"dtype\":\"", format_name(values[i].dtype()), "\",\"shape\":",
                    json(std::vector<std::int64_t>(sizes.begin(), sizes.end())).dump(),
                    ",\"data_offsets\":[", begin[i], ",", begin[i] + byte_size(values[i]), "]}"));
  }
  header += header.empty() ? "{}" : "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');  // data starts at a multiple of 8

  AtomicFile file(path);
  const std::uint64_t length = header.size();
  file.write(&length, sizeof length);
  file.write(header);
  for (std::size_t i : by_size) file.write(bytes_of(values[i]), byte_size(values[i]));
  file.commit();
}

TensorDict load(const std::string& path) { return Reader(path).tensors(); }

Metadata load_metadata(const std::string& path) { return Reader(path).metadata(); }

}  // namespace tutti
