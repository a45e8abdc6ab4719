// members_last: stacked tensors laid out for narrow networks.
#pragma once
#include <tutti/core/dict.h>

namespace tutti::func {

/// The same stacked state with members next to each other in memory: what stands at one place in
/// all members is one run of numbers, as with PyTorch's channels_last it is for channels. Shapes,
/// names and values stay, strides change; a parameter that requires grad gives a new leaf that
/// does. Give it to the optimizer instead of the state it was made of; the optimizer's state
/// follows.
///
///     auto [params, buffers] = func::stack_module_state(models);
///     params = func::members_last(params);
///
/// For networks with layers narrower than a vector of the processor, trained by a compiled step:
/// func::compile gives each lane of a vector a member of its own, and parameters and state that lie
/// like that need not be brought into this layout and back in each step. Everything else works on
/// them, too, but slower than on contiguous tensors; unstack_module_state and save() do not mind.
/// Tensors without a second axis stay as they are. DeviceError for tensors that are not on the
/// CPU, ShapeError for those without an axis of members.
TensorDict members_last(const TensorDict& stacked);
Tensor members_last(const Tensor& stacked);

}  // namespace tutti::func
