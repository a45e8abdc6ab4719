// TUTTI_ARG: one named argument of an options struct, set by chaining and read by the same name, as
// in LibTorch:  LinearOptions(3, 4).bias(false)  and  options.bias().
#pragma once

#define TUTTI_ARG(T, name)                           \
 public:                                             \
  auto name(const T& value)->decltype(*this) {       \
    name##_ = value;                                 \
    return *this;                                    \
  }                                                  \
  const T& name() const noexcept { return name##_; } \
  T& name() noexcept { return name##_; }             \
                                                     \
 private:                                            \
  T name##_
