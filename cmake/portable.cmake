# MHA2MLA_PORTABLE: the program is linked statically, with the C library too, so that it runs on every Linux of its processor family
# since 2021, whatever is installed there. tools/portable_libraries.sh makes the libraries that Debian has only as shared ones.
set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
set(CMAKE_EXE_LINKER_FLAGS "${CMAKE_EXE_LINKER_FLAGS} -static")

# mha2mla_complete_static_libraries() names what libopenblas.a itself needs, which its shared library knows.
function(mha2mla_complete_static_libraries)
  set(fortran gfortran)
  if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
    list(APPEND fortran quadmath)
  endif()
  set_property(TARGET PkgConfig::openblas APPEND PROPERTY INTERFACE_LINK_LIBRARIES ${fortran} m)
  set_property(TARGET PkgConfig::lapacke APPEND PROPERTY INTERFACE_LINK_LIBRARIES PkgConfig::openblas)
  set_property(TARGET PkgConfig::libzip APPEND PROPERTY INTERFACE_LINK_LIBRARIES PkgConfig::zlib)
endfunction()
