// Streams, events and graphs.
#include "streams.h"

#include <algorithm>
#include <memory>
#include <thread>

#include "inject.h"
#include "launch_log.h"

namespace {
struct Operation {
  cudasim::u64 id;
  std::string what;
  cudasim::Work work;
  CUstream_st* after = nullptr;  // runs only when this stream has got to after_id
  cudasim::u64 after_id = 0;
  bool kernel = false;
};
/// A graph that is being recorded.
struct Capture {
  CUgraph_st* graph;
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  bool invalid = false;  // something was done that must not be
};
}  // namespace

struct CUstream_st {
  std::deque<Operation> queue;
  bool blocking = true;  // synchronizes with the legacy stream
  bool legacy = false;
  bool destroyed = false;
  cudasim::u64 done = 0;  // id of the last operation that has run
  std::unique_ptr<Capture> capture;
};
struct CUevent_st {
  CUstream_st* stream = nullptr;
  cudasim::u64 id = 0;
  bool recorded = false;
  bool captured = false;  // last recorded in a stream that records: no point in time
  bool destroyed = false;
};
struct CUgraph_st {
  std::vector<Operation> operations;
  bool destroyed = false;  // kept, so that later uses are noticed
};
struct CUgraphExec_st {
  std::vector<Operation> operations;
  CUstream_st* last = nullptr;  // the last launch
  cudasim::u64 last_id = 0;
  bool destroyed = false;
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

// Ends all recordings that `concerned` says; an error if there were any.
template <class F>
cudaError_t refuse(cudaError_t error, F concerned) {
  bool any = false;
  for (CUstream_st* s : state().streams) {
    if (!s->capture || !concerned(*s)) continue;
    s->capture->invalid = true;
    any = true;
  }
  return any ? remember(error) : cudaSuccess;
}
cudaError_t refuse(CUstream_st* s, cudaError_t error) {
  return refuse(error, [s](const CUstream_st& other) { return &other == s; });
}

void must_live(const CUevent_st* event) {
  if (event->destroyed) fail("an event is used after it was destroyed");
}
void must_live(const CUgraph_st* graph) {
  if (graph->destroyed) fail("a graph is used after it was destroyed");
}
void must_live(const CUgraphExec_st* exec) {
  if (exec->destroyed) fail("an executable graph is used after it was destroyed");
}
u64 last_id(const CUstream_st* s) { return s->queue.empty() ? s->done : s->queue.back().id; }

}  // namespace

std::recursive_mutex& api_mutex() {
  static std::recursive_mutex* m = new std::recursive_mutex;
  return *m;
}

bool is_capturing(cudaStream_t stream) { return stream_of(stream)->capture != nullptr; }

cudaError_t forbidden_while_recording() {
  return refuse(cudaErrorStreamCaptureUnsupported, [](const CUstream_st& s) {
    return s.capture->mode == cudaStreamCaptureModeGlobal ||
           (s.capture->mode == cudaStreamCaptureModeThreadLocal &&
            s.capture->thread == std::this_thread::get_id());
  });
}

