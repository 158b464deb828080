// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The rare half of the counters: finding room for them, partial unmapping, losses.
 */
#include "config.h"
#include "counters.h"
#include "private.h"
#include "process.h"
#include "sample.h"
#include "space.h"
#include "stack.h"
#include "str.h"

#define CHUNKS (LSR_MAX_SITES / LSR_CHUNK_SITES)

/* Copied by fork: a child goes on with the memory, not with what is in it. */
static struct {
  struct lsr_counter **chunks;
  uint16_t *uses;      /* of each chunk by the stripe */
  uint32_t used;       /* entries that were ever set */
  uint32_t ever_asked; /* likewise, of `uses` */
} tables[LSR_STRIPES];

#define COMMON_STRIPE LSR_EXCLUSIVE_STRIPES /* has no owner */
#define MUCH 4096u      /* uses of a chunk by a stripe that are worth counters of its own */
#define SPARE_CHUNKS 80u /* so many may be given for much use, and one for each chunk of sites */

static uint8_t stripes_with[CHUNKS]; /* how many stripes have counters of a chunk's sites */
static uint32_t given, most_used;

/* Under chunks_lock. */
static bool have_table(struct ls_live *live, uint32_t stripe) {
  if (!live->chunk_tables[stripe]) {
    if (!stripe) { /* the first of a recording */
      memset(stripes_with, 0, most_used);
      given = most_used = 0;
    }
    if (!tables[stripe].chunks) {
      tables[stripe].chunks =
          ls_private(CHUNKS * (sizeof *tables[stripe].chunks + sizeof *tables[stripe].uses));
      tables[stripe].uses = (uint16_t *)(tables[stripe].chunks + CHUNKS);
    } else { /* little of it: nothing is touched that was not before */
      memset(tables[stripe].chunks, 0, tables[stripe].used * sizeof *tables[stripe].chunks);
      memset(tables[stripe].uses, 0, tables[stripe].ever_asked * sizeof *tables[stripe].uses);
    }
    tables[stripe].used = tables[stripe].ever_asked = 0;
    __atomic_store_n(&live->chunk_tables[stripe], tables[stripe].chunks, __ATOMIC_RELEASE);
  }
  return live->chunk_tables[stripe] != NULL;
}

bool ls_counters_of_stripe(struct ls_thread *thread, uint32_t stripe) {
  struct ls_live *live = ls_live;
  ls_lock(&live->chunks_lock);
  bool ok = have_table(live, stripe);
  thread->chunks = live->chunk_tables[stripe];
  ls_unlock(&live->chunks_lock);
  return ok;
}

/* Under chunks_lock. */
static struct lsr_counter *make(struct ls_live *live, uint32_t stripe, uint32_t index) {
  if (!have_table(live, stripe))
    return NULL;
  struct lsr_header *header = live->header;
  struct lsr_counter *chunk = live->chunk_tables[stripe][index];
  uint32_t count = header->chunk_count;
  uint64_t offset;
  if (chunk || !ls_area_grow(&header->chunks, (count + 1ull) * sizeof *live->chunks))
    return chunk;
  chunk = (struct lsr_counter *)ls_heap_take(LSR_CHUNK_SITES * sizeof *chunk, &offset);
  if (!chunk)
    return NULL;
  live->chunks[count] =
      (struct lsr_chunk){.offset = offset, .first_site = index * LSR_CHUNK_SITES, .stripe = stripe};
  __atomic_store_n(&header->chunk_count, count + 1, __ATOMIC_RELEASE);
  if (tables[stripe].used <= index)
    tables[stripe].used = index + 1;
  if (most_used <= index)
    most_used = index + 1;
  stripes_with[index]++;
  if (stripe >= LSR_EXCLUSIVE_STRIPES)
    chunk = (struct lsr_counter *)((uintptr_t)chunk | 1);
  __atomic_store_n(&live->chunk_tables[stripe][index], chunk, __ATOMIC_RELEASE);
  return chunk;
}

struct lsr_counter *ls_counter_elsewhere(struct ls_thread *thread, uint32_t site) {
  struct ls_live *live = ls_live;
  uint32_t stripe = thread->stripe, index = site / LSR_CHUNK_SITES;
  uint16_t *uses = &tables[stripe].uses[index];
  bool much = *uses >= MUCH, own = false;
  *uses += !much;
  if (tables[stripe].ever_asked <= index) /* may be lost between threads that share a stripe: harmless */
    tables[stripe].ever_asked = index + 1;
  struct lsr_counter **common = __atomic_load_n(&live->chunk_tables[COMMON_STRIPE], __ATOMIC_ACQUIRE);
  struct lsr_counter *chunk = common ? __atomic_load_n(&common[index], __ATOMIC_ACQUIRE) : NULL;
  if (LS_UNLIKELY(much || !chunk)) {
    ls_lock(&live->chunks_lock);
    /* While there is one thread nothing is shared. */
    bool first = !stripes_with[index] && !(live->stripes_backed & (live->stripes_backed - 1));
    if (first || thread->chunks[index] ||
        (much && given < live->header->site_count / LSR_CHUNK_SITES + SPARE_CHUNKS)) {
      struct lsr_counter *mine = make(live, stripe, index);
      own = mine != NULL;
      given += own && stripes_with[index] > 1;
      chunk = own ? mine : chunk;
    }
    if (!chunk)
      chunk = make(live, COMMON_STRIPE, index);
    if (much && !own)
      *uses = 0; /* ask again later */
    ls_unlock(&live->chunks_lock);
    if (own && much)
      ls_stack_forget(thread); /* kept stacks know the common counters */
  }
  if (!chunk) {
    ls_count_drop(thread, LSR_DROP_NO_SPACE);
    return NULL;
  }
  return chunk + site % LSR_CHUNK_SITES;
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
  bool shared = ls_counter_is_shared(counter);
  counter = ls_counter_bare(counter);
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
