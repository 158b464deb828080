// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The grammar of a dump: records, and in those of the heap sub-records.
 */
#include "hprof.h"

enum tag {
  UTF8 = 0x01,
  LOAD_CLASS = 0x02,
  FRAME = 0x04,
  TRACE = 0x05,
  HEAP_DUMP = 0x0c,
  HEAP_DUMP_SEGMENT = 0x1c,
  HEAP_DUMP_END = 0x2c,
  SUB_CLASS = 0x20,
  SUB_INSTANCE = 0x21,
  SUB_OBJECT_ARRAY = 0x22,
  SUB_PRIMITIVE_ARRAY = 0x23,
  SUB_PRIMITIVE_ARRAY_NODATA = 0xc3,
  SUB_HEAP_INFO = 0xfe
};

#define MOST_FRAMES 4096u /* of a stack */
#define RECORD 9u         /* bytes of a record's head */
#define AFTER_EMPTY 3u    /* records that follow a part of the heap that is empty */

/* More than DONE: what is there cannot be understood. */
enum { DAMAGED = 1, ENDED = 2 };

#define ADD(list, type) ((type *)list_add(heap, &heap->list, sizeof(type)))

static bool is_record(uint8_t tag) {
  return (tag >= 0x01 && tag <= 0x0e && tag != 0x08 && tag != 0x09) || tag == HEAP_DUMP_SEGMENT ||
         tag == HEAP_DUMP_END;
}

/* Bytes behind the tag of a root, 0: it is none. `words` numbers of 4 bytes follow the id. */
static unsigned root_bytes(const struct heap *heap, uint8_t tag, unsigned *words) {
  unsigned id = (unsigned)heap->id_size;
  *words = 0;
  switch (tag) {
  case 0xff: /* unknown */
  case 0x05: /* class that is never unloaded */
  case 0x07: /* monitor */
  case 0x89: /* Android: interned string */
  case 0x8a: /* being finalized */
  case 0x8b: /* debugger */
  case 0x8c: /* reference cleanup */
  case 0x8d: /* virtual machine */
  case 0x90: /* unreachable: no root */
    return id;
  case 0x01: /* JNI global: a second id */
    return 2 * id;
  case 0x04: /* native stack */
  case 0x06: /* block of a thread */
    *words = 1;
    return id + 4;
  case 0x02: /* JNI local */
  case 0x03: /* frame of a thread */
  case 0x08: /* thread */
  case 0x8e: /* Android: JNI monitor */
    *words = 2;
    return id + 8;
  default:
    return 0;
  }
}

static int read_root(struct heap *heap, uint8_t tag, unsigned bytes, unsigned words, bool keep) {
  const uint8_t *at = reader_take(&heap->reader, bytes);
  if (!at)
    return ENDED;
  if (!keep || tag == 0x90)
    return DONE;
  struct root *root = ADD(roots, struct root);
  if (!root)
    return NO_MEMORY;
  const uint8_t *more = at + heap->id_size;
  *root = (struct root){.id = id_at(heap, at), .tag = tag, .number = NONE};
  root->thread = words ? u4(more) : 0;
  root->frame = words > 1 ? u4(more + 4) : 0;
  return DONE;
}

/* A value of a type; false: the file ends. */
static bool read_value(struct heap *heap, uint32_t type, uint64_t *ret) {
  uint32_t size = type_size(heap, type);
  const uint8_t *at = reader_take(&heap->reader, size);
  if (!at)
    return false;
  *ret = size == 8 ? u8(at) : size == 4 ? u4(at) : size == 2 ? u2(at) : at[0];
  return true;
}

static int read_fields(struct heap *heap, bool is_static, bool keep, uint32_t *ret_first,
                       uint32_t *ret_count) {
  struct reader *reader = &heap->reader;
  const uint8_t *at = reader_take(reader, 2);
  if (!at)
    return ENDED;
  uint32_t count = u2(at);
  if (heap->fields.count + count > NONE - 1)
    return TOO_MANY;
  *ret_first = (uint32_t)heap->fields.count;
  *ret_count = count;
  for (uint32_t i = 0; i < count; i++) {
    at = reader_take(reader, (size_t)heap->id_size + 1);
    if (!at)
      return ENDED;
    struct field field = {.name_id = id_at(heap, at), .type = at[heap->id_size]};
    if (!type_size(heap, field.type))
      return DAMAGED;
    if (is_static && !read_value(heap, field.type, &field.value))
      return ENDED;
    if (!keep)
      continue;
    struct field *kept = ADD(fields, struct field);
    if (!kept)
      return NO_MEMORY;
    *kept = field;
  }
  return DONE;
}

