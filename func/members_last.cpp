// Copies into the layout.
#include <vector>

#include <tutti/autograd/grad_mode.h>
#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/copy.h>
#include <tutti/core/ops.h>
#include <tutti/core/tensor_impl.h>
#include <tutti/func/members_last.h>

namespace tutti::func {

namespace {

constexpr const char* kOp = "members_last";

/// An odd number of cache lines from one run of members to the next: powers of two fall into few
/// sets of the caches.
Shape strides_of(IntArrayRef sizes, DType dtype) {
  constexpr std::int64_t kLine = 64;
  Shape strides = tutti::contiguous_strides(sizes);
  if (numel_of(sizes) == sizes[0]) return strides;  // one number each: there is no difference
  const std::int64_t bytes = size_of(dtype), lines = (sizes[0] * bytes + kLine - 1) / kLine;
  for (std::int64_t& s : strides) s *= (lines | 1) * kLine / bytes;
  strides[0] = 1;
  return strides;
}

}  // namespace

Tensor members_last(const Tensor& stacked) {
  check<ValueError>(stacked.defined(), kOp,
                    "expected a stacked tensor, got an undefined one; leave it out");
  const Tensor x = resolved(stacked);
  check<TransformError>(!as_box(x), kOp, "this tensor belongs to a transform; lay it out before");
  check<DeviceError>(x.is_cpu(), kOp, "expected tensors on the CPU, got one on ", x.device(),
                     "; elsewhere kernels work on all members at once");
  check<ShapeError>(x.dim() > 0, kOp, "expected an axis of members, got shape ", x.sizes(),
                    "; stack the members");
  Tensor y;
  {
    NoGradGuard guard;
    y = make_strided(x.sizes(), strides_of(x.sizes(), x.dtype()), x.dtype());
    kernels::copy(y, x.detach());
  }
  if (x.requires_grad()) y.requires_grad_();
  return y;
}

TensorDict members_last(const TensorDict& stacked) {
  std::vector<Tensor> values;
  for (const auto& [key, x] : stacked) values.push_back(members_last(x));
  return TensorDict::with_keys_of(stacked, std::move(values));
}

}  // namespace tutti::func
