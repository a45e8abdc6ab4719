// Self-test: streams, events, asynchronous copies, host functions, graphs, errors of launches.
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
