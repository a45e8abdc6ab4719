// Op: one constinit record per op that says everything about it (shape, kernels, derivatives,
// batching), and run(), which hands it to the current interpreter. Core knows nothing of the
// interpreters that will read the rules.
#pragma once
#include <array>
#include <concepts>
#include <cstdint>
#include <memory>
#include <span>

#include <tutti/core/dtype.h>
#include <tutti/core/tensor.h>

namespace tutti {

namespace kernels {
class PieceMaker;
}

struct Op;
using Inputs = std::span<const Tensor>;

/// The non-tensor arguments of an op: plain, comparable, hashable.
struct Attrs {
  Shape dims;                       // axes, non-negative; batching shifts them
  Shape ints;                       // sizes, indices, counts
  std::array<Scalar, 2> scalars{};  // numbers; they live here, not in 0-d tensors
  DType dtype = kFloat32;           // of the result, where the op chooses it
  Device device;
  std::uint32_t flags = 0;              // op-specific bits
  std::shared_ptr<const void> closure;  // custom functions only
  friend bool operator==(const Attrs& a, const Attrs& b);
  std::size_t hash() const;

  /// Those of an op that takes none.
  static const Attrs& none();
};
inline const Attrs& Attrs::none() {
  static const Attrs a{};
  return a;
}

/// Shape and dtype of a result.
struct Meta {
  Shape sizes;
  DType dtype = kFloat32;
  Device device;
};
using Metas = SmallVec<Meta, 3>;

/// What a derivative rule sees. Inputs and outputs the record does not save arrive as Meta tensors
/// (shape and dtype only), in a jvp, too, when linearize calls it; undefined inputs stay undefined.
struct Call {
  const Op& op;
  Inputs in;
  Inputs out;
  const Attrs& attrs;
};

/// Which inputs a vjp must give a gradient for.
struct Needs {
  std::uint64_t bits = ~std::uint64_t{0};
  bool operator[](std::size_t i) const { return i >= 64 || (bits >> i & 1); }
};

/// A batch rule's view of the world: values of the parent interpreter and where their batch axis is
/// (-1: none).
using Axes = std::span<const int>;
struct Batched {
  Tensors values;
  SmallVec<int, 3> axes;
  Batched() = default;
  Batched(Tensor v, int axis) {
    values.push_back(std::move(v));
    axes.push_back(axis);
  }
};

/// One of several kernels of an op that are started together.
struct Launch {
  Inputs in, out;
  const Attrs* attrs;
};

/// Bits for Op::saves: which inputs and outputs the vjp reads the values of (shapes are always
/// there).
namespace saves {
inline constexpr std::uint32_t shapes = 0, in0 = 1, in1 = 2, in2 = 4, in3 = 8, inputs = 0xffff,
                               outputs = 0x10000;
}

/// Everything about one op. Rules are written with public ops, so that they can themselves be
/// transformed.
struct Op {
  const char* name = nullptr;
  /// Inputs and attrs -> shapes and dtypes of the results. The one place that validates and reports
  /// misuse.
  void (*shape)(Inputs in, const Attrs& a, Metas& out) = nullptr;
  /// Kernels trust their inputs and write into outputs the caller allocated (contiguous, not
  /// overlapping the inputs, except that an elementwise op may be given an output that is exactly
  /// one of its inputs).
  void (*cpu)(Inputs in, Inputs out, const Attrs& a) = nullptr;
  /// Elementwise ops: like `cpu`, without input 1, a matrix of lines along the last axis: it is
  /// made in pieces. What is written is without gaps, or in lines along that axis, too. May be
  /// null.
  void (*cpu_in_pieces)(Inputs in, Inputs out, const Attrs& a,
                        const kernels::PieceMaker& made) = nullptr;
  /// The same on a GPU, queued on the current stream; without one, the expansion is run there.
  void (*cuda)(Inputs in, Inputs out, const Attrs& a) = nullptr;
  /// Several of the kind at once on a GPU, none of which needs another's results; may be null.
  void (*cuda_together)(std::span<const Launch> list) = nullptr;
  /// Views, instead of shape and kernels: new sizes, strides and offset on x's storage; false: not
  /// without a copy.
  bool (*alias)(const Tensor& x, const Attrs& a, Shape& sizes, Shape& strides,
                std::int64_t& offset) = nullptr;
  /// Gradients of the inputs (undefined: zero) from the gradients of the outputs (undefined: zero).
  Tensors (*vjp)(const Call& c, Inputs g, Needs needs) = nullptr;
  /// Tangents of the outputs from those of the inputs (undefined: zero, both ways).
  Tensors (*jvp)(const Call& c, Inputs t) = nullptr;
  /// At least one input is batched.
  Batched (*batch)(const Op& op, Inputs in, const Attrs& a, Axes axes, std::int64_t size) = nullptr;
  /// Views: `base` with the viewed part replaced by `part`.
  Tensor (*put)(const Tensor& base, const Tensor& part, const Attrs& a) = nullptr;
  /// Fused ops and rare views: the same meaning in smaller ops, for interpreters the record has no
  /// rule for.
  Tensors (*expand)(Inputs in, const Attrs& a) = nullptr;
  std::uint32_t saves = saves::shapes;
  bool elementwise = false;   // output may be written in place of an equally shaped input
  bool any_layout = false;    // elementwise ops: the kernel takes outputs with gaps and axes in any
                              // order in memory, too, if the inputs of their values are like that
  std::uint32_t by_rows = 0;  // elementwise ops: inputs (as bits) that have no elements to match
                              // but a row for each index of the others' axis 0
  bool fused_by_compile = false;  // func::compile records the expansion, whose ops it fuses itself
  bool random = false;         // Vmap applies its randomness mode; inputs come with its axis first,
                               // or, for one draw that all examples share, to expand
  bool differentiable = true;  // false: integer or bool result, or zero derivative by declaration
  bool cuda_takes_half = false;  // the CUDA kernel does; otherwise as half_by_float says
  bool half_by_float = true;     // half inputs are computed in float32; false: the kernel is
                                 // bytes-only and takes halves
  /// Why a rule is missing, for the error text ("the size of the result depends on the values").
  const char* reason = nullptr;
};

/// A list of tensors without a share in them: for the inputs of an op, where somebody else holds
/// them as long as it runs.
class Lent {
 public:
  Lent() = default;
  template <std::same_as<Tensor>... T>
  explicit Lent(const T&... x) {
    (push_back(x), ...);
  }
  void push_back(const Tensor& x) { handles_.push_back(x.handle().get()); }
  operator Inputs() const {
    static_assert(sizeof(Tensor) == sizeof(TensorImpl*));
    return {reinterpret_cast<const Tensor*>(handles_.data()), handles_.size()};
  }

 private:
  SmallVec<TensorImpl*, 4> handles_;
};

/// Runs an op under the current interpreter. `in` and the results are tensors of that interpreter.
Tensors run(const Op& op, Inputs in, const Attrs& a = Attrs::none());
/// The same for ops with one result.
Tensor run1(const Op& op, std::initializer_list<Tensor> in, const Attrs& a = Attrs::none());
Tensor run1(const Op& op, Inputs in, const Attrs& a = Attrs::none());
/// x.op_(...): the result of an elementwise op assigned to `dst`; written straight into its memory
/// where possible.
void run_inplace(const Op& op, const Tensor& dst, std::initializer_list<Tensor> in,
                 const Attrs& a = Attrs::none());
/// Writes src into dst, casting and broadcasting it; the one mutating primitive.
void assign(const Tensor& dst, const Tensor& src);

}  // namespace tutti
