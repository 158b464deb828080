// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The live-block table: 16 bytes a block, 1024 shards of buckets of eight (two cache
 * lines). Here the few instructions of an insertion and a removal; blocks.c has growth.
 *
 * A shard serves whole megabytes of address space: threads with arenas of their own meet
 * in no shard, and a program that walks its heap walks our table too. A block lies in its
 * home bucket or, when that was full, in a later one; the rule that makes look-ups stop:
 * no bucket between a block's home and its place has an empty slot. Every moment of an
 * insertion, removal or growth leaves a table that a reader can make sense of.
 */
#ifndef LEAKSCOPE_BLOCKS_H
#define LEAKSCOPE_BLOCKS_H

#include "agent.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define ADDRESS_MASK ((1ull << LSR_BLOCK_ADDRESS_BITS) - 1)

LS_HOT struct ls_shard *ls_shard_of(uintptr_t address) {
  return &ls_live->shards[(uint64_t)(address >> 20) * 0x9E3779B97F4A7C15ull >> 54];
}

#define BUCKET 8u

LS_HOT uint32_t ls_home_of(uintptr_t address, uint32_t buckets) {
  uint64_t hash = (uint64_t)(address >> 7) * 0x9E3779B97F4A7C15ull;
  return (uint32_t)((hash >> 32) * buckets >> 32);
}

static inline uint32_t ls_next_bucket(uint32_t bucket, uint32_t buckets) {
  return ++bucket == buckets ? 0 : bucket;
}

/* Bit i of the results: slot i holds the key, slot i is empty. No branches: which slot
 * it is cannot be predicted. */
LS_HOT uint32_t ls_bucket_match_words(const struct lsr_block *slots, uint64_t key,
                                      uint32_t *ret_empty) {
  uint32_t equal = 0, empty = 0;
  for (uint32_t i = 0; i < BUCKET; i++) {
    uint64_t where = slots[i].where;
    equal |= (uint32_t)((where & ADDRESS_MASK) == key) << i;
    empty |= (uint32_t)(where == 0) << i;
  }
  *ret_empty = empty;
  return equal;
}

#ifdef __SSE2__
/* Eight comparisons of the low halves at once. They are all but unique; the rare slot that
 * is equal or zero there only sends us the long way round. */
LS_HOT uint32_t ls_bucket_match(const struct lsr_block *slots, uint64_t key, uint32_t *ret_empty) {
  const __m128i *slot = (const __m128i *)slots;
  __m128i low = _mm_unpacklo_epi64(_mm_unpacklo_epi32(slot[0], slot[1]),
                                   _mm_unpacklo_epi32(slot[2], slot[3]));
  __m128i high = _mm_unpacklo_epi64(_mm_unpacklo_epi32(slot[4], slot[5]),
                                    _mm_unpacklo_epi32(slot[6], slot[7]));
  __m128i want = _mm_set1_epi32((int)key), zero = _mm_setzero_si128();
  uint32_t equal = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(
      _mm_packs_epi32(_mm_cmpeq_epi32(low, want), _mm_cmpeq_epi32(high, want)), zero));
  uint32_t empty = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(
      _mm_packs_epi32(_mm_cmpeq_epi32(low, zero), _mm_cmpeq_epi32(high, zero)), zero));
  if (LS_UNLIKELY((equal && (slots[__builtin_ctz(equal)].where & ADDRESS_MASK) != key) ||
                  (empty && slots[__builtin_ctz(empty)].where)))
    return ls_bucket_match_words(slots, key, ret_empty);
  *ret_empty = empty;
  return equal;
}
#else
#define ls_bucket_match ls_bucket_match_words
#endif

LS_HOT void ls_slot_put(struct lsr_block *slot, uint64_t where, uint64_t what) {
  /* `where` is valid only together with its `what`. */
  slot->what = what;
  __atomic_store_n(&slot->where, where, __ATOMIC_RELEASE);
}

LS_HOT void ls_block_prefetch(uintptr_t address) {
  struct ls_shard *shard = ls_shard_of(address);
  struct lsr_block *bucket = shard->table + ls_home_of(address, shard->buckets) * BUCKET;
  __builtin_prefetch(bucket, 1);
  __builtin_prefetch(bucket + BUCKET / 2, 1);
}

