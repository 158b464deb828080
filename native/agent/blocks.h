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
 * no bucket between a block's home and its place has an empty slot. A byte behind the table
 * for each bucket says whether a block ever had to pass it: only then a removal from a full
 * bucket has to look for one to bring back. Every moment of an insertion, removal or growth
 * leaves a table that a reader can make sense of.
 */
#ifndef LEAKSCOPE_BLOCKS_H
#define LEAKSCOPE_BLOCKS_H

#include "process.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define ADDRESS_MASK ((1ull << LSR_BLOCK_ADDRESS_BITS) - 1)

static inline uint64_t ls_block_what(uint64_t size, uint32_t tick) {
  uint64_t coded = size;
  if (LS_UNLIKELY(size >> LSR_BLOCK_SIZE_BITS)) {
    coded = (size + 4095) >> 12;
    if (coded >> LSR_BLOCK_SIZE_BITS)
      coded = (1ULL << LSR_BLOCK_SIZE_BITS) - 1;
    coded |= 1ULL << LSR_BLOCK_SIZE_BITS;
  }
  return coded | (uint64_t)tick << 32;
}
static inline uint64_t ls_block_size(const struct lsr_block *block) {
  uint64_t coded = block->what & ((1ULL << LSR_BLOCK_SIZE_BITS) - 1);
  return block->what >> LSR_BLOCK_SIZE_BITS & 1 ? coded << 12 : coded;
}
static inline uint32_t ls_block_birth(const struct lsr_block *block) {
  return (uint32_t)(block->what >> 32);
}
static inline uint32_t ls_block_site(const struct lsr_block *block) {
  return (uint32_t)(block->where >> LSR_BLOCK_ADDRESS_BITS);
}

LS_HOT struct ls_shard *ls_shard_of(uintptr_t address) {
  struct ls_shard *shard = &ls_live->shards[(uint64_t)(address >> 20) * 0x9E3779B97F4A7C15ull >> 54];
  __asm__("" : "+r"(shard)); /* keep it: not to be computed anew for each of its fields */
  return shard;
}

#define BUCKET 8u

LS_HOT uint32_t ls_home_of(uintptr_t address, uint32_t buckets) {
  uint64_t hash = (uint64_t)(address >> 7) * 0x9E3779B97F4A7C15ull;
  return (uint32_t)((hash >> 32) * buckets >> 32);
}

/* Bit i of the results: slot i may hold the key, slot i is empty. Eight comparisons of the low
 * halves at once; no branches, as which slot it is cannot be predicted. No block has a low half
 * of zero (ls_block_can_be_held), so "empty" is certain. A slot whose low half is equal is all
 * but certainly the one, and is to be looked at. */
LS_HOT uint32_t ls_bucket_match(const struct lsr_block *slots, uint64_t key, uint32_t *ret_empty) {
#ifdef __SSE2__
  const __m128i *slot = (const __m128i *)slots;
  __m128i low = _mm_unpacklo_epi64(_mm_unpacklo_epi32(slot[0], slot[1]),
                                   _mm_unpacklo_epi32(slot[2], slot[3]));
  __m128i high = _mm_unpacklo_epi64(_mm_unpacklo_epi32(slot[4], slot[5]),
                                    _mm_unpacklo_epi32(slot[6], slot[7]));
  __m128i want = _mm_set1_epi32((int)key), zero = _mm_setzero_si128();
  *ret_empty = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(
      _mm_packs_epi32(_mm_cmpeq_epi32(low, zero), _mm_cmpeq_epi32(high, zero)), zero));
  return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(
      _mm_packs_epi32(_mm_cmpeq_epi32(low, want), _mm_cmpeq_epi32(high, want)), zero));
#else
  uint32_t equal = 0, empty = 0;
  for (uint32_t i = 0; i < BUCKET; i++) {
    uint32_t low = (uint32_t)slots[i].where;
    equal |= (uint32_t)(low == (uint32_t)key) << i;
    empty |= (uint32_t)(low == 0) << i;
  }
  *ret_empty = empty;
  return equal;
#endif
}

LS_HOT bool ls_slot_holds(const struct lsr_block *slot, uint64_t key) {
  return (slot->where & ADDRESS_MASK) == key;
}

/* The slot among those marked in `equal` that holds the key, NULL when none does. */
LS_HOT struct lsr_block *ls_bucket_slot(struct lsr_block *slots, uint32_t equal, uint64_t key) {
  struct lsr_block *slot = slots + __builtin_ctz(equal);
  while (LS_UNLIKELY(!ls_slot_holds(slot, key))) {
    equal &= equal - 1;
    if (!equal)
      return NULL;
    slot = slots + __builtin_ctz(equal);
  }
  return slot;
}

/* All addresses but the multiples of 32 GiB. */
LS_HOT bool ls_block_can_be_held(uint64_t key) { return (uint32_t)key != 0; }

LS_HOT void ls_slot_put(struct lsr_block *slot, uint64_t where, uint64_t what) {
  /* `where` is valid only together with its `what`. */
  slot->what = what;
  __atomic_store_n(&slot->where, where, __ATOMIC_RELEASE);
}

