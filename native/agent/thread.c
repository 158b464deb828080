// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Per-thread state: registered at a thread's first event, reused when the thread is
 * dead. Nobody tells us of a thread's end (that would need libc), so the next thread
 * to register looks whether earlier owners are still there.
 */
#include "bounds.h"
#include "config.h"
#include "counters.h"
#include "free_errors.h"
#include "modules.h"
#include "peek.h"
#include "private.h"
#include "process.h"
#include "sample.h"
#include "space.h"
#include "stack.h"
#include "str.h"
#include "sys.h"

enum { LS_ERR_SRCH = 3 };

#define LS_LEAVE_ATTEMPTS 5000u /* a second: a thread that does not get a processor */
#define SAME_PLACE_BUCKETS 1024u
#define CANDIDATES 4u /* looked at for a dead one by each registration */

/* Private memory: copied by fork, where it says which threads were the parent's. Under
 * threads_lock. */
static struct ls_thread *registry;
static struct ls_thread *cursor; /* the next candidate */
static struct ls_thread *by_place[SAME_PLACE_BUCKETS];
static struct ls_thread *owners[LSR_EXCLUSIVE_STRIPES]; /* of the recording `owners_epoch` */
static uint32_t owners_epoch, owners_cursor;

static bool is_dead(uint32_t tid) { return ls_tgkill(ls_getpid(), (int)tid, 0) == -LS_ERR_SRCH; }

static struct lsr_stripe_head *head_of(uint32_t stripe) {
  return (struct lsr_stripe_head *)(ls_live->stripes + stripe * LSR_STRIPE_HEAD_BYTES);
}

static uint32_t own_stripe(struct ls_thread *thread) {
  uint32_t free = LSR_EXCLUSIVE_STRIPES;
  for (uint32_t s = LSR_EXCLUSIVE_STRIPES; s-- > 0;) {
    if (owners[s] == thread)
      return s;
    if (!owners[s])
      free = s;
  }
  /* A few of those whose owner may have ended meanwhile. */
  for (unsigned n = 0; n < 2 && free == LSR_EXCLUSIVE_STRIPES; n++) {
    uint32_t s = owners_cursor++ % LSR_EXCLUSIVE_STRIPES;
    if (owners[s]->tid == thread->tid || is_dead(owners[s]->tid))
      free = s;
  }
  if (free < LSR_EXCLUSIVE_STRIPES && !ls_stripe_back(free))
    return LSR_EXCLUSIVE_STRIPES;
  return free;
}

/* False when there is no memory for the stripe's table. */
static bool claim_stripe(struct ls_thread *thread) {
  struct ls_live *live = ls_live;
  if (owners_epoch != live->gate) { /* another recording, whose stripes nobody has */
    memset(owners, 0, sizeof owners);
    owners_epoch = live->gate;
  }
  uint32_t stripe = own_stripe(thread);
  bool shared = stripe == LSR_EXCLUSIVE_STRIPES;
  if (!shared)
    owners[stripe] = thread;
  else /* many threads: share one, with atomic adds */
    stripe += thread->tid % (LSR_STRIPES - LSR_EXCLUSIVE_STRIPES);
  thread->stripe = stripe;
  thread->head = head_of(ls_stripe_back(stripe) ? stripe : 0);
  if (!shared)
    __atomic_store_n(&thread->head->owner_tid, thread->tid, __ATOMIC_RELEASE);
  return ls_counters_of_stripe(thread, stripe);
}

static struct ls_thread **bucket(uintptr_t place) {
  return &by_place[(place >> 6) * 0x9E3779B97F4A7C15ull >> 54];
}

static void leave_place(struct ls_thread *thread) {
  for (struct ls_thread **at = bucket(thread->place); *at; at = &(*at)->next_in_place)
    if (*at == thread) {
      *at = thread->next_in_place;
      return;
    }
}

