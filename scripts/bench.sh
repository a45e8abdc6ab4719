#!/bin/sh
# Builds and runs every benchmark program; arguments are handed on, e.g. --benchmark_filter=bmm.
set -eu
cd "$(dirname "$0")/.."

sh scripts/install_deps.sh --bench
cmake --preset release -DTUTTI_BUILD_BENCH=ON
cmake --build --preset release
for program in build/release/bench/*_bench; do
  [ -x "$program" ] || continue
  echo "== $program"
  "$program" "$@"
done
