// Stacking and unstacking module state, with the checks PyTorch leaves out.
#include <algorithm>
#include <sstream>
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
                      "\", which member 0 has; all members need the same names");
  for (const auto& [key, value] : other)
    check<ValueError>(first.contains(key), kOp, member(i), " has the ", what, " \"", key,
                      "\", which member 0 has not; all members need the same names");
}

void check_same_kind(const Tensor& first, const Tensor& other, std::size_t i,
                     const std::string& key) {
  check<ShapeError>(other.sizes() == first.sizes(), kOp, "\"", key, "\" of ", member(i),
                    " has shape ", other.sizes(), ", member 0 has ", first.sizes(),
                    "; stack members of one shape");
  check<TypeError>(other.dtype() == first.dtype(), kOp, "\"", key, "\" of ", member(i), " is ",
                   other.dtype(), ", member 0 has ", first.dtype(), "; convert with to()");
  check<DeviceError>(other.device() == first.device(), kOp, "\"", key, "\" of ", member(i),
                     " is on ", other.device(), ", member 0 on ", first.device(),
                     "; move with to()");
  check<ValueError>(other.requires_grad() == first.requires_grad(), kOp, "\"", key, "\" of ",
                    member(i), other.requires_grad() ? " requires grad" : " does not require grad",
                    ", unlike member 0; use the same "
                    "requires_grad in every member");
}

// Calls f(module of first, module of other, where) for every submodule that both have, by every
// path.
template <class F>
void walk_both(const nn::Module& first, const nn::Module& other, const std::string& where,
               std::vector<const nn::Module*>& above, const F& f) {
  if (std::find(above.begin(), above.end(), &first) != above.end()) return;  // contains itself
  above.push_back(&first);
  f(first, other, where);
  const auto others = other.named_children();
  for (const auto& [name, child] : first.named_children())
    if (others.contains(name))
      walk_both(*child, *others.at(name), where.empty() ? name : where + "." + name, above, f);
  above.pop_back();
}
template <class F>
void walk_both(const nn::Module& first, const nn::Module& other, const F& f) {
  std::vector<const nn::Module*> above;
  walk_both(first, other, "", above, f);
}

std::string at(const std::string& where) { return where.empty() ? "" : " at \"" + where + "\""; }

// Every submodule must be of one class and in one mode, since one forward runs for all members.
void check_same_modules(const nn::Module& first, const nn::Module& other, std::size_t i) {
  walk_both(first, other, [i](const nn::Module& m, const nn::Module& o, const std::string& where) {
    check<TypeError>(typeid(o) == typeid(m), kOp, member(i), " has a ", o.name(), at(where),
                     ", member 0 a ", m.name(), "; all members must be of the same class");
    check<ValueError>(o.is_training() == m.is_training(), kOp, member(i), " is in ",
                      o.is_training() ? "train" : "eval", " mode", at(where), ", member 0 in ",
                      m.is_training() ? "train" : "eval",
                      " mode; call train() or eval() on all of them");
  });
}

// "nn::Dropout(p=0.5)" -> "(p=0.5)": what a module prints of its options.
std::string options_of(const nn::Module& m) {
  std::ostringstream out;
  m.pretty_print(out);
  const std::string s = out.str();
  const std::string name = m.name();
  if (s.starts_with(name)) return s.substr(name.size());
  const std::size_t begin = s.find('(');
  return begin == s.npos ? "" : s.substr(begin);
}

void check_same_children(const nn::Module& m, const nn::Module& o, const std::string& has,
                         const std::string& has_not, const std::string& where) {
  const auto others = o.named_children();
  for (const auto& [name, child] : m.named_children())
    check<ValueError>(others.contains(name), kOp, has, " has the module \"",
                      where.empty() ? name : where + "." + name, "\", ", has_not,
                      " has not; one forward runs for all members, so give them the same modules");
}

