// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Forks in the middle of a hook.
 */
#ifndef LEAKSCOPE_FORKS_H
#define LEAKSCOPE_FORKS_H

#pragma GCC visibility push(hidden)

/* A system call returned 0; `a` is its first argument. */
void ls_forks_after_call(long number, long a);

#pragma GCC visibility pop

#endif
