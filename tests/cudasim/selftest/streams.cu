// Self-test: streams, events, asynchronous copies, host functions, graphs, errors of launches.
#include <future>

#include "selftest.h"

namespace selftest {
namespace {

__global__ void add_one(int* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] += 1;
}
__global__ void copy(const int* from, int* to, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) to[i] = from[i];
}

void two_streams() {
  const int n = 300;
  cudaStream_t a, b;
  cudaEvent_t done;
  MUST(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
  MUST(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
  MUST(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
  int *host, *x, *y;
  MUST(cudaMallocHost(&host, n * sizeof(int)));
  MUST(cudaMallocAsync(&x, n * sizeof(int), a));
  MUST(cudaMallocAsync(&y, n * sizeof(int), a));
  for (int i = 0; i < n; ++i) host[i] = i;
  MUST(cudaMemcpyAsync(x, host, n * sizeof(int), cudaMemcpyHostToDevice, a));
  for (int k = 0; k < 3; ++k) add_one<<<3, 128, 0, a>>>(x, n);
  MUST(cudaEventRecord(done, a));
  MUST(cudaStreamWaitEvent(b, done, 0));
  copy<<<3, 128, 0, b>>>(x, y, n);
  MUST(cudaFreeAsync(x, b));
  std::vector<int> got(n);
  MUST(cudaMemcpyAsync(got.data(), y, n * sizeof(int), cudaMemcpyDeviceToHost, b));
  MUST(cudaStreamSynchronize(b));
  int wrong = 0;
  for (int i = 0; i < n; ++i) wrong += got[i] != i + 3;
  check("two streams with an event", wrong == 0 && cudaStreamQuery(b) == cudaSuccess);
  MUST(cudaFreeAsync(y, b));
  MUST(cudaStreamDestroy(a));
  MUST(cudaStreamDestroy(b));
  MUST(cudaEventDestroy(done));
  MUST(cudaFreeHost(host));
}

void legacy_stream() {
  cudaStream_t blocking;
  MUST(cudaStreamCreate(&blocking));
  Buffer<int> x(std::vector<int>(64, 5)), y(64);
  add_one<<<1, 64, 0, blocking>>>(x.get(), 64);
  copy<<<1, 64>>>(x.get(), y.get(), 64);         // waits for the blocking stream
  add_one<<<1, 64, 0, blocking>>>(y.get(), 64);  // waits for the legacy stream
  MUST(cudaStreamSynchronize(blocking));
  check("the legacy stream", y.host() == std::vector<int>(64, 7));
  MUST(cudaStreamDestroy(blocking));
}

void graph() {
  cudaStream_t s;
  MUST(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
  Buffer<int> x(std::vector<int>(64, 0));
  cudaGraph_t g;
  cudaGraphExec_t exec;
  MUST(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
  add_one<<<1, 64, 0, s>>>(x.get(), 64);
  add_one<<<1, 64, 0, s>>>(x.get(), 64);
  cudaStreamCaptureStatus status;
  MUST(cudaStreamIsCapturing(s, &status));
  MUST(cudaStreamEndCapture(s, &g));
  MUST(cudaGraphInstantiate(&exec, g, 0));
  for (int k = 0; k < 4; ++k) MUST(cudaGraphLaunch(exec, s));
  MUST(cudaStreamSynchronize(s));
  check("a graph", x.host() == std::vector<int>(64, 8) && status == cudaStreamCaptureStatusActive);
  MUST(cudaGraphExecDestroy(exec));
  MUST(cudaGraphDestroy(g));
  MUST(cudaStreamDestroy(s));
}

/// What must not be done while a stream records, and what becomes of the recording.
class Recording {
 public:
  explicit Recording(cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal,
                     unsigned flags = cudaStreamNonBlocking) {
    MUST(cudaStreamCreateWithFlags(&stream, flags));
    MUST(cudaStreamBeginCapture(stream, mode));
  }
  cudaError_t end() {
    cudaGraph_t g = nullptr;
    const cudaError_t error = cudaStreamEndCapture(stream, &g);
    cudaGetLastError();
    if (g) MUST(cudaGraphDestroy(g));
    return error;
  }
  /// True if `call` gives `error` and ends the recording.
  template <class F>
  bool ended_by(cudaError_t error, F call) {
    const cudaError_t got = call(stream);
    cudaStreamCaptureStatus status;
    MUST(cudaStreamIsCapturing(stream, &status));
    return got == error && status == cudaStreamCaptureStatusInvalidated &&
           end() == cudaErrorStreamCaptureInvalidated && end() == cudaErrorIllegalState;
  }
  ~Recording() { MUST(cudaStreamDestroy(stream)); }
  cudaStream_t stream;
};

template <class F>
void ends_recording(const char* what, cudaError_t error, F call) {
  check(what, Recording().ended_by(error, call));
}

void rules_of_recording() {
  const auto unsupported = cudaErrorStreamCaptureUnsupported;
  cudaGraph_t g;
  check("the legacy stream records nothing",
        cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed) == unsupported);
  ends_recording("begin twice", cudaErrorIllegalState, [](cudaStream_t s) {
    return cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
  });
  ends_recording("wait for the stream", unsupported,
                 [](cudaStream_t s) { return cudaStreamSynchronize(s); });
  ends_recording("ask the stream", unsupported, [](cudaStream_t s) { return cudaStreamQuery(s); });
  ends_recording("wait for the device", unsupported,
                 [](cudaStream_t) { return cudaDeviceSynchronize(); });
  ends_recording("wait for the device, elsewhere", unsupported, [](cudaStream_t) {
    return std::async(std::launch::async, [] { return cudaDeviceSynchronize(); }).get();
  });
  ends_recording("allocate", unsupported, [](cudaStream_t) {
    void* p = nullptr;
    return cudaMalloc(&p, 16);
  });
  ends_recording("free", unsupported, [](cudaStream_t) { return cudaFree(nullptr); });
  ends_recording("end on another thread", cudaErrorStreamCaptureWrongThread, [&](cudaStream_t s) {
    return std::async(std::launch::async, [&] { return cudaStreamEndCapture(s, &g); }).get();
  });
  cudaEvent_t e;
  MUST(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
  MUST(cudaEventRecord(e, nullptr));
  ends_recording("ask an event of others", unsupported,
                 [&](cudaStream_t) { return cudaEventQuery(e); });
  ends_recording("wait for work of others", cudaErrorStreamCaptureIsolation,
                 [&](cudaStream_t s) { return cudaStreamWaitEvent(s, e, 0); });
  ends_recording("ask an event that was recorded", cudaErrorCapturedEvent, [&](cudaStream_t s) {
    MUST(cudaEventRecord(e, s));
    MUST(cudaStreamWaitEvent(s, e, 0));
    return cudaEventQuery(e);
  });
  MUST(cudaEventDestroy(e));

  Recording blocking(cudaStreamCaptureModeThreadLocal, cudaStreamDefault);
  check("the legacy stream beside a blocking one that records",
        blocking.ended_by(cudaErrorStreamCaptureImplicit, [](cudaStream_t) {
          add_one<<<1, 64>>>(nullptr, 0);
          return cudaGetLastError();
        }));
  {
    Recording relaxed(cudaStreamCaptureModeRelaxed), global(cudaStreamCaptureModeGlobal);
    int* x = nullptr;
    check("another thread beside a global recording",
          global.ended_by(unsupported, [&](cudaStream_t) {
            return std::async(std::launch::async, [&] { return cudaMalloc(&x, 16); }).get();
          }));
    MUST(cudaMalloc(&x, 16));
    MUST(cudaFree(x));
    check("a relaxed recording allows calls that may wait", relaxed.end() == cudaSuccess);
  }
  Recording local;
  int* x = nullptr;
  MUST(std::async(std::launch::async, [&] { return cudaMalloc(&x, 16); }).get());
  check("other threads beside a recording of one", local.end() == cudaSuccess);
  MUST(cudaFree(x));
  cudaGetLastError();
}

/// Launches of one graph run one after another, whatever streams they are on.
void graph_on_two_streams() {
  const int n = 64;
  cudaStream_t a, b;
  MUST(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
  MUST(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
  Buffer<int> x(std::vector<int>(n, 0));
  cudaGraph_t g;
  cudaGraphExec_t exec;
  MUST(cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal));
  add_one<<<1, n, 0, a>>>(x.get(), n);
  MUST(cudaStreamEndCapture(a, &g));
  MUST(cudaGraphInstantiate(&exec, g, 0));
  MUST(cudaGraphDestroy(g));
  MUST(cudaStreamSynchronize(a));
  std::vector<int> got(n);
  MUST(cudaMemcpyAsync(got.data(), x.get(), n * sizeof(int), cudaMemcpyDeviceToHost, a));
  MUST(cudaStreamSynchronize(a));
  check("what is recorded does not run", got == std::vector<int>(n, 0));
  MUST(cudaGraphLaunch(exec, a));
  MUST(cudaGraphLaunch(exec, b));
  MUST(cudaMemcpyAsync(got.data(), x.get(), n * sizeof(int), cudaMemcpyDeviceToHost, b));
  MUST(cudaStreamSynchronize(b));
  check("a graph on two streams", got == std::vector<int>(n, 2));
  MUST(cudaGraphExecDestroy(exec));
  MUST(cudaStreamDestroy(a));
  MUST(cudaStreamDestroy(b));
}

void bad_launches() {
  Buffer<int> x(std::vector<int>(64, 0));
  add_one<<<1, 2048>>>(x.get(), 64);
  check("too many threads",
        cudaGetLastError() == cudaErrorInvalidConfiguration && cudaGetLastError() == cudaSuccess);
  add_one<<<dim3(1, 70000), 32>>>(x.get(), 64);
  check("too large a grid", cudaGetLastError() == cudaErrorInvalidConfiguration);
  add_one<<<1, 32, 60 * 1024>>>(x.get(), 64);
  check("too much shared memory", cudaGetLastError() == cudaErrorInvalidValue);
  MUST(cudaFuncSetAttribute(add_one, cudaFuncAttributeMaxDynamicSharedMemorySize, 60 * 1024));
  add_one<<<1, 32, 60 * 1024>>>(x.get(), 64);
  check("more shared memory on demand", cudaGetLastError() == cudaSuccess);
}

}  // namespace

void streams() {
  two_streams();
  legacy_stream();
  graph();
  rules_of_recording();
  graph_on_two_streams();
  bad_launches();
  cudaStream_t s;
  MUST(cudaStreamCreate(&s));
  int seen = 0;
  MUST(cudaLaunchHostFunc(
      s, [](void* p) { ++*static_cast<int*>(p); }, &seen));
  MUST(cudaStreamSynchronize(s));
  MUST(cudaStreamDestroy(s));
  check("a host function", seen == 1);
  Buffer<int> x(8);
  cudaPointerAttributes a;
  MUST(cudaPointerGetAttributes(&a, x.get() + 3));
  const bool device = a.type == cudaMemoryTypeDevice;
  MUST(cudaPointerGetAttributes(&a, &seen));
  check("attributes of pointers", device && a.type == cudaMemoryTypeUnregistered);
}

}  // namespace selftest
