// CSV files, datasets and loaders, safetensors files: what they read and write, and how they refuse
// what is broken.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <tutti/core/ops.h>
#include <tutti/core/parallel.h>
#include <tutti/nn/atomic_file.h>
#include <tutti/nn/data/csv.h>
#include <tutti/nn/data/dataloader.h>
#include <tutti/nn/data/dataset.h>
#include <tutti/nn/safetensors.h>

#include "test.h"

using namespace tutti;
namespace fs = std::filesystem;

namespace {

/// A folder of its own, removed at the end.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "tutti_data_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  Folder(const Folder&) = delete;
  ~Folder() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string put(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
    return *this / name;
  }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path_), {}));
  }

 private:
  fs::path path_;
};

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string with_length(const std::string& header, const std::string& data = "") {
  const std::uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), sizeof n) + header + data;
}

using Ints = std::vector<std::int64_t>;
using Doubles = std::vector<double>;

}  // namespace

TEST_CASE("csv: numbers, line ends, blanks, quotes") {
  const auto rows = [](std::string_view text, const data::CsvOptions& o = {}) {
    return data::parse_csv(text, o);
  };
  Tensor t = rows("1,2.5,-3\n+4, 5e-1 ,\"6\"\n");
  CHECK(t.sizes() == Ints{2, 3});
  CHECK(t.dtype() == kFloat32);
  CHECK(t.to_vector<double>() == Doubles{1, 2.5, -3, 4, 0.5, 6});
  CHECK(rows("1,2\r\n3,4").to_vector<double>() == Doubles{1, 2, 3, 4});
  CHECK(rows("\n1\n\n2\n\n").sizes() == Ints{2, 1});
  CHECK(rows("\xEF\xBB\xBF"
             "1,2\n")
            .to_vector<double>() == Doubles{1, 2});
  CHECK(rows("1;2\n3;4\n", data::CsvOptions().delimiter(';')).sizes() == Ints{2, 2});
  CHECK(rows("1\t2\n", data::CsvOptions().delimiter('\t')).sizes() == Ints{1, 2});
  CHECK(rows("inf,-inf\n").to_vector<double>() ==
        Doubles{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()});

  Tensor d = rows("0.1\n", data::CsvOptions().dtype(kFloat64));
  CHECK(d.dtype() == kFloat64);
  CHECK(d.item<double>() == 0.1);
  CHECK(rows("0.1\n").item<float>() == 0.1f);
}

TEST_CASE("csv: header found or given") {
  CHECK(data::parse_csv("width,height\n1,2\n").sizes() == Ints{1, 2});
  CHECK(data::parse_csv("2019,2020\n1,2\n").sizes() == Ints{2, 2});
  CHECK(data::parse_csv("2019,2020\n1,2\n", data::CsvOptions().header(true)).sizes() == Ints{1, 2});
  CHECK_THROWS_SAYING(data::parse_csv("a,b\n1,2\n", data::CsvOptions().header(false)), FileError,
                      "text:1:", "\"a\"", "not a number");
}

