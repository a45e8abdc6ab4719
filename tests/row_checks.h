// The checks that run on every row of the op table.
#pragma once
#include "op_table.h"

namespace tutti_test {

/// A function to differentiate and to map: a row, a variant of it, or a transform of another one.
struct Subject {
  std::string label;
  std::vector<In> inputs;
  Fn f;
  Fn oracle;  // what f must be equal to; f itself if empty
  double tolerance = 1;
  bool differences = true;  // central differences apply
  bool base = true;         // backward() applies
  tutti::VmapOptions options;

  const Fn& meaning() const { return oracle ? oracle : f; }
};
/// The row itself; random rows start from a seed, and rows without inputs get one they ignore.
Subject subject_of(const Row& row);
/// The row's in-place variant, compared with the row; and for views: the base written through the
/// view, and the view after a write to its base.
std::vector<Subject> writing_subjects(const Row& row);

/// Derivatives: jvp against central differences, vjp against jvp, backward() against vjp.
void check_derivatives(const Subject& s, Tally& tally);
/// vmap against the loop, for at most `limit` of the choices of axes (each input: not mapped, first
/// axis, last axis) and each batch size.
void check_vmap(const Subject& s, Tally& tally, std::size_t limit,
                const std::vector<std::int64_t>& sizes);

/// A compiled call against s itself, results and arguments, twice.
void check_compiled(const Subject& s, Tally& tally, tutti::DType d = tutti::kFloat64);

// The derivative of s along tangents that are further inputs; its gradients for cotangents that are
// further inputs; and s mapped over a new first axis of all inputs, or (last) a new last axis.
Subject jvp_of(const Subject& s);
Subject vjp_of(const Subject& s);
Subject vmap_of(const Subject& s, bool last = false);
/// What jvp_of gives, by way of the whole Jacobian from jacfwd or jacrev.
Subject jacobian_of(const Subject& s, bool forward);

/// True if s has a derivative: floating inputs and outputs.
bool differentiable(const Subject& s);

/// Everything of depth 1, second derivatives, and vmap of vmap.
void check_row(const Row& row, Tally& tally);
/// The transforms that are nested: jvp, vjp, vmap, jacrev, jacfwd.
inline constexpr int transforms = 5;
/// Depth 2: all transforms of transform `which` of the row.
void check_nested(const Row& row, int which, Tally& tally, std::size_t limit);
void check_nested(const Subject& s, int which, Tally& tally, std::size_t limit);
/// Depth 3 and beyond: three transforms drawn at random, one in the other, and the derivatives and
/// vmap of that.
void check_chain(const Row& row, Rng& rng, Tally& tally);

}  // namespace tutti_test
