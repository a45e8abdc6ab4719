// Self-test of the executor: a device buffer, a check that counts, and the list of groups.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <cuda_runtime.h>

namespace selftest {

/// Counts of checks so far.
struct Tally {
  int passed = 0;
  int failed = 0;
};
inline Tally& tally() {
  static Tally counts;
  return counts;
}

/// One check: prints its name only if it fails.
inline void check(const char* what, bool ok) {
  if (ok) {
    ++tally().passed;
  } else {
    ++tally().failed;
    std::printf("FAILED %s\n", what);
  }
}

/// Stops the program if a call of the runtime fails.
inline void must(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(2);
}
#define MUST(call) ::selftest::must((call), #call)

/// Device memory that holds a copy of a vector.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t n) : n_(n) { MUST(cudaMalloc(&data_, n * sizeof(T))); }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    MUST(cudaMemcpy(data_, values.data(), n_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { MUST(cudaFree(data_)); }

  T* get() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> values(n_);
    MUST(cudaMemcpy(values.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t n_;
};

/// Some floats in [-range, range], the same every time.
inline std::vector<float> numbers(std::size_t n, float range = 1.0f, unsigned seed = 1) {
  std::vector<float> values(n);
  unsigned state = seed * 2654435761u + 12345u;
  for (float& v : values) {
    state = state * 1664525u + 1013904223u;
    v = (static_cast<float>(state >> 8) / 8388608.0f - 1.0f) * range;
  }
  return values;
}

/// Largest |got - want| / (floor + |want|).
template <class A, class B>
double worst(const std::vector<A>& got, const std::vector<B>& want, double floor = 1e-3) {
  double error = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double g = static_cast<double>(got[i]), w = static_cast<double>(want[i]);
    const double e = std::fabs(g - w) / (floor + std::fabs(w));
    if (!(e <= error)) error = e == e ? e : 1e300;  // NaN is the worst
  }
  return error;
}

void elementwise();
void block();
void math();
void cub_primitives();
void calls();
void streams();
void gemm();
void injection();
void logs();

}  // namespace selftest
