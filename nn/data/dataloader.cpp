// The order of examples: every choice is a Philox word of (seed, purpose, epoch, member, position),
// so that any epoch of any member can be computed alone.
#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <tutti/core/error.h>
#include <tutti/core/ops.h>
#include <tutti/core/parallel.h>
#include <tutti/core/random.h>
#include <tutti/nn/data/dataloader.h>

namespace tutti::data {
namespace {

enum class Purpose : std::uint64_t { bootstrap = 1, shuffle = 2 };

/// The random words of one member: 64 bits for each position.
class Words {
 public:
  Words(std::uint64_t seed, Purpose purpose, std::int64_t epoch, std::int64_t member)
      // A key apart from those of Generators with the same seed, and of the other purpose with any
      // nearby seed.
      : key_(seed * 0x9E3779B97F4A7C15u +
             static_cast<std::uint64_t>(purpose) * 0xD1B54A32D192ED03u),
        epoch_(static_cast<std::uint32_t>(epoch)),
        member_(static_cast<std::uint32_t>(member)) {}
  std::uint64_t operator[](std::size_t i) const {
    const std::array<std::uint32_t, 4> w = philox(
        {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32), epoch_, member_},
        key_);
    return std::uint64_t{w[0]} << 32 | w[1];
  }

 private:
  std::uint64_t key_;
  std::uint32_t epoch_, member_;
};

/// A row of the dataset and the word that says when its turn comes.
using Turn = std::pair<std::uint64_t, std::int64_t>;

// Fills `order` with what one member sees in one epoch; `turns` is scratch of the same length.
void fill_order(const DataLoaderOptions& o, std::int64_t epoch, std::int64_t member,
                std::vector<Turn>& turns, std::int64_t* order) {
  const std::size_t n = turns.size();
  const Words draws(o.seed(), Purpose::bootstrap, 0, member);
  const Words places(o.seed(), Purpose::shuffle, epoch, member);
  for (std::size_t i = 0; i < n; ++i) {
    // n < 2^32: the upper half of the product of 32 random bits with n is uniform on [0, n).
    const std::uint64_t row = o.bootstrap() ? ((draws[i] >> 32) * std::uint64_t{n}) >> 32 : i;
    turns[i] = {o.shuffle() ? places[i] : i, static_cast<std::int64_t>(row)};
  }
  if (o.shuffle()) std::sort(turns.begin(), turns.end());
  for (const Turn& t : turns) *order++ = t.second;
}

}  // namespace

DataLoader::DataLoader(std::shared_ptr<const Dataset> dataset, DataLoaderOptions options)
    : dataset_(std::move(dataset)), options_(options) {
  check<ValueError>(dataset_ != nullptr, "DataLoader",
                    "expected a dataset, got a null pointer; make one first");
  check<ValueError>(options_.batch_size() >= 1, "DataLoader",
                    "expected a batch size of at least 1, got ", options_.batch_size(),
                    "; give the examples per batch");
  check<ValueError>(options_.members() >= 0, "DataLoader",
                    "expected a number of members, or 0 for batches without a member axis, got ",
                    options_.members(), "; give one of them");
  check<ValueError>(dataset_->size() <= std::int64_t{0xFFFFFFFF}, "DataLoader",
                    "expected at most 2^32 - 1 examples, got ", dataset_->size(),
                    "; split the dataset");
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
  // Scratch is made here, since what runs on the pool must not throw.
  const std::int64_t parts = std::min<std::int64_t>(rows, num_threads());
  std::vector<std::vector<Turn>> scratch(static_cast<std::size_t>(parts),
                                         std::vector<Turn>(static_cast<std::size_t>(n)));
  parallel_for(parts, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = begin; part < end; ++part)
      for (std::int64_t m = part; m < rows; m += parts)
        fill_order(options_, epoch, m, scratch[static_cast<std::size_t>(part)], p + m * n);
  });
  return options_.members() > 0 ? order : order.select(0, 0);
}

Batch DataLoader::batch(const Tensor& order, std::int64_t number) const {
  const std::int64_t start = number * options_.batch_size();
  const std::int64_t length = std::min(options_.batch_size(), dataset_->size() - start);
  return dataset_->get_batch(order.narrow(-1, start, length));
}

}  // namespace tutti::data
