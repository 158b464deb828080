// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Locks whose holder may never give them back: a signal handler of the program came in between
 * and jumped away, ended the thread, or ended the process from where it was (_exit); or the thread
 * was cancelled. The program must not wait for that: a thread that meets a lock of its own takes
 * it over, and so does one that waits for a dead thread, or too long.
 */
#include "blocks.h"
#include "clock.h"
#include "modules.h"
#include "process.h"
#include "seal.h"
#include "sys.h"

enum {
  LS_FUTEX_WAIT = 128,
  LS_FUTEX_WAKE = 129, /* both private */
  LS_ERR_INTR = 4,
  LS_ERR_AGAIN = 11,
  LS_ERR_TIMEDOUT = 110,
};

#define SHORTEST_NS 2000000
#define LONGEST_NS 250000000
/* In which the holder took no other turn. Added up from sleeps, so that time in which the whole
 * process stood still does not count. */
#define PATIENCE_NS 5000000000ll

/* What the holder left half done. The depot, the counters, the list of wrong frees and the timeline
 * make sense at every moment, as readers rely on that; others may lead the agent astray. */
static void half_done(const struct ls_lock *lock, bool by_this_thread) {
  struct ls_live *live = ls_live;
  bool harmless = lock == &live->depot_lock || lock == &live->chunks_lock ||
                  lock == &live->free_errors_lock || lock == &live->timeline_lock ||
                  ((const uint8_t *)lock >= (const uint8_t *)live->shards &&
                   (const uint8_t *)lock < (const uint8_t *)(live->shards + LSR_SHARDS));
  if (harmless && by_this_thread)
    return;
  struct lsr_header *header = live->header;
  if (!header || live->phase != LS_PHASE_RUNNING)
    return;
  ls_clock_pair(header);
  __atomic_fetch_or(&header->trouble, LSR_TROUBLE_LEFT, __ATOMIC_RELAXED);
  ls_process_close();
}

static bool holder_is_dead(uint32_t holder) {
  for (const struct ls_thread *thread = ls_threads(); thread; thread = thread->next)
    if (ls_lock_holder(thread->place) == holder)
      return ls_thread_is_dead(thread);
  return false;
}

LS_COLD void ls_lock_contended(struct ls_lock *lock) {
  static const struct ls_timespec nap = {0, 50000};
  struct ls_timespec longest = {0, SHORTEST_NS}; /* grows: many waiters must not wake for nothing */
  uint32_t me = ls_lock_holder((uintptr_t)&ls_tls), turn = lock->turn;
  int64_t waited = 0;
  bool asleep = false;
  for (unsigned spins = 0;; spins++) {
    uint32_t holder = __atomic_load_n(&lock->word, __ATOMIC_RELAXED);
    if (holder == me) {
      half_done(lock, true);
      return;
    }
    if (!holder && ls_trylock(lock)) {
      if (asleep) /* and others may still be */
        __atomic_store_n(&lock->awaited, 1, __ATOMIC_RELAXED);
      return;
    }
    if (spins < 64) {
#ifdef __x86_64__
      __builtin_ia32_pause();
#endif
      continue;
    }
    uint32_t now = __atomic_load_n(&lock->turn, __ATOMIC_RELAXED);
    if (!holder || now != turn) {
      turn = now;
      waited = 0;
      longest.nanoseconds = SHORTEST_NS;
    } else if (waited > PATIENCE_NS || (asleep && holder_is_dead(holder))) {
      if (__atomic_compare_exchange_n(&lock->word, &holder, me, false, __ATOMIC_ACQUIRE,
                                      __ATOMIC_RELAXED)) {
        lock->turn++;
        half_done(lock, false);
        return;
      }
      continue;
    }
    if (!holder)
      continue;
    asleep = true;
    __atomic_store_n(&lock->awaited, 1, __ATOMIC_RELAXED);
    if (longest.nanoseconds < LONGEST_NS)
      longest.nanoseconds *= 2;
    long rc = ls_futex(&lock->word, LS_FUTEX_WAIT, holder, &longest);
    if (rc == -LS_ERR_TIMEDOUT) {
      waited += longest.nanoseconds;
    } else if (rc < 0 && -rc != LS_ERR_INTR && -rc != LS_ERR_AGAIN) {
      if (ls_nanosleep(&nap) == 0) /* the futex is not allowed */
        waited += nap.nanoseconds;
    }
  }
}

LS_COLD void ls_lock_wake(struct ls_lock *lock) {
  __atomic_store_n(&lock->awaited, 0, __ATOMIC_RELAXED);
  ls_futex(&lock->word, LS_FUTEX_WAKE, 1, NULL);
}

static void give_back(struct ls_lock *lock, uint32_t me) {
  if (LS_LIKELY(__atomic_load_n(&lock->word, __ATOMIC_RELAXED) != me))
    return;
  half_done(lock, true);
  ls_unlock(lock);
}

LS_COLD void ls_locks_left(void) {
  struct ls_live *live = ls_live;
  uint32_t me = ls_lock_holder((uintptr_t)&ls_tls);
  struct ls_lock *const locks[] = {
      &live->depot_lock,    &live->grow_lock,    &live->chunks_lock, &live->ranges_lock,
      &live->timeline_lock, &live->threads_lock, &live->private_lock, &live->own_lock,
      &live->free_errors_lock, ls_modules_lock(),
  };
  for (unsigned i = 0; i < sizeof locks / sizeof *locks; i++)
    give_back(locks[i], me);
  for (unsigned i = 0; i < LSR_SHARDS; i++)
    give_back(&live->shards[i].lock, me);
}

#define OWNER_PATIENCE_NS 2000000000ull /* of work, likewise */

LS_COLD void ls_shard_await(const struct ls_thread *owner, const struct ls_shard *shard) {
  int clock = ls_is_sealed() ? LS_CLOCK_MONOTONIC_COARSE : LS_CLOCK_THREAD_CPUTIME;
  uint64_t begun = 0;
  for (unsigned spins = 1; __atomic_load_n(&owner->inside, __ATOMIC_ACQUIRE) == shard; spins++) {
    ls_sched_yield();
    if (spins % 1024)
      continue;
    if (ls_tgkill(ls_getpid(), (int)owner->tid, 0) < 0)
      break;
    uint64_t now = ls_clock_ns(clock);
    begun = begun ? begun : now;
    if (now - begun > OWNER_PATIENCE_NS)
      break;
  }
}
