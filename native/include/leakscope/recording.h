// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The live recording: bounded state in one sparse file that is mapped shared.
 *
 * Written by the agent inside the traced process, read by anyone at any moment.
 * All numbers are little-endian. Every area starts on a page boundary at the
 * offset the header names; an area is valid up to its `used` bytes. Behind the areas is
 * the heap: tables of blocks, counters and rows lie there. The file is
 * complete at every instant: killing the writer loses nothing but the event in
 * flight. `tools/gen_layout.py` turns this file into
 * `src/leakscope/recording/layout.py`; nothing else may repeat these numbers.
 */
#ifndef LEAKSCOPE_RECORDING_H
#define LEAKSCOPE_RECORDING_H

#include <stdint.h>

#define LSR_MAGIC 0x31454c45524c534bULL /* "KSLRELE1" in file order */
#define LSR_VERSION 4u

#define LSR_SHARDS 1024u         /* live-block shards: address >> 20 hashed; capacity 0: unused */
#define LSR_STRIPES 32u          /* counter stripes; the first half has one owner each */
#define LSR_EXCLUSIVE_STRIPES 16u
#define LSR_MAX_MODULES 4096u
#define LSR_MAX_NODES (1u << 22) /* stack depot nodes */
#define LSR_MAX_SITES (1u << 19) /* bounded by the 19 site bits of a block */
#define LSR_MAX_RANGES (1u << 16)
#define LSR_STRINGS_BYTES (4u << 20)
#define LSR_CHUNK_SITES 64u      /* sites whose counters lie in one chunk: three whole pages */
#define LSR_MAX_CHUNKS (1u << 18) /* each stripe has one for all sites */
#define LSR_TIMELINE_ROWS 64u
#define LSR_MAX_FREE_ERRORS 128u  /* distinct ones; further ones are counted together */
#define LSR_MARKS 32u              /* moments that somebody gave a name */
#define LSR_OWN_RANGES 64u       /* private mappings of the agent */
#define LSR_AGE_BUCKETS 33u      /* bucket 0: age 0 ticks; bucket k: [2^(k-1), 2^k) ticks */

enum lsr_arch { LSR_ARCH_X86_64 = 1, LSR_ARCH_AARCH64 = 2 };
enum lsr_mode { LSR_MODE_EXACT = 0, LSR_MODE_SAMPLED = 1 };
enum lsr_state {
  LSR_STATE_STARTING = 0,
  LSR_STATE_RUNNING = 1,
  LSR_STATE_EXITED = 2, /* the process reached exit(); absence means killed, _exit or running */
  LSR_STATE_EXECED = 3, /* replaced by exec: a newer recording of the same pid exists */
};

enum lsr_kind {
  LSR_KIND_MALLOC = 0,
  LSR_KIND_CALLOC = 1,
  LSR_KIND_REALLOC = 2,
  LSR_KIND_MEMALIGN = 3, /* posix_memalign, aligned_alloc, memalign, valloc, pvalloc */
  LSR_KIND_NEW = 4,
  LSR_KIND_NEW_ARRAY = 5,
  LSR_KIND_MMAP = 6,
  LSR_KIND_BRK = 7,
};

/* Everything the agent could not or did not record, each with its own counter. */
enum lsr_drop {
  LSR_DROP_EARLY = 0,         /* allocations before the agent was ready */
  LSR_DROP_REENTRANT = 1,     /* inside a signal handler that interrupted the agent */
  LSR_DROP_TABLE_FULL = 2,    /* live-block table could not grow */
  LSR_DROP_NODES_FULL = 3,    /* stack depot full: block kept, stack lost */
  LSR_DROP_SITES_FULL = 4,    /* site table full: block kept, attributed to site 0 */
  LSR_DROP_NO_SPACE = 5,      /* the backing file system refused to grow */
  LSR_DROP_STACK_TRUNCATED = 6, /* deeper than the configured depth */
  LSR_DROP_STACK_BROKEN = 7,  /* unwinding stopped before the outermost frame */
  LSR_DROP_FOREIGN_STACK = 8, /* unwound from a copied, foreign (coroutine) stack */
  LSR_DROP_UNKNOWN_FREE = 9,  /* free of a block that was never recorded (inherited, before start) */
  LSR_DROP_FILTERED = 10,     /* outside the configured size limits */
  LSR_DROP_PAUSED = 11,       /* while recording was switched off */
  LSR_DROP_RANGES_FULL = 12,  /* mmap range table full */
  LSR_DROP_MODULES_FULL = 13,
  LSR_DROP_FAILED_ALLOCATION = 14, /* not a loss: allocator returned NULL */
  LSR_DROP_DUPLICATE = 15,    /* address allocated twice without a free seen (missed free) */
  LSR_DROP_REASONS = 16,
};

