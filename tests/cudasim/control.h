/* What a test program may look up with dlsym(RTLD_DEFAULT, ...) when it runs on the executor. With
 * the real CUDA runtime these symbols are not there. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/** The nth call from now on of a kind ("malloc", "launch", "copy", "other", "any") fails, once. n =
 * 0: none. */
void cudasim_fail_at(unsigned long long n, const char* kind);
/** Calls so far of a kind that could have failed. */
unsigned long long cudasim_calls(const char* kind);
/** 1 if the failure asked for has happened. */
int cudasim_failed(void);

/** Device memory: bytes and allocations that are live, and the most bytes that ever were. */
unsigned long long cudasim_live_bytes(void);
unsigned long long cudasim_live_allocations(void);
unsigned long long cudasim_peak_bytes(void);

/** Races found so far. */
unsigned long long cudasim_races(void);
/** Kernel launches so far, those by graphs included (host functions and cuBLAS not counted). */
unsigned long long cudasim_launches(void);
/** Launches of graphs so far. */
unsigned long long cudasim_graph_launches(void);

/** Kernels launched since the last clear, one mangled name a line, those of a graph whenever it is
 * launched. The text lives until the next call. */
const char* cudasim_launch_log(void);
void cudasim_clear_launch_log(void);

/** cuBLAS calls since the last clear (one that a graph repeats counts when it is recorded), one a
 * line: "gemm op=NT m=4 n=3 k=5 count=8 a=f32 lda=4 stride=20 b=f32 ldb=3 stride=15 c=f32 ldc=4
 * stride=12 compute=f32 alpha=1 beta=0 tf32=0 pointers=0". The text lives until the next call. From
 * libcublas. */
const char* cudasim_cublas_log(void);
void cudasim_clear_cublas_log(void);

#ifdef __cplusplus
}
#endif
