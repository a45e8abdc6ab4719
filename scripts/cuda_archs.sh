#!/bin/sh
# Compiles every kernel for real architectures, warnings as errors, and fails on a spilled register or on a kernel that needs so
# many registers that an SM cannot hold two blocks of the largest size. Prints, per file, the most registers and the bytes of stack.
# usage: scripts/cuda_archs.sh [--major | architecture...]
#   without arguments all architectures of the toolkit from 75 on, each from the source; --major those that end in 0, and the
#   first, from the PTX for compute_75 and compute_90 that a build has if nobody says otherwise, as a driver does
# Files that did not change since they passed are not compiled again. CMAKE_BUILD_PARALLEL_LEVEL: how many at once (all cores).
set -eu
cd "$(dirname "$0")/.."
nvcc=${CUDACXX:-nvcc}
command -v "$nvcc" >/dev/null || nvcc=/usr/local/cuda/bin/nvcc
if [ ! -x "$(command -v "$nvcc")" ]; then
  echo "cuda-archs: nvcc was not found; nothing was compiled"
  exit 0
fi
known=$("$nvcc" --list-gpu-code | sed -n 's/^sm_//p' | sort -n | awk '$1 >= 75')
out=build/cuda-archs
shipped=
case ${1:-} in
  "") archs=$known logs=$out/all ;;
  --major) archs=$(echo "$known" | awk 'NR == 1 || $1 % 10 == 0') logs=$out/major shipped="75 90" ;;  # as in CMakeLists.txt
  *) archs=$* logs=$out/$(echo "$@" | tr ' ' _) ;;
esac
archs=$(echo $archs)  # on one line
mkdir -p "$logs"
cmake -S . -B "$out/tree" -DTUTTI_CUDA=ON -DTUTTI_BUILD_TESTS=OFF -DTUTTI_BUILD_EXAMPLES=OFF \
  -DCMAKE_CUDA_COMPILER="$nvcc" >"$out/configure.log" || { cat "$out/configure.log"; exit 1; }

# Device code only: what the host compiler has to say, it says in the build. ptxas tells in its report for which architecture.
flags="-std=c++20 -O3 -DNDEBUG -fatbin -I $out/tree/include --expt-relaxed-constexpr -diag-suppress=186 -Werror=all-warnings"
for arch in $archs; do
  from=$arch
  for ptx in $shipped; do [ "$ptx" -gt "$arch" ] || from=$ptx; done  # the newest it can be made from
  flags="$flags -gencode arch=compute_$from,code=sm_$arch"
done

unchanged() {  # unchanged LOG DEPENDENCIES: whether the log is newer than all it was made of
  [ -e "$1" ] && [ -e "$2" ] && [ "$1" -nt scripts/cuda_archs.sh ] || return 1
  for file in $(sed 's/^[^:]*://; s/\\$//' "$2"); do [ "$1" -nt "$file" ] || return 1; done
}

# The report of a file gets its name when the compiler is done, so that half of one does not count.
for source in cuda/*.cu; do
  name=$logs/$(basename "$source" .cu)
  unchanged "$name.log" "$name.d" || printf '%s %s\n' "$source" "$name"
done | xargs -r -P "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}" -L 1 sh -c '
  "$0" '"$flags"' "$1" -o "$2.fatbin" -MD -MF "$2.d" -Xptxas -v >"$2.part" 2>&1 || { cat "$2.part"; exit 255; }
  mv "$2.part" "$2.log"' "$nvcc"

for source in cuda/*.cu; do
  awk -v file="$source" -v archs="$archs" '
    function complain(text) { bad = 1; print file ", " arch ": " text }
    / Compiling entry function / { arch = substr($NF, 2, length($NF) - 2); ++kernels[arch] }
    / bytes stack frame/ { if ($1 > stack) stack = $1; spilled[arch] += $5 + $9 }
    /Used [0-9]+ registers/ {
      for (i = 1; i < NF; ++i) if ($i == "Used" && $(i + 1) + 0 > most[arch]) most[arch] = $(i + 1) + 0
    }
    END {
      n = split(archs, list, " ")
      for (i = 1; i <= n; ++i) {
        arch = "sm_" list[i]
        text = text (i > 1 ? " " : "") most[arch] + 0
        bytes += spilled[arch]
        if (kernels[arch] == 0 || kernels[arch] != kernels["sm_" list[1]]) complain(kernels[arch] + 0 " kernels")
        if (spilled[arch] > 0) complain(spilled[arch] " bytes spilled")
        if (most[arch] > 128) complain(most[arch] " registers; two blocks of 256 threads need 128 or less")
      }
      printf "%-28s %4d kernels  stack %3d  spilled %d  registers %s\n", file, kernels["sm_" list[1]], stack, bytes, text
      exit bad
    }' "$logs/$(basename "$source" .cu).log" || failed=1
done
echo "cuda-archs: architectures $archs, $("$nvcc" --version | sed -n 's/.*release /CUDA /p')"
[ -z "${failed:-}" ]
