// Self-test: block-level CUB.
#include <algorithm>
#include <numeric>

#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/warp/warp_reduce.cuh>

#include "selftest.h"

namespace selftest {
namespace {

constexpr int kThreads = 128, kItems = 4;

template <class T>
__global__ void reduce(const T* in, T* out) {
  using Reduce = cub::BlockReduce<T, kThreads>;
  __shared__ typename Reduce::TempStorage storage;
  const T sum = Reduce(storage).Sum(in[blockIdx.x * kThreads + threadIdx.x]);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

__global__ void scan(const int* in, int* exclusive, int* inclusive) {
  using Scan = cub::BlockScan<int, kThreads>;
  __shared__ typename Scan::TempStorage storage;
  int items[kItems], before[kItems], with[kItems];
  for (int k = 0; k < kItems; ++k) items[k] = in[threadIdx.x * kItems + k];
  Scan(storage).ExclusiveSum(items, before);
  __syncthreads();
  Scan(storage).InclusiveSum(items, with);
  for (int k = 0; k < kItems; ++k) {
    exclusive[threadIdx.x * kItems + k] = before[k];
    inclusive[threadIdx.x * kItems + k] = with[k];
  }
}

template <class Key>
__global__ void sort_pairs(const Key* keys, Key* sorted, int* order, bool descending) {
  using Sort = cub::BlockRadixSort<Key, kThreads, kItems, int>;
  __shared__ typename Sort::TempStorage storage;
  Key key[kItems];
  int value[kItems];
  for (int k = 0; k < kItems; ++k) {
    value[k] = threadIdx.x * kItems + k;
    key[k] = keys[value[k]];
  }
  if (descending)
    Sort(storage).SortDescending(key, value);
  else
    Sort(storage).Sort(key, value);
  for (int k = 0; k < kItems; ++k) {
    sorted[threadIdx.x * kItems + k] = key[k];
    order[threadIdx.x * kItems + k] = value[k];
  }
}

__global__ void warp_sums(const int* in, int* out) {
  using Reduce = cub::WarpReduce<int>;
  __shared__ typename Reduce::TempStorage storage[2];
  const int warp = threadIdx.x / 32;
  const int sum = Reduce(storage[warp]).Sum(in[threadIdx.x]);
  if (threadIdx.x % 32 == 0) out[warp] = sum;
}

template <class Key>
void test_sort(const char* name, bool descending) {
  const int n = kThreads * kItems;
  const auto f = numbers(n, 100.f, 17);
  std::vector<Key> keys(n);
  for (int i = 0; i < n; ++i) keys[i] = static_cast<Key>(f[i]);
  Buffer<Key> dk(keys), sorted(n);
  Buffer<int> order(n);
  sort_pairs<Key><<<1, kThreads>>>(dk.get(), sorted.get(), order.get(), descending);
  std::vector<int> want(n);
  std::iota(want.begin(), want.end(), 0);
  std::stable_sort(want.begin(), want.end(), [&](int a, int b) {
    return descending ? keys[a] > keys[b] : keys[a] < keys[b];
  });
  const auto got = sorted.host();
  int wrong = order.host() != want;
  for (int i = 0; i < n; ++i) wrong += got[i] != keys[want[i]];
  check(name, wrong == 0);
}

}  // namespace

void cub_primitives() {
  {
    std::vector<int> in(3 * kThreads), want(3, 0);
    for (int i = 0; i < 3 * kThreads; ++i) want[i / kThreads] += in[i] = i * 31 % 17;
    Buffer<int> din(in), out(3);
    reduce<int><<<3, kThreads>>>(din.get(), out.get());
    check("BlockReduce int", out.host() == want);
  }
  {
    const auto in = numbers(3 * kThreads);
    std::vector<double> want(3, 0.0);
    for (int i = 0; i < 3 * kThreads; ++i) want[i / kThreads] += in[i];
    Buffer<float> din(in), out(3);
    reduce<float><<<3, kThreads>>>(din.get(), out.get());
    check("BlockReduce float", worst(out.host(), want, 1.0) < 1e-5);
  }
  {
    const int n = kThreads * kItems;
    std::vector<int> in(n), before(n), with(n);
    int sum = 0;
    for (int i = 0; i < n; ++i) {
      in[i] = i * 13 % 29;
      before[i] = sum;
      with[i] = sum += in[i];
    }
    Buffer<int> din(in), exclusive(n), inclusive(n);
    scan<<<1, kThreads>>>(din.get(), exclusive.get(), inclusive.get());
    check("BlockScan", exclusive.host() == before && inclusive.host() == with);
  }
  test_sort<float>("BlockRadixSort float", false);
  test_sort<float>("BlockRadixSort float descending", true);
  test_sort<long long>("BlockRadixSort 64-bit", false);
  test_sort<int>("BlockRadixSort int descending", true);
  {
    std::vector<int> in(64);
    std::iota(in.begin(), in.end(), 1);
    Buffer<int> din(in), out(2);
    warp_sums<<<1, 64>>>(din.get(), out.get());
    check("WarpReduce", out.host() == std::vector<int>{528, 1552});
  }
}

}  // namespace selftest
