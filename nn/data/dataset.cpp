// Datasets: picking examples by index tensors.
#include <utility>
#include <vector>

#include <tutti/core/error.h>
#include <tutti/core/ops.h>
#include <tutti/nn/data/dataset.h>

namespace tutti::data {
namespace {

// Gives the leading axis of `rows` (one entry per index) the shape of `indices`.
Tensor shape_as_indices(const Tensor& rows, const Tensor& indices) {
  std::vector<std::int64_t> sizes(indices.sizes().begin(), indices.sizes().end());
  for (std::int64_t d = 1; d < rows.dim(); ++d) sizes.push_back(rows.size(d));
  return rows.reshape(sizes);
}

}  // namespace

Batch Dataset::get_batch(const Tensor& indices) const {
  check<ValueError>(indices.numel() > 0, "Dataset",
                    "expected at least one index, got none; a dataset that allows empty batches "
                    "overrides get_batch()");
  std::vector<Tensor> data, target;
  for (std::int64_t i : indices.to_vector<std::int64_t>()) {
    Batch example = get(i);
    data.push_back(std::move(example.data));
    if (example.target.defined()) target.push_back(std::move(example.target));
  }
  check<ValueError>(target.empty() || target.size() == data.size(), "Dataset", "only ",
                    target.size(), " of ", data.size(),
                    " examples have a target; give all or none one");
  return {shape_as_indices(stack(data), indices),
          target.empty() ? Tensor() : shape_as_indices(stack(target), indices)};
}

TensorDataset::TensorDataset(Tensor data, Tensor target)
    : data_(std::move(data)), target_(std::move(target)) {
  check<ShapeError>(data_.defined() && data_.dim() > 0, "TensorDataset",
                    "expected data of shape [N, ...], got ",
                    data_.defined() ? "a tensor without axes" : "an undefined tensor",
                    "; give examples along axis 0");
  check<ShapeError>(!target_.defined() || (target_.dim() > 0 && target_.size(0) == data_.size(0)),
                    "TensorDataset", "expected as many targets as examples, got data ",
                    data_.sizes(), " and target ",
                    target_.defined() ? target_.sizes() : IntArrayRef(), "; give one per example");
}

std::int64_t TensorDataset::size() const { return data_.size(0); }

Batch TensorDataset::get(std::int64_t i) const {
  check<IndexError>(i >= 0 && i < size(), "TensorDataset", "expected an index in [0, ", size(),
                    "), got ", i, "; size() gives the number of examples");
  return {data_.select(0, i), target_.defined() ? target_.select(0, i) : Tensor()};
}

Batch TensorDataset::get_batch(const Tensor& indices) const {
  const Tensor flat = indices.reshape(-1);
  const auto pick = [&](const Tensor& from) {
    return from.defined() ? shape_as_indices(from.index_select(0, flat), indices) : Tensor();
  };
  return {pick(data_), pick(target_)};
}

}  // namespace tutti::data
