# Third-party packages: the system's (or vcpkg's) when found, else fetched at a fixed version. Nothing is vendored.
include(FetchContent)

find_package(Threads REQUIRED)

# Eigen, headers only, used inside core/kernels. Sets TUTTI_EIGEN_INCLUDE_DIR and leaves no trace in exported targets.
find_package(Eigen3 3.4 QUIET NO_MODULE)
if(TARGET Eigen3::Eigen)
  get_target_property(TUTTI_EIGEN_INCLUDE_DIR Eigen3::Eigen INTERFACE_INCLUDE_DIRECTORIES)
else()
  message(STATUS "tutti: Eigen 3.4 not found, fetching it")
  FetchContent_Declare(eigen
    URL https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.gz
    SOURCE_SUBDIR headers-only)  # no such folder: unpack, add nothing to the build
  FetchContent_MakeAvailable(eigen)
  set(TUTTI_EIGEN_INCLUDE_DIR ${eigen_SOURCE_DIR})
endif()

# Highway, headers only, used inside core/kernels for x86-64 and 64-bit ARM; without it kernels are portable code. Leaves
# no trace in exported targets. Sets TUTTI_WITH_HIGHWAY and TUTTI_HIGHWAY_INCLUDE_DIR.
find_path(TUTTI_HIGHWAY_INCLUDE_DIR hwy/foreach_target.h)
mark_as_advanced(TUTTI_HIGHWAY_INCLUDE_DIR)
set(tutti_has_highway OFF)
if(TUTTI_HIGHWAY_INCLUDE_DIR AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64|aarch64|arm64|ARM64)$")
  set(tutti_has_highway ON)
endif()
option(TUTTI_WITH_HIGHWAY "Vectorised kernels for several instruction sets (Highway)" ${tutti_has_highway})
if(TUTTI_WITH_HIGHWAY AND NOT tutti_has_highway)
  message(FATAL_ERROR "TUTTI_WITH_HIGHWAY=ON needs an x86-64 or 64-bit ARM CPU and Highway (hwy/foreach_target.h, Debian: libhwy-dev)")
elseif(NOT tutti_has_highway)
  message(STATUS "tutti: no Highway (Debian: libhwy-dev) for this CPU; kernels are portable code, several times slower")
endif()

# JSON for Modern C++, headers only, used inside nn/safetensors.cpp. Leaves no trace in exported targets.
find_path(TUTTI_JSON_INCLUDE_DIR nlohmann/json.hpp)
mark_as_advanced(TUTTI_JSON_INCLUDE_DIR)
if(NOT TUTTI_JSON_INCLUDE_DIR)
  message(STATUS "tutti: nlohmann/json.hpp not found, fetching it")
  FetchContent_Declare(nlohmann_json
    URL https://github.com/nlohmann/json/releases/download/v3.11.2/include.zip
    DOWNLOAD_EXTRACT_TIMESTAMP ON
    SOURCE_SUBDIR headers-only)  # no such folder: unpack, add nothing to the build
  FetchContent_MakeAvailable(nlohmann_json)
  set(TUTTI_JSON_INCLUDE_DIR ${nlohmann_json_SOURCE_DIR}/include)
endif()

# tutti_need(<package> <target> <git url> <tag>): a package of the tests, examples or benchmarks.
macro(tutti_need package target url tag)
  if(NOT TARGET ${target})
    find_package(${package} QUIET)
  endif()
  if(NOT TARGET ${target})
    message(STATUS "tutti: ${package} not found, fetching ${tag}")
    FetchContent_Declare(${package} GIT_REPOSITORY ${url} GIT_TAG ${tag} GIT_SHALLOW ON)
    FetchContent_MakeAvailable(${package})
  endif()
endmacro()

macro(tutti_need_doctest)
  tutti_need(doctest doctest::doctest https://github.com/doctest/doctest.git v2.4.11)
endmacro()

macro(tutti_need_rapidcheck)
  tutti_need(rapidcheck rapidcheck https://github.com/emil-e/rapidcheck.git master)  # has no releases
endmacro()

macro(tutti_need_benchmark)
  set(BENCHMARK_ENABLE_TESTING OFF)
  tutti_need(benchmark benchmark::benchmark https://github.com/google/benchmark.git v1.8.3)
endmacro()

macro(tutti_need_cli11)
  tutti_need(CLI11 CLI11::CLI11 https://github.com/CLIUtils/CLI11.git v2.4.2)
endmacro()
