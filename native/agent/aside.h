// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The program unmaps, protects or replaces memory that it did not make.
 */
#ifndef LEAKSCOPE_ASIDE_H
#define LEAKSCOPE_ASIDE_H

#include "base.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

void ls_aside_touched(uintptr_t start, uint64_t length);
bool ls_aside_destroys(int advice); /* of madvise: what is there, now or in a child, or who may have it */

#pragma GCC visibility pop

#endif
