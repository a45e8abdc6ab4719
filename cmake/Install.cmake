# Install rules: libraries, headers and the package files for find_package(tutti).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS tutti_core tutti_autograd tutti_nn tutti_func tutti_all
  EXPORT tuttiTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# core/kernels is internal.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/core ${PROJECT_SOURCE_DIR}/autograd
  ${PROJECT_SOURCE_DIR}/nn ${PROJECT_SOURCE_DIR}/func
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tutti
  FILES_MATCHING PATTERN "*.h" PATTERN "*.inc" PATTERN "kernels" EXCLUDE)
install(FILES ${PROJECT_SOURCE_DIR}/tutti.h ${PROJECT_BINARY_DIR}/include/tutti/config.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tutti)

set(tutti_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tutti)
install(EXPORT tuttiTargets NAMESPACE tutti:: DESTINATION ${tutti_package_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/tuttiConfig.cmake.in
  ${PROJECT_BINARY_DIR}/tuttiConfig.cmake INSTALL_DESTINATION ${tutti_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tuttiConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tuttiConfig.cmake ${PROJECT_BINARY_DIR}/tuttiConfigVersion.cmake
  DESTINATION ${tutti_package_dir})
