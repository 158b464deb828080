// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * How much the recording may take.
 */
#ifndef LEAKSCOPE_BUDGET_H
#define LEAKSCOPE_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

/* Ask what limits this process. Once, when it is loaded. */
void ls_budget_read(void);
/* Bytes that the recording in the open file may take; 0: no bound. */
uint64_t ls_budget(int fd, bool forked);

#pragma GCC visibility pop

#endif
