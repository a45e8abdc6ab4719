#!/bin/sh
# Builds the CUDA backend for the GPU of this machine, runs its tests and benchmarks on it, compares with PyTorch if that is
# there, and writes docs/gpu-runs.md. Goes on after a failure, and ends with 1 then. usage: scripts/gpu.sh [build folder]
#
# What may be set:
#   TUTTI_GPU_CMAKE   more arguments for cmake
#   TUTTI_GPU_RUN     what stands before a program that uses the GPU, e.g. "taskset -c 2"
#   TUTTI_GPU_BENCH   arguments of cuda_bench (five repetitions)
#   TUTTI_GPU_PEERS   more arguments for bench/cuda/peers.py
#   TUTTI_GPU_TOOLS   which of compute-sanitizer's tools, if it is there (memcheck racecheck synccheck); each has 15 minutes
#   TUTTI_GPU_REPORT  the file to write
#   TUTTI_PEERS       the folder bench/peers/run.sh installed PyTorch into (build/peers)
set -eu
cd "$(dirname "$0")/.."
build=${1:-build/gpu}
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi >/dev/null 2>&1; then
  echo "gpu.sh: no NVIDIA driver answers here; tests/cudasim executes the same program without one (make cuda-test)" >&2
  exit 2
fi
nvcc=$(command -v "${CUDACXX:-nvcc}" || echo /usr/local/cuda/bin/nvcc)
ask() { nvidia-smi --query-gpu="$1" --format=csv,noheader | head -n 1; }

sh scripts/install_deps.sh --tests --bench
# shellcheck disable=SC2086  # several arguments
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DTUTTI_CUDA=ON -DTUTTI_CUDA_PLAIN_PTX=OFF -DTUTTI_CUDA_ON_GPU=ON \
  -DTUTTI_BUILD_BENCH=ON -DTUTTI_BUILD_EXAMPLES=OFF -DCMAKE_CUDA_ARCHITECTURES="$(ask compute_cap | tr -d '. ')" \
  ${TUTTI_GPU_CMAKE:-}
cmake --build "$build" --target test_cuda cuda_bench

out=$build/gpu-run
rm -rf "$out"
mkdir -p "$out/data"
failed=0
results=
# attempt NAME COMMAND...: its output goes to NAME.log, what became of it into the report.
attempt() {
  name=$1 code=0
  shift
  echo "gpu.sh: $name"
  "$@" >"$out/$name.log" 2>&1 || code=$?
  case $code in
    0) say "$name: passed" ;;
    "$not_there") say "$name: not run, $(tail -n 1 "$out/$name.log")" ;;
    *)
      failed=1
      say "$name: FAILED, exit status $code"
      tail -n 40 "$out/$name.log" ;;
  esac
}
say() { results="$results- $1
"; }
not_there=none  # the exit status of what is left out for want of something

# shellcheck disable=SC2086  # here and below: several arguments
attempt test_cuda ${TUTTI_GPU_RUN:-} "$build/tests/cuda/test_cuda"
# With every block its own allocation, so that the tools see the end of each.
sanitizer=$(command -v compute-sanitizer || echo "${nvcc%/*}/compute-sanitizer")
for tool in ${TUTTI_GPU_TOOLS-memcheck racecheck synccheck}; do
  if [ -x "$sanitizer" ]; then
    # shellcheck disable=SC2086
    attempt "$tool" ${TUTTI_GPU_RUN:-} env TUTTI_CUDA_CACHE=0 timeout 900 \
      "$sanitizer" --tool "$tool" --error-exitcode 1 "$build/tests/cuda/test_cuda"
  else
    say "$tool: not run, compute-sanitizer is not installed"
  fi
done
# shellcheck disable=SC2086
attempt cuda_bench ${TUTTI_GPU_RUN:-} "$build/bench/cuda/cuda_bench" --benchmark_out="$out/tutti.json" \
  ${TUTTI_GPU_BENCH:---benchmark_repetitions=5 --benchmark_report_aggregates_only=true}
# shellcheck disable=SC2086
attempt cases "$build/bench/cuda/cuda_bench" --data="$out/data" ${TUTTI_GPU_BENCH:-}
not_there=77
# shellcheck disable=SC2086
attempt peers python3 bench/cuda/peers.py "$out/tutti.json" "$out/data" "$out/peers.json" \
  --packages "${TUTTI_PEERS:-build/peers}" ${TUTTI_GPU_PEERS:-}
not_there=none
attempt ratios python3 bench/cuda/ratios.py "$out/tutti.json" "$out/peers.json"

commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD 2>/dev/null || commit="$commit and changes"
report=${TUTTI_GPU_REPORT:-docs/gpu-runs.md}
{
  echo "# Runs on a GPU"
  echo
  echo "Written by scripts/gpu.sh."
  echo
  echo "- device: $(ask name,driver_version,compute_cap)"
  echo "- host: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores"
  echo "- toolkit: $("$nvcc" --version | sed -n 's/.*release //p')"
  echo "- commit: $commit, date: $(date -u +%Y-%m-%d)"
  echo "$results"
  echo "## Tests"
  echo
  echo '```'
  sed -n '/ rows, .* run on CUDA/{s/:$//;p;q;}' "$out/test_cuda.log"
  tail -n 4 "$out/test_cuda.log"
  echo '```'
  echo
  echo "## Times"
  echo
  cat "$out/ratios.log"
} >"$report"
cat "$report"
exit $failed
