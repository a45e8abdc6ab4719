#!/bin/sh
# Instructions one add of one-element tensors takes, kernel included (and alone), under chains of transforms: the difference
# between 2000 and 1000 adds, by 1000. Needs valgrind.
set -eu
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "dispatch_cost.sh needs valgrind" >&2; exit 1; }
cmake --preset release -DTUTTI_BUILD_BENCH=ON >/dev/null
cmake --build --preset release --target dispatch_cost >/dev/null

count() {  # count CHAIN ADDS
  valgrind --tool=callgrind --callgrind-out-file=/dev/null build/release/bench/dispatch_cost "$1" "$2" 2>&1 |
    sed -n 's/.*Collected : //p'
}
for chain in ${*:-kernel eager grad vmap jvp grad,grad vmap,vmap vmap,grad grad,vmap jvp,vmap vmap,vmap,grad}; do
  echo "$chain $(( ($(count "$chain" 2000) - $(count "$chain" 1000)) / 1000 ))"
done
