// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * What a site held in the course of time.
 */
#ifndef LEAKSCOPE_TIMELINE_H
#define LEAKSCOPE_TIMELINE_H

#include "process.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

void ls_timeline_init(struct ls_live *live);
LS_COLD void ls_timeline_row(uint32_t tick);

#pragma GCC visibility pop

#endif