struct lsr_area {
  uint64_t offset;   /* from the start of the file */
  uint64_t reserved; /* bytes of the file that it may come to use */
  uint64_t used;     /* bytes backed and valid */
};

/* One shard of the live-block table: open addressing, `capacity` blocks at `offset`. */
struct lsr_shard {
  uint64_t offset;
  uint32_t capacity;
  uint32_t live;
  uint32_t sequence; /* odd while the table is being replaced */
  uint32_t pad;
};

struct lsr_timeline_row {
  uint32_t tick;
  uint32_t sites;      /* valid entries in this row; 0: row unused */
  uint64_t live_bytes; /* process totals */
  uint64_t live_count;
  uint64_t rss_pages;  /* not read by the agent: it would open a file */
  uint64_t offset;     /* of its entries, one for each site; in the heap */
  uint32_t room;       /* entries that have a place there */
  uint32_t pad;
};

/* The counters of LSR_CHUNK_SITES sites in one stripe; in the heap. */
struct lsr_chunk {
  uint64_t offset;
  uint32_t first_site;
  uint32_t stripe;
};

/* Memory of the agent itself: a scan for pointers must not take it for the program's. */
struct lsr_own_range {
  uint64_t start;
  uint64_t end;
};

/* A moment that somebody outside gave a name. */
struct lsr_mark {
  uint64_t mono_ns; /* CLOCK_MONOTONIC */
  char name[56];    /* filled up with NULs */
};

struct lsr_header {
  uint64_t magic;
  uint32_t version;
  uint32_t header_bytes; /* sizeof(struct lsr_header) */
  uint32_t arch;
  uint32_t mode;
  uint64_t sample_bytes; /* mean bytes between samples; 0 in exact mode */
  uint32_t pid;
  uint32_t ppid;
  uint32_t uid;
  uint32_t state;
  uint32_t page_bytes;
  uint32_t tick_shift;   /* tick = (counter - counter_start) >> tick_shift */
  uint64_t counter_start;
  uint64_t mono_start_ns; /* CLOCK_MONOTONIC at counter_start */
  uint64_t real_start_ns; /* CLOCK_REALTIME at counter_start */
  uint64_t counter_last;  /* refreshed with every timeline row: gives the counter's rate */
  uint64_t mono_last_ns;
  uint64_t file_bytes;    /* logical size of the sparse file */
  uint64_t bump;          /* first byte of the heap that was never used */
  uint64_t min_size;      /* configured filters; max_size 0: none */
  uint64_t max_size;
  uint32_t max_depth;
  uint32_t forked_from;   /* pid this process was forked from while traced, 0: none */
  uint32_t control;       /* bit 0: paused. Written by the agent or an outside controller */
  uint32_t dump_requests; /* incremented by the dump signal */
  uint32_t module_count;
  uint32_t node_count;    /* node 0 is the root */
  uint32_t site_count;    /* site 0 stands for unknown */
  uint32_t range_slots;   /* range slots ever used */
  uint32_t timeline_tick_gap; /* current distance of timeline rows, ticks */
  uint32_t module_epoch;
  uint64_t string_bytes;
  struct lsr_area modules;
  struct lsr_area strings;
  struct lsr_area nodes;
  struct lsr_area sites;
  struct lsr_area ranges;
  struct lsr_area chunks;    /* where the counters are; never changed once counted */
  struct lsr_area stripes;   /* the head of stripe s at offset + s * LSR_STRIPE_HEAD_BYTES */
  uint64_t backed_bytes;     /* of the file's pages that are in use */
  uint64_t budget_bytes;     /* backed_bytes stays below; 0: as much as the file system has */
  struct lsr_shard shards[LSR_SHARDS];
  struct lsr_timeline_row rows[LSR_TIMELINE_ROWS];
  char exe[512];             /* NUL-terminated path of the program */
  char allocator[128];       /* path of the object whose malloc is wrapped */
  char boot_id[40];
  uint32_t exec_sequence;
  uint32_t trouble;          /* bit set of enum lsr_trouble */
  uint64_t peak_live_bytes;  /* highest process total seen at a timeline row */
  uint32_t own_count;        /* may exceed LSR_OWN_RANGES: then some are missing below */
  uint32_t chunk_count;
  struct lsr_own_range own[LSR_OWN_RANGES];
  uint64_t pid_namespace;    /* inode of /proc/self/ns/pid: of whom `pid` is the number; 0: unknown */
  /* The end of a process that may make no system call: it waits for a word to change. */
  uint32_t farewell;         /* enum lsr_farewell */
  uint32_t farewell_beat;    /* changes while whoever took it is at work */
  uint32_t farewell_tid;     /* the thread that ends the process, 0: not known */
  uint32_t pad2;
  uint64_t farewell_stack_end; /* 0: its stack is in use from its stack pointer on */
  uint64_t farewell_sp;        /* registers that may hold pointers of the program's are above */
  uint64_t farewell_tls;       /* its thread pointer */
  uint64_t free_errors_offset; /* of the list of wrong frees, in the heap; 0: there was none */
  uint32_t free_error_count;
  uint32_t free_errors_lost;   /* for which the list had no room */
  uint64_t frees_unexamined;   /* of unknown blocks, that were too many to look at each */
  uint32_t mark_count;         /* written from outside, after the mark itself */
  uint32_t pad3;
  struct lsr_mark marks[LSR_MARKS];
};

