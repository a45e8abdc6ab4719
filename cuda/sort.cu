// Sorting by merging: a block sorts a chunk of a line in shared memory; longer lines are merged
// from chunks, a launch for each doubling. Each element finds its place in a merge by itself, so it
// is stable and nothing waits for other blocks.
#include <type_traits>

#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/lines.h>
#include <tutti/cuda/launch.cuh>
#include <tutti/cuda/lines.h>

namespace tutti::cuda {
namespace {

/// Order of sort(): NaN is the largest.
template <class T>
__device__ bool less(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return a < b || (b != b && a == a);
  else
    return a < b;
}

constexpr unsigned kChunk = 1024;  // elements a block sorts

/// Where element i of a line of n stands after its run of `width` elements is merged with the
/// neighbouring one: behind what its own run has before it and what the other one has. Of equals
/// those of the left run come first.
template <class T>
__device__ unsigned merged_place(const T* keys, unsigned i, unsigned width, unsigned n,
                                 bool descending) {
  const unsigned begin = i / (2 * width) * (2 * width);
  const bool left = i - begin < width;
  const unsigned other = left ? begin + width : begin;
  if (other >= n) return i;
  const unsigned own = left ? begin : begin + width;
  const T mine = keys[i];
  // The first element of the other run that does not stand before this one.
  unsigned low = other, high = min(n, other + width);
  while (low < high) {
    const unsigned middle = (low + high) / 2;
    const T theirs = keys[middle];
    const T a = descending ? mine : theirs, b = descending ? theirs : mine;
    const bool before = left ? less(a, b) : !less(b, a);
    low = before ? middle + 1 : low;
    high = before ? high : middle;
  }
  return begin + (i - own) + (low - other);
}

/// What is sorted, in runs: dense lines of n keys with their places in the line.
template <class T>
struct Runs {
  T* keys;
  unsigned* places;
};

/// Where sorted lines go.
template <class T>
struct Sorted {
  T* values;
  std::int64_t* indices;
  std::int64_t value_step, index_step;

  __device__ void put(const std::int32_t (&at)[3], unsigned i, T key, unsigned place) const {
    values[at[1] + i * value_step] = key;
    indices[at[2] + i * index_step] = place;
  }
};

/// A block sorts a chunk. {input, values, indices}; lines of one chunk are finished, others are
/// left in `runs`.
template <class T>
__global__ void sort_chunks(unsigned n, bool descending, const __grid_constant__ Layout<3> l,
                            std::int64_t step, const T* x, Runs<T> runs, Sorted<T> out) {
  __shared__ T keys[2][kChunk];
  __shared__ unsigned places[2][kChunk];
  const unsigned chunks = (n + kChunk - 1) / kChunk, line = blockIdx.x / chunks;
  const unsigned first = (blockIdx.x - line * chunks) * kChunk, size = min(kChunk, n - first);
  std::int32_t at[3];
  l.find(line, at);
  for (unsigned i = threadIdx.x; i < size; i += blockDim.x) {
    keys[0][i] = x[at[0] + (first + i) * step];
    places[0][i] = first + i;
  }
  __syncthreads();
  unsigned now = 0;
  for (unsigned width = 1; width < size; width *= 2) {
    for (unsigned i = threadIdx.x; i < size; i += blockDim.x) {
      const unsigned to = merged_place(keys[now], i, width, size, descending);
      keys[1 - now][to] = keys[now][i];
      places[1 - now][to] = places[now][i];
    }
    __syncthreads();
    now = 1 - now;
  }
  for (unsigned i = threadIdx.x; i < size; i += blockDim.x) {
    if (chunks == 1) {
      out.put(at, i, keys[now][i], places[now][i]);
    } else {
      const std::int64_t to = std::int64_t{line} * n + first + i;
      runs.keys[to] = keys[now][i];
      runs.places[to] = places[now][i];
    }
  }
}

/// Merges runs of `width`, a thread per element; the last merge writes the result.
template <class T>
__global__ void merge_runs(std::int64_t total, unsigned n, unsigned width, bool descending,
                           const __grid_constant__ Layout<3> l, Runs<T> from, Runs<T> to,
                           Sorted<T> out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= total) return;
  const unsigned line = static_cast<unsigned>(i) / n, mine = static_cast<unsigned>(i) - line * n;
  const std::int64_t begin = i - mine;
  const unsigned place = merged_place(from.keys + begin, mine, width, n, descending);
  if (n - width <= width) {
    std::int32_t at[3];
    l.find(line, at);
    out.put(at, place, from.keys[i], from.places[i]);
  } else {
    to.keys[begin + place] = from.keys[i];
    to.places[begin + place] = from.places[i];
  }
}

template <class T>
void sort_as(Inputs in, Inputs out, const Lines<3>& lines, bool descending) {
  const Work work(out[0].device());
  const std::int64_t total = in[0].numel();
  const unsigned n = static_cast<unsigned>(lines.length);
  const unsigned chunks = blocks_for(n, kChunk);
  const std::int64_t kept = chunks > 1 ? total : 0;  // elements of runs, in two copies
  const Scratch keys(static_cast<std::size_t>(2 * kept) * sizeof(T), work);
  const Scratch places(static_cast<std::size_t>(2 * kept) * sizeof(unsigned), work);
  Runs<T> from{kept ? keys.as<T>() : nullptr, kept ? places.as<unsigned>() : nullptr};
  Runs<T> to{from.keys + kept, from.places + kept};
  const Sorted<T> sorted{static_cast<T*>(out[0].raw()), static_cast<std::int64_t*>(out[1].raw()),
                         lines.steps[1], lines.steps[2]};
  const Layout<3> layout = lines.lines.layout();
  launch(sort_chunks<T>, static_cast<unsigned>(total / n) * chunks, block_for(n), work, n,
         descending, layout, lines.steps[0], static_cast<const T*>(in[0].raw()), from, sorted);
  const unsigned block = block_for(total);
  for (std::int64_t width = kChunk; width < n; width *= 2) {
    launch(merge_runs<T>, blocks_for(total, block), block, work, total, n,
           static_cast<unsigned>(width), descending, layout, from, to, sorted);
    std::swap(from, to);
  }
}

}  // namespace
}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

void sort(Inputs in, Inputs out, const Attrs& a) {
  if (in[0].numel() == 0) return;
  const tutti::cuda::Lines<3> lines({&in[0], &out[0], &out[1]}, a.dims[0], "sort");
  check<NotImplementedError>(in[0].numel() <= tutti::cuda::kMostElements, "sort",
                             "expected fewer than 2^31 elements, got shape ", in[0].sizes(),
                             "; work in parts");
  dispatch_full(in[0].dtype(),
                [&]<class T>() { tutti::cuda::sort_as<T>(in, out, lines, (a.flags & 1) != 0); });
}

}  // namespace tutti::kernels::cuda
