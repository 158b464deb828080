// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Programs that follow this one: kept under the agent, and listed for whoever reads the run.
 */
#ifndef LEAKSCOPE_EXEC_H
#define LEAKSCOPE_EXEC_H

#include "leakscope/recording.h"

#pragma GCC visibility push(hidden)

/* Keep a variable of the environment that the agent was started with, if it is one of ours. */
void ls_exec_save(const char *variable);

/* Open the list of the run and say that the agent came up in this program. */
void ls_exec_begin(void);

/* The program that runs, as the kernel named it when the agent came up. */
const char *ls_exec_program(void);

/* Add to the list; NULL when there is none. `path` may be NULL. */
struct lsr_start *ls_exec_note(enum lsr_start_kind kind, uint32_t pid, const char *path);

/* The list is there no more. */
void ls_exec_end(void);

/* A child is about to be made that runs in this process's memory. */
void ls_exec_memory_is_shared(void);

#pragma GCC visibility pop

#endif
