// Errors on the host's side: order of streams, lifetimes, arguments of cuBLAS.
#include <cublas_v2.h>

#include "broken.h"

namespace {

__global__ void fill(float* x, float v, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = v;
}
__global__ void copy(const float* from, float* to, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) to[i] = from[i];
}

cudaStream_t stream() {
  cudaStream_t s;
  MUST(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
  return s;
}

void gemm(long long stride_c, std::size_t cells_of_c) {
  cublasHandle_t h;
  cublasCreate(&h);
  const std::vector<float> ones(32, 1.f);
  const float one = 1.f, zero = 0.f;
  float *a = device(ones), *b = device(ones), *c = device<float>(cells_of_c);
  const cublasStatus_t s = cublasSgemmStridedBatched(h, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, a,
                                                     4, 16, b, 4, 16, &zero, c, 4, stride_c, 2);
  if (s != CUBLAS_STATUS_SUCCESS) std::exit(2);
}

const std::vector<float> kOnes(256, 1.f);

cudaGraphExec_t filling_graph(cudaStream_t s, float* x) {
  cudaGraph_t g;
  cudaGraphExec_t exec;
  MUST(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
  fill<<<2, 128, 0, s>>>(x, 3.f, 256);
  MUST(cudaStreamEndCapture(s, &g));
  MUST(cudaGraphInstantiate(&exec, g, 0));
  MUST(cudaGraphDestroy(g));
  return exec;
}

const std::vector<Broken> kAll = {
    {"read_before_sync",
     [] {
       cudaStream_t s = stream();
       float* x = device(kOnes);
       std::vector<float> host(256);
       MUST(cudaMemcpyAsync(host.data(), x, 256 * sizeof(float), cudaMemcpyDeviceToHost, s));
       expect(host[7], 1.f);
     }},
    {"no_event",
     [] {
       cudaStream_t a = stream(), b = stream();
       float *x = device(kOnes), *y = device<float>(256);
       fill<<<2, 128, 0, a>>>(x, 3.f, 256);
       copy<<<2, 128, 0, b>>>(x, y, 256);
       MUST(cudaStreamSynchronize(b));
       std::vector<float> host(256);
       MUST(cudaMemcpyAsync(host.data(), y, 256 * sizeof(float), cudaMemcpyDeviceToHost, b));
       MUST(cudaStreamSynchronize(b));
       expect(host[7], 3.f);
     }},
    {"source_changed",
     [] {
       cudaStream_t s = stream();
       std::vector<float> host(256, 2.f);
       MUST(cudaMemcpyAsync(device(kOnes), host.data(), 256 * sizeof(float), cudaMemcpyHostToDevice,
                            s));
       host[9] = 0.f;
       MUST(cudaStreamSynchronize(s));
     }},
    {"leak", [] { device(kOnes); }},
    {"stream_leak", [] { stream(); }},
    {"stream_after_destroy",
     [] {
       cudaStream_t s = stream();
       MUST(cudaStreamDestroy(s));
       fill<<<1, 32, 0, s>>>(device<float>(32), 1.f, 32);
     }},
    {"never_waited_for",
     [] {
       fill<<<2, 128, 0, stream()>>>(device(kOnes), 1.f, 256);
       std::exit(0);
     }},
    {"graph_leak", [] { filling_graph(stream(), device(kOnes)); }},
    {"graph_after_destroy",
     [] {
       cudaStream_t s = stream();
       cudaGraphExec_t g = filling_graph(s, device(kOnes));
       MUST(cudaGraphExecDestroy(g));
       MUST(cudaGraphLaunch(g, s));
     }},
    {"graph_destroyed_too_early",
     [] {
       cudaStream_t s = stream();
       cudaGraphExec_t g = filling_graph(s, device(kOnes));
       MUST(cudaGraphLaunch(g, s));
       MUST(cudaGraphExecDestroy(g));
     }},
    {"graph_memory_freed",
     [] {
       cudaStream_t s = stream();
       float* x = device(kOnes);
       cudaGraphExec_t g = filling_graph(s, x);
       MUST(cudaFree(x));
       MUST(cudaGraphLaunch(g, s));
       MUST(cudaStreamSynchronize(s));
     }},
    {"workspace_freed",
     [] {
       cublasHandle_t h;
       cublasCreate(&h);
       float* x = device(kOnes);
       float* workspace = device<float>(1024);
       const float one = 1.f;
       cublasSetWorkspace(h, workspace, 4096);
       MUST(cudaFree(workspace));
       cublasSgemmStridedBatched(h, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, x, 4, 16, x + 16, 4,
                                 16, &one, x + 32, 4, 16, 1);
       MUST(cudaDeviceSynchronize());
     }},
    {"too_many_threads",
     [] {
       fill<<<1, 2048>>>(device(kOnes), 1.f, 256);
       MUST(cudaGetLastError());
     }},
    {"gemm_overlap", [] { gemm(15, 32); }},
    {"gemm_beyond", [] { gemm(16, 31); }},
};

}  // namespace

int main(int argc, char** argv) { return run_named(argc, argv, kAll); }
