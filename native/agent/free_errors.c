// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Wrong frees: what is known of an address that is in no table, and the list of what was found.
 *
 * That an address is unknown proves nothing: its block may be older than the recording, or come
 * from an allocation that went past the hooks. Said is only what the allocator's own marks prove
 * (glibc's: in front of a block, in the one behind it, in the lists of free ones), what lies
 * inside a block that is in the table, or outside of all heaps. Where there are no marks that we
 * can read, that the address was freed before is noted as what was recorded, for the reader to
 * weigh against what was not.
 */
#include "blocks.h"
#include "bounds.h"
#include "clock.h"
#include "counters.h"
#include "depot.h"
#include "free_errors.h"
#include "modules.h"
#include "peek.h"
#include "process.h"
#include "real.h"
#include "recording.h"
#include "resolve.h"
#include "rules.h"
#include "space.h"
#include "stack.h"
#include "str.h"

#define EXAMINED 4096u  /* unknown frees that are looked at, in all */
#define EXAMINED_SOON 64u /* of a fork, which frees what its parent allocated, */
#define EXAMINED_A_TICK 2u /* and so many later */
#define RINGS_A_LOOK 4u /* threads' rings that are gone through cost as much as one more look */
#define SEARCHED 256u   /* of these, for the block around them */
#define MOST_BACK 64u   /* megabytes before an address in which its block may begin */
#define MOST_NODES (LSR_MAX_NODES / 8) /* the depot is for allocations */

/* ---- what was freed lately ---- */

void ls_freed_unwind(struct ls_thread *thread, struct ls_freed *entry, uint32_t tick, uintptr_t pc,
                     uintptr_t sp, uintptr_t fp) {
  uint32_t passed = tick - thread->freed_tick, store = thread->freed_unwinds;
  if (passed) {
    thread->freed_tick = tick;
    store += passed < LS_FREED_UNWINDS ? passed * LS_FREED_UNWINDS_A_TICK : LS_FREED_UNWINDS;
    if (store > LS_FREED_UNWINDS)
      store = LS_FREED_UNWINDS;
  }
  if (store && sp - thread->stack_low < thread->stack_high - thread->stack_low &&
      ls_live->header->node_count < MOST_NODES) {
    uint32_t depth;
    entry->node = ls_stack_capture(thread, pc, sp, fp, &depth);
  }
  thread->freed_unwinds = store - (store != 0);
}

struct earlier {
  uint64_t where, what;
  uintptr_t pc;
  uint32_t tick, node;
  bool ambiguous; /* two threads freed it in the same millisecond */
};

/* The last free of the address, as far as it is remembered. */
static bool freed_before(uintptr_t address, struct earlier *ret) {
  uint64_t key = (uint64_t)(address >> 3) & ADDRESS_MASK;
  uint32_t epoch = ls_live->gate;
  bool found = false;
  uint32_t rings = 0;
  if (address & 7)
    return false;
  for (const struct ls_thread *thread = ls_threads(); thread; thread = thread->next) {
    if (thread->freed_epoch != epoch)
      continue;
    rings++;
    uint32_t next = thread->freed_next;
    for (uint32_t i = 0; i < LS_FREED; i++) { /* newest first */
      const struct ls_freed *entry = &thread->freed[(next + LS_FREED - 1 - i) % LS_FREED];
      uint64_t where = __atomic_load_n(&entry->where, __ATOMIC_ACQUIRE);
      if ((where & ADDRESS_MASK) != key || !where)
        continue;
      struct earlier seen = {where, entry->what, entry->pc, entry->tick, entry->node, false};
      __atomic_thread_fence(__ATOMIC_ACQUIRE);
      if (__atomic_load_n(&entry->where, __ATOMIC_RELAXED) != where)
        continue;
      if (!found || seen.tick > ret->tick)
        *ret = seen;
      else if (seen.tick == ret->tick)
        ret->ambiguous = true;
      found = true;
      break;
    }
  }
  __atomic_fetch_add(&ls_live->frees_examined, rings / RINGS_A_LOOK, __ATOMIC_RELAXED);
  return found;
}

/* ---- glibc's marks ---- */

enum chunk {
  CHUNK_USED, /* or so it looks */
  CHUNK_FREE,
  CHUNK_NONE, /* no block begins here: free() would abort or crash */
};

#define CHUNK_FLAGS 7u
#define CHUNK_MMAPPED 2u
#define CHUNK_SMALLEST 32u
#define TCACHE_LARGEST 1040u
#define FASTBIN_LARGEST 128u

/* Whether a list of free chunks goes on there with one of the same size, or ends. `to_size`: from
 * where the links point to the word with the size. */
static bool links_on(uintptr_t link, intptr_t to_size, uint64_t size) {
  uint64_t word;
  return !(link & 15) && link && ls_peek(&word, link + (uintptr_t)to_size, sizeof word) &&
         (word & ~(uint64_t)CHUNK_FLAGS) == size;
}

static enum chunk chunk_at(uintptr_t address, bool was_freed) {
  struct {
    uint64_t before, size, link, key;
  } chunk;
  if (address & 15 || !ls_peek(&chunk, address - 16, sizeof chunk))
    return CHUNK_NONE;
  uint64_t size = chunk.size & ~(uint64_t)CHUNK_FLAGS, behind;
  if (size < CHUNK_SMALLEST || size & 8 || address - 16 + size < address)
    return CHUNK_NONE;
  if (chunk.size & CHUNK_MMAPPED)
    return ((address - 16 - chunk.before) | (chunk.before + size)) & 4095 ? CHUNK_NONE : CHUNK_USED;
  uintptr_t veiled = chunk.link ^ address >> 12; /* since 2.32 */
  if (size <= TCACHE_LARGEST && chunk.key) {
    if (!veiled || links_on(veiled, -8, size))
      return CHUNK_FREE;
    /* Before, the key is the address of the thread's list, first in its arena. */
    uint64_t list;
    if ((chunk.key & 0xfff) == 16 && ls_peek(&list, chunk.key - 8, sizeof list) &&
        ((list & ~7ull) == 0x290 || (list & ~7ull) == 0x250) &&
        (!chunk.link || links_on(chunk.link, -8, size)))
      return CHUNK_FREE;
  }
  if (size <= FASTBIN_LARGEST && was_freed &&
      (!veiled || links_on(veiled, 8, size) || links_on(chunk.link, 8, size)))
    return CHUNK_FREE;
  if (!ls_peek(&behind, address - 16 + size + 8, sizeof behind))
    return CHUNK_NONE;
  return behind & 1 ? CHUNK_USED : CHUNK_FREE;
}

static bool begins_with(const char *text, const char *beginning) {
  while (*beginning && *text == *beginning)
    text++, beginning++;
  return !*beginning;
}

static const char *base_name(const char *path) {
  const char *name = path;
  for (; *path; path++)
    if (*path == '/')
      name = path + 1;
  return name;
}

static bool allocator_is_glibc(void) {
  const char *name = base_name(ls_real.allocator_path);
  return begins_with(name, "libc.so.6") || begins_with(name, "libc-2.");
}

/* musl gives out what is left of its objects' last pages. */
static bool allocator_is_tcmalloc_or_jemalloc(void) {
  const char *name = base_name(ls_real.allocator_path);
  return begins_with(name, "libtcmalloc") || begins_with(name, "libjemalloc") ||
         begins_with(name, "libmimalloc");
}

/* ---- the block around an address ---- */

/* The block of this megabyte that begins last before the address. */
static bool last_before(struct ls_thread *thread, uintptr_t megabyte, uintptr_t address,
                        struct lsr_block *ret) {
  struct ls_shard *shard = ls_shard_of(megabyte << 20);
  bool found = false;
  if (!__atomic_load_n(&shard->buckets, __ATOMIC_ACQUIRE))
    return false;
  bool locked = ls_shard_enter(thread, shard);
  uintptr_t best = 0;
  for (uint32_t i = 0; i < shard->buckets * BUCKET; i++) {
    uintptr_t start = (uintptr_t)(shard->table[i].where & ADDRESS_MASK) << 3;
    if (start >> 20 == megabyte && start < address && start > best) {
      best = start;
      *ret = shard->table[i];
      found = true;
    }
  }
  ls_shard_leave(thread, shard, locked);
  return found;
}

static bool block_around(struct ls_thread *thread, uintptr_t address, struct lsr_block *ret) {
  uintptr_t megabyte = address >> 20;
  for (uintptr_t back = 0; back < MOST_BACK && back <= megabyte; back++)
    if (last_before(thread, megabyte - back, address, ret)) {
      uintptr_t start = (uintptr_t)(ret->where & ADDRESS_MASK) << 3;
      return address - start < ls_block_size(ret);
    }
  return false;
}

/* On the thread's own stack, or among the data of an object that is no allocator. */
static bool is_outside_heaps(struct ls_thread *thread, uintptr_t address, uintptr_t sp) {
  /* This call may be the first that came as deep. */
  if (address >= sp && address < thread->stack_high &&
      (sp >= thread->stack_low || ls_stack_reaches(thread, sp, 0, 0)))
    return true;
  const struct ls_module *module = ls_module_find(address);
  return module && !module->gone && allocator_is_tcmalloc_or_jemalloc() &&
         (address < ls_real.allocator_low || address >= ls_real.allocator_high);
}

/* ---- the list ---- */

/* As it is in the list; NULL when there is no room. */
static struct lsr_free_error *add(const struct lsr_free_error *found) {
  struct ls_live *live = ls_live;
  struct lsr_header *header = live->header;
  struct lsr_free_error *error = NULL;
  uint64_t offset;
  ls_lock(&live->free_errors_lock);
  if (!live->free_errors) {
    live->free_errors = (struct lsr_free_error *)ls_heap_take(
        LSR_MAX_FREE_ERRORS * sizeof *live->free_errors, &offset);
    if (live->free_errors)
      header->free_errors_offset = offset;
  }
  uint32_t count = live->free_errors ? header->free_error_count : 0;
  for (uint32_t i = 0; i < count && !error; i++) {
    struct lsr_free_error *each = &live->free_errors[i];
    if (each->kind == found->kind && each->via == found->via && each->site == found->site &&
        each->node == found->node && each->proof == found->proof)
      error = each;
  }
  if (error) {
    error->count++;
  } else if (live->free_errors && count < LSR_MAX_FREE_ERRORS) {
    error = &live->free_errors[count];
    *error = *found;
    error->count = 1;
    __atomic_store_n(&header->free_error_count, count + 1, __ATOMIC_RELEASE);
  } else {
    header->free_errors_lost++;
  }
  ls_unlock(&live->free_errors_lock);
  return error;
}

/* A stack of which only the innermost frame is known. */
static uint32_t lone_node(uintptr_t pc) {
  uint16_t module = ls_rule_module(ls_rule_lookup(pc, false));
  return ls_depot_node(0, module, LSR_NODE_TRUNCATED,
                       pc - (module ? (uintptr_t)ls_module_bias(module) : 0));
}

/* ---- which function frees ---- */

static uint32_t family_of(uint32_t site) {
  if (!site)
    return 0; /* unknown: never judged */
  switch (ls_live->sites[site].kind) {
  case LSR_KIND_NEW:
    return LSR_FREE_VIA_DELETE;
  case LSR_KIND_NEW_ARRAY:
    return LSR_FREE_VIA_DELETE_ARRAY;
  default:
    return LSR_FREE_VIA_FREE;
  }
}

/* Whether each operator is the C++ library's or the allocator's: others may free with anything. */
static bool operators_are_usual(void) {
  static const char *const names[] = {"_Znwm", "_Znam", "_ZdlPv", "_ZdaPv", "_ZdlPvm", "_ZdaPvm"};
  static uint32_t known; /* 1 + answer */
  uint32_t answer = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (answer)
    return answer - 1;
  bool usual = true;
  for (size_t i = 0; usual && i < sizeof names / sizeof *names; i++) {
    struct ls_symbol_origin origin;
    memset(&origin, 0, sizeof origin);
    usual = !ls_program_defines(names[i]) && ls_next_symbol(names[i], &origin) && origin.path;
    if (usual && origin.low != ls_real.allocator_low) {
      const char *name = base_name(origin.path);
      usual = begins_with(name, "libstdc++.so") || begins_with(name, "libc++.so") ||
              begins_with(name, "libc++abi.so");
    }
  }
  __atomic_store_n(&known, 1u + usual, __ATOMIC_RELAXED);
  return usual;
}

void ls_free_family(struct ls_thread *thread, const struct lsr_block *block, uint32_t via,
                    uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  uint32_t site = ls_block_site(block), family = family_of(site), depth;
  struct lsr_counter *counter = ls_counter_of(thread, site);
  if (counter)
    ls_counter_bare(counter)->family = family;
  if (!family || family == (via == LSR_FREE_VIA_REALLOC ? LSR_FREE_VIA_FREE : via) ||
      !operators_are_usual())
    return;
  struct lsr_free_error found = {
      .address = (block->where & ADDRESS_MASK) << 3,
      .kind = LSR_FREE_ERROR_MISMATCHED,
      .via = via,
      .proof = LSR_FREE_PROOF_RECORDED,
      .site = site,
      .node = ls_stack_capture(thread, pc, sp, fp, &depth),
      .size = ls_block_size(block),
      .tick = ls_tick(),
      .tid = thread->tid,
  };
  ls_free_returned(add(&found));
}

/* ---- an unknown address ---- */

struct lsr_free_error *ls_free_examine(struct ls_thread *thread, uintptr_t address, uint32_t via,
                                       uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  struct ls_live *live = ls_live;
  if (live->sampled || !address)
    return NULL;
  if (ls_free_is_deletes(thread, address)) {
    thread->deleted = 0;
    return NULL;
  }
  uint32_t examined = __atomic_fetch_add(&live->frees_examined, 1, __ATOMIC_RELAXED);
  uint64_t most = EXAMINED;
  if (live->header->forked_from && EXAMINED_SOON + (uint64_t)EXAMINED_A_TICK * ls_tick() < EXAMINED)
    most = EXAMINED_SOON + EXAMINED_A_TICK * ls_tick();
  if (examined >= most) {
    __atomic_store_n(&live->frees_examined, (uint32_t)most, __ATOMIC_RELAXED);
    __atomic_fetch_add(&live->header->frees_unexamined, 1, __ATOMIC_RELAXED);
    return NULL;
  }
  struct lsr_free_error found = {.address = address, .via = via, .tid = thread->tid};
  struct earlier earlier = {0};
  struct lsr_block around = {0};
  bool glibc = allocator_is_glibc();
#ifdef LS_INJECT
  /* What was there before is unknown: only the allocator's own marks tell. And its own calls are seen,
   * too: a thread that ends frees what lies freed in its cache. */
  if (!glibc || pc - ls_real.allocator_low < ls_real.allocator_high - ls_real.allocator_low)
    return NULL;
#endif
  if (glibc && chunk_at(address, true) == CHUNK_USED)
    return NULL; /* as good as any: from before the recording, or allocated past the hooks */
  bool freed = freed_before(address, &earlier); /* takes its time where there are many threads */
  enum chunk chunk = glibc ? chunk_at(address, freed) : CHUNK_USED;
  if (chunk == CHUNK_FREE || (freed && (chunk == CHUNK_NONE || !glibc)))
    found.kind = LSR_FREE_ERROR_DOUBLE;
  else if (glibc && chunk == CHUNK_USED)
    return NULL;
  else if (examined < SEARCHED && block_around(thread, address, &around)) {
    found.kind = LSR_FREE_ERROR_INTERIOR;
    found.site = ls_block_site(&around);
    found.size = ls_block_size(&around);
    found.offset = address - ((uintptr_t)(around.where & ADDRESS_MASK) << 3);
  } else if (chunk == CHUNK_NONE || is_outside_heaps(thread, address, sp))
    found.kind = LSR_FREE_ERROR_INVALID;
  else
    return NULL;
  found.proof = glibc ? LSR_FREE_PROOF_ALLOCATOR : LSR_FREE_PROOF_RECORDED;
  if (found.kind == LSR_FREE_ERROR_DOUBLE && freed) {
    struct lsr_block block = {.where = earlier.where, .what = earlier.what};
    found.site = ls_block_site(&block);
    found.size = ls_block_size(&block);
    if (!earlier.ambiguous)
      found.first_node = earlier.node ? earlier.node : lone_node(earlier.pc);
  }
  uint32_t depth;
  found.node = ls_stack_capture(thread, pc, sp, fp, &depth);
  found.tick = ls_tick();
  return add(&found);
}
