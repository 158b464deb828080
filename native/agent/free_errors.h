// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Frees that should not have been: of what was freed before, of no block's address, by another
 * function than the one that belongs to the allocation.
 *
 * The fast path pays for two things: one comparison of the site's family with the function that
 * frees, and a note of the block in a small ring of the thread, so that a second free can be told
 * with the first. Everything else happens for addresses that are in no table, which are rare.
 */
#ifndef LEAKSCOPE_FREE_ERRORS_H
#define LEAKSCOPE_FREE_ERRORS_H

#include "process.h"

#define LS_FREED_UNWINDS 256u     /* that a thread may have in store */
#define LS_FREED_UNWINDS_A_TICK 2u

/* Which function frees the address: what operator delete left for it, else free itself. */
LS_HOT uint32_t ls_free_via(const void *pointer) {
  uintptr_t deleted = ls_tls.deleted;
  if (LS_LIKELY(!deleted))
    return LSR_FREE_VIA_FREE;
  ls_tls.deleted = 0;
  uintptr_t via = deleted - (uintptr_t)pointer;
  return via == LSR_FREE_VIA_DELETE || via == LSR_FREE_VIA_DELETE_ARRAY ? (uint32_t)via
                                                                        : LSR_FREE_VIA_FREE;
}

/* Unwind some of the frees: each one of a program that frees now and then, a few in a
 * millisecond of one that does nothing else. */
LS_COLD void ls_freed_unwind(struct ls_thread *thread, struct ls_freed *entry, uint32_t tick,
                             uintptr_t pc, uintptr_t sp, uintptr_t fp);

/* The block was taken out of the table and is about to be freed. */
LS_HOT void ls_freed_note(struct ls_thread *thread, const struct lsr_block *block, uint32_t tick,
                          uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  uint32_t at = thread->freed_next;
  struct ls_freed *entry = &thread->freed[at];
  thread->freed_next = (at + 1) % LS_FREED;
  entry->where = 0;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  entry->what = block->what;
  entry->pc = pc;
  entry->tick = tick;
  entry->node = 0;
  if (LS_UNLIKELY(thread->freed_unwinds | (tick ^ thread->freed_tick)))
    ls_freed_unwind(thread, entry, tick, pc, sp, fp);
  __atomic_store_n(&entry->where, block->where, __ATOMIC_RELEASE);
}

/* An allocator's operator delete was recorded, which may call free() itself: that is no other free. */
static inline void ls_free_deleted(struct ls_thread *thread, uintptr_t address) {
  thread->deleted = address;
  thread->deleted_next = thread->freed_next;
}
static inline bool ls_free_is_deletes(const struct ls_thread *thread, uintptr_t address) {
  return thread->deleted == address && thread->deleted_next == thread->freed_next;
}

/* The site's counters name another family than that of `via`, or none yet. */
LS_COLD void ls_free_family(struct ls_thread *thread, const struct lsr_block *block, uint32_t via,
                            uintptr_t pc, uintptr_t sp, uintptr_t fp);

/* Nothing is recorded of an address that is about to be freed: say what is wrong with it. NULL:
 * nothing that is certain. */
LS_COLD struct lsr_free_error *ls_free_examine(struct ls_thread *thread, uintptr_t address,
                                               uint32_t via, uintptr_t pc, uintptr_t sp,
                                               uintptr_t fp);

/* The allocator came back from it. */
static inline void ls_free_returned(struct lsr_free_error *error) {
  if (LS_UNLIKELY(error != NULL))
    __atomic_fetch_add(&error->returned, 1, __ATOMIC_RELAXED);
}

#endif
