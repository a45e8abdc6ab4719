// Placing values in memory, and running.
#include <algorithm>
#include <exception>
#include <mutex>
#include <set>

#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/ahead.h>
#include <tutti/core/kernels/cuda_graphs.h>
#include <tutti/core/parallel.h>
#include <tutti/func/frame.h>
#include <tutti/func/replay.h>

namespace tutti::detail {

namespace {
constexpr std::int64_t kAlign = 64;
std::int64_t aligned(std::int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }
}  // namespace

struct Frame::Step {
  const Op* op;
  const Attrs* attrs;
  Tensors in, out;
  std::unique_ptr<Attrs> own_attrs;  // random: filled in before each run
  const Instr* random = nullptr;
  std::unique_ptr<MapStep> map;
  Launch launch() const {
    return {Inputs(in.data(), in.size()), Inputs(out.data(), out.size()), attrs};
  }
  bool half = false;         // any_half(in, out)
  std::size_t together = 1;  // how many from here on a GPU may start at once
};

/// A map: a frame per body and thread.
struct Frame::MapStep {
  struct Link {  // of a body's value to the value of the graph around
    int value;
    const TensorImpl* whole;
    std::int64_t step;  // bytes from a block to the next
    // Of an input to be fetched: a block's pieces of `step` bytes, and bytes from one to the next.
    std::int64_t pieces = 0, pitch = 0;
  };
  const MapNode* node = nullptr;
  std::vector<Link> links[2];
  std::vector<std::unique_ptr<Frame>> frames[2];
  std::vector<std::vector<kernels::Ahead::Lines>> later;  // for each frame of the first body
  bool far = false;  // what blocks read comes from beyond the caches
  std::int64_t grain = 1;
  std::mutex failing;
  std::exception_ptr failed;

  void prepare(std::size_t threads) {
    for (std::size_t b = 0; b < node->bodies.size(); ++b)
      while (frames[b].size() < (b == 0 ? threads : 1))
        frames[b].push_back(std::make_unique<Frame>(node->bodies[b], std::vector<Graph::Write>{},
                                                    node->bodies[b].outputs));
    if (later.size() < threads) later.resize(threads);
  }

  void run_block(Frame& frame, std::size_t body, std::int64_t block,
                 const std::vector<Generator::Draw>& draws) {
    for (const Link& l : links[body]) frame.point(l.value, l.whole->data() + l.step * block);
    frame.run(draws, block * node->block);
  }

  /// Runs a block of the first body while what the next one reads comes into the cache. `fetched`:
  /// whether what it reads itself has come, and, afterwards, whether all of the next one's will.
  void run_before_next(std::size_t frame, std::int64_t block,
                       const std::vector<Generator::Draw>& draws, bool& fetched) {
    using kernels::Ahead;
    std::vector<Ahead::Lines>& next = later[frame];
    next.clear();
    for (const Link& l : links[0]) {
      const std::byte* const begin = l.whole->data() + l.step * (block + 1);
      if (l.pieces == 1) next.push_back(Ahead::lines(begin, l.step));
      for (std::int64_t at = 0; l.pieces > 1 && at < l.step; at += Ahead::kLine)
        next.push_back({begin + at, l.pieces, l.pitch});
    }
    Ahead ahead({next.data(), next.size()}, fetched);
    const kernels::FetchAhead fetching(ahead);
    run_block(*frames[0][frame], 0, block, draws);
    fetched = ahead.all_taken();
  }

