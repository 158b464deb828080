// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The rare half of the counters: finding room for them, partial unmapping, losses.
 */
#include "counters.h"
#include "str.h"

#define CHUNKS (LSR_MAX_SITES / LSR_CHUNK_SITES)

/* Copied by fork: a child goes on with the memory, not with what is in it. */
static struct {
  struct lsr_counter **chunks;
  uint32_t used; /* entries that were ever set */
} tables[LSR_STRIPES];

bool ls_counters_of_stripe(struct ls_thread *thread, uint32_t stripe) {
  struct ls_live *live = ls_live;
  ls_lock(&live->chunks_lock);
  if (!live->chunk_tables[stripe]) {
    if (!tables[stripe].chunks)
      tables[stripe].chunks = ls_private(CHUNKS * sizeof *tables[stripe].chunks);
    else
      memset(tables[stripe].chunks, 0, tables[stripe].used * sizeof *tables[stripe].chunks);
    tables[stripe].used = 0;
    __atomic_store_n(&live->chunk_tables[stripe], tables[stripe].chunks, __ATOMIC_RELEASE);
  }
  thread->chunks = live->chunk_tables[stripe];
  ls_unlock(&live->chunks_lock);
  return thread->chunks != NULL;
}

struct lsr_counter *ls_counters_new_chunk(struct ls_thread *thread, uint32_t site) {
  struct ls_live *live = ls_live;
  struct lsr_header *header = live->header;
  uint32_t index = site / LSR_CHUNK_SITES, count;
  uint64_t offset;
  ls_lock(&live->chunks_lock);
  struct lsr_counter *chunk = thread->chunks[index];
  count = header->chunk_count;
  if (!chunk && ls_area_grow(&header->chunks, (count + 1ull) * sizeof *live->chunks)) {
    chunk = (struct lsr_counter *)ls_heap_take(LSR_CHUNK_SITES * sizeof *chunk, &offset);
    if (chunk) {
      live->chunks[count] = (struct lsr_chunk){
          .offset = offset, .first_site = index * LSR_CHUNK_SITES, .stripe = thread->stripe};
      __atomic_store_n(&header->chunk_count, count + 1, __ATOMIC_RELEASE);
      if (tables[thread->stripe].used <= index)
        tables[thread->stripe].used = index + 1;
      __atomic_store_n(&thread->chunks[index], chunk, __ATOMIC_RELEASE);
    }
  }
  ls_unlock(&live->chunks_lock);
  return chunk;
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
  if (live->stripes)
    __atomic_fetch_add(&((struct lsr_stripe_head *)live->stripes)->drops[reason], 1,
                       __ATOMIC_RELAXED);
}
