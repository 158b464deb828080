// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The first reading: which objects there are, by ascending address, and how one is found.
 */
#include "hprof.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static int add_object(struct heap *heap, uint64_t id, uint64_t offset, uint32_t kind,
                      uint32_t count, uint64_t class_id, uint64_t body_bytes) {
  (void)count, (void)class_id, (void)body_bytes;
  if (heap->objects.count >= NONE - 1)
    return TOO_MANY;
  struct object *object = list_add(heap, &heap->objects, sizeof *object);
  if (!object)
    return NO_MEMORY;
  *object = (struct object){id, offset << KIND_BITS | kind};
  return DONE;
}

/* Sort by address, those that are equal in their order: by merging the stretches that ascend. */
static int sort_objects(struct heap *heap) {
  size_t count = heap->objects.count;
  struct object *from = heap->objects.items;
  size_t i = 1;
  while (i < count && from[i - 1].id <= from[i].id)
    i++;
  if (i >= count)
    return DONE;
  struct object *to = memory_new(heap, count, sizeof *to);
  if (!to)
    return NO_MEMORY;
  struct object *spare = to;
  for (bool merged = true; merged;) {
    merged = false;
    for (size_t at = 0; at < count;) {
      size_t middle = at + 1;
      while (middle < count && from[middle - 1].id <= from[middle].id)
        middle++;
      size_t end = middle < count ? middle + 1 : middle;
      while (end < count && from[end - 1].id <= from[end].id)
        end++;
      size_t left = at, right = middle;
      merged = merged || (middle < count && (at || end < count));
      for (size_t out = at; out < end; out++)
        to[out] = right >= end || (left < middle && from[left].id <= from[right].id)
                      ? from[left++]
                      : from[right++];
      at = end;
    }
    struct object *swap = from;
    from = to, to = swap;
  }
  if (from != heap->objects.items) {
    memcpy(heap->objects.items, from, count * sizeof *from);
  }
  memory_free(heap, spare, count, sizeof *spare);
  return DONE;
}

/* Of objects with one address the first in the file is the one. */
static void drop_duplicates(struct heap *heap) {
  struct object *objects = heap->objects.items;
  size_t kept = 0;
  for (size_t i = 0; i < heap->objects.count; i++) {
    if (kept && objects[kept - 1].id == objects[i].id)
      heap->facts.duplicates++;
    else if (objects[i].id) /* 0 is no address */
      objects[kept++] = objects[i];
  }
  heap->objects.count = kept;
}

static size_t count_pages(const struct heap *heap, unsigned shift) {
  const struct object *objects = heap->objects.items;
  size_t pages = 0;
  for (size_t i = 0; i < heap->objects.count; i++)
    pages += !i || objects[i].id >> shift != objects[i - 1].id >> shift;
  return pages;
}

/* The factor is another one each time: who makes a dump cannot have all its pages in one slot. */
static size_t slot_of(const struct heap *heap, uint64_t page) {
  return (size_t)(page * heap->page_factor >> (64 - __builtin_ctzll(heap->page_count)));
}

static int index_pages(struct heap *heap) {
  const struct object *objects = heap->objects.items;
  size_t count = heap->objects.count, pages;
  unsigned shift = 12;
  while ((pages = count_pages(heap, shift)) > count / 8 + 64 && shift < 40)
    shift += 4;
  heap->page_shift = shift;
  if (getrandom(&heap->page_factor, sizeof heap->page_factor, GRND_NONBLOCK) < 0)
    heap->page_factor = 0x9e3779b97f4a7c15u;
  heap->page_factor |= 1;
  heap->page_count = 64;
  while (heap->page_count < 2 * pages)
    heap->page_count *= 2;
  heap->pages = memory_new(heap, heap->page_count, sizeof *heap->pages);
  if (!heap->pages)
    return NO_MEMORY;
  for (size_t i = 0; i < count; i++) {
    uint64_t page = objects[i].id >> shift;
    if (i && objects[i - 1].id >> shift == page)
      continue;
    size_t slot = slot_of(heap, page);
    while (heap->pages[slot].page)
      slot = (slot + 1) & (heap->page_count - 1);
    heap->pages[slot] = (struct page){page + 1, (uint32_t)i, 0};
  }
  return DONE;
}

uint32_t index_find(const struct heap *heap, uint64_t id) {
  const struct object *objects = heap->objects.items;
  uint64_t page = id >> heap->page_shift;
  size_t slot = slot_of(heap, page);
  while (heap->pages[slot].page != page + 1) {
    if (!heap->pages[slot].page)
      return NONE;
    slot = (slot + 1) & (heap->page_count - 1);
  }
  /* Galloping: the objects of a page are few and near. */
  size_t low = heap->pages[slot].first, step = 8, high = low + step;
  while (high < heap->objects.count && objects[high].id < id) {
    low = high;
    step *= 2;
    high = low + step;
  }
  high = high < heap->objects.count ? high + 1 : heap->objects.count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (objects[middle].id < id)
      low = middle + 1;
    else
      high = middle;
  }
  return low < heap->objects.count && objects[low].id == id ? (uint32_t)low : NONE;
}

static int by_class(const void *one, const void *other) {
  uint64_t a = ((const struct class *)one)->id, b = ((const struct class *)other)->id;
  uint64_t c = ((const struct class *)one)->offset, d = ((const struct class *)other)->offset;
  return a != b ? (a > b) - (a < b) : (c > d) - (c < d);
}

static int by_thread(const void *one, const void *other) {
  const struct root *a = one, *b = other;
  return (a->id > b->id) - (a->id < b->id);
}

uint32_t class_find(const struct heap *heap, uint64_t id) {
  const struct class *classes = heap->classes.items;
  size_t low = 0, high = heap->classes.count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (classes[middle].id < id)
      low = middle + 1;
    else
      high = middle;
  }
  return low < heap->classes.count && classes[low].id == id ? (uint32_t)low : NONE;
}

int index_build(struct heap *heap) {
  struct visitor visitor = {.indexing = true, .object = add_object};
  int result = records_walk(heap, &visitor);
  if (result)
    return result;
  result = sort_objects(heap);
  if (result)
    return result;
  drop_duplicates(heap);
  list_trim(heap, &heap->objects, sizeof(struct object));
  list_trim(heap, &heap->texts, sizeof(struct text));
  struct class *classes = heap->classes.items;
  if (heap->classes.count)
    qsort(classes, heap->classes.count, sizeof *classes, by_class);
  size_t kept = 0;
  for (size_t i = 0; i < heap->classes.count; i++)
    if (!kept || classes[kept - 1].id != classes[i].id)
      classes[kept++] = classes[i];
  heap->classes.count = kept;
  if (heap->roots.count)
    qsort(heap->roots.items, heap->roots.count, sizeof(struct root), by_thread);
  result = index_pages(heap);
  if (result)
    return result;
  for (size_t i = 0; i < kept; i++)
    classes[i].number = index_find(heap, classes[i].id);
  struct root *roots = heap->roots.items;
  for (size_t i = 0; i < heap->roots.count; i++)
    roots[i].number = index_find(heap, roots[i].id);
  return DONE;
}
