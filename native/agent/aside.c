// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Getting out of the way: a program that unmaps, protects or replaces what it did not map
 * itself (a loader, a sandbox, a checkpointer at work on its address space) also meets our
 * memory. Before it gets its way, nothing uses that memory any more.
 */
#include "aside.h"
#include "clock.h"
#include "exec.h"
#include "private.h"
#include "process.h"
#include "space.h"
#include "stack.h"
#include "sys.h"

static bool is_ours(uintptr_t start, uint64_t length) {
  if (!length || ls_live->phase == LS_PHASE_OFF)
    return false;
  uintptr_t end = start + length < start ? UINTPTR_MAX : start + length;
  return ls_space_holds(start, end) || ls_private_holds(start, end);
}

static void step_aside(void) {
  struct lsr_header *header = ls_own_header();
  if (header) {
    ls_clock_pair(header);
    __atomic_fetch_or(&header->trouble, LSR_TROUBLE_LEFT, __ATOMIC_RELAXED);
  }
  ls_exec_end();
  ls_process_close();
  ls_membarrier(1 << 3 /* PRIVATE_EXPEDITED: everyone sees it, or is marked busy for us to see */);
  static const struct ls_timespec nap = {0, 1000000};
  ls_nanosleep(&nap); /* for those who were about to enter */
  ls_threads_leave();
  ls_process_off();
  ls_nanosleep(&nap); /* for those who were about to look at the gate */
  ls_threads_leave(); /* and who have looked at it */
}

void ls_aside_touched(uintptr_t start, uint64_t length) {
  if (LS_UNLIKELY(is_ours(start, length)))
    step_aside();
  struct ls_thread *thread = ls_tls.thread;
  if (thread && ls_tls.epoch == ls_live->gate)
    ls_stack_lost(thread, start, length);
}

bool ls_aside_destroys(int advice) {
  switch (advice) {
  case 4:   /* DONTNEED */
  case 8:   /* FREE */
  case 9:   /* REMOVE */
  case 10:  /* DONTFORK */
  case 18:  /* WIPEONFORK */
  case 19:  /* KEEPONFORK */
  case 24:  /* DONTNEED_LOCKED */
  case 100: /* HWPOISON */
  case 102: /* GUARD_INSTALL */
    return true;
  }
  return false;
}
