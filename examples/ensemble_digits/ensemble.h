// The ensemble: M networks that differ in their first weights and in the examples they see, trained
// as one.
#pragma once
#include <functional>
#include <vector>

#include <tutti/tutti.h>

#include "settings.h"

namespace digits {

/// One member: 64 pixels, one hidden layer, ten logits.
struct MlpImpl : tutti::nn::Module {
  explicit MlpImpl(std::int64_t hidden);
  tutti::Tensor forward(const tutti::Tensor& x);

  tutti::nn::Linear l1{nullptr}, l2{nullptr};
};
TUTTI_MODULE(Mlp);

/// M networks, each started from a seed of its own.
std::vector<Mlp> make_members(const Settings& s);

/// Batches [M, batch, 64] in which every member goes through its own bootstrap sample in its own
/// order.
tutti::data::DataLoader make_loader(const tutti::data::TensorDataset& train, const Settings& s);

/// All members at once: stacked parameters, one vmapped step, one optimizer.
class Ensemble {
 public:
  Ensemble(const std::vector<Mlp>& members, const Settings& s);
  Ensemble(const Ensemble&) = delete;  // the step refers to it
  /// One pass over the training data; every member's mean loss, [M].
  tutti::Tensor train_epoch(tutti::data::DataLoader& loader);
  /// Every member's class probabilities, [M, N, 10].
  tutti::Tensor probabilities(const tutti::Tensor& x) const;
  /// Stacked: "l1.weight" is [M, hidden, 64], and so on.
  const tutti::TensorDict& parameters() const { return params_; }

 private:
  Mlp model_;  // says how to compute; its own parameters are not used
  tutti::TensorDict params_;
  tutti::optim::Adam optimizer_;
  using Step = std::function<tutti::Tensor(const tutti::TensorDict& params, const tutti::Tensor& x,
                                           const tutti::Tensor& y)>;
  tutti::func::Compiled<Step> step_;  // gradients, Adam, and every member's loss
};

/// The same training as Ensemble's, one member after another; for comparing times.
class MemberLoop {
 public:
  MemberLoop(const std::vector<Mlp>& members, const Settings& s);
  void train_epoch(tutti::data::DataLoader& loader);
  const tutti::TensorDict& parameters(std::size_t member) const { return members_[member].params; }

 private:
  struct Member {
    tutti::TensorDict params;
    tutti::optim::Adam optimizer;
  };
  Mlp model_;
  std::vector<Member> members_;
};

}  // namespace digits