cudaError_t enqueue(cudaStream_t stream, std::string what, Work work, bool kernel) {
  CUstream_st* s = stream_of(stream);
  Operation o{0, std::move(what), std::move(work), nullptr, 0, kernel};
  if (s->capture) {
    if (s->capture->invalid) return remember(cudaErrorStreamCaptureInvalidated);
    s->capture->graph->operations.push_back(std::move(o));
    return cudaSuccess;
  }
  if (s->legacy) {
    const cudaError_t error = refuse(cudaErrorStreamCaptureImplicit,
                                     [](const CUstream_st& other) { return other.blocking; });
    if (error != cudaSuccess) return error;
    for (CUstream_st* other : state().streams)
      if (other->blocking) wait_for(s, other);
  } else if (s->blocking) {
    wait_for(s, &state().legacy);
  }
  if (kernel) {
    ++launch_log().count;
    launch_log().text += o.what + '\n';
  }
  o.id = state().next_id++;
  s->queue.push_back(std::move(o));
  after_enqueue();
  return cudaSuccess;
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
  if (s->capture) fail("a stream is destroyed while it records a graph");
  drain(s);
  s->destroyed = true;  // kept, so that later uses are noticed
  std::erase(state().streams, s);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  CUDASIM_API;
  if (is_capturing(stream)) return refuse(stream_of(stream), cudaErrorStreamCaptureUnsupported);
  CUDASIM_MAY_WAIT;
  synchronize(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  CUDASIM_API;
  if (is_capturing(stream)) return refuse(stream_of(stream), cudaErrorStreamCaptureUnsupported);
  CUDASIM_MAY_WAIT;
  return stream_of(stream)->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  CUDASIM_API;
  must_live(event);
  CUstream_st* s = stream_of(stream);
  if (injected(CallKind::kOther)) return remember(cudaErrorUnknown);
  if (!event->recorded) return cudaSuccess;
  if (event->captured) {
    if (event->stream != s) fail("a graph that is recorded from several streams is not supported");
    return cudaSuccess;
  }
  if (s->capture) return refuse(s, cudaErrorStreamCaptureIsolation);
  if (event->stream->done < event->id && event->stream != s)
    s->queue.push_back({state().next_id++, "wait for an event", nullptr, event->stream, event->id});
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
  must_live(event);
  CUstream_st* s = stream_of(stream);
  if (injected(CallKind::kOther)) return remember(cudaErrorUnknown);
  if (s->capture && s->capture->invalid) return remember(cudaErrorStreamCaptureInvalidated);
  if (!s->capture)
    if (const cudaError_t error = enqueue(stream, "event", nullptr); error != cudaSuccess)
      return error;
  event->stream = s;
  event->recorded = true;
  event->captured = s->capture != nullptr;
  event->id = last_id(s);  // it may have run at once
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  CUDASIM_API;
  must_live(event);
  if (event->captured) return refuse(event->stream, cudaErrorCapturedEvent);
  CUDASIM_MAY_WAIT;
  if (event->recorded) run_until(event->stream, event->id);
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  CUDASIM_API;
  must_live(event);
  if (event->captured) return refuse(event->stream, cudaErrorCapturedEvent);
  CUDASIM_MAY_WAIT;
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
  // Recording streams are streams of the device, whichever thread they belong to.
  const cudaError_t error =
      refuse(cudaErrorStreamCaptureUnsupported, [](const CUstream_st&) { return true; });
  if (error != cudaSuccess) return error;
  synchronize_all();
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  CUDASIM_API;
  if (injected(CallKind::kLaunch)) return remember(cudaErrorLaunchOutOfResources);
  return enqueue(stream, "host function", [=] { function(data); });
}

// --- graphs: what one stream does between begin and end of a capture

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  CUDASIM_API;
  if (injected(CallKind::kOther)) return remember(cudaErrorUnknown);
  CUstream_st* s = stream_of(stream);
  if (s->legacy) return remember(cudaErrorStreamCaptureUnsupported);
  if (s->capture) return refuse(s, cudaErrorIllegalState);
  s->capture = std::make_unique<Capture>(Capture{new CUgraph_st, mode, std::this_thread::get_id()});
  ++state().live.graphs;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  CUDASIM_API;
  *graph = nullptr;
  CUstream_st* s = stream_of(stream);
  if (!s->capture) return remember(cudaErrorIllegalState);
  if (s->capture->mode != cudaStreamCaptureModeRelaxed &&
      s->capture->thread != std::this_thread::get_id())
    return refuse(s, cudaErrorStreamCaptureWrongThread);
  const std::unique_ptr<Capture> ended = std::move(s->capture);
  const bool failing = injected(CallKind::kOther);
  if (failing || ended->invalid) {
    delete ended->graph;
    --state().live.graphs;
    return remember(failing ? cudaErrorUnknown : cudaErrorStreamCaptureInvalidated);
  }
  *graph = ended->graph;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  CUDASIM_API;
  const CUstream_st* s = stream_of(stream);
  *status = !s->capture           ? cudaStreamCaptureStatusNone
            : s->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                  : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long flags) {
  CUDASIM_API;
  must_live(graph);
  if (flags != 0) fail("cudaGraphInstantiate with flags %llu is not supported", flags);
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
  must_live(exec);
  CUstream_st* s = stream_of(stream);
  if (s->capture) fail("a graph launched while the stream records another one is not supported");
  if (injected(CallKind::kLaunch)) return remember(cudaErrorLaunchOutOfResources);
  ++launch_log().graphs;
  // An executable graph runs once at a time: a launch waits for the one before.
  if (exec->last && exec->last != s && exec->last->done < exec->last_id)
    s->queue.push_back(
        {state().next_id++, "the graph's last launch", nullptr, exec->last, exec->last_id});
  for (const Operation& o : exec->operations)
    if (const cudaError_t error = enqueue(stream, o.what, o.work, o.kernel); error != cudaSuccess)
      return error;
  exec->last = s;
  exec->last_id = last_id(s);
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  CUDASIM_API;
  must_live(graph);
  if (nodes) fail("cudaGraphGetNodes with an array is not supported");
  *count = graph->operations.size();
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  CUDASIM_API;
  must_live(graph);
  graph->destroyed = true;
  graph->operations.clear();
  --state().live.graphs;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  CUDASIM_API;
  must_live(exec);
  if (exec->last && exec->last->done < exec->last_id)
    fail("an executable graph is destroyed while it may still run");
  exec->destroyed = true;
  exec->operations.clear();
  --state().live.graphs;
  return cudaSuccess;
}
}