TEST_CASE("csv: what is wrong, where, and what to do") {
  const auto parse = [](const std::string& text) { return data::parse_csv(text, {}, "d.csv"); };
  CHECK_THROWS_SAYING(parse(""), FileError, "d.csv:1:", "an empty file", "check");
  CHECK_THROWS_SAYING(parse("\n\n"), FileError, "d.csv:2:", "at least one row");
  CHECK_THROWS_SAYING(parse("a,b\n"), FileError, "d.csv:1:", "at least one row");
  CHECK_THROWS_SAYING(parse("1,2\n3\n4,5\n"), FileError, "d.csv:2:", "expected 2 columns", "got 1",
                      "repair or remove");
  CHECK_THROWS_SAYING(parse("1,2\n3,4,5\n"), FileError, "d.csv:2:", "expected 2 columns", "got 3");
  CHECK_THROWS_SAYING(parse("1,2\n3,4\n5"), FileError, "d.csv:3:", "got 1", "truncated");
  CHECK_THROWS_SAYING(parse("1,2\n3,"), FileError, "d.csv:2:", "field 2", "empty", "truncated");
  CHECK_THROWS_SAYING(parse("1,,2\n"), FileError, "d.csv:1:", "field 2", "empty", "fill it in");
  CHECK_THROWS_SAYING(parse("1,2\n3,four\n"), FileError, "d.csv:2:", "field 2", "\"four\"",
                      "not a number");
  CHECK_THROWS_SAYING(parse("1,2\n3,4 5\n"), FileError, "d.csv:2:", "not a number");
  CHECK_THROWS_SAYING(parse("1;2\n3;4\n5;6\n"), FileError, "';'", "delimiter");
  CHECK_THROWS_SAYING(parse("Once upon a time\nthere was a table\n"), FileError,
                      "d.csv:2:", "not a number");
  CHECK_THROWS_SAYING(parse(std::string("1,2\n\0\1\2\n", 8)), FileError, "d.csv:2:", "zero byte");
  CHECK_THROWS_SAYING(parse("1\n\x1b[31m\x80\n"), FileError, "d.csv:2:", "\"?[31m?\"");
  CHECK_THROWS_SAYING(parse("1\n1e39\n"), FileError, "d.csv:2:", "range", "kFloat64");
  CHECK_THROWS_SAYING(parse("1\n1e999\n"), FileError, "d.csv:2:", "range");
  CHECK(data::parse_csv("1e39\n", data::CsvOptions().dtype(kFloat64)).item<double>() == 1e39);
  CHECK_THROWS_SAYING(data::parse_csv("1\n", data::CsvOptions().dtype(kInt64)), TypeError,
                      "float32", "int64");

  const auto two = data::CsvOptions().columns(2);
  CHECK(data::parse_csv("1,2\n", two).sizes() == Ints{1, 2});
  CHECK_THROWS_SAYING(data::parse_csv("1,2,3\n", two), FileError, "text:1:", "expected 2 columns",
                      "got 3");
  const auto small = two.check_rows([](std::span<const double> row) -> std::string {
    return row[1] < 5 ? "" : "the second number must be below 5";
  });
  CHECK(data::parse_csv("7,2\n", small).sizes() == Ints{1, 2});
  CHECK_THROWS_SAYING(data::parse_csv("a,b\n\n7,2\n7,5\n", small), FileError,
                      "text:4:", "must be below 5");

  Folder folder;
  CHECK_THROWS_SAYING(data::read_csv(folder / "none.csv"), FileError, "none.csv", "check the path");
  CHECK_THROWS_SAYING(data::read_csv(folder / ""), FileError, "folder");
  const std::string path = folder.put("t.csv", "1,2\n3,x\n");
  CHECK_THROWS_SAYING(data::read_csv(path), FileError, "t.csv:2:");
  folder.put("t.csv", "1,2\n3,4\n");
  CHECK(data::read_csv(path).to_vector<double>() == Doubles{1, 2, 3, 4});
}

TEST_CASE("csv: no cut or damaged byte is read as something else silently") {
  const std::string text = "10,20,30\n40,50,60\n";
  for (std::size_t n = 0; n < text.size(); ++n) {
    Tensor t;
    try {
      t = data::parse_csv(text.substr(0, n));
    } catch (const FileError&) {
      continue;
    }
    CHECK(t.dim() == 2);
    CHECK(t.numel() >= 1);
  }
  for (std::size_t at = 0; at < text.size(); ++at)
    for (int byte = 0; byte < 256; ++byte) {
      std::string damaged = text;
      damaged[at] = static_cast<char>(byte);
      try {
        static_cast<void>(data::parse_csv(damaged));
      } catch (const FileError& e) {
        CHECK(std::string(e.what()).find("text:") != std::string::npos);
      }
    }
}

