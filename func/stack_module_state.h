// stack_module_state: the parameters and buffers of many modules of one architecture as stacked
// tensors, one leading axis for the members, ready for vmap and an optimizer; and the way back.
#pragma once
#include <memory>
#include <vector>

#include <tutti/core/dict.h>
#include <tutti/nn/module.h>

namespace tutti::func {

/// What stack_module_state returns.
struct StackedState {
  TensorDict params, buffers;
};

namespace detail_ {
StackedState stack_module_state(const std::vector<nn::Module*>& models);
void unstack_module_state(const TensorDict& params, const TensorDict& buffers,
                          const std::vector<nn::Module*>& models);

template <class Models>
std::vector<nn::Module*> pointers(const Models& models) {
  std::vector<nn::Module*> r;
  for (const auto& m : models) {
    if constexpr (requires { m.get(); })
      r.push_back(m.get());  // a holder or a shared_ptr
    else
      r.push_back(m);
  }
  return r;
}
}  // namespace detail_

/// Stacks the models' parameters and buffers along a new first axis, as
/// torch.func.stack_module_state. Names and order are those of named_parameters() and
/// named_buffers(). The results are fresh leaves that share nothing with the models; a parameter
/// requires grad if every member's does. Checked, each error naming the member and the key: at
/// least one model; same names, shapes, dtypes, devices, requires_grad and ties between names; and
/// in every submodule the same class, train/eval mode and options, as far as it prints them.
/// `models`: a vector of holders, shared_ptrs or pointers.
template <class Models>
StackedState stack_module_state(const Models& models) {
  return detail_::stack_module_state(detail_::pointers(models));
}

/// Writes member i of the stacked tensors back into models[i], in place. Checks as
/// stack_module_state does.
template <class Models>
void unstack_module_state(const TensorDict& params, const TensorDict& buffers,
                          const Models& models) {
  detail_::unstack_module_state(params, buffers, detail_::pointers(models));
}

}  // namespace tutti::func
