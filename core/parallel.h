// The thread pool kernels use: fork/join over index ranges, on threads of our own or of the
// application. No op ever runs on a pool thread, only raw kernels.
#pragma once
#include <cstdint>
#include <memory>
#include <type_traits>

namespace tutti {

/// Threads kernels may use, the calling one included. Default: the number of physical cores.
int num_threads();
/// ValueError unless n >= 1. Results are bitwise the same for every n.
void set_num_threads(int n);

/// Threads of the application's own, for loops to run on instead of the library's pool.
class Executor {
 public:
  virtual ~Executor() = default;
  /// Calls part(context, i) once for every i in 0..parts - 1, on any threads, in any order, and
  /// returns when all calls have. Called from several threads at once if kernels are; `part` does
  /// not throw, and calls nothing of the executor.
  virtual void run(std::int64_t parts, void (*part)(void* context, std::int64_t i),
                   void* context) = 0;
};

/// Loops from now on run on `executor`, in num_threads() parts at most; null: on the library's pool
/// again. Not while kernels run. Results are bitwise the same.
void set_executor(std::shared_ptr<Executor> executor);

/// While one lives, kernels that the thread runs or starts take subnormal numbers for zero; where
/// the processor can do that.
class FlushToZero {
 public:
  FlushToZero();
  ~FlushToZero();
  FlushToZero(const FlushToZero&) = delete;

 private:
  std::uint64_t saved_;
};

namespace detail {
using RangeFn = void (*)(void* ctx, std::int64_t begin, std::int64_t end);
void parallel_range(std::int64_t n, std::int64_t grain, RangeFn fn, void* ctx);
}  // namespace detail

/// Calls f(begin, end) on disjoint ranges that cover 0..n, several at once if n exceeds `grain`
/// (the smallest number of items worth a thread). f must not throw, and what it writes for an item
/// must not depend on the split. Inside f a nested call runs on the same thread.
template <class F>
void parallel_for(std::int64_t n, std::int64_t grain, F&& f) {
  using Fn = std::remove_reference_t<F>;
  detail::parallel_range(
      n, grain, [](void* c, std::int64_t b, std::int64_t e) { (*static_cast<Fn*>(c))(b, e); },
      const_cast<std::remove_const_t<Fn>*>(std::addressof(f)));
}

}  // namespace tutti
