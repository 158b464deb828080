// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The agent as somebody maps it into a running process, whose functions lead to it from then on.
 * It opens nothing, reads no environment, starts no thread and meets no signal; all memory that it
 * will ever use is handed over. It goes when whoever brought it takes it away, and records nothing
 * when that one is gone.
 */
#ifndef LS_INJECT
#define LS_INJECT
#endif
#include "door_inject.h"

#include "apart.h"
#include "aside.h"
#include "clock.h"
#include "config.h"
#include "door.h"
#include "endings.h"
#include "exec.h"
#include "hooks.h"
#include "loaded.h"
#include "private.h"
#include "process.h"
#include "real.h"
#include "recording.h"
#include "recording_file.h"
#include "resolve.h"
#include "seal.h"
#include "space.h"
#include "str.h"
#include "sys.h"

#define HANDED_OVER __attribute__((visibility("default"), used))

struct ls_slot *ls_slots; /* of 1 << LS_SLOT_BITS, wiped in a forked child */
uintptr_t ls_tid_offset;

HANDED_OVER struct ls_handover leakscope_handover = {.magic = LS_HANDOVER_MAGIC,
                                                     .version = LS_HANDOVER_VERSION,
                                                     .bytes = sizeof leakscope_handover,
                                                     .live_bytes = sizeof(struct ls_live),
                                                     .slots_at = &ls_slots,
                                                     .tid_offset_at = &ls_tid_offset};

struct ls_config ls_config;
struct ls_real ls_real;

/* ---- the functions that may be replaced ---- */

#define ENTRIES(each)                                                                              \
  each(malloc, ALLOCATOR) each(free, ALLOCATOR) each(calloc, ALLOCATOR) each(                      \
      realloc, ALLOCATOR) each(reallocarray, ALLOCATOR) each(posix_memalign, ALLOCATOR)            \
      each(memalign, ALLOCATOR) each(aligned_alloc, ALLOCATOR) each(valloc, ALLOCATOR) each(       \
          pvalloc, ALLOCATOR) each(cfree, ALLOCATOR) each(free_sized, ALLOCATOR)                   \
          each(free_aligned_sized, ALLOCATOR) each(_Znwm, OPERATORS) each(_Znam, OPERATORS) each(  \
              _ZnwmRKSt9nothrow_t, OPERATORS) each(_ZnamRKSt9nothrow_t, OPERATORS)                 \
              each(_ZnwmSt11align_val_t, OPERATORS) each(_ZnamSt11align_val_t, OPERATORS) each(    \
                  _ZnwmSt11align_val_tRKSt9nothrow_t,                                              \
                  OPERATORS) each(_ZnamSt11align_val_tRKSt9nothrow_t, OPERATORS)                   \
                  each(_ZdlPv, OPERATORS) each(_ZdaPv, OPERATORS) each(_ZdlPvm, OPERATORS)         \
                      each(_ZdaPvm, OPERATORS) each(_ZdlPvRKSt9nothrow_t, OPERATORS) each(         \
                          _ZdaPvRKSt9nothrow_t, OPERATORS) each(_ZdlPvSt11align_val_t, OPERATORS)  \
                          each(_ZdaPvSt11align_val_t, OPERATORS)                                   \
                              each(_ZdlPvmSt11align_val_t, OPERATORS)                              \
                                  each(_ZdaPvmSt11align_val_t, OPERATORS)                          \
                                      each(_ZdlPvSt11align_val_tRKSt9nothrow_t, OPERATORS)         \
                                          each(_ZdaPvSt11align_val_tRKSt9nothrow_t, OPERATORS)     \
                                              each(mmap, MAPPINGS) each(mmap64, MAPPINGS)          \
                                                  each(munmap, MAPPINGS) each(mremap, MAPPINGS)    \
                                                      each(sbrk, MAPPINGS) each(brk, MAPPINGS)     \
                                                          each(dlclose, LOADER) each(prctl, CALLS) \
                                                              each(syscall, CALLS)                 \
                                                                  each(mlockall, CALLS)

#define DECLARE(function, group) extern const char hook_##function[] __asm__(#function);
ENTRIES(DECLARE)

