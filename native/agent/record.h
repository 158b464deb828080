// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * One event: a block is born or dies. Called with the thread marked busy, before the
 * real free and after the real malloc, so that another thread can never meet a record
 * of memory that it has just been given. `sampled` is a constant for the compiler: the
 * exact mode carries nothing of the other.
 */
#ifndef LEAKSCOPE_RECORD_H
#define LEAKSCOPE_RECORD_H

#include "blocks.h"
#include "clock.h"
#include "counters.h"
#include "stack.h"

/* A block died: count it for its site. */
LS_HOT void ls_record_death(struct ls_thread *thread, const struct lsr_block *block,
                            uint32_t tick, bool sampled) {
  ls_count_death(thread, ls_block_site(block), ls_block_size(block), ls_block_birth(block), tick,
                 sampled);
}

LS_HOT void ls_timeline_check(uint32_t tick) {
  if (LS_UNLIKELY(tick >= __atomic_load_n(&ls_live->timeline_next, __ATOMIC_RELAXED)))
    ls_timeline_row(tick);
}

LS_HOT uint8_t *ls_filter_slot(uintptr_t address) {
  return &ls_sample_filter[(uint64_t)(address >> 4) * 0x9E3779B97F4A7C15ull >> (64 - LS_FILTER_BITS)];
}

/* Counts sampled live blocks per slot of the filter. */
void ls_filter_change(uintptr_t address, int change);
/* An address was allocated that is still in the table: its free was missed. */
LS_COLD void ls_record_replaced(struct ls_thread *thread, uintptr_t address,
                                const struct lsr_block *replaced, uint32_t tick);
LS_COLD void ls_record_unknown(struct ls_thread *thread);

LS_HOT void ls_record_born(struct ls_thread *thread, uintptr_t address, uint64_t size, uint8_t kind,
                           uintptr_t pc, uintptr_t sp, uintptr_t fp, bool sampled) {
  struct ls_live *live = ls_live;
  if (LS_UNLIKELY(size < live->min_size || size > live->max_size)) {
    thread->head->drops[LSR_DROP_FILTERED]++;
    return;
  }
  ls_block_prefetch(address);
  uint32_t depth;
  uint32_t node = ls_stack_capture(thread, pc, sp, fp, &depth);
  uint32_t site = ls_depot_site(thread, node, kind, depth);
  uint32_t tick = ls_tick();
  struct lsr_block block = {.what = ls_block_what(size, tick)}, replaced;
  enum ls_insert result = ls_block_insert(thread, address, site, block.what, &replaced);
  if (LS_UNLIKELY(result != LS_INSERTED)) {
    if (result == LS_FULL) {
      ls_count_drop(thread, LSR_DROP_TABLE_FULL);
      return;
    }
    ls_record_replaced(thread, address, &replaced, tick);
  }
  if (sampled)
    ls_filter_change(address, 1);
  ls_count_birth(thread, site, ls_block_size(&block), tick, sampled);
  thread->last_block = address;
  ls_timeline_check(tick);
}

/* Take the record of `address` out of the table; the caller counts its death. */
LS_HOT bool ls_record_remove(struct ls_thread *thread, uintptr_t address, struct lsr_block *ret,
                             bool sampled) {
  if (sampled && !*ls_filter_slot(address))
    return false;
  if (LS_UNLIKELY(!ls_block_remove(thread, address, ret))) {
    ls_record_unknown(thread);
    return false;
  }
  if (sampled)
    ls_filter_change(address, -1);
  if (thread->last_block == address)
    thread->last_block = 0;
  return true;
}

LS_HOT void ls_record_freed(struct ls_thread *thread, uintptr_t address, bool sampled) {
  struct lsr_block block;
  if (LS_LIKELY(ls_record_remove(thread, address, &block, sampled))) {
    uint32_t tick = ls_tick();
    ls_record_death(thread, &block, tick, sampled);
    ls_timeline_check(tick);
  }
}

#endif
