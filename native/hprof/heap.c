// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * A dump as a whole, for Python: opened, read, asked for its tables, given back.
 */
#include "hprof.h"

#include <stdlib.h>

/**
 * Open a dump whose records begin at `start` of the file `fd` of `size` bytes; it stays open and
 * is not closed here. At most `limit` bytes of memory are taken. NULL: no memory.
 */
EXPORT struct heap *lsh_open(int fd, uint64_t start, uint64_t size, int id_size, uint64_t limit);
struct heap *lsh_open(int fd, uint64_t start, uint64_t size, int id_size, uint64_t limit) {
  if (id_size != 4 && id_size != 8)
    return NULL;
  struct heap *heap = calloc(1, sizeof *heap);
  if (!heap || !reader_open(heap, fd, size)) {
    free(heap);
    return NULL;
  }
  heap->start = start;
  heap->id_size = id_size;
  heap->limit = limit;
  return heap;
}

EXPORT int lsh_index(struct heap *heap);
int lsh_index(struct heap *heap) { return index_build(heap); }

/** What the tables are called; Python has the same names (java/_core.py). */
enum table {
  TEXTS,
  LOADS,
  FRAMES,
  TRACES,
  TRACE_FRAMES,
  ROOTS,
  PARTS,
  CLASSES,
  FIELDS,
  OBJECTS,
  REFERENCES, /* weak ones */
  EDGES,
  CLASS_OF,
  SHALLOW,
  OUT_FIRST,
  OUT_COUNT,
  IS_ROOT,
  IDOM,
  HEAVIEST,
  TOWARDS_ROOT,
  RETAINED,
  LEVEL
};

/** Return a table and how many items it has; it lasts until the next step. NULL: not there yet. */
EXPORT const void *lsh_table(const struct heap *heap, int table, uint64_t *ret_count);
const void *lsh_table(const struct heap *heap, int table, uint64_t *ret_count) {
  const struct list *lists[] = {&heap->texts,        &heap->loads,   &heap->frames, &heap->traces,
                                &heap->trace_frames, &heap->roots,   &heap->parts,  &heap->classes,
                                &heap->fields,       &heap->objects, &heap->weak,   &heap->edges};
  const void *columns[] = {heap->class_of, heap->shallow, heap->out_first, heap->out_count,
                           heap->is_root,  heap->idom,    heap->heaviest,  heap->towards_root,
                           heap->retained, heap->level};
  if (table >= 0 && table < CLASS_OF) {
    *ret_count = lists[table]->count;
    return lists[table]->items;
  }
  *ret_count = heap->objects.count;
  return table >= CLASS_OF && table <= LEVEL ? columns[table - CLASS_OF] : NULL;
}

EXPORT const void *lsh_facts(const struct heap *heap);
const void *lsh_facts(const struct heap *heap) { return &heap->facts; }

EXPORT const void *lsh_sizes(const struct heap *heap);
const void *lsh_sizes(const struct heap *heap) { return &heap->sizes; }

EXPORT void lsh_free(struct heap *heap);
void lsh_free(struct heap *heap) {
  if (!heap)
    return;
  void *memory[] = {heap->texts.items,
                    heap->loads.items,
                    heap->frames.items,
                    heap->traces.items,
                    heap->trace_frames.items,
                    heap->roots.items,
                    heap->parts.items,
                    heap->classes.items,
                    heap->fields.items,
                    heap->objects.items,
                    heap->weak.items,
                    heap->edges.items,
                    heap->refs.items,
                    heap->extra.items,
                    heap->pages,
                    heap->class_of,
                    heap->shallow,
                    heap->out_first,
                    heap->out_count,
                    heap->is_root,
                    heap->idom,
                    heap->heaviest,
                    heap->towards_root,
                    heap->retained,
                    heap->level,
                    heap->reader.buffer};
  for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
    free(memory[i]);
  free(heap);
}
