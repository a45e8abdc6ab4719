#!/bin/sh
# Builds the CUDA backend for the GPU of this machine, runs its tests on it and writes
# docs/gpu-runs.md. usage: scripts/gpu.sh [build folder]
set -eu
cd "$(dirname "$0")/.."
build=${1:-build/gpu}
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi >/dev/null 2>&1; then
  echo "gpu.sh: no NVIDIA driver answers here; tests/cudasim executes the same program without one (make cuda-test)" >&2
  exit 2
fi
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d '. ')
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DTUTTI_CUDA=ON -DTUTTI_CUDA_PLAIN_PTX=OFF \
  -DCMAKE_CUDA_ARCHITECTURES="$capability"
cmake --build "$build" --target test_cuda
report=docs/gpu-runs.md
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=passed
"$build/tests/cuda/test_cuda" >"$log" 2>&1 || status=FAILED
{
  echo "# Runs on a GPU"
  echo
  echo "Written by scripts/gpu.sh."
  echo
  echo "- device: $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1)"
  echo "- toolkit: $("${CUDACXX:-nvcc}" --version | grep release | sed 's/.*release //')"
  echo "- commit: $(git rev-parse --short HEAD), date: $(date -u +%Y-%m-%d)"
  echo "- tests/cuda: $status"
  echo
  echo '```'
  tail -n 40 "$log"
  echo '```'
} >"$report"
cat "$log"
[ "$status" = passed ]
