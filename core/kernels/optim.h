// One step of an optimizer over many tensors at once: each kernel takes a list of chunks
// (parameter, gradient, state) and goes once over their memory, in blocks that threads share.
// Elementwise, so the members of a stacked parameter do not touch each other. T is float or double;
// arithmetic and its order are PyTorch's, but for division by Adam's bias correction, which is a
// multiplication.
#pragma once
#include <cstdint>
#include <span>

namespace tutti::kernels {

struct SgdArgs {
  double lr, momentum, dampening, weight_decay;
  bool nesterov;
};
template <class T>
struct SgdChunk {
  T* param;
  const T* grad;
  T* momentum;  // null without momentum
  std::int64_t size;
  bool first;  // the momentum buffer is not filled yet
  const SgdArgs* args;
};

struct AdamArgs {
  double lr, beta1, beta2, eps, weight_decay;
  bool decoupled;  // weight decay acts on the parameter (AdamW), not on the gradient
};
template <class T>
struct AdamChunk {
  T* param;
  const T* grad;
  T* exp_avg;
  T* exp_avg_sq;
  T* max_exp_avg_sq;  // null without amsgrad
  std::int64_t size;
  std::int64_t step;  // this step's number, from 1
  const AdamArgs* args;
};

struct RmspropArgs {
  double lr, alpha, eps, weight_decay, momentum;
};
template <class T>
struct RmspropChunk {
  T* param;
  const T* grad;
  T* square_avg;
  T* grad_avg;  // null unless centered
  T* momentum;  // null without momentum
  std::int64_t size;
  const RmspropArgs* args;
};

struct AdagradArgs {
  double lr, lr_decay, eps, weight_decay;
};
template <class T>
struct AdagradChunk {
  T* param;
  const T* grad;
  T* sum;
  std::int64_t size;
  std::int64_t step;
  const AdagradArgs* args;
};

template <class T>
void sgd(std::span<const SgdChunk<T>> chunks);
template <class T>
void adam(std::span<const AdamChunk<T>> chunks);
template <class T>
void rmsprop(std::span<const RmspropChunk<T>> chunks);
template <class T>
void adagrad(std::span<const AdagradChunk<T>> chunks);

}  // namespace tutti::kernels
