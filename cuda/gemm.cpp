// Matrix products through cuBLAS: carries out the plan of gemm_rules.h.
#include <atomic>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include <cublas_v2.h>

#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/cuda.h>
#include <tutti/core/kernels/matrices.h>
#include <tutti/cuda/gemm_kernels.h>
#include <tutti/cuda/gemm_rules.h>
#include <tutti/cuda/runtime.h>

namespace tutti::cuda {
namespace {

void must(cublasStatus_t s) {
  if (s == CUBLAS_STATUS_SUCCESS) [[likely]]
    return;
  if (s == CUBLAS_STATUS_ALLOC_FAILED)
    fail<OutOfMemoryError>("matmul", "expected memory for cuBLAS, got none; drop tensors first");
  fail<DeviceError>("matmul", "expected cuBLAS to succeed, got ", cublasGetStatusString(s),
                    "; check how the operands are laid out");
}

/// What a stream's products need: a handle, which belongs to the stream, and memory for it, so that
/// the same call gives the same bits every time.
class Handle {
 public:
  /// For products on `stream`. `lasting`: until the stream ends, whatever is given back before.
  Handle(const Work& work, cudaStream_t stream, bool lasting = false) : lasting_(lasting) {
    must(cublasCreate(&handle_));
    try {
      workspace_ = std::make_unique<Scratch>(kWorkspace, work);
      must(cublasSetStream(handle_, stream));
      must(cublasSetWorkspace(handle_, workspace_->as<void>(), kWorkspace));
    } catch (...) {
      cublasDestroy(handle_);
      throw;
    }
  }
  Handle(const Handle&) = delete;
  ~Handle() { cublasDestroy(handle_); }
  cublasHandle_t get() const { return handle_; }
  bool lasting() const { return lasting_; }

