// Times of functions that take turns, so that a slow moment of the machine hits all of them.
#pragma once
#include <algorithm>
#include <chrono>
#include <ctime>
#include <functional>
#include <vector>

namespace bench {

using Clock = double (*)();
inline double real_time() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
/// Time the processor spent on this thread: other load on the machine counts little.
inline double thread_time() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

inline double median(std::vector<double> v) {
  const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  return *middle;
}
/// Medians are taken of the ratios within each turn.
inline double median_ratio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < a.size(); ++i) ratios.push_back(a[i] / b[i]);
  return median(ratios);
}

/// A function to be timed by samples of about `sample` seconds.
class Timed {
 public:
  Timed(std::function<void()> f, Clock clock, double sample = 5e-3)
      : f_(std::move(f)), clock_(clock) {
    f_();  // warms up
    const double start = clock_();
    f_();
    calls_ = 1 + static_cast<int>(sample / std::max(clock_() - start, 1e-7));
  }
  /// Seconds of one call, over one sample.
  double operator()() const {
    f_();  // brings its data back into the cache
    const double start = clock_();
    for (int i = 0; i < calls_; ++i) f_();
    return (clock_() - start) / calls_;
  }

 private:
  std::function<void()> f_;
  Clock clock_;
  int calls_;
};

/// Seconds of one call of each function, one sample of `sample` seconds in each of `turns` turns.
inline std::vector<std::vector<double>> interleaved(
    const std::vector<std::function<void()>>& functions, Clock clock, int turns = 15,
    double sample = 5e-3) {
  std::vector<Timed> timed;
  for (const auto& f : functions) timed.emplace_back(f, clock, sample);
  std::vector<std::vector<double>> seconds(functions.size());
  for (int turn = 0; turn < turns; ++turn)
    for (std::size_t i = 0; i < timed.size(); ++i) seconds[i].push_back(timed[i]());
  return seconds;
}

}  // namespace bench
