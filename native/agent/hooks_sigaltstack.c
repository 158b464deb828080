// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Signal stacks: where they lie, for whoever scans for pointers.
 */
#include "base.h"
#include "hooks.h"
#include "resolve.h"

struct signal_stack {
  void *start;
  int flags;
  size_t bytes;
};

/* The kernel alone may know where a thread has its signal stack, and tells nobody but the thread.
 * Thread-local storage is where every scan for pointers looks. */
static __thread void *volatile signal_stack;

LS_EXPORT int sigaltstack(const struct signal_stack *set, struct signal_stack *ret);
int sigaltstack(const struct signal_stack *set, struct signal_stack *ret) {
  static void *cache;
  int (*real)(const struct signal_stack *, struct signal_stack *) =
      (__typeof__(real))ls_next_symbol_cached(&cache, "sigaltstack");
  /* Not read before the kernel has: the program may have given an address that is none. */
  int result = real(set, ret);
  if (result == 0 && set)
    signal_stack = set->flags & 2 /* SS_DISABLE */ ? NULL : set->start;
  return result;
}
