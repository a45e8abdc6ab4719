#!/bin/sh
# Compiles every kernel for the toolkit's architectures, warnings as errors, and fails on a spilled
# register or on a kernel whose registers do not fit a block of its largest size (256 threads).
# usage: scripts/cuda_archs.sh [architecture...]
set -eu
cd "$(dirname "$0")/.."
nvcc=${CUDACXX:-nvcc}
command -v "$nvcc" >/dev/null || nvcc=/usr/local/cuda/bin/nvcc
if [ ! -x "$(command -v "$nvcc")" ]; then
  echo "cuda-archs: nvcc was not found; nothing was compiled"
  exit 0
fi
[ $# -gt 0 ] || set -- 75 80 86 89 90 100 103 110 120 121
out=build/cuda-archs
mkdir -p "$out/include"
cmake -S . -B "$out/tree" -DTUTTI_CUDA=ON -DTUTTI_BUILD_TESTS=OFF -DTUTTI_BUILD_EXAMPLES=OFF \
  -DCMAKE_CUDA_COMPILER="$nvcc" >"$out/configure.log"
for arch in "$@"; do
  for source in cuda/*.cu; do
    log="$out/$(basename "$source" .cu).sm_$arch.log"
    "$nvcc" -std=c++20 -O2 -c "$source" -o "$out/object.o" -I "$out/tree/include" \
      --expt-relaxed-constexpr -diag-suppress=186 -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Werror \
      -gencode "arch=compute_$arch,code=sm_$arch" -Xptxas -v >"$log" 2>&1 || { cat "$log"; exit 1; }
    awk -v where="$source, sm_$arch" '
      /spill stores/ { for (i = 1; i <= NF; ++i) if ($i == "spill") spilled += $(i - 2) }
      /Used [0-9]+ registers/ {
        ++kernels
        for (i = 1; i <= NF; ++i) if ($i == "registers," || $i == "registers") if ($(i - 1) > most) most = $(i - 1)
      }
      END {
        printf "%s: %d kernels, at most %d registers, %d bytes spilled\n", where, kernels, most, spilled
        exit spilled > 0 || most * 256 > 65536
      }' "$log"
  done
done
