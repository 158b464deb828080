// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Heap dumps of Java (hprof, JDK and Android): what the parts of the analyser share.
 *
 * A dump is read twice from front to back, in pieces, and never mapped: one that becomes shorter
 * meanwhile is a short read and no signal. Objects are known by their number, which is their rank
 * by address. All of a dump is hostile: a number in it is used only after it was checked.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define NONE UINT32_MAX

/* What the functions return. */
enum result {
  DONE = 0,
  NO_MEMORY = -1, /* or more than the limit that was given */
  TOO_MANY = -2   /* more objects, fields or references than a number of 32 bits tells apart */
};

/* What an object is: the low bits of its place. 4 to 11 are arrays of that primitive type. */
enum kind { CLASS_OBJECT = 0, INSTANCE = 1, OBJECT_ARRAY = 2 };
#define KIND_BITS 4
#define TYPE_OBJECT 2u

/* How an object is held; smaller is stronger. */
enum level { GARBAGE = 0, STRONG = 1, SOFT = 2, FINAL = 3, WEAK = 4, PHANTOM = 5 };

/* Of `lsh_dominate` and `lsh_link`: rules that differ between tools. */
enum rules {
  CLASS_EDGES = 1,  /* an object holds its class, a class its super class */
  THREAD_EDGES = 2, /* what a thread's frames hold, the thread holds */
  ALL_PARENTS = 4   /* weak references and garbage count where something else holds the object */
};

/* A growing array whose memory is counted. */
struct list {
  void *items;
  size_t count, room;
};

struct text { /* a name: where its characters are */
  uint64_t id, offset;
  uint32_t length, reserved;
};

struct loaded {
  uint64_t class_id, name_id;
  uint32_t serial, trace;
};

struct frame {
  uint64_t id, method, signature, file;
  uint32_t class_serial;
  int32_t line;
};

struct trace { /* its frames are `count` ids from `first` on */
  uint32_t serial, thread;
  uint32_t first, count;
};

struct root {
  uint64_t id;
  uint32_t tag, thread; /* serial of the thread, 0: none */
  uint32_t frame, number;
};

struct heap_part { /* Android: objects from `offset` on lie in that heap */
  uint64_t offset, name_id;
};

struct class {
  uint64_t id, super, loader, signers, domain, offset;
  uint32_t instance_size; /* as the dump tells it */
  uint32_t field_first, field_count;
  uint32_t static_first, static_count;
  /* Worked out by `lsh_link`. */
  uint32_t super_index;
  uint32_t own_bytes;              /* of its own fields in an instance */
  uint32_t refs_first, refs_count; /* where its own references are there */
  uint32_t next, next_bytes;       /* next class above with references, how far behind */
  uint32_t kind;                   /* `enum level` of what an instance refers to, 0: no reference */
  uint32_t number;                 /* of its object */
  uint32_t size;                   /* of an instance, bytes */
};

struct field {
  uint64_t name_id;
  uint64_t value; /* of a static one */
  uint32_t type, reserved;
};

struct object {
  uint64_t id;
  uint64_t place; /* offset in the file, and what it is in the low bits */
};

struct weak {
  uint32_t from, to;
  uint32_t kind, reserved;
};

struct page {
  uint64_t page; /* + 1; 0: free */
  uint32_t first, reserved;
};

/* How large objects are in the virtual machine that wrote the dump. */
struct sizes {
  uint32_t header, array_header, reference, alignment;
  uint32_t unit;    /* sizes are kept in so many bytes */
  uint32_t guessed; /* 1: to be worked out from the distances of objects */
  uint32_t padded;  /* 1: padding, and what classes weigh, count: the truth and no rule of a tool */
};

struct facts {
  uint64_t truncated_at; /* the file ends too early here, 0: it does not */
  uint64_t damaged_at;   /* first place that cannot be understood, 0: none */
  uint64_t damaged;      /* such places */
  uint64_t duplicates;   /* objects with an address that another one had before */
  uint64_t nowhere;      /* references to what is not there */
  uint64_t short_bodies; /* instances with fewer bytes than their class has fields */
  uint64_t no_class;     /* instances of a class that is not there */
  uint64_t edges;
  uint64_t memory; /* bytes held now */
  uint64_t most;   /* bytes held at most */
  uint64_t ended;  /* 1: the end of the dump was marked */
  uint64_t segments;
};

