// The runtime API: memory, copies, launches, devices, errors.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include <cuda_runtime_api.h>

#include "inject.h"
#include "launch_log.h"
#include "memory.h"
#include "ptx_exec.h"
#include "registration.h"
#include "streams.h"

namespace cudasim {
namespace {

thread_local cudaError_t last_error = cudaSuccess;

std::map<u64, std::size_t>& pinned() {
  static auto* m = new std::map<u64, std::size_t>;
  return *m;
}

u64 number(const void* p) { return reinterpret_cast<u64>(p); }

bool is_pinned(const void* p) {
  auto it = pinned().upper_bound(number(p));
  return it != pinned().begin() && (--it, number(p) < it->first + it->second);
}

u8* device_bytes(const void* p, std::size_t n, const char* what) {
  const Allocation* a = device_memory().find(number(p));
  if (!a) fail("%s: %s", what, device_memory().describe(number(p)).c_str());
  if (number(p) + n > a->end) {
    fail("%s: %zu bytes run over the end of an allocation by %llu", what, n,
         (unsigned long long)(number(p) + n - a->end));
  }
  return device_memory().bytes(number(p));
}

void must_be_host(const void* p, const char* what) {
  if (device_memory().in_range(number(p))) fail("%s: %p is a device pointer", what, p);
}

u64 hash(const void* p, std::size_t n) {
  u64 h = 1469598103934665603u;
  const u8* bytes = static_cast<const u8*>(p);
  for (; n >= 8; n -= 8, bytes += 8) {
    u64 v;
    std::memcpy(&v, bytes, 8);
    h = (h ^ v) * 1099511628211u;
    h ^= h >> 29;
  }
  for (std::size_t i = 0; i < n; ++i) h = (h ^ bytes[i]) * 1099511628211u;
  return h;
}

cudaError_t copy_to_device(void* to, const void* from, std::size_t n, cudaStream_t stream) {
  device_bytes(to, n, "copy to the device, target");
  must_be_host(from, "copy to the device, source");
  const bool check = !is_capturing(stream);  // a graph reads the source when it runs
  const u64 before = check ? hash(from, n) : 0;
  return enqueue(stream, "copy to the device", [=] {
    if (check && hash(from, n) != before)
      fail("the host changed the source of a copy to the device before the copy ran");
    std::memcpy(device_bytes(to, n, "copy to the device, target"), from, n);
  });
}

cudaError_t copy_to_host(void* to, const void* from, std::size_t n, cudaStream_t stream) {
  device_bytes(from, n, "copy to the host, source");
  must_be_host(to, "copy to the host, target");
  if (!is_capturing(stream)) std::memset(to, 0xa5, n);  // nobody may read it yet
  return enqueue(stream, "copy to the host",
                 [=] { std::memcpy(to, device_bytes(from, n, "copy to the host, source"), n); });
}

cudaError_t copy_on_device(void* to, const void* from, std::size_t n, cudaStream_t stream) {
  device_bytes(to, n, "copy on the device, target");
  device_bytes(from, n, "copy on the device, source");
  if (to != from && number(to) < number(from) + n && number(from) < number(to) + n)
    fail("copy on the device: source and target overlap");
  return enqueue(stream, "copy on the device", [=] {
    u8* t = device_bytes(to, n, "copy on the device, target");
    std::memmove(t, device_bytes(from, n, "copy on the device, source"), n);
  });
}

cudaMemcpyKind direction(const void* to, const void* from, cudaMemcpyKind kind) {
  if (kind != cudaMemcpyDefault) return kind;
  const bool d = device_memory().in_range(number(to)), s = device_memory().in_range(number(from));
  return d   ? (s ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
         : s ? cudaMemcpyDeviceToHost
             : cudaMemcpyHostToHost;
}

void release(void* p, const char* what) {
  const std::string where = device_memory().describe(number(p));
  if (!device_memory().release(number(p)))
    fail("%s: no live allocation starts there; %s", what, where.c_str());
}

struct ErrorName {
  cudaError_t error;
  const char *name, *text;
};
#define CUDASIM_ERROR(e, t) \
  { e, #e, t }
constexpr ErrorName kErrors[] = {
    CUDASIM_ERROR(cudaSuccess, "no error"),
    CUDASIM_ERROR(cudaErrorInvalidValue, "invalid argument"),
    CUDASIM_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    CUDASIM_ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    CUDASIM_ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    CUDASIM_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    CUDASIM_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    CUDASIM_ERROR(cudaErrorNotReady, "device not ready"),
    CUDASIM_ERROR(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    CUDASIM_ERROR(cudaErrorInvalidSymbol, "invalid device symbol"),
    CUDASIM_ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
    CUDASIM_ERROR(cudaErrorStreamCaptureUnsupported,
                  "operation not permitted when stream is capturing"),
    CUDASIM_ERROR(cudaErrorStreamCaptureInvalidated,
                  "operation failed due to a previous error during capture"),
    CUDASIM_ERROR(cudaErrorStreamCaptureIsolation,
                  "dependency created on uncaptured work in another stream"),
    CUDASIM_ERROR(cudaErrorStreamCaptureImplicit,
                  "operation would make the legacy stream depend on a capturing blocking stream"),
    CUDASIM_ERROR(cudaErrorStreamCaptureWrongThread,
                  "attempt to terminate a thread-local capture sequence from another thread"),
    CUDASIM_ERROR(cudaErrorCapturedEvent,
                  "operation not permitted on an event last recorded in a capturing stream"),
    CUDASIM_ERROR(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    CUDASIM_ERROR(cudaErrorUnknown, "unknown error"),
};
#undef CUDASIM_ERROR

struct Device {
  int major = target_architecture() / 10, minor = target_architecture() % 10;
  u32 shared_opt_in() const {
    switch (major) {
      case 7:
        return 64 * 1024;
      case 9:
      case 10:
        return 227 * 1024;
      default:
        return 99 * 1024;
    }
  }
};

cudaError_t launch(const Function& kernel, dim3 grid, dim3 block, void** args, std::size_t shared,
                   cudaStream_t stream) {
  const u64 threads = u64{block.x} * block.y * block.z;
  const bool shape = threads > 0 && threads <= 1024 && block.z <= 64 && grid.x > 0 && grid.y > 0 &&
                     grid.z > 0 && grid.x <= 2147483647u && grid.y <= 65535 && grid.z <= 65535;
  if (!shape) return remember(cudaErrorInvalidConfiguration);
  if (kernel.max_threads && threads > static_cast<u64>(kernel.max_threads))
    return remember(cudaErrorInvalidValue);
  if (shared > dynamic_shared_limit(kernel) ||
      kernel.shared_bytes + shared > Device().shared_opt_in())
    return remember(cudaErrorInvalidValue);
  if (kernel.shared_bytes > 48 * 1024) return remember(cudaErrorInvalidConfiguration);
  if (injected(CallKind::kLaunch)) return remember(cudaErrorLaunchOutOfResources);
  Launch l;
  l.kernel = &kernel;
  l.grid = {grid.x, grid.y, grid.z};
  l.block = {block.x, block.y, block.z};
  l.dynamic_shared = static_cast<u32>(shared);
  l.parameters.assign(kernel.in_bytes, 0);
  for (std::size_t k = 0; k < kernel.parameters.size(); ++k) {
    std::memcpy(l.parameters.data() + kernel.parameters[k].offset, args[k],
                kernel.parameters[k].size);
  }
  return enqueue(
      stream, kernel.name, [l = std::move(l)] { run(l); }, true);
}

}  // namespace

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

}  // namespace cudasim

using namespace cudasim;

extern "C" {

// --- memory

static cudaError_t allocate(void** p, std::size_t n) {
  if (injected(CallKind::kMalloc)) return remember(cudaErrorMemoryAllocation);
  *p = nullptr;
  if (n == 0) return cudaSuccess;
  const u64 address = device_memory().allocate(n);
  if (!address) return remember(cudaErrorMemoryAllocation);
  *p = reinterpret_cast<void*>(address);
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** p, std::size_t n) {
  CUDASIM_API;
  CUDASIM_MAY_WAIT;
  return allocate(p, n);
}

cudaError_t cudaFree(void* p) {
  CUDASIM_API;
  CUDASIM_MAY_WAIT;
  if (!p) return cudaSuccess;
  synchronize_all();
  release(p, "cudaFree");
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** p, std::size_t n, cudaStream_t stream) {
  CUDASIM_API;
  if (is_capturing(stream)) fail("memory that belongs to a graph is not supported");
  return allocate(p, n);
}
cudaError_t cudaMallocFromPoolAsync(void** p, std::size_t n, cudaMemPool_t, cudaStream_t stream) {
  return cudaMallocAsync(p, n, stream);
}

cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
  CUDASIM_API;
  if (!p) return cudaSuccess;
  if (is_capturing(stream)) fail("memory that belongs to a graph is not supported");
  device_bytes(p, 0, "cudaFreeAsync");
  return enqueue(stream, "free", [=] { release(p, "cudaFreeAsync"); });
}

cudaError_t cudaHostAlloc(void** p, std::size_t n, unsigned) {
  CUDASIM_API;
  CUDASIM_MAY_WAIT;
  if (injected(CallKind::kMalloc)) return remember(cudaErrorMemoryAllocation);
  *p = std::malloc(n ? n : 1);
  if (!*p) return remember(cudaErrorMemoryAllocation);
  std::memset(*p, 0xff, n);
  pinned()[number(*p)] = n;
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, std::size_t n) {
  return cudaHostAlloc(p, n, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void* p) {
  CUDASIM_API;
  CUDASIM_MAY_WAIT;
  if (!p) return cudaSuccess;
  synchronize_all();
  if (!pinned().erase(number(p))) fail("cudaFreeHost: %p was not allocated by cudaMallocHost", p);
  std::free(p);
  return cudaSuccess;
}

cudaError_t cudaHostRegister(void* p, std::size_t n, unsigned) {
  CUDASIM_API;
  CUDASIM_MAY_WAIT;
  pinned()[number(p)] = n;
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* p) {
  CUDASIM_API;
  CUDASIM_MAY_WAIT;
  return pinned().erase(number(p)) ? cudaSuccess : remember(cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  CUDASIM_API;
  *total = device_memory().capacity();
  *free = *total - device_memory().live_bytes();
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  CUDASIM_API;
  *a = {};
  a->type = device_memory().find(number(p)) ? cudaMemoryTypeDevice
            : is_pinned(p)                  ? cudaMemoryTypeHost
                                            : cudaMemoryTypeUnregistered;
  a->device = a->type == cudaMemoryTypeUnregistered ? cudaInvalidDeviceId : 0;
  if (a->type == cudaMemoryTypeDevice) a->devicePointer = const_cast<void*>(p);
  if (a->type == cudaMemoryTypeHost) a->hostPointer = const_cast<void*>(p);
  return cudaSuccess;
}

// --- copies

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t n, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  CUDASIM_API;
  if (injected(CallKind::kCopy)) return remember(cudaErrorUnknown);
  if (n == 0) return cudaSuccess;
  switch (direction(to, from, kind)) {
    case cudaMemcpyHostToDevice:
      return copy_to_device(to, from, n, stream);
    case cudaMemcpyDeviceToHost:
      return copy_to_host(to, from, n, stream);
    case cudaMemcpyDeviceToDevice:
      return copy_on_device(to, from, n, stream);
    case cudaMemcpyHostToHost:
      return enqueue(stream, "copy on the host", [=] { std::memcpy(to, from, n); });
    default:
      return remember(cudaErrorInvalidMemcpyDirection);
  }
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t n, cudaMemcpyKind kind) {
  CUDASIM_API;
  CUDASIM_MAY_WAIT;
  const cudaError_t error = cudaMemcpyAsync(to, from, n, kind, nullptr);
  // A copy on the device does not wait; the others do.
  if (error == cudaSuccess && direction(to, from, kind) != cudaMemcpyDeviceToDevice)
    synchronize(nullptr);
  return error;
}

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from,
                              std::size_t from_pitch, std::size_t width, std::size_t height,
                              cudaMemcpyKind kind, cudaStream_t stream) {
  CUDASIM_API;
  if (width > to_pitch || width > from_pitch) return remember(cudaErrorInvalidValue);
  for (std::size_t r = 0; r < height; ++r) {
    const cudaError_t error =
        cudaMemcpyAsync(static_cast<u8*>(to) + r * to_pitch,
                        static_cast<const u8*>(from) + r * from_pitch, width, kind, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}
cudaError_t cudaMemcpy2D(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                         std::size_t width, std::size_t height, cudaMemcpyKind kind) {
  CUDASIM_API;
  CUDASIM_MAY_WAIT;
  const cudaError_t error =
      cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, height, kind, nullptr);
  synchronize(nullptr);
  return error;
}

cudaError_t cudaMemsetAsync(void* p, int value, std::size_t n, cudaStream_t stream) {
  CUDASIM_API;
  if (injected(CallKind::kCopy)) return remember(cudaErrorUnknown);
  if (n == 0) return cudaSuccess;
  device_bytes(p, n, "cudaMemset");
  return enqueue(stream, "memset",
                 [=] { std::memset(device_bytes(p, n, "cudaMemset"), value, n); });
}
cudaError_t cudaMemset(void* p, int value, std::size_t n) {
  CUDASIM_API;
  CUDASIM_MAY_WAIT;
  return cudaMemsetAsync(p, value, n, nullptr);
}

cudaError_t cudaGetSymbolAddress(void** p, const void* symbol) {
  CUDASIM_API;
  u64 address = 0, size = 0;
  if (!variable_of(symbol, address, size)) return remember(cudaErrorInvalidSymbol);
  *p = reinterpret_cast<void*>(address);
  return cudaSuccess;
}
cudaError_t cudaGetSymbolSize(std::size_t* n, const void* symbol) {
  CUDASIM_API;
  u64 address = 0, size = 0;
  if (!variable_of(symbol, address, size)) return remember(cudaErrorInvalidSymbol);
  *n = size;
  return cudaSuccess;
}
cudaError_t cudaMemcpyToSymbolAsync(const void* symbol, const void* from, std::size_t n,
                                    std::size_t offset, cudaMemcpyKind kind, cudaStream_t stream) {
  void* p = nullptr;
  const cudaError_t error = cudaGetSymbolAddress(&p, symbol);
  return error == cudaSuccess ? cudaMemcpyAsync(static_cast<u8*>(p) + offset, from, n, kind, stream)
                              : error;
}
cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, std::size_t n,
                               std::size_t offset, cudaMemcpyKind kind) {
  CUDASIM_API;
  CUDASIM_MAY_WAIT;
  const cudaError_t error = cudaMemcpyToSymbolAsync(symbol, from, n, offset, kind, nullptr);
  synchronize(nullptr);
  return error;
}
cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* symbol, std::size_t n,
                                      std::size_t offset, cudaMemcpyKind kind,
                                      cudaStream_t stream) {
  void* p = nullptr;
  const cudaError_t error = cudaGetSymbolAddress(&p, symbol);
  return error == cudaSuccess ? cudaMemcpyAsync(to, static_cast<u8*>(p) + offset, n, kind, stream)
                              : error;
}
cudaError_t cudaMemcpyFromSymbol(void* to, const void* symbol, std::size_t n, std::size_t offset,
                                 cudaMemcpyKind kind) {
  CUDASIM_API;
  CUDASIM_MAY_WAIT;
  const cudaError_t error = cudaMemcpyFromSymbolAsync(to, symbol, n, offset, kind, nullptr);
  synchronize(nullptr);
  return error;
}

// --- launches

cudaError_t cudaLaunchKernel(const void* host, dim3 grid, dim3 block, void** args,
                             std::size_t shared, cudaStream_t stream) {
  CUDASIM_API;
  return launch(kernel_of(host), grid, block, args, shared, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* host, void** args) {
  CUDASIM_API;
  if (c->numAttrs > 0) fail("launch attributes are not supported");
  return launch(kernel_of(host), c->gridDim, c->blockDim, args, c->dynamicSmemBytes, c->stream);
}

cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute attribute, int value) {
  CUDASIM_API;
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
    fail("cudaFuncSetAttribute %d is not supported", attribute);
  const Function& kernel = kernel_of(host);
  if (value < 0 || kernel.shared_bytes + static_cast<u32>(value) > Device().shared_opt_in())
    return remember(cudaErrorInvalidValue);
  dynamic_shared_limit(kernel) = static_cast<u32>(value);
  return cudaSuccess;
}
cudaError_t cudaFuncSetCacheConfig(const void*, cudaFuncCache) { return cudaSuccess; }

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void* host) {
  CUDASIM_API;
  const Function& kernel = kernel_of(host);
  *a = {};
  a->sharedSizeBytes = kernel.shared_bytes;
  a->localSizeBytes = kernel.local_bytes;
  a->maxThreadsPerBlock = kernel.max_threads ? kernel.max_threads : 1024;
  a->numRegs = 32;  // ptxas knows; the executor does not
  a->ptxVersion = a->binaryVersion = target_architecture();
  a->maxDynamicSharedSizeBytes = static_cast<int>(dynamic_shared_limit(kernel));
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* host,
                                                                   int threads, std::size_t shared,
                                                                   unsigned) {
  CUDASIM_API;
  const Function& kernel = kernel_of(host);
  if (threads <= 0) return remember(cudaErrorInvalidValue);
  // Threads and shared memory only: registers are not known here.
  const int by_threads = 2048 / ((threads + 31) / 32 * 32);
  const std::size_t bytes = kernel.shared_bytes + shared;
  const int by_shared = bytes ? static_cast<int>(Device().shared_opt_in() / bytes) : 32;
  *blocks = std::min({by_threads, by_shared, 32});
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* host,
                                                          int threads, std::size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, host, threads, shared, 0);
}

// --- errors

cudaError_t cudaGetLastError() {
  const cudaError_t e = last_error;
  last_error = cudaSuccess;
  return e;
}
cudaError_t cudaPeekAtLastError() { return last_error; }
const char* cudaGetErrorString(cudaError_t error) {
  for (const ErrorName& e : kErrors)
    if (e.error == error) return e.text;
  return "unrecognized error code";
}
const char* cudaGetErrorName(cudaError_t error) {
  for (const ErrorName& e : kErrors)
    if (e.error == error) return e.name;
  return "unrecognized error code";
}

// --- devices

cudaError_t cudaGetDeviceCount(int* n) {
  *n = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : remember(cudaErrorInvalidDevice);
}
cudaError_t cudaInitDevice(int device, unsigned, unsigned) { return cudaSetDevice(device); }
cudaError_t cudaDeviceReset() {
  CUDASIM_API;
  CUDASIM_MAY_WAIT;
  synchronize_all();
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = 0;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  CUDASIM_API;
  if (device != 0) return remember(cudaErrorInvalidDevice);
  const Device d;
  *p = {};
  std::snprintf(p->name, sizeof p->name, "cudasim PTX executor");
  p->totalGlobalMem = device_memory().capacity();
  p->sharedMemPerBlock = 48 * 1024;
  p->sharedMemPerBlockOptin = d.shared_opt_in();
  p->sharedMemPerMultiprocessor = d.shared_opt_in() + 1024;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536;
  p->major = d.major;
  p->minor = d.minor;
  p->multiProcessorCount = 4;
  p->maxThreadsPerMultiProcessor = 2048;
  p->maxBlocksPerMultiProcessor = 32;
  p->memoryPoolsSupported = 1;
  p->unifiedAddressing = 1;
  p->concurrentKernels = 1;
  p->asyncEngineCount = 2;
  p->l2CacheSize = 4 << 20;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  CUDASIM_API;
  cudaDeviceProp p;
  const cudaError_t error = cudaGetDeviceProperties(&p, device);
  if (error != cudaSuccess) return error;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = p.multiProcessorCount;
      break;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = p.maxThreadsPerBlock;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = p.maxThreadsPerMultiProcessor;
      break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      *value = p.maxBlocksPerMultiProcessor;
      break;
    case cudaDevAttrWarpSize:
      *value = p.warpSize;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(p.sharedMemPerBlock);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(p.sharedMemPerBlockOptin);
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(p.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxGridDimX:
      *value = p.maxGridSize[0];
      break;
    case cudaDevAttrMaxGridDimY:
      *value = p.maxGridSize[1];
      break;
    case cudaDevAttrMaxGridDimZ:
      *value = p.maxGridSize[2];
      break;
    case cudaDevAttrMaxBlockDimX:
      *value = p.maxThreadsDim[0];
      break;
    case cudaDevAttrMaxBlockDimY:
      *value = p.maxThreadsDim[1];
      break;
    case cudaDevAttrMaxBlockDimZ:
      *value = p.maxThreadsDim[2];
      break;
    case cudaDevAttrMaxRegistersPerBlock:
      *value = p.regsPerBlock;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = p.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = p.minor;
      break;
    case cudaDevAttrMemoryPoolsSupported:
      *value = 1;
      break;
    case cudaDevAttrL2CacheSize:
      *value = p.l2CacheSize;
      break;
    default:
      fail("cudaDeviceGetAttribute %d is not supported", attribute);
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  static int the_pool;
  if (device != 0) return remember(cudaErrorInvalidDevice);
  *pool = reinterpret_cast<cudaMemPool_t>(&the_pool);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int device) {
  return cudaDeviceGetDefaultMemPool(pool, device);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
  CUDASIM_API;
  switch (attribute) {
    case cudaMemPoolAttrReservedMemCurrent:
    case cudaMemPoolAttrUsedMemCurrent:
      *static_cast<u64*>(value) = device_memory().live_bytes();
      return cudaSuccess;
    case cudaMemPoolAttrReservedMemHigh:
    case cudaMemPoolAttrUsedMemHigh:
      *static_cast<u64*>(value) = device_memory().peak_bytes();
      return cudaSuccess;
    default:
      fail("cudaMemPoolGetAttribute %d is not supported", attribute);
  }
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) { return cudaSuccess; }
}
