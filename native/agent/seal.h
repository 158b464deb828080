// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * System call filters (seccomp): seen as the program installs them, or inherited. From then on
 * the agent makes a system call only where every filter allows it, which it finds out by running
 * the filters itself, as the kernel does.
 */
#ifndef LEAKSCOPE_SEAL_H
#define LEAKSCOPE_SEAL_H

#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

/* First of all in a process image; once. False: it began under a filter of which nothing is known,
 * and nothing is to be done. True: calls are free, or the filter is known. */
bool ls_seal_begin(void);

/* The program installs a filter (a struct sock_fprog). True: ls_seal_settle() is to be told what
 * the kernel said. */
bool ls_seal_announce(const void *program);
void ls_seal_settle(bool installed);

/* No call at all from here on: strict mode, or a filter may come that nobody will see. */
void ls_seal_deny_all(bool is_strict);

/* In a fork child: leave the filters for the program that it may become. */
void ls_seal_hand_over(void);

/* Whether the calls for the end of the process are allowed. */
bool ls_seal_ends_as_usual(void);

#pragma GCC visibility pop

#endif
