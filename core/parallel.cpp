// The fork/join pool. Each worker has a mailbox; a job is posted to as many as it needs, and the
// calling thread works too. Workers watch their mailbox for a while after a job and then sleep. A
// part that its worker has not begun when the caller is done is taken over by the caller, so a
// sleeping worker never holds a job up.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <tutti/core/error.h>
#include <tutti/core/parallel.h>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif

namespace tutti {
namespace {

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Rounding and flush-to-zero mode of the calling thread; a job runs in the mode of whoever asked
/// for it.
#if defined(__SSE__)
using FloatMode = unsigned;
constexpr FloatMode kFlush = 0x8040;  // FTZ and DAZ
FloatMode float_mode() { return _mm_getcsr(); }
void set_float_mode(FloatMode m) { _mm_setcsr(m); }
#elif defined(__aarch64__)
using FloatMode = std::uint64_t;
constexpr FloatMode kFlush = std::uint64_t{1} << 24;  // FZ
FloatMode float_mode() {
  FloatMode m;
  asm volatile("mrs %0, fpcr" : "=r"(m));
  return m;
}
void set_float_mode(FloatMode m) { asm volatile("msr fpcr, %0" : : "r"(m)); }
#else
using FloatMode = int;
constexpr FloatMode kFlush = 0;
FloatMode float_mode() { return 0; }
void set_float_mode(FloatMode) {}
#endif

int read_number(const std::string& path) {
  std::ifstream f(path);
  int v = -1;
  return f >> v ? v : -1;
}

/// Physical cores this process may use, within the CPU quota of its container.
int usable_cores() {
  int n = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    std::vector<std::pair<int, int>> cores;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      std::string topology = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
      int core = read_number(topology + "core_id");
      cores.emplace_back(read_number(topology + "physical_package_id"), core < 0 ? cpu : core);
    }
    std::sort(cores.begin(), cores.end());
    n = static_cast<int>(std::unique(cores.begin(), cores.end()) - cores.begin());
  }
  std::ifstream quota("/sys/fs/cgroup/cpu.max");
  double time, period;
  if (quota >> time >> period && period > 0)
    n = std::min(n, static_cast<int>(std::max(1.0, time / period + 0.5)));
#endif
  return std::max(n, 1);
}

thread_local bool in_job = false;

class Pool {
 public:
  static Pool& get() {
    static Pool& pool = *new Pool;  // outlives every static object that may still compute
    static struct AtExit {
      ~AtExit() { pool.shut_down(); }
    } at_exit;
    return pool;
  }

  int size() const { return size_.load(std::memory_order_relaxed); }

  /// Workers beyond n - 1 stay and sleep: whoever changes the number to and fro pays nothing for
  /// it.
  void resize(int n) {
    std::lock_guard lock(mutex_);
    size_ = n;
    // Watching workers must not take the time of working ones: with more threads than cores they
    // sleep at once.
    watch_time_ = std::chrono::microseconds(n <= cores_ ? 80 : 0);
  }

  void use(std::shared_ptr<Executor> executor) {
    std::lock_guard lock(mutex_);
    executor_.store(executor.get(), std::memory_order_release);
    kept_ = std::move(executor);
  }

