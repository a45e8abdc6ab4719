// The multiply-add peak of one core: multiply-adds in twelve independent sums, enough to hide their
// latency.
#pragma once
#include <algorithm>

#include <tutti/core/kernels/isa.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace bench {

constexpr int kSums = 12, kRounds = 2000;

#ifdef __x86_64__
__attribute__((target("avx512f"))) inline float multiply_add_avx3() {
  const __m512 x = _mm512_set1_ps(0.5f);
  __m512 s[kSums];
  for (__m512& v : s) v = x;
  for (int i = 0; i < kRounds; ++i)
    for (int j = 0; j < kSums; ++j) s[j] = _mm512_fmadd_ps(s[j], x, x);
  for (int j = 1; j < kSums; ++j) s[0] = _mm512_add_ps(s[0], s[j]);
  return _mm512_cvtss_f32(s[0]);
}
__attribute__((target("avx2,fma"))) inline float multiply_add_avx2() {
  const __m256 x = _mm256_set1_ps(0.5f);
  __m256 s[kSums];
  for (__m256& v : s) v = x;
  for (int i = 0; i < kRounds; ++i)
    for (int j = 0; j < kSums; ++j) s[j] = _mm256_fmadd_ps(s[j], x, x);
  for (int j = 1; j < kSums; ++j) s[0] = _mm256_add_ps(s[0], s[j]);
  return _mm256_cvtss_f32(s[0]);
}
#endif
inline float multiply_add() {  // four lanes
  float s[kSums][4];
  for (auto& v : s) std::fill_n(v, 4, 0.5f);
  for (int i = 0; i < kRounds; ++i)
    for (auto& v : s)
      for (float& x : v) x = x * 0.5f + 0.5f;
  for (auto& v : s) s[0][0] += v[0] + v[1] + v[2] + v[3];
  return s[0][0];
}

/// A run of float32 multiply-adds with the instruction set in use; float64 has half the rate.
struct Peak {
  float (*run)() = multiply_add;
  double flops = 2.0 * kSums * kRounds * 4;

  Peak() {
#ifdef __x86_64__
    using tutti::kernels::Isa;
    const Isa isa = tutti::kernels::isa();
    if (isa == Isa::avx2) run = multiply_add_avx2, flops *= 2;
    if (isa == Isa::avx3) run = multiply_add_avx3, flops *= 4;
#endif
  }
};

}  // namespace bench
