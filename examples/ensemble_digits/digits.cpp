// The data: reading, splitting, scaling.
#include "digits.h"

#include <cmath>
#include <span>
#include <vector>

namespace digits {

using tutti::Tensor;

Digits read_digits(const std::string& path) {
  const auto check = [](std::span<const double> row) -> std::string {
    for (std::size_t i = 0; i < kPixels; ++i)
      if (!(row[i] >= 0 && row[i] <= kWhite))
        return "field " + std::to_string(i + 1) +
               " is not a grey level from 0 to 16; repair or remove this line";
    const double label = row[kPixels];
    if (!(label >= 0 && label < kClasses && label == std::floor(label)))
      return "the label in the last field is not a digit from 0 to 9; repair or remove this line";
    return "";
  };
  const Tensor table =
      tutti::data::read_csv(path, tutti::data::CsvOptions().columns(kPixels + 1).check_rows(check));
  return {table.narrow(1, 0, kPixels).contiguous(), table.select(1, kPixels).to(tutti::kInt64)};
}

Split stratified_split(const Digits& all, double test_share, std::uint64_t seed) {
  std::vector<std::vector<std::int64_t>> by_class(kClasses);
  const auto labels = all.labels.to_vector<std::int64_t>();
  for (std::size_t i = 0; i < labels.size(); ++i)
    by_class[static_cast<std::size_t>(labels[i])].push_back(static_cast<std::int64_t>(i));

  tutti::Generator generator(seed);
  std::vector<std::int64_t> train, test;
  for (const auto& rows : by_class) {
    if (rows.empty()) continue;
    const auto order = tutti::randperm(static_cast<std::int64_t>(rows.size()), {}, generator)
                           .to_vector<std::int64_t>();
    const auto taken = std::lround(test_share * static_cast<double>(rows.size()));
    for (std::size_t i = 0; i < order.size(); ++i)
      (static_cast<long>(i) < taken ? test : train)
          .push_back(rows[static_cast<std::size_t>(order[i])]);
  }
  if (train.empty() || test.empty())
    throw tutti::ValueError("split",
                            "too few digits to learn from some and test with others: got " +
                                std::to_string(labels.size()) + ", give at least 50");
  const auto pick = [&](const std::vector<std::int64_t>& rows) {
    const Tensor index = tutti::tensor(rows);
    return Digits{all.pixels.index_select(0, index), all.labels.index_select(0, index)};
  };
  return {pick(train), pick(test)};
}

Scaling::Scaling(const Tensor& pixels) {
  const Tensor x = pixels.to(tutti::kFloat64) / kWhite;
  mean = x.mean().item<double>();
  std = x.std().item<double>();
  if (!(std > 0)) std = 1;  // pictures all of one grey
}

}  // namespace digits
