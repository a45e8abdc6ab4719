// Capturing a frame's steps, and running what is captured.
#include <algorithm>
#include <utility>

#include <tutti/core/interpreter.h>
#include <tutti/core/kernels/cuda_graphs.h>
#include <tutti/func/replay.h>

namespace tutti::detail {

namespace {

constexpr std::int64_t kMostCopied = std::int64_t{64} << 20;  // bytes with each run
constexpr int kMostFailures = 3, kMostMoves = 3;

struct Extent {
  std::int64_t elements = 1;  // from the first to the last
  bool dense = true;          // no gaps between them
};
Extent extent_of(const GraphValue& v) {
  Extent e;
  std::int64_t distinct = 1;
  for (std::size_t d = 0; d < v.sizes.size(); ++d) {
    if (v.sizes[d] == 0) return {0, true};
    e.elements += (v.sizes[d] - 1) * v.strides[d];
    if (v.strides[d] != 0) distinct *= v.sizes[d];
  }
  e.dense = e.elements == distinct;
  return e;
}

}  // namespace

Frame::Replay::Replay(Frame& frame, std::unique_ptr<kernels::cuda::Graphs> graphs)
    : frame_(frame), graphs_(std::move(graphs)) {
  for (const int v : frame.graph_.inputs) inputs_.push_back(place(v, true));
  for (const int v : frame.outside_) {
    results_.push_back(place(v, false));
    results_.back().copied = true;
  }
}

Frame::Replay::~Replay() { forget(); }

Frame::Replay::Place Frame::Replay::place(int value, bool is_input) const {
  const GraphValue& v = frame_.graph_.at(value);
  const Extent e = extent_of(v);
  const auto& written = frame_.in_place_;
  const bool stays =
      is_input &&
      (!e.dense || std::any_of(written.begin(), written.end(),
                               [value](const Graph::Write& w) { return w.input == value; }));
  return {value, stays, e.elements * size_of(v.dtype)};
}

CudaGraphStats Frame::Replay::stats() const {
  CudaGraphStats s;
  s.captures = captures_;
  s.launches = launches_;
  if (!captured_) return s;
  s.bytes = frame_.arena_bytes_ + graphs_->bytes();
  for (const Part& p : parts_) {
    if (!p.captured) continue;
    ++s.graphs;
    s.instructions += static_cast<std::int64_t>(p.end - p.begin);
  }
  for (const auto* places : {&inputs_, &results_})
    for (const Place& p : *places) {
      if (!p.copied || p.bytes == 0) continue;
      ++s.copies;
      s.bytes += p.bytes;
    }
  return s;
}

bool Frame::Replay::run(const Draws& draws) {
  if (stage_ == Stage::off) return false;
  if (stage_ == Stage::first) {
    take_addresses();
    observe(draws);
    return true;
  }
  take_addresses();
  if (captured_ && !graphs_->valid()) forget();
  if (stage_ == Stage::off || (!captured_ && !capture(draws))) return false;
  replay(draws);
  return true;
}

// Runs as ever, and divides the steps into parts.
void Frame::Replay::observe(const Draws& draws) {
  const std::size_t n = frame_.graph_.instrs.size();
  frame_.take_arena();
  std::vector<bool> can(n, false);
  for (std::size_t i = 0; i < n; ++i) {
    const auto step = [&] { frame_.run_steps(i, i + 1, draws); };
    if (frame_.repeats(i))
      can[i] = graphs_->observe(step);
    else
      step();
  }
  parts_.clear();
  for (std::size_t i = 0; i < n;) {
    std::size_t end = i;
    while (end < n && can[end] == can[i]) ++end;
    parts_.push_back({i, end, can[i] && end - i > 1});
    i = end;
  }
  stage_ = Stage::on;
  if (!worth_it()) turn_off();
}

// Where inputs and results are in this run, and which inputs have moved since the one before.
void Frame::Replay::take_addresses() {
  bool moved = false, stuck = false;
  for (Place& p : inputs_) {
    void* const now = frame_.memory(p.value).data();
    const bool same = std::exchange(p.given, now) == now;
    if (same || p.copied || p.bytes == 0 || stage_ == Stage::first) continue;
    moved = true;
    stuck |= p.fixed;
    p.copied = !p.fixed;
  }
  for (Place& p : results_) p.given = frame_.memory(p.value).data();
  if (!moved) return;
  forget();
  if ((stuck && ++moves_ > kMostMoves) || !worth_it()) turn_off();
}

bool Frame::Replay::worth_it() const {
  std::size_t captured = 0, copies = 0;
  std::int64_t bytes = 0;
  for (const Part& p : parts_)
    if (p.captured) captured += p.end - p.begin;
  for (const auto* places : {&inputs_, &results_})
    for (const Place& p : *places) {
      if (!p.copied || p.bytes == 0) continue;
      ++copies;
      bytes += p.bytes;
    }
  return captured > copies && bytes <= kMostCopied;
}

bool Frame::Replay::capture(const Draws& draws) {
  const Device device = frame_.graph_.device;
  bool ok = true;
  try {
    for (auto* places : {&inputs_, &results_})
      for (Place& p : *places)
        if (p.copied)
          p.copy =
              Storage::make(static_cast<std::size_t>(std::max<std::int64_t>(p.bytes, 1)), device);
    arena_ = Storage::make(static_cast<std::size_t>(frame_.arena_bytes_), device);
  } catch (const Error&) {  // no memory: without graphs there may be enough
    ok = false;
  }
  if (ok) point(true);
  std::int64_t made = 0;
  for (const Part& p : parts_) {
    if (!ok || !p.captured) continue;
    ok = graphs_->capture([&] { frame_.run_steps(p.begin, p.end, draws); });
    made += ok;
  }
  if (ok) {
    captured_ = true;
    captures_ += made;
    return true;
  }
  point(false);
  forget();
  if (++failures_ >= kMostFailures) turn_off();
  return false;
}

// Where the steps find inputs, results and temporaries.
void Frame::Replay::point(bool at_copies) {
  for (auto* places : {&inputs_, &results_})
    for (const Place& p : *places)
      if (p.copied) frame_.point(p.value, at_copies ? p.copy->data() : p.given);
  if (at_copies) frame_.arena_->repoint(arena_->data());
}

void Frame::Replay::replay(const Draws& draws) {
  graphs_->begin();
  running_ = true;
  point(true);
  for (const Place& p : inputs_)
    if (p.copied && p.bytes > 0) graphs_->copy(p.copy->data(), p.given, p.bytes);
  std::size_t graph = 0;
  for (const Part& p : parts_) {
    if (p.captured && graphs_->launch(graph++)) {
      ++launches_;
      continue;
    }
    refused_ |= p.captured;
    frame_.run_steps(p.begin, p.end, draws);
  }
  for (const Place& p : results_)
    if (p.bytes > 0) graphs_->copy(p.given, p.copy->data(), p.bytes);
}

void Frame::Replay::done() noexcept {
  if (!std::exchange(running_, false)) return;
  graphs_->end();
  if (!std::exchange(refused_, false)) {
    failures_ = 0;
    return;
  }
  forget();
  if (++failures_ >= kMostFailures) turn_off();
}

void Frame::Replay::forget() noexcept {
  if (graphs_) graphs_->clear();
  for (auto* places : {&inputs_, &results_})
    for (Place& p : *places) p.copy = {};
  arena_ = {};
  captured_ = false;
}

void Frame::Replay::turn_off() noexcept {
  forget();
  graphs_.reset();
  stage_ = Stage::off;
}

}  // namespace tutti::detail
