#!/bin/sh
# Installs what is missing to build tutti, on Debian and Ubuntu; elsewhere says what to install.
# usage: install_deps.sh [--tests] [--bench] [--ci]   each adds what that part needs to the basic set
# Runs apt-get only if something is missing, as root or with sudo.
set -eu

tests=no bench=no ci=no
for option in "$@"; do
  case $option in
    --tests) tests=yes ;;
    --bench) bench=yes ;;
    --ci) tests=yes bench=yes ci=yes ;;
    *) echo "usage: install_deps.sh [--tests] [--bench] [--ci]" >&2; exit 2 ;;
  esac
done

# Every line of the list: what we look for (a command or a header), then its package on Debian, Fedora, Arch
# and Homebrew ("-": comes with the system).
list() {
  cat <<END
command c++ g++ gcc-c++ gcc -
command cmake cmake cmake cmake cmake
command ninja ninja-build ninja-build ninja ninja
header eigen3/Eigen/Core libeigen3-dev eigen3-devel eigen eigen
header nlohmann/json.hpp nlohmann-json3-dev json-devel nlohmann-json nlohmann-json
header CLI/CLI.hpp libcli11-dev cli11-devel cli11 cli11
END
  case $(uname -m) in x86_64 | amd64 | aarch64 | arm64) echo "header hwy/foreach_target.h libhwy-dev highway-devel highway highway" ;; esac
  if [ $tests = yes ]; then cat <<END
header doctest/doctest.h doctest-dev doctest-devel doctest doctest
header rapidcheck.h librapidcheck-dev - - -
command python3 python3 python3 python python
END
  fi
  if [ $bench = yes ]; then cat <<END
header benchmark/benchmark.h libbenchmark-dev google-benchmark-devel benchmark google-benchmark
END
  fi
  if [ $ci = yes ]; then cat <<END
command g++ g++ gcc-c++ gcc gcc
command clang++ clang clang clang llvm
command clang-format clang-format clang-tools-extra clang clang-format
command ccache ccache ccache ccache ccache
command ld.lld lld lld lld lld
END
  fi
}

has() {  # has command NAME | has header PATH
  case $1 in
    command) command -v "$2" >/dev/null 2>&1 ;;
    header)
      for prefix in /usr/include /usr/local/include /opt/homebrew/include; do
        if [ -e "$prefix/$2" ]; then return 0; fi
      done
      return 1 ;;
  esac
}

# Packages of what is missing; $1 is the column of the list.
missing() {
  list | while read -r kind name debian fedora arch brew; do
    has "$kind" "$name" || case $1 in
      debian) echo "$debian" ;;
      fedora) echo "$fedora" ;;
      arch) echo "$arch" ;;
      brew) echo "$brew" ;;
    esac
  done | grep -v '^-$' | sort -u | tr '\n' ' ' | sed 's/ $//'
}

needs_nothing() {
  list | while read -r kind name rest; do
    has "$kind" "$name" || exit 1
  done
}

if ! needs_nothing; then
  if command -v apt-get >/dev/null 2>&1; then
    packages=$(missing debian)
    if [ "$(id -u)" = 0 ]; then
      as_root=
    elif command -v sudo >/dev/null 2>&1; then
      as_root=sudo
    else
      echo "tutti: packages are missing and this is neither root nor a user with sudo. As root, run:" >&2
      echo "  apt-get update && apt-get install $packages" >&2
      exit 1
    fi
    echo "tutti: installing $packages"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
    # shellcheck disable=SC2086  # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
  else
    echo "tutti: some tools or libraries are missing. Install them, then run this again:" >&2
    if command -v dnf >/dev/null 2>&1; then
      echo "  sudo dnf install $(missing fedora)" >&2
    elif command -v pacman >/dev/null 2>&1; then
      echo "  sudo pacman -S --needed $(missing arch)" >&2
    elif [ "$(uname -s)" = Darwin ]; then
      command -v c++ >/dev/null 2>&1 || echo "  xcode-select --install" >&2
      echo "  brew install $(missing brew)" >&2
    else
      list | while read -r kind name rest; do
        has "$kind" "$name" || echo "  $kind $name" >&2
      done
      echo "(a C++20 compiler: g++ 12 or clang 14 or newer; CMake 3.25 or newer; Ninja; Eigen 3.4; nlohmann json; CLI11;" >&2
      echo " Highway 1.0 on x86-64 and 64-bit ARM; for the tests doctest and Python 3; for the benchmarks Google Benchmark)" >&2
    fi
    exit 1
  fi
fi

version=$(cmake --version | sed -n '1s/[^0-9]*\([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
# shellcheck disable=SC2086  # major and minor
set -- $version
if [ "$1" -lt 3 ] || { [ "$1" -eq 3 ] && [ "$2" -lt 25 ]; }; then
  echo "tutti: CMake $1.$2 is too old, 3.25 is needed. One way: python3 -m pip install --user 'cmake>=3.25'" >&2
  exit 1
fi
