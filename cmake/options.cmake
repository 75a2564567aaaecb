# Compiler flags of every target of this project, in one interface library.
add_library(mha2mla_options INTERFACE)
target_compile_options(mha2mla_options INTERFACE -fno-math-errno)
if(MHA2MLA_DEVELOPER)
  target_compile_options(mha2mla_options INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Werror)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 sees overlaps and overruns in every concatenation of std::string (GCC bugs 105329 and 105651), some of them
  # without being asked for warnings.
  target_compile_options(mha2mla_options INTERFACE
    -Wno-restrict -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread)
endif()
if(MHA2MLA_SANITIZE)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Instrumented, std::regex seems to use what it has not set (GCC bug 105562).
    target_compile_options(mha2mla_options INTERFACE -Wno-maybe-uninitialized)
  endif()
  target_compile_options(mha2mla_options INTERFACE -fsanitize=${MHA2MLA_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(mha2mla_options INTERFACE -fsanitize=${MHA2MLA_SANITIZE})
  if(MHA2MLA_SANITIZE MATCHES "undefined")
    target_compile_options(mha2mla_options INTERFACE -fno-sanitize-recover=undefined)
  endif()
endif()

find_program(CCACHE ccache)
if(CCACHE AND MHA2MLA_DEVELOPER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
