// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Locks in memory that a forked child finds zeroed.
 */
#ifndef LEAKSCOPE_LOCK_H
#define LEAKSCOPE_LOCK_H

#include "local.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

/* A lock in memory that a fork child finds zeroed. Held for tens of instructions; a waiter
 * soon sleeps, so that a preempted owner gets to run and a thousand waiters cost nothing. Whoever
 * holds it may have left the hook without a word: lock.c. */
struct ls_lock {
  uint32_t word; /* whose it is, 0: nobody's */
  uint32_t awaited; /* somebody may be asleep; sleep is bounded, in case this is seen too late */
  uint32_t turn;    /* how often it was taken */
};

LS_COLD void ls_lock_contended(struct ls_lock *lock);
LS_COLD void ls_lock_wake(struct ls_lock *lock);
LS_COLD void ls_locks_left(void); /* this thread is in no hook: what it holds is given back */

/* Told by where the thread's data lie; no two threads' are whole multiples of 64 GiB apart. */
LS_HOT uint32_t ls_lock_holder(uintptr_t place) { return (uint32_t)(place >> 4) | 1; }

static inline bool ls_trylock(struct ls_lock *lock) {
  uint32_t nobody = 0;
  if (LS_UNLIKELY(!__atomic_compare_exchange_n(&lock->word, &nobody, ls_lock_holder((uintptr_t)&ls_tls),
                                               false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)))
    return false;
  lock->turn++;
  return true;
}
static inline void ls_lock(struct ls_lock *lock) {
  if (LS_UNLIKELY(!ls_trylock(lock)))
    ls_lock_contended(lock);
}
static inline void ls_unlock(struct ls_lock *lock) {
  __atomic_store_n(&lock->word, 0, __ATOMIC_RELEASE);
  if (LS_UNLIKELY(__atomic_load_n(&lock->awaited, __ATOMIC_RELAXED)))
    ls_lock_wake(lock);
}

struct ls_shard;
LS_COLD void ls_shard_await(const struct ls_thread *owner, const struct ls_shard *shard);

#pragma GCC visibility pop

#endif
