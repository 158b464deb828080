// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The memory functions that the compiler may call. We link to no libc, so they are ours
 * and hidden: the host's versions may be intercepted or not yet relocated.
 */
#ifndef LEAKSCOPE_STR_H
#define LEAKSCOPE_STR_H

#include <stddef.h>

#pragma GCC visibility push(hidden)

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

#pragma GCC visibility pop

#endif
