#!/bin/sh
# Builds the CUDA backend, runs its tests and benchmarks on the executor, compiles the kernels for real architectures, and says
# what was executed. usage: scripts/cuda_test.sh [--slow]
#   --slow  runs the slow suite, too: PTX for other architectures, training steps of full size, PyTorch if it is there
set -eu
cd "$(dirname "$0")/.."
if ! command -v "${CUDACXX:-nvcc}" >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
  echo "cuda-test: nvcc was not found; the CUDA part was NOT built and NOT run"
  exit 0
fi
cmake --preset cuda -DTUTTI_BUILD_EXAMPLES=OFF -DTUTTI_BUILD_BENCH=ON
cmake --build --preset cuda --target test_cuda test_cuda_no_driver cuda_bench cudasim_cudart cudasim_cublas
rm -f build/cuda/ptx_coverage.txt
ctest --test-dir build/cuda -R '^(test_cuda|cuda_bench)' -LE slow --no-tests=error --output-on-failure
rows=$(sed -n '/ rows, .* run on CUDA/{s/:$//;p;q;}' build/cuda/Testing/Temporary/LastTest.log)
if [ "${1:-}" = --slow ]; then
  ctest --test-dir build/cuda -R '^(test_cuda|cuda_bench)' -L slow --no-tests=error --output-on-failure
fi
sh scripts/cuda_archs.sh --major
echo "cuda-test:"
[ -n "$rows" ] || { echo "the test program did not say which rows it ran"; exit 1; }
echo "rows: $rows"
printf 'PTX: '
python3 tests/cudasim/coverage.py build/cuda/ptx_coverage.txt --min 95 --reasons tests/cudasim/unreached.txt --brief
printf 'packs: '
python3 tests/cudasim/check_packs.py build/cuda/ptx_coverage.txt
echo "mutants: $(ls tests/cudasim/mutants/*.patch | wc -l) in tests/cudasim/mutants; NOT run here, make cuda-mutants runs them"
