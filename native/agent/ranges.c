// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Mappings that the program made itself (mmap, mremap, brk): a bounded table of
 * ranges, because munmap may cut any part out of any mapping.
 */
#include "clock.h"
#include "counters.h"
#include "depot.h"
#include "private.h"
#include "process.h"
#include "ranges.h"
#include "record.h"
#include "space.h"
#include "stack.h"

static struct lsr_range *table(struct ls_live *live) {
  return live->ranges; /* growing may move them */
}

/* The order of the ranges by address: a treap over the table's slots, in private memory. Slot i is
 * node i + 1. All of it is used under ranges_lock; the root and the free nodes lie in ls_live, which
 * a fork child finds empty, as it does the table. */
struct node {
  uint32_t left, right; /* of a free node: left is the next free one */
};
static struct node *nodes; /* from the first mapping on; LSR_MAX_RANGES + 1 */

static uint64_t start_of(struct ls_live *live, uint32_t node) { return table(live)[node - 1].start; }

/* A node's place in the heap order; the same for a slot always, and unrelated to addresses. */
static uint32_t weight(uint32_t node) { return node * 0x9E3779B1u ^ node * 0x85EBCA6Bu >> 13; }

static void insert(struct ls_live *live, uint32_t node) {
  uint64_t start = start_of(live, node);
  uint32_t *link = &live->range_root, at;
  while ((at = *link) && weight(at) > weight(node))
    link = start < start_of(live, at) ? &nodes[at].left : &nodes[at].right;
  *link = node;
  /* What was below is split at the new start. */
  uint32_t *less = &nodes[node].left, *more = &nodes[node].right;
  while (at) {
    if (start_of(live, at) < start) {
      *less = at;
      less = &nodes[at].right;
      at = *less;
    } else {
      *more = at;
      more = &nodes[at].left;
      at = *more;
    }
  }
  *less = *more = 0;
}

static void take_out(struct ls_live *live, uint32_t node) {
  uint64_t start = start_of(live, node);
  uint32_t *link = &live->range_root;
  while (*link && *link != node)
    link = start < start_of(live, *link) ? &nodes[*link].left : &nodes[*link].right;
  if (!*link)
    return;
  uint32_t left = nodes[node].left, right = nodes[node].right;
  while (left && right) {
    if (weight(left) > weight(right)) {
      *link = left;
      link = &nodes[left].right;
      left = *link;
    } else {
      *link = right;
      link = &nodes[right].left;
      right = *link;
    }
  }
  *link = left ? left : right;
  nodes[node].left = live->range_free;
  live->range_free = node;
}

/* The lowest range that reaches into [start, end), 0: none. They do not overlap each other. */
static uint32_t first_in(struct ls_live *live, uint64_t start, uint64_t end) {
  uint32_t found = 0;
  for (uint32_t at = live->range_root; at;) {
    const struct lsr_range *range = &table(live)[at - 1];
    if (range->start + range->length <= start) {
      at = nodes[at].right;
    } else {
      if (range->start < end)
        found = at;
      at = nodes[at].left;
    }
  }
  return found;
}

static uint32_t free_node(struct ls_live *live) {
  struct lsr_header *header = live->header;
  uint32_t node = live->range_free;
  if (node) {
    live->range_free = nodes[node].left;
    return node;
  }
  if (!nodes)
    nodes = ls_private((LSR_MAX_RANGES + 1) * sizeof *nodes);
  if (!nodes || header->range_slots >= LSR_MAX_RANGES ||
      !ls_area_grow(&header->ranges, (header->range_slots + 1ull) * sizeof(struct lsr_range)))
    return 0;
  return ++header->range_slots;
}

static void put(struct ls_live *live, struct ls_thread *thread, struct lsr_range range) {
  uint32_t node = free_node(live);
  if (!node) {
    ls_count_drop(thread, LSR_DROP_RANGES_FULL);
    return;
  }
  struct lsr_range *slot = &table(live)[node - 1];
  uint64_t length = range.length;
  range.length = 0;
  *slot = range;
  __atomic_store_n(&slot->length, length, __ATOMIC_RELEASE);
  insert(live, node);
}

static void cut(struct ls_live *live, struct ls_thread *thread, uint64_t start, uint64_t end) {
  uint32_t tick = ls_tick(), node;
  while ((node = first_in(live, start, end))) {
    struct lsr_range *slot = &table(live)[node - 1], old = *slot;
    uint64_t old_end = old.start + old.length;
    take_out(live, node);
    __atomic_store_n(&slot->length, 0, __ATOMIC_RELEASE);
    uint64_t from = old.start > start ? old.start : start, to = old_end < end ? old_end : end;
    if (from == old.start && to == old_end) {
      ls_count_death(thread, old.site, to - from, old.birth, tick, false);
      continue;
    }
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
