#!/bin/sh
# Builds the CUDA backend, runs its tests on the executor, and checks which PTX instructions they executed. usage: scripts/cuda_test.sh
set -eu
cd "$(dirname "$0")/.."
if ! command -v "${CUDACXX:-nvcc}" >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
  echo "cuda-test: nvcc was not found; the CUDA part was NOT built and NOT run"
  exit 0
fi
cmake --preset cuda -DTUTTI_BUILD_EXAMPLES=OFF
cmake --build --preset cuda --target test_cuda test_cuda_no_driver cudasim_cudart cudasim_cublas
rm -f build/cuda/ptx_coverage.txt
ctest --test-dir build/cuda -R '^test_cuda' --no-tests=error --output-on-failure
python3 tests/cudasim/coverage.py build/cuda/ptx_coverage.txt --min 95 --reasons tests/cudasim/unreached.txt --brief
python3 tests/cudasim/check_packs.py build/cuda/ptx_coverage.txt
