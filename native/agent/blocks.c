// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The live-block table's growth: a shard starts with a page at its first block and grows by
 * 1.35 at a load of 0.72, so a live block of a well-filled shard takes 22 to 30 bytes.
 */
#include "blocks.h"
#include "process.h"
#include "seal.h"
#include "space.h"
#include "sys.h"

/* A bucket and its byte of `passed`. */
#define BUCKET_BYTES (BUCKET * sizeof(struct lsr_block) + 1)

static uint32_t next(uint32_t bucket, uint32_t buckets) {
  return ++bucket == buckets ? 0 : bucket;
}

static uint64_t whole_pages(uint32_t buckets) {
  return ((uint64_t)buckets * BUCKET_BYTES + 4095) & ~4095ull;
}

bool ls_shard_grow(struct ls_shard *shard) {
  uint32_t old_buckets = shard->buckets, old_slots = old_buckets * BUCKET;
  uint64_t bytes = (whole_pages(old_buckets) * 27 / 20 + 4096) & ~4095ull, offset;
  struct lsr_block *table = (struct lsr_block *)ls_heap_take(bytes, &offset);
  if (!table) {
    /* Live with longer probes while slots are left; one must always stay empty. */
    if (shard->live + 2 >= old_slots)
      return false;
    shard->grow_at = shard->live + 1 + (old_slots - shard->live) / 2;
    if (shard->grow_at > old_slots - 2)
      shard->grow_at = old_slots - 2;
    return true;
  }
  uint32_t buckets = (uint32_t)(bytes / BUCKET_BYTES), slots = buckets * BUCKET;
  uint8_t *passed = (uint8_t *)(table + slots);
  uint32_t live = 0; /* counted anew: a thread may have left in the middle of a change */
  for (uint32_t i = 0; i < old_slots; i++) {
    struct lsr_block *old = &shard->table[i];
    if (!old->where)
      continue;
    live++;
    uint32_t bucket = ls_home_of((uintptr_t)(old->where & ADDRESS_MASK) << 3, buckets), empty;
    while (ls_bucket_match(table + (size_t)bucket * BUCKET, ~0ull, &empty), !empty) {
      passed[bucket] = 1;
      bucket = next(bucket, buckets);
    }
    ls_slot_put(table + (size_t)bucket * BUCKET + __builtin_ctz(empty), old->where, old->what);
  }
  struct lsr_shard *shown = &ls_live->header->shards[shard - ls_live->shards];
  uint64_t old_offset = shown->offset;
  uint32_t odd = shown->sequence | 1; /* left odd by one that did not come to its end */
  shard->live = live;
  __atomic_store_n(&shown->sequence, odd, __ATOMIC_RELEASE);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  shown->offset = offset;
  shown->capacity = slots;
  shown->live = live;
  __atomic_store_n(&shown->sequence, odd + 1, __ATOMIC_RELEASE);
  uint8_t *old_table = (uint8_t *)shard->table;
  shard->table = table;
  shard->passed = passed;
  __atomic_store_n(&shard->buckets, buckets, __ATOMIC_RELEASE);
  shard->grow_at = (uint32_t)((uint64_t)slots * 23 / 32);
  if (old_slots)
    ls_heap_release(old_table, old_offset, whole_pages(old_buckets));
  return true;
}

void ls_shard_close_gap(struct ls_shard *shard, uint32_t bucket, struct lsr_block *hole) {
  uint32_t buckets = shard->buckets, distance = 0;
  for (uint32_t from = bucket;;) {
    from = next(from, buckets);
    distance++;
    struct lsr_block *slots = shard->table + (size_t)from * BUCKET, *moved = NULL;
    bool full = true;
    for (uint32_t i = 0; i < BUCKET; i++) {
      uint64_t where = slots[i].where;
      if (!where) {
        full = false;
        continue;
      }
      uint32_t home = ls_home_of((uintptr_t)(where & ADDRESS_MASK) << 3, buckets);
      uint32_t travelled = from >= home ? from - home : from + buckets - home;
      if (travelled >= distance)
        moved = &slots[i];
    }
    if (moved) {
      uint64_t where = moved->where, what = moved->what;
      ls_slot_put(hole, where, what); /* for a moment in two places: readers drop doubles */
      __atomic_store_n(&moved->where, 0, __ATOMIC_RELEASE);
      if (!full || !shard->passed[from])
        return; /* nothing lies behind for which this bucket had no room */
      hole = moved;
      bucket = from;
      distance = 0;
    } else if (!full) {
      /* What lies beyond found its place without passing here. */
      shard->passed[bucket] = 0;
      return;
    }
  }
}

void ls_shard_enter_slow(struct ls_thread *thread, struct ls_shard *shard) {
  ls_lock(&shard->lock);
  struct ls_thread *owner = __atomic_load_n(&shard->owner, __ATOMIC_RELAXED);
  if (owner && owner != thread) {
    __atomic_store_n(&shard->owner, NULL, __ATOMIC_SEQ_CST);
    ls_membarrier(1 << 3 /* PRIVATE_EXPEDITED */);
    ls_shard_await(owner, shard);
  } else if (!shard->buckets && ls_live->biased) {
    __atomic_store_n(&shard->owner, thread, __ATOMIC_RELAXED);
  }
}

/* Where the barrier may not be called any more. */
void ls_shards_have_no_owners(void) {
  struct ls_live *live = ls_live;
  live->biased = 0;
  for (uint32_t s = 0; s < LSR_SHARDS; s++) {
    struct ls_shard *shard = &live->shards[s];
    ls_lock(&shard->lock); /* who takes it after us sees that there are no owners */
    struct ls_thread *owner = __atomic_load_n(&shard->owner, __ATOMIC_RELAXED);
    if (!owner) {
      ls_unlock(&shard->lock);
      continue;
    }
    __atomic_store_n(&shard->owner, NULL, __ATOMIC_SEQ_CST);
    ls_membarrier(1 << 3 /* PRIVATE_EXPEDITED */);
    ls_shard_await(owner, shard);
    ls_unlock(&shard->lock);
  }
}
