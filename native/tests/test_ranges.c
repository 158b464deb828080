// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Mappings made, replaced and cut at random, beside an array that has the site of every page.
 * Prints what failed and exits 1.
 */
#include "alone.h"
#include "clock.h"
#include "counters.h"
#include "ranges.h"
#include "record.h"
#include "stack.h"

#define PAGES 3000u
#define PAGE 4096ull
#define LOW (1ull << 40)
#define SITES 40u

static struct lsr_header header;
static struct lsr_range slots[LSR_MAX_RANGES];
static uint32_t most = LSR_MAX_RANGES; /* ranges for which there is room */
static unsigned refused;
static int64_t bytes_of[SITES], count_of[SITES];

static int no_clock(int clock, struct ls_timespec *ret) {
  (void)clock;
  *ret = (struct ls_timespec){0, 0};
  return 0;
}
int (*ls_clock_function)(int, struct ls_timespec *) = no_clock;
struct ls_config ls_config;
uint32_t ls_module_epoch_now;
uint8_t ls_sample_filter[LS_FILTER_SLOTS];
uint64_t ls_sample_hash;

void *ls_private(size_t bytes) { return calloc(1, bytes); }
bool ls_area_grow(struct lsr_area *area, uint64_t needed) {
  (void)area;
  return needed <= most * sizeof(struct lsr_range);
}
void ls_count_drop(struct ls_thread *thread, enum lsr_drop reason) {
  (void)thread;
  refused += reason == LSR_DROP_RANGES_FULL;
}

/* The counters of a site, made for it at the first use. */
static struct lsr_counter counters[SITES];
struct lsr_counter *ls_counter_elsewhere(struct ls_thread *thread, uint32_t site) {
  (void)thread;
  return &counters[site];
}
void ls_count_resize(struct ls_thread *thread, uint32_t site, uint64_t freed, bool split) {
  (void)thread;
  counters[site].freed_bytes += freed;
  counters[site].allocs += split;
}
void ls_sample_weigh(uint64_t size, uint64_t *ret_bytes, uint64_t *ret_weight) {
  *ret_bytes = size;
  *ret_weight = 1024;
}
void ls_timeline_row(uint32_t tick) { (void)tick; }

/* The caller's pc is the stack, and the site. */
uint32_t ls_stack_capture_foreign(struct ls_thread *thread, uintptr_t pc, uintptr_t sp,
                                  uintptr_t fp, uint32_t *ret_depth) {
  (void)thread, (void)sp, (void)fp;
  *ret_depth = 1;
  return (uint32_t)pc;
}
uint32_t ls_stack_capture_slow(struct ls_thread *thread, uintptr_t pc, uintptr_t sp, uintptr_t fp,
                               uint32_t *ret_depth) {
  return ls_stack_capture_foreign(thread, pc, sp, fp, ret_depth);
}
void ls_stack_forget(struct ls_thread *thread) { (void)thread; }
uint32_t ls_depot_find_site(struct ls_thread *thread, uint32_t node, uint8_t kind, uint32_t depth) {
  (void)thread, (void)kind, (void)depth;
  return node;
}

static uint32_t page[PAGES];   /* the site that mapped it, 0: none */
static uint32_t begins[PAGES]; /* which mapping the page is of */
static uint32_t number;

/* All ranges of the table together are what the array says; none overlaps another. */
static void compare(void) {
  static uint32_t seen[PAGES];
  memset(seen, 0, sizeof seen);
  memset(bytes_of, 0, sizeof bytes_of);
  memset(count_of, 0, sizeof count_of);
  uint32_t ranges = 0;
  for (uint32_t i = 0; i < header.range_slots; i++) {
    const struct lsr_range *range = &slots[i];
    if (!range->length)
      continue;
    ranges++;
    count_of[range->site]++;
    CHECK(range->start >= LOW && !(range->start % PAGE) && !(range->length % PAGE));
    for (uint64_t at = range->start; at < range->start + range->length; at += PAGE) {
      uint64_t p = (at - LOW) / PAGE;
      CHECK(p < PAGES && !seen[p]);
      seen[p] = range->site;
    }
  }
  uint32_t pieces = 0;
  for (uint32_t p = 0; p < PAGES; p++) {
    CHECK(seen[p] == page[p]);
    bytes_of[page[p]] += PAGE;
    pieces += page[p] && (!p || !page[p - 1] || begins[p] != begins[p - 1]);
  }
  CHECK(ranges == pieces);
  for (uint32_t site = 1; site < SITES; site++) {
    CHECK((int64_t)(counters[site].alloc_bytes - counters[site].freed_bytes) == bytes_of[site]);
    CHECK((int64_t)(counters[site].allocs - counters[site].frees) == count_of[site]);
  }
}

static struct ls_thread thread;

static void map(uint32_t site, uint32_t from, uint32_t length, uint32_t odd) {
  ls_range_add(&thread, LOW + from * PAGE, length * PAGE - odd, LSR_KIND_MMAP, site, 0, 0);
  number++;
  for (uint32_t p = from; p < from + length; p++) {
    page[p] = site;
    begins[p] = number;
  }
}

static void unmap(uint32_t from, uint32_t length) {
  ls_range_remove(&thread, LOW + from * PAGE, length * PAGE - draw() % PAGE);
  for (uint32_t p = from; p < from + length; p++)
    page[p] = 0;
}

static void turns(unsigned count, uint32_t longest) {
  for (unsigned turn = 0; turn < count; turn++) {
    uint32_t length = 1 + draw() % longest, from = draw() % (PAGES - length);
    if (draw() % 3)
      map(1 + draw() % (SITES - 1), from, length, (uint32_t)(draw() % PAGE));
    else
      unmap(from, length);
    if (turn % 16 == 0)
      compare();
  }
  compare();
}

int main(void) {
  static struct lsr_counter *no_chunks[LSR_MAX_SITES / LSR_CHUNK_SITES];
  live.header = &header;
  live.ranges = slots;
  live.timeline_next = UINT32_MAX;
  thread.chunks = no_chunks;

  turns(4000, 40);  /* many small ones */
  turns(2000, 900); /* large ones that swallow others */
  unmap(0, PAGES);
  compare();
  for (uint32_t i = 0; i < header.range_slots; i++)
    CHECK(!slots[i].length);

  /* Slots are used again: never more than there were ranges at once. */
  uint32_t before = header.range_slots;
  for (unsigned turn = 0; turn < 20000; turn++) {
    uint32_t from = draw() % PAGES;
    map(1, from, 1, 0);
    unmap(from, 1);
  }
  CHECK(header.range_slots == before);
  compare();

  /* No room: what does not fit is counted, and what is there stays right. */
  most = header.range_slots;
  CHECK(!refused);
  for (uint32_t p = 0; p < PAGES; p++)
    ls_range_add(&thread, LOW + p * PAGE, PAGE, LSR_KIND_MMAP, 2, 0, 0);
  CHECK(refused == PAGES - most);
  uint32_t held = 0;
  for (uint32_t i = 0; i < header.range_slots; i++)
    held += slots[i].length == PAGE;
  CHECK(held == most);
  ls_range_remove(&thread, LOW, PAGES * PAGE);
  most = LSR_MAX_RANGES;

  /* A fork child finds the table and the order empty, and the nodes as they were. */
  memset(slots, 0, sizeof slots);
  memset(counters, 0, sizeof counters);
  header.range_slots = 0;
  live.range_root = live.range_free = 0;
  turns(2000, 40);
  puts("ok");
  return 0;
}
