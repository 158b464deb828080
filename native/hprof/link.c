// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The second reading: what each object refers to, of which class it is, and how large.
 */
#include "hprof.h"

#include <stdlib.h>
#include <string.h>

#define TAG_THREAD 0x08
#define CACHE 4096u

struct extra { /* a reference that the dump does not tell as one */
  uint32_t from, to;
};

/* What `link_object` needs; there is one analysis at a time in a thread. */
struct linking {
  const struct link *link;
  uint32_t last; /* number of the object before */
  uint32_t reference_class;
  size_t extra_at;
  struct {
    uint64_t id;
    uint32_t index;
  } cache[CACHE];
};

static _Thread_local struct linking *linking;

static uint32_t class_index(const struct heap *heap, uint64_t id) {
  size_t slot = (size_t)(id >> 3 ^ id >> 15) & (CACHE - 1);
  if (linking->cache[slot].id != id || !id) {
    linking->cache[slot].id = id;
    linking->cache[slot].index = class_find(heap, id);
  }
  return linking->cache[slot].index;
}

/* ---- classes ---- */

static int lay_out(struct heap *heap, struct class *class) {
  const struct field *fields = (const struct field *)heap->fields.items + class->field_first;
  uint64_t at = 0;
  class->refs_first = (uint32_t)heap->refs.count;
  for (uint32_t i = 0; i < class->field_count; i++) {
    if (fields[i].type == TYPE_OBJECT) {
      uint32_t *ref = list_add(heap, &heap->refs, sizeof *ref);
      if (!ref)
        return NO_MEMORY;
      *ref = (uint32_t)at;
      class->refs_count++;
    }
    at += type_size(heap, fields[i].type);
  }
  class->own_bytes = (uint32_t)at;
  return DONE;
}

static uint32_t add_bytes(uint32_t a, uint32_t b) { return a > NONE - 1 - b ? NONE - 1 : a + b; }

/* What a class has from those above it, which come first; a class above itself has nothing above. */
static void inherit(struct heap *heap, uint32_t index, const struct link *link) {
  struct class *classes = heap->classes.items, *class = &classes[index];
  class->kind = index == link->soft      ? SOFT
                : index == link->final   ? FINAL
                : index == link->weak    ? WEAK
                : index == link->phantom ? PHANTOM
                                         : 0;
  class->next = NONE;
  class->next_bytes = class->own_bytes;
  if (class->super_index == NONE)
    return;
  const struct class *super = &classes[class->super_index];
  class->kind = class->kind ? class->kind : super->kind;
  if (super->refs_count) {
    class->next = class->super_index;
  } else {
    class->next = super->next;
    class->next_bytes = add_bytes(class->own_bytes, super->next_bytes);
  }
}

static int prepare_classes(struct heap *heap, const struct link *link) {
  struct class *classes = heap->classes.items;
  size_t count = heap->classes.count;
  /* 0: not yet, 1: on the way up from another one, 2: done. */
  uint8_t *state = memory_new(heap, count, 1);
  uint32_t *way = memory_new(heap, count, sizeof *way);
  int result = state && way ? DONE : NO_MEMORY;
  for (size_t i = 0; i < count && !result; i++) {
    classes[i].super_index = class_find(heap, classes[i].super);
    classes[i].refs_count = 0;
    result = lay_out(heap, &classes[i]);
  }
  for (size_t i = 0; i < count && !result; i++) {
    size_t depth = 0;
    uint32_t at = (uint32_t)i;
    while (at != NONE && !state[at]) {
      state[at] = 1;
      way[depth++] = at;
      at = classes[at].super_index;
    }
    if (at != NONE && state[at] == 1)
      classes[way[depth - 1]].super_index = NONE;
    while (depth--) {
      inherit(heap, way[depth], link);
      state[way[depth]] = 2;
    }
  }
  memory_free(heap, state, count, 1);
  memory_free(heap, way, count, sizeof *way);
  return result;
}

/* ---- references ---- */

static int add_edge(struct heap *heap, uint32_t from, uint32_t to) {
  /* A root is held whatever else refers to it. */
  if (to == from || heap->is_root[to])
    return DONE;
  if (heap->edges.count >= NONE - 1)
    return TOO_MANY;
  uint32_t *edge = list_add(heap, &heap->edges, sizeof *edge);
  if (!edge)
    return NO_MEMORY;
  *edge = to;
  heap->out_count[from]++;
  return DONE;
}

static int add_reference(struct heap *heap, uint32_t from, uint64_t id) {
  if (!id)
    return DONE;
  uint32_t to = index_find(heap, id);
  if (to == NONE) {
    heap->facts.nowhere++;
    return DONE;
  }
  return add_edge(heap, from, to);
}

