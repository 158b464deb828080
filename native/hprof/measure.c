// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * How large objects are. A dump tells the values of fields and no sizes: whether references were
 * of 4 bytes or of 8, and how long a header is, shows in the distances between objects.
 */
#include "hprof.h"

#include <string.h>

/* Headers of HotSpot on 64 bits: instance, array, reference. Most usual first. */
static const struct layout {
  uint32_t header, array_header, reference;
} layouts[] = {{12, 16, 4}, {12, 16, 8}, {16, 24, 8}, {16, 24, 4},
               {8, 12, 4},  {8, 12, 8},  {16, 20, 8}};
#define MANY 1000u
#define MOST_ALIGNMENT 256u
#define LAYOUTS (sizeof layouts / sizeof layouts[0])

static uint64_t aligned(uint64_t size, uint32_t to) {
  return (size + to - 1) & ~(uint64_t)(to - 1);
}

static uint64_t array_size(const struct heap *heap, uint32_t kind, uint32_t count, uint32_t header,
                           uint32_t reference, uint32_t alignment) {
  uint64_t each = kind == OBJECT_ARRAY ? reference : type_size(heap, kind);
  uint64_t start = header;
  if (alignment > 1 && (kind == 7 || kind == 11)) /* elements of 8 bytes are aligned */
    start = aligned(start, 8);
  return aligned(start + each * count, alignment);
}

static void guess(struct heap *heap) {
  const struct object *objects = heap->objects.items;
  struct sizes *sizes = &heap->sizes;
  uint64_t votes[LAYOUTS] = {0}, low = 0;
  for (size_t i = 0; i < heap->objects.count; i++)
    low |= objects[i].id;
  sizes->alignment = low & 15 || !low ? 8 : 16;
  /* -XX:ObjectAlignmentInBytes; among few objects it would be chance. */
  while (heap->objects.count >= MANY && sizes->alignment < MOST_ALIGNMENT &&
         !(low & (2 * sizes->alignment - 1)))
    sizes->alignment *= 2;
  for (size_t i = 0; i + 1 < heap->objects.count; i++) {
    uint32_t kind = objects[i].place & ((1u << KIND_BITS) - 1);
    if (kind != OBJECT_ARRAY && kind != 8)
      continue;
    uint64_t gap = objects[i + 1].id - objects[i].id;
    for (size_t j = 0; j < LAYOUTS; j++)
      votes[j] += gap == array_size(heap, kind, heap->shallow[i], layouts[j].array_header,
                                    layouts[j].reference, sizes->alignment);
  }
  size_t best = 0;
  for (size_t j = 1; j < LAYOUTS; j++)
    if (votes[j] > votes[best])
      best = j;
  sizes->header = layouts[best].header;
  sizes->array_header = layouts[best].array_header;
  sizes->reference = layouts[best].reference;
}

static uint64_t raw_bytes(const struct heap *heap, const struct class *class) {
  const struct field *fields = (const struct field *)heap->fields.items + class->field_first;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < class->field_count; i++)
    bytes +=
        fields[i].type == TYPE_OBJECT ? heap->sizes.reference : type_size(heap, fields[i].type);
  return bytes;
}

/* Sizes of instances: fields of all classes above, whose ways up were made to end. */
static int size_classes(struct heap *heap) {
  struct class *classes = heap->classes.items;
  size_t count = heap->classes.count;
  uint64_t *bytes = memory_new(heap, count, sizeof *bytes); /* + 1; 0: not yet */
  uint32_t *way = memory_new(heap, count, sizeof *way);
  int result = bytes && way ? DONE : NO_MEMORY;
  for (size_t i = 0; i < count && !result; i++) {
    size_t depth = 0;
    uint32_t at = (uint32_t)i;
    while (at != NONE && !bytes[at]) {
      way[depth++] = at;
      at = classes[at].super_index;
    }
    uint64_t above = at == NONE ? 0 : bytes[at] - 1;
    while (depth--) {
      at = way[depth];
      above += raw_bytes(heap, &classes[at]);
      bytes[at] = above + 1;
    }
    uint64_t size = aligned(heap->sizes.header + bytes[i] - 1, heap->sizes.alignment);
    classes[i].size = size < NONE ? (uint32_t)size : NONE - 1;
  }
  memory_free(heap, bytes, count, sizeof *bytes);
  memory_free(heap, way, count, sizeof *way);
  return result;
}

