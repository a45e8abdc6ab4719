// Stacking and unstacking module state, with the checks PyTorch leaves out.
#include <typeinfo>

#include <tutti/autograd/grad_mode.h>
#include <tutti/core/interpreter.h>
#include <tutti/core/ops.h>
#include <tutti/func/stack_module_state.h>

namespace tutti::func::detail_ {

namespace {

constexpr const char* kOp = "stack_module_state";

std::string member(std::size_t i) { return "member " + std::to_string(i); }

void check_same_keys(const TensorDict& first, const TensorDict& other, std::size_t i,
                     const char* what) {
  for (const auto& [key, value] : first)
    check<ValueError>(other.contains(key), kOp, member(i), " has no ", what, " \"", key,
                      "\", which member 0 has");
  for (const auto& [key, value] : other)
    check<ValueError>(first.contains(key), kOp, member(i), " has the ", what, " \"", key,
                      "\", which member 0 has not");
}

void check_same_kind(const Tensor& first, const Tensor& other, std::size_t i,
                     const std::string& key) {
  check<ShapeError>(other.sizes() == first.sizes(), kOp, "\"", key, "\" of ", member(i),
                    " has shape ", other.sizes(), ", member 0 has ", first.sizes());
  check<TypeError>(other.dtype() == first.dtype(), kOp, "\"", key, "\" of ", member(i), " is ",
                   other.dtype(), ", member 0 has ", first.dtype());
  check<DeviceError>(other.device() == first.device(), kOp, "\"", key, "\" of ", member(i),
                     " is on ", other.device(), ", member 0 on ", first.device());
  check<ValueError>(other.requires_grad() == first.requires_grad(), kOp, "\"", key, "\" of ",
                    member(i), other.requires_grad() ? " requires grad" : " does not require grad",
                    ", unlike member 0; use the same "
                    "requires_grad in every member");
}

// Every submodule must be in one mode, since one forward runs for all members.
void check_same_modes(const nn::Module& first, const nn::Module& other, std::size_t i) {
  auto a = first.named_modules(), b = other.named_modules();
  for (const auto& [name, m] : a) {
    if (!b.contains(name))
      continue;  // a difference in structure shows in the keys, or does not matter
    check<ValueError>(m->is_training() == b.at(name)->is_training(), kOp, member(i), " is in ",
                      b.at(name)->is_training() ? "train" : "eval", " mode",
                      name.empty() ? "" : " at \"", name, name.empty() ? "" : "\"",
                      ", member 0 in ", m->is_training() ? "train" : "eval",
                      " mode; call train() or eval() on all of them");
  }
}

void check_models(const std::vector<nn::Module*>& models) {
  check<ValueError>(!models.empty(), kOp, "expected at least one model, got an empty list");
  for (std::size_t i = 0; i < models.size(); ++i) {
    check<ValueError>(models[i] != nullptr, kOp, member(i), " is an empty handle");
    const nn::Module &first = *models[0], &other = *models[i];
    check<TypeError>(typeid(other) == typeid(first), kOp, member(i), " is a ", other.name(),
                     ", member 0 a ", first.name(), "; all models must be of the same class");
    check_same_modes(first, other, i);
  }
}

// Detached stacks, per key of member 0.
TensorDict stack_all(const std::vector<TensorDict>& states, const char* what) {
  std::vector<Tensor> values;
  for (std::size_t i = 1; i < states.size(); ++i) {
    check_same_keys(states[0], states[i], i, what);
    for (const auto& [key, value] : states[0]) check_same_kind(value, states[i].at(key), i, key);
  }
  for (const auto& [key, value] : states[0]) {
    std::vector<Tensor> parts;
    for (const TensorDict& s : states) parts.push_back(s.at(key).detach());
    const bool needs_grad = value.requires_grad();
    values.push_back(stack(parts));
    if (needs_grad) values.back().requires_grad_();
  }
  return TensorDict::with_keys_of(states[0], std::move(values));
}

void check_stacked(const TensorDict& stacked, const std::vector<TensorDict>& states,
                   const char* what) {
  const std::int64_t n = static_cast<std::int64_t>(states.size());
  for (std::size_t i = 0; i < states.size(); ++i) {
    for (const auto& [key, value] : states[i])
      check<KeyError>(stacked.contains(key), "unstack_module_state", "the stacked state has no ",
                      what, " \"", key, "\", which ", member(i), " has");
    for (const auto& [key, value] : stacked) {
      check<KeyError>(states[i].contains(key), "unstack_module_state", member(i), " has no ", what,
                      " \"", key, "\"");
      const Tensor& own = states[i].at(key);
      Shape expected = own.sizes().shape();
      expected.insert(expected.begin(), n);
      check<ShapeError>(value.sizes() == IntArrayRef(expected), "unstack_module_state", "\"", key,
                        "\" has shape ", value.sizes(), ", expected ", IntArrayRef(expected),
                        " for ", n, " members (", member(i), ")");
      check<TypeError>(value.dtype() == own.dtype(), "unstack_module_state", "\"", key, "\" is ",
                       value.dtype(), ", ", member(i), " has ", own.dtype());
    }
  }
}

void unstack_all(const TensorDict& stacked, const std::vector<TensorDict>& states) {
  for (std::size_t i = 0; i < states.size(); ++i)
    for (const auto& [key, value] : stacked)
      tutti::assign(states[i].at(key), select(value, 0, static_cast<std::int64_t>(i)).detach());
}

}  // namespace

StackedState stack_module_state(const std::vector<nn::Module*>& models) {
  check_models(models);
  std::vector<TensorDict> params, buffers;
  for (const nn::Module* m : models) {
    params.push_back(m->named_parameters());
    buffers.push_back(m->named_buffers());
  }
  NoGradGuard guard;
  return {stack_all(params, "parameter"), stack_all(buffers, "buffer")};
}

void unstack_module_state(const TensorDict& params, const TensorDict& buffers,
                          const std::vector<nn::Module*>& models) {
  check_models(models);
  std::vector<TensorDict> own_params, own_buffers;
  for (const nn::Module* m : models) {
    own_params.push_back(m->named_parameters());
    own_buffers.push_back(m->named_buffers());
  }
  check_stacked(params, own_params, "parameter");
  check_stacked(buffers, own_buffers, "buffer");
  NoGradGuard guard;
  unstack_all(params, own_params);
  unstack_all(buffers, own_buffers);
}

}  // namespace tutti::func::detail_
