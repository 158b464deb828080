// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The timeline of a run of any length: at most 64 rows, evenly spread, that add up; while sites
 * are added, when there is no room, and when taking a row is dear. Prints what failed and exits 1.
 */
#include <math.h>

#include "alone.h"
#include "clock.h"
#include "counters.h"
#include "timeline.h"

#define SITES 2000u

static struct lsr_header header;
static struct lsr_site sites[SITES];
static struct lsr_counter *tables[2][LSR_MAX_SITES / LSR_CHUNK_SITES];
static uint64_t processor_ns,
    row_ns; /* what the processor's clock shows; what a look at it costs */
static size_t heap_left, released_bytes, taken_bytes;
static uint64_t heap_at = 4096;

static int clock_of_test(int clock, struct ls_timespec *ret) {
  if (clock == LS_CLOCK_THREAD_CPUTIME)
    processor_ns += row_ns;
  *ret = (struct ls_timespec){.seconds = (int64_t)(processor_ns / 1000000000),
                              .nanoseconds = (int64_t)(processor_ns % 1000000000)};
  return 0;
}
int (*ls_clock_function)(int, struct ls_timespec *) = clock_of_test;
void ls_clock_pair(struct lsr_header *told) { told->counter_last++; }

uint8_t *ls_heap_take(uint64_t bytes, uint64_t *ret_offset) {
  if (bytes > heap_left)
    return NULL;
  heap_left -= bytes;
  taken_bytes += bytes;
  *ret_offset = heap_at;
  heap_at += bytes;
  return calloc(1, bytes);
}
void ls_heap_release(uint8_t *at, uint64_t offset, uint64_t bytes) {
  CHECK(offset && bytes);
  released_bytes += bytes;
  memset(at, 0xA5, bytes);
  free(at);
}

/* Site i of stripe s, so that both stripes and the shared, odd pointers are added up. */
static struct lsr_counter *counter(uint32_t s, uint32_t site) {
  struct lsr_counter **chunk = &tables[s][site / LSR_CHUNK_SITES];
  if (!*chunk) {
    *chunk = aligned_alloc(64, LSR_CHUNK_SITES * sizeof **chunk);
    memset(*chunk, 0, LSR_CHUNK_SITES * sizeof **chunk);
    if (s)
      *chunk = (struct lsr_counter *)((uintptr_t)*chunk | 1);
  }
  return ls_counter_bare(*chunk) + site % LSR_CHUNK_SITES;
}

static void start(void) {
  memset(&header, 0, sizeof header);
  memset(&live, 0, sizeof live);
  for (uint32_t s = 0; s < 2; s++)
    for (uint32_t i = 0; i < LSR_MAX_SITES / LSR_CHUNK_SITES; i++) {
      free(ls_counter_bare(tables[s][i]));
      tables[s][i] = NULL;
    }
  live.header = &header;
  live.sites = sites;
  live.chunk_tables[0] = tables[0];
  live.chunk_tables[7] = tables[1];
  heap_left = SIZE_MAX;
  released_bytes = taken_bytes = 0;
  row_ns = 0;
  ls_timeline_init(&live);
}

static void at(uint32_t tick) {
  if (tick >= live.timeline_next)
    ls_timeline_row(tick);
}

/* The rows that hold something, in the order of time. */
static uint32_t rows(const struct lsr_timeline_row **ret) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < live.timeline_rows; i++) {
    const struct lsr_timeline_row *row = &header.rows[live.timeline_order[i]];
    if (row->sites)
      ret[n++] = row;
  }
  return n;
}

/* Evenly spread over `last` ticks: none is further from the next than twice the shortest way. */
static void check_even(uint32_t last) {
  const struct lsr_timeline_row *row[LSR_TIMELINE_ROWS];
  uint32_t n = rows(row), shortest = UINT32_MAX, longest = 0;
  CHECK(n <= LSR_TIMELINE_ROWS && (last < LSR_TIMELINE_ROWS || n >= LSR_TIMELINE_ROWS / 2));
  for (uint32_t i = 1; i < n; i++) {
    CHECK(row[i]->tick > row[i - 1]->tick);
    uint32_t gap = row[i]->tick - row[i - 1]->tick;
    shortest = gap < shortest ? gap : shortest;
    longest = gap > longest ? gap : longest;
  }
  if (n > 1) {
    CHECK(longest <= 2 * shortest);
    CHECK(last - row[n - 1]->tick <= 2 * shortest);
    CHECK(row[0]->tick <= 2 * longest);
  }
  bool used[LSR_TIMELINE_ROWS] = {0};
  for (uint32_t i = 0; i < LSR_TIMELINE_ROWS; i++) {
    CHECK(live.timeline_order[i] < LSR_TIMELINE_ROWS && !used[live.timeline_order[i]]);
    used[live.timeline_order[i]] = true;
  }
}

