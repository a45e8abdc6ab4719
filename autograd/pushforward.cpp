// The pushforward of a recorded function.
#include <unordered_map>

#include <tutti/autograd/pushforward.h>

namespace tutti {

Pushforward::Pushforward(std::vector<Edge> roots, std::vector<Edge> leaves)
    : roots_(std::move(roots)) {
  std::unordered_map<const Node*, std::size_t> place;
  auto step_of = [&](const Edge& e) {
    auto at = e.node ? place.find(e.node.get()) : place.end();
    return at == place.end() ? none : at->second;
  };
  for (const Node* n : nodes_below(roots_)) {
    Step s{n, {}, 0};
    for (const Edge& e : n->edges) {
      s.from.push_back(step_of(e));
      if (e.node) ++steps_[s.from.back()].readers;
    }
    place.emplace(n, steps_.size());
    steps_.push_back(std::move(s));
  }
  for (const Edge& e : roots_) {
    root_steps_.push_back(step_of(e));
    if (e.node) ++steps_[root_steps_.back()].readers;
  }
  for (const Edge& e : leaves) leaf_steps_.push_back(step_of(e));
}

std::vector<Tensor> Pushforward::operator()(const std::vector<Tensor>& tangents) const {
  std::vector<Tensors> at(steps_.size());  // per step: the tangents of its outputs
  std::vector<std::size_t> readers;        // that are still to come
  for (const Step& s : steps_) readers.push_back(s.readers);
  auto read = [&](std::size_t step, std::uint32_t output) {
    Tensor t = output < at[step].size() ? at[step][output] : Tensor();
    if (--readers[step] == 0) at[step].clear();
    return t;
  };
  for (std::size_t i = 0; i < leaf_steps_.size(); ++i)
    if (leaf_steps_[i] != none) at[leaf_steps_[i]].push_back(tangents[i]);
  for (std::size_t k = 0; k < steps_.size(); ++k) {
    const Node& n = *steps_[k].node;
    if (!n.op) continue;
    Tensors in, out, t;
    bool any = false;
    for (std::size_t i = 0; i < n.edges.size(); ++i) {
      const std::size_t from = steps_[k].from[i];
      t.push_back(from == none ? Tensor() : read(from, n.edges[i].output));
      any = any || t.back().defined();
    }
    if (!any) continue;
    for (std::size_t i = 0; i < n.edges.size(); ++i)
      in.push_back(unpack(n, n.in()[i], n.edges[i], false));
    for (const Saved& s : n.out()) out.push_back(unpack(n, s, {}, false));
    const Call call{*n.op, Inputs(in.data(), in.size()), Inputs(out.data(), out.size()), n.attrs()};
    const Inputs ts(t.data(), t.size());
    Tensors dy = n.op->jvp ? n.op->jvp(call, ts) : transpose_vjp(call, ts);
    for (std::size_t j = 0; j < dy.size(); ++j) {
      if (!dy[j].defined()) continue;
      if (!is_floating(out[j].dtype()))
        dy[j].reset();
      else
        check<ShapeError>(dy[j].sizes() == out[j].sizes(), n.op->name, "the tangent has shape ",
                          dy[j].sizes(), ", expected ", out[j].sizes());
    }
    if (steps_[k].readers > 0) at[k] = std::move(dy);
  }
  std::vector<Tensor> result;
  for (std::size_t r = 0; r < roots_.size(); ++r)
    result.push_back(root_steps_[r] == none ? Tensor() : read(root_steps_[r], roots_[r].output));
  return result;
}

}  // namespace tutti