#define ROW(function, in_group) \
  {.name = #function, .group = LS_ENTRY_##in_group, .hook = hook_##function},
HANDED_OVER struct ls_entry leakscope_entries[] = {ENTRIES(ROW){.name = ""}};

static bool equal(const char *a, const char *b) {
  while (*a && *a == *b)
    a++, b++;
  return *a == *b;
}

static void *real_of(const char *name) {
  for (const struct ls_entry *entry = leakscope_entries; entry->name[0]; entry++)
    if (equal(entry->name, name))
      return entry->real;
  return NULL;
}

void *ls_next_symbol_cached(void **cache, const char *name) {
  void *found = __atomic_load_n(cache, __ATOMIC_RELAXED);
  if (!found)
    __atomic_store_n(cache, found = real_of(name), __ATOMIC_RELAXED);
  return found;
}

void ls_real_resolve(void) {
  const struct ls_handover *given = &leakscope_handover;
  ls_real.allocator_low = given->allocator_low;
  ls_real.allocator_high = given->allocator_high;
  ls_real.allocator_wraps_new = given->wraps_new;
  memcpy(ls_real.allocator_path, given->allocator, sizeof ls_real.allocator_path);
#define FILL(name) ls_real.name = (__typeof__(ls_real.name))real_of(#name)
  FILL(malloc);
  FILL(free);
  FILL(calloc);
  FILL(realloc);
  FILL(reallocarray);
  FILL(posix_memalign);
  FILL(aligned_alloc);
  FILL(memalign);
  FILL(valloc);
  FILL(pvalloc);
  FILL(free_sized);
  FILL(free_aligned_sized);
#undef FILL
}

/* ---- threads ---- */

#define PROBED 64u

/* Threads that find no slot: always busy, so nothing is recorded of them. */
static struct ls_slot crowded = {.tls = {.busy = 1}};

static void take(struct ls_slot *slot, uint32_t tid) {
  memset(&slot->tls, 0, sizeof slot->tls);
  slot->frames = 0;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  slot->tid = tid;
}

struct ls_local *ls_self_slow(uintptr_t pointer) {
  uint32_t tid = *(const uint32_t *)(pointer + ls_tid_offset),
           first = (uint32_t)(ls_slot_of(pointer) - ls_slots);
  for (uint32_t i = 0; i < PROBED; i++) {
    struct ls_slot *slot = &ls_slots[(first + i) % (1u << LS_SLOT_BITS)];
    uintptr_t found = __atomic_load_n(&slot->pointer, __ATOMIC_ACQUIRE);
    if (!found && __atomic_compare_exchange_n(&slot->pointer, &found, pointer, false,
                                              __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
      found = pointer;
    if (found != pointer)
      continue;
    if (slot->tid != tid) /* another thread that has its place now, or the first one there */
      take(slot, tid);
    return &slot->tls;
  }
  leakscope_handover.crowded = 1;
  return &crowded.tls;
}

/* ---- start ---- */

static bool map_recording(struct ls_live *live) {
  const struct ls_handover *given = &leakscope_handover;
  static struct lsr_header plan;
  uint64_t bytes = UINT64_MAX;
  for (unsigned shift = 0; shift <= 12 && bytes > given->recording_bytes; shift++) {
    memset(&plan, 0, offsetof(struct lsr_header, shards));
    bytes = ls_recording_lay_out(&plan, shift);
  }
  if (bytes > given->recording_bytes)
    return false;
  plan.file_bytes = bytes;
  plan.budget_bytes = given->budget_bytes;
  struct lsr_header *header = ls_space_adopt(live, (uint8_t *)given->recording, &plan);
  if (!ls_space_back(&plan, header, 0, plan.stripes.offset + LSR_STRIPE_HEAD_BYTES))
    return false;
  header->pid_namespace = given->pid_namespace;
  header->trouble = LSR_TROUBLE_ATTACHED;
  header->control = given->paused ? 1 : 0;
  memcpy(header->exe, given->exe, sizeof given->exe);
  memcpy(header->boot_id, given->boot_id, sizeof given->boot_id);
  return ls_recording_begin(live, header, &plan);
}

static LS_COLD void start_process(struct ls_live *live) {
  struct ls_handover *given = &leakscope_handover;
  ls_started_pid = given->pid;
  ls_config.sample_bytes = given->sample_bytes;
  ls_config.min_size = given->min_size;
  ls_config.max_size = given->max_size;
  ls_config.depth = given->depth < 1 || given->depth > LS_MAX_DEPTH ? LS_MAX_DEPTH : given->depth;
  ls_config.enabled = true;
  ls_auxiliary_adopt(given->notes, LS_HANDOVER_NOTES);
  ls_clock_init();
  uint64_t begun = ls_clock_ns(LS_CLOCK_MONOTONIC);
  ls_loaded_adopt((uintptr_t)given->main_program, (uintptr_t)given->debug, given->exe);
  ls_private_adopt((void *)given->arena, given->arena_bytes);
  ls_private_note((const void *)given->region, given->region_bytes);
  ls_private_note((const void *)given->recording, given->recording_bytes);
  bool ok = map_recording(live) && ls_process_start(live);
  given->setup_ns = ls_clock_ns(LS_CLOCK_MONOTONIC) - begun;
  __atomic_store_n(&live->phase, ok ? LS_PHASE_RUNNING : LS_PHASE_OFF, __ATOMIC_RELEASE);
}

void ls_bootstrap(void) {
  const struct ls_handover *given = &leakscope_handover;
  struct ls_live *live = (struct ls_live *)given->live;
  ls_real_resolve();
  if (ls_no_process.phase == LS_PHASE_OFF)
    return;
  __atomic_store_n(&ls_live, live, __ATOMIC_RELEASE);
  bool is_wiped = !__atomic_load_n((const uint64_t *)given->stamp, __ATOMIC_RELAXED);
  if (!is_wiped && ls_getpid() != (int)given->pid)
    return; /* between vfork and exec, in the memory of the process itself */
  uint32_t uninit = LS_PHASE_UNINIT;
  if (!__atomic_compare_exchange_n(&live->phase, &uninit,
                                   is_wiped ? LS_PHASE_OFF : LS_PHASE_STARTING, false,
                                   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    return;
  if (!is_wiped) /* else a fork child: everything is as if we were not there */
    start_process(live);
}

bool ls_door_is_left(void) {
  struct ls_handover *given = &leakscope_handover;
  uint64_t beat = __atomic_load_n(&given->beat_ns, __ATOMIC_RELAXED);
  uint64_t now = ls_clock_ns(LS_CLOCK_MONOTONIC_COARSE);
  if (!beat || now < beat || now - beat < LS_NO_BEAT_NS)
    return false;
  given->lonely = 1;
  return true;
}

void ls_door_unmap(void) {
  const struct ls_handover *given = &leakscope_handover;
  struct ls_thread *thread = ls_enter(true); /* begins, where nothing has happened yet */
  if (thread)
    ls_leave();
  static const struct ls_timespec nap = {0, 1000000};
  for (int i = 0;
       i < 1000 && __atomic_load_n(&ls_live->phase, __ATOMIC_ACQUIRE) == LS_PHASE_STARTING; i++)
    ls_nanosleep(&nap);
  ls_aside_touched((uintptr_t)given->recording, given->recording_bytes);
  if (__atomic_load_n(&ls_live->phase, __ATOMIC_ACQUIRE) != LS_PHASE_OFF)
    return;
  ls_munmap((void *)given->recording, given->recording_bytes);
  ls_munmap((void *)given->arena, given->arena_bytes);
}

/* ---- what only the other door has ---- */

long ls_apart(long (*work)(void *), void *argument) {
  (void)work, (void)argument;
  return -11; /* EAGAIN: nothing is opened, no thread is started */
}
void ls_door_look(struct ls_live *live) { (void)live; }
int ls_recording_open(void) { return -1; }
void ls_exec_end(void) {}
void ls_exec_save(const char *text) { (void)text; }
void ls_exec_memory_is_shared(void) {}
void ls_config_read(void) {}
void ls_farewell_install(void) {}
void ls_farewell_uninstall(void) {}
void ls_process_exits(void) {}
void ls_process_thread_ends(void) {}