static int skip_constants(struct heap *heap) {
  struct reader *reader = &heap->reader;
  const uint8_t *at = reader_take(reader, 2);
  if (!at)
    return ENDED;
  for (uint32_t left = u2(at); left; left--) {
    at = reader_take(reader, 3);
    if (!at)
      return ENDED;
    uint32_t size = type_size(heap, at[2]);
    if (!size)
      return DAMAGED;
    if (!reader_take(reader, size))
      return ENDED;
  }
  return DONE;
}

static int read_class(struct heap *heap, const struct visitor *visitor, uint64_t offset) {
  unsigned id = (unsigned)heap->id_size;
  const uint8_t *at = reader_take(&heap->reader, 7 * id + 8);
  if (!at)
    return ENDED;
  struct class class = {.offset = offset, .number = NONE};
  class.id = id_at(heap, at);
  at += id + 4;
  class.super = id_at(heap, at);
  class.loader = id_at(heap, at + id);
  class.signers = id_at(heap, at + 2 * id);
  class.domain = id_at(heap, at + 3 * id);
  class.instance_size = u4(at + 6 * id);
  bool keep = visitor->indexing;
  size_t fields = heap->fields.count;
  int result = skip_constants(heap);
  if (!result)
    result = read_fields(heap, true, keep, &class.static_first, &class.static_count);
  if (!result)
    result = read_fields(heap, false, keep, &class.field_first, &class.field_count);
  if (result) {
    heap->fields.count = fields;
    return result;
  }
  if (keep) {
    struct class *kept = ADD(classes, struct class);
    if (!kept)
      return NO_MEMORY;
    *kept = class;
  }
  return visitor->object(heap, class.id, offset, CLASS_OBJECT, 0, 0, 0);
}

/* Go on behind the body of an object, whatever was read of it. */
static int end_body(struct heap *heap, uint64_t end) {
  uint64_t at = reader_tell(&heap->reader);
  return at <= end && !reader_skip(&heap->reader, end - at) ? ENDED : DONE;
}

static int read_object(struct heap *heap, const struct visitor *visitor, uint8_t tag,
                       uint64_t offset) {
  struct reader *reader = &heap->reader;
  unsigned id = (unsigned)heap->id_size;
  bool primitive = tag == SUB_PRIMITIVE_ARRAY || tag == SUB_PRIMITIVE_ARRAY_NODATA;
  unsigned head = id + 4 + 4 + (primitive ? 1 : id);
  const uint8_t *at = reader_take(reader, head);
  if (!at)
    return ENDED;
  uint64_t object = id_at(heap, at), class_id = 0, bytes;
  uint32_t kind, count = 0;
  at += id + 4;
  if (tag == SUB_INSTANCE) {
    kind = INSTANCE;
    class_id = id_at(heap, at);
    bytes = u4(at + id);
  } else {
    count = u4(at);
    kind = OBJECT_ARRAY;
    bytes = (uint64_t)count * id;
    if (primitive) {
      kind = at[4];
      if (kind < 4 || !type_size(heap, kind))
        return DAMAGED;
      bytes = tag == SUB_PRIMITIVE_ARRAY ? (uint64_t)count * type_size(heap, kind) : 0;
    } else {
      class_id = id_at(heap, at + 4);
    }
  }
  uint64_t start = reader_tell(reader);
  if (bytes > reader->size || start > reader->size - bytes)
    return ENDED;
  int result = visitor->object(heap, object, offset, kind, count, class_id, bytes);
  return result ? result : end_body(heap, start + bytes);
}

static int read_heap_info(struct heap *heap, bool keep, uint64_t offset) {
  const uint8_t *at = reader_take(&heap->reader, 4 + (size_t)heap->id_size);
  if (!at)
    return ENDED;
  if (!keep)
    return DONE;
  struct heap_part *part = ADD(parts, struct heap_part);
  if (!part)
    return NO_MEMORY;
  *part = (struct heap_part){offset, id_at(heap, at + 4)};
  return DONE;
}