TEST_CASE("dataset: rows by index tensors of any shape") {
  data::TensorDataset set(arange(12).reshape({6, 2}), arange(6) * 10);
  CHECK(set.size() == 6);
  CHECK(set.get(4).data.to_vector<std::int64_t>() == Ints{8, 9});
  CHECK(set.get(4).target.item<std::int64_t>() == 40);
  data::Batch b = set.get_batch(tensor({{0, 5}, {3, 3}, {1, 2}}));
  CHECK(b.data.sizes() == Ints{3, 2, 2});
  CHECK(b.data[1].to_vector<std::int64_t>() == Ints{6, 7, 6, 7});
  CHECK(b.target.to_vector<std::int64_t>() == Ints{0, 50, 30, 30, 10, 20});
  CHECK_FALSE(data::TensorDataset(ones({2, 2})).get(0).target.defined());
  CHECK_THROWS_SAYING(set.get(6), IndexError, "[0, 6)", "got 6");
  CHECK_THROWS_SAYING(data::TensorDataset(ones({3, 2}), ones({4})), ShapeError, "[3, 2]", "[4]");
  CHECK_THROWS_SAYING(data::TensorDataset(Tensor()), ShapeError, "undefined");
}

TEST_CASE("dataset: one of the user's own, through the loader") {
  struct Squares : data::Dataset {
    std::int64_t size() const override { return 5; }
    data::Batch get(std::int64_t i) const override {
      return {tensor({i, i}), scalar_tensor(i * i)};
    }
  };
  data::DataLoader loader(Squares(), data::DataLoaderOptions(2));
  Ints seen;
  for (auto& [x, y] : loader) {
    CHECK(x.dim() == 2);
    for (double v : y.to_vector<double>()) seen.push_back(static_cast<std::int64_t>(v));
  }
  CHECK(seen == Ints{0, 1, 4, 9, 16});
}

TEST_CASE("loader: batches cover the dataset once an epoch") {
  const data::TensorDataset set(arange(10), arange(10) + 100);
  for (bool shuffle : {false, true}) {
    data::DataLoader loader(set, data::DataLoaderOptions(4).shuffle(shuffle).seed(3));
    CHECK(loader.size() == 3);
    for (int epoch = 0; epoch < 3; ++epoch) {
      Ints seen, lengths;
      for (auto& batch : loader) {
        CHECK(equal(batch.data + 100, batch.target));
        lengths.push_back(batch.data.size(0));
        for (std::int64_t v : batch.data.to_vector<std::int64_t>()) seen.push_back(v);
      }
      CHECK(lengths == Ints{4, 4, 2});
      CHECK(std::is_sorted(seen.begin(), seen.end()) == !shuffle);
      CHECK(std::set<std::int64_t>(seen.begin(), seen.end()).size() == 10);
    }
    CHECK(loader.epoch() == 3);
  }
  data::DataLoader whole(set, data::DataLoaderOptions(4).drop_last(true));
  CHECK(whole.size() == 2);
  int batches = 0;
  for (auto& batch : whole) batches += batch.data.size(0) == 4 ? 1 : 100;
  CHECK(batches == 2);

  CHECK_THROWS_SAYING(data::DataLoader(set, data::DataLoaderOptions(0)), ValueError, "batch size",
                      "0");
  CHECK_THROWS_SAYING(data::DataLoader(set, data::DataLoaderOptions().members(-1)), ValueError,
                      "members", "-1");
  CHECK_THROWS_SAYING(data::DataLoader(nullptr), ValueError, "dataset");
}

