// Frame: a graph made ready to run. Every value is a tensor whose memory is fixed or repointed
// before a run, so a run is a list of kernel calls: no dispatch, no reference counts, no
// allocation. Temporaries share one arena.
#pragma once
#include <memory>
#include <vector>

#include <tutti/func/cuda_graphs.h>
#include <tutti/func/graph.h>

namespace tutti::detail {

class Frame {
 public:
  /// `g` must outlive the frame. `in_place`: pairs (input, value) that share the input's memory;
  /// `outside`: values whose memory is set with point().
  Frame(const Graph& g, const std::vector<Graph::Write>& in_place, const std::vector<int>& outside);
  ~Frame();
  Frame(const Frame&) = delete;

  /// Where an input or an outside value lies for the next run.
  void point(int value, void* data) { memory(value).repoint(data); }
  /// The tensor of a value.
  const Tensor& tensor(int v) const { return values_[static_cast<std::size_t>(v)]; }
  /// Runs all instructions. `draws`: of the whole program; `first`: the block's first member.
  void run(const std::vector<Generator::Draw>& draws, std::int64_t first = 0);
  /// What is to be read of the last run's values has been queued; not needed on the CPU.
  void done() noexcept;

  /// From now on, runs on a GPU are captured into CUDA graphs as far as that can be; see
  /// replay.cpp.
  void use_graphs();
  CudaGraphStats graphs() const;

  /// Bytes of temporaries, those of the bodies of maps for all threads included.
  std::int64_t arena_bytes() const;

 private:
  struct Step;
  struct MapStep;
  class Replay;
  /// Runs steps [begin, end), with temporaries in arena_.
  void run_steps(std::size_t begin, std::size_t end, const std::vector<Generator::Draw>& draws,
                 std::int64_t first = 0);
  /// Whether a step does the same on the same memory in every run.
  bool repeats(std::size_t step) const;
  /// Gets memory for the temporaries until done(), where they are not always at the same place.
  void take_arena();
  Storage& memory(int value) { return *values_[static_cast<std::size_t>(value)].impl()->storage; }
  void place(int v, const Ptr<Storage>& memory, std::int64_t base);
  void place_temporaries(const std::vector<int>& home);
  void find_lists();

  const Graph& graph_;
  const std::vector<Graph::Write> in_place_;
  const std::vector<int> outside_;
  Ptr<Storage> arena_, lent_;
  std::int64_t arena_bytes_ = 0;
  std::vector<Tensor> values_;  // undefined where nothing uses them
  std::vector<Step> steps_;
  std::unique_ptr<Replay> replay_;
};

}  // namespace tutti::detail
