// What every test file includes: doctest and the project's own checks.
#pragma once

#include <exception>
#include <initializer_list>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

namespace tutti_test {

/// Returns "" if `message` contains every word, else says which is missing and shows the message.
inline std::string missing_words(std::string_view message,
                                 std::initializer_list<std::string_view> words) {
  for (std::string_view word : words) {
    if (message.find(word) == std::string_view::npos) {
      return "no \"" + std::string(word) + "\" in \"" + std::string(message) + "\"";
    }
  }
  return {};
}

}  // namespace tutti_test

/// Checks that `expr` throws `Type` (or a class derived from it) and that what() contains every
/// word that follows.
#define CHECK_THROWS_SAYING(expr, Type, ...)                                          \
  do {                                                                                \
    std::string tutti_problem_ = "nothing was thrown";                                \
    try {                                                                             \
      static_cast<void>(expr);                                                        \
    } catch (const Type& tutti_error_) {                                              \
      tutti_problem_ = tutti_test::missing_words(tutti_error_.what(), {__VA_ARGS__}); \
    } catch (const std::exception& tutti_error_) {                                    \
      tutti_problem_ = std::string("another exception: ") + tutti_error_.what();      \
    }                                                                                 \
    CHECK_MESSAGE(tutti_problem_.empty(), #expr ": " << tutti_problem_);              \
  } while (false)
