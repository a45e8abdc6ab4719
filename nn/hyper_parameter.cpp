// Values of members: what is taken over from tensors and lists, and how they change.
#include <cmath>
#include <string_view>

#include <tutti/core/ops.h>
#include <tutti/nn/hyper_parameter.h>

namespace tutti::optim {
namespace {

std::shared_ptr<const std::vector<double>> checked(std::vector<double> values, const char* name) {
  check<ShapeError>(!values.empty(), name,
                    "expected a value for each member, got none; give a number if all members "
                    "share it");
  for (std::size_t m = 0; m < values.size(); ++m)
    check<ValueError>(!std::isnan(values[m]), name, "expected a number for each member, got nan ",
                      "for member ", m, "; look where it comes from");
  return std::make_shared<const std::vector<double>>(std::move(values));
}

std::vector<double> copied(const Tensor& values, const char* name) {
  check<ValueError>(values.defined(), name, "expected a value for each member, got an undefined ",
                    "tensor; give a number if all members share it");
  check<TypeError>(values.is_floating_point(), name, "expected floating values, got ",
                   values.dtype(), "; convert with to()");
  check<ShapeError>(values.dim() == 1, name, "expected one value for each member, of shape [M], ",
                    "got shape ", values.sizes(), "; give a number if all members share it");
  return values.detach().to_vector<double>();
}

}  // namespace

HyperParameter::HyperParameter(const std::vector<double>& values, const char* name)
    : members_(checked(values, name)) {}

HyperParameter::HyperParameter(const Tensor& values, const char* name)
    : members_(checked(copied(values, name), name)) {}

Tensor HyperParameter::tensor() const {
  return members_ ? tutti::tensor(*members_, kFloat64) : scalar_tensor(number_, kFloat64);
}

HyperParameter& HyperParameter::operator*=(double factor) {
  if (!members_) {
    number_ *= factor;
    return *this;
  }
  std::vector<double> scaled = *members_;
  for (double& v : scaled) v *= factor;
  members_ = std::make_shared<const std::vector<double>>(std::move(scaled));
  return *this;
}

void HyperParameter::fail_not_shared(const char* name) const {
  const bool rate = std::string_view(name) == "lr";
  fail<ValueError>(name, "expected one value for all members, but each of the ", members_->size(),
                   " has its own; read ", name,
                   rate ? "_values(), scale them with scale_lr()" : "_values()",
                   ", or set them anew");
}

}  // namespace tutti::optim
