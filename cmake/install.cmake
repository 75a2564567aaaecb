# `cmake --install` installs the program, its man pages and completions, the library, its headers and a package for find_package(mha2mla).
include(CMakePackageConfigHelpers)

install(TARGETS mha2mla EXPORT mha2mla-targets)
install(TARGETS mha2mla_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${PROJECT_BINARY_DIR}/share/man1 DESTINATION ${CMAKE_INSTALL_MANDIR})
install(FILES ${PROJECT_BINARY_DIR}/share/bash/mha2mla DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${PROJECT_BINARY_DIR}/share/zsh/_mha2mla DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${PROJECT_BINARY_DIR}/share/fish/mha2mla.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(DIRECTORY include/mha2mla DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT mha2mla-targets NAMESPACE mha2mla:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mha2mla)
configure_package_config_file(cmake/mha2mla-config.cmake.in ${PROJECT_BINARY_DIR}/mha2mla-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mha2mla)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/mha2mla-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/mha2mla-config.cmake ${PROJECT_BINARY_DIR}/mha2mla-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mha2mla)
