# Helpers for programs that run on the executor.
set(CUDASIM_LIBRARY_DIR ${PROJECT_BINARY_DIR}/cudasim CACHE INTERNAL "where the stand-ins lie; used in other folders, too")

# tutti_cudasim_program(<name> ARCH nn... SOURCES file...): a program built by nvcc with what the executor needs: PTX (not SASS),
# not compressed, with line numbers, the runtime as a shared library.
function(tutti_cudasim_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "ARCH;SOURCES")
  set(flags -std=c++20 -O2 -lineinfo -no-compress -cudart shared)
  foreach(arch ${arg_ARCH})
    list(APPEND flags -gencode arch=compute_${arch},code=compute_${arch})
  endforeach()
  set(objects)
  foreach(source ${arg_SOURCES})
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.dir/${source}.o)
    get_filename_component(folder ${object} DIRECTORY)
    file(MAKE_DIRECTORY ${folder})
    add_custom_command(OUTPUT ${object}
      COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} ${flags} -MD -MF ${object}.d -x cu -c ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${object}
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${source} DEPFILE ${object}.d VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  set(program ${CMAKE_CURRENT_BINARY_DIR}/bin/${name})
  file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/bin)
  add_custom_command(OUTPUT ${program}
    COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -cudart shared ${objects} -o ${program} -lcublas
    DEPENDS ${objects} VERBATIM)
  add_custom_target(${name} ALL DEPENDS ${program})
  set_property(TARGET ${name} PROPERTY CUDASIM_PROGRAM ${program})
endfunction()

# tutti_cudasim_test(<test> PROGRAM target [ARGS arg...] [STREAMS lazy|eager|random] [ARCH nn] [ENVIRONMENT VAR=value...]
#   [LABELS label...])
# Runs a program (of tutti_cudasim_program or an executable) on the executor. Label: cuda.
function(tutti_cudasim_test test)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "PROGRAM;STREAMS;ARCH" "ARGS;ENVIRONMENT;LABELS")
  get_property(program TARGET ${arg_PROGRAM} PROPERTY CUDASIM_PROGRAM)
  if(NOT program)
    set(program $<TARGET_FILE:${arg_PROGRAM}>)
  endif()
  if(NOT arg_STREAMS)
    set(arg_STREAMS lazy)
  endif()
  if(arg_ARCH)  # which PTX of the program, if it has several
    list(APPEND arg_ENVIRONMENT CUDASIM_ARCH=${arg_ARCH})
  endif()
  add_test(NAME ${test} COMMAND ${program} ${arg_ARGS})
  set_tests_properties(${test} PROPERTIES TIMEOUT 600 LABELS "cuda;${arg_LABELS}"
    ENVIRONMENT "LD_LIBRARY_PATH=${CUDASIM_LIBRARY_DIR};CUDASIM_STREAMS=${arg_STREAMS};${arg_ENVIRONMENT}")
endfunction()

# tutti_cudasim_options(<target> ARCH nn): the same flags for a target that CMake compiles as CUDA.
function(tutti_cudasim_options target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "ARCH" "")
  set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES ${arg_ARCH}-virtual CUDA_RUNTIME_LIBRARY Shared)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo -no-compress>)
endfunction()
