# What `cmake --install` and the packages install, in components: `program` with its documents, `development` with the library, its headers
# and a package for find_package(mha2mla), and `wheel`, which is all that a Python wheel holds (pyproject.toml).
include(CMakePackageConfigHelpers)
include(cmake/licences.cmake)

set(document_directory ${CMAKE_INSTALL_DATADIR}/doc/mha2mla)
install(TARGETS mha2mla_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT program)
install(DIRECTORY ${PROJECT_BINARY_DIR}/share/man1 DESTINATION ${CMAKE_INSTALL_MANDIR} COMPONENT program)
install(FILES ${PROJECT_BINARY_DIR}/share/bash/mha2mla DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
  COMPONENT program)
install(FILES ${PROJECT_BINARY_DIR}/share/zsh/_mha2mla DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions COMPONENT program)
install(FILES ${PROJECT_BINARY_DIR}/share/fish/mha2mla.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d
  COMPONENT program)
install(DIRECTORY docs examples DESTINATION ${document_directory} COMPONENT program PATTERN "__pycache__" EXCLUDE)
install(FILES README.md DESTINATION ${document_directory} COMPONENT program)
install(DIRECTORY ${licence_directory} DESTINATION ${document_directory} COMPONENT program)

install(TARGETS mha2mla EXPORT mha2mla-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(DIRECTORY include/mha2mla DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(EXPORT mha2mla-targets NAMESPACE mha2mla:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mha2mla COMPONENT development)
configure_package_config_file(cmake/mha2mla-config.cmake.in ${PROJECT_BINARY_DIR}/mha2mla-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mha2mla)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/mha2mla-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/mha2mla-config.cmake ${PROJECT_BINARY_DIR}/mha2mla-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mha2mla COMPONENT development)

if(SKBUILD)
  install(TARGETS mha2mla_program RUNTIME DESTINATION ${SKBUILD_SCRIPTS_DIR} COMPONENT wheel)
  install(FILES src/layout/transformers/configuration_mha2mla.py src/layout/transformers/modeling_mha2mla.py
    DESTINATION mha2mla COMPONENT wheel)
  install(DIRECTORY ${licence_directory}/ DESTINATION ${SKBUILD_METADATA_DIR}/licenses COMPONENT wheel)
endif()