static int read_sub_record(struct heap *heap, const struct visitor *visitor) {
  uint64_t offset = reader_tell(&heap->reader);
  const uint8_t *at = reader_take(&heap->reader, 1);
  if (!at)
    return ENDED;
  uint8_t tag = *at;
  unsigned words, bytes = root_bytes(heap, tag, &words);
  if (bytes)
    return read_root(heap, tag, bytes, words, visitor->indexing);
  switch (tag) {
  case SUB_CLASS:
    return read_class(heap, visitor, offset);
  case SUB_INSTANCE:
  case SUB_OBJECT_ARRAY:
  case SUB_PRIMITIVE_ARRAY:
  case SUB_PRIMITIVE_ARRAY_NODATA:
    return read_object(heap, visitor, tag, offset);
  case SUB_HEAP_INFO:
    return read_heap_info(heap, visitor->indexing, offset);
  default:
    return DAMAGED;
  }
}

static void note_damage(struct heap *heap, uint64_t offset) {
  if (!heap->facts.damaged++)
    heap->facts.damaged_at = offset;
}

/* Whether `count` records, or fewer and the end of the file, are at `offset`. */
static bool records_at(struct heap *heap, uint64_t offset, unsigned count) {
  struct reader *reader = &heap->reader;
  for (; count && offset != reader->size; count--) {
    if (offset > reader->size || reader->size - offset < RECORD)
      return false;
    reader_seek(reader, offset);
    const uint8_t *at = reader_take(reader, RECORD);
    if (!at || !is_record(at[0]) || u4(at + 5) > reader->size - offset - RECORD)
      return false;
    offset += RECORD + u4(at + 5);
  }
  return true;
}

/**
 * Where the part of the heap at `start` ends. The length is of 32 bits: a dump in one part that is
 * larger has the rest of it, and one whose writer was stopped may have none. A part can be empty as
 * well; some tags of objects are also those of records, so that one record is no sign of it.
 */
static uint64_t heap_end(struct heap *heap, uint64_t start, uint32_t length, bool whole) {
  struct reader *reader = &heap->reader;
  uint64_t end = start + length, found = end;
  if (!length)
    found = records_at(heap, start, AFTER_EMPTY) ? start : reader->size;
  else if (whole && end < reader->size && !records_at(heap, end, 1))
    for (uint64_t more = end; more <= reader->size; more += (uint64_t)1 << 32)
      if (records_at(heap, more, 1)) {
        found = more;
        break;
      }
  reader_seek(reader, start);
  return found;
}

static int read_heap(struct heap *heap, const struct visitor *visitor, uint64_t end) {
  struct reader *reader = &heap->reader;
  if (visitor->indexing)
    heap->facts.segments++;
  while (reader_tell(reader) < end) {
    uint64_t offset = reader_tell(reader);
    int result = read_sub_record(heap, visitor);
    if (result < 0)
      return result;
    if (result == DONE && reader_tell(reader) <= end)
      continue;
    /* What follows has no marks to go on from, but for the next part of the heap. */
    if (visitor->indexing) {
      if (result == ENDED && end >= reader->size) {
        if (!heap->facts.truncated_at)
          heap->facts.truncated_at = offset;
      } else {
        note_damage(heap, offset);
      }
    }
    reader_seek(reader, end < reader->size ? end : reader->size);
    break;
  }
  return DONE;
}

static int read_text(struct heap *heap, uint64_t start, uint32_t length) {
  if (length < (uint32_t)heap->id_size)
    return DAMAGED;
  const uint8_t *at = reader_take(&heap->reader, (size_t)heap->id_size);
  if (!at)
    return ENDED;
  struct text *text = ADD(texts, struct text);
  if (!text)
    return NO_MEMORY;
  unsigned id = (unsigned)heap->id_size;
  *text = (struct text){.id = id_at(heap, at), .offset = start + id, .length = length - id};
  return DONE;
}

