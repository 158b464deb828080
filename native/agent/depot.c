// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The stack depot and the sites: each distinct stack and each (stack, kind) once.
 *
 * Frames form a tree that grows from the outermost frame; a stack is its leaf. The
 * nodes and sites lie in the recording, their hash indexes in private memory that
 * only this process needs. Look-ups take no lock; insertions are rare and do.
 */
#include "counters.h"
#include "depot.h"
#include "private.h"
#include "process.h"
#include "space.h"
#include "str.h"
#include "sys.h"

#define FIRST_INDEX 8192u

static struct ls_index *index_new(uint32_t slots) {
  size_t bytes = sizeof(struct ls_index) + (size_t)slots * sizeof(uint32_t);
  struct ls_index *index = ls_private(bytes);
  if (!index)
    return NULL;
  index->mask = slots - 1;
  return index;
}

bool ls_depot_init(struct ls_live *live) {
  live->node_index = index_new(FIRST_INDEX);
  live->site_index = index_new(FIRST_INDEX);
  return live->node_index && live->site_index;
}

static inline uint32_t mix(uint64_t a, uint64_t b) {
  uint64_t h = (a ^ (b << 1 | b >> 63)) * 0x9E3779B97F4A7C15ull;
  h ^= h >> 29;
  h *= 0xBF58476D1CE4E5B9ull;
  return (uint32_t)(h >> 32);
}

static inline uint32_t node_hash(const struct lsr_node *node) {
  return mix(node->offset, (uint64_t)node->parent << 20 ^ (uint64_t)node->module << 2 ^ node->flags);
}

static inline bool node_equal(const struct lsr_node *a, const struct lsr_node *b) {
  return a->offset == b->offset && a->parent == b->parent && a->module == b->module &&
         a->flags == b->flags;
}

static inline uint32_t site_hash(uint32_t node, uint8_t kind) { return mix(node, kind + 1u); }

/* Replace a half-full index by one of twice the size. Readers may still use the old one:
 * it stays mapped, and all of them together are no larger than the newest. */
static LS_COLD void index_grow(struct ls_live *live, struct ls_index **where, uint32_t count,
                               bool nodes) {
  struct ls_index *old = *where;
  struct ls_index *fresh = index_new((old->mask + 1) * 2);
  if (!fresh)
    return;
  for (uint32_t id = 1; id < count; id++) {
    uint32_t slot = nodes ? node_hash(&live->nodes[id])
                          : site_hash(live->sites[id].node, live->sites[id].kind);
    while (fresh->slots[slot & fresh->mask])
      slot++;
    fresh->slots[slot & fresh->mask] = id;
  }
  __atomic_store_n(where, fresh, __ATOMIC_RELEASE);
}

/* Look-ups end at an empty slot: an index that could not grow is not filled to the last one. */
static inline bool index_is_full(const struct ls_index *index, uint32_t count) {
  return count > index->mask - index->mask / 8;
}

uint32_t ls_depot_node(uint32_t parent, uint16_t module, uint16_t flags, uint64_t offset) {
  struct ls_live *live = ls_live;
  struct lsr_node want = {.parent = parent, .module = module, .flags = flags, .offset = offset};
  uint32_t hash = node_hash(&want);
  struct ls_index *index = __atomic_load_n(&live->node_index, __ATOMIC_ACQUIRE);
  uint32_t slot = hash, id;
  while ((id = __atomic_load_n(&index->slots[slot & index->mask], __ATOMIC_ACQUIRE))) {
    if (LS_LIKELY(node_equal(&live->nodes[id], &want)))
      return id;
    slot++;
  }

  struct lsr_header *header = live->header;
  ls_lock(&live->depot_lock);
  index = live->node_index;
  for (slot = hash; (id = index->slots[slot & index->mask]); slot++)
    if (node_equal(&live->nodes[id], &want)) {
      ls_unlock(&live->depot_lock);
      return id;
    }
  id = header->node_count;
  if (id >= LSR_MAX_NODES || index_is_full(index, id) ||
      !ls_area_grow(&header->nodes, (id + 1ull) * sizeof want)) {
    ls_unlock(&live->depot_lock);
    ls_count_drop_anywhere(LSR_DROP_NODES_FULL);
    return parent;
  }
  live->nodes[id] = want;
  __atomic_store_n(&header->node_count, id + 1, __ATOMIC_RELEASE);
  __atomic_store_n(&index->slots[slot & index->mask], id, __ATOMIC_RELEASE);
  if (id * 2 > index->mask)
    index_grow(live, &live->node_index, id + 1, true);
  ls_unlock(&live->depot_lock);
  return id;
}

static uint32_t find_site(struct ls_live *live, uint32_t node, uint8_t kind, uint32_t depth) {
  uint32_t hash = site_hash(node, kind);
  struct ls_index *index = __atomic_load_n(&live->site_index, __ATOMIC_ACQUIRE);
  uint32_t slot = hash, id;
  while ((id = __atomic_load_n(&index->slots[slot & index->mask], __ATOMIC_ACQUIRE))) {
    if (live->sites[id].node == node && live->sites[id].kind == kind)
      return id;
    slot++;
  }
  struct lsr_header *header = live->header;
  ls_lock(&live->depot_lock);
  index = live->site_index;
  for (slot = hash; (id = index->slots[slot & index->mask]); slot++)
    if (live->sites[id].node == node && live->sites[id].kind == kind) {
      ls_unlock(&live->depot_lock);
      return id;
    }
  id = header->site_count;
  if (id >= LSR_MAX_SITES || index_is_full(index, id) ||
      !ls_area_grow(&header->sites, (id + 1ull) * sizeof(struct lsr_site))) {
    ls_unlock(&live->depot_lock);
    ls_count_drop_anywhere(LSR_DROP_SITES_FULL);
    return 0;
  }
  live->sites[id] = (struct lsr_site){.node = node, .kind = kind, .depth = (uint16_t)depth};
  __atomic_store_n(&header->site_count, id + 1, __ATOMIC_RELEASE);
  __atomic_store_n(&index->slots[slot & index->mask], id, __ATOMIC_RELEASE);
  if (id * 2 > index->mask)
    index_grow(live, &live->site_index, id + 1, false);
  ls_unlock(&live->depot_lock);
  return id;
}

uint32_t ls_depot_find_site(struct ls_thread *thread, uint32_t node, uint8_t kind, uint32_t depth) {
  uint32_t slot = (node ^ kind) % LS_SITE_CACHE;
  uint32_t id = find_site(ls_live, node, kind, depth);
  thread->site_key[slot] = node << 3 | kind;
  thread->site_id[slot] = id;
  return id;
}
