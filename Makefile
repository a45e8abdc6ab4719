# Everyday commands; CMakePresets.json and scripts/ do the work.
.DEFAULT_GOAL := help
SOURCES = $(shell git ls-files --cached --others --exclude-standard '*.h' '*.cpp' '*.cu' '*.cuh')

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9_-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what building needs (Debian, Ubuntu)
	sh scripts/install_deps.sh

build: ## configure and build the dev preset into build/dev
	cmake --preset dev && cmake --build --preset dev

test: build ## run the fast tests
	ctest --preset dev

test-slow: ## run the slow suite, on a release build
	cmake --workflow --preset slow

release: ## build at full speed into build/release
	cmake --preset release && cmake --build --preset release

asan: ## build and test under AddressSanitizer
	cmake --workflow --preset asan

ubsan: ## build and test under UndefinedBehaviorSanitizer
	cmake --workflow --preset ubsan

tsan: ## build and test under ThreadSanitizer
	cmake --workflow --preset tsan

minsize: ## build and test for size
	cmake --workflow --preset minsize

cuda-test: ## build the CUDA backend and run its tests, on tests/cudasim where there is no GPU
	sh scripts/cuda_test.sh

cuda-test-slow: ## ... and its slow tests
	sh scripts/cuda_test.sh --slow

cuda-mutants: ## break the CUDA backend on purpose, one patch at a time; its tests must fail
	bash tests/cudasim/mutate.sh

aarch64-test: ## build for 64-bit ARM and run the tests in qemu
	sh scripts/aarch64_test.sh

cuda-archs: ## compile the CUDA kernels for every architecture of the toolkit, and check what ptxas says
	sh scripts/cuda_archs.sh

gpu: ## run the CUDA tests on this machine's GPU and write docs/gpu-runs.md
	sh scripts/gpu.sh

ops-page: ## make docs/ops.md anew
	cmake --preset dev && cmake --build --preset dev --target op_docs
	build/dev/tests/op_docs core/ops.h > docs/ops.md

format: ## format every source file
	clang-format -i $(SOURCES)

lint: build ## run clang-tidy over the sources
	run-clang-tidy -quiet -p build/dev '/(core|autograd|nn|func|examples)/'

members: ## regenerate the Tensor members from core/ops.h
	python3 scripts/gen_members.py

bench: ## run every benchmark
	sh scripts/bench.sh

bench-gates: ## check that what must be fast is fast enough
	sh bench/gates.sh

bench-peers: ## training steps in tutti, PyTorch and JAX, one table (installs both)
	sh bench/peers/run.sh

demo: ## train 32 networks on real digits; results go to out/
	sh scripts/demo.sh

faults: ## break the engine on purpose: every seeded fault must be caught
	bash tests/seeded_faults.sh

ci: ## everything continuous integration runs
	bash .ci/run

clean: ## remove build/ and out/
	rm -rf build out

.PHONY: help deps build aarch64-test cuda-test cuda-test-slow cuda-mutants cuda-archs gpu test test-slow release asan ubsan tsan minsize format lint members ops-page bench bench-gates bench-peers demo faults ci clean
