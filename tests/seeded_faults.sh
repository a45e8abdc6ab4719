#!/usr/bin/env bash
# Breaks the engine on purpose. Each tests/faults/NN_name.patch is applied to a copy of the tree, what it touches is
# rebuilt, and the fast tests run: they must fail. Exit code 0 only if every fault is caught.
# usage: seeded_faults.sh [number...]      e.g. seeded_faults.sh 7 9 21; without numbers all of them
#
# The text of a patch before its first "---" line may hold
#   # tests: REGEX    CTest names that should notice; they run first, the others only if these pass
#   # compile: yes    the fault is caught by not compiling (otherwise a patch that does not compile is an error)
set -euo pipefail
cd "$(dirname "$0")/.."
source_dir=$PWD
tree=$source_dir/build/faults/tree   # the copy; its own build folder is $tree/build/dev
log_dir=$source_dir/build/faults/log
timeout=${TUTTI_FAULT_TIMEOUT:-240}  # seconds for one test: a hang counts as caught
mkdir -p "$tree" "$log_dir"

# With ccache, paths relative to each tree make the first build of the copy a copy of build/dev.
export CTEST_PARALLEL_LEVEL=${CTEST_PARALLEL_LEVEL:-$(nproc)}
export CCACHE_DIR=${CCACHE_DIR:-$source_dir/build/ccache} CCACHE_BASEDIR=$tree CCACHE_NOHASHDIR=1
# The copy lies inside the checkout; this keeps `git apply` from taking the checkout for its repository.
# Warnings are no errors here; for ccache that is no other compilation.
export CCACHE_IGNOREOPTIONS=-Werror
export GIT_CEILING_DIRECTORIES=$source_dir/build/faults

# Brings the copy up to date; only files that differ are written, so only they are rebuilt.
sync_tree() {
  git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [[ -f $file ]] && ! cmp -s "$file" "$tree/$file"; then
      mkdir -p "$(dirname "$tree/$file")"
      cp "$file" "$tree/$file"
    fi
  done
}

# build LOG [target...]
build() {
  local log=$1
  shift
  (cd "$tree" && cmake --build --preset dev ${1:+--target "$@"}) >"$log" 2>&1
}

# run_tests LOG [ctest argument...]: the fast tests, less the checks of the tree itself.
run_tests() {
  local log=$1
  shift
  (cd "$tree" && ctest --test-dir build/dev -LE 'slow|tree' --no-tests=error --timeout "$timeout" \
    --stop-on-failure --output-on-failure "$@") >"$log" 2>&1
}

patches=()
if (($# == 0)); then
  for patch in tests/faults/*.patch; do [[ -e $patch ]] && patches+=("$patch"); done
else
  for number in "$@"; do
    found=(tests/faults/"$(printf %02d "$((10#$number))")"_*.patch)
    [[ -e ${found[0]} ]] || { echo "no fault with number $number" >&2; exit 2; }
    patches+=("${found[0]}")
  done
fi
((${#patches[@]})) || { echo "no patch in tests/faults" >&2; exit 2; }

echo "seeded faults: building and testing the unbroken tree"
sync_tree
(cd "$tree" && cmake --preset dev -DTUTTI_WERROR=OFF -DTUTTI_BUILD_EXAMPLES=OFF) >"$log_dir/configure.log" 2>&1 ||
  { tail -n 30 "$log_dir/configure.log"; exit 2; }
build "$log_dir/build.log" || { tail -n 30 "$log_dir/build.log"; exit 2; }
run_tests "$log_dir/unbroken.log" || { tail -n 30 "$log_dir/unbroken.log"; echo "the unbroken tree fails"; exit 2; }

caught=0
failed=0
report() {  # report NAME VERDICT DETAIL
  printf '%-44s %s%s\n' "$1" "$2" "${3:+  ($3)}"
  if [[ $2 == caught ]]; then caught=$((caught + 1)); else failed=$((failed + 1)); fi
}

for patch in "${patches[@]}"; do
  name=$(basename "$patch" .patch)
  log=$log_dir/$name
  header=$(sed '/^--- /,$d' "$patch")
  tests=$(sed -n 's/^# tests: *//p' <<<"$header")
  by_compiler=$(sed -n 's/^# compile: *//p' <<<"$header")
  if [[ -n $tests ]] && ctest --test-dir "$tree/build/dev" -N -R "$tests" | grep -q '^Total Tests: 0'; then
    report "$name" "NO SUCH TESTS" "$tests"
    continue
  fi

  if ! (cd "$tree" && git apply --verbose "$source_dir/$patch") >"$log.apply.log" 2>&1; then
    report "$name" "DOES NOT APPLY" "$(tail -n 1 "$log.apply.log")"
    sync_tree
    continue
  fi
  # The tests that should notice, and all of them only if these do not. A test and its program have one name.
  targets=()
  if [[ -n $tests ]]; then
    mapfile -t targets < <(ctest --test-dir "$tree/build/dev" -N -R "$tests" | sed -n 's/^ *Test *#[0-9]*: //p')
  fi
  if ! build "$log.build.log" "${targets[@]}"; then
    if [[ $by_compiler == yes ]]; then
      report "$name" caught "by the compiler"
    else
      report "$name" "DOES NOT COMPILE" "see ${log#"$source_dir"/}.build.log"
    fi
  elif { [[ -n $tests ]] && ! run_tests "$log.test.log" -R "$tests"; } ||
    { build "$log.build.log" && ! run_tests "$log.test.log"; }; then
    report "$name" caught "$(sed -n 's/^[[:space:]]*[0-9]* - \([^ ]*\) (\(.*\))$/\1: \2/p' "$log.test.log" | head -n 1)"
  else
    report "$name" MISSED
  fi
  sync_tree
done

echo "$caught passed, $failed failed"
((failed == 0))
