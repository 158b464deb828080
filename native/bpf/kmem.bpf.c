// SPDX-License-Identifier: Apache-2.0
/* (This file may be used under GPL-2.0 as well: the kernel asks that of programs that take stacks.)
 *
 * Outstanding allocations of the kernel, from its tracepoints.
 *
 * Every event is counted; stacks are sampled by bytes, and only sampled blocks are in the table
 * of living ones. Frees are never sampled: one that was not recorded misses a look-up and that is
 * all. Programs are attached as raw tracepoints, whose arguments are plain words on every kernel;
 * where they stand and where members of structs are, the loader reads from the kernel's BTF. */
#include "kmem.h"
#include "helpers.h"

MAP(blocks, BPF_MAP_TYPE_HASH, __u64, struct lsb_live, 262144);
MAP(sites, BPF_MAP_TYPE_HASH, struct lsb_site_key, struct lsb_site, 32768);
MAP(stacks, BPF_MAP_TYPE_HASH, __u64, struct lsb_stack, 16384);
MAP(caches, BPF_MAP_TYPE_HASH, __u64, struct lsb_cache, 2048);
MAP(tasks, BPF_MAP_TYPE_HASH, __u32, struct lsb_task, 8192);
MAP(counters, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct lsb_counters, 1);
MAP(scratch, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct lsb_stack, 1);
MAP(empty, BPF_MAP_TYPE_ARRAY, __u32, struct lsb_site, 1);

const volatile struct lsb_config config = {};

#define NONE 255
#define GFP_MOVABLE 0x08u
#define GFP_RECLAIMABLE 0x10u
#define PERCPU_SPACE 0x5a5a000000000000ull /* their addresses are offsets, and could meet others */
#define MOST_BULK 64
#define MOST_CGROUPS 12

static __always_inline __u32 process(void) {
  if (config.pid_ino != 0) {
    struct bpf_pidns_info told = {};
    if (bpf_get_ns_current_pid_tgid(config.pid_dev, config.pid_ino, &told, sizeof told) != 0)
      return 0xffffffff; /* of another namespace */
    return told.tgid;
  }
  return bpf_get_current_pid_tgid() >> 32;
}

/* Whether the current process is in the cgroup that was asked for, or below it. */
static __always_inline int in_cgroup(void) {
  __u64 at = bpf_get_current_task();
  if (!READ(at, at + config.task_cgroups) || !READ(at, at + config.css_set_cgroup))
    return 0;
  if (config.css_set_is_css && !READ(at, at + config.css_cgroup))
    return 0;
  for (int level = 0; level < MOST_CGROUPS && at != 0; level++) {
    __u64 node = 0, number = 0;
    if (!READ(node, at + config.cgroup_kn) || !READ(number, node + config.kn_id))
      return 0;
    if (number == config.cgroup)
      return 1;
    /* The parent's css is the first member of its cgroup. */
    if (!READ(at, at + config.cgroup_parent))
      return 0;
  }
  return 0;
}

static __always_inline int asked_for(__u32 tgid, __u64 size) {
  if (config.tgid != 0 && tgid != config.tgid)
    return 0;
  for (int i = 0; i < LSB_SELF; i++)
    if (config.self[i] != 0 && tgid == config.self[i])
      return 0;
  if (size < config.min_size || size > config.max_size)
    return 0;
  return config.cgroup == 0 || in_cgroup();
}

/* The logarithm to the base 2, rounded down; 0 of 0. */
static __always_inline __u32 log2_of(__u64 value) {
  __u32 found = 0;
  if (value >> 32) { value >>= 32; found += 32; }
  if (value >> 16) { value >>= 16; found += 16; }
  if (value >> 8) { value >>= 8; found += 8; }
  if (value >> 4) { value >>= 4; found += 4; }
  if (value >> 2) { value >>= 2; found += 2; }
  if (value >> 1) found += 1;
  return found;
}

