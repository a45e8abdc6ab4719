// The Jacobian family on lists of tensors. Rows and columns come from one vmap over their numbers;
// the unit vectors are made inside it, so a chunk holds only its own.
#include <algorithm>
#include <optional>

#include <tutti/core/interpreter.h>
#include <tutti/func/chunks.h>
#include <tutti/func/jacobian.h>

namespace tutti {

JacOptions& JacOptions::chunk_size(std::optional<std::int64_t> n) {
  check<ValueError>(!n || *n > 0, "JacOptions", "chunk_size must be positive, got ", n.value_or(0));
  chunk_size_ = n;
  return *this;
}

namespace detail {

namespace {

// The standard basis of the space of some tensors taken together.
class Basis {
 public:
  void add(const Tensor& like) {
    parts_.push_back({like.sizes().shape(), like.options(), size_, like.numel()});
    size_ += like.numel();
  }
  std::int64_t size() const { return size_; }
  Device device() const { return parts_.empty() ? Device() : parts_[0].options.device(); }
  std::size_t parts() const { return parts_.size(); }

  /// Unit vector number `i`, a 0-d tensor (also of many examples inside vmap), taken apart. `begin`
  /// and `end` bound the numbers i stands for: parts that are zero for all of them stay undefined.
  Tensors unit(const Tensor& i, std::int64_t begin, std::int64_t end) const {
    Tensors r;
    for (const Part& p : parts_) {
      if (end <= p.begin || begin >= p.begin + p.numel) {
        r.push_back({});
        continue;
      }
      const TensorOptions numbers = TensorOptions().dtype(kInt64).device(p.options.device());
      const Tensor here = arange(p.begin, p.begin + p.numel, numbers);
      r.push_back(eq(here, i.to(p.options.device())).to(p.options.dtype()).reshape(p.sizes));
    }
    return r;
  }
  /// What belongs to one part of `t`, whose first (or last) axis runs over the basis, with the
  /// part's shape in the place of that axis.
  Tensor block(const Tensor& t, std::size_t part, bool last) const {
    const Part& p = parts_[part];
    const Tensor x = narrow(t, last ? -1 : 0, p.begin, p.numel);
    std::vector<std::int64_t> sizes = x.sizes().vec();
    const auto place = last ? sizes.end() - 1 : sizes.begin();
    sizes.insert(sizes.erase(place), p.sizes.begin(), p.sizes.end());
    return reshape(x, sizes);
  }

 private:
  struct Part {
    Shape sizes;
    TensorOptions options;
    std::int64_t begin, numel;
  };
  std::vector<Part> parts_;
  std::int64_t size_ = 0;
};

void check_arguments(const Tensors& args, const std::vector<bool>& wanted, const char* op) {
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (!wanted[i]) continue;
    check<ValueError>(args[i].defined(), op, "an argument to differentiate is undefined");
    check<TypeError>(is_floating(args[i].dtype()), op,
                     "only floating tensors can be differentiated, got ", args[i].dtype(),
                     "; cast it, or choose other arguments to differentiate");
  }
}

VmapOptions vmap_options(const JacOptions& o) {
  return VmapOptions().randomness(o.randomness()).chunk_size(o.chunk_size());
}

// The numbers that a chunked vmap over 0..total gives its function at each call.
struct Range {
  Range(std::int64_t total, const JacOptions& o)
      : total(total), step(std::min(o.chunk_size().value_or(total), total)) {}
  void next() {
    begin = end;
    end = std::min(end + step, total);
  }
  const std::int64_t total, step;
  std::int64_t begin = 0, end = 0;
};

// Gradients for all unit cotangents, along a new first axis.
Tensors rows(const Pullback& pull, const Basis& basis, const JacOptions& options) {
  Range range(basis.size(), options);
  const TensorOptions numbers = TensorOptions().dtype(kInt64).device(basis.device());
  if (range.step == 1 && (range.total == 1 || options.randomness() == Randomness::error)) {
    // One at a time needs no vmap, so this is also the way for what cannot be mapped.
    Chunks chunks(range.total);
    for (range.next(); range.begin < range.total; range.next()) {
      Tensors row = pull(basis.unit(full({}, range.begin, numbers), range.begin, range.end));
      for (Tensor& g : row) g = unsqueeze(g, 0);
      chunks.add(row, std::vector<Axis>(row.size(), 0), 1);
    }
    return chunks.join();
  }
  VmapOutputs outputs;
  outputs.counts = true;
  auto body = [&](const Tensors& i) {
    range.next();
    Tensors row = pull(basis.unit(i[0], range.begin, range.end));
    outputs.axes.assign(row.size(), 0);
    return row;
  };
  return vmap(ListFn(body), {arange(range.total, numbers)}, {0}, outputs, vmap_options(options));
}

}  // namespace

Jacobian jacrev(ListFn f, const Tensors& args, const std::vector<bool>& wanted,
                const std::size_t& aux_from, const JacOptions& options) {
  check_arguments(args, wanted, "jacrev");
  Jacobian jac;
  jac.out = with_pullback(f, args, wanted, aux_from, "jacrev",
                          [&](const Tensors& out, const Pullback& pull) {
                            Basis basis;
                            for (std::size_t k = 0; k < out.size() && k < aux_from; ++k)
                              basis.add(out[k]);
                            const Tensors gradients = rows(pull, basis, options);
                            for (std::size_t k = 0; k < basis.parts(); ++k)
                              for (const Tensor& g : gradients)
                                jac.blocks.push_back(basis.block(g, k, false));
                          });
  return jac;
}

Jacobian jacfwd(ListFn f, const Tensors& args, const std::vector<bool>& wanted,
                const std::size_t& aux_from, const JacOptions& options) {
  check_arguments(args, wanted, "jacfwd");
  Basis basis;
  for (std::size_t i = 0; i < args.size(); ++i)
    if (wanted[i]) basis.add(args[i]);
  Range range(basis.size(), options);
  VmapOutputs outputs;
  outputs.counts = true;
  // The arguments go through vmap, too, so that what f changes in place is as it was for the next
  // chunk and reaches the caller at the end.
  Tensors in = args;
  in.push_back(arange(range.total, TensorOptions().dtype(kInt64).device(basis.device())));
  std::vector<Axis> axes(args.size());
  axes.push_back(0);
  auto body = [&](const Tensors& values) {
    range.next();
    const Tensors primals(values.begin(), values.end() - 1);
    const Tensors unit = basis.unit(values[args.size()], range.begin, range.end);
    Tensors tangents;
    std::size_t at = 0;
    for (bool w : wanted) tangents.push_back(w ? unit[at++] : Tensor());
    auto [out, result] = jvp(f, primals, tangents, "jacfwd", aux_from);
    for (std::size_t k = 0; k < result.size(); ++k)
      check<TypeError>(is_floating(out[k].dtype()), "jacfwd",
                       "the function must return floating tensors, got ", out[k].dtype(),
                       "; return others as aux");
    outputs.first_from = result.size();
    outputs.axes.assign(result.size(), -1);
    for (std::size_t k = result.size(); k < out.size(); ++k) {
      result.push_back(out[k]);
      outputs.axes.push_back(std::nullopt);
    }
    return result;
  };
  Jacobian jac;
  jac.out = vmap(ListFn(body), in, axes, outputs, vmap_options(options));
  for (std::size_t k = 0; k < outputs.first_from; ++k)
    for (std::size_t j = 0; j < basis.parts(); ++j)
      jac.blocks.push_back(basis.block(jac.out[k], j, true));
  return jac;
}

}  // namespace detail
}  // namespace tutti
