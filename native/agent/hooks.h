// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The few instructions that every hook begins and ends with.
 */
#ifndef LEAKSCOPE_HOOKS_H
#define LEAKSCOPE_HOOKS_H

#include "config.h"
#include "real.h"
#include "record.h"

/* The registers of the hook's caller: return address, stack pointer after the return, and
 * frame pointer. Three arguments of the functions that take pc, sp, fp. */
#define LS_CALLER                                                                   \
  (uintptr_t)__builtin_extract_return_addr(__builtin_return_address(0)),            \
      (uintptr_t)__builtin_dwarf_cfa(), *(uintptr_t *)__builtin_frame_address(0)

/* Marked busy first, then anything is looked at: who takes our memory away waits for the mark to
 * go (aside.c). */
LS_HOT bool ls_mark_busy(void) {
  if (LS_UNLIKELY(ls_tls.busy))
    return false;
  ls_tls.busy = (uintptr_t)__builtin_frame_address(0);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  return true;
}

/* Where the gate is open afterwards it is not NULL. The other way round a handler could fork in
 * between. */
LS_HOT struct lsr_header *ls_header_before_gate(const struct ls_live *live) {
  struct lsr_header *header = __atomic_load_n(&live->entered, __ATOMIC_RELAXED);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  return header;
}

/* Begin a hook: the thread when the event is to be recorded, marked busy, else NULL. */
static inline __attribute__((always_inline)) struct ls_thread *ls_enter(bool freeing) {
  if (LS_LIKELY(ls_mark_busy())) {
    struct ls_thread *thread = ls_tls.thread;
    struct ls_live *live = ls_live;
    struct lsr_header *header = ls_header_before_gate(live);
    if (LS_LIKELY(thread && ls_tls.epoch == live->gate && !header->control &&
                  !ls_config.from_file))
      return thread;
    ls_tls.busy = 0;
  }
  return ls_enter_slow(freeing);
}

/* The same where every block is recorded and nothing else is to be asked; NULL: use ls_enter(). */
LS_HOT struct ls_thread *ls_enter_plain(void) {
  if (LS_LIKELY(ls_mark_busy())) {
    struct ls_thread *thread = ls_tls.thread;
    struct ls_live *live = ls_live;
    struct lsr_header *header = ls_header_before_gate(live);
    if (LS_LIKELY(thread && ls_tls.epoch == live->plain && !header->control))
      return thread;
    ls_tls.busy = 0;
  }
  return NULL;
}

static inline void ls_leave(void) { ls_tls.busy = 0; }

/* After the real function: NULL, and the hook is left, when nothing is recorded here any more. A
 * signal handler may have forked inside it, and in the child the recording is gone. */
LS_HOT struct ls_thread *ls_still(struct ls_thread *thread) {
  if (LS_LIKELY(!thread || ls_tls.epoch == __atomic_load_n(&ls_live->gate, __ATOMIC_RELAXED)))
    return thread;
  ls_tls.kind = 0;
  ls_leave();
  return NULL;
}

/* Sampled mode, the common case: no sample point falls into this block. Five
 * instructions; in exact mode `sample_left` is always 0. */
LS_HOT bool ls_sample_skips(size_t size) {
  uint64_t left = ls_tls.sample_left;
  if (LS_UNLIKELY(size >= left))
    return false;
  ls_tls.sample_left = left - size;
  return true;
}

/* The slow path's half of the decision; draws the next gap when the block is sampled. */
static inline bool ls_sample_wants(struct ls_thread *thread, size_t size) {
  if (LS_LIKELY(!ls_live->sampled))
    return true;
  if (ls_sample_skips(size))
    return false;
  ls_sample_next(thread, ls_config.sample_bytes);
  return true;
}

/* Sampled mode: this block was certainly not sampled. */
LS_HOT bool ls_filter_skips(const void *pointer) {
  return !*ls_filter_slot((uintptr_t)pointer);
}

static inline __attribute__((always_inline)) void ls_finish_alloc(struct ls_thread *thread,
                                                                  void *pointer, size_t size,
                                                                  uint8_t kind, uintptr_t pc,
                                                                  uintptr_t sp, uintptr_t fp) {
  if (LS_LIKELY(pointer != NULL))
    ls_record_alloc(thread, (uintptr_t)pointer, size, kind, pc, sp, fp);
  else
    ls_count_drop(thread, LSR_DROP_FAILED_ALLOCATION);
}

#endif
