// Sequential, ModuleList, ModuleDict and AnyModule.
#include <ostream>
#include <typeinfo>

#include <tutti/nn/layers.h>
#include <tutti/nn/layers_activation.h>
#include <tutti/nn/layers_container.h>

namespace tutti::nn {

Tensor AnyModule::forward(const Tensor& input) const {
  check<ValueError>(module_ != nullptr, "AnyModule", "expected a module, got an empty handle");
  if (!forward_)  // no check(): making the name takes longer than a small layer
    fail<NotImplementedError>("AnyModule", module_->name(),
                              " has no forward that takes one tensor and returns one");
  return forward_(*module_, input);
}

SequentialImpl::SequentialImpl(const Dict<AnyModule>& modules) {
  for (auto [name, m] : modules) push_back(name, m);
}

/// Child i if it is an nn::Linear and the next an nn::ReLU, and not classes derived from these; or
/// null.
static const LinearImpl* linear_before_relu(const std::vector<AnyModule>& children, std::size_t i) {
  const auto is = [&](std::size_t k, const std::type_info& type) {
    const Module* const m = k < children.size() ? children[k].ptr().get() : nullptr;
    return m && typeid(*m) == type;
  };
  return is(i, typeid(LinearImpl)) && is(i + 1, typeid(ReLUImpl))
             ? static_cast<const LinearImpl*>(children[i].ptr().get())
             : nullptr;
}

Tensor SequentialImpl::forward(const Tensor& input) {
  check<ValueError>(!is_empty(), "Sequential",
                    "expected at least one module, got none; push_back() some");
  Tensor x = input;
  for (std::size_t i = 0; i < modules_.size(); ++i) {
    if (const LinearImpl* l = linear_before_relu(modules_, i)) {
      x = linear_relu(x, l->weight, l->bias);
      ++i;
    } else {
      x = modules_[i].forward(x);
    }
  }
  return x;
}

void SequentialImpl::pretty_print(std::ostream& out) const { out << "nn::Sequential"; }
void ModuleListImpl::pretty_print(std::ostream& out) const { out << "nn::ModuleList"; }
void ModuleDictImpl::pretty_print(std::ostream& out) const { out << "nn::ModuleDict"; }

void ModuleDictImpl::insert(const std::string& name, const AnyModule& module) {
  if (contains(name))
    replace_module(name, module.ptr());
  else
    register_module(name, module.ptr());
}

std::shared_ptr<Module> ModuleDictImpl::pop(const std::string& name) {
  std::shared_ptr<Module> m = (*this)[name];
  unregister_module(name);
  return m;
}

void ModuleDictImpl::clear() {
  for (const std::string& name : keys()) unregister_module(name);
}

}  // namespace tutti::nn
