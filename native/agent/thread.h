// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * A thread's state: the stack it allocated from last, the stacks it remembers, its counters.
 */
#ifndef LEAKSCOPE_THREAD_H
#define LEAKSCOPE_THREAD_H

#include "local.h"
#include "leakscope/recording.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

#define LS_MAX_DEPTH 256u     /* frames kept of one stack */
#define LS_MAX_FP_CHECKS 512u /* further stack words to re-validate */

/* One frame of the thread's previous stack: the machine state in a function. */
struct ls_frame {
  uintptr_t pc;       /* return address (PAC stripped), or exact pc under a signal frame */
  uintptr_t sp;       /* stack pointer in that function at the call */
  uintptr_t fp;       /* frame pointer register there */
  uint32_t node;      /* stack depot node of the path from the outermost frame to here */
  uint16_t fp_checks; /* frame-pointer words to re-validate from here outwards */
  bool need_fp;       /* whether unwinding outwards depends on fp */
  bool exact;
};

/* A stack word that unwinding read, and what it held. Equal words and equal starting
 * registers give an equal unwind: that is why re-validation is exact. */
struct ls_check {
  const uintptr_t *slot;
  uintptr_t value;
};

/* A whole stack that the thread allocated from more than once: kept.h. */
#define LS_KEPT_WORDS 124u
struct ls_kept_stack {
  uint64_t key;
  uintptr_t pc, sp, fp;
  uintptr_t fp_mask; /* zero when unwinding does not depend on fp */
  struct lsr_counter *counter; /* of the site, in the thread's stripe */
  uint32_t site;
  uint16_t words, padded; /* padded with repetitions of the last one to a multiple of four */
  uint8_t kind;
  /* The words that unwinding read, innermost frame first: `padded` values, and behind them as
   * many uint16_t that say where each lies, in words above sp. */
  uintptr_t value[] __attribute__((aligned(64)));
};

#define LS_KEPT_BYTES (512u << 10) /* of kept stacks, the oldest given up first */
#define LS_KEPT_UNIT 64u
#define LS_KEPT_BITS 9u /* of the index: sets of four entries */
#define LS_KEPT_WAYS 4u
#define LS_KEPT_SEEN 2048u

/* A call edge: the depot's node of a frame below another. */
#define LS_EDGES 2048u
struct ls_edge {
  uintptr_t pc;
  uint32_t parent, node;
};

#define LS_SITE_CACHE 64u

/* A block that was freed lately: free_errors.h. */
#define LS_FREED 256u
struct ls_freed {
  uint64_t where; /* as in struct lsr_block; 0: being written, or none */
  uint64_t what;
  uintptr_t pc;   /* behind the call of free */
  uint32_t tick;
  uint32_t node;  /* of the whole stack, 0: not unwound */
};

struct ls_thread {
  uint32_t tid;
  uint32_t stripe;
  bool in_use;
  uint32_t module_epoch;
  const struct ls_shard *inside; /* the owned shard it is working on, NULL: none */
  uintptr_t stack_low, stack_high; /* the thread's own stack, as far as it is known to be */
  uintptr_t strange_low, strange_high; /* addresses below it that are known not to be of it */
  uintptr_t place; /* of its ls_tls, which may be gone with it */
  struct lsr_stripe_head *head;
  struct lsr_counter **chunks; /* of its stripe, by site / LSR_CHUNK_SITES; counters.h */
  uintptr_t last_block; /* address recorded last, for nested allocator entry points */
  uint64_t random;
  uintptr_t new_frame; /* stack pointer of a wrapped operator new in progress, 0: none */
  uint32_t site_key[LS_SITE_CACHE];
  uint32_t site_id[LS_SITE_CACHE];
  uint32_t freed_next; /* place in `freed` */
  uint32_t freed_tick, freed_unwinds; /* so many frees may be unwound, as of that tick */
  uint32_t freed_epoch; /* of the recording that `freed` belongs to */
  uint32_t deleted_next; /* freed_next at the time of `deleted` */
  uintptr_t deleted; /* recorded as freed by operator delete, which may call free for it */
  uint32_t depth; /* frames in use; frame 0 is outermost */
  struct ls_frame frames[LS_MAX_DEPTH];
  struct ls_check ra_checks[LS_MAX_DEPTH]; /* how frames[k] was reached from frames[k+1] */
  struct ls_check fp_checks[LS_MAX_FP_CHECKS];
  struct step *steps; /* scratch of stack.c, LS_MAX_DEPTH + 1 long */
  uint8_t *window;    /* scratch for foreign stacks, mapped on first use */
  struct ls_thread *next, *next_in_place; /* registry */
  struct ls_freed freed[LS_FREED];
  bool remembers; /* something is in edges or in kept */
  struct ls_edge edges[LS_EDGES];
  uint32_t kept_end; /* where the next kept stack goes */
  uint32_t kept_seen[LS_KEPT_SEEN]; /* of stacks met once: the depot's node */
  uint64_t kept_index[1u << LS_KEPT_BITS][LS_KEPT_WAYS];
  uint8_t kept[LS_KEPT_BYTES] __attribute__((aligned(64)));
};

struct ls_thread *ls_thread_register(void);
void ls_threads_leave(void); /* each other one was once out of hooks, or a second is over */
bool ls_thread_is_dead(const struct ls_thread *thread);
bool ls_thread_is_alone(void); /* no other was ever registered */
struct ls_thread *ls_threads(void); /* all that ever were, by `next` */

#pragma GCC visibility pop

#endif
