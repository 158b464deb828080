// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The agent as the loader brings it in: start at the first event, start again in a fork child,
 * signals that steer, the end of the process.
 */
#include "apart.h"
#include "budget.h"
#include "clock.h"
#include "config.h"
#include "door.h"
#include "endings.h"
#include "exec.h"
#include "farewell.h"
#include "modules.h"
#include "private.h"
#include "process.h"
#include "real.h"
#include "recording.h"
#include "recording_file.h"
#include "resolve.h"
#include "rules.h"
#include "seal.h"
#include "space.h"
#include "stack.h"
#include "str.h"
#include "sys.h"
#include "timeline.h"

__thread struct ls_local ls_tls;

/* ---- signals that start, stop, dump ---- */

static void on_signal(int number) {
  struct lsr_header *header = ls_own_header();
  if (!header)
    return;
  if (number == ls_config.dump_signal) {
    ls_clock_pair(header);
    __atomic_fetch_add(&header->dump_requests, 1, __ATOMIC_RELAXED);
  }
  bool paused = header->control & 1;
  if (number == ls_config.start_signal && number == ls_config.stop_signal)
    ls_process_pause(!paused);
  else if (number == ls_config.start_signal)
    ls_process_pause(false);
  else if (number == ls_config.stop_signal)
    ls_process_pause(true);
}

static void install_signals(void) {
  int numbers[] = {ls_config.start_signal, ls_config.stop_signal, ls_config.dump_signal};
  for (size_t i = 0; i < 3; i++)
    if (numbers[i] > 0)
      ls_signal_handler(numbers[i], on_signal);
}

/* ---- start ---- */

static struct ls_live *live_memory(void) {
  struct ls_live *live = ls_mmap(NULL, sizeof *live, 3, 0x22 /* PRIVATE|ANONYMOUS */, -1, 0);
  if ((intptr_t)live <= 0 && (intptr_t)live >= -4095)
    return NULL;
  if (ls_madvise(live, LS_LIVE_WIPED, 18 /* MADV_WIPEONFORK */) < 0) {
    /* Without it a child would write into its parent's recording. */
    ls_munmap(live, sizeof *live);
    return NULL;
  }
  ls_private_note(live, sizeof *live);
  return live;
}

static uint32_t forked_from; /* of this process: its parent, when that was traced */

static long create_recording(void *live) { return ls_recording_create(live, forked_from) ? 0 : -1; }

static bool start_recording(struct ls_live *live) {
  /* A child may begin late, when it has threads; the config file may name a running program. */
  if (ls_apart(create_recording, live) < 0)
    return false;
  live->biased = ls_membarrier(1 << 4 /* REGISTER_PRIVATE_EXPEDITED */) == 0;
  return ls_process_start(live);
}

static long read_budget(void *unused) {
  (void)unused;
  ls_budget_read();
  return 0;
}

/* What fork copied of the parent's; no hook is in progress any more. */
static void forget_parent(struct ls_live *live) {
  uint8_t *copied = (uint8_t *)live + LS_LIVE_WIPED;
  size_t bytes = sizeof *live - LS_LIVE_WIPED;
  if (ls_madvise(copied, bytes, 4 /* DONTNEED */) < 0)
    memset(copied, 0, bytes);
}

static LS_COLD void start_process(struct ls_live *live) {
  uint32_t parent = ls_started_pid;
  if (parent)
    forget_parent(live);
  int pid = ls_getpid();
  if (pid < 0) { /* a sealed child */
    live->phase = LS_PHASE_OFF;
    return;
  }
  ls_started_pid = (uint32_t)pid;
  forked_from = parent;
  if (parent) {
    ls_farewell_after_fork();
    if (!ls_modules_reset_after_fork())
      ls_rules_reset_after_fork();
  } else {
    ls_clock_init();
    ls_config_read();
    ls_apart(read_budget, NULL);
  }
  if (parent && ls_is_sealed())
    ls_seal_hand_over();
  if (!ls_config.enabled) {
    ls_space_unmap();
    live->phase = ls_config.config_path[0] ? LS_PHASE_DORMANT : LS_PHASE_OFF;
    return;
  }
  if (parent && !ls_config.children) {
    ls_space_unmap(); /* the parent's recording; a child's of its own takes its place */
    live->phase = LS_PHASE_OFF;
    return;
  }
  if (ls_config.left_out) {
    live->phase = LS_PHASE_OFF;
    if (!parent && ls_config.children) /* what it starts may be recorded */
      ls_exec_begin();
    return;
  }
  if (!start_recording(live)) {
    ls_space_unmap();
    live->phase = LS_PHASE_OFF;
    if (parent) /* it became another user, or has another root directory */
      ls_exec_note(LSR_START_MUTE, (uint32_t)ls_getpid(), ls_exec_program());
    return;
  }
  if (!parent) {
    if (ls_config.children && !ls_config.from_file)
      ls_exec_begin();
    install_signals();
    ls_farewell_install();
  }
  __atomic_store_n(&live->phase, LS_PHASE_RUNNING, __ATOMIC_RELEASE);
}

