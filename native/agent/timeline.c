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
#include "door.h"
#include "process.h"
#include "space.h"
#include "str.h"
#include "timeline.h"

void ls_timeline_init(struct ls_live *live) {
  live->header->timeline_tick_gap = 1;
  live->timeline_next = 1;
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

/* Room in the heap for the entries of a row; NULL: there is none. */
static struct lsr_timeline_entry *place_for(struct ls_live *live, uint32_t row, uint32_t sites) {
  struct lsr_timeline_row *shown = &live->header->rows[row];
  if (sites > shown->room) {
    uint64_t offset, bytes = (uint64_t)(sites + sites / 4) * sizeof **live->row_entries;
    bytes = (bytes + 4095) & ~4095ull;
    uint8_t *fresh = ls_heap_take(bytes, &offset);
    if (!fresh)
      return NULL;
    uint64_t old = shown->offset, old_bytes = shown->room * sizeof **live->row_entries;
    uint8_t *released = (uint8_t *)live->row_entries[row];
    live->row_entries[row] = (struct lsr_timeline_entry *)fresh; /* what is released is not used */
    shown->offset = offset;
    __atomic_store_n(&shown->room, (uint32_t)(bytes / sizeof **live->row_entries),
                     __ATOMIC_RELEASE);
    if (old)
      ls_heap_release(released, old, old_bytes);
  }
  return live->row_entries[row];
}

/* How long this thread has worked. Processor time: a busy machine must not thin the timeline out.
 * It takes a system call, as do all but the coarse clocks on some machines. */
static uint64_t worked(void) {
  return ls_clock_ns(ls_is_sealed() ? LS_CLOCK_MONOTONIC_COARSE : LS_CLOCK_THREAD_CPUTIME);
}

#ifdef LS_INJECT
/* Whoever attached us may be gone: looked at more often than there are rows. */
#define MOST_GAP 4096u
static uint32_t row_due;

static bool only_looks(struct ls_live *live, uint32_t tick) {
  if (ls_door_is_left())
    ls_process_close();
  else if (tick >= row_due)
    return false;
  __atomic_store_n(&live->timeline_next, row_due - tick < MOST_GAP ? row_due : tick + MOST_GAP, __ATOMIC_RELAXED);
  return true;
}
#endif

void ls_timeline_row(uint32_t tick) {
  struct ls_live *live = ls_live;
  struct lsr_header *header = live->header;
  if (!ls_trylock(&live->timeline_lock))
    return;
  if (tick < live->timeline_next && live->timeline_rows) {
    ls_unlock(&live->timeline_lock);
    return;
  }
#ifdef LS_INJECT
  if (only_looks(live, tick)) {
    ls_unlock(&live->timeline_lock);
    return;
  }
#endif
  uint64_t begun = worked(), backed = begun;
  uint32_t sites = __atomic_load_n(&header->site_count, __ATOMIC_ACQUIRE), row;
  pick_row(live, &row);
  struct lsr_timeline_row *shown = &header->rows[row];
  shown->sites = 0;
  struct lsr_timeline_entry *entries = place_for(live, row, sites);
  if (!entries)
    goto out;
  backed = worked();
  uint64_t total_bytes = 0, total_count = 0;
  struct lsr_counter **stripes[LSR_STRIPES];
  uint32_t n = 0;
  for (uint32_t s = 0; s < LSR_STRIPES; s++)
    if ((stripes[n] = __atomic_load_n(&live->chunk_tables[s], __ATOMIC_ACQUIRE)))
      n++;
  for (uint32_t site = 0; site < sites; site++) {
    int64_t live_bytes = 0, live_count = 0;
    for (uint32_t i = 0; i < n; i++) {
      const struct lsr_counter *chunk = ls_counter_bare(
          __atomic_load_n(&stripes[i][site / LSR_CHUNK_SITES], __ATOMIC_ACQUIRE));
      if (!chunk)
        continue;
      const struct lsr_counter *counter = chunk + site % LSR_CHUNK_SITES;
      live_bytes += (int64_t)(counter->alloc_bytes - counter->freed_bytes);
      live_count += live->sampled && live->sites[site].kind < LSR_KIND_MMAP
                        ? (int64_t)(counter->alloc_weight - counter->free_weight) / 1024
                        : (int64_t)(counter->allocs - counter->frees);
    }
    if (live_bytes < 0)
      live_bytes = 0;
    if (live_count < 0)
      live_count = 0;
    entries[site].live_bytes = (float)live_bytes;
    entries[site].live_count = live_count > UINT32_MAX ? UINT32_MAX : (uint32_t)live_count;
    total_bytes += (uint64_t)live_bytes;
    total_count += (uint64_t)live_count;
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
   * are paid for once, and short runs need their rows: a twentieth for those. Processor time: a busy machine must
   * not thin the timeline out. */
  uint64_t ended = worked();
  uint32_t cost = (uint32_t)(((ended - backed) * 100 + (backed - begun) * 20) >> LS_TICK_SHIFT);
  uint32_t gap = header->timeline_tick_gap > cost ? header->timeline_tick_gap : cost;
#ifdef LS_INJECT
  row_due = tick + gap;
  gap = gap < MOST_GAP ? gap : MOST_GAP;
#endif
  __atomic_store_n(&live->timeline_next, tick + gap, __ATOMIC_RELAXED);
  ls_unlock(&live->timeline_lock);
}
