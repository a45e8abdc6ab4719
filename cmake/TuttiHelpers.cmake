# Helpers shared by the parts: the include root, the library function and the flags of our own targets.

# Makes PROJECT_BINARY_DIR/include/tutti: links to the parts and the generated config.h, so that
# <tutti/core/tensor.h> is spelled the same in the build tree and after install.
function(tutti_make_include_root)
  set(root ${PROJECT_BINARY_DIR}/include/tutti)
  file(MAKE_DIRECTORY ${root})
  foreach(entry core autograd nn func cuda tutti.h)
    file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${entry} ${root}/${entry} SYMBOLIC)
  endforeach()
  set(TUTTI_CUDA_VALUE 0)
  if(TUTTI_CUDA)
    set(TUTTI_CUDA_VALUE 1)
  endif()
  foreach(isa IN LISTS TUTTI_ISAS)
    if(NOT isa MATCHES "^(sse4|avx2|avx3)$")
      message(FATAL_ERROR "TUTTI_ISAS: expected some of sse4;avx2;avx3, got ${isa}")
    endif()
  endforeach()
  foreach(isa sse4 avx2 avx3)
    string(TOUPPER TUTTI_ISA_${isa} value)
    set(${value} 0)
    if(isa IN_LIST TUTTI_ISAS)
      set(${value} 1)
    endif()
  endforeach()
  configure_file(${PROJECT_SOURCE_DIR}/cmake/config.h.in ${root}/config.h @ONLY)
endfunction()

# Flags of our own targets only; nothing here reaches a user's code.
function(tutti_own_flags target)
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wpedantic -Wconversion -Wno-sign-conversion -ffp-contract=off
    $<$<CXX_COMPILER_ID:Clang,AppleClang>:-Wno-pass-failed>  # loops marked for vectors that clang leaves
    $<$<BOOL:${TUTTI_WERROR}>:-Werror>)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
  if(TUTTI_SANITIZE)
    target_compile_options(${target} PRIVATE
      -fsanitize=${TUTTI_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${TUTTI_SANITIZE})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # The instrumentation hides from g++ that std::optional guards its payload.
      target_compile_options(${target} PRIVATE -Wno-maybe-uninitialized)
    endif()
    if(TUTTI_SANITIZE MATCHES "undefined" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # With these checks g++ does not take the address of a function for a constant, as op records need.
      target_compile_options(${target} PRIVATE
        -fno-sanitize=null,nonnull-attribute,returns-nonnull-attribute)
    endif()
  endif()
endfunction()

# tutti_library(<part> [SOURCES file...] [KERNELS file...] [LINK target...])
# Makes the static library tutti_<part>, known as tutti::<part>. KERNELS are compiled with -O3 whatever
# the build type, except in Debug, MinSizeRel and sanitizer builds. A part without sources is an INTERFACE library.
function(tutti_library part)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;KERNELS;LINK")
  set(target tutti_${part})
  set(scope PUBLIC)
  if(arg_SOURCES OR arg_KERNELS)
    add_library(${target} STATIC ${arg_SOURCES} ${arg_KERNELS})
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    tutti_own_flags(${target})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # as clang does: calls within a file may be inlined
      target_compile_options(${target} PRIVATE -fno-semantic-interposition)
    endif()
    set(fast $<$<NOT:$<CONFIG:Debug,MinSizeRel>>:-O3>)
    if(TUTTI_SANITIZE)
      set(fast "")
    endif()
    # Lines, but no variables, most of which optimisation removes: they are a fifth of the time this takes.
    set(lines "")
    if(CMAKE_CXX_FLAGS_RELWITHDEBINFO MATCHES "-g( |$)")
      set(lines $<$<CONFIG:RelWithDebInfo>:-g1>)
    endif()
    set_source_files_properties(${arg_KERNELS} PROPERTIES
      COMPILE_OPTIONS "-fno-math-errno;-fno-trapping-math;${fast};${lines}")
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(tutti::${part} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${part})
  target_compile_features(${target} ${scope} cxx_std_20)
  target_include_directories(${target} ${scope}
    $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include> $<INSTALL_INTERFACE:include>)
  target_link_libraries(${target} ${scope} ${arg_LINK})
endfunction()

# tutti_program(<name> SOURCES file... [LINK target...]): an executable with our flags.
function(tutti_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK")
  add_executable(${name} ${arg_SOURCES})
  tutti_own_flags(${name})
  target_link_libraries(${name} PRIVATE tutti::tutti ${arg_LINK})
endfunction()