enum lsr_farewell {
  LSR_FAREWELL_NONE = 0,
  LSR_FAREWELL_WAITS = 1, /* said by the agent */
  LSR_FAREWELL_TAKEN = 2, /* said from outside */
  LSR_FAREWELL_DONE = 3,  /* said by either */
};

enum lsr_trouble {
  LSR_TROUBLE_OWN_MALLOC = 1,   /* the program defines malloc itself: our hooks are bypassed */
  LSR_TROUBLE_NO_PROC = 2,      /* /proc missing: modules read by dl_iterate_phdr or not at all */
  LSR_TROUBLE_NO_GROW = 4,      /* kernel lacks MADV_POPULATE_WRITE: tables are fixed size */
  LSR_TROUBLE_LEFT = 8,         /* recording ended there: our memory was taken away, or a hook left midway */
  LSR_TROUBLE_SEALED = 16,      /* a system call filter came: growth within what was set aside */
  LSR_TROUBLE_NAMESPACE = 32,   /* objects got a C library of their own (dlmopen): not wrapped */
  LSR_TROUBLE_ATTACHED = 64,    /* it began in a process that ran: what that had before is unknown */
};

struct lsr_module {
  uint64_t start; /* lowest and one past the highest mapped address */
  uint64_t end;
  uint64_t bias;  /* run-time address minus ELF virtual address */
  uint32_t path_offset; /* into strings */
  uint32_t path_bytes;
  uint8_t build_id[32];
  uint8_t build_id_bytes;
  uint8_t flags;
  uint16_t pad;
  uint32_t loaded_tick;
  uint32_t gone_tick; /* 0: still loaded */
  uint32_t pad2;
  uint64_t inode; /* 0 since the agent opens no files for it */
  uint64_t pad3[2];
};

enum lsr_node_flag {
  LSR_NODE_EXACT_PC = 1,  /* offset is an instruction, not a return address (signal frame caller) */
  LSR_NODE_TRUNCATED = 2, /* outer frames beyond the depth limit were cut off above this one */
  LSR_NODE_BROKEN = 4,    /* unwinding could not go past this frame */
};

/* A frame in its context. Walk `parent` from the leaf to node 0 for the stack, innermost first. */
struct lsr_node {
  uint32_t parent;
  uint16_t module; /* 0: none, offset is an absolute address; else module index + 1 */
  uint16_t flags;
  uint64_t offset; /* return address minus bias */
};

struct lsr_site {
  uint32_t node;
  uint8_t kind;
  uint8_t pad;
  uint16_t depth;
  uint64_t pad2;
};

/* One site's counters in one stripe; sum over stripes. In sampled mode the byte
 * counters are unbiased estimates and the weights carry 10 fractional bits. */
struct lsr_counter {
  uint64_t allocs;
  uint64_t alloc_bytes;
  uint64_t frees;
  uint64_t freed_bytes;
  uint32_t first_birth; /* ticks; valid when allocs > 0 */
  uint32_t last_birth;
  uint32_t family; /* LSR_FREE_VIA_ what frees the site's blocks; 0: not looked up yet */
  uint32_t deaths[LSR_AGE_BUCKETS]; /* by age at death; saturating */
  uint64_t alloc_weight; /* sampled mode: estimated number of allocations << 10 */
  uint64_t free_weight;
};

