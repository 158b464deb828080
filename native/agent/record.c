// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The events of the less frequent hooks, and the rare ends of an event.
 */
#include "record.h"

#include "blocks.h"
#include "counters.h"
#include "process.h"

/* A slot of the filter that ever reached 255 stays there: some frees look in vain. */
void ls_filter_change(uintptr_t address, int change) {
  uint8_t *slot = ls_filter_slot(address);
  uint8_t now = __atomic_load_n(slot, __ATOMIC_RELAXED);
  while (now != 255 && !__atomic_compare_exchange_n(slot, &now, (uint8_t)(now + change), true,
                                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    ;
}

void ls_record_replaced(struct ls_thread *thread, uintptr_t address,
                        const struct lsr_block *replaced, uint32_t tick) {
  ls_count_drop(thread, LSR_DROP_DUPLICATE);
  ls_record_death(thread, replaced, tick, ls_live->sampled);
  if (ls_live->sampled)
    ls_filter_change(address, -1);
}

/* Nothing known of this block. In exact mode and without filters that means it was there
 * before us, or its birth was lost. */
void ls_record_unknown(struct ls_thread *thread) {
  struct ls_live *live = ls_live;
  if (!live->sampled && !ls_paused(live) && !live->min_size && live->max_size == UINT64_MAX)
    thread->head->drops[LSR_DROP_UNKNOWN_FREE]++;
}

void ls_record_alloc(struct ls_thread *thread, uintptr_t address, uint64_t size, uint8_t kind,
                     uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  ls_record_born(thread, address, size, kind, pc, sp, fp, false);
}

bool ls_record_take(struct ls_thread *thread, uintptr_t address, struct lsr_block *ret) {
  return ls_record_remove(thread, ls_place_of(address), address, ret, false);
}

bool ls_record_free(struct ls_thread *thread, uintptr_t address, uint32_t via, uintptr_t pc,
                    uintptr_t sp, uintptr_t fp) {
  return ls_record_freed(thread, ls_place_of(address), address, via, pc, sp, fp, false);
}

/* realloc failed: the old block lives on, with its own site and age. */
void ls_record_put_back(struct ls_thread *thread, const struct lsr_block *block) {
  uintptr_t address = (uintptr_t)(block->where & ADDRESS_MASK) << 3;
  struct lsr_block replaced;
  struct ls_place place = ls_place_of(address);
  if (ls_block_insert(thread, place, address, ls_block_site(block), block->what, &replaced) == LS_FULL)
    ls_count_drop(thread, LSR_DROP_TABLE_FULL);
  else if (ls_live->sampled)
    ls_filter_change(address, 1);
}

/* realloc succeeded: the old block died now; `moved`: and its memory was freed. */
void ls_record_taken_died(struct ls_thread *thread, const struct lsr_block *block, bool moved,
                          uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  uint32_t tick = ls_tick();
  uint32_t family = ls_record_death(thread, block, tick, ls_live->sampled);
  if (LS_UNLIKELY(family != LSR_FREE_VIA_FREE))
    ls_free_family(thread, block, LSR_FREE_VIA_REALLOC, pc, sp, fp);
  if (moved)
    ls_freed_note(thread, block, tick, pc, sp, fp);
}