TEST_CASE("loader: orders depend on seed, epoch and member only") {
  const data::TensorDataset set(arange(50));
  const auto orders = [&](std::uint64_t seed, std::int64_t members, std::int64_t epoch,
                          bool bootstrap = false) {
    const auto o = data::DataLoaderOptions(8).shuffle(true).seed(seed).members(members);
    return data::DataLoader(set, data::DataLoaderOptions(o).bootstrap(bootstrap)).indices(epoch);
  };
  const Tensor first = orders(1, 4, 0);
  CHECK(first.sizes() == Ints{4, 50});
  CHECK(equal(first, orders(1, 4, 0)));
  CHECK_FALSE(equal(first, orders(2, 4, 0)));
  CHECK_FALSE(equal(first, orders(1, 4, 1)));
  for (int a = 0; a < 4; ++a)
    for (int b = 0; b < a; ++b) CHECK_FALSE(equal(first[a], first[b]));
  // A member's order is the same in a larger ensemble, and that of a single model is member 0's.
  CHECK(equal(first, orders(1, 9, 0).narrow(0, 0, 4)));
  CHECK(equal(first[0], orders(1, 0, 0)));

  const int threads = num_threads();
  set_num_threads(1);
  const Tensor alone = orders(1, 4, 7, true);
  set_num_threads(3);
  CHECK(equal(alone, orders(1, 4, 7, true)));
  set_num_threads(threads);

  // An epoch can be gone back to.
  data::DataLoader loader(set, data::DataLoaderOptions(50).shuffle(true).seed(5));
  const Tensor epoch0 = (*loader.begin()).data, epoch1 = (*loader.begin()).data;
  CHECK_FALSE(equal(epoch0, epoch1));
  loader.set_epoch(0);
  CHECK(equal((*loader.begin()).data, epoch0));
}

TEST_CASE("loader: each member keeps its own bootstrap sample") {
  const std::int64_t n = 400, members = 6;
  const data::TensorDataset set(arange(n).reshape({n, 1}).expand({n, 3}), arange(n));
  data::DataLoader loader(
      set, data::DataLoaderOptions(64).shuffle(true).bootstrap(true).members(members));
  const auto sorted = [](const Tensor& t) { return std::get<0>(sort(t, -1)); };
  const Tensor one = sorted(loader.indices(0)), two = sorted(loader.indices(1));
  CHECK(equal(one, two));
  CHECK_FALSE(equal(loader.indices(0), loader.indices(1)));
  double distinct = 0;
  for (std::int64_t m = 0; m < members; ++m) {
    const Ints row = one[m].to_vector<std::int64_t>();
    CHECK(row.front() >= 0);
    CHECK(row.back() < n);
    distinct += static_cast<double>(std::set<std::int64_t>(row.begin(), row.end()).size());
    if (m > 0) CHECK_FALSE(equal(one[m], one[m - 1]));
  }
  // 1 - 1/e = 0.632 of the rows are in a sample; over six the standard deviation is about 0.006.
  CHECK(distinct / static_cast<double>(n * members) == doctest::Approx(0.632).epsilon(0.05));

  std::int64_t rows = 0;
  for (auto& [x, y] : loader) {
    CHECK(x.sizes() == Ints{members, x.size(1), 3});
    CHECK(y.sizes() == Ints{members, x.size(1)});
    CHECK(equal(x.select(2, 1), y));
    rows += x.size(1);
  }
  CHECK(rows == n);
}

TEST_CASE("safetensors: every dtype comes back bit for bit, in order") {
  Folder folder;
  const std::string path = folder / "all.safetensors";
  TensorDict dict;
  dict.insert("mask", tensor({true, false, true}));
  for (DType t : {kUInt8, kInt8, kInt16, kInt32, kInt64, kFloat16, kBFloat16, kFloat32, kFloat64})
    dict.insert(name_of(t), (arange(-3, 4).reshape({7, 1}) * 1.1).to(t));
  dict.insert("scalar", tensor(2.5));
  dict.insert("none", zeros({0, 3}));
  dict.insert("strided", arange(6).reshape({2, 3}).t());
  dict.insert("a \"quoted\" name\n\u00e9", ones({1}).requires_grad_());
  save(dict, path, {{"format", "pt"}, {"note", "\"n\""}});
  CHECK(folder.files() == 1);

  const TensorDict back = load(path);
  CHECK(back.keys() == dict.keys());
  for (const std::string& name : dict.keys()) {
    CAPTURE(name);
    const Tensor& t = dict.at(name);
    CHECK(back.at(name).dtype() == t.dtype());
    CHECK(back.at(name).sizes() == t.sizes());
    CHECK(equal(back.at(name), t));
    CHECK(back.at(name).is_contiguous());
  }
  CHECK_FALSE(back.at("strided").requires_grad());
  CHECK(load_metadata(path) == Metadata{{"format", "pt"}, {"note", "\"n\""}});

  save({}, path);
  CHECK(load(path).empty());
  CHECK(load_metadata(path).empty());
}