/* The lock is biased: the thread that first used a shard enters it with two plain stores.
 * Whoever else comes takes the bias away for good, with a membarrier that makes the
 * owner's stores visible, and from then on everyone locks. */
LS_COLD void ls_shard_enter_slow(struct ls_thread *thread, struct ls_shard *shard);

LS_HOT bool ls_shard_enter(struct ls_thread *thread, struct ls_shard *shard) {
  __atomic_store_n(&thread->inside, shard, __ATOMIC_RELAXED);
  __atomic_signal_fence(__ATOMIC_SEQ_CST); /* the revoker's membarrier orders the rest */
  if (LS_LIKELY(__atomic_load_n(&shard->owner, __ATOMIC_RELAXED) == thread))
    return false;
  __atomic_store_n(&thread->inside, NULL, __ATOMIC_RELAXED);
  ls_shard_enter_slow(thread, shard);
  return true;
}

LS_HOT void ls_shard_leave(struct ls_thread *thread, struct ls_shard *shard, bool locked) {
  if (LS_UNLIKELY(locked))
    ls_unlock(&shard->lock);
  else
    __atomic_store_n(&thread->inside, NULL, __ATOMIC_RELEASE);
}

/* Called with the shard entered and at its threshold; false when there is no room at all. */
LS_COLD bool ls_shard_grow(struct ls_shard *shard);

enum ls_insert { LS_INSERTED, LS_REPLACED, LS_FULL };

LS_HOT enum ls_insert ls_block_insert(struct ls_thread *thread, uintptr_t address,
                                             uint32_t site, uint64_t what,
                                             struct lsr_block *ret_replaced) {
  uint64_t key = (uint64_t)(address >> 3) & ADDRESS_MASK;
  uint64_t where = key | (uint64_t)site << LSR_BLOCK_ADDRESS_BITS;
  struct ls_shard *shard = ls_shard_of(address);
  bool locked = ls_shard_enter(thread, shard);
  if (LS_UNLIKELY(shard->live >= shard->grow_at) && !ls_shard_grow(shard)) {
    ls_shard_leave(thread, shard, locked);
    return LS_FULL;
  }
  uint32_t bucket = ls_home_of(address, shard->buckets), empty, equal;
  struct lsr_block *slots;
  for (;;) {
    slots = shard->table + bucket * BUCKET;
    equal = ls_bucket_match(slots, key, &empty);
    if (LS_LIKELY(equal | empty))
      break;
    bucket = ls_next_bucket(bucket, shard->buckets);
  }
  enum ls_insert result = LS_INSERTED;
  if (LS_UNLIKELY(equal)) {
    slots += __builtin_ctz(equal);
    *ret_replaced = *slots;
    __atomic_store_n(&slots->where, 0, __ATOMIC_RELEASE);
    result = LS_REPLACED;
  } else {
    slots += __builtin_ctz(empty);
    shard->live++;
  }
  ls_slot_put(slots, where, what);
  ls_shard_leave(thread, shard, locked);
  return result;
}

/* A full bucket got an empty slot: bring back a block that had to go further. */
void ls_shard_close_gap(struct ls_shard *shard, uint32_t bucket, struct lsr_block *hole);

LS_HOT bool ls_block_remove(struct ls_thread *thread, uintptr_t address,
                                   struct lsr_block *ret) {
  uint64_t key = (uint64_t)(address >> 3) & ADDRESS_MASK;
  struct ls_shard *shard = ls_shard_of(address);
  if (LS_UNLIKELY(!__atomic_load_n(&shard->buckets, __ATOMIC_RELAXED)))
    return false;
  bool locked = ls_shard_enter(thread, shard), found = false;
  uint32_t bucket = ls_home_of(address, shard->buckets), empty;
  for (;;) {
    struct lsr_block *slots = shard->table + bucket * BUCKET;
    uint32_t equal = ls_bucket_match(slots, key, &empty);
    if (LS_LIKELY(equal)) {
      slots += __builtin_ctz(equal);
      *ret = *slots;
      __atomic_store_n(&slots->where, 0, __ATOMIC_RELEASE);
      shard->live--;
      found = true;
      if (LS_UNLIKELY(!empty))
        ls_shard_close_gap(shard, bucket, slots);
      break;
    }
    if (empty)
      break;
    bucket = ls_next_bucket(bucket, shard->buckets);
  }
  ls_shard_leave(thread, shard, locked);
  return found;
}

#endif