/* A free that should not have been. */
enum lsr_free_error_kind {
  LSR_FREE_ERROR_MISMATCHED = 1, /* by another function than the one that belongs to the allocation */
  LSR_FREE_ERROR_DOUBLE = 2,     /* of what had been freed before */
  LSR_FREE_ERROR_INTERIOR = 3,   /* of an address inside a block */
  LSR_FREE_ERROR_INVALID = 4,    /* of an address that no allocator gave out */
};
enum lsr_free_via {
  LSR_FREE_VIA_FREE = 1,
  LSR_FREE_VIA_DELETE = 2,
  LSR_FREE_VIA_DELETE_ARRAY = 3,
  LSR_FREE_VIA_REALLOC = 4,
};
/* On whose word. */
enum lsr_free_proof {
  LSR_FREE_PROOF_ALLOCATOR = 1, /* the allocator's own marks beside the memory */
  LSR_FREE_PROOF_RECORDED = 2,  /* what was recorded; holds where all was */
};

/* Equal ones are counted together: same kind, function, stacks. */
struct lsr_free_error {
  uint64_t address; /* of the first one */
  uint64_t count;
  uint64_t returned; /* how often the program went on afterwards */
  uint64_t size;     /* of the block, 0: not known */
  uint64_t offset;   /* into the block */
  uint32_t kind;
  uint32_t via;
  uint32_t proof;
  uint32_t site;       /* of the block, 0: not known */
  uint32_t node;       /* the stack of this free */
  uint32_t first_node; /* and of the one before, 0: not known */
  uint32_t tick;
  uint32_t tid;
};

/* Of each stripe, one page: drop counters and event totals. */
struct lsr_stripe_head {
  uint64_t drops[LSR_DROP_REASONS];
  uint64_t alloc_events; /* seen, whether recorded or not (exact mode: same as recorded + drops) */
  uint64_t free_events;
  uint64_t unwound_frames;
  uint64_t reused_frames;
  uint32_t owner_tid;
  uint32_t pad;
};
#define LSR_STRIPE_HEAD_BYTES 4096u

/* A live block in 16 bytes.
 * where: bits 0..44 address >> 3, bits 45..63 site. Zero: empty slot.
 * what:  bits 0..30 size, bit 31 size unit (0: bytes, 1: 4 KiB pages rounded up), bits 32..63 birth tick. */
struct lsr_block {
  uint64_t where;
  uint64_t what;
};
#define LSR_BLOCK_ADDRESS_BITS 45u
#define LSR_BLOCK_SIZE_BITS 31u

/* A mapping made by the program itself (mmap, mremap, brk). length 0: free slot. */
struct lsr_range {
  uint64_t start;
  uint64_t length;
  uint32_t site;
  uint32_t birth;
  uint64_t pad;
};

struct lsr_timeline_entry {
  float live_bytes;
  uint32_t live_count;
};

/* Beside the recordings of a run, one file a user, `starts.UID`: which programs were started, and
 * in which the agent came up. A ring; `number` tells which round an entry is of. */
enum lsr_start_kind {
  LSR_START_EXEC = 1,    /* `pid` is about to become the program */
  LSR_START_SPAWN = 2,   /* `pid` was started as the program */
  LSR_START_ARRIVED = 3, /* the agent is there in a new program of `pid` */
  LSR_START_FAILED = 4,  /* nothing came of it */
  LSR_START_MUTE = 5,    /* the agent is in `pid`, a fork of the program, and cannot record */
};
#define LSR_START_FILTERED 256u /* added to a kind: whoever starts it is under a system call filter */
struct lsr_start {
  uint32_t kind; /* written last; 0: being written */
  uint32_t pid;  /* in its own namespace */
  uint64_t number; /* from 1 on */
  char path[240];  /* as it was given, cut off when it is longer */
};
#define LSR_STARTS 511u
struct lsr_starts {
  uint64_t count; /* of all entries ever made */
  uint8_t pad[248];
  struct lsr_start starts[LSR_STARTS];
};

_Static_assert(sizeof(struct lsr_starts) == 131072, "starts");
_Static_assert(sizeof(struct lsr_block) == 16, "block");
_Static_assert(sizeof(struct lsr_node) == 16, "node");
_Static_assert(sizeof(struct lsr_site) == 16, "site");
_Static_assert(sizeof(struct lsr_counter) == 192, "counter");
_Static_assert(sizeof(struct lsr_free_error) == 72, "free error");
_Static_assert(sizeof(struct lsr_module) == 104, "module");
_Static_assert(sizeof(struct lsr_range) == 32, "range");
_Static_assert(sizeof(struct lsr_shard) == 24, "shard");
_Static_assert(sizeof(struct lsr_chunk) == 16, "chunk");
_Static_assert(LSR_MAX_CHUNKS == LSR_STRIPES * (LSR_MAX_SITES / LSR_CHUNK_SITES), "chunks");
_Static_assert(sizeof(struct lsr_timeline_row) == 48, "row");
_Static_assert(sizeof(struct lsr_header) <= 32768, "header fits eight pages");

#endif
