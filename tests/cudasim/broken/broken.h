// Programs that are wrong on purpose, one checker each: `program NAME` runs the one of that name.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <cuda_runtime.h>

struct Broken {
  const char* name;
  void (*run)();
};

/// Exit status of a program that has seen a wrong result.
inline constexpr int kWrongResult = 5;

inline void must(cudaError_t e, const char* what) {
  if (e == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(e));
  std::exit(2);
}
#define MUST(call) must((call), #call)

template <class T>
T* device(std::size_t n) {
  T* p;
  MUST(cudaMalloc(&p, n * sizeof(T)));
  return p;
}
template <class T>
T* device(const std::vector<T>& v) {
  T* p = device<T>(v.size());
  MUST(cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice));
  return p;
}

/// Ends the program if a value is not what it should be.
template <class T>
void expect(T got, T want) {
  if (got == want) return;
  std::printf("wrong result\n");
  std::fflush(stdout);
  std::exit(kWrongResult);
}

inline int run_named(int argc, char** argv, const std::vector<Broken>& all) {
  for (const Broken& b : all) {
    if (argc != 2 || std::strcmp(argv[1], b.name) != 0) continue;
    b.run();
    MUST(cudaDeviceSynchronize());
    std::printf("nothing was noticed\n");
    return 0;
  }
  std::printf("no such program\n");
  return 2;
}
