// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * How a process ends, and what is done right before: endings.c sees it coming, farewell.c has
 * its memory examined.
 */
#ifndef LEAKSCOPE_ENDINGS_H
#define LEAKSCOPE_ENDINGS_H

#include "base.h"
#include "clock.h"

#pragma GCC visibility push(hidden)

/* The process ends at once, without its exit handlers. */
void ls_process_exits(void);
/* Fatal signals. In a fork child that is the first of its namespace, none is met. */
void ls_farewell_install(void);
void ls_farewell_after_fork(void);
void ls_farewell_uninstall(void); /* they take their own course again */

bool ls_is_our_handler(void (*handler)(int));
/* Whether a second fatal signal came meanwhile: no more waiting. */
bool ls_is_dying_at_once(void);

#pragma GCC visibility pop

#endif
