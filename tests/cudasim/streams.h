// Streams, events and graphs: queues of work that runs when something demands it, at once, or at
// random.
#pragma once
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "base.h"

namespace cudasim {

/// One lock around every call of the runtime.
std::recursive_mutex& api_mutex();
#define CUDASIM_API const std::lock_guard<std::recursive_mutex> api_lock(::cudasim::api_mutex())

using Work = std::function<void()>;

/// Puts work into a stream, or into the graph it records. Ordering with the legacy stream is as
/// documented. `kernel`: `what` is the name of a kernel, for the log of launches.
cudaError_t enqueue(cudaStream_t stream, std::string what, Work work, bool kernel = false);

/// True if the stream records into a graph.
bool is_capturing(cudaStream_t stream);

/// For calls that may wait for other work: an error, which ends what is being recorded, if the
/// thread records a graph, or any thread does in global mode.
cudaError_t forbidden_while_recording();
#define CUDASIM_MAY_WAIT \
  if (const cudaError_t e = ::cudasim::forbidden_while_recording(); e != cudaSuccess) return e

/// Runs everything in the stream, or in all streams.
void synchronize(cudaStream_t stream);
void synchronize_all();

/// Operations that nobody has waited for.
std::size_t pending_operations();

/// Streams, events and graphs that exist, for the leak report.
struct LiveObjects {
  std::size_t streams = 0, events = 0, graphs = 0;
};
LiveObjects live_objects();

/// The last error of this thread.
cudaError_t remember(cudaError_t error);

}  // namespace cudasim
