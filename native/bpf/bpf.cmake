# SPDX-License-Identifier: Apache-2.0
# The helper that loads our BPF programs. Where clang, or headers that are new enough, are missing,
# leakscope is built without it, and the commands that want it say so.
set(bpf_folder ${CMAKE_CURRENT_LIST_DIR})
find_program(LEAKSCOPE_CLANG NAMES clang clang-14 clang-15 clang-16 clang-17 clang-18 clang-19)
set(bpf_why "")
if(NOT LEAKSCOPE_CLANG)
  set(bpf_why "there is no clang")
else()
  set(bpf_compile ${LEAKSCOPE_CLANG} -target bpf -mcpu=v2 -O2 -g0 -Wall -Wextra -Wno-sign-compare)
  if(EXISTS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}/asm/types.h)
    list(APPEND bpf_compile -isystem /usr/include/${CMAKE_LIBRARY_ARCHITECTURE})
  endif()
  execute_process(
    COMMAND ${bpf_compile} -c ${bpf_folder}/kmem.bpf.c -o ${CMAKE_CURRENT_BINARY_DIR}/tried.bpf.o
    RESULT_VARIABLE bpf_failed ERROR_VARIABLE bpf_said OUTPUT_QUIET)
  if(bpf_failed)
    set(bpf_why "${LEAKSCOPE_CLANG} makes no BPF programs here: ${bpf_said}")
  else()
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/tried.c
      "#include <linux/bpf.h>\n#include <linux/btf.h>\n#include <math.h>\n"
      "int main(int argc, char **argv) { struct bpf_prog_info info = {0}; (void)argv;"
      " return (int)(log(argc) + info.recursion_misses + BTF_KIND_ENUM64 + BPF_ENABLE_STATS); }\n")
    try_compile(bpf_static ${CMAKE_CURRENT_BINARY_DIR}/tried
      SOURCES ${CMAKE_CURRENT_BINARY_DIR}/tried.c
      LINK_OPTIONS -static LINK_LIBRARIES m)
    if(NOT bpf_static)
      set(bpf_why "the kernel's headers are old, or there is no static C library")
    endif()
  endif()
endif()

if(bpf_why)
  message(STATUS "leakscope-bpf is left out: ${bpf_why}")
else()
  enable_language(ASM)
  set(bpf_object ${CMAKE_CURRENT_BINARY_DIR}/kmem.bpf.o)
  add_custom_command(OUTPUT ${bpf_object}
    COMMAND ${bpf_compile} -c ${bpf_folder}/kmem.bpf.c -o ${bpf_object}
    DEPENDS ${bpf_folder}/kmem.bpf.c ${bpf_folder}/kmem.h ${bpf_folder}/helpers.h
      ${bpf_folder}/object.h
    VERBATIM)
  add_executable(leakscope-bpf
    ${bpf_folder}/kmem.c ${bpf_folder}/loader.c ${bpf_folder}/btf.c ${bpf_folder}/embed.S)
  set_source_files_properties(${bpf_folder}/embed.S PROPERTIES OBJECT_DEPENDS ${bpf_object})
  target_compile_options(leakscope-bpf PRIVATE
    $<$<COMPILE_LANGUAGE:C>:-std=gnu11> -O2 -g -Wall -Wextra
    $<$<COMPILE_LANGUAGE:ASM>:-Wa,-I${CMAKE_CURRENT_BINARY_DIR}>
    $<$<BOOL:${LEAKSCOPE_WERROR}>:-Werror>)
  target_link_libraries(leakscope-bpf PRIVATE m)
  target_link_options(leakscope-bpf PRIVATE -static -s) # for every libc, and for no other library
  install(TARGETS leakscope-bpf RUNTIME DESTINATION leakscope/_native)
endif()
