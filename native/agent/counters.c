// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The rare half of the counters: backing them with file space, partial unmapping, losses.
 */
#include "counters.h"
#include "str.h"

uint8_t ls_counters_backed[LSR_STRIPES][LSR_MAX_SITES / CHUNK_SITES];

void ls_counters_reset(void) { memset(ls_counters_backed, 0, sizeof ls_counters_backed); }

bool ls_counters_back_chunk(struct ls_thread *thread, uint32_t site) {
  struct ls_live *live = ls_live;
  struct lsr_header *header = live->header;
  uint32_t stripe = thread->stripe, chunk = site / CHUNK_SITES;
  uint64_t bytes = CHUNK_SITES * sizeof(struct lsr_counter);
  uint64_t offset = header->counters.offset + stripe * header->stripe_bytes +
                    LSR_STRIPE_HEAD_BYTES + chunk * bytes;
  bool ok = true;
  ls_lock(&live->grow_lock);
  if (!ls_counter_backed(stripe, site)) {
    ok = ls_recording_back(offset, bytes);
    if (ok) {
      __atomic_store_n(&ls_counters_backed[stripe][chunk], 1, __ATOMIC_RELEASE);
      if (header->stripe_used[stripe] < (chunk + 1) * CHUNK_SITES)
        header->stripe_used[stripe] = (chunk + 1) * CHUNK_SITES;
    }
  }
  ls_unlock(&live->grow_lock);
  return ok;
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
  bool shared = thread->shared_stripe;
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
