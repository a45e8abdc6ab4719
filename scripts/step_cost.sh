#!/bin/sh
# Thousands of instructions a training step takes on one thread, for every case of bench/train_step.cpp, eager and compiled:
# a tenth of the difference between 20 and 10 steps. Needs valgrind, which knows AVX2 and no AVX-512.
set -eu
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "step_cost.sh needs valgrind" >&2; exit 1; }
cmake --preset release -DTUTTI_BUILD_BENCH=ON >/dev/null
cmake --build --preset release --target gates_train_step >/dev/null

count() {  # count WAY CASE STEPS
  valgrind --tool=callgrind --callgrind-out-file=/dev/null \
    build/release/bench/gates_train_step --steps "$1" "$2" "$3" 2>&1 | sed -n 's/.*Collected : //p'
}
for case in 0 1 2 3 4; do
  for way in eager compiled; do
    echo "case $case $way $(( ($(count "$way" "$case" 20) - $(count "$way" "$case" 10)) / 10000 ))"
  done
done
