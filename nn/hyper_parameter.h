// HyperParameter: a number that all members of an ensemble share, or one number for each of them.
// What the options of optimizers are made of.
#pragma once
#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

#include <tutti/core/error.h>
#include <tutti/core/tensor.h>

namespace tutti::optim {

/// One number, or one for each member. Copies share the values, which never change: an assignment
/// replaces them. Not thread-safe.
class HyperParameter {
 public:
  /// The same for all members.
  HyperParameter(double number) : number_(number) {}
  /// One for each member: `values` is a floating tensor [M] on any device, or a list. They are
  /// copied; what is done to the tensor later is not seen. `name` is what errors call them:
  /// TypeError, ShapeError if `values` is not [M] or M is 0, ValueError for a NaN.
  HyperParameter(const Tensor& values, const char* name = "hyper-parameter");
  HyperParameter(const std::vector<double>& values, const char* name = "hyper-parameter");

  /// Whether there is one for each member.
  bool per_member() const noexcept { return members_ != nullptr; }
  /// For how many members there is one; 0 if they share it.
  std::size_t members() const noexcept { return members_ ? members_->size() : 0; }
  /// A member's value. IndexError if there is none.
  double operator[](std::size_t member) const {
    if (!members_) return number_;
    check<IndexError>(member < members_->size(), "hyper-parameter", "expected a member below ",
                      members_->size(), ", got ", member, "; count from 0");
    return (*members_)[member];
  }
  /// All of them; a single one if the members share it.
  std::vector<double> values() const { return members_ ? *members_ : std::vector<double>{number_}; }
  /// The same as a float64 tensor on the CPU: [M], or [] if the members share it.
  Tensor tensor() const;
  /// Whether all members' values are in a range.
  template <class InRange>
  bool all(InRange in_range) const {
    return members_ ? std::all_of(members_->begin(), members_->end(), in_range) : in_range(number_);
  }

  /// The number that all members share, to read or change; ValueError, which calls it `name`, if
  /// each has its own.
  double& number(const char* name) { return check_shared(name), number_; }
  const double& number(const char* name) const { return check_shared(name), number_; }

  /// Multiplies every member's value.
  HyperParameter& operator*=(double factor);
  friend HyperParameter operator*(HyperParameter a, double factor) { return a *= factor; }

 private:
  void check_shared(const char* name) const {
    if (members_) [[unlikely]]
      fail_not_shared(name);
  }
  [[noreturn]] void fail_not_shared(const char* name) const;

  double number_ = 0;
  std::shared_ptr<const std::vector<double>> members_;  // null: they share the number
};

}  // namespace tutti::optim

/// A hyper-parameter of an options struct. Set by chaining, to a number or to one for each member:
///   options.lr(1e-3)    options.lr(tensor)    options.lr({1e-3, 1e-2})
/// lr() is the number, to read or change; ValueError if each member has its own. lr_values() is
/// either.
#define TUTTI_HYPER_PARAMETER(name)                                                                \
 public:                                                                                           \
  auto name(double value)->decltype(*this) { return name(::tutti::optim::HyperParameter(value)); } \
  auto name(const ::tutti::Tensor& values)->decltype(*this) {                                      \
    return name(::tutti::optim::HyperParameter(values, #name));                                    \
  }                                                                                                \
  auto name(const std::vector<double>& values)->decltype(*this) {                                  \
    return name(::tutti::optim::HyperParameter(values, #name));                                    \
  }                                                                                                \
  auto name(const ::tutti::optim::HyperParameter& value)->decltype(*this) {                        \
    name##_ = value;                                                                               \
    return *this;                                                                                  \
  }                                                                                                \
  const double& name() const { return name##_.number(#name); }                                     \
  double& name() { return name##_.number(#name); }                                                 \
  const ::tutti::optim::HyperParameter& name##_values() const noexcept { return name##_; }         \
  ::tutti::optim::HyperParameter& name##_values() noexcept { return name##_; }                     \
                                                                                                   \
 private:                                                                                          \
  ::tutti::optim::HyperParameter name##_
