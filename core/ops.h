// The index of public ops: every op as a free function with one doc line, grouped by the file in
// ops/ that defines it. scripts/gen_members.py makes the member form x.op(...) of each function
// whose first parameter is named `self` (tensor_members.inc, tensor_members_impl.inc); rerun it
// after a change here. Conventions it relies on: one `///` line per group of overloads, `const
// Tensor& self` first, in-place functions end in `_` and return Tensor&.
//
// Wrappers forgive: negative axes, broadcasting and type promotion follow PyTorch. Where nothing
// else is said, shapes that do not fit raise ShapeError, axes out of range IndexError, dtypes that
// make no sense TypeError.
#pragma once
#include <concepts>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include <tutti/core/indexing.h>
#include <tutti/core/options.h>
#include <tutti/core/random.h>
#include <tutti/core/tensor.h>

namespace tutti {

/// A bool that an integer does not convert to, so that x.var(1) means axis 1.
struct BoolArg {
  template <std::same_as<bool> T>
  BoolArg(T v) : value(v) {}
  bool value;
};

// ---- create (ops/create.cpp)
/// Uninitialised tensor.
Tensor empty(IntArrayRef sizes, const TensorOptions& options = {});
/// All zeros.
Tensor zeros(IntArrayRef sizes, const TensorOptions& options = {});
/// All ones.
Tensor ones(IntArrayRef sizes, const TensorOptions& options = {});
/// All `value`; without a dtype in options the value's (float32, int64 or bool).
Tensor full(IntArrayRef sizes, Scalar value, const TensorOptions& options = {});
/// start, start + step, ... below end; int64 if all arguments are integers.
Tensor arange(Scalar end, const TensorOptions& options = {});
Tensor arange(Scalar start, Scalar end, const TensorOptions& options = {});
Tensor arange(Scalar start, Scalar end, Scalar step, const TensorOptions& options = {});
/// `steps` values from start to end, both included.
Tensor linspace(Scalar start, Scalar end, std::int64_t steps, const TensorOptions& options = {});
/// Identity matrix [n, m]; m = n if left out.
Tensor eye(std::int64_t n, const TensorOptions& options = {});
Tensor eye(std::int64_t n, std::int64_t m, const TensorOptions& options = {});
/// A 0-d tensor.
Tensor scalar_tensor(Scalar value, const TensorOptions& options = {});
/// A tensor on somebody else's memory, which must outlive it (or `deleter` is called at the end).
Tensor from_blob(void* data, IntArrayRef sizes, const TensorOptions& options = {});
Tensor from_blob(void* data, IntArrayRef sizes, IntArrayRef strides,
                 const TensorOptions& options = {});
Tensor from_blob(void* data, IntArrayRef sizes, std::function<void(void*)> deleter,
                 const TensorOptions& options = {});
Tensor from_blob(void* data, IntArrayRef sizes, IntArrayRef strides,
                 std::function<void(void*)> deleter, const TensorOptions& options = {});
/// Coordinate grids, "ij" indexing, as torch.meshgrid.
std::vector<Tensor> meshgrid(TensorList tensors);
/// Like self in shape, dtype and device (options override); batched inside vmap if self is.
Tensor empty_like(const Tensor& self, const TensorOptions& options = {});
Tensor zeros_like(const Tensor& self, const TensorOptions& options = {});
Tensor ones_like(const Tensor& self, const TensorOptions& options = {});
Tensor full_like(const Tensor& self, Scalar value, const TensorOptions& options = {});
/// New tensor of self's dtype and device with the given sizes; batched inside vmap if self is.
Tensor new_empty(const Tensor& self, IntArrayRef sizes, const TensorOptions& options = {});
Tensor new_zeros(const Tensor& self, IntArrayRef sizes, const TensorOptions& options = {});
Tensor new_ones(const Tensor& self, IntArrayRef sizes, const TensorOptions& options = {});
Tensor new_full(const Tensor& self, IntArrayRef sizes, Scalar value,
                const TensorOptions& options = {});
/// Copy with contiguous memory.
Tensor clone(const Tensor& self);
/// self if its memory is row-major, else a clone.
Tensor contiguous(const Tensor& self);
/// Cast or move; returns self where nothing changes.
Tensor to(const Tensor& self, DType dtype);
Tensor to(const Tensor& self, Device device);
Tensor to(const Tensor& self, DeviceType device);
Tensor to(const Tensor& self, const TensorOptions& options);
/// Cast to other's dtype and device.
Tensor type_as(const Tensor& self, const Tensor& other);
/// Move to the CPU.
Tensor cpu(const Tensor& self);
/// Cuts history at every level: the value without derivative.
Tensor detach(const Tensor& self);

// ---- random (ops/random.cpp); all take a Generator, default_generator() if left out
/// Uniform on [0, 1).
Tensor rand(IntArrayRef sizes, const TensorOptions& options = {},
            std::optional<Generator> generator = std::nullopt);
/// Standard normal.
Tensor randn(IntArrayRef sizes, const TensorOptions& options = {},
             std::optional<Generator> generator = std::nullopt);
/// Integers in [low, high), int64 unless options say otherwise.
Tensor randint(std::int64_t high, IntArrayRef sizes, const TensorOptions& options = {},
               std::optional<Generator> generator = std::nullopt);
Tensor randint(std::int64_t low, std::int64_t high, IntArrayRef sizes,
               const TensorOptions& options = {},
               std::optional<Generator> generator = std::nullopt);
/// A random permutation of 0..n-1, int64.
Tensor randperm(std::int64_t n, const TensorOptions& options = {},
                std::optional<Generator> generator = std::nullopt);
/// Normal with the given mean and standard deviation (tensors broadcast, or numbers with sizes).
Tensor normal(const Tensor& mean, const Tensor& std,
              std::optional<Generator> generator = std::nullopt);
Tensor normal(double mean, double std, IntArrayRef sizes, const TensorOptions& options = {},
              std::optional<Generator> generator = std::nullopt);
/// Random like self in shape and dtype.
Tensor rand_like(const Tensor& self, const TensorOptions& options = {});
Tensor randn_like(const Tensor& self, const TensorOptions& options = {});
Tensor randint_like(const Tensor& self, std::int64_t low, std::int64_t high,
                    const TensorOptions& options = {});
/// 1 with probability self (or p), else 0, in self's dtype.
Tensor bernoulli(const Tensor& self, std::optional<Generator> generator = std::nullopt);
Tensor bernoulli(const Tensor& self, double p, std::optional<Generator> generator = std::nullopt);
/// n indices per row drawn with probability proportional to self [..., k]; with or without
/// replacement.
Tensor multinomial(const Tensor& self, std::int64_t n, bool replacement = false,
                   std::optional<Generator> generator = std::nullopt);
/// Zeroes elements with probability p and scales the rest by 1 / (1 - p) when training.
Tensor dropout(const Tensor& self, double p = 0.5, bool train = true);
/// Fills self with random values.
Tensor& uniform_(const Tensor& self, double from = 0, double to = 1,
                 std::optional<Generator> generator = std::nullopt);
Tensor& normal_(const Tensor& self, double mean = 0, double std = 1,
                std::optional<Generator> generator = std::nullopt);
Tensor& bernoulli_(const Tensor& self, double p = 0.5,
                   std::optional<Generator> generator = std::nullopt);
Tensor& random_(const Tensor& self, std::int64_t low, std::int64_t high,
                std::optional<Generator> generator = std::nullopt);

// ---- views (ops/views.cpp): results share memory with self
/// Same elements in another shape, -1 inferred; a view, ValueError where that needs a copy.
Tensor view(const Tensor& self, IntArrayRef sizes);
/// Same elements in another shape, -1 inferred; a view where possible.
Tensor reshape(const Tensor& self, IntArrayRef sizes);
/// Merges axes start..end.
Tensor flatten(const Tensor& self, std::int64_t start = 0, std::int64_t end = -1);
/// Splits one axis into several, -1 inferred.
Tensor unflatten(const Tensor& self, std::int64_t axis, IntArrayRef sizes);
/// Removes axes of size 1: all, or those given.
Tensor squeeze(const Tensor& self);
Tensor squeeze(const Tensor& self, IntArrayRef axes);
/// Inserts an axis of size 1.
Tensor unsqueeze(const Tensor& self, std::int64_t axis);
/// Swaps two axes.
Tensor transpose(const Tensor& self, std::int64_t a, std::int64_t b);
/// Transpose of a matrix (or a vector, unchanged).
Tensor t(const Tensor& self);
/// Transpose of the last two axes.
Tensor mT(const Tensor& self);
/// Reorders axes.
Tensor permute(const Tensor& self, IntArrayRef axes);
/// Moves axes to new places, the others keep their order.
Tensor movedim(const Tensor& self, IntArrayRef from, IntArrayRef to);
/// Broadcasts to larger sizes without a copy; -1 keeps a size.
Tensor expand(const Tensor& self, IntArrayRef sizes);
Tensor expand_as(const Tensor& self, const Tensor& other);
Tensor broadcast_to(const Tensor& self, IntArrayRef sizes);
/// Elements start..start+length along an axis.
Tensor narrow(const Tensor& self, std::int64_t axis, std::int64_t start, std::int64_t length);
/// Elements start..end by step along an axis; ends beyond the size are clipped.
Tensor slice(const Tensor& self, std::int64_t axis = 0,
             std::optional<std::int64_t> start = std::nullopt,
             std::optional<std::int64_t> end = std::nullopt, std::int64_t step = 1);
/// One index along an axis, which disappears.
Tensor select(const Tensor& self, std::int64_t axis, std::int64_t index);
/// All selections along an axis.
std::vector<Tensor> unbind(const Tensor& self, std::int64_t axis = 0);
/// Pieces of the given size (the last may be smaller), or of the given sizes.
std::vector<Tensor> split(const Tensor& self, std::int64_t size, std::int64_t axis = 0);
std::vector<Tensor> split(const Tensor& self, const std::vector<std::int64_t>& sizes,
                          std::int64_t axis = 0);
/// At most n pieces of equal size (the last may be smaller).
std::vector<Tensor> chunk(const Tensor& self, std::int64_t n, std::int64_t axis = 0);
/// The diagonal of two axes, as the last axis.
Tensor diagonal(const Tensor& self, std::int64_t offset = 0, std::int64_t a = 0,
                std::int64_t b = 1);
/// Arbitrary sizes and strides on self's memory, from an absolute offset (self's if left out).
Tensor as_strided(const Tensor& self, IntArrayRef sizes, IntArrayRef strides,
                  std::optional<std::int64_t> offset = std::nullopt);
/// Windows of `size` every `step` along an axis, as a new last axis.
Tensor unfold(const Tensor& self, std::int64_t axis, std::int64_t size, std::int64_t step);

// ---- index (ops/index.cpp)
/// Indexing by integers, Slice, None, Ellipsis, bool masks and index tensors.
Tensor index(const Tensor& self, TensorIndices indices);
Tensor index(const Tensor& self, const std::vector<TensorIndex>& indices);
/// Writes value into self.index(indices); repeated indices add up if accumulate.
Tensor& index_put_(const Tensor& self, TensorIndices indices, const Tensor& value,
                   bool accumulate = false);
Tensor& index_put_(const Tensor& self, TensorIndices indices, Scalar value);
/// out[i][j][k] = self[index[i][j][k]][j][k] for axis 0, and so on.
Tensor gather(const Tensor& self, std::int64_t axis, const Tensor& index);
/// Writes src (or a number) at the places gather reads; the last of repeated indices wins.
Tensor scatter(const Tensor& self, std::int64_t axis, const Tensor& index, const Tensor& src);
Tensor scatter(const Tensor& self, std::int64_t axis, const Tensor& index, Scalar value);
/// Adds src at the places gather reads.
Tensor scatter_add(const Tensor& self, std::int64_t axis, const Tensor& index, const Tensor& src);
/// Rows of an axis picked by a 1-d index.
Tensor index_select(const Tensor& self, std::int64_t axis, const Tensor& index);
/// self with src's slices added at the rows index names.
Tensor index_add(const Tensor& self, std::int64_t axis, const Tensor& index, const Tensor& src,
                 Scalar alpha = 1);
/// gather with broadcasting, as torch.take_along_dim.
Tensor take_along_dim(const Tensor& self, const Tensor& index, std::int64_t axis);
/// int64 one-hot rows as a new last axis; classes = -1 takes the largest + 1 (not inside vmap).
Tensor one_hot(const Tensor& self, std::int64_t classes = -1);
/// Elements where mask is true, 1-d; the shape depends on values, so not inside vmap.
Tensor masked_select(const Tensor& self, const Tensor& mask);
/// Indices of the nonzero elements [n, rank]; not inside vmap.
Tensor nonzero(const Tensor& self);
/// Reverses axes.
Tensor flip(const Tensor& self, IntArrayRef axes);
/// Rotates along axes (no axes: the flattened tensor).
Tensor roll(const Tensor& self, IntArrayRef shifts, IntArrayRef axes = {});
/// Lower or upper triangle.
Tensor tril(const Tensor& self, std::int64_t diagonal = 0);
Tensor triu(const Tensor& self, std::int64_t diagonal = 0);
Tensor& scatter_(const Tensor& self, std::int64_t axis, const Tensor& index, const Tensor& src);
Tensor& scatter_(const Tensor& self, std::int64_t axis, const Tensor& index, Scalar value);
Tensor& scatter_add_(const Tensor& self, std::int64_t axis, const Tensor& index, const Tensor& src);
Tensor& index_add_(const Tensor& self, std::int64_t axis, const Tensor& index, const Tensor& src,
                   Scalar alpha = 1);

// ---- join (ops/join.cpp)
/// Joins along an existing axis; dtypes promote, empty 1-d tensors are skipped.
Tensor cat(TensorList tensors, std::int64_t axis = 0);
/// Joins along a new axis.
Tensor stack(TensorList tensors, std::int64_t axis = 0);
/// Joins along axis 1 (axis 0 for vectors), and along axis 0.
Tensor hstack(TensorList tensors);
Tensor vstack(TensorList tensors);
/// Repeats the whole tensor, as torch.Tensor.repeat and torch.tile.
Tensor repeat(const Tensor& self, IntArrayRef repeats);
Tensor tile(const Tensor& self, IntArrayRef repeats);

// ---- unary (ops/unary.cpp), elementwise; integers go to float32 where the result is not integral
/// Exponential and logarithm family.
Tensor exp(const Tensor& self);
Tensor expm1(const Tensor& self);
Tensor log(const Tensor& self);
Tensor log1p(const Tensor& self);
Tensor log2(const Tensor& self);
Tensor log10(const Tensor& self);
/// Powers and roots.
Tensor sqrt(const Tensor& self);
Tensor rsqrt(const Tensor& self);
Tensor square(const Tensor& self);
Tensor reciprocal(const Tensor& self);
/// Trigonometric and hyperbolic functions.
Tensor sin(const Tensor& self);
Tensor cos(const Tensor& self);
Tensor tan(const Tensor& self);
Tensor asin(const Tensor& self);
Tensor acos(const Tensor& self);
Tensor atan(const Tensor& self);
Tensor sinh(const Tensor& self);
Tensor cosh(const Tensor& self);
Tensor tanh(const Tensor& self);
/// Logistic function, error function.
Tensor sigmoid(const Tensor& self);
Tensor erf(const Tensor& self);
/// log(1 / (1 + e^-x)), computed without overflow.
Tensor logsigmoid(const Tensor& self);
/// Sign and rounding.
Tensor abs(const Tensor& self);
Tensor neg(const Tensor& self);
Tensor sign(const Tensor& self);
Tensor floor(const Tensor& self);
Tensor ceil(const Tensor& self);
Tensor round(const Tensor& self);
Tensor trunc(const Tensor& self);
/// max(x, 0).
Tensor relu(const Tensor& self);
/// x * Phi(x); approximate is "none" (erf) or "tanh".
Tensor gelu(const Tensor& self, std::string_view approximate = "none");
/// x * sigmoid(x).
Tensor silu(const Tensor& self);
/// log(1 + e^(beta x)) / beta, linear above threshold.
Tensor softplus(const Tensor& self, double beta = 1, double threshold = 20);
/// x where positive, else slope * x.
Tensor leaky_relu(const Tensor& self, double slope = 0.01);
/// x where positive, else alpha * (e^x - 1).
Tensor elu(const Tensor& self, double alpha = 1);
/// Bool results.
Tensor isnan(const Tensor& self);
Tensor isinf(const Tensor& self);
Tensor isfinite(const Tensor& self);
Tensor logical_not(const Tensor& self);
Tensor bitwise_not(const Tensor& self);
/// Limits to [min, max]; either may be missing, both may be tensors.
Tensor clamp(const Tensor& self, std::optional<Scalar> min,
             std::optional<Scalar> max = std::nullopt);
Tensor clamp(const Tensor& self, const Tensor& min, const Tensor& max);
Tensor clamp_min(const Tensor& self, Scalar min);
Tensor clamp_max(const Tensor& self, Scalar max);

// ---- binary (ops/binary.cpp), elementwise with broadcasting and promotion
/// self + alpha * other.
Tensor add(const Tensor& self, const Tensor& other, Scalar alpha = 1);
Tensor add(const Tensor& self, Scalar other, Scalar alpha = 1);
/// self - alpha * other.
Tensor sub(const Tensor& self, const Tensor& other, Scalar alpha = 1);
Tensor sub(const Tensor& self, Scalar other, Scalar alpha = 1);
/// other - self.
Tensor rsub(const Tensor& self, Scalar other);
Tensor mul(const Tensor& self, const Tensor& other);
Tensor mul(const Tensor& self, Scalar other);
/// True division, or rounded: rounding is "trunc" or "floor".
Tensor div(const Tensor& self, const Tensor& other);
Tensor div(const Tensor& self, Scalar other);
Tensor div(const Tensor& self, const Tensor& other, std::string_view rounding);
Tensor div(const Tensor& self, Scalar other, std::string_view rounding);
Tensor floor_divide(const Tensor& self, const Tensor& other);
Tensor floor_divide(const Tensor& self, Scalar other);
Tensor pow(const Tensor& self, const Tensor& exponent);
Tensor pow(const Tensor& self, Scalar exponent);
Tensor pow(Scalar base, const Tensor& exponent);
/// Remainder with the sign of the dividend (fmod) or of the divisor (remainder).
Tensor fmod(const Tensor& self, const Tensor& other);
Tensor fmod(const Tensor& self, Scalar other);
Tensor remainder(const Tensor& self, const Tensor& other);
Tensor remainder(const Tensor& self, Scalar other);
/// Angle of (other, self) in (-pi, pi].
Tensor atan2(const Tensor& self, const Tensor& other);
/// Elementwise extremes; NaN wins, the gradient is split at ties.
Tensor minimum(const Tensor& self, const Tensor& other);
Tensor maximum(const Tensor& self, const Tensor& other);
/// self + weight * (end - self).
Tensor lerp(const Tensor& self, const Tensor& end, Scalar weight);
Tensor lerp(const Tensor& self, const Tensor& end, const Tensor& weight);
/// self + value * a * b, and self + value * a / b.
Tensor addcmul(const Tensor& self, const Tensor& a, const Tensor& b, Scalar value = 1);
Tensor addcdiv(const Tensor& self, const Tensor& a, const Tensor& b, Scalar value = 1);
/// x where condition is true, else y.
Tensor where(const Tensor& condition, const Tensor& x, const Tensor& y);
Tensor where(const Tensor& condition, const Tensor& x, Scalar y);
Tensor where(const Tensor& condition, Scalar x, const Tensor& y);
Tensor where(const Tensor& condition, Scalar x, Scalar y);
/// value where mask is true, else self.
Tensor masked_fill(const Tensor& self, const Tensor& mask, Scalar value);
Tensor masked_fill(const Tensor& self, const Tensor& mask, const Tensor& value);

// ---- compare (ops/compare.cpp), bool results with broadcasting
/// Comparisons.
Tensor eq(const Tensor& self, const Tensor& other);
Tensor eq(const Tensor& self, Scalar other);
Tensor ne(const Tensor& self, const Tensor& other);
Tensor ne(const Tensor& self, Scalar other);
Tensor lt(const Tensor& self, const Tensor& other);
Tensor lt(const Tensor& self, Scalar other);
Tensor le(const Tensor& self, const Tensor& other);
Tensor le(const Tensor& self, Scalar other);
Tensor gt(const Tensor& self, const Tensor& other);
Tensor gt(const Tensor& self, Scalar other);
Tensor ge(const Tensor& self, const Tensor& other);
Tensor ge(const Tensor& self, Scalar other);
/// Logic on truth values, and on bits.
Tensor logical_and(const Tensor& self, const Tensor& other);
Tensor logical_or(const Tensor& self, const Tensor& other);
Tensor logical_xor(const Tensor& self, const Tensor& other);
Tensor bitwise_and(const Tensor& self, const Tensor& other);
Tensor bitwise_or(const Tensor& self, const Tensor& other);
Tensor bitwise_xor(const Tensor& self, const Tensor& other);
/// |self - other| <= atol + rtol * |other|.
Tensor isclose(const Tensor& self, const Tensor& other, double rtol = 1e-5, double atol = 1e-8,
               bool equal_nan = false);
/// True if isclose everywhere; reads values, so not inside vmap.
bool allclose(const Tensor& self, const Tensor& other, double rtol = 1e-5, double atol = 1e-8,
              bool equal_nan = false);
/// True if shapes and all elements are equal; reads values, so not inside vmap.
bool equal(const Tensor& self, const Tensor& other);

// ---- reduce (ops/reduce.cpp)
/// Sum over all elements or the given axes; integers and bool give int64.
Tensor sum(const Tensor& self, std::optional<DType> dtype = std::nullopt);
Tensor sum(const Tensor& self, IntArrayRef axes, bool keepdim = false,
           std::optional<DType> dtype = std::nullopt);
/// Mean; TypeError for integers.
Tensor mean(const Tensor& self, std::optional<DType> dtype = std::nullopt);
Tensor mean(const Tensor& self, IntArrayRef axes, bool keepdim = false,
            std::optional<DType> dtype = std::nullopt);
/// Product.
Tensor prod(const Tensor& self);
Tensor prod(const Tensor& self, std::int64_t axis, bool keepdim = false);
/// Variance and standard deviation; unbiased divides by n - 1.
Tensor var(const Tensor& self);
Tensor var(const Tensor& self, BoolArg unbiased);
Tensor var(const Tensor& self, IntArrayRef axes, bool unbiased = true, bool keepdim = false);
Tensor std(const Tensor& self);
Tensor std(const Tensor& self, BoolArg unbiased);
Tensor std(const Tensor& self, IntArrayRef axes, bool unbiased = true, bool keepdim = false);
/// Largest and smallest: of all, elementwise with another tensor, or (values, indices) along an
/// axis.
Tensor max(const Tensor& self);
Tensor max(const Tensor& self, const Tensor& other);
std::tuple<Tensor, Tensor> max(const Tensor& self, std::int64_t axis, bool keepdim = false);
Tensor min(const Tensor& self);
Tensor min(const Tensor& self, const Tensor& other);
std::tuple<Tensor, Tensor> min(const Tensor& self, std::int64_t axis, bool keepdim = false);
/// Extremes over axes; the gradient is shared by ties.
Tensor amax(const Tensor& self, IntArrayRef axes = {}, bool keepdim = false);
Tensor amin(const Tensor& self, IntArrayRef axes = {}, bool keepdim = false);
/// Index (int64) of the first extreme, of the flattened tensor or along an axis.
Tensor argmax(const Tensor& self, std::optional<std::int64_t> axis = std::nullopt,
              bool keepdim = false);
Tensor argmin(const Tensor& self, std::optional<std::int64_t> axis = std::nullopt,
              bool keepdim = false);
/// Truth of some or all elements.
Tensor any(const Tensor& self);
Tensor any(const Tensor& self, std::int64_t axis, bool keepdim = false);
Tensor all(const Tensor& self);
Tensor all(const Tensor& self, std::int64_t axis, bool keepdim = false);
/// p-norm over all elements or axes (p may be infinite).
Tensor norm(const Tensor& self, Scalar p = 2);
Tensor norm(const Tensor& self, Scalar p, IntArrayRef axes, bool keepdim = false);
/// log(sum(e^x)) over axes, without overflow.
Tensor logsumexp(const Tensor& self, IntArrayRef axes, bool keepdim = false);
/// Running sum and product along an axis.
Tensor cumsum(const Tensor& self, std::int64_t axis);
Tensor cumprod(const Tensor& self, std::int64_t axis);
/// Stable sort along an axis: (values, indices); NaN is the largest.
std::tuple<Tensor, Tensor> sort(const Tensor& self, std::int64_t axis = -1,
                                bool descending = false);
Tensor argsort(const Tensor& self, std::int64_t axis = -1, bool descending = false);
/// The k largest (or smallest) along an axis, in order: (values, indices).
std::tuple<Tensor, Tensor> topk(const Tensor& self, std::int64_t k, std::int64_t axis = -1,
                                bool largest = true);
/// Lower median: of all, or (values, indices) along an axis.
Tensor median(const Tensor& self);
std::tuple<Tensor, Tensor> median(const Tensor& self, std::int64_t axis, bool keepdim = false);
/// e^x / sum(e^x) along an axis, and its logarithm.
Tensor softmax(const Tensor& self, std::int64_t axis, std::optional<DType> dtype = std::nullopt);
Tensor log_softmax(const Tensor& self, std::int64_t axis,
                   std::optional<DType> dtype = std::nullopt);
/// Mean squared difference, no broadcasting warning: shapes must broadcast.
Tensor mse_loss(const Tensor& self, const Tensor& target);

// ---- losses of classes (ops/class_loss.cpp)
/// Cross entropy of logits [N, C, d...] or [C] with class indices [N, d...] or [] (integers), or
/// with class probabilities of the logits' shape; weight [C] or undefined. reduction: 0 none, 1
/// mean (weighted), 2 sum. IndexError for a class outside of 0..C-1 that is not ignore_index, where
/// values can be read.
Tensor cross_entropy_loss(const Tensor& self, const Tensor& target, const Tensor& weight = Tensor(),
                          std::int64_t reduction = 1, std::int64_t ignore_index = -100,
                          double label_smoothing = 0);
/// The same for log-probabilities and class indices.
Tensor nll_loss(const Tensor& self, const Tensor& target, const Tensor& weight = Tensor(),
                std::int64_t reduction = 1, std::int64_t ignore_index = -100);

// ---- normalisation (ops/norm.cpp)
/// Zero mean and unit variance over the trailing axes, then weight and bias, which have the shape
/// normalized_shape. ShapeError if self does not end in it.
Tensor layer_norm(const Tensor& self, IntArrayRef normalized_shape, const Tensor& weight = Tensor(),
                  const Tensor& bias = Tensor(), double eps = 1e-5);
/// Each channel of [N, C, ...] normalised by its own mean and variance over the batch, then weight
/// and bias [C]; also that mean and (biased) variance.
std::tuple<Tensor, Tensor, Tensor> batch_norm_train(const Tensor& self,
                                                    const Tensor& weight = Tensor(),
                                                    const Tensor& bias = Tensor(),
                                                    double eps = 1e-5);
/// The same by a given mean and variance [C].
Tensor batch_norm_eval(const Tensor& self, const Tensor& mean, const Tensor& var,
                       const Tensor& weight = Tensor(), const Tensor& bias = Tensor(),
                       double eps = 1e-5);

// ---- matmul (ops/matmul.cpp)
/// Product of vectors, matrices or stacks of matrices, as torch.matmul.
Tensor matmul(const Tensor& self, const Tensor& other);
/// [n, k] x [k, m].
Tensor mm(const Tensor& self, const Tensor& other);
/// [b, n, k] x [b, k, m].
Tensor bmm(const Tensor& self, const Tensor& other);
/// [n, k] x [k].
Tensor mv(const Tensor& self, const Tensor& other);
/// Inner product of two vectors.
Tensor dot(const Tensor& self, const Tensor& other);
/// Outer product of two vectors.
Tensor outer(const Tensor& self, const Tensor& other);
/// beta * self + alpha * (a x b).
Tensor addmm(const Tensor& self, const Tensor& a, const Tensor& b, Scalar beta = 1,
             Scalar alpha = 1);
Tensor baddbmm(const Tensor& self, const Tensor& a, const Tensor& b, Scalar beta = 1,
               Scalar alpha = 1);
/// self [..., in] x weight [out, in] transposed, plus bias [out] if defined.
Tensor linear(const Tensor& self, const Tensor& weight, const Tensor& bias = {});
/// relu(linear(input, weight, bias)) in one pass, forward and backward; nn::Sequential calls it for
/// an nn::Linear before an nn::ReLU. (PyTorch's ao.nn.intrinsic.LinearReLU.)
Tensor linear_relu(const Tensor& input, const Tensor& weight, const Tensor& bias = {});
/// Sum of the diagonal of a matrix.
Tensor trace(const Tensor& self);

// ---- linalg (ops/linalg.cpp): matrices [..., m, n], float32 or float64
/// L with L L^T = self, symmetric positive definite; upper: reads the upper triangle, gives L^T.
Tensor cholesky(const Tensor& self, bool upper = false);
/// x with self x = other [..., n, k] or [..., n], as torch.linalg.solve; ValueError if singular.
Tensor solve(const Tensor& self, const Tensor& other);
/// (x with A x = self, A), A triangular and maybe transposed first, as torch.triangular_solve.
std::tuple<Tensor, Tensor> triangular_solve(const Tensor& self, const Tensor& A, bool upper = true,
                                            bool transpose = false, bool unitriangular = false);
/// x with self x = B, or x self = B if not left; self triangular, as torch.linalg.solve_triangular.
Tensor linalg_solve_triangular(const Tensor& self, const Tensor& B, bool upper, bool left = true,
                               bool unitriangular = false);
/// Inverse matrix; ValueError if singular.
Tensor inverse(const Tensor& self);
/// Determinant; its first two derivatives are right for singular matrices as well.
Tensor det(const Tensor& self);
/// (sign, log |determinant|); 0 and -inf for a singular matrix, which has no derivative.
std::tuple<Tensor, Tensor> slogdet(const Tensor& self);
/// (Q [..., m, k], R [..., k, n]), k = min(m, n), reduced; derivatives need independent columns.
std::tuple<Tensor, Tensor> qr(const Tensor& self);
/// (ascending values, vectors as columns) of a symmetric matrix, of which UPLO, "L" or "U", is
/// read.
std::tuple<Tensor, Tensor> eigh(const Tensor& self, std::string_view UPLO = "L");
/// (U, S descending, V) with U diag(S) V^T = self, reduced, as torch.svd; linalg::svd gives V^T.
std::tuple<Tensor, Tensor, Tensor> svd(const Tensor& self);

/// The names of torch.linalg.
namespace linalg {
inline Tensor cholesky(const Tensor& A, bool upper = false) { return tutti::cholesky(A, upper); }
inline Tensor solve(const Tensor& A, const Tensor& B) { return tutti::solve(A, B); }
inline Tensor solve_triangular(const Tensor& A, const Tensor& B, bool upper, bool left = true,
                               bool unitriangular = false) {
  return linalg_solve_triangular(A, B, upper, left, unitriangular);
}
inline Tensor inv(const Tensor& A) { return inverse(A); }
inline Tensor det(const Tensor& A) { return tutti::det(A); }
inline std::tuple<Tensor, Tensor> slogdet(const Tensor& A) { return tutti::slogdet(A); }
inline std::tuple<Tensor, Tensor> qr(const Tensor& A) { return tutti::qr(A); }
inline std::tuple<Tensor, Tensor> eigh(const Tensor& A, std::string_view UPLO = "L") {
  return tutti::eigh(A, UPLO);
}
/// (U, S, V^T); reduced, where torch.linalg.svd gives full matrices unless told otherwise.
std::tuple<Tensor, Tensor, Tensor> svd(const Tensor& A);
}  // namespace linalg

// ---- einsum (ops/einsum.cpp)
/// Sums of products by Einstein's convention, as torch.einsum: einsum("bij,bjk->bik", {a, b}).
Tensor einsum(std::string_view equation, TensorList tensors);

// ---- in-place (ops/inplace.cpp): the op of the same name, assigned to self
/// Copies src into self, casting and broadcasting.
Tensor& copy_(const Tensor& self, const Tensor& src);
/// Sets every element to zero.
Tensor& zero_(const Tensor& self);
/// Sets every element to `value`.
Tensor& fill_(const Tensor& self, Scalar value);
Tensor& fill_(const Tensor& self, const Tensor& value);
Tensor& add_(const Tensor& self, const Tensor& other, Scalar alpha = 1);
Tensor& add_(const Tensor& self, Scalar other, Scalar alpha = 1);
Tensor& sub_(const Tensor& self, const Tensor& other, Scalar alpha = 1);
Tensor& sub_(const Tensor& self, Scalar other, Scalar alpha = 1);
Tensor& mul_(const Tensor& self, const Tensor& other);
Tensor& mul_(const Tensor& self, Scalar other);
Tensor& div_(const Tensor& self, const Tensor& other);
Tensor& div_(const Tensor& self, Scalar other);
Tensor& pow_(const Tensor& self, Scalar exponent);
Tensor& lerp_(const Tensor& self, const Tensor& end, Scalar weight);
Tensor& addcmul_(const Tensor& self, const Tensor& a, const Tensor& b, Scalar value = 1);
Tensor& addcdiv_(const Tensor& self, const Tensor& a, const Tensor& b, Scalar value = 1);
Tensor& clamp_(const Tensor& self, std::optional<Scalar> min,
               std::optional<Scalar> max = std::nullopt);
Tensor& clamp_min_(const Tensor& self, Scalar min);
Tensor& clamp_max_(const Tensor& self, Scalar max);
Tensor& masked_fill_(const Tensor& self, const Tensor& mask, Scalar value);
Tensor& exp_(const Tensor& self);
Tensor& log_(const Tensor& self);
Tensor& sqrt_(const Tensor& self);
Tensor& rsqrt_(const Tensor& self);
Tensor& square_(const Tensor& self);
Tensor& reciprocal_(const Tensor& self);
Tensor& sin_(const Tensor& self);
Tensor& cos_(const Tensor& self);
Tensor& tanh_(const Tensor& self);
Tensor& sigmoid_(const Tensor& self);
Tensor& relu_(const Tensor& self);
Tensor& abs_(const Tensor& self);
Tensor& neg_(const Tensor& self);
Tensor& floor_(const Tensor& self);
Tensor& ceil_(const Tensor& self);
Tensor& round_(const Tensor& self);
Tensor& trunc_(const Tensor& self);

// ---- make tensors from C++ values
namespace detail {
/// A copy of `data`; without a dtype in options float64 becomes float32 and int32 int64, as
/// torch::tensor has it.
Tensor from_values(const void* data, DType t, IntArrayRef sizes, const TensorOptions& options);
/// Nested braces of numbers: tensor({{1, 2}, {3, 4}}).
struct NestedValues {
  std::vector<Scalar> flat;
  Shape sizes;
  DType dtype;
  NestedValues(const Scalar& v) : flat{v}, dtype(v.dtype()) {}
  template <class T>
  requires(std::is_arithmetic_v<T>) NestedValues(T v) : NestedValues(Scalar(v)) {}
  NestedValues(std::initializer_list<NestedValues> v);
};
}  // namespace detail
/// A tensor of the given numbers: a number, nested braces, or a vector. Floating literals give
/// float32, integers int64.
Tensor tensor(detail::NestedValues values, const TensorOptions& options = {});
Tensor tensor(std::initializer_list<detail::NestedValues> values,
              const TensorOptions& options = {});
template <Element T>
Tensor tensor(const std::vector<T>& values, const TensorOptions& options = {}) {
  if constexpr (std::is_same_v<T, bool>) {
    std::unique_ptr<bool[]> v(new bool[values.size()]);
    std::copy(values.begin(), values.end(), v.get());
    return detail::from_values(v.get(), kBool, static_cast<std::int64_t>(values.size()), options);
  } else {
    return detail::from_values(values.data(), dtype_of<T>(),
                               static_cast<std::int64_t>(values.size()), options);
  }
}

// ---- operators
#define TUTTI_ARITHMETIC(op, name)                                                                 \
  inline Tensor operator op(const Tensor& a, const Tensor& b) { return name(a, b); }               \
  template <class S>                                                                               \
  requires(std::is_arithmetic_v<S> || std::same_as<S, Scalar>) Tensor operator op(const Tensor& a, \
                                                                                  S b) {           \
    return name(a, Scalar(b));                                                                     \
  }
TUTTI_ARITHMETIC(+, add)
TUTTI_ARITHMETIC(-, sub)
TUTTI_ARITHMETIC(*, mul)
TUTTI_ARITHMETIC(/, div)
TUTTI_ARITHMETIC(%, remainder)
TUTTI_ARITHMETIC(==, eq)
TUTTI_ARITHMETIC(!=, ne)
TUTTI_ARITHMETIC(<, lt)
TUTTI_ARITHMETIC(<=, le)
TUTTI_ARITHMETIC(>, gt)
TUTTI_ARITHMETIC(>=, ge)
#undef TUTTI_ARITHMETIC
#define TUTTI_REVERSED(op, expression)                                             \
  template <class S>                                                               \
  requires(std::is_arithmetic_v<S> || std::same_as<S, Scalar>) Tensor operator op( \
      S a, const Tensor& b) {                                                      \
    return expression;                                                             \
  }
TUTTI_REVERSED(+, add(b, Scalar(a)))
TUTTI_REVERSED(-, rsub(b, Scalar(a)))
TUTTI_REVERSED(*, mul(b, Scalar(a)))
TUTTI_REVERSED(/, mul(reciprocal(b), Scalar(a)))
TUTTI_REVERSED(==, eq(b, Scalar(a)))
TUTTI_REVERSED(!=, ne(b, Scalar(a)))
TUTTI_REVERSED(<, gt(b, Scalar(a)))
TUTTI_REVERSED(<=, ge(b, Scalar(a)))
TUTTI_REVERSED(>, lt(b, Scalar(a)))
TUTTI_REVERSED(>=, le(b, Scalar(a)))
#undef TUTTI_REVERSED
inline Tensor operator-(const Tensor& a) { return neg(a); }
inline Tensor operator!(const Tensor& a) { return logical_not(a); }
inline Tensor operator~(const Tensor& a) { return bitwise_not(a); }
inline Tensor operator&(const Tensor& a, const Tensor& b) { return bitwise_and(a, b); }
inline Tensor operator|(const Tensor& a, const Tensor& b) { return bitwise_or(a, b); }
inline Tensor operator^(const Tensor& a, const Tensor& b) { return bitwise_xor(a, b); }
inline Tensor operator&&(const Tensor& a, const Tensor& b) { return logical_and(a, b); }
inline Tensor operator||(const Tensor& a, const Tensor& b) { return logical_or(a, b); }

#include <tutti/core/tensor_members_impl.inc>

}  // namespace tutti
