// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Where the recording's file lies in memory, and how that grows.
 */
#ifndef LEAKSCOPE_SPACE_H
#define LEAKSCOPE_SPACE_H

#include "process.h"

/* In the order of the header's areas. */
enum ls_table {
  LS_MODULES,
  LS_STRINGS,
  LS_NODES,
  LS_SITES,
  LS_RANGES,
  LS_CHUNKS,
  LS_TABLES,
};

/* Map the first pages of each part of the file as `plan` lays them out; NULL: no room. */
struct lsr_header *ls_space_map(struct ls_live *live, int fd, const struct lsr_header *plan);
/* The same where the whole file is mapped at `base`, to its last byte: nothing will be mapped. */
struct lsr_header *ls_space_adopt(struct ls_live *live, uint8_t *base,
                                  const struct lsr_header *plan);
/* Unmap all that this process, or the one it was forked from, has mapped of a recording. */
void ls_space_unmap(void);
/* In a fork child with a hook to finish: what that writes is for nobody to read. */
void ls_space_leave_to_parent(void);
/* Have the kernel promise the pages of what is mapped; false when it cannot. The grow lock is
 * held, or no other thread is there yet. */
bool ls_space_back(struct lsr_header *header, void *start, uint64_t offset, uint64_t bytes);

/* Whether some of it lies there. */
bool ls_space_holds(uintptr_t start, uintptr_t end);

/* Growth. False or NULL when there is no room. */
bool ls_stripe_back(uint32_t stripe);
bool ls_area_grow(struct lsr_area *area, uint64_t needed);
uint8_t *ls_heap_take(uint64_t bytes, uint64_t *ret_offset);
void ls_heap_release(uint8_t *at, uint64_t offset, uint64_t bytes);
void ls_unlock_own(void); /* the program locked all of its memory: not ours */

void ls_recording_reserve(void); /* room for what comes when no more can be asked for */

#endif
