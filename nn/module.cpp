// Module: registering, naming, copying and converting. See module.h.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <ostream>
#include <set>
#include <sstream>
#include <thread>

#include <cxxabi.h>

#include <tutti/autograd/autograd.h>
#include <tutti/core/interpreter.h>
#include <tutti/core/ops.h>
#include <tutti/nn/module.h>

namespace tutti::nn {
namespace {

bool is_slot(const Tensor& x) { return x.handle() && x.handle()->kind == TensorImpl::Kind::slot; }
Slot& slot_of(const Tensor& bound) { return static_cast<Slot&>(*bound.handle()); }
Ptr<Slot> slot_ptr(const Tensor& bound) { return Ptr<Slot>(&slot_of(bound)); }

Ptr<TensorImpl> new_slot(Tensor target) {
  auto slot = make_ref<Slot>();
  slot->target = std::move(target);
  return slot;
}

/// What the innermost functional_call in progress puts in the place of a slot; null if nothing.
const Tensor* substitute_for(const Slot& slot) {
  for (const SlotView* v = thread_state().views; v; v = v->outer)
    if (const Tensor* t = v->find(&slot)) return t;
  return nullptr;
}

bool in_transform() { return thread_state().current != nullptr; }

std::string join(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

std::string listed(const std::vector<std::string>& names) {
  std::string s;
  for (const std::string& n : names) s += (s.empty() ? "\"" : ", \"") + n + "\"";
  return s;
}

/// Every registration anywhere gets a larger number, so that a cache knows what it has not seen.
std::uint64_t next_change() {
  static std::atomic<std::uint64_t> n{0};
  return ++n;
}

/// The modules copied so far by a clone() and, as a view, the slots their members must follow.
struct CloneInProgress final : SlotView {
  std::map<const Module*, std::shared_ptr<Module>> modules;
  std::map<const TensorImpl*, Tensor> slots;    // old slot -> handle on the new one
  std::map<const TensorImpl*, Tensor> targets;  // old tensor -> its copy
  const Tensor* find(const TensorImpl* slot) const override {
    auto it = slots.find(slot);
    return it == slots.end() ? nullptr : &it->second;
  }
  std::unique_ptr<SlotView> copy() const override {
    return std::make_unique<CloneInProgress>(*this);
  }
};
thread_local CloneInProgress* cloning = nullptr;

Tensor copy_of(const Tensor& target, CloneInProgress& c) {
  if (!target.defined()) return {};
  auto [it, fresh] = c.targets.try_emplace(target.impl());
  if (fresh) {
    it->second = target.detach().clone();
    if (target.requires_grad()) it->second.requires_grad_();
  }
  return it->second;
}

}  // namespace

namespace detail {

std::string type_name(const std::type_info& type) {
  int status = 0;
  char* text = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  std::string s = status == 0 ? text : type.name();
  std::free(text);
  if (s.rfind("tutti::", 0) == 0) s.erase(0, 7);
  const std::string anonymous = "(anonymous namespace)::";
  for (std::size_t at; (at = s.find(anonymous)) != std::string::npos;)
    s.erase(at, anonymous.size());
  return s;
}

std::shared_ptr<Module> clone_of(const Module* m) {
  if (!cloning) return nullptr;
  auto it = cloning->modules.find(m);
  return it == cloning->modules.end() ? nullptr : it->second;
}

}  // namespace detail

// ---- Parameter and Buffer

Parameter::Parameter(const Tensor& data, bool requires_grad) : Tensor(data) {
  if (is_slot(data) || !data.defined()) return;
  p_ = data.detach().handle();
  if (requires_grad) requires_grad_();
}

namespace {
void check_replaceable(const Slot& slot) {
  check<TransformError>(
      !substitute_for(slot) && !in_transform(), "Parameter",
      "a module's parameter cannot be replaced inside functional_call or a transform; use copy_() "
      "to change its value, or pass another tensor in the state");
}
}  // namespace

Parameter& Parameter::operator=(const Parameter& o) {
  if (!is_slot(*this)) {
    Tensor::operator=(o);
    return *this;
  }
  check_replaceable(slot_of(*this));
  slot_of(*this).target = resolved(o);
  return *this;
}

Parameter& Parameter::operator=(Parameter&& o) {
  if (is_slot(*this) && !is_slot(o)) return *this = static_cast<const Parameter&>(o);
  p_ = std::move(o.p_);
  return *this;
}

Parameter& Parameter::operator=(const Tensor& o) {
  if (!is_slot(*this)) {
    Tensor::operator=(o);
    return *this;
  }
  check_replaceable(slot_of(*this));
  check<ValueError>(!o.defined() || o.is_leaf(), "Parameter",
                    "expected a leaf for a registered parameter, got a tensor with history; "
                    "detach() it first, or hold the result in a Tensor");
  const Tensor& old = slot_of(*this).target;
  const Parameter p(
      o, o.defined() && o.is_floating_point() && (!old.defined() || old.requires_grad()));
  return *this = p;
}

Buffer& Buffer::operator=(const Tensor& value) {
  if (!is_slot(*this)) {
    Tensor::operator=(value);
    return *this;
  }
  Slot& slot = slot_of(*this);
  const Tensor v = resolved(value);
  if (const Tensor* substitute = substitute_for(slot)) {
    check<ValueError>(substitute->defined() && v.defined(), "Buffer",
                      "expected a defined tensor on both sides of an assignment to a buffer inside "
                      "functional_call; give the buffer a tensor in the state");
    if (!substitute->is_same(v)) assign(*substitute, v);
    return *this;
  }
  check<TransformError>(
      !as_box(v), "Buffer",
      "a module's own buffer cannot take a value made inside a transform; pass the "
      "module's buffers through functional_call, so that the write goes to the "
      "tensor given there");
  slot.target = v;
  return *this;
}

Buffer& Buffer::operator=(Buffer&& value) {
  if (is_slot(*this) && !is_slot(value)) return *this = static_cast<const Tensor&>(value);
  p_ = std::move(value.p_);
  return *this;
}

// ---- making and registering

/// What slots() worked out last, and the newest registration it knew of.
struct Module::SlotCache {
  std::mutex mutex;
  std::shared_ptr<const SlotTable> table;
  std::uint64_t seen = 0;
};

Module::Module() : cache_(std::make_unique<SlotCache>()) { changed(); }
Module::Module(std::string name) : Module() { name_ = std::move(name); }
Module::~Module() = default;

// The handles copied here follow a clone() in progress, like those the derived class copies.
Module::Module(const Module& o)
    : std::enable_shared_from_this<Module>(o),
      name_(o.name_),
      training_(std::make_shared<bool>(*o.training_)),
      copy_(o.copy_),
      cache_(std::make_unique<SlotCache>()) {
  for (const auto& p : o.parameters_) parameters_.push_back(std::make_unique<ParameterEntry>(*p));
  for (const auto& b : o.buffers_) buffers_.push_back(std::make_unique<BufferEntry>(*b));
  for (const auto& [name, c] : o.children_) children_.emplace_back(name, detail::cloned(c));
  changed();
}

std::string Module::name() const {
  if (name_) return *name_;
  std::string s = detail::type_name(typeid(*this));
  if (s.size() > 4 && s.ends_with("Impl")) s.resize(s.size() - 4);
  return s;
}

void Module::changed() { last_change_ = next_change(); }

void Module::check_name(const std::string& name, const char* op) const {
  check<ValueError>(!name.empty(), op, "expected a name, got an empty one; state dicts need it");
  check<ValueError>(name.find('.') == std::string::npos, op,
                    "expected a name without a dot, got \"", name,
                    "\"; dots separate modules in state dicts");
  const auto named = [&](const auto& entry) { return entry->name == name; };
  const bool taken = std::any_of(parameters_.begin(), parameters_.end(), named) ||
                     std::any_of(buffers_.begin(), buffers_.end(), named) ||
                     std::any_of(children_.begin(), children_.end(),
                                 [&](const auto& c) { return c.first == name; });
  check<ValueError>(!taken, op, "the name \"", name, "\" is already registered in ", this->name(),
                    "; choose another one");
}

Parameter& Module::register_parameter(std::string name, Tensor tensor, bool requires_grad) {
  check_name(name, "register_parameter");
  Tensor target = resolved(tensor);
  if (target.defined() && !is_slot(tensor)) {
    check<ValueError>(!requires_grad || target.is_leaf(), "register_parameter", "expected \"", name,
                      "\" to be a leaf, got a tensor with history; detach() it first");
    if (target.requires_grad() != requires_grad) target.requires_grad_(requires_grad);
  }
  Parameter handle;
  static_cast<Tensor&>(handle) = Tensor(new_slot(std::move(target)));
  parameters_.push_back(
      std::make_unique<ParameterEntry>(ParameterEntry{std::move(name), std::move(handle)}));
  changed();
  return parameters_.back()->handle;
}

Parameter& Module::register_parameter(std::string name, const Parameter& parameter) {
  const bool requires_grad = parameter.defined() && parameter.requires_grad();
  return register_parameter(std::move(name), static_cast<const Tensor&>(parameter), requires_grad);
}

Buffer& Module::register_buffer(std::string name, Tensor tensor) {
  check_name(name, "register_buffer");
  Buffer handle;
  static_cast<Tensor&>(handle) = Tensor(new_slot(resolved(tensor)));
  buffers_.push_back(
      std::make_unique<BufferEntry>(BufferEntry{std::move(name), std::move(handle)}));
  changed();
  return buffers_.back()->handle;
}

void Module::add_child(std::string name, std::shared_ptr<Module> module) {
  check_name(name, "register_module");
  check<ValueError>(module != nullptr, "register_module", "expected a module for \"", name,
                    "\", got an empty handle; make one first");
  children_.emplace_back(std::move(name), std::move(module));
  changed();
}

void Module::replace_child(const std::string& name, std::shared_ptr<Module> module) {
  check<ValueError>(module != nullptr, "replace_module", "expected a module for \"", name,
                    "\", got an empty handle; make one first");
  for (auto& [n, c] : children_) {
    if (n != name) continue;
    c = std::move(module);
    return changed();
  }
  fail<KeyError>("replace_module", "no child \"", name, "\" in ", this->name(),
                 "; add it with register_module()");
}

void Module::unregister_module(const std::string& name) {
  const auto it = std::find_if(children_.begin(), children_.end(),
                               [&](const auto& c) { return c.first == name; });
  check<KeyError>(it != children_.end(), "unregister_module", "no child \"", name, "\" in ",
                  this->name(), "; named_children() lists them");
  children_.erase(it);
  changed();
}

std::shared_ptr<Module> Module::shared_self() const {
  auto* self = const_cast<Module*>(this);
  if (auto p = self->weak_from_this().lock()) return p;
  return std::shared_ptr<Module>(std::shared_ptr<Module>(),
                                 self);  // not owned by anybody's pointer
}

// ---- slots

std::uint64_t Module::newest_change(std::vector<const Module*>& path) const {
  std::uint64_t newest = last_change_;
  path.push_back(this);
  for (const auto& c : children_) {
    if (std::find(path.begin(), path.end(), c.second.get()) == path.end())
      newest = std::max(newest, c.second->newest_change(path));
  }
  path.pop_back();
  return newest;
}

void Module::collect(const std::string& prefix, std::vector<const Module*>& path,
                     SlotTable& out) const {
  const auto add = [&](const auto& entry, bool is_buffer) {
    std::string name = join(prefix, entry.name);
    out.names.push_back(name);
    out.entries.push_back({std::move(name), slot_ptr(entry.handle), is_buffer});
  };
  for (const auto& p : parameters_) add(*p, false);
  for (const auto& b : buffers_) add(*b, true);
  path.push_back(this);
  for (const auto& [name, c] : children_) {
    if (std::find(path.begin(), path.end(), c.get()) == path.end())
      c->collect(join(prefix, name), path, out);
  }
  path.pop_back();
}

std::shared_ptr<const SlotTable> Module::slots() const {
  std::vector<const Module*> path;
  const std::uint64_t newest = newest_change(path);
  std::lock_guard lock(cache_->mutex);
  if (!cache_->table || cache_->seen != newest) {
    auto table = std::make_shared<SlotTable>();
    collect("", path, *table);
    cache_->table = std::move(table);
    cache_->seen = newest;
  }
  return cache_->table;
}

// ---- listing

template <class F>
void Module::walk(const std::string& prefix, std::vector<const Module*>& seen, F&& f) const {
  if (std::find(seen.begin(), seen.end(), this) != seen.end()) return;
  seen.push_back(this);
  f(prefix, *this);
  for (const auto& [name, c] : children_) c->walk(join(prefix, name), seen, f);
}

TensorDict Module::named_tensors(bool buffers, bool recurse) const {
  TensorDict out;
  std::set<const TensorImpl*> listed;
  const auto add = [&](const std::string& prefix, const auto& entry) {
    Tensor t = resolved(entry.handle);
    if (t.defined() && listed.insert(t.impl()).second)
      out.insert(join(prefix, entry.name), std::move(t));
  };
  const auto add_all = [&](const std::string& prefix, const Module& m) {
    if (buffers) {
      for (const auto& b : m.buffers_) add(prefix, *b);
    } else {
      for (const auto& p : m.parameters_) add(prefix, *p);
    }
  };
  std::vector<const Module*> seen;
  if (recurse)
    walk("", seen, add_all);
  else
    add_all("", *this);
  return out;
}

TensorDict Module::named_parameters(bool recurse) const { return named_tensors(false, recurse); }
TensorDict Module::named_buffers(bool recurse) const { return named_tensors(true, recurse); }
std::vector<Tensor> Module::parameters(bool recurse) const {
  return named_parameters(recurse).values();
}
std::vector<Tensor> Module::buffers(bool recurse) const { return named_buffers(recurse).values(); }

Dict<std::shared_ptr<Module>> Module::named_modules(const std::string& prefix,
                                                    bool include_self) const {
  Dict<std::shared_ptr<Module>> out;
  std::vector<const Module*> seen;
  walk(prefix, seen, [&](const std::string& name, const Module& m) {
    if (&m != this || include_self) out.insert(name, m.shared_self());
  });
  return out;
}

std::vector<std::shared_ptr<Module>> Module::modules(bool include_self) const {
  return named_modules("", include_self).values();
}

Dict<std::shared_ptr<Module>> Module::named_children() const {
  Dict<std::shared_ptr<Module>> out;
  for (const auto& [name, c] : children_) out.insert(name, c);
  return out;
}

std::vector<std::shared_ptr<Module>> Module::children() const { return named_children().values(); }

void Module::apply(const std::function<void(Module&)>& f) {
  for (const auto& m : modules()) f(*m);
}

void Module::apply(const std::function<void(const std::string&, Module&)>& f,
                   const std::string& prefix) {
  for (auto [name, m] : named_modules(prefix)) f(name, *m);
}

// ---- modes and conversion

bool Module::is_training() const {
  if (HostLog* log = thread_state().host_log) [[unlikely]]
    log->guard([now = training_, on = *training_] { return *now == on; });
  return *training_;
}

void Module::train(bool on) {
  *training_ = on;
  for (const auto& c : children_) c.second->train(on);
}

void Module::convert(const TensorOptions& options) {
  check<TransformError>(!in_transform(), "to",
                        "a module cannot be converted inside a transform; call to() before it");
  check<TypeError>(!options.has_dtype() || is_floating(options.dtype()), "to",
                   "expected a floating dtype for a module, got ", options.dtype(),
                   "; integer buffers stay as they are");
  NoGradGuard guard;
  const auto converted = [&](const Tensor& t) {
    TensorOptions o = options.has_device() ? TensorOptions(options.device()) : TensorOptions();
    if (options.has_dtype() && t.is_floating_point()) o = o.dtype(options.dtype());
    return t.to(o);
  };
  std::set<TensorImpl*> done;
  for (const SlotEntry& e : slots()->entries) {
    const Tensor t = resolved(e.slot->target);
    if (!t.defined() || !done.insert(t.impl()).second) continue;
    const Tensor grad = t.grad();
    const Tensor now = converted(t.detach());
    TensorImpl &to = *t.impl(), &from = *now.impl();
    if (to.storage == from.storage && to.dtype == from.dtype && to.device == from.device) continue;
    // The same object gets other contents, so whoever holds it (an optimizer, say) sees them.
    to.dtype = from.dtype;
    to.device = from.device;
    to.sizes = from.sizes;
    to.strides = from.strides;
    to.offset = from.offset;
    to.storage = from.storage;
    to.is_view = false;
    ++to.writes;
    if (grad.defined()) t.mutable_grad() = converted(grad);
  }
}

void Module::to(Device device, DType dtype, bool) { convert(TensorOptions(device).dtype(dtype)); }
void Module::to(Device device, bool) { convert(device); }
void Module::to(DType dtype, bool) { convert(dtype); }

void Module::zero_grad(bool set_to_none) {
  NoGradGuard guard;
  for (const Tensor& p : parameters()) {
    if (!p.grad().defined()) continue;
    if (set_to_none)
      p.mutable_grad() = Tensor();
    else
      p.mutable_grad() = p.grad().detach().zero_();
  }
}

Module& Module::requires_grad_(bool on) {
  for (const Tensor& p : parameters())
    if (!on || p.is_floating_point()) p.requires_grad_(on);
  return *this;
}

// ---- state

TensorDict Module::state_dict() const {
  TensorDict out;
  for (const SlotEntry& e : slots()->entries) {
    const Tensor slot{Ptr<TensorImpl>(e.slot)};
    if (slot.defined()) out.insert(e.name, slot.detach());
  }
  return out;
}

IncompatibleKeys Module::load_state_dict(const TensorDict& state, bool strict) {
  IncompatibleKeys keys;
  std::vector<std::pair<Tensor, Tensor>> writes;
  std::string misfits;
  const auto table = slots();
  for (const SlotEntry& e : table->entries) {
    const Tensor to = resolved(Tensor(Ptr<TensorImpl>(e.slot)));
    if (!to.defined()) continue;
    if (!state.contains(e.name)) {
      keys.missing_keys.push_back(e.name);
      continue;
    }
    const Tensor& from = state.at(e.name);
    if (!from.defined()) {
      keys.missing_keys.push_back(e.name);
    } else if (from.sizes() != to.sizes()) {
      misfits += tutti::detail::str(misfits.empty() ? "" : ", ", "\"", e.name, "\" has shape ",
                                    to.sizes(), ", the given tensor ", from.sizes());
    } else {
      writes.emplace_back(to, from);
    }
  }
  for (const auto& [name, t] : state) {
    const std::int64_t i = table->names.find(name);
    if (i < 0 ||
        (t.defined() && !table->entries[static_cast<std::size_t>(i)].slot->target.defined()))
      keys.unexpected_keys.push_back(name);
  }
  if (strict && !(keys.missing_keys.empty() && keys.unexpected_keys.empty())) {
    fail<KeyError>("load_state_dict", "expected the names of ", name(), ", got",
                   keys.missing_keys.empty() ? "" : " none for ", listed(keys.missing_keys),
                   keys.missing_keys.empty() || keys.unexpected_keys.empty() ? "" : ", and",
                   keys.unexpected_keys.empty() ? "" : " unexpected ", listed(keys.unexpected_keys),
                   "; pass strict = false to load what matches");
  }
  check<ShapeError>(misfits.empty(), "load_state_dict", misfits,
                    "; load it into a module made with the same options");
  NoGradGuard guard;
  for (const auto& [to, from] : writes) to.copy_(from);
  return keys;
}

// ---- copying

std::shared_ptr<Module> Module::clone(const std::optional<Device>& device) const {
  if (!cloning) {
    CloneInProgress here;
    UseView view(here);
    struct Restore {
      ~Restore() { cloning = nullptr; }
    } restore;
    cloning = &here;
    NoGradGuard guard;
    std::shared_ptr<Module> copy = clone();
    if (device) copy->to(*device);
    return copy;
  }
  CloneInProgress& c = *cloning;
  const auto [known, fresh] = c.modules.try_emplace(this, nullptr);
  if (!fresh) {
    check<ValueError>(known->second != nullptr, "clone", name(), " contains itself");
    return known->second;
  }
  std::vector<long> owners;
  for (const auto& child : children_) {
    if (!detail::clone_of(child.second.get())) {
      std::shared_ptr<Module> copy = child.second->clone();
      c.modules[child.second.get()] = std::move(copy);
    }
    owners.push_back(child.second.use_count());
  }
  const auto follow = [&](const Tensor& handle) {
    const Slot& slot = slot_of(handle);
    if (!c.slots.contains(&slot)) c.slots.emplace(&slot, Tensor(new_slot(copy_of(slot.target, c))));
  };
  for (const auto& p : parameters_) follow(p->handle);
  for (const auto& b : buffers_) follow(b->handle);

  std::shared_ptr<Module> copy = copy_ ? copy_(*this) : nullptr;
  check<NotImplementedError>(copy != nullptr, "clone", "don't know how to copy a ", name(),
                             "; derive it from nn::Cloneable<", name(),
                             "Impl>, or make it through a TUTTI_MODULE handle, and give it a copy "
                             "constructor, or override clone()");
  // A member of type shared_ptr cannot be led to the copied child. Other threads may hold a child
  // for a moment, so look more than once.
  for (std::size_t i = 0; i < children_.size(); ++i) {
    for (int tries = 0; children_[i].second.use_count() > owners[i]; ++tries) {
      check<NotImplementedError>(
          tries < 100, "clone", "the child \"", children_[i].first, "\" of ", name(),
          " is kept in a shared_ptr, which the copy would share with "
          "the original; keep it in a TUTTI_MODULE handle or override clone()");
      std::this_thread::yield();
    }
  }
  c.modules[this] = copy;
  return copy;
}

// ---- printing

void Module::pretty_print(std::ostream& out) const { out << name(); }

namespace {

void print(std::ostream& out, const Module& m, const std::string& indent) {
  m.pretty_print(out);
  const auto children = m.named_children();
  if (children.empty()) return;
  out << "(\n";
  for (auto [name, child] : children) {
    out << indent << "  (" << name << "): ";
    print(out, *child, indent + "  ");
    out << "\n";
  }
  out << indent << ")";
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Module& module) {
  print(out, module, "");
  return out;
}

}  // namespace tutti::nn
