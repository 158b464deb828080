// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Programs that only start another one. They need no libc, so that nothing has touched what the
 * process inherited before they look, and one file serves every system.
 */
#ifndef LEAKSCOPE_START_H
#define LEAKSCOPE_START_H

#define LS_CALLS_ARE_FREE
#include "sys.h"

enum {
#ifdef __x86_64__
  LS_NR_execve = 59,
  LS_NR_fcntl = 72,
  LS_NR_chdir = 80,
#else
  LS_NR_execve = 221,
  LS_NR_fcntl = 25,
  LS_NR_chdir = 49,
#endif
};

/* `stack` is what the kernel left there: argc, argv, NULL, environment, NULL, auxiliary vector. */
__attribute__((noreturn)) void start_c(uintptr_t *stack);

#ifdef __x86_64__
__asm__(".text\n.globl _start\n_start:\nxor %ebp, %ebp\nmov %rsp, %rdi\nand $-16, %rsp\ncall start_c\n");
#else
__asm__(".text\n.globl _start\n_start:\nmov x29, #0\nmov x30, #0\nmov x0, sp\nbl start_c\n");
#endif

static inline size_t length_of(const char *text) {
  size_t length = 0;
  while (text[length])
    length++;
  return length;
}

static inline void complain(const char *text) { ls_write(2, text, length_of(text)); }

#endif
