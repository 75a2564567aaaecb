# mha2mla_unity_build(TARGET ROOMS room... [ALONE file...]): for those who build once, the files of a room are compiled
# together, so that headers and templates, most of the work, are compiled once per room. Developers compile each file alone.
# Files of a room whose inner names collide are named as ALONE, the path as in add_library.
function(mha2mla_unity_build target)
  if(NOT MHA2MLA_UNITY)
    return()
  endif()
  cmake_parse_arguments(arg "" "" "ROOMS;ALONE" ${ARGN})
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    get_filename_component(room "${source}" DIRECTORY)
    if(room IN_LIST arg_ROOMS AND NOT source IN_LIST arg_ALONE)
      set_source_files_properties("${source}" PROPERTIES UNITY_GROUP "${room}")
    endif()
  endforeach()
endfunction()
