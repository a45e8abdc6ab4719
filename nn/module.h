// Module: the base of everything with parameters. A module keeps three ordered lists: parameters,
// buffers and child modules. A parameter or buffer is a *slot*: a small handle that points to the
// real tensor (its target), so that functional_call can put another tensor in its place for the
// length of a call, and to() or load_state_dict() can change the target while members, optimizers
// and state dicts that refer to it stay valid.
//
//   struct NetImpl : nn::Module {
//     NetImpl() { fc = register_module("fc", nn::Linear(4, 2)); scale = register_parameter("scale",
//     ones({2})); } Tensor forward(Tensor x) { return fc(x) * scale; } nn::Linear fc{nullptr};
//     nn::Parameter scale;
//   };
//   TUTTI_MODULE(Net);
//
// Registering is not thread-safe; using a module from several threads is, as long as none writes.
#pragma once
#include <concepts>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include <tutti/core/dict.h>
#include <tutti/core/options.h>
#include <tutti/core/tensor.h>

namespace tutti {
struct Slot;
}

namespace tutti::nn {

class Module;
template <class Contained>
class ModuleHolder;

/// A tensor to be trained. `Parameter(t)` is a leaf on t's memory, as torch.nn.Parameter; one that
/// register_parameter returned is *bound*: it follows its slot.
class Parameter : public Tensor {
 public:
  Parameter() = default;
  Parameter(const Tensor& data, bool requires_grad = true);
  Parameter(const Parameter&) = default;
  Parameter(Parameter&&) noexcept = default;
  /// Bound: ties the slot to o's tensor (named_parameters() then lists it once). Unbound: takes the
  /// handle.
  Parameter& operator=(const Parameter& o);
  Parameter& operator=(Parameter&& o);
  /// Bound: the module's parameter becomes Parameter(o), or "none" if o is undefined; ValueError if
  /// o has history. Unbound: takes the handle.
  Parameter& operator=(const Tensor& o);
  ~Parameter() = default;
};

/// A tensor that belongs to a module's state but is not trained.
class Buffer : public Tensor {
 public:
  Buffer() = default;
  Buffer(const Tensor& data) : Tensor(data) {}
  Buffer(const Buffer&) = default;
  Buffer(Buffer&&) noexcept = default;
  /// Bound (made by register_buffer): the module's buffer becomes `value`; inside functional_call
  /// the value is written to the tensor that was passed in. Unbound: takes the handle.
  Buffer& operator=(const Tensor& value);
  Buffer& operator=(const Buffer& value) { return *this = static_cast<const Tensor&>(value); }
  Buffer& operator=(Buffer&& value);
  ~Buffer() = default;
};

/// A registered tensor below a module: its dotted name and its slot.
struct SlotEntry {
  std::string name;
  Ptr<Slot> slot;
  bool is_buffer;
};
/// All registered tensors below a module, by every path; names has the same order.
struct SlotTable {
  std::vector<SlotEntry> entries;
  KeyTable names;
};

/// What load_state_dict did not match.
struct IncompatibleKeys {
  std::vector<std::string> missing_keys, unexpected_keys;
};

namespace detail {
/// A type's name as in source, without tutti:: and anonymous namespaces.
std::string type_name(const std::type_info& type);
/// The copy of `m` made by the clone() in progress on this thread; null if there is none.
std::shared_ptr<Module> clone_of(const Module* m);

/// A handle on what `p` was cloned to while clone() copies a module's members; otherwise p.
template <class M>
std::shared_ptr<M> cloned(const std::shared_ptr<M>& p) {
  if (auto copy = p ? clone_of(p.get()) : nullptr) return std::dynamic_pointer_cast<M>(copy);
  return p;
}
}  // namespace detail

/// Base of all modules, as torch::nn::Module.
class Module : public std::enable_shared_from_this<Module> {
 public:
  Module();
  explicit Module(std::string name);
  /// Shares parameters, buffers and children with `o`; use clone() for an independent copy.
  Module(const Module& o);
  Module& operator=(const Module&) = delete;
  virtual ~Module();

  /// The name given to the constructor, else the class name without "Impl".
  std::string name() const;

  /// Makes `tensor` a parameter and returns a handle on its slot. An undefined tensor means "none";
  /// a tensor that is a parameter already becomes tied. ValueError for a name that is empty, has a
  /// dot or is taken.
  Parameter& register_parameter(std::string name, Tensor tensor, bool requires_grad = true);
  Parameter& register_parameter(std::string name, const Parameter& parameter);
  /// Makes `tensor` a buffer and returns a handle on its slot.
  Buffer& register_buffer(std::string name, Tensor tensor);
  /// Adds a child and returns it.
  template <class M>
  std::shared_ptr<M> register_module(std::string name, std::shared_ptr<M> module) {
    remember_type(module.get());
    add_child(std::move(name), module);
    return module;
  }
  template <class M>
  std::shared_ptr<M> register_module(std::string name, const ModuleHolder<M>& holder) {
    return register_module(std::move(name), holder.ptr());
  }
  /// Puts another child in the place of `name`.
  template <class M>
  std::shared_ptr<M> replace_module(const std::string& name, std::shared_ptr<M> module) {
    remember_type(module.get());
    replace_child(name, module);
    return module;
  }
  template <class M>
  std::shared_ptr<M> replace_module(const std::string& name, const ModuleHolder<M>& holder) {
    return replace_module(name, holder.ptr());
  }
  /// Removes a child; KeyError if there is none of that name.
  void unregister_module(const std::string& name);