 private:
  cublasHandle_t handle_ = nullptr;
  bool lasting_;
  std::unique_ptr<Scratch> workspace_;
};

struct Handles {
  std::mutex mutex;  // held through a call: a handle serves one thread at a time
  std::map<std::pair<int, cudaStream_t>, std::unique_ptr<Handle>> all;
};
Handles& handles() {  // never destroyed: the driver may be gone by then
  static Handles& h = *new Handles;
  return h;
}

enum class Precision { highest, high, medium };
std::atomic<Precision> g_precision{Precision::highest};

struct Types {
  cudaDataType_t data;
  cublasComputeType_t compute;
};
Types types_of(DType t) {
  const bool exact = g_precision.load(std::memory_order_relaxed) == Precision::highest;
  switch (t) {
    case DType::Float64:
      return {CUDA_R_64F, CUBLAS_COMPUTE_64F};
    case DType::Float16:
      return {CUDA_R_16F, CUBLAS_COMPUTE_32F};
    case DType::BFloat16:
      return {CUDA_R_16BF, CUBLAS_COMPUTE_32F};
    default:
      return {CUDA_R_32F, exact ? CUBLAS_COMPUTE_32F : CUBLAS_COMPUTE_32F_FAST_TF32};
  }
}

cublasOperation_t operation(const GemmOperand& x) {
  return x.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
}

int as_int(std::int64_t n) {
  check<NotImplementedError>(n <= std::numeric_limits<int>::max(), "matmul",
                             "expected sizes and strides below 2^31, got ", n,
                             "; cut the matrices");
  return static_cast<int>(n);
}

/// The members' addresses, on the device, for the length of the call.
Scratch pointers(const void* data, const Shape& sizes, const Shape& strides, std::int64_t item,
                 const Work& work) {
  const std::int64_t n = numel_of(sizes);
  std::vector<const std::byte*> list(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    std::int64_t rest = i, at = 0;
    for (std::size_t d = sizes.size(); d-- > 0;) {
      at += rest % sizes[d] * strides[d];
      rest /= sizes[d];
    }
    list[static_cast<std::size_t>(i)] = static_cast<const std::byte*>(data) + at * item;
  }
  return Scratch(list.data(), list.size() * sizeof(list[0]), work);
}

void multiply(const kernels::Gemm& g, const GemmPlan& p, const Work& work) {
  const Types t = types_of(g.dtype);
  const float one32 = 1, zero32 = 0;
  const double one64 = 1, zero64 = 0;
  const bool wide = g.dtype == kFloat64;
  const void* const alpha = wide ? static_cast<const void*>(&one64) : &one32;
  const void* const beta = wide ? static_cast<const void*>(g.accumulate ? &one64 : &zero64)
                                : (g.accumulate ? &one32 : &zero32);
  // cuBLAS's first operand is b, see gemm_rules.h.
  const int m = as_int(p.n), n = as_int(p.m), k = as_int(p.k), batch = as_int(p.batch);
  const int lda = as_int(p.b.leading), ldb = as_int(p.a.leading), ldc = as_int(p.n);
  const cublasOperation_t ta = operation(p.b), tb = operation(p.a);

  if (Onlooker* const o = onlooker()) o->multiplies();
  Handles& h = handles();
  std::lock_guard lock(h.mutex);
  std::unique_ptr<Handle>& slot = h.all[{work.device(), work.stream()}];
  if (!slot) slot = std::make_unique<Handle>(work, work.stream());
  cublasHandle_t handle = slot->get();
  switch (p.kind) {
    case GemmPlan::Kind::nothing:
      return;
    case GemmPlan::Kind::plain:
      return must(cublasGemmEx(handle, ta, tb, m, n, k, alpha, g.b.data, t.data, lda, g.a.data,
                               t.data, ldb, beta, g.out, t.data, ldc, t.compute,
                               CUBLAS_GEMM_DEFAULT));
    case GemmPlan::Kind::strided:
      return must(cublasGemmStridedBatchedEx(
          handle, ta, tb, m, n, k, alpha, g.b.data, t.data, lda, p.b.stride, g.a.data, t.data, ldb,
          p.a.stride, beta, g.out, t.data, ldc, p.m * p.n, batch, t.compute, CUBLAS_GEMM_DEFAULT));
    case GemmPlan::Kind::pointers: {
      const std::int64_t item = size_of(g.dtype);
      const Scratch a = pointers(g.a.data, p.batch_sizes, p.a_strides, item, work);
      const Scratch b = pointers(g.b.data, p.batch_sizes, p.b_strides, item, work);
      const Scratch c = pointers(g.out, Shape{p.batch}, Shape{p.m * p.n}, item, work);
      return must(cublasGemmBatchedEx(handle, ta, tb, m, n, k, alpha, b.as<const void*>(), t.data,
                                      lda, a.as<const void*>(), t.data, ldb, beta, c.as<void*>(),
                                      t.data, ldc, batch, t.compute, CUBLAS_GEMM_DEFAULT));
    }
  }
}

/// x row-major, without copies of what is repeated.
Tensor packed(const Tensor& x) {
  Shape sizes = x.sizes().shape();
  const IntArrayRef strides = x.strides();
  for (std::size_t d = 0; d + 2 < sizes.size(); ++d)
    if (strides[d] == 0) sizes[d] = 1;
  const Tensor once = make_alias(x, sizes, strides, x.storage_offset());
  const Tensor dense = make_dense(sizes, x.dtype(), x.device());
  copy_on_device(dense, once);
  Shape to = dense.strides().shape();
  for (std::size_t d = 0; d + 2 < sizes.size(); ++d)
    if (strides[d] == 0) to[d] = 0;
  return make_alias(dense, x.sizes(), to, 0);
}

/// x with its last two axes exchanged.
Tensor swapped(const Tensor& x) {
  Shape sizes = x.sizes().shape(), strides = x.strides().shape();
  std::swap(sizes[sizes.size() - 1], sizes[sizes.size() - 2]);
  std::swap(strides[strides.size() - 1], strides[strides.size() - 2]);
  return make_alias(x, sizes, strides, x.storage_offset());
}

/// What follows a product; undefined: nothing.
struct Finish {
  Tensor bias;
  kernels::Activation activation = kernels::Activation::none;
  Tensor relu_output, row_sums;
};

/// `transposed`: b holds [n, k].
void product(const Tensor& a, const Tensor& b, bool transposed, const Finish& finish,
             const Tensor& out) {
  const Tensor& bias = finish.bias;
  kernels::Gemm g;
  g.dtype = out.dtype();
  g.m = a.size(-2);
  g.n = b.size(transposed ? -2 : -1);
  g.k = a.size(-1);
  g.batch = leading(a).shape();
  g.a = matrices(a);
  g.b = matrices(b, transposed);
  g.out = out.raw();
  g.activation = finish.activation;
  if (finish.relu_output.defined()) g.relu_output = finish.relu_output.raw();
  if (finish.row_sums.defined()) g.row_sums = finish.row_sums.raw();
  if (bias.defined()) {
    const IntArrayRef strides = bias.strides();
    g.bias = {bias.raw(), Shape(strides.begin(), strides.end() - 1), 0, strides.back()};
  }
  if (out.numel() == 0) return;
  const Work work(out.device());
  bool written = true;
  if (!is_floating(out.dtype())) {
    integer_product(g, work);
  } else {
    const GemmPlan p = plan_gemm(g);
    Tensor a_packed, b_packed;
    if (p.pack_a) {
      a_packed = packed(a);
      g.a = matrices(a_packed);
    }
    if (p.pack_b) {
      b_packed = packed(transposed ? swapped(b) : b);
      g.b = matrices(b_packed);
    }
    written = p.kind != GemmPlan::Kind::nothing;
    if (written) multiply(g, p, work);
  }
  if (!written || bias.defined() || g.activation != kernels::Activation::none || g.relu_output)
    finish_product(g, !written, work);
}

}  // namespace

void forget_products(int device, cudaStream_t stream) noexcept {
  Handles& h = handles();
  std::lock_guard lock(h.mutex);
  h.all.erase({device, stream});
}

void release_products() {
  Handles& h = handles();
  std::lock_guard lock(h.mutex);
  for (auto at = h.all.begin(); at != h.all.end();) {
    const auto& [device, stream] = at->first;
    if (at->second && at->second->lasting()) {
      ++at;
      continue;
    }
    const CUDAGuard guard(device);
    cudaStreamSynchronize(stream);
    at = h.all.erase(at);
  }
}

int product_precision() { return static_cast<int>(g_precision.load()); }

void prepare_products(const Work& work, cudaStream_t stream) {
  Handles& h = handles();
  std::lock_guard lock(h.mutex);
  std::unique_ptr<Handle>& slot = h.all[{work.device(), stream}];
  if (!slot) slot = std::make_unique<Handle>(work, stream, true);
}

void set_float32_matmul_precision(const char* precision) {
  const std::string_view p = precision;
  check<ValueError>(p == "highest" || p == "high" || p == "medium",
                    "cuda::set_float32_matmul_precision",
                    "expected \"highest\", \"high\" or \"medium\", got \"", p,
                    "\"; highest is float32 throughout");
  g_precision = p == "highest" ? Precision::highest
                : p == "high"  ? Precision::high
                               : Precision::medium;
}
const char* get_float32_matmul_precision() {
  switch (g_precision.load()) {
    case Precision::highest:
      break;
    case Precision::high:
      return "high";
    case Precision::medium:
      return "medium";
  }
  return "highest";
}

}  // namespace tutti::cuda

namespace tutti::kernels::cuda {

void bmm(Inputs in, Inputs out, const Attrs&) {
  tutti::cuda::product(in[0], in[1], false, {}, out[0]);
}

void bmm_relu_grad(Inputs in, Inputs out, const Attrs&) {
  tutti::cuda::product(
      in[0], in[1], false,
      {.bias = {}, .relu_output = in[2], .row_sums = out.size() > 1 ? out[1] : Tensor()}, out[0]);
}

void linear(Inputs in, Inputs out, const Attrs& a) {
  tutti::cuda::product(in[0], in[1], true,
                       {.bias = in[2],
                        .activation = static_cast<Activation>(a.flags),
                        .relu_output = {},
                        .row_sums = {}},
                       out[0]);
}

}  // namespace tutti::kernels::cuda
