// Loops that the compiler turns into vectors, compiled once for each instruction set of isa.h: the
// one mechanism for kernels that are plain C++. Nothing they call may be a function of its own, so
// it is marked TUTTI_INLINE. Multiply-adds are not fused, so every version computes the same bits.
#pragma once
#include <tutti/config.h>
#include <tutti/core/kernels/isa.h>

#if defined(__GNUC__)
#define TUTTI_INLINE inline __attribute__((always_inline))
#define TUTTI_INLINE_LAMBDA __attribute__((always_inline))  // behind its parameters
#else
#define TUTTI_INLINE inline
#define TUTTI_INLINE_LAMBDA
#endif

/// Promises that a loop's iterations do not depend on each other (an output may be exactly one of
/// the inputs).
#if defined(__clang__)
#define TUTTI_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define TUTTI_INDEPENDENT _Pragma("GCC ivdep")
#else
#define TUTTI_INDEPENDENT
#endif

// A GCC and Clang extension: code for a processor that the rest of the program does not require.
#if defined(__GNUC__) && defined(__x86_64__) && !defined(__CUDACC__)
#if TUTTI_ISA_AVX2
#define TUTTI_AVX2 __attribute__((target("avx2")))
#endif
#if TUTTI_ISA_AVX3
#define TUTTI_AVX3 __attribute__((target("avx2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")))
#endif
#endif

namespace tutti::kernels {

/// The code of Body::run(args...), compiled several times.
template <class Body, class... Args>
struct Versions {
  using Function = void (*)(Args...);
  static void any(Args... args) { Body::run(args...); }
#ifdef TUTTI_AVX2
  TUTTI_AVX2 static void avx2(Args... args) { Body::run(args...); }
#endif
#ifdef TUTTI_AVX3
  TUTTI_AVX3 static void avx3(Args... args) { Body::run(args...); }
#endif
  /// The one to use. SSE4 adds little to what every x86-64 has.
  static Function of([[maybe_unused]] Isa isa) {
#ifdef TUTTI_AVX3
    if (isa == Isa::avx3) return avx3;
#endif
#ifdef TUTTI_AVX2
    if (isa == Isa::avx2) return avx2;
#endif
    return any;
  }
};

/// Body::run for the instruction set in use. Body::run is TUTTI_INLINE.
template <class Body>
auto version() {
  return []<class... Args>(void (*)(Args...)) {
    return Versions<Body, Args...>::of(isa());
  }(&Body::run);
}

}  // namespace tutti::kernels
