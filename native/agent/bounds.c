// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * How far a thread's own stack reaches. Nothing is opened for it: the upper end is known, as
 * glibc and musl put a thread's control block on top of its stack and the kernel the program's
 * name on top of the first thread's; the lower end is what was seen to be in use, and moves
 * down with it. A coroutine's or a signal's stack is not taken for it: a gap or a guard page
 * lies between, or the call chain ends before it gets there.
 */
#include <elf.h>

#include "bounds.h"
#include "peek.h"
#include "process.h"
#include "resolve.h"
#include "stack.h"
#include "sys.h"

#define SMALLEST_STACK 16384u /* bytes; what PTHREAD_STACK_MIN allows */
#define LARGEST_STEP (64u << 20) /* a single frame may be large */
#define PAGE_OF(address) ((address) & ~(uintptr_t)4095)

/* Without the kernel's notes: feel upwards for the end of the mapping. */
static LS_COLD uintptr_t feel_for_end(uintptr_t sp) {
  uintptr_t low = PAGE_OF(sp);
  return ls_peek_run(low, low + LARGEST_STEP);
}

/* Of the stack that the process began on: the kernel put the program's name on top of it. */
static uintptr_t first_stack_end(void) { return ls_auxiliary(AT_EXECFN) & ~(uintptr_t)7; }

void ls_stack_bounds(struct ls_thread *thread, uintptr_t sp) {
  bool first = thread->tid == (uint32_t)ls_getpid();
  /* The control block is also above all frames where it lies on the stack at all. */
  uintptr_t high = ls_thread_pointer() & ~(uintptr_t)7;
  /* The only thread of a forked child goes on on the stack of the one that forked. */
  if (first && (sp >= high || !ls_live->header || !ls_live->header->forked_from)) {
    uintptr_t name = first_stack_end();
    high = name > sp ? name : feel_for_end(sp);
  }
  thread->stack_high = high;
  thread->stack_low = sp < high && high - sp < SMALLEST_STACK ? PAGE_OF(sp) : high;
  thread->strange_low = thread->strange_high = 0;
}

/* The code at a program's entry has often no unwind information, as has all of a program that
 * was built without: then its other functions end a chain as well. */
static bool is_entry_code(uintptr_t pc) {
  const struct ls_module *module = ls_module_find(pc);
  return module && module->entry && pc - module->entry < 4096;
}

bool ls_stack_reaches(struct ls_thread *thread, uintptr_t sp, uintptr_t end_sp, uintptr_t end_pc) {
  uintptr_t low = thread->stack_low;
  if (low - sp > LARGEST_STEP ||
      (sp >= thread->strange_low && sp < thread->strange_high))
    return false;
  /* The outermost function of a thread is near its thread-local storage. */
  uintptr_t high = thread->stack_high;
  uintptr_t nearest = (thread->place > sp && thread->place < high ? thread->place : high) - SMALLEST_STACK;
  if (end_sp && end_sp < (low < nearest ? low : nearest) && !is_entry_code(end_pc))
    return false;
  uintptr_t end = ls_peek_run(sp, low);
  if (end >= low) {
    thread->stack_low = PAGE_OF(sp);
    return true;
  }
  bool next_to = PAGE_OF(sp) <= thread->strange_high && end >= thread->strange_low;
  thread->strange_low = next_to && thread->strange_low < PAGE_OF(sp) ? thread->strange_low : PAGE_OF(sp);
  thread->strange_high = next_to && thread->strange_high > end ? thread->strange_high : end;
  return false;
}

/* The kernel puts no mapping where the first stack may grow to. */
#define CERTAINLY_FIRST_STACK (8u << 20)

bool ls_stack_reaches_unasked(struct ls_thread *thread, uintptr_t sp) {
  uintptr_t high = thread->stack_high;
  if (!high || high != first_stack_end() || high - sp > CERTAINLY_FIRST_STACK ||
      ls_is_readable((const void *)(sp & ~(uintptr_t)7)))
    return false;
  thread->stack_low = PAGE_OF(sp);
  return true;
}
