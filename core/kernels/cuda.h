// The CUDA kernels as the op records see them: the same names as the CPU's, in a namespace of their
// own; defined in cuda/. Without TUTTI_CUDA nothing here is ever used, so nothing of it is linked.
#pragma once
#include <span>

#include <tutti/config.h>
#include <tutti/core/kernels/optim.h>
#include <tutti/core/op.h>

/// Both kernels of a record: TUTTI_KERNEL(softmax) is kernels::softmax on the CPU and
/// kernels::cuda::softmax on a GPU. TUTTI_ON_CUDA names the second one alone, for records whose CPU
/// kernel is a function of their own.
#if TUTTI_CUDA
#define TUTTI_KERNEL(...) .cpu = kernels::__VA_ARGS__, .cuda = kernels::cuda::__VA_ARGS__
#define TUTTI_ON_CUDA(...) kernels::cuda::__VA_ARGS__
#else
#define TUTTI_KERNEL(...) .cpu = kernels::__VA_ARGS__
#define TUTTI_ON_CUDA(...) nullptr
#endif

namespace tutti::kernels::cuda {

// ---- memory

/// The device with its index: of the calling thread where it has none. DeviceError, which says why,
/// if there is no such device.
Device resolve(Device device);
/// Memory for the current stream's work. OutOfMemoryError if there is none, even after the cache
/// was given back.
std::byte* allocate(std::size_t bytes, Device device);
/// Gives it back; work that was queued before may still use it.
void release(std::byte* p, Device device) noexcept;

/// dst = src, cast: equal sizes, any strides, at least one of the two on a GPU. Returns when values
/// on the CPU are there.
void copy(const Tensor& dst, const Tensor& src);
void fill(const Tensor& dst, Scalar value);

// ---- elementwise, see elementwise.h

#define TUTTI_DECLARE(name) \
  template <class F>        \
  void name(Inputs in, Inputs out, const Attrs& a);
TUTTI_DECLARE(float_unary)
TUTTI_DECLARE(unary)
TUTTI_DECLARE(any_unary)
TUTTI_DECLARE(bits_unary)
TUTTI_DECLARE(bool_unary)
TUTTI_DECLARE(predicate)
TUTTI_DECLARE(float_predicate)
TUTTI_DECLARE(float_binary)
TUTTI_DECLARE(binary)
TUTTI_DECLARE(any_binary)
TUTTI_DECLARE(bits_binary)
TUTTI_DECLARE(bool_binary)
TUTTI_DECLARE(compare)
#undef TUTTI_DECLARE

// ---- kernels that are no templates

#define TUTTI_DECLARE(name) void name(Inputs in, Inputs out, const Attrs& a);
TUTTI_DECLARE(pow_scalar)
TUTTI_DECLARE(lerp)
TUTTI_DECLARE(where)
TUTTI_DECLARE(masked_fill)
TUTTI_DECLARE(gelu)
TUTTI_DECLARE(gelu_grad)
TUTTI_DECLARE(arange)
TUTTI_DECLARE(linspace)
TUTTI_DECLARE(sum)
TUTTI_DECLARE(prod)
TUTTI_DECLARE(amax)
TUTTI_DECLARE(amin)
TUTTI_DECLARE(any)
TUTTI_DECLARE(all)
TUTTI_DECLARE(argmax)
TUTTI_DECLARE(argmin)
TUTTI_DECLARE(cumsum)
TUTTI_DECLARE(cumprod)
TUTTI_DECLARE(recurrence)
TUTTI_DECLARE(sort)
TUTTI_DECLARE(softmax)
TUTTI_DECLARE(log_softmax)
TUTTI_DECLARE(softmax_grad)
TUTTI_DECLARE(log_softmax_grad)
TUTTI_DECLARE(cross_entropy)
TUTTI_DECLARE(cross_entropy_grad)
TUTTI_DECLARE(layer_norm)
TUTTI_DECLARE(layer_norm_grad)
TUTTI_DECLARE(batch_norm_train)
TUTTI_DECLARE(batch_norm_eval)
TUTTI_DECLARE(batch_norm_grad)
TUTTI_DECLARE(gather)
TUTTI_DECLARE(scatter)
TUTTI_DECLARE(scatter_add)
TUTTI_DECLARE(ravel)
TUTTI_DECLARE(one_hot)
TUTTI_DECLARE(nonzero)
TUTTI_DECLARE(random_bits)
TUTTI_DECLARE(uniform_from_bits)
TUTTI_DECLARE(normal_from_bits)
TUTTI_DECLARE(bernoulli_from_bits)
TUTTI_DECLARE(integers_from_bits)
TUTTI_DECLARE(dropout)
TUTTI_DECLARE(masked_scale)
/// [lead..., m, k] x [lead..., k, n]; also of half types.
TUTTI_DECLARE(bmm)
TUTTI_DECLARE(bmm_relu_grad)
/// [lead..., n, k] x [lead..., o, k]^T, plus a bias, then a kernels::Activation; also of half
/// types.
TUTTI_DECLARE(linear)
#undef TUTTI_DECLARE

/// How many elements of x are not zero; waits for the device.
std::int64_t count_nonzero(const Tensor& x);

// ---- optimizers, see optim.h; the chunks are on the current device

template <class T>
void sgd(std::span<const SgdChunk<T>> chunks);
template <class T>
void adam(std::span<const AdamChunk<T>> chunks);
template <class T>
void rmsprop(std::span<const RmspropChunk<T>> chunks);
template <class T>
void adagrad(std::span<const AdagradChunk<T>> chunks);

}  // namespace tutti::kernels::cuda