void ls_bootstrap(void) {
  bool may_start =
      ls_no_process.phase != LS_PHASE_OFF && (ls_live != &ls_no_process || ls_seal_begin());
  ls_real_resolve();
  if (!may_start) {
    ls_no_process.phase = LS_PHASE_OFF;
    return;
  }
  if (LS_UNLIKELY(ls_live == &ls_no_process)) {
    struct ls_live *live = live_memory();
    if (!live) {
      ls_no_process.phase = LS_PHASE_OFF;
      return;
    }
    struct ls_live *expected = &ls_no_process;
    if (!__atomic_compare_exchange_n(&ls_live, &expected, live, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
      ls_munmap(live, sizeof *live);
  }
  struct ls_live *live = ls_live;
  uint32_t uninit = LS_PHASE_UNINIT;
  if (live->phase == LS_PHASE_UNINIT &&
      __atomic_compare_exchange_n(&live->phase, &uninit, LS_PHASE_STARTING, false, __ATOMIC_ACQ_REL,
                                  __ATOMIC_ACQUIRE))
    start_process(live);
}

/* The config file may switch a dormant program on, or one it switched on off again. */
LS_COLD void ls_door_look(struct ls_live *live) {
  if (__atomic_add_fetch(&live->dormant_calls, 1, __ATOMIC_RELAXED) % 256)
    return;
  uint64_t now = ls_clock_ns(LS_CLOCK_MONOTONIC_COARSE), due = live->dormant_next_check;
  if (now < due || !__atomic_compare_exchange_n(&live->dormant_next_check, &due, now + 1000000000u,
                                                false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
    return;
  if (!ls_config_file_check())
    return;
  if (live->phase == LS_PHASE_DORMANT && ls_config.enabled) {
    live->phase = LS_PHASE_STARTING;
    bool ok = start_recording(live);
    __atomic_store_n(&live->phase, ok ? LS_PHASE_RUNNING : LS_PHASE_OFF, __ATOMIC_RELEASE);
  } else if (live->phase == LS_PHASE_RUNNING) {
    ls_process_pause(!ls_config.enabled);
  }
}

/* ---- load and end ---- */

__attribute__((constructor)) static void on_load(void) {
  ls_next_symbols_find();
  /* Also programs that never allocate leave a recording. */
  if (!ls_tls.busy) {
    ls_tls.busy = (uintptr_t)__builtin_frame_address(0);
    ls_bootstrap();
    /* Now, while /proc is certainly there and descriptors are free. */
    if (ls_live->phase == LS_PHASE_RUNNING && !ls_tls.thread)
      ls_thread_register();
    ls_tls.busy = 0;
  }
}

static bool is_runtime(const struct lsr_module *module) {
  static const char *const names[] = {"libc.", "libc-", "ld-", "libleakscope-"};
  const char *path = ls_live->strings + module->path_offset;
  const char *base = path;
  for (const char *c = path; *c; c++)
    if (*c == '/')
      base = c + 1;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *name = names[i], *c = base;
    while (*name && *name == *c)
      name++, c++;
    if (!*name)
      return true;
  }
  return false;
}

/* After main has returned, its frames lie below those of exit and still hold its variables,
 * and gaps in the frames of exit do too. Where nothing but the C library's start and end is
 * left on the stack, the stack ends at the start: returns where. 0: in doubt, or not so. */
static uintptr_t stack_behind_main(void) {
  struct ls_live *live = ls_live;
  struct ls_thread *thread = ls_tls.thread;
  if (!ls_config.scan_socket[0] || !thread || ls_tls.epoch != live->gate)
    return 0;
  uint32_t depth;
  uint32_t node = ls_stack_capture(thread, (uintptr_t)__builtin_return_address(0),
                                   (uintptr_t)__builtin_dwarf_cfa(),
                                   *(uintptr_t *)__builtin_frame_address(0), &depth);
  const struct lsr_module *modules = live->modules;
  uint32_t outer = 0; /* frames of the program at the outer end */
  for (; node; node = live->nodes[node].parent) {
    uint16_t module = live->nodes[node].module;
    if (!module || live->nodes[node].flags & (LSR_NODE_BROKEN | LSR_NODE_TRUNCATED))
      return 0;
    if (!is_runtime(&modules[module - 1]))
      outer++;
    else if (outer)
      return 0; /* main, or whoever called exit, is still there */
  }
  return outer >= 1 && outer <= 2 && thread->depth ? thread->frames[0].sp : 0;
}

/* The program is about to end by its own will: complete the recording. */
void ls_process_ends_as(enum ls_farewell_kind kind) {
  struct ls_live *live = ls_live;
  if (!live) /* called before we were relocated, from an ifunc's resolver */
    return;
  if (live->phase != LS_PHASE_RUNNING || !ls_process_is_ours())
    return;
  uintptr_t busy = ls_tls.busy;
  ls_tls.busy = (uintptr_t)__builtin_frame_address(0);
  __atomic_store_n(&live->timeline_next, 0, __ATOMIC_RELAXED);
  ls_timeline_row(ls_tick());
  ls_clock_pair(live->header);
  live->header->state = LSR_STATE_EXITED;
  ls_farewell(stack_behind_main(), kind);
  ls_tls.busy = busy;
}

void ls_process_ends(void) { ls_process_ends_as(LS_FAREWELL); }
void ls_process_thread_ends(void) {
  /* Other threads would see it through; in strict mode there is no other way to end. */
  if (ls_is_sealed() && ls_thread_is_alone())
    ls_process_ends();
}

__attribute__((destructor)) static void on_exit(void) { ls_process_ends(); }
