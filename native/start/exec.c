// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * leakscope-exec FD MASK DIRECTORY PATH ARGUMENT...: becomes the program PATH in DIRECTORY (empty:
 * where we are) with just the signals of MASK (hexadecimal) ignored and all others at their default,
 * which posix_spawn cannot. When the kernel refuses, its error number is written to FD, which the
 * program does not get.
 */
#include "start.h"

static uint64_t number_in(const char *text, unsigned base) {
  uint64_t value = 0;
  for (; *text; text++)
    value = value * base + (uint64_t)(*text <= '9' ? *text - '0' : *text - 'a' + 10);
  return value;
}

void start_c(uintptr_t *stack) {
  uintptr_t argc = stack[0];
  char **arguments = (char **)(stack + 1), **environment = arguments + argc + 1;
  if (argc < 6) {
    complain("leakscope-exec is started by leakscope alone\n");
    ls_exit_group(2);
  }
  int fd = (int)number_in(arguments[1], 10);
  uint64_t ignored = number_in(arguments[2], 16);
  for (int number = 1; number <= 64; number++) {
    struct ls_sigaction action = {0};
    action.handler = (void (*)(int))(uintptr_t)(ignored >> (number - 1) & 1);
    ls_rt_sigaction(number, &action, NULL);
  }
  LS_SYSCALL3(LS_NR_fcntl, fd, 2 /* F_SETFD */, 1 /* FD_CLOEXEC */);
  int error = arguments[3][0] ? -(int)LS_SYSCALL3(LS_NR_chdir, arguments[3], 0, 0) : 0;
  if (error == 0)
    error = -(int)LS_SYSCALL3(LS_NR_execve, arguments[4], arguments + 5, environment);
  ls_write(fd, &error, sizeof error);
  ls_exit_group(127);
}
