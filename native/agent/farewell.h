// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The memory of a process is examined right before it ends.
 */
#ifndef LEAKSCOPE_FAREWELL_H
#define LEAKSCOPE_FAREWELL_H

#include "base.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

enum ls_farewell_kind {
  LS_FAREWELL = 0,        /* we wait for the examination */
  LS_FAREWELL_CROWD = 1,  /* we do not: other threads are at work and could not be held */
};

/* `stack_end` 0: this thread's stack is in use from here on. Does something once a process. */
void ls_farewell(uintptr_t stack_end, enum ls_farewell_kind kind);

/* Blocks what the program has a handler for, besides what it blocks itself: its handlers must
 * not run in the middle of the examination. Whatever else ends a program still does. */
void ls_block_handled(uint64_t *ret_before);

#pragma GCC visibility pop

#endif
