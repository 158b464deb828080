// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Sampling by bytes: which allocations are recorded, and what they stand for.
 */
#ifndef LEAKSCOPE_SAMPLE_H
#define LEAKSCOPE_SAMPLE_H

#include "thread.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

#define LS_FILTER_BITS 14u      /* sampled mode: counting filter over sampled addresses */
#define LS_FILTER_SLOTS (1u << LS_FILTER_BITS)

void ls_sample_next(struct ls_thread *thread, uint64_t mean);
double ls_sample_weight(uint64_t size, uint64_t mean);
extern uint8_t ls_sample_filter[LS_FILTER_SLOTS];
extern uint64_t ls_sample_hash;
void ls_sample_start(void);

#pragma GCC visibility pop

#endif
