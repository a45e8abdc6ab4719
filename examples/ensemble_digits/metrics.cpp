// Metrics, in plain loops over a few thousand numbers.
#include "metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace digits {

using tutti::Tensor;

namespace {

double entropy(std::vector<double> shares) {
  std::sort(shares.begin(), shares.end());  // the same shares in another order give the same bits
  double h = 0;
  for (double p : shares)
    if (p > 0) h -= p * std::log(p);
  return h;
}

}  // namespace

std::vector<Bin> reliability(const Tensor& probabilities, const Tensor& labels, int bins) {
  const auto [best, index] = probabilities.max(1);
  const auto confidence = best.to_vector<double>();
  const auto predicted = index.to_vector<std::int64_t>(), right = labels.to_vector<std::int64_t>();
  std::vector<Bin> result(static_cast<std::size_t>(bins));
  for (std::size_t i = 0; i < right.size(); ++i) {
    // A bin holds its upper end: (0, 1/15], (1/15, 2/15], ...
    const int b = std::clamp(static_cast<int>(std::ceil(confidence[i] * bins)) - 1, 0, bins - 1);
    Bin& bin = result[static_cast<std::size_t>(b)];
    ++bin.count;
    bin.confidence += confidence[i];
    bin.accuracy += predicted[i] == right[i];
  }
  for (Bin& bin : result)
    if (bin.count > 0) {
      bin.confidence /= static_cast<double>(bin.count);
      bin.accuracy /= static_cast<double>(bin.count);
    }
  return result;
}

Quality quality(const Tensor& probabilities, const Tensor& labels) {
  Quality q;
  const Tensor p = probabilities.to(tutti::kFloat64);
  const double n = static_cast<double>(labels.size(0));
  q.accuracy = (p.argmax(1) == labels).to(tutti::kFloat64).mean().item<double>();
  // A probability that was rounded to 0 counts as the smallest float.
  const double smallest = std::numeric_limits<float>::min();
  q.nll = -p.gather(1, labels.unsqueeze(1)).clamp_min(smallest).log().mean().item<double>();
  for (const Bin& bin : reliability(p, labels))
    q.ece += static_cast<double>(bin.count) / n * std::abs(bin.accuracy - bin.confidence);
  return q;
}

std::vector<Votes> most_disputed(const Tensor& probabilities, std::size_t n) {
  const std::int64_t members = probabilities.size(0), rows = probabilities.size(1);
  const std::size_t classes = static_cast<std::size_t>(probabilities.size(2));
  const auto votes = probabilities.argmax(2).to_vector<std::int64_t>();
  const auto mean = probabilities.mean(0).to_vector<double>();

  std::vector<Votes> all(static_cast<std::size_t>(rows));
  std::vector<double> doubt(all.size());
  for (std::size_t r = 0; r < all.size(); ++r) {
    all[r].row = static_cast<std::int64_t>(r);
    all[r].count.resize(classes);
    for (std::size_t m = 0; m < static_cast<std::size_t>(members); ++m)
      ++all[r].count[static_cast<std::size_t>(votes[m * all.size() + r])];
    std::vector<double> share(classes);
    for (std::size_t c = 0; c < classes; ++c)
      share[c] = static_cast<double>(all[r].count[c]) / static_cast<double>(members);
    all[r].entropy = entropy(share);
    const auto from = mean.begin() + static_cast<std::ptrdiff_t>(r * classes);
    doubt[r] = entropy({from, from + static_cast<std::ptrdiff_t>(classes)});
  }
  std::stable_sort(all.begin(), all.end(), [&](const Votes& a, const Votes& b) {
    const auto at = [](const Votes& v) { return static_cast<std::size_t>(v.row); };
    return a.entropy != b.entropy ? a.entropy > b.entropy : doubt[at(a)] > doubt[at(b)];
  });
  all.resize(std::min(n, all.size()));
  return all;
}

}  // namespace digits
