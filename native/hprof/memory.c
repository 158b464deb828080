// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Memory up to a limit: what a dump asks for is counted before it is asked for.
 */
#include "hprof.h"

#include <stdlib.h>

static bool may_take(struct heap *heap, uint64_t bytes) {
  struct facts *facts = &heap->facts;
  if (bytes > heap->limit || facts->memory > heap->limit - bytes)
    return false;
  facts->memory += bytes;
  if (facts->memory > facts->most)
    facts->most = facts->memory;
  return true;
}

void *memory_new(struct heap *heap, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count ? count : 1, size, &bytes) || !may_take(heap, bytes))
    return NULL;
  void *memory = calloc(1, bytes);
  if (!memory)
    heap->facts.memory -= bytes;
  return memory;
}

void memory_free(struct heap *heap, void *memory, size_t count, size_t size) {
  if (memory)
    heap->facts.memory -= (count ? count : 1) * size;
  free(memory);
}

void *list_add(struct heap *heap, struct list *list, size_t size) {
  if (list->count == list->room) {
    size_t room = list->room + list->room / 2 + 64;
    if (!may_take(heap, (room - list->room) * size))
      return NULL;
    void *items = realloc(list->items, room * size);
    if (!items) {
      heap->facts.memory -= (room - list->room) * size;
      return NULL;
    }
    list->items = items;
    list->room = room;
  }
  return (char *)list->items + list->count++ * size;
}

void list_free(struct heap *heap, struct list *list, size_t size) {
  heap->facts.memory -= list->room * size;
  free(list->items);
  *list = (struct list){0};
}

void list_trim(struct heap *heap, struct list *list, size_t size) {
  if (list->count == list->room || !list->count)
    return;
  void *items = realloc(list->items, list->count * size);
  if (!items)
    return;
  heap->facts.memory -= (list->room - list->count) * size;
  list->items = items;
  list->room = list->count;
}
