// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Getting out of the way: a program that unmaps, protects or replaces what it did not map
 * itself (a loader, a sandbox, a checkpointer at work on its address space) also meets our
 * memory. Before it gets its way, nothing uses that memory any more.
 */
#include "agent.h"
#include "clock.h"
#include "record.h"
#include "sys.h"

#define ATTEMPTS 100 /* a millisecond each, for threads in a hook to leave it */

bool ls_aside_asked(uintptr_t start, uint64_t length) {
  const struct ls_live *live = ls_live;
  const struct lsr_header *header = live->header;
  if (!length || live->phase == LS_PHASE_OFF)
    return false;
  uintptr_t end = start + length < start ? UINTPTR_MAX : start + length, base = (uintptr_t)live->base;
  return (header && start < base + header->file_bytes && end > base) ||
         ls_private_holds(start, end);
}

void ls_aside(void) {
  struct lsr_header *header = ls_live->header;
  if (header) {
    ls_clock_pair(header);
    __atomic_fetch_or(&header->trouble, LSR_TROUBLE_LEFT, __ATOMIC_RELAXED);
  }
  ls_process_off();
  ls_membarrier(1 << 3 /* PRIVATE_EXPEDITED: everyone sees it, or is marked busy for us to see */);
  static const struct ls_timespec nap = {0, 1000000};
  for (unsigned i = 0; i < ATTEMPTS; i++) {
    ls_nanosleep(&nap); /* also for those who were about to enter */
    if (ls_threads_left())
      break;
  }
}
