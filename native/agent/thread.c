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
  thread->shared_stripe = stripe == LSR_EXCLUSIVE_STRIPES;
  if (!thread->shared_stripe) {
    owners[stripe] = thread;
  } else { /* many threads: share one, with atomic adds */
    stripe += thread->tid % (LSR_STRIPES - LSR_EXCLUSIVE_STRIPES);
    if (!ls_stripe_back(stripe))
      stripe = 0;
  }
  thread->stripe = stripe;
  thread->head = head_of(stripe);
  if (!thread->shared_stripe)
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

struct ls_thread *ls_thread_register(void) {
  struct ls_live *live = ls_live;
  uintptr_t place = (uintptr_t)&ls_tls;
  struct ls_thread *thread = ls_tls.thread; /* set: same thread, new process after fork */
  bool same = thread != NULL;
  ls_lock(&live->threads_lock);
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
  thread->tid = (uint32_t)ls_gettid();
  bool ok = claim_stripe(thread);
  ls_unlock(&live->threads_lock);
  if (!ok)
    return NULL;
  ls_stack_forget(thread);
  thread->last_block = 0;
  thread->new_frame = 0;
  thread->module_epoch = ls_module_epoch();
  memset(thread->site_key, 0xff, sizeof thread->site_key);
  thread->random = ls_counter() ^ (uint64_t)thread->tid << 32;
  if (live->sampled)
    ls_sample_next(thread, ls_config.sample_bytes);
  if (!same)
    ls_stack_bounds(thread, (uintptr_t)__builtin_frame_address(0));
  thread->epoch = live->gate;
  ls_tls.thread = thread;
  return thread;
}