/* Where a block belongs. Looked up before the shard is entered, so that the cache miss begins
 * early; `buckets` tells whether it still holds then, as no table follows another of its size. */
struct ls_place {
  struct ls_shard *shard;
  struct lsr_block *slots; /* of the home bucket */
  uint32_t home, buckets;
};

LS_HOT void ls_place_again(struct ls_place *place, uintptr_t address) {
  /* In this order: a table is stored before its size. */
  place->buckets = __atomic_load_n(&place->shard->buckets, __ATOMIC_ACQUIRE);
  struct lsr_block *table = __atomic_load_n(&place->shard->table, __ATOMIC_RELAXED);
  place->home = ls_home_of(address, place->buckets);
  place->slots = table + (size_t)place->home * BUCKET;
}

LS_HOT struct ls_place ls_place_of(uintptr_t address) {
  struct ls_place place = {.shard = ls_shard_of(address)};
  ls_place_again(&place, address);
  __builtin_prefetch(place.slots, 1);
  __builtin_prefetch(place.slots + BUCKET / 2, 1);
  return place;
}

/* The bucket behind; the shard is entered. */
LS_HOT void ls_place_next(struct ls_place *place) {
  place->slots += BUCKET;
  if (++place->home == place->buckets) {
    place->home = 0;
    place->slots = place->shard->table;
  }
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

/* lock.c: until the owner is out of the shard, or will not come out any more. */

/* Called with the shard entered and at its threshold; false when there is no room at all. */
LS_COLD bool ls_shard_grow(struct ls_shard *shard);

enum ls_insert { LS_INSERTED, LS_REPLACED, LS_FULL };

LS_HOT enum ls_insert ls_block_insert(struct ls_thread *thread, struct ls_place place,
                                      uintptr_t address, uint32_t site, uint64_t what,
                                      struct lsr_block *ret_replaced) {
  uint64_t key = (uint64_t)(address >> 3) & ADDRESS_MASK;
  uint64_t where = key | (uint64_t)site << LSR_BLOCK_ADDRESS_BITS;
  struct ls_shard *shard = place.shard;
  bool locked = ls_shard_enter(thread, shard);
  if (LS_UNLIKELY((shard->live >= shard->grow_at && !ls_shard_grow(shard)) ||
                  !ls_block_can_be_held(key))) {
    ls_shard_leave(thread, shard, locked);
    return LS_FULL;
  }
  if (LS_UNLIKELY(place.buckets != shard->buckets))
    ls_place_again(&place, address);
  enum ls_insert result = LS_INSERTED;
  for (;; ls_place_next(&place)) {
    uint32_t empty, equal = ls_bucket_match(place.slots, key, &empty);
    if (LS_UNLIKELY(equal)) {
      struct lsr_block *old = ls_bucket_slot(place.slots, equal, key);
      if (old) {
        *ret_replaced = *old;
        __atomic_store_n(&old->where, 0, __ATOMIC_RELEASE);
        ls_slot_put(old, where, what);
        result = LS_REPLACED;
        break;
      }
    }
    if (LS_LIKELY(empty)) {
      shard->live++; /* first: who leaves in between must not make it too few */
      ls_slot_put(place.slots + __builtin_ctz(empty), where, what);
      break;
    }
    shard->passed[place.home] = 1;
  }
  ls_shard_leave(thread, shard, locked);
  return result;
}

/* A full bucket that was passed got an empty slot: bring back a block that had to go further. */
void ls_shard_close_gap(struct ls_shard *shard, uint32_t bucket, struct lsr_block *hole);

LS_HOT bool ls_block_remove(struct ls_thread *thread, struct ls_place place, uintptr_t address,
                            struct lsr_block *ret) {
  uint64_t key = (uint64_t)(address >> 3) & ADDRESS_MASK;
  struct ls_shard *shard = place.shard;
  if (LS_UNLIKELY(!place.buckets))
    return false; /* nothing of this megabyte was ever recorded */
  bool locked = ls_shard_enter(thread, shard), found = false;
  if (LS_UNLIKELY(place.buckets != shard->buckets)) {
    ls_place_again(&place, address);
    if (!place.buckets) { /* we are in a fork child by now: a signal handler forked */
      ls_shard_leave(thread, shard, locked);
      return false;
    }
  }
  for (;; ls_place_next(&place)) {
    uint32_t empty, equal = ls_bucket_match(place.slots, key, &empty);
    struct lsr_block *slot;
    if (LS_LIKELY(equal) &&
        LS_LIKELY((slot = ls_bucket_slot(place.slots, equal, key)) != NULL)) {
      *ret = *slot;
      __atomic_store_n(&slot->where, 0, __ATOMIC_RELEASE);
      shard->live--;
      found = true;
      /* One condition: that a bucket is full cannot be predicted, that it was passed is rare. */
      if (LS_UNLIKELY(shard->passed[place.home] & !empty))
        ls_shard_close_gap(shard, place.home, slot);
      break;
    }
    if (empty)
      break;
  }
  ls_shard_leave(thread, shard, locked);
  return found;
}

void ls_shards_have_no_owners(void); /* from now on */

#endif