static __always_inline void died(struct lsb_live *block, __u64 address, __u32 reused) {
  struct lsb_site_key key = block->site;
  __u64 size = block->size, age = bpf_ktime_get_ns() - block->birth_ns;
  if (bpf_map_delete_elem(&blocks, &address) != 0)
    return; /* another processor was faster, or the table is locked; see `gone` */
  struct lsb_site *site = bpf_map_lookup_elem(&sites, &key);
  if (site == 0)
    return;
  __u64 ticks = age >> LSB_TICK;
  __u32 bucket = ticks == 0 ? 0 : log2_of(ticks) + 1;
  __sync_fetch_and_add(&site->frees, 1);
  __sync_fetch_and_add(&site->freed_bytes, size);
  if (reused)
    __sync_fetch_and_add(&site->reused, 1);
  if (bucket < LSB_AGES)
    __sync_fetch_and_add(&site->ages[bucket], 1);
}

static __always_inline struct lsb_counters *counted(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&counters, &zero);
}

static __always_inline int freed(__u64 address, __u32 kind, int of_one) {
  if (address == 0)
    return 0;
  struct lsb_counters *count = counted();
  if (count == 0)
    return 0;
  if (of_one)
    count->frees[kind]++;
  struct lsb_live *block = bpf_map_lookup_elem(&blocks, &address);
  if (block == 0)
    return 0;
  count->matched[kind]++;
  died(block, address, 0);
  if (bpf_map_lookup_elem(&blocks, &address) != 0)
    count->drops[LSB_DROP_FREE]++;
  return 0;
}

static __always_inline __u64 stack_of(void *ctx, struct lsb_counters *count) {
  __u32 zero = 0;
  struct lsb_stack *stack = bpf_map_lookup_elem(&scratch, &zero);
  if (stack == 0)
    return 0;
  long got = bpf_get_stack(ctx, stack->ip, sizeof stack->ip, 0);
  if (got <= 0) {
    count->drops[LSB_DROP_UNWIND]++;
    return 0;
  }
  __u32 frames = (__u32)got / 8;
  __u64 hash = 0x9e3779b97f4a7c15ull;
  for (int i = 0; i < LSB_DEPTH; i++) {
    if (i < frames) {
      hash = (hash ^ stack->ip[i]) * 0xff51afd7ed558ccdull;
      hash ^= hash >> 32;
    } else {
      stack->ip[i] = 0;
    }
  }
  hash |= 1; /* 0 stands for unknown */
  if (bpf_map_lookup_elem(&stacks, &hash) == 0) {
    stack->frames = frames;
    stack->zero = 0;
    long failed = bpf_map_update_elem(&stacks, &hash, stack, BPF_NOEXIST);
    if (failed != 0 && bpf_map_lookup_elem(&stacks, &hash) == 0) {
      count->drops[LSB_DROP_STACK]++;
      return 0;
    }
  }
  return hash;
}

static __always_inline void remember_task(__u32 tgid, __u64 now, struct lsb_counters *count) {
  if (bpf_map_lookup_elem(&tasks, &tgid) != 0)
    return;
  struct lsb_task task = {};
  bpf_get_current_comm(task.comm, sizeof task.comm);
  task.first_ns = now;
  if (bpf_map_update_elem(&tasks, &tgid, &task, BPF_NOEXIST) != 0 &&
      bpf_map_lookup_elem(&tasks, &tgid) == 0)
    count->drops[LSB_DROP_TASK]++;
}

/* What is known of a cache; told of when it is met first. NULL when the table is full. */
static __always_inline struct lsb_cache *cache_of(__u64 cache, struct lsb_counters *count) {
  struct lsb_cache *known = bpf_map_lookup_elem(&caches, &cache);
  if (known != 0)
    return known;
  struct lsb_cache told = {};
  __u64 name = 0;
  if (READ(name, cache + config.kmem_cache_name))
    bpf_probe_read_kernel_str(told.name, sizeof told.name, (void *)name);
  READ(told.size, cache + config.kmem_cache_size);
  READ(told.object_size, cache + config.kmem_cache_object_size);
  READ(told.flags, cache + config.kmem_cache_flags);
  if (config.by_cache) {
    __u64 *have = (__u64 *)told.name;
    for (int i = 0; i < LSB_ALIASES; i++) {
      const volatile __u64 *want = (const volatile __u64 *)config.aliases[i];
      if (want[0] != 0 && have[0] == want[0] && have[1] == want[1] && have[2] == want[2] &&
          have[3] == want[3])
        told.wanted = 1;
    }
  }
  if (bpf_map_update_elem(&caches, &cache, &told, BPF_NOEXIST) != 0)
    count->drops[LSB_DROP_CACHE]++;
  return bpf_map_lookup_elem(&caches, &cache);
}

