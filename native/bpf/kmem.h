/* SPDX-License-Identifier: Apache-2.0 */
/* What the BPF programs, their loader and leakscope/bpf/wire.py share.
 *
 * Every struct is little-endian in the machine's own order, without holes: the loader and the
 * reader of its pipe run on the same machine. Times are CLOCK_MONOTONIC nanoseconds, sizes bytes. */
#ifndef LEAKSCOPE_BPF_KMEM_H
#define LEAKSCOPE_BPF_KMEM_H

#include <linux/types.h>

#define LSB_VERSION 1
#define LSB_MAGIC 0x4d4b534cu /* "LSKM" */
#define LSB_DEPTH 48           /* frames of a stack */
#define LSB_AGES 33            /* log2 buckets of ages at death, as AGE_BUCKETS of the model */
#define LSB_TICK 20            /* a tick of such an age is 2^20 ns */
#define LSB_INTERVALS 1024     /* quantiles of the exponential distribution */
#define LSB_NAME 32
#define LSB_ALIASES 8 /* names of one merged cache */
#define LSB_SELF 4

/* How memory was asked for. */
enum lsb_kind { LSB_KMALLOC, LSB_CACHE, LSB_PAGE, LSB_PERCPU, LSB_VMALLOC, LSB_KINDS };

/* Why something was not recorded. The last ones are counted by the loader. */
enum lsb_drop {
  LSB_DROP_LIVE,  /* the table of living blocks was full */
  LSB_DROP_SITE,  /* the table of sites was full */
  LSB_DROP_STACK, /* the table of stacks was full */
  LSB_DROP_TASK,  /* the table of processes was full; their blocks are counted */
  LSB_DROP_CACHE, /* the table of caches was full; their objects are counted */
  LSB_DROP_UNWIND, /* no stack could be taken */
  LSB_DROP_FREE,  /* a free met a locked table */
  LSB_DROP_NESTED, /* an event came while the program for it was at work on the same processor */
  LSB_DROP_LONG,  /* more objects were freed in one call than are looked at */
  LSB_DROPS
};

#define LSB_MOVABLE 1u     /* pages that can move: page cache, memory of programs */
#define LSB_RECLAIMABLE 2u /* asked for as reclaimable */

struct lsb_site_key {
  __u64 stack; /* 0: unknown */
  __u64 cache; /* struct kmem_cache, 0: none */
  __u32 size;  /* as allocated; 0 where nearly every block of this size is sampled */
  __u16 kind;
  __u16 flags;
};

struct lsb_site {
  __u64 allocs, alloc_bytes, frees, freed_bytes; /* sampled blocks */
  __u64 first_ns, last_ns;
  __u32 ages[LSB_AGES];
  __u32 reused; /* of `frees`: their address was allocated anew, and no free was seen */
};

struct lsb_live {
  struct lsb_site_key site;
  __u64 birth_ns;
  __u64 size;
  __u32 tgid;
  __u32 zero;
};

struct lsb_stack {
  __u32 frames;
  __u32 zero;
  __u64 ip[LSB_DEPTH]; /* innermost first */
};

struct lsb_cache {
  char name[LSB_NAME];
  __u32 size, object_size, flags, wanted;
};

struct lsb_task {
  char comm[16];
  __u64 first_ns;
};

/* One a processor. Blocks and bytes here are all that passed the filters, sampled or not. */
struct lsb_counters {
  __u64 allocs[LSB_KINDS], alloc_bytes[LSB_KINDS];
  __u64 frees[LSB_KINDS], matched[LSB_KINDS];
  __u64 samples;
  __u64 drops[LSB_DROPS];
  __s64 left; /* bytes until the next sample */
};

/* Constants of the programs: filled in by the loader and frozen before they are verified, so that
 * what is not asked for is no code. */
struct lsb_config {
  __u32 sample_bytes; /* mean distance of samples; 0 or 1: every block */
  __u32 tgid;         /* 0: every process */
  __u32 self[LSB_SELF];
  __u64 min_size, max_size;
  __u64 cgroup;         /* kernfs number, 0: every cgroup */
  __u32 movable;        /* whether movable pages count */
  __u32 by_cache;       /* whether only wanted caches count */
  char aliases[LSB_ALIASES][LSB_NAME];
  /* positions of arguments; 255: there is none */
  __u32 kmalloc_req, kmalloc_alloc, kmalloc_gfp;
  __u32 cache_cache, cache_alloc, cache_gfp;
  __u32 percpu_size, percpu_ptr, percpu_free_ptr;
  /* offsets of members in this kernel */
  __u32 kmem_cache_name, kmem_cache_size, kmem_cache_object_size, kmem_cache_flags;
  __u32 task_cgroups, css_set_cgroup, css_set_is_css, css_cgroup;
  __u32 cgroup_kn, cgroup_parent, kn_id;
  __u32 page_shift;
  __u64 pid_dev, pid_ino; /* where our process numbers come from; 0: the first namespace */
  __u32 intervals[LSB_INTERVALS];
};

/* ---- the pipe: frames of a header and `count` records of `size` bytes ---- */

enum lsb_frame {
  LSB_HELLO = 1,   /* lsb_hello */
  LSB_MOMENT,      /* lsb_moment */
  LSB_SITES,       /* lsb_site_record */
  LSB_STACKS,      /* lsb_stack_record */
  LSB_CACHES,      /* lsb_cache_record */
  LSB_TASKS,       /* lsb_task_record */
  LSB_BLOCKS,      /* lsb_block_record */
  LSB_NOTE,        /* bytes of text */
  LSB_DONE,        /* nothing more of what was asked for */
};

struct lsb_header {
  __u32 magic;
  __u16 frame;
  __u16 size;
  __u32 count;
  __u32 zero;
};

struct lsb_hello {
  __u32 version, kinds, bulk, processors;
  __u64 start_ns, memory;
  __u32 most_blocks, most_sites, most_stacks, sample_bytes;
};

struct lsb_moment {
  __u64 now_ns;
  struct lsb_counters total;
  __u64 runs, run_ns; /* of our programs, while the kernel measured them */
};

struct lsb_site_record {
  struct lsb_site_key key;
  struct lsb_site site;
};
struct lsb_stack_record {
  __u64 hash;
  struct lsb_stack stack;
};
struct lsb_cache_record {
  __u64 cache;
  struct lsb_cache told;
};
struct lsb_task_record {
  __u32 tgid, zero;
  struct lsb_task task;
};
struct lsb_block_record {
  __u64 address;
  struct lsb_live block;
};

#endif
