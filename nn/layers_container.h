// Modules made of modules: Sequential, ModuleList, ModuleDict, and AnyModule, which they take.
#pragma once
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <tutti/nn/module.h>

namespace tutti::nn {

/// A module of any class with a forward(Tensor) -> Tensor; made from a handle or a shared_ptr.
class AnyModule {
 public:
  AnyModule() = default;
  template <class M>
  requires(std::is_base_of_v<Module, M>) AnyModule(std::shared_ptr<M> module) {
    check<ValueError>(module != nullptr, "AnyModule", "expected a module, got an empty handle");
    Module::remember_type(module.get());
    if constexpr (requires(M & m, const Tensor& x) { Tensor(m.forward(x)); })
      forward_ = [](Module& m, const Tensor& x) { return Tensor(dynamic_cast<M&>(m).forward(x)); };
    module_ = std::move(module);
  }
  template <class M>
  AnyModule(const ModuleHolder<M>& holder) : AnyModule(holder.ptr()) {}
  AnyModule(const AnyModule& o) : forward_(o.forward_), module_(detail::cloned(o.module_)) {}
  AnyModule(AnyModule&&) noexcept = default;
  AnyModule& operator=(const AnyModule&) = default;
  AnyModule& operator=(AnyModule&&) noexcept = default;

  bool is_empty() const noexcept { return module_ == nullptr; }
  const std::shared_ptr<Module>& ptr() const { return module_; }
  /// ValueError if empty, NotImplementedError if the module's forward does not map a tensor to a
  /// tensor.
  Tensor forward(const Tensor& input) const;
  /// The module as an M (a handle or Impl class); TypeError if it is something else.
  template <class M>
  auto& get() const {
    auto* m = module_ ? module_->as<M>() : nullptr;
    check<TypeError>(m != nullptr, "AnyModule", "expected a module of another class, got ",
                     module_ ? module_->name() : "an empty handle");
    return *m;
  }

 private:
  Tensor (*forward_)(Module&, const Tensor&) = nullptr;
  std::shared_ptr<Module> module_;
};

/// A module with a name: {"fc", nn::Linear(3, 4)}.
struct NamedModule {
  template <class M>
  NamedModule(std::string name_, const M& module_) : name(std::move(name_)), module(module_) {}
  std::string name;
  AnyModule module;
};
using NamedAnyModule = NamedModule;

template <class T>
concept ModuleLike = std::is_convertible_v<const T&, AnyModule>;

/// What Sequential and ModuleList share: children in order, named "0", "1", ... unless given names.
template <class Derived>
class ModuleSequence : public Cloneable<Derived> {
 public:
  ModuleSequence() = default;
  explicit ModuleSequence(std::initializer_list<NamedModule> modules) {
    for (const NamedModule& m : modules) push_back(m.name, m.module);
  }

  void push_back(const AnyModule& module) { push_back(std::to_string(size()), module); }
  void push_back(std::string name, const AnyModule& module) {
    this->register_module(std::move(name), module.ptr());
    modules_.push_back(module);
  }
  /// Appends all modules of a container of modules.
  template <class Container>
  void extend(const Container& modules) {
    for (const auto& m : modules) push_back(AnyModule(m));
  }

  std::size_t size() const noexcept { return modules_.size(); }
  bool is_empty() const noexcept { return modules_.empty(); }
  /// Child `index`; IndexError outside of 0..size()-1.
  std::shared_ptr<Module> ptr(std::size_t index) const { return any(index).ptr(); }
  std::shared_ptr<Module> operator[](std::size_t index) const { return ptr(index); }
  /// Child `index` as an M (a handle or Impl class); TypeError if it is something else.
  template <class M>
  auto& at(std::size_t index) const {
    return any(index).template get<M>();
  }

