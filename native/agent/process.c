// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The life of the agent in a process, whichever way it came in (door.h): a recording begins, the
 * slow way into a hook, control from outside.
 */
#include "bounds.h"
#include "clock.h"
#include "config.h"
#include "depot.h"
#include "door.h"
#include "modules.h"
#include "process.h"
#include "real.h"
#include "rules.h"
#include "sample.h"
#include "stack.h"
#include "str.h"
#include "sys.h"
#include "timeline.h"

struct ls_live ls_no_process; /* until the first event: gate 0, phase UNINIT */
struct ls_live *ls_live = &ls_no_process;
uint32_t ls_started_pid;

static uint32_t epochs;

void ls_process_pause(bool paused) {
  struct lsr_header *header = ls_own_header();
  if (!header)
    return;
  if (paused)
    __atomic_fetch_or(&header->control, 1, __ATOMIC_RELAXED);
  else
    __atomic_fetch_and(&header->control, ~1u, __ATOMIC_RELAXED);
}

void ls_process_close(void) {
  struct ls_live *live = ls_live;
  ls_no_process.phase = LS_PHASE_OFF;
  __atomic_store_n(&live->gate, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n(&live->plain, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n(&live->phase, LS_PHASE_OFF, __ATOMIC_SEQ_CST);
}

void ls_process_off(void) { __atomic_store_n(&ls_live, &ls_no_process, __ATOMIC_SEQ_CST); }

bool ls_process_is_ours(void) {
  int pid = ls_getpid();
  return pid < 0 /* may not be asked */ || ls_started_pid == (uint32_t)pid;
}

uint32_t ls_process_number(void) {
  return __atomic_load_n(&ls_live->phase, __ATOMIC_ACQUIRE) == LS_PHASE_RUNNING ? ls_started_pid : 0;
}

bool ls_process_start(struct ls_live *live) {
  struct lsr_header *header = live->header;
  if (!ls_process_is_ours()) /* a signal handler forked meanwhile: this is the parent's recording */
    return false;
  if (!ls_depot_init(live))
    return false;
  if (live->sampled)
    ls_sample_start();
  if (!ls_rules_init())
    return false;
  if (ls_modules_rescan())
    ls_rules_clear();
  ls_timeline_init(live);
  if (ls_config.start_signal > 0 || ls_config.start_after_ns)
    header->control = 1;
  if (ls_config.start_after_ns)
    live->start_at_ns = ls_clock_ns(LS_CLOCK_MONOTONIC_COARSE) + ls_config.start_after_ns;
  if (ls_real.main_program_defines_malloc)
    header->trouble |= LSR_TROUBLE_OWN_MALLOC;
  ls_clock_pair(header);
  header->state = LSR_STATE_RUNNING;
  __atomic_store_n(&header->magic, LSR_MAGIC, __ATOMIC_RELEASE); /* last: now readable */
  __atomic_store_n(&live->gate, ++epochs, __ATOMIC_RELEASE);
  bool plain = !live->sampled && !live->min_size && live->max_size == UINT64_MAX &&
               !ls_config.from_file && !ls_real.allocator_wraps_new;
  __atomic_store_n(&live->plain, plain ? epochs : 0, __ATOMIC_RELEASE);
  return true;
}

/* ---- the slow way into a hook ---- */

/* A busy mark left by a longjmp out of a hook: we are now further out on the same stack
 * than the hook was, so that hook cannot be running any more. */
static bool busy_is_stale(struct ls_thread *thread, uintptr_t sp) {
  return thread && ls_tls.epoch == ls_live->gate && sp > ls_tls.busy && sp < thread->stack_high &&
         ls_tls.busy < thread->stack_high &&
         (ls_tls.busy >= thread->stack_low || ls_stack_reaches(thread, ls_tls.busy, 0, 0));
}

/* By a jump. Nothing of what the hook was about to note is relied on. */
static void left_in_the_middle(struct ls_thread *thread) {
  ls_locks_left();
  thread->inside = NULL;
  thread->new_frame = thread->deleted = 0;
  memset(thread->site_key, 0xff, sizeof thread->site_key);
  ls_stack_forget(thread);
  ls_tls.kind = 0;
  ls_tls.deleted = 0;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  ls_tls.busy = 0;
}

LS_COLD struct ls_thread *ls_enter_slow(bool freeing) {
  uintptr_t sp = (uintptr_t)__builtin_frame_address(0);
  if (ls_tls.busy) {
    if (!busy_is_stale(ls_tls.thread, sp)) {
      if (!ls_real.malloc)
        ls_real_resolve();
      /* The allocator calling itself is normal; only a signal handler loses events. */
      return NULL;
    }
    left_in_the_middle(ls_tls.thread);
  }
  ls_tls.busy = sp;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  struct ls_live *live = ls_live;
  if (live == &ls_no_process || live->phase == LS_PHASE_UNINIT) {
    ls_bootstrap();
    live = ls_live;
  }
  uint32_t phase = __atomic_load_n(&live->phase, __ATOMIC_ACQUIRE);
  if (phase == LS_PHASE_DORMANT || (phase == LS_PHASE_RUNNING && ls_config.from_file))
    ls_door_look(live);
  if (live->phase != LS_PHASE_RUNNING)
    goto no;
  struct lsr_header *header = live->header;
  struct ls_thread *thread = ls_tls.thread;
  if (!thread || ls_tls.epoch != live->gate)
    thread = ls_thread_register();
  if (!thread || !__atomic_load_n(&live->gate, __ATOMIC_ACQUIRE))
    goto no;
  uint32_t control = __atomic_load_n(&header->control, __ATOMIC_RELAXED);
  if (control & 1) {
    if (live->start_at_ns && ls_clock_ns(LS_CLOCK_MONOTONIC_COARSE) >= live->start_at_ns) {
      live->start_at_ns = 0;
      ls_process_pause(false);
      control = 0;
    }
  }
  if (control & 1 && !freeing) {
    thread->head->drops[LSR_DROP_PAUSED]++;
    goto no;
  }
  return thread;
no:
  ls_tls.busy = 0;
  return NULL;
}
