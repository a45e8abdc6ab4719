// Streams, events and graphs.
#include "streams.h"

#include <algorithm>

#include "inject.h"

namespace {
struct Operation {
  cudasim::u64 id;
  std::string what;
  cudasim::Work work;
  CUstream_st* after = nullptr;  // runs only when this stream has got to after_id
  cudasim::u64 after_id = 0;
};
}  // namespace

struct CUstream_st {
  std::deque<Operation> queue;
  bool blocking = true;  // synchronizes with the legacy stream
  bool legacy = false;
  bool destroyed = false;
  cudasim::u64 done = 0;  // id of the last operation that has run
  CUgraph_st* capture = nullptr;
};
struct CUevent_st {
  CUstream_st* stream = nullptr;
  cudasim::u64 id = 0;
  bool recorded = false;
  bool destroyed = false;
};
struct CUgraph_st {
  std::vector<Operation> operations;
};
struct CUgraphExec_st {
  std::vector<Operation> operations;
};

namespace cudasim {
namespace {

struct State {
  CUstream_st legacy;
  std::vector<CUstream_st*> streams;  // created and not destroyed
  u64 next_id = 1;
  Random random{settings().seed};
  LiveObjects live;
  State() { legacy.legacy = true; }
};
State& state() {
  static State* s = new State;
  return *s;
}

CUstream_st* stream_of(cudaStream_t s) {
  if (s == nullptr || s == cudaStreamLegacy || s == cudaStreamPerThread) return &state().legacy;
  if (s->destroyed) fail("a stream is used after it was destroyed");
  return s;
}

// Runs the operations of s up to and including `id`.
void run_until(CUstream_st* s, u64 id) {
  while (!s->queue.empty() && s->queue.front().id <= id) {
    const Operation o = std::move(s->queue.front());
    s->queue.pop_front();
    if (o.after) run_until(o.after, o.after_id);
    if (o.work) o.work();
    s->done = o.id;
  }
}
void drain(CUstream_st* s) { run_until(s, ~u64{0}); }

void wait_for(CUstream_st* s, CUstream_st* other) {
  if (other->queue.empty()) return;
  s->queue.push_back(
      {state().next_id++, "order with the legacy stream", nullptr, other, other->queue.back().id});
}

void after_enqueue() {
  if (settings().streams == StreamMode::kEager) synchronize_all();
  if (settings().streams != StreamMode::kRandom) return;
  const u64 draw = state().random.next();
  const auto& streams = state().streams;
  const std::size_t pick = draw % (streams.size() + 1);
  CUstream_st* s = pick == streams.size() ? &state().legacy : streams[pick];
  for (u64 steps = (draw >> 32) % 3; steps > 0 && !s->queue.empty(); --steps)
    run_until(s, s->queue.front().id);
}

// Calls that wait are not allowed while a stream records.
bool anything_captures() {
  return std::any_of(state().streams.begin(), state().streams.end(),
                     [](const CUstream_st* s) { return s->capture; });
}

}  // namespace

std::recursive_mutex& api_mutex() {
  static std::recursive_mutex* m = new std::recursive_mutex;
  return *m;
}

bool is_capturing(cudaStream_t stream) { return stream_of(stream)->capture != nullptr; }

void enqueue(cudaStream_t stream, std::string what, Work work) {
  CUstream_st* s = stream_of(stream);
  if (s->capture) {
    s->capture->operations.push_back({0, std::move(what), std::move(work)});
    return;
  }
  if (s->legacy) {
    for (CUstream_st* other : state().streams)
      if (other->blocking) wait_for(s, other);
  } else if (s->blocking) {
    wait_for(s, &state().legacy);
  }
  s->queue.push_back({state().next_id++, std::move(what), std::move(work)});
  after_enqueue();
}

void synchronize(cudaStream_t stream) { drain(stream_of(stream)); }

void synchronize_all() {
  drain(&state().legacy);
  const auto streams = state().streams;
  for (CUstream_st* s : streams) drain(s);
}

std::size_t pending_operations() {
  std::size_t n = state().legacy.queue.size();
  for (const CUstream_st* s : state().streams) n += s->queue.size();
  return n;
}

LiveObjects live_objects() {
  LiveObjects live = state().live;
  live.streams = state().streams.size();
  return live;
}

}  // namespace cudasim

