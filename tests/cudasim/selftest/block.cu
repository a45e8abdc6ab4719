// Self-test: shared memory, barriers, shuffles, votes, atomics, dynamic shared memory.
#include <cstdint>

#include "selftest.h"

namespace selftest {
namespace {

template <int kThreads>
__global__ void sum_rows(const float* x, float* out, int cols) {
  __shared__ float part[kThreads];
  const float* row = x + (size_t)blockIdx.x * cols;
  float sum = 0.f;
  for (int c = threadIdx.x; c < cols; c += kThreads) sum += row[c];
  part[threadIdx.x] = sum;
  __syncthreads();
  for (int w = kThreads / 2; w > 0; w >>= 1) {
    if (threadIdx.x < w) part[threadIdx.x] += part[threadIdx.x + w];
    __syncthreads();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = part[0];
}

__device__ float warp_max(float v) {
  for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}
__device__ float warp_sum(float v) {
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

__global__ void softmax_rows(const float* x, float* out, int rows, int cols) {
  const int row = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= rows) return;
  const float* p = x + (size_t)row * cols;
  float* q = out + (size_t)row * cols;
  float top = -INFINITY;
  for (int c = lane; c < cols; c += 32) top = fmaxf(top, p[c]);
  top = warp_max(top);
  float sum = 0.f;
  for (int c = lane; c < cols; c += 32) sum += expf(p[c] - top);
  const float scale = 1.f / warp_sum(sum);
  for (int c = lane; c < cols; c += 32) q[c] = expf(p[c] - top) * scale;
}

__global__ void scatter_add(const float* src, const int* index, float* dst, int n, int cols) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n * cols) atomicAdd(&dst[index[i / cols] * cols + i % cols], src[i]);
}

constexpr int kTile = 32, kStep = 8;
__global__ void transpose(const float* x, float* out, int rows, int cols) {
  __shared__ float tile[kTile][kTile + 1];
  const int c = blockIdx.x * kTile + threadIdx.x, r0 = blockIdx.y * kTile + threadIdx.y;
  for (int j = 0; j < kTile; j += kStep)
    if (r0 + j < rows && c < cols)
      tile[threadIdx.y + j][threadIdx.x] = x[(size_t)(r0 + j) * cols + c];
  __syncthreads();
  const int c2 = blockIdx.y * kTile + threadIdx.x, r2 = blockIdx.x * kTile + threadIdx.y;
  for (int j = 0; j < kTile; j += kStep)
    if (r2 + j < cols && c2 < rows)
      out[(size_t)(r2 + j) * rows + c2] = tile[threadIdx.x][threadIdx.y + j];
}

__global__ void argmax_rows(const float* x, std::int64_t* out, int cols) {
  extern __shared__ float value[];
  int* index = reinterpret_cast<int*>(value + blockDim.x);
  float best = -INFINITY;
  int at = 0;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    const float v = x[(size_t)blockIdx.x * cols + c];
    if (v > best) best = v, at = c;
  }
  value[threadIdx.x] = best;
  index[threadIdx.x] = at;
  __syncthreads();
  for (int w = blockDim.x / 2; w; w >>= 1) {
    if (threadIdx.x < w) {
      const float other = value[threadIdx.x + w], mine = value[threadIdx.x];
      if (other > mine || (other == mine && index[threadIdx.x + w] < index[threadIdx.x])) {
        value[threadIdx.x] = other;
        index[threadIdx.x] = index[threadIdx.x + w];
      }
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = index[0];
}

__global__ void votes(const float* x, unsigned* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const bool p = i < n && x[i] > 0;
  const unsigned ballot = __ballot_sync(0xffffffffu, p);
  const int any = __syncthreads_or(p), all = __syncthreads_and(p), count = __syncthreads_count(p);
  if ((threadIdx.x & 31) == 0) {
    out[i >> 5] = ballot;
    atomicMax(reinterpret_cast<int*>(&out[64]), count);
    atomicAdd(&out[65], (unsigned)any);
    atomicAdd(&out[66], (unsigned)all);
    atomicAdd(&out[67], (unsigned)__popc(__activemask()));
  }
}

__global__ void shuffles(int* out) {
  const int lane = threadIdx.x & 31;
  int* o = out + threadIdx.x;
  o[0] = __shfl_sync(0xffffffffu, lane * 3, 5);
  o[64] = __shfl_up_sync(0xffffffffu, lane, 3);
  o[128] = __shfl_down_sync(0xffffffffu, lane, 7);
  o[192] = __shfl_xor_sync(0xffffffffu, lane, 9, 16);
  o[256] = __shfl_down_sync(0xffffffffu, lane, 1, 8);
  o[320] = __any_sync(0xffffffffu, lane == 31) + 2 * __all_sync(0xffffffffu, lane < 32);
  if (lane < 12) o[384] = __shfl_sync(0xfffu, lane * lane, (lane + 1) % 12);
  o[448] = (int)(__match_any_sync(0xffffffffu, lane / 5) >> 1);
}

__global__ void atomics(unsigned* u, int* s, float* f, double* d, unsigned long long* l) {
  const unsigned t = threadIdx.x;
  atomicMin(&u[0], 1000u - t);
  atomicMax(&u[1], t);
  atomicAnd(&u[2], ~(1u << (t & 31)));
  atomicOr(&u[3], 1u << (t & 31));
  atomicXor(&u[4], t);
  atomicInc(&u[5], 9u);
  atomicSub(&u[6], 2u);
  atomicExch(&u[7], 7u);
  atomicMin(&s[0], -(int)t);
  atomicAdd(f, 0.5f);
  atomicAdd(d, 0.25);
  atomicAdd(l, 1ull << 33);
  unsigned seen = u[8] * 0u, old;  // a maximum by compare and swap
  do {
    old = seen;
    seen = atomicCAS(&u[9], old, old > t ? old : t);
  } while (seen != old);
}

// Warps take different ways and meet again; the sum depends on every lane.
__global__ void divergent(const int* in, int* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  int v = i < n ? in[i] : 0, steps = 0;
  while (v > 1) {
    v = v & 1 ? 3 * v + 1 : v >> 1;
    if (steps > 50) break;
    ++steps;
  }
  if (i < n) out[i] = steps;
}

__global__ void warp_exchange(const int* in, int* out) {
  __shared__ int cell[64];
  cell[threadIdx.x] = in[threadIdx.x];
  __syncwarp();
  const int other = cell[threadIdx.x ^ 1];
  __syncwarp();
  cell[threadIdx.x] = other * 2;
  __syncwarp();
  out[threadIdx.x] = cell[threadIdx.x ^ 3];
}

}  // namespace

void block() {
  {
    const int rows = 9, cols = 300;
    const auto x = numbers(rows * cols);
    Buffer<float> dx(x), out(rows);
    sum_rows<128><<<rows, 128>>>(dx.get(), out.get(), cols);
    std::vector<double> want(rows, 0.0);
    for (int i = 0; i < rows * cols; ++i) want[i / cols] += x[i];
    check("sum_rows", worst(out.host(), want, 1.0) < 1e-5);
  }
  {
    const int rows = 10, cols = 70;
    const auto x = numbers(rows * cols, 5.f);
    Buffer<float> dx(x), out(rows * cols);
    softmax_rows<<<(rows + 3) / 4, 128>>>(dx.get(), out.get(), rows, cols);
    std::vector<double> want(rows * cols);
    for (int r = 0; r < rows; ++r) {
      double sum = 0;
      for (int c = 0; c < cols; ++c) sum += std::exp((double)x[r * cols + c]);
      for (int c = 0; c < cols; ++c) want[r * cols + c] = std::exp((double)x[r * cols + c]) / sum;
    }
    check("softmax_rows", worst(out.host(), want, 1e-6) < 1e-5);
  }
  {
    const int n = 50, cols = 7, rows = 11;
    const auto src = numbers(n * cols);
    std::vector<int> index(n);
    for (int i = 0; i < n; ++i) index[i] = i * 7 % rows;
    Buffer<float> ds(src), dst(std::vector<float>(rows * cols, 0.f));
    Buffer<int> di(index);
    scatter_add<<<(n * cols + 63) / 64, 64>>>(ds.get(), di.get(), dst.get(), n, cols);
    std::vector<double> want(rows * cols, 0.0);
    for (int i = 0; i < n * cols; ++i) want[index[i / cols] * cols + i % cols] += src[i];
    check("scatter_add", worst(dst.host(), want, 1e-1) < 1e-5);
  }
  {
    const int rows = 45, cols = 70;
    const auto x = numbers(rows * cols);
    Buffer<float> dx(x), out(rows * cols);
    transpose<<<dim3(3, 2), dim3(kTile, kStep)>>>(dx.get(), out.get(), rows, cols);
    const auto got = out.host();
    int wrong = 0;
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < cols; ++c) wrong += got[c * rows + r] != x[r * cols + c];
    check("transpose", wrong == 0);
  }
  {
    const int rows = 5, cols = 100;
    const auto x = numbers(rows * cols);
    Buffer<float> dx(x);
    Buffer<std::int64_t> out(rows);
    argmax_rows<<<rows, 64, 64 * 8>>>(dx.get(), out.get(), cols);
    const auto got = out.host();
    int wrong = 0;
    for (int r = 0; r < rows; ++r) {
      int best = 0;
      for (int c = 1; c < cols; ++c)
        if (x[r * cols + c] > x[r * cols + best]) best = c;
      wrong += got[r] != best;
    }
    check("argmax_rows with dynamic shared memory", wrong == 0);
  }
  {
    const int n = 500;
    const auto x = numbers(n);
    Buffer<float> dx(x);
    Buffer<unsigned> out(std::vector<unsigned>(68, 0u));
    votes<<<4, 128>>>(dx.get(), out.get(), n);
    const auto got = out.host();
    int wrong = 0, most = 0;
    for (int w = 0; w < 16; ++w) {
      unsigned bits = 0;
      for (int l = 0; l < 32; ++l)
        if (w * 32 + l < n && x[w * 32 + l] > 0) bits |= 1u << l;
      wrong += got[w] != bits;
    }
    for (int b = 0; b < 4; ++b) {
      int count = 0;
      for (int i = b * 128; i < b * 128 + 128 && i < n; ++i) count += x[i] > 0;
      most = count > most ? count : most;
    }
    check("ballot", wrong == 0);
    check("barriers with a vote", (int)got[64] == most && got[65] == 16 && got[66] == 0);
    check("activemask", got[67] == 16);
  }
  {
    Buffer<int> out(std::vector<int>(512, 0));
    shuffles<<<1, 64>>>(out.get());
    const auto got = out.host();
    int wrong = 0;
    for (int t = 0; t < 64; ++t) {
      const int lane = t & 31;
      wrong += got[t] != 15;
      wrong += got[64 + t] != (lane < 3 ? lane : lane - 3);
      wrong += got[128 + t] != (lane + 7 > 31 ? lane : lane + 7);
      wrong += got[192 + t] != (lane ^ 9);
      wrong += got[256 + t] != (lane % 8 == 7 ? lane : lane + 1);
      wrong += got[320 + t] != 3;
      if (lane < 12) wrong += got[384 + t] != (lane + 1) % 12 * ((lane + 1) % 12);
      unsigned same = 0;
      for (int l = 0; l < 32; ++l) same |= (unsigned)(l / 5 == lane / 5) << l;
      wrong += got[448 + t] != (int)(same >> 1);
    }
    check("shuffles", wrong == 0);
  }
  {
    Buffer<unsigned> u(std::vector<unsigned>{~0u, 0u, ~0u, 0u, 0u, 0u, 1000u, 0u, 0u, 0u});
    Buffer<int> s(std::vector<int>{0});
    Buffer<float> f(std::vector<float>{0.f});
    Buffer<double> d(std::vector<double>{0.0});
    Buffer<unsigned long long> l(std::vector<unsigned long long>{0ull});
    atomics<<<1, 96>>>(u.get(), s.get(), f.get(), d.get(), l.get());
    const auto got = u.host();
    unsigned exclusive = 0;
    for (unsigned t = 0; t < 96; ++t) exclusive ^= t;
    check("integer atomics", got[0] == 905 && got[1] == 95 && got[2] == 0 && got[3] == ~0u &&
                                 got[4] == exclusive && got[5] == 6 && got[6] == 808 &&
                                 got[7] == 7 && s.host()[0] == -95);
    check("compare and swap", got[9] == 95);
    check("float and 64-bit atomics",
          f.host()[0] == 48.f && d.host()[0] == 24.0 && l.host()[0] == 96ull << 33);
  }
  {
    const int n = 200;
    std::vector<int> in(n), want(n);
    for (int i = 0; i < n; ++i) {
      in[i] = i * 37 % 101;
      int v = in[i], steps = 0;
      while (v > 1) {
        v = v & 1 ? 3 * v + 1 : v >> 1;
        if (steps > 50) break;
        ++steps;
      }
      want[i] = steps;
    }
    Buffer<int> din(in), out(n);
    divergent<<<2, 128>>>(din.get(), out.get(), n);
    check("divergent", out.host() == want);
  }
  {
    std::vector<int> in(64), want(64);
    for (int i = 0; i < 64; ++i) in[i] = i * i;
    for (int i = 0; i < 64; ++i) want[i] = in[i ^ 2] * 2;
    Buffer<int> din(in), out(64);
    warp_exchange<<<1, 64>>>(din.get(), out.get());
    check("warp_exchange", out.host() == want);
  }
}

}  // namespace selftest