  void run(std::int64_t n, std::int64_t grain, detail::RangeFn fn, void* ctx) {
    std::int64_t parts = std::min<std::int64_t>(size(), n / std::max<std::int64_t>(grain, 1));
    if (parts <= 1 || in_job) return fn(ctx, 0, n);
    if (Executor* executor = executor_.load(std::memory_order_acquire)) {
      Job job{fn, ctx, n, parts, float_mode()};
      return executor->run(parts, &Job::run_elsewhere, &job);
    }
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock || over_) return fn(ctx, 0, n);  // the pool is busy with another thread's job
    start_workers();
    parts = std::min<std::int64_t>(parts, static_cast<std::int64_t>(workers_.size()) + 1);
    const Job job{fn, ctx, n, parts, float_mode()};
    in_job = true;
    for (std::int64_t i = 1; i < parts; ++i) workers_[i - 1]->post(job);
    job.run(0);
    for (std::int64_t i = 1; i < parts; ++i) {
      Worker& w = *workers_[i - 1];
      if (w.take(Mail::none))
        job.run(i);
      else
        w.wait_until_done();
    }
    in_job = false;
  }

 private:
  struct Job {
    detail::RangeFn fn;
    void* ctx;
    std::int64_t n, parts;
    FloatMode mode;
    void run(std::int64_t i) const {
      std::int64_t share = n / parts, rest = n % parts;
      std::int64_t begin = share * i + std::min(i, rest);
      fn(ctx, begin, begin + share + (i < rest ? 1 : 0));
    }
    /// On a thread that is not ours; what it calls stays on it.
    static void run_elsewhere(void* job, std::int64_t i) {
      const bool outer = std::exchange(in_job, true);
      const FloatMode mode = float_mode();
      set_float_mode(static_cast<const Job*>(job)->mode);
      static_cast<const Job*>(job)->run(i);
      set_float_mode(mode);
      in_job = outer;
    }
  };

  enum Mail : int { none, posted, running, quit };

  class alignas(64) Worker {
   public:
    Worker(Pool& pool, std::int64_t part) : thread_([this, &pool, part] { work(pool, part); }) {}
    ~Worker() {
      mail_.store(Mail::quit, std::memory_order_release);
      mail_.notify_one();
      thread_.join();
    }
    void post(const Job& job) {
      job_ = job;
      mail_.store(Mail::posted, std::memory_order_release);
      mail_.notify_one();
    }
    /// Claims a posted part; false if there is none (any more).
    bool take(Mail next) {
      int expected = Mail::posted;
      return mail_.compare_exchange_strong(expected, next, std::memory_order_acq_rel);
    }
    void wait_until_done() {
      for (int tries = 0; mail_.load(std::memory_order_acquire) == Mail::running; ++tries)
        tries < 10000 ? pause() : std::this_thread::yield();
    }

   private:
    void work(Pool& pool, std::int64_t part) {
      in_job = true;  // whatever a job calls stays on this thread
      for (;;) {
        watch(pool.watch_time_.load(std::memory_order_relaxed));
        int mail = mail_.load(std::memory_order_acquire);
        if (mail == Mail::quit) return;
        if (mail == Mail::none) {
          mail_.wait(Mail::none, std::memory_order_acquire);
        } else if (take(Mail::running)) {
          set_float_mode(job_.mode);
          job_.run(part);
          mail_.store(Mail::none, std::memory_order_release);
        }
      }
    }
    /// Returns when there is mail, or after `time` without any.
    void watch(std::chrono::microseconds time) {
      auto end = std::chrono::steady_clock::now() + time;
      do {
        for (int i = 0; i < 64; ++i) {
          if (mail_.load(std::memory_order_relaxed) != Mail::none) return;
          pause();
        }
      } while (std::chrono::steady_clock::now() < end);
    }

    std::atomic<int> mail_{Mail::none};
    Job job_{};  // in the line of the cache that tells of it
    std::thread thread_;
  };

  void start_workers() {
    try {
      for (auto i = static_cast<int>(workers_.size()); i < size() - 1; ++i)
        workers_.push_back(std::make_unique<Worker>(*this, i + 1));
    } catch (const std::system_error&) {
      // The system grants no more threads; go on with those there are.
    }
  }
  void shut_down() {
    std::lock_guard lock(mutex_);
    workers_.clear();
    over_ = true;
  }

  const int cores_ = usable_cores();
  std::atomic<int> size_{cores_};
  std::mutex mutex_;  // held while a job runs
  std::shared_ptr<Executor> kept_;
  std::atomic<Executor*> executor_{nullptr};  // kept_, to be read without a lock
  bool over_ = false;
  std::atomic<std::chrono::microseconds> watch_time_{std::chrono::microseconds(80)};
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace

FlushToZero::FlushToZero() : saved_(float_mode()) { set_float_mode(float_mode() | kFlush); }
FlushToZero::~FlushToZero() { set_float_mode(static_cast<FloatMode>(saved_)); }

int num_threads() { return Pool::get().size(); }

void set_num_threads(int n) {
  check<ValueError>(n >= 1 && n <= 4096, "set_num_threads", "expected 1 to 4096 threads, got ", n,
                    "; 1 runs everything on the caller's");
  Pool::get().resize(n);
}

void set_executor(std::shared_ptr<Executor> executor) { Pool::get().use(std::move(executor)); }

void detail::parallel_range(std::int64_t n, std::int64_t grain, RangeFn fn, void* ctx) {
  if (n <= 0) return;
  if (n <= grain) return fn(ctx, 0, n);
  Pool::get().run(n, grain, fn, ctx);
}

}  // namespace tutti
