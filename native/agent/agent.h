// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * What the agent's files share: the per-process state, the per-thread state and the
 * law they all obey.
 *
 * Law of the hook: no allocation but raw mmap, no lock the host can hold, no libc,
 * errno kept, bounded stack, async-signal- and fork-safe. Never abort or stop the
 * host: on trouble count it, stop recording, say so in the recording.
 */
#ifndef LEAKSCOPE_AGENT_H
#define LEAKSCOPE_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "leakscope/recording.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

#define LS_EXPORT __attribute__((visibility("default")))
#define LS_LIKELY(x) __builtin_expect(!!(x), 1)
#define LS_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define LS_HOT static inline __attribute__((always_inline))
#define LS_COLD __attribute__((noinline, cold))

#define LS_MAX_DEPTH 256u     /* frames kept of one stack */
#define LS_MAX_FP_CHECKS 512u /* further stack words to re-validate */
#define LS_FILTER_BITS 14u      /* sampled mode: counting filter over sampled addresses */
#define LS_FILTER_SLOTS (1u << LS_FILTER_BITS)
#define LS_LIVE_WIPED 4096 /* bytes of struct ls_live that the kernel wipes in a fork child */

/* A lock in memory that a fork child finds zeroed. Held for tens of instructions; a waiter
 * soon sleeps, so that a preempted owner gets to run and a thousand waiters cost nothing. Whoever
 * holds it may have left the hook without a word: lock.c. */
struct ls_lock {
  uint32_t word; /* whose it is, 0: nobody's */
  uint32_t awaited; /* somebody may be asleep; sleep is bounded, in case this is seen too late */
  uint32_t turn;    /* how often it was taken */
};

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

/* Thread-local state; 48 bytes of initial-exec TLS. */
struct ls_local {
  struct ls_thread *thread;
  uintptr_t busy; /* stack pointer of the hook in progress, 0: none */
  uint64_t sample_left; /* sampled mode: bytes to the next sample point; 0: take the slow path */
  uint32_t kind;  /* 1 + enum lsr_kind that the next malloc stands for, 0: malloc */
  uint32_t epoch; /* equals ls_live.gate while recording; `thread` may be gone when not */
  size_t kind_size; /* asked of the operator new[] that `kind` is of */
  uintptr_t deleted; /* the next free of this address less LSR_FREE_VIA_…: of operator delete. 0: none */
};
#ifdef LS_INJECT /* mapped by hand, where there is no thread-local storage to be had */
#include "self.h"
#define ls_tls (*ls_self())
#else
extern __thread struct ls_local ls_tls;
/* Around a call of the real function from a frame of ours. */
#define LS_REAL(call) (call)
#define LS_REAL_VOID(call) (call)
#endif

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

enum ls_phase {
  LS_PHASE_UNINIT = 0, /* also what a fork child finds */
  LS_PHASE_STARTING,
  LS_PHASE_RUNNING,
  LS_PHASE_DORMANT, /* preloaded but not asked to record; watches the config file */
  LS_PHASE_OFF,     /* cannot or must not record */
};

struct ls_shard {
  struct ls_thread *owner; /* enters without the lock; NULL: everyone takes it */
  struct ls_lock lock;
  uint32_t live;
  uint32_t buckets; /* 0: no table yet */
  uint32_t grow_at;
  struct lsr_block *table;
  uint8_t *passed; /* a byte a bucket: blocks may lie behind it for which it had no room */
  uint8_t pad[16];
};
_Static_assert(sizeof(struct ls_shard) == 64, "one cache line a shard");

struct ls_index {
  uint32_t mask;
  uint32_t slots[];
};

/* Per-process state. A fork child sees zeroes in its first page, so nothing is recorded and the
 * phase is UNINIT. The rest it throws away when it begins (start_process), every lock with it: until
 * then there may be a hook to finish, because a signal handler forked in the middle of one. */
struct ls_live {
  uint32_t gate;  /* epoch of the running recording, 0: take the slow path */
  uint32_t plain; /* the same where every block is recorded, by the C library's malloc */
  uint32_t phase; /* enum ls_phase */
  uint32_t timeline_next; /* tick of the next timeline row */
  struct lsr_header *entered; /* `header`, where hooks begin; loaded before the gate */
  uint64_t clock_start; /* ns of CLOCK_MONOTONIC_COARSE at tick 0 */
  uint32_t sampled;
  uint32_t biased; /* the kernel has membarrier: shards may have owners */
  uint64_t min_size, max_size;
  /* A fork child keeps what follows. NULL: nothing was recorded here, or by its parent. */
  struct lsr_header *header __attribute__((aligned(LS_LIVE_WIPED)));
  /* Tables move when they grow; where they were stays readable. An id that was loaded with
   * acquire lies in the table that is loaded after it. */
  struct lsr_module *modules;
  char *strings;
  struct lsr_node *nodes;
  struct lsr_site *sites;
  struct lsr_range *ranges;
  struct lsr_chunk *chunks;
  struct lsr_free_error *free_errors; /* NULL: none yet */
  uint8_t *stripes; /* their heads */
  struct ls_index *node_index;
  struct ls_index *site_index;
  struct lsr_counter **chunk_tables[LSR_STRIPES]; /* NULL: the stripe has no counters */
  struct ls_lock depot_lock, grow_lock, chunks_lock, ranges_lock, timeline_lock, threads_lock, private_lock,
      own_lock, free_errors_lock;
  uint32_t timeline_order[LSR_TIMELINE_ROWS];
  uint32_t timeline_rows;
  struct lsr_timeline_entry *row_entries[LSR_TIMELINE_ROWS]; /* where header->rows[i].offset is */
  uint64_t dormant_next_check;
  uint64_t start_at_ns; /* CLOCK_MONOTONIC; 0: none */
  uint32_t range_root, range_free; /* ranges.c: nodes of the order by address, 0: none */
  uint32_t stripes_backed; /* bit a stripe whose head page is backed */
  uint32_t dormant_calls;
  uint32_t frees_examined; /* of unknown blocks */
  struct ls_shard shards[LSR_SHARDS] __attribute__((aligned(64)));
};

