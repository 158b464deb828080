// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * One event: a block is born or dies. Called with the thread marked busy, before the
 * real free and after the real malloc, so that another thread can never meet a record
 * of memory that it has just been given. `plain` is a constant for the compiler: where every
 * block is recorded, nothing is carried of the other modes.
 */
#ifndef LEAKSCOPE_RECORD_H
#define LEAKSCOPE_RECORD_H

#include "blocks.h"
#include "clock.h"
#include "counters.h"
#include "free_errors.h"
#include "sample.h"
#include "stack.h"
#include "timeline.h"

/* A block died: count it for its site. Returns ls_count_death()'s family. */
LS_HOT uint32_t ls_record_death(struct ls_thread *thread, const struct lsr_block *block,
                                uint32_t tick, bool sampled) {
  return ls_count_death(thread, ls_block_site(block), ls_block_size(block), ls_block_birth(block), tick,
                 sampled);
}

LS_HOT void ls_timeline_check(uint32_t tick) {
  if (LS_UNLIKELY(tick >= __atomic_load_n(&ls_live->timeline_next, __ATOMIC_RELAXED)))
    ls_timeline_row(tick);
}

LS_HOT uint8_t *ls_filter_slot(uintptr_t address) {
  return &ls_sample_filter[(uint64_t)address * ls_sample_hash >> (64 - LS_FILTER_BITS)];
}

/* Counts sampled live blocks per slot of the filter. */
void ls_filter_change(uintptr_t address, int change);
/* An address was allocated that is still in the table: its free was missed. */
LS_COLD void ls_record_replaced(struct ls_thread *thread, uintptr_t address,
                                const struct lsr_block *replaced, uint32_t tick);
LS_COLD void ls_record_unknown(struct ls_thread *thread);

LS_HOT void ls_record_born(struct ls_thread *thread, uintptr_t address, uint64_t size, uint8_t kind,
                           uintptr_t pc, uintptr_t sp, uintptr_t fp, bool plain) {
  struct ls_live *live = ls_live;
  bool sampled = !plain && live->sampled;
  if (!plain && (size < live->min_size || size > live->max_size)) {
    thread->head->drops[LSR_DROP_FILTERED]++;
    return;
  }
  struct ls_place place = ls_place_of(address);
  struct ls_stack_site at = ls_stack_site(thread, kind, pc, sp, fp);
  uint32_t tick = ls_tick();
  struct lsr_block block = {.what = ls_block_what(size, tick)}, replaced;
  enum ls_insert result = ls_block_insert(thread, place, address, at.site, block.what, &replaced);
  if (LS_UNLIKELY(result != LS_INSERTED)) {
    if (result == LS_FULL) {
      ls_count_drop(thread, LSR_DROP_TABLE_FULL);
      return;
    }
    ls_record_replaced(thread, address, &replaced, tick);
  }
  if (sampled)
    ls_filter_change(address, 1);
  ls_count_birth(thread, at.counter, ls_block_size(&block), tick, sampled);
  if (!plain)
    thread->last_block = address;
  ls_timeline_check(tick);
}

/* Take the record of `address` out of the table; the caller counts its death. */
LS_HOT bool ls_record_remove(struct ls_thread *thread, struct ls_place place, uintptr_t address,
                             struct lsr_block *ret, bool plain) {
  bool sampled = !plain && ls_live->sampled;
  if (sampled && !*ls_filter_slot(address))
    return false;
  if (LS_UNLIKELY(!ls_block_remove(thread, place, address, ret))) {
    if (!ls_free_is_deletes(thread, address))
      ls_record_unknown(thread);
    return false;
  }
  if (sampled)
    ls_filter_change(address, -1);
  if (!plain && thread->last_block == address)
    thread->last_block = 0;
  return true;
}

/* False: no such block. `via`: LSR_FREE_VIA_FREE and so on, not _REALLOC. */
LS_HOT bool ls_record_freed(struct ls_thread *thread, struct ls_place place, uintptr_t address,
                            uint32_t via, uintptr_t pc, uintptr_t sp, uintptr_t fp, bool plain) {
  struct lsr_block block;
  if (LS_UNLIKELY(!ls_record_remove(thread, place, address, &block, plain)))
    return false;
  uint32_t tick = ls_tick();
  uint32_t family = ls_record_death(thread, &block, tick, !plain && ls_live->sampled);
  if (LS_UNLIKELY(family != via))
    ls_free_family(thread, &block, via, pc, sp, fp);
  ls_freed_note(thread, &block, tick, pc, sp, fp);
  ls_timeline_check(tick);
  return true;
}

/* What the hooks call between the real functions. */
void ls_record_alloc(struct ls_thread *thread, uintptr_t address, uint64_t size, uint8_t kind,
                     uintptr_t pc, uintptr_t sp, uintptr_t fp);
bool ls_record_free(struct ls_thread *thread, uintptr_t address, uint32_t via, uintptr_t pc,
                    uintptr_t sp, uintptr_t fp); /* false: no such block */
bool ls_record_take(struct ls_thread *thread, uintptr_t address, struct lsr_block *ret);
void ls_record_put_back(struct ls_thread *thread, const struct lsr_block *block);
void ls_record_taken_died(struct ls_thread *thread, const struct lsr_block *block, bool moved,
                          uintptr_t pc, uintptr_t sp, uintptr_t fp);

#endif
