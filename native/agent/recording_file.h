// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The parts of a recording's creation that do not depend on where its memory is.
 */
#ifndef LEAKSCOPE_RECORDING_FILE_H
#define LEAKSCOPE_RECORDING_FILE_H

#include "agent.h"

/* Say in `header` where everything goes. `shift` halves the tables until the file's length, nearly
 * all of it a hole, is allowed. Returns that length. */
uint64_t ls_recording_lay_out(struct lsr_header *header, unsigned shift);

/* Fill the header that is in place, in zeroed memory, and take the first pages of the tables. Up to
 * the shards it is that of `plan`; what only the door knows (exe, boot_id) it has put there before.
 * False: no memory. */
bool ls_recording_begin(struct ls_live *live, struct lsr_header *header,
                        const struct lsr_header *plan);

#endif