static int read_loaded(struct heap *heap, uint32_t length) {
  unsigned id = (unsigned)heap->id_size;
  if (length < 2 * id + 8)
    return DAMAGED;
  const uint8_t *at = reader_take(&heap->reader, 2 * id + 8);
  if (!at)
    return ENDED;
  struct loaded *loaded = ADD(loads, struct loaded);
  if (!loaded)
    return NO_MEMORY;
  loaded->serial = u4(at);
  loaded->class_id = id_at(heap, at + 4);
  loaded->trace = u4(at + 4 + id);
  loaded->name_id = id_at(heap, at + 8 + id);
  return DONE;
}

static int read_frame(struct heap *heap, uint32_t length) {
  unsigned id = (unsigned)heap->id_size;
  if (length < 4 * id + 8)
    return DAMAGED;
  const uint8_t *at = reader_take(&heap->reader, 4 * id + 8);
  if (!at)
    return ENDED;
  struct frame *frame = ADD(frames, struct frame);
  if (!frame)
    return NO_MEMORY;
  frame->id = id_at(heap, at);
  frame->method = id_at(heap, at + id);
  frame->signature = id_at(heap, at + 2 * id);
  frame->file = id_at(heap, at + 3 * id);
  frame->class_serial = u4(at + 4 * id);
  frame->line = (int32_t)u4(at + 4 * id + 4);
  return DONE;
}

static int read_trace(struct heap *heap, uint32_t length) {
  const uint8_t *at = length < 12 ? NULL : reader_take(&heap->reader, 12);
  if (!at)
    return length < 12 ? DAMAGED : ENDED;
  uint32_t count = u4(at + 8), room = (length - 12) / (uint32_t)heap->id_size;
  count = count > room ? room : count;
  count = count > MOST_FRAMES ? MOST_FRAMES : count;
  if (heap->trace_frames.count + count > NONE - 1)
    return TOO_MANY;
  struct trace *trace = ADD(traces, struct trace);
  if (!trace)
    return NO_MEMORY;
  *trace = (struct trace){u4(at), u4(at + 4), (uint32_t)heap->trace_frames.count, 0};
  for (uint32_t i = 0; i < count; i++) {
    at = reader_take(&heap->reader, (size_t)heap->id_size);
    if (!at)
      return ENDED;
    uint64_t id = id_at(heap, at);
    uint64_t *kept = ADD(trace_frames, uint64_t);
    if (!kept)
      return NO_MEMORY;
    *kept = id;
    ((struct trace *)heap->traces.items)[heap->traces.count - 1].count++;
  }
  return DONE;
}

int records_walk(struct heap *heap, const struct visitor *visitor) {
  struct reader *reader = &heap->reader;
  bool indexing = visitor->indexing;
  reader_seek(reader, heap->start);
  while (reader_tell(reader) < reader->size) {
    uint64_t offset = reader_tell(reader);
    const uint8_t *at = reader_take(reader, RECORD);
    if (!at) {
      if (indexing)
        heap->facts.truncated_at = offset;
      break;
    }
    uint8_t tag = at[0];
    uint32_t length = u4(at + 5);
    uint64_t start = offset + RECORD, end = start + length;
    if (!is_record(tag)) {
      if (indexing)
        note_damage(heap, offset);
      break;
    }
    int result = DONE;
    if (tag == HEAP_DUMP || tag == HEAP_DUMP_SEGMENT) {
      end = heap_end(heap, start, length, tag == HEAP_DUMP);
      if (end > reader->size && indexing && !heap->facts.truncated_at)
        heap->facts.truncated_at = reader->size;
      result = read_heap(heap, visitor, end);
    } else if (end > reader->size) {
      if (indexing)
        heap->facts.truncated_at = offset;
      break;
    } else if (indexing) {
      result = tag == UTF8         ? read_text(heap, start, length)
               : tag == LOAD_CLASS ? read_loaded(heap, length)
               : tag == FRAME      ? read_frame(heap, length)
               : tag == TRACE      ? read_trace(heap, length)
                                   : DONE;
      if (tag == HEAP_DUMP_END)
        heap->facts.ended = 1;
    }
    if (result < 0)
      return result;
    if (result == DAMAGED && indexing)
      note_damage(heap, offset);
    if (end > reader->size)
      break;
    reader_seek(reader, end);
  }
  return DONE;
}
