# Writes OUTPUT, a header whose MHA2MLA_COMMIT is the commit of SOURCE, with "+" if files were changed since; "" outside a repository.
execute_process(COMMAND git -C ${SOURCE} rev-parse --show-toplevel OUTPUT_VARIABLE top OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
set(commit "")
if(top STREQUAL SOURCE)  # sources unpacked inside another repository are not of its commit
  execute_process(COMMAND git -C ${SOURCE} describe --always --abbrev=12 --exclude=* --dirty=+ OUTPUT_VARIABLE commit
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#pragma once\n#define MHA2MLA_COMMIT \"${commit}\"\n" @ONLY)
