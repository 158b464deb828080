// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The one libc function the agent may call, and only while the program starts or a hook
 * is used for the first time: the loader's own list of objects, in load order.
 */
#ifndef LEAKSCOPE_LOADER_H
#define LEAKSCOPE_LOADER_H

#include <elf.h>
#include <stddef.h>

struct dl_info { /* the beginning of struct dl_phdr_info, the same in glibc and musl */
  Elf64_Addr bias;
  const char *name;
  const Elf64_Phdr *headers;
  Elf64_Half header_count;
};

extern int dl_iterate_phdr(int (*each)(struct dl_info *, size_t, void *), void *context)
    __attribute__((weak, visibility("default")));

#endif
