// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The state of a process that records, and what happens to it as a whole.
 */
#ifndef LEAKSCOPE_PROCESS_H
#define LEAKSCOPE_PROCESS_H

#include "lock.h"
#include "thread.h"
#include "leakscope/recording.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

enum ls_phase {
  LS_PHASE_UNINIT = 0, /* also what a fork child finds */
  LS_PHASE_STARTING,
  LS_PHASE_RUNNING,
  LS_PHASE_DORMANT, /* preloaded but not asked to record; watches the config file */
  LS_PHASE_OFF,     /* cannot or must not record */
};

struct ls_shard {
  struct ls_thread *owner; /* enters without the lock; NULL: everyone takes it */
  struct ls_lock lock;
  uint32_t live;
  uint32_t buckets; /* 0: no table yet */
  uint32_t grow_at;
  struct lsr_block *table;
  uint8_t *passed; /* a byte a bucket: blocks may lie behind it for which it had no room */
  uint8_t pad[16];
};
_Static_assert(sizeof(struct ls_shard) == 64, "one cache line a shard");

struct ls_index {
  uint32_t mask;
  uint32_t slots[];
};

#define LS_LIVE_WIPED 4096 /* bytes of struct ls_live that the kernel wipes in a fork child */

/* Per-process state. A fork child sees zeroes in its first page, so nothing is recorded and the
 * phase is UNINIT. The rest it throws away when it begins (start_process), every lock with it: until
 * then there may be a hook to finish, because a signal handler forked in the middle of one. */
struct ls_live {
  uint32_t gate;  /* epoch of the running recording, 0: take the slow path */
  uint32_t plain; /* the same where every block is recorded, by the C library's malloc */
  uint32_t phase; /* enum ls_phase */
  uint32_t timeline_next; /* tick of the next timeline row */
  struct lsr_header *entered; /* `header`, where hooks begin; loaded before the gate */
  uint64_t clock_start; /* ns of CLOCK_MONOTONIC_COARSE at tick 0 */
  uint32_t sampled;
  uint32_t biased; /* the kernel has membarrier: shards may have owners */
  uint64_t min_size, max_size;
  /* A fork child keeps what follows. NULL: nothing was recorded here, or by its parent. */
  struct lsr_header *header __attribute__((aligned(LS_LIVE_WIPED)));
  /* Tables move when they grow; where they were stays readable. An id that was loaded with
   * acquire lies in the table that is loaded after it. */
  struct lsr_module *modules;
  char *strings;
  struct lsr_node *nodes;
  struct lsr_site *sites;
  struct lsr_range *ranges;
  struct lsr_chunk *chunks;
  struct lsr_free_error *free_errors; /* NULL: none yet */
  uint8_t *stripes; /* their heads */
  struct ls_index *node_index;
  struct ls_index *site_index;
  struct lsr_counter **chunk_tables[LSR_STRIPES]; /* NULL: the stripe has no counters */
  struct ls_lock depot_lock, grow_lock, chunks_lock, ranges_lock, timeline_lock, threads_lock, private_lock,
      own_lock, free_errors_lock;
  uint32_t timeline_order[LSR_TIMELINE_ROWS];
  uint32_t timeline_rows;
  struct lsr_timeline_entry *row_entries[LSR_TIMELINE_ROWS]; /* where header->rows[i].offset is */
  uint64_t dormant_next_check;
  uint64_t start_at_ns; /* CLOCK_MONOTONIC; 0: none */
  uint32_t range_root, range_free; /* ranges.c: nodes of the order by address, 0: none */
  uint32_t stripes_backed; /* bit a stripe whose head page is backed */
  uint32_t dormant_calls;
  uint32_t frees_examined; /* of unknown blocks */
  struct ls_shard shards[LSR_SHARDS] __attribute__((aligned(64)));
};

extern struct ls_live *ls_live; /* never NULL after ls_bootstrap() */

/* Of this process; NULL also in a fork child that has not begun. */
static inline struct lsr_header *ls_own_header(void) {
  return __atomic_load_n(&ls_live->phase, __ATOMIC_ACQUIRE) == LS_PHASE_UNINIT ? NULL : ls_live->header;
}

bool ls_process_is_ours(void); /* false in a vfork child, which borrows its parent's memory */
uint32_t ls_process_number(void); /* as it was at the start; 0: not yet known. Asks nobody */
/* For good, in this process and its children: nothing is recorded any more; and, when no thread
 * is in a hook, nothing is used any more. */
void ls_process_close(void);
void ls_process_off(void);
LS_COLD struct ls_thread *ls_enter_slow(bool freeing);

/* While paused, what is freed is recorded and what is allocated is not. */
static inline bool ls_paused(const struct ls_live *live) {
  return __atomic_load_n(&live->header->control, __ATOMIC_RELAXED) & 1;
}

/* With the recording's header in place. False: no memory. */
bool ls_process_start(struct ls_live *live);
void ls_process_pause(bool paused);

#pragma GCC visibility pop

#endif
