// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Per-site counters in stripes: a thread that owns its stripe adds without atomics,
 * so two threads never fight over a cache line. Readers sum the stripes.
 *
 * A stripe has counters of its own only for the sites met before there was a second thread, and
 * for those that its threads use much. All others are added, atomically, to the stripe that
 * everyone shares: so a site's counters take the memory of one to two, whatever the number of
 * threads. A pointer to counters that others add to as well is odd.
 */
#ifndef LEAKSCOPE_COUNTERS_H
#define LEAKSCOPE_COUNTERS_H

#include "process.h"

/* Counters of a site that has none in the thread's stripe: they are made there, or are those that
 * all threads share. NULL: no room. */
__attribute__((noinline)) struct lsr_counter *ls_counter_elsewhere(struct ls_thread *thread,
                                                                   uint32_t site);
LS_COLD void ls_sample_weigh(uint64_t size, uint64_t *ret_bytes, uint64_t *ret_weight);

LS_HOT bool ls_counter_is_shared(const struct lsr_counter *counter) { return (uintptr_t)counter & 1; }
LS_HOT struct lsr_counter *ls_counter_bare(struct lsr_counter *counter) {
  return (struct lsr_counter *)((uintptr_t)counter & ~(uintptr_t)1);
}

/* The site's counters for this thread; NULL, and counted, when there is no room. */
LS_HOT struct lsr_counter *ls_counter_of(struct ls_thread *thread, uint32_t site) {
  struct lsr_counter *chunk =
      __atomic_load_n(&thread->chunks[site / LSR_CHUNK_SITES], __ATOMIC_ACQUIRE);
  if (LS_UNLIKELY(!chunk))
    return ls_counter_elsewhere(thread, site);
  return chunk + site % LSR_CHUNK_SITES;
}

static inline uint32_t age_bucket(uint32_t age) { return age ? 32u - (uint32_t)__builtin_clz(age) : 0; }

#define ADD(counter, field, value, shared)                                      \
  do {                                                                          \
    if (LS_UNLIKELY(shared))                                                    \
      __atomic_fetch_add(&(counter)->field, (value), __ATOMIC_RELAXED);         \
    else                                                                        \
      (counter)->field += (value);                                              \
  } while (0)

LS_HOT void ls_count_birth(struct ls_thread *thread, struct lsr_counter *counter, uint64_t size,
                           uint32_t tick, bool sampled) {
  (void)thread;
  if (LS_UNLIKELY(!counter))
    return;
  bool shared = ls_counter_is_shared(counter);
  counter = ls_counter_bare(counter);
  if (sampled) {
    uint64_t weight;
    ls_sample_weigh(size, &size, &weight);
    ADD(counter, alloc_weight, weight, shared);
  }
  if (!counter->allocs)
    counter->first_birth = tick;
  counter->last_birth = tick;
  ADD(counter, alloc_bytes, size, shared);
  ADD(counter, allocs, 1, shared);
}

/* Returns the family of the counters: how blocks of the site are to be freed, 0: not looked up. */
LS_HOT uint32_t ls_count_death(struct ls_thread *thread, uint32_t site, uint64_t size,
                               uint32_t birth, uint32_t tick, bool sampled) {
  struct lsr_counter *counter = ls_counter_of(thread, site);
  if (LS_UNLIKELY(!counter))
    return 0;
  bool shared = ls_counter_is_shared(counter);
  counter = ls_counter_bare(counter);
  if (sampled) {
    uint64_t weight;
    ls_sample_weigh(size, &size, &weight);
    ADD(counter, free_weight, weight, shared);
  }
  uint32_t bucket = age_bucket(tick > birth ? tick - birth : 0);
  if (LS_LIKELY(counter->deaths[bucket] != UINT32_MAX))
    ADD(counter, deaths[bucket], 1, shared);
  ADD(counter, freed_bytes, size, shared);
  ADD(counter, frees, 1, shared);
  return counter->family;
}

bool ls_counters_of_stripe(struct ls_thread *thread, uint32_t stripe); /* false: no memory */
void ls_count_resize(struct ls_thread *thread, uint32_t site, uint64_t freed, bool split);
void ls_count_drop(struct ls_thread *thread, enum lsr_drop reason);
void ls_count_drop_anywhere(enum lsr_drop reason); /* without a thread: stripe 0, atomic */

#endif
