// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The state of the calling thread where nobody gives us thread-local storage: a table keyed by the
 * thread pointer, which glibc and musl both keep at the place that it points to.
 *
 * Threads come with the thread pointers of those that ended, and a forked child has its parent's:
 * whose a slot is, the thread's number in the C library's own control block tells. Where that lies,
 * whoever injects us has found out.
 */
#ifndef LEAKSCOPE_SELF_H
#define LEAKSCOPE_SELF_H

#ifndef LEAKSCOPE_LOCAL_H
#error "included by local.h"
#endif

#include "sys.h"

#define LS_SLOT_BITS 14u

/* One cache line. */
struct ls_slot {
  struct ls_local tls;
  uintptr_t pointer; /* thread pointer, 0: free */
  uint32_t tid;
  uint32_t frames; /* of ours that wait for a real function: our code must stay */
};
_Static_assert(sizeof(struct ls_slot) == 64, "known to whoever detaches us");

extern struct ls_slot *ls_slots;
extern uintptr_t ls_tid_offset; /* in the control block */
LS_COLD struct ls_local *ls_self_slow(uintptr_t pointer);

LS_HOT struct ls_slot *ls_slot_of(uintptr_t pointer) {
  return &ls_slots[(pointer >> 6) * 0x9E3779B97F4A7C15ull >> (64 - LS_SLOT_BITS)];
}

LS_HOT struct ls_local *ls_self(void) {
  uintptr_t pointer = ls_thread_pointer();
  struct ls_slot *slot = ls_slot_of(pointer);
  if (LS_LIKELY(slot->pointer == pointer &&
                slot->tid == *(const uint32_t *)(pointer + ls_tid_offset)))
    return &slot->tls;
  return ls_self_slow(pointer);
}

LS_HOT void ls_frame(int change) {
  struct ls_slot *slot = (struct ls_slot *)ls_self();
  slot->frames += (uint32_t)change;
}

#define LS_REAL(call)                \
  ({                                 \
    ls_frame(1);                     \
    __auto_type ls_result_ = (call); \
    ls_frame(-1);                    \
    ls_result_;                      \
  })
#define LS_REAL_VOID(call) \
  do {                     \
    ls_frame(1);           \
    call;                  \
    ls_frame(-1);          \
  } while (0)

#endif
