// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The life of the agent in a process: start at the first event, start again in a fork
 * child, the slow way into a hook, control from outside, the end.
 */
#include "apart.h"
#include "budget.h"
#include "clock.h"
#include "endings.h"
#include "exec.h"
#include "modules.h"
#include "rules.h"
#include "seal.h"
#include "space.h"
#include "stack.h"
#include "str.h"
#include "sys.h"

static struct ls_live no_process; /* until the first event: gate 0, phase UNINIT */
struct ls_live *ls_live = &no_process;
__thread struct ls_tls ls_tls;

static uint32_t started_pid; /* copied by fork: tells a child that its parent was traced */
static uint32_t epochs;

/* ---- signals that start, stop, dump ---- */

static void set_paused(bool paused) {
  struct lsr_header *header = ls_live->header;
  if (!header)
    return;
  if (paused)
    __atomic_fetch_or(&header->control, 1, __ATOMIC_RELAXED);
  else
    __atomic_fetch_and(&header->control, ~1u, __ATOMIC_RELAXED);
}

static void on_signal(int number) {
  struct lsr_header *header = ls_live->header;
  if (!header)
    return;
  if (number == ls_config.dump_signal) {
    ls_clock_pair(header);
    __atomic_fetch_add(&header->dump_requests, 1, __ATOMIC_RELAXED);
  }
  bool paused = header->control & 1;
  if (number == ls_config.start_signal && number == ls_config.stop_signal)
    set_paused(!paused);
  else if (number == ls_config.start_signal)
    set_paused(false);
  else if (number == ls_config.stop_signal)
    set_paused(true);
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
  if (ls_madvise(live, sizeof *live, 18 /* MADV_WIPEONFORK */) < 0) {
    /* Without it a child would write into its parent's recording. */
    ls_munmap(live, sizeof *live);
    return NULL;
  }
  ls_private_note(live, sizeof *live);
  return live;
}

void ls_process_close(void) {
  struct ls_live *live = ls_live;
  no_process.phase = LS_PHASE_OFF;
  __atomic_store_n(&live->gate, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n(&live->plain, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n(&live->phase, LS_PHASE_OFF, __ATOMIC_SEQ_CST);
}

void ls_process_off(void) { __atomic_store_n(&ls_live, &no_process, __ATOMIC_SEQ_CST); }

bool ls_process_is_ours(void) {
  int pid = ls_getpid();
  return pid < 0 /* may not be asked */ || started_pid == (uint32_t)pid;
}

uint32_t ls_process_number(void) {
  return __atomic_load_n(&ls_live->phase, __ATOMIC_ACQUIRE) == LS_PHASE_RUNNING ? started_pid : 0;
}

static uint32_t forked_from; /* of this process: its parent, when that was traced */

static long create_recording(void *live) {
  return ls_recording_create(live, forked_from) ? 0 : -1;
}

static bool start_recording(struct ls_live *live) {
  /* A child may begin late, when it has threads; the config file may name a running program. */
  if (ls_apart(create_recording, live) < 0)
    return false;
  struct lsr_header *header = live->header;
  live->biased = ls_membarrier(1 << 4 /* REGISTER_PRIVATE_EXPEDITED */) == 0;
  if (!ls_depot_init(live))
    return false;
  if (live->sampled)
    ls_sample_start();
  if (!ls_rules_init())
    return false;
  if (ls_modules_rescan())
    ls_rules_clear();
  ls_timeline_init(live);
  if (ls_config.start_signal > 0 || ls_config.start_after_ns) {
    header->control = 1;
  }
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

static long read_budget(void *unused) {
  (void)unused;
  ls_budget_read();
  return 0;
}

static LS_COLD void start_process(struct ls_live *live) {
  uint32_t parent = started_pid;
  int pid = ls_getpid();
  if (pid < 0) { /* a sealed child */
    live->phase = LS_PHASE_OFF;
    return;
  }
  started_pid = (uint32_t)pid;
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
  bool may_start = no_process.phase != LS_PHASE_OFF && (ls_live != &no_process || ls_seal_begin());
  ls_real_resolve();
  if (!may_start) {
    no_process.phase = LS_PHASE_OFF;
    return;
  }
  if (LS_UNLIKELY(ls_live == &no_process)) {
    struct ls_live *live = live_memory();
    if (!live) {
      no_process.phase = LS_PHASE_OFF;
      return;
    }
    struct ls_live *expected = &no_process;
    if (!__atomic_compare_exchange_n(&ls_live, &expected, live, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
      ls_munmap(live, sizeof *live);
  }
  struct ls_live *live = ls_live;
  uint32_t uninit = LS_PHASE_UNINIT;
  if (live->phase == LS_PHASE_UNINIT &&
      __atomic_compare_exchange_n(&live->phase, &uninit, LS_PHASE_STARTING, false,
                                  __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    start_process(live);
}

/* ---- the slow way into a hook ---- */

/* The config file may switch a dormant program on, or one it switched on off again. */
static LS_COLD void check_config_file(struct ls_live *live) {
  if (__atomic_add_fetch(&live->dormant_calls, 1, __ATOMIC_RELAXED) % 256)
    return;
  uint64_t now = ls_clock_ns(LS_CLOCK_MONOTONIC_COARSE), due = live->dormant_next_check;
  if (now < due || !__atomic_compare_exchange_n(&live->dormant_next_check, &due,
                                                now + 1000000000u, false, __ATOMIC_ACQ_REL,
                                                __ATOMIC_RELAXED))
    return;
  if (!ls_config_file_check())
    return;
  if (live->phase == LS_PHASE_DORMANT && ls_config.enabled) {
    live->phase = LS_PHASE_STARTING;
    bool ok = start_recording(live);
    __atomic_store_n(&live->phase, ok ? LS_PHASE_RUNNING : LS_PHASE_OFF, __ATOMIC_RELEASE);
  } else if (live->phase == LS_PHASE_RUNNING) {
    set_paused(!ls_config.enabled);
  }
}

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
  if (live == &no_process || live->phase == LS_PHASE_UNINIT) {
    ls_bootstrap();
    live = ls_live;
  }
  uint32_t phase = __atomic_load_n(&live->phase, __ATOMIC_ACQUIRE);
  if (phase == LS_PHASE_DORMANT || (phase == LS_PHASE_RUNNING && ls_config.from_file))
    check_config_file(live);
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
      set_paused(false);
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

/* ---- load and end ---- */

__attribute__((constructor)) static void on_load(void) {
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
