// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The rare half of the counters: backing them with file space, partial unmapping, losses.
 */
#include "counters.h"
#include "stack.h"
#include "str.h"

#define COMMON_STRIPE LSR_EXCLUSIVE_STRIPES /* has no owner */
#define MUCH 4096u      /* uses of a chunk by a stripe that are worth counters of its own */
#define SPARE_CHUNKS 40u /* so many may be given for much use, and one for each chunk of sites */

uint8_t ls_counters_backed[LSR_STRIPES][CHUNKS];
static uint16_t uses[LSR_STRIPES][CHUNKS];
static uint8_t stripes_with[CHUNKS]; /* how many stripes have counters of a chunk's sites */
static uint32_t given;

void ls_counters_reset(void) {
  memset(ls_counters_backed, 0, sizeof ls_counters_backed);
  memset(uses, 0, sizeof uses);
  memset(stripes_with, 0, sizeof stripes_with);
  given = 0;
}

/* Under grow_lock. */
static bool back(struct lsr_header *header, uint32_t stripe, uint32_t chunk) {
  if (ls_counters_backed[stripe][chunk])
    return true;
  uint64_t bytes = CHUNK_SITES * sizeof(struct lsr_counter);
  if (!ls_recording_back(header->counters.offset + stripe * header->stripe_bytes +
                             LSR_STRIPE_HEAD_BYTES + chunk * bytes,
                         bytes))
    return false;
  __atomic_store_n(&ls_counters_backed[stripe][chunk], 1, __ATOMIC_RELEASE);
  stripes_with[chunk]++;
  if (header->stripe_used[stripe] < (chunk + 1) * CHUNK_SITES)
    header->stripe_used[stripe] = (chunk + 1) * CHUNK_SITES;
  return true;
}

struct lsr_counter *ls_counter_elsewhere(struct ls_thread *thread, uint32_t site) {
  struct ls_live *live = ls_live;
  struct lsr_header *header = live->header;
  uint32_t stripe = thread->stripe, chunk = site / CHUNK_SITES;
  bool much = uses[stripe][chunk] >= MUCH;
  uses[stripe][chunk] += !much;
  bool own = false, common = ls_counter_backed(COMMON_STRIPE, site);
  if (LS_UNLIKELY(much || !common)) {
    ls_lock(&live->grow_lock);
    /* While there is one thread nothing is shared. */
    bool first = !stripes_with[chunk] && !(live->stripes_backed & (live->stripes_backed - 1));
    if (first || ls_counter_backed(stripe, site) ||
        (much && given < header->site_count / CHUNK_SITES + SPARE_CHUNKS)) {
      own = back(header, stripe, chunk);
      given += own && stripes_with[chunk] > 1;
    }
    common = own || back(header, COMMON_STRIPE, chunk);
    if (much && !own)
      uses[stripe][chunk] = 0; /* ask again later */
    ls_unlock(&live->grow_lock);
  }
  if (own) {
    if (much)
      ls_stack_forget(thread); /* kept stacks know the common counters */
    return (struct lsr_counter *)thread->counters + site;
  }
  if (common)
    return (struct lsr_counter *)(live->counters + COMMON_STRIPE * header->stripe_bytes +
                                  LSR_STRIPE_HEAD_BYTES) +
           site;
  ls_count_drop(thread, LSR_DROP_NO_SPACE);
  return NULL;
}

void ls_sample_weigh(uint64_t size, uint64_t *ret_bytes, uint64_t *ret_weight) {
  double weight = ls_sample_weight(size, ls_config.sample_bytes);
  *ret_bytes = (uint64_t)((double)size * weight + 0.5);
  *ret_weight = (uint64_t)(weight * 1024.0 + 0.5);
}

void ls_count_resize(struct ls_thread *thread, uint32_t site, uint64_t freed, bool split) {
  struct lsr_counter *counter = ls_counter_of(thread, site);
  if (!counter)
    return;
  bool shared = ls_counter_is_shared(thread, counter);
  ADD(counter, freed_bytes, freed, shared);
  if (split)
    ADD(counter, allocs, 1, shared);
}

void ls_count_drop(struct ls_thread *thread, enum lsr_drop reason) {
  __atomic_fetch_add(&thread->head->drops[reason], 1, __ATOMIC_RELAXED);
}

void ls_count_drop_anywhere(enum lsr_drop reason) {
  struct ls_live *live = ls_live;
  if (live->counters)
    __atomic_fetch_add(&((struct lsr_stripe_head *)live->counters)->drops[reason], 1,
                       __ATOMIC_RELAXED);
}
