// The prototype's step: its program is taken in as it is, under other names.
#include "prototype_step.h"

#include <memory>

#include "mlp/bench_mlp.cc"

std::function<void()> prototype_step(int members, int batch, const std::vector<int>& widths,
                                     bool lanes) {
  struct State {
    Net net;
    std::vector<Ws> workspaces{2};
    std::unique_ptr<LaneNet> lanes;
  };
  const auto s = std::make_shared<State>(State{Net(members, batch, widths)});
  if (lanes) {
    s->lanes = std::make_unique<LaneNet>(s->net);
    return [s] { s->lanes->Step(nullptr); };
  }
  // The block that fills half of a 1 MB level 2 cache, as the prototype's report advises.
  std::size_t sum = 0;
  for (int w : widths) sum += static_cast<std::size_t>(w);
  const int widest = *std::max_element(widths.begin() + 1, widths.end());
  const double bytes =
      16 * s->net.Params() / members + 4.0 * batch * (static_cast<double>(sum) + 2 * widest);
  const int block = std::clamp(static_cast<int>(640 * 1024 / bytes), 1, members);
  return [s, block] { Step(s->net, block, true, nullptr, s->workspaces); };
}
