#!/usr/bin/env bash
# Breaks the CUDA backend on purpose. Each tests/cudasim/mutants/NN_name.patch is applied to a copy of the tree, the CUDA test
# program is rebuilt and runs on the executor: it must fail. Exit code 0 only if every mutant is caught.
# usage: mutate.sh [number...]      e.g. mutate.sh 7 9 21; without numbers all of them
#
# The text of a patch before its first "---" line may hold
#   # cases: PATTERN   doctest cases that should notice; they run first, the others only if these pass
#   # bounds: yes      run without the caching allocator first (TUTTI_CUDA_CACHE=0), for errors within a cached block
#   # warps: ORDER     run with CUDASIM_WARPS=ORDER first
#   # rebuild: FILE...  only these files of cuda/ see the mutant, for headers that many include
# TUTTI_MUTATE_TARGET (test_cuda) is the program, TUTTI_MUTATE_JOBS (number of cores) the jobs of a build,
# TUTTI_MUTATE_ARGS more arguments for cmake. Only what a mutant touches is rebuilt, and a run ends at the first failed check.
set -euo pipefail
cd "$(dirname "$0")/../.."
source_dir=$PWD
tree=$source_dir/build/mutants/tree
build_dir=$tree/build/cuda
log_dir=$source_dir/build/mutants/log
target=${TUTTI_MUTATE_TARGET:-test_cuda}
jobs=${TUTTI_MUTATE_JOBS:-$(nproc)}
timeout=${TUTTI_FAULT_TIMEOUT:-900}  # seconds for one run: a hang counts as caught
mkdir -p "$tree" "$log_dir"

export CCACHE_DIR=${CCACHE_DIR:-$source_dir/build/ccache} CCACHE_BASEDIR=$tree CCACHE_NOHASHDIR=1
export CCACHE_IGNOREOPTIONS=-Werror GIT_CEILING_DIRECTORIES=$source_dir/build/mutants

# Brings the copy up to date; only files that differ are written, so only they are rebuilt.
sync_tree() {
  git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [[ -f $file ]] && ! cmp -s "$file" "$tree/$file"; then
      mkdir -p "$(dirname "$tree/$file")"
      cp "$file" "$tree/$file"
    fi
  done
}

# Compiles single files of cuda/ and then makes everything else believe that nothing has changed.
build_only() {  # build_only LOG PATCH FILE...
  local log=$1 patch=$2 targets=() file
  shift 2
  for file in "$@"; do
    touch "$tree/cuda/$file"
    targets+=("cuda/CMakeFiles/tutti_cuda.dir/$file.o")
  done
  cmake --build "$build_dir" -j "$jobs" --target "${targets[@]}" >"$log" 2>&1 || return 1
  sed -n 's,^+++ b/,,p' "$patch" | while IFS= read -r file; do cp -p "$source_dir/$file" "$tree/$file"; done
  build "$log"
}

build() {  # build LOG
  cmake --build "$build_dir" -j "$jobs" --target "$target" cudasim_cudart cudasim_cublas >"$1" 2>&1
}

run() {  # run LOG [VARIABLE=value...] -- [argument...]: the test program on the executor
  local log=$1 variables=()
  shift
  while [[ $1 != -- ]]; do variables+=("$1"); shift; done
  shift
  local program
  program=$(find "$build_dir" -type f -name "$target" -perm -u+x | head -n 1)
  env LD_LIBRARY_PATH="$build_dir/cudasim" "${variables[@]}" timeout "$timeout" "$program" --abort-after=1 "$@" >"$log" 2>&1
}

patches=()
if (($# == 0)); then
  for patch in tests/cudasim/mutants/*.patch; do [[ -e $patch ]] && patches+=("$patch"); done
else
  for number in "$@"; do
    found=(tests/cudasim/mutants/"$(printf %02d "$((10#$number))")"_*.patch)
    [[ -e ${found[0]} ]] || { echo "no mutant with number $number" >&2; exit 2; }
    patches+=("${found[0]}")
  done
fi
((${#patches[@]})) || { echo "no patch in tests/cudasim/mutants" >&2; exit 2; }

echo "mutants: building and testing the unbroken tree"
sync_tree
# shellcheck disable=SC2086  # several arguments
(cd "$tree" && cmake --preset cuda -DTUTTI_WERROR=OFF ${TUTTI_MUTATE_ARGS:-}) >"$log_dir/configure.log" 2>&1 ||
  { tail -n 30 "$log_dir/configure.log"; exit 2; }
build "$log_dir/build.log" || { tail -n 30 "$log_dir/build.log"; exit 2; }
run "$log_dir/unbroken.log" -- || { tail -n 30 "$log_dir/unbroken.log"; echo "the unbroken tree fails"; exit 2; }

caught=0
failed=0
report() {  # report NAME VERDICT DETAIL
  printf '%-44s %s%s\n' "$1" "$2" "${3:+  ($3)}"
  if [[ $2 == caught ]]; then caught=$((caught + 1)); else failed=$((failed + 1)); fi
}

# What the log of a failed run says first: a message of the executor, or a failed check.
reason() {
  grep -m 1 -E 'cudasim: |ERROR: |FAILED|rror' "$1" | cut -c 1-100 || true
}

for patch in "${patches[@]}"; do
  name=$(basename "$patch" .patch)
  log=$log_dir/$name
  header=$(sed '/^--- /,$d' "$patch")
  cases=$(sed -n 's/^# cases: *//p' <<<"$header")
  variables=()
  [[ $(sed -n 's/^# bounds: *//p' <<<"$header") != yes ]] || variables+=(TUTTI_CUDA_CACHE=0)
  warps=$(sed -n 's/^# warps: *//p' <<<"$header")
  [[ -z $warps ]] || variables+=("CUDASIM_WARPS=$warps")

  rebuild=$(sed -n 's/^# rebuild: *//p' <<<"$header")
  if ! (cd "$tree" && git apply --verbose "$source_dir/$patch") >"$log.apply.log" 2>&1; then
    report "$name" "DOES NOT APPLY" "$(tail -n 1 "$log.apply.log")"
    sync_tree
    continue
  fi
  # shellcheck disable=SC2086  # several files
  if ! { [[ -n $rebuild ]] && build_only "$log.build.log" "$source_dir/$patch" $rebuild || [[ -z $rebuild ]] && build "$log.build.log"; }; then
    report "$name" "DOES NOT COMPILE" "see ${log#"$source_dir"/}.build.log"
  elif { [[ -n $cases ]] && ! run "$log.test.log" "${variables[@]}" -- --test-case="$cases"; } ||
    ! run "$log.test.log" "${variables[@]}" -- || ! run "$log.test.log" TUTTI_CUDA_CACHE=0 --; then
    report "$name" caught "$(reason "$log.test.log")"
  else
    report "$name" MISSED
  fi
  sync_tree
  for file in $rebuild; do touch "$tree/cuda/$file"; done
done

echo "$caught mutants caught, $failed not"
((failed == 0))