static __always_inline int allocated(void *ctx, __u64 address, __u64 size, __u32 kind, __u64 cache,
                                     __u32 gfp) {
  if (address == 0)
    return 0; /* it failed */
  struct lsb_counters *count = counted();
  if (count == 0)
    return 0;
  if (kind == LSB_KMALLOC || kind == LSB_CACHE) {
    /* kfree_rcu and frees in bulk have no event of their own on many kernels: who is given an
     * address that we have says that the block there is gone. */
    struct lsb_live *before = bpf_map_lookup_elem(&blocks, &address);
    if (before != 0)
      died(before, address, 1);
  }
  __u32 tgid = process();
  if (!asked_for(tgid, size))
    return 0;
  count->allocs[kind]++;
  count->alloc_bytes[kind] += size;
  if (config.sample_bytes > 1) {
    __s64 left = count->left - (__s64)size;
    if (left > 0) {
      count->left = left;
      return 0;
    }
    count->left = config.intervals[bpf_get_prandom_u32() & (LSB_INTERVALS - 1)];
  }
  count->samples++;
  struct lsb_live block = {};
  block.site.stack = stack_of(ctx, count);
  block.site.cache = cache;
  block.site.size = config.sample_bytes > 1 && size >= 16ull * config.sample_bytes ? 0 : size;
  block.site.kind = kind;
  block.site.flags =
      (gfp & GFP_MOVABLE ? LSB_MOVABLE : 0) | (gfp & GFP_RECLAIMABLE ? LSB_RECLAIMABLE : 0);
  block.birth_ns = bpf_ktime_get_ns();
  block.size = size;
  block.tgid = tgid;
  struct lsb_site *site = bpf_map_lookup_elem(&sites, &block.site);
  if (site == 0) {
    __u32 zero = 0;
    struct lsb_site *nothing = bpf_map_lookup_elem(&empty, &zero);
    if (nothing == 0)
      return 0;
    bpf_map_update_elem(&sites, &block.site, nothing, BPF_NOEXIST);
    site = bpf_map_lookup_elem(&sites, &block.site);
    if (site == 0) {
      count->drops[LSB_DROP_SITE]++;
      return 0;
    }
    site->first_ns = block.birth_ns;
  }
  struct lsb_live *before = bpf_map_lookup_elem(&blocks, &address);
  if (before != 0)
    died(before, address, 1); /* of pages: split, and freed by another name */
  if (bpf_map_update_elem(&blocks, &address, &block, BPF_ANY) != 0) {
    count->drops[LSB_DROP_LIVE]++;
    return 0;
  }
  site->last_ns = block.birth_ns;
  __sync_fetch_and_add(&site->allocs, 1);
  __sync_fetch_and_add(&site->alloc_bytes, size);
  if (cache != 0)
    cache_of(cache, count);
  remember_task(tgid, block.birth_ns, count);
  return 0;
}

SEC("raw_tp/kmalloc") int on_kmalloc(void *ctx) {
  return allocated(ctx, ARG(ctx, 1), argument(ctx, config.kmalloc_alloc), LSB_KMALLOC, 0,
                   argument(ctx, config.kmalloc_gfp));
}

SEC("raw_tp/kmalloc_node") int on_kmalloc_node(void *ctx) {
  return allocated(ctx, ARG(ctx, 1), argument(ctx, config.kmalloc_alloc), LSB_KMALLOC, 0,
                   argument(ctx, config.kmalloc_gfp));
}

