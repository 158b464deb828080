// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The coarse timeline: at most 64 snapshots of live bytes per site, evenly spread over
 * the run whatever its length. When the rows are full every second one is given up and
 * the distance doubles. Whichever thread crosses the due time takes the snapshot.
 */
#include "clock.h"
#include "counters.h"
#include "str.h"

/* A row's entries, a page at a time: pages of zeroes are left to be holes of the file. */
#define PAGE_ENTRIES (4096u / sizeof(struct lsr_timeline_entry))
#define ROW_PAGES (LSR_MAX_SITES / PAGE_ENTRIES)
static uint8_t row_backed[LSR_TIMELINE_ROWS][ROW_PAGES / 8];

void ls_timeline_init(struct ls_live *live) {
  live->header->timeline_tick_gap = 1;
  live->timeline_next = 1;
  memset(row_backed, 0, sizeof row_backed);
  for (uint32_t i = 0; i < LSR_TIMELINE_ROWS; i++)
    live->timeline_order[i] = i;
}

static void pick_row(struct ls_live *live, uint32_t *ret_row) {
  if (live->timeline_rows < LSR_TIMELINE_ROWS) {
    *ret_row = live->timeline_order[live->timeline_rows++];
    return;
  }
  /* Keep every second row in time order; queue the freed ones behind them. */
  uint32_t kept[LSR_TIMELINE_ROWS], n = 0;
  for (uint32_t i = 1; i < LSR_TIMELINE_ROWS; i += 2)
    kept[n++] = live->timeline_order[i];
  for (uint32_t i = 0; i < LSR_TIMELINE_ROWS; i += 2) {
    uint32_t row = live->timeline_order[i];
    live->header->rows[row].sites = 0;
    kept[n++] = row;
  }
  memcpy(live->timeline_order, kept, sizeof kept);
  live->timeline_rows = LSR_TIMELINE_ROWS / 2;
  live->header->timeline_tick_gap *= 2;
  *ret_row = live->timeline_order[live->timeline_rows++];
}

/* How long this thread has worked. Processor time: a busy machine must not thin the timeline out.
 * It takes a system call, as do all but the coarse clocks on some machines. */
static uint64_t worked(void) {
  return ls_clock_ns(ls_is_sealed() ? LS_CLOCK_MONOTONIC_COARSE : LS_CLOCK_THREAD_CPUTIME);
}

static bool back_page(struct ls_live *live, uint32_t row, uint32_t page, uint64_t offset,
                      uint64_t *backing) {
  uint8_t *bits = &row_backed[row][page / 8], bit = (uint8_t)(1u << page % 8);
  if (*bits & bit)
    return true;
  uint64_t begun = worked();
  ls_lock(&live->grow_lock);
  bool ok = ls_recording_back(offset, 4096);
  ls_unlock(&live->grow_lock);
  *backing += worked() - begun;
  if (ok)
    *bits |= bit;
  return ok;
}

void ls_timeline_row(uint32_t tick) {
  struct ls_live *live = ls_live;
  struct lsr_header *header = live->header;
  if (!ls_trylock(&live->timeline_lock))
    return;
  if (tick < live->timeline_next && live->timeline_rows) {
    ls_unlock(&live->timeline_lock);
    return;
  }
  uint64_t begun = worked(), backing = 0;
  uint32_t sites = __atomic_load_n(&header->site_count, __ATOMIC_ACQUIRE), row;
  pick_row(live, &row);
  struct lsr_timeline_row *shown = &header->rows[row];
  shown->sites = 0;
  uint64_t offset = header->timeline.offset + row * header->timeline_row_bytes;
  if ((uint64_t)sites * sizeof(struct lsr_timeline_entry) > header->timeline_row_bytes)
    goto out;
  uint64_t total_bytes = 0, total_count = 0;
  const uint8_t *stripes[LSR_STRIPES];
  uint32_t used[LSR_STRIPES], n = 0;
  for (uint32_t s = 0; s < LSR_STRIPES; s++)
    if (header->stripe_used[s]) {
      stripes[n] = live->counters + s * header->stripe_bytes + LSR_STRIPE_HEAD_BYTES;
      used[n++] = s;
    }
  for (uint32_t page = 0; page * PAGE_ENTRIES < sites; page++) {
    static struct lsr_timeline_entry entries[PAGE_ENTRIES]; /* under timeline_lock */
    memset(entries, 0, sizeof entries);
    bool any = row_backed[row][page / 8] >> page % 8 & 1; /* by a row that was given up */
    for (uint32_t i = 0, site = page * PAGE_ENTRIES; i < PAGE_ENTRIES && site < sites; i++, site++) {
      int64_t live_bytes = 0, live_count = 0;
      for (uint32_t s = 0; s < n; s++) {
        if (!ls_counter_backed(used[s], site))
          continue;
        const struct lsr_counter *counter = (const struct lsr_counter *)stripes[s] + site;
        live_bytes += (int64_t)(counter->alloc_bytes - counter->freed_bytes);
        live_count += live->sampled && live->sites[site].kind < LSR_KIND_MMAP
                          ? (int64_t)(counter->alloc_weight - counter->free_weight) / 1024
                          : (int64_t)(counter->allocs - counter->frees);
      }
      if (live_bytes < 0)
        live_bytes = 0;
      if (live_count < 0)
        live_count = 0;
      entries[i].live_bytes = (float)live_bytes;
      entries[i].live_count = live_count > UINT32_MAX ? UINT32_MAX : (uint32_t)live_count;
      any |= live_bytes || live_count;
      total_bytes += (uint64_t)live_bytes;
      total_count += (uint64_t)live_count;
    }
    if (!any)
      continue;
    if (!back_page(live, row, page, offset + page * 4096, &backing))
      goto out;
    memcpy(live->base + offset + page * 4096, entries, sizeof entries);
  }
  shown->tick = tick;
  shown->live_bytes = total_bytes;
  shown->live_count = total_count;
  __atomic_store_n(&shown->sites, sites, __ATOMIC_RELEASE);
  if (total_bytes > header->peak_live_bytes)
    header->peak_live_bytes = total_bytes;
  ls_clock_pair(header);
out:;
  /* Never spend more than one hundredth of the time on snapshots. The file pages of a row
   * are paid for once, and short runs need their rows: a twentieth for those. */
  uint64_t cost_ns = (worked() - begun - backing) * 100 + backing * 20;
  uint32_t cost = (uint32_t)(cost_ns >> LS_TICK_SHIFT);
  uint32_t gap = header->timeline_tick_gap > cost ? header->timeline_tick_gap : cost;
  __atomic_store_n(&live->timeline_next, tick + gap, __ATOMIC_RELAXED);
  ls_unlock(&live->timeline_lock);
}
