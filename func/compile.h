// compile(f): f recorded once per signature as a straight line of kernel calls, which then runs
// without dispatch and without allocating anything but its results. See Compiled.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <tutti/core/tree.h>
#include <tutti/func/cuda_graphs.h>
#include <tutti/func/transforms.h>

namespace tutti {

/// Options of compile.
class CompileOptions {
 public:
  /// Whether launches on a GPU that are the same with every call are captured into CUDA graphs; the
  /// default is true.
  CompileOptions& cuda_graphs(bool on) {
    cuda_graphs_ = on;
    return *this;
  }
  bool cuda_graphs() const { return cuda_graphs_; }

 private:
  bool cuda_graphs_ = true;
};

namespace detail {

/// One recording and what it is valid for.
class Program {
 public:
  /// Records f on `args`.
  Program(ListFn f, const Tensors& args, const CompileOptions& options);
  ~Program();
  Program(Program&&) noexcept;
  /// Whether it may stand for f on these arguments.
  bool accepts(const std::vector<Tensor>& args);
  /// Runs it on arguments it accepts.
  Tensors run(const std::vector<Tensor>& args);
  std::string text() const;
  std::string dot() const;
  CudaGraphStats cuda_graphs() const;
  /// Bytes of temporaries it keeps.
  std::int64_t workspace_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// False inside transforms and functional_call, where a compiled function is f itself.
bool may_compile();

/// Whether two trees agree in all but their tensors: number of parts, names, and values that can be
/// compared.
template <class T>
bool same_structure(const T& a, const T& b) {
  if constexpr (tree::is_tensor<T>) {
    return true;
  } else if constexpr (requires { a.key_table(); }) {
    if (a.key_table() != b.key_table() && a.keys() != b.keys()) return false;
    return same_structure(a.values(), b.values());
  } else if constexpr (requires { typename T::mapped_type; }) {
    if (a.size() != b.size()) return false;
    for (auto i = a.begin(), j = b.begin(); i != a.end(); ++i, ++j)
      if (i->first != j->first || !same_structure(i->second, j->second)) return false;
    return true;
  } else if constexpr (requires {
                         a.data();
                         a.size();
                       } &&
                       tree::HasChildren<T>) {
    if (a.size() != b.size()) return false;
    if constexpr (tree::is_tensor<typename T::value_type>) return true;
    for (std::size_t i = 0; i < a.size(); ++i)
      if (!same_structure(a[i], b[i])) return false;
    return true;
  } else if constexpr (tree::HasChildren<T>) {
    std::size_t n = 0, m = 0, i = 0;
    tree::children(a, [&](const auto&) { ++n; });
    tree::children(b, [&](const auto&) { ++m; });
    bool same = n == m;
    tree::children(a, [&](const auto& x) {
      std::size_t j = 0;
      tree::children(b, [&](const auto& y) {
        if constexpr (std::is_same_v<decltype(x), decltype(y)>)
          if (same && j == i) same = same_structure(x, y);
        ++j;
      });
      ++i;
    });
    return same;
  } else if constexpr (std::equality_comparable<T>) {
    return a == b;
  } else {
    return true;
  }
}

/// A recording with the structure of the arguments and results it was made for.
struct Recording {
  Recording(const void* t, Program p) : type(t), program(std::move(p)) {}
  virtual ~Recording() = default;
  const void* type;  // of the derived class
  Program program;
};
template <class Result, class... Args>
struct RecordingOf final : Recording {
  RecordingOf(Program p, std::tuple<Args...> a, Result r)
      : Recording(&tag, std::move(p)), args(std::move(a)), result(std::move(r)) {}
  static constexpr char tag = 0;
  std::tuple<Args...> args;  // without tensors
  Result result;             // the same
};

}  // namespace detail

namespace func {

/// What compile gives: a function that behaves as f does.
///
/// The first call with arguments of a new signature records f; later ones run the recording. The
/// signature is: structure, dtypes, sizes and strides of the arguments, values of arguments that
/// are not tensors, the training mode of modules f asked for it, and what optimizers f stepped need
/// of state. Tensors f captures (module parameters, too) are inputs: changes to them are seen.
/// Every other value of the host is the constant it was while recording. f runs several times while
/// it is recorded, so it should have no other side effects than on tensors.
///
/// In-place changes of arguments and captured tensors, steps of optimizers, random draws and
/// changes of learning rates between calls behave as without compile. A vmap that f calls directly
/// runs in blocks of members that fit a core's cache, several blocks at once.
///
/// On a GPU, kernels are launched by CUDA graphs from the second call on, where that pays; see
/// docs/cuda.md. What a graph has captured it launches with every call: temporaries and results
/// have memory of their own then, until the function is destroyed.
///
/// If a kernel throws, for example IndexError, what was written in place before stays written.
///
/// TransformError where f reads a value (item(), a branch on a tensor) or calls backward(). Under
/// another transform, inside functional_call, and with arguments on several devices or without
/// memory it is f itself. Subnormal numbers count as zero. Copies share their recordings. Calls
/// from several threads wait for each other.
template <class F>
class Compiled {
 public:
  explicit Compiled(F f, const CompileOptions& options = {})
      : state_(std::make_shared<State>(std::move(f), options)) {}

