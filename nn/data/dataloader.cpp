// The order of examples: every choice is a Philox word of (seed, purpose, epoch, member, position),
// so that any epoch of any member can be computed alone.
#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include <tutti/core/error.h>
#include <tutti/core/ops.h>
#include <tutti/core/random.h>
#include <tutti/nn/data/dataloader.h>

namespace tutti::data {
namespace {

enum class Purpose : std::uint64_t { bootstrap = 1, shuffle = 2 };

// 64 random bits for each of n positions.
std::vector<std::uint64_t> random_words(std::uint64_t seed, Purpose purpose, std::int64_t epoch,
                                        std::int64_t member, std::int64_t n) {
  // A key apart from those of Generators with the same seed, and of the other purpose with any
  // nearby seed.
  const std::uint64_t key =
      seed * 0x9E3779B97F4A7C15u + static_cast<std::uint64_t>(purpose) * 0xD1B54A32D192ED03u;
  std::vector<std::uint64_t> words(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::array<std::uint32_t, 4> w =
        philox({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32),
                static_cast<std::uint32_t>(epoch), static_cast<std::uint32_t>(member)},
               key);
    words[i] = std::uint64_t{w[0]} << 32 | w[1];
  }
  return words;
}

// Fills `order` with what one member sees in one epoch.
void fill_order(const DataLoaderOptions& o, std::int64_t epoch, std::int64_t member,
                std::vector<std::int64_t>& sample, std::int64_t* order) {
  const std::size_t n = sample.size();
  const std::int64_t size = static_cast<std::int64_t>(n);
  if (o.bootstrap()) {
    const auto words = random_words(o.seed(), Purpose::bootstrap, 0, member, size);
    // n < 2^32: the upper half of the product of 32 random bits with n is uniform on [0, n).
    std::transform(words.begin(), words.end(), sample.begin(), [&](std::uint64_t w) {
      return static_cast<std::int64_t>(((w >> 32) * static_cast<std::uint64_t>(n)) >> 32);
    });
  } else {
    std::iota(sample.begin(), sample.end(), std::int64_t{0});
  }
  if (!o.shuffle()) {
    std::copy(sample.begin(), sample.end(), order);
    return;
  }
  const auto words = random_words(o.seed(), Purpose::shuffle, epoch, member, size);
  std::vector<std::size_t> place(n);
  std::iota(place.begin(), place.end(), std::size_t{0});
  std::stable_sort(place.begin(), place.end(),
                   [&](std::size_t a, std::size_t b) { return words[a] < words[b]; });
  for (std::size_t p : place) *order++ = sample[p];
}

}  // namespace

DataLoader::DataLoader(std::shared_ptr<const Dataset> dataset, DataLoaderOptions options)
    : dataset_(std::move(dataset)), options_(options) {
  check<ValueError>(dataset_ != nullptr, "DataLoader", "expected a dataset, got a null pointer");
  check<ValueError>(options_.batch_size() >= 1, "DataLoader",
                    "expected a batch size of at least 1, got ", options_.batch_size());
  check<ValueError>(options_.members() >= 0, "DataLoader",
                    "expected a number of members, or 0 for batches without a member axis, got ",
                    options_.members());
  check<ValueError>(dataset_->size() <= std::int64_t{0xFFFFFFFF}, "DataLoader",
                    "expected at most 2^32 - 1 examples, got ", dataset_->size());
}

std::int64_t DataLoader::size() const {
  const std::int64_t n = dataset_->size(), b = options_.batch_size();
  return n / b + (n % b != 0 && !options_.drop_last() ? 1 : 0);
}

Tensor DataLoader::indices(std::int64_t epoch) const {
  const std::int64_t n = dataset_->size();
  const std::int64_t rows = std::max<std::int64_t>(options_.members(), 1);
  Tensor order = empty({rows, n}, kInt64);
  std::int64_t* p = order.data_ptr<std::int64_t>();
  std::vector<std::int64_t> sample(static_cast<std::size_t>(n));
  for (std::int64_t m = 0; m < rows; ++m) fill_order(options_, epoch, m, sample, p + m * n);
  return options_.members() > 0 ? order : order.select(0, 0);
}

Batch DataLoader::batch(const Tensor& order, std::int64_t number) const {
  const std::int64_t start = number * options_.batch_size();
  const std::int64_t length = std::min(options_.batch_size(), dataset_->size() - start);
  return dataset_->get_batch(order.narrow(-1, start, length));
}

}  // namespace tutti::data
