#!/bin/sh
# Runs the fast tests: installs what is missing, configures and builds the dev preset, runs ctest.
# Arguments are handed on to ctest, e.g. `sh scripts/test.sh -R vmap`.
set -eu
cd "$(dirname "$0")/.."
CCACHE_DIR=${CCACHE_DIR:-$PWD/build/ccache}
CTEST_PARALLEL_LEVEL=${CTEST_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}
export CCACHE_DIR CTEST_PARALLEL_LEVEL

sh scripts/install_deps.sh --tests
# Warnings stop our own builds, not those of someone with a newer compiler.
cmake --preset dev -DTUTTI_WERROR="${TUTTI_WERROR:-OFF}"
cmake --build --preset dev
exec ctest --preset dev "$@"
