#!/bin/sh
# Builds the CUDA backend and runs everything labelled cuda. usage: scripts/cuda_test.sh
set -eu
cd "$(dirname "$0")/.."
if ! command -v "${CUDACXX:-nvcc}" >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
  echo "cuda-test: nvcc was not found; the CUDA part was NOT built and NOT run"
  exit 0
fi
cmake --preset cuda -DTUTTI_BUILD_EXAMPLES=OFF
cmake --build --preset cuda --target test_cuda test_cuda_no_driver cudasim_cudart cudasim_cublas
ctest --test-dir build/cuda -R '^test_cuda' --no-tests=error --output-on-failure
