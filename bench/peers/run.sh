#!/bin/sh
# Prints one table: the training steps in tutti, the Eigen loop, PyTorch and JAX. The first run installs PyTorch and JAX with
# pip into a folder of their own: build/peers, or what TUTTI_PEERS names. Arguments go to compare.py, e.g. --threads 2.
set -eu
cd "$(dirname "$0")/../.."
peers=${TUTTI_PEERS:-build/peers}

install() {  # install FOLDER PACKAGE [pip argument...]: complete or not at all
  folder=$peers/$1
  if [ -d "$folder" ]; then return; fi
  shift
  rm -rf "$folder.part"
  python3 -m pip install --quiet --target "$folder.part" numpy "$@" && mv "$folder.part" "$folder"
}
install torch torch --index-url https://download.pytorch.org/whl/cpu --retries 0 --timeout 15 || {
  echo "no CPU build of PyTorch to be had; taking the usual one, several GB on Linux" >&2
  install torch torch
}
install jax jax

cmake --preset release -DTUTTI_BUILD_BENCH=ON >/dev/null
cmake --build --preset release --target train_step_bench gates_train_step >/dev/null
exec python3 bench/peers/compare.py build/release "$peers" "$@"