TEST_CASE("safetensors: the bytes are those of the format") {
  Folder folder;
  const std::string path = folder / "one.safetensors";
  save({{"b", tensor({true})}, {"w", tensor({{1.f, 2.f}})}}, path);
  const std::string text = content_of(path);
  std::uint64_t length = 0;
  std::memcpy(&length, text.data(), 8);
  CHECK(length % 8 == 0);
  const std::string header = text.substr(8, length);
  CHECK(header.substr(0, header.find_last_not_of(' ') + 1) ==
        R"({"b":{"dtype":"BOOL","shape":[1],"data_offsets":[8,9]},)"
        R"("w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})");
  CHECK(text.substr(8 + length) == std::string("\0\0\x80\x3f\0\0\0\x40\1", 9));
}

TEST_CASE("safetensors: what cannot be saved leaves no file, and an old one alone") {
  Folder folder;
  const std::string path = folder / "x.safetensors";
  CHECK_THROWS_SAYING(save({{"w", Tensor()}}, path), ValueError, "\"w\"", "undefined");
  CHECK_THROWS_SAYING(save({{"w", empty({2}, kMeta)}}, path), ValueError, "\"w\"", "Meta");
  CHECK_THROWS_SAYING(save({{"__metadata__", ones({1})}}, path), ValueError, "__metadata__");
  CHECK_THROWS_SAYING(save({{"\xff", ones({1})}}, path), ValueError, "UTF-8");
  CHECK_THROWS_SAYING(save({{"w", ones({1})}}, folder / "none/x"), FileError, "none/x",
                      "folder exists");
  CHECK_THROWS_SAYING(save({{"w", ones({1})}}, folder / ""), FileError, "folder");
  CHECK(folder.files() == 0);
  save({{"w", ones({1})}}, path);
  const std::string old = content_of(path);
  CHECK_THROWS_AS(save({{"v", ones({1})}, {"w", Tensor()}}, path), ValueError);
  CHECK(content_of(path) == old);
  CHECK(folder.files() == 1);
}

