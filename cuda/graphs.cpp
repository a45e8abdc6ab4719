// CUDA graphs of compiled functions: what may be captured, capturing, and launching.
//
// Kernels do not know that they are captured. They find a stream of the graphs' own as the current
// one (the default stream cannot be captured), and an onlooker that serves their memory: the driver
// must not be asked for any meanwhile, and memory that is free on another stream is not free for a
// graph. What has to be there before is known from a run that was looked on.
#include <algorithm>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <tutti/core/kernels/cuda_graphs.h>
#include <tutti/cuda/runtime.h>

namespace tutti::cuda {

Onlooker*& onlooker() {
  static thread_local Onlooker* now = nullptr;
  return now;
}

std::mutex& capture_mutex() {  // never destroyed
  static auto& m = *new std::mutex;
  return m;
}

namespace {

/// Ends a capture that cannot go on; caught where it began.
struct NotCaptured : std::exception {};

/// An onlooker while it lives.
class Looking {
 public:
  explicit Looking(Onlooker& o) : before_(std::exchange(onlooker(), &o)) {}
  ~Looking() { onlooker() = before_; }
  Looking(const Looking&) = delete;

 private:
  Onlooker* before_;
};

using Counts = std::map<std::size_t, std::size_t>;  // how many blocks of a size

/// What steps need that were looked on.
struct Needs {
  Counts scratch;
  bool products = false, faults = false;
};

/// Looks on while a step runs as ever.
class Watching final : public Onlooker {
 public:
  void* take(std::size_t) override { return nullptr; }
  void allocated(void* p, std::size_t size) override {
    blocks_[p] = size;
    std::size_t& n = now_[size];
    scratch_[size] = std::max(scratch_[size], ++n);
  }
  bool give(void* p) override {
    const auto at = blocks_.find(p);
    if (at == blocks_.end()) return false;
    --now_[at->second];
    blocks_.erase(at);
    return false;
  }
  void exchanges_values() override { exchanges_ = true; }
  void multiplies() override { products_ = true; }
  void may_find_fault() override { faults_ = true; }

  bool exchanges() const { return exchanges_; }
  /// What stays after a step is not its scratch but kept by others, as the workspace of cuBLAS is.
  void add_to(Needs& needs) const {
    needs.products |= products_;
    needs.faults |= faults_;
    for (const auto& [size, n] : scratch_)
      needs.scratch[size] = std::max(needs.scratch[size], n - now_.at(size));
  }

 private:
  std::map<void*, std::size_t> blocks_;
  Counts now_, scratch_;
  bool exchanges_ = false, products_ = false, faults_ = false;
};

/// The blocks that captured kernels use besides the memory of values.
class Blocks {
 public:
  void reserve(const Counts& counts, const Work& work) {
    for (const auto& [size, n] : counts)
      for (std::size_t i = 0; i < n; ++i) {
        all_.push_back(std::make_unique<Scratch>(size, work));
        free_.emplace(size, all_.back()->as<void>());
        bytes_ += static_cast<std::int64_t>(size);
      }
  }
  void* take(std::size_t size) {
    const auto at = free_.find(size);
    if (at == free_.end()) throw NotCaptured();
    void* const p = at->second;
    free_.erase(at);
    taken_[p] = size;
    return p;
  }
  bool give(void* p) {
    const auto at = taken_.find(p);
    if (at == taken_.end()) return false;
    free_.emplace(at->second, p);  // the order of the stream keeps its users apart
    taken_.erase(at);
    return true;
  }
  void clear() {
    taken_.clear();
    free_.clear();
    all_.clear();
    bytes_ = 0;
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::vector<std::unique_ptr<Scratch>> all_;
  std::multimap<std::size_t, void*> free_;
  std::map<void*, std::size_t> taken_;
  std::int64_t bytes_ = 0;
};

/// Looks on while a part is captured.
class Capturing final : public Onlooker {
 public:
  Capturing(Blocks& blocks, const Needs& ready) : blocks_(blocks), ready_(ready) {}
  void* take(std::size_t size) override { return blocks_.take(size); }
  void allocated(void*, std::size_t) override {}
  bool give(void* p) override { return blocks_.give(p); }
  void exchanges_values() override { throw NotCaptured(); }
  void multiplies() override {
    if (!ready_.products) throw NotCaptured();
  }
  void may_find_fault() override {
    if (!ready_.faults) throw NotCaptured();
    faults_ = true;
  }
  bool faults() const { return faults_; }

