// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * What is held, by whom, and how much with it: depth-first search from the roots, dominators by
 * Lengauer and Tarjan (with path compression alone: O(references · log objects) whatever the
 * shape of the graph), retained sizes, shortest paths, and what weaker references hold.
 */
#include "hprof.h"

#include <stdlib.h>
#include <string.h>

struct step {
  uint32_t number, edge;
};

/* Tables in the order of the search; 0 stands for whatever holds the roots. */
struct search {
  uint32_t count;  /* objects that were met: 1 to count */
  uint32_t *order; /* by number of object, 0: not met */
  uint32_t *object, *parent;
  uint32_t *first, *parents; /* whose references lead to an object: from first[i] to first[i+1] */
  uint32_t *above, *semi, *label, *dominator, *bucket, *next;
  struct list way;
};

static const uint32_t *edges_of(const struct heap *heap, uint32_t number, uint32_t *ret_count) {
  *ret_count = heap->out_count[number];
  return (const uint32_t *)heap->edges.items + heap->out_first[number];
}

/* ---- depth first ---- */

static int visit(struct heap *heap, struct search *search, struct list *stack, uint32_t number,
                 uint32_t parent) {
  struct step *step = list_add(heap, stack, sizeof *step);
  if (!step)
    return NO_MEMORY;
  *step = (struct step){number, 0};
  search->order[number] = ++search->count;
  search->object[search->count] = number;
  search->parent[search->count] = parent;
  return DONE;
}

