// Execution of decoded kernels: warps in lockstep, one block after the other.
#pragma once
#include <memory>
#include <vector>

#include "memory.h"
#include "ptx_code.h"

namespace cudasim {

class Block;

// Generic addresses of the spaces that are not global memory.
inline constexpr u64 kSharedWindow = u64{1} << 62;
inline constexpr u64 kLocalWindow = u64{1} << 61;
inline constexpr u64 kParamWindow = u64{1} << 60;

struct Dim {
  u32 x = 1, y = 1, z = 1;
  u64 count() const { return u64{x} * y * z; }
};

/// A launch.
struct Launch {
  const Function* kernel = nullptr;
  Dim grid, block;
  u32 dynamic_shared = 0;
  std::vector<u8> parameters;
};

/// Registers and parameters of a function, for the lanes that called it together.
struct Frame {
  const Function* function = nullptr;
  Frame* caller = nullptr;
  u32 return_to = 0;
  u32 depth = 0;
  u32 lanes = 0;  ///< still inside
  u64 local_base = 0;
  u8* bases[2] = {};    ///< registers, constants
  u8* in = nullptr;     ///< parameters and results
  bool filled = false;  ///< special registers that are the same for all blocks have their values
  u32 in_stride = 0;    ///< 0: all lanes share them, as those of a kernel
  std::vector<u8> out;  ///< parameters of calls
  std::vector<u8> storage_in;
  std::unique_ptr<u8[], void (*)(void*)> registers{nullptr, nullptr};
};

/// 32 threads.
class Warp {
 public:
  Warp(Block& block, u32 index, u32 threads);
  void start();

  enum class State { kBarrier, kDone, kStuck };
  /// Runs until nothing more can be done here.
  State run();

  // --- for handlers
  template <class T>
  T* at(Place p) const {
    return reinterpret_cast<T*>(frame_->bases[p >> 31] + (p & ~kConstant));
  }
  u32 predicate(Place p) const { return *at<u32>(p); }

  Block& block() const { return block_; }
  Frame& frame() const { return *frame_; }
  u32 index() const { return index_; }
  u32 exited() const { return ~live_; }
  u32 phase = 0;  ///< __syncwarp()s so far

  /// Bytes of local memory of one lane, grown to hold `end`.
  u8* local(u32 lane, u64 end);

  Flow jump(u32 mask, u32 target, u32 pc_after);
  void set_pc(u32 lane, u32 pc) { pc_[lane] = pc; }
  Flow call(const Instruction& i, u32 mask);
  Flow leave(u32 mask);                         ///< ret
  Flow exit(u32 mask);                          ///< exit
  Flow arrive(const Instruction& i, u32 mask);  ///< at a block barrier
  u32 pc_of(const Instruction& i) const {
    return static_cast<u32>(&i - frame_->function->code.data());
  }

  // --- for the block
  u32 waiting() const { return at_barrier_; }
  u32 live() const { return live_; }
  const Instruction* barrier() const { return barrier_; }
  void release_barrier(u32 all, u32 yes);
  u32 barrier_yes = 0;  ///< lanes whose predicate of bar.red holds
  const Instruction* stuck_at() const;

  /// "block 3 thread 17"
  std::string thread_name(u32 lane) const;
  /// Ends the process with a message about lane and instruction.
  [[noreturn]] void error(const Instruction& i, u32 lane, const std::string& what) const;

 private:
  Frame* new_frame(const Function& f);
  void drop_frame(Frame* f);
  void fill_specials(Frame& f);
  bool choose(u32 blocked);

  Block& block_;
  u32 index_;
  u32 threads_;  // lanes that exist
  u32 live_ = 0, at_barrier_ = 0;
  u32 group_ = 0;    // lanes that run now
  u32 current_ = 0;  // their program counter
  u32 stop_ = ~0u;   // where other lanes wait for them
  Frame* frame_ = nullptr;
  std::array<u32, kLanes> pc_{};
  std::array<Frame*, kLanes> frames_{};
  const Instruction* barrier_ = nullptr;
  std::vector<std::unique_ptr<Frame>> pool_;
  std::vector<Frame*> idle_;
  std::vector<u8> local_;
  u64 local_size_ = 0;  // bytes a lane
};

/// A block of threads, used for all blocks of a launch in turn.
class Block {
 public:
  explicit Block(const Launch& launch);
  void run(u32 x, u32 y, u32 z);

  const Launch& launch;
  Dim index;
  u64 number = 0;
  std::vector<u8> shared;
  ShadowMemory shared_shadow;
  RaceClock clock;

  void race(Warp& warp, const Instruction& i, u32 lane, const char* space, u64 address,
            const ShadowMemory& shadow, bool write);

 private:
  void barrier();
  std::vector<std::unique_ptr<Warp>> warps_;
  std::vector<u32> order_;
  std::vector<u32> first_intervals_;  // of the blocks so far
  Random random_;
};

/// Runs a launch to its end.
void run(const Launch& launch);

/// The readable name of a kernel.
std::string demangled(const std::string& name);

/// Races reported so far.
u64 race_count();
/// Instructions executed so far, counted once per warp.
u64 instruction_count();

}  // namespace cudasim