using namespace cudasim;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  CUDASIM_API;
  if (injected(CallKind::kOther)) return remember(cudaErrorMemoryAllocation);
  auto* s = new CUstream_st;
  s->blocking = !(flags & cudaStreamNonBlocking);
  state().streams.push_back(s);
  *stream = s;
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  CUDASIM_API;
  CUstream_st* s = stream_of(stream);
  if (s->legacy) return remember(cudaErrorInvalidResourceHandle);
  drain(s);
  s->destroyed = true;  // kept, so that later uses are noticed
  std::erase(state().streams, s);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  CUDASIM_API;
  if (is_capturing(stream)) return remember(cudaErrorStreamCaptureUnsupported);
  synchronize(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  CUDASIM_API;
  return stream_of(stream)->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  CUDASIM_API;
  if (event->destroyed) fail("an event is used after it was destroyed");
  CUstream_st* s = stream_of(stream);
  if (s->capture) fail("cudaStreamWaitEvent while the stream records a graph is not supported");
  if (event->recorded && event->stream->done < event->id && event->stream != s) {
    s->queue.push_back({state().next_id++, "wait for an event", nullptr, event->stream, event->id});
  }
  return cudaSuccess;
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
  CUDASIM_API;
  *flags = stream_of(stream)->blocking ? cudaStreamDefault : cudaStreamNonBlocking;
  return cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  CUDASIM_API;
  stream_of(stream);
  *priority = 0;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  CUDASIM_API;
  if (injected(CallKind::kOther)) return remember(cudaErrorMemoryAllocation);
  *event = new CUevent_st;
  ++state().live.events;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  CUDASIM_API;
  if (event->destroyed) fail("an event is destroyed twice");
  event->destroyed = true;
  --state().live.events;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  CUDASIM_API;
  if (event->destroyed) fail("an event is used after it was destroyed");
  CUstream_st* s = stream_of(stream);
  if (s->capture) fail("cudaEventRecord while the stream records a graph is not supported");
  event->stream = s;
  event->recorded = true;
  enqueue(stream, "event", nullptr);
  event->id = s->queue.empty() ? s->done : s->queue.back().id;  // it may have run at once
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  CUDASIM_API;
  if (event->destroyed) fail("an event is used after it was destroyed");
  if (event->recorded) run_until(event->stream, event->id);
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  CUDASIM_API;
  if (event->destroyed) fail("an event is used after it was destroyed");
  return !event->recorded || event->stream->done >= event->id ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  CUDASIM_API;
  if (!start->recorded || !end->recorded) return remember(cudaErrorInvalidResourceHandle);
  if (start->stream->done < start->id || end->stream->done < end->id) return cudaErrorNotReady;
  *ms = 0.001f;  // time means nothing here
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  CUDASIM_API;
  if (anything_captures()) return remember(cudaErrorStreamCaptureUnsupported);
  synchronize_all();
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  CUDASIM_API;
  if (injected(CallKind::kLaunch)) return remember(cudaErrorLaunchOutOfResources);
  enqueue(stream, "host function", [=] { function(data); });
  return cudaSuccess;
}

// --- graphs: what one stream does between begin and end of a capture

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  CUDASIM_API;
  CUstream_st* s = stream_of(stream);
  if (s->legacy) return remember(cudaErrorStreamCaptureUnsupported);
  if (s->capture) return remember(cudaErrorIllegalState);
  s->capture = new CUgraph_st;
  ++state().live.graphs;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  CUDASIM_API;
  CUstream_st* s = stream_of(stream);
  if (!s->capture) return remember(cudaErrorIllegalState);
  *graph = s->capture;
  s->capture = nullptr;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  CUDASIM_API;
  *status = is_capturing(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  CUDASIM_API;
  if (injected(CallKind::kOther)) return remember(cudaErrorMemoryAllocation);
  *exec = new CUgraphExec_st{graph->operations};
  ++state().live.graphs;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph,
                                          unsigned long long flags) {
  return cudaGraphInstantiate(exec, graph, flags);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  CUDASIM_API;
  if (injected(CallKind::kLaunch)) return remember(cudaErrorLaunchOutOfResources);
  for (const Operation& o : exec->operations) enqueue(stream, o.what, o.work);
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  CUDASIM_API;
  if (nodes) fail("cudaGraphGetNodes with an array is not supported");
  *count = graph->operations.size();
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  CUDASIM_API;
  delete graph;
  --state().live.graphs;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  CUDASIM_API;
  delete exec;
  --state().live.graphs;
  return cudaSuccess;
}
}