/* Where the weak references of an object begin. */
static size_t weak_of(const struct heap *heap, uint32_t number) {
  const struct weak *weak = heap->weak.items;
  size_t low = 0, high = heap->weak.count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (weak[middle].from < number)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/**
 * The next object on from a step that was not met yet, NONE: there is none. With ALL_PARENTS the
 * way also goes through weak references, to what is strongly held in some other way: dominators
 * are those of the graph that was searched.
 */
static uint32_t go_on(const struct heap *heap, const struct search *search, struct step *step,
                      uint32_t rules) {
  uint32_t count;
  const uint32_t *edges = edges_of(heap, step->number, &count);
  for (; step->edge < count; step->edge++)
    if (!search->order[edges[step->edge]])
      return edges[step->edge++];
  const struct weak *weak = heap->weak.items;
  if (!(rules & ALL_PARENTS))
    return NONE;
  for (size_t i = weak_of(heap, step->number) + step->edge - count;
       i < heap->weak.count && weak[i].from == step->number; i++, step->edge++)
    if (!search->order[weak[i].to] && heap->level[weak[i].to] == STRONG) {
      step->edge++;
      return weak[i].to;
    }
  return NONE;
}

static int search_from_roots(struct heap *heap, struct search *search, uint32_t rules) {
  struct list stack = {0};
  int result = DONE;
  for (size_t root = 0; root < heap->objects.count && !result; root++) {
    if (!heap->is_root[root])
      continue;
    result = visit(heap, search, &stack, (uint32_t)root, 0);
    while (stack.count && !result) {
      struct step *step = (struct step *)stack.items + stack.count - 1;
      uint32_t from = step->number, to = go_on(heap, search, step, rules);
      if (to == NONE)
        stack.count--;
      else
        result = visit(heap, search, &stack, to, search->order[from]);
    }
  }
  list_free(heap, &stack, sizeof(struct step));
  return result;
}

/* ---- parents ---- */

/* Count the references to each object that was met, or with `writing` put them down. */
static void each_parent(const struct heap *heap, struct search *search, uint32_t rules,
                        bool writing) {
  const struct weak *weak = heap->weak.items;
  for (size_t from = 0; from < heap->objects.count; from++) {
    if (!search->order[from] && !(rules & ALL_PARENTS))
      continue;
    uint32_t count;
    const uint32_t *edges = edges_of(heap, (uint32_t)from, &count);
    for (uint32_t i = 0; i < count; i++) {
      uint32_t to = search->order[edges[i]];
      if (!to)
        continue;
      if (writing)
        search->parents[--search->first[to]] = search->order[from];
      else
        search->first[to]++;
    }
  }
  for (size_t i = 0; i < heap->weak.count && rules & ALL_PARENTS; i++) {
    uint32_t to = search->order[weak[i].to];
    if (!to)
      continue;
    if (writing)
      search->parents[--search->first[to]] = search->order[weak[i].from];
    else
      search->first[to]++;
  }
}

static int collect_parents(struct heap *heap, struct search *search, uint32_t rules,
                           size_t *ret_count) {
  each_parent(heap, search, rules, false);
  uint64_t sum = 0;
  for (uint32_t i = 0; i <= search->count; i++) {
    sum += search->first[i];
    if (sum >= NONE)
      return TOO_MANY;
    search->first[i] = (uint32_t)sum; /* the end: writing goes backwards */
  }
  search->first[search->count + 1] = (uint32_t)sum;
  *ret_count = (size_t)sum;
  search->parents = memory_new(heap, (size_t)sum, sizeof(uint32_t));
  if (!search->parents)
    return NO_MEMORY;
  each_parent(heap, search, rules, true);
  return DONE;
}

/* ---- dominators ---- */

static int compress(struct heap *heap, struct search *search, uint32_t of) {
  struct list *way = &search->way;
  way->count = 0;
  while (search->above[search->above[of]] != NONE) {
    uint32_t *kept = list_add(heap, way, sizeof *kept);
    if (!kept)
      return NO_MEMORY;
    *kept = of;
    of = search->above[of];
  }
  const uint32_t *items = way->items;
  for (size_t i = way->count; i--;) {
    uint32_t at = items[i], above = search->above[at];
    if (search->semi[search->label[above]] < search->semi[search->label[at]])
      search->label[at] = search->label[above];
    search->above[at] = search->above[above];
  }
  return DONE;
}

static int evaluate(struct heap *heap, struct search *search, uint32_t of, uint32_t *ret) {
  int result = DONE;
  if (search->above[of] != NONE && search->above[search->above[of]] != NONE)
    result = compress(heap, search, of);
  *ret = search->label[of];
  return result;
}

static int find_dominators(struct heap *heap, struct search *search) {
  uint32_t best;
  for (uint32_t i = 0; i <= search->count; i++) {
    search->above[i] = NONE;
    search->semi[i] = search->label[i] = i;
    search->bucket[i] = NONE;
  }
  for (uint32_t at = search->count; at; at--) {
    if (heap->is_root[search->object[at]])
      search->semi[at] = 0;
    for (uint32_t i = search->first[at]; i < search->first[at + 1]; i++) {
      int result = evaluate(heap, search, search->parents[i], &best);
      if (result)
        return result;
      if (search->semi[best] < search->semi[at])
        search->semi[at] = search->semi[best];
    }
    uint32_t semi = search->semi[at], parent = search->parent[at];
    search->next[at] = search->bucket[semi];
    search->bucket[semi] = at;
    search->above[at] = parent;
    for (uint32_t other = search->bucket[parent]; other != NONE; other = search->next[other]) {
      int result = evaluate(heap, search, other, &best);
      if (result)
        return result;
      search->dominator[other] = search->semi[best] < search->semi[other] ? best : parent;
    }
    search->bucket[parent] = NONE;
  }
  for (uint32_t at = 1; at <= search->count; at++)
    if (search->dominator[at] != search->semi[at])
      search->dominator[at] = search->dominator[search->dominator[at]];
  return DONE;
}

/* Who dominates whom and how much, by number of object. */
static void retain(struct heap *heap, const struct search *search) {
  for (uint32_t at = 1; at <= search->count; at++)
    heap->retained[search->object[at]] = heap->shallow[search->object[at]];
  for (uint32_t at = search->count; at; at--) {
    uint32_t object = search->object[at], dominator = search->dominator[at];
    if (!dominator)
      continue;
    uint32_t over = search->object[dominator];
    heap->idom[object] = over;
    heap->retained[over] += heap->retained[object];
    if (heap->heaviest[over] == NONE ||
        heap->retained[heap->heaviest[over]] <= heap->retained[object])
      heap->heaviest[over] = object;
  }
}

/* ---- levels and paths ---- */

static void flood(struct heap *heap, uint32_t *queue, size_t end, uint8_t level) {
  const struct weak *weak = heap->weak.items;
  for (size_t at = 0; at < end;) {
    uint32_t number = queue[at++], count;
    const uint32_t *edges = edges_of(heap, number, &count);
    for (uint32_t i = 0; i < count; i++) {
      if (heap->level[edges[i]])
        continue;
      heap->level[edges[i]] = level;
      heap->towards_root[edges[i]] = number;
      queue[end++] = edges[i];
    }
    if (level == STRONG || !heap->weak.count)
      continue;
    for (size_t i = weak_of(heap, number); i < heap->weak.count && weak[i].from == number; i++)
      if (weak[i].kind <= level && !heap->level[weak[i].to]) {
        heap->level[weak[i].to] = level;
        heap->towards_root[weak[i].to] = number;
        queue[end++] = weak[i].to;
      }
  }
}

/* First what lasts: the classes that are never unloaded, then what is global, then threads. */
static unsigned rank_of(uint32_t tag) {
  return tag == 0x05 ? 0 : tag == 0x01 ? 1 : tag == 0x08 ? 2 : 3;
}

static int find_levels(struct heap *heap) {
  size_t count = heap->objects.count, end = 0;
  const struct root *roots = heap->roots.items;
  const struct weak *weak = heap->weak.items;
  uint32_t *queue = memory_new(heap, count, sizeof *queue);
  if (!queue)
    return NO_MEMORY;
  for (unsigned rank = 0; rank < 4; rank++)
    for (size_t i = 0; i < heap->roots.count; i++) {
      uint32_t number = roots[i].number;
      if (number == NONE || rank_of(roots[i].tag) != rank || !heap->is_root[number] ||
          heap->level[number])
        continue;
      heap->level[number] = STRONG;
      queue[end++] = number;
    }
  flood(heap, queue, end, STRONG);
  for (uint8_t level = SOFT; level <= PHANTOM; level++) {
    end = 0;
    for (size_t i = 0; i < heap->weak.count; i++) {
      if (weak[i].kind > level || !heap->level[weak[i].from] || heap->level[weak[i].to])
        continue;
      heap->level[weak[i].to] = level;
      heap->towards_root[weak[i].to] = weak[i].from;
      queue[end++] = weak[i].to;
    }
    flood(heap, queue, end, level);
  }
  memory_free(heap, queue, count, sizeof *queue);
  return DONE;
}

EXPORT int lsh_dominate(struct heap *heap, uint32_t rules);
int lsh_dominate(struct heap *heap, uint32_t rules) {
  size_t count = heap->objects.count, places = count + 2, parents = 0;
  struct search search = {0};
  heap->level = memory_new(heap, count, 1);
  heap->towards_root = memory_new(heap, count, sizeof(uint32_t));
  if (!heap->level || !heap->towards_root)
    return NO_MEMORY;
  memset(heap->towards_root, 0xff, count * sizeof(uint32_t));
  int result = find_levels(heap);
  if (result)
    return result;
  heap->idom = memory_new(heap, count, sizeof(uint32_t));
  heap->heaviest = memory_new(heap, count, sizeof(uint32_t));
  heap->retained = memory_new(heap, count, sizeof(uint64_t));
  search.order = memory_new(heap, count, sizeof(uint32_t));
  search.object = memory_new(heap, places, sizeof(uint32_t));
  search.parent = memory_new(heap, places, sizeof(uint32_t));
  bool all = heap->idom && heap->heaviest && heap->retained && search.order && search.object &&
             search.parent;
  result = all ? search_from_roots(heap, &search, rules) : NO_MEMORY;
  if (!result) {
    memset(heap->idom, 0xff, count * sizeof(uint32_t));
    memset(heap->heaviest, 0xff, count * sizeof(uint32_t));
    heap->reached = search.count;
  }
  places = (size_t)search.count + 2;
  search.first = result ? NULL : memory_new(heap, places, sizeof(uint32_t));
  if (!result)
    result = search.first ? collect_parents(heap, &search, rules, &parents) : NO_MEMORY;
  memory_free(heap, search.order, count, sizeof(uint32_t));
  uint32_t **tables[] = {&search.above,     &search.semi,   &search.label,
                         &search.dominator, &search.bucket, &search.next};
  size_t number = sizeof tables / sizeof tables[0];
  for (size_t i = 0; i < number && !result; i++) {
    *tables[i] = memory_new(heap, places, sizeof(uint32_t));
    if (!*tables[i])
      result = NO_MEMORY;
  }
  if (!result)
    result = find_dominators(heap, &search);
  if (!result)
    retain(heap, &search);
  for (size_t i = 0; i < number; i++)
    memory_free(heap, *tables[i], places, sizeof(uint32_t));
  list_free(heap, &search.way, sizeof(uint32_t));
  memory_free(heap, search.first, places, sizeof(uint32_t));
  memory_free(heap, search.parents, parents, sizeof(uint32_t));
  memory_free(heap, search.object, count + 2, sizeof(uint32_t));
  memory_free(heap, search.parent, count + 2, sizeof(uint32_t));
  return result;
}

/**
 * Set `inside[i]` to 1 for each object that `number` dominates, itself included, else to 2. It has
 * zeros before. Each object is asked once: the way up ends where the answer is known.
 */
EXPORT void lsh_dominated(const struct heap *heap, uint32_t number, uint8_t *inside);
void lsh_dominated(const struct heap *heap, uint32_t number, uint8_t *inside) {
  inside[number] = 1;
  for (size_t i = 0; i < heap->objects.count; i++) {
    uint32_t at = (uint32_t)i;
    while (at != NONE && !inside[at])
      at = heap->idom[at];
    uint8_t answer = at == NONE ? 2 : inside[at];
    for (at = (uint32_t)i; at != NONE && !inside[at]; at = heap->idom[at])
      inside[at] = answer;
  }
}