/* How far behind the end of its fields the next object begins, for the instances of a class. */
struct padding {
  uint32_t more, alike, others;
};

#define MOST_PADDING 512u
#define FEW_ALIKE 3u
#define TIGHT 50u /* one in so many may have a gap behind it */

/**
 * What the virtual machine adds to instances: padding, and fields that a dump does not tell. No
 * object is of 8 bytes, so that a gap of 8 is padding. A larger one is, where all the instances of
 * a class have the same.
 */
static int find_padding(struct heap *heap) {
  struct class *classes = heap->classes.items;
  const struct object *objects = heap->objects.items;
  size_t count = heap->classes.count;
  struct padding *padding = memory_new(heap, count, sizeof *padding);
  if (!padding)
    return NO_MEMORY;
  /* Only where garbage was squeezed out before: else the gap may have been an object. */
  uint64_t seen = 0, tight = 0;
  for (size_t i = 0; i + 1 < heap->objects.count; i++) {
    uint32_t index = heap->class_of[i];
    if (index == NONE || (objects[i].place & ((1u << KIND_BITS) - 1)) != INSTANCE)
      continue;
    uint64_t gap = objects[i + 1].id - objects[i].id;
    if (gap < classes[index].size)
      continue;
    gap -= classes[index].size;
    seen++;
    tight += gap <= 8;
    struct padding *of = &padding[index];
    if (gap <= MOST_PADDING && (gap == of->more || !of->alike)) {
      of->more = (uint32_t)gap;
      of->alike++;
    } else if (gap < of->more) { /* something smaller was seen, so that was no padding */
      *of = (struct padding){(uint32_t)gap, 1, of->others + of->alike};
    } else {
      of->others++;
    }
  }
  for (size_t i = 0; i < count; i++) {
    const struct padding *of = &padding[i];
    bool sure = of->more == 8 || (tight >= seen - seen / TIGHT && of->alike >= FEW_ALIKE &&
                                  of->alike >= 4 * of->others);
    if (of->more && of->alike && sure)
      classes[i].size += of->more;
  }
  memory_free(heap, padding, count, sizeof *padding);
  return DONE;
}

/* An object of java.lang.Class has the static fields of its class behind its own. */
static uint64_t statics(const struct heap *heap, uint64_t id) {
  uint32_t index = class_find(heap, id);
  if (index == NONE)
    return 0;
  const struct class *class = (const struct class *)heap->classes.items + index;
  const struct field *fields = (const struct field *)heap->fields.items + class->static_first;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < class->static_count; i++)
    bytes +=
        fields[i].type == TYPE_OBJECT ? heap->sizes.reference : type_size(heap, fields[i].type);
  return bytes;
}

EXPORT int lsh_measure(struct heap *heap, const struct sizes *sizes);
int lsh_measure(struct heap *heap, const struct sizes *sizes) {
  heap->sizes = *sizes;
  if (sizes->guessed)
    guess(heap);
  uint32_t align = heap->sizes.alignment, unit = heap->sizes.unit;
  if (!align || align & (align - 1) || !unit)
    return TOO_MANY;
  int result = size_classes(heap);
  if (!result && sizes->padded && sizes->guessed)
    result = find_padding(heap);
  if (result)
    return result;
  const struct object *objects = heap->objects.items;
  const struct class *classes = heap->classes.items;
  for (size_t i = 0; i < heap->objects.count; i++) {
    uint32_t kind = objects[i].place & ((1u << KIND_BITS) - 1), index = heap->class_of[i];
    uint64_t size = aligned(heap->sizes.header, align);
    if (kind >= OBJECT_ARRAY)
      size = array_size(heap, kind, heap->shallow[i], heap->sizes.array_header,
                        heap->sizes.reference, align);
    else if (index != NONE)
      size = classes[index].size;
    if (kind == CLASS_OBJECT)
      size = sizes->padded ? aligned(size + statics(heap, objects[i].id), align) : 0;
    size = (size + unit - 1) / unit;
    heap->shallow[i] = size < NONE ? (uint32_t)size : NONE - 1;
  }
  return DONE;
}
