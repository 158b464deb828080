// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Looking at memory that may be gone, unreadable or never touched: the kernel is asked, so
 * nothing of this can fault.
 */
#ifndef LEAKSCOPE_PEEK_H
#define LEAKSCOPE_PEEK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

/* Copy bytes that may vanish while we look (another thread in dlclose, a file cut short). */
bool ls_peek(void *to, uintptr_t from, size_t bytes);

/* A string without its end; at most `room` bytes. */
size_t ls_peek_string(char *to, uintptr_t from, size_t room);

/* Copy `bytes` (at most 64) from each of `count` (at most LS_PEEK_MANY) places, `stride` bytes
 * apart in `to`. Returns how many were copied before the first that could not be. */
#define LS_PEEK_MANY 64u
size_t ls_peek_many(void *to, size_t stride, const uintptr_t *from, size_t bytes, size_t count);

/* The end of the readable pages that begin at `low`; `high` when there is no gap before it. */
uintptr_t ls_peek_run(uintptr_t low, uintptr_t high);

#pragma GCC visibility pop

#endif