struct reader {
  int fd;
  uint64_t size;
  uint64_t base; /* offset of what is in the buffer */
  size_t at, have;
  uint8_t *buffer;
};

struct heap {
  struct reader reader;
  uint64_t start;
  int id_size;
  uint64_t limit;
  struct facts facts;
  struct sizes sizes;
  struct list texts, loads, frames, traces, trace_frames, roots, parts;
  struct list classes, fields, objects, weak, edges, refs, extra;
  struct page *pages;
  size_t page_count;
  uint64_t page_factor;
  unsigned page_shift;
  uint32_t *class_of, *shallow, *out_first, *out_count;
  uint8_t *is_root;
  /* Results. */
  uint32_t *idom, *heaviest, *towards_root;
  uint64_t *retained;
  uint8_t *level;
  uint32_t reached;
};

/* What `lsh_link` has to be told: numbers are indices of classes, NONE: there is none. */
struct link {
  uint32_t primitive[12]; /* class of arrays of that type */
  uint32_t class_class, reference, soft, weak, final, phantom;
  uint32_t referent; /* bytes into the part of the class Reference of an instance */
  uint32_t rules;
};

/* ---- memory.c ---- */

void *memory_new(struct heap *heap, size_t count, size_t size);
void memory_free(struct heap *heap, void *memory, size_t count, size_t size);
/* Room for one more item, NULL: no memory. */
void *list_add(struct heap *heap, struct list *list, size_t size);
void list_free(struct heap *heap, struct list *list, size_t size);
/* Give back what is not used. */
void list_trim(struct heap *heap, struct list *list, size_t size);

/* ---- reader.c ---- */

bool reader_open(struct heap *heap, int fd, uint64_t size);
/* Go on at `offset`; what is in the buffer is not read again. */
void reader_seek(struct reader *reader, uint64_t offset);
/* The next `count` bytes, at most 64 KiB, NULL: there are not so many. */
const uint8_t *reader_take(struct reader *reader, size_t count);
/* False: the file ends before that. */
bool reader_skip(struct reader *reader, uint64_t count);

static inline uint64_t reader_tell(const struct reader *reader) {
  return reader->base + reader->at;
}

static inline uint32_t u2(const uint8_t *at) { return (uint32_t)at[0] << 8 | at[1]; }

static inline uint32_t u4(const uint8_t *at) {
  uint32_t value;
  __builtin_memcpy(&value, at, 4);
  return __builtin_bswap32(value);
}

static inline uint64_t u8(const uint8_t *at) {
  uint64_t value;
  __builtin_memcpy(&value, at, 8);
  return __builtin_bswap64(value);
}

static inline uint64_t id_at(const struct heap *heap, const uint8_t *at) {
  return heap->id_size == 8 ? u8(at) : u4(at);
}

/* Bytes of a value in a dump, 0: there is no such type. */
static inline uint32_t type_size(const struct heap *heap, uint32_t type) {
  static const uint8_t sizes[12] = {0, 0, 0, 0, 1, 2, 4, 8, 1, 2, 4, 8};
  return type == TYPE_OBJECT ? (uint32_t)heap->id_size : type < 12 ? sizes[type] : 0;
}

/* ---- records.c ---- */

/* What becomes of the records of a dump; each returns a `result`. */
struct visitor {
  bool indexing; /* names, classes and roots are kept */
  int (*object)(struct heap *heap, uint64_t id, uint64_t offset, uint32_t kind, uint32_t count,
                uint64_t class_id, uint64_t body_bytes);
};

/* Walk through all records. `object` may read its body: `body_bytes` from where the reader is. */
int records_walk(struct heap *heap, const struct visitor *visitor);

/* ---- index.c ---- */

int index_build(struct heap *heap);
/* The number of the object at an address, NONE: there is none. */
uint32_t index_find(const struct heap *heap, uint64_t id);
uint32_t class_find(const struct heap *heap, uint64_t id);