extern struct ls_live *ls_live; /* never NULL after ls_bootstrap() */

/* Of this process; NULL also in a fork child that has not begun. */
static inline struct lsr_header *ls_own_header(void) {
  return __atomic_load_n(&ls_live->phase, __ATOMIC_ACQUIRE) == LS_PHASE_UNINIT ? NULL : ls_live->header;
}

#define LS_FILTERS_UNKNOWN UINT32_MAX
struct ls_config {
  char dir[512];
  uint64_t sample_bytes, min_size, max_size;
  uint64_t start_after_ns;
  uint32_t depth;
  uint32_t keep;       /* recordings of ended processes in `dir`; 0: all */
  uint64_t keep_bytes; /* all recordings there together */
  int start_signal, stop_signal, dump_signal;
  bool children;
  bool enabled;     /* LEAKSCOPE_DIR was given, or the config file names this program */
  bool from_file;   /* enabled by the config file */
  char config_path[256];
  int64_t config_mtime;
  uint32_t filters; /* that whoever started us lives under too, and tried; LS_FILTERS_UNKNOWN */
  char only[256], exclude[256]; /* names of programs, with * and ?, between slashes */
  bool left_out;                /* they leave this program out: it records nothing */
  char scan_socket[108]; /* who scans memory before this process ends; empty: nobody */
};
extern struct ls_config ls_config;

/* real.c: the allocator underneath. */
struct ls_real {
  void *(*malloc)(size_t);
  void (*free)(void *);
  void *(*calloc)(size_t, size_t);
  void *(*realloc)(void *, size_t);
  void *(*reallocarray)(void *, size_t, size_t);
  int (*posix_memalign)(void **, size_t, size_t);
  void *(*aligned_alloc)(size_t, size_t);
  void *(*memalign)(size_t, size_t);
  void *(*valloc)(size_t);
  void *(*pvalloc)(size_t);
  void (*free_sized)(void *, size_t);
  void (*free_aligned_sized)(void *, size_t, size_t);
  uintptr_t allocator_low, allocator_high; /* the object that defines malloc */
  bool allocator_wraps_new; /* it defines operator new too (jemalloc, tcmalloc) */
  bool main_program_defines_malloc; /* our hooks are bypassed */
  char allocator_path[128];
};
extern struct ls_real ls_real;
void ls_real_resolve(void);

/* thread.c */
bool ls_thread_is_alone(void); /* no other was ever registered */
struct ls_thread *ls_threads(void); /* all that ever were, by `next` */

/* private.c: memory of our own, known to whoever scans for pointers. NULL when there is none. */
void *ls_private(size_t bytes);
void ls_private_adopt(void *start, size_t bytes); /* from here on nothing is mapped for it */
void ls_private_note(const void *start, size_t bytes);
void ls_private_tell(struct lsr_header *header);
bool ls_private_holds(uintptr_t start, uintptr_t end); /* some of it */
void ls_private_unlock(void);
void ls_unlock_own(void); /* the program locked all of its memory: not ours */

/* endings.c: fatal signals. In a fork child that is the first of its namespace, none is met. */
void ls_farewell_install(void);
void ls_farewell_after_fork(void);

/* process.c */
bool ls_process_is_ours(void); /* false in a vfork child, which borrows its parent's memory */
uint32_t ls_process_number(void); /* as it was at the start; 0: not yet known. Asks nobody */
void ls_process_ends(void);
void ls_process_thread_ends(void); /* by a system call, without its C library */
/* For good, in this process and its children: nothing is recorded any more; and, when no thread
 * is in a hook, nothing is used any more. */
void ls_process_close(void);
void ls_process_off(void);
void ls_bootstrap(void);
LS_COLD struct ls_thread *ls_enter_slow(bool freeing);

/* aside.c: the program unmaps, protects or replaces memory that it did not make. */
void ls_aside_touched(uintptr_t start, uint64_t length);
bool ls_aside_destroys(int advice); /* of madvise: what is there, now or in a child, or who may have it */

/* config.c */
void ls_config_read(void);
bool ls_config_file_check(void); /* whether the file's answer changed */

