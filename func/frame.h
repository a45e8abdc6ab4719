// Frame: a graph made ready to run. Every value is a tensor whose memory is fixed or repointed
// before a run, so a run is a list of kernel calls: no dispatch, no reference counts, no
// allocation. Temporaries share one arena.
#pragma once
#include <memory>
#include <vector>

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

  /// Bytes of temporaries, those of the bodies of maps for all threads included.
  std::int64_t arena_bytes() const;

 private:
  struct Step;
  struct MapStep;
  Storage& memory(int value) { return *values_[static_cast<std::size_t>(value)].impl()->storage; }
  void place(int v, const Ptr<Storage>& memory, std::int64_t base);
  void place_temporaries(const std::vector<int>& home);

  const Graph& graph_;
  Ptr<Storage> arena_;
  std::int64_t arena_bytes_ = 0;
  std::vector<Tensor> values_;  // undefined where nothing uses them
  std::vector<Step> steps_;
};

}  // namespace tutti::detail
