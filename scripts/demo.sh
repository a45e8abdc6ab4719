#!/bin/sh
# Trains the ensemble of the digits example: installs what is missing, builds, runs. Results go to out/.
# Arguments are handed on, e.g. `sh scripts/demo.sh --members 100 --epochs 20`; --help lists them.
set -eu
cd "$(dirname "$0")/.."
CCACHE_DIR=${CCACHE_DIR:-$PWD/build/ccache}
export CCACHE_DIR

sh scripts/install_deps.sh
cmake --preset release -DTUTTI_BUILD_TESTS=OFF -DTUTTI_BUILD_BENCH=OFF
cmake --build --preset release --target ensemble_digits
mkdir -p out
exec build/release/examples/ensemble_digits --data examples/data/digits.csv --out out "$@"
