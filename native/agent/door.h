// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * How the agent comes into a process, which is the one thing that its two builds differ in: the
 * loader preloads it (door_preload.c), or somebody maps it into a running process by hand and
 * hands over what it needs (door_inject.c). Each door defines what is declared here.
 */
#ifndef LEAKSCOPE_DOOR_H
#define LEAKSCOPE_DOOR_H

#include "farewell.h"
#include "process.h"
#include "real.h"

#pragma GCC visibility push(hidden)

extern struct ls_live ls_no_process; /* what ls_live is until the first event */
extern uint32_t ls_started_pid;      /* copied by fork: tells a child that its parent was traced */

void ls_bootstrap(void);
void ls_process_ends(void);
void ls_process_thread_ends(void); /* by a system call, without its C library */
/* ls_process_ends with that kind. */
void ls_process_ends_as(enum ls_farewell_kind kind);

/* The door may have changed its mind: the process is dormant, or was named by a file. */
LS_COLD void ls_door_look(struct ls_live *live);

/* Whoever attached us has given no sign of life for long. */
bool ls_door_is_left(void);

#ifdef LS_INJECT
/* End recording, and unmap what is large. */
void ls_door_unmap(void);
#endif

#pragma GCC visibility pop

#endif
