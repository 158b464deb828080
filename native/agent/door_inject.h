// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * What whoever maps us into a running process hands over, and what it looks at afterwards. The
 * other side of this is src/leakscope/trace/attach/handover.py; a test compares the two.
 */
#ifndef LEAKSCOPE_DOOR_INJECT_H
#define LEAKSCOPE_DOOR_INJECT_H

#include "local.h"

#define LS_HANDOVER_MAGIC 0x4a4e494550435341ull /* "ASCPEINJ" in file order */
#define LS_HANDOVER_VERSION 1u
#define LS_HANDOVER_NOTES 48u
#define LS_NO_BEAT_NS 10000000000ull

enum ls_entry_group {
  LS_ENTRY_ALLOCATOR = 1,
  LS_ENTRY_OPERATORS = 2,
  LS_ENTRY_MAPPINGS = 3,
  LS_ENTRY_LOADER = 4,
  LS_ENTRY_CALLS = 5,
};

/* A function that may be replaced. `real`: what to call in its place, 0: there is none. */
struct ls_entry {
  char name[48];
  uint64_t group;
  const void *hook;
  void *real;
};
extern struct ls_entry leakscope_entries[]; /* up to one without a name */

struct ls_handover {
  uint64_t magic;
  uint32_t version, bytes;       /* sizeof(struct ls_handover) */
  uint64_t region, region_bytes; /* all private memory, our image included */
  uint64_t live_bytes;           /* by us: how much is needed at `live` */
  struct ls_slot **slots_at;     /* by us: where the address of the slots is to be put, */
  uintptr_t *tid_offset_at;      /* and where a thread's number lies, from its thread pointer */
  uint64_t live;                 /* struct ls_live; wiped in a forked child */
  uint64_t stamp;                /* a word that is 1, and wiped in a forked child */
  uint64_t arena, arena_bytes;
  uint64_t recording, recording_bytes, budget_bytes;
  uint64_t main_program;                  /* its ELF header */
  uint64_t debug;                         /* the loader's struct r_debug, 0: no loader */
  uint64_t allocator_low, allocator_high; /* whose own mappings are not the program's */
  uint64_t sample_bytes, min_size, max_size;
  uint32_t depth, wraps_new;
  uint32_t pid, paused; /* as the process itself sees it; begin switched off */
  uint64_t pid_namespace;
  uint64_t beat_ns;  /* CLOCK_MONOTONIC: whoever attached was alive. 0: not asked for */
  uint64_t setup_ns; /* by us: what the first event waited for us to get ready */
  uint64_t lonely;   /* by us: nobody was there any more, so nothing is recorded */
  uint64_t crowded;  /* by us: a thread found no slot */
  uint64_t notes[LS_HANDOVER_NOTES][2]; /* the kernel's, AT_* */
  char exe[512], boot_id[40], allocator[128];
};
extern struct ls_handover leakscope_handover;

#endif
