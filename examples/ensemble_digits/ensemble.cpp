// The ensemble: this file is what the example is about.
#include "ensemble.h"

#include <optional>

#include "digits.h"

namespace digits {

using namespace tutti;

MlpImpl::MlpImpl(std::int64_t hidden)
    : l1(register_module("l1", nn::Linear(kPixels, hidden))),
      l2(register_module("l2", nn::Linear(hidden, kClasses))) {}

Tensor MlpImpl::forward(const Tensor& x) { return l2->forward(l1->forward(x).relu()); }

std::vector<Mlp> make_members(const Settings& s) {
  std::vector<Mlp> members;
  for (std::int64_t m = 0; m < s.members; ++m) {
    manual_seed(s.seed * 1'000'003 + static_cast<std::uint64_t>(m));
    members.emplace_back(s.hidden);
  }
  return members;
}

data::DataLoader make_loader(const data::TensorDataset& train, const Settings& s) {
  return data::DataLoader(
      train, data::DataLoaderOptions(s.batch).members(s.members).bootstrap(true).shuffle(true).seed(
                 s.seed));
}

namespace {

optim::AdamOptions adam(const Settings& s) { return optim::AdamOptions(s.learning_rate); }

/// The loss of one member, as a function of its parameters.
auto loss_of(const Mlp& model) {
  return [model](const TensorDict& params, const Tensor& x, const Tensor& y) {
    return nn::functional::cross_entropy(func::functional_call(model, params, x), y);
  };
}

}  // namespace

Ensemble::Ensemble(const std::vector<Mlp>& members, const Settings& s)
    : model_(members.front()),
      params_(func::stack_module_state(members).params),
      optimizer_(params_, adam(s)),
      step_([this, chunk = s.chunk](const TensorDict& params, const Tensor& x, const Tensor& y) {
        const auto options =
            VmapOptions().chunk_size(chunk > 0 ? std::optional(chunk) : std::nullopt);
        auto [grads, losses] =
            func::vmap(func::grad_and_value(loss_of(model_)), 0, 0, options)(params, x, y);
        optimizer_.step(grads);
        return losses;
      }) {}

Tensor Ensemble::train_epoch(data::DataLoader& loader) {
  NoGradGuard no_grad;  // the gradients come from func::grad, not from backward()
  Tensor sum;
  for (auto& [x, y] : loader) {
    const Tensor losses = step_(params_, x, y) * x.size(1);  // the last batch may be smaller
    sum = sum.defined() ? sum + losses : losses;
  }
  return sum / loader.dataset().size();
}

Tensor Ensemble::probabilities(const Tensor& x) const {
  NoGradGuard no_grad;
  const auto predict = [this](const TensorDict& params, const Tensor& input) {
    return func::functional_call(model_, params, input).softmax(-1);
  };
  constexpr std::int64_t kAtOnce = 128;  // bounds the memory of very large ensembles
  return func::vmap(predict, {0, std::nullopt}, 0, VmapOptions().chunk_size(kAtOnce))(params_, x);
}

MemberLoop::MemberLoop(const std::vector<Mlp>& members, const Settings& s)
    : model_(members.front()) {
  for (const Mlp& member : members) {
    TensorDict params;
    for (const auto& [name, p] : member->named_parameters())
      params.insert(name, p.detach().clone().requires_grad_());
    members_.push_back({params, optim::Adam(params, adam(s))});
  }
}

void MemberLoop::train_epoch(data::DataLoader& loader) {
  NoGradGuard no_grad;
  const auto step = func::grad_and_value(loss_of(model_));
  for (auto& [x, y] : loader)
    for (std::size_t m = 0; m < members_.size(); ++m) {
      const auto at = static_cast<std::int64_t>(m);
      auto [grads, loss] = step(members_[m].params, x[at], y[at]);
      members_[m].optimizer.step(grads);
    }
}

}  // namespace digits