static __always_inline int from_cache(void *ctx) {
  __u64 cache = config.cache_cache == NONE ? 0 : argument(ctx, config.cache_cache);
  __u32 size = 0;
  if (config.cache_alloc != NONE) {
    size = argument(ctx, config.cache_alloc);
  } else if (!config.by_cache) {
    READ(size, cache + config.kmem_cache_size);
  }
  if (config.by_cache) {
    struct lsb_counters *count = counted();
    struct lsb_cache *told = count == 0 ? 0 : cache_of(cache, count);
    if (told == 0 || !told->wanted)
      return 0;
    size = told->size;
  }
  return allocated(ctx, ARG(ctx, 1), size, LSB_CACHE, cache, argument(ctx, config.cache_gfp));
}

SEC("raw_tp/kmem_cache_alloc") int on_cache_alloc(void *ctx) { return from_cache(ctx); }
SEC("raw_tp/kmem_cache_alloc_node") int on_cache_alloc_node(void *ctx) { return from_cache(ctx); }
SEC("raw_tp/kfree") int on_kfree(void *ctx) { return freed(ARG(ctx, 1), LSB_KMALLOC, 1); }
SEC("raw_tp/kmem_cache_free") int on_cache_free(void *ctx) {
  return freed(ARG(ctx, 1), LSB_CACHE, 1);
}

/* kmem_cache_free_bulk(cache, number, objects): no event tells of them. Older verifiers let nobody
 * load a pointer to a pointer from the context, so the arguments are asked for. */
SEC("fentry/kmem_cache_free_bulk") int on_free_bulk(void *ctx) {
  __u64 number = 0, objects = 0;
  if (bpf_get_func_arg(ctx, 1, &number) != 0 || bpf_get_func_arg(ctx, 2, &objects) != 0)
    return 0;
  if (number > MOST_BULK) {
    struct lsb_counters *count = counted();
    if (count != 0)
      count->drops[LSB_DROP_LONG] += number - MOST_BULK;
  }
  for (int i = 0; i < MOST_BULK; i++) {
    __u64 address = 0;
    if (i >= number)
      break;
    if (READ(address, objects + 8 * i))
      freed(address, LSB_KMALLOC, 0);
  }
  return 0;
}

/* kvfree_call_rcu(head, object): it is freed after the readers have left, by a path without events. */
SEC("fentry/kvfree_call_rcu") int on_free_rcu(__u64 *ctx) { return freed(ctx[1], LSB_KMALLOC, 0); }

SEC("raw_tp/mm_page_alloc") int on_page_alloc(void *ctx) {
  __u32 gfp = ARG(ctx, 2);
  if (!config.movable && (gfp & GFP_MOVABLE))
    return 0;
  return allocated(ctx, ARG(ctx, 0), 1ull << (config.page_shift + (ARG(ctx, 1) & 31)), LSB_PAGE, 0, gfp);
}
SEC("raw_tp/mm_page_free") int on_page_free(void *ctx) { return freed(ARG(ctx, 0), LSB_PAGE, 1); }

SEC("raw_tp/percpu_alloc_percpu") int on_percpu_alloc(void *ctx) {
  __u64 address = argument(ctx, config.percpu_ptr);
  return allocated(ctx, address == 0 ? 0 : address ^ PERCPU_SPACE,
                   argument(ctx, config.percpu_size), LSB_PERCPU, 0, 0);
}
SEC("raw_tp/percpu_free_percpu") int on_percpu_free(void *ctx) {
  return freed(argument(ctx, config.percpu_free_ptr) ^ PERCPU_SPACE, LSB_PERCPU, 1);
}

/* alloc_vmap_area(address, size, align, from, to, failed) and free_vmap_area_noflush(address, …) */
SEC("raw_tp/alloc_vmap_area") int on_vmap(void *ctx) {
  return ARG(ctx, 5) ? 0 : allocated(ctx, ARG(ctx, 0), ARG(ctx, 1), LSB_VMALLOC, 0, 0);
}
SEC("raw_tp/free_vmap_area_noflush") int on_vunmap(void *ctx) {
  return freed(ARG(ctx, 0), LSB_VMALLOC, 1);
}
