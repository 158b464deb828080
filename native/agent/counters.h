// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Per-site counters in stripes: a thread that owns its stripe adds without atomics,
 * so two threads never fight over a cache line. Readers sum the stripes.
 */
#ifndef LEAKSCOPE_COUNTERS_H
#define LEAKSCOPE_COUNTERS_H

#include "agent.h"

LS_COLD struct lsr_counter *ls_counters_new_chunk(struct ls_thread *thread, uint32_t site);
LS_COLD void ls_sample_weigh(uint64_t size, uint64_t *ret_bytes, uint64_t *ret_weight);

/* The site's counters in the thread's stripe; NULL, and counted, when there is no room. */
LS_HOT struct lsr_counter *ls_counter_of(struct ls_thread *thread, uint32_t site) {
  struct lsr_counter *chunk =
      __atomic_load_n(&thread->chunks[site / LSR_CHUNK_SITES], __ATOMIC_ACQUIRE);
  if (LS_UNLIKELY(!chunk)) {
    chunk = ls_counters_new_chunk(thread, site);
    if (!chunk) {
      ls_count_drop(thread, LSR_DROP_NO_SPACE);
      return NULL;
    }
  }
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
  if (LS_UNLIKELY(!counter))
    return;
  bool shared = thread->shared_stripe;
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

LS_HOT void ls_count_death(struct ls_thread *thread, uint32_t site, uint64_t size, uint32_t birth,
                           uint32_t tick, bool sampled) {
  struct lsr_counter *counter = ls_counter_of(thread, site);
  if (LS_UNLIKELY(!counter))
    return;
  bool shared = thread->shared_stripe;
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
}

#endif