 protected:
  const AnyModule& any(std::size_t index) const {
    check<IndexError>(index < size(), "ModuleSequence", "expected an index below ", size(),
                      ", got ", index);
    return modules_[index];
  }
  std::vector<AnyModule> modules_;
};

/// Runs its children one after the other: Sequential(Linear(4, 8), ReLU(), Linear(8, 2)), or with
/// names: Sequential({{"in", Linear(4, 8)}, {"act", ReLU()}}).
class SequentialImpl : public ModuleSequence<SequentialImpl> {
 public:
  using ModuleSequence::ModuleSequence;
  SequentialImpl() = default;
  template <ModuleLike First, ModuleLike... Rest>
  explicit SequentialImpl(const First& first, const Rest&... rest) {
    push_back(first);
    (push_back(rest), ...);
  }
  explicit SequentialImpl(const Dict<AnyModule>& modules);
  /// ValueError if there are no children.
  Tensor forward(const Tensor& input);
  void pretty_print(std::ostream& out) const override;
  auto begin() const { return modules_.begin(); }
  auto end() const { return modules_.end(); }
};
class Sequential : public ModuleHolder<SequentialImpl> {
 public:
  using ModuleHolder<SequentialImpl>::ModuleHolder;
  Sequential() = default;
  Sequential(std::initializer_list<NamedModule> modules)
      : ModuleHolder(std::make_shared<SequentialImpl>(modules)) {}
};

/// A list of modules; it has no forward of its own. Iterating gives shared_ptr<Module>.
class ModuleListImpl : public ModuleSequence<ModuleListImpl> {
 public:
  using ModuleSequence::ModuleSequence;
  ModuleListImpl() = default;
  template <ModuleLike First, ModuleLike... Rest>
  explicit ModuleListImpl(const First& first, const Rest&... rest) {
    push_back(first);
    (push_back(rest), ...);
  }
  void pretty_print(std::ostream& out) const override;

  /// Walks the children as pointers.
  class Iterator {
   public:
    explicit Iterator(std::vector<AnyModule>::const_iterator at) : at_(at) {}
    const std::shared_ptr<Module>& operator*() const { return at_->ptr(); }
    Iterator& operator++() {
      ++at_;
      return *this;
    }
    friend bool operator==(const Iterator&, const Iterator&) = default;

   private:
    std::vector<AnyModule>::const_iterator at_;
  };
  Iterator begin() const { return Iterator(modules_.begin()); }
  Iterator end() const { return Iterator(modules_.end()); }
};
TUTTI_MODULE(ModuleList);

/// Modules by name, in the order of insertion; it has no forward of its own.
class ModuleDictImpl : public Cloneable<ModuleDictImpl> {
 public:
  ModuleDictImpl() = default;
  explicit ModuleDictImpl(std::initializer_list<NamedModule> modules) {
    for (const NamedModule& m : modules) insert(m.name, m.module);
  }
  /// Adds or replaces.
  void insert(const std::string& name, const AnyModule& module);
  /// Removes and returns; KeyError if there is none of that name.
  std::shared_ptr<Module> pop(const std::string& name);
  void clear();

  std::size_t size() const { return keys().size(); }
  bool empty() const { return size() == 0; }
  bool contains(const std::string& name) const { return named_children().contains(name); }
  std::vector<std::string> keys() const { return named_children().keys(); }
  std::vector<std::shared_ptr<Module>> values() const { return children(); }
  std::vector<std::pair<std::string, std::shared_ptr<Module>>> items() const {
    return named_children().items();
  }
  /// KeyError, naming the nearest, if there is none of that name.
  std::shared_ptr<Module> operator[](const std::string& name) const {
    return named_children().at(name);
  }
  template <class M>
  auto& at(const std::string& name) const {
    return AnyModule((*this)[name]).template get<M>();
  }
  void pretty_print(std::ostream& out) const override;
};
class ModuleDict : public ModuleHolder<ModuleDictImpl> {
 public:
  using ModuleHolder<ModuleDictImpl>::ModuleHolder;
  ModuleDict() = default;
  ModuleDict(std::initializer_list<NamedModule> modules)
      : ModuleHolder(std::make_shared<ModuleDictImpl>(modules)) {}
};

}  // namespace tutti::nn