/* recording.c */
bool ls_recording_create(struct ls_live *live, uint32_t forked_from);
const char *ls_recording_path(void);
int ls_recording_open(void);

/* space.c: growth. False or NULL when there is no room. */
bool ls_stripe_back(uint32_t stripe);
bool ls_area_grow(struct lsr_area *area, uint64_t needed);
uint8_t *ls_heap_take(uint64_t bytes, uint64_t *ret_offset);
void ls_heap_release(uint8_t *at, uint64_t offset, uint64_t bytes);
intptr_t ls_module_bias(uint16_t index_plus_1);

/* While paused, what is freed is recorded and what is allocated is not. */
static inline bool ls_paused(const struct ls_live *live) {
  return __atomic_load_n(&live->header->control, __ATOMIC_RELAXED) & 1;
}

static inline uint64_t ls_block_what(uint64_t size, uint32_t tick) {
  uint64_t coded = size;
  if (LS_UNLIKELY(size >> LSR_BLOCK_SIZE_BITS)) {
    coded = (size + 4095) >> 12;
    if (coded >> LSR_BLOCK_SIZE_BITS)
      coded = (1ULL << LSR_BLOCK_SIZE_BITS) - 1;
    coded |= 1ULL << LSR_BLOCK_SIZE_BITS;
  }
  return coded | (uint64_t)tick << 32;
}
static inline uint64_t ls_block_size(const struct lsr_block *block) {
  uint64_t coded = block->what & ((1ULL << LSR_BLOCK_SIZE_BITS) - 1);
  return block->what >> LSR_BLOCK_SIZE_BITS & 1 ? coded << 12 : coded;
}
static inline uint32_t ls_block_birth(const struct lsr_block *block) {
  return (uint32_t)(block->what >> 32);
}
static inline uint32_t ls_block_site(const struct lsr_block *block) {
  return (uint32_t)(block->where >> LSR_BLOCK_ADDRESS_BITS);
}

/* depot.c: stacks and sites. */
bool ls_depot_init(struct ls_live *live);
uint32_t ls_depot_node(uint32_t parent, uint16_t module, uint16_t flags, uint64_t offset);
LS_COLD uint32_t ls_depot_find_site(struct ls_thread *thread, uint32_t node, uint8_t kind,
                                    uint32_t depth);
static inline uint32_t ls_depot_site(struct ls_thread *thread, uint32_t node, uint8_t kind,
                                     uint32_t depth) {
  uint32_t slot = (node ^ kind) % LS_SITE_CACHE;
  if (LS_LIKELY(thread->site_key[slot] == (node << 3 | kind)))
    return thread->site_id[slot];
  return ls_depot_find_site(thread, node, kind, depth);
}

/* counters.c */
bool ls_counters_of_stripe(struct ls_thread *thread, uint32_t stripe); /* false: no memory */

/* stack.c */
void ls_stack_bounds(struct ls_thread *thread, uintptr_t sp);
size_t ls_stack_scratch_bytes(void);

/* thread.c */
struct ls_thread *ls_thread_register(void);
void ls_threads_leave(void); /* each other one was once out of hooks, or a second is over */
bool ls_thread_is_dead(const struct ls_thread *thread);

/* timeline.c */
void ls_timeline_init(struct ls_live *live);
LS_COLD void ls_timeline_row(uint32_t tick);

/* sample.c */
void ls_sample_next(struct ls_thread *thread, uint64_t mean);
double ls_sample_weight(uint64_t size, uint64_t mean);
extern uint8_t ls_sample_filter[LS_FILTER_SLOTS];
extern uint64_t ls_sample_hash;
void ls_sample_start(void);

/* ranges.c */
void ls_range_add(struct ls_thread *thread, uintptr_t start, uint64_t length, uint8_t kind,
                  uintptr_t pc, uintptr_t sp, uintptr_t fp);
void ls_range_remove(struct ls_thread *thread, uintptr_t start, uint64_t length);

/* record.c: what the hooks call between the real functions. */
void ls_record_alloc(struct ls_thread *thread, uintptr_t address, uint64_t size, uint8_t kind,
                     uintptr_t pc, uintptr_t sp, uintptr_t fp);
bool ls_record_free(struct ls_thread *thread, uintptr_t address, uint32_t via, uintptr_t pc,
                    uintptr_t sp, uintptr_t fp); /* false: no such block */
bool ls_record_take(struct ls_thread *thread, uintptr_t address, struct lsr_block *ret);
void ls_record_put_back(struct ls_thread *thread, const struct lsr_block *block);
void ls_record_taken_died(struct ls_thread *thread, const struct lsr_block *block, bool moved,
                          uintptr_t pc, uintptr_t sp, uintptr_t fp);
void ls_count_resize(struct ls_thread *thread, uint32_t site, uint64_t freed, bool split);
void ls_count_drop(struct ls_thread *thread, enum lsr_drop reason);
void ls_count_drop_anywhere(enum lsr_drop reason); /* without a thread: stripe 0, atomic */

#pragma GCC visibility pop

#endif
