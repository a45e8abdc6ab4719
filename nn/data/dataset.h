// Dataset: numbered examples; TensorDataset: examples that are the rows of tensors.
#pragma once
#include <cstdint>

#include <tutti/core/tensor.h>
#include <tutti/core/tree.h>

namespace tutti::data {

/// One example, or a batch of them: what goes in and what should come out. A tree, so it passes
/// through transforms.
struct Batch {
  Tensor data;
  Tensor target;  ///< Undefined where the dataset has none.
};
TUTTI_TREE(Batch, data, target)

/// A source of examples 0 .. size() - 1. Derive from it and define size() and get(); LibTorch's
/// Dataset.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::int64_t size() const = 0;
  /// Example number i, without a batch axis.
  virtual Batch get(std::int64_t i) const = 0;
  /// The examples an int64 tensor of any shape [...] names, as [..., example's shape]. By default
  /// get() of each, stacked.
  virtual Batch get_batch(const Tensor& indices) const;
};

/// The rows of a data tensor [N, ...] with the rows of a target tensor [N, ...], as
/// torch.utils.data.TensorDataset. Shares their memory.
class TensorDataset : public Dataset {
 public:
  /// ShapeError unless both have the same number of rows. The target may be left out.
  explicit TensorDataset(Tensor data, Tensor target = {});
  std::int64_t size() const override;
  /// IndexError unless 0 <= i < size().
  Batch get(std::int64_t i) const override;
  Batch get_batch(const Tensor& indices) const override;
  const Tensor& data() const { return data_; }
  const Tensor& target() const { return target_; }

 private:
  Tensor data_, target_;
};

}  // namespace tutti::data
