// Node: one recorded op of a gradient graph, for base autograd and for the grad transform alike.
//
// A node saves values of the level below (never boxes of its own level, never a tensor that carries
// its own record), so there are no cycles; an edge names the node and output an input came from.
// Order in backward is `height`, one more than the highest input: no counter, so graphs may be
// built and extended on any thread. Freeing is iterative (ref.h).
#pragma once
#include <algorithm>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <tutti/core/interpreter.h>

namespace tutti {

struct Node;

struct Edge {
  Ptr<Node> node;
  std::uint32_t output = 0;
};

/// A value a vjp may ask for: the value itself where the op saves it, else its shape and dtype.
struct Saved {
  Saved() = default;  // an undefined tensor
  explicit Saved(Meta m) : meta(std::move(m)), defined(true) {}
  explicit Saved(const TensorImpl& x) : meta{x.sizes, x.dtype, x.device}, defined(true) {}
  void keep(const Tensor& x) {
    value = x;
    version = version_of(x);
  }

  Meta meta;
  Tensor value;
  std::uint64_t version = 0;
  bool defined = false;
};

struct Node final : RefCounted {
  Node() = default;  // a leaf
  Node(const Op* o, const char* t, const Attrs& a) : op(o), transform(t) {
    if (&a != &Attrs::none()) own_attrs.emplace(a);
  }
  const Attrs& attrs() const { return own_attrs ? *own_attrs : Attrs::none(); }
  std::span<const Saved> in() const { return {saved.data(), released ? 0 : edges.size()}; }
  std::span<const Saved> out() const { return {saved.begin() + in().size(), saved.end()}; }
  /// The next input came from there.
  void add_edge(const Edge& e) {
    edges.push_back(e);
    height = std::max(height, e.node->height + 1);
  }
  /// The next input came from nowhere.
  void add_edge() { edges.emplace_back(); }

  const Op* op = nullptr;  // null: a leaf
  const char* transform = "backward";
  std::optional<Attrs> own_attrs;
  SmallVec<Saved, 4> saved;  // of the inputs, then of the outputs
  SmallVec<Edge, 3> edges;   // one per input
  std::int64_t height = 0;
  std::uint64_t region = 0;  // the innermost checkpointed call it was recorded in; 0: none
  bool released = false;

  // Leaves of base autograd: the accumulated gradient.
  Tensor grad;
  // Rarely used: hooks and retained gradients per output.
  struct Extras {
    // A deque: a hook that registers others stays where it is. Removed ones are empty.
    std::deque<std::pair<std::uint32_t, std::function<Tensor(const Tensor&)>>> hooks;
    std::vector<std::pair<std::uint32_t, Tensor>> retained;
  };
  std::unique_ptr<Extras> extras;
};

/// Base autograd's record on a dense tensor: which output of which node it is.
struct Record final : AutogradMeta {
  Record(Ptr<Node> n, std::uint32_t o) : edge{std::move(n), o} {}
  void record(const Op& op, Inputs in, Inputs out, const Attrs& attrs) const override;
  bool leaf() const override { return !edge.node->op; }
  void move_to(const Tensor& dst) const override {
    dst.impl()->grad = std::make_unique<Record>(edge.node, edge.output);
  }
  Edge edge;
};
inline const Record* record_of(const Tensor& x) {
  TensorImpl* p = x.impl();
  return p && p->kind == TensorImpl::Kind::dense ? static_cast<const Record*>(p->grad.get())
                                                 : nullptr;
}

/// A node for `op` on values of the level below, still without edges: the caller adds one per
/// input. `alias` strips records from what is saved (base autograd).
Ptr<Node> make_node(const Op& op, const Attrs& a, Inputs in, Inputs out, bool alias,
                    const char* transform);

/// How backward is run.
struct BackwardOptions {
  bool accumulate = false;  // into the leaves' grad (base autograd)
  bool keep = true;         // the graph stays usable
  bool base = false;        // saved values get their edges back where grad mode is on
  const std::vector<Edge>* wanted = nullptr;  // gradients to return; null: none
  bool stop = false;                          // go no further than the wanted edges
};

/// Pulls `seeds` back from `roots`. Rules run under whatever interpreter is current, so a pullback
/// can be transformed. Returns one gradient per wanted edge, undefined where there is none.
std::vector<Tensor> backward(const std::vector<Edge>& roots, const std::vector<Tensor>& seeds,
                             const BackwardOptions& options);

/// A jvp rule for ops whose derivative is what their vjp says: the vjp is linear in the cotangents,
/// and the transpose of that linear map is the jvp.
Tensors transpose_vjp(const Call& c, Inputs tangents);
/// A tensor with a shape and a dtype but no values.
Tensor stand_in(const Meta& m);
/// All nodes that `roots` rest on, an input always before what is made of it.
std::vector<const Node*> nodes_below(const std::vector<Edge>& roots);
/// What a rule of n sees of a saved value: the value, or a stand-in if it was not kept.
/// `edge`: its history, given back where with_history. AutogradError if it was changed in place.
Tensor unpack(const Node& n, const Saved& s, const Edge& edge, bool with_history);

}  // namespace tutti
