// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Mappings of the program, in the order of their addresses.
 */
#ifndef LEAKSCOPE_RANGES_H
#define LEAKSCOPE_RANGES_H

#include "thread.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

void ls_range_add(struct ls_thread *thread, uintptr_t start, uint64_t length, uint8_t kind,
                  uintptr_t pc, uintptr_t sp, uintptr_t fp);
void ls_range_remove(struct ls_thread *thread, uintptr_t start, uint64_t length);

#pragma GCC visibility pop

#endif
