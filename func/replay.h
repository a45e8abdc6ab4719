// Replay: a frame's runs on a GPU as CUDA graphs.
#pragma once
#include <memory>
#include <vector>

#include <tutti/func/frame.h>

namespace tutti::kernels::cuda {
class Graphs;
}

namespace tutti::detail {

/// Replaces the launches of steps that are the same in every run by graphs of them.
///
/// The first run goes as ever and shows which steps can be captured. A list of at least two such
/// steps in a row becomes a graph before the next run; the others (draws, steps of optimizers, what
/// takes values from the CPU) run between the graphs.
///
/// Graphs have addresses in them. Temporaries get memory of their own that stays. So do results,
/// which are copied to where the caller wants them. Inputs stay where they are, and one that is
/// found elsewhere than in the run before is copied into memory of its own from then on. What is
/// captured is captured anew when an input has moved.
///
/// Runs go as ever for good, and memory is given back, when there would be as many copies as
/// instructions in graphs, when copies grow large, when an input that cannot be copied keeps
/// moving, and when CUDA keeps refusing. What is refused once is done as ever in that run.
class Frame::Replay {
 public:
  Replay(Frame& frame, std::unique_ptr<kernels::cuda::Graphs> graphs);
  ~Replay();

  /// Runs the frame; false: not at all.
  bool run(const std::vector<Generator::Draw>& draws);
  /// Nothing more is read of the run's values.
  void done() noexcept;
  CudaGraphStats stats() const;

 private:
  /// An input or a result.
  struct Place {
    int value;
    bool fixed;             // an input that is written, or has gaps: it cannot be copied
    std::int64_t bytes;     // from its first to its last element
    void* given = nullptr;  // where the caller has it
    bool copied = false;    // to or from `copy`
    Ptr<Storage> copy{};
  };
  struct Part {
    std::size_t begin, end;
    bool captured;
  };
  enum class Stage { first, on, off };
  using Draws = std::vector<Generator::Draw>;

  Place place(int value, bool is_input) const;
  void observe(const Draws& draws);
  void take_addresses();
  bool worth_it() const;
  bool capture(const Draws& draws);
  void point(bool at_copies);
  void replay(const Draws& draws);
  void forget() noexcept;
  void turn_off() noexcept;

  Frame& frame_;
  std::unique_ptr<kernels::cuda::Graphs> graphs_;
  Stage stage_ = Stage::first;
  std::vector<Part> parts_;
  std::vector<Place> inputs_, results_;
  Ptr<Storage> arena_;
  bool captured_ = false;  // parts_ are
  bool running_ = false;   // until done()
  bool refused_ = false;   // a launch, in this run
  int failures_ = 0;       // in a row
  int moves_ = 0;          // of inputs that cannot be copied
  std::int64_t captures_ = 0, launches_ = 0;
};

}  // namespace tutti::detail