static int add_weak(struct heap *heap, uint32_t from, uint64_t id, uint32_t kind) {
  uint32_t to = id ? index_find(heap, id) : NONE;
  if (to == NONE || to == from || heap->is_root[to])
    return DONE;
  struct weak *weak = list_add(heap, &heap->weak, sizeof *weak);
  if (!weak)
    return NO_MEMORY;
  *weak = (struct weak){from, to, kind, 0};
  return DONE;
}

static int link_class(struct heap *heap, uint32_t number, uint64_t id) {
  uint32_t index = class_find(heap, id);
  if (index == NONE)
    return DONE;
  const struct class *class = (const struct class *)heap->classes.items + index;
  const struct field *fields = (const struct field *)heap->fields.items + class->static_first;
  int result = add_reference(heap, number, class->loader);
  if (!result && linking->link->rules & CLASS_EDGES) {
    uint64_t more[3] = {class->super, class->signers, class->domain};
    for (int i = 0; i < 3 && !result; i++)
      result = add_reference(heap, number, more[i]);
  }
  for (uint32_t i = 0; i < class->static_count && !result; i++)
    if (fields[i].type == TYPE_OBJECT)
      result = add_reference(heap, number, fields[i].value);
  return result;
}

/* A body as a whole where it fits into the buffer; NULL: it is read in pieces. */
static int link_instance(struct heap *heap, uint32_t number, uint32_t index, uint64_t bytes) {
  const struct class *classes = heap->classes.items;
  const uint32_t *refs = heap->refs.items;
  struct reader *reader = &heap->reader;
  uint64_t start = reader_tell(reader), part = 0;
  uint32_t kind = classes[index].kind;
  unsigned id = (unsigned)heap->id_size;
  for (uint32_t at = index; at != NONE;) {
    const struct class *class = &classes[at];
    for (uint32_t i = 0; i < class->refs_count; i++) {
      uint32_t own = refs[class->refs_first + i];
      uint64_t offset = part + own;
      if (offset + id > bytes) {
        heap->facts.short_bodies++;
        return DONE;
      }
      uint64_t here = reader_tell(reader);
      if (!reader_skip(reader, start + offset - here))
        return DONE;
      const uint8_t *value = reader_take(reader, id);
      if (!value)
        return DONE;
      uint64_t target = id_at(heap, value);
      bool weak = kind && at == linking->link->reference && own == linking->link->referent;
      int result =
          weak ? add_weak(heap, number, target, kind) : add_reference(heap, number, target);
      if (result)
        return result;
    }
    part += class->next_bytes;
    at = class->next;
  }
  return DONE;
}

static int link_elements(struct heap *heap, uint32_t number, uint64_t bytes) {
  unsigned id = (unsigned)heap->id_size;
  while (bytes) {
    size_t piece = bytes < 1 << 15 ? (size_t)bytes : 1 << 15;
    const uint8_t *at = reader_take(&heap->reader, piece);
    if (!at)
      return DONE;
    for (size_t i = 0; i + id <= piece; i += id) {
      int result = add_reference(heap, number, id_at(heap, at + i));
      if (result)
        return result;
    }
    bytes -= piece;
  }
  return DONE;
}

static int link_extra(struct heap *heap, uint32_t number) {
  const struct extra *extra = heap->extra.items;
  size_t low = 0, high = heap->extra.count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (extra[middle].from < number)
      low = middle + 1;
    else
      high = middle;
  }
  int result = DONE;
  for (; low < heap->extra.count && extra[low].from == number && !result; low++)
    result = add_edge(heap, number, extra[low].to);
  return result;
}

static int link_object(struct heap *heap, uint64_t id, uint64_t offset, uint32_t kind,
                       uint32_t count, uint64_t class_id, uint64_t body_bytes) {
  const struct object *objects = heap->objects.items;
  uint32_t number = linking->last + 1;
  if (number >= heap->objects.count || objects[number].id != id)
    number = index_find(heap, id);
  if (number == NONE || objects[number].place != (offset << KIND_BITS | kind))
    return DONE; /* another one has that address */
  linking->last = number;
  heap->out_first[number] = (uint32_t)heap->edges.count;
  const struct link *link = linking->link;
  uint32_t index = kind == CLASS_OBJECT ? link->class_class
                   : kind < 4           ? class_index(heap, class_id)
                                        : link->primitive[kind];
  heap->class_of[number] = index;
  heap->shallow[number] = count;
  heap->facts.no_class += index == NONE && (kind == INSTANCE || kind == OBJECT_ARRAY);
  int result = DONE;
  if (kind == CLASS_OBJECT)
    result = link_class(heap, number, id);
  else if (kind == INSTANCE && index != NONE)
    result = link_instance(heap, number, index, body_bytes);
  else if (kind == OBJECT_ARRAY)
    result = link_elements(heap, number, body_bytes);
  if (!result && link->rules & CLASS_EDGES && index != NONE && kind != CLASS_OBJECT) {
    uint32_t class = ((const struct class *)heap->classes.items)[index].number;
    if (class != NONE)
      result = add_edge(heap, number, class);
  }
  if (!result && heap->extra.count && heap->is_root[number])
    result = link_extra(heap, number);
  return result;
}