  /// Parameters with dotted names, own before children's, each tensor once.
  TensorDict named_parameters(bool recurse = true) const;
  std::vector<Tensor> parameters(bool recurse = true) const;
  TensorDict named_buffers(bool recurse = true) const;
  std::vector<Tensor> buffers(bool recurse = true) const;
  /// This module (named `prefix`) and all below it, each once, parents first.
  Dict<std::shared_ptr<Module>> named_modules(const std::string& prefix = {},
                                              bool include_self = true) const;
  std::vector<std::shared_ptr<Module>> modules(bool include_self = true) const;
  Dict<std::shared_ptr<Module>> named_children() const;
  std::vector<std::shared_ptr<Module>> children() const;

  /// Calls f on this module and everything below it, parents first.
  void apply(const std::function<void(Module&)>& f);
  void apply(const std::function<void(const std::string&, Module&)>& f,
             const std::string& prefix = {});

  /// Switches dropout, batch norm and the like, in all modules below too.
  virtual void train(bool on = true);
  void eval() { train(false); }
  bool is_training() const;

  /// Casts floating parameters and buffers (and gradients), or moves all of them. The tensor
  /// objects stay the same, so optimizers built before stay valid; views made before keep the old
  /// data.
  virtual void to(Device device, DType dtype, bool non_blocking = false);
  virtual void to(Device device, bool non_blocking = false);
  void to(DeviceType device) { to(Device(device)); }
  virtual void to(DType dtype, bool non_blocking = false);

  /// Drops the gradients of all parameters, or fills them with zeros.
  virtual void zero_grad(bool set_to_none = true);
  Module& requires_grad_(bool on = true);

  /// Detached aliases of all parameters and buffers by dotted name, in PyTorch's order.
  TensorDict state_dict() const;
  /// Copies values into the parameters and buffers in place. Strict: KeyError lists the names that
  /// are missing and unexpected. ShapeError names what does not fit; then nothing is written.
  IncompatibleKeys load_state_dict(const TensorDict& state, bool strict = true);

  /// An independent copy: new tensors, the same tying and sharing inside. Works for modules made by
  /// a holder or register_module, and for classes derived from Cloneable.
  virtual std::shared_ptr<Module> clone(const std::optional<Device>& device = std::nullopt) const;

  /// Writes the module's own line, without its children.
  virtual void pretty_print(std::ostream& out) const;

  /// This module as a layer type: module->as<nn::Linear>() or as<nn::LinearImpl>(); null if it is
  /// not.
  template <class M>
  auto* as() noexcept {
    if constexpr (requires { typename M::ContainedType; })
      return dynamic_cast<typename M::ContainedType*>(this);
    else
      return dynamic_cast<M*>(this);
  }
  template <class M>
  auto* as() const noexcept {
    if constexpr (requires { typename M::ContainedType; })
      return dynamic_cast<const typename M::ContainedType*>(this);
    else
      return dynamic_cast<const M*>(this);
  }

  /// All registered tensors below, duplicates and "none" included. The same object comes back until
  /// something is registered here or below. Thread-safe.
  std::shared_ptr<const SlotTable> slots() const;

  /// Lets clone() copy this object as an M if that is what it is.
  template <class M>
  static void remember_type(M* m) {
    if constexpr (std::is_copy_constructible_v<M> && !std::is_same_v<M, Module>) {
      if (m && typeid(*m) == typeid(M))
        static_cast<Module*>(m)->copy_ = [](const Module& from) -> std::shared_ptr<Module> {
          return std::make_shared<M>(static_cast<const M&>(from));
        };
    }
  }

 protected:
  std::shared_ptr<Module> shared_self() const;

 private:
  struct ParameterEntry {
    std::string name;
    Parameter handle;
  };
  struct BufferEntry {
    std::string name;
    Buffer handle;
  };
  using Copy = std::shared_ptr<Module> (*)(const Module&);
  template <class Derived>
  friend class Cloneable;

