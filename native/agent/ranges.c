// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Mappings that the program made itself (mmap, mremap, brk): a bounded table of
 * ranges, because munmap may cut any part out of any mapping.
 */
#include "clock.h"
#include "record.h"
#include "stack.h"

static struct lsr_range *free_slot(struct ls_live *live) {
  struct lsr_header *header = live->header;
  struct lsr_range *ranges = live->ranges;
  for (uint32_t i = live->range_free_hint; i < header->range_slots; i++)
    if (!ranges[i].length) {
      live->range_free_hint = i + 1;
      return &ranges[i];
    }
  live->range_free_hint = header->range_slots;
  if (!ls_area_grow(&header->ranges, (header->range_slots + 1ull) * sizeof *ranges))
    return NULL;
  live->range_free_hint = header->range_slots + 1;
  return &live->ranges[header->range_slots++]; /* growing may have moved them */
}

static void put(struct ls_live *live, struct ls_thread *thread, struct lsr_range range) {
  struct lsr_range *slot = free_slot(live);
  if (!slot) {
    ls_count_drop(thread, LSR_DROP_RANGES_FULL);
    return;
  }
  uint64_t length = range.length;
  range.length = 0;
  *slot = range;
  __atomic_store_n(&slot->length, length, __ATOMIC_RELEASE);
}

static void cut(struct ls_live *live, struct ls_thread *thread, uint64_t start, uint64_t end) {
  struct lsr_range *ranges = live->ranges; /* where they were is theirs too, should they move */
  uint32_t slots = live->header->range_slots, tick = ls_tick();
  for (uint32_t i = 0; i < slots; i++) {
    struct lsr_range old = ranges[i];
    uint64_t old_end = old.start + old.length;
    if (!old.length || old.start >= end || old_end <= start)
      continue;
    __atomic_store_n(&ranges[i].length, 0, __ATOMIC_RELEASE);
    if (i < live->range_free_hint)
      live->range_free_hint = i;
    uint64_t from = old.start > start ? old.start : start, to = old_end < end ? old_end : end;
    bool whole = from == old.start && to == old_end;
    if (whole) {
      ls_count_death(thread, old.site, to - from, old.birth, tick, false);
    } else {
      /* Part of it goes: fewer bytes, and the same mapping, or two in place of one. */
      ls_count_resize(thread, old.site, to - from, old.start < start && old_end > end);
      if (old.start < start) {
        struct lsr_range head = old;
        head.length = start - old.start;
        put(live, thread, head);
      }
      if (old_end > end) {
        struct lsr_range tail = old;
        tail.start = end;
        tail.length = old_end - end;
        put(live, thread, tail);
      }
    }
  }
}

void ls_range_add(struct ls_thread *thread, uintptr_t start, uint64_t length, uint8_t kind,
                  uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  struct ls_live *live = ls_live;
  if (!length)
    return;
  length = (length + 4095) & ~4095ull;
  uint32_t depth;
  uint32_t node = ls_stack_capture(thread, pc, sp, fp, &depth);
  uint32_t site = ls_depot_site(thread, node, kind, depth);
  uint32_t tick = ls_tick();
  ls_lock(&live->ranges_lock);
  cut(live, thread, start, start + length); /* MAP_FIXED replaces what was there */
  put(live, thread,
      (struct lsr_range){.start = start, .length = length, .site = site, .birth = tick});
  ls_unlock(&live->ranges_lock);
  ls_count_birth(thread, ls_counter_of(thread, site), length, tick, false); /* whole, in sampled mode too */
  ls_timeline_check(tick);
}

void ls_range_remove(struct ls_thread *thread, uintptr_t start, uint64_t length) {
  struct ls_live *live = ls_live;
  length = (length + 4095) & ~4095ull;
  ls_lock(&live->ranges_lock);
  cut(live, thread, start, start + length);
  ls_unlock(&live->ranges_lock);
}
