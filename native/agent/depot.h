// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Stacks and sites, each once.
 */
#ifndef LEAKSCOPE_DEPOT_H
#define LEAKSCOPE_DEPOT_H

#include "process.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

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

#pragma GCC visibility pop

#endif
