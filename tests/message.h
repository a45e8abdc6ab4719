// The texts of errors, for tests that compare them word by word.
#pragma once
#include <exception>
#include <functional>
#include <string>

#include <tutti/core/error.h>

namespace tutti_test {

/// The text of the Error that f throws, after "id: ".
inline std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const tutti::Error& e) {
    return e.id() + ": " + e.what();
  } catch (const std::exception& e) {
    return std::string("not an Error: ") + e.what();
  }
  return "nothing was thrown";
}

}  // namespace tutti_test
