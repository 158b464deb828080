// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * A signal handler may fork while a hook of ours is in progress, and return to it in the child.
 * There the hook finds all as it was (struct ls_live), but its parent goes on with the recording:
 * what the child still writes must not get into it.
 */
#include "forks.h"

#include "local.h"
#include "peek.h"
#include "resolve.h"
#include "space.h"
#include "sys.h"

static void in_child(void) {
  if (LS_UNLIKELY(ls_tls.busy))
    ls_space_leave_to_parent();
}

typedef int (*fork_function)(void);

static int forked(fork_function real) {
  int child = real();
  if (!child)
    in_child();
  return child;
}

LS_EXPORT int fork(void);
int fork(void) {
  static void *cache;
  return forked((fork_function)ls_next_symbol_cached(&cache, "fork"));
}

LS_EXPORT int _Fork(void);
int _Fork(void) {
  static void *cache;
  fork_function real = (fork_function)ls_next_symbol_cached(&cache, "_Fork");
  return real ? forked(real) : fork(); /* an older C library */
}

void ls_forks_after_call(long number, long a) {
  uint64_t flags = (uint64_t)a;
  if (number == LS_NR_clone3 && !ls_peek(&flags, (uintptr_t)a, sizeof flags))
    return;
#ifdef __x86_64__
  if (number == 57 /* fork, which knows no flags */)
    in_child();
#endif
  if ((number == LS_NR_clone || number == LS_NR_clone3) && !(flags & 0x100 /* VM */))
    in_child();
}
