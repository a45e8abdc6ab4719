#!/bin/sh
# Builds and runs the gate programs, one per topic: rows of "name value goal ok|SHORT". Exits with 1 if any row falls short.
# usage: bench/gates.sh [--installed] [PART_OF_A_NAME]
#   --installed   training steps only, in a program of its own that finds tutti where it was installed
set -eu
cd "$(dirname "$0")/.."
cmake --preset release -DTUTTI_BUILD_BENCH=ON >/dev/null
if [ "${1:-}" = --installed ]; then
  shift
  cmake --build --preset release --target tutti_core tutti_autograd tutti_nn tutti_func >/dev/null
  cmake --install build/release --prefix build/installed/prefix >/dev/null
  cmake -S bench/installed -B build/installed/build -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_PREFIX_PATH="$PWD/build/installed/prefix" >/dev/null
  cmake --build build/installed/build >/dev/null
  exec build/installed/build/gates_train_step "$@"
fi
failed=0
for source in bench/gates_*.cpp; do
  gate=$(basename "$source" .cpp)
  cmake --build --preset release --target "$gate" >/dev/null
  echo "# $gate"
  "build/release/bench/$gate" "$@" || failed=1
done
exit $failed
