// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * What does not depend on where the recording's memory is: its layout, its beginning, its modules.
 */
#ifndef LEAKSCOPE_AGENT_RECORDING_H
#define LEAKSCOPE_AGENT_RECORDING_H

#include "process.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

intptr_t ls_module_bias(uint16_t index_plus_1);

/* Say in `header` where everything goes. `shift` halves the tables until the file's length, nearly
 * all of it a hole, is allowed. Returns that length. */
uint64_t ls_recording_lay_out(struct lsr_header *header, unsigned shift);

/* Fill the header that is in place, in zeroed memory, and take the first pages of the tables. Up to
 * the shards it is that of `plan`; what only the door knows (exe, boot_id) it has put there before.
 * False: no memory. */
bool ls_recording_begin(struct ls_live *live, struct lsr_header *header,
                        const struct lsr_header *plan);

struct ls_module_info;
uint16_t ls_recording_add_module(const struct ls_module_info *info); /* index + 1, 0: full */
void ls_recording_module_gone(uint16_t index_plus_1);

#pragma GCC visibility pop

#endif