 private:
  Blocks& blocks_;
  const Needs& ready_;
  bool faults_ = false;
};

/// A stream that records what it is given. Whatever happens, it has ended doing so afterwards.
class Recording {
 public:
  explicit Recording(cudaStream_t stream) : stream_(stream) {
    // Other threads may go on as they like, but see capture_mutex().
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "compile");
  }
  cudaGraph_t end() {
    cudaGraph_t graph = nullptr;
    const cudaError_t e = cudaStreamEndCapture(std::exchange(stream_, nullptr), &graph);
    must(e, "compile");
    return graph;
  }
  ~Recording() {
    if (!stream_) return;
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess) cudaGraphDestroy(graph);
    cudaGetLastError();
  }
  Recording(const Recording&) = delete;

 private:
  cudaStream_t stream_;
};

cudaGraphExec_t instantiate(cudaGraph_t graph) {
  cudaGraphExec_t exec = nullptr;
  const cudaError_t e = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  must(e, "compile");
  return exec;
}

class DeviceGraphs final : public kernels::cuda::Graphs {
 public:
  explicit DeviceGraphs(Device device) : device_(device) {}
  ~DeviceGraphs() override {
    clear();
    if (done_) cudaEventDestroy(done_);
  }

  bool observe(const std::function<void()>& step) override {
    Watching watching;
    {
      const Looking looking(watching);
      step();
    }
    if (watching.exchanges()) return false;
    watching.add_to(needs_);
    return true;
  }

  bool capture(const std::function<void()>& part) override {
    try {
      const Work work(device_);
      if (parts_.empty()) prepare(work);
      std::lock_guard lock(capture_mutex());
      parts_.push_back(record(part));
      return true;
    } catch (
        const std::exception&) {  // a step as ever finds it again, if it is no matter of graphs
      return false;
    }
  }

  bool valid() const override { return precision_ == product_precision(); }
  std::int64_t bytes() const override {
    const bool products = needs_.products && !parts_.empty();
    return blocks_.bytes() + (products ? static_cast<std::int64_t>(kWorkspace) : 0);
  }

  void clear() noexcept override {
    if (ran_) cudaEventSynchronize(done_);
    ran_ = false;
    for (const Part& p : parts_) cudaGraphExecDestroy(p.exec);
    parts_.clear();
    blocks_.clear();
    if (std::exchange(keeps_faults_, false)) keep_faults(device_.index, -1);
  }

  void begin() override {
    const Work work(device_);
    const cudaStream_t before = std::exchange(last_, work.stream());
    if (!ran_ || before == last_) return;
    if (cudaStreamWaitEvent(last_, done_, 0) == cudaSuccess) return;
    cudaGetLastError();
    must(cudaEventSynchronize(done_), "compile");  // slower, as safe
  }
  bool launch(std::size_t part) override {
    const Work work(device_);
    const Part& p = parts_[part];
    if (p.faults) index_fault(work);
    if (cudaGraphLaunch(p.exec, work.stream()) == cudaSuccess) return true;
    cudaGetLastError();
    return false;
  }
  void copy(void* to, const void* from, std::int64_t bytes) override {
    const Work work(device_);
    must(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice,
                         work.stream()),
         "compile");
  }
  void end() noexcept override {
    ran_ = true;
    if (cudaEventRecord(done_, last_) == cudaSuccess) return;
    cudaGetLastError();
    cudaStreamSynchronize(last_);  // slower, as safe
  }

 private:
  struct Part {
    cudaGraphExec_t exec;
    bool faults;  // its kernels may find a bad index
  };

  /// Everything that a capture needs and that cannot be made during one. Memory is that of the
  /// stream of the run: what it may still hold is over when the graph is launched there.
  void prepare(const Work& work) {
    if (!stream_) stream_ = new_stream(device_.index);
    if (!done_) must(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "compile");
    precision_ = product_precision();
    blocks_.reserve(needs_.scratch, work);
    if (needs_.products) prepare_products(work, stream());
    if (needs_.faults && !keeps_faults_) {
      keep_faults(device_.index, 1);
      keeps_faults_ = true;
      index_fault(work);
    }
  }
  Part record(const std::function<void()>& part) {
    Capturing capturing(blocks_, needs_);
    const StreamGuard guard(*stream_);
    const Looking looking(capturing);
    Recording recording(stream());
    part();
    return {instantiate(recording.end()), capturing.faults()};
  }
  cudaStream_t stream() const { return static_cast<cudaStream_t>(stream_->stream()); }

  const Device device_;
  Needs needs_;
  Blocks blocks_;
  std::vector<Part> parts_;
  std::optional<CUDAStream> stream_;  // for capturing; graphs are launched on others
  cudaEvent_t done_ = nullptr;        // the end of the last run
  cudaStream_t last_ = nullptr;       // the stream of that one, or of the run that takes place
  bool ran_ = false, keeps_faults_ = false;
  int precision_ = 0;
};

}  // namespace
}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

std::unique_ptr<Graphs> make_graphs(Device device) {
  return std::make_unique<tutti::cuda::DeviceGraphs>(device);
}

}  // namespace tutti::kernels::cuda
