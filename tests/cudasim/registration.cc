// The private entry points that nvcc-built code calls: registration of modules, kernels and
// variables, and launches.
#include "registration.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

#include <cuda_runtime_api.h>

#include "launch_log.h"
#include "ptx_parse.h"
#include "streams.h"

namespace cudasim {
namespace {

constexpr u32 kDefaultDynamicShared = 48 * 1024;

// A fat binary: PTX text as nvcc has embedded it, decoded when something of it is used first.
struct LoadedModule {
  std::string ptx;
  std::unique_ptr<ptx::Module> parsed;
  std::unique_ptr<Program> program;

  Program& load() {
    if (!program) {
      parsed = std::make_unique<ptx::Module>(ptx::parse(ptx));
      program = decode(*parsed);
    }
    return *program;
  }
};

struct Registered {
  LoadedModule* module;
  std::string name;
};

struct Registry {
  std::vector<std::unique_ptr<LoadedModule>> modules;
  std::map<const void*, Registered> kernels, variables;
  std::map<const Function*, u32> dynamic_shared;
};
Registry& registry() {
  static Registry* r = new Registry;
  return *r;
}

template <class T>
T read(const char* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

int architecture_of(const std::string& ptx) {
  static const std::string kTarget = ".target sm_";
  const std::size_t at = ptx.find(kTarget);
  return at == std::string::npos ? 0 : std::atoi(ptx.c_str() + at + kTarget.size());
}

// The PTX in a fat binary, for the architecture that CUDASIM_ARCH asks for, or else the newest.
// Header: magic, version, header bytes (at 6), bytes that follow (at 8); entries: kind (1 is PTX),
// header bytes (at 4), bytes that follow (at 8).
std::string ptx_of(const char* fatbin) {
  if (read<u32>(fatbin) != 0xba55ed50u) fail("a fat binary has an unknown format");
  const char* wanted = std::getenv("CUDASIM_ARCH");
  const char* at = fatbin + read<u16>(fatbin + 6);
  const char* const end = at + read<u64>(fatbin + 8);
  std::string best;
  while (at < end) {
    const u32 header = read<u32>(at + 4);
    const u64 size = read<u64>(at + 8);
    if (read<u16>(at) == 1) {
      const std::string ptx(at + header, strnlen(at + header, size));
      const int architecture = architecture_of(ptx);
      if (architecture == 0) fail("the PTX is compressed: build with nvcc -no-compress");
      const bool better =
          wanted ? architecture == std::atoi(wanted) : architecture > architecture_of(best);
      if (better) best = ptx;
    }
    at += header + size;
  }
  if (best.empty()) {
    fail("a fat binary without PTX%s%s: build with -gencode arch=compute_XX,code=compute_XX",
         wanted ? " for compute_" : "", wanted ? wanted : "");
  }
  return best;
}

}  // namespace

LaunchLog& launch_log() {
  static LaunchLog* log = new LaunchLog;
  return *log;
}

const Function& kernel_of(const void* host) {
  const auto it = registry().kernels.find(host);
  if (it == registry().kernels.end()) fail("a function that is no registered kernel is launched");
  Program& program = it->second.module->load();
  const auto f = program.functions.find(it->second.name);
  if (f == program.functions.end()) fail("no PTX for kernel %s", it->second.name.c_str());
  return *f->second;
}

u32& dynamic_shared_limit(const Function& kernel) {
  return registry().dynamic_shared.try_emplace(&kernel, kDefaultDynamicShared).first->second;
}

bool variable_of(const void* host, u64& address, u64& size) {
  const auto it = registry().variables.find(host);
  if (it == registry().variables.end()) return false;
  const Program& program = it->second.module->load();
  const auto v = program.variables.find(it->second.name);
  if (v == program.variables.end()) return false;
  address = v->second;
  size = program.variable_sizes.at(it->second.name);
  return true;
}

int target_architecture() {
  static int architecture = 0;
  if (architecture) return architecture;
  for (const auto& m : registry().modules) return architecture = architecture_of(m->ptx);
  return 90;
}

std::vector<const Program*> all_programs() {
  std::vector<const Program*> all;
  for (const auto& m : registry().modules) all.push_back(&m->load());
  return all;
}

}  // namespace cudasim

using namespace cudasim;

namespace {

struct FatbinWrapper {
  int magic, version;
  const char* data;
  void* unused;
};

struct Configuration {
  dim3 grid, block;
  std::size_t shared;
  void* stream;
};
thread_local std::vector<Configuration> configurations;

}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  CUDASIM_API;
  auto m = std::make_unique<LoadedModule>();
  m->ptx = ptx_of(static_cast<FatbinWrapper*>(wrapper)->data);
  registry().modules.push_back(std::move(m));
  return reinterpret_cast<void**>(registry().modules.back().get());
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }

void __cudaRegisterFunction(void** module, const char* host, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  CUDASIM_API;
  registry().kernels[host] = {reinterpret_cast<LoadedModule*>(module), name};
}
void __cudaRegisterVar(void** module, char* host, char*, const char* name, int, std::size_t, int,
                       int) {
  CUDASIM_API;
  registry().variables[host] = {reinterpret_cast<LoadedModule*>(module), name};
}
void __cudaRegisterManagedVar(void**, void**, char*, const char* name, int, std::size_t, int, int) {
  fail("the managed variable %s is not supported", name);
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, std::size_t shared,
                                     CUstream_st* stream) {
  configurations.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, std::size_t* shared, void* stream) {
  if (configurations.empty()) return cudaErrorMissingConfiguration;
  const Configuration& c = configurations.back();
  *grid = c.grid;
  *block = c.block;
  *shared = c.shared;
  *static_cast<void**>(stream) = c.stream;
  configurations.pop_back();
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(host));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** args,
                               std::size_t shared, cudaStream_t stream) {
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, args, shared, stream);
}
}
