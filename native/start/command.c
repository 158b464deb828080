// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The command `leakscope`. Python ignores SIGPIPE and SIGXFSZ from its first moment on, and nobody
 * can ask it afterwards what they were before; so this asks, tells it in LEAKSCOPE_IGNORED, as
 * "PID:MASK" in hexadecimal, and becomes `leakscope-python`, which lies beside it.
 */
#include "start.h"

#define PATH 4096
#define MOST_VARIABLES 65536

static const char beside[] = "leakscope-python";
static char path[PATH + sizeof beside];
static char told[] = "LEAKSCOPE_IGNORED=01234567:0123456789abcdef";
static char *variables[MOST_VARIABLES + 2];

static void put_hex(char *out, int digits, uint64_t value) {
  for (int i = 0; i < digits; i++)
    out[i] = "0123456789abcdef"[value >> 4 * (digits - 1 - i) & 15];
}

static uint64_t ignored_signals(void) {
  uint64_t mask = 0;
  for (int number = 1; number <= 64; number++) {
    struct ls_sigaction now = {0};
    if (ls_rt_sigaction(number, NULL, &now) == 0 && (uintptr_t)now.handler == 1 /* SIG_IGN */)
      mask |= 1ull << (number - 1);
  }
  return mask;
}

/* Where this program is, or how it was called where there is no /proc. */
static long own_path(const uintptr_t *auxiliary) {
  long length = ls_readlink("/proc/self/exe", path, PATH);
  if (length > 0)
    return length;
  for (; auxiliary[0]; auxiliary += 2) {
    if (auxiliary[0] != 31 /* AT_EXECFN */)
      continue;
    const char *name = (const char *)auxiliary[1];
    size_t size = length_of(name);
    for (size_t i = 0; i < size && size < PATH; i++)
      path[i] = name[i];
    return size < PATH ? (long)size : 0;
  }
  return 0;
}

void start_c(uintptr_t *stack) {
  uintptr_t argc = stack[0];
  char **arguments = (char **)(stack + 1), **environment = arguments + argc + 1;
  size_t count = 0, kept = 0;
  for (; environment[count] && count < MOST_VARIABLES; count++) {
    size_t same = 0;
    while (same < sizeof "LEAKSCOPE_IGNORED=" - 1 && environment[count][same] == told[same])
      same++;
    if (same < sizeof "LEAKSCOPE_IGNORED=" - 1)
      variables[kept++] = environment[count];
  }
  const uintptr_t *auxiliary = (const uintptr_t *)environment;
  while (*auxiliary++)
    continue;
  put_hex(told + sizeof "LEAKSCOPE_IGNORED=" - 1, 8, (uint32_t)ls_getpid());
  put_hex(told + sizeof "LEAKSCOPE_IGNORED=01234567:" - 1, 16, ignored_signals());
  variables[kept++] = told;
  variables[kept] = NULL;
  long end = own_path(auxiliary);
  while (end > 0 && path[end - 1] != '/')
    end--;
  for (size_t i = 0; i < sizeof beside; i++)
    path[(size_t)end + i] = beside[i];
  LS_SYSCALL3(LS_NR_execve, path, arguments, variables);
  complain("leakscope: ");
  complain(path);
  complain(" cannot be started, which belongs to it: install leakscope again\n");
  ls_exit_group(2);
}
