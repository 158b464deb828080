// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * How a process ends, and what is done right before: endings.c sees it coming, farewell.c has
 * its memory examined.
 */
#ifndef LEAKSCOPE_ENDINGS_H
#define LEAKSCOPE_ENDINGS_H

#include "agent.h"
#include "clock.h"

#pragma GCC visibility push(hidden)

enum ls_farewell_kind {
  LS_FAREWELL = 0,        /* we wait for the examination */
  LS_FAREWELL_CROWD = 1,  /* we do not: other threads are at work and could not be held */
};

/* `stack_end` 0: this thread's stack is in use from here on. Does something once a process. */
void ls_farewell(uintptr_t stack_end, enum ls_farewell_kind kind);

/* The process ends at once, without its exit handlers. */
void ls_process_exits(void);
/* ls_process_ends with that kind. */
void ls_process_ends_as(enum ls_farewell_kind kind);

bool ls_is_our_handler(void (*handler)(int));
/* Blocks what the program has a handler for, besides what it blocks itself: its handlers must
 * not run in the middle of the examination. Whatever else ends a program still does. */
void ls_block_handled(uint64_t *ret_before);
/* Whether a second fatal signal came meanwhile: no more waiting. */
bool ls_is_dying_at_once(void);

#pragma GCC visibility pop

#endif
