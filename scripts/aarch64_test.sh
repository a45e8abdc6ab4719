#!/bin/sh
# Builds for 64-bit ARM with a cross compiler and runs the tests in qemu's user mode: with NEON, then those of the kernels
# with portable code, then the functions on one float in 1021. Installs what that needs (Debian, Ubuntu). Not for ARM
# machines, where scripts/test.sh does. usage: scripts/aarch64_test.sh [ctest argument...]   e.g. -R test_gemm
set -eu
cd "$(dirname "$0")/.."

needed() {  # what is missing
  command -v aarch64-linux-gnu-g++ >/dev/null || echo g++-aarch64-linux-gnu
  command -v qemu-aarch64 >/dev/null || echo qemu-user
  [ -e /usr/lib/aarch64-linux-gnu/librapidcheck.a ] || echo librapidcheck-dev:arm64
}

sh scripts/install_deps.sh --tests
packages=$(needed | tr '\n' ' ')
if [ -n "$packages" ]; then
  as_root=
  if [ "$(id -u)" != 0 ]; then as_root=sudo; fi
  $as_root dpkg --add-architecture arm64
  $as_root apt-get update -q
  # shellcheck disable=SC2086  # a list of words
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
fi

cmake --preset aarch64
cmake --build --preset aarch64
ctest --preset aarch64 "$@"
if [ $# -gt 0 ]; then exit; fi
TUTTI_ISA=scalar ctest --preset aarch64 -R '^test_(gemm|vector_math|lanes|norm|optim|compile|every_op)$'
TUTTI_FLOATS=1021 qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/tests/test_vector_math \
  --test-case='all floats: *' --no-skip