TEST_CASE("safetensors: malformed files are refused, and the reason is given") {
  Folder folder;
  const auto refuses = [&](const std::string& content, const char* why) {
    const std::string path = folder.put("bad.safetensors", content);
    CHECK_THROWS_SAYING(load(path), FileError, "bad.safetensors", why);
  };
  const auto entry = [](const std::string& fields, std::size_t bytes = 4) {
    return with_length("{\"w\":{" + fields + "}}", std::string(bytes, '\1'));
  };
  CHECK_THROWS_SAYING(load(folder / "none"), FileError, "none", "check the path");
  CHECK_THROWS_SAYING(load(folder / ""), FileError, "folder");
  refuses("", "0 bytes");
  refuses("short", "5 bytes");
  refuses(std::string(8, '\xff'), "cut off");
  refuses(with_length("{}").substr(0, 9), "cut off");
  refuses(with_length(""), "not valid JSON");
  refuses(with_length("not json"), "not valid JSON");
  refuses(with_length("{\"w\":"), "not valid JSON");
  refuses(with_length("[]"), "not a JSON object");
  refuses(with_length(std::string(100000, '[')), "not valid JSON");
  refuses(with_length("{}", "x"), "1 bytes follow");
  refuses(with_length("{\"w\":3}"), "not described by");
  refuses(with_length("{\"__metadata__\":3}"), "not a JSON object");
  refuses(with_length("{\"__metadata__\":{\"a\":3}}"), "not a string");
  refuses(entry(R"("shape":[1],"data_offsets":[0,4])"), "no dtype");
  refuses(entry(R"("dtype":"F32","data_offsets":[0,4])"), "no shape");
  refuses(entry(R"("dtype":"F32","shape":[1])"), "no data_offsets");
  refuses(entry(R"("dtype":7,"shape":[1],"data_offsets":[0,4])"), "dtype is not a string");
  refuses(entry(R"("dtype":"U32","shape":[1],"data_offsets":[0,4])"), "\"U32\"");
  refuses(entry(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"), "not a list");
  refuses(entry(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), "list of sizes");
  refuses(entry(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), "list of sizes");
  refuses(entry(R"("dtype":"F32","shape":["1"],"data_offsets":[0,4])"), "list of sizes");
  refuses(entry(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4])"),
          "list of sizes");
  refuses(entry(R"("dtype":"F32","shape":[4294967296,4294967297],"data_offsets":[0,4])"),
          "too large");
  refuses(entry(R"("dtype":"F32","shape":[0,4294967296,4294967297],"data_offsets":[0,0])", 0),
          "too large");
  refuses(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), "need 8");
  refuses(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), "pair");
  refuses(entry(R"("dtype":"F32","shape":[1],"data_offsets":[-4,0])"), "pair");
  refuses(entry(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), "cut off or damaged");
  refuses(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"), "cut off or damaged");
  refuses(entry(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])", 8), "gap");
  refuses(entry(R"("dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4])"), "twice");
  const std::string a = R"("dtype":"I8","shape":[4],"data_offsets":[0,4])";
  const std::string b = R"("dtype":"I8","shape":[4],"data_offsets":[2,6])";
  refuses(with_length("{\"a\":{" + a + "},\"b\":{" + b + "}}", "123456"), "overlaps");
  refuses(with_length("{\"a\":{" + a + "},\"a\":{" + a + "}}", "1234"), "twice");

  // The same with the fault repaired is accepted, so the checks above look at what they say.
  const std::string path = folder.put(
      "good.safetensors", entry(R"("dtype":"I8","shape":[4],"data_offsets":[0,4],"x":[])"));
  CHECK(load(path).at("w").to_vector<std::int64_t>() == Ints{1, 1, 1, 1});
}

TEST_CASE("safetensors: cut or damaged anywhere, a file is refused or read within its bounds") {
  Folder folder;
  const std::string path = folder / "x.safetensors";
  save({{"mask", tensor({true, false})}, {"w", tensor({1.f, 2.f})}}, path, {{"k", "v"}});
  const std::string good = content_of(path);
  for (std::size_t n = 0; n < good.size(); ++n) {
    folder.put("cut", good.substr(0, n));
    CHECK_THROWS_AS(load(folder / "cut"), FileError);
  }
  std::size_t refused = 0;
  for (std::size_t at = 0; at < good.size(); ++at)
    for (int flip : {1, 2, 16, 128, 255}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ flip);
      folder.put("bad", bad);
      try {
        for (const auto& [name, t] : load(folder / "bad"))
          CHECK(t.to_vector<double>().size() <= 16);
      } catch (const FileError&) {
        ++refused;
      }
    }
  CHECK(refused > good.size());
}

TEST_CASE("atomic file: appears complete or not at all") {
  Folder folder;
  const std::string path = folder / "f";
  {
    AtomicFile file(path);
    file.write("half");
    CHECK_FALSE(fs::exists(path));
  }
  CHECK(folder.files() == 0);
  AtomicFile file(path);
  file.write("whole");
  file.commit();
  CHECK(content_of(path) == "whole");
  CHECK(folder.files() == 1);
  CHECK_THROWS_SAYING(file.commit(), FileError, "already");
  check_writable(path);
  CHECK(content_of(path) == "whole");
  CHECK_THROWS_SAYING(check_writable(folder / "none/f"), FileError, "none/f");
  CHECK_THROWS_SAYING(check_writable(path + "/f"), FileError, "cannot write");
}
