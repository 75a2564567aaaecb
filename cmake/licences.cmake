# The licences of everything whose code becomes part of the program, as Debian's packages state them, in one directory: of headers always,
# of libraries where they are linked statically. On other systems what is not found is left out; packages to give away are made on Debian.
set(licence_directory ${PROJECT_BINARY_DIR}/licences)
set(packages libeigen3-dev nlohmann-json3-dev libcli11-dev libspdlog-dev libfmt-dev libhwy-dev)
if(MHA2MLA_PORTABLE)
  string(REGEX MATCH "^[0-9]+" gcc ${CMAKE_CXX_COMPILER_VERSION})
  list(APPEND packages libopenblas-pthread-dev liblapacke-dev libpcre2-dev libutf8proc-dev zlib1g-dev libzstd-dev libxxhash-dev
    libzip-dev libc6-dev libstdc++-${gcc}-dev libgcc-${gcc}-dev libgfortran-${gcc}-dev)
endif()

file(REMOVE_RECURSE ${licence_directory})
file(MAKE_DIRECTORY ${licence_directory})
foreach(package IN LISTS packages)
  if(EXISTS /usr/share/doc/${package}/copyright)
    file(COPY_FILE /usr/share/doc/${package}/copyright ${licence_directory}/${package}.txt)
  elseif(MHA2MLA_PORTABLE)
    message(FATAL_ERROR "no licence of ${package}, which becomes part of the program; tools/package.sh installs what is needed")
  endif()
endforeach()
# The texts that these name as files of every Debian system.
foreach(name Apache-2.0 GPL-3 LGPL-2.1 LGPL-3 MPL-2.0)
  if(EXISTS /usr/share/common-licenses/${name})
    file(COPY_FILE /usr/share/common-licenses/${name} ${licence_directory}/${name}.txt)
  endif()
endforeach()
# That of the prompts is the comment at the beginning of their file.
file(STRINGS ${PROJECT_SOURCE_DIR}/src/evaluate/longbench_prompts.hpp lines REGEX "^//")
list(TRANSFORM lines REPLACE "^// ?" "")
list(JOIN lines "\n" text)
file(WRITE ${licence_directory}/LongBench.txt "${text}")
