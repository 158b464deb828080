// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Memory of our own, known to whoever scans for pointers.
 */
#ifndef LEAKSCOPE_PRIVATE_H
#define LEAKSCOPE_PRIVATE_H

#include "base.h"
#include "leakscope/recording.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

/* NULL when there is none. */
void *ls_private(size_t bytes);
void ls_private_adopt(void *start, size_t bytes); /* from here on nothing is mapped for it */
void ls_private_note(const void *start, size_t bytes);
void ls_private_tell(struct lsr_header *header);
bool ls_private_holds(uintptr_t start, uintptr_t end); /* some of it */
void ls_private_unlock(void);

void ls_private_reserve(void); /* room for what comes when no more can be asked for */

#pragma GCC visibility pop

#endif
