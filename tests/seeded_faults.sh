#!/usr/bin/env bash
# Breaks the engine on purpose. Each tests/faults/NN_name.patch is applied to a copy of the tree, what it touches is
# rebuilt, and the fast tests run: they must fail. Exit code 0 only if every fault is caught.
# usage: seeded_faults.sh [number...]      e.g. seeded_faults.sh 7 9 21; without numbers all of them
# Compiling one file and running one test keep one core busy, so two copies work through the faults side by side
# (TUTTI_FAULT_TREES: how many).
#
# The text of a patch before its first "---" line may hold
#   # tests: REGEX    CTest names that should notice; they run first, the others only if these pass
#   # compile: yes    the fault is caught by not compiling (otherwise a patch that does not compile is an error)
set -euo pipefail
cd "$(dirname "$0")/.."
source_dir=$PWD
log_dir=$source_dir/build/faults/log
claims=$source_dir/build/faults/claims
trees=${TUTTI_FAULT_TREES:-2}
timeout=${TUTTI_FAULT_TIMEOUT:-240}  # seconds for one test: a hang counts as caught
rm -rf "$claims"
mkdir -p "$log_dir" "$claims"

export CTEST_PARALLEL_LEVEL=${CTEST_PARALLEL_LEVEL:-$(nproc)}
export CCACHE_DIR=${CCACHE_DIR:-$source_dir/build/ccache} CCACHE_NOHASHDIR=1
# Warnings are no errors here; for ccache that is no other compilation.
export CCACHE_IGNOREOPTIONS=-Werror
# The copies lie inside the checkout; this keeps `git apply` from taking the checkout for their repository.
export GIT_CEILING_DIRECTORIES=$source_dir/build/faults

# use_tree N: what follows happens in copy N; its own build folder is $tree/build/dev.
use_tree() {
  tree=$source_dir/build/faults/tree$1
  export CCACHE_BASEDIR=$tree  # relative paths make the first build of a copy a copy of build/dev
  export TMPDIR=$tree/build/tmp  # tests write files there, which the same test in another copy must not meet
  mkdir -p "$TMPDIR"
}

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

# configure LOG
configure() {
  (cd "$tree" && cmake --preset dev -DTUTTI_WERROR=OFF -DTUTTI_BUILD_EXAMPLES=OFF) >"$1" 2>&1
}

verdict() {  # verdict NAME VERDICT DETAIL
  printf '%-44s %s%s\n' "$1" "$2" "${3:+  ($3)}"
  if [[ $2 == caught ]]; then touch "$claims/$1/caught"; fi
}

# try PATCH: applies it to the copy, which is whole again afterwards.
try() {
  local patch=$1 name header tests by_compiler log targets=()
  name=$(basename "$patch" .patch)
  log=$log_dir/$name
  header=$(sed '/^--- /,$d' "$patch")
  tests=$(sed -n 's/^# tests: *//p' <<<"$header")
  by_compiler=$(sed -n 's/^# compile: *//p' <<<"$header")
  if [[ -n $tests ]] && ctest --test-dir "$tree/build/dev" -N -R "$tests" | grep -q '^Total Tests: 0'; then
    verdict "$name" "NO SUCH TESTS" "$tests"
    return
  fi

  if ! (cd "$tree" && git apply --verbose "$source_dir/$patch") >"$log.apply.log" 2>&1; then
    verdict "$name" "DOES NOT APPLY" "$(tail -n 1 "$log.apply.log")"
    sync_tree
    return
  fi
  # The tests that should notice, and all of them only if these do not. A test and its program have one name.
  if [[ -n $tests ]]; then
    mapfile -t targets < <(ctest --test-dir "$tree/build/dev" -N -R "$tests" | sed -n 's/^ *Test *#[0-9]*: //p')
  fi
  if ! build "$log.build.log" "${targets[@]}"; then
    if [[ $by_compiler == yes ]]; then
      verdict "$name" caught "by the compiler"
    else
      verdict "$name" "DOES NOT COMPILE" "see ${log#"$source_dir"/}.build.log"
    fi
  elif { [[ -n $tests ]] && ! run_tests "$log.test.log" -R "$tests"; } ||
    { build "$log.build.log" && ! run_tests "$log.test.log"; }; then
    verdict "$name" caught "$(sed -n 's/^[[:space:]]*[0-9]* - \([^ ]*\) (\(.*\))$/\1: \2/p' "$log.test.log" | head -n 1)"
  else
    verdict "$name" MISSED
  fi
  sync_tree
}

# work N: copy N takes faults that no other copy has taken.
work() {
  use_tree "$1"
  sync_tree
  configure "$log_dir/configure$1.log" || { tail -n 30 "$log_dir/configure$1.log"; return 1; }
  for patch in "${patches[@]}"; do
    if mkdir "$claims/$(basename "$patch" .patch)" 2>/dev/null; then try "$patch"; fi
  done
}

echo "seeded faults: building and testing the unbroken tree"
use_tree 1
sync_tree
configure "$log_dir/configure.log" || { tail -n 30 "$log_dir/configure.log"; exit 2; }
build "$log_dir/build.log" || { tail -n 30 "$log_dir/build.log"; exit 2; }
run_tests "$log_dir/unbroken.log" || { tail -n 30 "$log_dir/unbroken.log"; echo "the unbroken tree fails"; exit 2; }

((trees <= ${#patches[@]})) || trees=${#patches[@]}
workers=()
for ((i = 1; i <= trees; ++i)); do
  work "$i" &
  workers+=($!)
done
for worker in "${workers[@]}"; do wait "$worker" || echo "a copy stopped early: what it left undone counts as failed"; done

caught=$(find "$claims" -name caught | wc -l)
echo "$caught passed, $((${#patches[@]} - caught)) failed"
((caught == ${#patches[@]}))