  void check_name(const std::string& name, const char* op) const;
  void add_child(std::string name, std::shared_ptr<Module> module);
  void replace_child(const std::string& name, std::shared_ptr<Module> module);
  void changed();
  std::uint64_t newest_change(std::vector<const Module*>& path) const;
  void collect(const std::string& prefix, std::vector<const Module*>& path, SlotTable& out) const;
  template <class F>
  void walk(const std::string& prefix, std::vector<const Module*>& seen, F&& f) const;
  void convert(const TensorOptions& options);
  TensorDict named_tensors(bool buffers, bool recurse) const;

  std::optional<std::string> name_;
  // One allocation per entry: references to the handles stay valid while others are added.
  std::vector<std::unique_ptr<ParameterEntry>> parameters_;
  std::vector<std::unique_ptr<BufferEntry>> buffers_;
  std::vector<std::pair<std::string, std::shared_ptr<Module>>> children_;
  std::shared_ptr<bool> training_ = std::make_shared<bool>(true);  // recordings look at it, too
  Copy copy_ = nullptr;
  std::uint64_t last_change_ = 0;
  struct SlotCache;
  std::unique_ptr<SlotCache> cache_;
};

/// Prints the module and its children as PyTorch does.
std::ostream& operator<<(std::ostream& out, const Module& module);

/// Base of module classes that can be cloned however they were made, as torch::nn::Cloneable.
template <class Derived>
class Cloneable : public Module {
 public:
  Cloneable() : Cloneable(nullptr) {}
  explicit Cloneable(std::string name) : Module(std::move(name)) { allow(); }
  /// (Re-)initialises the parameters; layers call it from their constructors.
  virtual void reset() {}

 private:
  explicit Cloneable(std::nullptr_t) { allow(); }
  void allow() {
    copy_ = [](const Module& from) -> std::shared_ptr<Module> {
      if constexpr (std::is_copy_constructible_v<Derived>) {
        if (typeid(from) == typeid(Derived))
          return std::make_shared<Derived>(static_cast<const Derived&>(from));
      }
      return nullptr;
    };
  }
};

/// A shared handle on a module class, so that modules read like values: `Linear fc(3, 4); fc(x)`.
template <class Contained>
class ModuleHolder {
 public:
  using ContainedType = Contained;

  ModuleHolder() : impl_(std::make_shared<Contained>()) { Module::remember_type(impl_.get()); }
  /// An empty handle; assign a module before use.
  ModuleHolder(std::nullptr_t) {}
  ModuleHolder(std::shared_ptr<Contained> module) : impl_(std::move(module)) {}
  /// Constructs the module from the arguments.
  template <class Head, class... Tail>
  requires(!(sizeof...(Tail) == 0 &&
             (std::is_base_of_v<ModuleHolder, std::remove_cvref_t<Head>> ||
              std::is_convertible_v<
                  Head, std::shared_ptr<Contained>>))) explicit ModuleHolder(Head&& head,
                                                                             Tail&&... tail)
      : impl_(std::make_shared<Contained>(std::forward<Head>(head), std::forward<Tail>(tail)...)) {
    Module::remember_type(impl_.get());
  }
  ModuleHolder(const ModuleHolder& o) : impl_(detail::cloned(o.impl_)) {}
  ModuleHolder(ModuleHolder&&) noexcept = default;
  ModuleHolder& operator=(const ModuleHolder&) = default;
  ModuleHolder& operator=(ModuleHolder&&) noexcept = default;

  bool is_empty() const noexcept { return impl_ == nullptr; }
  explicit operator bool() const noexcept { return !is_empty(); }
  Contained* operator->() const { return get(); }
  Contained& operator*() const { return *get(); }
  /// ValueError if empty.
  Contained* get() const {
    check<ValueError>(impl_ != nullptr, "ModuleHolder",
                      "expected a module, got an empty handle; assign one first");
    return impl_.get();
  }
  /// The shared_ptr behind the handle. ValueError if empty.
  const std::shared_ptr<Contained>& ptr() const {
    get();
    return impl_;
  }
  /// Calls forward().
  template <class... Args>
  decltype(auto) operator()(Args&&... args) const {
    return get()->forward(std::forward<Args>(args)...);
  }
  /// The module's own operator[], for containers.
  template <class Index>
  decltype(auto) operator[](Index&& index) const {
    return (*get())[std::forward<Index>(index)];
  }

 private:
  std::shared_ptr<Contained> impl_;
};

template <class Contained>
std::ostream& operator<<(std::ostream& out, const ModuleHolder<Contained>& holder) {
  return out << static_cast<const Module&>(*holder);
}

/// TUTTI_MODULE(Net) makes the handle class Net for the module class NetImpl.
#define TUTTI_MODULE_IMPL(Name, Impl)                    \
  class Name : public ::tutti::nn::ModuleHolder<Impl> {  \
   public:                                               \
    using ::tutti::nn::ModuleHolder<Impl>::ModuleHolder; \
    Name() = default;                                    \
  }
#define TUTTI_MODULE(Name) TUTTI_MODULE_IMPL(Name, Name##Impl)

}  // namespace tutti::nn
