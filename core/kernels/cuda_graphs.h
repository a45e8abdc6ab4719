// CUDA graphs as compiled functions see them; cuda/graphs.cpp implements them. Without TUTTI_CUDA
// nobody asks for one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include <tutti/core/device.h>

namespace tutti::kernels::cuda {

/// Parts of a function's work on one device that are the same launches on the same memory with
/// every run, each captured into a CUDA graph.
///
/// A part is a list of steps. observe() runs each of its steps once as ever, then capture() records
/// them all, and from then on launch() stands for them. A step has a kernel's outputs and inputs;
/// what else it needs for a moment (copies of operands, the workspace of cuBLAS) is memory that the
/// graphs keep, allocated before anything is captured.
///
/// Runs share that memory and that of values, so they take place one after another: on whichever
/// stream a run is, begin() makes it wait for what lies between begin() and end() of the one
/// before. For one thread at a time.
class Graphs {
 public:
  /// Waits for the last run.
  virtual ~Graphs() = default;

  /// Runs `step`, and notes what it needs besides launches. False: it cannot be part of a graph, as
  /// it exchanges values with the CPU.
  virtual bool observe(const std::function<void()>& step) = 0;
  /// Records what `part`, made of observed steps, launches, and runs nothing of it. False, and
  /// nothing is recorded, if that is not possible.
  virtual bool capture(const std::function<void()>& part) = 0;
  /// Whether what is captured is what the same steps would launch now: settings of the process may
  /// have changed.
  virtual bool valid() const = 0;
  /// Forgets what is captured, and gives back its memory; waits for the last run.
  virtual void clear() noexcept = 0;
  /// Bytes of memory kept for captured steps, besides that of values.
  virtual std::int64_t bytes() const = 0;

  /// Begins a run on the calling thread's stream.
  virtual void begin() = 0;
  /// Launches a captured part; they are numbered in the order of capture. False, and nothing is
  /// launched, if CUDA refuses it.
  virtual bool launch(std::size_t part) = 0;
  /// Copies within the device, as a part of the run.
  virtual void copy(void* to, const void* from, std::int64_t bytes) = 0;
  /// Ends the run.
  virtual void end() noexcept = 0;
};

std::unique_ptr<Graphs> make_graphs(Device device);

}  // namespace tutti::kernels::cuda
