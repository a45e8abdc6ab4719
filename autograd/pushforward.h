// Pushforward: a recorded function's derivative run forward. The graph of a Grad, which backward()
// walks from the outputs down, is walked from the arguments up by the jvp rules of the same nodes.
#pragma once
#include <vector>

#include <tutti/autograd/node.h>

namespace tutti {

class Pushforward {
 public:
  /// Pushes from `leaves` to `roots`; keeps the nodes alive.
  Pushforward(std::vector<Edge> roots, std::vector<Edge> leaves);
  /// One tangent per leaf in (undefined: zero), one per root out (undefined: zero). Rules run under
  /// whatever interpreter is current, so a pushforward can be transformed.
  std::vector<Tensor> operator()(const std::vector<Tensor>& tangents) const;

 private:
  static constexpr std::size_t none = ~std::size_t{0};
  struct Step {
    const Node* node;
    SmallVec<std::size_t, 2> from;  // per input: the step it comes from, or none
    std::size_t readers = 0;        // later steps and roots that read this one
  };
  std::vector<Step> steps_;  // an input always before what is made of it
  std::vector<Edge> roots_;
  std::vector<std::size_t> root_steps_, leaf_steps_;
};

}  // namespace tutti