static void take_place(struct ls_thread *thread, uintptr_t place) {
  struct ls_thread **head = bucket(place);
  thread->place = place;
  thread->next_in_place = *head;
  *head = thread;
}

/* A registered thread that is gone leaves its memory to the next one: the one whose
 * thread-local data lay where ours does now, for certain; else one of a few candidates, so
 * that the registry stays about as long as the busiest moment. */
static struct ls_thread *reuse(uintptr_t place) {
  for (struct ls_thread *t = *bucket(place); t; t = t->next_in_place)
    if (t->place == place)
      return t;
  for (unsigned n = 0; n < CANDIDATES; n++) {
    if (!cursor)
      cursor = registry;
    struct ls_thread *t = cursor;
    if (!t)
      break;
    cursor = t->next;
    if (is_dead(t->tid)) {
      leave_place(t);
      take_place(t, place);
      return t;
    }
  }
  return NULL;
}

bool ls_thread_is_dead(const struct ls_thread *thread) { return is_dead(thread->tid); }

struct ls_thread *ls_threads(void) { return __atomic_load_n(&registry, __ATOMIC_ACQUIRE); }

bool ls_thread_is_alone(void) { return !registry || !registry->next; }

static uint32_t number_of_thread(void) {
  static uint32_t invented;
  int tid = ls_gettid();
  return tid > 0 ? (uint32_t)tid : 1u << 31 | __atomic_add_fetch(&invented, 1, __ATOMIC_RELAXED);
}

static uint32_t registering; /* threads in the function below */

static struct ls_thread *do_register(void) {
  struct ls_live *live = ls_live;
  uintptr_t place = (uintptr_t)&ls_tls;
  uint32_t tid = number_of_thread();
  struct ls_thread *thread = ls_tls.thread; /* set: same thread, new process after fork */
  bool same = thread != NULL;
  ls_lock(&live->threads_lock);
  if (__atomic_load_n(&live->phase, __ATOMIC_ACQUIRE) != LS_PHASE_RUNNING) { /* closed meanwhile */
    ls_unlock(&live->threads_lock);
    return NULL;
  }
  if (!thread)
    thread = reuse(place);
  if (!thread) {
    ls_unlock(&live->threads_lock); /* the kernel has work to do meanwhile */
    thread = ls_private(sizeof *thread + ls_stack_scratch_bytes());
    if (!thread)
      return NULL;
    thread->steps = (struct step *)(thread + 1);
    thread->next = NULL;
    ls_lock(&live->threads_lock);
    thread->next = registry;
    registry = thread;
    take_place(thread, place);
  }
  thread->tid = tid;
  bool ok = claim_stripe(thread);
  ls_unlock(&live->threads_lock);
  if (!ok)
    return NULL;
  if (same)
    ls_stack_discard(thread);
  else
    ls_stack_forget(thread);
  thread->last_block = 0;
  thread->new_frame = 0;
  thread->deleted = 0;
  if (thread->freed_epoch != live->gate) { /* sites of another recording */
    thread->freed_epoch = 0;
    for (uint32_t i = 0; i < LS_FREED && thread->freed[i].where; i++)
      thread->freed[i].where = 0;
    thread->freed_next = 0;
    thread->freed_tick = 0;
    thread->freed_unwinds = LS_FREED_UNWINDS;
    thread->freed_epoch = live->gate;
  }
  thread->module_epoch = ls_module_epoch();
  memset(thread->site_key, 0xff, sizeof thread->site_key);
  thread->random = ls_counter() ^ (uint64_t)thread->tid << 32;
  if (live->sampled)
    ls_sample_next(thread, ls_config.sample_bytes);
  if (!same)
    ls_stack_bounds(thread, (uintptr_t)__builtin_frame_address(0));
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
  /* The storage of a dead thread may be gone, so the kernel is asked for it. */
  return thread->place != (uintptr_t)&ls_tls &&
         ls_peek(&busy, thread->place + offsetof(struct ls_local, busy), sizeof busy) && busy;
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
