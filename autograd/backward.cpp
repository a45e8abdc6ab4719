// Backward: a queue over recorded nodes, highest first.
#include <algorithm>
#include <array>
#include <map>
#include <memory_resource>
#include <mutex>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include <tutti/autograd/node.h>
#include <tutti/core/ops.h>

namespace tutti {

Ptr<Node> make_node(const Op& op, const Attrs& a, Inputs in, Inputs out, bool alias,
                    const char* transform) {
  Ptr<Node> n = make_ref<Node>(&op, transform, a);
  n->region = thread_state().region;
  // A saved output must lose its record, which would point back at this node.
  const auto save = [&](const Tensor& x, bool kept, bool is_output) {
    if (!x.handle()) {
      n->saved.emplace_back();
      return;
    }
    const TensorImpl& i = *x.impl();
    Saved& s = n->saved.emplace_back(i);
    if (kept) s.keep(alias && (is_output || i.grad) ? make_plain(x) : x);
  };
  std::uint32_t bits = op.saves & saves::inputs;
  const bool all = bits == saves::inputs;
  for (const Tensor& x : in) {
    save(x, all || (bits & 1) != 0, false);
    bits >>= 1;
  }
  for (const Tensor& y : out) save(y, (op.saves & saves::outputs) != 0, true);
  return n;
}

Tensor stand_in(const Meta& m) {
  auto p = make_ref<TensorImpl>(TensorImpl::Kind::dense);
  p->dtype = m.dtype;
  p->device = m.device;
  p->set_sizes(m.sizes);
  p->strides = contiguous_strides(m.sizes);
  return Tensor(p);
}

Tensor unpack(const Node& n, const Saved& s, const Edge& edge, bool with_history) {
  if (!s.defined) return {};
  if (!s.value.defined()) return stand_in(s.meta);
  check<AutogradError>(version_of(s.value) == s.version, n.transform, "a value that ", n.op->name,
                       " needs for its derivative was changed in place (version ",
                       version_of(s.value), ", expected ", s.version,
                       "); clone it before the in-place op");
  if (!with_history || !edge.node) return s.value;
  Tensor x = make_plain(s.value);
  x.impl()->grad = std::make_unique<Record>(edge.node, edge.output);
  return x;
}

std::vector<const Node*> nodes_below(const std::vector<Edge>& roots) {
  std::vector<const Node*> all;
  std::unordered_set<const Node*> seen;
  for (const Edge& e : roots)
    if (e.node && seen.insert(e.node.get()).second) all.push_back(e.node.get());
  for (std::size_t i = 0; i < all.size(); ++i)
    for (const Edge& e : all[i]->edges)
      if (e.node && seen.insert(e.node.get()).second) all.push_back(e.node.get());
  // Inputs are lower than their consumers.
  std::stable_sort(all.begin(), all.end(),
                   [](const Node* a, const Node* b) { return a->height < b->height; });
  return all;
}

namespace {

struct Pending {
  SmallVec<Tensor, 2> grads;  // per output
  std::size_t order = 0;
};

struct Item {
  std::int64_t height;
  std::size_t order;
  Ptr<Node> node;
  bool operator<(const Item& o) const {
    return height != o.height ? height < o.height : order > o.order;
  }
};

// The nodes from which a wanted one can be reached; others need no gradient.
std::unordered_set<const Node*> nodes_towards(const std::vector<Edge>& roots,
                                              const std::vector<Edge>& wanted) {
  std::unordered_set<const Node*> useful;
  for (const Edge& e : wanted) useful.insert(e.node.get());
  for (const Node* n : nodes_below(roots))  // one pass from the lowest up decides
    for (const Edge& e : n->edges)
      if (e.node && useful.count(e.node.get())) {
        useful.insert(n);
        break;
      }
  return useful;
}

/// Hooks may register others, for the next time.
void run_hooks(Node::Extras& extras, std::span<Tensor> grads) {
  for (std::size_t i = 0, count = extras.hooks.size(); i < count; ++i) {
    auto& [k, hook] = extras.hooks[i];
    Tensor& g = grads[k];
    if (!hook || !g.defined()) continue;
    const Tensor r = hook(g);
    if (!r.defined()) continue;
    check<ShapeError>(r.sizes() == g.sizes(), "register_hook",
                      "a hook returned a gradient of shape ", r.sizes(), ", expected ", g.sizes(),
                      "; return one like its argument");
    check<TypeError>(r.dtype() == g.dtype(), "register_hook",
                     "a hook returned a gradient of dtype ", r.dtype(), ", expected ", g.dtype(),
                     "; convert it with to()");
    check<DeviceError>(r.device() == g.device(), "register_hook", "a hook returned a gradient on ",
                       r.device(), ", expected ", g.device(), "; convert it with to()");
    g = r;
  }
}

}  // namespace

// Guards the gradients of leaves; several leaves share one.
static std::mutex& lock_of(const Node& leaf) {
  static std::array<std::mutex, 64> locks;
  return locks[std::hash<const Node*>()(&leaf) / 64 % locks.size()];
}

std::vector<Tensor> backward(const std::vector<Edge>& roots, const std::vector<Tensor>& seeds,
                             const BackwardOptions& options) {
  std::array<std::byte, 4096> first;  // holds what a small graph takes
  std::pmr::monotonic_buffer_resource memory(first.data(), first.size());
  std::pmr::unordered_map<const Node*, Pending> pending(&memory);
  std::priority_queue<Item, std::pmr::vector<Item>> queue{std::less<Item>(),
                                                          std::pmr::vector<Item>(&memory)};
  std::size_t order = 0;
  std::vector<Tensor> result(options.wanted ? options.wanted->size() : 0);
  std::map<std::pair<const Node*, std::uint32_t>, std::size_t> ends;
  if (options.stop)
    for (std::size_t i = 0; i < result.size(); ++i)
      ends.emplace(std::pair((*options.wanted)[i].node.get(), (*options.wanted)[i].output), i);
  auto add_to = [&](const Edge& e, const Tensor& g) {
    if (options.stop)
      if (auto end = ends.find({e.node.get(), e.output}); end != ends.end()) {
        Tensor& r = result[end->second];
        r = r.defined() ? add(r, g) : g;
        return;
      }
    Pending& p = pending[e.node.get()];
    if (p.grads.empty()) {
      p.grads.resize(std::max<std::size_t>(1, e.node->out().size()));
      p.order = order;
      queue.push({e.node->height, order++, e.node});
    }
    Tensor& slot = p.grads[e.output];
    slot = slot.defined() ? add(slot, g) : g;
  };

  std::unordered_set<const Node*> useful;
  const bool prune = options.base && options.wanted && !options.stop;
  if (prune) useful = nodes_towards(roots, *options.wanted);
  std::pmr::unordered_multimap<const Node*, std::size_t> targets(&memory);
  for (std::size_t i = 0; i < result.size() && !options.stop; ++i)
    if (const Node* n = (*options.wanted)[i].node.get()) targets.emplace(n, i);

  for (std::size_t i = 0; i < roots.size(); ++i)
    if (roots[i].node && seeds[i].defined()) add_to(roots[i], seeds[i]);

  while (!queue.empty()) {
    Ptr<Node> n = queue.top().node;
    queue.pop();
    auto here = pending.find(n.get());
    SmallVec<Tensor, 2> grads = std::move(here->second.grads);
    pending.erase(here);
    if (n->extras) {
      run_hooks(*n->extras, grads);
      if (options.accumulate)
        for (auto& [k, kept] : n->extras->retained)
          if (grads[k].defined()) kept = kept.defined() ? add(kept, grads[k]) : clone(grads[k]);
    }
    auto [first, last] = targets.equal_range(n.get());
    for (auto it = first; it != last; ++it)
      result[it->second] = grads[(*options.wanted)[it->second].output];
    if (!n->op) {
      if (options.accumulate) {
        std::lock_guard lock(lock_of(*n));
        // A gradient that somebody else may hold, or a graph that is being made, is copied before
        // anybody changes it.
        const Tensor& g = grads[0];
        const bool shared = thread_state().grad_mode || g.is_view() || g.handle()->refs > 1;
        n->grad = n->grad.defined() ? add(n->grad, g) : shared ? clone(g) : g;
      }
      continue;
    }
    if (prune && !useful.count(n.get())) continue;
    check<AutogradError>(
        !n->released, "backward",
        "the graph was already used and freed; pass retain_graph = true to the first backward");
    const bool history = options.base && thread_state().grad_mode;
    Tensors in, out;
    Needs needs{0};
    for (std::size_t i = 0; i < n->edges.size(); ++i) {
      in.push_back(unpack(*n, n->in()[i], n->edges[i], history));
      const Edge& e = n->edges[i];
      if (e.node && (!prune || useful.count(e.node.get())) && i < 64)
        needs.bits |= std::uint64_t{1} << i;
    }
    for (std::size_t k = 0; k < n->out().size(); ++k)
      out.push_back(unpack(*n, n->out()[k], Edge{n, static_cast<std::uint32_t>(k)}, history));
    Tensors gs = n->op->vjp(
        Call{*n->op, Inputs(in.data(), in.size()), Inputs(out.data(), out.size()), n->attrs()},
        Inputs(grads.data(), grads.size()), needs);
    for (std::size_t i = 0; i < gs.size() && i < n->edges.size(); ++i) {
      const Edge& e = n->edges[i];
      if (!e.node || !gs[i].defined() || (prune && !useful.count(e.node.get()))) continue;
      check<ShapeError>(gs[i].sizes() == in[i].sizes(), n->op->name, "the gradient of input ", i,
                        " has shape ", gs[i].sizes(), ", expected ", in[i].sizes());
      check<DeviceError>(gs[i].device() == in[i].device(), n->op->name, "the gradient of input ", i,
                         " is on ", gs[i].device(), ", expected ", in[i].device());
      add_to(e, gs[i].dtype() == in[i].dtype() ? gs[i] : gs[i].to(in[i].dtype()));
    }
    if (!options.keep) {
      n->saved.clear();
      n->own_attrs.reset();
      n->released = true;
    }
  }
  return result;
}

}  // namespace tutti
