// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * What a part of the agent needs of all others, when it is tested alone. Included by one file
 * of a program.
 */
#ifndef LEAKSCOPE_TESTS_ALONE_H
#define LEAKSCOPE_TESTS_ALONE_H

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"

static struct ls_live live;
struct ls_live *ls_live = &live;
__thread struct ls_local ls_tls;

void ls_lock_wake(struct ls_lock *lock) { lock->awaited = 0; }
void ls_lock_contended(struct ls_lock *lock) {
  while (!ls_trylock(lock))
    sched_yield();
}

#define CHECK(condition)                                     \
  do {                                                       \
    if (!(condition)) {                                      \
      printf("%s:%d: %s\n", __func__, __LINE__, #condition); \
      exit(1);                                               \
    }                                                        \
  } while (0)

/* Marsaglia's xorshift: the same numbers in every run. */
static inline uint64_t draw_from(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}
static uint64_t draw_state = 88172645463325252u;
static inline uint64_t draw(void) { return draw_from(&draw_state); }

#endif
