# Toolchain: builds for 64-bit ARM Linux on another CPU, and runs the programs with qemu's user mode. Libraries are those
# of Debian's arm64 packages, beside the machine's own (scripts/aarch64_test.sh installs them).
# For clang: -DCMAKE_CXX_COMPILER=clang++.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
if(NOT CMAKE_CXX_COMPILER)
  set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
endif()
set(CMAKE_CXX_COMPILER_TARGET aarch64-linux-gnu)  # tells clang; g++ has it in its name
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_CROSSCOMPILING_EMULATOR "qemu-aarch64;-L;/usr/aarch64-linux-gnu")
