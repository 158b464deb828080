// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Call stacks: the fast path, taken when a thread allocates from the same stack again.
 *
 * The thread's previous stack is kept as the machine state in each frame and the stack
 * words that unwinding read. An unwind is a function of its starting registers and of
 * those words: when all are equal the stack is the same and is not unwound again.
 */
#ifndef LEAKSCOPE_STACK_H
#define LEAKSCOPE_STACK_H

#include "config.h"
#include "kept.h"
#include "modules.h"
#include "thread.h"

size_t ls_stack_scratch_bytes(void);
uint32_t ls_stack_capture_slow(struct ls_thread *thread, uintptr_t pc, uintptr_t sp, uintptr_t fp,
                               uint32_t *ret_depth);
LS_COLD uint32_t ls_stack_capture_foreign(struct ls_thread *thread, uintptr_t pc, uintptr_t sp,
                                          uintptr_t fp, uint32_t *ret_depth);

/* Rules changed, or the recording did: nothing that is remembered of stacks holds any more. */
void ls_stack_forget(struct ls_thread *thread);

/* The same in the child of a fork, where the memory is a copy that nobody needs. */
void ls_stack_discard(struct ls_thread *thread);

/* The thread itself unmaps, protects or replaces memory. */
void ls_stack_lost(struct ls_thread *thread, uintptr_t start, uint64_t length);

/* Whether every word that led from frame `inner` to the outermost still holds. */
LS_HOT bool ls_stack_still_valid(const struct ls_thread *thread, uint32_t inner) {
  uintptr_t difference = 0;
  const struct ls_check *check = thread->ra_checks, *end = check + inner;
  for (; check + 4 <= end; check += 4)
    difference |= (*check[0].slot ^ check[0].value) | (*check[1].slot ^ check[1].value) |
                  (*check[2].slot ^ check[2].value) | (*check[3].slot ^ check[3].value);
  for (; check < end; check++)
    difference |= *check->slot ^ check->value;
  check = thread->fp_checks;
  end = check + thread->frames[inner].fp_checks;
  for (; check < end; check++)
    difference |= *check->slot ^ check->value;
  return difference == 0;
}

/* Where the caller's registers lead. Returns the leaf's depot node. */
LS_HOT uint32_t ls_stack_capture(struct ls_thread *thread, uintptr_t pc, uintptr_t sp, uintptr_t fp,
                          uint32_t *ret_depth) {
  if (LS_UNLIKELY(thread->module_epoch != ls_module_epoch())) {
    thread->module_epoch = ls_module_epoch();
    ls_stack_forget(thread);
  }
  if (LS_UNLIKELY(sp - thread->stack_low >= thread->stack_high - thread->stack_low))
    return ls_stack_capture_foreign(thread, pc, sp, fp, ret_depth);
  uint32_t depth = thread->depth;
  if (LS_LIKELY(depth)) {
    const struct ls_frame *top = &thread->frames[depth - 1];
    if (top->pc == pc && top->sp == sp && (!top->need_fp || top->fp == fp) && !top->exact &&
        depth <= ls_config.depth && ls_stack_still_valid(thread, depth - 1)) {
      *ret_depth = depth;
      return top->node;
    }
  }
  return ls_stack_capture_slow(thread, pc, sp, fp, ret_depth);
}

/* An allocation site and its counters in the thread's stripe (NULL: no room for them). */
struct ls_stack_site {
  uint32_t site;
  struct lsr_counter *counter;
};

struct ls_stack_site ls_stack_site_slow(struct ls_thread *thread, uint8_t kind, uintptr_t pc,
                                        uintptr_t sp, uintptr_t fp);

/* The allocation site of a call from there. */
LS_HOT struct ls_stack_site ls_stack_site(struct ls_thread *thread, uint8_t kind, uintptr_t pc,
                                          uintptr_t sp, uintptr_t fp) {
  if (LS_LIKELY(sp - thread->stack_low < thread->stack_high - thread->stack_low &&
                thread->module_epoch == ls_module_epoch())) {
    const struct ls_kept_stack *kept = ls_kept_find(thread, kind, pc, sp, fp);
    if (LS_LIKELY(kept != NULL))
      return (struct ls_stack_site){kept->site, kept->counter};
  }
  return ls_stack_site_slow(thread, kind, pc, sp, fp);
}

#endif