  void run(const std::vector<Generator::Draw>& draws) {
    const std::int64_t blocks = node->blocks();
    const std::int64_t parts =
        std::max<std::int64_t>(1, std::min<std::int64_t>(num_threads(), blocks / grain));
    prepare(static_cast<std::size_t>(parts));
    failed = nullptr;
    parallel_for(parts, 1, [&](std::int64_t begin, std::int64_t end) {
      try {
        for (; begin < end; ++begin) {
          bool fetched = false;
          for (std::int64_t i = blocks * begin / parts; i < blocks * (begin + 1) / parts; ++i) {
            const bool rest = i + 1 == blocks && node->bodies.size() > 1;
            const auto frame = static_cast<std::size_t>(rest ? 0 : begin);
            if (far && i + 2 < blocks && i + 1 < blocks * (begin + 1) / parts)
              run_before_next(frame, i, draws, fetched);
            else
              run_block(*frames[rest][frame], rest, i, draws);
          }
        }
      } catch (...) {
        std::lock_guard lock(failing);
        failed = std::current_exception();
      }
    });
    if (failed) std::rethrow_exception(failed);
  }
};

Frame::~Frame() = default;

Frame::Frame(const Graph& g, const std::vector<Graph::Write>& in_place,
             const std::vector<int>& outside)
    : graph_(g), in_place_(in_place), outside_(outside), values_(g.values.size()) {
  // Where each root lies: -1 in the arena, itself if its memory comes from outside, else the input
  // it overwrites.
  std::vector<int> home(g.values.size(), -1);
  for (const int v : g.inputs) home[static_cast<std::size_t>(v)] = v;
  for (const int v : outside)
    if (home[static_cast<std::size_t>(v)] < 0) home[static_cast<std::size_t>(v)] = v;
  for (const Graph::Write& w : in_place) home[static_cast<std::size_t>(w.value)] = w.input;

  // Roots before their views; values that overwrite an input after it.
  std::vector<bool> used(g.values.size(), false);
  const auto use = [&](int v) {
    if (v >= 0)
      used[static_cast<std::size_t>(v)] = used[static_cast<std::size_t>(g.root(v))] = true;
  };
  for (const int v : g.inputs) use(v);
  for (const int v : g.outputs) use(v);
  for (const int v : outside) use(v);
  for (const Graph::Write& w : g.writes) use(w.value);
  for (const Instr& i : g.instrs) {
    for (const int v : i.in) use(v);
    for (const int v : i.out) use(v);
    if (i.map)
      for (const Graph& body : i.map->bodies)
        for (const Source& s : body.sources) use(s.index);
  }
  for (std::size_t v = 0; v < home.size(); ++v)
    if (used[v] && home[v] == static_cast<int>(v))
      place(static_cast<int>(v), Storage::wrap(nullptr, 0, g.device, {}), 0);
  for (const Graph::Write& w : in_place)
    place(w.value, values_[static_cast<std::size_t>(w.input)].impl()->storage, 0);
  place_temporaries(home);
  for (std::size_t v = 0; v < home.size(); ++v)
    if (const int r = g.values[v].root; used[v] && r != static_cast<int>(v)) {
      const TensorImpl& base = *values_[static_cast<std::size_t>(r)].impl();
      place(static_cast<int>(v), base.storage, base.offset);
    }

  const auto tensor_of = [&](int v) {
    return v < 0 ? Tensor() : values_[static_cast<std::size_t>(v)];
  };
  for (const Instr& i : g.instrs) {
    Step s{i.op, &i.attrs, {}, {}, {}, nullptr, {}};
    for (const int v : i.in) s.in.push_back(tensor_of(v));
    for (const int v : i.out) s.out.push_back(tensor_of(v));
    s.half = any_half(s.launch().in, s.launch().out);
    if (i.draw >= 0) {
      s.own_attrs = std::make_unique<Attrs>(i.attrs);
      s.attrs = s.own_attrs.get();
      s.random = &i;
    }
    if (i.map) {
      s.map = std::make_unique<MapStep>();
      MapStep& m = *s.map;
      m.node = i.map.get();
      double work = 0;
      std::int64_t bytes = 0;
      for (std::size_t b = 0; b < i.map->bodies.size(); ++b) {
        const Graph& body = i.map->bodies[b];
        for (std::size_t k = 0; k < body.inputs.size(); ++k) {
          const Source& from = body.sources[k];
          const TensorImpl* whole = tensor_of(from.index).impl();
          const std::int64_t step =
              from.axis < 0 ? 0
                            : i.map->block * whole->strides[static_cast<std::size_t>(from.axis)] *
                                  size_of(whole->dtype);
          MapStep::Link link{body.inputs[k], whole, step};
          if (from.axis == 0 && whole->numel > 0) {
            const std::int64_t pitch = line_pitch(whole->sizes, whole->strides, 0);
            if (is_contiguous(whole->sizes, whole->strides)) {
              link.pieces = 1;
            } else if (pitch > 0) {  // members last
              link.pieces = whole->numel / whole->sizes[0];
              link.pitch = pitch * size_of(whole->dtype);
            }
          }
          m.links[b].push_back(link);
          if (b == 0 && link.pieces > 0) bytes += whole->numel * size_of(whole->dtype);
        }
        for (std::size_t k = 0; k < body.outputs.size(); ++k) {
          const TensorImpl* whole = tensor_of(i.out[k]).impl();
          m.links[b].push_back(
              {body.outputs[k], whole, i.map->block * whole->strides[0] * size_of(whole->dtype)});
        }
        if (b == 0)
          for (const Instr& j : body.instrs) work += flops(body, j) / 40 + 100;
      }
      m.grain = std::max<std::int64_t>(1, static_cast<std::int64_t>(2000 / std::max(work, 1.0)));
      m.far = bytes > kernels::cache_bytes(3) / 4;  // others use it, too
      m.prepare(1);
    }
    steps_.push_back(std::move(s));
  }
  if (g.device.is_cuda()) find_lists();
}

// Steps in a row whose op starts several at once. None reads or writes what another one writes.
void Frame::find_lists() {
  for (std::size_t i = 0; i < steps_.size();) {
    const Op* const op = steps_[i].op;
    std::set<const Storage*> written;
    const auto touches = [&](const Tensors& list) {
      return std::any_of(list.begin(), list.end(), [&](const Tensor& x) {
        return x.defined() && written.contains(x.impl()->storage.get());
      });
    };
    std::size_t end = i;
    while (end < steps_.size() && op && op->cuda_together && steps_[end].op == op &&
           !touches(steps_[end].in) && !touches(steps_[end].out)) {
      for (const Tensor& y : steps_[end].out) written.insert(y.impl()->storage.get());
      ++end;
    }
    end = std::max(end, i + 1);
    for (; i < end; ++i) steps_[i].together = end - i;
  }
}

// Makes the tensor of v, `base` elements into memory from where its root begins.
void Frame::place(int v, const Ptr<Storage>& memory, std::int64_t base) {
  const GraphValue& x = graph_.at(v);
  auto impl = make_ref<TensorImpl>(TensorImpl::Kind::dense);
  impl->dtype = x.dtype;
  impl->device = graph_.device;
  impl->set_sizes(x.sizes);
  impl->strides = x.strides;
  impl->offset = base + x.offset;
  impl->is_view = x.root != v;
  impl->storage = memory;
  values_[static_cast<std::size_t>(v)] = Tensor(impl);
}

// Temporaries share memory where their lives do not overlap; an elementwise result takes the place
// of an operand that is not needed again.
void Frame::place_temporaries(const std::vector<int>& home) {
  const Graph& g = graph_;
  const std::size_t n = g.instrs.size();
  std::vector<std::size_t> last(g.values.size(), 0);  // 1 + the last instruction that uses a root
  const auto use = [&](int v, std::size_t at) {
    if (v >= 0) last[static_cast<std::size_t>(g.root(v))] = at;
  };
  for (std::size_t p = 0; p < n; ++p) {
    const Instr& i = g.instrs[p];
    for (const int v : i.out) use(v, p + 1);
    for (const int v : i.in) use(v, p + 1);
    if (i.map)
      for (const Graph& body : i.map->bodies)
        for (const Source& s : body.sources) use(s.index, p + 1);
  }
  for (const int v : g.outputs) use(v, n + 1);
  for (const Graph::Write& w : g.writes) use(w.value, n + 1);

  struct Hole {
    std::int64_t begin, end;
  };
  std::vector<Hole> free;
  std::int64_t top = 0;
  std::vector<std::int64_t> where(g.values.size(), -1);  // in bytes
  const auto take = [&](std::int64_t bytes) {
    std::size_t best = free.size();
    for (std::size_t k = 0; k < free.size(); ++k)
      if (free[k].end - free[k].begin >= bytes &&
          (best == free.size() || free[k].end - free[k].begin < free[best].end - free[best].begin))
        best = k;
    if (best < free.size()) {
      const std::int64_t at = free[best].begin;
      free[best].begin += bytes;
      if (free[best].begin == free[best].end)
        free.erase(free.begin() + static_cast<std::ptrdiff_t>(best));
      return at;
    }
    if (!free.empty() && free.back().end == top) {  // what is free at the end grows
      const std::int64_t at = free.back().begin;
      free.pop_back();
      top = at + bytes;
      return at;
    }
    top += bytes;
    return top - bytes;
  };
  const auto give = [&](std::int64_t begin, std::int64_t bytes) {
    if (bytes == 0) return;
    auto at = std::lower_bound(free.begin(), free.end(), begin,
                               [](const Hole& h, std::int64_t b) { return h.begin < b; });
    at = free.insert(at, {begin, begin + bytes});
    if (at + 1 != free.end() && at->end == (at + 1)->begin) {
      at->end = (at + 1)->end;
      free.erase(at + 1);
    }
    if (at != free.begin() && (at - 1)->end == at->begin) {
      (at - 1)->end = at->end;
      free.erase(at);
    }
  };
  const auto in_arena = [&](int r) { return home[static_cast<std::size_t>(r)] < 0; };
  for (std::size_t p = 0; p < n; ++p) {
    const Instr& i = g.instrs[p];
    std::vector<int> dying;
    for (const int v : i.in) {
      const int r = g.root(v);
      if (r >= 0 && in_arena(r) && last[static_cast<std::size_t>(r)] == p + 1 &&
          std::find(dying.begin(), dying.end(), r) == dying.end() &&
          where[static_cast<std::size_t>(r)] >= 0)
        dying.push_back(r);
    }
    for (const int out : i.out) {
      const int v = g.root(out);
      if (!in_arena(v) || where[static_cast<std::size_t>(v)] >= 0) continue;
      const GraphValue& y = g.at(v);
      if (!i.map && i.op->elementwise && i.out.size() == 1 && out == v && !i.attrs.closure) {
        const auto same = [&](int r) {
          const GraphValue& x = g.at(r);
          return x.dtype == y.dtype && x.sizes == y.sizes && x.strides == y.strides &&
                 std::all_of(i.in.begin(), i.in.end(),
                             [&](int u) { return u < 0 || g.root(u) != r || u == r; });
        };
        if (auto r = std::find_if(dying.begin(), dying.end(), same); r != dying.end()) {
          where[static_cast<std::size_t>(v)] = where[static_cast<std::size_t>(*r)];
          dying.erase(r);
          continue;
        }
      }
      where[static_cast<std::size_t>(v)] = take(aligned(y.span()));
    }
    const auto end_of = [&](int r) {
      give(where[static_cast<std::size_t>(r)], aligned(g.at(r).span()));
    };
    for (const int r : dying) end_of(r);
    for (const int v : i.out)  // used by nobody
      if (in_arena(v) && last[static_cast<std::size_t>(v)] == p + 1) end_of(v);
  }
  arena_bytes_ = std::max<std::int64_t>(top, 1);
  arena_ = g.device.is_cpu() ? Storage::make(static_cast<std::size_t>(arena_bytes_), g.device)
                             : Storage::wrap(nullptr, 0, g.device, {});
  for (std::size_t v = 0; v < where.size(); ++v) {
    if (where[v] < 0) continue;
    place(static_cast<int>(v), arena_, where[v] / size_of(g.values[v].dtype));
  }
}

void Frame::run(const std::vector<Generator::Draw>& draws, std::int64_t first) {
  if (replay_ && replay_->run(draws)) return;
  take_arena();
  run_steps(0, steps_.size(), draws, first);
}

void Frame::take_arena() {
  if (graph_.device.is_cpu()) return;
  // Work of another stream may still use that of the last run.
  lent_ = Storage::make(static_cast<std::size_t>(arena_bytes_), graph_.device);
  arena_->repoint(lent_->data());
}

void Frame::run_steps(std::size_t begin, std::size_t end, const std::vector<Generator::Draw>& draws,
                      std::int64_t first) {
  for (; begin < end; ++begin) {
    Step& s = steps_[begin];
    if (s.map) {
      s.map->run(draws);
      continue;
    }
    if (s.random) {
      const Generator::Draw& d = draws[static_cast<std::size_t>(s.random->draw)];
      s.own_attrs->scalars = {Scalar(static_cast<std::int64_t>(d.seed)),
                              Scalar(static_cast<std::int64_t>(d.number))};
      if (s.random->per_member) s.own_attrs->dims[1] = first;
    }
    if (s.together > 1 && begin + 1 < end) {
      std::vector<Launch> list;
      const std::size_t n = std::min(s.together, end - begin);
      for (std::size_t k = 0; k < n; ++k) list.push_back(steps_[begin + k].launch());
      s.op->cuda_together(list);
      begin += n - 1;
      continue;
    }
    const Launch l = s.launch();
    run_kernel(*s.op, l.in, l.out, *l.attrs, s.half);
  }
}

// A closure is code of the host: a step of an optimizer, whose constants change.
bool Frame::repeats(std::size_t step) const {
  const Step& s = steps_[step];
  return !s.map && !s.random && !s.attrs->closure;
}

void Frame::done() noexcept {
  if (replay_) replay_->done();
  lent_ = {};
}
void Frame::use_graphs() {
  if constexpr (TUTTI_CUDA)
    if (graph_.device.is_cuda())
      replay_ = std::make_unique<Replay>(*this, kernels::cuda::make_graphs(graph_.device));
}
CudaGraphStats Frame::graphs() const { return replay_ ? replay_->stats() : CudaGraphStats(); }

std::int64_t Frame::arena_bytes() const {
  std::int64_t n = arena_bytes_;
  for (const Step& s : steps_) {
    if (!s.map) continue;
    for (const auto& frames : s.map->frames)
      for (const auto& f : frames) n += f->arena_bytes();
  }
  return n;
}

}  // namespace tutti::detail
