// Execution of decoded kernels: which lanes run when, calls, barriers.
#include "ptx_exec.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <cxxabi.h>

#include "ptx_calls.h"

namespace cudasim {
namespace {

constexpr u64 kLocalLimit = 256 * 1024;  // bytes of local memory a thread may use
u64 races = 0;
u64 instructions = 0;
u32 next_interval = 1;  // barrier intervals of the whole process

u8* aligned_bytes(std::size_t n) {
  void* p = std::aligned_alloc(64, (n + 63) / 64 * 64);
  if (!p) fail("out of memory");
  return static_cast<u8*>(p);
}

template <class F>
void for_lanes(u32 mask, F f) {
  for (; mask; mask &= mask - 1) f(static_cast<u32>(std::countr_zero(mask)));
}

}  // namespace

std::string demangled(const std::string& name) {
  int status = 0;
  char* readable = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string result = status == 0 ? readable : name;
  std::free(readable);
  return result;
}

u64 race_count() { return races; }
u64 instruction_count() { return instructions; }

std::string Function::where(const Instruction& i) const {
  const InstructionText& t = texts[static_cast<std::size_t>(&i - code.data())];
  std::string source;
  if (t.location.line > 0) {
    const auto it = files->find(t.location.file);
    source =
        text("%s:%d, ", it == files->end() ? "source line" : it->second.c_str(), t.location.line);
  }
  return text("%s %s, %sPTX line %d: %s", entry ? "kernel" : "function", demangled(name).c_str(),
              source.c_str(), t.location.ptx_line, t.text.c_str());
}

// ---------------------------------------------------------------- warps

Warp::Warp(Block& block, u32 index, u32 threads)
    : block_(block), index_(index), threads_(threads) {}

void Warp::start() {
  phase = 0;
  live_ = threads_ == kLanes ? kAllLanes : (1u << threads_) - 1;
  at_barrier_ = 0;
  barrier_ = nullptr;
  for (const auto& f : pool_)
    if (f.get() != pool_.front().get() &&
        std::find(idle_.begin(), idle_.end(), f.get()) == idle_.end())
      idle_.push_back(f.get());
  const Function& kernel = *block_.launch.kernel;
  Frame* f = pool_.empty() ? new_frame(kernel) : pool_.front().get();
  f->lanes = live_;
  f->local_base = 0;
  f->in = const_cast<u8*>(block_.launch.parameters.data());
  f->in_stride = 0;
  fill_specials(*f);
  pc_.fill(0);
  frames_.fill(f);
  std::fill(local_.begin(), local_.end(), u8{0xff});
}

Frame* Warp::new_frame(const Function& function) {
  for (std::size_t k = 0; k < idle_.size(); ++k) {
    if (idle_[k]->function != &function) continue;
    Frame* f = idle_[k];
    idle_[k] = idle_.back();
    idle_.pop_back();
    return f;
  }
  auto made = std::make_unique<Frame>();
  Frame* f = made.get();
  f->function = &function;
  f->registers = {aligned_bytes(function.register_bytes), [](void* p) { std::free(p); }};
  // Values nobody wrote: NaN as float, double, half and bfloat16.
  std::memset(f->registers.get(), 0xff, function.register_bytes);
  f->bases[0] = f->registers.get();
  f->bases[1] = const_cast<u8*>(function.constants.data());
  f->out.assign(std::size_t{function.out_bytes} * kLanes, 0xff);
  if (!function.entry) {
    f->storage_in.assign(std::size_t{function.in_bytes} * kLanes, 0xff);
    f->in = f->storage_in.data();
    f->in_stride = function.in_bytes;
  }
  pool_.push_back(std::move(made));
  return f;
}

void Warp::drop_frame(Frame* f) {
  if (f->caller) idle_.push_back(f);
}

void Warp::fill_specials(Frame& f) {
  const Launch& launch = block_.launch;
  u64* base = reinterpret_cast<u64*>(f.bases[0] + f.function->frame_base);
  std::fill_n(base, kLanes, f.local_base);
  for (const Function::SpecialRegister& s : f.function->specials) {
    if (f.filled && s.which != Special::kCtaid) continue;
    u32* v = reinterpret_cast<u32*>(f.bases[0] + s.place);
    const auto pick = [&](const Dim& d) { return s.axis == 0 ? d.x : s.axis == 1 ? d.y : d.z; };
    for (u32 l = 0; l < kLanes; ++l) {
      const u32 t = index_ * kLanes + l;
      const Dim& b = launch.block;
      switch (s.which) {
        case Special::kTid:
          v[l] = pick({t % b.x, t / b.x % b.y, t / (b.x * b.y)});
          break;
        case Special::kNtid:
          v[l] = pick(b);
          break;
        case Special::kCtaid:
          v[l] = pick(block_.index);
          break;
        case Special::kNctaid:
          v[l] = pick(launch.grid);
          break;
        case Special::kLaneId:
          v[l] = l;
          break;
        case Special::kWarpId:
          v[l] = index_;
          break;
        case Special::kMaskEq:
          v[l] = 1u << l;
          break;
        case Special::kMaskLt:
          v[l] = (1u << l) - 1;
          break;
        case Special::kMaskLe:
          v[l] = (2u << l) - 1;
          break;
        case Special::kMaskGt:
          v[l] = ~((2u << l) - 1);
          break;
        case Special::kMaskGe:
          v[l] = ~((1u << l) - 1);
          break;
      }
    }
  }
  f.filled = true;
}

// Picks the lanes that run next: of the innermost calls those with the lowest program counter, so
// that lanes which took different ways meet again.
bool Warp::choose(u32 blocked) {
  const u32 runnable = live_ & ~at_barrier_;
  const u32 candidates = runnable & ~blocked;
  if (!candidates) return false;
  u32 best = static_cast<u32>(std::countr_zero(candidates));
  for_lanes(candidates, [&](u32 l) {
    const bool deeper = frames_[l]->depth > frames_[best]->depth;
    const bool same = frames_[l] == frames_[best];
    if (deeper || (same && pc_[l] < pc_[best])) best = l;
  });
  frame_ = frames_[best];
  current_ = pc_[best];
  group_ = 0;
  stop_ = ~0u;
  for_lanes(runnable, [&](u32 l) {
    if (frames_[l] != frame_) return;
    if (pc_[l] == current_) {
      group_ |= 1u << l;
    } else if (pc_[l] > current_) {
      stop_ = std::min(stop_, pc_[l]);
    }
  });
  return true;
}

Warp::State Warp::run() {
  u32 blocked = 0;
  while (choose(blocked)) {
    const Instruction* code = frame_->function->code.data();
    bool moved = false;
    for (;;) {
      const Instruction& i = code[current_];
      u32 mask = group_;
      if (i.guard != kNowhere) mask &= i.guard_negated ? ~predicate(i.guard) : predicate(i.guard);
      const u32 here = current_++;
      if (mask) {
        const Flow flow = i.run(*this, i, mask);
        if (flow == Flow::kWait) {
          for_lanes(group_, [&](u32 l) { pc_[l] = here; });
          break;
        }
        ++i.executions;
        ++instructions;
        moved = true;
        if (flow == Flow::kJump) break;
      } else {
        moved = true;
      }
      if (current_ >= stop_) {
        for_lanes(group_, [&](u32 l) { pc_[l] = current_; });
        break;
      }
    }
    blocked = moved ? 0 : blocked | group_;
  }
  if (!live_) return State::kDone;
  return live_ == at_barrier_ ? State::kBarrier : State::kStuck;
}

Flow Warp::jump(u32 mask, u32 target, u32 pc_after) {
  if (mask == group_ && mask == (live_ & ~at_barrier_)) {
    current_ = target;
    return Flow::kNext;
  }
  for_lanes(group_, [&](u32 l) { pc_[l] = mask >> l & 1 ? target : pc_after; });
  return Flow::kJump;
}

Flow Warp::call(const Instruction& i, u32 mask) {
  const Call& c = *static_cast<const Call*>(i.data);
  if (!c.callee) {
    call_builtin(*this, i, c, mask);
    return Flow::kNext;
  }
  Frame* caller = frame_;
  Frame* f = new_frame(*c.callee);
  f->caller = caller;
  f->depth = caller->depth + 1;
  f->lanes = mask;
  f->return_to = current_;
  f->local_base = (caller->local_base + caller->function->local_bytes + 15) / 16 * 16;
  if (f->local_base > kLocalLimit)
    error(i, static_cast<u32>(std::countr_zero(mask)), "stack overflow (local memory)");
  fill_specials(*f);
  for_lanes(mask, [&](u32 l) {
    for (const ParameterCopy& p : c.arguments)
      std::memcpy(f->in + l * f->in_stride + p.to,
                  caller->out.data() + l * caller->function->out_bytes + p.from, p.size);
  });
  for_lanes(group_, [&](u32 l) {
    pc_[l] = mask >> l & 1 ? 0 : current_;
    if (mask >> l & 1) frames_[l] = f;
  });
  return Flow::kJump;
}

Flow Warp::leave(u32 mask) {
  Frame* f = frame_;
  if (!f->caller) return exit(mask);
  Frame* caller = f->caller;
  const Call& c = *static_cast<const Call*>(caller->function->code[f->return_to - 1].data);
  for_lanes(mask, [&](u32 l) {
    for (const ParameterCopy& p : c.results)
      std::memcpy(caller->out.data() + l * caller->function->out_bytes + p.to,
                  f->in + l * f->in_stride + p.from, p.size);
  });
  for_lanes(group_, [&](u32 l) {
    pc_[l] = mask >> l & 1 ? f->return_to : current_;
    if (mask >> l & 1) frames_[l] = caller;
  });
  f->lanes &= ~mask;
  if (!f->lanes) drop_frame(f);
  return Flow::kJump;
}

Flow Warp::exit(u32 mask) {
  for_lanes(group_, [&](u32 l) { pc_[l] = current_; });
  for (Frame* f = frame_; f;) {
    Frame* caller = f->caller;
    f->lanes &= ~mask;
    if (!f->lanes) drop_frame(f);
    f = caller;
  }
  live_ &= ~mask;
  return Flow::kJump;
}

Flow Warp::arrive(const Instruction& i, u32 mask) {
  if (at_barrier_ && barrier_ != &i) {
    error(i, static_cast<u32>(std::countr_zero(mask)),
          "divergent barrier: other threads of the warp wait at " +
              frame_->function->where(*barrier_));
  }
  for_lanes(group_, [&](u32 l) { pc_[l] = current_; });
  at_barrier_ |= mask;
  barrier_ = &i;
  return Flow::kJump;
}

void Warp::release_barrier(u32 all, u32 yes) {
  const Instruction& i = *barrier_;
  if (i.d != kNowhere) {
    // All lanes of a warp at a barrier are in one frame: they wait at one instruction of one call
    // depth.
    frame_ = frames_[std::countr_zero(at_barrier_)];
    if (i.mode == 'p') {
      for (u32 l = 0; l < kLanes; ++l) at<u32>(i.d)[l] = yes;
    } else {
      const bool result = i.mode == 'o' ? yes != 0 : yes == all;
      *at<u32>(i.d) = result ? kAllLanes : 0;
    }
  }
  barrier_yes = 0;
  at_barrier_ = 0;
  barrier_ = nullptr;
}

u8* Warp::local(u32 lane, u64 end) {
  if (end > local_size_) {
    const u64 size = std::max<u64>(end, local_size_ * 2);
    std::vector<u8> more(size * kLanes, 0xff);
    for (u32 l = 0; l < kLanes && local_size_; ++l)
      std::memcpy(&more[l * size], &local_[l * local_size_], local_size_);
    local_ = std::move(more);
    local_size_ = size;
  }
  return local_.data() + lane * local_size_;
}

const Instruction* Warp::stuck_at() const {
  const u32 runnable = live_ & ~at_barrier_;
  const u32 l = static_cast<u32>(std::countr_zero(runnable));
  return &frames_[l]->function->code[pc_[l]];
}

std::string Warp::thread_name(u32 lane) const {
  const Dim& b = block_.index;
  return text("block (%u,%u,%u) thread %u", b.x, b.y, b.z, index_ * kLanes + lane);
}

void Warp::error(const Instruction& i, u32 lane, const std::string& what) const {
  fail("%s\n  by %s of %s", what.c_str(), thread_name(lane).c_str(),
       frame_->function->where(i).c_str());
}

// ---------------------------------------------------------------- blocks

Block::Block(const Launch& l) : launch(l), random_(settings().seed) {
  const u32 threads = static_cast<u32>(l.block.count());
  for (u32 first = 0; first < threads; first += kLanes) {
    warps_.push_back(
        std::make_unique<Warp>(*this, first / kLanes, std::min(kLanes, threads - first)));
    order_.push_back(first / kLanes);
  }
  if (settings().warps == WarpOrder::kReverse) std::reverse(order_.begin(), order_.end());
  shared.resize(l.kernel->shared_end + l.dynamic_shared);
  if (settings().races) shared_shadow.reserve(shared.size());
  clock.launch_first = next_interval;
}

void Block::run(u32 x, u32 y, u32 z) {
  index = {x, y, z};
  clock.block_first = clock.interval = next_interval++;
  first_intervals_.push_back(clock.block_first);
  std::fill(shared.begin(), shared.end(), u8{0xff});
  for (auto& w : warps_) w->start();
  for (;;) {
    if (settings().warps == WarpOrder::kRandom) {
      for (std::size_t k = order_.size(); k > 1; --k)
        std::swap(order_[k - 1], order_[random_.next() % k]);
    }
    bool done = true;
    for (u32 k : order_) {
      Warp& w = *warps_[k];
      if (!w.live()) continue;
      const Warp::State state = w.run();
      if (state == Warp::State::kStuck) {
        const Instruction* i = w.stuck_at();
        fail(
            "deadlock: lanes of warp %u of block (%u,%u,%u) wait for others that do not come, in "
            "%s",
            k, x, y, z, launch.kernel->where(*i).c_str());
      }
      done = done && state == Warp::State::kDone;
    }
    if (done) break;
    barrier();
  }
  ++number;
}

// All live threads wait at a barrier: check that they may, and let them go.
void Block::barrier() {
  const Instruction* where = nullptr;
  const Warp* first = nullptr;
  u32 waiting = 0, yes = 0;
  for (const auto& w : warps_) {
    waiting += static_cast<u32>(std::popcount(w->waiting()));
    yes += static_cast<u32>(std::popcount(w->barrier_yes));
    if (!w->waiting()) continue;
    if (!where) {
      where = w->barrier();
      first = w.get();
    } else if (where != w->barrier()) {
      fail(
          "divergent barrier: warps of one block wait at different barriers\n  warp %u at %s\n  "
          "warp %u at %s",
          first->index(), launch.kernel->where(*where).c_str(), w->index(),
          launch.kernel->where(*w->barrier()).c_str());
    }
  }
  const u32 threads = static_cast<u32>(launch.block.count());
  if (waiting != threads) {
    fail(
        "divergent barrier: %u of %u threads of block (%u,%u,%u) wait, the others have exited\n  "
        "in %s",
        waiting, threads, index.x, index.y, index.z, launch.kernel->where(*where).c_str());
  }
  for (auto& w : warps_) w->release_barrier(threads, yes);
  clock.interval = next_interval++;
}

void Block::race(Warp& warp, const Instruction& i, u32 lane, const char* space, u64 address,
                 const ShadowMemory& shadow, bool write) {
  if (++races > 5) return;
  const ShadowMemory::Other& o = shadow.other();
  const auto it = std::upper_bound(first_intervals_.begin(), first_intervals_.end(), o.interval);
  const long block = it - first_intervals_.begin() - 1;
  std::fprintf(
      stderr,
      "cudasim: race: %s memory at %#llx %s by %s, and %s by block %ld thread %u\n  in %s\n", space,
      (unsigned long long)address, write ? "written" : "read", warp.thread_name(lane).c_str(),
      o.write ? "written" : "read", block, o.thread, warp.frame().function->where(i).c_str());
}

void run(const Launch& launch) {
  Block block(launch);
  for (u32 z = 0; z < launch.grid.z; ++z)
    for (u32 y = 0; y < launch.grid.y; ++y)
      for (u32 x = 0; x < launch.grid.x; ++x) block.run(x, y, z);
}

}  // namespace cudasim
