// Sequential, ModuleList, ModuleDict and AnyModule.
#include <ostream>

#include <tutti/nn/layers_container.h>

namespace tutti::nn {

Tensor AnyModule::forward(const Tensor& input) const {
  check<ValueError>(module_ != nullptr, "AnyModule", "expected a module, got an empty handle");
  check<NotImplementedError>(forward_ != nullptr, "AnyModule", module_->name(),
                             " has no forward that takes one tensor and returns one");
  return forward_(*module_, input);
}

SequentialImpl::SequentialImpl(const Dict<AnyModule>& modules) {
  for (auto [name, m] : modules) push_back(name, m);
}

Tensor SequentialImpl::forward(const Tensor& input) {
  check<ValueError>(!is_empty(), "Sequential",
                    "expected at least one module, got none; push_back() some");
  Tensor x = input;
  for (const AnyModule& m : modules_) x = m.forward(x);
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
