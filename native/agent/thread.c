// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Per-thread state: registered at a thread's first event, reused when the thread is
 * dead. Nobody tells us of a thread's end (that would need libc), so the next thread
 * to register looks whether earlier owners are still there.
 */
#include "agent.h"
#include "modules.h"
#include "stack.h"
#include "str.h"
#include "sys.h"

enum { LS_ERR_SRCH = 3 };

#define LS_LEAVE_ATTEMPTS 5000u /* a second: a thread that does not get a processor */

static struct ls_thread *registry; /* private memory: copied by fork, pruned there */

static bool is_dead(uint32_t tid) { return ls_tgkill(ls_getpid(), (int)tid, 0) == -LS_ERR_SRCH; }

static struct lsr_stripe_head *head_of(uint32_t stripe) {
  return (struct lsr_stripe_head *)(ls_live->stripes + stripe * LSR_STRIPE_HEAD_BYTES);
}

/* False when there is no memory for the stripe's table. */
static bool claim_stripe(struct ls_thread *thread) {
  for (unsigned pass = 0; pass < 2; pass++)
    for (uint32_t s = 0; s < LSR_EXCLUSIVE_STRIPES; s++) {
      if (!ls_stripe_back(s))
        continue;
      struct lsr_stripe_head *head = head_of(s);
      uint32_t owner = __atomic_load_n(&head->owner_tid, __ATOMIC_ACQUIRE);
      if (owner && owner != thread->tid && (!pass || !is_dead(owner)))
        continue;
      if (__atomic_compare_exchange_n(&head->owner_tid, &owner, thread->tid, false,
                                      __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
        thread->stripe = s;
        goto done;
      }
    }
  /* Many threads: share a stripe, with atomic adds. */
  uint32_t s = LSR_EXCLUSIVE_STRIPES + thread->tid % (LSR_STRIPES - LSR_EXCLUSIVE_STRIPES);
  if (!ls_stripe_back(s))
    return false;
  thread->stripe = s;
done:
  thread->head = head_of(thread->stripe);
  return ls_counters_of_stripe(thread, thread->stripe);
}

/* A registered thread that is gone leaves its memory to the next one. Each registration
 * looks at a few candidates, so the registry stays about as long as the busiest moment. */
static struct ls_thread *reuse(void) {
  static uint32_t cursor;
  uint32_t seen = 0, start = cursor;
  uint32_t position = 0;
  for (struct ls_thread *t = registry; t; t = t->next, position++) {
    if (position < start)
      continue;
    cursor = position + 1;
    if (is_dead(t->tid))
      return t;
    if (++seen == 8)
      return NULL;
  }
  cursor = 0;
  return NULL;
}

bool ls_thread_is_alone(void) { return registry && !registry->next; }

/* Where the kernel may not be asked who lives: a thread whose storage is this one's is gone. */
static struct ls_thread *predecessor(void) {
  struct ls_thread *t = registry;
  while (t && t->tls != &ls_tls)
    t = t->next;
  return t;
}

static uint32_t number_of_thread(void) {
  static uint32_t invented;
  int tid = ls_gettid();
  return tid > 0 ? (uint32_t)tid : 1u << 31 | __atomic_add_fetch(&invented, 1, __ATOMIC_RELAXED);
}

static uint32_t registering; /* threads in the function below */

static struct ls_thread *do_register(void) {
  struct ls_live *live = ls_live;
  uint32_t tid = number_of_thread();
  struct ls_thread *thread = ls_tls.thread; /* set: same thread, new process after fork */
  ls_lock(&live->threads_lock);
  if (__atomic_load_n(&live->phase, __ATOMIC_ACQUIRE) != LS_PHASE_RUNNING) { /* closed meanwhile */
    ls_unlock(&live->threads_lock);
    return NULL;
  }
  if (!thread)
    thread = ls_is_sealed() ? predecessor() : reuse();
  if (!thread) {
    size_t bytes = sizeof *thread + ls_stack_scratch_bytes();
    thread = ls_private(bytes);
    if (!thread) {
      ls_unlock(&live->threads_lock);
      return NULL;
    }
    thread->steps = (struct step *)(thread + 1);
    thread->next = registry;
    registry = thread;
  }
  thread->tls = &ls_tls;
  thread->tid = tid;
  bool ok = claim_stripe(thread);
  ls_unlock(&live->threads_lock);
  if (!ok)
    return NULL;
  ls_stack_forget(thread);
  thread->last_block = 0;
  thread->new_frame = 0;
  thread->module_epoch = ls_module_epoch();
  memset(thread->site_key, 0xff, sizeof thread->site_key);
  thread->random = ls_counter() ^ (uint64_t)tid << 32;
  if (live->sampled)
    ls_sample_next(thread, ls_config.sample_bytes);
  thread->bounds_tries = 0;
  ls_stack_begin(thread, (uintptr_t)__builtin_frame_address(0));
  ls_tls.thread = thread;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  uint32_t gate = __atomic_load_n(&live->gate, __ATOMIC_RELAXED);
  ls_tls.epoch = gate ? gate : UINT32_MAX; /* closed meanwhile: equal to no gate */
  return thread;
}

struct ls_thread *ls_thread_register(void) {
  __atomic_fetch_add(&registering, 1, __ATOMIC_SEQ_CST);
  struct ls_thread *thread = do_register();
  __atomic_fetch_sub(&registering, 1, __ATOMIC_SEQ_CST);
  return thread;
}

static bool is_in_hook(const struct ls_thread *thread) {
  uintptr_t busy = 0;
  struct ls_iovec local = {&busy, sizeof busy}, remote = {(void *)&thread->tls->busy, sizeof busy};
  /* The storage of a dead thread may be gone, so the kernel is asked for it. */
  return thread->tls && thread->tls != &ls_tls &&
         ls_process_vm_readv(ls_getpid(), &local, 1, &remote, 1, 0) == sizeof busy && busy;
}

void ls_threads_leave(void) {
  static const struct ls_timespec nap = {0, 200000};
  uint32_t attempts = 0;
  /* Afterwards all are in the list, and nobody comes to it. */
  while (__atomic_load_n(&registering, __ATOMIC_SEQ_CST) && attempts++ < LS_LEAVE_ATTEMPTS)
    ls_nanosleep(&nap);
  for (struct ls_thread *t = __atomic_load_n(&registry, __ATOMIC_ACQUIRE); t; t = t->next)
    while (is_in_hook(t) && !is_dead(t->tid) && attempts++ < LS_LEAVE_ATTEMPTS)
      ls_nanosleep(&nap);
}
