// One step of an optimizer over many tensors at once: each kernel takes a list of chunks
// (parameter, gradient, state) and goes once over their memory, in blocks that threads share.
// Elementwise, so the members of a stacked parameter do not touch each other. T is float or double;
// arithmetic and its order are PyTorch's, but for division by Adam's bias correction, which is a
// multiplication.
// On the CPU the elements may also lie in lines with gaps between them.
//
// The numbers of a step (learning rate and so on) are rows of doubles: one row for all members, or
// one for each. The constants of the kernels are made of them, on the CPU for both devices.
#pragma once
#include <cstdint>
#include <span>

#include <tutti/core/kernels/per_isa.h>
#include <tutti/core/kernels/pieces.h>

namespace tutti::kernels {

/// Where the numbers for an element are.
template <class Numbers>
struct Rows {
  const Numbers* rows;
  std::int64_t each = 0;  // elements of a member, which has a row of its own; 0: rows[0] for all
};

/// How a step on the CPU reaches its elements: contiguous, or, for numbers that members share only,
/// lines of `width` elements, `pitch` apart in parameter and state and grad_pitch in the gradient.
struct Access {
  std::int64_t width = 0, pitch = 0, grad_pitch = 0;
  const PieceMaker* grad = nullptr;  // of lines: makes the gradient, which the one chunk has not
  bool far = false;  // parameters and state have left the caches since the last step
};

struct SgdNumbers {
  double lr, momentum, dampening, weight_decay;
};
template <class T>
struct SgdConstants {
  T lr, decay, momentum, fresh;
  bool decays, remembers;
  SgdConstants() = default;
  TUTTI_INLINE explicit SgdConstants(const SgdNumbers& n)
      : lr(static_cast<T>(-n.lr)),
        decay(static_cast<T>(n.weight_decay)),
        momentum(static_cast<T>(n.momentum)),
        fresh(static_cast<T>(1 - n.dampening)),
        decays(n.weight_decay != 0),
        remembers(n.momentum != 0) {}
};
/// A member without momentum leaves its part of the buffer alone.
template <class T>
struct SgdChunk {
  T* param;
  const T* grad;
  T* momentum;  // null if no member has momentum
  std::int64_t size;
  bool first;  // the momentum buffer is not filled yet
  bool nesterov;
  Rows<SgdNumbers> numbers;
};

/// Of one step: they include Adam's bias corrections.
struct AdamNumbers {
  double step_size;   // to subtract
  double root_scale;  // of the root of exp_avg_sq
  double beta1, beta2, eps;
  double weight_decay;  // added to the gradient
  double keep;          // factor of the parameter (AdamW's weight decay)
};
/// Those of step number `step`, from 1.
class AdamStep {
 public:
  AdamStep(std::int64_t step, bool decoupled)
      : step_(static_cast<double>(step)), decoupled_(decoupled) {}
  /// `decoupled`: weight decay acts on the parameter (AdamW), not on the gradient.
  AdamNumbers operator()(double lr, double beta1, double beta2, double eps, double weight_decay);

 private:
  struct Correction {  // 1 - beta^step, of the beta it was last asked for
    double beta = 0, value = 1;
  };
  double correction(Correction& known, double beta) const;
  double step_;
  bool decoupled_;
  Correction first_, second_;
};
template <class T>
struct AdamConstants {
  T step_size, root_scale, fresh1, beta2, fresh2, eps, decay, keep;
  bool shrinks, decays;
  AdamConstants() = default;
  TUTTI_INLINE explicit AdamConstants(const AdamNumbers& n)
      : step_size(static_cast<T>(-n.step_size)),
        root_scale(static_cast<T>(n.root_scale)),
        fresh1(static_cast<T>(1 - n.beta1)),
        beta2(static_cast<T>(n.beta2)),
        fresh2(static_cast<T>(1 - n.beta2)),
        eps(static_cast<T>(n.eps)),
        decay(static_cast<T>(n.weight_decay)),
        keep(static_cast<T>(n.keep)),
        shrinks(n.keep != 1),
        decays(n.weight_decay != 0) {}
};
template <class T>
struct AdamChunk {
  T* param;
  const T* grad;
  T* exp_avg;
  T* exp_avg_sq;
  T* max_exp_avg_sq;  // null without amsgrad
  std::int64_t size;
  Rows<AdamNumbers> numbers;
};

struct RmspropNumbers {
  double lr, alpha, eps, weight_decay, momentum;
};
template <class T>
struct RmspropConstants {
  T lr, alpha, fresh, eps, decay, momentum;
  bool decays, remembers;
  RmspropConstants() = default;
  TUTTI_INLINE explicit RmspropConstants(const RmspropNumbers& n)
      : lr(static_cast<T>(-n.lr)),
        alpha(static_cast<T>(n.alpha)),
        fresh(static_cast<T>(1 - n.alpha)),
        eps(static_cast<T>(n.eps)),
        decay(static_cast<T>(n.weight_decay)),
        momentum(static_cast<T>(n.momentum)),
        decays(n.weight_decay != 0),
        remembers(n.momentum != 0) {}
};
/// A member without momentum leaves its part of the buffer alone.
template <class T>
struct RmspropChunk {
  T* param;
  const T* grad;
  T* square_avg;
  T* grad_avg;  // null unless centered
  T* momentum;  // null if no member has momentum
  std::int64_t size;
  Rows<RmspropNumbers> numbers;
};

struct AdagradNumbers {
  double lr, eps, weight_decay;  // lr as it has decayed until now
};
template <class T>
struct AdagradConstants {
  T lr, eps, decay;
  bool decays;
  AdagradConstants() = default;
  TUTTI_INLINE explicit AdagradConstants(const AdagradNumbers& n)
      : lr(static_cast<T>(-n.lr)),
        eps(static_cast<T>(n.eps)),
        decay(static_cast<T>(n.weight_decay)),
        decays(n.weight_decay != 0) {}
};
template <class T>
struct AdagradChunk {
  T* param;
  const T* grad;
  T* sum;
  std::int64_t size;
  Rows<AdagradNumbers> numbers;
};

template <class T>
void sgd(std::span<const SgdChunk<T>> chunks, const Access& access = {});
template <class T>
void adam(std::span<const AdamChunk<T>> chunks, const Access& access = {});
template <class T>
void rmsprop(std::span<const RmspropChunk<T>> chunks, const Access& access = {});
template <class T>
void adagrad(std::span<const AdagradChunk<T>> chunks, const Access& access = {});

}  // namespace tutti::kernels
