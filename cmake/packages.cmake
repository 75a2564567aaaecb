# `cpack` makes Debian packages of an ordinary release build, whose libraries are the distribution's: mha2mla, the program, and
# libmha2mla-dev, the library. tools/package.sh makes these, the wheel and the archive.
set(CPACK_GENERATOR DEB)
set(CPACK_COMPONENTS_ALL program development)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/debian_documents.cmake)
set(CPACK_VERBATIM_VARIABLES ON)

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "The developers of mha2mla")
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)

set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME mha2mla)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PROGRAM_DESCRIPTION "Turns trained Hugging Face checkpoints with MHA or GQA attention into
Multi-head Latent Attention, whose KV cache is a small latent vector, and
measures what that costs. The output loads in transformers and llama.cpp.")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libmha2mla-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "libeigen3-dev, nlohmann-json3-dev, libopenblas-dev, liblapacke-dev, libpcre2-dev, \
libutf8proc-dev, libzip-dev, zlib1g-dev, libzstd-dev, libxxhash-dev, libhwy-dev, pkg-config")
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION "The C++ library that the program mha2mla is made of, linked statically:
its headers and a CMake package for find_package(mha2mla).")
include(CPack)