// What the keys and shapes of the tensors do not show.
void check_same_structure(const nn::Module& first, const nn::Module& other, std::size_t i) {
  walk_both(first, other, [i](const nn::Module& m, const nn::Module& o, const std::string& where) {
    check_same_children(m, o, "member 0", member(i), where);
    check_same_children(o, m, member(i), "member 0", where);
    const std::string theirs = options_of(o), ours = options_of(m);
    check<ValueError>(theirs == ours, kOp, member(i), " has ", o.name(), theirs, at(where),
                      ", member 0 has ", m.name(), ours,
                      "; one forward runs for all members, so give them the same options");
  });
}

// A name that is another name of the same tensor in one member must be so in every member.
void check_same_ties(const nn::Module& first, const nn::Module& other, std::size_t i) {
  const auto a = first.slots(), b = other.slots();
  const auto tied_to = [](const nn::SlotTable& t, const std::string& name) {
    const auto at = static_cast<std::size_t>(t.names.find(name));
    const TensorImpl* target = t.entries[at].slot->target.impl();
    for (std::size_t k = 0; target && k < at; ++k)
      if (t.entries[k].slot->target.impl() == target) return t.entries[k].name;
    return std::string();
  };
  const auto words = [](const std::string& name) {
    return name.empty() ? "is a tensor of its own" : "is \"" + name + "\"";
  };
  for (const nn::SlotEntry& e : a->entries) {
    if (b->names.find(e.name) < 0) continue;  // a difference in keys says more
    const std::string theirs = tied_to(*b, e.name), ours = tied_to(*a, e.name);
    check<ValueError>(theirs == ours, kOp, "\"", e.name, "\" of ", member(i), " ", words(theirs),
                      ", that of member 0 ", words(ours), "; tie the same names in every member");
  }
}

void check_models(const std::vector<nn::Module*>& models) {
  check<ValueError>(!models.empty(), kOp,
                    "expected at least one model, got an empty list; check what fills it");
  for (std::size_t i = 0; i < models.size(); ++i) {
    check<ValueError>(models[i] != nullptr, kOp, member(i),
                      " is an empty handle; assign a module first");
    check_same_modules(*models[0], *models[i], i);
  }
}

void check_states(const std::vector<TensorDict>& states, const char* what) {
  for (std::size_t i = 1; i < states.size(); ++i) {
    check_same_keys(states[0], states[i], i, what);
    for (const auto& [key, value] : states[0]) check_same_kind(value, states[i].at(key), i, key);
  }
}

// Detached stacks, per key of member 0.
TensorDict stack_all(const std::vector<TensorDict>& states) {
  std::vector<Tensor> values;
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
                      what, " \"", key, "\", which ", member(i),
                      " has; give the state that was stacked");
    for (const auto& [key, value] : stacked) {
      check<KeyError>(states[i].contains(key), "unstack_module_state", member(i), " has no ", what,
                      " \"", key, "\"; give the state that was stacked");
      const Tensor& own = states[i].at(key);
      Shape expected = own.sizes().shape();
      expected.insert(expected.begin(), n);
      check<ShapeError>(value.sizes() == IntArrayRef(expected), "unstack_module_state", "\"", key,
                        "\" has shape ", value.sizes(), ", expected ", IntArrayRef(expected),
                        " for ", n, " members (", member(i),
                        "); give as many models as were stacked");
      check<TypeError>(value.dtype() == own.dtype(), "unstack_module_state", "\"", key, "\" is ",
                       value.dtype(), ", ", member(i), " has ", own.dtype(), "; convert with to()");
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
  check_states(params, "parameter");
  check_states(buffers, "buffer");
  for (std::size_t i = 1; i < models.size(); ++i) {
    check_same_ties(*models[0], *models[i], i);
    check_same_structure(*models[0], *models[i], i);
  }
  NoGradGuard guard;
  return {stack_all(params), stack_all(buffers)};
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