static void check_of_any_length(void) {
  for (uint32_t length = 1; length < 5000000; length += length / 3 + 1) {
    start();
    header.site_count = 2;
    counter(0, 1)->allocs = 1;
    for (uint32_t tick = 1; tick <= length; tick++)
      at(tick);
    check_even(length);
  }
}

/* A site more every tick, each with 10 bytes more a tick in two stripes. */
static void check_sums(void) {
  start();
  for (uint32_t tick = 1; tick <= 1500; tick++) {
    header.site_count = 2 + tick;
    for (uint32_t site = 1; site <= tick; site++) {
      counter(0, site)->alloc_bytes += 30;
      counter(0, site)->allocs += 3;
      counter(1, site)->freed_bytes += 20;
      counter(1, site)->frees += 2;
    }
    at(tick);
  }
  const struct lsr_timeline_row *row[LSR_TIMELINE_ROWS];
  uint32_t n = rows(row);
  CHECK(n > 31);
  for (uint32_t i = 0; i < n; i++) {
    const struct lsr_timeline_entry *entry = live.row_entries[row[i] - header.rows];
    uint64_t bytes = 0, count = 0;
    CHECK(row[i]->sites == 2 + row[i]->tick && row[i]->room >= row[i]->sites && row[i]->offset);
    for (uint32_t site = 1; site <= row[i]->tick; site++) {
      uint32_t ticks = row[i]->tick - site + 1;
      CHECK(entry[site].live_count == ticks && entry[site].live_bytes == 10.0f * (float)ticks);
      bytes += 10ull * ticks;
      count += ticks;
    }
    CHECK(row[i]->live_bytes == bytes && row[i]->live_count == count);
  }
  CHECK(header.peak_live_bytes == row[n - 1]->live_bytes);
  /* Rows that grew gave their old room back. */
  CHECK(released_bytes && taken_bytes - released_bytes <= LSR_TIMELINE_ROWS * 5ull * 4096);
}

/* Frees that were seen and allocations that were not: never below nothing. */
static void check_negative(void) {
  start();
  header.site_count = 3;
  counter(0, 1)->freed_bytes = 1000;
  counter(0, 1)->frees = 1;
  counter(0, 2)->alloc_bytes = 50;
  counter(0, 2)->allocs = 1;
  at(1);
  const struct lsr_timeline_row *row[LSR_TIMELINE_ROWS];
  CHECK(rows(row) == 1 && row[0]->live_bytes == 50 && row[0]->live_count == 1);
}

/* Sampled: counts are sums of weights of 1/1024. Mappings are recorded whole. */
static void check_sampled(void) {
  start();
  live.sampled = 1;
  header.site_count = 3;
  sites[1].kind = LSR_KIND_MALLOC;
  sites[2].kind = LSR_KIND_MMAP;
  for (uint32_t site = 1; site < 3; site++) {
    counter(0, site)->alloc_weight = 5 * 1024;
    counter(0, site)->free_weight = 2 * 1024;
    counter(0, site)->allocs = 2;
    counter(0, site)->frees = 1;
  }
  at(1);
  const struct lsr_timeline_entry *entry = live.row_entries[live.timeline_order[0]];
  CHECK(entry[1].live_count == 3 && entry[2].live_count == 1);
}

/* No room for a row: it is left out, and the next one is there when there is room again. */
static void check_no_room(void) {
  start();
  header.site_count = 600;
  counter(0, 599)->alloc_bytes = 7;
  at(1);
  header.site_count = SITES;
  heap_left = 0;
  for (uint32_t tick = 2; tick < 50; tick++)
    at(tick);
  const struct lsr_timeline_row *row[LSR_TIMELINE_ROWS];
  CHECK(rows(row) == 1 && row[0]->tick == 1);
  heap_left = SIZE_MAX;
  at(60);
  CHECK(rows(row) == 2 && row[1]->tick == 60 && row[1]->sites == SITES && row[1]->live_bytes == 7);
}

/* A row that takes 30 ms of processor: a hundredth of the time at most. */
static void check_dear(void) {
  start();
  header.site_count = 2;
  row_ns = 15000000; /* each of two looks at the clock behind the first */
  uint32_t taken = 0;
  for (uint32_t tick = 1; tick <= 100000; tick++) {
    uint64_t before = header.counter_last;
    at(tick);
    taken += header.counter_last != before;
  }
  double spent = taken * 0.030, whole = 100000 * 1048576e-9;
  CHECK(taken > 20 && spent / whole < 0.02);
}

/* Somebody else takes it: this thread goes on. */
static void check_taken(void) {
  start();
  header.site_count = 2;
  ls_lock(&live.timeline_lock);
  ls_timeline_row(1);
  ls_unlock(&live.timeline_lock);
  CHECK(!live.timeline_rows);
  at(1);
  CHECK(live.timeline_rows == 1);
}

int main(void) {
  check_of_any_length();
  check_sums();
  check_negative();
  check_sampled();
  check_no_room();
  check_dear();
  check_taken();
  puts("ok");
  return 0;
}