  template <class... A>
  auto operator()(A&&... a) const {
    using Result = decltype(state_->call(std::declval<std::decay_t<A>&>()...));
    constexpr bool nothing = std::is_same_v<Result, Nothing>;
    std::optional<Device> device;
    bool on_one = true;  // device; arguments on several are not recorded
    const auto look = [&](const Tensor& x) {
      if (x.defined()) on_one &= device.value_or(x.device()) == x.device(), device = x.device();
    };
    (tree::leaves(std::as_const(a), look), ...);
    if (!on_one || (device && device->is_meta()) || !detail::may_compile()) {
      auto args = func::args(std::forward<A>(a)...);
      return std::apply([&](auto&... x) { return state_->f(x...); }, args);
    }
    using Recording = detail::RecordingOf<Result, std::decay_t<A>...>;
    State& s = *state_;
    std::lock_guard lock(s.mutex);
    s.flat.clear();
    (tree::leaves(std::as_const(a), [&](const Tensor& x) { s.flat.push_back(x); }), ...);
    struct Forget {  // the arguments must not live longer than the call
      State& s;
      ~Forget() { s.flat.clear(); }
    } forget{s};
    Recording* found = nullptr;
    for (std::size_t i = 0; i < s.recordings.size() && !found; ++i) {
      detail::Recording& r = *s.recordings[i];
      if (r.type != &Recording::tag) continue;
      Recording& mine = static_cast<Recording&>(r);
      if (!same_arguments(mine.args, std::index_sequence_for<A...>(), a...)) continue;
      if (!mine.program.accepts(s.flat)) continue;
      if (i > 0) std::swap(s.recordings[0], s.recordings[i]);
      found = &mine;
    }
    if (!found) {
      const auto args = func::args(std::forward<A>(a)...);
      const auto call = [&s](auto&... x) { return s.call(x...); };
      detail::FlatFn run(call, args);
      const Tensors values(s.flat.begin(), s.flat.end());
      detail::Program program(detail::ListFn(run), values, s.options);
      auto fresh = std::make_unique<Recording>(std::move(program), tree::without_tensors(args),
                                               tree::without_tensors(run.result()));
      found = fresh.get();
      constexpr std::size_t kMost = 64;
      if (s.recordings.size() == kMost) s.recordings.pop_back();
      s.recordings.insert(s.recordings.begin(), std::move(fresh));
    }
    const Tensors out = found->program.run(s.flat);
    if constexpr (!nothing) return tree::rebuild(found->result, out);
  }

  /// The recording that ran last, as text: a line per kernel with shapes, bytes and floating point
  /// operations. Empty before the first call.
  std::string text() const {
    std::lock_guard lock(state_->mutex);
    return state_->recordings.empty() ? "" : state_->recordings[0]->program.text();
  }
  /// The same for graphviz.
  std::string dot() const {
    std::lock_guard lock(state_->mutex);
    return state_->recordings.empty() ? "" : state_->recordings[0]->program.dot();
  }
  /// The CUDA graphs of all recordings together.
  CudaGraphStats cuda_graphs() const {
    std::lock_guard lock(state_->mutex);
    CudaGraphStats sum;
    for (const auto& r : state_->recordings) sum += r->program.cuda_graphs();
    return sum;
  }
  /// How many signatures are recorded.
  std::size_t recordings() const {
    std::lock_guard lock(state_->mutex);
    return state_->recordings.size();
  }
  /// Bytes of temporaries that the recordings keep between calls.
  std::int64_t workspace_bytes() const {
    std::lock_guard lock(state_->mutex);
    std::int64_t n = 0;
    for (const auto& r : state_->recordings) n += r->program.workspace_bytes();
    return n;
  }

 private:
  using Nothing = std::tuple<>;  // the result of a function without one
  struct State {
    State(F g, const CompileOptions& o) : f(std::move(g)), options(o) {}
    template <class... A>
    auto call(A&... a) const {
      if constexpr (std::is_void_v<decltype(f(a...))>) {
        f(a...);
        return Nothing();
      } else {
        return f(a...);
      }
    }
    F f;
    CompileOptions options;
    std::mutex mutex;
    std::vector<std::unique_ptr<detail::Recording>> recordings;  // the last used one first
    std::vector<Tensor> flat;
  };
  template <class Tuple, std::size_t... I, class... A>
  static bool same_arguments(const Tuple& known, std::index_sequence<I...>, const A&... a) {
    return (detail::same_structure<std::decay_t<A>>(std::get<I>(known), a) && ...);
  }
  std::shared_ptr<State> state_;
};

/// f, faster: see Compiled. For a training step, do everything in f:
///
///   auto step = func::compile([&](const TensorDict& params, const Tensor& x, const Tensor& y) {
///     auto [grads, losses] = func::vmap(func::grad_and_value(loss), {0, 0, 0})(params, x, y);
///     opt.step(grads);
///     return losses;
///   });
///
/// (As torch.compile and jax.jit, but the code recorded is ours only.)
template <class F>
Compiled<std::decay_t<F>> compile(F&& f, const CompileOptions& options = {}) {
  return Compiled<std::decay_t<F>>(std::forward<F>(f), options);
}

}  // namespace func
}  // namespace tutti
