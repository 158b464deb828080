// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * How far a thread's own stack reaches.
 */
#ifndef LEAKSCOPE_BOUNDS_H
#define LEAKSCOPE_BOUNDS_H

#include "thread.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

void ls_stack_bounds(struct ls_thread *thread, uintptr_t sp);

/* Whether `sp`, below what is known of the thread's own stack, lies in it; then more is known.
 * `end_sp`, `end_pc`: the outermost function of the chain of calls that begins there, 0 when
 * it is not known for certain. */
bool ls_stack_reaches(struct ls_thread *thread, uintptr_t sp, uintptr_t end_sp, uintptr_t end_pc);
/* The same where the kernel may not be asked what is mapped. */
bool ls_stack_reaches_unasked(struct ls_thread *thread, uintptr_t sp);

#pragma GCC visibility pop

#endif
