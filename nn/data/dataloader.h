// DataLoader: walks through a dataset in batches, for one model or for every member of an ensemble
// at once.
#pragma once
#include <concepts>
#include <cstdint>
#include <iterator>
#include <memory>
#include <utility>

#include <tutti/core/tensor.h>
#include <tutti/nn/data/dataset.h>

namespace tutti::data {

/// Settings of a DataLoader; each setter returns the options, so that they chain.
class DataLoaderOptions {
 public:
  DataLoaderOptions() = default;
  DataLoaderOptions(std::int64_t batch_size) : batch_size_(batch_size) {}

  /// Examples per batch; 1 by default.
  DataLoaderOptions& batch_size(std::int64_t n) { return batch_size_ = n, *this; }
  /// A new random order in every epoch, of its own for each member.
  DataLoaderOptions& shuffle(bool on) { return shuffle_ = on, *this; }
  /// What the random choices depend on, besides epoch and member.
  DataLoaderOptions& seed(std::uint64_t seed) { return seed_ = seed, *this; }
  /// Leave out a last batch that is not full.
  DataLoaderOptions& drop_last(bool on) { return drop_last_ = on, *this; }
  /// Make batches for M members: tensors [M, batch, ...]. 0, the default: for one model, [batch,
  /// ...].
  DataLoaderOptions& members(std::int64_t m) { return members_ = m, *this; }
  /// Each member sees its own sample of the examples, drawn once with replacement and as large as
  /// the dataset (bagging).
  DataLoaderOptions& bootstrap(bool on) { return bootstrap_ = on, *this; }

  std::int64_t batch_size() const { return batch_size_; }
  bool shuffle() const { return shuffle_; }
  std::uint64_t seed() const { return seed_; }
  bool drop_last() const { return drop_last_; }
  std::int64_t members() const { return members_; }
  bool bootstrap() const { return bootstrap_; }

 private:
  std::int64_t batch_size_ = 1, members_ = 0;
  std::uint64_t seed_ = 0;
  bool shuffle_ = false, drop_last_ = false, bootstrap_ = false;
};

/// Batches of a dataset; `for (auto& [x, y] : loader)` is one epoch, and each such loop begins the
/// next one. The order depends on seed, epoch and member only: not on threads, not on how many
/// members there are, and not on other random numbers drawn. One thread at a time.
class DataLoader {
 public:
  /// ValueError for a batch size below 1 or a negative number of members.
  DataLoader(std::shared_ptr<const Dataset> dataset, DataLoaderOptions options = {});
  template <std::derived_from<Dataset> D>
  explicit DataLoader(D dataset, DataLoaderOptions options = {})
      : DataLoader(std::make_shared<const D>(std::move(dataset)), options) {}

  const Dataset& dataset() const { return *dataset_; }
  const DataLoaderOptions& options() const { return options_; }
  /// Batches per epoch.
  std::int64_t size() const;
  /// The examples of one epoch in order: int64 [N], or [M, N] for members.
  Tensor indices(std::int64_t epoch) const;
  /// The epoch the next loop shows; set it to continue where an earlier run stopped.
  std::int64_t epoch() const { return epoch_; }
  void set_epoch(std::int64_t epoch) { epoch_ = epoch; }

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Batch;
    using difference_type = std::int64_t;
    using pointer = Batch*;
    using reference = Batch&;

    Iterator() = default;
    Iterator(const DataLoader* loader, Tensor order) : loader_(loader), order_(std::move(order)) {}
    /// The current batch, made when first asked for.
    Batch& operator*() const {
      if (!batch_.data.defined()) batch_ = loader_->batch(order_, at_);
      return batch_;
    }
    Batch* operator->() const { return &**this; }
    Iterator& operator++() {
      ++at_;
      batch_ = {};
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& i, std::default_sentinel_t) {
      return i.at_ >= i.loader_->size();
    }

   private:
    const DataLoader* loader_ = nullptr;
    Tensor order_;
    std::int64_t at_ = 0;
    mutable Batch batch_;
  };
  /// Begins the next epoch.
  Iterator begin() { return Iterator(this, indices(epoch_++)); }
  std::default_sentinel_t end() const { return {}; }

 private:
  Batch batch(const Tensor& order, std::int64_t number) const;

  std::shared_ptr<const Dataset> dataset_;
  DataLoaderOptions options_;
  std::int64_t epoch_ = 0;
};

}  // namespace tutti::data