/* ---- roots ---- */

static int by_serial(const void *one, const void *other) {
  const struct root *a = *(const struct root *const *)one, *b = *(const struct root *const *)other;
  return (a->thread > b->thread) - (a->thread < b->thread);
}

static int by_from(const void *one, const void *other) {
  const struct extra *a = one, *b = other;
  return (a->from > b->from) - (a->from < b->from);
}

static bool of_thread(uint32_t tag) {
  return tag == 0x02 || tag == 0x03 || tag == 0x04 || tag == 0x06;
}

/* Mark the roots; with THREAD_EDGES what a thread's frames hold is held by the thread. */
static int mark_roots(struct heap *heap, uint32_t rules) {
  struct root *roots = heap->roots.items;
  size_t count = heap->roots.count, threads = 0;
  const struct root **by = memory_new(heap, count, sizeof *by);
  if (!by)
    return NO_MEMORY;
  for (size_t i = 0; i < count && rules & THREAD_EDGES; i++)
    if (roots[i].tag == TAG_THREAD && roots[i].number != NONE)
      by[threads++] = &roots[i];
  if (threads)
    qsort(by, threads, sizeof *by, by_serial);
  int result = DONE;
  for (size_t i = 0; i < count && !result; i++) {
    uint32_t number = roots[i].number;
    if (number == NONE)
      continue;
    const struct root *thread = NULL;
    if (of_thread(roots[i].tag)) {
      size_t low = 0, high = threads;
      while (low < high) {
        size_t middle = (low + high) / 2;
        if (by[middle]->thread < roots[i].thread)
          low = middle + 1;
        else
          high = middle;
      }
      if (low < threads && by[low]->thread == roots[i].thread)
        thread = by[low];
    }
    if (!thread) {
      heap->is_root[number] = 1;
      continue;
    }
    struct extra *extra = list_add(heap, &heap->extra, sizeof *extra);
    if (!extra)
      result = NO_MEMORY;
    else
      *extra = (struct extra){thread->number, number};
  }
  if (heap->extra.count)
    qsort(heap->extra.items, heap->extra.count, sizeof(struct extra), by_from);
  memory_free(heap, by, count, sizeof *by);
  return result;
}

static int by_weak(const void *one, const void *other) {
  const struct weak *a = one, *b = other;
  return (a->from > b->from) - (a->from < b->from);
}

EXPORT int lsh_link(struct heap *heap, const struct link *link);
int lsh_link(struct heap *heap, const struct link *link) {
  size_t count = heap->objects.count, classes = heap->classes.count;
  const uint32_t *given = (const uint32_t *)link;
  for (size_t i = 0; i < 18; i++)
    if (given[i] != NONE && given[i] >= classes)
      return TOO_MANY;
  heap->class_of = memory_new(heap, count, sizeof(uint32_t));
  heap->shallow = memory_new(heap, count, sizeof(uint32_t));
  heap->out_first = memory_new(heap, count, sizeof(uint32_t));
  heap->out_count = memory_new(heap, count, sizeof(uint32_t));
  heap->is_root = memory_new(heap, count, 1);
  linking = calloc(1, sizeof *linking);
  int result = heap->class_of && heap->shallow && heap->out_first && heap->out_count &&
                       heap->is_root && linking
                   ? DONE
                   : NO_MEMORY;
  if (!result) {
    linking->link = link;
    linking->last = NONE - 1;
    memset(heap->class_of, 0xff, count * sizeof(uint32_t));
    result = mark_roots(heap, link->rules);
  }
  if (!result)
    result = prepare_classes(heap, link);
  struct visitor visitor = {.object = link_object};
  if (!result)
    result = records_walk(heap, &visitor);
  if (!result && heap->weak.count)
    qsort(heap->weak.items, heap->weak.count, sizeof(struct weak), by_weak);
  list_trim(heap, &heap->edges, sizeof(uint32_t));
  list_free(heap, &heap->extra, sizeof(struct extra));
  heap->facts.edges = heap->edges.count;
  free(linking);
  linking = NULL;
  return result;
}
