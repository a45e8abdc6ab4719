# Runs PROGRAM ARG and demands the exit status RC and a line that matches TEXT.
execute_process(COMMAND ${PROGRAM} ${ARG} RESULT_VARIABLE rc OUTPUT_VARIABLE out ERROR_VARIABLE out TIMEOUT 120)
if(NOT rc STREQUAL RC)
  message(FATAL_ERROR "exit status ${rc}, expected ${RC}:\n${out}")
endif()
if(NOT out MATCHES "${TEXT}")
  message(FATAL_ERROR "no '${TEXT}' in:\n${out}")
endif()
