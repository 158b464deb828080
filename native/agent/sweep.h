// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * A bound for the recordings in a directory that nobody harvests.
 */
#ifndef LEAKSCOPE_SWEEP_H
#define LEAKSCOPE_SWEEP_H

#include "base.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

/* Inode of the pid namespace, 0: unknown. */
uint64_t ls_pid_namespace(void);
/* Now and then, remove the oldest recordings of ended processes when there are too many. */
void ls_sweep(void);

#pragma GCC visibility pop

#endif
