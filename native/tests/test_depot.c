// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The stack depot: threads that enter the same stacks in different orders get the same ids, each
 * stack once, while the indexes grow under them; and what a full depot answers.
 * Prints what failed and exits 1.
 */
#include <pthread.h>

#include "alone.h"
#include "depot.h"

#define THREADS 4u
#define STACKS 20000u
#define DEPTH 6u
#define KINDS 3u

static struct lsr_header header;
static struct lsr_node nodes[1u << 18];
static struct lsr_site sites[1u << 17];
static uint64_t node_room = sizeof nodes, site_room = sizeof sites;
static unsigned dropped_nodes, dropped_sites, failed_index;
static size_t index_room = SIZE_MAX;

void *ls_private(size_t bytes) {
  if (bytes > index_room) {
    failed_index++;
    return NULL;
  }
  return calloc(1, bytes);
}
bool ls_area_grow(struct lsr_area *area, uint64_t needed) {
  return needed <= (area == &header.nodes ? node_room : site_room);
}
void ls_count_drop_anywhere(enum lsr_drop reason) {
  unsigned *count = reason == LSR_DROP_NODES_FULL ? &dropped_nodes : &dropped_sites;
  __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
}

/* Stack i: its path shares frames with others, as calls do. Frame 0 is the outermost. */
static uint64_t offset_of(uint32_t stack, uint32_t depth) {
  return (uint64_t)depth << 32 | stack >> (3 * (DEPTH - 1 - depth));
}
static uint32_t enter(uint32_t stack, uint32_t *path) {
  uint32_t node = 0;
  for (uint32_t d = 0; d < DEPTH; d++)
    path[d] = node =
        ls_depot_node(node, (uint16_t)(1 + d % 3), (uint16_t)(d % 2), offset_of(stack, d));
  return node;
}

static uint32_t leaf[THREADS][STACKS], site[THREADS][STACKS][KINDS];
static pthread_barrier_t ready;

static void *work(void *argument) {
  uint32_t me = (uint32_t)(uintptr_t)argument, path[DEPTH];
  struct ls_thread *thread = calloc(1, sizeof *thread);
  uint64_t state = 88172645463325252u + me;
  static uint32_t order[THREADS][STACKS];
  for (uint32_t i = 0; i < STACKS; i++)
    order[me][i] = i;
  for (uint32_t i = STACKS - 1; i > 0; i--) {
    uint32_t j = draw_from(&state) % (i + 1), swap = order[me][i];
    order[me][i] = order[me][j];
    order[me][j] = swap;
  }
  pthread_barrier_wait(&ready);
  for (uint32_t i = 0; i < STACKS; i++) {
    uint32_t stack = order[me][i];
    leaf[me][stack] = enter(stack, path);
    for (uint32_t kind = 0; kind < KINDS; kind++)
      site[me][stack][kind] = ls_depot_site(thread, leaf[me][stack], (uint8_t)kind, DEPTH);
  }
  free(thread);
  return NULL;
}

static void start(void) {
  memset(&live, 0, sizeof live);
  memset(&header, 0, sizeof header);
  memset(nodes, 0, sizeof nodes);
  memset(sites, 0, sizeof sites);
  header.node_count = header.site_count = 1; /* 0: none */
  live.header = &header;
  live.nodes = nodes;
  live.sites = sites;
  CHECK(ls_depot_init(&live));
}

static void check_the_same(void) {
  for (uint32_t stack = 0; stack < STACKS; stack++)
    for (uint32_t t = 0; t < THREADS; t++) {
      CHECK(leaf[t][stack] == leaf[0][stack]);
      uint32_t node = leaf[t][stack];
      for (uint32_t d = DEPTH; d-- > 0; node = nodes[node].parent) {
        CHECK(node && node < header.node_count);
        CHECK(nodes[node].offset == offset_of(stack, d) && nodes[node].module == 1 + d % 3 &&
              nodes[node].flags == d % 2);
      }
      CHECK(!node);
      for (uint32_t kind = 0; kind < KINDS; kind++) {
        uint32_t id = site[t][stack][kind];
        CHECK(id == site[0][stack][kind] && id && id < header.site_count);
        CHECK(sites[id].node == leaf[t][stack] && sites[id].kind == kind &&
              sites[id].depth == DEPTH);
      }
    }
}

int main(void) {
  pthread_t thread[THREADS];
  pthread_barrier_init(&ready, NULL, THREADS);
  start();
  for (uintptr_t t = 0; t < THREADS; t++)
    CHECK(!pthread_create(&thread[t], NULL, work, (void *)t));
  for (uint32_t t = 0; t < THREADS; t++)
    pthread_join(thread[t], NULL);
  check_the_same();
  uint32_t distinct = 1;
  for (uint32_t d = 0; d < DEPTH; d++) {
    uint32_t shift = 3 * (DEPTH - 1 - d);
    distinct += ((STACKS - 1) >> shift) + 1;
  }
  CHECK(header.node_count == distinct);
  CHECK(header.site_count == 1 + STACKS * KINDS);
  CHECK(live.node_index->mask + 1 >= header.node_count &&
        live.site_index->mask + 1 >= header.site_count);
  CHECK(!dropped_nodes && !dropped_sites);

  /* The same once more: nothing new. */
  uint32_t path[DEPTH];
  for (uint32_t stack = 0; stack < STACKS; stack++)
    CHECK(enter(stack, path) == leaf[0][stack]);
  CHECK(header.node_count == distinct);

  /* What differs in one field alone is another frame; what differs in the kind, another site. */
  uint32_t one = ls_depot_node(0, 1, 0, 7);
  CHECK(ls_depot_node(0, 1, 0, 7) == one);
  CHECK(ls_depot_node(0, 2, 0, 7) != one && ls_depot_node(0, 1, 1, 7) != one &&
        ls_depot_node(0, 1, 0, 8) != one && ls_depot_node(one, 1, 0, 7) != one);

  /* Full: the stack ends at its caller, no site is 0, and both are counted. */
  struct ls_thread *alone = calloc(1, sizeof *alone);
  node_room = header.node_count * sizeof *nodes;
  CHECK(ls_depot_node(one, 3, 0, 1) == one && dropped_nodes == 1);
  CHECK(ls_depot_node(0, 1, 0, 7) == one);
  site_room = header.site_count * sizeof *sites;
  CHECK(ls_depot_site(alone, one, 1, 1) == 0 && dropped_sites == 1);
  CHECK(ls_depot_site(alone, leaf[0][5], 1, DEPTH) == site[0][5][1]);
  node_room = sizeof nodes;
  site_room = sizeof sites;

  /* Indexes that cannot grow: what is in them is found, what does not fit is counted. */
  start();
  dropped_nodes = dropped_sites = 0;
  index_room = sizeof(struct ls_index) + live.node_index->mask * sizeof(uint32_t);
  for (uint32_t i = 0; i < STACKS; i++) {
    uint32_t id = ls_depot_node(0, 1, 0, i);
    CHECK(id == (dropped_nodes ? 0 : i + 1));
    id = ls_depot_site(alone, i, 1, 1);
    CHECK(id == (dropped_sites ? 0 : i + 1));
  }
  uint32_t held = header.node_count - 1;
  CHECK(failed_index && held > 7000 && held == header.site_count - 1);
  CHECK(dropped_nodes == STACKS - held && dropped_sites == STACKS - held);
  for (uint32_t i = 0; i < held; i++)
    CHECK(ls_depot_node(0, 1, 0, i) == i + 1);
  puts("ok");
  return 0;
}
