// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Opening files in the middle of somebody else's program. A descriptor takes the lowest free
 * number, so another thread could find its own number taken, close ours or be closed by us,
 * and a child could inherit it.
 */
#ifndef LEAKSCOPE_APART_H
#define LEAKSCOPE_APART_H

#pragma GCC visibility push(hidden)

/* Run `work`, which may open files and closes them again, so that no code of the program can
 * meet them: with all signals blocked where this is the only thread, otherwise, and where that
 * fails, in a thread that has a descriptor table of its own and ends with it. `work` must not
 * depend on which thread it is, may be run twice, and gets 48 KiB of stack.
 *
 * Returns what `work` returns, which is a negative error number on failure; -EAGAIN when it
 * was not run, because the process may have no more threads. */
long ls_apart(long (*work)(void *argument), void *argument);

#pragma GCC visibility pop

#endif
