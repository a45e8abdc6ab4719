// Helpers of the behaviour tests: comparing tensors, with messages that show them, and running code
// on a thread with a small stack.
#pragma once

#include <algorithm>
#include <cmath>
#include <exception>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <pthread.h>

#include <tutti/core/ops.h>

#include "test.h"

namespace tutti_test {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif
#else
inline constexpr bool sanitized = false;
#endif

/// Whether shapes, dtypes and all elements are equal.
inline bool same(const tutti::Tensor& a, const tutti::Tensor& b) {
  return a.dtype() == b.dtype() && a.sizes() == b.sizes() &&
         a.to_vector<double>() == b.to_vector<double>();
}

/// The largest |a - b| / max(1, |b|); infinite where shapes or dtypes differ, or one is not finite.
inline double deviation(const tutti::Tensor& a, const tutti::Tensor& b) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  if (a.dtype() != b.dtype() || !(a.sizes() == b.sizes())) return inf;
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = std::abs(x[i] - y[i]) / std::max(1.0, std::abs(y[i]));
    worst = std::isnan(d) ? inf : std::max(worst, d);
  }
  return worst;
}

/// Whether the elements, in row-major order, are `expected` up to 1e-6 relative.
inline bool has_values(const tutti::Tensor& t, const std::vector<double>& expected) {
  const std::vector<double> x = t.to_vector<double>();
  if (x.size() != expected.size()) return false;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (!(std::abs(x[i] - expected[i]) <= 1e-6 * std::max(1.0, std::abs(expected[i]))))
      return false;
  return true;
}

/// Runs f on a thread that has only `bytes` of stack; what f throws arrives here.
inline void run_on_small_stack(const std::function<void()>& f, std::size_t bytes = 256 * 1024) {
  struct Job {
    const std::function<void()>& f;
    std::exception_ptr error;
  } job{f, nullptr};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  // Sanitizers need several times the stack for the same calls.
  pthread_attr_setstacksize(&attributes, sanitized ? 4 * bytes : bytes);
  pthread_t thread;
  const int failed = pthread_create(
      &thread, &attributes,
      [](void* p) -> void* {
        Job& j = *static_cast<Job*>(p);
        try {
          j.f();
        } catch (...) {
          j.error = std::current_exception();
        }
        return nullptr;
      },
      &job);
  pthread_attr_destroy(&attributes);
  if (failed) throw std::runtime_error("no thread could be made");
  pthread_join(thread, nullptr);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace tutti_test

/// The elements of a tensor, in row-major order, up to 1e-6 relative.
#define CHECK_VALUES(t, ...)                                       \
  do {                                                             \
    const ::tutti::Tensor tutti_t_ = (t);                          \
    CHECK_MESSAGE(tutti_test::has_values(tutti_t_, {__VA_ARGS__}), \
                  #t " is " << tutti_t_.to_string());              \
  } while (false)

/// Equal in shape, dtype and every bit that matters.
#define CHECK_SAME(a, b)                                                                        \
  do {                                                                                          \
    const ::tutti::Tensor tutti_a_ = (a), tutti_b_ = (b);                                       \
    CHECK_MESSAGE(tutti_test::same(tutti_a_, tutti_b_),                                         \
                  #a " is " << tutti_a_.to_string() << ", " #b " is " << tutti_b_.to_string()); \
  } while (false)

/// Equal in shape and dtype, and in every element up to `tolerance` relative.
#define CHECK_CLOSE(a, b, tolerance)                                                       \
  do {                                                                                     \
    const ::tutti::Tensor tutti_a_ = (a), tutti_b_ = (b);                                  \
    const double tutti_d_ = tutti_test::deviation(tutti_a_, tutti_b_);                     \
    CHECK_MESSAGE(tutti_d_ <= (tolerance), #a " and " #b " differ by "                     \
                                               << tutti_d_ << ": " << tutti_a_.to_string() \
                                               << " and " << tutti_b_.to_string());        \
  } while (false)
