// The step as the prototype of tutti's kernels runs it; built only if TUTTI_BENCH_PROTOTYPE names
// the prototype's folder.
#pragma once
#include <functional>
#include <vector>

/// One training step on one core: member by member in blocks, or 16 members side by side in lanes.
std::function<void()> prototype_step(int members, int batch, const std::vector<int>& widths,
                                     bool lanes);
